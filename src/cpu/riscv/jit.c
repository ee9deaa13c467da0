/* SPDX-License-Identifier: MIT */
/* The translator's loop: finding blocks, linking them, what generated code calls. See jit_int.h. */
#include <stdlib.h>

#include "base/rcu.h"
#include "cpu/riscv/jit_int.h"

/* ---- contexts ---- */

static unsigned fp_mode(const struct hart *h)
{
    return !(h->mstatus & MSTATUS_FS) || h->frm > 3 ? JIT_FP_SLOW : h->frm ? JIT_FP_OTHER : JIT_FP_RNE;
}

static uint32_t context(const struct hart *h)
{
    return h->xtlb->id << 2 | fp_mode(h);
}

/* Context numbers have 30 bits: when the ids of the TLB outgrow them, all begin again. */
static void context_update(struct jit *j)
{
    struct hart *h = j->h;
    if (unlikely(h->tlb_next_id >> 30 != j->era)) {
        rv_tlb_flush_all(h);
        memset(j->jump, 0, sizeof *j->jump * JIT_JUMP_SIZE);
        j->era = h->tlb_next_id >> 30;
    }
    h->jit.ctx = context(h);
}

/* ---- what generated code calls ---- */

static uint64_t leave_trap(struct hart *h, uint64_t pc)
{
    h->pc = pc;
    h->budget--;                            /* time passes, but nothing was retired */
    h->retired--;
    rv_trap_take(h, pc);
    rv_irq_take(h);
    return 1;
}

uint64_t jit_slow(struct hart *h, const struct jit_site *s)
{
    struct jit *j = h->accel_data;
    uint64_t pc = h->jit.vbase + s->off, next = pc + s->in.len;
    uint32_t changes = h->jit.changes;
    j->n.slow++;
    h->budget -= s->index;
    h->pc = next;
    enum step r = s->fn(h, &s->in, pc);
    if (likely(r == NEXT)) {
        /* A jump that is not translated, an assumption that failed, or one that the block may still rely on: that pages are the same. */
        if (unlikely(h->pc != next || s->leave || h->jit.changes != changes)) {
            h->budget--;
            return 1;
        }
        h->budget += s->index;
        h->jit.ctx = context(h);            /* a device may have changed the memory map */
        return 0;
    }
    if (r == LEAVE) {
        if (h->pc == next && h->budget > 1 && h->jit.ctx == context(h) && !rv_irq_pending(h)) {
            h->budget += s->index;
            return 0;
        }
        h->budget--;
        rv_irq_take(h);
        return 1;
    }
    return leave_trap(h, pc);
}

/* ---- pages ---- */

static void page_drop(struct jit *j, struct jit_page *p)
{
    for (uint32_t b = p->blocks, next; b; b = next) {
        uint32_t *at = &j->hash[jit_hash(j->block[b].key)];
        next = j->block[b].page_next;
        while (*at != b)
            at = &j->block[*at].next;
        *at = j->block[b].next;
        j->n.dropped++;
    }
    p->blocks = 0;
    p->lines = 0;
}

static bool page_same(const struct jit_page *p, const uint8_t *host)
{
    for (uint64_t m = p->lines; m; m &= m - 1) {
        unsigned at = ctz64(m) * 64;
        if (memcmp(p->bytes + at, host + at, 64))
            return false;
    }
    return true;
}

static struct jit_page *page_get(struct jit *j, const struct rv_xtlb_entry *x)
{
    struct jit_page **chain = &j->page[x->pa >> RV_PAGE_BITS & (ARRAY_SIZE(j->page) - 1)], *p = *chain;
    while (p && p->pa != x->pa)
        p = p->next;
    if (likely(p && p->epoch == j->epoch && p->ext == j->h->ext))
        return p;
    if (!p) {
        p = xnew(struct jit_page);
        p->pa = x->pa;
        p->next = *chain;
        *chain = p;
    } else if (p->ext != j->h->ext || !page_same(p, x->host)) {
        page_drop(j, p);
    }
    p->ext = j->h->ext;
    p->epoch = j->epoch;
    return p;
}

static void pages_free(struct jit *j)
{
    for (size_t i = 0; i < ARRAY_SIZE(j->page); i++) {
        for (struct jit_page *p = j->page[i], *next; p; p = next) {
            next = p->next;
            free(p);
        }
        j->page[i] = NULL;
    }
}

/* ---- blocks ---- */

static bool full(const struct jit *j)
{
    return j->size - j->used < JIT_ROOM || j->max_blocks - j->blocks < 2 || j->max_sites - j->sites < 5 * JIT_INSNS ||
           j->max_links - j->links < 2 * JIT_INSNS;
}

static uint32_t block_get(struct jit *j, const struct rv_xtlb_entry *x, unsigned off, unsigned fp, unsigned variant)
{
    struct jit_page *p = page_get(j, x);
    uint64_t key = jit_key(p->pa, off, fp, variant);
    for (uint32_t b = j->hash[jit_hash(key)]; b; b = j->block[b].next)
        if (j->block[b].key == key)
            return b;
    if (unlikely(full(j))) {
        jit_code_reset(j);
        pages_free(j);
        j->n.flushes++;
        p = page_get(j, x);
    }
    return jit_translate(j, p, x->host, off, fp, variant);
}

