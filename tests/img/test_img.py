# SPDX-License-Identifier: MIT
"""backplane-img beside qemu-img: images made by each are checked, compared, mapped and read by the other."""
import json
import os
import subprocess

import pytest

from imglib import IMG, QEMU, SANITIZED, both, img, info, qimg, qio, run, sparse_file

MIB = 1 << 20
needs_qemu = pytest.mark.skipif(not QEMU, reason="no qemu-utils")
KINDS = [
    "", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "compat=0.10", "compat=0.10,cluster_size=1k",
    "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=128k", "compression_type=zstd", "compression_type=zstd,extended_l2=on",
    "refcount_bits=1", "refcount_bits=2,cluster_size=1k", "refcount_bits=64,cluster_size=512", "lazy_refcounts=on",
    "preallocation=metadata", "preallocation=falloc", "preallocation=full,cluster_size=4k",
]
if SANITIZED:                       # each way through the code once: QEMU has judged all of these images by then, which the plain build made
    KINDS = ["cluster_size=512", "compat=0.10,cluster_size=1k", "extended_l2=on,cluster_size=16k", "compression_type=zstd",
             "refcount_bits=2,cluster_size=1k", "refcount_bits=64,cluster_size=512", "lazy_refcounts=on", "preallocation=full,cluster_size=4k"]


def opts(kind):
    return ["-o", kind] if kind else []


def clean(path):
    for tool in both("check", "-f", "qcow2", "--output=json", path):
        r = json.loads(tool.stdout)
        assert not r.get("corruptions") and not r.get("leaks") and not r["check-errors"], r


def same(a, fa, b, fb):
    for tool in both("compare", "-f", fa, "-F", fb, a, b):
        assert "Images are identical." in tool.stdout


@needs_qemu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("maker", ["ours", "theirs"])
def test_each_reads_what_the_other_made(tmp_path, kind, maker):
    raw, q, back = sparse_file(tmp_path / "a.raw", 5 * MIB), tmp_path / "a.qcow2", tmp_path / "b.raw"
    make, read = (img, qimg) if maker == "ours" else (qimg, img)
    make("convert", "-f", "raw", "-O", "qcow2", *opts(kind), raw, q)
    clean(q)
    same(raw, "raw", q, "qcow2")
    read("convert", "-f", "qcow2", "-O", "raw", q, back)
    assert raw.read_bytes() == back.read_bytes()


@needs_qemu
@pytest.mark.parametrize("kind", [k for k in KINDS if "prealloc" not in k])
def test_compressed_images_go_both_ways(tmp_path, kind):
    raw, ours, theirs = sparse_file(tmp_path / "a.raw", 5 * MIB + 1024, 2), tmp_path / "o.qcow2", tmp_path / "t.qcow2"
    img("convert", "-c", "-f", "raw", "-O", "qcow2", *opts(kind), raw, ours)
    qimg("convert", "-c", "-f", "raw", "-O", "qcow2", *opts(kind), raw, theirs)
    for q in (ours, theirs):
        clean(q)
        same(raw, "raw", q, "qcow2")
    a, b = (json.loads(img("check", "--output=json", q).stdout) for q in (ours, theirs))
    assert a["compressed-clusters"] == b["compressed-clusters"]


@needs_qemu
@pytest.mark.parametrize("kind", [k for k in KINDS if "prealloc" not in k and "refcount_bits=1" not in k and "refcount_bits=2" not in k])
def test_writes_in_turn(tmp_path, kind):
    """Both write to one image, with an overlay, a snapshot and an older moment applied."""
    base, q = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    img("create", "-f", "qcow2", *opts(kind), base, "6M")
    qio(base, "write -P 1 0 3M", "write -P 2 5M 1M")
    img("create", "-f", "qcow2", *opts(kind), "-b", base, "-F", "qcow2", q)
    qio(q, "write -P 3 1000k 100k", "write -z 2M 300k", "discard 4M 1M")
    clean(q)
    img("snapshot", "-c", "before", q)
    qio(q, "read -P 3 1000k 100k", "write -P 4 1000k 50k", "write -P 5 3M 64k")
    clean(q)
    qimg("snapshot", "-c", "theirs", q)
    listed = img("snapshot", "-l", q).stdout.splitlines()[2:]
    assert [line.split()[1] for line in listed] == ["before", "theirs"]
    img("snapshot", "-a", "before", q)
    qio(q, "read -P 3 1000k 100k", "read -P 1 0 1000k", "read -P 0 2M 300k", "read -P 2 5M 1M")
    qimg("snapshot", "-a", "theirs", q)
    clean(q)
    img("snapshot", "-d", "before", q)
    img("snapshot", "-d", "theirs", q)
    qio(q, "read -P 4 1000k 50k", "read -P 3 1050k 50k", "read -P 5 3M 64k")
    clean(q)
    assert img("snapshot", "-l", q).stdout == ""
    img("commit", q)
    qio(base, "read -P 4 1000k 50k", "read -P 0 2M 300k", "read -P 5 3M 64k", "read -P 1 0 1000k")
    clean(base)
    clean(q)


