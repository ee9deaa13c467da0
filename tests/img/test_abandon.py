# SPDX-License-Identifier: MIT
"""The program ends, and with it requests that wait for peers which take connections and say nothing, or only that they are there."""
import http.server
import json
import os
import signal
import threading

import pytest

import fakeiscsi as fi
from fakeiscsi import Fake
from servelib import Storage
from lib.nbd import Client, Cmd
from test_http import Handler
from test_iscsi import BUILT

MIB = 1 << 20


class Stuck(Handler):
    """Says how long the file is, and nothing more."""

    def do_GET(self):
        if self.headers.get("Range") != "bytes=0-0":
            self.server.asked.set()
            self.server.over.wait()
        super().do_GET()


class Peers:
    """An iSCSI target and one whose keepalives are answered, a web server, a vhost-user back end: .nodes, and .asked() when all wait."""

    def __init__(self, tmp_path):
        self.over, self.nodes, self.events = threading.Event(), [], []
        for nops in (True, False) if BUILT else ():
            self.target(nops)
        self.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stuck)
        self.web.data, self.web.seen, self.web.over, self.web.asked, self.web.daemon_threads = bytes(MIB), [], self.over, threading.Event(), True
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        self.nodes.append({"driver": "http", "url": "http://127.0.0.1:%d/image" % self.web.server_address[1], "timeout": 10000, "read-only": True})
        self.events.append(self.web.asked)
        self.far = Storage(tmp_path, "--blockdev", "null-co,node-name=n,size=1M", name="far")
        self.far.export("vhost-user-blk", addr={"type": "unix", "path": str(tmp_path / "vu")}, writable=True)
        self.nodes.append({"driver": "virtio-blk-vhost-user", "path": str(tmp_path / "vu")})

    def target(self, answers_nops):
        fake, asked = Fake(4096), threading.Event()

        def hook(conn, cdb):
            if cdb[0] == fi.READ:
                if not asked.is_set() and answers_nops:
                    threading.Thread(target=keep_alive, args=(conn,), daemon=True).start()
                asked.set()
                self.over.wait()

        def keep_alive(conn):               # in place of the thread that stands in the command
            try:
                while True:
                    h, _ = conn.pdu()
                    conn.cmdsn += 1
                    conn.put(0x20, 0x80, itt=h[16:20])
            except (fi.Drop, OSError):
                pass
        fake.on_command = hook
        self.nodes.append({"driver": "iscsi", "portal": "127.0.0.1:%d" % fake.port, "target": fi.NAME, "lun": 1})
        self.events.append(asked)

    def end(self):
        self.over.set()
        self.web.shutdown()
        self.web.server_close()
        self.far.process.send_signal(signal.SIGCONT)
        self.far.__exit__(None)


@pytest.fixture(name="peers")
def all_peers(tmp_path):
    p = Peers(tmp_path)
    yield p
    p.end()


def test_the_program_ends_whatever_its_peers_do(tmp_path, peers):
    nodes = [{**o, "node-name": "n%d" % i} for i, o in enumerate(peers.nodes)]
    near = Storage(tmp_path, *sum((["--blockdev", json.dumps(o)] for o in nodes), []), "--nbd-server",
                   "addr.type=unix,addr.path=%s" % (tmp_path / "near"), name="near")
    clients = []
    try:
        peers.far.process.send_signal(signal.SIGSTOP)
        os.waitpid(peers.far.process.pid, os.WUNTRACED)     # until all of it stands
        for o in nodes:
            near.export("nbd", node=o["node-name"], ident="e-" + o["node-name"])
            clients.append(Client(tmp_path / "near"))
            clients[-1].go(o["node-name"])
            clients[-1].send(Cmd.READ, 0, 512)
        for e in peers.events:
            assert e.wait(60)
        near.qmp.cmd("query-block-exports")
        near.process.terminate()
        assert near.process.wait(240) == 0, near.text()
    finally:
        near.process.kill()
    for o in nodes:
        assert "block node '%s' does not answer, and the program ends" % o["node-name"] in near.text()
