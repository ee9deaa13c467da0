# SPDX-License-Identifier: MIT
"""Replay protected memory (NVMe base 8.18): key, counter, MACs, what is refused, what outlives the run, the locks of boot partitions."""
import hashlib
import hmac
import os
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import PAGE, NvmeMachine, write

SEND, RECV, INVALID_FIELD, SEQUENCE, PROTECTED, NOT_CHANGEABLE, PROHIBITED = 0x81, 0x82, 0x002, 0x00c, 0x020, 0x10e, 0x11e
SET_KEY, COUNTER, WRITE, READ, RESULT, CONFIG_WRITE, CONFIG_READ = range(1, 8)
OK, GENERAL, WRONG_MAC, WRONG_COUNTER, WRONG_ADDRESS, NOT_WRITTEN, NOT_READ, NO_KEY, WRONG_CONFIG = range(9)
UNIT, KEPT, BP = 128 << 10, 4096, 256 << 10
SECRET = bytes(range(32))


class Answer:
    """A frame that came back."""

    def __init__(self, raw):
        self.raw, self.data, self.mac, self.nonce = raw, raw[256:], raw[191:223], raw[224:240]
        self.counter, self.address, self.sectors, self.result, self.type = struct.unpack_from("<IIIHH", raw, 240)

    def signed(self, key=SECRET):
        return hmac.new(key, self.raw[223:], hashlib.sha256).digest() == self.mac


class Host:
    """Asks the block, as a host that knows the key."""

    def __init__(self, n, key=SECRET):
        self.n, self.key, self.buf = n, key, n.alloc(2 * PAGE)

    def command(self, opcode, size, protocol=0xea, spsp=1, nssf=0):
        return self.n.admin.run(opcode, prp1=self.buf, prp2=self.buf + PAGE, cdw=(protocol << 24 | spsp << 8 | nssf, size)).status

    def send(self, kind, data=b"", nonce=b"", counter=0, address=0, sectors=None, mac=None, target=0):
        sectors = len(data) // 512 if sectors is None else sectors
        frame = bytes([target]) + nonce.ljust(16, b"\0") + struct.pack("<IIIHH", counter, address, sectors, 0, kind) + data
        mac = mac or hmac.new(self.key, frame, hashlib.sha256).digest()
        self.n.q.write(self.buf, bytes(191) + mac + frame)
        return self.command(SEND, 256 + len(data))

    def receive(self, sectors=0):
        assert self.command(RECV, 256 + 512 * sectors) == 0
        return Answer(self.n.q.read(self.buf, 256 + 512 * sectors))

    def change(self, kind, data=b"", **kw):
        """The result of a request that changes something, read as the specification wants it."""
        assert self.send(kind, data, **kw) == 0 and self.send(RESULT) == 0
        a = self.receive()
        assert a.type == kind << 8
        return a

    def counter(self):
        nonce = os.urandom(16)
        assert self.send(COUNTER, nonce=nonce) == 0
        a = self.receive()
        assert a.type == 0x200 and a.nonce == nonce and (a.result & 0x7f == NO_KEY or a.signed(self.key))
        return a.counter

    def read(self, address, sectors, asked=None):
        nonce = os.urandom(16)
        assert self.send(READ, nonce=nonce, address=address, sectors=asked or sectors) == 0
        a = self.receive(sectors)
        assert a.type == 0x400 and a.nonce == nonce
        return a


@pytest.fixture(name="home")
def folder(tmp_path):
    for name, size in (("rpmb", KEPT + 2 * UNIT), ("boot", 2 * BP)):
        with open(tmp_path / name, "wb") as f:
            f.truncate(size)
    return tmp_path


def machine(tmp, more=""):
    return NvmeMachine(tmp, "-drive", "file=%s/rpmb,format=raw,if=none,id=r%s" % (tmp, more), "-drive", "file=%s/boot,format=raw,if=none,id=b" % tmp,
                       "-device", "nvme,serial=R,addr=1,rpmb-drive=r,boot-drive=b")


def test_what_there_is(home):
    with machine(home) as m:
        n = m.nvme(1).enable()
        assert struct.unpack_from("<I", n.identify(1), 312)[0] == 1 | 1 << 16 | 7 << 24
        h = Host(n)
        assert h.command(RECV, 10, protocol=0, spsp=0) == 0 and n.q.read(h.buf, 10) == bytes(7) + b"\2\0\xea"
        assert h.command(RECV, 256) == SEQUENCE                                 # nothing was asked
        for size, where in ((255, {}), (257, {}), (256 + 9 * 512, {}), (256, {"nssf": 1}), (256, {"spsp": 0}), (256, {"spsp": 2})):
            assert h.command(SEND, size, **where) == h.command(RECV, size, **where) == INVALID_FIELD
        assert h.send(COUNTER, target=1) == INVALID_FIELD
        assert h.send(8) == 0 and h.receive().result == GENERAL                 # no such request


