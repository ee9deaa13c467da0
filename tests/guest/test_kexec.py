# SPDX-License-Identifier: MIT
"""A kernel starts the next one by kexec: no reset of the machine is between them, so that drivers meet controllers as the last ones left them."""
import os

import pytest

import guest
from test_storage_loops import DISKS, MIB, MODULES, check

ROUNDS = int(os.environ.get("BP_STORAGE_ROUNDS", "3"))
HEAD = 4096                             # of the image with the kernel: the marker of no disk
# Where the next kernel, its device tree and its initrd go: the places of the first kernel are free to be taken.
LOADER = r"""
import ctypes, struct, sys
disk, kernel_len, initrd_len = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
KERNEL, TREE, INITRD, PAGE = 0x80200000, 0x8e000000, 0x90000000, 4096
KEXEC_LOAD, REBOOT = 104, 142           # riscv64
with open(disk, "rb") as f:
    f.seek(4096)
    kernel, initrd = f.read(kernel_len), f.read(initrd_len)
tree = bytearray(open("/sys/firmware/fdt", "rb").read())
at, strings = struct.unpack_from(">II", tree, 8)
while True:                             # properties of the tree: those that say where the initrd is
    token = struct.unpack_from(">I", tree, at)[0]
    at += 4
    if token == 9:
        break
    if token == 1:
        at = (tree.index(b"\0", at) + 4) & ~3
    if token != 3:
        continue
    n, name = struct.unpack_from(">II", tree, at)
    name = bytes(tree[strings + name:tree.index(b"\0", strings + name)])
    new = {b"linux,initrd-start": INITRD, b"linux,initrd-end": INITRD + len(initrd)}.get(name)
    if new:
        tree[at + 8:at + 8 + n] = new.to_bytes(n, "big")
    at += 8 + (n + 3 & ~3)

class Segment(ctypes.Structure):
    _fields_ = [("buf", ctypes.c_char_p), ("size", ctypes.c_size_t), ("at", ctypes.c_size_t), ("room", ctypes.c_size_t)]

def segment(data, at, room=0):
    return Segment(bytes(data), len(data), at, (max(room, len(data)) + PAGE - 1) & -PAGE)

room = struct.unpack_from("<Q", kernel, 16)[0]
all3 = (Segment * 3)(segment(kernel, KERNEL, room), segment(tree, TREE), segment(initrd, INITRD))
libc = ctypes.CDLL(None, use_errno=True)
call = libc.syscall
call.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * 2 + [ctypes.c_void_p, ctypes.c_ulong]
if call(KEXEC_LOAD, KERNEL, 3, ctypes.cast(all3, ctypes.c_void_p), 0):
    sys.exit("kexec_load: errno %d" % ctypes.get_errno())
print("the next kernel is loaded")
if len(sys.argv) > 4:
    call(REBOOT, 0xfee1dead, 672274793, 0x45584543, 0)
"""


@pytest.fixture(name="m", scope="module")
def machine(tmp_path_factory):
    d = tmp_path_factory.mktemp("kexec")
    args = []
    for name, (size, device) in DISKS.items():
        image = guest.make_disk(d / name, size * MIB, name.encode().ljust(16) + b"".join(b"%015d\n" % i for i in range(1, 65536)))
        args += ["-drive", "file=%s,format=raw,if=none,id=%s" % (image, name), *device]
    args += ["-drive", "file=%s/next,format=raw,if=none,id=next,readonly=on" % d, "-device", "virtio-blk-pci,drive=next,serial=next"]
    m = guest.Machine(*args, modules=MODULES, root=True)
    with open(guest.path("vmlinux"), "rb") as k, open(m.file("initrd"), "rb") as i:
        parts = [k.read(), i.read()]
    m.lengths = [len(p) for p in parts]
    guest.make_disk(d / "next", (HEAD + sum(m.lengths) + MIB) & -MIB, bytes(HEAD) + b"".join(parts))
    with m:
        m.boot()
        m.count = 0
        yield m


def load(m, go):
    """Loads the next kernel, and starts it."""
    m.run("cat > /tmp/next.py << 'BP-END'\n%s\nBP-END" % LOADER.strip())
    disk = m.run("for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = next ] && echo /dev/${d##*/}; done; true")
    command = "python3 /tmp/next.py %s %d %d" % (disk, *m.lengths)
    if not go:
        return m.call(command, 120)
    m.send(command + " go\n")
    m.forget_shell()
    return None


def test_one_kernel_after_another(m):
    check(m)
    status, out = load(m, False)
    if status:
        pytest.skip("this guest's kernel cannot: " + out)
    for _ in range(ROUNDS):
        before = m.run("cat /proc/sys/kernel/random/boot_id")
        load(m, True)
        m.boot()
        assert m.run("cat /proc/sys/kernel/random/boot_id") != before
        check(m)
    log = m.run("dmesg -l emerg,alert,crit,err || true")
    assert not [line for line in log.splitlines() if "I/O error" in line or "timeout" in line.lower()], log
