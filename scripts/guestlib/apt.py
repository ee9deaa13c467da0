# SPDX-License-Identifier: MIT
"""Debian packages of another architecture, through apt with a state directory of its own: the host stays as it is."""
import fnmatch
import glob
import os
import subprocess

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

CONF = """\
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
Dir "{top}";
Dir::State "{top}/state";
Dir::State::status "{top}/status";
Dir::Cache "{top}/cache";
Dir::Etc "{top}/etc";
Dir::Etc::sourcelist "{top}/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::parts "-";
Dir::Etc::trusted "{keyring}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
pkgCacheGen::Essential "none";
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""


class AptError(Exception):
    """apt did not do what it was asked; the text is its last lines."""


class Apt:
    """One suite of Debian for one architecture, its state under TOP."""

    def __init__(self, top, suite, arch="riscv64"):
        self.top, self.suite = os.path.abspath(top), suite
        for d in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "debs"):
            os.makedirs(os.path.join(self.top, d), exist_ok=True)
        open(os.path.join(self.top, "status"), "a").close()
        with open(os.path.join(self.top, "etc/sources.list"), "w") as f:
            f.write("deb [arch=%s signed-by=%s] %s %s main\n" % (arch, KEYRING, MIRROR, suite))
        self.conf = os.path.join(self.top, "apt.conf")
        with open(self.conf, "w") as f:
            f.write(CONF.format(top=self.top, arch=arch, keyring=KEYRING))

    def _run(self, *args, cwd=None):
        env = dict(os.environ, APT_CONFIG=self.conf, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")
        p = subprocess.run(args, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, check=False)
        if p.returncode:
            raise AptError("%s (suite %s): %s" % (" ".join(args[:4]), self.suite, "\n".join(p.stdout.splitlines()[-6:])))
        return p.stdout

    def update(self):
        """Fetches the suite's index; raises AptError when the mirror is out of sync or out of reach."""
        self._run("apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any")

    def versions(self):
        """Every package name of the suite with the newest version."""
        out = {}
        name = None
        for line in self._run("apt-cache", "dumpavail").splitlines():
            if line.startswith("Package: "):
                name = line[9:]
            elif line.startswith("Version: "):
                out[name] = line[9:]
        return out

    def depends(self, package):
        """Names in the Depends of PACKAGE (alternatives included)."""
        out = []
        for line in self._run("apt-cache", "depends", "--important", package).splitlines():
            kind, _, name = line.strip().lstrip("|").partition(": ")
            if kind.endswith("Depends") and not name.startswith("<"):
                out.append(name)
        return out

    def closure(self, packages, never=()):
        """PACKAGES and what they depend on as names, less those that match a pattern in NEVER."""
        out = []
        for line in self._run("apt-get", "-q", "-s", "install", *packages).splitlines():
            word = line.split()
            if len(word) > 1 and word[0] == "Inst" and not any(fnmatch.fnmatch(word[1], n) for n in never):
                out.append(word[1])
        return out

    def download(self, packages):
        """Fetches PACKAGES (those not there yet) and returns {name: path of the .deb}."""
        debs = os.path.join(self.top, "debs")
        self._run("apt-get", "-q", "download", *packages, cwd=debs)
        found = {}
        for name in packages:
            hits = sorted(glob.glob(os.path.join(debs, name + "_*.deb")), key=os.path.getmtime)
            if not hits:
                raise AptError("%s: no .deb after the download" % name)
            found[name] = hits[-1]
        return found


def unpack(deb, into, exclude=()):
    """Unpacks a .deb's files (no maintainer script runs), following the links of a merged /usr."""
    os.makedirs(into, exist_ok=True)
    tar = ["tar", "-x", "-C", into, "--keep-directory-symlink", "--no-same-owner", "--delay-directory-restore"]
    tar += ["--exclude=" + e for e in exclude]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as p:
        subprocess.run(tar, stdin=p.stdout, check=True)
    if p.returncode:
        raise AptError("cannot unpack " + deb)
