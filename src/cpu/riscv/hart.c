/* SPDX-License-Identifier: MIT */
/* Harts as threads: life, interrupts, requests from others, sleeping. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rcu.h"
#include "base/str.h"
#include "base/thread.h"
#include "cpu/riscv/accel.h"
#include "cpu/riscv/fpu.h"
#include "cpu/riscv/mmu.h"
#include "cpu/riscv/turns.h"

struct hart_set {
    unsigned count, planned;            /* made so far; to be made */
    struct hart *hart[HART_MAX];
    struct turns *turns;                /* the harts share one thread; NULL: each has its own */
    struct view_listener listener;
};

#define WAIT_SPINS 1000u                /* some tens of microseconds */

static _Thread_local struct hart *self;

struct hart *hart_self(void) { return self; }
bool hart_by_turns(const struct hart *h) { return h->set->turns != NULL; }
unsigned hart_set_count(const struct hart_set *s) { return s->count; }
unsigned hart_set_planned(const struct hart_set *s) { return s->planned; }
struct hart *hart_get(struct hart_set *s, unsigned index) { return s->hart[index]; }
unsigned hart_index(const struct hart *h) { return h->index; }
uint64_t hart_id(const struct hart *h) { return h->mhartid; }
uint64_t hart_x(const struct hart *h, unsigned reg) { return h->x[reg & 31]; }

void hart_x_set(struct hart *h, unsigned reg, uint64_t v)
{
    if (reg & 31)
        h->x[reg & 31] = v;
}

