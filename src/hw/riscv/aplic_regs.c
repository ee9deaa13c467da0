/* SPDX-License-Identifier: MIT */
/* Register file of an APLIC domain: AIA 1.0, section 4.5, table "Format of the memory-mapped control region". */
#include "base/log.h"
#include "hw/riscv/aplic_int.h"

enum {
    R_DOMAINCFG = 0x0000, R_SOURCECFG = 0x0004, R_SOURCECFG_END = 0x1000, R_MMSICFG = 0x1bc0, R_MMSICFGH = 0x1bc4,
    R_SMSICFG = 0x1bc8, R_SMSICFGH = 0x1bcc, R_SETIP = 0x1c00, R_SETIPNUM = 0x1cdc, R_IN_CLRIP = 0x1d00, R_CLRIPNUM = 0x1ddc,
    R_SETIE = 0x1e00, R_SETIENUM = 0x1edc, R_CLRIE = 0x1f00, R_CLRIENUM = 0x1fdc, R_SETIPNUM_LE = 0x2000, R_SETIPNUM_BE = 0x2004,
    R_GENMSI = 0x3000, R_TARGET = 0x3004, R_TARGET_END = 0x4000,
    IDC_DELIVERY = 0x00, IDC_FORCE = 0x04, IDC_THRESHOLD = 0x08, IDC_TOPI = 0x18, IDC_CLAIMI = 0x1c,
};
#define MMSICFGH_MASK 0x9f77ffffu
#define MMSICFGH_LOCK 0x80000000u
#define SMSICFGH_MASK 0x00700fffu

/* Index of the 32-bit word of one of the arrays at @base, or -1 if @off is not in it. */
static int word_of(uint64_t off, uint64_t base)
{
    return off >= base && off < base + 0x80 ? (int)((off - base) / 4) : -1;
}

static uint32_t rectified_word(const struct aplic *a, unsigned w)
{
    uint32_t v = 0;
    for (unsigned b = 0; b < 32; b++)
        if (w * 32 + b && w * 32 + b <= a->num_sources && aplic_rectified(a, w * 32 + b))
            v |= 1u << b;
    return v;
}

static uint32_t idc_read(struct aplic *a, uint64_t off)
{
    unsigned hart = (unsigned)(off / APLIC_IDC_SIZE);
    if (hart >= a->num_harts || (a->domaincfg & DOMAINCFG_DM))
        return 0;
    switch (off % APLIC_IDC_SIZE) {
    case IDC_DELIVERY: return a->idc[hart].delivery;
    case IDC_FORCE: return a->idc[hart].force;
    case IDC_THRESHOLD: return a->idc[hart].threshold;
    case IDC_TOPI: return aplic_topi(a, hart);
    case IDC_CLAIMI: return aplic_claim(a, hart);
    default: return 0;
    }
}

static void idc_write(struct aplic *a, uint64_t off, uint32_t v)
{
    unsigned hart = (unsigned)(off / APLIC_IDC_SIZE);
    if (hart >= a->num_harts || (a->domaincfg & DOMAINCFG_DM))
        return;
    switch (off % APLIC_IDC_SIZE) {
    case IDC_DELIVERY:
        a->idc[hart].delivery = v & 1;
        break;
    case IDC_FORCE:
        a->idc[hart].force = v & 1;
        break;
    case IDC_THRESHOLD:
        a->idc[hart].threshold = v & 0xff;
        break;
    default:
        return;
    }
    aplic_deliver_all(a);
}

static uint32_t read_locked(struct aplic *a, uint64_t off)
{
    int w;
    if (off == R_DOMAINCFG)
        return DOMAINCFG_TOP | a->domaincfg;
    if (off < R_SOURCECFG_END)
        return off / 4 <= a->num_sources ? a->sourcecfg[off / 4] : 0;
    if (off >= APLIC_IDC_BASE)
        return idc_read(a, off - APLIC_IDC_BASE);
    if (off >= R_TARGET && off < R_TARGET_END)
        return (off - R_GENMSI) / 4 <= a->num_sources ? a->target[(off - R_GENMSI) / 4] : 0;
    if ((w = word_of(off, R_SETIP)) >= 0)
        return w < (int)APLIC_WORDS ? a->pending[w] : 0;
    if ((w = word_of(off, R_IN_CLRIP)) >= 0)
        return w < (int)APLIC_WORDS ? rectified_word(a, (unsigned)w) : 0;
    if ((w = word_of(off, R_SETIE)) >= 0)
        return w < (int)APLIC_WORDS ? a->enabled[w] : 0;
    switch (off) {
    case R_GENMSI: return a->genmsi;
    case R_MMSICFG: return a->mmode && a->msimode ? a->mmsicfg : 0;
    case R_MMSICFGH: return a->mmode && a->msimode ? a->mmsicfgh : 0;
    case R_SMSICFG: return a->mmode && a->msimode ? a->smsicfg : 0;
    case R_SMSICFGH: return a->mmode && a->msimode ? a->smsicfgh : 0;
    default: return 0;
    }
}

