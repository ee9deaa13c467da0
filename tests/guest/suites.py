# SPDX-License-Identifier: MIT
"""What well-known programs say in the guest, compared with what is known of it: digests, the host's Python, their own checks."""
import hashlib
import os
import subprocess

import guest

LOOPS = os.path.join(guest.ROOT, "bench", "programs", "loops.py")
SQL = {n: os.path.join(guest.ROOT, "bench", "programs", n + ".sql") for n in ("insert", "select")}
STRESSORS = ("cpu", "fp", "vm", "atomic", "signal", "switch", "futex")
DIGESTS = ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b")        # as hashlib calls them
BY_OPENSSL = {"sha3_256": "sha3-256", "blake2b": "blake2b512"}

DATABASE = """import sqlite3, sys
d = sqlite3.connect("/tmp/t.db", isolation_level=None)
for text in sys.argv[1:]:
    for s in open(text).read().split(";"):
        for row in d.execute(s):
            print(row)
"""


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def files():
    """{name: text} of the scripts that the guest needs, as guest.Machine takes them."""
    return dict({n + ".sql": read(p) for n, p in SQL.items()}, **{"loops.py": read(LOOPS), "database.py": DATABASE})


def digests(m, lines):
    """OpenSSL's digests of LINES lines of numbers are those of the host; a cipher gives back what it was given, a signature holds."""
    text = "".join("%d\n" % i for i in range(1, lines + 1)).encode()
    m.run("seq %d >/tmp/text" % lines)
    for name in DIGESTS:
        got = m.run("openssl dgst -r -%s /tmp/text" % BY_OPENSSL.get(name, name), 120).split()[0]
        assert got == hashlib.new(name, text).hexdigest(), name
    for cipher in ("aes-256-ctr", "aes-128-cbc", "chacha20", "camellia-128-cbc"):
        both = "openssl enc -%s -pbkdf2 -iter 100 -pass pass:x" % cipher
        assert m.run("%s -in /tmp/text -out /tmp/c && ! cmp -s /tmp/c /tmp/text && %s -d -in /tmp/c | cmp - /tmp/text" % (both, both), 120) == "", cipher
    for key in ("rsa:1024", "ec -pkeyopt ec_paramgen_curve:P-256", "ed25519"):
        sign = "openssl pkeyutl -rawin -inkey /tmp/key -in /tmp/small"
        said = m.run("head -c 64 /tmp/text >/tmp/small; openssl req -newkey %s -nodes -keyout /tmp/key -subj /CN=x -out /tmp/req 2>/dev/null; "
                     "%s -sign -out /tmp/sig && %s -verify -sigfile /tmp/sig" % (key, sign, sign), 300)
        assert "Signature Verified Successfully" in said, (key, said)


def python(m, times):
    """Python's objects, text, big and floating-point numbers come out as on the host."""
    here = subprocess.run(["/usr/bin/python3", LOOPS, str(times)], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert m.run("python3 /scripts/loops.py %d" % times, 60 + 20 * times) == here.strip()


def database(m, tmp_path):
    """SQLite (in Python) fills a table, answers as on the host, and finds its file in order."""
    here = DATABASE.replace("/tmp/t.db", str(tmp_path / "t.db"))
    want = subprocess.run(["/usr/bin/python3", "-c", here, SQL["insert"], SQL["select"]], check=True, stdout=subprocess.PIPE, text=True).stdout
    got = m.run("rm -f /tmp/t.db; python3 /scripts/database.py /scripts/insert.sql /scripts/select.sql", 300)
    assert got == want.strip() and "('ok',)" in got


def stress(m, harts, seconds, timeout=120):
    """Each of the stressors runs for a while on every hart and finds nothing wrong."""
    for s in STRESSORS:
        more = " --vm-bytes 32M" if s == "vm" else ""
        said = m.run("stress-ng --verify --%s %d%s -t %d --metrics-brief" % (s, harts, more, seconds), timeout + 20 * seconds)
        assert "passed: %d: %s (%d)" % (harts, s, harts) in said and "failed: 0" in said, said
