# SPDX-License-Identifier: MIT
"""Filters: what they do to the requests of a client, and what is left in the files below."""
import json
import os
import random
import struct

import pytest

from imglib import IMG, QEMU, img, qimg, run
from test_nbd import SERVE, Server

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-io")
MIB = 1 << 20


class Disk(Server):
    """An NBD export of the node that OPTS describe."""

    def __init__(self, tmp_path, opts, name="s"):
        super().__init__(tmp_path, [SERVE, "--blockdev", json.dumps({**opts, "node-name": "n"}), "--nbd-server", "addr.type=unix,addr.path=@SOCK@",
                                    "--export", "nbd,id=e,node-name=n,name=disk,writable=on"], name)

    def io(self, *cmds, ok=(0,)):
        p = run("qemu-io", "-f", "raw", *[w for c in cmds for w in ("-c", c)], self.uri("disk"), ok=ok)
        assert "verification failed" not in p.stdout, p.stdout
        return p.stdout + p.stderr


def file(path):
    return {"driver": "file", "filename": str(path)}


def qcow2(path):
    return {"driver": "qcow2", "file": file(path), "discard": "unmap"}


def raw(path):
    return {"driver": "raw", "file": file(path)}


def test_blkverify_compares(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "q", "4M")
    img("create", tmp_path / "r", "4M")
    d = Disk(tmp_path, {"driver": "blkverify", "test": qcow2(tmp_path / "q"), "raw": raw(tmp_path / "r")})
    r, cmds = random.Random(1), []
    for i in range(40):
        off, n = r.randrange(4 * MIB - 70000), r.randrange(1, 70000)
        cmds.append(r.choice(["write -P %d %d %d" % (i + 1, off, n), "write -z %d %d" % (off, n), "read %d %d" % (off, n)]))
    d.io(*cmds, "flush", "read 0 4M")
    assert d.end() == 0
    qimg("compare", "-f", "qcow2", "-F", "raw", tmp_path / "q", tmp_path / "r")
    with open(tmp_path / "r", "r+b") as f:
        f.seek(2 * MIB + 77)
        old = f.read(1)
        f.seek(2 * MIB + 77)
        f.write(bytes([old[0] ^ 1]))
    d = Disk(tmp_path, {"driver": "blkverify", "test": qcow2(tmp_path / "q"), "raw": raw(tmp_path / "r")}, "t")
    d.io("read 0 2M")
    assert "Input/output error" in d.io("read 2M 64k", ok=(1,))
    d.end()
    assert "contents mismatch at offset %d" % (2 * MIB + 77) in (tmp_path / "t.log").read_text()
    img("resize", "-f", "raw", tmp_path / "r", "5M")
    p = run(SERVE, "--blockdev", json.dumps({"driver": "blkverify", "node-name": "n", "test": qcow2(tmp_path / "q"), "raw": raw(tmp_path / "r")}), ok=(1,))
    assert "'test' has 4194304 bytes" in p.stderr


def test_blkdebug_rules_on_the_command_line(tmp_path):
    img("create", tmp_path / "r", "4M")
    rules = [{"event": "write_aio", "errno": 28, "sector": 2048, "once": True}, {"event": "read_aio", "errno": 5, "sector": 4096},
             {"event": "flush_to_disk", "errno": 5, "once": True}, {"event": "none", "iotype": "write-zeroes", "errno": 12, "once": True}]
    d = Disk(tmp_path, {"driver": "blkdebug", "image": raw(tmp_path / "r"), "inject-error": rules})
    d.io("write 0 1M", "read 0 2M", "write 2M 4k")      # a hole would be told without being read
    assert "No space left" in d.io("write -P 1 1M 64k", ok=(1,))
    d.io("write -P 1 1M 64k", "read -P 1 1M 64k")
    for _ in range(2):
        assert "Input/output error" in d.io("read 2M 512", ok=(1,))
    assert "Cannot allocate" in d.io("write -z 3M 4k", ok=(1,))
    d.io("write -z 3M 4k")
    d.end()


EVENTS = [      # what fails, and what does not
    ("read_aio", ["read 0 64k"], ["read 1M 64k", "write 0 64k"]), ("read_backing_aio", ["read 1M 64k", "read 0 64k"], ["read 0 64k"]),
    ("write_aio", ["write 0 64k"], ["read 0 64k", "read 1M 64k"]), ("write_aio", ["write 3M 64k"], ["read 3M 64k"]),
    ("l2_load", ["read 0 64k"], None), ("refblock_load", ["write 3M 64k"], ["read 0 64k", "write 0 64k"]),
    ("cluster_alloc", ["write 3M 64k"], ["write 0 64k", "read 0 64k"]), ("l2_update", ["write 3M 64k", "flush"], ["read 0 64k"]),
    ("l2_alloc_write", ["write 3G 64k"], ["write 3M 64k"]), ("l1_update", ["write 3G 64k", "flush"], ["write 3M 64k", "flush"]),
    ("refblock_update_part", ["write 3M 64k", "flush"], ["read 0 64k", "write 0 64k", "flush"]), ("read_compressed", ["read 2M 64k"], ["read 0 64k"]),
    ("cow_read", ["write 1100k 4k"], ["write 3M 64k"]), ("refblock_alloc", ["write 3M 64k"] + ["write %dM 2M" % n for n in range(8, 2100, 2)], ["write 3M 64k"]),
]


