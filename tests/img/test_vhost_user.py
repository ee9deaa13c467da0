# SPDX-License-Identifier: MIT
"""vhost-user-blk exports: a bare front end of our own that says what it likes, and QEMU's virtio device in front."""
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

from imglib import ROOT, img
from servelib import QmpError, Storage
import vhostuser as vu

sys.path.append(os.path.join(ROOT, "tests", "proto"))
from lib.machine import TIMEOUT, connect  # noqa: E402
from lib.virtio import Function, disk_read  # noqa: E402
from lib.nvme import Qtest  # noqa: E402

MIB = 1 << 20


def export(s, tmp_path, **opts):
    s.export("vhost-user-blk", addr={"type": "unix", "path": str(tmp_path / "vu")}, **opts)
    return str(tmp_path / "vu")


def storage(tmp_path, *args, fmt="raw", size=16 * MIB, node=""):
    if not (tmp_path / "a").exists():
        img("create", "-f", fmt, tmp_path / "a", size)
    return Storage(tmp_path, "--object", "iothread,id=t", "--blockdev",
                   "%s,node-name=n,discard=unmap,file.driver=file,file.filename=%s,file.discard=unmap%s" % (fmt, tmp_path / "a", node), *args)


def ended(fe):
    """The back end closes the connection."""
    try:
        while fe.sock.recv(4096):
            pass
    except ConnectionError:
        pass
    fe.close()
    return True


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("features", [vu.VERSION_1 | vu.PROTOCOL | 0x7a44, vu.VERSION_1 | vu.PROTOCOL | 0x7a44 | vu.EVENT_IDX | vu.INDIRECT])
def test_requests(tmp_path, thread, features):
    with storage(tmp_path, fmt="qcow2") as s:
        path = export(s, tmp_path, writable=True, **{"num-queues": 4, **({"iothread": "t"} if thread else {})})
        fe = vu.FrontEnd(path, features=features)
        assert fe.ask(vu.GET_QUEUE_NUM) == 4
        rings = [fe.ring(i) for i in range(4)]
        ind = bool(features & vu.INDIRECT)
        for i, r in enumerate(rings):
            assert r.do(vu.OUT, 128 * i, bytes([i + 1]) * 65536, indirect=ind) == (0, b"")
        for i, r in enumerate(rings):
            assert r.do(vu.IN, 128 * (3 - i), want=65536, indirect=ind) == (0, bytes([4 - i]) * 65536)
        r = rings[0]
        assert r.do(vu.FLUSH)[0] == 0 and r.do(vu.GET_ID, want=20) == (0, b"e" + bytes(19))
        assert r.do(vu.DISCARD, data=struct.pack("<QII", 0, 128, 0))[0] == 0
        assert r.do(vu.ZEROES, data=struct.pack("<QII", 129, 2, 1) + struct.pack("<QII", 140, 1, 0))[0] == 0
        assert r.do(vu.IN, 128, want=13 * 512)[1] == b"\2" * 512 + bytes(1024) + b"\2" * 9 * 512 + bytes(512)
        # what is refused
        assert r.do(vu.IN, 32768, want=512)[0] == 1 and r.do(vu.IN, 1 << 55, want=512)[0] == 1 and r.do(vu.OUT, 0, b"x" * 100)[0] == 1
        assert r.do(vu.DISCARD, data=struct.pack("<QII", 32760, 128, 0))[0] == 1 and r.do(77)[0] == 2
        # many at once, on all rings
        for n in range(8):
            for i, r in enumerate(rings):
                r.submit(vu.OUT, 1024 * i + 8 * n, bytes([16 * i + n]) * 4096, slot=n, kick=n == 7)
            if n == 7:
                for r in rings:
                    assert sorted(r.wait()[0] for _ in range(8)) == [4 * k for k in range(8)]
        with pytest.raises(QmpError):
            s.qmp.cmd("block-export-del", id="e")
        assert s.qmp.cmd("query-block-exports")[0]["type"] == "vhost-user-blk"
        base = fe.ask(vu.GET_VRING_BASE, struct.pack("<II", 0, 0)) >> 32
        assert base == rings[0].next
        s.qmp.cmd("block-export-del", id="e", mode="hard")
        assert ended(fe)
        s.qmp.wait_event("BLOCK_EXPORT_DELETED")
        s.qmp.cmd("blockdev-del", node_name="n")
    assert not os.path.exists(path)
    img("check", tmp_path / "a")


