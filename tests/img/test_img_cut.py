# SPDX-License-Identifier: MIT
"""
Commands that write, ended in the middle: at their n-th write the power fails (a kill is the same, and all that was written is there), or
from then on the disk is full, or one request fails. Whatever n: the image opens, has leaks at worst, and holds what it held or what it was to hold;
a command that did not do its work says so, and one that says nothing did it.
BP_IMG_CUTS=N makes N of each.
"""
import itertools
import os
import random
import struct

import pytest

from imglib import IMG, QEMU, img, info, qimg, qio, run, sparse_file

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
MIB = 1 << 20
CUTS = int(os.environ.get("BP_IMG_CUTS", "3"))
THOROUGH = CUTS > 8
KINDS = {"4k": "cluster_size=4k", "sub": "cluster_size=16k,extended_l2=on", "v2": "cluster_size=4k,compat=0.10"}
LOSSES = ["powerloss,cut-at-write=%n,keep=none", "faults,rules.0.op=write,rules.0.after=%n,rules.0.errno=ENOSPC",
          "powerloss,cut-at-write=%n,keep=all", "powerloss,cut-at-write=%n,keep=some,seed=%s", "powerloss,cut-at-flush=%n,keep=none",
          "faults,rules.0.op=write,rules.0.after=%n,rules.0.count=1,rules.0.errno=ENOSPC", "powerloss,cut-at-write=%n,keep=torn,seed=%s",
          "faults,rules.0.op=flush,rules.0.after=%n,rules.0.errno=EIO"]


def spec(path, loss="", below=""):
    """The image @path over a disk with the @loss, over the options @below of a backing file."""
    disk = "".join("file.%s," % o if i else "file.driver=%s," % o for i, o in enumerate(loss.split(",")) if o)
    return "driver=qcow2,%sfile.%sfilename=%s%s" % (disk, "file." if loss else "", path, below)


class Case:
    """A command on `a` (over `base` or not) in a folder of its own, and what must be true whenever it ended."""

    def __init__(self, folder, kind):
        self.at, self.kind = folder, kind
        self.raw = sparse_file(folder / "raw", MIB, pieces=20)
        self.a, self.base = folder / "a", folder / "base"

    def path(self, name):
        return self.at / name

    def make(self, name="a", *more):
        qimg("convert", "-f", "raw", "-O", "qcow2", "-o", KINDS[self.kind], self.raw, self.path(name))
        if more:
            qio(self.path(name), *more)

    def over(self, name, base, *writes):
        img("create", "-q", "-f", "qcow2", "-o", KINDS[self.kind], "-b", base, "-F", "qcow2", self.path(name))
        qio(self.path(name), *writes)

    def shown(self, name="a", *args):
        out = self.path("out")
        img("convert", "--force", "-f", "qcow2", "-O", "raw", *args, self.path(name), out)
        return out.read_bytes()

    def keep(self):
        self.kept = {f: f.read_bytes() for f in self.at.iterdir() if f.name != "out"}

    def restore(self):
        for f in self.at.iterdir():
            if f not in self.kept:
                f.unlink()
        for f, data in self.kept.items():
            f.write_bytes(data)


def sound(path):
    """Leaks at worst, which can be mended."""
    p = img("check", "-f", "qcow2", path, ok=(0, 3))
    if p.returncode:
        img("check", "-q", "-r", "leaks", "-f", "qcow2", path)
    if THOROUGH:
        qimg("check", "-f", "qcow2", path)


def snapshots(path):
    return [line.split()[1] for line in img("snapshot", "-f", "qcow2", "-l", path).stdout.splitlines()[2:]]


def bitmaps(path):
    return {b["name"]: "in-use" in b["flags"] for b in info(path, "-f", "qcow2").get("format-specific", {}).get("data", {}).get("bitmaps", [])}


# ---- the commands: what is there before, the command line but for the image, and what holds after; @done: it said that all is well ----

