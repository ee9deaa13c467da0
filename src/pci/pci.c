/* SPDX-License-Identifier: MIT */
/* A function's header, BARs and configuration accesses. */
#include "pci/pci.h"

#include <assert.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/str.h"
#include "pci/pci_int.h"

const struct prop pci_props[] = {
    { .name = "addr", .type = PROP_T_PCI_ADDR, .off = offsetof(struct pci_opts, addr), .def = (uint64_t)-1,
      .doc = "Slot and function on the bus, as SLOT[.FN] in hex; left out: the next free slot" },
    PROP_BOOL(struct pci_opts, multifunction, "multifunction", false, "Function 0 announces that its slot has more functions"),
    PROP_STR(struct pci_opts, romfile, "romfile", 0, "File with the option ROM that firmware runs; empty: none"),
    PROP_U8(struct pci_opts, rombar, "rombar", 1, 0, 1, "Whether the function has a ROM BAR for it"),
    { .name = "romsize", .type = PROP_T_SIZE, .off = offsetof(struct pci_opts, romsize), .flags = PF_POW2, .max = 16 * MiB,
      .doc = "Size of the ROM BAR; 0: that of the file, rounded up" },
    PROP_END,
};
static const struct prop pci_dev_props[] = { PROP_INCLUDE(struct pci_dev, opt, pci_props), PROP_END };

static void arrays_of(struct pci_dev *d, uint8_t **out[6])
{
    uint8_t **all[6] = { &d->config, &d->wmask, &d->w1cmask, &d->vmask, &d->smask, &d->init };

    memcpy(out, all, sizeof all);
}

static void pci_dev_finalize(struct obj *o)
{
    uint8_t **arrays[6];

    arrays_of(PCI_DEV(o), arrays);
    for (unsigned i = 0; i < ARRAY_SIZE(arrays); i++)
        free(*arrays[i]);
    pthread_mutex_destroy(&PCI_DEV(o)->irq_lock);
}

static bool pci_dev_init(struct obj *o, struct err *e)
{
    struct pci_dev *d = PCI_DEV(o);
    pthread_mutex_init(&d->irq_lock, NULL);
    d->devfn = -1;
    for (unsigned i = 0; i <= PCI_ROM_BAR; i++)
        d->bar[i].mapped = UINT64_MAX;
    return true;
}

const struct pci_class pci_dev_class = {
    .dev = { .obj = { .name = "pci-device", .base = &dev_obj_class, .size = sizeof(struct pci_dev), .flags = OCF_ABSTRACT,
                      .props = pci_dev_props, .init = pci_dev_init, .finalize = pci_dev_finalize },
             .cat = "Misc", .plugs_into = &pci_bus_class, .state_none = "abstract" },
};
OBJ_CLASS(&pci_dev_class.dev.obj);

/* ---- header ---- */

/* Empty configuration space, nothing claimed but the header. */
static void config_clear(struct pci_dev *d)
{
    uint8_t **arrays[6];

    arrays_of(d, arrays);
    for (unsigned i = 0; i < ARRAY_SIZE(arrays); i++) {
        free(*arrays[i]);
        *arrays[i] = xcalloc(1, PCIE_CONFIG_SIZE);
    }
    d->config_size = d->pbus->express ? PCIE_CONFIG_SIZE : PCI_CONFIG_SIZE;
    d->cap_list_tail = d->pm_cap = d->msi_cap = d->exp_cap = d->msix_cap = 0;
    d->ext_cap_tail = 0;
    memset(d->claimed, 0, sizeof d->claimed);
    memset(d->claimed, 0xff, 0x40 / 32);
    d->pm_state = 0;
    d->intx_pin = 0;
    d->flr_post = (struct post){ .fn = pci_reset_now, .arg = d };
    d->link_post = (struct post){ .fn = pci_link_job, .arg = d };
    atomic_store(&d->link, PCI_LINK_UP);
    atomic_store(&d->silent, 0);
    atomic_store(&d->intx_level, false);
    atomic_store(&d->intx_off, false);
}

