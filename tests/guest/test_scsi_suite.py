# SPDX-License-Identifier: MIT
"""libiscsi's test suite of SCSI commands, in the guest: on a disk that discards, on one whose medium comes out, and by two ways to one disk."""
import re

import pytest

import disklab

# what it finds wrong that is not: it knows SPC-4 and older only, and takes CONDITION MET of PRE-FETCH for an error on a local device
NOT_WRONG = {"Inquiry.Standard", "Inquiry.BlockLimits"} | {"Prefetch%d.%s" % (n, t) for n in (10, 16) for t in ("Simple", "ZeroBlocks", "Flags")}
SKIPS = re.compile(r"SKIPPED\] (Not an iSCSI|Logical unit|Multipath|Media is|SANITIZE|--allow)")      # of a test, not of one of its commands
TWO_WAYS = "serial=SUITE,wwn=0x5000c50015ea71dd,share-rw=on,scsi-id=3"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("suite"))
    node = "driver=raw,node-name=%s,discard=unmap,file.driver=file,file.filename=%s"
    args = ["-device", "virtio-scsi-pci,id=one", "-device", "virtio-scsi-pci,id=two"]
    for name in ("disk", "medium", "ways"):
        args += ["-blockdev", node % (name, disklab.image(folder, name, 16 * disklab.MIB))]
    args += ["-device", "scsi-hd,bus=one.0,drive=disk,scsi-id=1,serial=ONE", "-device", "scsi-hd,bus=one.0,drive=medium,scsi-id=2,removable=on",
             "-device", "scsi-hd,bus=one.0,drive=ways," + TWO_WAYS, "-device", "scsi-hd,bus=two.0,drive=ways," + TWO_WAYS]
    with disklab.lab(folder, *args, devices=["/dev/sdd"], modules=["virtio_scsi", "sd_mod", "sg"]) as m:
        if m.call("command -v iscsi-test-cu")[0]:
            pytest.skip("this guest has no iscsi-test-cu")
        yield m


def device(m, address, kind):
    """The disk (block) of a unit, or what locks no medium while it is open (scsi_generic)."""
    return "/dev/" + m.run("basename $(ls -d /sys/bus/scsi/devices/%s/%s/*)" % (address, kind))


def results(m, args):
    """{suite.test: passed}, of tests that ran."""
    m.run("iscsi-test-cu --dataloss %s >/tmp/suite 2>&1; true" % args, 400)
    text = m.run("grep -aE '^Suite|Test:|^(passed|FAILED)|SKIPPED|WARNING' /tmp/suite | cut -c1-90", 60)
    found, suite, test, skipped = {}, "", "", False
    for line in text.splitlines():
        if line.startswith("Suite: "):
            suite = line[7:].strip()
        if "Test: " in line:
            test, skipped = re.search(r"Test: (\S+)", line).group(1), bool(SKIPS.search(line))
        end = re.search(r"(passed|FAILED)$", line.rstrip())
        if end and not skipped:
            found[suite + "." + test] = end.group(1) == "passed"
    return found


@pytest.mark.parametrize("addresses,kind,args,least", [
    (("0:0:1:0",), "block", "--test=ALL", 120), (("0:0:2:0",), "scsi_generic", "--test=ALL.NoMedia", 1),
    (("0:0:1:0",), "block", "--allow-sanitize --test=ALL.Sanitize", 4), (("0:0:3:0", "1:0:3:0"), "block", "--test=ALL.MultipathIO", 2),
], ids=["all", "removable", "sanitize", "two-ways"])
def test_suite(lab, addresses, kind, args, least):
    found = results(lab, args + " " + " ".join(device(lab, a, kind) for a in addresses))
    assert {t for t, passed in found.items() if not passed} <= NOT_WRONG, lab.run("grep -aB3 -A3 FAILED /tmp/suite | head -60")
    assert len(found) >= least, (found, lab.run("tail -30 /tmp/suite"))
    assert "Tests completed with return value: 0" in lab.run("tail -3 /tmp/suite")
