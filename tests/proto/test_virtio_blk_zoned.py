# SPDX-License-Identifier: MIT
"""virtio-blk with zones (VIRTIO 1.3, 5.2): what is offered, each status of each request, what the state file keeps."""
import json
import os
import re
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import QmpError, run
from lib.nvme import RAM
from lib.virtio import VirtioMachine

ZONED, FLUSHES = 1 << 17, 1 << 9
IN, OUT, FLUSH, APPEND, REPORT, OPEN, CLOSE, FINISH, RESET, RESET_ALL = 0, 1, 4, 15, 16, 18, 20, 22, 24, 26
OK, IOERR, UNSUPP, INVALID, UNALIGNED, TOO_OPEN, TOO_ACTIVE = range(7)
NOT_WP, EMPTY, IOPEN, EOPEN, CLOSED, FULL = 0, 1, 2, 3, 4, 14
SIZE, CAP, N = 128, 96, 8              # sectors, zones
NO_WP = (1 << 64) - 1
BUF, DATA, BACK = RAM + 0x4000000, RAM + 0x4010000, RAM + 0x4200000


def node(path, **more):
    return {"driver": "zoned", "node-name": "z", "file": {"driver": "file", "filename": str(path)}, "zone-size": SIZE * 512, **more}


def boot(tmp_path, **more):
    path = tmp_path / "img"
    if not path.exists():
        path.write_bytes(bytes(N * SIZE * 512 + 4096))         # the rest belongs to no zone
    return VirtioMachine(tmp_path, "-blockdev", json.dumps(node(path, **{"zone-capacity": CAP * 512, **more})),
                         "-device", "virtio-blk-pci,drive=z,id=disk")


class Disk:
    def __init__(self, m, features=ZONED | FLUSHES):
        self.fn, self.q = m.fn(1), m.fn(1).q
        assert self.fn.negotiate(features)
        self.vq = self.fn.queue(0)
        self.fn.start()

    def do(self, kind, sector=0, out=b"", want=0):
        """(status, what the device wrote before it)."""
        self.q.write(BUF, struct.pack("<IIQ", kind, 0, sector))
        if out:
            self.q.write(DATA, out)
        self.q.write(BACK + want, b"\xee")
        self.vq.put((BUF, 16, 0), *([(DATA, len(out), 0)] if out else []), (BACK, want + 1, 1))
        self.fn.kick(self.vq)
        self.vq.wait()
        back = self.q.read(BACK, want + 1)
        return back[-1], back[:-1]

    def status(self, kind, sector=0, out=b""):
        return self.do(kind, sector, out)[0]

    def append(self, sector, sectors, fill=b"a"):
        status, place = self.do(APPEND, sector, fill * (512 * sectors), 8)
        return struct.unpack("<Q", place)[0] if status == OK else -status

    def report(self, sector=0, room=N):
        """(state, write pointer) of each zone."""
        status, data = self.do(REPORT, sector, want=64 * (room + 1))
        assert status == OK
        n = struct.unpack_from("<Q", data)[0]
        found = [struct.unpack_from("<QQQBB", data, 64 * (i + 1)) for i in range(n)]
        for cap, start, _, kind, state in found:
            assert start % SIZE == 0 and kind == (1 if state == NOT_WP else 2)
        return [(state, wp) for _, _, wp, _, state in found]

    def zone(self, i):
        return self.report(i * SIZE, 1)[0]

    def read(self, sector, sectors):
        status, data = self.do(IN, sector, want=512 * sectors)
        assert status == OK
        return data


def test_what_is_offered(tmp_path):
    with boot(tmp_path, **{"max-open": 2, "max-active": 3}) as m:
        fn = m.fn(1)
        assert fn.offered() & ZONED and not fn.offered() & 1 << 13
        assert not fn.negotiate(0) and fn.negotiate(ZONED)
        assert fn.get(0, 4, 4) == N * SIZE
        assert [fn.get(72 + 4 * i, 4, 4) for i in range(5)] == [SIZE, 2, 3, min(1024, SIZE), 512] and fn.get(92, 1, 4) == 1
        d = Disk(m)
        assert d.report() == [(EMPTY, SIZE * i) for i in range(N)]
        assert d.report(3 * SIZE + 5, 2) == [(EMPTY, 3 * SIZE), (EMPTY, 4 * SIZE)] and d.report(0, 0) == []
        assert d.status(REPORT, N * SIZE) == INVALID


