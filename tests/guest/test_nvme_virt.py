# SPDX-License-Identifier: MIT
"""SR-IOV of an NVMe controller: the kernel enables its virtual functions, nvme-cli gives them resources, the driver drives them."""
import os
import re

import pytest

import guest

VFS = 2


@pytest.fixture(name="m", scope="module")
def machine(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("virt"))
    img = guest.make_disk(os.path.join(folder, "img"), 16 << 20)
    args = ["-smp", "2", "-drive", "file=%s,format=raw,if=none,id=d" % img, "-qmp", "unix:%s/qmp,server=on,wait=off" % folder, "-device", "nvme-subsys,id=ss",
            "-device", "nvme,id=pf,serial=VIRT,subsys=ss,sriov_max_vfs=%d,sriov_vq_flexible=6,sriov_vi_flexible=6" % VFS, "-device", "nvme-ns,bus=pf,drive=d,nsid=1"]
    with guest.Machine(*args, machine="virt,aia=aplic-imsic", modules=["nvme"], root=True, memory="768M") as m:     # a VF has no pin: messages
        m.boot()
        m.qmp = guest.Qmp(folder + "/qmp")
        yield m
        m.qmp.close()
        m.send("poweroff -f\n")
        assert m.wait(20) == 0


def good(m, text):
    rc, out = m.call(text, 60)
    assert rc == 0, "%s: %s" % (text, out)
    return out


def field(text, name):
    return re.findall(r"%s +:.*?(?:: )?(0x\w+|\d+)(?: \(\w+\))?\s*$" % name, text, re.M)


def test_resources_move_to_functions(m):
    """The steps of nvme-cli: free what the primary has, reset it, enable functions, assign, set online, bind."""
    assert field(good(m, "nvme primary-ctrl-caps /dev/nvme0"), "vqrfap") == ["6"]
    good(m, "for r in 0 1; do nvme virt-mgmt /dev/nvme0 -c 0 -r $r -a 1 -n 0; done && nvme reset /dev/nvme0")
    assert field(good(m, "nvme primary-ctrl-caps /dev/nvme0"), "vqrfap") == ["0"]
    good(m, "cd /sys/class/nvme/nvme0/device/ && echo 0 >sriov_drivers_autoprobe && echo %d >sriov_numvfs" % VFS)
    for c in range(1, VFS + 1):
        good(m, "for r in 0 1; do nvme virt-mgmt /dev/nvme0 -c %d -r $r -a 8 -n 3; done && nvme virt-mgmt /dev/nvme0 -c %d -a 9" % (c, c))
    out = good(m, "nvme list-secondary /dev/nvme0")
    assert out.count("(Online)") == VFS and out.count("Num VQ Flex Resources Assigned  : 0x0003") == VFS
    good(m, "cd /sys/class/nvme/nvme0/device; echo 1 >sriov_drivers_autoprobe; for v in virtfn*; do basename $(readlink $v) >/sys/bus/pci/drivers/nvme/bind || exit 1; done")
    m.run("for i in $(seq 40); do [ $(grep -l live /sys/class/nvme/nvme*/state | wc -l) = %d ] && break; sleep 0.1; done" % (1 + VFS))
    assert len(re.findall(r"nvme\d+ pcie \S+ live", good(m, "nvme list-subsys"))) == 1 + VFS
    assert good(m, "cat /sys/class/nvme/nvme1/device/physfn/sriov_numvfs") == str(VFS)
    assert re.search(r"^cntlid +: 0x1\s*$", good(m, "nvme id-ctrl /dev/nvme1"), re.M)


def interrupts(m, n):
    """That the I/O queues of controller N have sent."""
    return sum(int(x) for line in m.run("grep 'nvme%dq[1-9]' /proc/interrupts" % n).splitlines() for x in line.split()[1:3])


def access(m, state, *paths):
    for p in paths:
        m.qmp.cmd("qom-set", path=p, property="ana-state", value=state)
    m.run("sleep 0.5")


def test_a_function_carries_the_load(m):
    """The physical function is no path any more: what fio verifies goes through the others, each with interrupts of its own."""
    access(m, "inaccessible", "/machine/peripheral/pf")
    before = [interrupts(m, n) for n in range(1 + VFS)]
    good(m, "dd if=/dev/urandom of=/tmp/x bs=64k count=32 2>/dev/null; dd if=/tmp/x of=/dev/nvme0n1 bs=64k oflag=direct 2>/dev/null; "
            "dd if=/dev/nvme0n1 bs=64k count=32 iflag=direct 2>/dev/null | cmp - /tmp/x")
    after = [interrupts(m, n) for n in range(1 + VFS)]
    assert after[0] == before[0] and sum(after[1:]) >= sum(before[1:]) + 16, (before, after)


def test_function_level_reset_under_load(m):
    good(m, "(dd if=/dev/nvme0n1 of=/dev/null bs=64k count=128 iflag=direct 2>/dev/null) & "
            "for i in 1 2 3; do echo 1 >/sys/class/nvme/nvme1/device/reset; done; wait $!")
    assert good(m, "cat /sys/class/nvme/nvme1/state") == "live"


def test_one_goes_offline_and_the_rest_goes_on(m):
    access(m, "optimized", "/machine/peripheral/pf")
    good(m, "nvme virt-mgmt /dev/nvme0 -c 2 -a 7")
    good(m, "dd if=/dev/nvme0n1 bs=64k count=32 iflag=direct 2>/dev/null | cmp - /tmp/x")
    good(m, "cd /sys/class/nvme/nvme0/device; basename $(readlink virtfn1) >/sys/bus/pci/drivers/nvme/unbind; "
            "nvme virt-mgmt /dev/nvme0 -c 2 -a 9 && basename $(readlink virtfn1) >/sys/bus/pci/drivers/nvme/bind")
    assert "(Offline)" not in good(m, "nvme list-secondary /dev/nvme0")


def test_functions_are_disabled(m):
    good(m, "echo 0 >/sys/class/nvme/nvme0/device/sriov_numvfs && ls /sys/class/nvme | grep -qx nvme0")
    assert good(m, "nvme list-secondary /dev/nvme0").count("(Offline)") == VFS
    good(m, "dd if=/dev/nvme0n1 bs=64k count=32 iflag=direct 2>/dev/null | cmp - /tmp/x")
    log = m.run("dmesg -l emerg,alert,crit,err | grep -i nvme || true")
    assert not log, log
