# SPDX-License-Identifier: MIT
"""What a controller tells by itself, and the features about it: zones, unreadable blocks, the endurance group, temperature; ranges, security."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import PAGE, NvmeMachine, read, write

PATH = "/machine/peripheral/n0"
INVALID_FIELD, INVALID_NSID, RANGE, OVERLAP = 0x02, 0x0b, 0x80, 0x114
READ_ONLY, OFFLINE = 0x1ba, 0x1bb
ZONES = {"zoned": True, "zoned.zone_size": 65536, "zoned.zone_capacity": 49152}


def machine(tmp_path, ns=None, **options):
    """Namespace 1 has the options NS; namespace 2 is a plain one."""
    args = ["-device", json.dumps(dict({"driver": "nvme", "serial": "N", "id": "n0", "addr": "1"}, **options))]
    for nsid, more in ((1, ns or {}), (2, {})):
        args += ["-blockdev", "driver=null-co,node-name=d%d,size=8M,read-zeroes=on" % nsid,
                 "-device", json.dumps(dict({"driver": "nvme-ns", "bus": "n0", "drive": "d%d" % nsid, "nsid": nsid}, **more))]
    return NvmeMachine(tmp_path, *args)


def qom_set(m, name, value):
    m.qmp.cmd("qom-set", path=PATH, property=name, value=value)


def zone(io, number):
    """State, attributes of a zone."""
    buf = io.nvme.alloc()
    assert io.run(0x7a, 1, prp1=buf, cdw=(number * 128, 0, 63, 1 << 16)).status == 0
    d = io.nvme.q.read(buf + 64, 64)
    return d[1] >> 4, d[2]


def test_zones_that_change_by_themselves(tmp_path):
    """Each change is an event about the namespace, and in its list until the host reads it; what the zone allows follows."""
    with machine(tmp_path, ZONES) as m:
        n = m.nvme(1).enable(cc=0x00460061)
        io = n.io_queue()
        assert struct.unpack_from("<I", n.identify(1), 92)[0] >> 27 & 1
        assert n.set_feature(0x0b, 1 << 27).status == 0
        for i in range(4):
            assert write(io, 1, i * 128, b"z" * 512).status == 0
        rules = [(0, "finished", 14, 1, 0x1b9), (1, "read-only", 13, 0, READ_ONLY), (2, "finish-recommended", 3, 2, 0), (3, "offline", 15, 0, OFFLINE)]
        for number, what, state, attributes, status in rules:
            if state == 3:
                assert io.run(0x79, 1, cdw=(number * 128, 0, 0, 3)).status == 0
            aer = n.admin.submit(0x0c)
            qom_set(m, "faults", [{"queue": "io", "opcode": 1, "slba": number * 128, "nlb": 128, "zone": what}])
            assert write(io, 1, number * 128 + 1, b"y" * 512).status == status
            qom_set(m, "faults", [])
            c = n.admin.poll()
            assert c.cid == aer and c.result == 1 << 32 | 0xbfef02
            assert zone(io, number) == (state, attributes)
            for rae in (1, 0):
                assert struct.unpack("<QQ", n.log(0xbf, 16, nsid=1, rae=rae)) == (1, number * 128)
            assert struct.unpack("<QQ", n.log(0xbf, 16, nsid=1)) == (0, 0)
        assert io.run(0x79, 1, cdw=(128, 0, 0, 5)).status == 0 and zone(io, 1)[0] == 15     # a read-only one goes offline
        assert n.log(0xbf, 16, nsid=1)[0] == 0                                              # at the host's word: no news
        qom_set(m, "faults", [{"queue": "io", "opcode": 2, "zone": "reset-recommended"}])
        read(io, 1, 0, 1)
        read(io, 1, 5 * 128, 1)                                                             # empty: nothing to reset
        assert zone(io, 0) == (14, 5) and zone(io, 5) == (1, 0)
        qom_set(m, "faults", [])
        assert io.run(0x79, 1, cdw=(0, 0, 0, 4)).status == 0 and zone(io, 0) == (1, 0)
        for nsid, status in ((2, INVALID_FIELD), (3, INVALID_NSID)):
            assert n.log(0xbf, 16, nsid=nsid).status == status


def test_more_changed_zones_than_the_list_holds(tmp_path):
    with machine(tmp_path, dict(ZONES, **{"zoned.zone_size": 8192, "zoned.zone_capacity": 8192})) as m:
        n = m.nvme(1).enable(cc=0x00460061)
        io = n.io_queue()
        qom_set(m, "faults", [{"queue": "io", "opcode": 2, "zone": "offline"}])
        for i in range(512):
            if i == 511:
                assert struct.unpack_from("<Q", n.log(0xbf, 4096, nsid=1, rae=1))[0] == 511
            io.run(2, 1, prp1=n.mem, cdw=(i * 16, 0, 0))
        assert n.log(0xbf, 4096, nsid=1) == b"\xff\xff" + bytes(4094)


def test_blocks_that_cannot_be_read(tmp_path):
    """LBA status information: an element a namespace, a generation that moves; alerts no nearer to each other than the host wants."""
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        io = n.io_queue()
        assert n.log(0x0e, 16) == struct.pack("<IIIHH", 16, 0, 0, 0, 0)
        assert n.set_feature(0x0b, 1 << 13).status == 0 and n.set_feature(0x15, 50).status == 0 and n.feature(0x15).result == 50
        aer = n.admin.submit(0x0c)
        assert io.run(4, 2, cdw=(100, 0, 7)).status == 0
        c = n.admin.poll()
        assert c.cid == aer and c.result == 0x0e0502
        assert io.run(4, 2, cdw=(200, 0, 0)).status == 0 and io.run(4, 1, cdw=(5, 0, 0)).status == 0
        want = struct.pack("<IIIHH", 96, 2, 10, 0, 3)
        want += struct.pack("<IIQ", 1, 1, 0x11) + struct.pack("<QQ", 5, 1)
        want += struct.pack("<IIQ", 2, 2, 0x11) + struct.pack("<QQQQ", 100, 8, 200, 1)
        assert n.log(0x0e, 96) == want and n.log(0x0e, 64, off=32) == want[32:]
        aer = n.admin.submit(0x0c)
        assert n.admin.run(0x18).status == 0 and not n.admin.ready()
        m.q.step(4_900_000_000)
        assert not n.admin.ready()
        c = n.admin.poll(step=100_000_000)
        assert c.cid == aer and c.result == 0x0e0502
        assert write(io, 2, 100, bytes(512)).status == 0
        assert struct.unpack_from("<IIIHH", n.log(0x0e, 16)) == (96, 2, 9, 0, 4)


def test_warnings_of_the_endurance_group(tmp_path):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        assert n.set_feature(0x0b, 1 << 14).status == 0
        for value in (4 << 16, 4 << 16 | 2, 2 << 16 | 1):               # no such group; no such warning
            assert n.set_feature(0x18, value).status == INVALID_FIELD
        assert n.set_feature(0x18, 4 << 16 | 1).status == 0
        assert n.feature(0x18, cdw11=1).result == 4 << 16 | 1 and n.feature(0x18, cdw11=2).status == INVALID_FIELD
        assert n.log(0x0f, 12) == bytes(12)
        aer = n.admin.submit(0x0c)
        qom_set(m, "smart_critical_warning", 1)                         # not one that was asked for
        assert n.log(9, 512, lsi=1)[0] == 1 and n.log(0x0f, 12) == bytes(12)
        qom_set(m, "smart_critical_warning", 5)
        c = n.admin.poll()
        assert c.cid == aer and c.result == 0x0f0602
        assert n.log(0x0f, 12) == struct.pack("<QHH", 1, 1, 0)
        assert n.log(9, 512, lsi=1, rae=1)[0] == 5 and n.log(0x0f, 8)[0] == 1
        n.log(9, 512, lsi=1)
        assert n.log(0x0f, 12) == bytes(12)


def test_temperature(tmp_path):
    """Thresholds, thermal management by the host, and what the health log counts, in the machine's time."""
    def smart(n):
        b = n.log(2, 512)
        return struct.unpack_from("<H", b, 1)[0], struct.unpack_from("<II", b, 192), struct.unpack_from("<H", b, 200)[0], struct.unpack_from("<4I", b, 216)

    with machine(tmp_path, temperature=300) as m:
        n = m.nvme(1).enable()
        b = n.identify(1)
        assert struct.unpack_from("<3H", b, 322) == (1, 273, 373) and smart(n) == (300, (0, 0), 300, (0, 0, 0, 0))
        for bad in (272 << 16, 374, 330 << 16 | 330, 340 << 16 | 330):
            assert n.set_feature(0x10, bad).status == INVALID_FIELD
        assert n.set_feature(0x10, 320 << 16 | 340, save=1).status == 0 and n.feature(0x10).result == 320 << 16 | 340
        assert n.set_feature(0x0b, 2).status == 0
        qom_set(m, "temperature", 325)
        assert smart(n)[3][:2] == (1, 0)
        m.q.step(7_000_000_000)
        aer = n.admin.submit(0x0c)
        qom_set(m, "temperature", 350)
        c = n.admin.poll()
        assert c.cid == aer and c.result == 0x020101 and n.log(2, 512, rae=1)[0] == 2
        m.q.step(120_000_000_000)
        qom_set(m, "temperature", 380)
        m.q.step(60_000_000_000)
        qom_set(m, "temperature", 310)
        assert smart(n) == (310, (2, 1), 310, (1, 1, 7, 180)) and n.log(2, 512)[0] == 0
        qom_set(m, "temperature", 320)
        assert smart(n)[3] == (2, 1, 7, 180)


