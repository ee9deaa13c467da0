# SPDX-License-Identifier: MIT
"""Finds kernel modules and what they depend on by reading the modules themselves (no depmod, no kernel running)."""
import lzma
import gzip
import os
import re


def _canonical(name):
    return name.replace("-", "_")


def load(path):
    """The bytes of a module, decompressed."""
    with open(path, "rb") as f:
        data = f.read()
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".gz"):
        return gzip.decompress(data)
    return data


class Modules:
    """The modules under usr/lib/modules/VERSION of an unpacked kernel package."""

    def __init__(self, tree):
        self.tree = tree
        self._paths = {}
        for folder, _, names in os.walk(os.path.join(tree, "kernel")):
            for n in names:
                m = re.match(r"(.+)\.ko(\.xz|\.gz)?$", n)
                if m:
                    self._paths[_canonical(m.group(1))] = os.path.join(folder, n)
        self._cache = {}
        self._deps = {}
        self._aliases = None

    def __contains__(self, name):
        return _canonical(name) in self._paths

    def data(self, name):
        """The bytes of module NAME, decompressed (kept: each module is read once)."""
        key = _canonical(name)
        if key not in self._cache:
            self._cache[key] = load(self._paths[key])
        return self._cache[key]

    def deps(self, name):
        """Names that must be loaded before NAME: hard ones, and the soft "pre" ones that exist."""
        key = _canonical(name)
        if key not in self._deps:
            self._deps[key] = self._read_deps(key)
        return self._deps[key]

    def _read_deps(self, name):
        data = self.data(name)
        found = []
        for m in re.finditer(rb"(?<=\0)depends=([^\0]*)\0", data):
            found += [d for d in m.group(1).decode().split(",") if d]
        for m in re.finditer(rb"(?<=\0)softdep=([^\0]*)\0", data):
            pre = re.search(r"pre:\s*(.*?)(?:\s*post:|$)", m.group(1).decode())
            found += self._providers(pre.group(1).split() if pre else [])
        return [_canonical(d) for d in found if d in self]

    def _providers(self, names):
        """The modules for NAMES, each the name of a module or, as with the "crc32c" of ext4, an alias that ciphers and checksums give themselves."""
        if any(n not in self for n in names) and self._aliases is None:
            self._aliases = {}
            for key, path in self._paths.items():
                if os.path.relpath(path, self.tree).split(os.sep)[1] == "crypto":
                    for m in re.finditer(rb"(?<=\0)alias=([^\0]*)\0", self.data(key)):
                        self._aliases.setdefault(_canonical(m.group(1).decode()), []).append(key)
        return [p for n in names for p in ([n] if n in self else (self._aliases or {}).get(_canonical(n), []))]

    def closure(self, names):
        """NAMES that exist, with all that they need, each after what it needs."""
        order, busy = [], set()

        def visit(n):
            if n in busy or n in order:
                return
            busy.add(n)
            for d in self.deps(n):
                visit(d)
            busy.discard(n)
            order.append(n)

        for n in names:
            if n in self:
                visit(_canonical(n))
        return order

    def dep_lines(self, order):
        """The text of a modules.dep for the modules in ORDER, all in one flat folder "kernel/"."""
        lines = []
        for n in order:
            need = [d for d in self.closure([n]) if d != n]
            lines.append("kernel/%s.ko:%s\n" % (n, "".join(" kernel/%s.ko" % d for d in reversed(need))))
        return "".join(lines)
