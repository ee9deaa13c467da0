# SPDX-License-Identifier: MIT
"""
Random changes of graphs in use: snapshots, commits, streams, mirrors and backups, right and wrong ones, started, paused, hurried and
cancelled at any moment, while a peer writes over NBD. A disk reads as the model says whatever happens below it; so do the copies
of jobs that ended well, and the images once the program has ended. BP_FUZZ_ROUNDS and BP_FUZZ_FIRST choose other seeds.
"""
import os
import random
import shutil
import time

import pytest

from lib.chaos import seeds
from lib.images import MIB, check, content, create, fill
from lib.machine import TIMEOUT, Machine
from lib.nbd import Client, Cmd

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img") or not shutil.which("qemu-io"), reason="no qemu-utils")

SIZE, UNIT, STEPS = MIB, 4096, 60
OVER = ("aborting", "concluded", "null")        # a job that reads and writes no more, and of whose end was told
# What brings a job to its end, or nearer to it.
NEXT = {"ready": "job-complete", "pending": "job-finalize", "concluded": "job-dismiss", "paused": "job-resume", "standby": "job-resume"}


class Nbd:
    """A disk of SIZE bytes over NBD, and what it must read as."""

    def __init__(self, path, name, data):
        self.name, self.data = name, bytearray(data)
        self.client = Client(path, structured=False)
        self.client.export_name(name)

    def write(self, off, n, byte):
        """Zeroes go as WRITE_ZEROES, which may leave holes."""
        data = bytes([byte]) * n
        assert self.client.ask(Cmd.WRITE if byte else Cmd.WRITE_ZEROES, off, n, data=data if byte else b"") == 0
        self.data[off:off + n] = data

    def verify(self):
        got = self.client.read(0, SIZE)
        assert got == self.data, "%s differs from %#x on" % (self.name, next(i for i in range(SIZE) if got[i] != self.data[i]))


class Run:
    """The machine of one seed: what was done is in .trace, copies of jobs that ended well in .copies."""

    def __init__(self, m, rng, folder, disks):
        self.m, self.rng, self.folder, self.disks = m, rng, folder, disks
        self.count, self.trace, self.copies, self.expected, self.endless, self.manual = 0, [], {}, {}, set(), set()

    def path(self, name):
        return str(self.folder / name)

    def fresh(self, prefix):
        self.count += 1
        return "%s%d" % (prefix, self.count)

    def ask(self, name, **arguments):
        """Whether the command was obeyed; events that came with it are followed."""
        answer = self.m.qmp.request({"execute": name, "arguments": arguments})
        if not name.startswith("query"):
            self.trace.append((name, arguments, answer.get("error", {}).get("desc", "ok")))
        self.follow()
        return answer.get("return")

    def follow(self):
        """A job that ended well made a copy of what its disk held at its beginning (backup) or holds at its end (mirror)."""
        for e in self.m.qmp.events:
            if e["event"] == "BLOCK_JOB_COMPLETED" and e["data"]["device"] in self.expected:
                path, disk, moment = self.expected.pop(e["data"]["device"])
                if "error" not in e["data"]:
                    self.copies[path] = moment or bytes(disk.data)
        self.m.qmp.events.clear()

    # -- what there is

    def disk(self, name):
        return next(d for d in self.disks if d.name == name)

    def tops(self):
        return {e["id"]: e["node-name"] for e in self.ask("query-block-exports")}

    def node(self):
        """Any image in the machine; mostly one that is a disk's top."""
        if self.rng.random() < 0.5:
            return self.rng.choice(list(self.tops().values()))
        return self.rng.choice([n["node-name"] for n in self.ask("query-named-block-nodes") if n["drv"] in ("qcow2", "raw")])

    def jobs(self):
        return {j["id"]: j for j in self.ask("query-jobs")}

    def some(self, **choices):
        """Some of the optional arguments."""
        return {k.replace("_", "-"): v() for k, v in choices.items() if self.rng.random() < 0.3}

    def job(self):
        job = {"job-id": self.fresh("j"), **self.some(auto_finalize=lambda: False, auto_dismiss=lambda: False, speed=lambda: self.rng.choice((1, 65536)))}
        if "auto-finalize" in job:
            self.manual.add(job["job-id"])
        return job

    # -- steps

    def write(self):
        disk = self.rng.choice(self.disks)
        off = self.rng.randrange(0, SIZE, UNIT)
        n, byte = min(self.rng.choice((UNIT, 65536, 300 * 1024)), SIZE - off), self.rng.choice((0, self.rng.randrange(256)))
        self.trace.append(("write", disk.name, off, n, byte))
        disk.write(off, n, byte)

    def snapshot(self):
        name = self.fresh("s")
        self.ask("blockdev-snapshot-sync", **{"node-name": self.node(), "snapshot-file": self.path(name), "snapshot-node-name": name})

    def commit(self):
        self.ask("block-commit", device=self.node(), **self.some(top_node=self.node, base_node=self.node), **self.job())

    def stream(self):
        self.ask("block-stream", device=self.node(), **self.some(base_node=self.node), **self.job())

    def copy(self, command, **more):
        """Arguments of a job that makes a new image, of which we may know what it will hold."""
        device, name, job = self.node(), self.fresh("c"), self.job()
        sync = self.rng.choice(("full", "full", "top", "none"))
        disk = next((self.disk(name) for name, top in self.tops().items() if top == device), None)
        fmt = self.rng.choice(("qcow2", "raw") if sync == "full" else ("qcow2",))
        if command == "drive-backup" and sync == "none":
            self.endless.add(job["job-id"])     # it waits for what will be overwritten
        known = disk and sync == "full" and (self.path(name), disk, bytes(disk.data) if command == "drive-backup" else None)
        return {"device": device, "target": self.path(name), "format": fmt, "sync": sync, **job, **more}, known

    def mirror(self):
        args, known = self.copy("drive-mirror", **self.some(copy_mode=lambda: "write-blocking", granularity=lambda: self.rng.choice((512, 65536))))
        if self.ask("drive-mirror", **args) is not None and known:
            self.expected[args["job-id"]] = known

    def backup(self):
        self.transact([self.copy("drive-backup")], {})

    def group(self):
        self.transact([self.copy("drive-backup"), self.copy("drive-backup")], {"completion-mode": self.rng.choice(("grouped", "individual"))})

    def transact(self, copies, properties):
        """EXPECTED is filled before: a job's end may come with the answer."""
        before = dict(self.expected)
        self.expected.update({args["job-id"]: known for args, known in copies if known})
        if self.ask("transaction", actions=[{"type": "drive-backup", "data": args} for args, _ in copies], properties=properties) is None:
            self.expected = before

    def verb(self):
        """Anything that can be asked of a job. A mirror that ends is waited for, so that we know what it copied."""
        jobs = self.jobs()
        if not jobs:
            return
        job = self.rng.choice(list(jobs))
        name = self.rng.choice(("job-pause", "job-resume", "job-cancel", "job-complete", "job-complete", "job-finalize", "job-dismiss",
                                "block-job-cancel", "block-job-set-speed"))
        ends = name in ("job-complete", "block-job-cancel", "job-finalize") and jobs[job]["type"] in ("mirror", "commit")
        if name == "job-complete" and jobs[job]["status"] == "ready" and jobs[job]["type"] == "mirror":
            self.expected.pop(job, None)        # its copy becomes the disk
        more = {"speed": self.rng.choice((0, 1, MIB))} if name == "block-job-set-speed" else {}
        if self.ask(name, **{"device" if name.startswith("block-job") else "id": job, **more}) is not None and ends:
            over = OVER + ("pending",) if job in self.manual and name != "job-finalize" else OVER
            self.until(lambda: self.jobs().get(job, {"status": "null"})["status"] in over, lambda: self.hurry(job))

    def hurry(self, job):
        self.ask("job-resume", id=job)
        self.ask("block-job-set-speed", device=job, speed=0)

    def until(self, test, push):
        end = time.monotonic() + TIMEOUT
        while not test():
            assert time.monotonic() < end, self.jobs()
            push()
            time.sleep(0.002)

    def push_all(self):
        """Every job a step nearer to its end."""
        for job, j in self.jobs().items():
            self.hurry(job)
            if j["status"] in NEXT:
                self.ask(NEXT[j["status"]], id=job)
            elif job in self.endless:
                self.ask("job-cancel", id=job)

    STEPS = {write: 8, snapshot: 3, commit: 4, stream: 4, mirror: 3, backup: 2, group: 1, verb: 10}

    def steps(self, n):
        kinds = list(self.STEPS)
        for step in self.rng.choices(kinds, [self.STEPS[k] for k in kinds], k=n):
            step(self)
            for d in self.disks:
                d.verify()
        self.expected = {}                      # mirrors are completed now: what they copied becomes the disk
        self.until(lambda: not self.jobs(), self.push_all)
        for d in self.disks:
            d.verify()


