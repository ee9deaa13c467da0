# SPDX-License-Identifier: MIT
"""Events that a guest can cause as often as it likes reach monitors once a second, the latest of them."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.virtio import DEVICE, VirtioMachine


def test_a_guest_cannot_flood_a_monitor(tmp_path):
    with VirtioMachine(tmp_path, "-nodefaults", "-device", "virtio-balloon-pci,addr=4") as m:
        fn = m.fn(4)
        assert fn.negotiate()
        fn.start()
        everything = m.qmp.cmd("query-balloon")["actual"]

        def inflate(pages):
            fn.set(4, 4, pages, DEVICE)
            assert m.qmp.cmd("query-balloon")["actual"] == everything - 4096 * pages

        start = time.monotonic()
        for pages in range(1, 6):
            inflate(pages)
        m.qmp.cmd("stop")
        m.qmp.wait_event("STOP")                        # others are not held up
        seen = []
        while not seen or seen[-1] != everything - 5 * 4096:
            seen.append(m.qmp.wait_event("BALLOON_CHANGE")["data"]["actual"])
        seconds = time.monotonic() - start
        assert seen[0] == everything - 4096 and 2 <= len(seen) <= seconds + 1.2, (seen, seconds)
        m.qmp.cmd("query-status")
        assert not [e for e in m.qmp.events if e["event"] == "BALLOON_CHANGE"]
