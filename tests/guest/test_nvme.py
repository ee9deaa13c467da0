# SPDX-License-Identifier: MIT
"""NVMe controllers, driven by Debian's driver, nvme-cli, mkfs and fio."""
import os
import re

import pytest

import guest


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("nvme"))
    data = guest.make_disk(os.path.join(folder, "data.img"), 64 << 20)
    ns = []
    for i in range(3):
        img = guest.make_disk(os.path.join(folder, "ns%d.img" % i), 16 << 20)
        ns += ["-drive", "file=%s,format=raw,if=none,id=n%d,discard=unmap" % (img, i)]
    ns += ["-device", "nvme-subsys,id=ss,nqn=shared", "-device", "nvme,id=mp0,serial=MULTI,subsys=ss", "-device", "nvme,id=mp1,serial=MULTI,subsys=ss",
           "-device", "nvme-ns,bus=mp0,drive=n0,nsid=1", "-device", "nvme,id=zn,serial=ZONED",
           "-device", "nvme-ns,bus=zn,drive=n1,nsid=1,zoned=on,zoned.zone_size=1M,zoned.zone_capacity=768K,zoned.max_open=4",
           "-device", "nvme-ns,bus=zn,drive=n2,nsid=2,ms=8,pi=1"]
    for name, size in (("boot", 512 << 10), ("fdp", 16 << 20), ("pull", 16 << 20)):
        img = guest.make_disk(os.path.join(folder, name), size, fill=name.encode() * 100)
        ns += ["-drive", "file=%s,format=raw,if=none,id=%s" % (img, name)]
    ns += ["-device", "nvme-subsys,id=fs,fdp=on,fdp.nruh=4,fdp.nrg=1", "-device", "nvme,id=fc,serial=FDP,subsys=fs",
           "-device", "nvme-ns,bus=fc,drive=fdp,nsid=1,fdp.ruhs=0;1;2,atomic.nawun=15,atomic.nawupf=7",
           "-device", "pcie-root-port,id=rp", "-device", "nvme,id=pull,bus=rp,serial=PULL,drive=pull"]
    args = ["-smp", "2", *ns, "-qmp", "unix:%s/qmp,server=on,wait=off" % folder,
            "-drive", "file=%s,format=raw,if=none,id=d,discard=unmap" % data, "-device", "nvme,id=nvd,drive=d,serial=DATA,mdts=5,boot-drive=boot"]
    with guest.Machine(*args, modules=["nvme"], root=True, memory="768M") as machine:
        machine.boot()
        machine.folder = folder
        yield machine
        machine.send("poweroff -f\n")
        assert machine.wait(20) == 0


def on(m, text, timeout=60, serial="DATA", nsid=1):
    """Runs TEXT, which names the controller of SERIAL as @C and its namespace's disk as @D (the kernel numbers disks as they come)."""
    ctrl = m.run("grep -lx '%s *' /sys/class/nvme/nvme*/serial | cut -d/ -f5" % serial).split()[0]
    disk = m.run("for d in /sys/block/nvme*; do grep -qx '%s *' $d/device/serial && grep -qx %d $d/nsid && basename $d; done 2>/dev/null | grep -v c" %
                 (serial, nsid)) if "@D" in text else ""
    return m.call(text.replace("@C", ctrl).replace("@D", disk), timeout)


def good(m, text, timeout=60, serial="DATA", nsid=1):
    """The same for what must succeed; what it printed."""
    rc, out = on(m, text, timeout, serial, nsid)
    assert rc == 0, "%s: %s" % (text, out)
    return out


def test_no_error_in_the_kernel_log(m):
    log = m.run("dmesg -l emerg,alert,crit,err,warn | grep -i -e nvme -e EXT4-fs || true")
    assert not log, log


def test_list(m):
    out = m.run("nvme list")
    assert re.search(r"ZONED +backplane NVMe Controller", out) and re.search(r"DATA +backplane NVMe Controller", out)


def test_identify_tells_the_options(m):
    out = good(m, "nvme id-ctrl /dev/@C")
    assert re.search(r"^mdts +: 5\s*$", out, re.M) and re.search(r"^sn +: DATA", out, re.M) and re.search(r"^ver +: 0x20000", out, re.M)
    assert re.search(r"^nsze +: 0x20000", good(m, "nvme id-ns /dev/@D"), re.M)
    assert good(m, "cat /sys/block/@D/queue/max_hw_sectors_kb") == "128"


