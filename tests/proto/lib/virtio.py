# SPDX-License-Identifier: MIT
"""A small virtio driver over the qtest protocol: functions on the root bus, modern or legacy registers, split rings, polled."""
import struct
import time

from lib.machine import TIMEOUT
from lib.nvme import ECAM, MMIO, RAM, Qtest
from lib.qtest import QtestMachine

PIO = 0x3000000                         # where the board shows I/O ports
VERSION_1, RING_RESET = 1 << 32, 1 << 40
COMMON, NOTIFY, ISR, DEVICE, WINDOW = 1, 2, 3, 4, 5
ACK, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 64


class Queue:
    """A split ring of the driver."""

    def __init__(self, fn, index, size, addr):
        self.fn, self.index, self.size = fn, index, size
        self.desc, self.avail = addr, addr + 16 * size
        self.used = (self.avail + 6 + 2 * size + 4095) & ~4095
        self.next = self.seen = 0
        fn.q.cmd("memset 0x%x 0x%x 0x0" % (addr, self.used + 4096 - addr))

    def put(self, *bufs, head=0):
        """Makes one chain available: (address, length, device writes)..."""
        for i, (addr, n, writes) in enumerate(bufs):
            flags = (1 if i + 1 < len(bufs) else 0) | (2 if writes else 0)
            self.fn.q.write(self.desc + 16 * (head + i), struct.pack("<QIHH", addr, n, flags, head + i + 1))
        self.fn.q.write(self.avail + 4 + 2 * (self.next % self.size), struct.pack("<H", head))
        self.next += 1
        self.fn.q.write(self.avail + 2, struct.pack("<H", self.next & 0xffff))

    def done(self):
        return struct.unpack("<H", self.fn.q.read(self.used + 2, 2))[0] != self.seen & 0xffff

    def wait(self, timeout=TIMEOUT):
        """The next used element: (head, written)."""
        end = time.monotonic() + timeout
        while not self.done():
            assert time.monotonic() < end, "nothing used in queue %d" % self.index
        at = self.used + 4 + 8 * (self.seen % self.size)
        self.seen += 1
        return struct.unpack("<II", self.fn.q.read(at, 8))


