# SPDX-License-Identifier: MIT
"""Formats of others: what QEMU's tool makes of them is compared with what it was made from, and with what it says of it; and back."""
import filecmp
import json
import os
import re
import random
import struct
import zlib

import pytest

from imglib import QEMU, img, info, qimg, qio, sparse_file

pytestmark = pytest.mark.skipif(not QEMU, reason="no qemu-img")
MIB = 1 << 20
KINDS = [
    ("vdi", []), ("vdi", ["-o", "static=on"]), ("parallels", []), ("parallels", ["-o", "cluster_size=64k"]), ("qcow", []),
    ("vpc", ["-o", "force_size=on"]), ("vpc", ["-o", "subformat=fixed,force_size=on"]), ("vhdx", ["-o", "block_size=1M"]),
    ("vhdx", ["-o", "subformat=fixed"]), ("vmdk", []), ("vmdk", ["-o", "subformat=monolithicFlat"]),
    ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]), ("vmdk", ["-o", "subformat=twoGbMaxExtentFlat"]),
    ("vmdk", ["-o", "subformat=streamOptimized"]), ("vmdk", ["-o", "zeroed_grain=on"]),
]
NAMES = [f + "".join("-" + o.split(",")[0] for o in more if o != "-o") for f, more in KINDS]


def image(tmp_path, kind, size=12 * MIB, seed=1):
    fmt, more = kind
    raw = sparse_file(tmp_path / "raw", size, seed=seed)
    qimg("convert", "-f", "raw", "-O", fmt, *more, raw, tmp_path / ("a." + fmt))
    return raw, tmp_path / ("a." + fmt), fmt


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_contents_are_what_they_were(tmp_path, kind):
    raw, a, fmt = image(tmp_path, kind)
    out = tmp_path / "out"
    img("convert", "-f", fmt, "-O", "raw", a, out)
    assert filecmp.cmp(raw, out, shallow=False)
    assert "identical" in img("compare", "-f", fmt, "-F", "raw", a, raw).stdout
    img("check", "-f", fmt, a)
    ours, theirs = info(a, "-f", fmt), json.loads(qimg("info", "--output=json", "-f", fmt, a).stdout)
    for key in ("virtual-size", "format", "cluster-size"):
        if key in theirs and key in ours:
            assert ours[key] == theirs[key], key
    img("convert", "-f", fmt, "-O", "qcow2", a, tmp_path / "q")
    qimg("compare", "-f", "qcow2", "-F", fmt, tmp_path / "q", a)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_odd_pieces(tmp_path, kind):
    """Reads that begin and end anywhere."""
    raw, a, fmt = image(tmp_path, kind, seed=5)
    with open(raw, "rb") as f:
        data = f.read()
    r = random.Random(2)
    for _ in range(6):
        skip, count = r.randrange(12 * 2048 - 1), r.randrange(1, 300)
        img("dd", "-f", fmt, "-O", "raw", "--force", "bs=512", "skip=%d" % skip, "count=%d" % count, "if=%s" % a, "of=%s" % (tmp_path / "o"))
        with open(tmp_path / "o", "rb") as f:
            want = data[skip * 512:(skip + count) * 512]
            assert f.read() == want, (skip, count)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_the_map_tells_holes(tmp_path, kind):
    """What is told to be zeroes is, and an empty image has no data."""
    raw, a, fmt = image(tmp_path, kind)
    with open(raw, "rb") as f:
        data = f.read()
    end = 0
    for x in json.loads(img("map", "-f", fmt, "--output=json", a).stdout):
        assert x["start"] == end
        end += x["length"]
        if x["zero"]:
            assert not any(data[x["start"]:end])
    assert end == len(data)
    flat = any(w in NAMES[KINDS.index(kind)] for w in ("static", "fixed", "Flat"))
    if not flat:
        os.unlink(a)
        qimg("create", "-f", fmt, *[o for o in kind[1] if o != "-c"], a, "12M")
        assert not any(x["data"] for x in json.loads(img("map", "-f", fmt, "--output=json", a).stdout))


