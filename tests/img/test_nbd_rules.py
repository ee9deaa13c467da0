# SPDX-License-Identifier: MIT
"""What the NBD protocol (doc/proto.md) asks of a server beyond what well-behaved clients notice; and clients that ask for too much."""
import contextlib
import os
import resource
import socket
import struct

import pytest

from imglib import IMG, img, run, take
from servelib import QmpError, Storage

MIB = 1 << 20
SIZE = 4 * MIB
LIST, INFO, GO, STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS = 3, 6, 7, 8, 9, 10
ACK, REP_INFO, CONTEXT = 1, 3, 4
ERR_INVALID, ERR_UNKNOWN, ERR_TOO_BIG = (1 << 31 | n for n in (3, 6, 9))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST = 1, 2, 4, 8, 16
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
MULTI_CONN = 0x100


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack(">I", len(s)) + s


class Client:
    """with Client(path) as c: c.option(...), c.go("n"), c.ask(...)"""

    def __init__(self, path, structured=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        assert take(self.sock, 18)[:16] == b"NBDMAGICIHAVEOPT"
        self.sock.sendall(struct.pack(">I", 3))
        self.structured = structured and self.option(STRUCTURED)[-1][0] == ACK

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def option(self, number, data=b""):
        """All replies to an option: kind, data."""
        self.sock.sendall(struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data)
        replies = []
        while not replies or (replies[-1][0] != ACK and not replies[-1][0] >> 31):
            magic, opt, kind, n = struct.unpack(">QIII", take(self.sock, 20))
            assert (magic, opt) == (0x3e889045565a9, number)
            replies.append((kind, take(self.sock, n)))
        return replies

    def go(self, name):
        """Flags of the export."""
        replies = self.option(GO, text(name) + struct.pack(">H", 0))
        assert replies[-1][0] == ACK, replies
        return next(struct.unpack(">HQH", d)[2] for k, d in replies if k == REP_INFO and len(d) == 12)

    def contexts(self, number, name, *queries):
        replies = self.option(number, text(name) + struct.pack(">I", len(queries)) + b"".join(map(text, queries)))
        assert replies[-1][0] == ACK, replies
        return [d[4:].decode() for k, d in replies if k == CONTEXT]

    def ask(self, kind, off, n, flags=0, data=b""):
        """The error number of a request, 0: none; what came with it is dropped."""
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, 42, off, n) + data)
        error = 0
        while True:
            magic, = struct.unpack(">I", take(self.sock, 4))
            if magic == 0x67446698:
                error, cookie = struct.unpack(">IQ", take(self.sock, 12))
                assert cookie == 42 and not (self.structured and kind == READ)
                if kind == READ and not error:
                    take(self.sock, n)
                return error
            assert magic == 0x668e33ef and self.structured
            last, chunk, cookie, length = struct.unpack(">HHQI", take(self.sock, 16))
            payload = take(self.sock, length)
            assert cookie == 42
            error = struct.unpack(">I", payload[:4])[0] if chunk >> 15 else error
            if last:
                return error


@contextlib.contextmanager
def serve(tmp_path, *exports, server="", driver="raw", **opts):
    """The path of the socket, and the process; exports named after @exports of one image."""
    img("create", "-f", "raw", tmp_path / "a", str(SIZE))
    with Storage(tmp_path, "--blockdev", "%s,node-name=n,discard=unmap,file.driver=file,file.filename=%s" % (driver, tmp_path / "a"),
                 "--nbd-server", "addr.type=unix,addr.path=%s%s" % (tmp_path / "s", server)) as s:
        for name in exports:
            s.export("nbd", ident="e-" + name, name=name, writable=True, **opts)
        yield tmp_path / "s", s


@pytest.mark.parametrize("structured", [True, False])
def test_flags_that_a_command_does_not_have(tmp_path, structured):
    """"Error values": EINVAL, whatever else would be said. FUA goes with all."""
    allowed = {READ: DF if structured else 0, WRITE: 0, FLUSH: 0, TRIM: 0, CACHE: 0, ZEROES: NO_HOLE | FAST, STATUS: REQ_ONE}
    with serve(tmp_path, "n") as (path, _), Client(path, structured) as c:
        if structured:
            assert c.contexts(SET_CONTEXTS, "n", "base:allocation") == ["base:allocation"]
        c.go("n")
        for kind, good in allowed.items():
            n = 0 if kind == FLUSH else 512
            data = b"x" * n if kind == WRITE else b""
            for bit in (1 << i for i in range(16)):
                fine = bit == FUA or bit & good
                if kind == STATUS and not structured:
                    fine = False
                error = c.ask(kind, 0, n, bit, data)
                assert error in ((0, 95) if bit == FAST and fine else (0,)) if fine else error == EINVAL, (kind, bit, error)


def test_what_is_beyond_the_end(tmp_path):
    """"Error values", and those of each request type."""
    with serve(tmp_path, "n") as (path, _), Client(path) as c:
        c.go("n")
        for kind, says in ((WRITE, ENOSPC), (ZEROES, ENOSPC), (READ, EINVAL), (TRIM, EINVAL), (CACHE, EINVAL), (STATUS, EINVAL)):
            data = b"x" * 1024 if kind == WRITE else b""
            assert c.ask(kind, SIZE - 512, 1024, 0, data) == says, kind
        assert c.ask(STATUS, 0, 512) == EINVAL                  # no context was chosen
        assert c.ask(99, 0, 0) == EINVAL
        for kind in (READ, WRITE, TRIM, CACHE, ZEROES):
            c.ask(kind, 0, 0)                                   # unspecified, but the server does not go
        assert c.ask(READ, 0, 512) == 0


