/* SPDX-License-Identifier: MIT */
/*
 * Advanced platform-level interrupt controller ("RISC-V Advanced Interrupt Architecture" 1.0, chapter 4): sources,
 * delegation, direct and MSI delivery. Registers are in aplic_regs.c.
 */
#include "hw/riscv/aplic_int.h"

#include "mem/view.h"

unsigned aplic_mode(const struct aplic *a, unsigned n)
{
    return a->sourcecfg[n] & SOURCECFG_D ? SM_INACTIVE : a->sourcecfg[n] & 7;
}

static bool is_level(unsigned mode)
{
    return mode == SM_LEVEL1 || mode == SM_LEVEL0;
}

static bool msi_mode(const struct aplic *a)
{
    return a->domaincfg & DOMAINCFG_DM;
}

/* Section 4.5.2, table "Rectified input value". */
bool aplic_rectified(const struct aplic *a, unsigned n)
{
    unsigned mode = aplic_mode(a, n);
    bool in = aplic_bit(a->input, n);
    return mode == SM_EDGE1 || mode == SM_LEVEL1 ? in : mode == SM_EDGE0 || mode == SM_LEVEL0 ? !in : false;
}

/* ---- MSI delivery: sections 4.9.1 to 4.9.3 ---- */

void aplic_send_msi(struct aplic *a, unsigned hart, unsigned guest, unsigned eiid)
{
    const struct aplic *root = a->parent ? a->parent : a;
    uint32_t h = root->mmsicfgh;
    unsigned lhxw = h >> 12 & 0xf, hhxw = h >> 16 & 7, hhxs = h >> 24 & 0x1f;
    unsigned lhxs = a->mmode ? h >> 20 & 7 : root->smsicfgh >> 20 & 7;
    uint64_t ppn = a->mmode ? (uint64_t)(h & 0xfff) << 32 | root->mmsicfg
                            : (uint64_t)(root->smsicfgh & 0xfff) << 32 | root->smsicfg;
    uint64_t group = hart >> lhxw & ((1u << hhxw) - 1), index = hart & ((1u << lhxw) - 1);
    uint64_t addr = ppn | group << (hhxs + 12) | index << lhxs | (a->mmode ? 0 : guest);
    msi_send(&as_memory, (struct msi_msg){ .addr = addr << 12, .data = eiid });
}

static void deliver_msi(struct aplic *a, unsigned n)
{
    if (!(a->domaincfg & DOMAINCFG_IE) || !aplic_bit(a->pending, n) || !aplic_bit(a->enabled, n))
        return;
    aplic_put(a->pending, n, false);
    uint32_t t = a->target[n];
    aplic_send_msi(a, t >> 18, t >> 12 & 0x3f, t & 0x7ff);
}

/* ---- direct delivery: section 4.8 ---- */

uint32_t aplic_topi(const struct aplic *a, unsigned hart)
{
    uint32_t best = 0, prio = a->idc[hart].threshold ? a->idc[hart].threshold : 256;
    for (unsigned w = 0; w < APLIC_WORDS; w++) {
        for (uint32_t m = a->pending[w] & a->enabled[w]; m; m &= m - 1) {
            unsigned n = w * 32 + (unsigned)__builtin_ctz(m);
            uint32_t p = a->target[n] & 0xff;
            if (a->target[n] >> 18 == hart && p < prio) {
                prio = p;
                best = n << 16 | p;
            }
        }
    }
    return best;
}

static void deliver_direct(struct aplic *a, unsigned hart)
{
    const struct aplic_idc *i = &a->idc[hart];
    bool on = (a->domaincfg & DOMAINCFG_IE) && i->delivery && (aplic_topi(a, hart) || i->force);
    sys_dev_irq(&a->sys, hart, on);
}

uint32_t aplic_claim(struct aplic *a, unsigned hart)
{
    uint32_t top = aplic_topi(a, hart);
    if (!top)
        a->idc[hart].force = 0;
    else if (!is_level(aplic_mode(a, top >> 16)))
        aplic_put(a->pending, top >> 16, false);
    deliver_direct(a, hart);
    return top;
}

/* Source @n changed. */
static void deliver(struct aplic *a, unsigned n)
{
    unsigned hart = a->target[n] >> 18;
    if (msi_mode(a))
        deliver_msi(a, n);
    else if (hart < a->num_harts)
        deliver_direct(a, hart);
}

void aplic_deliver_all(struct aplic *a)
{
    for (unsigned n = 1; n <= a->num_sources && msi_mode(a); n++)
        deliver_msi(a, n);
    for (unsigned h = 0; h < a->num_harts; h++) {
        if (msi_mode(a))
            sys_dev_irq(&a->sys, h, 0);
        else
            deliver_direct(a, h);
    }
}

