# SPDX-License-Identifier: MIT
"""Guest memory whose file gives no page: the machine stops, the message names the file, and it goes on once there is room."""
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine
from lib.qtest import Qtest

RAM, SIZE = 0x80000000, 64 << 20


def machine(tmp_path, mem_path):
    path = str(tmp_path / "qtest")
    return Machine("-M", "virt,memory-backend=m0", "-m", "64M", "-accel", "qtest", "-serial", "null", "-nodefaults",
                   "-object", "memory-backend-file,id=m0,size=64M,share=on,mem-path=%s" % mem_path,
                   "-qtest", "unix:%s,server=on,wait=off" % path, "-qtest-log", "/dev/null"), path


def status(m):
    return m.qmp.cmd("query-status")["status"]


def test_a_file_that_was_cut_stops_the_machine_until_it_is_whole(tmp_path):
    ram = tmp_path / "ram"
    vm, path = machine(tmp_path, ram)
    with vm as m:
        q = Qtest(m.connect(path))
        q.wr(RAM + 0x1000, 0x11111111)
        os.truncate(ram, 0x2000)
        q.wr(RAM + 0x5000, 0x22222222)
        q.wr(RAM + 0x5ffc, 0x33333333)
        m.qmp.wait_event("STOP")
        assert status(m) == "io-error"
        assert q.rd(RAM + 0x5000) == 0x22222222
        m.qmp.cmd("cont")                      # still cut: it stops again
        m.qmp.wait_event("STOP")
        assert status(m) == "io-error"
        os.truncate(ram, SIZE)
        m.qmp.cmd("cont")
        assert status(m) == "running"
        q.wr(RAM + 0x5004, 0x44444444)
        data = ram.read_bytes()
        assert data[0x1000:0x1004] == b"\x11" * 4
        assert data[0x5000:0x5008] == b"\x22" * 4 + b"\x44" * 4
        assert data[0x5ffc:0x6000] == b"\x33" * 4
    assert str(ram) in m.output and "was cut short" in m.output


def test_a_full_file_system_stops_the_machine_until_there_is_room(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(full)], check=False, capture_output=True).returncode:
        pytest.skip("not allowed to mount a file system")
    try:
        vm, path = machine(tmp_path, full / "ram")
        with vm as m:
            q = Qtest(m.connect(path))
            (full / "filler").write_bytes(b"x" * (900 << 10))
            for i in range(64):
                q.wr(RAM + i * 0x1000, 0x1000 + i)
            m.qmp.wait_event("STOP")
            assert status(m) == "io-error"
            (full / "filler").unlink()
            m.qmp.cmd("cont")
            assert status(m) == "running"
            for i in range(64):
                assert q.rd(RAM + i * 0x1000) == 0x1000 + i
            with open(full / "ram", "rb") as f:
                f.seek(63 * 0x1000)
                assert f.read(4) == (0x1000 + 63).to_bytes(4, "little")
        assert str(full / "ram") in m.output and "has no room" in m.output
    finally:
        subprocess.run(["umount", "-l", str(full)], check=False)
