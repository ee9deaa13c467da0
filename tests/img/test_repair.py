# SPDX-License-Identifier: MIT
"""
Damaged qcow2 images, after `check -r all`: they open, are clean for both tools, and what the damage did not concern is what it was.
So they are when the power failed in the middle of a repair, and it was begun again. Who did not ask for it loses nothing.
BP_FUZZ=N tries more than `make check` does; BP_SEED=S begins elsewhere.
"""
import os
import random
import re
import shutil
import struct
import subprocess

import pytest

from imglib import QEMU, img, qimg, qio, run

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
SIZE, KIB = 1 << 20, 1 << 10
ROUNDS, SEED = int(os.environ.get("BP_FUZZ", "90")), int(os.environ.get("BP_SEED", "0"))
OFFSET = 0x00fffffffffffe00
SECRET = ("--object", "secret,id=s,data=abc")
KINDS = {
    "512": "cluster_size=512", "4k": "cluster_size=4k", "64k": "cluster_size=64k", "sub": "cluster_size=16k,extended_l2=on",
    "ref1": "cluster_size=4k,refcount_bits=1", "ref2": "cluster_size=4k,refcount_bits=2", "ref64": "cluster_size=4k,refcount_bits=64",
    "v2": "cluster_size=4k,compat=0.10", "zstd": "cluster_size=4k,compression_type=zstd", "back": "cluster_size=4k", "data": "cluster_size=4k,data_file=%s",
    "raw": "cluster_size=4k,data_file=%s,data_file_raw=on", "luks": "cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    "luks1": "cluster_size=4k,refcount_bits=1,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
}


def be(data, off, n=8):
    return int.from_bytes(data[off:off + n], "big")


