# SPDX-License-Identifier: MIT
"""File systems on zones of each kind of device: zonefs shows each zone as a file, btrfs writes its log and data in order; both find everything again."""
import pytest

import guest

ZONE = 16 << 20
BLOCKS = "logical_block_size=4096,physical_block_size=4096"
# options (%s: the image), modules, disk, what makes all zones empty, what bothers the device under way
KINDS = {
    "nvme": (["-drive", "file=%s,format=raw,if=none,id=z,discard=unmap", "-device", "nvme,id=zc,serial=Z", "-device",
              "nvme-ns,bus=zc,drive=z,nsid=1,zoned=on,zoned.zone_size=16M,zoned.max_open=12,zoned.max_active=16," + BLOCKS],
             ["nvme"], "/dev/nvme0n1", "nvme zns reset-zone /dev/nvme0n1 -a", "nvme reset /dev/nvme0"),
    "virtio-blk": (["-blockdev", "driver=zoned,node-name=z,zone-size=16M,max-open=12,max-active=16,file.driver=file,file.filename=%s",
                    "-device", "virtio-blk-pci,drive=z," + BLOCKS], ["virtio_blk"], "/dev/vdb", "blkzone reset /dev/vdb", "true"),
    "scsi": (["-blockdev", "driver=zoned,node-name=z,zone-size=16M,max-open=12,file.driver=file,file.filename=%s",
              "-device", "virtio-scsi-pci,id=hba", "-device", "scsi-hd,bus=hba.0,drive=z," + BLOCKS], ["virtio_scsi", "sd_mod", "sg"], "/dev/sda",
             "blkzone reset /dev/sda", "sg_reset -d /dev/sda"),
}


@pytest.fixture(scope="module", params=KINDS)
def m(request, tmp_path_factory):
    image = tmp_path_factory.mktemp("zoned") / "z.img"
    with open(image, "wb") as f:
        f.truncate(32 * ZONE)
    options, modules, disk, empty, bother = KINDS[request.param]
    args = ["-smp", "2"] + [o.replace("%s", str(image)) for o in options]
    with guest.Machine(*args, modules=[*modules, "zonefs", "btrfs"], root=True, memory="768M") as machine:
        machine.boot()
        machine.run("mkdir -p /mnt")
        machine.disk, machine.empty, machine.bother = disk, empty, bother
        yield machine
        machine.send("poweroff -f\n")
        assert machine.wait(20) == 0


def good(m, text, timeout=120):
    rc, out = m.call(text, timeout)
    assert rc == 0, "%s: %s" % (text, out)
    return out


def test_zonefs(m):
    """A zone's file is as long as what was written; it grows at its end only, truncation resets the zone."""
    if m.call("grep -qw zonefs /proc/filesystems || modprobe zonefs 2>/dev/null; grep -qw zonefs /proc/filesystems")[0]:
        pytest.skip("this kernel has no zonefs")
    good(m, "%s && mkzonefs -f %s && mount -t zonefs %s /mnt" % (m.empty, m.disk, m.disk))
    assert good(m, "ls /mnt/seq | wc -l") == "31"
    good(m, "dd if=/dev/urandom of=/tmp/z bs=64k count=16 2>/dev/null; dd if=/tmp/z of=/mnt/seq/3 bs=64k oflag=direct conv=notrunc 2>/dev/null; "
            "dd if=/tmp/z of=/mnt/seq/3 bs=64k oflag=direct,append conv=notrunc 2>/dev/null")
    assert good(m, "stat -c %s /mnt/seq/3") == str(2 << 20)
    assert m.call("dd if=/tmp/z of=/mnt/seq/3 bs=64k count=1 oflag=direct conv=notrunc 2>/dev/null")[0] != 0       # not at the end
    good(m, "umount /mnt; mount -t zonefs %s /mnt; cat /tmp/z /tmp/z | cmp - /mnt/seq/3 && truncate -s 0 /mnt/seq/3" % m.disk)
    assert good(m, "stat -c %s /mnt/seq/3; umount /mnt") == "0"


def test_btrfs(m):
    """Files through a reset of an NVMe controller, removal and reading back after a mount; the file system's own check is happy."""
    good(m, "%s && mkfs.btrfs -q -f -O zoned -m single -d single %s && mount %s /mnt" % (m.empty, m.disk, m.disk))
    good(m, "cd /mnt; for i in $(seq 40); do dd if=/dev/urandom of=f$i bs=64k count=$i 2>/dev/null; done; sync; %s; "
            "for i in 3 7 11; do rm f$i; done; sha1sum f* >/tmp/sums; sync; cd /; umount /mnt" % m.bother, 240)
    good(m, "btrfs check %s >/tmp/check 2>&1 || { cat /tmp/check; false; }" % m.disk, 240)
    good(m, "mount %s /mnt && (cd /mnt && sha1sum -c /tmp/sums >/dev/null) && umount /mnt" % m.disk, 240)
    log = m.run("dmesg -l emerg,alert,crit,err | grep -i -e nvme -e vdb -e sda -e btrfs || true")
    assert not log, log


@pytest.mark.parametrize("m", ["scsi"], indirect=True, scope="module")
def test_tools(m):
    """sg3-utils agree with the kernel on what a SCSI disk of zones says."""
    good(m, m.empty)
    assert good(m, "cat /sys/block/sda/queue/zoned") == "host-managed"
    assert "Peripheral device type: host managed zoned block" in good(m, "sg_inq /dev/sda; sg_vpd -p zbdc /dev/sda")
    assert "open sequential write required zones: 0xc" in good(m, "sg_vpd -p zbdc /dev/sda")
    good(m, "dd if=/dev/zero of=/dev/sda bs=64k count=4 oflag=direct 2>/dev/null")
    report = good(m, "sg_rep_zones /dev/sda")
    assert report.count("Zone type:") == 32 and "0x40" in report, report
    good(m, "sg_zone --finish --zone=0 /dev/sda")
    assert "full" in good(m, "sg_rep_zones --maxlen=128 /dev/sda").lower()
    good(m, "sg_reset_wp --zone=0 /dev/sda && sg_zone --open --zone=4096 /dev/sda && sg_zone --close --zone=4096 /dev/sda")
    assert "32" in good(m, "blkzone report /dev/sda | grep -c '(em)'")
    assert m.call("dd if=/dev/zero of=/dev/sda bs=64k count=1 seek=3 oflag=direct 2>/dev/null")[0] != 0
