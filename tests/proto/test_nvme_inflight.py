# SPDX-License-Identifier: MIT
"""What takes a namespace or a controller away while commands are at the disk, as public reports have it: detaching, formatting, sanitizing,
deleting queues, virtual functions reset or taken offline. Every command ends once or, where its controller is reset, never."""
import os
import random
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import PAGE, NvmeMachine, read
from test_nvme_virt import ONLINE, OFFLINE, Primary, bring_up

STEP = 100_000_000
MIB = 1 << 20
WRITES = 6
INVALID_FIELD, FORMAT_BUSY, SANITIZE_BUSY, ABORTED, DELETED = 0x002, 0x084, 0x01d, 0x007, 0x008


@pytest.fixture(name="m", params=(("", 5),), ids=("slow",))
def machine(tmp_path, request):
    """The parameter: options of the subsystem; writes a second."""
    more, iops = request.param
    with open(tmp_path / "img", "wb") as f:
        f.truncate(4 * MIB)
    with NvmeMachine(tmp_path, "-object", "throttle-group,id=g,x-iops-write=%d" % iops, "-drive", "file=%s/img,format=raw,if=none,id=f" % tmp_path,
                     "-blockdev", "throttle,node-name=slow,throttle-group=g,file=f", "-device", "nvme-subsys,id=ss" + more, "-device",
                     "nvme,id=pf,serial=PF,subsys=ss,addr=1,max_ioqpairs=16,msix_qsize=17,sriov_max_vfs=3,sriov_vq_flexible=10,sriov_vi_flexible=6,"
                     "sriov_max_vq_per_vf=5,sriov_max_vi_per_vf=3", "-device", "nvme-ns,bus=pf,drive=slow,nsid=1") as m:
        m.pf = Primary(m.q).enable()
        yield m


def start(n, io, count=WRITES):
    """Writes of which most wait at the disk; their ids."""
    buf = n.alloc()
    n.q.write(buf, b"w" * PAGE)
    cids = [io.submit(1, 1, prp1=buf, cdw=(8 * i, 0, 7)) for i in range(count)]
    assert n.readl(0x1c) & 1                            # the doorbells are served
    return cids


def ends(io, cids):
    """{id: status} once each of CIDS has ended."""
    got = {}
    while len(got) < len(cids):
        c = io.poll(step=STEP)
        assert c.cid in cids and c.cid not in got
        got[c.cid] = c.status
    return got


def admin(n, cid):
    c = n.admin.poll(step=STEP)
    assert c.cid == cid
    return c.status


def detach(n):
    buf = n.alloc()
    n.q.write(buf, struct.pack("<HH", 1, 0).ljust(PAGE, b"\0"))
    return n.admin.submit(0x15, 1, prp1=buf, cdw=(1,))


def test_detached(m):
    io = m.pf.io_queue()
    cids = start(m.pf, io)
    cid = detach(m.pf)
    assert admin(m.pf, cid) == 0 and set(ends(io, cids).values()) <= {0, INVALID_FIELD}
    assert io.run(2, 1, prp1=m.pf.alloc(), cdw=(0, 0, 0)).status == INVALID_FIELD


@pytest.mark.parametrize("opcode,dword,busy", ((0x80, 0, FORMAT_BUSY), (0x84, 2, SANITIZE_BUSY)))
def test_erased(m, opcode, dword, busy):
    """What runs is waited for, what comes later is refused or finds nothing; no write survives."""
    io = m.pf.io_queue()
    cids = start(m.pf, io)
    cid = m.pf.admin.submit(opcode, 1 if opcode == 0x80 else 0, cdw=(dword,))
    m.q.step(0)
    cids += start(m.pf, io, 1)
    st = ends(io, cids)
    assert set(st.values()) <= {0, busy}, st
    assert admin(m.pf, cid) == 0
    while opcode == 0x84 and m.pf.log(0x81, 512)[2] & 7 == 2:           # sanitize goes on behind its command
        m.q.step(STEP)
    if st[cids[-1]]:
        assert read(io, 1, 0, 8 * WRITES) == bytes(PAGE * WRITES)
    else:
        assert read(io, 1, 0, 8) in (bytes(PAGE), b"w" * PAGE) and read(io, 1, 8, 8 * (WRITES - 1)) == bytes(PAGE * (WRITES - 1))


def test_queues_deleted(m):
    io = m.pf.io_queue()
    cids = start(m.pf, io)
    cid = m.pf.admin.submit(0, cdw=(1,))
    assert admin(m.pf, cid) == 0
    done = {}
    while io.ready():
        c = io.poll()
        assert c.cid in cids and c.cid not in done and c.status in (0, ABORTED, DELETED)
        done[c.cid] = c.status
    assert m.pf.admin.run(4, cdw=(1,)).status == 0
    assert read(m.pf.io_queue(), 1, 8 * WRITES, 8) == bytes(PAGE)


