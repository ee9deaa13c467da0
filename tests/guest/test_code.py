# SPDX-License-Identifier: MIT
"""Code that changes while harts run it: the kernel's tracers, probes and jump labels, its translator of BPF, and translators in the guest."""
import pytest

import guest

TRACE = "/sys/kernel/tracing/"

# An address in libc as a place in its file, as uprobes want it; calls of it on both harts.
CALLS = """import ctypes, os, sys
libc = ctypes.CDLL("libc.so.6")
at = ctypes.cast(libc.getppid, ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    span, rights, off, _, _, *path = line.split()
    first, last = (int(x, 16) for x in span.split("-"))
    if first <= at < last:
        print(path[0], hex(at - first + int(off, 16)))
print("calls")
sys.stdout.flush()
for _ in range(int(sys.argv[1])):
    os.getppid()
"""

# What the loops compute is the same whether the traces are made into code or not, however often that code is thrown away.
LUA = """local bit = require "bit"
local function work(n)
    local h, t, f = 0, {}, 0.0
    for i = 1, n do
        h = bit.bxor(bit.rol(h, 5), i * 7)
        t[i % 61 + 1] = (t[i % 61 + 1] or 0) + (i % 2 == 0 and i or -i)
        f = f + i / 3
    end
    local s = 0
    for _, v in ipairs(t) do s = s + v end
    return string.format("%d %d %.6f", h, s, f)
end
jit.off(work)
local want = work(5000)
jit.on(work)
jit.opt.start("hotloop=2", "hotexit=1")
for i = 1, tonumber(arg[1]) do
    local got = work(5000)
    if got ~= want then print("round", i, got, want) os.exit(1) end
    if i % 2 == 0 then jit.flush() end
end
print(want)
"""

# Functions that are compiled as they are needed, run once or twice, and forgotten: code comes to the same memory again and again.
SCHEME = """(define (f n)
  (let ((g (compile `(lambda (x) (let loop ((i 0) (a x)) (if (fx= i ,n) a (loop (fx+ i 1) (fx+ a ,(fxmod (fx* n 7) 13)))))))))
    (unless (= (g n) (+ n (* n (modulo (* n 7) 13)))) (display "wrong at ") (display n) (newline) (exit 1))))
(do ((round 0 (+ round 1))) ((= round 4)) (do ((n 0 (+ n 1))) ((= n 60)) (f n)) (collect))
(display "same") (newline)
"""

# One page of code that all threads run, rewritten round by round with the system call that RISC-V has for it.
PATCH = """import ctypes, mmap, threading
libc = ctypes.CDLL(None, use_errno=True)
mem = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
at = ctypes.addressof(ctypes.c_char.from_buffer(mem))
fn = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(at)
RET, ROUNDS = 0x8067, 300
turn = threading.Barrier(3)
bad = []
def put(n):
    code = [0x00050513 | (n & 0x7ff) << 20] * 15 + [RET]          # addi a0, a0, n, fifteen times
    mem[:64] = b"".join(x.to_bytes(4, "little") for x in code)
    if libc.syscall(259, ctypes.c_long(at), ctypes.c_long(at + 64), ctypes.c_long(0)):
        bad.append("no system call")
def run():
    for n in range(ROUNDS):
        turn.wait()
        for x in range(30):
            if fn(x) != x + 15 * n:
                bad.append((n, x, fn(x)))
        turn.wait()
for _ in range(2):
    threading.Thread(target=run, daemon=True).start()
for n in range(ROUNDS):
    put(n)
    turn.wait()
    turn.wait()
print(bad[:3] or "same")
"""


@pytest.fixture(scope="module", name="m")
def machine():
    with guest.Machine("-smp", "2", root=True, scripts={"calls.py": CALLS, "work.lua": LUA, "compile.ss": SCHEME, "patch.py": PATCH}) as m:
        m.boot()
        m.run("mount -t tracefs tracefs /sys/kernel/tracing")
        yield m


@pytest.fixture(autouse=True, name="quiet")
def nothing_to_complain(m):
    """The kernel has nothing to say of it: no warning, no oops, nobody stuck."""
    m.run("dmesg -n 1; dmesg -c >/dev/null")
    yield
    said = m.run("dmesg")
    for word in ("WARNING", "BUG", "Oops", "Unable to handle", "stuck", "stall", "ftrace failed"):
        assert word not in said, said[-3000:]


def busy(m, command):
    """Runs the command while both harts compute digests of the same text, which all come out the same; what it printed."""
    m.run("rm -f /tmp/stop /tmp/sum?; for i in 1 2; do (while :; do seq 500 | md5sum; [ ! -e /tmp/stop ] || break; done >/tmp/sum$i) & done")
    said = m.run(command, 240)
    m.run("touch /tmp/stop; wait", 120)
    assert m.run("sort -u /tmp/sum1 /tmp/sum2") == m.run("seq 500 | md5sum")
    return said