def entry(kind, slba, nlb, attributes=1, guid=b""):
    return bytes([kind, attributes]).ljust(16, b"\0") + struct.pack("<QQ", slba, nlb) + guid.ljust(32, b"\0")


def test_types_of_ranges(tmp_path):
    """What the host notes of blocks is its own: per namespace, over resets and restarts, gone with a format."""
    def note(n, entries, nsid=1):
        buf = n.alloc()
        n.q.write(buf, b"".join(entries))
        return n.set_feature(3, len(entries) - 1, nsid=nsid, prp1=buf).status

    def noted(n, nsid=1):
        buf = n.alloc()
        c = n.feature(3, nsid=nsid, prp1=buf)
        return c.status if c.status else n.q.read(buf, (c.result + 1) * 64)

    mine = [entry(1, 0, 100, guid=b"one"), entry(0x80, 100, 16284, 3)]
    with machine(tmp_path, state=str(tmp_path / "state")) as m:
        n = m.nvme(1).enable()
        assert noted(n) == noted(n, 2) == entry(0, 0, 16384) and noted(n, 3) == INVALID_NSID
        for bad, status in (([entry(5, 0, 1)], INVALID_FIELD), ([entry(1, 0, 1, 4)], INVALID_FIELD), ([entry(1, 0, 0)], INVALID_FIELD),
                            ([entry(1, 16384, 1)], RANGE), ([entry(1, 2**64 - 1, 2)], RANGE), ([entry(1, 0, 5), entry(1, 4, 1)], OVERLAP)):
            assert note(n, bad) == status
        assert note(n, mine) == 0 and noted(n) == b"".join(mine) and noted(n, 2) == entry(0, 0, 16384)
        n.disable()
        assert noted(n.enable()) == b"".join(mine)
        assert n.io_queue().run(0, 0xffffffff).status == 0              # written
    with machine(tmp_path, state=str(tmp_path / "state")) as m:
        n = m.nvme(1).enable()
        assert noted(n) == b"".join(mine)
        assert n.admin.run(0x80, 1, cdw=(4,)).status == 0 and noted(n) == entry(0, 0, 2048)


