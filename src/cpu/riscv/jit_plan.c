/* SPDX-License-Identifier: MIT */
/*
 * Which loads and stores of a block share one look at the TLB: those with the same base register, unchanged in between but for constants
 * that are added to it, whose offsets lie near each other. The first of a group checks that all of it is in one page with the rights that all need, and keeps
 * the page's addend; where that fails, the block goes on in its variant without groups, which asks for each access by itself.
 *
 * And which accesses look into a slot of the hart, that remembers one page, before they look into the TLB: those that are likely to
 * stay in one page. The stack pointer and the thread pointer have slots of their own; others are for loops that walk through memory.
 */
#include "cpu/riscv/jit_int.h"

#define SPAN_MAX 2048
#define STEP_MAX 512                    /* a base that moves farther in each round of a loop is in another page too often */

/* Size of the access; 0: the instruction is no load or store that could share. */
static unsigned access_size(const struct jit_tr *t, const struct rv_insn *in)
{
    switch (in->op) {
    case RV_OP_LB: case RV_OP_LBU: case RV_OP_SB: return 1;
    case RV_OP_LH: case RV_OP_LHU: case RV_OP_SH: return 2;
    case RV_OP_LW: case RV_OP_LWU: case RV_OP_SW: return 4;
    case RV_OP_LD: case RV_OP_SD: return 8;
    case RV_OP_FLW: case RV_OP_FSW: return t->fp == JIT_FP_SLOW ? 0 : 4;
    case RV_OP_FLD: case RV_OP_FSD: return t->fp == JIT_FP_SLOW ? 0 : 8;
    default: return 0;
    }
}

bool jit_is_store(const struct rv_insn *in)
{
    unsigned f = rv_insn_rows[in->op].fmt;
    return f == RV_FMT_ST || f == RV_FMT_FST;
}

/* Whether translations may be others after the instruction. */
static bool changes_context(const struct rv_insn *in)
{
    unsigned f = rv_insn_rows[in->op].fmt;
    return f == RV_FMT_NONE || f == RV_FMT_CSR || f == RV_FMT_CSRI || f == RV_FMT_SFENCE || f == RV_FMT_FENCE;
}

static bool writes_x(const struct rv_insn *in, unsigned r)
{
    switch (rv_insn_rows[in->op].fmt) {
    case RV_FMT_R: case RV_FMT_R1: case RV_FMT_I: case RV_FMT_LD: case RV_FMT_SH: case RV_FMT_U: case RV_FMT_J: case RV_FMT_CSR:
    case RV_FMT_CSRI: case RV_FMT_FCMP: case RV_FMT_F2X: case RV_FMT_FX:
        return in->rd == r;
    case RV_FMT_AMO:
        return in->rd == r || (in->op == RV_OP_AMOCAS_Q && in->rd + 1u == r);
    default:
        return false;
    }
}

/* Takes an access into the group, if it fits. @moved: what was added to the base since its first. */
static bool join(struct jit_share *g, const struct rv_insn *in, unsigned size, int32_t moved, bool past_branch)
{
    int32_t at = in->imm + moved, lo = MIN(at, g->lo), hi = MAX(at + (int32_t)size, g->hi);
    bool store = jit_is_store(in);
    if (hi - lo > SPAN_MAX || (store && past_branch && !g->wr))
        return false;                       /* what may never run must not ask for more rights */
    g->lo = lo;
    g->hi = hi;
    g->wr = g->wr || store;
    g->rd = g->rd || !store;
    g->count++;
    return true;
}

/* Whether all that the instruction does is to add a constant to the register. */
static bool steps(const struct rv_insn *in, unsigned r)
{
    return in->op == RV_OP_ADDI && in->rd == r && in->rs1 == r && in->imm <= SPAN_MAX && in->imm >= -SPAN_MAX;
}

