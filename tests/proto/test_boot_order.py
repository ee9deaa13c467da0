# SPDX-License-Identifier: MIT
"""bootindex= of devices and -boot strict=on: the file "bootorder" that firmware finds in fw_cfg (QEMU's fw_cfg.rst tells its registers)."""
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import QmpError, run
from lib.qtest import QtestMachine

DATA, SELECTOR, DIRECTORY = 0x10100000, 0x10100008, 0x19


def disks(*names):
    return [a for n in names for a in ("-blockdev", "null-co,node-name=%s,size=1M" % n)]


def item(m, key, size):
    m.q.wr(SELECTOR, struct.unpack("<H", struct.pack(">H", key))[0], 2)
    return bytes(m.q.rd(DATA, 1) for _ in range(size))


def order(m):
    """The lines of the file; None where there is none."""
    count, = struct.unpack(">I", item(m, DIRECTORY, 4))
    for entry in struct.iter_unpack(">IHH56s", item(m, DIRECTORY, 4 + count * 64)[4:]):
        if entry[3].rstrip(b"\0") == b"bootorder":
            text = item(m, entry[1], entry[0])
            assert not text or text[-1] == 0
            return text[:-1].decode().split("\n") if text else []
    return None


HOST = "/pci@0000000030000000"
PLACES = {
    "virtio-blk-pci,drive=a,addr=2": HOST + "/scsi@2/disk@0,0",
    "virtio-blk-pci,drive=a,addr=2.3": HOST + "/scsi@2,3/disk@0,0",
    "virtio-blk-device,drive=a,bus=virtio-mmio-bus.1": "/virtio-mmio@0000000010002000/disk@0,0",
    "virtio-net-pci,netdev=u,addr=3": HOST + "/ethernet@3/ethernet-phy@0",
    "nvme,serial=s,drive=a,addr=4": HOST + "/pci1b36,0010@4/namespace@1,0",
    "nvme-ns,bus=ctl,drive=a,nsid=3": HOST + "/pci1b36,0010@10/namespace@3,0",
    "scsi-hd,bus=hba.0,drive=a,scsi-id=2,lun=1": HOST + "/scsi@11/channel@0/disk@2,1",
    "scsi-cd,bus=hba.0,drive=a,scsi-id=3": HOST + "/scsi@11/channel@0/disk@3,0",
    "ide-hd,bus=sata.2,drive=a": HOST + "/pci8086,2922@12/drive@2/disk@0",
    "virtio-blk-pci,drive=a,bus=port,addr=0": HOST + "/pci-bridge@13/scsi@0/disk@0,0",
}
HOSTS = ["-netdev", "user,id=u", "-device", "nvme,id=ctl,serial=c,addr=10", "-device", "virtio-scsi-pci,id=hba,addr=11", "-device", "ahci,id=sata,addr=12",
         "-device", "pcie-root-port,id=port,addr=13"]


@pytest.mark.parametrize("device", PLACES)
def test_path_of_a_device(tmp_path, device):
    with QtestMachine(tmp_path, *disks("a"), *HOSTS, "-device", device + ",bootindex=7") as m:
        assert order(m) == [PLACES[device]]


def test_the_least_is_first(tmp_path):
    devices = [a for n, i in (("a", 5), ("b", 0), ("c", 1000)) for a in ("-device", "virtio-blk-pci,drive=%s,bootindex=%d,addr=%x" % (n, i, i or 7))
               if i < 1000] + ["-device", "virtio-blk-pci,drive=c,addr=9"]
    with QtestMachine(tmp_path, *disks("a", "b", "c"), *devices, "-boot", "strict=on") as m:
        assert order(m) == [HOST + "/scsi@7/disk@0,0", HOST + "/scsi@5/disk@0,0", "HALT"]


def test_without_places_there_is_no_file(tmp_path):
    with QtestMachine(tmp_path, *disks("a"), "-device", "virtio-blk-pci,drive=a", "-boot", "strict=on") as m:
        assert order(m) is None


def test_a_place_is_one_device_s(tmp_path):
    status, _, err = run("-M", "virt", "-display", "none", *disks("a", "b"), "-device", "virtio-blk-pci,id=first,drive=a,bootindex=1", "-device",
                         "nvme,serial=s,drive=b,bootindex=1")
    assert status == 1 and "bootindex=1 is the place of 'first'" in err
    with QtestMachine(tmp_path, *disks("a", "b"), "-device", "virtio-scsi-pci,id=hba,addr=1", "-device", "scsi-hd,id=d,drive=a,lun=1,bootindex=1") as m:
        with pytest.raises(QmpError) as e:
            m.qmp.cmd("device_add", driver="scsi-hd", drive="b", lun=2, bootindex=1)
        assert "place of 'd'" in e.value.desc


def test_a_reset_tells_of_what_came_and_went(tmp_path):
    with QtestMachine(tmp_path, *disks("a", "b"), "-device", "virtio-scsi-pci,id=hba,addr=1", "-device", "scsi-hd,id=d,drive=a,lun=1,bootindex=1") as m:
        m.qmp.cmd("device_add", driver="scsi-hd", id="e", drive="b", lun=2, bootindex=0)
        m.qmp.cmd("system_reset")
        m.qmp.wait_event("RESET")
        assert order(m) == [HOST + "/scsi@1/channel@0/disk@0,2", HOST + "/scsi@1/channel@0/disk@0,1"]
        for i in "de":
            m.qmp.cmd("device_del", id=i)
        m.qmp.cmd("system_reset")
        m.qmp.wait_event("RESET")
        assert order(m) == []