def test_reservations_kept_by_a_feature(tmp_path):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        assert n.set_feature(0x83, 1, nsid=1).status == INVALID_FIELD and n.feature(0x83, nsid=1).result == 0       # no state file
    with machine(tmp_path, state=str(tmp_path / "state")) as m:
        n = m.nvme(1).enable()
        assert n.set_feature(0x83, 1, nsid=1).status == 0 and n.feature(0x83, nsid=1).result == 1 and n.feature(0x83, nsid=2).result == 0
        assert n.set_feature(0x83, 1, nsid=0xffffffff).status == 0 and n.feature(0x83, nsid=2).result == 1
        assert n.feature(0x83, nsid=3).status == INVALID_NSID and n.io_queue().run(0, 0xffffffff).status == 0
    with machine(tmp_path, state=str(tmp_path / "state")) as m:
        n = m.nvme(1).enable()
        assert n.feature(0x83, nsid=1).result == 1


def test_security_tells_that_nothing_locks(tmp_path):
    """Security Receive of protocol 00h names itself alone; TCG's and every other protocol are refused."""
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        assert struct.unpack_from("<H", n.identify(1), 256)[0] & 1
        buf = n.alloc()
        for spsp, want in ((0, bytes(7) + b"\1\0"), (1, bytes(4)), (2, bytes(4))):
            n.q.write(buf, b"\xff" * PAGE)
            assert n.admin.run(0x82, prp1=buf, cdw=(spsp << 8, 512)).status == 0
            assert n.q.read(buf, 516) == want.ljust(512, b"\0") + b"\xff" * 4
        assert n.admin.run(0x82, prp1=buf, cdw=(0, 0)).status == 0
        for cdw10 in (3 << 8, 1 << 24 | 1 << 8, 0xea << 24):
            assert n.admin.run(0x82, prp1=buf, cdw=(cdw10, 512)).status == INVALID_FIELD
            assert n.admin.run(0x81, prp1=buf, cdw=(cdw10, 512)).status == INVALID_FIELD
        assert n.admin.run(0x82, prp1=buf, cdw=(0, 1 << 30)).status == INVALID_FIELD


