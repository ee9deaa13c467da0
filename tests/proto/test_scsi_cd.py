# SPDX-License-Identifier: MIT
"""What a CD drive answers (MMC-6), the same behind virtio-scsi, a parallel adapter and SATA: its disc, its features, events, raw sectors."""
import hashlib
import os
import struct
import sys
from contextlib import contextmanager

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.hba import Ahci, Lsi, Virtio
from lib.machine import QmpError
from lib.qtest import QtestMachine
from lib.virtio import VirtioMachine

BLOCKS, LAYER = 300, 2295104            # of the CD; of one layer of a DVD
ATTENTION = 0x062800


class OverVirtio(Virtio):
    DEVICE, UNIT, MACHINE = "virtio-scsi-pci,disable-legacy=on", "scsi-cd", VirtioMachine

    def run(self, cdb, n, out):
        self.submit(0, cdb, out, n)
        self.answered(0)
        return self.q.rd(self.frame(0) + 0x80a, 1)


class OverLsi(Lsi):
    UNIT, MACHINE = "scsi-cd", QtestMachine

    def run(self, cdb, n, out):
        self.submit(0, cdb, out, n)
        self.answered(0)
        return self.q.rd(self.frame(0) + 0x460, 1)


class OverAhci(Ahci):
    UNIT, MACHINE = "ide-cd", QtestMachine

    def run(self, cdb, n, out):
        self.issue(0, 0, bytes([0x27, 0x80, 0xa0, 1]), cdb, out, n, 0x20)
        self.until(lambda: not self.rd(0x138) & 1 or self.rd(0x120) & 1, "end")
        if not self.rd(0x120) & 1:
            return 0
        self.wr(0x118, 0x10)                                    # an error stops the port
        self.wr(0x118, 0x17)
        return 2


class Drive:
    """A drive in slot 1 behind H, one command at a time."""

    def __init__(self, m, h):
        self.m, self.h = m, h
        h.begin()
        while self.cmd("00")[0] and self.sense() >> 16 == 6:    # power on is told
            pass

    def cmd(self, cdb, n=0, out=b""):
        """(status, data)"""
        cdb = bytes.fromhex(cdb.replace(" ", ""))
        self.h.q.write(self.h.data(0), b"\xee" * min(n, 4096))
        status = self.h.run(cdb.ljust(6 if cdb[0] < 0x20 else 10 if cdb[0] < 0x60 else 12, b"\0"), n, out)
        return status, self.h.q.read(self.h.data(0), n)

    def data(self, cdb, n):
        status, data = self.cmd(cdb, n)
        assert status == 0, (cdb, self.sense())
        return data

    def sense(self):
        """Of the command before, as 0xKKAAQQ."""
        if isinstance(self.h, OverVirtio):
            s = self.h.q.read(self.h.frame(0) + 0x80c, 18)
        else:
            s = self.cmd("03 00 00 00 12 00", 18)[1]
        return (s[2] & 15) << 16 | s[12] << 8 | s[13]

    def fails(self, cdb, sense, n=64, out=b""):
        assert self.cmd(cdb, 0 if out else n, out)[0] == 2 and self.sense() == sense, cdb


@contextmanager
def drive(kind, folder, *blockdev):
    unit = kind.UNIT + ",id=cd,bus=a.0,serial=CDNO7" + (",drive=n" if blockdev else "")
    with kind.MACHINE(folder, "-nodefaults", "-device", kind.DEVICE + ",id=a,addr=1", *blockdev, "-device", unit) as m:
        yield Drive(m, kind(m))


def user_data(lba):
    return b"".join(hashlib.sha256(b"%d %d" % (lba, i)).digest() for i in range(64))


@contextmanager
def cd_drive(kind, folder):
    (folder / "image").write_bytes(b"".join(map(user_data, range(BLOCKS))))
    with drive(kind, folder, "-blockdev", "driver=raw,read-only=on,node-name=n,file.driver=file,file.filename=%s/image" % folder) as d:
        yield d


@pytest.fixture(scope="module", params=[OverVirtio, OverAhci])
def cd(request, tmp_path_factory):
    with cd_drive(request.param, tmp_path_factory.mktemp("cd")) as d:
        yield d


