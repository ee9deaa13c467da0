# SPDX-License-Identifier: MIT
"""Disks of iSCSI targets, served by tgt."""
import filecmp
import json
import subprocess

import pytest

from imglib import IMG, QEMU, img, run, sparse_file
from tgtlib import HAVE, Target

BUILT = "not in this build" not in img("info", "iscsi://127.0.0.1:1/x/0", ok=(1,)).stderr
pytestmark = pytest.mark.skipif(not HAVE or not BUILT, reason="no tgt, or no libiscsi")
MIB = 1 << 20
QEMU_TOO = QEMU and "Unknown protocol" not in subprocess.run(["qemu-img", "info", "iscsi://127.0.0.1:1/x/0"], stderr=subprocess.PIPE,
                                                             text=True, check=False).stderr


@pytest.fixture(name="tgt")
def target():
    t = Target()
    yield t
    t.close()


def disk(tmp_path, name="disk", size=8 * MIB):
    with open(tmp_path / name, "wb") as f:
        f.truncate(size)
    return tmp_path / name


@pytest.mark.parametrize("block", [512, 4096])
def test_images_of_both_formats(tmp_path, tgt, block):
    raw, unit = sparse_file(tmp_path / "raw", 8 * MIB, seed=block), disk(tmp_path, size=12 * MIB)
    tgt.add_unit(1, unit, block)
    img("convert", "-n", "-f", "raw", "-O", "raw", raw, tgt.url())
    assert unit.read_bytes()[:8 * MIB] == raw.read_bytes()
    img("create", "--force", "-f", "qcow2", tgt.url(), "8M")
    img("convert", "-n", "-f", "raw", "-O", "qcow2", raw, tgt.url())
    img("compare", "-f", "qcow2", "-F", "raw", tgt.url(), raw)
    img("check", "-f", "qcow2", tgt.url())
    img("check", "-f", "qcow2", unit)       # by its file
    img("convert", "-f", "qcow2", "-O", "raw", tgt.url(), tmp_path / "out")
    assert filecmp.cmp(raw, tmp_path / "out", shallow=False)
    got = json.loads(img("info", "--output=json", "-f", "raw", tgt.url()).stdout)
    assert got["virtual-size"] == 12 * MIB and got["filename"] == tgt.url()
    assert tgt.sessions() == 0              # all logged out


def test_many_requests(tmp_path, tgt):
    tgt.add_unit(1, disk(tmp_path), 4096)
    for args in (["-s", "4096"], ["-s", "512"], ["-s", "65536"], ["-w", "-s", "4096"], ["-w", "-s", "512"], ["-w", "-s", "262144"],
                 ["-w", "-s", "4096", "--flush-interval", "8"]):
        img("bench", "-f", "raw", "-c", "400", "-d", "64", *args, tgt.url())


def test_who_may_log_in(tmp_path, tgt):
    tgt.add_unit(1, disk(tmp_path))
    tgt.add_user("me", "sesame-open")
    secret = ["--object", "secret,id=p,data=sesame-open", "--object", "secret,id=q,data=closed-all-day"]
    img("map", "-f", "raw", tgt.url(who="me%sesame-open@"))
    img("map", *secret, "--image-opts", tgt.opts(user="me", password_secret="p"))
    for bad in ([tgt.url()], [tgt.url(who="me%wrong-wrong-wrong@")], [*secret, "--image-opts", tgt.opts(user="me", password_secret="q")],
                [*secret, "--image-opts", tgt.opts(user="you", password_secret="p")]):
        err = img("map", *bad, ok=(1,)).stderr
        assert "cannot log in" in err and "uth" in err and tgt.name in err and "127.0.0.1:%d" % tgt.port in err and "sesame" not in err
    assert "no effect" in img("map", *secret, "--image-opts", tgt.opts(password_secret="p"), ok=(1,)).stderr


@pytest.mark.parametrize("ours", ["none", "crc32c", "crc32c-none", "none-crc32c"])
def test_digests(tmp_path, tgt, ours):
    raw, unit = sparse_file(tmp_path / "raw", MIB), disk(tmp_path, size=MIB)
    tgt.add_unit(1, unit)
    tgt.param("HeaderDigest", "CRC32C,None")
    img("convert", "-n", "--target-image-opts", "-f", "raw", "-O", "raw", raw, tgt.opts(header_digest=ours))
    assert filecmp.cmp(raw, unit, shallow=False)


