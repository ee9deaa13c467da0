# SPDX-License-Identifier: MIT
"""What changes while a drive is in use: limits, options of nodes, internal snapshots; and bitmaps over NBD."""
import json
import shutil
import socket
import subprocess
import time

import pytest

from lib.images import IMG, MIB, check, content, create, drive, fill, io_of, node, tool, wait_job
from lib.machine import Machine, Qmp, QmpError, run
from lib.nvme import NvmeMachine, read, write

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="no qemu-utils")


def blockdev(name, path, more=""):
    return "-blockdev", "qcow2,node-name=%s,file.driver=file,file.filename=%s%s" % (name, path, more)


def seconds(fn):
    t = time.monotonic()
    fn()
    return time.monotonic() - t


def test_limits_of_a_drive(tmp_path):
    args = list(drive(create(tmp_path / "a", "8M", fmt="raw"), "raw"))
    args[1] += ",throttling.iops-total=20,bps_wr=1048576,throttling.group=g"
    with NvmeMachine(tmp_path, *args) as m:
        io = io_of(m)
        inserted = m.qmp.cmd("query-block")[0]["inserted"]
        assert (inserted["iops"], inserted["bps_wr"], inserted["bps"], inserted["group"]) == (20, MIB, 0, "g")
        assert seconds(lambda: [read(io, 1, i, 1) for i in range(10)]) > 0.3
        none = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        for bad in ({"iops": 1, "iops_rd": 1}, {"iops_max": 5}, {"id": "nothing"}, {"bps": 1, "bps_max_length": 2}, {"bps": 1, "iops_size": 512}, {"iops_size": 512}):
            with pytest.raises(QmpError):
                m.qmp.request_underscored("block_set_io_throttle", {"device": "d", **none, **bad})
        m.qmp.request_underscored("block_set_io_throttle", {"device": "d", **none})
        assert m.qmp.cmd("query-block")[0]["inserted"]["iops"] == 0
        for i in range(30):
            read(io, 1, i, 1)
        m.qmp.request_underscored("block_set_io_throttle", {"device": "d", **none, "iops_wr": 10})
        assert seconds(lambda: [write(io, 1, i, bytes(512)) for i in range(5)]) > 0.2
    status, _, text = run("-M", "virt", "-drive", "file=%s,format=raw,if=none,id=d,throttling.iops-totl=1" % (tmp_path / "a"))
    assert status == 1 and "throttling.iops-totl" in text


@pytest.mark.parametrize("limits, told", [
    ("bps_max=5", "bps-total-max has no effect without bps-total"), ("iops_rd=5,iops_rd_max=4", "less than its limit: iops-read-max than iops-read"),
    ("bps_wr=5,throttling.bps-write-max-length=2", "bps-write-max-length has no effect without bps-write-max"),
    ("bps=5,iops_size=512", "iops-size has no effect without a limit of requests")])
def test_limits_that_would_have_no_effect(limits, told):
    status, _, text = run("-M", "none", "-drive", "file.driver=null-co,format=raw,if=none,id=d," + limits)
    assert status == 1 and told in text


