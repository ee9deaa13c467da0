# SPDX-License-Identifier: MIT
"""Guests on disks of an iSCSI target: commands that go there as they are, a session that ends meanwhile, a size that changes."""
import os
import struct
import sys
import threading

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "img")]
import fakeiscsi as fi
from fakeiscsi import Drop, Fake, Sense, Status
from lib.hba import Virtio
from lib.machine import run
from lib.virtio import VirtioMachine

VIRT = ("-M", "virt", "-m", "64M", "-accel", "qtest", "-serial", "null")
PASSING = ("scsi-generic", "scsi-block")
pytestmark = pytest.mark.skipif("not in this build" in run("-blockdev", "iscsi,node-name=x")[2], reason="no libiscsi")


@pytest.fixture(name="fake")
def fake_target():
    t = Fake(4096)
    yield t
    t.close()


class Pass(Virtio):
    DEVICE = "virtio-scsi-pci,disable-legacy=on,num_queues=2,id=a,bus=pcie.0,addr=1"

    def command(self, cdb, out=b"", n=0):
        """Its response (VIRTIO 1.3, 5.6.6.1.1), status, sense data, and data."""
        self.submit(0, bytes(cdb), out, n)
        self.answered(0)
        r = self.q.read(self.frame(0) + 0x800, 108)
        return r[11], r[10], r[12:12 + int.from_bytes(r[:4], "little")], self.q.read(self.data(0), n) if n else b""


def machine(folder, fake, device):
    return VirtioMachine(folder, "-blockdev", fake.opts() + ",node-name=n", "-device", Pass.DEVICE, "-device", device + ",drive=n")


def begin(m):
    h = Pass(m)
    h.begin()
    while h.command([0] * 6)[1] == 2:       # the bus was reset
        pass
    return h


def lba(op, at, n):
    return struct.pack(">BBQIBB", op, 0, at, n, 0, 0)


@pytest.mark.parametrize("device", PASSING)
def test_commands_go_there(tmp_path, fake, device):
    fake.data[:512] = b"first" + bytes(507)
    with machine(tmp_path, fake, device) as m:
        h = begin(m)
        assert h.command(lba(fi.READ, 0, 1), n=512) == (0, 0, b"", bytes(fake.data[:512]))
        assert h.command(lba(fi.WRITE, 7, 2), out=b"w" * 1024)[:2] == (0, 0)
        assert fake.data[7 * 512:9 * 512] == b"w" * 1024
        r = h.command(lba(fi.READ, 9999, 1), n=512)
        assert r[:2] == (0, 2) and r[2][2] == 5 and r[2][12] == 0x21        # the target's own sense data
        assert h.command([0xa5] + [0] * 11)[2][12] == 0x20
        assert h.command([0x7f] + [0] * 6 + [24] + [0] * 24)[:2] == (0, 2)  # longer than the library takes


@pytest.mark.parametrize("device", PASSING)
def test_what_the_target_says_is_not_kept(tmp_path, fake, device):
    said = []

    def hook(conn, cdb):
        if said and cdb[0] == fi.READ:
            raise said.pop()
    fake.on_command = hook
    with machine(tmp_path, fake, device) as m:
        h = begin(m)
        for what, status in ((Status(8), 8), (Status(0x28), 0x28), (Status(0x18), 0x18), (Sense(6, 0x2900), 2)):
            said.append(what)
            n = fake.count(fi.READ)
            assert h.command(lba(fi.READ, 0, 1), n=512)[:2] == (0, status)
            assert fake.count(fi.READ) == n + 1                             # and is not tried again for the guest
        said.append(Drop())
        assert h.command(lba(fi.READ, 0, 1), n=512)[0] != 0                 # nor is what got lost
        assert h.command(lba(fi.READ, 0, 1), n=512)[:2] == (0, 0)


def test_commands_that_could_write_do_not_pass_where_nothing_may(fake):
    status, _, err = run(*VIRT, "-blockdev", fake.opts() + ",node-name=n,read-only=on,file.read-only=on", "-device", Pass.DEVICE,
                         "-device", "scsi-generic,drive=n")
    assert status == 1 and "commands cannot be passed" in err, err


def test_a_command_that_takes_too_long(tmp_path, fake):
    never = threading.Event()
    fake.on_command = lambda conn, cdb: never.wait(60) if cdb[0] == fi.READ else None
    with machine(tmp_path, fake, "scsi-generic,io_timeout=1") as m:
        h = begin(m)
        assert h.command(lba(fi.READ, 0, 1), n=512)[0] != 0
        never.set()
        assert h.command(lba(fi.WRITE, 0, 1), out=bytes(512))[:2] == (0, 0)


def test_a_disk_of_an_image_does_not_notice(tmp_path, fake):
    """A session that ends, a full task set and an attention are nothing to the guest of scsi-hd; another size is."""
    left = [Drop(), Status(0x28), Sense(6, 0x2900)]

    def hook(conn, cdb):
        if left and cdb[0] in (fi.READ, fi.WRITE):
            raise left.pop()
    with machine(tmp_path, fake, "scsi-hd") as m:
        h = begin(m)
        fake.on_command = hook
        assert h.command(lba(fi.WRITE, 3, 1), out=b"q" * 512)[:2] == (0, 0) and not left
        assert h.command(lba(fi.READ, 3, 1), n=512) == (0, 0, b"", b"q" * 512)
        fake.data.extend(bytes(1 << 20))
        m.qmp.cmd("block_resize", **{"node-name": "n", "size": 3 << 20})
        while h.command([0] * 6)[1] == 2:
            pass
        assert h.command([0x9e, 0x10] + [0] * 11 + [32, 0, 0], n=32)[3][:8] == ((3 << 20) // 512 - 1).to_bytes(8, "big")


@pytest.mark.parametrize("given,said", [(("initiator-name=iqn.2026-01.me:x,header-digest=NONE",), ("iqn.2026-01.me:x", "None")),
                                        (("initiator-name=iqn.a:x", "initiator-name=iqn.b:x,id=" + fi.NAME), ("iqn.b:x", "None,CRC32C")),
                                        (("initiator-name=iqn.a:x,id=other",), ("iqn.2008-11.org.linux-kvm", "None,CRC32C"))])
def test_what_addresses_do_not_say(fake, given, said):
    options = [w for g in given for w in ("-iscsi", g)]
    status, _, err = run("-M", "none", *options, "-drive", "if=none,format=raw,file=" + fake.url(), "-device", "nosuch")
    assert status == 1 and "nosuch" in err, err
    keys = {k: v for _, more in fake.logins for k, v in more.items()}
    assert (keys["InitiatorName"], keys["HeaderDigest"]) == said


@pytest.mark.parametrize("given,text", [(("nonsense=1",), "nonsense"), (("user=a", "user=b"), "two for all targets"), (("timeout=x",), "timeout")])
def test_what_the_option_does_not_take(given, text):
    status, _, err = run("-M", "none", *[w for g in given for w in ("-iscsi", g)])
    assert status == 1 and text in err, err
