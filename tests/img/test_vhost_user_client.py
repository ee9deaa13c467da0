# SPDX-License-Identifier: MIT
"""The virtio-blk-vhost-user driver: images on disks that our export and QEMU's serve, back ends that go, and back ends that lie."""
import json
import os
import random
import struct
import subprocess
import threading
import time

import pytest

import vhostuser as vu
from imglib import IMG, img, wait_listening
from lib.nbd import Client, Cmd
from servelib import SERVE, QmpError, Storage
from test_vhost_user_front import BACK_ENDS, LIES, Liar, ours

MIB = 1 << 20


def disk(path, **options):
    return ",".join(["driver=virtio-blk-vhost-user,path=%s" % path] + ["%s=%s" % (k.replace("_", "-"), v) for k, v in options.items()])


def noise(path, size, seed=7):
    with open(path, "wb") as f:
        f.write(random.Random(seed).randbytes(size))
    return path


@pytest.mark.parametrize("serve", BACK_ENDS)
@pytest.mark.parametrize("queues", [1, 2])
def test_images_go_there_and_come_back(tmp_path, serve, queues):
    noise(tmp_path / "src", 5 * MIB + 512)
    os.truncate(tmp_path / "src", 16 * MIB)
    with open(tmp_path / "a", "wb") as f:
        f.truncate(16 * MIB)
    with serve(tmp_path):
        there = disk(tmp_path / "vu", num_queues=queues)
        assert json.loads(img("info", "--output=json", "--image-opts", there).stdout)["virtual-size"] == 16 * MIB
        img("convert", "-n", "-m", "8", "-f", "raw", tmp_path / "src", "--target-image-opts", there)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "src").read_bytes()
        img("compare", "--image-opts", "driver=file,filename=%s" % (tmp_path / "src"), there)
        img("convert", "--image-opts", "-O", "qcow2", there, tmp_path / "q")
        img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "src", tmp_path / "q")
        img("bench", "-c", "300", "-d", "70", "-s", "65536", "--image-opts", there)
        img("bench", "-w", "--pattern=3", "-c", "16", "-d", "16", "-s", "1048576", "--image-opts", there)
        assert (tmp_path / "a").read_bytes() == b"\3" * (16 * MIB)


def test_blocks_of_4096(tmp_path):
    """Pieces of blocks are read, changed and written back."""
    with open(tmp_path / "a", "wb") as f:
        f.truncate(4 * MIB)
    with Storage(tmp_path, "--blockdev", "file,node-name=n,filename=%s" % (tmp_path / "a")) as s:
        s.export("vhost-user-blk", addr={"type": "unix", "path": str(tmp_path / "vu")}, writable=True, **{"logical-block-size": 4096})
        img("bench", "-w", "--pattern=5", "-c", "3", "-s", "512", "-o", "512", "-S", "5120", "--image-opts", disk(tmp_path / "vu"))
        want = bytearray(4 * MIB)
        for n in range(3):
            want[512 + 5120 * n:1024 + 5120 * n] = b"\5" * 512
        assert (tmp_path / "a").read_bytes() == want
        noise(tmp_path / "src", 3 * MIB + 512)
        img("convert", "-n", "-f", "raw", tmp_path / "src", "--target-image-opts", disk(tmp_path / "vu"))
        assert (tmp_path / "a").read_bytes()[:3 * MIB + 512] == (tmp_path / "src").read_bytes()


