# SPDX-License-Identifier: MIT
"""NVMe commands that take time, and writes that are atomic: both are exact in the machine's time."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import QmpError, run
from lib.nvme import PAGE, NvmeMachine

PATH = "/machine/peripheral/n0"
US = 1000


class Timed(NvmeMachine):
    """One controller with one namespace of 4 KiB blocks."""

    def start(self):
        self.n = self.nvme(1).enable()
        self.io = self.n.io_queue()
        self.buf = self.n.alloc(64 * PAGE)
        return self

    def go(self, op, slba, nlb=1):
        prp2 = 0 if nlb == 1 else self.buf + PAGE if nlb == 2 else self.n.prp_list(self.buf + PAGE, (nlb - 1) * PAGE)
        return self.io.submit(op, 1, prp1=self.buf, prp2=prp2, cdw=(slba, 0, nlb - 1))

    def started(self, n):
        """Waits until N commands in all have begun."""
        while self.qmp.cmd("qom-get", path=PATH, property="timed-commands") < n:
            pass

    def done(self, ns, count=1):
        """Lets the time pass; the ids of the COUNT commands that are done then, and no more. A moment before, none is."""
        self.q.step(ns - 1)
        before = self.io.ready()
        self.q.step(1)
        out = [self.io.poll().cid for _ in range(count)]
        assert not before, "too early"
        assert not self.io.ready(), "too many"
        return out

    def timing(self, **model):
        self.qmp.cmd("qom-set", path=PATH, property="timing", value={k.replace("_", "-"): v for k, v in model.items()})


def machine(tmp_path, ns="", **options):
    img = str(tmp_path / "img")
    with open(img, "wb") as f:
        f.truncate(8 << 20)
    dev = dict({"driver": "nvme", "serial": "T", "id": "n0", "addr": "1"}, **options)
    return Timed(tmp_path, "-drive", "file=%s,format=raw,if=none,id=d" % img, "-device", json.dumps(dev), "-device",
                 "nvme-ns,bus=n0,drive=d,logical_block_size=4096,physical_block_size=4096" + ns)


@pytest.fixture(name="m")
def fixture(tmp_path):
    with machine(tmp_path, timing={"read-ns": 80 * US, "write-ns": 20 * US, "other-ns": 500 * US}) as m:
        yield m.start()


def test_fixed(m):
    m.go(2, 0)
    m.started(1)
    m.done(80 * US)
    m.go(1, 0)
    m.started(2)
    m.done(20 * US)
    m.io.submit(0, 1)
    m.started(3)
    m.done(500 * US)
    assert m.qmp.cmd("qom-get", path=PATH, property="timed-ns") == 600 * US
    cids = [m.go(2, i) for i in range(8)]                       # beside each other
    m.started(11)
    assert sorted(m.done(80 * US, 8)) == sorted(cids)


def test_dies(m):
    """Two pieces on one die follow each other, on two dies they do not."""
    m.timing(dies=4, die_bytes=4096, read_ns=50 * US)
    one, same, other = m.go(2, 0), m.go(2, 4), m.go(2, 1)
    m.started(3)
    assert sorted(m.done(50 * US, 2)) == sorted((one, other))
    assert m.done(50 * US) == [same]
    m.go(2, 8, 8)                                               # each die has two of its pieces
    m.started(4)
    m.done(100 * US)


def test_bandwidth(m):
    m.timing(read_bytes_per_s=4096 * 10000, write_bytes_per_s=4096 * 1000)
    one, two = m.go(2, 0), m.go(2, 100, 2)
    m.started(2)
    assert m.done(100 * US) == [one] and m.done(200 * US) == [two]
    m.go(1, 0)
    m.started(3)
    m.done(1000 * US)


def test_table(m):
    m.timing(table=[[4096, 10 * US, 1 * US], [16384, 30 * US, 2 * US]])
    for i, (nlb, ns) in enumerate(((1, 10), (2, 30), (4, 30), (16, 30))):
        m.go(2, 0, nlb)
        m.started(i + 1)
        m.done(ns * US)


def test_a_reset_ends_the_wait(m):
    m.timing(read_ns=3600000000000)
    m.go(2, 0)
    m.started(1)
    assert m.n.admin.run(8, cdw=(m.io.cid << 16 | 1,)).result == 1      # done in fact: nothing to abort
    m.n.disable()
    m.timing()
    m.n.enable()
    m.io = m.n.io_queue()
    m.go(2, 0)
    assert m.io.poll().status == 0


def test_wrong_models_are_named(m):
    for model, words in (({"read_nss": 1}, "read-nss"), ({"dies": 5000}, "dies"), ({"table": [[1, 2]]}, "table"), ({"table": 5}, "table"),
                         ({"table": [[5, 1, 1], [5, 1, 1]]}, "table.1")):
        with pytest.raises(QmpError, match=words):
            m.timing(**model)


# ---- atomic writes ----

def settle(m, *cmds, groups):
    """Of CMDS, those of the first of GROUPS are done after 100 us, beside each other; those of the next begin then, and are done after 200 us."""
    base = m.qmp.cmd("qom-get", path=PATH, property="timed-commands")
    cids = [m.go(*c) for c in cmds]
    for group in groups:
        base += len(group)
        m.started(base)
        assert m.qmp.cmd("qom-get", path=PATH, property="timed-commands") == base
        assert sorted(cids.index(c) for c in m.done(100 * US, len(group))) == group


LAT = {"read-ns": 100 * US, "write-ns": 100 * US, "other-ns": 100 * US}
R, W = 2, 1


@pytest.mark.parametrize("cmds,groups", [
    (((W, 0, 4), (W, 2, 4)), [[0], [1]]),               # they meet
    (((W, 0, 4), (W, 4, 4)), [[0, 1]]),                 # they do not
    (((W, 0, 4), (R, 3, 1)), [[0], [1]]),
    (((R, 3, 1), (W, 0, 4)), [[0], [1]]),
    (((R, 0, 4), (R, 0, 4)), [[0, 1]]),
    (((W, 0, 5), (W, 4, 5)), [[0, 1]]),                 # too long to be atomic
    (((W, 0, 5), (W, 4, 4)), [[0], [1]]),               # but one that is atomic is not disturbed
    (((W, 0, 4), (W, 2, 4), (W, 0, 1)), [[0], [1, 2]]),
])
def test_atomic_writes(tmp_path, cmds, groups):
    with machine(tmp_path, timing=LAT, **{"atomic.awun": 3, "atomic.awupf": 0}) as m:
        m.start()
        raw = m.n.identify(1)
        assert struct.unpack_from("<HH", raw, 526) == (3, 0) and struct.unpack_from("<H", raw, 532)[0] == 3
        settle(m, *cmds, groups=groups)


def test_atomic_normal_is_disabled(tmp_path):
    with machine(tmp_path, timing=LAT, **{"atomic.awun": 3, "atomic.awupf": 1, "atomic.dn": True}) as m:
        m.start()
        assert m.n.feature(10).result == 1 and m.n.feature(10, 1).result == 1
        settle(m, (W, 0, 4), (W, 2, 4), groups=[[0, 1]])
        settle(m, (W, 0, 2), (W, 1, 2), groups=[[0], [1]])
        assert m.n.set_feature(10, 0).status == 0
        settle(m, (W, 0, 4), (W, 2, 4), groups=[[0], [1]])


def test_atomic_boundaries(tmp_path):
    with machine(tmp_path, ",atomic.nawun=3,atomic.nawupf=1,atomic.nabsn=7,atomic.nabspf=7,atomic.nabo=2", timing=LAT) as m:
        m.start()
        raw = m.n.identify(0, nsid=1)
        assert raw[24] >> 1 & 1 and struct.unpack_from("<6H", raw, 34) == (3, 1, 3, 7, 2, 7)
        settle(m, (W, 3, 4), (R, 4, 1), groups=[[0], [1]])
        settle(m, (W, 8, 4), (R, 9, 1), groups=[[0, 1]])        # crosses block 10
        settle(m, (W, 10, 4), (R, 11, 1), groups=[[0], [1]])
        settle(m, (W, 1, 2), (R, 1, 1), groups=[[0, 1]])        # crosses the first


def test_fused_and_deallocate_keep_away(tmp_path):
    with machine(tmp_path, timing=LAT, **{"atomic.awun": 3}) as m:
        m.start()
        rng = m.n.alloc()
        m.n.q.write(rng, struct.pack("<IIQ", 0, 8, 0))
        base = m.qmp.cmd("qom-get", path=PATH, property="timed-commands")
        first = m.go(W, 0, 4)
        m.io.submit(9, 1, prp1=rng, cdw=(0, 4))
        m.started(base + 2)
        m.q.step(100 * US)
        assert m.io.poll().cid == first and m.io.poll(step=10 * US).status == 0
        z = m.n.alloc()
        m.io.submit(5, 1, flags=1, prp1=z, cdw=(0, 0, 0), ring=False)
        m.io.submit(1, 1, flags=2, prp1=z, cdw=(0, 0, 0))
        assert m.io.poll(step=10 * US).status == 0 and m.io.poll(step=10 * US).status == 0


@pytest.mark.parametrize("dev,words", [
    ("nvme,serial=x,atomic.awun=1,atomic.awupf=2", "awupf"), ("nvme,serial=x,timing.read-ns=-1", "read-ns"), ("nvme,serial=x,timing=5", "timing"),
    ("nvme-ns,bus=b,drive=d,atomic.nawupf=1", "nawupf"), ("nvme-ns,bus=b,drive=d,atomic.nawun=8,atomic.nabsn=7", "nabsn"),
    ("nvme-ns,bus=b,drive=d,atomic.nabo=1", "nabo"), ("nvme,serial=x,model=" + 41 * "m", "model"), ("nvme,serial=x,firmware-version=123456789", "firmware-version"),
])
def test_wrong_options_are_named(tmp_path, dev, words):
    img = str(tmp_path / "img")
    with open(img, "wb") as f:
        f.truncate(1 << 20)
    status, _, err = run("-M", "virt", "-drive", "file=%s,format=raw,if=none,id=d" % img, "-device", "nvme,id=b,serial=b", "-device", dev)
    assert status == 1 and words in err, err


def test_names_and_queue_entries(tmp_path):
    with machine(tmp_path, model="Some Model", mqes=31, **{"firmware-version": "1.2"}) as m:
        n = m.nvme(1).enable()
        raw = n.identify(1)
        assert raw[24:64] == b"Some Model".ljust(40) and raw[64:72] == b"1.2     " and n.readq(0) & 0xffff == 31
        assert n.log(3, 512)[8:16] == b"1.2     "
        assert n.admin.run(5, prp1=n.alloc(), cdw=(32 << 16 | 1, 1)).status == 0x102 and n.admin.run(5, prp1=n.alloc(), cdw=(31 << 16 | 1, 1)).status == 0
