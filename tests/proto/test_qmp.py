# SPDX-License-Identifier: MIT
"""The QMP server: sessions, framing of hostile input, errors, run state, introspection; the monitor for a person."""
import os
import random
import re
import signal
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import ROOT, Machine, Qmp, QmpError, run
from lib.qtest import Qtest

BOARD = ("-M", "virt", "-m", "64M", "-S", "-serial", "null")


@pytest.fixture(name="m")
def machine():
    with Machine("-M", "none", monitor=True) as m:
        yield m


@pytest.fixture(name="board")
def board_machine():
    with Machine(*BOARD, "-device", "virtio-balloon", "-object", "iothread,id=thread", "-drive",
                 "if=virtio,file.driver=null-co,file.size=1M,format=raw", "-device", "virtio-scsi", "-device", "scsi-cd") as m:
        yield m


def reconnect(m, negotiate=True):
    m.qmp.close()
    m.qmp = Qmp(m.connect(m.qmp_path), negotiate)
    return m.qmp


def test_greeting_names_version_and_capabilities(m):
    version = m.qmp.greeting["QMP"]["version"]
    assert set(version["qemu"]) == {"major", "minor", "micro"}
    assert version == m.qmp.cmd("query-version")
    assert m.qmp.greeting["QMP"]["capabilities"] == ["oob"]


def test_commands_wait_for_negotiation(m):
    q = reconnect(m, negotiate=False)
    assert q.request({"execute": "query-status"})["error"]["class"] == "CommandNotFound"
    assert q.request({"execute": "qmp_capabilities", "arguments": {"enable": ["nope"]}})["error"]["class"] == "GenericError"
    assert q.request({"execute": "qmp_capabilities", "id": [1]}) == {"return": {}, "id": [1]}
    assert q.request({"execute": "qmp_capabilities"})["error"]["class"] == "CommandNotFound"


@pytest.mark.parametrize("text,part", [
    (b'{"foo": 1}', "'foo' is unexpected"), (b"[1]", "must be a JSON object"), (b"{}", "lacks member 'execute'"),
    (b'{"execute": 3}', "must be a string"), (b'{"execute": "query-status", "arguments": 3}', "must be an object"),
    (b'{"execute": "query-status", bad}', "JSON parse error"), (b"nonsense\n", "JSON parse error"),
    (b'{"execute": "a", "execute": "b"}', "JSON parse error"), (b"[" * 2000 + b"\n", "nested too deeply"),
    (b'{"execute": "query-status", "arguments": {"x": 1}}', "'x'"), (b'{"exec-oob": "query-status"}', "exec-oob"),
])
def test_wrong_input_is_answered_and_the_session_lives(m, text, part):
    error = m.qmp.request(text)["error"]
    assert error["class"] == "GenericError" and part in error["desc"]
    assert m.qmp.cmd("query-status")["status"] == "running"


@pytest.mark.parametrize("text", [b"{\xff", b"{\x01", b"{'bad \xff", b"{'execute': 'nope', 'id':'\n", b"%p", b'{"a": #', b"{]"])
def test_a_byte_that_cannot_go_on_is_told_at_once(m, text):
    """Without an end of line, and with what follows understood."""
    error = m.qmp.request(text)["error"]
    assert error["class"] == "GenericError" and "JSON parse error" in error["desc"]
    assert m.qmp.request(b"{'execute': 'nope'}")["error"]["class"] == "CommandNotFound"


@pytest.mark.parametrize("arguments", [{"size": "4096"}, {"size": 4096, "share": "on"}, {"size": 4096, "merge": 1}, {"size": True}])
def test_values_are_of_their_own_type(m, arguments):
    """A person types size=4K and share=on; a program gives numbers and booleans."""
    whole = {"qom-type": "memory-backend-ram", "id": "typed", **arguments}
    error = m.qmp.request({"execute": "object-add", "arguments": whole})["error"]
    assert error["class"] == "GenericError" and "type" in error["desc"]
    assert "return" in m.qmp.request({"execute": "object-add", "arguments": {"qom-type": "memory-backend-ram", "id": "typed", "size": 4096}})
    m.qmp.cmd("object-del", id="typed")
    assert m.qmp.hmp("object_add memory-backend-ram,id=typed,size=4K,share=on") == ""


