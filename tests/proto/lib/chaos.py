# SPDX-License-Identifier: MIT
"""Random values for fuzzers, always the same for a seed."""
import os
import random

from lib.pci import MMIO, RAM

ROUNDS = int(os.environ.get("BP_FUZZ_ROUNDS", "0"))             # seeds of every fuzzer; 0: as many as it thinks a minute's share
FIRST = int(os.environ.get("BP_FUZZ_FIRST", "0"))               # the first of them: others than ever before
MIB = 1 << 20


def seeds(n):
    """The seeds of a fuzzer that takes N if it is not told how many."""
    return range(FIRST, FIRST + (ROUNDS or n))


class Chaos:
    """Random values that lean to the edges."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def one_in(self, n):
        return not self.r.randrange(n)

    def u(self, bits):
        k = self.r.randrange(6)
        if k == 0:
            return 0
        if k == 1:
            return (1 << bits) - 1
        if k == 2:
            return self.r.randrange(16)
        if k == 3:
            return 1 << self.r.randrange(bits)
        return self.r.getrandbits(bits)

    def addr(self):
        """Mostly of memory; of registers, of nothing, of memory's last page."""
        k = self.r.randrange(8)
        if k < 5:
            return RAM + self.r.randrange(0, 32 * MIB, 4096) + (self.r.randrange(4096) if k == 0 else 0)
        return self.u(64) if k == 5 else MMIO + self.r.randrange(0x4000) if k == 6 else RAM + 128 * MIB - 4096

    def spoil(self, data):
        """DATA with some fields changed: bytes, words, addresses."""
        data = bytearray(data)
        for _ in range(self.r.choice((0, 0, 1, 1, 2, 5))):
            size = self.r.choice((1, 1, 2, 4, 8))
            if len(data) >= size:
                at = self.r.randrange(0, len(data) - size + 1, min(size, 4))
                value = self.addr() if size == 8 else self.u(8 * size)
                data[at:at + size] = value.to_bytes(size, self.r.choice(("little", "big")))
        return bytes(data)
