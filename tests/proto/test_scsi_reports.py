# SPDX-License-Identifier: MIT
"""What public bug reports on SCSI disks and their adapters did to other emulators, done to these: the answer is the standard's, and the
disk behind it goes on."""
import os
import struct
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.hba import Lsi, Megasas, Virtio
from lib.pci import MMIO, RAM, Fn, PciMachine
from lib.virtio import VirtioMachine

HD, CD = (1, 0), (1, 1)
GOOD, CHECK, OVERRUN, BAD_TARGET = 0, 2, 1, 3
MIB = 1 << 20


class Scsi:
    """A virtio-scsi driver: one command at a time."""

    def __init__(self, m):
        self.fn = m.fn(1)
        assert self.fn.negotiate()
        self.q = [self.fn.queue(i) for i in range(3)]
        self.fn.start()
        self.room = RAM + 0x400000
        for unit in (HD, CD):
            self.cmd("00", unit=unit)               # power on is told

    def put(self, vq, *bufs):
        self.fn.q.write(self.room + 0x800, b"\xee" * 256)
        vq.put(*bufs)
        self.fn.kick(vq)
        vq.wait()

    def cmd(self, cdb, out=b"", n=0, unit=HD, lun=None):
        """(response, status, sense as 0xKKAAQQ, the data, how much of it was not used)"""
        q, at = self.fn.q, self.room
        cdb = bytes.fromhex(cdb.replace(" ", "")).ljust(32, b"\0")
        q.write(at, (lun or bytes([1, unit[0], 0x40, unit[1], 0, 0, 0, 0])) + struct.pack("<QBBB", 1, 0, 0, 0) + cdb)
        bufs = [(at, 51, False)]
        if out:
            q.write(at + 0x1000, out)
            bufs.append((at + 0x1000, len(out), False))
        bufs.append((at + 0x800, 108, True))
        if n:
            bufs.append((at + 0x10000, n, True))
        self.put(self.q[2], *bufs)
        r = q.read(at + 0x800, 108)
        _, residual, _, status, response = struct.unpack("<IIHBB", r[:12])
        return response, status, (r[14] & 15) << 16 | r[24] << 8 | r[25], q.read(at + 0x10000, n) if n else b"", residual

    def alive(self):
        assert self.cmd("28 00 00000000 00 0001 00", n=512)[:2] == (0, GOOD)


