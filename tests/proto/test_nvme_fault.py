# SPDX-License-Identifier: MIT
"""NVMe faults on purpose: statuses, delays in the machine's time, completions that never come, damaged data; counters prove it."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import QmpError, run
from lib.nvme import NvmeMachine, read, write

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
