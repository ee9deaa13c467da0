# SPDX-License-Identifier: MIT
"""-device loader: bytes and files in memory after every reset, and a CPU that sets out from them."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, run
from lib.qtest import QtestMachine

RAM = 0x80000000


def program(status):
    """Ends the machine with STATUS, by the test device at 0x100000."""
    word = status << 16 | 0x3333
    return struct.pack("<4I", 0x001002b7, (word + 0x800 & 0xfffff000) | 0x337, (word & 0xfff) << 20 | 0x00030313, 0x0062a023) + struct.pack("<I", 0x0000006f)


def elf(addr, code, entry):
    """An ELF-64 file for RISC-V with one segment, that has 16 bytes of zeroes behind it in memory."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 243, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 7, 120, addr, addr, len(code), len(code) + 16, 1) + code


def test_data_and_files(tmp_path):
    raw, exe = tmp_path / "raw", tmp_path / "exe"
    raw.write_bytes(b"as it is")
    exe.write_bytes(elf(RAM + 0x3000, b"segment!", RAM + 0x3000))
    loaders = ["addr=0x80001000,data=0x1122334455,data-len=5", "addr=0x80001008,data=0x1122,data-len=4,data-be=on", "addr=0x80002000,file=%s" % raw,
               "file=%s" % exe, "addr=0x80004000,file=%s,force-raw=on" % exe, "addr=0x80001004,data=0x99,data-len=1"]
    with QtestMachine(tmp_path, *[w for x in loaders for w in ("-device", "loader," + x)]) as m:
        m.q.write(RAM + 0x3008, b"\xff" * 16)
        for _ in range(2):
            m.qmp.cmd("system_reset")
            m.qmp.wait_event("RESET")
            assert m.q.read(RAM + 0x1000, 12) == bytes.fromhex("5544332299000000" "00001122")      # the later loader has the last word
            assert m.q.read(RAM + 0x2000, 8) == b"as it is"
            assert m.q.read(RAM + 0x3000, 24) == b"segment!" + bytes(16)
            assert m.q.read(RAM + 0x4000, 4) == b"\x7fELF"
            m.q.write(RAM + 0x1000, bytes(0x3100))


@pytest.mark.parametrize("accel", ("jit", "interp"))
def test_cpus_set_out(tmp_path, accel):
    flat, exe = tmp_path / "flat", tmp_path / "exe"
    flat.write_bytes(program(5))
    exe.write_bytes(elf(RAM + 0x400000, bytes(8) + program(6), RAM + 0x400008))
    stay = "loader,addr=0x80000000,data=0x0000006f,data-len=4"
    for args, status in (
        (["-device", "loader,file=%s,addr=0x80200000" % flat], 5),                              # where the built-in firmware goes
        (["-device", "loader,file=%s,cpu-num=0" % exe], 6),
        (["-bios", "none", "-device", "loader,file=%s,addr=0x80000000" % flat], 5),
        (["-bios", "none", "-device", "loader,file=%s,cpu-num=0" % exe], 6),
        (["-bios", "none", "-smp", "2", "-device", stay, "-device", "loader,file=%s" % exe, "-device", "loader,addr=0x80400008,cpu-num=1"], 6),
    ):
        code, out, err = run("-M", "virt", "-m", "64M", "-accel", accel, "-nodefaults", "-display", "none", *args)
        assert (code, out, err) == (status, "", ""), args


@pytest.mark.parametrize("option", ("-kernel", "-bios"))
def test_headers_below_memory(tmp_path, option):
    """Linked with -Ttext at the begin of memory, a program has its file's headers one page below, in its first segment."""
    exe = tmp_path / "exe"
    code, page = program(7), 4096
    image = bytearray(elf(RAM - page, b"", RAM).ljust(page, b"\0") + code)
    struct.pack_into("<IIQQQQQQ", image, 64, 1, 5, 0, RAM - page, RAM - page, len(image), len(image) + 16, page)
    exe.write_bytes(image)
    args = ["-M", "virt", "-m", "64M", "-nodefaults", "-display", "none", *(["-bios", "none"] if option == "-kernel" else []), option, exe]
    assert run(*args) == (7, "", "")
    image[2000] = 1                                             # not headers alone: somebody wants it there
    exe.write_bytes(image)
    status, out, err = run(*args)
    assert (status, out) == (1, "") and "0x7ffff000" in err and "memory begins at 0x80000000" in err


def test_firmware_in_a_folder_of_the_user(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "firmware.bin").write_bytes(program(8))
    args = ["-M", "virt", "-m", "64M", "-nodefaults", "-display", "none", "-bios", "firmware.bin"]
    assert run(*args, "-L", tmp_path / "a", "-L", tmp_path / "b") == (8, "", "")
    for folders, part in (((tmp_path / "a",), "firmware.bin"), ((tmp_path / "nope",), "No such file"), ((tmp_path / "b" / "firmware.bin",), "Not a directory")):
        status, _, err = run(*args, *[w for f in folders for w in ("-L", f)])
        assert status == 1 and part in err, err


def test_not_while_the_machine_runs(tmp_path):
    with Machine("-M", "virt", "-m", "64M", "-accel", "qtest") as m:
        answer = m.qmp.request({"execute": "device_add", "arguments": {"driver": "loader", "id": "l", "addr": RAM, "data": 1, "data-len": 1}})
        assert "error" in answer and "loader" in answer["error"]["desc"]
