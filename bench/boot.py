# SPDX-License-Identifier: MIT
"""Start-up: exec to the first guest instruction, exec to the first user process, memory and CPU time at rest.

Both emulators run the same command line in turn (ours, theirs, ours, theirs ...), so that a change in the host's load meets
both; medians are compared.
"""
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import guest  # noqa: E402  (the path is set above)

# lui t0, 0x10000; li t1, 'X'; sb t1, 0(t0); 1: wfi; j 1b    -- the UART of the virt board is at 0x10000000
FIRST = b"".join(w.to_bytes(4, "little") for w in (0x100002b7, 0x05800313, 0x00628023, 0x10500073, 0xffdff06f))


def rss_kib(pid):
    """Resident size of a process, in KiB."""
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def cpu_seconds(pid):
    """CPU time that a process has used, in seconds."""
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_instruction(emulator, image):
    """(milliseconds from exec to the first byte that the guest's first instructions print, resident KiB then)."""
    cmd = [emulator, "-M", "virt", "-m", "1G", "-nographic", "-bios", image]
    start = time.monotonic()
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    byte = p.stdout.read(1)
    took = (time.monotonic() - start) * 1e3
    kib = rss_kib(p.pid) if byte == b"X" else None
    p.kill()
    p.wait()
    p.stdout.close()
    if byte != b"X":
        raise RuntimeError("%s ran no guest instruction" % emulator)
    return took, kib


def user_process(emulator):
    """Seconds from exec to the first user process."""
    with guest.Machine("-smp", "1", emulator=emulator, memory="1G", script="exit 0") as m:
        start = time.monotonic()
        m.boot(300)
        return time.monotonic() - start


def at_rest(emulator, seconds=10, settle=20):
    """(per cent of a core, resident KiB) of a guest that waits at its shell. The kernel goes on with work of its start (self
    tests, keys) for some seconds after the first process runs; SETTLE seconds let it end."""
    with guest.Machine("-smp", "1", emulator=emulator, memory="1G") as m:
        m.boot(300)
        m.run("true")
        time.sleep(settle)
        before = cpu_seconds(m.proc.pid)
        time.sleep(seconds)
        return (cpu_seconds(m.proc.pid) - before) / seconds * 100, rss_kib(m.proc.pid)


def run(out, rounds, folder):
    """Measures and adds rows (name, ours, theirs, unit, bar) to OUT."""
    ours, theirs = guest.EMULATOR, "qemu-system-riscv64"
    image = os.path.join(folder, "first.bin")
    with open(image, "wb") as f:
        f.write(FIRST)
    first, boot = {ours: [], theirs: []}, {ours: [], theirs: []}
    for _ in range(3 * rounds):
        for e in (ours, theirs):
            first[e].append(first_instruction(e, image))
    for _ in range(rounds):
        for e in (ours, theirs):
            boot[e].append(user_process(e))

    def med(values):
        return statistics.median(values)

    out.append(("exec to first guest instruction", *(med([t for t, _ in first[e]]) for e in (ours, theirs)), "ms", "under 20 ms"))
    out.append(("resident size then", *(med([k for _, k in first[e]]) / 1024 for e in (ours, theirs)), "MiB", "under 30 MiB"))
    out.append(("exec to first user process", *(med(boot[e]) for e in (ours, theirs)), "s", "<= 0.35x"))
    rest = [at_rest(e) for e in (ours, theirs)]
    out.append(("idle guest, share of a core", *(r[0] for r in rest), "%", "under 2 %"))
    out.append(("idle guest, resident size", *(r[1] / 1024 for r in rest), "MiB", ""))
