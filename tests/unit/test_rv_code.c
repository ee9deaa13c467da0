/* SPDX-License-Identifier: MIT */
/* What must notice a store: reservations, fetched code after fence.i, the log of written code pages; and what a fence costs. */
#include "rv.h"
#include <unistd.h>
#include "cpu/riscv/mmu.h"

enum { LR_D = 0x1000302f, SC_D = 0x1800302f, LR_W = 0x1000202f, SC_W = 0x1800202f, AMOADD_D = 0x0000302f, AMOCAS_D = 0x2800302f, SD = 0x3023, SB = 0x23, LD = 0x3003, ADDI = 0x13, FENCE_I = 0x100f };
#define X UINT64_C(0x1122334455667788)

/* What the other hart (or a device) does between LR and SC. */
static void nothing(struct hart *o) { }
static void other(struct hart *o, uint32_t insn)
{
    put_insn(CODE + 0x800, insn);
    set_reg(o, REG_PC, CODE + 0x800);
    step(o);
    assert_int_equal(reg(o, REG_PC), CODE + 0x804);
}
static void store_and_back(struct hart *o)
{
    set_reg(o, T0, 1);
    other(o, enc_s(SD, A0, T0, 0));
    set_reg(o, T0, X);
    other(o, enc_s(SD, A0, T0, 0));
}
static void store_same(struct hart *o)
{
    set_reg(o, T0, X);
    other(o, enc_s(SD, A0, T0, 0));
}
static void store_byte(struct hart *o)
{
    set_reg(o, T0, X >> 56);
    other(o, enc_s(SB, A0, T0, 7));
}
static void store_misaligned(struct hart *o)
{
    set_reg(o, T0, X << 8);             /* the word before is 0 */
    other(o, enc_s(SD, A0, T0, -1));
}
static void amo_zero(struct hart *o)
{
    set_reg(o, T0, 0);
    other(o, enc_r(AMOADD_D, T1, A0, T0));
}
static void cas_same(struct hart *o)
{
    set_reg(o, T0, X);
    set_reg(o, T1, X);
    other(o, enc_r(AMOCAS_D, T1, A0, T0));
}
static void dma_same(struct hart *o)
{
    uint64_t v = X;
    assert_true(as_write_bytes(&as_memory, DATA + 8, &v, 8));
}
static void store_elsewhere(struct hart *o)
{
    set_reg(o, T2, DATA + 0x10000);
    other(o, enc_s(SD, T2, T0, 0));
}

/* What stores nothing breaks nothing: two harts whose SCs fail would else keep each other from ever storing. */
static void cas_fails(struct hart *o)
{
    set_reg(o, T0, 1);
    set_reg(o, T1, 2);
    other(o, enc_r(AMOCAS_D, T1, A0, T0));
    assert_int_equal(reg(o, T1), X);
}
static void sc_without_lr(struct hart *o)
{
    other(o, enc_r(SC_D, T1, A0, T0));
    assert_int_equal(reg(o, T1), 1);
}
/* Both harts track the page, this one's SC comes too late. */
static void sc_fails(struct hart *o)
{
    put_insn(CODE + 0x800, enc_r(LR_D, T1, A1, 0));
    put_insn(CODE + 0x804, enc_i(LD, T2, A1, 0));
    put_insn(CODE + 0x808, enc_r(SC_D, T1, A0, T0));    /* elsewhere than the LR */
    set_reg(o, A1, DATA + 16);
    set_reg(o, REG_PC, CODE + 0x800);
    for (unsigned i = 0; i < 3; i++)
        step(o);
    assert_int_equal(reg(o, REG_PC), CODE + 0x80c);
    assert_int_equal(reg(o, T1), 1);
}

/* LR at DATA + 8, @middle, what the other does, SC: whether SC succeeded. Each hart has its fast store path to the page first. */
static bool sequence(uint32_t middle, void (*meanwhile)(struct hart *))
{
    struct hart *h = hart_get(set, 0), *o = hart_get(set, 1);
    for (unsigned i = 0; i < 2; i++) {
        struct hart *w = hart_get(set, i);
        set_reg(w, A0, DATA + 8);
        set_reg(w, A1, DATA + 0x2000);
        set_reg(w, T0, X);
        for (unsigned k = 0; k < 2; k++)
            exec(w, enc_s(SD, A0, T0, 0));
    }
    put_insn(CODE + 0x100, enc_r(LR_D, A2, A0, 0));
    put_insn(CODE + 0x104, middle);
    put_insn(CODE + 0x108, enc_r(SC_D, A4, A0, A5));
    set_reg(h, A5, 99);
    set_reg(h, REG_PC, CODE + 0x100);
    step(h);
    assert_int_equal(reg(h, A2), X);
    step(h);
    meanwhile(o);
    step(h);
    assert_int_equal(reg(h, REG_PC), CODE + 0x10c);
    assert_int_equal(ld_le64(at(DATA + 8)), reg(h, A4) ? X : 99);
    bool ok = reg(h, A4) == 0;
    exec(h, enc_r(SC_D, A4, A0, A5));
    assert_int_equal(reg(h, A4), 1);    /* a reservation serves once */
    return ok;
}

