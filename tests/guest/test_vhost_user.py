# SPDX-License-Identifier: MIT
"""Debian on disks that other processes serve by vhost-user: our backplane-serve, and qemu-storage-daemon where it is there. They are killed
and started again under load."""
import contextlib
import os
import shutil
import subprocess
import sys
import time

import pytest

import disklab
import guest

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "img"))
from imglib import wait_listening  # noqa: E402

MIB = 1 << 20
SERVE = os.path.join(guest.BUILD, "backplane-serve")


class Server:
    """A process with one image behind the socket "vu"."""

    def __init__(self, kind, folder):
        self.kind, self.dir, self.process, self.starts = kind, str(folder), None, 0
        disklab.image(self.dir, "img", 64 * MIB)
        self.start()

    def start(self):
        sock = os.path.join(self.dir, "vu")
        if os.path.exists(sock):
            os.unlink(sock)
        export = "vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s,writable=on,num-queues=2" % sock
        cmd = [SERVE if self.kind == "ours" else "qemu-storage-daemon", "--blockdev", "driver=file,node-name=n,discard=unmap,filename=%s/img" % self.dir,
               "--export", export]
        self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL)
        wait_listening(sock, self.process)
        self.starts += 1

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def served(kind, tmp):
    server = Server(kind, tmp)
    try:
        with disklab.lab(tmp, "-smp", "2", "-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-chardev",
                         "socket,id=c,path=%s/vu,reconnect-ms=50" % tmp, "-device", "pcie-root-port,id=rp,chassis=1,slot=1",
                         "-device", "vhost-user-blk-pci,id=hot,bus=rp,chardev=c,num-queues=2",
                         devices=["/dev/vdb"], modules=["virtio_blk", "ext4"], machine="virt,memory-backend=mem") as m:
            m.server = server
            yield m
    finally:
        server.kill()


def killed_under_load(m):
    """fio writes and reads back, with 32 requests in flight; nothing it wrote is lost, nothing waits for ever."""
    starts = m.server.starts
    m.run("(fio --name=v --filename=/dev/vdb --offset=24M --size=6M --rw=randwrite --bs=4k --iodepth=32 --ioengine=libaio --direct=1 "
          "--verify=crc32c --do_verify=1 --verify_fatal=1 --loops=2 --output-format=terse > /tmp/fio 2>&1; echo $? > /tmp/rc) < /dev/null > /dev/null 2>&1 & true")
    while m.call("[ -s /tmp/rc ]")[0]:
        if m.server.starts < starts + 8:
            m.server.kill()
            m.server.start()
        time.sleep(0.3)
    assert m.run("cat /tmp/rc /tmp/fio | cut -d';' -f5").split()[-2:] == ["0", "0"] and m.server.starts >= starts + 2
    assert "error" not in m.run("dmesg | grep vdb || true")


@pytest.mark.parametrize("kind", ["ours", pytest.param("qemu", marks=pytest.mark.skipif(not shutil.which("qemu-storage-daemon"), reason="none here"))])
def test_a_disk_of_another_process(kind, web, tmp_path):
    with served(kind, str(tmp_path)) as m:
        file = m.server.dir + "/img"
        assert disklab.has_fill(m, "vdb", 4000) and m.run("blockdev --getsize64 /dev/vdb") == str(64 * MIB)
        assert int(m.run("ls -d /sys/block/vdb/mq/* | wc -l")) == 2
        disklab.write_and_compare(m, "vdb", file, 2000)
        for how in "write through", "write back":
            m.run("echo '%s' > /sys/block/vdb/cache_type" % how)
            assert m.run("cat /sys/block/vdb/cache_type") == how
        killed_under_load(m)
        disklab.use_file_system(m, "vdb")
        # the driver goes, and comes again
        m.run("b=$(basename $(readlink -f /sys/block/vdb/device)); cd /sys/bus/virtio/drivers/virtio_blk; echo $b > unbind; echo $b > bind")
        m.run("for i in $(seq 100); do [ -e /dev/vdb ] && break; sleep 0.1; done; [ -e /dev/vdb ]")
        disklab.write_and_compare(m, "vdb", file, 3000)
        disklab.fio_verify(m, "vdb", size="1M")
        # out of its slot, and in again; the kernel has no pciehp: this is what it does
        m.run("f=/sys/bus/pci/devices/0000:01:00.0; p=$(basename $(dirname $(readlink -f $f))); echo 1 > $f/remove; setpci -s $p CAP_EXP+18.w=7c0; echo $p > /tmp/p")
        disklab.unplug(m)
        m.q.cmd("device_add", driver="vhost-user-blk-pci", id="hot", bus="rp", chardev="c", **{"num-queues": 2})
        m.run("setpci -s $(cat /tmp/p) CAP_EXP+1a.w=8; setpci -s $(cat /tmp/p) CAP_EXP+18.w=1c0; sleep 1; echo 1 > /sys/bus/pci/rescan")
        m.run("for i in $(seq 100); do [ -e /dev/vdb ] && break; sleep 0.1; done; [ -e /dev/vdb ]")
        disklab.write_and_compare(m, "vdb", file, 1000)
