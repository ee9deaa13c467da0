/* SPDX-License-Identifier: MIT */
/* Memory on the controller: the controller memory buffer (8.5) in BAR 2, the persistent memory region (8.14) in BAR 4. */
#include "hw/nvme/cmb.h"

#include "base/log.h"

enum { CMBMSC_CRE = 1, CMBMSC_CMSE = 2, CMBSTS_CBAI = 1 };
enum { PMRCTL_EN = 1, PMRMSC_CMSE = 2 };
#define CMBSZ_USES 0x1fu                /* queues of both kinds, lists, data to and from the host */
#define CMBSZ_UNIT_1M (2u << 8)
#define CMBLOC_VALUE (2u | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8)     /* BIR; any mix with host memory */
#define PMRCAP_VALUE (1u << 3 | 1u << 4 | 4u << 5 | 1u << 11 | 1u << 24)    /* both directions, BIR, a read is a barrier, CMSS */
#define PMRSTS_NRDY (1u << 8)
#define PMRSTS_CBAI (1u << 12)

/* ---- addresses that mean this memory ---- */

/* A window at @cba in the host's address space that stands for BAR @bar. */
static bool in_window(const struct nvme *n, unsigned bar, uint64_t cba, uint64_t size, uint64_t iova, uint64_t *pa, uint64_t *len)
{
    if (!size)
        return false;
    if (iova < cba && cba - iova < *len)
        *len = cba - iova;              /* up to the window */
    if (iova < cba || iova - cba >= size || n->pci.bar[bar].mapped == UINT64_MAX)
        return false;
    *pa = n->pci.bar[bar].mapped + (iova - cba);
    *len = MIN(*len, size - (iova - cba));
    return true;
}

static bool xlate(void *arg, uint64_t iova, bool write, uint64_t *pa, uint64_t *len)
{
    struct nvme *n = arg;
    struct nvme_cmb *c = &n->cmb;

    if (c->msc & CMBMSC_CMSE && in_window(n, 2, c->msc & ~UINT64_C(0xfff), c->size, iova, pa, len))
        return true;
    if (c->pmrmsc & PMRMSC_CMSE && c->pmrctl & PMRCTL_EN && in_window(n, 4, c->pmrmsc & ~UINT64_C(0xfff), c->pmr_size, iova, pa, len))
        return true;
    *pa = iova;
    return c->xlate ? c->xlate(c->xlate_arg, iova, write, pa, len) : true;
}

/* ---- registers ---- */

uint64_t nvme_cmb_read(const struct nvme *n, uint64_t off)
{
    const struct nvme_cmb *c = &n->cmb;
    bool shown = c->size && (c->legacy || c->msc & CMBMSC_CRE);

    switch (off) {
    case NVME_REG_CMBLOC: return shown ? CMBLOC_VALUE : 0;
    case NVME_REG_CMBSZ: return shown ? CMBSZ_USES | CMBSZ_UNIT_1M | (uint32_t)(c->size / MiB) << 12 : 0;
    case NVME_REG_CMBMSC: return c->msc;
    case NVME_REG_CMBSTS: return c->sts;
    case NVME_REG_PMRCAP: return c->pmr_size ? PMRCAP_VALUE : 0;
    case NVME_REG_PMRCTL: return c->pmrctl;
    case NVME_REG_PMRSTS: return (c->pmr_size && !(c->pmrctl & PMRCTL_EN) ? PMRSTS_NRDY : 0) | c->pmrsts;
    case NVME_REG_PMRMSCL: return (uint32_t)c->pmrmsc;
    case NVME_REG_PMRMSCU: return c->pmrmsc >> 32;
    default: return 0;
    }
}

static bool window_ok(uint64_t msc, uint64_t size) { return (msc & ~UINT64_C(0xfff)) <= UINT64_MAX - size; }

static void write_cmbmsc(struct nvme *n, uint64_t v)
{
    struct nvme_cmb *c = &n->cmb;

    if (!c->size || c->legacy)
        return;
    nvme_rings_forget(n);
    c->msc = v & (~UINT64_C(0xfff) | CMBMSC_CRE | CMBMSC_CMSE);
    c->sts &= ~(uint32_t)CMBSTS_CBAI;
    if (!(c->msc & CMBMSC_CRE) || (c->msc & CMBMSC_CMSE && !window_ok(c->msc, c->size))) {
        c->sts |= c->msc & CMBMSC_CMSE ? CMBSTS_CBAI : 0;
        c->msc &= ~(uint64_t)CMBMSC_CMSE;
    }
}

