# SPDX-License-Identifier: MIT
"""Two monitors that want different things of the same block nodes at the same time: each command finds what the one before left."""
import json
import shutil

import pytest

from lib.images import check, create, tool
from lib.machine import Machine, Qmp

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-utils")


def slow_node(tmp_path):
    """A qcow2 node whose file takes long: what a command does to it is not done at once."""
    a = create(tmp_path / "a", "8M")
    return a, ("-object", "throttle-group,id=g,x-iops-total=50", "-blockdev", json.dumps({
        "driver": "qcow2", "node-name": "n", "file": {"driver": "throttle", "throttle-group": "g", "file": {"driver": "file", "filename": str(a)}}}))


def test_a_node_is_not_deleted_under_a_command(tmp_path):
    a, args = slow_node(tmp_path)
    other = str(tmp_path / "other.qmp")
    with Machine("-M", "none", *args, "-qmp", "unix:%s,server=on,wait=off" % other) as m:
        q = Qmp(m.connect(other))
        m.qmp.send({"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "n", "name": "one"}})
        q.send({"execute": "blockdev-del", "arguments": {"node-name": "n"}})
        assert m.qmp.answer() == {"return": {}}
        assert q.answer() == {"return": {}}
        q.close()
        m.qmp.cmd("quit")
        m.wait()
    check(a)
    assert "one" in tool("qemu-img", "snapshot", "-l", a)


def test_a_command_waits_for_the_end_of_a_job(tmp_path):
    """The last step of a job changes the graph and the image: what another monitor asks of the same nodes comes after it, not into its midst."""
    base, top = create(tmp_path / "base", "8M"), tmp_path / "top"
    create(top, backing=base)
    other = str(tmp_path / "other.qmp")
    nodes = ("-object", "throttle-group,id=g,x-iops-total=50", "-blockdev", json.dumps({
        "driver": "qcow2", "node-name": "n", "file": {"driver": "throttle", "throttle-group": "g", "file": {"driver": "file", "filename": str(top)}}}))
    with Machine("-M", "none", *nodes, "-qmp", "unix:%s,server=on,wait=off" % other) as m:
        q = Qmp(m.connect(other))
        m.qmp.cmd("block-stream", job_id="j", device="n", auto_finalize=False)
        m.qmp.wait_event("BLOCK_JOB_PENDING")
        m.qmp.send({"execute": "job-finalize", "arguments": {"id": "j"}})
        q.send({"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "n", "name": "one"}})
        assert m.qmp.answer() == {"return": {}}
        assert q.answer() == {"return": {}}
        q.send({"execute": "job-finalize", "arguments": {"id": "j"}})
        assert q.answer()["error"]["desc"] == "Job not found"
        q.close()
        m.qmp.cmd("quit")
        m.wait()
    check(top)
    assert "one" in tool("qemu-img", "snapshot", "-l", top) and "backing" not in tool("qemu-img", "info", top)
