/* SPDX-License-Identifier: MIT */
/*
 * Platform-level interrupt controller ("RISC-V Platform-Level Interrupt Controller Specification" 1.0.0), with the memory
 * map of its chapter 3. Context 2h is hart h's M mode, 2h + 1 its S mode. Sources are level triggered at the gateway.
 * Inputs come from any thread: one leaf mutex guards all state.
 */
#include "hw/riscv/plic.h"

#include <pthread.h>
#include "base/log.h"
#include "cpu/riscv/hart.h"

#define PLIC_WORDS 4u
#define PLIC_SOURCES_MAX (PLIC_WORDS * 32 - 1)
#define PLIC_CONTEXTS (HART_MAX * 2)
#define PLIC_PRIORITY_MAX 7u
enum { PLIC_PENDING = 0x1000, PLIC_ENABLE = 0x2000, PLIC_ENABLE_STRIDE = 0x80, PLIC_CONTEXT = 0x200000,
       PLIC_CONTEXT_STRIDE = 0x1000, PLIC_SIZE = 0x600000 };

struct plic {
    struct sys_dev sys;
    uint32_t num_sources, num_harts;    /* options */
    uint8_t priority[PLIC_WORDS * 32];
    uint32_t level[PLIC_WORDS], pending[PLIC_WORDS], claimed[PLIC_WORDS];
    uint32_t enable[PLIC_CONTEXTS * PLIC_WORDS];
    uint8_t threshold[PLIC_CONTEXTS];
    uint64_t out;                       /* level of each context's line */
    pthread_mutex_t lock;
    struct region mmio;
    struct irq_bank in;
};

/* The pending, enabled source of highest priority above @above, lowest number first; 0: none. */
static unsigned plic_best(const struct plic *p, unsigned ctx, unsigned above)
{
    unsigned best = 0, best_prio = above;
    for (unsigned w = 0; w < PLIC_WORDS; w++) {
        uint32_t m = p->pending[w] & p->enable[ctx * PLIC_WORDS + w];
        for (; m; m &= m - 1) {
            unsigned src = w * 32 + (unsigned)__builtin_ctz(m);
            if (p->priority[src] > best_prio) {
                best = src;
                best_prio = p->priority[src];
            }
        }
    }
    return best;
}

static void plic_update(struct plic *p)
{
    for (unsigned c = 0; c < p->num_harts * 2; c++) {
        bool on = plic_best(p, c, p->threshold[c]);
        if (on != (p->out >> c & 1)) {
            p->out ^= BIT64(c);
            sys_dev_irq(&p->sys, c, on);
        }
    }
}

/* The gateway: forwards one request, then nothing until its completion (chapter 1.3 and 9). */
static void plic_set(void *arg, unsigned n, int level)
{
    struct plic *p = arg;
    if (!n || n > p->num_sources)
        return;
    uint32_t bit = 1u << (n & 31), *lev = &p->level[n / 32];
    pthread_mutex_lock(&p->lock);
    *lev = level ? *lev | bit : *lev & ~bit;
    if (level && !(p->claimed[n / 32] & bit) && !(p->pending[n / 32] & bit)) {
        p->pending[n / 32] |= bit;
        plic_update(p);
    }
    pthread_mutex_unlock(&p->lock);
}

static uint32_t plic_claim(struct plic *p, unsigned ctx)
{
    /* The threshold masks the line, not the claim (chapter 8). */
    unsigned src = plic_best(p, ctx, 0);
    if (src) {
        p->pending[src / 32] &= ~(1u << (src & 31));
        p->claimed[src / 32] |= 1u << (src & 31);
        plic_update(p);
    }
    return src;
}

