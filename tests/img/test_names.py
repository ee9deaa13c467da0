# SPDX-License-Identifier: MIT
"""File names that say a protocol: images over NBD as qemu-img knows them, protocols that are not here, paths with a colon."""
import filecmp
import json
import os
import re
import shutil
import subprocess

import pytest

from imglib import IMG, QEMU, img, info, qimg, run, sparse_file
from test_nbd import SERVE, Server, serve
from test_tls import authority

MIB = 1 << 20


def disk(tmp_path, size=32 * MIB, name="disk"):
    with open(tmp_path / name, "wb") as f:
        f.write(b"\xff" * (2 * MIB))            # nothing of it may be left
        f.truncate(size)
    return tmp_path / name


def test_an_export_is_filled(tmp_path):
    a, d = sparse_file(tmp_path / "a", 8 * MIB, seed=4), disk(tmp_path)
    s = serve(tmp_path, d, "raw")
    img("convert", "-n", "-O", "raw", a, s.uri("disk"))
    assert img("compare", "-f", "raw", "-F", "raw", a, s.uri("disk")).returncode == 0
    img("convert", "-n", "--target-image-opts", a, "driver=raw,file.filename=%s" % s.uri("disk"))
    img("convert", "-n", "--target-image-opts", a, "driver=nbd,server.type=unix,server.path=%s,export=disk" % s.path)
    assert s.end() == 0
    assert d.read_bytes()[:8 * MIB] == a.read_bytes()


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_an_image_is_made_in_an_export_if_that_is_asked_for(tmp_path, fmt):
    a, d = sparse_file(tmp_path / "a", 8 * MIB, seed=5), disk(tmp_path)
    s = serve(tmp_path, d, "raw")
    u = s.uri("disk")
    for cmd in (["create", "-f", fmt, u, "8M"], ["convert", "-O", fmt, a, u], ["dd", "-O", fmt, "if=%s" % a, "of=%s" % u]):
        assert "'nbd'" in img(*cmd, ok=(1,)).stderr
        assert d.read_bytes()[:2 * MIB] == b"\xff" * (2 * MIB)
        img(*cmd, "--force")
        if cmd[0] != "create":
            assert img("compare", "-F", fmt, a, u).returncode == 0
        d.write_bytes(b"\xff" * (2 * MIB))
        os.truncate(d, 32 * MIB)
    img("create", "-f", "raw", u, "64M", "--force", ok=(1,))
    assert s.end() == 0


def test_the_format_of_an_export_is_seen(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "q", "8M")
    s = serve(tmp_path, tmp_path / "q", "raw")
    assert info(s.uri("disk"))["format"] == "qcow2" and info(s.uri("disk"), "-f", "raw")["format"] == "raw"
    img("create", "-f", "qcow2", "-b", s.uri("disk"), "-F", "qcow2", tmp_path / "top")
    assert info(tmp_path / "top")["virtual-size"] == 8 * MIB
    assert s.end() == 0


@pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="no qemu-nbd")
def test_a_look_at_the_format_is_no_connection_of_its_own(tmp_path):
    """qemu-nbd ends with its first client."""
    img("create", "-f", "qcow2", tmp_path / "q", "8M")
    s = Server(tmp_path, ["qemu-nbd", "-f", "raw", "-k", "@SOCK@", tmp_path / "q"])
    assert info(s.uri())["format"] == "qcow2"
    s.end()


@pytest.mark.skipif(not shutil.which("certtool"), reason="no certtool")
def test_an_address_says_tls(tmp_path):
    pki, a, d = authority(tmp_path / "pki"), sparse_file(tmp_path / "a", 8 * MIB, seed=6), disk(tmp_path)
    s = Server(tmp_path, [SERVE, "--object", "tls-creds-x509,dir=%s,id=t,endpoint=server" % pki, "--blockdev",
                          "raw,node-name=n,file.driver=file,file.filename=%s" % d,
                          "--nbd-server", "addr.type=unix,addr.path=@SOCK@,tls-creds=t", "--export", "nbd,id=e,node-name=n,name=disk,writable=on"])
    u = "nbds+unix:///disk?socket=" + s.path
    creds = ["--object", "tls-creds-x509,dir=%s,id=c,endpoint=client" % pki]
    assert "tls-creds is missing" in img("convert", *creds, "-n", a, u, ok=(1,)).stderr
    assert "tls-nonsense" in img("info", *creds, u + "&tls-nonsense=1", ok=(1,)).stderr
    assert "tls-creds" in img("info", *creds, s.uri("disk") + "&tls-creds=c", ok=(1,)).stderr           # not without nbds
    whole = u + "&tls-creds=c&tls-hostname=box.test"
    img("convert", *creds, "-n", "-O", "raw", a, whole)
    img("compare", *creds, a, whole)
    img("convert", *creds, "-n", "--target-image-opts", a, "driver=raw,file.filename=%s,file.tls-creds=c,file.tls-hostname=box.test" % u)
    img("create", *creds, "-f", "qcow2", "-b", whole, "-F", "raw", tmp_path / "top")
    chain = json.loads(img("info", *creds, "--output=json", "--backing-chain", tmp_path / "top").stdout)
    assert chain[1]["virtual-size"] == 32 * MIB
    assert s.end() == 0
    assert d.read_bytes()[:8 * MIB] == a.read_bytes()


