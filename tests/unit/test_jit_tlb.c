/* SPDX-License-Identifier: MIT */
/*
 * Translated loads and stores through page tables: pages whose entries displace each other, fences of one page, fences in superpages,
 * what PMP takes away, the dirty bit, and code that is written under another address.
 */
#include "rv.h"
#include "jit_at_once.h"
#include <unistd.h>

enum { ADDI = 0x13, LD = 0x3003, SD = 0x3023, SW = 0x2023, FENCE_I = 0x100f, SFENCE_VMA = 0x12000073, HERE = 0x6f };
enum { S2 = 18, ROUNDS = 500, PAGES = 6, TABLES = RAM + 0x200000, SATP = 0x180, MSTATUS = 0x300, MENVCFG = 0x30a, MCAUSE = 0x342 };
enum { V = 1, R = 2, W = 4, A = 64, D = 128, TRAP = CODE + 0x800 };
#define MPRV_S (UINT64_C(1) << 17 | UINT64_C(1) << 11)
#define ADUE (UINT64_C(1) << 61)
#define APART (UINT64_C(16) << 20)      /* pages so far apart have the same place in the table of the fast check */
#define FAR_APART (UINT64_C(128) << 20) /* in the other one, too */

static uint64_t pc_now;
static void put(uint32_t insn)
{
    put_insn(pc_now, insn);
    pc_now += 4;
}

/* The leaf of @va: tables for the first GiB, a page for each 2 MiB of it. */
static uint64_t leaf(uint64_t va) { return TABLES + 0x2000 + (va >> 21) * 0x1000 + (va >> 12 & 511) * 8; }
static void map(uint64_t va, uint64_t pa, uint64_t bits)
{
    st_le64(at(TABLES + 0x1000 + (va >> 21) * 8), (leaf(va) >> 12) << 10 | V);
    st_le64(at(leaf(va)), pa >> 12 << 10 | bits);
}

/* A hart in M mode whose loads and stores are translated as S mode's, about to run what is put from here on. */
static struct hart *begin(void)
{
    struct hart *h = rv_harts(1, NULL, &accel_jit);
    memset(at(TABLES), 0, RAM + RAM_SIZE - TABLES);
    st_le64(at(TABLES), (uint64_t)(TABLES + 0x1000) >> 12 << 10 | V);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    set_csr(h, SATP, UINT64_C(8) << 60 | TABLES >> 12);
    set_csr(h, MSTATUS, MPRV_S);
    set_csr(h, MENVCFG, ADUE);
    set_csr(h, 0x305, TRAP);
    put_insn(TRAP, HERE);
    pc_now = CODE;
    return h;
}

/* A loop over pages @apart bytes from each other that adds up what lies at their beginnings; returns its end. */
static uint64_t sum_loop(struct hart *h, uint64_t apart)
{
    for (unsigned k = 0; k < PAGES; k++) {
        map(0x5000 + k * apart, DATA + k * 0x1000, V | R | W | A | D);
        st_le64(at(DATA + k * 0x1000), UINT64_C(1) << (8 * k));
        set_reg(h, S2 + k, 0x5000 + k * apart);
    }
    uint64_t loop = pc_now;
    for (unsigned k = 0; k < PAGES; k++) {
        put(enc_i(LD, A1, S2 + k, 0));
        put(enc_r(0x33, A0, A0, A1));
    }
    put(enc_i(ADDI, S0, S0, -1));
    put(enc_b(1, S0, ZERO, (int32_t)(loop - pc_now)));
    put(HERE);
    return pc_now - 4;
}

static void run_again(struct hart *h, uint64_t pc, uint64_t end, uint64_t want)
{
    set_reg(h, REG_PC, pc);
    set_reg(h, A0, 0);
    set_reg(h, S0, ROUNDS);
    hart_run_to(h, end);
    assert_int_equal(reg(h, A0), want * ROUNDS);
}

