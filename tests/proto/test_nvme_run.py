# SPDX-License-Identifier: MIT
"""What is seen of an NVMe controller that runs: who gets a turn, access states of single groups, warnings on purpose, options by QEMU's names."""
import json
import os
import struct
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import TIMEOUT, QmpError, run
from lib.nvme import PAGE, NvmeMachine, Queue, read, write

PATH = "/machine/peripheral/n0"
NULL = ["-blockdev", "driver=null-co,node-name=d,size=8M,read-zeroes=on"]


def machine(tmp_path, *more, **options):
    dev = dict({"driver": "nvme", "serial": "R", "id": "n0", "addr": "1", "drive": "d"}, **options)
    return NvmeMachine(tmp_path, *NULL, "-device", json.dumps(dev), *more)


def get(m, name):
    return m.qmp.cmd("qom-get", path=PATH, property=name)


class Shared:
    """Submission queues, one a priority, that complete in one queue of four entries: while that is full, no command is taken up."""

    def __init__(self, m, cc, arbitration, prios):
        self.m, self.n = m, m.nvme(1).enable(cc=cc)
        n = self.n
        assert n.set_feature(1, arbitration).status == 0
        self.queues = [Queue(n, i + 1, n.alloc(0x20000), 64) for i in range(len(prios))]
        self.cq = self.queues[0]
        assert n.admin.run(5, prp1=self.cq.cq, cdw=(3 << 16 | 1, 1)).status == 0
        for q, prio in zip(self.queues, prios):
            assert n.admin.run(1, prp1=q.sq, cdw=(63 << 16 | q.qid, 1 << 16 | prio << 1 | 1)).status == 0
        self.cq.size, self.size = 4, 64

    def fill(self, queue, op, count):
        queue.size = self.size
        for _ in range(count):
            queue.submit(op, 1, prp1=self.n.mem, cdw=(0, 0, 0), ring=False)
        queue.ring()

    def taken(self):
        """The number of the queue that the next completion is for."""
        self.cq.size = 4
        end = time.monotonic() + TIMEOUT
        while not self.cq.ready():
            assert time.monotonic() < end, "no completion"
        return self.cq.poll().sq


def order(tmp_path, cc, arbitration, prios, count):
    """Fills one queue a priority while none is served; the queues' numbers in the order in which their commands were taken up."""
    with machine(tmp_path, timing={"read-ns": 1000, "dies": 1}) as m:
        s = Shared(m, cc, arbitration, prios)
        s.fill(s.queues[0], 0, 4)               # flushes take no time: one has no room
        while get(m, "timed-commands") < 4:
            pass
        for q in s.queues:
            s.fill(q, 2, count)
        assert get(m, "timed-commands") == 4
        assert [s.taken() for _ in range(4)] == [1] * 4
        while get(m, "timed-commands") < 4 + count * len(prios):
            pass
        out = []
        for _ in range(count * len(prios)):
            assert not s.cq.ready()
            m.q.step(1000)
            out.append(s.taken())
        return out


def test_round_robin_goes_by_bursts(tmp_path):
    assert order(tmp_path, 0x00460001, 1, [0, 0, 0], 6) == [1, 1, 2, 2, 3, 3] * 3
    assert order(tmp_path, 0x00460001, 0, [0, 0], 4) == [1, 2] * 4


def test_weighted_round_robin(tmp_path):
    """Weights 4, 2 and 1, bursts of 2: in each round a class has as many commands as its weight; urgent ones go first of all."""
    taken = order(tmp_path, 0x00460001 | 1 << 11, 3 << 24 | 1 << 16 | 0 << 8 | 1, [1, 2, 3], 16)
    for i in range(0, 28, 7):
        assert sorted(taken[i:i + 7]) == [1, 1, 1, 1, 2, 2, 3], taken
    taken = order(tmp_path, 0x00460001 | 1 << 11, 3 << 24 | 1 << 16 | 0 << 8 | 1, [3, 0, 1], 8)
    assert taken[:8] == [2] * 8 and sorted(taken[8:13]) == [1, 3, 3, 3, 3], taken


def test_half_a_pair_holds_nobody_up(tmp_path):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable(cc=0x00460001 | 1 << 11)
        high, low = n.io_queue(1, prio=1), n.io_queue(2, prio=3)
        high.submit(5, 1, flags=1, prp1=n.alloc(), cdw=(0, 0, 0))
        for _ in range(30):
            assert read(low, 1, 0, 1) == bytes(512)
        high.submit(1, 1, flags=2, prp1=n.alloc(), cdw=(0, 0, 0))
        assert high.poll().status == 0 and high.poll().status == 0


