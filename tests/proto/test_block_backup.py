# SPDX-License-Identifier: MIT
"""Backups, dirty bitmaps (kept in images, too), transactions. qemu-img is the judge of the images."""
import json
import shutil

import pytest

from lib.images import IMG, MIB, check, content, create, drive, fill, io_of, node, repair, tool, wait_job
from lib.machine import Machine, QmpError
from lib.nvme import NvmeMachine, read, write

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="no qemu-utils")


def bitmaps(m, name):
    return {b["name"]: b for b in node(m, name).get("dirty-bitmaps", [])}


def blockdev(name, path, more=""):
    return "-blockdev", "qcow2,node-name=%s,file.driver=file,file.filename=%s%s" % (name, path, more)


@pytest.mark.parametrize("how", ["drive", "blockdev", "compress", "compress-2M", "slow"])
def test_a_backup_is_what_the_disk_held_at_the_moment(tmp_path, how):
    src, out = create(tmp_path / "src", "8M"), tmp_path / "out"
    fill(src, (1, 0, 3 * MIB), (2, 5 * MIB, MIB))
    want = content(src)
    more = () if how == "drive" else blockdev("o", create(out, "8M"))
    if how == "compress-2M":            # clusters that are more than one piece of copying
        tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", out, "8M")
    with NvmeMachine(tmp_path, *drive(src), *more) as m:
        io = io_of(m)
        if how == "drive":
            m.qmp.cmd("drive-backup", device="d", target=str(out), sync="full")
        else:
            m.qmp.cmd("blockdev-backup", device="d", target="o", sync="full", job_id="d", compress=how.startswith("compress"), speed=1 if how == "slow" else 0)
        for at in (0, 2000, 6000, 10240, 16000):
            assert write(io, 1, at, b"new!" * 128).status == 0
        if how == "slow":
            m.qmp.cmd("block-job-set-speed", device="d", speed=0)
        data = wait_job(m, "d")
        assert data["type"] == "backup" and "error" not in data
        assert read(io, 1, 2000, 1) == b"new!" * 128
        m.qmp.cmd("quit")
        m.wait()
    check(out)
    assert content(out) == want
    if how.startswith("compress"):
        assert any(x.get("compressed") for x in json.loads(tool(IMG, "map", "-f", "qcow2", "--output=json", out)))


def test_incremental_backups(tmp_path):
    src = create(tmp_path / "src", "8M")
    fill(src, (1, 0, 8 * MIB))
    with NvmeMachine(tmp_path, *drive(src)) as m:
        io = io_of(m)
        m.qmp.cmd("transaction", actions=[
            {"type": "block-dirty-bitmap-add", "data": {"node": "d", "name": "b", "granularity": 65536}},
            {"type": "drive-backup", "data": {"device": "d", "target": str(tmp_path / "b0"), "sync": "full"}}])
        wait_job(m, "d")
        for i in (1, 2):
            for at in (i * 1000, i * 2000):
                assert write(io, 1, at, bytes([i + 10]) * 4096).status == 0
            assert bitmaps(m, "d")["b"]["count"] == 2 * 65536
            want = content_of_guest(io)
            create(tmp_path / ("b%d" % i), None, tmp_path / ("b%d" % (i - 1)))
            m.qmp.cmd("drive-backup", device="d", target=str(tmp_path / ("b%d" % i)), sync="incremental", bitmap="b", mode="existing", format="qcow2")
            assert "error" not in wait_job(m, "d")
            assert bitmaps(m, "d")["b"]["count"] == 0 and not bitmaps(m, "d")["b"]["busy"]
            assert content(tmp_path / ("b%d" % i)) == want
        # one that is cancelled gives the bits back; what is written meanwhile stays as well
        for at in (0, 2000):                    # the second piece waits for its time
            assert write(io, 1, at, b"x" * 512).status == 0
        m.qmp.cmd("drive-backup", device="d", target=str(tmp_path / "b3"), sync="bitmap", bitmap_mode="on-success", bitmap="b", speed=1)
        assert write(io, 1, 8000, b"y" * 512).status == 0
        assert bitmaps(m, "d")["b"]["busy"]
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-dirty-bitmap-clear", node="d", name="b")
        assert "in use by another operation" in str(e.value)
        m.qmp.cmd("block-job-cancel", device="d", force=True)
        m.qmp.wait_event("BLOCK_JOB_CANCELLED")
        assert bitmaps(m, "d")["b"]["count"] == 3 * 65536
        for bad in ({"sync": "incremental"}, {"sync": "none", "bitmap": "b"}, {"sync": "full", "bitmap": "b", "bitmap-mode": "never"}):
            with pytest.raises(QmpError):
                m.qmp.cmd("drive-backup", device="d", target=str(tmp_path / "bad"), **bad)


