/* SPDX-License-Identifier: MIT */
/*
 * Address translation: page tables built here, what must come of an access worked out from the Privileged ISA's algorithm
 * ("Virtual Address Translation Process") and the chapters Svnapot, Svpbmt, Svade and Svadu.
 */
#include "rv.h"

enum { TABLES = RAM + 0x200000, SATP = 0x180, MSTATUS = 0x300, MENVCFG = 0x30a, MCAUSE = 0x342, MTVAL = 0x343, MEDELEG = 0x302 };
enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
#define SUM (UINT64_C(1) << 18)
#define MXR (UINT64_C(1) << 19)
#define MPRV (UINT64_C(1) << 17)
#define ADUE (UINT64_C(1) << 61)
#define PBMTE (UINT64_C(1) << 62)

static unsigned tables;

static void clear(void)
{
    tables = 1;
    memset(at(TABLES), 0, 0x20000);
}

static uint64_t pte_of(uint64_t pa, uint64_t bits) { return pa >> 12 << 10 | bits; }

/* Maps @va by a leaf at @level (0: 4 KiB) of a tree with @levels levels; where the leaf lies. */
static uint64_t map(unsigned levels, uint64_t va, unsigned level, uint64_t leaf)
{
    uint64_t table = TABLES;
    for (unsigned i = levels - 1;; i--) {
        uint64_t p = table + (va >> (12 + 9 * i) & 511) * 8;
        if (i == level) {
            st_le64(at(p), leaf);
            return p;
        }
        if (!ld_le64(at(p)))
            st_le64(at(p), pte_of(TABLES + 0x1000 * tables++, V));
        table = ld_le64(at(p)) >> 10 << 12;
    }
}

static struct hart *hart(const char *opts, unsigned mode)
{
    struct hart *h = rv_harts(1, opts, NULL);
    set_csr(h, 0x3b0, UINT64_MAX);
    set_csr(h, 0x3a0, 0x1f);
    set_csr(h, 0x305, RAM + 0x800);
    clear();
    set_csr(h, SATP, (uint64_t)mode << 60 | TABLES >> 12);
    return h;
}

static void flush(struct hart *h)
{
    set_reg(h, REG_PRIV, 3);
    exec(h, 0x12000073);
}

enum acc { LOAD, STORE, FETCH };

/* The outcome of an access of one byte at @va in mode @priv: 0, or mcause. @status: SUM and MXR. */
static uint64_t try(struct hart *h, enum acc acc, unsigned priv, uint64_t va, uint64_t status)
{
    set_csr(h, 0x342, 0);
    if (acc == FETCH) {
        set_csr(h, MSTATUS, status);
        set_reg(h, REG_PRIV, priv);
        set_reg(h, REG_PC, va);
        step(h);
        bool ok = reg(h, REG_PC) == va + 4;
        set_reg(h, REG_PRIV, 3);
        if (ok)
            return 0;
    } else {
        set_csr(h, MSTATUS, status | MPRV | (uint64_t)priv << 11);
        set_reg(h, A0, va);
        set_reg(h, A1, 0x5a);
        exec(h, acc == LOAD ? enc_i(0x4003, A1, A0, 0) : enc_s(0x0023, A0, A1, 0));
        if (reg(h, REG_PC) == CODE + 4)
            return 0;
        set_csr(h, MSTATUS, 0);
    }
    assert_int_equal(csr(h, MTVAL), va);
    return csr(h, MCAUSE);
}

static uint64_t page_fault(enum acc acc) { return acc == LOAD ? 13 : acc == STORE ? 15 : 12; }