def test_groups_have_states_of_their_own(tmp_path):
    more = ["-blockdev", "driver=null-co,node-name=d2,size=1M,read-zeroes=on", "-device", "nvme-ns,bus=n0,drive=d2,nsid=2,anagrpid=2"]
    with machine(tmp_path, *more, **{"ana-groups": {"group2": "non-optimized"}}) as m:
        n = m.nvme(1).enable()
        io = n.io_queue()
        assert n.set_feature(0x0b, 1 << 11).status == 0

        def states():
            raw = n.log(0x0c, 16 + 8 * 32, lsp=1)
            return [raw[16 + 32 * g + 16] for g in range(8)], [struct.unpack_from("<Q", raw, 16 + 32 * g + 8)[0] for g in range(8)]
        assert states() == ([1, 2] + [1] * 6, [0] * 8)
        aer = n.admin.submit(0x0c)
        m.qmp.cmd("qom-set", path=PATH, property="ana-groups", value={"group2": "inaccessible"})
        c = n.admin.poll()
        assert c.cid == aer and c.result & 0xffffff == 0x0c0302
        assert read(io, 2, 0, 1).status == 0x302 and read(io, 1, 0, 1) == bytes(512)
        assert states() == ([1, 3] + [1] * 6, [0, 1] + [0] * 6)
        m.qmp.cmd("qom-set", path=PATH, property="ana-state", value="persistent-loss")      # of the others
        assert read(io, 2, 0, 1).status == 0x302 and read(io, 1, 0, 1).status == 0x301
        m.qmp.cmd("qom-set", path=PATH, property="ana-groups", value={})
        assert read(io, 2, 0, 1).status == 0x301
        for value, words in (({"group9": "change"}, "group8"), ({"group1": "good"}, "group1 is no state"), ([], "object")):
            with pytest.raises(QmpError, match=words):
                m.qmp.cmd("qom-set", path=PATH, property="ana-groups", value=value)


def test_warnings_on_purpose(tmp_path):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        assert n.set_feature(0x0b, 0x3f).status == 0
        for bit, event in ((0, 0x020201), (1, 0x020101), (2, 0x020001)):
            n.log(2, 512)                       # lets the next one come
            aer = n.admin.submit(0x0c)
            m.qmp.cmd("qom-set", path=PATH, property="smart_critical_warning", value=1 << bit)
            c = n.admin.poll()
            assert c.cid == aer and c.result & 0xffffff == event
            assert n.log(2, 512)[0] == 1 << bit


def test_metadata_that_mdts_does_not_count(tmp_path):
    more = ["-blockdev", "driver=null-co,node-name=d2,size=1M,read-zeroes=on", "-device", "nvme-ns,bus=n0,drive=d2,nsid=2,ms=64,mset=1"]
    for mem, status in ((False, 2), (True, 0)):
        with machine(tmp_path, *more, mdts=1, **{"ctratt.mem": mem}) as m:
            n = m.nvme(1).enable()
            buf = n.alloc(4 * PAGE)
            assert struct.unpack_from("<I", n.identify(1), 96)[0] >> 16 & 1 == mem
            assert n.io_queue().run(2, 2, prp1=buf, prp2=n.prp_list(buf + PAGE, 3 * PAGE), cdw=(0, 0, 15)).status == status


def test_the_old_name_of_queues(tmp_path):
    with machine(tmp_path, num_queues=5) as m:
        assert m.nvme(1).enable().feature(7).result == 3 | 3 << 16
    status, _, error = run("-M", "virt", *NULL, "-device", "nvme,serial=x,drive=d,num_queues=1")
    assert status == 1 and "num_queues is 1" in error


# ---- sequences from public reports of what other controllers got wrong ----

@pytest.fixture(name="n")
def fixture(tmp_path):
    with open(tmp_path / "img", "wb") as f:
        f.truncate(4 << 20)
    with NvmeMachine(tmp_path, "-drive", "file=%s,format=raw,if=none,id=d" % (tmp_path / "img"), "-device", "nvme,serial=R,id=n0,addr=1,drive=d,cmb_size_mb=1,mdts=5") as m:
        yield m.nvme(1)