@pytest.mark.parametrize("what", ["reopen", "snapshot", "unplug", "unplug-drive"])
def test_who_waits_for_requests_does_not_wait_for_their_limits(tmp_path, what):
    """Each request would take two minutes by its limit, of a node or a drive; a command that needs the node quiet lets them through."""
    null = {"driver": "null-co", "node-name": "n", "size": MIB, "read-zeroes": True}
    nodes = [null, {"driver": "throttle", "node-name": "t", "throttle-group": "g", "file": "n"}]
    limited = sum((["-blockdev", json.dumps(n)] for n in nodes), ["-object", "throttle-group,id=g,x-bps-total=64"])
    if what == "unplug-drive":
        limited = ["-drive", "file.driver=null-co,file.size=1M,file.read-zeroes=on,format=raw,if=none,id=t,bps=64"]
    with NvmeMachine(tmp_path, *limited, "-device", "nvme,id=c,serial=S,addr=1", "-device", "nvme-ns,bus=c,drive=t,id=ns") as m:
        io = io_of(m)
        buf = io.nvme.alloc(16 * 4096)
        for i in range(6):
            io.submit(2, 1, prp1=buf + 8192 * i, prp2=buf + 8192 * i + 4096, cdw=(8 * i, 0, 15))
        io.poll()                       # nothing was owed before the first
        if what == "reopen":
            m.qmp.cmd("blockdev-reopen", options=[{**nodes[1], "detect-zeroes": "on"}])
            assert node(m, "t")["detect_zeroes"] == "on"
        elif what == "snapshot":
            m.qmp.cmd("blockdev-add", driver="qcow2", node_name="o", backing=None, file={"driver": "file", "filename": str(create(tmp_path / "o", "1M"))})
            m.qmp.cmd("blockdev-snapshot", node="n", overlay="o")
            assert node(m, "o")["backing_file_depth"] == 1
        else:
            m.qmp.cmd("device_del", id="ns")
            m.qmp.wait_event("DEVICE_DELETED")
        for _ in range(0 if what.startswith("unplug") else 5):
            assert io.poll().status == 0


def test_an_overlay_over_a_node_that_a_guest_uses(tmp_path):
    a, b = create(tmp_path / "a", "8M"), create(tmp_path / "b", "8M")
    with NvmeMachine(tmp_path, *blockdev("d", a), "-device", "nvme,drive=d,serial=S,addr=1") as m:
        io = io_of(m)
        write(io, 1, 0, b"1" * 512)
        m.qmp.cmd("blockdev-add", driver="qcow2", node_name="top", backing=None, file={"driver": "file", "filename": str(b)})
        m.qmp.cmd("blockdev-snapshot", node="d", overlay="top")
        assert read(io, 1, 0, 1) == b"1" * 512
        write(io, 1, 1, b"2" * 512)
        assert [x["inserted"]["node-name"] for x in m.qmp.cmd("query-block")] == ["top"] and node(m, "d")["ro"]
        for wrong in ({"node": "d", "overlay": "top"}, {"node": "top", "overlay": "top"}, {"node": "top", "overlay": "nope"}):
            with pytest.raises(QmpError):
                m.qmp.cmd("blockdev-snapshot", **wrong)
        m.qmp.cmd("blockdev-add", driver="qcow2", node_name="more", backing=None, file={"driver": "file", "filename": str(create(tmp_path / "c", "8M"))})
        for below, what in (("d", "is below another image"), ("more", "cannot be on top of itself")):
            with pytest.raises(QmpError, match=what):
                m.qmp.cmd("blockdev-snapshot", node=below, overlay="more")
        with pytest.raises(QmpError, match="in use by block node 'top'"):
            m.qmp.cmd("blockdev-del", node_name="d")
        m.qmp.cmd("quit")
        assert m.wait() == 0
    assert content(a)[:1024] == b"1" * 512 + bytes(512) and content(b)[512:1024] == b"2" * 512


