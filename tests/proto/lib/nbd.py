# SPDX-License-Identifier: MIT
"""NBD for tests, as the protocol's document (doc/proto.md of the NBD project) has it: its numbers, a client that asks for anything,
and a server in memory of which each test says what is odd about it."""
import collections
import contextlib
import enum
import itertools
import select
import socket
import struct
import threading

INIT_PASSWD, IHAVEOPT, OPTION_REPLY = b"NBDMAGIC", b"IHAVEOPT", 0x3e889045565a9
REQUEST, SIMPLE_REPLY, STRUCTURED_REPLY = 0x25609513, 0x67446698, 0x668e33ef
FIXED_NEWSTYLE, NO_ZEROES = 1, 2                        # handshake flags
REP_ERR, CHUNK_ERR = 1 << 31, 1 << 15                   # bits of replies and chunks that are errors
CONTEXT_ID = 77                                         # of base:allocation, where this is the server

Opt = enum.IntEnum("Opt", {"EXPORT_NAME": 1, "ABORT": 2, "LIST": 3, "INFO": 6, "GO": 7, "STRUCTURED_REPLY": 8, "LIST_META_CONTEXT": 9, "SET_META_CONTEXT": 10})
Rep = enum.IntEnum("Rep", {"ACK": 1, "INFO": 3, "META_CONTEXT": 4, "ERR_UNSUP": REP_ERR | 1, "ERR_INVALID": REP_ERR | 3,
                           "ERR_UNKNOWN": REP_ERR | 6, "ERR_TOO_BIG": REP_ERR | 9})
Info = enum.IntEnum("Info", {"EXPORT": 0, "BLOCK_SIZE": 3})
Cmd = enum.IntEnum("Cmd", "READ WRITE DISC FLUSH TRIM CACHE WRITE_ZEROES BLOCK_STATUS", start=0)
Chunk = enum.IntEnum("Chunk", {"NONE": 0, "OFFSET_DATA": 1, "OFFSET_HOLE": 2, "BLOCK_STATUS": 5, "ERROR": CHUNK_ERR | 1})


class CmdFlag(enum.IntFlag):
    FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16


class Flag(enum.IntFlag):
    """Transmission flags: what an export can do."""
    HAS_FLAGS, SEND_FLUSH, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN = 1, 1 << 2, 1 << 5, 1 << 6, 1 << 8


def take(sock, n):
    """@n bytes of a stream socket, however they come. (With a timeout, MSG_WAITALL does not wait for all.)"""
    data = bytearray()
    while len(data) < n:
        piece = sock.recv(min(n - len(data), 1 << 20))
        if not piece:
            raise EOFError("%d bytes in place of %d" % (len(data), n))
        data += piece
    return bytes(data)


def unpack(sock, form):
    return struct.unpack(form, take(sock, struct.calcsize(form)))


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack(">I", len(s)) + s