def test_the_machine_is_at_its_place():
    with Machine("-M", "virt,aia=aplic", "-smp", "3", "-S", "-serial", "null") as m:
        assert m.qmp.cmd("qom-get", path="/machine", property="type") == "virt-machine"
        assert m.qmp.cmd("qom-get", path="/machine", property="aia") == "aplic"
        assert {"peripheral", "unattached", "soc0"} <= {x["name"] for x in m.qmp.cmd("qom-list", path="/machine")}
        cpus = m.qmp.cmd("query-cpus-fast")
        assert [m.qmp.cmd("qom-get", path=c["qom-path"], property="zba") for c in cpus] == [True] * 3


def test_the_empty_machine_takes_memory_and_a_cpu_model():
    with Machine("-M", "none", "-m", "2", "-cpu", "rv64,zba=off") as m:
        assert m.qmp.cmd("qom-get", path="/machine/soc0/harts[0]", property="zba") is False
        assert m.qmp.cmd("query-memory-size-summary")["base-memory"] == 2 << 20
        assert m.qmp.hmp("xp /2bx 0x1ffffe").split()[1:] == ["0x00", "0x00"]
        assert "Cannot access memory" in m.qmp.hmp("xp /1bx 0x200000")


def test_arguments_of_the_monitor_may_be_quoted(m):
    assert m.qmp.hmp('device_add "edu,help"') == m.qmp.hmp("device_add edu,help") != ""
    assert m.qmp.hmp('object_add "memory-backend-ram,id=quoted,size=4K"') == ""
    assert m.qmp.cmd("qom-get", path="/objects/quoted", property="size") == 4096


def test_unknown_command(m):
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("nosuch")
    assert (e.value.cls, e.value.desc) == ("CommandNotFound", "The command nosuch has not been found")


def test_unknown_command_has_a_neighbour_or_a_reason(m):
    for name, part in (("qery-status", "did you mean 'query-status'?"), ("migrate", "does not migrate")):
        with pytest.raises(QmpError) as e:
            m.qmp.cmd(name)
        assert e.value.cls == "CommandNotFound" and part in e.value.desc


def test_reasons_are_of_commands_that_are_not_there(m):
    with open(os.path.join(ROOT, "src/ctl/qmp_absent.c"), encoding="utf-8") as f:
        told = set(re.findall(r'\{ "([\w-]+)", ', f.read()))
    assert len(told) > 50 and not told & {c["name"] for c in m.qmp.cmd("query-commands")}


def test_the_other_monitor_looks_at_a_cpu_that_is_there(board):
    assert "pc " in board.qmp.cmd("human-monitor-command", **{"command-line": "info registers", "cpu-index": 0})
    with pytest.raises(QmpError) as e:
        board.qmp.cmd("human-monitor-command", **{"command-line": "info registers", "cpu-index": 1})
    assert "'cpu-index'" in e.value.desc


@pytest.mark.parametrize("addr", [{}, [], 5, "x", {"type": "inet"}, {"type": "inet", "data": {"port": "0"}}, {"host": "127.0.0.1", "port": "0"}])
def test_nobody_listens_where_it_was_not_said(m, addr):
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("nbd-server-start", addr=addr)
    assert "is missing in addr" in e.value.desc
    with pytest.raises(QmpError):
        m.qmp.cmd("nbd-server-stop")


def test_input_in_pieces_and_in_one_piece(m):
    for b in b"{'execute': 'query-name', 'id': 'a\"b'}":
        m.qmp.send(bytes([b]))
    assert m.qmp.answer() == {"return": {}, "id": 'a"b'}
    m.qmp.send(b'{"execute":"query-name","id":1}' * 200)
    assert [m.qmp.answer()["id"] for _ in range(200)] == [1] * 200


def test_broken_off_value_is_dropped_by_ff(m):
    m.qmp.send(b'{"execute": "quit"\xff')
    assert "error" in m.qmp.answer()
    assert m.qmp.cmd("query-status")["running"] is True


def test_quit_sends_no_stop():
    with Machine("-M", "none") as t:
        t.qmp.cmd("quit")
        with pytest.raises(EOFError):
            t.qmp.wait_event("STOP")
        assert [x["event"] for x in t.qmp.events] == ["SHUTDOWN"]
        t.wait()


