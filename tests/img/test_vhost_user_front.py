# SPDX-License-Identifier: MIT
"""vhost-user-blk devices: in front of our own export and of QEMU's, back ends that go and come, and back ends that lie."""
import contextlib
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from imglib import ROOT, wait_listening
from servelib import Storage
import vhostuser as vu

sys.path.append(os.path.join(ROOT, "tests", "proto"))
from lib.machine import TIMEOUT, QmpError, run  # noqa: E402
from lib.nvme import RAM  # noqa: E402
from lib.virtio import VERSION_1, VirtioMachine  # noqa: E402

MIB = 1 << 20
BUF = RAM + 0x4000000
SHARED = ["-machine", "memory-backend=mem", "-object", "memory-backend-memfd,id=mem,size=128M,share=on"]


def device(path, chardev="", **options):
    more = "".join(",%s=%s" % (k.replace("_", "-"), v) for k, v in options.items())
    return [*SHARED, "-chardev", "socket,id=c,path=%s%s" % (path, chardev), "-device", "vhost-user-blk-pci,chardev=c,id=disk%s" % more]


def filled(tmp_path):
    with open(tmp_path / "a", "wb") as f:
        f.write(b"".join(bytes([n % 251]) * 512 for n in range(4096)))
    return tmp_path / "a"


@contextlib.contextmanager
def ours(tmp_path, queues=2, name="serve", node=None):
    """backplane-serve with the export on the socket "vu"."""
    node = node or "raw,node-name=n,discard=unmap,file.driver=file,file.filename=%s,file.discard=unmap" % (tmp_path / "a")
    with Storage(tmp_path, "--blockdev", node, name=name) as s:
        s.export("vhost-user-blk", addr={"type": "unix", "path": str(tmp_path / "vu")}, writable=True, **{"num-queues": queues})
        yield s


@contextlib.contextmanager
def theirs(tmp_path, queues=2, node=None):
    """qemu-storage-daemon."""
    node = node or "driver=file,node-name=n,filename=%s,discard=unmap" % (tmp_path / "a")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(tmp_path / "vu")
    p = subprocess.Popen(["qemu-storage-daemon", "--blockdev", node, "--export",
                          "vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s,writable=on,num-queues=%d" % (tmp_path / "vu", queues)])
    try:
        wait_listening(tmp_path / "vu", p)
        yield p
    finally:
        p.kill()
        p.wait()


BACK_ENDS = [ours, pytest.param(theirs, marks=pytest.mark.skipif(not shutil.which("qemu-storage-daemon"), reason="no qemu-storage-daemon"))]


class Disk:
    """The driver: requests, each in a slot with memory of its own."""

    def __init__(self, m, features=0x7e44, queues=1, size=64):
        self.fn = m.fn(1)
        self.start(features, queues, size)

    def start(self, features=0x7e44, queues=1, size=64):
        offered = self.fn.offered()
        assert self.fn.negotiate(features & offered)
        self.vq = [self.fn.queue(i, size) for i in range(queues)]
        self.fn.start()

    def submit(self, kind, sector=0, data=b"", want=0, slot=0, queue=0, kick=True):
        at, q = BUF + slot * 0x10000 + queue * 0x400000, self.fn.q
        q.write(at, struct.pack("<IIQ", kind, 0, sector))
        q.write(at + 32, b"\xff")
        if data:
            q.write(at + 4096, data)
        bufs = [(at, 16, False)] + ([(at + 4096, len(data), False)] if data else []) + ([(at + 4096, want, True)] if want else [])
        self.vq[queue].put(*bufs, (at + 32, 1, True), head=4 * slot % self.vq[queue].size)
        if kick:
            self.fn.kick(self.vq[queue])

    def result(self, want=0, slot=0, queue=0):
        at = BUF + slot * 0x10000 + queue * 0x400000
        return self.fn.q.read(at + 32, 1)[0], self.fn.q.read(at + 4096, want) if want else b""

    def do(self, kind, sector=0, data=b"", want=0, queue=0):
        self.submit(kind, sector, data, want, queue=queue)
        self.vq[queue].wait()
        return self.result(want, queue=queue)


