# SPDX-License-Identifier: MIT
"""PCI over qtest: the virt board's configuration space, its memory windows, a machine of which a test names the devices."""
import tempfile

from lib.qtest import QtestMachine

ECAM, MMIO, PIO, HIGH, RAM = 0x30000000, 0x40000000, 0x03000000, 0x400000000, 0x80000000


class Fn:
    """A function at BUS:SLOT.FN."""

    def __init__(self, q, slot, fn=0, bus=0):
        self.q, self.base = q, ECAM + (bus << 20 | slot << 15 | fn << 12)

    def rd(self, off, size=4):
        return self.q.rd(self.base + off, size)

    def wr(self, off, value, size=4):
        self.q.wr(self.base + off, value, size)

    def cap(self, wanted):
        at = self.rd(0x34, 1)
        while at:
            if self.rd(at, 1) == wanted:
                return at
            at = self.rd(at + 1, 1)
        return 0

    def bar_size(self, n):
        self.wr(0x10 + 4 * n, 0xffffffff)
        v = self.rd(0x10 + 4 * n)
        return -(v & ~(3 if v & 1 else 15)) & 0xffffffff

    def place(self, n, addr):
        """BAR N at ADDR; decoding and bus mastering on."""
        self.wr(0x10 + 4 * n, addr)
        self.wr(4, 7, 2)
        return addr


class PciMachine(QtestMachine):
    """with PciMachine("-device", "edu") as m: m.q.rd(...)"""

    def __init__(self, *args):
        self.folder = tempfile.TemporaryDirectory(prefix="bp-pci-")
        super().__init__(self.folder.name, "-nodefaults", *args)

    def end(self):
        super().end()
        self.folder.cleanup()
