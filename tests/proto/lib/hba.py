# SPDX-License-Identifier: MIT
"""Small drivers of SCSI, SATA and SD adapters over qtest, all with the same face: begin() resets the adapter and sets it up, submit() starts a
command, inquire() runs one that proves that the adapter works. `spoil` stands between a driver and the memory it writes, for fuzzers."""
import struct
import time

from lib.machine import TIMEOUT
from lib.pci import MMIO, RAM, Fn


MIB = 1 << 20
INQUIRY = bytes([0x12, 0, 0, 0, 36, 0])
AREA = RAM + 0x800000                   # of rings and frames; data is behind it
DATA = RAM + 0x1000000


def sent(data):
    """What `spoil` is where nothing is spoilt."""
    return data


class Hba:
    """An adapter in slot 1, id "a"; BAR and IO of its registers are placed."""

    DEVICE, UNITS, BAR, IO, PLUGS = "", (), 0, None, None
    REGISTERS = range(0)                # that a fuzzer may write to
    SLOTS = 8

    def __init__(self, m):
        self.m, self.q, self.spoil = m, m.q, sent
        self.fn = Fn(m.q, 1)
        if self.IO is not None:
            self.fn.place(self.IO, 0x1000)
        self.bar = self.fn.place(self.BAR, MMIO)

    def rd(self, off, size=4):
        return self.q.rd(self.bar + off, size)

    def wr(self, off, v, size=4):
        self.q.wr(self.bar + off, v & (1 << 8 * size) - 1, size)

    def put(self, at, data):
        self.q.write(at, self.spoil(data))

    def until(self, done, what):
        """Waits for DONE() to be true; its value."""
        end = time.monotonic() + TIMEOUT
        while True:
            v = done()
            if v:
                return v
            assert time.monotonic() < end, "%s: no %s" % (self.DEVICE, what)
            self.q.step(1000000)

    def frame(self, slot):
        return AREA + 0x10000 + slot * 0x1000

    def data(self, slot):
        return DATA + slot * MIB

    def inquire(self):
        """INQUIRY data of the first unit; its first 36 bytes."""
        self.q.write(self.data(0), b"\xee" * 64)
        self.submit(0, INQUIRY, b"", 36)
        self.answered(0)
        return self.q.read(self.data(0), 36)


