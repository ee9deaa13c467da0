# SPDX-License-Identifier: MIT
"""NBD servers that do what none should: leave bytes of a read out, or go away in the midst of a request."""
import socket
import struct
import threading

from imglib import img, take

SIZE = 32 << 20
OPT_GO, OPT_STRUCTURED = 7, 8
ACK, INFO, UNSUPPORTED = 1, 3, 1 << 31 | 1
READ, WRITE, DISC = 0, 1, 2


class Server:
    """Takes connections one after the other; what each gets after the handshake is told by a function of its own, called with the socket."""

    def __init__(self, path, structured, *scripts):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.structured, self.scripts, self.trouble = structured, scripts, []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for script in self.scripts:
            try:
                c = self.listener.accept()[0]
                c.settimeout(60)
                self.handshake(c)
                script(self, c)
                c.close()
            except Exception as e:              # pylint: disable=broad-except
                self.trouble.append(repr(e))
                return

    def handshake(self, c):
        c.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(c, 4)
        while True:
            _, option, length = struct.unpack(">8sII", take(c, 16))
            take(c, length)

            def answer(kind, data=b"", option=option):
                c.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)
            if option == OPT_GO:
                answer(INFO, struct.pack(">HQH", 0, SIZE, 0x0105))         # flags, FLUSH, CAN_MULTI_CONN
                answer(ACK)
                return
            answer(ACK if option == OPT_STRUCTURED and self.structured else UNSUPPORTED)

    def ended(self):
        self.thread.join(60)
        assert not self.thread.is_alive() and not self.trouble, self.trouble


def request(c):
    """The next one: kind, cookie, offset, length. Data of a write is read away."""
    magic, _, kind, cookie, offset, length = struct.unpack(">IHHQQI", take(c, 28))
    assert magic == 0x25609513, "no request: %x" % magic
    if kind == WRITE:
        take(c, length)
    return kind, cookie, offset, length


def target(path, delay):
    return "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=x,file.reconnect-delay=%d" % (path, delay)


def test_a_read_whose_chunks_are_not_all_of_it(tmp_path):
    def half(_, c):
        kind, cookie, offset, length = request(c)
        assert kind == READ
        n = length // 2
        c.sendall(struct.pack(">IHHQI", 0x668e33ef, 1, 1, cookie, 8 + n) + struct.pack(">Q", offset) + bytes(n))

    s = Server(tmp_path / "s", True, half)
    r = img("bench", "-c", "1", "-s", "65536", "--image-opts", target(tmp_path / "s", 0), ok=(1,))
    assert "rotocol error" in r.stderr or "Input/output error" in r.stderr, r.stderr
    s.ended()


def test_a_connection_that_goes_in_the_midst_of_requests(tmp_path):
    """One of sixteen is half sent, others wait for their turn: over the new connection each comes whole, and once at a time."""
    def gone(_, c):
        take(c, 100000)                         # the rest of the first request does not fit into the socket

    def server(_, c):
        waiting = {}
        while True:
            kind, cookie, offset, length = request(c)
            if kind == DISC:
                return
            assert cookie not in waiting, "two requests with the cookie %d: %s and %s" % (cookie, waiting[cookie], (kind, offset, length))
            waiting[cookie] = (kind, offset, length)
            c.settimeout(0.3)
            try:
                more = c.recv(1, socket.MSG_PEEK)
            except socket.timeout:
                more = b""
            c.settimeout(60)
            if not more:                        # all are here
                for w in waiting:
                    c.sendall(struct.pack(">IIQ", 0x67446698, 0, w))
                waiting = {}

    s = Server(tmp_path / "s", False, gone, server)
    img("bench", "-w", "-c", "16", "-d", "16", "-s", "1M", "--image-opts", target(tmp_path / "s", 60))
    s.ended()
