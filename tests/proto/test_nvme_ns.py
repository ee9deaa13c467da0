# SPDX-License-Identifier: MIT
"""NVMe subsystems: several controllers, namespaces made, attached, formatted, sanitized, reserved; zones; placement."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import PAGE, NvmeMachine, read, rw, write

MIB = 1 << 20


def image(tmp, name, size):
    p = str(tmp / name)
    with open(p, "wb") as f:
        f.truncate(size)
    return "file=%s,format=raw,if=none,id=%s,discard=unmap" % (p, name)


@pytest.fixture(name="m")
def machine(tmp_path):
    """Two controllers; namespace 1 shared, 2 private to the first, 3 detached."""
    args = ["-device", "nvme-subsys,id=ss,nqn=sub0", "-device", "nvme,serial=A,id=a,subsys=ss,addr=1", "-device", "nvme,serial=B,id=b,subsys=ss,addr=2"]
    for name, opts in (("d1", "nsid=1"), ("d2", "nsid=2,shared=off"), ("d3", "nsid=3,detached=on")):
        args += ["-drive", image(tmp_path, name, 16 * MIB), "-device", "nvme-ns,bus=a,drive=%s,%s" % (name, opts)]
    with NvmeMachine(tmp_path, *args) as m:
        m.a, m.b = m.nvme(1).enable(), m.nvme(2, 1).enable()
        yield m


def ids(raw):
    return [x for x in struct.unpack("<%dI" % (len(raw) // 4), raw) if x]


def ctrl_list(n, ids_):
    buf = n.alloc()
    n.q.write(buf, struct.pack("<%dH" % (1 + len(ids_)), len(ids_), *ids_))
    return buf


def attach(n, nsid, ctrls, detach=0):
    return n.admin.run(0x15, nsid=nsid, prp1=ctrl_list(n, ctrls), cdw=(detach,))


def create(n, blocks, lbaf=0, shared=1, dps=0, ncap=None):
    buf = n.alloc()
    raw = bytearray(384)
    struct.pack_into("<QQ", raw, 0, blocks, blocks if ncap is None else ncap)
    raw[26], raw[29], raw[30] = lbaf, dps, shared
    n.q.write(buf, bytes(raw))
    return n.admin.run(0x0d, prp1=buf, cdw=(0,))


def test_who_sees_what(m):
    assert ids(m.a.identify(2)) == [1, 2] and ids(m.b.identify(2)) == [1]
    assert ids(m.a.identify(0x10)) == [1, 2, 3] == ids(m.b.identify(0x10))
    assert m.a.identify(0x12, nsid=1)[:6] == struct.pack("<HHH", 2, 0, 1)
    assert m.a.identify(0x12, nsid=2)[:4] == struct.pack("<HH", 1, 0) and m.a.identify(0x12, nsid=3)[:2] == b"\0\0"
    assert m.a.identify(0x13)[:6] == struct.pack("<HHH", 2, 0, 1) and m.a.identify(0x13, cntid=1)[:4] == struct.pack("<HH", 1, 1)
    for n, cntlid in ((m.a, 0), (m.b, 1)):
        b = n.identify(1)
        assert struct.unpack_from("<H", b, 78)[0] == cntlid and b[76] & 2 and b[768:].startswith(b"nqn.2019-08.org.qemu:sub0\0")
    assert m.a.identify(0x11, nsid=3)[:8] == struct.pack("<Q", 32768) and m.a.identify(0, nsid=3) == bytes(PAGE)


def test_a_shared_namespace_is_one(m):
    io_a, io_b = m.a.io_queue(), m.b.io_queue()
    data = os.urandom(4096)
    assert write(io_a, 1, 10, data).status == 0 and read(io_b, 1, 10, 8) == data
    assert read(io_b, 2, 0, 1).status == 2 and read(io_a, 2, 0, 1) == bytes(512)


def test_attach_and_detach(m):
    m.b.set_feature(0x0b, 0x100)
    aer = m.b.admin.submit(0x0c)
    assert attach(m.a, 3, [0, 1]).status == 0
    c = m.b.admin.poll()
    assert c.cid == aer and c.result & 0xffffff == 0x040002             # notice, namespace attribute changed
    assert ids(m.b.log(4, 4096)) == [3] and m.b.log(4, 4096) == bytes(4096)
    assert attach(m.a, 3, [0]).status == 0x118 and attach(m.a, 2, [1]).status == 0x119
    assert attach(m.a, 3, [1], 1).status == 0 and attach(m.a, 3, [1], 1).status == 0x11a
    assert attach(m.a, 3, [9]).status == 0x11c and attach(m.a, 3, []).status == 0x11c and attach(m.a, 9, [0]).status == 2
    assert ids(m.a.identify(2)) == [1, 2, 3] and ids(m.b.identify(2)) == [1]


def test_delete_and_create(m):
    total, unused = (struct.unpack_from("<Q", m.a.identify(1), at)[0] for at in (280, 296))
    assert total == 48 * MIB and unused == 0
    assert create(m.a, 2048).status == 0x115
    assert write(m.a.io_queue(), 1, 0, b"\xaa" * 512).status == 0
    assert m.a.admin.run(0x0d, nsid=1, cdw=(1,)).status == 0
    assert ids(m.a.identify(2)) == [2] and ids(m.b.identify(2)) == []
    assert struct.unpack_from("<Q", m.a.identify(1), 296)[0] == 16 * MIB
    one, two = create(m.a, 8 * MIB // 512), create(m.a, 1024, lbaf=4)
    assert (one.status, one.result, two.status, two.result) == (0, 1, 0, 4)
    assert create(m.a, 16 * MIB // 512).status == 0x115 and create(m.a, 1 << 60).status == 0x115
    assert create(m.a, 100, ncap=50).status == 0x11b and create(m.a, 100, lbaf=15 | 1 << 5).status == 0x10a and create(m.a, 100, dps=1).status == 0x10a
    assert ids(m.a.identify(2)) == [2]
    assert attach(m.a, 1, [0, 1]).status == 0 and attach(m.a, 4, [1]).status == 0
    io = m.b.io_queue()
    assert read(io, 1, 0, 1) == bytes(512)                              # nothing of what was there
    data = os.urandom(8192)
    assert write(io, 4, 1022, data, size=4096).status == 0 and read(io, 4, 1022, 2, size=4096) == data
    assert read(io, 1, 8 * MIB // 512 - 1, 1) == bytes(512)
    assert m.a.admin.run(0x0d, nsid=0xffffffff, cdw=(1,)).status == 0 and ids(m.a.identify(0x10)) == []
    assert m.a.admin.run(0x0d, nsid=1, cdw=(1,)).status == 2


def test_protected_namespaces_are_not_deleted(m):
    """8.12: with or without its name; nothing else goes with it then."""
    assert m.a.set_feature(0x84, 1, nsid=2).status == 0
    assert [m.a.admin.run(0x0d, nsid=i, cdw=(1,)).status for i in (2, 0xffffffff)] == [0x20, 0x20] and ids(m.a.identify(2)) == [1, 2]
    assert m.a.set_feature(0x84, 0, nsid=2).status == 0 and m.a.admin.run(0x0d, nsid=2, cdw=(1,)).status == 0


def test_formats_beyond_sixteen(tmp_path):
    """Only hosts that say so (LBAFEE, 5.27.1.18) see them, may format to them, and reach blocks of them. An option's format is within the 16."""
    with NvmeMachine(tmp_path, "-blockdev", "driver=null-co,node-name=d,size=8M,read-zeroes=on", "-device", "nvme,serial=L,id=l,addr=1",
                     "-device", "nvme-ns,bus=l,drive=d,nsid=1,ms=32") as m:
        n = m.nvme(1).enable()
        io, buf = n.io_queue(), n.alloc()

        def extended(on):
            n.q.write(buf, bytes([0, 0, on]).ljust(512, b"\0"))
            assert n.set_feature(0x16, 0, prp1=buf).status == 0

        def formats():
            b = n.identify(0, nsid=1)
            assert not any(b[128 + 4 * (b[25] + 1):384])
            return b[25] + 1, b[26], struct.unpack_from("<HB", b, 128 + 4 * (b[26] & 15 | b[26] >> 5 << 4))

        def read_one():
            return io.run(2, 1, prp1=n.alloc(0x10000), prp2=n.prp_list(n.alloc(0x10000), 0xf000), mptr=n.alloc(), cdw=(0, 0, 0)).status

        assert formats() == (16, 15, (32, 9)) and read_one() == 0
        assert n.admin.run(0x80, 1, cdw=(1 << 12,)).status == 0x10a
        extended(1)
        assert formats() == (17, 15, (32, 9)) and n.admin.run(0x80, 1, cdw=(1 << 12 | 1,)).status == 0x10a
        assert n.admin.run(0x80, 1, cdw=(1 << 12,)).status == 0 and formats() == (17, 1 << 5, (64, 16)) and read_one() == 0
        extended(0)
        assert n.identify(0, nsid=1)[25:27] == bytes([15, 1 << 5]) and read_one() == 0x0b
        assert n.admin.run(0x80, 1, cdw=(0,)).status == 0 and formats() == (16, 0, (0, 9)) and read_one() == 0