static void spin_pause(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

/* ---- being wanted: looked at after at most RV_SLICE instructions, and by sleepers at once ---- */

static void kick_locked(struct hart *h)
{
    atomic_store(&h->attention, 1);
    pthread_cond_broadcast(&h->cond);
    if (h->set->turns)
        turns_kick(h->set->turns);
}

static bool pop_request(struct hart *h, struct rv_request *r)
{
    if (!h->req_count)
        return false;
    *r = h->req[h->req_head];
    h->req_head = (h->req_head + 1) % RV_REQ_MAX;
    h->req_count--;
    return true;
}

/* Carries out what is queued; h->lock is not held. VCPU */
static void serve(struct hart *h)
{
    struct rv_request r;
    struct hart *was = self;
    self = h;
    for (;;) {
        pthread_mutex_lock(&h->lock);
        bool any = pop_request(h, &r);
        pthread_mutex_unlock(&h->lock);
        if (!any)
            break;
        rcu_read_lock();                    /* it may look at the view of memory */
        r.fn(h, r.a, r.b);
        rcu_read_unlock();
        h->stats.requests++;
        if (r.left)
            atomic_fetch_sub(r.left, 1);
    }
    self = was;
}

void hart_serve(struct hart *h) { serve(h); }

/*
 * One round of waiting for another hart. Where that runs it answers within microseconds, and a guest that changes its code asks tens of
 * thousands of times in a row: the CPU is given away only after a while, for on a busy host it does not come back for milliseconds.
 */
static void wait_round(unsigned *rounds)
{
    if (self)
        serve(self);                        /* two harts may wait for each other */
    if (++*rounds > WAIT_SPINS)
        sched_yield();
    else
        spin_pause();
}

static bool push_locked(struct hart *h, const struct rv_request *r)
{
    if (h->req_count == RV_REQ_MAX)
        return false;
    h->req[(h->req_head + h->req_count++) % RV_REQ_MAX] = *r;
    return true;
}

static bool try_post(struct hart *h, const struct rv_request *r)
{
    pthread_mutex_lock(&h->lock);
    bool room = push_locked(h, r);
    kick_locked(h);                         /* without room, too: a sleeper has not been woken for what it keeps */
    pthread_mutex_unlock(&h->lock);
    return room;
}

/*
 * Leaves the request with a hart that sleeps in WFI: it is not woken for that, and carries it out before it goes on. A fence that waits
 * there already is not asked for twice. False: it is awake, or has no room.
 */
static bool leave_to_sleeper(struct hart *h, const struct rv_request *r)
{
    pthread_mutex_lock(&h->lock);
    bool sleeps = atomic_load(&h->in_wfi);
    const struct rv_request *last = &h->req[(h->req_head + h->req_count - 1) % RV_REQ_MAX];
    bool known = sleeps && h->req_count && last->fn == r->fn && last->a == r->a && last->b == r->b;
    bool left = known || (sleeps && push_locked(h, r));
    if (left)
        atomic_store(&h->attention, 1);
    pthread_mutex_unlock(&h->lock);
    return left;
}

static void post(struct hart *h, struct rv_request r)
{
    unsigned rounds = 0;
    while (!try_post(h, &r))
        wait_round(&rounds);
}

void hart_request(struct hart *h, void (*fn)(struct hart *, uint64_t a, uint64_t b), uint64_t a, uint64_t b)
{
    if (turns_inside())
        fn(h, a, b);                        /* it stands while this one has its turn */
    else
        post(h, (struct rv_request){ fn, a, b, NULL });
}

void hart_request_sync(struct hart_set *s, uint64_t mask, void (*fn)(struct hart *, uint64_t a, uint64_t b), uint64_t a, uint64_t b)
{
    atomic_uint left = 0;
    if (turns_inside()) {
        for (unsigned i = 0; i < s->count; i++)
            if (mask >> i & 1)
                fn(s->hart[i], a, b);
        return;
    }
    for (unsigned i = 0; i < s->count; i++)
        if ((mask >> i & 1) && s->hart[i] != self && !leave_to_sleeper(s->hart[i], &(struct rv_request){ fn, a, b, NULL })) {
            atomic_fetch_add(&left, 1);
            post(s->hart[i], (struct rv_request){ fn, a, b, &left });
        }
    if (self && (mask >> self->index & 1))
        fn(self, a, b);
    unsigned rounds = 0;
    while (atomic_load(&left))
        wait_round(&rounds);
}

static void do_protect(struct hart *h, uint64_t pa, uint64_t b) { rv_tlb_protect_page(h, pa & RV_PAGE_MASK); }

/* On behalf of a hart that sleeps: it cannot run before it gets its lock. */
static bool protect_sleeper(struct hart *h, uint64_t pa)
{
    pthread_mutex_lock(&h->lock);
    bool still = atomic_load(&h->in_wfi) || (h->set->turns ? h->paused : h->asleep);
    if (still)
        do_protect(h, pa, 0);
    pthread_mutex_unlock(&h->lock);
    return still;
}

void rv_protect_everywhere(struct hart *h, uint64_t pa)
{
    uint64_t awake = 0;
    for (unsigned i = 0; i < h->set->count; i++)
        if (h->set->hart[i] != h && !protect_sleeper(h->set->hart[i], pa))
            awake |= BIT64(i);
    if (awake)
        hart_request_sync(h->set, awake, do_protect, pa, 0);
}

void hart_do_fence_i(struct hart *h, uint64_t a, uint64_t b) { rv_fence_i(h); }

void hart_do_sfence_vma(struct hart *h, uint64_t start, uint64_t size)
{
    if (!size || size > 64 * RV_PAGE_SIZE) {
        rv_tlb_flush(h, false, 0, false, 0);
        return;
    }
    for (uint64_t at = start & RV_PAGE_MASK; at - (start & RV_PAGE_MASK) < size + (start & ~RV_PAGE_MASK); at += RV_PAGE_SIZE)
        rv_tlb_flush(h, true, at, false, 0);
}

void hart_do_sfence_asid(struct hart *h, uint64_t page, uint64_t asid)
{
    rv_tlb_flush(h, page != UINT64_MAX, page, true, asid);
}

/* ---- interrupts ---- */

static void wake(struct hart *h)
{
    if (!atomic_load(&h->in_wfi))
        return;
    if (h->set->turns) {
        turns_wake(h->set->turns);
        return;
    }
    pthread_mutex_lock(&h->lock);
    pthread_cond_broadcast(&h->cond);
    pthread_mutex_unlock(&h->lock);
}

/* By the hart whose turn it is: to itself at once, to another soon. */
static void signal_in_turn(struct hart *h)
{
    if (h != self)
        turns_shorten(self, TURN_WORK_INSNS);
    else if (rv_mip(h) & h->mie)
        turns_shorten(self, 1);
}

void hart_irq_set(struct hart *h, unsigned bit, bool level)
{
    /* SSIP is the hart's to clear: a rising edge sets it. */
    _Atomic uint64_t *w = bit == HART_IRQ_SSI ? &h->irq_soft : &h->irq_line;
    if (level) {
        atomic_fetch_or(w, BIT64(bit));
        if (turns_inside())
            signal_in_turn(h);
        else
            wake(h);
    } else {
        atomic_fetch_and(w, ~BIT64(bit));
    }
}

void hart_timer_fire(struct hart *h)
{
    pthread_mutex_lock(&h->timer_lock);
    uint64_t cmp = atomic_load(&h->stimecmp);
    bool due = h->env->time_now(h->env->opaque) >= cmp;
    if (due)
        atomic_fetch_or(&h->irq_line, BIT64(HART_IRQ_STI));
    pthread_mutex_unlock(&h->timer_lock);
    if (due)
        wake(h);
}

/* ---- the thread ---- */

bool hart_poll(struct hart *h)
{
    if (h->set->turns)
        return turns_poll(h);
    h->retired += (uint64_t)(int64_t)(h->slice - h->budget);
    h->slice = h->budget = RV_SLICE;
    h->stats.slices++;
    rcu_quiescent();
    if (unlikely(atomic_exchange(&h->attention, 0))) {
        atomic_store(&h->leave, false);
        return false;
    }
    if (unlikely(h->hpm_armed))
        rv_hpm_poll(h);
    rv_irq_take(h);
    return true;
}

void hart_wait(struct hart *h)
{
    if (h->plan == RV_PLAN_STEP)
        return;                             /* a step over WFI ends, too: the ISA lets WFI be a no-operation */
    h->stats.wfi++;
    if (h->set->turns) {
        if (!(rv_mip(h) & h->mie)) {
            atomic_store(&h->in_wfi, true);
            turns_shorten(h, 1);
        }
        return;
    }
    rv_fpu_leave(h);
    rcu_read_unlock();
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->in_wfi, true);
    while (!(rv_mip(h) & h->mie) && !atomic_load(&h->attention))
        pthread_cond_wait(&h->cond, &h->lock);
    atomic_store(&h->in_wfi, false);
    pthread_mutex_unlock(&h->lock);
    rcu_read_lock();
    rv_fpu_enter(h);
    h->retired += (uint64_t)(int64_t)(h->slice - h->budget);
    h->slice = h->budget = 0;               /* look around at once */
}

