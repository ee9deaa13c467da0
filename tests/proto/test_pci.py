# SPDX-License-Identifier: MIT
"""PCI on the virt board over qtest: enumeration by hand, bridges, the educational devices, option ROMs, hot plug, what users are told."""
import os
import re
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import QmpError, run
from lib.pci import MMIO, PIO, RAM, Fn, PciMachine

BRIDGE = 0x060400


def test_host_bridge_and_automatic_slots():
    with PciMachine("-device", "edu", "-device", "pci-testdev", "-device", "edu,addr=1f.7") as m:
        assert Fn(m.q, 0).rd(0) == 0x00081b36
        assert Fn(m.q, 1).rd(0) == 0x11e81234
        assert Fn(m.q, 2).rd(0) == 0x00051b36
        assert Fn(m.q, 3).rd(0) == 0xffffffff
        assert Fn(m.q, 0x1f, 7).rd(0) == 0x11e81234
        assert Fn(m.q, 1, bus=1).rd(0) == 0xffffffff


def test_query_pci_and_info_pci():
    with PciMachine("-device", "pcie-root-port,id=rp", "-device", "edu,bus=rp.0,id=e") as m:
        rp, e = Fn(m.q, 1), Fn(m.q, 0, bus=1)
        top = m.qmp.cmd("query-pci")
        assert [d["qdev_id"] for d in top[0]["devices"]] == ["", "rp"]
        assert "devices" not in top[0]["devices"][1]["pci_bridge"]
        rp.wr(0x18, 0x010100)
        rp.wr(0x20, MMIO >> 16 | MMIO & 0xfff00000)
        rp.wr(4, 7, 2)
        e.place(0, MMIO)
        e.wr(0x3c, 9, 1)
        host, port = m.qmp.cmd("query-pci")[0]["devices"]
        assert host == {"bus": 0, "slot": 0, "function": 0, "class_info": {"class": 0x600, "desc": "Host bridge"}, "irq_pin": 0, "qdev_id": "",
                        "id": {"vendor": 0x1b36, "device": 8, "subsystem-vendor": 0x1af4, "subsystem": 0x1100}, "regions": []}
        bus = port["pci_bridge"]["bus"]
        assert (bus["number"], bus["secondary"], bus["subordinate"]) == (0, 1, 1)
        assert bus["memory_range"] == {"base": MMIO, "limit": MMIO + 0xfffff}
        assert bus["io_range"] == {"base": 0, "limit": 0xfff}
        dev = port["pci_bridge"]["devices"][0]
        assert dev["regions"] == [{"bar": 0, "type": "memory", "address": MMIO, "size": 1 << 20, "prefetch": False, "mem_type_64": False}]
        assert (dev["bus"], dev["irq"], dev["irq_pin"], dev["qdev_id"]) == (1, 9, 1, "e")
        text = m.qmp.hmp("info pci")
        assert "  Bus  0, device   1, function 0:\n    PCI bridge: PCI device 1b36:000c\n      IRQ 0, pin A\n      BUS 0.\n      secondary bus 1.\n" in text
        assert "  Bus  1, device   0, function 0:\n    Unclassified device: PCI device 1234:11e8\n" in text
        assert "      BAR0: 32 bit memory at 0x40000000 [0x400fffff].\n      id \"e\"\n" in text


def test_a_bridge_below_a_port_forwards():
    """Two levels: a register is reached when both windows are open, an interrupt comes out where the swizzle says."""
    with PciMachine("-device", "pcie-root-port,id=rp,addr=2", "-device", "pci-bridge,id=br,bus=rp", "-device", "edu,bus=br,addr=3") as m:
        m.q.cmd("irq_intercept_in plic")
        rp, br, e = Fn(m.q, 2), Fn(m.q, 0, bus=1), Fn(m.q, 3, bus=2)
        for f, numbers in ((rp, 0x020100), (br, 0x020201)):
            f.wr(0x18, numbers)
            f.wr(0x20, MMIO >> 16 | MMIO & 0xfff00000)
            assert f.rd(8) >> 8 == BRIDGE
        e.place(0, MMIO)
        assert m.q.rd(MMIO) == 0xffffffff
        rp.wr(4, 7, 2)
        assert m.q.rd(MMIO) == 0xffffffff
        br.wr(4, 7, 2)
        assert m.q.rd(MMIO) == 0x010000ed
        m.q.wr(MMIO + 0x60, 1)
        line = 0x20 + (3 + 0 + 2) % 4                   # INTA; slot 3, slot 0 below the port, the port's slot 2
        assert m.q.level(line)
        m.q.wr(MMIO + 0x64, 1)
        assert not m.q.level(line)


# ---- edu ----

@pytest.fixture(name="edu")
def edu_device():
    with PciMachine("-device", "edu,dma_mask=0xffffffff") as m:
        f = Fn(m.q, 1)
        assert f.bar_size(0) == 1 << 20
        f.place(0, MMIO)
        m.fn = f
        yield m


