# SPDX-License-Identifier: MIT
"""Under the name qemu-system-riscv64: the command line of QEMU's own test library, its questions, its way to end a test."""
import os
import signal
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, TIMEOUT, Qmp, QmpError
from lib.qtest import Qtest


class Library:
    """What libqtest does: it listens at two sockets, the program connects to both."""

    def __init__(self, folder, *args):
        self.name = os.path.join(folder, "qemu-system-riscv64")
        os.symlink(BINARY, self.name)
        paths = [os.path.join(folder, n) for n in ("test.sock", "test.qmp")]
        listening = []
        for p in paths:
            s = socket.socket(socket.AF_UNIX)
            s.bind(p)
            s.listen(1)
            s.settimeout(TIMEOUT)
            listening.append(s)
        cmd = [self.name, "-qtest", "unix:" + paths[0], "-qtest-log", "/dev/null", "-chardev", "socket,path=%s,id=char0" % paths[1],
               "-mon", "chardev=char0,mode=control", "-display", "none", "-audio", "none", "-run-with", "exit-with-parent=on", *args, "-accel", "qtest"]
        self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL)
        socks = [s.accept()[0] for s in listening]
        for s in listening:
            s.close()
        for s in socks:
            s.settimeout(TIMEOUT)
        self.qtest, self.qmp = Qtest(socks[0]), Qmp(socks[1])

    def end(self):
        """As qtest_quit(): SIGTERM, and the status must be 0."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


@pytest.fixture(name="start")
def starter(tmp_path):
    running = []

    def start(*args):
        running.append(Library(str(tmp_path), *args))
        return running[-1]
    yield start
    for x in running:
        if x.process.poll() is None:
            x.process.kill()
            x.process.wait()


def test_questions_of_the_graph_of_tests(start):
    t = start("-machine", "none")
    machines = t.qmp.cmd("query-machines")
    assert {"virt", "none"} <= {m["name"] for m in machines}
    assert all(isinstance(m["name"], str) and isinstance(m["cpu-max"], int) for m in machines)
    assert next(m for m in machines if m["name"] == "virt")["default-cpu-type"] == "rv64-riscv-cpu"
    types = t.qmp.cmd("qom-list-types", implements="device", abstract=True)
    assert all(set(x) <= {"name", "parent", "abstract"} and "name" in x for x in types)
    for name in ("virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci", "virtio-blk-device"):
        assert any(x["name"] == name and not x.get("abstract") for x in types), name
    assert t.end() == 0


def test_virtio_mmio_has_qemus_defaults(start):
    t = start("-M", "virt", "-device", "virtio-rng-device")
    assert t.qtest.answer("readl 0x10008000") == "OK 0x0000000074726976"       # the last slot is filled first
    assert t.qtest.answer("readl 0x10008004") == "OK 0x0000000000000001"       # with the legacy registers
    assert t.qtest.answer("readl 0x10008008") == "OK 0x0000000000000004"
    assert t.end() == 0


@pytest.mark.parametrize("state", ["running", "stopped", "busy"])
def test_sigterm_is_no_failure_in_any_state(start, state):
    t = start("-M", "virt", "-device", "virtio-rng-pci")
    if state == "stopped":
        t.qmp.cmd("stop")
    elif state == "busy":
        t.qtest.sock.sendall(b"clock_step 1000000000\n" * 50)
    assert t.end() == 0


def test_every_device_lists_its_options_and_help(start):
    t = start("-machine", "none")
    for x in t.qmp.cmd("qom-list-types", implements="device"):
        try:
            assert isinstance(t.qmp.cmd("device-list-properties", typename=x["name"]), list)
        except QmpError as e:
            assert "non-abstract" in e.desc
        assert isinstance(t.qmp.hmp("device_add %s,help" % x["name"]), str)
        assert t.qmp.cmd("qom-list-properties", typename=x["name"]) is not None
    assert t.end() == 0


def test_monitor_commands_answer_without_a_machine(start):
    t = start("-machine", "none")
    for line in t.qmp.hmp("help").splitlines():
        name = line.split(" ")[0] + (" " + line.split(" ")[1] if line.startswith("info ") else "")
        if name not in ("quit", "q"):
            t.qmp.hmp(name)
    assert t.qmp.cmd("query-status")["status"]
    assert t.end() == 0


def test_prompt_that_scripts_wait_for(tmp_path):
    name = str(tmp_path / "qemu-system-riscv64")
    os.symlink(BINARY, name)
    for program, prompt in ((name, b"(qemu) "), (BINARY, b"(backplane) ")):
        out = subprocess.run([program, "-M", "none", "-monitor", "stdio", "-display", "none"], input=b"quit\n", capture_output=True, timeout=TIMEOUT, check=True)
        assert prompt in out.stdout
