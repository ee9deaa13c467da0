# SPDX-License-Identifier: MIT
"""A running backplane with monitors on sockets in a folder of its own; the process is always reaped."""
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BINARY = os.environ.get("BACKPLANE", os.path.join(ROOT, "build", "backplane"))
TIMEOUT = 60 * int(os.environ.get("BP_TIMEOUT_SCALE", "1"))     # s: for what hangs; no loaded machine meets it


def connect(path, process, timeout=TIMEOUT):
    """A stream to a unix socket that PROCESS is about to listen on."""
    end = time.monotonic() + timeout
    while True:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout)
        try:
            s.connect(path)
            return s
        except OSError:
            s.close()
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.01)


class Qmp:
    """One QMP session. cmd() returns what the command returned, or raises QmpError; events collect in .events."""

    def __init__(self, sock, negotiate=True):
        self.sock, self.file, self.events = sock, sock.makefile("rb"), []
        self.greeting = self.receive()
        if negotiate:
            self.cmd("qmp_capabilities")

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else json.dumps(data).encode())

    def receive(self):
        line = self.file.readline()
        if not line:
            raise EOFError("QMP ended")
        return json.loads(line)

    def answer(self):
        while True:
            m = self.receive()
            if "event" not in m:
                return m
            self.events.append(m)

    def request(self, data):
        self.send(data)
        return self.answer()

    def cmd(self, name, /, **arguments):
        arguments = {k.replace("_", "-") if k != "qom_type" else "qom-type": v for k, v in arguments.items()}
        m = self.request({"execute": name, "arguments": arguments})
        if "error" in m:
            raise QmpError(m["error"])
        return m["return"]

    def request_underscored(self, name, arguments):
        """cmd() for names of arguments that have underscores."""
        m = self.request({"execute": name, "arguments": arguments})
        if "error" in m:
            raise QmpError(m["error"])
        return m["return"]

    def wait_event(self, name):
        while True:
            for m in self.events:
                if m["event"] == name:
                    self.events.remove(m)
                    return m
            m = self.receive()
            assert "event" in m, m
            self.events.append(m)

    def hmp(self, line):
        return self.cmd("human-monitor-command", command_line=line).replace("\r\n", "\n")

    def close(self):
        self.file.close()
        self.sock.close()


class QmpError(Exception):
    """An error answer; .cls and .desc are QMP's."""

    def __init__(self, error):
        super().__init__("%(class)s: %(desc)s" % error)
        self.cls, self.desc = error["class"], error["desc"]


class Machine:
    """with Machine("-M", "none") as m: m.qmp.cmd("query-status")"""

    def __init__(self, *args, monitor=False):
        self.dir = tempfile.mkdtemp(prefix="bp-proto-")
        self.qmp_path, self.hmp_path = os.path.join(self.dir, "qmp"), os.path.join(self.dir, "hmp")
        cmd = [BINARY, *args, "-display", "none", "-qmp", "unix:%s,server=on,wait=off" % self.qmp_path]
        if monitor:
            cmd += ["-monitor", "unix:%s,server=on,wait=off" % self.hmp_path]
        self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.qmp = None

    def __enter__(self):
        try:
            self.qmp = Qmp(connect(self.qmp_path, self.process))
        except Exception:
            self.end()
            raise
        return self

    def __exit__(self, *exc):
        self.end()

    def connect(self, path):
        return connect(path, self.process)

    def wait(self, timeout=TIMEOUT):
        """The exit status, once the program has ended by itself."""
        return self.process.wait(timeout)

    def end(self):
        """Kills the program, if it lives, and keeps what it printed in .output, in which no sanitizer may report anything."""
        if self.process.stdout.closed:
            return
        if self.qmp:
            self.qmp.close()
        if self.process.poll() is None:
            self.process.kill()
        self.output = self.process.communicate()[0].decode(errors="replace")
        shutil.rmtree(self.dir, ignore_errors=True)
        assert "Sanitizer" not in self.output and "runtime error:" not in self.output, self.output


def run(*args, timeout=TIMEOUT):
    """Runs the program to its end: (status, standard output, standard error)."""
    p = subprocess.run([BINARY, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    return p.returncode, p.stdout, p.stderr
