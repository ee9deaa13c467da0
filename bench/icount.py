# SPDX-License-Identifier: MIT
"""What the deterministic mode costs: the same program, ours with -icount beside ours without. The second column is not QEMU here.

CPU programs of bench/cpu in the guest (CPU time of the emulator, one hart), and a start of the guest with its root on a disk (wall
time). Both sides take turns; medians.
"""
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import cpu  # noqa: E402  (the path is set above)
import guest  # noqa: E402

PROGRAMS = (("sieve", 100), ("sha256", 1000), ("fib", 15), ("bytecode", 100), ("fft", 500), ("syscall", 150), ("fork", 50), ("file", 20))
MODE = ("-icount", "shift=1,sleep=off")
BAR = "<= 1.43x"


def programs(out, rounds, folder):
    """Rows of the CPU programs, each measured in two machines side by side."""
    paths = cpu.build(folder)
    if not paths:
        return
    took = {}
    with cpu.Guest(paths[0], *MODE) as a, cpu.Guest(paths[0]) as b:
        for m in (a, b):
            m.boot(300)
            m.run("true")
        for name, times in PROGRAMS:
            for _ in range(rounds):
                for m in (a, b):
                    took.setdefault((name, m), []).append(m.measure(name, times)[0])
        ratios = []
        for name, _ in PROGRAMS:
            x, y = (statistics.median(took[name, m]) for m in (a, b))
            ratios.append(x / y)
            out.append((name, x, y, "ms", BAR))
    out.append(("geometric mean", statistics.geometric_mean(ratios), 1.0, "", BAR))


def start(*args):
    """Seconds from exec to the end of a script in a root image on a disk."""
    with guest.Machine(*args, root=True, script="exit 0") as m:
        begin = time.monotonic()
        m.script_status(600)
        return time.monotonic() - begin


def run(out, rounds, folder):
    """Measures and adds rows (name, with -icount, without, unit, bar) to OUT."""
    programs(out, rounds, folder)
    with_it, without = zip(*((start(*MODE), start()) for _ in range(rounds)))
    out.append(("start from a disk", statistics.median(with_it), statistics.median(without), "s", BAR))
