# SPDX-License-Identifier: MIT
"""Exports as files (FUSE): the system's own tools and QEMU's work on the file."""
import contextlib
import filecmp
import json
import os
import shutil
import stat
import subprocess
import threading
import time

import pytest

from imglib import img, qimg, run, sparse_file
from lib.nbd import Client, Cmd, CmdFlag
from servelib import QmpError, Storage

MIB = 1 << 20


def refused():
    """Why there is no FUSE here, or None."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        return "/dev/fuse: %s" % e.strerror
    return None


pytestmark = pytest.mark.skipif(refused() is not None, reason=str(refused()))


def image(tmp_path, fmt="qcow2", size="64M"):
    img("create", "-f", fmt, tmp_path / "a", size)
    return "%s,node-name=n,discard=unmap,file.driver=file,file.filename=%s,file.discard=unmap" % (fmt, tmp_path / "a")


@pytest.fixture
def mnt(tmp_path):
    """A file to mount on; whatever a failed test left mounted goes."""
    p = tmp_path / "mnt"
    p.write_text("below")
    yield str(p)
    subprocess.run(["umount", "-l", str(p)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def mounted(path):
    with open("/proc/mounts") as f:
        return any(line.split()[1] == path for line in f)


@pytest.mark.parametrize("thread", [False, True])
def test_a_file_system_in_the_file(tmp_path, mnt, thread):
    more = {"iothread": "t"} if thread else {}
    with Storage(tmp_path, "--object", "iothread,id=t", "--blockdev", image(tmp_path)) as s:
        s.export("fuse", mountpoint=mnt, writable=True, **more)
        assert os.stat(mnt).st_size == 64 * MIB and stat.S_IMODE(os.stat(mnt).st_mode) == 0o600
        run("mkfs.ext4", "-q", mnt)
        run("fsck.ext4", "-f", "-n", mnt)
        sparse_file(tmp_path / "r", 32 * MIB)
        run("qemu-img", "convert", "-n", "-O", "raw", tmp_path / "r", mnt) if shutil.which("qemu-img") else shutil.copyfile(tmp_path / "r", mnt)
        run("cmp", "-n", 32 * MIB, tmp_path / "r", mnt)
        assert s.qmp.cmd("query-block-exports") == [{"id": "e", "type": "fuse", "node-name": "n", "shutting-down": False}]
    assert open(mnt).read() == "below"
    img("check", tmp_path / "a")
    img("convert", "-O", "raw", tmp_path / "a", tmp_path / "back")
    run("cmp", "-n", 32 * MIB, tmp_path / "r", tmp_path / "back")


@pytest.mark.skipif(not shutil.which("fio"), reason="no fio")
def test_fio_finds_what_it_wrote(tmp_path, mnt):
    with Storage(tmp_path, "--object", "iothread,id=t", "--blockdev", image(tmp_path)) as s:
        s.export("fuse", mountpoint=mnt, writable=True, iothread="t")
        run("fio", "--name=a", "--filename=" + mnt, "--rw=randrw", "--bsrange=512-64k", "--bs_unaligned", "--size=32m", "--iodepth=16", "--ioengine=libaio",
            "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--number_ios=3000", "--fsync=100", cwd=tmp_path)
    img("check", tmp_path / "a")


def test_size_holes_and_zeroes(tmp_path, mnt):
    with Storage(tmp_path, "--blockdev", image(tmp_path)) as s:
        s.export("fuse", mountpoint=mnt, writable=True, growable=True)
        fd = os.open(mnt, os.O_RDWR)
        os.pwrite(fd, b"x" * 3 * MIB, 4 * MIB)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * MIB and os.lseek(fd, 4 * MIB, os.SEEK_HOLE) == 7 * MIB
        with pytest.raises(OSError):
            os.lseek(fd, 8 * MIB, os.SEEK_DATA)
        run("fallocate", "-p", "-o", 5 * MIB, "-l", MIB, mnt)
        assert os.lseek(fd, 4 * MIB, os.SEEK_HOLE) == 5 * MIB and os.pread(fd, MIB, 5 * MIB) == bytes(MIB)
        run("fallocate", "-z", "-o", 6 * MIB, "-l", 1000, mnt)
        assert os.pread(fd, 2000, 6 * MIB) == bytes(1000) + b"x" * 1000
        os.truncate(mnt, 10 * MIB)
        assert os.stat(mnt).st_size == 10 * MIB
        os.pwrite(fd, b"y" * 5000, 12 * MIB)            # beyond the end: the image grows
        assert os.stat(mnt).st_size == 12 * MIB + 5120 and os.pread(fd, 10, 12 * MIB - 5) == bytes(5) + b"y" * 5
        run("fallocate", "-o", 20 * MIB, "-l", MIB, mnt)
        assert os.stat(mnt).st_size == 21 * MIB
        os.close(fd)
        assert s.qmp.cmd("query-named-block-nodes")[0]["image"]["virtual-size"] == 21 * MIB
    img("check", tmp_path / "a")
    assert qimg("info", tmp_path / "a").stdout.count("21 MiB") == 1 if shutil.which("qemu-img") else True


def test_what_may_not_be_done(tmp_path, mnt):
    with Storage(tmp_path, "--blockdev", image(tmp_path, "raw", "1M")) as s:
        s.export("fuse", mountpoint=mnt)
        assert stat.S_IMODE(os.stat(mnt).st_mode) == 0o400
        fd = os.open(mnt, os.O_RDWR)        # root may open it; the export is read-only all the same
        for fn in (lambda: os.pwrite(fd, b"x", 0), lambda: os.truncate(mnt, 512), lambda: os.chmod(mnt, 0o600), lambda: os.posix_fallocate(fd, 0, 2 * MIB)):
            with pytest.raises(OSError):
                fn()
        os.close(fd)
        s.qmp.cmd("block-export-del", id="e")
        s.export("fuse", mountpoint=mnt, writable=True)
        with open(mnt, "r+b", buffering=0) as f:
            f.seek(MIB - 100)
            assert f.write(b"z" * 1000) == 100          # not growable: as on a device
            with pytest.raises(OSError):
                f.write(b"z")
        assert os.stat(mnt).st_size == MIB
        os.chmod(mnt, 0o644)
        assert stat.S_IMODE(os.stat(mnt).st_mode) == 0o644


def test_mistakes_are_named(tmp_path, mnt):
    with Storage(tmp_path, "--blockdev", image(tmp_path)) as s:
        for opts, says in (({"mountpoint": str(tmp_path / "none")}, "No such file"), ({"mountpoint": str(tmp_path)}, "no regular file"),
                           ({"mountpoint": mnt, "growable": True}, "writable=on"), ({}, "mountpoint"), ({"mountpoint": mnt, "grow": True}, "growable"),
                           ({"mountpoint": mnt, "node": "x"}, "'x'")):
            with pytest.raises(QmpError) as e:
                s.export("fuse", **opts)
            assert says in str(e.value)
        assert s.qmp.cmd("query-block-exports") == [] and not mounted(mnt)
        s.qmp.cmd("blockdev-del", node_name="n")


def test_an_unmounted_file_is_no_export(tmp_path, mnt):
    with Storage(tmp_path, "--blockdev", image(tmp_path)) as s:
        s.export("fuse", mountpoint=mnt)
        run("umount", mnt)
        s.qmp.wait_event("BLOCK_EXPORT_DELETED")
        assert s.qmp.cmd("query-block-exports") == []
        s.export("fuse", mountpoint=mnt)
        assert os.stat(mnt).st_size == 64 * MIB


def test_deleted_under_load(tmp_path, mnt):
    """Readers and writers get errors, or are done; the process goes on, and the node is free."""
    with Storage(tmp_path, "--object", "iothread,id=t", "--blockdev", image(tmp_path)) as s:
        for _ in range(5):
            s.export("fuse", mountpoint=mnt, writable=True, iothread="t")
            stop = threading.Event()

            def load(seed):
                try:
                    fd = os.open(mnt, os.O_RDWR)
                except OSError:
                    return
                try:
                    while not stop.is_set():
                        os.pwrite(fd, bytes([seed]) * 8192, seed * 65536)
                        os.pread(fd, 65536, seed * 65536)
                except OSError:
                    pass
                finally:
                    with contextlib.suppress(OSError):
                        os.close(fd)

            threads = [threading.Thread(target=load, args=(i,)) for i in range(1, 5)]
            for t in threads:
                t.start()
            time.sleep(0.1)
            s.qmp.cmd("block-export-del", id="e", mode="hard")
            s.qmp.wait_event("BLOCK_EXPORT_DELETED")
            stop.set()
            for t in threads:
                t.join(20)
                assert not t.is_alive()
        s.qmp.cmd("blockdev-del", node_name="n")
    img("check", tmp_path / "a")
    assert filecmp.cmp(mnt, mnt, shallow=False) and open(mnt).read() == "below"


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("op,fails,later", [(Cmd.FLUSH, "flush", 5), (Cmd.WRITE, "flush", 5), (Cmd.WRITE, "write", 0)])
def test_a_flush_that_failed_is_not_made_good_by_the_next(tmp_path, mnt, direct, op, fails, later):
    """
    The file system fails one fdatasync, by itself or of a write through the cache. What was in the page cache may be gone then, whatever
    the next one says. Not so where the write itself fails.
    """
    img("create", "-f", "raw", tmp_path / "a", "1M")
    rules = {"driver": "faults", "node-name": "n", "file": {"driver": "file", "filename": str(tmp_path / "a")},
             "rules": [{"op": fails, "errno": "EIO", "count": 1 if fails == "flush" or direct else 2}]}
    with Storage(tmp_path, "--blockdev", json.dumps(rules), name="below") as below:
        below.export("fuse", mountpoint=mnt, writable=True)
        with Storage(tmp_path, "--blockdev", "file,node-name=m,filename=%s,locking=off,cache.direct=%s" % (mnt, "on" if direct else "off"),
                     "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "s"), name="above") as above:
            above.export("nbd", node="m", writable=True)
            with Client(tmp_path / "s") as c:
                c.go("m")
                first = c.ask(op, 0, 4096, CmdFlag.FUA, bytes(4096)) if op == Cmd.WRITE else c.ask(op, 0, 0)
                assert first == 5
                assert [c.ask(Cmd.FLUSH, 0, 0) for _ in range(2)] == [0 if direct else later] * 2
