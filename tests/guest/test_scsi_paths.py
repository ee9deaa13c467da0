# SPDX-License-Identifier: MIT
"""Linux and sg3-utils on a disk with protection information, which goes all the way to the block layer, and on a unit behind two groups of ports."""
import pytest

import disklab

# what sg_rtpg says, how sg_verify ends
STATES = {"active-optimized": ("0x00", "0"), "active-non-optimized": ("0x01", "0"), "standby": ("0x02", "12"), "unavailable": ("0x03", "13")}
WAY = "port_group=25%d,port_index=%d,share-rw=on,wwn=0x5000c50015ea71cc,serial=TWOWAYS,scsi-id=2"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("paths"))
    node = "driver=raw,node-name=%s,file.driver=file,file.filename=%s"
    args = ["-blockdev", node % ("p", disklab.image(folder, "p", 16 * disklab.MIB)), "-blockdev", node % ("m", disklab.image(folder, "m", 8 * disklab.MIB)),
            "-device", "virtio-scsi-pci,id=one,t10_pi=on", "-device", "virtio-scsi-pci,id=two",
            "-device", "scsi-hd,bus=one.0,drive=p,scsi-id=1,protection=on", "-device", "scsi-hd,bus=one.0,id=a,drive=m," + WAY % (1, 1),
            "-device", "scsi-hd,bus=two.0,id=b,drive=m,port_state=standby," + WAY % (2, 2)]
    with disklab.lab(folder, *args, devices=["/dev/sdc"], modules=["virtio_scsi", "sd_mod", "sg"]) as m:
        m.pi, m.a, m.b = (m.run("basename $(ls -d /sys/bus/scsi/devices/%s:0/block/*)" % at) for at in ("0:0:1", "0:0:2", "1:0:2"))
        m.run("mkdir -p /mnt")
        yield m


def good(m, text, timeout=120):
    rc, out = m.call(text, timeout)
    assert rc == 0, "%s: %s" % (text, out)
    return out


@pytest.mark.parametrize("kind,info", [(1, "--fmtpinfo=2"), (2, "--fmtpinfo=3"), (3, "--fmtpinfo=3 --pfu=1")])
def test_protection(lab, kind, info):
    """Formatted by sg_format; Linux passes tuples with the data, the disk finds the bit that its image has lost, and so does a verify."""
    disk = "/dev/" + lab.pi
    good(lab, "sg_format --format --quick --wait %s %s" % (info, disk))
    good(lab, "echo 1 > /sys/block/%s/device/rescan" % lab.pi)
    assert "prot_en=1, p_type=%d" % (kind - 1) in good(lab, "sg_readcap -l " + disk)
    at = "/sys/block/%s/" % lab.pi
    assert good(lab, "cat %sdevice/scsi_disk/*/protection_type %sdevice/scsi_disk/*/protection_mode" % (at, at)).split() == [str(kind), "dix%d" % kind]
    assert good(lab, "cat %sintegrity/format" % at) == "T10-DIF-TYPE%d-CRC" % (3 if kind == 3 else 1)
    good(lab, "mkfs.ext4 -q -F %s && mount %s /mnt && cp -r /usr/sbin/sg_* /bin/busybox /mnt 2>/dev/null; cd /mnt && sha1sum * 2>/dev/null >/tmp/sums; cd /; umount /mnt"
         % (disk, disk))
    good(lab, "mount %s /mnt && (cd /mnt && sha1sum -c /tmp/sums >/dev/null) && umount /mnt" % disk)
    good(lab, "dd if=/bin/busybox of=%s bs=4k seek=2000 count=8 oflag=direct 2>/dev/null && dd if=%s bs=4k skip=2000 count=8 iflag=direct 2>/dev/null >/dev/null"
         % (disk, disk))
    with open(lab.dir + "/p", "r+b") as f:
        f.seek(2003 * 4096 + 700)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 0x10]))
    assert lab.call("dd if=%s bs=4k skip=2000 count=8 iflag=direct 2>/dev/null >/dev/null" % disk)[0] != 0
    rc, out = lab.call("sg_verify --lba=16000 --count=64 %s 2>&1" % disk)
    assert rc == 40 and "protection error" in out, out
    good(lab, "dd if=/bin/busybox of=%s bs=4k seek=2000 count=8 oflag=direct 2>/dev/null && sg_verify --lba=16000 --count=64 %s" % (disk, disk))


