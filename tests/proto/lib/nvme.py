# SPDX-License-Identifier: MIT
"""A small NVMe driver over the qtest protocol: config space by ECAM, queues in guest memory, polled completions."""
import struct
import time

from lib import qtest
from lib.machine import TIMEOUT

RAM, ECAM, MMIO = 0x80000000, 0x30000000, 0x40000000
PAGE = 4096


class Qtest(qtest.Qtest):
    """With the names of a driver's accessors."""

    def readl(self, addr):
        return self.rd(addr)

    def readq(self, addr):
        return self.rd(addr, 8)

    def writel(self, addr, v):
        self.wr(addr, v)

    def writeq(self, addr, v):
        self.wr(addr, v, 8)


class Completion:
    """What came back: .status without phase and DNR, .dnr, .result."""

    def __init__(self, raw):
        self.result, self.sq_head, self.sq, self.cid, st = struct.unpack("<QHHHH", raw)
        self.status, self.dnr, self.more = st >> 1 & 0x7ff, st >> 15, st >> 14 & 1

    def __repr__(self):
        return "<status %03x%s result %x>" % (self.status, " dnr" if self.dnr else "", self.result)


class Queue:
    """A pair of queues at an address."""

    def __init__(self, nvme, qid, addr, size):
        self.nvme, self.qid, self.sq, self.cq, self.size = nvme, qid, addr, addr + 0x10000, size
        self.tail = self.head = 0
        self.phase, self.cid = 1, 0
        nvme.q.cmd("memset 0x%x 0x%x 0x0" % (self.cq, size * 16))

    def submit(self, opcode, nsid=0, flags=0, prp1=0, prp2=0, mptr=0, cdw=(), ring=True, cdw2=0, cdw3=0):
        """Puts a command in the queue; returns its id."""
        cdw = list(cdw) + [0] * (6 - len(cdw))
        self.cid = (self.cid + 1) & 0xfff
        raw = struct.pack("<BBHIIIQQQ6I", opcode, flags, self.cid, nsid, cdw2, cdw3, mptr, prp1, prp2, *[c & 0xffffffff for c in cdw])
        self.nvme.q.write(self.sq + 64 * self.tail, raw)
        self.tail = (self.tail + 1) % self.size
        if ring:
            self.ring()
        return self.cid

    def ring(self):
        self.nvme.writel(0x1000 + 8 * self.qid, self.tail)

    def ready(self):
        return struct.unpack("<H", self.nvme.q.read(self.cq + 16 * self.head + 14, 2))[0] & 1 == self.phase

    def poll(self, timeout=TIMEOUT, step=0):
        """The next completion."""
        end = time.monotonic() + timeout
        while not self.ready():
            assert time.monotonic() < end, "no completion in queue %d, CSTS %x" % (self.qid, self.nvme.readl(0x1c))
            if step:
                self.nvme.q.step(step)
        c = Completion(self.nvme.q.read(self.cq + 16 * self.head, 16))
        self.head = (self.head + 1) % self.size
        if not self.head:
            self.phase ^= 1
        self.nvme.writel(0x1004 + 8 * self.qid, self.head)
        return c

    def run(self, opcode, *args, **kw):
        """Submits and waits."""
        cid = self.submit(opcode, *args, **kw)
        c = self.poll()
        assert c.cid == cid and c.sq == self.qid
        return c


