# SPDX-License-Identifier: MIT
"""Reboots, unbinding and function level resets in a loop, with every kind of disk: each is found and read right every time."""
import os

import pytest

import guest

MIB = 1 << 20
ROUNDS = int(os.environ.get("BP_STORAGE_ROUNDS", "3"))
# marker at the start of the image: size in MiB, arguments, the node is the marker
DISKS = {
    "nvme": (8, ["-device", "nvme,drive=nvme,serial=loop"]),
    "vblk": (8, ["-device", "virtio-blk-pci,drive=vblk"]),
    "scsi": (8, ["-device", "virtio-scsi-pci,id=hba", "-device", "scsi-hd,bus=hba.0,drive=scsi"]),
    "ahci": (8, ["-device", "ahci,id=sata", "-device", "ide-hd,bus=sata.0,drive=ahci"]),
    "mega": (8, ["-device", "megasas,id=mega", "-device", "scsi-hd,bus=mega.0,drive=mega"]),
    "sas1": (8, ["-device", "mptsas1068,id=sas1", "-device", "scsi-hd,bus=sas1.0,drive=sas1"]),
    "sym8": (8, ["-device", "lsi53c895a,id=sym8", "-device", "scsi-hd,bus=sym8.0,drive=sym8"]),
    "card": (8, ["-device", "sdhci-pci,id=h0", "-device", "sd-card,bus=h0.0,drive=card"]),
    "emmc": (8, ["-device", "sdhci-pci,id=h1", "-device", "emmc,bus=h1.0,drive=emmc"]),
}
DRIVERS = ("nvme", "virtio-pci", "ahci", "megaraid_sas", "mptsas", "sym53c8xx", "sdhci-pci")
MODULES = ["nvme", "virtio_blk", "virtio_scsi", "ahci", "megaraid_sas", "mptsas", "sym53c8xx", "sd_mod", "sdhci_pci", "mmc_block"]
# Prints "MARKER NAME" of every disk that is there.
FIND = "for d in /sys/block/*; do d=${d##*/}; case $d in ram*|loop*|*boot*) ;; *) echo $(head -c 4 /dev/$d) $d;; esac; done"


@pytest.fixture(name="m", scope="module")
def machine(tmp_path_factory):
    d = tmp_path_factory.mktemp("loops")
    args = []
    for name, (size, device) in DISKS.items():
        image = guest.make_disk(d / name, size * MIB, name.encode().ljust(16) + b"".join(b"%015d\n" % i for i in range(1, 65536)))
        args += ["-drive", "file=%s,format=raw,if=none,id=%s" % (image, name), *device]
    with guest.Machine("-qmp", "unix:%s/qmp,server=on,wait=off" % d, *args, modules=MODULES) as m:
        m.boot()
        m.count = 0
        m.q = guest.Qmp("%s/qmp" % d)
        m.hot = guest.make_disk(d / "hot", 8 * MIB, b"hot!".ljust(16) + b"".join(b"%015d\n" % i for i in range(1, 65536)))
        yield m
        m.q.close()


def check(m):
    """All disks have come: what the last call wrote is there, and the rest as it was."""
    for _ in range(40):
        found = dict(line.split() for line in m.run(FIND).splitlines() if line.count(" ") == 1)
        if set(found) == set(DISKS):
            break
        m.run("sleep 0.5")
    assert set(found) == set(DISKS)
    for disk in found.values():
        if m.count:
            assert m.run("dd if=/dev/%s bs=4k skip=512 count=1 2>/dev/null | head -c 8 2>/dev/null | tr -d '\\0'" % disk) == "round%d" % m.count
        assert m.run("dd if=/dev/%s bs=16 skip=60000 count=1 2>/dev/null" % disk) == "%015d" % 60000
        m.run("echo round%d | dd of=/dev/%s bs=4k seek=512 count=1 conv=sync,fsync 2>/dev/null" % (m.count + 1, disk))
    m.count += 1
    return found


def functions(m):
    """{address: driver} of the storage functions."""
    text = m.run("for d in /sys/bus/pci/devices/*; do [ -e $d/driver ] && echo ${d##*/} $(basename $(readlink $d/driver)); done; true")
    return {a: d for a, d in (line.split() for line in text.splitlines()) if d in DRIVERS}


def test_reboots(m):
    check(m)
    for _ in range(ROUNDS):
        m.forget_shell()
        m.send("reboot -f\n")
        m.boot()
        check(m)