/* ---- sources ---- */

/* What an input does to the pending bit: section 4.7. */
static void input_set(struct aplic *a, unsigned n, bool level)
{
    bool was = aplic_rectified(a, n);
    aplic_put(a->input, n, level);
    if (a->sourcecfg[n] & SOURCECFG_D) {
        if (a->child)
            input_set(a->child, n, level);
        return;
    }
    unsigned mode = aplic_mode(a, n);
    bool is = aplic_rectified(a, n);
    if (mode <= SM_DETACHED || is == was)
        return;
    if (is_level(mode) || is)
        aplic_put(a->pending, n, is);
    deliver(a, n);
}

/* Level-sensitive sources follow their input in direct mode; in MSI mode they can be set only while it is active. */
void aplic_set_pending(struct aplic *a, unsigned n, bool on)
{
    unsigned mode = aplic_mode(a, n);
    if (!n || n > a->num_sources || mode == SM_INACTIVE ||
        (is_level(mode) && (!msi_mode(a) || (on && !aplic_rectified(a, n)))))
        return;
    aplic_put(a->pending, n, on);
    deliver(a, n);
}

void aplic_set_enabled(struct aplic *a, unsigned n, bool on)
{
    if (!n || n > a->num_sources || aplic_mode(a, n) == SM_INACTIVE)
        return;
    aplic_put(a->enabled, n, on);
    deliver(a, n);
}

void aplic_set_sourcecfg(struct aplic *a, unsigned n, uint32_t v)
{
    static const bool valid[8] = { [SM_INACTIVE] = true, [SM_DETACHED] = true, [SM_EDGE1] = true, [SM_EDGE0] = true,
                                   [SM_LEVEL1] = true, [SM_LEVEL0] = true };
    if (v & SOURCECFG_D)
        v = a->child ? SOURCECFG_D : 0;     /* the only child is number 0 */
    else
        v = valid[v & 7] ? v & 7 : SM_INACTIVE;
    bool was_mine = aplic_mode(a, n) != SM_INACTIVE;
    a->sourcecfg[n] = v;
    if (a->child) {
        /* A source that is not delegated reads as inactive in the child: section 4.5.2. */
        if (!(v & SOURCECFG_D) && a->child->sourcecfg[n])
            aplic_set_sourcecfg(a->child, n, 0);
        aplic_put(a->child->input, n, v & SOURCECFG_D ? aplic_bit(a->input, n) : false);
    }
    if (aplic_mode(a, n) == SM_INACTIVE) {
        aplic_put(a->pending, n, false);
        aplic_put(a->enabled, n, false);
        a->target[n] = 0;
    } else {
        if (!was_mine && !msi_mode(a))
            a->target[n] = 1;               /* priority 0 does not exist */
        if (is_level(aplic_mode(a, n)))
            aplic_put(a->pending, n, aplic_rectified(a, n));
    }
    aplic_deliver_all(a);
}

static void aplic_irq(void *arg, unsigned n, int level)
{
    struct aplic *a = arg;
    if (!n || n > a->num_sources)
        return;
    pthread_mutex_lock(a->lock);
    input_set(a, n, level != 0);
    pthread_mutex_unlock(a->lock);
}

/* ---- device ---- */

struct irq aplic_input(struct sys_dev *root, unsigned n)
{
    return irq_in(&((struct aplic *)root)->in, n);
}

void aplic_set_child(struct sys_dev *root, struct sys_dev *child)
{
    struct aplic *r = (struct aplic *)root, *c = (struct aplic *)child;
    r->child = c;
    c->parent = r;
    c->lock = r->lock;
}

/* Input levels are the devices'; the child sees them again once sources are delegated. */
static void aplic_reset(struct dev *d, enum reset_kind k)
{
    struct aplic *a = (struct aplic *)d;
    pthread_mutex_lock(a->lock);
    a->domaincfg = a->genmsi = a->mmsicfg = a->mmsicfgh = a->smsicfg = a->smsicfgh = 0;
    memset(a->sourcecfg, 0, sizeof a->sourcecfg);
    memset(a->target, 0, sizeof a->target);
    memset(a->pending, 0, sizeof a->pending);
    memset(a->enabled, 0, sizeof a->enabled);
    memset(a->idc, 0, sizeof a->idc);
    if (a->parent)
        memset(a->input, 0, sizeof a->input);
    pthread_mutex_unlock(a->lock);
}

