# SPDX-License-Identifier: MIT
"""Disks without an operating system: 4 KiB random reads by a polling driver (bench/disk) on nvme and virtio-blk-pci.

The disk is a raw file that the host holds in memory. Both emulators take turns; medians are compared.
"""
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import guest  # noqa: E402  (the path is set above)

CC = "riscv64-linux-gnu-gcc"
FLAGS = ["-O2", "-march=rv64imac_zicsr", "-mabi=lp64", "-mcmodel=medany", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fno-pie",
         "-fno-stack-protector", "-Wall", "-Wextra", "-Wl,--build-id=none,--no-warn-rwx-segments"]
DEVICES = (("nvme", "nvme,drive=d,serial=bench"), ("virtio-blk-pci", "virtio-blk-pci,drive=d,disable-legacy=on"))
BARS = {1: ">= 2x", 64: ">= 3x"}
SIZE = 256 << 20


def build(folder):
    """Compiles the program; returns its path, or None without a cross compiler."""
    source = os.path.join(ROOT, "bench", "disk")
    elf, image = os.path.join(folder, "poll.elf"), os.path.join(folder, "poll.bin")
    files = [os.path.join(source, n) for n in ("poll.c", "nvme.c", "vblk.c")]
    try:
        subprocess.run([CC, *FLAGS, "-Wl,-T," + os.path.join(source, "poll.ld"), "-o", elf, *files], check=True)
        subprocess.run(["riscv64-linux-gnu-objcopy", "-O", "binary", elf, image], check=True)
    except FileNotFoundError:
        print("poll: no %s (Debian package gcc-riscv64-linux-gnu), left out" % CC)
        return None
    return image


def measure(emulator, program, disk, device):
    """{depth: reads a second}"""
    cmd = [emulator, "-M", "virt", "-m", "64M", "-nographic", "-bios", program, "-drive", "file=%s,format=raw,if=none,id=d" % disk,
           "-device", device]
    got = {}
    with subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        for line in p.stdout:
            words = line.split()
            if words == ["end"]:
                break
            if len(words) != 3:
                p.kill()
                raise RuntimeError("%s: %s" % (emulator, line))
            got[int(words[1])] = int(words[2])
        p.kill()
    return got


def run(out, rounds, folder):
    """Measures and adds rows (name, ours, theirs, unit, bar) to OUT."""
    program = build(folder)
    if not program:
        return
    emulators = (guest.EMULATOR, "qemu-system-riscv64")
    with tempfile.NamedTemporaryFile(prefix="bench-poll-", dir=folder) as disk:
        for _ in range(SIZE >> 20):
            disk.write(os.urandom(1 << 20))
        disk.flush()
        for name, device in DEVICES:
            got = {e: [] for e in emulators}
            for _ in range(rounds):
                for e in emulators:
                    got[e].append(measure(e, program, disk.name, device))
            for depth, bar in BARS.items():
                out.append(("%s 4 KiB read, depth %d" % (name, depth), *(statistics.median(g[depth] for g in got[e]) for e in emulators), "/s", bar))
