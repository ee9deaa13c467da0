# SPDX-License-Identifier: MIT
"""Options about other options and about the process: -global, -set, -readconfig, -writeconfig, -msg, -sandbox, -add-fd, -run-with."""
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import BINARY, Machine, Qmp, QmpError, connect, run
from lib.qtest import QtestMachine

FW_CFG = 0x10100000
VIRT = ("-M", "virt", "-m", "64M", "-S", "-serial", "null")


def fails(part, *args):
    status, _, err = run("-M", "none", "-display", "none", *args)
    assert status == 1 and part in err, err


def test_global_sets_the_default_of_every_device():
    with Machine(*VIRT, "-global", "virtio-rng-pci.max-bytes=512", "-device", "virtio-rng-pci,id=a", "-device", "virtio-rng-pci,id=b,max-bytes=7",
                 "-global", "driver=goldfish_rtc,property=clock,value=vm") as m:
        assert [m.qmp.cmd("qom-get", path="/machine/peripheral/" + i, property="max-bytes") for i in "ab"] == [512, 7]
        m.end()
        assert "warning: -global" not in m.output


def test_global_without_effect_is_named():
    with Machine("-M", "none", "-global", "virtio-rng-pci.max-bytes=512", "-global", "virtio-blk-pci.packed=on") as m:
        m.end()
        assert "virtio-rng-pci.max-bytes has no effect" in m.output and "virtio-blk-pci.packed has no effect" in m.output


def test_global_mistakes():
    fails("did you mean 'max-bytes'", "-global", "virtio-rng-pci.max-byte=1")
    fails("unknown device 'no-such'", "-global", "no-such.x=1")
    fails("-global virtio-rng-pci.packed=maybe", "-M", "virt", "-global", "virtio-rng-pci.packed=maybe", "-device", "virtio-rng-pci")
    with Machine("-M", "none", "-compat", "qemu", "-global", "PIIX4_PM.disable_s3=0") as m:
        m.end()
        assert "PIIX4_PM.disable_s3=0 has no effect" in m.output


def test_set_changes_what_came_before():
    with Machine(*VIRT, "-device", "virtio-rng-pci,id=a", "-set", "device.a.max-bytes=99", "-device", '{"driver":"virtio-rng-pci","id":"b"}',
                 "-set", "device.b.max-bytes=98") as m:
        assert [m.qmp.cmd("qom-get", path="/machine/peripheral/" + i, property="max-bytes") for i in "ab"] == [99, 98]
    fails("no -device with the id 'z'", "-set", "device.z.x=1")
    fails("GROUP.ID.OPTION=VALUE", "-set", "device")
    fails("did you mean 'device'", "-set", "devcie.a.b=1")


@pytest.mark.parametrize("args,part", [
    (["-kernel", "/dev/null"], "kernel= (-kernel)"), (["-dtb", "/dev/null"], "dtb= (-dtb)"), (["-bios", "/dev/null"], "firmware= (-bios)"),
    (["-M", "dumpdtb=/dev/null"], "dumpdtb="),
])
def test_a_machine_that_starts_nothing_takes_nothing_to_start(args, part):
    fails(part + " has no effect", *args)


def test_what_must_be_named_is_not_named_by_nothing():
    fails("'' is not a valid value for 'chardev'", "-chardev", "mux,id=m,chardev=")
    with Machine("-M", "none") as m, pytest.raises(QmpError) as e:
        m.qmp.cmd("blockdev-add", driver="throttle", **{"node-name": "t", "throttle-group": "", "file": {"driver": "null-co"}})
    assert "'throttle-group'" in e.value.desc


@pytest.mark.parametrize("args,told", [([], 0), (["-M", "graphics=off"], 1), (["-M", "graphics=on"], 0)])
def test_firmware_is_told_of_a_display(tmp_path, args, told):
    with QtestMachine(tmp_path, "-M", "virt", *args) as m:
        m.q.wr(FW_CFG + 8, 0x0400, 2)               # the selector is big endian (QEMU's fw_cfg.rst); 4: no graphics
        assert m.q.rd(FW_CFG, 1) == told and m.q.rd(FW_CFG, 1) == 0


def test_no_bus_says_who_brings_one():
    fails("-device pcie-root-port", "-M", "virt", "-device", "x3130-upstream")
    fails("-device x3130-upstream", "-M", "virt", "-device", "xio3130-downstream")