static void plic_complete(struct plic *p, unsigned ctx, uint32_t src)
{
    if (!src || src > p->num_sources || !(p->enable[ctx * PLIC_WORDS + src / 32] & 1u << (src & 31))) {
        log_guest("plic: context %u completes source %u, which is not enabled for it", ctx, src);
        return;
    }
    uint32_t bit = 1u << (src & 31);
    p->claimed[src / 32] &= ~bit;
    if (p->level[src / 32] & bit)
        p->pending[src / 32] |= bit;
    plic_update(p);
}

static uint32_t plic_source_mask(const struct plic *p, unsigned word)
{
    uint32_t m = word * 32 + 31 <= p->num_sources ? UINT32_MAX
               : word * 32 > p->num_sources ? 0 : (uint32_t)(BIT64(p->num_sources - word * 32 + 1) - 1);
    return word ? m : m & ~1u;
}

static uint64_t plic_read_locked(struct plic *p, uint64_t off)
{
    if (off < PLIC_PENDING)
        return off / 4 <= p->num_sources ? p->priority[off / 4] : 0;
    if (off < PLIC_ENABLE)
        return off - PLIC_PENDING < PLIC_WORDS * 4 ? p->pending[(off - PLIC_PENDING) / 4] : 0;
    if (off < PLIC_CONTEXT) {
        uint64_t ctx = (off - PLIC_ENABLE) / PLIC_ENABLE_STRIDE, w = (off - PLIC_ENABLE) % PLIC_ENABLE_STRIDE / 4;
        return ctx < p->num_harts * 2 && w < PLIC_WORDS ? p->enable[ctx * PLIC_WORDS + w] : 0;
    }
    uint64_t ctx = (off - PLIC_CONTEXT) / PLIC_CONTEXT_STRIDE, reg = (off - PLIC_CONTEXT) % PLIC_CONTEXT_STRIDE;
    if (ctx >= p->num_harts * 2)
        return 0;
    return reg == 0 ? p->threshold[ctx] : reg == 4 ? plic_claim(p, ctx) : 0;
}

static void plic_write_locked(struct plic *p, uint64_t off, uint32_t v)
{
    if (off < PLIC_PENDING) {
        if (off / 4 && off / 4 <= p->num_sources)
            p->priority[off / 4] = v & PLIC_PRIORITY_MAX;
    } else if (off < PLIC_ENABLE) {
        log_guest("plic: write to the read-only pending bits");
    } else if (off < PLIC_CONTEXT) {
        uint64_t ctx = (off - PLIC_ENABLE) / PLIC_ENABLE_STRIDE, w = (off - PLIC_ENABLE) % PLIC_ENABLE_STRIDE / 4;
        if (ctx < p->num_harts * 2 && w < PLIC_WORDS)
            p->enable[ctx * PLIC_WORDS + w] = v & plic_source_mask(p, w);
    } else {
        uint64_t ctx = (off - PLIC_CONTEXT) / PLIC_CONTEXT_STRIDE, reg = (off - PLIC_CONTEXT) % PLIC_CONTEXT_STRIDE;
        if (ctx >= p->num_harts * 2)
            return;
        if (reg == 4) {
            plic_complete(p, ctx, v);
            return;
        }
        if (reg == 0)
            p->threshold[ctx] = v & PLIC_PRIORITY_MAX;
    }
    plic_update(p);
}

static uint64_t plic_read(void *opaque, uint64_t off, unsigned size)
{
    struct plic *p = opaque;
    pthread_mutex_lock(&p->lock);
    uint64_t v = plic_read_locked(p, off);
    pthread_mutex_unlock(&p->lock);
    return v;
}

static void plic_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct plic *p = opaque;
    pthread_mutex_lock(&p->lock);
    plic_write_locked(p, off, v);
    pthread_mutex_unlock(&p->lock);
}

static const struct mmio_ops plic_ops = { .read = plic_read, .write = plic_write, .min = 4, .max = 4,
                                          .valid_min = 4, .valid_max = 4, .lockless = true };

struct irq plic_input(struct sys_dev *d, unsigned n)
{
    return irq_in(&((struct plic *)d)->in, n);
}

