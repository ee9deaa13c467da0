# SPDX-License-Identifier: MIT
"""Block jobs: stream, commit, mirror, and what holds for every job. qemu-img is the judge of the images."""
import json
import os
import random
import shutil
import subprocess
import time

import pytest

from lib.images import MIB, check, content, create, drive, fill, io_of, node, repair, tool, wait_job
from lib.machine import TIMEOUT, Machine, QmpError
from lib.nvme import NvmeMachine, read, write

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="no qemu-utils")


def chain(tmp_path, n=3, size=8 * MIB):
    """Images c0 .. c(n-1), each with a pattern of its own in its own MiB and in a common one."""
    paths = []
    for i in range(n):
        paths.append(create(tmp_path / ("c%d" % i), size if not i else None, paths[-1] if paths else None))
        fill(paths[i], (i + 1, i * MIB, MIB), (i + 1, 7 * MIB + i * 65536, 65536 * (n - i)))
    return paths


def statuses(m, job):
    return [e["data"]["status"] for e in m.qmp.events if e["event"] == "JOB_STATUS_CHANGE" and e["data"]["id"] == job]


def test_stream_makes_an_image_of_its_own(tmp_path):
    base, mid, top = chain(tmp_path)
    want = content(top)
    with NvmeMachine(tmp_path, *drive(top)) as m:
        io = io_of(m)
        m.qmp.cmd("block-stream", device="d")
        assert write(io, 1, 0, b"n" * 4096).status == 0
        data = wait_job(m, "d")
        assert data["type"] == "stream" and "error" not in data and data["len"] == data["offset"] == 8 * MIB
        assert m.qmp.cmd("query-block-jobs") == [] and m.qmp.cmd("query-jobs") == []
        assert statuses(m, "d") == ["created", "running", "waiting", "pending", "concluded", "null"]
        inserted = m.qmp.cmd("query-block")[0]["inserted"]
        assert inserted["backing_file_depth"] == 0
        assert [n["file"] for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] == "qcow2"] == [str(top)]
        fill(mid, (9, 0, 512))          # nobody holds it
        m.qmp.cmd("quit")
        m.wait()
    check(top)
    assert "backing file" not in tool("qemu-img", "info", top)
    assert content(top) == b"n" * 4096 + want[4096:]


@pytest.mark.parametrize("how", ["base-node", "base", "bottom"])
def test_stream_down_to_a_base(tmp_path, how):
    paths = chain(tmp_path, 4)
    want = content(paths[3])
    with Machine("-M", "none", "-blockdev", "qcow2,node-name=t,file.driver=file,file.filename=%s" % paths[3]) as m:
        nodes = {n["file"]: n["node-name"] for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] == "qcow2"}
        arg = {"base": str(paths[1]), "base-node": nodes[str(paths[1])], "bottom": nodes[str(paths[2])]}[how]
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-stream", device="t", **{how: arg})
        assert "job ID is required" in str(e.value)
        m.qmp.cmd("block-stream", device="t", job_id="j", **{how: arg})
        wait_job(m, "j")
        m.qmp.cmd("blockdev-del", **{"node-name": "t"})
    info = tool("qemu-img", "info", paths[3])
    assert "backing file: %s" % paths[1] in info
    os.unlink(paths[2])
    check(paths[3])
    assert content(paths[3]) == want


def test_commit_of_images_in_the_middle(tmp_path):
    paths = chain(tmp_path, 5)
    want = content(paths[4])
    with Machine("-M", "none", "-blockdev", "qcow2,node-name=t,file.driver=file,file.filename=%s" % paths[4]) as m:
        m.qmp.cmd("block-commit", device="t", job_id="j", top=str(paths[3]), base=str(paths[1]))
        assert wait_job(m, "j")["type"] == "commit"
        assert sorted(n["file"] for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] == "qcow2") == [str(paths[i]) for i in (0, 1, 4)]
        m.qmp.cmd("blockdev-del", **{"node-name": "t"})
    assert "backing file: %s" % paths[1] in tool("qemu-img", "info", paths[4])
    for i in (0, 1, 4):
        check(paths[i])
    assert content(paths[4]) == want


