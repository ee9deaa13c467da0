# SPDX-License-Identifier: MIT
"""map and measure say of many images what qemu-img says."""
import json
import os

import pytest

from imglib import QEMU, img, qimg, qio, sparse_file

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
MIB = 1 << 20
IMAGES = ["qcow2", "qcow2 cluster_size=4k", "qcow2 extended_l2=on", "qcow2 compat=0.10", "qcow2 preallocation=metadata", "qcow2 preallocation=falloc",
          "qcow2 preallocation=full", "qcow2 data_file=%s", "qcow2 data_file=%s,data_file_raw=on", "raw", "raw preallocation=full", "vdi", "vmdk", "qcow", "parallels"]


@pytest.mark.parametrize("image", IMAGES)
def test_as_qemu_says(tmp_path, image):
    fmt, options = (image.split() + [""])[:2]
    a, raw = tmp_path / "a", sparse_file(tmp_path / "raw", 6 * MIB, pieces=40)
    qimg("convert", "-f", "raw", "-O", fmt, *(("-o", options.replace("%s", str(tmp_path / "d"))) if options else ()), raw, a)
    if fmt == "qcow2":
        qio(a, "write -z 100k 300k", "discard 1M 256k", *(("write -z -u 2M 64k",) if "compat" not in image else ()))
    assert img("map", "-f", fmt, "--output=json", a).stdout == qimg("map", "-f", fmt, "--output=json", a).stdout
    assert img("map", "-f", fmt, a).stdout == qimg("map", "-f", fmt, a).stdout
    for to in "raw", "qcow2":
        ours, theirs = (json.loads(t("measure", "-f", fmt, "-O", to, "--output=json", a).stdout) for t in (img, qimg))
        assert ours == theirs, to


def test_what_has_no_place(tmp_path):
    """Compressed clusters: only JSON tells of them."""
    (tmp_path / "raw").write_bytes(b"x" * MIB)
    a = tmp_path / "a"
    qimg("convert", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "raw", a)
    p = img("map", "-f", "qcow2", a, ok=(1,))
    assert "--output=json" in p.stderr
    qimg("map", "-f", "qcow2", a, ok=(1,))
    span, = json.loads(img("map", "-f", "qcow2", "--output=json", a).stdout)
    assert span["compressed"] and "offset" not in span and span["length"] == MIB


def test_preallocated_clusters_are_not_copied(tmp_path):
    """They are holes in the file below: neither read nor written, until they are written."""
    a, b = tmp_path / "a", tmp_path / "b"
    img("create", "-f", "qcow2", "-o", "preallocation=metadata", a, "64M")
    qio(a, "write -P 5 32M 64k")
    img("convert", "-f", "qcow2", "-O", "qcow2", a, b)
    qimg("compare", a, b)
    assert os.stat(b).st_blocks * 512 < MIB
    spans = json.loads(img("map", "-f", "qcow2", "--output=json", a).stdout)
    assert [(s["zero"], s["data"]) for s in spans] == [(True, True), (False, True), (True, True)]
