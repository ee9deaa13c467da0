/* SPDX-License-Identifier: MIT */
/* The AHCI function: registers, interrupts, ports, life. */
#include "hw/ide/ahci.h"

#include <stdlib.h>
#include "base/log.h"

#define SIG_ATA 0x00000101u
#define SIG_ATAPI 0xeb140101u
#define CAP (0xc0000000u /* 64 bits, NCQ */ | 1u << 24 /* CLO */ | 3u << 20 /* 6 Gbit/s */ | 1u << 18 /* AHCI only */ | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))

/* ---- interrupts ---- */

static void update_irq(struct ahci *a, bool edge)
{
    bool on = a->ghc & GHC_IE && a->is;

    if (edge && on && pci_msi_notify(&a->pci, 0))
        return;
    pci_intx_set(&a->pci, on && !pci_msi_enabled(&a->pci));
}

void ahci_port_irq(struct ahci_port *p, uint32_t is)
{
    p->is |= is;
    if (p->is & p->ie) {
        p->a->is |= 1u << p->nr;
        update_irq(p->a, true);
    }
}

/* ---- ports ---- */

void ahci_port_signature(struct ahci_port *p)
{
    p->tfd = p->d ? 0x100 | ST_DRDY | ST_DSC : 0x7f;
    p->sig = !p->d ? UINT32_MAX : scsi_disk_is_cd(p->d) ? SIG_ATAPI : SIG_ATA;
    p->sense_len = 0;
}

/* What was in flight has no slot any more; it ends unheard. */
static void port_stop(struct ahci_port *p)
{
    p->gen++;
    p->ci = p->sact = p->queued = p->stopped = 0;
    p->failed = false;
}

static void port_reset(struct ahci_port *p)
{
    port_stop(p);
    p->is = p->ie = p->sctl = 0;
    p->serr = p->d ? SERR_X : 0;
    p->cmd = CMD_SUD | CMD_POD;
    p->srst = false;
    ata_power_on(p);
    ahci_port_signature(p);
}

void ahci_port_plugged(struct ahci_port *p, struct scsi_disk *d)
{
    port_stop(p);
    p->d = d;
    ata_power_on(p);
    p->serr |= SERR_N | (d ? SERR_X : 0);
    ahci_port_signature(p);
    ahci_port_irq(p, IS_PRCS | (d ? IS_PCS : 0));
}

static void write_cmd(struct ahci_port *p, uint32_t v)
{
    uint32_t old = p->cmd;

    p->cmd = v & (CMD_ST | CMD_SUD | CMD_POD | CMD_FRE);
    if (old & CMD_ST && !(v & CMD_ST))
        port_stop(p);
    if (v & CMD_CLO)
        p->tfd &= ~(uint32_t)(ST_BSY | ST_DRQ);
    if (v & CMD_ST)
        ahci_port_kick(p);
}

static void write_sctl(struct ahci_port *p, uint32_t v)
{
    bool was = (p->sctl & 0xf) == 1, now = (v & 0xf) == 1;

    p->sctl = v & 0xfff;
    if (!was || now)
        return;
    port_stop(p);                       /* COMRESET ends: 10.4.2 */
    ahci_port_signature(p);
    if (p->d)
        p->serr |= SERR_X;
    ahci_port_irq(p, p->d ? IS_PCS : 0);
}

static uint32_t port_read(const struct ahci_port *p, uint32_t off)
{
    switch (off) {
    case P_CLB: return p->clb;
    case P_CLBU: return p->clbu;
    case P_FB: return p->fb;
    case P_FBU: return p->fbu;
    case P_IS: return p->is | (p->serr & SERR_X ? IS_PCS : 0);
    case P_IE: return p->ie;
    case P_CMD: return p->cmd | CMD_HPCP | (p->cmd & CMD_FRE ? CMD_FR : 0) | ((p->cmd & CMD_ST) || p->running ? CMD_CR : 0);
    case P_TFD: return p->tfd;
    case P_SIG: return p->sig;
    case P_SSTS: return !p->d ? 0 : (p->sctl & 0xf) == 1 ? 1 : 0x133;
    case P_SCTL: return p->sctl;
    case P_SERR: return p->serr;
    case P_SACT: return p->sact;
    case P_CI: return p->ci;
    default: return 0;
    }
}