static void test_modes(void **state)
{
    for (unsigned levels = 3; levels <= 5; levels++) {
        struct hart *h = hart(NULL, levels + 5);
        assert_int_equal(csr(h, SATP) >> 60, levels + 5);
        unsigned top = 12 + 9 * levels - 1;
        const uint64_t vas[] = { UINT64_C(1) << (top - 1), 0x7654000, ~UINT64_C(0) << top | 0x123000, ~UINT64_C(0xfff) };
        for (unsigned i = 0; i < 4; i++) {
            uint64_t va = vas[i] & ~UINT64_C(0xfff);
            map(levels, va, 0, pte_of(DATA + 0x1000 * i, V | R | W | X | A | D));
            *at(DATA + 0x1000 * i + 0x78) = (uint8_t)(0x40 + i);
            assert_int_equal(try(h, LOAD, 1, va + 0x78, 0), 0);
            assert_int_equal(reg(h, A1), 0x40 + i);
            assert_int_equal(try(h, STORE, 1, va + 0x79, 0), 0);
            assert_int_equal(*at(DATA + 0x1000 * i + 0x79), 0x5a);
        }
        for (enum acc acc = LOAD; acc <= FETCH; acc++) {
            assert_int_equal(try(h, acc, 1, UINT64_C(1) << top, 0), page_fault(acc));           /* not canonical */
            assert_int_equal(try(h, acc, 1, vas[2] ^ UINT64_C(1) << 63, 0), page_fault(acc));
            assert_int_equal(try(h, acc, 1, 0x55555000, 0), page_fault(acc));                   /* not mapped */
        }
    }
    struct hart *h = hart("{\"sv57\": false, \"sv48\": false}", 8);
    set_csr(h, SATP, UINT64_C(9) << 60);
    assert_int_equal(csr(h, SATP) >> 60, 8);
    h = hart("{\"sv57\": false}", 9);
    set_csr(h, SATP, UINT64_C(10) << 60);
    assert_int_equal(csr(h, SATP) >> 60, 9);
}

/* Every combination of the leaf's low bits, mode, SUM, MXR and access. */
static void test_rights(void **state)
{
    struct hart *h = hart(NULL, 8);
    const uint64_t va = 0x123456000;
    st_le32(at(DATA), 0x13);
    for (unsigned bits = 0; bits < 256; bits++) {
        map(3, va, 0, pte_of(DATA, bits));
        flush(h);
        for (unsigned k = 0; k < 24; k++) {
            unsigned priv = k & 1;
            uint64_t status = (k & 2 ? SUM : 0) | (k & 4 ? MXR : 0);
            enum acc acc = (enum acc)(k >> 3);
            bool ok = (bits & V) && !((bits & (R | W)) == W) && (bits & (R | X));
            ok = ok && (priv == 0 ? bits & U : !(bits & U) || (acc != FETCH && (status & SUM)));
            ok = ok && (acc == LOAD ? (bits & R) || ((bits & X) && (status & MXR)) : acc == STORE ? bits & W : bits & X);
            ok = ok && (bits & A) && (acc != STORE || (bits & D));
            uint64_t got = try(h, acc, priv, va, status);
            if (got != (ok ? 0 : page_fault(acc)))
                fail_msg("bits %02x, mode %u, status %lx, access %u: %lu", bits, priv, status, acc, got);
            if (acc == STORE)
                st_le32(at(DATA), 0x13);
        }
    }
}

static void test_superpages(void **state)
{
    struct hart *h = hart(NULL, 9);
    map(4, 0x40000000, 1, pte_of(RAM + 0x200000, V | R | W | A | D));
    assert_int_equal(try(h, LOAD, 1, 0x40000000 + (TABLES - RAM - 0x200000) + 8 * 1, 0), 0);
    *at(RAM + 0x3fffff) = 0x77;
    assert_int_equal(try(h, LOAD, 1, 0x401fffff, 0), 0);
    assert_int_equal(reg(h, A1), 0x77);
    map(4, 0x40000000, 1, pte_of(RAM + 0x201000, V | R | W | A | D));           /* misaligned */
    flush(h);
    assert_int_equal(try(h, LOAD, 1, 0x40000000, 0), 13);
    clear();
    map(4, 0x40000000, 2, pte_of(RAM, V | R | A | D));
    flush(h);
    assert_int_equal(try(h, LOAD, 1, 0x40000000 + (DATA - RAM), 0), 0);
    clear();
    map(4, 0, 3, pte_of(0, V | R | A | D));                                     /* 512 GiB */
    flush(h);
    assert_int_equal(try(h, LOAD, 1, DATA, 0), 0);
    assert_int_equal(try(h, LOAD, 1, 0x10, 0), 5);                              /* mapped, but nothing is there */
}