def test_edu_registers(edu):
    q = edu.q
    assert q.rd(MMIO) == 0x010000ed
    q.wr(MMIO + 4, 0x12345678)
    assert q.rd(MMIO + 4) == 0xedcba987
    for n, f in ((0, 1), (1, 1), (5, 120), (12, 479001600), (13, 1932053504), (33, 0x80000000), (34, 0), (0xffffffff, 0)):
        q.wr(MMIO + 8, n)
        while q.rd(MMIO + 0x20) & 1:
            pass
        assert q.rd(MMIO + 8) == f, n


def test_edu_interrupts(edu):
    q = edu.q
    q.cmd("irq_intercept_in plic")
    q.wr(MMIO + 0x20, 0x80)
    q.wr(MMIO + 8, 4)
    while q.rd(MMIO + 0x20) & 1:
        pass
    assert q.rd(MMIO + 0x24) == 1 and q.level(0x21)
    q.wr(MMIO + 0x60, 0x30)
    assert q.rd(MMIO + 0x24) == 0x31
    q.wr(MMIO + 0x64, 0x21)
    assert q.level(0x21)
    q.wr(MMIO + 0x64, 0x10)
    assert not q.level(0x21)


def test_edu_msi_is_a_write(edu):
    msi = edu.fn.cap(5)
    edu.fn.wr(msi + 4, RAM + 0x100)
    edu.fn.wr(msi + 12, 0x77, 2)
    edu.fn.wr(msi + 2, 1, 2)
    edu.q.wr(MMIO + 0x60, 1)
    assert edu.q.rd(RAM + 0x100) == 0x77


def transfer(q, src, dst, count, cmd):
    for off, v in ((0x80, src), (0x88, dst), (0x90, count), (0x98, cmd)):
        q.wr(MMIO + off, v, 8)
    assert q.rd(MMIO + 0x98, 8) & 1
    q.step(2000000)
    assert not q.rd(MMIO + 0x98, 8) & 1


def test_edu_dma_there_and_back(edu):
    q = edu.q
    q.cmd("write 0x%x 0x10 0x%s" % (RAM, bytes(range(16)).hex()))
    transfer(q, RAM, 0x40ff0, 16, 1)
    transfer(q, 0x40ff0, RAM + 0x200, 16, 1 | 2 | 4)
    assert q.cmd("read 0x%x 0x10" % (RAM + 0x200)) == "0x" + bytes(range(16)).hex()
    assert q.rd(MMIO + 0x24) == 0x100


@pytest.mark.parametrize("src,dst,count,cmd", [(RAM, 0x40ff1, 16, 1), (RAM, 0x3fff0, 16, 1), (RAM, 0x40000, 1 << 63, 1), (0x40000, 0x1000, 16, 3),
                                               (0x40000, MMIO, 16, 3), (0xfffffffffffffff0, RAM, 0x20, 3)])
def test_edu_dma_that_cannot_be_done(edu, src, dst, count, cmd):
    before = edu.q.cmd("read 0x%x 0x20" % RAM)
    transfer(edu.q, src, dst, count, cmd)
    assert edu.q.cmd("read 0x%x 0x20" % RAM) == before
    assert edu.q.rd(MMIO) == 0x010000ed


def test_edu_dma_without_bus_mastering(edu):
    edu.fn.wr(4, 2, 2)
    edu.q.wr(RAM + 0x300, 0x5a5a5a5a)
    transfer(edu.q, 0x40000, RAM + 0x300, 4, 3)
    assert edu.q.rd(RAM + 0x300) == 0x5a5a5a5a


# ---- pci-testdev ----

@pytest.mark.parametrize("bar,base,kind", [(0, MMIO, "mmio"), (1, PIO + 0x1000, "portio")])
def test_testdev_counts(bar, base, kind):
    with PciMachine("-device", "pci-testdev") as m:
        Fn(m.q, 1).place(bar, base - PIO if bar else base)
        for test, name in enumerate(("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")):
            m.q.wr(base, test, 1)
            text = bytes(m.q.rd(base + 16 + i, 1) for i in range(24)).split(b"\0")[0].decode()
            assert text == "%s-%s" % (kind, name)
            width, off, data = m.q.rd(base + 1, 1), m.q.rd(base + 4), m.q.rd(base + 8)
            for i in range(3):
                m.q.wr(base + off, data, width)
                assert m.q.rd(base + 12) == i + 1
            m.q.wr(base + off, data ^ 1, width)
            assert m.q.rd(base + 12) == (4 if test == 1 else 3)
        m.q.wr(base, 9, 1)
        assert m.q.rd(base + 4) == 0


# ---- option ROM ----

