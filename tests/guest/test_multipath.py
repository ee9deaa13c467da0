# SPDX-License-Identifier: MIT
"""dm-multipath over two adapters that lead to one disk: ways fail, come back and go away under fio, which notices nothing."""
import re

import pytest

import disklab

WAY = "drive=d,share-rw=on,serial=MP,wwn=0x5000c50015ea71ee,scsi-id=1,port_group=%d,port_index=%d"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("multipath"))
    args = ["-blockdev", "driver=raw,node-name=d,file.driver=file,file.filename=" + disklab.image(folder, "d", 32 * disklab.MIB)]
    for i, name in enumerate("ab", 1):
        args += ["-device", "virtio-scsi-pci,id=" + name, "-device", "scsi-hd,bus=%s.0,id=%s1,%s" % (name, name, WAY % (i, i))]
    with disklab.lab(folder, *args, devices=["/dev/sdb"], modules=["virtio_scsi", "sd_mod", "sg"]) as m:
        if m.call("modprobe dm_multipath && modprobe dm_round_robin && modprobe scsi_dh_alua")[0]:
            pytest.skip("this guest has no dm-multipath")
        m.ways = [m.run("cat /sys/bus/scsi/devices/%d:0:1:0/block/*/dev" % i) for i in (0, 1)]
        sectors = m.run("cat /sys/bus/scsi/devices/0:0:1:0/block/*/size")
        m.run("dmsetup create mp --table '0 %s multipath 1 queue_if_no_path 1 alua 2 1 round-robin 0 1 1 %s 1 round-robin 0 1 1 %s 1' && dmsetup mknodes"
              % (sectors, *m.ways))
        yield m
        m.run("dmsetup remove mp")


def until(m, wanted):
    m.run("for i in $(seq 120); do dmsetup status mp | grep -q '%s' && break; sleep 0.5; done; dmsetup status mp | grep -q '%s'" % (wanted, wanted), 90)


def test_ways_fail_under_load(lab):
    """Each way in turn: unavailable by its state, back, then out of the machine for good."""
    lab.run("(fio --name=v --filename=/dev/mapper/mp --size=8M --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 "
            "--time_based --runtime=600 --verify_backlog=256 >/tmp/fio 2>&1; echo $? >/tmp/fio-end) &")
    lab.run("for i in $(seq 60); do [ -s /proc/$(pidof -s fio)/io ] && break; sleep 0.5; done")
    for name, way in (("a1", 0), ("b1", 1)):
        lab.q.cmd("qom-set", path="/machine/peripheral/" + name, property="port_state", value="unavailable")
        until(lab, lab.ways[way] + " F")
        lab.q.cmd("qom-set", path="/machine/peripheral/" + name, property="port_state", value="active-optimized")
        lab.run("for i in $(seq 60); do dmsetup message mp 0 reinstate_path %s; sleep 1; dmsetup status mp | grep -q '%s A' && break; done" % (lab.ways[way], lab.ways[way]), 120)
        until(lab, lab.ways[way] + " A")
    lab.q.cmd("device_del", id="a1")
    lab.q.event("DEVICE_DELETED")
    until(lab, lab.ways[0] + " F")
    done = "$(awk '{ print $5 }' /sys/block/dm-0/stat)"
    lab.run("was=%s; for i in $(seq 120); do [ %s -gt $((was + 100)) ] && break; sleep 0.5; done; [ %s -gt $((was + 100)) ]" % (done, done, done), 90)
    lab.run("kill -INT $(pidof fio); for i in $(seq 120); do [ -e /tmp/fio-end ] && break; sleep 0.5; done; [ -e /tmp/fio-end ]", 120)
    wrong = lab.run("grep -aE 'err= *[1-9]|verify: bad|io_u error' /tmp/fio || true")
    assert wrong == ""
    assert int(re.search(r"issued rwts: total=\d+,(\d+)", lab.run("grep -a issued /tmp/fio")).group(1)) > 1000
