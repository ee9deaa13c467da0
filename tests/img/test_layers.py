# SPDX-License-Identifier: MIT
"""commit, rebase, convert -n, growth: layers of other sizes, other clusters, with snapshots. What an image shows stays, whatever is done to its chain."""
import json

import pytest

from imglib import QEMU, img, qimg, qio

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
KIB, MIB = 1 << 10, 1 << 20


def layer(path, size, opts="cluster_size=64k", below=None, fmt="qcow2"):
    qimg("create", "-q", "-f", "qcow2", "-o", opts, *(("-u", "-b", below, "-F", fmt) if below else ()), path, size)


def shown(tmp_path, path, fmt="qcow2"):
    """The bytes as QEMU reads them; the image is sound."""
    if fmt == "qcow2":
        qimg("check", path)
    qimg("convert", "-f", fmt, "-O", "raw", path, tmp_path / "shown")
    return (tmp_path / "shown").read_bytes()


def chain(tmp_path, sizes, opts):
    """base, mid and top, all with content of their own: files "0", "1", "2"."""
    paths = [tmp_path / str(i) for i in range(3)]
    for i, path in enumerate(paths):
        layer(path, sizes[i], opts[i], paths[i - 1] if i else None)
        qio(path, *("write -P %d %d 4k" % (10 * i + 1 + at % 7, at) for at in range(i * 20 * KIB, sizes[i] - 4 * KIB, 150 * KIB)))
    return paths


WAYS = [
    ((1 * MIB, 1 * MIB, 1 * MIB), ("cluster_size=64k", "cluster_size=64k", "cluster_size=4k")),            # parts of the lower one's clusters
    ((1 * MIB, 1 * MIB, 1 * MIB), ("cluster_size=64k", "extended_l2=on,cluster_size=64k", "extended_l2=on,cluster_size=16k")),
    ((2 * MIB, 256 * KIB, 1 * MIB), ("cluster_size=64k", "cluster_size=64k", "cluster_size=64k")),         # a short one hides what is below
    ((256 * KIB, 2 * MIB, 1 * MIB), ("cluster_size=64k", "cluster_size=2M", "cluster_size=4k")),
]


@pytest.mark.parametrize("sizes,opts", WAYS)
@pytest.mark.parametrize("args", [(), ("-d",), ("-b", "0")], ids=["empty", "keep", "two"])
def test_commit(tmp_path, sizes, opts, args):
    paths = chain(tmp_path, sizes, opts)
    qio(paths[2], "write -z 300k 100k", "write -P 99 201k 2k")
    before = shown(tmp_path, paths[2])
    img("commit", "-f", "qcow2", *args, paths[2], cwd=tmp_path)
    assert shown(tmp_path, paths[2]) == before
    into = paths[0] if "-b" in args else paths[1]
    assert shown(tmp_path, into)[:len(before)] == before


def test_commit_of_zeroes_into_version_2(tmp_path):
    """There are no zero clusters in it: where there is a file below, zeroes are written."""
    paths = chain(tmp_path, (MIB, MIB, MIB), ("cluster_size=64k", "compat=0.10", "cluster_size=64k"))
    qio(paths[0], "write -P 7 0 1M")
    qio(paths[2], "write -z 128k 512k")
    before = shown(tmp_path, paths[2])
    img("commit", "-f", "qcow2", paths[2])
    assert shown(tmp_path, paths[1]) == before


@pytest.mark.parametrize("sizes,opts", WAYS)
@pytest.mark.parametrize("base", ["", "0", "new"])
def test_rebase(tmp_path, sizes, opts, base):
    paths = chain(tmp_path, sizes, opts)
    layer(tmp_path / "new", 600 * KIB)
    qio(tmp_path / "new", "write -P 50 0 600k")
    qimg("snapshot", "-c", "s", paths[2])                       # its clusters are copied before they change, but for what is below
    before = shown(tmp_path, paths[2])
    img("rebase", "-b", base, *(("-F", "qcow2") if base else ()), paths[2])
    assert shown(tmp_path, paths[2]) == before
    img("snapshot", "-a", "s", paths[2])                        # a snapshot needs no format: nothing else is opened


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_convert_into_an_overlay(tmp_path, compat):
    layer(tmp_path / "base", MIB)
    layer(tmp_path / "over", MIB, "compat=" + compat, tmp_path / "base")
    qio(tmp_path / "base", "write -P 7 0 1M")
    with open(tmp_path / "raw", "wb") as f:
        f.truncate(MIB)
        f.seek(100 * KIB)
        f.write(b"x" * 4096)
    img("convert", "-n", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "over")
    assert shown(tmp_path, tmp_path / "over") == (tmp_path / "raw").read_bytes()