@pytest.mark.parametrize("fmt", ["vdi", "parallels", "qcow", "vpc", "vhdx", "vmdk"])
def test_the_format_is_told_by_its_signature(tmp_path, fmt):
    name = tmp_path / "image"
    qimg("create", "-f", fmt, name, "4M")
    assert info(name)["format"] == fmt


WRITABLE = [("vdi", []), ("vdi", ["-o", "static=on"]), ("vpc", []), ("vpc", ["-o", "subformat=fixed"]), ("vmdk", []),
            ("vmdk", ["-o", "adapter_type=lsilogic"])]


def judged_by_qemu(raw, a, fmt):
    if fmt != "vpc":
        qimg("check", "-f", fmt, a)
    qimg("compare", "-f", "raw", "-F", fmt, raw, a)
    img("check", "-f", fmt, a)


@pytest.mark.parametrize("size", [12 * MIB, 5 * MIB + 1536])
@pytest.mark.parametrize("kind", WRITABLE, ids=lambda k: k[0] + "".join(k[1][1:]))
def test_what_is_made_here_is_good_to_qemu(tmp_path, kind, size):
    fmt, more = kind
    raw, a = sparse_file(tmp_path / "raw", size, pieces=30), tmp_path / "a"
    img("convert", "-f", "raw", "-O", fmt, *more, raw, a)
    judged_by_qemu(raw, a, fmt)
    assert json.loads(qimg("info", "--output=json", "-f", fmt, a).stdout)["virtual-size"] == size
    assert more or os.stat(a).st_blocks * 512 < size
    # over what is there, by both
    other = sparse_file(tmp_path / "raw2", size, seed=9, pieces=30)
    img("convert", "-n", "-f", "raw", "-O", fmt, other, a)
    judged_by_qemu(other, a, fmt)
    qimg("convert", "-n", "-f", "raw", "-O", fmt, raw, a)
    judged_by_qemu(raw, a, fmt)


@pytest.mark.parametrize("kind", [("vdi", []), ("vdi", ["-o", "static=on"]), ("vpc", ["-o", "force_size=on"]),
                                  ("vpc", ["-o", "subformat=fixed,force_size=on"]), ("vmdk", []), ("vmdk", ["-o", "zeroed_grain=on"])],
                         ids=lambda k: k[0] + "".join(k[1][1:]))
def test_what_qemu_made_is_written(tmp_path, kind):
    raw, a, fmt = image(tmp_path, kind)
    other = sparse_file(tmp_path / "raw2", 12 * MIB, seed=11, pieces=30)
    img("convert", "-n", "-f", "raw", "-O", fmt, other, a)
    judged_by_qemu(other, a, fmt)


def test_bitmaps_of_a_vpc_say_what_was_written(tmp_path):
    """Virtual PC marks the sectors of a block that hold something; whoever reads by that must see what is written here."""
    a, raw = tmp_path / "a", sparse_file(tmp_path / "raw", 4 * MIB, pieces=30)
    img("convert", "-f", "raw", "-O", "vpc", raw, a)
    data = bytearray(a.read_bytes())
    first = struct.unpack_from(">I", data, 1536)[0] * 512
    assert data[first:first + 512] == b"\xff" * 512
    data[first:first + 512] = bytes(512)
    a.write_bytes(data)
    img("bench", "-w", "-c", "1", "-d", "1", "-f", "vpc", a)
    assert a.read_bytes()[first:first + 512] == b"\xff" * 512


def test_sizes_that_a_format_has_not(tmp_path):
    for fmt, size in (("vpc", "2041G"), ("vdi", "1P")):
        assert "more than a %s image can have" % fmt in img("create", "-f", fmt, tmp_path / "a", size, ok=(1,)).stderr
        assert not (tmp_path / "a").exists()
    img("create", "-f", "vpc", tmp_path / "a", "2040G")
    img("create", "-f", "vdi", tmp_path / "b", "0")
    assert info(tmp_path / "a")["virtual-size"] == 2040 << 30 and info(tmp_path / "b")["virtual-size"] == 0


