# SPDX-License-Identifier: MIT
"""virtio-blk with several queues: the threads that serve them, more requests than run at a time."""
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
from lib.nvme import RAM
from lib.virtio import DEVICE, VirtioMachine, disk_read

BUF = RAM + 0x4000000
DATA = b"".join(b"%015d\n" % i for i in range(4096))


def device(mapping, queues=4, **more):
    return ["-device", json.dumps({"driver": "virtio-blk-pci", "drive": "d", "id": "disk", "num-queues": queues, "iothread-vq-mapping": mapping, **more})]


def null(latency=0):
    return ["-blockdev", "driver=null-co,node-name=d,size=1M,read-zeroes=on,latency-ns=%d" % latency]


def served_by(m, fn, queue, name):
    """A read in QUEUE wakes the thread NAME."""
    def read():
        status = disk_read(fn, queue, 3, BUF)
        assert queue.wait() == (0, 513) and fn.q.read(status, 1) == b"\0"
        assert fn.q.read(BUF, 512) == DATA[512 * 3:512 * 4]
    wakes_only(m, name, read)


@pytest.mark.parametrize("mapping,served", [
    ([{"iothread": "t0"}, {"iothread": "t1"}], ["t0", "t1", "t0", "t1"]),
    ([{"iothread": "t1", "vqs": [0, 3, 1]}, {"iothread": "t0", "vqs": [2]}], ["t1", "t1", "t0", "t1"])])
def test_each_queue_has_its_thread(tmp_path, mapping, served):
    (tmp_path / "img").write_bytes(DATA)
    with VirtioMachine(tmp_path, *THREADS, "-blockdev", "driver=file,node-name=d,filename=%s" % (tmp_path / "img"), *device(mapping)) as m:
        fn = m.fn(1)
        for again in range(2):                  # and after a reset
            assert fn.negotiate()
            queues = [fn.queue(i) for i in range(4)]
            fn.start()
            for q, name in zip(queues, served):
                served_by(m, fn, q, name)
        with pytest.raises(QmpError, match="t0"):
            m.qmp.cmd("object-del", id="t0")


def test_the_way_of_a_read_is_traced(tmp_path):
    (tmp_path / "img").write_bytes(DATA)
    with VirtioMachine(tmp_path, "-blockdev", "driver=file,node-name=d,filename=%s" % (tmp_path / "img"), "-device", "virtio-blk-pci,drive=d,id=disk",
                       "-trace", "enable=*,file=%s" % (tmp_path / "log")) as m:
        fn = m.fn(1)
        assert fn.negotiate()
        queue = fn.queue(0)
        fn.start()
        disk_read(fn, queue, 3, BUF)
        assert queue.wait() == (0, 513)
    steps = ["pci_config_write 00:01.0 ", "virtio_kick virtio-blk queue 0", "block_request 'd' read 0x600 +512", "block_done 'd' read 0x600 +512: 0",
             "virtio_push virtio-blk queue 0: 513 bytes"]
    text = (tmp_path / "log").read_text()
    assert sorted(steps, key=text.find) == steps and steps[0] in text, text


@pytest.mark.parametrize("mapping,text", [
    ([], "is a list with one member or more"), ([{}], "each member is an object with 'iothread'"), (["t0"], "each member is an object"),
    ([{"iothread": "t0", "queues": [0]}], "each member is an object"), ([{"iothread": "tO"}], "iothread-vq-mapping: .*tO"),
    ([{"iothread": "t0"}, {"iothread": "t0"}], "iothread 't0' is named twice"),
    ([{"iothread": "t0", "vqs": [0, 1]}, {"iothread": "t1"}], "either all members have 'vqs' or none has"),
    ([{"iothread": "t0", "vqs": [0, 1, 4]}], r"numbers from 0 to 3 \(num-queues - 1\)"),
    ([{"iothread": "t0", "vqs": [0, 1]}, {"iothread": "t1", "vqs": [1]}], "queue 1 is given to two threads"),
    ([{"iothread": "t0", "vqs": [0, 1, 3]}], "queue 2 is given to no thread")])
def test_a_mapping_that_cannot_be(mapping, text):
    status, _, error = run("-M", "virt", "-display", "none", *THREADS, *null(), *device(mapping))
    assert status == 1 and re.search(text, error), error