def test_before_the_key(home):
    with machine(home) as m:
        h = Host(m.nvme(1).enable())
        assert h.counter() == 0 and h.change(WRITE, bytes(512)).result == NO_KEY and h.read(0, 1).result == NO_KEY
        assert h.change(CONFIG_WRITE, bytes(512)).result == NO_KEY
        assert h.change(SET_KEY, bytes(512), mac=SECRET).result == GENERAL      # a key has no data
        assert h.change(SET_KEY, mac=SECRET).result == OK
        assert h.change(SET_KEY, mac=bytes(32)).result == NOT_WRITTEN           # once
        assert h.counter() == 0
    assert (home / "rpmb").read_bytes()[16:48] == SECRET


def test_writes_are_signed_counted_and_stay(home):
    data = os.urandom(8 * 512)
    with machine(home) as m:
        n = m.nvme(1).enable()
        h = Host(n)
        assert h.change(SET_KEY, mac=SECRET).result == OK
        a = h.change(WRITE, data, address=3)
        assert (a.result, a.counter, a.address) == (OK, 1, 3) and a.signed()
        assert h.change(WRITE, data, address=3).result == WRONG_COUNTER         # the same frame again
        assert h.change(WRITE, data, address=3, counter=2).result == WRONG_COUNTER
        assert h.change(WRITE, data, address=3, counter=1, mac=bytes(range(32))).result == WRONG_MAC
        assert Host(n, bytes(32)).change(WRITE, data, counter=1).result == WRONG_MAC
        assert h.change(WRITE, data, address=512 - 7, counter=1).result == WRONG_ADDRESS
        assert h.change(WRITE, data, address=0xffffffff, counter=1).result == WRONG_ADDRESS
        assert h.change(WRITE, data, counter=1, sectors=7).result == GENERAL and h.change(WRITE, counter=1).result == GENERAL
        assert h.counter() == 1
        a = h.change(WRITE, data[:512], address=511, counter=1)
        assert a.result == OK and a.counter == 2 and h.send(8) == 0 and h.send(RESULT) == 0 and h.receive().result == GENERAL
        n.disable()
        n.enable()
        assert h.command(RECV, 256) == SEQUENCE                                 # a reset forgets what was asked
    with machine(home) as m:
        h = Host(m.nvme(1).enable())
        assert h.counter() == 2
        a = h.read(3, 8)
        assert a.result == OK and a.data == data and a.signed() and (a.address, a.sectors) == (3, 8)
        assert h.read(511, 1).data == data[:512] and h.read(0, 1).data == bytes(512)
        assert h.read(511, 2).result == WRONG_ADDRESS and h.read(0, 2, asked=1).result == GENERAL and h.read(0, 0, asked=1).result == GENERAL
    assert (home / "rpmb").read_bytes()[KEPT + 3 * 512:][:len(data)] == data


def test_the_last_write(home):
    """A counter at its end counts no further (8.18.2.3): answers tell it, writes are refused."""
    with machine(home) as m:
        assert Host(m.nvme(1).enable()).change(SET_KEY, mac=SECRET).result == OK
    with open(home / "rpmb", "r+b") as f:
        f.seek(8)
        f.write(struct.pack("<I", 0xfffffffe))
    with machine(home) as m:
        h = Host(m.nvme(1).enable())
        assert h.change(WRITE, bytes(512), counter=0xfffffffe).result == 0x80
        assert h.change(WRITE, bytes(512), counter=0xffffffff).result == 0x80 | NOT_WRITTEN
        assert h.counter() == 0xffffffff and h.read(0, 1).result == 0x80


