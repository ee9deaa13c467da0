/* SPDX-License-Identifier: MIT */
/* Direct commands to a MegaRAID's firmware: what it is, what is plugged, what happened. */
#include <stdio.h>
#include <time.h>
#include "hw/scsi/megasas.h"
#include "hw/scsi/sas.h"

#define NO_ENCLOSURE 0xffffu
#define SECTOR 512u
#define STRIPE 7                        /* a power of two of sectors: 64 KiB */

static uint32_t now(void) { return (uint32_t)(clock_now(CLOCK_VM) / 1000000000); }

/* @n bytes to the driver; a list that is shorter gets what fits. */
static uint8_t reply(struct mfi_cmd *c, const void *buf, size_t n)
{
    if (!megasas_map(c, MFI_DCMD_SGL, true))
        return MFI_STAT_INVALID_PARAMETER;
    vec_from_buf(&c->data, 0, buf, n);
    return MFI_STAT_OK;
}

static const uint8_t *mbox(const struct mfi_cmd *c) { return c->f + MFI_DCMD_MBOX; }

/* ---- units ---- */

static uint64_t sas_port(const struct megasas *s) { return sas_address(&s->pci, s->sas_address); }

static uint64_t sectors(const struct scsi_dev *d)
{
    uint32_t bs = SECTOR;
    uint64_t n = SCSI_DEV_CLASS(d)->capacity ? SCSI_DEV_CLASS(d)->capacity(d, &bs) : 0;

    return n * (bs / SECTOR);
}

/* The first unit of each target, which stands for it. */
static struct scsi_dev *target_nth(const struct megasas *s, unsigned id)
{
    return scsi_find(s->bus, 0, id, 0, true);
}

static unsigned count(const struct megasas *s, bool logical)
{
    unsigned n = 0;

    for (unsigned id = 0; id <= s->bus->hba->max_target; id++) {
        const struct scsi_dev *d = target_nth(s, id);
        n += d && megasas_is_ld(s, d) == logical;
    }
    return n;
}

static uint8_t ld_list(struct mfi_cmd *c, bool *later)
{
    struct megasas *s = c->s;
    struct mfi_ld_list l = { 0 };
    unsigned n = 0;

    for (unsigned id = 0; id < MFI_LD_LIST_MAX; id++) {
        const struct scsi_dev *d = target_nth(s, id);
        if (d && megasas_is_ld(s, d))
            l.ld[n++] = (struct mfi_ld_entry){ .target = (uint8_t)id, .state = MFI_LD_OPTIMAL, .sectors = htole64(sectors(d)) };
    }
    l.count = htole32(n);
    return reply(c, &l, sizeof l);
}

static uint8_t ld_targets(struct mfi_cmd *c, bool *later)
{
    struct megasas *s = c->s;
    struct mfi_ld_targets l = { 0 };
    unsigned n = 0;

    for (unsigned id = 0; id < MFI_LD_LIST_MAX; id++) {
        const struct scsi_dev *d = target_nth(s, id);
        if (d && megasas_is_ld(s, d))
            l.target[n++] = (uint8_t)id;
    }
    l.size = htole32((uint32_t)offsetof(struct mfi_ld_targets, target) + n);
    l.count = htole32(n);
    return reply(c, &l, sizeof l);
}

static const struct scsi_dev *ld_asked_for(const struct mfi_cmd *c)
{
    const struct scsi_dev *d = mbox(c)[0] < MFI_LD_LIST_MAX ? target_nth(c->s, mbox(c)[0]) : NULL;

    return d && megasas_is_ld(c->s, d) ? d : NULL;
}

static struct mfi_ld_properties properties_of(const struct scsi_dev *d)
{
    struct mfi_ld_properties p = { .target = (uint8_t)d->id };

    snprintf(p.name, sizeof p.name, "%.*s", (int)sizeof p.name - 1, d->dev.obj.id);
    return p;
}

static uint8_t ld_properties(struct mfi_cmd *c, bool *later)
{
    const struct scsi_dev *d = ld_asked_for(c);
    struct mfi_ld_properties p;

    if (!d)
        return MFI_STAT_DEVICE_NOT_FOUND;
    p = properties_of(d);
    return reply(c, &p, sizeof p);
}

/* An array of level 0 of the one drive. */
static uint8_t ld_info(struct mfi_cmd *c, bool *later)
{
    const struct scsi_dev *d = ld_asked_for(c);
    struct mfi_ld_info i = { .stripe = STRIPE, .drives = 1, .spans = 1, .state = MFI_LD_OPTIMAL, .consistent = 1 };

    if (!d)
        return MFI_STAT_DEVICE_NOT_FOUND;
    i.properties = properties_of(d);
    i.span[0].blocks = i.sectors = htole64(sectors(d));
    i.span[0].array = htole16((uint16_t)d->id);
    return reply(c, &i, sizeof i);
}

