# SPDX-License-Identifier: MIT
"""The board's flash banks: what the guest programs reaches the image; read-only images are never written."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, run
from lib.qtest import Qtest

BANK1, SIZE = 0x22000000, 32 << 20
READY, ERROR, LOCKED = 0x80, 0x10, 0x02


@pytest.fixture(name="image")
def erased_bank(tmp_path):
    path = tmp_path / "vars"
    with open(path, "wb") as f:
        for _ in range(SIZE >> 20):
            f.write(b"\xff" * (1 << 20))
    return path


def flash(tmp_path, image, more=""):
    path = str(tmp_path / "qtest")
    return Machine("-M", "virt,pflash1=pf1", "-m", "64M", "-accel", "qtest", "-serial", "null", "-nodefaults",
                   "-blockdev", "node-name=pf1,driver=file,filename=%s%s" % (image, more),
                   "-qtest", "unix:%s,server=on,wait=off" % path, "-qtest-log", "/dev/null"), path


def program(q, off, value):
    """Programs one word; returns the status of one chip."""
    q.wr(BANK1 + off, 0x00400040)
    q.wr(BANK1 + off, value)
    status = q.rd(BANK1)
    assert status >> 16 == status & 0xffff
    q.wr(BANK1, 0x00ff00ff)
    return status & 0xff


def test_what_is_programmed_reaches_the_image(tmp_path, image):
    machine, path = flash(tmp_path, image)
    with machine as m:
        q = Qtest(m.connect(path))
        assert program(q, 0x1000, 0x11223344) == READY
        assert program(q, SIZE - 4, 0x55667788) == READY
        assert q.rd(BANK1 + 0x1000) == 0x11223344
        m.qmp.cmd("quit")
        assert m.wait() == 0
    data = image.read_bytes()
    assert data[0x1000:0x1004] == bytes.fromhex("44332211")
    assert data[SIZE - 4:] == bytes.fromhex("88776655")
    assert data.count(b"\xff") == SIZE - 8


def test_a_read_only_image_reads_as_locked(tmp_path, image):
    machine, path = flash(tmp_path, image, ",read-only=on")
    with machine as m:
        q = Qtest(m.connect(path))
        assert program(q, 0x1000, 0x11223344) == READY | ERROR | LOCKED
        assert q.rd(BANK1 + 0x1000) == 0xffffffff
    assert image.read_bytes().count(b"\xff") == SIZE


def test_a_disk_on_a_read_only_node_starts(tmp_path, image):
    """The card offers VIRTIO_BLK_F_RO (bit 5) and no flush, discard or write-zeroes (9, 13, 14) to its driver."""
    path = str(tmp_path / "qtest")
    with Machine("-M", "virt", "-m", "64M", "-accel", "qtest", "-serial", "null", "-nodefaults",
                 "-blockdev", "node-name=d,driver=file,read-only=on,filename=%s" % image, "-device", "virtio-blk-device,drive=d",
                 "-qtest", "unix:%s,server=on,wait=off" % path, "-qtest-log", "/dev/null") as m:
        q = Qtest(m.connect(path))
        assert q.rd(0x10001000) == 0x74726976
        features = q.rd(0x10001010)
        assert features & 1 << 5
        assert not features & (1 << 9 | 1 << 13 | 1 << 14)


def test_an_image_of_another_size_is_refused(tmp_path):
    small = tmp_path / "small"
    small.write_bytes(b"\xff" * 4096)
    status, _, text = run("-M", "virt,pflash1=pf1", "-display", "none", "-blockdev", "node-name=pf1,driver=file,filename=%s" % small)
    assert status == 1
    assert "'pf1' has 4096 bytes, the bank is 32 MiB" in text and "truncate -s 32M" in text
