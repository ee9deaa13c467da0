# SPDX-License-Identifier: MIT
"""TLS, both sides: NBD with certificates, shared keys and neither, and character devices. The peers are libnbd's, nbdkit's and QEMU's programs,
and Python."""
import filecmp
import json
import shutil
import socket
import ssl
import struct
import subprocess

import pytest

from imglib import IMG, QEMU, img, run, sparse_file
from lib.nbd import take
from test_nbd import SERVE, Server

pytestmark = pytest.mark.skipif(not shutil.which("certtool") or not shutil.which("nbdinfo"), reason="no certtool or nbdinfo")
MIB = 1 << 20


def certtool(folder, *args):
    subprocess.run(["certtool", *args], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def authority(folder):
    """A folder with an authority, and certificates of a server "box.test" and of a client."""
    folder.mkdir()
    (folder / "ca.t").write_text("cn = CA\nca\ncert_signing_key\n")
    (folder / "server.t").write_text("cn = box.test\ndns_name = box.test\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n")
    (folder / "client.t").write_text("cn = visitor\ntls_www_client\nencryption_key\nsigning_key\n")
    for who in ("ca", "server", "client"):
        certtool(folder, "--generate-privkey", "--key-type", "ecdsa", "--outfile", who + "-key.pem")
    certtool(folder, "--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.t", "--outfile", "ca-cert.pem")
    for who in ("server", "client"):
        certtool(folder, "--generate-certificate", "--load-ca-certificate", "ca-cert.pem", "--load-ca-privkey", "ca-key.pem",
                 "--load-privkey", who + "-key.pem", "--template", who + ".t", "--outfile", who + "-cert.pem")
    return folder


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("pki") / "a")


def serve(tmp_path, image, creds):
    return Server(tmp_path, [SERVE, "--object", creds + ",id=t,endpoint=server", "--blockdev",
                             "driver=raw,node-name=n,file.driver=file,file.filename=%s" % image,
                             "--nbd-server", "addr.type=unix,addr.path=@SOCK@,tls-creds=t",
                             "--export", "nbd,id=e,node-name=n,name=disk,writable=on"])


def client(tool, path, creds, *cmd, more="", export="disk", ok=(0,)):
    """TOOL works on the export through TLS."""
    opts = "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=%s,file.export=%s,file.tls-creds=t%s" % (path, export, more)
    words = [opts if c == "@" else c for c in cmd]
    return run(tool, words[0], "--object", creds + ",id=t,endpoint=client", *words[1:], ok=ok)


def x509(pki):
    return "tls-creds-x509,dir=%s" % pki


def uri(s, pki, scheme="nbds+unix", more=""):
    return "%s:///disk?socket=%s&tls-certificates=%s&tls-hostname=box.test%s" % (scheme, s.path, pki, more)


def test_libnbd_copies_both_ways(tmp_path, pki):
    a, b, c = sparse_file(tmp_path / "a", 8 * MIB, seed=3), tmp_path / "b", tmp_path / "c"
    with open(b, "wb") as f:
        f.truncate(8 * MIB)
    s = serve(tmp_path, b, x509(pki))
    x = json.loads(run("nbdinfo", "--json", uri(s, pki)).stdout)
    assert x["TLS"] is True and x["exports"][0]["export-size"] == 8 * MIB
    run("nbdcopy", a, uri(s, pki))
    run("nbdcopy", uri(s, pki), c)
    assert s.end() == 0
    assert filecmp.cmp(a, b, shallow=False) and filecmp.cmp(a, c, shallow=False)


def test_nothing_is_told_without_tls(tmp_path, pki):
    a = sparse_file(tmp_path / "a", MIB)
    s = serve(tmp_path, a, x509(pki))
    assert "TLS" in img("info", s.uri("disk"), ok=(1,)).stderr
    run("nbdinfo", "--list", s.uri("disk"), ok=(1,))
    run("nbdinfo", s.uri("disk"), ok=(1,))
    with socket.socket(socket.AF_UNIX) as c:            # the old option gets no answer, others a refusal
        c.connect(s.path)
        c.settimeout(10)
        take(c, 18)
        c.sendall(struct.pack(">I", 1) + struct.pack(">8sII", b"IHAVEOPT", 3, 0))
        head = take(c, 20)
        assert struct.unpack(">QIII", head)[1:3] == (3, 0x80000005)
        take(c, struct.unpack(">I", head[16:])[0])
        c.sendall(struct.pack(">8sII", b"IHAVEOPT", 1, 4) + b"disk")
        assert c.recv(1) == b""
    s.end()


