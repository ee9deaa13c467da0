# SPDX-License-Identifier: MIT
"""convert and commit: internal snapshots as sources, rate limits, copies within the host."""
import filecmp
import time

import pytest

from imglib import QEMU, img, qimg, qio, sparse_file

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
    for name in ("one", "two", "snapshot.name=one", "snapshot.id=2"):
        qimg("convert", "-l", name, "-f", "qcow2", "-O", "raw", a, tmp_path / "want")
        img("convert", "-l", name, "-f", "qcow2", "-O", "raw", "--force", a, tmp_path / "have")
        want, have = (tmp_path / "want").read_bytes(), (tmp_path / "have").read_bytes()
        assert len(have) == (4 if name.endswith("one") else size) * MIB         # QEMU's tool takes today's size
        assert want[:len(have)] == have and not any(want[len(have):])
    assert a.read_bytes() == before
    assert "no snapshot 'three'" in img("convert", "-l", "three", "-f", "qcow2", a, tmp_path / "x", ok=(1,)).stderr
    assert "hold no snapshots" in img("convert", "-l", "one", "-f", "raw", tmp_path / "want", tmp_path / "x", ok=(1,)).stderr
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
