# SPDX-License-Identifier: MIT
"""virtio-serial under Linux: hvc0 as the kernel's console, a named port, a mebibyte both ways, plug and unplug."""
import hashlib
import os
import random
import socket
import threading

import pytest

import guest

NAME = "org.test.echo"
MODULES = ["virtio_mmio", "virtio_pci"]


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path)
    return s


def read_until(s, text):
    data = b""
    while text not in data:
        more = s.recv(65536)
        assert more, data
        data += more
    return data


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("vcon"))
    args = ["-qmp", "unix:%s/qmp,server=on,wait=off" % d, "-device", "virtio-serial-pci,id=vs",
            "-chardev", "socket,id=con,path=%s/con,server=on,wait=off" % d, "-device", "virtconsole,chardev=con",
            "-chardev", "socket,id=echo,path=%s/echo,server=on,wait=off" % d,
            "-device", "virtserialport,bus=vs.0,chardev=echo,name=%s,id=p1" % NAME]
    with guest.Machine(*args, modules=MODULES) as m:
        m.boot()
        m.dir = d
        m.q = guest.Qmp(d + "/qmp")
        yield m
        m.q.close()


def port_of(m, name):
    """The guest's device of the port NAME."""
    return "/dev/" + m.run("for i in $(seq 40); do grep -lx %s /sys/class/virtio-ports/*/name && break; sleep 0.3; done"
                           % name).split("/")[-2]


def frontend_open(m, label):
    return [c["frontend-open"] for c in m.q.cmd("query-chardev") if c["label"] == label][0]


def test_hvc0_is_a_terminal(lab):
    with connect(lab.dir + "/con") as s:
        lab.run("echo hello-host >/dev/hvc0")
        assert b"hello-host" in read_until(s, b"hello-host")
        lab.send("head -n 1 </dev/hvc0; echo rc-$?-\n")
        s.sendall(b"hello-guest\n")
        lab.expect("hello-guest[\\s\\S]*rc-0-")


def test_a_mebibyte_both_ways(lab):
    port = port_of(lab, NAME)
    assert not frontend_open(lab, "echo")
    # A read ends at once for as long as nobody is connected on the host's side.
    lab.run("(exec 3<>%s; while :; do cat <&3 >&3; sleep 0.1; done) >/dev/null 2>&1 & echo $! >/tmp/pid" % port)
    assert lab.q.event("VSERPORT_CHANGE")["data"] == {"id": "p1", "open": True}
    assert frontend_open(lab, "echo")
    data = random.Random(1).randbytes(1 << 20)
    with connect(lab.dir + "/echo") as s:
        sender = threading.Thread(target=s.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            more = s.recv(65536)
            assert more
            got += more
        sender.join()
        assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    lab.run("kill $(cat /tmp/pid); pkill cat; true")
    assert lab.q.event("VSERPORT_CHANGE")["data"] == {"id": "p1", "open": False}


def test_a_reader_that_sleeps_loses_nothing(lab):
    """The host does not read for a while: the writer waits when the ring (4 MiB) is full, and every byte arrives in the end."""
    port = port_of(lab, NAME)
    with connect(lab.dir + "/echo") as s:
        lab.run("dd if=/dev/urandom of=/tmp/text bs=64k count=128 2>/dev/null; "
                "(dd if=/tmp/text of=%s bs=64k; echo written >/tmp/state) >/dev/null 2>&1 & sleep 1; [ ! -e /tmp/state ] && echo waits" % port)
        size = int(lab.run("wc -c </tmp/text"))
        got = b""
        while len(got) < size:
            got += s.recv(65536)
        assert hashlib.sha256(got).hexdigest() == lab.run("sha256sum </tmp/text").split()[0]


def test_ports_are_plugged_and_unplugged(lab):
    lab.q.cmd("chardev-add", id="late", backend={"type": "ringbuf", "data": {"size": 4096}})
    lab.q.cmd("device_add", driver="virtserialport", bus="vs.0", id="p9", chardev="late", name="org.test.late", nr=9)
    port = port_of(lab, "org.test.late")
    assert port.endswith("p9")
    lab.run("echo from-the-late-port >%s" % port)
    assert lab.q.cmd("ringbuf-read", device="late", size=100) == "from-the-late-port\n"
    lab.q.cmd("device_del", id="p9")
    lab.q.event("DEVICE_DELETED")
    assert lab.run("for i in $(seq 40); do [ -e /sys/class/virtio-ports/%s ] || break; sleep 0.3; done; ls /sys/class/virtio-ports"
                   % os.path.basename(port)).split() == sorted(["vport%sp0" % port[-3], "vport%sp1" % port[-3]])
    lab.q.cmd("chardev-remove", id="late")


def test_no_complaint_in_the_log(lab):
    assert "virtio" not in lab.run("dmesg -l emerg,alert,crit,err,warn || true")


def test_the_kernels_console():
    """No UART in use: the kernel and the shell are on hvc0 from the start."""
    with guest.Machine("-display", "none", "-serial", "null", "-monitor", "none", "-chardev", "stdio,id=c", "-device",
                       "virtio-serial-pci", "-device", "virtconsole,chardev=c", modules=MODULES, append="console=hvc0",
                       nographic=False) as m:
        m.boot()
        assert "hvc0" in m.run("cat /sys/class/tty/console/active")
        m.send("poweroff -f\n")
        assert m.wait(30) == 0