def test_files_that_are_none_of_what_they_should_be(tmp_path):
    fails("-bios: default, builtin, none", "-M", "virt", "-bios", "")
    (tmp_path / "tree").write_bytes(bytes(100))
    fails("-dtb %s/tree: not a device tree blob" % tmp_path, "-M", "virt", "-dtb", str(tmp_path / "tree"))
    fails("-device help lists the names", "-M", "virt", "-device", "nothing-like-it")


@pytest.mark.parametrize("args", ["-M q35", "-M sifive_u", "-M virt,iommu-sys=on", "-M virt -cpu rva23s64", "-M virt -cpu host",
                                  "-netdev tap,id=n,vhost=on"])
def test_what_qemu_has_and_this_build_lacks_is_said_to_be_so(args):
    status, _, err = run("-display", "none", *args.split())
    assert status == 1 and "is not in this build" in err and "hint: " in err and "did you mean" not in err


def test_device_as_json():
    with Machine(*VIRT, "-device", '{"driver":"virtio-rng-pci","id":"a","addr":"5.0","max-bytes":17,"packed":true}') as m:
        assert m.qmp.cmd("qom-get", path="/machine/peripheral/a", property="max-bytes") == 17
    fails("JSON", "-M", "virt", "-device", '{"driver":"virtio-rng-pci",')
    fails("'vectors'", "-M", "virt", "-device", '{"driver":"virtio-rng-pci","vectors":"many"}')


def test_configuration_is_written_and_read(tmp_path):
    cfg, log = tmp_path / "cfg", tmp_path / "a,b"
    status, _, err = run("-M", "virt", "-m", "64M", "-chardev", "null,id=c,logfile=%s" % str(log).replace(",", ",,"), "-device", "virtio-rng-pci,id=r,addr=6",
                         "-S", "-writeconfig", str(cfg), "-device", "no-such")
    assert status == 1 and "no-such" in err
    text = cfg.read_text()
    assert '[device "r"]' in text and 'logfile = "%s"' % log in text and "# not in a group: -S" in text
    cfg.write_text(text[:text.index("[device]")] if "[device]" in text else text)
    with Machine("-S", "-serial", "null", "-readconfig", str(cfg)) as m:
        assert m.qmp.cmd("qom-get", path="/machine/peripheral/r", property="addr") in ("06.0", "6.0", 48)
        assert {c["label"] for c in m.qmp.cmd("query-chardev")} >= {"c"}


@pytest.mark.parametrize("text,part", [
    ('key = "x"\n', ":1: no group yet"), ("[devcie]\n", ":1: unknown group 'devcie'"), ("[device]\nkey\n", ':2: a line looks like key = "value"'),
    ('[device "a]\n', ':1: a group looks like'), ('# c\n\n[device "a"]\n driver = "no-such"\n', ':3: [device]: unknown device'),
])
def test_mistakes_in_a_configuration_name_the_line(tmp_path, text, part):
    cfg = tmp_path / "cfg"
    cfg.write_text(text)
    fails("%s%s" % (cfg, part), "-readconfig", str(cfg))


def test_messages_with_time_and_name():
    _, _, err = run("-M", "none", "-name", "bob", "-msg", "timestamp=on,guest-name=on", "-device", "x")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z bob backplane: -device x: ", err)
    fails("the machine has no name", "-msg", "guest-name=on")


def in_build(name):
    return re.search(r"%s .*yes" % name, run("-version")[1])


@pytest.fixture(name="without_leak_check")
def leak_check_off(monkeypatch):
    """LeakSanitizer, where it is built in, traces the process and reads /proc at the end: what these options take away."""
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")


def test_sandbox_is_real_or_refused(without_leak_check):
    if not in_build("seccomp"):
        fails("not in this build", "-sandbox", "on")
        return
    with Machine("-M", "none", "-sandbox", "on,spawn=deny,elevateprivileges=deny,resourcecontrol=deny") as m:
        with open("/proc/%d/status" % m.process.pid, encoding="utf-8") as f:
            assert "Seccomp:\t2" in f.read()
        m.qmp.cmd("quit")
        assert m.wait() == 0
    fails("did you mean 'spawn'", "-sandbox", "on,spwan=deny")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_rights_are_given_up(tmp_path, without_leak_check):
    os.chmod(tmp_path, 0o777)
    with Machine("-M", "none", "-run-with", "user=65534:65534,chroot=%s" % tmp_path) as m:
        with open("/proc/%d/status" % m.process.pid, encoding="utf-8") as f:
            assert "Uid:\t65534\t65534\t65534\t65534" in f.read()
        assert os.readlink("/proc/%d/root" % m.process.pid) == str(tmp_path)
        m.qmp.cmd("quit")
        assert m.wait() == 0
    fails("no such user", "-run-with", "user=nobody-at-all")


