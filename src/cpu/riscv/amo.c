/* SPDX-License-Identifier: MIT */
/*
 * Atomics (A, Zacas) on host memory.
 *
 * Where no memory is accessed between LR and SC (every sequence for which the ISA promises progress is so, "Eventual Success of
 * Store-Conditional Instructions"), SC is a compare-and-swap against the value that LR saw: had others stored in between and put the
 * same value back, then LR could as well have come after them, and nobody can tell. Any other reservation is tracked: the page is
 * watched, every store by another hart or a device breaks it (code.c). That costs a handshake with all harts, and is rare.
 */
#include "cpu/riscv/mmu.h"

static bool misaligned(struct hart *h, uint64_t va, bool load)
{
    return rv_trap_set(h, load ? RV_EXC_LOAD_MISALIGNED : RV_EXC_STORE_MISALIGNED, va);
}

static uint64_t sext(uint64_t v, unsigned size)
{
    return size == 4 ? (uint64_t)(int64_t)(int32_t)v : v;
}

static void put(struct hart *h, unsigned rd, uint64_t v)
{
    if (rd)
        h->x[rd] = v;
}

enum between { PLAIN, MEMORY, SC_FOUND };

/* What an instruction does to a sequence that began with LR: SYSTEM and jumps are taken for accesses, too. */
static enum between classify(uint32_t raw)
{
    unsigned f3 = raw >> 13 & 7;
    switch (raw & 3) {
    case 0: return f3 ? MEMORY : PLAIN;                     /* loads and stores, but c.addi4spn */
    case 1: return f3 == 5 ? MEMORY : PLAIN;                /* c.j */
    case 2: return f3 == 0 || (f3 == 4 && (raw >> 2 & 31)) ? PLAIN : MEMORY;    /* c.slli, c.mv, c.add */
    default: break;
    }
    switch (raw & 0x7f) {
    case 0x2f: return raw >> 27 == 3 ? SC_FOUND : MEMORY;
    case 0x13: case 0x17: case 0x1b: case 0x33: case 0x37: case 0x3b: case 0x63: return PLAIN;
    default: return MEMORY;
    }
}

static bool fetch16(struct hart *h, uint64_t va, uint32_t *raw)
{
    const struct rv_xtlb_entry *x = rv_xlate_exec_fast(h, va);
    if (x)
        *raw = ld_le16(x->host + (va & ~RV_PAGE_MASK));
    return x;
}

bool rv_between_lr_sc(uint32_t raw) { return classify(raw) == PLAIN; }

/* The address of the SC that follows @pc with nothing but computation in between; RV_TLB_NONE if there is none. */
static uint64_t simple_sc(struct hart *h, uint64_t pc)
{
    for (unsigned n = 0; n < RV_LR_SC_INSNS; n++) {
        uint32_t raw, high;
        if (!fetch16(h, pc, &raw) || (rv_insn_len(raw) == 4 && !fetch16(h, pc + 2, &high)))
            break;
        if (rv_insn_len(raw) == 4)
            raw |= high << 16;
        enum between what = classify(raw);
        if (what == SC_FOUND)
            return pc;
        if (what == MEMORY)
            break;
        pc += rv_insn_len(raw);
    }
    return RV_TLB_NONE;
}

static bool load_reserved(struct hart *h, const struct rv_insn *in, unsigned size)
{
    struct rv_place p;
    uint64_t va = h->x[in->rs1];
    h->res_pa = RV_TLB_NONE;
    rv_reserve_drop(h);
    if (va & (size - 1))
        return misaligned(h, va, true);
    if (!rv_locate(h, va, size, RV_ACC_READ, &p))
        return false;
    if (!p.host)
        return rv_access_fault(h, va, RV_ACC_READ);
    if (in->raw >> 25 & 1)                  /* rl: not before earlier stores */
        atomic_thread_fence(memory_order_seq_cst);
    h->res_pc = simple_sc(h, h->pc);
    if (unlikely(h->res_pc == RV_TLB_NONE))
        rv_reserve_track(h, p.pa);
    h->res_val = size == 4 ? __atomic_load_n((uint32_t *)(void *)p.host, __ATOMIC_SEQ_CST)
                           : __atomic_load_n((uint64_t *)(void *)p.host, __ATOMIC_SEQ_CST);
    h->res_pa = p.pa;
    h->res_size = (uint8_t)size;
    put(h, in->rd, sext(h->res_val, size));
    return true;
}

