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
