# SPDX-License-Identifier: MIT
"""A program for EFI firmware of 64-bit RISC-V, and a FAT disk that firmware starts it from.

The program adds up its own data (SIZE bytes, so that the disk is read in earnest), says whether the sum is right, and
switches the machine off. It is position independent, in a PE file of one section (PE/COFF specification, 3 and 4).
"""
import os
import struct
import subprocess

SIZE = 2 << 20
RIGHT, WRONG = "efi program: the sum is right", "efi program: the sum is WRONG"
BOOT_FILE = "EFI/BOOT/BOOTRISCV64.EFI"          # UEFI specification, 3.5.1.1

ZERO, T0, T1, T2, S0, A0, A1, A2, A3, T3, T4 = 0, 5, 6, 7, 8, 10, 11, 12, 13, 28, 29
CON_OUT, OUTPUT_STRING = 64, 8                  # offsets in tables of UEFI, 4.3, 8.1, 12.4
RUNTIME, RESET_SYSTEM, SHUTDOWN = 88, 104, 2


def i_type(op, f3, rd, rs1, imm):
    return (imm & 0xfff) << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op


def ld(rd, off, rs1):
    return i_type(0x03, 3, rd, rs1, off)


def addi(rd, rs1, imm):
    return i_type(0x13, 0, rd, rs1, imm)


def call(rs1):
    return i_type(0x67, 0, 1, rs1, 0)


def add(rd, rs1, rs2):
    return rs2 << 20 | rs1 << 15 | rd << 7 | 0x33


def branch(f3, rs1, rs2, off):
    return (off >> 12 & 1) << 31 | (off >> 5 & 0x3f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (off >> 1 & 15) << 8 | (off >> 11 & 1) << 7 | 0x63


def address(rd, here, there):
    """Two instructions at HERE that make the address of THERE."""
    off = there - here
    return [(off + 0x800 >> 12 & 0xfffff) << 12 | rd << 7 | 0x17, addi(rd, rd, off & 0xfff)]


def code(data, end, total, right, wrong):
    """The program; it begins at 0, the arguments are offsets from there."""
    out = [addi(S0, A1, 0)]
    out += address(T0, 4 * len(out), data)
    out += address(T1, 4 * len(out), end)
    out += [addi(T2, ZERO, 0)]
    out += [ld(T3, 0, T0), add(T2, T2, T3), addi(T0, T0, 8), branch(6, T0, T1, -12)]        # until T0 is T1 (bltu)
    out += address(T4, 4 * len(out), total)
    out += [ld(T4, 0, T4)]
    out += address(A1, 4 * len(out), right)
    out += [branch(0, T2, T4, 12)]                                                          # beq: over the other text
    out += address(A1, 4 * len(out), wrong)
    out += [ld(A0, CON_OUT, S0), ld(T0, OUTPUT_STRING, A0), call(T0)]
    out += [addi(A0, ZERO, SHUTDOWN), addi(A1, ZERO, 0), addi(A2, ZERO, 0), addi(A3, ZERO, 0), ld(T0, RUNTIME, S0), ld(T0, RESET_SYSTEM, T0), call(T0)]
    return struct.pack("<%dI" % len(out), *out)


def headers(size):
    """Of a file with one section of SIZE bytes at 1000h, in the file at 200h."""
    image = 0x1000 + (size + 0xfff) // 0x1000 * 0x1000
    coff = struct.pack("<HHIIIHH", 0x5064, 1, 0, 0, 0, 240, 0x0222)
    opt = struct.pack("<HBBIIIII", 0x20b, 1, 0, size, 0, 0, 0x1000, 0x1000)
    opt += struct.pack("<QIIHHHHHHIIIIHH", 0, 0x1000, 0x200, 0, 0, 0, 0, 0, 0, 0, image, 0x200, 0, 10, 0)
    opt += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(8 * 16)
    section = struct.pack("<8sIIIIIIHHI", b".text", size, 0x1000, size, 0x200, 0, 0, 0, 0, 0xe0000020)
    return (b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + coff + opt + section).ljust(0x200, b"\0")


def program():
    """The file's content."""
    texts = [(t + "\r\n\0").encode("utf-16-le") for t in (RIGHT, WRONG)]
    data = os.urandom(SIZE)
    total = sum(struct.unpack("<%dQ" % (SIZE // 8), data)) & (1 << 64) - 1
    at = 0x200
    places = {"total": at, "right": at + 8, "wrong": at + 8 + len(texts[0]), "data": 0x1000, "end": 0x1000 + SIZE}
    head = code(**places).ljust(at, b"\0") + struct.pack("<Q", total) + texts[0] + texts[1]
    section = head.ljust(0x1000, b"\0") + data
    return headers(len(section)) + section


def fat_disk(path):
    """A FAT disk at PATH with the program where firmware looks for one; returns PATH."""
    with open(path, "wb") as f:
        f.truncate(16 << 20)
    exe = str(path) + ".efi"
    with open(exe, "wb") as f:
        f.write(program())
    folders = ["::/EFI", "::/EFI/BOOT"]
    for cmd in (["/usr/sbin/mkfs.vfat", str(path)], ["/usr/bin/mmd", "-i", str(path), *folders], ["/usr/bin/mcopy", "-i", str(path), exe, "::/" + BOOT_FILE]):
        subprocess.run(cmd, check=True, stdout=subprocess.DEVNULL)
    os.unlink(exe)
    return str(path)
