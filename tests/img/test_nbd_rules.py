# SPDX-License-Identifier: MIT
"""What the NBD protocol (doc/proto.md) asks of a server beyond what well-behaved clients notice; and clients that ask for too much."""
import contextlib
import os
import resource
import socket
import struct

import pytest

from imglib import IMG, img, run
from lib.nbd import Client, Cmd, CmdFlag, Flag, Opt, Rep, text
from servelib import QmpError, Storage

MIB = 1 << 20
SIZE = 4 * MIB
EINVAL, ENOSPC = 22, 28


@contextlib.contextmanager
def serve(tmp_path, *exports, server="", driver="raw", **opts):
    """The path of the socket, and the process; exports named after @exports of one image."""
    img("create", "-f", "raw", tmp_path / "a", str(SIZE))
    with Storage(tmp_path, "--blockdev", "%s,node-name=n,discard=unmap,file.driver=file,file.filename=%s" % (driver, tmp_path / "a"),
                 "--nbd-server", "addr.type=unix,addr.path=%s%s" % (tmp_path / "s", server)) as s:
        for name in exports:
            s.export("nbd", ident="e-" + name, name=name, writable=True, **opts)
        yield tmp_path / "s", s


@pytest.mark.parametrize("structured", [True, False])
def test_flags_that_a_command_does_not_have(tmp_path, structured):
    """"Error values": EINVAL, whatever else would be said. FUA goes with all."""
    allowed = {Cmd.READ: CmdFlag.DF if structured else 0, Cmd.WRITE: 0, Cmd.FLUSH: 0, Cmd.TRIM: 0, Cmd.CACHE: 0,
               Cmd.WRITE_ZEROES: CmdFlag.NO_HOLE | CmdFlag.FAST_ZERO, Cmd.BLOCK_STATUS: CmdFlag.REQ_ONE}
    with serve(tmp_path, "n") as (path, _), Client(path, structured) as c:
        if structured:
            assert c.contexts(Opt.SET_META_CONTEXT, "n", "base:allocation") == ["base:allocation"]
        c.go("n")
        for kind, good in allowed.items():
            n = 0 if kind == Cmd.FLUSH else 512
            data = b"x" * n if kind == Cmd.WRITE else b""
            for bit in (1 << i for i in range(16)):
                fine = bit == CmdFlag.FUA or bit & good
                if kind == Cmd.BLOCK_STATUS and not structured:
                    fine = False
                error = c.ask(kind, 0, n, bit, data)
                assert error in ((0, 95) if bit == CmdFlag.FAST_ZERO and fine else (0,)) if fine else error == EINVAL, (kind, bit, error)


def test_what_is_beyond_the_end(tmp_path):
    """"Error values", and those of each request type."""
    with serve(tmp_path, "n") as (path, _), Client(path) as c:
        c.go("n")
        for kind in (Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.READ, Cmd.TRIM, Cmd.CACHE, Cmd.BLOCK_STATUS):
            data = b"x" * 1024 if kind == Cmd.WRITE else b""
            assert c.ask(kind, SIZE - 512, 1024, 0, data) == (ENOSPC if kind in (Cmd.WRITE, Cmd.WRITE_ZEROES) else EINVAL), kind
        assert c.ask(Cmd.BLOCK_STATUS, 0, 512) == EINVAL        # no context was chosen
        assert c.ask(99, 0, 0) == EINVAL
        for kind in (Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES):
            c.ask(kind, 0, 0)                                   # unspecified, but the server does not go
        assert c.ask(Cmd.READ, 0, 512) == 0


def test_contexts_stay_as_they_were_chosen(tmp_path):
    """Listing them is no choice; a choice for another export is none for this one; nor is one for an export that is another by now."""
    with serve(tmp_path, "n", "m") as (path, s):
        with Client(path) as c:
            c.contexts(Opt.SET_META_CONTEXT, "n", "base:allocation")
            assert c.contexts(Opt.LIST_META_CONTEXT, "m") == ["base:allocation"]
            assert c.option(Opt.LIST_META_CONTEXT, b"\0")[-1][0] == Rep.ERR_INVALID
            c.go("n")
            assert c.ask(Cmd.BLOCK_STATUS, 0, 512) == 0
        with Client(path) as c:
            c.contexts(Opt.SET_META_CONTEXT, "n", "base:allocation")
            assert c.option(Opt.SET_META_CONTEXT, text("other") + bytes(4))[-1][0] == Rep.ERR_UNKNOWN      # that it fails takes them away, too
            c.go("n")
            assert c.ask(Cmd.BLOCK_STATUS, 0, 512) == EINVAL
        with Client(path) as c:
            c.contexts(Opt.SET_META_CONTEXT, "m", "base:allocation")
            c.go("n")
            assert c.ask(Cmd.BLOCK_STATUS, 0, 512) == EINVAL
        with Client(path) as c:
            c.contexts(Opt.SET_META_CONTEXT, "n", "base:allocation")
            s.qmp.cmd("block-export-del", id="e-n")
            s.qmp.wait_event("BLOCK_EXPORT_DELETED")
            s.export("nbd", ident="e-n", name="n")
            c.go("n")
            assert c.ask(Cmd.BLOCK_STATUS, 0, 512) == EINVAL


