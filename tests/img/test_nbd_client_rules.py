# SPDX-License-Identifier: MIT
"""What the NBD protocol (doc/proto.md) asks of a client, and servers that do not keep to it."""
import random
import shutil
import struct

import pytest

from imglib import img, run
from lib.nbd import CONTEXT_ID, Chunk, Client, Cmd, CmdFlag, Link, Opt, Server
from servelib import Storage
from test_nbd import Server as Process

SIZE = 1 << 20
ESHUTDOWN = 108


def opts(path, more=""):
    return "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=x%s" % (path, more)


def odd_read(how):
    def script(link):
        r = link.next()
        assert r.kind == Cmd.READ
        half = r.length // 2

        def data(at, n, done):
            link.chunk(r, Chunk.OFFSET_DATA, struct.pack(">Q", at) + bytes(n), done)
        if how == "half twice":
            data(r.offset, half, False)
            data(r.offset, half, True)
        elif how == "overlapping":
            data(r.offset, half + 1, False)
            data(r.offset + half, half, True)
        elif how == "hole over data":
            data(r.offset, r.length, False)
            link.chunk(r, Chunk.OFFSET_HOLE, struct.pack(">QI", r.offset, r.length))
        elif how == "empty hole":
            link.chunk(r, Chunk.OFFSET_HOLE, struct.pack(">QI", r.offset, 0), False)
            data(r.offset, r.length, True)
        elif how == "none before the end":
            link.chunk(r, Chunk.NONE, b"", False)
            data(r.offset, r.length, True)
        elif how == "long text":
            link.chunk(r, Chunk.ERROR, struct.pack(">IH", 5, 100) + b"short")
        link.until_gone()
    return script


@pytest.mark.parametrize("how", ["half twice", "overlapping", "hole over data", "empty hole", "none before the end", "long text"])
def test_chunks_that_cannot_be(tmp_path, how):
    """The connection ends ("Structured reply types"), and what did not come is nobody's data."""
    s = Server(tmp_path / "s", SIZE, odd_read(how))
    r = img("bench", "-c", "1", "-s", "65536", "--image-opts", opts(tmp_path / "s"), ok=(1,))
    assert "is lost: Protocol error" in r.stderr, r.stderr
    s.ended()


def test_chunks_in_any_order(tmp_path):
    """"NBD_CMD_READ": the client puts them in order."""
    def script(link):
        while (r := link.next()).kind != Cmd.DISC:
            if r.kind != Cmd.READ:
                link.answer(r)
                continue
            cuts = sorted(random.Random(r.offset).sample(range(1, r.length), 30)) + [r.length]
            pieces = list(zip([0] + cuts, cuts))
            random.Random(r.offset).shuffle(pieces)
            for at, to in pieces:
                link.chunk(r, Chunk.OFFSET_DATA, struct.pack(">Q", r.offset + at) + link.server.data[r.offset + at:r.offset + to], False)
            link.chunk(r, Chunk.NONE)

    s = Server(tmp_path / "s", random.Random(5).randbytes(SIZE), script)
    img("convert", "--image-opts", opts(tmp_path / "s"), "-O", "raw", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == s.data
    s.ended()


@pytest.mark.parametrize("payload", [struct.pack(">III", CONTEXT_ID + 1, SIZE, 0), struct.pack(">III", CONTEXT_ID, 0, 0), struct.pack(">I", CONTEXT_ID),
                                     struct.pack(">IIII", CONTEXT_ID, 1, 0, 1), None])
def test_states_that_cannot_be(tmp_path, payload):
    """Of another context, of no bytes, of no extent, cut; or none at all."""
    def script(link):
        r = link.next()
        assert r.kind == Cmd.BLOCK_STATUS
        link.chunk(r, Chunk.NONE if payload is None else Chunk.BLOCK_STATUS, payload or b"")
        link.until_gone()

    s = Server(tmp_path / "s", SIZE, script)
    r = img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,))
    assert "is lost: Protocol error" in r.stderr, r.stderr
    s.ended()


@pytest.mark.parametrize("block", [(512, 4096, 8192), (4096, 4096, 12288), (1, 4096, 1 << 20)])
def test_limits_of_the_server_are_kept(tmp_path, block):
    """"Size constraints": no request is smaller or larger, or begins elsewhere; whatever is asked of us."""
    s = Server(tmp_path / "far", random.Random(6).randbytes(SIZE), Link.serve, block=block)
    with Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=x,discard=unmap" % (tmp_path / "far"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near")) as near:
        near.export("nbd", node="m", name="m", writable=True)
        with Client(tmp_path / "near") as c:
            assert c.contexts(Opt.SET_META_CONTEXT, "m", "base:allocation")
            c.go("m")
            for kind in (Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS):
                for off, n in ((0, SIZE), (512, 512), (700, 9000), (4096, 8192), (SIZE - 700, 700)):
                    assert c.ask(kind, off, n, 0, bytes(n) if kind == Cmd.WRITE else b"") == 0
    s.ended()
    least, _, most = block
    assert len(s.requests) > 20
    for kind, off, n in s.requests:
        assert off % least == 0 and n % least == 0 and n <= (most if kind != Cmd.BLOCK_STATUS else SIZE), (kind, off, n)


