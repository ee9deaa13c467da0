# SPDX-License-Identifier: MIT
"""The rules of the tree that a program can check: who includes whom, sizes, names, licence lines. Each failure names file,
line and what to do. Run alone: tests/run lint."""
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAX_FILE, MAX_FUNCTION, MAX_COLUMN = 800, 100, 200
SPDX = "SPDX-License-Identifier: MIT"

# Who may include whom (a folder may always include itself); docs/ARCHITECTURE.md says why.
LOW = ["core", "loop", "base"]
BACK_ENDS = ["block", "chardev", "net", "audio", "display"]
ALLOWED = {
    "base": [],
    "core": ["loop", "base"],
    "loop": ["base"],
    "loop/iothread": LOW,           # an iothread is an object
    "loop/iothread_map": LOW,
    "loop/sock_place": LOW,         # an address is options
    "loop/redial": LOW,
    "mem": LOW,
    "crypto": LOW,
    "irq": ["mem"] + LOW,           # an MSI is a store
    "pci": ["mem", "irq"] + LOW,
    "vhost_user": ["mem"] + LOW,
    "vfio_user": ["mem"] + LOW,
    "hw": ["pci", "mem", "irq"] + LOW,
    "hw/ide": ["hw/scsi", "pci", "mem", "irq"] + LOW,               # disks are SCSI's behind a translation
    "hw/virtio": ["hw/scsi", "vhost_user", "pci", "mem", "irq"] + LOW,  # virtio-scsi brings a SCSI bus; vhost-user's messages have two ends
    "hw/sd/rpmb": ["crypto", "pci", "mem", "irq"] + LOW,            # frames that are signed; the same:
    "hw/nvme/rpmb": ["crypto", "pci", "mem", "irq"] + LOW,
    "hw/riscv": ["cpu", "pci", "mem", "irq"] + LOW,     # interrupt controllers drive hart lines
    "cpu": ["mem", "irq"] + LOW,
    "machine": ["pci", "mem", "irq", "hw/riscv", "cpu"] + BACK_ENDS + LOW,
    "ctl": ["mem", "irq", "loop", "core", "base"],
}
ALLOWED["img"] = ["block", "crypto"] + LOW
ALLOWED["serve"] = ["ctl"] + ALLOWED["img"]
for _b in BACK_ENDS:
    ALLOWED[_b] = ["crypto"] + LOW
for _f in ("block/vhost_user", "block/vhost_user_int", "block/vhost_user_ring"):    # a disk by the protocol that exports speak, too
    ALLOWED[_f] = ["vhost_user"] + LOW
ALLOWED["net/filter_chr"] = ["chardev"] + LOW           # filters lead packets to chardevs and take them back
# What others may see of a back end: its front header and no other.
FRONT = {"block/blk.h", "block/export.h", "block/pi.h", "block/zones.h", "chardev/chr.h", "net/net.h", "audio/audio.h", "display/display.h", "machine/machine.h"}
FRONT_USERS = ("hw", "ctl", "vhost_user", "vfio_user", "machine")
SKIP_FOLDERS = {".git", "__pycache__"}


def tracked(*suffixes):
    """Files of the tree with one of SUFFIXES, as paths relative to the root."""
    out = []
    for folder, dirs, files in os.walk(ROOT):
        dirs[:] = sorted(d for d in dirs if d not in SKIP_FOLDERS and not (folder == ROOT and d.startswith("build")))
        out += [os.path.relpath(os.path.join(folder, f), ROOT) for f in sorted(files) if f.endswith(suffixes)]
    return out


