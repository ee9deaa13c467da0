# SPDX-License-Identifier: MIT
"""What tests of disk adapters share: a guest with a monitor and images, and what every disk must do."""
import contextlib
import hashlib
import os

import guest

MIB = 1 << 20
FILL = b"".join(b"%015d\n" % i for i in range(65536))          # of images: the 16 bytes at 16 * n say n


def image(folder, name, size, fill=FILL):
    """A raw image in FOLDER; its path."""
    return guest.make_disk(os.path.join(folder, name), size, fill)


@contextlib.contextmanager
def lab(folder, *args, devices, modules, seconds=40, **more):
    """A guest with a root image in which all DEVICES (paths) have come; .dir is FOLDER, .q a QMP session. It is powered off at the end."""
    with guest.Machine("-qmp", "unix:%s/qmp,server=on,wait=off" % folder, *args, modules=modules, root=True, **more) as m:
        m.boot()
        all_there = " && ".join("[ -e %s ]" % d for d in devices)
        m.run("for i in $(seq %d); do %s && break; sleep 0.5; done; %s" % (2 * seconds, all_there, all_there), seconds + 20)
        m.dir = folder
        m.q = guest.Qmp(folder + "/qmp")
        yield m
        m.q.close()
        m.send("poweroff -f\n")
        assert m.wait(40) == 0


def has_fill(m, disk, at):
    """Whether the 16 bytes at 16 * AT of the guest's DISK are those of FILL."""
    return m.run("dd if=/dev/%s bs=16 skip=%d count=1 2>/dev/null" % (disk, at)) == "%015d" % at


def write_and_compare(m, disk, path, block):
    """100 blocks of 4 KiB from BLOCK on, written by the guest, are in the file at PATH."""
    m.run("dd if=/bin/busybox of=/dev/%s bs=4k seek=%d count=100 conv=fsync 2>/dev/null" % (disk, block))
    want = m.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum").split()[0]
    with open(path, "rb") as f:
        f.seek(block * 4096)
        assert hashlib.sha256(f.read(409600)).hexdigest() == want


def use_file_system(m, disk):
    """An ext4 file system keeps a file over an unmount."""
    m.run("mkfs.ext4 -q -F /dev/%s && mount /dev/%s /mnt && cp /bin/busybox /mnt/b && umount /mnt" % (disk, disk))
    m.run("mount /dev/%s /mnt && cmp /bin/busybox /mnt/b && umount /mnt" % disk)


def fio_verify(m, disk, bs="4k", offset="24M", size="4M"):
    """fio writes at random places and reads back what it wrote."""
    out = m.run("fio --name=v --filename=/dev/%s --offset=%s --size=%s --rw=randwrite --bs=%s --iodepth=16 --ioengine=libaio --direct=1 "
                "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5" % (disk, offset, size, bs), 240)
    assert out.splitlines()[-1] == "0"


def plug(m, driver, bus, node, size=3 * MIB, **options):
    """Plugs a disk with an image of its own into a bus of the running guest, as device "hot"."""
    m.q.cmd("blockdev-add", **{"driver": "raw", "node-name": node, "file": {"driver": "file", "filename": image(m.dir, node, size)}})
    m.q.cmd("device_add", driver=driver, bus=bus, id="hot", drive=node, **options)


def unplug(m):
    """Takes device "hot" away again."""
    m.q.cmd("device_del", id="hot")
    m.q.event("DEVICE_DELETED")


def use_cd(m, drive, interface):
    """What tools find of the guest's CD DRIVE with FILL on it: features, pages, raw sectors, the tray."""
    m.run("modprobe sg 2>/dev/null || true")
    config = m.run("sg_get_config /dev/" + drive)
    assert "Current profile: CD-ROM" in config and "Physical interface standard: " + interface in config, config
    assert "Timeout and protect" in m.run("sg_modes -a /dev/" + drive)
    m.run("sg_vpd -a /dev/%s && sg_logs -a /dev/%s && sg_inq -e /dev/%s" % (drive, drive, drive))
    m.run("sg_raw -r 2352 -o /tmp/raw /dev/%s be 00 00 00 00 10 00 00 01 f8 00 00" % drive)
    assert m.run("od -An -tx1 -N16 /tmp/raw").split() == "00 ff ff ff ff ff ff ff ff ff ff 00 00 02 16 01".split()
    assert m.run("dd if=/tmp/raw bs=16 skip=1 count=1 2>/dev/null") == "%015d" % 2048
    m.run("sg_start --eject /dev/%s; sg_start --load /dev/%s; for i in $(seq 20); do sg_turs /dev/%s && break; sleep 0.5; done; sg_turs /dev/%s" % ((drive,) * 4))
    assert has_fill(m, drive, 2048)