/* @exposed: those alone that the host drives itself. */
static uint8_t pds(struct mfi_cmd *c, bool exposed)
{
    struct megasas *s = c->s;
    uint8_t buf[sizeof(struct mfi_pd_list) + MFI_LD_LIST_MAX * sizeof(struct mfi_pd_address)] = { 0 };
    struct mfi_pd_list *l = (struct mfi_pd_list *)buf;
    unsigned n = 0;

    for (unsigned id = 0; id < MFI_LD_LIST_MAX; id++) {
        const struct scsi_dev *d = target_nth(s, id);
        if (!d || (exposed && megasas_is_ld(s, d)))
            continue;
        l->addr[n++] = (struct mfi_pd_address){ .device = htole16((uint16_t)id), .encl_device = htole16(NO_ENCLOSURE), .slot = (uint8_t)id,
            .scsi_type = d->type, .ports = 1, .sas_addr = { htole64(sas_port(s) + id + 1) } };
    }
    l->size = htole32((uint32_t)(sizeof *l + n * sizeof l->addr[0]));
    l->count = htole32(n);
    return reply(c, buf, sizeof *l + n * sizeof l->addr[0]);
}

static uint8_t pd_list(struct mfi_cmd *c, bool *later) { return pds(c, false); }
static uint8_t pd_query(struct mfi_cmd *c, bool *later) { return pds(c, mbox(c)[0] == MFI_PD_QUERY_EXPOSED); }

static uint8_t pd_info(struct mfi_cmd *c, bool *later)
{
    struct megasas *s = c->s;
    uint16_t id = ld_le16(mbox(c));
    const struct scsi_dev *d = id <= s->bus->hba->max_target ? target_nth(s, id) : NULL;
    struct mfi_pd_info i = { 0 };
    uint64_t n;

    if (!d)
        return MFI_STAT_DEVICE_NOT_FOUND;
    n = htole64(sectors(d));
    i.device = htole16(id);
    i.inquiry[0] = i.scsi_type = d->type;
    i.inquiry[2] = 7;
    i.ports = i.paths = 1;
    i.state = htole16(megasas_is_ld(s, d) ? MFI_PD_ONLINE : MFI_PD_SYSTEM);
    i.sas_addr[0] = htole64(sas_port(s) + id + 1u);
    i.raw_size = i.non_coerced_size = i.coerced_size = n;
    i.encl_device = htole16(NO_ENCLOSURE);
    i.slot = (uint8_t)id;
    return reply(c, &i, sizeof i);
}

static uint8_t co_reset_units(struct mfi_cmd *c, unsigned first, unsigned last)
{
    uint8_t status = MFI_STAT_DEVICE_NOT_FOUND;
    struct scsi_dev *d;

    for (unsigned id = first; id <= MIN(last, c->s->bus->hba->max_target); id++) {
        d = target_nth(c->s, id);
        if (!d)
            continue;
        co_scsi_reset(d, SENSE_DEVICE_RESET);
        status = MFI_STAT_OK;
    }
    return status;
}

static uint8_t co_reset_ld(struct mfi_cmd *c, bool *later) { return co_reset_units(c, ld_le16(mbox(c)), ld_le16(mbox(c))); }

static uint8_t co_reset_lds(struct mfi_cmd *c, bool *later)
{
    co_reset_units(c, 0, MFI_LD_LIST_MAX - 1);
    return MFI_STAT_OK;
}

/* ---- the controller ---- */

/* Rates and intervals as a new controller has them. */
void megasas_default_properties(struct megasas *s)
{
    uint8_t *p = s->properties;

    memset(p, 0, sizeof s->properties);
    st_le16(p + 2, 300);                    /* seconds between polls for predicted failures */
    st_le16(p + 4, 16);
    st_le16(p + 6, 50);
    memset(p + 8, 30, 5);                   /* per cent: rebuild, patrol read, initialisation, consistency check, reconstruction */
    p[13] = 4;                              /* seconds between flushes of the cache */
    p[14] = 2;
    p[15] = 6;
    p[21] = 15;
    st_le16(p + 22, 1440);
}

static void fill_versions(struct mfi_ctrl_info *i)
{
    i->image_check_word = htole32(0xffff);
    i->image_count = htole32(1);
    memcpy(i->image[0].name, "APP", 3);
    memcpy(i->image[0].version, "2.120.43", 8);
    memcpy(i->package_version, "12.12.0-0043", 12);
}

