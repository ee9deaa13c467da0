/* SPDX-License-Identifier: MIT */
/* The PLIC against a second implementation that is written for clearness: every context looks at every source. */
#include "hw.h"
#include "hw/riscv/plic.h"

enum { HARTS = 3, SOURCES = 70, CTX = HARTS * 2 };

static struct { unsigned prio[128], thresh[CTX]; bool level[128], pending[128], claimed[128], enable[CTX][128]; } o;

static unsigned oracle_best(unsigned c, unsigned above)
{
    unsigned best = 0;
    for (unsigned s = 1; s <= SOURCES; s++)
        if (o.pending[s] && o.enable[c][s] && o.prio[s] > above && (!best || o.prio[s] > o.prio[best]))
            best = s;
    return best;
}

static void check_all(void)
{
    for (unsigned c = 0; c < CTX; c++)
        assert_int_equal(hw_line[c], oracle_best(c, o.thresh[c]) != 0);
    for (unsigned s = 1; s <= SOURCES; s++)
        assert_int_equal(r32(0x1000 + s / 32 * 4) >> (s & 31) & 1, o.pending[s]);
}

static void op(struct sys_dev *d)
{
    unsigned s = 1 + hw_rand(SOURCES), c = hw_rand(CTX), v = hw_rand(8);
    switch (hw_rand(7)) {
    case 0:
        w32(s * 4, v | 0xf0);
        o.prio[s] = v;
        break;
    case 1:
        w32(0x200000 + c * 0x1000, v);
        o.thresh[c] = v;
        break;
    case 2: {
        uint64_t at = 0x2000 + c * 0x80 + s / 32 * 4, old = r32(at);
        w32(at, old ^ 1u << (s & 31));
        o.enable[c][s] = !o.enable[c][s];
        break;
    }
    case 3:
    case 4: {
        struct irq i = plic_input(d, s);
        o.level[s] = v & 1;
        irq_set(&i, v & 1);
        if (o.level[s] && !o.claimed[s])
            o.pending[s] = true;
        break;
    }
    case 5: {
        unsigned best = oracle_best(c, 0);
        assert_int_equal(r32(0x200004 + c * 0x1000), best);
        if (best) {
            o.pending[best] = false;
            o.claimed[best] = true;
        }
        break;
    }
    default:
        w32(0x200004 + c * 0x1000, s);
        if (o.enable[c][s]) {
            o.claimed[s] = false;
            o.pending[s] |= o.level[s];
        }
    }
}

static void test_against_oracle(void **state)
{
    const char *const opts[][2] = { { "num-harts", "3" }, { "num-sources", "70" }, { NULL, NULL } };
    struct sys_dev *d = hw_dev("riscv.sifive.plic", opts, CTX);
    for (unsigned i = 0; i < 20000; i++) {
        op(d);
        check_all();
    }
    hw_remove(d);
}

static void test_bounds(void **state)
{
    const char *const opts[][2] = { { "num-harts", "3" }, { "num-sources", "70" }, { NULL, NULL } };
    struct sys_dev *d = hw_dev("riscv.sifive.plic", opts, CTX);
    w32(0x2000, UINT32_MAX);
    w32(0x2008, UINT32_MAX);
    w32(0x200c, UINT32_MAX);
    assert_int_equal(r32(0x2000), 0xfffffffe);      /* source 0 does not exist */
    assert_int_equal(r32(0x2008), 0x7f);            /* 64..70 */
    assert_int_equal(r32(0x200c), 0);
    w32(0, 7);
    w32(71 * 4, 7);
    assert_int_equal(r32(0), 0);
    assert_int_equal(r32(71 * 4), 0);
    w32(0x200000 + 6 * 0x1000, 5);                  /* a context that does not exist */
    assert_int_equal(r32(0x200000 + 6 * 0x1000), 0);
    w32(0x5ffffc, 5);
    uint64_t v;
    assert_false(as_read(&as_memory, HW_DEV, &v, 1));
    assert_false(as_read(&as_memory, HW_DEV, &v, 8));
    hw_remove(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_against_oracle, hw_setup), cmocka_unit_test(test_bounds),
    };
    hw_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