def test_options_that_are_too_long_or_odd(tmp_path):
    """They are answered, and the next one is as good as ever."""
    with serve(tmp_path, "n") as (path, _), Client(path) as c:
        many = text("n") + struct.pack(">I", 4000) + text("x-y:z") * 4000
        assert c.option(Opt.SET_META_CONTEXT, many)[-1][0] == Rep.ERR_TOO_BIG
        assert c.option(77, bytes(MIB))[-1][0] == Rep.ERR_TOO_BIG
        for number in (Opt.INFO, Opt.GO):
            assert c.option(number, text(b"n\0x") + bytes(2))[-1][0] == Rep.ERR_INVALID
        assert c.contexts(Opt.SET_META_CONTEXT, "n", "x-y:z", "base:", "base:other", "qemu:") == []
        c.go("n")
        assert c.ask(Cmd.READ, 0, 512) == 0


def test_one_client_at_a_time(tmp_path):
    """A client that could open several connections would wait for its second one for ever."""
    with serve(tmp_path, "n", server=",max-connections=1") as (path, _), Client(path) as c:
        assert not c.go("n") & Flag.CAN_MULTI_CONN
    (tmp_path / "more").mkdir()
    with serve(tmp_path / "more", "n") as (path, s):
        with Client(path) as c:
            assert c.go("n") & Flag.CAN_MULTI_CONN
        with pytest.raises(QmpError) as e:
            s.export("nbd", ident="x", name="x", description="d" * 4097)
        assert "4096" in str(e.value)


def peak(s):
    """The most memory that the process had, in bytes."""
    with open("/proc/%d/status" % s.process.pid) as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


@pytest.mark.parametrize("structured", [True, False])
def test_a_client_that_takes_no_answers(tmp_path, structured):
    """What it asks for is limited, as much as it may ask for at once."""
    img("create", "-f", "raw", tmp_path / "big", "64M")
    with serve(tmp_path) as (path, s):
        s.qmp.cmd("blockdev-add", driver="file", node_name="big", filename=str(tmp_path / "big"))
        s.export("nbd", node="big", name="big")
        before = peak(s)
        clients = [Client(path, structured) for _ in range(2)]
        for c in clients:
            c.go("big")
            for i in range(20):
                c.send(Cmd.READ, 0, 32 * MIB, CmdFlag.DF if structured else 0, cookie=i)
        with Client(path) as c:
            c.go("big")
            for i in range(50):
                assert c.ask(Cmd.READ, i * MIB, MIB) == 0       # others are served beside it
        assert peak(s) - before < 2 * 128 * MIB + 32 * MIB
        for c in clients:
            c.sock.close()


def test_no_descriptor_is_left(tmp_path):
    """Who comes then is sent away, and does not wake the server for ever; when some have gone, the next one is served."""
    img("create", "-f", "raw", tmp_path / "a", "1M")
    with Storage(tmp_path, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % (tmp_path / "a"), "--nbd-server",
                 "addr.type=unix,addr.path=%s,max-connections=0,handshake-max-seconds=0" % (tmp_path / "s")) as s:
        s.export("nbd")
        resource.prlimit(s.process.pid, resource.RLIMIT_NOFILE, (len(os.listdir("/proc/%d/fd" % s.process.pid)) + 4,) * 2)
        held, away = [], 0
        for _ in range(12):
            c = socket.socket(socket.AF_UNIX)
            c.settimeout(60)
            c.connect(str(tmp_path / "s"))
            held.append(c)
            away += c.recv(18) == b""
        assert 7 <= away <= 9, away
        for c in held:
            c.close()
        while True:                             # the server has noticed that they are gone
            with contextlib.suppress(EOFError, ConnectionError, BrokenPipeError):
                with Client(tmp_path / "s") as c:
                    c.go("n")
                    assert c.ask(Cmd.READ, 0, 512) == 0
                break


def test_several_connections_copy(tmp_path):
    """The first of these would wait for its second connection where only one is taken."""
    with serve(tmp_path, "n", server=",max-connections=1") as (path, _):
        uri = "nbd+unix:///n?socket=%s" % path
        (tmp_path / "r").write_bytes(os.urandom(SIZE))
        run("nbdcopy", "--connections=4", tmp_path / "r", uri)
        assert run(IMG, "compare", "-f", "raw", "-F", "raw", tmp_path / "r", uri)