def make(folder, rng, chain):
    """A chain of images: the options of its nodes, from the base up; the top's name and what that reads as."""
    args, below, data = [], None, bytearray(SIZE)
    for level in range(rng.randrange(1, 4)):
        name, fmt = "%s%d" % (chain, level), "qcow2" if below else rng.choice(("qcow2", "raw"))
        create(folder / name, str(SIZE), below and folder / below[0], fmt=fmt, backing_fmt=below and below[1])
        at, n, byte = rng.randrange(0, SIZE // 2, UNIT), rng.choice((UNIT, 65536, SIZE // 2)), rng.randrange(1, 256)
        fill(folder / name, (byte, at, n), fmt=fmt)
        data[at:at + n] = bytes([byte]) * n
        args += ["-blockdev", "%s,node-name=%s,file.driver=file,file.filename=%s%s" % (fmt, name, folder / name, ",backing=" + below[0] if below else "")]
        below = name, fmt
    return args, name, data


def image_format(path):
    with open(path, "rb") as f:
        return "qcow2" if f.read(4) == b"QFI\xfb" else "raw"


@pytest.mark.parametrize("seed", seeds(3))
def test_disks_are_what_was_written_to_them(tmp_path, seed):
    rng = random.Random(seed)
    chains = [make(tmp_path, rng, chain) for chain in "ab"]
    with Machine("-M", "none", *sum([args for args, _, _ in chains], [])) as m:
        nbd = os.path.join(m.dir, "nbd")
        m.qmp.cmd("nbd-server-start", addr={"type": "unix", "data": {"path": nbd}})
        for _, top, _ in chains:
            m.qmp.cmd("block-export-add", type="nbd", id=top, name=top, node_name=top, writable=True)
        r = Run(m, rng, tmp_path, [Nbd(nbd, top, data) for _, top, data in chains])
        try:
            r.steps(STEPS)
        except Exception as e:
            raise AssertionError("seed %d: %r after\n%s" % (seed, e, "\n".join(map(str, r.trace)))) from e
        files = {n["node-name"]: n["file"] for n in m.qmp.cmd("query-named-block-nodes")}
        tops = {files[top]: r.disk(name).data for name, top in r.tops().items()}
        m.qmp.cmd("quit")
        assert m.wait() == 0
    for path, data in [*tops.items(), *r.copies.items()]:
        assert content(path, image_format(path)) == data, path
    for path in [p for p in tmp_path.iterdir() if image_format(p) == "qcow2"]:
        check(path)
