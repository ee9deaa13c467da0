# SPDX-License-Identifier: MIT
"""qcow2 images as disks of a machine: -drive, -blockdev, overlays, exports, and a disk of the host that is full."""
import os
import shutil
import subprocess

import pytest

from lib.images import IMG, MIB, repair
from lib.machine import Machine, QmpError, run
from lib.nvme import NvmeMachine, read, write


def img(*args, ok=0):
    p = subprocess.run([IMG, *map(str, args)], capture_output=True, text=True, timeout=60, check=False)
    assert p.returncode == ok, p.stderr
    return p.stdout


def enable(m):
    n = m.nvme()
    n.enable()
    return n.io_queue()


@pytest.mark.parametrize("kind", ["", "cluster_size=512", "extended_l2=on"])
def test_a_disk_in_an_image(tmp_path, kind):
    q = tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", *(["-o", kind] if kind else []), q, "16M")
    for again in range(2):
        with NvmeMachine(tmp_path, "-drive", "file=%s,format=qcow2,if=none,id=d" % q, "-device", "nvme,drive=d,serial=S,addr=1") as m:
            io = enable(m)
            if again:
                assert read(io, 1, 100, 8) == b"q" * 4096
            else:
                assert write(io, 1, 100, b"q" * 4096).status == 0
                assert read(io, 1, 99, 1) == bytes(512)
                assert io.run(0x00, 1).status == 0          # flush
            block = m.qmp.cmd("query-block")
            assert block[0]["inserted"]["drv"] == "qcow2" and block[0]["inserted"]["file"] == str(q)
            if again:
                m.qmp.cmd("quit")
                m.wait()
        # the first machine was killed: what was flushed is there, and nothing is broken
        subprocess.run([IMG, "check", "-q", str(q)], check=True) if again else repair(q, IMG)


def test_a_snapshot_drive_leaves_the_image_alone(tmp_path):
    q = tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", q, "16M")
    before = q.read_bytes()
    with NvmeMachine(tmp_path, "-snapshot", "-drive", "file=%s,format=qcow2,if=none,id=d" % q, "-device", "nvme,drive=d,serial=S,addr=1") as m:
        io = enable(m)
        assert write(io, 1, 0, b"x" * 4096).status == 0
        assert read(io, 1, 0, 8) == b"x" * 4096
    assert q.read_bytes() == before


def test_a_raw_disk_is_never_taken_for_an_image(tmp_path):
    secret, disk = tmp_path / "secret", tmp_path / "disk"
    secret.write_bytes(b"s" * 65536)
    img("create", "-f", "qcow2", "-b", secret, "-F", "raw", disk, "64k")
    status, _, text = run("-M", "virt", "-drive", "file=%s,if=none,id=d" % disk)
    assert status == 1 and "no format is given" in text
    with NvmeMachine(tmp_path, "-drive", "file=%s,format=raw,if=none,id=d" % disk, "-device", "nvme,drive=d,serial=S,addr=1") as m:
        assert read(enable(m), 1, 0, 1)[:4] == b"QFI\xfb"


def test_chains_by_qmp(tmp_path):
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    img("create", "-f", "qcow2", base, "8M")
    img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top)
    with Machine("-M", "none") as m:
        m.qmp.cmd("blockdev-add", driver="qcow2", **{"node-name": "t", "file": {"driver": "file", "filename": str(top)}})
        files = sorted(n["file"] for n in m.qmp.cmd("query-named-block-nodes") if n["drv"] == "qcow2")
        assert files == [str(base), str(top)]
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("blockdev-add", driver="qcow2", **{"node-name": "u", "file": {"driver": "file", "filename": str(top)}})
        assert "in use" in str(e.value)
        m.qmp.cmd("block_resize", **{"node-name": "t", "size": 32 * MIB})
        m.qmp.cmd("blockdev-del", **{"node-name": "t"})
        assert not m.qmp.cmd("query-named-block-nodes")
    assert '"virtual-size": %d' % (32 * MIB) in img("info", "--output=json", top)