def test_commit_of_the_active_image(tmp_path):
    base, mid, top = chain(tmp_path)
    want = bytearray(content(top))
    with NvmeMachine(tmp_path, *drive(top)) as m:
        io = io_of(m)
        m.qmp.cmd("block-commit", device="d")
        wait_job(m, "d", "BLOCK_JOB_READY")
        assert m.qmp.cmd("query-block-jobs")[0]["ready"]
        assert write(io, 1, 100, b"x" * 4096).status == 0
        want[51200:51200 + 4096] = b"x" * 4096
        m.qmp.cmd("block-job-complete", device="d")
        assert "error" not in wait_job(m, "d")
        block = m.qmp.cmd("query-block")[0]
        assert block["device"] == "d" and block["inserted"]["file"] == str(base) and block["inserted"]["backing_file_depth"] == 0
        assert [n["file"] for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] == "qcow2"] == [str(base)]
        assert read(io, 1, 100, 8) == b"x" * 4096
        assert write(io, 1, 200, b"y" * 512).status == 0
        want[102400:102912] = b"y" * 512
        m.qmp.cmd("quit")
        m.wait()
    check(base)
    assert content(base) == want


def test_what_is_below_a_snapshot_can_be_read_by_others_and_comes_back(tmp_path):
    base = create(tmp_path / "base", "8M")
    with NvmeMachine(tmp_path, *drive(base)) as m:
        io = io_of(m)
        assert write(io, 1, 0, b"a" * 4096).status == 0
        assert subprocess.run(["qemu-img", "info", str(base)], capture_output=True, check=False).returncode
        m.qmp.cmd("blockdev-snapshot-sync", device="d", **{"snapshot-file": str(tmp_path / "top")})
        check(base)
        assert content(base)[:4096] == b"a" * 4096
        assert subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 1", str(base)], capture_output=True, check=False).returncode
        assert write(io, 1, 8, b"b" * 4096).status == 0
        m.qmp.cmd("block-commit", device="d")
        wait_job(m, "d", "BLOCK_JOB_READY")
        m.qmp.cmd("job-complete", id="d")
        wait_job(m, "d")
        assert write(io, 1, 16, b"c" * 4096).status == 0
        m.qmp.cmd("quit")
        m.wait()
    check(base)
    assert content(base)[:12288] == b"a" * 4096 + b"b" * 4096 + b"c" * 4096


def test_a_filter_stays_above_what_is_committed(tmp_path):
    a = create(tmp_path / "a", "8M")
    with NvmeMachine(tmp_path, "-object", "throttle-group,id=g", "-blockdev", "qcow2,node-name=q,file.driver=file,file.filename=%s" % a,
                     "-blockdev", "throttle,node-name=f,throttle-group=g,file=q", "-device", "nvme,drive=f,serial=S,addr=1") as m:
        io = io_of(m)
        m.qmp.cmd("blockdev-snapshot-sync", **{"node-name": "q", "snapshot-file": str(tmp_path / "top")})
        assert write(io, 1, 8, b"b" * 4096).status == 0
        check(a)
        m.qmp.cmd("block-commit", device="f", job_id="c")
        wait_job(m, "c", "BLOCK_JOB_READY")
        m.qmp.cmd("job-complete", id="c")
        wait_job(m, "c")
        assert sorted(n["node-name"] for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] != "file") == ["f", "q"]
        assert m.qmp.cmd("query-block")[0]["inserted"]["node-name"] == "f"
        assert write(io, 1, 16, b"c" * 4096).status == 0
        m.qmp.cmd("quit")
        m.wait()
    check(a)
    assert content(a)[4096:12288] == b"b" * 4096 + b"c" * 4096


