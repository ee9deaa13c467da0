# SPDX-License-Identifier: MIT
"""Disks of iSCSI targets that do what tgt does not: errors, limits, thin provisioning, ends of sessions. And a tgt that is killed."""
import json
import threading

import pytest

import fakeiscsi as fi
from fakeiscsi import Drop, Fake, Sense, Status
from imglib import img, sparse_file
from test_iscsi import BUILT

pytestmark = pytest.mark.skipif(not BUILT, reason="no libiscsi")
MIB = 1 << 20


@pytest.fixture(name="fake")
def fake_target():
    t = Fake(4096)
    yield t
    t.close()


def first(n, what, *ops):
    """The first N commands of these kinds fail so."""
    left, lock = [n], threading.Lock()

    def hook(conn, cdb):
        with lock:
            if cdb[0] in ops and left[0]:
                left[0] -= 1
                raise what() if callable(what) else what
    return hook


def copy_in(tmp_path, fake, *more, ok=(0,), **opts):
    raw = sparse_file(tmp_path / "raw", 2 * MIB, seed=3)
    p = img("convert", "-n", "--target-image-opts", "-f", "raw", *more, raw, fake.opts(**opts), ok=ok)
    assert ok != (0,) or bytes(fake.data) == raw.read_bytes()
    return p


@pytest.mark.parametrize("what", [Status(8), Status(0x28), Status(0x40), Sense(6, 0x2900), Sense(6, 0x2a09), Sense(6, 0x2900, True), Sense(2, 0x0401),
                                  Sense(11, 0x4b00), Drop()], ids=["busy", "full", "aborted", "reset", "capacity", "descriptor", "becoming", "abort", "lost"])
def test_what_passes(tmp_path, fake, what):
    """Two of each; everything is there in the end."""
    fake.on_command = first(2, what, fi.WRITE)
    copy_in(tmp_path, fake)
    fake.on_command = first(2, what, fi.READ)
    img("compare", "--image-opts", fake.opts(), "driver=raw,file.driver=file,file.filename=%s" % (tmp_path / "raw"))
    fake.on_command = first(2, what, fi.INQUIRY, fi.MODE_SENSE)
    img("map", "-f", "raw", fake.url())
    if isinstance(what, Drop):
        assert len({isid for isid, keys in fake.logins}) == 3 < len(fake.logins), "a session that is made anew has the ISID of the old one"


@pytest.mark.parametrize("what,words", [(Sense(3, 0x1100), "3/11/00"), (Sense(5, 0x2400), "5/24/00"), (Sense(7, 0x2700, True), "7/27/00"), (Sense(7, 0x2707), "7/27/07"),
                                        (Status(0x18), "reserved"), (Status(0x30), "0x30"), (Status(2), "without sense")])
def test_what_does_not_pass(tmp_path, fake, what, words):
    fake.on_command = first(100, what, fi.WRITE)
    err = copy_in(tmp_path, fake, ok=(1,)).stderr
    assert words in err and fi.NAME in err and "127.0.0.1:%d" % fake.port in err and "LUN 1" in err
    assert ("No space" in err) == (words == "7/27/07")


def test_limits(tmp_path, fake):
    fake.max_transfer, fake.max_same = 16, 100
    fake.on_command = lambda conn, cdb: check_length(cdb)

    def check_length(cdb):
        n = int.from_bytes(cdb[10:14], "big")
        if (cdb[0] in (fi.READ, fi.WRITE) and n > 16) or (cdb[0] == fi.WRITE_SAME and not 0 < n <= 100):
            raise Sense(5, 0x2400)
    copy_in(tmp_path, fake)
    img("bench", "-f", "raw", "-s", "1000k", "-c", "4", fake.url())
    img("bench", "-f", "raw", "-w", "-s", "1000k", "-c", "4", fake.url())
    assert fake.count(fi.WRITE_SAME)


def test_a_thin_unit(tmp_path, fake):
    fake.thin, fake.max_unmap = True, 64
    fake.touch(0, 4096, True)
    copy_in(tmp_path, fake)
    got = json.loads(img("map", "--output=json", "--image-opts", fake.opts()).stdout)
    assert sum(x["length"] for x in got if x["data"]) == 512 * len(fake.mapped) < 2 * MIB
    assert all(x["zero"] for x in got if not x["data"])
    with open(tmp_path / "raw", "rb") as f:
        assert f.read() == bytes(fake.data)
    fake.touch(0, 4096, True)
    img("create", "--force", "-f", "qcow2", fake.url(), "1M")
    img("bench", "-f", "qcow2", "-w", "-c", "8", "-s", "65536", fake.url())
    img("check", "-f", "qcow2", fake.url())


def test_zeroes_that_cannot_be_told_once(tmp_path, fake):
    """WRITE SAME is tried once."""
    fake.on_command = first(100, Sense(5, 0x2000), fi.WRITE_SAME)
    fake.data[:] = b"x" * len(fake.data)
    copy_in(tmp_path, fake)
    assert fake.count(fi.WRITE_SAME) == 1


