# SPDX-License-Identifier: MIT
"""Encrypted images: LUKS itself and within qcow2, made by each program and read by the other; cryptsetup looks at the header."""
import filecmp
import json
import random
import shutil
import subprocess

import pytest

from imglib import QEMU, img, info, qimg, run, sparse_file
from test_nbd import SERVE, Server

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
MIB = 1 << 20
PASS, OTHER = "open sesame", "rosebud"
S = ["--object", "secret,id=s,data=" + PASS]
S2 = [*S, "--object", "secret,id=t,data=" + OTHER]
CREATE = "key-secret=s,iter-time=10"
CIPHERS = ["", "cipher-alg=aes-128", "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
           "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha1", "cipher-alg=serpent-256,hash-alg=sha512",
           "cipher-alg=twofish-128,hash-alg=ripemd160", "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain"]


def opts(path, key="s", more=""):
    return "driver=luks,key-secret=%s,file.driver=file,file.filename=%s%s" % (key, path, more)


@pytest.mark.parametrize("cipher", CIPHERS, ids=[c or "default" for c in CIPHERS])
def test_each_reads_what_the_other_made(tmp_path, cipher):
    """QEMU's tool takes seconds to make one, so that it does so for two of them only."""
    raw, a, b = sparse_file(tmp_path / "raw", 3 * MIB, seed=4), tmp_path / "ours", tmp_path / "theirs"
    o = CREATE + ("," + cipher if cipher else "")
    img("create", *S, "-f", "luks", "-o", o, a, "3M")
    img("convert", *S, "-n", "--image-opts", "--target-image-opts", "driver=raw,file.driver=file,file.filename=%s" % raw, opts(a))
    if not cipher or "essiv" in cipher:
        qimg("convert", *S, "-O", "luks", "-f", "raw", "-o", o, raw, b)
        assert "identical" in img("compare", *S, "--image-opts", opts(b), "driver=raw,file.driver=file,file.filename=%s" % raw).stdout
    qimg("compare", *S, "--image-opts", opts(a), "driver=raw,file.driver=file,file.filename=%s" % raw)
    used = [i for i in range(0, 3 * MIB, 4096) if any(raw.read_bytes()[i:i + 4096])]
    assert raw.read_bytes()[used[0]:used[0] + 4096] not in a.read_bytes()


def test_creation_by_convert_and_info(tmp_path):
    raw, a = sparse_file(tmp_path / "raw", 3 * MIB), tmp_path / "a"
    img("convert", *S, "-f", "raw", "-O", "luks", "-o", CREATE, raw, a)
    assert "identical" in img("compare", *S, "--image-opts", opts(a), "driver=raw,file.driver=file,file.filename=%s" % raw).stdout
    mine, theirs = info(a), json.loads(qimg("info", "--output=json", a).stdout)
    assert mine["format"] == "luks" and mine["virtual-size"] == theirs["virtual-size"] == 3 * MIB
    assert mine["encrypted"] is True
    x, y = mine["format-specific"]["data"], theirs["format-specific"]["data"]
    assert x == {**y, "detached-header": x.get("detached-header", y.get("detached-header"))} if "detached-header" in y else x == y