static bool cas(uint8_t *host, unsigned size, uint64_t *expect, uint64_t v)
{
    if (size == 8)
        return __atomic_compare_exchange_n((uint64_t *)(void *)host, expect, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    uint32_t e = (uint32_t)*expect;
    bool ok = __atomic_compare_exchange_n((uint32_t *)(void *)host, &e, (uint32_t)v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    *expect = e;
    return ok;
}

/* Where an AMO or SC stores; false with a trap. */
static bool target(struct hart *h, uint64_t va, unsigned size, struct rv_place *p)
{
    if (va & (size - 1))
        return misaligned(h, va, false);
    if (!rv_locate(h, va, size, RV_ACC_WRITE, p))
        return false;
    return p->host || rv_access_fault(h, va, RV_ACC_WRITE);
}

/* The end of what began with rv_store_hold(). */
static void maybe_stored(struct hart *h, uint64_t va, struct rv_place *p, unsigned size, bool stored)
{
    if (!stored || !p->ram) {
        rv_store_release(p);
        return;
    }
    rv_store_break(h, p);
    rv_store_noticed(h, va, p, size);
}

static bool store_conditional(struct hart *h, const struct rv_insn *in, unsigned size)
{
    struct rv_place p;
    uint64_t va = h->x[in->rs1];
    if (!target(h, va, size, &p))
        return false;
    uint64_t expect = h->res_val;
    bool ok = h->res_pa == p.pa && h->res_size == size;
    if (h->res_ram && !p.ram)           /* the hart's own fast path stays while it tracks */
        p.ram = rv_ram_at(h, p.pa, &p.ram_off);
    rv_store_hold(&p);
    if (h->res_ram)                     /* the page is still watched if the reservation holds: then the guard is up */
        ok = ok && p.guarded && !atomic_load(&h->res_broken);
    else
        ok = ok && h->res_pc == h->pc - in->len;
    ok = ok && cas(p.host, size, &expect, h->x[in->rs2]);
    h->res_pa = RV_TLB_NONE;
    maybe_stored(h, va, &p, size, ok);
    rv_reserve_drop(h);
    put(h, in->rd, !ok);
    return true;
}

static uint64_t combine(unsigned op, uint64_t a, uint64_t b, unsigned size)
{
    int64_t sa = (int64_t)sext(a, size), sb = (int64_t)sext(b, size);
    uint64_t ua = size == 4 ? (uint32_t)a : a, ub = size == 4 ? (uint32_t)b : b;
    switch (op) {
    case RV_OP_AMOSWAP_W: case RV_OP_AMOSWAP_D: return b;
    case RV_OP_AMOADD_W: case RV_OP_AMOADD_D: return a + b;
    case RV_OP_AMOXOR_W: case RV_OP_AMOXOR_D: return a ^ b;
    case RV_OP_AMOAND_W: case RV_OP_AMOAND_D: return a & b;
    case RV_OP_AMOOR_W: case RV_OP_AMOOR_D: return a | b;
    case RV_OP_AMOMIN_W: case RV_OP_AMOMIN_D: return sa < sb ? a : b;
    case RV_OP_AMOMAX_W: case RV_OP_AMOMAX_D: return sa > sb ? a : b;
    case RV_OP_AMOMINU_W: case RV_OP_AMOMINU_D: return ua < ub ? a : b;
    default: return ua > ub ? a : b;
    }
}

static bool compare_and_swap(struct hart *h, const struct rv_insn *in, unsigned size)
{
    struct rv_place p;
    uint64_t va = h->x[in->rs1], expect = h->x[in->rd];
    if (!target(h, va, size, &p))
        return false;
    rv_store_hold(&p);
    maybe_stored(h, va, &p, size, cas(p.host, size, &expect, h->x[in->rs2]));
    put(h, in->rd, sext(expect, size));
    return true;
}

/* Register pairs; pair 0 reads as zero and is not written. */
#ifdef __x86_64__
__attribute__((target("cx16"), noinline))      /* inlined, clang would call a library function instead */
#endif
static bool compare_and_swap_q(struct hart *h, const struct rv_insn *in)
{
    struct rv_place p;
    uint64_t va = h->x[in->rs1];
    if (!target(h, va, 16, &p))
        return false;
    unsigned __int128 expect = in->rd ? (unsigned __int128)h->x[in->rd + 1] << 64 | h->x[in->rd] : 0;
    unsigned __int128 v = in->rs2 ? (unsigned __int128)h->x[in->rs2 + 1] << 64 | h->x[in->rs2] : 0;
    rv_store_hold(&p);
    unsigned __int128 old = __sync_val_compare_and_swap((unsigned __int128 *)(void *)p.host, expect, v);
    maybe_stored(h, va, &p, 16, old == expect);
    put(h, in->rd, (uint64_t)old);
    if (in->rd)
        h->x[in->rd + 1] = (uint64_t)(old >> 64);
    return true;
}

bool rv_amo(struct hart *h, const struct rv_insn *in)
{
    unsigned size = (in->raw >> 12 & 7) == 2 ? 4 : 8;
    struct rv_place p;
    switch (in->op) {
    case RV_OP_LR_W: case RV_OP_LR_D: return load_reserved(h, in, size);
    case RV_OP_SC_W: case RV_OP_SC_D: return store_conditional(h, in, size);
    case RV_OP_AMOCAS_W: case RV_OP_AMOCAS_D: return compare_and_swap(h, in, size);
    case RV_OP_AMOCAS_Q: return compare_and_swap_q(h, in);
    default: break;
    }
    uint64_t va = h->x[in->rs1], b = h->x[in->rs2];
    if (!target(h, va, size, &p))
        return false;
    rv_store_guard(h, &p);
    uint64_t old = size == 4 ? *(volatile uint32_t *)(void *)p.host : *(volatile uint64_t *)(void *)p.host;
    while (!cas(p.host, size, &old, combine(in->op, old, b, size)))
        ;
    if (p.ram)
        rv_store_noticed(h, va, &p, size);
    put(h, in->rd, sext(old, size));
    return true;
}