static void write_pmrmsc(struct nvme *n, uint64_t v)
{
    struct nvme_cmb *c = &n->cmb;

    nvme_rings_forget(n);
    c->pmrmsc = v & (~UINT64_C(0xfff) | PMRMSC_CMSE);
    c->pmrsts &= ~PMRSTS_CBAI;
    if (c->pmrmsc & PMRMSC_CMSE && !window_ok(c->pmrmsc, c->pmr_size)) {
        c->pmrmsc &= ~(uint64_t)PMRMSC_CMSE;
        c->pmrsts |= PMRSTS_CBAI;
    }
}

bool nvme_cmb_write(struct nvme *n, uint64_t off, uint64_t v)
{
    struct nvme_cmb *c = &n->cmb;

    switch (off) {
    case NVME_REG_CMBMSC: write_cmbmsc(n, v); return true;
    case NVME_REG_PMRCTL:
        if (c->pmr_size) {
            nvme_rings_forget(n);
            c->pmrctl = (uint32_t)v & PMRCTL_EN;
            region_set_enabled(&c->pmr, c->pmrctl);
        }
        return true;
    case NVME_REG_PMRMSCL:
        if (c->pmr_size)
            write_pmrmsc(n, (c->pmrmsc & ~UINT64_C(0xffffffff)) | (uint32_t)v);
        return true;
    case NVME_REG_PMRMSCU:
        if (c->pmr_size)
            write_pmrmsc(n, (uint32_t)c->pmrmsc | v << 32);
        return true;
    case NVME_REG_PMRCAP: case NVME_REG_PMRSTS: case NVME_REG_CMBLOC: case NVME_REG_CMBSZ: case NVME_REG_CMBSTS: return true;
    default: return false;
    }
}

void nvme_cmb_reset(struct nvme *n)
{
    struct nvme_cmb *c = &n->cmb;

    c->msc = c->pmrmsc = 0;
    c->sts = c->pmrsts = c->pmrctl = 0;
    if (c->pmr_size)
        region_set_enabled(&c->pmr, false);
}

/* ---- life ---- */

bool nvme_cmb_init(struct nvme *n, struct err *e)
{
    struct nvme_cmb *c = &n->cmb;

    c->size = c->size_mb * MiB;
    c->legacy = n->legacy_cmb;
    if (c->size) {
        c->ram = ram_new("nvme-cmb", c->size, e);
        if (!c->ram)
            return false;
        region_init_ram(&c->cmb, "nvme-cmb", c->ram, 0, c->size);
        pci_bar_add(&n->pci, 2, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, &c->cmb);
        n->cap |= c->legacy ? 0 : NVME_CAP_CMBS;
    }
    if (n->pmrdev) {
        struct ram *ram = memory_backend_claim(n->pmrdev, n->pci.dev.obj.id, e);

        if (!ram)
            return false;
        if (!is_pow2(ram->size)) {
            memory_backend_release(n->pmrdev);
            return err_set(e, ERR_VALUE, "pmrdev '%s' has %llu bytes, but must have a power of two", n->pmrdev->id, (unsigned long long)ram->size);
        }
        c->pmr_size = ram->size;
        region_init_ram(&c->pmr, "nvme-pmr", ram, 0, ram->size);
        region_init_container(&c->pmr_bar, "nvme-pmr-bar", ram->size);
        region_add(&c->pmr_bar, 0, &c->pmr, 0);
        region_set_enabled(&c->pmr, false);
        pci_bar_add(&n->pci, 4, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, &c->pmr_bar);
        n->cap |= NVME_CAP_PMRS;
    }
    if (c->size || c->pmr_size) {
        c->xlate = n->pci.dma.xlate;
        c->xlate_arg = n->pci.dma.xlate_arg;
        n->pci.dma.xlate = xlate;
        n->pci.dma.xlate_arg = n;
    }
    return true;
}

void nvme_cmb_fini(struct nvme *n)
{
    struct nvme_cmb *c = &n->cmb;

    region_fini(&c->pmr);
    region_fini(&c->pmr_bar);
    region_fini(&c->cmb);
    if (c->pmr_size)
        memory_backend_release(n->pmrdev);
    ram_free(c->ram);
    c->ram = NULL;
    c->size = c->pmr_size = 0;
}
