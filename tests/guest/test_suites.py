# SPDX-License-Identifier: MIT
"""Well-known programs compute what is known, on two and four harts and with counted time; tests/nightly does the same for longer."""
import pytest

import guest
import suites


@pytest.mark.parametrize("harts, args", [(2, ()), (4, ()), (1, ("-icount", "shift=auto"))])
def test_programs(harts, args, tmp_path):
    with guest.Machine("-smp", str(harts), *args, root=True, scripts=suites.files()) as m:
        m.boot()
        suites.digests(m, 50000)
        suites.python(m, 2)
        suites.database(m, tmp_path)
        suites.stress(m, harts, 1)


def test_checked_boot():
    """Debian comes to its shell while each block that is translated is compared with the interpreter."""
    with guest.Machine("-accel", "jit,check=on") as m:
        m.boot()
        assert m.run("seq 1 1000 | md5sum") == "53d025127ae99ab79e8502aae2d9bea6  -"
