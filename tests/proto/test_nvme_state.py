# SPDX-License-Identifier: MIT
"""What an NVMe subsystem keeps in its state file: it is there again in the next run, also after the program was killed."""
import json
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import NvmeMachine, read, rw, write

MIB = 1 << 20


class Home:
    """Images and a state file that machines come and go with."""

    def __init__(self, tmp):
        self.tmp, self.state = tmp, str(tmp / "state.json")
        for name in ("d1", "d2"):
            with open(tmp / name, "wb") as f:
                f.truncate(8 * MIB)

    def args(self):
        drives = [x for name in ("d1", "d2") for x in ("-drive", "file=%s,format=raw,if=none,id=%s" % (self.tmp / name, name))]
        return drives + ["-device", "nvme-subsys,id=ss,state=" + self.state, "-device", "nvme,serial=A,id=a,subsys=ss,addr=1",
                         "-device", "nvme-ns,bus=a,drive=d1,nsid=1", "-device",
                         "nvme-ns,bus=a,drive=d2,nsid=2,zoned=on,zoned.zone_size=1M,zoned.descr_ext_size=64"]

    def start(self):
        return NvmeMachine(self.tmp, *self.args())


@pytest.fixture(name="home")
def folder(tmp_path):
    return Home(tmp_path)


def zones(io, n=8):
    buf = io.nvme.alloc()
    assert io.run(0x7a, 2, prp1=buf, cdw=(0, 0, 1023, 1 << 16)).status == 0
    raw = io.nvme.q.read(buf, 4096)
    return [(raw[64 + 64 * i + 1] >> 4, struct.unpack_from("<Q", raw, 64 + 64 * i + 24)[0]) for i in range(n)]


def test_everything_is_there_again(home):
    with home.start() as m:
        n = m.nvme(1).enable(cc=0x00460001 | 6 << 4)
        io = n.io_queue()
        buf = n.alloc()
        n.q.write(buf, b"\x77" * 64)
        assert n.set_feature(8, 0x0203, save=1).status == 0
        assert n.admin.run(0x80, nsid=1, cdw=(4,)).status == 0
        data = os.urandom(8192)
        assert write(io, 1, 100, data, size=4096).status == 0
        assert io.run(4, 1, cdw=(200, 0, 3)).status == 0
        assert write(io, 2, 0, bytes(2048)).status == 0 and write(io, 2, 2048, bytes(512)).status == 0
        assert io.run(0x79, 2, cdw=(2048, 0, 0, 2)).status == 0 and io.run(0x79, 2, prp1=buf, cdw=(4096, 0, 0, 0x10)).status == 0
        uuid = n.identify(3, nsid=1)[:20]
        assert io.run(0, 0xffffffff).status == 0                # from here on a crash loses nothing
        m.process.kill()
        m.process.wait()
    with home.start() as m:
        n = m.nvme(1).enable(cc=0x00460001 | 6 << 4)
        io = n.io_queue()
        assert n.feature(8).result == 0x0203 and n.identify(3, nsid=1)[:20] == uuid
        assert n.identify(0, nsid=1)[26] == 4 and read(io, 1, 100, 2, size=4096) == data
        assert read(io, 1, 202, 1, size=4096).status == 0x281 and isinstance(read(io, 1, 204, 1, size=4096), bytes)
        assert zones(io)[:4] == [(4, 4), (14, (1 << 64) - 1), (4, 4096), (1, 6144)]
        assert write(io, 2, 4, bytes(512)).status == 0
        assert struct.unpack_from("<Q", n.log(2, 512), 112)[0] == 2             # power cycles
        assert struct.unpack_from("<Q", n.log(2, 512), 144)[0] == 1             # one of them unsafe