class Nvme:
    """The n-th function on the root bus, enabled, with an admin queue and (on demand) I/O queues."""

    def __init__(self, q, slot=1, bar=MMIO, mem=RAM + 0x100000):
        self.q, self.cfg, self.bar, self.mem, self.next = q, ECAM + (slot << 15), bar, mem, mem
        q.writel(self.cfg + 0x10, bar & 0xffffffff)
        q.writel(self.cfg + 0x14, bar >> 32)
        q.writel(self.cfg + 0x04, 0x6)
        self.admin = None

    def readl(self, off):
        return self.q.readl(self.bar + off)

    def readq(self, off):
        return self.q.readq(self.bar + off)

    def writel(self, off, v):
        self.q.writel(self.bar + off, v)

    def writeq(self, off, v):
        self.q.writeq(self.bar + off, v)

    def alloc(self, size=PAGE):
        """Zeroed guest memory, page aligned."""
        at, self.next = self.next, self.next + (size + PAGE - 1) // PAGE * PAGE
        self.q.cmd("memset 0x%x 0x%x 0x0" % (at, size))
        return at

    def wait(self, off, mask, value):
        end = time.monotonic() + TIMEOUT
        while self.readl(off) & mask != value:
            assert time.monotonic() < end, "register 0x%x stays 0x%x" % (off, self.readl(off))

    def enable(self, size=32, cc=0x00460001):
        self.admin = Queue(self, 0, self.alloc(0x20000), size)
        self.writel(0x24, (size - 1) << 16 | (size - 1))
        self.writeq(0x28, self.admin.sq)
        self.writeq(0x30, self.admin.cq)
        self.writel(0x14, cc)
        self.wait(0x1c, 3, 1)
        return self

    def disable(self):
        self.writel(0x14, 0x00460000)
        self.wait(0x1c, 1, 0)

    def io_queue(self, qid=1, size=64, prio=0):
        io = Queue(self, qid, self.alloc(0x20000), size)
        c = self.admin.run(0x05, prp1=io.cq, cdw=((size - 1) << 16 | qid, 1))
        assert c.status == 0, c
        c = self.admin.run(0x01, prp1=io.sq, cdw=((size - 1) << 16 | qid, qid << 16 | prio << 1 | 1))
        assert c.status == 0, c
        return io

    def identify(self, cns, nsid=0, csi=0, cntid=0, cdw11=0):
        buf = self.alloc()
        c = self.admin.run(0x06, nsid=nsid, prp1=buf, cdw=(cntid << 16 | cns, csi << 24 | cdw11))
        return c if c.status else self.q.read(buf, PAGE)

    def log(self, lid, size, nsid=0xffffffff, off=0, rae=0, lsp=0, lsi=0, csi=0):
        buf, n = self.alloc(max(size, PAGE)), size // 4 - 1
        c = self.admin.run(0x02, nsid=nsid, prp1=buf, prp2=buf + PAGE if size <= 2 * PAGE else self.prp_list(buf + PAGE, size - PAGE),
                           cdw=((n & 0xffff) << 16 | rae << 15 | lsp << 8 | lid, lsi << 16 | n >> 16, off & 0xffffffff, off >> 32, csi << 24))
        return c if c.status else self.q.read(buf, size)

    def prp_list(self, addr, size):
        """A PRP list of the pages from ADDR on."""
        pages = [addr + i * PAGE for i in range((size + PAGE - 1) // PAGE)]
        at = self.alloc(8 * len(pages))
        self.q.write(at, struct.pack("<%dQ" % len(pages), *pages))
        return at

    def feature(self, fid, sel=0, nsid=0, cdw11=0, prp1=0):
        return self.admin.run(0x0a, nsid=nsid, prp1=prp1, cdw=(sel << 8 | fid, cdw11))

    def set_feature(self, fid, value, nsid=0, save=0, prp1=0, cdw12=0, cdw13=0, cdw14=0, cdw15=0):
        return self.admin.run(0x09, nsid=nsid, prp1=prp1, cdw=(save << 31 | fid, value, cdw12, cdw13, cdw14, cdw15))


class NvmeMachine(qtest.QtestMachine):
    """with NvmeMachine(tmp_path, "-device", ...) as m: m.nvme(1).enable()"""

    CLIENT = Qtest

    def nvme(self, slot=1, n=0):
        return Nvme(self.q, slot, MMIO + (n << 24), RAM + 0x100000 + (n << 24))


def rw(io, opcode, nsid, slba, nlb, buf, control=0, size=512, **kw):
    """A read or write of NLB blocks at a contiguous buffer."""
    nbytes = nlb * size
    prp2 = 0 if nbytes <= PAGE else buf + PAGE if nbytes <= 2 * PAGE else io.nvme.prp_list(buf + PAGE, nbytes - PAGE)
    extra = kw.pop("cdw", ())
    return io.run(opcode, nsid, prp1=buf, prp2=prp2, cdw=(slba & 0xffffffff, slba >> 32, nlb - 1 | control << 16) + tuple(extra), **kw)


def write(io, nsid, slba, data, size=512, **kw):
    buf = io.nvme.alloc(len(data))
    io.nvme.q.write(buf, data)
    return rw(io, 0x01, nsid, slba, len(data) // size, buf, size=size, **kw)


def read(io, nsid, slba, nlb, size=512, **kw):
    buf = io.nvme.alloc(nlb * size)
    c = rw(io, 0x02, nsid, slba, nlb, buf, size=size, **kw)
    return c if c.status else io.nvme.q.read(buf, nlb * size)
