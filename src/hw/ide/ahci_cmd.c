/* SPDX-License-Identifier: MIT */
/* Command slots of an AHCI port: from the command list to the received FIS (AHCI 1.3.1, 4.2, 5.3 to 5.5). */
#include <stdlib.h>
#include "base/log.h"
#include "hw/ide/ahci.h"

#define PRDT_MAX 1024u
#define SLOT_BIT(c) (1u << (c)->slot)

static struct dma *dma_of(struct ahci_port *p) { return &p->a->pci.dma; }

/* ---- received FISes ---- */

static void post_fis(struct ahci_port *p, unsigned where, const void *fis, unsigned n)
{
    uint64_t at = (uint64_t)p->fbu << 32 | p->fb;

    if (p->cmd & CMD_FRE && !dma_write(dma_of(p), at + where, fis, n))
        ahci_port_irq(p, IS_HBFS);
}

/* Register fields common to both directions (SATA 3.2, 10.5.6). */
static void put_registers(const struct ata_cmd *c, uint8_t *f)
{
    f[2] = c->status;
    f[3] = c->error;
    ata_put_lba(f + 4, c->lba);
    f[7] = c->fis[7];
    st_le16(f + 12, c->count);
}

static void end_register(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    uint8_t f[20] = { 0 };
    bool pio = c->pio_in && !c->error;

    put_registers(c, f);
    f[0] = pio ? 0x5f : 0x34;
    f[1] = pio ? 0x60 : 0x40;           /* I, and D for data to the host */
    if (pio) {
        f[15] = c->status;
        st_le16(f + 16, (uint16_t)c->done);
    }
    post_fis(p, pio ? FIS_PIO_SETUP : FIS_D2H, f, sizeof f);
    ahci_port_irq(p, (pio ? IS_PSS : IS_DHRS) | (c->status & ST_ERR ? IS_TFES : 0));
}

/* Set device bits: the tag that ended, or the error (SATA 3.2, 10.5.7). */
static void end_queued(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    uint8_t f[8] = { 0xa1, 0x40, (uint8_t)(c->status & 0x77), c->error };

    if (c->status & ST_ERR) {
        p->ncq_tag = (uint8_t)c->slot;
        p->ncq_error = c->error;
        p->ncq_lba = c->lba;
    } else {
        p->sact &= ~SLOT_BIT(c);
        st_le32(f + 4, SLOT_BIT(c));
    }
    post_fis(p, FIS_SDB, f, sizeof f);
    ahci_port_irq(p, IS_SDBS | (c->status & ST_ERR ? IS_TFES : 0));
}

static void finish(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    uint8_t prdbc[4];

    p->tfd = (uint32_t)c->error << 8 | c->status;
    if (!c->ncq) {
        st_le32(prdbc, c->done);
        if (!dma_write(dma_of(p), c->header + 4, prdbc, sizeof prdbc))
            ahci_port_irq(p, IS_HBFS);
    }
    if (c->status & ST_ERR)
        p->failed = true;               /* 6.2.2.1: until the driver has restarted the port */
    else if (!c->ncq)
        p->ci &= ~SLOT_BIT(c);
    p->queued &= ~SLOT_BIT(c);
    if (c->ncq)
        end_queued(c);
    else
        end_register(c);
}

/* ---- the way in ---- */

static bool map_prdt(struct ata_cmd *c, uint64_t table)
{
    uint8_t e[16];

    for (unsigned i = 0; i < MIN(c->prdtl, PRDT_MAX); i++) {
        if (!dma_read(dma_of(c->p), table + 0x80 + 16 * i, e, sizeof e))
            return false;
        if (!dma_map(&c->vec, ld_le64(e) & ~1ull, (ld_le32(e + 12) & 0x3fffff) + 1u))
            return false;
    }
    return c->prdtl <= PRDT_MAX;
}

