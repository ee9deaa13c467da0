# SPDX-License-Identifier: MIT
"""Which threads of a machine do something: a thread that served an event has gone to sleep once more than before."""
import time

from lib.machine import TIMEOUT

THREADS = ["-object", "iothread,id=t0", "-object", "iothread,id=t1"]


def sleeps(pid, tid):
    """How often a thread has gone to sleep."""
    with open("/proc/%d/task/%d/status" % (pid, tid), encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))


def who_wakes(m, action):
    """The ids of the iothreads of machine M that ACTION wakes; at least one does."""
    tids = {t["id"]: t["thread-id"] for t in m.qmp.cmd("query-iothreads")}
    before = {t: sleeps(m.process.pid, tids[t]) for t in tids}
    action()
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        woken = {t for t in tids if sleeps(m.process.pid, tids[t]) != before[t]}
        if woken:
            return woken
    raise AssertionError("no thread woke")
