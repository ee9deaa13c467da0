# SPDX-License-Identifier: MIT
"""The gdb server with the real gdb on a small guest of two harts, and with raw packets; what the monitors show of CPUs."""
import os
import re
import socket
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, QmpError, connect, run

# Hart 0 goes to S mode, where 0x40000000 upwards is RAM by a gigapage; hart 1 counts in M mode.
SOURCE = """
    .globl _start, spin, work, done
_start:
    csrr t0, mhartid
    bnez t0, spin
    li t0, -1
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    lla t1, table
    li t0, 0x200000cf           # 0x80000000, a leaf, D A X W R V
    sd t0, 8(t1)                # at 0x40000000
    sd t0, 16(t1)               # and where it is
    srli t1, t1, 12
    li t0, 8 << 60
    or t0, t0, t1
    csrw satp, t0
    sfence.vma
    li t0, 0x2800               # MPP S, FS initial
    csrw mstatus, t0
    lla t0, high
    li t1, 0x40000000
    sub t0, t0, t1
    csrw mepc, t0
    li a0, 0
    mret
    .balign 4
high:
    lla s0, value
    li t0, 3
    fcvt.d.w fa0, t0
loop:
    jal work
    sd a0, 0(s0)
    ld a1, 8(s0)
done:
    j loop
work:
    addi a0, a0, 1
    ret
spin:
    addi t1, t1, 1
    j spin
    .balign 8
value: .dword 0, 77
    .balign 4096
table: .fill 512, 8, 0
"""


@pytest.fixture(name="guest", scope="module")
def built_guest(tmp_path_factory):
    d = str(tmp_path_factory.mktemp("gdb"))
    with open(d + "/g.s", "w", encoding="ascii") as f:
        f.write(SOURCE)
    subprocess.run(["riscv64-linux-gnu-gcc", "-nostdlib", "-static", "-Wl,-Ttext=0x80000000,--no-relax,--build-id=none", "-o", d + "/g.elf", d + "/g.s"], check=True)
    subprocess.run(["riscv64-linux-gnu-objcopy", "-O", "binary", d + "/g.elf", d + "/g.bin"], check=True)
    return d


