# SPDX-License-Identifier: MIT
"""Errors that blkdebug injects reach the guest's disk, and only where they are told to."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib.nvme import RAM
from lib.virtio import VirtioMachine, disk_read

DATA = RAM + 0x800000


@pytest.mark.parametrize("image", [
    ("-drive", "file=blkdebug:CONFIG:null-co://,file.align=4k,if=none,id=d,format=raw"),
    ("-drive", "file=blkdebug:CONFIG:null-co://,file.image.size=1M,if=none,id=d,format=raw"),
    ("-blockdev", "blkdebug,node-name=d,image.driver=null-co,inject-error.0.event=read_aio,inject-error.0.sector=8,inject-error.0.once=on"),
    ("-blockdev", "blkdebug,node-name=d,image.driver=null-co,inject-error.0.iotype=read,inject-error.0.sector=8,inject-error.0.once=on"),
])
def test_one_read_of_one_sector_fails_once(tmp_path, image):
    config = tmp_path / "config"
    config.write_text('[inject-error]\nevent = "read_aio"\nsector = "8"\nonce = "on"\n')
    with VirtioMachine(tmp_path, "-nodefaults", image[0], image[1].replace("CONFIG", str(config)),
                       "-device", "virtio-blk-pci,drive=d,addr=4") as m:
        fn = m.fn(4)
        assert fn.negotiate()
        vq = fn.queue(0)
        fn.start()
        seen = []
        for sector in (7, 8, 8, 9):
            status = disk_read(fn, vq, sector, DATA)
            vq.wait()
            seen.append(fn.q.read(status, 1)[0])
        assert seen == [0, 1, 0, 0]
