/* SPDX-License-Identifier: MIT */
/* The controller on PCI: registers (3.1.3), enabling, shutdown, resets (3.5 to 3.7). Options and life are in nvme.c. */
#include "base/log.h"
#include "hw/nvme/cmb.h"
#include "hw/nvme/ctrl_int.h"
#include "hw/nvme/firmware.h"
#include "hw/nvme/maint.h"
#include "hw/nvme/notice.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/rpmb.h"
#include "hw/nvme/virt.h"

void nvme_fail(struct nvme *n, const char *why)
{
    n->csts |= NVME_CSTS_CFS;
    n->ocp_data.panics++;
    nvme_pel_error(n, NVME_HW_FATAL);
    log_guest("nvme '%s': fatal: %s", n->pci.dev.obj.id, why);
}

/* ---- enabling ---- */

static const char *cannot_start(const struct nvme *n)
{
    unsigned css = (n->cc & NVME_CC_CSS) >> NVME_CC_CSS_SHIFT, ams = (n->cc & NVME_CC_AMS) >> NVME_CC_AMS_SHIFT;
    unsigned mps = n->cc >> NVME_CC_MPS_SHIFT & 15;
    uint32_t asqs = (n->aqa & 0xfff) + 1, acqs = (n->aqa >> 16 & 0xfff) + 1;

    if (mps > NVME_MPS_MAX)
        return "CC.MPS is more than CAP.MPSMAX";
    if (css != NVME_CSS_NVM && css != NVME_CSS_IOCS && css != NVME_CSS_ADMIN)
        return "CC.CSS is not in CAP.CSS";
    if (ams > 1)
        return "CC.AMS is not in CAP.AMS";
    if (asqs < 2 || acqs < 2)
        return "an admin queue has less than two entries";
    if ((n->asq | n->acq) & (nvme_page(n) - 1))
        return "an admin queue does not begin at a page";
    return NULL;
}

static void enable(struct nvme *n)
{
    const char *why = cannot_start(n);

    if (why) {
        nvme_fail(n, why);
        return;
    }
    nvme_cq_open(&n->cq[0], 0, true, n->acq, (n->aqa >> 16 & 0xfff) + 1);
    nvme_sq_open(&n->sq[0], 0, n->asq, (n->aqa & 0xfff) + 1, 0);
    n->csts |= NVME_CSTS_RDY;
}

void nvme_drained(struct nvme *n)
{
    nvme_drained_wake(n);
    if (!n->disabling)
        return;
    n->disabling = false;
    n->csts &= NVME_CSTS_NSSRO;
    if (n->cc & NVME_CC_EN)             /* set again before the controller was done */
        enable(n);
}

/* A controller reset (3.7.2): queues are gone at once, CSTS.RDY stays until nothing is in flight. */
static void disable(struct nvme *n)
{
    nvme_queues_close(n);
    nvme_events_reset(n);
    nvme_features_reset(n, false);
    nvme_ctrl_forget(n);
    nvme_virt_reset(n);
    nvme_pel_reset(n);
    n->queues_made = false;
    n->disabling = true;
    if (!n->in_flight)
        nvme_drained(n);
}

/* 3.6.1: caches are written, then the host is told. */
static void co_shutdown(void *arg)
{
    struct nvme *n = arg;
    uint32_t gen = n->gen;

    co_nvme_flush_all(n);
    if (gen == n->gen && (n->csts & NVME_CSTS_SHST) == NVME_CSTS_SHST_BUSY)
        n->csts = (n->csts & ~(uint32_t)NVME_CSTS_SHST) | NVME_CSTS_SHST_DONE;
    nvme_pel_health(n);
    if (!--n->in_flight)
        nvme_drained(n);
}

static void shutdown(struct nvme *n)
{
    n->csts = (n->csts & ~(uint32_t)NVME_CSTS_SHST) | NVME_CSTS_SHST_BUSY;
    n->clean_shutdown = true;                           /* 5.16.1.3: that it was received is what counts */
    n->in_flight++;
    co_spawn(NULL, n->pci.dev.dom, co_shutdown, n);
}

static void write_cc(struct nvme *n, uint32_t v)
{
    uint32_t old = n->cc;

    v &= NVME_CC_WRITABLE;
    if (old & NVME_CC_EN && v & NVME_CC_EN)             /* fixed while enabled, but the notification and entry sizes */
        v = (old & ~(NVME_CC_SHN | 0x00ff0000u)) | (v & (NVME_CC_SHN | 0x00ff0000u));
    n->cc = v;
    if (v & NVME_CC_SHN && !(old & NVME_CC_SHN))
        shutdown(n);
    if (!(v & NVME_CC_SHN) && old & NVME_CC_SHN)
        n->csts &= ~(uint32_t)NVME_CSTS_SHST;
    if (v & NVME_CC_EN && !(old & NVME_CC_EN) && !n->disabling)
        enable(n);
    if (!(v & NVME_CC_EN) && old & NVME_CC_EN)
        disable(n);
}

