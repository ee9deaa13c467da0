# SPDX-License-Identifier: MIT
"""Help: every list, and the options of everything that the lists name."""
import os
import re
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, ROOT, run

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
def test_what_is_required_has_no_default(option):
    for name in names(option):
        bad = re.findall(r"^  .*default.*, required.*", run(option, name + ",help")[1], re.M)
        assert not bad, (name, bad)


def test_messages_send_nobody_to_what_is_not_there():
    """A hint that says `-device X` or `-object X` to a person names what this program has."""
    known = {"-device": set(names("-device")), "-object": set(names("-object"))}
    for option, have in known.items():
        have |= {"help"} | set(re.findall(r"[\w.-]+", " ".join(re.findall(r"\(also: ([^)]*)\)", run(option, "help")[1]))))
    for folder, _, files in os.walk(os.path.join(ROOT, "src")):
        for name in files:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                texts = re.findall(r'"((?:[^"\\\n]|\\.)*)"', f.read())
            words = [w for t in texts for w in re.findall(r"(-device|-object) ([a-z][\w.-]*)", t)]
            gone = [w for w in words if w[1] not in known[w[0]] and not (w[0] == "-object" and absent(*w))]
            assert not gone, (name, gone)


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
                                    "-nic", "-display", "-audio", "-audiodev", "-serial", "-monitor", "-qmp"])
def test_options_with_keys_explain_them(option):
    status, out, err = run(option, "help")
    assert status == 0 and out and not err, (out, err)


@pytest.mark.parametrize("args", [("-nic", "model=help"), ("-nic", "user,model=?"), ("-net", "nic,model=help")])
def test_models_of_cards(args):
    status, out, err = run("-M", "virt", *args)
    assert status == 0 and not err and "virtio-net-pci " in out and "virtio-blk-pci" not in out


def test_pci_devices_tell_their_place():
    _, out, _ = run("-device", "virtio-rng-pci,help")
    for key in ("id", "bus", "addr", "multifunction", "rng"):
        assert "  %s=<" % key in out


@pytest.mark.parametrize("args", ["-h", "-version", "-manual", "-device help", "-device nvme,help", "-M help", "-M virt,help", "-cpu help", "-accel help",
                                  "-netdev help", "-netdev user,help", "-smp help", "-icount help", "-d help", "-drive help", "-monitor help"])
def test_help_that_cannot_be_written_is_a_failure(args):
    with open("/dev/full", "w", encoding="ascii") as full:
        p = subprocess.run([BINARY, *args.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert p.returncode == 1 and "cannot be written" in p.stderr


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


def written_manual():
    with open(os.path.join(ROOT, "docs", "devices.md"), encoding="utf-8") as f:
        return sections(f.read())


def option_names(section):
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.M))


def test_written_manual_tells_of_nothing_that_is_gone():
    """Devices that this build lacks are left out of the comparison; so are sections that are yet to be written."""
    have = sections(run("-manual")[1])
    for head, text in written_manual().items():
        if head in have:
            gone = option_names(text) - option_names(have[head])
            assert not gone, "run `make docs`: docs/devices.md, %s: %s" % (head, ", ".join(sorted(gone)))


def test_written_manual_is_about_up_to_date():
    """A quarter may lag behind, so that branches that add devices do not stand in each other's way."""
    have, written = sections(run("-manual")[1]), written_manual()
    behind = sorted(h for h in have if written.get(h) != have[h])
    assert len(behind) * 4 <= len(have), "run `make docs`: docs/devices.md lags behind in %s" % ", ".join(behind)


def test_names_in_the_readme_exist():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        table = f.read().split("## Devices and back ends")[1].split("\n## ")[0]
    known = {n for option in LISTS for n in names(option)}
    for option in LISTS:
        known |= set(re.findall(r"[\w.-]+", " ".join(re.findall(r"\(also: ([^)]*)\)", run(option, "help")[1]))))
    rows = [r for r in re.findall(r"^\| `(-\w+)` \|[^|]*\| (.*) \|$", table, re.M) if r[0] in LISTS]
    assert len(rows) >= 6
    for option, cells in rows:
        missing = [n for n in re.findall(r"`([\w.-]+)`(?!=)", cells) if n not in known and not absent(option, n)]
        assert not missing, (option, missing)


def absent(option, name):
    """A name that another build has."""
    return "not in this build" in run("-M", "none", option, name + ",id=x")[2]


def test_make_help_lists_every_target():
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        targets = re.search(r"^\.PHONY: (.*)", f.read(), re.M).group(1).split()
    told = subprocess.run(["make", "--no-print-directory", "-C", ROOT, "help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert set(line.split("\t")[0] for line in told.splitlines()) == set(targets) - {"all", "help"}


def test_the_manual_page_tells_each_option_once_and_of_none_that_is_not_there():
    with open(os.path.join(ROOT, "docs/backplane.1"), encoding="utf-8") as f:
        heads = re.findall(r"^\.TP\n\.BI? (.*)", f.read(), re.M)
    told = [o.replace("\\-", "-") for head in heads for o in re.findall(r"(?:^|[\", ])(\\-[a-zA-Z][\w\\-]*)", head)]
    assert len(told) > 30 and not [o for o in told if told.count(o) > 1]
    known = run("-h")[1]
    for option in told:
        assert re.search(r"(^|[\s,])%s\b" % re.escape(option), known), option