def test_a_file_system_keeps_its_files(m):
    good(m, "mkfs.ext4 -q /dev/@D && mount /dev/@D /mnt && cp -a /usr/lib/python3*/json /usr/bin/bash /mnt/ && umount /mnt", 120)
    good(m, "mount /dev/@D /mnt && cmp /usr/bin/bash /mnt/bash && diff -r /usr/lib/python3*/json /mnt/json && umount /mnt")
    good(m, "e2fsck -fn /dev/@D")


FIO = ("fio --name=v --filename=/dev/@D --size=%s --rw=randwrite --bs=%s --iodepth=16 --ioengine=libaio --direct=1 --verify=crc32c "
       "--do_verify=1 --verify_fatal=1 --verify_state_save=0 --output-format=terse | cut -d';' -f5")


def test_random_load_is_verified(m):
    """fio writes random blocks at depth 16 and verifies every one."""
    assert good(m, FIO % ("2M", "4k"), 240).splitlines()[-1] == "0"


def test_the_pin_falls_with_the_doorbell(m):
    """This board has no MSI. A pin that stays up until a loop looks interrupts the guest tens of times for one request."""
    def interrupts():
        return sum(int(n) for n in m.run("grep nvme /proc/interrupts | awk '{ print $2 + $3 }'").split())

    before = interrupts()
    out = good(m, "fio --name=v --filename=/dev/@D --size=4M --rw=randread --bs=4k --iodepth=8 --ioengine=libaio --direct=1 "
                  "--output-format=terse | tail -1 | cut -d';' -f5", 120)
    assert out == "0"
    assert interrupts() - before < 3 * 1024


def test_smart_counts_what_was_done(m):
    def reads():
        return int(re.search(r"^host_read_commands\s*: (\d+)", good(m, "nvme smart-log /dev/@C"), re.M).group(1))

    before = reads()
    good(m, "dd if=/dev/@D of=/dev/null bs=4k count=10 iflag=direct 2>/dev/null")
    assert reads() == before + 10


def test_features(m):
    assert "Current value:0x" in good(m, "nvme get-feature /dev/@C -f 7")
    good(m, "nvme set-feature /dev/@C -f 4 -V 0x140")
    assert re.search(r"Current value:0x0*140", good(m, "nvme get-feature /dev/@C -f 4"))
    good(m, "nvme set-feature /dev/@C -f 4 -V 0x157")
    assert on(m, "nvme get-feature /dev/@C -f 0x7d")[0] != 0


def test_discard_and_zeroes(m):
    good(m, "blkdiscard -z /dev/@D")
    assert good(m, "dd if=/dev/@D bs=1M count=4 2>/dev/null | tr -d '\\0' | wc -c") == "0"
    good(m, "blkdiscard /dev/@D")


def test_reset_and_rebind_under_load(m):
    """The driver resets and leaves the controller while commands run; nothing is lost."""
    good(m, "(for i in 1 2 3; do dd if=/dev/@D of=/dev/null bs=64k count=64 iflag=direct 2>/dev/null; done) & "
            "for i in 1 2 3; do nvme reset /dev/@C; done; wait", 120)
    addr = os.path.basename(good(m, "readlink /sys/class/nvme/@C/device"))
    m.run("cd /sys/bus/pci/drivers/nvme; for i in 1 2 3; do echo %s >unbind; echo %s >bind; done; sleep 2" % (addr, addr), 60)
    good(m, "dd if=/dev/@D of=/dev/null bs=64k count=4 iflag=direct")
    assert "I/O timeout" not in m.run("dmesg")


def test_format_by_nvme_cli(m):
    """nvme format to 4 KiB blocks and back; the kernel follows."""
    for lbaf, size in ((4, 4096), (0, 512)):
        good(m, "nvme format /dev/@C -n 1 -l %d --force" % lbaf)
        assert good(m, "cat /sys/block/@D/queue/logical_block_size") == str(size)
    assert on(m, "nvme format /dev/@C -n 1 -l 60 --force")[0] != 0