def test_stop_and_cont_send_events_before_the_answer(m):
    m.qmp.cmd("stop")
    assert m.qmp.events.pop()["event"] == "STOP"
    assert m.qmp.cmd("query-status") == {"status": "paused", "running": False}
    m.qmp.cmd("cont")
    event = m.qmp.events.pop()
    assert event["event"] == "RESUME" and abs(event["timestamp"]["seconds"] - time.time()) < 60
    assert m.qmp.cmd("query-status") == {"status": "running", "running": True}


def test_reset_and_powerdown_send_events(m):
    m.qmp.cmd("system_reset")
    assert m.qmp.wait_event("RESET")["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
    m.qmp.cmd("system_powerdown")
    m.qmp.wait_event("POWERDOWN")


def test_quit_answers_and_ends_with_status_0(m):
    m.qmp.cmd("quit")
    assert m.qmp.wait_event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-qmp-quit"}
    assert m.wait() == 0
    assert not os.path.exists(m.qmp_path)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_with_status_0(m, sig):
    m.process.send_signal(sig)
    assert m.qmp.wait_event("SHUTDOWN")["data"]["reason"] == "host-signal"
    assert m.wait() == 0


def test_paused_machine_is_in_prelaunch(board):
    assert board.qmp.cmd("query-status") == {"status": "prelaunch", "running": False}


def test_machines_have_qemus_members(m):
    machines = {x["name"]: x for x in m.qmp.cmd("query-machines")}
    assert {"virt", "none"} <= set(machines)
    assert machines["virt"]["cpu-max"] >= 32 and "default-cpu-type" in machines["virt"]
    for x in machines.values():
        assert {"name", "cpu-max", "hotpluggable-cpus", "numa-mem-supported", "deprecated"} <= set(x)


def test_types_follow_implements_and_abstract(m):
    devices = m.qmp.cmd("qom-list-types", implements="device")
    names = {d["name"] for d in devices}
    assert names and not any(d.get("abstract") for d in devices)
    more = m.qmp.cmd("qom-list-types", implements="device", abstract=True)
    assert names < {d["name"] for d in more} and any(d.get("abstract") for d in more)
    assert m.qmp.cmd("qom-list-types", implements="no-such") == []


def test_every_base_of_a_type_is_a_type(m):
    types = {t["name"]: t for t in m.qmp.cmd("qom-list-types", abstract=True)}
    for t in types.values():
        assert t["parent"] == "object" or t["parent"] in types, t
    board = {t["name"] for t in m.qmp.cmd("qom-list-types", implements="sys-bus-device")}
    assert "serial-mm" in board and "edu" not in board


def test_every_device_lists_its_properties(m):
    for d in m.qmp.cmd("qom-list-types", implements="device"):
        for p in m.qmp.cmd("device-list-properties", typename=d["name"]):
            assert p["name"] and p["type"] and p["description"], (d, p)


def test_tree_can_be_walked(board):
    def walk(path):
        for entry in board.qmp.cmd("qom-list", path=path):
            if entry["type"].startswith("child<"):
                below = path.rstrip("/") + "/" + entry["name"]
                assert "child<%s>" % board.qmp.cmd("qom-get", path=below, property="type") == entry["type"]
                seen.append(entry["type"])
                walk(below)
    seen = []
    walk("/")
    assert len(seen) > 10
    with pytest.raises(QmpError) as e:
        board.qmp.cmd("qom-list", path="/nope")
    assert e.value.cls == "DeviceNotFound"


def test_objects_come_and_go(m):
    m.qmp.cmd("object-add", qom_type="memory-backend-ram", id="mem0", size=1 << 20)
    assert m.qmp.cmd("qom-get", path="/objects/mem0", property="size") == 1 << 20
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("object-add", qom_type="memory-backend-ram", id="mem0", size=1 << 20)
    assert "exists already" in e.value.desc
    m.qmp.cmd("object-del", id="mem0")
    with pytest.raises(QmpError):
        m.qmp.cmd("object-del", id="mem0")


def test_unknown_names_get_the_nearest(m):
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("object-add", qom_type="memory-backend-rom", id="x")
    assert "memory-backend-ram" in e.value.desc
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("device_del", id="nope")
    assert e.value.cls == "DeviceNotFound"


def test_schema_covers_every_command_and_event(m):
    entries = m.qmp.cmd("query-qmp-schema")
    names = {(e["meta-type"], e["name"]) for e in entries}
    assert len(names) == len(entries)
    for c in m.qmp.cmd("query-commands"):
        assert ("command", c["name"]) in names
    for ev in m.qmp.cmd("query-events"):
        assert ("event", ev["name"]) in names
    assert [e["name"] for e in entries if e["meta-type"] == "command" and e["ret-type"] == "any"] == ["qom-get"]
    types = {e["name"] for e in entries}
    for command, tag, case in (("blockdev-add", "driver", "qcow2"), ("netdev_add", "type", "user"), ("object-add", "qom-type", "iothread")):
        arg = next(e for e in entries if e["name"] == command + "-arg")
        assert arg["tag"] == tag and {v["type"] for v in arg["variants"]} <= types
        assert case in [v["case"] for v in arg["variants"]]
        kinds = next(e for e in entries if e["name"] == "%s.%s" % (arg["name"], tag))
        assert {"name": tag, "type": kinds["name"]} in arg["members"]
        assert kinds["values"] == [v["case"] for v in arg["variants"]] == [k["name"] for k in kinds["members"]]
    for e in entries:
        for t in [e.get("arg-type"), e.get("ret-type"), e.get("element-type")] + [x["type"] for x in e.get("members", []) if "type" in x]:
            assert t is None or t in types, e


def path_in_schema(schema, name, kind, *path):
    """The entry that PATH leads to from the argument or answer of command NAME: members, or "+case" of a tag. None: there is none."""
    at = schema[schema[name][kind]]
    for step in path:
        at = schema[at["element-type"]] if at["meta-type"] == "array" else at
        types = [v["type"] for v in at.get("variants", []) if "+" + v["case"] == step] + [m["type"] for m in at["members"] if m["name"] == step]
        if not types:
            return None
        at = schema[types[0]]
    return at


def test_management_tools_find_in_the_schema_what_they_look_for(m):
    """Names by which libvirt decides what it may use; options with dots are members of objects."""
    schema = {e["name"]: e for e in m.qmp.cmd("query-qmp-schema")}
    for name, kind, *path in (("blockdev-add", "arg-type", "+nbd", "tls-hostname"), ("netdev_add", "arg-type", "+stream"), ("nbd-server-start", "arg-type", "tls-creds"),
                              ("nbd-server-add", "arg-type", "bitmap"), ("query-iothreads", "ret-type", "poll-max-ns"),
                              ("query-named-block-nodes", "arg-type", "flat"), ("blockdev-add", "arg-type", "+file", "cache", "direct"),
                              ("blockdev-add", "arg-type", "+qcow2", "encrypt", "key-secret")):
        assert path_in_schema(schema, name, kind, *path), path
    assert "dgram" in path_in_schema(schema, "netdev_add", "arg-type", "type")["values"]
    assert "secret" in path_in_schema(schema, "object-add", "arg-type", "qom-type")["values"]
    assert "json-cli-hotplug" in schema["device_add"]["features"] and "features" not in schema["device_del"]
    assert path_in_schema(schema, "blockdev-add", "arg-type", "+file", "drop-cache") is None
    assert not any("." in member["name"] for e in schema.values() for member in e.get("members", []) if e["meta-type"] == "object")


def answers(value, schema, entry):
    """VALUE has the shape that introspection tells."""
    kind = entry["meta-type"]
    if kind == "array":
        return isinstance(value, list) and all(answers(v, schema, schema[entry["element-type"]]) for v in value)
    if kind == "object":
        members = {m["name"]: m for m in entry["members"]}
        needed = {n for n, m in members.items() if "default" not in m}
        return needed <= set(value) <= set(members) and all(answers(v, schema, schema[members[n]["type"]]) for n, v in value.items())
    if kind == "builtin":
        types = {"str": str, "int": int, "bool": bool, "number": (int, float)}
        return entry["name"] == "any" or isinstance(value, types[entry["name"]])
    return True


def test_answers_are_what_the_schema_tells(board):
    schema = {e["name"]: e for e in board.qmp.cmd("query-qmp-schema")}
    told = 0
    for name in [c["name"] for c in board.qmp.cmd("query-commands")]:
        if not name.startswith("query-") and name not in ("qom-list-types", "stop", "cont", "system_powerdown", "set-action"):
            continue
        ret = schema[name]["ret-type"]
        try:
            assert answers(board.qmp.cmd(name), schema, schema[ret]), (name, ret)
        except QmpError:
            continue
        told += ret != "any"
    assert told >= 28
    assert answers(board.qmp.cmd("device-list-properties", typename="virtio-rng-pci"), schema, schema[schema["device-list-properties"]["ret-type"]])


def test_actions_can_be_changed(board):
    board.qmp.cmd("set-action", reboot="shutdown", panic="pause")
    for wrong in ({"reboot": "x"}, {"shutdown": ""}, {"panic": "reset"}, {"nosuch": "x"}):
        with pytest.raises(QmpError):
            board.qmp.cmd("set-action", **wrong)


def test_options_tell_their_keys(m):
    (sandbox,) = m.qmp.cmd("query-command-line-options", option="sandbox")
    assert {"name": "spawn", "type": "string", "help": "Starting other programs"} in sandbox["parameters"]
    assert "device" in {o["option"] for o in m.qmp.cmd("query-command-line-options")}
    options = {o["option"]: {p["name"]: p["type"] for p in o["parameters"]} for o in m.qmp.cmd("query-command-line-options")}
    for option, key, kind in (("machine", "aia", "string"), ("M", "memory-backend", "string"), ("smp", "maxcpus", "number"), ("m", "size", "size"),
                              ("rtc", "base", "string"), ("boot", "menu", "boolean"), ("drive", "file", "string"), ("chardev", "path", "string"),
                              ("chardev", "reconnect", "number"), ("netdev", "hostfwd", "string"), ("blockdev", "detect-zeroes", "string")):
        assert options[option].get(key) == kind, (option, key)
    assert not any(len(keys) != len(set(keys)) for keys in options.values())


def test_back_end_of_a_chardev_is_changed(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with Machine("-M", "virt", "-m", "64M", "-accel", "qtest", "-chardev", "file,id=c,path=%s" % one, "-serial", "chardev:c",
                 "-qtest", "unix:%s,server=on,wait=off" % (tmp_path / "t")) as b:
        t = Qtest(b.connect(str(tmp_path / "t")))
        t.answer("writeb 0x10000000 0x41")
        b.qmp.cmd("chardev-change", id="c", backend={"type": "file", "data": {"out": str(two)}})
        t.answer("writeb 0x10000000 0x42")
        assert [c["filename"] for c in b.qmp.cmd("query-chardev") if c["label"] == "c"] == ["file"]
        with pytest.raises(QmpError):
            b.qmp.cmd("chardev-change", id="c", backend={"type": "file", "data": {"out": "/nonexistent/x"}})
        t.answer("writeb 0x10000000 0x43")
        with pytest.raises(QmpError):
            b.qmp.cmd("chardev-change", id="nosuch", backend={"type": "null"})
        b.qmp.cmd("quit")
        assert b.wait() == 0
    assert (one.read_bytes(), two.read_bytes()) == (b"A", b"BC")


def test_events_are_told_before_they_come(m):
    told = {e["name"] for e in m.qmp.cmd("query-qmp-schema") if e["meta-type"] == "event"}
    assert {"STOP", "RESUME", "SHUTDOWN", "RESET", "POWERDOWN", "DEVICE_DELETED"} <= told
    sent = set()
    for folder, _, files in os.walk(os.path.join(ROOT, "src")):
        for name in files:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                sent |= set(re.findall(r'qmp_event\("(\w+)"', f.read()))
    assert len(sent) > 15 and sent <= told


def test_events_are_what_the_schema_tells(board):
    schema = {e["name"]: e for e in board.qmp.cmd("query-qmp-schema")}
    board.qmp.cmd("cont")
    board.qmp.cmd("stop")
    board.qmp.cmd("system_reset")
    board.qmp.cmd("object-add", qom_type="iothread", id="t")
    board.qmp.cmd("device_add", driver="scsi-cd", id="cd")
    board.qmp.cmd("device_del", id="cd")
    board.qmp.cmd("blockdev-add", driver="null-co", **{"node-name": "n", "size": 65536})
    board.qmp.cmd("blockdev-add", driver="null-co", **{"node-name": "o", "size": 65536})
    board.qmp.cmd("blockdev-mirror", job_id="j", device="n", target="o", sync="full")
    board.qmp.wait_event("BLOCK_JOB_READY")
    board.qmp.cmd("block-job-cancel", device="j")
    board.qmp.wait_event("BLOCK_JOB_COMPLETED")
    board.qmp.cmd("quit")
    board.qmp.wait_event("SHUTDOWN")
    assert {"STOP", "RESUME", "RESET", "DEVICE_DELETED", "JOB_STATUS_CHANGE"} <= {e["event"] for e in board.qmp.events}
    for e in board.qmp.events:
        assert answers(e.get("data", {}), schema, schema[schema[e["event"]]["arg-type"]]), e


def test_cpu_models_are_listed_and_expanded(m):
    models = {d["name"]: d for d in m.qmp.cmd("query-cpu-definitions")}
    assert {"rv64", "max", "rv64i", "rva22s64", "sifive-u54", "veyron-v1"} == set(models)
    assert models["max"]["typename"] == models["rv64"]["typename"] == "rv64-riscv-cpu"
    assert {d["typename"] for d in models.values()} >= {x.get("default-cpu-type", "rv64-riscv-cpu") for x in m.qmp.cmd("query-machines")}
    expand = m.qmp.cmd("query-cpu-model-expansion", type="full", model={"name": "rv64i", "props": {"m": True, "mimpid": 5}})["model"]
    assert expand["name"] == "rv64i" and (expand["props"]["m"], expand["props"]["a"], expand["props"]["mimpid"]) == (True, False, 5)
    again = m.qmp.cmd("query-cpu-model-expansion", type="full", model=expand)["model"]
    assert again == expand


@pytest.mark.parametrize("model", [{}, {"name": 5}, {"name": "rv64", "props": []}, {"name": "rv65"}, {"name": "rv64", "props": {"nosuch": True}},
                                   {"name": "rv64", "props": {"v": True}}, {"name": "rv64i", "props": {"d": True}}, []])
def test_what_is_no_cpu_model_is_not_expanded(m, model):
    with pytest.raises(QmpError) as e:
        m.qmp.cmd("query-cpu-model-expansion", type="full", model=model)
    assert e.value.cls == "GenericError"


def test_accelerators_are_types(m):
    assert {"interp-accel", "tcg-accel", "qtest-accel"} <= {t["name"] for t in m.qmp.cmd("qom-list-types", implements="accel")}
    assert not {t["name"] for t in m.qmp.cmd("qom-list-types")} & {"kvm-accel", "hvf-accel"}
    assert "-accel" not in run("-object", "help")[1]


def test_migration_can_do_nothing_and_is_never_under_way(m):
    """That events of it are sent can be chosen, as programs do that find the command; all or nothing of a list is done."""
    assert m.qmp.cmd("query-migrate") == {}
    assert m.qmp.cmd("query-migrate-capabilities") == [{"capability": "events", "state": False}]
    for wrong in (5, [5], [{"capability": "events"}], [{"capability": "events", "state": True}, {"capability": "xbzrle", "state": True}]):
        with pytest.raises(QmpError):
            m.qmp.cmd("migrate-set-capabilities", capabilities=wrong)
    assert m.qmp.cmd("query-migrate-capabilities") == [{"capability": "events", "state": False}]
    m.qmp.cmd("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}, {"capability": "xbzrle", "state": False}])
    assert m.qmp.cmd("query-migrate-capabilities") == [{"capability": "events", "state": True}]


def test_random_input_never_ends_the_session(m):
    rng = random.Random(20)
    pieces = [b"{", b"}", b"[", b"]", b'"execute"', b":", b",", b'"query-status"', b'"id"', b"1", b"-", b"1e999", b"null", b"true", b'"\\u0000"', b'"\\ud800"',
              b"\xff", b"\x00", b"'a'", b" ", b"\n", b'"arguments"', b"//", b"\xc3\x28", b'"' + b"a" * 300 + b'"', b"[" * 40]
    for _ in range(300):
        text = b"".join(rng.choice(pieces) for _ in range(rng.randrange(1, 25)))
        if b'"quit"' not in text:
            m.qmp.send(text + b"\xff\n")
    m.qmp.send(b'{"execute": "query-status", "id": "the end"}')
    for _ in range(200000):
        if m.qmp.receive().get("id") == "the end":
            return
    assert False


def test_out_of_band_overtakes(m):
    q = reconnect(m, negotiate=False)
    assert q.request({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}) == {"return": {}}
    error = q.request({"exec-oob": "query-status", "id": 4})
    assert error["error"]["desc"] == "The command query-status does not support OOB" and error["id"] == 4


def test_monitor_for_a_person(board):
    assert board.qmp.hmp("info status") == "VM status: paused (prelaunch)\n"
    assert "no command begins with 'nosuch'" in board.qmp.hmp("help nosuch")
    assert "did you mean 'info status'" in board.qmp.hmp("info statsu")
    assert board.qmp.hmp("xp /2xw 0x1000").startswith("0000000000001000: 0x")
    assert "Cannot access memory at 0x10" in board.qmp.hmp("xp 0x10")
    tree = board.qmp.hmp("info qtree")
    assert tree.startswith("bus: main-system-bus\n  type System\n  dev: ")
    assert "\n      dev: gpex-root, id" in tree and "\n        class 060000, addr 00.0, pci id 1b36:0008" in tree
    assert "quit -- end the program" in board.qmp.hmp("help")


def test_monitor_edits_its_line(m):
    s = m.connect(m.hmp_path)
    text = b""
    while not text.endswith(b"(backplane) "):
        text += s.recv(4096)
    s.sendall(b"info statuX\x7fs\r\n")
    text = b""
    while not text.endswith(b"(backplane) "):
        text += s.recv(4096)
    assert b"VM status: running\r\n" in text
    s.sendall(b"quit\n")
    assert m.wait() == 0


@pytest.mark.parametrize("args,part", [
    (["-deviec", "x"], "did you mean '-device'?"), (["--pidfile"], "a value is missing"), (["-name=x"], "the value is a word of its own: -name x"),
    (["-display", "gtk"], "display 'gtk' is not in this build"), (["-uuid", "x"], "-uuid x: "), (["-compat", "x"], "-compat x: unknown value 'x'"),
    (["-action", "reboot=x"], "-action reboot=x: "), (["-mon", "chardev=no"], "-mon chardev=no: "),
    (["-pidfile", "/nonexistent/x"], "No such file or directory"), (["-object", "memory-backend-ram"], "'id' is missing"),
    (["-device", "no-such"], "no-such"),
])
def test_mistakes_on_the_command_line(args, part):
    status, _, err = run("-M", "none", *args)
    assert status == 1 and part in err, err


@pytest.mark.parametrize("args", [["-h"], ["--help"], ["-version"], ["-device", "help"], ["-object", "help"], ["-object", "memory-backend-ram,help"]])
def test_help_prints_and_ends(args):
    status, out, err = run(*args)
    assert status == 0 and out and not err


def test_pid_file_is_busy_while_the_machine_lives(tmp_path):
    pid = tmp_path / "pid"
    with Machine("-M", "none", "-pidfile", str(pid)) as m:
        assert int(pid.read_text()) == m.process.pid
        status, _, err = run("-M", "none", "-pidfile", str(pid))
        assert status == 1 and "in use by process %d" % m.process.pid in err
        m.qmp.cmd("quit")
        assert m.wait() == 0
    assert not pid.exists()


def test_out_of_band_overtakes_a_command_that_waits(m, tmp_path):
    """A node whose configuration comes through a pipe that nobody writes yet holds up what is asked in band, and nothing else."""
    q = reconnect(m, negotiate=False)
    assert q.request({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}) == {"return": {}}
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    q.send({"execute": "blockdev-add", "id": "slow", "arguments": {"driver": "blkdebug", "node-name": "slow", "config": pipe,
                                                                    "image": {"driver": "null-co", "size": 1 << 20}}})
    q.send({"execute": "query-name", "id": "quick"})
    q.send({"exec-oob": "no-such", "id": "oob"})
    assert q.answer()["id"] == "oob"
    with open(pipe, "w", encoding="ascii") as f:
        f.write('# which fail\n[inject-error]\nevent = "read_aio"\nerrno = "5"\nsector = "8"\nonce = "on"\n')
    assert q.answer() == {"return": {}, "id": "slow"}
    assert q.answer() == {"return": {}, "id": "quick"}
