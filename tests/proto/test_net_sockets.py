# SPDX-License-Identifier: MIT
"""Network back ends over sockets: every kind of address, peers that go away and come back, ports and addresses that cannot be."""
import os
import socket
import struct
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, TIMEOUT, Machine, QmpError, run

BOARD = ("-M", "virt", "-S", "-serial", "null", "-accel", "interp", "-nodefaults")
MAC = "52:54:00:00:00:09"
RARP = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) + b"\x80\x35"


def card(netdev="n"):
    return ("-device", "virtio-net-pci,netdev=%s,mac=%s" % (netdev, MAC))


def announce(m):
    """The card sends a frame."""
    m.qmp.cmd("announce-self", rounds=1, initial=1, max=1, step=1)


def take_frame(s):
    s.settimeout(TIMEOUT)
    f = s.makefile("rb")
    return f.read(struct.unpack(">I", f.read(4))[0])


def listener(family, at):
    s = socket.socket(family)
    s.bind(at)
    s.listen(1)
    s.settimeout(TIMEOUT)
    return s


def network(m):
    return m.qmp.hmp("info network")


def stream_port(m):
    """Where the back end listens, as info network tells it."""
    return int(network(m).split("listening:")[1].split()[0].rsplit(":", 1)[1])


# ---- stream ----

def test_stream_listens_on_inet_and_tells_of_its_peers():
    with Machine(*BOARD, "-netdev", "stream,id=n,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=0", *card()) as m:
        port = stream_port(m)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port)) as s:
                ev = m.qmp.wait_event("NETDEV_STREAM_CONNECTED")["data"]
                assert ev["netdev-id"] == "n" and ev["addr"] == {"type": "inet", "host": "127.0.0.1", "port": str(s.getsockname()[1])}
                announce(m)
                assert take_frame(s)[:14] == RARP
            assert m.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")["data"] == {"netdev-id": "n"}
            m.qmp.events.clear()


@pytest.mark.parametrize("more", ["", ",addr.tight=off"])
def test_stream_has_abstract_addresses(more):
    name = "bp-test-%d" % os.getpid()
    with Machine(*BOARD, "-netdev", "stream,id=n,server=on,addr.type=unix,addr.abstract=on,addr.path=" + name + more, *card()) as m:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(b"\0" + name.encode().ljust(107 if more else 0, b"\0"))
            m.qmp.wait_event("NETDEV_STREAM_CONNECTED")
            announce(m)
            assert take_frame(s)[:14] == RARP


@pytest.mark.parametrize("key,ms", [("reconnect-ms", 50), ("reconnect", 1)])
def test_stream_comes_back_to_a_server_that_went(tmp_path, key, ms):
    path = str(tmp_path / "sw")
    with Machine(*BOARD, "-netdev", "stream,id=n,addr.type=unix,addr.path=%s,%s=%d" % (path, key, ms), *card()) as m:
        assert "disconnected" in network(m)
        for _ in range(2):
            with listener(socket.AF_UNIX, path) as server:
                with server.accept()[0] as s:
                    m.qmp.wait_event("NETDEV_STREAM_CONNECTED")
                    announce(m)
                    assert take_frame(s)[:14] == RARP
            os.unlink(path)
            m.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")
            m.qmp.events.clear()
    assert m.output.count("trying again every") >= 1


def test_a_reconnecting_back_end_goes_at_any_time(tmp_path):
    """Between two attempts, and while one is under way: neither waits nor comes back."""
    server = listener(socket.AF_INET, ("127.0.0.1", 0))
    full = [socket.create_connection(server.getsockname()) for _ in range(2)]      # its queue is full: who comes now hangs
    with Machine(*BOARD) as m:
        begin = time.monotonic()
        for _ in range(20):
            m.qmp.cmd("netdev_add", type="stream", id="a", addr={"type": "unix", "path": str(tmp_path / "no")}, reconnect_ms=1)
            m.qmp.cmd("netdev_add", type="stream", id="b", addr={"type": "inet", "host": "127.0.0.1", "port": str(server.getsockname()[1])},
                      reconnect_ms=1)
            m.qmp.cmd("netdev_del", id="a")
            m.qmp.cmd("netdev_del", id="b")
        assert time.monotonic() - begin < TIMEOUT       # a connection that hangs is given up by the system after two minutes
    for s in full:
        s.close()
    server.close()


