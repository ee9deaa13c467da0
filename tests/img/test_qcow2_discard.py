# SPDX-License-Identifier: MIT
"""What becomes of the space that a qcow2 image gives up: in the image, and in the file below."""
import json
import os

import pytest

from imglib import QEMU, img, qimg, run
from test_filters import Disk, file
from test_nbd import SERVE

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-io")
MIB = 1 << 20


def used(path):
    return os.stat(path).st_blocks * 512


def image(path, **more):
    return {"driver": "qcow2", "discard": "unmap", "file": file(path), **more}


def places(path):
    """Where in the file guest data is, by guest offset."""
    return {x["start"]: x["offset"] for x in json.loads(qimg("map", "--output=json", "-f", "qcow2", path).stdout) if "offset" in x}


@pytest.fixture(name="q")
def fixture_q(tmp_path):
    q = tmp_path / "q"
    img("create", "-f", "qcow2", q, "16M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 4M", q)
    return q


@pytest.mark.parametrize("passed,left", [({}, 2), ({"pass-discard-request": False}, 4), ({"discard": "ignore", "pass-discard-request": True}, 4)])
def test_what_the_guest_discards(tmp_path, q, passed, left):
    """With discard=ignore no discard comes to the image, and the file below takes none."""
    d = Disk(tmp_path, image(q, **passed))
    d.io("discard 1M 2M", "flush")
    d.end()
    assert left * MIB <= used(q) < (left + 1) * MIB
    qimg("check", q)


@pytest.mark.parametrize("passed,left", [({}, 4), ({"pass-discard-other": False}, 6), ({"pass-discard-other": True}, 4)])
def test_what_is_written_anew(tmp_path, q, passed, left):
    """Compressed clusters that become others."""
    with open(tmp_path / "noise", "wb") as f:
        for i in range(64):
            f.write(os.urandom(36000) + bytes(65536 - 36000))
    img("convert", "--force", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "noise", q)
    before = used(q)
    assert 2 * MIB < before < 3 * MIB
    d = Disk(tmp_path, image(q, **passed))
    d.io("write -P 2 0 4M", "flush")
    d.end()
    assert left * MIB <= used(q) < (left + 1) * MIB
    qimg("check", q)


@pytest.mark.parametrize("passed,left", [({}, 4), ({"pass-discard-snapshot": False}, 6)])
def test_what_a_snapshot_held(tmp_path, q, passed, left):
    img("snapshot", "-c", "s", q)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 2M", q)
    img("snapshot", "-d", "s", "--image-opts", ",".join("%s=%s" % (k, {False: "off"}.get(v, v)) for k, v in
                                                        {"driver": "qcow2", "discard": "unmap", "file.driver": "file", "file.filename": q, **passed}.items()))
    assert left * MIB <= used(q) < (left + 1) * MIB
    qimg("check", q)


def test_discards_keep_the_place(tmp_path, q):
    """discard-no-unref: the clusters read as zeroes, take no space below, and are written where they were."""
    before = places(q)
    d = Disk(tmp_path, image(q, **{"discard-no-unref": True}))
    d.io("discard 1M 2M", "flush", "read -P 0 1M 2M", "read -P 1 3M 1M", "write -z -u 3M 512k", "flush", "read -P 0 3M 512k")
    assert 1.5 * MIB <= used(q) < 2.5 * MIB
    d.io("write -P 3 8M 1M", "write -P 2 1M 2M", "write -P 4 3M 512k", "flush")     # nobody else took it meanwhile
    d.end()
    after = places(q)
    assert {k: v for k, v in after.items() if k < 4 * MIB} == before
    run("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 1M", "-c", "read -P 2 1M 2M", "-c", "read -P 4 3M 512k", "-c", "read -P 1 3584k 512k", q)
    qimg("check", q)
    img("create", "-f", "qcow2", "-o", "compat=0.10", tmp_path / "old", "1M")
    p = run(SERVE, "--blockdev", json.dumps({**image(tmp_path / "old"), "node-name": "n", "discard-no-unref": True}), ok=(1,))
    assert "discard-no-unref: images of version 2" in p.stderr


def test_version_2_keeps_no_zeroes(tmp_path, q):
    """Its entries cannot say that a cluster reads as zeroes: what discard-no-unref keeps is given up."""
    run("qemu-io", "-f", "qcow2", "-c", "write -z 1M 1M", q)
    img("amend", "--image-opts", "-o", "compat=0.10", "driver=qcow2,discard=unmap,discard-no-unref=on,file.driver=file,file.filename=%s" % q)
    qimg("check", q)
    run("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 1M", "-c", "read -P 0 1M 1M", q)


def test_space_that_cannot_be_freed(tmp_path):
    """A refcount block that cannot be read: what it counts is lost space, and all else goes on."""
    q = tmp_path / "q"
    img("create", "-f", "qcow2", "-o", "cluster_size=512", q, "16M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 8M", q)
    with open(q, "rb") as f:
        table = int.from_bytes(f.read(56)[48:], "big")
        f.seek(table + 8 * (places(q)[0] // 512 // 256 + 4))
        block = int.from_bytes(f.read(8), "big")
    d = Disk(tmp_path, {"driver": "qcow2", "discard": "unmap", "file": {"driver": "blkdebug", "image": file(q), "inject-error": [
        {"event": "none", "iotype": "read", "sector": block // 512}]}})
    d.io("write -P 5 9M 4k", ok=(0, 1))         # who looks for free space from the start on comes by it
    d.io("discard 0 4M", "flush", "flush", "write -P 6 10M 4k", "flush", "discard 4M 4M", "flush", "write -P 7 9M 4k", "flush")
    assert d.end() == 0
    run("qemu-io", "-f", "qcow2", "-c", "read -P 7 9M 4k", "-c", "read -P 6 10M 4k", "-c", "read -P 0 0 8M", q)
    qimg("check", q, ok=(3,))
