# SPDX-License-Identifier: MIT
"""Who may use an image beside whom: backplane-img and QEMU's tools see each other's locks, in either direction."""
import os
import subprocess
import time

import pytest

from imglib import IMG, QEMU, img, qimg, run

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img and qemu-io")
READERS = (["convert", "-O", "raw", "@", "@.out"], ["compare", "@", "@"], ["map", "@"], ["measure", "-O", "qcow2", "@"], ["bench", "-c", "1", "@"],
           ["dd", "if=@", "of=@.out"])
WRITERS = (["resize", "@", "+1M"], ["bench", "-w", "-c", "1", "@"])


def named(cmd, path, fmt):
    cmd = [a.replace("@", str(path)) for a in cmd]
    extra = ["-f", fmt] + (["-F", fmt] if cmd[0] == "compare" else [])
    return [cmd[0], *extra, *cmd[1:]]


class Held:
    """QEMU has the image open."""

    def __init__(self, path, fmt, *flags):
        self.p = subprocess.Popen(["qemu-io", *flags, "-f", fmt, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.p.stdin.write("read 0 512\n")
        self.p.stdin.flush()
        while "ops" not in self.p.stdout.readline():
            assert self.p.poll() is None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.p.stdin.close()
        self.p.wait(20)
        self.p.stdout.close()


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_an_image_that_is_written_elsewhere(tmp_path, fmt):
    a, out = tmp_path / "a", tmp_path / "a.out"
    qimg("create", "-f", fmt, a, "4M")
    with Held(a, fmt):
        for cmd in READERS:
            cmd = named(cmd, a, fmt)
            assert "process" in img(*cmd, ok=(1, 2)).stderr
            img(cmd[0], "-U", *cmd[1:])
            out.unlink(missing_ok=True)
        for cmd in WRITERS:
            cmd = named(cmd, a, fmt)
            assert "process" in img(*cmd, ok=(1,)).stderr
            said = img(cmd[0], "-U", *cmd[1:], ok=(1,)).stderr
            assert "-U" in said or "'U'" in said, said
        img("info", "-f", fmt, a)
        said = img("check", "-f", fmt, a, ok=(0, 63)).stderr
        assert "warning" in said and "process" in said
        assert not img("check", "-q", "-U", "-f", "qcow2", a).stderr if fmt == "qcow2" else True
    assert "warning" not in img("check", "-f", fmt, a, ok=(0, 63)).stderr


def test_an_image_that_is_read_elsewhere(tmp_path):
    a = tmp_path / "a"
    qimg("create", "-f", "qcow2", a, "4M")
    with Held(a, "qcow2", "-r"):
        for cmd in READERS:
            img(*named(cmd, a, "qcow2"))
            (tmp_path / "a.out").unlink(missing_ok=True)
        for cmd in WRITERS:
            assert "process" in img(*named(cmd, a, "qcow2"), ok=(1,)).stderr


def locks(path, pid):
    """The bytes of the file that the process has locks on."""
    node, got = os.stat(path).st_ino, set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            if os.stat("/proc/%d/fd/%s" % (pid, fd)).st_ino != node:
                continue
            with open("/proc/%d/fdinfo/%s" % (pid, fd), encoding="ascii") as f:
                for w in (line.split() for line in f if line.startswith("lock:")):
                    got |= set(range(int(w[-2]), int(w[-1]) + 1))
        except FileNotFoundError:
            pass
    return got


def test_a_source_is_locked_as_by_qemu(tmp_path):
    a = tmp_path / "a"
    a.write_bytes(os.urandom(1 << 20) * 64)
    for tool in (IMG, "qemu-img"):
        p = subprocess.Popen([tool, "convert", "-r", "64k", "-f", "raw", "-O", "raw", a, tmp_path / os.path.basename(tool)])
        end = time.monotonic() + 30
        while (got := locks(a, p.pid)) != {100, 201, 203}:         # one by one
            assert p.poll() is None and time.monotonic() < end, got
            time.sleep(0.02)
        assert "process %d" % p.pid in img("resize", "-f", "raw", a, "+1M", ok=(1,)).stderr
        run("qemu-io", "-f", "raw", "-c", "write 0 512", a, ok=(1,))
        p.kill()
        p.wait()


def test_what_an_unlocked_image_names_is_not_locked_either(tmp_path):
    """info and check of an image in use, and -U: of its data file and its backing file, too."""
    a, base, top = tmp_path / "a", tmp_path / "base", tmp_path / "top"
    qimg("create", "-f", "qcow2", "-o", "data_file=%s" % (tmp_path / "data"), a, "4M")
    qimg("create", "-f", "qcow2", base, "4M")
    qimg("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    with Held(a, "qcow2"), Held(base, "qcow2"):
        for name in (a, top):
            img("info", "--backing-chain", name)
            img("check", name)
            img("map", "-U", "-f", "qcow2", name)
            img("convert", "-U", "-f", "qcow2", "-O", "raw", name, tmp_path / "out")
            (tmp_path / "out").unlink()
        assert "process" in img("map", "-f", "qcow2", a, ok=(1,)).stderr