def test_unbind_and_bind(m):
    for _ in range(ROUNDS):
        for address, driver in functions(m).items():
            m.run("cd /sys/bus/pci/drivers/%s && echo %s > unbind && echo %s > bind" % (driver, address, address))
        check(m)


def test_resets_of_functions(m):
    """By sysfs, of a function that nobody drives; then it is driven again. (A conventional function has no reset of its own.)"""
    known = {a: d for a, d in functions(m).items() if not m.call("[ -e /sys/bus/pci/devices/%s/reset ]" % a)[0]}
    assert sorted(known.values()) == ["megaraid_sas", "nvme", "virtio-pci", "virtio-pci"]
    for _ in range(ROUNDS):
        for address, driver in known.items():
            m.run("cd /sys/bus/pci/devices/%s && echo %s > driver/unbind && echo 1 > reset && echo %s > /sys/bus/pci/drivers/%s/bind" %
                  (address, address, address, driver))
        check(m)


def test_reset_under_load(m):
    """nvme's driver resets its controller while a copy runs; the copy is complete."""
    disk = check(m)["nvme"]
    address = next(a for a, d in functions(m).items() if d == "nvme")
    m.run("(while [ ! -e /tmp/stop ]; do dd if=/dev/%s of=/dev/null bs=64k iflag=direct 2>/dev/null || echo bad > /tmp/bad; done; echo end > /tmp/end) &" % disk)
    for _ in range(2 * ROUNDS):
        m.run("echo 1 > /sys/bus/pci/devices/%s/reset; sleep 0.3" % address, 90)
    m.run("touch /tmp/stop; for i in $(seq 80); do [ -e /tmp/end ] && break; sleep 0.5; done; [ -e /tmp/end ] && [ ! -e /tmp/bad ]", 90)
    check(m)


def test_log(m):
    log = m.run("dmesg -l emerg,alert,crit,err || true")
    assert not [line for line in log.splitlines() if "I/O error" in line or "timeout" in line.lower()], log


@pytest.mark.parametrize("driver,bus", [("scsi-hd", "hba.0"), ("scsi-hd", "mega.0"), ("scsi-hd", "sas1.0"), ("scsi-hd", "sym8.0"), ("ide-hd", "sata.1")])
def test_unplugged_while_busy(m, driver, bus):
    """Two readers and a writer keep a disk busy while it goes: they end, the guest lets go of it, and its neighbours on the adapter work."""
    for _ in range(max(1, ROUNDS // 3)):
        m.q.cmd("blockdev-add", **{"driver": "raw", "node-name": "hot", "file": {"driver": "file", "filename": str(m.hot)}})
        m.q.cmd("device_add", driver=driver, bus=bus, id="hot", drive="hot")
        if bus == "sym8.0":             # this bus tells nobody
            m.run("for h in /sys/class/scsi_host/*; do [ $(cat $h/proc_name) != sym53c8xx ] || echo - - - > $h/scan; done", 60)
        disk = None
        for _ in range(40):
            disk = disk or dict(line.split() for line in m.run(FIND).splitlines() if line.count(" ") == 1).get("hot!")
            if not disk:
                m.run("sleep 0.5")
        assert disk
        # by a node of our own: a writer that comes too late would make a plain file of the name in /dev, there for all who look for it
        m.run("rm -f /tmp/end* /tmp/hot; mknod /tmp/hot b $(tr : ' ' < /sys/block/%s/dev); for i in 1 2 3; do (while dd if=/tmp/hot of=/dev/null bs=64k iflag=direct 2>/dev/null; do "
              "[ $i != 3 ] || dd if=/dev/zero of=/tmp/hot bs=64k seek=64 count=16 oflag=direct 2>/dev/null; done; touch /tmp/end$i) & done; sleep 0.5" % disk)
        m.q.cmd("device_del", id="hot")
        m.q.event("DEVICE_DELETED")
        m.q.cmd("blockdev-del", **{"node-name": "hot"})
        m.run("[ ! -e /sys/block/%s ] || timeout 60 sh -c 'echo 1 > /sys/block/%s/device/delete'; for i in $(seq 120); do [ -e /tmp/end1 -a -e /tmp/end2 -a -e /tmp/end3 ] && "
              "break; sleep 0.5; done; [ -e /tmp/end1 -a -e /tmp/end2 -a -e /tmp/end3 ]" % (disk, disk), 150)
        check(m)