def test_two_groups(lab):
    """States as both ways tell them: set by the command line, by a monitor, by SET TARGET PORT GROUPS; a way in standby does nothing else."""
    for disk, group in ((lab.a, 1), (lab.b, 2)):
        out = good(lab, "sg_vpd -p di /dev/%s; sg_inq /dev/%s" % (disk, disk))
        assert "Relative target port: 0x%d" % group in out and "Target port group: 0x%x" % (250 + group) in out and "TPGS=3" in out, out

    def states(disk):
        out = good(lab, "sg_rtpg --decode /dev/%s 2>/dev/null || sg_rtpg --decode /dev/%s" % (disk, disk))       # the first hears that states changed
        return [line.split(":")[1].split()[0] for line in out.splitlines() if "access state" in line]

    assert sorted(states(lab.a)) == sorted(states(lab.b)) == ["0x00", "0x02"]
    assert good(lab, "dd if=/dev/%s bs=4k count=1 iflag=direct 2>/dev/null | wc -c" % lab.b) == "0"
    for name, (code, status) in STATES.items():
        lab.q.cmd("qom-set", path="/machine/peripheral/b", property="port_state", value=name)
        assert sorted(states(lab.a)) == sorted(["0x00", code])
        verify = "sg_verify --lba=0 --count=8 /dev/%s >/dev/null 2>&1; " % lab.b
        assert good(lab, verify + verify + "echo $?") == status
    good(lab, "sg_stpg --optimized --tp=252,251 /dev/%s" % lab.a)
    assert states(lab.b) == ["0x00", "0x00"]
    assert lab.q.cmd("qom-get", path="/machine/peripheral/b", property="port_state") == "active-optimized"
    disklab.write_and_compare(lab, lab.a, lab.dir + "/m", 100)
    good(lab, "echo 1 > /sys/block/%s/device/rescan" % lab.b)         # what it was refused when it came
    assert good(lab, "dd if=/dev/%s bs=4k skip=100 count=100 iflag=direct 2>/dev/null | sha1sum" % lab.b) == \
        good(lab, "dd if=/dev/%s bs=4k skip=100 count=100 iflag=direct 2>/dev/null | sha1sum" % lab.a)


def test_linux_follows(lab):
    """The kernel's handler of such units (scsi_dh_alua) takes both ways, and learns of a state from the unit attention that tells of it."""
    if lab.call("modprobe scsi_dh_alua")[0]:
        pytest.skip("this guest has no scsi_dh_alua")
    good(lab, "for d in %s %s; do echo alua > /sys/block/$d/device/dh_state || exit 1; done" % (lab.a, lab.b))
    log = lab.run("dmesg")
    assert "alua: supports implicit and explicit TPGS" in log and "port group fb rel port 1" in log and "port group fc rel port 2" in log, log
    for state, shown in (("standby", "standby"), ("active-non-optimized", "active/non-optimized"), ("unavailable", "unavailable"),
                         ("active-optimized", "active/optimized")):
        lab.q.cmd("qom-set", path="/machine/peripheral/b", property="port_state", value=state)
        good(lab, "for i in $(seq 60); do dd if=/dev/%s of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; dd if=/dev/%s of=/dev/null bs=4k count=1 iflag=direct "
             "2>/dev/null; [ \"$(cat /sys/block/%s/device/access_state)\" = %s ] && break; sleep 0.5; done" % (lab.a, lab.b, lab.b, shown), 90)
        assert good(lab, "cat /sys/block/%s/device/access_state /sys/block/%s/device/access_state" % (lab.a, lab.b)).splitlines() == ["active/optimized", shown]
