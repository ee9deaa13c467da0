/* SPDX-License-Identifier: MIT */
/*
 * -accel jit,check=on: the interpreter runs what a block holds, its steps are noted and taken back, then the block runs alone and
 * must end in the state after as many steps. Only computation, jumps and accesses to plain memory are checked, for nothing else can
 * be done twice: such instructions end a block then, and the interpreter runs them. A block that was right ALWAYS times is looked
 * at now and then only. What a device writes meanwhile may make a difference, too, so a block is tried again before it is found
 * guilty; then the program ends.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cpu/riscv/fpu.h"
#include "cpu/riscv/jit_int.h"
#include "cpu/riscv/mmu.h"

#define TRIES 4
enum { ALWAYS = 100, SELDOM = 256 };    /* a block is checked the first times, then one run in so many */

struct cpu_state { uint64_t x[32], f[32], pc, mstatus; uint8_t fflags; };
struct store { uint8_t *host; uint64_t before, after; unsigned size; };
struct jit_check {
    struct cpu_state at[JIT_INSNS + 1];
    struct store store[JIT_INSNS];      /* of step i; size 0: none */
    unsigned steps;
};

size_t jit_check_size(void) { return sizeof(struct jit_check); }

bool jit_checkable(const struct hart *h, const struct rv_insn *in)
{
    switch (rv_insn_rows[in->op].fmt) {
    case RV_FMT_NONE: case RV_FMT_FENCE: case RV_FMT_CSR: case RV_FMT_CSRI: case RV_FMT_AMO: case RV_FMT_CBO: case RV_FMT_SFENCE: return false;
    case RV_FMT_R4: case RV_FMT_FRM: case RV_FMT_FRM1: case RV_FMT_FR: case RV_FMT_FCMP: case RV_FMT_F2X: case RV_FMT_X2F: case RV_FMT_FX:
    case RV_FMT_XF: case RV_FMT_FLI:
        return (h->mstatus & MSTATUS_FS) && in->rm != 5 && in->rm != 6 && (in->rm != RM_DYN || h->frm <= RM_RMM);
    case RV_FMT_FLD: case RV_FMT_FST: return h->mstatus & MSTATUS_FS;
    case RV_FMT_B: case RV_FMT_J: return rv_has(h, RV_EXT_C);
    case RV_FMT_I: return in->op != RV_OP_JALR || rv_has(h, RV_EXT_C);
    default: return true;
    }
}

static void save(struct hart *h, struct cpu_state *s)
{
    rv_fpu_sync(h);
    memcpy(s->x, h->x, sizeof s->x);
    memcpy(s->f, h->f, sizeof s->f);
    s->pc = h->pc;
    s->mstatus = h->mstatus;
    s->fflags = h->fflags;
}

static void restore(struct hart *h, const struct cpu_state *s)
{
    rv_fpu_sync(h);                     /* what the host has collected goes to h->fflags, and is overwritten there */
    memcpy(h->x, s->x, sizeof s->x);
    memcpy(h->f, s->f, sizeof s->f);
    h->pc = s->pc;
    h->mstatus = s->mstatus;
    h->fflags = s->fflags;
}

static bool same(const struct cpu_state *a, const struct cpu_state *b) { return !memcmp(a, b, offsetof(struct cpu_state, fflags)) && a->fflags == b->fflags; }

/* The instruction at h->pc, if it can be done twice; a store is noted. */
static bool look(struct hart *h, struct store *s, struct rv_insn *in)
{
    const struct rv_xtlb_entry *x = rv_xlate_exec_fast(h, h->pc);
    unsigned off = (unsigned)(h->pc & ~RV_PAGE_MASK);
    struct rv_place p;
    *s = (struct store){ 0 };
    if (!x || x == &h->xtlb_once || off > RV_PAGE_SIZE - 4)
        return false;
    interp_prepare(h, ld_le32(x->host + off), in);
    if (!jit_checkable(h, in))
        return false;
    unsigned f = rv_insn_rows[in->op].fmt, size = 1u << (in->raw >> 12 & 3);
    bool store = f == RV_FMT_ST || f == RV_FMT_FST;
    if (!store && f != RV_FMT_LD && f != RV_FMT_FLD)
        return true;
    if (in->len == 2)
        size = in->op == RV_OP_LD || in->op == RV_OP_SD || in->op == RV_OP_FLD || in->op == RV_OP_FSD ? 8 :
               in->op == RV_OP_LW || in->op == RV_OP_SW ? 4 : in->op == RV_OP_LH || in->op == RV_OP_LHU || in->op == RV_OP_SH ? 2 : 1;
    uint64_t va = h->x[in->rs1] + (uint64_t)(int64_t)in->imm;
    if ((va & ~RV_PAGE_MASK) + size > RV_PAGE_SIZE || !rv_locate(h, va, size, store ? RV_ACC_WRITE : RV_ACC_READ, &p) || !p.host || (store && p.ram))
        return false;
    if (store) {
        *s = (struct store){ .host = p.host, .size = size };
        memcpy(&s->before, p.host, size);
    }
    return true;
}

