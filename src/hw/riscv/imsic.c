/* SPDX-License-Identifier: MIT */
/*
 * Incoming message-signalled interrupt controller ("RISC-V Advanced Interrupt Architecture" 1.0, chapter 3): one interrupt
 * file per hart, 255 identities, no guest files. Messages come from any thread, CSR accesses from the hart's; each file has
 * a leaf mutex.
 */
#include "hw/riscv/imsic.h"

#include <pthread.h>
#include "base/log.h"

enum { IMSIC_PAGE = 0x1000, IMSIC_SETEIPNUM_LE = 0, IMSIC_SETEIPNUM_BE = 4, IMSIC_IDS = 255, IMSIC_WORDS = 4 };
enum { REG_EIDELIVERY = 0x70, REG_EITHRESHOLD = 0x72, REG_EIP0 = 0x80, REG_EIE0 = 0xc0, REG_END = 0x100 };

struct imsic_file {
    uint32_t delivery, threshold;
    uint64_t pending[IMSIC_WORDS], enable[IMSIC_WORDS];
};

struct imsic {
    struct sys_dev sys;
    uint32_t num_harts;
    struct imsic_file file[HART_MAX];
    pthread_mutex_t lock[HART_MAX];
    struct region mmio;
};

/* Lowest identity pending, enabled and below the threshold: section 3.9. 0: none. */
static unsigned imsic_top(const struct imsic_file *f)
{
    for (unsigned w = 0; w < IMSIC_WORDS; w++) {
        uint64_t m = f->pending[w] & f->enable[w];
        if (m) {
            unsigned id = w * 64 + ctz64(m);
            return !f->threshold || id < f->threshold ? id : 0;
        }
    }
    return 0;
}

static void imsic_update(struct imsic *s, unsigned hart)
{
    const struct imsic_file *f = &s->file[hart];
    sys_dev_irq(&s->sys, hart, f->delivery == 1 && imsic_top(f));
}

static void imsic_message(struct imsic *s, uint64_t off, uint32_t id)
{
    unsigned hart = (unsigned)(off / IMSIC_PAGE);
    uint64_t reg = off % IMSIC_PAGE;
    if (reg == IMSIC_SETEIPNUM_BE)
        id = __builtin_bswap32(id);
    else if (reg != IMSIC_SETEIPNUM_LE)
        return;
    if (!id || id > IMSIC_IDS || hart >= s->num_harts)
        return;
    pthread_mutex_lock(&s->lock[hart]);
    s->file[hart].pending[id / 64] |= BIT64(id % 64);
    imsic_update(s, hart);
    pthread_mutex_unlock(&s->lock[hart]);
}

static void imsic_msi(void *opaque, uint64_t off, uint32_t data)
{
    imsic_message(opaque, off, data);
}

static uint64_t imsic_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;       /* section 3.5: reads of the page are zero */
}

static void imsic_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    imsic_message(opaque, off, (uint32_t)v);
}

static const struct mmio_ops imsic_ops = { .read = imsic_read, .write = imsic_write, .min = 4, .max = 4, .valid_min = 4,
                                           .valid_max = 4, .lockless = true };

/* ---- CSRs ---- */

static struct imsic *imsic_of_level(void *opaque, unsigned level)
{
    struct imsic_pair *p = opaque;
    return (struct imsic *)(level == 3 ? p->m : p->s);
}

static uint64_t imsic_topei(void *opaque, unsigned hart, unsigned level, bool claim)
{
    struct imsic *s = imsic_of_level(opaque, level);
    pthread_mutex_lock(&s->lock[hart]);
    unsigned id = imsic_top(&s->file[hart]);
    if (claim && id) {
        s->file[hart].pending[id / 64] &= ~BIT64(id % 64);
        imsic_update(s, hart);
    }
    pthread_mutex_unlock(&s->lock[hart]);
    return (uint64_t)id << 16 | id;
}

/* The word that register @reg holds 64 bits of; NULL: identities that are not implemented, read-only zero. */
static uint64_t *imsic_word(struct imsic_file *f, unsigned reg)
{
    bool enable = reg >= REG_EIE0;
    unsigned w = (reg - (enable ? REG_EIE0 : REG_EIP0)) / 2;
    return w >= IMSIC_WORDS ? NULL : enable ? &f->enable[w] : &f->pending[w];
}

static uint64_t merge(uint64_t old, uint64_t val, uint64_t mask)
{
    return (old & ~mask) | (val & mask);
}