def test_rom_bar(tmp_path):
    rom = tmp_path / "rom"
    rom.write_bytes(b"\x55\xaa" + bytes(range(256)) * 12)
    with PciMachine("-device", "edu,romfile=%s" % rom, "-device", "edu,romfile=%s,romsize=64k" % rom, "-device", "edu,romfile=") as m:
        for slot, size in ((1, 4096), (2, 65536), (3, 0)):
            f = Fn(m.q, slot)
            f.wr(0x30, 0xfffff800)
            assert -(f.rd(0x30) & ~1) & 0xffffffff == size
        f = Fn(m.q, 1)
        f.wr(0x30, MMIO)
        f.wr(4, 2, 2)
        assert m.q.rd(MMIO) == 0xffffffff
        f.wr(0x30, MMIO | 1)
        assert m.q.rd(MMIO) == 0x0100aa55
        m.q.wr(MMIO, 0)
        assert m.q.rd(MMIO) == 0x0100aa55


# ---- hot plug ----

def test_hot_plug_goes_through_the_slot():
    with PciMachine("-device", "pcie-root-port,id=rp,addr=1") as m:
        port = Fn(m.q, 1)
        cap = port.cap(16)
        port.wr(0x18, 0x010100)
        m.q.cmd("irq_intercept_in plic")
        port.wr(cap + 0x18, 0x102b | 0x7c0, 2)            # presence, link and button events; power off
        m.qmp.cmd("device_add", driver="edu", id="e", bus="rp")
        assert port.rd(cap + 0x1a, 2) & 0x48 == 0x48
        assert m.q.level(0x21)
        port.wr(cap + 0x1a, 0x1ff, 2)
        assert not m.q.level(0x21)
        assert Fn(m.q, 0, bus=1).rd(0) == 0xffffffff
        port.wr(cap + 0x18, 0x102b | 0x1c0, 2)
        assert Fn(m.q, 0, bus=1).rd(0) == 0x11e81234
        m.qmp.cmd("device_del", id="e")
        assert port.rd(cap + 0x1a, 2) & 1
        with pytest.raises(QmpError, match="has not answered yet"):
            m.qmp.cmd("device_del", id="e")
        port.wr(cap + 0x18, 0x102b | 0x7c0, 2)
        assert m.qmp.wait_event("DEVICE_DELETED")["data"]["device"] == "e"
        assert port.rd(cap + 0x1a, 2) & 0x48 == 8


def test_hot_plug_where_it_cannot_be():
    with PciMachine("-device", "edu,id=e", "-device", "pcie-root-port,id=fixed,hotplug=off") as m:
        with pytest.raises(QmpError, match="bus 'pcie.0' does not take devices while the machine runs.*pcie-root-port"):
            m.qmp.cmd("device_add", driver="edu", bus="pcie.0")
        with pytest.raises(QmpError, match="bus 'fixed' does not take"):
            m.qmp.cmd("device_add", driver="edu", bus="fixed")
        with pytest.raises(QmpError, match="bus 'pcie.0' does not let devices go"):
            m.qmp.cmd("device_del", id="e")
        with pytest.raises(QmpError, match="'pcie-root-port' cannot be plugged while the machine runs"):
            m.qmp.cmd("device_add", driver="pcie-root-port")


# ---- what users are told ----

@pytest.mark.parametrize("args,message", [
    (["edu,addr=20"], "addr"),
    (["edu,addr=1", "edu,addr=1"], "address 01.0 of bus 'pcie.0' is taken by"),
    (["edu,addr=1", "edu,addr=1.1"], "is not multifunction"),
    (["edu,addr=0"], "address 00.0 of bus 'pcie.0' is taken by"),
    (["pcie-root-port,id=a", "edu,bus=a", "edu,bus=a"], "bus 'a' is full"),
    (["pcie-root-port,id=a", "edu,bus=a,addr=1"], "bus 'a' has no slot 1"),
    (["pcie-root-port,id=a", "edu,bus=b"], "'b'"),
    (["pcie-root-port,id=a,slot=3", "pcie-root-port,id=b,slot=3"], "slot 3 of chassis 0 is that of 'a'"),
    (["pcie-root-port,id=a", "pcie-root-port,bus=a"], "a root port belongs on a root bus"),
    (["edu,romfile=/nonexistent/rom"], "romfile '/nonexistent/rom' cannot be opened: No such file"),
    (["edu,romfile=/dev/null"], "0 bytes"),
    (["edu,romsize=4k"], "romsize= has no effect without romfile="),
    (["pci-testdev,membar=3M"], "membar"),
])
def test_mistakes(args, message):
    words = [w for a in args for w in ("-device", a)]
    status, _, err = run("-M", "virt", "-accel", "qtest", "-display", "none", "-nodefaults", *words)
    assert status == 1
    assert message in err, err


def test_help_lists_options():
    out = run("-device", "pcie-root-port,help")[1]
    for name in ("addr", "chassis", "slot", "hotplug", "multifunction", "romfile", "port"):
        assert re.search(r"(?m)^ *%s=" % name, out), out
    out = run("-device", "help")[1]
    for name in ("edu", "pci-bridge", "pci-testdev", "pcie-root-port"):
        assert re.search(r"\b%s\b" % re.escape(name), out)
