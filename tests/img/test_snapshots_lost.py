# SPDX-License-Identifier: MIT
"""A qcow2 image whose table of snapshots is damaged: its disk is read as ever, nothing is written to it, check says so and repairs it."""
import hashlib
import json
import struct

import pytest

from imglib import QEMU, img, info, qimg, qio

MIB = 1 << 20

# Offset in an entry and what is put there (docs of qcow2: section Snapshots); the snapshots that can still be reached.
DAMAGE = {
    "a table within a cluster": (0, struct.pack(">Q", 0x400200), ["two"]),
    "a table beyond the file": (0, struct.pack(">Q", 1 << 40), ["two"]),
    "a table of 2 GiB": (8, struct.pack(">L", 1 << 28), ["two"]),
    "an entry without an end": (36, struct.pack(">L", 0xFFFFFFF0), []),
}


def listed(a):
    return [line.split()[1] for line in img("snapshot", "-l", a).stdout.splitlines()[2:]]


@pytest.fixture(name="image", params=list(DAMAGE))
def fixture_image(tmp_path, request):
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "8M")
    for byte, name in ((7, "one"), (8, "two")):
        qio(a, "write -P %d 1M 1M" % byte)
        img("snapshot", "-c", name, a)
    qio(a, "write -P 9 1M 1M")
    at, value, left = DAMAGE[request.param]
    with open(a, "r+b") as f:
        f.seek(64)
        table, = struct.unpack(">Q", f.read(8))
        f.seek(table + at)
        f.write(value)
    return a, left


def digest(a):
    return hashlib.sha256(a.read_bytes()).hexdigest()


def second_mib(a, *args):
    b = a.with_name("b")
    img("convert", "--force", "-f", "qcow2", "-O", "raw", *args, a, b)
    return set(b.read_bytes()[MIB:2 * MIB])


@pytest.mark.skipif(not QEMU, reason="no qemu-io")
def test_the_disk_is_read_and_nothing_written(image):
    a, left = image
    before = digest(a)
    assert info(a)["virtual-size"] == 8 * MIB
    assert second_mib(a) == {9}
    assert img("convert", "-l", "one", "-O", "raw", a, a.with_name("c"), ok=(1,)).stderr
    for name in left:
        assert second_mib(a, "-l", name) == {8}
    told = img("resize", a, "16M", ok=(1,)).stderr
    assert "snapshots" in told and "check -r all" in told
    assert img("check", a, ok=(2,)).stdout
    img("check", "-r", "leaks", a, ok=(2,))                 # what looks like leaks may be the snapshot's
    assert digest(a) == before


@pytest.mark.skipif(not QEMU, reason="no qemu-io")
def test_check_drops_what_is_lost(image):
    a, left = image
    report = json.loads(img("check", "-r", "all", "--output=json", a).stdout)
    assert report["corruptions-fixed"] and not report.get("corruptions") and not report.get("leaks")
    assert listed(a) == left
    qimg("check", a)
    assert second_mib(a) == {9}
    for name in left:
        assert second_mib(a, "-l", name) == {8}
    img("snapshot", "-c", "three", a)
    qio(a, "write -P 5 4M 64k", "read -P 9 1M 1M")
    qimg("check", a)
