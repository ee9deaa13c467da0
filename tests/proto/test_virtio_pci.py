# SPDX-License-Identifier: MIT
"""Virtio over PCI: identity, capabilities, the three ways to the registers, interrupts, resets, what a driver does wrong."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import run
from lib.nvme import RAM
from lib.virtio import (ACK, COMMON, DEVICE, DRIVER, DRIVER_OK, FEATURES_OK, ISR, NEEDS_RESET, NOTIFY, RING_RESET, WINDOW, VirtioMachine,
                        disk_read)

BUF = RAM + 0x4000000
DATA = b"".join(b"%015d\n" % i for i in range(65536))
MODERN, TRANSITIONAL, LEGACY, INTX, PAGED = 1, 2, 3, 4, 5       # slots


@pytest.fixture(name="m", scope="module")
def machine(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("vpci")
    args = []
    for i, options in enumerate(("virtio-blk-pci", "virtio-blk-pci-transitional", "virtio-blk-pci,disable-modern=on,disable-legacy=off",
                                 "virtio-blk-pci,vectors=0", "virtio-blk-pci,page-per-vq=on,num-queues=4,vectors=3")):
        img = str(tmp / ("img%d" % i))
        with open(img, "wb") as f:
            f.write(DATA)
        args += ["-drive", "file=%s,format=raw,if=none,id=d%d" % (img, i), "-device", "%s,drive=d%d,id=dev%d" % (options, i, i)]
    with VirtioMachine(tmp, *args, "-device", "virtio-rng-pci,addr=10,id=rng") as m:
        yield m


def start(fn, features=0, vector=None, queue=0, config_vector=None):
    assert fn.negotiate(features)
    if config_vector is not None:
        fn.set(0x10, 2, config_vector)
    vq = fn.queue(queue, vector=vector)
    fn.start()
    return vq


def reads(fn, vq, sector=3):
    status = disk_read(fn, vq, sector, BUF)
    assert vq.wait() == (0, 513)
    assert fn.q.read(status, 1) == b"\0"
    return fn.q.read(BUF, 512) == DATA[512 * sector:512 * sector + 512]


@pytest.mark.parametrize("slot,device,revision,subsystem,bars", [
    (MODERN, 0x1042, 1, 0x1100, {1, 4}), (TRANSITIONAL, 0x1001, 0, 2, {0, 1, 4}), (LEGACY, 0x1001, 0, 2, {0, 1}), (INTX, 0x1042, 1, 0x1100, {4}),
    (0x10, 0x1044, 1, 0x1100, {1, 4})])
def test_identity(m, slot, device, revision, subsystem, bars):
    fn = m.fn(slot)
    assert (fn.conf(0, 2), fn.conf(2, 2), fn.conf(8, 1)) == (0x1af4, device, revision)
    assert (fn.conf(0x2c, 2), fn.conf(0x2e, 2), fn.conf(0x3d, 1)) == (0x1af4, subsystem, 1)
    assert set(fn.bar) == bars
    assert fn.conf(9, 3) == (0x00ff00 if slot == 0x10 else 0x010000)


def test_capabilities(m):
    fn = m.fn(MODERN)
    assert set(fn.caps) == {COMMON, NOTIFY, ISR, DEVICE, WINDOW}
    areas = sorted((off, off + size) for kind, (_, bar, off, size) in fn.caps.items() if kind != WINDOW)
    assert all(bar == 4 for kind, (_, bar, _, _) in fn.caps.items() if kind != WINDOW)
    assert all(a[1] <= b[0] for a, b in zip(areas, areas[1:])) and areas[-1][1] <= fn.bar[4][1]
    assert fn.bar[4][2] == 12                               # 64 bits, prefetchable
    assert DEVICE not in m.fn(0x10).caps                    # virtio-rng has no configuration
    assert not m.fn(LEGACY).caps
    assert m.fn(PAGED).multiplier == 4096 and m.fn(MODERN).multiplier == 4


def test_negotiation(m):
    fn = m.fn(MODERN)
    assert fn.offered() >> 32 & 1
    assert fn.offered() & (1 << 24 | 1 << 27) == 0          # bits of the legacy interface
    assert fn.negotiate()
    assert not fn.negotiate(1 << 63)
    fn.set(0x14, 1, 0)
    fn.set(8, 4, 0)
    fn.set(12, 4, 0xffffffff)
    fn.set(0x14, 1, ACK | DRIVER | FEATURES_OK)
    assert not fn.get(0x14, 1) & FEATURES_OK                # VERSION_1 is missing
    fn.set(0, 4, 2)
    assert fn.get(4, 4) == 0                                # there is no third word
    assert fn.get(0x12, 2) == 1
    fn.set(0x16, 2, 1)
    assert fn.get(0x18, 2) == 0                             # no such queue


def test_nothing_starts_without_features_ok(m):
    """3.1.1: what was refused does not hold, by whichever registers the driver goes on."""
    fn = m.fn(TRANSITIONAL)
    assert not fn.negotiate(1 << 63 | 1 << 34)
    vq = fn.queue(0)
    fn.set(0x14, 1, ACK | DRIVER | DRIVER_OK)
    assert fn.get(0x14, 1) == ACK | DRIVER
    disk_read(fn, vq, 3, BUF)
    assert not vq.done()
    fn.port(18, 1, ACK | DRIVER | DRIVER_OK)                # as a legacy driver: with no feature at all, not with packed rings
    assert vq.wait() == (0, 513)
    fn.reset()


def test_status_bits_stay_until_a_reset(m):
    """2.1.1: a driver that takes them back cannot change what was agreed on under the rings."""
    fn = m.fn(MODERN)
    vq = start(fn)
    fn.set(0x14, 1, ACK)
    assert fn.get(0x14, 1) == ACK | FEATURES_OK | DRIVER_OK
    fn.set(8, 4, 1)
    fn.set(12, 4, 0xffffffff)
    assert fn.get(12, 4) == 1 and reads(fn, vq)
    fn.reset()
    assert fn.get(0x14, 1) == 0 and fn.get(12, 4) == 0


DMA = [("virtio-blk-pci,drive=d", 0), ("virtio-rng-pci", 0), ("virtio-net-pci,netdev=n", 1), ("virtio-serial-pci", 3), ("virtio-balloon-pci", 0),
       ("virtio-scsi-pci", 0)]


@pytest.mark.parametrize("device,queue", DMA, ids=[d.split(",")[0] for d, _ in DMA])
def test_a_device_does_not_reach_its_own_registers(tmp_path, device, queue):
    """Rings and buffers in its BAR: DMA to registers is refused, so that no device runs within itself; it wants a reset, and works after it."""
    with VirtioMachine(tmp_path, "-nodefaults", "-blockdev", "null-co,node-name=d,size=1M", "-netdev", "user,id=n", "-device", device + ",addr=1") as m:
        fn = m.fn(1)
        doorbell = fn.addr(NOTIFY)
        for area in (0x20, 0x28, 0x30, None):
            assert fn.negotiate()
            vq = fn.queue(queue)
            if area:
                assert fn.negotiate()
                fn.set(0x16, 2, queue)
                for off, a in ((0x20, vq.desc), (0x28, vq.avail), (0x30, vq.used)):
                    fn.set(off, 4, doorbell if off == area else a)
                fn.set(0x1c, 2, 1)
            fn.start()
            vq.put((doorbell, 64, False), (doorbell + 64, 64, True))
            fn.kick(vq)
            assert fn.get(0x14, 1) & NEEDS_RESET and not vq.done()
        assert fn.negotiate() and not fn.get(0x14, 1) & NEEDS_RESET


def test_modern_read_by_pin(m):
    fn = m.fn(INTX)
    vq = start(fn)
    assert fn.conf(6, 2) & 8 == 0
    assert reads(fn, vq)
    assert fn.conf(6, 2) & 8                                # the pin
    assert fn.get(0, 1, ISR) == 1
    assert fn.get(0, 1, ISR) == 0 and fn.conf(6, 2) & 8 == 0        # reading clears and releases
    assert fn.get(0x1a, 2) == 0xffff
    fn.set(0x1a, 2, 0)
    assert fn.get(0x1a, 2) == 0xffff                        # it has no vectors at all


def test_vectors(m):
    fn = m.fn(PAGED)
    fn.msix_enable()
    vq = start(fn, vector=2, queue=3, config_vector=1)
    assert (fn.get(0x10, 2), fn.get(0x1a, 2)) == (1, 2)
    assert reads(fn, vq)
    assert fn.pending() == 4
    assert fn.get(0, 1, ISR) == 0 and fn.conf(6, 2) & 8 == 0        # no trace on the pin
    fn.set(0x1a, 2, 3)
    assert fn.get(0x1a, 2) == 0xffff                        # three vectors: 0 to 2 (4.1.5.1.2.1)
    disk_read(fn, vq, 1, BUF)
    vq.wait()
    assert fn.pending() == 4
    m.qmp.cmd("block_resize", device="d4", size=1 << 21)
    assert fn.pending() == 6 and fn.get(0, 1, ISR) == 2
    fn.msix_enable(False)


@pytest.mark.parametrize("compat,isr", [("none", 2), ("qemu", 3)])
def test_a_changed_configuration_on_the_pin(tmp_path, compat, isr):
    """4.1.4.5: bit 1 tells it. What was written to wait for QEMU looks at bit 0, which a driver may find set for nothing."""
    (tmp_path / "img").write_bytes(DATA)
    with VirtioMachine(tmp_path, "-compat", compat, "-nodefaults", "-drive", "file=%s,format=raw,if=none,id=d" % (tmp_path / "img"),
                       "-device", "virtio-blk-pci,drive=d,addr=1,disable-legacy=on") as m:
        fn = m.fn(1)
        start(fn)
        m.qmp.cmd("block_resize", device="d", size=1 << 19)
        assert fn.conf(6, 2) & 8 and fn.get(0, 1, ISR) == isr
        assert fn.conf(6, 2) & 8 == 0 and fn.get(0, 4, DEVICE) == 1 << 10


def test_pin_follows_the_msix_switch(m):
    fn = m.fn(MODERN)
    vq = start(fn)
    assert reads(fn, vq)
    assert fn.conf(6, 2) & 8
    fn.msix_enable()
    assert fn.conf(6, 2) & 8 == 0
    fn.msix_enable(False)
    assert fn.conf(6, 2) & 8
    fn.get(0, 1, ISR)


def test_window_in_configuration_space(m):
    """4.1.4.9: every register without a BAR."""
    fn = m.fn(MODERN)
    at = fn.caps[WINDOW][0]

    def window(off, size, v=None):
        fn.conf_set(at + 4, 1, 4)
        fn.conf_set(at + 8, 4, off)
        fn.conf_set(at + 12, 4, size)
        if v is not None:
            fn.conf_set(at + 16, 4, v)
        return fn.conf(at + 16, size)

    fn.negotiate()
    common, isr = fn.caps[COMMON][2], fn.caps[ISR][2]
    assert window(common + 0x14, 1) == ACK | DRIVER | FEATURES_OK
    assert window(common + 0x12, 2) == 1
    window(common + 0x14, 1, 0)
    assert fn.get(0x14, 1) == 0
    assert window(fn.caps[DEVICE][2], 4) == len(DATA) // 512
    vq = start(fn)
    status = disk_read(fn, vq, 9, BUF, kick=False)
    window(fn.caps[NOTIFY][2], 2, 0)
    vq.wait()
    assert fn.q.read(status, 1) == b"\0" and fn.q.read(BUF, 16) == DATA[9 * 512:9 * 512 + 16]
    assert window(isr, 1) == 1 and window(isr, 1) == 0
    for off, size in ((common + 1, 4), (common, 3), (common, 0xffffffff), (0xfffffffc, 4), (fn.caps[NOTIFY][2] + 0x10000, 4)):
        fn.conf_set(at + 8, 4, off)
        fn.conf_set(at + 12, 4, size)
        fn.conf_set(at + 16, 4, 0)
        fn.conf(at + 16, 4)                                 # nothing is there; nothing happens
    assert fn.get(0x14, 1) == ACK | DRIVER | FEATURES_OK | DRIVER_OK


@pytest.mark.parametrize("slot", [TRANSITIONAL, LEGACY])
def test_legacy_registers(m, slot):
    fn = m.fn(slot)
    fn.port(18, 1, 0)
    assert fn.port(18, 1) == 0
    fn.port(18, 1, ACK)
    fn.port(18, 1, ACK | DRIVER)
    offered = fn.port(0, 4)
    assert offered & (1 << 24) and offered & (1 << 27) and offered & (1 << 28)
    fn.port(4, 4, 0)
    fn.port(14, 2, 0)
    size = fn.port(12, 2)
    assert size == 256
    vq = __import__("lib.virtio", fromlist=["Queue"]).Queue(fn, 0, size, RAM + 0x200000)
    fn.port(8, 4, (RAM + 0x200000) >> 12)
    assert fn.port(8, 4) == (RAM + 0x200000) >> 12
    fn.port(18, 1, ACK | DRIVER | DRIVER_OK)
    disk_read(fn, vq, 7, BUF, kick=False)
    fn.port(16, 2, 0)
    assert vq.wait() == (0, 513)
    assert fn.q.read(BUF, 512) == DATA[7 * 512:8 * 512]
    assert fn.conf(6, 2) & 8
    assert fn.port(19, 1) == 1 and fn.port(19, 1) == 0
    assert fn.port(20, 4) == len(DATA) // 512               # the configuration begins here
    fn.msix_enable()
    assert fn.port(24, 4) == len(DATA) // 512               # or here (4.1.4.8)
    fn.port(22, 2, 1)
    assert fn.port(22, 2) == 1
    fn.port(20, 2, 77)
    assert fn.port(20, 2) == 0xffff
    fn.msix_enable(False)
    fn.port(8, 4, 0)
    assert fn.port(8, 4) == 0
    fn.port(18, 1, 0)


def test_both_interfaces_of_one_device(m):
    fn = m.fn(TRANSITIONAL)
    fn.port(18, 1, 0)
    fn.port(18, 1, ACK)
    assert fn.get(0x14, 1) == ACK
    vq = start(fn)
    assert reads(fn, vq)
    fn.get(0, 1, ISR)


def test_reset_of_a_queue(m):
    fn = m.fn(MODERN)
    vq = start(fn, RING_RESET)
    assert reads(fn, vq)
    fn.set(0x3a, 2, 1)
    assert (fn.get(0x3a, 2), fn.get(0x1c, 2), fn.get(0x18, 2)) == (0, 0, 256)
    disk_read(fn, vq, 1, BUF)
    assert not vq.done()                                    # the ring is not looked at any more
    vq = fn.queue(0, 32)
    assert fn.get(0x18, 2) == 32 and reads(fn, vq)
    start(fn)                                               # without the feature the register does nothing
    fn.set(0x3a, 2, 1)
    assert fn.get(0x1c, 2) == 1


def test_live_queue_is_not_changed(m):
    fn = m.fn(MODERN)
    vq = start(fn)
    fn.set(0x20, 4, 0xdead0000)
    fn.set(0x18, 2, 4)
    assert fn.get(0x18, 2) == 16 and fn.get(0x20, 4) == vq.desc & 0xffffffff
    fn.set(0x1c, 2, 0)
    assert fn.get(0x1c, 2) == 1
    assert reads(fn, vq)


@pytest.mark.parametrize("size", [0, 3, 24, 512, 0xffff])
def test_queue_sizes_that_are_not_possible(m, size):
    fn = m.fn(MODERN)
    fn.negotiate()
    fn.set(0x16, 2, 0)
    fn.set(0x18, 2, size)
    assert fn.get(0x18, 2) == 256


def test_ring_outside_of_memory(m):
    fn = m.fn(MODERN)
    fn.msix_enable()
    assert fn.negotiate()
    fn.set(0x10, 2, 0)
    fn.set(0x16, 2, 0)
    fn.set(0x20, 4, 0xfffff000)
    fn.set(0x24, 4, 0xffffffff)
    fn.set(0x1c, 2, 1)
    fn.start()
    assert fn.get(0x14, 1) & NEEDS_RESET and fn.pending() & 1
    fn.msix_enable(False)
    vq = start(fn)
    assert reads(fn, vq)


def test_without_bus_mastering_nothing_is_touched(m):
    fn = m.fn(MODERN)
    vq = start(fn)
    fn.conf_set(4, 2, 2)
    status = disk_read(fn, vq, 1, BUF)
    assert fn.q.read(status, 1) == b"\xff" and not vq.done()
    fn.conf_set(4, 2, 6)
    assert fn.get(0x14, 1) & NEEDS_RESET
    vq = start(fn)
    assert reads(fn, vq)


def test_function_level_reset(m):
    fn = m.fn(MODERN)
    start(fn, config_vector=0)
    at = fn.conf(0x34, 1)
    while fn.conf(at, 1) != 0x10:
        at = fn.conf(at + 1, 1)
    fn.conf_set(at + 8, 2, 0x8000)
    m.qmp.cmd("query-status")                               # the main loop has run
    fn = m.fn(MODERN)
    assert fn.get(0x14, 1) == 0 and fn.get(0x10, 2) == 0xffff
    vq = start(fn)
    assert reads(fn, vq)


def test_odd_accesses(m):
    """Wrong widths, beyond the ends of areas: answered, nothing breaks."""
    fn = m.fn(PAGED)
    vq = start(fn)
    for kind in (COMMON, NOTIFY, ISR, DEVICE):
        for off in (0, 1, 2, 4, 0x3c, 0x40, 0xff8, 0xffc):
            for size in (1, 2, 4):
                if off % size == 0 and not (kind == COMMON and 0x14 <= off < 0x15):
                    fn.get(off, size, kind)
                    if kind in (NOTIFY, ISR, DEVICE):
                        fn.set(off, size, 0xffffffff, kind)
    assert fn.q.readq(fn.addr(COMMON, 0x20)) == vq.desc
    assert reads(fn, vq)


@pytest.mark.parametrize("options,why", [
    ("disable-modern=on", "disable-modern=on leaves no registers"),
    ("vectors=2049", "vectors"),
    ("disable-legacy=maybe", "disable-legacy"),
    ("ioeventfd=on", "'ioeventfd' for device 'virtio-rng-pci' is not in this build")])
def test_options_are_checked(options, why):
    status, _, err = run("-M", "virt", "-accel", "qtest", "-display", "none", "-device", "virtio-rng-pci," + options)
    assert status == 1 and why in err


def test_named_kinds_have_no_switches():
    status, _, err = run("-M", "virt", "-accel", "qtest", "-display", "none", "-device", "virtio-rng-pci-transitional,disable-modern=on")
    assert status == 1 and "unknown property 'disable-modern'" in err


def test_qemu_default_is_transitional_on_the_root_bus(tmp_path):
    with VirtioMachine(tmp_path, "-compat", "qemu", "-device", "virtio-rng-pci,addr=3", "-device", "virtio-rng-pci-non-transitional,addr=4",
                       "-device", "pcie-root-port,id=rp,addr=5,chassis=1", "-device", "virtio-rng-pci,bus=rp") as m:
        assert m.fn(3).conf(2, 2) == 0x1005 and m.fn(3).conf(0x2e, 2) == 4
        assert m.fn(4).conf(2, 2) == 0x1044
        m.q.cmd("writel 0x%x 0x10100" % (0x30000000 + (5 << 15) + 0x18))
        assert m.q.readl(0x30000000 + (1 << 20)) == 0x10441af4