class Resize(Case):
    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make()
        self.old = self.shown()

    def after(self, done):
        now, new = self.shown(), self.size(self.to)
        assert len(now) in ((new,) if done else (new, MIB))
        least = min(len(now), new, MIB)
        assert now[:least] == self.old[:least] and not any(now[MIB:])
        if len(now) == MIB and new > MIB:
            assert now == self.old

    @staticmethod
    def size(text):
        return int(text[:-1]) * {"k": 1 << 10, "M": MIB, "G": 1 << 30}[text[-1]]

    def command(self):
        return ["resize", "-q", "--shrink"], [self.to]


class Grow(Resize):
    to = "9M"


class GrowLong(Resize):
    to = "40M"


class Shrink(Resize):
    to = "300k"


class Preallocate(Resize):
    to = "3M"

    def command(self):
        return ["resize", "-q", "--preallocation", "falloc" if self.kind == "v2" else "metadata"], [self.to]


class Amend(Case):
    options = "lazy_refcounts=on"

    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.prepare()
        self.old = self.shown()

    def prepare(self):
        self.make("a", "write -z 100k 64k", "discard 300k 64k")

    def command(self):
        return ["amend", "-q", "-o", self.options], []

    def after(self, done):
        assert self.shown()[:MIB] == self.old
        if done:
            self.amended(info(self.a, "-f", "qcow2")["format-specific"]["data"])

    def amended(self, data):
        assert data["lazy-refcounts"]


class AmendNarrow(Amend):
    options = "refcount_bits=1"

    def amended(self, data):
        assert data["refcount-bits"] == 1


class AmendWide(Amend):
    options = "refcount_bits=64"

    def prepare(self):
        super().prepare()
        img("snapshot", "-c", "s", self.a)
        qio(self.a, "write -P 5 0 64k")

    def after(self, done):
        super().after(done)
        self.shown("a", "-l", "s")

    def amended(self, data):
        assert data["refcount-bits"] == 64


class AmendV2(Amend):
    options = "compat=0.10"

    def amended(self, data):
        assert data["compat"] == "0.10"


class AmendSize(Amend):
    options = "size=5M"

    def amended(self, data):
        assert info(self.a, "-f", "qcow2")["virtual-size"] == 5 * MIB


class AmendV3(Amend):
    options = "compat=1.1"

    def prepare(self):
        self.kind = "v2"
        self.make()
        img("snapshot", "-c", "s", self.a)

    def after(self, done):
        super().after(done)
        assert self.shown("a", "-l", "s") == self.old

    def amended(self, data):
        assert data["compat"] == "1.1"


class Snapshot(Case):
    op, name = "-c", "new"

    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make()
        self.held = {}
        for n, name in enumerate(("one", "two")):
            img("snapshot", "-c", name, self.a)
            self.held[name] = self.shown()
            qio(self.a, "write -P %d %dk 200k" % (n + 1, 150 * n))
        self.held["new"] = self.held[""] = self.shown()

    def command(self):
        return ["snapshot", "-q", self.op, self.name], []

    def after(self, done):
        there = snapshots(self.a)
        for name in there:
            assert self.shown("a", "-l", name) == self.held[name]
        self.judge(there, self.shown(), done)

    def judge(self, there, now, done):
        assert there in ([["one", "two", "new"]] if done else [["one", "two", "new"], ["one", "two"]])
        assert now == self.held[""]


class SnapshotDelete(Snapshot):
    op, name = "-d", "one"

    def judge(self, there, now, done):
        assert there in ([["two"]] if done else [["one", "two"], ["two"]]) and now == self.held[""]


class SnapshotApply(Snapshot):
    op, name = "-a", "one"

    def judge(self, there, now, done):
        assert there == ["one", "two"] and now in ([self.held["one"]] if done else [self.held["one"], self.held[""]])


class Bitmap(Case):
    acts, name, left = ["--add", "-g", "4k"], "new", {"one", "two", "new"}

    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make()
        for name in "one", "two":
            img("bitmap", "--add", "-g", "4k", self.a, name)
            qio(self.a, "write -P 3 100k 64k")
        self.old = self.shown()

    def command(self):
        return ["bitmap", *self.acts], [self.name]

    def after(self, done):
        assert self.shown() == self.old
        there = bitmaps(self.a)
        assert set(there) in ([self.left] if done else [self.left, {"one", "two"}])
        assert not (done and any(there.values()))


class BitmapRemove(Bitmap):
    acts, name, left = ["--remove"], "one", {"two"}


