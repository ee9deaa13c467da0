# SPDX-License-Identifier: MIT
"""What a monitor tells of drives, nodes and their images: as QEMU does where it is there."""
import json
import shutil
import subprocess

import pytest

from lib.images import MIB, create, fill, io_of, tool
from lib.machine import Machine, QmpError
from lib.nvme import NvmeMachine, write

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="no qemu-utils")
QEMU = next(filter(shutil.which, ("qemu-system-riscv64", "qemu-system-x86_64")), None)


def images(tmp_path):
    base = create(tmp_path / "base", 8 * MIB)
    mid = create(tmp_path / "mid", backing="base")
    fill(mid, (3, 0, 65536))
    tool("qemu-img", "snapshot", "-c", "snap", mid)
    top = tmp_path / "top"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,compression_type=zlib", "-b", "mid", "-F", "qcow2", top)
    tool("qemu-img", "bitmap", "--add", top, "bits")
    return top


def ask_qemu(cmd, args, *options):
    text = "\n".join(json.dumps(c) for c in ({"execute": "qmp_capabilities"}, {"execute": cmd, "arguments": args}, {"execute": "quit"}))
    p = subprocess.run([QEMU, "-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio", *options], input=text + "\n", capture_output=True, text=True,
                       check=True, timeout=60)
    answers = [json.loads(line) for line in p.stdout.splitlines()]
    return [a["return"] for a in answers if "return" in a][1]


DRIVE = "-drive", "if=none,id=d,format=qcow2,cache=none,detect-zeroes=on,file=%s"


@pytest.mark.skipif(not QEMU, reason="no QEMU")
def test_query_block_is_qemus(tmp_path):
    """Every member that QEMU has, with its value (but for space, which opening changes); what it does not have is not compared."""
    options = DRIVE[0], DRIVE[1] % images(tmp_path)

    def without_names(v):
        if isinstance(v, dict):
            return {k: without_names(x) for k, x in v.items() if k not in ("node-name", "removable", "actual-size")}
        return [without_names(x) for x in v] if isinstance(v, list) else v

    for cmd in "query-block", "query-named-block-nodes":
        theirs = without_names(ask_qemu(cmd, {}, *options))
        with Machine("-M", "none", *options) as m:
            ours = without_names(m.qmp.cmd(cmd))
            flat = m.qmp.cmd("query-named-block-nodes", flat=True)

        def only(a, b):
            """A with the members that B has."""
            return {k: only(v, b[k]) for k, v in a.items() if k in b} if isinstance(a, dict) and isinstance(b, dict) else a

        if cmd == "query-block":
            assert json.dumps(only(ours[0], theirs[0]), sort_keys=True, indent=1) == json.dumps(theirs[0], sort_keys=True, indent=1)
        else:
            key = (lambda n: (n["drv"], n["file"]))
            for a, b in zip(sorted(ours, key=key), sorted(theirs, key=key), strict=True):
                assert json.dumps(only(a, b), sort_keys=True) == json.dumps(b, sort_keys=True)
            assert all("backing-image" not in n["image"] for n in flat) and len(flat) == len(ours)


def test_how_far_was_written(tmp_path):
    image = create(tmp_path / "image", 8 * MIB)
    with NvmeMachine(tmp_path, "-drive", "if=none,id=d,format=qcow2,node-name=n,file=%s" % image, "-device", "nvme,drive=d,serial=S,addr=1") as m:
        assert write(io_of(m), 1, 16, b"x" * 4096).status == 0
        stats = m.qmp.cmd("query-blockstats")[0]
        assert stats["stats"]["wr_highest_offset"] == 16 * 512 + 4096
        below = stats["parent"]["stats"]["wr_highest_offset"]
        assert 4 * 65536 < below <= 6 * 65536           # behind the tables
        nodes = {n["node-name"]: n["stats"]["wr_highest_offset"] for n in m.qmp.cmd("query-blockstats", query_nodes=True)}
        assert nodes["n"] == 16 * 512 + 4096 and nodes[stats["parent"]["node-name"]] == below


