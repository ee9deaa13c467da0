# SPDX-License-Identifier: MIT
"""Random commands, queues, pointers, doorbells and registers: the program lives, and after a reset the controller works."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.chaos import Chaos, seeds
from lib.nvme import RAM, NvmeMachine, read

MIB = 1 << 20
VF_BARS = 0x50000000
ADMIN = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 16, 17, 20, 21, 24, 25, 26, 28, 0x7c, 0x80, 0x81, 0x82, 0x84, 0x86]
IO = [0, 1, 2, 4, 5, 6, 8, 9, 12, 13, 14, 16, 17, 18, 20, 21, 25, 29, 0x79, 0x7a, 0x7d]


class Commands(Chaos):
    """Commands of which many are nearly right."""

    def command(self, admin):
        ops = ADMIN if admin else IO
        op = self.r.choice(ops) if self.r.randrange(20) else self.r.getrandbits(8)
        flags = self.r.choice((0, 0, 0, 0x40, 0x80, 1, 2, 0xff))
        nsid = self.r.choice((1, 1, 2, 2, 3, 4, 4, 0, 0xffffffff, 99))
        dw = [self.u(32) for _ in range(6)]
        if nsid == 4 and not admin:                 # values and keys of sizes that are mostly good
            dw[0], dw[1] = self.r.randrange(9000) if self.r.randrange(8) else dw[0], self.r.randrange(18) | self.r.choice((0, 0, 1, 2)) << 8
            dw[4], dw[5] = 0, self.r.randrange(3)
        elif not admin:                             # blocks that are mostly there
            if self.r.randrange(4):
                dw[0], dw[1] = self.r.randrange(20000), 0
                dw[2] = self.r.randrange(64) | self.r.getrandbits(6) << 26 if self.r.randrange(3) else dw[2]
        elif op in (0x81, 0x82) and self.r.randrange(4):
            dw[0], dw[1] = 0xea000100, 256 + 512 * self.r.randrange(10)
        elif self.r.randrange(2):
            dw[0] = self.r.randrange(256) if op != 9 else dw[0] & 0x800000ff
        return struct.pack("<BBHIIIQQQ6I", op, flags, self.r.getrandbits(16), nsid, self.u(32), self.u(32), self.addr(), self.addr(), self.addr(), *dw)


def start(tmp):
    ctrl = dict(driver="nvme", serial="F", id="f", subsys="ss", addr="1", cmb_size_mb=1, hmb=16, max_ioqpairs=8, msix_qsize=9, sriov_max_vfs=2,
                sriov_vq_flexible=5, sriov_vi_flexible=4, sriov_max_vq_per_vf=4)
    ctrl.update({"atomic.awun": 7, "boot-drive": "b", "rpmb-drive": "r", "iothread-queue-mapping": [{"iothread": "t0", "queues": [1]}]})
    args = ["-object", "iothread,id=t0", "-device", "nvme-subsys,id=ss,fdp=on,fdp.nruh=2,fdp.nrg=2", "-device", json.dumps(ctrl)]
    for name, size in (("boot", 512 << 10), ("rpmb", 132 << 10)):
        with open(str(tmp / name), "wb") as f:
            f.truncate(size)
        args += ["-drive", "file=%s,format=raw,if=none,id=%s" % (tmp / name, name[0])]
    for i, opts in enumerate((",discard_granularity=4096", ",ms=16,pi=1,pif=2,mset=1", ",zoned=on,zoned.zone_size=256K,zoned.max_open=3,zoned.descr_ext_size=64",
                              ",kv=on"), 1):
        img = str(tmp / ("f%d" % i))
        with open(img, "wb") as f:
            f.truncate(8 * MIB)
        args += ["-drive", "file=%s,format=raw,if=none,id=d%d,discard=unmap" % (img, i), "-device", "nvme-ns,bus=f,drive=d%d,nsid=%d%s" % (i, i, opts)]
    return NvmeMachine(tmp, *args)


def place_functions(m, n):
    """Gives the virtual functions a place; where the capability is."""
    at = 0x100
    while m.q.readl(n.cfg + at) & 0xffff != 0x10:
        at = m.q.readl(n.cfg + at) >> 20
    m.q.writel(n.cfg + at + 0x24, VF_BARS)
    m.q.writel(n.cfg + at + 0x28, 0)
    return at


@pytest.mark.parametrize("seed", seeds(6))
def test_random_commands(tmp_path, seed):
    c = Commands(seed)
    with start(tmp_path) as m:
        for _ in range(4):
            n = m.nvme(1)
            m.sriov = place_functions(m, n)
            n.writel(0x14, 0)
            n.wait(0x1c, 1, 0)
            n.enable(size=64, cc=0x00460001 | c.r.choice((0, 6)) << 4 | c.r.choice((0, 1)) << 11)
            queues = [n.io_queue(i, 64, prio=c.r.randrange(4)) for i in (1, 2)]
            m.q.write(RAM, bytes(c.r.getrandbits(8) for _ in range(8192)))
            m.q.write(RAM + 223, b"\0")                            # a frame of replay protected memory
            m.q.write(RAM + 254, struct.pack("<H", c.r.randrange(9)))
            for _ in range(12):
                io = c.r.choice(queues)
                admin = not c.r.randrange(3)
                q = n.admin if admin else io
                m.q.write(q.sq, b"".join(c.command(admin) for _ in range(32)) * 2)
                n.writel(0x1000 + 8 * q.qid, c.r.randrange(64))
                if not c.r.randrange(2):
                    n.writel(0x1004 + 8 * q.qid, c.u(32) % 70)
                if not c.r.randrange(6):
                    n.writel(0x1000 + 4 * c.r.randrange(140), c.u(32))
                if not c.r.randrange(8):
                    n.writel(c.r.choice((0x0c, 0x10, 0x1c, 0x20, 0x38, 0x44, 0x48, 0x50, 0x54, 0xe04, 0xe14)), c.u(32))
                if not c.r.randrange(6):                            # virtual functions come, go, and are poked at
                    m.q.wr(n.cfg + m.sriov + c.r.choice((8, 0x10)), c.r.choice((0, 1, 2, 9)), 2)
                    m.q.writel(VF_BARS + c.r.randrange(0, 0x4000, 4), c.u(32))
                    m.q.readl(VF_BARS + c.r.randrange(0, 0x4000, 4))
                m.q.step(c.r.randrange(3000000))
        assert m.process.poll() is None
        n = m.nvme(1)
        n.writel(0x14, 0)
        n.wait(0x1c, 1, 0)
        n.enable()
        assert n.identify(1)[4:5] == b"F"
        io = n.io_queue()
        for nsid in (1, 2, 3, 4):                   # whatever became of the namespaces
            c = read(io, nsid, 0, 1)
            assert isinstance(c, bytes) or c.status


@pytest.mark.parametrize("own", (False, True))
def test_leaves_cleanly(tmp_path, own):
    """Nothing is held when the program ends with commands in flight; namespaces of nvme-ns, and one of the controller itself."""
    img = str(tmp_path / "own")
    with open(img, "wb") as f:
        f.truncate(MIB)
    args = ("-drive", "file=%s,format=raw,if=none,id=o" % img, "-device", "nvme,drive=o,serial=O,addr=1")
    with (NvmeMachine(tmp_path, *args) if own else start(tmp_path)) as m:
        n = m.nvme(1).enable()
        io = n.io_queue()
        for i in range(32):
            io.submit(2, 1, prp1=n.alloc(), cdw=(i, 0, 0), ring=i == 31)
        m.qmp.cmd("quit")
        assert m.wait() == 0
