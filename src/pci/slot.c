/* SPDX-License-Identifier: MIT */
/* Slot registers and native hot plug. Sections are of PCI Express Base 5.0. */
#include "pci/slot.h"

#include "pci/link.h"
#include "pci/pci_int.h"

static const int64_t ask_again_ns = 5000000000;     /* an attention button pressed sooner would call the request off (6.7.1.5) */

enum { FIRST_AUTOMATIC = 64 };      /* slot numbers below are left for those who type them */

static struct list slots = LIST_INIT(slots);    /* main loop */

static struct pci_dev *dev_of(struct pcie_slot *s) { return &s->br.pci; }
static uint8_t *reg(struct pcie_slot *s, unsigned r) { return dev_of(s)->config + dev_of(s)->exp_cap + r; }
static bool powered(struct pcie_slot *s) { return !(ld_le16(reg(s, PCI_EXP_SLTCTL)) & PCI_SLTCTL_PCC); }
static struct pcie_slot *slot_above(struct pci_bus *b) { return (struct pcie_slot *)b->bridge; }

/* ---- events; domain lock held ---- */

/* An interrupt when the first enabled event comes up (6.7.3.4). INTx is a level; a message is sent once. */
static void signal(struct pcie_slot *s)
{
    uint16_t ctl = ld_le16(reg(s, PCI_EXP_SLTCTL)), sta = ld_le16(reg(s, PCI_EXP_SLTSTA));
    uint16_t on = sta & ctl & (PCI_SLT_ABP | PCI_SLT_PFD | PCI_SLT_MRLSC | PCI_SLT_PDC | PCI_SLT_CC);
    bool raised = ctl & PCI_SLTCTL_HPIE && (on || (sta & PCI_SLT_DLLSC && ctl & PCI_SLTCTL_DLLSCE));

    if (raised == s->raised)
        return;
    s->raised = raised;
    pci_intx_set(dev_of(s), raised);
    if (raised)
        pci_msi_notify(dev_of(s), 0);
}

static void event(struct pcie_slot *s, uint16_t bits)
{
    st_le16(reg(s, PCI_EXP_SLTSTA), ld_le16(reg(s, PCI_EXP_SLTSTA)) | bits);
    signal(s);
}

/* Sets or clears @bit of register @r; true if it changed. */
static bool set_bit(struct pcie_slot *s, unsigned r, uint16_t bit, bool on)
{
    uint16_t was = ld_le16(reg(s, r));

    st_le16(reg(s, r), on ? was | bit : (uint16_t)(was & ~bit));
    return on != ((was & bit) != 0);
}

static bool is_present(struct pcie_slot *s)
{
    const struct pci_dev *d = pci_bus_fn(s->br.sec, 0);

    return d && pci_link_get(d) != PCI_LINK_REMOVED;
}

/* Presence and link as they are now; the changes are events, unless the machine is being built or reset. */
static void look(struct pcie_slot *s, bool tell)
{
    bool present = is_present(s), link = present && pci_link_get(pci_bus_fn(s->br.sec, 0)) == PCI_LINK_UP && powered(s) && !(atomic_load(&s->br.sec->silent) & PCI_SILENT_NO_POWER);
    uint16_t ev = 0;

    if (set_bit(s, PCI_EXP_SLTSTA, PCI_SLT_PDS, present))
        ev |= PCI_SLT_PDC;
    if (set_bit(s, PCI_EXP_LNKSTA, PCI_EXP_LNKSTA_DLLLA, link))
        ev |= PCI_SLT_DLLSC;
    if (tell && s->hotplug)
        event(s, ev);
}

/* The resets of what is below are done. */
static void settled(struct pci_bridge *br)
{
    struct pcie_slot *s = (struct pcie_slot *)br;

    if (powered(s))
        atomic_fetch_and(&br->sec->silent, ~(unsigned)PCI_SILENT_NO_POWER);
    look(s, true);
}

static void power_changed(struct pcie_slot *s)
{
    if (powered(s)) {
        pci_bridge_job(&s->br, BRIDGE_DO_POWER_ON);
        return;
    }
    pci_bridge_hold(&s->br, PCI_SILENT_NO_POWER);
    look(s, true);
    if (s->asked)
        loop_post(loop_main(), &s->eject);
}

void pcie_slot_written(struct pcie_slot *s, uint32_t off, unsigned size, uint32_t old)
{
    uint32_t ctl = dev_of(s)->exp_cap + (uint32_t)PCI_EXP_SLTCTL, high = ctl + 1;
    bool power_touched = s->hotplug && pci_touches(off, size, high, 1);

    if (!pci_touches(off, size, ctl, 4))
        return;
    if (power_touched && ((old >> 8 * (high - off)) & PCI_SLTCTL_PCC >> 8) == (powered(s) ? PCI_SLTCTL_PCC >> 8 : 0u))
        power_changed(s);
    if (s->hotplug && pci_touches(off, size, ctl, 2))
        event(s, PCI_SLT_CC);               /* commands take no time here */
    signal(s);
}

