# SPDX-License-Identifier: MIT
"""NVMe virtualization enhancements: virtual functions as secondary controllers, flexible resources, virtualization management."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import ECAM, MMIO, RAM, Nvme, NvmeMachine, read, write

VF_BARS = 0x50000000
PRIMARY, OFFLINE, ASSIGN, ONLINE = 1, 7, 8, 9
QUEUES, VECTORS = 0, 1


class Function(Nvme):
    """The I-th virtual function of PF."""

    def __init__(self, pf, i, size):
        self.q, self.cfg, self.bar, self.next, self.admin = pf.q, pf.cfg + ((i + 1) << 12), VF_BARS + i * size, RAM + ((16 + i) << 20), None
        self.q.wr(self.cfg + 4, 4, 2)                   # bus master: there is nothing else to set

    def cap(self, cid):
        at = self.q.rd(self.cfg + 0x34, 1)
        while at and self.q.rd(self.cfg + at, 1) != cid:
            at = self.q.rd(self.cfg + at + 1, 1)
        return at


class Primary(Nvme):
    """The physical function."""

    def __init__(self, q, slot=1):
        super().__init__(q, slot)
        self.at = 0x100
        while self.q.readl(self.cfg + self.at) & 0xffff != 0x10:
            self.at = self.q.readl(self.cfg + self.at) >> 20
            assert self.at, "no SR-IOV capability"
        q.writel(self.cfg + self.at + 0x24, 0xffffffff)
        self.vf_size = (~q.readl(self.cfg + self.at + 0x24) & 0xfffffff0) + 16

    def functions(self, n):
        """Enables N of them."""
        self.q.wr(self.cfg + self.at + 8, 0, 2)
        self.q.writel(self.cfg + self.at + 0x24, VF_BARS)
        self.q.writel(self.cfg + self.at + 0x28, 0)
        self.q.wr(self.cfg + self.at + 0x10, n, 2)
        self.q.wr(self.cfg + self.at + 8, 9 if n else 0, 2)
        return [Function(self, i, self.vf_size) for i in range(n)]

    def virt(self, action, cntlid, rt=0, nr=0):
        return self.admin.run(0x1c, cdw=(cntlid << 16 | rt << 8 | action, nr))

    def free_all(self):
        """Gives all flexible resources away; a reset makes it so."""
        assert self.virt(PRIMARY, 0, QUEUES, 0).status == 0 and self.virt(PRIMARY, 0, VECTORS, 0).status == 0
        self.disable()
        return self.enable()

    def secondaries(self, first=0):
        raw = self.identify(0x15, cntid=first)
        return [struct.unpack_from("<HHB3xHHH", raw, 32 + 32 * i) for i in range(raw[0])]


OPTS = "nvme,id=pf,serial=PF,subsys=ss,addr=1,max_ioqpairs=16,msix_qsize=17,sriov_max_vfs=3,sriov_vq_flexible=10,sriov_vi_flexible=6"


@pytest.fixture(name="m")
def machine(tmp_path):
    img = str(tmp_path / "img")
    with open(img, "wb") as f:
        f.truncate(4 << 20)
    with NvmeMachine(tmp_path, "-device", "nvme-subsys,id=ss", "-device", OPTS + ",sriov_max_vq_per_vf=5,sriov_max_vi_per_vf=3", "-drive",
                     "file=%s,format=raw,if=none,id=d" % img, "-device", "nvme-ns,bus=pf,drive=d,nsid=1") as m:
        m.pf = Primary(m.q).enable()
        yield m


def test_what_there_is(m):
    assert struct.unpack_from("<H", m.pf.identify(1), 256)[0] >> 7 & 1
    raw = m.pf.identify(0x14)
    assert raw[:5] == bytes((0, 0, 0, 0, 3))
    assert struct.unpack_from("<IIHHHH", raw, 32) == (10, 0, 10, 7, 5, 1) and struct.unpack_from("<IIHHHH", raw, 64) == (6, 0, 6, 11, 3, 1)
    assert m.pf.secondaries() == [(1, 0, 0, 1, 0, 0), (2, 0, 0, 2, 0, 0), (3, 0, 0, 3, 0, 0)]
    assert [s[0] for s in m.pf.secondaries(2)] == [2, 3] and m.pf.secondaries(4) == []
    assert struct.unpack_from("<H3H", m.pf.identify(0x13))[0] == 4 and m.pf.feature(7).result == 15 | 15 << 16


def test_resources_change_hands_at_a_reset(m):
    assert m.pf.virt(ASSIGN, 1, QUEUES, 2).status == 0x121              # the primary has all
    assert m.pf.virt(PRIMARY, 0, QUEUES, 2).result == 2 and m.pf.feature(7).result == 15 | 15 << 16
    assert m.pf.virt(ASSIGN, 1, QUEUES, 2).status == 0x121
    m.pf.disable()
    m.pf.enable()
    assert m.pf.feature(7).result == 7 | 7 << 16 and struct.unpack_from("<IIH", m.pf.identify(0x14), 32) == (10, 0, 2)
    assert m.pf.admin.run(5, prp1=m.pf.alloc(), cdw=(15 << 16 | 9, 1)).status == 0x101      # eight pairs are left
    assert m.pf.virt(ASSIGN, 1, QUEUES, 5).result == 5 and m.pf.virt(ASSIGN, 2, QUEUES, 4).status == 0x121
    assert m.pf.virt(ASSIGN, 2, QUEUES, 3).result == 3 and m.pf.virt(PRIMARY, 0, QUEUES, 3).status == 0x121
    assert m.pf.virt(ASSIGN, 1, QUEUES, 4).result == 4 and m.pf.virt(PRIMARY, 0, QUEUES, 3).status == 0
    assert [s[4] for s in m.pf.secondaries()] == [4, 3, 0]


def test_commands_that_make_no_sense(m):
    m.pf.free_all()
    for action, cntlid, rt, nr, status in ((0, 1, 0, 1, 2), (5, 1, 0, 1, 2), (10, 1, 0, 1, 2), (PRIMARY, 1, 0, 1, 0x11f), (ASSIGN, 0, 0, 1, 0x11f),
                                           (ASSIGN, 4, 0, 1, 0x11f), (ASSIGN, 1, 2, 1, 0x122), (ASSIGN, 1, 0, 6, 0x121), (ASSIGN, 1, 1, 4, 0x121),
                                           (PRIMARY, 0, 0, 11, 0x121), (ONLINE, 1, 0, 0, 0x120)):
        assert m.pf.virt(action, cntlid, rt, nr).status == status, (action, cntlid, rt, nr)
    assert m.pf.virt(ASSIGN, 1, QUEUES, 2).status == 0 and m.pf.virt(ASSIGN, 1, VECTORS, 1).status == 0
    assert m.pf.virt(ONLINE, 1).status == 0x120                         # the function is not enabled
    assert m.pf.virt(OFFLINE, 1).status == 0


def bring_up(m, n=2):
    m.pf.free_all()
    vfs = m.pf.functions(n)
    for i in range(1, n + 1):
        assert m.pf.virt(ASSIGN, i, QUEUES, 3).status == 0 and m.pf.virt(ASSIGN, i, VECTORS, 2).status == 0
        assert m.pf.virt(ONLINE, i).status == 0
    return vfs


def test_a_function_is_a_controller(m):
    one, two = bring_up(m)
    assert [s[2:] for s in m.pf.secondaries()] == [(1, 1, 3, 2), (1, 2, 3, 2), (0, 3, 0, 0)]
    assert one.q.rd(one.cfg + one.cap(0x11) + 2, 2) & 0x7ff == 1        # two vectors
    one.enable()
    two.enable()
    raw = one.identify(1)
    assert raw[4:6] == b"PF" and struct.unpack_from("<HH", raw) == (0x1b36, 0x1af4) and raw[76] & 7 == 6 and struct.unpack_from("<H", raw, 78)[0] == 1
    assert not struct.unpack_from("<H", raw, 256)[0] >> 7 & 1 and one.admin.run(0x1c, cdw=(1,)).status == 1
    assert one.feature(7).result == 1 | 1 << 16
    data = os.urandom(4096)
    assert write(one.io_queue(), 1, 8, data).status == 0
    assert read(two.io_queue(2), 1, 8, 8) == data and read(m.pf.io_queue(), 1, 8, 8) == data
    assert one.admin.run(5, prp1=one.alloc(), cdw=(15 << 16 | 3, 1)).status == 0x101


def test_offline_is_fatal_until_it_comes_back(m):
    one, two = bring_up(m)
    one.enable()
    io = one.io_queue()
    assert write(io, 1, 0, bytes(512)).status == 0
    assert m.pf.virt(ASSIGN, 1, QUEUES, 2).status == 0x120              # online
    assert m.pf.virt(OFFLINE, 1).status == 0 and one.readl(0x1c) == 2 and one.readl(0) == 0
    one.writel(0x14, 0x00460001)
    assert one.readl(0x14) == 0 and two.readl(0x1c) == 0
    assert m.pf.virt(ASSIGN, 1, QUEUES, 2).status == 0 and m.pf.virt(ONLINE, 1).status == 0
    assert one.readl(0x1c) == 0 and one.enable().feature(7).result == 0
    assert write(one.io_queue(), 1, 0, bytes(512)).status == 0


@pytest.mark.parametrize("how", ("controller", "function", "disable"))
def test_the_primary_takes_them_offline(m, how):
    one, _ = bring_up(m)
    one.enable()
    io = one.io_queue()
    for i in range(16):
        io.submit(2, 1, prp1=one.alloc(), cdw=(i, 0, 0), ring=i == 15)
    if how == "controller":
        m.pf.disable()
        assert one.readl(0x1c) == 2
    elif how == "disable":
        m.pf.functions(0)
        assert one.readl(0x1c) == 0xffffffff                            # nothing is mapped there
    else:
        exp = 0x40
        while m.q.rd(m.pf.cfg + exp, 1) != 0x10:
            exp = m.q.rd(m.pf.cfg + exp + 1, 1) or m.q.rd(m.pf.cfg + 0x34, 1)
        m.q.wr(m.pf.cfg + exp + 8, 0x8000, 2)
        while m.q.rd(m.pf.cfg, 2) == 0xffff:
            pass
        m.pf.__init__(m.q)
    if how != "disable":
        m.pf.enable()
    assert [s[2] for s in m.pf.secondaries()] == [0, 0, 0] and [s[4] for s in m.pf.secondaries()] == [3, 3, 0]
    vf = m.pf.functions(1)[0]
    assert m.pf.virt(ONLINE, 1).status == 0
    assert read(vf.enable().io_queue(), 1, 0, 8) == bytes(4096)


def test_function_level_reset_of_a_function(m):
    one, two = bring_up(m)
    one.enable()
    two.enable()
    m.q.wr(one.cfg + one.cap(0x10) + 8, 0x8000, 2)
    while m.q.rd(one.cfg + 8, 1) == 0xff:
        pass
    m.q.wr(one.cfg + 4, 4, 2)
    assert one.readl(0x1c) == 0 and m.pf.secondaries()[0][2] == 1       # still online, as new
    assert one.q.rd(one.cfg + one.cap(0x11) + 2, 2) & 0x7ff == 1
    assert read(one.enable().io_queue(), 1, 0, 8) == bytes(4096) and two.identify(1)[4:6] == b"PF"


@pytest.mark.parametrize("opts,words", [
    ("sriov_max_vfs=1,sriov_vq_flexible=2,sriov_vi_flexible=1", "needs a subsystem"),
    ("sriov_vq_flexible=2", "no effect"),
    ("subsys=s,sriov_max_vfs=2,sriov_vq_flexible=3,sriov_vi_flexible=2", "sriov_vq_flexible"),
    ("subsys=s,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=1", "sriov_vi_flexible"),
    ("subsys=s,sriov_max_vfs=2,sriov_vq_flexible=64,sriov_vi_flexible=2", "max_ioqpairs"),
    ("subsys=s,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=65", "msix_qsize"),
    ("subsys=s,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,sriov_max_vq_per_vf=1", "sriov_max_vq_per_vf"),
    ("subsys=s,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,sriov_max_vi_per_vf=3", "sriov_max_vi_per_vf"),
    ("subsys=s,sriov_max_vfs=127,sriov_vq_flexible=254,sriov_vi_flexible=127,max_ioqpairs=300,msix_qsize=200,addr=1f", "next bus"),
    ("subsys=s,sriov_max_vfs=128", "0..127"),
])
def test_wrong_options_are_named(opts, words):
    status, _, err = run("-M", "virt", "-device", "nvme-subsys,id=s", "-device", "nvme,serial=x," + opts)
    assert status == 1 and words in err, err


def test_many_functions_and_unplug(tmp_path):
    """All 127 of them, behind a root port (ARI); the port's slot lets everything go at once."""
    with NvmeMachine(tmp_path, "-device", "nvme-subsys,id=s", "-device", "pcie-root-port,id=rp,addr=2", "-device",
                     "nvme,id=pf,serial=x,subsys=s,bus=rp,sriov_max_vfs=127,sriov_vq_flexible=254,sriov_vi_flexible=127,max_ioqpairs=300,"
                     "msix_qsize=200") as m:
        port = ECAM + (2 << 15)
        m.q.writel(port + 0x18, 0x010100)
        m.q.wr(port + 0x20, 0x40004000)                         # its window
        m.q.wr(port + 4, 6, 2)
        pf = Primary.__new__(Primary)
        Nvme.__init__(pf, m.q, 0, MMIO)
        pf.cfg = ECAM + (1 << 20)
        pf.q.writel(pf.cfg + 0x10, MMIO)
        pf.q.writel(pf.cfg + 0x14, 0)
        pf.q.writel(pf.cfg + 4, 6)
        assert len(pf.enable().identify(1)) == 4096 and len(pf.secondaries()) == 127
        m.qmp.cmd("device_del", id="pf")
        exp = m.q.rd(port + 0x34, 1)
        while m.q.rd(port + exp, 1) != 0x10:
            exp = m.q.rd(port + exp + 1, 1)
        m.q.wr(port + exp + 0x18, 0x400 | m.q.rd(port + exp + 0x18, 2), 2)      # the guest turns the slot off
        m.qmp.wait_event("DEVICE_DELETED")
