# SPDX-License-Identifier: MIT
"""A bare vhost-user front end: messages, memory, split rings."""
import array
import mmap
import os
import select
import socket
import struct
import time

TIMEOUT = 60 * int(os.environ.get("BP_TIMEOUT_SCALE", "1"))

(GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK,
 SET_VRING_CALL, SET_VRING_ERR, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG,
 GET_INFLIGHT_FD, SET_INFLIGHT_FD, RESET_DEVICE, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG) = (
     1, 2, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 24, 25, 31, 32, 34, 36, 37, 38)
GUEST, USER, MEMORY, DATA = 0x80000000, 0x7f0000000000, 8 << 20, 1 << 20
IN, OUT, FLUSH, GET_ID, DISCARD, ZEROES = 0, 1, 4, 8, 11, 13
VERSION_1, PROTOCOL, EVENT_IDX, INDIRECT, LOG_ALL = 1 << 32, 1 << 30, 1 << 29, 1 << 28, 1 << 26


class FrontEnd:
    """One connection. The memory can be that of another front end, whose back end died."""

    def __init__(self, path, size=32, features=VERSION_1 | PROTOCOL | 0x7a44, other=None, start=True, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        end = time.monotonic() + timeout
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)
        self.fd = other.fd if other else os.memfd_create("guest")
        if not other:
            os.ftruncate(self.fd, MEMORY)
        self.mem = other.mem if other else mmap.mmap(self.fd, MEMORY)
        self.size, self.features, self.rings = size, features, {}
        if start:
            self.offered = self.ask(GET_FEATURES)
            self.protocol = self.ask(GET_PROTOCOL_FEATURES)
            self.send(SET_PROTOCOL_FEATURES, struct.pack("<Q", self.protocol))
            self.send(SET_OWNER)
            self.send(SET_FEATURES, struct.pack("<Q", features & self.offered))
            self.table()

    def send(self, request, payload=b"", fds=(), flags=1, size=None):
        head = struct.pack("<III", request, flags, len(payload) if size is None else size)
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([head + payload], anc)

    def receive(self):
        """(request, payload, descriptors)"""
        head, anc, _, _ = self.sock.recvmsg(12, socket.CMSG_SPACE(32))
        if len(head) < 12:
            raise EOFError
        request, flags, size = struct.unpack("<III", head)
        assert flags & 7 == 5, flags
        data = b""
        while len(data) < size:
            data += self.sock.recv(size - len(data))
        fds = array.array("i")
        for _, _, d in anc:
            fds.frombytes(d)
        return request, data, list(fds)

    def ask(self, request, payload=b"", fmt="<Q"):
        self.send(request, payload)
        got, data, _ = self.receive()
        assert got == request
        return struct.unpack(fmt, data)[0] if fmt else data

    def acked(self, request, payload=b"", fds=()):
        """Sends a message and answers whether it was carried out."""
        self.send(request, payload, fds, flags=9)
        got, data, _ = self.receive()
        assert got == request
        return struct.unpack("<Q", data)[0] == 0

    def table(self):
        self.send(SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, GUEST, MEMORY, USER, 0), [self.fd])

    def config(self, size=60):
        return self.ask(GET_CONFIG, struct.pack("<III", 0, size, 0) + bytes(size), None)[12:]

    def ring(self, index=0, base=0, clear=True):
        r = Ring(self, index, base, clear)
        self.rings[index] = r
        return r

    def alive(self):
        """The connection still answers."""
        try:
            self.ask(GET_FEATURES)
            return True
        except (EOFError, OSError):
            return False

    def close(self):
        self.sock.close()


class Ring:
    def __init__(self, fe, index, base, clear):
        self.fe, self.index, self.size = fe, index, fe.size
        self.desc = index * 0x10000
        self.avail, self.used = self.desc + 16 * self.size, self.desc + 0x8000
        self.next = self.seen = base
        self.kick_fd, self.call_fd = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
        if clear:
            fe.mem[self.desc:self.desc + 0x10000] = bytes(0x10000)
        fe.send(SET_VRING_NUM, struct.pack("<II", index, self.size))
        fe.send(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 1 if fe.features & LOG_ALL else 0, USER + self.desc, USER + self.used, USER + self.avail,
                                            GUEST + self.used))
        fe.send(SET_VRING_BASE, struct.pack("<II", index, base))
        fe.send(SET_VRING_CALL, struct.pack("<Q", index), [self.call_fd])
        fe.send(SET_VRING_KICK, struct.pack("<Q", index), [self.kick_fd])
        fe.send(SET_VRING_ENABLE, struct.pack("<II", index, 1))

    def put_desc(self, i, addr, n, flags, nxt=0):
        struct.pack_into("<QIHH", self.fe.mem, self.desc + 16 * i, addr, n, flags, nxt)

    def put(self, head, kick=True):
        struct.pack_into("<H", self.fe.mem, self.avail + 4 + 2 * (self.next % self.size), head)
        self.next = self.next + 1 & 0xffff
        struct.pack_into("<H", self.fe.mem, self.avail + 2, self.next)
        if kick:
            self.kick()

    def kick(self):
        os.eventfd_write(self.kick_fd, 1)

    def used_idx(self):
        return struct.unpack_from("<H", self.fe.mem, self.used + 2)[0]

    def wait(self, timeout=TIMEOUT):
        """The next used element's head, once the driver is told."""
        end = time.monotonic() + timeout
        struct.pack_into("<H", self.fe.mem, self.avail + 4 + 2 * self.size, self.seen)      # used_event: tell us of that one
        while self.used_idx() == self.seen:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.call_fd], [], [], left)[0], "nothing used"
            os.eventfd_read(self.call_fd)
        head, n = struct.unpack_from("<II", self.fe.mem, self.used + 4 + 8 * (self.seen % self.size))
        self.seen = self.seen + 1 & 0xffff
        return head, n

    def submit(self, kind, sector=0, data=b"", want=0, slot=0, kick=True, indirect=False):
        """A request of three descriptors, from 4 * SLOT on; its memory is that slot's."""
        at, m = DATA + slot * 0x20000, self.fe.mem
        struct.pack_into("<IIQ", m, at, kind, 0, sector)
        m[at + 16] = 0xff
        m[at + 4096:at + 4096 + len(data)] = data
        chain = [(at, 16, 0)] + ([(at + 4096, len(data), 0)] if data else []) + ([(at + 4096, want, 2)] if want else []) + [(at + 16, 1, 2)]
        head = 4 * slot % self.size
        descs = [(GUEST + a, n, f | (1 if i + 1 < len(chain) else 0), i + 1) for i, (a, n, f) in enumerate(chain)]
        if indirect:
            for i, d in enumerate(descs):
                struct.pack_into("<QIHH", m, at + 2048 + 16 * i, *d)
            self.put_desc(head, GUEST + at + 2048, 16 * len(descs), 4)
        else:
            for i, (a, n, f, nxt) in enumerate(descs):
                self.put_desc(head + i, a, n, f, head + nxt)
        self.put(head, kick)
        return head

    def result(self, slot=0, want=0):
        at = DATA + slot * 0x20000
        return self.fe.mem[at + 16], bytes(self.fe.mem[at + 4096:at + 4096 + want])

    def do(self, kind, sector=0, data=b"", want=0, indirect=False):
        """One request: (status, data)."""
        self.submit(kind, sector, data, want, indirect=indirect)
        self.wait()
        return self.result(want=want)