class BitmapClear(Bitmap):
    acts, name, left = ["--clear", "--disable"], "one", {"one", "two"}


class BitmapMerge(Bitmap):
    acts, name, left = ["--merge", "one"], "two", {"one", "two"}


class BitmapMany(Bitmap):
    acts, left = ["--add", "--merge", "one", "--merge", "two", "--disable"], {"one", "two", "new"}


class Rebase(Case):
    """The image shows the same over either base."""

    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make("base")
        self.make("other", "write -P 9 100k 200k", "write -z 500k 100k")
        self.over("a", self.base, "write -P 7 250k 100k")
        self.old = self.shown()

    def command(self):
        return ["rebase", "-q", "-b", self.path("other"), "-F", "qcow2"], []

    def after(self, done):
        assert self.shown() == self.old
        where = info(self.a, "-f", "qcow2")["backing-filename"]
        assert where in ([str(self.path("other"))] if done else [str(self.path("other")), str(self.base)])


class RebaseCompressed(Rebase):
    def command(self):
        return ["rebase", "-q", "-c", "-b", self.path("other"), "-F", "qcow2"], []


class RebaseAway(Rebase):
    def command(self):
        return ["rebase", "-q", "-b", ""], []

    def after(self, done):
        assert self.shown() == self.old
        assert not done or "backing-filename" not in info(self.a, "-f", "qcow2")


class RebaseUnsafe(Rebase):
    def command(self):
        return ["rebase", "-q", "-u", "-b", self.path("other"), "-F", "qcow2"], []

    def after(self, done):
        where = info(self.a, "-f", "qcow2")["backing-filename"]
        assert where in ([str(self.path("other"))] if done else [str(self.path("other")), str(self.base)])
        if where == str(self.base):
            assert self.shown() == self.old


class Commit(Case):
    """The overlay shows the same all the time, the base in the end."""
    cut_base = False

    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make("base")
        self.over("a", self.base, "write -P 7 250k 100k", "write -P 8 700k 100k", *(() if kind == "v2" else ("write -z 500k 100k",)))
        self.old = self.shown()

    def command(self):
        return ["commit", "-q"], []

    def after(self, done):
        sound(self.base)
        assert self.shown() == self.old
        if done:
            assert self.shown("base") == self.old


class CommitBase(Commit):
    cut_base = True


class CommitInto(CommitBase):
    def command(self):
        return ["commit", "-q", "-d"], []


class Bench(Case):
    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make()
        self.old = self.shown()

    def command(self):
        return ["bench", "-q", "-w", "-c", "20", "-d", "4", "-s", "8k", "-o", "200k", "--pattern", "5", "--flush-interval", "6"], []

    def after(self, done):
        now = self.shown()
        assert now[:200 << 10] == self.old[:200 << 10] and now[360 << 10:] == self.old[360 << 10:]
        assert not done or now[200 << 10:360 << 10] == b"\5" * (160 << 10)


class Convert(Case):
    """Into an image that exists."""
    options = []

    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make("a", "write -P 6 0 1M")
        self.old = self.raw.read_bytes()

    def command(self):
        return ["convert", "-q", "-n", *self.options, "-f", "raw", self.raw, "--target-image-opts"], []

    def after(self, done):
        assert self.raw.read_bytes() == self.old
        now = self.shown()
        assert now == self.old if done else len(now) == MIB


class ConvertCompressed(Convert):
    options = ["-c"]


class ConvertSalvage(Convert):
    options = ["--salvage", "-W", "-t", "writeback"]


class Repair(Case):
    def __init__(self, folder, kind):
        super().__init__(folder, kind)
        self.make("a")
        self.old = self.shown()
        with open(self.a, "r+b") as f:              # refcounts of 40 clusters: all leaks, or none counted
            f.seek(48)
            table, = struct.unpack(">Q", f.read(8))
            f.seek(table)
            block, = struct.unpack(">Q", f.read(8))
            f.seek(0, 2)
            f.truncate(f.tell() + 40 * 4096)
            self.spoil(f, block)

    def spoil(self, f, block):
        f.seek(block + 2 * 30)
        f.write(bytes(40))

    def command(self):
        return ["check", "-q", "-r", "all"], []

    def after(self, done):
        img("check", "-q", "-r", "all", "-f", "qcow2", self.a)
        assert self.shown() == self.old


