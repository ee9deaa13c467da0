/* SPDX-License-Identifier: MIT */
/*
 * Jumps within a block, and where it holds guest registers. Between blocks that is jit_reg; a block with a loop gives the host
 * registers to those guest registers that its loops use most, moves them on the way in and out, and before it calls a stub.
 */
#include "cpu/riscv/jit_int.h"

#define WORTH 8u                        /* uses that a register must have more than another to take its place */

int jit_find_insn(const struct jit_tr *t, int64_t off)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->insn[i].off == off)
            return (int)i;
    return -1;
}

void jit_plan_jumps(struct jit_tr *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct rv_insn *in = &t->insn[i].in;
        bool branch = rv_insn_rows[in->op].fmt == RV_FMT_B, jump = in->op == RV_OP_JAL && in->rd == 32;
        t->target[i] = -1;
        if ((!branch && !jump) || (in->imm & 2 && !rv_has(t->h, RV_EXT_C)))
            continue;
        int k = jit_find_insn(t, (int64_t)t->insn[i].off + in->imm);
        bool back = k <= (int)i;
        if (k < 0 || (back && t->variant) || (jump && !back))      /* the variant without groups goes back to the other one */
            continue;
        t->target[i] = (int8_t)k;
        if (!t->label[k])
            t->from[k] = (int8_t)i;
        if (back)
            t->from[k] = -1;
        t->label[k] = true;
        t->loops = t->loops || back;
    }
}

bool jit_loop_around(const struct jit_tr *t, unsigned i, unsigned *first, unsigned *last)
{
    bool any = false;
    for (unsigned e = i; e < t->n; e++) {
        int k = t->target[e];
        if (k < 0 || k > (int)i || (any && e - (unsigned)k >= *last - *first))
            continue;
        *first = (unsigned)k;
        *last = e;
        any = true;
    }
    return any;
}

/* How often each guest register is used, an instruction in a loop counting eight times. */
static void count_uses(const struct jit_tr *t, unsigned uses[32])
{
    unsigned weight[JIT_INSNS];
    for (unsigned i = 0; i < t->n; i++)
        weight[i] = 1;
    for (unsigned i = 0; i < t->n; i++)
        for (int k = t->target[i]; k >= 0 && k <= (int)i; k++)
            weight[k] = weight[k] < 512 ? weight[k] * 8 : 512;
    for (unsigned i = 0; i < t->n; i++) {
        struct jit_effect x = jit_effect(&t->insn[i].in);
        for (unsigned r = 1; r < 32 && !t->skip[i]; r++)
            uses[r] += weight[i] * ((x.reads >> r & 1) + (x.writes >> r & 1));
    }
}

/* Where no group of accesses keeps its addend in r12, a guest register can live there. */
static void give_spare(struct jit_tr *t, const unsigned uses[32])
{
    unsigned most = 0;
    for (unsigned k = 0; k < t->n_share; k++)
        if (!t->share[k].slot)
            return;
    for (unsigned r = 1; r < 32; r++)
        if (t->reg[r] < 0 && (!most || uses[r] > uses[most]))
            most = r;
    if (uses[most] > WORTH)
        t->reg[most] = R12;
}

void jit_plan_registers(struct jit_tr *t)
{
    unsigned uses[32] = { 0 };
    memcpy(t->reg, jit_reg, sizeof t->reg);
    if (!t->loops)
        return;
    count_uses(t, uses);
    give_spare(t, uses);
    for (;;) {
        unsigned most = 0, least = 0;
        for (unsigned r = 1; r < 32; r++) {
            if (t->reg[r] < 0 && (!most || uses[r] > uses[most]))
                most = r;
            if (t->reg[r] >= 0 && (!least || uses[r] < uses[least]))
                least = r;
        }
        if (uses[most] <= uses[least] + WORTH)
            return;
        t->reg[most] = t->reg[least];
        t->reg[least] = -1;
    }
}

void jit_registers_enter(struct jit_tr *t)
{
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] >= 0 && t->reg[r] < 0)
            x86_rm(&t->e, X_MOV_TO, true, (unsigned)jit_reg[r], RBP, JIT_X(r));
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] < 0 && t->reg[r] >= 0)
            x86_rm(&t->e, X_MOV, true, (unsigned)t->reg[r], RBP, JIT_X(r));
}

void jit_registers_leave(struct jit_tr *t)
{
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] < 0 && t->reg[r] >= 0)
            x86_rm(&t->e, X_MOV_TO, true, (unsigned)t->reg[r], RBP, JIT_X(r));
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] >= 0 && t->reg[r] < 0)
            x86_rm(&t->e, X_MOV, true, (unsigned)jit_reg[r], RBP, JIT_X(r));
}

/* Called like @stub, with this block's registers. Where the stub leaves, nothing else is on the stack. */
static uint32_t routine(struct jit_tr *t, uint32_t stub)
{
    if (!memcmp(t->reg, jit_reg, sizeof t->reg))
        return stub;
    uint32_t at = emit_here(&t->e);
    x86_pop(&t->e, RCX);
    x86_rm(&t->e, X_MOV_TO, true, RCX, RBP, JIT_DISP(jit.ret));
    jit_registers_leave(t);
    x86_call(&t->e, stub);
    jit_registers_enter(t);
    x86_rm(&t->e, X_MOV, true, RCX, RBP, JIT_DISP(jit.ret));
    x86_jmp_reg(&t->e, RCX);
    return at;
}

void jit_region_routines(struct jit_tr *t)
{
    const struct jit_stubs *s = &t->j->stub[t->fp != JIT_FP_SLOW];
    t->slow = routine(t, s->slow);
    t->poll = routine(t, s->poll);
}
