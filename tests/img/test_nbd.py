# SPDX-License-Identifier: MIT
"""NBD, both sides: backplane-serve with libnbd's and QEMU's clients, our client with qemu-nbd and nbdkit."""
import json
import os
import shutil
import socket
import struct
import subprocess
import time

import pytest

from imglib import IMG, QEMU, img, info, qimg, qio, run, sparse_file, wait_listening

SERVE = os.path.join(os.path.dirname(IMG), "backplane-serve")
MIB = 1 << 20
needs = {t: pytest.mark.skipif(not shutil.which(t), reason="no " + t) for t in ("nbdinfo", "nbdcopy", "qemu-io", "qemu-nbd", "nbdkit")}


class Server:
    """A process that listens on a socket of its own."""

    def __init__(self, tmp_path, cmd, name="s"):
        self.path = str(tmp_path / name)
        self.log = open(tmp_path / (name + ".log"), "w+")
        self.p = subprocess.Popen([str(c).replace("@SOCK@", self.path) for c in cmd], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.log, text=True)
        try:
            wait_listening(self.path, self.p)
        except AssertionError as e:
            raise AssertionError(open(self.log.name).read()) from e

    def uri(self, export=""):
        return "nbd+unix:///%s?socket=%s" % (export, self.path)

    def end(self):
        self.p.terminate()
        status = self.p.wait(20)
        self.p.stdin.close()
        self.p.stdout.close()
        self.log.close()
        return status


def serve(tmp_path, image, fmt="qcow2", *more, writable=True, node=""):
    return Server(tmp_path, [SERVE, "--blockdev", "%s,node-name=n,discard=unmap,file.driver=file,file.filename=%s%s" % (fmt, image, node),
                             "--nbd-server", "addr.type=unix,addr.path=@SOCK@",
                             "--export", "nbd,id=e,node-name=n,name=disk,writable=%s" % ("on" if writable else "off"),
                             "--pidfile", tmp_path / "pid", *more])


@needs["nbdinfo"]
def test_what_is_offered(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "a.qcow2", "64M")
    s = serve(tmp_path, tmp_path / "a.qcow2")
    x = json.loads(run("nbdinfo", "--json", s.uri("disk")).stdout)["exports"][0]
    assert x["export-size"] == 64 * MIB and not x["is_read_only"] and x["contexts"] == ["base:allocation"]
    for flag in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn", "can_df", "can_fast_zero"):
        assert x[flag], flag
    names = [e["export-name"] for e in json.loads(run("nbdinfo", "--list", "--json", s.uri()).stdout)["exports"]]
    assert names == ["disk"]
    assert "No such file" in run("nbdinfo", s.uri("other"), ok=(1,)).stderr
    assert int((tmp_path / "pid").read_text()) == s.p.pid
    assert s.end() == 0
    assert not os.path.exists(s.path) and not (tmp_path / "pid").exists()


@needs["nbdinfo"]
@needs["qemu-io"]
def test_a_read_only_export_takes_no_writes(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "a.qcow2", "4M")
    s = serve(tmp_path, tmp_path / "a.qcow2", writable=False)
    assert json.loads(run("nbdinfo", "--json", s.uri("disk")).stdout)["exports"][0]["is_read_only"]
    run("qemu-io", "-f", "raw", "-c", "write 0 512", s.uri("disk"), ok=(1,))
    s.end()


@needs["qemu-io"]
def test_a_client_of_qemu(tmp_path):
    q = tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", q, "64M")
    s = serve(tmp_path, q)
    qio(s.uri("disk"), "write -P 5 1M 3M", "write -P 6 -f 10M 7k", "discard 2M 1M", "write -z 3M 64k", "flush", "read -P 5 1M 1M",
        "read -P 0 2M 1M", fmt="raw")
    first = json.loads(qimg("map", "--output=json", "-f", "raw", s.uri("disk")).stdout)[0]
    assert (first["start"], first["length"], first["zero"], first["data"]) == (0, MIB, True, False)
    assert s.end() == 0
    qio(q, "read -P 5 1M 1M", "read -P 6 10M 7k", "read -P 0 2M 1M", "read -P 0 3M 64k", "read -P 5 3136k 960k")
    img("check", q)


