# SPDX-License-Identifier: MIT
"""Network filters: what a back end and its card exchange is copied, led elsewhere, kept back, written down. And announce-self."""
import os
import socket
import struct
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import TIMEOUT, QmpError
from lib.nvme import RAM
from lib.virtio import VirtioMachine

DATA = RAM + 0x800000
HEADER = 12
FRAME = bytes(range(64))


class Bench:
    """A card on a stream back end whose wire the test holds. take() and send() are the card's side."""

    def __init__(self, folder, *args):
        self.folder = str(folder)
        self.m = VirtioMachine(folder, "-nodefaults", "-netdev", "stream,id=n,server=on,addr.type=unix,addr.path=" + self.path("wire"), "-device",
                               "virtio-net-pci,netdev=n,addr=4,mac=52:54:00:00:00:07", *[a.replace("DIR", self.folder) for a in args])

    def path(self, name):
        return os.path.join(self.folder, name)

    def chardev(self, name):
        """The other end of the socket NAME, whose chardev has the same name; until that knows of it."""
        s = self.m.connect(self.path(name))
        self.joined(name)
        return s

    def joined(self, *names):
        """Until each of these chardevs has its peer."""
        end = time.monotonic() + TIMEOUT
        while [c for c in self.m.qmp.cmd("query-chardev") if c["label"] in names and c["filename"].startswith("disconnected")]:
            assert time.monotonic() < end, names

    def __enter__(self):
        self.m.__enter__()
        self.wire = self.m.connect(self.path("wire"))
        self.fn = self.m.fn(4)
        assert self.fn.negotiate()
        self.rx, self.tx = self.fn.queue(0), self.fn.queue(1)
        self.fn.start()
        self.rx.put((DATA, 2048, True))
        self.fn.kick(self.rx)
        self.m.qmp.cmd("query-status")
        return self

    def __exit__(self, *exc):
        self.wire.close()
        self.m.__exit__(*exc)

    def take(self):
        """The next frame that reaches the card."""
        n = self.rx.wait()[1]
        data = self.fn.q.read(DATA + HEADER, n - HEADER)
        self.rx.put((DATA, 2048, True))
        self.fn.kick(self.rx)
        return data

    def send(self, data):
        self.fn.q.write(DATA + 0x1000, bytes(HEADER) + data)
        self.tx.put((DATA + 0x1000, HEADER + len(data), False))
        self.fn.kick(self.tx)
        self.tx.wait()


def put(sock, data):
    sock.sendall(struct.pack(">I", len(data)) + data)


def get(sock):
    return sock.recv(struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))[0], socket.MSG_WAITALL)


def silent(sock, seconds=0.2):
    sock.settimeout(seconds)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(TIMEOUT)


def test_mirror_copies_one_direction(tmp_path):
    with Bench(tmp_path, "-chardev", "socket,id=c,path=DIR/c,server=on,wait=off", "-object", "filter-mirror,id=f,netdev=n,queue=tx,outdev=c") as b:
        copy = b.chardev("c")
        put(b.wire, FRAME)
        assert get(copy) == FRAME and b.take() == FRAME
        b.send(b"from the card" * 5)
        assert get(b.wire) == b"from the card" * 5
        silent(copy)
        copy.close()


@pytest.mark.parametrize("queue", ["tx", "rx"])
def test_redirectors_lead_out_and_in_again(tmp_path, queue):
    """Out through the first, round over a chardev into the second, out again through the third: in the order of that direction."""
    names = ["outdev=a", "indev=a2", "outdev=z"] if queue == "tx" else ["outdev=z", "indev=a2", "outdev=a"]
    args = ["-chardev", "socket,id=a,path=DIR/a,server=on,wait=off", "-chardev", "socket,id=z,path=DIR/z,server=on,wait=off",
            "-chardev", "socket,id=a2,path=DIR/a"]
    for i, n in enumerate(names):
        args += ["-object", "filter-redirector,id=f%d,netdev=n,queue=%s,%s" % (i, queue, n)]
    with Bench(tmp_path, *args) as b:
        out = b.chardev("z")
        b.joined("a", "a2")
        if queue == "tx":
            put(b.wire, FRAME)
        else:
            b.send(FRAME)
        assert get(out) == FRAME
        out.close()


