# SPDX-License-Identifier: MIT
"""What the NBD protocol (doc/proto.md) asks of a client, and servers that do not keep to it."""
import contextlib
import random
import shutil
import socket
import struct
import threading

import pytest

from imglib import img, run, take
from servelib import Storage
from test_nbd import Server as Process
from test_nbd_rules import FAST, READ, STATUS, WRITE, ZEROES, Client

SIZE = 1 << 20
EXPORT_NAME, ABORT, GO, STRUCTURED, SET_CONTEXTS = 1, 2, 7, 8, 10
ACK, INFO, CONTEXT = 1, 3, 4
UNSUPPORTED, UNKNOWN = 1 << 31 | 1, 1 << 31 | 6
DISC, ESHUTDOWN = 2, 108
FLAGS = 0x0065                      # HAS_FLAGS, FLUSH, TRIM, WRITE_ZEROES
DATA, HOLE, ALLOCATION, NONE = 1, 2, 5, 0


class Server:
    """Each connection is served by a function of its own, called with this and the socket; ->options are those that came."""

    def __init__(self, path, *scripts, block=None, go=True, known=True):
        self.block, self.knows_go, self.known, self.scripts = block, go, known, scripts
        self.options, self.requests, self.trouble = [], [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            for script in self.scripts:
                c = self.listener.accept()[0]
                c.settimeout(60)
                c.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
                take(c, 4)
                while self.option(c):
                    pass
                with contextlib.suppress(ConnectionError):      # who is told what cannot be hears no more of it
                    script(self, c)
                c.close()
        except Exception as e:                  # pylint: disable=broad-except
            self.trouble.append(repr(e))

    def option(self, c):
        _, option, length = struct.unpack(">8sII", take(c, 16))
        take(c, length)
        self.options.append(option)

        def answer(kind, data=b""):
            c.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)
        if option == EXPORT_NAME:
            c.sendall(struct.pack(">QH", SIZE, FLAGS))
        elif option == GO and self.knows_go and self.known:
            if self.block:
                answer(INFO, struct.pack(">HIII", 3, *self.block))
            answer(INFO, struct.pack(">HQH", 0, SIZE, FLAGS))
            answer(ACK)
        elif option == SET_CONTEXTS:
            answer(CONTEXT, struct.pack(">I", 77) + b"base:allocation")
            answer(ACK)
        elif option == STRUCTURED:
            answer(ACK)
        elif option != ABORT:
            answer(UNKNOWN if option == GO and not self.known else UNSUPPORTED)
        return option != ABORT and not (option == EXPORT_NAME or (option == GO and self.knows_go and self.known))

    def next(self, c):
        """kind, cookie, offset, length of the next request."""
        magic, _, kind, cookie, off, n = struct.unpack(">IHHQQI", take(c, 28))
        assert magic == 0x25609513
        if kind == WRITE:
            take(c, n)
        self.requests.append((kind, off, n))
        return kind, cookie, off, n

    def ended(self):
        self.thread.join(60)
        assert not self.thread.is_alive() and not self.trouble, self.trouble


def chunk(c, cookie, kind, payload=b"", done=True):
    c.sendall(struct.pack(">IHHQI", 0x668e33ef, done, kind, cookie, len(payload)) + payload)


def serve_all(data=None):
    """A script that answers as one should, until the client goes."""
    def script(s, c):
        while True:
            kind, cookie, off, n = s.next(c)
            if kind == DISC:
                return
            if kind == READ:
                chunk(c, cookie, DATA, struct.pack(">Q", off) + (data[off:off + n] if data else bytes(n)))
            elif kind == STATUS:
                chunk(c, cookie, ALLOCATION, struct.pack(">III", 77, n, 0))
            else:
                chunk(c, cookie, NONE)
    return script


def until_gone(_, c):
    while c.recv(1 << 16):
        pass


def opts(path, more=""):
    return "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=x%s" % (path, more)


