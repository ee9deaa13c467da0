# SPDX-License-Identifier: MIT
"""Writes the "newc" cpio archives that Linux takes as an initramfs; needs no root and no mknod."""
import os
import stat


class Archive:
    """An archive in memory. Entries appear in the order they are added, parents first (dir() adds missing ones)."""

    def __init__(self):
        self._parts = []
        self._names = set()
        self._ino = 0

    def _entry(self, name, mode, data=b"", rdev=(0, 0), nlink=1):
        self._ino += 1
        raw = name.encode() + b"\0"
        fields = [self._ino, mode, 0, 0, nlink, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self._parts += [head, b"\0" * (-len(head) % 4), data, b"\0" * (-len(data) % 4)]
        self._names.add(name)

    def dir(self, path, mode=0o755):
        """Adds a directory and the missing ones above it."""
        path = path.strip("/")
        if not path or path in self._names:
            return
        self.dir(os.path.dirname(path))
        self._entry(path, stat.S_IFDIR | mode, nlink=2)

    def file(self, path, data, mode=0o644):
        """Adds a regular file that holds data (bytes)."""
        self.dir(os.path.dirname(path))
        self._entry(path.strip("/"), stat.S_IFREG | mode, data)

    def link(self, path, target):
        """Adds a symbolic link."""
        self.dir(os.path.dirname(path))
        self._entry(path.strip("/"), stat.S_IFLNK | 0o777, target.encode())

    def node(self, path, major, minor, mode=0o600):
        """Adds a character device node."""
        self.dir(os.path.dirname(path))
        self._entry(path.strip("/"), stat.S_IFCHR | mode, rdev=(major, minor))

    def bytes(self):
        """The whole archive, padded to 512 bytes so that another may follow it."""
        parts, names = list(self._parts), set(self._names)
        self._entry("TRAILER!!!", 0)
        out = b"".join(self._parts)
        self._parts, self._names = parts, names
        return out + b"\0" * (-len(out) % 512)
