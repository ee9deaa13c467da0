# SPDX-License-Identifier: MIT
"""SAS1068 under Linux's mptsas: SAS topology, long scatter lists, sense data, plug and unplug, task management."""
import pytest

import disklab
from disklab import MIB


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("mptsas"))
    drives = [a for n, size, more in (("h", 64 * MIB, ",discard=unmap"), ("b", 8 * MIB, ""), ("c", 2 * MIB, ",media=cdrom"))
              for a in ("-drive", "file=%s,format=raw,if=none,id=%s%s" % (disklab.image(d, n, size), n, more))]
    with disklab.lab(d, *drives, "-device", "mptsas1068,id=sas,sas_address=0x500605b000001230", "-device", "scsi-hd,bus=sas.0,drive=h,scsi-id=2,serial=SAS2",
                     "-device", "scsi-hd,bus=sas.0,drive=b,scsi-id=2,lun=3", "-device", "scsi-cd,bus=sas.0,drive=c,scsi-id=5",
                     devices=["/dev/sda", "/dev/sdb", "/dev/sr0"], modules=["mptsas", "sd_mod", "sr_mod"]) as m:
        m.disk = {}
        for lun in (0, 3):                                                      # the kernel's names come in any order
            m.disk[lun] = m.run("ls /sys/bus/scsi/devices/0:0:*:%d/block | grep ^sd" % lun)
        yield m


def addresses(m):
    """Of the targets that the driver knows."""
    return {int(a, 16) for a in m.run("cat /sys/class/sas_device/end_device-*/sas_address").split()}


def test_the_topology(lab):
    assert lab.run("ls /sys/class/sas_phy | wc -l") >= "8"
    assert addresses(lab) == {0x500605b00000123a, 0x500605b00000123d}         # the targets at phys 2 and 5
    assert lab.run("cat /sys/class/sas_phy/phy-0:2/negotiated_linkrate") == "3.0 Gbit"
    assert lab.run("cat /sys/class/sas_phy/phy-0:2/sas_address") == "0x500605b000001232"
    assert lab.run("cat /sys/class/sas_device/end_device-0:0/bay_identifier") == "2"
    assert lab.run("cat /sys/class/sas_device/end_device-0:0/enclosure_identifier") == "0x500605b000001230"
    assert lab.run("cat /sys/class/sas_phy/phy-0:2/loss_of_dword_sync_count") == "0"
    units = [u.split(":") for u in lab.run("ls /sys/bus/scsi/devices | grep ^[0-9]").split()]
    assert sorted((u[2], u[3]) for u in units) == [("0", "0"), ("0", "3"), ("1", "0")]


def test_bytes_both_ways(lab):
    for lun, size in ((0, 64 * MIB), (3, 8 * MIB)):
        assert lab.run("cat /sys/block/%s/size" % lab.disk[lun]) == str(size // 512) and disklab.has_fill(lab, lab.disk[lun], 1000)
    assert lab.run("dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | head -c 16") == "%015d" % 2048
    disklab.use_file_system(lab, lab.disk[0])
    disklab.write_and_compare(lab, lab.disk[0], lab.dir + "/h", 15000)


def test_long_scatter_lists(lab):
    """Pages of a process, each a part of its own: chains of elements behind the message's frame."""
    disk = lab.disk[0]
    lab.run("dd if=/dev/urandom of=/tmp/r bs=1M count=1 2>/dev/null; echo 1024 > /sys/block/%s/queue/max_sectors_kb" % disk)
    lab.run("dd if=/tmp/r of=/dev/%s bs=1M seek=20 oflag=direct 2>/dev/null; dd if=/dev/%s of=/tmp/s bs=1M skip=20 count=1 iflag=direct 2>/dev/null; "
            "cmp /tmp/r /tmp/s" % (disk, disk))
    assert int(lab.run("cat /sys/block/%s/queue/max_segments" % disk)) > 64


def test_fio_verifies_what_it_wrote(lab):
    disklab.fio_verify(lab, lab.disk[0])


def test_sense_data_and_short_transfers(lab):
    lab.run("modprobe sg")
    assert "QEMU HARDDISK" in lab.run("sg_inq --len=255 /dev/%s" % lab.disk[0])
    code, out = lab.call("sg_read_long --16 --lba=0 --xfer_len=8 /dev/%s 2>&1" % lab.disk[0])
    assert code != 0 and ("Illegal request" in out or "not supported" in out or "Invalid" in out), out


def test_resets_while_it_works(lab):
    """Of the unit and of its target, in the middle of writes that are verified; those of the bus and the host make Linux sleep ten seconds."""
    lab.run("(sleep 0.2; for how in -d -t; do sg_reset $how /dev/%s; done) > /dev/null 2>&1 &" % lab.disk[0])
    disklab.fio_verify(lab, lab.disk[0], size="2M")
    lab.run("wait; sg_turs /dev/%s || sg_turs /dev/%s" % (lab.disk[0], lab.disk[0]))


def test_targets_are_plugged_and_unplugged(lab):
    before = addresses(lab)
    disklab.plug(lab, "scsi-hd", "sas.0", "new", **{"scsi-id": 7})
    lab.run("for i in $(seq 40); do [ -e /sys/block/sdc ] && break; sleep 0.5; done")
    assert lab.run("cat /sys/block/sdc/size") == str(3 * MIB // 512)
    assert addresses(lab) - before == {0x500605b00000123f} and disklab.has_fill(lab, "sdc", 77)
    disklab.unplug(lab)
    lab.run("for i in $(seq 40); do grep -q 123f /sys/class/sas_device/end_device-*/sas_address || break; sleep 0.5; done")
    assert lab.call("[ -e /sys/block/sdc ]")[0] == 1 and addresses(lab) == before


def test_the_driver_goes_and_comes(lab):
    lab.reload_module("mptsas")
    lab.run("for i in $(seq 60); do [ -e /dev/sdb ] && [ -e /dev/sr0 ] && break; sleep 0.5; done; [ -e /dev/sdb ]")
    assert disklab.has_fill(lab, "sdb", 60000) or disklab.has_fill(lab, "sda", 60000)


def test_no_complaint_in_the_log(lab):
    log = lab.run("dmesg -l emerg,alert,crit,err,warn || true")
    assert not [w for w in ("I/O error", "timed out", "FAULT", "LogInfo", "failed", "WARNING") if w in log], log
