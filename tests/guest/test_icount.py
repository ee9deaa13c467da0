# SPDX-License-Identifier: MIT
"""-icount: two runs of one guest print the same and end with the same memory, whatever executes instructions; time passes as counted."""
import hashlib

import pytest

import guest

RAM, MIB = 0x80000000, 1 << 20
# Work that forks, reads and writes the disk, waits for timers, and asks for random numbers and the time.
SCRIPT = """
mount -t tmpfs none /tmp 2>/dev/null
dd if=/dev/vda of=/tmp/a bs=64k count=16 2>/dev/null && md5sum < /tmp/a
dd if=/tmp/a of=/dev/vda bs=4k seek=64 count=64 oflag=direct 2>/dev/null; sync
for i in 1 2 3 4 5 6 7 8; do (md5sum /proc/self/stat; date +%s.%N) & done; wait
sleep 1; date +%s.%N
head -c 16 /dev/urandom | md5sum
cat /proc/interrupts
exit 0
"""


def run(tmp_path, *args, size=192):
    """(console, SHA-256 of RAM at the end, SHA-256 of the disk) of a guest that runs SCRIPT."""
    disk = guest.make_disk(tmp_path / "disk.img", 4 * MIB, bytes(range(256)) * 4096)
    with guest.Machine(*args, "-no-shutdown", "-qmp", "unix:q.sock,server=on,wait=off", "-drive", "file=%s,format=raw,if=none,id=d" % disk,
                       "-device", "virtio-blk-pci,drive=d", "-object", "rng-builtin,id=r", "-device", "virtio-rng-pci,rng=r",
                       modules=["virtio_blk", "virtio_rng"], script=SCRIPT, memory="%dM" % size) as m:
        q = guest.Qmp(m.file("q.sock"))
        assert m.script_status(300) == 0
        q.event("SHUTDOWN", 60)
        while q.cmd("query-status")["running"]:
            pass
        ram = m.file("ram")
        q.cmd("pmemsave", val=RAM, size=size * MIB, filename=ram)
        q.cmd("quit")
        m.wait()
        with open(ram, "rb") as r, open(disk, "rb") as d:
            return m.log, hashlib.sha256(r.read()).hexdigest(), hashlib.sha256(d.read()).hexdigest()


@pytest.mark.parametrize("harts", ["1", "2"])
def test_two_runs_are_the_same(tmp_path, harts):
    mode = ("-icount", "shift=2,sleep=off", "-smp", harts)
    first, second = run(tmp_path, *mode), run(tmp_path, *mode)
    assert first[0] == second[0]
    assert first == second


@pytest.mark.parametrize("harts", ["1", "2"])
def test_the_interpreter_gives_the_same(tmp_path, harts):
    """The count is exact: what the translator runs ends where single steps end."""
    mode = ("-icount", "shift=2,sleep=off", "-smp", harts)
    jit, interp = run(tmp_path, *mode), run(tmp_path, *mode, "-accel", "interp")
    assert jit[0] == interp[0]
    assert jit == interp


def test_waiting_in_the_hosts_time_is_the_same(tmp_path):
    first, second = run(tmp_path, "-icount", "3"), run(tmp_path, "-icount", "3")
    assert first[0] == second[0]
    assert first == second


def test_a_seed_is_an_input(tmp_path):
    mode = ("-icount", "shift=2,sleep=off", "-seed")
    assert run(tmp_path, *mode, "1")[1] != run(tmp_path, *mode, "2")[1]


def test_stopping_changes_nothing(tmp_path):
    """stop and cont while the guest starts: it is the guest of a run that was left alone."""
    def console(stops):
        with guest.Machine("-icount", "shift=2,sleep=off", "-smp", "2", "-qmp", "unix:q.sock,server=on,wait=off",
                           script="date +%s.%N; cat /proc/interrupts; exit 0") as m:
            q = guest.Qmp(m.file("q.sock"))
            for _ in range(stops):
                q.cmd("stop")
                assert q.cmd("query-status")["status"] == "paused"
                q.cmd("cont")
            assert m.script_status(300) == 0
            return m.log
    assert console(0) == console(200)


@pytest.mark.parametrize("arg", ["auto", "shift=auto", "shift=4,align=on", "shift=0", "shift=6"])
def test_other_ways_to_count(arg):
    with guest.Machine("-icount", arg) as m:
        m.boot(300)
        before, after = m.run("cut -d' ' -f1 /proc/uptime; sleep 0.2; cut -d' ' -f1 /proc/uptime").split()
        assert float(after) - float(before) > 0.18          # it is told in steps of 10 ms
