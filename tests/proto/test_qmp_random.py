# SPDX-License-Identifier: MIT
"""Random commands made of the schema, right and wrong ones: each is answered, the machine lives, and it ends without a leak (under ASan)."""
import os
import random
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.machine import Machine

SECONDS = float(os.environ.get("BP_FUZZ_SECONDS", "8"))
ROUNDS = int(os.environ.get("BP_FUZZ_ROUNDS", "3000"))
# They end the session, write without bound or are no business of a test.
LEFT_OUT = {"quit", "pmemsave", "memsave", "human-monitor-command", "qmp_capabilities", "add-fd", "exit-preconfig", "x-exit-preconfig"}
# Of what a command would wait for, or where it would go.
FIXED = {"wait": False, "host": "127.0.0.1", "reconnect": 0, "timeout": 0, "mem-path": "/nonexistent/memory"}
NAMES = ["a", "b", "disk", "net", "chr", "ser", "rng", "", "/machine", "/machine/peripheral/a", "virtio-rng-device", "virtio-blk-device", "virtio-net-device", "type",
         "x" * 300, "a.b", "\u00e4", "null-co", "raw", "on", "0", "fd:a", "file:core"]
NUMBERS = [0, 1, -1, 2, 3, 7, 512, 4096, 65536, 1 << 20, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 1 << 70]
LINES = ["info ", "device_add ", "device_del ", "x /4x ", "xp /2i ", "p ", "object_add ", "sum ", "cpu ", "qom-list ", "netdev_add ", "set_link ", "log ", "info qtree ", "nope "]


class Maker:
    """Values of the schema's types, now and then spoilt."""

    def __init__(self, schema, rng):
        self.types = {t["name"]: t for t in schema}
        self.rng = rng
        self.commands = [t for t in schema if t["meta-type"] == "command" and t["name"] not in LEFT_OUT]

    def junk(self):
        return self.rng.choice([None, True, 1.5, self.rng.choice(NAMES), self.rng.choice(NUMBERS), [], {}, [[[]]], {"a": {"b": []}}])

    def value(self, name, depth=0):
        t = self.types.get(name)
        if t is None or depth > 6 or self.rng.random() < 0.02:
            return self.junk()
        kind = t["meta-type"]
        if kind == "builtin":
            return {"string": lambda: self.rng.choice(NAMES), "boolean": lambda: self.rng.random() < 0.5, "int": lambda: self.rng.choice(NUMBERS),
                    "number": lambda: self.rng.choice(NUMBERS)}.get(t["json-type"], self.junk)()
        if kind == "enum":
            return self.rng.choice(t.get("values") or [m["name"] for m in t["members"]] or [""])
        if kind == "array":
            return [self.value(t["element-type"], depth + 1) for _ in range(self.rng.randrange(3))]
        if kind == "alternate":
            return self.value(self.rng.choice(t["members"])["type"], depth + 1)
        return self.members(t, depth) if kind == "object" else self.junk()

    def members(self, t, depth):
        out = {}
        for m in t["members"]:
            if ("default" not in m or self.rng.random() < 0.2) and self.rng.random() < 0.97:
                out[m["name"]] = FIXED.get(m["name"], None) if m["name"] in FIXED else self.value(m["type"], depth + 1)
        for v in t.get("variants", []):
            if v["case"] == out.get(t.get("tag")) and v["type"] in self.types:
                out.update(self.members(self.types[v["type"]], depth + 1))
        if self.rng.random() < 0.02:
            out[self.rng.choice(NAMES)] = self.junk()
        return out

    def command(self):
        if self.rng.random() < 0.1:
            line = self.rng.choice(LINES) + " ".join(str(self.rng.choice(NAMES + NUMBERS)) for _ in range(self.rng.randrange(3)))
            return {"execute": "human-monitor-command", "arguments": {"command-line": line}}
        c = self.rng.choice(self.commands)
        return {"execute": c["name"], "arguments": self.value(c["arg-type"])}


@pytest.mark.parametrize("seed", [1, 2])
def test_random_commands(tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)             # files get names without a folder
    with Machine("-M", "virt", "-m", "8M", "-bios", "none", "-S", "-serial", "null", "-chardev", "null,id=chr", "-netdev", "user,id=net",
                 "-blockdev", "null-co,node-name=disk,size=1M", "-object", "rng-random,id=rng", "-accel", "interp") as m:
        maker = Maker(m.qmp.cmd("query-qmp-schema"), random.Random(seed))
        end, done, sent = time.monotonic() + SECONDS / 2, 0, None
        while done < ROUNDS and time.monotonic() < end:
            sent = maker.command()
            try:
                answer = m.qmp.request(sent)
            except (EOFError, OSError, ValueError) as e:
                raise AssertionError("seed %d, command %d: %s: %r" % (seed, done, str(sent)[:2000], e)) from e
            assert ("return" in answer) != ("error" in answer), sent
            done += 1
            m.qmp.events.clear()
        assert done > 5
        m.qmp.cmd("quit")
        assert m.wait() == 0, m.process.stdout.read().decode(errors="replace")[-4000:]
