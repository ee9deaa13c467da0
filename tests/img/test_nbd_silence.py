# SPDX-License-Identifier: MIT
"""NBD with peers that say nothing: neither side waits for them for ever. A server that comes back is found again."""
import select
import signal
import socket
import threading
import time

import pytest

from imglib import img
from lib.nbd import Client, Cmd, Server
from servelib import Storage

MIB = 1 << 20
EIO = 5


class Relay:
    """Between a client and the server behind @path: passes bytes on, or takes connections and says nothing."""

    def __init__(self, tmp_path, path):
        self.path, self.behind, self.silent, self.pairs, self.taken = str(tmp_path / "relay"), path, False, [], 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                ready = select.select([self.listener] + [s for pair in self.pairs for s in pair if s], [], [], 0.05)[0]
            except (OSError, ValueError):
                continue
            for s in ready:
                if s is self.listener:
                    self.accept()
                else:
                    self.move(s)

    def accept(self):
        c, behind = self.listener.accept()[0], None
        if not self.silent:
            behind = socket.socket(socket.AF_UNIX)
            behind.connect(self.behind)
        self.pairs.append((c, behind))
        self.taken += 1

    def move(self, s):
        for pair in list(self.pairs):
            if s not in pair:
                continue
            other = pair[1 - pair.index(s)]
            data = s.recv(65536)
            if data and other:
                other.sendall(data)
            elif not data:
                self.pairs.remove(pair)
                for x in pair:
                    if x:
                        x.close()

    def cut(self, silent):
        self.silent = silent
        for s in [s for pair in list(self.pairs) for s in pair if s]:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:                 # run() saw the other half of the pair go, and closed both
                pass


@pytest.mark.parametrize("seconds", ["1", "0"])
def test_a_client_that_says_nothing_is_sent_away(tmp_path, seconds):
    """So that those who wait behind it for one of the connections get theirs."""
    with Storage(tmp_path, "--blockdev", "null-co,node-name=n,size=1M", "--nbd-server",
                 "addr.type=unix,addr.path=%s,max-connections=1,handshake-max-seconds=%s" % (tmp_path / "s", seconds)) as s:
        s.export("nbd")
        with Client(tmp_path / "s", structured=False) as mute:
            if seconds == "0":
                mute.sock.settimeout(1.5)
                with pytest.raises(socket.timeout):
                    mute.sock.recv(1)
                return
            assert mute.sock.recv(1) == b""
        with Client(tmp_path / "s", structured=False) as c:
            c.export_name("n")
            time.sleep(1.5)                     # who is through it stays as long as it likes
            assert c.ask(Cmd.READ, 0, 512) == 0


def test_requests_do_not_wait_for_a_server_that_says_nothing(tmp_path):
    img("create", "-f", "raw", tmp_path / "a.raw", "1M")
    with Storage(tmp_path, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "a.raw"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "far"), name="far") as far:
        far.export("nbd", writable=True)
        relay = Relay(tmp_path, str(tmp_path / "far"))
        with Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=n,reconnect-delay=1" % relay.path,
                     "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near"), name="near") as near:
            near.export("nbd", node="m")
            with Client(tmp_path / "near") as c:
                c.go("m")
                assert c.ask(Cmd.READ, 0, 512) == 0
                relay.cut(silent=False)
                assert c.ask(Cmd.READ, 512, 512) == 0 and relay.taken == 2          # made anew
                relay.cut(silent=True)
                assert c.ask(Cmd.READ, 1024, 512) == EIO
                relay.cut(silent=False)
                assert c.ask(Cmd.READ, 1536, 512) == 0


def test_the_program_ends_whatever_a_server_says(tmp_path):
    """With a request on its way to a server that stands still, and would be waited for a day."""
    img("create", "-f", "raw", tmp_path / "a.raw", "1M")
    with Storage(tmp_path, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "a.raw"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "far"), name="far") as far:
        far.export("nbd", writable=True)
        near = Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=n,reconnect-delay=86400" % (tmp_path / "far"),
                       "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near"), name="near")
        near.export("nbd", node="m")
        with Client(tmp_path / "near") as c:
            c.go("m")
            far.process.send_signal(signal.SIGSTOP)
            try:
                c.send(Cmd.READ, 0, 512)
                near.qmp.cmd("query-block-exports")
                near.process.terminate()
                assert near.process.wait(120) == 0
            finally:
                near.process.kill()
                far.process.send_signal(signal.SIGCONT)
        assert "does not answer, and the program ends" in near.text()


@pytest.mark.parametrize("how", ["cancel", "quit"])
def test_nobody_waits_for_a_lost_server_in_vain(tmp_path, how):
    """A job that is cancelled, and the end of the program, do not wait for requests which wait for the server to come back."""
    path = str(tmp_path / "far")
    with Storage(tmp_path, "--blockdev", "null-co,node-name=s,size=64M", name="near") as near:
        with Storage(tmp_path, "--blockdev", "null-co,node-name=n,size=64M", "--nbd-server", "addr.type=unix,addr.path=" + path, name="far") as far:
            far.export("nbd", writable=True)
            near.qmp.cmd("blockdev-add", **{"driver": "nbd", "node-name": "t", "export": "n", "reconnect-delay": 3600,
                                            "server": {"type": "unix", "path": path}})
            near.qmp.cmd("blockdev-mirror", **{"job-id": "j", "device": "s", "target": "t", "sync": "full", "speed": 1 << 20})
        near.qmp.cmd("block-job-set-speed", device="j", speed=0)
        if how == "cancel":
            near.qmp.cmd("block-job-cancel", device="j", force=True)
            near.qmp.wait_event("BLOCK_JOB_CANCELLED")
            near.qmp.cmd("blockdev-del", **{"node-name": "t"})


@pytest.mark.parametrize("drain", [True, False])
def test_bench_flushes_when_nothing_is_in_flight(tmp_path, drain):
    """Unless --no-drain: the server, which answers only what it has of several requests together, sees which are under way at a flush."""
    at_flush = []

    def together(link):
        waiting = []
        while (r := link.next()).kind != Cmd.DISC:
            if r.kind == Cmd.FLUSH:
                at_flush.append(len(waiting))
            waiting.append(r)
            while waiting and (r.kind == Cmd.FLUSH or link.nothing_comes(0.05)):
                link.answer(waiting.pop(0))

    s = Server(tmp_path / "s", MIB, together)
    img("bench", "-w", "-c", "16", "-d", "4", "-s", "4k", "--flush-interval=5", *([] if drain else ["--no-drain"]), "-f", "raw",
        s.uri())
    s.ended()
    assert len(at_flush) >= 3 and (not any(at_flush[:3]) if drain else any(at_flush[:3])), at_flush
