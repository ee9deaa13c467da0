# SPDX-License-Identifier: MIT
"""The nightly tests boot the image of programs (scripts/programs-fetch) and use what the guest tests use."""
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "guest"), os.path.join(ROOT, "bench")]


@pytest.fixture(scope="session", autouse=True)
def have_image():
    subprocess.run([os.path.join(ROOT, "scripts", "programs-fetch")], check=True)
