# SPDX-License-Identifier: MIT
"""The worked examples of README.md are run as they are written."""
import os
import re
import subprocess

import pytest

import guest


def examples():
    with open(os.path.join(guest.ROOT, "README.md"), encoding="utf-8") as f:
        return re.findall(r"<!-- example: (\w+) -->\n```sh\n(.*?)```", f.read(), re.S)


def test_there_are_five():
    assert len(examples()) == 5


@pytest.mark.parametrize("name,text", examples(), ids=[n for n, _ in examples()])
def test_example(name, text, tmp_path):
    os.makedirs(tmp_path / "build")
    os.symlink(guest.EMULATOR, tmp_path / "build" / "backplane")
    p = subprocess.run(["sh", "-e", "-c", text], cwd=tmp_path, env=dict(os.environ, GUEST=guest.DIR), stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=180, check=False)
    assert p.returncode == 0, p.stdout[-3000:]
    out = p.stdout
    if name == "control":
        with open(tmp_path / "console.log", encoding="utf-8", errors="replace") as f:
            out = f.read()
    assert "BP-GUEST-DONE rc=0" in out
