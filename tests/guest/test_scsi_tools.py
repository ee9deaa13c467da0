# SPDX-License-Identifier: MIT
"""sg3-utils, smartctl and lsscsi on the same kind of disk behind every adapter, and two adapters that lead to one disk."""
import contextlib

import pytest

import disklab

ADAPTERS = {"virtio": ("virtio-scsi-pci", ["virtio_scsi"]), "megasas": ("megasas,use_jbod=on", ["megaraid_sas"]),
            "mptsas": ("mptsas1068", ["mptsas"]), "lsi": ("lsi53c895a", ["sym53c8xx"])}


@contextlib.contextmanager
def one_disk(folder, adapter):
    device, modules = ADAPTERS[adapter]
    path = disklab.image(folder, "disk", 32 * disklab.MIB)
    args = ["-blockdev", "driver=raw,node-name=n,discard=unmap,file.driver=file,file.discard=unmap,file.filename=" + path,
            "-device", device + ",id=hba", "-device", "scsi-hd,bus=hba.0,drive=n,scsi-id=1,serial=TOOLS1,wwn=0x5000c50015ea71ab,"
            "pr_file=%s/pr" % folder]
    with disklab.lab(folder, *args, devices=["/dev/sda"], modules=modules + ["sd_mod", "sg"]) as m:
        m.run("modprobe sg 2>/dev/null; for i in $(seq 20); do [ -e /dev/sg0 ] && break; sleep 0.5; done; [ -e /dev/sg0 ]")
        yield m


@pytest.fixture(scope="module", params=list(ADAPTERS))
def lab(request, tmp_path_factory):
    with one_disk(str(tmp_path_factory.mktemp(request.param)), request.param) as m:
        yield m