def test_zones_are_asked_for_only_where_there_are_some(tmp_path):
    with VirtioMachine(tmp_path, "-blockdev", "driver=null-co,node-name=d,size=1M", "-device", "virtio-blk-pci,drive=d") as m:
        assert not m.fn(1).offered() & ZONED
        d = Disk(m, 0)
        assert [d.status(k) for k in (APPEND, REPORT, OPEN, CLOSE, FINISH, RESET, RESET_ALL)] == [UNSUPP] * 7


def test_writes(tmp_path):
    with boot(tmp_path) as m:
        d = Disk(m)
        assert d.status(OUT, SIZE, b"x" * 4096) == OK and d.zone(1) == (IOPEN, SIZE + 8)
        assert d.status(OUT, SIZE, b"y" * 512) == UNALIGNED and d.status(OUT, SIZE + 9, b"y" * 512) == UNALIGNED
        assert d.status(OUT, SIZE + 8, b"y" * 512 * (CAP - 7)) == INVALID           # beyond what can be written
        assert d.append(SIZE, 4) == SIZE + 8 and d.append(SIZE, 4) == SIZE + 12 and d.append(SIZE + 1, 1) == -INVALID
        assert d.read(SIZE, 17) == b"x" * 4096 + b"a" * 4096 + bytes(512)
        assert d.append(SIZE, CAP - 16) == SIZE + 16 and d.zone(1) == (FULL, NO_WP)
        assert d.append(SIZE, 1) == -INVALID and d.status(OUT, SIZE + CAP, b"y" * 512) == INVALID
        assert d.do(IN, SIZE + 100, want=512 * 64)[0] == INVALID                       # over the end of a zone
        assert d.do(APPEND, 0, b"", 8)[0] == INVALID and d.do(APPEND, 0, b"y" * 512, 0)[0] == IOERR
        assert d.status(OUT, N * SIZE, b"y" * 512) == IOERR


def test_transitions(tmp_path):
    with boot(tmp_path, conventional=2, **{"zone-capacity": 0}) as m:
        d = Disk(m)
        assert d.report(0, 3) == [(NOT_WP, NO_WP), (NOT_WP, NO_WP), (EMPTY, 2 * SIZE)]
        assert [d.status(k, SIZE) for k in (OPEN, CLOSE, FINISH, RESET)] == [INVALID] * 4 and d.append(0, 1) == -INVALID
        assert d.status(OUT, SIZE - 4, b"c" * 4096) == OK and d.read(SIZE - 4, 8) == b"c" * 4096        # over two of them
        assert d.status(OUT, 2 * SIZE - 4, b"c" * 4096) == INVALID and d.do(IN, 2 * SIZE - 4, want=4096)[0] == INVALID
        z = 3 * SIZE
        steps = [(CLOSE, INVALID, EMPTY), (OPEN, OK, EOPEN), (OPEN, OK, EOPEN), (CLOSE, OK, EMPTY), (OPEN, OK, EOPEN), (OUT, OK, EOPEN),
                 (CLOSE, OK, CLOSED), (CLOSE, OK, CLOSED), (OUT, OK, IOPEN), (OPEN, OK, EOPEN), (FINISH, OK, FULL), (FINISH, OK, FULL),
                 (OPEN, INVALID, FULL), (CLOSE, INVALID, FULL), (RESET, OK, EMPTY), (RESET, OK, EMPTY), (FINISH, OK, FULL), (RESET, OK, EMPTY)]
        written = 0
        for i, (kind, status, state) in enumerate(steps):
            assert d.status(kind, z + (written if kind == OUT else 0), b"w" * 512 if kind == OUT else b"") == status, i
            written += kind == OUT
            assert d.zone(3)[0] == state, i
        assert d.status(OPEN, z + 1) == INVALID and d.status(OPEN, N * SIZE) == INVALID
        assert d.read(z, 2) == bytes(1024)                                              # the reset took it
        for i in (2, 4, 5, 7):
            assert d.append(i * SIZE, 1) == i * SIZE
        assert d.status(FINISH, 7 * SIZE) == OK and d.status(CLOSE, 5 * SIZE) == OK and d.status(RESET_ALL, 12345) == OK
        assert d.report()[2:] == [(EMPTY, SIZE * i) for i in range(2, N)] and d.read(SIZE - 4, 8) == b"c" * 4096