@pytest.fixture(scope="module", params=[OverVirtio, OverAhci])
def dvd(request, tmp_path_factory):
    size = 2048 * (LAYER + 1001)
    with drive(request.param, tmp_path_factory.mktemp("dvd"), "-blockdev", "driver=null-co,node-name=n,read-zeroes=on,read-only=on,size=%d" % size) as d:
        yield d


# ---- raw sectors ----

def gf(v):
    return v << 1 ^ (0x11d if v & 0x80 else 0)


def bcd(v):
    return v // 10 << 4 | v % 10


def msf(frames):
    return bytes(map(bcd, (frames // 4500, frames // 75 % 60, frames % 75)))


def is_clean(sector):
    """ECMA-130, 14.3 and annex A: the division leaves nothing, and so do the parities of all vectors, which are summed here the long way."""
    v = 0
    for byte in sector[:2068]:
        v ^= byte
        for _ in range(8):
            v = v >> 1 ^ (0xd8018001 if v & 1 else 0)
    words = [sector[12 + i::2][:1170] for i in (0, 1)]          # of 16 bits, as two planes of bytes
    vectors = [[43 * i + column for i in range(26)] for column in range(43)]
    vectors += [[(44 * i + 43 * n) % 1118 for i in range(43)] + [1118 + n, 1144 + n] for n in range(26)]
    for plane in words:
        for vector in vectors:
            total = weighted = 0
            for at in vector:
                total ^= plane[at]
                weighted = gf(weighted) ^ plane[at]
            if total or weighted:
                return False
    return v == 0


def test_whole_sectors(cd):
    for lba in (0, 17, BLOCKS - 1):
        s = cd.data("be 00 %08x 000001 f8 00 00" % lba, 2352)
        assert s[:12] == b"\0" + b"\xff" * 10 + b"\0" and s[12:16] == msf(lba + 150) + b"\1"
        assert s[16:2064] == user_data(lba) and s[2068:2076] == bytes(8) and is_clean(s)


@pytest.mark.parametrize("main,at,end", [(0x10, 16, 2064), (0x18, 16, 2352), (0x20, 12, 16), (0x30, 12, 2064), (0x38, 12, 2352), (0x50, 16, 2064),
                                         (0x60, 12, 16), (0x78, 12, 2352), (0x80, 0, 12), (0xa0, 0, 16), (0xb0, 0, 2064), (0xf8, 0, 2352)])
def test_parts_of_sectors(cd, main, at, end):
    """Table 351, of many sectors at once, more than are read in one step."""
    n = 19
    whole = cd.data("be 08 00000005 %06x f8 00 00" % n, 2352 * n)
    assert cd.data("be 08 00000005 %06x %02x 00 00" % (n, main), (end - at) * n) == b"".join(whole[2352 * i + at:2352 * i + end] for i in range(n))
    assert cd.data("b9 00 00 %s %s %02x 00 00" % (bytes((0, 2, 5)).hex(), bytes((0, 2, 5 + n)).hex(), main), (end - at) * n) \
        == cd.data("be 00 00000005 %06x %02x 00 00" % (n, main), (end - at) * n)


def test_lengths_behind_a_parallel_bus(tmp_path):
    """There the target knows by the command block alone how much it will send."""
    with cd_drive(OverLsi, tmp_path) as d:
        whole = d.data("be 00 00000005 000003 f8 00 00", 3 * 2352)
        assert is_clean(whole[:2352]) and whole[2352 + 16:][:2048] == user_data(6)
        assert d.data("b9 00 00 000205 000208 30 02 00", 3 * 2068)[2068:][:2052] == whole[2352 + 12:][:2052]
        assert d.data("ac 10 00000000 00 00 0001 00 00", 24)[:4] == struct.pack(">I", 20)
        assert d.data("42 00 40 02 00 00 00 0018 00", 24)[4] == 2
        assert d.cmd("b6 00 00 00 00 00 00 00 00 001c 00", out=struct.pack(">7I", 0, 0, BLOCKS - 1, 8820, 1000, 8820, 1000))[0] == 0


def test_the_q_subchannel(cd):
    got = cd.data("be 00 00000063 000002 10 02 00", 2 * 2064)
    for i in range(2):
        assert got[2064 * i:][:2048] == user_data(0x63 + i)
        assert got[2064 * i + 2048:][:16] == b"\x41\x01\x01" + msf(0x63 + i) + b"\0" + msf(0x63 + i + 150) + bytes(6)


@pytest.mark.parametrize("cdb,sense", [
    ("be 04 00000000 000001 10 00 00", 0x056400), ("be 14 00000000 000001 10 00 00", 0x056400),        # audio, mode 2: not of this track
    ("be 00 00000000 000001 90 00 00", 0x052400), ("be 00 00000000 000001 08 00 00", 0x052400), ("be 00 00000000 000001 28 00 00", 0x052400),
    ("be 00 00000000 000001 12 00 00", 0x052400), ("be 00 00000000 000001 10 01 00", 0x052400), ("be 00 00000000 ffffff f8 00 00", 0x052400),
    ("be 00 %08x 000001 10 00 00" % BLOCKS, 0x052100), ("be 00 %08x 000002 10 00 00" % (BLOCKS - 1), 0x052100), ("be 00 ffffffff 000001 10 00 00", 0x052100),
    ("b9 00 00 000100 000101 10 00 00", 0x052100), ("b9 00 00 000205 000204 10 00 00", 0x052400), ("b9 00 00 00024b 000300 10 00 00", 0x052400),
    ("ad 00 00000000 00 00 0800 00 00", 0x053002),                                                      # structures are of DVDs
])
def test_sectors_that_are_not_there(cd, cdb, sense):
    cd.fails(cdb, sense)
    assert cd.cmd("be 00 00000000 000000 f8 00 00")[0] == 0 and cd.cmd("be 00 00000000 000001 00 00 00")[0] == 0        # nothing, no failure


# ---- disc and drive ----

def test_table_of_contents_and_track(cd):
    assert cd.data("43 00 00 00 00 00 00 0014 00", 20) == bytes.fromhex("0012 0101 00140100 00000000 0014aa00 %08x" % BLOCKS)
    info = cd.data("52 01 00000001 00 0024 00", 36)
    assert info == cd.data("52 00 0000000a 00 0024 00", 36) == cd.data("52 02 00000001 00 0024 00", 36)
    assert info[2:4] == b"\1\1" and info[5] == 4 and info[6] & 15 == 1 and struct.unpack(">I", info[24:28])[0] == BLOCKS
    for cdb in ("52 01 00000002 00 0024 00", "52 02 00000000 00 0024 00", "52 03 00000001 00 0024 00", "52 00 %08x 00 0024 00" % BLOCKS):
        cd.fails(cdb, 0x052400)
    assert cd.data("51 00 00 00 00 00 00 0022 00", 34)[:8] == bytes.fromhex("0020 0e 01 01 01 01 20")


def test_subchannel(cd):
    assert cd.data("42 00 00 00 00 00 00 0004 00", 4) == bytes.fromhex("0015 0000")
    assert cd.data("42 02 40 01 00 00 00 0010 00", 16) == bytes.fromhex("0015 000c 01140101 00000200 00000000")
    assert cd.data("42 00 40 02 00 00 00 0018 00", 24) == bytes.fromhex("0015 0014 02").ljust(24, b"\0")
    assert cd.data("42 00 40 03 00 00 01 0018 00", 24) == bytes.fromhex("0015 0014 031401").ljust(24, b"\0")
    for cdb in ("42 00 40 00 00 00 00 0018 00", "42 00 40 04 00 00 00 0018 00", "42 00 40 03 00 00 02 0018 00"):
        cd.fails(cdb, 0x052400)


def features(d, cdb="46 00 0000 00 00 00 0100 00"):
    """{feature: (current, data)} and the profile."""
    b = d.data(cdb, 256)
    end, at, found = struct.unpack(">I", b[:4])[0] + 4, 8, {}
    while at < end:
        found[struct.unpack(">H", b[at:at + 2])[0]] = (b[at + 2] & 1, b[at + 4:at + 4 + b[at + 3]])
        at += 4 + b[at + 3]
    return found, struct.unpack(">H", b[6:8])[0]


def test_features_of_a_cd(cd):
    found, profile = features(cd)
    assert profile == 8 and found[0x1e][0] and found[0x1d][0] and not found[0x1f][0]
    assert found[0x108][1] == b"CDNO7   "
    assert found[1][1][:4] == struct.pack(">I", 7 if isinstance(cd.h, OverAhci) else 1)
    now = features(cd, "46 01 0000 00 00 00 0100 00")[0]
    assert now == {k: v for k, v in found.items() if v[0]}
    assert features(cd, "46 02 0105 00 00 00 0100 00")[0] == {0x105: found[0x105]} and features(cd, "46 02 0042 00 00 00 0100 00")[0] == {}
    cd.fails("46 03 0000 00 00 00 0100 00", 0x052400)


@pytest.mark.parametrize("page,length", [(0x01, 10), (0x0a, 10), (0x1a, 10), (0x1c, 10), (0x1d, 8), (0x2a, 20)])
def test_mode_pages(cd, page, length):
    """What the features promise has its page (5.3): timeouts, power, capabilities."""
    b = cd.data("5a 08 %02x 00 00 00 00 00ff 00" % page, 10 + length)
    assert b[:2] == struct.pack(">H", 8 + length) and b[8] & 0x3f == page and b[9] == length


def test_claims_are_kept(cd):
    """Each command that REPORT SUPPORTED OPERATION CODES names is known: what it fails with is not INVALID COMMAND OPERATION CODE."""
    listed = cd.data("a3 0c 00 00 00 00 00000fff 00 00", 0xfff)
    ops = {listed[4 + i] for i in range(0, struct.unpack(">I", listed[:4])[0], 8)}
    assert {0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0xac, 0xad, 0xb6, 0xb9, 0xbb, 0xbd, 0xbe} <= ops
    for op in sorted(ops - {0x1b}):
        status = cd.cmd(bytes([op, 0x0c if op == 0xa3 else 0]).ljust(6 if op < 0x20 else 10 if op < 0x80 else 12, b"\0").hex(), 0 if op in (0x2a, 0x2e, 0xaa) else 512)[0]
        assert status == 0 or cd.sense() != 0x052000, hex(op)


def test_performance(cd):
    assert cd.data("ac 10 00000000 00 00 0001 00 00", 24) == struct.pack(">IIIIII", 20, 0, 0, 8820, BLOCKS - 1, 8820)
    assert cd.data("ac 11 00000000 00 00 0001 00 00", 8) == struct.pack(">II", 4, 0x01000000)
    for cdb, sense in (("ac 14 00000000 00 00 0001 00 00", 0x052400), ("ac 00 00000000 00 00 0001 00 00", 0x052400),
                       ("ac 10 00000000 00 00 0001 03 00", 0x052400), ("ac 10 %08x 00 00 0001 00 00" % BLOCKS, 0x052100)):
        cd.fails(cdb, sense, 24)
    streaming = "b6 00 00 00 00 00 00 00 00 001c 00"
    for b, sense in ((struct.pack(">7I", 0, 0, BLOCKS - 1, 8820, 1000, 8820, 1000), 0), (struct.pack(">7I", 0x04000000, 9, 0, 0, 0, 0, 0), 0),
                     (struct.pack(">7I", 0, 9, 8, 0, 0, 0, 0), 0x052600), (struct.pack(">7I", 0, 0, BLOCKS, 0, 0, 0, 0), 0x052600)):
        if sense:
            cd.fails(streaming, sense, out=b)
        else:
            assert cd.cmd(streaming, out=b)[0] == 0


def test_structures_of_a_dvd(dvd):
    b = dvd.data("ad 00 00000000 00 00 0804 00 00", 0x804)
    assert b[:2] == b"\x08\x02" and b[4:7] == b"\x01\x0f\x31"          # DVD-ROM, 120 mm; two layers, the second read backwards
    first, end, layer = struct.unpack(">III", b[8:20])
    assert first == 0x30000 and layer == 0x30000 + (LAYER + 1002) // 2 - 1
    assert end - (~layer & 0xffffff) + 1 + layer - first + 1 == LAYER + 1001
    assert dvd.data("ad 00 00000000 01 00 0804 00 00", 0x804) == b
    assert dvd.data("ad 00 00000000 00 01 0008 00 00", 8) == b"\0\6".ljust(8, b"\0")
    assert dvd.data("ad 00 00000000 00 ff 0010 00 00", 16) == bytes.fromhex("000e0000 00400804 01400008 04400804")
    for cdb, sense in (("ad 00 00000000 02 00 0804 00 00", 0x052400), ("ad 00 00000000 00 03 0804 00 00", 0x052400),
                       ("ad 01 00000000 00 00 0804 00 00", 0x052400), ("be 00 00000000 000001 10 00 00", 0x053002),
                       ("42 00 40 02 00 00 00 0018 00", 0x053002)):
        dvd.fails(cdb, sense)
    found, profile = features(dvd)
    assert profile == 0x10 and found[0x1f][0] and not found[0x1e][0] and not found[0x1d][0]


# ---- a medium that comes and goes ----

EVENTS = "4a 01 00 00 %02x 00 00 0008 00"


@pytest.mark.parametrize("kind", [OverVirtio, OverAhci])
def test_a_locked_tray(kind, tmp_path):
    """Without force= a medium is not changed while the guest has locked the tray; it is asked to let it go."""
    (tmp_path / "other").write_bytes(bytes(8192))
    with drive(kind, tmp_path) as d:
        d.m.qmp.cmd("blockdev-change-medium", id="cd", filename=str(tmp_path / "other"))
        d.fails("00", ATTENTION, 0)
        other = {"id": "cd", "filename": str(tmp_path / "other"), "format": "raw"}
        inserted = d.m.qmp.cmd("query-block")[0]["inserted"]
        assert d.cmd("1e 00 00 00 01 00")[0] == 0
        for command, arguments in (("eject", {"id": "cd"}), ("blockdev-change-medium", other)):
            with pytest.raises(QmpError, match="'cd' is locked and force was not specified"):
                d.m.qmp.cmd(command, **arguments)
            assert d.data(EVENTS % 0x10, 8)[4] == 1                                     # the guest is asked
        assert d.m.qmp.cmd("query-block")[0]["inserted"] == inserted
        assert "is locked" in d.m.qmp.hmp("change cd %s raw" % (tmp_path / "other"))
        d.m.qmp.cmd("blockdev-change-medium", force=True, **other)
        assert d.m.qmp.cmd("query-block")[0]["inserted"]["node-name"] != inserted["node-name"]


@pytest.mark.parametrize("kind", [OverVirtio, OverAhci])
def test_events(kind, tmp_path):
    (tmp_path / "image").write_bytes(bytes(2048 * BLOCKS))
    with drive(kind, tmp_path) as d:
        def told():
            return [d.data(EVENTS % (1 << c), 8)[2:8].hex() for c in (1, 2, 4, 6)]

        quiet = ["015600000000", "025600010000", "045600000000", "065600000000"]
        assert told() == quiet
        assert d.data(EVENTS % 0x28, 4)[:4] == bytes.fromhex("0002 80 56")              # none of these is known
        d.fails(EVENTS.replace("4a 01", "4a 00") % 0x10, 0x052400, 8)
        d.m.qmp.cmd("blockdev-add", **{"driver": "raw", "node-name": "n", "read-only": True, "file": {"driver": "file", "filename": str(tmp_path / "image")}})
        d.m.qmp.cmd("blockdev-open-tray", id="cd", force=True)
        d.m.qmp.cmd("blockdev-insert-medium", id="cd", **{"node-name": "n"})
        d.m.qmp.cmd("blockdev-close-tray", id="cd")
        d.fails("00", ATTENTION, 0)
        assert d.data(EVENTS % 0x7e, 8)[2:8].hex() == "015602000001"                    # the lowest class that has something comes first
        assert d.data(EVENTS % 0x7e, 8)[2:8].hex() == "045602020000"                    # new media
        assert told() == [quiet[0], quiet[1], "045600020000", quiet[3]]
        assert features(d)[1] == 8
        assert d.cmd("1b 00 00 00 02 00")[0] == 0                                       # eject
        assert d.data(EVENTS.replace("0008", "0004") % 0x10, 4) == bytes.fromhex("0006 04 56")             # header only: not told yet
        assert d.data(EVENTS % 0x10, 8)[4:6] == b"\3\1" and d.data("bd 00 00 00 00 00 00 00 0008 00 00", 8)[1] == 0x10
        assert features(d)[1] == 0
