/* SPDX-License-Identifier: MIT */
/* Loads and stores: the soft TLB's fast check in line, the interpreter's handler behind it. */
#include <assert.h>

#include "cpu/riscv/jit_int.h"

static_assert(sizeof(struct rv_tlb_entry) == 32 && offsetof(struct rv_tlb, e) == 0, "the index below");

/* A rotation is a shift that copies, for the mask drops what comes in above. */
void jit_tlb_entry(struct emit *e, unsigned to, unsigned at, unsigned size)
{
    static_assert((uint64_t)RV_TLB_MORE << 5 <= 1 << (32 - (RV_PAGE_BITS - 5)), "the mask");
    x86_rorx(e, false, to, at, RV_PAGE_BITS - 5);
    x86_ri(e, G_AND, false, to, (int32_t)(size - 1) << 5);
    x86_rm(e, X_ADD, true, to, RBP, JIT_DISP(dtlb));
}

/*
 * rcx = TLB entry of the page of base + n->lo, if the last byte of [lo, hi) is in it, too, and the tags allow what is asked for; else
 * the TLB is filled. Where that does not help, the handler or the variant without groups goes on. Nothing need be aligned. base, a host
 * register, stays.
 */
static void look_up(struct jit_tr *t, unsigned base, const struct jit_share *n)
{
    struct emit *e = &t->e;
    bool stores = jit_is_store(&t->insn[t->i].in);
    if (n->lo)
        x86_rm(e, X_LEA, false, RCX, base, n->lo);
    jit_tlb_entry(e, RCX, n->lo ? RCX : base, RV_TLB_SIZE);
    if (n->hi != 1)
        x86_rm(e, X_LEA, true, RDX, base, n->hi - 1);
    else
        x86_rr(e, X_MOV, true, RDX, base);
    x86_ri(e, G_AND, true, RDX, -(int32_t)RV_PAGE_SIZE);
    if (n->wr && stores) {                      /* a walk for stores tells of loads, too */
        x86_rm(e, X_CMP, true, RDX, RCX, offsetof(struct rv_tlb_entry, wr));
        jit_cold_fill(t, x86_jcc(e, CC_NE, 0), true);
    }
    if (n->rd) {
        x86_rm(e, X_CMP, true, RDX, RCX, offsetof(struct rv_tlb_entry, rd));
        jit_cold_fill(t, x86_jcc(e, CC_NE, 0), false);
    }
    if (n->wr && !stores) {                     /* the page must not become dirty before a store is reached */
        x86_rm(e, X_CMP, true, RDX, RCX, offsetof(struct rv_tlb_entry, wr));
        jit_exit_alone(t, x86_jcc(e, CC_NE, 0));
    }
}

/* Bounds of the sizes that a slot is asked for. */
static const uint16_t slot_span[RV_SLOT_CLASSES] = { 8, 64, 256, 2048 };

/* A member of the slot that instruction @i asks. */
static int32_t slot_disp(const struct jit_tr *t, unsigned i, size_t member)
{
    return JIT_DISP(jit.slot) + (int32_t)((t->slot[i] - 1u) * sizeof(struct rv_slot) + member);
}

/* What the access, or the group that begins with it, asks for. */
static struct jit_share wanted(const struct jit_tr *t, const struct rv_insn *in, unsigned size, bool store)
{
    if (t->group[t->i])
        return t->share[t->group[t->i] - 1];
    return (struct jit_share){ .lo = in->imm, .hi = in->imm + (int32_t)size, .base = in->rs1, .rd = !store, .wr = store };
}

/* Jumps to the cold side if the slot's page is another. */
static void ask_slot(struct jit_tr *t, unsigned base, const struct jit_share *g)
{
    struct emit *e = &t->e;
    unsigned class = 0;
    while (slot_span[class] < g->hi - g->lo)
        class++;
    if (g->lo)
        x86_rm(e, X_LEA, true, RCX, base, g->lo);
    else
        x86_rr(e, X_MOV, true, RCX, base);
    x86_rm(e, X_SUB, true, RCX, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, tag)));
    x86_rm(e, X_CMP, true, RCX, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, limit) + class * sizeof(uint64_t)));
    struct jit_cold *c = jit_cold(t, COLD_SLOT, x86_jcc(e, CC_AE, 0));
    c->done = (int16_t)t->i;
    c->back = emit_here(e);
    c->arg = (uint32_t)(g->hi - g->lo);
    c->target = g->lo;
    c->variant = g->wr;
}

void jit_slot_miss(struct jit_tr *t, const struct jit_cold *c)
{
    struct emit *e = &t->e;
    const struct jit_share n = { .lo = (int32_t)c->target, .hi = (int32_t)(c->target + c->arg), .rd = true, .wr = c->variant };
    look_up(t, jit_src(t, t->insn[t->i].in.rs1, RAX), &n);
    x86_rm(e, X_MOV_TO, true, RDX, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, tag)));
    x86_rm(e, X_MOV, true, RDX, RCX, offsetof(struct rv_tlb_entry, addend));
    x86_rm(e, X_MOV_TO, true, RDX, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, addend)));
    for (unsigned i = 0; i < RV_SLOT_CLASSES; i++)
        x86_mov_mi(e, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, limit) + i * sizeof(uint64_t)), (int32_t)RV_PAGE_SIZE - slot_span[i] + 1);
    x86_jmp(e, c->back);
}

