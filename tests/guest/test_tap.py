# SPDX-License-Identifier: MIT
"""A guest on a tap of the host's kernel, in a network namespace of the test's own: offloads are used, bytes arrive whole."""
import hashlib
import os
import subprocess
import sys

import pytest

import guest

UP = """#!/bin/sh
ip link set lo up
ip addr add 10.77.0.1/24 dev "$1"
ip link set "$1" up
"""
# Serves FILE to one connection, then takes what the guest sends back and prints its SHA-256.
HOST = """
import hashlib, socket, sys
s = socket.create_server(("10.77.0.1", 5000))
print("ready", flush=True)
c, _ = s.accept()
with open(sys.argv[1], "rb") as f:
    c.sendfile(f)
c.close()
c, _ = s.accept()
h = hashlib.sha256()
while True:
    d = c.recv(1 << 16)
    if not d:
        break
    h.update(d)
print(h.hexdigest(), flush=True)
"""


def own_namespace_works():
    return subprocess.run(["unshare", "-n", "sh", "-c", "ip tuntap add mode tap name bpt0"], check=False, capture_output=True).returncode == 0


def test_large_packets_through_a_tap(tmp_path):
    if guest.IS_QEMU or not own_namespace_works():
        pytest.skip("not allowed to make a network namespace with a tap")
    up, data = tmp_path / "up", tmp_path / "data"
    up.write_text(UP)
    up.chmod(0o755)
    data.write_bytes(os.urandom(8 << 20))
    want = hashlib.sha256(data.read_bytes()).hexdigest()
    m = guest.Machine("-netdev", "tap,id=n0,script=%s,downscript=no" % up, "-device", "virtio-net-pci,netdev=n0",
                      modules=["virtio_net", "af_packet"], root=True, memory="768M", under=["unshare", "-n", "--"])
    with m:
        m.boot()
        host = subprocess.Popen(["nsenter", "-n", "-t", str(m.proc.pid), sys.executable, "-c", HOST, str(data)],
                                stdout=subprocess.PIPE, text=True)
        try:
            assert host.stdout.readline() == "ready\n"
            m.run("ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up")
            m.run("ping -c 1 -w 20 10.77.0.1")
            features = m.run("ethtool -k eth0")
            assert "tcp-segmentation-offload: on" in features and "rx-checksumming: on" in features
            assert m.run("nc 10.77.0.1 5000 </dev/null >/tmp/data; sha256sum </tmp/data", 120).split()[0] == want
            sent = "cat /sys/class/net/eth0/statistics/tx_packets"
            acknowledgements = int(m.run(sent))
            m.run("bash -c 'dd if=/tmp/data bs=256k >/dev/tcp/10.77.0.1/5000'", 120)     # nc writes 1 KiB at a time
            assert host.stdout.readline().strip() == want
            segments = int(m.run(sent)) - acknowledgements
            assert segments < (8 << 20) // 1448            # packets larger than the wire's left the card
        finally:
            host.kill()
            host.wait()
        m.send("poweroff -f\n")
        assert m.wait(30) == 0