class Image:
    """An image, what it holds, and where its tables are."""

    def __init__(self, folder, kind):
        self.kind, self.path, self.luks = kind, folder / (kind + ".qcow2"), kind.startswith("luks")
        self.ext = folder / (kind + ".ext") if kind in ("data", "raw") else None
        raw, opts = folder / (kind + ".in"), KINDS[kind] % self.ext if self.ext else KINDS[kind]
        rng = random.Random(kind)
        raw.write_bytes(b"".join(bytes([rng.randrange(256)]) * 512 for _ in range(SIZE // 512)))
        below = ("-b", raw, "-F", "raw") if kind == "back" else ()
        img("create", *(SECRET if self.luks else ()), "-f", "qcow2", "-o", opts, *below, self.path, str(SIZE))
        if kind != "back":
            self.write("write -s %s 0 512k" % raw)
        self.write("write -P 1 600k 100k", "write -z 100k 32k", "write -P 2 900k 5k")
        if not self.ext and not self.luks and kind != "ref2":
            qio(self.path, "write -c -P 3 768k 64k")
        if not self.ext and not self.luks and kind != "ref1":
            img("snapshot", "-c", "one", self.path)
            self.write("write -P 4 20k 40k")
            img("snapshot", "-c", "two", self.path)
            self.write("write -P 5 640k 8k")
        if kind not in ("v2", "raw", "luks", "luks1"):
            img("bitmap", "--add", "-g", "64k", self.path, "b")
            img("bitmap", "--add", "-g", "4k", self.path, "c")
            self.write("write -P 6 8k 4k")
        self.bytes, self.outside = self.path.read_bytes(), self.ext and self.ext.read_bytes()
        self.shown = self.read()
        self.layout()

    def spec(self, below=""):
        return "driver=qcow2,%sfile.filename=%s%s" % (below, self.path, ",encrypt.key-secret=s" if self.luks else "")

    def write(self, *cmds):
        args = [a for c in cmds for a in ("-c", c)]
        run("qemu-io", *(SECRET if self.luks else ()), "--image-opts", *args, self.spec())

    def read(self):
        """What it shows; nothing where a part cannot be read."""
        out = str(self.path) + ".out"
        p = img("convert", "--force", *(SECRET if self.luks else ()), "--image-opts", "-O", "raw", self.spec(), out, ok=(0, 1))
        if p.returncode:
            return b""
        with open(out, "rb") as f:
            return f.read()

    def read_what_can_be(self):
        """The same where damage led to what no decompressor takes: an error, not zeroes."""
        out = str(self.path) + ".out"
        qimg("convert", "--salvage", *(SECRET if self.luks else ()), "--image-opts", "-O", "raw", self.spec(), out)
        with open(out, "rb") as f:
            return f.read()

    def layout(self):
        b = self.bytes
        self.cluster = 1 << be(b, 20, 4)
        self.entry = 16 if self.kind == "sub" else 8
        self.covers = self.cluster // self.entry * self.cluster
        self.l1 = (be(b, 40), be(b, 36, 4))
        self.rt = (be(b, 48), be(b, 56, 4) * self.cluster // 8)
        self.snaps = (be(b, 64), be(b, 60, 4))
        self.bitmaps = 0
        at = be(b, 100, 4) if self.kind != "v2" else 72
        while at + 8 < self.cluster and be(b, at, 4):
            if be(b, at, 4) == 0x23852875:
                self.bitmaps = at
            at += 8 + (be(b, at + 4, 4) + 7) // 8 * 8

    # ---- damage ----

    def places(self, rng):
        """One place in the file, and the part of the disk that may read as something else then."""
        b, nothing = self.bytes, (0, 0)
        i = rng.randrange(self.l1[1])
        table = be(b, self.l1[0] + 8 * i) & OFFSET
        k = rng.randrange(min(self.cluster // self.entry, SIZE // self.cluster))
        guest = i * self.covers + k * self.cluster
        block = be(b, self.rt[0])
        what = rng.randrange(10)
        if what < 3 and table:
            return table + k * self.entry, (guest, guest + self.cluster)
        if what == 3:
            return self.l1[0] + 8 * i, (i * self.covers, (i + 1) * self.covers)
        if what == 4:
            return self.rt[0] + 8 * rng.randrange(2), nothing
        if what == 5:
            return block + 8 * rng.randrange(8), nothing
        if what == 6 and self.snaps[1]:
            return self.snaps[0] + 8 * rng.randrange(16), nothing
        if what == 7 and self.bitmaps:
            directory = be(b, self.bitmaps + 24)
            return rng.choice([self.bitmaps + 8, self.bitmaps + 16, self.bitmaps + 24, directory, directory + 8, directory + 16,
                               be(b, directory)]), nothing
        if what == 8 and self.snaps[1]:
            return be(b, self.snaps[0]) + 8 * i, nothing
        return rng.choice([48, 56, 64]), nothing         # where refcounts and snapshots are; how many of the latter

    def value(self, rng, old):
        clusters = len(self.bytes) // self.cluster
        return rng.choice([0, 1, 2**64 - 1, 1 << 63, 1 << 62, 1 << 62 | 12345, 1 << 63 | 512, 1 << 63 | 4096, 2**63 - 1, 1 << 55, rng.getrandbits(64),
                           old ^ 1 << rng.randrange(64), old ^ 1 << rng.randrange(64), 1 << 63 | rng.randrange(clusters) * self.cluster,
                           rng.randrange(clusters) * self.cluster, old + self.cluster])

    def damage(self, rng):
        data, hit = bytearray(self.bytes), []
        for _ in range(rng.randrange(1, 5)):
            at, guest = self.places(rng)
            if at == 56:            # clusters of the refcount table, and the number of snapshots: 32 bits each
                at += 4 * rng.randrange(2)
                data[at:at + 4] = struct.pack(">I", self.value(rng, be(data, at, 4)) & 0xffffffff)
                continue
            if self.entry == 16 and guest[1] - guest[0] == self.cluster:
                at += 8 * rng.randrange(2)
            if at + 8 <= len(data):
                data[at:at + 8] = struct.pack(">Q", self.value(rng, be(data, at)) & (2**64 - 1))
                hit.append(guest)
        self.path.write_bytes(data)
        if self.ext:
            self.ext.write_bytes(self.outside)
        return hit

    def cut(self, rng):
        """A repair that the power ends at one of its first writes."""
        lock = SECRET if self.luks else ()
        disk = "file.driver=powerloss,file.cut-at-write=%d,file.keep=%s,file.seed=%d,file." % (
            rng.randrange(1, 13), rng.choice(("none", "some", "all", "torn")), rng.randrange(1000))
        img("check", "-r", "all", *lock, "--image-opts", self.spec(disk), ok=(0, 1))

    def judge(self, hit):
        lock = SECRET if self.luks else ()
        img("check", "-r", "all", *lock, "--image-opts", self.spec())
        img("check", *lock, "--image-opts", self.spec())
        qimg("check", *lock, "--image-opts", self.spec())
        now = self.read() or hit and self.read_what_can_be()
        assert len(now) == SIZE
        for at in range(0, SIZE, 512):
            if now[at:at + 512] != self.shown[at:at + 512]:
                assert any(a <= at < b for a, b in hit), hex(at)
        for name in ("one", "two"):
            if not self.luks and re.search(r"^\d+ +%s " % name, img("snapshot", "-l", self.path).stdout, re.M):
                qimg("convert", "--salvage", "-l", name, "-O", "raw", self.path, str(self.path) + ".out")


@pytest.fixture(scope="module", params=list(KINDS))
def image(request, tmp_path_factory):
    return Image(tmp_path_factory.mktemp("repair"), request.param)


def try_all(image, before):
    for i in range(SEED, SEED + max(1, ROUNDS // len(KINDS))):
        rng = random.Random("%s %d" % (image.kind, i))
        hit = image.damage(rng)
        before(rng)
        try:
            image.judge(hit)
        except (AssertionError, subprocess.TimeoutExpired) as e:
            keep = os.environ.get("BP_FUZZ_KEEP")
            if keep:
                image.damage(random.Random("%s %d" % (image.kind, i)))
                shutil.copy(image.path, "%s/%s-%d.qcow2" % (keep, image.kind, i))
            raise AssertionError("seed %d: %s" % (i, e)) from e


def test_what_was_repaired_is_clean(image):
    try_all(image, lambda rng: None)


def test_a_repair_that_was_cut_is_done_by_the_next(image):
    try_all(image, image.cut)


@pytest.fixture(name="plain")
def fixture_plain(tmp_path):
    return Image(tmp_path, "4k")


def put(image, at, value):
    data = bytearray(image.bytes)
    data[at:at + len(value)] = value
    image.path.write_bytes(data)
    return bytes(data)


def test_leaks_are_left_alone_where_tables_lead_nowhere(plain):
    """What seems to be a leak may be what they led to."""
    entry = be(plain.bytes, plain.l1[0])
    for at, value in ((plain.l1[0], struct.pack(">Q", entry | 1 << 56)), (60, struct.pack(">I", 1 << 20)), (plain.bitmaps + 12, struct.pack(">I", 1))):
        data = put(plain, at, value)
        img("check", "-r", "leaks", plain.path, ok=(2,))
        assert plain.path.read_bytes() == data
        plain.path.write_bytes(plain.bytes)
        assert plain.read() == plain.shown


def test_an_image_that_was_not_closed_loses_nothing_when_it_is_opened(plain):
    """Its refcounts are mended then; an entry that leads out of the file is for `check` to give up."""
    at = (be(plain.bytes, plain.l1[0]) & OFFSET) + 8 * 3
    put(plain, at, struct.pack(">Q", 1 << 63 | 1 << 40))
    with open(plain.path, "r+b") as f:
        f.seek(72)
        f.write(struct.pack(">Q", 1))
    img("bitmap", "--add", plain.path, "new")
    assert be(plain.path.read_bytes(), at) & OFFSET == 1 << 40
    img("check", "-r", "all", plain.path)
    assert be(plain.path.read_bytes(), at) & OFFSET == 0
