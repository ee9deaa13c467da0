# SPDX-License-Identifier: MIT
"""NVMe queues on threads of their own, and queues whose memory goes somewhere else."""
import json
import os
import re
import struct
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.iothreads import THREADS, wakes_only
from lib.machine import TIMEOUT, QmpError, run
from lib.nvme import RAM, NvmeMachine, Queue, read, write

PATH = "/machine/peripheral/n0"
HOUR = 3600000000000


def args(mapping=None, **more):
    dev = dict({"driver": "nvme", "serial": "T", "id": "n0", "addr": "1", "drive": "d"}, **more)
    if mapping is not None:
        dev["iothread-queue-mapping"] = mapping
    return [*THREADS, "-device", json.dumps(dev)]


def machine(tmp_path, mapping=None, **more):
    with open(tmp_path / "img", "wb") as f:
        f.truncate(4 << 20)
    return NvmeMachine(tmp_path, "-blockdev", "driver=file,node-name=d,filename=%s" % (tmp_path / "img"), *args(mapping, **more))


@pytest.mark.parametrize("mapping,served,admin", [
    ([{"iothread": "t0"}, {"iothread": "t1"}], ["t0", "t1", "t0", "t1"], None),
    ([{"iothread": "t1", "queues": [1, 4]}, {"iothread": "t0", "queues": [2]}], ["t1", "t0", "t0", "t1"], "t0")])
def test_each_queue_has_its_thread(tmp_path, mapping, served, admin):
    with machine(tmp_path, mapping, max_ioqpairs=4, **({"iothread": admin} if admin else {})) as m:
        for _ in range(2):                      # and after a reset
            n = m.nvme(1).enable()
            queues = [n.io_queue(i) for i in range(1, 5)]
            for io, name in zip(queues, served):
                data = os.urandom(4096)
                wakes_only(m, name, lambda q=io, d=data: write(q, 1, 8 * q.qid, d))
                assert read(queues[0], 1, 8 * io.qid, 8) == data
            n.disable()
        with pytest.raises(QmpError, match="t0"):
            m.qmp.cmd("object-del", id="t0")


@pytest.mark.parametrize("mapping,text", [
    ([], "is a list with one member or more"), ([{"iothread": "tO"}], "iothread-queue-mapping: .*tO"),
    ([{"iothread": "t0", "vqs": [1]}], "each member is an object with 'iothread' and, if wanted, 'queues'"),
    ([{"iothread": "t0", "queues": [0]}], r"queues holds numbers from 1 to 64 \(max_ioqpairs\)"),
    ([{"iothread": "t0", "queues": [1]}, {"iothread": "t1", "queues": [1]}], "queue 1 is given to two threads")])
def test_a_mapping_that_cannot_be(tmp_path, mapping, text):
    (tmp_path / "img").write_bytes(bytes(1 << 20))
    status, _, error = run("-M", "virt", "-display", "none", "-blockdev", "driver=file,node-name=d,filename=%s" % (tmp_path / "img"), *args(mapping))
    assert status == 1 and re.search(text, error), error


class Held:
    """Reads that wait for an hour, one in each of four queues of three threads (and the admin queue on a fourth)."""

    def __init__(self, m):
        self.m, self.met = m, m.qmp.cmd("qom-get", path=PATH, property="fault-hits")
        self.n = m.nvme(1).enable()
        self.queues = [self.n.io_queue(i) for i in range(1, 5)]
        m.qmp.cmd("qom-set", path=PATH, property="faults", value=[{"queue": "io", "delay-ns": HOUR}])
        self.cids = [q.submit(2, 1, prp1=self.n.alloc(), cdw=(0, 0, 0)) for q in self.queues]
        while m.qmp.cmd("qom-get", path=PATH, property="fault-hits") < self.met + 4:
            pass
        m.qmp.cmd("qom-set", path=PATH, property="faults", value=[])


@pytest.fixture(name="m")
def fixture(tmp_path):
    mapping = [{"iothread": "t1", "queues": [1, 4]}, {"iothread": "t2", "queues": [2]}]
    with NvmeMachine(tmp_path, "-object", "iothread,id=t2", "-blockdev", "driver=null-co,node-name=d,size=1M,read-zeroes=on",
                     *args(mapping, iothread="t0", max_ioqpairs=4)) as m:
        yield m


def test_aborts_reach_other_threads(m):
    h = Held(m)
    for q, cid in zip(h.queues, h.cids):
        assert h.n.admin.run(8, cdw=(cid << 16 | q.qid,)).result == 0
        c = q.poll()
        assert (c.cid, c.status) == (cid, 7)


