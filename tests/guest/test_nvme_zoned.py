# SPDX-License-Identifier: MIT
"""File systems on zones: zonefs shows each zone as a file, btrfs writes its log and data in order; both find everything again."""
import pytest

import guest

ZONE = 16 << 20


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoned")
    with open(folder / "z.img", "wb") as f:
        f.truncate(32 * ZONE)
    args = ["-smp", "2", "-drive", "file=%s,format=raw,if=none,id=z,discard=unmap" % (folder / "z.img"), "-device", "nvme,id=zc,serial=Z", "-device",
            "nvme-ns,bus=zc,drive=z,nsid=1,zoned=on,zoned.zone_size=16M,zoned.max_open=12,zoned.max_active=16,logical_block_size=4096,physical_block_size=4096"]
    with guest.Machine(*args, modules=["nvme", "zonefs", "btrfs"], root=True, memory="768M") as machine:
        machine.boot()
        machine.run("mkdir -p /mnt")
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
    good(m, "nvme zns reset-zone /dev/nvme0n1 -a && mkzonefs -f /dev/nvme0n1 && mount -t zonefs /dev/nvme0n1 /mnt")
    assert good(m, "ls /mnt/seq | wc -l") == "31"
    good(m, "dd if=/dev/urandom of=/tmp/z bs=64k count=16 2>/dev/null; dd if=/tmp/z of=/mnt/seq/3 bs=64k oflag=direct conv=notrunc 2>/dev/null; "
            "dd if=/tmp/z of=/mnt/seq/3 bs=64k oflag=direct,append conv=notrunc 2>/dev/null")
    assert good(m, "stat -c %s /mnt/seq/3") == str(2 << 20)
    assert m.call("dd if=/tmp/z of=/mnt/seq/3 bs=64k count=1 oflag=direct conv=notrunc 2>/dev/null")[0] != 0       # not at the end
    good(m, "umount /mnt; mount -t zonefs /dev/nvme0n1 /mnt; cat /tmp/z /tmp/z | cmp - /mnt/seq/3 && truncate -s 0 /mnt/seq/3")
    assert good(m, "stat -c %s /mnt/seq/3; umount /mnt") == "0"


def test_btrfs(m):
    """Files through a reset of the controller, removal and reading back after a mount; the file system's own check is happy."""
    good(m, "nvme zns reset-zone /dev/nvme0n1 -a && mkfs.btrfs -q -f -O zoned -m single -d single /dev/nvme0n1 && mount /dev/nvme0n1 /mnt")
    good(m, "cd /mnt; for i in $(seq 40); do dd if=/dev/urandom of=f$i bs=64k count=$i 2>/dev/null; done; sync; nvme reset /dev/nvme0; "
            "for i in 3 7 11; do rm f$i; done; sha1sum f* >/tmp/sums; sync; cd /; umount /mnt", 240)
    good(m, "btrfs check /dev/nvme0n1 >/tmp/check 2>&1 || { cat /tmp/check; false; }", 240)
    good(m, "mount /dev/nvme0n1 /mnt && (cd /mnt && sha1sum -c /tmp/sums >/dev/null) && umount /mnt", 240)
    log = m.run("dmesg -l emerg,alert,crit,err | grep -i -e nvme -e btrfs || true")
    assert not log, log
