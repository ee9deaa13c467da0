# SPDX-License-Identifier: MIT
"""SCSI on the command line: the example of QEMU's manual, addresses, and what is refused with which words."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, QmpError, run

VIRT = ("-M", "virt", "-m", "64M", "-accel", "qtest", "-serial", "null")


@pytest.fixture(name="disk")
def disk_file(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    return str(path)


def drive(disk):
    return ("-blockdev", "driver=raw,node-name=hd0,file.driver=file,file.filename=" + disk)


def test_the_example_of_the_manual(disk):
    with Machine(*VIRT, *drive(disk), "--device", "virtio-scsi-pci,id=foo,bus=pcie.0,addr=1", "--device", "scsi-hd,bus=foo.0,drive=hd0,id=d") as m:
        tree = m.qmp.hmp("info qtree")
        assert "bus: foo.0" in tree and 'dev: scsi-hd, id "d"' in tree
        assert "scsi-id = 0" in tree and "lun = 0" in tree
        m.qmp.cmd("device_del", id="d")
        m.qmp.wait_event("DEVICE_DELETED")
        m.qmp.cmd("device_add", driver="scsi-hd", bus="foo.0", drive="hd0", id="d2")
        assert 'dev: scsi-hd, id "d2"' in m.qmp.hmp("info qtree")


@pytest.mark.parametrize("option,text", [
    ("scsi-hd,drive=hd0,scsi-id=256", "scsi-id=256: bus 'foo.0' has targets 0 to 255"),
    ("scsi-hd,drive=hd0,channel=1", "channel=1: bus 'foo.0' has channels 0 to 0"),
    ("scsi-hd,drive=hd0,lun=16384", "lun=16384: bus 'foo.0' has logical units 0 to 16383"),
    ("scsi-hd", "'drive' is missing: this device needs a block node"),
    ("scsi-hd,drive=hd0,vendor=TooLongAName", "vendor=TooLongAName is longer than 8 characters"),
    ("scsi-hd,drive=hd0,logical_block_size=8k", "logical_block_size is 8192, the most is 4096"),
    ("scsi-hd,drive=hd0,opt_io_size=4G", "'4G' is not a valid value for 'opt_io_size'"),
    ("scsi-cd,drive=hd0,logical_block_size=512", "logical_block_size is 512, but a CD has 2048"),
    ("scsi-hd,drive=hd0,serail=1", "unknown property 'serail' for device 'scsi-hd'"),
])
def test_what_is_refused(disk, option, text):
    status, _, err = run(*VIRT, *drive(disk), "-device", "virtio-scsi-pci,id=foo", "-device", option)
    assert status == 1 and text in err, err


@pytest.mark.parametrize("option,texts", [
    ("ide-hd,drive=hd0,unit=1", ("unit=1: a SATA port has one drive, 0", "bus=ID.N names another port")),
    ("ide-hd,drive=hd0,ver=123456789", ("ver=123456789 is longer than 8 characters",)),
    ("ide-hd,drive=hd0,model=" + 41 * "x", ("is longer than 40 characters",)),
    ("ide-hd,drive=hd0,product=x", ("not in this build", "model=")),
    ("ide-hd,drive=hd0,port_index=1", ("unknown property 'port_index'",)),      # it would mean nothing
    ("ide-cd,drive=hd0,cyls=1,heads=1,secs=1", ("unknown property 'cyls'",)),
    ("ide-hd,drive=hd0,bus=s.0", ("bus 's.0' is a SCSI bus; device 'ide-hd' plugs into IDE", "IDE buses here: a.0")),
    ("scsi-cd,drive=hd0,cyls=1,heads=1,secs=1", ("unknown property 'cyls'",)),
    ("scsi-hd,drive=hd0,scsi_version=5", ("not in this build", "SPC-5")),
    ("ide-drive,drive=hd0", ("not in this build", "ide-hd is a disk, ide-cd a CD-ROM drive")),
    ("piix3-ide", ("not in this build", "ich9-ahci has ports for ide-hd")),
    ("virtio-scsi-pci,iothread-vq-mapping=x", ("not in this build", "iothread=")),
])
def test_options_that_would_mean_nothing(disk, option, texts):
    status, _, err = run(*VIRT, *drive(disk), "-device", "virtio-scsi-pci,id=s", "-device", "ahci,id=a", "-device", option)
    assert status == 1 and all(t in err for t in texts), err


@pytest.mark.parametrize("device,hint", [("virtio-scsi-pci -device scsi-hd", True), ("ahci -device ide-hd", False)])
def test_a_disk_without_a_block(tmp_path, device, hint):
    (tmp_path / "none").write_bytes(b"")
    status, _, err = run(*VIRT, *drive(str(tmp_path / "none")), "-device", *(device + ",drive=hd0").split())
    assert status == 1 and "'hd0' has no block of 512 bytes" in err and ("removable=on" in err) == hint, err     # a SATA disk has no such option


def test_the_hint_names_no_bus_that_is_there(disk):
    status, _, err = run(*VIRT, *drive(disk), "-device", "virtio-scsi-pci,id=s", "-device", "ide-hd,drive=hd0,bus=s.0")
    assert status == 1 and err.endswith("hint: add one before it: -device ich9-ahci\n"), err


def test_a_file_that_has_two_nodes(disk):
    status, _, err = run(*VIRT, *drive(disk), "-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=hd0", "-drive", "if=virtio,format=raw,file=" + disk)
    assert status == 1 and "is in use: another block node of this process does not allow others writing it" in err and "share-rw=on" in err, err
    assert "end that process" not in err


def test_a_disc_that_is_not_there_is_not_to_be_made_as_a_disk():
    status, _, err = run(*VIRT, "-cdrom", "/nonexistent/disc.iso")
    assert status == 1 and "cannot open '/nonexistent/disc.iso': No such file or directory" in err and "truncate" not in err, err


def test_two_at_one_address(disk):
    two = ("-blockdev", "driver=null-co,node-name=n")
    status, _, err = run(*VIRT, *drive(disk), *two, "-device", "virtio-scsi-pci,id=foo", "-device", "scsi-hd,drive=hd0,id=a,scsi-id=3,lun=1",
                         "-device", "scsi-hd,drive=n,scsi-id=3,lun=1")
    assert status == 1 and "channel=0, scsi-id=3, lun=1 of bus 'foo.0' is taken by 'a'" in err and "leave scsi-id= or lun= out" in err


def test_no_scsi_bus(disk):
    status, _, err = run(*VIRT, *drive(disk), "-device", "scsi-hd,drive=hd0")
    assert status == 1 and "no SCSI bus for device 'scsi-hd'" in err


def test_buses_of_adapters_without_a_name():
    two = ("-device", "virtio-scsi-pci", "-device", "megasas", "-device", "ich9-ahci", "-device", "ich9-ahci")
    null = ("-blockdev", "driver=null-co,node-name=a", "-blockdev", "driver=null-co,node-name=b")
    with Machine(*VIRT, *two, *null, "-device", "scsi-hd,bus=scsi.1,drive=a", "-device", "ide-hd,bus=ide.11,drive=b") as m:
        tree = m.qmp.hmp("info qtree")
        assert all("bus: %s.%d\n" % (kind, n) in tree for kind, count in (("scsi", 2), ("ide", 12)) for n in range(count))


def test_an_ahci_port_is_brought_by_its_controller(disk):
    status, _, err = run(*VIRT, *drive(disk), "-device", "ide-hd,drive=hd0")
    assert status == 1 and "no IDE bus for device 'ide-hd'" in err and "-device ich9-ahci" in err


def block(m, device="cd"):
    return [b for b in m.qmp.cmd("query-block") if b["qdev"] == device][0]


def test_media_are_changed(disk, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(64 << 10))
    with Machine(*VIRT, "-device", "virtio-scsi-pci,id=foo", "-device", "scsi-cd,id=cd", *drive(disk)) as m:
        q = m.qmp
        q.cmd("blockdev-add", driver="null-co", **{"node-name": "medium1"})        # a name that `change` does not take, then
        b = block(m)
        assert b["removable"] and not b["tray_open"] and not b["locked"] and "inserted" not in b
        with pytest.raises(QmpError, match="Tray of device 'cd' is not open"):
            q.cmd("blockdev-insert-medium", id="cd", node_name="hd0")
        q.cmd("blockdev-open-tray", id="cd")
        assert q.wait_event("DEVICE_TRAY_MOVED")["data"] == {"device": "", "id": "cd", "tray-open": True}
        q.cmd("blockdev-insert-medium", id="cd", node_name="hd0")
        with pytest.raises(QmpError, match="There already is a medium"):
            q.cmd("blockdev-insert-medium", id="cd", node_name="hd0")
        q.cmd("blockdev-close-tray", id="cd")
        assert block(m)["inserted"]["node-name"] == "hd0"
        with pytest.raises(QmpError, match="in use by device 'cd'"):
            q.cmd("blockdev-del", node_name="hd0")
        q.cmd("blockdev-change-medium", id="cd", filename=str(other), format="raw")
        assert block(m)["inserted"]["image"]["virtual-size"] == 64 << 10 and not block(m)["tray_open"]
        q.cmd("blockdev-del", node_name="hd0")                     # nobody uses it any more
        assert q.hmp("eject cd") == "" and "inserted" not in block(m) and block(m)["tray_open"]
        assert [n["node-name"] for n in q.cmd("query-named-block-nodes")] == ["medium1"]           # what `change` made went with the medium
        assert q.hmp("change cd %s" % other) == "" and block(m)["inserted"]["ro"]
        assert q.hmp('change -f cd "%s" raw retain' % other) == "" and block(m)["inserted"]["node-name"] == "medium3"
        for line, told in (("change", "'filename'"), ("change cd %s raw never" % other, "retain|read-only|read-write"), ("eject", "'id' or 'device'"),
                           ("change cd %s raw retain on" % other, "too many words"), ("device_del", "'id'")):
            answer = q.hmp(line)
            assert answer.startswith("Error: ") and told in answer, answer
        assert "medium3" in q.hmp("info block -v cd") and "medium3" in q.hmp("info block -v") and q.hmp("info block -v -n").count("/other (") == 2
        with pytest.raises(QmpError, match="nosuch"):
            q.cmd("eject", id="nosuch")
        with pytest.raises(QmpError, match="cannot open|No such file"):
            q.cmd("blockdev-change-medium", id="cd", filename="/nonexistent/x")
        assert block(m)["inserted"]["image"]["virtual-size"] == 64 << 10


def test_a_fixed_disk_has_no_tray(disk):
    with Machine(*VIRT, "-device", "virtio-scsi-pci,id=foo", *drive(disk), "-device", "scsi-hd,drive=hd0,id=d") as m:
        with pytest.raises(QmpError, match="Device 'd' is not removable"):
            m.qmp.cmd("eject", id="d")


@pytest.mark.parametrize("device", ["scsi-block", "scsi-generic"])
def test_commands_pass_to_devices_of_the_host_only(disk, device):
    status, _, err = run(*VIRT, *drive(disk), "-device", "virtio-scsi-pci,id=foo", "-device", device + ",drive=hd0")
    assert status == 1 and "'hd0' is no SCSI device of the host" in err and "scsi-hd or scsi-cd" in err
    status, _, err = run(*VIRT, "-device", "virtio-scsi-pci,id=foo", "-device", device)
    assert status == 1 and "drive" in err


@pytest.mark.parametrize("option,text", [
    ("zone-capacity=32K", "'z' has zones of which 32768 of 65536 bytes can be written, which SCSI cannot tell"),
    ("max-active=3", "'z' limits active zones (max-active=3), which SCSI cannot tell"),
])
def test_zones_that_scsi_cannot_tell_of(disk, option, text):
    zoned = "driver=zoned,node-name=z,zone-size=64K,%s,file.driver=file,file.filename=%s" % (option, disk)
    status, _, err = run(*VIRT, "-blockdev", zoned, "-device", "virtio-scsi-pci,id=foo", "-device", "scsi-hd,drive=z")
    assert status == 1 and text in err, err
    status, _, err = run(*VIRT, "-blockdev", zoned, "-device", "virtio-scsi-pci,id=foo", "-device", "scsi-cd,drive=z")
    assert status == 1 and "of which this device cannot tell its guest" in err, err