def test_queues_are_deleted_under_their_threads(m):
    h = Held(m)
    for q in h.queues:
        assert h.n.admin.run(0, cdw=(q.qid,)).status == 0 and q.poll().status == 8
        assert h.n.admin.run(4, cdw=(q.qid,)).status == 0
    assert read(h.n.io_queue(2), 1, 0, 1) == bytes(512)


def test_a_reset_ends_what_threads_hold(m):
    for _ in range(3):
        h = Held(m)
        h.n.disable()
        h.n.enable()
        for i in range(1, 5):
            assert read(h.n.io_queue(i), 1, 0, 1) == bytes(512)
        h.n.disable()


def test_a_reset_while_a_deletion_waits(m):
    """The deletion waits for a read of the block layer, which takes its time; the reset comes from a thread that is no loop of it."""
    n = m.nvme(1).enable()
    io = n.io_queue(2)
    m.qmp.cmd("qom-set", path=PATH, property="timing", value={"read-ns": HOUR})
    io.submit(2, 1, prp1=n.alloc(), cdw=(0, 0, 0))
    while m.qmp.cmd("qom-get", path=PATH, property="timed-commands") < 1:
        pass
    n.admin.submit(0, cdw=(2,))
    n.disable()
    m.qmp.cmd("qom-set", path=PATH, property="timing", value={})
    assert read(m.nvme(1).enable().io_queue(2), 1, 0, 1) == bytes(512)


def test_the_end_of_the_program_ends_what_threads_hold(m):
    Held(m)
    m.qmp.cmd("quit")
    assert m.wait() == 0


# ---- where the queues are ----

def with_buffer(tmp_path, **more):
    return NvmeMachine(tmp_path, "-blockdev", "driver=null-co,node-name=d,size=1M,read-zeroes=on", *args(cmb_size_mb=1, **more))


def queue_at(n, qid, addr, size=16):
    io = Queue(n, qid, addr, size)
    assert n.admin.run(5, prp1=io.cq, cdw=((size - 1) << 16 | qid, 1)).status == 0
    assert n.admin.run(1, prp1=io.sq, cdw=((size - 1) << 16 | qid, qid << 16 | 1)).status == 0
    return io


def test_the_window_moves_away_from_a_queue(tmp_path):
    """A queue in the controller's buffer by its window; then the window is elsewhere, and the same address is the machine's memory."""
    with with_buffer(tmp_path) as m:
        at, bar = RAM + 0x2000000, 0x44000000
        n = m.nvme(1)
        n.q.writel(n.cfg + 0x18, bar)
        n.q.writel(n.cfg + 0x1c, 0)
        n.writeq(0x50, at | 3)
        n.enable()
        buf = n.alloc()
        n.q.cmd("memset 0x%x 0x20000 0x0" % bar)
        io = queue_at(n, 1, at)

        def flush(where):
            """A flush through the queue as the controller sees it at WHERE."""
            n.q.write(where + 64 * io.tail, struct.pack("<BBHIIIQQQ6I", 0, 0, io.tail, 1, 0, 0, 0, buf, 0, *[0] * 6))
            io.tail = (io.tail + 1) % io.size
            io.ring()
            end = time.monotonic() + TIMEOUT
            cqe = where + 0x10000 + 16 * io.head
            while not struct.unpack("<H", n.q.read(cqe + 14, 2))[0] & 1:
                assert time.monotonic() < end, "no completion at 0x%x" % where
            io.head += 1
        flush(bar)
        flush(bar)
        n.writeq(0x50, (at + 0x1000000) | 3)
        flush(at)
        n.writeq(0x50, at | 3)
        flush(bar)


def test_a_queue_that_is_unmapped_is_fatal(tmp_path):
    with with_buffer(tmp_path, **{"legacy-cmb": True}) as m:
        n = m.nvme(1)
        n.q.writel(n.cfg + 0x18, 0x44000000)
        n.q.writel(n.cfg + 0x1c, 0)
        n.enable()
        io = queue_at(n, 1, 0x44000000)
        assert io.run(0, 1).status == 0
        n.q.writel(n.cfg + 0x18, 0x45000000)    # the machine's memory changed
        n.writel(0x1008, 2)
        n.wait(0x1c, 2, 2)
        assert n.q.readl(0x45000000) & 0xff == 0 and n.readl(0x1c) & 2


def test_without_mastering_nothing_is_fetched(tmp_path):
    with with_buffer(tmp_path) as m:
        n = m.nvme(1).enable()
        assert n.io_queue().run(0, 1).status == 0
        n.q.writel(n.cfg + 4, 2)
        n.writel(0x1008, 2)
        n.wait(0x1c, 2, 2)