def odd_read(how):
    def script(s, c):
        kind, cookie, off, n = s.next(c)
        assert kind == READ
        half = n // 2
        if how == "half twice":
            for done in (False, True):
                chunk(c, cookie, DATA, struct.pack(">Q", off) + bytes(half), done)
        elif how == "overlapping":
            chunk(c, cookie, DATA, struct.pack(">Q", off) + bytes(half + 1), False)
            chunk(c, cookie, DATA, struct.pack(">Q", off + half) + bytes(half), True)
        elif how == "hole over data":
            chunk(c, cookie, DATA, struct.pack(">Q", off) + bytes(n), False)
            chunk(c, cookie, HOLE, struct.pack(">QI", off, n), True)
        elif how == "empty hole":
            chunk(c, cookie, HOLE, struct.pack(">QI", off, 0), False)
            chunk(c, cookie, DATA, struct.pack(">Q", off) + bytes(n), True)
        elif how == "none before the end":
            chunk(c, cookie, NONE, b"", False)
            chunk(c, cookie, DATA, struct.pack(">Q", off) + bytes(n), True)
        elif how == "long text":
            chunk(c, cookie, 0x8001, struct.pack(">IH", 5, 100) + b"short", True)
        until_gone(s, c)
    return script


@pytest.mark.parametrize("how", ["half twice", "overlapping", "hole over data", "empty hole", "none before the end", "long text"])
def test_chunks_that_cannot_be(tmp_path, how):
    """The connection ends ("Structured reply types"), and what did not come is nobody's data."""
    s = Server(tmp_path / "s", odd_read(how))
    r = img("bench", "-c", "1", "-s", "65536", "--image-opts", opts(tmp_path / "s"), ok=(1,))
    assert "is lost: Protocol error" in r.stderr, r.stderr
    s.ended()


def test_chunks_in_any_order(tmp_path):
    """"NBD_CMD_READ": the client puts them in order."""
    data = random.Random(5).randbytes(SIZE)

    def script(s, c):
        while True:
            kind, cookie, off, n = s.next(c)
            if kind == DISC:
                return
            if kind == STATUS:
                chunk(c, cookie, ALLOCATION, struct.pack(">III", 77, n, 0))
                continue
            cuts = sorted(random.Random(off).sample(range(1, n), 30)) + [n]
            pieces = list(zip([0] + cuts, cuts))
            random.Random(off).shuffle(pieces)
            for at, to in pieces:
                chunk(c, cookie, DATA, struct.pack(">Q", off + at) + data[off + at:off + to], False)
            chunk(c, cookie, NONE)

    s = Server(tmp_path / "s", script)
    img("convert", "--image-opts", opts(tmp_path / "s"), "-O", "raw", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data
    s.ended()


@pytest.mark.parametrize("payload", [struct.pack(">III", 78, SIZE, 0), struct.pack(">III", 77, 0, 0), struct.pack(">I", 77), struct.pack(">IIII", 77, 1, 0, 1), None])
def test_states_that_cannot_be(tmp_path, payload):
    """Of another context, of no bytes, of no extent, cut; or none at all."""
    def script(s, c):
        kind, cookie, _, _ = s.next(c)
        assert kind == STATUS
        chunk(c, cookie, NONE if payload is None else ALLOCATION, payload or b"")
        until_gone(s, c)

    s = Server(tmp_path / "s", script)
    r = img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,))
    assert "is lost: Protocol error" in r.stderr, r.stderr
    s.ended()


@pytest.mark.parametrize("block", [(512, 4096, 8192), (4096, 4096, 12288), (1, 4096, 1 << 20)])
def test_limits_of_the_server_are_kept(tmp_path, block):
    """"Size constraints": no request is smaller or larger, or begins elsewhere; whatever is asked of us."""
    data = random.Random(6).randbytes(SIZE)
    s = Server(tmp_path / "far", serve_all(data), block=block)
    with Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=x,discard=unmap" % (tmp_path / "far"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near")) as near:
        near.export("nbd", node="m", name="m", writable=True)
        with Client(tmp_path / "near") as c:
            assert c.contexts(SET_CONTEXTS, "m", "base:allocation")
            c.go("m")
            for kind in (READ, WRITE, 4, ZEROES, STATUS):
                for off, n in ((0, SIZE), (512, 512), (700, 9000), (4096, 8192), (SIZE - 700, 700)):
                    assert c.ask(kind, off, n, 0, bytes(n) if kind == WRITE else b"") == 0
    s.ended()
    least, _, most = block
    assert len(s.requests) > 20
    for kind, off, n in s.requests:
        assert off % least == 0 and n % least == 0 and n <= (most if kind != STATUS else SIZE), (kind, off, n)


