# SPDX-License-Identifier: MIT
"""NBD with peers that say nothing: neither side waits for them for ever. A server that comes back is found again."""
import select
import signal
import socket
import struct
import threading

import pytest

from imglib import img, take
from servelib import Storage


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


def hello(path, export=b""):
    """A client that has chosen its export."""
    c = socket.socket(socket.AF_UNIX)
    c.settimeout(60)
    c.connect(path)
    assert take(c, 18)[:8] == b"NBDMAGIC"
    if export:
        c.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, len(export)) + export)
        take(c, 10)
    return c


def ask_read(c, off):
    """The error number of a read of 512 bytes."""
    c.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, off, 512))
    head = take(c, 16)
    error = struct.unpack(">I", head[4:8])[0]
    if not error:
        take(c, 512)
    return error


@pytest.mark.parametrize("seconds", ["1", "0"])
def test_a_client_that_says_nothing_is_sent_away(tmp_path, seconds):
    """So that those who wait behind it for one of the connections get theirs."""
    with Storage(tmp_path, "--blockdev", "null-co,node-name=n,size=1M", "--nbd-server",
                 "addr.type=unix,addr.path=%s,max-connections=1,handshake-max-seconds=%s" % (tmp_path / "s", seconds)) as s:
        s.export("nbd")
        mute = hello(str(tmp_path / "s"))
        if seconds == "1":
            assert mute.recv(1) == b""
            c = hello(str(tmp_path / "s"), b"n")
            select.select([], [], [], 1.5)          # who is through it stays as long as it likes
            assert ask_read(c, 0) == 0
            c.close()
        else:
            mute.settimeout(1.5)
            with pytest.raises(socket.timeout):
                mute.recv(1)
        mute.close()


def test_requests_do_not_wait_for_a_server_that_says_nothing(tmp_path):
    img("create", "-f", "raw", tmp_path / "a.raw", "1M")
    with Storage(tmp_path, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "a.raw"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "far"), name="far") as far:
        far.export("nbd", writable=True)
        relay = Relay(tmp_path, str(tmp_path / "far"))
        with Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=n,reconnect-delay=1" % relay.path,
                     "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near"), name="near") as near:
            near.export("nbd", node="m")
            c = hello(str(tmp_path / "near"), b"m")
            assert ask_read(c, 0) == 0
            relay.cut(silent=False)
            assert ask_read(c, 512) == 0 and relay.taken == 2           # made anew
            relay.cut(silent=True)
            assert ask_read(c, 1024) == 5
            relay.cut(silent=False)
            assert ask_read(c, 1536) == 0
            c.close()


def test_the_program_ends_whatever_a_server_says(tmp_path):
    """With a request on its way to a server that stands still, and would be waited for a day."""
    img("create", "-f", "raw", tmp_path / "a.raw", "1M")
    with Storage(tmp_path, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "a.raw"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "far"), name="far") as far:
        far.export("nbd", writable=True)
        near = Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=n,reconnect-delay=86400" % (tmp_path / "far"),
                       "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near"), name="near")
        near.export("nbd", node="m")
        c = hello(str(tmp_path / "near"), b"m")
        far.process.send_signal(signal.SIGSTOP)
        try:
            c.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))
            near.qmp.cmd("query-block-exports")
            near.process.terminate()
            assert near.process.wait(120) == 0
        finally:
            near.process.kill()
            far.process.send_signal(signal.SIGCONT)
        assert "does not answer, and the program ends" in near.text()
        c.close()


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
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(1)
    at_flush = []

    def serve():
        c = listener.accept()[0]
        c.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(c, 4)
        while True:
            _, option, length = struct.unpack(">QII", take(c, 16))
            take(c, length)
            reply = struct.pack(">QI", 0x3e889045565a9, option)
            if option == 7:
                break
            c.sendall(reply + struct.pack(">II", 1 << 31 | 1, 0))
        c.sendall(reply + struct.pack(">IIHQH", 3, 12, 0, 1 << 20, 1 | 4) + reply + struct.pack(">II", 1, 0))
        waiting = []
        while True:
            _, _, kind, cookie, _, length = struct.unpack(">IHHQQI", take(c, 28))
            if kind == 2:
                return
            if kind == 1:
                take(c, length)
            else:
                at_flush.append(len(waiting))
            waiting.append(cookie)
            while waiting and (kind == 3 or not select.select([c], [], [], 0.05)[0]):
                c.sendall(struct.pack(">IIQ", 0x67446698, 0, waiting.pop(0)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    img("bench", "-w", "-c", "16", "-d", "4", "-s", "4k", "--flush-interval=5", *([] if drain else ["--no-drain"]), "-f", "raw",
        "nbd+unix:///?socket=%s" % (tmp_path / "s"))
    assert len(at_flush) >= 3 and (not any(at_flush[:3]) if drain else any(at_flush[:3])), at_flush
