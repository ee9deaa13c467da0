# SPDX-License-Identifier: MIT
"""A storage that does not answer holds up who waits for it, and nobody else: commands and jobs of other drives go on, and the program ends."""
import json
import shutil
import threading

import pytest

from lib.images import create, io_of, tool
from lib.machine import Machine, Qmp, TIMEOUT
from lib.nbd import Flag, Server
from lib.nvme import NvmeMachine, read

MIB = 1 << 20
READ = 2                # of NVMe

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-utils")


class Mute(Server):
    """silent() until speak(): connections stay, requests are taken, nobody is answered. .held and .greeted count requests and clients that wait."""

    def __init__(self, path):
        self.held, self.greeted, self.speaks, self.came = 0, 0, threading.Event(), threading.Condition()
        self.speaks.set()
        super().__init__(path, MIB, flags=Server.FLAGS | Flag.CAN_MULTI_CONN, structured=False)

    def count(self, what, by):
        with self.came:
            setattr(self, what, getattr(self, what) + by)
            self.came.notify_all()

    def wait_to_speak(self, what):
        self.count(what, 1)
        self.speaks.wait()
        self.count(what, -1)

    def before_greeting(self):
        self.wait_to_speak("greeted")

    def before_answer(self):
        self.wait_to_speak("held")

    def silent(self):
        self.speaks.clear()

    def speak(self):
        self.speaks.set()

    def wait_for(self, what):
        """Until a request ("held") or a client ("greeted") waits for an answer."""
        with self.came:
            assert self.came.wait_for(lambda: getattr(self, what) and not self.speaks.is_set(), TIMEOUT)

    def node(self, name):
        """For -blockdev, blockdev-add."""
        return {"driver": "nbd", "node-name": name, "server": {"type": "unix", "path": self.path}}