@pytest.mark.parametrize("block", [(0, 4096, 65536), (3, 4096, 65536), (1 << 17, 1 << 17, 1 << 20), (4096, 4096, 512)])
def test_limits_that_cannot_be(tmp_path, block):
    s = Server(tmp_path / "s", SIZE, Link.until_gone, block=block)
    assert "which cannot be" in img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,)).stderr
    s.ended()


@pytest.mark.skipif(not shutil.which("nbdkit"), reason="no nbdkit")
def test_large_blocks_of_nbdkit(tmp_path):
    """An image whose tables are smaller than what the server takes."""
    k = Process(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", "--filter=blocksize-policy", "memory", "16M", "blocksize-minimum=4096",
                           "blocksize-preferred=4096", "blocksize-maximum=1M", "blocksize-error-policy=error"])
    (tmp_path / "raw").write_bytes(random.Random(7).randbytes(3 << 20))
    img("convert", "--force", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", tmp_path / "raw", k.uri())
    img("check", "-f", "qcow2", k.uri())
    img("compare", "-f", "raw", "-F", "qcow2", tmp_path / "raw", k.uri())
    k.end()


def test_a_server_that_goes(tmp_path):
    """Told ESHUTDOWN, the client goes first ("Terminating the transmission phase"), and asks the next server."""
    def going(link):
        r = link.next()
        assert r.kind == Cmd.READ
        link.chunk(r, Chunk.ERROR, struct.pack(">IH", ESHUTDOWN, 0))
        assert link.next().kind == Cmd.DISC

    s = Server(tmp_path / "s", SIZE, going, Link.serve)
    img("bench", "-c", "1", "-s", "65536", "--image-opts", opts(tmp_path / "s", ",file.reconnect-delay=60"))
    s.ended()


def test_a_server_that_does_not_know_go(tmp_path):
    s = Server(tmp_path / "s", random.Random(8).randbytes(SIZE), Link.serve, go=False)
    img("convert", "--image-opts", opts(tmp_path / "s"), "-O", "raw", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == s.data and s.options[-2:] == [Opt.GO, Opt.EXPORT_NAME]
    s.ended()


def test_who_is_refused_says_goodbye(tmp_path):
    s = Server(tmp_path / "s", SIZE, Link.until_gone, known=False)
    assert "refuses export 'x'" in img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,)).stderr
    s.ended()
    assert s.options[-2:] == [Opt.GO, Opt.ABORT]


def test_what_a_server_says_does_not_lead_the_terminal(tmp_path):
    s = Server(tmp_path / "s", SIZE, Link.until_gone, known=False, says="\x1b[2J\x9b2Jno\nhint: caf\xe9\x7f".encode())
    assert "refuses export 'x': ?[2J??2Jno?hint: caf\xe9?" in img("map", "--image-opts", opts(tmp_path / "s"), ok=(1,)).stderr
    s.ended()


def test_zeroes_that_must_be_fast(tmp_path):
    """A server that does not offer it is not asked for it."""
    s = Server(tmp_path / "far", SIZE, Link.serve)
    with Storage(tmp_path, "--blockdev", "nbd,node-name=m,server.type=unix,server.path=%s,export=x" % (tmp_path / "far"),
                 "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "near")) as near:
        near.export("nbd", node="m", name="m", writable=True)
        with Client(tmp_path / "near") as c:
            c.go("m")
            assert c.ask(Cmd.WRITE_ZEROES, 0, 4096, CmdFlag.FAST_ZERO) == 95 and c.ask(Cmd.WRITE_ZEROES, 0, 4096) == 0
    s.ended()
    assert [r for r in s.requests if r[0] == Cmd.WRITE_ZEROES] == [(Cmd.WRITE_ZEROES, 0, 4096)]


@pytest.mark.skipif(not shutil.which("nbdcopy"), reason="no nbdcopy")
def test_extents_that_are_no_whole_sectors(tmp_path):
    """As nbdkit's extentlist filter tells them."""
    (tmp_path / "l").write_text("0 1000 allocated\n1000 1 hole,zero\n1001 5000 allocated\n6001 100000 zero\n")
    (tmp_path / "raw").write_bytes(random.Random(9).randbytes(1000) + b"\0" + random.Random(10).randbytes(5000) + bytes(SIZE - 6001))
    k = Process(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", "--filter=extentlist", "file", tmp_path / "raw", "extentlist=%s" % (tmp_path / "l")])
    img("convert", "-f", "raw", "-O", "raw", k.uri(), tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == (tmp_path / "raw").read_bytes()
    run("nbdcopy", k.uri(), tmp_path / "p")
    k.end()
