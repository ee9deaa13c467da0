# SPDX-License-Identifier: MIT
"""Disks in a Debian guest: fio on virtio-blk-pci and nvme, each on a raw file that the host holds in memory.

Random 4 KiB requests one at a time and 32 at once, 1 MiB in order, on the default board: its interrupts come by pins, and none may be
lost. (Debian 12's QEMU does not bring this guest up on a board with MSIs.) Both emulators take turns; medians are compared.
What pins cost is compared with messages (aia=aplic-imsic) on the one that has both.
"""
import json
import os
import statistics
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import guest  # noqa: E402  (the path is set above)

SIZE = 256 << 20
SECONDS = float(os.environ.get("BP_FIO_SECONDS", "2"))
# name, arguments of fio, unit
JOBS = (
    ("4 KiB random read, depth 1", "--rw=randread --bs=4k --iodepth=1", "iops"),
    ("4 KiB random read, depth 32", "--rw=randread --bs=4k --iodepth=32", "iops"),
    ("4 KiB random write, depth 1", "--rw=randwrite --bs=4k --iodepth=1", "iops"),
    ("4 KiB random write, depth 32", "--rw=randwrite --bs=4k --iodepth=32", "iops"),
    ("1 MiB read in order, depth 4", "--rw=read --bs=1m --iodepth=4", "bw"),
    ("1 MiB write in order, depth 4", "--rw=write --bs=1m --iodepth=4", "bw"),
)
FIO = ("fio --name=b --filename=/dev/%s --direct=1 --ioengine=libaio --size=256m --time_based --ramp_time=0.3 --runtime=%g %s "
       "--norandommap --randrepeat=0 --output-format=json")
# device, disk in the guest, arguments: the root disk is vda
DEVICES = (
    ("virtio-blk-pci", "vdb", ["-device", "virtio-blk-pci,drive=d,num-queues=1"]),
    ("nvme", "nvme0n1", ["-device", "nvme,drive=d,serial=bench"]),
)


class Bench(guest.Machine):
    """A guest with one disk more, of SIZE bytes, all of it written once."""

    def __init__(self, device, emulator, board="virt"):
        self.image = tempfile.NamedTemporaryFile(prefix="bp-fio-", dir=os.environ.get("BP_BENCH_DIR"))
        for _ in range(SIZE >> 20):
            self.image.write(os.urandom(1 << 20))
        self.image.flush()
        super().__init__("-smp", "1", "-drive", "file=%s,format=raw,if=none,id=d" % self.image.name, *device[2],
                         emulator=emulator, modules=["nvme"], root=True, memory="1G", machine=board)
        self.disk = device[1]

    def close(self):
        super().close()
        self.image.close()

    def fio(self, args):
        """fio's job as it tells of it in JSON."""
        out = self.run(FIO % (self.disk, SECONDS, args), 120)
        return json.loads(out[out.index("{"):])["jobs"][0]


def figure(job, unit):
    """Requests a second, or MiB a second."""
    one = max((job["read"], job["write"]), key=lambda x: x["total_ios"])
    return one["iops"] if unit == "iops" else one["bw"] / 1024


def measure(device, sides, jobs, rounds):
    """{(side, job): [figure]} for SIDES, each the arguments of a Bench after its device; lost interrupts are counted as job "lost"."""
    out = {}
    machines = [Bench(device, *side).__enter__() for side in sides]
    try:
        for m in machines:
            m.boot(300)
            m.run("echo 0 > /proc/sys/kernel/printk; true")
        for name, args, unit in jobs:
            for _ in range(rounds):
                for e, m in zip(sides, machines):
                    out.setdefault((e, name), []).append(figure(m.fio(args), unit))
        for e, m in zip(sides, machines):
            out[e, "lost"] = [int(m.run("dmesg | grep -c -i -e 'timeout.*polled' -e 'nobody cared' -e 'completion polled' || true"))]
    finally:
        for m in machines:
            m.close()
    return out


def run(out, rounds, folder):
    """Measures and adds rows (name, ours, theirs, unit, bar) to OUT."""
    ours, theirs, messages = (guest.EMULATOR,), ("qemu-system-riscv64",), (guest.EMULATOR, "virt,aia=aplic-imsic")
    only = os.environ.get("BP_BENCH_ONLY", "").split()
    for device in DEVICES:
        if only and device[0] not in only:
            continue
        got = measure(device, (ours, theirs), JOBS, rounds)
        for name, _, unit in JOBS:
            a, b = (statistics.median(got[e, name]) for e in (ours, theirs))
            out.append((device[0] + " " + name, a, b, "/s" if unit == "iops" else "MiB/s", ">= 2x"))
        out.append((device[0] + ": interrupts lost", *(got[e, "lost"][0] for e in (ours, theirs)), "", "0"))
        in_order = [job for job in JOBS if job[2] == "bw"]
        got = measure(device, (ours, messages), in_order, rounds)
        for name, _, _ in in_order:
            a, b = (statistics.median(got[e, name]) for e in (ours, messages))
            out.append((device[0] + " " + name.split(",")[0] + ": pin, message", a, b, "MiB/s", ">= 0.8x"))
        out.append((device[0] + ": interrupts lost, pin, message", *(got[e, "lost"][0] for e in (ours, messages)), "", "0"))
