# SPDX-License-Identifier: MIT
"""What the header of a qcow2 image may make us do and keep is bounded, whoever wrote it."""
import json
import os
import struct
import subprocess

from imglib import IMG, img, info, qimg

TIB = 1 << 40


def test_a_header_full_of_extensions(tmp_path):
    """They are kept, in their order; a cluster has room for a quarter of a million."""
    p = str(tmp_path / "a")
    qimg("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", p, "16M")
    with open(p, "r+b") as f:
        head = struct.unpack(">I", f.read(104)[100:])[0]
        n = ((2 << 20) - head) // 8 - 1
        f.seek(head)
        f.write(struct.pack(">II", 0x11223344, 0) * n + bytes(8))
        f.seek(head + 80)
        f.write(struct.pack(">II", 0x55667788, 0))
    for _ in range(3):
        img("info", p)
    img("amend", "-o", "lazy_refcounts=on", p)
    with open(p, "rb") as f:
        f.seek(head)
        kinds = [f.read(8)[:4].hex() for _ in range(12)]
    assert kinds == ["11223344"] * 10 + ["55667788", "11223344"]


def bitmaps_of(p):
    return {b["name"]: b for b in json.loads(img("info", "--output=json", p).stdout)["format-specific"]["data"].get("bitmaps", [])}


def peak(*args):
    """The most memory that the tool had, in bytes."""
    p = subprocess.Popen([IMG, *args], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(p.pid, 0)
    p.returncode = status
    assert status == 0
    return used.ru_maxrss * 1024


def test_the_memory_of_bitmaps(tmp_path):
    """256 MiB each: two can be made here. They take memory where bits are set."""
    p = str(tmp_path / "a")
    qimg("create", "-q", "-f", "qcow2", p, str(TIB))
    for name in ("one", "two"):
        img("bitmap", "--add", "-g", "512", p, name)
    r = img("bitmap", "--add", "-g", "512", p, "three", ok=(1,))
    assert "bitmap 'three' would take 268435456 bytes of memory" in r.stderr and "hint: a larger granularity takes less" in r.stderr
    r = img("resize", p, str(2 * TIB), ok=(1,))
    assert "would take more than 536870912 bytes of memory" in r.stderr
    assert sorted(bitmaps_of(p)) == ["one", "two"]
    assert "ASAN_OPTIONS" in os.environ or peak("bitmap", "--disable", p, "two") < 64 << 20
    qimg("bitmap", "--add", "-g", "512", p, "three")          # what an image has is another matter
    assert sorted(bitmaps_of(p)) == ["one", "three", "two"]
    img("bitmap", "--remove", p, "one")
    assert sorted(bitmaps_of(p)) == ["three", "two"]
    img("bitmap", "--remove", p, "two")
    img("resize", p, str(2 * TIB))
    assert info(p)["virtual-size"] == 2 * TIB and sorted(bitmaps_of(p)) == ["three"]
    img("check", p)


def test_an_image_with_more_than_is_made_here(tmp_path):
    """32 MiB each, as of backups of many days: it opens, and they can be removed."""
    p = str(tmp_path / "a")
    qimg("create", "-q", "-f", "qcow2", p, "16T")
    for i in range(17):
        (img if i < 16 else qimg)("bitmap", "--add", "-g", "65536", p, "day%d" % i)
    assert len(bitmaps_of(p)) == 17
    img("bitmap", "--remove", p, "day3")
    assert len(bitmaps_of(p)) == 16
    qimg("check", p)


def test_bitmaps_of_a_snapshot_of_another_size(tmp_path):
    """The disk that comes back is shorter: the bitmap says that all of it changed, and stays good."""
    p = str(tmp_path / "a")
    qimg("create", "-q", "-f", "qcow2", p, "8M")
    img("snapshot", "-c", "short", p)
    img("resize", p, "64G")
    img("bitmap", "--add", p, "b")
    img("snapshot", "-a", "short", p)
    assert info(p)["virtual-size"] == 8 << 20
    assert "in-use" not in bitmaps_of(p)["b"]["flags"]
    img("bitmap", "--clear", p, "b")
    img("check", p)
    qimg("check", p)


def test_a_place_of_nothing_takes_no_memory(tmp_path):
    """Where the table of snapshots is that are not there is no matter: opening ends, whatever it says."""
    path = tmp_path / "a"
    img("create", "-f", "qcow2", path, "1M")
    with open(path, "r+b") as f:
        f.seek(64)
        f.write(b"\xff" * 8)
    assert "1 MiB" in img("info", path).stdout
