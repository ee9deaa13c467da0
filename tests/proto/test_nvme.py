# SPDX-License-Identifier: MIT
"""NVMe registers, queues, doorbells, data pointers: what a driver does right, and what it does wrong."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import PAGE, NvmeMachine, Queue, read, rw, write

INVALID_FIELD, LBA_RANGE = 0x02, 0x80
BAD = 0x7f0000000000                    # no memory there


@pytest.fixture(name="m", scope="module")
def machine(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("nvme")
    img = str(tmp / "img")
    with open(img, "wb") as f:
        f.truncate(16 << 20)
    with NvmeMachine(tmp, "-drive", "file=%s,format=raw,if=none,id=d,discard=unmap" % img, "-device", "nvme,drive=d,serial=S1,id=n0,addr=1") as m:
        m.img = img
        yield m


@pytest.fixture(name="n")
def controller(m):
    """Freshly enabled, whatever the last test did."""
    n = m.nvme(1)
    n.disable()
    return n.enable()


@pytest.fixture(name="io")
def io_queue(n):
    return n.io_queue()


def test_registers(m):
    n = m.nvme(1)
    n.disable()
    cap = n.readq(0)
    assert cap & 0xffff == 2047 and cap >> 16 & 1 and cap >> 32 & 15 == 0 and cap >> 37 & 0xff == 0xc1
    assert n.readl(0) | n.readl(4) << 32 == cap
    assert n.readl(8) == 0x20000 and n.readl(0x1c) == 0
    n.writel(0x28, 0xdead1fff)
    n.writel(0x2c, 0x1234)
    assert n.readq(0x28) == 0x1234dead1000
    n.writel(0x24, 0xffffffff)
    assert n.readl(0x24) == 0x0fff0fff


@pytest.mark.parametrize("cc", [0x00460001 | 15 << 7, 0x00460001 | 3 << 4, 0x00460001 | 5 << 11])
def test_enabling_with_what_is_not_offered_fails(m, cc):
    n = m.nvme(1)
    n.disable()
    n.writel(0x24, 0x001f001f)
    n.writel(0x14, cc)
    n.wait(0x1c, 3, 2)
    n.disable()


def test_admin_queue_of_one_entry_fails(m):
    n = m.nvme(1)
    n.disable()
    n.writel(0x24, 0)
    n.writel(0x14, 0x00460001)
    assert n.readl(0x1c) & 3 == 2
    n.disable()


def test_identify_controller(n):
    b = n.identify(1)
    assert b[4:24] == b"S1".ljust(20) and struct.unpack_from("<I", b, 80)[0] == 0x20000 and b[77] == 7
    assert b[512:514] == b"\x66\x44" and b[768:].startswith(b"nqn.2019-08.org.qemu:S1\0")


def test_identify_namespaces(n):
    b = n.identify(0, nsid=1)
    assert struct.unpack_from("<Q", b)[0] == 32768 and struct.unpack_from("<I", b, 128)[0] & 0xffffff == 9 << 16
    assert n.identify(2)[:8] == struct.pack("<II", 1, 0)
    assert n.identify(0, nsid=2) == bytes(PAGE)
    assert n.identify(0, nsid=0).status == 0x0b and n.identify(2, nsid=0xffffffff).status == 0x0b
    assert n.identify(3, nsid=1)[:2] == b"\x03\x10"
    c = n.identify(0x77)
    assert c.status == INVALID_FIELD and c.dnr


def test_write_then_read(io):
    data = os.urandom(64 * 1024)
    assert write(io, 1, 100, data).status == 0
    assert read(io, 1, 100, 128) == data
    assert read(io, 1, 101, 1) == data[512:1024]


def test_data_reaches_the_image(m, io):
    data = os.urandom(4096)
    assert write(io, 1, 5000, data).status == 0 and io.run(0, 1).status == 0
    with open(m.img, "rb") as f:
        f.seek(5000 * 512)
        assert f.read(4096) == data


def test_ranges(io):
    buf = io.nvme.alloc()
    assert rw(io, 2, 1, 32767, 1, buf).status == 0
    for slba, nlb in ((32768, 1), (32767, 2), (1 << 63, 1), ((1 << 64) - 1, 2)):
        c = rw(io, 2, 1, slba, nlb, buf)
        assert c.status == LBA_RANGE and c.dnr, (slba, nlb, c)
    assert rw(io, 2, 2, 0, 1, buf).status == INVALID_FIELD          # inactive
    assert rw(io, 2, 0, 0, 1, buf).status == 0x0b and rw(io, 2, 0xffffffff, 0, 1, buf).status == 0x0b
    assert rw(io, 2, 1, 0, 1025, buf).status == INVALID_FIELD       # more than MDTS


def test_unknown_commands(io):
    assert io.run(0xc1, 1).status == 1 and io.nvme.admin.run(0x7f).status == 1


def test_prp_offsets(io):
    buf = io.nvme.alloc(4 * PAGE)
    data = os.urandom(PAGE)
    io.nvme.q.write(buf + 0x100, data)
    c = io.run(1, 1, prp1=buf + 0x100, prp2=buf + PAGE, cdw=(7, 0, 7))
    assert c.status == 0 and read(io, 1, 7, 8) == data
    assert io.run(1, 1, prp1=buf + 1, prp2=buf + PAGE, cdw=(7, 0, 7)).status == 0x13
    assert io.run(1, 1, prp1=buf + 0x100, prp2=buf + PAGE + 8, cdw=(7, 0, 7)).status == 0x13


def test_prp_lists(io):
    """Lists that begin in the middle of a page and go on in the next one."""
    n, q = io.nvme, io.nvme.q
    data = os.urandom(64 * PAGE)
    pages = [n.alloc() for _ in range(64)]
    for i, p in enumerate(pages):
        q.write(p, data[i * PAGE:(i + 1) * PAGE])
    first, second = n.alloc(), n.alloc()
    at = first + PAGE - 8 * 20                      # 19 entries and a pointer
    q.write(at, struct.pack("<20Q", *pages[1:20], second))
    q.write(second, struct.pack("<44Q", *pages[20:]))
    assert io.run(1, 1, prp1=pages[0], prp2=at, cdw=(1000, 0, 511)).status == 0
    assert read(io, 1, 1000, 512) == data
    q.write(at, struct.pack("<Q", pages[1] + 4))
    assert io.run(1, 1, prp1=pages[0], prp2=at, cdw=(1000, 0, 511)).status == 0x13
    q.write(at, struct.pack("<Q", BAD))
    assert io.run(1, 1, prp1=pages[0], prp2=at, cdw=(1000, 0, 511)).status == 4
    assert io.run(1, 1, prp1=pages[0], prp2=BAD, cdw=(1000, 0, 511)).status == 4
    q.write(second - 0, struct.pack("<Q", pages[20]))
    q.write(at, struct.pack("<20Q", *pages[1:20], second + 8))
    assert io.run(1, 1, prp1=pages[0], prp2=at, cdw=(1000, 0, 511)).status == 0x13
    assert io.run(1, 1, prp1=BAD, cdw=(0, 0, 0)).status == 4


def sgl(addr, length, kind):
    return struct.pack("<QI3xB", addr, length, kind << 4)


def sgl_run(io, op, slba, nlb, desc):
    d = struct.unpack("<QQ", desc)
    return io.run(op, 1, flags=0x40, prp1=d[0], prp2=d[1], cdw=(slba, 0, nlb - 1))


def test_sgl(io):
    n, q = io.nvme, io.nvme.q
    data = os.urandom(8192)
    buf, seg, seg2 = n.alloc(16384), n.alloc(), n.alloc()
    q.write(buf, data)
    assert sgl_run(io, 1, 50, 16, sgl(buf, 8192, 0)).status == 0 and read(io, 1, 50, 16) == data
    # odd pieces, in two segments
    q.write(seg, sgl(buf + 1, 999, 0) + sgl(buf + 1000, 24, 0) + sgl(seg2, 32, 3))
    q.write(seg2, sgl(buf + 4096, 512, 0) + sgl(buf + 8000, 1, 0))
    assert sgl_run(io, 1, 70, 3, sgl(seg, 48, 2)).status == 0
    assert read(io, 1, 70, 3) == (data[1:1000] + data[1000:1024] + data[4096:4608] + data[8000:8001])
    for bad, status in ((sgl(buf, 100, 0), 0x0f), (sgl(buf, 512, 4), 0x11), (sgl(seg, 40, 2), 0x0d), (sgl(BAD, 512, 0), 4), (sgl(seg, 32, 3), 0x0f)):
        q.write(seg, sgl(buf, 100, 0) + sgl(buf, 100, 0))
        c = sgl_run(io, 1, 0, 1, bad)
        assert c.status == status, (bad.hex(), c)
    q.write(seg, sgl(seg, 16, 2))                   # an endless chain
    assert sgl_run(io, 1, 0, 1, sgl(seg, 16, 2)).status == 0x0d
    assert n.admin.run(6, flags=0x40, prp1=buf, prp2=4096, cdw=(1,)).status == INVALID_FIELD


def test_bad_queues(n):
    adm, buf = n.admin, n.alloc()
    assert adm.run(5, prp1=buf, cdw=(15 << 16 | 0, 1)).status == 0x101
    assert adm.run(5, prp1=buf, cdw=(15 << 16 | 65, 1)).status == 0x101
    assert adm.run(5, prp1=buf, cdw=(0 << 16 | 1, 1)).status == 0x102
    assert adm.run(5, prp1=buf, cdw=(2048 << 16 | 1, 1)).status == 0x102
    assert adm.run(5, prp1=buf + 8, cdw=(15 << 16 | 1, 1)).status == 0x13
    assert adm.run(5, prp1=buf, cdw=(15 << 16 | 1, 0)).status == INVALID_FIELD
    assert adm.run(5, prp1=buf, cdw=(15 << 16 | 1, 7 << 16 | 3)).status == 0x108
    assert adm.run(1, prp1=buf, cdw=(15 << 16 | 1, 1 << 16 | 1)).status == 0x100
    n.io_queue(1)
    assert adm.run(5, prp1=buf, cdw=(15 << 16 | 1, 1)).status == 0x101
    assert adm.run(4, cdw=(1,)).status == 0x10c     # a submission queue still completes there
    assert adm.run(0, cdw=(1,)).status == 0 and adm.run(0, cdw=(1,)).status == 0x101
    assert adm.run(4, cdw=(1,)).status == 0 and adm.run(0, cdw=(0,)).status == 0x101


def test_doorbells_of_queues_that_are_not_there(n):
    cid = n.admin.submit(0x0c)
    n.writel(0x1000 + 8 * 9, 1)
    c = n.admin.poll()
    assert c.cid == cid and c.result & 0xffffff == 0x010000     # error event, page 1, invalid doorbell register
    assert n.log(1, 64) is not None                 # lets the next one come
    cid = n.admin.submit(0x0c)
    n.io_queue(1)
    n.writel(0x1000 + 8, 0xffff)
    c = n.admin.poll()
    assert c.cid == cid and c.result & 0xffffff == 0x010100     # write value
    n.writel(0x10000 - 8, 1)                        # past the doorbells: nothing happens
    assert n.admin.run(6, prp1=n.alloc(), cdw=(1,)).status == 0


def test_more_event_requests_than_offered(n):
    cids = [n.admin.submit(0x0c) for _ in range(5)]
    c = n.admin.poll()
    assert c.cid == cids[4] and c.status == 0x105
    abort = n.admin.submit(8, cdw=(cids[0] << 16,))
    seen = {c.cid: c for c in (n.admin.poll(), n.admin.poll())}
    assert seen[cids[0]].status == 7 and seen[abort].status == 0 and seen[abort].result == 0


def test_completion_queue_runs_full(n):
    """Completions that find no room wait for the host; none is lost."""
    io = n.io_queue(size=8)
    buf = n.alloc()
    for i in range(7):
        io.submit(2, 1, prp1=buf, cdw=(i, 0, 0))
    seen = []
    for i in range(20):
        c = io.poll()
        seen.append(c.cid)
        io.submit(2, 1, prp1=buf, cdw=(i, 0, 0))
    seen += [io.poll().cid for _ in range(7)]
    assert sorted(seen) == list(range(1, 28))


def test_reset_with_requests_in_flight(n):
    for _ in range(10):
        io = n.io_queue()
        buf = n.alloc(0x10000)
        for i in range(32):
            io.submit(2, 1, prp1=buf, prp2=buf + PAGE, cdw=(i * 16, 0, 15), ring=i == 31)
        n.disable()
        n.next = n.mem
        n.enable()
    assert read(n.io_queue(), 1, 0, 1) is not None


def test_shutdown(n):
    n.writel(0x14, 0x00464001)
    n.wait(0x1c, 0xc, 8)


def test_subsystem_reset(n):
    n.writel(0x20, 0x4e564d65)
    n.wait(0x1c, 0x11, 0x10)
    n.writel(0x1c, 0x10)
    assert n.readl(0x1c) == 0 and n.readl(0x14) == 0


def test_function_level_reset(m, n):
    at = n.q.readl(n.cfg + 0x34) & 0xff
    while n.q.readl(n.cfg + at) & 0xff != 0x10:
        at = n.q.readl(n.cfg + at) >> 8 & 0xff
    n.q.writel(n.cfg + at + 8, 0x8000)
    for _ in range(1000):
        if n.q.readl(n.cfg) != 0xffffffff:
            break
    again = m.nvme(1)
    assert again.readl(0x14) == 0
    assert again.enable().identify(1)[4:6] == b"S1"


def test_abort(n):
    assert n.admin.run(8, cdw=(0x12340000,)).result == 1
    assert n.admin.run(8, cdw=(0x12340009,)).status == INVALID_FIELD


def test_features(n):
    assert n.feature(7).result == 63 | 63 << 16
    assert n.feature(1).result == 7 and n.feature(1, sel=3).result == 5
    assert n.set_feature(1, 0x01020303).status == 0 and n.feature(1).result == 0x01020303
    assert n.feature(1, sel=1).result == 7 and n.feature(1, sel=2).result == 7
    assert n.set_feature(1, 0x02020303, save=1).status == 0 and n.feature(1, sel=2).result == 0x02020303
    assert n.set_feature(7, 0, save=1).status == 0x10d
    assert n.set_feature(7, 0xffff).status == INVALID_FIELD
    assert n.set_feature(1, 7, nsid=1).status == 0x10f
    assert n.feature(0x7e).status == INVALID_FIELD and n.feature(1, sel=4).status == INVALID_FIELD
    assert n.set_feature(1, 7, save=1).status == 0
    n.io_queue(1)
    assert n.set_feature(7, 0).status == 0x0c


def test_saved_features_outlive_a_reset(n):
    assert n.set_feature(8, 0x0a03, save=1).status == 0 and n.set_feature(1, 3).status == 0
    n.disable()
    n.enable()
    assert n.feature(8).result == 0x0a03 and n.feature(1).result == 7
    assert n.set_feature(8, 0, save=1).status == 0


def test_timestamp_runs(n):
    buf = n.alloc()
    n.q.writeq(buf, 1000000)
    assert n.set_feature(0x0e, 0, prp1=buf).status == 0
    n.q.step(5000000000)
    assert n.feature(0x0e, prp1=buf).status == 0
    v = n.q.readq(buf)
    assert v & (1 << 48) - 1 == 1005000 and v >> 49 & 7 == 1


def test_keep_alive_that_does_not_come(n):
    assert n.set_feature(0x0f, 1000).status == 0
    n.q.step(900000000)
    assert n.admin.run(0x18).status == 0
    n.q.step(900000000)
    assert n.readl(0x1c) & 2 == 0
    n.q.step(200000000)
    assert n.readl(0x1c) & 2 == 2


def test_temperature_event(n):
    assert n.set_feature(0x0b, 2).status == 0
    cid = n.admin.submit(0x0c)
    other = n.admin.submit(0x09, cdw=(4, 0x100))
    seen = {c.cid: c for c in (n.admin.poll(), n.admin.poll())}
    assert seen[other].status == 0 and seen[cid].result & 0xffffff == 0x020101
    assert n.log(2, 512)[0] & 2


def pin(n):
    return n.q.readl(n.cfg + 4) >> 19 & 1


def test_interrupt_coalescing(n):
    """With a threshold of four, the pin rises with the fourth completion or when the time is over."""
    assert n.set_feature(8, 100 << 8 | 3).status == 0
    io = Queue(n, 1, n.alloc(0x20000), 16)
    assert n.admin.run(5, prp1=io.cq, cdw=(15 << 16 | 1, 3)).status == 0
    assert n.admin.run(1, prp1=io.sq, cdw=(15 << 16 | 1, 1 << 16 | 1)).status == 0
    buf = n.alloc()

    def submit(count):
        for _ in range(count):
            io.submit(2, 1, prp1=buf, cdw=(0, 0, 0))

    def wait_ready(count):
        at = io.cq + 16 * ((io.head + count - 1) % 16) + 14
        phase = io.phase if io.head + count - 1 < 16 else io.phase ^ 1
        while n.q.readl(at - 2) >> 16 & 1 != phase:
            pass
        n.q.step(0)

    submit(3)
    wait_ready(3)
    assert not pin(n)
    submit(1)
    wait_ready(4)
    assert pin(n)
    for _ in range(4):
        io.poll()
    n.q.step(0)
    assert not pin(n)
    submit(1)
    wait_ready(1)
    assert not pin(n)
    n.q.step(9900000)
    assert not pin(n)
    n.q.step(200000)
    assert pin(n)
    n.writel(0x0c, 1)                               # masked
    assert not pin(n)
    n.writel(0x10, 1)
    assert pin(n)


def test_logs(n):
    before = struct.unpack_from("<Q", n.log(1, 64))[0]
    assert n.admin.run(0x7f).status == 1
    e = n.log(1, 64)
    assert struct.unpack_from("<Q", e)[0] == before + 1 and struct.unpack_from("<H", e, 12)[0] >> 1 & 0x7ff == 1
    smart = n.log(2, 512)
    assert struct.unpack_from("<H", smart, 1)[0] == 323 and smart[3] == 100
    assert n.log(3, 512)[0] == 1
    eff = n.log(5, 4096)
    assert eff[4 * 6] & 1 and eff[1024 + 4 * 2] & 1 and not eff[1024 + 4 * 0xc1]
    assert n.log(2, 256, off=256) == smart[256:]
    assert n.log(0x7e, 64).status == 0x109 and n.log(2, 64, off=1024).status == INVALID_FIELD
    assert n.log(2, 64, off=2).status == INVALID_FIELD


def test_persistent_events(n):
    """Newest first: a timestamp that was set, a feature before it; a context is established, read, released."""
    assert n.log(0x0d, 512).status == 0x0c
    assert n.set_feature(2, 0).status == 0
    buf = n.alloc()
    n.q.writeq(buf, 123456)
    assert n.set_feature(0x0e, 0, prp1=buf).status == 0
    assert n.log(0x0d, 512, lsp=3)[0] == 0x0d and n.log(0x0d, 512, lsp=1).status == 0x0c
    head = n.log(0x0d, 512)
    events, length = struct.unpack_from("<IQ", head, 4)
    assert events >= 3 and head[56:58] == b"S1" and head[480] & 0x9c == 0x9c
    raw = n.log(0x0d, (length + 3) // 4 * 4 if length < 4096 else 4096)
    at, types = 512, []
    while at + 24 < min(length, 4096) and len(types) < 3:
        types.append(raw[at])
        assert raw[at + 1] == 1 and raw[at + 2] == 21
        at += 24 + struct.unpack_from("<H", raw, at + 22)[0]
    assert types[:2] == [3, 11]
    assert not hasattr(n.log(0x0d, 4, lsp=2), "status") and n.log(0x0d, 512).status == 0x0c


def test_uuid_list(n):
    assert n.identify(0x17)[48:50] == b"\xc1\x94" and n.log(0xc0, 512)[496:498] == b"\xc5\xaf"


def test_compare(io):
    data = os.urandom(1024)
    assert write(io, 1, 300, data).status == 0
    buf = io.nvme.alloc()
    io.nvme.q.write(buf, data)
    assert io.run(5, 1, prp1=buf, cdw=(300, 0, 1)).status == 0
    io.nvme.q.write(buf + 1023, bytes([data[1023] ^ 1]))
    assert io.run(5, 1, prp1=buf, cdw=(300, 0, 1)).status == 0x285


def test_write_zeroes_and_deallocate(io):
    assert write(io, 1, 400, b"\xff" * 8192).status == 0
    assert io.run(8, 1, cdw=(402, 0, 3)).status == 0
    assert read(io, 1, 400, 16) == b"\xff" * 1024 + bytes(2048) + b"\xff" * 5120
    buf = io.nvme.alloc()
    io.nvme.q.write(buf, struct.pack("<IIQIIQ", 0, 8, 400, 0, 1, 32768))
    assert io.run(9, 1, prp1=buf, cdw=(1, 4)).status == LBA_RANGE
    assert io.run(9, 1, prp1=buf, cdw=(0, 4)).status == 0
    assert io.run(8, 1, cdw=(32768, 0, 0)).status == LBA_RANGE


def test_write_protect(io):
    n = io.nvme
    assert n.set_feature(0x84, 1, nsid=1).status == 0 and n.feature(0x84, nsid=1).result == 1
    assert write(io, 1, 0, bytes(512)).status == 0x20
    assert n.set_feature(0x84, 0, nsid=1).status == 0 and write(io, 1, 0, bytes(512)).status == 0
    assert n.set_feature(0x84, 3, nsid=1).status == INVALID_FIELD


def test_memory_on_the_controller(tmp_path):
    """Queues and data in the controller memory buffer, by its BAR and by the address that the host chose for it (1.4)."""
    with NvmeMachine(tmp_path, "-device", "nvme,serial=C,addr=1,cmb_size_mb=2") as m:
        n = m.nvme(1)
        bar2, cba = 0x48000000, 0x123456000
        m.q.writel(n.cfg + 0x18, bar2)
        m.q.writel(n.cfg + 0x1c, 0)
        assert n.readq(0) >> 57 & 1 and n.readl(0x38) == 0 and n.readl(0x3c) == 0
        n.writeq(0x50, cba | 3)
        assert n.readl(0x38) & 7 == 2 and n.readl(0x3c) == 2 << 12 | 2 << 8 | 0x1f and n.readl(0x58) == 0
        n.enable()
        assert n.admin.run(6, prp1=cba + 0x3000, cdw=(1,)).status == 0
        assert m.q.read(bar2 + 0x3004, 4) == b"C   "
        assert n.admin.run(6, prp1=bar2 + 0x5000, cdw=(1,)).status == 0 and m.q.read(bar2 + 0x5004, 4) == b"C   "
        assert n.admin.run(6, prp1=cba + (2 << 20), cdw=(1,)).status == 4
        io = Queue(n, 1, bar2 + 0x10000, 16)
        assert n.admin.run(5, prp1=cba + 0x20000, cdw=(15 << 16 | 1, 1)).status == 0
        assert n.admin.run(1, prp1=cba + 0x10000, cdw=(15 << 16 | 1, 1 << 16 | 1)).status == 0
        assert io.run(0, 0xffffffff).status == 0
        n.disable()
        n.writeq(0x50, (1 << 64) - 4096 | 3)
        assert n.readl(0x58) == 1


def test_memory_that_persists(tmp_path):
    pmr = str(tmp_path / "pmr")
    with NvmeMachine(tmp_path, "-object", "memory-backend-file,id=p,size=1M,mem-path=%s,share=on" % pmr, "-device", "nvme,serial=C,addr=1,pmrdev=p") as m:
        n, bar4 = m.nvme(1), 0x48000000
        m.q.writel(n.cfg + 0x20, bar4)
        m.q.writel(n.cfg + 0x24, 0)
        assert n.readq(0) >> 56 & 1 and n.readl(0xe00) >> 5 & 7 == 4 and n.readl(0xe08) == 1 << 8
        n.writel(0xe04, 1)
        assert n.readl(0xe08) == 0
        m.q.write(bar4 + 0x1000, b"persistent")
        n.enable()
        assert n.admin.run(6, prp1=bar4, cdw=(1,)).status == 0
        with open(pmr, "rb") as f:
            assert f.read(6)[4:] == b"C " and f.seek(0x1000) and f.read(10) == b"persistent"
        n.writel(0xe04, 0)
        assert n.readl(0xe08) == 1 << 8


def test_user_errors():
    for args, words in (("nvme", "serial"), ("nvme,serial=" + "x" * 21, "20"), ("nvme,serial=a,max_ioqpairs=0", "max_ioqpairs"), ("nvme-ns", "nvme-bus"),
                        ("nvme,serial=a,cmb_size_mb=3", "power of two")):
        status, _, err = run("-M", "virt", "-device", args)
        assert status == 1 and words in err, (args, err)