@pytest.mark.parametrize("how", ("function", "offline", "controller", "primary"))
def test_functions_that_go(m, how):
    """A secondary controller loses its commands, its neighbour none; memory that the guest has back is not written."""
    one, two = bring_up(m)
    one.enable()
    two.enable()
    queues = one.io_queue(), two.io_queue()
    start(one, queues[0])
    kept = start(two, queues[1])
    if how == "function":
        m.q.wr(one.cfg + one.cap(0x10) + 8, 0x8000, 2)
    elif how == "offline":
        assert m.pf.virt(OFFLINE, 1).status == 0
    elif how == "controller":
        one.writel(0x14, 0x00460000)
    else:
        m.pf.writel(0x14, 0x00460000)                   # takes all of them offline
    if how in ("offline", "primary"):
        one.wait(0x1c, 2, 2)                            # it has heard of it
    where = queues[0].cq
    before = m.q.read(where, 16 * 64)
    if how != "primary":
        assert set(ends(queues[1], kept).values()) == {0}
    for _ in range(40):
        m.q.step(STEP)
    while how == "function" and m.q.rd(one.cfg + 8, 1) == 0xff:
        m.q.step(STEP)
    assert m.q.read(where, 16 * 64) == before
    if how == "primary":
        m.pf.wait(0x1c, 1, 0)
        m.pf.enable()
        assert [s[2] for s in m.pf.secondaries()] == [0, 0, 0]
        assert read(m.pf.io_queue(), 1, 0, 8) in (bytes(PAGE), b"w" * PAGE)
        return
    if how == "offline":
        assert m.pf.virt(ONLINE, 1).status == 0
    one.q.wr(one.cfg + 4, 4, 2)
    if how != "function":
        one.writel(0x14, 0)
        one.wait(0x1c, 1, 0)
    assert read(one.enable().io_queue(), 1, 0, 8) in (bytes(PAGE), b"w" * PAGE)


class Writer:
    """A function that writes to a placement handle; what it lost is nobody's."""

    def __init__(self, n):
        self.n, self.start, self.asked, self.told = n, n.next, 0, 0

    def begin(self):
        self.n.next = self.start
        self.io = self.n.enable().io_queue()
        buf = self.n.alloc()
        self.n.q.write(buf, b"w" * PAGE)
        self.cids = [self.io.submit(1, 1, prp1=buf, cdw=(8 * i, 0, 7 | 2 << 20), ring=i == WRITES - 1) for i in range(WRITES)]
        self.asked += WRITES
        assert self.n.readl(0x1c) & 1

    def end(self):
        assert set(ends(self.io, self.cids).values()) == {0}
        self.told += WRITES


@pytest.mark.parametrize("m", ((",fdp=on,fdp.nruh=1,fdp.nrg=1,fdp.runs=1M", 100),), ids=("fdp",), indirect=True)
def test_rounds_of_functions_and_placement(m):
    """Functions that go and come, one at a time, while all write: the others lose nothing, and what placement counts is what was written."""
    r, runs, lost = random.Random(5), MIB, 0
    fns = bring_up(m)
    writers = [Writer(f) for f in fns]
    for _ in range(12):
        for w in writers:
            w.begin()
        going, how = r.choice(writers), r.choice(("function", "offline", "controller", "none"))
        f = going.n
        if how == "function":
            m.q.wr(f.cfg + f.cap(0x10) + 8, 0x8000, 2)
        elif how == "offline":
            assert m.pf.virt(OFFLINE, 1 + fns.index(f)).status == 0
            f.wait(0x1c, 2, 2)
        elif how == "controller":
            f.writel(0x14, 0x00460000)
        before = m.q.read(going.io.cq, 16 * 64)         # not one entry more from here on
        lost += 0 if how == "none" else WRITES - sum(before[16 * i + 14] & 1 for i in range(WRITES))
        for w in writers:
            if w is not going or how == "none":
                w.end()
        while how == "function" and m.q.rd(f.cfg + 8, 1) == 0xff:
            m.q.step(STEP)
        assert how == "none" or m.q.read(going.io.cq, 16 * 64) == before
        if how == "offline":
            assert m.pf.virt(ONLINE, 1 + fns.index(f)).status == 0
        for w in writers:
            w.n.q.wr(w.n.cfg + 4, 4, 2)
            w.n.writel(0x14, 0)
            while w.n.readl(0x1c) & 1:
                m.q.step(STEP)
    assert lost                                         # there was something to lose
    written = struct.unpack_from("<Q", m.pf.log(0x22, 64, lsi=1))[0]
    assert sum(w.told for w in writers) * PAGE <= written <= sum(w.asked for w in writers) * PAGE
    io, buf = m.pf.io_queue(), m.pf.alloc()
    assert io.run(0x12, 1, prp1=buf, cdw=(1, 63)).status == 0
    left = struct.unpack_from("<Q", m.q.read(buf + 16 + 8, 8))[0] * 512
    assert (written + left) % runs == 0
