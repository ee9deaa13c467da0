# SPDX-License-Identifier: MIT
"""A backplane on a pseudo terminal of its own, as if a person had started it in a shell."""
import os
import pty
import select
import signal
import subprocess
import termios
import time

from .machine import BINARY, TIMEOUT


class Terminal:
    """with Terminal("-M", "virt") as t: t.type("\\x01c"); t.until("(backplane) ")"""

    def __init__(self, *args, env=None):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.text = ""
        self.process = subprocess.Popen([BINARY, *args], stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
                                        preexec_fn=self._take, env=dict(os.environ, **(env or {})))

    def _take(self):
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)

    def type(self, keys):
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def read(self, seconds=0.05):
        if select.select([self.master], [], [], seconds)[0]:
            self.text += os.read(self.master, 65536).decode(errors="replace")

    def until(self, what, timeout=TIMEOUT):
        """Reads until WHAT came; returns what was read and forgets it."""
        end = time.monotonic() + timeout
        while what not in self.text:
            ended = self.process.poll() is not None
            self.read()
            assert what in self.text or time.monotonic() < end and not ended, "no %r in %r" % (what, self.text)
        at = self.text.index(what) + len(what)
        seen, self.text = self.text[:at], self.text[at:]
        return seen

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def until_raw(self, timeout=TIMEOUT):
        end = time.monotonic() + timeout
        while not self.is_raw():
            assert time.monotonic() < end and self.process.poll() is None, self.text
            self.read()

    def wait(self, timeout=TIMEOUT):
        """The exit status; the rest of the output is in .text."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, "does not end: %r" % self.text
            self.read()
        while select.select([self.master], [], [], 0)[0]:
            self.read()
        return self.process.returncode

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.before