/* Pages displace each other from the first table, and come back without a walk; a fence of one page takes it out of both tables. */
static void test_displaced(void **state)
{
    struct hart *h = begin();
    put(SFENCE_VMA | S2 << 15);
    uint64_t end = sum_loop(h, APART);
    uint64_t all = UINT64_C(0x010101010101), fills = h->stats.tlb_fills;
    run_again(h, CODE + 4, end, all);
    assert_in_range(h->stats.tlb_fills - fills, PAGES, PAGES + 2);
    fills = h->stats.tlb_fills;
    map(0x5000, DATA + 0x7000, V | R | W | A | D);
    map(0x5000 + APART, DATA + 0x7000, V | R | W | A | D);
    st_le64(at(DATA + 0x7000), 3);
    run_again(h, CODE, end, all + 2);                       /* the other change is not asked for: what was known holds */
    assert_int_equal(h->stats.tlb_fills - fills, 1);
    set_reg(h, REG_PRIV, 3);
    set_reg(h, S2, 0x5000 + APART);
    set_reg(h, S2 + 1, 0x5000);
    run_again(h, CODE, end, all + 2 - 0x100 + 3);
}

/* Where both tables have one place for all of them, they are walked for, and right. */
static void test_both_displaced(void **state)
{
    struct hart *h = begin();
    uint64_t end = sum_loop(h, FAR_APART);
    run_again(h, CODE, end, UINT64_C(0x010101010101));
}

/*
 * A fence of one page of a superpage takes its other pages out of both tables: here from the second, since another page has displaced it
 * from the first. A leaf of 2 MiB, whose place is looked at alone, and one of 1 GiB.
 */
static void test_superpage(void **state)
{
    static const uint64_t bases[] = { UINT64_C(4) << 21, UINT64_C(1) << 30 };
    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++) {
        struct hart *h = begin();
        uint64_t root = TABLES, table = TABLES + 0x1000, va = bases[i] + (DATA - RAM), small = va & ((UINT64_C(1) << 30) - 1);
        st_le64(at(i ? root + 8 : table + (va >> 21) * 8), (uint64_t)RAM >> 12 << 10 | V | R | W | A | D);
        map(small + APART, DATA + 0x2000, V | R | W | A | D);
        st_le64(at(DATA), 1);
        st_le64(at(DATA + 0x1000), 2);
        put(SFENCE_VMA | S2 << 15);
        put(enc_i(LD, A1, A2, 0));
        put(enc_i(LD, A4, A3, 0));
        put(HERE);
        set_reg(h, S2, i ? va + 0x600000 : va + 0x3000);    /* the larger leaf is more than one of the regions that a fence looks at */
        set_reg(h, A2, va);
        set_reg(h, A3, small + APART);
        set_reg(h, REG_PC, CODE + 4);
        hart_run_to(h, CODE + 12);
        assert_int_equal(reg(h, A1), 1);
        map(small, DATA + 0x1000, V | R | W | A | D);
        st_le64(at(root + 8), table >> 12 << 10 | V);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, CODE + 12);
        assert_int_equal(reg(h, A1), 2);
    }
}

/* PMP takes writes to the first page away, from whatever table knew of them. */
static void test_pmp(void **state)
{
    struct hart *h = begin();
    map(0x5000, DATA, V | R | W | A | D);
    map(0x5000 + APART, DATA + 0x1000, V | R | W | A | D);
    put(enc_s(SD, A0, T0, 0));
    put(enc_s(SD, A1, T0, 0));
    put(enc_i(LD, A2, A0, 0));
    put(HERE);
    set_reg(h, A0, 0x5000);
    set_reg(h, A1, 0x5000 + APART);
    set_reg(h, T0, 77);
    set_reg(h, REG_PC, CODE);
    hart_run_to(h, CODE + 12);
    assert_int_equal(reg(h, A2), 77);
    set_csr(h, 0x3b0, DATA >> 2 | 0x1ff);
    set_csr(h, 0x3b1, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f19);                              /* the page: read; the rest: all */
    set_reg(h, T0, 78);
    set_reg(h, REG_PC, CODE);
    hart_run_to(h, TRAP);
    assert_int_equal(csr(h, MCAUSE), 7);
    set_csr(h, MSTATUS, MPRV_S);
    set_reg(h, REG_PC, CODE + 4);
    hart_run_to(h, CODE + 12);
    assert_int_equal(reg(h, A2), 77);
    assert_int_equal(ld_le64(at(DATA + 0x1000)), 78);
    for (unsigned i = 0; i < 2; i++) {                      /* what is allowed alone, not where */
        set_csr(h, 0x3a0, i ? 0x1f19 : 0x1f1f);
        set_csr(h, MSTATUS, MPRV_S);
        set_reg(h, REG_PC, CODE);
        set_csr(h, 0x305, CODE + 12);
        set_csr(h, MCAUSE, 0);
        hart_run_to(h, CODE + 12);
        assert_int_equal(csr(h, MCAUSE), i ? 7 : 0);
    }
}