def test_limits(tmp_path):
    with boot(tmp_path, **{"max-open": 2, "max-active": 3}) as m:
        d = Disk(m)
        assert [d.status(OPEN, i * SIZE) for i in range(3)] == [OK, OK, TOO_OPEN]
        assert d.append(3 * SIZE, 1) == -TOO_OPEN and d.status(OUT, 3 * SIZE, b"x" * 512) == TOO_OPEN
        assert d.status(CLOSE, 0) == OK and [d.append(i * SIZE, 1) for i in (3, 4)] == [3 * SIZE, 4 * SIZE]     # closes the third
        assert [s for s, _ in d.report()] == [EMPTY, EOPEN, EMPTY, CLOSED, IOPEN, EMPTY, EMPTY, EMPTY]
        assert d.append(5 * SIZE, 1) == -TOO_ACTIVE and d.status(FINISH, 3 * SIZE) == OK and d.append(5 * SIZE, 1) == 5 * SIZE


def test_what_is_kept(tmp_path):
    """A flush makes the file right, killing the program loses what came after; a clean end keeps all. Other zones do not fit."""
    state = tmp_path / "state"
    for first in (True, False):
        with boot(tmp_path, state=str(state)) as m:
            d = Disk(m)
            if first:
                assert d.append(0, 8) == 0 and d.append(SIZE, 8) == SIZE and d.status(FINISH, SIZE) == OK and d.status(FLUSH) == OK
                assert json.loads(state.read_text())["written"] == [[0, IOPEN, 0, 4096], [1, FULL, 0, CAP * 512]]
                assert d.append(0, 8) == 8 and d.append(5 * SIZE, 3) == 5 * SIZE
                m.process.kill()
                m.process.wait()
            else:
                assert d.report(0, 2) == [(CLOSED, 8), (FULL, NO_WP)] and d.zone(5) == (EMPTY, 5 * SIZE)
                assert d.read(0, 16) == b"a" * 4096 + bytes(4096)              # what was not flushed is not seen
                assert d.append(5 * SIZE, 3) == 5 * SIZE
                m.qmp.cmd("quit")
                assert m.wait() == 0
    assert json.loads(state.read_text())["written"][2] == [5, IOPEN, 0, 1536]
    args = ["-M", "virt", "-display", "none", "-blockdev"]
    for more, text in (({}, "'zone-capacity' is not 65536 there"), ({"zone-size": 2 * SIZE * 512}, "'zone")):
        status, _, error = run(*args, json.dumps(node(tmp_path / "img", state=str(state), **more)))
        assert status == 1 and re.search("state '.*' is of other zones: .*" + text, error), error
    state.write_text(json.dumps({**json.loads(state.read_text()), "written": [[99, FULL, 0, 0]]}))
    status, _, error = run(*args, json.dumps(node(tmp_path / "img", state=str(state), **{"zone-capacity": CAP * 512})))
    assert status == 1 and "entry 0 of 'written' makes no sense" in error


def test_without_flushes(tmp_path):
    """A driver that cannot flush has each request kept when it is done."""
    state = tmp_path / "state"
    with boot(tmp_path, state=str(state)) as m:
        d = Disk(m, ZONED)
        for do, want in ((lambda: d.append(0, 8), [[0, IOPEN, 0, 4096]]), (lambda: d.status(FINISH), [[0, FULL, 0, CAP * 512]]), (lambda: d.status(RESET), [])):
            assert do() == OK and json.loads(state.read_text())["written"] == want


