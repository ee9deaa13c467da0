# SPDX-License-Identifier: MIT
"""What a person reads after a mistake: tests/golden/*.txt holds command lines and the messages that follow.

A line "$ ARGUMENTS" is followed by the exit status and what was printed. @TMP@ is a folder with a socket "busy" that somebody listens at and a file "flat" of 2000 bytes,
@PORT@ a TCP port that is in use. `BP_GOLDEN=write` writes the files anew: read the difference before you keep it.
"""
import glob
import os
import re
import shlex
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, ROOT, TIMEOUT

FILES = sorted(glob.glob(os.path.join(ROOT, "tests", "golden", "*.txt")))


def cases(path):
    """[(command, expected text)] and the comments before them."""
    with open(path, encoding="utf-8") as f:
        parts = re.split(r"^\$ ", f.read(), flags=re.M)
    return parts[0], [p.split("\n", 1) for p in parts[1:]]


def words(command):
    return [w for w in command.split() if w] if '"' in command else shlex.split(command)


class Place:
    """The folder and the port that commands may name."""

    def __init__(self, tmp):
        self.tmp = str(tmp)
        with open(os.path.join(self.tmp, "flat"), "wb") as f:
            f.write(bytes(2000))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(os.path.join(self.tmp, "busy"))
        self.unix.listen()
        self.tcp = socket.socket()
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen()
        self.port = str(self.tcp.getsockname()[1])

    def run(self, command):
        argv = [w.replace("@TMP@", self.tmp).replace("@PORT@", self.port) for w in words(command)]
        try:
            p = subprocess.run([BINARY, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=TIMEOUT, check=False, cwd=self.tmp)
        except subprocess.TimeoutExpired:
            return "runs\n"
        out = p.stdout.replace(self.tmp, "@TMP@").replace(self.port, "@PORT@")
        out = re.sub(r"#([a-z-]+?)\d+", r"#\1N", out)
        out = re.sub(r"'[^']*' \(pid \d+\)", "'NAME' (pid PID)", out)
        return "%d\n%s" % (p.returncode, out)

    def close(self):
        self.unix.close()
        self.tcp.close()


@pytest.fixture(name="place")
def place_fixture(tmp_path):
    p = Place(tmp_path)
    yield p
    p.close()


@pytest.mark.parametrize("path", FILES, ids=[os.path.basename(f) for f in FILES])
def test_messages(path, place):
    head, expected = cases(path)
    got = [(c, place.run(c)) for c, _ in expected]
    if os.environ.get("BP_GOLDEN") == "write":
        with open(path, "w", encoding="utf-8") as f:
            f.write(head + "".join("$ %s\n%s" % (c, t if t.endswith("\n") else t + "\n") for c, t in got))
        return
    wrong = ["$ %s\nexpected:\n%sgot:\n%s" % (c, want, text) for (c, want), (_, text) in zip(expected, got) if want != text]
    assert not wrong, "\n".join(wrong)


def test_every_mistake_fails_with_a_message():
    for path in FILES:
        for command, want in cases(path)[1]:
            assert want.startswith("1\nbackplane: "), command