def test_an_export_calls_itself_by_its_whole_address(tmp_path):
    """So that a snapshot's image can name it as its backing file."""
    s = Server(tmp_path, [SERVE, "--blockdev", "raw,node-name=n,file.driver=file,file.filename=%s" % disk(tmp_path),
                          "--nbd-server", "addr.type=unix,addr.path=@SOCK@", "--export", "nbd,id=e,node-name=n,name=a b/é?"])
    name = s.uri("a%20b/%C3%A9%3F")
    assert img("map", name).stdout.splitlines()[1].split()[-1] == name
    assert s.end() == 0


LACKS = set(re.findall(r"^  (\w+) \(.*no$", subprocess.run([IMG, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout, re.M))


@pytest.mark.parametrize("name,needs", [("gluster+tcp://host/vol/x", "libgfapi"), ("ftp://host/x", "FTP")] +
                         [x for x in [("ssh://host/x", "libssh"), ("nfs://host/x/y", "libnfs"), ("rbd:pool/image", "librbd")] if x[1] in LACKS])
def test_protocols_of_other_builds(tmp_path, name, needs):
    kind = name.split(":")[0].split("+")[0]
    for cmd in (["info", name], ["create", name, "1M"], ["convert", "null-co://", name]):
        out = img(*cmd, ok=(1,), cwd=tmp_path).stderr
        assert "'%s' is not in this build" % kind in out and needs in out
    assert not list(tmp_path.iterdir())
    bp = os.path.join(os.path.dirname(IMG), "backplane")
    for args in (["-blockdev", kind + ",node-name=x"], ["-drive", "if=none,file=" + name], ["-drive", "if=none,file.locking=off,file=" + name]):
        assert "'%s' is not in this build" % kind in run(bp, "-M", "none", *args, ok=(1,)).stderr


def test_a_path_with_a_colon(tmp_path):
    """As QEMU has it."""
    tools = [img] + ([qimg] if QEMU else [])
    for tool in tools:
        assert "rotocol 'disk'" in tool("create", "disk:1", "1M", ok=(1,), cwd=tmp_path).stderr
        assert not list(tmp_path.iterdir())
        for name in ("./disk:1", "file:disk:1", tmp_path / "disk:1"):
            tool("create", name, "1M", cwd=tmp_path)
            assert json.loads(tool("info", "-f", "raw", "--output=json", name, cwd=tmp_path).stdout)["virtual-size"] == MIB
            (tmp_path / "disk:1").unlink()
    assert "./NAME" in img("info", "flie:x", ok=(1,)).stderr
    a = sparse_file(tmp_path / "a", MIB)
    img("convert", "-O", "raw", a, 'json:{"driver": "file", "filename": "%s"}' % (tmp_path / "b"))
    assert filecmp.cmp(a, tmp_path / "b", shallow=False)


def test_info_tells_the_file_of_an_image_named_by_options(tmp_path):
    """As qemu-img does; with a filter between, the file is not what is shown."""
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "1M")
    name = "json:" + json.dumps({"driver": "qcow2", "file": {"driver": "file", "filename": str(a)}})
    assert info(name)["filename"] == str(a)
    assert info("driver=qcow2,file.filename=%s" % a, "--image-opts")["filename"] == str(a)
    name = "json:" + json.dumps({"driver": "qcow2", "file": {"driver": "blkdebug", "image": {"driver": "file", "filename": str(a)}}})
    assert info(name)["filename"] == name
