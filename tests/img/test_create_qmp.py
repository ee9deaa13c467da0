# SPDX-License-Identifier: MIT
"""blockdev-create and x-blockdev-amend: the same images as the tools make, made by jobs."""
import json

import pytest

from imglib import QEMU, img, info, qimg, qio
from servelib import QmpError, Storage

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
MIB = 1 << 20


def job(s, cmd, fails=None, **args):
    """Runs the job to its end; what it failed for contains FAILS."""
    s.qmp.cmd(cmd, job_id="j", **args)
    while s.qmp.wait_event("JOB_STATUS_CHANGE")["data"]["status"] != "concluded":
        pass
    done = next(j for j in s.qmp.cmd("query-jobs") if j["id"] == "j")
    assert done["type"] == ("create" if cmd == "blockdev-create" else "amend")
    s.qmp.cmd("job-dismiss", id="j")
    assert fails in done["error"] if fails else "error" not in done, done


def make(s, options, fails=None):
    job(s, "blockdev-create", fails, options=options)


FORMATS = [
    ("qcow2", {}), ("qcow2", {"version": "v2"}), ("qcow2", {"version": "v3", "cluster-size": 4096, "refcount-bits": 1, "lazy-refcounts": True}),
    ("qcow2", {"extended-l2": True, "compression-type": "zstd", "preallocation": "metadata"}), ("vdi", {}), ("vdi", {"preallocation": "metadata"}),
    ("vpc", {"subformat": "fixed"}), ("vmdk", {"adapter-type": "lsilogic"}), ("raw", None),
]


@pytest.mark.parametrize("fmt,options", FORMATS)
def test_formats(tmp_path, fmt, options):
    path = tmp_path / "image"
    with Storage(tmp_path) as s:
        make(s, {"driver": "file", "filename": str(path), "size": 2 * MIB if fmt == "raw" else 0})
        s.qmp.cmd("blockdev-add", driver="file", filename=str(path), **{"node-name": "f"})
        if options is not None:
            make(s, {"driver": fmt, "file": "f", "size": 2 * MIB, **options})
        s.qmp.cmd("blockdev-add", driver=fmt, file="f", **{"node-name": "i"})
        assert next(n for n in s.qmp.cmd("query-named-block-nodes") if n["node-name"] == "i")["image"]["virtual-size"] == 2 * MIB
        if options is not None:
            make(s, {"driver": fmt, "file": "f", "size": MIB}, "in use")        # not under somebody's feet
    theirs = json.loads(qimg("info", "--output=json", "-f", fmt, path).stdout)
    assert theirs["virtual-size"] == 2 * MIB
    data = theirs.get("format-specific", {}).get("data", {})
    for key, value in (options or {}).items():
        if key in data:
            assert data[key] == value
    if (options or {}).get("version") == "v2":
        assert data["compat"] == "0.10"
    if fmt == "qcow2":
        qimg("check", path)
        assert theirs["cluster-size"] == options.get("cluster-size", 65536)
        assert (json.loads(qimg("map", "--output=json", path).stdout)[0]["data"]) == (options.get("preallocation") == "metadata")


def test_layers_and_data_files(tmp_path):
    base, top, data = tmp_path / "base", tmp_path / "top", tmp_path / "data"
    qimg("create", "-f", "qcow2", base, "4M")
    qio(base, "write -P 5 0 64k")
    for p in top, data:
        p.write_bytes(b"w" * 2100000)
    with Storage(tmp_path) as s:
        top_node = {"driver": "file", "filename": str(top)}
        make(s, {"driver": "qcow2", "file": top_node, "size": 4 * MIB, "backing-file": "base", "backing-fmt": "qcow2"})
        s.qmp.cmd("blockdev-add", driver="qcow2", file=top_node, **{"node-name": "t"})
        s.qmp.cmd("blockdev-del", **{"node-name": "t"})
        assert info(top)["backing-filename"] == "base"
        make(s, {"driver": "qcow2", "file": top_node, "size": 3 * MIB, "data-file": {"driver": "file", "filename": str(data)}, "data-file-raw": True})
    assert data.stat().st_size == 3 * MIB and info(top)["format-specific"]["data"]["data-file-raw"]
    qio(top, "read -P %d 0 512" % ord("w"))


