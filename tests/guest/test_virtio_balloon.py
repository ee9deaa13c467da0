# SPDX-License-Identifier: MIT
"""virtio-balloon under Linux: the process gets smaller, the guest too, statistics, free pages that are reported."""
import re
import time

import pytest

import guest


RAM_MIB = 272          # no other mapping has this size


def resident(m):
    """MiB of the guest's memory that the host holds: of the one mapping that has its size."""
    with open("/proc/%d/smaps" % m.proc.pid, encoding="ascii", errors="replace") as f:
        text = f.read()
    (kib,) = re.findall(r"^Size:\s+%d kB\n(?:\w+:.*\n)*?Rss:\s+(\d+) kB" % (RAM_MIB << 10), text, re.M)
    return int(kib) >> 10


def until(condition, seconds=40):
    end = time.monotonic() + seconds * guest.SCALE
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


# 64 MiB of a file in memory that is not zero.
FILL = ("mkdir -p /mnt; mount -t tmpfs -o size=100m none /mnt; [ -e /tmp/1 ] || dd if=/dev/urandom of=/tmp/1 bs=64k count=16 2>/dev/null; "
        "for i in 0 1 2 3 4 5 6 7; do cat /tmp/1 /tmp/1 /tmp/1 /tmp/1 /tmp/1 /tmp/1 /tmp/1 /tmp/1; done >/mnt/x")


@pytest.fixture(scope="module", params=["virtio-balloon-pci", "virtio-balloon-device"])
def lab(request, tmp_path_factory):
    d = str(tmp_path_factory.mktemp("balloon"))
    args = ["-qmp", "unix:%s/qmp,server=on,wait=off" % d, "-device", request.param + ",id=bal,free-page-reporting=on"]
    if request.param.endswith("-device"):                       # and memory that others could share
        args += ["-object", "memory-backend-memfd,id=ram,size=%dM,share=on" % RAM_MIB, "-M", "memory-backend=ram"]
    with guest.Machine(*args, modules=["virtio_mmio", "virtio_balloon"], memory="%dM" % RAM_MIB) as m:
        m.boot()
        m.q = guest.Qmp(d + "/qmp")
        yield m
        m.q.close()


def test_memory_comes_back_to_the_host(lab):
    m = lab
    m.run(FILL, 120)
    full = resident(m)
    assert full > 100
    # Free page reporting: the file goes, and most of its 64 MiB with it, without a word to the balloon. Blocks of 2 MiB are reported,
    # when nothing in them is in use.
    m.run("rm /mnt/x; umount /mnt")
    assert until(lambda: resident(m) < full - 25), (resident(m), full)
    # The balloon: half of the machine.
    m.q.cmd("balloon", value=128 << 20)
    assert until(lambda: m.q.cmd("query-balloon")["actual"] == 128 << 20), m.q.cmd("query-balloon")
    assert int(re.search(r"MemTotal:\s+(\d+)", m.run("grep MemTotal /proc/meminfo")).group(1)) < 130 << 10
    assert resident(m) < 140, resident(m)
    # Events come at most once a second, and are read along with answers.
    assert until(lambda: m.q.cmd("query-balloon") and any(e["event"] == "BALLOON_CHANGE" for e in m.q.events)), m.q.events
    assert "actual=128" in m.q.cmd("human-monitor-command", command_line="info balloon")
    m.q.cmd("human-monitor-command", command_line="balloon %d" % RAM_MIB)
    assert until(lambda: m.q.cmd("query-balloon")["actual"] == RAM_MIB << 20)
    m.run(FILL, 120)                                            # what came back is good memory
    m.run("tail -c 1048576 /mnt/x | cmp - /tmp/1 && head -c 1048576 /mnt/x | cmp - /tmp/1; umount /mnt")


def test_statistics(lab):
    path = "/machine/peripheral/bal"
    lab.q.cmd("qom-set", path=path, property="guest-stats-polling-interval", value=1)

    def stats():
        return lab.q.cmd("qom-get", path=path, property="guest-stats")["stats"]

    assert until(lambda: stats()["stat-total-memory"] > 0)
    kib = int(re.search(r"MemTotal:\s+(\d+)", lab.run("grep MemTotal /proc/meminfo")).group(1))
    assert abs(stats()["stat-total-memory"] - (kib << 10)) < 8 << 20
    assert 0 < stats()["stat-free-memory"] < RAM_MIB << 20
    assert "virtio" not in lab.run("dmesg -l emerg,alert,crit,err,warn || true")
