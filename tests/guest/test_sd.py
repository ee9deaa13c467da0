# SPDX-License-Identifier: MIT
"""SD cards and an e.MMC device under Linux's sdhci: identification, file systems, verify, TRIM, boot partitions, plug and unplug."""
import hashlib
import os

import pytest

import guest

MIB, GIB, RPMB = 1 << 20, 1 << 30, 128 << 10


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("sd"))
    fill = b"".join(b"%015d\n" % i for i in range(65536))
    sdhc = guest.make_disk(os.path.join(d, "sdhc"), 4 * GIB, fill)
    emmc = guest.make_disk(os.path.join(d, "emmc"), 66 * MIB + RPMB, fill)
    drives = ["-drive", "file=%s,format=raw,if=none,id=c0,discard=unmap" % sdhc, "-blockdev", "driver=file,filename=%s,node-name=c1,discard=unmap" % emmc,
              "-blockdev", "driver=file,filename=%s,node-name=key" % guest.make_disk(os.path.join(d, "key"), 512)]
    with guest.Machine("-qmp", "unix:%s/qmp,server=on,wait=off" % d, *drives, "-device", "sdhci-pci,id=slot", "-device", "sd-card,bus=slot.0,drive=c0,id=card",
                       "-device", "sdhci-pci,id=soldered,sd-spec-version=3,capareg=0x157c34b4",
                       "-device", "emmc,id=mmc,bus=soldered.0,drive=c1,boot-partition-size=1M,rpmb-partition-size=128K,rpmb-state=key",
                       modules=["sdhci_pci", "mmc_block"], root=True) as m:
        m.boot()
        m.run("for i in $(seq 60); do [ -e /dev/mmcblk0 ] && [ -e /dev/mmcblk1 ] && break; sleep 0.5; done")
        m.dir = d
        m.q = guest.Qmp(d + "/qmp")
        kinds = m.run("for b in /sys/block/mmcblk?; do echo $(cat $b/device/type) ${b##*/}; done").split()
        m.disk = dict(zip(kinds[::2], kinds[1::2]))
        yield m
        m.q.close()
        m.send("poweroff -f\n")
        assert m.wait(40) == 0


def attr(m, kind, name):
    return m.run("cat /sys/block/%s/%s" % (m.disk[kind], name))