/* Rights that differ within a page are asked for each time: a store, or a load, beside what they take away says nothing of it. */
static void test_pmp_within_a_page(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct hart *h = begin();
        map(0x5000, DATA, V | R | W | A | D);
        set_csr(h, 0x3b0, (DATA + 0x800) >> 2);
        set_csr(h, 0x3b1, UINT64_MAX);
        set_csr(h, 0x3a0, i ? 0x1f10 : 0x1f11);             /* four bytes: nothing, or to be read only */
        put(i ? enc_i(LD, T0, A0, 0) : enc_s(SD, A0, T0, 0));
        put(i ? enc_i(0x2003, T0, A1, 0) : enc_s(SW, A1, T0, 0));
        put(HERE);
        set_reg(h, A0, 0x5000);
        set_reg(h, A1, 0x5800);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, TRAP);
        assert_int_equal(csr(h, MCAUSE), i ? 5 : 7);
        assert_int_equal(csr(h, 0x341), CODE + 4);
    }
}

/* A page becomes dirty with a store, not with a load whose look at the TLB a later store shares. */
static void test_dirty(void **state)
{
    struct hart *h = begin();
    map(0x5000, DATA, V | R | W);
    put(enc_i(LD, A2, A0, 0));
    put(enc_i(LD, A3, A1, 0));
    put(enc_s(SD, A0, A2, 8));
    put(HERE);
    set_reg(h, A0, 0x5000);
    set_reg(h, A1, 0x7000);
    set_reg(h, REG_PC, CODE);
    hart_run_to(h, TRAP);
    assert_int_equal(csr(h, MCAUSE), 13);
    assert_int_equal(ld_le64(at(leaf(0x5000))) & (A | D), A);
    map(0x7000, DATA + 0x1000, V | R);
    set_csr(h, MSTATUS, MPRV_S);
    set_reg(h, REG_PC, CODE);
    hart_run_to(h, CODE + 12);
    assert_int_equal(ld_le64(at(leaf(0x5000))) & (A | D), A | D);
    assert_int_equal(ld_le64(at(leaf(0x7000))) & (A | D), A);
}

/* More address spaces than a hart remembers: what the last one gets was another's, and holds nothing of it. */
static void test_many_spaces(void **state)
{
    struct hart *h = begin();
    put(enc_i(LD, A1, A0, 0));
    put(HERE);
    set_reg(h, A0, 0x5000);
    for (uint64_t k = 0; k < 20; k++) {
        map(0x5000, DATA + k * 0x1000, V | R | A);
        st_le64(at(DATA + k * 0x1000), 100 + k);
        set_csr(h, SATP, UINT64_C(8) << 60 | (k + 1) << 44 | TABLES >> 12);     /* a number that was not used before needs no fence */
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, CODE + 4);
        assert_int_equal(reg(h, A1), 100 + k);
    }
}