@pytest.mark.parametrize("event,fails,goes", EVENTS, ids=["%s-%d" % (e[0], i) for i, e in enumerate(EVENTS)])
def test_blkdebug_events_of_an_image(tmp_path, event, fails, goes):
    """The image tells what it is about to do: requests for something else go well."""
    q = tmp_path / "q"
    img("create", "-f", "raw", tmp_path / "base", "4G")
    run("qemu-io", "-f", "raw", "-c", "write -P 1 1M 64k", tmp_path / "base")
    img("create", "-f", "qcow2", "-b", tmp_path / "base", "-F", "raw", q)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", "-c", "write -c -P 3 2M 64k", q)
    image = {"driver": "qcow2", "file": {"driver": "blkdebug", "image": file(q), "inject-error": [{"event": event, "errno": 28, "once": True}]}}
    d = Disk(tmp_path, image)
    if goes:
        d.io(*goes)
    assert "No space left" in d.io(*fails, ok=(0, 1))
    d.io("read -P 3 2M 64k", "read -P 1 1M 64k")        # once
    d.end()


def test_blkdebug_events_of_writes(tmp_path):
    """What fails when it is done is done."""
    img("create", tmp_path / "r", "1M")
    rules = [{"event": e, "errno": 28, "once": True, **more} for e, more in
             (("pwritev", {}), ("pwritev_done", {"iotype": "write"}), ("pwritev_zero", {}), ("pwritev_done", {"iotype": "write-zeroes"}))]
    d = Disk(tmp_path, {"driver": "blkdebug", "image": raw(tmp_path / "r"), "inject-error": rules})
    for pattern, wrote in ((1, 0), (2, 2)):
        assert "No space left" in d.io("write -P %d 0 64k" % pattern, ok=(1,))
        d.io("read -P %d 0 64k" % wrote)
    for left in (2, 0):
        assert "No space left" in d.io("write -z 0 64k", ok=(1,))
        d.io("read -P %d 0 64k" % left)
    d.end()


def test_blkdebug_of_compressed_writes_and_copies(tmp_path):
    img("create", "-f", "raw", tmp_path / "base", "4M")
    run("qemu-io", "-f", "raw", "-c", "write -P 1 1M 1M", tmp_path / "base")
    img("create", "-f", "qcow2", "-b", tmp_path / "base", "-F", "raw", tmp_path / "q")
    rules = [{"event": "write_compressed", "errno": 28, "once": True}, {"event": "cor_write", "errno": 5, "once": True}]
    image = {"driver": "qcow2", "file": {"driver": "blkdebug", "image": file(tmp_path / "q"), "inject-error": rules[:1]}}
    d = Disk(tmp_path, {"driver": "compress", "file": image})
    d.io("read 0 4M")
    assert "No space left" in d.io("write -P 2 0 64k", ok=(1,))
    d.io("write -P 2 0 64k", "read -P 2 0 64k")
    d.end()
    d = Disk(tmp_path, {"driver": "copy-on-read", "file": {"driver": "blkdebug", "image": {"driver": "qcow2", "file": file(tmp_path / "q")}, "inject-error": rules[1:]}})
    d.io("read -P 1 1M 1M")                             # what is not copied is read all the same
    d.end()
    assert [x["depth"] for x in json.loads(img("map", "-f", "qcow2", "--output=json", tmp_path / "q").stdout) if x["start"] == MIB] == [1]
    d = Disk(tmp_path, {"driver": "copy-on-read", "file": {"driver": "blkdebug", "image": {"driver": "qcow2", "file": file(tmp_path / "q")}}})
    d.io("read -P 1 1M 1M")                             # through a filter
    d.end()
    assert [x["depth"] for x in json.loads(img("map", "-f", "qcow2", "--output=json", tmp_path / "q").stdout) if x["start"] == MIB] == [0]


def test_blkdebug_states_of_an_image(tmp_path):
    """From when a cluster was freed on, writes fail."""
    img("create", "-f", "qcow2", tmp_path / "q", "4M")
    rules = {"set-state": [{"event": "cluster_free", "new_state": 2}], "inject-error": [{"event": "write_aio", "state": 2, "errno": 28}]}
    d = Disk(tmp_path, {"driver": "qcow2", "discard": "unmap", "file": {"driver": "blkdebug", "image": file(tmp_path / "q"), **rules}})
    d.io("write 0 1M", "discard 0 64k", "write 2M 64k", "flush", "read 1M 64k")
    assert "No space left" in d.io("write 3M 64k", ok=(1,))
    d.end()


