# SPDX-License-Identifier: MIT
"""A Debian kernel boots, finds the memory and harts it was given, and leaves in every way there is."""
import gzip
import re
import subprocess

import pytest

import guest

QUIT = 20


def test_boot_shell_and_poweroff():
    with guest.Machine("-smp", "1", memory="256M", append="some.word=here") as m:
        m.boot()
        assert m.run("cat /proc/cmdline").endswith("some.word=here")
        assert m.run("uname -m") == "riscv64"
        assert m.run("nproc") == "1"
        total = int(re.search(r"MemTotal:\s+(\d+)", m.run("cat /proc/meminfo")).group(1))
        assert 170 * 1024 < total < 256 * 1024
        m.send("poweroff -f\n")
        assert m.wait(QUIT) == 0


@pytest.mark.parametrize("mib", [128, 192])
def test_little_memory(mib):
    """The kernel wants large pieces in one place, which the RAM disk must leave."""
    with guest.Machine("-smp", "1", memory="%dM" % mib, script="exit 0") as m:
        assert m.script_status() == 0
        assert m.wait(QUIT) == 0


@pytest.mark.parametrize("harts", [2, 4])
def test_smp(harts):
    """All harts come up, run at the same time, and see each other's stores."""
    script = """
        nproc
        for i in 1 2 3 4; do (n=0; while [ $n -lt 2000 ]; do n=$((n+1)); done; echo $n >/tmp/r$i) & done; wait
        cat /tmp/r1 /tmp/r2 /tmp/r3 /tmp/r4
        for c in /sys/devices/system/cpu/cpu[1-9]; do
            echo 0 >$c/online; cat /sys/devices/system/cpu/online; echo 1 >$c/online || exit 9; break
        done
        cat /sys/devices/system/cpu/online
    """
    with guest.Machine("-smp", harts, script=script) as m:
        assert m.script_status() == 0
        out = m.log[m.log.index(guest.READY):].replace("\r", "").split()
        assert out[1] == str(harts)
        assert out[2:6] == ["2000"] * 4
        assert "0-%d" % (harts - 1) in out
        assert m.wait(QUIT) == 0


def test_script_from_a_raw_disk(tmp_path):
    """The text on a second disk is a script; its status is told; init powers off."""
    disk = guest.make_disk(tmp_path / "script.img", 64 << 10, b"echo from-the-disk; exit 7\n")
    with guest.Machine("-drive", "file=%s,format=raw,if=none,id=s,readonly=on" % disk, "-device", "virtio-blk-pci,drive=s",
                       modules=["virtio_blk"], append="bp.script=/dev/vda") as m:
        assert m.script_status() == 7
        assert "from-the-disk" in m.log
        assert m.wait(QUIT) == 0


def test_initramfs_gz_from_mmio(tmp_path):
    """The gzip initramfs and a disk on a virtio-mmio slot."""
    disk = guest.make_disk(tmp_path / "d.img", 1 << 20, b"0123456789abcdef")
    with guest.Machine("-kernel", guest.path("vmlinux"), "-initrd", guest.path("initramfs.cpio.gz"),
                       "-drive", "file=%s,format=raw,if=none,id=s" % disk, "-device", "virtio-blk-device,drive=s",
                       *(["-global", "virtio-mmio.force-legacy=false"] if guest.IS_QEMU else []),
                       "-append", "console=ttyS0 loglevel=4 bp.modules=virtio_mmio,virtio_blk", kernel=False) as m:
        m.boot()
        assert m.run("head -c 16 /dev/vda") == "0123456789abcdef"
        m.run("echo changed | dd of=/dev/vda conv=fsync,notrunc bs=8 2>/dev/null")
        m.send("poweroff -f\n")
        assert m.wait(QUIT) == 0
    with open(disk, "rb") as f:
        assert f.read(16) == b"changed\n89abcdef"


def test_reboot_starts_again():
    with guest.Machine() as m:
        m.boot()
        assert m.run("echo once >/tmp/mark; cat /tmp/mark") == "once"
        m.send("reboot -f\n")
        m.forget_shell()
        m.boot()
        assert m.call("cat /tmp/mark")[0] != 0
        m.send("poweroff -f\n")
        assert m.wait(QUIT) == 0


def test_no_reboot_ends():
    with guest.Machine("-no-reboot", script="exit 0", append="bp.after=reboot") as m:
        assert m.script_status() == 0
        assert m.wait(QUIT) == 0


@pytest.mark.parametrize("word,status", [(0x5555, 0), (0x00033333, 3), (0x00013333, 1)])
def test_exit_status_through_the_test_device(word, status):
    """A store to the test device ends the process: pass is 0, fail with code N is N."""
    with guest.Machine("-smp", "1") as m:
        m.boot()
        m.shell()
        m.send("devmem 0x100000 32 %d\n" % word)
        assert m.wait(QUIT) == status


def test_rtc_and_time():
    with guest.Machine("-rtc", "base=2031-02-03T04:05:06") as m:
        m.boot()
        assert m.run("date -u +%Y-%m-%d").startswith("2031-02-03")
        t0 = float(m.run("cut -d' ' -f1 /proc/uptime"))
        m.run("sleep 1")
        assert 0.9 < float(m.run("cut -d' ' -f1 /proc/uptime")) - t0 < 6


@pytest.mark.parametrize("form", ["gzip", "elf"])
def test_kernel_forms(tmp_path, form):
    """The same kernel boots when it is compressed, and when it is wrapped in an ELF file."""
    kernel = str(tmp_path / "kernel")
    if form == "gzip":
        if guest.IS_QEMU:
            pytest.skip("QEMU takes no gzip kernel here")
        with open(guest.path("vmlinux"), "rb") as f, gzip.open(kernel, "wb", compresslevel=1) as z:
            z.write(f.read())
    else:
        (tmp_path / "k.s").write_text('.section .text\n.globl _start\n_start:\n.incbin "%s"\n' % guest.path("vmlinux"))
        subprocess.run(["riscv64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,--build-id=none,-N,-Ttext=0x80200000", "-o", kernel,
                        str(tmp_path / "k.s")], check=True)
    initrd = tmp_path / "initrd"
    guest.compose_initrd(initrd, [], {"test": "exit 0"})
    with guest.Machine("-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 loglevel=4 bp.script=test", kernel=False) as m:
        assert m.script_status() == 0
        assert m.wait(QUIT) == 0