/* Input levels are the devices' and stay. */
static void plic_reset(struct dev *d, enum reset_kind k)
{
    struct plic *p = (struct plic *)d;
    pthread_mutex_lock(&p->lock);
    memset(p->priority, 0, sizeof p->priority);
    memset(p->pending, 0, sizeof p->pending);
    memset(p->claimed, 0, sizeof p->claimed);
    memset(p->enable, 0, sizeof p->enable);
    memset(p->threshold, 0, sizeof p->threshold);
    pthread_mutex_unlock(&p->lock);
}

static void plic_reset_out(struct dev *d)
{
    struct plic *p = (struct plic *)d;
    pthread_mutex_lock(&p->lock);
    for (unsigned w = 0; w < PLIC_WORDS; w++)
        p->pending[w] |= p->level[w];
    p->out = 0;
    for (unsigned c = 0; c < p->num_harts * 2; c++)
        sys_dev_irq(&p->sys, c, 0);
    plic_update(p);
    pthread_mutex_unlock(&p->lock);
}

static bool plic_realize(struct dev *d, struct err *e)
{
    struct plic *p = (struct plic *)d;
    pthread_mutex_init(&p->lock, NULL);
    p->in = (struct irq_bank){ .path = "plic", .n = p->num_sources + 1, .set = plic_set, .arg = p };
    irq_bank_register(&p->in);
    region_init_mmio(&p->mmio, "riscv.sifive.plic", PLIC_SIZE, &plic_ops, p, d->dom);
    sys_dev_mmio_add(&p->sys, &p->mmio);
    return true;
}

static void plic_unrealize(struct dev *d)
{
    struct plic *p = (struct plic *)d;
    irq_bank_unregister(&p->in);
    region_fini(&p->mmio);
    sys_dev_mmio_forget(&p->sys);
    pthread_mutex_destroy(&p->lock);
}

static bool plic_post_load(void *obj, struct err *e)
{
    struct plic *p = obj;
    for (unsigned c = 0; c < p->num_harts * 2; c++)
        sys_dev_irq(&p->sys, c, p->out >> c & 1);
    return true;
}

static const struct state_field plic_fields[] = {
    STATE_SYS(struct plic),
    STATE_SKIP(struct plic, num_sources, "option"), STATE_SKIP(struct plic, num_harts, "option"),
    STATE_ARRAY(struct plic, priority, .max = PLIC_PRIORITY_MAX), STATE_ARRAY(struct plic, level),
    STATE_ARRAY(struct plic, pending), STATE_ARRAY(struct plic, claimed), STATE_ARRAY(struct plic, enable),
    STATE_ARRAY(struct plic, threshold, .max = PLIC_PRIORITY_MAX), STATE_UINT(struct plic, out),
    STATE_SKIP(struct plic, lock, "host side"), STATE_SKIP(struct plic, mmio, "host side"),
    STATE_SKIP(struct plic, in, "wiring"),
    STATE_END,
};
static const struct state_desc plic_state = { .name = "plic", .version = 1, .fields = plic_fields,
                                              .post_load = plic_post_load };
static const struct prop plic_props[] = {
    PROP_U32(struct plic, num_sources, "num-sources", 96, 1, PLIC_SOURCES_MAX, "Number of interrupt sources"),
    PROP_U32(struct plic, num_harts, "num-harts", 1, 1, HART_MAX, "Number of harts; each has an M and an S context"),
    PROP_END,
};

static const struct dev_class plic_class = {
    .obj = { .name = "riscv.sifive.plic", .desc = "Platform-level interrupt controller", .base = &sys_dev_class.obj,
             .size = sizeof(struct plic), .props = plic_props, .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = plic_realize, .unrealize = plic_unrealize, .reset = plic_reset,
    .reset_out = plic_reset_out, .state = &plic_state,
};
OBJ_CLASS(&plic_class.obj);
