# SPDX-License-Identifier: MIT
"""What fuzzers sent to other emulators' adapters until these crashed, done to ours: registers and memory as in the public reports, at the
places that our board has for them. Nothing ends, what has an answer gets the standard's, and the adapter works after a reset of its own."""
import os
import struct
import sys
from contextlib import contextmanager

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.hba import AREA, DATA, INQUIRY, MIB, Ahci, Lsi, Megasas, Mptsas, Sdhci
from lib.pci import MMIO, RAM, PciMachine

NULL = ("-blockdev", "driver=null-co,node-name=n,read-zeroes=on,size=16M")


@contextmanager
def adapter(kind, unit):
    """A driver of the adapter with one unit, which answers INQUIRY when all is over."""
    with PciMachine(*NULL, "-device", kind.DEVICE + ",id=a,addr=1", "-device", unit + ",bus=a.0,drive=n") as m:
        h = kind(m)
        h.begin()
        first = h.inquire()
        yield h
        h.begin()
        assert h.inquire() == first


def words(*values):
    return struct.pack("<%dI" % len(values), *values)


# ---- LSI 53C895A ----

DIP, BUS_FAULT, ILLEGAL = 1, 0x20, 0x01


def run(h, at):
    """Starts a script; (DSTAT, SIST0) once it has stopped."""
    h.wr(0x2c, at)
    h.until(lambda: h.rd(0x14, 1) & 3, "interrupt")
    return h.rd(0x0c, 1), h.rd(0x42, 1)


def test_a_script_that_moves_itself_into_the_registers():
    """QEMU's issue 1563: a MEMORY MOVE from the chip's RAM over ISTAT and DSP starts the script within itself."""
    with adapter(Lsi, "scsi-cd") as h:
        ram = h.fn.place(2, MMIO + 0x2000)
        h.q.write(ram, words(0xc0000024, ram + 0x114, h.bar + 0x14))
        h.q.write(ram + 0x114, words(0x80))
        h.q.write(ram + 0x12c, words(ram))
        assert run(h, ram)[0] & BUS_FAULT


def test_messages_that_cancel_a_command_in_flight():
    """QEMU's issue 972: WRITE SAME is in flight, then BUS DEVICE RESET, IDENTIFY and ABORT TAG come in one message."""
    with adapter(Lsi, "scsi-hd") as h:
        base = RAM + 0x100000
        h.q.write(base + 0x400, bytes([0x41]))                  # WRITE SAME(10): all blocks from 0 on
        h.q.write(base + 0x500, bytes([0x0c, 0x80, 0x0d]))
        h.q.write(base + 0x600, words(base + 0x400))            # indirect addresses
        h.q.write(base + 0x608, words(base + 0x500))
        h.q.write(base, words(0x41000000, base + 0x80,          # select with attention, 64 KiB of zeroes as messages
                              0x06010000, base + 0x10000, 0x07010000, base + 0x30000, 0x22100000, base + 0x600, 0x98080000, 1))
        h.q.write(base + 0x200, words(0x58000008, 0, 0x26010000, base + 0x608, 0x98080000, 2))
        for script in (base, base + 0x10, base + 0x18, base + 0x200):
            run(h, script)


def test_data_that_nobody_asked_for():
    """Launchpad 697510, 1905521, 1908515: block moves while no target is selected, from memory that is not there, too."""
    with adapter(Lsi, "scsi-hd") as h:
        assert run(h, 0xffff0000)[0] & BUS_FAULT
        for phase in range(8):
            h.q.write(AREA, words(phase << 24 | 0x1000, DATA))
            assert run(h, AREA)[1] & 0x04                       # SIST0.UDC
        h.q.write(AREA, words(0, 0))
        assert run(h, AREA) != (0, 0)