def test_the_human_monitor(tmp_path):
    top = images(tmp_path)
    with Machine("-M", "virt", DRIVE[0], DRIVE[1] % top, "-device", "virtio-blk-device,drive=d,write-cache=off,id=v", "-drive", "if=none,id=empty",
                 "-device", "virtio-scsi-device", "-device", "scsi-cd,drive=empty,id=cd") as m:
        text = m.qmp.hmp("info block")
        assert "Cache mode:       writethrough, direct\n" in text and "(chain depth: 2)" in text and "Detect zeroes:    on" in text
        assert "Removable device: not locked, tray closed" in text
        only = m.qmp.hmp("info block d")
        assert str(top) in only and "Removable" not in only and m.qmp.hmp("info block v") == only
        assert "Error: there is no block device 'nosuch'" in m.qmp.hmp("info block nosuch")
        assert m.qmp.hmp("info block -n").count("Cache mode") == 6
        assert not m.qmp.cmd("query-block")[0]["inserted"]["cache"]["writeback"]


@pytest.mark.parametrize("compat,told", [("none", "d"), ("qemu", "/machine/peripheral/d/virtio-backend")])
def test_a_virtio_disk_has_the_name_that_management_tools_look_for(compat, told):
    """Where QEMU is stood in for; commands find it by that name in any case."""
    with Machine("-compat", compat, "-M", "virt", "-m", "64M", "-S", "-serial", "null", "-blockdev", "null-co,node-name=n,size=1M",
                 "-device", "virtio-blk-pci,drive=n,id=d") as m:
        assert [b["qdev"] for b in m.qmp.cmd("query-block")] == [b["qdev"] for b in m.qmp.cmd("query-blockstats")] == [told]
        limits = {k: 0 for k in ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")}
        m.qmp.request_underscored("block_set_io_throttle", {**limits, "iops": 5, "id": "/machine/peripheral/d/virtio-backend"})
        assert m.qmp.cmd("query-block")[0]["inserted"]["iops"] == 5
        with pytest.raises(QmpError):
            m.qmp.request_underscored("block_set_io_throttle", {**limits, "id": "/machine/peripheral/d/virtio-backend/x"})


def test_the_class_of_a_name_that_is_not_there(tmp_path):
    """DeviceNotFound, by which management programs probe for what a command can, is said where QEMU says it."""
    with Machine("-M", "none", "-drive", "if=none,id=d,format=qcow2,file=%s" % create(tmp_path / "a", MIB)) as m:
        def class_of(cmd, **args):
            with pytest.raises(QmpError) as e:
                m.qmp.cmd(cmd, **args)
            return e.value.cls
        for cmd, args in (("block-stream", {"device": "x"}), ("drive-mirror", {"device": "x", "target": "t", "sync": "full"}),
                          ("blockdev-mirror", {"device": "d", "target": "x", "sync": "full"}), ("drive-backup", {"device": "x", "target": "t", "sync": "full"}),
                          ("block_resize", {"device": "x", "size": 512}), ("blockdev-del", {"node-name": "x"}), ("blockdev-snapshot", {"node": "x", "overlay": "y"}),
                          ("block-dirty-bitmap-add", {"node": "x", "name": "b"}), ("block-dirty-bitmap-remove", {"node": "d", "name": "b"}),
                          ("block-dirty-bitmap-clear", {"node": "d", "name": "b"}), ("blockdev-snapshot-delete-internal-sync", {"device": "d", "name": "s"}),
                          ("block-export-del", {"id": "x"}), ("block-export-add", {"type": "nbd", "id": "e", "node-name": "x"}), ("job-cancel", {"id": "x"})):
            assert class_of(cmd, **args) == "GenericError", cmd
        for cmd, args in (("block-commit", {"device": "x"}), ("blockdev-open-tray", {"device": "x"}), ("eject", {"id": "x"}), ("device_del", {"id": "x"})):
            assert class_of(cmd, **args) == "DeviceNotFound", cmd
        assert class_of("block-job-cancel", device="x") == "DeviceNotActive"
