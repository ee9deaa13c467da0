# SPDX-License-Identifier: MIT
"""An iSCSI target of its own for a test: Debian's tgt, in user space."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

NAME = "iqn.2026-01.test.backplane:disk"
HAVE = bool(shutil.which("tgtd") and shutil.which("tgtadm"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Target:
    """One target; units are added. Its daemon can be killed and started again at the same place."""

    def __init__(self, name=NAME):
        self.dir = tempfile.mkdtemp(prefix="bp-tgt-")
        self.name, self.units, self.users, self.params = name, {}, {}, {}
        for _ in range(20):             # somebody else may take the port first
            self.port = free_port()
            if self.start():
                return
        raise AssertionError("tgtd does not start")

    def adm(self, op, mode, *args, ok=True):
        cmd = ["tgtadm", "-C", "1", "--lld", "iscsi", "--op", op, "--mode", mode, *map(str, args)]
        p = subprocess.run(cmd, env=self.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        assert not ok or not p.returncode, "%s: %s" % (" ".join(cmd), p.stdout)
        return p.stdout

    def env(self):
        return dict(os.environ, TGT_IPC_SOCKET=os.path.join(self.dir, "ctl"))

    def start(self):
        with open(os.path.join(self.dir, "log"), "a") as log:
            self.p = subprocess.Popen(["tgtd", "-f", "-C", "1", "--iscsi", "portal=127.0.0.1:%d" % self.port], env=self.env(),
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while "127.0.0.1:%d" % self.port not in self.adm("show", "portal", ok=False):
            if self.p.poll() is not None or time.monotonic() > end:
                self.kill()
                return False
            time.sleep(0.02)
        self.adm("new", "target", "--tid", 1, "-T", self.name)
        for key, value in self.params.items():
            self.adm("update", "target", "--tid", 1, "--name", key, "--value", value)
        for lun, args in self.units.items():
            self.add_unit(lun, *args)
        for user, password in self.users.items():
            self.add_user(user, password)
        self.adm("bind", "target", "--tid", 1, "-I", "ALL")
        return True

    def add_unit(self, lun, path, block=512, params=""):
        self.units[lun] = (path, block, params)
        self.adm("new", "logicalunit", "--tid", 1, "--lun", lun, "-b", path, "--blocksize", block)
        if params:
            self.adm("update", "logicalunit", "--tid", 1, "--lun", lun, "--params", params)

    def add_user(self, user, password):
        self.users[user] = password
        self.adm("new", "account", "--user", user, "--password", password)
        self.adm("bind", "account", "--tid", 1, "--user", user)

    def param(self, key, value):
        self.params[key] = value
        self.adm("update", "target", "--tid", 1, "--name", key, "--value", value)

    def url(self, lun=1, who=""):
        return "iscsi://%s127.0.0.1:%d/%s/%d" % (who, self.port, self.name, lun)

    def opts(self, lun=1, **more):
        o = {"driver": "iscsi", "transport": "tcp", "portal": "127.0.0.1:%d" % self.port, "target": self.name, "lun": lun, **more}
        return ",".join("%s=%s" % (k.replace("_", "-"), v) for k, v in o.items())

    def sessions(self):
        return self.adm("show", "target").count("I_T nexus: ")

    def kill(self):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGKILL)
        self.p.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.dir)