class RepairLeaks(Repair):
    def spoil(self, f, block):
        f.seek(0, 2)
        first = f.tell() // (16384 if self.kind == "sub" else 4096) - 5
        f.seek(block + 2 * first)
        f.write(b"\0\1" * 5)

    def command(self):
        return ["check", "-q", "-r", "leaks"], []


CASES = [Grow, GrowLong, Shrink, Preallocate, Amend, AmendNarrow, AmendWide, AmendV2, AmendV3, AmendSize, Snapshot, SnapshotDelete, SnapshotApply, Bitmap, BitmapRemove,
         BitmapClear, BitmapMerge, BitmapMany, Rebase, RebaseCompressed, RebaseAway, RebaseUnsafe, Commit, CommitBase, CommitInto, Bench, Convert, ConvertCompressed,
         ConvertSalvage, Repair, RepairLeaks]
V3_ONLY = {Amend, AmendNarrow, AmendWide, AmendV2, Bitmap, BitmapRemove, BitmapClear, BitmapMerge, BitmapMany}
ONLY_4K = {AmendV3, AmendV2}
OTHER_KINDS = {Grow, Shrink, AmendWide, SnapshotApply, BitmapMerge, Rebase, CommitBase, Convert}       # of the others a few, where there is little time


def attempt(case, loss):
    before, behind = case.command()
    case.restore()
    if getattr(case, "cut_base", False):
        image = spec(case.a, below="," + ",".join("backing." + o for o in spec(case.base, loss).split(",")))
    else:
        image = spec(case.a, loss)
    names = [] if "--target-image-opts" in before else ["--image-opts"]
    p = img(*before, *names, image, *behind, ok=(0, 1))
    assert p.returncode == 0 or p.stderr.startswith("backplane-img: "), p.stderr
    if not isinstance(case, Repair):
        sound(case.a)
    case.after(p.returncode == 0)
    return p.returncode == 0


def cuts(name):
    """Where a command is cut: at its first writes more often than at later ones."""
    rng = random.Random(name)
    order = rng.sample(LOSSES, len(LOSSES))
    for i in range(CUTS):
        loss = order[i % len(order)]
        yield loss.replace("%n", str(rng.randrange(1, 2 << rng.randrange(6)) - loss.startswith("faults"))).replace("%s", str(rng.randrange(1000)))


@pytest.mark.parametrize("kind,of", [(k, c) for k, c in itertools.product(KINDS, CASES)
                                     if k == "4k" or ((THOROUGH or c in OTHER_KINDS) and c not in ONLY_4K and not (k == "v2" and c in V3_ONLY))])
def test_cut(tmp_path, kind, of):
    case = of(tmp_path, kind)
    case.keep()
    for loss in itertools.chain([""], cuts(kind + of.__name__)):
        try:
            assert attempt(case, loss) or loss
        except AssertionError as e:
            raise AssertionError("%s: %s" % (loss, e)) from e


@pytest.mark.parametrize("command", ["convert -f raw -O %s raw new" % f for f in ("raw", "qcow2", "vdi", "vmdk", "vpc")] + [
    "convert -c -f raw -O qcow2 raw new", "convert -f raw -O qcow2 -o preallocation=full raw new", "dd -f raw -O qcow2 bs=64k if=raw of=new",
    "create -f qcow2 -o preallocation=falloc new 1M", "create -f raw -o preallocation=full new 1M"])
def test_a_new_image_that_there_is_no_room_for(tmp_path, command):
    """Half an image is none: its file is gone. (A limit of the file's size is told where a full disk would be.)"""
    raw = sparse_file(tmp_path / "raw", MIB, pieces=60)
    held = raw.read_bytes()
    for kib in 8, 90, 400:
        p = run("bash", "-c", 'ulimit -f %d; exec "$0" %s' % (kib, command), IMG, cwd=tmp_path, ok=(1,))
        assert p.stderr.startswith("backplane-img: ") and os.listdir(tmp_path) == ["raw"] and raw.read_bytes() == held