static bool imsic_rmw(void *opaque, unsigned hart, unsigned level, unsigned reg, uint64_t *old, uint64_t val, uint64_t mask)
{
    struct imsic *s = imsic_of_level(opaque, level);
    struct imsic_file *f = &s->file[hart];
    bool array = reg >= REG_EIP0 && reg < REG_END;
    /* With XLEN 64 the odd registers of the arrays do not exist: section 3.8.3. */
    if ((array && reg & 1) || (!array && reg != REG_EIDELIVERY && reg != REG_EITHRESHOLD))
        return false;
    pthread_mutex_lock(&s->lock[hart]);
    if (array) {
        uint64_t *w = imsic_word(f, reg);
        *old = w ? *w : 0;
        if (w)
            *w = merge(*w, val, mask) & ~(uint64_t)(w == &f->pending[0] || w == &f->enable[0]);
    } else if (reg == REG_EIDELIVERY) {
        *old = f->delivery;
        uint64_t v = merge(f->delivery, val, mask);
        if (v <= 1)                         /* WARL; no delivery from a wired controller */
            f->delivery = (uint32_t)v;
    } else {
        *old = f->threshold;
        f->threshold = merge(f->threshold, val, mask) & IMSIC_IDS;
    }
    if (mask)
        imsic_update(s, hart);
    pthread_mutex_unlock(&s->lock[hart]);
    return true;
}

const struct hart_imsic_ops imsic_hart_ops = { .topei = imsic_topei, .rmw = imsic_rmw };

/* ---- device ---- */

static void imsic_reset(struct dev *d, enum reset_kind k)
{
    struct imsic *s = (struct imsic *)d;
    for (unsigned i = 0; i < HART_MAX; i++) {
        pthread_mutex_lock(&s->lock[i]);
        s->file[i] = (struct imsic_file){ 0 };
        pthread_mutex_unlock(&s->lock[i]);
    }
}

static void imsic_reset_out(struct dev *d)
{
    struct imsic *s = (struct imsic *)d;
    for (unsigned i = 0; i < s->num_harts; i++) {
        pthread_mutex_lock(&s->lock[i]);
        imsic_update(s, i);
        pthread_mutex_unlock(&s->lock[i]);
    }
}

static bool imsic_realize(struct dev *d, struct err *e)
{
    struct imsic *s = (struct imsic *)d;
    for (unsigned i = 0; i < HART_MAX; i++)
        pthread_mutex_init(&s->lock[i], NULL);
    region_init_mmio(&s->mmio, "riscv.imsic", (uint64_t)s->num_harts * IMSIC_PAGE, &imsic_ops, s, d->dom);
    s->mmio.msi = imsic_msi;
    sys_dev_mmio_add(&s->sys, &s->mmio);
    return true;
}

static void imsic_unrealize(struct dev *d)
{
    struct imsic *s = (struct imsic *)d;
    region_fini(&s->mmio);
    sys_dev_mmio_forget(&s->sys);
    for (unsigned i = 0; i < HART_MAX; i++)
        pthread_mutex_destroy(&s->lock[i]);
}

static bool imsic_post_load(void *obj, struct err *e)
{
    imsic_reset_out(obj);
    return true;
}

static const struct state_field imsic_file_fields[] = {
    STATE_UINT(struct imsic_file, delivery, .max = 1), STATE_UINT(struct imsic_file, threshold, .max = IMSIC_IDS),
    STATE_ARRAY(struct imsic_file, pending), STATE_ARRAY(struct imsic_file, enable), STATE_END,
};
static const struct state_desc imsic_file_state = { .name = "imsic-file", .version = 1, .fields = imsic_file_fields };
static const struct state_field imsic_fields[] = {
    STATE_SYS(struct imsic), STATE_SKIP(struct imsic, num_harts, "option"),
    STATE_STRUCTS(struct imsic, file, &imsic_file_state), STATE_SKIP(struct imsic, lock, "host side"),
    STATE_SKIP(struct imsic, mmio, "host side"), STATE_END,
};
static const struct state_desc imsic_state = { .name = "imsic", .version = 1, .fields = imsic_fields,
                                               .post_load = imsic_post_load };
static const struct prop imsic_props[] = {
    PROP_U32(struct imsic, num_harts, "num-harts", 1, 1, HART_MAX, "Number of harts"),
    PROP_END,
};
static const struct dev_class imsic_class = {
    .obj = { .name = "riscv.imsic", .desc = "Incoming MSI controllers", .base = &sys_dev_class.obj, .size = sizeof(struct imsic),
             .props = imsic_props, .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = imsic_realize, .unrealize = imsic_unrealize, .reset = imsic_reset, .reset_out = imsic_reset_out,
    .state = &imsic_state,
};
OBJ_CLASS(&imsic_class.obj);
