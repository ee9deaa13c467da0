# SPDX-License-Identifier: MIT
"""MegaRAID under Linux's megaraid_sas: logical drives, drives passed through, a CD, plug and unplug, reset of a unit."""
import hashlib
import os

import pytest

import guest

MIB = 1 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("megasas"))
    fill = b"".join(b"%015d\n" % i for i in range(65536))
    files = {n: guest.make_disk(os.path.join(d, n), size, fill) for n, size in (("ld", 64 * MIB), ("pd", 32 * MIB), ("cd", 2 * MIB))}
    drives = [a for n, f in files.items() for a in ("-drive", "file=%s,format=raw,if=none,id=%s%s" % (f, n, ",media=cdrom" if n == "cd" else ""))]
    with guest.Machine("-qmp", "unix:%s/qmp,server=on,wait=off" % d, *drives,
                       "-device", "megasas,id=raid,hba_serial=RAID7", "-device", "scsi-hd,bus=raid.0,drive=ld,scsi-id=3,serial=LD3",
                       "-device", "scsi-cd,bus=raid.0,drive=cd,scsi-id=5",
                       "-device", "megasas-gen2,id=jbod,use_jbod=on,msix=off", "-device", "scsi-hd,bus=jbod.0,drive=pd,scsi-id=1,logical_block_size=4096,"
                       "physical_block_size=4096", modules=["megaraid_sas", "sd_mod", "sr_mod"], root=True) as m:
        m.boot()
        m.run("for i in $(seq 60); do [ -e /dev/sdb ] && [ -e /dev/sr0 ] && break; sleep 1; done")
        m.dir = d
        m.q = guest.Qmp(d + "/qmp")
        yield m
        m.q.close()
        m.send("poweroff -f\n")
        assert m.wait(40) == 0


def disk_at(m, place):
    return m.run("ls /sys/bus/scsi/devices/%s/block" % place)


def hosts(m):
    """The number of each adapter's host: the driver probes them side by side."""
    out = m.run("for h in /sys/class/scsi_host/host*; do echo ${h##*host} $(readlink -f $h/device/.. ); done")
    at = {line.split()[1].split("/")[-1]: line.split()[0] for line in out.splitlines()}
    return [at[k] for k in sorted(at)]


def test_where_units_are_found(lab):
    raid, jbod = hosts(lab)
    units = lab.run("ls /sys/bus/scsi/devices | grep ^[0-9]").split()
    # Physical drives are on channels 0 and 1, logical ones on 2 and 3.
    assert sorted(units) == sorted(["%s:2:3:0" % raid, "%s:0:5:0" % raid, "%s:0:1:0" % jbod])
    ld, pd = disk_at(lab, raid + ":2:3:0"), disk_at(lab, jbod + ":0:1:0")
    assert lab.run("cat /sys/block/%s/size" % ld) == str(64 * MIB // 512)
    assert lab.run("cat /sys/block/%s/queue/logical_block_size" % pd) == "4096"
    assert lab.run("dd if=/dev/%s bs=16 skip=1000 count=1 2>/dev/null" % ld) == "%015d" % 1000
    assert lab.run("dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | head -c 16") == "%015d" % 2048
    assert lab.call("grep -c MSI-X /proc/interrupts; grep megasas /proc/interrupts")[0] == 0


def test_writes_reach_the_file(lab):
    ld = disk_at(lab, hosts(lab)[0] + ":2:3:0")
    lab.run("mkfs.ext4 -q /dev/%s && mount /dev/%s /mnt && cp /bin/busybox /mnt/b && umount /mnt" % (ld, ld))
    lab.run("mount /dev/%s /mnt && cmp /bin/busybox /mnt/b && umount /mnt" % ld)
    lab.run("dd if=/bin/busybox of=/dev/%s bs=4k seek=15000 count=100 conv=fsync 2>/dev/null" % ld)
    want = lab.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum").split()[0]
    with open(lab.dir + "/ld", "rb") as f:
        f.seek(15000 * 4096)
        assert hashlib.sha256(f.read(409600)).hexdigest() == want


@pytest.mark.parametrize("host,place,bs", [(0, "2:3:0", "4k"), (1, "0:1:0", "8k")])
def test_fio_verifies_what_it_wrote(lab, host, place, bs):
    out = lab.run("fio --name=v --filename=/dev/%s --offset=24M --size=4M --rw=randwrite --bs=%s --iodepth=16 --ioengine=libaio --direct=1 "
                  "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5"
                  % (disk_at(lab, hosts(lab)[host] + ":" + place), bs), 240)
    assert out.splitlines()[-1] == "0"


def test_sense_data_comes_through(lab):
    lab.run("modprobe sg")
    code, out = lab.call("sg_read_long --16 --lba=0 --xfer_len=8 /dev/%s 2>&1" % disk_at(lab, hosts(lab)[1] + ":0:1:0"))
    assert code != 0 and "Illegal request" in out or "Invalid" in out or "not supported" in out, out


def test_drives_are_plugged_and_unplugged(lab):
    raid = hosts(lab)[0]
    new = guest.make_disk(os.path.join(lab.dir, "new"), 3 * MIB)
    lab.q.cmd("blockdev-add", **{"driver": "raw", "node-name": "new", "file": {"driver": "file", "filename": new}})
    lab.q.cmd("device_add", driver="scsi-hd", bus="raid.0", id="hot", drive="new", **{"scsi-id": 9})
    lab.run("for i in $(seq 40); do [ -e /sys/bus/scsi/devices/%s:2:9:0/block ] && break; sleep 0.5; done" % raid)
    assert lab.run("cat /sys/block/%s/size" % disk_at(lab, raid + ":2:9:0")) == str(3 * MIB // 512)
    lab.q.cmd("device_del", id="hot")
    lab.q.event("DEVICE_DELETED")
    lab.run("for i in $(seq 40); do [ -e /sys/bus/scsi/devices/%s:2:9:0 ] || break; sleep 0.5; done; [ ! -e /sys/bus/scsi/devices/%s:2:9:0 ]" % (raid, raid))


def test_the_driver_goes_and_comes(lab):
    lab.reload_module("megaraid_sas")
    lab.run("for i in $(seq 60); do [ -e /dev/sdb ] && [ -e /dev/sr0 ] && break; sleep 0.5; done")
    assert lab.run("dd if=/dev/%s bs=16 skip=61440 count=1 2>/dev/null" % disk_at(lab, hosts(lab)[1] + ":0:1:0")) == "%015d" % 61440


def test_no_complaint_in_the_log(lab):
    log = lab.run("dmesg -l emerg,alert,crit,err,warn | grep -i -E 'megaraid|megasas|I/O error|timeout' || true")
    assert not [w for w in ("timed out", "I/O error", "failed", "FAULT", "reset") if w in log], log
