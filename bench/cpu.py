# SPDX-License-Identifier: MIT
"""The CPU: small programs (bench/cpu/work.c) in the guest, one hart: integers, calls, floating point, kernel.

A program's cost is the CPU time that the emulator used while it ran, so that other load on the host disturbs little. Both
emulators take turns; medians are compared. In brackets: beside the same program compiled for the host (without vectors, for
RV64GC has none); there, what starting the program costs is taken off. Then the time lost to translation in a start of the guest,
and what two harts do in the time of one (wall time: for an idle host).
"""
import os
import re
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import guest  # noqa: E402  (the path is set above)

# name, times, group
PROGRAMS = (
    ("sieve", 100, "integer"), ("sha256", 2000, "integer"), ("crc32", 1000, "integer"), ("qsort", 100, "integer"), ("hash", 150, "integer"),
    ("lz", 600, "integer"), ("fib", 15, "calls"), ("indirect", 600, "calls"), ("bytecode", 200, "calls"),
    ("matmul", 400, "float"), ("smatmul", 400, "float"), ("nbody", 300, "float"), ("mandel", 400, "float"), ("fft", 1000, "float"),
    ("syscall", 300, "kernel"), ("fork", 100, "kernel"), ("exec", 30, "kernel"), ("pipe", 30, "kernel"), ("switch", 30, "kernel"),
    ("fault", 100, "kernel"), ("mmap", 30, "kernel"), ("file", 40, "kernel"),
)
BARS = {"integer": "", "calls": "<= 0.33x", "float": "<= 0.125x", "kernel": "<= 0.33x"}
NATIVE = {"integer": "<= 3x", "float": "<= 3x"}


def build(folder):
    """Compiles work.c for the guest and the host; returns both paths, or None without a cross compiler."""
    source = os.path.join(ROOT, "bench", "cpu", "work.c")
    out = os.path.join(folder, "work.riscv64"), os.path.join(folder, "work.host")
    for cc, path, extra in (("riscv64-linux-gnu-gcc", out[0], ["-static"]), ("gcc", out[1], ["-fno-tree-vectorize"])):
        try:
            subprocess.run([cc, "-O2", *extra, "-o", path, source, "-lm"], check=True)
        except FileNotFoundError:
            print("cpu: no %s (Debian package gcc-riscv64-linux-gnu), left out" % cc)
            return None
    return out


def cpu_ns(pid):
    """Nanoseconds that the threads of a process have been on a CPU."""
    total = 0
    for t in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, t), encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total


class Guest(guest.Machine):
    """A machine whose initramfs also holds the program."""

    def __init__(self, program, *args, harts=1, **kw):
        super().__init__("-smp", str(harts), *args, **kw)
        a = guest.cpio.Archive()
        with open(program, "rb") as f:
            a.file("work", f.read(), 0o755)
        with open(self.cmd[self.cmd.index("-initrd") + 1], "ab") as f:
            f.write(a.bytes())

    def measure(self, name, times):
        """(milliseconds of CPU time, checksum)."""
        before = cpu_ns(self.proc.pid)
        text = self.run("/work %s %d" % (name, times), 300)
        return (cpu_ns(self.proc.pid) - before) / 1e6, text.split()[-1]


def geomean(v):
    return statistics.geometric_mean(v) if v else 0


def collect(emulators, programs, rounds, only=None):
    """{(emulator, program): [(ms, ms without its start)]}."""
    took, sums = {}, {}
    for e, args in emulators:
        with Guest(programs[0], *args, emulator=e, memory="512M") as m:
            m.boot(300)
            m.run("true")
            for name, times, _ in PROGRAMS:
                if only and name not in only:
                    continue
                for _ in range(rounds):
                    ms, checksum = m.measure(name, times)
                    took.setdefault((e, name), []).append((ms, ms - m.measure(name, 0)[0]))
                    if sums.setdefault(name, checksum) != checksum:
                        print("cpu: %s gives %s on %s, %s before" % (name, checksum, e, sums[name]))
    return took


def two_harts(emulator, program, rounds):
    """How much more two harts do than one: 2 where they do not disturb each other."""
    ratios = []
    with Guest(program, emulator=emulator, harts=2, memory="512M") as m:
        m.boot(300)
        m.run("true")
        for _ in range(rounds):
            took = []
            for command in ("/work fib 14", "/work fib 14 & /work fib 14; wait"):
                start = time.monotonic()
                m.run(command, 300)
                took.append(time.monotonic() - start)
            ratios.append(2 * took[0] / took[1])
    return statistics.median(ratios)


def translation():
    """Per cent of a start's CPU time that goes into translation."""
    with guest.Machine("-accel", "jit,stats=on", "-smp", "1", memory="512M", script="exit 0") as m:
        m.boot(300)
        m.wait(120)
        return float(re.search(r"translation [0-9.]+ of [0-9.]+ ms \(([0-9.]+) %\)", m.log).group(1))


def native(program, rounds):
    """{program: ms} on the host itself."""
    out = {}
    for name, times, _ in PROGRAMS:
        ns = [int(subprocess.run([program, name, str(times)], check=True, stdout=subprocess.PIPE).stdout.split()[1]) for _ in range(rounds)]
        out[name] = min(ns) / 1e6
    return out


def run(out, rounds, folder):
    """Measures and adds rows (name, ours, theirs, unit, bar) to OUT."""
    programs = build(folder)
    if not programs:
        return
    ours, theirs = guest.EMULATOR, "qemu-system-riscv64"
    only = os.environ.get("BP_BENCH_ONLY", "").split()
    extra = os.environ.get("BP_BENCH_ARGS", "").split()
    took = collect([(ours, extra), (theirs, [])], programs, rounds, only)
    host = native(programs[1], 3)
    ratios, beside_native = {}, {}
    for name, _, group in PROGRAMS:
        if (ours, name) not in took:
            continue
        (a, a_work), (b, b_work) = ([statistics.median(v) for v in zip(*took[e, name])] for e in (ours, theirs))
        ratios.setdefault(group, []).append(a / b)
        beside_native.setdefault(group, []).append((a_work / host[name], b_work / host[name]))
        out.append(("%s (%.1f x native)" % (name, a_work / host[name]), a, b, "ms", BARS[group]))
    for group, r in ratios.items():
        out.append(("geometric mean: " + group, geomean(r), 1.0, "", BARS[group]))
    for group, bar in NATIVE.items():
        if group in beside_native:
            out.append(("geometric mean, beside native: " + group, *(geomean(side) for side in zip(*beside_native[group])), "", bar))
    if not only:
        out.append(("two harts, of one", two_harts(ours, programs[0], rounds), two_harts(theirs, programs[0], rounds), "x", ">= 1.9"))
        out.append(("start: time in translation", translation(), 0, "%", "< 20 %"))
