# SPDX-License-Identifier: MIT
"""Starts a machine with a Debian guest and talks to it over its console.

A test composes a machine, waits for text, runs commands and reads what they print:

    with guest.Machine("-smp", "2", modules=["virtio_blk"]) as m:
        m.boot()                                   # until /init runs
        assert m.run("nproc") == "2"

BP_EMULATOR names another program to run the same machine on (qemu-system-riscv64, for a comparison); BP_TIMEOUT_SCALE
stretches every timeout on a slow host; BP_GUEST_DIR names a guest that is there already.
"""
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "scripts"))
from guestlib import cpio  # noqa: E402  (the path is set above)

SCALE = float(os.environ.get("BP_TIMEOUT_SCALE", "1"))
BUILD = os.path.join(ROOT, os.environ.get("BP_BUILD", "build"))
EMULATOR = os.environ.get("BP_EMULATOR", os.path.join(BUILD, "backplane"))
IS_QEMU = os.path.basename(EMULATOR).startswith("qemu")
DIR = os.environ.get("BP_GUEST_DIR") or os.path.join(ROOT, "build", "guest")
READY, DONE = "BP-GUEST-READY", "BP-GUEST-DONE rc="
BOOT_TIMEOUT = 90


class GuestError(AssertionError):
    """The guest did not do what was expected; the text ends with what it printed last."""


def path(name):
    """The path of a part of the guest: vmlinux, root.ext4, firmware/edk2-code.fd ..."""
    return os.path.join(DIR, name)


def info():
    """guest.json: suite, release, packages."""
    with open(path("guest.json"), encoding="utf-8") as f:
        return json.load(f)


def _module_order(wanted):
    """WANTED modules that exist with what they need, needs first, from modules/modules.dep."""
    deps = {}
    with open(path("modules/modules.dep"), encoding="utf-8") as f:
        for line in f:
            name, _, need = line.partition(":")
            deps[name] = need.split()
    order = []
    for w in wanted:
        name = "kernel/%s.ko" % w.replace("-", "_")
        for n in list(reversed(deps.get(name, []))) + [name]:
            if n in deps and n not in order:
                order.append(n)
    return order, deps


def compose_initrd(out, modules=(), scripts=None):
    """Writes an initramfs to OUT: the base, MODULES with their needs, and SCRIPTS ({name: text}) under /scripts."""
    a = cpio.Archive()
    order, deps = _module_order(modules)
    top = "lib/modules/%s/" % info()["release"]
    for n in order:
        with open(path("modules/" + n), "rb") as f:
            a.file(top + n, f.read())
    a.file(top + "modules.dep", "".join("%s: %s\n" % (n, " ".join(deps[n])) for n in order).encode())
    for name, text in (scripts or {}).items():
        a.file("scripts/" + name, text.encode(), 0o755)
        a.file("scripts/extra/" + name, text.encode(), 0o755)
    with open(path("base.cpio"), "rb") as base, open(out, "wb") as f:
        f.write(base.read() + a.bytes())


def make_disk(where, size, fill=b""):
    """Makes a raw image of SIZE bytes that begins with FILL; returns its path as text."""
    with open(where, "wb") as f:
        f.write(fill)
        f.truncate(size)
    return str(where)


