# SPDX-License-Identifier: MIT
"""Images made and judged by qemu-img, and a machine with an NVMe disk that writes to them."""
import os
import subprocess
import time

from lib.machine import BINARY, TIMEOUT

IMG = os.path.join(os.path.dirname(BINARY), "backplane-img")
MIB = 1 << 20


def unlocked(*args):
    """Runs a tool, again where an image is locked still: the kernel gives up the files of a killed program's io_uring a moment after its end."""
    end = time.monotonic() + TIMEOUT
    while True:
        p = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if not p.returncode or "lock" not in p.stderr or time.monotonic() > end:
            return p
        time.sleep(0.1)


def tool(*args, ok=True):
    """What a program printed; it must have ended well where OK."""
    p = unlocked(*args)
    assert not ok or p.returncode == 0, p.stdout + p.stderr
    return p.stdout


def create(path, size=None, backing=None, fmt="qcow2", backing_fmt="qcow2"):
    tool("qemu-img", "create", "-q", "-f", fmt, *(["-b", backing, "-F", backing_fmt] if backing else []), path, *([size] if size else []))
    return path


def fill(path, *patterns, fmt="qcow2"):
    """(pattern, offset, length) each."""
    tool("qemu-io", "-f", fmt, *sum([["-c", "write -P %d %d %d" % p] for p in patterns], []), path)


def content(path, fmt="qcow2"):
    out = str(path) + ".flat"
    tool("qemu-img", "convert", "-U", "-f", fmt, "-O", "raw", path, out)
    with open(out, "rb") as f:
        return f.read()


def repair(path, program="qemu-img"):
    """What a killed program left behind."""
    tool(program, "check", "-q", "-r", "leaks", path)


def check(path):
    tool("qemu-img", "check", "-q", path)
    tool(IMG, "check", "-q", path)


def drive(path, fmt="qcow2", name="d", addr=1):
    return "-drive", "file=%s,format=%s,if=none,id=%s" % (path, fmt, name), "-device", "nvme,drive=%s,serial=S,addr=%d" % (name, addr)


def io_of(m):
    n = m.nvme()
    n.enable()
    return n.io_queue()


def wait_job(m, name, event="BLOCK_JOB_COMPLETED"):
    data = m.qmp.wait_event(event)["data"]
    assert data["device"] == name
    return data


def node(m, name):
    return next(n for n in m.qmp.cmd("query-named-block-nodes") if n["node-name"] == name)
