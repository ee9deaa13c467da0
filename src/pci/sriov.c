/* SPDX-License-Identifier: MIT */
/* Physical and virtual functions. Sections are of PCI Express Base 5.0. */
#include "pci/sriov.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/str.h"
#include "pci/pci_int.h"

/* The PF's side. What the VFs' BARs need is in atomics: they are looked at under the topology lock, by whoever changes something. */
struct pci_sriov {
    struct pci_sriov_opts o;
    uint16_t cap;
    struct bus *bus;                            /* the VFs' in the object tree */
    struct pci_dev **vf;                        /* of total; NULL: not there. PF's domain lock */
    atomic_uint enabled;                        /* how many are; */
    atomic_bool decode;                         /* VF MSE */
    atomic_uint_least64_t bar[PCI_BARS], page;
    uint64_t bar_size[PCI_BARS];
    uint8_t bar_type[PCI_BARS];
};

struct pci_vf_bus { struct bus bus; struct pci_dev *pf; };

static uint8_t *reg(const struct pci_dev *pf, unsigned r) { return pf->config + pf->sriov->cap + r; }

/* ---- BARs of VFs, 9.3.3.14: one after the other from the PF's VF BAR on ---- */

uint64_t pci_vf_bar_address(const struct pci_dev *vf, unsigned n)
{
    const struct pci_sriov *s = vf->pf->sriov;
    uint64_t base, step, at;

    if (n >= PCI_BARS || !s->bar_size[n] || !atomic_load(&s->decode) || vf->vf_index >= atomic_load(&s->enabled))
        return UINT64_MAX;
    base = atomic_load(&s->bar[n]);
    step = MAX(s->bar_size[n], atomic_load(&s->page));
    if (__builtin_add_overflow(base, step * vf->vf_index, &at))
        return UINT64_MAX;
    return range_ok(at, step, s->bar_type[n] & PCI_BAR_MEM64 ? UINT64_MAX : UINT32_MAX) ? at : UINT64_MAX;
}

/* Sizing registers show what one VF takes: a page at least. */
static void bar_masks(struct pci_dev *pf)
{
    struct pci_sriov *s = pf->sriov;

    for (unsigned n = 0; n < PCI_BARS; n++) {
        uint64_t mask = ~(MAX(s->bar_size[n], atomic_load(&s->page)) - 1);
        uint32_t at = s->cap + PCI_SRIOV_BAR0 + 4 * n;

        if (!s->bar_size[n])
            continue;
        st_le32(pf->wmask + at, (uint32_t)mask);
        st_le32(pf->config + at, (ld_le32(pf->config + at) & (uint32_t)mask) | s->bar_type[n]);
        if (s->bar_type[n] & PCI_BAR_MEM64)
            st_le32(pf->wmask + at + 4, (uint32_t)(mask >> 32));
    }
}

static void take_bars(struct pci_dev *pf)
{
    struct pci_sriov *s = pf->sriov;
    uint32_t page = ld_le32(reg(pf, PCI_SRIOV_SYS_PAGE)) & PCI_SRIOV_PAGES;

    atomic_store(&s->page, (uint64_t)4096 << ctz64(page ? page : 1));
    bar_masks(pf);
    for (unsigned n = 0; n < PCI_BARS; n++) {
        uint64_t at = ld_le32(reg(pf, PCI_SRIOV_BAR0 + 4 * n)) & ~UINT32_C(15);

        if (s->bar_type[n] & PCI_BAR_MEM64)
            at |= (uint64_t)ld_le32(reg(pf, PCI_SRIOV_BAR0 + 4 * n + 4)) << 32;
        atomic_store(&s->bar[n], at);
    }
}

/* ---- coming and going at the guest's word, 9.3.3.3 ---- */

static void show(struct pci_dev *vf, bool on)
{
    bool was = !(atomic_load(&vf->silent) & PCI_SILENT_VF);

    if (on && !was)
        atomic_fetch_and(&vf->silent, ~(unsigned)PCI_SILENT_VF);
    if (!on && was) {
        atomic_fetch_or(&vf->silent, (unsigned)PCI_SILENT_VF);
        pci_reset_later(vf);            /* what it was doing ends, and it comes back as new */
    }
}