def test_a_write_that_fails_may_be_tried_again(tmp_path):
    """werror=stop: after `cont` it goes where it was to go."""
    path = tmp_path / "img"
    path.write_bytes(bytes(N * SIZE * 512))
    rule = {"event": "write_aio", "errno": 28, "once": True}
    blk = node(path)
    blk["file"] = {"driver": "blkdebug", "image": blk["file"], "inject-error": [rule]}
    with VirtioMachine(tmp_path, "-blockdev", json.dumps(blk), "-device", "virtio-blk-pci,drive=z,werror=stop") as m:
        m.qmp.cmd("cont")
        d = Disk(m)
        d.q.write(BUF, struct.pack("<IIQ", OUT, 0, SIZE))
        d.q.write(DATA, b"r" * 512)
        d.vq.put((BUF, 16, 0), (DATA, 512, 0), (BACK, 1, 1))
        d.fn.kick(d.vq)
        m.qmp.wait_event("STOP")
        m.qmp.cmd("cont")
        d.vq.wait()
        assert d.q.read(BACK, 1) == b"\0" and d.zone(1) == (IOPEN, SIZE + 1) and d.read(SIZE, 1) == b"r" * 512


@pytest.mark.parametrize("more,text", [
    ({"zone-size": 1 << 30}, "makes 0 zones"), ({"conventional": N}, "one at least is written in order"), ({"zone-size": 100000}, "zone-size"),
    ({"zone-capacity": 4096 * 1000}, "no more than zone-size"), ({"zone-capacity": 4096, "conventional": 1}, "which conventional zones cannot be"),
    ({"max-open": 3, "max-active": 2}, r"max-open \(3\) is more than max-active \(2\)")])
def test_zones_that_cannot_be(tmp_path, more, text):
    (tmp_path / "img").write_bytes(bytes(N * SIZE * 512))
    status, _, error = run("-M", "virt", "-display", "none", "-blockdev", json.dumps(node(tmp_path / "img", **more)))
    assert status == 1 and re.search(text, error), error


def test_who_knows_nothing_of_zones(tmp_path):
    (tmp_path / "img").write_bytes(bytes(N * SIZE * 512))
    args = ["-M", "virt", "-display", "none", "-blockdev", json.dumps(node(tmp_path / "img"))]
    status, _, error = run(*args, "-device", "ich9-ahci,id=a", "-device", "ide-hd,drive=z,bus=a.0")
    assert status == 1 and "'z' is written in zones, of which this device cannot tell its guest" in error
    status, _, error = run(*args, "-blockdev", "driver=raw,file=z,node-name=r")
    assert status == 1 and "it goes above all others" in error


def test_only_the_same_zones_take_their_place(tmp_path):
    """A mirror that would pivot to a node without zones, an overlay, a medium: refused, and the disk stays as it is."""
    target = tmp_path / "target"
    target.write_bytes(bytes(N * SIZE * 512))
    (tmp_path / "img").write_bytes(bytes(N * SIZE * 512))
    with VirtioMachine(tmp_path, "-blockdev", json.dumps(node(tmp_path / "img")), "-device", "virtio-blk-pci,drive=z,id=disk",
                       "-blockdev", "raw,node-name=t,file.driver=file,file.filename=%s" % target,
                       "-device", "virtio-scsi-pci,id=s,addr=9", "-device", "scsi-cd,id=cd,bus=s.0") as m:
        d = Disk(m)
        assert d.status(OUT, 0, b"x" * 512) == OK
        m.qmp.cmd("blockdev-mirror", job_id="j", device="z", target="t", sync="full", auto_finalize=True, auto_dismiss=False)
        m.qmp.wait_event("BLOCK_JOB_READY")
        m.qmp.cmd("block-job-complete", device="j")
        m.qmp.wait_event("BLOCK_JOB_COMPLETED")
        assert "do not have the same zones" in m.qmp.cmd("query-jobs")[0]["error"]
        m.qmp.cmd("job-dismiss", id="j")
        m.qmp.cmd("blockdev-open-tray", id="cd")
        for wrong, command, args in (("zones", "blockdev-insert-medium", {"id": "cd", "node_name": "z"}),
                                     ("zones", "qom-set", {"path": "/machine/peripheral/disk", "property": "drive", "value": "t"})):
            with pytest.raises(QmpError, match=wrong):
                m.qmp.cmd(command, **args)
        assert d.status(OUT, 1, b"y" * 512) == OK and d.status(OUT, 1, b"y" * 512) == UNALIGNED
