# SPDX-License-Identifier: MIT
"""An NBD server in memory that can be made to say nothing for a while: connections stay, requests are taken, nobody is answered."""
import socket
import struct
import threading

READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
HAS_FLAGS, SEND_FLUSH, SEND_TRIM, SEND_ZEROES, MULTI_CONN = 1, 4, 32, 64, 256
OPT_GO, ACK, INFO, UNSUPPORTED = 7, 1, 3, 1 << 31 | 1


def take(c, n):
    data = b""
    while len(data) < n:
        more = c.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class Server:
    """Server(path, size): .data is what it holds; silent() until speak(). .held and .greeted count requests and clients that have no answer."""

    def __init__(self, path, size):
        self.path, self.data, self.held, self.greeted, self.speaks = str(path), bytearray(size), 0, 0, threading.Event()
        self.came = threading.Condition()
        self.speaks.set()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            c = self.listener.accept()[0]
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            self.handshake(c)
            while self.request(c):
                pass
        except (EOFError, OSError):
            pass
        c.close()

    def handshake(self, c):
        with self.came:
            self.greeted += 1
            self.came.notify_all()
        self.speaks.wait()
        with self.came:
            self.greeted -= 1
        c.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(c, 4)
        while True:
            _, option, length = struct.unpack(">8sII", take(c, 16))
            take(c, length)
            reply = struct.pack(">QI", 0x3e889045565a9, option)
            if option != OPT_GO:
                c.sendall(reply + struct.pack(">II", UNSUPPORTED, 0))
                continue
            flags = HAS_FLAGS | SEND_FLUSH | SEND_TRIM | SEND_ZEROES | MULTI_CONN
            c.sendall(reply + struct.pack(">IIHQH", INFO, 12, 0, len(self.data), flags) + reply + struct.pack(">II", ACK, 0))
            return

    def request(self, c):
        _, _, kind, cookie, off, length = struct.unpack(">IHHQQI", take(c, 28))
        if kind == WRITE:
            self.data[off:off + length] = take(c, length)
        elif kind == ZEROES:
            self.data[off:off + length] = bytes(length)
        elif kind == DISC:
            return False
        with self.came:
            self.held += 1
            self.came.notify_all()
        self.speaks.wait()
        with self.came:
            self.held -= 1
        c.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + (bytes(self.data[off:off + length]) if kind == READ else b""))
        return True

    def silent(self):
        self.speaks.clear()

    def speak(self):
        self.speaks.set()

    def wait_held(self, timeout):
        """Until a request waits for an answer."""
        with self.came:
            assert self.came.wait_for(lambda: self.held and not self.speaks.is_set(), timeout)

    def wait_connected(self, timeout):
        """Until a client waits to be greeted."""
        with self.came:
            assert self.came.wait_for(lambda: self.greeted and not self.speaks.is_set(), timeout)

    def node(self, name):
        """For -blockdev, blockdev-add."""
        return {"driver": "nbd", "node-name": name, "server": {"type": "unix", "path": self.path}}
