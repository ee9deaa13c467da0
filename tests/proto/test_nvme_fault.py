# SPDX-License-Identifier: MIT
"""NVMe faults on purpose: statuses, delays in the machine's time, completions that never come, damaged data; counters prove it."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import QmpError, run
from lib.nvme import ECAM, Nvme, NvmeMachine, read, write

PATH = "/machine/peripheral/n0"


@pytest.fixture(name="m")
def machine(tmp_path):
    img = str(tmp_path / "img")
    with open(img, "wb") as f:
        f.truncate(4 << 20)
    dev = {"driver": "nvme", "serial": "F", "id": "n0", "addr": "1", "drive": "d", "faults": [{"queue": "io", "opcode": 2, "slba": 100, "nlb": 10, "status": 0x281}]}
    with NvmeMachine(tmp_path, "-drive", "file=%s,format=raw,if=none,id=d" % img, "-device", json.dumps(dev)) as m:
        m.n = m.nvme(1).enable()
        m.io = m.n.io_queue()
        yield m


def faults(m, *rules):
    m.qmp.cmd("qom-set", path=PATH, property="faults", value=list(rules))


def hits(m):
    return m.qmp.cmd("qom-get", path=PATH, property="fault-hits")


def test_status_in_a_range(m):
    assert read(m.io, 1, 99, 1) == bytes(512) and read(m.io, 1, 110, 1) == bytes(512)
    for slba, nlb in ((100, 1), (90, 11), (109, 5), (0, 200)):
        assert read(m.io, 1, slba, nlb).status == 0x281
    assert write(m.io, 1, 100, bytes(512)).status == 0 and hits(m) == 4


def test_count_and_skip(m):
    faults(m, {"opcode": 2, "queue": "io", "skip": 2, "count": 3, "status": 0x4002})
    got = [read(m.io, 1, 0, 1) for _ in range(8)]
    assert [0 if isinstance(c, bytes) else c.status for c in got] == [0, 0, 2, 2, 2, 0, 0, 0] and got[2].dnr


def test_chances_repeat_with_their_seed(m):
    seen = []
    for seed in (7, 7, 8):
        faults(m, {"queue": "io", "probability": 300000, "seed": seed, "status": 6})
        seen.append([not isinstance(read(m.io, 1, 0, 1), bytes) for _ in range(60)])
    assert seen[0] == seen[1] != seen[2] and 5 < sum(seen[0]) < 35


def test_delay_is_exact(m):
    faults(m, {"queue": "io", "delay-ns": 1000000})
    m.io.submit(2, 1, prp1=m.n.alloc(), cdw=(0, 0, 0))
    while hits(m) != 1:
        pass
    m.q.step(999999)
    assert not m.io.ready()
    m.q.step(1)
    assert m.io.poll().status == 0


def test_delayed_commands_can_be_aborted_and_survive_resets(m):
    faults(m, {"queue": "io", "delay-ns": 3600000000000})
    cid = m.io.submit(2, 1, prp1=m.n.alloc(), cdw=(0, 0, 0))
    while hits(m) != 1:
        pass
    assert m.n.admin.run(8, cdw=(cid << 16 | 1,)).result == 0 and m.io.poll().status == 7
    m.io.submit(2, 1, prp1=m.n.alloc(), cdw=(0, 0, 0))
    while hits(m) != 2:
        pass
    assert m.n.admin.run(0, cdw=(1,)).status == 0 and m.io.poll().status == 8          # its queue is deleted
    assert m.n.admin.run(4, cdw=(1,)).status == 0
    io = m.n.io_queue()
    io.submit(2, 1, prp1=m.n.alloc(), cdw=(0, 0, 0))
    while hits(m) != 3:
        pass
    m.n.disable()
    m.n.enable()
    faults(m)
    assert read(m.n.io_queue(), 1, 0, 1) == bytes(512)


def test_a_completion_that_never_comes(m):
    faults(m, {"queue": "io", "opcode": 2, "count": 1, "drop": True})
    buf = m.n.alloc()
    m.io.submit(2, 1, prp1=buf, cdw=(0, 0, 0))
    second = m.io.submit(2, 1, prp1=buf, cdw=(0, 0, 0))
    assert m.io.poll().cid == second
    m.n.disable()


def test_damaged_data(m):
    data = os.urandom(4096)
    assert write(m.io, 1, 8, data).status == 0
    faults(m, {"queue": "io", "opcode": 2, "count": 1, "corrupt": True})
    got = read(m.io, 1, 8, 8)
    assert sum(bin(a ^ b).count("1") for a, b in zip(got, data)) == 1 and read(m.io, 1, 8, 8) == data


def test_fatal_status(m):
    faults(m, {"queue": "admin", "opcode": 6, "fatal": True})
    m.n.admin.submit(6, prp1=m.n.alloc(), cdw=(1,))
    m.n.wait(0x1c, 2, 2)
    faults(m)
    m.n.disable()
    assert m.n.enable().identify(1)[4:5] == b"F"


def test_wrong_rules_are_named(m):
    with pytest.raises(QmpError, match="opcod"):
        faults(m, {"opcod": 2})
    with pytest.raises(QmpError, match="faults"):
        m.qmp.cmd("qom-set", path=PATH, property="faults", value=5)
    assert struct.unpack_from("<H", m.n.identify(1), 78)[0] == 0
    status, _, err = run("-M", "virt", "-device", "nvme,serial=x,faults.0.opcode=900")
    assert status == 1 and "opcode" in err, err


# ---- the link ----

class Port:
    """A root port in slot 2 with bus 1 behind it; its slot registers."""

    def __init__(self, q):
        self.q, self.cfg = q, ECAM + (2 << 15)
        q.writel(self.cfg + 0x18, 0x010100)
        q.writel(self.cfg + 0x20, 0x40f04000)
        q.wr(self.cfg + 4, 6, 2)
        self.exp = q.rd(self.cfg + 0x34, 1)
        while q.rd(self.cfg + self.exp, 1) != 0x10:
            self.exp = q.rd(self.cfg + self.exp + 1, 1)

    def take(self):
        """The events since the last time: presence changed, link changed; and whether a card is there, the link is up."""
        sta = self.q.rd(self.cfg + self.exp + 0x1a, 2)
        self.q.wr(self.cfg + self.exp + 0x1a, sta, 2)
        return [sta >> 3 & 1, sta >> 8 & 1, sta >> 6 & 1, self.q.rd(self.cfg + self.exp + 0x12, 2) >> 13 & 1]


@pytest.fixture(name="slot")
def behind_a_port(tmp_path):
    img = str(tmp_path / "img")
    with open(img, "wb") as f:
        f.truncate(4 << 20)
    with NvmeMachine(tmp_path, "-drive", "file=%s,format=raw,if=none,id=d" % img, "-device", "pcie-root-port,id=rp,addr=2", "-device",
                     "nvme,serial=S,id=n0,bus=rp,drive=d") as m:
        m.port = Port(m.q)
        m.n = Nvme(m.q, 32).enable()                    # bus 1, device 0
        m.io = m.n.io_queue()
        m.port.take()
        yield m


def link(m, state):
    m.qmp.cmd("qom-set", path=PATH, property="link", value=state)


@pytest.mark.parametrize("state,present", (("removed", 0), ("down", 1)))
def test_link_goes_and_comes(slot, state, present):
    m = slot
    data = os.urandom(512)
    assert write(m.io, 1, 5, data).status == 0
    link(m, state)
    assert m.q.readl(m.n.cfg) == 0xffffffff and m.n.readl(0x1c) == 0xffffffff
    assert m.port.take() == [1 - present, 1, present, 0]
    link(m, "up")
    assert m.port.take() == [1 - present, 1, 1, 1]
    assert m.q.readl(m.n.cfg) == 0x00101b36 and m.q.rd(m.n.cfg + 4, 2) == 0         # as after a reset
    n = Nvme(m.q, 32)
    assert n.readl(0x1c) == 0 and read(n.enable().io_queue(), 1, 5, 1) == data


def test_pulled_out_at_a_command(slot):
    """The third read pulls it out: nothing of it completes, nothing reaches memory; the monitor takes it away without asking."""
    m = slot
    faults(m, {"queue": "io", "opcode": 2, "skip": 2, "link": "removed"})
    bufs = [m.n.alloc() for _ in range(4)]
    for b in bufs:
        m.q.write(b, b"\x55" * 512)
    for i, b in enumerate(bufs):
        m.io.submit(2, 1, prp1=b, cdw=(i, 0, 0), ring=i == 3)
    while m.port.take()[2]:
        pass
    assert m.q.read(bufs[2], 512) == b"\x55" * 512 and hits(m) >= 1
    got = 0
    while m.io.ready():
        got += 1
        m.io.head += 1
    assert got <= 2
    m.qmp.cmd("device_del", id="n0")
    m.qmp.wait_event("DEVICE_DELETED")
    assert m.q.readl(m.n.cfg) == 0xffffffff


def test_link_is_for_a_running_machine():
    status, _, err = run("-M", "virt", "-device", "nvme,serial=x,link=down")
    assert status == 1 and "link" in err, err


def test_rules_on_the_command_line(tmp_path):
    """Parts of a structured option, as people type them."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    with NvmeMachine(tmp_path, "-blockdev", "file,node-name=d,filename=%s" % disk, "-device",
                     "nvme,id=n0,serial=s,drive=d,addr=1,faults.0.queue=io,faults.0.opcode=2,faults.0.status=641,faults.1.queue=io,faults.1.opcode=1,faults.1.status=6,"
                     "ana-groups.group2=inaccessible,timing.read-ns=1000") as m:
        m.n = m.nvme(1).enable()
        io = m.n.io_queue()
        assert read(io, 1, 0, 1).status == 641 and write(io, 1, 0, bytes(512)).status == 6 and hits(m) == 2
        assert m.qmp.cmd("qom-get", path=PATH, property="ana-groups") == {"group2": "inaccessible"}
    for args, why in (("faults.0.opcode=300", "faults[0]"), ("faults.x.opcode=1", "faults must be a list"), ("faults.0.opcode=1,faults=x", "used both as a value and as a group"),
                      ("timing.nosuch=1", "nosuch"), ("serial.x=1", "unknown property 'serial.x'"), ("faults..a=1", "ill-formed key")):
        status, _, err = run("-M", "virt", "-accel", "qtest", "-display", "none", "-nodefaults", "-blockdev", "null-co,node-name=d",
                             "-device", "nvme,serial=s,drive=d," + args)
        assert status == 1 and why in err, err