class Machine:
    """A running emulator whose console is its standard input and output.

    args     more arguments
    modules  modules that the initramfs holds and /init loads
    script   text of a script for /init to run before it powers off; without one, a shell is on the console
    root     True: go on in a root image (a private copy of root.ext4); a path: in a copy of that one
    append   more words for the kernel command line
    kernel   False: no kernel, initrd or command line (firmware tests)
    memory   "512M" ...
    under    words of a command that runs the emulator (["unshare", "-n"])
    """

    def __init__(self, *args, modules=(), script=None, root=False, append="", kernel=True, memory="512M",
                 nographic=True, emulator=None, machine="virt", scripts=None, under=()):
        self.tmp = tempfile.TemporaryDirectory(prefix="bp-guest-")
        self.log = ""
        self._mark = 0
        self._shell = False
        self.proc = None
        modules = list(modules)
        cmd = [*under, emulator or EMULATOR, "-M", machine, "-m", memory]
        if nographic:
            cmd += ["-nographic"]
        if root:
            modules = ["virtio_blk", "ext4"] + [m for m in modules if m not in ("virtio_blk", "ext4")]
            copy = self.file("root.ext4")
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", path("root.ext4") if root is True else root, copy], check=True)
            cmd += ["-drive", "file=%s,format=raw,if=none,id=rootdisk" % copy,
                    "-device", "virtio-blk-pci,drive=rootdisk"]
            append += " bp.root=/dev/vda"
        if kernel:
            scripts = dict(scripts or {})
            if script is not None:
                scripts["test"] = script
                append += " bp.script=test"
            if modules:
                append += " bp.modules=" + ",".join(modules)
            initrd = self.file("initrd")
            compose_initrd(initrd, modules, scripts)
            cmd += ["-kernel", path("vmlinux"), "-initrd", initrd, "-append", "console=ttyS0 loglevel=4 " + append.strip()]
        self.cmd = cmd + [str(a) for a in args]

    def file(self, name):
        """A path inside this machine's temporary folder."""
        return os.path.join(self.tmp.name, name)

    def __enter__(self):
        self.proc = subprocess.Popen(self.cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     cwd=self.tmp.name)
        os.set_blocking(self.proc.stdout.fileno(), False)
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Ends the emulator if it still runs and removes the temporary folder."""
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(10)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()
        if self.proc:
            self.proc.stdin.close()
            self.proc.stdout.close()
        self.tmp.cleanup()

    # -- the console

    def _read(self, deadline):
        """Takes what the console has; False at its end. Raises GuestError at the deadline."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.proc.stdout], [], [], left)[0]:
            raise GuestError("nothing more came in time")
        data = self.proc.stdout.read()
        if data:
            self.log += data.decode("utf-8", "replace")
        return bool(data)

    def _fail(self, why):
        raise GuestError("%s\n  command: %s\n  console, at its end:\n%s" %
                         (why, shlex.join(self.cmd), "\n".join("    " + x for x in self.log.splitlines()[-40:])))

    def expect(self, pattern, timeout=30):
        """Waits for the regular expression in what the console prints from here on; returns the match."""
        rx = re.compile(pattern, re.M)
        deadline = time.monotonic() + timeout * SCALE
        alive = True
        while True:
            m = rx.search(self.log, self._mark)
            if m:
                self._mark = m.end()
                return m
            if not alive:
                self._fail("the emulator ended (status %s) before %r" % (self.proc.wait(), pattern))
            try:
                alive = self._read(deadline)
            except GuestError:
                self._fail("no %r within %g s" % (pattern, timeout * SCALE))

    def send(self, text):
        """Types TEXT on the console."""
        self.proc.stdin.write(text.encode())
        self.proc.stdin.flush()

    # -- the guest

    def boot(self, timeout=BOOT_TIMEOUT):
        """Waits until the guest's first process runs."""
        self.expect(READY, timeout)

    def shell(self):
        """Waits for the shell and quietens it; run() does this by itself."""
        self.expect(r"[#$] (\x1b\[6n)?$", BOOT_TIMEOUT)    # busybox asks the terminal where the cursor is
        self.send("stty -echo; PS1= PS2=; set +m; bind 'set enable-bracketed-paste off' 2>/dev/null; echo BP-SHELL-$((40+2))\n")
        self.expect(r"BP-SHELL-42\s", 60)
        self._shell = True

    def forget_shell(self):
        """The guest starts again: the next run() meets a new shell."""
        self._shell = False

    def call(self, command, timeout=60):
        """Runs a shell command (one line or several) in the guest; returns (status, what it printed, stripped)."""
        if not self._shell:
            self.shell()
        start = self._mark
        self.send("{ %s\n} 2>&1; echo BP-RC=$?.\n" % command)
        m = self.expect(r"BP-RC=(\d+)\.", timeout)
        return int(m.group(1)), self.log[start:m.start()].replace("\r", "").strip()

    def run(self, command, timeout=60):
        """Runs a shell command that must succeed; returns what it printed."""
        rc, out = self.call(command, timeout)
        if rc:
            raise GuestError("%r gave status %d in the guest:\n%s" % (command, rc, out))
        return out

    def reload_module(self, name):
        """Takes a driver out and in again, once nobody holds it: a disk that went away is let go of a little later."""
        self.run("for i in $(seq 60); do [ $(cat /sys/module/%s/refcnt) = 0 ] && break; sleep 0.5; done; rmmod %s && modprobe %s" % (name, name, name))

    def wait(self, timeout=60):
        """Waits until the emulator ends by itself; returns its exit status."""
        deadline = time.monotonic() + timeout * SCALE
        try:
            while self._read(deadline):
                pass
            return self.proc.wait(max(1, deadline - time.monotonic()))
        except (GuestError, subprocess.TimeoutExpired):
            return self._fail("the emulator still runs after %g s" % (timeout * SCALE))

    def script_status(self, timeout=BOOT_TIMEOUT):
        """Waits for the end of the script given at the start; returns its status."""
        return int(self.expect(DONE + r"(\d+)", timeout).group(1))


class Qmp:
    """A small QMP client on a unix socket."""

    def __init__(self, sock_path, timeout=10):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout * SCALE)
        deadline = time.monotonic() + timeout * SCALE
        while True:
            try:
                self.sock.connect(sock_path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.file = self.sock.makefile("rw", encoding="utf-8")
        self.events = []
        self.greeting = json.loads(self.file.readline())
        self.cmd("qmp_capabilities")

    def cmd(self, name, /, **arguments):
        """Runs a command; returns its "return" member; raises GuestError with the text of an error."""
        q = {"execute": name}
        if arguments:
            q["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.file.write(json.dumps(q) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise GuestError("the QMP connection ended in %s" % name)
            r = json.loads(line)
            if "event" in r:
                self.events.append(r)
            elif "error" in r:
                raise GuestError("%s: %s" % (name, r["error"]))
            else:
                return r["return"]

    def event(self, name, timeout=30):
        """Waits for the event NAME (or takes one that has come already)."""
        self.sock.settimeout(timeout * SCALE)
        while True:
            for i, e in enumerate(self.events):
                if e["event"] == name:
                    return self.events.pop(i)
            line = self.file.readline()
            if not line:
                raise GuestError("the QMP connection ended before event %s" % name)
            r = json.loads(line)
            if "event" in r:
                self.events.append(r)

    def close(self):
        self.file.close()
        self.sock.close()