static void aplic_reset_out(struct dev *d)
{
    struct aplic *a = (struct aplic *)d;
    pthread_mutex_lock(a->lock);
    aplic_deliver_all(a);
    pthread_mutex_unlock(a->lock);
}

static bool aplic_realize(struct dev *d, struct err *e)
{
    struct aplic *a = (struct aplic *)d;
    pthread_mutex_init(&a->own_lock, NULL);
    a->lock = &a->own_lock;
    a->in = (struct irq_bank){ .path = a->mmode ? "aplic-m" : "aplic-s", .n = a->num_sources + 1, .set = aplic_irq, .arg = a };
    irq_bank_register(&a->in);
    region_init_mmio(&a->mmio, "riscv.aplic", a->num_harts * APLIC_IDC_SIZE + APLIC_IDC_BASE < 0x8000 ? 0x8000
                     : APLIC_IDC_BASE + a->num_harts * APLIC_IDC_SIZE, &aplic_ops, a, d->dom);
    sys_dev_mmio_add(&a->sys, &a->mmio);
    return true;
}

static void aplic_unrealize(struct dev *d)
{
    struct aplic *a = (struct aplic *)d;
    irq_bank_unregister(&a->in);
    region_fini(&a->mmio);
    sys_dev_mmio_forget(&a->sys);
    if (a->child)
        a->child->parent = NULL;
    if (a->child)
        a->child->lock = &a->child->own_lock;
    if (a->parent)
        a->parent->child = NULL;
    pthread_mutex_destroy(&a->own_lock);
}

static bool aplic_post_load(void *obj, struct err *e)
{
    struct aplic *a = obj;
    for (unsigned h = 0; h < a->num_harts && !(a->domaincfg & DOMAINCFG_DM); h++)
        deliver_direct(a, h);
    return true;
}

static const struct state_field aplic_idc_fields[] = {
    STATE_UINT(struct aplic_idc, delivery, .max = 1), STATE_UINT(struct aplic_idc, force, .max = 1),
    STATE_UINT(struct aplic_idc, threshold, .max = 255), STATE_END,
};
static const struct state_desc aplic_idc_state = { .name = "aplic-idc", .version = 1, .fields = aplic_idc_fields };
static const struct state_field aplic_fields[] = {
    STATE_SYS(struct aplic), STATE_SKIP(struct aplic, num_sources, "option"), STATE_SKIP(struct aplic, num_harts, "option"),
    STATE_SKIP(struct aplic, mmode, "option"), STATE_SKIP(struct aplic, msimode, "option"),
    STATE_UINT(struct aplic, domaincfg), STATE_UINT(struct aplic, genmsi), STATE_UINT(struct aplic, mmsicfg),
    STATE_UINT(struct aplic, mmsicfgh), STATE_UINT(struct aplic, smsicfg), STATE_UINT(struct aplic, smsicfgh),
    STATE_ARRAY(struct aplic, sourcecfg), STATE_ARRAY(struct aplic, target), STATE_ARRAY(struct aplic, input),
    STATE_ARRAY(struct aplic, pending), STATE_ARRAY(struct aplic, enabled),
    STATE_STRUCTS(struct aplic, idc, &aplic_idc_state), STATE_SKIP(struct aplic, parent, "wiring"),
    STATE_SKIP(struct aplic, child, "wiring"), STATE_SKIP(struct aplic, own_lock, "host side"),
    STATE_SKIP(struct aplic, lock, "host side"), STATE_SKIP(struct aplic, mmio, "host side"),
    STATE_SKIP(struct aplic, in, "wiring"), STATE_END,
};
static const struct state_desc aplic_state = { .name = "aplic", .version = 1, .fields = aplic_fields,
                                               .post_load = aplic_post_load };
static const struct prop aplic_props[] = {
    PROP_U32(struct aplic, num_sources, "num-sources", 96, 1, APLIC_SOURCES_MAX, "Number of interrupt sources"),
    PROP_U32(struct aplic, num_harts, "num-harts", 1, 1, HART_MAX, "Number of harts"),
    PROP_BOOL(struct aplic, mmode, "mmode", false, "Machine-level domain"),
    PROP_BOOL(struct aplic, msimode, "msimode", false, "Delivers by messages to IMSICs"),
    PROP_END,
};
static const struct dev_class aplic_class = {
    .obj = { .name = "riscv.aplic", .desc = "Interrupt domain of an advanced platform-level interrupt controller",
             .base = &sys_dev_class.obj, .size = sizeof(struct aplic), .props = aplic_props, .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = aplic_realize, .unrealize = aplic_unrealize, .reset = aplic_reset,
    .reset_out = aplic_reset_out, .state = &aplic_state,
};
OBJ_CLASS(&aplic_class.obj);