class Function:
    """A virtio function: its capabilities found, its BARs placed."""

    def __init__(self, q, slot):
        self.q, self.cfg, self.slot = q, ECAM + (slot << 15), slot
        self.bar = {}
        for n in (0, 1, 4):
            self._place(n)
        q.writel(self.cfg + 4, 0x7)
        self.caps, self.msix, self.multiplier = {}, 0, 0
        at = self.conf(0x34, 1)
        while at:
            if self.conf(at, 1) == 9:
                kind = self.conf(at + 3, 1)
                self.caps[kind] = (at, self.conf(at + 4, 1), self.conf(at + 8, 4), self.conf(at + 12, 4))
                if kind == NOTIFY:
                    self.multiplier = self.conf(at + 16, 4)
            if self.conf(at, 1) == 17:
                self.msix = at
            at = self.conf(at + 1, 1)

    def _place(self, n):
        reg = self.cfg + 0x10 + 4 * n
        kind = self.q.readl(reg) & 15
        self.q.writel(reg, 0xffffffff)
        size = -(self.q.readl(reg) & ~(3 if kind & 1 else 15)) & 0xffffffff
        if not size:
            return
        base = (0x1000 if kind & 1 else MMIO) + (self.slot << 20 if not kind & 1 else self.slot << 8) + (n << 16 if not kind & 1 else 0)
        self.q.writel(reg, base)
        self.bar[n] = (base, size, kind)

    def conf(self, off, size):
        return int.from_bytes(self.q.read(self.cfg + off, size), "little")

    def conf_set(self, off, size, v):
        self.q.cmd("write%s 0x%x 0x%x" % ({1: "b", 2: "w", 4: "l"}[size], self.cfg + off, v))

    # -- register areas

    def addr(self, kind, off=0):
        _, bar, at, _ = self.caps[kind]
        return self.bar[bar][0] + at + off

    def get(self, off, size, kind=COMMON):
        return int(self.q.cmd("read%s 0x%x" % ({1: "b", 2: "w", 4: "l"}[size], self.addr(kind, off))), 16)

    def set(self, off, size, v, kind=COMMON):
        self.q.cmd("write%s 0x%x 0x%x" % ({1: "b", 2: "w", 4: "l"}[size], self.addr(kind, off), v))

    def offered(self):
        f = 0
        for i in (0, 1):
            self.set(0, 4, i)
            f |= self.get(4, 4) << 32 * i
        return f

    def reset(self):
        """Until nothing is in flight any more (2.4.2)."""
        self.set(0x14, 1, 0)
        end = time.monotonic() + TIMEOUT
        while self.get(0x14, 1):
            assert time.monotonic() < end, "the reset does not end"

    def negotiate(self, features=0):
        """Resets, then the steps to FEATURES_OK; True if it stays."""
        self.reset()
        self.set(0x14, 1, ACK)
        self.set(0x14, 1, ACK | DRIVER)
        for i in (0, 1):
            self.set(8, 4, i)
            self.set(12, 4, (features | VERSION_1) >> 32 * i & 0xffffffff)
        self.set(0x14, 1, ACK | DRIVER | FEATURES_OK)
        return bool(self.get(0x14, 1) & FEATURES_OK)

    def queue(self, index, size=16, addr=None, vector=None):
        vq = Queue(self, index, size, addr or RAM + 0x100000 + (self.slot << 20) + index * 0x10000)
        self.set(0x16, 2, index)
        self.set(0x18, 2, size)
        for off, a in ((0x20, vq.desc), (0x28, vq.avail), (0x30, vq.used)):
            self.set(off, 4, a & 0xffffffff)
            self.set(off + 4, 4, a >> 32)
        if vector is not None:
            self.set(0x1a, 2, vector)
        self.set(0x1c, 2, 1)
        return vq

    def start(self):
        self.set(0x14, 1, ACK | DRIVER | FEATURES_OK | DRIVER_OK)

    def kick(self, vq):
        self.set(0x16, 2, vq.index)
        self.set(self.get(0x1e, 2) * self.multiplier, 2, vq.index, NOTIFY)

    # -- legacy registers

    def port(self, off, size, v=None):
        a = PIO + self.bar[0][0] + off
        k = {1: "b", 2: "w", 4: "l"}[size]
        return int(self.q.cmd("read%s 0x%x" % (k, a)), 16) if v is None else self.q.cmd("write%s 0x%x 0x%x" % (k, a, v))

    # -- MSI-X: vectors are masked and their pending bits looked at

    def msix_enable(self, on=True):
        self.conf_set(self.msix + 2, 2, 0x8000 if on else 0)

    def pending(self):
        table, pba = self.conf(self.msix + 4, 4), self.conf(self.msix + 8, 4)
        assert table & 7 == pba & 7 == 1
        return int.from_bytes(self.q.read(self.bar[1][0] + (pba & ~7), 8), "little")


class VirtioMachine(QtestMachine):
    """with VirtioMachine(tmp_path, "-device", ...) as m: m.fn(1)"""

    CLIENT = Qtest

    def fn(self, slot):
        return Function(self.q, slot)


# -- virtio-blk on top

def disk_read(fn, vq, sector, data, head=0, kick=True):
    """One request for a sector at guest address DATA; returns the place of the status byte."""
    h, status = data + 0x1000, data + 0x1020
    fn.q.write(h, struct.pack("<IIQ", 0, 0, sector))
    fn.q.write(status, b"\xff")
    vq.put((h, 16, False), (data, 512, True), (status, 1, True), head=head)
    if kick:
        fn.kick(vq)
    return status