def test_a_script_of_great_moves_lets_others_run():
    """Moves of 16 MiB without end: the registers answer between them, and a reset of the chip ends them."""
    with adapter(Lsi, "scsi-hd") as h:
        h.q.write(AREA, words(0xc0ffffff, RAM + 0x2000000, RAM + 0x4000000, 0x80080000, AREA))
        h.wr(0x2c, AREA)
        for _ in range(20):
            assert h.rd(0x14, 1) & 3 == 0
        h.begin()


# ---- MegaRAID ----

class Megasas2108(Megasas):
    DEVICE, BAR, IO = "megasas-gen2", 1, 0


@pytest.mark.parametrize("unit", ["scsi-cd", "scsi-hd"])
@pytest.mark.parametrize("kind", [Megasas, Megasas2108])
def test_a_write_without_a_list(unit, kind):
    """Launchpad 1878263: LD WRITE of 254 blocks and no element, before the queues are set up and behind it."""
    with PciMachine(*NULL, "-device", kind.DEVICE + ",id=a,addr=1", "-device", unit + ",bus=a.0,drive=n") as m:
        h = kind(m)
        at = h.frame(0)
        for ready in (False, True):
            if ready:
                h.begin()
            h.q.write(at, struct.pack("<BBBBBBBBIIHHI", 2, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe).ljust(64, b"\0"))
            h.wr(0x40, at)
            h.answered(0)
            assert h.q.rd(at + 2, 1) != 0
        h.inquire()


def test_a_list_shorter_than_the_read():
    """QEMU's issue 521: LD READ of 65,536 blocks into one element, queued again while it runs."""
    with adapter(Megasas, "scsi-cd") as h:
        at = h.frame(3)
        h.q.write(at, struct.pack("<BBBBBBBBIIHHIQIIQI", 1, 0, 0xff, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0x10000, 0, 0, 0, DATA, 0x01000000))
        for _ in range(4):
            h.wr(0x40, at)
        h.answered(3)
        assert h.q.rd(at + 2, 1) != 0


def test_information_on_a_drive_that_is_not_there():
    """The qtest of QEMU's megasas: DCMD PD GET INFO whose fields are all rubbish went to no drive at all."""
    with adapter(Megasas, "scsi-hd") as h:
        frame = bytearray(words(0x05050505, 0x01010101) + words(*[0x41414141] * 254))
        frame[24:32] = words(0x02020000, 0)
        h.q.write(h.frame(2), bytes(frame))
        h.wr(0x40, h.frame(2))
        h.until(lambda: h.q.rd(h.frame(2) + 2, 1) != 1, "status")
        assert h.q.rd(h.frame(2) + 2, 1) != 0


# ---- Fusion-MPT ----

@pytest.mark.parametrize("more,good", [(2, True), (3, False)])
def test_a_list_of_elements_without_length(more, good):
    """Thousands of elements of no bytes before the one that has some: as many are taken as the longest transfer has pages."""
    with adapter(Mptsas, "scsi-hd") as h:
        h.q.write(DATA, words(0x10000000, 0) * 8190 + words(0xd1000000 | 36, h.data(1)))
        head = struct.pack("<BBBBBBBBI", 0, 0, 12 + 2 * more, 0, 6, 64, 0, 0, 1) + struct.pack(">H6x", 0x4000) + struct.pack("<I", 0x02000000)
        h.message(1, head + INQUIRY.ljust(16, b"\0") + words(36, h.frame(1) + 0x800) + words(0x10000000, 0) * more + words(0x30000000 | 8191 * 8, DATA))
        reply = h.until(lambda: (lambda v: v if v != 0xffffffff else 0)(h.rd(0x44)), "answer")
        assert reply == 1 if good else h.q.rd((reply << 1 & 0xffffffff) + 0x0e, 2) & 0x7fff == 0x0003           # INVALID SGL


# ---- SD ----

CLOCK, HOST_CTL, BLOCK, ARG, MODE, CMD = 0x2c, 0x28, 0x04, 0x08, 0x0c, 0x0e


