# SPDX-License-Identifier: MIT
"""The command line of backplane-img as users of qemu-img know it: options that imply others, long names, preallocation while growing."""
import json
import os
import subprocess

import pytest

from imglib import IMG, QEMU, img, info, qimg, qio

MIB = 1 << 20


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_a_file_name_implies_its_protocol(tmp_path):
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "8M")
    assert info("driver=qcow2,file.filename=%s" % a, "--image-opts")["virtual-size"] == 8 * MIB
    assert info("driver=qcow2,file.driver=raw,file.file.filename=%s" % a, "--image-opts")["virtual-size"] == 8 * MIB
    img("convert", "--image-opts", "-O", "raw", "driver=qcow2,file.filename=file:%s,file.locking=off" % a, tmp_path / "b")
    assert (tmp_path / "b").stat().st_size == 8 * MIB
    assert "unknown property" in img("info", "--image-opts", "driver=qcow2,file.filename=%s,file.x=1" % a, ok=(1,)).stderr


def test_a_command_tells_how_it_is_used():
    for flag in ("--help", "-h"):
        out = img("convert", flag).stdout
        assert out.startswith("usage: backplane-img convert ") and "--bitmaps" in out


def test_what_is_made_is_told_as_it_was_asked_for(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b,c"
    assert img("create", "-f", "qcow2", "-o", "lazy_refcounts=on,cluster_size=4k", a, "1M").stdout.splitlines() == [
        "Formatting '%s', fmt=qcow2 lazy_refcounts=on cluster_size=4k size=1048576" % a]
    img("create", "-f", "raw", b, "1M")
    assert "backing_file=%s,,c backing_fmt=raw" % (tmp_path / "b") in img("create", "-f", "qcow2", "-b", b, "-F", "raw", a, "--force").stdout


def test_a_size_is_given_once_and_in_whole_sectors(tmp_path):
    a = tmp_path / "a"
    assert "twice" in img("create", "-f", "qcow2", "-o", "size=1M", a, "2M", ok=(1,)).stderr and not a.exists()
    for size in ([a, "1234"], ["-o", "size=1234", a]):
        img("create", "-f", "qcow2", "--force", *size)
        assert info(a)["virtual-size"] == 1536
    assert "not a size" in img("create", "-f", "qcow2", "-o", "size=-1k", a, "--force", ok=(1,)).stderr


def test_every_unknown_feature_is_told(tmp_path):
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "1M")
    with open(a, "r+b") as f:
        f.seek(72)
        f.write((1 << 63 | 1 << 62 | 1 << 61).to_bytes(8, "big"))
        f.seek(112)                     # over what the image says of features
        f.write(b"\x68\x03\xf8\x57" + (48).to_bytes(4, "big") + b"\0\x3e" + b"strange".ljust(46, b"\0") + bytes(8))
    told = img("info", a, ok=(1,)).stderr
    assert "strange" in told and "0xa000000000000000" in told