void hart_yield(struct hart *h)
{
    if (h->set->turns && h->smp)
        turns_shorten(h, 1);
}

/* One instruction for the debugger; false start where requests wait: then it is tried again. */
static void step_once(struct hart *h)
{
    if (!hart_poll(h))
        return;
    interp_step(h);
    rv_debug_stop(h, DEBUG_STOP_STEP, 0);
}

void hart_run_slices(struct hart *h, const struct accel_ops *a)
{
    struct hart *was = self;
    self = h;
    rcu_read_lock();
    if (atomic_exchange(&h->view_stale, false))
        rv_tlb_flush_all(h);
    rv_fpu_enter(h);
    if (h->plan == RV_PLAN_STEP)
        step_once(h);
    else
        a->run(h);
    rv_fpu_leave(h);
    rcu_read_unlock();
    self = was;
}

static void *set_thread(void *arg)
{
    turns_thread(arg);
    return NULL;
}

static void *hart_thread(void *arg)
{
    struct hart *h = arg;
    self = h;
    atomic_store(&h->tid, gettid());
    rcu_thread_register();
    pthread_mutex_lock(&h->lock);
    while (!h->want_quit) {
        if (h->req_count) {
            pthread_mutex_unlock(&h->lock);
            serve(h);
            pthread_mutex_lock(&h->lock);
        } else if (h->want_pause || h->power == HART_OFF) {
            h->paused = true;
            pthread_cond_broadcast(&h->cond);
            h->asleep = true;
            pthread_cond_wait(&h->cond, &h->lock);
            h->asleep = false;
        } else {
            h->paused = false;
            pthread_mutex_unlock(&h->lock);
            hart_run_slices(h, rv_debug_on() ? &accel_interp : h->accel);
            pthread_mutex_lock(&h->lock);
        }
    }
    pthread_mutex_unlock(&h->lock);
    rcu_thread_unregister();
    return NULL;
}

void hart_power(struct hart *h, bool on)
{
    pthread_mutex_lock(&h->lock);
    h->power = on ? HART_ON : HART_OFF;
    if (on)
        h->paused = h->want_pause;
    kick_locked(h);
    pthread_mutex_unlock(&h->lock);
    if (!on && self == h && h->set->turns)
        turns_shorten(h, 1);
    else if (!on && self == h)
        h->slice -= h->budget, h->budget = 0;   /* leaves after this instruction */
}

void hart_park(struct hart *h)
{
    pthread_mutex_lock(&h->lock);
    h->want_pause = true;
    kick_locked(h);
    pthread_mutex_unlock(&h->lock);
    turns_shorten(h, 0);
}

