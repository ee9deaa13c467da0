# SPDX-License-Identifier: MIT
"""What public reports tell that other NVMe controllers got wrong, done to this one. Each test names its report."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import MMIO, PAGE, RAM, NvmeMachine, read, write

MIB = 1 << 20
INVALID_FIELD, TRANSFER_ERROR, BAD_OFFSET, RANGE = 0x02, 0x04, 0x13, 0x80


@pytest.fixture(name="m")
def machine(tmp_path):
    args = []
    for i in (1, 2):
        with open(tmp_path / ("d%d" % i), "wb") as f:
            f.truncate(4 * MIB)
        args += ["-drive", "file=%s,format=raw,if=none,id=d%d" % (tmp_path / ("d%d" % i), i)]
    args += ["-device", "nvme,serial=REPORT,id=n0,addr=1,mdts=5,aerl=0,aer_max_queued=2"]
    args += ["-device", "nvme-ns,bus=n0,drive=d1,nsid=1", "-device", "nvme-ns,bus=n0,drive=d2,nsid=7"]
    with NvmeMachine(tmp_path, *args) as m:
        yield m


def works(n):
    """After a reset, whatever was before."""
    n.writel(0x14, 0)
    n.wait(0x1c, 1, 0)
    n.enable()
    io = n.io_queue()
    assert write(io, 1, 3, b"works!".ljust(512)).status == 0 and read(io, 1, 3, 1)[:6] == b"works!"


@pytest.mark.parametrize("aqa", (0, 0x1f, 0x1f0000, 0xffffffff))
def test_admin_queues_of_bad_sizes(m, aqa):
    """FreeBSD PR 256317: a queue of one entry is none; the controller says so, and does not come up with it."""
    n = m.nvme(1)
    n.writel(0x24, aqa)
    n.writeq(0x28, RAM + MIB)
    n.writeq(0x30, RAM + 2 * MIB)
    n.writel(0x14, 0x00460001)
    csts = n.readl(0x1c)
    assert csts & 2 or (csts & 1 and aqa == 0xffffffff)         # the upper bits are reserved: 4096 entries each
    works(n)


@pytest.mark.parametrize("where", (0, MMIO, 0xfffffffffffff000, RAM + (1 << 40)))
def test_admin_queues_where_no_memory_is(m, where):
    """FreeBSD PR 256319: the queues are not in RAM."""
    n = m.nvme(1)
    n.writel(0x24, 0x1f001f)
    n.writeq(0x28, where)
    n.writeq(0x30, where)
    n.writel(0x14, 0x00460001)
    for tail in (1, 5, 0xffff):
        n.writel(0x1000, tail)
        n.readl(0x1c)
    works(n)


def test_doorbells_before_ready(m):
    """FreeBSD PR 256320, 256322: doorbells of a controller that is not ready, and of queues that nobody made."""
    n = m.nvme(1)
    n.writel(0x24, 0x1f001f)
    for off in range(0x1000, 0x1400, 4):
        n.writel(off, 0xffff)
    n.enable()
    for off in range(0x1008, 0x1400, 4):
        n.writel(off, 1)
    assert n.identify(1)[4:10] == b"REPORT"
    works(n)


def test_doorbells_of_a_failed_controller(m):
    """FreeBSD D35453: RDY while CFS is set; doorbells then."""
    n = m.nvme(1)
    n.writel(0x24, 0)
    n.writel(0x14, 0x00460001)
    assert n.readl(0x1c) & 3 == 2
    n.writel(0x1000, 3)
    n.writel(0x1004, 3)
    works(n)


def test_pointers_of_zero(m):
    """FreeBSD PR 264177: PRP entries that are 0 in all places; nothing is there at address 0 of this board."""
    n = m.nvme(1).enable()
    io, buf, table = n.io_queue(), n.alloc(2 * PAGE), n.alloc()
    assert io.run(2, 1, prp1=0, cdw=(0, 0, 0)).status == TRANSFER_ERROR
    assert io.run(1, 1, prp1=0, prp2=0, cdw=(0, 0, 15)).status == TRANSFER_ERROR
    assert io.run(1, 1, prp1=buf, prp2=0, cdw=(0, 0, 15)).status in (TRANSFER_ERROR, INVALID_FIELD)
    n.q.write(table, struct.pack("<3Q", 0, buf, 0))
    assert io.run(1, 1, prp1=buf, prp2=table, cdw=(0, 0, 31)).status == TRANSFER_ERROR
    assert n.admin.run(6, prp1=0, cdw=(1,)).status == TRANSFER_ERROR
    works(n)


def test_registers_at_both_widths(m):
    """QEMU, July 2021: reads of registers at odd offsets and at the end of the window reached past the structure."""
    n = m.nvme(1)
    whole = m.q.read(n.bar, 0x1000)
    for size in (4, 8):
        for off in list(range(0, 0x60, size)) + [0xe00, 0xe18, 0xff8]:
            assert m.q.rd(n.bar + off, size) == int.from_bytes(whole[off:off + size], "little"), (hex(off), size)
    assert m.q.rd(n.bar + 0x1000, 4) == 0
    works(n)


def test_identify_of_every_kind(m):
    """QEMU, 2016: CNS was taken as a boolean. Every value has its own answer or Invalid Field; none answers for another."""
    n = m.nvme(1).enable()
    controller = n.identify(1)
    for cns in range(256):
        a = n.identify(cns, nsid=1)
        assert isinstance(a, bytes) or a.status in (INVALID_FIELD, 0x0b), (cns, a)
        assert cns == 1 or a != controller


def test_active_namespaces(m):
    """SPDK 1916: among many possible namespaces, those that are there are listed, from the id on that is asked for."""
    n = m.nvme(1).enable()
    for start, want in ((0, [1, 7]), (1, [7]), (6, [7]), (7, []), (0xfffffffd, [])):
        ids = struct.unpack("<1024I", n.identify(2, nsid=start))
        assert list(ids[:len(want)]) == want and not any(ids[len(want):])
    for nsid in (0xfffffffe, 0xffffffff):
        assert n.identify(2, nsid=nsid).status == 0x0b
    assert not any(n.identify(0, nsid=2)) and n.identify(0, nsid=0).status == 0x0b


def test_more_events_than_requests(m):
    """SPDK 1839: events while no request waits, more than are kept; and more requests than there may be."""
    n = m.nvme(1).enable()
    for off in (0x1000 + 8 * 60, 0x1000 + 8 * 61, 0x1000 + 8 * 62):         # of queues that are not there: an error event each
        for _ in range(4):
            n.writel(off, 1)
    n.admin.submit(0x0c)
    n.admin.poll()
    n.admin.submit(0x0c)
    assert n.admin.run(0x18).status == 0                        # a second request waits or was answered; the queue goes on
    works(n)


def test_a_queue_that_wraps_many_times(m):
    """Launchpad and forum reports of commands that came twice where a queue wraps with the doorbell behind it."""
    n = m.nvme(1).enable()
    io, buf = n.io_queue(size=3), n.alloc()
    for i in range(200):
        assert io.run(2, 1 if i & 1 else 7, prp1=buf, cdw=(i, 0, 0)).status == 0
    assert not io.ready()
    n.writel(0x1008, io.tail)                                   # the same value again: nothing new
    n.writel(0x1008, 9)                                         # past the end of the queue
    assert n.admin.run(0x18).status == 0 and not io.ready()


def test_transfers_at_the_limit(m):
    """Forum reports of MDTS taken in the wrong unit: 128 KiB go, one block more does not; the last block is there, the next is not."""
    n = m.nvme(1).enable()
    io = n.io_queue()
    data = os.urandom(128 << 10)
    assert write(io, 1, 100, data).status == 0 and read(io, 1, 100, 256) == data
    assert read(io, 1, 100, 257).status == INVALID_FIELD
    last = 4 * MIB // 512 - 1
    assert write(io, 1, last, b"l" * 512).status == 0 and write(io, 1, last, b"l" * 1024).status == RANGE
    for slba in (last + 1, 0xffffffff, 0xffffffffffffffff, 0xffffffffffffff00):
        assert write(io, 1, slba, b"x" * 512).status == RANGE and read(io, 1, slba, 1).status == RANGE
    assert io.run(2, 1, prp1=n.alloc() + 2, cdw=(0, 0, 0)).status in (BAD_OFFSET, 0)


def flr(n):
    """A function level reset, without waiting for its end."""
    at = n.q.rd(n.cfg + 0x34, 1)
    while n.q.rd(n.cfg + at, 1) != 0x10:
        at = n.q.rd(n.cfg + at + 1, 1)
    n.q.wr(n.cfg + at + 8, 0x8000, 2)


def back(n):
    """Once the function answers again: as firmware sets it up."""
    while n.q.rd(n.cfg, 2) == 0xffff:
        n.q.step(1000000)
    n.q.writel(n.cfg + 0x10, n.bar)
    n.q.writel(n.cfg + 0x14, 0)
    n.q.wr(n.cfg + 4, 6, 2)


def test_queue_registers_are_read_back(m):
    """propolis 1199: Windows reads ASQ after its first command and gives up where it is zero; requests for events that end at once come again at once."""
    n = m.nvme(1).enable()
    assert n.identify(1)[4:10] == b"REPORT"
    assert n.readl(0x24) == 0x1f001f and n.readq(0x28) == n.admin.sq and n.readl(0x28) == n.admin.sq & 0xffffffff and n.readq(0x30) == n.admin.cq
    n.admin.submit(0x0c)
    assert n.admin.run(0x18).status == 0 and not n.admin.ready()
    n.disable()
    assert n.readq(0x28) and not n.admin.ready()


def test_queues_that_cannot_be_deleted(m):
    """SPDK 2172, 2173: the admin queues are not deleted, others once; a completion queue not while something completes in it."""
    n = m.nvme(1).enable()
    n.io_queue()
    n.io_queue(2)
    assert [n.admin.run(opcode, cdw=(0,)).status for opcode in (0, 4)] == [0x101] * 2
    assert [n.admin.run(opcode, cdw=(1,)).status for opcode in (4, 0, 0, 4, 4)] == [0x10c, 0, 0x101, 0, 0x101]
    assert [n.admin.run(opcode, cdw=(64,)).status for opcode in (0, 4)] == [0x101] * 2 and n.admin.run(0x18).status == 0


@pytest.mark.parametrize("how", ("controller", "function", "machine"))
def test_a_reset_ends_what_the_host_set_up(m, how):
    """SPDK 2186, openvmm 4011 and 4080: I/O queues are gone, and doorbell buffers: whoever has these pages now finds nobody else in them."""
    n = m.nvme(1).enable()
    io, db, ei = n.io_queue(), n.alloc(), n.alloc()
    n.q.writel(db + 8, io.tail)
    n.q.writel(db + 12, io.head)
    assert n.admin.run(0x7c, prp1=db, prp2=ei).status == 0
    if how == "controller":
        n.disable()
    elif how == "function":
        flr(n)
        back(n)
    else:
        m.qmp.cmd("system_reset")
        m.qmp.wait_event("RESET")
        n = m.nvme(1)
        n.next = ei + PAGE
    for page in (db, ei):
        n.q.write(page, b"\x5a" * PAGE)
    n.enable()
    n.writel(0x1008, 1)                                         # of a queue that is no more
    assert n.admin.run(1, prp1=n.alloc(), cdw=(63 << 16 | 1, 1 << 16 | 1)).status == 0x100
    io = n.io_queue()
    assert write(io, 1, 3, b"works!".ljust(512)).status == 0 and read(io, 1, 3, 1)[:6] == b"works!"
    assert n.q.read(db, PAGE) == n.q.read(ei, PAGE) == b"\x5a" * PAGE


def test_function_resets_in_a_row(m):
    """SPDK 2043: with queues, with commands in flight, before the one before is done."""
    n = m.nvme(1)
    for i in range(20):
        if i % 3 == 0:
            n.writel(0x14, 0)                                   # what was written below may have been after the reset
            n.wait(0x1c, 3, 0)
            n.enable()
            io = n.io_queue()
            for k in range(8):
                io.submit(1, 1, prp1=n.mem, cdw=(8 * k, 0, 7))
        flr(n)
        if i % 3:
            n.writel(0x14, 0x00460001)
        back(n)
        n.next = n.mem
    works(n)


def test_commands_that_are_not_aborted(m):
    """SPDK 2194: the answer to Abort tells whether the command was; one that was not ends as if nobody had asked."""
    n = m.nvme(1).enable()
    io = n.io_queue()
    cid = io.submit(2, 1, prp1=n.alloc(), cdw=(0, 0, 0))
    c = n.admin.run(8, cdw=(cid << 16 | 1,))
    assert c.status == 0 and c.result == 1
    c = io.poll()
    assert (c.cid, c.status) == (cid, 0)


def test_the_largest_namespace_id(m):
    """openvmm 3740: NN bounds the ids, whatever is there now: before, while and after there are namespaces."""
    n = m.nvme(1).enable()
    numbers = [struct.unpack_from("<I", n.identify(1), 516)[0]]
    for step in range(2):
        if step:
            assert n.admin.run(0x0d, nsid=0xffffffff, cdw=(1,)).status == 0
        numbers.append(struct.unpack_from("<I", n.identify(1), 516)[0])
    assert numbers == [256] * 3 and n.identify(0, nsid=256) == bytes(PAGE) and n.identify(0, nsid=257).status == 0x0b


def test_identifiers_are_told_alike(tmp_path):
    """openvmm 3678: NGUID and EUI64 are in both structures or in none; no descriptor tells zero."""
    guid, eui = bytes(range(1, 17)), 0x0102030405060708
    args = ("-device", "nvme,serial=I,id=n0,addr=1")
    for i, opts in enumerate(("nguid=%s" % guid.hex(), "eui64=%d" % eui, "eui64-default=on", "eui64-default=off")):
        args += ("-blockdev", "driver=null-co,node-name=d%d,size=1M" % i, "-device", "nvme-ns,bus=n0,drive=d%d,nsid=%d,%s" % (i, i + 1, opts))
    with NvmeMachine(tmp_path, *args) as m:
        n = m.nvme(1).enable()
        for nsid, want in ((1, (guid, bytes(8))), (2, (bytes(16), struct.pack(">Q", eui))), (3, None), (4, (bytes(16), bytes(8)))):
            raw, descs, at = n.identify(0, nsid=nsid), {}, 0
            lists = n.identify(3, nsid=nsid)
            while lists[at]:
                descs[lists[at]] = lists[at + 4:at + 4 + lists[at + 1]]
                at += 4 + lists[at + 1]
            inline = raw[104:120], raw[120:128]
            assert want in (None, inline) and all(any(d) for kind, d in descs.items() if kind < 4)
            assert (descs.get(2, bytes(16)), descs.get(1, bytes(8))) == inline and len(descs[3]) == 16 and descs[4] == b"\0"
        assert any(n.identify(0, nsid=3)[120:128])


def test_events_that_the_host_does_not_want(m):
    """openvmm 3673: with the bit clear nothing is told, nor when it is set later; the list of changed namespaces is there all the same."""
    n = m.nvme(1).enable()
    assert n.feature(0x0b).result == 0
    cid = n.admin.submit(0x0c)
    m.qmp.cmd("blockdev-add", driver="null-co", **{"node-name": "more", "size": MIB})
    m.qmp.cmd("device_add", driver="nvme-ns", bus="n0", drive="more", nsid="9", id="nine")
    assert n.admin.run(9, cdw=(0x0b, 0x100)).status == 0 and not n.admin.ready()
    assert struct.unpack_from("<II", n.log(4, 4096)) == (9, 0)
    m.qmp.cmd("blockdev-add", driver="null-co", **{"node-name": "most", "size": MIB})
    m.qmp.cmd("device_add", driver="nvme-ns", bus="n0", drive="most", nsid="10", id="ten")
    c = n.admin.poll()
    assert c.cid == cid and c.result == 0x040002 and struct.unpack_from("<II", n.log(4, 4096)) == (10, 0)


def test_text_is_padded_with_blanks(m):
    """propolis 1191: tools that take serial and model as they are show nothing of what zeroes follow."""
    b = m.nvme(1).enable().identify(1)
    for at, size, text in ((4, 20, b"REPORT"), (24, 40, b"backplane NVMe Controller"), (64, 8, None)):
        field = b[at:at + size]
        assert field == (text or field.rstrip(b" ")).ljust(size) and all(0x20 <= c < 0x7f for c in field)


def test_a_list_that_begins_within_a_page(m):
    """propolis 38: PRP2 points to a list, at any dword pair of a page; the list goes on in another where the page ends."""
    n = m.nvme(1).enable()
    io, lists = n.io_queue(), n.alloc(2 * PAGE)
    pages = [n.alloc() for _ in range(5)]
    for i, page in enumerate(pages):
        n.q.write(page, bytes([i + 1]) * PAGE)
    for first in (8, PAGE - 24, PAGE - 16):                     # four entries; two, then a pointer; one
        room = (PAGE - first) // 8
        here = pages[1:] if room >= 4 else pages[1:room] + [lists + PAGE]
        n.q.write(lists + first, struct.pack("<%dQ" % len(here), *here))
        n.q.write(lists + PAGE, struct.pack("<4Q", *(pages[room:] + [0] * 4)[:4]))
        assert io.run(1, 1, prp1=pages[0], prp2=lists + first, cdw=(first, 0, 39)).status == 0
        assert read(io, 1, first, 40) == b"".join(bytes([i + 1]) * PAGE for i in range(5))


def pin(n):
    return n.q.rd(n.cfg + 6, 2) >> 3 & 1                        # the status register


def test_a_masked_pin(m):
    """SPDK 2009: Windows masks the pin in its handler, takes what there is, and unmasks: then it is low, or up again for what came meanwhile."""
    n = m.nvme(1).enable()
    cid = n.admin.submit(0x18)
    while not n.admin.ready():
        pass
    while not pin(n):
        pass
    n.writel(0x0c, 1)
    assert not pin(n) and n.readl(0x0c) == n.readl(0x10) == 1
    assert n.admin.poll().cid == cid
    n.writel(0x10, 1)
    assert not pin(n) and not n.readl(0x0c)
    n.writel(0x0c, 1)
    n.admin.submit(0x18)
    while not n.admin.ready():
        pass
    assert not pin(n)
    n.writel(0x10, 1)
    while not pin(n):
        pass
    n.admin.poll()
    assert not pin(n)
