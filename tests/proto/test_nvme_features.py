# SPDX-License-Identifier: MIT
"""Every feature of an NVMe controller at every Select value (NVMe base 2.0, 4.2, 5.15, 5.27): fresh, set, saved, after a reset, in the next run."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import PAGE, NvmeMachine

INVALID_FIELD, INVALID_NSID, SEQUENCE, NOT_SAVEABLE = 0x002, 0x00b, 0x00c, 0x10d
CURRENT, DEFAULT, SAVED, CAPS = range(4)
SAVEABLE, NAMESPACE, CHANGEABLE = 1, 2, 4
BLOCKS = 16384                          # of namespace 1
EVERY = 0xffffffff


def entry(kind, slba, nlb):
    return bytes([kind, 1]).ljust(16, b"\0") + struct.pack("<QQ", slba, nlb).ljust(48, b"\0")


class Row:
    """A feature: what it is by default, what the second value is and how it is set; KEPT: over "reset" or "restart" though it is not saveable."""

    def __init__(self, fid, default, value, put=None, nsid=0, dword=0, caps=CHANGEABLE, kept=(), data=None, default_data=None, value_data=None, cdw12=0):
        self.fid, self.nsid, self.dword, self.caps, self.kept, self.cdw12 = fid, nsid, dword, caps | (NAMESPACE if nsid else 0), kept, cdw12
        self.put = value if put is None else put
        self.data = data                                # what is sent with it
        self.default, self.value = (default, default_data), (value, data if value_data is None and data else value_data)

    def __repr__(self):
        return "feature %02x, %x" % (self.fid, self.dword)

    def get(self, n, sel):
        """Status; or the value, and the buffer where anything of it was written."""
        buf = n.alloc()
        n.q.write(buf, b"\xee" * PAGE)
        c = n.feature(self.fid, sel, self.nsid, self.dword, buf)
        b = n.q.read(buf, PAGE)
        return c.status or (c.result, b.rstrip(b"\xee") or None)

    def set(self, n, save):
        buf = n.alloc()
        n.q.write(buf, self.data or b"")
        return n.set_feature(self.fid, self.put, self.nsid, save, buf, self.cdw12).status


SAVES = CHANGEABLE | SAVEABLE
STAMP = struct.pack("<Q", 1 << 49 | 1234567890123)
ROWS = [
    Row(0x01, 7, 0x01020305, caps=SAVES), Row(0x02, 0, 0x20, caps=SAVES),
    Row(0x03, 0, 1, nsid=1, kept=("reset", "restart"), default_data=entry(0, 0, BLOCKS).ljust(PAGE, b"\0"), data=(entry(1, 0, 10) + entry(2, 10, 10)).ljust(PAGE, b"\0")),
    Row(0x04, 343, 350), Row(0x04, 0, 200, 1 << 20 | 200, dword=1 << 20),
    Row(0x04, 0xffff, 360, 1 << 16 | 360, dword=1 << 16), Row(0x04, 0, 210, 0x11 << 16 | 210, dword=0x11 << 16),       # of the sensor
    Row(0x05, 0, 1 << 16 | 300, nsid=1), Row(0x06, 1, 0, caps=SAVES), Row(0x07, 63 << 16 | 63, 63 << 16 | 63, 3 << 16 | 3), Row(0x08, 0, 0x0203, caps=SAVES),
    Row(0x09, 1, 1 << 16 | 1, dword=1), Row(0x0a, 0, 1, caps=SAVES), Row(0x0b, 0, 0x100, caps=SAVES),
    Row(0x0e, 0, 0, kept=("reset",), default_data=bytes(8), data=struct.pack("<Q", 1234567890123), value_data=STAMP),
    Row(0x0f, 0, 5000), Row(0x10, 0, 330 << 16 | 340, caps=SAVES), Row(0x15, 0, 50, caps=SAVES),
    Row(0x16, 0, 0, default_data=bytes(512), data=b"\0\0\1".ljust(512, b"\0")), Row(0x17, 0, 1, caps=SAVES), Row(0x18, 1, 4 << 16 | 1, dword=1, caps=SAVES), Row(0x19, 0, 0),
    Row(0x1e, 4, 4, 2 << 16, nsid=1, dword=4 << 16, kept=("reset",), default_data=bytes([0, 0, 1, 0, 2, 0, 3, 0]), data=b"\0\3", value_data=bytes([0, 1, 1, 0, 2, 0, 3, 1]), cdw12=1),
    Row(0x20, 0, 1, nsid=2), Row(0x80, 0, 5, caps=SAVES), Row(0x81, 0, 0, 1, dword=1, default_data=bytes(16), data=b"0123456789abcdef"),
    Row(0x82, 0, 0xe, nsid=1), Row(0x83, 0, 1, nsid=1, kept=("reset", "restart")), Row(0x84, 0, 1, nsid=1, kept=("reset", "restart")),
    Row(0xc1, 0, 0, 1 << 31), Row(0xc3, 0, 0, 1 << 31),
]


class Home:
    """A subsystem that keeps its state, with one controller that has every feature."""

    def __init__(self, tmp):
        self.tmp = tmp
        for name in ("d", "k"):
            with open(tmp / name, "wb") as f:
                f.truncate(BLOCKS * 512)

    def start(self, *more):
        args = [x for name in ("d", "k") for x in ("-drive", "file=%s,format=raw,if=none,id=%s" % (self.tmp / name, name))]
        return NvmeMachine(self.tmp, *args, "-device", "nvme-subsys,id=ss,state=%s,fdp=on,fdp.nruh=2,fdp.nrg=1,fdp.runs=1M" % (self.tmp / "state"),
                           "-device", "nvme,id=c,serial=C,subsys=ss,addr=1,ocp=on,hmb=64", "-device", "nvme-ns,bus=c,drive=d,nsid=1",
                           "-device", "nvme-ns,bus=c,drive=k,nsid=2,kv=on", *more)


@pytest.fixture(name="home")
def folder(tmp_path):
    return Home(tmp_path)


def saved(row, value):
    return value if row.caps & SAVEABLE else row.default


def test_every_feature_at_every_select(home):
    with home.start() as m:
        n = m.nvme(1).enable()
        told = n.log(0x12, 1024)
        assert {r.fid for r in ROWS} | {0x0d, 0x1d} == {i for i in range(256) if told[4 * i] & 1}
        for r in ROWS:
            assert [r.get(n, sel) for sel in range(8)] == [r.default] * 3 + [(r.caps, None)] + [INVALID_FIELD] * 4, r
        for r in ROWS:
            assert r.set(n, save=0) == 0, r
        for r in ROWS:
            assert [r.get(n, sel) for sel in range(4)] == [r.value, r.default, r.default, (r.caps, None)], r
        n.disable()
        n.enable()
        for r in ROWS:
            assert [r.get(n, sel) for sel in range(3)] == [r.value if "reset" in r.kept else r.default, r.default, r.default], r
            assert r.set(n, save=1) == (0 if r.caps & SAVEABLE else NOT_SAVEABLE), r
        for r in ROWS:
            assert [r.get(n, sel) for sel in range(3)] == [r.value if "reset" in r.kept else saved(r, r.value), r.default, saved(r, r.value)], r
        n.disable()
        n.enable()
        for r in ROWS:
            assert r.get(n, CURRENT) == (r.value if "reset" in r.kept else saved(r, r.value)), r
    with home.start() as m:
        n = m.nvme(1).enable()
        for r in ROWS:
            want = r.value if "restart" in r.kept else saved(r, r.value)
            assert [r.get(n, sel) for sel in range(4)] == [want, r.default, saved(r, r.value), (r.caps, None)], r


def test_host_memory_buffer(home):
    """Its attributes are what the host set, zero by default and after a reset."""
    with home.start() as m:
        n = m.nvme(1).enable()
        where, listed = n.alloc(64 * PAGE), n.alloc()
        r = Row(0x0d, 0, 1, default_data=bytes(PAGE), value_data=struct.pack("<IQI", 64, listed, 1).ljust(PAGE, b"\0"))
        n.q.write(listed, struct.pack("<QII", where, 64, 0))
        assert [r.get(n, sel) for sel in range(4)] == [r.default] * 3 + [(r.caps, None)]
        for save, status in ((1, NOT_SAVEABLE), (0, 0)):
            assert n.set_feature(0x0d, 1, save=save, cdw12=64, cdw13=listed & 0xffffffff, cdw14=listed >> 32, cdw15=1).status == status
        assert [r.get(n, sel) for sel in range(3)] == [r.value, r.default, r.default]
        n.disable()
        assert r.get(n.enable(), CURRENT) == r.default


def test_placement_is_on_by_default(tmp_path):
    with NvmeMachine(tmp_path, "-device", "nvme-subsys,id=ss,fdp=on,fdp.nruh=2,fdp.nrg=1,fdp.runs=1M", "-device", "nvme,serial=C,subsys=ss,addr=1") as m:
        n = m.nvme(1).enable()
        r = Row(0x1d, 1, 0, 1, dword=1)
        assert [r.get(n, sel) for sel in range(4)] == [r.default] * 3 + [(r.caps, None)] and r.set(n, save=1) == NOT_SAVEABLE
        assert r.set(n, save=0) == 0 and [r.get(n, sel) for sel in range(3)] == [r.value, r.default, r.default]


def test_features_of_namespaces(home):
    """Every namespace has its own values; all at once can be set, not told; a controller reset ends them unless others use them too."""
    with home.start("-device", "nvme,id=e,serial=E,subsys=ss,addr=2") as m:
        n, other = m.nvme(1).enable(), m.nvme(2, 1).enable()
        for fid, value in ((0x05, 1 << 16 | 7), (0x82, 4), (0x83, 1)):
            assert n.feature(fid, nsid=EVERY).status == INVALID_NSID and n.set_feature(fid, value, nsid=3).status == INVALID_NSID, fid
            assert n.set_feature(fid, value, nsid=2).status == 0 and [n.feature(fid, nsid=i).result for i in (1, 2)] == [0, value], fid
            assert n.set_feature(fid, value, nsid=EVERY).status == 0 and [n.feature(fid, nsid=i).result for i in (1, 2)] == [value, value], fid
        assert [other.feature(fid, nsid=1).result for fid in (0x05, 0x82, 0x83)] == [1 << 16 | 7, 0, 1]         # the mask is the controller's
        n.disable()
        n.enable()
        assert [n.feature(fid, nsid=1).result for fid in (0x05, 0x82, 0x83)] == [1 << 16 | 7, 0, 1]
        n.writel(0x20, 0x4e564d65)                      # the subsystem
        for c in (n, other):
            c.wait(0x1c, 0x11, 0x10)
        n.enable()
        assert [n.feature(fid, nsid=1).result for fid in (0x05, 0x83)] == [0, 1]


def test_thresholds_of_the_sensor(home):
    """It measures the same; its thresholds are its own, and the warning is of either."""
    with home.start() as m:
        n = m.nvme(1).enable()
        for dword in (2 << 16, 15 << 16, 2 << 20):
            assert n.feature(4, cdw11=dword).status == INVALID_FIELD
        assert n.set_feature(4, 8 << 16 | 300).status == INVALID_FIELD
        assert n.set_feature(0x0b, 2).status == 0
        aer = n.admin.submit(0x0c)
        cid = n.admin.submit(9, cdw=(4, 15 << 16 | 322))                        # all sensors: 323 K now
        told = {c.cid: c for c in (n.admin.poll(), n.admin.poll())}
        assert told[cid].status == 0 and told[aer].result == 0x020101 and n.log(2, 512)[0] == 2
        assert n.feature(4).result == 343 and n.feature(4, cdw11=1 << 16).result == 322
        assert n.set_feature(4, 1 << 16 | 340).status == 0 and n.log(2, 512)[0] == 0
        assert n.set_feature(4, 0x11 << 16 | 323).status == 0 and n.log(2, 512)[0] == 2
