/* SPDX-License-Identifier: MIT */
/*
 * Where a block holds guest registers. Between blocks that is jit_reg. A block without loops brings in what it reads again soon, in
 * the place of what it does not, and writes to memory only what leaves its host register; a block with loops gives the host registers
 * to what its loops use most, from its beginning to its end. Whoever leaves the block, or asks the stubs for something, first
 * makes the places what they are between blocks: on the way out, so that what stays inside pays nothing for it.
 */
#include "cpu/riscv/jit_int.h"

#define WORTH 8u                        /* uses that a register must have more than another to take its place in a loop */
#define WORTH_ONCE 4u                   /* the same, elsewhere, of one that has to be back in its place at the end */

/* Sign-extends a register where it is. */
static void widen(struct jit_tr *t, const struct jit_place *p, unsigned r)
{
    unsigned host = p->reg[r] < 0 ? RCX : (unsigned)p->reg[r];
    if (p->reg[r] < 0)
        x86_rm(&t->e, X_MOVSXD, true, RCX, RBP, JIT_X(r));
    else
        x86_rr(&t->e, X_MOVSXD, true, host, host);
    if (p->reg[r] < 0)
        x86_rm(&t->e, X_MOV_TO, true, RCX, RBP, JIT_X(r));
}

void jit_move(struct jit_tr *t, const struct jit_place *from, const struct jit_place *to)
{
    uint32_t wider = from->narrow & ~to->narrow, stale = from->stale | wider, moved = 0;
    for (unsigned r = 1; r < 32; r++)
        moved |= (uint32_t)(from->reg[r] != to->reg[r]) << r;
    for (uint32_t m = wider | (stale & (moved | ~to->stale)); m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        if (wider >> r & 1)
            widen(t, from, r);
        if (from->reg[r] >= 0 && (stale & (moved | ~to->stale)) >> r & 1)
            x86_rm(&t->e, X_MOV_TO, true, (unsigned)from->reg[r], RBP, JIT_X(r));
    }
    for (uint32_t m = moved; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        if (to->reg[r] >= 0)
            x86_rm(&t->e, X_MOV, true, (unsigned)to->reg[r], RBP, JIT_X(r));
    }
}

void jit_widen(struct jit_tr *t, unsigned k, uint32_t may)
{
    struct jit_place to = t->now;
    to.narrow &= may | ~t->wanted_at[k];
    to.stale |= t->now.narrow & ~to.narrow;
    jit_move(t, &t->now, &to);
    t->now = to;
}

/* ---- blocks with loops ---- */