bool pci_header_init(struct pci_dev *d, struct err *e)
{
    const struct pci_class *c = PCI_CLASS(d);

    config_clear(d);
    /* A VF's identity is its PF's, and the device id in the PF's capability (PCI Express 5.0, 9.3.4.1.1). */
    st_le16(d->config + PCI_VENDOR_ID, d->pf ? 0xffff : c->vendor);
    st_le16(d->config + PCI_DEVICE_ID, d->pf ? 0xffff : c->device);
    d->config[PCI_REVISION] = c->revision;
    st_le(d->config + PCI_CLASS_PROG, c->class_code, 3);
    d->config[PCI_HEADER_TYPE] = (c->bridge ? PCI_HEADER_BRIDGE : 0) | (d->opt.multifunction ? PCI_HEADER_MULTI : 0);
    if (!c->bridge) {
        st_le16(d->config + PCI_SUBVENDOR_ID, c->subvendor);
        st_le16(d->config + PCI_SUBSYSTEM_ID, c->subdevice);
    }
    st_le16(d->wmask + PCI_COMMAND, d->pf ? PCI_COMMAND_MASTER : 0x0547);
    st_le16(d->w1cmask + PCI_STATUS, 0xf900);
    st_le16(d->vmask + PCI_STATUS, 0xf900);
    if (!d->pf)
        d->wmask[PCI_CACHE_LINE] = d->wmask[PCI_INT_LINE] = 0xff;
    dma_init(&d->dma, d->pbus->dma_as);
    atomic_store(&d->dma.enabled, false);
    atomic_store(&d->master, false);
    return !(c->express && d->pbus->express && !c->bridge) ||
           pcie_cap_init(d, d->pbus->bridge ? PCI_EXP_TYPE_ENDPOINT : PCI_EXP_TYPE_RC_ENDPOINT, 0, e);
}

void pci_reset_values(struct pci_dev *d) { memcpy(d->init, d->config, PCIE_CONFIG_SIZE); }

/* ---- BARs ---- */
static uint32_t bar_reg(const struct pci_dev *d, unsigned n)
{
    if (n == PCI_ROM_BAR)
        return PCI_CLASS(d)->bridge ? PCI_BRIDGE_ROM : PCI_ROM_ADDRESS;
    return PCI_BAR0 + 4 * n;
}

/* BAR @n is not the upper half of a 64-bit one, nor taken. */
static bool bar_free(const struct pci_dev *d, unsigned n)
{
    bool upper = n && n < PCI_ROM_BAR && d->bar[n - 1].region && d->bar[n - 1].type & PCI_BAR_MEM64;

    return n <= PCI_ROM_BAR && !d->bar[n].region && !upper;
}

static uint64_t bar_max(uint8_t type, unsigned n)
{
    if (type & PCI_BAR_IO)
        return 64 * KiB;
    return n == PCI_ROM_BAR ? 16 * MiB : type & PCI_BAR_MEM64 ? BIT64(62) : 2 * GiB;
}

