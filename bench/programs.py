# SPDX-License-Identifier: MIT
"""Programs of Debian in the guest, one hart: ciphers, compressors, interpreters, a database, a compiler (image of scripts/programs-fetch).

A program's cost is the CPU time that the emulator used while it ran; in brackets, the ratio by the guest's own clock, which is wall
time and wants an idle host. Both emulators run the same kernel and image; medians are compared. What a program prints must be the
same on both. BP_BENCH_ONLY names the rows to measure.
"""
import functools
import os
import re
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import cpu  # noqa: E402  (the path is set above)
import guest  # noqa: E402

IMAGE = os.path.join(os.environ.get("BP_PROGRAMS_DIR", os.path.join(ROOT, "build", "programs")), "programs.ext4")
WORK = os.path.join(ROOT, "bench", "cpu", "work.c")
BAR = "<= 0.67x"
BAR_MEAN = "<= 0.33x"

# What the programs work on, made in the guest: machine code, and text.
PREPARE = """cd /tmp && head -c 24M /usr/libexec/gcc/riscv64-linux-gnu/*/cc1 >big && head -c 2M big >code && head -c 12M big | tail -c 6M >more
seq 1 3 600000 | sed 's/$/ line of text/' >text
xz -T1 -c code >code.xz; zstd -q -19 -c code >code.zst; gzip -c more >more.gz; 7z a -mmt=1 -bso0 -bsp0 code.7z code"""

# name, command
PROGRAMS = (
    ("openssl sha256", "openssl dgst -sha256 big big big big"),
    ("openssl aes-ctr", "for i in 1 2; do openssl enc -aes-128-ctr -K 00 -iv 00 -in big -out o 2>/dev/null; done; cksum <o"),
    ("openssl rsa4096", "for i in 1 2 3 4 5 6 7 8; do openssl dgst -sha256 -sign /scripts/rsa.pem text | cksum; done"),
    ("7z compress", "rm -f o.7z; 7z a -mx=3 -mmt=1 -bso0 -bsp0 o.7z code && 7z l -slt o.7z | grep '^CRC'"),
    ("7z test", "for i in 1 2 3; do 7z t -bso0 -bsp0 code.7z && echo $?; done"),
    ("xz compress", "xz -3 -T1 -c code | cksum"),
    ("xz decompress", "for i in 1 2 3; do xz -dc code.xz | cksum; done"),
    ("zstd compress", "zstd -q -6 -c more | cksum"),
    ("zstd decompress", "for i in 1 2 3 4 5 6 7 8; do zstd -q -dc code.zst | cksum; done"),
    ("gzip compress", "gzip -c more | tail -c +11 | cksum"),
    ("gzip decompress", "for i in 1 2 3; do gzip -dc more.gz | cksum; done"),
    ("python3", "python3 /scripts/loops.py 15"),
    ("lua", "lua5.4 /scripts/loops.lua 60"),
    ("perl", "perl /scripts/loops.pl 80"),
    ("awk", "mawk -f /scripts/words.awk text"),
    ("sqlite insert", "rm -f t.db; sqlite3 t.db </scripts/insert.sql"),
    ("sqlite select", "sqlite3 t.db </scripts/select.sql"),
    ("stress-ng prime", "stress-ng -q --cpu 1 --cpu-method prime --cpu-ops 20"),
    ("mbw", "mbw -q -n 4 64 | grep -c AVG"),
    ("gcc -O2", "gcc -O2 -c -o o.o /scripts/work.c && cksum <o.o"),
)


@functools.cache
def rsa_key():
    """A key for all guests of a run."""
    return subprocess.run(["openssl", "genrsa", "4096"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


class Guest(guest.Machine):
    """A machine on the image of programs, with the files that they work on, and MORE of them ({name: text})."""

    def __init__(self, *args, harts=1, more=None, **kw):
        files = dict(more or {})
        folder = os.path.join(ROOT, "bench", "programs")
        for path in [os.path.join(folder, n) for n in sorted(os.listdir(folder))] + [WORK]:
            with open(path, encoding="utf-8") as f:
                files[os.path.basename(path)] = f.read()
        files["rsa.pem"] = rsa_key()
        super().__init__("-smp", str(harts), *args, root=IMAGE, memory="1G", scripts=files, **kw)

    def prepare(self):
        """Starts the guest and makes what the programs work on."""
        self.boot(300)
        self.run(PREPARE, 900)

    def measure(self, command):
        """(milliseconds of CPU time, milliseconds by the guest's clock, what the command printed)."""
        before = cpu.cpu_ns(self.proc.pid)
        text = self.run("s=$EPOCHREALTIME; %s; rc=$?; e=$EPOCHREALTIME; echo BP-TOOK $((${e/./} - ${s/./})); [ $rc = 0 ]" % command, 900)
        ms = (cpu.cpu_ns(self.proc.pid) - before) / 1e6
        took = re.search(r"BP-TOOK (\d+)\s*$", text)
        return ms, int(took.group(1)) / 1e3, text[:took.start()]


def fetched():
    """Fetches the image where it is not there yet; False where that does not work today."""
    if subprocess.run([os.path.join(ROOT, "scripts", "programs-fetch")], check=False).returncode:
        print("programs: no image, left out")
        return False
    return True


def run(out, rounds, folder):
    """Measures and adds rows (name, ours, theirs, unit, bar) to OUT."""
    if not fetched():
        return
    ours, theirs = guest.EMULATOR, "qemu-system-riscv64"
    only = os.environ.get("BP_BENCH_ONLY", "").split(",")
    rows = [p for p in PROGRAMS if only == [""] or p[0] in only]
    took = {}
    with Guest(*os.environ.get("BP_BENCH_ARGS", "").split(), emulator=ours) as a, Guest(emulator=theirs) as b:
        for m in (a, b):
            m.prepare()
        for name, command in rows:
            said = {}
            for _ in range(rounds):
                for e, m in ((ours, a), (theirs, b)):
                    ms, clock, text = m.measure(command)
                    took.setdefault((name, e), []).append((ms, clock))
                    said.setdefault(e, text)
            if said[ours] != said[theirs]:
                print("programs: %s printed\n%s\nwith QEMU\n%s" % (name, said[ours], said[theirs]))
    host, inside = [], []
    for name, _ in rows:
        (x, xc), (y, yc) = ([statistics.median(v) for v in zip(*took[name, e])] for e in (ours, theirs))
        host.append(x / y)
        inside.append(xc / yc)
        out.append(("%s (guest's clock %.2fx)" % (name, xc / yc), x, y, "ms", BAR))
    out.append(("geometric mean", cpu.geomean(host), 1.0, "", BAR_MEAN))
    out.append(("geometric mean, guest's clock", cpu.geomean(inside), 1.0, "", BAR_MEAN))