static void port_write(struct ahci_port *p, uint32_t off, uint32_t v)
{
    switch (off) {
    case P_CLB: p->clb = v & ~0x3ffu; break;
    case P_CLBU: p->clbu = v; break;
    case P_FB: p->fb = v & ~0xffu; break;
    case P_FBU: p->fbu = v; break;
    case P_IS: p->is &= ~v; break;
    case P_IE:
        p->ie = v & 0xfdc000ff;
        ahci_port_irq(p, 0);
        break;
    case P_CMD: write_cmd(p, v); break;
    case P_SCTL: write_sctl(p, v); break;
    case P_SERR: p->serr &= ~v; break;
    case P_SACT:
        if (p->cmd & CMD_ST)
            p->sact |= v;
        break;
    case P_CI:
        if (p->cmd & CMD_ST) {
            p->ci |= v;
            ahci_port_kick(p);
        }
        break;
    }
}

/* ---- registers ---- */

static void hba_reset(struct ahci *a)
{
    a->ghc = GHC_AE;
    a->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        port_reset(&a->port[i]);
    update_irq(a, false);
}

static uint64_t ahci_read(void *opaque, uint64_t off, unsigned size)
{
    struct ahci *a = opaque;

    if (off >= R_PORTS)
        return port_read(&a->port[(off - R_PORTS) / PORT_SIZE], (uint32_t)(off - R_PORTS) % PORT_SIZE & ~3u);
    switch (off & ~3ull) {
    case R_CAP: return CAP;
    case R_GHC: return a->ghc;
    case R_IS: return a->is;
    case R_PI: return (1u << AHCI_PORTS) - 1;
    case R_VS: return 0x00010301;
    default: return 0;
    }
}

static void ahci_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct ahci *a = opaque;
    uint32_t v = (uint32_t)val;

    if (off >= R_PORTS) {
        port_write(&a->port[(off - R_PORTS) / PORT_SIZE], (uint32_t)(off - R_PORTS) % PORT_SIZE, v);
    } else if (off == R_GHC && v & GHC_HR) {
        hba_reset(a);
    } else if (off == R_GHC) {
        a->ghc = GHC_AE | (v & GHC_IE);
        update_irq(a, true);
    } else if (off == R_IS) {
        a->is &= ~v;
        for (unsigned i = 0; i < AHCI_PORTS; i++)       /* 10.7.2.1: what is still pending in a port comes again */
            if (a->port[i].is & a->port[i].ie)
                a->is |= 1u << i;
        update_irq(a, true);
    }
}

static const struct mmio_ops ahci_ops = { .read = ahci_read, .write = ahci_write, .min = 4, .max = 4, .valid_min = 1, .valid_max = 8 };

/* ---- life ---- */

static void ahci_resume(void *arg)
{
    struct ahci *a = arg;

    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        a->port[i].stopped = 0;
        ahci_port_kick(&a->port[i]);
    }
}

static bool add_ports(struct ahci *a, struct err *e)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        char name[128];
        bus_free_name(&ide_bus_class, &a->pci.dev, i, name, sizeof name);
        a->port[i].a = a;
        a->port[i].nr = i;
        a->port[i].bus = bus_new(&ide_bus_class, &a->pci.dev, name, e);
        if (!a->port[i].bus)
            return false;
        ((struct ide_bus *)a->port[i].bus)->port = &a->port[i];
        a->port[i].bus->hotplug = true;
        port_reset(&a->port[i]);
    }
    return true;
}

