# SPDX-License-Identifier: MIT
"""The monitor for a person: each command does what it says, on every machine, or says why not."""
import os
import socket
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine
from lib.qtest import QtestMachine

MACHINES = [("virt",), ("none",), ("none", "-m", "2")]
QEMU = """announce_self|boot_set ndc|chardev-add null,id=c1|chardev-send-break c1|chardev-change c1 ringbuf|chardev-remove c1|cpu 0
device_add ?|device_add nothing,id=mouse1|mouse_button 7|mouse_move 10 10|device_del mouse1|gva2gpa 0|gpa2hva 0|hostfwd_add tcp::43210-:43210
hostfwd_remove tcp::43210-:43210|i /w 0|log all|log none|memsave 0 4096 "/dev/null"|migrate_set_parameter downtime-limit 1
netdev_add user,id=net1|set_link net1 off|set_link net1 on|netdev_del net1|nmi|o /w 0 0x1234|object_add memory-backend-ram,id=mem1,size=256M
object_del mem1|one-insn-per-tb on|pmemsave 0 4096 "/dev/null"|p $pc + 8|qom-list /|qom-set /machine initrd test|qom-get /machine initrd
screendump /dev/null|sendkey x|wavcapture /dev/null|stopcapture 0|sum 0 512|x /8i 0x100|xp /16x 0|savevm x|loadvm x|delvm x|info usb|info tpm|info mice|info capture
qemu-io disk "read 0 512"|info snapshots|getfd x|closefd x|replay_seek 3|calc_dirty_rate 1|info virtio|info ramblock|info roms|info numa
info memory-devices|system_wakeup|info history|sync-profile on|info stats vm|info replay|migrate_pause"""


@pytest.fixture(name="m", scope="module")
def machine():
    with Machine("-M", "virt", "-S", "-serial", "null", "-chardev", "ringbuf,id=ring,size=64", "-drive",
                 "if=none,id=disk,format=raw,file.driver=null-co,file.size=1M", "-drive", "if=virtio,format=raw,file.driver=null-co,file.size=1M", "-smp", "2", "-accel", "interp") as it:
        yield it


@pytest.mark.parametrize("args", MACHINES, ids=" ".join)
def test_every_command_answers_on_every_machine(args):
    with Machine("-S", "-serial", "null", "-M", *args) as it:
        subjects = it.qmp.hmp("help info").splitlines()
        assert len(subjects) > 15
        for line in subjects:
            info, name = line.split()[:2]
            assert info == "info" and "unknown command" not in it.qmp.hmp("info " + name)
        for line in QEMU.replace("\n", "|").split("|"):
            answer = it.qmp.hmp(line)
            assert "unknown command" not in answer, line
        assert it.qmp.cmd("query-status")["status"] == "prelaunch"
        assert "chardev-add" in it.qmp.hmp("help") and "wavcapture" not in it.qmp.hmp("help")


@pytest.mark.parametrize("text,value", [
    ("1 + 2 * 3", 7), ("(1+2)*3", 9), ("-1", 2**64 - 1), ("~0 & 0xff", 255), ("1 | 2 ^ 3", 1), ("7 / 2 % 2", 1), ("'A'", 65), ("$x0 + $pc - $pc", 0),
    ("$misa & 4", 4), ("010", 8)])
def test_expressions(m, text, value):
    assert int(m.qmp.hmp("print " + text), 0) == value
    assert m.qmp.hmp("p/d 2 - 3") == "-1\n" and m.qmp.hmp("p /o 8") == "010\n"


@pytest.mark.parametrize("text,part", [
    ("", "missing"), ("1 +", "missing"), ("1 2", "no part"), ("(1", "')'"), ("1/0", "division"), ("$nope", "register"), ("99999999999999999999999", "64 bits"),
    ("(" * 100 + "1", "deep"), ("-" * 10000 + "1", "deep")], ids=lambda x: x[:12])
