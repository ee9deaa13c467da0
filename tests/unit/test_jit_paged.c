/* SPDX-License-Identifier: MIT */
/*
 * Random programs in S and U mode under page tables (paged_program.h), on the interpreter, on the translator (as it is; with a cache that
 * holds a few programs; with check=on), and on a reference that forgets every translation before each instruction. All must end with the
 * same registers, memory and page tables, and have taken the same traps after as many instructions.
 * BP_SEED and BP_PROGRAMS choose others; BP_ALL=1 runs each on every translator; BP_DUMP=1 shows the program that differs.
 */
#include "paged_program.h"
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include "cpu/riscv/jit_int.h"

enum { REF, INTERP, JIT, JIT_SMALL, JIT_CHECK, SETS };

struct outcome { uint64_t reg[65], csr[9]; uint8_t low[LOW_SIZE], high[HIGH_SIZE]; };
static const unsigned compared[9] = { 0x300, 0x341, 0x342, 0x343, 0x141, 0x142, 0x143, 0x180, 0x144 };
static const char *const names[SETS] = { "reference", "interpreter", "translator", "translator, small cache", "translator, check=on" };
static struct hart_set *sets[SETS];
static unsigned traps[16];

/* ---- the reference ---- */

static bool ref_init(struct hart *h, struct err *e) { return true; }
static void ref_fini(struct hart *h) { }
static void ref_flush_page(struct hart *h, uint64_t pa) { }
static void ref_flush_all(struct hart *h) { }
static void ref_run(struct hart *h)
{
    while (hart_poll(h))
        while (h->budget > 0) {
            rv_tlb_flush_all(h);
            rv_pmp_changed(h);
            interp_step(h);
            rv_irq_take(h);
        }
}

static const struct accel_ops reference = { .name = "ref", .desc = "", .init = ref_init, .fini = ref_fini, .run = ref_run,
                                            .flush_page = ref_flush_page, .flush_all = ref_flush_all };

static int setup(void **state)
{
    struct err e = ERR_INIT;
    size_t cache = jit_options.cache;
    rv_memory(state);
    json_t *none = json_object();
    struct obj *cpu = obj_create(obj_class_find("rv64"), NULL, none, obj_container("cpu-model"), &e);
    assert_non_null(cpu);
    json_decref(none);
    for (unsigned i = 0; i < SETS; i++) {
        jit_options.cache = i == JIT_SMALL ? 384 << 10 : cache;
        jit_options.check = i == JIT_CHECK;
        const struct accel_ops *accel = i == REF ? &reference : i == INTERP ? &accel_interp : &accel_jit;
        struct hart_set_config cfg = { .cpu = (struct rv_cpu *)cpu, .accel = accel, .env = &rv_env, .count = 1 };
        sets[i] = hart_set_new(&cfg, &e);
        assert_non_null(sets[i]);
    }
    jit_options.check = false;
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < SETS; i++)
        hart_set_free(sets[i]);
    return 0;
}

/* ---- running ---- */

static bool ended(struct hart *h) { return (hart_pc(h) & ~(uint64_t)V_USER) == end_at; }