def test_options_of_a_node_that_is_in_use(tmp_path):
    a, b = create(tmp_path / "a", "8M"), create(tmp_path / "b", "8M")
    fill(b, (7, 0, MIB))
    opts = {"driver": "qcow2", "node-name": "t", "file": {"driver": "file", "filename": str(a)}, "backing": None}
    with Machine("-M", "none", "-blockdev", json.dumps(opts), *blockdev("b", b, ",read-only=on")) as m:
        def reopen(**more):
            m.qmp.cmd("blockdev-reopen", options=[{k.replace("_", "-"): v for k, v in {**opts, **more}.items()}])
        assert subprocess.run(["qemu-io", "-f", "qcow2", "-r", "-c", "read 0 1", str(a)], capture_output=True, check=False).returncode
        reopen(read_only=True)
        assert node(m, "t")["ro"]
        check(a)
        with pytest.raises(QmpError):
            m.qmp.cmd("block_resize", node_name="t", size=16 * MIB)
        reopen(read_only=False, detect_zeroes="on")
        assert node(m, "t")["detect_zeroes"] == "on" and not node(m, "t")["ro"]
        m.qmp.cmd("block_resize", node_name="t", size=16 * MIB)
        reopen(backing="b")
        assert node(m, "t")["backing_file_depth"] == 1 and node(m, "t")["detect_zeroes"] == "off"
        for bad in ({"driver": "raw"}, {"l2-cache-size": 65536}, {"node-name": "x"}, {"file": "b"}, {"backing": "t"}, {"nonsense": 1}):
            with pytest.raises(QmpError):
                reopen(**bad)
        reopen()
        assert node(m, "t")["backing_file_depth"] == 0
        # read-only from the beginning, then written
        m.qmp.cmd("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "b", "file": {"driver": "file", "filename": str(b)}, "read-only": False}])
        m.qmp.cmd("block_resize", node_name="b", size=9 * MIB)
        assert subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 1", str(b)], capture_output=True, check=False).returncode
        # a filter gets another node below
        m.qmp.cmd("blockdev-del", node_name="b")
        m.qmp.cmd("object-add", qom_type="throttle-group", id="g")
        for name in ("r0", "r1"):
            m.qmp.cmd("blockdev-add", driver="raw", node_name=name, file={"driver": "file", "filename": str(create(tmp_path / name, "8M", fmt="raw"))})
        m.qmp.cmd("blockdev-add", driver="throttle", node_name="f", throttle_group="g", file="r0")
        m.qmp.cmd("blockdev-reopen", options=[{"driver": "throttle", "node-name": "f", "throttle-group": "g", "file": "r1"}])
        m.qmp.cmd("blockdev-del", node_name="r0")
        with pytest.raises(QmpError):
            m.qmp.cmd("blockdev-del", node_name="r1")
        # several at once: all or none
        for name, size in (("short", "4M"), ("r3", "8M")):
            m.qmp.cmd("blockdev-add", driver="raw", node_name=name, file={"driver": "file", "filename": str(create(tmp_path / name, size, fmt="raw"))})
        both = [{**opts, "backing": "r3", "detect-zeroes": "on", "read-only": True},
                {"driver": "throttle", "node-name": "f", "throttle-group": "g", "detect-zeroes": "on", "file": "short"}]
        before = [node(m, "t"), node(m, "f")]
        with pytest.raises(QmpError, match="not as long"):
            m.qmp.cmd("blockdev-reopen", options=both)
        assert [node(m, "t"), node(m, "f")] == before
        m.qmp.cmd("block_resize", node_name="t", size=20 * MIB)
        m.qmp.cmd("blockdev-del", node_name="short")
        both[1]["file"] = "r3"
        both[0]["backing"] = None
        m.qmp.cmd("blockdev-reopen", options=both)
        assert node(m, "t")["ro"] and node(m, "t")["detect_zeroes"] == node(m, "f")["detect_zeroes"] == "on"
        m.qmp.cmd("blockdev-del", node_name="r1")
    check(a)


def test_internal_snapshots_and_another_name_for_the_backing_file(tmp_path):
    base, top = create(tmp_path / "base", "8M"), tmp_path / "top"
    create(top, None, base)
    with NvmeMachine(tmp_path, *drive(top)) as m:
        io = io_of(m)
        assert write(io, 1, 0, b"1" * 512).status == 0
        m.qmp.cmd("blockdev-snapshot-internal-sync", device="d", name="one")
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("blockdev-snapshot-internal-sync", device="d", name="one")
        assert "already exists" in str(e.value)
        with pytest.raises(QmpError):
            m.qmp.cmd("transaction", actions=[{"type": "blockdev-snapshot-internal-sync", "data": {"device": "d", "name": "two"}}, {"type": "abort"}])
        assert write(io, 1, 0, b"2" * 512).status == 0
        m.qmp.cmd("blockdev-snapshot-internal-sync", device="d", name="three")
        assert m.qmp.cmd("blockdev-snapshot-delete-internal-sync", device="d", name="three")["name"] == "three"
        with pytest.raises(QmpError):
            m.qmp.cmd("blockdev-snapshot-delete-internal-sync", device="d", id="99")
        shutil.copy(base, tmp_path / "moved")
        m.qmp.cmd("change-backing-file", device="d", image_node_name="d", backing_file=str(tmp_path / "moved"))
        m.qmp.cmd("quit")
        m.wait()
    check(top)
    assert [s.split()[1] for s in tool("qemu-img", "snapshot", "-l", top).splitlines()[2:]] == ["one"]
    assert "backing file: %s" % (tmp_path / "moved") in tool("qemu-img", "info", top)
    assert content(top)[:512] == b"2" * 512
    tool("qemu-img", "snapshot", "-a", "one", top)
    assert content(top)[:512] == b"1" * 512


def test_bitmaps_over_nbd(tmp_path):
    a, sock = create(tmp_path / "a", "8M"), tmp_path / "s"
    uri = "nbd+unix:///t?socket=%s" % sock
    with Machine("-M", "none", *blockdev("t", a)) as m:
        m.qmp.cmd("block-dirty-bitmap-add", node="t", name="b")
        m.qmp.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": str(sock)}})
        m.qmp.cmd("block-export-add", type="nbd", id="t", writable=True, bitmaps=["b"], **{"node-name": "t"})
        tool("qemu-io", "-f", "raw", "-c", "write 1M 64k", "-c", "write 4M 1M", uri)
        with pytest.raises(QmpError):
            m.qmp.cmd("block-dirty-bitmap-remove", node="t", name="b")
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("nbd-server-add", device="t", name="u", bitmap="none")
        m.qmp.cmd("block-dirty-bitmap-add", node="t", name="c")
        refused = {"type": "nbd", "id": "r", "name": "r", "bitmaps": ["c"], "node-name": "t"}
        with pytest.raises(QmpError, match="Enabled bitmap 'c' incompatible with readonly export"):     # it would change under who reads it
            m.qmp.cmd("block-export-add", **refused)
        m.qmp.cmd("block-dirty-bitmap-remove", node="t", name="c")
        assert "not found" in str(e.value) and [x["id"] for x in m.qmp.cmd("query-block-exports")] == ["t"]
        image = "driver=nbd,export=t,server.type=unix,server.path=%s,x-dirty-bitmap=qemu:dirty-bitmap:b" % sock
        got = json.loads(tool("qemu-img", "map", "--output=json", "--image-opts", image))
        assert [(x["start"], x["length"]) for x in got if not x["data"]] == [(MIB, 65536), (4 * MIB, MIB)]
        if shutil.which("nbdinfo"):
            assert "qemu:dirty-bitmap:b" in tool("nbdinfo", uri)
            assert "base:allocation" in tool("nbdinfo", uri)
        m.qmp.cmd("block-export-del", id="t", mode="hard")
        m.qmp.wait_event("BLOCK_EXPORT_DELETED")
        m.qmp.cmd("block-dirty-bitmap-remove", node="t", name="b")


def test_the_image_tool_and_bitmaps(tmp_path):
    a, b = create(tmp_path / "a", "8M"), create(tmp_path / "b", "8M")
    tool(IMG, "bitmap", "--add", "-g", "32k", a, "x")
    fill(a, (1, 0, MIB))
    tool(IMG, "bitmap", "--add", "--disable", b, "y")
    tool(IMG, "bitmap", "--merge", "x", "-b", a, "-F", "qcow2", b, "y")
    tool(IMG, "bitmap", "--add", "--clear", "--merge", "y", b, "z")
    for p in (a, b):
        check(p)
    with Machine("-M", "none", *blockdev("t", b)) as m:
        got = {x["name"]: (x["count"], x["recording"]) for x in node(m, "t")["dirty-bitmaps"]}
        assert got == {"y": (MIB, False), "z": (MIB, True)}
    tool(IMG, "snapshot", "-c", "s", a)
    tool(IMG, "snapshot", "-a", "s", a)         # all of it may be other bytes now
    with Machine("-M", "none", *blockdev("t", a)) as m:
        assert node(m, "t")["dirty-bitmaps"][0]["count"] == 8 * MIB
    tool(IMG, "bitmap", "--remove", a, "x")
    assert "bitmaps" not in tool("qemu-img", "info", "--output=json", a)
    for bad in ([a, "x"], ["--remove", a, "x"], ["--add", "-b", b, a, "q"], ["--clear", "-g", "64k", a, "q"], ["--merge", "nothing", a, "q"]):
        p = subprocess.run([IMG, "bitmap", *map(str, bad)], capture_output=True, text=True, check=False)
        assert p.returncode == 1 and p.stderr.startswith("backplane-img: "), bad


def test_the_human_monitor(tmp_path):
    a = create(tmp_path / "a", "8M")
    with NvmeMachine(tmp_path, *drive(a)) as m:
        io = io_of(m)
        assert write(io, 1, 0, b"1" * 512).status == 0
        assert m.qmp.hmp("info block-jobs") == "No active jobs\n"
        assert m.qmp.hmp("snapshot_blkdev d %s qcow2" % (tmp_path / "top")) == ""
        assert m.qmp.hmp("block_set_io_throttle d 0 0 0 100 0 0") == ""
        assert m.qmp.hmp("drive_mirror -f d %s" % (tmp_path / "out")) == ""
        m.qmp.wait_event("BLOCK_JOB_READY")
        assert m.qmp.hmp("info block-jobs").startswith("Type mirror, device d: ready, completed ")
        assert m.qmp.hmp("block_job_cancel d") == ""
        wait_job(m, "d")
        assert m.qmp.hmp("snapshot_blkdev_internal d s") == ""
        assert m.qmp.hmp("block_stream d") == ""
        wait_job(m, "d")
        assert m.qmp.hmp("block_job_pause d").startswith("Error: Block job 'd' not found")
        assert m.qmp.hmp("block_stream d 1 2 3").startswith("Error: too many words")
        inserted = m.qmp.cmd("query-block")[0]["inserted"]
        assert inserted["iops"] == 100 and inserted["backing_file_depth"] == 0
    check(tmp_path / "out")


def test_a_node_that_is_still_being_opened(tmp_path):
    """Its server says nothing: nobody else can use or delete the node, and the monitors go on."""
    path = str(tmp_path / "nbd")
    with socket.socket(socket.AF_UNIX) as server, Machine(
            "-M", "virt", "-device", "pcie-root-port,id=p", "-qmp", "unix:%s,server=on,wait=off" % (tmp_path / "q2")) as m:
        server.bind(path)
        server.listen(1)
        other = Qmp(m.connect(str(tmp_path / "q2")))
        m.qmp.send(json.dumps({"execute": "blockdev-add", "arguments": {
            "driver": "nbd", "node-name": "n", "server": {"type": "unix", "path": path}, "read-only": True}}).encode())
        client = server.accept()[0]
        for command, args in (("blockdev-del", {"node-name": "n"}), ("device_add", {"driver": "virtio-blk-pci", "bus": "p", "drive": "n"})):
            with pytest.raises(QmpError, match="'n' is not ready yet"):
                other.request_underscored(command, args)
        client.close()
        assert "error" in m.qmp.receive()
        with pytest.raises(QmpError, match="there is no blockdev with the id 'n'"):
            other.cmd("blockdev-del", node_name="n")
        other.close()
