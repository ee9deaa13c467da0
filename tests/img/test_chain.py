# SPDX-License-Identifier: MIT
"""Chains of backing files: as long as people make them, and those that have no end."""
import json
import os

import pytest

from imglib import IMG, img, run
from servelib import SERVE, QmpError, Storage

LONG, SIZE, CLUSTER = 1200, 8 << 20, 65536


def name_of(i):
    return "i%05d" % i


@pytest.fixture(scope="module", name="long_chain")
def fixture_long_chain(tmp_path_factory):
    """The folder of i00000 ... each the backing file of the next; i00000 has data at its begin, every 100th a cluster of its own."""
    d = tmp_path_factory.mktemp("chain")
    (d / "raw").write_bytes(b"0" * CLUSTER + bytes(SIZE - CLUSTER))
    img("convert", "-f", "raw", "-O", "qcow2", d / "raw", d / name_of(0))
    img("create", "-q", "-f", "qcow2", "-u", "-b", name_of(0), "-F", "qcow2", d / "template", SIZE)
    template = (d / "template").read_bytes()
    for i in range(1, LONG):
        (d / name_of(i)).write_bytes(template.replace(name_of(0).encode(), name_of(i - 1).encode()))
    want = bytearray((d / "raw").read_bytes())
    for i in range(100, LONG, 100):         # with nothing below it is quick
        img("bench", "--image-opts", "-w", "-c", 1, "-s", CLUSTER, "-o", i // 100 * CLUSTER, "--pattern", i // 100,
            "driver=qcow2,file.filename=%s,backing=" % (d / name_of(i)))
        want[i // 100 * CLUSTER:(i // 100 + 1) * CLUSTER] = bytes([i // 100]) * CLUSTER
    return d, bytes(want)


def copy_of(d, to, first, last):
    """The images FIRST to LAST, the lower ones where they are."""
    for i in range(first, last + 1):
        data = (d / name_of(i)).read_bytes()
        (to / name_of(i)).write_bytes(data)
    below = d / name_of(first - 1)
    img("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below, to / name_of(first))


def flat(path, at):
    img("convert", "--force", "-f", "qcow2", "-O", "raw", path, at)
    return at.read_bytes()


def test_reading(long_chain, tmp_path):
    d, want = long_chain
    top = d / name_of(LONG - 1)
    assert flat(top, tmp_path / "raw") == want
    run("sh", "-c", "ulimit -Sn 300; exec \"$@\"", "-", IMG, "compare", "-f", "qcow2", "-F", "raw", top, tmp_path / "raw")     # as a shell may have it
    spans = json.loads(img("map", "-f", "qcow2", "--output=json", top).stdout)
    assert spans[0]["depth"] == LONG - 1 and spans[1]["depth"] == LONG - 101 and spans[1]["data"]
    images = json.loads(img("info", "--backing-chain", "--output=json", "-f", "qcow2", top).stdout)
    assert [os.path.basename(x["filename"]) for x in images] == [name_of(i) for i in range(LONG - 1, -1, -1)]


def test_writing(long_chain, tmp_path):
    """Part of a cluster: what is beside it comes from the bottom."""
    d, want = long_chain
    top = tmp_path / name_of(LONG - 1)
    copy_of(d, tmp_path, LONG - 1, LONG - 1)
    img("bench", "-f", "qcow2", "-w", "-c", 1, "-s", 512, "-o", 1024, "--pattern", 0x77, top)
    assert flat(top, tmp_path / "raw") == want[:1024] + b"\x77" * 512 + want[1536:]
    img("rebase", "-f", "qcow2", "-F", "raw", "-b", d / "raw", top)
    assert flat(top, tmp_path / "raw") == want[:1024] + b"\x77" * 512 + want[1536:]


def test_committing(long_chain, tmp_path):
    d, want = long_chain
    copy_of(d, tmp_path, LONG - 100, LONG - 1)
    img("commit", "-d", "-f", "qcow2", "-b", tmp_path / name_of(LONG - 100), tmp_path / name_of(LONG - 1))
    assert flat(tmp_path / name_of(LONG - 100), tmp_path / "raw") == want


def test_jobs(long_chain, tmp_path):
    d, want = long_chain
    copy_of(d, tmp_path, LONG - 2, LONG - 1)
    top = tmp_path / name_of(LONG - 1)
    with Storage(tmp_path, "--blockdev", "driver=qcow2,node-name=t,file.driver=file,file.filename=%s" % top) as s:
        nodes = {os.path.basename(n["file"]): n["node-name"] for n in s.qmp.cmd("query-named-block-nodes", flat=True) if n["drv"] == "qcow2"}
        assert len(nodes) == LONG
        s.qmp.cmd("block-commit", device="t", job_id="c", **{"top-node": "t", "base-node": nodes[name_of(LONG - 2)]})
        s.qmp.wait_event("BLOCK_JOB_READY")
        s.qmp.cmd("block-job-complete", device="c")
        assert "error" not in s.qmp.wait_event("BLOCK_JOB_COMPLETED")["data"]
        s.qmp.cmd("block-stream", device=nodes[name_of(LONG - 2)], job_id="s")
        assert "error" not in s.qmp.wait_event("BLOCK_JOB_COMPLETED")["data"]
    assert flat(tmp_path / name_of(LONG - 2), tmp_path / "raw") == want
    assert "backing-filename" not in json.loads(img("info", "--output=json", "-f", "qcow2", tmp_path / name_of(LONG - 2)).stdout)


@pytest.fixture(name="loop")
def fixture_loop(tmp_path):
    """a is upon b, b upon c, c upon b, which is there by another name, too; s is upon itself."""
    for name, below in ("a", "b"), ("b", "c"), ("c", "by-name"), ("s", "s"):
        img("create", "-q", "-f", "qcow2", "-u", "-b", below, "-F", "qcow2", tmp_path / name, "1M")
    os.link(tmp_path / "b", tmp_path / "by-name")
    return tmp_path


@pytest.mark.parametrize("cmd", [("map",), ("convert", "-O", "raw"), ("compare", "-F", "qcow2"), ("rebase", "-b", ""), ("commit",), ("bench", "-w"), ("measure",)],
                         ids=lambda c: c[0])
def test_a_loop_is_refused(loop, cmd):
    for name, told in ("s", "backing file of '%s': '%s' is its own backing file\n" % (loop / "s", loop / "s")), \
                      ("a", "backing file of '%s': '%s' is its own backing file, by others between\n" % (loop / "c", loop / "by-name")):
        more = [loop / "out"] if cmd[0] in ("convert", "compare") else []
        p = img(*cmd[:1], "-f", "qcow2", *cmd[1:], loop / name, *more, ok=(1, 2))
        assert told in p.stderr, p.stderr


def test_a_loop_is_told_by_its_images(loop):
    """What is looked at alone is not touched by it."""
    img("info", "-f", "qcow2", loop / "s")
    img("check", "-f", "qcow2", loop / "s")
    p = img("info", "--backing-chain", "-f", "qcow2", loop / "a", ok=(1,))
    assert "'%s' is its own backing file, or one of a loop" % (loop / "by-name") in p.stderr
    img("rebase", "-u", "-b", "", "-f", "qcow2", loop / "c")
    img("map", "-f", "qcow2", loop / "a")


def test_a_loop_is_refused_by_programs_that_serve(loop):
    p = run(SERVE, "--blockdev", "qcow2,node-name=t,file.driver=file,file.filename=%s" % (loop / "a"), ok=(1,))
    assert "'%s' is its own backing file, by others between" % (loop / "by-name") in p.stderr
    with Storage(loop) as s:
        with pytest.raises(QmpError) as e:
            s.qmp.cmd("blockdev-add", driver="qcow2", **{"node-name": "t", "file": {"driver": "file", "filename": str(loop / "s")}})
        assert "is its own backing file" in str(e.value)
        assert s.qmp.cmd("query-named-block-nodes") == []
