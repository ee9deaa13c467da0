# SPDX-License-Identifier: MIT
"""qemu-io of the monitor: transfers and patterns, errors in the answer, requests that go on behind it, breakpoints; and what it leaves: nothing."""
import json
import os

import pytest

from lib.machine import Machine

MIB = 1 << 20


def blockdev(name, path, **more):
    return "-blockdev", json.dumps({"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": str(path), "discard": "unmap"}, **more})


@pytest.fixture(name="image")
def a_file(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(MIB))
    return path


def test_patterns_are_written_and_found(image):
    with Machine("-M", "none", *blockdev("d", image, discard="unmap")) as m:
        def io(text):
            return m.qmp.hmp('qemu-io d "%s"' % text)
        assert io("write -P 7 0 64k") == "" and io("writev -P 0x8 64k 512 1k") == "" and io("read -P 7 0 64k") == ""
        assert io("readv -P 8 65536 1k 512") == "" and io("read -P 7 -s 4k -l 1k 0 64k") == "" and io("write -z 4k 4k") == ""
        assert io("read -P 7 0 64k") == "Pattern verification failed at offset 0, 65536 bytes\n"
        assert io("read -P 0 -s 4k -l 4k 0 64k") == ""
        assert io("read -v 4090 8").startswith("00000ffa:  07 07 07 07 07 07 00 00  ")
        assert io("discard 8k 4k") == "" and io("read -P 0 8k 4k") == "" and io("length") == "1 MiB\n" and io("flush") == ""
        assert io("map") == "1 MiB (0x100000) bytes     allocated at offset 0 bytes (0x0)\n"
        assert io("truncate 2M") == "" and io("length") == "2 MiB\n" and os.path.getsize(image) == 2 * MIB
        assert io("read 2M 512").startswith("read failed: ") and io("write 2M 512").startswith("write failed: ")
        assert "write [-fqC]" in io("help") and io("help flush").startswith("flush ")
        for wrong in ("nope", "read", "read 0", "read x 1", "write -P 256 0 1", "write -z -P 1 0 1", "read -s 1 0 1", "read -P 1 -s 2 0 1", "break read_aio t",
                      "write 0 3G", "read -k 0 1", "sleep x", "", "read -P"):
            assert io(wrong).startswith("Error: "), wrong
        assert m.qmp.hmp('qemu-io nope "read 0 1"').startswith("Error: ") and m.qmp.hmp("qemu-io").startswith("Error: ")
        assert m.qmp.cmd("query-block") == []
        m.qmp.cmd("blockdev-del", node_name="d")
    assert image.read_bytes()[:4096] == b"\7" * 4096
    assert "wrote 65536/65536 bytes at offset 0\n64 KiB, 1 ops; " in m.output and "read 1536/1536 bytes at offset 65536\n1.500 KiB, 1 ops; " in m.output


def test_permissions_are_asked_for(image):
    with Machine("-M", "virt", "-S", "-serial", "null", *blockdev("ro", image, **{"read-only": True}), "-drive",
                 "if=none,id=drv,format=raw,file.driver=null-co,file.size=1M", "-device", "virtio-blk-pci,drive=drv,id=dev",
                 "-blockdev", "null-co,node-name=n,size=1M", "-device", "virtio-blk-pci,drive=n,id=two") as m:
        assert "read-only" in m.qmp.hmp('qemu-io ro "write 0 1k"') and m.qmp.hmp('qemu-io ro "read -P 0 0 1k"') == ""
        assert m.qmp.hmp('qemu-io drv "write 0 1k"') == "" and m.qmp.hmp('qemu-io -d dev "write 0 1k"') == "" and m.qmp.hmp('qemu-io -d two "write 0 1k"') == ""
        assert "in use by device 'two'" in m.qmp.hmp('qemu-io n "write 0 1k"') and m.qmp.hmp('qemu-io n "read 0 1k"') == ""
        assert m.qmp.hmp('qemu-io -d nope "read 0 1k"').startswith("Error: ")


def test_requests_go_on_behind_the_answer(image):
    slow = {"driver": "faults", "node-name": "d", "file": {"driver": "file", "filename": str(image)}, "rules": [{"op": "write", "delay-ns": 300000000}]}
    with Machine("-M", "none", "-blockdev", json.dumps(slow)) as m:
        assert m.qmp.hmp('qemu-io d "aio_write -P 5 0 4k"') == "" and image.read_bytes()[0] == 0
        assert "in use" in m.qmp.request({"execute": "blockdev-del", "arguments": {"node-name": "d"}})["error"]["desc"]
        assert m.qmp.hmp('qemu-io d "aio_flush"') == "" and image.read_bytes()[:4097] == b"\5" * 4096 + b"\0"
        assert m.qmp.hmp('qemu-io d "aio_write -P 6 0 4k"') == ""
        m.qmp.cmd("quit")
        assert m.wait() == 0
    assert image.read_bytes()[0] == 6 and m.output.count("wrote 4096/4096 bytes at offset 0\n") == 2


def test_requests_stop_at_breakpoints(image):
    debug = {"driver": "raw", "node-name": "d", "file": {"driver": "blkdebug", "image": {"driver": "file", "filename": str(image)}}}
    with Machine("-M", "none", "-blockdev", json.dumps(debug)) as m:
        def io(text):
            return m.qmp.hmp('qemu-io d "%s"' % text)
        assert io("break write_aio A") == "" and io("aio_write -P 1 0 512") == "" and io("wait_break A") == ""
        assert io("write -P 2 512 512") == "" and image.read_bytes()[:1024] == bytes(512) + b"\2" * 512
        assert io("resume A") == "" and io("aio_flush") == "" and image.read_bytes()[0] == 1
        assert io("break read_aio B") == "" and io("break write_aio B") == "" and io("aio_write -P 3 0 512") == "" and io("wait_break B") == ""
        assert io("remove_break B") == "" and io("aio_flush") == "" and image.read_bytes()[0] == 3 and io("read -P 3 0 512") == ""
        for wrong in ("resume A", "wait_break B", "remove_break B", "break nope C"):
            assert io(wrong).startswith("Error: "), wrong
        assert io("break write_aio C") == "" and io("aio_write -P 4 0 512") == "" and io("wait_break C") == ""
        m.qmp.cmd("quit")           # nothing stays stopped
        assert m.wait() == 0
    assert image.read_bytes()[0] == 4
