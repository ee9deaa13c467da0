# SPDX-License-Identifier: MIT
"""An iSCSI target (RFC 7143) of one disk in memory that does odd things on request: what a real one does only on a bad day."""
import socket
import struct
import threading

NAME = "iqn.2026-01.test.backplane:fake"
UNIT_ATTENTION, ILLEGAL, PROTECT, MEDIUM, ABORTED, NOT_READY = 6, 5, 7, 3, 11, 2
TEST_UNIT_READY, INQUIRY, MODE_SENSE, SYNC, UNMAP, READ, WRITE, WRITE_SAME, SERVICE_IN = 0x00, 0x12, 0x1a, 0x35, 0x42, 0x88, 0x8a, 0x93, 0x9e


class Drop(Exception):
    """Ends the connection."""


class Sense(Exception):
    """CHECK CONDITION."""

    def __init__(self, key, asc, descriptor=False):
        super().__init__()
        self.data = struct.pack(">BBBB4x", 0x72, key, asc >> 8, asc & 255) if descriptor else \
            struct.pack(">BxB4xB4xBB4x", 0x70, key, 10, asc >> 8, asc & 255)


class Status(Exception):
    """Another status; with raw: this PDU in place of an answer."""

    def __init__(self, status, raw=None):
        super().__init__()
        self.status, self.raw = status, raw