def test_blkdebug_states_in_a_file(tmp_path):
    """The second write fails: the first moves the state on. So does what follows, for no other rule's event comes."""
    img("create", tmp_path / "r", "1M")
    (tmp_path / "rules").write_text('# states\n[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "2"\n\n[inject-error]\nevent = "write_aio"\n'
                                    'state = "2"\nerrno = "28"\n[set-state]\nevent = "write_aio"\nstate = "2"\nnew_state = "3"\n')
    d = Disk(tmp_path, {"driver": "blkdebug", "image": raw(tmp_path / "r"), "config": str(tmp_path / "rules")})
    d.io("write 0 512")
    assert "No space left" in d.io("write 0 512", ok=(1,))
    for what in ("write 0 512", "read 0 512"):
        assert "No space left" in d.io(what, ok=(1,))
    d.end()
    for text, said in (('[other]\n', "[inject-error]"), ('x = "1"\n', "before the first"), ('[set-state]\nevent write\n', "KEY"),
                       ('[inject-error]\nevnt = "none"\n', "evnt"), ('[inject-error]\nevent = "cow_write"\n', "cow_write")):
        (tmp_path / "rules").write_text(text)
        p = run(SERVE, "--blockdev", json.dumps({"driver": "blkdebug", "node-name": "n", "image": raw(tmp_path / "r"), "config": str(tmp_path / "rules")}), ok=(1,))
        assert said in p.stderr and "rules:" in p.stderr, p.stderr


def test_blkdebug_rules_stand_ready_until_another_comes(tmp_path):
    """As qemu-io does by the same rules: a rule whose event came in its state hits the first request to its sector from then on, in whatever state."""
    img("create", tmp_path / "r", "2M")
    (tmp_path / "rules").write_text('[inject-error]\nstate = "1"\nevent = "read_aio"\nerrno = "28"\nonce = "on"\nsector = "2048"\n'
                                    '[set-state]\nstate = "1"\nevent = "read_aio"\nnew_state = "2"\n[set-state]\nstate = "2"\nevent = "read_aio"\nnew_state = "1"\n')
    cmds = ["read 0 512", "read 1M 512", "read 1M 512"]
    wants = run("qemu-io", "-f", "raw", *[w for c in cmds for w in ("-c", c)], "blkdebug:%s:%s" % (tmp_path / "rules", tmp_path / "r"), ok=(0, 1))
    d = Disk(tmp_path, {"driver": "blkdebug", "image": raw(tmp_path / "r"), "config": str(tmp_path / "rules")})
    text = d.io(*cmds, ok=(0, 1))
    d.end()
    assert text.count("read 512/512") == wants.stdout.count("read 512/512") == 2
    assert text.count("No space left") == (wants.stdout + wants.stderr).count("No space left") == 1


def test_blkdebug_permissions(tmp_path):
    """What it takes, and does not share, below. A device writes; so does a job or another node that says so."""
    img("create", tmp_path / "r", "1M")
    base = ["--blockdev", json.dumps({"node-name": "b", **raw(tmp_path / "r")})]
    more = ["--blockdev", json.dumps({"driver": "blkdebug", "node-name": "w", "image": "b", "take-child-perms": ["write"]})]

    def told(opts):
        p = run(SERVE, *base, *more, "--blockdev", json.dumps({"driver": "blkdebug", "node-name": "n", "image": "b", **opts}), "--chardev", "nosuch,id=x", ok=(1,))
        return p.stderr
    assert "writes" in told({"unshare-child-perms": ["write"]}) and "nosuch" not in told({"unshare-child-perms": ["write"]})
    assert "nosuch" in told({"unshare-child-perms": ["resize"]}) and "nosuch" in told({"take-child-perms": ["write", "resize", "consistent-read"]})
    assert "take-child-perms: 'all'" in told({"take-child-perms": ["all"]})


def replay(log, out, until=None):
    """Plays a log of dm-log-writes back; the entries as (sector, sectors, flags)."""
    data, entries = log.read_bytes(), []
    magic, version, n, unit = struct.unpack_from("<QQQI", data)
    assert magic == 0x6a736677736872 and version == 1
    at, disk = unit, bytearray(out.read_bytes())
    for _ in range(n if until is None else until):
        sector, count, flags, _ = struct.unpack_from("<QQQQ", data, at)
        at += unit
        entries.append((sector, count, flags))
        if flags & 4:
            disk[sector * unit:(sector + count) * unit] = bytes(count * unit)
        elif count:
            disk[sector * unit:(sector + count) * unit] = data[at:at + count * unit]
            at += count * unit
    out.write_bytes(disk)
    return entries


