# SPDX-License-Identifier: MIT
"""Namespaces and controllers that go while a sanitize runs, while another controller uses them, while the state file is written."""
import json
import os
import struct
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import NvmeMachine, read

MIB = 1 << 20
OVERWRITE = 3


def disks(tmp, *names, size=4 * MIB, limit="x-iops-total=8"):
    """Nodes that are slow, each with a limit of its own."""
    args = []
    for name in names:
        with open(tmp / name, "wb") as f:
            f.truncate(size)
        args += ["-object", "throttle-group,id=g%s,%s" % (name, limit), "-drive", "file=%s,format=raw,if=none,id=f%s" % (tmp / name, name),
                 "-blockdev", "throttle,node-name=%s,throttle-group=g%s,file=f%s" % (name, name, name)]
    return args


def sanitizes(n):
    return n.log(0x81, 512)[2] & 7 == 2


def ends_well(m):
    m.qmp.cmd("quit")
    assert m.wait() == 0


@pytest.mark.parametrize("controllers", (1, 2))
def test_quit_while_sanitizing(tmp_path, controllers):
    """16 passes over what takes minutes."""
    args = disks(tmp_path, "d1", "d2", size=64 * MIB) + ["-device", "nvme-subsys,id=ss", "-device", "nvme,id=a,serial=A,subsys=ss,addr=1"]
    args += ["-device", "nvme,id=b,serial=B,subsys=ss,addr=2"] * (controllers - 1)
    with NvmeMachine(tmp_path, *args, "-device", "nvme-ns,bus=a,drive=d1,nsid=1", "-device", "nvme-ns,bus=a,drive=d2,nsid=2") as m:
        n = m.nvme(controllers).enable()
        assert n.admin.run(0x84, cdw=(OVERWRITE, 0x11111111)).status == 0
        assert sanitizes(n)
        ends_well(m)


def test_namespace_unplugged_while_sanitizing(tmp_path):
    """What is left is overwritten, all of it."""
    args = disks(tmp_path, "d1", "d2", "d3") + ["-device", "nvme,id=a,serial=A,addr=1"]
    args += [x for i in (1, 2, 3) for x in ("-device", "nvme-ns,id=n%d,bus=a,drive=d%d,nsid=%d" % (i, i, i))]
    with NvmeMachine(tmp_path, *args) as m:
        n = m.nvme(1).enable()
        assert n.admin.run(0x84, cdw=(OVERWRITE | 1 << 4, 0x5a5a5a5a)).status == 0
        m.qmp.cmd("device_del", id="n1")
        m.qmp.wait_event("DEVICE_DELETED")
        assert sanitizes(n)
        while sanitizes(n):
            time.sleep(0.05)
        io = n.io_queue()
        for nsid in (2, 3):
            assert {read(io, nsid, at, 1) for at in range(0, 8192, 511)} == {b"\x5a" * 512}


def test_namespace_of_a_controller_that_another_uses(tmp_path):
    args = disks(tmp_path, "d1", limit="x-iops-total=2") + ["-device", "nvme-subsys,id=ss", "-device", "nvme,id=a,serial=A,subsys=ss,addr=1,drive=d1"]
    with NvmeMachine(tmp_path, *args, "-device", "nvme,id=b,serial=B,subsys=ss,addr=2") as m:
        io = m.nvme(2).enable().io_queue()
        buf = io.nvme.alloc()
        for i in range(4):
            io.submit(2, 1, prp1=buf, cdw=(8 * i, 0, 7))
        assert io.nvme.readl(0x1c) & 1                      # the doorbells are served
        ends_well(m)


def test_state_written_while_a_namespace_goes(tmp_path):
    """It waits for its commands for a while; the state file that is written meanwhile, and after, has it as it was."""
    state = str(tmp_path / "state.json")
    args = disks(tmp_path, "d1", limit="x-iops-total=2") + ["-device", "nvme,id=a,serial=A,addr=1,state=" + state, "-device", "nvme-ns,id=n1,bus=a,drive=d1,nsid=7"]
    with NvmeMachine(tmp_path, *args) as m:
        n = m.nvme(1).enable()
        io = n.io_queue()
        buf = n.alloc()
        for i in range(4):
            io.submit(1, 7, prp1=buf, cdw=(8 * i, 0, 7))
        assert n.readl(0x1c) & 1
        m.qmp.cmd("device_del", id="n1")
        assert n.set_feature(8, 0x0203, save=1).status == 0             # answered when it is in the file
        m.qmp.wait_event("DEVICE_DELETED")
        for value in (0x0203, 0x0304):
            assert n.set_feature(8, value, save=1).status == 0
            with open(state, encoding="utf-8") as f:
                assert [x["nsid"] for x in json.load(f)["units"]["d1"]] == [7]
        ends_well(m)
    with NvmeMachine(tmp_path, *args) as m:
        assert struct.unpack_from("<I", m.nvme(1).enable().identify(2))[0] == 7


def test_namespace_made_on_a_unit_that_goes(tmp_path):
    """It is never there: not for the host, not below its feet."""
    args = disks(tmp_path, "d1", limit="x-iops-total=1,x-bps-write=4194304") + ["-device", "nvme,id=a,serial=A,addr=1", "-device", "nvme-ns,id=n1,bus=a,drive=d1,nsid=1"]
    with NvmeMachine(tmp_path, *args) as m:
        n = m.nvme(1).enable()
        assert n.admin.run(0x0d, 1, cdw=(1,)).status == 0
        buf = n.alloc()
        n.q.write(buf, struct.pack("<QQ", 2048, 2048).ljust(384, b"\0"))
        busy = [n.admin.submit(0x0d, prp1=buf, cdw=(0,)) for _ in range(3)]
        assert n.readl(0x1c) & 1
        m.qmp.cmd("device_del", id="n1")
        m.qmp.wait_event("DEVICE_DELETED")
        ends = [n.admin.poll() for _ in busy]
        assert {c.cid for c in ends} == set(busy) and ends[-1].status & 0x7ff == 0x115
        for c in ends:
            n.q.write(buf, struct.pack("<HH", 1, 0).ljust(4096, b"\0"))
            n.admin.run(0x15, c.result or 1, prp1=buf, cdw=(0,))
        io = n.io_queue()
        for nsid in (1, 2, 3):
            assert io.run(2, nsid, prp1=n.alloc(), cdw=(0, 0, 0)).status
        ends_well(m)


def test_namespaces_made_at_a_time(tmp_path):
    """One is still being erased when the next is asked for: another id, another place."""
    with NvmeMachine(tmp_path, *disks(tmp_path, "d1", limit="x-iops-total=4"), "-device", "nvme,id=a,serial=A,addr=1", "-device", "nvme-ns,bus=a,drive=d1,nsid=1") as m:
        n = m.nvme(1).enable()
        assert n.admin.run(0x0d, 1, cdw=(1,)).status == 0
        buf = n.alloc()
        n.q.write(buf, struct.pack("<QQ", 2048, 2048).ljust(384, b"\0"))
        cids = [n.admin.submit(0x0d, prp1=buf, cdw=(0,)) for _ in range(5)]
        ends = [n.admin.poll() for _ in cids]
        assert {c.cid for c in ends} == set(cids)
        assert sorted(c.result for c in ends if not c.status) == [1, 2, 3, 4] and [c.status & 0x7ff for c in ends if c.status] == [0x115]