def test_what_is_not_there(tmp_path, tgt):
    tgt.add_unit(1, disk(tmp_path))
    assert "no such unit" in img("map", "-f", "raw", tgt.url(7), ok=(1,)).stderr
    assert "no disk" in img("map", "-f", "raw", tgt.url(0), ok=(1,)).stderr            # the controller
    assert "arget not found" in img("map", "-f", "raw", tgt.url().replace(":disk/", ":disc/"), ok=(1,)).stderr
    assert "Connection refused" in img("map", "-f", "raw", "iscsi://127.0.0.1:1/x/0", ok=(1,)).stderr
    assert "iser" in img("map", "--image-opts", tgt.opts(transport="iser"), ok=(1,)).stderr
    for bad in ("iscsi://", "iscsi://host", "iscsi://host/target", "iscsi://host/target/", "iscsi://host/target/x", "iscsi:///t/1", "iscsi:x"):
        assert "iscsi://[USER" in img("map", "-f", "raw", bad, ok=(1,)).stderr


def test_a_unit_that_is_only_read(tmp_path, tgt):
    unit = disk(tmp_path)
    tgt.add_unit(1, unit, 512, "readonly=1")
    img("map", "-f", "raw", tgt.url())
    assert "write-protected" in img("convert", "-n", "-f", "raw", "-O", "raw", unit, tgt.url(), ok=(1,)).stderr


def test_a_unit_that_grows_only_at_the_target(tmp_path, tgt):
    tgt.add_unit(1, disk(tmp_path))
    img("resize", "-f", "raw", tgt.url(), "8M")
    assert img("resize", "-f", "raw", tgt.url(), "16M", ok=(1,)).stderr


@pytest.mark.skipif(not QEMU_TOO, reason="no qemu-img with iSCSI")
def test_what_qemu_reads_and_writes(tmp_path, tgt):
    raw, unit = sparse_file(tmp_path / "raw", 8 * MIB), disk(tmp_path, size=10 * MIB)
    tgt.add_unit(1, unit)
    run("qemu-img", "create", "-f", "qcow2", tgt.url(), "8M")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, tgt.url())
    img("compare", "-f", "qcow2", "-F", "raw", tgt.url(), raw)
    img("create", "--force", "-f", "qcow2", tgt.url(), "8M")
    img("convert", "-n", "-f", "raw", "-O", "qcow2", raw, tgt.url())
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", tgt.url(), raw)


def test_a_target_that_is_killed(tmp_path, tgt):
    """Requests wait for it, and go out again."""
    unit = disk(tmp_path, size=2 * MIB)
    tgt.add_unit(1, unit, 4096)
    for count in (2000, 8000, 32000, 128000):
        args = [IMG, "bench", "-f", "raw", "-w", "--pattern", "0x5a", "-s", "4096", "-d", "16", "-c", str(count), tgt.url()]
        with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
            while not tgt.sessions() and p.poll() is None:
                pass
            tgt.kill()
            assert tgt.start()
            _, err = p.communicate(timeout=300)
        assert p.returncode == 0, err
        if "the session has ended" in err:
            break                       # else it was done before
    assert "the session has ended" in err
    assert unit.read_bytes() == b"\x5a" * 2 * MIB


def test_a_thin_unit_gives_back(tmp_path, tgt):
    unit = tmp_path / "disk"
    unit.write_bytes(b"x" * 8 * MIB)
    tgt.add_unit(1, unit, 512, "thin_provisioning=1")
    before = unit.stat().st_blocks
    img("convert", "-n", "-f", "raw", "-O", "raw", "-S", "4k", sparse_file(tmp_path / "raw", 8 * MIB, pieces=2), tgt.url())
    assert filecmp.cmp(tmp_path / "raw", unit, shallow=False)
    assert unit.stat().st_blocks < before // 2
    got = json.loads(img("map", "--output=json", "-f", "raw", tgt.url()).stdout)
    assert any(not x["data"] for x in got) and any(x["data"] for x in got)