static void fill_counts(const struct megasas *s, struct mfi_ctrl_info *i)
{
    unsigned lds = count(s, true), pds = count(s, false);

    i->max_arms = i->max_spans = 1;
    i->max_arrays = i->max_lds = MFI_LD_LIST_MAX;
    i->max_cmds = htole16((uint16_t)s->max_cmds);
    i->max_sge = htole16((uint16_t)s->max_sge);
    i->max_request_size = htole32(s->max_sge * 4096 / SECTOR);
    i->max_strips_per_io = htole16(42);
    i->stripe_min = i->stripe_max = STRIPE;
    i->lds = htole16((uint16_t)lds);
    i->pds = i->pd_disks = htole16((uint16_t)(lds + pds));
    i->raid_levels = htole32(1);            /* 0: each drive is its own array */
    i->pd_mix = htole32(1);                 /* SAS drives */
}

static uint8_t ctrl_info(struct mfi_cmd *c, bool *later)
{
    struct megasas *s = c->s;
    const struct pci_class *k = PCI_CLASS(s);
    const char *serial = s->serial ? s->serial : s->pci.dev.obj.id;
    struct mfi_ctrl_info i = { 0 };

    i.pci.vendor = htole16(k->vendor);
    i.pci.device = htole16(k->device);
    i.pci.subvendor = htole16(k->subvendor);
    i.pci.subdevice = htole16(k->subdevice);
    i.host.type = 2;                        /* PCI Express */
    i.device.type = 2;                      /* SAS */
    i.device.port_count = 8;
    for (unsigned n = 0; n < 8; n++)
        i.device.port_addr[n] = htole64(sas_port(s) + n);
    fill_versions(&i);
    fill_counts(s, &i);
    snprintf(i.product, sizeof i.product, "%s", k->dev.obj.desc);
    snprintf(i.serial, sizeof i.serial, "%.*s", (int)sizeof i.serial - 1, serial);
    i.fw_time = htole32(now());
    memcpy(i.properties, s->properties, sizeof i.properties);
    return reply(c, &i, sizeof i);
}

static uint8_t get_properties(struct mfi_cmd *c, bool *later) { return reply(c, c->s->properties, sizeof c->s->properties); }

static uint8_t set_properties(struct mfi_cmd *c, bool *later)
{
    uint8_t p[sizeof c->s->properties];

    if (!megasas_map(c, MFI_DCMD_SGL, false) || vec_to_buf(&c->data, 0, p, sizeof p) != sizeof p)
        return MFI_STAT_INVALID_PARAMETER;
    memcpy(c->s->properties, p, sizeof p);
    return MFI_STAT_OK;
}

static uint8_t get_time(struct mfi_cmd *c, bool *later)
{
    uint32_t t = htole32(now());

    return reply(c, &t, sizeof t);
}

/* The controller keeps nothing back: every write is the drives' when it is acknowledged. */
static uint8_t nothing_to_do(struct mfi_cmd *c, bool *later) { return MFI_STAT_OK; }

/* ---- events ---- */

static void describe(const struct megasas_event *e, struct mfi_event *out)
{
    bool pd = e->code == MFI_EVT_PD_INSERTED || e->code == MFI_EVT_PD_REMOVED;
    bool came = e->code == MFI_EVT_PD_INSERTED || e->code == MFI_EVT_LD_CREATED;

    *out = (struct mfi_event){ .seq = htole32(e->seq), .time = htole32(e->time), .code = htole32(e->code),
                               .locale = htole16(pd ? MFI_LOCALE_PD : MFI_LOCALE_LD), .arg_type = pd ? MFI_ARGS_PD : MFI_ARGS_LD };
    st_le16(out->args, (uint16_t)e->target);
    if (pd)
        out->args[3] = (uint8_t)e->target;  /* the slot */
    snprintf(out->description, sizeof out->description, "%s %02u %s", pd ? "PD" : "LD", e->target & 0xff, came ? "came" : "went");
}

static bool event_is_kept(const struct megasas *s, uint32_t seq)
{
    return seq && seq <= s->last_event && s->last_event - seq < MEGASAS_EVENTS;
}

static void put_event(struct megasas *s, struct mfi_cmd *c, uint32_t seq, uint8_t *status)
{
    struct mfi_event ev;

    describe(&s->events[seq % MEGASAS_EVENTS], &ev);
    *status = reply(c, &ev, sizeof ev);
}