/* On, or off but not standing yet. */
bool hart_is_on(struct hart *h)
{
    pthread_mutex_lock(&h->lock);
    bool on = h->power == HART_ON || !h->paused;
    pthread_mutex_unlock(&h->lock);
    return on;
}

void hart_set_pause(struct hart_set *s)
{
    turns_freeze(s->turns);
    for (unsigned i = 0; i < s->count; i++) {
        pthread_mutex_lock(&s->hart[i]->lock);
        s->hart[i]->want_pause = true;
        kick_locked(s->hart[i]);
        pthread_mutex_unlock(&s->hart[i]->lock);
    }
    turns_thaw(s->turns);
    for (unsigned i = 0; i < s->count; i++) {
        pthread_mutex_lock(&s->hart[i]->lock);
        while (!s->hart[i]->paused)
            pthread_cond_wait(&s->hart[i]->cond, &s->hart[i]->lock);
        s->hart[i]->plan = RV_PLAN_RUN;         /* a debugger's plan is for one run */
        pthread_mutex_unlock(&s->hart[i]->lock);
    }
}

void hart_set_resume(struct hart_set *s)
{
    turns_freeze(s->turns);
    for (unsigned i = 0; i < s->count; i++) {
        struct hart *h = s->hart[i];
        if (h->plan == RV_PLAN_STAND)
            continue;
        pthread_mutex_lock(&h->lock);
        h->want_pause = false;
        h->paused = h->power == HART_OFF;
        kick_locked(h);
        pthread_mutex_unlock(&h->lock);
    }
    turns_thaw(s->turns);
}

/* ---- reset and start ---- */

static uint64_t misa_of(uint64_t ext)
{
    static const struct { uint8_t ext, bit; } letters[] = { { RV_EXT_I, 8 }, { RV_EXT_M, 12 }, { RV_EXT_A, 0 }, { RV_EXT_F, 5 }, { RV_EXT_D, 3 },
                                                            { RV_EXT_C, 2 }, { RV_EXT_S, 18 }, { RV_EXT_U, 20 } };
    uint64_t v = UINT64_C(2) << 62;
    for (size_t i = 0; i < ARRAY_SIZE(letters); i++)
        v |= ext >> letters[i].ext & 1 ? BIT64(letters[i].bit) : 0;
    return v;
}

static void log_reset(struct hart *h)
{
    struct str s = { 0 };
    hart_dump(h, &s);
    log_write("hart %" PRIu64 " after a reset:\n%s", h->mhartid, s.s);
    str_free(&s);
}

void hart_reset(struct hart *h)
{
    memset(h->x, 0, sizeof h->x);
    memset(h->f, 0, sizeof h->f);
    h->pc = 0;
    h->fflags = h->frm = 0;
    h->ext = h->cpu->ext;
    h->misa = misa_of(h->ext);
    h->mstatus = rv_mstatus_reset(h);
    h->mideleg = h->medeleg = h->mie = h->mtvec = h->mscratch = h->mepc = h->mcause = h->mtval = h->menvcfg = 0;
    h->stvec = h->sscratch = h->sepc = h->scause = h->stval = h->satp = h->senvcfg = 0;
    h->mcounteren = h->scounteren = h->mcountinhibit = h->miselect = h->siselect = 0;
    memset(h->hpm_count, 0, sizeof h->hpm_count);
    memset(h->hpm_event, 0, sizeof h->hpm_event);
    h->hpm_armed = 0;
    memset(h->pmpcfg, 0, sizeof h->pmpcfg);
    memset(h->pmpaddr, 0, sizeof h->pmpaddr);
    h->res_pa = RV_TLB_NONE;
    rv_reserve_drop(h);
    h->priv = RV_M;
    atomic_store(&h->irq_soft, 0);
    atomic_fetch_and(&h->irq_line, ~BIT64(HART_IRQ_STI));
    atomic_store(&h->stimecmp, UINT64_MAX);
    h->exec_local = false;
    atomic_store(&h->in_wfi, false);
    rv_pmp_changed(h);
    rv_ctx_update(h);
    rv_tlb_flush_all(h);
    rv_interp_forget(h);
    h->accel->flush_all(h);
    if (log_on(LOG_RESET))
        log_reset(h);
}