/* A loop that reads a page and one that writes it remember it apart: the page is read only, and the store traps. */
static void test_loops(void **state)
{
    struct hart *h = begin();
    const uint64_t other = CODE + 0x1000;                   /* blocks do not go beyond a page */
    set_csr(h, 0x305, other + 12);
    map(0x5000, DATA, V | R | A);
    map(0x7000, DATA + 0x1000, V | R | W | A | D);
    put(enc_i(LD, A2, A0, 0));
    put(enc_i(ADDI, S0, S0, -1));
    put(enc_b(1, S0, ZERO, -8));
    put(enc_j(0, (int32_t)(other - pc_now)));
    pc_now = other;
    put(enc_s(SD, A0, T0, 0));
    put(enc_i(ADDI, T1, T1, -1));
    put(enc_b(1, T1, ZERO, -8));
    put(HERE);
    st_le64(at(DATA), 5);
    for (unsigned i = 0; i < 2; i++) {
        set_reg(h, A0, i ? 0x5000 : 0x7000);                /* once where all goes well: then it is translated */
        set_reg(h, S0, 3);
        set_reg(h, T0, 77);
        set_reg(h, T1, 3);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, other + 12);
    }
    assert_int_equal(csr(h, MCAUSE), 15);
    assert_int_equal(csr(h, 0x341), other);
    assert_int_equal(ld_le64(at(DATA)), 5);
}

/* Two pages that are neighbours only for the guest: 0x5000 and 0x6000. */
static uint64_t offset_of(uint64_t va) { return va < 0x6000 ? 0x3000 + (va - 0x5000) : 0x1000 + (va - 0x6000); }

static uint64_t load_of(const uint8_t *data, uint64_t va)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)data[offset_of(va + i)] << (8 * i);
    return v;
}

/* Accesses before and after their base has moved by a constant; or, where there is a branch, perhaps not. */
static void test_moved_base(void **state)
{
    static const int32_t steps[] = { 8, -8, 1000, -1000, 4 };
    static uint8_t data[0x4000];
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 0x9e3779b9u >> 24);
    for (unsigned n = 0; n < 3 * ARRAY_SIZE(steps); n++) {
        struct hart *h = begin();
        int32_t step = steps[n / 3];
        bool branch = n % 3, stays = n % 3 == 1;
        map(0x5000, DATA + 0x3000, V | R | W | A | D);
        map(0x6000, DATA + 0x1000, V | R | W | A | D);
        put(enc_i(LD, A1, A0, 0));
        if (branch)
            put(enc_b(1, T0, ZERO, 8));
        put(enc_i(ADDI, A0, A0, step));
        put(enc_i(LD, A2, A0, -8));
        put(enc_r(0x33, A3, A3, A1));
        put(enc_r(0x33, A3, A3, A2));
        put(enc_s(SD, A0, A3, 16));
        put(enc_i(ADDI, S0, S0, -1));
        put(enc_b(1, S0, ZERO, (int32_t)(CODE - pc_now)));
        put(HERE);
        for (uint64_t first = 0x6000 - 48; first < 0x6000 + 48; first += 8) {
            uint64_t a0 = first, sum = 0;
            memcpy(at(DATA), data, sizeof data);
            set_reg(h, A0, a0);
            set_reg(h, A3, 0);
            set_reg(h, T0, stays);
            set_reg(h, S0, 2);
            set_reg(h, REG_PC, CODE);
            hart_run_to(h, pc_now - 4);
            for (unsigned round = 0; round < 2; round++) {
                sum += load_of(data, a0);
                a0 += stays ? 0 : (uint64_t)(int64_t)step;
                sum += load_of(data, a0 - 8);
                for (unsigned i = 0; i < 8; i++)
                    data[offset_of(a0 + 16 + i)] = (uint8_t)(sum >> (8 * i));
            }
            assert_int_equal(reg(h, A0), a0);
            assert_int_equal(reg(h, A3), sum);
            assert_memory_equal(at(DATA), data, sizeof data);
        }
    }
}

/* Code is written through a page that another one displaces each time: the entry that comes back must know that the page is watched. */
static void test_code_displaced(void **state)
{
    struct hart *h = begin();
    const uint64_t function = RAM + 0x4000;
    map(0x5000, function, V | R | W | A | D);
    map(0x5000 + APART, DATA, V | R | W | A | D);
    for (unsigned k = 0; k < 2; k++) {
        put(enc_s(SW, A2, T1 + k, 0));
        put(enc_i(LD, A4, A3, 0));
        put(FENCE_I);
        put(enc_j(RA, (int32_t)(function - pc_now)));
        put(enc_i(LD, A4, A3, 0));
    }
    put(enc_i(ADDI, S0, S0, -1));
    put(enc_b(1, S0, ZERO, (int32_t)(CODE - pc_now)));
    put(HERE);
    put_insn(function + 4, enc_i(0x67, ZERO, RA, 0));
    set_reg(h, A2, 0x5000);
    set_reg(h, A3, 0x5000 + APART);
    set_reg(h, T1, enc_i(ADDI, A0, A0, 1));
    set_reg(h, T2, enc_i(ADDI, A0, A0, 3));
    run_again(h, CODE, pc_now - 4, 4);
}