def test_fua_and_flushes(fake):
    img("bench", "-f", "raw", "-w", "-c", "32", "--flush-interval", "4", fake.url())
    assert fake.count(fi.SYNC) >= 8
    fake.on_command = first(100, Sense(5, 0x2000), fi.SYNC)         # without a cache
    img("bench", "-f", "raw", "-w", "-c", "32", "--flush-interval", "4", fake.url())


def test_write_protection(fake):
    fake.protected = True
    img("map", "-f", "raw", fake.url())
    assert "write-protected" in img("bench", "-f", "raw", "-w", fake.url(), ok=(1,)).stderr


def garbage(*, length=None, op=0x25, status=0, cut=None, ahs=0, more=b""):
    def raw(h):
        pdu = bytearray([op, 0x80 if op == 0x21 else 0x81, 0, status]) + bytes(12) + h[16:20] + b"\xff" * 4 + bytes(24)
        if length is not None:
            pdu[5:8] = length.to_bytes(3, "big")
        pdu[4] = ahs
        return bytes(pdu[:cut]) + more
    return Status(0, raw)


@pytest.mark.parametrize("what", [garbage(length=0xffffff), garbage(length=8, cut=20), garbage(op=0x3e), garbage(op=0x22), garbage(ahs=255),
                                  garbage(length=24, more=b"\xff" * 24, op=0x21, status=2), garbage(op=0x21, status=2),
                                  garbage(op=0x21, status=0x77), garbage(op=0x3f), garbage(length=8192, more=b"z" * 8192), Drop()],
                         ids=["length", "cut", "opcode", "other", "ahs", "sense", "no-sense", "status", "reject", "more", "drop"])
def test_garbage(tmp_path, fake, what):
    """The command fails, and the program says so and ends by itself."""
    def hook(conn, cdb):
        if cdb[0] == fi.READ:
            if isinstance(what, Drop):
                raise what
            conn.sock.sendall(what.raw(conn.last))
            raise Drop
    serve = fi.Conn.command

    def command(self, h, data):
        self.last = h
        serve(self, h, data)
    fake.on_command = hook
    fi.Conn.command = command
    try:
        p = img("bench", "--image-opts", "-c", "2", fake.opts(reconnect_delay=0), ok=(1,))
    finally:
        fi.Conn.command = serve
    assert fi.NAME in p.stderr


def test_a_target_that_goes_silent(fake):
    never = threading.Event()
    fake.on_command = lambda conn, cdb: never.wait(60) if cdb[0] == fi.READ else None
    p = img("bench", "--image-opts", "-c", "1", fake.opts(timeout=1), ok=(1,))
    never.set()
    assert "no answer in 1 second" in p.stderr or "timed out" in p.stderr


def test_one_that_cannot_be_reached_any_more(fake):
    def hook(conn, cdb):
        if cdb[0] == fi.READ:
            fake.close()
            raise Drop
    fake.on_command = hook
    err = img("bench", "--image-opts", "-c", "1", fake.opts(reconnect_delay=1), ok=(1,)).stderr
    assert "refused" in err


def test_a_size_that_changes(tmp_path, fake):
    def hook(conn, cdb):
        if cdb[0] == fi.WRITE and len(fake.data) == 2 * MIB:
            fake.data.extend(bytes(MIB))
            raise Sense(6, 0x2a09)
    fake.on_command = hook
    img("bench", "-f", "raw", "-w", "-c", "4", fake.url())
    assert sum(cdb[0] == fi.SERVICE_IN and cdb[1] == 0x10 for cdb in fake.log) == 2


def test_a_portal_that_moved(tmp_path, fake):
    other = Fake(4096)
    other.data = fake.data

    def moved(conn, h):
        conn.put(0x23, h[1] & 0x7f, bytes([1, 1]), itt=h[16:20], lun=h[8:14] + b"\0\0", mid=bytes(4),
                 data=b"TargetAddress=127.0.0.1:%d,1\0" % fake.port)
        raise Drop
    other.on_login = moved
    try:
        copy_in(tmp_path, other)
    finally:
        other.close()
    assert fake.logouts == 1 and not other.log


def test_one_that_moves_for_ever(fake):
    def moved(conn, h):
        conn.put(0x23, h[1] & 0x7f, bytes([1, 1]), itt=h[16:20], lun=h[8:14] + b"\0\0", mid=bytes(4), data=b"TargetAddress=127.0.0.1:%d\0" % fake.port)
        raise Drop
    fake.on_login = moved
    assert "from one portal to the next" in img("map", "-f", "raw", fake.url(), ok=(1,)).stderr


@pytest.mark.parametrize("block,last", [(0, 100), (500, 100), (512, (1 << 64) - 1), (1 << 20, 10), (4096, 1 << 60)])
def test_sizes_that_cannot_be(fake, block, last):
    serve = fake.execute

    def execute(cdb, data):
        if cdb[0] == fi.SERVICE_IN:
            return last.to_bytes(8, "big") + block.to_bytes(4, "big") + bytes(20)
        return serve(cdb, data)
    fake.execute = execute
    assert "not possible" in img("map", "-f", "raw", fake.url(), ok=(1,)).stderr


def test_nothing_is_left(fake):
    img("map", "-f", "raw", fake.url())
    assert fake.logouts == len(fake.logins) == 1