/* A fence of one address takes out the whole leaf around it, whichever of its pages have been used. */
static void test_fence_of_superpages(void **state)
{
    static const uint64_t pages[] = { 0, 0x1000, 0x21000, 0x1ff000, DATA - RAM };
    struct hart *h = hart(NULL, 9);
    for (unsigned level = 1; level <= 2; level++)
        for (unsigned at_page = 0; at_page < ARRAY_SIZE(pages); at_page++) {
            uint64_t va = UINT64_C(0x40000000), leaf_size = UINT64_C(0x1000) << (9 * level);
            clear();
            flush(h);
            uint64_t leaf = map(4, va, level, pte_of(RAM, V | R | W | A | D));
            for (unsigned i = 0; i < ARRAY_SIZE(pages) && pages[i] < leaf_size; i++)
                assert_int_equal(try(h, LOAD, 1, va + pages[i], 0), 0);
            st_le64(at(leaf), 0);
            set_reg(h, A0, va + pages[at_page] % leaf_size);
            set_reg(h, REG_PRIV, 3);
            exec(h, 0x12050073);                                                /* sfence.vma a0, zero */
            for (unsigned i = 0; i < ARRAY_SIZE(pages); i++)
                assert_int_equal(try(h, LOAD, 1, va + pages[i], 0), 13);
        }
}

/* What makes an entry invalid by itself. */
static void test_reserved_bits(void **state)
{
    struct hart *h = hart(NULL, 8);
    const uint64_t good = pte_of(DATA, V | R | W | X | A | D);
    for (unsigned b = 54; b <= 60; b++) {
        map(3, 0x5000, 0, good | UINT64_C(1) << b);
        flush(h);
        assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 13);
    }
    for (unsigned pbmt = 0; pbmt < 4; pbmt++)
        for (unsigned on = 0; on < 2; on++) {
            set_csr(h, MENVCFG, on ? PBMTE : 0);
            map(3, 0x5000, 0, good | (uint64_t)pbmt << 61);
            flush(h);
            assert_int_equal(try(h, LOAD, 1, 0x5000, 0), !pbmt || (on && pbmt < 3) ? 0 : 13);
        }
    uint64_t table = map(3, 0x5000, 1, 0);
    for (unsigned b = 4; b < 8; b++) {                  /* U, A, D of a pointer are reserved; G is not */
        st_le64(at(table), pte_of(TABLES + 0x8000, V | 1u << b));
        st_le64(at(TABLES + 0x8000 + 5 * 8), good);
        flush(h);
        assert_int_equal(try(h, LOAD, 1, 0x5000, 0), b == 5 ? 0 : 13);
    }
    st_le64(at(table), pte_of(TABLES + 0x8000, V) | UINT64_C(1) << 61);
    flush(h);
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 13);
    st_le64(at(table), pte_of(0x40000, V));             /* a table where no memory is: an access fault of the original kind */
    flush(h);
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 5);
    assert_int_equal(try(h, STORE, 1, 0x5000, 0), 7);
    assert_int_equal(try(h, FETCH, 1, 0x5000, 0), 1);
}

static void test_napot(void **state)
{
    struct hart *h = hart(NULL, 8);
    const uint64_t n = UINT64_C(1) << 63, leaf = pte_of(DATA + 0x8000, V | R | W | A | D) | n;
    for (unsigned i = 0; i < 16; i++)
        map(3, 0x70000 + 0x1000 * i, 0, leaf);
    flush(h);
    for (unsigned i = 0; i < 16; i++) {
        *at(DATA + 0x1000 * i + 5) = (uint8_t)i;
        assert_int_equal(try(h, LOAD, 1, 0x70005 + 0x1000 * i, 0), 0);
        assert_int_equal(reg(h, A1), i);
    }
    map(3, 0x70000, 0, pte_of(DATA + 0x4000, V | R | W | A | D) | n);           /* other sizes are reserved */
    flush(h);
    assert_int_equal(try(h, LOAD, 1, 0x70005, 0), 13);
    map(3, 0x40000000, 1, pte_of(RAM + 0x200000, V | R | A | D) | n);           /* so is N in a superpage */
    flush(h);
    assert_int_equal(try(h, LOAD, 1, 0x40000000, 0), 13);
    h = hart("{\"svnapot\": false}", 8);
    map(3, 0x70000, 0, leaf);
    assert_int_equal(try(h, LOAD, 1, 0x70005, 0), 13);
}