void pci_bar_add(struct pci_dev *d, unsigned n, uint8_t type, struct region *r)
{
    uint64_t size = MAX(r->size, type & PCI_BAR_IO ? 4u : n == PCI_ROM_BAR ? 2048u : 16u);
    uint32_t reg = bar_reg(d, n);

    if (!is_pow2(size))
        size = BIT64(64 - clz64(size));
    assert(bar_free(d, n) && size <= bar_max(type, n));
    assert(!(type & ~(type & PCI_BAR_IO ? PCI_BAR_IO : PCI_BAR_MEM64 | PCI_BAR_PREFETCH)) && (n != PCI_ROM_BAR || !type));
    assert(!PCI_CLASS(d)->bridge || n < 2 || n == PCI_ROM_BAR);
    d->bar[n] = (struct pci_bar){ .region = r, .size = size, .type = type, .mapped = UINT64_MAX };
    if (d->pf)
        return;                         /* its place is in the PF's registers */
    if (n == PCI_ROM_BAR) {
        st_le32(d->wmask + reg, (uint32_t)~(size - 1) | PCI_ROM_ENABLE);
        return;
    }
    st_le32(d->config + reg, type);
    st_le32(d->wmask + reg, (uint32_t)~(size - 1));
    if (type & PCI_BAR_MEM64) {
        assert(!d->bar[n + 1].region && n + 1 < (PCI_CLASS(d)->bridge ? 2 : PCI_BARS));
        st_le32(d->wmask + reg + 4, (uint32_t)(~(size - 1) >> 32));
    }
}

/* Where the guest wants the BAR to be; UINT64_MAX if nowhere. A range that wraps is no range (an address is not masked twice). */
static uint64_t bar_address(const struct pci_dev *d, unsigned n)
{
    const struct pci_bar *b = &d->bar[n];
    if (!b->region || !pci_in_d0(d) || !pci_connected(d))
        return UINT64_MAX;
    if (d->pf)
        return pci_vf_bar_address(d, n);    /* and nothing of its own registers: its PF may be asking, on another thread */
    uint16_t cmd = ld_le16(d->config + PCI_COMMAND);
    uint32_t lo = ld_le32(d->config + bar_reg(d, n));
    if (b->type & PCI_BAR_IO) {
        uint64_t a = lo & ~(b->size - 1) & 0xffffffff;
        return cmd & PCI_COMMAND_IO && range_ok(a, b->size, 0x10000) ? a : UINT64_MAX;
    }
    if (!(cmd & PCI_COMMAND_MEMORY) || (n == PCI_ROM_BAR && !(lo & PCI_ROM_ENABLE)))
        return UINT64_MAX;
    uint64_t a = lo, end = UINT32_MAX;
    if (n != PCI_ROM_BAR && b->type & PCI_BAR_MEM64) {
        a |= (uint64_t)ld_le32(d->config + bar_reg(d, n) + 4) << 32;
        end = UINT64_MAX;
    }
    a &= ~(b->size - 1);
    return range_ok(a, b->size, end) ? a : UINT64_MAX;      /* the very top is what sizing leaves: not decoded */
}

static void bar_map(struct pci_dev *d, unsigned n, uint64_t addr)
{
    struct pci_bar *b = &d->bar[n];
    if (b->mapped == addr)
        return;
    if (b->mapped != UINT64_MAX)
        region_del(b->region);
    b->mapped = addr;
    if (addr != UINT64_MAX)
        region_add(b->type & PCI_BAR_IO ? d->pbus->io : d->pbus->mem, addr, b->region, 1);
}

void pci_bars_update(struct pci_dev *d)
{
    region_batch_begin();
    for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
        bar_map(d, n, bar_address(d, n));
    region_batch_end();
}

void pci_update(struct pci_dev *d)
{
    uint16_t cmd = ld_le16(d->config + PCI_COMMAND);
    bool d0 = pci_in_d0(d);
    pci_bars_update(d);
    atomic_store(&d->master, cmd & PCI_COMMAND_MASTER && d0 && pci_connected(d));
    pci_master_update(d);
    atomic_store(&d->intx_off, cmd & PCI_COMMAND_INTX_DISABLE || !d0 || !pci_connected(d));
    pci_intx_update(d);
}

static void unmap_all(struct pci_dev *d)
{
    region_batch_begin();
    for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
        bar_map(d, n, UINT64_MAX);
    region_batch_end();
}

