# SPDX-License-Identifier: MIT
"""Key-value namespaces: store, retrieve, list, delete, exist; what is stored is there after the program was killed."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import PAGE, NvmeMachine, read

STORE, RETRIEVE, LIST, DELETE, EXIST = 1, 2, 6, 0x10, 0x14
INVALID_OPCODE, INVALID_FIELD, VALUE_SIZE, KEY_SIZE, NO_KEY, KEY_EXISTS, FULL = 1, 2, 0x85, 0x86, 0x87, 0x89, 0x81
CC = 0x00460001 | 6 << 4                # all command sets


def args(tmp_path, more="", second=True):
    for name in ("kv", "blocks"):
        if not os.path.exists(tmp_path / name):
            with open(tmp_path / name, "wb") as f:
                f.truncate(1 << 20)
    out = ["-drive", "file=%s,format=raw,if=none,id=d1" % (tmp_path / "kv"), "-drive", "file=%s,format=raw,if=none,id=d2" % (tmp_path / "blocks"),
           "-device", "nvme,serial=K,id=n0,addr=1", "-device", "nvme-ns,bus=n0,drive=d1,nsid=1,kv=on" + more]
    return out + (["-device", "nvme-ns,bus=n0,drive=d2,nsid=2"] if second else [])


class Kv:
    """A driver of one key-value namespace."""

    def __init__(self, m):
        self.n = m.nvme(1).enable(cc=CC)
        self.io = self.n.io_queue()
        self.buf = self.n.alloc(64 * PAGE)
        self.list = self.n.prp_list(self.buf + PAGE, 63 * PAGE)

    def go(self, op, key=b"", size=0, options=0, length=None):
        k = struct.unpack("<4I", key.ljust(16, b"\0"))
        prp2 = 0 if size <= PAGE else self.buf + PAGE if size <= 2 * PAGE else self.list
        return self.io.run(op, 1, prp1=self.buf, prp2=prp2, cdw2=k[0], cdw3=k[1],
                           cdw=(size, (len(key) if length is None else length) | options, 0, 0, k[2], k[3]))

    def store(self, key, value, options=0):
        self.n.q.write(self.buf, value)
        return self.go(STORE, key, len(value), options).status

    def get(self, key, room=64 * PAGE):
        c = self.go(RETRIEVE, key, room)
        return c.status or self.n.q.read(self.buf, min(c.result, room))

    def keys(self, first=b"", room=PAGE):
        c = self.go(LIST, first, room)
        assert c.status == 0, c
        raw = self.n.q.read(self.buf, room)
        out, at = [], 4
        for _ in range(struct.unpack_from("<I", raw)[0]):
            n = struct.unpack_from("<H", raw, at)[0]
            out.append(raw[at + 2:at + 2 + n])
            at += (2 + n + 3) // 4 * 4
        return out


@pytest.fixture(name="kv")
def fixture(tmp_path):
    with NvmeMachine(tmp_path, *args(tmp_path)) as m:
        k = Kv(m)
        k.stats = lambda: m.qmp.cmd("query-blockstats")
        yield k


def test_store_and_retrieve(kv):
    values = {b"a": b"x", b"sixteen-byte-key": os.urandom(200000), b"\0\0": b"", b"page": os.urandom(PAGE)}
    for k, v in values.items():
        assert kv.store(k, v) == 0
    for k, v in values.items():
        assert kv.get(k) == v
    assert kv.store(b"a", b"another") == 0 and kv.get(b"a") == b"another"
    c = kv.go(RETRIEVE, b"sixteen-byte-key", 8)                 # less room than value: its length is told
    assert (c.status, c.result) == (0, 200000) and kv.n.q.read(kv.buf, 8) == values[b"sixteen-byte-key"][:8]
    assert kv.get(b"\0") == NO_KEY and kv.get(b"A") == NO_KEY


def test_options_of_a_store(kv):
    must, must_not = 1 << 8, 1 << 9
    assert kv.store(b"k", b"1", must) == NO_KEY and kv.store(b"k", b"1", must_not) == 0
    assert kv.store(b"k", b"2", must_not) == KEY_EXISTS and kv.get(b"k") == b"1"
    assert kv.store(b"k", b"3", must) == 0 and kv.get(b"k") == b"3"
    assert kv.store(b"k", b"4", 1 << 11) == INVALID_FIELD


def test_delete_and_exist(kv):
    assert kv.store(b"k", b"1") == 0 and kv.go(EXIST, b"k").status == 0
    assert kv.go(DELETE, b"k").status == 0 and kv.go(EXIST, b"k").status == NO_KEY
    assert kv.go(DELETE, b"k").status == 0                      # unless the host asks for an error
    assert kv.n.feature(0x20, nsid=1).result == 0 and kv.n.set_feature(0x20, 1, nsid=1).status == 0
    assert kv.n.feature(0x20, nsid=1).result == 1 and kv.go(DELETE, b"k").status == NO_KEY
    assert kv.n.feature(0x20, nsid=2).status == INVALID_FIELD


def test_list(kv):
    keys = [b"b", b"a", b"ab", b"abc", b"\xff" * 16, b"aa"]
    for k in keys:
        assert kv.store(k, b"v") == 0
    assert kv.keys() == sorted(keys) and kv.keys(b"ab") == [b"ab", b"abc", b"b", b"\xff" * 16]
    assert kv.keys(b"aba") == [b"abc", b"b", b"\xff" * 16]      # the one to begin with need not be there
    assert kv.keys(room=12) == [b"a", b"aa"] and kv.keys(room=4) == []
    assert kv.go(LIST, b"", 3).status == INVALID_FIELD


def test_sizes(kv):
    assert kv.store(b"", b"v") == KEY_SIZE and kv.go(STORE, b"k", 1, length=17).status == KEY_SIZE
    assert kv.go(STORE, b"k", (2 << 20) + 1).status == VALUE_SIZE and kv.go(STORE, b"k", (512 << 10) + 1).status == INVALID_FIELD
    n = 0
    while kv.store(b"%d" % n, bytes(200 << 10)) == 0:
        n += 1
    assert kv.store(b"%d" % n, bytes(200 << 10)) == FULL and n == 5
    assert kv.go(DELETE, b"0").status == 0 and kv.store(b"x", bytes(200 << 10)) == 0
    assert kv.keys() == [b"1", b"2", b"3", b"4", b"x"]


def test_what_identify_tells(kv):
    n = kv.n
    assert kv.store(b"k", bytes(1000)) == 0
    raw = n.identify(5, nsid=1, csi=1)
    nsze, _, nuse = struct.unpack_from("<QQQ", raw)
    assert 900 << 10 < nsze < 1 << 20 and nuse == 1024 and raw[25] == 0
    assert struct.unpack_from("<HHII", raw, 72) == (16, 0, 2 << 20, 256)
    assert b"\x04\x01\0\0\x01" in n.identify(3, nsid=1)
    assert n.identify(0, nsid=1).status == 0x12c and n.identify(5, nsid=2, csi=1).status == INVALID_FIELD
    assert n.identify(5, nsid=1, csi=0).status == INVALID_FIELD
    assert n.identify(7, csi=1)[:8] == struct.pack("<II", 1, 0) and n.identify(7, csi=0)[:8] == struct.pack("<II", 2, 0)
    assert struct.unpack_from("<Q", n.identify(0x1c))[0] == 7
    effects = n.log(5, PAGE, csi=1)
    known = [op for op in range(256) if struct.unpack_from("<I", effects, 1024 + 4 * op)[0] & 1]
    assert known == [0, 1, 2, 6, 0x0d, 0x0e, 0x10, 0x11, 0x14, 0x15]
    assert kv.io.run(9, 1).status == 1 and isinstance(read(kv.io, 2, 0, 1), bytes)      # no blocks here; the other has them
    assert n.admin.run(0x86, nsid=1, prp1=kv.buf, cdw=(0, 0, 63, 0x10 << 24)).status == 1


def test_format_and_protection(kv):
    n = kv.n
    assert kv.store(b"k", b"v") == 0
    assert n.set_feature(0x84, 1, nsid=1).status == 0 and kv.store(b"k", b"w") == 0x20 and kv.go(DELETE, b"k").status == 0x20
    assert kv.get(b"k") == b"v" and n.set_feature(0x84, 0, nsid=1).status == 0
    assert n.admin.run(0x80, nsid=1, cdw=(4,)).status == 0x10a
    assert n.admin.run(0x80, nsid=1, cdw=(0,)).status == 0 and kv.keys() == [] and kv.store(b"k", b"x") == 0 and kv.get(b"k") == b"x"


def test_what_was_flushed_outlives_a_kill(tmp_path):
    values = {b"key%d" % i: os.urandom(700 * i) for i in range(20)}
    with NvmeMachine(tmp_path, *args(tmp_path)) as m:
        kv = Kv(m)
        for k in values:
            assert kv.store(k, b"first") == 0
        for k, v in values.items():
            assert kv.store(k, v) == 0
        assert kv.go(DELETE, b"key7").status == 0 and kv.io.run(0, 1).status == 0
        m.process.kill()
        m.process.wait()
    del values[b"key7"]
    with NvmeMachine(tmp_path, *args(tmp_path)) as m:
        kv = Kv(m)
        assert kv.keys() == sorted(values)
        for k, v in values.items():
            assert kv.get(k) == v, k


@pytest.mark.parametrize("more,words", [(",zoned=on", "zoned means nothing"), (",ms=8", "ms means nothing")])
def test_wrong_options_are_named(tmp_path, more, words):
    status, _, error = run("-M", "virt", *args(tmp_path, more))
    assert status == 1 and words in error, error


def test_a_drive_that_is_too_small(tmp_path):
    with open(tmp_path / "kv", "wb") as f:
        f.truncate(32 << 10)
    status, _, error = run("-M", "virt", *args(tmp_path))
    assert status == 1 and "too small for keys and values" in error, error


def test_everything_lasts_at_once_with_the_cache_off(kv):
    """Feature 06h off: a store and a delete that were answered are on the medium."""
    def flushes():
        return next(b["stats"]["flush_operations"] for b in kv.stats() if b.get("device") == "d1")

    assert kv.store(b"k", b"v") == 0
    before = flushes()
    assert kv.store(b"l", b"v") == 0 and kv.go(DELETE, b"k").status == 0 and flushes() == before
    assert kv.n.set_feature(6, 0).status == 0
    before = flushes()
    assert kv.store(b"m", b"v") == 0 and flushes() > before
    before = flushes()
    assert kv.go(DELETE, b"l").status == 0 and flushes() > before
    assert kv.keys() == [b"m"]


def test_a_host_that_enables_blocks_only(tmp_path):
    """Commands of other sets are those of a host that enabled them (CC.CSS); a namespace of keys takes none then, and keeps what it has."""
    zoned = ["-drive", "file=%s,format=raw,if=none,id=d3" % (tmp_path / "zones"), "-device", "nvme-ns,bus=n0,drive=d3,nsid=3,zoned=on,zoned.zone_size=64K"]
    with open(tmp_path / "zones", "wb") as f:
        f.truncate(1 << 20)
    with NvmeMachine(tmp_path, *args(tmp_path), *zoned) as m:
        kv = Kv(m)
        kv.n.q.write(kv.buf, b"value")
        assert kv.go(1, b"key", 5).status == 0
        kv.n.disable()
        n = kv.n.enable(cc=CC & ~0x70)
        io, buf = n.io_queue(), n.alloc()
        for op in (0, 1, 2, 6, 8, 0x10, 0x14):
            assert io.run(op, 1, prp1=buf, cdw2=0x79656b, cdw=(5, 3)).status == INVALID_OPCODE
        for op in (0x79, 0x7a, 0x7d):
            assert io.run(op, 3, prp1=buf, cdw=(0, 0, 63, 4)).status == INVALID_OPCODE
        assert io.run(1, 3, prp1=buf, cdw=(0, 0, 0)).status == 0 and io.run(2, 2, prp1=buf, cdw=(0, 0, 0)).status == 0
        n.disable()
        kv = Kv(m)
        assert kv.go(2, b"key", 5).status == 0 and kv.n.q.read(kv.buf, 5) == b"value"
