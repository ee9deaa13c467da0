# SPDX-License-Identifier: MIT
"""The qtest protocol: memory, the UART's registers, the clock, lines, wrong input."""
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine
from lib.qtest import Qtest

RAM, UART, PLIC = 0x80000000, 0x10000000, 0x0c000000


@pytest.fixture(name="q")
def qtest(tmp_path):
    path = str(tmp_path / "qtest")
    with Machine("-M", "virt", "-m", "64M", "-accel", "qtest", "-serial", "null", "-qtest", "unix:%s,server=on,wait=off" % path,
                 "-qtest-log", "/dev/null", "-audio", "none") as m:
        q = Qtest(m.connect(path))
        q.machine = m
        yield q


def test_ram_by_words(q):
    assert q.cmd("endianness") == "OK little"
    assert q.cmd("writeq 0x%x 0x1122334455667788" % RAM) == "OK"
    for name, value in (("b", 0x88), ("w", 0x7788), ("l", 0x55667788), ("q", 0x1122334455667788)):
        assert q.cmd("read%s 0x%x" % (name, RAM)) == "OK 0x%016x" % value


def test_ram_in_bulk(q):
    assert q.cmd("memset 0x%x 0x6 0xAB" % RAM) == "OK"
    assert q.cmd("write 0x%x 0x2 0x0102" % (RAM + 1)) == "OK"
    assert q.cmd("read 0x%x 0x7" % RAM) == "OK 0xab0102ababab00"


def test_uart_scratch_register(q):
    assert q.cmd("writeb 0x%x 0x5a" % (UART + 7)) == "OK"
    assert q.cmd("readb 0x%x" % (UART + 7)) == "OK 0x000000000000005a"


def test_clock_moves_only_when_stepped(q):
    start = int(q.cmd("clock_step 0").split()[1])
    assert q.cmd("clock_step 1000") == "OK %d" % (start + 1000)
    assert q.cmd("clock_step 0") == "OK %d" % (start + 1000)
    assert q.cmd("clock_set %d" % (start + 5000)) == "OK %d" % (start + 5000)


def test_uart_line_at_the_plic(q):
    assert q.cmd("irq_intercept_in plic") == "OK"
    assert q.cmd("irq_intercept_in nothing").startswith("FAIL")
    q.cmd("writeb 0x%x 0x2" % (UART + 1))       # interrupt when the transmitter is empty
    q.cmd("endianness")
    assert "IRQ raise 10" in q.irqs
    q.cmd("writeb 0x%x 0x0" % (UART + 1))
    q.cmd("endianness")
    assert q.irqs[-1] == "IRQ lower 10"


@pytest.mark.parametrize("line", ["nosuch", "readb", "readb x", "writeb 0x80000000", "read 0x80000000 0xffffffffffff", "write 0x80000000 0x2 zz",
                                  "readl 0x10", "clock_step x", "module_load a b"])
def test_wrong_lines_fail_and_the_session_lives(q, line):
    assert q.cmd(line).startswith("FAIL")
    assert q.cmd("endianness") == "OK little"


def test_sigterm_ends_with_status_0(q):
    q.machine.process.send_signal(signal.SIGTERM)
    assert q.machine.wait() == 0