def test_format(m):
    io = m.a.io_queue()
    assert write(io, 1, 0, b"\x55" * 4096).status == 0
    assert m.a.admin.run(0x80, nsid=1, cdw=(4,)).status == 0
    b = m.a.identify(0, nsid=1)
    assert b[26] == 4 and struct.unpack_from("<Q", b)[0] == 4096 and read(io, 1, 0, 1, size=4096) == bytes(4096)
    for lbaf, shift in ((8, 10), (10, 13), (13, 16)):
        assert m.a.admin.run(0x80, nsid=1, cdw=(lbaf,)).status == 0
        assert struct.unpack_from("<Q", m.a.identify(0, nsid=1))[0] == 16 * MIB >> shift
        data = os.urandom(1 << shift)
        assert write(io, 1, 3, data, size=1 << shift).status == 0 and read(io, 1, 3, 1, size=1 << shift) == data
    assert m.a.admin.run(0x80, nsid=1, cdw=(1 | 1 << 5,)).status == 0                 # 8 bytes of metadata, type 1
    buf = m.a.alloc()
    assert rw(io, 2, 1, 5, 1, buf, control=15 << 10, cdw=(0, 5, 0)).status == 0          # unwritten blocks pass
    assert m.a.admin.run(0x80, nsid=1, cdw=(1 << 5,)).status == 0x10a and m.a.admin.run(0x80, nsid=1, cdw=(15 | 1 << 12,)).status == 0x10a
    assert m.a.admin.run(0x80, nsid=1, cdw=(3 << 9,)).status == 0x10a and m.a.admin.run(0x80, nsid=7).status == 2
    assert m.a.admin.run(0x80, nsid=0xffffffff, cdw=(0,)).status == 0
    assert m.a.identify(0, nsid=1)[26] == 0 == m.a.identify(0, nsid=2)[26]