@pytest.mark.parametrize("accesses,tables", [
    # OSS-Fuzz 29225: a card that was identified with all bits of the argument set, and CMD30 of a group beyond it
    ([(0x2c, "ff"), (0x0f, "b7"), (0x0a, "c9"), (0x0f, "29"), (0x0f, "c2"), (0x28, "f7"), (0x0f, "03"), (0x05, "01"), (0x0b, "ff"), (0x0c, "ff"),
      (0x0e, "ff"), (0x0f, "06"), (0x0f, "9e")], {0x0: 0xe3, 0x7: 0x13, 0x8: 0xe3, 0xf: 0xe3}),
    # OSS-Fuzz 36217: CMD8 in the transfer state, then CMD30
    ([(0x2c, "05"), (0x0f, "37"), (0x0a, "01"), (0x0f, "29"), (0x0f, "02"), (0x0f, "03"), (0x05, "01"), (0x0f, "06"), (0x0c, "05"), (0x0e, "20"),
      (0x0f, "08"), (0x0b, "3d"), (0x0f, "1e")], {}),
    # OSS-Fuzz 36391: ADMA tables in low memory; the block size and the host's control change while a transfer waits
    ([(0x05, "73"), (0x28, "55"), (0x2c, "55"), (0x0c, "55"), (0x0e, "2c"), (0x0f, "5b"), (0x10, "0646"), (0x26, "5a06"), (0x28, "46c0c9c9"),
      (0x28, "55"), (0x2a, "5a"), (0x0c, "27"), (0x0f, "55")],
     {at: v for n in range(0, 0xa0, 8) for at, v in ((n, 0x65), (n + 7, 0x69))} | {0xa0: 0x65, 0xa5: 0xff, 0xa6: 0xff, 0xa7: 0xdf}),
])
@pytest.mark.parametrize("unit", ["sd-card", "emmc"])
def test_registers_of_sd_hosts_by_the_byte(accesses, tables, unit):
    with PciMachine("-blockdev", "driver=null-co,node-name=n,read-zeroes=on,size=16M", "-device", "sdhci-pci,id=a,addr=1",
                    "-device", unit + ",bus=a.0,drive=n") as m:
        h = Sdhci(m)
        for base in (RAM, 0x80000000 - 0x1000):                 # where the table is, and next to nothing
            h.wr(0x2f, 7, 1)
            for at, v in tables.items():
                h.q.wr(RAM + at, v, 1)
            h.wr(0x58, base)
            for reg, data in accesses:
                h.q.write(h.bar + reg, bytes.fromhex(data))
        h.wr(0x2f, 1, 1)
        if unit == "sd-card":
            h.begin()
            assert h.inquire()[8:] != bytes(16)


# ---- AHCI ----

def test_a_reset_does_not_move_a_write_to_the_first_sector(tmp_path):
    """CVE-2023-5088: a write was in flight when the port was reset, and went on at sector 0, over the partition table."""
    (tmp_path / "disk").write_bytes(bytes(16 * MIB))
    node = ("-blockdev", "driver=file,node-name=f,filename=%s" % (tmp_path / "disk"), "-object", "throttle-group,id=slow,x-bps-write=65536",
            "-blockdev", "driver=throttle,node-name=n,throttle-group=slow,file=f")
    with PciMachine(*node, "-device", "ich9-ahci,id=a,addr=1", "-device", "ide-hd,bus=a.0,drive=n") as m:
        h = Ahci(m)
        for how in range(3):
            h.begin()
            h.issue(0, how, bytes([0x27, 0x80, 0x35, 0, 64, 0, 0, 0x40, 0, 0, 0, 0, 128, 0]), b"", b"\xa5" * 65536, 0)
            h.manage(0, how, unit=0, tag=1)
            h.manage(0, how, unit=0, tag=0)
        h.begin()
        assert h.inquire()[8:12].strip()
    assert (tmp_path / "disk").read_bytes()[:64 * 512] == bytes(64 * 512)