def content_of_guest(io):
    return b"".join(read(io, 1, at, 64) for at in range(0, 16384, 64))


def test_fleecing_shows_a_moment_over_nbd(tmp_path):
    src, sock = create(tmp_path / "src", "8M"), tmp_path / "s"
    fill(src, (1, 0, 4 * MIB))
    want = content(src)
    with NvmeMachine(tmp_path, *drive(src)) as m:
        io = io_of(m)
        create(tmp_path / "tmp", "8M")
        m.qmp.cmd("blockdev-add", driver="qcow2", **{"node-name": "tmp", "backing": "d", "file": {"driver": "file", "filename": str(tmp_path / "tmp")}})
        m.qmp.cmd("blockdev-backup", device="d", target="tmp", sync="none", job_id="j")
        m.qmp.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": str(sock)}})
        m.qmp.cmd("block-export-add", type="nbd", id="e", **{"node-name": "tmp", "name": "moment"})
        for at in (0, 100, 9000):
            assert write(io, 1, at, b"z" * 4096).status == 0
        tool("qemu-img", "convert", "-f", "raw", "-O", "raw", "nbd+unix:///moment?socket=%s" % sock, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == want
        m.qmp.cmd("block-export-del", id="e", mode="hard")
        m.qmp.cmd("block-job-cancel", device="j")
        assert set(wait_job(m, "j", "BLOCK_JOB_CANCELLED")) == {"type", "device", "len", "offset", "speed"}
        m.qmp.cmd("blockdev-del", node_name="tmp")


def test_a_filter_that_keeps_what_is_overwritten(tmp_path):
    src = create(tmp_path / "src", "8M")
    fill(src, (1, 0, 4 * MIB))
    want = content(src)
    args = list(drive(src))
    args[-1] += ",id=n0"
    create(tmp_path / "tmp", "8M")
    with NvmeMachine(tmp_path, *args) as m:
        io = io_of(m)
        m.qmp.cmd("blockdev-add", driver="qcow2", **{"node-name": "tmp", "backing": "d", "file": {"driver": "file", "filename": str(tmp_path / "tmp")}})
        m.qmp.cmd("blockdev-add", driver="copy-before-write", node_name="f", file="d", target="tmp")
        m.qmp.cmd("qom-set", path="/machine/peripheral/n0", property="drive", value="f")
        assert m.qmp.cmd("query-block")[0]["inserted"]["node-name"] == "f"
        for at in (0, 100, 9000):
            assert write(io, 1, at, b"z" * 4096).status == 0
        export(m, tmp_path, "tmp")
        tool("qemu-img", "convert", "-f", "raw", "-O", "raw", nbd(tmp_path, "tmp"), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == want
        m.qmp.cmd("block-export-del", id="tmp", mode="hard")
        m.qmp.wait_event("BLOCK_EXPORT_DELETED")
        with pytest.raises(QmpError):
            m.qmp.cmd("blockdev-del", node_name="f")
        m.qmp.cmd("qom-set", path="/machine/peripheral/n0", property="drive", value="d")
        m.qmp.cmd("blockdev-del", node_name="f")
        m.qmp.cmd("blockdev-del", node_name="tmp")
        assert read(io, 1, 9000, 1) == b"z" * 512
        m.qmp.cmd("quit")
        m.wait()
    check(src)


def test_a_target_that_fails_ends_the_job_and_not_the_guest(tmp_path):
    src, out = create(tmp_path / "src", "8M"), create(tmp_path / "out", "8M", fmt="raw")
    fill(src, (1, 0, 8 * MIB))
    with NvmeMachine(tmp_path, *drive(src), "-blockdev", json.dumps({"driver": "faults", "node-name": "o", "file": {"driver": "file", "filename": str(out)},
                                                                  "rules": [{"op": "write", "errno": "EIO"}]})) as m:
        io = io_of(m)
        m.qmp.cmd("blockdev-backup", device="d", target="o", sync="full", job_id="d", speed=1)
        assert write(io, 1, 9000, b"z" * 4096).status == 0
        m.qmp.cmd("block-job-set-speed", device="d", speed=0)
        data = wait_job(m, "d")
        assert "Input/output error" in data["error"]
        assert write(io, 1, 12000, b"z" * 4096).status == 0
        # with another policy the job stops, and goes on when it is told
        m.qmp.cmd("blockdev-backup", device="d", target="o", sync="full", job_id="k", on_target_error="stop")
        assert m.qmp.wait_event("BLOCK_JOB_ERROR")["data"]["operation"] == "write"


def test_bitmaps_that_stay_in_the_image(tmp_path):
    a = create(tmp_path / "a", "64M")
    with Machine("-M", "none", *blockdev("t", a)) as m:
        for name, more in (("one", {}), ("off", {"disabled": True}), ("fleeting", {"persistent": False})):
            m.qmp.cmd("block-dirty-bitmap-add", node="t", name=name, **{"persistent": True, **more})
        for bad in ({"name": "one"}, {"name": ""}, {"name": "x" * 1024}, {"name": "g", "granularity": 1000}):
            with pytest.raises(QmpError):
                m.qmp.cmd("block-dirty-bitmap-add", node="t", **bad)
        m.qmp.cmd("blockdev-add", driver="null-co", node_name="n", size=64 * MIB)
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-dirty-bitmap-add", node="n", name="p", persistent=True)
        assert "Cannot store dirty bitmaps" in str(e.value)
        export(m, tmp_path, "t", writable=True)
        tool("qemu-io", "-f", "raw", "-c", "write 1M 128k", "-c", "write 30M 1", nbd(tmp_path, "t"))
        assert bitmaps(m, "t")["one"] == {"name": "one", "count": 3 * 65536, "granularity": 65536, "recording": True, "busy": False, "persistent": True}
        assert bitmaps(m, "t")["off"]["count"] == 0 and bitmaps(m, "t")["fleeting"]["count"] == 3 * 65536
        m.qmp.cmd("block-dirty-bitmap-merge", node="t", target="off", bitmaps=["one", {"node": "t", "name": "fleeting"}])
        m.qmp.cmd("quit")
        m.wait()
    check(a)
    info = json.loads(tool("qemu-img", "info", "--output=json", a))["format-specific"]["data"]["bitmaps"]
    assert info == [{"flags": ["auto"], "name": "one", "granularity": 65536}, {"flags": [], "name": "off", "granularity": 65536}]
    assert json.loads(tool(IMG, "info", "--output=json", a))["format-specific"]["data"]["bitmaps"] == info
    with Machine("-M", "none", *blockdev("t", a, ",read-only=on")) as m:      # what records is in memory, what is stored stays
        m.qmp.cmd("block-dirty-bitmap-enable", node="t", name="off")
        m.qmp.cmd("block-dirty-bitmap-disable", node="t", name="one")
        assert [bitmaps(m, "t")[n]["recording"] for n in ("one", "off")] == [False, True]
        with pytest.raises(QmpError, match="'one' is readonly and cannot be modified"):
            m.qmp.cmd("block-dirty-bitmap-clear", node="t", name="one")
    assert json.loads(tool(IMG, "info", "--output=json", a))["format-specific"]["data"]["bitmaps"] == info
    # the other way round: bitmaps that qemu-img made, and then one program's end in the middle
    tool("qemu-img", "bitmap", "--add", "-g", "4k", a, "theirs")
    fill(a, (5, 8 * MIB, 4096))
    with Machine("-M", "none", *blockdev("t", a)) as m:
        got = bitmaps(m, "t")
        assert {k: v["count"] for k, v in got.items()} == {"one": 4 * 65536, "off": 3 * 65536, "theirs": 4096}
        assert got["one"]["recording"] and not got["off"]["recording"]
        m.qmp.cmd("block-dirty-bitmap-remove", node="t", name="off")
        m.qmp.cmd("block_resize", node_name="t", size=80 * MIB)
        m.process.kill()
        m.process.wait()
    repair(a)
    with Machine("-M", "none", *blockdev("t", a)) as m:
        got = bitmaps(m, "t")
        assert sorted(got) == ["one", "theirs"] and all(b["inconsistent"] for b in got.values())
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("block-dirty-bitmap-clear", node="t", name="one")
        assert "inconsistent" in str(e.value)
        m.qmp.cmd("block-dirty-bitmap-remove", node="t", name="one")
        m.qmp.cmd("blockdev-del", node_name="t")
        m.qmp.cmd("blockdev-add", driver="qcow2", node_name="t", read_only=True, file={"driver": "file", "filename": str(a)})
        assert list(bitmaps(m, "t")) == ["theirs"]
        with pytest.raises(QmpError):
            m.qmp.cmd("block-dirty-bitmap-remove", node="t", name="theirs")
    check(a)


def export(m, tmp_path, name, **more):
    m.qmp.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": str(tmp_path / "nbd")}})
    m.qmp.cmd("block-export-add", type="nbd", id=name, **{"node-name": name, **more})


def nbd(tmp_path, name):
    return "nbd+unix:///%s?socket=%s" % (name, tmp_path / "nbd")


def test_a_transaction_is_all_or_nothing(tmp_path):
    a, b = create(tmp_path / "a", "8M"), create(tmp_path / "b", "8M")
    with NvmeMachine(tmp_path, *drive(a), *blockdev("t", b)) as m:
        io = io_of(m)
        assert write(io, 1, 0, b"1" * 512).status == 0
        m.qmp.cmd("block-dirty-bitmap-add", node="d", name="m")
        assert write(io, 1, 0, b"2" * 512).status == 0
        before = m.qmp.cmd("query-block"), m.qmp.cmd("query-named-block-nodes")
        actions = [
            {"type": "block-dirty-bitmap-clear", "data": {"node": "d", "name": "m"}},
            {"type": "block-dirty-bitmap-disable", "data": {"node": "d", "name": "m"}},
            {"type": "block-dirty-bitmap-add", "data": {"node": "t", "name": "new"}},
            {"type": "blockdev-snapshot-sync", "data": {"device": "d", "snapshot-file": str(tmp_path / "top"), "snapshot-node-name": "top"}},
            {"type": "blockdev-backup", "data": {"device": "t", "target": "o", "sync": "full", "job-id": "j"}},
        ]
        m.qmp.cmd("blockdev-add", driver="qcow2", node_name="o", file={"driver": "file", "filename": str(create(tmp_path / "o", "8M"))})
        before = m.qmp.cmd("query-block"), m.qmp.cmd("query-named-block-nodes")
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("transaction", actions=actions + [{"type": "abort", "data": {}}])
        assert "aborted" in str(e.value)
        assert (m.qmp.cmd("query-block"), m.qmp.cmd("query-named-block-nodes")) == before and m.qmp.cmd("query-jobs") == []
        assert write(io, 1, 8, b"3" * 512).status == 0
        actions[3]["data"]["mode"] = "existing"
        m.qmp.cmd("transaction", actions=actions)
        wait_job(m, "j")
        assert m.qmp.cmd("query-block")[0]["inserted"]["node-name"] == "top"
        assert bitmaps(m, "d")["m"]["count"] == 0 and not bitmaps(m, "d")["m"]["recording"] and "new" in bitmaps(m, "t")
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("transaction", actions=[{"type": "block-dirty-bitmap-ad", "data": {}}])
        assert "did you mean" in str(e.value) or "block-dirty-bitmap-ad" in str(e.value)
        m.qmp.cmd("quit")
        m.wait()
    for p in (a, b, tmp_path / "top", tmp_path / "o"):
        check(p)


def test_a_bitmap_goes_once_in_a_transaction(tmp_path):
    """What comes after its removal finds it gone; where all is undone, it is there and free."""
    a, o = create(tmp_path / "a", "8M"), create(tmp_path / "o", "8M")
    remove = {"type": "block-dirty-bitmap-remove", "data": {"node": "n", "name": "b"}}
    later = [
        remove,
        {"type": "block-dirty-bitmap-clear", "data": {"node": "n", "name": "b"}},
        {"type": "block-dirty-bitmap-merge", "data": {"node": "n", "target": "c", "bitmaps": ["b"]}},
        {"type": "blockdev-backup", "data": {"device": "n", "target": "o", "sync": "bitmap", "bitmap": "b", "bitmap-mode": "never", "job-id": "j"}},
        {"type": "blockdev-backup", "data": {"device": "n", "target": "o", "sync": "incremental", "bitmap": "b", "job-id": "j"}},
    ]
    with Machine("-M", "none", *blockdev("n", a), *blockdev("o", o)) as m:
        for name in "bc":
            m.qmp.cmd("block-dirty-bitmap-add", node="n", name=name)
        for action in later:
            with pytest.raises(QmpError) as e:
                m.qmp.cmd("transaction", actions=[remove, action])
            assert "'b'" in str(e.value)
            assert not bitmaps(m, "n")["b"]["busy"] and m.qmp.cmd("query-jobs") == []
            m.qmp.cmd("block-dirty-bitmap-clear", node="n", name="b")
        m.qmp.cmd("transaction", actions=[remove])
        assert list(bitmaps(m, "n")) == ["c"]


def test_a_bitmap_that_stays_after_all(tmp_path):
    """The removal of one that was not closed is undone after its image was stored without it: it gets another table."""
    a = create(tmp_path / "a", "8M")
    tool("qemu-img", "bitmap", "--add", a, "b")
    with Machine("-M", "none", *blockdev("n", a)) as m:
        m.qmp.cmd("query-block")
        m.process.kill()
        m.process.wait()
    with Machine("-M", "none", *blockdev("n", a)) as m:
        assert bitmaps(m, "n")["b"]["inconsistent"]
        with pytest.raises(QmpError):
            m.qmp.cmd("transaction", actions=[
                {"type": "block-dirty-bitmap-remove", "data": {"node": "n", "name": "b"}},
                {"type": "blockdev-snapshot-sync", "data": {"node-name": "n", "snapshot-file": str(tmp_path / "o"), "snapshot-node-name": "o"}},
                {"type": "abort", "data": {}}])
        assert bitmaps(m, "n")["b"]["inconsistent"]
        m.qmp.cmd("quit")
        assert m.wait() == 0
    check(a)
    tool("qemu-img", "bitmap", "--remove", a, "b")
    check(a)


def test_jobs_that_end_together(tmp_path):
    args = []
    for i in "ab":
        fill(create(tmp_path / i, "8M"), (1, 0, 8 * MIB))
        args += [*blockdev(i, tmp_path / i), *blockdev("o" + i, create(tmp_path / ("o" + i), "8M"))]
    with Machine("-M", "none", *args) as m:
        def start(speed, **more):
            m.qmp.cmd("transaction", properties={"completion-mode": "grouped"}, actions=[
                {"type": "blockdev-backup", "data": {"device": i, "target": "o" + i, "sync": "full", "job-id": i, "speed": s, **more}}
                for i, s in zip("ab", speed)])
        start((0, 1))
        while m.qmp.cmd("query-jobs")[0]["status"] != "waiting":
            pass
        m.qmp.cmd("job-cancel", id="b")
        gone = sorted(m.qmp.wait_event("BLOCK_JOB_CANCELLED")["data"]["device"] for _ in range(2))
        assert gone == ["a", "b"] and m.qmp.cmd("query-jobs") == []
        start((0, 0), **{"auto-finalize": False})
        for _ in range(2):
            m.qmp.wait_event("BLOCK_JOB_PENDING")
        m.qmp.cmd("job-finalize", id="a")
        assert sorted(m.qmp.wait_event("BLOCK_JOB_COMPLETED")["data"]["device"] for _ in range(2)) == ["a", "b"]
        with pytest.raises(QmpError) as e:          # an action without a job cannot be one of them
            m.qmp.cmd("transaction", properties={"completion-mode": "grouped"},
                      actions=[{"type": "block-dirty-bitmap-add", "data": {"node": "a", "name": "m"}}])
        assert "block-dirty-bitmap-add" in str(e.value) and bitmaps(m, "a") == {}
    for i in "ab":
        assert content(tmp_path / ("o" + i)) == content(tmp_path / i)