@needs["nbdcopy"]
def test_copies_by_libnbd(tmp_path):
    raw, q = sparse_file(tmp_path / "a.raw", 20 * MIB), tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", q, "20M")
    s = serve(tmp_path, q)
    run("nbdcopy", "--connections=4", raw, s.uri("disk"))
    run("nbdcopy", "--connections=4", s.uri("disk"), tmp_path / "b.raw")
    s.end()
    assert raw.read_bytes() == (tmp_path / "b.raw").read_bytes()
    img("compare", "-f", "raw", "-F", "qcow2", raw, q)
    img("check", q)


def hello(path):
    c = socket.socket(socket.AF_UNIX)
    c.settimeout(10)
    c.connect(path)
    assert c.recv(18)[:8] == b"NBDMAGIC"
    return c


def test_clients_that_talk_nonsense(tmp_path):
    """None of them ends the server, none gets more than it may have."""
    img("create", "-f", "raw", tmp_path / "a.raw", "1M")
    s = serve(tmp_path, tmp_path / "a.raw", "raw")
    nonsense = [
        b"", b"\0" * 3, b"\xff" * 4, struct.pack(">I", 3) + b"x" * 16,
        struct.pack(">IQII", 3, 0x49484156454F5054, 7, 1 << 31),
        struct.pack(">IQII", 3, 0x49484156454F5054, 7, 4) + b"\xff\xff\xff\xff",
        struct.pack(">IQIII", 3, 0x49484156454F5054, 10, 4, 7),
        struct.pack(">IQII", 3, 0x49484156454F5054, 1, 5) + b"wrong",
        struct.pack(">IQII", 3, 0x49484156454F5054, 1, 4) + b"disk" + os.urandom(280),
    ]
    request = lambda kind, off, n: struct.pack(">IHHQQI", 0x25609513, 0, kind, 7, off, n)
    for kind, off, n in ((0, 1 << 63, 512), (0, 0, 0xffffffff), (1, 0, 0xffffffff), (4, MIB, 1), (7, 0, 4096), (99, 0, 0), (0, MIB - 1, 2)):
        nonsense.append(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 4) + b"disk" + request(kind, off, n))
    for text in nonsense:
        c = hello(s.path)
        try:
            c.sendall(text)
            c.shutdown(socket.SHUT_WR)
            while c.recv(65536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass                        # that is an answer, too
        c.close()
    c = hello(s.path)
    c.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 4) + b"disk" + request(0, MIB - 512, 512))
    got = b""
    while len(got) < 10 + 16 + 512:
        got += c.recv(65536)
    assert got[10:18] == struct.pack(">II", 0x67446698, 0) and got[26:] == bytes(512)
    c.close()
    assert s.end() == 0


@needs["qemu-nbd"]
@pytest.mark.parametrize("way", ["read", "write"])
def test_our_client_and_qemu_nbd(tmp_path, way):
    raw, q = sparse_file(tmp_path / "a.raw", 70 * MIB, 3, 40), tmp_path / "a.qcow2"
    img("convert", "-f", "raw", "-O", "qcow2", raw, q) if way == "read" else img("create", "-f", "qcow2", q, "70M")
    s = Server(tmp_path, ["qemu-nbd", "-k", "@SOCK@", "-f", "qcow2", "-x", "disk", "-t", "-e", "8", "--discard=unmap", q])
    if way == "read":
        img("convert", "-f", "raw", "-O", "raw", s.uri("disk"), tmp_path / "b.raw")
        assert raw.read_bytes() == (tmp_path / "b.raw").read_bytes()
        ours = json.loads(img("map", "-f", "raw", "--output=json", s.uri("disk")).stdout)
        theirs = json.loads(qimg("map", "-f", "raw", "--output=json", s.uri("disk")).stdout)
        assert [(m["start"], m["length"], m["zero"]) for m in ours] == [(m["start"], m["length"], m["zero"]) for m in theirs]
    else:
        img("convert", "-n", "-f", "raw", "-O", "raw", raw, s.uri("disk"))
    s.end()
    img("compare", "-f", "raw", "-F", "qcow2", raw, q)
    qimg("check", q)