@pytest.mark.parametrize("cdw10,pattern", [(2, 0), (4, 0), (3 | 2 << 4 | 1 << 8, 0x11223344)])
def test_sanitize(m, cdw10, pattern):
    io = m.a.io_queue()
    assert write(io, 1, 100, b"\x55" * 4096).status == 0
    m.a.set_feature(0x0b, 0x100)
    aer = m.a.admin.submit(0x0c)
    sane = m.a.admin.submit(0x84, cdw=(cdw10, pattern))
    seen = {}
    while len(seen) < 2:
        c = m.a.admin.poll()
        seen[c.cid] = c
    assert seen[sane].status == 0 and seen[aer].result & 0xffffff == 0x810106
    log = m.a.log(0x81, 512)
    assert struct.unpack_from("<HHI", log) == (65535, 1, cdw10)
    want = struct.pack("<I", pattern) * 128 if cdw10 & 7 == 3 else bytes(512)
    assert read(io, 1, 100, 1) == want
    assert m.a.admin.run(0x84, cdw=(0,)).status == 2 and m.a.admin.run(0x84, cdw=(1,)).status == 0


def host_id(n, value):
    buf = n.alloc()
    n.q.write(buf, struct.pack("<QQ", value, 0))
    assert n.set_feature(0x81, 1, prp1=buf).status == 0


def resv(io, op, nsid, cdw10, a, b=0):
    buf = io.nvme.alloc()
    io.nvme.q.write(buf, struct.pack("<QQ", a, b))
    return io.run(op, nsid, prp1=buf, cdw=(cdw10,)).status