class Debugged(Machine):
    """A machine that waits for gdb on a socket."""

    def __init__(self, guest, *args, stop=True):
        self.guest = guest
        super().__init__("-M", "virt", "-smp", "2", "-m", "64M", "-bios", guest + "/g.bin", "-serial", "null", *(["-S"] if stop else []),
                         "-gdb", "unix:%s/gdb" % guest, *args)

    def gdb(self, *commands):
        """What gdb prints for COMMANDS."""
        cmd = ["gdb-multiarch", "-nx", "-batch", "-ex", "set pagination off", "-ex", "set confirm off", "-ex", "set sysroot /",
               "-ex", "target remote %s/gdb" % self.guest]
        for c in commands:
            cmd += ["-ex", c]
        p = subprocess.run(cmd + [self.guest + "/g.elf"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        return p.stdout + p.stderr

    def symbol(self, name):
        out = subprocess.run(["riscv64-linux-gnu-nm", self.guest + "/g.elf"], capture_output=True, text=True, check=True).stdout
        return int(re.search(r"^(\w+) . %s$" % name, out, re.M).group(1), 16)


class Remote:
    """Packets by hand."""

    def __init__(self, m):
        self.sock = connect(m.guest + "/gdb", m.process)
        self.buf = b""

    def byte(self):
        if not self.buf:
            self.buf = self.sock.recv(65536)
            if not self.buf:
                raise EOFError
        b, self.buf = self.buf[:1], self.buf[1:]
        return b

    def receive(self):
        while self.byte() != b"$":
            pass
        body = b""
        while not body.endswith(b"#"):
            body += self.byte()
        total = self.byte() + self.byte()
        assert int(total, 16) == sum(body[:-1]) & 255
        try:
            self.sock.sendall(b"+")
        except BrokenPipeError:         # the program has ended
            pass
        return re.sub(b"}(.)", lambda x: bytes([x.group(1)[0] ^ 32]), body[:-1], flags=re.S)

    def send(self, body):
        body = body if isinstance(body, bytes) else body.encode()
        self.sock.sendall(b"$" + body + b"#%02x" % (sum(body) & 255))

    def ask(self, body):
        self.send(body)
        return self.receive().decode("latin-1")

    def close(self):
        self.sock.close()


@pytest.fixture(name="m")
def debugged(guest):
    with Debugged(guest) as m:
        yield m


@pytest.fixture(name="r")
def remote(m):
    r = Remote(m)
    yield r
    r.close()


def test_gdb_breaks_steps_and_reads_registers(m):
    low = m.symbol("work") - 0x40000000
    out = m.gdb("hbreak *0x%x" % low, "continue", "p/x $pc", "p $a0", "stepi", "p $a0", "p $fa0.double", "p/x $satp >> 60", "p $priv",
                "p/x $fcsr", "info threads", "continue", "p $a0", "delete", "detach")
    assert "$1 = 0x%x" % low in out, out
    got = re.findall(r"^\$\d+ = .*$", out, re.M)
    assert got[1:] == ["$2 = 0", "$3 = 1", "$4 = 3", "$5 = 0x8", "$6 = 1", "$7 = 0x0", "$8 = 1"], out
    assert "CPU#0" in out and "CPU#1" in out
    assert m.qmp.cmd("query-status")["status"] == "running"


def test_gdb_reads_and_writes_through_the_page_table(m):
    low, v = m.symbol("done") - 0x40000000, m.symbol("value")
    out = m.gdb("hbreak *0x%x" % low, "continue", "x/1gd 0x%x" % (v - 0x40000000 + 8), "set *(long *)0x%x = 5" % (v - 0x40000000 + 8),
                "continue", "p $a1", "set $a0 = 41", "continue", "p $a0", "x/2i $pc", "x/1gd 0x3fffffff")
    assert re.search(r":\t77$", out, re.M), out
    assert re.search(r"^\$1 = 5$", out, re.M) and re.search(r"^\$2 = 42$", out, re.M), out
    assert re.search(r"=> 0x%x:\tj\t" % low, out), out
    assert "Cannot access memory at address 0x3fffffff" in out


def test_gdb_watchpoints(m):
    v = m.symbol("value") - 0x40000000
    out = m.gdb("hbreak *0x%x" % (m.symbol("done") - 0x40000000), "continue", "delete", "watch *(long *)0x%x" % v, "continue", "continue", "delete",
                "rwatch *(long *)0x%x" % (v + 8), "continue", "p/x $pc", "delete", "awatch *(char *)0x%x" % (v + 7), "continue", "p/x $pc")
    assert out.count("Hardware watchpoint") >= 2 and "Old value = 1\nNew value = 2" in out and "Old value = 2\nNew value = 3" in out, out
    assert "Value = 77" in out
    assert "$1 = 0x%x" % (m.symbol("done") - 0x40000000) in out, out
    assert "$2 = 0x%x" % (m.symbol("done") - 0x40000000 - 2) in out, out


def test_one_hart_steps_while_the_other_stands(m):
    out = m.gdb("hbreak *0x%x" % m.symbol("spin"), "continue", "delete", "thread 1", "hbreak *0x%x" % (m.symbol("work") - 0x40000000), "continue", "delete",
                "set scheduler-locking on", "thread 2", "p/x $t1 - 0",
                "stepi", "stepi", "p/x $t1", "thread 1", "stepi", "thread 2", "p/x $t1")
    a, b, c = (int(x, 16) for x in re.findall(r"^\$\d+ = 0x(\w+)$", out, re.M))
    assert b == a + 1 and c == b, out


def test_monitor_commands_through_gdb(m):
    out = m.gdb("monitor info status", "monitor info registers", "monitor nosuch")
    assert "VM status: paused" in out and re.search(r"x2/sp +0000000000000000", out) and "unknown command: 'nosuch'" in out, out


def test_kill_ends_the_program(m):
    m.gdb("kill")
    assert m.wait() == 0


def test_packets(m, r):
    assert "PacketSize=" in r.ask("qSupported:vContSupported+") and r.ask("vCont?") == "vCont;c;C;s;S"
    assert r.ask("?").startswith("T") and r.ask("qAttached") == "1" and r.ask("qC") == "QC1"
    assert r.ask("qfThreadInfo") == "m1,2" and r.ask("qsThreadInfo") == "l"
    assert bytes.fromhex(r.ask("qThreadExtraInfo,2")) == b"CPU#1"
    assert r.ask("T2") == "OK" and r.ask("T3").startswith("E") and r.ask("Hg9").startswith("E")
    assert len(r.ask("g")) == 33 * 16
    assert r.ask("P5=efcdab8967452301") == "OK" and r.ask("p5") == "efcdab8967452301"
    assert r.ask("g")[5 * 16:6 * 16] == "efcdab8967452301"
    assert r.ask("pffff").startswith("E") and r.ask("P5=12").startswith("E") and r.ask("!!") == "" and r.ask("qNothing") == ""
    xml = r.ask("qXfer:features:read:target.xml:0,fff")
    assert xml[0] == "l" and "riscv:rv64" in xml
    assert r.ask("qXfer:features:read:nosuch.xml:0,10") == "E00"
    whole, part = r.ask("qXfer:features:read:riscv-64bit-cpu.xml:0,1000")[1:], r.ask("qXfer:features:read:riscv-64bit-cpu.xml:10,20")
    assert part == "m" + whole[16:48]


def test_memory_packets(m, r):
    assert r.ask("M80010000,4:01020304") == "OK" and r.ask("m80010000,4") == "01020304"
    assert r.ask(b"X80010004,3:\x00}\x03\x7f") == "OK" and r.ask("m80010000,8") == "0102030400237f00"
    assert r.ask("m80010000,0") == "" and r.ask("m0,").startswith("E") and r.ask("mzz").startswith("E") and r.ask("M80010000,4:01").startswith("E")
    assert r.ask("m50,4") in ("E14",)
    assert len(r.ask("m80000000,ffffff")) == 0x4000
    assert r.ask("Z0,80000000,4") == "OK" and r.ask("Z0,80000000,4") == "OK" and r.ask("z0,80000000,4") == "OK"
    assert r.ask("Z9,0,1") == "" and r.ask("Z0,x").startswith("E")


def test_physical_addresses_on_request(m, r):
    assert r.ask("qqemu.Supported") == "PhyMemMode" and r.ask("qqemu.PhyMemMode") == "0"
    stop = m.symbol("work") - 0x40000000
    assert r.ask("Z1,%x,2" % stop) == "OK" and r.ask("vCont;c") == "T05thread:1;"
    code = r.ask("m%x,4" % stop)
    assert r.ask("m7fffff00,4").startswith("E") and len(code) == 8
    v = m.symbol("value")
    assert r.ask("Qqemu.PhyMemMode:1") == "OK" and r.ask("qqemu.PhyMemMode") == "1" and r.ask("Qqemu.PhyMemMode:2").startswith("E")
    assert r.ask("m%x,8" % (v + 8)) == "4d00000000000000" and r.ask("m%x,4" % stop) != code


def test_interrupt_and_vcont(m, r):
    before = "0" * 16
    for _ in range(100):                    # until the second hart counts
        r.send("vCont;c")
        time.sleep(0.05)
        r.sock.sendall(b"\x03")
        assert r.receive().startswith(b"T02")
        assert m.qmp.cmd("query-status") == {"status": "paused", "running": False}
        before = [r.ask("Hg2"), r.ask("p6")][1]
        if before != "0" * 16:
            break
    assert r.ask("vCont;s:2") == "T05thread:2;" and r.ask("vCont;s:2") == "T05thread:2;"
    after = [r.ask("Hg2"), r.ask("p6")][1]
    step = int.from_bytes(bytes.fromhex(after), "little") - int.from_bytes(bytes.fromhex(before), "little")
    assert step == 1
    assert m.qmp.cmd("query-status") == {"status": "debug", "running": False}
    assert r.ask("vCont;q").startswith("E") and r.ask("vCont;s:9").startswith("E")


def test_code_that_runs_hot(m, r):
    """What was translated long ago stops at a breakpoint, is watched, and is what the debugger writes there."""
    work, value = m.symbol("work") - 0x40000000, m.symbol("value") - 0x40000000

    def a0():
        return int.from_bytes(bytes.fromhex(r.ask("pa")), "little")

    def stored():
        return int.from_bytes(bytes.fromhex(r.ask("m%x,8" % value)), "little")

    def run_until(met):
        while True:
            r.send("c")
            time.sleep(0.01)
            r.sock.sendall(b"\x03")
            assert r.receive().startswith(b"T02")
            assert r.ask("Hg1") == "OK"
            if met(a0()):
                return a0()

    run_until(lambda n: n > 100000)
    assert r.ask("m%x,2" % work) == "0505"                      # c.addi a0, 1
    for _ in range(4):
        assert r.ask("Z1,%x,2" % work) == "OK" and r.ask("c") == "T05thread:1;"
        n = a0()
        assert r.ask("vCont;s:1") == "T05thread:1;" and r.ask("c") == "T05thread:1;" and a0() == n + 1
        assert r.ask("z1,%x,2" % work) == "OK"
        run_until(lambda x: x > n + 10000)
        assert r.ask("M%x,2:0905" % work) == "OK" and r.ask("Pa=0000000000000000") == "OK"
        assert run_until(lambda x: x > 10000) % 2 == 0          # c.addi a0, 2
        assert r.ask("Z2,%x,8" % value) == "OK"
        assert r.ask("c") == "T05thread:1;watch:%x;" % value    # before the store is made
        n = a0()
        assert stored() == n - 2 and r.ask("z2,%x,8" % value) == "OK"
        assert r.ask("vCont;s:1") == "T05thread:1;" and stored() == n
        assert run_until(lambda x: x > n + 10000) % 2 == 0
        assert r.ask("M%x,2:0505" % work) == "OK"
        run_until(lambda x: x % 2)


def test_broken_packets_are_asked_for_again(m, r):
    r.sock.sendall(b"$?#00")
    assert r.byte() == b"-"
    r.sock.sendall(b"garbage" + b"$" + b"x" * 40001 + b"#00")
    assert r.byte() == b"-"
    assert r.ask("qC") == "QC1"
    r.sock.sendall(b"-")
    assert r.receive() == b"QC1"
    assert r.ask("QStartNoAckMode") == "OK"
    r.sock.sendall(b"$qC#00")
    assert r.receive() == b"QC1"


def test_attaching_stops_and_leaving_removes_breakpoints(guest):
    with Debugged(guest, stop=False) as m:
        assert m.qmp.cmd("query-status")["running"]
        r = Remote(m)
        assert r.ask("?") == "T02thread:1;"
        assert not m.qmp.cmd("query-status")["running"]
        assert r.ask("Z1,%x,2" % (m.symbol("work") - 0x40000000)) == "OK"
        r.close()
        r = Remote(m)                           # who comes next is served once the first has gone, and his breakpoint with him
        assert r.ask("?") == "T02thread:1;"
        before = r.ask("pa")
        while r.ask("pa") == before:            # a0, which counts calls of work()
            r.send("c")
            time.sleep(0.01)
            r.sock.sendall(b"\x03")
            assert r.receive().startswith(b"T02")
        assert r.ask("D") == "OK"
        assert m.qmp.cmd("query-status")["running"]
        r.close()


def test_end_of_the_program_is_told(m, r):
    r.send("c")
    while not m.qmp.cmd("query-status")["running"]:
        pass
    m.qmp.cmd("quit")
    answers = []
    try:
        while True:
            answers.append(r.receive())
    except EOFError:
        pass
    assert answers[-1] == b"W00"


def test_gdb_option_errors():
    status, _, err = run("-M", "none", "-s", "-display", "none")
    assert status == 1 and "a debugger needs a machine with CPUs" in err


def test_hmp_and_qmp_look_at_cpus(m, r):
    low = m.symbol("work") - 0x40000000
    assert r.ask("Z1,%x,2" % low) == "OK" and r.ask("c") == "T05thread:1;"
    cpus = m.qmp.cmd("query-cpus-fast")
    assert [c["cpu-index"] for c in cpus] == [0, 1] and all(c["thread-id"] > 1 and c["target"] == "riscv64" for c in cpus)
    regs = m.qmp.hmp("info registers")
    assert re.search(r"^ pc +%016x  mode S$" % low, regs, re.M) and "x10/a0" in regs and "f10/fa0   4008000000000000" in regs
    assert "CPU#1" in m.qmp.hmp("info registers -a")
    assert m.qmp.hmp("x/2i $pc").splitlines()[0].endswith("addi a0,a0,1")
    assert m.qmp.hmp("x/1xg 0x%x" % (m.symbol("value") - 0x40000000 + 8)).endswith(": 0x000000000000004d\n")
    assert m.qmp.hmp("xp/2dw 0x%x" % (m.symbol("value") + 8)).endswith(": 77 0\n")
    assert "Cannot access memory at 0x10" in m.qmp.hmp("x/1xg 0x10")
    assert m.qmp.hmp("info mem").splitlines()[2:] == ["0000000040000000 0000000080000000 0000000040000000 rwx--ad",
                                                     "0000000080000000 0000000080000000 0000000040000000 rwx--ad"]
    counted = dict(line.split() for line in m.qmp.hmp("info jit").splitlines())
    assert int(counted["instructions"]) > 0 and int(counted["tlb-fills"]) > 0 and "jit-blocks" in counted
    assert m.qmp.hmp("cpu 7").startswith("Error") and "thread_id=%d" % cpus[1]["thread-id"] in m.qmp.hmp("info cpus")
    assert "usage" in m.qmp.hmp("x/zz 1") and "a number or $REGISTER is missing" in m.qmp.hmp("x/1x foo")
    with pytest.raises(QmpError):
        m.qmp.cmd("query-cpus-slow")


def test_monitor_starts_and_stops_the_server(m):
    assert "Waiting for gdb" in m.qmp.hmp("gdbserver unix:%s/other" % m.guest)
    s = connect(m.guest + "/other", m.process)
    s.sendall(b"+$qC#b4")
    assert s.recv(1) == b"+"
    s.close()
    assert "Disabled" in m.qmp.hmp("gdbserver none")
    with pytest.raises(OSError):
        socket.socket(socket.AF_UNIX).connect(m.guest + "/other")