static void run(unsigned which, const uint64_t *f, unsigned times, const uint64_t *x, uint64_t mideleg, struct outcome *o)
{
    struct hart *h = hart_get(sets[which], 0);
    rv_code_attach(sets[which]);
    hart_set_start(h, 1, MAIN - RAM + V_CODE, 0, 0);
    for (unsigned i = 0; i < 32; i++) {
        if (i)
            set_reg(h, i, x[i]);
        set_reg(h, REG_F0 + i, f[i]);
    }
    set_reg(h, TIMES, times);
    set_reg(h, LOGGED, 0);
    set_reg(h, S1, 0);
    set_reg(h, RA, end_at);
    set_csr(h, 0x300, (UINT64_C(3) << 13) | (UINT64_C(1) << 11));
    set_csr(h, 0x302, x[0] & 0xb0ff);
    set_csr(h, 0x303, mideleg);
    set_csr(h, 0x304, 2);
    set_csr(h, 0x305, M_CODE);
    set_csr(h, 0x105, S_CODE - RAM + V_CODE);
    set_csr(h, 0x306, 7);
    set_csr(h, 0x106, 7);
    set_csr(h, 0x10a, ENVCFG_CBZE);
    set_csr(h, 0x30a, ENVCFG_CBZE | (x[0] & 0x10000 ? ENVCFG_ADUE : 0));
    set_csr(h, 0x3b0, POOL >> 2);
    set_csr(h, 0x3b1, POOL >> 2);
    set_csr(h, 0x3b2, BIT64(54) - 1);
    set_csr(h, 0x3a0, 0x1f0000);
    set_csr(h, 0x180, satp(0));
    set_csr(h, 0xb02, 0);
    hart_power(h, true);
    UNTIL(ended(h), harts_run(sets[which]));
    hart_power(h, false);
    for (unsigned i = 0; i < 65; i++)
        o->reg[i] = reg(h, i);
    for (unsigned i = 0; i < 9; i++)
        o->csr[i] = csr(h, compared[i]);
    memcpy(o->low, at(RAM), LOW_SIZE);
    memcpy(o->high, at(HIGH), HIGH_SIZE);
}

static void explain_log(const char *mode, const struct outcome *a, const struct outcome *b, unsigned off)
{
    const uint8_t *o[] = { a->low + off, b->low + off };
    for (unsigned i = 0; i < LOG_SIZE; i += LOG_ENTRY, o[0] += LOG_ENTRY, o[1] += LOG_ENTRY)
        if (memcmp(o[0], o[1], LOG_ENTRY)) {
            for (unsigned k = 0; k < 2; k++)
                print_message("%s-mode trap %u: cause %" PRIu64 " pc 0x%" PRIx64 " value 0x%" PRIx64 " after %" PRIu64 "\n", mode,
                              i / LOG_ENTRY, ld_le64(o[k]), ld_le64(o[k] + 8), ld_le64(o[k] + 16), ld_le64(o[k] + 24));
            return;
        }
}

static void explain(const struct outcome *a, const struct outcome *b)
{
    for (unsigned i = 0; i < 65; i++)
        if (a->reg[i] != b->reg[i])
            print_message("register %u: 0x%" PRIx64 ", 0x%" PRIx64 "\n", i, a->reg[i], b->reg[i]);
    for (unsigned i = 0; i < 9; i++)
        if (a->csr[i] != b->csr[i])
            print_message("CSR 0x%x: 0x%" PRIx64 ", 0x%" PRIx64 "\n", compared[i], a->csr[i], b->csr[i]);
    explain_log("M", a, b, M_LOG - RAM);
    explain_log("S", a, b, S_LOG - RAM);
    for (unsigned i = 0, n = 0; i < LOW_SIZE + HIGH_SIZE && n < 8; i += 8) {
        const uint8_t *x = i < LOW_SIZE ? a->low + i : a->high + (i - LOW_SIZE), *y = i < LOW_SIZE ? b->low + i : b->high + (i - LOW_SIZE);
        if (memcmp(x, y, 8) && ++n)
            print_message("memory at 0x%x: 0x%" PRIx64 ", 0x%" PRIx64 "\n", i < LOW_SIZE ? RAM + i : HIGH + i - LOW_SIZE, ld_le64(x),
                          ld_le64(y));
    }
}