@pytest.mark.parametrize("written", ["2722e509", "722e509", "1"])
def test_vmdk_over_a_parent(tmp_path, written):
    """Grains are filled up from the parent; who changes has another content number from then on, however many digits it was written with."""
    raw, a, _ = image(tmp_path, ("vmdk", []), size=4 * MIB)
    b = tmp_path / "b.vmdk"
    qimg("create", "-f", "vmdk", "-b", a, "-F", "vmdk", b)
    data, cid = b.read_bytes(), int(written, 16)
    head, rest = re.split(rb"(?<=\nCID=)[0-9a-f]+", data, maxsplit=1)
    text, zeros = rest.split(b"\0", 1)
    text = head + written.encode() + text
    b.write_bytes(text + zeros.rjust(len(data) - len(text), b"\0")[-(len(data) - len(text)):])
    assert b.stat().st_size == len(data) and info(b, "-f", "vmdk")["format-specific"]["data"]["cid"] == cid
    img("bench", "-w", "-c", "200", "-d", "4", "-s", "3k", "-S", "19456", "--pattern", "5", "-f", "vmdk", b)
    assert info(b, "-f", "vmdk")["format-specific"]["data"]["cid"] != cid
    want = bytearray(raw.read_bytes())
    at = 0
    for _ in range(200):
        want[at:at + 3072] = b"\5" * 3072
        at += 19456
    (tmp_path / "want").write_bytes(want)
    qimg("check", "-f", "vmdk", b)
    qimg("compare", "-f", "raw", "-F", "vmdk", tmp_path / "want", b)


@pytest.mark.parametrize("kind", [("vmdk", ["-o", "subformat=monolithicFlat"]), ("vmdk", ["-o", "subformat=streamOptimized"])],
                         ids=lambda k: k[1][1])
def test_other_kinds_of_vmdk_are_only_read(tmp_path, kind):
    raw, a, fmt = image(tmp_path, kind)
    before = a.read_bytes()
    assert "can only be read here" in img("convert", "-n", "-f", "raw", "-O", fmt, raw, a, ok=(1,)).stderr
    assert a.read_bytes() == before


@pytest.mark.parametrize("fmt", ["parallels", "qcow", "vhdx"])
def test_writes_are_refused(tmp_path, fmt):
    a = tmp_path / "a"
    qimg("create", "-f", fmt, a, "4M")
    before = a.read_bytes()
    p = img("convert", "-n", "-f", "raw", "-O", fmt, sparse_file(tmp_path / "raw", 4 * MIB), a, ok=(1,))
    assert "can only be read here" in p.stderr and a.read_bytes() == before
    assert "cannot be created here" in img("create", "-f", fmt, tmp_path / "b", "1M", ok=(1,)).stderr


@pytest.mark.parametrize("fmt", ["qcow", "vmdk"])
def test_a_backing_file(tmp_path, fmt):
    raw = sparse_file(tmp_path / "raw", 4 * MIB, seed=8)
    base = tmp_path / ("base." + fmt)
    qimg("convert", "-f", "raw", "-O", fmt, raw, base)
    qimg("create", "-f", fmt, "-b", base, "-F", fmt, tmp_path / "top")
    qio(tmp_path / "top", "write -P 7 1M 70k", "write -P 9 3000k 5k", fmt=fmt)
    qimg("convert", "-f", fmt, "-O", "raw", tmp_path / "top", tmp_path / "want")
    if fmt == "qcow":                   # does not say in which format its backing file is
        assert "looks like a qcow image" in img("convert", "-f", fmt, "-O", "raw", tmp_path / "top", tmp_path / "out", ok=(1,)).stderr
        opts = "driver=qcow,file.filename=%s,file.driver=file,backing.driver=qcow,backing.file.driver=file,backing.file.filename=%s" % (tmp_path / "top", base)
        img("convert", "--image-opts", opts, "-O", "raw", tmp_path / "out", "--force")
    else:
        img("convert", "-f", fmt, "-O", "raw", tmp_path / "top", tmp_path / "out")
    assert filecmp.cmp(tmp_path / "want", tmp_path / "out", shallow=False)