/* How often each guest register is used, an instruction in a loop counting eight times. */
static void count_uses(const struct jit_tr *t, unsigned uses[32])
{
    unsigned weight[JIT_INSNS];
    for (unsigned i = 0; i < t->n; i++)
        weight[i] = 1;
    for (unsigned i = 0; i <= t->n; i++)
        for (int k = jit_jump_of(t, i); k >= 0 && k <= (int)i && k < (int)t->n; k++)
            weight[k] = weight[k] < 512 ? weight[k] * 8 : 512;
    for (unsigned i = 0; i < t->n; i++) {
        struct jit_effect x = t->effect[i];
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
        if (t->now.reg[r] < 0 && (!most || uses[r] > uses[most]))
            most = r;
    if (uses[most] > WORTH)
        t->now.reg[most] = R12;
}

static void plan_loops(struct jit_tr *t)
{
    unsigned uses[32] = { 0 };
    count_uses(t, uses);
    give_spare(t, uses);
    for (;;) {
        unsigned most = 0, least = 0;
        for (unsigned r = 1; r < 32; r++) {
            if (t->now.reg[r] < 0 && (!most || uses[r] > uses[most]))
                most = r;
            if (t->now.reg[r] >= 0 && (!least || uses[r] < uses[least]))
                least = r;
        }
        if (uses[most] <= uses[least] + WORTH)
            break;
        t->now.reg[most] = t->now.reg[least];
        t->now.reg[least] = -1;
    }
    for (unsigned i = 0; i < t->n; i++)
        t->now.stale |= t->effect[i].writes;
}

/* ---- blocks without ---- */

/* For each instruction, what is yet to come: the next read of each register that sees its present value, and how often it is named. */
static void look_ahead(struct jit_tr *t)
{
    memset(t->next_read[t->n], (int)t->n, 32);
    memset(t->uses_left[t->n], 0, 32);
    for (unsigned i = t->n; i-- > 0;) {
        struct jit_effect x = t->effect[i];
        memcpy(t->next_read[i], t->next_read[i + 1], 32);
        memcpy(t->uses_left[i], t->uses_left[i + 1], 32);
        for (uint32_t m = t->skip[i] ? 0 : x.reads | x.writes; m; m &= m - 1) {
            unsigned r = (unsigned)__builtin_ctz(m);
            t->next_read[i][r] = (uint8_t)(x.reads >> r & 1 ? i : t->n);
            t->uses_left[i][r]++;
        }
    }
}

static bool at_home(const struct jit_tr *t, unsigned r) { return t->now.reg[r] >= 0 && t->now.reg[r] == jit_reg[r]; }

/* Whether a group of accesses keeps its addend in r12 during the present instruction. */
static bool spare_taken(const struct jit_tr *t)
{
    for (unsigned k = 0; k < t->n_share; k++)
        if (!t->share[k].slot && t->share[k].first <= t->i && t->i <= t->share[k].last)
            return true;
    return false;
}

static void put_away(struct jit_tr *t, unsigned r)
{
    if (t->now.stale >> r & 1)
        x86_rm(&t->e, X_MOV_TO, true, (unsigned)t->now.reg[r], RBP, JIT_X(r));
    t->now.reg[r] = -1;
    t->now.stale &= ~(1u << r);
}

/* The guest register, but none of @pinned, that had better be in memory than register @r in it; 0: none. */
static unsigned least_wanted(const struct jit_tr *t, unsigned r, uint32_t pinned)
{
    const uint8_t *next = t->next_read[t->i + 1], *left = t->uses_left[t->i];
    unsigned best = 0;
    for (unsigned v = 1; v < 32; v++)
        if (t->now.reg[v] >= 0 && !(pinned >> v & 1) && next[v] > next[r] && (!best || next[v] > next[best]) &&
            (!at_home(t, v) || left[r] >= left[v] + WORTH_ONCE))
            best = v;
    return best;
}

/* A host register for guest register @r, empty now; -1: it had better stay in memory. */
static int make_room(struct jit_tr *t, unsigned r, uint32_t pinned)
{
    uint32_t free = t->hosts | (spare_taken(t) ? 0 : 1u << R12);
    for (unsigned k = 1; k < 32; k++)
        if (t->now.reg[k] >= 0)
            free &= ~(1u << t->now.reg[k]);
    if (jit_reg[r] >= 0 && free >> jit_reg[r] & 1)
        return jit_reg[r];
    if (free)
        return __builtin_ctz(free);
    unsigned v = least_wanted(t, r, pinned);
    if (!v)
        return -1;
    int host = t->now.reg[v];
    put_away(t, v);
    return host;
}

/* Brings in what the present instruction reads, if that is read again. */
static void bring_in(struct jit_tr *t, struct jit_effect x)
{
    for (uint32_t m = x.reads; m; m &= m - 1) {
        unsigned r = (unsigned)__builtin_ctz(m);
        int host = t->now.reg[r] >= 0 || t->next_read[t->i + 1][r] == t->n ? -1 : make_room(t, r, x.reads | x.writes);
        if (host < 0)
            continue;
        x86_rm(&t->e, X_MOV, true, (unsigned)host, RBP, JIT_X(r));
        t->now.reg[r] = (int8_t)host;
        t->now.stale &= ~(1u << r);
    }
}

static void empty_spare(struct jit_tr *t)
{
    for (unsigned r = 1; r < 32; r++)
        if (t->now.reg[r] == R12)
            put_away(t, r);
}

void jit_place_insn(struct jit_tr *t)
{
    struct jit_effect x = t->effect[t->i];
    unsigned rd = x.writes ? (unsigned)__builtin_ctz(x.writes) : 0;
    int host = -1;
    if (!t->loops) {
        if (spare_taken(t))
            empty_spare(t);
        bring_in(t, x);
        if (rd && t->now.reg[rd] < 0 && !(x.reads >> rd & 1))
            host = make_room(t, rd, x.reads | x.writes);
    }
    t->place[2 * t->i] = t->now;
    if (host >= 0)
        t->now.reg[rd] = (int8_t)host;
    t->now.stale |= x.writes;
    bool made_narrow = t->whole[t->i] && t->now.narrow & x.reads, narrow = t->low[t->i] && (made_narrow || !t->whole[t->i]);
    t->widen = made_narrow && !t->low[t->i];
    t->now.narrow = narrow ? t->now.narrow | x.writes : t->now.narrow & ~x.writes;
    t->place[2 * t->i + 1] = t->now;
}

void jit_plan_registers(struct jit_tr *t)
{
    memcpy(t->home.reg, jit_reg, sizeof t->home.reg);
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] >= 0) {
            t->home.stale |= 1u << r;
            t->hosts |= 1u << jit_reg[r];
        }
    t->now = t->home;
    if (t->loops)
        plan_loops(t);
    else
        look_ahead(t);
}
