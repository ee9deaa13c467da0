# SPDX-License-Identifier: MIT
"""The client's side of the qtest protocol, and a machine that is driven through it."""
import os

from lib.machine import Machine

LETTER = {1: "b", 2: "w", 4: "l", 8: "q"}


class Qtest:
    """A qtest connection; lines that were raised and lowered meanwhile are in .irqs."""

    def __init__(self, sock):
        self.sock, self.file, self.irqs = sock, sock.makefile("r"), []

    def answer(self, line):
        """Sends LINE; its answer, "OK ..." or "FAIL ..."."""
        self.sock.sendall(line.encode() + b"\n")
        while True:
            answer = self.file.readline().rstrip("\n")
            assert answer, "the qtest connection ended at: " + line
            if not answer.startswith("IRQ "):
                return answer
            self.irqs.append(answer)

    def cmd(self, line):
        """Sends LINE, which must succeed; what follows its OK."""
        answer = self.answer(line)
        assert answer.startswith("OK"), "%s: %s" % (line, answer)
        return answer[3:]

    def rd(self, addr, size=4):
        """One read of SIZE bytes."""
        return int(self.cmd("read%s 0x%x" % (LETTER[size], addr)), 16)

    def wr(self, addr, value, size=4):
        """One write of SIZE bytes."""
        self.cmd("write%s 0x%x 0x%x" % (LETTER[size], addr, value))

    def read(self, addr, size):
        """Memory as bytes."""
        return bytes.fromhex(self.cmd("read 0x%x 0x%x" % (addr, size))[2:]) if size else b""

    def write(self, addr, data):
        for at in range(0, len(data), 2048):
            part = data[at:at + 2048]
            self.cmd("write 0x%x 0x%x 0x%s" % (addr + at, len(part), part.hex()))

    def step(self, ns):
        """Moves the machine's clock; the new time."""
        return int(self.cmd("clock_step %d" % ns))

    def level(self, line):
        """The last level of an interrupt line that was seen, after irq_intercept_in."""
        self.cmd("endianness")
        seen = [x.split()[1] for x in self.irqs if x.split()[2] == str(line)]
        return bool(seen) and seen[-1] == "raise"


class QtestMachine(Machine):
    """A virt board without a running CPU; .q is its qtest session. FOLDER is the test's, for the socket."""

    CLIENT = Qtest

    def __init__(self, folder, *args):
        self.qtest_path = os.path.join(str(folder), "qtest")
        super().__init__("-M", "virt", "-m", "128M", "-accel", "qtest", "-serial", "null", "-qtest",
                         "unix:%s,server=on,wait=off" % self.qtest_path, "-qtest-log", "/dev/null", *args)
        self.q = None

    def __enter__(self):
        super().__enter__()
        self.q = self.CLIENT(self.connect(self.qtest_path))
        return self