def test_function_tracers(m):
    """Every function of the kernel begins with a call, and no longer, while it runs."""
    said = busy(m, """cd %s; echo 64 >buffer_size_kb
        for t in function function_graph; do echo $t >current_tracer; head -n 200 trace | grep -c 'seq\\|irq\\|lock'; echo nop >current_tracer; done
        cd /""" % TRACE)
    assert len(said.splitlines()) == 2 and "0" not in said.splitlines(), said


def test_some_functions_are_traced_on_and_off(m):
    said = busy(m, """cd %s; for i in 1 2; do
        echo 'vfs_*' >set_ftrace_filter; echo function >current_tracer; grep -q vfs_ trace && echo traced
        echo '*lock*' >set_ftrace_filter; echo function_graph >current_tracer; grep -q lock trace && echo traced
        echo nop >current_tracer; echo >set_ftrace_filter; done; cd /""" % TRACE)
    assert said.split() == ["traced"] * 4


def test_kernel_probes_count_every_call(m):
    """Behind the place of the tracers' call; sync goes through the one function once, through the other twice."""
    m.run("echo 'p:probes/once ksys_sync+8' >%skprobe_events; echo 'p:probes/twice sync_bdevs+8' >>%skprobe_events" % (TRACE, TRACE))
    for n in range(1, 4):
        busy(m, "echo 1 >%sevents/probes/enable; for i in 1 2 3 4 5; do sync; done; echo 0 >%sevents/probes/enable; sync; sync" % (TRACE, TRACE))
        counts = dict(line.split()[:2] for line in m.run("cat %skprobe_profile" % TRACE).splitlines())
        assert counts == {"once": str(5 * n), "twice": str(10 * n)}
    m.run("echo >%skprobe_events" % TRACE)


def test_user_probes_count_every_call(m):
    """A trap in a page of libc that other processes run, too, and the instruction it replaced, in a page of its own."""
    path, at = m.run("python3 /scripts/calls.py 0").split()[:2]
    for _ in range(3):
        m.run("echo 'p:up/in %s:%s' >%suprobe_events; echo 'r:up/out %s:%s' >>%suprobe_events; echo 1 >%sevents/up/enable" %
              (path, at, TRACE, path, at, TRACE, TRACE))
        busy(m, "(for i in 1 2; do python3 /scripts/calls.py 1000 >/dev/null & done; wait)")
        counts = [line.split()[-1] for line in m.run("cat %suprobe_profile" % TRACE).splitlines()]
        assert counts == ["2000", "2000"]
        m.run("echo 0 >%sevents/up/enable; echo >%suprobe_events; python3 /scripts/calls.py 100 >/dev/null" % (TRACE, TRACE))


def test_jump_labels(m):
    """The kernel's own test of static keys, whose code comes and goes with its module."""
    busy(m, "for i in 1 2 3 4 5 6; do modprobe test_static_keys && rmmod test_static_keys test_static_key_base || exit 1; done")


def test_bpf(m):
    """The kernel's own test of BPF, each program as code that it makes."""
    m.run("echo 1 >/proc/sys/net/core/bpf_jit_enable; modprobe test_bpf test_range=0,620; rmmod test_bpf", 240)
    said = m.run("dmesg | grep Summary")
    assert "621 PASSED, 0 FAILED" in said and "FAIL " not in said, said


@pytest.mark.parametrize("command, says", [("luajit /scripts/work.lua 60", "-272033610 2500 4167500.000000"), ("chezscheme --script /scripts/compile.ss", "same"),
                                           ("python3 /scripts/patch.py", "same")])
def test_translators(m, command, says):
    """What programs that make code compute, one of them on each hart."""
    said = m.run("for i in 1 2; do (%s >/tmp/out$i 2>&1; echo rc=$? >>/tmp/out$i) & done; wait; cat /tmp/out1; cmp /tmp/out1 /tmp/out2" % command, 240)
    assert said.endswith("\n%s\nrc=0" % says), said


def test_patterns_as_code(m):
    """Regular expressions by interpretation and as code give the same."""
    m.run(r"""for i in $(seq 300); do echo "line $i of $((i * 7919 % 1009)) x@y$i.org"; done >/tmp/text""")
    for p in (r"/^line (\d+) of (\d*7\d*) (\w+@\w+\.org)$/", r"/(?<a>\d)(?:.*?)\k<a>\.org/", r"/[^aeiou ]{2,}(?=\.)/"):
        m.run("(echo '%s'; sed 's/^/  /' /tmp/text) >/tmp/in; pcre2test -q /tmp/in /tmp/plain && pcre2test -q -jitverify /tmp/in /tmp/code" % p)
        assert int(m.run("grep -c '^ 0: .* (JIT)$' /tmp/code")) > 50
        m.run("sed 's/ (JIT)$//' /tmp/code | cmp - /tmp/plain")


def test_stressors(m):
    for s in ("icache", "far-branch", "opcode", "sigill", "sigtrap", "seccomp", "tlb-shootdown"):
        said = m.run("stress-ng --verify --%s 2 -t 1 --metrics-brief" % s, 120)
        assert "passed: 2: %s (2)" % s in said and "failed: 0" in said, said