def test_oversized_controller_memory_accesses(n):
    """Reads and writes of the buffer at its last byte and past it: nothing but the buffer is reached (CVE-2018-16847)."""
    n.q.writel(n.cfg + 0x18, 0x44000000)
    n.q.writel(n.cfg + 0x1c, 0)
    n.writeq(0x50, 1)
    n.q.writeq(0x440ffff8, 0x1122334455667788)
    assert n.q.readq(0x440ffff8) == 0x1122334455667788
    n.q.cmd("write 0x440ffffc 0x4 0xaabbccdd")
    assert n.q.readl(0x440ffffc) == 0xddccbbaa


def test_data_pointers_into_the_controllers_own_registers(n):
    """DMA to BAR 0: a reset through its own registers while a command runs freed it (CVE-2021-3929)."""
    n.enable()
    io = n.io_queue()
    for op in (1, 2):
        assert io.run(op, 1, prp1=n.bar, cdw=(0, 0, 7)).status == 4
        assert io.run(op, 1, prp1=n.bar + 0x1000, cdw=(0, 0, 7)).status == 4
    assert n.admin.run(6, prp1=n.bar, cdw=(1,)).status == 4 and n.readl(0x1c) & 3 == 1


def test_offsets_past_the_end_of_a_log(n):
    """Get Log Page with an offset beyond each page, and one that wraps (CVE-2021-3947, changed namespaces, error log)."""
    n.enable()
    for lid in (1, 2, 3, 4, 5, 6, 7, 8, 0x0c, 0x81):
        for off in (0x100000, 0xfffffffffffffffc, 0x8000000000000000):
            assert n.log(lid, 64, off=off).status == 2, (lid, off)


def test_a_list_whose_second_entry_has_an_offset(n):
    """PRP2 with an offset where it must have none, and a list that begins in the middle of a page (both were taken wrongly)."""
    n.enable()
    io, buf = n.io_queue(), n.alloc(8 * PAGE)
    assert io.run(2, 1, prp1=buf, prp2=buf + PAGE + 8, cdw=(0, 0, 15)).status == 0x13
    table = n.alloc()
    n.q.write(table + 0xff0, struct.pack("<QQ", buf + PAGE, buf + 2 * PAGE))
    assert io.run(2, 1, prp1=buf, prp2=table + 0xff0, cdw=(0, 0, 23)).status == 0
    n.q.write(table + 0xff8, struct.pack("<Q", buf + 2 * PAGE + 4))
    assert io.run(2, 1, prp1=buf, prp2=table + 0xff0, cdw=(0, 0, 23)).status == 0x13


def test_a_list_that_points_to_itself_ends(n):
    """A chain of PRP lists or SGL segments without an end is bounded by the transfer."""
    n.enable()
    io, table = n.io_queue(), n.alloc()
    n.q.write(table, struct.pack("<Q", table) * 512)
    assert io.run(2, 1, prp1=n.alloc(), prp2=table + 0xff8, cdw=(0, 0, 255)).status in (0, 0x13)
    seg = struct.pack("<QI3xB", table, 16, 2 << 4)
    n.q.write(table, seg)
    assert io.run(2, 1, flags=0x40, prp1=table, prp2=16 | 2 << 60, cdw=(0, 0, 7)).status == 0x0d


def test_queues_that_are_in_use(n):
    """A completion queue goes only after its submission queues; creating one twice is refused; so is deleting the admin queues."""
    n.enable()
    n.io_queue()
    assert n.admin.run(4, cdw=(1,)).status == 0x10c
    assert n.admin.run(5, prp1=n.alloc(), cdw=(1 << 16 | 1, 1)).status == 0x101
    assert n.admin.run(1, prp1=n.alloc(), cdw=(1 << 16 | 1, 1 << 16 | 1)).status == 0x101
    assert n.admin.run(0, cdw=(0,)).status == 0x101 and n.admin.run(4, cdw=(0,)).status == 0x101
    assert n.admin.run(1, prp1=n.alloc(), cdw=(1 << 16 | 2, 9 << 16 | 1)).status == 0x100


def test_enabled_again_and_again_with_a_full_queue(n):
    """A reset with completions that found no room: they belong to nobody afterwards."""
    for _ in range(4):
        n.enable()
        io = n.io_queue(1, size=4)
        for _ in range(3):
            io.submit(0, 1, ring=False)
        io.ring()
        while not io.ready():
            pass
        n.disable()