def lines(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read().split("\n")


def check(problems):
    """Fails with every problem listed, when there is one."""
    if problems:
        pytest.fail("\n".join(sorted(problems)), pytrace=False)


def area(path):
    """The folder of src that a file or header belongs to: "base", "hw/virtio", "cpu" ..."""
    part = path.split("/")
    return "/".join(part[:2]) if part[0] == "hw" and len(part) > 2 else part[0]


def may_include(user, header):
    mine, theirs = area(user), area(header)
    if mine == theirs:
        return True
    if header in FRONT and mine.split("/")[0] in FRONT_USERS:
        return True
    allowed = ALLOWED.get(os.path.splitext(user)[0], ALLOWED.get(mine, ALLOWED.get(mine.split("/")[0])))
    return allowed is not None and (theirs in allowed or theirs.split("/")[0] in allowed)


def c_sources():
    return [p for p in tracked(".c", ".h", ".def") if p.startswith("src/")]


def test_includes_follow_the_layers():
    bad = []
    for path in c_sources():
        user = path[4:]
        if "/" not in user:         # main.c sits on top
            continue
        for n, line in enumerate(lines(path), 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not m:
                continue
            header = m.group(1)
            if "/" not in header:
                bad.append('%s:%d: write the include as "folder/%s"' % (path, n, header))
            elif not may_include(user, header):
                bad.append("%s:%d: %s may not include %s" % (path, n, area(user), header))
    check(bad)


def test_internal_headers_stay_in_their_folder():
    bad = []
    for path in c_sources():
        for n, line in enumerate(lines(path), 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+_int\.h)"', line)
            if m and os.path.dirname(m.group(1)) != os.path.dirname(path[4:]):
                bad.append("%s:%d: %s is internal to its folder" % (path, n, m.group(1)))
    check(bad)


def test_files_begin_with_the_licence_line():
    bad = []
    for path in tracked(".c", ".h", ".def", ".py", ".S", "meson.build", "Makefile"):
        text = lines(path)
        if not any(SPDX in line for line in text[:3]):
            bad.append("%s:1: no line '%s'" % (path, SPDX))
    check(bad)


def test_files_are_short():
    check(["%s: %d lines, the most is %d: look for the seam" % (p, len(lines(p)), MAX_FILE)
           for p in tracked(".c", ".h", ".py", ".S") if len(lines(p)) > MAX_FILE + 1])


def test_functions_are_short():
    """A function ends at the first "}" in column one after its "{" in column one."""
    bad = []
    for path in [p for p in tracked(".c", ".h") if p.startswith(("src/", "tools/"))]:
        start, name, last = None, "", ""
        for n, line in enumerate(lines(path), 1):
            if line == "{" and start is None:
                start, name = n, last
            elif line.startswith("}") and start is not None:
                if n - start > MAX_FUNCTION:
                    bad.append("%s:%d: %d lines in %s" % (path, start, n - start, name.strip()))
                start = None
            elif line.strip():
                last = line
    check(bad)


def test_layout_of_lines():
    bad = []
    for path in tracked(".c", ".h", ".def", ".py", ".S"):
        for n, line in enumerate(lines(path), 1):
            if "\t" in line:
                bad.append("%s:%d: a tab" % (path, n))
            if line != line.rstrip():
                bad.append("%s:%d: blanks at the end" % (path, n))
            if len(line) > MAX_COLUMN:
                bad.append("%s:%d: %d columns, the most is %d" % (path, n, len(line), MAX_COLUMN))
    check(bad)


SUM = re.compile(r"\b\w*(?:off|offset|addr|pos|lba|start|base)\b\s*\+\s*\w*(?:len|length|size|count|bytes|nlb|nblocks)\b\s*(?:>=?|<=?)[^<>=]")


def test_ranges_are_tested_by_range_ok():
    """"off + len > size" wraps where a guest chooses the numbers. A sum that cannot wrap says why: /* range: ... */"""
    bad = []
    for path in [p for p in c_sources() if p != "src/base/bits.h"]:
        for n, line in enumerate(lines(path), 1):
            if SUM.search(line) and "/* range:" not in line:
                bad.append("%s:%d: use range_ok(), or say with /* range: why */ that the sum cannot wrap" % (path, n))
    check(bad)


AWAITS = re.compile(r"\b(co_wait|co_mutex_lock|co_queue_wait|co_yield|co_sleep_until|co_fd|co_offload|co_preadv|co_pwritev|"
                    r"co_fdatasync|co_fallocate)\s*\(")
DEFINITION = re.compile(r"^[A-Za-z_][\w\s\*]*?\b(\w+)\s*\([^;]*$")


def test_functions_that_wait_are_named_co():
    """What may wait is seen at the call: its name has a part "co"."""
    bad = []
    for path in [p for p in c_sources() if p.endswith(".c") and not p.startswith("src/loop/")]:
        name = None
        for n, line in enumerate(lines(path), 1):
            if line and not line[0].isspace() and line[0] not in "{}#/*":
                m = DEFINITION.match(line)
                name = m.group(1) if m else name
            if AWAITS.search(line) and line[:1].isspace() and name and "co" not in name.split("_"):
                bad.append("%s:%d: %s waits, so its name needs a part 'co'" % (path, n, name))
    check(bad)


BANNED = {
    r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca|tmpnam|mktemp)\s*\(": "unbounded or unsafe: use base/str.h",
    r"\btypedef\s+(struct|union)\b": "no typedefs of structs",
    r"\b(usleep|sleep)\s*\(": "blocks a thread: use a timer or co_sleep_until()",
}


def test_banned_functions():
    bad = []
    for path in c_sources():
        for n, line in enumerate(lines(path), 1):
            code = re.sub(r'"(\\.|[^"\\])*"|/\*.*?\*/', "", line)
            for rx, why in BANNED.items():
                if re.search(rx, code) and not code.lstrip().startswith("*"):
                    bad.append("%s:%d: %s" % (path, n, why))
    check(bad)


PAST_DMA = re.compile(r"\bas_(read|write)(_bytes)?\s*\(")
HARTS_OWN = ("src/hw/riscv/sbi", )      # what a hart asks for with its own addresses, on its thread, as if it had done it


def test_devices_reach_memory_by_dma_only():
    """struct dma refuses register windows, which ends a class of re-entrancy bugs; nothing in src/hw goes past it."""
    bad = []
    for path in [p for p in c_sources() if re.match(r"src/(hw|pci|block|net|vhost_user)/", p) and not p.startswith(HARTS_OWN)]:
        for n, line in enumerate(lines(path), 1):
            if PAST_DMA.search(line):
                bad.append("%s:%d: a device reaches memory through struct dma (mem/dma.h)" % (path, n))
    check(bad)


def test_headers_have_guards():
    check(["%s: no include guard" % p for p in c_sources()
           if p.endswith(".h") and not re.search(r"^#ifndef (\w+_H)\n#define \1$", "\n".join(lines(p)), re.M)])


def test_no_path_of_a_machine():
    """Nothing in the tree depends on where somebody's checkout is."""
    rx = re.compile(r"(?<![\w.])/(work|home/\w+|Users)/")
    bad = []
    for path in tracked(".c", ".h", ".py", ".md", ".build", ".txt", ".sh", "Makefile"):
        if path != os.path.relpath(__file__, ROOT):
            bad += ["%s:%d: an absolute path" % (path, n) for n, line in enumerate(lines(path), 1) if rx.search(line)]
    check(bad)


def test_shell_scripts_parse():
    bad = []
    for folder, dirs, files in os.walk(ROOT):
        dirs[:] = [d for d in dirs if d not in SKIP_FOLDERS and not (folder == ROOT and d.startswith("build"))]
        for f in files:
            p = os.path.join(folder, f)
            with open(p, "rb") as fh:
                first = fh.readline()
            m = re.match(rb"#!.*\b(bash|sh)$", first.strip())
            if m:
                shell = "bash" if m.group(1) == b"bash" else "sh"
                r = subprocess.run([shell, "-n", p], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
                if r.returncode:
                    bad.append(r.stdout)
    check(bad)


def test_headers_compile_alone(tmp_path):
    """Each header includes what it needs."""
    flags = subprocess.run(["pkg-config", "--cflags", "jansson"], stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    flags += ["-D_GNU_SOURCE", "-I" + os.path.join(ROOT, "src")]
    bad = []
    headers = [p for p in c_sources() if p.endswith(".h")]
    for p in headers:
        r = subprocess.run(["gcc", "-std=gnu11", "-fsyntax-only", "-x", "c", *flags, "-include", os.path.join(ROOT, p), os.devnull],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if r.returncode:
            bad.append("%s: does not compile alone: %s" % (p, r.stdout.split("\n")[0]))
    check(bad)


# The checks themselves find what they look for.

@pytest.mark.parametrize("user,header,ok", [
    ("base/err.c", "base/err.h", True), ("base/err.c", "core/obj.h", False), ("core/obj.c", "mem/region.h", False),
    ("net/filter_chr.c", "chardev/chr.h", True), ("net/net.c", "chardev/chr.h", False),
    ("net/user.c", "mem/dma.h", False), ("hw/virtio/blk.c", "block/blk.h", True), ("hw/virtio/blk.c", "block/file_int.h", False),
    ("hw/virtio/blk.c", "hw/nvme/nvme.h", False), ("hw/riscv/plic.c", "cpu/riscv/hart.h", True), ("machine/virt.c", "hw/riscv/plic.h", True), ("machine/virt.c", "hw/virtio/virtio.h", False),
    ("ctl/hmp.c", "hw/virtio/virtio.h", False), ("cpu/riscv/csr.c", "machine/machine.h", False),
])
def test_the_include_rule(user, header, ok):
    assert may_include(user, header) == ok


@pytest.mark.parametrize("line,hit", [
    ("if (off + len > size)", True), ("if (lba + nlb <= n)", True), ("if (addr + req->len >= end)", False),
    ("if (range_ok(off, len, size))", False), ("x = off + len;", False),
])
def test_the_range_rule(line, hit):
    assert bool(SUM.search(line)) == hit
