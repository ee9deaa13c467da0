# SPDX-License-Identifier: MIT
"""smartctl on a SATA disk, a SCSI disk and an NVMe drive: all it asks for is answered, self-tests run, are stopped and are found in the log."""
import json
import time

import pytest

import disklab

DISKS = {"ata": "/dev/disk/sata", "scsi": "/dev/disk/scsi", "nvme": "/dev/nvme0"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("smart"))
    node = "driver=raw,node-name=%s,file.driver=file,file.filename=%s"
    args = [w for n in ("a", "s", "n") for w in ("-blockdev", node % (n, disklab.image(folder, n, 32 * disklab.MIB)))]
    args += ["-device", "ich9-ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=a,serial=SMART-A", "-device", "virtio-scsi-pci,id=hba",
             "-device", "scsi-hd,bus=hba.0,drive=s,serial=SMART-S", "-device", "nvme,drive=n,serial=SMART-N"]
    with disklab.lab(folder, *args, devices=["/dev/sdb", "/dev/nvme0n1"], modules=["ahci", "virtio_scsi", "sd_mod", "sg", "nvme"]) as m:
        m.run("mkdir -p /dev/disk; for d in sda sdb; do case $(cat /sys/block/$d/device/vendor) in ATA*) n=sata;; *) n=scsi;; esac; ln -s /dev/$d /dev/disk/$n; done")
        yield m


def smart(m, kind, words):
    """(exit status, what smartctl says as JSON)"""
    rc, out = m.call("smartctl -j %s %s" % (words, DISKS[kind]), 60)
    return rc, json.loads(out)


@pytest.mark.parametrize("kind", DISKS)
def test_everything(lab, kind):
    """Nothing that is asked for fails, and the disk is well. (-x of a SCSI disk asks for the phys of a SAS port, too.)"""
    rc, said = smart(lab, kind, "-a" if kind == "scsi" else "-x")
    assert rc == 0, said
    assert said["smart_status"]["passed"] and said["serial_number"] == "SMART-" + kind[0].upper(), said
    assert not [m for m in said["smartctl"].get("messages", []) if m["severity"] == "error"], said["smartctl"]["messages"]
    assert smart(lab, kind, "-H -c")[0] == 0


def written(m, kind):
    said = smart(m, kind, "-a")[1]
    if kind == "ata":
        return next(a["raw"]["value"] for a in said["ata_smart_attributes"]["table"] if a["id"] == 241) * 512
    if kind == "scsi":
        return round(float(said["scsi_error_counter_log"]["write"]["gigabytes_processed"]) * 1e9)
    return said["nvme_smart_health_information_log"]["data_units_written"] * 512000


@pytest.mark.parametrize("kind", DISKS)
def test_counters(lab, kind):
    before = written(lab, kind)
    disk = DISKS[kind] + ("n1" if kind == "nvme" else "")
    lab.run("dd if=/dev/zero of=%s bs=64k count=160 seek=64 oflag=direct 2>/dev/null" % disk)
    assert abs(written(lab, kind) - before - 160 * 65536) < 1100000


def newest(said):
    """The newest self-test as (status text, whether it is going on)."""
    if "nvme_self_test_log" in said:
        log = said["nvme_self_test_log"]
        return log["table"][0]["self_test_result"]["string"] if log.get("table") else "", log["current_self_test_operation"]["value"] != 0
    if "scsi_self_test_0" in said:
        text = said["scsi_self_test_0"]["result"]["string"]
        return text, "in progress" in text.lower()
    text = said["ata_smart_self_test_log"]["standard"]["table"][0]["status"]["string"]
    return text, "in progress" in text.lower()


@pytest.mark.parametrize("kind,words", [("ata", "-t short"), ("ata", "-t long"), ("scsi", "-t short"), ("scsi", "-t long"), ("nvme", "-t short")])
def test_self_tests(lab, kind, words):
    assert smart(lab, kind, words)[0] == 0
    deadline = time.monotonic() + 60
    while True:
        text, runs = newest(smart(lab, kind, "-l selftest")[1])
        if not runs and text:
            break
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert "ompleted" in text, text


def test_a_self_test_is_stopped(lab):
    """NVMe's extended test takes its minute; one that is stopped says so."""
    assert smart(lab, "nvme", "-t long")[0] == 0
    assert newest(smart(lab, "nvme", "-l selftest")[1])[1]
    assert smart(lab, "nvme", "-X")[0] == 0
    text, runs = newest(smart(lab, "nvme", "-l selftest")[1])
    assert "bort" in text and not runs, text