class Conn:
    def __init__(self, target, sock):
        self.t, self.sock, self.statsn, self.cmdsn = target, sock, 1, 0

    def take(self, n):
        out = b""
        while len(out) < n:
            piece = self.sock.recv(n - len(out))
            if not piece:
                raise Drop
            out += piece
        return out

    def pdu(self):
        h = self.take(48)
        n = int.from_bytes(h[5:8], "big")
        return h, self.take(n + -n % 4)[:n]

    def put(self, op, flags, rest=b"", itt=b"\xff" * 4, data=b"", b2=0, b3=0, lun=bytes(8), mid=b"\xff" * 4, counts=True):
        """One PDU: bytes 36 and on are REST."""
        h = struct.pack(">BBBB", op, flags, b2, b3) + len(data).to_bytes(4, "big") + lun + itt + mid
        h += struct.pack(">III", self.statsn, self.cmdsn, self.cmdsn + self.t.window - 1)
        if counts:
            self.statsn += 1
        self.sock.sendall((h + rest).ljust(48, b"\0") + data + bytes(-len(data) % 4))

    def login(self, h, data):
        self.t.logins.append((h[8:14], dict(x.split("=", 1) for x in data.decode().split("\0") if x)))
        self.cmdsn = int.from_bytes(h[24:28], "big")
        answer = b"" if h[1] & 0x0c == 0 else ("\0".join("%s=%s" % kv for kv in self.t.keys.items()) + "\0").encode()
        self.t.on_login(self, h)
        self.put(0x23, h[1], itt=h[16:20], lun=h[8:14] + b"\0\1", mid=bytes(4), data=answer)

    def answer(self, h, status=0, sense=b"", residual=0):
        data = len(sense).to_bytes(2, "big") + sense if sense else b""
        self.put(0x21, 0x80 | (2 if residual else 0), bytes(8) + residual.to_bytes(4, "big"), h[16:20], data, b3=status)

    def data_out(self, h, data, length):
        """All of a write's data; what was not sent along is asked for."""
        while len(data) < length:
            n = min(length - len(data), 65536)
            self.put(0x31, 0x80, struct.pack(">III", 0, len(data), n), h[16:20], lun=h[8:16], mid=b"\0\0\0\7", counts=False)
            while n:
                more, piece = self.pdu()
                if more[0] & 0x3f != 5:
                    raise AssertionError("no data")
                data += piece
                n -= len(piece)
        return data

    def command(self, h, data):
        cdb, length = h[32:48], int.from_bytes(h[20:24], "big")
        if not h[0] & 0x40:
            self.cmdsn = int.from_bytes(h[24:28], "big") + 1
        with self.t.lock:
            self.t.log.append(cdb)
        try:
            if h[1] & 0x20:
                data = self.data_out(h, data, length)
            self.t.on_command(self, cdb)
            out = self.t.execute(cdb, data)
        except Sense as e:
            self.answer(h, 2, e.data)
            return
        except Status as e:
            if e.raw is None:
                self.answer(h, e.status)
            else:
                self.sock.sendall(e.raw(h))
            return
        out = out[:length]
        for at in range(0, len(out), 65536):
            self.put(0x25, 0x80 if at + 65536 >= len(out) else 0, struct.pack(">II", at // 65536, at), h[16:20], out[at:at + 65536], counts=False)
        self.answer(h, residual=length - len(out) if h[1] & 0x40 else 0)

    def serve(self):
        while True:
            h, data = self.pdu()
            op = h[0] & 0x3f
            if op == 3:
                self.login(h, data)
            elif op == 1:
                self.command(h, data)
            elif op == 0:
                self.t.nops += 1
                if self.t.answers_nops and h[16:20] != b"\xff" * 4:
                    self.cmdsn = int.from_bytes(h[24:28], "big") + 1
                    self.put(0x20, 0x80, itt=h[16:20])
            elif op == 6:
                self.t.logouts += 1
                self.put(0x26, 0x80, itt=h[16:20], mid=bytes(4))
                return


class Fake:
    def __init__(self, blocks, block=512):
        self.block, self.data, self.mapped = block, bytearray(blocks * block), set()
        self.log, self.logins, self.logouts, self.nops, self.window, self.lock = [], [], 0, 0, 32, threading.Lock()
        self.answers_nops, self.thin, self.lbprz, self.fua, self.protected = True, False, True, False, False
        self.max_transfer = self.max_unmap = self.max_same = 0
        self.keys = {"HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "Yes", "ImmediateData": "Yes", "MaxBurstLength": "262144",
                     "FirstBurstLength": "65536", "MaxRecvDataSegmentLength": "65536", "MaxConnections": "1", "ErrorRecoveryLevel": "0"}
        self.on_command, self.on_login = (lambda conn, cdb: None), (lambda conn, h: None)
        self.s = socket.create_server(("127.0.0.1", 0))
        self.port = self.s.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c = self.s.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, sock):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Conn(self, sock).serve()
        except (Drop, OSError):
            pass
        finally:
            sock.close()

    def close(self):
        self.s.close()

    def url(self):
        return "iscsi://127.0.0.1:%d/%s/1" % (self.port, NAME)

    def opts(self, **more):
        o = {"driver": "iscsi", "portal": "127.0.0.1:%d" % self.port, "target": NAME, "lun": 1, **more}
        return "driver=raw," + ",".join("file.%s=%s" % (k.replace("_", "-"), v) for k, v in o.items())

    def count(self, op):
        with self.lock:
            return sum(cdb[0] == op for cdb in self.log)

    def inquiry(self, cdb):
        if not cdb[1] & 1:
            return bytes([0, 0, 6, 2, 31]).ljust(36, b" ")
        pages = {0: bytes([0, 0xb0, 0xb2]), 0xb0: struct.pack(">xxxxIIxxxxIIIIQ", self.max_transfer, 0, self.max_unmap, 1, 8, 0, self.max_same).ljust(60, b"\0"),
                 0xb2: bytes([0, 0xc0 | (4 if self.lbprz else 0), 2, 0])}
        if cdb[2] not in pages:
            raise Sense(ILLEGAL, 0x2400)
        p = pages[cdb[2]]
        return bytes([0, cdb[2]]) + len(p).to_bytes(2, "big") + p

    def touch(self, lba, n, mapped):
        for b in range(lba, lba + n):
            (self.mapped.add if mapped else self.mapped.discard)(b)

    def execute(self, cdb, data):
        op, b = cdb[0], self.block
        lba, n = struct.unpack_from(">QI", cdb, 2)
        if op == INQUIRY:
            return self.inquiry(cdb)
        if op == MODE_SENSE:
            return bytes([3, 0, (0x80 if self.protected else 0) | (0x10 if self.fua else 0), 0])
        if op == SERVICE_IN and cdb[1] & 31 == 0x10:
            flags = (0x80 | (0x40 if self.lbprz else 0)) if self.thin else 0
            return struct.pack(">QIBBBB", len(self.data) // b - 1, b, 0, 0, flags, 0).ljust(32, b"\0")
        if op == SERVICE_IN and cdb[1] & 31 == 0x12:
            end, state = lba, lba in self.mapped
            while end < len(self.data) // b and (end in self.mapped) == state:
                end += 1
            return struct.pack(">I4xQIB3x", 20, lba, end - lba, 0 if state else 1)
        if op in (SYNC, TEST_UNIT_READY):
            return b""
        if op == UNMAP and self.thin:
            lba, n = struct.unpack_from(">QI", data, 8)
            self.data[lba * b:(lba + n) * b] = bytes(n * b)
            self.touch(lba, n, False)
            return b""
        if op not in (READ, WRITE, WRITE_SAME):
            raise Sense(ILLEGAL, 0x2000)
        if (lba + n) * b > len(self.data):
            raise Sense(ILLEGAL, 0x2100)
        if op == READ:
            return bytes(self.data[lba * b:(lba + n) * b])
        self.data[lba * b:(lba + n) * b] = data if op == WRITE else data * n
        self.touch(lba, n, op == WRITE or not cdb[1] & 8)
        return b""
