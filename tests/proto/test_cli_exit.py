# SPDX-License-Identifier: MIT
"""Every way out, in every state: the terminal is given back, sockets and the pid file are gone, what was written is on disk."""
import os
import signal
import struct
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, TIMEOUT, Machine, Qmp, connect, run
from lib.term import Terminal

STATES = {"running": [], "not-started": ["-S"], "qtest": ["-accel", "qtest"]}
WAYS = ["ctrl-a-x", "monitor-quit", "qmp-quit", "SIGTERM", "SIGINT", "SIGHUP"]


def board(tmp_path, *more):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    return ["-M", "virt", "-m", "64M", "-display", "none", "-serial", "mon:stdio", "-pidfile", str(tmp_path / "pid"),
            "-qmp", "unix:%s,server=on,wait=off" % (tmp_path / "qmp"), "-chardev", "socket,id=c,path=%s,server=on,wait=off" % (tmp_path / "c"),
            "-chardev", "pty,id=p,path=%s" % (tmp_path / "pty"), "-netdev", "stream,id=n,server=on,addr.type=unix,addr.path=%s" % (tmp_path / "net"),
            "-netdev", "dgram,id=dg,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s" % (tmp_path / "dgram", tmp_path / "peer"),
            "-drive", "file=%s,format=raw,if=none,id=d" % disk, "-device", "virtio-blk-device,drive=d", *more]


