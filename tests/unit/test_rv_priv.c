/* SPDX-License-Identifier: MIT */
/* Traps, returns, delegation, interrupts, timers and PMP, against the Privileged ISA. */
#include "rv.h"
#include "seeded.h"
#include "cpu/riscv/cpu.h"

enum { MSTATUS = 0x300, MEDELEG = 0x302, MIDELEG = 0x303, MIE = 0x304, MTVEC = 0x305, MENVCFG = 0x30a, MEPC = 0x341, MCAUSE = 0x342, MTVAL = 0x343,
       MIP = 0x344, STVEC = 0x105, SEPC = 0x141, SCAUSE = 0x142, STVAL = 0x143, SIP = 0x144, SIE = 0x104, SSTATUS = 0x100, SATP = 0x180,
       PMPCFG0 = 0x3a0, PMPADDR0 = 0x3b0, STIMECMP = 0x14d, MCOUNTEREN = 0x306, SCOUNTEREN = 0x106 };
enum { ECALL = 0x73, EBREAK = 0x00100073, SRET = 0x10200073, MRET = 0x30200073, WFI = 0x10500073, SFENCE = 0x12000073, SINVAL = 0x16000073, NOP = 0x13 };
enum { MV = RAM + 0x800, SV = RAM + 0x900 };
#define ST_SIE (1u << 1)
#define ST_MIE (1u << 3)
#define ST_SPIE (1u << 5)
#define ST_MPIE (1u << 7)
#define ST_SPP (1u << 8)
#define ST_MPP(n) ((uint64_t)(n) << 11)
#define ST_MPRV (1u << 17)
#define ST_TVM (1u << 20)
#define ST_TW (1u << 21)
#define ST_TSR (1u << 22)

static struct hart *hart(const char *opts)
{
    struct hart *h = rv_harts(1, opts, NULL);
    set_csr(h, MTVEC, MV);
    if (csr(h, 0x301) >> 18 & 1)
        set_csr(h, STVEC, SV);
    set_csr(h, PMPADDR0, UINT64_MAX);
    set_csr(h, PMPCFG0, 0x1f);
    return h;
}

/* Runs @insn in @priv; where it ends: 0 it went on, else the mode it trapped to (4 for M, as 1 is S). */
static unsigned in_mode(struct hart *h, unsigned priv, uint32_t insn)
{
    set_reg(h, REG_PRIV, priv);
    exec(h, insn);
    uint64_t pc = reg(h, REG_PC);
    unsigned to = (unsigned)reg(h, REG_PRIV);
    set_reg(h, REG_PRIV, 3);
    if (pc == MV && to == 3)
        return 4;
    if (pc == SV && to == 1)
        return 1;
    assert_int_equal(pc, CODE + 4);
    return 0;
}

static void test_environment_calls(void **state)
{
    static const uint8_t cause[] = { 8, 9, 0, 11 };
    struct hart *h = hart(NULL);
    for (unsigned priv = 0; priv < 4; priv++) {
        if (priv == 2)
            continue;
        set_csr(h, MEDELEG, 0);
        set_csr(h, MTVAL, 5);
        assert_int_equal(in_mode(h, priv, ECALL), 4);
        assert_int_equal(csr(h, MCAUSE), cause[priv]);
        assert_int_equal(csr(h, MEPC), CODE);
        assert_int_equal(csr(h, MTVAL), 0);
        assert_int_equal(csr(h, MSTATUS) >> 11 & 3, priv);
        set_csr(h, MEDELEG, UINT64_MAX);
        assert_int_equal(csr(h, MEDELEG) >> cause[priv] & 1, priv != 3);
        assert_int_equal(in_mode(h, priv, ECALL), priv == 3 ? 4 : 1);
        if (priv < 3) {
            assert_int_equal(csr(h, SCAUSE), cause[priv]);
            assert_int_equal(csr(h, SEPC), CODE);
            assert_int_equal(csr(h, MSTATUS) >> 8 & 1, priv);
        }
    }
    set_csr(h, MEDELEG, 0);
    assert_int_equal(in_mode(h, 0, EBREAK), 4);
    assert_int_equal(csr(h, MCAUSE), 3);
    assert_int_equal(csr(h, MTVAL), CODE);
}

