# SPDX-License-Identifier: MIT
"""The README's table of devices and back ends says what the program lists: all of it, nothing else, each thing once."""
import os
import re
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, ROOT

# Names behind the first ones of a family that the text below the table explains.
FAMILY = re.compile(r"^((?:virtio|vhost-user)-[a-z]+)-(pci|device|pci-transitional|pci-non-transitional)$")


def rows():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return re.findall(r"^\| `(-[a-z]+)` \| ([^|]+) \| (.+) \|$", f.read(), re.M)


def listed(option):
    text = subprocess.run([BINARY, option, "help"], capture_output=True, text=True, timeout=30, check=True).stdout
    names = re.findall(r"^  ([a-z0-9][\w.-]*)  *\S", text, re.M)
    return {FAMILY.sub(r"\1", n) for n in names if n != "name"}


def test_rows_are_different():
    keys = [r[:2] for r in rows()]
    assert len(keys) > 10
    assert len(keys) == len(set(keys)), [k for k in keys if keys.count(k) > 1]


@pytest.mark.parametrize("option", ["-device", "-chardev", "-blockdev", "-netdev", "-object"])
def test_names(option):
    told = {n for o, _, text in rows() if o == option for n in re.findall(r"`([a-z0-9][\w.-]*)`", text)}
    assert told == listed(option), {"only in the README": told - listed(option), "only in the program": listed(option) - told}
