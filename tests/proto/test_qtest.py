# SPDX-License-Identifier: MIT
"""The qtest protocol: memory, the UART's registers, the clock, lines, wrong input."""
import base64
import os
import re
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, run
from lib.qtest import Qtest, QtestMachine

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
    assert q.answer("endianness") == "OK little"
    assert q.answer("writeq 0x%x 0x1122334455667788" % RAM) == "OK"
    for name, value in (("b", 0x88), ("w", 0x7788), ("l", 0x55667788), ("q", 0x1122334455667788)):
        assert q.answer("read%s 0x%x" % (name, RAM)) == "OK 0x%016x" % value


def test_ram_in_bulk(q):
    assert q.answer("memset 0x%x 0x6 0xAB" % RAM) == "OK"
    assert q.answer("write 0x%x 0x2 0x0102" % (RAM + 1)) == "OK"
    assert q.answer("read 0x%x 0x7" % RAM) == "OK 0xab0102ababab00"


def test_uart_scratch_register(q):
    assert q.answer("writeb 0x%x 0x5a" % (UART + 7)) == "OK"
    assert q.answer("readb 0x%x" % (UART + 7)) == "OK 0x000000000000005a"


def test_clock_moves_only_when_stepped(q):
    start = int(q.answer("clock_step 0").split()[1])
    assert q.answer("clock_step 1000") == "OK %d" % (start + 1000)
    assert q.answer("clock_step 0") == "OK %d" % (start + 1000)
    assert q.answer("clock_set %d" % (start + 5000)) == "OK %d" % (start + 5000)


def test_uart_line_at_the_plic(q):
    assert q.answer("irq_intercept_in plic") == "OK"
    assert q.answer("irq_intercept_in nothing").startswith("FAIL")
    q.answer("writeb 0x%x 0x2" % (UART + 1))       # interrupt when the transmitter is empty
    q.answer("endianness")
    assert "IRQ raise 10" in q.irqs
    q.answer("writeb 0x%x 0x0" % (UART + 1))
    q.answer("endianness")
    assert q.irqs[-1] == "IRQ lower 10"


@pytest.mark.parametrize("line", ["nosuch", "readb", "readb x", "writeb 0x80000000", "read 0x80000000 0xffffffffffff", "write 0x80000000 0x2 zz",
                                  "readl 0x10", "clock_step x", "module_load a b"])
def test_wrong_lines_fail_and_the_session_lives(q, line):
    assert q.answer(line).startswith("FAIL")
    assert q.answer("endianness") == "OK little"


def test_base64(q):
    for size in range(1, 8):
        data = bytes(range(7, 7 + size))
        assert q.answer("b64write 0x%x 0x%x %s" % (RAM, size, base64.b64encode(data).decode())) == "OK"
        assert q.answer("b64read 0x%x 0x%x" % (RAM, size)) == "OK " + base64.b64encode(data).decode()
        assert q.answer("read 0x%x 0x%x" % (RAM, size)) == "OK 0x" + data.hex()
    for wrong in ("b64write 0x%x 0x3 AAA=" % RAM, "b64write 0x%x 0x3 AA*A" % RAM, "b64write 0x%x 0x3 AAAAA" % RAM, "b64write 0x%x 0x1 AAAA" % RAM):
        assert q.answer(wrong).startswith("FAIL")


def test_csr(tmp_path):
    path = str(tmp_path / "s")
    with Machine("-M", "virt", "-S", "-serial", "null", "-qtest", "unix:%s,server=on,wait=off" % path) as m:
        check_csr(Qtest(m.connect(path)))


def test_csr_where_no_cpu_runs(q):
    check_csr(q)


def test_identity_of_a_cpu_model(tmp_path):
    with QtestMachine(tmp_path, "-cpu", "veyron-v1") as m:
        assert m.q.answer("csr get_csr 0 0xf11 0") == "OK 0 000000000000061f"
        assert m.q.answer("csr set_csr 0 0x350 0xff").split()[:2] == ["OK", "0"]                   # miselect, without an IMSIC
        assert m.q.answer("csr get_csr 0 0x350 0") == "OK 0 00000000000000ff"
    with QtestMachine(tmp_path) as m:
        assert m.q.answer("csr get_csr 0 0xf11 0") == "OK 0 0000000000000000"
        assert m.q.answer("csr get_csr 0 0x350 0").split()[:2] == ["OK", "2"]


def check_csr(q):
    assert q.answer("csr set_csr 0 0x340 0x1122334455667788").split()[:2] == ["OK", "0"]       # mscratch
    assert q.answer("csr get_csr 0 0x340 0") == "OK 0 1122334455667788"
    assert q.answer("csr get_csr 0 0x7ff 0").split()[:2] == ["OK", "2"]
    for wrong in ("csr get_csr 9 0x340 0", "csr get_csr 0 0x1000 0", "csr look 0 0 0", "csr get_csr 0"):
        assert q.answer(wrong).startswith("FAIL")


def test_lines_in(q):
    assert q.answer("irq_intercept_in plic") == "OK"
    assert q.answer("set_irq_in plic unnamed-gpio-in 7 1") == "OK" and q.irqs.pop() == "IRQ raise 7"
    assert int(q.answer("readl 0x%x" % (PLIC + 0x1000)).split()[1], 16) == 1 << 7
    assert q.answer("set_irq_in plic unnamed-gpio-in 7 0") == "OK" and q.irqs.pop() == "IRQ lower 7"
    for wrong in ("set_irq_in nothing unnamed-gpio-in 7 1", "set_irq_in plic unnamed-gpio-in 99999 1", "set_irq_in plic other 7 1"):
        assert q.answer(wrong).startswith("FAIL")


def test_lines_out(q):
    uart = next(c for c in q.machine.qmp.cmd("qom-list", path="/machine/unattached") if c["type"] == "child<serial-mm>")
    assert q.answer("irq_intercept_out /machine/unattached/" + uart["name"]) == "OK"
    q.answer("writeb 0x%x 0x2" % (UART + 1))
    q.answer("endianness")
    assert q.irqs.pop() == "IRQ raise 0"
    assert int(q.answer("readl 0x%x" % (PLIC + 0x1000)).split()[1], 16) == 1 << 10     # it goes on to where it led
    assert q.answer("irq_intercept_out /machine/nothing").startswith("FAIL")


def test_over_long_line_fails_and_is_not_cut(q):
    line = "write 0x%x 0x4 0x" % RAM + "11" * (3 << 20)
    assert q.answer(line).startswith("FAIL the line is longer")
    assert q.answer("read 0x%x 0x4" % RAM) == "OK 0x00000000"


def test_log(tmp_path):
    log, path = tmp_path / "log", str(tmp_path / "s")
    with Machine("-M", "virt", "-accel", "qtest", "-serial", "null", "-qtest", "unix:%s,server=on,wait=off" % path, "-qtest-log", str(log)) as m:
        assert Qtest(m.connect(path)).answer("endianness") == "OK little"
        lines = log.read_text().splitlines()
    assert re.match(r"\[I \+0\.\d{6}\] OPENED", lines[0])
    assert re.match(r"\[R \+\d+\.\d{6}\] endianness", lines[1]) and re.match(r"\[S \+\d+\.\d{6}\] OK little", lines[2])
    status, _, err = run("-M", "none", "-qtest-log", str(tmp_path / "none" / "x"))
    assert status == 1 and "No such file" in err


def test_sigterm_ends_with_status_0(q):
    q.machine.process.send_signal(signal.SIGTERM)
    assert q.machine.wait() == 0