def test_vmdk_reaches_no_file_elsewhere(tmp_path):
    """A descriptor that names files of the host is refused, and so are names of folders above."""
    (tmp_path / "secret").write_bytes(b"x" * 4096)
    (tmp_path / "d").mkdir()
    for name in (str(tmp_path / "secret"), "../secret"):
        (tmp_path / "d" / "a.vmdk").write_text('# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "%s" 0\n' % name)
        assert "beside it" in img("info", "-f", "vmdk", tmp_path / "d" / "a.vmdk", ok=(1,)).stderr
    (tmp_path / "d" / "a.vmdk").write_text('# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT "b" 0\nRW 8 ZERO\n')
    (tmp_path / "d" / "b").write_bytes(b"y" * 4096)
    os.rename(tmp_path / "d" / "a.vmdk", tmp_path / "d" / "a")
    assert "names other files" in img("convert", "-O", "raw", tmp_path / "d" / "a", tmp_path / "out", ok=(1,)).stderr
    img("convert", "-f", "vmdk", "-O", "raw", tmp_path / "d" / "a", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"y" * 4096 + bytes(4096)


class Vhdx:
    """The file of a VHDX image, to be damaged: its headers and its log ([MS-VHDX] 2.2.2 and 2.3.1)."""
    GUID = bytes(range(1, 17))

    def __init__(self, path):
        self.path = path
        self.data = bytearray(path.read_bytes())
        head = max((64 << 10, 128 << 10), key=lambda at: struct.unpack_from("<Q", self.data, at + 8))
        self.log_len, self.log = struct.unpack_from("<IQ", self.data, head + 68)
        table = 192 << 10
        guids = {bytes(self.data[table + 16 + i * 32:table + 32 + i * 32]): struct.unpack_from("<Q", self.data, table + 32 + i * 32)[0] for i in range(2)}
        self.bat = guids[bytes.fromhex("6677c22d23f600429d64115e9bfd4a08")]

    def save(self):
        self.path.write_bytes(self.data)

    def owned(self):
        """A writer with a log has been here."""
        for at in (64 << 10, 128 << 10):
            self.data[at + 48:at + 64] = self.GUID
            self.data[at + 4:at + 8] = bytes(4)
            struct.pack_into("<I", self.data, at + 4, crc32c(self.data[at:at + 4096]))

    def entry(self, at, tail, seq, writes, flushed=None):
        """An entry at AT of the ring; WRITES: pairs of an offset and 4096 bytes, or of an offset and a number of zeroes."""
        descs = sectors = b""
        for off, what in writes:
            if isinstance(what, int):
                descs += struct.pack("<4s4xQQQ", b"zero", what, off, seq)
            else:
                descs += b"desc" + what[-4:] + what[:8] + struct.pack("<QQ", off, seq)
                sectors += struct.pack("<4sI", b"data", seq >> 32) + what[8:-4] + struct.pack("<I", seq & 0xffffffff)
        first = -(-(64 + len(descs)) // 4096) * 4096
        size = len(self.data) if flushed is None else flushed
        e = bytearray(struct.pack("<4sIIIQII16sQQ", b"loge", 0, first + len(sectors), tail, seq, len(writes), 0, self.GUID, size, size) + descs)
        e += bytes(first - len(e)) + sectors
        struct.pack_into("<I", e, 4, crc32c(e))
        for i in range(0, len(e), 4096):
            to = self.log + (at + i) % self.log_len
            self.data[to:to + 4096] = e[i:i + 4096]
        return (at + len(e)) % self.log_len


def played_back(a, tmp_path):
    """What the image A is to us, which leaves it alone, and to QEMU, once it has played the log back."""
    before = a.read_bytes()
    img("convert", "-f", "vhdx", "-O", "raw", a, tmp_path / "ours")
    assert a.read_bytes() == before
    qimg("check", "-r", "all", "-f", "vhdx", a)
    qimg("convert", "-f", "vhdx", "-O", "raw", a, tmp_path / "qemu")
    assert filecmp.cmp(tmp_path / "ours", tmp_path / "qemu", shallow=False)
    return (tmp_path / "ours").read_bytes()


def test_the_log_that_qemu_left_is_played_back(tmp_path):
    """An entry that QEMU wrote, as if QEMU had been killed before it wrote the block table itself."""
    a = tmp_path / "a.vhdx"
    qimg("create", "-f", "vhdx", "-o", "block_size=1M", a, "8M")
    qio(a, "write -P 5 1M 1M", fmt="vhdx")      # a block: an entry at the beginning of the log
    v = Vhdx(a)
    assert any(v.data[v.bat:v.bat + 64])
    v.GUID = bytes(v.data[v.log + 32:v.log + 48])
    v.owned()
    v.data[v.bat:v.bat + 4096] = bytes(4096)
    v.save()
    assert played_back(a, tmp_path) == bytes(MIB) + b"\x05" * MIB + bytes(6 * MIB)


@pytest.mark.parametrize("start", [0, 512 << 10, (1 << 20) - 8192, (1 << 20) - 4096])
def test_the_newest_whole_sequence_of_a_log_counts(tmp_path, start):
    """One of old entries, one whose end was not written, and one across the end of the ring; zeroes and sectors in order."""
    a = tmp_path / "a.vhdx"
    qimg("create", "-f", "vhdx", "-o", "block_size=1M", a, "8M")
    qio(a, "write -P 1 0 1M", "write -P 2 1M 1M", "write -P 3 2M 1M", fmt="vhdx")
    v = Vhdx(a)
    table = bytes(v.data[v.bat:v.bat + 4096])
    entries = struct.unpack_from("<3Q", table)
    swapped = struct.pack("<3Q", entries[1], 0, entries[0]) + table[24:]
    v.owned()
    old = v.entry(256 << 10, 256 << 10, 90, [(v.bat, 4096)])
    v.entry(old, 256 << 10, 91, [(v.bat, table)])
    at = v.entry(start, start, 100, [(v.bat, table)])
    at = v.entry(at, start, 101, [(v.bat, 8192), (v.bat + 4096, table)])
    tail = at
    at = v.entry(at, start, 102, [(v.bat, 4096), (v.bat, swapped)])
    torn = at
    at = v.entry(at, tail, 103, [(v.bat, 4096)])
    v.data[v.log + (torn + 100) % v.log_len] ^= 1
    v.save()
    assert played_back(a, tmp_path) == b"\2" * MIB + bytes(MIB) + b"\1" * MIB + bytes(5 * MIB)


def test_a_log_without_an_entry_changes_nothing(tmp_path):
    a = tmp_path / "a.vhdx"
    qimg("create", "-f", "vhdx", a, "4M")
    v = Vhdx(a)
    v.owned()
    v.save()
    assert played_back(a, tmp_path) == bytes(4 * MIB)


@pytest.mark.parametrize("what,says", [
    ("sum", "no sequence of entries"), ("tail", "no sequence of entries"), ("cut", "is cut off"), ("zeroes", "writes 17 zeroes"),
    ("offset", "offset 0x"), ("data", "not the data of one"), ("descriptors", "descriptors in"), ("version", "version 7"),
])
def test_a_damaged_log_is_refused(tmp_path, what, says):
    a = tmp_path / "a.vhdx"
    qimg("create", "-f", "vhdx", a, "4M")
    v = Vhdx(a)
    if what == "version":
        v.data[65536 + 64] = v.data[131072 + 64] = 7
    v.owned()
    writes = {"zeroes": [(v.bat, 17)], "offset": [(v.bat + 1, bytes(4096))]}.get(what, [(v.bat, bytes(4096))])
    v.entry(0, 65536 if what == "tail" else 0, 5, writes, flushed=len(v.data) + MIB if what == "cut" else None)
    entry = v.data[v.log:v.log + 8192]
    if what == "sum":
        v.data[v.log + 5000] ^= 1
    if what in ("data", "descriptors"):
        entry[4096 if what == "data" else 25] ^= 1
        entry[4:8] = bytes(4)
        struct.pack_into("<I", entry, 4, crc32c(entry))
        v.data[v.log:v.log + 8192] = entry
    v.save()
    stderr = img("info", "-f", "vhdx", a, ok=(1,)).stderr
    assert "log" in stderr or what == "cut"
    assert says in stderr


def crc32c(data):
    crc = 0xffffffff
    for b in data:
        crc ^= b
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def test_check_finds_what_is_wrong(tmp_path):
    """A block that two guest blocks share, and one behind the end."""
    a = tmp_path / "a.vdi"
    qimg("convert", "-f", "raw", "-O", "vdi", sparse_file(tmp_path / "raw", 12 * MIB, pieces=40), a)
    with open(a, "r+b") as f:
        f.seek(0x154)
        at, = struct.unpack("<I", f.read(4))
        f.seek(at)
        f.write(struct.pack("<III", 1, 1, 5000))
    p = img("check", "-f", "vdi", a, ok=(2,))
    assert "another block uses" in p.stderr and "behind its end" in p.stderr


def test_compressed_clusters_of_qcow(tmp_path):
    """Made here: QEMU's tool writes none any more, but reads them."""
    bits, l2_bits, clusters = 12, 9, 32
    cs, data, table, out = 1 << bits, [], [], bytearray(48 + 8 + (8 << l2_bits))
    for i in range(clusters):
        data.append(b"%03d " % i * (cs // 4) if i % 3 else bytes(cs))
        z = zlib.compressobj(9, zlib.DEFLATED, -12)
        packed = z.compress(data[-1]) + z.flush()
        table.append(1 << 63 | len(packed) << (63 - bits) | len(out) if i % 3 else 0)
        out += packed if i % 3 else b""
    struct.pack_into(">IIQIIQBBHIQ", out, 0, 0x514649fb, 1, 0, 0, 0, clusters * cs, bits, l2_bits, 0, 0, 48)
    struct.pack_into(">Q", out, 48, 56)
    struct.pack_into(">%dQ" % clusters, out, 56, *table)
    (tmp_path / "a").write_bytes(bytes(out) + bytes(-len(out) % 512))
    (tmp_path / "raw").write_bytes(b"".join(data))
    qimg("compare", "-f", "qcow", "-F", "raw", tmp_path / "a", tmp_path / "raw")
    img("compare", "-f", "qcow", "-F", "raw", tmp_path / "a", tmp_path / "raw")
    img("check", "-f", "qcow", tmp_path / "a")


@pytest.mark.parametrize("fmt,more", [("vmdk", "subformat=monolithicFlat"), ("vmdk", "subformat=twoGbMaxExtentFlat"), ("vpc", "subformat=fixed,force_size=on"),
                                      ("vdi", "static=on")])
def test_holes_of_what_has_its_place_are_zeroes(tmp_path, fmt, more):
    """Such an image is as sparse as its file: maps, and what a copy would need, say so."""
    a = tmp_path / "a"
    qimg("create", "-f", fmt, "-o", more, a, "8M")
    qio(a, "write -P 1 64k 64k", "write -P 2 3M 1M", fmt=fmt)
    said = [json.loads(tool("map", "-f", fmt, "--output=json", a).stdout) for tool in (img, qimg)]
    assert said[0] == said[1] and sum(x["length"] for x in said[0] if not x["zero"]) < 2 * MIB
    said = [json.loads(tool("measure", "-f", fmt, "-O", "qcow2", "--output=json", a).stdout) for tool in (img, qimg)]
    assert said[0] == said[1]
    img("convert", "-f", fmt, "-O", "raw", a, tmp_path / "out")
    assert "identical" in qimg("compare", "-f", fmt, "-F", "raw", a, tmp_path / "out").stdout


def test_no_bytes_of_bitmaps_are_told_as_such(tmp_path):
    img("create", "-f", "qcow2", tmp_path / "a", "1M")
    assert img("measure", "-f", "qcow2", "-O", "qcow2", tmp_path / "a").stdout == qimg("measure", "-f", "qcow2", "-O", "qcow2", tmp_path / "a").stdout
    assert "bitmaps" not in img("measure", "-f", "qcow2", "-O", "raw", tmp_path / "a").stdout