def test_expressions_that_are_none(m, text, part):
    answer = m.qmp.hmp("print " + text)
    assert answer.startswith("Error: ") and part in answer


def test_memory_to_files_and_sums(tmp_path):
    data = bytes(range(256)) * 32
    out, ram = str(tmp_path / "out file"), 0x80100000
    with QtestMachine(tmp_path) as it:
        q = it.qmp
        it.q.write(ram, data)
        assert q.hmp('pmemsave %#x 0x2000 "%s"' % (ram, out)) == ""
        with open(out, "rb") as f:
            assert f.read() == data
        assert q.hmp('memsave %#x 5 "%s"' % (ram + 255, out)) == ""
        with open(out, "rb") as f:
            assert f.read() == b"\xff\0\1\2\3"
        total = 0
        for b in data[:1000]:
            total = ((total >> 1) | (total << 15) & 0xffff) + b & 0xffff
        assert q.hmp("sum %#x 1000" % ram) == "%05d\n" % total
        assert q.hmp("gva2gpa %#x" % ram) == "gpa: %#x\n" % ram
        assert "Host virtual address for %#x (" % ram in q.hmp("gpa2hva %#x" % ram)
        assert "No memory is mapped" in q.hmp("gpa2hva 0x8")
        error = q.request({"execute": "pmemsave", "arguments": {"val": ram, "size": 1, "filename": str(tmp_path / "no" / "dir")}})["error"]
        assert "No such file" in error["desc"]
        assert "No space" in q.hmp("pmemsave %#x 4096 /dev/full" % ram)
        assert "'filename'" in q.hmp("pmemsave 1 2") and "too many words" in q.hmp("pmemsave 1 2 a b")
        assert "error" in q.request({"execute": "memsave", "arguments": {"val": 0, "size": 1, "filename": out, "cpu-index": 9}})


def test_objects(m):
    q = m.qmp
    assert "machine (child<virt-machine>)" in q.hmp("qom-list /")
    assert q.hmp("qom-get /machine type") == '"virt-machine"\n'
    assert q.hmp("object_add iothread,id=tg,poll-max-ns=3") == ""
    assert q.hmp("qom-set /objects/tg poll-max-ns 7") == "" and q.hmp("qom-get /objects/tg poll-max-ns") == "7\n"
    assert q.hmp("qom-set -j /objects/tg poll-max-ns 8") == "" and q.hmp("qom-get /objects/tg poll-max-ns") == "8\n"
    assert q.hmp("info qom-tree /objects") == "/objects (container)\n  /tg (iothread)\n"
    assert q.hmp("object_del tg") == ""
    for wrong in ("qom-get /machine", "qom-get /nope type", "qom-set /machine", "qom-set -j /machine x {", "qom-list /nope", "info qom-tree /nope"):
        assert q.hmp(wrong).startswith("Error: "), wrong


def test_what_is_known_of_the_machine(m):
    q = m.qmp
    assert q.hmp("object_add memory-backend-ram,id=mem,size=8M,share=on,prealloc=off") == ""
    memory = {d["id"]: d for d in q.cmd("query-memdev")}["mem"]
    assert (memory["size"], memory["share"], memory["prealloc"], memory["host-nodes"], memory["policy"]) == (8 << 20, True, False, [], "default")
    assert "size: 8388608\n" in q.hmp("info memdev") and q.hmp("object_del mem") == ""
    assert "mem" not in [d["id"] for d in q.cmd("query-memdev")]
    assert q.hmp("info uuid") == "UUID: 00000000-0000-0000-0000-000000000000\n"
    assert q.hmp("info memory_size_summary") == "base-memory: 134217728\nplugged-memory: 0\n" and "enabled: false" in q.hmp("info kvm")
    assert q.hmp("object_add iothread,id=io") == "" and "id: io\n" in q.hmp("info iothreads") and q.hmp("object_del io") == ""