static bool ahci_realize(struct dev *d, struct err *e)
{
    struct ahci *a = (struct ahci *)d;

    if (!add_ports(a, e))
        return false;
    region_init_mmio(&a->regs, "ahci", R_PORTS + AHCI_PORTS * PORT_SIZE, &ahci_ops, a, d->dom);
    pci_bar_add(&a->pci, 5, PCI_BAR_MEM32, &a->regs);
    pci_intx_init(&a->pci, 1);
    if (!pci_msi_init(&a->pci, 1, false, e)) {
        pci_fini(&a->pci);
        region_fini(&a->regs);
        return false;
    }
    run_resume_init(&a->resume, d->dom, ahci_resume, a);
    return true;
}

static void ahci_unrealize(struct dev *d)
{
    struct ahci *a = (struct ahci *)d;

    run_resume_fini(&a->resume);
    region_fini(&a->regs);
}

static void ahci_reset(struct dev *d, enum reset_kind k)
{
    struct ahci *a = (struct ahci *)d;

    for (unsigned i = 0; i < AHCI_PORTS; i++)
        a->port[i].clb = a->port[i].clbu = a->port[i].fb = a->port[i].fbu = 0;
    a->ghc = GHC_AE;
    a->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        port_reset(&a->port[i]);
}

static void ahci_reset_out(struct dev *d)
{
    update_irq((struct ahci *)d, false);
}

static void co_ahci_quiesce(struct dev *d)
{
    struct ahci *a = (struct ahci *)d;

    while (a->in_flight)
        co_queue_wait(&a->idle);
}

#define P(f, ...) STATE_UINT(struct ahci_port, f, __VA_ARGS__)
static const struct state_field port_fields[] = {
    P(clb), P(clbu), P(fb), P(fbu), P(is), P(ie), P(cmd, .max = 0x1f), P(tfd, .max = 0xffff), P(sig), P(sctl, .max = 0xfff), P(serr), P(sact), P(ci),
    P(queued), STATE_BOOL(struct ahci_port, failed), STATE_BOOL(struct ahci_port, srst), STATE_BOOL(struct ahci_port, smart_off), STATE_BYTES(struct ahci_port, sense),
    P(sense_len, .max = SCSI_SENSE_MAX), P(ncq_tag, .max = 31), P(ncq_error), P(ncq_lba), P(multiple, .max = ATA_MULTIPLE_MAX),
    STATE_BOOL(struct ahci_port, standby), STATE_END
};
static const struct state_desc port_state = { .name = "ahci-port", .version = 1, .fields = port_fields };
static const struct state_field ahci_fields[] = {
    STATE_STRUCT(struct ahci, pci, &pci_dev_state), STATE_UINT(struct ahci, ghc), STATE_UINT(struct ahci, is),
    STATE_STRUCTS(struct ahci, port, &port_state), STATE_END
};

static bool ahci_post_load(void *obj, struct err *e)
{
    struct ahci *a = obj;

    a->ghc = GHC_AE | (a->ghc & GHC_IE);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &a->port[i];
        p->clb &= ~0x3ffu;
        p->fb &= ~0xffu;
        p->queued &= p->sact;
    }
    return true;
}
static const struct state_desc ahci_state = { .name = "ahci", .version = 1, .fields = ahci_fields, .post_load = ahci_post_load };

static const char *const ahci_names[] = { "ahci", NULL };
static const struct pci_class ahci_class = {
    .dev = { .obj = { .name = "ich9-ahci", .desc = "AHCI controller with six SATA ports", .base = &pci_dev_class.dev.obj, .size = sizeof(struct ahci),
                      .aliases = ahci_names },
             .cat = "Storage", .plugs_into = &pci_bus_class, .realize = ahci_realize, .unrealize = ahci_unrealize, .reset = ahci_reset,
             .reset_out = ahci_reset_out, .co_quiesce = co_ahci_quiesce, .state = &ahci_state },
    .vendor = 0x8086, .device = 0x2922, .class_code = 0x010601, .revision = 2,
};
OBJ_CLASS(&ahci_class.dev.obj);