def test_a_fault_rule_with_an_unknown_zone_change():
    status, _, err = run("-M", "virt", "-device", json.dumps({"driver": "nvme", "serial": "x", "faults": [{"zone": "melted"}]}))
    assert status and "melted" in err and "read-only" in err


@pytest.mark.parametrize("fid", (0x03, 0x10, 0x15, 0x18, 0x83))
def test_features_tell_what_they_can(tmp_path, fid):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        caps = n.feature(fid, sel=3, nsid=1 if fid in (3, 0x83) else 0).result
        assert caps & 4 and bool(caps & 2) == (fid in (3, 0x83)) and bool(caps & 1) == (fid in (0x10, 0x15, 0x18))
        assert n.log(0x12, 1024)[4 * fid] & 1


def test_placement_is_told_of_where_it_is(tmp_path):
    """A subsystem without data placement has neither its log pages nor its features; one that has can be without for a while."""
    ctratt = 96
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        assert not struct.unpack_from("<I", n.identify(1), ctratt)[0] >> 19 & 1
        for lid in range(0x20, 0x24):
            assert n.log(lid, 64, lsi=1).status == 0x109 and not n.log(0, 1024)[4 * lid]
        for fid in (0x1d, 0x1e):
            assert n.feature(fid, nsid=1, cdw11=1).status == INVALID_FIELD and not n.log(0x12, 1024)[4 * fid]
    with NvmeMachine(tmp_path, "-device", "nvme-subsys,id=ss,fdp=on,fdp.runs=1M,fdp.nrg=2,fdp.nruh=4", "-device", "nvme,serial=F,id=f,subsys=ss,addr=1") as m:
        n = m.nvme(1).enable()
        for on in (1, 0, 1):
            assert n.set_feature(0x1d, 1, cdw12=on).status == 0 and n.feature(0x1d, cdw11=1).result & 1 == on
            assert struct.unpack_from("<I", n.identify(1), ctratt)[0] >> 19 & 1 and n.log(0, 1024)[4 * 0x21] & 1
            assert (n.log(0x22, 64, lsi=1) == bytes(64)) if on else (n.log(0x22, 64, lsi=1).status == 0x29)
            assert struct.unpack_from("<I", n.log(0x20, 128, lsi=1), 4)[0] == 96
