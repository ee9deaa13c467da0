# SPDX-License-Identifier: MIT
"""Debian's programs for an hour or so: what they compute is known, whatever the number of harts; one round is checked by the interpreter."""
import subprocess

import pytest

import cpu
import programs
import suites

ROUNDS = {"1": (1, ()), "2": (2, ()), "4": (4, ()), "icount": (2, ("-icount", "shift=auto")), "check": (1, ("-accel", "jit,check=on"))}
SCALE = {"check": 4}            # how much slower it may be


@pytest.fixture(scope="module", params=list(ROUNDS), name="r")
def machine(request):
    harts, args = ROUNDS[request.param]
    with programs.Guest(*args, harts=harts, more=suites.files()) as m:
        m.boot(300)
        m.run(programs.PREPARE, 900)
        m.harts, m.slower, m.seconds = harts, SCALE.get(request.param, 1), 5 if request.param == "check" else 20
        yield m


def test_openssl(r):
    suites.digests(r, 1000000 // r.slower)


def test_python(r):
    suites.python(r, 40 // r.slower)


def test_database(r, tmp_path):
    suites.database(r, tmp_path)


def test_sqlite_shell(r):
    said = r.run("rm -f t.db; sqlite3 t.db </scripts/insert.sql && sqlite3 t.db </scripts/select.sql", 900)
    assert said.splitlines()[0] == "60000|450007500.0" and said.splitlines()[-1] == "ok"


def test_7z(r):
    """It packs, unpacks and compares by itself for as long as there are dictionaries; its threads are as many as harts."""
    said = r.run("7z b 1 -md22 && 7z a -mmt=%d -bso0 -bsp0 b.7z big code && 7z t b.7z" % r.harts, 1800)
    assert "Everything is Ok" in said and "Avr:" in said, said
    r.run("mkdir -p x && 7z x -y -ox -bso0 -bsp0 b.7z && cmp x/big big && cmp x/code code; rc=$?; rm -rf x b.7z; [ $rc = 0 ]", 900)


@pytest.mark.parametrize("pack", ["xz -T0", "xz -9", "zstd -q -T0", "zstd -q -19", "gzip", "gzip -9"])
def test_compressors(r, pack):
    """What was packed comes out again, and is in order by its own checksum."""
    tool = pack.split()[0]
    r.run("%s -c <code >p && %s -t <p && %s -dc <p | cmp - code" % (pack, tool, tool), 900)


def test_lua(r):
    """As far as its integers go, lua's numbers are those of any machine; the loops come out the same again."""
    first = r.run("lua5.4 /scripts/loops.lua 20", 600)
    assert first.isdigit()
    for _ in range(3):
        assert r.run("lua5.4 /scripts/loops.lua 20", 600) == first
    assert r.run("lua5.4 -e 'local a, b = 0, 1 for _ = 1, 90 do a, b = b, a + b end print(a, 7 // 2, -7 // 2, 2^53, 1e308 * 10)'") == \
        "2880067194370816120\t3\t-4\t9.007199254741e+15\tinf"


def test_perl(r):
    first = r.run("perl /scripts/loops.pl 40", 600)
    assert [r.run("perl /scripts/loops.pl 40", 600) for _ in range(2)] == [first] * 2


def test_compiler(r, tmp_path):
    """What the guest compiles computes what the same text does on the host."""
    host = str(tmp_path / "work")
    subprocess.run(["gcc", "-O2", "-o", host, programs.WORK, "-lm"], check=True)
    rows = [w for name, times, group in cpu.PROGRAMS if group in ("integer", "calls") for w in (name, str(max(1, times // 10)))]
    want = [w.split()[::2] for w in subprocess.run([host, *rows], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()]
    for options in ("-O0", "-O2", "-O3 -funroll-loops"):
        said = r.run("gcc %s -o work /scripts/work.c -lm && ./work %s" % (options, " ".join(rows)), 1800)
        assert [w.split()[::2] for w in said.splitlines()] == want, options


def test_stress(r):
    suites.stress(r, r.harts, r.seconds, 600)