/* A and D: faults under Svade; under Svadu set in memory, as little as the access needs. */
static void test_accessed_and_dirty(void **state)
{
    struct hart *h = hart(NULL, 8);
    const uint64_t leaf = pte_of(DATA, V | R | W | X);
    st_le32(at(DATA), 0x13);
    for (unsigned due = 0; due < 2; due++) {
        set_csr(h, MENVCFG, due ? ADUE : 0);
        for (enum acc acc = LOAD; acc <= FETCH; acc++) {
            uint64_t p = map(3, 0x5000, 0, leaf);
            flush(h);
            assert_int_equal(try(h, acc, 1, 0x5000, 0), due ? 0 : page_fault(acc));
            assert_int_equal(ld_le64(at(p)), leaf | (!due ? 0 : acc == STORE ? A | D : A));
            st_le32(at(DATA), 0x13);
        }
        uint64_t p = map(3, 0x5000, 0, leaf | A);       /* a load, then a store: D is set by the store only */
        flush(h);
        assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 0);
        assert_int_equal(ld_le64(at(p)), leaf | A);
        assert_int_equal(try(h, STORE, 1, 0x5000, 0), due ? 0 : 15);
        assert_int_equal(ld_le64(at(p)), leaf | A | (due ? D : 0));
        p = map(3, 0x5000, 0, pte_of(DATA, V | R));     /* an access that is not allowed sets nothing */
        flush(h);
        assert_int_equal(try(h, STORE, 1, 0x5000, 0), 15);
        assert_int_equal(ld_le64(at(p)), pte_of(DATA, V | R));
    }
    h = hart("{\"svadu\": false}", 8);
    set_csr(h, MENVCFG, ADUE);
    assert_int_equal(csr(h, MENVCFG) & ADUE, 0);
}

/* Fences: what may be stale before is fresh after; an ASID's fence leaves other address spaces, a page's fence other pages. */
static void test_fences(void **state)
{
    struct hart *h = hart(NULL, 8);
    const uint64_t bits = V | R | A | D, satp = csr(h, SATP);
    map(3, 0x5000, 0, pte_of(DATA, bits));
    map(3, 0x6000, 0, pte_of(DATA + 0x1000, bits));
    *at(DATA) = 1;
    *at(DATA + 0x1000) = 2;
    *at(DATA + 0x2000) = 3;
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 0);
    assert_int_equal(try(h, LOAD, 1, 0x6000, 0), 0);
    map(3, 0x5000, 0, pte_of(DATA + 0x2000, bits));
    set_reg(h, REG_PRIV, 3);
    set_reg(h, A0, 0x5000);
    exec(h, 0x12000073 | A0 << 15);
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 0);
    assert_int_equal(reg(h, A1), 3);
    map(3, 0x5000, 0, 0);
    set_reg(h, A0, 7);                                  /* another ASID, then ours (0) */
    exec(h, 0x12000073 | A0 << 20);
    set_reg(h, A0, 0);
    exec(h, 0x12000073 | A0 << 20);
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 13);
    set_csr(h, SATP, satp | UINT64_C(5) << 44);         /* a new address space sees the tables as they are */
    map(3, 0x5000, 0, pte_of(DATA + 0x2000, bits));
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 0);
    map(3, 0x5000, 0, pte_of(DATA, bits));
    exec(h, 0x16000073);                                /* sinval.vma of everything between its fences */
    exec(h, 0x18100073);
    assert_int_equal(try(h, LOAD, 1, 0x5000, 0), 0);
    assert_int_equal(reg(h, A1), 1);
    set_csr(h, SATP, 0);
    assert_int_equal(try(h, LOAD, 1, DATA + 0x2000, 0), 0);
    assert_int_equal(reg(h, A1), 3);
}