static void test_reservations(void **state)
{
    static void (*const breakers[])(struct hart *) = { store_and_back, store_same, store_byte, store_misaligned, amo_zero, cas_same, dma_same };
    uint32_t load = enc_i(LD, A3, A1, 0), own_store = enc_s(SD, A0, T1, 64), add = enc_i(ADDI, A3, A3, 1);
    rv_harts(2, NULL, NULL);
    assert_true(sequence(load, nothing));
    assert_true(sequence(own_store, nothing));
    assert_true(sequence(add, nothing));
    assert_true(sequence(load, store_elsewhere));
    static void (*const keepers[])(struct hart *) = { cas_fails, sc_without_lr, sc_fails };
    for (size_t i = 0; i < sizeof keepers / sizeof *keepers; i++) {
        assert_true(sequence(load, keepers[i]));
        assert_true(sequence(own_store, keepers[i]));
    }
    for (size_t i = 0; i < sizeof breakers / sizeof *breakers; i++) {
        assert_false(sequence(load, breakers[i]));
        assert_false(sequence(own_store, breakers[i]));
        assert_true(sequence(load, nothing));
    }
}

/* With computation only in between, a store that changes the value is noticed; and SC elsewhere is no part of the sequence. */
static void test_plain_sequences(void **state)
{
    struct hart *h = rv_harts(2, NULL, NULL), *o = hart_get(set, 1);
    set_reg(h, A0, DATA);
    set_reg(o, A0, DATA);
    put_insn(CODE, enc_r(LR_D, A2, A0, 0));
    put_insn(CODE + 4, 0x00b61463);                     /* bne a2, a1, 8 */
    put_insn(CODE + 8, enc_r(SC_D, A4, A0, A5));
    put_insn(CODE + 0x20, enc_r(SC_D, A4, A0, A5));
    for (unsigned changed = 0; changed < 2; changed++) {
        set_reg(h, REG_PC, CODE);
        step(h);
        assert_int_equal(h->res_pc, CODE + 8);
        step(h);
        set_reg(o, T0, 5);
        if (changed)
            other(o, enc_s(SD, A0, T0, 0));
        step(h);
        assert_int_equal(reg(h, A4), changed);
        st_le64(at(DATA), 0);
    }
    set_reg(h, REG_PC, CODE);
    step(h);
    set_reg(h, REG_PC, CODE + 0x20);
    step(h);
    assert_int_equal(reg(h, A4), 1);
}

/* An SC stores nothing where LR has read another place, or another size, whether its value alone decides or its page is tracked. */
static void test_other_place_or_size(void **state)
{
    static const uint32_t pair[][2] = { { LR_W, SC_D }, { LR_D, SC_W }, { LR_W, SC_W } };
    static const uint32_t middle[] = { ADDI, LD | A1 << 15 | A3 << 7 };
    struct hart *h = rv_harts(1, NULL, NULL);
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < 2; k++) {
            st_le64(at(DATA), 5);                       /* the same as a word and as two */
            put_insn(CODE, enc_r(pair[i][0], A2, A0, 0));
            put_insn(CODE + 4, middle[k]);
            put_insn(CODE + 8, enc_r(pair[i][1], A4, A0, A5));
            set_reg(h, A0, DATA);
            set_reg(h, A1, DATA + 0x2000);
            set_reg(h, A5, 6);
            set_reg(h, REG_PC, CODE);
            for (unsigned n = 0; n < 3; n++)
                step(h);
            assert_int_equal(reg(h, A4), i < 2);
            assert_int_equal(ld_le64(at(DATA)), i < 2 ? 5 : 6);
        }
    for (unsigned k = 0; k < 2; k++) {                  /* nor elsewhere, though the value is the same */
        put_insn(CODE, enc_r(LR_D, A2, A1, 0));
        put_insn(CODE + 4, middle[k]);
        put_insn(CODE + 8, enc_r(SC_D, A4, A0, A5));
        st_le64(at(DATA + 0x2000), 0);
        st_le64(at(DATA), 0);
        set_reg(h, REG_PC, CODE);
        for (unsigned n = 0; n < 3; n++)
            step(h);
        assert_int_equal(reg(h, A4), 1);
        assert_int_equal(ld_le64(at(DATA)), 0);
    }
}