def test_jobs_write_to_images_that_were_opened_read_only(tmp_path):
    """As management programs open a chain: what is below the active image is read-only, until a job needs to write there."""
    paths = chain(tmp_path, 4)
    want = content(paths[3])
    args = []
    for i, p in enumerate(paths):
        opts = {"driver": "qcow2", "node-name": "n%d" % i, "read-only": i < 3, "backing": "n%d" % (i - 1) if i else None,
                "file": {"driver": "file", "filename": str(p), "node-name": "f%d" % i, "auto-read-only": True}}
        args += ["-blockdev", json.dumps(opts)]
    with NvmeMachine(tmp_path, *args, "-device", "nvme,drive=n3,serial=S,addr=1,id=disk") as m:
        def ended(command, **more):
            m.qmp.cmd(command, device="n3" if command == "block-commit" else "n0", job_id="j", **more)
            if "top_node" not in more and command == "block-commit":
                wait_job(m, "j", "BLOCK_JOB_READY")
                m.qmp.cmd("job-complete", id="j")
            done = wait_job(m, "j")
            assert "error" not in done and done["len"] == done["offset"]
            assert all(node(m, "n%d" % i)["ro"] for i in range(2))
        assert m.qmp.cmd("query-block")[0]["qdev"] == m.qmp.cmd("query-blockstats")[0]["qdev"] == "disk"
        ended("block-stream")                                       # nothing below: nothing to do
        m.qmp.cmd("block-stream", device="n2", job_id="j", speed=1)
        opts = {"driver": "qcow2", "node-name": "n2", "backing": "n1", "file": "f2"}
        m.qmp.cmd("blockdev-reopen", options=[{**opts, "detect-zeroes": "on"}])     # a job does not mind, but of the chain
        assert node(m, "n2")["detect_zeroes"] == "on"
        with pytest.raises(QmpError, match="in use by block job: stream"):
            m.qmp.cmd("blockdev-reopen", options=[{**opts, "backing": None}])
        m.qmp.cmd("block-job-cancel", device="j")
        wait_job(m, "j", "BLOCK_JOB_CANCELLED")
        assert node(m, "n2")["ro"]
        ended("block-commit", base_node="n0", top_node="n1")        # n2, above it, gets another backing file
        assert node(m, "n3")["backing_file_depth"] == 2
        ended("block-commit", base_node="n2")
        assert node(m, "n2")["backing_file_depth"] == 1 and m.qmp.cmd("query-block")[0]["inserted"]["node-name"] == "n2"
        m.qmp.cmd("quit")
        assert m.wait() == 0
    check(paths[0])
    check(paths[2])
    assert content(paths[2]) == want


def test_commit_into_a_raw_image(tmp_path):
    base = create(tmp_path / "base", "8M", fmt="raw")
    top = create(tmp_path / "top", None, base, backing_fmt="raw")
    fill(top, (2, 4 * MIB, MIB))
    want = content(top)
    with NvmeMachine(tmp_path, *drive(top)) as m:
        io = io_of(m)
        m.qmp.cmd("block-commit", device="d")
        wait_job(m, "d", "BLOCK_JOB_READY")
        assert write(io, 1, 0, b"w" * 512).status == 0
        m.qmp.cmd("job-complete", id="d")
        wait_job(m, "d")
        assert write(io, 1, 1, b"v" * 512).status == 0
        assert m.qmp.cmd("query-block")[0]["inserted"]["file"] == str(base)
        m.qmp.cmd("quit")
        m.wait()
    assert base.read_bytes() == b"w" * 512 + b"v" * 512 + want[1024:]


@pytest.mark.parametrize("sync,mode,granularity", [("full", "background", 0), ("full", "write-blocking", 512), ("top", "background", 0),
                                                   ("top", "background", 512), ("none", "write-blocking", 0), ("none", "write-blocking", 512)])
def test_drive_mirror_and_pivot(tmp_path, sync, mode, granularity):
    """What the target does not get shows the backing image, also within a cluster; zeroes hide it."""
    base, top = chain(tmp_path, 2)
    tool("qemu-io", "-f", "qcow2", "-c", "write -z 512k 128k", top)
    want, out = bytearray(content(top)), tmp_path / "out"
    with NvmeMachine(tmp_path, *drive(top)) as m:
        io = io_of(m)
        m.qmp.cmd("drive-mirror", device="d", target=str(out), sync=sync, copy_mode=mode, granularity=granularity, node_name="o", speed=1 << 40)
        wait_job(m, "d", "BLOCK_JOB_READY")
        for at in (0, 3000, 9000):
            data = bytes([at % 251 + 1]) * 2048
            assert write(io, 1, at, data).status == 0
            want[at * 512:at * 512 + 2048] = data
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-stream", device="d", job_id="other")
        assert "in use by block job: mirror" in str(e.value)
        m.qmp.cmd("block-job-complete", device="d")
        done = wait_job(m, "d")
        assert "error" not in done and done["speed"] == 1 << 40
        inserted = m.qmp.cmd("query-block")[0]["inserted"]
        assert inserted["node-name"] == "o" and inserted["backing_file_depth"] == {"full": 0, "top": 1, "none": 2}[sync]
        assert write(io, 1, 5000, b"z" * 512).status == 0
        want[5000 * 512:5001 * 512] = b"z" * 512
        m.qmp.cmd("quit")
        m.wait()
    check(out)
    check(top)
    assert content(out) == want


