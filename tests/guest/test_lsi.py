# SPDX-License-Identifier: MIT
"""LSI53C895A under Linux's sym53c8xx: SCRIPTS, tagged commands that leave the bus and come back, sense data, resets, a unit that comes later."""
import hashlib
import os

import pytest

import guest

MIB = 1 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("lsi"))
    fill = b"".join(b"%015d\n" % i for i in range(65536))
    hd, cd = guest.make_disk(os.path.join(d, "hd"), 64 * MIB, fill), guest.make_disk(os.path.join(d, "cd"), 2 * MIB, fill)
    # Two harts: on one, Linux completes a command inside the driver's interrupt, which holds the host's lock, and the command that ends while
    # a reset is on its way takes that lock once more (scsi_dec_host_busy()): the guest stands still, as it would on the real adapter.
    with guest.Machine("-smp", "2", "-qmp", "unix:%s/qmp,server=on,wait=off" % d, "-device", "lsi53c895a,id=sym",
                       "-drive", "file=%s,format=raw,if=none,id=h,discard=unmap" % hd, "-device", "scsi-hd,bus=sym.0,drive=h,scsi-id=2,serial=SYM2",
                       "-drive", "file=%s,format=raw,if=none,id=c,media=cdrom" % cd, "-device", "scsi-cd,bus=sym.0,drive=c,scsi-id=4",
                       modules=["sym53c8xx", "sd_mod", "sr_mod"], root=True) as m:
        m.boot()
        m.run("for i in $(seq 60); do [ -e /dev/sda ] && [ -e /dev/sr0 ] && break; sleep 0.5; done")
        m.dir = d
        m.q = guest.Qmp(d + "/qmp")
        yield m
        m.q.close()
        m.send("poweroff -f\n")
        assert m.wait(40) == 0


def test_what_the_driver_finds(lab):
    assert lab.run("ls /sys/bus/scsi/devices | grep ^[0-9]").split() == ["0:0:2:0", "0:0:4:0"]
    assert lab.run("cat /sys/block/sda/size") == str(64 * MIB // 512)
    log = lab.run("dmesg | grep -E 'sym0|scsi'")
    assert "<895a>" in log and "tagged command queuing enabled" in log, log
    assert lab.run("dd if=/dev/sda bs=16 skip=1000 count=1 2>/dev/null") == "%015d" % 1000
    assert lab.run("dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | head -c 16") == "%015d" % 2048


def test_writes_reach_the_file(lab):
    lab.run("mkfs.ext4 -q /dev/sda && mount /dev/sda /mnt && cp /bin/busybox /mnt/b && umount /mnt")
    lab.run("mount /dev/sda /mnt && cmp /bin/busybox /mnt/b && umount /mnt")
    lab.run("dd if=/bin/busybox of=/dev/sda bs=4k seek=15000 count=100 conv=fsync 2>/dev/null; blkdiscard -f -o 48M -l 8M /dev/sda")
    want = lab.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum").split()[0]
    with open(lab.dir + "/hd", "rb") as f:
        f.seek(15000 * 4096)
        assert hashlib.sha256(f.read(409600)).hexdigest() == want


def fio(lab):
    out = lab.run("fio --name=v --filename=/dev/sda --offset=24M --size=4M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 "
                  "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5", 240)
    assert out.splitlines()[-1] == "0"


def test_fio_verifies_what_it_wrote(lab):
    fio(lab)


def test_data_that_ends_early_and_sense_data(lab):
    lab.run("modprobe sg")
    assert "QEMU HARDDISK" in lab.run("sg_inq --len=255 /dev/sda")          # a phase mismatch: the unit has less
    code, out = lab.call("sg_read_long --16 --lba=0 --xfer_len=8 /dev/sda 2>&1")
    assert code != 0 and ("Illegal request" in out or "not supported" in out or "Invalid" in out), out
    assert lab.call("sg_turs /dev/sda")[0] == 0


def test_a_reset_while_it_works(lab):
    """A reset of the bus in the middle of writes that are verified: the driver repeats them, and nothing is lost.

    Of the bus, and with two harts, for Linux 6.12's driver does not survive anything else, here or on the real adapter. Its reset of a target goes
    over the list of busy commands without the lock, from a command that has ended meanwhile into another list (an oops). On one hart a command that
    ends in its interrupt while a reset is under way waits in scsi_dec_host_busy() for the lock that the interrupt holds.
    """
    lab.run("modprobe sg; (sleep 0.3; sg_reset -b /dev/sda) > /dev/null 2>&1 &")
    fio(lab)
    lab.run("wait; sg_turs /dev/sda || sg_turs /dev/sda")
    assert "BUS RESET operation complete" in lab.run("dmesg")


def test_a_reset_of_a_target(lab):
    lab.run("sg_reset -d /dev/sda; sg_turs /dev/sda || sg_turs /dev/sda")
    assert "has been reset" in lab.run("dmesg")
    fio(lab)


def test_a_unit_that_comes_later(lab):
    new = guest.make_disk(os.path.join(lab.dir, "new"), 3 * MIB)
    lab.q.cmd("blockdev-add", **{"driver": "raw", "node-name": "new", "file": {"driver": "file", "filename": new}})
    lab.q.cmd("device_add", driver="scsi-hd", bus="sym.0", id="hot", drive="new", **{"scsi-id": 5})
    lab.run("echo 0 5 0 > /sys/class/scsi_host/host0/scan; for i in $(seq 60); do dmesg | grep -q 'sdb. Attached' && break; sleep 0.5; done")
    assert lab.run("cat /sys/block/sdb/size") == str(3 * MIB // 512)
    lab.run("echo 1 > /sys/block/sdb/device/delete")
    lab.q.cmd("device_del", id="hot")
    lab.q.event("DEVICE_DELETED")


def test_no_complaint_in_the_log(lab):
    log = lab.run("dmesg -l emerg,alert,crit,err,warn || true")
    assert not [w for w in ("I/O error", "timed out", "unexpected", "phase change", "ERROR") if w in log], log