/* Interrupt-enable stacks on the way in and out. */
static void test_entry_and_return(void **state)
{
    struct hart *h = hart(NULL);
    for (unsigned on = 0; on < 2; on++) {
        set_csr(h, MEDELEG, 0);
        set_csr(h, MSTATUS, on ? ST_MIE : ST_MPIE);
        in_mode(h, 3, ECALL);
        assert_int_equal(csr(h, MSTATUS) & (ST_MIE | ST_MPIE), on ? ST_MPIE : 0);
        set_csr(h, MEDELEG, 0x100);
        set_csr(h, MSTATUS, on ? ST_SIE : ST_SPIE | ST_SPP);
        in_mode(h, 0, ECALL);
        assert_int_equal(csr(h, MSTATUS) & (ST_SIE | ST_SPIE | ST_SPP), on ? ST_SPIE : 0);
    }
    for (unsigned to = 0; to < 4; to++) {
        if (to == 2)
            continue;
        set_csr(h, MSTATUS, ST_MPP(to) | ST_MPIE | ST_MPRV);
        set_csr(h, MEPC, DATA + 2);
        set_reg(h, REG_PRIV, 3);
        exec(h, MRET);
        assert_int_equal(reg(h, REG_PRIV), to);
        assert_int_equal(reg(h, REG_PC), DATA + 2);
        assert_int_equal(csr(h, MSTATUS) & (ST_MIE | ST_MPIE | ST_MPP(3) | ST_MPRV), ST_MIE | ST_MPIE | (to == 3 ? ST_MPRV : 0));
    }
    for (unsigned to = 0; to < 2; to++) {
        set_csr(h, MSTATUS, (to ? ST_SPP : 0) | ST_SPIE | ST_MPRV);
        set_csr(h, SEPC, DATA);
        set_reg(h, REG_PRIV, 1);
        exec(h, SRET);
        assert_int_equal(reg(h, REG_PRIV), to);
        assert_int_equal(reg(h, REG_PC), DATA);
        assert_int_equal(csr(h, MSTATUS) & (ST_SIE | ST_SPIE | ST_SPP | ST_MPRV), ST_SIE | ST_SPIE);
    }
}