def test_a_ready_mirror_that_is_cancelled_leaves_a_copy(tmp_path):
    src = create(tmp_path / "src", "8M")
    fill(src, (5, 0, 3 * MIB))
    with NvmeMachine(tmp_path, *drive(src), "-blockdev", "raw,node-name=o,file.driver=file,file.filename=%s"
                     % create(tmp_path / "out", "8M", fmt="raw")) as m:
        io = io_of(m)
        m.qmp.cmd("blockdev-mirror", device="d", target="o", sync="full", job_id="j")
        wait_job(m, "j", "BLOCK_JOB_READY")
        assert write(io, 1, 0, b"x" * 4096).status == 0
        m.qmp.cmd("block-job-cancel", device="j")
        assert wait_job(m, "j")["type"] == "mirror"
        assert write(io, 1, 0, b"after...".ljust(512)).status == 0
        assert m.qmp.cmd("query-block")[0]["inserted"]["file"] == str(src)
        m.qmp.cmd("blockdev-del", node_name="o")
    assert (tmp_path / "out").read_bytes() == b"x" * 4096 + bytes([5]) * (3 * MIB - 4096) + bytes(5 * MIB)


def test_the_life_of_a_job_that_is_told_everything(tmp_path):
    src, out = create(tmp_path / "src", "8M"), create(tmp_path / "out", "8M")
    fill(src, (5, 0, 8 * MIB))
    node = "qcow2,node-name=%s,file.driver=file,file.filename=%s"
    with Machine("-M", "none", "-blockdev", node % ("s", src), "-blockdev", node % ("o", out)) as m:
        args = {"auto-finalize": False, "auto-dismiss": False}
        m.qmp.cmd("blockdev-mirror", device="s", target="o", sync="full", job_id="j", speed=1000, **args)
        with pytest.raises(QmpError):
            m.qmp.cmd("job-complete", id="j")
        m.qmp.cmd("job-pause", id="j")
        with pytest.raises(QmpError):
            m.qmp.cmd("job-pause", id="j")
        while m.qmp.cmd("query-jobs")[0]["status"] != "paused":
            pass
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-job-cancel", device="j")
        assert "paused" in str(e.value)
        job = m.qmp.cmd("query-block-jobs")[0]
        assert job["paused"] and not job["busy"] and job["speed"] == 1000 and not job["ready"] and not job["auto-finalize"]
        m.qmp.cmd("block-job-set-speed", device="j", speed=0)
        m.qmp.cmd("job-resume", id="j")
        wait_job(m, "j", "BLOCK_JOB_READY")
        m.qmp.cmd("job-pause", id="j")
        end = time.monotonic() + TIMEOUT
        while m.qmp.cmd("query-jobs")[0]["status"] != "standby":
            assert time.monotonic() < end
        m.qmp.cmd("job-complete", id="j")           # once it goes on
        assert m.qmp.cmd("query-jobs")[0]["status"] == "standby"
        m.qmp.cmd("job-resume", id="j")
        assert m.qmp.wait_event("BLOCK_JOB_PENDING")["data"]["id"] == "j"
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("job-dismiss", id="j")
        assert "in state 'pending' cannot accept command verb 'dismiss'" in str(e.value)
        m.qmp.cmd("job-finalize", id="j")
        wait_job(m, "j")
        assert m.qmp.cmd("query-jobs") == [{"id": "j", "type": "mirror", "status": "concluded", "current-progress": 8 * MIB, "total-progress": 8 * MIB}]
        m.qmp.cmd("job-dismiss", id="j")
        assert m.qmp.cmd("query-jobs") == []
        assert statuses(m, "j") == ["created", "running", "paused", "running", "ready", "standby", "ready", "waiting", "pending", "concluded", "null"]
        for bad in ({"device": "s", "target": "s"}, {"device": "s", "target": "nothing"}):
            with pytest.raises(QmpError):
                m.qmp.cmd("blockdev-mirror", sync="full", job_id="k", **bad)
        create(tmp_path / "short", "4M")
        nodes = m.qmp.cmd("query-named-block-nodes")
        for command in ("drive-mirror", "drive-backup"):
            for target in ("short", "missing"):
                with pytest.raises(QmpError):
                    m.qmp.cmd(command, device="s", job_id="k", target=str(tmp_path / target), sync="full", mode="existing", format="qcow2")
        assert m.qmp.cmd("query-named-block-nodes") == nodes
    assert content(out) == content(src)