@pytest.mark.skipif(not shutil.which("cryptsetup"), reason="no cryptsetup")
def test_cryptsetup_accepts_the_header_and_the_password(tmp_path):
    a = tmp_path / "a"
    img("create", *S, "-f", "luks", "-o", CREATE, a, "4M")
    assert "aes" in run("cryptsetup", "luksDump", a).stdout
    for password, ok in ((PASS, True), (OTHER, False)):
        p = subprocess.run(["cryptsetup", "open", "--test-passphrase", "--key-file", "-", str(a)], input=password.encode(), check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (p.returncode == 0) == ok, p.stderr
    b = tmp_path / "b"                  # and the other way round
    with open(b, "wb") as f:
        f.truncate(8 * MIB)
    (tmp_path / "key").write_text(PASS)
    subprocess.run(["cryptsetup", "-q", "luksFormat", "--type", "luks1", "--pbkdf-force-iterations", "1000", "--key-file", str(tmp_path / "key"), str(b)], check=True)
    img("info", *S, "--image-opts", opts(b))
    img("map", *S, "--output=json", "--image-opts", opts(b))


def test_the_wrong_password_and_none(tmp_path):
    a = tmp_path / "a"
    img("create", *S, "-f", "luks", "-o", CREATE, a, "1M")
    assert "does not open" in img("map", *S2, "--image-opts", opts(a, "t"), ok=(1,)).stderr
    p = img("map", "-f", "luks", a, ok=(1,))
    assert "key-secret" in p.stderr
    assert "key-secret" in img("create", "-f", "luks", tmp_path / "b", "1M", ok=(1,)).stderr
    assert not (tmp_path / "b").exists()
    assert "no object" in img("create", "-f", "luks", "-o", "key-secret=zz", tmp_path / "b", "1M", ok=(1,)).stderr
    for bad, text in (("cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain63", "not known here"), ("cipher-alg=rot-13", "bits"),
                      ("hash-alg=md5", "md5"), ("ivgen-hash-alg=sha1", "no effect")):
        assert text in img("create", *S, "-f", "luks", "-o", CREATE + "," + bad, tmp_path / "b", "1M", ok=(1,)).stderr


@pytest.mark.parametrize("qcow2", [False, True])
def test_key_slots(tmp_path, qcow2):
    a, raw = tmp_path / "a", sparse_file(tmp_path / "raw", 2 * MIB)
    pre = "encrypt." if qcow2 else ""

    def place(key):
        return "driver=qcow2,encrypt.format=luks,encrypt.key-secret=%s,file.driver=file,file.filename=%s" % (key, a) if qcow2 else opts(a, key)

    def amend(o, key="s", *more, ok=(0,)):
        o = ",".join(pre + w for w in o.split(","))
        return img("amend", *S2, "--image-opts", "-o", o, *more, place(key), ok=ok)
    fmt = ["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"] if qcow2 else ["-O", "luks", "-o", CREATE]
    img("convert", *S, "-f", "raw", *fmt, raw, a)
    amend("state=active,new-secret=t,iter-time=10")
    for tool in (img, qimg):
        tool("map", *S2, "--output=json", "--image-opts", place("t"))
        tool("map", *S2, "--output=json", "--image-opts", place("s"))
    assert "in use" in amend("state=active,new-secret=t,keyslot=0,iter-time=10", ok=(1,)).stderr
    amend("state=inactive,old-secret=s", "t")
    assert "does not open" in img("map", *S2, "--image-opts", place("s"), ok=(1,)).stderr
    assert "Invalid password" in qimg("map", *S2, "--output=json", "--image-opts", place("s"), ok=(1,)).stderr
    qimg("convert", *S2, "--image-opts", place("t"), "-O", "raw", tmp_path / "out")
    assert filecmp.cmp(raw, tmp_path / "out", shallow=False)
    assert "nobody could open" in amend("state=inactive,keyslot=1", "t", ok=(1,)).stderr
    qimg("amend", *S2, "--image-opts", "-o", ",".join(pre + w for w in "state=active,new-secret=s,keyslot=5,iter-time=10".split(",")), place("t"))
    img("map", *S2, "--output=json", "--image-opts", place("s"))
    amend("state=inactive,keyslot=1", "s", "--force")
    img("map", *S2, "--output=json", "--image-opts", place("t"), ok=(1,))


def test_odd_pieces_of_an_encrypted_disk(tmp_path):
    """Writes that begin and end within sectors, through the NBD server, against a plain copy."""
    with open(tmp_path / "zero", "wb") as f:
        f.truncate(2 * MIB)
    img("convert", *S, "-f", "raw", "-O", "luks", "-o", CREATE, tmp_path / "zero", tmp_path / "a")
    s = Server(tmp_path, [SERVE, *S, "--blockdev", "luks,node-name=n,key-secret=s,file.driver=file,file.filename=%s" % (tmp_path / "a"),
                          "--nbd-server", "addr.type=unix,addr.path=@SOCK@", "--export", "nbd,id=e,node-name=n,name=disk,writable=on"])
    r, want, cmds = random.Random(3), bytearray(2 * MIB), []
    for i in range(60):
        off, n = r.randrange(2 * MIB - 9000), r.choice([1, 7, 100, 511, 512, 513, 4096, 5000, 8999])
        want[off:off + n] = bytes([i + 1]) * n
        cmds += ["-c", "write -P %d %d %d" % (i + 1, off, n)]
    run("qemu-io", "-f", "raw", *cmds, s.uri("disk"))
    s.end()
    (tmp_path / "want").write_bytes(want)
    qimg("compare", *S, "--image-opts", opts(tmp_path / "a"), "driver=raw,file.driver=file,file.filename=%s" % (tmp_path / "want"))


def test_an_image_is_resized(tmp_path):
    a = tmp_path / "a"
    img("create", *S, "-f", "luks", "-o", CREATE, a, "1M")
    img("resize", *S, "--image-opts", opts(a), "3M")
    assert json.loads(qimg("info", "--output=json", a).stdout)["virtual-size"] == 3 * MIB


@pytest.mark.parametrize("more", ["", ",cluster_size=4k", ",extended_l2=on", ",compat=0.10"])
def test_qcow2_within(tmp_path, more):
    """Guest data is encrypted by its place in the file, so that moving clusters about must not change what is read."""
    raw, a = sparse_file(tmp_path / "raw", 4 * MIB, seed=6), tmp_path / "a"
    e = "encrypt.format=luks,encrypt.key-secret=s"
    place = "driver=qcow2,%s,file.driver=file,file.filename=%s" % (e, a)
    img("convert", *S, "-f", "raw", "-O", "qcow2", "-o", e + ",encrypt.iter-time=10" + more, raw, a)
    run("qemu-io", *S, "--image-opts", "-c", "write -P 17 100k 300k", "-c", "write -P 18 1234k 3k", "-c", "write -z 2M 70k", "-c", "discard 3M 128k", place)
    qimg("convert", *S, "--image-opts", place, "-O", "raw", tmp_path / "want")
    img("convert", *S, "--image-opts", place, "-O", "raw", tmp_path / "have")
    assert filecmp.cmp(tmp_path / "want", tmp_path / "have", shallow=False)
    img("check", "-f", "qcow2", a)
    qimg("check", *S, "--image-opts", place)
    if "compat" not in more:
        x, y = info(a)["format-specific"]["data"]["encrypt"], json.loads(qimg("info", "--output=json", a).stdout)["format-specific"]["data"]["encrypt"]
        assert x == y and info(a)["encrypted"] is True
    assert "not encrypted" not in img("map", *S, "--output=json", "--image-opts", place).stderr
    assert "--output=json" in img("map", *S, "--image-opts", place, ok=(1,)).stderr     # there is no place in the file to name
    assert "encrypt.key-secret" in img("map", "-f", "qcow2", a, ok=(1,)).stderr
    b = tmp_path / "b"
    assert img("convert", *S, "-c", "-f", "raw", "-O", "qcow2", "-o", e + ",encrypt.iter-time=10", raw, b, ok=(1,)).stderr


def test_qcow2_that_qemu_made(tmp_path):
    raw, a = sparse_file(tmp_path / "raw", 4 * MIB, seed=6), tmp_path / "a"
    e = "encrypt.format=luks,encrypt.key-secret=s"
    qimg("convert", *S, "-f", "raw", "-O", "qcow2", "-o", e + ",encrypt.iter-time=10", raw, a)
    place = "driver=qcow2,%s,file.driver=file,file.filename=%s" % (e, a)
    assert "identical" in img("compare", *S, "--image-opts", place, "driver=raw,file.driver=file,file.filename=%s" % raw).stdout
    img("snapshot", *S, "--image-opts", "-c", "one", place)
    img("resize", *S, "--image-opts", place, "6M")
    img("check", "-f", "qcow2", a)
    assert "identical" in img("compare", *S, "--image-opts", place, "driver=raw,file.driver=file,file.filename=%s" % raw).stdout
    p = img("map", *S, "-f", "qcow2", tmp_path / "raw", ok=(1,))
    assert p.stderr


def test_the_old_encryption_is_refused(tmp_path):
    a = tmp_path / "a"
    qimg("create", "-f", "qcow2", a, "1M")
    with open(a, "r+b") as f:
        f.seek(32)
        f.write(b"\0\0\0\1")
    p = img("map", "-f", "qcow2", a, ok=(1,))
    assert "protects nothing" in p.stderr


def test_amending_qcow2(tmp_path):
    a = tmp_path / "a"
    raw = sparse_file(tmp_path / "raw", 2 * MIB)
    qimg("convert", "-f", "raw", "-O", "qcow2", "-o", "compat=0.10", raw, a)
    assert "needs compat" in img("amend", "-f", "qcow2", "-o", "lazy_refcounts=on", a, ok=(1,)).stderr
    img("amend", "-f", "qcow2", "-o", "compat=1.1,lazy_refcounts=on", a)
    d = json.loads(qimg("info", "--output=json", a).stdout)["format-specific"]["data"]
    assert d["compat"] == "1.1" and d["lazy-refcounts"] is True
    qimg("check", "-f", "qcow2", a)
    qimg("compare", "-f", "qcow2", "-F", "raw", a, raw)
    img("amend", "-f", "qcow2", "-o", "size=3M,lazy_refcounts=off", a)
    assert info(a)["virtual-size"] == 3 * MIB and "already" in img("amend", "-f", "qcow2", "-o", "size=1M", a, ok=(1,)).stderr
    assert "not encrypted" in img("amend", "-f", "qcow2", "-o", "encrypt.state=active", a, ok=(1,)).stderr
    assert "nothing to amend" in img("amend", "-f", "raw", "-o", "size=1", raw, ok=(1,)).stderr
    assert "encrypt.new-secret" in img("amend", "-f", "qcow2", "-o", "help").stdout


@pytest.mark.parametrize("how", ["metadata", "falloc", "full"])
def test_preallocated(tmp_path, how):
    """Space is there from the beginning; a qcow2 image reads as zeroes all the same."""
    q, raw = tmp_path / "q", tmp_path / "raw"
    img("create", *S, "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,preallocation=" + how, q, "4M")
    place = "driver=qcow2,encrypt.key-secret=s,file.filename=%s" % q
    raw.write_bytes(bytes(4 * MIB))
    for tool in img, qimg:
        tool("compare", "-s", *S, "--image-opts", place, "driver=raw,file.filename=%s" % raw, ok=(0, 1))
        tool("compare", *S, "--image-opts", place, "driver=raw,file.filename=%s" % raw)
    assert q.stat().st_size >= 4 * MIB + 65536 and (how == "metadata" or q.stat().st_blocks * 512 >= 4 * MIB)
    before = q.stat().st_size
    sparse_file(raw, 4 * MIB)
    img("convert", *S, "-n", "--image-opts", "--target-image-opts", "driver=raw,file.filename=%s" % raw, place)
    qimg("compare", *S, "--image-opts", place, "driver=raw,file.filename=%s" % raw)
    qimg("check", *S, "--image-opts", place)
    assert q.stat().st_size == before           # the data went where its place was
    img("resize", *S, "--image-opts", "--preallocation=" + how, place, "6M")
    qimg("check", *S, "--image-opts", place)
    with open(raw, "r+b") as f:
        f.truncate(6 * MIB)
    qimg("compare", *S, "--image-opts", place, "driver=raw,file.filename=%s" % raw)
    luks = tmp_path / "luks"
    img("create", *S, "-f", "luks", "-o", "%s,preallocation=%s" % (CREATE, how), luks, "4M")
    assert (luks.stat().st_blocks * 512 >= 4 * MIB) == (how != "metadata")
    qimg("compare", *S, "--image-opts", opts(luks), opts(luks))
    assert "rubbish" in img("create", *S, "-f", "qcow2", "-o", "compat=0.10,encrypt.format=luks,encrypt.key-secret=s,preallocation=" + how, tmp_path / "v2", "1M", ok=(1,)).stderr
