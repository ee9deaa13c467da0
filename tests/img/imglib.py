# SPDX-License-Identifier: MIT
"""Runs backplane-img and QEMU's tools on the same images."""
import json
import os
import random
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMG = os.path.join(os.path.dirname(os.environ.get("BACKPLANE") or os.path.join(ROOT, "build", "backplane")), "backplane-img")
sys.path.append(os.path.join(ROOT, "tests", "proto"))           # of which lib is used here, too
QEMU = shutil.which("qemu-img") and shutil.which("qemu-io")
SANITIZED = "ASAN_OPTIONS" in os.environ


def run(*cmd, ok=(0,), cwd=None, timeout=240, env=None):
    p = subprocess.run([str(c) for c in cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd=cwd, timeout=timeout,
                       check=False, env=env and dict(os.environ, **env))
    assert p.returncode in ok, "%s: status %d\n%s%s" % (" ".join(map(str, cmd)), p.returncode, p.stdout[-2000:], p.stderr[-2000:])
    return p


def img(*args, **kw):
    return run(IMG, *args, **kw)


def qimg(*args, **kw):
    """QEMU's tool; again where it could not time its key derivation, which it takes for an error on a busy machine."""
    for _ in range(20):
        try:
            return run("qemu-img", *args, **kw)
        except AssertionError as e:
            if "Unable to get accurate CPU usage" not in str(e):
                raise
    return run("qemu-img", *args, **kw)


def both(*args, **kw):
    """The same command by both; their results."""
    return img(*args, **kw), qimg(*args, **kw)


def qio(path, *cmds, fmt="qcow2"):
    args = [a for c in cmds for a in ("-c", c)]
    p = run("qemu-io", "-f", fmt, *args, path)
    assert "Pattern verification failed" not in p.stdout, p.stdout
    return p


def wait_listening(path, process, timeout=60 * int(os.environ.get("BP_TIMEOUT_SCALE", "1"))):
    """Until somebody listens on the unix socket PATH: its file is there a moment before. PROCESS is who should."""
    end = time.monotonic() + timeout
    while True:
        with open("/proc/%d/net/unix" % process.pid) as f:       # Num RefCount Protocol Flags Type St Inode Path; flag 0x10000: it accepts (Linux, net.h)
            if any(len(w) > 7 and w[7] == str(path) and int(w[3], 16) & 0x10000 for w in map(str.split, f)):
                return
        assert process.poll() is None and time.monotonic() < end, "nobody listens on %s" % path
        time.sleep(0.01)


def info(path, *args, **kw):
    return json.loads(img("info", "--output=json", *args, path, **kw).stdout)


def sparse_file(path, size, seed=1, pieces=12):
    """A raw file with random, repeating and zero parts."""
    r = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(pieces):
            f.seek(r.randrange(size // 512) * 512)
            n = min(r.randrange(1, 200) * 512, size - f.tell())
            f.write(r.randbytes(n) if r.random() < 0.5 else bytes([r.randrange(1, 256)]) * n)
    return path