@pytest.mark.parametrize("block", [(0, 4096, 65536), (3, 4096, 65536), (1 << 17, 1 << 17, 1 << 20), (4096, 4096, 512)])
def test_limits_that_cannot_be(tmp_path, block):
    s = Server(tmp_path / "s", until_gone, block=block)
    assert "which cannot be" in img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,)).stderr
    s.ended()


@pytest.mark.skipif(not shutil.which("nbdkit"), reason="no nbdkit")
def test_large_blocks_of_nbdkit(tmp_path):
    """An image whose tables are smaller than what the server takes."""
    k = Process(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", "--filter=blocksize-policy", "memory", "16M", "blocksize-minimum=4096",
                           "blocksize-preferred=4096", "blocksize-maximum=1M", "blocksize-error-policy=error"])
    (tmp_path / "raw").write_bytes(random.Random(7).randbytes(3 << 20))
    img("convert", "--force", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", tmp_path / "raw", k.uri())
    img("check", "-f", "qcow2", k.uri())
    img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "raw", k.uri())
    k.end()


def test_a_server_that_goes(tmp_path):
    """Told ESHUTDOWN, the client goes first ("Terminating the transmission phase"), and asks the next server."""
    def going(s, c):
        kind, cookie, _, _ = s.next(c)
        assert kind == READ
        chunk(c, cookie, 0x8001, struct.pack(">IH", ESHUTDOWN, 0))
        assert s.next(c)[0] == DISC

    s = Server(tmp_path / "s", going, serve_all())
    img("bench", "-c", "1", "-s", "65536", "--image-opts", opts(tmp_path / "s", ",file.reconnect-delay=60"))
    s.ended()


def test_a_server_that_does_not_know_go(tmp_path):
    data = random.Random(8).randbytes(SIZE)
    s = Server(tmp_path / "s", serve_all(data), go=False)
    img("convert", "--image-opts", opts(tmp_path / "s"), "-O", "raw", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data and s.options[-2:] == [GO, EXPORT_NAME]
    s.ended()


def test_who_is_refused_says_goodbye(tmp_path):
    s = Server(tmp_path / "s", until_gone, known=False)
    assert "refuses export 'x'" in img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,)).stderr
    s.ended()
    assert s.options[-2:] == [GO, ABORT]


def test_zeroes_that_must_be_fast(tmp_path):
    """A server that does not offer it is not asked for it."""
    s = Server(tmp_path / "far", serve_all())
    with Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=x" % (tmp_path / "far"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near")) as near:
        near.export("nbd", node="m", name="m", writable=True)
        with Client(tmp_path / "near") as c:
            c.go("m")
            assert c.ask(ZEROES, 0, 4096, FAST) == 95 and c.ask(ZEROES, 0, 4096) == 0
    s.ended()
    assert [r for r in s.requests if r[0] == ZEROES] == [(ZEROES, 0, 4096)]


@pytest.mark.skipif(not shutil.which("nbdcopy"), reason="no nbdcopy")
def test_extents_that_are_no_whole_sectors(tmp_path):
    """As nbdkit's extentlist filter tells them."""
    (tmp_path / "l").write_text("0 1000 allocated\n1000 1 hole,zero\n1001 5000 allocated\n6001 100000 zero\n")
    (tmp_path / "raw").write_bytes(random.Random(9).randbytes(1000) + b"\0" + random.Random(10).randbytes(5000) + bytes(SIZE - 6001))
    k = Process(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", "--filter=extentlist", "file", tmp_path / "raw", "extentlist=%s" % (tmp_path / "l")])
    img("convert", "-f", "raw", "-O", "raw", k.uri(), tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == (tmp_path / "raw").read_bytes()
    run("nbdcopy", k.uri(), tmp_path / "p")
    k.end()
