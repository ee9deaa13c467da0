/* SPDX-License-Identifier: MIT */
/* The interpreter's loop and its pages of decoded instructions; see interp_ops.c. */
#include <stdlib.h>

#include "base/log.h"
#include "cpu/riscv/interp_int.h"

#define SLOTS (RV_PAGE_SIZE / 2)
#define PAGES 4096u                     /* per hart, direct mapped by physical page number */

struct slot { interp_fn *fn; struct rv_insn in; bool exact; };      /* exact: looks at h->budget, or at what follows from it */
struct page {
    uint64_t pa, ext, epoch;            /* epoch: another than the interpreter's: the copy is to be compared */
    uint8_t bytes[RV_PAGE_SIZE];
    struct slot slot[SLOTS];
};
struct interp { uint64_t epoch; struct page *page[PAGES]; };

static struct interp *interp_of(struct hart *h)
{
    if (unlikely(!h->pages))
        h->pages = xnew(struct interp);
    return h->pages;
}

/* The page's decoded form; NULL: translations may have changed, to be tried again. */
static struct page *page_get(struct hart *h, const struct rv_xtlb_entry *x)
{
    struct interp *t = interp_of(h);
    struct page **at = &t->page[x->pa >> RV_PAGE_BITS & (PAGES - 1)], *p = *at;
    if (likely(p && p->pa == x->pa && p->epoch == t->epoch && p->ext == h->ext))
        return p;
    if (!rv_code_page_add(h, x->pa))
        return NULL;
    if (!p) {
        p = *at = malloc(sizeof *p);
        if (!p)
            abort();
        p->pa = RV_TLB_NONE;
    }
    bool changed = rv_code_copy(p->bytes, x->host, RV_PAGE_SIZE);
    if (p->pa != x->pa || p->ext != h->ext || changed) {
        for (unsigned i = 0; i < SLOTS; i++)
            p->slot[i].fn = NULL;
        h->stats.blocks_built++;
    }
    p->pa = x->pa;
    p->ext = h->ext;
    p->epoch = t->epoch;
    return p;
}

void interp_prepare(const struct hart *h, uint32_t raw, struct rv_insn *in)
{
    rv_decode(raw, h->ext, in);
    unsigned f = rv_insn_rows[in->op].fmt;
    bool to_f = f == RV_FMT_FLD || f == RV_FMT_R4 || f == RV_FMT_FRM || f == RV_FMT_FRM1 || f == RV_FMT_FR || f == RV_FMT_X2F ||
                f == RV_FMT_XF || f == RV_FMT_FLI;
    if (!in->rd && !to_f)
        in->rd = 32;
}

static void prepare(struct hart *h, uint32_t raw, struct slot *s)
{
    interp_prepare(h, raw, &s->in);
    s->fn = interp_handler(s->in.op);
    unsigned f = rv_insn_rows[s->in.op].fmt;
    s->exact = f == RV_FMT_NONE || f == RV_FMT_CSR || f == RV_FMT_CSRI || f == RV_FMT_FENCE || f == RV_FMT_CBO || f == RV_FMT_SFENCE ||
               f == RV_FMT_AMO;
    bool reaches_devices = f == RV_FMT_LD || f == RV_FMT_ST || f == RV_FMT_FLD || f == RV_FMT_FST;
    s->exact = s->exact || (reaches_devices && hart_by_turns(h));
}

/* In place of an instruction at an offset where some page has a breakpoint. */
static enum step op_breakpoint(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    return rv_debug_at(pc) ? STOP : interp_handler(in->op)(h, in, pc);
}

/* The instruction at h->pc where it cannot be cached: across pages, or where rights differ within the page. */
static bool fetch_once(struct hart *h, struct slot *s)
{
    const struct rv_xtlb_entry *x = rv_xlate_exec(h, h->pc);
    if (!x)
        return false;
    uint32_t raw = ld_le16(x->host + (h->pc & ~RV_PAGE_MASK));
    if (rv_insn_len(raw) == 4) {
        x = rv_xlate_exec(h, h->pc + 2);
        if (!x)
            return false;
        raw |= (uint32_t)ld_le16(x->host + ((h->pc + 2) & ~RV_PAGE_MASK)) << 16;
    }
    prepare(h, raw, s);
    return true;
}

/* What follows an instruction at @pc that did not just go on; h->budget does not count it yet. */
static void finish(struct hart *h, enum step r, uint64_t pc)
{
    if (r == LEAVE) {
        h->budget--;
        rv_irq_take(h);
        return;
    }
    h->pc = pc;
    if (r == STOP)
        rv_debug_stop(h, DEBUG_STOP_BP, pc);
    if (r == STOP || h->trap.cause == RV_CAUSE_STOP) {
        h->slice -= h->budget;              /* the slice ends here: hart_park() */
        h->budget = 0;
        return;
    }
    h->budget--;                            /* time passes, but nothing was retired */
    h->retired--;
    rv_trap_take(h, pc);
    rv_irq_take(h);
}

/* Executes the prepared instruction at h->pc; whether the one after it comes next. */
static bool execute(struct hart *h, const struct slot *s)
{
    uint64_t pc = h->pc, next = pc + s->in.len;
    h->pc = next;
    enum step r = s->fn(h, &s->in, pc);
    if (r == NEXT)
        h->budget--;
    else
        finish(h, r, pc);
    return r == NEXT && h->pc == next;
}

