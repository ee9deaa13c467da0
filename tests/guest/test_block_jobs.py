# SPDX-License-Identifier: MIT
"""Block jobs under a guest that writes all the time: what it wrote is what the images hold."""
import hashlib
import os
import shutil
import subprocess

import pytest

import guest

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-utils")
SIZE = 64 << 20
WRITER = ("touch /go; (i=0; while [ -e /go ]; do i=$((i + 1)); dd if=/dev/urandom of=/dev/vda bs=16k count=3 seek=$((i * 7919 % 4000)) conv=notrunc,fsync"
          " 2>/dev/null || touch /failed; done; echo $i > /wrote) &")


def digest(path):
    flat = path + ".flat"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, flat], check=True, timeout=60)
    with open(flat, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def test_a_disk_that_is_written_goes_through_every_job(tmp_path):
    base, top, copy, kept = (str(tmp_path / n) for n in ("base", "top", "copy", "kept"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, str(SIZE)], check=True)
    with guest.Machine("-smp", "2", "-qmp", "unix:%s/qmp,server=on,wait=off" % tmp_path, "-object", "iothread,id=t",
                       "-drive", "file=%s,format=qcow2,if=none,id=d" % base, "-device", "virtio-blk-pci,drive=d,iothread=t", modules=["virtio_blk"]) as m:
        m.boot()
        q = guest.Qmp("%s/qmp" % tmp_path)
        m.run(WRITER)

        def job(command, ready=False, **arguments):
            q.cmd(command, device="d", **arguments)
            if ready:
                q.event("BLOCK_JOB_READY")
                q.cmd("job-complete", id="d")
            assert "error" not in q.event("BLOCK_JOB_COMPLETED")["data"]

        q.cmd("blockdev-snapshot-sync", device="d", snapshot_file=top)
        m.run("sleep 0.3")
        job("block-commit", ready=True)
        q.cmd("blockdev-snapshot-sync", device="d", snapshot_file=top + "2")
        m.run("sleep 0.3")
        job("block-stream")
        job("drive-backup", target=kept, sync="full", format="qcow2")
        job("drive-mirror", ready=True, target=copy, sync="full", copy_mode="write-blocking", format="qcow2")
        m.run("rm /go; while [ ! -e /wrote ]; do sleep 0.1; done; sync; echo 3 > /proc/sys/vm/drop_caches")
        assert int(m.run("cat /wrote")) > 3 and m.call("[ -e /failed ]")[0]
        seen = m.run("sha256sum /dev/vda").split()[0]
        assert q.cmd("query-block")[0]["inserted"]["file"] == copy
        q.cmd("quit")
        m.wait(20)
    for path in (base, top + "2", copy, kept):
        subprocess.run(["qemu-img", "check", "-q", path], check=True)
    assert digest(copy) == seen
    assert os.path.getsize(kept) > 0