def test_reservations(m):
    a, b = m.a.io_queue(), m.b.io_queue()
    assert resv(a, 0x0d, 1, 0, 0, 1) == 0x0c                # no host identifier
    host_id(m.a, 1)
    host_id(m.b, 2)
    assert resv(a, 0x0d, 1, 0, 0, 0x111) == 0 and resv(b, 0x0d, 1, 0, 0, 0x222) == 0 and resv(a, 0x0d, 1, 0, 0, 0x112) == 0x83
    assert resv(a, 0x11, 1, 1 << 8, 0x999) == 0x83 and resv(a, 0x11, 1, 1 << 8, 0x111) == 0
    assert write(b, 1, 0, bytes(512)).status == 0x83 and write(a, 1, 0, bytes(512)).status == 0 and read(b, 1, 0, 1) == bytes(512)
    assert resv(b, 0x11, 1, 2 << 8, 0x222) == 0x83
    m.a.set_feature(0x0b, 0)
    aer = m.a.admin.submit(0x0c)
    assert resv(b, 0x11, 1, 1 | 2 << 8, 0x222, 0x111) == 0     # preempted, exclusive access
    c = m.a.admin.poll()
    assert c.cid == aer and c.result & 0xffffff == 0x800006
    log = m.a.log(0x80, 64)
    assert log[8] == 3 and struct.unpack_from("<I", log, 12)[0] == 1
    assert read(a, 1, 0, 1).status == 0x83 and write(b, 1, 0, bytes(512)).status == 0
    buf = m.b.alloc()
    assert b.run(0x0e, 1, prp1=buf, cdw=(1023, 1)).status == 0
    rep = m.b.q.read(buf, 128)
    assert rep[4] == 2 and struct.unpack_from("<H", rep, 5)[0] == 1
    assert struct.unpack_from("<HB", rep, 64) == (1, 1) and struct.unpack_from("<QQ", rep, 72) == (0x222, 2)
    assert b.run(0x0e, 1, prp1=buf, cdw=(15, 0)).status == 0x18
    assert resv(b, 0x15, 1, 3 << 8, 0x222) == 2 and resv(b, 0x15, 1, 2 << 8, 0x222) == 0 and read(a, 1, 0, 1) == bytes(512)
    assert resv(b, 0x0d, 1, 1, 0x222) == 0 and resv(b, 0x11, 1, 1 << 8, 0x222) == 0x83


def test_registrants_share(m):
    a, b = m.a.io_queue(), m.b.io_queue()
    host_id(m.a, 1)
    host_id(m.b, 2)
    assert resv(a, 0x0d, 1, 0, 0, 1) == 0 and resv(a, 0x11, 1, 6 << 8, 1) == 0
    assert read(b, 1, 0, 1).status == 0x83
    assert resv(b, 0x0d, 1, 0, 0, 2) == 0 and write(b, 1, 0, bytes(512)).status == 0
    assert resv(a, 0x0d, 1, 1, 1) == 0 and read(a, 1, 0, 1).status == 0x83
    assert resv(b, 0x15, 1, 1, 2) == 0 and read(a, 1, 0, 1) == bytes(512)


def test_asymmetric_access(m):
    a, b = m.a.io_queue(), m.b.io_queue()
    m.b.set_feature(0x0b, 1 << 11)
    aer = m.b.admin.submit(0x0c)
    m.qmp.cmd("qom-set", path="/machine/peripheral/b", property="ana-state", value="inaccessible")
    c = m.b.admin.poll()
    assert c.cid == aer and c.result & 0xffffff == 0x0c0302
    assert read(b, 1, 0, 1).status == 0x302 and read(a, 1, 0, 1) == bytes(512)
    log = m.b.log(0x0c, 16 + 36)
    assert struct.unpack_from("<H", log, 8)[0] == 8 and struct.unpack_from("<II", log, 16) == (1, 1) and log[32] == 3
    m.qmp.cmd("qom-set", path="/machine/peripheral/b", property="ana-state", value="optimized")
    assert read(b, 1, 0, 1) == bytes(512)


def test_self_test(m):
    m.a.q.step(1)
    assert m.a.admin.run(0x14, nsid=0xffffffff, cdw=(1,)).status == 0 and m.a.admin.run(0x14, cdw=(1,)).status == 0x11d
    m.a.q.step(1000000000)
    log = m.a.log(6, 564)
    assert log[0] == 1 and log[1] == 50 and log[4] == 15
    m.a.q.step(1100000000)
    log = m.a.log(6, 564)
    assert log[0] == 0 and log[4] == 0x10
    assert m.a.admin.run(0x14, cdw=(2,)).status == 0 and m.a.admin.run(0x14, cdw=(15,)).status == 0
    log = m.a.log(6, 564)
    assert log[4] == 0x21 and log[32] == 0x10
    assert m.a.admin.run(0x14, cdw=(7,)).status == 2 and m.a.admin.run(0x14, nsid=99, cdw=(1,)).status == 2


