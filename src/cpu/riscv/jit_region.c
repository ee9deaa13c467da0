/* SPDX-License-Identifier: MIT */
/* Jumps within a block. */
#include "cpu/riscv/jit_int.h"

int64_t jit_side(const struct jit_tr *t, unsigned i)
{
    const struct rv_insn *in = &t->insn[i].in;
    return (int64_t)t->insn[i].off + (t->turned[i] ? in->len : in->imm);
}

int64_t jit_next(const struct jit_tr *t, unsigned i)
{
    const struct rv_insn *in = &t->insn[i].in;
    return (int64_t)t->insn[i].off + (t->turned[i] || in->op == RV_OP_JAL ? in->imm : in->len);
}

int jit_find_insn(const struct jit_tr *t, int64_t off)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->insn[i].off == off)
            return (int)i;
    return -1;
}

/* Marks instruction @k as one that the jump after instruction @i goes to. */
static void label(struct jit_tr *t, unsigned i, unsigned k)
{
    if (!t->label[k])
        t->from[k] = (int8_t)i;
    if (k <= i) {
        t->from[k] = -1;
        t->loops = true;
    }
    t->label[k] = true;
}

void jit_plan_jumps(struct jit_tr *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct rv_insn *in = &t->insn[i].in;
        bool branch = rv_insn_rows[in->op].fmt == RV_FMT_B, jump = in->op == RV_OP_JAL && in->rd == 32;
        t->target[i] = -1;
        if ((!branch && !jump) || (in->imm & 2 && !rv_has(t->h, RV_EXT_C)))
            continue;
        int k = jit_find_insn(t, jit_side(t, i));
        bool back = k <= (int)i;
        if (k < 0 || (back && t->variant) || (jump && !back))      /* the variant without groups goes back to the other one */
            continue;
        t->target[i] = (int8_t)k;
        label(t, i, (unsigned)k);
    }
    unsigned last = t->n - 1;
    bool jumps = t->insn[last].in.op == RV_OP_JAL;      /* it has a target of its own, or is a call */
    t->close = t->variant || t->stops || jumps ? -1 : (int8_t)jit_find_insn(t, jit_next(t, last));
    if (t->close >= 0)
        label(t, last, (unsigned)t->close);
}

int jit_jump_of(const struct jit_tr *t, unsigned e) { return e < t->n ? t->target[e] : t->close; }

bool jit_loop_around(const struct jit_tr *t, unsigned i, unsigned *first, unsigned *last)
{
    bool any = false;
    for (unsigned e = i; e <= t->n; e++) {
        int k = jit_jump_of(t, e);
        if (k < 0 || k > (int)i || (any && e - (unsigned)k >= *last - *first))
            continue;
        *first = (unsigned)k;
        *last = e < t->n ? e : e - 1;
        any = true;
    }
    return any;
}