void pci_sriov_update(struct pci_dev *pf)
{
    struct pci_sriov *s = pf->sriov;
    uint16_t ctl = ld_le16(reg(pf, PCI_SRIOV_CTRL)), num = ld_le16(reg(pf, PCI_SRIOV_NUM));
    unsigned was = atomic_load(&s->enabled), now = ctl & PCI_SRIOV_CTRL_VFE && num <= s->o.total && pci_in_d0(pf) && pci_connected(pf) ? num : 0;

    take_bars(pf);
    atomic_store(&s->decode, ctl & PCI_SRIOV_CTRL_MSE);
    atomic_store(&s->enabled, now);
    region_batch_begin();
    for (unsigned i = 0; i < s->o.total; i++) {
        if (!s->vf[i])
            continue;
        show(s->vf[i], i < now);
        pci_bars_update(s->vf[i]);
    }
    region_batch_end();
    if (was != now && s->o.changed)
        s->o.changed(pf, now);
}

void pci_sriov_written(struct pci_dev *pf, uint32_t off, unsigned size, uint32_t old)
{
    struct pci_sriov *s = pf->sriov;
    uint32_t num = s->cap + (uint32_t)PCI_SRIOV_NUM;

    if (!pci_touches(off, size, s->cap + (uint32_t)PCI_SRIOV_CTRL, PCI_SRIOV_SIZE - PCI_SRIOV_CTRL))
        return;
    if (atomic_load(&s->enabled))       /* the number stands while they are enabled */
        for (unsigned i = 0; i < size; i++)
            if (off + i - num < 2)
                pf->config[off + i] = (uint8_t)(old >> 8 * i);
    pci_sriov_update(pf);
}

/* ---- the VFs' bus in the object tree: slots on the PF's ---- */

static bool vf_attach(struct bus *bus, struct dev *dev, struct err *e)
{
    struct pci_dev *pf = ((struct pci_vf_bus *)bus)->pf, *vf = PCI_DEV(dev);
    const struct pci_sriov_opts *o = &pf->sriov->o;
    unsigned devfn = (unsigned)pf->devfn + o->first_offset + vf->vf_index * o->stride;

    if (devfn > 255)
        return err_set(e, ERR_VALUE, "virtual function %u of '%s' would be on the next bus: fewer of them, or a lower addr=", vf->vf_index,
                       pf->dev.obj.id);
    if (pci_bus_fn(pf->pbus, devfn))
        return err_set(e, ERR_BUSY, "virtual function %u of '%s' needs address %02x.%x of bus '%s', which '%s' has", vf->vf_index,
                       pf->dev.obj.id, PCI_SLOT(devfn), PCI_FUNC(devfn), pf->pbus->bus.obj.id, pci_bus_fn(pf->pbus, devfn)->dev.obj.id);
    vf->pf = pf;
    if (!pci_attach_at(pf->pbus, vf, devfn, e))
        return false;
    atomic_store(&vf->silent, PCI_SILENT_VF);
    return true;
}

static bool vf_plugged(struct bus *bus, struct dev *dev, struct err *e)
{
    struct pci_dev *pf = ((struct pci_vf_bus *)bus)->pf, *vf = PCI_DEV(dev);

    pci_show_up(vf);
    domain_lock(pf->dev.dom);
    pf->sriov->vf[vf->vf_index] = vf;
    domain_unlock(pf->dev.dom);
    return true;
}

static void vf_hide(struct bus *bus, struct dev *dev)
{
    struct pci_dev *pf = ((struct pci_vf_bus *)bus)->pf;

    domain_lock(pf->dev.dom);
    pf->sriov->vf[PCI_DEV(dev)->vf_index] = NULL;
    domain_unlock(pf->dev.dom);
    pci_hide(bus, dev);
}

static const struct bus_class pci_vf_bus_class = {
    .obj = { .name = "PCI-VF", .desc = "Virtual functions of a PCI function", .base = &bus_obj_class, .size = sizeof(struct pci_vf_bus),
             .flags = OCF_INTERNAL },
    .attach = vf_attach, .plugged = vf_plugged, .hide = vf_hide, .detach = pci_detach, .reset_dev = pci_reset_slot, .path = pci_path,
    .show = pci_show,
};
OBJ_CLASS(&pci_vf_bus_class.obj);

/* ---- set-up ---- */

