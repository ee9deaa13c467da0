# SPDX-License-Identifier: MIT
"""--preconfig: monitors are there before the machine, which one of them has built."""
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, QmpError
from lib.qtest import QtestMachine

BOARD = ("--preconfig", "-M", "virt", "-serial", "null", "-accel", "interp")


def refused(q, name):
    error = q.request({"execute": name})["error"]
    assert error["class"] == "GenericError" and "after the machine was built" in error["desc"]


def test_the_machine_comes_when_it_is_told_to():
    with Machine(*BOARD, "-S", "-object", "iothread,id=before", "-drive", "if=none,id=d,format=raw,file.driver=null-co,file.size=1M",
                 "-device", "virtio-blk-pci,drive=d,id=disk,iothread=before") as m:
        q = m.qmp
        assert q.cmd("query-status") == {"status": "prelaunch", "running": False}
        for name in ("query-cpus-fast", "query-block", "cont", "query-pci"):
            refused(q, name)
        assert {"name": "x-exit-preconfig"} in q.cmd("query-commands")
        q.cmd("object-add", qom_type="iothread", id="more")
        assert {"before", "more"} <= {x["name"] for x in q.cmd("qom-list", path="/objects")}
        assert "after the machine was built" in q.hmp("info cpus") and q.hmp("info status") == "VM status: paused (prelaunch)\n"
        q.send({"execute": "x-exit-preconfig", "id": 1})
        q.send({"execute": "query-cpus-fast", "id": 2})             # finds all of it
        assert q.answer() == {"return": {}, "id": 1}
        assert len(q.answer()["return"]) == 1
        assert [b["qdev"] for b in q.cmd("query-block")] == ["disk"]
        with pytest.raises(QmpError, match="built already"):
            q.cmd("x-exit-preconfig")
        q.cmd("cont")
        assert q.wait_event("RESUME") and q.cmd("query-status")["running"]


def test_it_runs_at_once_unless_told_not_to():
    with Machine("--preconfig", "-M", "none", "-nodefaults") as m:
        assert m.qmp.hmp("exit_preconfig") == ""
        m.qmp.wait_event("RESUME")
        assert m.qmp.cmd("query-status")["status"] == "running"


def test_without_the_option_there_is_nothing_to_leave():
    with Machine("-M", "none") as m:
        with pytest.raises(QmpError, match="built already"):
            m.qmp.cmd("x-exit-preconfig")


@pytest.mark.parametrize("how", ["quit", "signal"])
def test_ends_before_the_machine_began(how):
    with Machine(*BOARD) as m:
        if how == "quit":
            m.qmp.cmd("quit")
        else:
            m.process.send_signal(signal.SIGTERM)
        assert m.wait() == 0


def test_a_machine_that_cannot_be_built_ends_it():
    with Machine(*BOARD, "-device", "virtio-blk-pci,drive=nope") as m:
        m.qmp.send({"execute": "x-exit-preconfig"})
        assert m.wait() == 1


def test_a_test_waits_for_the_machine(tmp_path):
    with QtestMachine(tmp_path, "--preconfig") as m:
        assert m.q.answer("endianness") == "OK little"
        assert m.q.answer("readb 0x80000000").startswith("FAIL")
        m.qmp.cmd("x-exit-preconfig")
        assert m.q.answer("readb 0x80000000").startswith("OK")