@pytest.mark.parametrize("seed", range(2))
def test_jobs_that_are_cancelled_or_killed_at_any_moment(tmp_path, seed):
    """Whatever the moment: every image is whole, and the guest's view is what it was."""
    rnd = random.Random(seed)
    paths = chain(tmp_path, 3)
    want = content(paths[2])
    for kill in (False, True):
        with NvmeMachine(tmp_path, *drive(paths[2])) as m:
            io = io_of(m)
            for job in rnd.sample(["stream", "commit", "mirror"], 3):
                if job == "stream":
                    m.qmp.cmd("block-stream", device="d", speed=rnd.choice([0, 2 * MIB]))
                elif job == "commit":
                    if m.qmp.cmd("query-block")[0]["inserted"]["backing_file_depth"]:       # no stream came to its end
                        m.qmp.cmd("block-commit", device="d", speed=rnd.choice([0, 2 * MIB]))
                else:
                    m.qmp.cmd("drive-mirror", device="d", target=str(tmp_path / ("m%d%d" % (seed, kill))), sync="full", speed=2 * MIB)
                for _ in range(rnd.randrange(12)):
                    assert read(io, 1, rnd.randrange(1000), 8)
                if kill and rnd.random() < 0.4:
                    break
                try:
                    m.qmp.cmd("job-cancel", id="d")
                except QmpError:
                    pass
                while m.qmp.cmd("query-jobs"):
                    pass
            if not kill:
                m.qmp.cmd("quit")
                m.wait()
        for p in paths:
            repair(p)
            check(p)
        assert content(paths[2]) == want


def throttled_mirror(m):
    """A mirror of 64 MiB that may read 4 KiB a second."""
    m.qmp.cmd("object-add", **{"qom-type": "throttle-group", "id": "g", "limits": {"bps-read": 4096}})
    m.qmp.cmd("blockdev-add", **{"driver": "throttle", "node-name": "s", "throttle-group": "g", "file": {"driver": "null-co", "size": 64 * MIB}})
    m.qmp.cmd("blockdev-add", **{"driver": "null-co", "node-name": "t", "size": 64 * MIB})
    m.qmp.cmd("blockdev-mirror", **{"job-id": "j", "device": "s", "target": "t", "sync": "full"})


def test_the_end_does_not_wait_for_a_limit():
    with Machine("-M", "none") as m:
        throttled_mirror(m)
        m.qmp.cmd("quit")
        m.wait(30)


def test_a_lifted_limit_holds_nobody(tmp_path):
    """What waits already goes on, too; a cancelled job's event has no error."""
    with Machine("-M", "none") as m:
        throttled_mirror(m)
        m.qmp.cmd("block-job-cancel", device="j", force=True)
        m.qmp.cmd("qom-set", path="/objects/g", property="limits", value={"bps-read": 0})
        data = m.qmp.wait_event("BLOCK_JOB_CANCELLED")["data"]
        assert set(data) == {"type", "device", "len", "offset", "speed"}


def test_an_image_is_found_by_what_the_one_above_calls_it(tmp_path):
    (tmp_path / "low").mkdir()
    (tmp_path / "high").mkdir()
    create(tmp_path / "low" / "a", "4M")
    create(tmp_path / "low" / "b", backing="a")
    top = create(tmp_path / "high" / "c", backing="../low/b")
    with Machine("-M", "none", "-blockdev", "qcow2,node-name=t,file.driver=file,file.filename=%s" % top) as m:
        m.qmp.cmd("block-commit", device="t", job_id="j", top="../low/b", base="a")
        wait_job(m, "j")
        assert len([n for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] == "qcow2"]) == 2


def test_errors_by_rules_below_a_mirror(tmp_path):
    """The first request sets a rule in wait for a sector that comes in another state; both ends of a mirror are named as one names them to QEMU."""
    rules, src, dst = tmp_path / "rules", tmp_path / "src", tmp_path / "dst"
    for p in (src, dst):
        p.write_bytes(os.urandom(4 * MIB))
    for event, word in (("read_aio", "read"), ("write_aio", "write")):
        rules.write_text('[inject-error]\nstate = "1"\nevent = "{0}"\nerrno = "5"\nonce = "on"\nsector = "2048"\n'
                         '[set-state]\nstate = "1"\nevent = "{0}"\nnew_state = "2"\n[set-state]\nstate = "2"\nevent = "{0}"\nnew_state = "1"\n'.format(event))
        bad = "blkdebug:%s:%%s" % rules
        source, target = (bad % src, dst) if word == "read" else (src, bad % dst)
        with Machine("-M", "none", "-drive", "if=none,id=d,format=raw,file=%s" % source) as m:
            m.qmp.cmd("drive-mirror", device="d", target=str(target), format="raw", mode="existing", sync="full")
            assert m.qmp.wait_event("BLOCK_JOB_ERROR")["data"]["operation"] == word
            assert wait_job(m, "d")["error"] == "Input/output error"


