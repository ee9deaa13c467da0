# SPDX-License-Identifier: MIT
"""The persistent event log of an NVM subsystem (NVMe base 2.0, 5.16.1.14): every event that a controller causes, reporting contexts, what stays."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import PAGE, NvmeMachine, read, write

SMART, FIRMWARE, TIMESTAMP, RESET, HARDWARE, NAMESPACE, FORMAT, FORMATTED, SANITIZE, SANITIZED, FEATURE, TELEMETRY, THERMAL = range(1, 14)
WARNING, UNSAFE, FATAL, MEDIA = 6, 8, 9, 10
READ, ESTABLISH, RELEASE, HEADER = range(4)
SEQUENCE = 0x00c
EXISTS = 1 << 18 | 1 << 16              # RCI: a context, of the port
PATH = "/machine/peripheral/a"


class Event:
    """One of the page: kind, controller, time, data."""

    def __init__(self, raw, at):
        self.kind, revision, more, info, self.cntlid, self.time, port, _, vendor, size = struct.unpack_from("<BBBBHQHIHH", raw, at)
        assert (revision, more, info, port, vendor) == (1, 21, 0, 0, 0)
        self.data, self.end = raw[at + 24:at + 24 + size], at + 24 + size
        assert len(self.data) == size

    def __repr__(self):
        return "<%d of %d: %s>" % (self.kind, self.cntlid, self.data.hex())

    def dwords(self):
        return struct.unpack("<%dI" % (len(self.data) // 4), self.data)


def rci(page):
    return struct.unpack_from("<I", page, 374)[0]


def page(n, action):
    """All of the log: its header, then as much as it says."""
    head = n.log(0x0d, 512, lsp=action)
    if not isinstance(head, bytes):
        return head
    count, total = struct.unpack_from("<IQ", head, 4)
    raw = b"".join(n.log(0x0d, min(65536, (total - at + 3) & ~3), off=at) for at in range(0, total, 65536))[:total]
    assert raw[:374] == head[:374] and rci(raw) == EXISTS
    at, found = 512, []
    while at < total:
        found.append(Event(raw, at))
        at = found[-1].end
    assert at == total and len(found) == count
    return head, found


def events(n):
    """The events, newest first."""
    found = page(n, ESTABLISH)[1]
    assert n.log(0x0d, 4, lsp=RELEASE)
    return found


class Since:
    """What was new when it is called."""

    def __init__(self, n):
        self.n, self.before = n, len(events(n))

    def __call__(self):
        found = events(self.n)
        new, self.before = len(found) - self.before, len(found)
        return found[:new][::-1]


class Home:
    """Two controllers, two namespaces on one drive each, kept in a state file."""

    def __init__(self, tmp):
        self.tmp = tmp
        with open(tmp / "d", "wb") as f:
            f.truncate(8 << 20)

    def start(self, **options):
        return NvmeMachine(self.tmp, "-drive", "file=%s,format=raw,if=none,id=d" % (self.tmp / "d"), "-device", "nvme-subsys,id=ss,state=%s" % (self.tmp / "state"),
                           "-device", json.dumps(dict({"driver": "nvme", "id": "a", "serial": "A", "subsys": "ss", "addr": "1"}, **options)),
                           "-device", "nvme,id=b,serial=B,subsys=ss,addr=2", "-device", "nvme-ns,bus=a,drive=d,nsid=1")


@pytest.fixture(name="home")
def folder(tmp_path):
    return Home(tmp_path)


def qom_set(m, name, value):
    m.qmp.cmd("qom-set", path=PATH, property=name, value=value)


def test_what_a_host_does(home):
    with home.start() as m:
        n = m.nvme(1).enable()
        first = events(n)
        assert [e.kind for e in first] == [RESET, RESET] and {e.cntlid for e in first} == {0, 1}
        assert all(len(e.data) == 44 and e.data[:8] == n.identify(1)[64:72] for e in first)
        news = Since(n)
        buf = n.alloc()
        n.q.write(buf, struct.pack("<Q", 1 << 40))
        n.q.step(5_000_000)
        assert n.set_feature(0x0e, 0, prp1=buf).status == 0                     # an event of its own, not one of features
        e, = news()
        assert e.kind == TIMESTAMP and struct.unpack("<QQ", e.data) == (5, 5) and e.time == 5
        assert n.set_feature(8, 0x0203).status == n.set_feature(7, 1 << 16 | 1).status == 0
        n.q.write(buf, b"\0\0\1".ljust(512, b"\0"))
        assert n.set_feature(0x16, 0, prp1=buf).status == 0 and n.set_feature(8, 0, nsid=1).status != 0
        a, b, c = news()
        assert (a.kind, a.dwords()) == (FEATURE, (2, 8, 0x0203)) and b.dwords() == (2 | 1 << 3, 7, 1 << 16 | 1, 63 << 16 | 63) and a.time == 1 << 49 | 1 << 40
        assert c.dwords()[:3] == (512 << 16 | 2, 0x16, 0) and c.data[12:] == b"\0\0\1".ljust(512, b"\0")
        assert n.admin.run(0x80, 1, cdw=(1 << 9 | 4,)).status == 0
        a, b = news()
        assert (a.kind, a.data) == (FORMAT, struct.pack("<IB3xI", 1, 4, 1 << 9 | 4)) and (b.kind, b.data) == (FORMATTED, struct.pack("<IBBHI", 1, 0, 0, 0, 0))
        assert n.admin.run(0x84, cdw=(2 | 1 << 9, 7)).status == 0
        while n.log(0x81, 512)[2] & 7 == 2:
            pass
        a, b = news()
        assert (a.kind, a.dwords()) == (SANITIZE, (struct.unpack_from("<I", n.identify(1), 328)[0], 2 | 1 << 9, 7))
        assert (b.kind, b.data) == (SANITIZED, struct.pack("<HHHH", 0xffff, 4, 0, 0))
        assert n.admin.run(0x0d, nsid=1, cdw=(1,)).status == 0
        n.q.write(buf, struct.pack("<QQ10xB3xB", 1024, 1024, 4, 1).ljust(4096, b"\0"))
        assert n.admin.run(0x0d, prp1=buf, cdw=(0,)).result == 1
        a, b = news()
        assert (a.kind, a.data) == (NAMESPACE, struct.pack("<I40xI", 1, 1))
        assert (b.kind, b.data) == (NAMESPACE, struct.pack("<I4xQ8xQBBBxIHHI", 0, 1024, 1024, 4, 0, 1, 1, 0, 0, 1))
        telemetry = n.log(0x07, 512, lsp=1)
        n.log(0x07, 512)
        e, = news()
        assert (e.kind, e.data) == (TELEMETRY, telemetry)


def test_firmware_commits(home):
    with home.start() as m:
        n = m.nvme(1).enable()
        news, buf, old = Since(n), n.alloc(), n.identify(1)[64:72]
        n.q.write(buf, b"NEWFW001".ljust(PAGE, b"\0"))
        assert n.admin.run(0x11, prp1=buf, cdw=(PAGE // 4 - 1, 0)).status == 0
        for action, slot, status in ((0, 0, 0), (2, 2, 0x111), (0, 3, 0x107), (3, 2, 0)):
            assert n.admin.run(0x10, cdw=(action << 3 | slot,)).status == status
            e, = news()
            new = b"NEWFW001" if slot != 3 else bytes(8)
            assert (e.kind, e.data) == (FIRMWARE, old + new + bytes([action, slot or 2, status >> 8, status & 0xff, 0, 0]))


def test_what_goes_wrong(home):
    """Faults, heat, warnings, resets; a fault that goes on is told once."""
    with home.start() as m:
        n = m.nvme(1).enable()
        io, news = n.io_queue(), Since(n)
        qom_set(m, "faults", [{"queue": "io", "opcode": 2, "status": 0x281}])
        assert [read(io, 1, i, 1).status for i in range(3)] == [0x281] * 3
        e, = news()
        assert (e.kind, e.dwords()) == (HARDWARE, (MEDIA,))
        for kelvin, want in ((342, []), (350, [(8, 1)]), (400, [(28, 2)]), (380, []), (300, [(0, 1), (0, 2)]), (373, [(31, 1), (1, 2)])):
            qom_set(m, "temperature", kelvin)
            assert struct.unpack_from("<H", n.log(2, 512), 1)[0] == kelvin
            assert [(e.kind, tuple(e.data)) for e in news()] == [(THERMAL, w) for w in want]
        qom_set(m, "smart_critical_warning", 4)
        while not n.log(2, 512)[0] & 4:
            pass
        a, b = news()
        assert (a.kind, a.dwords()) == (HARDWARE, (WARNING,)) and (b.kind, len(b.data), b.data[:3]) == (SMART, 512, bytes([6]) + struct.pack("<H", 373))
        n.disable()
        n.enable()
        e, = news()
        assert e.kind == RESET and struct.unpack_from("<HBB12xI", e.data, 8) == (0, 0, 0, 1)
        qom_set(m, "faults", [{"opcode": 0x18, "queue": "admin", "fatal": True}])
        n.admin.submit(0x18)
        n.wait(0x1c, 2, 2)
        n.disable()
        n.enable()
        a, b = news()
        assert (a.kind, a.dwords()) == (HARDWARE, (FATAL,)) and b.kind == RESET
        n.writel(0x14, 0x00464001)                                              # a shutdown leaves a picture of the health
        n.wait(0x1c, 0xc, 8)
        n.disable()
        n.enable()
        assert [e.kind for e in news()] == [SMART, RESET]


def test_a_context_is_a_picture(home):
    """Read as it was when it was established, by every controller; there is one at a time; who established it takes it along in a reset."""
    with home.start() as m:
        n, other = m.nvme(1).enable(), m.nvme(2, 1).enable()
        assert n.log(0x0d, 512).status == SEQUENCE
        assert isinstance(n.log(0x0d, 512, lsp=RELEASE), bytes)
        head, found = page(n, ESTABLISH)
        assert rci(head) == 0
        assert n.set_feature(8, 1).status == 0
        assert [c.log(0x0d, 512, lsp=ESTABLISH).status for c in (n, other)] == [SEQUENCE] * 2
        assert rci(other.log(0x0d, 512, lsp=HEADER)) == EXISTS and other.log(0x0d, 1024, lsp=HEADER)[512:] == bytes(512)
        assert len(page(other, READ)[1]) == len(found) and struct.unpack_from("<H", page(n, READ)[0], 372) == struct.unpack_from("<H", head, 372)
        other.disable()
        other.enable()
        assert isinstance(n.log(0x0d, 512), bytes)
        n.disable()
        n.enable()
        assert n.log(0x0d, 512).status == other.log(0x0d, 512).status == SEQUENCE
        again, new = page(other, HEADER)
        assert rci(again) == 0 and [e.kind for e in new[:len(new) - len(found)]] == [RESET, RESET, FEATURE]
        assert struct.unpack_from("<H", again, 372)[0] == struct.unpack_from("<H", head, 372)[0] + 1


def test_the_oldest_make_room(home):
    """PELS says 64 KiB; what is there is whole, newest first, and stays when the machine goes."""
    with home.start() as m:
        n = m.nvme(1).enable()
        assert struct.unpack_from("<I", n.identify(1), 352)[0] == 1
        buf = n.alloc()
        for i in range(150):
            n.q.write(buf, bytes(512))
            assert n.set_feature(0x16, 0, prp1=buf).status == 0 and n.set_feature(8, i).status == 0
        found = events(n)
        marks = [e.dwords()[2] for e in found if e.kind == FEATURE and e.dwords()[1] == 8]
        assert marks == list(range(149, 149 - len(marks), -1)) and 65536 - 600 < 512 + sum(24 + len(e.data) for e in found) <= 65536
        assert n.io_queue().run(0, 0xffffffff).status == 0                      # flushed
    with home.start() as m:
        n = m.nvme(1).enable()
        new = events(n)
        assert [(e.kind, e.cntlid) for e in new[:4]] == [(HARDWARE, 1), (RESET, 1), (HARDWARE, 0), (RESET, 0)] and new[0].dwords() == (UNSAFE,)
        left = [e.data for e in new[4:]]
        assert left == [e.data for e in found[:len(left)]] and len(left) > len(found) - 4


def test_a_log_that_makes_no_sense(home):
    """What a state file has of events ends where it is broken; the rest of it counts."""
    with home.start() as m:
        assert m.nvme(1).enable().set_feature(8, 7, save=1).status == 0
    kept = json.loads((home.tmp / "state").read_text())
    log = kept["events"]["log"]
    whole = bytes.fromhex(log)
    for text, count in ((log + "0b01", None), ("zz", 0), (log[:50], 0), ("0b" * 65536 * 2, 0), (log[:46] + "ffff" + log[50:], 0)):
        kept["events"]["log"] = text
        (home.tmp / "state").write_text(json.dumps(kept))
        with home.start() as m:
            n = m.nvme(1).enable()
            found = [e for e in events(n)[4:]]
            assert b"".join(e.data for e in found) if count is None else len(found) == count
            assert n.feature(8).result == 7 and len(whole) > 44