/* Every bit of @v set in array word @w: @fn for that source. */
static void each_bit(struct aplic *a, int w, uint32_t v, void (*fn)(struct aplic *, unsigned, bool), bool on)
{
    for (; w < (int)APLIC_WORDS && v; v &= v - 1)
        fn(a, (unsigned)w * 32 + (unsigned)__builtin_ctz(v), on);
}

static void target_write(struct aplic *a, unsigned n, uint32_t v)
{
    if (aplic_mode(a, n) == SM_INACTIVE)
        return;
    uint32_t hart = v >> 18;
    if (a->domaincfg & DOMAINCFG_DM) {
        a->target[n] = hart << 18 | (a->mmode ? 0 : v & 0x3f000) | (v & 0x7ff);
    } else {
        uint32_t prio = v & 0xff;
        a->target[n] = (hart < a->num_harts ? hart << 18 : 0) | (prio ? prio : 1);
    }
    aplic_deliver_all(a);
}

static void domaincfg_write(struct aplic *a, uint32_t v)
{
    v &= DOMAINCFG_IE | DOMAINCFG_DM;
    v = a->msimode ? v | DOMAINCFG_DM : v & ~(uint32_t)DOMAINCFG_DM;    /* one mode each; little endian */
    a->domaincfg = v;
    aplic_deliver_all(a);
}

static void msicfg_write(struct aplic *a, uint64_t off, uint32_t v)
{
    if (!a->mmode || !a->msimode || (a->mmsicfgh & MMSICFGH_LOCK))
        return;
    if (off == R_MMSICFG)
        a->mmsicfg = v;
    else if (off == R_MMSICFGH)
        a->mmsicfgh = v & MMSICFGH_MASK;
    else if (off == R_SMSICFG)
        a->smsicfg = v;
    else
        a->smsicfgh = v & SMSICFGH_MASK;
}

static void write_locked(struct aplic *a, uint64_t off, uint32_t v)
{
    int w;
    if (off == R_DOMAINCFG)
        domaincfg_write(a, v);
    else if (off < R_SOURCECFG_END && off / 4 <= a->num_sources) {
        /* In a child only what the parent delegated can be configured. */
        if (!a->parent || (a->parent->sourcecfg[off / 4] & SOURCECFG_D))
            aplic_set_sourcecfg(a, (unsigned)off / 4, v);
    } else if (off >= APLIC_IDC_BASE)
        idc_write(a, off - APLIC_IDC_BASE, v);
    else if (off >= R_TARGET && off < R_TARGET_END && (off - R_GENMSI) / 4 <= a->num_sources)
        target_write(a, (unsigned)(off - R_GENMSI) / 4, v);
    else if ((w = word_of(off, R_SETIP)) >= 0)
        each_bit(a, w, v, aplic_set_pending, true);
    else if ((w = word_of(off, R_IN_CLRIP)) >= 0)
        each_bit(a, w, v, aplic_set_pending, false);
    else if ((w = word_of(off, R_SETIE)) >= 0)
        each_bit(a, w, v, aplic_set_enabled, true);
    else if ((w = word_of(off, R_CLRIE)) >= 0)
        each_bit(a, w, v, aplic_set_enabled, false);
    else if (off == R_SETIPNUM || off == R_SETIPNUM_LE)
        aplic_set_pending(a, v <= a->num_sources ? v : 0, true);
    else if (off == R_SETIPNUM_BE)
        aplic_set_pending(a, __builtin_bswap32(v) <= a->num_sources ? __builtin_bswap32(v) : 0, true);
    else if (off == R_CLRIPNUM)
        aplic_set_pending(a, v <= a->num_sources ? v : 0, false);
    else if (off == R_SETIENUM || off == R_CLRIENUM)
        aplic_set_enabled(a, v <= a->num_sources ? v : 0, off == R_SETIENUM);
    else if (off >= R_MMSICFG && off <= R_SMSICFGH)
        msicfg_write(a, off, v);
    else if (off == R_GENMSI && (a->domaincfg & DOMAINCFG_DM)) {
        a->genmsi = v & 0xfffc07ff;
        aplic_send_msi(a, v >> 18, 0, v & 0x7ff);
    }
}

static uint64_t aplic_read(void *opaque, uint64_t off, unsigned size)
{
    struct aplic *a = opaque;
    pthread_mutex_lock(a->lock);
    uint32_t v = read_locked(a, off);
    pthread_mutex_unlock(a->lock);
    return v;
}

static void aplic_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct aplic *a = opaque;
    pthread_mutex_lock(a->lock);
    write_locked(a, off, (uint32_t)v);
    pthread_mutex_unlock(a->lock);
}

const struct mmio_ops aplic_ops = { .read = aplic_read, .write = aplic_write, .min = 4, .max = 4, .valid_min = 4,
                                    .valid_max = 4, .lockless = true };
