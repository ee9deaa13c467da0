# SPDX-License-Identifier: MIT
"""Images: what backplane-img takes for conversions, check, map and compare, requests a second of its bench, long chains.

Against Debian's qemu-img, on files that the host holds in memory. The programs take turns, each goes first as often as the
other, and medians are compared. Each run begins with everything written back: what one left dirty is not the other's work.
"""
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, os.environ.get("BP_BUILD", "build"), "backplane-img")
EMULATOR = os.path.join(ROOT, os.environ.get("BP_BUILD", "build"), "backplane")
BOTH = (PROGRAM, "qemu-img")
GIB = 1 << 30
SCATTERED = 1052672                     # 1 MiB and 4 KiB: the next request is far away

# name, arguments; TARGET is removed before each run
WHOLE = (
    ("convert raw to qcow2", "convert -f raw -O qcow2 sparse.raw TARGET"),
    ("convert qcow2 to raw", "convert -f qcow2 -O raw sparse.qcow2 TARGET"),
    ("convert raw to qcow2, zstd", "convert -c -f raw -O qcow2 -o compression_type=zstd text.raw TARGET"),
    ("convert qcow2 to raw, zstd", "convert -f qcow2 -O raw text.qcow2 TARGET"),
    ("check qcow2", "check sparse.qcow2"),
    ("map qcow2", "map --output=json sparse.qcow2"),
    ("map raw", "map --output=json -f raw sparse.raw"),
    ("compare raw with qcow2", "compare -f raw -F qcow2 sparse.raw sparse.qcow2"),
)
# name, arguments of bench, requests, image
REQUESTS = (
    ("4 KiB read, depth 1", "-d 1 -s 4k -S %d" % SCATTERED, 60000, ("raw", "qcow2", "chain")),
    ("4 KiB read, depth 32", "-d 32 -s 4k -S %d" % SCATTERED, 60000, ("raw", "qcow2", "chain")),
    ("4 KiB write, depth 1", "-w -d 1 -s 4k -S %d" % SCATTERED, 40000, ("raw", "qcow2")),
    ("4 KiB write, depth 32", "-w -d 32 -s 4k -S %d" % SCATTERED, 40000, ("raw", "qcow2")),
    ("1 MiB read in order, depth 4", "-d 4 -s 1M", 2000, ("raw", "qcow2")),
    ("1 MiB write in order, depth 4", "-w -d 4 -s 1M", 1000, ("raw", "qcow2")),
    ("4 KiB allocating write, depth 8", "-w -d 8 -s 4k -S 65536", 12000, ("new",)),
    ("64 KiB allocating write, depth 8", "-w -d 8 -s 64k", 8000, ("new",)),
)


def qemu_img(*args):
    subprocess.run(["qemu-img", *args], check=True, stdout=subprocess.DEVNULL)