def test_delete_create_attach_by_nvme_cli(m):
    good(m, "nvme delete-ns /dev/@C -n 1")
    assert re.search(r"nsid: *1\b", good(m, "nvme create-ns /dev/@C -s 8192 -c 8192 -f 4 -d 0 -m 0"))
    good(m, "nvme attach-ns /dev/@C -n 1 -c 0 && nvme ns-rescan /dev/@C && sleep 1")
    assert good(m, "blockdev --getsize64 /dev/@D") == str(32 << 20)
    good(m, "nvme delete-ns /dev/@C -n 1")
    assert on(m, "nvme create-ns /dev/@C -s 32768 -c 32768 -f 4 -d 0")[0] != 0       # 128 MiB of 64
    good(m, "nvme create-ns /dev/@C -s 131072 -c 131072 -f 0 && nvme attach-ns /dev/@C -n 1 -c 0 && nvme ns-rescan /dev/@C && sleep 1")
    assert good(m, "blockdev --getsize64 /dev/@D") == str(64 << 20)


def test_boot_partitions_by_nvme_cli(m):
    good(m, "dd if=/dev/urandom of=/tmp/i bs=4k count=8 2>/dev/null; nvme boot-part-log /dev/@C -s 0 -f /tmp/b && head -c 400 /tmp/b | grep -q bootboot && "
            "nvme fw-download /dev/@C -f /tmp/i && nvme fw-commit /dev/@C -a 6 -b 1 && nvme fw-commit /dev/@C -a 7 -b 1 && "
            "nvme boot-part-log /dev/@C -s 1 -f /tmp/b && cmp -n 32768 /tmp/b /tmp/i")


def test_atomic_writes_are_told(m):
    """Read at the path: a multipath head takes the limits over from Linux 6.13 on."""
    assert good(m, "d=@D; cd /sys/block/${d%n*}c*n${d##*n}/queue || cd /sys/block/$d/queue; cat atomic_write_max_bytes atomic_write_unit_max_bytes",
                serial="FDP").split() == ["4096"] * 2


def test_pulled_out_and_plugged_in(m):
    """The controller goes while it is read; the kernel lets it go, and finds it again, with what it had. (Debian has no pciehp.)"""
    addr = os.path.basename(good(m, "readlink -f /sys/class/nvme/@C/device", serial="PULL"))
    good(m, "(dd if=/dev/@D of=/dev/null bs=4k iflag=direct 2>/dev/null &) ; sleep 0.2", serial="PULL")
    q = guest.Qmp(m.folder + "/qmp")
    q.cmd("qom-set", path="/machine/peripheral/pull", property="link", value="removed")
    assert m.run("cat /sys/bus/pci/devices/%s/config 2>/dev/null | od -An -tx2 -N2" % addr).strip() == "ffff"
    m.run("echo 1 >/sys/bus/pci/devices/%s/remove; sleep 1" % addr, 60)
    assert m.call("grep -q PULL /sys/class/nvme/nvme*/serial")[0] == 1
    q.cmd("qom-set", path="/machine/peripheral/pull", property="link", value="up")
    q.close()
    m.run("echo 1 >/sys/bus/pci/rescan; for i in $(seq 50); do grep -q PULL /sys/class/nvme/nvme*/serial && break; sleep 0.1; done; sleep 1")
    good(m, "dd if=/dev/@D bs=4k count=1 iflag=direct 2>/dev/null | grep -q pullpull", serial="PULL")


def test_function_level_resets(m):
    good(m, "for i in 1 2 3; do dd if=/dev/@D of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null & echo 1 >/sys/class/nvme/@C/device/reset; wait; done")
    assert good(m, "cat /sys/class/nvme/@C/state") == "live"


def test_read_write_compare_by_nvme_cli(m):
    good(m, "dd if=/dev/urandom of=/tmp/x bs=4096 count=1 2>/dev/null; nvme write /dev/@D -s 16 -c 7 -z 4096 -d /tmp/x && "
            "nvme read /dev/@D -s 16 -c 7 -z 4096 -d /tmp/y && cmp /tmp/x /tmp/y && nvme compare /dev/@D -s 16 -c 7 -z 4096 -d /tmp/x")
    assert on(m, "nvme compare /dev/@D -s 17 -c 7 -z 4096 -d /tmp/x")[0] != 0