/* The fast store path comes back when nobody watches any more. */
static void test_stores_are_fast_again(void **state)
{
    struct hart *o;
    rv_harts(2, NULL, NULL);
    o = hart_get(set, 1);
    assert_false(sequence(enc_i(LD, A3, A1, 0), store_same));
    for (unsigned i = 0; i < 3; i++)
        store_same(o);
    assert_int_equal(o->dtlb->e[DATA >> 12 & (RV_TLB_SIZE - 1)].wr, DATA);
}

/* Code changed by the hart itself, by another hart and by a device is what runs after fence.i. */
static void run_slot(struct hart *h, uint64_t want)
{
    put_insn(CODE, FENCE_I);
    set_reg(h, REG_PC, CODE);
    set_reg(h, A0, 0);
    hart_power(h, true);
    UNTIL(hart_pc(h) == CODE + 0x1004, harts_run(set));
    hart_power(h, false);
    assert_int_equal(reg(h, A0), want);
}

static void test_modified_code(void **state)
{
    struct hart *h = rv_harts(2, NULL, NULL), *o = hart_get(set, 1);
    put_insn(CODE + 4, 0x7fd0006f);                     /* j CODE + 0x1000, another page */
    put_insn(CODE + 0x1000, enc_i(ADDI, A0, ZERO, 1));
    put_insn(CODE + 0x1004, 0x6f);
    run_slot(h, 1);
    set_reg(o, A0, CODE + 0x1000);
    set_reg(o, T0, enc_i(ADDI, A0, ZERO, 2));
    other(o, enc_s(0x2023, A0, T0, 0));
    run_slot(h, 2);
    uint32_t v = enc_i(ADDI, A0, ZERO, 3);
    assert_true(as_write_bytes(&as_memory, CODE + 0x1000, &v, 4));
    run_slot(h, 3);
    set_reg(h, A0, CODE + 0x1000);
    set_reg(h, T0, enc_i(ADDI, A0, ZERO, 4));
    exec(h, enc_s(0x2023, A0, T0, 0));
    run_slot(h, 4);
}

/* ---- the log, with an accelerator that only counts ---- */

static struct { unsigned pages, alls; uint64_t pa; } seen[2];
static bool fake_init(struct hart *h, struct err *e) { rv_decode_init(); return true; }
static void fake_fini(struct hart *h) { }
static void (*running)(struct hart *h);                 /* what a hart does when it runs */
static void fake_run(struct hart *h)
{
    while (hart_poll(h))
        if (running)
            running(h);
}
static void fake_page(struct hart *h, uint64_t pa)
{
    seen[h->index].pages++;
    seen[h->index].pa = pa;
}
static void fake_all(struct hart *h) { seen[h->index].alls++; }
static const struct accel_ops fake = { .name = "fake", .init = fake_init, .fini = fake_fini, .run = fake_run, .flush_page = fake_page,
                                       .flush_all = fake_all };

static unsigned fence(struct hart *h)
{
    unsigned before = seen[h->index].pages;
    rcu_read_lock();
    rv_fence_i(h);
    rcu_read_unlock();
    return seen[h->index].pages - before;
}

static void add_page(struct hart *h, uint64_t pa)
{
    rcu_read_lock();
    rv_code_page_add(h, pa);
    rcu_read_unlock();
}

static void test_written_code_pages(void **state)
{
    struct hart *h = rv_harts(2, NULL, &fake), *o = hart_get(set, 1);
    uint64_t v = 1;
    set_reg(o, A0, DATA);
    set_reg(h, A0, DATA);
    other(o, enc_s(SD, A0, T0, 0));                     /* has the fast path now */
    fence(h);
    fence(o);
    assert_int_equal(fence(h), 0);
    add_page(h, DATA + 0x123);
    assert_int_equal(fence(h), 0);
    other(o, enc_s(SD, A0, T0, 16));
    other(o, enc_s(SD, A0, T0, 24));
    assert_int_equal(fence(h), 1);
    assert_int_equal(seen[0].pa, DATA);
    assert_int_equal(fence(o), 1);                      /* the other may have translated it, too */
    assert_int_equal(fence(h), 0);
    other(o, enc_s(SD, A0, T0, 16));
    assert_int_equal(fence(h), 0);                      /* nobody added it again */
    add_page(h, DATA);
    exec(h, enc_s(SD, A0, T0, 0));
    assert_int_equal(fence(h), 1);
    add_page(h, DATA);
    assert_true(as_write_bytes(&as_memory, DATA + 8, &v, 8));
    assert_int_equal(fence(h), 1);
    add_page(h, DATA);
    set_reg(o, T2, DATA);
    other(o, enc_r(AMOADD_D, T1, T2, T0));
    assert_int_equal(fence(h), 1);
    add_page(h, DATA + 0x1000);
    set_reg(o, A0, DATA + 0xffc);
    other(o, enc_s(SD, A0, T0, 0));                     /* across the page's start */
    assert_int_equal(fence(h), 1);
    unsigned alls = seen[0].alls;
    for (unsigned i = 0; i < 5000; i++) {
        add_page(h, DATA);
        assert_true(as_write_bytes(&as_memory, DATA + 8, &v, 8));
    }
    assert_int_equal(fence(h), 0);
    assert_int_equal(seen[0].alls, alls + 1);
}

