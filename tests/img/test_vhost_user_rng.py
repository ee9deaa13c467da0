# SPDX-License-Identifier: MIT
"""vhost-user-rng devices before a back end of our own that fills what it is given, with and without the protocol's features."""
import os
import struct
import threading
import time

import pytest

import vhostuser as vu
from test_vhost_user_client import Garbler
from test_vhost_user_front import SHARED, TIMEOUT, VERSION_1, VirtioMachine
from lib.nvme import RAM

BUF = RAM + 0x4000000


class Entropy(Garbler):
    """Serves ring 0: each buffer gets bytes that count up."""

    def __init__(self, path, **options):
        self.n, self.at, self.started, self.worker = 0, 0, False, None
        super().__init__(path, lambda g: None)
        self.features, self.protocol = options.get("features", self.features), options.get("protocol", self.protocol)

    def answer(self, request, payload, fds):
        if request == vu.GET_VRING_BASE:
            self.started = False
            if self.worker:
                self.worker.join()              # from here on the ring is the driver's
            return struct.pack("<II", 0, self.at)
        if request == vu.SET_VRING_BASE:
            self.at = struct.unpack("<II", payload)[1]
        body = super().answer(request, payload, fds)
        if request == vu.SET_VRING_KICK:
            self.started = True
            self.worker = threading.Thread(target=self.work, daemon=True)
            self.worker.start()
        return body

    def play(self):
        pass

    def read(self, user, n):
        return os.pread(self.mem, n, user - self.table[2] + self.table[3])

    def put(self, guest, data):
        os.pwrite(self.mem, data, guest - self.table[0] + self.table[3])

    def work(self):
        desc, avail, size = self.addr[0], self.addr[2], 16
        while self.started:
            time.sleep(0.002)
            while self.started and self.at != struct.unpack("<H", self.read(avail + 2, 2))[0]:
                head = struct.unpack("<H", self.read(avail + 4 + 2 * (self.at % size), 2))[0]
                addr, n, _, _ = struct.unpack("<QIHH", self.read(desc + 16 * head, 16))
                self.put(addr, bytes((self.n + i) % 256 for i in range(n)))
                self.n += n
                self.write(4 + 8 * (self.at % size), struct.pack("<II", head, n))
                self.at = self.at + 1 & 0xffff
                self.write(2, struct.pack("<H", self.at))
                os.eventfd_write(self.fds[vu.SET_VRING_CALL], 1)


@pytest.mark.parametrize("options", [{}, {"features": VERSION_1, "protocol": 0}, {"protocol": 1 << 3 | 1 << 13}])
def test_entropy(tmp_path, options):
    with Entropy(tmp_path / "vu", **options) as back, VirtioMachine(tmp_path, *SHARED, "-chardev", "socket,id=c,path=%s" % (tmp_path / "vu"),
                                                                    "-device", "vhost-user-rng-pci,chardev=c") as m:
        fn = m.fn(1)
        assert fn.conf(2, 2) == 0x1044
        n = 0
        for _ in range(2):                              # a driver, and the next one
            assert fn.negotiate()
            vq = fn.queue(0)
            fn.start()
            for k in range(40):
                vq.put((BUF, 64 + k, True))
                fn.kick(vq)
                assert vq.wait(TIMEOUT) == (0, 64 + k)
                assert fn.q.read(BUF, 64 + k) == bytes((n + i) % 256 for i in range(64 + k))
                n += 64 + k
        assert (vu.SET_VRING_ENABLE in back.seen) == (back.features >> 30 & 1 == 1)
        fn.reset()
        assert (vu.RESET_DEVICE in back.seen) == bool(back.protocol & 1 << 13)