@pytest.mark.skipif(not shutil.which("nbdinfo"), reason="no nbdinfo")
def test_exports_by_qmp(tmp_path):
    q, sock = tmp_path / "a.qcow2", str(tmp_path / "s")
    img("create", "-f", "qcow2", q, "8M")
    with Machine("-M", "none", "-blockdev", "qcow2,node-name=t,file.driver=file,file.filename=%s" % q) as m:
        with pytest.raises(QmpError):
            m.qmp.cmd("nbd-server-add", device="t")
        m.qmp.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": sock}})
        m.qmp.cmd("nbd-server-add", device="t", writable=True)
        m.qmp.cmd("block-export-add", type="nbd", id="second", **{"node-name": "t", "name": "again"})
        assert [x["id"] for x in m.qmp.cmd("query-block-exports")] == ["t", "second"]
        assert subprocess.run(["nbdinfo", "--size", "nbd+unix:///t?socket=%s" % sock], capture_output=True, text=True, check=True).stdout == "%d\n" % (8 * MIB)
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("blockdev-del", **{"node-name": "t"})
        assert "export" in str(e.value)
        m.qmp.cmd("block-export-del", id="second")
        m.qmp.wait_event("BLOCK_EXPORT_DELETED")
        m.qmp.cmd("nbd-server-remove", name="t")
        m.qmp.cmd("blockdev-del", **{"node-name": "t"})
        m.qmp.cmd("nbd-server-stop")
    assert not os.path.exists(sock)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_full_disk_is_an_error_of_the_guests(tmp_path, fmt):
    """The guest's write fails, the machine lives, the message names the file; room makes it work again."""
    mnt = tmp_path / "m"
    mnt.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", str(mnt)], check=False).returncode:
        pytest.skip("no mount here")
    try:
        img("create", "-f", fmt, mnt / "disk", "16M")
        (mnt / "ballast").write_bytes(b"b" * 400 * 1024)
        m = NvmeMachine(tmp_path, "-drive", "file=%s,format=%s,if=none,id=d,werror=report" % (mnt / "disk", fmt), "-device", "nvme,drive=d,serial=S,addr=1")
        with m:
            io = enable(m)
            results = [write(io, 1, i * 128, b"w" * 4096 * 16).status for i in range(16)]
            assert results[0] == 0 and any(results)
            event = m.qmp.wait_event("BLOCK_IO_ERROR")["data"]
            assert event["nospace"] and event["operation"] == "write" and event["action"] == "report"
            assert m.qmp.cmd("query-status")["running"]
            good = results.index(0)
            assert read(io, 1, good * 128, 8) == b"w" * 4096
            os.unlink(mnt / "ballast")
            assert write(io, 1, 0, b"v" * 4096).status == 0
        assert str(mnt / "disk") in m.output and "No space left" in m.output
        if fmt == "qcow2":
            img("check", "-r", "leaks", mnt / "disk")
    finally:
        subprocess.run(["umount", "-l", str(mnt)], check=True)


def test_a_live_snapshot_moves_the_device(tmp_path):
    base, one, two = tmp_path / "base.qcow2", tmp_path / "one.qcow2", tmp_path / "two.qcow2"
    img("create", "-f", "qcow2", base, "16M")
    with NvmeMachine(tmp_path, "-drive", "file=%s,format=qcow2,if=none,id=d" % base, "-device", "nvme,drive=d,serial=S,addr=1") as m:
        io = enable(m)
        assert write(io, 1, 0, b"a" * 4096).status == 0
        m.qmp.cmd("blockdev-snapshot-sync", device="d", **{"snapshot-file": str(one)})
        assert write(io, 1, 4, b"b" * 2048).status == 0
        assert read(io, 1, 0, 8) == b"a" * 2048 + b"b" * 2048
        img("create", "-f", "qcow2", "-b", one, "-F", "qcow2", two)
        m.qmp.cmd("blockdev-add", driver="qcow2", **{"node-name": "top", "backing": None, "file": {"driver": "file", "filename": str(two)}})
        with pytest.raises(QmpError):
            m.qmp.cmd("blockdev-snapshot", node="top", overlay="d")
        m.qmp.cmd("blockdev-snapshot", node="snapshot0", overlay="top")
        assert write(io, 1, 6, b"c" * 1024).status == 0
        assert read(io, 1, 0, 8) == b"a" * 2048 + b"b" * 1024 + b"c" * 1024
        block = m.qmp.cmd("query-block")[0]
        assert block["device"] == "d" and block["inserted"]["node-name"] == "top" and block["inserted"]["backing_file_depth"] == 2
        with pytest.raises(QmpError):
            m.qmp.cmd("blockdev-snapshot-sync", device="d", **{"snapshot-file": str(one)})        # it exists
        m.qmp.cmd("quit")
        m.wait()
    for path, want in ((base, b"a" * 4096), (one, b"a" * 2048 + b"b" * 2048), (two, b"a" * 2048 + b"b" * 1024 + b"c" * 1024)):
        img("check", path)
        img("dd", "-f", "qcow2", "bs=4096", "count=1", "if=%s" % path, "of=%s.raw" % path)
        assert (tmp_path / (path.name + ".raw")).read_bytes() == want
