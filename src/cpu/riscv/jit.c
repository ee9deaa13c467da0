/* SPDX-License-Identifier: MIT */
/* The translator's loop: finding blocks, linking them, what generated code calls. See jit_int.h. */
#include <cpuid.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/rcu.h"
#include "cpu/riscv/jit_int.h"
#include "cpu/riscv/mmu.h"
#include "mem/ram.h"

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
        jit_code_forget_jumps(j);
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

/* An illegal instruction that memory does not hold is code that the guest has changed without a fence, or a mistake of ours: said here. */
static void look_for_stale(struct hart *h, const struct jit_site *s, uint64_t pc)
{
    struct rv_trap trap = h->trap;
    const struct rv_xtlb_entry *x = rv_xlate_exec_fast(h, pc);
    if (x && s->in.raw != (s->in.len == 2 ? ld_le16(x->host + s->off) : ld_le32(x->host + s->off))) {
        ((struct jit *)h->accel_data)->n.stale++;
        log_guest("hart %u: illegal instruction 0x%08x at 0x%" PRIx64 ", which is no longer in memory", h->index, s->in.raw, pc);
    }
    h->trap = trap;
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
    if (unlikely(h->trap.cause == RV_EXC_ILLEGAL))
        look_for_stale(h, s, pc);
    return leave_trap(h, pc);
}

/* ---- pages ---- */

/* Drops the blocks that were made from any of the lines. */
static void page_drop(struct jit *j, struct jit_page *p, uint64_t lines)
{
    for (uint32_t *at = &p->blocks; *at;) {
        uint32_t b = *at, *hash = &j->hash[jit_hash(j->block[b].key)];
        if (!(j->block[b].lines & lines)) {
            at = &j->block[b].page_next;
            continue;
        }
        while (*hash != b)
            hash = &j->block[*hash].next;
        *hash = j->block[b].next;
        *at = j->block[b].page_next;
        j->block[b].page_next = p->stale;
        p->stale = b;
        jit_block_kill(j, b);
        j->n.dropped++;
    }
    p->lines &= ~lines;
    j->h->jit.changes++;                    /* leaves the block that runs */
    j->h->jit.ctx = 0;
}

/* Drops what is no longer as it was. */
static void page_compare(struct jit *j, struct jit_page *p, const uint8_t *host)
{
    uint64_t changed = 0;
    uint8_t now[64];
    for (uint64_t m = p->lines; m; m &= m - 1) {
        unsigned at = ctz64(m) * sizeof now;
        ram_copy(now, host + at, sizeof now);
        if (memcmp(p->bytes + at, now, sizeof now))
            changed |= m & -m;
    }
    if (changed)
        page_drop(j, p, changed);
}

static struct jit_page **page_chain(struct jit *j, uint64_t pa)
{
    return &j->page[pa >> RV_PAGE_BITS & (ARRAY_SIZE(j->page) - 1)];
}

static struct jit_page *page_find(struct jit *j, uint64_t pa)
{
    struct jit_page *p = *page_chain(j, pa);
    while (p && p->pa != pa)
        p = p->next;
    return p;
}

static struct jit_page *page_new(struct jit *j, uint64_t pa)
{
    struct jit_page *p = xnew(struct jit_page), **chain = page_chain(j, pa);
    p->pa = pa;
    p->epoch = j->epoch - 1;
    p->next = *chain;
    *chain = p;
    return p;
}

/*
 * The page's translations are those of its bytes now, and stores to it will be noticed: to be called until it says that it had
 * nothing to do, for what it does may change translations of addresses, and serve fences of other harts.
 */