def test_who_the_other_is_counts(tmp_path, pki):
    a = sparse_file(tmp_path / "a", MIB)
    s = serve(tmp_path, a, x509(pki))
    other = authority(tmp_path / "other")
    no_client = tmp_path / "anonymous"
    no_client.mkdir()
    shutil.copy(pki / "ca-cert.pem", no_client)
    host = ",file.tls-hostname=box.test"
    client(IMG, s.path, x509(pki), "info", "--image-opts", "@", more=host)
    assert "whose certificate" in client(IMG, s.path, x509(pki), "info", "--image-opts", "@", ok=(1,)).stderr
    p = client(IMG, s.path, x509(pki), "info", "--image-opts", "@", more=",file.tls-hostname=other.test", ok=(1,))
    assert "not accepted" in p.stderr and "other.test" in p.stderr
    assert "not accepted" in client(IMG, s.path, x509(other), "info", "--image-opts", "@", more=host, ok=(1,)).stderr
    client(IMG, s.path, x509(no_client), "info", "--image-opts", "@", more=host, ok=(1,))
    client(IMG, s.path, x509(other) + ",verify-peer=off", "info", "--image-opts", "@", ok=(1,))     # the server looks, too
    run("nbdinfo", uri(s, pki))                         # and serves on
    assert s.end() == 0


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
@pytest.mark.parametrize("kind", ["x509", "psk", "anon"])
def test_qemu_and_we_understand_each_other(tmp_path, pki, kind):
    (tmp_path / "keys.psk").write_text("other:00\nqemu:6e6f74206120736563726574206b6579\n")
    creds = {"x509": x509(pki), "psk": "tls-creds-psk,dir=%s" % tmp_path, "anon": "tls-creds-anon"}[kind]
    a = sparse_file(tmp_path / "a", 4 * MIB)
    s = serve(tmp_path, a, creds)
    host = ",file.tls-hostname=box.test" if kind == "x509" else ""
    for tool in (IMG, "qemu-img"):
        client(tool, s.path, creds, "convert", "--image-opts", "@", "-O", "raw", str(tmp_path / "out"), *(["--force"] if tool == IMG else []), more=host)
        assert filecmp.cmp(a, tmp_path / "out", shallow=False)
    s.end()
    q = Server(tmp_path, ["qemu-nbd", "-t", "-k", "@SOCK@", "-f", "raw", "-x", "disk", "--object", creds + ",id=t,endpoint=server",
                          "--tls-creds", "t", a], "q")
    client(IMG, q.path, creds, "convert", "--image-opts", "@", "-O", "raw", str(tmp_path / "out"), "--force", more=host)
    assert filecmp.cmp(a, tmp_path / "out", shallow=False)
    assert "requires TLS" in img("info", q.uri("disk"), ok=(1,)).stderr
    q.end()


@pytest.mark.skipif(not shutil.which("nbdkit"), reason="no nbdkit")
def test_nbdkit_with_certificates_and_with_keys(tmp_path, pki):
    a = sparse_file(tmp_path / "a", 2 * MIB)
    for name, more, creds in (("k", ["--tls-certificates", pki, "--tls-verify-peer"], x509(pki)),
                              ("p", ["--tls-psk", tmp_path / "keys.psk"], "tls-creds-psk,dir=%s" % tmp_path)):
        (tmp_path / "keys.psk").write_text("qemu:6e6f74206120736563726574206b6579\n")
        s = Server(tmp_path, ["nbdkit", "-f", "-U", "@SOCK@", "--tls=require", *more, "file", a], name)
        client(IMG, s.path, creds, "convert", "--image-opts", "@", "-O", "raw", str(tmp_path / "out"), "--force", export="",
               more=",file.tls-hostname=box.test")
        assert filecmp.cmp(a, tmp_path / "out", shallow=False)
        s.end()


def test_mistakes_are_told(tmp_path, pki):
    def fails(creds, text):
        p = client(IMG, "/nonexistent", creds, "info", "--image-opts", "@", ok=(1,))
        assert text in p.stderr, p.stderr
    fails("tls-creds-x509,dir=%s" % tmp_path, "ca-cert.pem")
    fails("tls-creds-psk,dir=%s" % tmp_path, "keys.psk")
    fails(x509(pki) + ",priority=NO-SUCH-THING", "priority")
    bad = tmp_path / "bad"
    shutil.copytree(pki, bad)
    other = authority(tmp_path / "other")
    shutil.copy(other / "client-cert.pem", bad)
    shutil.copy(other / "client-key.pem", bad)
    fails(x509(bad), "client-cert.pem is not one that")
    p = run(IMG, "info", "--object", x509(pki) + ",id=t,endpoint=server", "--image-opts",
            "driver=nbd,server.type=unix,server.path=/x,tls-creds=t", ok=(1,))
    assert "are for a server" in p.stderr and "endpoint=client" in p.stderr
    p = run(IMG, "info", "--image-opts", "driver=nbd,server.type=unix,server.path=/x,tls-hostname=h", ok=(1,))
    assert "tls-hostname has no effect" in p.stderr