/* The command of a slot with its memory; false: the guest gave what cannot be used. */
static bool fetch(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    uint8_t h[32];
    uint64_t table;

    c->header = ((uint64_t)p->clbu << 32 | p->clb) + 32 * c->slot;
    if (!dma_read(dma_of(p), c->header, h, sizeof h))
        return false;
    table = ld_le64(h + 8) & ~0x7full;
    c->prdtl = ld_le16(h + 2);
    dma_vec_init(&c->vec, dma_of(p), !(h[0] & 0x40));
    return dma_read(dma_of(p), table, c->fis, sizeof c->fis) && dma_read(dma_of(p), table + 0x40, c->acmd, sizeof c->acmd) && map_prdt(c, table);
}

/* C = 0: the control register; software reset is its falling SRST (ACS-4, SATA 3.2, 11.4). */
static void control_fis(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    bool srst = c->fis[15] & 4, falls = p->srst && !srst;

    p->srst = srst;
    p->ci &= ~SLOT_BIT(c);
    if (!falls)
        return;
    ahci_port_signature(p);
    c->status = ST_DRDY | ST_DSC;
    c->error = 1;
    c->lba = p->sig >> 8;
    c->count = (uint8_t)p->sig;
    uint8_t f[20] = { 0x34, 0x40 };
    put_registers(c, f);
    post_fis(p, FIS_D2H, f, sizeof f);
}

static void co_slot(void *arg)
{
    struct ata_cmd *c = arg;
    struct ahci_port *p = c->p;
    bool stale;

    c->status = ST_DRDY | ST_DSC;
    if (c->gen == p->gen)               /* else the port was stopped, or the disk unplugged, before this began */
        co_ata_execute(c);
    stale = c->gen != p->gen;
    dma_unmap(&c->vec, c->vec.len);
    dma_vec_free(&c->vec);
    p->running &= ~SLOT_BIT(c);
    if (!stale && c->r.host == SCSI_HOST_STOPPED)
        p->stopped |= SLOT_BIT(c);
    else if (!stale)
        finish(c);
    p->a->in_flight--;
    co_queue_wake_all(&p->a->idle);
    free(c);
    ahci_port_kick(p);
}

static void start(struct ahci_port *p, unsigned slot)
{
    struct ata_cmd *c = xnew(struct ata_cmd);

    c->p = p;
    c->d = p->d;
    c->slot = slot;
    c->gen = p->gen;
    if (!fetch(c)) {
        log_guest("ahci '%s': port %u, slot %u: a command table or buffer that is not RAM", p->a->pci.dev.obj.id, p->nr, slot);
        p->failed = true;
        ahci_port_irq(p, IS_HBFS);
    } else if (c->fis[0] != 0x27 || !(c->fis[1] & 0x80)) {
        control_fis(c);
    } else {
        c->ncq = ata_is_ncq(c->fis[2]) && !scsi_disk_is_cd(c->d);
        p->running |= SLOT_BIT(c);
        if (c->ncq) {                   /* taken: the slot's bit goes, the tag stays in PxSACT */
            p->ci &= ~SLOT_BIT(c);
            p->queued |= SLOT_BIT(c);
        } else {
            p->tfd = (p->tfd & ~0xffu) | ST_BSY;
        }
        p->a->in_flight++;
        co_spawn(NULL, p->a->pci.dev.dom, co_slot, c);
        return;
    }
    dma_vec_free(&c->vec);
    free(c);
}

static bool slot_is_ncq(struct ahci_port *p, unsigned slot)
{
    return p->sact >> slot & 1;
}

/* Queued commands run side by side; any other waits for all before it, and runs alone. */
void ahci_port_kick(struct ahci_port *p)
{
    for (unsigned i = 0; i < AHCI_SLOTS; i++) {
        uint32_t bit = 1u << i, waiting = (p->ci | p->queued) & ~p->running & ~p->stopped;
        bool ncq;
        if (!(p->cmd & CMD_ST) || p->failed || !p->d || !(waiting & bit))
            continue;
        ncq = slot_is_ncq(p, i);
        if (ncq ? (p->running & ~p->queued) != 0 : p->running != 0)
            continue;
        start(p, i);
    }
}
