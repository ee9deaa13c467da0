# SPDX-License-Identifier: MIT
"""-icount and -seed on the command line; time under them as QMP shows it."""
import os
import re
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import TIMEOUT, Machine, run  # noqa: E402  (the path is set above)
from lib.qtest import QtestMachine  # noqa: E402


@pytest.mark.parametrize("arg, part", [
    ("shift=11", "shift=11 is neither auto nor a number from 0 to 10"),
    ("shift=-1", "neither auto nor a number"),
    ("shift=", "neither auto nor a number"),
    ("1x", "neither auto nor a number"),
    ("sleep=off", "shift is missing"),
    ("shift=auto,sleep=off", "shift=auto follows the host's time"),
    ("shift=auto,align=on", "shift=auto follows the host's time"),
    ("shift=2,align=on,sleep=off", "align=on makes the guest wait"),
    ("shift=2,rr=record,rrfile=x", "not in this build"),
    ("shift=2,rr=replay,rrfile=x", "not in this build"),
    ("shift=2,slep=off", "did you mean 'sleep'"),
    ("shift=2,sleep=maybe", "sleep"),
])
def test_mistakes(arg, part):
    status, _, err = run("-M", "none", "-display", "none", "-icount", arg)
    assert status == 1 and part in err, err


@pytest.mark.parametrize("arg", ["", "x", "-1", "1x", "99999999999999999999999"])
def test_seed_mistakes(arg):
    status, _, err = run("-M", "none", "-display", "none", "-seed", arg)
    assert status == 1 and "-seed" in err, err


def test_help():
    status, out, _ = run("-icount", "help")
    assert status == 0 and "sleep=" in out and "shift=" in out


def test_qtest_steps_the_clock_all_the_same(tmp_path):
    """No CPU runs: the clock stands until it is stepped, by what it was stepped."""
    with QtestMachine(tmp_path, "-icount", "shift=3") as m:
        assert m.q.step(1000) == 1000
        assert m.q.step(24) == 1024


def rng_seed(tmp_path, *args):
    """The device tree's rng-seed."""
    out = tmp_path / "tree.dtb"
    status, _, err = run("-M", "virt,dumpdtb=%s" % out, "-m", "64M", "-display", "none", "-serial", "null", *args)
    assert status == 0, err
    return out.read_bytes()


def test_seed_decides_the_tree(tmp_path):
    a, b, c, d = (rng_seed(tmp_path, *args) for args in (("-seed", "1"), ("-seed", "1"), ("-seed", "2"), ()))
    assert a == b and a != c and a != d
    assert rng_seed(tmp_path, "-icount", "2") == rng_seed(tmp_path, "-icount", "2")
    assert rng_seed(tmp_path, "-icount", "auto") != rng_seed(tmp_path, "-icount", "auto")


# lui t0, 0x10000; rdtime t1; 1: addi t2, t2, 1; j 1b
LOOP = b"".join(w.to_bytes(4, "little") for w in (0x100002b7, 0xc0102373, 0x00138393, 0xffdff06f))


def test_stop_and_cont(tmp_path):
    """A machine that counts instructions stops, stands and goes on; its CPUs are all there."""
    image = tmp_path / "loop.bin"
    image.write_bytes(LOOP)
    with Machine("-M", "virt", "-smp", "2", "-m", "64M", "-serial", "null", "-bios", str(image), "-icount", "shift=4,sleep=off") as m:
        assert m.qmp.cmd("query-status")["status"] == "running"
        assert len(m.qmp.cmd("query-cpus-fast")) == 2

        def loops():
            return int(re.search(r"\bt2\)?[ =:]+(?:0x)?([0-9a-f]+)", m.qmp.hmp("info registers")).group(1), 16)

        def stop_beyond(n):
            """Lets it run until it has gone round more than N times; stops it, and answers how often."""
            end = time.monotonic() + TIMEOUT
            while True:
                m.qmp.cmd("stop")
                if loops() > n:
                    return loops()
                assert time.monotonic() < end and m.qmp.cmd("query-status")["status"] == "paused"
                m.qmp.cmd("cont")
                time.sleep(0.01)

        stood = stop_beyond(0)
        assert m.qmp.cmd("query-status")["status"] == "paused"
        time.sleep(0.1)                                 # nothing may happen
        assert loops() == stood
        m.qmp.cmd("cont")
        stop_beyond(stood)
        m.qmp.cmd("system_reset")
        m.qmp.cmd("cont")
        stop_beyond(0)