def sparse(path, size, pieces, piece):
    """A raw file of SIZE bytes with PIECES places of data; piece(i) gives the bytes."""
    with open(path, "wb") as f:
        f.truncate(size)
        for i in range(pieces):
            f.seek(i * (size // pieces))
            f.write(piece(i))


def texts():
    """A function for sparse(): MiBs of what this program is made of, which packs to about a third."""
    with open(EMULATOR, "rb") as f:
        data = f.read(6 << 20)
    return lambda i: data[i * 12345 % (4 << 20):][:1 << 20]


def prepare():
    """The images, in the current folder."""
    rnd = random.Random(1)
    noise = rnd.randbytes(1 << 20)
    sparse("sparse.raw", 10 * GIB, 256, lambda i: noise[:-8] + i.to_bytes(8, "little"))
    sparse("text.raw", 10 * GIB, 128, texts())
    sparse("full.raw", GIB // 2, 512, lambda i: noise[:-8] + i.to_bytes(8, "little"))
    qemu_img("convert", "-O", "qcow2", "sparse.raw", "sparse.qcow2")
    qemu_img("convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "text.raw", "text.qcow2")
    qemu_img("convert", "-O", "qcow2", "full.raw", "full.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "full.qcow2", "-F", "qcow2", "middle.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2")


def start_clean(path):
    """Without the file PATH of the run before, and with nothing of it left to be written."""
    if os.path.exists(path):
        os.unlink(path)
    os.sync()


def took(program, args):
    """Milliseconds of one command."""
    start_clean("TARGET")
    start = time.monotonic()
    subprocess.run([program, *args.split()], check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - start) * 1e3


def requests(program, args, count, image):
    """Requests a second of its bench."""
    start_clean("new.qcow2")
    if image == "new":
        qemu_img("create", "-q", "-f", "qcow2", "new.qcow2", "4G")
    name = {"raw": "full.raw", "qcow2": "full.qcow2", "chain": "top.qcow2", "new": "new.qcow2"}[image]
    out = subprocess.run([program, "bench", "-c", str(count), *args.split(), "-f", "raw" if image == "raw" else "qcow2", name],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    return count / float(out.split("completed in ")[1].split()[0])


def bare_calls(write, count, size, step, threads):
    """Requests a second that calls of the host alone reach, on full.raw."""
    start_clean("new.qcow2")
    fd = os.open("full.raw", os.O_RDWR)

    def part(first):
        data = bytearray(size)
        for i in range(first, count, threads):
            (os.pwritev if write else os.preadv)(fd, [data], i * step % (GIB // 2))

    workers = [threading.Thread(target=part, args=(i,)) for i in range(threads)]
    start = time.monotonic()
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    os.close(fd)
    return count / (time.monotonic() - start)


def of_bare_calls(out, rounds):
    """Rows that say how much is left of what no program can go beyond (the better of one thread and two): the host takes nearly all of the time."""
    for name, args, count, size, step in (
            ("1 MiB read in order, depth 4", "-d 4 -s 1M", 2000, 1 << 20, 1 << 20),
            ("1 MiB write in order, depth 4", "-w -d 4 -s 1M", 1000, 1 << 20, 1 << 20),
            ("4 KiB write, depth 32", "-w -d 32 -s 4k -S %d" % SCATTERED, 40000, 4096, SCATTERED)):
        got = [(requests(PROGRAM, args, count, "raw"), max(bare_calls("-w" in args, count, size, step, n) for n in (1, 2))) for _ in range(rounds)]
        out.append((name + ", raw: beside bare calls", *(statistics.median(v) for v in zip(*got)), "/s", ""))


def by_turns(what, rounds):
    """Medians of what(program) for both programs."""
    got = {p: [] for p in BOTH}
    for i in range(rounds):
        for p in BOTH if i % 2 == 0 else reversed(BOTH):
            got[p].append(what(p))
    return [statistics.median(got[p]) for p in BOTH]


def chain_opens(program):
    """Milliseconds until a chain of 200 images is open and one status query of it is answered."""
    start = time.monotonic()
    subprocess.run([program, "info", "--backing-chain", "--output=json", "deep199.qcow2"], check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - start) * 1e3


def peak_mib(program):
    """Peak resident size of a full read of the map of an image of 1 TiB."""
    script = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
    p = subprocess.Popen([sys.executable, "-c", script, program, "map", "--output=json", "huge.qcow2"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = status
    if status:
        raise RuntimeError("%s cannot read the map" % program)
    return usage.ru_maxrss / 1024


def deep_and_huge(out, rounds):
    """Rows of the chain of 200 images and the image of 1 TiB, which has all its tables."""
    qemu_img("create", "-q", "-f", "qcow2", "deep0.qcow2", "1G")
    for i in range(1, 200):
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "deep%d.qcow2" % (i - 1), "-F", "qcow2", "deep%d.qcow2" % i, "1G")
    out.append(("chain of 200: open and query", *by_turns(chain_opens, rounds), "ms", "under 100 ms"))
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "huge.qcow2", "1T")
    out.append(("map of 1 TiB qcow2: peak memory", *by_turns(peak_mib, 1), "MiB", "under 64 MiB"))


def run(out, rounds, folder):
    """Measures and adds rows (name, ours, theirs, unit, bar) to OUT."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="bench-img-", dir=folder) as tmp:
        os.chdir(tmp)
        try:
            prepare()
            for name, args in WHOLE:
                out.append((name, *by_turns(lambda p, a=args: took(p, a), rounds), "ms", "<= 0.67x"))
            for name, args, count, images in REQUESTS:
                for image in images:
                    out.append(("%s, %s" % (name, image), *by_turns(lambda p, a=args, c=count, i=image: requests(p, a, c, i), rounds),
                                "/s", ">= 1.5x"))
            of_bare_calls(out, rounds)
            deep_and_huge(out, rounds)
        finally:
            os.chdir(before)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
