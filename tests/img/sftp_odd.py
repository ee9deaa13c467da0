#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A server of files over stdin and stdout (SFTP, version 3) that does odd things, as sshd's subsystem. Argument: how it is odd.

short     answers reads with at most 1000 bytes, and says end of file where there is none left
late      answers reads only when eight have come, the last one first
full      refuses every write behind the first 64 KiB, and says why
rubbish   answers reads with an id that nobody asked with
old       none of the above, but there are no extensions either
"""
import os
import struct
import sys

HOW = sys.argv[1]


def need(n):
    b = sys.stdin.buffer.read(n)
    if len(b) < n:
        sys.exit(0)
    return b


def put(kind, body):
    sys.stdout.buffer.write(struct.pack(">IB", len(body) + 1, kind) + body)
    sys.stdout.buffer.flush()


def status(n, code, text=b""):
    put(101, struct.pack(">III", n, code, len(text)) + text + struct.pack(">I", 0))


def text(b, at):
    n, = struct.unpack_from(">I", b, at)
    return b[at + 4:at + 4 + n], at + 4 + n


def read(n, off, size):
    data = os.pread(fd, min(size, 1000) if HOW == "short" else size, off)
    if HOW == "rubbish":
        n += 1000
    if data:
        put(103, struct.pack(">II", n, len(data)) + data)
    else:
        status(n, 1)


fd, waiting = -1, []
while True:
    length, = struct.unpack(">I", need(4))
    p = need(length)
    kind, number = p[0], struct.unpack_from(">I", p, 1)[0]
    if kind == 1:
        put(2, struct.pack(">I", 3))
    elif kind == 3:
        path, at = text(p, 5)
        how, = struct.unpack_from(">I", p, at)
        try:
            fd = os.open(path, (os.O_RDWR if how & 2 else os.O_RDONLY) | (os.O_CREAT if how & 8 else 0))
            put(102, struct.pack(">II", number, 1) + b"h")
        except FileNotFoundError:
            status(number, 2)
    elif kind in (8, 17):
        try:
            st = os.fstat(fd) if kind == 8 else os.stat(text(p, 5)[0])
            put(105, struct.pack(">IIQI", number, 5, st.st_size, st.st_mode))
        except FileNotFoundError:
            status(number, 2)
    elif kind == 10:
        os.ftruncate(fd, struct.unpack_from(">Q", p, text(p, 5)[1] + 4)[0])
        status(number, 0)
    elif kind == 5:
        _, at = text(p, 5)
        waiting.append((number,) + struct.unpack_from(">QI", p, at))
        if HOW != "late" or len(waiting) == 8:
            for w in reversed(waiting):
                read(*w)
            waiting = []
    elif kind == 6:
        _, at = text(p, 5)
        off, = struct.unpack_from(">Q", p, at)
        data, _ = text(p, at + 8)
        if HOW == "full" and off + len(data) > 65536:
            status(number, 4, b"there is no room\x1b left")
        else:
            os.pwrite(fd, data, off)
            status(number, 0)
    else:
        status(number, 0 if kind == 4 else 8)