/* Who may execute what. */
static void test_permissions(void **state)
{
    struct hart *h = hart(NULL);
    set_csr(h, MSTATUS, 0);
    static const struct { uint32_t insn; unsigned least; uint32_t trap_bit; } rows[] = {
        { MRET, 3, 0 }, { SRET, 1, ST_TSR }, { SFENCE, 1, ST_TVM }, { SINVAL, 1, ST_TVM }, { 0x18000073, 1, 0 }, { 0x18100073, 1, 0 },
        { 0x18002573 /* csrr a0, satp */, 1, ST_TVM }, { 0x30002573, 3, 0 }, { 0x10002573, 1, 0 }, { 0xf1402573, 3, 0 }, { 0xf1401573 /* write */, 4, 0 },
        { 0x7c002573 /* no such CSR */, 4, 0 }, { 0xc0051573, 4, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (unsigned priv = 0; priv < 4; priv++)
            for (unsigned bit = 0; bit < 2; bit++) {
                if (priv == 2)
                    continue;
                set_csr(h, MSTATUS, (bit ? rows[i].trap_bit : 0) | ST_MPP(3) | ST_SPP);
                set_csr(h, MEPC, CODE + 4);
                set_csr(h, SEPC, CODE + 4);
                bool illegal = priv < rows[i].least || (bit && priv == 1 && rows[i].trap_bit);
                unsigned got = in_mode(h, priv, rows[i].insn);
                if (got != (illegal ? 4 : 0))
                    fail_msg("%08x in mode %u, bit %u: %u", rows[i].insn, priv, bit, got);
                if (illegal) {
                    assert_int_equal(csr(h, MCAUSE), 2);
                    assert_int_equal(csr(h, MTVAL), rows[i].insn);
                }
            }
    set_csr(h, MIE, 2);
    set_csr(h, MIDELEG, 2);
    set_csr(h, MIP, 2);                                 /* pending: WFI ends at once, though mstatus lets no interrupt in */
    for (unsigned tw = 0; tw < 2; tw++) {
        set_csr(h, MSTATUS, tw ? ST_TW : 0);
        assert_int_equal(in_mode(h, 0, WFI), 4);
        assert_int_equal(in_mode(h, 1, WFI), tw ? 4 : 0);
        assert_int_equal(in_mode(h, 3, WFI), 0);
    }
}

static void test_counters_are_guarded(void **state)
{
    struct hart *h = hart(NULL);
    for (unsigned n = 0; n < 4; n++)
        for (unsigned m = 0; m < 2; m++)
            for (unsigned s = 0; s < 2; s++)
                for (unsigned priv = 0; priv < 4; priv++) {
                    if (priv == 2)
                        continue;
                    set_csr(h, MCOUNTEREN, m ? 1u << n : ~(1u << n));
                    set_csr(h, SCOUNTEREN, s ? 1u << n : ~(1u << n));
                    bool ok = priv == 3 || (m && (priv == 1 || s));
                    assert_int_equal(in_mode(h, priv, enc_csr(2, A0, 0xc00 + n, 0)), ok ? 0 : 4);
                }
}

/* A write to a counter that is read-only is illegal in every mode, and the instruction itself is told (QEMU's issue 1060). */
static void test_writes_to_read_only_counters(void **state)
{
    struct hart *h = hart(NULL);
    set_csr(h, MCOUNTEREN, 7);
    set_csr(h, SCOUNTEREN, 7);
    for (unsigned n = 0xc00; n < 0xc03; n++)
        for (unsigned f3 = 1; f3 < 4; f3++)
            for (unsigned priv = 0; priv < 4; priv++) {
                uint32_t insn = enc_csr(f3, A0, n, A1);
                if (priv == 2)
                    continue;
                set_csr(h, 0x343, 0);
                assert_int_equal(in_mode(h, priv, insn), 4);
                assert_int_equal(csr(h, MCAUSE), 2);
                assert_int_equal(csr(h, 0x343), insn);
            }
}

/* ---- interrupts ---- */

static uint64_t take(struct hart *h, unsigned priv)
{
    set_reg(h, REG_PRIV, priv);
    set_reg(h, REG_PC, CODE);
    h->trap.cause = 0;
    bool took = rv_irq_take(h);
    uint64_t cause = h->trap.cause & ~RV_CAUSE_IRQ;
    set_reg(h, REG_PRIV, 3);
    return took ? cause : 0;
}

static void test_priorities_and_enables(void **state)
{
    struct hart *h = hart(NULL);
    static const uint8_t order[] = { 11, 3, 7, 9, 1, 5, 13 };
    set_csr(h, MIE, UINT64_MAX);
    set_csr(h, MSTATUS, ST_MIE);
    for (unsigned b = 1; b < 14; b += 2)
        hart_irq_set(h, b, true);
    for (size_t i = 0; i < sizeof order; i++) {
        set_csr(h, MSTATUS, ST_MIE);
        assert_int_equal(take(h, 3), order[i]);
        assert_int_equal(csr(h, MCAUSE), UINT64_C(1) << 63 | order[i]);
        assert_int_equal(csr(h, MEPC), CODE);
        hart_irq_set(h, order[i], false);
    }
    hart_irq_set(h, 9, true);                           /* the external supervisor interrupt through all modes */
    for (unsigned deleg = 0; deleg < 2; deleg++)
        for (unsigned mie = 0; mie < 2; mie++)
            for (unsigned sie = 0; sie < 2; sie++)
                for (unsigned priv = 0; priv < 4; priv++) {
                    if (priv == 2)
                        continue;
                    set_csr(h, MIDELEG, deleg ? 0x200 : 0);
                    set_csr(h, MSTATUS, (mie ? ST_MIE : 0) | (sie ? ST_SIE : 0));
                    bool want = deleg ? priv == 0 || (priv == 1 && sie) : priv < 3 || mie;
                    assert_int_equal(take(h, priv), want ? 9 : 0);
                }
    set_csr(h, MIE, ~UINT64_C(0x200));
    set_csr(h, MSTATUS, ST_MIE);
    assert_int_equal(take(h, 0), 0);
}

static void test_vectors(void **state)
{
    struct hart *h = hart(NULL);
    set_csr(h, MTVEC, MV | 1);
    set_csr(h, STVEC, SV | 1);
    set_csr(h, MIE, UINT64_MAX);
    set_csr(h, MSTATUS, ST_MIE);
    hart_irq_set(h, 7, true);
    assert_int_equal(take(h, 3), 7);
    assert_int_equal(reg(h, REG_PC), MV + 4 * 7);
    hart_irq_set(h, 7, false);
    set_csr(h, MIDELEG, 0x20);
    hart_irq_set(h, 5, true);
    assert_int_equal(take(h, 0), 5);
    assert_int_equal(reg(h, REG_PC), SV + 4 * 5);
    exec(h, ECALL);                                     /* exceptions go to the base */
    assert_int_equal(reg(h, REG_PC), MV);
}

/* sie and sip show what is delegated; software writes SSIP only there; mip's lines cannot be written. */
static void test_supervisor_view(void **state)
{
    struct hart *h = hart(NULL);
    set_csr(h, MIDELEG, 0x222);
    set_csr(h, MIE, 0xaaa);
    assert_int_equal(csr(h, SIE), 0x222);
    set_csr(h, SIE, 0);
    assert_int_equal(csr(h, MIE), 0x888);
    set_csr(h, SIE, UINT64_MAX);
    assert_int_equal(csr(h, MIE), 0xaaa);
    set_csr(h, SIP, UINT64_MAX);
    assert_int_equal(csr(h, MIP), 2);
    set_csr(h, SIP, 0);
    assert_int_equal(csr(h, MIP), 0);
    set_csr(h, MIP, UINT64_MAX);
    assert_int_equal(csr(h, MIP) & 0xaaa, 0x222);
    assert_int_equal(csr(h, SIP), 0x222);
    set_csr(h, MIP, 0);
    hart_irq_set(h, 9, true);
    set_reg(h, A0, 2);
    set_reg(h, REG_PRIV, 3);
    exec(h, enc_csr(2, A1, MIP, A0));                   /* csrrs reads the line, but does not make it software's */
    assert_int_equal(reg(h, A1), 0x200);
    hart_irq_set(h, 9, false);
    assert_int_equal(csr(h, MIP), 2);
    set_csr(h, MIDELEG, 0);
    assert_int_equal(csr(h, SIP), 0);
    assert_int_equal(csr(h, SIE), 0);
}

static void test_timer(void **state)
{
    struct hart *h = hart(NULL);
    rv_time = 1000;
    set_csr(h, MENVCFG, UINT64_C(1) << 63);
    set_csr(h, MCOUNTEREN, 2);
    set_csr(h, STIMECMP, 1500);
    assert_int_equal(csr(h, MIP) & 0x20, 0);
    assert_int_equal(rv_deadline, 1500);
    rv_time = 1499;
    hart_timer_fire(h);
    assert_int_equal(csr(h, MIP) & 0x20, 0);
    rv_time = 1500;
    hart_timer_fire(h);
    assert_int_equal(csr(h, MIP) & 0x20, 0x20);
    set_csr(h, MIP, 0);                                 /* not software's to clear */
    assert_int_equal(csr(h, MIP) & 0x20, 0x20);
    set_csr(h, STIMECMP, UINT64_MAX);
    assert_int_equal(csr(h, MIP) & 0x20, 0);
    set_csr(h, STIMECMP, 7);
    assert_int_equal(csr(h, MIP) & 0x20, 0x20);
    assert_int_equal(in_mode(h, 1, enc_csr(2, A0, STIMECMP, 0)), 0);
    set_csr(h, MCOUNTEREN, 0);
    assert_int_equal(in_mode(h, 1, enc_csr(2, A0, STIMECMP, 0)), 4);
    set_csr(h, MCOUNTEREN, 2);
    set_csr(h, MENVCFG, 0);
    assert_int_equal(in_mode(h, 1, enc_csr(2, A0, STIMECMP, 0)), 4);
    assert_int_equal(in_mode(h, 3, enc_csr(2, A0, STIMECMP, 0)), 0);
    assert_int_equal(in_mode(h, 3, enc_csr(2, A0, 0xc01, 0)), 0);
    assert_int_equal(reg(h, A0), 1500);
}

/* ---- PMP ---- */

static bool loads(struct hart *h, unsigned priv, uint64_t pa, unsigned f3)
{
    set_reg(h, A0, pa);
    set_csr(h, MSTATUS, ST_MPRV | ST_MPP(priv));        /* code stays in M mode, data accesses are @priv's */
    exec(h, 0x03 | f3 << 12 | A1 << 7 | A0 << 15);
    bool ok = reg(h, REG_PC) == CODE + 4;
    if (!ok) {
        assert_int_equal(csr(h, MCAUSE), 5);
        assert_int_equal(csr(h, MTVAL), pa);
    }
    return ok;
}

static bool stores(struct hart *h, unsigned priv, uint64_t pa)
{
    set_reg(h, A0, pa);
    set_csr(h, MSTATUS, ST_MPRV | ST_MPP(priv));
    exec(h, 0x23 | A0 << 15);
    return reg(h, REG_PC) == CODE + 4;
}

static void pmp(struct hart *h, unsigned n, uint64_t addr, unsigned cfg)
{
    uint64_t v = csr(h, PMPCFG0);
    set_csr(h, PMPADDR0 + n, addr);
    set_csr(h, PMPCFG0, (v & ~(UINT64_C(0xff) << 8 * n)) | (uint64_t)cfg << 8 * n);
}

static void test_pmp_matching(void **state)
{
    struct hart *h = hart(NULL);
    set_csr(h, PMPCFG0, 0);
    assert_false(loads(h, 1, DATA, 0));                 /* no entry: nothing below M */
    assert_true(loads(h, 3, DATA, 0));
    pmp(h, 0, DATA >> 2, 0x11);                         /* NA4, R */
    assert_true(loads(h, 0, DATA, 2));
    assert_true(loads(h, 1, DATA + 3, 0));
    assert_false(loads(h, 1, DATA + 4, 0));
    assert_false(loads(h, 1, DATA, 3));                 /* only a part of the access matches */
    assert_false(loads(h, 3, DATA, 3));
    assert_false(stores(h, 1, DATA));
    pmp(h, 0, (DATA >> 2) | 1, 0x1b);                   /* NAPOT of 16 bytes, R W */
    assert_true(loads(h, 1, DATA + 8, 3));
    assert_true(stores(h, 1, DATA + 15));
    assert_false(loads(h, 1, DATA + 16, 0));
    pmp(h, 0, DATA >> 2, 0);                            /* TOR: [DATA, DATA + 0x2000) */
    pmp(h, 1, (DATA + 0x2000) >> 2, 0x09);
    assert_true(loads(h, 1, DATA, 3));
    assert_true(loads(h, 1, DATA + 0x1ffc, 2));
    assert_false(loads(h, 1, DATA + 0x2000, 0));
    assert_false(loads(h, 1, DATA - 1, 0));
    pmp(h, 2, (UINT64_C(1) << 54) - 1, 0x1f);           /* all the rest; lower numbers win */
    assert_false(stores(h, 1, DATA));
    assert_true(stores(h, 1, DATA + 0x2000));
    pmp(h, 1, DATA >> 2, 0x09);                         /* an empty range matches nothing */
    assert_true(stores(h, 1, DATA));
    pmp(h, 1, DATA >> 2, 0x0a);                         /* W without R is reserved */
    assert_int_equal(csr(h, PMPCFG0) >> 8 & 3, 0);
    set_csr(h, MEDELEG, 0);
    pmp(h, 2, (UINT64_C(1) << 54) - 1, 0x1b);           /* no X */
    assert_int_equal(in_mode(h, 1, NOP), 4);
    assert_int_equal(csr(h, MCAUSE), 1);
}

/* What the entries say of one access, word by word ("Address Matching", "Priority and Matching Logic"). */
static unsigned pmp_rights(struct hart *h, uint64_t pa, unsigned len)
{
    uint64_t cfgs = csr(h, PMPCFG0);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t a = csr(h, PMPADDR0 + i) << 2, before = i ? csr(h, PMPADDR0 + i - 1) << 2 : 0, in = 0;
        unsigned cfg = cfgs >> 8 * i & 0xff, kind = cfg >> 3 & 3;
        uint64_t span = 8;
        for (uint64_t v = a >> 2; kind == 3 && (v & 1); v >>= 1)
            span <<= 1;
        for (uint64_t at = pa; at < pa + len; at++)
            in += kind == 1 ? at >= before && at < a : kind == 2 ? at - a < 4 : kind == 3 && (at & ~(span - 1)) == (a & ~(span - 1));
        if (in)
            return in == len ? cfg & 7 : 0;
    }
    return 0;
}

/* Random entries around a few pages; what was found for one page must not be said of another. */
static void test_pmp_pages(void **state)
{
    struct hart *h = hart(NULL);
    for (unsigned round = 0; round < 200; round++) {
        set_csr(h, PMPCFG0, 0);
        for (unsigned i = 0; i < 8; i++) {
            uint64_t r = rnd(), page = DATA + (r >> 8 & 15) * 0x1000;
            uint64_t napot = page >> 2 | ((UINT64_C(1) << (r >> 16) % 14) - 1);
            pmp(h, i, r & 1 ? page >> 2 : napot, (unsigned)(r >> 24) & 0x1f);
        }
        for (unsigned k = 0; k < 200; k++) {
            uint64_t r = rnd(), pa = DATA + (r & 0xffff);
            unsigned len = 1u << (r >> 20 & 3);
            bool whole;
            pa &= ~(uint64_t)(len - 1);
            assert_int_equal(rv_pmp_check(h, pa, len, 1, &whole), pmp_rights(h, pa, len));
            if (whole)
                assert_int_equal(pmp_rights(h, pa & ~UINT64_C(0xfff), 0x1000), pmp_rights(h, pa, len));
        }
    }
}

static void test_pmp_locks(void **state)
{
    struct hart *h = hart(NULL);
    set_csr(h, PMPCFG0, 0);
    pmp(h, 1, (DATA >> 2) | 1, 0x98);                   /* locked, no rights: for M mode, too */
    assert_false(loads(h, 3, DATA, 0));
    assert_true(loads(h, 3, DATA + 16, 0));
    set_csr(h, PMPCFG0, 0x1f1f);
    assert_int_equal(csr(h, PMPCFG0), 0x981f);
    set_csr(h, PMPADDR0 + 1, 0);
    assert_int_equal(csr(h, PMPADDR0 + 1), (DATA >> 2) | 1);
    pmp(h, 2, (DATA + 0x1000) >> 2, 0x88);              /* a locked TOR entry locks the address below it */
    set_csr(h, PMPADDR0 + 1, 0);
    assert_int_equal(csr(h, PMPADDR0 + 1), (DATA >> 2) | 1);
    pmp(h, 4, 0x1234, 0x88);
    set_csr(h, PMPADDR0 + 3, 0x77);
    assert_int_equal(csr(h, PMPADDR0 + 3), 0);
    set_csr(h, PMPADDR0 + 5, UINT64_MAX);
    assert_int_equal(csr(h, PMPADDR0 + 5), (UINT64_C(1) << 54) - 1);
    assert_int_equal(csr(h, PMPADDR0 + 40), 0);         /* of 64 registers 16 are there, the rest is zero */
    set_csr(h, PMPADDR0 + 40, 5);
    assert_int_equal(csr(h, PMPADDR0 + 40), 0);
    assert_false(hart_reg_write(h, REG_CSR0 + PMPCFG0 + 1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_environment_calls), cmocka_unit_test(test_entry_and_return), cmocka_unit_test(test_permissions),
        cmocka_unit_test(test_counters_are_guarded), cmocka_unit_test(test_writes_to_read_only_counters),
        cmocka_unit_test(test_priorities_and_enables), cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_supervisor_view), cmocka_unit_test(test_timer), cmocka_unit_test(test_pmp_matching), cmocka_unit_test(test_pmp_pages),
        cmocka_unit_test(test_pmp_locks),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
