# SPDX-License-Identifier: MIT
"""PCI over qtest: the virt board's configuration space, its memory windows, a machine of which a test names the devices."""
import os
import tempfile

from lib.machine import Machine

ECAM, MMIO, PIO, HIGH, RAM = 0x30000000, 0x40000000, 0x03000000, 0x400000000, 0x80000000


class Qtest:
    """One qtest session; lines are answered in order, interrupts are noted in .irqs."""

    def __init__(self, sock):
        self.sock, self.file, self.irqs = sock, sock.makefile("r"), []

    def cmd(self, line):
        self.sock.sendall(line.encode() + b"\n")
        while True:
            answer = self.file.readline().rstrip("\n")
            assert answer, line
            if not answer.startswith("IRQ "):
                assert answer.startswith("OK"), (line, answer)
                return answer[3:]
            self.irqs.append(answer)

    def rd(self, addr, size=4):
        return int(self.cmd("read%s 0x%x" % ({1: "b", 2: "w", 4: "l", 8: "q"}[size], addr)), 16)

    def wr(self, addr, value, size=4):
        self.cmd("write%s 0x%x 0x%x" % ({1: "b", 2: "w", 4: "l", 8: "q"}[size], addr, value))

    def step(self, ns):
        return int(self.cmd("clock_step %d" % ns))

    def level(self, line):
        """The last level of an interrupt line that was seen, after irq_intercept_in."""
        self.cmd("endianness")
        seen = [x.split()[1] for x in self.irqs if x.split()[2] == str(line)]
        return bool(seen) and seen[-1] == "raise"


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


class PciMachine(Machine):
    """with PciMachine("-device", "edu") as m: m.q.rd(...)"""

    def __init__(self, *args):
        self.folder = tempfile.TemporaryDirectory(prefix="bp-pci-")
        self.path = os.path.join(self.folder.name, "qtest")
        super().__init__("-M", "virt", "-m", "64M", "-accel", "qtest", "-nodefaults", "-qtest", "unix:%s,server=on,wait=off" % self.path,
                         "-qtest-log", "/dev/null", *args)
        self.q = None

    def __enter__(self):
        super().__enter__()
        self.q = Qtest(self.connect(self.path))
        return self

    def end(self):
        super().end()
        self.folder.cleanup()