@needs["qemu-nbd"]
def test_a_server_that_is_named_the_short_way(tmp_path):
    """As host, port and path of the options of an image, without "server."."""
    img("create", tmp_path / "a", "3M")
    s = Server(tmp_path, ["qemu-nbd", "-k", "@SOCK@", "-f", "raw", "-x", "disk", "-t", tmp_path / "a"])
    for name in "driver=nbd,path=%s,export=disk", "driver=raw,file.driver=nbd,file.path=%s,file.export=disk":
        assert info(name % s.path, "--image-opts")["virtual-size"] == 3 * MIB
    assert info('json:{"driver": "nbd", "path": "%s", "export": "disk"}' % s.path)["virtual-size"] == 3 * MIB
    s.end()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    for name in "driver=nbd,host=127.0.0.1,port=%d", "driver=ssh,host=127.0.0.1,port=%d,path=/x":
        assert str(port) in img("info", "--image-opts", name % port, ok=(1,)).stderr


@needs["nbdkit"]
def test_our_client_and_nbdkit(tmp_path):
    raw = sparse_file(tmp_path / "a.raw", 8 * MIB, 4)
    for more in ([], ["--no-sr"]):
        s = Server(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", *more, "file", "file=%s" % raw], "k%d" % len(more))
        img("convert", "-f", "raw", "-O", "raw", s.uri(), tmp_path / ("b%d" % len(more)))
        assert raw.read_bytes() == (tmp_path / ("b%d" % len(more))).read_bytes()
        p = img("info", "-f", "raw", "nbd+unix:///?socket=%s.none" % s.path, ok=(1,))
        assert "cannot connect" in p.stderr or "connect" in p.stderr
        s.end()


@needs["nbdkit"]
def test_errors_of_the_server_are_ours(tmp_path):
    s = Server(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", "--filter=error", "pattern", "4M", "error-pread=ENOSPC", "error-pread-rate=100%"])
    p = img("convert", "-f", "raw", "-O", "raw", s.uri(), tmp_path / "out", ok=(1,))
    assert "reading" in p.stderr and not (tmp_path / "out").exists()
    s.end()


def test_a_chain_over_nbd(tmp_path):
    """qcow2 on qcow2 on NBD: the server's image below, its export served again."""
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    sparse_file(tmp_path / "a.raw", 4 * MIB, 9)
    img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "a.raw", base)
    s = serve(tmp_path, base, writable=False)
    img("create", "-f", "qcow2", "-b", s.uri("disk"), "-F", "raw", top)
    img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "a.raw", top)
    if QEMU:
        qio(top, "write -P 8 1M 64k", "read -P 8 1M 64k")
    s.end()


@needs["qemu-io"]
def test_filters_below_an_export(tmp_path):
    """Faults reach the client as errors; a throttled node takes its time."""
    raw = tmp_path / "a.raw"
    img("create", raw, "8M")
    faulty = Server(tmp_path, [SERVE, "--blockdev", json.dumps({"driver": "faults", "node-name": "n", "file": {"driver": "file", "filename": str(raw)},
                    "rules": [{"op": "write", "offset": 1 * MIB, "length": 4096, "errno": "ENOSPC"}, {"op": "read", "after": 1, "count": 1, "errno": "EIO"}]}),
                    "--nbd-server", "addr.type=unix,addr.path=@SOCK@", "--export", "nbd,id=e,node-name=n,writable=on"], "f")
    p = run("qemu-io", "-f", "raw", "-c", "write 0 4k", "-c", "write 1M 4k", "-c", "write 2M 4k", faulty.uri("n"), ok=(1,))
    assert p.stdout.count("wrote") == 2 and "No space left" in p.stdout + p.stderr
    faulty.end()
    slow = Server(tmp_path, [SERVE, "--object", "throttle-group,id=g,x-bps-total=2M", "--blockdev",
                  "throttle,node-name=n,throttle-group=g,file.driver=file,file.filename=%s" % raw,
                  "--nbd-server", "addr.type=unix,addr.path=@SOCK@", "--export", "nbd,id=e,node-name=n,writable=on"], "t")
    start = time.monotonic()
    run("qemu-io", "-f", "raw", *[a for i in range(4) for a in ("-c", "write %dM 1M" % i)], slow.uri("n"))
    took = time.monotonic() - start
    assert 1.2 < took < 6, took             # 4 MiB at 2 MiB a second, less what may be owed
    slow.end()