# A command, what its output holds, what it must not hold.
TOOLS = [
    ("lsscsi", "QEMU HARDDISK", "scsi_debug"),
    ("sg_inq /dev/sg0", "[SPC-5]", "error"),
    ("sg_vpd -p sn /dev/sg0", "TOOLS1", "error"),
    ("sg_vpd -p sv /dev/sg0", "Block limits (SBC) [bl]", "error"),
    ("sg_vpd -p di /dev/sg0", "0x5000c50015ea71ab", "error"),
    ("sg_vpd -p bl /dev/sg0", "Maximum transfer length: 0x10000", "error"),
    ("sg_vpd -p bdc /dev/sg0", "Non-rotating medium", "error"),
    ("sg_vpd -p lbpv /dev/sg0", "LBPU=1", "error"),
    ("sg_vpd -p ei /dev/sg0", "HEADSUP=1", "error"),
    ("sg_readcap -l /dev/sg0", "lbpme=1", "error"),
    ("sg_readcap /dev/sg0", "Number of logical blocks=65536", "error"),
    ("sg_opcodes /dev/sg0", "Report timestamp", "error"),
    ("sg_opcodes --tmf /dev/sg0", "Logical unit reset", "error"),
    ("sg_luns /dev/sg0", "Lun list length = 8", "error"),
    ("sg_modes -a /dev/sg0", "Informational exceptions control", "invalid"),
    ("sg_logs -a /dev/sg0", "General statistics and performance", "invalid"),
    ("sg_requests /dev/sg0", "No Sense", None),
    ("sg_turs -n 5 /dev/sg0", "with 0 errors", None),
    ("sg_timestamp --origin /dev/sg0", "initialized to zero", "error"),
    ("sg_timestamp --milliseconds=1234567890123 /dev/sg0 && sg_timestamp /dev/sg0", "12345678", "error"),
    ("sg_get_lba_status --lba=0 /dev/sg0", "mapped", "error"),
    ("sg_read if=/dev/sg0 bs=512 count=256 bpt=128", "256+0 records in", "error"),
    ("sg_dd if=/dev/sg0 of=/dev/null bs=512 count=1024 bpt=64 2>&1", "1024+0 records out", "error"),
    ("sg_dd if=/bin/busybox of=/dev/sg0 bs=512 count=100 seek=4096 2>&1 && sg_dd if=/dev/sg0 of=/tmp/back bs=512 count=100 skip=4096 2>&1 && "
     "head -c 51200 /bin/busybox | cmp - /tmp/back && echo same", "same", "error"),
    ("sg_verify --lba=0 --count=1000 /dev/sg0 && echo fine", "fine", "error"),
    ("sg_sync --lba=0 --count=16 /dev/sg0 && echo fine", "fine", "error"),
    ("sg_seek --lba=5 /dev/sg0 && echo fine", "fine", "error"),
    ("sg_seek --pre-fetch --num-blocks=16 /dev/sg0; echo status $?", "status 25", "error"),     # PRE-FETCH: condition met
    ("sg_seek --pre-fetch --10 --num-blocks=16 /dev/sg0; echo status $?", "status 25", "error"),
    ("head -c 512 /dev/zero > /tmp/z; sg_write_same --16 --lba=64 --num=8 --in=/tmp/z /dev/sg0 && echo fine", "fine", "error"),
    ("sg_write_same --16 --unmap --lba=72 --num=8 --in=/tmp/z /dev/sg0 && echo fine", "fine", "error"),
    ("sg_write_same --10 --lba=80 --num=8 --in=/tmp/z /dev/sg0 && echo fine", "fine", "error"),
    ("sg_unmap --lba=128 --num=128 /dev/sg0 && echo fine", "fine", "error"),
    ("head -c 1024 /dev/zero > /tmp/cw; sg_compare_and_write --lba=64 --num=1 --in=/tmp/cw /dev/sg0 && echo fine", "fine", "error"),
    ("head -c 1024 /dev/urandom > /tmp/cw; sg_compare_and_write --lba=64 --num=1 --in=/tmp/cw /dev/sg0 2>&1; echo status $?", "status 14", None),
    ("sg_rbuf --echo --size=256 --quick /dev/sg0 && echo fine", "fine", "error"),
    ("sg_rbuf --test --size=1024 /dev/sg0 2>/dev/null; sg_read_buffer -m desc /dev/sg0", "00", "error"),
    ("sg_senddiag -t /dev/sg0 && echo fine", "fine", "error"),
    ("sg_rtpg /dev/sg0 2>&1; sg_start --stop /dev/sg0 && sg_turs /dev/sg0; sg_start --start /dev/sg0 && sg_turs /dev/sg0 && echo fine", "fine", None),
    ("sg_persist -o -G -S 0xabc /dev/sg0 && sg_persist -o -R -T 5 -K 0xabc /dev/sg0 && sg_persist -r /dev/sg0", "Write Exclusive, registrants only", "error"),
    ("sg_persist -k /dev/sg0", "0xabc", "error"),
    ("sg_persist -s /dev/sg0", "SAS", "error"),
    ("sg_persist -c /dev/sg0", "Persist Through Power Loss Capable(PTPL_C): 1", "error"),
    ("sg_persist -o -L -T 5 -K 0xabc /dev/sg0 && sg_persist -o -C -K 0xabc /dev/sg0 && sg_persist -k /dev/sg0", "there are NO registered", None),
    ("sg_persist -o -G -Z -S 0x77 /dev/sg0 && sg_persist -c /dev/sg0", "Persist Through Power Loss Active(PTPL_A): 1", "error"),
    ("sg_persist -o -G -K 0x77 -S 0 /dev/sg0 && echo fine", "fine", "error"),
    ("sg_reset -d /dev/sg0; sg_turs -n 2 /dev/sg0; sg_turs /dev/sg0 && echo fine", "fine", None),
    ("smartctl -a -d scsi /dev/sda", "SMART Health Status: OK", None),
    ("smartctl -t short -d scsi /dev/sda >/dev/null; sleep 2; smartctl -l selftest -d scsi /dev/sda", "Completed", None),
    ("for c in through back; do echo write $c >$(ls -d /sys/class/scsi_disk/*)/cache_type; echo $c $(sg_modes -p 8 /dev/sg0 | tail -2); done | "
     "grep -o 'through\\|back\\|08 12 0[0-9]' | tr '\\n' ' '", "through 08 12 00 back 08 12 04", "error"),
    ("sg_reassign --address=100,7 /dev/sg0 && sg_reassign --longlist=1 --eight=1 --address=8 /dev/sg0 && sg_reassign --grown /dev/sg0", "list: 3", "error"),
    ("sg_reassign --primary /dev/sg0", "list: 0", "error"),
    ("sg_raw -r 32 /dev/sg0 b7 0b 00 00 00 00 00 00 00 20 00 00", "00 0b 00 03 00 00 00 18  00 00 00 00 00 00 00 07", "error"),
    ("smartctl -a -d scsi /dev/sda", "Elements in grown defect list: 3", "Drive Trip Temperature:        0"),
    ("sg_luns --select=1 /dev/sg0", "Lun list length", "error"),
    ("sg_luns --select=2 /dev/sg0", "0000000000000000", "error"),
    ("sg_sanitize --block --quick --wait /dev/sg0 2>&1 && head -c 4 /dev/sda | od -An -tx1", "00 00 00 00", None),
]


