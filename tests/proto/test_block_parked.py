# SPDX-License-Identifier: MIT
"""A write that failed waits for `cont` (werror=stop): whatever happens to its node, its drive or its device meanwhile, it is done once, on the graph
as it is by then, or not at all where its device was reset or has gone."""
import json
import shutil
import struct

import pytest

from lib.hba import Lsi, Megasas, Mptsas, Virtio
from lib.images import content, create, node, wait_job
from lib.nvme import MMIO, RAM, Nvme
from lib.virtio import VirtioMachine

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-utils")

DATA = b"parked! " * 64
BUF = RAM + 0x4000000


class NvmeDisk:
    ARGS = "nvme,id=a,serial=S,addr=1", "nvme-ns,bus=a,drive=n,id=d,werror=stop"

    def __init__(self, m):
        self.io = Nvme(m.q, 1, MMIO, RAM + 0x100000)
        self.io.enable()
        self.io = self.io.io_queue()

    def write(self):
        self.io.nvme.q.write(BUF, DATA)
        self.io.submit(1, 1, prp1=BUF)

    def done(self):
        return self.io.poll().status == 0


class BlkDisk:
    ARGS = ("virtio-blk-pci,addr=1,drive=n,id=d,werror=stop",)

    def __init__(self, m):
        self.fn = m.fn(1)
        assert self.fn.negotiate()
        self.vq = self.fn.queue(0)
        self.fn.start()

    def write(self):
        self.fn.q.write(BUF, DATA + struct.pack("<IIQ", 1, 0, 0) + b"\xff")
        self.vq.put((BUF + 512, 16, False), (BUF, 512, False), (BUF + 528, 1, True))
        self.fn.kick(self.vq)

    def done(self):
        self.vq.wait()
        return self.fn.q.read(BUF + 528, 1) == b"\0"


class ScsiDisk:
    """The first unit of an adapter."""

    def __init__(self, m):
        self.hba = self.HBA(m)
        self.hba.begin()
        self.hba.inquire()
        for slot in (0, 2):             # what is to be told of a reset
            self.hba.submit(slot, bytes(6), b"", 0)
            self.hba.answered(slot)

    def write(self):
        self.hba.submit(4, struct.pack(">BBIBHB", 0x2a, 0, 0, 0, 1, 0), DATA, 0)

    def done(self):
        self.hba.answered(4)
        return True


def scsi(hba):
    unit = "%s,id=d,drive=n,werror=stop" % hba.PLUGS
    return type(hba.__name__, (ScsiDisk,), {"HBA": hba, "ARGS": (hba.DEVICE + ",id=a,addr=1", unit)})


class Parked:
    """A machine that stands since a write to node "n", which is on "base", has failed."""

    def __init__(self, tmp_path, disk):
        self.dir, self.disk = tmp_path, disk
        create(tmp_path / "base", "1M")
        create(tmp_path / "n", backing=tmp_path / "base")
        self.n = self.opts("n", backing="base")
        self.n["file"] = {"driver": "faults", "rules": [{"op": "write", "count": 1, "errno": "EIO"}], "file": self.n["file"]}
        nodes = sum((["-blockdev", json.dumps(n)] for n in (self.opts("base", **{"read-only": True}), self.n)), [])
        self.m = VirtioMachine(tmp_path, *nodes, *sum((["-device", a] for a in disk.ARGS), []))

    def opts(self, name, **more):
        return {"driver": "qcow2", "node-name": name, "backing": None, "file": {"driver": "file", "filename": str(self.dir / name)}, **more}

    def __enter__(self):
        self.qmp = self.m.__enter__().qmp
        self.qmp.cmd("cont")
        self.guest = self.disk(self.m)
        self.guest.write()
        self.qmp.wait_event("STOP")
        assert self.qmp.cmd("query-status")["status"] == "io-error"
        return self

    def __exit__(self, *exc):
        self.m.__exit__(*exc)

    def add(self, name):
        create(self.dir / name, "1M")
        self.qmp.cmd("blockdev-add", **self.opts(name))

    def job(self, command, **arguments):
        """Runs to its end while the write waits."""
        self.qmp.cmd(command, job_id="j", **arguments)
        if "mirror" in command or "commit" in command:
            self.qmp.wait_event("BLOCK_JOB_READY")
            self.qmp.cmd("block-job-complete", device="j")
        wait_job(self.m, "j")


# What happens meanwhile; the answer is the image that has the write in the end, or None.

def nothing(p):
    return "n"


def reopen(p):
    p.qmp.cmd("blockdev-reopen", options=[{**p.n, "detect-zeroes": "on"}])
    assert node(p.m, "n")["detect_zeroes"] == "on"
    return "n"


def snapshot(p):
    p.add("o")
    p.qmp.cmd("blockdev-snapshot", node="n", overlay="o")
    return "o"


def snapshot_sync(p):
    p.qmp.cmd("blockdev-snapshot-sync", node_name="n", snapshot_file=str(p.dir / "o"), snapshot_node_name="o")
    return "o"


def mirror(p):
    p.add("o")
    p.job("blockdev-mirror", device="n", target="o", sync="full")
    return "o"


def commit(p):
    p.job("block-commit", device="n")
    return "base"


def stream(p):
    p.job("block-stream", device="n")
    return "n"


def backup(p):
    p.add("o")
    p.job("blockdev-backup", device="n", target="o", sync="full")
    return "n"


def machine_reset(p):
    p.qmp.cmd("system_reset")
    p.qmp.wait_event("RESET")


def unplugged(p):
    p.qmp.cmd("device_del", id="d")


def quit_program(p):
    p.qmp.cmd("quit")
    assert p.m.wait() == 0


GRAPH = (nothing, reopen, snapshot, snapshot_sync, mirror, commit, stream, backup)
ENDS = (machine_reset, unplugged, quit_program)
CASES = [(d, f) for d in (NvmeDisk, BlkDisk, scsi(Virtio)) for f in GRAPH + ENDS if (d, f) != (BlkDisk, unplugged)]     # that is tests/unit/test_removal.c's
CASES += [(d, f) for d in map(scsi, (Megasas, Mptsas, Lsi)) for f in (nothing, snapshot) + ENDS]


@pytest.mark.parametrize("disk, meanwhile", CASES, ids=["%s-%s" % (d.__name__, f.__name__) for d, f in CASES])
def test_a_write_that_waits(tmp_path, disk, meanwhile):
    with Parked(tmp_path, disk) as p:
        holder = meanwhile(p)
        if meanwhile != quit_program:
            p.qmp.cmd("cont")
        if meanwhile == unplugged:
            p.qmp.wait_event("DEVICE_DELETED")
        if holder:
            assert p.guest.done()
        if meanwhile != quit_program:
            p.qmp.cmd("quit")
            assert p.m.wait() == 0
    for name in ("n", "base", "o"):
        if (tmp_path / name).exists() and meanwhile != unplugged:
            seen = content(tmp_path / name)[:512]
            above = name == "n" and holder == "base"       # reads what is below
            assert seen == (DATA if name == holder or above else bytes(512)), name