@pytest.mark.parametrize("serve", BACK_ENDS)
@pytest.mark.parametrize("features", [0x7e44, 0x30007e44])
def test_requests(tmp_path, serve, features):
    filled(tmp_path)
    with serve(tmp_path), VirtioMachine(tmp_path, *device(tmp_path / "vu", num_queues=2)) as m:
        fn = m.fn(1)
        assert fn.conf(2, 2) == 0x1042 and fn.offered() & 1 << 12
        d = Disk(m, features, queues=2)
        for sector in (0, 7, 300, 4095):
            assert d.do(vu.IN, sector, want=512, queue=sector & 1) == (0, bytes([sector % 251]) * 512)
        assert d.do(vu.OUT, 64, b"w" * 32768)[0] == 0 and d.do(vu.FLUSH, queue=1)[0] == 0
        assert d.do(vu.IN, 64, want=32768, queue=1) == (0, b"w" * 32768)
        assert d.do(vu.IN, 1 << 40, want=512)[0] == 1 and d.do(99)[0] == 2
        with open(tmp_path / "a", "rb") as f:
            f.seek(64 * 512)
            assert f.read(32768) == b"w" * 32768
        # the driver goes, and another comes
        for _ in range(3):
            d.start(features, queues=2)
            assert d.do(vu.IN, 300, want=512, queue=1) == (0, bytes([300 % 251]) * 512)
        m.qmp.cmd("system_reset")
        m.qmp.wait_event("RESET")
        d = Disk(m, features, queues=1)
        assert d.do(vu.IN, 7, want=512) == (0, bytes([7]) * 512)
        m.qmp.cmd("chardev-add", id="c2", backend={"type": "null", "data": {}})
        with pytest.raises(QmpError, match="disk"):
            m.qmp.cmd("chardev-remove", id="c")


@pytest.mark.parametrize("serve", BACK_ENDS)
def test_the_program_ends_with_rings_that_run(tmp_path, serve):
    filled(tmp_path)
    with serve(tmp_path), VirtioMachine(tmp_path, *device(tmp_path / "vu")) as m:
        d = Disk(m)
        assert d.do(vu.IN, 5, want=512) == (0, bytes([5]) * 512)
        for slot in range(8):
            d.submit(vu.IN, slot, want=32768, slot=slot)
        m.qmp.cmd("quit")
        assert m.wait() == 0


def test_interrupts_and_vectors(tmp_path):
    filled(tmp_path)
    with ours(tmp_path), VirtioMachine(tmp_path, *device(tmp_path / "vu", num_queues=2)) as m:
        d = Disk(m)
        d.do(vu.IN, 0, want=512)
        end = time.monotonic() + TIMEOUT
        while not d.fn.get(0, 1, 3) & 1:                # the pin's bit
            assert time.monotonic() < end
        d.fn.msix_enable()
        d.fn.conf_set(d.fn.msix + 2, 2, 0xc000)        # all masked
        assert d.fn.negotiate(0x7e44 & d.fn.offered())
        d.fn.set(0x10, 2, 0)
        d.vq = [d.fn.queue(0, 64, vector=1), d.fn.queue(1, 64, vector=2)]
        d.fn.start()
        for queue in (1, 0):
            d.do(vu.IN, 0, want=512, queue=queue)
            while not d.fn.pending() & 2 << queue:
                assert time.monotonic() < end