def test_inherited_descriptor_stands_for_a_file(tmp_path):
    with open(tmp_path / "disk", "w+b") as f, open(tmp_path / "disk", "rb") as r:
        f.truncate(1 << 20)
        args = [BINARY, *VIRT, "-display", "none", "-qmp", "unix:%s,server=on,wait=off" % (tmp_path / "q"),
                "-add-fd", "fd=%d,set=3,opaque=rw" % f.fileno(), "-add-fd", "fd=%d,set=3" % r.fileno(),
                "-blockdev", "driver=file,node-name=d,filename=/dev/fdset/3", "-device", "virtio-blk-pci,drive=d"]
        p = subprocess.Popen(args, pass_fds=[f.fileno(), r.fileno()], stdin=subprocess.DEVNULL)
    try:
        q = Qmp(connect(str(tmp_path / "q"), p))
        sets = q.cmd("query-fdsets")
        assert [s["fdset-id"] for s in sets] == [3] and len(sets[0]["fds"]) == 2 and sets[0]["fds"][0]["opaque"] == "rw"
        q.cmd("quit")
        assert p.wait(30) == 0
    finally:
        p.kill()
        p.wait()
    fails("/dev/fdset/9", "-blockdev", "driver=file,node-name=d,filename=/dev/fdset/9")


def send_fd(m, fd, command):
    socket.send_fds(m.qmp.sock, [command.encode()], [fd])
    return m.qmp.answer()