/* The first of a group looks for all. */
static void lead(struct jit_tr *t, unsigned base, const struct jit_share *g)
{
    unsigned addend = g->slot ? RDX : R12;
    if (t->slot[t->i]) {
        ask_slot(t, base, g);
        x86_rm(&t->e, X_MOV, true, addend, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, addend)));
    } else {
        look_up(t, base, g);
        x86_rm(&t->e, X_MOV, true, addend, RCX, offsetof(struct rv_tlb_entry, addend));
    }
    if (g->slot && g->slot != JIT_IN_SLOT)
        x86_rm(&t->e, X_MOV_TO, true, RDX, RBP, JIT_DISP(jit.share[g->slot]));
}

/* The others find the addend where it is kept. */
static void follow(struct jit_tr *t, const struct jit_share *g)
{
    if (g->slot)
        x86_rm(&t->e, X_MOV, true, RDX, RBP,
               g->slot == JIT_IN_SLOT ? slot_disp(t, g->first, offsetof(struct rv_slot, addend)) : JIT_DISP(jit.share[g->slot]));
}

void jit_address(struct jit_tr *t, const struct rv_insn *in, unsigned size, bool store)
{
    struct jit_share want = wanted(t, in, size, store);
    unsigned base = jit_src(t, in->rs1, RAX);
    bool in_group = t->group[t->i];
    t->base = base;
    t->disp = in->imm;
    t->index = in_group && !want.slot ? R12 : RDX;
    if (in_group && t->i == want.first) {
        lead(t, base, &want);
    } else if (in_group) {
        follow(t, &want);
    } else if (t->slot[t->i]) {
        ask_slot(t, base, &want);
        x86_rm(&t->e, X_MOV, true, RDX, RBP, slot_disp(t, t->i, offsetof(struct rv_slot, addend)));
    } else {
        look_up(t, base, &want);
        x86_rm(&t->e, X_MOV, true, RDX, RCX, offsetof(struct rv_tlb_entry, addend));
    }
}

void jit_atomic_address(struct jit_tr *t, const struct rv_insn *in, unsigned size)
{
    struct emit *e = &t->e;
    jit_get(t, RAX, in->rs1);
    x86_rr(e, X_MOV, true, RDX, RAX);
    jit_tlb_entry(e, RCX, RAX, RV_TLB_SIZE);
    x86_ri(e, G_AND, true, RDX, -(int32_t)RV_PAGE_SIZE | (int32_t)(size - 1));
    x86_rm(e, X_CMP, true, RDX, RCX, offsetof(struct rv_tlb_entry, wr));
    jit_cold_slow(t, x86_jcc(e, CC_NE, 0));
    x86_rm(e, X_ADD, true, RAX, RCX, offsetof(struct rv_tlb_entry, addend));
}

void jit_mem(struct jit_tr *t, unsigned op, bool w, unsigned reg)
{
    x86_rmx(&t->e, op, w, reg, t->base, t->index, 0, t->disp);
}

static void load_to(struct jit_tr *t, const struct rv_insn *in, unsigned op, bool w, unsigned size)
{
    unsigned d = jit_dst(t, in->rd, RAX);
    jit_address(t, in, size, false);
    jit_mem(t, op, w, d);
    jit_put(t, in->rd, d);
}

static void store_from(struct jit_tr *t, const struct rv_insn *in, unsigned size)
{
    jit_address(t, in, size, true);
    bool zero = !in->rs2;
    unsigned v = zero ? 0 : jit_src(t, in->rs2, RCX), op = size == 1 ? zero ? X_MOV8_IMM : X_MOV8_TO : zero ? X_MOV_IMM : X_MOV_TO;
    if (size == 2)
        emit_8(&t->e, 0x66);
    jit_mem(t, op, size == 8, v);
    for (unsigned i = 0; zero && i < MIN(size, 4); i++)
        emit_8(&t->e, 0);
}

void jit_fence(struct jit_tr *t)
{
    emit_8(&t->e, 0xf0);                                /* lock or dword [rsp], 0 */
    x86_mi(&t->e, G_OR, false, RSP, 0, 0);
}

bool jit_emit_mem(struct jit_tr *t, const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_LB: load_to(t, in, X_MOVSX8, true, 1); return true;
    case RV_OP_LH: load_to(t, in, X_MOVSX16, true, 2); return true;
    case RV_OP_LW: load_to(t, in, X_MOVSXD, true, 4); return true;
    case RV_OP_LD: load_to(t, in, X_MOV, true, 8); return true;
    case RV_OP_LBU: load_to(t, in, X_MOVZX8, false, 1); return true;
    case RV_OP_LHU: load_to(t, in, X_MOVZX16, false, 2); return true;
    case RV_OP_LWU: load_to(t, in, X_MOV, false, 4); return true;
    case RV_OP_SB: store_from(t, in, 1); return true;
    case RV_OP_SH: store_from(t, in, 2); return true;
    case RV_OP_SW: store_from(t, in, 4); return true;
    case RV_OP_SD: store_from(t, in, 8); return true;
    case RV_OP_FENCE:
        if (in->raw == RV_INSN_PAUSE && hart_by_turns(t->h))
            return false;
        if ((in->imm & 0x10) && (in->imm & 0x2))        /* earlier stores before later loads: all that this host reorders */
            jit_fence(t);
        return true;
    default:
        return false;
    }
}
