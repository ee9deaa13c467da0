# SPDX-License-Identifier: MIT
"""The terminal that the guest's console and the monitor share: the Ctrl-a keys, line editing, history, completion."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.term import Terminal

PROMPT = "(backplane) "


@pytest.fixture(name="t")
def terminal():
    with Terminal("-M", "virt", "-m", "64M", "-nographic", "-S") as t:
        t.until_raw()
        t.type("\x01c")
        t.until(PROMPT)
        yield t


def command(t, keys):
    t.type(keys + "\r")
    return t.until(PROMPT)


def test_monitor_is_reached_and_left(t):
    assert "paused (prelaunch)" in command(t, "info status")
    t.type("\x01c")
    t.type("x")                                 # to the guest, which does not echo
    t.type("\x01c")
    t.until(PROMPT)
    assert "paused (prelaunch)" in command(t, "info status")


def test_console_keys():
    with Terminal("-M", "virt", "-m", "64M", "-nographic", "-S") as t:
        t.until_raw()
        t.type("\x01h")
        seen = t.until("C-a C-a")
        assert "exit the program" in seen and "switch between console and monitor" in seen
        t.type("\x01b\x01s\x01t\x01\x01")       # break, save, time stamps, the key itself: none ends anything
        t.type("\x01x")
        t.until("terminated")
        assert t.wait() == 0 and t.is_restored()


@pytest.mark.parametrize("keys,line", [
    ("info statuX\x7fs", "info status"), ("nfo status\x1b[Hi", "info status"), ("info sstatus\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[3~", "info status"),
    ("wrong\x15info status", "info status"), ("info status wrong\x17", "info status"), ("infX status\x1b[1~\x1b[C\x1b[C\x1b[C\x04o\x1b[F", "info status"),
    ("info status\x0bxyz\x7f\x7f\x7f", "info status"), ("info näme\x7f\x7f\x7fame", "info name"),
])
def test_line_is_edited(t, keys, line):
    answer = command(t, keys)
    assert ("VM status" in answer) == (line == "info status") and "unknown command" not in answer, answer


def test_ctrl_c_drops_the_line(t):
    t.type("wrong\x03")
    t.until(PROMPT)
    assert "VM status" in command(t, "info status")


def test_history(t):
    version = command(t, "info version").splitlines()[1]
    command(t, "nosuch")
    assert version in command(t, "\x1b[A\x1b[A")
    assert "unknown command: 'nosuch'" in command(t, "\x10\x10")
    assert "VM status" in command(t, "info \x1b[A\x1b[A\x0e\x0estatus")


@pytest.mark.parametrize("keys,becomes", [
    ("info sta\t", "info status "), ("system_r\t", "system_reset "), ("object_add memory-backend-m\t", "memory-backend-memfd"),
    ("object_add memory-backend-ram,prea\t", "prealloc="), ("help object_a\t", "object_add "),
])
def test_completion(t, keys, becomes):
    t.type(keys)
    t.until(becomes)


def test_second_tab_lists_what_fits(t):
    t.type("system_\t\t")
    t.until("system_powerdown")
    t.until(PROMPT + "system_")
    t.type("\x15")
    assert "VM status" in command(t, "info status")


def test_long_line_is_bounded(t):
    t.type("x" * 6000 + "\x15")
    assert "VM status" in command(t, "info status")