def test_secrets(tmp_path):
    """How a secret is written; that it is the right one is seen by encrypted keys."""
    def fails(text, *args):
        cmd = [w for a in args for w in ("--object", a)]
        p = run(IMG, "info", *cmd, "/nonexistent", ok=(1,))
        assert text in p.stderr, p.stderr
    key = "secret,id=k,format=base64,data=" + "A" * 43 + "="
    fails("exclude", "secret,id=s,data=x,file=y")
    fails("missing", "secret,id=s")
    fails("Base64", "secret,id=s,format=base64,data=***")
    fails("no object with the id 'k'", "secret,id=s,data=AAAA,format=base64,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==")
    fails("iv is 16 bytes", key, "secret,id=s,data=AAAA,format=base64,keyid=k")
    fails("multiple of 16", key, "secret,id=s,data=AAAA,format=base64,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==")
    fails("cannot be decrypted", key, "secret,id=s,data=AAAAAAAAAAAAAAAAAAAAAA==,format=base64,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==")
    fails("cannot open", "secret,id=s,file=/nonexistent")


class Monitor:
    """QMP through TLS, over a connected socket."""

    def __init__(self, sock):
        self.s = sock
        self.s.settimeout(20)
        self.f = self.s.makefile("rw", newline="\n")
        assert "QMP" in json.loads(self.f.readline())
        self.ask("qmp_capabilities")

    def send(self, *cmds):
        self.f.write("".join('{"execute": "%s"}\n' % c for c in cmds))
        self.f.flush()

    def ask(self, cmd):
        self.send(cmd)
        return json.loads(self.f.readline())["return"]


def context(pki, server):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(pki / "ca-cert.pem")
    who = "server" if server else "client"
    c.load_cert_chain(pki / (who + "-cert.pem"), pki / (who + "-key.pem"))
    return c


def test_a_monitor_through_tls(tmp_path, pki):
    s = Server(tmp_path, [SERVE, "--object", x509(pki) + ",id=t,endpoint=server", "--chardev",
                          "socket,id=m,path=@SOCK@,server=on,wait=off,tls-creds=t", "--monitor", "m"])
    with socket.socket(socket.AF_UNIX) as plain:        # is not let in, and does not stay in the way
        plain.connect(s.path)
        plain.settimeout(20)
        plain.sendall(b'{"execute": "quit"}\n' * 10)
        assert b"QMP" not in plain.recv(1000)
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(s.path)
    m = Monitor(context(pki, False).wrap_socket(raw, server_hostname="box.test"))
    assert len(m.ask("query-qmp-schema")) > 100         # more than a socket takes at once
    m.send(*["query-block-exports"] * 500)              # more than is read at once
    for _ in range(500):
        assert json.loads(m.f.readline())["return"] == []
    m.f.close()
    m.s.close()
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(s.path)
    again = Monitor(context(pki, False).wrap_socket(raw, server_hostname="box.test"))
    again.f.close()
    again.s.close()
    assert s.end() == 0


@pytest.mark.parametrize("host,fits", [("127.0.0.1", True), ("localhost", False)])
def test_a_monitor_that_calls(tmp_path, pki, host, fits):
    """The certificate is good for the address, but not for the name."""
    with socket.create_server(("127.0.0.1", 0)) as listener, open(tmp_path / "log", "w+") as log:
        listener.settimeout(20)
        p = subprocess.Popen([SERVE, "--object", x509(pki) + ",id=t,endpoint=client", "--chardev", "socket,id=m,host=%s,port=%d,tls-creds=t,ipv4=on"
                              % (host, listener.getsockname()[1]), "--monitor", "m"], stderr=log)
        raw, _ = listener.accept()
        if fits:
            m = Monitor(context(pki, True).wrap_socket(raw, server_side=True))
            m.send("quit")
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context(pki, True).wrap_socket(raw, server_side=True).recv(1)
            p.terminate()
        p.wait(20)
        log.seek(0)
        assert fits or "not accepted" in log.read()
