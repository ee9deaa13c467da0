# SPDX-License-Identifier: MIT
"""Virtio over PCI under Debian's drivers: many devices at once, vectors and pins, drivers that come and go, bulk data."""
import hashlib
import re
import socket

import pytest

import guest

DISKS = 20
BIG = 8 << 20


@pytest.fixture(scope="module")
def many(web, tmp_path_factory):
    """Messages (IMSIC), two harts, twenty small disks of all kinds of rings, a network card with two queue pairs."""
    tmp = tmp_path_factory.mktemp("many")
    args = ["-smp", "2", "-qmp", "unix:%s/qmp,server=on,wait=off" % tmp, "-netdev", "user,id=n0,hostfwd=tcp:127.0.0.1:0-:7777",
            "-device", "virtio-net-pci,netdev=n0,mq=on,queue-pairs=2,mac=52:54:00:00:00:77"]
    for i in range(DISKS):
        disk = guest.make_disk(tmp / ("d%d.img" % i), 8 << 20, b"disk %04d\n" % i * 100)
        rings = ["", ",packed=on", ",num-queues=2", ",event_idx=off", ",indirect_desc=off", ",queue-size=8", ",page-per-vq=on",
                 ",in_order=on", ",vectors=0", ",vectors=1"][i % 10]
        args += ["-drive", "file=%s,format=raw,if=none,id=d%d" % (disk, i), "-device", "virtio-blk-pci,drive=d%d,serial=S%04d%s" % (i, i, rings)]
    with guest.Machine(*args, modules=["virtio_net", "af_packet"], root=True, memory="768M", machine="virt,aia=aplic-imsic") as m:
        m.boot()
        m.qmp_path = str(tmp / "qmp")
        yield m
        m.send("poweroff -f\n")
        assert m.wait(30) == 0


def test_every_disk_is_there_and_is_the_right_one(many):
    out = many.run("for s in /sys/block/vd*; do grep -q ^S $s/serial || continue; d=/dev/${s##*/}; "
                   "echo $(cat $s/serial) $(head -c 9 $d) $(blockdev --getsize64 $d); done", 120)
    seen = sorted(out.splitlines())
    assert seen == ["S%04d disk %04d %d" % (i, i, 8 << 20) for i in range(DISKS)]


def test_vectors_and_pins(many):
    irqs = many.run("cat /proc/interrupts")
    assert len(re.findall(r"PCI-MSIX-.* virtio\d+-req\.0", irqs)) >= DISKS - 4         # those with a vector a queue
    assert len(re.findall(r"PCI-MSIX-.* virtio\d+-virtqueues", irqs)) == 0             # vectors=1 is not enough for that
    assert len(re.findall(r"APLIC.* virtio\d+", irqs)) >= 4                             # vectors=0 and 1: the pin


def test_writes_on_all_disks_at_once(many):
    out = many.run("for s in /sys/block/vd*; do grep -q ^S $s/serial || continue; d=/dev/${s##*/}; "
                   "(dd if=/dev/urandom of=/tmp/${s##*/} bs=64k count=16 2>/dev/null; "
                   "dd if=/tmp/${s##*/} of=$d bs=64k seek=4 oflag=direct 2>/dev/null; "
                   "dd if=$d bs=64k skip=4 count=16 iflag=direct 2>/dev/null | cmp - /tmp/${s##*/} && echo same) & done; wait", 240)
    assert out.count("same") == DISKS


@pytest.mark.parametrize("serial", ["S0001", "S0002", "S0005", "S0008"])
def test_random_load_is_verified(many, serial):
    d = many.run("grep -lx %s /sys/block/vd*/serial | cut -d/ -f4" % serial)
    out = many.run("fio --name=v --filename=/dev/%s --size=4M --rw=randwrite --bs=4k --iodepth=32 --ioengine=libaio --direct=1 "
                   "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5" % d, 240)
    assert out.splitlines()[-1] == "0"


def test_driver_comes_and_goes(many):
    """The disk's driver is taken away and given back, with requests before, between and after."""
    d = many.run("grep -lx S0003 /sys/block/vd*/serial | cut -d/ -f4")
    many.run("a=$(basename $(readlink -f /sys/block/%s/device/..)); cd /sys/bus/pci/drivers/virtio-pci; for i in 1 2 3 4 5 6 7 8; do "
             "echo $a >unbind; [ ! -e /sys/bus/pci/devices/$a/driver ] || exit 3; echo $a >bind; "
             "d=$(ls /sys/bus/pci/devices/$a/virtio*/block); [ \"$(cat /sys/block/$d/serial)\" = S0003 ] || exit 4; "
             "dd if=/dev/$d of=/dev/null bs=64k count=20 iflag=direct 2>/dev/null || exit 5; done" % d, 200)
    assert "virtio" not in many.run("dmesg -l emerg,alert,crit,err || true")


