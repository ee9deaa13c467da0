# SPDX-License-Identifier: MIT
"""What a controller says that it has is what it answers, and everything else is refused with the right status (NVMe base 5.16.1, 5.17)."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import PAGE, NvmeMachine

INVALID_OPCODE, INVALID_FIELD, INVALID_LOG = 0x001, 0x002, 0x109
SELECT_SUPPORTED = 3
AER = 0x0c
SIZES = {"d": 4 << 20, "z": 4 << 20, "b": 512 << 10, "r": 132 << 10}

# Options of the controller, namespaces; FIDs that only one of them has.
BARE = ("serial=B,addr=1,ocp=off,dbcs=off", ())
FULL = ("serial=F,addr=1,hmb=64,boot-drive=b,rpmb-drive=r", ("drive=d,nsid=1", "drive=z,nsid=2,zoned=on,zoned.zone_size=256K"))


@pytest.fixture(name="n", params=(BARE, FULL), ids=("bare", "full"))
def controller(request, tmp_path):
    opts, namespaces = request.param
    args = ["-device", "nvme,id=c," + opts]
    for name, size in SIZES.items():
        with open(tmp_path / name, "wb") as f:
            f.truncate(size)
        args = ["-drive", "file=%s,format=raw,if=none,id=%s" % (tmp_path / name, name)] + args
    for ns in namespaces:
        args += ["-device", "nvme-ns,bus=c," + ns]
    with NvmeMachine(tmp_path, *args) as m:
        n = m.nvme(1)
        n.full = bool(namespaces)
        yield n.enable(cc=0x00460061)                   # all command sets


def effects(n, csi=0):
    """(admin, I/O) opcodes of the Commands Supported and Effects log."""
    log = n.log(0x05, 4096, csi=csi)
    told = [struct.unpack_from("<I", log, 4 * i)[0] & 1 for i in range(512)]
    return {i for i in range(256) if told[i]}, {i for i in range(256) if told[256 + i]}


def test_admin_commands(n):
    there = effects(n)[0]
    assert {0, 1, 2, 4, 5, 6, 8, 9, 0x0a, 0x0c} <= there                # mandatory, 3.1.2.1.1
    for op in set(range(256)) - {AER}:
        assert (n.admin.run(op, prp1=n.mem + 0x40000, cdw=(0xffff,)).status == INVALID_OPCODE) == (op not in there), op


def test_io_commands(n):
    if not n.full:
        return
    io = n.io_queue()
    for nsid, csi in ((1, 0), (2, 2)):
        there = effects(n, csi)[1]
        assert {0, 1, 2} <= there and (0x7d in there) == (csi == 2)
        for op in range(256):
            assert (io.run(op, nsid, prp1=n.mem + 0x40000).status == INVALID_OPCODE) == (op not in there), (csi, op)


def test_features(n):
    log = n.log(0x12, 1024)
    there = {i for i in range(256) if log[4 * i] & 1}
    assert {1, 2, 4, 5, 7, 8, 9, 0x0a, 0x0b} <= there
    for fid in range(256):
        st = {n.feature(fid, sel=SELECT_SUPPORTED, nsid=1).status, n.feature(fid, sel=SELECT_SUPPORTED).status}
        assert (INVALID_FIELD in st) == (fid not in there), (fid, st)
        if fid not in there:
            assert n.feature(fid, prp1=n.mem + 0x40000).status == n.set_feature(fid, 0, prp1=n.mem + 0x40000).status == INVALID_FIELD, fid
    ctrl = n.identify(1)
    assert bool(ctrl[525] & 1) == (6 in there) == n.full                # VWC
    assert bool(ctrl[265] & 1) == (0x0c in there)                       # APSTA
    assert bool(struct.unpack_from("<I", ctrl, 272)[0]) == (0x0d in there) == n.full    # HMPRE
    assert bool(struct.unpack_from("<H", ctrl, 322)[0] & 1) == (0x10 in there)          # HCTMA
    ctratt = struct.unpack_from("<I", ctrl, 96)[0]
    assert bool(ctratt >> 1 & 1) == (0x11 in there)                     # non-operational power states
    assert bool(ctratt >> 5 & 1) == (0x13 in there) == (0x14 in there)  # predictable latency
    assert bool(ctratt >> 19 & 1) == (0x1d in there)                    # placement
    assert bool(struct.unpack_from("<H", ctrl, 520)[0] >> 6 & 1) == (0x0e in there)     # timestamp


def test_log_pages(n):
    log = n.log(0x00, 1024)
    there = {i for i in range(256) if log[4 * i] & 1}
    assert {1, 2, 3} <= there
    for lid in range(256):
        n.q.write(n.mem + 0x40000, bytes(PAGE))
        st = {n.admin.run(2, nsid=0xffffffff, prp1=n.mem + 0x40000, cdw=(lid | 15 << 16 | lsp << 8, lsi << 16)).status for lsp, lsi in ((0, 0), (0, 1), (1, 1))}
        assert (st == {INVALID_LOG}) == (lid not in there), (lid, st)
    ctratt = struct.unpack_from("<I", n.identify(1), 96)[0]
    assert bool(ctratt >> 5 & 1) == (0x0a in there) == (0x0b in there)  # predictable latency
    assert bool(ctratt >> 4 & 1) == (0x09 in there) == (0x0f in there)  # endurance groups
    assert bool(n.identify(1)[261] >> 4 & 1) == (0x0d in there)         # persistent events
    assert bool(n.readq(0) >> 45 & 1) == (0x15 in there) == n.full      # boot partitions
    assert n.identify(4) == bytes(PAGE)                                 # no NVM sets: CTRATT says none
    assert not ctratt >> 2 & 1