def test_configuration(tmp_path):
    filled(tmp_path)
    with ours(tmp_path) as s, VirtioMachine(tmp_path, *device(tmp_path / "vu", queue_size=16)) as m:
        d = Disk(m, size=16)

        def config(off, size):
            return d.fn.get(off, size, 4)
        assert config(0, 4) == 4096 and config(34, 2) == 1 and config(12, 4) == 14 and config(32, 1) == 1
        d.fn.msix_enable()
        d.fn.conf_set(d.fn.msix + 2, 2, 0xc000)
        d.fn.set(0x10, 2, 1)
        s.qmp.cmd("block_resize", node_name="n", size=8 * MIB)
        end = time.monotonic() + TIMEOUT
        while config(0, 4) != 16384 or not d.fn.pending() & 2:
            assert time.monotonic() < end
        assert d.do(vu.IN, 16383, want=512) == (0, bytes(512))
        # the write cache goes off, and off it stays with the next back end
        d.fn.set(32, 1, 0, 4)
        d.do(vu.IN, 0, want=512)
        fe_sees = m.qmp.cmd("qom-get", path="/machine/peripheral/disk", property="config-wce")
        assert fe_sees is True and config(32, 1) == 0
        d.fn.set(0, 4, 77, 4)                           # what is read-only stays
        assert config(0, 4) == 16384


@pytest.mark.parametrize("serve", BACK_ENDS)
def test_killed_under_requests(tmp_path, serve):
    """Writes that never end when it is killed: the next one does all of them, and only them, and the driver sees each answer once."""
    filled(tmp_path)
    slow = {"driver": "throttle", "node-name": "n", "throttle-group": "g", "file": {"driver": "file", "filename": str(tmp_path / "a")}}
    if serve is ours:
        args = ["--object", "throttle-group,id=g,x-bps-write=64", "--blockdev", json.dumps(slow)]
        s = Storage(tmp_path, *args)
        s.export("vhost-user-blk", addr={"type": "unix", "path": str(tmp_path / "vu")}, writable=True)
        p = s.process
    else:
        p = subprocess.Popen(["qemu-storage-daemon", "--object", "throttle-group,id=g,x-bps-write=64", "--blockdev", json.dumps(slow), "--export",
                              "vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s,writable=on" % (tmp_path / "vu")])
    try:
        with VirtioMachine(tmp_path, *device(tmp_path / "vu", ",reconnect-ms=20")) as m:
            d = Disk(m)
            for n in range(100):                        # indexes go round
                assert d.do(vu.IN, n, want=512) == (0, bytes([n]) * 512)
            for slot in range(1, 9):
                d.submit(vu.OUT, 1024 + 64 * slot, bytes([slot]) * 4096, slot=slot)
            done = []
            for n in range(80):                         # reads go on beside them; a write may end
                d.submit(vu.IN, n, want=512)
                while (head := d.vq[0].wait()[0]):
                    done.append(head)
                assert d.result(512) == (0, bytes([n]) * 512)
            assert len(done) < 8
            p.kill()
            p.wait()
            d.submit(vu.IN, 3, want=512, slot=9)        # nobody is there
            if serve is ours:
                s.qmp.close()
                os.unlink(s.monitor)
            os.unlink(tmp_path / "vu")
            with serve(tmp_path, **({"name": "again"} if serve is ours else {})):
                while len(done) < 9:
                    done.append(d.vq[0].wait()[0])
                assert sorted(done) == [4 * n for n in range(1, 10)]
                assert all(d.result(slot=n)[0] == 0 for n in range(1, 10)) and d.result(512, 9)[1] == bytes([3]) * 512
                for slot in range(1, 9):
                    assert d.do(vu.IN, 1024 + 64 * slot, want=4096) == (0, bytes([slot]) * 4096)
                assert not d.vq[0].done()
    finally:
        p.kill()
        p.wait()


