# SPDX-License-Identifier: MIT
"""NVMe boot partitions: read by registers before the controller is enabled, by the log page, written by firmware commits. Streams."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import PAGE, NvmeMachine, rw

BP = 256 << 10                                      # bytes of a partition
BPINFO, BPRSEL, BPMBL = 0x40, 0x44, 0x48


@pytest.fixture(name="home")
def folder(tmp_path):
    data = os.urandom(2 * BP)
    (tmp_path / "boot").write_bytes(data)
    with open(tmp_path / "img", "wb") as f:
        f.truncate(4 << 20)
    return tmp_path, data


def machine(tmp, extra=""):
    return NvmeMachine(tmp, "-drive", "file=%s/img,format=raw,if=none,id=d" % tmp, "-drive", "file=%s/boot,format=raw,if=none,id=b%s" % (tmp, extra),
                       "-device", "nvme,serial=B,addr=1,drive=d,boot-drive=b,state=%s/state" % tmp)


def fetch(n, part, first, pages, to):
    """Reads PAGES pages of partition PART by registers; BRS at the end."""
    n.writeq(BPMBL, to)
    n.writel(BPRSEL, part << 31 | first << 10 | pages)
    while n.readl(BPINFO) >> 24 & 3 == 1:
        pass
    return n.readl(BPINFO) >> 24 & 3


def test_read_before_enabling(home):
    tmp, data = home
    with machine(tmp) as m:
        n = m.nvme(1)
        assert n.readq(0) >> 45 & 1 and n.readl(BPINFO) == BP >> 17
        buf = n.alloc(BP)
        assert fetch(n, 0, 0, 64, buf) == 2 and n.q.read(buf, BP) == data[:BP]
        assert fetch(n, 1, 3, 2, buf) == 2 and n.q.read(buf, 2 * PAGE) == data[BP + 3 * PAGE:BP + 5 * PAGE]
        for args in ((0, 0, 65, buf), (0, 64, 1, buf), (0, 0xfffff, 1, buf), (0, 0, 0, buf), (0, 0, 1, 0x10000000)):
            assert fetch(n, *args) == 3, args
        n.enable()
        assert fetch(n, 1, 0, 1, buf) == 2 and n.q.read(buf, PAGE) == data[BP:BP + PAGE]


def test_log_page(home):
    tmp, data = home
    with machine(tmp) as m:
        n = m.nvme(1).enable()
        raw = n.log(0x15, 8192)
        assert raw[0] == 0x15 and struct.unpack_from("<I", raw, 4)[0] == 2 and raw[16:] == data[:8176]
        assert n.log(0x15, 4096, off=8, lsp=1)[8:] == data[BP:BP + 4088] and n.log(0x15, 64, off=BP)[:16] == data[BP - 16:BP]
        assert n.log(0x15, 64, off=BP + 20).status == 2 and struct.unpack_from("<I", n.log(0, 1024), 4 * 0x15)[0] & 1


def download(n, image):
    for at in range(0, len(image), PAGE):
        buf = n.alloc()
        n.q.write(buf, image[at:at + PAGE])
        assert n.admin.run(0x11, prp1=buf, cdw=(PAGE // 4 - 1, at // 4)).status == 0


def commit(n, action, part):
    return n.admin.run(0x10, cdw=(part << 31 | action << 3,)).status


def test_replace_and_activate(home):
    tmp, data = home
    image = os.urandom(5 * PAGE)
    with machine(tmp) as m:
        n = m.nvme(1).enable()
        assert commit(n, 6, 1) == 0x107                         # no image
        download(n, image)
        assert commit(n, 6, 1) == 0 and n.readl(BPINFO) >> 31 == 0 and commit(n, 7, 1) == 0 and n.readl(BPINFO) >> 31 == 1
        assert n.log(0x15, 4096)[16:] == data[:4080] and n.log(0x15, 4096, lsp=1)[16:] == image[:4080]
        assert commit(n, 6, 1) == 0x107 and commit(n, 5, 0) == 2
        n.disable()
        assert n.readl(BPINFO) >> 31 == 1
        m.qmp.cmd("quit")
        assert m.wait() == 0
    assert (tmp / "boot").read_bytes() == data[:BP] + image + bytes(BP - len(image))
    with machine(tmp, ",readonly=on") as m:
        n = m.nvme(1).enable()
        assert n.readl(BPINFO) >> 31 == 1                       # in the state file
        download(n, image)
        assert commit(n, 6, 0) == 0x11e


def test_without_partitions(tmp_path):
    with NvmeMachine(tmp_path, "-device", "nvme,serial=N,addr=1") as m:
        n = m.nvme(1)
        n.writel(BPRSEL, 1)
        assert n.readl(BPINFO) == 0 and not n.readq(0) >> 45 & 1
        n.enable()
        assert n.log(0x15, 64).status == 0x109 and commit(n, 7, 0) == 2


@pytest.mark.parametrize("size", (1000, 128 << 10, 384 << 10, 65 << 20))
def test_sizes_that_are_no_two_partitions(tmp_path, size):
    with open(tmp_path / "b", "wb") as f:
        f.truncate(size)
    status, _, err = run("-M", "virt", "-drive", "file=%s,format=raw,if=none,id=b" % (tmp_path / "b"), "-device", "nvme,serial=x,boot-drive=b")
    assert status == 1 and "boot-drive" in err, err


# ---- streams ----

class Streams:
    """The directive of one namespace."""

    def __init__(self, n, nsid):
        self.n, self.nsid, self.buf = n, nsid, n.alloc()

    def enable(self, on=1):
        return self.n.admin.run(0x19, nsid=self.nsid, cdw=(0, 1, 1 << 8 | on)).status

    def receive(self, oper, size, cdw12=0):
        c = self.n.admin.run(0x1a, nsid=self.nsid, prp1=self.buf, cdw=(size // 4 - 1, 1 << 8 | oper, cdw12))
        return c if c.status or oper == 3 else self.n.q.read(self.buf, size)

    def release(self, oper, sid=0):
        return self.n.admin.run(0x19, nsid=self.nsid, cdw=(0, sid << 16 | 1 << 8 | oper)).status

    def open(self):
        raw = self.receive(2, 64)
        return list(struct.unpack_from("<%dH" % struct.unpack_from("<H", raw)[0], raw, 2))

    def counts(self):
        """NSSA, NSSO, NSA, NSO."""
        raw = self.receive(1, 32)
        assert struct.unpack_from("<H", raw)[0] == 16 and struct.unpack_from("<IH", raw, 16) == (8, 256)
        return struct.unpack_from("<HH", raw, 2) + struct.unpack_from("<HH", raw, 22)


def test_streams(tmp_path):
    args = []
    for i in (1, 2):
        with open(tmp_path / ("s%d" % i), "wb") as f:
            f.truncate(1 << 20)
        args += ["-drive", "file=%s/s%d,format=raw,if=none,id=s%d" % (tmp_path, i, i), "-device", "nvme-ns,bus=c,drive=s%d,nsid=%d" % (i, i)]
    with NvmeMachine(tmp_path, "-device", "nvme,serial=S,id=c,addr=1", *args) as m:
        n = m.nvme(1).enable()
        io, buf, one, two = n.io_queue(), n.alloc(), Streams(n, 1), Streams(n, 2)

        def put(nsid, sid):
            return rw(io, 1, nsid, 0, 1, buf, control=1 << 4, cdw=(sid << 16,)).status

        assert put(1, 5) == 2 and one.receive(1, 32).status == 2        # it is off
        assert one.enable() == 0 and one.counts() == (16, 0, 0, 0)
        assert n.q.read(n.admin.run(0x1a, nsid=1, prp1=one.buf, cdw=(1023, 1)).status or one.buf, 33)[32] == 3
        assert [put(1, s) for s in (5, 9, 5, 0)] == [0] * 4 and one.open() == [5, 9] and one.counts() == (16, 2, 0, 2)
        assert one.receive(3, 4, 4).result == 4 and one.counts() == (12, 0, 4, 2) and one.receive(3, 4, 4).status == 2
        assert two.enable() == 0 and two.receive(3, 4, 100).result == 12 and two.counts() == (0, 0, 12, 0)
        assert [put(1, s) for s in range(20, 24)] == [0] * 4 and one.open() == [20, 21, 22, 23]         # the oldest went
        assert one.release(1, 21) == 0 and one.open() == [20, 22, 23] and one.release(2) == 0 and one.counts() == (4, 0, 0, 0)
        assert one.release(3) == 2 and one.receive(4, 4).status == 2 and two.enable(0) == 0 and put(2, 1) == 2 and one.counts()[0] == 16
        assert put(1, 7) == 0
        n.disable()
        n.enable()
        io = n.io_queue()
        assert rw(io, 1, 1, 0, 1, buf, control=1 << 4, cdw=(7 << 16,)).status == 2              # off again
        assert one.enable() == 0 and one.open() == []