@pytest.mark.parametrize("cmd,text,not_text", TOOLS, ids=[t[0].split("/")[0].strip()[:40] for t in TOOLS])
def test_tool(lab, cmd, text, not_text):
    out = lab.call(cmd, 120)[1]
    assert text in out, out
    assert not_text is None or not_text not in out.lower(), out


def way(m, driver):
    """The disk behind the adapter that DRIVER drives."""
    return m.run("for d in /sys/block/sd*; do readlink -f $d | grep -q %s && echo ${d##*/}; done; true" % driver)


def test_two_adapters_lead_to_one_disk(tmp_path):
    """What one way reserves keeps the other out, which can take it; all of it is kept while the power is off."""
    folder = str(tmp_path)
    path = disklab.image(folder, "disk", 8 * disklab.MIB)
    hd = "scsi-hd,drive=n,scsi-id=1,share-rw=on,serial=BOTH,wwn=0x5000c50015ea71ac,pr_file=%s/pr,bus=" % folder
    args = ["-blockdev", "driver=raw,node-name=n,file.driver=file,file.filename=" + path, "-device", "virtio-scsi-pci,id=a",
            "-device", "mptsas1068,id=b", "-device", hd + "a.0", "-device", hd + "b.0"]
    write = "dd if=/dev/zero of=/dev/%s bs=4k count=1 oflag=direct"
    for boot in range(3):
        with disklab.lab(folder, *args, devices=["/dev/sda", "/dev/sdb"], modules=["virtio_scsi", "mptsas", "sd_mod", "sg"]) as m:
            m.run("modprobe sg 2>/dev/null || true")
            a, b = way(m, "virtio"), way(m, "end_device")
            assert {a, b} == {"sda", "sdb"}
            assert m.run("cat /sys/block/sd[ab]/device/wwid | sort -u | wc -l") == "1"
            if boot == 0:
                for disk, key in ((a, "0xa"), (b, "0xb")):
                    m.run("sg_persist -o -G -Z -S %s /dev/%s" % (key, disk))
                m.run("sg_persist -o -R -T 1 -K 0xa /dev/" + a)
            if boot == 2:
                m.run("sg_persist -o -A -T 1 -K 0xb -S 0xa /dev/" + b)
                assert "egistrations preempted" in m.call("sg_persist -r /dev/%s 2>&1" % a)[1]      # a unit attention, once
                a, b = b, a
            else:
                assert m.run("sg_persist -k /dev/%s | grep -c 0x[ab]" % b) == "2"
            assert "Write Exclusive" in m.run("sg_persist -r /dev/" + b)
            m.run(write % a)
            assert m.call(write % b)[0] != 0
            m.run("dd if=/dev/%s of=/dev/null bs=4k count=1 iflag=direct" % b)