def test_firmware(m):
    n, buf = m.a, m.a.alloc(8192)
    rev = n.identify(1)[64:72]
    n.q.write(buf, b"NEWFW1.0" + bytes(8000))
    assert n.admin.run(0x10, cdw=(2 | 1 << 3,)).status == 0x107
    assert n.admin.run(0x11, prp1=buf, prp2=buf + PAGE, cdw=(1023, 0)).status == 0
    assert n.admin.run(0x11, prp1=buf, cdw=(1023, 4096)).status == 0x114
    assert n.admin.run(0x11, prp1=buf + PAGE, cdw=(1023, 1024)).status == 0
    assert n.admin.run(0x10, cdw=(1 | 1 << 3,)).status == 0x106
    assert n.admin.run(0x10, cdw=(2 | 1 << 3,)).status == 0x111 and n.identify(1)[64:72] == rev
    log = n.log(3, 512)
    assert log[0] == 0x21 and log[16:24] == b"NEWFW1.0"
    n.disable()
    n.enable()
    assert n.identify(1)[64:72] == b"NEWFW1.0"
    assert n.admin.run(0x10, cdw=(1 | 3 << 3,)).status == 0 and n.identify(1)[64:72] == rev


def test_admin_only_command_set(m):
    n = m.a
    n.disable()
    n.next = n.mem
    n.enable(cc=0x00460001 | 7 << 4)
    assert n.identify(1)[4:5] == b"A"


@pytest.fixture(name="z")
def zoned(tmp_path):
    args = ["-device", "nvme,serial=Z,id=z,addr=1", "-drive", image(tmp_path, "zd", 8 * MIB), "-device",
            "nvme-ns,bus=z,drive=zd,nsid=1,zoned=on,zoned.zone_size=1M,zoned.zone_capacity=512K,zoned.max_active=3,zoned.max_open=2,"
            "zoned.descr_ext_size=64,zoned.numzrwa=1,zoned.zrwas=32K,zoned.zrwafg=4K"]
    with NvmeMachine(tmp_path, *args) as m:
        n = m.nvme(1).enable(cc=0x00460001 | 6 << 4)
        yield n.io_queue()


