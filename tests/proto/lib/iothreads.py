# SPDX-License-Identifier: MIT
"""Which threads of a machine do something: a thread that served an event has gone to sleep once more than before."""
import time

from lib.machine import TIMEOUT

THREADS = ["-object", "iothread,id=t0", "-object", "iothread,id=t1"]


def sleeps(pid, tid):
    """How often a thread has gone to sleep."""
    with open("/proc/%d/task/%d/status" % (pid, tid), encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))


def wakes_only(m, name, action, times=20):
    """Holds that ACTION wakes the iothread NAME of machine M, every time, and no other: another may have something of its own to finish once, not every time."""
    tids = {t["id"]: t["thread-id"] for t in m.qmp.cmd("query-iothreads")}
    others = set(tids) - {name}
    for n in range(times):
        before = {t: sleeps(m.process.pid, tids[t]) for t in tids}
        action()
        end = time.monotonic() + TIMEOUT
        while sleeps(m.process.pid, tids[name]) == before[name]:
            assert time.monotonic() < end, "%s does not wake" % name
        others = {t for t in others if sleeps(m.process.pid, tids[t]) != before[t]}
        if n >= 2 and not others:
            return
    raise AssertionError("%s wakes, too" % others)
