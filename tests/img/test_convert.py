# SPDX-License-Identifier: MIT
"""convert and commit: internal snapshots as sources, bitmaps, rate limits, copies within the host."""
import filecmp
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest

from imglib import IMG, QEMU, img, info, qimg, qio, sparse_file, wait_listening

MIB = 1 << 20


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
@pytest.mark.parametrize("more", ["compat=1.1", "compat=0.10", "cluster_size=4k", "extended_l2=on"])
def test_an_internal_snapshot_is_a_source(tmp_path, more):
    a = tmp_path / "a"
    qimg("create", "-f", "qcow2", "-o", more, a, "4M")
    qio(a, "write -P 1 0 1M", "write -P 2 2M 100k")
    qimg("snapshot", "-c", "one", a)
    qio(a, "write -P 3 512k 2M", "discard 0 128k")
    size = 4 if "0.10" in more else 6
    if size > 4:
        qimg("resize", "-f", "qcow2", a, "6M")
    qimg("snapshot", "-c", "two", a)
    before = a.read_bytes()
    for name in ("one", "two", "snapshot.name=one", "snapshot.id=2", "snapshot.id=1,snapshot.name=one"):
        qimg("convert", "-l", name, "-f", "qcow2", "-O", "raw", a, tmp_path / "want")
        img("convert", "-l", name, "-f", "qcow2", "-O", "raw", "--force", a, tmp_path / "have")
        want, have = (tmp_path / "want").read_bytes(), (tmp_path / "have").read_bytes()
        assert len(have) == (4 if name.endswith("one") else size) * MIB         # QEMU's tool takes today's size
        assert want[:len(have)] == have and not any(want[len(have):])
    assert a.read_bytes() == before
    assert "no snapshot 'three'" in img("convert", "-l", "three", "-f", "qcow2", a, tmp_path / "x", ok=(1,)).stderr
    for wrong, said in (("snapshot.id=2,snapshot.name=one", "no snapshot 'snapshot.id=2,"), ("snapshot.nam=one", "unknown key 'snapshot.nam'")):
        assert said in img("convert", "-l", wrong, "-f", "qcow2", a, tmp_path / "x", ok=(1,)).stderr
    assert "hold no snapshots" in img("convert", "-l", "one", "-f", "raw", tmp_path / "want", tmp_path / "x", ok=(1,)).stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_compressed_clusters_side_by_side(tmp_path):
    """Clusters of a sector: many requests look for room in the same one, and for refcount blocks, at the same time."""
    raw, out = sparse_file(tmp_path / "a", 5 * MIB + 1024, 2), tmp_path / "b"
    for _ in range(12):
        img("convert", "-c", "--force", "-m", "16", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512,refcount_bits=64", raw, out)
        qimg("check", out)
        qimg("compare", "-f", "raw", "-F", "qcow2", raw, out)


def test_salvage_goes_on_where_no_map_is_to_be_had(tmp_path):
    """A source that cannot tell what is allocated at some places, and not read at others: the rest is copied."""
    src, dst = sparse_file(tmp_path / "src", 4 * MIB, pieces=200), tmp_path / "dst"
    rules = [{"event": "none", "iotype": "block-status", "errno": 5, "sector": 4096}, {"event": "none", "iotype": "read", "errno": 5, "sector": 6144}]
    bad = "json:" + json.dumps({"driver": "blkdebug", "inject-error": rules, "image": {"driver": "raw", "file": {"driver": "file", "filename": str(src)}}})
    p = img("convert", "-O", "raw", bad, dst, ok=(1,))
    assert "error while reading byte" in p.stderr
    p = img("convert", "--salvage", "-O", "raw", "--force", bad, dst)
    assert "no word of what is allocated from byte 2097152 on" in p.stderr and "bytes from 3145728 on could not be read" in p.stderr
    want = bytearray(src.read_bytes())
    want[3 * MIB:3 * MIB + 512] = bytes(512)
    assert dst.read_bytes() == bytes(want)


def bitmaps_of(path):
    return {b["name"]: (b["granularity"], sorted(b["flags"])) for b in info(path)["format-specific"]["data"].get("bitmaps", [])}


def dirty_in(tmp_path, path, name):
    """(offset, length) of what the bitmap says changed, as QEMU's server and libnbd see it."""
    sock = tmp_path / ("nbd-%s-%s" % (path.name, name))
    with subprocess.Popen(["qemu-nbd", "-r", "-t", "-k", sock, "-B", name, "-f", "qcow2", path]) as p:
        try:
            wait_listening(sock, p)
            out = subprocess.run(["nbdinfo", "--json", "--map=qemu:dirty-bitmap:" + name, "nbd+unix:///?socket=%s" % sock], check=True,
                                 stdout=subprocess.PIPE).stdout
        finally:
            p.kill()
    return [(x["offset"], x["length"]) for x in json.loads(out) if x["type"] & 1]


def break_bitmap(path, name):
    """Sets the flag in-use in the bitmap's entry, as a crash leaves it."""
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack(">I", 0x23852875), 72)
    dir_size, dir_off = struct.unpack_from(">QQ", data, at + 16)
    pos = data.index(name.encode(), dir_off, dir_off + dir_size) - 24
    data[pos + 15] |= 1
    path.write_bytes(data)


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_bitmaps_go_along(tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    qimg("create", "-f", "qcow2", a, "64M")
    qimg("bitmap", "--add", a, "fine")
    qimg("bitmap", "--add", "-g", "4k", a, "coarse")
    qio(a, "write 1M 128k", "write 20M 4k")
    qimg("bitmap", "--disable", a, "coarse")
    img("convert", "--bitmaps", "-f", "qcow2", "-O", "qcow2", a, b)
    assert bitmaps_of(b) == {"fine": (65536, ["auto"]), "coarse": (4096, [])} == bitmaps_of(a)
    qimg("check", b)
    for name in ("fine", "coarse"):
        assert dirty_in(tmp_path, b, name) == dirty_in(tmp_path, a, name) != []
    img("convert", "-f", "qcow2", "-O", "qcow2", a, c)
    assert not bitmaps_of(c)


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_bitmaps_that_cannot_go_along(tmp_path):
    a, b, raw = tmp_path / "a", tmp_path / "b", tmp_path / "raw"
    qimg("create", "-f", "qcow2", a, "4M")
    qimg("bitmap", "--add", a, "good")
    qimg("bitmap", "--add", a, "broken")
    break_bitmap(a, "broken")
    assert "'broken'" in img("convert", "--bitmaps", "-f", "qcow2", "-O", "qcow2", a, b, ok=(1,)).stderr
    assert not b.exists()
    assert "left out" in img("convert", "--bitmaps", "--skip-broken-bitmaps", "-f", "qcow2", "-O", "qcow2", a, b).stderr
    assert list(bitmaps_of(b)) == ["good"]
    raw.write_bytes(bytes(1 << 20))
    for args, why in ((("--skip-broken-bitmaps", "-f", "qcow2", a, tmp_path / "x"), "needs --bitmaps"),
                      (("--bitmaps", "-f", "raw", "-O", "qcow2", raw, tmp_path / "x"), "keep no bitmaps"),
                      (("--bitmaps", "--skip-broken-bitmaps", "-f", "qcow2", "-O", "raw", a, tmp_path / "x"), "Cannot store"),
                      (("--bitmaps", "-f", "raw", "-O", "qcow2", raw, raw, tmp_path / "x"), "several sources")):
        assert why in img("convert", *args, ok=(1,)).stderr
        assert not (tmp_path / "x").exists()


def test_a_rate_is_kept(tmp_path):
    """8 MiB of data at 8 MiB a second; holes are free."""
    a = tmp_path / "a"
    with open(a, "wb") as f:
        f.truncate(500 * MIB)
        f.seek(100 * MIB)
        f.write(b"x" * (8 * MIB))
    start = time.monotonic()
    img("convert", "-f", "raw", "-O", "qcow2", "-r", "8M", a, tmp_path / "b")
    took = time.monotonic() - start
    assert took >= 0.45
    assert "identical" in img("compare", "-f", "raw", "-F", "qcow2", a, tmp_path / "b").stdout
    img("create", "-f", "qcow2", "-b", tmp_path / "b", "-F", "qcow2", tmp_path / "top")
    img("convert", "-n", "--target-image-opts", "--image-opts", "driver=raw,size=%d,offset=%d,file.driver=file,file.filename=%s" % (8 * MIB, 100 * MIB, a),
        "driver=qcow2,file.driver=file,file.filename=%s" % (tmp_path / "top"))
    start = time.monotonic()
    img("commit", "-f", "qcow2", "-r", "8M", tmp_path / "top")
    assert time.monotonic() - start >= 0.45
    for bad in ("0", "x"):
        img("convert", "-r", bad, "-f", "raw", a, tmp_path / "c", ok=(1,))


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_copy_within_the_host(tmp_path, fmt):
    raw = sparse_file(tmp_path / "raw", 8 * MIB + 512, seed=3)
    src = raw
    if fmt == "qcow2":
        src = tmp_path / "q"
        img("convert", "-f", "raw", "-O", "qcow2", raw, src)
    img("convert", "-C", "-f", fmt, "-O", "raw", src, tmp_path / "out")
    assert filecmp.cmp(raw, tmp_path / "out", shallow=False)
    img("convert", "-C", "-W", "-f", fmt, "-O", "qcow2", src, tmp_path / "q2")          # nothing to gain, nothing lost
    assert "identical" in img("compare", "-f", "raw", "-F", "qcow2", raw, tmp_path / "q2").stdout
    assert "exclude" in img("convert", "-C", "-c", "-f", fmt, "-O", "qcow2", src, tmp_path / "x", ok=(1,)).stderr


def test_a_signal_asks_for_progress(tmp_path):
    """SIGUSR1 gets a line on stderr without -p, and the copy goes on."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x" * (16 * MIB))
    with subprocess.Popen([IMG, "convert", "-f", "raw", "-r", "256k", a, b], stderr=subprocess.PIPE, text=True) as p:
        try:
            while not b.exists():
                assert p.poll() is None
                time.sleep(0.01)
            p.send_signal(signal.SIGUSR1)
            assert re.fullmatch(r" +\(\d+\.\d\d/100%\)\n", p.stderr.readline())
            assert p.poll() is None
        finally:
            p.kill()


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("hole", [True, False], ids=["hole", "zeroes"])
def test_without_holes(tmp_path, fmt, hole):
    """-S 0: the target is fully allocated, whatever the source is made of."""
    data = os.urandom(100000)
    with open(tmp_path / "raw", "wb") as f:
        f.write(data)
        if not hole:
            f.write(bytes((4 << 20) - len(data)))
        f.truncate(4 << 20)
    img("convert", "-f", "raw", "-O", fmt, "-S", 0, tmp_path / "raw", tmp_path / "full")
    assert os.stat(tmp_path / "full").st_blocks * 512 >= 4 << 20
    spans = json.loads(img("map", "-f", fmt, "--output=json", tmp_path / "full").stdout)
    assert all(s["data"] and not s["zero"] for s in spans)
    img("compare", "-f", fmt, "-F", "raw", tmp_path / "full", tmp_path / "raw")
    img("convert", "-f", "raw", "-O", fmt, tmp_path / "raw", tmp_path / "sparse")
    assert os.stat(tmp_path / "sparse").st_blocks * 512 < 1 << 20


def patterned(path, fmt, size, *writes, over=None):
    """An image of @size that holds (start, length, byte); the bytes that it shows."""
    img("create", "-q", "-f", fmt, *(["-b", over[0], "-F", over[1]] if over else []), path, size)
    qio(path, *("write -P %d %d %d" % (v, at, n) for at, n, v in writes), fmt=fmt)


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
@pytest.mark.parametrize("base,fmt", [("long", "raw"), ("short", "raw"), ("mid", "qcow2"), ("low", "qcow2")])
@pytest.mark.parametrize("source", ["alone", "raw", "top"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_over_a_base_shows_what_its_source_does(tmp_path, base, fmt, source, packed):
    """What a source without backing file does not hold is zeroes, not what the base holds; and a base further down hides nothing of what is between."""
    patterned(tmp_path / "long", "raw", 4 * MIB, (0, 4 * MIB, 9))
    patterned(tmp_path / "short", "raw", MIB, (0, MIB, 8))
    patterned(tmp_path / "low", "qcow2", MIB, (0, MIB, 7))
    patterned(tmp_path / "mid", "qcow2", 2 * MIB, (512 << 10, 256 << 10, 6), (1536 << 10, 64 << 10, 5), over=("low", "qcow2"))
    patterned(tmp_path / "top", "qcow2", 3 * MIB, (640 << 10, 4096, 4), (2560 << 10, 4096, 3), over=("mid", "qcow2"))
    patterned(tmp_path / "alone", "qcow2", 3 * MIB, (640 << 10, 4096, 4))
    patterned(tmp_path / "raw", "raw", 3 * MIB, (640 << 10, 4096, 4))
    if source == "top" and base in ("long", "short"):
        base, fmt = "twin", "qcow2"                             # not one of the chain, but like the image next to the source
        img("convert", "-f", "qcow2", "-O", "qcow2", tmp_path / "mid", tmp_path / base)
    out, kind = tmp_path / "out", "raw" if source == "raw" else "qcow2"
    img("convert", "-f", kind, "-O", "qcow2", *(["-c"] if packed else []), "-b", base, "-F", fmt, tmp_path / source, out)
    qimg("compare", "-f", kind, "-F", "qcow2", tmp_path / source, out)
    qimg("check", out)
    if source == "top" and base in ("mid", "twin") and not packed:
        assert sum(x["length"] for x in json.loads(qimg("map", "--output=json", out).stdout) if x["depth"] == 0 and x["data"]) <= 128 << 10


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_half_target(tmp_path, end):
    (tmp_path / "a").write_bytes(os.urandom(MIB))
    heard = ["env", "--default-signal"]     # whoever runs us may ignore some, and that is inherited
    p = subprocess.Popen([*heard, IMG, "convert", "-r", "1k", "-f", "raw", "-O", "qcow2", "a", "b"], cwd=tmp_path)
    deadline = time.time() + 60
    while not ((tmp_path / "b").exists() and (tmp_path / "b").stat().st_size > 65536) and time.time() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)                     # made, and on the way
    p.send_signal(end)
    assert p.wait(timeout=60) == -end
    assert [x.name for x in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_dd_that_fails_leaves_no_half_target(tmp_path, fmt):
    (tmp_path / "a").write_bytes(os.urandom(8 * MIB))
    source = "driver=raw,file.driver=blkdebug,file.inject-error.0.event=read_aio,file.inject-error.0.sector=8192,file.image.driver=file,file.image.filename=a"
    p = img("dd", "--image-opts", "-O", fmt, "if=" + source, "of=b", cwd=tmp_path, ok=(1,))
    assert "cannot copy" in p.stderr and not (tmp_path / "b").exists(), p.stderr


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
@pytest.mark.parametrize("new", ["", "raw", "short"])
def test_what_a_new_backing_file_shows_and_the_old_did_not_is_zeroes(tmp_path, new):
    """Zeroes are kept as such, and what both do not hold is not looked at: 4 TiB take no time."""
    size = 4 << 40
    patterned(tmp_path / "old", "qcow2", size, (MIB, MIB, 3), (2 << 40, MIB, 4))
    patterned(tmp_path / "top", "qcow2", size, (MIB, 4096, 5), (3 * MIB, 1000 << 10, 6), over=("old", "qcow2"))
    patterned(tmp_path / "raw", "raw", size // 2, (0, 4 * MIB, 7), (size // 2 - MIB, MIB, 8))
    patterned(tmp_path / "short", "qcow2", 8 * MIB, (0, 8 * MIB, 7))
    shutil.copy(tmp_path / "top", tmp_path / "twin")
    img("rebase", "-f", "qcow2", "-b", new, *(["-F", "raw" if new == "raw" else "qcow2"] if new else []), tmp_path / "top", timeout=120)
    p = img("compare", "-f", "qcow2", "-F", "qcow2", tmp_path / "twin", tmp_path / "top")
    assert "identical" in p.stdout
    qimg("check", tmp_path / "top")
    own = [x for x in json.loads(qimg("map", "--output=json", tmp_path / "top").stdout) if x["depth"] == 0]
    assert sum(x["length"] for x in own if x["data"]) == 3 * MIB and sum(x["length"] for x in own if x["zero"] and x["present"]) >= (3 * MIB if new else 0)


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_the_map_behind_the_end_of_a_file(tmp_path):
    """A file that ends within its last cluster, and is sparse enough to be looked at, holds zeroes there."""
    a = tmp_path / "a"
    qimg("create", "-f", "qcow2", "-o", "preallocation=metadata", a, "8M")
    qio(a, "write -P 1 %d 4k" % (8 * MIB - 65536))
    at = next(x["offset"] for x in json.loads(qimg("map", "--output=json", a).stdout) if x["start"] == 8 * MIB - 65536)
    os.truncate(a, at + 4096)
    assert json.loads(img("map", "-f", "qcow2", "--output=json", a).stdout) == json.loads(qimg("map", "-f", "qcow2", "--output=json", a).stdout)
