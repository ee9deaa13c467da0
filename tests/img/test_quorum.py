# SPDX-License-Identifier: MIT
"""Several nodes below one: quorum, and what copy-before-write keeps, seen by snapshot-access."""
import json
import os
import shutil
import subprocess
import time

import pytest

from imglib import img, run
from servelib import QmpError, Storage

pytestmark = pytest.mark.skipif(not shutil.which("qemu-io"), reason="no qemu-io")
MIB = 1 << 20


def raw(tmp_path, name, size=MIB):
    p = tmp_path / name
    p.write_bytes(bytes(size))
    return {"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": str(p)}}


def served(tmp_path, *nodes):
    """Storage with NODES, of which the last is exported."""
    args = [a for n in nodes for a in ("--blockdev", json.dumps(n))]
    s = Storage(tmp_path, *args, "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "nbd"))
    s.export("nbd", node=nodes[-1]["node-name"], ident="x", writable=nodes[-1]["driver"] != "snapshot-access", name="x")
    s.io = lambda *cmds, ok=(0,), name="x": io(tmp_path, name, cmds, ok)
    return s


def io(tmp_path, name, cmds, ok):
    mode = ["-r"] if all(c.startswith("read") for c in cmds) else []
    p = run("qemu-io", "-f", "raw", *mode, *[w for c in cmds for w in ("-c", c)], "nbd+unix:///%s?socket=%s" % (name, tmp_path / "nbd"), ok=ok)
    assert "verification failed" not in p.stdout, p.stdout
    return p.stdout + p.stderr


def quorum(n, threshold, **more):
    return {"driver": "quorum", "node-name": "q", "children": ["c%d" % i for i in range(n)], "vote-threshold": threshold, **more}


def spoil(tmp_path, name, off=4096, data=b"bad!" * 128):
    with open(tmp_path / name, "r+b") as f:
        f.seek(off)
        f.write(data)


def events(s, name):
    s.qmp.cmd("query-block-exports")
    got = [e["data"] for e in s.qmp.events if e["event"] == name]
    s.qmp.events = [e for e in s.qmp.events if e["event"] != name]
    return got


@pytest.mark.parametrize("rewrite", [False, True])
def test_the_majority_is_right(tmp_path, rewrite):
    kids = [raw(tmp_path, "c%d" % i) for i in range(3)]
    with served(tmp_path, *kids, quorum(3, 2, **{"rewrite-corrupted": rewrite})) as s:
        s.io("write -P 7 0 64k", "flush")
        assert all((tmp_path / ("c%d" % i)).read_bytes()[:65536] == b"\7" * 65536 for i in range(3))
        spoil(tmp_path, "c1")
        s.io("read -P 7 0 64k")
        assert events(s, "QUORUM_REPORT_BAD") == [{"type": "read", "node-name": "c1", "sector-num": 0, "sectors-count": 128}]
        assert (tmp_path / "c1").read_bytes()[4096:4100] == (b"\7\7\7\7" if rewrite else b"bad!")
        spoil(tmp_path, "c1", 8192)
        spoil(tmp_path, "c2", 8192, b"else" * 128)
        s.io("read 0 64k", ok=(1,))
        assert events(s, "QUORUM_FAILURE") == [{"reference": "q", "sector-num": 0, "sectors-count": 128}]
        s.io("read -P 7 32k 32k")


def faulty(tmp_path, name, op):
    return {"driver": "faults", "node-name": name, "file": raw(tmp_path, name + "-raw"), "rules": [{"op": op, "offset": 65536, "length": 65536, "errno": "ENOSPC"}]}


def test_errors_are_outvoted(tmp_path):
    with served(tmp_path, raw(tmp_path, "c0"), faulty(tmp_path, "c1", "write"), faulty(tmp_path, "c2", "read"), quorum(3, 2)) as s:
        s.io("write -P 5 0 128k")
        bad = [e for e in events(s, "QUORUM_REPORT_BAD") if e["type"] == "write"]
        assert bad and bad[0]["node-name"] == "c1" and bad[0]["error"] == "No space left on device"
        s.io("read -P 5 0 64k")
        s.io("read 64k 64k", ok=(1,))           # c1 lacks it, c2 cannot be read
        assert len(events(s, "QUORUM_FAILURE")) == 1
    with served(tmp_path, faulty(tmp_path, "c0", "write"), faulty(tmp_path, "c1", "write"), quorum(2, 1)) as s:
        assert "No space left" in s.io("write 64k 64k", ok=(1,))
        s.io("write -P 3 0 64k", "read -P 3 0 64k")


def test_the_first_that_can_be_read(tmp_path):
    with served(tmp_path, faulty(tmp_path, "c0", "read"), raw(tmp_path, "c1"), quorum(2, 2, **{"read-pattern": "fifo"})) as s:
        s.io("write -P 9 0 128k")
        spoil(tmp_path, "c1", 0)
        s.io("read -P 9 0 64k", "read -P 9 64k 64k")
        assert [e["node-name"] for e in events(s, "QUORUM_REPORT_BAD")] == ["c0"]


def test_two_that_must_be_alike(tmp_path):
    with served(tmp_path, raw(tmp_path, "c0"), raw(tmp_path, "c1"), quorum(2, 2, blkverify=True)) as s:
        s.io("write -P 1 0 64k", "read -P 1 0 64k")
        spoil(tmp_path, "c0")
        s.io("read 0 64k", ok=(1,))
        assert "mismatch" in s.text()


def test_children_come_and_go(tmp_path):
    kids = [raw(tmp_path, "c%d" % i) for i in range(3)]
    with served(tmp_path, *kids, raw(tmp_path, "short", 65536), {**quorum(3, 2), "children": ["c0", "c1"]}) as s:
        def change(**kw):
            s.qmp.cmd("x-blockdev-change", parent="q", **kw)
        for kw, says in (({"child": "children.1"}, "vote threshold"), ({"child": "children.7"}, "children.7"), ({"node": "short"}, "long"), ({}, "child"),
                         ({"node": "nobody"}, "nobody"), ({"node": "c2", "child": "children.0"}, "child")):
            with pytest.raises(QmpError) as e:
                change(**kw)
            assert says in str(e.value), str(e.value)
        with pytest.raises(QmpError) as e:
            s.qmp.cmd("x-blockdev-change", parent="c2", node="c0")
        assert "quorum" in str(e.value)
        change(node="c2")
        s.io("write -P 4 0 64k")
        assert (tmp_path / "c2").read_bytes()[:1] == b"\4"
        change(child="children.0")
        s.io("write -P 6 0 64k", "read -P 6 0 64k")
        assert (tmp_path / "c0").read_bytes()[:1] == b"\4" and (tmp_path / "c2").read_bytes()[:1] == b"\6"
        s.qmp.cmd("blockdev-del", node_name="c0")


def test_mistakes_are_named(tmp_path):
    with Storage(tmp_path, *[a for i in range(3) for a in ("--blockdev", json.dumps(raw(tmp_path, "c%d" % i)))]) as s:
        for q, says in ((quorum(2, 3), "vote-threshold"), (quorum(3, 0), "vote-threshold"), (quorum(3, 2, blkverify=True), "blkverify"),
                        ({**quorum(2, 2), "children": "c0"}, "children"), (quorum(2, 1, **{"rewrite-corrupted": True, "read-pattern": "fifo"}), "rewrite"),
                        (quorum(4, 2), "c3"), ({**quorum(1, 1), "children": []}, "children")):
            with pytest.raises(QmpError) as e:
                s.qmp.cmd("blockdev-add", **q)
            assert says in str(e.value), str(e.value)
        for i in range(3):
            s.qmp.cmd("blockdev-del", node_name="c%d" % i)


# -- copy-before-write, and the moment that it keeps

def moment(tmp_path, target=None, **cbw):
    return [raw(tmp_path, "disk"), target or raw(tmp_path, "old"),
            {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", **cbw},
            {"driver": "snapshot-access", "node-name": "then", "file": "cbw"}]


def test_a_moment_is_seen(tmp_path):
    nodes = moment(tmp_path)
    with open(tmp_path / "disk", "r+b") as f:
        f.write(b"".join(bytes([i % 250 + 1]) * 4096 for i in range(256)))
    before = (tmp_path / "disk").read_bytes()
    with served(tmp_path, *nodes) as s:
        s.export("nbd", node="cbw", ident="now", name="now", writable=True)
        s.io("write -P 255 60k 100k", "write -z 512k 64k", name="now")
        s.io("read -P 255 60k 100k", "read -P 0 512k 64k", name="now")
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", "nbd+unix:///x?socket=%s" % (tmp_path / "nbd"), tmp_path / "seen")
        assert (tmp_path / "seen").read_bytes() == before
        assert (tmp_path / "old").read_bytes()[:65536] == before[:65536]       # what was overwritten, and no more
        assert (tmp_path / "old").read_bytes()[300 * 1024:400 * 1024] == bytes(100 * 1024)
        # writers and readers at once
        w = subprocess.Popen(["qemu-io", "-f", "raw", *["-c", "write -P 1 0 1M"] * 20, "nbd+unix:///now?socket=%s" % (tmp_path / "nbd")],
                             stdout=subprocess.DEVNULL)
        while w.poll() is None:
            run("qemu-img", "convert", "-f", "raw", "-O", "raw", "nbd+unix:///x?socket=%s" % (tmp_path / "nbd"), tmp_path / "seen")
            assert (tmp_path / "seen").read_bytes() == before
        assert w.returncode == 0
        with pytest.raises(QmpError):
            s.qmp.cmd("blockdev-add", driver="snapshot-access", **{"node-name": "no"}, file="disk")


def test_a_copy_that_takes_too_long(tmp_path):
    for on_error in ("break-guest-write", "break-snapshot"):
        slow = {"driver": "faults", "node-name": "old", "file": raw(tmp_path, "old-raw"), "rules": [{"op": "write", "delay-ns": 5000000000}]}
        with served(tmp_path, *moment(tmp_path, slow, **{"cbw-timeout": 1, "on-cbw-error": on_error})) as s:
            (tmp_path / "disk").write_bytes(b"a" * MIB)
            s.export("nbd", node="cbw", ident="now", name="now", writable=True)
            start = time.monotonic()
            s.io("write -P 2 0 64k", ok=(1,) if on_error == "break-guest-write" else (0,), name="now")
            assert time.monotonic() - start > 0.9
            s.io("read -P 97 0 64k", ok=(0,) if on_error == "break-guest-write" else (1,))
            s.io("read -P %d 0 64k" % (97 if on_error == "break-guest-write" else 2), name="now")


def test_a_copy_that_fails(tmp_path):
    for on_error in ("break-guest-write", "break-snapshot"):
        full = {"driver": "faults", "node-name": "old", "file": raw(tmp_path, "old-raw"), "rules": [{"op": "write", "errno": "ENOSPC"}]}
        with served(tmp_path, *moment(tmp_path, full, **{"on-cbw-error": on_error})) as s:
            s.export("nbd", node="cbw", ident="now", name="now", writable=True)
            s.io("write -P 2 0 64k", ok=(1,) if on_error == "break-guest-write" else (0,), name="now")
            s.io("read 0 64k", ok=(0,) if on_error == "break-guest-write" else (1,))


def test_only_what_a_bitmap_names(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "disk", MIB)
    img("bitmap", "--add", "-g", "64k", tmp_path / "disk", "b")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 3 128k 64k", tmp_path / "disk")
    disk = {"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "filename": str(tmp_path / "disk")}}
    nodes = [disk, raw(tmp_path, "old"), {"driver": "copy-before-write", "node-name": "cbw", "file": "disk", "target": "old", "bitmap": {"node": "disk", "name": "b"}},
             {"driver": "snapshot-access", "node-name": "then", "file": "cbw"}]
    with served(tmp_path, *nodes) as s:
        s.io("read -P 3 128k 64k")
        s.io("read 0 64k", ok=(1,))
    assert os.path.exists(tmp_path / "old")