/*
 * Power is on, even in an empty slot (6.7.1.8 leaves it to us): a guest without a hot-plug driver finds what is plugged in when it scans
 * the bus again; one with a driver turns it off.
 */
void pcie_slot_reset(struct pcie_slot *s, enum reset_kind k)
{
    bool present = is_present(s);

    st_le16(reg(s, PCI_EXP_SLTCTL), s->hotplug ? (present ? PCI_SLTCTL_PIC_ON : PCI_SLTCTL_PIC_OFF) | PCI_SLTCTL_AIC_OFF : 0);
    st_le16(reg(s, PCI_EXP_SLTSTA), present ? PCI_SLT_PDS : 0);
    atomic_store(&s->br.sec->silent, 0);
    look(s, false);
    s->raised = false;
    pci_intx_set(dev_of(s), 0);
    if (s->asked)
        loop_post(loop_main(), &s->eject);  /* the guest that was asked is no more */
}

/* ---- devices come and go; main loop, no lock held ---- */

static void run_eject(void *arg)
{
    struct pcie_slot *s = arg;

    domain_lock(dev_of(s)->dev.dom);
    s->asked = false;
    domain_unlock(dev_of(s)->dev.dom);
    for (unsigned i = 256; i-- > 0;)        /* function 0 last: the guest sees one slot go */
        if (pci_bus_fn(s->br.sec, i) && !pci_bus_fn(s->br.sec, i)->pf)
            dev_unplug_done(&pci_bus_fn(s->br.sec, i)->dev);
}

static bool plugged(struct pci_bus *b, struct pci_dev *d, struct err *e)
{
    struct pcie_slot *s = slot_above(b);
    struct pci_dev *f0 = pci_bus_fn(b, 0);

    if (d->dev.hotplugged && d != f0 && f0) {
        err_set(e, ERR_STATE, "the guest knows what is in slot '%s' since function 0 ('%s') came: it would not see function %u", b->bus.obj.id,
                f0->dev.obj.id, PCI_FUNC(d->devfn));
        return err_hint(e, "plug in functions 1 to 7 first, then function 0 with multifunction=on");
    }
    domain_lock(b->bridge->dev.dom);
    look(s, d->dev.hotplugged);
    domain_unlock(b->bridge->dev.dom);
    return true;
}

static void changed(struct pci_bus *b)
{
    domain_lock(b->bridge->dev.dom);
    look(slot_above(b), true);
    domain_unlock(b->bridge->dev.dom);
}

/* Presses the attention button, if that can help. Domain lock held; true with *@now: the guest has let go already. */
static bool press(struct pcie_slot *s, struct pci_dev *d, bool *now, struct err *e)
{
    uint16_t pic = ld_le16(reg(s, PCI_EXP_SLTCTL)) & PCI_SLTCTL_PIC;

    *now = !powered(s);
    if (*now)
        return true;
    if (pic == PCI_SLTCTL_PIC_BLINK)
        return err_set(e, ERR_BUSY, "the guest is busy with slot '%s' (its power indicator blinks): try again", s->br.sec->bus.obj.id);
    if (s->asked && clock_now(CLOCK_HOST) - s->asked_at < ask_again_ns)
        return err_set(e, ERR_BUSY, "the guest has been asked to let '%s' go and has not answered yet", d->dev.obj.id);
    s->asked = true;
    s->asked_at = clock_now(CLOCK_HOST);
    event(s, PCI_SLT_ABP);
    return true;
}

static bool unplug(struct pci_bus *b, struct pci_dev *d, struct err *e)
{
    struct pcie_slot *s = slot_above(b);
    bool now, ok;

    if (!is_present(s)) {                   /* the guest never saw it, or saw it being pulled out */
        dev_unplug_done(&d->dev);
        return true;
    }
    domain_lock(b->bridge->dev.dom);
    ok = press(s, d, &now, e);
    domain_unlock(b->bridge->dev.dom);
    if (ok && now)
        run_eject(s);
    return ok;
}

/* ---- set-up ---- */

const struct prop pcie_slot_props[] = {
    PROP_U8(struct pcie_slot, chassis, "chassis", 0, 0, 0, "Chassis in which slot= counts"),
    PROP_U16(struct pcie_slot, number, "slot", 0, 0, PCI_SLTCAP_NUMBER_MAX, "Physical slot number; 0: the next free one of the chassis"),
    PROP_BOOL(struct pcie_slot, hotplug, "hotplug", true, "Devices can come and go while the machine runs"),
    PROP_END,
};