def test_what_the_driver_reads(lab):
    assert attr(lab, "SD", "size") == str(4 * GIB // 512) and attr(lab, "MMC", "size") == str(64 * MIB // 512)
    assert attr(lab, "SD", "device/name") == "QEMU!" and attr(lab, "SD", "device/scr").startswith("0205")
    assert attr(lab, "MMC", "device/name") == "QEMU!!"
    log = lab.run("dmesg | grep mmc")
    assert "new high speed SDHC card" in log and "new high speed MMC card" in log, log
    assert lab.run("ls /sys/block | grep boot").split() == [lab.disk["MMC"] + "boot0", lab.disk["MMC"] + "boot1"]


def test_bytes_both_ways(lab):
    sd, mmc = lab.disk["SD"], lab.disk["MMC"]
    assert lab.run("dd if=/dev/%s bs=16 skip=1000 count=1 2>/dev/null" % sd) == "%015d" % 1000
    assert lab.run("dd if=/dev/%sboot0 bs=16 skip=5 count=1 2>/dev/null" % mmc) == "%015d" % 5
    assert lab.run("dd if=/dev/%sboot1 bs=16 count=1 2>/dev/null | head -c 16 | tr -d '\\0'" % mmc) == ""
    lab.run("echo 0 > /sys/block/%sboot1/force_ro; echo in the boot partition | dd of=/dev/%sboot1 bs=512 conv=sync,fsync 2>/dev/null" % (mmc, mmc))
    lab.run("dd if=/bin/busybox of=/dev/%s bs=4k seek=100000 count=100 conv=fsync 2>/dev/null" % sd)
    want = lab.run("dd if=/bin/busybox bs=4k count=100 2>/dev/null | sha256sum").split()[0]
    with open(lab.dir + "/sdhc", "rb") as f:
        f.seek(100000 * 4096)
        assert hashlib.sha256(f.read(409600)).hexdigest() == want
    with open(lab.dir + "/emmc", "rb") as f:
        f.seek(MIB)
        assert f.read(21) == b"in the boot partition"


def test_file_systems(lab):
    mmc = lab.disk["MMC"]
    lab.run("mkfs.ext4 -q /dev/%s && mount /dev/%s /mnt && cp /bin/busybox /mnt/b && umount /mnt" % (mmc, mmc))
    lab.run("mount -o discard /dev/%s /mnt && cmp /bin/busybox /mnt/b && rm /mnt/b && sync && fstrim /mnt && umount /mnt" % mmc)


@pytest.mark.parametrize("kind", ["SD", "MMC"])
def test_fio_verifies_what_it_wrote(lab, kind):
    out = lab.run("fio --name=v --filename=/dev/%s --offset=24M --size=4M --rw=randwrite --bs=16k --iodepth=8 --ioengine=libaio --direct=1 "
                  "--verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5" % lab.disk[kind], 240)
    assert out.splitlines()[-1] == "0"


def test_discard(lab):
    lab.run("blkdiscard -o 0 -l 1M /dev/%s" % lab.disk["SD"])
    with open(lab.dir + "/sdhc", "rb") as f:
        assert not any(f.read(MIB))


def test_a_card_is_taken_out_and_another_put_in(lab):
    sd = lab.disk["SD"]
    lab.q.cmd("device_del", id="card")
    lab.q.event("DEVICE_DELETED")
    lab.run("for i in $(seq 40); do [ -e /sys/block/%s ] || break; sleep 0.5; done; [ ! -e /sys/block/%s ]" % (sd, sd))
    new = guest.make_disk(os.path.join(lab.dir, "new"), 8 * MIB, b"new card")
    lab.q.cmd("blockdev-add", **{"driver": "raw", "node-name": "new", "read-only": True, "file": {"driver": "file", "filename": new, "read-only": True}})
    lab.q.cmd("device_add", driver="sd-card", bus="slot.0", id="next", drive="new")
    lab.run("for i in $(seq 40); do [ -e /dev/%s ] && break; sleep 0.5; done" % sd)
    assert lab.run("head -c 8 /dev/%s" % sd) == "new card" and attr(lab, "SD", "size") == str(8 * MIB // 512)
    assert attr(lab, "SD", "ro") == "1"


def test_no_complaint_in_the_log(lab):
    log = lab.run("dmesg -l emerg,alert,crit,err,warn | grep -i mmc || true")
    assert not [w for w in ("timeout", "Timeout", "error", "failed", "CRC") if w in log], log


def test_fast_modes(tmp_path):
    """UHS-I after the switch to 1.8 V and HS200, both with tuning; a driver bound again goes there again."""
    host = "sdhci-pci,sd-spec-version=3,capareg=0x2007157cd0b4,id="
    args = []
    for i, (kind, size) in enumerate((("sd-card", 4 * GIB), ("emmc", 64 * MIB))):
        disk = guest.make_disk(tmp_path / kind, size, b"%-512s" % kind.encode())
        args += ["-drive", "file=%s,format=raw,if=none,id=d%d" % (disk, i), "-device", host + "h%d" % i, "-device", "%s,bus=h%d.0,drive=d%d" % (kind, i, i)]
    with guest.Machine(*args, modules=["sdhci_pci", "mmc_block"]) as m:
        m.boot()
        for _ in range(2):
            m.run("for i in $(seq 60); do [ -e /dev/mmcblk0 ] && [ -e /dev/mmcblk1 ] && break; sleep 0.5; done")
            log = m.run("dmesg -c | grep mmc")
            assert "SDR104 SDHC card" in log and "HS200 MMC card" in log and "tuning" not in log, log
            assert sorted(m.run("for d in 0 1; do head -c 8 /dev/mmcblk$d | tr -d ' '; echo; done").split()) == ["emmc", "sd-card"]
            m.run("for d in 0 1; do dd if=/bin/busybox of=/dev/mmcblk$d bs=4k seek=64 count=64 conv=fsync; "
                  "dd if=/dev/mmcblk$d iflag=direct bs=4k skip=64 count=64 | cmp -n 262144 - /bin/busybox || exit 1; done 2>/dev/null")
            m.run("cd /sys/bus/pci/drivers/sdhci-pci; for d in 0000:*; do echo $d > unbind; echo $d > bind; done")


def test_mmc_tools(lab):
    """mmc-utils: EXT_CSD, and groups of write protection, of which each has 512 KiB."""
    dev = "/dev/" + lab.disk["MMC"]
    assert "Extended CSD rev 1.8 (MMC 5.1)" in lab.run("mmc extcsd read " + dev)
    assert lab.run("mmc writeprotect user set temp 2048 1024 %s; mmc writeprotect user get %s" % (dev, dev)).count("Temporary") == 1
    rc, _ = lab.call("dd if=/dev/zero of=%s bs=512 seek=2050 count=1 oflag=direct conv=fsync" % dev)
    assert rc != 0
    lab.run("mmc writeprotect user set none 2048 1024 %s && dd if=/dev/zero of=%s bs=512 seek=2050 count=1 oflag=direct conv=fsync" % (dev, dev))


def test_rpmb(lab):
    """mmc-utils' authenticated frames; key and counter are there for another device, too."""
    dev = "/dev/%srpmb" % lab.disk["MMC"]
    lab.run("printf ABCDEFGHIJKLMNOPQRSTUVWXYZ012345 > /tmp/k; head -c 256 /bin/busybox > /tmp/d; mmc rpmb write-key %s /tmp/k" % dev)
    lab.run("mmc rpmb write-block %s 0x2 /tmp/d /tmp/k" % dev)
    assert "0x00000001" in lab.run("mmc rpmb read-counter " + dev)
    lab.run("mmc rpmb read-block %s 0x2 1 /tmp/o /tmp/k && cmp /tmp/d /tmp/o" % dev)
    assert lab.call("printf 00000000000000000000000000000000 > /tmp/bad; mmc rpmb write-block %s 0x2 /tmp/d /tmp/bad" % dev)[0]
    lab.q.cmd("device_del", id="mmc")
    lab.q.event("DEVICE_DELETED")
    lab.run("for i in $(seq 40); do [ -e %s ] || break; sleep 0.5; done; [ ! -e %s ]" % (dev, dev))
    lab.q.cmd("device_add", **{"driver": "emmc", "id": "mmc", "bus": "soldered.0", "drive": "c1", "boot-partition-size": MIB, "rpmb-partition-size": RPMB,
                               "rpmb-state": "key"})
    lab.run("for i in $(seq 40); do [ -e %s ] && break; sleep 0.5; done" % dev)
    assert "0x00000001" in lab.run("mmc rpmb read-counter " + dev)
    lab.run("rm -f /tmp/o; mmc rpmb read-block %s 0x2 1 /tmp/o /tmp/k && cmp /tmp/d /tmp/o" % dev)
