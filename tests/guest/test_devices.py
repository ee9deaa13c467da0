# SPDX-License-Identifier: MIT
"""The first devices, driven by Debian's drivers and tools: one machine, booted once, holds them all."""
import os
import re
import shutil
import socket
import time

import pytest

import guest

PATTERN = b"".join(b"%015d\n" % i for i in range(1024))     # 16 KiB that differ everywhere


class Lab:
    """The machine and what the tests know of its host side."""

    def __init__(self, machine, folder, port):
        self.m, self.folder, self.web_port = machine, folder, port
        self.qmp = None


@pytest.fixture(scope="module")
def lab(web, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("lab"))
    disk = os.path.join(folder, "data.img")
    with open(disk, "wb") as f:
        f.write(PATTERN)
        f.truncate(32 << 20)
    ro = os.path.join(folder, "ro.img")
    shutil.copyfile(disk, ro)
    args = ["-smp", "2", "-qmp", "unix:%s/qmp,server=on,wait=off" % folder,
            "-drive", "file=%s,format=raw,if=none,id=data" % disk, "-device", "virtio-blk-pci,drive=data,serial=DATA01",
            "-blockdev", "driver=file,filename=%s,node-name=rofile,read-only=on" % ro,
            "-blockdev", "driver=raw,file=rofile,node-name=ro,read-only=on", "-device", "virtio-blk-pci,drive=ro,serial=RO01",
            "-netdev", "user,id=n0,hostfwd=tcp:127.0.0.1:0-:7777", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:aa:bb:cc",
            "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,id=balloon0",
            "-device", "virtio-serial-pci", "-chardev", "socket,id=port,path=%s/port,server=on,wait=off" % folder,
            "-device", "virtserialport,chardev=port,name=org.test.port"]
    mods = ["virtio_net", "virtio-rng", "virtio_balloon", "virtio_console", "af_packet"]
    with guest.Machine(*args, modules=mods, root=True, memory="768M") as m:
        m.boot()
        one = Lab(m, folder, web[0])
        one.qmp = guest.Qmp(folder + "/qmp")
        yield one
        one.qmp.close()
        m.send("poweroff -f\n")
        assert m.wait(20) == 0


def disk_of(m, serial):
    """The guest's name of the disk with SERIAL."""
    return m.run("grep -lx %s /sys/block/vd*/serial | cut -d/ -f4" % serial)


def test_every_function_has_its_driver(lab):
    out = lab.m.run("lspci -n -k; lspci -k")
    assert len(re.findall(r"Kernel driver in use: virtio-pci", out)) >= 14      # seven functions, listed twice
    assert "1af4:1042" in out and "1af4:1041" in out or guest.IS_QEMU           # modern identities


def test_no_error_in_the_kernel_log(lab):
    log = lab.m.run("dmesg -l emerg,alert,crit,err || true")
    assert "virtio" not in log and "EXT4-fs error" not in log, log


def test_disk_reads_what_the_host_wrote(lab):
    d = disk_of(lab.m, "DATA01")
    assert lab.m.run("dd if=/dev/%s bs=16 skip=1000 count=1 2>/dev/null" % d) == "%015d" % 1000
    assert lab.m.run("blockdev --getsize64 /dev/%s" % d) == str(32 << 20)


def test_disk_keeps_what_the_guest_wrote(lab):
    d = disk_of(lab.m, "DATA01")
    digest = lab.m.run("dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null; dd if=/tmp/x of=/dev/%s bs=64k seek=16 conv=fsync "
                       "2>/dev/null; sha256sum </tmp/x" % d).split()[0]
    import hashlib
    with open(lab.folder + "/data.img", "rb") as f:
        f.seek(1 << 20)
        assert hashlib.sha256(f.read(4 << 20)).hexdigest() == digest


def test_disk_under_random_load(lab):
    """fio writes random blocks at depth 16 and verifies every one."""
    d = disk_of(lab.m, "DATA01")
    out = lab.m.run("fio --name=v --filename=/dev/%s --offset=8M --size=8M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio "
                    "--direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --output-format=terse | cut -d';' -f5" % d, 240)
    assert out.splitlines()[-1] == "0"


