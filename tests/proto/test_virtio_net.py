# SPDX-License-Identifier: MIT
"""virtio-net over qtest: frames as a socket brings them, whatever their size."""
import os
import socket
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import RAM
from lib.virtio import NEEDS_RESET, VirtioMachine

DATA = RAM + 0x800000
HEADER = 12


@pytest.fixture(name="card")
def card_and_wire(tmp_path):
    """(the card, driven; the other end of its cable)."""
    path = str(tmp_path / "wire")
    with VirtioMachine(tmp_path, "-nodefaults", "-netdev", "stream,id=n,server=on,addr.type=unix,addr.path=" + path,
                       "-device", "virtio-net-pci,netdev=n,addr=4,mac=52:54:00:00:00:07") as m:
        wire = m.connect(path)
        fn = m.fn(4)
        assert fn.negotiate()
        fn.machine, fn.rx, fn.tx = m, fn.queue(0), fn.queue(1, size=128)
        fn.start()
        yield fn, wire
        wire.close()


def frame(wire):
    n = struct.unpack(">I", wire.recv(4, socket.MSG_WAITALL))[0]
    return wire.recv(n, socket.MSG_WAITALL)


@pytest.mark.parametrize("data", [b"TEST\0", bytes(range(60)), bytes(1514)])
def test_a_frame_of_any_length_arrives_as_it_is(card, data):
    fn, wire = card
    fn.rx.put((DATA, 2048, True))
    fn.kick(fn.rx)
    wire.sendall(struct.pack(">I", len(data)) + data)
    assert fn.rx.wait() == (0, HEADER + len(data))
    assert fn.q.read(DATA + HEADER, len(data)) == data


def test_a_frame_that_came_while_the_machine_stood_arrives(card):
    fn, wire = card
    fn.rx.put((DATA, 64, True))
    fn.kick(fn.rx)
    fn.machine.qmp.cmd("stop")
    wire.sendall(struct.pack(">I", 4) + b"late")
    fn.machine.qmp.cmd("query-status")
    fn.machine.qmp.cmd("cont")
    fn.rx.wait()
    assert fn.q.read(DATA + HEADER, 4) == b"late"


def test_a_chain_that_no_wire_carries_is_dropped(card):
    """More than 4 GiB in one packet, by naming the same memory often: it is used, the card lives."""
    fn, wire = card
    fn.tx.put(*[(RAM, 64 << 20, False)] * 65)
    fn.kick(fn.tx)
    fn.tx.wait()
    assert not fn.get(0x14, 1) & NEEDS_RESET
    fn.q.write(DATA, bytes(HEADER) + b"x" * 60)
    fn.tx.put((DATA, HEADER + 60, False), head=100)
    fn.kick(fn.tx)
    assert fn.tx.wait()[0] == 100
    assert frame(wire) == b"x" * 60