def mirror_nodes(tmp_path):
    """A qcow2 "n" with a pattern, an empty one "o", and "t", a throttle node over o."""
    src, out = create(tmp_path / "src", "4M"), create(tmp_path / "out", "4M")
    fill(src, (5, 0, MIB))
    node = "qcow2,node-name=%s,file.driver=file,file.filename=%s"
    return ["-object", "throttle-group,id=g", "-blockdev", node % ("n", src), "-blockdev", node % ("o", out), "-blockdev", "throttle,node-name=t,file=o,throttle-group=g"]


def test_a_mirror_into_an_image_under_a_filter(tmp_path):
    """The image gets the backing node; with the end, the filter is in the place of the source, above it."""
    with Machine("-M", "none", *mirror_nodes(tmp_path), "-blockdev", "raw,node-name=user,file=n") as m:
        m.qmp.cmd("blockdev-mirror", device="n", target="t", sync="none", job_id="j")
        wait_job(m, "j", "BLOCK_JOB_READY")
        m.qmp.cmd("job-complete", id="j")
        wait_job(m, "j")
        assert m.qmp.hmp('qemu-io user "read -P 5 0 1M"') == "" and m.qmp.hmp('qemu-io user "read -P 0 1M 3M"') == ""
        m.qmp.cmd("quit")
        assert m.wait() == 0


def test_a_mirror_into_itself_is_refused(tmp_path):
    with Machine("-M", "none", *mirror_nodes(tmp_path)) as m:
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("blockdev-mirror", device="o", target="t", sync="none", job_id="j")
        assert "lies below" in str(e.value)
        m.qmp.cmd("blockdev-del", node_name="t")
        m.qmp.cmd("blockdev-del", node_name="o")


def test_a_mirror_that_was_to_complete_and_is_cancelled_leaves_nothing(tmp_path):
    with Machine("-M", "none", *mirror_nodes(tmp_path)) as m:
        m.qmp.cmd("blockdev-mirror", device="n", target="o", sync="none", job_id="j")
        wait_job(m, "j", "BLOCK_JOB_READY")
        m.qmp.cmd("job-pause", id="j")
        while m.qmp.wait_event("JOB_STATUS_CHANGE")["data"]["status"] != "standby":
            pass
        m.qmp.cmd("job-complete", id="j")
        m.qmp.cmd("block-job-cancel", device="j", force=True)
        m.qmp.wait_event("BLOCK_JOB_CANCELLED")
        m.qmp.cmd("blockdev-del", node_name="n")


def test_a_backup_of_what_a_snapshot_changes_meanwhile(tmp_path):
    """A transaction opens all files first: one whose format was guessed wrong by then is not filled."""
    raw = create(tmp_path / "raw", "1M", fmt="raw")
    with Machine("-M", "none", "-drive", "if=none,id=d,format=raw,file=%s" % raw) as m:
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("transaction", actions=[
                {"type": "blockdev-snapshot-sync", "data": {"device": "d", "snapshot-file": str(tmp_path / "s")}},
                {"type": "drive-backup", "data": {"device": "d", "target": str(tmp_path / "b"), "sync": "top", "job-id": "j"}}])
        assert "is made as raw, but what it is to be is qcow2 by now" in str(e.value)
        assert m.qmp.cmd("query-block")[0]["inserted"]["file"] == str(raw)


def test_a_name_that_another_image_was_put_in_the_place_of(tmp_path):
    """What the header calls the image below is found as that only where it is that image."""
    base, other = create(tmp_path / "base", "1M"), create(tmp_path / "other", "1M")
    top = create(tmp_path / "top", backing="base")
    node = "qcow2,node-name=%s,file.driver=file,file.filename=%s"
    with Machine("-M", "none", "-blockdev", node % ("other", other), "-blockdev", node % ("t", top) + ",backing=other") as m:
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-commit", device="t", job_id="j", base="base")
        assert "'base'" in str(e.value)
    assert base