def test_a_piece_of_a_block_and_the_whole_of_it(tmp_path):
    """While the block of the one is read, changed and written, the other comes: what it wrote beside the piece stays."""
    (tmp_path / "a").write_bytes(bytes(MIB))
    slow = {"driver": "faults", "node-name": "n", "rules": [{"op": "write", "delay-ns": 10 ** 9, "count": 1}], "file": {"driver": "file", "filename": str(tmp_path / "a")}}
    with Storage(tmp_path, "--blockdev", json.dumps(slow), name="far") as far:
        far.export("vhost-user-blk", addr={"type": "unix", "path": str(tmp_path / "vu")}, writable=True, **{"logical-block-size": 4096})
        with Storage(tmp_path, "--blockdev", "%s,node-name=m" % disk(tmp_path / "vu")[7:], "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "s"), name="near") as near:
            near.export("nbd", node="m", writable=True)
            with Client(tmp_path / "s") as piece, Client(tmp_path / "s") as whole:
                for c in (piece, whole):
                    c.go("m")
                piece.send(Cmd.WRITE, 512, 512, data=b"p" * 512)
                time.sleep(0.2)             # the block has been read
                assert whole.ask(Cmd.WRITE, 0, 4096, data=b"w" * 4096) == 0
                assert piece.ask(Cmd.FLUSH, 0, 0) == 0
                assert whole.ask(Cmd.FLUSH, 0, 0) == 0
    got = (tmp_path / "a").read_bytes()[:4096]
    assert got in (b"w" * 4096, b"w" * 512 + b"p" * 512 + b"w" * 3072)


def serve_alone(tmp_path, program, *args):
    p = subprocess.Popen([program, *args, "--export", "vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s,writable=on" % (tmp_path / "vu")])
    wait_listening(tmp_path / "vu", p)
    return p


@pytest.mark.parametrize("serve", BACK_ENDS)
def test_killed_and_started_again(tmp_path, serve):
    with open(tmp_path / "a", "wb") as f:
        f.truncate(16 * MIB)
    slow = json.dumps({"driver": "throttle", "node-name": "n", "throttle-group": "g", "file": {"driver": "file", "filename": str(tmp_path / "a")}})
    first = serve_alone(tmp_path, SERVE if serve is ours else "qemu-storage-daemon", "--object", "throttle-group,id=g,x-bps-total=2097152",
                        "--blockdev", slow)
    try:
        p = subprocess.Popen([IMG, "bench", "-w", "--pattern=9", "-c", "256", "-d", "16", "-s", "65536", "--image-opts",
                              disk(tmp_path / "vu", reconnect_delay=60)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + 60
        while (tmp_path / "a").read_bytes().count(b"\t") < MIB:         # some of it is there, most is not
            assert time.monotonic() < end and p.poll() is None
            time.sleep(0.02)
        first.kill()
        first.wait()
        os.unlink(tmp_path / "vu")
        with serve(tmp_path, queues=1):
            out, _ = p.communicate(timeout=100)
            assert p.returncode == 0 and "is lost: it closed the connection" in out
        assert (tmp_path / "a").read_bytes() == b"\t" * (16 * MIB)
    finally:
        first.kill()
        first.wait()


def test_gone_for_good(tmp_path):
    with open(tmp_path / "a", "wb") as f:
        f.truncate(MIB)
    back = serve_alone(tmp_path, SERVE, "--blockdev", "file,node-name=n,filename=%s" % (tmp_path / "a"))
    with Storage(tmp_path, "--blockdev", disk(tmp_path / "vu") + ",node-name=n") as s:
        back.kill()
        back.wait()
        with pytest.raises(QmpError, match="vu"):
            s.qmp.cmd("blockdev-add", **{"driver": "virtio-blk-vhost-user", "node-name": "m", "path": str(tmp_path / "vu")})
        s.qmp.cmd("blockdev-del", node_name="n")


@pytest.mark.parametrize("lie", LIES)
def test_lies_at_the_start_are_named(tmp_path, lie):
    says, text = LIES[lie]
    with Liar(tmp_path / "vu", says):
        r = img("info", "--image-opts", disk(tmp_path / "vu", num_queues=2), ok=(1,))
        assert r.returncode == 1 and text in r.stderr


class Garbler(Liar):
    """Serves nothing, but writes into the rings what it likes."""

    def __init__(self, path, garble):
        self.garble, self.table, self.mem, self.addr, self.fds = garble, None, None, None, {}
        super().__init__(path)

    def answer(self, request, payload, fds):
        if request == vu.SET_MEM_TABLE:
            self.mem, self.table = os.dup(fds[0]), struct.unpack_from("<QQQQ", payload, 8)
        if request == vu.SET_VRING_ADDR:
            self.addr = struct.unpack_from("<QQQQ", payload, 8)
        if request in (vu.SET_VRING_KICK, vu.SET_VRING_CALL):
            self.fds[request] = os.dup(fds[0])
        if request == vu.SET_VRING_ENABLE:
            threading.Thread(target=self.play, daemon=True).start()
        return super().answer(request, payload, fds)

    def write(self, at, data):
        os.pwrite(self.mem, data, self.addr[1] - self.table[2] + at)

    def play(self):
        while True:
            try:
                os.eventfd_read(self.fds[vu.SET_VRING_KICK])
                break
            except BlockingIOError:
                time.sleep(0.005)
        self.garble(self)
        os.eventfd_write(self.fds[vu.SET_VRING_CALL], 1)


@pytest.mark.parametrize("garble", [
    lambda g: (g.write(4, struct.pack("<II", 7, 0)), g.write(2, struct.pack("<H", 1))), lambda g: g.write(2, struct.pack("<H", 60000)),
    lambda g: (g.write(4, struct.pack("<II", 2 ** 32 - 1, 0)), g.write(2, struct.pack("<H", 1))),
    lambda g: (g.write(4, struct.pack("<IIII", 0, 1, 0, 1)), g.write(2, struct.pack("<H", 2)))])
def test_rings_that_lie(tmp_path, garble):
    with Garbler(tmp_path / "vu", garble):
        r = img("bench", "-c", "4", "-d", "1", "-s", "4096", "--image-opts", disk(tmp_path / "vu"), ok=(1,))
        assert r.returncode == 1 and "answers a request that is not under way" in r.stderr + r.stdout