def test_driver_goes_under_load(many):
    d = many.run("grep -lx S0013 /sys/block/vd*/serial | cut -d/ -f4")
    many.run("a=$(basename $(readlink -f /sys/block/%s/device/..)); (while dd if=/dev/%s of=/dev/null bs=4k iflag=direct 2>/dev/null; do :; done) & "
             "sleep 1; echo $a >/sys/bus/pci/drivers/virtio-pci/unbind; wait; echo $a >/sys/bus/pci/drivers/virtio-pci/bind; "
             "d=$(ls /sys/bus/pci/devices/$a/virtio*/block); dd if=/dev/$d of=/dev/null bs=64k iflag=direct 2>/dev/null" % (d, d), 120)


def receive_all(port):
    """What a server in the guest sends until it closes."""
    with socket.create_connection(("127.0.0.1", port), 60) as c:
        c.settimeout(120)
        return b"".join(iter(lambda: c.recv(1 << 16), b""))


def test_network_bulk_both_ways(many, web):
    """Megabytes through the user network, both ways at once; every byte is compared."""
    many.run("(. /etc/profile; net_up eth0)", 60)
    many.run("ethtool -L eth0 combined 2; dd if=/dev/urandom of=/tmp/big bs=1M count=%d 2>/dev/null" % (BIG >> 20), 60)
    assert int(many.run("ethtool -l eth0 | grep Combined | tail -1").split()[-1]) == 2
    qmp = guest.Qmp(many.qmp_path)
    text = qmp.cmd("human-monitor-command", command_line="info usernet")
    qmp.close()
    port = int(re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)", text).group(1))
    many.run("(nc -l -p 7777 </tmp/big; echo served >/tmp/served) >/dev/null 2>&1 & "
             "for i in 1 2 3 4; do (wget -q -O - http://10.0.2.2:%d/page | sha256sum >/tmp/sum$i) & done; sleep 0.5" % web[0], 60)
    sent = hashlib.sha256(receive_all(port)).hexdigest()
    assert many.run("sha256sum </tmp/big", 60).split()[0] == sent
    digest = hashlib.sha256(web[1].encode()).hexdigest()
    many.run("for i in 1 2 3 4; do until grep -q %s /tmp/sum$i; do sleep 0.3; done; done" % digest, 100)


def test_network_driver_comes_and_goes(many, web):
    many.run("a=$(basename $(readlink -f /sys/class/net/eth0/device/..)); for i in 1 2 3; do "
             "echo $a >/sys/bus/pci/drivers/virtio-pci/unbind; echo $a >/sys/bus/pci/drivers/virtio-pci/bind; done", 60)
    assert many.run("(. /etc/profile; net_up eth0)", 60).count("lease: 10.0.2.15") == 1
    digest = hashlib.sha256(web[1].encode()).hexdigest()
    assert digest in many.run("wget -q -O - http://10.0.2.2:%d/page | sha256sum" % web[0], 60)


LEGACY = "disable-modern=on,disable-legacy=off"


@pytest.mark.skipif(guest.IS_QEMU, reason="the options' defaults differ")
def test_legacy_registers_and_pins(web, tmp_path):
    """The oldest interface, without messages, with Debian's driver for it."""
    disk = guest.make_disk(tmp_path / "d.img", 4 << 20, b"legacy disk\n")
    digest = hashlib.sha256(web[1].encode()).hexdigest()
    script = ("cat /sys/bus/virtio/devices/virtio*/features | cut -c33 | sort | uniq -c; head -c 11 /dev/vda; echo; "
              "head -c 1000000 /dev/urandom >/r; dd if=/r of=/dev/vda bs=4k conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; "
              "head -c 1000000 /dev/vda | cmp - /r && echo disk same; ip link set eth0 up; udhcpc -i eth0 -n -q -s /bin/true >/dev/null 2>&1; "
              "ip addr add 10.0.2.15/24 dev eth0; wget -q -O - http://10.0.2.2:%d/page | sha256sum; cat /proc/interrupts" % web[0])
    with guest.Machine("-drive", "file=%s,format=raw,if=none,id=d" % disk, "-device", "virtio-blk-pci,drive=d,vectors=0," + LEGACY,
                       "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,vectors=0," + LEGACY,
                       modules=["virtio_blk", "virtio_net"], script=script) as m:
        assert m.script_status() == 0
        assert re.search(r"^\s*2 0\s*$", m.log, re.M), "VERSION_1 was negotiated"
        assert "legacy disk" in m.log and "disk same" in m.log and digest in m.log
        assert len(re.findall(r"PLIC .* virtio\d", m.log)) == 2 and "MSI" not in m.log
        assert m.wait(30) == 0
