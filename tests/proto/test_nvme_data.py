# SPDX-License-Identifier: MIT
"""NVMe formats with metadata and protection information, copy, fused pairs, unreadable blocks."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import PAGE, NvmeMachine, read, rw, write

GUARD, APPTAG, REFTAG, INVALID_PI = 0x282, 0x283, 0x284, 0x181


def crc16(data):
    r = 0
    for b in data:
        r ^= b << 8
        for _ in range(8):
            r = (r << 1 ^ 0x8bb7 if r & 0x8000 else r << 1) & 0xffff
    return r


@pytest.fixture(name="m", scope="module")
def machine(tmp_path_factory):
    """Namespace 1: plain; 2: 8 bytes apart, type 1; 3: 64 bytes with each block, type 2; 4: 16 bytes apart, type 3, 64-bit guard."""
    tmp = tmp_path_factory.mktemp("nvme")
    args = ["-device", "nvme,serial=S1,id=n0,addr=1"]
    for i, opts in enumerate(("", ",ms=8,pi=1", ",ms=64,mset=1,pi=2", ",ms=16,pi=3,pif=2", ",logical_block_size=4096"), 1):
        img = str(tmp / ("img%d" % i))
        with open(img, "wb") as f:
            f.truncate(4 << 20)
        args += ["-drive", "file=%s,format=raw,if=none,id=d%d,discard=unmap" % (img, i), "-device", "nvme-ns,bus=n0,drive=d%d,nsid=%d%s" % (i, i, opts)]
    with NvmeMachine(tmp, *args) as m:
        yield m


@pytest.fixture(name="io")
def io_queue(m):
    n = m.nvme(1)
    n.disable()
    return n.enable().io_queue()


def test_formats_are_told(io):
    n = io.nvme
    for nsid, ms, dps, extended in ((1, 0, 0, 0), (2, 8, 1, 0), (3, 64, 2, 1), (4, 16, 3, 0)):
        b = n.identify(0, nsid=nsid)
        lbaf = struct.unpack_from("<I", b, 128 + 4 * (b[26] & 15))[0]
        assert lbaf & 0xffff == ms and lbaf >> 16 & 0xff == 9 and b[29] & 7 == dps and b[26] >> 4 & 1 == extended
        assert struct.unpack_from("<Q", b)[0] == (4 << 20) // (512 + ms)
    e = n.identify(5, nsid=4)
    assert struct.unpack_from("<I", e, 12 + 4 * (n.identify(0, nsid=4)[26] & 15))[0] >> 7 & 3 == 2


def rw_meta(io, op, nsid, slba, nlb, meta, data=None, prinfo=0, ref=0, app=0, mask=0xffff):
    """One command with metadata in a buffer of its own."""
    n = io.nvme
    buf, mbuf = n.alloc(nlb * 512), n.alloc(len(meta))
    if data:
        n.q.write(buf, data)
    n.q.write(mbuf, meta)
    c = rw(io, op, nsid, slba, nlb, buf, control=prinfo << 10, mptr=mbuf, cdw=(0, ref, mask << 16 | app))
    return c, n.q.read(buf, nlb * 512), n.q.read(mbuf, len(meta))


def test_the_controller_makes_and_strips_tuples(io):
    """PRACT with eight bytes of metadata: nothing but data crosses the bus."""
    data = os.urandom(1024)
    buf = io.nvme.alloc()
    io.nvme.q.write(buf, data)
    assert rw(io, 1, 2, 100, 2, buf, control=8 << 10, cdw=(0, 100, 0xffff1234)).status == 0
    c, got, meta = rw_meta(io, 2, 2, 100, 2, bytes(16), prinfo=7, ref=100, app=0x1234)
    assert c.status == 0 and got == data
    want = b"".join(struct.pack(">HHI", crc16(data[i * 512:i * 512 + 512]), 0x1234, 100 + i) for i in range(2))
    assert meta == want
    buf2 = io.nvme.alloc()
    assert rw(io, 2, 2, 100, 2, buf2, control=15 << 10, cdw=(0, 100, 0xffff1234)).status == 0
    assert io.nvme.q.read(buf2, 1024) == data


def test_checks_of_type_1(io):
    data = os.urandom(512)
    good = struct.pack(">HHI", crc16(data), 7, 300)
    assert rw_meta(io, 1, 2, 300, 1, good, data, 7, 300, 7)[0].status == 0
    assert rw_meta(io, 1, 2, 300, 1, b"\0\1" + good[2:], data, 7, 300, 7)[0].status == GUARD
    assert rw_meta(io, 1, 2, 300, 1, good, data, 7, 300, 8)[0].status == APPTAG
    assert rw_meta(io, 1, 2, 300, 1, good[:4] + b"\0\0\0\1", data, 7, 300, 7)[0].status == REFTAG
    assert rw_meta(io, 1, 2, 300, 1, good, data, 7, 301, 7)[0].status == INVALID_PI
    assert rw_meta(io, 1, 2, 300, 1, b"\0\1" + good[2:], data, 0)[0].status == 0          # kept as it is
    assert rw_meta(io, 2, 2, 300, 1, bytes(8), None, 4)[0].status == GUARD
    assert rw_meta(io, 1, 2, 300, 1, b"\0\1\xff\xff\0\0\0\0", data, 7, 300, 7)[0].status == 0    # application tag FFFFh: unchecked


def test_metadata_with_each_block(io):
    data, meta = os.urandom(512), os.urandom(56)
    block = data + meta + struct.pack(">HHI", crc16(data + meta), 0xabcd, 77)
    buf = io.nvme.alloc(2 * PAGE)
    io.nvme.q.write(buf, block)
    assert rw(io, 1, 3, 5, 1, buf, control=7 << 10, cdw=(0, 77, 0xffffabcd)).status == 0
    io.nvme.q.write(buf, bytes(576))
    assert rw(io, 2, 3, 5, 1, buf, control=7 << 10, cdw=(0, 77, 0xffffabcd)).status == 0
    assert io.nvme.q.read(buf, 576) == block
    io.nvme.q.write(buf + 512, b"\0" * 10)
    assert rw(io, 1, 3, 5, 1, buf, control=4 << 10).status == GUARD
    # several blocks, with tuples made by the controller
    io.nvme.q.write(buf, b"\x11" * 576 * 7)
    assert rw(io, 1, 3, 20, 7, buf, control=8 << 10, size=576, cdw=(0, 9, 0)).status == 0
    assert rw(io, 2, 3, 20, 7, buf, control=7 << 10, size=576, cdw=(0, 9, 0xffff0000)).status == 0
    got = io.nvme.q.read(buf, 576 * 7)
    for i in range(7):
        assert got[i * 576:i * 576 + 568] == b"\x11" * 568 and struct.unpack(">I", got[i * 576 + 572:i * 576 + 576])[0] == 9 + i


def test_type_3(io):
    data = os.urandom(512)
    assert rw_meta(io, 1, 4, 0, 1, bytes(16), data, 9)[0].status == INVALID_PI
    buf = io.nvme.alloc()
    io.nvme.q.write(buf, data)
    assert rw(io, 1, 4, 0, 1, buf, control=8 << 10, cdw=(0, 0x55, 0xffff0001), cdw3=2).status == 0
    c, got, meta = rw_meta(io, 2, 4, 0, 1, bytes(16), None, 6, 0, 1)
    assert c.status == 0 and got == data and meta[8:] == bytes.fromhex("0001" "000200000055")


def test_verify_and_compare_look_at_protection(io):
    data = os.urandom(512)
    assert rw_meta(io, 1, 2, 40, 1, struct.pack(">HHI", crc16(data) ^ 1, 0, 40), data, 0)[0].status == 0
    assert io.run(0x0c, 2, cdw=(40, 0, 4 << 26)).status == GUARD and io.run(0x0c, 2, cdw=(40, 0, 0)).status == 0
    assert io.run(0x0c, 2, cdw=(0xffffff, 0, 0)).status == 0x80
    assert rw_meta(io, 5, 2, 40, 1, bytes(8), data, 4)[0].status == GUARD
    assert rw_meta(io, 5, 2, 40, 1, bytes(8), data, 0)[0].status == 0


def test_write_zeroes_makes_tuples(io):
    assert io.run(8, 2, cdw=(60, 0, 3 | 8 << 26, 0, 60, 0xffff0005)).status == 0
    c, got, meta = rw_meta(io, 2, 2, 60, 4, bytes(32), None, 7, 60, 5)
    assert c.status == 0 and got == bytes(2048) and struct.unpack_from(">I", meta, 28)[0] == 63
    assert io.run(8, 2, cdw=(60, 0, 3)).status == 0
    assert rw_meta(io, 2, 2, 60, 4, bytes(32), None, 7, 60, 5)[2] == b"\xff" * 32     # not checked


def test_unreadable_blocks(io):
    assert io.run(4, 1, cdw=(1000, 0, 9)).status == 0
    assert read(io, 1, 1005, 1).status == 0x281 and read(io, 1, 995, 6).status == 0x281
    assert write(io, 1, 1004, bytes(512)).status == 0 and read(io, 1, 1004, 1) == bytes(512)
    buf = io.nvme.alloc()
    assert io.nvme.admin.run(0x86, nsid=1, prp1=buf, cdw=(0, 0, 1023, 0x10 << 24)).status == 0
    b = io.nvme.q.read(buf, 64)
    assert struct.unpack_from("<I", b)[0] == 2 and b[4] == 2
    assert struct.unpack_from("<QI", b, 8) == (1000, 4) and struct.unpack_from("<QI", b, 24) == (1005, 5)
    assert write(io, 1, 1000, bytes(5120)).status == 0
    assert io.nvme.admin.run(0x86, nsid=1, prp1=buf, cdw=(0, 0, 1023, 0x10 << 24)).status == 0
    assert io.nvme.q.readl(buf) == 0


def copy(io, nsid, dst, ranges, fmt=0, **kw):
    buf = io.nvme.alloc(8192)
    raw = b"".join(struct.pack("<IIQHHHHIHH", r[2] if len(r) > 2 else 0, 0, r[0], r[1] - 1, 0, 0, 0, kw.get("ref", 0), 0, 0) for r in ranges)
    io.nvme.q.write(buf, raw)
    return io.run(0x19, nsid, prp1=buf, prp2=buf + PAGE,
                  cdw=(dst, 0, len(ranges) - 1 | fmt << 8 | kw.get("prinfor", 0) << 12 | kw.get("prinfow", 0) << 26, 0, kw.get("wref", 0), 0))


def test_copy(io):
    data = os.urandom(64 * 512)
    assert write(io, 1, 200, data).status == 0
    assert copy(io, 1, 400, [(200, 10), (250, 14), (210, 1)]).status == 0
    assert read(io, 1, 400, 25) == data[:5120] + data[50 * 512:] + data[5120:5632]
    assert copy(io, 1, 400, [(0, 129)]).status == 0x183 and copy(io, 1, 400, [(0, 100), (0, 29)]).status == 0x183
    assert copy(io, 1, 8190, [(0, 3)]).status == 0x80 and copy(io, 1, 0, [(8190, 3)]).status == 0x80
    c = copy(io, 1, 600, [(200, 4), (1 << 60, 1)])
    assert c.status == 0x80 and c.result == 1 and read(io, 1, 600, 4) == data[:2048]


def test_copy_between_namespaces(io):
    n = io.nvme
    assert copy(io, 5, 0, [(0, 1, 1)], fmt=2).status == 2           # not enabled in Host Behavior
    buf = n.alloc()
    n.q.write(buf, b"\0\0\0\0\x04\0")
    assert n.set_feature(0x16, 0, prp1=buf).status == 0
    assert write(io, 1, 8, b"\x77" * 512).status == 0
    assert copy(io, 1, 9, [(8, 1, 1)], fmt=2).status == 0 and read(io, 1, 9, 1) == b"\x77" * 512
    assert copy(io, 5, 0, [(0, 1, 1)], fmt=2).status == 0x185        # another block size
    assert copy(io, 1, 0, [(0, 1, 77)], fmt=2).status == 2


def test_copy_with_protection(io):
    data = os.urandom(1024)
    buf = io.nvme.alloc()
    io.nvme.q.write(buf, data)
    assert rw(io, 1, 2, 500, 2, buf, control=8 << 10, cdw=(0, 500, 0)).status == 0
    assert copy(io, 2, 600, [(500, 2)], prinfor=5, ref=500, prinfow=8, wref=600).status == 0
    c, got, meta = rw_meta(io, 2, 2, 600, 2, bytes(16), None, 5, 600)
    assert c.status == 0 and got == data
    assert copy(io, 2, 600, [(500, 2)], prinfor=5, ref=501, prinfow=8, wref=600).status == REFTAG


def fused(io, slba, old, new, second=1):
    n = io.nvme
    a, b = n.alloc(), n.alloc()
    n.q.write(a, old)
    n.q.write(b, new)
    io.submit(5, 1, flags=1, prp1=a, cdw=(slba, 0, 0), ring=False)
    io.submit(second, 1, flags=2, prp1=b, cdw=(slba, 0, 0))
    return io.poll().status, io.poll().status


def test_fused_compare_and_write(io):
    assert write(io, 1, 77, b"\x01" * 512).status == 0
    assert fused(io, 77, b"\x01" * 512, b"\x02" * 512) == (0, 0) and read(io, 1, 77, 1) == b"\x02" * 512
    assert fused(io, 77, b"\x01" * 512, b"\x03" * 512) == (0x285, 9) and read(io, 1, 77, 1) == b"\x02" * 512
    assert fused(io, 77, b"\x02" * 512, b"\x03" * 512, second=8) == (2, 2)
    buf = io.nvme.alloc()
    io.submit(5, 1, flags=1, prp1=buf, cdw=(0, 0, 0), ring=False)
    io.submit(2, 1, prp1=buf, cdw=(0, 0, 0))
    assert io.poll().status == 0x0a and io.poll().status == 0
    assert io.run(1, 1, flags=2, prp1=buf, cdw=(0, 0, 0)).status == 0x0a


def test_deallocated_blocks_can_be_told(io):
    """DULBE: reading what was deallocated fails where the host asked for that."""
    n = io.nvme
    assert write(io, 5, 10, b"\x01" * 4096, size=4096).status == 0
    buf = n.alloc()
    n.q.write(buf, struct.pack("<IIQ", 0, 1, 10))
    assert io.run(9, 5, prp1=buf, cdw=(0, 4)).status == 0
    assert n.set_feature(5, 1 << 16, nsid=5).status == 0
    c = read(io, 5, 10, 1, size=4096)
    assert c.status == 0x287
    assert write(io, 5, 10, b"\x02" * 4096, size=4096).status == 0 and read(io, 5, 10, 1, size=4096) == b"\x02" * 4096
    assert n.set_feature(5, 0, nsid=5).status == 0


def test_doorbell_buffers(io):
    """With shadow doorbells, a tail that only memory knows is found when the queue is looked at."""
    n = io.nvme
    db, ei, buf = n.alloc(), n.alloc(), n.alloc()
    assert n.admin.run(0x7c, prp1=db + 8, prp2=ei).status == 2
    n.q.writel(db + 8, io.tail)
    n.q.writel(db + 12, io.head)
    assert n.admin.run(0x7c, prp1=db, prp2=ei).status == 0
    io.submit(2, 1, prp1=buf, cdw=(0, 0, 0), ring=False)
    io.submit(2, 1, prp1=buf, cdw=(1, 0, 0), ring=False)
    n.q.writel(db + 8, io.tail)
    n.writel(0x1008, (io.tail - 1) % io.size)           # the ring says one, the shadow two
    assert io.poll().status == 0 and io.poll().status == 0
    while n.q.readl(ei + 8) != io.tail:
        pass