void hart_set_start(struct hart *h, unsigned priv, uint64_t pc, uint64_t a0, uint64_t a1)
{
    hart_reset(h);
    h->pc = pc;
    h->x[10] = a0;
    h->x[11] = a1;
    if (priv == RV_S) {
        h->medeleg = 0xb1ff;                /* all but calls from S and M mode */
        h->mideleg = BIT64(HART_IRQ_SSI) | BIT64(HART_IRQ_STI) | BIT64(HART_IRQ_SEI) | BIT64(HART_IRQ_LCOF);
        h->mcounteren = UINT32_MAX;
        rv_csr_poke(h, 0x30a, ENVCFG_STCE | ENVCFG_PBMTE | ENVCFG_CBZE | ENVCFG_CBCFE | ENVCFG_CBIE);
        h->pmpaddr[0] = BIT64(54) - 1;
        h->pmpcfg[0] = 3 << 3 | RV_PMP_R | RV_PMP_W | RV_PMP_X;
        rv_pmp_changed(h);
        h->priv = RV_S;
    }
    rv_ctx_update(h);
}

/* ---- sets ---- */

/* The topology lock is held, which a hart may be waiting for: nothing here waits for a hart. */
static void view_changed(struct view_listener *l)
{
    struct hart_set *s = container_of(l, struct hart_set, listener);
    for (unsigned i = 0; i < s->count; i++) {
        struct hart *h = s->hart[i];
        if (h == self) {
            rv_tlb_flush_all(h);
            continue;
        }
        atomic_store(&h->view_stale, true);
        pthread_mutex_lock(&h->lock);
        kick_locked(h);
        pthread_mutex_unlock(&h->lock);
    }
}

static bool start_thread(pthread_t *t, void *(*fn)(void *), void *arg, unsigned i, bool *up, struct err *e)
{
    char name[16];
    snprintf(name, sizeof name, "CPU %u", i);
    int r = thread_start(t, name, fn, arg);
    *up = !r;
    return !r || err_os(e, r, "a thread for CPU %u", i);
}

static struct hart *hart_new(struct hart_set *s, const struct hart_set_config *cfg, unsigned i, struct err *e)
{
    struct hart *h = aligned_alloc(64, (sizeof *h + 63) & ~(size_t)63);
    if (!h) {
        err_set(e, ERR_GENERIC, "out of memory for a CPU");
        return NULL;
    }
    memset(h, 0, sizeof *h);
    h->cpu = cfg->cpu;
    h->env = cfg->env;
    h->accel = cfg->accel;
    h->set = s;
    h->index = i;
    h->mhartid = cfg->base_id + i;
    h->smp = cfg->count > 1;
    h->mem = &as_memory;
    h->want_pause = h->paused = true;
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->timer_lock, NULL);
    pthread_cond_init(&h->cond, NULL);
    s->hart[s->count++] = h;
    if (!h->accel->init(h, e))
        return NULL;
    h->jit.once = s->turns != NULL;         /* no slice begins inside translated code */
    hart_reset(h);
    return s->turns || start_thread(&h->thread, hart_thread, h, i, &h->thread_up, e) ? h : NULL;
}

struct hart_set *hart_set_new(const struct hart_set_config *cfg, struct err *e)
{
    struct hart_set *s = xnew(struct hart_set);
    s->planned = cfg->count;
    s->turns = cfg->by_turns ? turns_new(s) : NULL;
    for (unsigned i = 0; i < cfg->count; i++)
        if (!hart_new(s, cfg, i, e)) {
            hart_set_free(s);
            return NULL;
        }
    if (s->turns && !start_thread(&s->hart[0]->thread, set_thread, s->turns, 0, &s->hart[0]->thread_up, e)) {
        hart_set_free(s);
        return NULL;
    }
    s->listener.changed = view_changed;
    view_listen(&as_memory, &s->listener);
    rv_debug_attach(s);
    rv_code_attach(s);
    return s;
}

void hart_set_free(struct hart_set *s)
{
    rv_debug_attach(NULL);
    rv_code_attach(NULL);
    if (s->listener.changed)
        view_unlisten(&as_memory, &s->listener);
    for (unsigned i = 0; i < s->count; i++) {
        struct hart *h = s->hart[i];
        pthread_mutex_lock(&h->lock);
        h->want_quit = true;
        kick_locked(h);
        pthread_mutex_unlock(&h->lock);
        if (h->thread_up)
            pthread_join(h->thread, NULL);
        h->accel->fini(h);
        rv_interp_free(h);
        rv_tlb_free(h);
        pthread_mutex_destroy(&h->lock);
        pthread_mutex_destroy(&h->timer_lock);
        pthread_cond_destroy(&h->cond);
        free(h);
    }
    turns_free(s->turns);
    free(s);
}