/* All that was logged on both sides, and the program. */
static void dump(const struct outcome *a, const struct outcome *b)
{
    for (unsigned i = M_LOG - RAM; i < S_LOG - RAM + LOG_SIZE; i += LOG_ENTRY) {
        print_message("%c %u:", i < S_LOG - RAM ? 'M' : 'S', i % LOG_SIZE / LOG_ENTRY);
        for (unsigned k = 0; k < 8; k++)
            print_message(k == 4 ? " | %" PRIx64 : " %" PRIx64, ld_le64((k < 4 ? a : b)->low + i + k % 4 * 8));
        print_message("\n");
    }
    for (uint64_t pa = MAIN; pa <= end_at - V_CODE + RAM;) {
        struct rv_insn in;
        char text[80];
        rv_decode(ld_le32(at(pa)), RV_EXT_ALL, &in);
        rv_disas(&in, pa - RAM + V_CODE, text, sizeof text);
        print_message("%08" PRIx64 "  %s\n", pa - RAM + V_CODE, text);
        pa += in.len;
    }
}

static void count_traps(const struct outcome *o)
{
    for (unsigned i = M_LOG - RAM; i < S_LOG - RAM + LOG_SIZE; i += LOG_ENTRY)
        if (ld_le64(o->low + i + 24))
            traps[ld_le64(o->low + i) & 15]++;
}

static void one_program(unsigned number, bool all)
{
    static const unsigned thresholds[] = { 0, 1, 4, 100 }, lengths[] = { JIT_INSNS, JIT_INSNS, 5 };
    static struct outcome first, o;
    static uint8_t low[LOW_SIZE], high[HIGH_SIZE];
    uint64_t x[32], f[32], my_seed = seed, mideleg = below(2) ? 0x222 : 0;
    make_program();
    for (unsigned i = 0; i < 32; i++) {
        x[i] = below(3) ? rnd() >> below(64) : below(2) ? (uint64_t)-1 : 0;
        f[i] = rnd() | (below(2) ? UINT64_C(0xffffffff00000000) : 0);
    }
    memcpy(low, at(RAM), LOW_SIZE);
    memcpy(high, at(HIGH), HIGH_SIZE);
    for (unsigned i = 0; i < POOL_PAGES * 0x1000; i += 8) {
        st_le64(low + (POOL - RAM) + i, rnd());
        st_le64(high + (POOL - RAM) + i, rnd());
    }
    unsigned times = 1 + below(below(3) ? 4 : 12), which = JIT + below(3);
    jit_options.threshold = thresholds[below(4)];
    jit_options.insns = lengths[below(3)];
    for (unsigned i = 0; i < SETS; i++) {
        if (i >= JIT && !all && i != which)
            continue;
        if (i >= JIT)
            memset(((struct jit *)hart_get(sets[i], 0)->accel_data)->cool, 0, sizeof ((struct jit *)0)->cool);
        memcpy(at(RAM), low, LOW_SIZE);
        memcpy(at(HIGH), high, HIGH_SIZE);
        run(i, f, times, x, mideleg, i ? &o : &first);
        if (!i)
            count_traps(&first);
        if (i && memcmp(&first, &o, sizeof o)) {
            explain(&first, &o);
            if (getenv("BP_DUMP"))
                dump(&first, &o);
            fail_msg("program %u, BP_SEED=0x%" PRIx64 ": the %s is not as the %s", number, my_seed, names[i], names[REF]);
        }
    }
}

static void test_paged_programs(void **state)
{
    unsigned n = getenv("BP_PROGRAMS") ? (unsigned)atoi(getenv("BP_PROGRAMS")) : 120;
    if (getenv("BP_SEED"))
        seed = strtoull(getenv("BP_SEED"), NULL, 0);
    print_message("first BP_SEED=0x%" PRIx64 "\n", seed);
    for (unsigned i = 0; i < n; i++)
        one_program(i, getenv("BP_ALL"));
    for (unsigned i = 0; i < 16; i++)
        if (traps[i])
            print_message("cause %u: %u\n", i, traps[i]);
    static const unsigned causes[] = { 2, 5, 7, 8, 9, 12, 13, 15 };
    for (unsigned i = 0; i < 8 && n >= 100; i++)
        assert_in_range(traps[causes[i]], n / 60, UINT_MAX);        /* or they test less than they say */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_paged_programs) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