class Virtio(Hba):
    DEVICE, UNITS, PLUGS = "virtio-scsi-pci,disable-legacy=on,t10_pi=on,num_queues=2", ("scsi-hd,protection=on", "scsi-cd"), "scsi-hd"
    SLOTS = 16

    def __init__(self, m):
        self.m, self.q, self.spoil = m, m.q, sent
        self.dev = m.fn(1)
        self.pi = False

    def begin(self, features=6):
        self.pi = bool(features & 8)
        assert self.dev.negotiate(features)
        self.rings = [self.dev.queue(i, 64) for i in range(4)]
        self.dev.start()
        for i in range(8):
            self.rings[1].put((AREA + 64 * i, 16, True), head=i)
        self.dev.kick(self.rings[1])

    def submit(self, slot, cdb, out, n, unit=0, lun=0):
        at, vq = self.frame(slot), self.rings[2 + slot % 2]
        head = bytes([1, unit, 0x40, lun, 0, 0, 0, 0]) + struct.pack("<QBBB", slot, 0, 0, 0)
        if self.pi:
            head += struct.pack("<II", 8 if out else 0, 8 if n else 0)
            n += 8 if n else 0
        self.put(at, head + cdb.ljust(32, b"\0"))
        bufs = [(at, len(head) + 32, False)]
        if out:
            self.put(self.data(slot), out)
            bufs.append((self.data(slot), len(out), False))
        bufs.append((at + 0x800, 108, True))
        if n:
            bufs.append((self.data(slot), n, True))
        vq.put(*bufs, head=4 * (slot // 2 % 8))
        self.dev.kick(vq)

    def answered(self, slot):
        self.rings[2].wait()
        return self.q.read(self.frame(slot) + 0x80a, 2)         # status, response

    def manage(self, slot, subtype, unit=0, lun=0, tag=0):
        """A task management function, or whatever SUBTYPE makes of it."""
        at = self.frame(slot) + 0xc00
        self.put(at, struct.pack("<II", 0, subtype) + bytes([1, unit, 0x40, lun, 0, 0, 0, 0]) + struct.pack("<Q", tag))
        self.rings[0].put((at, 24, False), (at + 64, 8, True), head=2 * (slot % 16))
        self.dev.kick(self.rings[0])


class Megasas(Hba):
    DEVICE, UNITS, IO, PLUGS = "megasas", ("scsi-hd", "scsi-cd"), 2, "scsi-hd"
    REGISTERS = (0x20, 0x2c, 0x30, 0x34, 0xa0, 0xf8, 0xfc, 0xc0, 0xc4, 0x40)
    SLOTS = 16

    def begin(self):
        self.wr(0x20, 0x40)
        self.until(lambda: self.rd(0xb0) >> 28 == 0xb, "ready firmware")
        info, ring = AREA, AREA + 0x1000
        self.put(info, struct.pack("<IIQQQ", 0, 64, ring, ring + 0x800, ring + 0x808))
        self.q.write(self.frame(0), self.head(0) + struct.pack("<Q", info).ljust(40, b"\0"))
        self.wr(0x40, self.frame(0))
        self.until(lambda: self.rd(0xb0) >> 28 == 0xc, "operational firmware")

    def head(self, op, unit=0, lun=0, cdb=0, sge=0, flags=0, n=0):
        return struct.pack("<BBBBBBBBIIHHI", op, 64, 0xff, 0, unit, lun, cdb, sge, 0x1234, 0, flags, 0, n)

    def submit(self, slot, cdb, out, n, unit=0, lun=0, op=None):
        at, count = self.frame(slot), 1 if out or n else 0
        self.q.write(self.data(slot), out)
        self.put(at, self.head(op or (4 if unit else 3), unit, lun, min(len(cdb), 16), count, 8 if out else 16, len(out) or n) + struct.pack("<Q", at + 0x800)
                 + cdb[:16].ljust(16, b"\0") + struct.pack("<II", self.data(slot), len(out) or n))
        self.wr(0x40, at)

    def answered(self, slot):
        self.until(lambda: self.q.rd(self.frame(slot) + 2, 1) != 0xff, "status")

    def manage(self, slot, subtype, unit=0, lun=0, tag=0):
        """A direct command, or the abort of the frame in slot TAG."""
        at = self.frame(slot)
        if subtype & 1:
            self.put(at, self.head(6) + struct.pack("<Q", 0) + struct.pack("<Q", self.frame(tag)).ljust(32, b"\0"))
        else:
            ops = (0x01010000, 0x01020100, 0x01020200, 0x01040100, 0x01040300, 0x01040500, 0x01050000, 0x01080201, 0x01101000, 0x02010000, 0x02010100,
                   0x02020000, 0x03010000, 0x03010100, 0x08010100, 0x08010200, 0x05000000)
            self.put(at, self.head(5, sge=1, flags=16, n=2048) + struct.pack("<III", ops[subtype // 2 % len(ops)], unit | lun << 16, tag).ljust(16, b"\0")
                     + struct.pack("<II", self.data(slot), 2048))
        self.wr(0x40, at)


class Mptsas(Hba):
    DEVICE, UNITS, BAR, IO, PLUGS = "mptsas1068", ("scsi-hd", "scsi-cd"), 1, 0, "scsi-hd"
    REGISTERS = (0x00, 0x04, 0x08, 0x30, 0x34, 0x40, 0x44, 0x48)
    SLOTS = 16

    def handshake(self, message):
        self.wr(0, 0x42000000 | len(message) // 4 << 16)
        self.wr(0x30, 0)
        for at in range(0, len(message), 4):
            self.wr(0, struct.unpack_from("<I", message, at)[0])
        for _ in range(40):                                     # half words of the answer
            if not self.rd(0x30) & 1:
                break
            self.rd(0)
            self.wr(0x30, 0)

    def begin(self):
        for key in (0, 4, 0xb, 2, 7, 0xd):
            self.wr(4, key)
        self.wr(8, 4)
        self.until(lambda: self.rd(0) >> 28 == 1, "ready controller")
        self.handshake(self.spoil(struct.pack("<BBBBBBBBIHHII", 4, 0, 0, 2, 0, 8, 1, 0, 0, 128, 0, 0, 0)))
        for i in range(32):
            self.wr(0x44, AREA + 0x80 * i)

    def message(self, slot, data):
        self.put(self.frame(slot), data.ljust(128, b"\0"))
        self.wr(0x40, self.frame(slot))

    def submit(self, slot, cdb, out, n, unit=0, lun=0):
        self.q.write(self.data(slot), out)
        way, size = 0x01000000 if out else 0x02000000 if n else 0, len(out) or n
        self.message(slot, struct.pack("<BBBBBBBBI", unit, 0, 0, 0, min(len(cdb), 16), 64, 0, 0, slot) + struct.pack(">H6x", 0x4000 | lun)
                     + struct.pack("<I", way) + cdb[:16].ljust(16, b"\0") + struct.pack("<III", size, self.frame(slot) + 0x800, 0xd1000000 | size)
                     + struct.pack("<I", self.data(slot)))

    def answered(self, slot):
        self.until(lambda: self.rd(0x44) != 0xffffffff, "answer")

    def manage(self, slot, subtype, unit=0, lun=0, tag=0):
        """Task management, a configuration page, or another function."""
        if subtype < 8:
            self.message(slot, struct.pack("<BBBBBBBBI", unit, 0, 0, 1, 0, subtype, 0, 0, slot) + struct.pack(">H6x", 0x4000 | lun) + struct.pack("<28xI", tag))
        elif subtype < 16:
            kind = (0, 1, 2, 9, 0x0f)[tag % 5]
            self.message(slot, struct.pack("<BBBBHBBI", subtype % 7, 0, 0, 4, 0, 0x10 + tag % 6, 0, slot) + struct.pack("<8xBBBBIII", 0, 8, lun, kind, unit,
                         0xd1000000 | 256, self.data(slot)))
        else:
            self.message(slot, struct.pack("<BBBBBBBBI", lun, 0, 0, subtype & 0x1f, unit, 8, tag & 0xff, 0, slot))


class Lsi(Hba):
    DEVICE, UNITS, BAR, IO, PLUGS = "lsi53c895a", ("scsi-hd", "scsi-cd"), 1, 0, "scsi-hd"
    REGISTERS = range(0, 0xe0)

    def begin(self):
        self.wr(0x14, 0x40, 1)
        self.wr(0x14, 0, 1)

    def script(self, slot, cdb, out, n, unit, lun, message):
        at, p = self.frame(slot), self.frame(slot) + 0x400
        code = [0x41000000 | unit << 16, at + 0x200, 0x0e000000 | len(message), p, 0x0a000000 | len(cdb), p + 0x40]
        if out or n:
            code += [(0x08000000 if out else 0x09000000) | (len(out) or n), self.data(slot)]
        code += [0x0b000001, p + 0x60, 0x0f000001, p + 0x61, 0x60000040, 0, 0x48000000, 0, 0x98080000, 0x600d]
        self.q.write(p, message.ljust(0x40, b"\0") + cdb)
        return struct.pack("<%dI" % len(code), *code)

    def submit(self, slot, cdb, out, n, unit=0, lun=0, message=b""):
        code = self.script(slot, cdb, out, n, unit, lun, message or bytes([0x80 | lun]))
        self.q.write(self.data(slot), out)
        self.put(self.frame(slot), code)
        self.put(self.frame(slot) + 0x200, struct.pack("<8I", 0x50000000, 0, 0x0f000001, self.frame(slot) + 0x461, 0x60000040, 0, 0x98080000, 0xbad))
        self.wr(0x2c, self.frame(slot))

    def answered(self, slot):
        self.until(lambda: self.rd(0x14, 1) & 3, "interrupt")
        dstat, dsps = self.rd(0x0c, 1), self.rd(0x30)
        assert dstat & 4 and dsps == 0x600d, (dstat, dsps, self.rd(0x42, 2))

    def manage(self, slot, subtype, unit=0, lun=0, tag=0):
        """A command behind messages of all kinds, mostly one that lets the target leave."""
        messages = (bytes([0xc0 | lun]), bytes([0xc0 | lun, 0x20, tag & 0xff]), b"\x0c", bytes([0x80 | lun, 0x06]), bytes([0x80 | lun, 0x17]),
                    bytes([0x80 | lun, 0x20, tag & 0xff, 0x0d]), b"\x80\x01\x03\x01\x0c\x08", b"\x0e")
        self.submit(slot, bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0]), b"", 4096, unit, lun, messages[subtype % len(messages)])


class Ahci(Hba):
    DEVICE, UNITS, BAR, PLUGS = "ich9-ahci", ("ide-hd", "ide-cd"), 5, "ide-hd"
    REGISTERS = (0x04, 0x08) + tuple(p + r for p in (0x100, 0x180, 0x200) for r in (0, 4, 8, 12, 0x10, 0x14, 0x18, 0x2c, 0x30, 0x34, 0x38))
    ATA = (0x00, 0x06, 0x20, 0x24, 0x25, 0x29, 0x2f, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x45, 0x47, 0x57, 0x60, 0x61, 0x63, 0x64, 0x90, 0xa1, 0xb0, 0xb4, 0xc4, 0xc5,
           0xc6, 0xc8, 0xca, 0xce, 0xe0, 0xe1, 0xe5, 0xe7, 0xea, 0xec, 0xef, 0xf5, 0xf8)

    def begin(self):
        self.wr(4, 0x80000001)
        for port in range(2):
            base = 0x100 + 0x80 * port
            for off, v in ((0, AREA + 0x1000 * port), (4, 0), (8, AREA + 0x4000 + 0x1000 * port), (12, 0), (0x30, 0xffffffff), (0x14, 0xffffffff), (0x18, 0x17)):
                self.wr(base + off, v)

    def issue(self, port, slot, fis, cdb, out, n, flags=0, queued=False):
        base, table = 0x100 + 0x80 * port, self.frame(slot) + 0x800 * port
        self.q.write(self.data(slot), out)
        self.put(AREA + 0x1000 * port + 32 * slot, struct.pack("<HHIQ", 5 | flags | (0x40 if out else 0), 1 if out or n else 0, 0, table))
        self.put(table, fis.ljust(64, b"\0") + cdb[:16].ljust(16, b"\0"))
        self.put(table + 0x80, struct.pack("<QII", self.data(slot), 0, max((len(out) or n) - 1, 0)))
        if queued:
            self.wr(base + 0x34, 1 << slot)
        self.wr(base + 0x38, 1 << slot)

    def submit(self, slot, cdb, out, n, unit=0, lun=0):
        """To the disk: an ATA command picked by the block's operation code; to the drive: the packet."""
        if unit & 1:
            self.issue(1, slot, bytes([0x27, 0x80, 0xa0, 1]), cdb, out, n, 0x20)
            return
        op = self.ATA[cdb[0] % len(self.ATA)]
        queued = op in (0x60, 0x61, 0x63, 0x64)
        count = max(len(out) or n, 512) // 512
        low, high = (slot << 3, count) if queued else (count & 0xff, 0)
        self.issue(0, slot, bytes([0x27, 0x80, op, high & 0xff, cdb[5], cdb[4], 0, 0x40, 0, 0, 0, 0, low, 0]), cdb, out, n, queued=queued)

    def inquire(self):
        """Identification of the disk: its model, in INQUIRY's place."""
        self.issue(0, 0, bytes([0x27, 0x80, 0xec]), b"", b"", 512)
        self.answered(0)
        raw = self.q.read(self.data(0), 512)[54:94]
        return bytes(8) + b"".join(raw[i:i + 2][::-1] for i in range(0, 28, 2))

    def answered(self, slot):
        self.until(lambda: not self.rd(0x138) >> slot & 1, "end")

    def manage(self, slot, subtype, unit=0, lun=0, tag=0):
        """A software reset, the port stopped and started, a COMRESET."""
        port = unit & 1
        base = 0x100 + 0x80 * port
        if subtype % 3 == 0:
            self.issue(port, slot, bytes([0x27, 0]).ljust(15, b"\0") + bytes([4 * (tag & 1)]), b"", b"", 0)
        elif subtype % 3 == 1:
            self.wr(base + 0x18, 0x10)
            self.wr(base + 0x18, 0x11)
        else:
            self.wr(base + 0x2c, tag & 1)


class Sdhci(Hba):
    DEVICE, UNITS, PLUGS = "sdhci-pci", ("sd-card",), "sd-card"
    REGISTERS = tuple(range(0, 0x60, 4))

    def command(self, index, arg=0, flags=0x1a, mode=0):
        """Sends one and waits for what it raises; the response's first word."""
        self.wr(0x30, 0xffffffff)
        self.wr(0x08, arg)
        self.wr(0x0c, mode | (index << 8 | flags) << 16)
        self.until(lambda: self.rd(0x30) & 0xffff8001, "response")
        return self.rd(0x10)

    def begin(self):
        self.wr(0x2f, 1, 1)
        self.wr(0x34, 0xffffffff)
        self.wr(0x28, 0x0f00)
        self.wr(0x2c, 0x000e0005)
        self.command(0, flags=0)
        self.command(8, 0x1aa)
        for _ in range(4):
            self.command(55)
            if self.command(41, 0x40ff8000, 2) >> 31:
                break
        self.command(2, flags=9)
        self.rca = self.command(3) & 0xffff0000
        self.command(7, self.rca, 0x1b)

    def submit(self, slot, cdb, out, n, unit=0, lun=0):
        """A command picked by the block's operation code, with data by the data port, SDMA or ADMA2."""
        index = (17, 18, 24, 25, 6, 13, 9, 10, 12, 16, 20, 23, 27, 28, 29, 30, 32, 33, 38, 42, 51, 55, 56, 22, 41, 0, 3, 7, 11, 15, 19)[cdb[0] % 31]
        at, size, how = self.frame(slot), len(out) or n, cdb[4] % 3
        count = max(size // 512, 1)
        mode = (0x10 if n else 0) | (0x22 if count > 1 else 0) | (4 if index in (18, 25) else 0) | (1 if how else 0)
        self.put(at, struct.pack("<HHIHHI", 0x21, 512, self.data(slot), 0x23, (size - 512) & 0xffff, self.data(slot) + 512))
        self.wr(0x28, 0x10 if how == 2 else 0, 1)
        for off, v in ((0, self.data(slot)), (4, 0x7000 | 512 | count << 16), (0x58, at)):
            self.wr(off, struct.unpack("<I", self.spoil(struct.pack("<I", v & 0xffffffff)))[0])
        self.wr(0x08, self.rca if index in (7, 9, 10, 13, 55) else cdb[5])
        self.wr(0x0c, mode | (index << 8 | 0x1a | (0x20 if out or n else 0)) << 16)
        for _ in range(min(size // 4, 64)):
            self.wr(0x20, 0x5a5a5a5a) if out else self.rd(0x20)

    def inquire(self):
        """The manufacturer's part of CID, in INQUIRY's place."""
        self.command(7, 0, 0)
        self.command(10, self.rca, 9)
        return bytes(8) + self.q.read(self.bar + 0x10, 16)[::-1]

    def manage(self, slot, subtype, unit=0, lun=0, tag=0):
        """Resets of lines, an abort, other clocks and voltages."""
        if subtype % 3 == 0:
            self.wr(0x2f, 1 << tag % 3, 1)
        elif subtype % 3 == 1:
            self.wr(0x0c, (12 << 8 | 0xdb) << 16)
        else:
            self.wr(0x3c, tag << 16)


ADAPTERS = (Virtio, Megasas, Mptsas, Lsi, Ahci, Sdhci)
