# SPDX-License-Identifier: MIT
"""AHCI under Linux: a SATA disk with queued commands and TRIM, a CD drive, on one controller."""
import hashlib
import os

import pytest

import disklab
import guest

MIB = 1 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("ahci"))
    fill = b"".join(b"%015d\n" % i for i in range(65536))
    hd, cd = guest.make_disk(os.path.join(d, "hd"), 32 * MIB, fill), guest.make_disk(os.path.join(d, "cd"), 2 * MIB, fill)
    with guest.Machine("-qmp", "unix:%s/qmp,server=on,wait=off" % d, "-device", "ich9-ahci,id=ahci", "-drive", "file=%s,format=raw,if=none,id=h,discard=unmap" % hd,
                       "-device", "ide-hd,bus=ahci.0,drive=h,serial=SATA01,id=hd", "-drive", "file=%s,format=raw,if=none,id=c,media=cdrom" % cd,
                       "-device", "ide-cd,bus=ahci.2,drive=c", modules=["ahci", "sd_mod", "sr_mod"], root=True) as m:
        m.boot()
        m.run("for i in $(seq 40); do [ -e /dev/sda ] && [ -e /dev/sr0 ] && break; sleep 1; done")
        m.dir = d
        m.q = guest.Qmp(d + "/qmp")
        yield m
        m.q.close()
        m.send("poweroff -f\n")
        assert m.wait(40) == 0


def test_the_disk_and_its_links(lab):
    assert lab.run("cat /sys/block/sda/size") == str(32 * MIB // 512)
    log = lab.run("dmesg")
    assert "SATA link up 6.0 Gbps" in log and "NCQ (depth 32)" in log
    assert lab.run("cat /sys/block/sda/device/queue_depth") in ("31", "32")
    assert int(lab.run("cat /sys/block/sda/queue/discard_max_bytes")) > 0
    assert lab.run("dd if=/dev/sda bs=16 skip=1000 count=1 2>/dev/null") == "%015d" % 1000


def test_writes_reach_the_file(lab):
    lab.run("dd if=/bin/busybox of=/dev/sda bs=4k seek=1024 count=100 conv=fsync 2>/dev/null; blkdiscard -o 16M -l 8M /dev/sda")
    want = lab.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum").split()[0]
    with open(lab.dir + "/hd", "rb") as f:
        f.seek(4 * MIB)
        assert hashlib.sha256(f.read(409600)).hexdigest() == want
        f.seek(16 * MIB)
        assert not any(f.read(8 * MIB))


def test_fio_verifies_what_it_wrote(lab):
    out = lab.run("fio --name=v --filename=/dev/sda --offset=24M --size=4M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 "
                  "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5", 240)
    assert out.splitlines()[-1] == "0"


def test_the_cd(lab):
    disklab.use_cd(lab, "sr0", "Serial ATAPI")
    assert lab.call("dd if=/dev/zero of=/dev/sr0 bs=2048 count=1 conv=fsync")[0] != 0


def test_smart(lab):
    lab.run("smartctl -t short /dev/sda > /dev/null; sleep 1")
    out = lab.run("smartctl -a /dev/sda")
    assert "test result: PASSED" in out and "Total_LBAs_Read" in out and "Short offline       Completed without error" in out, out


def test_no_complaint_in_the_log(lab):
    log = lab.run("dmesg -l emerg,alert,crit,err || true")
    assert "ata" not in log.replace("data", ""), log


def test_a_disk_is_pulled_and_another_plugged(lab):
    """libata does not look at the first change of a link within ten seconds after it set it up: the disk of the start has been there for longer."""
    lab.run("while [ $(cut -d. -f1 /proc/uptime) -lt 30 ]; do sleep 1; done")
    lab.q.cmd("device_del", id="hd")
    lab.q.event("DEVICE_DELETED")
    lab.run("for i in $(seq 60); do [ -e /sys/block/sda ] || break; sleep 0.5; done; [ ! -e /sys/block/sda ]")
    new = guest.make_disk(os.path.join(lab.dir, "new"), 4 * MIB)
    lab.q.cmd("blockdev-add", **{"driver": "raw", "node-name": "new", "file": {"driver": "file", "filename": new}})
    lab.q.cmd("device_add", driver="ide-hd", bus="ahci.0", id="next", drive="new")
    lab.run("for i in $(seq 60); do [ -e /dev/sda ] && break; sleep 0.5; done")
    assert lab.run("cat /sys/block/sda/size") == str(4 * MIB // 512)
    lab.run("dd if=/dev/sda of=/dev/null bs=64k 2>/dev/null")
