# SPDX-License-Identifier: MIT
"""Help: every list, and the options of everything that the lists name."""
import os
import re
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run

LISTS = {"-device": None, "-M": None, "-cpu": None, "-chardev": None, "-netdev": None, "-blockdev": None, "-object": None}
ROW = re.compile(r"^  ([a-z][\w.-]*) +(\S.*)$", re.M)


def names(option):
    status, out, err = run(option, "help")
    assert status == 0 and not err
    return [n for n, _ in ROW.findall(out) if n != "name"]


@pytest.mark.parametrize("option", LISTS)
def test_everything_in_the_list_explains_itself(option):
    listed = names(option)
    assert listed and len(set(listed)) == len(listed)
    for name in listed:
        status, out, err = run(option, name + ",help")
        assert status == 0 and not err and out.startswith(name + ": "), (name, out, err)
        rows = re.findall(r"^  ([\w.\[\]-]+)=<(.+)>\n        (\S.*)$", out, re.M)
        assert len(rows) * 2 + 1 == len(out.splitlines()), (name, out)


@pytest.mark.parametrize("option", LISTS)
def test_help_of_an_unknown_name_is_a_mistake(option):
    status, out, err = run(option, "no-such-thing,help")
    assert status == 1 and not out and "no-such-thing" in err


def test_devices_are_listed_by_category_with_bus_and_line():
    _, out, _ = run("-device", "help")
    parts = re.split(r"^(\w+):\n", out, flags=re.M)[1:]
    assert "Storage" in parts and "Network" in parts
    for body in parts[1::2]:
        head, *rows = body.strip("\n").splitlines()
        bus, what = head.index("bus"), head.index("what it is")
        for r in rows:
            assert r[bus - 1] == " " and r[bus] != " " and r[what - 1] == " " and r[what] != " ", r


@pytest.mark.parametrize("option", ["-device", "-chardev", "-netdev", "-blockdev", "-object", "-M", "-cpu"])
@pytest.mark.parametrize("word", ["?", "help"])
def test_question_mark_is_help(option, word):
    assert run(option, word)[0] == 0


@pytest.mark.parametrize("option", ["-accel", "-smp", "-m", "-name", "-action", "-run-with", "-rtc", "-boot", "-d", "-trace", "-mon", "-drive",
                                    "-nic", "-display", "-audio", "-serial", "-monitor", "-qmp"])
def test_options_with_keys_explain_them(option):
    status, out, err = run(option, "help")
    assert status == 0 and out and not err, (out, err)


def test_pci_devices_tell_their_place():
    _, out, _ = run("-device", "virtio-rng-pci,help")
    for key in ("id", "bus", "addr", "multifunction", "rng"):
        assert "  %s=<" % key in out


def test_dash_h_lists_every_option_with_a_line():
    _, out, _ = run("-h")
    for option in ("-M", "-device", "-chardev", "-netdev", "-blockdev", "-object", "-qmp", "-monitor", "-kernel", "-smp", "-m", "-S", "-daemonize"):
        assert re.search(r"^  %s\b" % option, out, re.M), option
    assert max(len(x) for x in out.splitlines()) <= 200


def sections(text):
    """{heading: body}, the heading with its chapter."""
    found, chapter = {}, ""
    for part in re.split(r"^(?=#{2,4} )", text, flags=re.M)[1:]:
        head, body = part.split("\n", 1)
        if head.startswith("## "):
            chapter = head
        elif head.startswith("#### "):
            found[chapter + " " + head] = body.strip()
    return found


def test_manual_has_everything_that_help_lists():
    _, text, _ = run("-manual")
    have = sections(text)
    for option in ("-device", "-chardev", "-netdev", "-blockdev", "-object", "-M"):
        for name in names(option):
            assert any(h.endswith("#### " + name) and "(`%s`)" % option in h for h in have), (option, name)