def test_namespaces_that_the_host_made(home):
    with home.start() as m:
        n = m.nvme(1).enable()
        assert n.admin.run(0x0d, nsid=1, cdw=(1,)).status == 0
        buf = n.alloc()
        raw = bytearray(384)
        struct.pack_into("<QQ", raw, 0, 1000, 1000)
        raw[26] = 1
        raw[29] = 1
        n.q.write(buf, bytes(raw))
        assert n.admin.run(0x0d, prp1=buf, cdw=(0,)).result == 1 and n.admin.run(0x0d, prp1=buf, cdw=(0,)).result == 3
        n.q.write(buf, struct.pack("<HH", 1, 0))
        assert n.admin.run(0x15, nsid=3, prp1=buf, cdw=(0,)).status == 0
        io = n.io_queue()
        assert rw(io, 1, 3, 999, 1, n.alloc(), control=8 << 10, cdw=(0, 999, 0)).status == 0
        m.qmp.cmd("quit")
        m.wait()
    with home.start() as m:
        n = m.nvme(1).enable()
        assert n.identify(0x10)[:16] == struct.pack("<IIII", 1, 2, 3, 0)
        assert struct.unpack_from("<Q", n.identify(0, nsid=3))[0] == 1000 and n.identify(0, nsid=1) == bytes(4096)
        io = n.io_queue()
        assert rw(io, 2, 3, 999, 1, n.alloc(), control=15 << 10, cdw=(0, 999, 0)).status == 0


def test_reservations_through_power_loss(home):
    def host(n):
        buf = n.alloc()
        n.q.write(buf, struct.pack("<QQ", 5, 6))
        assert n.set_feature(0x81, 1, prp1=buf).status == 0

    with home.start() as m:
        n = m.nvme(1).enable()
        host(n)
        io, buf = n.io_queue(), n.alloc()
        n.q.write(buf, struct.pack("<QQ", 0, 0x1234))
        assert io.run(0x0d, 1, prp1=buf, cdw=(3 << 30,)).status == 0
        n.q.write(buf, struct.pack("<QQ", 0x1234, 0))
        assert io.run(0x11, 1, prp1=buf, cdw=(1 << 8,)).status == 0 and io.run(0, 1).status == 0
        m.process.kill()
        m.process.wait()
    with home.start() as m:
        n = m.nvme(1).enable()
        io, buf = n.io_queue(), n.alloc()
        assert write(io, 1, 0, bytes(512)).status == 0x83
        host(n)
        assert write(io, 1, 0, bytes(512)).status == 0
        assert io.run(0x0e, 1, prp1=buf, cdw=(1023, 1)).status == 0
        rep = n.q.read(buf, 128)
        assert rep[4] == 1 and rep[9] == 1 and struct.unpack_from("<QQQ", rep, 72) == (0x1234, 5, 6)


@pytest.mark.parametrize("text,words", [("{", "no file of this kind"), ('{"version": 2}', "version"), ("[]", "version"),
                                        ('{"version": 1, "units": {"d1": [{"nsid": 1}]}}', "makes no sense"),
                                        ('{"version": 1, "units": {"d1": [{"nsid": 1, "base": 0, "space": 99999999, "shift": 9, "ms": 0, "pi": 0, "pil": 0, '
                                         '"anagrp": 1, "protect": 0, "read": 0, "written": 0, "nguid": "%s", "uuid": "%s"}]}}' % ("0" * 32, "0" * 32), "larger")])
def test_files_that_make_no_sense_are_refused_and_kept(home, text, words):
    with open(home.state, "w", encoding="ascii") as f:
        f.write(text)
    status, _, err = run("-M", "virt", *home.args())
    assert status == 1 and words in err, err
    with open(home.state, encoding="ascii") as f:
        assert f.read() == text


def test_a_place_that_cannot_be_written_is_refused():
    for path in ("", "/nonexistent/state", "/dev"):
        status, _, err = run("-M", "virt", "-device", "nvme,serial=x,state=" + path)
        assert status == 1 and ("cannot be written" in err or "no file of this kind" in err), err


def test_the_file_is_json_and_keeps_what_it_does_not_know(home):
    with open(home.state, "w", encoding="ascii") as f:
        json.dump({"version": 1, "units": {"gone": []}, "controllers": {"OLD": {"reads": 5}}}, f)
    with home.start() as m:
        m.nvme(1).enable().set_feature(1, 3, save=1)
        m.qmp.cmd("quit")
        m.wait()
    with open(home.state, encoding="ascii") as f:
        doc = json.load(f)
    assert doc["units"]["gone"] == [] and doc["controllers"]["OLD"] == {"reads": 5}
    assert doc["controllers"]["A"]["features"]["1"] == 3 and [x["nsid"] for x in doc["units"]["d1"]] == [1]