/* Page types are none, and such an entry means nothing, once menvcfg does not have them. */
static void test_page_types(void **state)
{
    const uint64_t pbmte = UINT64_C(1) << 62, io = UINT64_C(2) << 61;
    for (unsigned i = 0; i < 2; i++) {
        struct hart *h = begin();
        map(0x5000, DATA, V | R | A | (i ? io : 0));
        set_csr(h, MENVCFG, pbmte);
        st_le64(at(DATA), 7);
        put(enc_i(LD, A1, A0, 0));
        put(HERE);
        set_reg(h, A0, 0x5000);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, CODE + 4);
        assert_int_equal(reg(h, A1), 7);
        set_csr(h, MENVCFG, 0);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, i ? TRAP : CODE + 4);
        assert_int_equal(csr(h, MCAUSE), i ? 13 : 0);
    }
}

/* ---- a device that changes the memory map ---- */

static struct region front, lever;
static uint64_t lever_read(void *opaque, uint64_t off, unsigned size)
{
    region_set_enabled(&front, false);
    return 0;
}
static void lever_write(void *opaque, uint64_t off, uint64_t v, unsigned size) { region_set_enabled(&front, v); }
static const struct mmio_ops lever_ops = { .read = lever_read, .write = lever_write, .lockless = true };

/* What is read after the store that changes the map is what is there then, though both loads have one base: and back, by a load. */
static void test_map_changes_between_loads(void **state)
{
    const uint64_t device = RAM + 0x10000000;
    region_init_ram(&front, "front", ram, DATA + 0x1000 - RAM, 0x1000);
    region_init_mmio(&lever, "lever", 0x1000, &lever_ops, NULL, NULL);
    region_set_enabled(&front, false);
    region_add(&root, DATA, &front, 1);
    region_add(&root, device, &lever, 0);
    struct hart *h = begin();
    set_csr(h, MSTATUS, 0);
    for (unsigned k = 0; k < 4; k++)
        st_le64(at(DATA + (k & 1) * 8 + (k >> 1) * 0x1000), k);
    put(enc_i(LD, A1, A0, 0));
    put(enc_s(SD, A2, T0, 0));
    put(enc_i(LD, A3, A0, 8));
    put(enc_i(LD, T1, A5, 8));
    put(enc_i(LD, A4, A0, 8));
    put(HERE);
    set_reg(h, A0, DATA);
    set_reg(h, A2, device);
    set_reg(h, A5, device);                                 /* by another base, or the two of the device would share a look */
    for (uint64_t on = 0; on < 4; on++) {
        set_reg(h, T0, on & 1);
        set_reg(h, REG_PC, CODE);
        hart_run_to(h, pc_now - 4);
        assert_int_equal(reg(h, A1), 0);
        assert_int_equal(reg(h, A3), on & 1 ? 3 : 1);
        assert_int_equal(reg(h, A4), 1);
    }
    region_del(&front);
    region_del(&lever);
    hart_set_free(set);
    set = NULL;
    region_fini(&front);
    region_fini(&lever);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_displaced), cmocka_unit_test(test_both_displaced), cmocka_unit_test(test_pmp), cmocka_unit_test(test_dirty),
        cmocka_unit_test(test_code_displaced), cmocka_unit_test(test_superpage), cmocka_unit_test(test_loops),
        cmocka_unit_test(test_many_spaces), cmocka_unit_test(test_moved_base), cmocka_unit_test(test_pmp_within_a_page),
        cmocka_unit_test(test_page_types), cmocka_unit_test(test_map_changes_between_loads),
    };
    int r = cmocka_run_group_tests(tests, rv_memory, NULL);
    if (set)
        hart_set_free(set);
    return r;
}