def test_reset_and_unplug_without_a_back_end(tmp_path):
    filled(tmp_path)
    with VirtioMachine(tmp_path, "-device", "pcie-root-port,id=rp,chassis=1,addr=3",
                       "-chardev", "socket,id=c,path=%s,server=on,wait=off" % (tmp_path / "front"), *SHARED) as m:
        # a chardev that listens: our back ends listen, too, so a relay stands between
        def relay():
            a, b = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
            a.connect(str(tmp_path / "front"))
            b.connect(str(tmp_path / "vu"))
            t = threading.Thread(target=pump, args=(a, b), daemon=True)
            t.start()
            return a, b
        with ours(tmp_path):
            a, b = relay()
            m.qmp.cmd("device_add", driver="vhost-user-blk-pci", chardev="c", id="disk", bus="rp")
            a.shutdown(socket.SHUT_RDWR)
            b.shutdown(socket.SHUT_RDWR)
        m.qmp.cmd("system_reset")
        m.qmp.wait_event("RESET")
        with pytest.raises(QmpError, match="disk"):
            m.qmp.cmd("chardev-remove", id="c")


def pump(a, b):
    """Bytes and descriptors, both ways, until one end ends."""
    while True:
        for s in select.select([a, b], [], [])[0]:
            try:
                data, fds, _, _ = socket.recv_fds(s, 65536, 16)
                if not data:
                    raise OSError
                socket.send_fds(b if s is a else a, [data], fds)
            except OSError:
                for x in (a, b):
                    with contextlib.suppress(OSError):
                        x.shutdown(socket.SHUT_RDWR)
                return
            for f in fds:
                os.close(f)


# -- back ends that mean no good

class Liar:
    """A back end that says what it is told to: LIE(request, payload, answer) gives what is sent in place of ANSWER (None: that one;
    b"": the connection ends; a number: that long nothing is said)."""

    PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12

    def __init__(self, path, lie=lambda r, p, a: None, features=VERSION_1 | 1 << 30 | 0x7244, protocol=PROTOCOL):
        self.lie, self.features, self.protocol, self.seen, self.channel, self.stop = lie, features, protocol, [], None, False
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(path))
        self.sock.listen(1)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def answer(self, request, payload, fds):
        config = struct.pack("<QIIHBBI", 4096, 0, 126, 0, 0, 0, 512) + bytes(32) + struct.pack("<I", 0)
        known = {vu.GET_FEATURES: struct.pack("<Q", self.features), vu.GET_PROTOCOL_FEATURES: struct.pack("<Q", self.protocol),
                 vu.GET_QUEUE_NUM: struct.pack("<Q", 4), vu.GET_VRING_BASE: payload[:4] + bytes(4),
                 vu.GET_CONFIG: payload[:12] + config.ljust(256, b"\0")[:max(0, len(payload) - 12)],
                 vu.GET_INFLIGHT_FD: struct.pack("<QQHHI", 65536, 0, 1, 128, 0)}
        return known.get(request)

    def one(self, c):
        head, fds, _, _ = socket.recv_fds(c, 12, 16)
        if len(head) < 12:
            return False
        request, flags, size = struct.unpack("<III", head)
        payload = b""
        while len(payload) < size:
            part, more, _, _ = socket.recv_fds(c, size - len(payload), 16)
            payload += part
            fds += more
        self.seen.append(request)
        if request == vu.SET_BACKEND_REQ_FD and fds:
            self.channel = socket.socket(fileno=os.dup(fds[0]))
        body = self.answer(request, payload, fds)
        for f in fds:
            os.close(f)
        if body is None and flags & 8 and self.protocol & 8 and vu.SET_PROTOCOL_FEATURES in self.seen:
            body = bytes(8)
        said = self.lie(request, payload, body)
        if isinstance(said, (int, float)):
            time.sleep(said)
            said = None
        if said == b"":
            return False
        if said is not None:
            c.sendall(said)
        elif body is not None:
            pass_fd = [os.memfd_create("inflight")] if request == vu.GET_INFLIGHT_FD else []
            for f in pass_fd:
                os.ftruncate(f, 65536)
            socket.send_fds(c, [struct.pack("<III", request, 5, len(body)) + body], pass_fd)
            for f in pass_fd:
                os.close(f)
        return True

    def serve(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, ConnectionError):
                while self.one(c):
                    pass
            c.close()

    def wait_for(self, request, since=0):
        end = time.monotonic() + TIMEOUT
        while request not in self.seen[since:]:
            assert time.monotonic() < end
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()