/* Fills the slot of h->pc, or @once where it cannot be kept; NULL: a trap was taken. */
static struct slot *decode_slot(struct hart *h, struct page *p, struct slot *s, struct slot *once)
{
    unsigned off = (unsigned)(h->pc & ~RV_PAGE_MASK);
    uint32_t raw = ld_le16(p->bytes + off);
    if (rv_insn_len(raw) == 4 && off == RV_PAGE_SIZE - 2) {
        if (!fetch_once(h, once)) {
            h->budget--;
            h->retired--;
            rv_trap_take(h, h->pc);
            return NULL;
        }
        s = once;
    } else {
        if (rv_insn_len(raw) == 4)
            raw |= (uint32_t)ld_le16(p->bytes + off + 2) << 16;
        prepare(h, raw, s);
    }
    if (log_on(LOG_IN_ASM))
        rv_log_insn(&s->in, h->pc);
    if (rv_debug_on() && rv_debug_offset(off))
        s->fn = op_breakpoint;
    return s;
}

/*
 * Executes within a page. The pc and the budget live in registers: h->pc is right before each instruction (and is the next one's
 * during it), h->budget where an instruction is marked exact and at the end.
 */
static void run_page(struct hart *h, struct page *p)
{
    uint64_t va = h->pc & RV_PAGE_MASK, pc = h->pc, epoch = p->epoch;
    int32_t left = h->budget;
    bool stale = false;
    struct slot *at = &p->slot[(pc & ~RV_PAGE_MASK) / 2], once;
    for (;;) {
        struct slot *s = at;
        if (unlikely(!s->fn)) {
            h->budget = left;
            s = decode_slot(h, p, s, &once);
            if (!s)
                return;
        }
        uint64_t next = pc + s->in.len;
        bool exact = s->exact;
        h->pc = next;
        if (unlikely(exact))
            h->budget = left;
        enum step r = s->fn(h, &s->in, pc);
        if (unlikely(exact)) {
            left = h->budget;
            stale = p->epoch != epoch;          /* a fence of another hart was served meanwhile */
        }
        if (unlikely(r != NEXT)) {
            h->budget = left;
            finish(h, r, pc);
            return;
        }
        left--;
        at += (next - pc) / 2;
        pc = next;
        if (h->pc != next) {
            pc = h->pc;
            at = &p->slot[(pc & ~RV_PAGE_MASK) / 2];
        }
        if (left <= 0 || stale || (pc ^ va) & RV_PAGE_MASK)
            break;
    }
    h->budget = left;
}

/* One instruction, nothing kept. */
void interp_step(struct hart *h)
{
    struct slot s;
    h->stats.slow_steps++;
    if (!fetch_once(h, &s)) {
        h->budget--;
        h->retired--;
        rv_trap_take(h, h->pc);
        return;
    }
    execute(h, &s);
}

void interp_straight(struct hart *h, const struct rv_xtlb_entry *x)
{
    const uint8_t *host = x->host;
    struct slot s;
    do {
        unsigned off = (unsigned)(h->pc & ~RV_PAGE_MASK);
        uint32_t raw = ld_le16(host + off);
        if (rv_insn_len(raw) == 4) {
            if (off == RV_PAGE_SIZE - 2)
                return;
            raw |= (uint32_t)ld_le16(host + off + 2) << 16;
        }
        prepare(h, raw, &s);
    } while (execute(h, &s) && !s.exact && h->budget > 0 && h->pc & ~RV_PAGE_MASK);
}

void interp_exec(struct hart *h, const struct rv_insn *in)
{
    struct slot s = { .fn = interp_handler(in->op), .in = *in };
    execute(h, &s);
}

/* The instruction at h->pc without its page's decoded form. */
static void run_once(struct hart *h)
{
    if (rv_debug_on() && rv_debug_at(h->pc))
        rv_debug_stop(h, DEBUG_STOP_BP, h->pc);
    else
        interp_step(h);
}

/* From h->pc to the end of its page, or of the slice. */
static void run_from_pc(struct hart *h)
{
    for (unsigned tries = 0; tries < 8; tries++) {
        const struct rv_xtlb_entry *x = rv_xlate_exec_fast(h, h->pc);
        if (unlikely(!x)) {
            h->budget--;
            h->retired--;
            rv_trap_take(h, h->pc);
            return;
        }
        if (unlikely(x == &h->xtlb_once))
            break;
        struct page *p = page_get(h, x);
        if (likely(p)) {
            run_page(h, p);
            return;
        }
    }
    run_once(h);                            /* rights differ within the page, or others write to it all the time */
}

static void interp_run(struct hart *h)
{
    while (hart_poll(h))
        while (h->budget > 0)
            run_from_pc(h);
}

static bool interp_init(struct hart *h, struct err *e)
{
    rv_decode_init();
    return true;
}

static void interp_flush_all(struct hart *h)
{
    interp_of(h)->epoch++;
}

static void interp_flush_page(struct hart *h, uint64_t pa)
{
    struct interp *t = interp_of(h);
    struct page *p = t->page[pa >> RV_PAGE_BITS & (PAGES - 1)];
    if (p && p->pa == pa)
        p->epoch = t->epoch - 1;
}

void rv_interp_forget(struct hart *h)
{
    struct interp *t = h->pages;
    for (unsigned i = 0; t && i < PAGES; i++)
        if (t->page[i])
            t->page[i]->pa = RV_TLB_NONE;
}

void rv_interp_free(struct hart *h)
{
    struct interp *t = h->pages;
    for (unsigned i = 0; t && i < PAGES; i++)
        free(t->page[i]);
    free(t);
    h->pages = NULL;
}

static void interp_fini(struct hart *h) { }

const struct accel_ops accel_interp = {
    .name = "interp", .desc = "Interpreter of predecoded instructions", .init = interp_init, .fini = interp_fini, .run = interp_run,
    .flush_page = interp_flush_page, .flush_all = interp_flush_all,
};
