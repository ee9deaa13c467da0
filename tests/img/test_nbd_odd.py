# SPDX-License-Identifier: MIT
"""NBD servers that do what none should: leave bytes of a read out, answer twice, or go away in the midst of a request."""
import struct
import time

from imglib import img
from lib.nbd import SIMPLE_REPLY, Chunk, Cmd, Flag, Server, take

SIZE = 32 << 20
EIO = 5
FLAGS = Flag.HAS_FLAGS | Flag.SEND_FLUSH | Flag.CAN_MULTI_CONN


def target(path, delay):
    return "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=x,file.reconnect-delay=%d" % (path, delay)


def test_a_read_whose_chunks_are_not_all_of_it(tmp_path):
    def half(link):
        r = link.next()
        assert r.kind == Cmd.READ
        link.chunk(r, Chunk.OFFSET_DATA, struct.pack(">Q", r.offset) + bytes(r.length // 2))

    s = Server(tmp_path / "s", SIZE, half, flags=FLAGS)
    r = img("bench", "-c", "1", "-s", "65536", "--image-opts", target(tmp_path / "s", 0), ok=(1,))
    assert "rotocol error" in r.stderr or "Input/output error" in r.stderr, r.stderr
    s.ended()


def test_a_read_that_is_answered_twice(tmp_path):
    """By an error, and at once by data that come when nobody waits any more: they are nobody's."""
    def twice(link):
        r = link.next()
        link.sock.sendall(struct.pack(">IIQ", SIMPLE_REPLY, EIO, r.cookie) + struct.pack(">IIQ", SIMPLE_REPLY, 0, r.cookie))
        time.sleep(0.3)
        link.sock.sendall(bytes(r.length))
        link.until_gone()

    s = Server(tmp_path / "s", SIZE, twice, flags=FLAGS, structured=False)
    r = img("bench", "-c", "1", "-s", "65536", "--image-opts", target(tmp_path / "s", 0), ok=(1,))
    assert "is lost: Protocol error" in r.stderr, r.stderr
    s.ended()


def test_a_server_that_answers_and_goes(tmp_path):
    """What was answered by then is done, although nothing can be asked for again."""
    def last(link):
        link.answer(link.next())

    s = Server(tmp_path / "s", SIZE, last, flags=FLAGS)
    img("bench", "-c", "1", "-s", "65536", "--image-opts", target(tmp_path / "s", 0))
    s.ended()


def test_a_connection_that_goes_in_the_midst_of_requests(tmp_path):
    """One of sixteen is half sent, others wait for their turn: over the new connection each comes whole, and once at a time."""
    def gone(link):
        take(link.sock, 100000)                 # the rest of the first request does not fit into the socket

    def server(link):
        waiting = {}
        while (r := link.next()).kind != Cmd.DISC:
            assert r.cookie not in waiting, "two requests with one cookie: %s and %s" % (waiting[r.cookie], r)
            waiting[r.cookie] = r
            if link.nothing_comes(0.3):         # all are here
                for w in waiting.values():
                    link.answer(w)
                waiting = {}

    s = Server(tmp_path / "s", SIZE, gone, server, flags=FLAGS, structured=False)
    img("bench", "-w", "-c", "16", "-d", "16", "-s", "1M", "--image-opts", target(tmp_path / "s", 60))
    s.ended()