/* ---- resets ---- */

void nvme_ctrl_reset(struct nvme *n, bool cold)
{
    bool unsafe = false;

    nvme_queues_close(n);
    nvme_events_reset(n);
    nvme_ctrl_forget(n);
    nvme_virt_reset(n);
    nvme_cmb_reset(n);
    nvme_boot_reset(n);
    n->asq = n->acq = 0;
    n->cc = n->csts = n->aqa = n->intms = 0;
    n->queues_made = n->quiesced = n->starved = false;
    n->disabling = n->in_flight != 0;                   /* what the host left running ends before it can enable again */
    if (cold) {
        unsafe = n->power_cycles && !n->clean_shutdown;
        n->unsafe_shutdowns += unsafe;
        n->power_cycles++;
        n->powered_ns = clock_now(CLOCK_VM);
        n->clean_shutdown = false;
        n->timestamp = n->timestamp_origin = 0;
        n->timestamp_set = n->powered_ns;
    }
    nvme_pel_reset(n);
    if (unsafe)
        nvme_pel_error(n, NVME_HW_UNSAFE_SHUTDOWN);
    if (cold && !n->pci.pf)
        nvme_ns_features_reset(n->ss);
    for (unsigned i = 1; cold && !n->pci.pf && i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_allocated(n->ss, i);

        if (!ns)
            continue;
        nvme_zones_power_cycle(ns);
        if (ns->write_protect == NVME_PROTECT_CYCLE)
            ns->write_protect = NVME_PROTECT_NONE;
    }
    nvme_features_reset(n, cold && !n->features_kept && n->power_cycles <= 1);
    if (cold)
        nvme_state_dirty(n->ss);
    pci_intx_set(&n->pci, 0);
}

/* 3.7.1: every controller of the subsystem. They are reset on the main loop, as their locks are not ours to take. */
static void subsystem_reset(struct nvme *n)
{
    pthread_mutex_lock(&n->ss->lock);
    nvme_ns_features_reset(n->ss);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++) {
        struct nvme *m = n->ss->ctrl[i];
        if (m) {
            atomic_store(&m->nssr, true);
            domain_post(&m->events_post);
        }
    }
    pthread_mutex_unlock(&n->ss->lock);
}

/* ---- access ---- */

static uint64_t reg_read(struct nvme *n, uint64_t off)
{
    switch (off) {
    case NVME_REG_CAP: return n->cap;
    case NVME_REG_VS: return NVME_VERSION;
    case NVME_REG_INTMS: case NVME_REG_INTMC: return n->intms;
    case NVME_REG_CC: return n->cc;
    case NVME_REG_CSTS: return n->csts;
    case NVME_REG_AQA: return n->aqa;
    case NVME_REG_ASQ: return n->asq;
    case NVME_REG_ACQ: return n->acq;
    case NVME_REG_BPINFO: case NVME_REG_BPRSEL: case NVME_REG_BPMBL: return nvme_boot_reg(n, off);
    case NVME_REG_CRTO: return 0x001e001e;              /* 15 s, as CAP.TO */
    default: return nvme_cmb_read(n, off);
    }
}

/* Registers of 8 bytes, and what a 4-byte access of either half touches. */
static bool is_wide(uint64_t at)
{
    return at == NVME_REG_CAP || at == NVME_REG_ASQ || at == NVME_REG_ACQ || at == NVME_REG_CMBMSC || at == NVME_REG_BPMBL;
}

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
    struct nvme *n = opaque;
    uint64_t base = is_wide(off & ~7ull) ? off & ~7ull : off & ~3ull, v;

    if (!nvme_virt_online(n))
        return (base == NVME_REG_CSTS ? NVME_CSTS_CFS : 0) & mask_of_size(size);        /* 8.26.3: the others are undefined */
    v = reg_read(n, base) >> 8 * (off - base);

    if (size == 8 && base == off && !is_wide(base))
        v |= reg_read(n, base + 4) << 32;
    return v & mask_of_size(size);
}

static uint64_t merge(uint64_t old, uint64_t off, uint64_t v, unsigned size)
{
    uint64_t m = mask_of_size(size) << 8 * (off & 7);

    return (old & ~m) | (v << 8 * (off & 7) & m);
}