@needs_qemu
@pytest.mark.parametrize("kind", [k for k in KINDS if not any(word in k for word in ("prealloc", "refcount", "lazy"))])
def test_maps_agree(tmp_path, kind):
    base, q = tmp_path / "base.raw", tmp_path / "a.qcow2"
    base.write_bytes(b"\1" * 2 * MIB)
    qimg("create", "-f", "qcow2", *opts(kind), "-b", base, "-F", "raw", q, "4M")
    qio(q, "write -P 3 300k 100k", "write -P 3 3M 128k")
    if "compat" not in kind:
        qio(q, "write -z 1M 512k")
    ours, theirs = (json.loads(p.stdout) for p in both("map", "--output=json", q))

    def bytewise(m):
        return [(s["depth"] if s["present"] else None, s["zero"], s["data"], s["offset"] + i * 512 - s["start"] + s["start"] if "offset" in s else None)
                for s in m for i in range(s["length"] // 512)]
    a, b = bytewise(ours), bytewise(theirs)
    assert len(a) == len(b) == 4 * MIB // 512
    wrong = [i for i in range(len(a)) if a[i] != b[i]]
    assert not wrong, (wrong[:3], a[wrong[0]], b[wrong[0]])


@needs_qemu
def test_a_data_file_of_its_own(tmp_path):
    for raw in ("off", "on"):
        q, d = tmp_path / ("a%s.qcow2" % raw), tmp_path / ("a%s.data" % raw)
        img("create", "-f", "qcow2", "-o", "data_file=%s,data_file_raw=%s" % (d, raw), q, "4M")
        qio(q, "write -P 5 1M 1M")
        clean(q)
        assert img("map", q).stdout.split()[-1] == str(d)
        img("convert", "-O", "raw", "-f", "qcow2", q, tmp_path / ("b%s.raw" % raw))
        if raw == "on":
            same(d, "raw", q, "qcow2")
        else:
            same(tmp_path / "boff.raw", "raw", q, "qcow2")


@needs_qemu
@pytest.mark.parametrize("how", ["off", "metadata", "falloc", "full"])
def test_a_disk_that_grows_into_a_longer_data_file(tmp_path, how):
    """What is there belongs to the disk where the file is a raw image, and nobody's where it is not; no byte behind the new end is lost."""
    for raw in ("off", "on"):
        q, d = tmp_path / ("a" + raw), tmp_path / ("d" + raw)
        img("create", "-f", "qcow2", "-o", "data_file=%s,data_file_raw=%s" % (d, raw), q, "1000k")
        with open(d, "r+b") as f:
            f.seek(1000 * 1024)
            f.write(b"T" * 3096 * 1024)
            f.truncate(5 * MIB)
        img("resize", "-f", "qcow2", "--preallocation", how, q, "3M")
        clean(q)
        img("convert", "-f", "qcow2", "-O", "raw", q, tmp_path / ("b" + raw))
        held, shown = d.read_bytes(), (tmp_path / ("b" + raw)).read_bytes()
        assert shown == (held[:3 * MIB] if raw == "on" else bytes(3 * MIB))
        assert held[3 * MIB:] == b"T" * MIB + bytes(MIB)
        if raw == "on":
            assert held[1000 * 1024:3 * MIB] == b"T" * 2072 * 1024
        qio(q, "write -P 7 1M 4k", "read -P 7 1M 4k", "read -P %d 1028k 4k" % (84 if raw == "on" else 0))


@needs_qemu
@pytest.mark.parametrize("kind", ["", "cluster_size=4k", "extended_l2=on,cluster_size=32k", "cluster_size=2M,refcount_bits=1", "cluster_size=512",
                                  "preallocation=metadata", "preallocation=full"])
def test_measure_agrees(kind):
    for size in ("0", "512", "1M", "10M", "5000000", "100G", "1T"):
        status, said = [], []
        for tool in (IMG, "qemu-img"):
            p = run(tool, "measure", "-O", "qcow2", "--output=json", "--size", size, *opts(kind), ok=(0, 1))
            status.append(p.returncode)
            said.append(p.returncode or json.loads(p.stdout))
        assert said[0] == said[1], (size, said)


@needs_qemu
def test_measure_of_images(tmp_path):
    a = tmp_path / "a"
    qimg("create", "-f", "qcow2", a, "64M")
    qio(a, "write -P 1 1M 300k", "write -P 2 40M 1M")
    qimg("snapshot", "-c", "one", a)
    qio(a, "write -P 2 50M 4M")
    for name in ("x", "longer name"):
        qimg("bitmap", "--add", "-g", "4k", a, name)
    for target in ("raw", "qcow2"):
        for how in ("human", "json"):
            for more in ([], ["-l", "one"]):
                ours, theirs = both("measure", "-O", target, "--output=" + how, *more, a)
                assert ours.stdout == theirs.stdout
    assert "nonsense" in img("measure", "-O", "qcow2", "-o", "nonsense=1", a, ok=(1,)).stderr
    assert "vdi" in img("measure", "-O", "vdi", a, ok=(1,)).stderr
    secret = ["--object", "secret,id=s,data=abc"]
    need = json.loads(img("measure", *secret, "-O", "luks", "-o", "key-secret=s", "--output=json", a).stdout)["required"]
    img("create", *secret, "-f", "luks", "-o", "key-secret=s,iter-time=10", tmp_path / "l", "64M")
    assert (tmp_path / "l").stat().st_size == need
    more = img("measure", *secret, "-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s", "--size", "64M").stdout.split()
    plain = img("measure", "-O", "qcow2", "--size", "64M").stdout.split()
    assert [int(x) - int(y) for x, y in zip(more, plain) if x.isdigit()] == [2 * MIB] * 2
    assert "key-secret" in img("measure", "-O", "luks", "--size", "1M", ok=(1,)).stderr


@needs_qemu
def test_info_has_the_same_keys(tmp_path):
    base, q = tmp_path / "base.qcow2", tmp_path / "a.qcow2"
    qimg("create", "-f", "qcow2", base, "64M")
    qimg("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", q)
    qimg("snapshot", "-c", "one", q)
    for args in ([], ["--backing-chain"]):
        ours, theirs = (json.loads(p.stdout) for p in both("info", "--output=json", *args, q))
        assert ours == theirs
    ours, theirs = both("info", q)
    assert sorted(ours.stdout.splitlines()) == sorted(theirs.stdout.splitlines())


def test_status_tells_the_truth(tmp_path):
    q, r = tmp_path / "a.qcow2", tmp_path / "a.raw"
    img("create", "-f", "qcow2", "-o", "cluster_size=4k", q, "4M")
    img("create", r, "4M")
    img("check", "-f", "raw", r, ok=(63,))
    img("compare", "-f", "qcow2", "-F", "raw", q, r, ok=(0,))
    with open(r, "r+b") as f:
        for at in (3 * MIB + 7, 3 * MIB + 300000, 4 * MIB - 1):
            f.seek(at)
            f.write(b"x")
    p = img("compare", "-f", "qcow2", "-F", "raw", q, r, ok=(1,))
    assert "offset %d" % (3 * MIB + 7) in p.stdout
    img("compare", q, tmp_path / "none", ok=(2, 3, 4))
    img("info", tmp_path / "none", ok=(1,))
    data = bytearray(q.read_bytes())
    block = int.from_bytes(data[4096:4104], "big")
    good = bytes(data)
    data[block + 2 * 3:block + 2 * 4] = b"\0\0"     # the L1 table's refcount
    q.write_bytes(data)
    img("check", q, ok=(2,))
    img("check", "-r", "leaks", q, ok=(2,))
    img("check", "-r", "all", q, ok=(0,))
    data = bytearray(good) + bytes(4096)
    data[block + 2 * 4:block + 2 * 5] = b"\0\1"
    q.write_bytes(data)
    img("check", q, ok=(3,))
    img("check", "-r", "leaks", q, ok=(0,))
    img("check", q, ok=(0,))


def test_nothing_is_overwritten_unasked(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"precious" * 1000)
    b.write_bytes(b"\0" * 4096)
    for cmd in (["create", a, "1M"], ["create", "-f", "qcow2", a, "1M"], ["convert", b, a], ["dd", "if=%s" % b, "of=%s" % a]):
        p = img(*cmd, ok=(1,))
        assert "--force" in p.stderr
        assert a.read_bytes() == b"precious" * 1000
    img("create", "--force", a, "1M")
    assert a.read_bytes() == bytes(MIB)


def test_a_failed_conversion_leaves_nothing(tmp_path):
    q, out = tmp_path / "a.qcow2", tmp_path / "out"
    img("create", "-f", "qcow2", q, "8M")
    img("convert", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=7", q, out, ok=(1,))
    assert not out.exists()
    data = bytearray(q.read_bytes())
    l1 = int.from_bytes(data[40:48], "big")
    data[l1:l1 + 8] = (1 << 63 | 1 << 40).to_bytes(8, "big")
    q.write_bytes(data)
    img("convert", "-f", "qcow2", "-O", "raw", q, out, ok=(1,))
    assert not out.exists()


def test_what_needs_no_lock_and_what_does(tmp_path):
    q = tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", q, "64M")
    holder = subprocess.Popen(["qemu-io", "-f", "qcow2", str(q)] if QEMU else ["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if QEMU:
            holder.stdin.write(b"write -P 1 0 64k\n")
            holder.stdin.flush()
            while b"wrote" not in holder.stdout.readline():
                pass
        img("info", q)
        img("check", q, ok=(0, 2, 3))       # while it is written, it may look torn
        img("snapshot", "-l", q)
        if QEMU:
            p = img("resize", q, "+1M", ok=(1,))
            assert "qemu-io" in p.stderr and "in use" in p.stderr
            p = img("create", "--force", "-f", "qcow2", q, "1M", ok=(1,))
            assert "in use" in p.stderr
            img("convert", "-f", "qcow2", q, tmp_path / "x", ok=(1,))
            img("convert", "-U", "-f", "qcow2", q, tmp_path / "x")
    finally:
        holder.stdin.close()
        holder.wait(10)
    assert info(q)["virtual-size"] == 64 * MIB


@needs_qemu
def test_rebase_keeps_the_contents(tmp_path):
    a, b, q = tmp_path / "a.qcow2", tmp_path / "b.qcow2", tmp_path / "q.qcow2"
    for path, pattern in ((a, 1), (b, 2)):
        img("create", "-f", "qcow2", path, "4M")
        qio(path, "write -P %d 1M 1M" % pattern, "write -P 9 3M 64k")
    img("create", "-f", "qcow2", "-b", a, "-F", "qcow2", q)
    qio(q, "write -P 7 1100k 10k")
    img("rebase", "-b", b, "-F", "qcow2", q)
    qio(q, "read -P 1 1M 76k", "read -P 7 1100k 10k", "read -P 9 3M 64k")
    clean(q)
    assert info(q)["backing-filename"] == str(b)
    img("rebase", "-b", "", q)
    qio(q, "read -P 1 1M 76k", "read -P 7 1100k 10k", "read -P 9 3M 64k", "read -P 0 0 1M")
    assert "backing-filename" not in info(q)
    img("rebase", "-u", "-b", "elsewhere", "-F", "raw", q)
    assert info(q)["backing-filename-format"] == "raw"


@needs_qemu
def test_rebase_compresses(tmp_path):
    """What comes from the old backing file; the image ends within a cluster."""
    a, q = tmp_path / "a.qcow2", tmp_path / "q.qcow2"
    img("create", "-f", "qcow2", a, "4100k")
    qio(a, "write -P 1 1M 3076k")
    img("create", "-f", "qcow2", "-b", a, "-F", "qcow2", q)
    qio(q, "write -P 7 1100k 10k")
    img("rebase", "-c", "-b", "", q)
    qio(q, "read -P 0 0 1M", "read -P 1 1M 76k", "read -P 7 1100k 10k", "read -P 1 1110k 2990k")
    clean(q)
    found = {x["start"]: x.get("compressed", False) for x in json.loads(img("map", "--output=json", q).stdout)}
    assert found[1 << 20] and not found[1088 << 10] and found[1152 << 10]
    for args, said in ((("-u", "-c", "-b", ""), "-c has no effect"), (("-c",), "rebase needs -b")):
        assert said in img("rebase", *args, q, ok=(1,)).stderr


@needs_qemu
def test_commit_through_a_chain(tmp_path):
    names = [tmp_path / ("%d.qcow2" % i) for i in range(4)]
    img("create", "-f", "qcow2", names[0], "4M")
    for i in range(1, 4):
        img("create", "-f", "qcow2", "-b", names[i - 1].name, "-F", "qcow2", names[i])
    for i, n in enumerate(names):
        qio(n, "write -P %d %dk 200k" % (i + 1, i * 100))
    img("commit", "-b", names[0].name, names[3])
    qio(names[0], "read -P 1 0 100k", "read -P 2 100k 100k", "read -P 3 200k 100k", "read -P 4 300k 200k")
    for n in names:
        clean(n)


def test_resize(tmp_path):
    q = tmp_path / "a.qcow2"
    img("create", "-f", "qcow2", "-o", "cluster_size=512", q, "1M")
    img("resize", q, "40M")
    img("resize", q, "+1M")
    assert info(q)["virtual-size"] == 41 * MIB
    assert "--shrink" in img("resize", q, "1M", ok=(1,)).stderr
    img("resize", "--shrink", q, "-40M")
    assert info(q)["virtual-size"] == MIB
    img("check", q)


def test_a_disk_that_looks_like_an_image_opens_nothing(tmp_path):
    """A guest wrote a header with a backing file onto its raw disk."""
    secret, disk = tmp_path / "secret", tmp_path / "disk.raw"
    secret.write_bytes(b"s" * 65536)
    img("create", "-f", "qcow2", "-b", secret, "-F", "raw", disk, "64k")
    p = img("convert", "-O", "raw", disk, tmp_path / "out", ok=(1,))
    assert "-f qcow2" in p.stderr and not (tmp_path / "out").exists()
    img("info", disk)
    img("convert", "-f", "raw", "-O", "raw", disk, tmp_path / "out")
    assert (tmp_path / "out").read_bytes()[:4] == b"QFI\xfb"


def test_dd_takes_a_window(tmp_path):
    raw = sparse_file(tmp_path / "a.raw", 3 * MIB, 5)
    img("dd", "-f", "raw", "bs=4k", "skip=10", "count=100", "if=%s" % raw, "of=%s" % (tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == raw.read_bytes()[40960:40960 + 409600]


def test_mistakes_are_named():
    assert "did you mean 'convert'" in run(IMG, "covnert", ok=(1,)).stderr
    assert "cluster_size" in img("create", "-f", "qcow2", "-o", "help", "x").stdout
    assert "clustersize" in img("create", "-f", "qcow2", "-o", "clustersize=4k", "/nonexistent/x", "1M", ok=(1,)).stderr + "clustersize"
    assert img("create", "-f", "qcow2", "-b", "x", "/tmp/y", "1M", ok=(1,)).stderr.count("-F FORMAT") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_a_full_disk_fails_and_leaves_a_good_image(tmp_path):
    mnt = tmp_path / "m"
    mnt.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M", "none", str(mnt)], check=False).returncode:
        pytest.skip("no mount here")
    try:
        big = tmp_path / "big.raw"
        big.write_bytes(os.urandom(8 * MIB))
        img("create", "-f", "qcow2", mnt / "a.qcow2", "8M")
        p = img("convert", "-n", "-f", "raw", "-O", "qcow2", big, mnt / "a.qcow2", ok=(1,))
        assert "No space left" in p.stderr
        img("check", mnt / "a.qcow2", ok=(0, 3))
    finally:
        subprocess.run(["umount", str(mnt)], check=True)
