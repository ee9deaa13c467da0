/* SPDX-License-Identifier: MIT */
/*
 * Core-local interrupts: software interrupts by register ("RISC-V Advanced Core Local Interruptor Specification" 1.0-rc4,
 * chapters 3 and 4) and the timer (chapter 2). SWI at 0x0 and MTIMER at 0x4000 together are a SiFive CLINT.
 * vCPUs read mtime without a lock; comparators are guarded by one leaf mutex.
 */
#include "hw/riscv/aclint.h"

#include <pthread.h>
#include "cpu/riscv/hart.h"
#include "loop/loop.h"

enum { MTIMER_SIZE = 0x8000, MTIMER_TIME = 0x7ff8, SWI_SIZE = 0x4000 };

/* ---- software interrupts ---- */

struct aclint_swi {
    struct sys_dev sys;
    uint32_t num_harts;
    bool sswi;                          /* options */
    uint8_t msip[HART_MAX];             /* accessed atomically */
    struct region mmio;
};

static uint64_t swi_read(void *opaque, uint64_t off, unsigned size)
{
    struct aclint_swi *s = opaque;
    /* SETSSIP reads as zero: chapter 4.1. */
    return off / 4 < s->num_harts && !s->sswi ? __atomic_load_n(&s->msip[off / 4], __ATOMIC_RELAXED) : 0;
}

static void swi_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct aclint_swi *s = opaque;
    uint64_t hart = off / 4;
    if (hart >= s->num_harts)
        return;
    if (!s->sswi) {
        __atomic_store_n(&s->msip[hart], v & 1, __ATOMIC_RELAXED);
        sys_dev_irq(&s->sys, hart, v & 1);
    } else if (v & 1) {
        sys_dev_irq(&s->sys, hart, 1);  /* an edge: the hart clears SSIP itself */
    }
}

static const struct mmio_ops swi_ops = { .read = swi_read, .write = swi_write, .min = 4, .max = 4, .valid_min = 4,
                                         .valid_max = 8, .lockless = true };

static void swi_reset(struct dev *d, enum reset_kind k)
{
    struct aclint_swi *s = (struct aclint_swi *)d;
    memset(s->msip, 0, sizeof s->msip);
}

static void swi_reset_out(struct dev *d)
{
    struct aclint_swi *s = (struct aclint_swi *)d;
    for (unsigned i = 0; i < s->num_harts; i++)
        sys_dev_irq(&s->sys, i, 0);
}

static bool swi_realize(struct dev *d, struct err *e)
{
    struct aclint_swi *s = (struct aclint_swi *)d;
    region_init_mmio(&s->mmio, "riscv.aclint.swi", SWI_SIZE, &swi_ops, s, d->dom);
    sys_dev_mmio_add(&s->sys, &s->mmio);
    return true;
}

static void swi_unrealize(struct dev *d)
{
    struct aclint_swi *s = (struct aclint_swi *)d;
    region_fini(&s->mmio);
    sys_dev_mmio_forget(&s->sys);
}

static bool swi_post_load(void *obj, struct err *e)
{
    struct aclint_swi *s = obj;
    for (unsigned i = 0; i < s->num_harts && !s->sswi; i++)
        sys_dev_irq(&s->sys, i, s->msip[i]);
    return true;
}

static const struct state_field swi_fields[] = {
    STATE_SYS(struct aclint_swi), STATE_SKIP(struct aclint_swi, num_harts, "option"),
    STATE_SKIP(struct aclint_swi, sswi, "option"), STATE_ARRAY(struct aclint_swi, msip, .max = 1),
    STATE_SKIP(struct aclint_swi, mmio, "host side"), STATE_END,
};
static const struct state_desc swi_state = { .name = "aclint-swi", .version = 1, .fields = swi_fields,
                                             .post_load = swi_post_load };