def test_doorbells_before_and_after(n):
    """Doorbells of a controller that is not enabled, or was disabled, do nothing; nor do those of queues that are past the last."""
    for qid in (0, 1, 64, 65, 400):
        n.writel(0x1000 + 8 * qid, 3)
        n.writel(0x1004 + 8 * qid, 3)
    n.enable()
    assert n.identify(1)[4:5] == b"R" and n.readl(0x1c) & 3 == 1


def test_deallocating_past_the_end(n):
    """A range of Dataset Management that ends past the last block, wraps, or is empty among good ones (assertions elsewhere)."""
    n.enable()
    io, buf = n.io_queue(), n.alloc()
    assert write(io, 1, 0, b"\x11" * 4096).status == 0
    n.q.write(buf, struct.pack("<IIQ", 0, 8, 8190) + struct.pack("<IIQ", 0, 0xffffffff, 0xffffffffffffff00) + struct.pack("<IIQ", 0, 0, 0))
    assert io.run(9, 1, prp1=buf, cdw=(2, 4)).status in (0, 0x80)
    assert read(io, 1, 0, 8) == b"\x11" * 4096


def test_copies_onto_themselves(n):
    """Simple Copy with a source that overlaps its destination, no block, or too many (used after free elsewhere)."""
    n.enable()
    io, buf = n.io_queue(), n.alloc()
    assert write(io, 1, 0, bytes(range(256)) * 16).status == 0
    n.q.write(buf, struct.pack("<8xQH14x", 0, 7))
    c = io.run(0x19, 1, prp1=buf, cdw=(4, 0, 0))
    assert c.status in (0, 0x114)
    n.q.write(buf, struct.pack("<8xQH14x", 0, 0xffff))
    assert io.run(0x19, 1, prp1=buf, cdw=(100, 0, 0)).status == 0x183
    assert io.run(0x19, 1, prp1=buf, cdw=(100, 0, 0xff)).status in (2, 0x183)


def test_identify_of_every_number(n):
    """Each CNS and namespace id gives a structure or an error, never nothing (null namespaces elsewhere)."""
    n.enable()
    for cns in list(range(0x20)) + [0x80, 0xff]:
        for nsid in (0, 1, 2, 256, 257, 0xfffffffe, 0xffffffff):
            assert n.admin.run(6, nsid=nsid, prp1=n.mem + 0x40000, cdw=(cns, 0)).status in (0, 2, 0xb, 0x12c), (cns, nsid)


def test_features_of_namespaces_that_are_not_there(n):
    """Get and Set Features with a namespace that is not attached (a null pointer elsewhere)."""
    n.enable()
    for fid in list(range(0x22)) + [0x80, 0x81, 0x82, 0x84]:
        for nsid in (2, 257, 0xffffffff):
            for sel in (0, 1, 2, 3, 7):
                n.feature(fid, sel=sel, nsid=nsid, prp1=n.mem + 0x40000)
            if fid != 0x0f:                     # a keep alive would be late some day
                n.set_feature(fid, 0, nsid=nsid, prp1=n.mem + 0x40000)
    assert n.identify(1)[4:5] == b"R"


def test_aborts_of_what_is_not_there(n):
    """Abort of a command that is done, of itself, of a queue that does not exist."""
    n.enable()
    io = n.io_queue()
    assert io.run(0, 1).status == 0
    assert n.admin.run(8, cdw=(1 << 16 | 1,)).result == 1
    assert n.admin.run(8, cdw=((n.admin.cid + 1) << 16,)).result == 1
    assert n.admin.run(8, cdw=(1 << 16 | 7,)).status == 2


def test_transfers_longer_than_mdts(n):
    """The longest transfer is the longest; a block more is refused, also by Compare and by Get Log Page."""
    n.enable()
    io, buf = n.io_queue(), n.alloc(64 * PAGE)
    lists = n.prp_list(buf + PAGE, 63 * PAGE)
    for op in (1, 2, 5):
        assert io.run(op, 1, prp1=buf, prp2=lists, cdw=(0, 0, 255)).status == 0
        assert io.run(op, 1, prp1=buf, prp2=lists, cdw=(0, 0, 256)).status == 2
    assert n.admin.run(2, nsid=0xffffffff, prp1=buf, prp2=lists, cdw=(0x8000 << 16 | 2, 0)).status == 2
