# SPDX-License-Identifier: MIT
"""-net, the option of old: cards and back ends on one hub."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, run

BOARD = ("-M", "virt", "-S", "-serial", "null", "-accel", "interp", "-nodefaults")


def network(*args):
    with Machine(*BOARD, *args) as m:
        return m.qmp.hmp("info network")


def test_a_card_and_a_back_end_meet_on_hub_0():
    text = network("-net", "nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01,addr=7", "-net", "user,net=10.9.0.0/24,name=out", "-net", "none")
    assert "macaddr=52:54:00:00:00:01" in text and ": out: index=0" in text and text.startswith("hub 0")


def test_a_card_on_a_named_back_end_needs_no_hub():
    text = network("-netdev", "hubport,id=h,hubid=3", "-net", "nic,netdev=h,macaddr=52:54:00:00:00:02")
    assert "macaddr=52:54:00:00:00:02" in text and "hub0" not in text


def test_the_card_goes_where_it_is_told():
    with Machine(*BOARD, "-net", "nic,addr=7") as m:
        assert 7 in [d["slot"] for d in m.qmp.cmd("query-pci")[0]["devices"]]


@pytest.mark.parametrize("arg,part", [("nic,nope=1", "unknown option 'nope'"), ("nope", "nope"), ("nic,model=nope", "nope"), ("nic,netdev=x", "'x'"),
                                      ("user,nope=1", "nope")])
def test_mistakes_are_told(arg, part):
    status, _, err = run(*BOARD, "-display", "none", "-net", arg)
    assert status == 1 and part in err