static struct pcie_slot *slot_numbered(uint8_t chassis, uint16_t number)
{
    struct pcie_slot *s;

    list_for_each(s, &slots, all)
        if (s->chassis == chassis && s->number == number)
            return s;
    return NULL;
}

static bool choose_number(struct pcie_slot *s, struct err *e)
{
    struct pcie_slot *other = s->number ? slot_numbered(s->chassis, s->number) : NULL;

    if (other) {
        err_set(e, ERR_BUSY, "slot %u of chassis %u is that of '%s'", s->number, s->chassis, dev_of(other)->dev.obj.id);
        return err_hint(e, "leave slot= out and a free number is taken, or give the port a chassis= of its own");
    }
    for (s->number = s->number ? s->number : FIRST_AUTOMATIC; slot_numbered(s->chassis, s->number);)
        if (++s->number > PCI_SLTCAP_NUMBER_MAX)
            return err_set(e, ERR_BUSY, "chassis %u has no free slot number", s->chassis);
    list_push(&slots, &s->all);
    return true;
}

static void registers(struct pcie_slot *s)
{
    struct pci_dev *d = dev_of(s);
    uint8_t at = d->exp_cap;
    uint16_t sta = PCI_SLT_ABP | PCI_SLT_PFD | PCI_SLT_MRLSC | PCI_SLT_PDC | PCI_SLT_CC | PCI_SLT_DLLSC;

    st_le16(reg(s, PCI_EXP_FLAGS), ld_le16(reg(s, PCI_EXP_FLAGS)) | PCI_EXP_FLAGS_SLOT);
    st_le32(reg(s, PCI_EXP_LNKCAP), ld_le32(reg(s, PCI_EXP_LNKCAP)) | PCI_EXP_LNKCAP_DLLLARC);
    st_le16(d->vmask + at + PCI_EXP_LNKSTA, PCI_EXP_LNKSTA_DLLLA);
    st_le16(d->vmask + at + PCI_EXP_SLTSTA, sta | PCI_SLT_PDS);
    st_le32(reg(s, PCI_EXP_SLTCAP), (uint32_t)s->number << 19 |
            (s->hotplug ? PCI_SLTCAP_ABP | PCI_SLTCAP_PCP | PCI_SLTCAP_AIP | PCI_SLTCAP_PIP | PCI_SLTCAP_HPC : 0u));
    if (!s->hotplug)
        return;
    st_le16(d->wmask + at + PCI_EXP_SLTCTL, PCI_SLTCTL_PCC | PCI_SLTCTL_PIC | PCI_SLTCTL_AIC_OFF | 0x3f | PCI_SLTCTL_DLLSCE);
    st_le16(d->w1cmask + at + PCI_EXP_SLTSTA, sta);
}

bool pcie_slot_init(struct pcie_slot *s, struct err *e)
{
    struct pci_bus *b = s->br.sec;

    list_init(&s->all);
    if (!choose_number(s, e))
        return false;
    registers(s);
    s->eject = (struct post){ .fn = run_eject, .arg = s };
    s->asked = s->raised = false;
    s->br.settled = settled;
    b->max_slot = 1;
    b->bus.hotplug = s->hotplug;
    b->port_plugged = plugged;
    b->port_unplug = unplug;
    b->port_changed = changed;
    return true;
}

void pcie_slot_fini(struct pcie_slot *s)
{
    if (!s->eject.fn)
        return;
    loop_post_cancel(loop_main(), &s->eject);
    list_del(&s->all);
    s->eject.fn = NULL;
}

/* ---- saved state ---- */

static bool loaded(void *obj, struct err *e)
{
    struct pcie_slot *s = obj;

    if (s->hotplug && !powered(s))
        atomic_fetch_or(&s->br.sec->silent, PCI_SILENT_NO_POWER);
    else
        atomic_fetch_and(&s->br.sec->silent, ~(unsigned)PCI_SILENT_NO_POWER);
    s->raised = false;
    signal(s);
    return true;
}

static const struct state_field fields[] = {
    STATE_STRUCT(struct pcie_slot, br, &pci_bridge_state),
    { .name = "rest", .kind = ST_SKIP, .off = offsetof(struct pcie_slot, number), .count = 1,
      .size = sizeof(struct pcie_slot) - offsetof(struct pcie_slot, number), .why = "options; the monitor's requests; follows from registers" },
    STATE_END,
};
const struct state_desc pcie_slot_state = { "pcie-slot", 1, fields, loaded, NULL };
