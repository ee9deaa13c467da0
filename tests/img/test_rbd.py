# SPDX-License-Identifier: MIT
"""Images of a Ceph cluster: a monitor and an OSD that keeps all in memory, on the loopback interface."""
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid

import pytest

from imglib import IMG, QEMU, SANITIZED, img, info, qimg, run, sparse_file
from servelib import Storage
from lib.nbd import Client, Cmd

MIB = 1 << 20
SCALE = int(os.environ.get("BP_TIMEOUT_SCALE", "1"))
BUILT = "librbd (rbd)             yes" in subprocess.run([IMG, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
if SANITIZED:
    pytest.skip("AddressSanitizer ends a program that opens libraries of C++ later, at their first exception", allow_module_level=True)
pytestmark = [pytest.mark.skipif(not all(map(shutil.which, ("ceph-mon", "ceph-osd", "rbd", "monmaptool"))), reason="no Ceph"),
              pytest.mark.skipif(not BUILT, reason="no librbd")]

CONF = """[global]
fsid = %(id)s
mon host = v2:127.0.0.1:%(port)d
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 268435456
public addr = 127.0.0.1
mon data = %(tmp)s/mon
osd data = %(tmp)s/osd
run dir = %(tmp)s
admin socket = %(tmp)s/$name.asok
log file = %(tmp)s/$name.log
keyring = %(tmp)s/keyring
"""


class Cluster:
    """With a pool "rbd". .conf is its file of settings, .osd the process that has all data."""

    def __init__(self, tmp):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        ids = {"id": uuid.uuid4(), "tmp": tmp, "port": self.port}
        self.conf, self.running = tmp / "conf", []
        self.conf.write_text(CONF % ids)
        for d in ("mon", "osd"):
            (tmp / d).mkdir()
        self.ask("monmaptool", "--create", "--addv", "a", "[v2:127.0.0.1:%d]" % self.port, "--fsid", ids["id"], tmp / "map")
        self.ask("ceph-mon", "--mkfs", "-i", "a", "--monmap", tmp / "map")
        try:
            self.start("ceph-mon", "-i", "a", "--public-addrv", "[v2:127.0.0.1:%d]" % self.port)
            osd = str(uuid.uuid4())
            self.ask("ceph", "--connect-timeout", 60 * SCALE, "osd", "new", osd)
            self.ask("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
            self.osd = self.start("ceph-osd", "-i", "0")
            self.ask("ceph", "osd", "pool", "create", "rbd", "1")
            self.ask("rbd", "pool", "init", "rbd")
        except BaseException:
            self.end()
            raise

    def start(self, *words):
        self.running.append(subprocess.Popen([*words, "-f", "-c", str(self.conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return self.running[-1]

    def ask(self, *words):
        return run(*words, "-c", self.conf, timeout=120 * SCALE).stdout

    def name(self, image):
        return "rbd:rbd/%s:conf=%s" % (image, self.conf)

    def options(self, image, **more):
        return {"driver": "rbd", "pool": "rbd", "image": image, "conf": str(self.conf), **more}

    def end(self):
        for p in reversed(self.running):
            p.send_signal(signal.SIGCONT)
            p.kill()
            p.wait()


@pytest.fixture(scope="module", name="ceph")
def a_cluster(tmp_path_factory):
    c = Cluster(tmp_path_factory.mktemp("ceph"))
    yield c
    c.end()


def test_an_image_is_made_written_and_read(ceph, tmp_path):
    src, back, name = sparse_file(tmp_path / "src", 24 * MIB), tmp_path / "back", ceph.name("whole")
    img("convert", "-f", "raw", "-O", "raw", src, name)
    assert info(name)["virtual-size"] == 24 * MIB
    img("compare", "-f", "raw", "-F", "raw", src, name)
    img("convert", "-f", "raw", "-O", "raw", name, back)
    assert back.read_bytes() == src.read_bytes()
    if QEMU:
        qimg("compare", "-f", "raw", "-F", "raw", src, name)
        ours, theirs = [json.loads(tool("map", "--output=json", "-f", "raw", name).stdout) for tool in (img, qimg)]
        shape = [[(e["start"], e["length"], e["data"]) for e in m] for m in (ours, theirs)]
        assert shape[0] == shape[1]
    img("resize", "-f", "raw", name, "40M")
    img("resize", "-f", "raw", "--shrink", name, "8M")
    assert "size 8 MiB" in ceph.ask("rbd", "info", "whole")
    again = img("create", "-f", "raw", name, "1M", ok=(1,)).stderr
    assert "exists already" in again and "size 8 MiB" in ceph.ask("rbd", "info", "whole")


def test_an_image_of_a_format_grows_in_it(ceph, tmp_path):
    src, name = sparse_file(tmp_path / "src", 24 * MIB, seed=2), ceph.name("grows")
    img("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", src, name)
    img("check", "-f", "qcow2", name)
    img("compare", "-f", "raw", "-F", "qcow2", src, name)
    if QEMU:
        qimg("check", "-f", "qcow2", name)
        qimg("compare", "-f", "raw", "-F", "qcow2", src, name)


class Served:
    """The node of OPTIONS in backplane-serve, and a client of it."""

    def __init__(self, tmp_path, options):
        self.storage = Storage(tmp_path, "--blockdev", json.dumps({**options, "node-name": "n"}), "--nbd-server", "addr.type=unix,addr.path=%s" % (tmp_path / "nbd"))
        self.storage.export("nbd", writable=not options.get("read-only", False))
        self.client = Client(tmp_path / "nbd")
        self.client.go("n")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.client.__exit__()
        self.storage.__exit__(*exc)


def holes(name):
    return [(e["start"], e["length"]) for e in json.loads(img("map", "--output=json", "-f", "raw", name).stdout) if not e["data"]]


def test_zeroes_and_discards_leave_holes(ceph, tmp_path):
    """Where they are whole objects of 4 MiB; elsewhere zeroes are read."""
    ceph.ask("rbd", "create", "--size", "16M", "holes")
    with Served(tmp_path, ceph.options("holes", discard="unmap")) as s:
        for at in range(0, 16 * MIB, 4 * MIB):
            assert s.client.ask(Cmd.WRITE, at, 4 * MIB, data=b"x" * (4 * MIB)) == 0
        assert s.client.ask(Cmd.WRITE_ZEROES, 4 * MIB - 512, 4 * MIB + 1024) == 0
        assert s.client.ask(Cmd.TRIM, 12 * MIB, 4 * MIB) == 0
    assert holes(ceph.name("holes")) == [(4 * MIB, 4 * MIB), (12 * MIB, 4 * MIB)]
    img("convert", "-f", "raw", "-O", "raw", ceph.name("holes"), tmp_path / "back")
    x = 4 * MIB - 512
    assert (tmp_path / "back").read_bytes() == b"x" * x + bytes(4 * MIB + 1024) + b"x" * x + bytes(4 * MIB)


def test_a_snapshot_is_read_only(ceph, tmp_path):
    src, name = sparse_file(tmp_path / "src", 8 * MIB, seed=3), ceph.name("snapped")
    img("convert", "-f", "raw", "-O", "raw", src, name)
    ceph.ask("rbd", "snap", "create", "snapped@s")
    img("bench", "-w", "-c", "16", "-s", "64k", "-f", "raw", name)
    at = "rbd:rbd/snapped@s:conf=%s" % ceph.conf
    img("compare", "-f", "raw", "-F", "raw", src, at)
    assert "is a snapshot, which cannot be written to" in img("bench", "-w", "-c", "1", "-f", "raw", at, ok=(1,)).stderr


@pytest.mark.parametrize("name,said", [
    ("rbd:", "it has no image"), ("rbd:rbd", "it has no image"), ("rbd:/x", "it has no pool"), ("rbd:rbd/", "it has no image"), ("rbd:rbd/x:id", "'id' has no value"),
    ("rbd:rbd/none", "cannot open 'rbd:rbd/none:conf=CONF': No such file"), ("rbd:none/x", "cannot find the pool of 'rbd:none/x:conf=CONF': No such file"),
    ("rbd:rbd/space/a\\:b", "cannot open 'rbd:rbd/space/a\\:b:conf=CONF': No such file"), ("rbd:rbd/x:no_such_setting=1", "Ceph's setting 'no_such_setting'"),
    ("rbd:rbd/x:mon_host=127.0.0.1\\:1:client_mount_timeout=1", "cannot connect to the cluster of 'rbd:rbd/x:conf=CONF'")])
def test_what_is_wrong_with_a_name_is_said(ceph, name, said):
    good = "no_such" not in name and "id" not in name and name.count("/") and not name.endswith("/") and "rbd:/" not in name
    full = name + (":conf=%s" % ceph.conf if good or "no_such" in name else "")
    assert said.replace("CONF", str(ceph.conf)) in img("info", full, ok=(1,)).stderr


def test_options_in_place_of_a_file_of_settings(ceph, tmp_path):
    """A namespace, monitors, and a setting of Ceph's."""
    ceph.ask("rbd", "namespace", "create", "rbd/other")
    ceph.ask("rbd", "create", "--size", "4M", "rbd/other/x")
    (tmp_path / "empty").write_text("")
    opts = "driver=rbd,pool=rbd,namespace=other,image=x,conf=%s,server.0.host=127.0.0.1,server.0.port=%d,auth-client-required.0=none" % (tmp_path / "empty", ceph.port)
    assert "virtual size: 4 MiB" in img("info", "--image-opts", opts).stdout
    assert "no_such_setting" in img("info", "--image-opts", opts + ",settings.no_such_setting=1", ok=(1,)).stderr
    assert "auth-client-required has 'guess'" in img("info", "--image-opts", opts.replace("=none", "=guess"), ok=(1,)).stderr
    assert "server.0 has more than host and port" in img("info", "--image-opts", opts + ",server.0.prot=1", ok=(1,)).stderr
    assert "server.0 has no port" in img("info", "--image-opts", "driver=rbd,pool=rbd,image=x,server.0.host=h", ok=(1,)).stderr


def test_requests_to_a_cluster_that_says_nothing(ceph, tmp_path):
    """They fail after the time-out, or wait; who ends the program does not wait for them."""
    ceph.ask("rbd", "create", "--size", "4M", "silent")
    direct = {"cache": {"direct": True}}            # librbd would answer by itself what it has, and take writes
    with Served(tmp_path, ceph.options("silent", timeout=1, **direct)) as s:
        assert s.client.ask(Cmd.WRITE, 0, 512, data=bytes(512)) == 0
        ceph.osd.send_signal(signal.SIGSTOP)
        try:
            assert s.client.ask(Cmd.WRITE, 0, 512, data=bytes(512)) == errno.EIO
        finally:
            ceph.osd.send_signal(signal.SIGCONT)
    with Served(tmp_path, ceph.options("silent", **direct)) as s:
        assert s.client.ask(Cmd.READ, 0, 512) == 0
        ceph.osd.send_signal(signal.SIGSTOP)
        try:
            s.client.send(Cmd.WRITE, 0, 512, data=bytes(512))
            s.storage.qmp.cmd("query-block-exports")
            s.storage.process.terminate()
            assert s.storage.process.wait(240) == 0
            assert "block node 'n' does not answer, and the program ends" in s.storage.text()
        finally:
            ceph.osd.send_signal(signal.SIGCONT)
