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