def start(*args):
    return run("-M", "virt", "-accel", "qtest", "-m", "128M", "-display", "none", *args)


def at(request, said):
    return lambda r, p, a: said(p, a) if callable(said) and r == request else said if r == request else None


def reply(request, body, flags=5, size=None):
    return struct.pack("<III", request, flags, len(body) if size is None else size) + body


LIES = {
    "closed": (at(vu.GET_FEATURES, b""), "closed the connection at GET_FEATURES"),
    "another answer": (at(vu.GET_FEATURES, reply(vu.GET_CONFIG, bytes(8))), "answers GET_FEATURES with message 24"),
    "no reply flag": (at(vu.GET_FEATURES, reply(vu.GET_FEATURES, bytes(8), flags=1)), "flags 0x1"),
    "too long": (at(vu.GET_FEATURES, reply(vu.GET_FEATURES, bytes(8), size=1 << 31)), "2147483648 bytes in place of 8"),
    "too short": (at(vu.GET_QUEUE_NUM, reply(vu.GET_QUEUE_NUM, b"abc")), "3 bytes in place of 8"),
    "few rings": (at(vu.GET_QUEUE_NUM, reply(vu.GET_QUEUE_NUM, struct.pack("<Q", 1))), "num-queues: the back end has 1, less than the 2"),
    "no configuration": (at(vu.GET_CONFIG, reply(vu.GET_CONFIG, b"")), "GET_CONFIG with 0 bytes"),
    "another part of it": (at(vu.GET_CONFIG, lambda p, a: reply(vu.GET_CONFIG, struct.pack("<I", 8) + a[4:])), "bytes 8+60 in place of 0+60"),
    "refusal": (at(vu.SET_OWNER, reply(vu.SET_OWNER, b"\1" + bytes(7))), "refuses SET_OWNER"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_at_the_start_are_named(tmp_path, lie):
    says, text = LIES[lie]
    with Liar(tmp_path / "vu", says):
        status, _, said = start(*device(tmp_path / "vu", num_queues=2))
        assert status == 1 and text in said


@pytest.mark.parametrize("features,protocol,text", [
    (1 << 30, Liar.PROTOCOL, "VIRTIO_F_VERSION_1"), (VERSION_1 | 1 << 30, 8, "lacks protocol feature CONFIG"), (VERSION_1, 0, "lacks protocol feature CONFIG")])
def test_what_it_needs_is_named(tmp_path, features, protocol, text):
    with Liar(tmp_path / "vu", features=features, protocol=protocol):
        status, _, said = start(*device(tmp_path / "vu"))
        assert status == 1 and text in said


@pytest.mark.parametrize("args,text", [
    (["-chardev", "socket,id=c,path={vu}", "-device", "vhost-user-blk-pci,chardev=c"], "guest memory 'main memory' is not shared"),
    ([*SHARED[:2], "-object", "memory-backend-memfd,id=mem,size=128M,share=off", "-chardev", "socket,id=c,path={vu}", "-device",
      "vhost-user-blk-pci,chardev=c"], "is not shared"),
    ([*SHARED, "-chardev", "null,id=c", "-device", "vhost-user-blk-pci,chardev=c"], "chardev 'c' is not a plain unix socket"),
    ([*SHARED, "-chardev", "socket,id=c,path={vu}", "-device", "vhost-user-blk-pci,chardev=c,iommu_platform=on"], "iommu_platform=on"),
    ([*SHARED, "-chardev", "socket,id=c,path={vu}", "-device", "vhost-user-blk-pci,chardev=c,in_order=on"], "in_order=on"),
    ([*SHARED, "-device", "vhost-user-blk-pci"], "chardev")])
def test_mistakes_are_named(tmp_path, args, text):
    with Liar(tmp_path / "vu"):
        status, _, said = start(*[a.replace("{vu}", str(tmp_path / "vu")) for a in args])
        assert status == 1 and text in said


LATE = {
    "memory refused": at(vu.SET_MEM_TABLE, reply(vu.SET_MEM_TABLE, b"\1" + bytes(7))), "gone at a ring": at(vu.SET_VRING_KICK, b""),
    "no inflight": at(vu.GET_INFLIGHT_FD, reply(vu.GET_INFLIGHT_FD, struct.pack("<QQHHI", 1 << 40, 0, 1, 128, 0))),
    "another ring": at(vu.GET_VRING_BASE, reply(vu.GET_VRING_BASE, struct.pack("<II", 7, 0))),
    "a base too large": at(vu.GET_VRING_BASE, reply(vu.GET_VRING_BASE, struct.pack("<II", 0, 1 << 20))),
    "gone at the end": at(vu.GET_VRING_BASE, b""),
}


@pytest.mark.parametrize("lie", LATE)
def test_lies_later_cost_the_connection(tmp_path, lie):
    """The device waits for a back end; resets end, the next back end is taken."""
    liar = Liar(tmp_path / "vu")
    with liar, VirtioMachine(tmp_path, *device(tmp_path / "vu", ",reconnect-ms=20")) as m:
        liar.lie = LATE[lie]
        d = Disk(m)
        d.submit(vu.IN, 0, want=512)
        end = time.monotonic() + TIMEOUT
        while liar.seen.count(vu.GET_FEATURES) < 2:     # it was thrown out and came again
            assert time.monotonic() < end
            d.fn.reset()
            d.start()
        os.rename(tmp_path / "vu", tmp_path / "liar")
        filled(tmp_path)
        with ours(tmp_path):
            liar.lie = lambda r, p, a: b""
            d.fn.reset()
            d.start()
            assert d.do(vu.IN, 9, want=512) == (0, bytes([9]) * 512)


def test_what_it_says_by_itself(tmp_path):
    with Liar(tmp_path / "vu") as liar, VirtioMachine(tmp_path, *device(tmp_path / "vu")) as m:
        fn = m.fn(1)
        while not (c := liar.channel):
            time.sleep(0.01)
        c.settimeout(TIMEOUT)
        for request, want in ((2, 0), (77, 1)):
            c.sendall(struct.pack("<III", request, 9, 0))
            assert c.recv(20) == struct.pack("<IIIQ", request, 5, 8, want)
        liar.lie = at(vu.GET_CONFIG, lambda p, a: reply(vu.GET_CONFIG, a[:12] + struct.pack("<Q", 99) + a[20:]))
        c.sendall(struct.pack("<II", 2, 1))
        time.sleep(0.02)
        c.sendall(struct.pack("<I", 0))
        end = time.monotonic() + TIMEOUT
        while fn.get(0, 4, 4) != 99:
            assert time.monotonic() < end
        c.sendall(struct.pack("<III", 2, 1, 1 << 30) + bytes(5000))
        m.qmp.cmd("query-status")


def test_a_back_end_with_less_is_refused(tmp_path):
    first = Liar(tmp_path / "vu")
    with first, VirtioMachine(tmp_path, *device(tmp_path / "vu", ",reconnect-ms=20")) as m:
        d = Disk(m)
        first.wait_for(vu.SET_VRING_ENABLE)
        first.features &= ~(1 << 9)                     # no flush any more
        n = len(first.seen)
        first.lie = lambda r, p, a: b"" if r == vu.GET_VRING_BASE else None
        d.fn.set(0x14, 1, 0)
        first.wait_for(vu.GET_FEATURES, n)
        d.fn.reset()
        while first.seen[n:].count(vu.GET_FEATURES) < 2:        # it has been refused, and asked again
            time.sleep(0.01)
        assert vu.SET_OWNER not in first.seen[n:]
        m.qmp.cmd("query-status")
    assert "lacks features 0x200" in m.output