def test_growing_over_a_longer_base_shows_zeroes(tmp_path):
    layer(tmp_path / "base", 2 * MIB)
    qio(tmp_path / "base", "write -P 7 0 2M")
    for how in (("resize", "-f", "qcow2", tmp_path / "over", "+1M"), ("amend", "-f", "qcow2", "-o", "size=2M", tmp_path / "over")):
        layer(tmp_path / "over", MIB, below=tmp_path / "base")
        img(*how)
        assert shown(tmp_path, tmp_path / "over") == b"\7" * MIB + bytes(MIB)
    layer(tmp_path / "over", 1000, below=tmp_path / "base")     # one cluster of zeroes in part is there before it is asked for
    qimg("resize", "-q", "-f", "qcow2", "--shrink", tmp_path / "base", "66048")
    img("resize", "-f", "qcow2", "--preallocation=metadata", tmp_path / "over", "1M")
    assert shown(tmp_path, tmp_path / "over") == b"\7" * 1024 + bytes(MIB - 1024)
    qimg("resize", "-q", "-f", "qcow2", tmp_path / "base", "2M")
    qio(tmp_path / "base", "write -P 7 0 2M")
    layer(tmp_path / "over", MIB, "compat=0.10", tmp_path / "base")
    img("resize", "-f", "qcow2", tmp_path / "over", "+1M", ok=(1,))
    assert shown(tmp_path, tmp_path / "over") == b"\7" * MIB


def test_small_mistakes(tmp_path):
    """No room for anything, and options without effect."""
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "0")
    assert shown(tmp_path, a) == b""
    img("resize", "-f", "qcow2", a, "1M")
    assert shown(tmp_path, a) == bytes(MIB)
    assert "--preallocation" in img("resize", "-f", "qcow2", "--shrink", "--preallocation=full", a, "-512k", ok=(1,)).stderr
    assert shown(tmp_path, a) == bytes(MIB)


@pytest.mark.parametrize("how", ["metadata", "falloc", "full"])
def test_subclusters_are_allocated_over_a_backing_file(tmp_path, how):
    """All clusters have a place from the beginning, and show the image below until they are written; without subclusters that is refused."""
    base, top, kind = tmp_path / "base", tmp_path / "top", "preallocation=%s,cluster_size=16k" % how
    img("create", "-f", "qcow2", base, "1M")
    qio(base, "write -P 7 0 1M")
    assert "extended_l2" in img("create", "-f", "qcow2", "-o", kind, "-b", base, "-F", "qcow2", top, "2M", ok=(1,)).stderr
    img("create", "-f", "qcow2", "-o", kind + ",extended_l2=on", "-b", base, "-F", "qcow2", top, "2M")
    end = json.loads(qimg("check", "--output=json", top).stdout)["image-end-offset"]
    assert end > 2 * MIB
    qio(top, "read -P 7 0 1M", "read -P 0 1M 1M", "write -P 8 1000k 1k", "write -P 9 1500k 600")
    img("convert", "-f", "qcow2", "-O", "raw", top, tmp_path / "raw")
    data = (tmp_path / "raw").read_bytes()
    want = bytearray(b"\7" * MIB + bytes(MIB))
    want[1000 * 1024:1001 * 1024], want[1500 * 1024:1500 * 1024 + 600] = b"\x08" * 1024, b"\x09" * 600
    assert data == bytes(want)
    assert json.loads(qimg("check", "--output=json", top).stdout)["image-end-offset"] == end
    img("check", top)