def test_mistakes_are_named(tmp_path):
    for args, says in ((["--blockdev", "null-co,node-name=n", "--export", "nbd,id=e,node-name=n"], "--nbd-server"), (["--nbd-server", "max-connections=3"], "addr"),
                       (["--blockdev", "qcow3,node-name=n"], "qcow2"), (["nonsense"], "nonsense")):
        p = run(SERVE, *args, ok=(1,))
        assert says in p.stderr, p.stderr


@needs["nbdinfo"]
def test_allocation_depth(tmp_path):
    """How many images down something is: told to libnbd's client, asked by ours and QEMU's."""
    for name, at in (("base", 0), ("mid", 1), ("top", 2)):
        more = () if name == "base" else ("-b", tmp_path / ("base" if name == "mid" else "mid"), "-F", "qcow2")
        img("create", "-f", "qcow2", *more, tmp_path / name, 8 * MIB)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 1 %dM 1M" % at, tmp_path / name)
    s = Server(tmp_path, [SERVE, "--blockdev", "qcow2,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "top"),
                          "--nbd-server", "addr.type=unix,addr.path=@SOCK@", "--export", "nbd,id=e,node-name=n,name=disk,allocation-depth=on"])
    m = json.loads(run("nbdinfo", "--json", "--map=qemu:allocation-depth", s.uri("disk")).stdout)
    assert [(e["offset"] // MIB, e["length"] // MIB, e["type"]) for e in m] == [(0, 1, 3), (1, 1, 2), (2, 1, 1), (3, 5, 0)]
    assert "qemu:allocation-depth" in json.loads(run("nbdinfo", "--json", s.uri("disk")).stdout)["exports"][0]["contexts"]
    opts = "driver=nbd,export=disk,server.type=unix,server.path=%s,read-only=on,x-dirty-bitmap=" % s.path
    seen = []
    for tool in [IMG] + ([shutil.which("qemu-img")] if QEMU else []):
        m = json.loads(run(tool, "map", "--output=json", "--image-opts", opts + "qemu:allocation-depth").stdout)
        seen.append([(e["start"] // MIB, e["length"] // MIB, e["data"], e["zero"]) for e in m])
    assert seen[0] == [(0, 2, True, True), (2, 1, False, False), (3, 5, True, False)] and all(x == seen[0] for x in seen)
    assert "does not tell of 'qemu:dirty-bitmap:x'" in run(IMG, "map", "--image-opts", opts + "qemu:dirty-bitmap:x", ok=(1,)).stderr
    s.end()


@needs["qemu-io"]
def test_what_a_zone_does_not_take(tmp_path):
    """A client is told that its request is wrong; EOVERFLOW would be an answer to reads only (doc/proto.md, "Error values")."""
    a = tmp_path / "a"
    a.write_bytes(bytes(8 * 65536))
    s = Server(tmp_path, [SERVE, "--blockdev", "zoned,node-name=n,zone-size=64k,max-active=2,max-open=1,file.driver=file,file.filename=%s" % a,
                          "--nbd-server", "addr.type=unix,addr.path=@SOCK@", "--export", "nbd,id=e,node-name=n,name=disk,writable=on"])
    good, bad = ["write 0 4k", "write 64k 4k"], ["write 32k 4k", "write 128k 4k"]       # behind the pointer; one active zone too many
    out = run("qemu-io", "-f", "raw", *[x for c in good + bad for x in ("-c", c)], s.uri("disk"), ok=(1,))
    assert out.stdout.count("wrote 4096/4096") == 2 and (out.stdout + out.stderr).count("Invalid argument") == 2
    assert s.end() == 0