static void regs_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct nvme *n = opaque;
    uint64_t at = off & ~3ull;
    bool locked = n->cc & NVME_CC_EN || n->csts & NVME_CSTS_RDY;      /* after a reset of the function the host need not wait for what runs */

    if (!nvme_virt_online(n))
        return;
    if (is_wide(off & ~7ull))
        at = off & ~7ull;
    switch (at) {
    case NVME_REG_INTMS: case NVME_REG_INTMC:
        if (pci_msix_enabled(&n->pci)) {
            log_guest("nvme '%s': interrupt mask written with MSI-X on", n->pci.dev.obj.id);    /* 3.1.3.3: undefined */
            return;
        }
        n->intms = at == NVME_REG_INTMS ? n->intms | (uint32_t)v : n->intms & ~(uint32_t)v;
        nvme_pin_update(n);
        return;
    case NVME_REG_CC: write_cc(n, (uint32_t)v); return;
    case NVME_REG_CSTS: n->csts &= ~((uint32_t)v & NVME_CSTS_NSSRO); return;
    case NVME_REG_NSSR:
        if ((uint32_t)v == NVME_NSSR_MAGIC)
            subsystem_reset(n);
        return;
    case NVME_REG_AQA:
        if (!locked)
            n->aqa = (uint32_t)v & 0x0fff0fff;
        if (size == 8)
            regs_write(n, NVME_REG_ASQ, v >> 32, 4);
        return;
    case NVME_REG_ASQ:
        if (!locked)
            n->asq = merge(n->asq, off, v, size) & ~UINT64_C(0xfff);
        return;
    case NVME_REG_ACQ:
        if (!locked)
            n->acq = merge(n->acq, off, v, size) & ~UINT64_C(0xfff);
        return;
    case NVME_REG_BPMBL: nvme_boot_write(n, at, merge(n->boot.where, off, v, size)); return;
    case NVME_REG_BPRSEL: nvme_boot_write(n, at, (uint32_t)v); return;
    case NVME_REG_CMBMSC: nvme_cmb_write(n, at, merge(n->cmb.msc, off, v, size)); return;
    case NVME_REG_PMRMSCL:
        nvme_cmb_write(n, at, (uint32_t)v);
        if (size == 8)
            nvme_cmb_write(n, NVME_REG_PMRMSCU, v >> 32);
        return;
    default:
        if (!nvme_cmb_write(n, at, (uint32_t)v))
            log_guest("nvme '%s': write of %u bytes to 0x%llx", n->pci.dev.obj.id, size, (unsigned long long)off);
    }
}

const struct mmio_ops nvme_regs_ops = { .read = regs_read, .write = regs_write, .min = 4, .max = 8, .valid_min = 4 };

uint64_t nvme_cap_value(const struct nvme *n)
{
    return n->mqes | NVME_CAP_CQR | NVME_CAP_AMS_WRR | UINT64_C(30) << NVME_CAP_TO_SHIFT | NVME_CAP_NSSRS | NVME_CAP_CSS_NVM |
           NVME_CAP_CSS_IOCS | NVME_CAP_CSS_NOIO | (uint64_t)NVME_MPS_MAX << NVME_CAP_MPSMAX_SHIFT | NVME_CAP_CRMS_CRWMS;
}

/* ---- what others asked of this controller: its domain's lock held ---- */

static void keep_alive_late(void *arg)
{
    nvme_fail(arg, "no keep alive in time");            /* 3.9 */
}

void nvme_keep_alive_init(struct nvme *n) { timer_init(&n->keep_alive, CLOCK_VM, NULL, n->pci.dev.dom, keep_alive_late, n); }

void nvme_keep_alive(struct nvme *n)
{
    uint32_t ms = n->feat[NVME_FEAT_KEEP_ALIVE];

    timer_arm(&n->keep_alive, ms ? clock_now(CLOCK_VM) + (ms + 99) / 100 * INT64_C(100000000) : INT64_MAX);
}

void nvme_ctrl_forget(struct nvme *n)
{
    timer_disarm(&n->keep_alive);
    nvme_test_reset(n);
    nvme_notice_reset(n);
    nvme_fw_activate(n);
    nvme_fw_forget(n);
    nvme_rpmb_reset(n);
    pthread_mutex_lock(&n->ss->lock);
    for (unsigned i = 1; i <= NVME_NS_MAX; i++)
        if (nvme_ns_at(n, i))
            nvme_streams_forget(n, nvme_ns_at(n, i));
    pthread_mutex_unlock(&n->ss->lock);
    for (size_t i = 0; i < ARRAY_SIZE(n->changed_ns); i++)
        atomic_store(&n->changed_ns[i], 0);
}

void nvme_told(void *arg)
{
    struct nvme *n = arg;

    nvme_virt_online(n);
    nvme_notice_told(n);
    nvme_sanitize_resume(n);
    if (atomic_exchange(&n->nssr, false)) {
        nvme_ctrl_reset(n, false);
        n->csts = NVME_CSTS_NSSRO;
    }
    if (atomic_exchange(&n->ns_change, false))
        nvme_event(n, NVME_EV_NS_CHANGED, NVME_LOG_CHANGED_NS);
    if (atomic_exchange(&n->ana_change, false))
        nvme_event(n, NVME_EV_ANA, NVME_LOG_ANA);
    if (atomic_exchange(&n->resv_event, false))
        nvme_event(n, NVME_EV_RESERVATION, NVME_LOG_RESERVATION);
    if (atomic_exchange(&n->sanitize_event, false))
        nvme_event(n, NVME_EV_SANITIZE_DONE, NVME_LOG_SANITIZE);
}
