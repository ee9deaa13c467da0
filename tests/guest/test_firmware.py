# SPDX-License-Identifier: MIT
"""Firmware that other people build runs unmodified: OpenSBI, U-Boot, EDK2."""
import filecmp
import os
import shutil
import subprocess

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


class Edk2:
    """EDK2's two flash banks, copied to a directory of the test: what it saves stays from one machine to the next."""

    def __init__(self, where):
        if guest.IS_QEMU:
            pytest.skip("the QEMU of Debian 12 has no pflash0= on this board")
        self.code, self.vars = str(where / "code.fd"), str(where / "vars.fd")
        shutil.copyfile(guest.path("firmware/edk2-code.fd"), self.code)
        shutil.copyfile(guest.path("firmware/edk2-vars.fd"), self.vars)

    def machine(self, *args, **how):
        return guest.Machine("-blockdev", "node-name=pf0,driver=file,read-only=on,filename=" + self.code,
                             "-blockdev", "node-name=pf1,driver=file,filename=" + self.vars, *args,
                             machine="virt,pflash0=pf0,pflash1=pf1", kernel=False, **how)


def enter_shell(m):
    """To the prompt of the UEFI shell, past the countdown before startup.nsh."""
    m.expect("UEFI Interactive Shell", 120)
    m.expect("to skip", 60)
    m.send("\x1b")
    m.expect("Shell> ", 30)


def test_edk2_keeps_variables_in_flash(tmp_path):
    """A variable that the UEFI shell sets is there after a restart, and the code bank is never written."""
    edk2 = Edk2(tmp_path)
    variable = "setvar BpTest -guid 12345678-1111-2222-3333-444455556666"
    with edk2.machine() as m:
        enter_shell(m)
        m.send(variable + " -nv -bs -rt =0x4231\r")
        m.expect("Shell> ", 30)
        m.send("reset -s\r")
        assert m.wait(30) == 0
    with edk2.machine() as m:
        enter_shell(m)
        m.send(variable + "\r")
        m.expect("31 42", 30)
        m.send("reset -s\r")
        assert m.wait(30) == 0
    assert filecmp.cmp(edk2.code, guest.path("firmware/edk2-code.fd"), shallow=False)


def test_edk2_starts_linux_from_a_fat_disk(tmp_path):
    """The kernel, an EFI program, from a FAT file system on a virtio disk, by startup.nsh."""
    edk2, disk = Edk2(tmp_path), guest.make_disk(tmp_path / "esp.img", 64 << 20)
    nsh = tmp_path / "startup.nsh"
    nsh.write_bytes(b"fs0:\r\nlinux.efi console=ttyS0 initrd=\\initrd bp.script=poweroff\r\n")
    subprocess.run([need("/usr/sbin/mkfs.vfat"), disk], check=True, stdout=subprocess.DEVNULL)
    for source, name in ((guest.path("vmlinux"), "linux.efi"), (guest.path("base.cpio"), "initrd"), (str(nsh), "startup.nsh")):
        subprocess.run([need("/usr/bin/mcopy"), "-i", disk, source, "::/" + name], check=True)
    with edk2.machine("-drive", "file=%s,format=raw,if=none,id=d" % disk, "-device", "virtio-blk-pci,drive=d", memory="1G") as m:
        m.expect("efi: EFI v2", 180)
        m.expect(guest.READY, 180)
        assert m.wait(60) == 0


def test_edk2_starts_the_kernel_that_the_command_line_names(tmp_path):
    """-kernel, -initrd and -append reach EDK2 through fw_cfg."""
    with Edk2(tmp_path).machine("-kernel", guest.path("vmlinux"), "-initrd", guest.path("base.cpio"),
                                "-append", "console=ttyS0 bp.script=poweroff", memory="1G") as m:
        m.expect("efi: EFI v2", 180)
        m.expect(guest.READY, 180)
        assert m.wait(60) == 0
