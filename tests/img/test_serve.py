# SPDX-License-Identifier: MIT
"""backplane-serve from start to end: options that fail, signals while it starts, what it leaves behind."""
import os
import signal
import socket
import subprocess
import time

import pytest

from imglib import img, wait_listening
from servelib import SERVE

OPTIONS = ["--blockdev", "raw,node-name=n,file.driver=file,file.filename=disk", "--pidfile", "pid", "--nbd-server", "addr.type=unix,addr.path=nbd",
           "--export", "nbd,id=e,node-name=n,name=disk", "--export", "vhost-user-blk,id=v,node-name=n,addr.type=unix,addr.path=vub",
           "--chardev", "socket,id=m,path=qmp,server=on,wait=off", "--monitor", "m"]


@pytest.fixture
def folder(tmp_path):
    img("create", "-f", "raw", tmp_path / "disk", "1M")
    return tmp_path


def start(folder, *more):
    return subprocess.Popen([SERVE, *OPTIONS, *more], cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_served(folder, process):
    """Until everything is served: the pid file says so. Sockets are there before."""
    end = time.monotonic() + 60
    while not (folder / "pid").exists() or (folder / "pid").read_text() != "%d\n" % process.pid:
        assert process.poll() is None and time.monotonic() < end, "it does not serve"
        time.sleep(0.01)


def test_ends_clean(folder):
    with start(folder) as p:
        wait_served(folder, p)
        p.terminate()
        assert p.wait(30) == 0
    assert os.listdir(folder) == ["disk"]


@pytest.mark.parametrize("mistake,part", [
    (["--blockdev", "raw,node-name=m"], "file"), (["--export", "nbd,id=f,node-name=nosuch"], "nosuch"),
    (["--pidfile", "/nonexistent/pid"], "/nonexistent/pid"), (["--chardev", "file,id=x,path=/nonexistent/x"], "/nonexistent/x"), (["stray"], "stray"),
])
def test_mistake_at_start(folder, mistake, part):
    with start(folder, *mistake) as p:
        assert p.wait(30) == 1 and part in p.stderr.read()
    assert os.listdir(folder) == ["disk"]


@pytest.mark.parametrize("server,part", [
    ("addr.type=unix,addr.path=x,max-conections=3", "did you mean 'max-connections'?"), ("addr.type=unix,addr.path=x,max-connections=70000", "0..65536"),
    ("addr.type=inet", "'host' is missing"), ("addr=x", "'type' is missing"), ("max-connections=1", "'addr'"),
])
def test_mistake_in_the_address(tmp_path, server, part):
    q = subprocess.run([SERVE, "--nbd-server", server], cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert q.returncode == 1 and part in q.stderr and q.stderr.startswith("backplane-serve: ")


@pytest.mark.parametrize("option", ["--nbd-server", "--export", "--blockdev", "-blockdev", "--object", "--chardev", "--trace", "-T"])
def test_help(option):
    assert subprocess.run([SERVE, option, "help"], stdout=subprocess.PIPE, text=True, timeout=30, check=True).stdout


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["--export", "help"], ["--nbd-server", "help"]])
def test_help_that_cannot_be_written(args):
    with open("/dev/full", "w", encoding="ascii") as full:
        p = subprocess.run([SERVE, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert p.returncode == 1 and "cannot be written" in p.stderr


def test_in_the_background(folder):
    with start(folder, "--daemonize") as p:
        assert p.wait(30) == 0                      # it serves once this one has ended
        pid = int((folder / "pid").read_text())
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(folder / "nbd"))
        assert os.getsid(pid) != os.getsid(0) and os.readlink("/proc/%d/cwd" % pid) == "/"
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 60 * int(os.environ.get("BP_TIMEOUT_SCALE", "1"))
        while os.listdir(folder) != ["disk"]:
            assert time.monotonic() < end, os.listdir(folder)
            time.sleep(0.01)


def test_failure_before_it_went_into_the_background(folder):
    with start(folder, "--daemonize", "--export", "nbd,id=f,node-name=nosuch") as p:
        assert p.wait(30) == 1 and "nosuch" in p.stderr.read()
    assert os.listdir(folder) == ["disk"]


def test_signal_while_it_waits_for_a_client(folder):
    with start(folder, "--chardev", "socket,id=w,path=w,server=on") as p:
        wait_listening("w", p)
        p.terminate()
        assert p.wait(30) == 0
    assert os.listdir(folder) == ["disk"]


def test_pid_file_of_another(folder):
    with start(folder) as p:
        wait_served(folder, p)
        q = subprocess.run([SERVE, "--pidfile", "pid"], cwd=folder, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
        assert q.returncode == 1 and "in use by process %d" % p.pid in q.stderr
        assert int((folder / "pid").read_text()) == p.pid
        p.terminate()
        assert p.wait(30) == 0