/* The block for h->pc; 0 when something else was done instead. */
static uint32_t block_at_pc(struct jit *j, unsigned variant)
{
    struct hart *h = j->h;
    const struct rv_xtlb_entry *x = rv_xlate_exec_fast(h, h->pc);
    unsigned off = (unsigned)(h->pc & ~RV_PAGE_MASK);
    if (unlikely(!x)) {
        h->budget--;
        h->retired--;
        rv_trap_take(h, h->pc);
        return 0;
    }
    h->jit.ctx = context(h);                /* the look-up may have chosen another */
    if (unlikely(x == &h->xtlb_once || (off == RV_PAGE_SIZE - 2 && rv_insn_len(ld_le16(x->host + off)) == 4))) {
        interp_step(h);
        return 0;
    }
    return block_get(j, x, off, h->jit.ctx & 3, variant);
}

/* Code for h->pc; 0 when there was none to run: h->pc may have changed. */
static uint32_t code_at_pc(struct jit *j)
{
    struct hart *h = j->h;
    context_update(j);
    struct jit_jump *l = &j->jump[jit_jump_hash(h->pc) >> 1];
    if (likely(l->pc == h->pc && l->ctx == h->jit.ctx && l->code))
        return l->code;
    uint32_t b = block_at_pc(j, 0);
    if (b)
        *l = (struct jit_jump){ .pc = h->pc, .ctx = h->jit.ctx, .code = j->block[b].far };
    return b ? l->code : 0;
}

/* A jump within the page was taken for the first time: from now on it goes straight there. The code that follows. */
static uint32_t link_up(struct jit *j, struct jit_link *l)
{
    struct hart *h = j->h;
    uint64_t flushes = j->n.flushes;
    uint8_t *at = l->at;
    struct emit e = { .run_delta = j->x - j->w };
    h->pc = h->jit.vbase + l->off;
    uint32_t old = h->jit.ctx;
    context_update(j);
    uint32_t b = block_at_pc(j, l->variant);
    if (!b)
        return 0;
    /* Only if the page is still what it was: nothing has been written over the jump, no other context came in between. */
    if (flushes == j->n.flushes && old == h->jit.ctx) {
        x86_patch(&e, at, j->block[b].near);
        j->n.links++;
    }
    return j->block[b].far;
}

static void jit_run(struct hart *h)
{
    struct jit *j = h->accel_data;
    h->jit.rcu_seen = &rcu_self.seen;
    while (hart_poll(h)) {
        while (h->budget > 0) {
            uint32_t code = code_at_pc(j);
            while (code) {
                j->n.entries++;
                struct jit_link *l = (struct jit_link *)(uintptr_t)j->enter[(h->jit.ctx & 3) != JIT_FP_SLOW](h, code);
                code = l ? link_up(j, l) : 0;
            }
        }
    }
}

/* ---- life ---- */

static bool jit_init(struct hart *h, struct err *e)
{
    rv_decode_init();
    struct jit *j = xnew(struct jit);
    h->accel_data = j;
    j->h = h;
    /* All of them share the 1 GiB that the host gives below 2 GiB; tables take half as much again. */
    size_t most = align_down((512u << 20) / hart_set_planned(h->set), 4096u);
    return jit_code_init(j, MIN(jit_options.cache, MAX(most, 1u << 20)), e);
}

static void jit_fini(struct hart *h)
{
    struct jit *j = h->accel_data;
    if (!j)
        return;
    pages_free(j);
    jit_code_fini(j);
    free(j);
    h->accel_data = NULL;
}

/* fence.i: every page is compared with memory before it is used again. */
static void jit_flush_all(struct hart *h)
{
    struct jit *j = h->accel_data;
    j->epoch++;
    if (h->pages)                           /* the interpreter's, which runs in its place for a debugger */
        accel_interp.flush_all(h);
    memset(j->jump, 0, sizeof *j->jump * JIT_JUMP_SIZE);
    h->jit.ctx = 0;                         /* leaves the block that runs */
}

static void jit_flush_page(struct hart *h, uint64_t pa)
{
    jit_flush_all(h);
}

static void jit_stats(const struct hart *h, void (*put)(void *, const char *name, uint64_t v), void *arg)
{
    const struct jit *j = h->accel_data;
    put(arg, "jit-blocks", j->n.blocks);
    put(arg, "jit-guest-insns", j->n.insns);
    put(arg, "jit-code-bytes", j->n.bytes);
    put(arg, "jit-links", j->n.links);
    put(arg, "jit-entries", j->n.entries);
    put(arg, "jit-handler-calls", j->n.slow);
    put(arg, "jit-dropped", j->n.dropped);
    put(arg, "jit-flushes", j->n.flushes);
}

const struct accel_ops accel_jit = {
    .name = "jit", .desc = "Translator to x86-64 code", .options = jit_option_rows, .init = jit_init, .fini = jit_fini, .run = jit_run,
    .flush_page = jit_flush_page, .flush_all = jit_flush_all, .stats = jit_stats,
};
