# SPDX-License-Identifier: MIT
"""dump-guest-memory: an ELF core with what RAM and the harts hold."""
import os
import struct
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, QmpError
from lib.qtest import QtestMachine

RAM = 0x80000000
TEXT = b"what the guest holds"
PC = 0x1000                     # of a hart that has not started


def sections(core):
    """[(type, address, size in the file, offset)] of a core, whose header is as it should be."""
    assert core[:7] == b"\x7fELF\x02\x01\x01"
    kind, machine = struct.unpack_from("<HH", core, 16)
    assert (kind, machine) == (4, 243)
    at, = struct.unpack_from("<Q", core, 32)
    size, count = struct.unpack_from("<HH", core, 54)
    rows = []
    for i in range(count):
        what, _, offset, _, physical, n, _, _ = struct.unpack_from("<IIQQQQQQ", core, at + i * size)
        rows.append((what, physical, n, offset))
    return rows


def load(core, address, n):
    """N bytes of guest memory out of a core."""
    for what, start, size, offset in sections(core):
        if what == 1 and start <= address and address + n <= start + size:
            return core[offset + address - start:offset + address - start + n]
    raise AssertionError("0x%x is in no segment" % address)


def notes(core):
    """One register set a hart: [pc, x1, ... x31]."""
    (_, _, size, offset), = [s for s in sections(core) if s[0] == 4]
    assert size % 396 == 0
    found = []
    for at in range(offset, offset + size, 396):
        assert struct.unpack_from("<III5s", core, at) == (5, 376, 1, b"CORE\0")
        found.append(struct.unpack_from("<32Q", core, at + 20 + 112))
    return found


def test_core_of_a_board(tmp_path):
    core = tmp_path / "core"
    with Machine("-M", "virt", "-m", "32M", "-smp", "2", "-S", "-serial", "null", "-bios", "none") as it:
        it.qmp.cmd("dump-guest-memory", paging=False, protocol="file:%s" % core)
        it.qmp.wait_event("DUMP_COMPLETED")
        assert it.qmp.cmd("query-dump") == {"status": "completed", "completed": 32 << 20, "total": 32 << 20}
        assert it.qmp.cmd("query-status")["status"] == "prelaunch"
        assert it.qmp.hmp("info dump") == "Status: completed\n"
    data = core.read_bytes()
    assert (os.stat(core).st_mode & 0o777) == 0o600
    assert [s[1:3] for s in sections(data) if s[0] == 1] == [(RAM, 32 << 20)]
    assert [n[0] for n in notes(data)] == [PC, PC]
    read = subprocess.run(["readelf", "-hln", str(core)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout
    assert "RISC-V" in read and read.count("NT_PRSTATUS") == 2 and "rror" not in read and "arning" not in read


def test_part_of_memory(tmp_path):
    with QtestMachine(tmp_path, "-m", "32M") as m:
        m.q.write(RAM + 0x5000, TEXT)
        whole, part = tmp_path / "whole", tmp_path / "part"
        m.qmp.cmd("dump-guest-memory", paging=False, protocol="file:%s" % whole, detach=True)
        m.qmp.wait_event("DUMP_COMPLETED")
        assert load(whole.read_bytes(), RAM + 0x5000, len(TEXT)) == TEXT
        assert m.qmp.hmp('dump-guest-memory "%s" 0x80005000 20' % part) == ""
        assert [s[1:3] for s in sections(part.read_bytes()) if s[0] == 1] == [(RAM + 0x5000, 20)]
        assert part.read_bytes().endswith(TEXT)


def test_running_machine_goes_on(tmp_path):
    with Machine("-M", "virt", "-m", "16M", "-serial", "null", "-bios", "none") as it:
        it.qmp.cmd("dump-guest-memory", paging=False, protocol="file:%s" % (tmp_path / "core"))
        seen = [it.qmp.wait_event(n)["event"] for n in ("STOP", "RESUME", "DUMP_COMPLETED")]
        assert seen == ["STOP", "RESUME", "DUMP_COMPLETED"] and it.qmp.cmd("query-status")["status"] == "running"


@pytest.mark.parametrize("more,part", [
    ({"paging": True}, "paging"), ({"format": "kdump-zlib"}, "format=kdump-zlib is not in this build"), ({"format": "x"}, "elf"),
    ({"begin": 0}, "'length' is missing"), ({"length": 1}, "'begin' is missing"), ({"begin": 0x40, "length": 1}, "no RAM"), ({"begin": RAM, "length": 0}, "no RAM"),
    ({"protocol": "/tmp/x"}, "neither file:PATH nor fd:NAME"), ({"protocol": "fd:nobody"}, "nobody"), ({"protocol": "file:/nope/x"}, "No such file"),
    ({"protocol": "file:/dev/full"}, "No space left")], ids=str)
def test_what_cannot_be_dumped(m, more, part):
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("dump-guest-memory", **{"paging": False, "protocol": "file:/dev/full", **more})
    assert part in str(e.value)


@pytest.mark.parametrize("line,part", [
    ("", "FILE"), ("-x f", "unknown option '-x'"), ("-p f", "paging"), ("-z f", "kdump-zlib"), ("-w f", "win-dmp"), ("f 1", "BEGIN LENGTH"), ("f one 2", "BEGIN LENGTH"),
    ("/nope/x", "No such file"), ("-", "unknown option")])
def test_lines_that_dump_nothing(m, line, part):
    answer = m.qmp.hmp("dump-guest-memory " + line)
    assert answer.startswith("Error: ") and part in answer


@pytest.fixture(name="m", scope="module")
def machine():
    with Machine("-M", "virt", "-m", "8M", "-S", "-serial", "null", "-bios", "none") as it:
        yield it