static const struct prop swi_props[] = {
    PROP_U32(struct aclint_swi, num_harts, "num-harts", 1, 1, HART_MAX, "Number of harts"),
    PROP_BOOL(struct aclint_swi, sswi, "sswi", false, "Raises supervisor instead of machine software interrupts"),
    PROP_END,
};
static const struct dev_class swi_class = {
    .obj = { .name = "riscv.aclint.swi", .desc = "Core-local software interrupts", .base = &sys_dev_class.obj,
             .size = sizeof(struct aclint_swi), .props = swi_props, .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = swi_realize, .unrealize = swi_unrealize, .reset = swi_reset, .reset_out = swi_reset_out,
    .state = &swi_state,
};
OBJ_CLASS(&swi_class.obj);

/* ---- timer ---- */

struct mtimer;
struct mtimer_hart { struct mtimer *owner; unsigned n; struct timer m, s; };

struct mtimer {
    struct sys_dev sys;
    uint32_t num_harts, freq;               /* options */
    uint64_t delta;                         /* mtime minus the VM clock's ticks; accessed atomically */
    uint64_t timecmp[HART_MAX], s_deadline[HART_MAX];
    pthread_mutex_t lock;
    struct region mmio;
    struct mtimer_hart hart[HART_MAX];
};

static uint64_t mtimer_now(struct mtimer *t)
{
    uint64_t ns = (uint64_t)clock_now(CLOCK_VM);
    uint64_t ticks = t->freq == 10000000 ? ns / 100 : (uint64_t)((unsigned __int128)ns * t->freq / 1000000000);
    return ticks + __atomic_load_n(&t->delta, __ATOMIC_RELAXED);
}

/* VM clock at which mtime reaches @ticks, INT64_MAX if not in this life. */
static int64_t mtimer_deadline(struct mtimer *t, uint64_t ticks)
{
    uint64_t at = ticks - t->delta;
    if (ticks == UINT64_MAX || at > INT64_MAX / 1000000000 * (uint64_t)t->freq)
        return INT64_MAX;
    unsigned __int128 ns = ((unsigned __int128)at * 1000000000 + t->freq - 1) / t->freq;
    return ns > INT64_MAX ? INT64_MAX : (int64_t)ns;
}

static void mtimer_update_m(struct mtimer *t, unsigned n)
{
    bool due = mtimer_now(t) >= t->timecmp[n];
    timer_arm(&t->hart[n].m, due ? INT64_MAX : mtimer_deadline(t, t->timecmp[n]));
    sys_dev_irq(&t->sys, n, due);
}

static void mtimer_update_s(struct mtimer *t, unsigned n)
{
    if (t->s_deadline[n] == UINT64_MAX) {
        timer_arm(&t->hart[n].s, INT64_MAX);
    } else if (mtimer_now(t) >= t->s_deadline[n]) {
        t->s_deadline[n] = UINT64_MAX;
        timer_arm(&t->hart[n].s, INT64_MAX);
        sys_dev_irq(&t->sys, t->num_harts + n, 1);
    } else {
        timer_arm(&t->hart[n].s, mtimer_deadline(t, t->s_deadline[n]));
    }
}

static void mtimer_fired_m(void *arg)
{
    struct mtimer_hart *h = arg;
    pthread_mutex_lock(&h->owner->lock);
    mtimer_update_m(h->owner, h->n);
    pthread_mutex_unlock(&h->owner->lock);
}

static void mtimer_fired_s(void *arg)
{
    struct mtimer_hart *h = arg;
    pthread_mutex_lock(&h->owner->lock);
    mtimer_update_s(h->owner, h->n);
    pthread_mutex_unlock(&h->owner->lock);
}

uint64_t aclint_mtimer_now(struct sys_dev *d)
{
    return mtimer_now((struct mtimer *)d);
}

void aclint_mtimer_arm_s(struct sys_dev *d, unsigned hart, uint64_t deadline)
{
    struct mtimer *t = (struct mtimer *)d;
    pthread_mutex_lock(&t->lock);
    t->s_deadline[hart] = deadline;
    mtimer_update_s(t, hart);
    pthread_mutex_unlock(&t->lock);
}

static uint64_t mtimer_read(void *opaque, uint64_t off, unsigned size)
{
    struct mtimer *t = opaque;
    uint64_t v = 0;
    if ((off & ~UINT64_C(7)) == MTIMER_TIME) {
        v = mtimer_now(t);
    } else if (off / 8 < t->num_harts) {
        pthread_mutex_lock(&t->lock);
        v = t->timecmp[off / 8];
        pthread_mutex_unlock(&t->lock);
    }
    return size == 8 ? v : (v >> (off & 4) * 8) & UINT32_MAX;
}

static void mtimer_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct mtimer *t = opaque;
    bool time = (off & ~UINT64_C(7)) == MTIMER_TIME;
    if (!time && off / 8 >= t->num_harts)
        return;
    pthread_mutex_lock(&t->lock);
    uint64_t now = mtimer_now(t), old = time ? now : t->timecmp[off / 8];
    if (size == 4)
        v = bits_set(old, (off & 4) * 8, 32, v);
    if (time) {
        __atomic_store_n(&t->delta, t->delta + v - now, __ATOMIC_RELAXED);
        for (unsigned i = 0; i < t->num_harts; i++) {
            mtimer_update_m(t, i);
            mtimer_update_s(t, i);
        }
    } else {
        t->timecmp[off / 8] = v;
        mtimer_update_m(t, off / 8);
    }
    pthread_mutex_unlock(&t->lock);
}

