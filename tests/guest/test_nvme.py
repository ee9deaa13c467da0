# SPDX-License-Identifier: MIT
"""NVMe controllers, driven by Debian's driver, nvme-cli, mkfs and fio. The guest's root is itself on NVMe."""
import os
import re
import subprocess

import pytest

import guest


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("nvme"))
    root = os.path.join(folder, "root.ext4")
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", guest.path("root.ext4"), root], check=True)
    data = guest.make_disk(os.path.join(folder, "data.img"), 64 << 20)
    args = ["-smp", "2", "-drive", "file=%s,format=raw,if=none,id=r" % root, "-device", "nvme,drive=r,serial=ROOT",
            "-drive", "file=%s,format=raw,if=none,id=d" % data, "-device", "nvme,id=nvd,drive=d,serial=DATA,mdts=5"]
    with guest.Machine(*args, modules=["nvme", "ext4"], append="bp.root=/dev/nvme0n1", memory="768M") as machine:
        machine.boot()
        machine.folder = folder
        yield machine
        machine.send("poweroff -f\n")
        assert machine.wait(20) == 0


def dev(m, serial="DATA"):
    """The guest's name of the controller with SERIAL."""
    return m.run("grep -lx '%s *' /sys/class/nvme/nvme*/serial | cut -d/ -f5" % serial)


def test_no_error_in_the_kernel_log(m):
    log = m.run("dmesg -l emerg,alert,crit,err,warn | grep -i -e nvme -e EXT4-fs || true")
    assert not log, log


def test_list_names_both(m):
    out = m.run("nvme list")
    assert re.search(r"ROOT +backplane NVMe Controller", out) and re.search(r"DATA +backplane NVMe Controller", out)


def test_identify_tells_the_options(m):
    d = dev(m)
    out = m.run("nvme id-ctrl /dev/%s" % d)
    assert re.search(r"^mdts +: 5\s*$", out, re.M) and re.search(r"^sn +: DATA", out, re.M) and re.search(r"^ver +: 0x20000", out, re.M)
    assert re.search(r"^nsze +: 0x20000", m.run("nvme id-ns /dev/%sn1" % d), re.M)
    assert m.run("cat /sys/block/%sn1/queue/max_hw_sectors_kb" % d) == "128"


def test_a_file_system_keeps_its_files(m):
    d = dev(m)
    m.run("mkfs.ext4 -q /dev/%sn1 && mount /dev/%sn1 /mnt && cp -a /usr/lib/python3*/json /usr/bin/bash /mnt/ && umount /mnt" % (d, d), 120)
    m.run("mount /dev/%sn1 /mnt && cmp /usr/bin/bash /mnt/bash && diff -r /usr/lib/python3*/json /mnt/json && umount /mnt" % d, 60)
    m.run("e2fsck -fn /dev/%sn1" % d, 60)


def test_random_load_is_verified(m):
    """fio writes random blocks at depth 16 and verifies every one."""
    out = m.run("fio --name=v --filename=/dev/%sn1 --size=2M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio "
                "--direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5" % dev(m), 240)
    assert out.splitlines()[-1] == "0"


def test_smart_counts_what_was_done(m):
    d = dev(m)
    read = lambda: int(re.search(r"^host_read_commands\s*: (\d+)", m.run("nvme smart-log /dev/%s" % d), re.M).group(1))
    before = read()
    m.run("dd if=/dev/%sn1 of=/dev/null bs=4k count=10 iflag=direct 2>/dev/null" % d)
    assert read() == before + 10


def test_features(m):
    d = dev(m)
    assert "Current value:0x" in m.run("nvme get-feature /dev/%s -f 7" % d)
    m.run("nvme set-feature /dev/%s -f 4 -V 0x140" % d)
    assert re.search(r"Current value:0x0*140", m.run("nvme get-feature /dev/%s -f 4" % d))
    m.run("nvme set-feature /dev/%s -f 4 -V 0x157" % d)
    assert m.call("nvme get-feature /dev/%s -f 0x7d" % d)[0] != 0


def test_discard_and_zeroes(m):
    d = dev(m)
    m.run("blkdiscard -z /dev/%sn1" % d, 60)
    assert m.run("dd if=/dev/%sn1 bs=1M count=4 2>/dev/null | tr -d '\\0' | wc -c" % d) == "0"
    m.run("blkdiscard /dev/%sn1" % d, 60)


def test_reset_and_rebind_under_load(m):
    """The driver resets and leaves the controller while commands run; nothing is lost, data is right afterwards."""
    d = dev(m)
    m.run("(for i in 1 2 3; do dd if=/dev/%sn1 of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; done) & "
          "for i in 1 2 3; do nvme reset /dev/%s; done; wait" % (d, d), 120)
    addr = os.path.basename(m.run("readlink /sys/class/nvme/%s/device" % d))
    m.run("cd /sys/bus/pci/drivers/nvme; for i in 1 2 3; do echo %s >unbind; echo %s >bind; done; sleep 1; udevadm settle || true" % (addr, addr), 60)
    d = dev(m)
    m.run("for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/%sn1 ] && break; sleep 1; done; dd if=/dev/%sn1 of=/dev/null bs=64k count=4 iflag=direct" % (d, d), 60)
    assert "I/O timeout" not in m.run("dmesg")
