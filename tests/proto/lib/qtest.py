# SPDX-License-Identifier: MIT
"""The client's side of the qtest protocol."""


class Qtest:
    """A qtest connection; lines that were raised and lowered meanwhile are in .irqs."""

    def __init__(self, sock):
        self.sock, self.file, self.irqs = sock, sock.makefile("r"), []

    def cmd(self, line):
        """Sends LINE and returns its answer, "OK ..." or "FAIL ..."."""
        self.sock.sendall(line.encode() + b"\n")
        while True:
            answer = self.file.readline().rstrip("\n")
            assert answer
            if not answer.startswith("IRQ "):
                return answer
            self.irqs.append(answer)

    def write(self, addr, value, size=4):
        """One write of SIZE bytes."""
        assert self.cmd("write%s 0x%x 0x%x" % ({1: "b", 2: "w", 4: "l", 8: "q"}[size], addr, value)) == "OK"

    def read(self, addr, size=4):
        """One read of SIZE bytes."""
        answer = self.cmd("read%s 0x%x" % ({1: "b", 2: "w", 4: "l", 8: "q"}[size], addr))
        assert answer.startswith("OK ")
        return int(answer[3:], 0)