def test_mistakes(tmp_path):
    path = tmp_path / "image"
    (tmp_path / "ro").write_bytes(b"x")
    with Storage(tmp_path, "--blockdev", "null-co,node-name=n,size=1M", "--blockdev", "file,node-name=ro,read-only=on,filename=%s" % (tmp_path / "ro")) as s:
        for options, told in (({"driver": "qcow2", "size": MIB}, "'file' is missing"), ({"driver": "file", "size": MIB}, "'filename' is missing"),
                              ({"driver": "qcow2", "file": "n"}, "'size' must be"), ({"driver": "nosuch", "file": "n", "size": 1}, "nosuch"),
                              ({"driver": "file", "filename": str(path), "size": 1, "cluster-size": 512}, "'cluster-size' is unexpected"),
                              ({"driver": "vhdx", "file": "n", "size": MIB}, "does not support creating"), ({"file": "n", "size": 1}, "'driver' is missing")):
            with pytest.raises(QmpError) as e:
                s.qmp.cmd("blockdev-create", job_id="j", options=options)
            assert told in str(e.value)
        assert s.qmp.cmd("query-jobs") == []
        make(s, {"driver": "qcow2", "file": "nosuch", "size": MIB}, "no blockdev with the id 'nosuch'")
        make(s, {"driver": "qcow2", "file": "ro", "size": MIB}, "read-only")
        make(s, {"driver": "qcow2", "file": "n", "size": MIB, "nosuch": 1}, "unknown property 'nosuch'")
        make(s, {"driver": "file", "filename": str(tmp_path / "no" / "where"), "size": MIB}, "cannot create")
        s.qmp.cmd("blockdev-create", job_id="j", options={"driver": "file", "filename": str(path), "size": MIB})
        with pytest.raises(QmpError) as e:
            s.qmp.cmd("blockdev-create", job_id="j", options={"driver": "file", "filename": str(path), "size": MIB})
        assert "already in use" in str(e.value)


@pytest.mark.parametrize("fmt", ["luks", "qcow2"])
def test_encrypted(tmp_path, fmt):
    path = tmp_path / "image"
    key = {"key-secret": "one", "iter-time": 10}
    secrets = sum((("--object", "secret,id=%s,data=%s" % (x, x)) for x in ("one", "two")), ())
    with Storage(tmp_path, *secrets) as s:
        make(s, {"driver": "file", "filename": str(path), "size": 0})
        s.qmp.cmd("blockdev-add", driver="file", filename=str(path), **{"node-name": "f"})
        make(s, {"driver": fmt, "file": "f", "size": MIB, **(key if fmt == "luks" else {"encrypt": {"format": "luks", **key}})})
        opens = {"key-secret": "one"} if fmt == "luks" else {"encrypt": {"format": "luks", "key-secret": "one"}}
        s.qmp.cmd("blockdev-add", driver=fmt, file="f", **{"node-name": "i"}, **opens)
        change = {"state": "active", "new-secret": "two", "iter-time": 10}
        job(s, "x-blockdev-amend", options={"driver": fmt, **(change if fmt == "luks" else {"encrypt": {"format": "luks", **change}})}, **{"node-name": "i"})
        with pytest.raises(QmpError) as e:
            s.qmp.cmd("x-blockdev-amend", job_id="j", options={"driver": "raw"}, **{"node-name": "i"})
        assert "changing the block driver" in str(e.value)
        job(s, "x-blockdev-amend", "unknown property", options={"driver": fmt, "nosuch": 1}, **{"node-name": "i"})
        s.qmp.cmd("blockdev-del", **{"node-name": "i"})
    target = "driver=luks,key-secret=two,file.filename=%s" if fmt == "luks" else "driver=qcow2,encrypt.key-secret=two,file.filename=%s"
    qimg("compare", "--object", "secret,id=two,data=two", "--image-opts", target % path, target % path)
    img("map", "--output=json", "--object", "secret,id=two,data=two", "--image-opts", target % path)