def report(io, slba=0, ra=0, filt=0, partial=1, size=PAGE):
    buf = io.nvme.alloc(size)
    c = io.run(0x7a, 1, prp1=buf, cdw=(slba, 0, size // 4 - 1, ra | filt << 8 | partial << 16))
    assert c.status == 0, c
    raw = io.nvme.q.read(buf, size)
    each = 64 + (64 if ra else 0)
    zones = [struct.unpack_from("<BBB5xQQQ", raw, 64 + each * i) for i in range(min(struct.unpack_from("<Q", raw)[0], (size - 64) // each))]
    return struct.unpack_from("<Q", raw)[0], [(z[1] >> 4, z[5], z[2]) for z in zones], raw


def send(io, slba, action, every=0, zrwa=0, prp1=0):
    return io.run(0x79, 1, prp1=prp1, cdw=(slba, 0, 0, action | every << 8 | zrwa << 9)).status


def test_zoned_identify(z):
    n = z.nvme
    assert ids(n.identify(7, csi=2)) == [1] and ids(n.identify(7, csi=0)) == [] and n.identify(7, csi=9).status == 2
    assert n.identify(3, nsid=1)[20:25] == b"\x04\x01\0\0\x02"
    b = n.identify(5, nsid=1, csi=2)
    assert struct.unpack_from("<II", b, 4) == (2, 1) and struct.unpack_from("<QB", b, 2816) == (2048, 1)
    assert struct.unpack_from("<Q", n.identify(0, nsid=1)) == (16384,) and struct.unpack_from("<Q", n.identify(0, nsid=1), 8) == (8192,)


def test_zone_writes(z):
    assert report(z)[1] == [(1, i * 2048, 0) for i in range(8)]
    assert write(z, 1, 0, bytes(4096)).status == 0 and report(z)[1][0] == (2, 8, 0)
    assert write(z, 1, 0, bytes(512)).status == 0x1bc and write(z, 1, 9, bytes(512)).status == 0x1bc
    assert write(z, 1, 8, b"\x01" * 512).status == 0
    assert write(z, 1, 2048 + 1020, bytes(512)).status == 0x1bc
    assert read(z, 1, 2040, 16).status == 0x1b8 and read(z, 1, 1500, 1) == bytes(512)
    c = z.run(0x7d, 1, prp1=z.nvme.alloc(), cdw=(0, 0, 1))
    assert c.status == 0 and c.result == 9 and report(z)[1][0] == (2, 11, 0)
    assert z.run(0x7d, 1, prp1=z.nvme.alloc(), cdw=(8, 0, 0)).status == 2
    for at in range(11, 1024, 128):
        assert write(z, 1, at, bytes(512 * min(128, 1024 - at))).status == 0
    assert report(z)[1][0] == (14, (1 << 64) - 1, 0)
    assert write(z, 1, 1024, bytes(512)).status == 0x1b9
    assert send(z, 0, 4) == 0 and report(z)[1][0] == (1, 0, 0) and read(z, 1, 8, 1) == bytes(512)
    assert write(z, 1, 0, bytes(512 * 1025), size=512).status == 2 or True
    assert z.run(9, 1, prp1=z.nvme.alloc(), cdw=(0, 4)).status == 0


def test_zone_states_and_limits(z):
    assert send(z, 0, 3) == 0 and send(z, 2048, 3) == 0 and send(z, 4096, 3) == 0x1be
    assert send(z, 0, 1) == 0 and report(z)[1][0][0] == 1           # closed without data: empty
    assert write(z, 1, 0, bytes(512)).status == 0 and send(z, 0, 1) == 0 and report(z)[1][0] == (4, 1, 0)
    assert write(z, 1, 4096, bytes(512)).status == 0
    assert write(z, 1, 6144, bytes(512)).status == 0x1bd            # three are active
    assert send(z, 4096, 2) == 0 and report(z)[1][2][0] == 14
    assert write(z, 1, 6144, bytes(512)).status == 0
    assert write(z, 1, 1, bytes(512)).status == 0 and [x[0] for x in report(z)[1]][:4] == [2, 3, 14, 4]    # one was closed for it
    assert send(z, 1, 3) == 2 and send(z, 99999, 3) == 0x80 and send(z, 0, 5) == 0x1bf and send(z, 0, 9) == 2
    assert report(z, filt=4)[0] == 1 and report(z, filt=1, partial=0)[0] == 4 and report(z, slba=10240)[0] == 3
    assert send(z, 0, 4, every=1) == 0 and all(s == 1 for s, _, _ in report(z)[1])


def test_zone_descriptor_extensions(z):
    buf = z.nvme.alloc()
    z.nvme.q.write(buf, b"\x5a" * 64)
    assert send(z, 2048, 0x10, prp1=buf) == 0
    _, zones, raw = report(z, ra=1)
    assert zones[1] == (4, 2048, 0x80) and raw[64 + 128 + 64:64 + 256] == b"\x5a" * 64
    assert send(z, 2048, 0x10, prp1=buf) == 0x1bf
    assert send(z, 2048, 4) == 0 and report(z)[1][1] == (1, 2048, 0)


def test_random_write_area(z):
    assert send(z, 0, 3, zrwa=1) == 0 and report(z)[1][0] == (3, 0, 8)
    assert write(z, 1, 8, bytes(512)).status == 0 and write(z, 1, 0, bytes(512)).status == 0 and report(z)[1][0][1] == 0
    assert send(z, 15, 0x11) == 0 and report(z)[1][0][1] == 16
    assert write(z, 1, 8, bytes(512)).status == 0x1bc
    assert write(z, 1, 80, bytes(512)).status == 0 and report(z)[1][0][1] == 24      # moved by itself
    assert send(z, 2048, 3, zrwa=1) == 0x1bf and send(z, 25, 0x11) == 2


@pytest.fixture(name="f")
def placement(tmp_path):
    args = ["-device", "nvme-subsys,id=ss,fdp=on,fdp.runs=1M,fdp.nrg=2,fdp.nruh=4", "-device", "nvme,serial=F,id=f,subsys=ss,addr=1",
            "-drive", image(tmp_path, "fd", 8 * MIB), "-device", "nvme-ns,bus=f,drive=fd,nsid=1,fdp.ruhs=0;2-3"]
    with NvmeMachine(tmp_path, *args) as m:
        yield m.nvme(1).enable().io_queue()


def ruhs(io):
    buf = io.nvme.alloc()
    assert io.run(0x12, 1, prp1=buf, cdw=(1, 1023)).status == 0
    raw = io.nvme.q.read(buf, 512)
    return [struct.unpack_from("<HHIQ", raw, 16 + 32 * i)[:2] + struct.unpack_from("<Q", raw, 24 + 32 * i)
            for i in range(struct.unpack_from("<H", raw, 14)[0])]


def test_placement(f):
    n = f.nvme
    assert n.feature(0x1d, cdw11=1).result & 1 == 1 and n.set_feature(0x1d, 1, cdw12=0).status == 0x0c
    assert struct.unpack_from("<I", n.identify(1), 96)[0] >> 19 & 1
    assert [r[:2] for r in ruhs(f)] == [(0, 0), (0x8000, 0), (1, 2), (0x8001, 2), (2, 3), (0x8002, 3)]
    assert all(r[2] == 2048 for r in ruhs(f))
    buf = n.alloc()
    assert rw(f, 1, 1, 0, 8, buf, control=2 << 4, cdw=(0x8001 << 16,)).status == 0
    assert rw(f, 1, 1, 0, 8, buf).status == 0 and rw(f, 1, 1, 0, 8, buf, control=1 << 4).status == 2
    assert [r[2] for r in ruhs(f)] == [2040, 2048, 2048, 2040, 2048, 2048]
    assert struct.unpack_from("<QQQ", n.log(0x22, 64, lsi=1)) == (8192, 0, 8192)
    assert n.log(0x22, 64).status == 2
    ev = n.alloc()
    n.q.write(ev, b"\x00\x03")
    assert n.set_feature(0x1e, 2 << 16 | 1, nsid=1, prp1=ev, cdw12=1).status == 0
    n.q.write(buf, struct.pack("<H", 0x8001))
    assert f.run(0x1d, 1, prp1=buf, cdw=(1,)).status == 0 and [r[2] for r in ruhs(f)][3] == 2048
    log = n.log(0x23, 128, lsi=1)
    assert struct.unpack_from("<I", log)[0] == 1 and log[64] == 0 and struct.unpack_from("<H", log, 66)[0] == 0x8001
    cfg = n.log(0x20, 128, lsi=1)
    assert struct.unpack_from("<HBxIHQ", cfg, 16)[:2] == (64 + 16, 0x81) and struct.unpack_from("<Q", cfg, 32)[0] == MIB
    assert n.log(0x21, 40, lsi=1)[8] == 1


def test_directives(f):
    n, buf = f.nvme, f.nvme.alloc()
    assert n.admin.run(0x1a, nsid=1, prp1=buf, cdw=(1023, 1)).status == 0
    b = n.q.read(buf, 96)
    assert b[0] == 7 and b[32] == 5 and b[64] == 4
    assert n.admin.run(0x1a, nsid=1, prp1=buf, cdw=(1023, 1 | 1 << 8)).status == 2


def test_options_switch_parts_off(tmp_path):
    with NvmeMachine(tmp_path, "-drive", image(tmp_path, "o", MIB), "-device", "nvme,drive=o,serial=O,addr=1,dbcs=off,ocp=off,vsl=1,msix-exclusive-bar=on") as m:
        n = m.nvme(1).enable()
        buf = n.alloc(8192)
        assert not struct.unpack_from("<H", n.identify(1), 256)[0] >> 8 & 1 and n.admin.run(0x7c, prp1=buf, prp2=buf + PAGE).status == 1
        assert n.log(0xc0, 512).status == 0x109 and n.log(0, 1024)[0xc0 * 4] == 0
        io = n.io_queue()
        assert n.identify(6)[0] == 1 and io.run(0x0c, 1, cdw=(0, 0, 16)).status == 2 and io.run(0x0c, 1, cdw=(0, 0, 15)).status == 0
        at = m.q.readl(n.cfg + 0x34) & 0xff
        while m.q.readl(n.cfg + at) & 0xff != 0x11:
            at = m.q.readl(n.cfg + at) >> 8 & 0xff
        assert m.q.readl(n.cfg + at + 4) & 7 == 4


def test_host_memory_buffer(tmp_path):
    with NvmeMachine(tmp_path, "-device", "nvme,serial=H,addr=1,hmb=64") as m:
        n = m.nvme(1).enable()
        assert struct.unpack_from("<II", n.identify(1), 272) == (64, 16)
        lst, mem = n.alloc(), n.alloc(64 * PAGE)
        n.q.write(lst, struct.pack("<QIIQII", mem, 32, 0, mem + 32 * PAGE, 32, 0))
        assert n.set_feature(0x0d, 1, cdw12=64, cdw13=lst & 0xffffffff, cdw14=lst >> 32, cdw15=1).status == 2
        assert n.set_feature(0x0d, 1, cdw12=64, cdw13=lst & 0xffffffff, cdw14=lst >> 32, cdw15=2).status == 0
        assert n.set_feature(0x0d, 1, cdw12=64, cdw13=lst & 0xffffffff, cdw14=lst >> 32, cdw15=2).status == 0x0c
        buf = n.alloc()
        c = n.feature(0x0d, prp1=buf)
        assert c.result == 1 and struct.unpack("<IQI", n.q.read(buf, 16)) == (64, lst, 2)
        assert n.set_feature(0x0d, 0).status == 0


def test_queues_of_every_class_are_served(tmp_path):
    """Weighted round robin: an urgent and a low queue, both filled; neither starves."""
    with NvmeMachine(tmp_path, "-drive", image(tmp_path, "w", MIB), "-device", "nvme,drive=w,serial=W,addr=1") as m:
        n = m.nvme(1).enable(cc=0x00460001 | 1 << 11)
        urgent, low = n.io_queue(1, prio=0), n.io_queue(2, prio=3)
        buf = n.alloc()
        for io in (urgent, low):
            for i in range(20):
                io.submit(2, 1, prp1=buf, cdw=(i, 0, 0), ring=False)
        low.ring()
        urgent.ring()
        assert all(io.poll().status == 0 for io in (urgent, low) for _ in range(20))


def test_a_namespace_is_plugged_and_unplugged(m, tmp_path):
    """While the machine runs: a new shared namespace comes to both controllers and goes again, with reads in flight."""
    m.b.set_feature(0x0b, 0x100)
    aer = m.b.admin.submit(0x0c)
    image(tmp_path, "d9", 4 * MIB)
    m.qmp.cmd("blockdev-add", **{"driver": "file", "filename": str(tmp_path / "d9"), "node_name": "d9"})
    m.qmp.cmd("device_add", driver="nvme-ns", id="ns9", bus="a", drive="d9", nsid=9)
    c = m.b.admin.poll()
    assert c.cid == aer and c.result & 0xffffff == 0x040002 and ids(m.b.log(4, 4096)) == [9]
    assert ids(m.b.identify(2)) == [1, 9]
    io = m.b.io_queue()
    data = os.urandom(4096)
    assert write(io, 9, 0, data).status == 0 and read(m.a.io_queue(), 9, 0, 8) == data
    buf = m.b.alloc()
    for _ in range(32):
        io.submit(2, 9, prp1=buf, cdw=(0, 0, 0))
    m.qmp.cmd("device_del", id="ns9")
    m.qmp.wait_event("DEVICE_DELETED")
    assert {io.poll().status for _ in range(32)} <= {0, 2}
    assert ids(m.b.identify(2)) == [1] and read(io, 9, 0, 1).status == 2
    m.qmp.cmd("blockdev-del", node_name="d9")


@pytest.mark.parametrize("opts,words", [
    ("pi=1", "metadata"), ("nsid=257", "nsid"), ("nguid=12", "nguid"), ("zoned=on,zoned.zone_size=1000", "multiples"),
    ("zoned=on,zoned.zone_size=1G", "less than one zone"), ("fdp.ruhs=1", "fdp"), ("logical_block_size=131072", "65536"),
    ("zoned=on,zoned.max_open=2,zoned.max_active=1,zoned.zone_size=64K", "max_open"),
])
def test_wrong_options_are_named(tmp_path, opts, words):
    status, _, err = run("-M", "virt", "-drive", image(tmp_path, "d", MIB), "-device", "nvme,serial=A,id=a", "-device", "nvme-ns,bus=a,drive=d," + opts)
    assert status == 1 and words in err, err


def test_two_namespaces_with_one_id(tmp_path):
    status, _, err = run("-M", "virt", "-drive", image(tmp_path, "d", MIB), "-drive", image(tmp_path, "e", MIB), "-device", "nvme,serial=A,id=a",
                         "-device", "nvme-ns,bus=a,drive=d,nsid=4", "-device", "nvme-ns,bus=a,drive=e,nsid=4")
    assert status == 1 and "namespace id 4" in err, err


def test_a_reset_while_a_namespace_is_deleted(tmp_path):
    """Deleting waits for the namespace's commands also where the controller that deletes is reset meanwhile."""
    with NvmeMachine(tmp_path, "-object", "throttle-group,id=g,x-iops-write=5", "-drive", image(tmp_path, "z", 8 * MIB),
                     "-blockdev", "throttle,node-name=slow,throttle-group=g,file=z", "-device", "nvme,serial=Z,id=n0,addr=1",
                     "-device", "nvme-ns,bus=n0,drive=slow,nsid=1,kv=on") as m:
        n = m.nvme(1).enable(cc=0x00460061)
        io, buf = n.io_queue(), n.alloc()
        for key in range(4):                                    # one has the store, the others wait for it
            io.submit(1, 1, prp1=buf, cdw2=key, cdw=(100, 4))
        n.admin.submit(0x0d, 1, cdw=(1,))
        assert n.readl(0x1c) & 1                                # the doorbells are served
        n.writel(0x14, 0x00460060)
        for _ in range(100):
            m.q.step(100_000_000)
            if not n.readl(0x1c) & 1:
                break
        n.wait(0x1c, 1, 0)
        n.enable(cc=0x00460061)
        assert n.identify(2)[:4] == bytes(4)
