# SPDX-License-Identifier: MIT
"""backplane-serve with a monitor."""
import os
import subprocess

from imglib import IMG
from lib.machine import Qmp, QmpError, connect

SERVE = os.path.join(os.path.dirname(IMG), "backplane-serve")
__all__ = ["SERVE", "QmpError", "Storage"]


class Storage:
    """with Storage(tmp_path, "--blockdev", ...) as s: s.qmp.cmd("block-export-add", ...)"""

    def __init__(self, tmp_path, *args, name="serve"):
        self.monitor = str(tmp_path / (name + ".qmp"))
        self.log = open(tmp_path / (name + ".log"), "w+")
        self.process = subprocess.Popen([SERVE, *[str(a) for a in args], "--chardev", "socket,id=m,path=%s,server=on,wait=off" % self.monitor,
                                         "--monitor", "m"], stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        self.qmp = Qmp(connect(self.monitor, self.process))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.terminate()
        try:
            self.status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.qmp.file.close()
            self.qmp.sock.close()
            self.log.close()
        assert exc[0] or self.status == 0, "status %d: %s" % (self.status, self.text())

    def text(self):
        with open(self.log.name) as f:
            return f.read()

    def export(self, kind, node="n", ident="e", **opts):
        self.qmp.cmd("block-export-add", **{"type": kind, "id": ident, "node-name": node, **opts})