def test_configuration_and_size(tmp_path):
    with storage(tmp_path) as s:
        path = export(s, tmp_path, writable=True, **{"logical-block-size": 4096, "num-queues": 2})
        fe = vu.FrontEnd(path)
        k = fe.config()
        assert struct.unpack_from("<Q", k)[0] == 32768 and struct.unpack_from("<I", k, 20)[0] == 4096 and k[32] == 1
        assert struct.unpack_from("<H", k, 34)[0] == 2 and len(fe.config(256)) == 256
        assert fe.ask(vu.GET_CONFIG, struct.pack("<III", 200, 100, 0) + bytes(100), None) == b""
        assert fe.acked(vu.SET_CONFIG, struct.pack("<III", 32, 1, 0) + b"\0") and fe.config()[32] == 0
        assert not fe.acked(vu.SET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8))
        r = fe.ring()
        assert r.do(vu.OUT, 8, b"x" * 4096)[0] == 0 and r.do(vu.OUT, 1, b"x" * 4096)[0] == 1 and r.do(vu.IN, 8, want=512)[0] == 1
        ours, theirs = socket.socketpair()
        fe.send(vu.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        fe.config()
        s.qmp.cmd("block_resize", node_name="n", size=32 * MIB)
        ours.settimeout(TIMEOUT)
        assert struct.unpack("<III", ours.recv(12)) == (2, 1, 0)
        assert struct.unpack_from("<Q", fe.config())[0] == 65536 and r.do(vu.IN, 65528, want=4096)[0] == 0
        fe.close()


def test_read_only(tmp_path):
    with storage(tmp_path) as s:
        fe = vu.FrontEnd(export(s, tmp_path))
        assert fe.offered & 1 << 5 and not fe.offered & 3 << 13
        r = fe.ring()
        assert r.do(vu.IN, 0, want=512)[0] == 0 and r.do(vu.OUT, 0, b"x" * 512)[0] == 1
        fe.close()


def test_memory_by_slots(tmp_path):
    with storage(tmp_path) as s:
        fe = vu.FrontEnd(export(s, tmp_path, writable=True))
        assert fe.ask(vu.GET_MAX_MEM_SLOTS) >= 32
        fd = os.memfd_create("more")
        os.ftruncate(fd, MIB)
        piece = struct.pack("<QQQQQ", 0, 0x1000, MIB, 0x1000, 0)
        r = fe.ring()
        assert fe.acked(vu.ADD_MEM_REG, piece, [fd]) and not fe.acked(vu.ADD_MEM_REG, piece, [fd])
        assert r.do(vu.OUT, 0, b"a" * 512)[0] == 0
        os.pwrite(fd, b"b" * 512, 0)
        r.submit(vu.OUT, 1, b"a" * 512, kick=False)
        r.put_desc(1, 0x1000, 512, 1, 2)        # the data is there
        r.kick()
        r.wait()
        assert r.do(vu.IN, 1, want=512) == (0, b"b" * 512)
        assert fe.acked(vu.REM_MEM_REG, piece) and not fe.acked(vu.REM_MEM_REG, piece)
        r.submit(vu.OUT, 1, b"a" * 512, kick=False)
        r.put_desc(1, 0x1000, 512, 1, 2)
        r.kick()                                # the ring stops; the connection answers
        time.sleep(0.1)
        assert fe.alive() and r.used_idx() == r.seen
        fe.close()


def test_log_of_changes(tmp_path):
    with storage(tmp_path) as s:
        fe = vu.FrontEnd(export(s, tmp_path), features=vu.VERSION_1 | vu.PROTOCOL | vu.LOG_ALL | 0x7a44)
        log = os.memfd_create("log")
        os.ftruncate(log, 1 << 17)
        fe.send(vu.SET_LOG_BASE, struct.pack("<QQ", 1 << 17, 0), [log])
        assert fe.receive()[0] == vu.SET_LOG_BASE
        r = fe.ring()
        assert r.do(vu.IN, 0, want=8192)[0] == 0
        bits = os.pread(log, 1 << 17, 0)
        pages = {8 * i + b for i, v in enumerate(bits) for b in range(8) if v >> b & 1}
        first = vu.GUEST // 4096
        assert pages == {first + (vu.DATA >> 12), first + (vu.DATA >> 12) + 1, first + (vu.DATA >> 12) + 2, first + (r.used >> 12)}
        fe.close()


def test_requests_survive_the_back_end(tmp_path):
    """It is killed while requests wait; the next one does them, in their order."""
    slow = {"driver": "faults", "node-name": "n", "file": {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": str(tmp_path / "a")}},
            "rules": [{"op": "write", "delay-ns": 60000000000}]}
    img("create", "-f", "raw", tmp_path / "a", MIB)
    s = Storage(tmp_path, "--blockdev", json.dumps(slow))
    fe = vu.FrontEnd(export(s, tmp_path, writable=True))
    fe.send(vu.GET_INFLIGHT_FD, struct.pack("<QQHHI", 0, 0, 1, 32, 0))
    _, data, (log,) = fe.receive()
    assert len(data) == 24
    fe.send(vu.SET_INFLIGHT_FD, data, [log])
    r = fe.ring()
    assert r.do(vu.IN, 0, want=512)[0] == 0
    for n in range(4):
        r.submit(vu.OUT, 0, bytes([n + 1]) * 512, slot=n + 1)
    end = time.monotonic() + TIMEOUT
    while sum(os.pread(log, 1, 16 + 16 * i) == b"\1" for i in range(32)) < 4:
        assert time.monotonic() < end
        time.sleep(0.01)
    s.process.kill()
    s.process.wait()
    os.unlink(s.monitor)
    s.qmp.close()
    with storage(tmp_path) as s2:
        again = vu.FrontEnd(export(s2, tmp_path, writable=True), other=fe)
        again.send(vu.SET_INFLIGHT_FD, data, [log])
        r2 = again.ring(base=r.seen, clear=False)
        r2.next = r.next
        assert [r2.wait()[0] for _ in range(4)] == [4, 8, 12, 16]
        assert [r2.result(n + 1)[0] for n in range(4)] == [0] * 4
        assert all(os.pread(log, 1, 16 + 16 * i) == b"\0" for i in range(32))
        assert r2.do(vu.IN, 0, want=512) == (0, b"\4" * 512)
        again.close()


# -- front ends that mean no good

def chains(r):
    """Rings that are not well formed, one by one."""
    g = vu.GUEST + vu.DATA
    yield "a loop", lambda: (r.put_desc(0, g, 16, 1, 1), r.put_desc(1, g, 16, 1, 0), r.put(0))
    yield "a head outside", lambda: r.put(5000)
    yield "too many", lambda: (struct.pack_into("<H", r.fe.mem, r.avail + 2, r.next + 2000 & 0xffff), r.kick())
    yield "nowhere", lambda: (r.put_desc(0, 0x123, 512, 0), r.put(0))
    yield "the end of all addresses", lambda: (r.put_desc(0, 2 ** 64 - 256, 512, 2), r.put(0))
    yield "across the end", lambda: (r.put_desc(0, vu.GUEST + vu.MEMORY - 16, 32, 2), r.put(0))
    yield "a next outside", lambda: (r.put_desc(0, g, 16, 1, 999), r.put(0))
    yield "read after written", lambda: (r.put_desc(0, g, 16, 3, 1), r.put_desc(1, g, 16, 0), r.put(0))
    yield "indirect without leave", lambda: (r.put_desc(0, g, 32, 4), r.put(0))


def test_rings_that_are_not_well_formed(tmp_path):
    with storage(tmp_path) as s:
        path = export(s, tmp_path, writable=True)
        n = 0
        while True:
            fe = vu.FrontEnd(path)
            r = fe.ring()
            todo = list(chains(r))
            if n == len(todo):
                fe.close()
                break
            todo[n][1]()
            time.sleep(0.02)
            assert fe.alive(), todo[n][0]
            assert r.used_idx() == 0, todo[n][0]
            fe.close()
            n += 1
        # short chains are answered, or dropped
        fe = vu.FrontEnd(path)
        r = fe.ring()
        r.put_desc(0, vu.GUEST + vu.DATA, 8, 0)
        r.put(0)
        assert r.wait() == (0, 0)
        assert r.do(vu.OUT, 0, b"")[0] == 0 and r.do(vu.IN, 0)[0] == 0
        fe.close()


def test_memory_that_is_cut_short(tmp_path):
    with storage(tmp_path) as s:
        path = export(s, tmp_path, writable=True)
        for cut in (0, 0x1000, vu.DATA):
            fe = vu.FrontEnd(path)
            r = fe.ring()
            assert r.do(vu.IN, 0, want=512)[0] == 0
            r.submit(vu.OUT, 0, b"x" * 512, kick=False)
            os.ftruncate(fe.fd, cut)
            r.kick()
            time.sleep(0.05)
            if cut < vu.DATA:
                assert ended(fe)
            else:
                fe.close()
        fe = vu.FrontEnd(path)
        assert fe.ring().do(vu.IN, 0, want=512)[0] == 0
        fe.close()


def test_messages_that_are_not_well_formed(tmp_path):
    rnd = random.Random(5)
    with storage(tmp_path) as s:
        path = export(s, tmp_path, writable=True, **{"num-queues": 2})
        null = os.open("/dev/null", os.O_RDWR)
        for n in range(400):
            fe = vu.FrontEnd(path, start=n % 2 == 0)
            if n % 4 == 0:
                fe.ring()
            try:
                for _ in range(rnd.randrange(1, 12)):
                    request = rnd.randrange(0, 45)
                    payload = rnd.choice([b"", struct.pack("<Q", rnd.choice([0, 1, 2, 255, 256, 2 ** 63])), rnd.randbytes(rnd.randrange(0, 400)),
                                          struct.pack("<IIQQQQ", rnd.choice([0, 1, 8, 9]), rnd.randrange(2), *[rnd.choice([0, 1, vu.GUEST, vu.USER, 2 ** 64 - 1,
                                          vu.MEMORY, 4096]) for _ in range(4)])])
                    fds = [rnd.choice([null, fe.fd]) for _ in range(rnd.choice([0, 0, 1, 2, 9]))]
                    fe.send(request, payload, fds, flags=rnd.choice([1, 1, 9, 0, 2, rnd.randrange(2 ** 32)]) if rnd.random() < 0.2 else rnd.choice([1, 9]),
                            size=rnd.choice([0, 3, 2 ** 31, 2 ** 32 - 1]) if rnd.random() < 0.1 else None)
            except OSError:
                pass
            fe.close()
        fe = vu.FrontEnd(path)
        assert fe.ring().do(vu.OUT, 0, b"y" * 512)[0] == 0
        fe.close()
        assert len(os.listdir("/proc/%d/fd" % s.process.pid)) < 40         # none of theirs stayed


@pytest.mark.skipif(not shutil.which("qemu-system-riscv64"), reason="no QEMU")
def test_qemu_in_front(tmp_path):
    """QEMU's vhost-user-blk-pci, driven through qtest while its CPU waits: features, configuration, rings, memory and notifications are its."""
    with open(tmp_path / "a", "wb") as f:
        f.write(b"".join(bytes([n % 251]) * 512 for n in range(2048)))
    with storage(tmp_path) as s:
        path = export(s, tmp_path, writable=True, iothread="t", **{"num-queues": 2})
        sock = str(tmp_path / "qtest")
        cmd = ["-M", "virt,memory-backend=m", "-m", "128M", "-object", "memory-backend-memfd,id=m,size=128M,share=on", "-bios", "none",
               "-device", "loader,addr=0x80000000,data=0xffdff06f10500073,data-len=8", "-display", "none", "-serial", "null",
               "-chardev", "socket,id=c,path=" + path, "-device", "vhost-user-blk-pci,chardev=c,num-queues=2,addr=1,disable-legacy=on",
               "-qtest", "unix:%s,server=on,wait=off" % sock, "-qtest-log", "/dev/null"]
        q = subprocess.Popen(["qemu-system-riscv64", *cmd], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(tmp_path / "log", "w"))
        try:
            client = Qtest(connect(sock, q))
            fn = Function(client, 1)
            assert fn.negotiate()
            vq = fn.queue(0)
            fn.start()
            assert int.from_bytes(client.read(fn.addr(4), 8), "little") == 2048
            data = 0x80400000
            for sector in (7, 300, 2047):
                status = disk_read(fn, vq, sector, data)
                vq.wait()
                assert client.read(status, 1) == b"\0" and client.read(data, 512) == bytes([sector % 251]) * 512
        finally:
            q.kill()
            q.wait()


def test_mistakes_are_named(tmp_path):
    with storage(tmp_path) as s:
        for opts, says in (({"addr": {"type": "inet", "host": "x", "port": "1"}}, "unix"), ({"addr": {"type": "unix", "path": "/nowhere/x"}}, "/nowhere/x"),
                           ({"addr": {"type": "unix", "path": str(tmp_path / "x")}, "logical-block-size": 513}, "logical-block-size"),
                           ({"addr": {"type": "unix", "path": str(tmp_path / "x")}, "num-queues": 0}, "num-queues"), ({}, "addr")):
            with pytest.raises(QmpError) as e:
                s.export("vhost-user-blk", **opts)
            assert says in str(e.value), str(e.value)
        s.qmp.cmd("blockdev-del", node_name="n")