class Silence:
    """Node "far" is a server's, "near" and its target "copy" are not; two monitors, .a and .b, see them."""

    def __init__(self, tmp_path, *args):
        self.server, other = Mute(tmp_path / "nbd"), str(tmp_path / "other.qmp")
        nodes = [self.server.node("far")] + [{"driver": "null-co", "node-name": n, "size": MIB, "read-zeroes": True} for n in ("near", "copy", "spare", "source")]
        self.m = Machine("-M", "virt", "-S", *sum((["-blockdev", json.dumps(n)] for n in nodes), []), *args, "-qmp", "unix:%s,server=on,wait=off" % other)
        self.other = other

    def __enter__(self):
        self.m.__enter__()
        self.a, self.b = self.m.qmp, Qmp(self.m.connect(self.other))
        return self

    def __exit__(self, *exc):
        self.server.speak()
        self.b.close()
        self.m.__exit__(*exc)

    def hang(self, command, **arguments):
        """Monitor .a waits for the server from now on."""
        self.server.silent()
        self.a.send({"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
        self.server.wait_for("held")

    def others_go_on(self):
        b = self.b
        for query in ("query-block", "query-named-block-nodes", "query-blockstats", "query-jobs", "query-block-jobs", "query-status", "query-pci"):
            b.cmd(query)
        b.cmd("blockdev-mirror", job_id="other", device="near", target="copy", sync="full")
        b.wait_event("BLOCK_JOB_READY")
        b.cmd("block-job-complete", device="other")
        b.wait_event("BLOCK_JOB_COMPLETED")
        b.cmd("blockdev-mirror", job_id="other", device="near", target="spare", sync="none")
        b.wait_event("BLOCK_JOB_READY")
        b.cmd("job-cancel", id="other")
        assert b.wait_event("BLOCK_JOB_CANCELLED")["data"]["device"] == "other"
        b.cmd("block-dirty-bitmap-add", node="near", name="x")
        b.cmd("transaction", actions=[{"type": "block-dirty-bitmap-clear", "data": {"node": "near", "name": "x"}}])
        b.cmd("blockdev-reopen", options=[{"driver": "null-co", "node-name": "near", "size": MIB, "read-zeroes": True, "detect-zeroes": "on"}])
        b.cmd("blockdev-add", driver="null-co", node_name="more", size=MIB)
        b.cmd("blockdev-del", node_name="more")


@pytest.fixture(name="s")
def silence(tmp_path):
    qcow2 = tmp_path / "over"
    with Silence(tmp_path) as s:
        s.qcow2 = str(qcow2)
        yield s


def test_a_command_waits_for_a_server(s):
    """The snapshot flushes what goes below. Who wants the same node waits behind it."""
    s.hang("blockdev-snapshot-sync", node_name="far", snapshot_file=s.qcow2, snapshot_node_name="over")
    s.others_go_on()
    s.b.send({"execute": "blockdev-del", "arguments": {"node-name": "far"}})
    s.server.speak()
    assert "return" in s.a.answer()
    assert "in use by" in s.b.answer()["error"]["desc"]


def test_the_end_of_a_job_waits_for_a_server(s):
    """The target is flushed before the source's users move there."""
    s.a.cmd("blockdev-mirror", job_id="j", device="source", target="far", sync="full")
    s.a.wait_event("BLOCK_JOB_READY")
    s.hang("block-job-complete", device="j")
    assert s.a.answer() == {"return": {}}
    s.others_go_on()
    s.b.send({"execute": "block-dirty-bitmap-add", "arguments": {"node": "source", "name": "x"}})
    s.server.speak()
    while s.a.wait_event("BLOCK_JOB_COMPLETED")["data"]["device"] != "j":
        pass
    s.b.answer()


def test_a_drive_that_is_unplugged_while_its_medium_changes(tmp_path):
    """The new image is open only when the server answers; then there is no drive any more."""
    image = create(tmp_path / "image", "1M")
    with Silence(tmp_path, "-device", "virtio-scsi-pci,id=s", "-device", "scsi-cd,bus=s.0,id=cd") as s:
        tool("qemu-img", "rebase", "-u", "-F", "raw", "-b", s.server.uri(), image)
        s.server.silent()
        s.a.send({"execute": "blockdev-change-medium", "arguments": {"id": "cd", "filename": str(image), "format": "qcow2"}})
        s.server.wait_for("greeted")
        s.b.cmd("device_del", id="cd")
        s.b.wait_event("DEVICE_DELETED")
        s.server.speak()
        assert s.a.answer()["error"]["desc"] == "the device was unplugged meanwhile"
        assert not [n for n in s.b.cmd("query-named-block-nodes") if n["file"] == str(image)]


@pytest.mark.parametrize("command, arguments", [
    ("blockdev-snapshot-sync", {"node-name": "d", "snapshot-file": "", "snapshot-node-name": "over", "format": "raw", "mode": "existing"}),
    ("drive-backup", {"device": "d", "job-id": "j", "target": "", "sync": "full", "format": "raw", "mode": "existing"})])
def test_a_guest_goes_on_while_an_image_is_opened(tmp_path, command, arguments):
    """The server of the new image does not answer; the drive that is to get it does."""
    server = Mute(tmp_path / "nbd")
    args = {k: v or "nbd+unix:///?socket=" + server.path for k, v in arguments.items()}
    with NvmeMachine(tmp_path, "-blockdev", "null-co,node-name=d,size=1M,read-zeroes=on", "-device", "nvme,drive=d,serial=S,addr=1") as m:
        io = io_of(m)
        server.silent()
        m.qmp.send({"execute": command, "arguments": args})
        server.wait_for("greeted")
        assert read(io, 1, 0, 1) == bytes(512)
        server.speak()
        answer = m.qmp.answer()
        if command == "drive-backup":
            assert answer == {"return": {}}
            m.qmp.wait_event("BLOCK_JOB_COMPLETED")
        else:
            assert "cannot have a backing node" in answer["error"]["desc"]


def test_the_program_ends(tmp_path):
    """A guest's request, a job and a command wait for servers, another guest's request for a rule that delays it."""
    server, mirror, other = Mute(tmp_path / "a"), Mute(tmp_path / "b"), str(tmp_path / "other.qmp")
    nodes = [server.node("far"), mirror.node("target"), {"driver": "null-co", "node-name": "near", "size": MIB, "read-zeroes": True},
             {"driver": "faults", "node-name": "slow", "rules": [{"op": "read", "delay-ns": 3600 * 10 ** 9}], "file": {"driver": "null-co", "size": MIB}}]
    with NvmeMachine(tmp_path, *sum((["-blockdev", json.dumps(n)] for n in nodes), []), "-device", "nvme,id=n,serial=S,addr=1",
                     "-device", "nvme-ns,bus=n,drive=far", "-device", "nvme-ns,bus=n,drive=slow", "-qmp", "unix:%s,server=on,wait=off" % other) as m:
        io, q = io_of(m), Qmp(m.connect(other))
        server.silent()
        mirror.silent()
        for nsid in (1, 2):
            io.submit(READ, nsid, prp1=io.nvme.alloc(), cdw=(0, 0, 0))
        m.qmp.cmd("blockdev-mirror", job_id="j", device="near", target="target", sync="full")
        server.wait_for("held")
        mirror.wait_for("held")
        m.qmp.send({"execute": "blockdev-snapshot-sync", "arguments": {"node-name": "far", "snapshot-file": str(tmp_path / "over"), "snapshot-node-name": "x"}})
        q.cmd("quit")
        q.close()
        assert m.wait() == 0