/* Ends the wait of a driver if what it waits for has happened. */
static void serve_waiting(struct megasas *s)
{
    struct mfi_cmd c = { .s = s, .frame = s->wait_frame };
    uint8_t status = MFI_STAT_OK;

    if (!s->wait_frame || s->last_event < s->wait_seq)
        return;
    s->wait_frame = 0;
    if (!dma_read(&s->pci.dma, c.frame, c.f, sizeof c.f))
        return;
    c.flags = ld_le16(c.f + MFI_F_FLAGS);
    put_event(s, &c, event_is_kept(s, s->wait_seq) ? s->wait_seq : s->last_event, &status);
    dma_unmap(&c.data, c.data.len);
    dma_vec_free(&c.data);
    megasas_complete(s, c.frame, c.f, status, 0);
}

void megasas_event_log(struct megasas *s, uint32_t code, uint32_t target)
{
    uint32_t seq = ++s->last_event;

    s->events[seq % MEGASAS_EVENTS] = (struct megasas_event){ .seq = seq, .time = now(), .code = code, .target = target };
    serve_waiting(s);
}

static uint32_t oldest_event(const struct megasas *s) { return s->last_event < MEGASAS_EVENTS ? 1 : s->last_event - MEGASAS_EVENTS + 1; }

static uint8_t event_info(struct mfi_cmd *c, bool *later)
{
    const struct megasas *s = c->s;
    struct mfi_event_info i = { .newest = htole32(s->last_event), .oldest = htole32(MIN(oldest_event(s), MAX(s->last_event, 1u))) };

    return reply(c, &i, sizeof i);
}

/* One waits at a time; a second one takes the first one's place, which then hears of nothing. */
static uint8_t event_wait(struct mfi_cmd *c, bool *later)
{
    struct megasas *s = c->s;

    s->wait_seq = ld_le32(mbox(c));
    s->wait_frame = c->frame;
    *later = true;
    serve_waiting(s);
    return MFI_STAT_OK;
}

/* Those from a number on, the oldest first, as many as the driver has room for: it asks again until there is none. */
static uint8_t event_get(struct mfi_cmd *c, bool *later)
{
    const struct megasas *s = c->s;
    uint32_t seq = MAX(ld_le32(mbox(c)), oldest_event(s)), n = 0;
    struct mfi_event_list head = { 0 };
    struct mfi_event ev;

    if (!megasas_map(c, MFI_DCMD_SGL, true) || c->data.len < sizeof head + sizeof ev)
        return MFI_STAT_INVALID_PARAMETER;
    for (; event_is_kept(s, seq) && sizeof head + (n + 1) * sizeof ev <= c->data.len; seq++, n++) {
        describe(&s->events[seq % MEGASAS_EVENTS], &ev);
        vec_from_buf(&c->data, sizeof head + n * sizeof ev, &ev, sizeof ev);
    }
    head.count = htole32(n);
    vec_from_buf(&c->data, 0, &head, sizeof head);
    return n ? MFI_STAT_OK : MFI_STAT_NOT_FOUND;
}

/* ---- the table ---- */

static const struct { uint32_t opcode; uint8_t (*co_run)(struct mfi_cmd *, bool *later); } dcmds[] = {
    { DCMD_CTRL_GET_INFO, ctrl_info },
    { DCMD_CTRL_GET_PROPERTIES, get_properties },
    { DCMD_CTRL_SET_PROPERTIES, set_properties },
    { DCMD_EVENT_GET_INFO, event_info },
    { DCMD_EVENT_GET, event_get },
    { DCMD_EVENT_WAIT, event_wait },
    { DCMD_CTRL_SHUTDOWN, nothing_to_do },
    { DCMD_HIBERNATE_SHUTDOWN, nothing_to_do },
    { DCMD_TIME_SECS_GET, get_time },
    { DCMD_CACHE_FLUSH, nothing_to_do },
    { DCMD_PD_GET_LIST, pd_list },
    { DCMD_PD_LIST_QUERY, pd_query },
    { DCMD_PD_GET_INFO, pd_info },
    { DCMD_LD_GET_LIST, ld_list },
    { DCMD_LD_LIST_QUERY, ld_targets },
    { DCMD_LD_GET_INFO, ld_info },
    { DCMD_LD_GET_PROPERTIES, ld_properties },
    { DCMD_CLUSTER_RESET_ALL, co_reset_lds },
    { DCMD_CLUSTER_RESET_LD, co_reset_ld },
};

uint8_t co_megasas_dcmd(struct mfi_cmd *c, bool *later)
{
    uint32_t opcode = ld_le32(c->f + MFI_DCMD_OPCODE);

    for (unsigned i = 0; i < ARRAY_SIZE(dcmds); i++)
        if (dcmds[i].opcode == opcode)
            return dcmds[i].co_run(c, later);
    return MFI_STAT_INVALID_DCMD;
}