def leave(way, t, tmp_path):
    if way == "ctrl-a-x":
        t.type("\x01x")
    elif way == "monitor-quit":
        t.type("\x01c")
        t.until("(backplane) ")
        t.type("quit\r")
    elif way == "qmp-quit":
        q = Qmp(connect(str(tmp_path / "qmp"), t.process))
        q.cmd("quit")
        q.close()
    else:
        t.process.send_signal(getattr(signal, way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
def test_way_out(tmp_path, state, way):
    with Terminal(*board(tmp_path, *STATES[state]), env={"TMPDIR": str(tmp_path)}) as t:
        t.until_raw()
        connect(str(tmp_path / "qmp"), t.process).close()
        assert {"pid", "c", "pty", "net", "dgram"} <= set(os.listdir(tmp_path))
        leave(way, t, tmp_path)
        assert t.wait() == 0, t.text
        assert t.is_restored()
    assert os.listdir(tmp_path) == ["disk"]


def test_stopped_machine_leaves_cleanly(tmp_path):
    with Terminal(*board(tmp_path)) as t:
        q = Qmp(connect(str(tmp_path / "qmp"), t.process))
        q.cmd("stop")
        q.cmd("quit")
        assert t.wait() == 0 and t.is_restored()
    assert os.listdir(tmp_path) == ["disk"]


@pytest.mark.parametrize("mistake,part", [
    (["-device", "nosuch"], "unknown device 'nosuch'"), (["-monitor", "unix:/nonexistent/x,server=on,wait=off"], "No such file or directory"),
    (["-kernel", "/nonexistent"], "/nonexistent"), (["-device", "virtio-blk-device,drive=d"], "in use by"),
])
def test_mistake_at_start(tmp_path, mistake, part):
    with Terminal(*board(tmp_path, *mistake)) as t:
        assert t.wait() == 1 and part in t.text, t.text
        assert t.is_restored()
    assert os.listdir(tmp_path) == ["disk"]


def until_asleep(pid):
    """Until its main thread waits: ThreadSanitizer keeps a signal that comes just before for a call that the thread does not make any more."""
    def state():
        with open("/proc/%d/stat" % pid, encoding="ascii") as f:
            return f.read().rpartition(")")[2].split()[0]
    while state() != "S":
        time.sleep(0.01)


def test_signal_while_a_server_waits_for_its_client(tmp_path):
    with Terminal("-M", "none", "-serial", "stdio", "-pidfile", str(tmp_path / "pid"), "-chardev", "socket,id=c,path=%s,server=on" % (tmp_path / "c")) as t:
        t.until("waiting for connection")
        assert set(os.listdir(tmp_path)) == {"pid", "c"}
        until_asleep(t.process.pid)
        t.process.send_signal(signal.SIGTERM)
        assert t.wait() == 0 and t.is_restored()
    assert os.listdir(tmp_path) == []


def test_signal_at_any_moment(tmp_path):
    """In steps over the whole start-up: no signal comes between making a file and the note that it must go."""
    args = board(tmp_path)
    args[args.index("mon:stdio")] = "null"
    began = time.monotonic()
    p = subprocess.Popen([BINARY, *args])
    connect(str(tmp_path / "qmp"), p).close()
    span = 1.5 * (time.monotonic() - began)
    p.terminate()
    assert p.wait(TIMEOUT) == 0
    rounds = 60 // int(os.environ.get("BP_TIMEOUT_SCALE", "1"))
    for i in range(rounds):
        p = subprocess.Popen([BINARY, *args])
        time.sleep(span * i / rounds)
        p.terminate()
        assert p.wait(TIMEOUT) in (0, -signal.SIGTERM)       # the latter before main()
        assert os.listdir(tmp_path) == ["disk"], "after %d of %d of the start" % (i, rounds)


def test_signals_are_the_main_threads(tmp_path):
    """Another thread would end the process without taking anything down; and it does not know what the main thread is about to make."""
    ours = {"CPU 0", "CPU 1", "IO t", "rcu", "worker"}       # beside the sanitizers' and the kernel's
    faults = {signal.SIGSEGV, signal.SIGBUS}
    with Machine("-M", "virt", "-smp", "2", "-m", "64M", "-object", "iothread,id=t", *board(tmp_path)[4:]) as m:
        def blocked():
            found = []
            for t in os.listdir("/proc/%d/task" % m.process.pid):
                with open("/proc/%d/task/%s/status" % (m.process.pid, t), encoding="ascii") as f:
                    s = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
                found.append((s["Name"], {n for n in range(1, 32) if int(s["SigBlk"], 16) >> (n - 1) & 1}))
            return found
        # until a new thread has run for the first time, the C library blocks every signal in it
        until = time.monotonic() + TIMEOUT
        while any(name in ours and signals & faults for name, signals in blocked()):
            assert time.monotonic() < until, blocked()
            time.sleep(0.01)
        assert {"CPU 0", "CPU 1", "IO t"} <= {name for name, _ in blocked()}
        for name, signals in blocked():
            assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= signals, name


def test_pid_file_that_is_no_file(tmp_path):
    os.symlink("/dev/full", tmp_path / "full")
    status, _, err = run("-M", "none", "-display", "none", "-pidfile", str(tmp_path / "full"))
    assert status == 1 and "%s: No space left" % (tmp_path / "full") in err
    os.mkfifo(tmp_path / "pipe")
    fd = os.open(tmp_path / "pipe", os.O_RDWR)
    with Machine("-M", "none", "-pidfile", str(tmp_path / "pipe")) as m:
        assert os.read(fd, 100) == b"%d\n" % m.process.pid
        m.qmp.cmd("quit")
        assert m.wait() == 0
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["full", "pipe"]


def test_ctrl_c_ends_where_the_terminal_sends_signals():
    with Terminal("-M", "virt", "-m", "64M", "-display", "none", "-serial", "stdio", "-S") as t:
        t.until_raw()
        t.type("\x03")
        assert t.wait() == 0 and t.is_restored()


def code(*words):
    return b"".join(struct.pack("<I", w) for w in words)


# lui t0,0x100; lui t1,VALUE>>12; addi t1,t1,LOW; sw t1,0(t0); j .
def test_device_image(value):
    low = value & 0xfff
    return code(0x001002b7, ((value + 0x800) & 0xfffff000) | 0x337, (low << 20) | 0x30313, 0x0062a023, 0x0000006f)


test_device_image.__test__ = False


@pytest.mark.parametrize("value,status", [(0x5555, 0), (0x3333 | 7 << 16, 7)])
def test_the_guest_ends_it(tmp_path, value, status):
    image = tmp_path / "image"
    image.write_bytes(test_device_image(value))
    folder = tmp_path / "run"
    folder.mkdir()
    with Terminal(*board(folder, "-bios", str(image))) as t:
        assert t.wait() == status and t.is_restored(), t.text
    assert os.listdir(folder) == ["disk"]


def test_exit_with_parent(tmp_path):
    pid = tmp_path / "pid"
    parent = subprocess.Popen(["sh", "-c", '"$@" & sleep 60', "sh", BINARY, "-M", "none", "-run-with", "exit-with-parent=on", "-pidfile", str(pid),
                               "-display", "none", "-qmp", "unix:%s,server=on,wait=off" % (tmp_path / "qmp")])
    try:
        connect(str(tmp_path / "qmp"), parent).close()
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + TIMEOUT
    while os.listdir(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("terminal", [("-display", "none"), ("-nographic", "-nodefaults"), ("-nographic", "-serial", "null")])
def test_daemon_with_relative_names_leaves_nothing(tmp_path, terminal):
    """Nor does it need a terminal where nothing would be on one."""
    r = subprocess.run([BINARY, "-M", "none", "-daemonize", *terminal, "-pidfile", "pid", "-qmp", "unix:qmp,server=on,wait=off"],
                       cwd=tmp_path, check=False, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    assert r.returncode == 0
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    end = time.monotonic() + TIMEOUT
    while os.listdir(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_another_owners_socket_is_left_alone(tmp_path):
    with Machine("-M", "none", "-chardev", "socket,id=c,path=%s,server=on,wait=off" % (tmp_path / "c")) as m:
        os.rename(tmp_path / "c", tmp_path / "old")
        (tmp_path / "c").write_text("another's")
        m.qmp.cmd("quit")
        assert m.wait() == 0
    assert (tmp_path / "c").read_text() == "another's"


def test_dumpdtb_tears_down(tmp_path):
    status, _, err = run("-M", "virt,dumpdtb=%s" % (tmp_path / "dtb"), "-display", "none", "-pidfile", str(tmp_path / "pid"))
    assert status == 0 and (tmp_path / "dtb").stat().st_size > 1000, err
    assert os.listdir(tmp_path) == ["dtb"]
