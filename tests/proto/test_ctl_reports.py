# SPDX-License-Identifier: MIT
"""What users of such programs reported: mistakes that were swallowed, named wrongly or ended the program, on the command line and over QMP."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine, QmpError, run
from lib.qtest import Qtest

DISK = ["-blockdev", "null-co,node-name=disk,size=1M,read-zeroes=on"]
BOARD = ["-M", "virt", "-m", "8M", "-bios", "none", "-S", "-serial", "null", "-device", "pcie-root-port,id=port", "-device", "virtio-serial-device,id=s"]

# What is typed, and a part of what is answered; the program ends with status 1.
LINES = {
    "comma written twice after the machine": (["-M", "virt,,x=y"], "'virt,x' holds a comma"),
    "comma written twice between options": (["-device", "virtio-rng-device,,id=r"], "'virtio-rng-device,id' holds a comma"),
    "key is missing": (["-M", "virt,=1"], "a key is missing"),
    "comma in front": (["-M", ",virt"], "a key is missing"),
    "machine name with other case": (["-M", "Virt"], "did you mean 'virt'"),
    "unknown machine option": (["-M", "virt,acpii=off"], "acpii"),
    "no device": (["-device", ""], "-device"),
    "device without driver": (["-device", "id=x"], "no device is named"),
    "empty id": (["-device", "virtio-rng-device,id="], "id"),
    "temporary writes to what is not a drive": (["-snapshot", *DISK], "-snapshot is for -drive"),
    "id that begins with a digit": (["-device", "virtio-rng-device,id=1a"], "id"),
    "id with a blank": (["-device", "virtio-rng-device,id=a b"], "id"),
    "id used twice, devices": (["-device", "virtio-rng-device,id=a", "-device", "virtio-rng-device,id=a"], "'a'"),
    "id used twice, objects": (["-object", "rng-random,id=a", "-object", "rng-random,id=a"], "a"),
    "id used twice, network": (["-netdev", "user,id=n", "-netdev", "user,id=n"], "n"),
    "id used twice, character": (["-chardev", "null,id=c", "-chardev", "null,id=c"], "c"),
    "node name used twice": (DISK + DISK, "disk"),
    "json is cut off": (["-device", '{"driver":"virtio-rng-device"'], "JSON"),
    "json is a list": (["-blockdev", "{} []"], "JSON"),
    "json names a key twice": (["-device", '{"driver":"virtio-rng-device","id":"a","id":"b"}'], "JSON"),
    "json value of another type": (["-device", '{"driver":["virtio-rng-device"]}'], "driver"),
    "json number where a text belongs": (["-device", '{"driver":7}'], "7"),
    "network back end that is not there": (["-device", "virtio-net-device,netdev=nope"], "nope"),
    "block node that is not there": (["-device", "virtio-blk-device,drive=nope"], "nope"),
    "disk used twice": (DISK + ["-device", "virtio-blk-device,drive=disk", "-device", "virtio-blk-device,drive=disk"], "disk"),
    "bus that is not there": (["-device", "virtio-rng-device,bus=nope"], "nope"),
    "device on the wrong kind of bus": (["-device", "virtio-rng-pci,bus=virtio-mmio-bus.0"], "virtio-mmio-bus.0"),
    "slot that is taken": (["-device", "virtio-rng-pci,addr=5", "-device", "virtio-rng-pci,addr=5"], "5"),
    "slot past the last": (["-device", "virtio-rng-pci,addr=0x20"], "addr"),
    "memory of none": (["-m", "0"], "without memory"),
    "negative memory": (["-m", "-1"], "-1"),
    "memory with a wrong unit": (["-m", "1Q"], "1Q"),
    "memory beyond 64 bits": (["-m", "99999999999999999999G"], "99999999999999999999G"),
    "no harts": (["-smp", "0"], "0"),
    "harts beyond the most": (["-smp", "1000000"], "1000000"),
    "threads that do not multiply": (["-smp", "4,sockets=3,cores=1,threads=1"], "sockets"),
    "cpu that is not there": (["-cpu", "rv46"], "rv46"),
    "cpu feature that is not there": (["-cpu", "rv64,zzz=on"], "zzz"),
    "accelerator that is not there": (["-accel", "nope"], "nope"),
    "kernel that is not there": (["-kernel", "/nope/Image"], "/nope/Image"),
    "device tree in source form": (["-dtb", __file__], "not a device tree blob"),
    "initrd without a kernel": (["-initrd", "/nope/initrd"], "initrd"),
    "image that is a folder": (["-drive", "file=/,format=raw,if=none,id=d"], "/"),
    "format that is not there": (["-drive", "file=/dev/null,format=qcow7,if=none,id=d"], "qcow7"),
    "interface that is not there": (["-drive", "file=/dev/null,format=raw,if=nope"], "nope"),
    "option of drive misspelled": (["-drive", "file=/dev/null,format=raw,if=none,id=d,chache=none"], "chache"),
    "serial at a place that is not there": (["-serial", "unix:/nope/dir/sock,server=on,wait=off"], "/nope/dir/sock"),
    "serial port that the board does not have": (["-serial", "null", "-serial", "file:/dev/null"], "no serial port 2"),
    "port beyond the last": (["-serial", "tcp:127.0.0.1:70000,server=on,wait=off"], "70000"),
    "pid file in a folder that is not there": (["-pidfile", "/nope/pid"], "/nope/pid"),
    "two who read the standard input": (["-serial", "stdio", "-monitor", "stdio"], "stdio"),
    "daemon that reads the standard input": (["-daemonize", "-serial", "stdio"], "daemonize"),
    "option that lacks its argument": (["-device"], "-device"),
    "option with a letter too many": (["-devices", "virtio-rng-device"], "-device"),
    "word that belongs to no option": (["-S", "kernel.img"], "kernel.img"),
    "global for no device": (["-global", "nope.x=1"], "nope"),
    "global without a value": (["-global", "virtio-rng-device.max-bytes"], "global"),
    "object of no type": (["-object", "id=o"], "type"),
    "object that needs an id": (["-object", "rng-random"], "id"),
    "memory object without a size": (["-object", "memory-backend-ram,id=m"], "size"),
    "number with letters behind it": (["-device", "virtio-rng-device,max-bytes=12x"], "12x"),
    "switch that is neither on nor off": (["-device", "virtio-blk-device,drive=disk,write-cache=maybe"] + DISK, "maybe"),
    "run state file": (["-loadvm", "x"], "loadvm"),
    "incoming": (["-incoming", "tcp:0:1"], "incoming"),
    "gdb at a port beyond the last": (["-gdb", "tcp::700000"], "700000"),
    "uuid that is none": (["-uuid", "1234"], "1234"),
    "date that is none": (["-rtc", "base=yesterday"], "yesterday"),
    "boot order of a PC": (["-boot", "order=dc"], "bootindex"),
    "fw_cfg without a name": (["-fw_cfg", "string=x"], "name"),
    "trace point that is not there": (["-trace", "nope_nope"], "nope_nope"),
    "log item that is not there": (["-d", "nope"], "nope"),
    "log item that nothing writes": (["-d", "guest_errors,exec"], "'exec' is not there"),
}


@pytest.mark.parametrize("name", LINES)
def test_mistake_is_named(name):
    args, part = LINES[name]
    board = [] if args[0] in ("-M", "-accel") else ["-M", "virt"]
    if not any(a in ("-serial", "-m") for a in args):
        board += ["-serial", "null", "-m", "8M"]
    status, out, err = run(*board, "-display", "none", *args)
    assert status == 1, (status, out, err)
    assert part in err and out == "", (out, err)


MANY = {"id": "m", "qom-type": "memory-backend-ram", "size": 1 << 20}
RNG = {"driver": "virtio-rng-pci", "id": "r", "bus": "port"}
NULL = {"type": "null", "data": {}}
# Commands in order; the last one is refused with a part of a text, and the machine goes on.
STEPS = {
    "device that was added already": ([("device_add", RNG), ("device_add", RNG)], "'r'"),
    "device that is not there": ([("device_del", {"id": "nope"})], "nope"),
    "device with an empty id": ([("device_del", {"id": ""})], ""),
    "device that cannot be plugged now": ([("device_add", {"driver": "virtio-rng-device"})], "virtio-rng-device"),
    "device that cannot be unplugged": ([("device_del", {"id": "s"})], "s"),
    "object that is in use": ([("object-add", {"qom-type": "rng-random", "id": "o"}), ("device_add", dict(RNG, rng="o")), ("object-del", {"id": "o"})], "o"),
    "object that was deleted already": ([("object-add", MANY), ("object-del", {"id": "m"}), ("object-del", {"id": "m"})], "m"),
    "object that is too large": ([("object-add", dict(MANY, size=1 << 62))], ""),
    "object of size none": ([("object-add", dict(MANY, size=0))], "size"),
    "object that is no user's": ([("object-add", {"qom-type": "virtio-rng-device", "id": "x"})], "virtio-rng-device"),
    "object by a path as its id": ([("object-add", {"qom-type": "rng-random", "id": "/a/b"})], "id"),
    "network back end that is not there": ([("netdev_del", {"id": "nope"})], "nope"),
    "network back end twice": ([("netdev_add", {"type": "user", "id": "n"}), ("netdev_add", {"type": "user", "id": "n"})], "n"),
    "character back end that is in use": ([("chardev-add", {"id": "c", "backend": NULL}), ("device_add", {"driver": "virtserialport", "chardev": "c", "id": "p"}),
                                          ("chardev-remove", {"id": "c"})], "c"),
    "character back end twice": ([("chardev-add", {"id": "c", "backend": NULL}), ("chardev-add", {"id": "c", "backend": NULL})], "c"),
    "change to what cannot be opened": ([("chardev-add", {"id": "c", "backend": NULL}),
                                        ("chardev-change", {"id": "c", "backend": {"type": "file", "data": {"out": "/nope/x"}}})], "/nope/x"),
    "change of a back end that is not there": ([("chardev-change", {"id": "nope", "backend": NULL})], "nope"),
    "property of a device that is there": ([("device_add", RNG), ("qom-set", {"path": "/machine/peripheral/r", "property": "max-bytes", "value": 1})], "max-bytes"),
    "property that tells the state": ([("device_add", RNG), ("qom-set", {"path": "/machine/peripheral/r", "property": "realized", "value": False})], ""),
    "property that is not there": ([("qom-set", {"path": "/machine", "property": "nope", "value": 1})], "nope"),
    "path that is not there": ([("qom-get", {"path": "/machine/nope", "property": "type"})], "/machine/nope"),
    "path that is empty": ([("qom-list", {"path": ""})], ""),
    "node that is in use": ([("blockdev-add", {"driver": "null-co", "node-name": "b", "size": 1 << 20}),
                             ("device_add", {"driver": "virtio-blk-pci", "drive": "b", "id": "d", "bus": "port"}), ("blockdev-del", {"node-name": "b"})], "b"),
    "node under itself": ([("blockdev-add", {"driver": "raw", "node-name": "b", "file": "b"})], "b"),
    "node without a driver": ([("blockdev-add", {"node-name": "b"})], "driver"),
    "resize to less than nothing": ([("blockdev-add", {"driver": "null-co", "node-name": "b", "size": 512}), ("block_resize", {"node-name": "b", "size": -1})], "size"),
    "number as text": ([("pmemsave", {"val": "zero", "size": 1, "filename": "/dev/null"})], "val"),
    "number beyond 64 bits": ([("pmemsave", {"val": 1 << 70, "size": 1, "filename": "/dev/null"})], ""),
    "argument that is not there": ([("stop", {"now": True})], "now"),
    "argument that is missing": ([("device_add", {})], "no device is named"),
    "hart that is not there": ([("memsave", {"val": 0, "size": 1, "filename": "/dev/null", "cpu-index": 99})], "cpu-index"),
    "descriptor that was not sent": ([("getfd", {"fdname": "x"})], ""),
    "descriptor that is not there": ([("closefd", {"fdname": "x"})], "x"),
    "job that is not there": ([("block-job-cancel", {"device": "nope"})], "nope"),
    "throttle that contradicts itself": ([("object-add", {"qom-type": "throttle-group", "id": "t", "limits": {"bps-total": 1, "bps-read": 1}})],
                                         "exclude each other"),
    "limit of no such name": ([("object-add", {"qom-type": "throttle-group", "id": "t"}), ("qom-set", {"path": "/objects/t", "property": "limits", "value": {"bps": 1}})], "bps"),
    "kernel's address without a translation": ([("memsave", {"val": 0xffffffff80000000, "size": 16, "filename": "/dev/null"})], "0xffffffff80000000"),
    "number that is large, and signed": ([("block_resize", {"node-name": "x", "size": (1 << 64) - 1})], "18446744073709551615"),
    "dump to nowhere": ([("dump-guest-memory", {"paging": False, "protocol": "file:/nope/x"})], "/nope/x"),
    "wake-up of who is awake": ([("system_wakeup", {})], ""),
}


@pytest.mark.parametrize("name", STEPS)
def test_machine_refuses_and_goes_on(name):
    steps, part = STEPS[name]
    with Machine(*BOARD) as m:
        for command, arguments in steps[:-1]:
            m.qmp.cmd(command, **arguments)
        command, arguments = steps[-1]
        answer = m.qmp.request({"execute": command, "arguments": arguments})
        assert "error" in answer and part in answer["error"]["desc"] and len(answer["error"]["desc"]) > 5, answer
        assert m.qmp.cmd("query-status")["status"] == "prelaunch"
        m.qmp.cmd("quit")
        assert m.wait() == 0


@pytest.mark.parametrize("times", [30])
def test_what_comes_and_goes_leaves_room_for_the_next(times):
    """Ids, nodes and slots are free again, as often as one likes."""
    with Machine(*BOARD) as m:
        for _ in range(times):
            m.qmp.cmd("object-add", **MANY)
            m.qmp.cmd("netdev_add", type="user", id="n")
            m.qmp.cmd("chardev-add", id="c", backend=NULL)
            m.qmp.cmd("blockdev-add", driver="null-co", **{"node-name": "b", "size": 512})
            m.qmp.cmd("blockdev-del", **{"node-name": "b"})
            m.qmp.cmd("chardev-remove", id="c")
            m.qmp.cmd("netdev_del", id="n")
            m.qmp.cmd("object-del", id="m")
        with pytest.raises(QmpError):
            m.qmp.cmd("object-del", id="m")


def test_limits_of_a_group_are_one_object():
    """Management programs give and change `limits`, by options or as JSON; what they do not name stays, and x- options tell the same."""
    with Machine(*BOARD, "-object", "throttle-group,id=a,limits.iops-total=100,x-bps-read=5",
                 "-object", '{"qom-type":"throttle-group","id":"b","limits":{"bps-total":1000,"bps-total-max":2000}}') as m:
        def limits(which):
            got = m.qmp.cmd("qom-get", path="/objects/" + which, property="limits")
            return {k: v for k, v in got.items() if v != (1 if k.endswith("-length") else 0)}
        assert (limits("a"), limits("b")) == ({"iops-total": 100, "bps-read": 5}, {"bps-total": 1000, "bps-total-max": 2000})
        m.qmp.cmd("qom-set", path="/objects/a", property="limits", value={"iops-total": 0, "iops-read": 7})
        for value in ({"iops-total": 1}, {"bps-read-max": 1}, 7, None):
            with pytest.raises(QmpError):
                m.qmp.cmd("qom-set", path="/objects/a", property="limits", value=value)
        assert limits("a") == {"iops-read": 7, "bps-read": 5} and m.qmp.cmd("qom-get", path="/objects/a", property="x-iops-read") == 7


def test_numbers_of_64_bits(tmp_path):
    """Kernels live above 2^63, and identifiers begin with any digit; JSON of both kinds of users has these numbers."""
    text = '{"driver":"nvme-ns","id":"ns","drive":"n","eui64":18441921395520346504}'
    with Machine(*BOARD, "-blockdev", "null-co,node-name=n,size=1M", "-device", "nvme,id=c,serial=x", "-device", text) as m:
        assert m.qmp.cmd("qom-get", path="/machine/peripheral/ns", property="eui64") & (1 << 64) - 1 == 18441921395520346504
        assert m.qmp.hmp('memsave 0x80000000 16 "%s"' % (tmp_path / "ram")) == "" and (tmp_path / "ram").read_bytes() == bytes(16)
        assert "Invalid addr 0xffffffe000000000" in m.qmp.hmp('memsave 0xffffffe000000000 16 "%s"' % (tmp_path / "kernel"))


@pytest.mark.parametrize("option", ["-serial", "-monitor", "-qmp", "-chardev"])
def test_nowait_in_its_old_form(tmp_path, option):
    """Lines of many years say server,nowait."""
    where = "unix:%s,server,nowait" if option != "-chardev" else "socket,id=c,path=%s,server,nowait"
    with Machine(*(BOARD if option != "-serial" else BOARD[:BOARD.index("-serial")]), option, where % (tmp_path / "socket")) as m:
        assert m.qmp.cmd("query-status")["status"] == "prelaunch"


@pytest.mark.parametrize("mux", ("on", "off"))
def test_log_of_a_console_that_nobody_is_at(tmp_path, mux):
    """The log file has what the guest said before anybody came, with a monitor on the same socket, too (Launchpad 1893691)."""
    log = tmp_path / "log"
    with Machine("-M", "virt", "-m", "8M", "-accel", "qtest", "-qtest", "unix:%s,server=on,wait=off" % (tmp_path / "qtest"),
                 "-chardev", "socket,id=c,path=%s,server=on,wait=off,mux=%s,logfile=%s" % (tmp_path / "socket", mux, log), "-serial", "chardev:c") as m:
        q = Qtest(m.connect(str(tmp_path / "qtest")))
        for c in b"hello":
            q.wr(0x10000000, c, 1)
        while log.read_bytes() != b"hello":
            m.qmp.cmd("query-status")


def test_snapshot_of_drives_and_a_node_that_is_only_read():
    with Machine(*BOARD, "-snapshot", "-drive", "file=null-co://,format=raw,if=virtio", "-blockdev", "null-co,node-name=ro,read-only=on",
                 "-blockdev", "null-co,node-name=low", "-blockdev", "raw,node-name=high,file=low,read-only=on") as m:
        assert m.qmp.cmd("query-status")["status"] == "prelaunch"


def test_words_behind_a_command_that_takes_none():
    with Machine(*BOARD) as m:
        for line in ("quit now", "info status x", "info  cpus 1", "info block-jobs -v"):
            assert "takes no argument" in m.qmp.hmp(line), line
        assert "prelaunch" in m.qmp.hmp("info status ")


@pytest.mark.parametrize("args", [("-net", "nic,model=virtio", "-net", "user"), ("-nic", "user,model=virtio")])
def test_the_old_name_of_a_card(args):
    with Machine(*BOARD, *args) as m:
        assert "virtio-net-pci" in m.qmp.hmp("info qtree")