def test_boot_partitions_are_locked(home):
    """The device configuration block (8.2.3): protection once on stays, a lock refuses commits and can be opened with the key."""
    def config(enable, lock, rest=b""):
        return (bytes([enable, lock]) + rest).ljust(512, b"\0")

    with machine(home) as m:
        n = m.nvme(1).enable()
        h = Host(n)

        def commit(part):
            n.q.write(h.buf, b"b" * PAGE)
            assert n.admin.run(0x11, prp1=h.buf, cdw=(PAGE // 4 - 1, 0)).status == 0
            return n.admin.run(0x10, cdw=(part << 31 | 6 << 3,)).status

        assert commit(0) == 0
        assert h.change(SET_KEY, mac=SECRET).result == OK
        assert h.change(CONFIG_WRITE, config(0, 1)).result == WRONG_CONFIG      # nothing to lock without protection
        assert h.change(CONFIG_WRITE, config(2, 0)).result == WRONG_CONFIG and h.change(CONFIG_WRITE, config(1, 4)).result == WRONG_CONFIG
        assert h.change(CONFIG_WRITE, config(1, 1, b"\4")).result == WRONG_CONFIG and h.change(CONFIG_WRITE, config(1, 1, b"\0\1")).result == WRONG_CONFIG
        assert h.change(CONFIG_WRITE, config(1, 1) * 2).result == GENERAL
        assert h.change(CONFIG_WRITE, config(1, 1)).counter == 1 and commit(0) == PROHIBITED and commit(1) == 0
        assert h.change(CONFIG_WRITE, config(0, 0), counter=1).result == WRONG_CONFIG
    with machine(home) as m:
        n = m.nvme(1).enable()
        h = Host(n)
        assert commit(0) == PROHIBITED and commit(1) == 0                       # before anything else asked the drive
        nonce = os.urandom(16)
        assert h.send(CONFIG_READ, nonce=nonce, sectors=1) == 0
        a = h.receive(1)
        assert (a.result, a.type, a.counter, a.nonce, a.data) == (OK, 0x700, 1, nonce, config(1, 1)) and a.signed()
        assert h.receive(0).result == GENERAL                                   # no room for it
        assert h.change(CONFIG_WRITE, config(1, 2), counter=1).result == OK and commit(0) == 0 and commit(1) == PROHIBITED


def test_states_of_write_protection(home):
    """Until the power cycle and for ever (8.12.1): entered where the configuration block says so, left by no command; every change is refused."""
    def start():
        return NvmeMachine(home, "-drive", "file=%s/rpmb,format=raw,if=none,id=r" % home, "-blockdev", "driver=null-co,node-name=d,size=8M,read-zeroes=on",
                           "-device", "nvme-subsys,id=ss,state=%s/state" % home, "-device", "nvme,serial=R,subsys=ss,addr=1,rpmb-drive=r",
                           "-device", "nvme-ns,drive=d,nsid=1")

    def state(n):
        return n.feature(0x84, nsid=1).result, n.identify(0, nsid=1)[99]

    def refused(n):
        io = n.io_queue()
        statuses = [write(io, 1, 0, bytes(512)).status, io.run(8, 1).status, n.admin.run(0x80, 1, cdw=(0,)).status, n.admin.run(0x84, cdw=(2,)).status]
        return statuses + [n.admin.run(0x0d, nsid=i, cdw=(1,)).status for i in (1, 0xffffffff)] == [PROTECTED] * 6

    def protect(n, how):
        return n.set_feature(0x84, how, nsid=1).status

    def configure(h, byte, counter):
        return h.change(CONFIG_WRITE, bytes([0, 0, byte]).ljust(512, b"\0"), counter=counter).result

    with start() as m:
        n = m.nvme(1).enable()
        h = Host(n)
        assert n.identify(1)[531] == 7
        assert [protect(n, how) for how in (2, 3, 4, 8)] == [NOT_CHANGEABLE, NOT_CHANGEABLE, INVALID_FIELD, INVALID_FIELD]
        assert h.change(SET_KEY, mac=SECRET).result == OK and protect(n, 2) == NOT_CHANGEABLE
        assert configure(h, 4, 0) == WRONG_CONFIG and configure(h, 1, 0) == OK
        assert protect(n, 3) == NOT_CHANGEABLE and protect(n, 1) == 0 and protect(n, 2) == 0 and state(n) == (2, 1) and refused(n)
        assert [protect(n, how) for how in (0, 1, 2, 3)] == [NOT_CHANGEABLE, NOT_CHANGEABLE, 0, NOT_CHANGEABLE]
        n.disable()
        assert state(n.enable()) == (2, 1)                                      # no power cycle
        m.qmp.cmd("system_reset")
        m.qmp.wait_event("RESET")
        n = m.nvme(1).enable()
        assert state(n) == (0, 0) and protect(n, 2) == 0
    with start() as m:
        n = m.nvme(1).enable()
        assert state(n) == (0, 0) and configure(Host(n), 2, 1) == OK
        assert protect(n, 2) == NOT_CHANGEABLE and protect(n, 3) == 0 and state(n) == (3, 1)
    with start() as m:
        n = m.nvme(1).enable()
        assert state(n) == (3, 1) and refused(n) and [protect(n, how) for how in (0, 1, 2, 3)] == [NOT_CHANGEABLE] * 3 + [0]


def test_a_drive_that_cannot_be_written(home):
    with machine(home, ",readonly=on") as m:
        assert Host(m.nvme(1).enable()).change(SET_KEY, mac=SECRET).result == NOT_WRITTEN


@pytest.mark.parametrize("size", (0, KEPT, UNIT, KEPT + UNIT + 512, KEPT + 257 * UNIT))
def test_drives_of_other_sizes(tmp_path, size):
    with open(tmp_path / "r", "wb") as f:
        f.truncate(size)
    status, _, err = run("-M", "virt", "-drive", "file=%s,format=raw,if=none,id=r" % (tmp_path / "r"), "-device", "nvme,serial=x,rpmb-drive=r")
    assert status == 1 and "rpmb-drive 'r'" in err and "128 KiB" in err, err