def test_one_thread_or_a_mapping():
    status, _, error = run("-M", "virt", "-display", "none", *THREADS, *null(), *device([{"iothread": "t0"}], iothread="t1"))
    assert status == 1 and "iothread and iothread-vq-mapping exclude each other" in error


def fill(fn, vq):
    """Makes as many reads available as the ring holds, all into one buffer, and rings once."""
    n = vq.size // 2
    chains = b"".join(struct.pack("<QIHHQIHH", BUF, 16, 1, 2 * i + 1, BUF + 4096, 513, 2, 0) for i in range(n))
    fn.q.write(vq.desc, chains)
    fn.q.write(vq.avail, struct.pack("<HH%dH" % n, 0, n, *range(0, 2 * n, 2)))
    fn.kick(vq)
    return n


def used(vq):
    return struct.unpack("<H", vq.fn.q.read(vq.used + 2, 2))[0]


@pytest.mark.parametrize("threads", [None, [{"iothread": "t0"}, {"iothread": "t1"}]])
def test_more_requests_than_run_at_a_time(tmp_path, threads):
    """2048 in flight, with a cap of 1024: all are served, also those of queues that had to wait; a reset meanwhile drains."""
    disk = device(threads, 16) if threads else ["-device", "virtio-blk-pci,drive=d,num-queues=16"]
    with VirtioMachine(tmp_path, *THREADS, *null(50000000), *disk) as m:
        fn = m.fn(1)
        fn.q.write(BUF, struct.pack("<IIQ", 0, 0, 0))
        for full in (False, True):
            assert fn.negotiate()
            queues = [fn.queue(i, 256) for i in range(16)]
            fn.start()
            want = [fill(fn, vq) for vq in queues]
            end = time.monotonic() + TIMEOUT
            while full and [used(vq) for vq in queues] != want:
                assert time.monotonic() < end, [used(vq) for vq in queues]
            fn.set(0x14, 1, 0)
            while fn.get(0x14, 1):
                assert time.monotonic() < end


@pytest.mark.parametrize("kind,limit_at", [(11, 36), (13, 48)])
def test_a_range_longer_than_the_limit(tmp_path, kind, limit_at):
    """5.2.6.2: DISCARD and WRITE ZEROES of more sectors than the configuration space allows are refused; of as many, done."""
    with VirtioMachine(tmp_path, "-nodefaults", "-blockdev", "driver=null-co,node-name=d,size=4T,discard=unmap", "-device", "virtio-blk-pci,drive=d,addr=1") as m:
        fn = m.fn(1)
        assert fn.negotiate(1 << 13 | 1 << 14)
        vq = fn.queue(0)
        fn.start()
        most = fn.get(limit_at, 4, DEVICE)
        assert 0 < most < 0xffffffff
        for sectors, status in ((most, 0), (most + 1, 1), (0xffffffff, 1), (8, 0)):
            fn.q.write(BUF, struct.pack("<IIQQII", kind, 0, 0, 0, sectors, 0))
            vq.put((BUF, 32, False), (BUF + 64, 1, True))
            fn.kick(vq)
            assert vq.wait() == (0, 1) and fn.q.rd(BUF + 64, 1) == status


@pytest.mark.parametrize("option,limit_at,lbs,want", [
    ("max-discard-sectors=24", 36, 512, 24), ("max-write-zeroes-sectors=100", 48, 512, 100), ("max-discard-sectors=17", 36, 4096, 16),
    ("max-write-zeroes-sectors=1", 48, 4096, 8)])
def test_limits_of_ranges_that_the_user_sets(tmp_path, option, limit_at, lbs, want):
    with VirtioMachine(tmp_path, "-nodefaults", "-blockdev", "driver=null-co,node-name=d,size=4G,discard=unmap", "-device",
                       "virtio-blk-pci,drive=d,addr=1,logical_block_size=%d,%s" % (lbs, option)) as m:
        fn = m.fn(1)
        assert fn.negotiate(1 << 13 | 1 << 14)
        assert fn.get(limit_at, 4, DEVICE) == want
        assert fn.get(84 - limit_at, 4, DEVICE) > want          # the other one is as it was