static bool page_refresh(struct jit *j, struct jit_page *p, const uint8_t *host)
{
    struct hart *h = j->h;
    if (likely(p->epoch == j->epoch && p->ext == h->ext))
        return true;
    if (p->ext != h->ext)
        page_drop(j, p, UINT64_MAX);
    p->ext = h->ext;
    p->epoch = j->epoch;
    rv_code_page_add(h, p->pa);
    page_compare(j, p, host);
    return false;
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

/*
 * Takes the time of every 16th translation, less what a look at the clock takes: that is a system call, which may take longer than
 * the translation of a block.
 */
static uint32_t timed_translate(struct jit *j, struct jit_page *p, const uint8_t *host, unsigned off, unsigned fp, unsigned variant)
{
    enum { OF = 16 };
    if (!jit_options.stats || j->n.blocks % OF)
        return jit_translate(j, p, host, off, fp, variant);
    uint64_t first = jit_thread_ns(), before = jit_thread_ns();
    uint32_t b = jit_translate(j, p, host, off, fp, variant);
    uint64_t took = jit_thread_ns() - before, look = before - first;
    j->n.ns += took > look ? (took - look) * OF : 0;
    return b;
}

static uint32_t block_find(const struct jit *j, uint64_t key)
{
    uint32_t b = j->hash[jit_hash(key)];
    while (b && j->block[b].key != key)
        b = j->block[b].next;
    return b;
}

static uint32_t block_new(struct jit *j, const struct rv_xtlb_entry *x, struct jit_page *p, unsigned off, unsigned fp, unsigned variant)
{
    if (unlikely(!jit_code_room(j))) {
        jit_code_reset(j);
        pages_free(j);
        j->n.flushes++;
        p = page_new(j, x->pa);
        p->ext = j->h->ext;
        p->epoch = j->epoch;                /* it is watched, as it was before */
    }
    return timed_translate(j, p, x->host, off, fp, variant);
}

/*
 * Whether the guest has not come here often enough for a translation to pay: much of a start runs once. Where two places share an
 * entry, either may have to come once more.
 */
static bool is_cool(struct jit *j, uint64_t key)
{
    struct jit_cool *c = &j->cool[jit_hash(key) % JIT_COOL];
    uint16_t tag = (uint16_t)(jit_hash(key * 31) | 1);
    if (j->check)
        return false;
    if (c->tag != tag)
        *c = (struct jit_cool){ .tag = tag };
    if (c->times >= jit_options.threshold)
        return false;
    c->times++;
    return true;
}

uint32_t jit_block_at_pc(struct jit *j, unsigned variant)
{
    struct hart *h = j->h;
    for (unsigned tries = 0; tries < 8; tries++) {
        const struct rv_xtlb_entry *x = rv_xlate_exec_fast(h, h->pc);
        unsigned off = (unsigned)(h->pc & ~RV_PAGE_MASK);
        if (unlikely(!x)) {
            h->budget--;
            h->retired--;
            rv_trap_take(h, h->pc);
            return 0;
        }
        h->jit.ctx = context(h);            /* the look-up may have chosen another */
        if (unlikely(x == &h->xtlb_once || (off == RV_PAGE_SIZE - 2 && rv_insn_len(ld_le16(x->host + off)) == 4)))
            break;
        unsigned fp = h->jit.ctx & 3;
        uint64_t key = jit_key(x->pa, off, fp, variant);
        struct jit_page *p = page_find(j, x->pa);
        if (likely(p) && unlikely(!page_refresh(j, p, x->host)))
            continue;
        uint32_t b = p ? block_find(j, key) : 0;
        if (b)
            return b;
        if (is_cool(j, key)) {
            interp_straight(h, x);
            j->n.cool++;
            return 0;
        }
        if (p)
            return block_new(j, x, p, off, fp, variant);
        page_new(j, x->pa);
    }
    interp_step(h);                         /* across pages, where rights differ within the page, or others write all the time */
    return 0;
}

/* Code for h->pc; 0 when there was none to run: h->pc may have changed. @stale: what the jump cache knows was dropped. */
static uint32_t code_at_pc(struct jit *j, bool stale)
{
    struct hart *h = j->h;
    context_update(j);
    struct jit_jump *l = &j->jump[jit_jump_hash(h->pc) >> 1];
    if (likely(!stale && l->pc == h->pc && l->ctx == h->jit.ctx && l->code))
        return l->code;
    uint32_t b = jit_block_at_pc(j, 0);
    if (b)
        *l = (struct jit_jump){ .pc = h->pc, .ctx = h->jit.ctx, .code = j->block[b].far };
    return b ? l->code : 0;
}

/* A jump within the page was taken for the first time: from now on it goes straight there. The code that follows. */
static uint32_t link_up(struct jit *j, struct jit_link *l)
{
    struct hart *h = j->h;
    uint64_t flushes = j->n.flushes, dropped = j->n.dropped, key = l->key;
    uint8_t *at = l->at;
    struct emit e = { .run_delta = j->x - j->w };
    h->pc = h->jit.vbase + jit_key_off(key);
    context_update(j);
    uint32_t b = jit_block_at_pc(j, jit_key_variant(key));
    if (!b)
        return 0;
    /* Only if nothing has been written over the jump or its block, and the address leads into its page: the guest may have mapped another. */
    if (flushes == j->n.flushes && dropped == j->n.dropped && j->block[b].key == key) {
        x86_patch(&e, at, j->block[b].near);
        j->n.links++;
    }
    return j->block[b].far;
}

static void run_checked(struct jit *j)
{
    context_update(j);
    uint32_t b = jit_block_at_pc(j, 0);
    if (b)
        jit_check_block(j, b);
    rv_irq_take(j->h);
}

static void jit_run(struct hart *h)
{
    struct jit *j = h->accel_data;
    uint64_t before = jit_options.stats ? jit_thread_ns() : 0;
    h->jit.rcu_seen = &rcu_self.seen;
    while (hart_poll(h)) {
        while (h->budget > 0) {
            if (unlikely(j->check)) {
                run_checked(j);
                continue;
            }
            uint32_t code = code_at_pc(j, false);
            while (code) {
                j->n.entries++;
                uint64_t r = j->enter[(h->jit.ctx & 3) != JIT_FP_SLOW](h, code);
                code = !r ? 0 : r == JIT_STALE ? code_at_pc(j, true) : link_up(j, (struct jit_link *)(uintptr_t)r);
            }
        }
    }
    j->n.run_ns += jit_options.stats ? jit_thread_ns() - before : 0;
}

/* ---- life ---- */

/* Intel SDM volume 2, CPUID leaf 80000001H; clang's __builtin_cpu_supports() does not know the name. */
static bool has_lzcnt(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & bit_LZCNT;
}

static bool jit_init(struct hart *h, struct err *e)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("fma") || !has_lzcnt())
        return err_set(e, ERR_GENERIC, "the host's CPU is older than AVX2, BMI2, FMA and LZCNT: -accel interp");
    rv_decode_init();
    struct jit *j = xnew(struct jit);
    h->accel_data = j;
    j->h = h;
    if (jit_options.check && hart_set_planned(h->set) > 1)
        return err_set(e, ERR_VALUE, "check=on takes stores back, which others must not see: it is for one CPU");
    if (jit_options.check)
        j->check = xcalloc(1, jit_check_size());
    jit_catch_crashes();
    /* All of them share the 1 GiB that the host gives below 2 GiB; tables take half as much again. */
    size_t most = align_down((512u << 20) / hart_set_planned(h->set), 4096u);
    return jit_code_init(j, MIN(jit_options.cache, MAX(most, 1u << 20)), e);
}

