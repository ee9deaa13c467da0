# SPDX-License-Identifier: MIT
"""Back ends that say and write anything at all: the program lives, and serves with the next one. BP_FUZZ_SECONDS: for how long."""
import os
import random
import re
import struct
import threading
import time

import pytest

import vhostuser as vu
from imglib import run
from test_vhost_user_client import IMG, Garbler, disk
from test_vhost_user_front import TIMEOUT, VERSION_1, Disk, Liar, VirtioMachine, device, filled, ours

SECONDS = float(os.environ.get("BP_FUZZ_SECONDS", "4"))
EDGES = [0, 1, 2, 7, 255, 256, 65535, 65536, 1 << 31, (1 << 32) - 1]


class Chaos(Garbler):
    """With a probability each: another answer, none, an end; now and then rings and notifications from nowhere."""

    def __init__(self, path, seed, features=VERSION_1 | 1 << 30 | 0x7244, protocol=Liar.PROTOCOL, rate=0.05):
        self.rnd, self.rate, self.over = random.Random(seed), rate, False
        super().__init__(path, lambda g: None)
        self.lie, self.features, self.protocol = self.anything, features, protocol
        threading.Thread(target=self.scribble, daemon=True).start()

    def anything(self, request, payload, answer):
        r = self.rnd
        if r.random() > self.rate:
            return None
        body = answer if answer is not None else bytes(8)
        kind = r.randrange(6)
        if kind == 0:
            return b""
        if kind == 1:
            return struct.pack("<III", request, 5, len(body)) + r.randbytes(len(body))
        if kind == 2:
            return struct.pack("<III", r.choice(EDGES + [request]), r.choice(EDGES + [5]), r.choice(EDGES + [len(body)])) + body
        if kind == 3:
            return r.randbytes(r.randrange(1, 600))
        if kind == 4:
            return struct.pack("<III", request, 5, len(body)) + struct.pack("<Q", r.choice(EDGES)).ljust(len(body), b"\xff")[:len(body)]
        return 0.01

    def play(self):
        pass

    def scribble(self):
        """Into used rings, with interrupts; and by the channel."""
        r = self.rnd
        while not self.over:
            time.sleep(0.002)
            try:
                if self.mem and self.addr and self.table:
                    self.write(r.choice([0, 2, 2, 4, 8, 260]), struct.pack("<H", r.choice(EDGES) & 0xffff))
                    os.eventfd_write(self.fds[vu.SET_VRING_CALL], r.choice([1, 5, 1 << 40]))
                if self.channel and r.random() < 0.2:
                    self.channel.send(r.choice([struct.pack("<III", 2, 1, 0), struct.pack("<III", 2, 9, 0), r.randbytes(r.randrange(1, 40))]))
            except (OSError, KeyError, ValueError):
                pass

    def __exit__(self, *exc):
        self.over = True
        super().__exit__(*exc)


@pytest.mark.parametrize("protocol", [Liar.PROTOCOL | 1 << 13, Liar.PROTOCOL & ~(1 << 12), 1 << 9 | 1 << 16])
def test_devices_outlive_any_back_end(tmp_path, protocol):
    rnd = random.Random(protocol)
    first = Chaos(tmp_path / "vu", 1, protocol=protocol, rate=0)
    with first, VirtioMachine(tmp_path, *device(tmp_path / "vu", ",reconnect-ms=1")) as m:
        first.rate = 0.03
        end = time.monotonic() + SECONDS / 3
        while time.monotonic() < end:
            try:
                d = Disk(m)
            except AssertionError:
                continue
            for _ in range(rnd.randrange(4)):
                d.submit(vu.IN, rnd.randrange(4096), want=512, slot=rnd.randrange(8))
            if rnd.random() < 0.3:
                d.fn.set(32, 1, 0, 4)
            time.sleep(rnd.random() * 0.02)
        first.over = True
        time.sleep(0.01)
        os.rename(tmp_path / "vu", tmp_path / "chaos")
        first.lie = lambda r, p, a: b""
        filled(tmp_path)
        with ours(tmp_path):
            end = time.monotonic() + TIMEOUT
            d = None
            while d is None:
                try:
                    d = Disk(m, features=0x244)
                except AssertionError:
                    assert time.monotonic() < end
            assert d.do(vu.IN, 9, want=512) == (0, bytes([9]) * 512)
    assert not re.search("AddressSanitizer|runtime error|assert", m.output)


def test_the_driver_outlives_any_back_end(tmp_path):
    end, n, seen = time.monotonic() + SECONDS / 3, 0, set()
    while time.monotonic() < end or n < 5:
        n += 1
        path = tmp_path / ("vu%d" % n)
        with Chaos(path, n, rate=0.02):
            r = run(IMG, "bench", "-c", "8", "-d", "4", "-s", "4096", "--image-opts", disk(path), ok=(0, 1), timeout=TIMEOUT * 4)
            assert r.returncode == 0 or "backplane-img:" in r.stderr, r.stderr
            seen.add(r.stderr[:60])
    assert len(seen) > 1