/* ---- configuration accesses ---- */
uint32_t pci_fn_read(struct pci_dev *d, uint32_t off, unsigned size)
{
    uint8_t b[4] = { 0 };
    if (size == 0 || size > 4 || !range_ok(off, size, d->config_size))
        return UINT32_MAX;
    memcpy(b, d->config + off, size);
    if (pci_touches(off, size, PCI_STATUS, 1) && atomic_load(&d->intx_level))
        b[PCI_STATUS - off] |= PCI_STATUS_INTX;
    uint32_t pend = d->msi ? pci_msi_pending(d) : 0;
    for (unsigned i = 0; pend && i < size; i++) {
        uint32_t at = off + i - (d->msi_cap + (uint32_t)PCI_MSI_PENDING);
        if (at < 4)
            b[i] = (uint8_t)(pend >> 8 * at);
    }
    uint32_t v = ld_le32(b);
    return (d->cfg_read ? d->cfg_read(d, off, size, v) : v) & (uint32_t)mask_of_size(size);
}

/* The bytes that the guest may write, and the bits that it clears. */
static void write_masked(struct pci_dev *d, uint32_t off, uint32_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t *c = d->config + off + i, w = d->wmask[off + i], val = (uint8_t)(v >> 8 * i);

        *c = (uint8_t)((*c & ~w) | (val & w));
        *c &= (uint8_t)~(val & d->w1cmask[off + i]);
    }
}

void pci_fn_write(struct pci_dev *d, uint32_t off, uint32_t v, unsigned size)
{
    if (size == 0 || size > 4 || !range_ok(off, size, d->config_size))
        return;
    uint32_t old = (uint32_t)ld_le(d->config + off, size);
    write_masked(d, off, v, size);
    if (pci_touches(off, size, PCI_COMMAND, 2) || pci_touches(off, size, PCI_BAR0, 24) ||
        pci_touches(off, size, bar_reg(d, PCI_ROM_BAR), 4))
        pci_update(d);
    if (d->pm_cap)
        pci_pm_written(d, off, size);
    if (d->msi)
        pci_msi_written(d, off, size);
    if (d->msix)
        pci_msix_written(d, off, size);
    if (d->exp_cap)
        pcie_written(d, off, v, size);
    if (d->sriov)
        pci_sriov_written(d, off, size, old);
    if (d->cfg_write)
        d->cfg_write(d, off, size, old);
}

/* ---- reset and load ---- */

void pci_loaded(struct pci_dev *d)
{
    d->pm_state = d->pm_cap ? d->config[d->pm_cap + PCI_PM_CTRL] & PCI_PM_STATE : 0;
    if (d->msi)
        pci_msi_written(d, d->msi_cap, 4);
    if (d->msix)
        pci_msix_written(d, d->msix_cap, 4);
    pci_update(d);
    if (d->sriov)
        pci_sriov_update(d);
}

void pci_reset_config(struct pci_dev *d, enum reset_kind k)
{
    uint16_t keep[3] = { 0 };

    if (!d->config)
        return;
    pcie_keep(d, keep);
    for (uint32_t i = PCI_COMMAND; i < d->config_size; i++) {
        uint8_t m = (d->wmask[i] | d->w1cmask[i]) & (k == RESET_COLD ? 0xff : (uint8_t)~d->smask[i]);

        d->config[i] = (uint8_t)((d->config[i] & ~m) | (d->init[i] & m));
    }
    if (k == RESET_FUNCTION)
        pcie_restore(d, keep);
    pci_msi_reset(d);
    pci_msix_reset(d);
    pci_loaded(d);
}

/* ---- end ---- */
void pci_fini(struct pci_dev *d)
{
    loop_post_cancel(loop_main(), &d->flr_post);
    loop_post_cancel(loop_main(), &d->link_post);
    unmap_all(d);
    pci_rom_fini(d);
    pci_msix_fini(d);
    pci_msi_fini(d);
    for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
        d->bar[n] = (struct pci_bar){ .mapped = UINT64_MAX };
    d->cfg_write = NULL;
    d->cfg_read = NULL;
}