def test_redirector_brings_packets_in_while_it_is_on(tmp_path):
    with Bench(tmp_path, "-chardev", "socket,id=c,path=DIR/c,server=on,wait=off",
               "-object", "filter-redirector,id=f,netdev=n,queue=rx,indev=c,status=off") as b:
        for reconnected in (False, True):
            side = b.m.connect(b.path("c"))
            b.m.qmp.cmd("qom-set", path="/objects/f", property="status", value="off")
            put(side, FRAME)
            silent(b.wire)
            b.m.qmp.cmd("qom-set", path="/objects/f", property="status", value="on")
            assert get(b.wire) == FRAME
            side.sendall(struct.pack(">II", 0, 1 << 30))            # no packet has such a length
            put(side, b"second" * 10)
            assert get(b.wire) == b"second" * 10
            side.sendall(b"\0\0\0\x40half")                          # broken off: not the beginning of what the next one sends
            b.m.qmp.cmd("query-status")
            side.close()


def test_buffer_gathers(tmp_path):
    with Bench(tmp_path, "-object", "filter-buffer,id=f,netdev=n,queue=rx,interval=1000000") as b:
        for i in range(3):
            b.send(bytes([i]) * 60)
        silent(b.wire)
        b.m.q.step(1000000000)
        assert [get(b.wire)[0] for _ in range(3)] == [0, 1, 2]
        b.send(bytes([3]) * 60)
        b.m.qmp.cmd("qom-set", path="/objects/f", property="status", value="off")
        assert get(b.wire)[0] == 3


def test_dump_is_a_pcap_file(tmp_path):
    with Bench(tmp_path, "-object", "filter-dump,id=f,netdev=n,file=DIR/pcap,maxlen=32") as b:
        put(b.wire, FRAME)
        assert b.take() == FRAME
        b.send(b"x" * 70)
        assert get(b.wire) == b"x" * 70
        end = time.monotonic() + TIMEOUT
        while os.path.getsize(b.path("pcap")) < 24 + 2 * 48 and time.monotonic() < end:
            time.sleep(0.01)
        with open(b.path("pcap"), "rb") as f:
            data = f.read()
    assert struct.unpack("<IHHIIII", data[:24]) == (0xa1b2c3d4, 2, 4, 0, 0, 32, 1)
    assert struct.unpack("<II", data[32:40]) == (32, 64) and data[40:72] == FRAME[:32]
    assert struct.unpack("<II", data[80:88]) == (32, 70) and data[88:] == b"x" * 32


def test_filters_come_and_go_with_their_back_end(tmp_path):
    with Bench(tmp_path, "-netdev", "hubport,id=h,hubid=1") as b:
        q = b.m.qmp
        for _ in range(2):
            q.cmd("object-add", qom_type="filter-buffer", id="f0", netdev="h", interval=1000)
            q.cmd("object-add", qom_type="filter-buffer", id="f1", netdev="h", interval=1000, position="id=f0", insert="before")
            q.cmd("object-del", id="f0")
            q.cmd("netdev_del", id="h")
            with pytest.raises(QmpError):
                q.cmd("object-del", id="f1")
            q.cmd("netdev_add", type="hubport", id="h", hubid=1)
        for wrong in ({"netdev": "nope"}, {"netdev": "h", "position": "id=n"}, {"netdev": "h", "interval": 0}):
            with pytest.raises(QmpError):
                q.cmd("object-add", qom_type="filter-buffer", id="w", **{"interval": 1000, **wrong})


def test_announce_self(tmp_path):
    with Bench(tmp_path) as b:
        pause = {"initial": 10, "max": 20, "step": 5}
        b.m.qmp.cmd("announce-self", rounds=1000, id="a", **pause)
        for _ in range(3):
            frame = get(b.wire)
            assert frame[:14] == b"\xff" * 6 + bytes.fromhex("525400000007") + b"\x80\x35" and len(frame) == 60
            assert frame[20:32] == b"\0\3" + bytes.fromhex("525400000007") + bytes(4)
        b.m.qmp.cmd("announce-self", rounds=0, id="a", **pause)
        b.wire.settimeout(0.3)
        end = time.monotonic() + TIMEOUT
        with pytest.raises(TimeoutError):               # those that were under way, and then no more
            while time.monotonic() < end:
                b.wire.recv(64)
        b.wire.settimeout(TIMEOUT)
        b.m.qmp.cmd("announce-self", rounds=1, interfaces=["other"], **pause)
        silent(b.wire)
        assert b.m.qmp.hmp("announce_self") == ""
        assert get(b.wire)[12:14] == b"\x80\x35"