def test_zones(m):
    def z(text, serial="ZONED"):
        return good(m, text, 60, serial)

    assert z("cat /sys/block/@D/queue/zoned") == "host-managed"
    assert z("cat /sys/block/@D/queue/chunk_sectors /sys/block/@D/queue/max_open_zones").split() == ["2048", "4"]
    assert len(re.findall(r"SLBA", z("nvme zns report-zones /dev/@D"))) == 16
    z("dd if=/dev/urandom of=/tmp/z bs=64k count=4 2>/dev/null; dd if=/tmp/z of=/dev/@D bs=64k oflag=direct 2>/dev/null; "
      "dd if=/dev/@D bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/z")
    assert re.search(r"WP: 0x200 ", z("nvme zns report-zones /dev/@D -d 1"))
    assert on(m, "dd if=/tmp/z of=/dev/@D bs=4k count=1 seek=9 oflag=direct 2>/dev/null", serial="ZONED")[0] != 0    # not at the write pointer
    for c in ("id-ctrl /dev/@C", "id-ns /dev/@D", "finish-zone /dev/@D -s 0", "reset-zone /dev/@D -s 0", "open-zone /dev/@D -s 0x800",
              "close-zone /dev/@D -s 0x800", "zone-append /dev/@D -s 0x1000 -z 4096 -d /tmp/z", "reset-zone /dev/@D -a"):
        z("nvme zns " + c)


def test_protection_information(m):
    """The kernel makes and checks type 1 tuples; fio verifies through them."""
    assert good(m, "cat /sys/block/@D/integrity/format", serial="ZONED", nsid=2) == "T10-DIF-TYPE1-CRC"
    assert good(m, FIO % ("1M", "8k"), 120, "ZONED", 2).splitlines()[-1] == "0"


def test_multipath(m):
    """Two controllers, one namespace: it stays when one path becomes inaccessible, and the data is one."""
    out = m.run("nvme list-subsys")
    assert len(re.findall(r"nvme\d+ pcie", out[out.index("shared"):].split("nvme-subsys")[0])) == 2, out
    good(m, "dd if=/dev/urandom of=/tmp/mp bs=64k count=8 2>/dev/null; dd if=/tmp/mp of=/dev/@D bs=64k oflag=direct 2>/dev/null", serial="MULTI")
    q = guest.Qmp(m.folder + "/qmp")
    for one in ("mp0", "mp1"):
        q.cmd("qom-set", path="/machine/peripheral/" + one, property="ana-state", value="inaccessible")
        good(m, "dd if=/dev/@D bs=64k count=8 iflag=direct 2>/dev/null | cmp - /tmp/mp", serial="MULTI")
        q.cmd("qom-set", path="/machine/peripheral/" + one, property="ana-state", value="optimized")
        m.run("sleep 1")
    q.close()


def test_multipath_under_load(m):
    """fio verifies its blocks while paths become slower, unreachable and lost in turns, for a moment all of them: no error reaches it."""
    log = int(m.run("dmesg | grep -c -i 'i/o error' || true"))
    good(m, "rm -f /tmp/mp.*; (while [ ! -e /tmp/mp.stop ]; do fio --name=mp --filename=/dev/@D --size=4M --rw=randrw --bs=4k --iodepth=8 --ioengine=libaio "
         "--direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output=/tmp/mp.out || touch /tmp/mp.bad; echo >>/tmp/mp.rounds; done; "
         "touch /tmp/mp.done) >/dev/null 2>&1 &", serial="MULTI")
    q = guest.Qmp(m.folder + "/qmp")
    paths = {}
    for name in m.run("grep -lx 'MULTI *' /sys/class/nvme/nvme*/serial | cut -d/ -f5").split():
        paths["mp" + m.run("cat /sys/class/nvme/%s/cntlid" % name)] = "/sys/class/nvme/%s/nvme*c*n*/ana_state" % name

    def until(condition):
        m.run("timeout 120 sh -c 'until %s; do sleep 0.1; done'" % condition, 150)

    def put(path, state):
        q.cmd("qom-set", path="/machine/peripheral/" + path, property="ana-state", value=state)
        if state != "change":                           # the kernel hears of the state by an event and reads the log
            until("grep -qx %s %s" % (state, paths[path]))

    try:
        until("[ -s /tmp/mp.rounds ]")
        for one, other in (("mp0", "mp1"), ("mp1", "mp0")) * 2:
            for state in ("non-optimized", "inaccessible", "persistent-loss", "change", "optimized"):
                put(one, state)
            put(one, "inaccessible")                    # none is left: requests wait
            put(other, "inaccessible")
            put(one, "optimized")
            put(other, "optimized")
        m.run("touch /tmp/mp.stop")
        until("[ -e /tmp/mp.done ]")
        assert m.call("[ ! -e /tmp/mp.bad ]")[0] == 0, m.run("cat /tmp/mp.out")
        assert int(m.run("dmesg | grep -c -i 'i/o error' || true")) == log, m.run("dmesg | tail -30")
    finally:
        m.run("touch /tmp/mp.stop")
        q.close()
