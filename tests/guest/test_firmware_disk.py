# SPDX-License-Identifier: MIT
"""Firmware starts a program from a disk: EDK2 finds it by itself, U-Boot is told the name. One row a kind of disk.

No row boots from an SD card: `drivers` in the shell of Debian's EDK2 (2025.02) lists none of SD or e.MMC, and `strings` finds no sdhci
in its U-Boot (2025.01), nor a driver of virtio-scsi there.
"""
import pytest

import efi
import guest
from test_firmware import Edk2, opensbi

# name; arguments, the disk's node is d; U-Boot's commands that make the disk known, its name there (None: U-Boot has no driver)
DISKS = {
    "nvme": (["-device", "nvme,drive=d,serial=boot,bootindex=0"], "pci enum; nvme scan", "nvme 0"),
    "virtio-blk": (["-device", "virtio-blk-pci,drive=d,bootindex=0"], "pci enum; virtio scan", "virtio 0"),
    "virtio-scsi": (["-device", "virtio-scsi-pci,id=hba", "-device", "scsi-hd,bus=hba.0,drive=d,bootindex=0"], None, None),
    "ahci": (["-device", "ahci,id=sata", "-device", "ide-hd,bus=sata.0,drive=d,bootindex=0"], "pci enum; scsi scan", "scsi 0"),
}


@pytest.fixture(name="disk", scope="module")
def image(tmp_path_factory):
    return efi.fat_disk(tmp_path_factory.mktemp("disk") / "esp.img")


def node(disk):
    return ["-drive", "file=%s,format=raw,if=none,id=d,snapshot=on" % disk]


@pytest.mark.parametrize("kind", DISKS)
def test_edk2(tmp_path, disk, kind):
    with Edk2(tmp_path).machine(*node(disk), *DISKS[kind][0]) as m:
        m.expect(efi.RIGHT, 120)
        assert m.wait(30) == 0


@pytest.mark.parametrize("kind", [k for k, d in DISKS.items() if d[1]])
def test_uboot(disk, kind):
    args, scan, name = DISKS[kind]
    with guest.Machine("-bios", opensbi(), "-kernel", guest.path("firmware/uboot.elf"), *node(disk), *args, kernel=False) as m:
        m.expect("Hit any key to stop autoboot", 30)
        m.send("\n")
        m.expect("=> ", 20)
        m.send("%s; fatload %s $kernel_addr_r /%s && bootefi $kernel_addr_r\n" % (scan, name, efi.BOOT_FILE))
        m.expect(efi.RIGHT, 60)
        assert m.wait(30) == 0
