# SPDX-License-Identifier: MIT
"""Makes the initramfs and the root image out of unpacked packages."""
import gzip
import os
import shutil
import subprocess

from . import apt, cpio

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest")
NO_DOCS = ("./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "./usr/share/info/*", "./usr/share/lintian/*",
           "./usr/share/bug/*", "./usr/share/i18n/*", "./usr/share/zoneinfo/*", "./usr/share/icons/*",
           "./usr/lib/*/gconv/*", "./usr/share/fonts/*")
FOLDERS = ("proc", "sys", "dev", "tmp", "run", "root", "etc", "mnt", "scripts")


def read_list(name):
    """The words of a list in scripts/guest, without comments."""
    words = []
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        for line in f:
            words += line.split("#")[0].split()
    return words


def _own_files():
    """(path in the guest, path on the host, mode) of the files that this project adds."""
    yield "init", os.path.join(HERE, "init"), 0o755
    yield "etc/profile", os.path.join(HERE, "profile"), 0o644
    yield "etc/udhcpc.script", os.path.join(HERE, "udhcpc.script"), 0o755
    for name in sorted(os.listdir(os.path.join(HERE, "scripts"))):
        yield "scripts/" + name, os.path.join(HERE, "scripts", name), 0o755


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def base_archive(busybox):
    """The initramfs without modules: busybox, the init script, the scripts that bp.script= can name."""
    a = cpio.Archive()
    for d in FOLDERS:
        a.dir(d)
    a.node("dev/console", 5, 1)
    a.node("dev/null", 1, 3, 0o666)
    a.file("bin/busybox", _read(busybox), 0o755)
    a.link("bin/sh", "busybox")
    a.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    a.file("etc/group", b"root:x:0:\n")
    for path, host, mode in _own_files():
        a.file(path, _read(host), mode)
    return a.bytes()


def module_archive(modules, wanted, release):
    """An archive to append to the base: the modules WANTED with their needs, and the modules.dep that finds them."""
    a = cpio.Archive()
    order = modules.closure(wanted)
    top = "lib/modules/" + release
    for n in order:
        a.file("%s/kernel/%s.ko" % (top, n), modules.data(n))
    a.file(top + "/modules.dep", modules.dep_lines(order).encode())
    return a.bytes()


def write_gz(path, data):
    """Writes DATA compressed, the same bytes every time."""
    with open(path, "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, compresslevel=6, filename="") as z:
        z.write(data)


def module_folder(modules, wanted, folder):
    """Fills FOLDER with the modules WANTED and their needs, decompressed, and modules.dep; returns their names."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, "kernel"))
    order = modules.closure(wanted)
    for n in order:
        with open(os.path.join(folder, "kernel", n + ".ko"), "wb") as f:
            f.write(modules.data(n))
    with open(os.path.join(folder, "modules.dep"), "w", encoding="utf-8") as f:
        f.write(modules.dep_lines(order))
    return order


def root_tree(debs, tree):
    """Unpacks DEBS into TREE, adds the init script and what maintainer scripts would have made."""
    shutil.rmtree(tree, ignore_errors=True)
    for d in FOLDERS + ("usr/bin", "usr/sbin", "usr/lib"):
        os.makedirs(os.path.join(tree, d))
    for name in ("bin", "sbin", "lib"):
        os.symlink("usr/" + name, os.path.join(tree, name))
    for deb in debs:
        apt.unpack(deb, tree, NO_DOCS)
    for path, text in (("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
                       ("etc/group", "root:x:0:\n"), ("etc/hostname", "guest\n"),
                       ("etc/hosts", "127.0.0.1 localhost guest\n")):
        with open(os.path.join(tree, path), "w", encoding="utf-8") as f:
            f.write(text)
    for path, host, mode in _own_files():
        shutil.copyfile(host, os.path.join(tree, path))
        os.chmod(os.path.join(tree, path), mode)
    if not os.path.exists(os.path.join(tree, "usr/bin/busybox")):
        raise apt.AptError("the root image has no busybox")
    if not os.path.lexists(os.path.join(tree, "usr/bin/sh")):
        os.symlink("busybox", os.path.join(tree, "usr/bin/sh"))


def ext4(tree, out, spare=192 << 20):
    """Writes an ext4 image OUT that holds TREE and SPARE free bytes; sparse, made without root or a mount."""
    used = 0
    for folder, dirs, files in os.walk(tree):
        used += 4096 * (len(dirs) + len(files))
        for n in files:
            p = os.path.join(folder, n)
            used += 0 if os.path.islink(p) else os.path.getsize(p)
    size = (used * 115 // 100 + spare + (64 << 20)) >> 20
    tmp = out + ".tmp"
    if os.path.exists(tmp):
        os.unlink(tmp)
    env = dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-L", "guest-root", "-E", "root_owner=0:0", "-d", tree, tmp, "%dM" % size],
                   check=True, env=env, stdin=subprocess.DEVNULL)
    os.rename(tmp, out)
