# SPDX-License-Identifier: MIT
"""Random commands, frames, rings, scripts and registers for every adapter, with units that come and go meanwhile: the program lives, and after
a reset the adapter works."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.chaos import MIB, Chaos, seeds
from lib.hba import ADAPTERS, Ahci, Sdhci, Virtio, sent
from lib.machine import QmpError
from lib.virtio import VirtioMachine

OPS = (0x00, 0x03, 0x04, 0x07, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x37, 0x3b, 0x3c, 0x41, 0x42, 0x43, 0x46, 0x48, 0x4a,
       0x4c, 0x4d, 0x51, 0x52, 0x55, 0x5a, 0x5e, 0x5f, 0x7f, 0x88, 0x89, 0x8a, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9e, 0xa0, 0xa3, 0xa4, 0xa8, 0xaa, 0xad, 0xae,
       0xaf, 0xb7, 0xbb, 0xbd, 0xbe)
PAGES = (0x00, 0x01, 0x08, 0x0a, 0x1a, 0x1c, 0x2a, 0x3f, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2)
OUT = {0x04, 0x07, 0x0a, 0x15, 0x1d, 0x2a, 0x2e, 0x3b, 0x41, 0x42, 0x48, 0x4c, 0x55, 0x5f, 0x89, 0x8a, 0x8e, 0x93, 0xa4, 0xaa, 0xae}


class Commands(Chaos):
    def cdb(self):
        """A command block whose address and length are mostly good: (block, data to the unit, room for data)."""
        op = self.r.getrandbits(8) if self.one_in(20) else self.r.choice(OPS)
        b = bytearray(32)
        n = self.r.choice((0, 1, 1, 8, 64, self.u(16)))
        lba = self.u(32) if self.one_in(8) else self.r.randrange(2000)
        b[0], b[1], b[2] = op, self.r.choice((0, 0, 0, 0x08, 0x01, 0x20, 0x40, 0x10, self.u(8))), self.r.choice(PAGES)
        size = {0: 6, 3: 32, 4: 16, 5: 12}.get(op >> 5, 10)
        if op in (0x08, 0x0a, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x41, 0x88, 0x8a, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0xa8, 0xaa, 0xae, 0xaf, 0x89, 0x7f):
            at, wide = {6: (2, 2), 10: (2, 4), 12: (2, 4), 16: (2, 8), 32: (12, 8)}[size]
            b[at:at + wide] = lba.to_bytes(8, "big")[-wide:]
            n = n * 512
        if op == 0x7f:
            b[7], b[9] = 0x18, self.r.choice((9, 10, 11, 12, 13))
        units = n // 512 if n % 512 == 0 and n else n
        at, wide = {6: (4, 1), 10: (7, 2), 12: (6, 4), 16: (10, 4), 32: (28, 4)}[size]
        b[at:at + wide] = units.to_bytes(8, "big")[-wide:]
        n = min(n if not self.one_in(8) else self.u(16), 4 * 65536)
        cdb = bytes(b[:size])
        if self.one_in(6):
            cdb = self.spoil(cdb)
        if op in OUT or self.one_in(12):
            return cdb, self.parameters(min(n, 8192)), 0
        return cdb, b"", n

    def parameters(self, n):
        """Zeroes, lengths and pages of parameter lists."""
        return self.spoil(bytes(self.r.choice((0, 0, 0, 1, 8, 0x0a, 0x16)) for _ in range(min(n, 64))).ljust(n, b"\0"))


def machine(kind, tmp):
    args = ["-nodefaults", "-device", kind.DEVICE + ",id=a,addr=1"]
    for i, unit in enumerate((*kind.UNITS, "")):
        with open(str(tmp / ("d%d" % i)), "wb") as f:
            f.truncate(MIB)
        args += ["-blockdev", "driver=raw,node-name=d%d,discard=unmap,file.driver=file,file.filename=%s" % (i, tmp / ("d%d" % i))]
        if unit:
            args += ["-device", unit + ",bus=a.%d,drive=d%d" % (i if kind is Ahci else 0, i)]
    return VirtioMachine(tmp, *args)


def plug(c, kind, m):
    """A unit comes, or goes whatever it is doing, or the machine stops and goes on, or is reset."""
    k = c.r.randrange(8)
    try:
        if k < 3 and kind is not Sdhci:
            m.qmp.cmd("device_add", driver=kind.PLUGS, bus="a.%d" % (2 if kind is Ahci else 0), drive="d%d" % len(kind.UNITS), id="hot", share_rw=True)
        elif k < 5:
            m.qmp.cmd("device_del", id="hot")
        elif k < 7:
            m.qmp.cmd("stop")
            m.qmp.cmd("cont")
        else:
            m.qmp.cmd("system_reset")
    except QmpError:
        pass


def act(c, kind, h):
    k = c.r.randrange(16)
    unit, lun, slot = c.r.choice((0, 0, 0, 1, 1, 2, 5)), c.r.choice((0, 0, 0, 0, 1, 7)), c.r.randrange(h.SLOTS)
    if k < 10:
        h.submit(slot, *c.cdb(), unit=unit, lun=lun)
    elif k < 13:
        h.manage(slot, c.r.randrange(34), unit, lun, c.r.randrange(h.SLOTS))
    elif k < 15 and kind is not Virtio:
        h.wr(c.r.choice(h.REGISTERS), c.u(32), c.r.choice((1, 4, 4)) if kind in (Sdhci, ) else 1 if len(h.REGISTERS) > 200 else 4)
    elif k < 15:
        ring = c.r.choice(h.rings)
        h.q.write(ring.desc + 16 * c.r.randrange(64), c.addr().to_bytes(8, "little") + c.u(24).to_bytes(4, "little") + c.u(3).to_bytes(2, "little") +
                  c.r.randrange(70).to_bytes(2, "little"))
        if c.one_in(4):
            h.q.write(ring.avail + 2, c.u(16).to_bytes(2, "little"))
        h.dev.kick(ring)
    else:
        h.q.step(c.r.randrange(3000000))


@pytest.mark.parametrize("kind", ADAPTERS, ids=lambda k: k.__name__.lower())
@pytest.mark.parametrize("seed", seeds(2))
def test_random_adapters(tmp_path, kind, seed):
    c = Commands(seed)
    with machine(kind, tmp_path) as m:
        known = kind(m)
        known.begin()
        wanted = known.inquire()[8:24]
        for _ in range(4):
            h = kind(m)
            h.begin(*([c.r.choice((6, 14))] if kind is Virtio else []))
            for _ in range(80):
                h.spoil = sent if c.one_in(2) else c.spoil
                act(c, kind, h)
                if c.one_in(24):
                    plug(c, kind, m)
                    if m.qmp.events and m.qmp.events[-1]["event"] == "RESET":
                        break
            m.qmp.events.clear()
        assert m.process.poll() is None
        m.qmp.cmd("system_reset")
        h = kind(m)
        h.begin()
        assert wanted.strip() and h.inquire()[8:24] == wanted
