# SPDX-License-Identifier: MIT
"""virtio-scsi under Linux: disks and a CD drive on one bus, fio with verify, plug and unplug, a larger disk, eject."""
import hashlib
import os
import re

import pytest

import disklab
import guest

MIB = 1 << 20


def image(folder, name, size, fill=b""):
    return guest.make_disk(os.path.join(folder, name), size, fill)


def pattern(n):
    return b"".join(b"%015d\n" % i for i in range(n // 16))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("scsi"))
    a, b, ro, cd = (image(d, n, s, pattern(65536)) for n, s in (("a", 32 * MIB), ("b", 8 * MIB), ("ro", 4 * MIB), ("cd", 2 * MIB)))
    drive = "file=%s,format=raw,if=none,id=%s"
    args = ["-qmp", "unix:%s/qmp,server=on,wait=off" % d,
            "--device", "virtio-scsi-pci,id=foo,bus=pcie.0,addr=9",
            "-drive", drive % (a, "da") + ",discard=unmap", "--device", "scsi-hd,bus=foo.0,drive=da,serial=DISKA,wwn=0x5000c50015ea71aa,lun=0,scsi-id=2",
            "-drive", drive % (b, "db"), "--device", "scsi-hd,bus=foo.0,drive=db,scsi-id=2,lun=5,logical_block_size=4096,"
            "physical_block_size=4096,vendor=ACME,product=Model-7,ver=1.0",
            "-drive", drive % (ro, "dro") + ",readonly=on", "--device", "scsi-hd,bus=foo.0,drive=dro,scsi-id=3,rotation_rate=7200",
            "-drive", drive % (cd, "dcd") + ",media=cdrom", "--device", "scsi-cd,bus=foo.0,drive=dcd,id=cd,scsi-id=4"]
    with guest.Machine(*args, modules=["virtio_scsi", "sd_mod", "sr_mod"], root=True) as m:
        m.boot()
        m.dir = d
        m.q = guest.Qmp(d + "/qmp")
        m.run("for i in $(seq 40); do [ -e /dev/sdc ] && [ -e /dev/sr0 ] && break; sleep 0.5; done")
        yield m
        m.q.close()
        m.send("poweroff -f\n")
        assert m.wait(30) == 0


def disk_at(m, target, lun):
    return m.run("ls /sys/class/scsi_device/*:0:%d:%d/device/block" % (target, lun))


def attr(m, disk, name):
    return m.run("cat /sys/block/%s/%s" % (disk, name)).strip()


def test_addresses_and_names(lab):
    assert lab.run("ls /sys/class/scsi_device").split() == ["0:0:2:0", "0:0:2:5", "0:0:3:0", "0:0:4:0"]
    a, b, ro = disk_at(lab, 2, 0), disk_at(lab, 2, 5), disk_at(lab, 3, 0)
    assert attr(lab, a, "size") == str(32 * MIB // 512) and attr(lab, b, "size") == str(8 * MIB // 512)
    assert (attr(lab, a, "queue/logical_block_size"), attr(lab, b, "queue/logical_block_size")) == ("512", "4096")
    assert (attr(lab, b, "device/vendor"), attr(lab, b, "device/model"), attr(lab, b, "device/rev")) == ("ACME", "Model-7", "1.0")
    assert attr(lab, a, "device/wwid") == "naa.5000c50015ea71aa"
    assert (attr(lab, a, "ro"), attr(lab, ro, "ro")) == ("0", "1")
    assert (attr(lab, a, "queue/rotational"), attr(lab, ro, "queue/rotational")) == ("0", "1")
    assert int(attr(lab, a, "queue/discard_max_bytes")) > 0 and attr(lab, b, "queue/discard_max_bytes") == "0"


def test_bytes_both_ways(lab):
    a, cd = disk_at(lab, 2, 0), disk_at(lab, 4, 0)
    assert lab.run("dd if=/dev/%s bs=16 skip=1000 count=1 2>/dev/null" % a) == "%015d" % 1000
    assert lab.run("dd if=/dev/%s bs=2048 skip=16 count=1 2>/dev/null | head -c 16" % cd) == "%015d" % 2048
    lab.run("dd if=/bin/busybox of=/dev/%s bs=4k seek=1024 count=100 conv=fsync 2>/dev/null" % a)
    want = lab.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum").split()[0]
    with open(lab.dir + "/a", "rb") as f:
        f.seek(4 * MIB)
        assert hashlib.sha256(f.read(409600)).hexdigest() == want


def test_fio_verifies_what_it_wrote(lab):
    for target, lun, bs in ((2, 0, "4k"), (2, 5, "8k")):
        out = lab.run("fio --name=v --filename=/dev/%s --offset=4M --size=4M --rw=randwrite --bs=%s --iodepth=16 --ioengine=libaio --direct=1 "
                      "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5" % (disk_at(lab, target, lun), bs), 240)
        assert out.splitlines()[-1] == "0"


def test_discard_and_zeroes(lab):
    a = disk_at(lab, 2, 0)
    lab.run("blkdiscard -o 16M -l 8M /dev/%s && blkdiscard -z -o 24M -l 1M /dev/%s" % (a, a))
    with open(lab.dir + "/a", "rb") as f:
        f.seek(16 * MIB)
        assert not any(f.read(9 * MIB))
        assert os.fstat(f.fileno()).st_blocks * 512 < 28 * MIB


def test_read_only_and_cd_refuse_writes(lab):
    for disk in (disk_at(lab, 3, 0), disk_at(lab, 4, 0)):
        assert lab.call("dd if=/dev/zero of=/dev/%s bs=4096 count=1 conv=fsync" % disk)[0] != 0


def test_units_are_plugged_and_unplugged(lab):
    new = image(lab.dir, "new", 3 * MIB)
    lab.q.cmd("blockdev-add", **{"driver": "raw", "node-name": "new", "file": {"driver": "file", "filename": new}})
    lab.q.cmd("device_add", driver="scsi-hd", bus="foo.0", id="hot", drive="new", **{"scsi-id": 7, "lun": 1})
    lab.run("for i in $(seq 40); do [ -e /sys/class/scsi_device/0:0:7:1/device/block ] && break; sleep 0.5; done")
    disk = disk_at(lab, 7, 1)
    assert attr(lab, disk, "size") == str(3 * MIB // 512)
    lab.run("dd if=/dev/%s of=/dev/null bs=64k 2>/dev/null" % disk)
    lab.q.cmd("device_del", id="hot")
    lab.q.event("DEVICE_DELETED")
    lab.run("for i in $(seq 40); do [ -e /sys/block/%s ] || break; sleep 0.5; done; [ ! -e /sys/block/%s ]" % (disk, disk))


def test_the_cd(lab):
    disklab.use_cd(lab, "sr0", "SCSI family")


def test_eject(lab):
    lab.run("modprobe sg 2>/dev/null; sg_start --eject /dev/sr0")
    assert lab.q.event("DEVICE_TRAY_MOVED")["data"] == {"device": "", "id": "cd", "tray-open": True}
    assert lab.call("dd if=/dev/sr0 of=/dev/null bs=2048 count=1")[0] != 0
    lab.run("sg_start --load /dev/sr0")
    lab.run("dd if=/dev/sr0 of=/dev/null bs=2048 count=1")


def test_no_complaint_in_the_log(lab):
    log = lab.run("dmesg -l emerg,alert,crit,err || true")
    assert not re.search(r"(?m)^.*(virtio|sd[a-z]|scsi).*(timing out|abort|I/O error, dev sd[ac]|reset).*$", log), log


TOOLS = [("sg_vpd -p di /dev/%s", "0x5000c50015ea71aa"), ("sg_inq /dev/%s", "QEMU HARDDISK"), ("sg_vpd -p bl /dev/%s", "Maximum compare and write length"),
         ("sg_readcap -16 /dev/%s", "lbpme=1"), ("sg_luns /dev/%s", "Lun list length = 16"), ("sg_modes /dev/%s", "Caching"),
         ("sg_opcodes /dev/%s", "Compare and write"), ("sg_persist -c /dev/%s", "Report capabilities"),
         ("sg_logs --page=0x3 /dev/%s", "Total bytes processed"), ("smartctl -t short /dev/%s >/dev/null; sleep 1; smartctl -a /dev/%s", "Completed"),
         ("sg_rbuf --echo --size=256 --quick /dev/%s && echo fine", "fine"), ("sg_opcodes --tmf /dev/%s", "Abort task set"),
         ("sg_verify --lba=0 --count=64 /dev/%s && echo fine", "fine"), ("sg_turs /dev/%s && echo fine", "fine"),
         ("sg_format --format --early --quick /dev/%s && head -c 4 /dev/%s | od -An -tx1", "00 00 00 00")]


@pytest.mark.parametrize("cmd,text", TOOLS, ids=[t[0].split()[0] for t in TOOLS])
def test_sg3_utils(lab, cmd, text):
    lab.run("modprobe sg 2>/dev/null || true")
    assert text in lab.run(cmd.replace("%s", disk_at(lab, 2, 0)))