static const struct mmio_ops mtimer_ops = { .read = mtimer_read, .write = mtimer_write, .min = 4, .max = 8,
                                            .valid_min = 4, .valid_max = 8, .lockless = true };

/* mtime counts on from zero; comparators are out of reach, so that no interrupt is pending. */
static void mtimer_reset(struct dev *d, enum reset_kind k)
{
    struct mtimer *t = (struct mtimer *)d;
    pthread_mutex_lock(&t->lock);
    __atomic_store_n(&t->delta, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&t->delta, -mtimer_now(t), __ATOMIC_RELAXED);
    for (unsigned i = 0; i < HART_MAX; i++)
        t->timecmp[i] = t->s_deadline[i] = UINT64_MAX;
    pthread_mutex_unlock(&t->lock);
}

static void mtimer_reset_out(struct dev *d)
{
    struct mtimer *t = (struct mtimer *)d;
    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < t->num_harts; i++) {
        mtimer_update_m(t, i);
        mtimer_update_s(t, i);
    }
    pthread_mutex_unlock(&t->lock);
}

static bool mtimer_realize(struct dev *d, struct err *e)
{
    struct mtimer *t = (struct mtimer *)d;
    pthread_mutex_init(&t->lock, NULL);
    for (unsigned i = 0; i < HART_MAX; i++) {
        struct mtimer_hart *h = &t->hart[i];
        h->owner = t;
        h->n = i;
        timer_init(&h->m, CLOCK_VM, domain_loop(d->dom), NULL, mtimer_fired_m, h);
        timer_init(&h->s, CLOCK_VM, domain_loop(d->dom), NULL, mtimer_fired_s, h);
    }
    mtimer_reset(d, RESET_COLD);
    region_init_mmio(&t->mmio, "riscv.aclint.mtimer", MTIMER_SIZE, &mtimer_ops, t, d->dom);
    sys_dev_mmio_add(&t->sys, &t->mmio);
    return true;
}

static void mtimer_unrealize(struct dev *d)
{
    struct mtimer *t = (struct mtimer *)d;
    region_fini(&t->mmio);
    sys_dev_mmio_forget(&t->sys);
    for (unsigned i = 0; i < HART_MAX; i++) {
        timer_fini(&t->hart[i].m);
        timer_fini(&t->hart[i].s);
    }
    pthread_mutex_destroy(&t->lock);
}

static bool mtimer_post_load(void *obj, struct err *e)
{
    mtimer_reset_out(obj);
    return true;
}

static const struct state_field mtimer_fields[] = {
    STATE_SYS(struct mtimer), STATE_SKIP(struct mtimer, num_harts, "option"), STATE_SKIP(struct mtimer, freq, "option"),
    STATE_UINT(struct mtimer, delta), STATE_ARRAY(struct mtimer, timecmp), STATE_ARRAY(struct mtimer, s_deadline),
    STATE_SKIP(struct mtimer, lock, "host side"), STATE_SKIP(struct mtimer, mmio, "host side"),
    STATE_SKIP(struct mtimer, hart, "timers are armed from the comparators"), STATE_END,
};
static const struct state_desc mtimer_state = { .name = "aclint-mtimer", .version = 1, .fields = mtimer_fields,
                                                .post_load = mtimer_post_load };
static const struct prop mtimer_props[] = {
    PROP_U32(struct mtimer, num_harts, "num-harts", 1, 1, HART_MAX, "Number of harts"),
    PROP_U32(struct mtimer, freq, "timebase-freq", 10000000, 1, 1000000000, "Ticks of mtime a second"),
    PROP_END,
};
static const struct dev_class mtimer_class = {
    .obj = { .name = "riscv.aclint.mtimer", .desc = "Core-local timer", .base = &sys_dev_class.obj,
             .size = sizeof(struct mtimer), .props = mtimer_props, .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = mtimer_realize, .unrealize = mtimer_unrealize, .reset = mtimer_reset,
    .reset_out = mtimer_reset_out, .state = &mtimer_state,
};
OBJ_CLASS(&mtimer_class.obj);
