# SPDX-License-Identifier: MIT
"""Firmware that other people build runs unmodified: OpenSBI, U-Boot, EDK2."""
import os
import shutil

import pytest

import guest

OPENSBI = "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin"
UBOOT = "/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf"
UBOOT_M = "/usr/lib/u-boot/qemu-riscv64/u-boot.bin"


def need(path):
    if not os.path.exists(path):
        pytest.fail("%s is missing: run scripts/deps" % path)
    return path


def opensbi():
    for p in (OPENSBI, "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"):
        if os.path.exists(p):
            return p
    return need(OPENSBI)


def test_opensbi_then_linux():
    with guest.Machine("-bios", opensbi(), "-smp", "2", script="nproc; grep -i sbi /proc/cpuinfo; dmesg | grep 'SBI implementation'") as m:
        m.expect("OpenSBI v", 30)
        assert m.script_status() == 0
        assert "SBI implementation ID=0x1" in m.log
        assert m.wait(20) == 0


def test_uboot_in_m_mode_gives_a_prompt():
    with guest.Machine("-bios", need(UBOOT_M), kernel=False) as m:
        m.expect("U-Boot 20", 30)
        m.expect("Hit any key to stop autoboot", 30)
        m.send("\n")
        m.expect("=> ", 20)
        m.send("echo x$board_name; pci; poweroff\n")
        assert m.wait(30) == 0


def test_opensbi_uboot_in_s_mode_sees_the_disk(tmp_path):
    disk = guest.make_disk(tmp_path / "d.img", 1 << 20)
    with guest.Machine("-bios", opensbi(), "-kernel", need(UBOOT), "-drive", "file=%s,format=raw,if=none,id=d" % disk,
                       "-device", "virtio-blk-pci,drive=d", kernel=False) as m:
        m.expect("OpenSBI v", 30)
        m.expect("Hit any key to stop autoboot", 30)
        m.send("\n")
        m.expect("=> ", 20)
        m.send("virtio scan; virtio info\n")
        m.expect(r"Device 0: .*VirtIO Block Device", 20)
        m.send("poweroff\n")
        assert m.wait(30) == 0


BDS = "6D33944A-EC75-4855-A54D-809C75241F6C"        # the GUID of EDK2's boot manager, BdsDxe


def test_edk2_reaches_its_boot_manager(tmp_path):
    """EDK2 in the two flash banks runs through to its boot manager, which tells that there is nothing to boot."""
    if guest.IS_QEMU:
        pytest.skip("the QEMU of Debian 12 has no pflash0= on this board")
    code, variables = str(tmp_path / "code.fd"), str(tmp_path / "vars.fd")
    shutil.copyfile(guest.path("firmware/edk2-code.fd"), code)
    shutil.copyfile(guest.path("firmware/edk2-vars.fd"), variables)
    with guest.Machine("-blockdev", "node-name=pf0,driver=file,read-only=on,filename=" + code,
                       "-blockdev", "node-name=pf1,driver=file,filename=" + variables,
                       machine="virt,pflash0=pf0,pflash1=pf1", kernel=False) as m:
        m.expect(BDS + r"|UEFI Interactive Shell|BdsDxe:", 120)