def test_contexts_stay_as_they_were_chosen(tmp_path):
    """Listing them is no choice; a choice for another export is none for this one; nor is one for an export that is another by now."""
    with serve(tmp_path, "n", "m") as (path, s):
        with Client(path) as c:
            c.contexts(SET_CONTEXTS, "n", "base:allocation")
            assert c.contexts(LIST_CONTEXTS, "m") == ["base:allocation"]
            assert c.option(LIST_CONTEXTS, b"\0")[-1][0] == ERR_INVALID
            c.go("n")
            assert c.ask(STATUS, 0, 512) == 0
        with Client(path) as c:
            c.contexts(SET_CONTEXTS, "n", "base:allocation")
            assert c.option(SET_CONTEXTS, text("other") + bytes(4))[-1][0] == ERR_UNKNOWN      # that it fails takes them away, too
            c.go("n")
            assert c.ask(STATUS, 0, 512) == EINVAL
        with Client(path) as c:
            c.contexts(SET_CONTEXTS, "m", "base:allocation")
            c.go("n")
            assert c.ask(STATUS, 0, 512) == EINVAL
        with Client(path) as c:
            c.contexts(SET_CONTEXTS, "n", "base:allocation")
            s.qmp.cmd("block-export-del", id="e-n")
            s.qmp.wait_event("BLOCK_EXPORT_DELETED")
            s.export("nbd", ident="e-n", name="n")
            c.go("n")
            assert c.ask(STATUS, 0, 512) == EINVAL


def test_options_that_are_too_long_or_odd(tmp_path):
    """They are answered, and the next one is as good as ever."""
    with serve(tmp_path, "n") as (path, _), Client(path) as c:
        many = text("n") + struct.pack(">I", 4000) + text("x-y:z") * 4000
        assert c.option(SET_CONTEXTS, many)[-1][0] == ERR_TOO_BIG
        assert c.option(77, bytes(MIB))[-1][0] == ERR_TOO_BIG
        for number in (INFO, GO):
            assert c.option(number, text(b"n\0x") + bytes(2))[-1][0] == ERR_INVALID
        assert c.contexts(SET_CONTEXTS, "n", "x-y:z", "base:", "base:other", "qemu:") == []
        c.go("n")
        assert c.ask(READ, 0, 512) == 0


def test_one_client_at_a_time(tmp_path):
    """A client that could open several connections would wait for its second one for ever."""
    with serve(tmp_path, "n", server=",max-connections=1") as (path, _), Client(path) as c:
        assert not c.go("n") & MULTI_CONN
    (tmp_path / "more").mkdir()
    with serve(tmp_path / "more", "n") as (path, s):
        with Client(path) as c:
            assert c.go("n") & MULTI_CONN
        with pytest.raises(QmpError) as e:
            s.export("nbd", ident="x", name="x", description="d" * 4097)
        assert "4096" in str(e.value)


def peak(s):
    """The most memory that the process had, in bytes."""
    with open("/proc/%d/status" % s.process.pid) as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


@pytest.mark.parametrize("structured", [True, False])
def test_a_client_that_takes_no_answers(tmp_path, structured):
    """What it asks for is limited, as much as it may ask for at once."""
    img("create", "-f", "raw", tmp_path / "big", "64M")
    with serve(tmp_path) as (path, s):
        s.qmp.cmd("blockdev-add", driver="file", node_name="big", filename=str(tmp_path / "big"))
        s.export("nbd", node="big", name="big")
        before = peak(s)
        clients = [Client(path, structured) for _ in range(2)]
        for c in clients:
            c.go("big")
            c.sock.sendall(b"".join(struct.pack(">IHHQQI", 0x25609513, DF if structured else 0, READ, i, 0, 32 * MIB) for i in range(20)))
        with Client(path) as c:
            c.go("big")
            for i in range(50):
                assert c.ask(READ, i * MIB, MIB) == 0       # others are served beside it
        assert peak(s) - before < 2 * 128 * MIB + 32 * MIB
        for c in clients:
            c.sock.close()


def test_no_descriptor_is_left(tmp_path):
    """Who comes then is sent away, and does not wake the server for ever; when some have gone, the next one is served."""
    img("create", "-f", "raw", tmp_path / "a", "1M")
    with Storage(tmp_path, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "a"), "--nbd-server",
                 "addr.type=unix,addr.path=%s,max-connections=0,handshake-max-seconds=0" % (tmp_path / "s")) as s:
        s.export("nbd")
        resource.prlimit(s.process.pid, resource.RLIMIT_NOFILE, (len(os.listdir("/proc/%d/fd" % s.process.pid)) + 4,) * 2)
        held, away = [], 0
        for _ in range(12):
            c = socket.socket(socket.AF_UNIX)
            c.settimeout(60)
            c.connect(str(tmp_path / "s"))
            held.append(c)
            away += c.recv(18) == b""
        assert 7 <= away <= 9, away
        for c in held:
            c.close()
        while True:                             # the server has noticed that they are gone
            with contextlib.suppress(EOFError, ConnectionError, BrokenPipeError):
                with Client(tmp_path / "s") as c:
                    c.go("n")
                    assert c.ask(READ, 0, 512) == 0
                break


def test_several_connections_copy(tmp_path):
    """The first of these would wait for its second connection where only one is taken."""
    with serve(tmp_path, "n", server=",max-connections=1") as (path, _):
        uri = "nbd+unix:///n?socket=%s" % path
        (tmp_path / "r").write_bytes(os.urandom(SIZE))
        run("nbdcopy", "--connections=4", tmp_path / "r", uri)
        assert run(IMG, "compare", "-f", "raw", "-F", "raw", tmp_path / "r", uri)