def test_long_names(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for x in (a, b):
        img("create", "-f", "qcow2", x, "8M")
    assert json.loads(img("check", "--format", "qcow2", "--repair", "leaks", "--output", "json", a).stdout)["check-errors"] == 0
    assert "leaks" in img("check", "--repair", "some", a, ok=(1,)).stderr
    img("bitmap", "--add", "--granularity", "4k", a, "x")
    img("bitmap", "--add", "--merge", "x", "--source-file", a, "--source-format", "qcow2", b, "y")
    assert info(b)["format-specific"]["data"]["bitmaps"][0]["name"] == "y"


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
@pytest.mark.parametrize("how", ["metadata", "falloc", "full"])
@pytest.mark.parametrize("more", ["cluster_size=64k", "cluster_size=4k", "extended_l2=on"])
def test_growing_allocates(tmp_path, how, more):
    a = tmp_path / "a"
    qimg("create", "-f", "qcow2", "-o", more, a, "4M")
    qio(a, "write -P 7 0 4M", "discard 1M 1M")              # free clusters, with what was there
    img("resize", "--preallocation", how, a, "+4M")
    qimg("check", a)
    qio(a, "read -P 7 2M 2M", "read -P 0 4M 4M")
    assert allocated(a) >= (7 if how != "metadata" else 3) * MIB
    mapped = [x for x in json.loads(qimg("map", "--output=json", a).stdout) if x["start"] >= 4 * MIB]
    assert sum(x["length"] for x in mapped if "offset" in x) == 4 * MIB
    qio(a, "write -P 9 5M 100k", "read -P 9 5M 100k", "read -P 0 5345280 1M")
    qimg("check", a)


def test_growing_a_raw_file_allocates(tmp_path):
    a = tmp_path / "a"
    for how in ("falloc", "full"):
        a.write_bytes(b"x" * MIB)
        img("resize", "-f", "raw", "--preallocation=" + how, a, "+4M")
        assert a.read_bytes() == b"x" * MIB + bytes(4 * MIB) and allocated(a) >= 5 * MIB
    img("resize", "-f", "raw", "--preallocation=off", a, "6M")
    img("resize", "-f", "raw", "--preallocation=metadata", a, "8M", ok=(1,))
    assert a.stat().st_size == 6 * MIB
    assert "off, metadata" in img("resize", "-f", "raw", "--preallocation=some", a, "8M", ok=(1,)).stderr


def test_a_disc_needs_a_drive(tmp_path):
    a = tmp_path / "a"
    a.write_bytes(bytes(MIB))
    for name, why in ((a, "is not a device"), ("/dev/null", "not a CD-ROM drive"), (tmp_path / "none", "No such file")):
        assert why in img("info", "--image-opts", "driver=host_cdrom,filename=%s" % name, ok=(1,)).stderr


def test_a_raw_file_is_made_as_asked(tmp_path):
    a = tmp_path / "a"
    for how, least in (("off", 0), ("falloc", 2 * MIB), ("full", 2 * MIB)):
        img("create", "-f", "raw", "--force", "-o", "preallocation=" + how, a, "2M")
        assert a.stat().st_size == 2 * MIB and least <= allocated(a) <= max(least, 4096)
    img("create", "--force", a, "1000")
    assert a.stat().st_size == 1024     # whole sectors
    assert "metadata" in img("create", "--force", "-o", "preallocation=metadata", a, "1M", ok=(1,)).stderr
    assert "nonsense" in img("create", "--force", "-o", "nonsense=1", a, "1M", ok=(1,)).stderr


def test_the_tool_starts_without_what_machines_need():
    """Each library costs a start a fraction of a millisecond; TLS, HTTP, iSCSI, SSH, NFS and Ceph open theirs when they are first used."""
    got = subprocess.run([IMG, "--version"], env=dict(os.environ, LD_TRACE_LOADED_OBJECTS="1"), check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "libjansson" in got
    for name in ("glib", "slirp", "fdt", "seccomp", "fuse", "gnutls", "curl", "iscsi", "ssh", "nfs", "rbd", "rados"):
        assert name not in got


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_odd_sizes(tmp_path):
    """A raw file has any size, other images sectors; nothing is no size."""
    for tool in (img, qimg):
        for fmt in ("raw", "qcow2"):
            a = tmp_path / "a"
            tool("create", "-f", fmt, a, "1M")
            for bad in ("0", "-1M", "-2M"):
                tool("resize", "-f", fmt, "--shrink", a, bad, ok=(1,))
            tool("resize", "-f", fmt, a, "+1", ok=(0,) if fmt == "raw" else (1,))
            assert info(a, "-f", fmt)["virtual-size"] == (MIB + 512 if fmt == "raw" else MIB)
            assert fmt != "raw" or a.stat().st_size == MIB + 1
            a.unlink()


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_sizes_as_people_read_them(tmp_path):
    for size in ("0", "512", "999k", "1000k", "1M", "1500000", "1000M", "999999999999", "5T"):
        said = []
        for tool in (img, qimg):
            tool("create", tmp_path / "a", size)
            said.append([line for line in tool("info", "-f", "raw", tmp_path / "a").stdout.splitlines() if line.startswith("virtual size")])
            (tmp_path / "a").unlink()
        assert said[0] == said[1]


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_the_map_of_nothing(tmp_path):
    a, empty = tmp_path / "a", tmp_path / "e"
    img("create", "-f", "qcow2", a, "1M")
    empty.write_bytes(b"")
    for args in ([empty, "-f", "raw"], [a, "--start-offset=2M"], [a, "--max-length=0", "--start-offset=512k"]):
        for how in ("human", "json"):
            assert img("map", "--output=" + how, *args).stdout == qimg("map", "--output=" + how, *args).stdout


def test_what_only_creation_decides(tmp_path):
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "1M")
    before = a.read_bytes()
    for option, hint in (("cluster_size=4k", "convert -o cluster_size"), ("extended_l2=on", "convert -o extended_l2"), ("nonsense=1", "unknown")):
        assert hint in img("amend", "-f", "qcow2", "-o", option, a, ok=(1,)).stderr
    assert a.read_bytes() == before


@pytest.mark.parametrize("args, part", [
    (("convert", "-m", "0", "a", "b"), "-m takes a number from 1 to 16, not '0'"), (("convert", "-m", "17", "a", "b"), "'17'"),
    (("dd", "bs=0", "if=a", "of=b"), "bs= takes a number from 1"), (("dd", "seek=1", "if=a", "of=b"), "no operand 'seek=1'"),
    (("dd", "skip=x", "if=a", "of=b"), "'x' is not a size"), (("bench", "-d", "0", "a"), "-d takes"), (("bench", "--pattern=256", "a"), "--pattern takes"),
    (("bench",), "one file name"), (("dd", "if=a"), "if=FILE of=FILE")])
def test_a_number_that_is_not_taken_is_what_is_named(args, part):
    lines = img(*args, ok=(1,)).stderr.splitlines()
    assert len(lines) == 1 and part in lines[0], lines


def test_a_person_is_told_of_bitmaps(tmp_path):
    a = tmp_path / "a"
    img("create", "-f", "qcow2", a, "4M")
    img("bitmap", "-f", "qcow2", "--add", a, "b0")
    out = img("info", "-f", "qcow2", a).stdout
    assert "    bitmaps:\n        [0]:\n            flags:\n                [0]: auto\n            name: b0\n            granularity: 65536\n" in out, out


def test_help_is_a_command_and_lists_formats():
    out = img("help").stdout
    assert out == img("--help").stdout and " qcow2 " in out.split("Formats: ")[1].split(";")[0] and "vhdx" in out


@pytest.mark.parametrize("args,part", [
    ("create -f nosuch x 1M", "hint: formats: backplane-img --help"), ("create -f nosuch -o help", "'nosuch'"),
    ("create -f qcow2 -b y x", "-F FORMAT"), ("convert -S 100 x y", "multiple of 512"), ("info --foo x", "backplane-img: info: "),
])
def test_a_mistake_is_told_once_and_by_its_name(tmp_path, args, part):
    err = subprocess.run([IMG, *args.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in err.stderr.splitlines() if not line.startswith("hint: ")]
    assert err.returncode == 1 and part in err.stderr and len(lines) == 1, err.stderr


@pytest.mark.parametrize("args", ["--help", "-V", "info --help", "create -f qcow2 -o help"])
def test_what_cannot_be_written_is_a_failure(args):
    with open("/dev/full", "w", encoding="ascii") as full:
        p = subprocess.run([IMG, *args.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert p.returncode == 1 and "cannot" in p.stderr


@pytest.mark.parametrize("args,part", [
    ("check -p x", "check: invalid option -- 'p'"), ("info -q x", "info: invalid option -- 'q'"), ("create -U x 1M", "create: invalid option -- 'U'"),
    ("create --image-opts x 1M", "create: unrecognized option '--image-opts'"), ("dd -t none if=x of=y", "dd: invalid option -- 't'"),
    ("resize -t none x 1M", "resize: invalid option -- 't'"), ("map -p x", "map: invalid option -- 'p'"), ("compare --output=json x y", "'--output=json'"),
    ("commit -U x", "commit: invalid option -- 'U'"), ("snapshot -t none x", "snapshot: invalid option -- 't'"), ("amend -T none x", "amend: invalid option -- 'T'"),
    ("bitmap -q --add x y", "bitmap: invalid option -- 'q'"), ("measure -p x", "measure: invalid option -- 'p'"), ("bench -p x", "bench: invalid option -- 'p'"),
    ("info --shrink x", "info: unrecognized option '--shrink'"), ("info --image-opts -f raw x", "--image-opts"), ("snapshot -l -c a x", "one of -l, -a, -c and -d"),
    ("measure -f raw --size 1M", "--size"), ("measure x y", "a file name"), ("convert -n -o size=1 x y", "-o has no effect"), ("convert -F raw x y", "-F has no effect"),
    ("convert -C --salvage x y", "-C excludes"), ("convert -n --target-is-zero -B x -F raw x y", "--target-is-zero"), ("rebase -u -U x", "-U has no effect"),
    ("rebase -u -T none x", "-T has no effect"), ("bench --pattern=7 x", "have no effect without -w"), ("bench -i some x", "-i is 'threads'"),
])
def test_an_option_that_would_do_nothing_is_refused_by_name(tmp_path, args, part):
    (tmp_path / "x").write_bytes(bytes(MIB))
    p = subprocess.run([IMG, *args.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert p.returncode == (2 if args.startswith("compare") else 1) and part in p.stderr, p.stderr
    assert sorted(x.name for x in tmp_path.iterdir()) == ["x"]


def test_the_help_of_a_command_says_what_its_options_do():
    for command in ("amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info", "map", "measure", "rebase", "resize", "snapshot"):
        lines = img(command, "--help").stdout.splitlines()
        rows = [n for n, line in enumerate(lines) if line.startswith("  -")]
        assert len(rows) > 4 and all(lines[n + 1].startswith("      ") for n in rows), command
        usage = img("--help").stdout.splitlines()
        assert "  " + lines[0].split("backplane-img ")[1] in usage, command


def test_a_size_stands_anywhere_and_quiet_is_quiet(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    img("create", "-f", "qcow2", a, "8M")
    for args, size in ((["-1M", "--shrink", "-q"], 7), (["+2M", "-q"], 9), (["--shrink", "-3M", "-q"], 6), (["5M", "--shrink", "-q"], 5)):
        assert not img("resize", a, *args).stdout
        assert info(a)["virtual-size"] == size * MIB
    img("resize", "-q", "--shrink", "-1M", a)
    assert info(a)["virtual-size"] == 4 * MIB
    assert "a file name and a size" in img("resize", a, ok=(1,)).stderr
    b.write_bytes(b"x" * MIB)
    assert not img("compare", "-q", "-f", "qcow2", "-F", "raw", a, b, ok=(1,)).stdout


def test_a_new_backing_file_that_another_writes_to(tmp_path):
    """-U of rebase is of the new backing file; without a name -u takes the old one away."""
    for name in "xy":
        img("create", "-f", "qcow2", tmp_path / name, "1M")
    img("create", "-f", "qcow2", "-b", "x", "-B", "qcow2", tmp_path / "top")
    img("rebase", "-f", "qcow2", "-U", "-b", "y", "-B", "qcow2", tmp_path / "top")
    assert info(tmp_path / "top")["backing-filename"] == "y"
    img("rebase", "-u", "-f", "qcow2", tmp_path / "top")
    assert "backing-filename" not in info(tmp_path / "top")


def test_what_the_file_of_an_image_is_made_with(tmp_path):
    """Where the file system can be told; no other can tell the difference."""
    for fmt in "raw", "qcow2", "vdi":
        p = img("create", "-f", fmt, "-o", "nocow=on,extent_size_hint=1M", tmp_path / fmt, "1M")
        assert "nocow=on" in p.stdout and "extent_size_hint=" in p.stdout
    img("convert", "-O", "qcow2", "-o", "nocow=on", tmp_path / "raw", tmp_path / "to")
    assert "nocow" in img("create", "-f", "qcow2", "-o", "nocow=perhaps", tmp_path / "x", "1M", ok=(1,)).stderr
    assert "extent_size_hint" in img("create", "-f", "qcow2", "-o", "help").stdout and not (tmp_path / "x").exists()


def test_the_old_way_of_encryption(tmp_path):
    assert "encrypt.format=luks" in img("create", "-f", "qcow2", "-o", "encryption=on", tmp_path / "a", "1M", ok=(1,)).stderr
    assert not (tmp_path / "a").exists()
    img("create", "-f", "qcow2", "-o", "encryption=off", tmp_path / "a", "1M")
