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


@pytest.mark.parametrize("option", ["hostname=", "hostname=" + 33 * "a", "dnssearch=", "dnssearch=a..b", "dnssearch=" + 64 * "a", "domainname=",
                                    "tftp-server-name=" + 256 * "a", "bootfile=" + 128 * "a"])
def test_names_that_dhcp_cannot_tell(option):
    status, _, err = run("-M", "none", "-netdev", "user,id=n," + option)
    assert status == 1 and option.split("=")[0] + " '" in err and "Slirp" not in err


def test_names_that_dhcp_can_tell():
    names = "hostname=%s,dnssearch=a.example,dnssearch=%s.b.,domainname=example.org,bootfile=%s" % (32 * "h", 63 * "a", 127 * "b")
    with Machine(*BOARD, "-netdev", "user,id=n," + names, "-device", "virtio-net-pci,netdev=n") as m:
        assert "n:" in m.qmp.hmp("info network")