@pytest.fixture(name="scsi", scope="module")
def scsi_machine(tmp_path_factory):
    d = tmp_path_factory.mktemp("reports")
    for name in ("hd", "cd"):
        (d / name).write_bytes(bytes(range(256)) * (4 * MIB // 256))
    node = "driver=raw,node-name=%s,discard=unmap,file.driver=file,file.filename=" + str(d) + "/%s"
    with VirtioMachine(d, "-nodefaults", "-device", "virtio-scsi-pci,addr=1", "-blockdev", node % ("hd", "hd"), "-blockdev", node % ("cd", "cd"),
                       "-device", "scsi-hd,drive=hd,scsi-id=1,lun=0", "-device", "scsi-cd,drive=cd,scsi-id=1,lun=1") as m:
        yield Scsi(m)


@pytest.fixture(autouse=True)
def still_there(request):
    yield
    if "scsi" in request.fixturenames:
        request.getfixturevalue("scsi").alive()


@pytest.mark.parametrize("head,cdb", [("00000008", "15 10 00 00 0c 00"), ("0000000000000008", "55 10 00 00 00 00 00 00 10 00")])
@pytest.mark.parametrize("block", [0, 1, 255, 0xffffff])
def test_a_block_length_that_would_divide_by_zero(scsi, head, cdb, block):
    """MODE SELECT gave the disk blocks of no bytes; the next transfer divided by them (CVE-2023-42467)."""
    assert scsi.cmd(cdb, bytes.fromhex(head) + struct.pack(">II", 8192, block))[:3] == (0, CHECK, 0x052600)
    assert scsi.cmd("25 00 00000000 00 0000 00", n=8)[3] == struct.pack(">II", 8191, 512)


@pytest.mark.parametrize("alloc", [0, 1, 7, 15])
def test_report_luns_with_little_room(scsi, alloc):
    """An allocation length below 16 ended in an assertion."""
    r = scsi.cmd("a0 00 00 00 00 00 %08x 00 00" % alloc, n=32)
    assert r[:2] == (0, GOOD) and r[4] == 32 - alloc


@pytest.mark.parametrize("compat,offered", [([], False), (["-compat", "qemu"], True)])
def test_unmap_where_the_back_end_does_not_discard(tmp_path, compat, offered):
    """Not offered; where QEMU is asked for, done without an effect."""
    data = bytes(range(256)) * 4096
    for name in ("hd", "cd"):
        (tmp_path / name).write_bytes(data)
    node = "driver=raw,node-name=%s,file.driver=file,file.filename=" + str(tmp_path) + "/%s"
    with VirtioMachine(tmp_path, "-nodefaults", *compat, "-device", "virtio-scsi-pci,addr=1,disable-legacy=on", "-blockdev", node % ("hd", "hd"),
                       "-blockdev", node % ("cd", "cd"), "-device", "scsi-hd,drive=hd,scsi-id=1,lun=0", "-device", "scsi-cd,drive=cd,scsi-id=1,lun=1") as m:
        s = Scsi(m)
        r = s.cmd("42 00 00 00 00 00 00 0018 00", struct.pack(">HH4xQI4x", 22, 16, 0, 8))
        assert r[:2] == (0, GOOD) if offered else r[:3] == (0, CHECK, 0x052000)
        assert s.cmd("9e 10 0000000000000000 00000020 00 00", n=32)[3][14] == (0x80 if offered else 0)      # LBPME
        assert s.cmd("28 00 00000000 00 0001 00", n=512)[3] == data[:512]


@pytest.mark.parametrize("cdb", ["2a 00 00000000 00 0001 00", "aa 00 00000000 00000001 00 00", "2e 00 00000000 00 0001 00"])
def test_a_cd_is_not_written(scsi, cdb):
    """The medium is write protected: 27h/00h, sense key DATA PROTECT (SPC-5), not a command that the drive never heard of."""
    assert scsi.cmd(cdb, bytes(2048), unit=CD)[:3] == (0, CHECK, 0x072700)
    assert scsi.cmd("28 00 00000000 00 0001 00", n=2048, unit=CD)[3][:16] == bytes(range(16))


@pytest.mark.parametrize("cdb,out,n,status,sense", [
    ("28 00 ffffffff 00 ffff 00", b"", 4096, CHECK, 0x052100),                     # the end of the range wraps
    ("88 00 ffffffffffffffff 00000001 00 00", b"", 512, CHECK, 0x052100),
    ("8f 00 fffffffffffffff0 00000020 00 00", b"", 0, CHECK, 0x052100),
    ("93 08 0000000000000000 ffffffff 00 00", bytes(512), 0, CHECK, 0x052100),     # WRITE SAME far beyond the end
    ("42 00 00 00 00 00 00 0018 00", struct.pack(">HH4xQI4x", 22, 16, 1 << 63, 8), 0, CHECK, 0x052100),
    ("42 00 00 00 00 00 00 0008 00", struct.pack(">HH4x", 0xfffe, 0xfff0), 0, CHECK, None),     # lengths that are not there
    ("42 00 00 00 00 00 00 0004 00", bytes(4), 0, CHECK, 0x051a00),
    ("5f 00 00 00 00 ffffffff 00", bytes(24), 0, CHECK, 0x051a00),                 # four gigabytes of parameters
    ("15 10 00 00 ff 00", bytes(4), 0, GOOD, None),                                # a list without pages, and shorter than it says
    ("55 10 00 00 00 00 00 ffff 00", bytes(8), 0, CHECK, 0x051a00),
    ("48 01 00 00 00 00 00 0008 00", struct.pack(">BBH4x", 1, 0, 0xffff), 0, CHECK, 0x052600),  # SANITIZE with a pattern beyond its list
    ("48 01 00 00 00 00 00 ffff 00", struct.pack(">BBH", 1, 0, 0xffff), 0, CHECK, 0x052400),    # and with a list beyond any
    ("3b 02 00 ffffff ffffff 00", bytes(16), 0, CHECK, None),                      # WRITE BUFFER at an offset that is not there
    ("3c 02 00 ffffff ffffff 00", b"", 64, CHECK, None),
    ("1c 01 ff ffff 00", b"", 64, CHECK, 0x052000),
    ("7f 00 00 00 00 00 00 ff 00 0b", b"", 64, CHECK, 0x052000),                   # a command block longer than any
])
def test_ranges_and_lengths_that_lie(scsi, cdb, out, n, status, sense):
    r = scsi.cmd(cdb, out, n)
    assert r[0] == 0 and r[1] == status and (sense is None or r[2] == sense), r


@pytest.mark.parametrize("cdb,n", [
    ("43 00 00 00 00 00 00 0001 00", 1), ("43 02 02 00 00 00 00 ffff 80", 64), ("43 00 05 00 00 00 ff ffff 00", 64),
    ("46 00 ffff 00 00 00 0001 00", 8), ("4a 01 00 00 10 00 00 0001 00", 8), ("51 00 00 00 00 00 00 0002 00", 8),
    ("be 00 ffffffff ffffff f8 00 00", 4096),                                      # READ CD of blocks that are not there
    ("28 00 ffffffff 00 0001 00", 2048), ("a8 00 7fffffff ffffffff 00 00", 2048), ("ad 00 00000000 00 ff ffff 00 00", 64),
    ("42 02 40 01 00 00 00 ffff 00", 64), ("bd 00 00 00 00 00 00 00 ffff 00 00", 16),
])
def test_a_cd_drive_takes_what_fuzzers_sent(scsi, cdb, n):
    """The CD drive read before its first block (CVE-2020-29443), and wrote more than it was asked for."""
    r = scsi.cmd(cdb, n=n, unit=CD)
    assert r[0] in (0, OVERRUN) and r[1] in (GOOD, CHECK) and r[4] <= n
    assert scsi.cmd("28 00 00000001 00 0001 00", n=2048, unit=CD)[:2] == (0, GOOD)


@pytest.mark.parametrize("lun,response", [
    (bytes(8), BAD_TARGET), (b"\xff" * 8, BAD_TARGET), (b"\x01\x01\x80\x00" + bytes(4), BAD_TARGET), (b"\x01\x02\x40\x00" + bytes(4), BAD_TARGET),
    (b"\x01\x01\x40\x00\x00\x00\x00\x01", BAD_TARGET),
])
def test_addresses_of_nothing(scsi, lun, response):
    assert scsi.cmd("00", lun=lun)[0] == response


def test_a_buffer_shorter_than_the_transfer(scsi):
    """A read of many blocks into few bytes wrote behind them."""
    scsi.fn.q.write(scsi.room + 0x10000, b"\xaa" * 4096)
    assert scsi.cmd("28 00 00000000 00 0008 00", n=512)[0] == OVERRUN
    assert scsi.fn.q.read(scsi.room + 0x10200, 512) == b"\xaa" * 512
    assert scsi.cmd("2a 00 00000000 00 0008 00", out=bytes(512))[0] == OVERRUN


def test_task_management_of_nothing(scsi):
    """Aborts of what is not there, and functions that do not exist, asserted."""
    for kind, sub in ((0, 0), (0, 1), (0, 2), (0, 5), (0, 77), (1, 0), (2, 0)):
        scsi.fn.q.write(scsi.room, struct.pack("<II", kind, sub) + bytes([1, 1, 0x40, 0, 0, 0, 0, 0]) + struct.pack("<Q", 0xdead))
        scsi.put(scsi.q[0], (scsi.room, 24, False), (scsi.room + 0x800, 8, True))
    scsi.cmd("00")                                  # what a reset left is told


# ---- adapters: register writes of fuzzers ----

NULL = ("-blockdev", "driver=null-co,node-name=n,size=1M")


def adapter(device, *more):
    return PciMachine("-device", device + ",id=a,addr=1", *NULL, "-device", "scsi-hd,bus=a.0,drive=n", *more)


def alive(m, device):
    assert "dev: %s" % device.split(",", maxsplit=1)[0] in m.qmp.hmp("info qtree")


@pytest.mark.parametrize("flags,count", [(0, 0), (1, 1), (0x22, 255), (0x18, 128)])
def test_megasas_frames_of_rubbish(flags, count):
    """Frames before the rings are there, with a reply ring that is not RAM, and with lists that lead back into the controller."""
    with adapter("megasas") as m:
        fn = Fn(m.q, 1)
        bar = fn.place(0, MMIO)
        fn.place(2, 0x1000)
        init, info, frame = RAM + 0x1000, RAM + 0x2000, RAM + 0x3000
        for op in range(8):                         # not initialised yet
            m.q.write(frame, struct.pack("<BBBBBBBBI", op, 0, 0xff, 0, 0xff, 0xff, 0xff, count, 1).ljust(64, b"\xff"))
            m.q.wr(bar + 0x40, frame | 7, 4)
        m.q.write(info, struct.pack("<IIQQQ", 0, 0xffffffff, MMIO, 1 << 63, MMIO + 8))
        m.q.write(init, struct.pack("<BBBBIIIHHI", 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 32).ljust(24, b"\0") + struct.pack("<Q", info) + bytes(32))
        m.q.wr(bar + 0x40, init, 4)
        m.q.write(info, struct.pack("<IIQQQ", 0, 1000, RAM + 0x8000, RAM + 0x9000, RAM + 0x9008))
        m.q.write(RAM + 0x9000, struct.pack("<QQ", 0xffffffff, 0xffffffff))     # indexes beyond the ring (CVE-2020-13362)
        m.q.wr(bar + 0x40, init, 4)
        for op in range(1, 16):
            body = struct.pack("<BBBBBBBBII", op, 0, 0xff, 0, 0, 0, 16, count, 1, 0) + struct.pack("<HHI", flags, 0, 0xffffffff)
            m.q.write(frame, body.ljust(40, b"\0") + struct.pack("<II", MMIO, 0xffffffff) * 8)
            m.q.wr(bar + 0x40, frame, 4)
        for msg in (1, 2, 0x20, 0x40):
            m.q.wr(bar + 0x20, msg, 4)
        alive(m, "megasas")


def test_mptsas_messages_of_rubbish():
    """Requests ended twice when a task was aborted and the adapter reset (CVE-2021-3392); a doorbell without its handshake."""
    with adapter("mptsas1068") as m:
        fn = Fn(m.q, 1)
        fn.place(0, 0x1000)
        bar = fn.place(1, MMIO)
        frame = RAM + 0x1000
        for function in range(32):
            m.q.write(frame, struct.pack("<BBBB", 0, 0xff, 0xff, function) + b"\xff" * 124)
            m.q.wr(bar + 0x40, frame, 4)
            m.q.wr(bar + 0x40, frame, 4)            # the same frame once more while it is being looked at
            if function & 3 == 3:
                m.q.wr(bar + 0x00, 0x40000000, 4)   # reset of the message unit
        for word in (0x42ff0000, 0x42000000, 0xffffffff, 0, 0x42010000):
            m.q.wr(bar + 0x00, word, 4)
        for _ in range(8):
            m.q.rd(bar + 0x00, 4)
            m.q.wr(bar + 0x30, 0, 4)
        alive(m, "mptsas1068")


@pytest.mark.parametrize("script", [
    struct.pack("<II", 0x80880000, 0xfffffff8),                                     # a jump to itself (CVE-2019-12068)
    struct.pack("<II", 0x80880000, 0) * 2, struct.pack("<II", 0xffffffff, 0xffffffff),
    struct.pack("<III", 0xc0ffffff, MMIO, MMIO + 4),                                # MEMORY MOVE into the adapter (CVE-2023-0330)
    struct.pack("<II", 0x40000000, 0) + struct.pack("<II", 0x0e000008, RAM + 0x4000) + struct.pack("<II", 0x40000000, 0),
    struct.pack("<II", 0x45000000, 0) + struct.pack("<II", 0x0effffff, RAM + 0x4000),    # messages out without end (CVE-2022-0216)
    struct.pack("<II", 0x78ff0100, 0) * 4, struct.pack("<II", 0xe2ffffff, MMIO), struct.pack("<II", 0x88080000, 0) * 3,
])
def test_lsi_scripts_of_rubbish(script):
    with adapter("lsi53c895a") as m:
        fn = Fn(m.q, 1)
        fn.place(0, 0x1000)
        bar = fn.place(1, MMIO)
        fn.place(2, MMIO + 0x2000)
        m.q.write(RAM + 0x4000, b"\x06\x0d\xc0\x80" * 64)                           # ABORT, ABORT TAG, IDENTIFY
        m.q.write(RAM + 0x1000, script.ljust(64, b"\x98"))
        for reg in (0x14, 0x3b, 0x40, 0x48):
            m.q.wr(bar + reg, 0xff, 1)
        for _ in range(3):
            m.q.wr(bar + 0x2c, RAM + 0x1000 & 0xffffffff, 4)
            m.q.wr(bar + 0x14, 0x40, 1)
        m.q.wr(bar + 0x14, 0x40, 1)
        m.q.wr(bar + 0x01, 0x08, 1)                 # a reset of the bus in the middle
        alive(m, "lsi53c895a")


def test_lsi_commands_without_end():
    """SCRIPTS that start commands and never take their status: at some number the target leaves the bus, and a reset frees them all."""
    with PciMachine("-device", Lsi.DEVICE + ",id=a,addr=1", *NULL, "-device", "scsi-hd,bus=a.0,drive=n") as m:
        h = Lsi(m)
        h.begin()
        at = h.frame(0)
        m.q.write(at + 0x400, b"\x80".ljust(64, b"\0") + bytes(6))           # IDENTIFY; TEST UNIT READY
        m.q.write(at, struct.pack("<8I", 0x41000000, at + 0x200, 0x0e000001, at + 0x400, 0x0a000006, at + 0x440, 0x830b0000, at))  # again, when there is a status
        h.wr(0x2c, at)
        h.until(lambda: h.rd(0x14, 1) & 2, "interrupt")
        assert h.rd(0x42, 2) == 4 and h.rd(0x0c, 1) & 0x7f == 0                 # unexpected disconnect
        for _ in range(200):                                                    # resets of the bus beside each other
            h.wr(0x01, 8, 1)
            h.wr(0x01, 0, 1)
        h.begin()
        assert h.inquire()[8:12] == b"QEMU"


@pytest.mark.parametrize("kind", [Virtio, Megasas, Lsi], ids=lambda k: k.__name__.lower())
def test_units_hear_of_each_other(kind):
    """REPORTED LUNS DATA HAS CHANGED on the target's other units when one comes or goes, whatever the adapter; REPORT LUNS clears it."""
    with VirtioMachine(tempfile.gettempdir(), "-nodefaults", "-device", kind.DEVICE + ",id=a,addr=1", *NULL, "-blockdev", "driver=null-co,node-name=o,size=1M",
                       "-device", "scsi-hd,bus=a.0,drive=n,scsi-id=0,lun=0") as m:
        h = kind(m)
        h.begin()

        def sense():
            """Sense code and qualifier that REQUEST SENSE tells."""
            h.submit(0, bytes([3, 0, 0, 0, 18, 0]), b"", 18)
            h.answered(0)
            return m.q.read(h.data(0) + 12, 2)

        assert sense()[0] == 0x29
        m.qmp.cmd("device_add", driver="scsi-hd", bus="a.0", drive="o", id="hot", scsi_id=0, lun=1)
        assert sense() == b"\x3f\x0e" and sense() == b"\0\0"
        m.qmp.cmd("device_del", id="hot")
        m.qmp.wait_event("DEVICE_DELETED")
        h.submit(0, bytes([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]), b"", 16)
        h.answered(0)
        assert m.q.read(h.data(0), 4) == bytes([0, 0, 0, 8]) and sense() == b"\0\0"


@pytest.mark.parametrize("command", [0x25, 0xc8, 0xa0, 0x60, 0x61, 0x06, 0x2f, 0xb0, 0xec, 0xff])
@pytest.mark.parametrize("prdtl,bytes_", [(0, 0), (1, 1), (1, 511), (2, 0x3fffff), (0xffff, 1)])
def test_ahci_lists_that_fit_no_command(command, prdtl, bytes_):
    """Lists of odd lengths, none at all, or into registers: an assertion on whole sectors (CVE-2019-20175), NULL vectors at the end."""
    with PciMachine("-device", "ich9-ahci,id=a,addr=1", *NULL, "-device", "ide-hd,bus=a.0,drive=n") as m:
        fn = Fn(m.q, 1)
        bar = fn.place(5, MMIO)
        port, table = bar + 0x100, RAM + 0x3000
        m.q.wr(bar + 4, 0x80000002, 4)
        for off, v in ((0, RAM + 0x1000), (4, 0), (8, RAM + 0x2000), (12, 0)):
            m.q.wr(port + off, v & 0xffffffff, 4)
        m.q.wr(port + 0x18, 0x11, 4)
        m.q.write(RAM + 0x1000, struct.pack("<HHIQ", 5 | (0x20 if command == 0xa0 else 0), prdtl, 0, table))
        m.q.write(table, bytes([0x27, 0x80, command, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 8, 0, 0, 0]).ljust(0x80, b"\0"))
        m.q.write(table + 0x80, struct.pack("<QII", RAM + 0x10000, 0, bytes_) + struct.pack("<QII", MMIO, 0, bytes_))
        m.q.wr(port + 0x38, 1, 4)
        m.q.wr(port + 0x18, 0, 4)                   # stopped while it may be running
        m.q.wr(port + 0x18, 0x11, 4)
        m.q.wr(bar + 4, 0x80000003, 4)              # and reset
        alive(m, "ich9-ahci")
