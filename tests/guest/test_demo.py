# SPDX-License-Identifier: MIT
"""`make demo`, without a terminal and on one."""
import os
import pty
import re
import select
import subprocess
import termios
import time

import guest

DEMO = os.path.join(guest.ROOT, "scripts", "demo")


def test_tour_without_a_terminal():
    p = subprocess.run([DEMO], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                       timeout=300, check=False)
    assert p.returncode == 0, p.stdout[-3000:]
    for what in ("riscv64 GNU/Linux", "Ethernet controller", "vda ", "lease: 10.0.2.15", "hello from the host",
                 "the disk holds what was written", "demo: all of it worked"):
        assert what in p.stdout, what


def test_shell_on_a_terminal():
    """The user is told how to leave, has a working line discipline, and the terminal is as before afterwards."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    p = subprocess.Popen([DEMO], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    seen = ""

    def until(pattern, timeout):
        nonlocal seen
        deadline = time.monotonic() + timeout * guest.SCALE
        while not re.search(pattern, seen):
            assert time.monotonic() < deadline, seen[-2000:]
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 65536).decode("utf-8", "replace")

    try:
        until("Ctrl-a x", 20)
        until(r"guest:.*# ", 120)
        os.write(master, b"echo $((6*7))-answer\r")
        until("42-answer", 30)
        os.write(master, b"echo $((1+1))-begins; sleep 100\r")
        until("2-begins", 30)
        time.sleep(2)                   # the shell has started it
        os.write(master, b"\x03echo after-$((1+1))\r")
        until("after-2", 20)
        os.write(master, b"\x01x")
        assert p.wait(20) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
        os.close(master)
        os.close(slave)