def test_descriptors_over_qmp(tmp_path):
    a, b = socket.socketpair()
    with Machine("-M", "none") as m, open(tmp_path / "f", "w+b") as f:
        assert send_fd(m, b.fileno(), '{"execute": "getfd", "arguments": {"fdname": "peer"}}') == {"return": {}}
        m.qmp.cmd("chardev-add", id="c", backend={"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "peer"}}, "server": False}})
        with pytest.raises(QmpError):
            m.qmp.cmd("closefd", fdname="peer")
        with pytest.raises(QmpError):
            m.qmp.cmd("getfd", fdname="x")
        added = send_fd(m, f.fileno(), '{"execute": "add-fd", "arguments": {"opaque": "mine"}}')["return"]
        assert added["fdset-id"] == 0
        m.qmp.cmd("chardev-add", id="d", backend={"type": "file", "data": {"out": "/dev/fdset/0"}})
        m.qmp.cmd("remove-fd", fdset_id=0)
        assert m.qmp.cmd("query-fdsets") == []
        with pytest.raises(QmpError):
            m.qmp.cmd("remove-fd", fdset_id=0)
    a.close()
    b.close()


def test_unused_back_ends_are_named():
    p = subprocess.Popen([BINARY, "-M", "none", "-display", "none", "-chardev", "null,id=lonely"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert b"-chardev lonely: no device uses it" in p.stderr.readline()
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(30) == 0


@pytest.mark.parametrize("devices,told", [
    (["edu,addr=3.2"], True), (["edu,addr=3,multifunction=on", "edu,addr=3.2"], False), (["edu,addr=3.2", "edu,addr=3.0,multifunction=on"], False)])
def test_a_function_that_no_guest_finds_is_named(devices, told):
    args = [a for d in devices for a in ("-device", d)]
    p = subprocess.Popen([BINARY, "-M", "virt", "-S", "-display", "none", "-serial", "null", "-monitor", "stdio", *args], stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    err = p.communicate(b"quit\n", 60)[1].decode()
    assert p.returncode == 0 and ("-device edu,addr=3.2: the guest does not find it: slot 3 of bus 'pcie.0' has no function 0" in err) == told, err


def test_objects_wait_for_the_back_ends_that_they_name():
    with Machine("-M", "none", "-object", "memory-backend-ram,id=m,size=1M", "-object", "rng-builtin,id=r") as m:
        assert {x["name"] for x in m.qmp.cmd("qom-list", path="/objects")} >= {"m", "r"}


@pytest.mark.parametrize("args,parts", [
    ("-m 0", ["-m: a machine without memory"]),
    ("-enable-kvm", ["-enable-kvm: KVM is not in this build", "leave it out"]), ("-usb", ["-usb: USB is not in this build"]),
    ("-vnc :0", ["-vnc: a graphical display is not in this build", "-nographic"]), ("-incoming defer", ["-incoming: migration is not in this build"]),
    ("-loadvm x", ["-loadvm: snapshots of a running machine are not in this build"]), ("-mem-path /x", ["memory-backend-file"]),
    ("-preconfig=x", ["-preconfig=x: this option takes no value", "write -preconfig alone"]),
    ("-cpu rv64,v=on", ["v: this extension is not in this build", "v=off"]), ("-cpu rv64,zvkned=true", ["zvkned: this extension is not in this build"]),
    ("-cpu rv64,sv48=off,sv57=on", ["sv48=off: a hart with sv57=on has Sv48, too"]), ("-cpu rv64,sv39=off", ["sv39=off"]),
    ("-object rng-random,id=r,filename=/tmp", ["filename: '/tmp' is a directory"]),
    ("-audiodev pa,id=a", ["audio back end 'pa' is not in this build", "only 'none' is"]), ("-audiodev id=a", ["-audiodev id=a: no driver is named"]),
    ("-daemonize -serial stdio", ["-daemonize leaves no standard input and output"]),
    ("-daemonize -chardev stdio,id=c", ["-daemonize leaves no standard input and output"]),
    ("-daemonize -monitor stdio", ["-daemonize leaves no standard input and output"]),
    ("-overcommit cpu-pm=on", ["cpu-pm=on is not in this build"]), ("-overcommit mem-lock=maybe", ["mem-lock"]),
])
def test_what_this_build_cannot_do_is_told(args, parts):
    status, _, err = run("-M", "virt", "-display", "none", *args.split())
    assert status == 1 and all(p in err for p in parts) and "unknown option" not in err, err


@pytest.mark.parametrize("value", ["none,id=a", "driver=none,id=a", '{"id": "a", "driver": "none"}'])
def test_a_back_end_that_plays_nothing_is_taken(value):
    with Machine("-M", "none", "-audiodev", value) as m:
        assert m.qmp.cmd("query-status")["status"] == "running"


@pytest.mark.parametrize("opts,mode", [("", "sv57"), ("sv57=off", "sv48"), ("sv48=off", "sv39"), ("sv39=on", "sv39"), ("sv48=on", "sv48"),
                                       ("sv48=on,sv57=on", "sv57"), ("v=off,h=off", "sv57")])
def test_the_widest_translation_is_the_one_chosen(tmp_path, opts, mode):
    dtb = tmp_path / "dtb"
    status, _, err = run("-M", "virt,dumpdtb=%s" % dtb, "-display", "none", "-cpu", "rv64" + (opts and "," + opts))
    assert status == 0, err
    assert b"riscv,%s\0" % mode.encode() in dtb.read_bytes()


def test_overcommit_locks_memory():
    if "ASAN_OPTIONS" in os.environ:
        pytest.skip("mlockall() does nothing in a program with sanitizers")
    with Machine("-M", "none", "-overcommit", "mem-lock=on-fault") as m, open("/proc/%d/status" % m.process.pid, encoding="ascii") as f:
        locked = [line.split()[1] for line in f if line.startswith("VmLck")]
        assert int(locked[0]) > 0
    # What may be translated has memory set aside, of which no more is locked than what there is
    with Machine("-M", "virt", "-m", "32M", "-accel", "jit", "-S", "-nodefaults", "-overcommit", "mem-lock=on") as m, \
            open("/proc/%d/status" % m.process.pid, encoding="ascii") as f:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in f if line.startswith(("VmLck", "VmRSS"))}
        assert kib["VmLck"] > 32 << 10 and 32 << 10 < kib["VmRSS"] < 192 << 10


@pytest.mark.parametrize("first,second", [("", ",id=b"), (",id=a", ""), (",id=a", ",id=b"), ("", "")])
def test_a_device_without_bus_goes_to_the_controller_that_came_first(first, second):
    with Machine("-M", "virt", "-S", "-nodefaults", "-accel", "interp", "-device", "virtio-scsi-pci,addr=9" + first, "-device",
                 "virtio-scsi-pci,addr=4" + second, "-blockdev", "null-co,node-name=d,size=1M", "-device", "scsi-hd,drive=d,id=disk") as m:
        controllers = m.qmp.hmp("info qtree").split("dev: virtio-scsi-pci")[1:]
        assert ["addr = 09.0" in c for c in controllers] == ["dev: scsi-hd" in c for c in controllers], controllers