def test_chardevs(m):
    q = m.qmp
    assert q.hmp("ringbuf_write ring two words") == "" and q.hmp("ringbuf_read ring 64") == "two words\n"
    assert q.hmp("chardev-add ringbuf,id=new,size=128") == "" and q.hmp("chardev-change new null") == ""
    assert {"label": "new", "filename": "null", "frontend-open": False} in q.cmd("query-chardev")
    assert q.hmp("chardev-remove new") == ""
    for wrong in ("chardev-remove new", "chardev-add nope,id=x", "chardev-change ring", "chardev-add null"):
        assert q.hmp(wrong).startswith("Error: "), wrong


def test_nbd_server(m, tmp_path):
    q, path = m.qmp, str(tmp_path / "nbd")
    assert q.hmp("nbd_server_add disk").startswith("Error: ")
    assert q.hmp("nbd_server_start -a unix:" + path) == ""
    assert "disk" in [x["node-name"] for x in q.cmd("query-block-exports")]
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        assert s.recv(8) == b"NBDMAGIC"
    assert q.hmp("nbd_server_remove -f disk") == "" and q.hmp("nbd_server_add -w disk two") == ""
    assert "two" in [x["id"] for x in q.cmd("query-block-exports")]
    assert q.hmp("nbd_server_stop") == "" and q.cmd("query-block-exports") == []
    assert q.hmp("nbd_server_start nonsense").startswith("Error: ")
    assert q.hmp("nbd_server_start [::1]:0") == "" and q.hmp("nbd_server_stop") == ""
    assert "rd_bytes: " in q.hmp("info blockstats")


def test_logging(m, tmp_path):
    q, log = m.qmp, str(tmp_path / "log")
    assert "guest_errors" in q.hmp("log help") and q.hmp("log nope").startswith("Error: ")
    assert q.hmp("logfile " + log) == "" and q.hmp("log guest_errors,unimp") == "" and q.hmp("log none") == ""
    assert q.hmp("logfile /no/such/dir/log").startswith("Error: ") and os.path.exists(log)
    assert q.hmp("trace-event nope on").startswith("Error: ") and q.hmp("trace-event nope").startswith("Error: ")
    assert "error" in q.request({"execute": "trace-event-get-state", "arguments": {"name": "nope"}})
    assert q.cmd("trace-event-set-state", name="nope", enable=True, ignore_unavailable=True) == {}
    for t in q.cmd("trace-event-get-state", name="*"):
        assert q.hmp("trace-event %s on" % t["name"]) == ""
        assert q.cmd("trace-event-get-state", name=t["name"])[0]["state"] == "enabled"
        assert q.hmp("trace-event %s off" % t["name"]) == ""
    assert q.hmp("trace-event qmp_* on") == "" and q.cmd("query-uuid") and q.hmp("trace-event qmp_* off") == "" and q.cmd("query-name") is not None
    with open(log, encoding="utf-8") as f:
        text = f.read()
    assert "qmp_command query-uuid\n" in text and "query-name" not in text
    assert "qmp_command : state 0" in q.hmp("info trace-events")


def test_the_device_tree_goes_to_a_file(m, tmp_path):
    for way in (lambda f: m.qmp.cmd("dumpdtb", filename=f), lambda f: m.qmp.hmp("dumpdtb " + f)):
        path = tmp_path / "dtb"
        way(str(path))
        tree = path.read_bytes()
        assert tree[:4] == b"\xd0\x0d\xfe\xed" and int.from_bytes(tree[4:8], "big") == len(tree) and b"riscv-virtio" in tree
        path.unlink()
    assert "cannot write the device tree to '/nope/x': No such file or directory" in m.qmp.hmp("dumpdtb /nope/x")
    with Machine("-M", "none", "-S") as it:
        assert "doesn't have an FDT" in it.qmp.hmp("dumpdtb /dev/null")
