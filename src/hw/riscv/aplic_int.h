/* SPDX-License-Identifier: MIT */
/* The APLIC (AIA 1.0, chapter 4): what its registers and its deliveries share. */
#ifndef HW_RISCV_APLIC_INT_H
#define HW_RISCV_APLIC_INT_H

#include <pthread.h>
#include "cpu/riscv/hart.h"
#include "hw/riscv/aplic.h"

#define APLIC_WORDS 4u
#define APLIC_SOURCES_MAX (APLIC_WORDS * 32 - 1)

/* domaincfg, AIA 4.5.1 */
enum { DOMAINCFG_BE = 1, DOMAINCFG_DM = 4, DOMAINCFG_IE = 0x100 };
#define DOMAINCFG_TOP 0x80000000u
/* sourcecfg, AIA 4.5.2 */
enum { SOURCECFG_D = 0x400, SM_INACTIVE = 0, SM_DETACHED = 1, SM_EDGE1 = 4, SM_EDGE0 = 5, SM_LEVEL1 = 6, SM_LEVEL0 = 7 };

struct aplic_idc { uint32_t delivery, force, threshold; };

struct aplic {
    struct sys_dev sys;
    uint32_t num_sources, num_harts;            /* options */
    bool mmode, msimode;
    uint32_t domaincfg, genmsi;
    uint32_t mmsicfg, mmsicfgh, smsicfg, smsicfgh;
    uint32_t sourcecfg[APLIC_SOURCES_MAX + 1], target[APLIC_SOURCES_MAX + 1];
    uint32_t input[APLIC_WORDS], pending[APLIC_WORDS], enabled[APLIC_WORDS];
    struct aplic_idc idc[HART_MAX];
    struct aplic *parent, *child;
    pthread_mutex_t own_lock, *lock;            /* one lock for root and child: the root's. A leaf but for the IMSIC's */
    struct region mmio;
    struct irq_bank in;
};

static inline bool aplic_bit(const uint32_t *w, unsigned n)
{
    return w[n / 32] >> (n & 31) & 1;
}
static inline void aplic_put(uint32_t *w, unsigned n, bool on)
{
    w[n / 32] = on ? w[n / 32] | 1u << (n & 31) : w[n / 32] & ~(1u << (n & 31));
}

/* aplic.c: all with the lock held. */
unsigned aplic_mode(const struct aplic *a, unsigned n);         /* SM_*, inactive when delegated */
bool aplic_rectified(const struct aplic *a, unsigned n);
uint32_t aplic_topi(const struct aplic *a, unsigned hart);
void aplic_set_pending(struct aplic *a, unsigned n, bool on);   /* as setip/clrip do */
void aplic_set_enabled(struct aplic *a, unsigned n, bool on);
void aplic_set_sourcecfg(struct aplic *a, unsigned n, uint32_t v);
void aplic_send_msi(struct aplic *a, unsigned hart, unsigned guest, unsigned eiid);
void aplic_deliver_all(struct aplic *a);
uint32_t aplic_claim(struct aplic *a, unsigned hart);
/* aplic_regs.c */
extern const struct mmio_ops aplic_ops;
#define APLIC_IDC_BASE 0x4000u
#define APLIC_IDC_SIZE 32u

#endif