/* The group that begins with instruction @first, with its members as bits. */
static uint64_t gather(const struct jit_tr *t, unsigned first, struct jit_share *g)
{
    const struct rv_insn *lead = &t->insn[first].in;
    uint64_t members = 0;
    bool past_branch = false;
    int32_t moved = 0;
    unsigned step = first;                  /* the last one */
    *g = (struct jit_share){ .base = lead->rs1, .lo = lead->imm, .hi = lead->imm, .first = (uint8_t)first };
    for (unsigned i = first; i < t->n; i++) {
        const struct rv_insn *in = &t->insn[i].in;
        if (i > first && t->label[i] && t->from[i] < (int)step)
            break;                          /* reached without the look at the TLB, or without the last step */
        unsigned size = access_size(t, in);
        if (size && in->rs1 == g->base && join(g, in, size, moved, past_branch)) {
            members |= BIT64(i);
            g->last = (uint8_t)i;
        }
        if (steps(in, g->base) && !t->skip[i] && moved <= SPAN_MAX && moved >= -SPAN_MAX) {
            moved += in->imm;
            step = i;
        } else if (writes_x(in, g->base) || changes_context(in)) {
            break;
        }
        past_branch = past_branch || rv_insn_rows[in->op].fmt == RV_FMT_B;
    }
    return members;
}

/* The place of the group's addend: r12 where no other group lives there, else memory; -1: all are taken. */
static int place(const struct jit_tr *t, const struct jit_share *g)
{
    for (int slot = 0; slot < JIT_SHARES; slot++) {
        bool taken = false;
        for (unsigned k = 0; k < t->n_share; k++)
            taken = taken || (t->share[k].slot == slot && t->share[k].first <= g->last && g->first <= t->share[k].last);
        if (!taken)
            return slot;
    }
    return -1;
}

void jit_plan_shares(struct jit_tr *t)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < t->n; i++) {
        struct jit_share g;
        if (!access_size(t, &t->insn[i].in) || (done >> i & 1) || !t->insn[i].in.rs1 || t->n_share == JIT_GROUPS)
            continue;
        uint64_t members = gather(t, i, &g) & ~done;
        int slot = place(t, &g);
        if (g.count < 2 || slot < 0 || !(members & (members - 1)))
            continue;
        g.slot = (uint8_t)slot;
        done |= members;
        t->share[t->n_share++] = g;
        for (unsigned k = i; k < t->n; k++)
            if (members >> k & 1)
                t->group[k] = (uint8_t)t->n_share;
    }
}

/*
 * Slots: pairs of registers that seldom leave a page, then those for loops. The first of a pair is for loads, the other for stores: all
 * blocks share them, and what a load found may be read only.
 */
static const uint8_t own_slot[] = { 2, 4, 3 };
#define LOOP_SLOT (2 * (unsigned)sizeof own_slot)

/* An address in the stack frame: a table there, most likely. */
static bool in_frame(const struct rv_insn *in)
{
    return (in->op == RV_OP_ADD && (in->rs1 == 2 || in->rs2 == 2)) || (in->op >= RV_OP_SH1ADD && in->op <= RV_OP_SH3ADD && in->rs2 == 2);
}

/* Whether the base of instruction @i moves little in each round of the loop around it. */
static bool walks(const struct jit_tr *t, unsigned i)
{
    unsigned first, last, base = t->insn[i].in.rs1;
    if (!jit_loop_around(t, i, &first, &last))
        return false;
    for (unsigned k = i; k-- > first;)
        if (writes_x(&t->insn[k].in, base)) {           /* what it was made of, whatever else the register is used for */
            if (in_frame(&t->insn[k].in))
                return true;
            break;
        }
    for (unsigned k = first; k <= last; k++) {
        const struct rv_insn *in = &t->insn[k].in;
        bool step = in->op == RV_OP_ADDI && in->rs1 == base && in->imm <= STEP_MAX && in->imm >= -STEP_MAX;
        if (writes_x(in, base) && !step && !in_frame(in))
            return false;
    }
    return true;
}

void jit_plan_slots(struct jit_tr *t)
{
    unsigned next[] = { LOOP_SLOT, LOOP_SLOT + 1 };
    for (unsigned i = 0; i < t->n; i++) {
        const struct rv_insn *in = &t->insn[i].in;
        struct jit_share *g = t->group[i] ? &t->share[t->group[i] - 1] : NULL;
        bool store = g ? g->wr : jit_is_store(in);
        if (!access_size(t, in) || (g && g->first != i))
            continue;
        for (unsigned k = 0; k < sizeof own_slot; k++)
            if (in->rs1 == own_slot[k])
                t->slot[i] = (uint8_t)(1 + 2 * k + store);
        if (!t->slot[i] && next[store] < RV_SLOTS && walks(t, i)) {
            t->slot[i] = (uint8_t)(1 + next[store]);
            next[store] += 2;
            if (g)
                g->slot = JIT_IN_SLOT;      /* nothing else here asks for that one */
        }
    }
}