def test_a_name_is_tried_at_each_of_its_addresses():
    """localhost is ::1 first in many places; who listens on 127.0.0.1 only is found all the same."""
    with listener(socket.AF_INET, ("127.0.0.1", 0)) as server:
        with Machine(*BOARD, "-netdev", "stream,id=n,addr.type=inet,addr.host=localhost,addr.port=%d" % server.getsockname()[1], *card()) as m:
            with server.accept()[0] as s:
                announce(m)
                assert take_frame(s)[:14] == RARP


def test_numeric_addresses_are_not_looked_up():
    status, _, err = run(*BOARD, "-display", "none", "-netdev", "stream,id=n,addr.type=inet,addr.host=localhost,addr.numeric=on,addr.port=1")
    assert status == 1 and "cannot resolve address 'localhost:1'" in err


def test_to_finds_a_free_port():
    with listener(socket.AF_INET, ("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with Machine(*BOARD, "-netdev", "stream,id=n,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=%d,addr.to=%d"
                     % (port, min(port + 50, 65535)), *card()) as m:
            assert port < stream_port(m) <= port + 50


def test_keep_alive_is_set_on_both_ends():
    def timers(port):
        out = subprocess.run(["ss", "-tnoH", "( sport = :%d or dport = :%d )" % (port, port)], capture_output=True, text=True, check=False).stdout
        return [line for line in out.splitlines() if "keepalive" in line]

    if subprocess.run(["sh", "-c", "command -v ss"], capture_output=True, check=False).returncode:
        pytest.skip("needs ss")
    keep = "addr.keep-alive=on,addr.keep-alive-idle=77,addr.keep-alive-count=3,addr.keep-alive-interval=5"
    with Machine(*BOARD, "-netdev", "stream,id=n,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=0," + keep, *card()) as m:
        port = stream_port(m)
        with Machine(*BOARD, "-netdev", "stream,id=n,addr.type=inet,addr.host=127.0.0.1,addr.port=%d,%s" % (port, keep), *card()):
            m.qmp.wait_event("NETDEV_STREAM_CONNECTED")
            assert len(timers(port)) == 2


def give(m, name, s):
    socket.send_fds(m.qmp.sock, [b'{"execute":"getfd","arguments":{"fdname":"%s"}}' % name.encode()], [s.fileno()])
    assert "return" in m.qmp.answer()


def test_stream_takes_a_socket_that_is_handed_over():
    ours, theirs = socket.socketpair()
    with Machine(*BOARD, "-device", "pcie-root-port,id=rp") as m:
        give(m, "wire", theirs)
        m.qmp.cmd("netdev_add", type="stream", id="n", addr={"type": "fd", "str": "wire"})
        m.qmp.cmd("device_add", driver="virtio-net-pci", netdev="n", mac=MAC, id="c", bus="rp")
        announce(m)
        assert take_frame(ours)[:14] == RARP
    ours.close()
    theirs.close()


def test_stream_listens_on_a_socket_that_is_handed_over(tmp_path):
    path = str(tmp_path / "wire")
    with listener(socket.AF_UNIX, path) as server, Machine(*BOARD) as m:
        give(m, "l", server)
        m.qmp.cmd("netdev_add", type="stream", id="n", server=True, addr={"type": "fd", "str": "l"})
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            m.qmp.wait_event("NETDEV_STREAM_CONNECTED")
        m.qmp.cmd("netdev_del", id="n")
        assert os.path.exists(path)                     # its name is not ours


def test_descriptors_that_do_not_fit_are_told():
    with Machine(*BOARD) as m:
        r, w = os.pipe()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as d, listener(socket.AF_INET, ("127.0.0.1", 0)) as li:
            for name, what, fd in (("pipe", "is not a socket", r), ("dgram", "not a stream socket", d.fileno()), ("li", "server=on", li.fileno()),
                                   (None, "there is no file descriptor with the name", 0)):
                if name:
                    socket.send_fds(m.qmp.sock, [b'{"execute":"getfd","arguments":{"fdname":"%s"}}' % name.encode()], [fd])
                    assert "return" in m.qmp.answer()
                with pytest.raises(QmpError) as e:
                    m.qmp.cmd("netdev_add", type="stream", id="n", addr={"type": "fd", "str": name or "other"})
                assert what in str(e.value)
        os.close(r)
        os.close(w)


def test_inherited_numbers(tmp_path):
    ours, theirs = socket.socketpair()
    p = subprocess.Popen([BINARY, *BOARD, "-display", "none", "-netdev", "stream,id=n,addr.type=fd,addr.str=%d" % theirs.fileno(), *card(),
                          "-monitor", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[theirs.fileno()])
    theirs.close()
    p.stdin.write(b"announce_self\n")
    p.stdin.flush()
    assert take_frame(ours)[:14] == RARP
    out = p.communicate(b"quit\n", timeout=TIMEOUT)[0]
    assert p.returncode == 0, out
    ours.close()


# ---- dgram ----

def test_dgram_over_inet_and_unix(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(str(tmp_path / "peer"))
        for s, local, remote in ((a, "inet,local.host=127.0.0.1,local.port=0", "inet,remote.host=127.0.0.1,remote.port=%d" % a.getsockname()[1]),
                                 (b, "unix,local.path=%s" % (tmp_path / "me"), "unix,remote.path=%s" % (tmp_path / "peer"))):
            with Machine(*BOARD, "-netdev", "dgram,id=n,local.type=%s,remote.type=%s" % (local, remote), *card()) as m:
                s.settimeout(TIMEOUT)
                announce(m)
                frame, sender = s.recvfrom(2000)
                assert frame[:14] == RARP
                assert str(sender if isinstance(sender, str) else sender[1]) in network(m)


def test_dgram_takes_a_socket_that_is_handed_over():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with Machine(*BOARD, "-device", "pcie-root-port,id=rp") as m:
        give(m, "wire", theirs)
        m.qmp.cmd("netdev_add", type="dgram", id="n", local={"type": "fd", "str": "wire"})
        m.qmp.cmd("device_add", driver="virtio-net-pci", netdev="n", mac=MAC, id="c", bus="rp")
        announce(m)
        ours.settimeout(TIMEOUT)
        assert ours.recv(2000)[:14] == RARP
    ours.close()
    theirs.close()


@pytest.mark.parametrize("make", ["dgram,id=n,remote.type=inet,remote.host=239.9.8.7,remote.port=%d,local.type=inet,local.host=127.0.0.1",
                                  "socket,id=n,mcast=239.9.8.7:%d,localaddr=127.0.0.1"])
def test_machines_meet_in_a_multicast_group(make):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as g:
        g.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        g.bind(("239.9.8.7", 0))
        g.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.9.8.7") + socket.inet_aton("127.0.0.1"))
        g.settimeout(TIMEOUT)
        with Machine(*BOARD, "-netdev", make % g.getsockname()[1], *card()) as m:
            announce(m)
            assert g.recv(2000)[:14] == RARP


def test_socket_is_the_older_way_to_write_them():
    with Machine(*BOARD, "-netdev", "socket,id=n,listen=127.0.0.1:0", *card()) as a:
        with Machine(*BOARD, "-netdev", "socket,id=n,connect=127.0.0.1:%d" % stream_port(a), *card()):
            a.qmp.wait_event("NETDEV_STREAM_CONNECTED")


# ---- mistakes ----

@pytest.mark.parametrize("args,part", [
    (("-netdev", "stream,id=n,addr.type=inet,addr.host=h,addr.port=65536"), "addr.port: port 65536 is not within 0..65535"),
    (("-netdev", "dgram,id=n,remote.type=inet,remote.host=127.0.0.1,remote.port=70000"), "remote.port: port 70000"),
    (("-netdev", "socket,id=n,listen=:99999"), "port: port 99999 is not within 0..65535"),
    (("-netdev", "socket,id=n,udp=127.0.0.1:1,localaddr=127.0.0.1:4294967297"), "port 4294967297 is not within 0..65535"),
    (("-netdev", "user,id=n,hostfwd=tcp::70000-:22"), "'70000'"),
    (("-chardev", "socket,id=c,host=127.0.0.1,port=65536"), "port: port 65536 is not within 0..65535"),
    (("-chardev", "udp,id=c,port=5,localport=65536"), "localport: port 65536"),
    (("-serial", "tcp:127.0.0.1:100000,server=on"), "port 100000 is not within"),
    (("-gdb", "tcp::77777"), "port 77777 is not within"),
    (("-qmp", "tcp:127.0.0.1:77777,server=on"), "port 77777 is not within"),
    (("-blockdev", "nbd,node-name=d,server.type=inet,server.host=127.0.0.1,server.port=65536"), "port 65536 is not within 0..65535"),
    (("-netdev", "stream,id=n,addr.type=unix,addr.path=x,addr.port=1"), "addr.port has no effect with addr.type=unix"),
    (("-netdev", "stream,id=n,addr.type=inet,addr.host=h"), "addr.port is missing"),
    (("-netdev", "stream,id=n,addr.type=fd"), "addr.str is missing"),
    (("-netdev", "stream,id=n,addr.type=inet,addr.port=1,addr.to=9"), "addr.to has an effect only when listening"),
    (("-netdev", "stream,id=n,addr.type=inet,addr.port=1,addr.ipv4=off,addr.ipv6=off"), "leave no address"),
    (("-netdev", "stream,id=n,addr.type=inet,addr.port=1,server=on,reconnect-ms=5"), "reconnect has no effect with server=on"),
    (("-netdev", "stream,id=n,addr.type=inet,addr.port=1,reconnect=1,reconnect-ms=5"), "only one of reconnect and reconnect-ms"),
    (("-netdev", "stream,id=n,addr.type=vsock,addr.port=1"), "addr.type"),
    (("-netdev", "vhost-user,id=n,chardev=c"), "not in this build"),
    (("-netdev", "passt,id=n"), "addr.type=unix,addr.path=SOCKET"),
    (("-netdev", "l2tpv3,id=n,src=1,dst=2"), "not in this build"),
    (("-chardev", "serial,id=c,path=/dev/ttyS0"), "not in this build"),
    (("-netdev", "user,id=n,hostfwd=tcp:127.0.0.1:45671-:22,hostfwd=tcp:127.0.0.1:45671-:23"),
     "cannot listen on 127.0.0.1:45671: Address already in use by"),
    (("-netdev", "dgram,id=n,remote.type=fd,remote.str=5"), "a peer has an address"),
    (("-netdev", "socket,id=n,listen=:1,connect=h:2"), "exactly one of"),
    (("-netdev", "socket,id=n,udp=h:2"), "udp needs localaddr"),
])
def test_addresses_that_cannot_be(args, part):
    status, _, err = run(*BOARD, "-display", "none", *args)
    assert status == 1 and part in err, err


def test_a_busy_address_is_named_with_its_holder():
    with listener(socket.AF_INET, ("127.0.0.1", 0)) as busy:
        at = "127.0.0.1:%d" % busy.getsockname()[1]
        status, _, err = run(*BOARD, "-display", "none", "-netdev", "socket,id=n,listen=" + at)
        assert status == 1 and "cannot listen on " + at in err and "(pid %d)" % os.getpid() in err
    status, _, err = run(*BOARD, "-display", "none", "-netdev", "socket,id=n,connect=" + at)
    assert status == 1 and "cannot connect to %s: Connection refused" % at in err


# ---- info network, and who is warned of ----

def test_info_network():
    with Machine(*BOARD, "-netdev", "user,id=u", "-device", "virtio-net-pci,netdev=u,id=first,mac=" + MAC, "-netdev", "user,id=v,net=10.9.0.0/24",
                 "-netdev", "hubport,id=h,hubid=7,netdev=v", "-netdev", "hubport,id=i,hubid=7", "-device", "virtio-net-pci,netdev=i", "-netdev",
                 "hubport,id=j,hubid=7", "-device", "virtio-net-pci", "-netdev", "user,id=lone") as m:
        text = network(m).replace("\r", "")
        assert "hub 7\n \\ h: v: index=0,type=user,net=10.9.0.0,restrict=off\n \\ i: virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=" in text
        assert "\n \\ j\n" in text
        assert "first: index=0,type=nic,model=virtio-net-pci,macaddr=%s\n \\ u: index=0,type=user,net=10.0.2.0,restrict=off\n" % MAC in text
        assert "\nlone: index=0,type=user," in text and "\nvirtio-net-pci.1: index=0,type=nic," in text
        m.qmp.cmd("set_link", name="virtio-net-pci.0", up=False)
        assert "(link down)" in network(m)


def test_idle_hub_ports_are_warned_of_and_busy_ones_are_not():
    p = subprocess.run([BINARY, *BOARD, "-display", "none", "-netdev", "user,id=u", "-netdev", "hubport,id=h,hubid=0,netdev=u", "-netdev",
                        "hubport,id=idle,hubid=0", "-netdev", "hubport,id=used,hubid=0", "-device", "virtio-net-pci,netdev=used", "-monitor", "stdio"],
                       input="quit\n", capture_output=True, text=True, timeout=TIMEOUT, check=True)
    assert "-netdev idle: no device uses it" in p.stderr and p.stderr.count("no device uses it") == 1
