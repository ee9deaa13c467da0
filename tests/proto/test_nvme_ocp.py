# SPDX-License-Identifier: MIT
"""Pages and features of the Open Compute Project's specification of datacenter SSDs, unless ocp=off."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import NvmeMachine

INVALID_FIELD, INVALID_LOG = 0x02, 0x109
RECOVERY, FIRMWARE = "5a1983ba3dfd4dabae3430fe2131d944", "d11cf3ac8ab24de2a3f6dab4769a796d"


def machine(tmp_path, **options):
    dev = dict({"driver": "nvme", "serial": "O", "id": "n0", "addr": "1", "ocp": True}, **options)
    return NvmeMachine(tmp_path, "-device", json.dumps(dev))


def ends(page, version, guid):
    return struct.unpack("<H", page[-18:-16])[0] == version and page[-16:][::-1].hex() == guid


def test_only_where_the_option_is_on(tmp_path):
    with machine(tmp_path, ocp=False) as m:
        n = m.nvme(1).enable()
        for lid in (0xc0, 0xc1, 0xc2):
            assert n.log(lid, 512).status == INVALID_LOG and not n.log(0, 1024)[4 * lid]
        for fid in (0xc1, 0xc3):
            assert n.set_feature(fid, 1 << 31).status == INVALID_FIELD and not n.log(0x12, 1024)[4 * fid]
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        assert all(n.log(0, 1024)[4 * lid] & 1 for lid in (0xc0, 0xc1, 0xc2)) and n.set_feature(0xc3, 1 << 31).status == 0
        assert n.feature(0xc3).result == 0 and n.log(0xc8, 512).status == INVALID_LOG and n.feature(0xc6).status == INVALID_FIELD


def test_fatal_statuses_are_counted(tmp_path):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        page = n.log(0xc1, 512)
        assert ends(page, 2, RECOVERY) and page[2] == 1 and page[12] == 2 and page[31] == 0 and not any(page[4:12] + page[32:64])
        for count in range(1, 8):
            n.disable()
            n.writel(0x24, 0)                                   # admin queues of one entry
            n.writel(0x14, 0x00460001)
            assert n.readl(0x1c) & 2
            n.writel(0x14, 0)
            n.enable()                                          # the action that the page recommends
            page = n.log(0xc1, 512)
            assert page[31] == count and struct.unpack_from("<Q", page, 4)[0] == 1
            assert sum(struct.unpack_from("<4Q", page, 32)) == min(count - 1, 4)


def commit(n, slot, action, revision=None):
    if revision:
        buf = n.alloc()
        n.q.write(buf, revision)
        assert n.admin.run(0x11, prp1=buf, cdw=(1023, 0)).status == 0
    return n.admin.run(0x10, cdw=(action << 3 | slot,)).status


def history(n):
    page = n.log(0xc2, 4096)
    assert page[0] == 0xc2 and ends(page, 1, FIRMWARE)
    count = struct.unpack_from("<I", page, 4)[0]
    entries = [page[8 + 64 * i:72 + 64 * i] for i in range(20)]
    assert all(e[:2] == b"\x01\x40" for e in entries[:count]) and not any(b"".join(entries[count:]))
    return [(struct.unpack_from("<H", e, 4)[0], e[30:38], e[38:46], e[46], e[47]) for e in entries[:count]]


def test_firmware_that_ran(tmp_path):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        first = n.identify(1)[64:72]
        assert history(n) == []
        assert commit(n, 2, 0, b"SECOND 2") == 0 and history(n) == []           # only replaced
        assert commit(n, 2, 3) == 0
        assert history(n) == [(1, first, b"SECOND 2", 2, 3)]
        assert commit(n, 3, 1, b"THIRD  3") == 0x111 and len(history(n)) == 1   # with the next reset
        n.disable()
        n.enable()
        assert n.identify(1)[64:72] == b"THIRD  3" and history(n)[1:] == [(2, b"SECOND 2", b"THIRD  3", 3, 1)]
        for i in range(20):
            assert commit(n, 1 + i % 2, 3) == 0
        got = history(n)
        assert [e[0] for e in got] == list(range(3, 23)) and got[0][1:3] == (b"THIRD  3", first)
        assert n.set_feature(0xc1, 0).status == 0 and len(history(n)) == 20
        assert n.set_feature(0xc1, 1 << 31).status == 0 and history(n) == []
        assert commit(n, 3, 3) == 0 and history(n)[0][0] == 23


@pytest.mark.parametrize("lid", (0xc1, 0xc2))
def test_a_part_of_a_page(tmp_path, lid):
    with machine(tmp_path) as m:
        n = m.nvme(1).enable()
        size = 512 if lid == 0xc1 else 4096
        assert n.log(lid, 32, off=size - 32) == n.log(lid, size)[-32:] and n.log(lid, 4, off=size + 4).status == INVALID_FIELD