static void cap_registers(struct pci_dev *pf)
{
    struct pci_sriov *s = pf->sriov;
    uint8_t *w = pf->wmask + s->cap;

    st_le16(w + PCI_SRIOV_CTRL, PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE | PCI_SRIOV_CTRL_ARI);
    st_le16(reg(pf, PCI_SRIOV_INITIAL), s->o.total);
    st_le16(reg(pf, PCI_SRIOV_TOTAL), s->o.total);
    st_le16(w + PCI_SRIOV_NUM, 0xffff);
    *reg(pf, PCI_SRIOV_LINK) = (uint8_t)PCI_FUNC(pf->devfn);
    st_le16(reg(pf, PCI_SRIOV_OFFSET), s->o.first_offset);
    st_le16(reg(pf, PCI_SRIOV_STRIDE), s->o.stride);
    st_le16(reg(pf, PCI_SRIOV_DEVICE), ((const struct pci_class *)s->o.vf_class)->device);
    st_le32(reg(pf, PCI_SRIOV_PAGE_SIZES), PCI_SRIOV_PAGES);
    st_le32(reg(pf, PCI_SRIOV_SYS_PAGE), 1);
    st_le32(w + PCI_SRIOV_SYS_PAGE, PCI_SRIOV_PAGES);
}

bool pci_sriov_init(struct pci_dev *pf, const struct pci_sriov_opts *o, struct err *e)
{
    char name[128];
    uint16_t cap;

    assert(!pf->sriov && o->total && o->total < 256 && o->first_offset && o->stride);
    cap = pci_ext_cap_add(pf, PCI_EXT_SRIOV, 1, o->cap_off, PCI_SRIOV_SIZE, e);
    if (!cap)
        return false;
    snprintf(name, sizeof name, "%s.vf", pf->dev.obj.id[0] == '#' ? pf->dev.obj.id + 1 : pf->dev.obj.id);
    pf->sriov = xnew(struct pci_sriov);
    pf->sriov->o = *o;
    pf->sriov->cap = cap;
    pf->sriov->vf = xcalloc(o->total, sizeof(*pf->sriov->vf));
    atomic_store(&pf->sriov->page, 4096);
    cap_registers(pf);
    pf->sriov->bus = bus_new(&pci_vf_bus_class, &pf->dev, name, e);
    if (pf->sriov->bus) {
        ((struct pci_vf_bus *)pf->sriov->bus)->pf = pf;
        return true;
    }
    pci_sriov_fini(pf);
    return false;
}

void pci_sriov_bar(struct pci_dev *pf, unsigned n, uint8_t type, uint64_t size)
{
    struct pci_sriov *s = pf->sriov;

    assert(n < PCI_BARS && !(type & PCI_BAR_IO) && is_pow2(size) && size >= 16 && size <= (type & PCI_BAR_MEM64 ? BIT64(50) : 8 * MiB));
    assert(!(type & PCI_BAR_MEM64) || n + 1 < PCI_BARS);
    s->bar_type[n] = type;
    s->bar_size[n] = size;
    bar_masks(pf);
}

static struct dev *new_vf(struct pci_dev *pf, unsigned i, struct err *e)
{
    struct dev *d = dev_new(pf->sriov->o.vf_class, pf->sriov->bus, NULL, e);

    if (!d)
        return NULL;
    PCI_DEV(d)->vf_index = i;
    d->home = pf->dev.home;
    if (dev_realize(d, e))
        return d;
    obj_del(&d->obj);
    return NULL;
}

bool pci_sriov_create(struct pci_dev *pf, struct err *e)
{
    struct dev *d;

    for (unsigned i = 0; i < pf->sriov->o.total; i++) {
        if (new_vf(pf, i, e))
            continue;
        while ((d = list_first(&pf->sriov->bus->devs, struct dev, on_bus)))
            dev_remove_unused(d);
        return false;
    }
    return true;
}

void pci_sriov_fini(struct pci_dev *pf)
{
    if (!pf->sriov)
        return;
    free(pf->sriov->vf);
    free(pf->sriov);
    pf->sriov = NULL;
}

struct pci_dev *pci_sriov_vf(const struct pci_dev *pf, unsigned i) { return i < pf->sriov->o.total ? pf->sriov->vf[i] : NULL; }
unsigned pci_sriov_enabled(const struct pci_dev *pf) { return pf->sriov ? atomic_load(&pf->sriov->enabled) : 0; }
