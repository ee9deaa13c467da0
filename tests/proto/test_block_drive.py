# SPDX-License-Identifier: MIT
"""Drives that come and go while the machine stands: drive_add, drive_del; and drives on a machine that has no place for them."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, QmpError, run
from lib.nvme import RAM
from lib.virtio import VirtioMachine, disk_read

DATA = RAM + 0x800000
NULL = "if=none,id=%s,format=raw,file.driver=null-co,file.size=1M"


def drives(q):
    return [b["device"] for b in q.cmd("query-block") if b["device"]]


@pytest.fixture(name="q")
def machine():
    with Machine("-M", "none", "-drive", NULL % "first") as m:
        yield m.qmp


@pytest.mark.parametrize("option", [("-cdrom",), ("-hda",), ("-drive",)])
def test_a_drive_waits_where_there_is_no_place_for_its_device(tmp_path, option):
    image = tmp_path / "an image"
    image.write_bytes(bytes(1 << 20))
    value = str(image) if option[0] != "-drive" else "format=raw,file=%s" % image
    with Machine("-M", "none", "-nodefaults", *option, value) as m:
        assert str(image) in m.qmp.hmp("info block") and len(drives(m.qmp)) == 1
    status, _, err = run("-M", "none", "-display", "none", "-drive", "if=virtio,format=raw,file=%s" % image)
    assert status == 1 and "no PCI" in err


def test_added_and_deleted(q):
    assert q.hmp("drive_add 0 " + NULL % "second") == "OK\n" and drives(q) == ["first", "second"]
    for _ in range(2):
        assert q.hmp("drive_del second") == "" and drives(q) == ["first"]
        assert q.hmp("drive_add ignored " + NULL[8:] % "second") == "OK\n" and drives(q) == ["first", "second"]
    assert q.hmp("drive_add -n 0 driver=null-co,node-name=node,size=1M") == "OK\n" and drives(q) == ["first", "second"]
    assert "was not made by -drive" in q.hmp("drive_del node") and q.cmd("blockdev-del", node_name="node") == {}
    assert "qcow2" in q.hmp("drive_add ignored format=help")
    for line in ("drive_add 0 " + NULL % "first", "drive_add 0 if=virtio,file=null-co://", "drive_add 0", "drive_add 0 if=none,id=x,nope=1,file=null-co://",
                 "drive_add -n 0 driver=nope,node-name=x", "drive_del nope", "drive_del"):
        assert q.hmp(line).startswith("Error: "), line
    assert drives(q) == ["first", "second"]


def test_deleted_below_a_device(tmp_path):
    with VirtioMachine(tmp_path, "-nodefaults", "-drive", NULL % "d", "-device", "virtio-blk-pci,drive=d,id=disk,addr=4") as m:
        fn = m.fn(4)
        assert fn.negotiate()
        vq = fn.queue(0)
        fn.start()

        def read():
            status = disk_read(fn, vq, 0, DATA)
            vq.wait()
            return fn.q.read(status, 1)[0]

        assert read() == 0
        m.qmp.cmd("blockdev-add", driver="null-co", node_name="n", size=1 << 20)
        m.qmp.cmd("blockdev-mirror", device="d", target="n", sync="none", job_id="j")
        assert "job" in m.qmp.hmp("drive_del d") and read() == 0
        m.qmp.cmd("block-job-cancel", device="j")
        m.qmp.wait_event("BLOCK_JOB_COMPLETED")
        while m.qmp.cmd("query-jobs"):
            pass
        assert m.qmp.hmp("drive_del d") == "" and drives(m.qmp) == []
        assert [read() for _ in range(2)] == [1, 1]
        assert m.qmp.hmp("drive_add 0 " + NULL % "d") == "OK\n"
        with pytest.raises(QmpError):
            m.qmp.cmd("blockdev-del", node_name="nope")
        assert m.qmp.hmp("drive_del d") == ""


def test_an_empty_drive_and_its_media(tmp_path):
    """The drive keeps its name whatever is in it; a device without a tray refuses it, and so does a node."""
    disc = tmp_path / "disc"
    disc.write_bytes(bytes(1 << 20))
    with Machine("-M", "virt", "-nodefaults", "-S", "-drive", "if=none,id=cd0,media=cdrom,aio=io_uring", "-device", "virtio-scsi-pci",
                 "-device", "scsi-cd,drive=cd0,id=dev0", "-device", "pcie-root-port,id=port") as m:
        q = m.qmp
        for _ in range(2):
            assert drives(q) == ["cd0"] and "inserted" not in q.cmd("query-block")[0]
            assert q.hmp("change cd0 %s" % disc) == ""
            assert drives(q) == ["cd0"] and q.cmd("query-block")[0]["inserted"]["file"] == str(disc)
            assert q.hmp("eject cd0") == ""
        q.hmp("change cd0 %s" % disc)
        assert q.hmp("drive_del cd0") == "" and drives(q) == [] and "inserted" not in q.cmd("query-block")[0]
        assert q.hmp("drive_add 0 if=none,id=cd0") == "OK\n" and drives(q) == ["cd0"]
        with pytest.raises(QmpError, match="drive 'cd0' is empty"):
            q.cmd("device_add", driver="virtio-blk-pci", drive="cd0", bus="port")
        with pytest.raises(QmpError, match="drive 'cd0' is empty"):
            q.cmd("blockdev-add", driver="raw", node_name="n", file="cd0")
        assert drives(q) == ["cd0"] and q.hmp("drive_del cd0") == "" and drives(q) == []