@pytest.mark.parametrize("unit", [512, 4096])
def test_blklogwrites_can_be_played_back(tmp_path, unit):
    img("create", tmp_path / "r", "4M")
    (tmp_path / "log").write_bytes(b"")
    opts = {"driver": "blklogwrites", "file": raw(tmp_path / "r"), "log": file(tmp_path / "log"), "log-sector-size": unit}
    d = Disk(tmp_path, opts)
    d.io("write -P 1 0 64k", "write -P 2 100 5000", "write -z 32k 8k", "flush", "write -f -P 3 1M 4k")
    d.end()
    (tmp_path / "again").write_bytes(bytes(4 * MIB))
    entries = replay(tmp_path / "log", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "r").read_bytes()
    assert any(f & 1 for _, _, f in entries) and any(f & 2 and s == MIB // unit for s, _, f in entries)
    d = Disk(tmp_path, {**opts, "log-append": True}, "t")
    d.io("write -P 9 2M 64k")
    d.end()
    more = replay(tmp_path / "log", tmp_path / "again")
    assert more[:len(entries)] == entries and (tmp_path / "again").read_bytes() == (tmp_path / "r").read_bytes()
    (tmp_path / "log").write_bytes(bytes(8192))
    p = run(SERVE, "--blockdev", json.dumps({**opts, "node-name": "n", "log-append": True}), ok=(1,))
    assert "log-append" in p.stderr


def test_compress_stores_compressed_data(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "q", "8M")
    img("create", tmp_path / "r", "8M")
    a = Disk(tmp_path, {"driver": "compress", "file": qcow2(tmp_path / "q")})
    b = Disk(tmp_path, raw(tmp_path / "r"), "t")
    for d in (a, b):
        d.io("write -P 7 0 4M", "write -P 8 5M 1000", "write -P 9 %d 200k" % (MIB - 5000), "write -z 2M 512k", "write -P 4 4M 513", "read -P 7 0 64k")
        d.end()
    qimg("compare", "-f", "qcow2", "-F", "raw", tmp_path / "q", tmp_path / "r")
    img("check", "-f", "qcow2", tmp_path / "q")
    qimg("check", "-f", "qcow2", tmp_path / "q")
    parts = json.loads(img("map", "-f", "qcow2", "--output=json", tmp_path / "q").stdout)
    assert all(x.get("compressed") for x in parts if x["data"]) and os.stat(tmp_path / "q").st_size < MIB
    p = run(SERVE, "--blockdev", json.dumps({"driver": "compress", "node-name": "n", "file": raw(tmp_path / "r")}), ok=(1,))
    assert "cannot store compressed" in p.stderr


def test_preallocate_grows_in_steps(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "q", "64M")
    start = os.stat(tmp_path / "q").st_size
    opts = {"driver": "qcow2", "file": {"driver": "preallocate", "prealloc-size": 16 * MIB, "file": file(tmp_path / "q")}}
    d = Disk(tmp_path, opts)
    d.io("write -P 1 0 1M")
    big = os.stat(tmp_path / "q").st_size
    assert big >= start + 16 * MIB and big % MIB == 0
    d.io("write -P 2 1M 2M", "flush")
    assert os.stat(tmp_path / "q").st_size == big       # that was there already
    d.end()
    assert start < os.stat(tmp_path / "q").st_size < 5 * MIB
    assert "leak" not in qimg("check", "-f", "qcow2", tmp_path / "q").stdout
    run("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 1M", "-c", "read -P 2 1M 2M", tmp_path / "q")


@pytest.mark.parametrize("opts", [{"driver": "faults", "rules": [{"op": "read", "offset": 65536, "length": 65536, "errno": "EIO"}]},
                                  {"driver": "blkdebug", "inject-error": [{"event": "read_aio", "iotype": "read", "sector": 129}]}])
def test_a_hole_is_read_where_a_rule_waits(tmp_path, opts):
    """Clients of NBD are told of holes without a read; not where the read would fail."""
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    os.truncate(tmp_path / "a", 0)
    os.truncate(tmp_path / "a", 1 << 20)
    d = Disk(tmp_path, {**opts, "image" if opts["driver"] == "blkdebug" else "file": raw(tmp_path / "a")})
    d.io("read -P 0 0 64k", "read -P 0 128k 64k")
    d.io("read 64k 64k", ok=(1,))
    d.end()


def test_versions_name_the_libraries():
    for tool in (IMG, SERVE):
        p = run(tool, "--version")
        assert p.stdout.startswith(os.path.basename(tool) + " version ") and "zstd" in p.stdout and "fuse3" in p.stdout