/* An access across two pages that lie apart; a fault in the second leaves the first as it was. */
static void test_across_pages(void **state)
{
    struct hart *h = hart(NULL, 8);
    map(3, 0x5000, 0, pte_of(DATA + 0x3000, V | R | W | A | D));
    map(3, 0x6000, 0, pte_of(DATA, V | R | W | A | D));
    set_csr(h, MSTATUS, MPRV | 1 << 11);
    set_reg(h, A0, 0x5ffb);
    set_reg(h, A1, UINT64_C(0x8877665544332211));
    exec(h, enc_s(0x3023, A0, A1, 0));
    assert_int_equal(ld_le32(at(DATA + 0x3ffb)), 0x44332211);
    assert_int_equal(*at(DATA + 0x3fff), 0x55);
    assert_int_equal(ld_le16(at(DATA)), 0x7766);
    assert_int_equal(*at(DATA + 2), 0x88);
    exec(h, enc_i(0x3003, A2, A0, 0));
    assert_int_equal(reg(h, A2), UINT64_C(0x8877665544332211));
    map(3, 0x6000, 0, pte_of(DATA, V | R | A | D));
    flush(h);
    set_csr(h, MSTATUS, MPRV | 1 << 11);
    set_reg(h, A1, 0);
    exec(h, enc_s(0x3023, A0, A1, 0));
    assert_int_equal(csr(h, MCAUSE), 15);
    assert_int_equal(csr(h, MTVAL), 0x6000);
    assert_int_equal(ld_le32(at(DATA + 0x3ffb)), 0x44332211);
}

/* An instruction of four bytes whose second half lies in a page that cannot be fetched: the address of that half is told, and that the
 * instruction begins before it (Privileged ISA, "Machine Trap Value (mtval) Register"). QEMU's issue 1155. */
static void test_fetch_across_pages(void **state)
{
    struct hart *h = hart(NULL, 8);
    static const struct { uint64_t leaf; uint64_t cause; } second[] = { { 0, 12 }, { V | R | A | D, 12 }, { V | R | X | U | A | D, 12 } };
    map(3, 0x5000, 0, pte_of(DATA + 0x3000, V | R | X | A | D));
    st_le16(at(DATA + 0x3ffe), 0x0513);                 /* addi a0, zero, 7: its two halves */
    st_le16(at(DATA), 0x0070);
    for (size_t i = 0; i < ARRAY_SIZE(second); i++) {
        map(3, 0x6000, 0, second[i].leaf ? pte_of(DATA, second[i].leaf) : 0);
        flush(h);
        set_csr(h, MSTATUS, 0);
        set_reg(h, A0, 1);
        set_reg(h, REG_PRIV, 1);
        set_reg(h, REG_PC, 0x5ffe);
        step(h);
        set_reg(h, REG_PRIV, 3);
        assert_int_equal(csr(h, MCAUSE), second[i].cause);
        assert_int_equal(csr(h, MTVAL), 0x6000);
        assert_int_equal(csr(h, 0x341), 0x5ffe);
        assert_int_equal(reg(h, A0), 1);
    }
    map(3, 0x6000, 0, pte_of(DATA, V | R | X | A | D));
    flush(h);
    set_reg(h, REG_PRIV, 1);
    set_reg(h, REG_PC, 0x5ffe);
    step(h);
    assert_int_equal(reg(h, A0), 7);
    assert_int_equal(reg(h, REG_PC), 0x6002);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_modes), cmocka_unit_test(test_rights), cmocka_unit_test(test_superpages), cmocka_unit_test(test_fence_of_superpages),
        cmocka_unit_test(test_reserved_bits),
        cmocka_unit_test(test_napot), cmocka_unit_test(test_accessed_and_dirty), cmocka_unit_test(test_fences), cmocka_unit_test(test_across_pages),
        cmocka_unit_test(test_fetch_across_pages),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