def test_read_only_disk_refuses_writes(lab):
    d = disk_of(lab.m, "RO01")
    assert lab.m.run("cat /sys/block/%s/ro" % d) == "1"
    assert lab.m.call("dd if=/dev/zero of=/dev/%s bs=512 count=1 conv=fsync" % d)[0] != 0
    with open(lab.folder + "/ro.img", "rb") as f:
        assert f.read(len(PATTERN)) == PATTERN


def test_dhcp_and_fetch_from_the_host(lab, web):
    out = lab.m.run("(. /etc/profile; net_up eth0)")
    assert "lease: 10.0.2.15 on eth0, router 10.0.2.2, dns 10.0.2.3" in out
    assert lab.m.run("cat /sys/class/net/eth0/address") == "52:54:00:aa:bb:cc"
    lab.m.run("wget -q -O /tmp/page http://10.0.2.2:%d/page" % web[0])
    import hashlib
    assert lab.m.run("sha256sum </tmp/page").split()[0] == hashlib.sha256(web[1].encode()).hexdigest()


def test_port_forward_tells_its_port_and_works(lab):
    lab.m.run("[ -s /etc/resolv.conf ] || (. /etc/profile; net_up eth0)")
    text = lab.qmp.cmd("human-monitor-command", command_line="info usernet")
    port = int(re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)", text).group(1))
    assert port != 7777
    lab.m.run("(echo from-the-guest | nc -l -p 7777 >/tmp/got) >/dev/null 2>&1 & until cat /proc/net/tcp* | grep -q ':1E61 .* 0A '; do sleep 0.1; done")     # 7777; it listens
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.settimeout(10)
        assert s.recv(100) == b"from-the-guest\n"
        s.sendall(b"from-the-host\n")
    assert lab.m.run("until [ -s /tmp/got ]; do sleep 0.1; done; cat /tmp/got") == "from-the-host"


def test_rng_gives_different_bytes(lab):
    assert "virtio" in lab.m.run("cat /sys/class/misc/hw_random/rng_current")
    a, b = (lab.m.run("head -c 32 /dev/hwrng | od -An -tx1 | tr -d ' \\n'") for _ in range(2))
    assert len(a) == 64 and a != b


def test_balloon_takes_and_gives_memory(lab):
    def guest_kib():
        return int(re.search(r"MemTotal:\s+(\d+)", lab.m.run("grep MemTotal /proc/meminfo")).group(1))

    before = guest_kib()
    lab.qmp.cmd("balloon", value=512 << 20)
    deadline = time.monotonic() + 60 * guest.SCALE
    while guest_kib() > before - 200 * 1024 and time.monotonic() < deadline:
        time.sleep(0.3)
    assert guest_kib() <= before - 200 * 1024
    lab.qmp.cmd("balloon", value=768 << 20)
    while guest_kib() < before and time.monotonic() < deadline + 60 * guest.SCALE:
        time.sleep(0.3)
    assert guest_kib() == before


def test_serial_port_carries_bytes_both_ways(lab):
    name = lab.m.run("grep -l org.test.port /sys/class/virtio-ports/*/name | cut -d/ -f5")
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(15)
    s.connect(lab.folder + "/port")
    try:
        lab.m.run("echo hello-host >/dev/%s" % name)
        assert s.recv(100) == b"hello-host\n"
        s.sendall(b"hello-guest\n")
        assert lab.m.run("head -n 1 /dev/%s" % name) == "hello-guest"
    finally:
        s.close()


def test_stop_and_cont(lab):
    lab.qmp.cmd("stop")
    assert lab.qmp.cmd("query-status")["status"] == "paused"
    lab.m.send("echo after-$((1+1))\n")
    time.sleep(0.5)
    assert "after-2" not in lab.m.log
    lab.qmp.cmd("cont")
    lab.m.expect("after-2", 20)
    assert lab.qmp.cmd("query-status")["running"] is True