static void jit_fini(struct hart *h)
{
    struct jit *j = h->accel_data;
    if (!j)
        return;
    if (jit_options.stats)
        jit_print_stats(j);
    pages_free(j);
    jit_code_fini(j);
    free(j->check);
    free(j);
    h->accel_data = NULL;
}

/* Every page is compared with memory before it is used again. */
static void jit_flush_all(struct hart *h)
{
    struct jit *j = h->accel_data;
    j->epoch++;
    if (h->pages)                           /* the interpreter's, which runs in its place for a debugger */
        accel_interp.flush_all(h);
    jit_code_forget_jumps(j);
    h->jit.changes++;                       /* leaves the block that runs */
    h->jit.ctx = 0;
}

static void jit_flush_page(struct hart *h, uint64_t pa)
{
    struct jit *j = h->accel_data;
    uint64_t off;
    const struct ram *r = rv_ram_at(h, pa, &off);
    struct jit_page *p = page_find(j, pa);
    if (!r || !p || p->epoch != j->epoch)
        return;
    page_compare(j, p, r->host + off);
    if (p->lines) {
        rv_code_page_add(h, pa);
        page_compare(j, p, r->host + off);  /* again: what is written from here on is noticed */
    }
    if (!p->lines)
        p->epoch = j->epoch - 1;            /* it holds something else now: nobody need watch it */
}

static void jit_stats(const struct hart *h, void (*put)(void *, const char *name, uint64_t v), void *arg)
{
    const struct jit *j = h->accel_data;
    put(arg, "jit-blocks", j->n.blocks);
    put(arg, "jit-guest-insns", j->n.insns);
    put(arg, "jit-code-bytes", j->n.bytes);
    put(arg, "jit-links", j->n.links);
    put(arg, "jit-interpreted", j->n.cool);
    put(arg, "jit-entries", j->n.entries);
    put(arg, "jit-handler-calls", j->n.slow);
    put(arg, "jit-dropped", j->n.dropped);
    put(arg, "jit-flushes", j->n.flushes);
    put(arg, "jit-stale", j->n.stale);
}

const struct accel_ops accel_jit = {
    .name = "jit", .desc = "Translator to x86-64 code", .options = jit_option_rows, .overrun = JIT_INSNS, .init = jit_init, .fini = jit_fini, .run = jit_run,
    .flush_page = jit_flush_page, .flush_all = jit_flush_all, .stats = jit_stats,
};
