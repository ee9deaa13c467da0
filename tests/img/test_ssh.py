# SPDX-License-Identifier: MIT
"""Files of another host: OpenSSH's sshd, started for each connection with keys and options of the test's own, behind a relay that can
hold back what it says, or end it."""
import filecmp
import getpass
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from imglib import IMG, QEMU, img, info, run, sparse_file
from lib.nbd import Client, Cmd
from test_nbd import SERVE, Server, needs

MIB = 1 << 20
ODD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sftp_odd.py")
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
BUILT = "libssh (ssh)             yes" in subprocess.run([IMG, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
pytestmark = [pytest.mark.skipif(not SSHD or not shutil.which("ssh-agent"), reason="no sshd"), pytest.mark.skipif(not BUILT, reason="no libssh")]


class Sshd:
    """@limit: so many bytes of the server's are let through; then ->held is set, and it goes on at ->go, or ends where ->cut says so."""

    def __init__(self, tmp, keys):
        self.tmp, self.keys, self.limit, self.cut, self.calls = tmp, keys, None, False, 0
        self.held, self.go = threading.Event(), threading.Event()
        self.agent(keys / "id")
        self.conf()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def agent(self, key):
        """Another agent, with this key (None: without any)."""
        self.stop_agent()
        place = str(self.tmp / "agent")
        if os.path.exists(place):
            os.unlink(place)
        self.agent_p = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.PIPE)
        self.agent_p.stdout.readline()          # says where it listens, when it does
        self.env = {"SSH_AUTH_SOCK": place}
        if key:
            run("ssh-add", "-q", key, env=self.env)

    def stop_agent(self):
        p = getattr(self, "agent_p", None)
        if p:
            p.terminate()
            p.wait()
            p.stdout.close()

    def conf(self, subsystem="internal-sftp", more=""):
        (self.tmp / "conf").write_text("HostKey %s\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
                                       "PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp %s\n%s\n"
                                       % (self.keys / "host", self.keys / "id.pub", subsystem, more))

    def accept(self):
        while True:
            try:
                conn = self.sock.accept()[0]
            except OSError:
                return
            self.calls += 1
            ours, theirs = socket.socketpair()
            p = subprocess.Popen([SSHD, "-i", "-f", str(self.tmp / "conf"), "-E", str(self.tmp / "log")], stdin=theirs, stdout=theirs)
            theirs.close()
            for args in ((conn, ours, None), (ours, conn, p)):
                self.threads.append(threading.Thread(target=self.relay, args=args))
                self.threads[-1].start()

    def relay(self, a, b, p):
        """From a to b; p: a is this server."""
        left = self.limit if p else None
        try:
            while True:
                if left == 0:
                    self.held.set()
                    if self.cut:
                        p.kill()
                        break
                    self.go.wait()
                    left = None
                data = a.recv(65536 if left is None else min(left, 65536))
                if not data:
                    break
                left = left if left is None else left - len(data)
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if p:
            p.wait()

    def end(self):
        self.stop_agent()
        self.go.set()
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        for t in self.threads:
            t.join(60)

    def url(self, path, check="no"):
        return "ssh://%s@127.0.0.1:%d%s?host_key_check=%s" % (getpass.getuser(), self.port, path, check)

    def opts(self, path, more="", check="host-key-check.mode=none"):
        return "driver=ssh,server.host=127.0.0.1,server.port=%d,user=%s,path=%s,%s%s" % (self.port, getpass.getuser(), path, check, more)

    def img(self, *args, **kw):
        return img(*args, env=self.env, **kw)


@pytest.fixture(name="keys", scope="module")
def make_keys(tmp_path_factory):
    d = tmp_path_factory.mktemp("keys")
    for name in ("host", "id", "other"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", d / name)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)     # where its unprivileged part is at home
    return d


@pytest.fixture(name="far")
def make_sshd(tmp_path, keys):
    s = Sshd(tmp_path, keys)
    yield s
    s.end()


def test_an_image_goes_there_and_back(tmp_path, far):
    raw, there = sparse_file(tmp_path / "raw", 9 * MIB + 1024, seed=8), tmp_path / "a folder%"
    there.mkdir()
    path = far.url(str(there).replace("%", "%25").replace(" ", "%20"))
    at = lambda name: path.replace("?", "/%s?" % name)
    far.img("convert", "-f", "raw", "-O", "raw", raw, at("r"))
    assert filecmp.cmp(raw, there / "r", shallow=False)
    far.img("convert", "-f", "raw", "-O", "raw", at("r"), tmp_path / "back")
    assert filecmp.cmp(raw, tmp_path / "back", shallow=False)
    for more in ((), ("-c",)):
        far.img("convert", "--force", *more, "-f", "raw", "-O", "qcow2", raw, at("q"))
        assert "identical" in far.img("compare", "-f", "raw", "-F", "qcow2", raw, at("q")).stdout
        assert "No errors" in img("check", "-f", "qcow2", there / "q").stdout
    near, remote = (json.loads(far.img("map", "--output=json", "-f", "qcow2", q).stdout) for q in (there / "q", at("q")))
    assert near == remote
    far.img("create", "-f", "qcow2", "-b", "q", "-F", "qcow2", at("top"))        # whose name is seen from its own folder, on the same server
    far.img("convert", "-f", "qcow2", "-O", "raw", "--force", at("top"), tmp_path / "back")
    assert filecmp.cmp(raw, tmp_path / "back", shallow=False)


def test_sizes(tmp_path, far):
    f = tmp_path / "f"
    assert "exists already" in (far.img("create", far.url(f), "1M"), far.img("create", far.url(f), "2M", ok=(1,)))[1].stderr
    assert f.stat().st_size == MIB
    f.write_bytes(b"x" * MIB)
    far.img("create", "--force", far.url(f), "2M")
    assert f.read_bytes() == bytes(2 * MIB)
    far.img("resize", "-f", "raw", far.url(f), "+1M")
    assert f.stat().st_size == 3 * MIB
    far.img("resize", "-f", "raw", "--shrink", far.url(f), "1000")
    assert f.stat().st_size == 1000
    f.write_bytes(b"y" * 1000)
    far.img("convert", "-f", "raw", "-O", "raw", far.url(f), tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == b"y" * 1000 + bytes(24)     # the rest of the last sector reads as zeroes
    assert "cannot create" in far.img("create", far.url(tmp_path / "none" / "f"), "1M", ok=(1,)).stderr
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_opened(tmp_path, far):
    p = far.img("info", far.url("/no/such/file"), ok=(1,))
    assert "cannot open 'ssh://" in p.stderr and "/no/such/file'" in p.stderr and "No such file" in p.stderr
    assert "no plain file" in far.img("info", far.url(tmp_path), ok=(1,)).stderr
    far.conf("/bin/false")
    assert "by SFTP" in far.img("info", far.url(tmp_path / "conf"), ok=(1,)).stderr
    port = far.port
    far.sock.shutdown(socket.SHUT_RDWR)
    far.sock.close()
    far.sock = socket.create_server(("127.0.0.1", 0))
    far.threads.append(threading.Thread(target=far.accept))
    far.threads[-1].start()
    assert "cannot connect to 127.0.0.1:%d" % port in far.img("info", far.url("/f"), ok=(1,)).stderr


def test_a_file_that_can_only_be_read(tmp_path, far):
    f = sparse_file(tmp_path / "f", MIB)
    far.conf("internal-sftp -R")
    assert info(far.url(f), "-f", "raw", env=far.env)["virtual-size"] == MIB
    p = far.img("resize", "-f", "raw", far.url(f), "2M", ok=(1,))
    assert "Permission denied" in p.stderr and "read-only=on" in p.stderr
    assert "cannot create" in far.img("create", far.url(tmp_path / "g"), "1M", ok=(1,)).stderr
    spec = "driver=raw," + ",".join("file." + o for o in far.opts(f, ",auto-read-only=on").split(","))
    assert "read-only" in far.img("resize", "--image-opts", spec, "2M", ok=(1,)).stderr


def test_whose_key(tmp_path, far, keys):
    f = sparse_file(tmp_path / "f", MIB)
    line = run("ssh-keygen", "-l", "-E", "sha256", "-f", keys / "host.pub").stdout.split()[1]
    md5 = run("ssh-keygen", "-l", "-E", "md5", "-f", keys / "host.pub").stdout.split()[1][4:]
    assert info(far.url(f, "md5:" + md5), "-f", "raw", env=far.env)["virtual-size"] == MIB
    far.img("info", "-f", "raw", far.url(f, "md5:" + md5.replace(":", "").upper()))
    far.img("info", "-f", "raw", far.url(f, "sha256:" + line[7:]))
    p = far.img("info", far.url(f, "sha1:" + "ab" * 20), ok=(1,))
    assert "the sha1 hash of the server's key is" in p.stderr and "not abab" in p.stderr
    right = p.stderr.split("key is ")[1].split(",")[0]
    far.img("info", "--image-opts", far.opts(f, check="host-key-check.mode=hash,host-key-check.type=sha1,host-key-check.hash=" + right))
    for bad in (right[:-2], right + "00", right[:-1] + "g", ""):
        assert "the sha1 hash" in far.img("info", far.url(f, "sha1:" + bad), ok=(1,)).stderr
    assert "needs host-key-check.hash" in far.img("info", "--image-opts", far.opts(f, check="host-key-check.mode=hash"), ok=(1,)).stderr
    assert "no way to check" in far.img("info", far.url(f, "perhaps"), ok=(1,)).stderr


def test_who_logs_in(tmp_path, far, keys):
    f = sparse_file(tmp_path / "f", MIB)
    for key in (keys / "other", None):
        far.agent(key)
        p = far.img("info", far.url(f), ok=(1,))
        assert "cannot log in as %s" % getpass.getuser() in p.stderr and "ssh-add" in p.stderr
    far.conf(more="PubkeyAuthentication no\nPasswordAuthentication yes")
    assert "does not take keys" in far.img("info", far.url(f), ok=(1,)).stderr


def at_home(home):
    """Words before a command that has a home there: libraries ask the list of users for it, not the environment."""
    me = pwd.getpwuid(os.getuid())
    (home / "passwd").write_text("%s:x:%d:%d::%s:/bin/sh\n" % (me.pw_name, me.pw_uid, me.pw_gid, home))
    words = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/passwd && exec "$@"', str(home / "passwd")]
    return words if not subprocess.run(words + ["true"], stderr=subprocess.DEVNULL, check=False).returncode else None


def test_files_of_keys(tmp_path, far, keys):
    """Keys of files, and known_hosts."""
    f, home = sparse_file(tmp_path / "f", MIB), tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    words = at_home(home)
    if not words:
        pytest.skip("no mounts of its own")
    ask = lambda ok, env=None: run(*words, IMG, "info", "-f", "raw", far.url(f, "yes"), ok=(ok,), env=env or far.env)
    assert "known_hosts" in ask(1).stderr          # which is not there
    known, name = home / ".ssh" / "known_hosts", "[127.0.0.1]:%d " % far.port
    known.write_text("elsewhere " + (keys / "host.pub").read_text())
    p = ask(1)
    assert "is not in known_hosts" in p.stderr and "SHA256:" in p.stderr
    known.write_text(name + (keys / "other.pub").read_text())
    assert "another than known_hosts has" in ask(1).stderr
    known.write_text(name + (keys / "host.pub").read_text())
    ask(0)
    none = {"SSH_AUTH_SOCK": str(tmp_path / "nobody")}
    assert "cannot log in" in ask(1, none).stderr
    shutil.copy(keys / "id", home / ".ssh" / "id_ed25519")
    shutil.copy(keys / "id.pub", home / ".ssh" / "id_ed25519.pub")
    ask(0, none)
    (home / ".ssh" / "id_ed25519").rename(home / ".ssh" / "special")
    (home / ".ssh" / "config").write_text("Host 127.0.0.1\n  IdentityFile %s\n  Port 1\n" % (home / ".ssh" / "special"))
    ask(0, none)                # ... and what was said comes before the file's


@pytest.mark.parametrize("text,says", [
    ("ssh:///x", "names no host"), ("ssh://h", "path is empty"), ("ssh://u:p@h/x", "password"), ("ssh://h/x?a=b", "has no 'a'"),
    ("ssh://h/x%00y", "no address"), ("ssh://h:no-such-port/x", "no-such-port")])
def test_addresses_that_do_not_do(text, says):
    assert says in img("info", text, ok=(1,)).stderr


def test_a_connection_is_lost(tmp_path, far):
    sparse_file(tmp_path / "f", 8 * MIB)
    (tmp_path / "f").write_bytes(os.urandom(8 * MIB))
    far.limit, far.cut = 3 * MIB, True
    p = far.img("convert", "-f", "raw", "-O", "raw", far.url(tmp_path / "f"), tmp_path / "o", ok=(1,))
    assert "the connection to 'ssh://" in p.stderr and "%s' is lost: " % (tmp_path / "f") in p.stderr and "error while reading" in p.stderr
    assert not (tmp_path / "o").exists()


@needs["nbdcopy"]
def test_nobody_waits_for_a_server_that_is_silent(tmp_path, far, monkeypatch):
    """Only who asked it does, and goes on when it answers."""
    data = os.urandom(4 * MIB)
    for name in ("f", "g"):
        (tmp_path / name).write_bytes(data)
    far.limit = MIB
    monkeypatch.setenv("SSH_AUTH_SOCK", far.env["SSH_AUTH_SOCK"])
    s = Server(tmp_path, [SERVE, "--blockdev", far.opts(tmp_path / "f", ",read-only=on,node-name=f"), "--blockdev",
                          "file,node-name=g,filename=%s,read-only=on" % (tmp_path / "g"), "--nbd-server", "addr.type=unix,addr.path=@SOCK@",
                          "--export", "nbd,id=f,node-name=f", "--export", "nbd,id=g,node-name=g"])
    p = subprocess.Popen(["nbdcopy", s.uri("f"), str(tmp_path / "slow")])
    assert far.held.wait(60)
    run("nbdcopy", s.uri("g"), tmp_path / "fast")
    assert (tmp_path / "fast").read_bytes() == data and p.poll() is None
    far.go.set()
    assert p.wait(60) == 0 and (tmp_path / "slow").read_bytes() == data
    assert far.calls == 1
    s.end()


def test_the_program_ends_whatever_a_server_does(tmp_path, far, monkeypatch):
    """With a read on its way, of which the server sends a part."""
    (tmp_path / "f").write_bytes(bytes(4 * MIB))
    far.limit = MIB
    monkeypatch.setenv("SSH_AUTH_SOCK", far.env["SSH_AUTH_SOCK"])
    s = Server(tmp_path, [SERVE, "--blockdev", far.opts(tmp_path / "f", ",read-only=on,node-name=f"), "--nbd-server", "addr.type=unix,addr.path=@SOCK@",
                          "--export", "nbd,id=f,node-name=f"])
    with Client(s.path) as c:
        c.go("f")
        c.send(Cmd.READ, 0, 4 * MIB)
        assert far.held.wait(60)
        s.p.terminate()
    assert s.p.wait(240) == 0
    with open(s.log.name) as f:
        assert "'f' does not answer, and the program ends" in f.read()


def odd(far, how):
    far.conf("%s %s %s" % (sys.executable, ODD, how))


@pytest.mark.parametrize("how", ["old", "short", "late"])
def test_odd_servers(tmp_path, far, how):
    """Answers come in any order and as short as the server likes; many requests are on their way at a time."""
    (tmp_path / "f").write_bytes(os.urandom(8 * MIB + (100 if how != "late" else 0)))
    odd(far, how)
    far.img("convert", "-m", "8", "-f", "raw", "-O", "raw", far.url(tmp_path / "f"), tmp_path / "o")
    data = (tmp_path / "f").read_bytes()
    assert (tmp_path / "o").read_bytes() == data + bytes(-len(data) % 512)


def test_what_cannot_be_flushed_is_told(tmp_path, far):
    raw = sparse_file(tmp_path / "raw", MIB)
    odd(far, "old")
    p = far.img("convert", "-t", "writeback", "-f", "raw", "-O", "raw", raw, far.url(tmp_path / "f"))
    assert p.stderr.count("does not know fsync@openssh.com") == 1 and filecmp.cmp(raw, tmp_path / "f", shallow=False)
    far.conf()
    assert not far.img("convert", "-t", "writeback", "--force", "-f", "raw", "-O", "raw", raw, far.url(tmp_path / "f")).stderr


def test_what_a_server_says(tmp_path, far):
    (tmp_path / "raw").write_bytes(os.urandom(MIB))
    odd(far, "full")
    p = far.img("convert", "-f", "raw", "-O", "raw", tmp_path / "raw", far.url(tmp_path / "f"), ok=(1,))
    assert "the server refuses to write" in p.stderr and "there is no room?" in p.stderr and "error while writing" in p.stderr
    odd(far, "rubbish")
    p = far.img("convert", "-f", "raw", "-O", "raw", far.url(tmp_path / "raw"), tmp_path / "o", ok=(1,))
    assert "is lost: it does not speak the file transfer protocol well" in p.stderr


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_with_qemu(tmp_path, far):
    """QEMU's tool opens the same addresses."""
    raw = sparse_file(tmp_path / "raw", 3 * MIB)
    p = run("qemu-img", "create", far.url(tmp_path / "probe"), "1M", env=far.env, ok=(0, 1))
    if "Unknown protocol" in p.stderr:
        pytest.skip("qemu-img has no ssh")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, far.url(tmp_path / "q"), env=far.env)
    assert "identical" in far.img("compare", "-f", "raw", "-F", "qcow2", raw, far.url(tmp_path / "q")).stdout
    far.img("create", "-f", "qcow2", "-b", far.url(tmp_path / "q"), "-F", "qcow2", tmp_path / "top")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "top", tmp_path / "o", env=far.env)
    assert filecmp.cmp(raw, tmp_path / "o", shallow=False)