class Client:
    """with Client(path) as c: c.option(...), c.go("n"), c.ask(...)"""

    def __init__(self, path, structured=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        assert take(self.sock, 18)[:16] == INIT_PASSWD + IHAVEOPT
        self.sock.sendall(struct.pack(">I", FIXED_NEWSTYLE | NO_ZEROES))
        self.structured = structured and self.option(Opt.STRUCTURED_REPLY)[-1][0] == Rep.ACK

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send_option(self, number, data):
        self.sock.sendall(struct.pack(">8sII", IHAVEOPT, number, len(data)) + data)

    def option(self, number, data=b""):
        """All replies to an option: kind, data."""
        self.send_option(number, data)
        replies = []
        while not replies or (replies[-1][0] != Rep.ACK and not replies[-1][0] & REP_ERR):
            magic, opt, kind, n = unpack(self.sock, ">QIII")
            assert (magic, opt) == (OPTION_REPLY, number)
            replies.append((kind, take(self.sock, n)))
        return replies

    def go(self, name):
        """Flags of the export."""
        replies = self.option(Opt.GO, text(name) + struct.pack(">H", 0))
        assert replies[-1][0] == Rep.ACK, replies
        return next(struct.unpack(">HQH", d)[2] for k, d in replies if k == Rep.INFO and len(d) == 12)

    def export_name(self, name):
        """Chooses the export as clients do that do not know GO; its flags."""
        self.send_option(Opt.EXPORT_NAME, name.encode())
        return unpack(self.sock, ">QH")[1]

    def contexts(self, number, name, *queries):
        replies = self.option(number, text(name) + struct.pack(">I", len(queries)) + b"".join(map(text, queries)))
        assert replies[-1][0] == Rep.ACK, replies
        return [d[4:].decode() for k, d in replies if k == Rep.META_CONTEXT]

    def send(self, kind, off, n, flags=0, data=b"", cookie=42):
        """A request, whose answer somebody else waits for."""
        self.sock.sendall(struct.pack(">IHHQQI", REQUEST, flags, kind, cookie, off, n) + data)

    def read(self, off, n):
        """What is there, by a simple reply."""
        assert not self.structured
        self.send(Cmd.READ, off, n)
        assert unpack(self.sock, ">IIQ") == (SIMPLE_REPLY, 0, 42)
        return take(self.sock, n)

    def ask(self, kind, off, n, flags=0, data=b""):
        """The error number of a request, 0: none; what came with it is dropped."""
        self.send(kind, off, n, flags, data)
        error = 0
        while True:
            magic, = unpack(self.sock, ">I")
            if magic == SIMPLE_REPLY:
                error, cookie = unpack(self.sock, ">IQ")
                assert cookie == 42 and not (self.structured and kind == Cmd.READ)
                if kind == Cmd.READ and not error:
                    take(self.sock, n)
                return error
            assert magic == STRUCTURED_REPLY and self.structured
            last, chunk, cookie, length = unpack(self.sock, ">HHQI")
            payload = take(self.sock, length)
            assert cookie == 42
            error = struct.unpack(">I", payload[:4])[0] if chunk & CHUNK_ERR else error
            if last:
                return error


Request = collections.namedtuple("Request", "kind cookie offset length")


class Link:
    """A connection as the server sees it; .structured once both sides want it so."""

    def __init__(self, server, sock):
        self.server, self.sock, self.structured = server, sock, False

    def handshake(self):
        """Whether an export was chosen; if not, the client said goodbye."""
        self.sock.sendall(INIT_PASSWD + IHAVEOPT + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        take(self.sock, 4)
        while True:
            magic, option, length = unpack(self.sock, ">8sII")
            assert magic == IHAVEOPT
            take(self.sock, length)
            self.server.options.append(option)
            if option == Opt.ABORT:
                return False
            if self.option(option):
                return True

    def option(self, option):
        """Answers one; whether it chose the export."""
        s = self.server

        def reply(kind, data=b""):
            self.sock.sendall(struct.pack(">QIII", OPTION_REPLY, option, kind, len(data)) + data)
        if option == Opt.EXPORT_NAME:
            self.sock.sendall(struct.pack(">QH", len(s.data), s.flags))
            return True
        if option == Opt.GO and s.go and s.known:
            if s.block:
                reply(Rep.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, *s.block))
            reply(Rep.INFO, struct.pack(">HQH", Info.EXPORT, len(s.data), s.flags))
            reply(Rep.ACK)
            return True
        if option == Opt.SET_META_CONTEXT and self.structured:
            reply(Rep.META_CONTEXT, struct.pack(">I", CONTEXT_ID) + b"base:allocation")
            reply(Rep.ACK)
        elif option == Opt.STRUCTURED_REPLY and s.structured:
            self.structured = True
            reply(Rep.ACK)
        else:
            reply(*((Rep.ERR_UNKNOWN, s.says) if option == Opt.GO and not s.known else (Rep.ERR_UNSUP,)))
        return False

    def next(self):
        """The next request; what it writes is in the server's .data by then."""
        magic, _, kind, cookie, off, n = unpack(self.sock, ">IHHQQI")
        data = self.server.data
        assert magic == REQUEST and off + n <= len(data), "no request: %x of %d bytes at %d" % (magic, n, off)
        if kind == Cmd.WRITE:
            data[off:off + n] = take(self.sock, n)
        elif kind == Cmd.WRITE_ZEROES:
            data[off:off + n] = bytes(n)
        self.server.requests.append((kind, off, n))
        return Request(kind, cookie, off, n)

    def nothing_comes(self, seconds):
        return not select.select([self.sock], [], [], seconds)[0]

    def chunk(self, r, kind, payload=b"", done=True):
        self.sock.sendall(struct.pack(">IHHQI", STRUCTURED_REPLY, done, kind, r.cookie, len(payload)) + payload)

    def answer(self, r):
        """As it should be: the whole of it, and no error."""
        data = bytes(self.server.data[r.offset:r.offset + r.length]) if r.kind == Cmd.READ else b""
        if not self.structured:
            self.sock.sendall(struct.pack(">IIQ", SIMPLE_REPLY, 0, r.cookie) + data)
        elif r.kind == Cmd.READ:
            self.chunk(r, Chunk.OFFSET_DATA, struct.pack(">Q", r.offset) + data)
        elif r.kind == Cmd.BLOCK_STATUS:
            self.chunk(r, Chunk.BLOCK_STATUS, struct.pack(">III", CONTEXT_ID, r.length, 0))
        else:
            self.chunk(r, Chunk.NONE)

    def serve(self):
        """As one should, until the client goes."""
        while (r := self.next()).kind != Cmd.DISC:
            self.server.before_answer()
            self.answer(r)

    def until_gone(self):
        """Answers nothing more."""
        while self.sock.recv(1 << 16):
            pass


class Server:
    """Server(path, content): serves @content (bytes, or how many zeroes) to all who come. With @scripts, to one after the other, as many as
    there are of these: functions that are called with the Link where an export has been chosen. .options and .requests are what came."""

    FLAGS = Flag.HAS_FLAGS | Flag.SEND_FLUSH | Flag.SEND_TRIM | Flag.SEND_WRITE_ZEROES

    def __init__(self, path, content, *scripts, flags=FLAGS, structured=True, block=None, go=True, known=True, says=b""):
        self.path, self.data, self.scripts = str(path), bytearray(content), scripts
        self.flags, self.structured, self.block, self.go, self.known, self.says = flags, structured, block, go, known, says
        self.options, self.requests, self.trouble = [], [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def before_greeting(self):
        """For those who let a client wait."""

    def before_answer(self):
        """Likewise; of a connection that Link.serve serves."""

    def run(self):
        for script in self.scripts or itertools.repeat(Link.serve):
            sock = self.listener.accept()[0]
            thread = threading.Thread(target=self.serve, args=(sock, script), daemon=True)
            thread.start()
            if self.scripts:
                thread.join()
            if self.trouble:
                return

    def serve(self, sock, script):
        link = Link(self, sock)
        try:
            sock.settimeout(60 if self.scripts else None)
            self.before_greeting()
            if link.handshake():
                with contextlib.suppress(ConnectionError):      # who is told what cannot be hears no more of it
                    script(link)
        except Exception as e:                  # pylint: disable=broad-except
            self.trouble.append(repr(e))
        sock.close()

    def ended(self):
        """All scripts have, well."""
        self.thread.join(60)
        assert not self.thread.is_alive() and not self.trouble, self.trouble

    def uri(self):
        return "nbd+unix:///?socket=" + self.path