/* Up to @n steps; false where one could not be taken: those before it are done. */
static bool steps(struct hart *h, struct jit_check *c, unsigned n)
{
    struct rv_insn in;
    save(h, &c->at[0]);
    for (c->steps = 0; c->steps < n;) {
        struct store *s = &c->store[c->steps];
        if (!look(h, s, &in))
            return false;
        interp_exec(h, &in);
        if (s->size)
            memcpy(&s->after, s->host, s->size);
        save(h, &c->at[++c->steps]);
    }
    return true;
}

static void take_back(struct hart *h, const struct jit_check *c)
{
    for (unsigned i = c->steps; i-- > 0;)
        if (c->store[i].size)
            memcpy(c->store[i].host, &c->store[i].before, c->store[i].size);
    restore(h, &c->at[0]);
}

/* The first of @n steps whose store is not in memory (and was not overwritten by a later one); -1. */
static int missing_store(const struct jit_check *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct store *s = &c->store[i];
        bool over = false;
        for (unsigned k = i + 1; s->size && k < n; k++)
            over = over || (c->store[k].size && c->store[k].host < s->host + s->size && s->host < c->store[k].host + c->store[k].size);
        if (s->size && !over && memcmp(s->host, &s->after, s->size))
            return (int)i;
    }
    return -1;
}

static void report(struct jit *j, uint32_t b, const struct cpu_state *is, unsigned n)
{
    const struct jit_check *c = j->check;
    const struct cpu_state *want = &c->at[MIN(n, c->steps)];
    fprintf(stderr, "backplane: translated code and the interpreter differ after %u of %u instructions\n", n, c->steps);
    for (unsigned r = 0; r < 32; r++) {
        if (is->x[r] != want->x[r])
            fprintf(stderr, "  %s: 0x%" PRIx64 ", interpreter 0x%" PRIx64 "\n", rv_xreg_names[r], is->x[r], want->x[r]);
        if (is->f[r] != want->f[r])
            fprintf(stderr, "  %s: 0x%" PRIx64 ", interpreter 0x%" PRIx64 "\n", rv_freg_names[r], is->f[r], want->f[r]);
    }
    if (is->pc != want->pc || is->mstatus != want->mstatus || is->fflags != want->fflags)
        fprintf(stderr, "  pc, mstatus, fflags: 0x%" PRIx64 " 0x%" PRIx64 " 0x%x, interpreter 0x%" PRIx64 " 0x%" PRIx64 " 0x%x\n", is->pc,
                is->mstatus, is->fflags, want->pc, want->mstatus, want->fflags);
    if (n <= c->steps && missing_store(c, n) >= 0)
        fprintf(stderr, "  the store of instruction %d is not what it should be\n", missing_store(c, n));
    jit_describe_block(j, b);
    abort();
}

/* Runs the block; it does not go on to another by itself. */
static void run_alone(struct jit *j, uint32_t b)
{
    struct hart *h = j->h;
    unsigned variant = 1;
    while (b && variant) {              /* where a group cannot share, it does go on without groups */
        uint64_t r = j->enter[(h->jit.ctx & 3) != JIT_FP_SLOW](h, j->block[b].far);
        if (r <= JIT_STALE)
            return;
        const struct jit_link *l = (const struct jit_link *)(uintptr_t)r;
        h->pc = h->jit.vbase + jit_key_off(l->key);
        variant = jit_key_variant(l->key);
        b = variant ? jit_block_at_pc(j, variant) : 0;
    }
}

/* Whether it is the block's turn. */
static bool due(struct jit *j, uint32_t b)
{
    if (j->block[b].checks == ALWAYS)
        return ++j->unchecked % SELDOM == 0;
    j->block[b].checks++;
    return true;
}

void jit_check_block(struct jit *j, uint32_t b)
{
    struct hart *h = j->h;
    if (!due(j, b)) {
        run_alone(j, b);
        return;
    }
    struct jit_check *c = j->check;
    struct cpu_state is;
    uint64_t retired = h->retired;
    for (unsigned tries = 1;; tries++) {
        int32_t budget = h->budget;
        if (!steps(h, c, j->block[b].insns)) {
            if (!c->steps)
                interp_step(h);
            return;
        }
        take_back(h, c);
        h->budget = 1;                  /* a jump out of it, or back in it, ends it */
        bool once = h->jit.once;
        h->jit.once = true;
        run_alone(j, b);
        h->jit.once = once;
        unsigned n = (unsigned)(1 - h->budget);
        save(h, &is);
        h->budget = budget - (int32_t)n;
        h->retired = retired;
        j->n.checked++;
        if (n <= c->steps && same(&is, &c->at[n]) && missing_store(c, n) < 0)
            return;
        if (tries == TRIES)
            report(j, b, &is, n);
        take_back(h, c);
        h->budget = budget;
        b = jit_block_at_pc(j, 0);      /* it may have been given up meanwhile */
        if (!b)
            return;
    }
}