/* Two harts come to a page at once: the second must not take it for watched while its own stores still go unnoticed. */
static atomic_bool coming, added;
static uint64_t store_tag(const struct hart *h) { return h->dtlb->e[DATA >> 12 & (RV_TLB_SIZE - 1)].wr; }

static void add_both(struct hart *h)
{
    if (atomic_load(&added))
        return;
    if (h->index == 0) {
        if (atomic_load(&coming))
            rv_code_page_add(h, DATA);
        return;
    }
    atomic_store(&coming, true);
    while (!(ram_watched(ram, DATA - RAM) & WATCH_CODE))
        sched_yield();                                  /* the first hart's request waits for this one */
    assert_int_equal(store_tag(h), DATA);
    assert_false(rv_code_page_add(h, DATA));
    assert_int_equal(store_tag(h), DATA | RV_TLB_CODE);
    atomic_store(&added, true);
}

static void test_added_by_two(void **state)
{
    struct hart *h = rv_harts(2, NULL, &fake), *o = hart_get(set, 1);
    set_reg(o, A0, DATA);
    other(o, enc_s(SD, A0, T0, 0));
    running = add_both;
    hart_power(h, true);
    hart_power(o, true);
    hart_set_resume(set);
    while (!atomic_load(&added))
        sched_yield();
    hart_set_pause(set);
    running = NULL;
    assert_true(ram_watched(ram, DATA - RAM) & WATCH_CODE_ALL);
}

/* ---- what a fence of one page costs ---- */

static void sfence(struct hart *h, uint64_t va)
{
    rcu_read_lock();
    rv_tlb_flush(h, true, va, false, 0);
    rcu_read_unlock();
}

static void fetch(struct hart *h, uint64_t va)
{
    rcu_read_lock();
    assert_non_null(rv_xlate_exec_fast(h, va));
    rcu_read_unlock();
}

static void test_fence_of_one_page(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    enum { TOP = DATA, MID = DATA + 0x1000, LOW = DATA + 0x2000 };
    st_le64(at(TOP + 8), (uint64_t)MID >> 12 << 10 | 1);            /* 0x40000000: tables */
    st_le64(at(MID), (uint64_t)LOW >> 12 << 10 | 1);
    st_le64(at(MID + 8), (uint64_t)(RAM + 0x200000) >> 12 << 10 | 0xcf);    /* 0x40200000: 2 MiB */
    for (unsigned i = 0; i < 512; i++)
        st_le64(at(LOW + 8 * i), (uint64_t)(RAM + (i & 255) * 0x1000) >> 12 << 10 | 0xcf);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    set_csr(h, 0x180, UINT64_C(8) << 60 | TOP >> 12);
    set_reg(h, REG_PRIV, 1);
    fetch(h, 0x40001000);
    uint32_t id = h->xtlb->id;
    sfence(h, 0x40002000);
    assert_int_equal(h->xtlb->id, id);
    sfence(h, 0x40001ffe);
    assert_int_not_equal(h->xtlb->id, id);
    fetch(h, 0x40003000);
    fetch(h, 0x40004000);
    sfence(h, 0x40003000);
    fetch(h, 0x40004000);                               /* still in the TLB, and known to the new id, too */
    id = h->xtlb->id;
    sfence(h, 0x40004000);
    assert_int_not_equal(h->xtlb->id, id);
    for (unsigned i = 0; i < 200; i++)                  /* more pages than the fetch TLB holds: all are known */
        fetch(h, 0x40000000 + i * 0x1000);
    id = h->xtlb->id;
    sfence(h, 0x40000000);
    assert_int_not_equal(h->xtlb->id, id);
    fetch(h, 0x40200000);
    id = h->xtlb->id;
    sfence(h, 0x40100000);
    assert_int_equal(h->xtlb->id, id);
    sfence(h, 0x403ff000);
    assert_int_not_equal(h->xtlb->id, id);
    fetch(h, 0x40000000);
    id = h->xtlb->id;
    for (unsigned i = 0; i < 4096; i++)                 /* the half in which nothing was run */
        sfence(h, UINT64_C(0xffffffc000000000) + i * 0x1000);
    assert_int_equal(h->xtlb->id, id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reservations), cmocka_unit_test(test_plain_sequences), cmocka_unit_test(test_stores_are_fast_again), cmocka_unit_test(test_other_place_or_size),
        cmocka_unit_test(test_modified_code), cmocka_unit_test(test_written_code_pages), cmocka_unit_test(test_fence_of_one_page),
        cmocka_unit_test(test_added_by_two),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
