# SPDX-License-Identifier: MIT
"""Files of an NFS server: NFS-Ganesha, with a port mapper, in a network of the test's own, where their ports are free."""
import filecmp
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from imglib import IMG, QEMU, img, run, sparse_file
from lib.nbd import Client, Cmd
from test_nbd import SERVE, Server, needs

MIB = 1 << 20
SCALE = int(os.environ.get("BP_TIMEOUT_SCALE", "1"))
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
TOOLS = [shutil.which(t, path=PATH) for t in ("ganesha.nfsd", "rpcbind", "unshare", "nsenter", "ip", "mount")]
BUILT = "libnfs (nfs)             yes" in subprocess.run([IMG, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
pytestmark = [pytest.mark.skipif(not all(TOOLS), reason="no nfs-ganesha"), pytest.mark.skipif(not BUILT, reason="no libnfs")]

CONF = """NFS_CORE_PARAM { NFS_Protocols = 3,4; Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { RecoveryRoot = %(tmp)s/state; Graceless = true; Lease_Lifetime = 10; Only_Numeric_Owners = true; }
NFS_KRB5 { Active_krb5 = false; }
EXPORT_DEFAULTS { Squash = None; SecType = sys; Transports = TCP; Protocols = 3,4; }
EXPORT { Export_Id = 1; Path = %(tmp)s/rw; Pseudo = %(tmp)s/rw; Access_Type = RW; FSAL { Name = VFS; } }
EXPORT { Export_Id = 2; Path = %(tmp)s/ro; Pseudo = %(tmp)s/ro; Access_Type = RO; FSAL { Name = VFS; } }
EXPORT { Export_Id = 3; Path = %(tmp)s/small; Pseudo = %(tmp)s/small; Access_Type = RW; FSAL { Name = VFS; } }
"""


class Ganesha:
    def __init__(self, tmp):
        self.tmp = tmp
        for d in ("rw", "ro", "small", "state"):
            (tmp / d).mkdir()
        (tmp / "conf").write_text(CONF % {"tmp": tmp})
        # Everything in it ends with the shell, which ends with its input.
        self.shell = subprocess.Popen(["unshare", "-n", "-m", "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                      env=dict(os.environ, PATH=PATH))
        self.p = None
        try:
            self.ask("mount -t tmpfs none /run && mkdir /run/rpcbind && mount -t tmpfs -o size=2M none %s/small && ip link set lo up" % tmp)
        except (AssertionError, BrokenPipeError):
            self.shell.communicate()
            pytest.skip("no networks and mounts of its own")
        self.words = ["nsenter", "--net=/proc/%d/ns/net" % self.shell.pid]
        self.mapper = subprocess.Popen(self.inside("rpcbind", "-f"))
        self.until(111)
        self.start()

    def inside(self, *words):
        return ["nsenter", "-t", str(self.shell.pid), "-n", "-m", "env", "PATH=" + PATH] + [str(w) for w in words]

    def ask(self, command):
        self.shell.stdin.write(command + "; echo done $?\n")
        self.shell.stdin.flush()
        lines = []
        while not lines or not lines[-1].startswith("done "):
            line = self.shell.stdout.readline()
            assert line, lines
            lines.append(line)
        assert lines[-1] == "done 0\n", lines

    def until(self, port):
        """Somebody listens on it: /proc/PID/net/tcp of a process in that network; state 0A (Linux, net/tcp_states.h)."""
        end = time.monotonic() + 60 * SCALE
        while True:
            for name in ("tcp", "tcp6"):
                with open("/proc/%d/net/%s" % (self.shell.pid, name)) as f:
                    if any(w[1].endswith(":%04X" % port) and w[3] == "0A" for w in map(str.split, f) if len(w) > 3):
                        return
            assert time.monotonic() < end and (not self.p or self.p.poll() is None), (self.tmp / "log").read_text()
            time.sleep(0.02)

    def start(self):
        self.p = subprocess.Popen(self.inside("ganesha.nfsd", "-F", "-f", self.tmp / "conf", "-L", self.tmp / "log", "-p", self.tmp / "pid"))
        self.until(2049)

    def kill(self):
        self.p.send_signal(signal.SIGKILL)
        self.p.wait()

    def end(self):
        self.kill()
        self.mapper.terminate()
        self.mapper.wait()
        self.shell.communicate()

    def img(self, *args, **kw):
        return run(*self.words, IMG, *args, **kw)

    def url(self, name, more="", folder="rw"):
        return "nfs://127.0.0.1%s/%s/%s%s" % (self.tmp, folder, name, more)

    def opts(self, name, more="", folder="rw"):
        return "driver=nfs,server.type=inet,server.host=127.0.0.1,path=%s/%s/%s%s" % (self.tmp, folder, name, more)


@pytest.fixture(name="far", scope="module")
def make_ganesha(tmp_path_factory):
    g = Ganesha(tmp_path_factory.mktemp("nfs"))
    yield g
    g.end()


@pytest.mark.parametrize("more", ["", "?version=4", "?nfsport=2049&uid=0&gid=0&readahead=131072&pagecache=64"])
def test_an_image_goes_there_and_back(tmp_path, far, more):
    raw = sparse_file(tmp_path / "raw", 9 * MIB + 1024, seed=8)
    far.img("convert", "--force", "-f", "raw", "-O", "raw", raw, far.url("r%20%25", more))
    assert filecmp.cmp(raw, far.tmp / "rw" / "r %", shallow=False)
    far.img("convert", "-f", "raw", "-O", "raw", far.url("r%20%25", more), tmp_path / "back")
    assert filecmp.cmp(raw, tmp_path / "back", shallow=False)
    for comp in ((), ("-c",)):
        far.img("convert", "--force", *comp, "-f", "raw", "-O", "qcow2", raw, far.url("q", more))
        assert "identical" in far.img("compare", "-f", "raw", "-F", "qcow2", raw, far.url("q", more)).stdout
        assert "No errors" in img("check", "-f", "qcow2", far.tmp / "rw" / "q").stdout
    near, remote = (json.loads(far.img("map", "--output=json", "-f", "qcow2", q).stdout) for q in (far.tmp / "rw" / "q", far.url("q", more)))
    assert near == remote
    far.img("create", "--force", "-f", "qcow2", "-b", "q", "-F", "qcow2", far.url("top", more))
    far.img("convert", "--force", "-f", "qcow2", "-O", "raw", far.url("top", more), tmp_path / "back")
    assert filecmp.cmp(raw, tmp_path / "back", shallow=False)


@pytest.mark.parametrize("more", ["", "?version=4"])
def test_sizes(tmp_path, far, more):
    f = far.tmp / "rw" / ("sizes" + more)
    url = far.url(f.name.replace("?", "%3F"), more)
    far.img("create", url, "1M")
    assert f.stat().st_size == MIB and "exists already" in far.img("create", url, "2M", ok=(1,)).stderr
    (tmp_path / "raw").write_bytes(os.urandom(MIB))
    far.img("convert", "-t", "writeback", "--force", "-f", "raw", "-O", "raw", tmp_path / "raw", url)
    used = json.loads(far.img("info", "-f", "raw", "--output=json", url).stdout)["actual-size"]
    assert used == f.stat().st_blocks * 512 >= MIB
    far.img("create", "--force", url, "2M")
    assert f.read_bytes() == bytes(2 * MIB)
    far.img("resize", "-f", "raw", url, "+1M")
    far.img("resize", "-f", "raw", "--shrink", url, "1000")
    assert f.stat().st_size == 1000
    with open(f, "wb") as out:
        out.write(b"y" * 1000)
    far.img("convert", "-f", "raw", "-O", "raw", url, tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == b"y" * 1000 + bytes(24)


def test_what_cannot_be_opened(tmp_path, far):
    p = far.img("info", far.url("none"), ok=(1,))
    assert "cannot open 'nfs://127.0.0.1%s/rw/none': " % far.tmp in p.stderr and "NFS3ERR_NOENT" in p.stderr
    p = far.img("info", far.url("x", folder="not-there"), ok=(1,))
    assert "cannot mount the folder of 'nfs://127.0.0.1" in p.stderr and "MNT3ERR_" in p.stderr
    assert "ISDIR" in far.img("info", "nfs://127.0.0.1%s/rw?version=4" % far.tmp, ok=(1,)).stderr
    sparse_file(far.tmp / "rw" / "mine", MIB)
    os.chmod(far.tmp / "rw" / "mine", 0o600)
    far.img("info", "-f", "raw", far.url("mine"))
    p = far.img("info", "-f", "raw", far.url("mine", "?uid=4711&gid=4711"), ok=(1,))
    assert "cannot open" in p.stderr and "user=UID,group=GID" in p.stderr
    # Outside, nobody listens on that port.
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    assert "cannot mount the folder of 'nfs://127.0.0.1/a/b'" in img("info", "nfs://127.0.0.1/a/b?version=4&nfsport=%d" % port, ok=(1,)).stderr


def test_a_file_that_can_only_be_read(far):
    sparse_file(far.tmp / "ro" / "f", MIB)
    far.img("info", "-f", "raw", far.url("f", folder="ro"))
    p = far.img("resize", "-f", "raw", far.url("f", folder="ro"), "2M", ok=(1,))
    assert "cannot open 'nfs://" in p.stderr and "read-only=on" in p.stderr
    spec = "driver=raw," + ",".join("file." + o for o in far.opts("f", ",auto-read-only=on", "ro").split(","))
    assert "is read-only" in far.img("resize", "--image-opts", spec, "2M", ok=(1,)).stderr
    assert "cannot create" in far.img("create", far.url("g", folder="ro"), "1M", ok=(1,)).stderr


@pytest.mark.parametrize("more", ["", "?version=4"])
def test_there_is_no_room(tmp_path, far, more):
    (tmp_path / "raw").write_bytes(os.urandom(4 * MIB))
    p = far.img("convert", "-f", "raw", "-O", "raw", tmp_path / "raw", far.url("f", more, "small"), ok=(1,))
    assert "'nfs://127.0.0.1%s/small/f': cannot write " % far.tmp in p.stderr and "NOSPC" in p.stderr
    assert "No space left" in p.stderr and "error while writing" in p.stderr
    far.ask("test ! -e %s/small/f" % far.tmp)               # half an image is none


@pytest.mark.parametrize("text,says", [
    ("nfs:///x/y", "names no host"), ("nfs://h", "names no file"), ("nfs://h/", "names no file"), ("nfs://h/x", None), ("nfs://h/a/b?c=1", "has no 'c'"),
    ("nfs://h/a/b?uid", "has no 'uid'"), ("nfs://h/a/b?uid=x", "user"), ("nfs://h:1/a/b", "nfsport"), ("nfs://h/a/b?version=5", "version"),
    ("nfs://h/a/b?debug=3", "debug")])
def test_addresses_that_do_not_do(text, says):
    err = img("info", text, ok=(1,)).stderr
    assert says is None or says in err, err


def test_options_that_do_nothing(far):
    p = far.img("info", "--image-opts", far.opts("f", ",readahead-size=4096,cache.direct=on", "ro"), ok=(1,))
    assert "readahead-size has no effect with cache.direct=on" in p.stderr


def served(tmp_path, far, name, more=""):
    """The server caches what it knows of a file: each test has one of its own."""
    return Server(tmp_path, far.words + [SERVE, "--blockdev", far.opts(name, ",read-only=on,node-name=f" + more, "ro"), "--blockdev",
                                           "file,node-name=g,filename=%s/ro/%s,read-only=on" % (far.tmp, name), "--nbd-server", "addr.type=unix,addr.path=@SOCK@",
                                           "--export", "nbd,id=f,node-name=f", "--export", "nbd,id=g,node-name=g"])


def log_has(s, text):
    end = time.monotonic() + 60 * SCALE
    while text not in open(s.log.name).read():
        assert time.monotonic() < end, open(s.log.name).read()
        time.sleep(0.02)


@needs["nbdcopy"]
def test_a_server_that_comes_back(tmp_path, far):
    """What is asked waits for it, and nobody else does."""
    data = os.urandom(4 * MIB)
    (far.tmp / "ro" / "back").write_bytes(data)
    s = served(tmp_path, far, "back")
    far.kill()
    try:
        log_has(s, "the connection to 'nfs://127.0.0.1%s/ro/back' is lost: " % far.tmp)
        p = subprocess.Popen(["nbdcopy", s.uri("f"), str(tmp_path / "slow")])
        run("nbdcopy", s.uri("g"), tmp_path / "fast")
        assert p.poll() is None
    finally:
        far.start()
    assert p.wait(120 * SCALE) == 0
    assert (tmp_path / "slow").read_bytes() == data and "is back" in open(s.log.name).read()
    s.end()


@needs["nbdcopy"]
@pytest.mark.parametrize("more,says", [(",reconnect-timeout=1", "did not come back in time"), (",version=4", "is lost: ")])
def test_a_server_that_does_not(tmp_path, far, more, says):
    (far.tmp / "ro" / "gone").write_bytes(os.urandom(MIB))
    s = served(tmp_path, far, "gone", more)
    far.kill()
    try:
        run("nbdcopy", s.uri("f"), tmp_path / "o", ok=(1,))
        log_has(s, says)
    finally:
        far.start()
    run("nbdcopy", s.uri("f"), tmp_path / "o", ok=(1,))
    run("nbdcopy", s.uri("g"), tmp_path / "o")
    assert s.end() == 0


@needs["nbdcopy"]
def test_a_server_that_is_silent(tmp_path, far):
    """It holds the connection and answers nothing: requests end, and so does the program."""
    (far.tmp / "ro" / "still").write_bytes(os.urandom(MIB))
    s = served(tmp_path, far, "still", ",timeout=1")
    far.p.send_signal(signal.SIGSTOP)
    try:
        run("nbdcopy", s.uri("f"), tmp_path / "o", ok=(1,))
        log_has(s, "the server did not answer in 1 seconds")
        assert s.end() == 0
    finally:
        far.p.send_signal(signal.SIGCONT)


def test_the_program_ends_whatever_a_server_does(tmp_path, far):
    """With a request on its way, for which nothing says how long it may take."""
    (far.tmp / "ro" / "mute").write_bytes(os.urandom(MIB))
    s = served(tmp_path, far, "mute")
    with Client(s.path) as f, Client(s.path) as g:
        f.go("f")
        g.go("g")
        far.p.send_signal(signal.SIGSTOP)
        try:
            os.waitpid(far.p.pid, os.WUNTRACED)     # until all of it stands
            f.send(Cmd.READ, 0, 512)
            assert g.ask(Cmd.READ, 0, 512) == 0
            s.p.terminate()
            assert s.p.wait(240) == 0
        finally:
            far.p.send_signal(signal.SIGCONT)
    log_has(s, "'f' does not answer, and the program ends")


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_with_qemu(tmp_path, far):
    """QEMU's tool opens the same addresses."""
    raw = sparse_file(tmp_path / "raw", 3 * MIB)
    p = run(*far.words, "qemu-img", "create", far.url("probe"), "1M", ok=(0, 1))
    if "Unknown protocol" in p.stderr:
        pytest.skip("qemu-img has no nfs")
    run(*far.words, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, far.url("theirs"))
    assert "identical" in far.img("compare", "-f", "raw", "-F", "qcow2", raw, far.url("theirs")).stdout
    far.img("create", "-f", "qcow2", "-b", far.url("theirs", "?uid=0"), "-F", "qcow2", tmp_path / "top")
    run(*far.words, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "top", tmp_path / "o")
    assert filecmp.cmp(raw, tmp_path / "o", shallow=False)
    ours, theirs = (json.loads(run(*far.words, tool, "info", "-f", "qcow2", "--output=json", far.url("theirs")).stdout) for tool in (IMG, "qemu-img"))
    assert ours["actual-size"] == theirs["actual-size"]
