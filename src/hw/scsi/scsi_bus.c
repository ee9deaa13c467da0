/* SPDX-License-Identifier: MIT */
/* The SCSI bus: addresses, the life of logical units and of requests, unit attentions, sense data. */
#include "hw/scsi/scsi.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"

/* ---- addresses. Changed on the main loop with the lock held; the main loop reads them without ---- */

struct scsi_dev *scsi_find(struct scsi_bus *b, uint32_t channel, uint32_t id, uint32_t lun, bool any_lun)
{
    struct scsi_dev *d, *other = NULL;

    list_for_each(d, &b->devs, on_bus) {
        if (d->channel != channel || d->id != id)
            continue;
        if (d->lun == lun)
            return d;
        other = other && other->lun < d->lun ? other : d;
    }
    return any_lun ? other : NULL;
}

/* The first unit number that is free at a target; the bus's max_lun + 1: none. */
static uint32_t free_lun(struct scsi_bus *b, uint32_t channel, uint32_t id)
{
    uint32_t lun = 0;

    while (lun <= b->hba->max_lun && scsi_find(b, channel, id, lun, false))
        lun++;
    return lun;
}

static bool bus_attach(struct bus *bus, struct dev *dev, struct err *e)
{
    struct scsi_bus *b = (struct scsi_bus *)bus;
    struct scsi_dev *d = (struct scsi_dev *)dev, *other;
    uint32_t lun = d->lun == UINT32_MAX ? 0 : d->lun;

    if (d->channel > b->hba->max_channel)
        return err_set(e, ERR_VALUE, "channel=%u: bus '%s' has channels 0 to %u", d->channel, bus->obj.id, b->hba->max_channel);
    if (d->id == UINT32_MAX)
        for (d->id = 0; d->id <= b->hba->max_target && scsi_find(b, d->channel, d->id, lun, false);)
            d->id++;
    if (d->id > b->hba->max_target)
        return err_set(e, ERR_VALUE, "scsi-id=%u: bus '%s' has targets 0 to %u", d->id, bus->obj.id, b->hba->max_target);
    if (d->lun == UINT32_MAX)
        d->lun = free_lun(b, d->channel, d->id);
    if (d->lun > b->hba->max_lun)
        return err_set(e, ERR_VALUE, "lun=%u: bus '%s' has logical units 0 to %u", d->lun, bus->obj.id, b->hba->max_lun);
    other = scsi_find(b, d->channel, d->id, d->lun, false);
    if (!other)
        return true;
    err_set(e, ERR_BUSY, "channel=%u, scsi-id=%u, lun=%u of bus '%s' is taken by '%s'", d->channel, d->id, d->lun, bus->obj.id, other->dev.obj.id);
    return err_hint(e, "leave scsi-id= or lun= out to take the next free one");
}

/* SPC-5, 5.12: initiators hear from the other units of the target that its list of units is another. */
static void units_changed(struct scsi_bus *b, struct scsi_dev *d, bool came)
{
    struct scsi_dev *other;

    list_for_each(other, &b->devs, on_bus)
        if (other != d && other->channel == d->channel && other->id == d->id)
            scsi_attention(other, SENSE_LUNS_CHANGED);
    if (b->hba->plugged)
        b->hba->plugged(b, d, came);
}

static void bus_hide(struct bus *bus, struct dev *dev)
{
    struct scsi_bus *b = (struct scsi_bus *)bus;
    struct scsi_dev *d = (struct scsi_dev *)dev;

    if (!d->bus)
        return;
    domain_lock(dev->dom);
    list_del(&d->on_bus);
    d->bus = NULL;
    units_changed(b, d, false);
    domain_unlock(dev->dom);
}

static bool bus_plugged(struct bus *bus, struct dev *dev, struct err *e)
{
    struct scsi_bus *b = (struct scsi_bus *)bus;

    domain_lock(dev->dom);
    units_changed(b, (struct scsi_dev *)dev, true);
    domain_unlock(dev->dom);
    return true;
}

static void bus_path(const struct dev *dev, char *buf, size_t n)
{
    const struct scsi_dev *d = (const struct scsi_dev *)dev;

    snprintf(buf, n, "scsi/%u:%u:%u", d->channel, d->id, d->lun);
}

static void bus_fw_path(const struct dev *dev, struct str *out)
{
    const struct scsi_dev *d = (const struct scsi_dev *)dev;

    str_printf(out, "/channel@%x/disk@%x,%x", d->channel, d->id, d->lun);
}

const struct bus_class scsi_bus_class = {
    .brought_by = "virtio-scsi-pci",
    .obj = { .name = "SCSI", .desc = "SCSI bus", .base = &bus_obj_class, .size = sizeof(struct scsi_bus) },
    .attach = bus_attach, .hide = bus_hide, .plugged = bus_plugged, .path = bus_path, .fw_path = bus_fw_path, .shares_domain = true,
};
OBJ_CLASS(&scsi_bus_class.obj);

struct scsi_bus *scsi_bus_new(struct dev *owner, const struct scsi_hba *hba, void *arg, struct err *e)
{
    char name[128];
    struct scsi_bus *b;

    bus_free_name(&scsi_bus_class, owner, 0, name, sizeof name);
    b = (struct scsi_bus *)bus_new(&scsi_bus_class, owner, name, e);
    if (!b)
        return NULL;
    list_init(&b->devs);
    b->hba = hba;
    b->arg = arg;
    b->dom = owner->dom;
    b->bus.hotplug = true;
    return b;
}

/* ---- logical units ---- */

bool scsi_dev_attach(struct scsi_dev *d, struct err *e)
{
    struct scsi_bus *b = (struct scsi_bus *)d->dev.bus;

    domain_lock(d->dev.dom);
    d->bus = b;
    list_push(&b->devs, &d->on_bus);
    domain_unlock(d->dev.dom);
    return true;
}

bool scsi_dev_init(struct obj *o, struct err *e)
{
    struct scsi_dev *d = (struct scsi_dev *)o;

    list_init(&d->on_bus);
    list_init(&d->reqs);
    d->type = SCSI_DEV_CLASS(d)->type;
    return true;
}

static const struct prop scsi_dev_props[] = {
    PROP_U32(struct scsi_dev, channel, "channel", 0, 0, UINT32_MAX, "Channel of the adapter"),
    { .name = "scsi-id", .doc = "Number of the target; the first free one if left out", .type = PROP_T_U32,
      PROP_OFF(struct scsi_dev, id), .def = UINT32_MAX },
    { .name = "lun", .doc = "Logical unit of the target; the first free one if left out", .type = PROP_T_U32,
      PROP_OFF(struct scsi_dev, lun), .def = UINT32_MAX },
    PROP_END
};

const struct dev_class scsi_dev_class = {
    .obj = { .name = "scsi-device", .base = &dev_obj_class, .size = sizeof(struct scsi_dev), .flags = OCF_ABSTRACT, .init = scsi_dev_init,
             .props = scsi_dev_props },
    .plugs_into = &scsi_bus_class, .state_none = "a base of others",
};
OBJ_CLASS(&scsi_dev_class.obj);

static const struct state_field dev_fields[] = {
    STATE_ARRAY(struct scsi_dev, ua, .max = 0x0fffff), STATE_UINT(struct scsi_dev, n_ua, .max = SCSI_UA_MAX), STATE_BOOL(struct scsi_dev, desc_sense), STATE_END
};
const struct state_desc scsi_dev_state = { .name = "scsi-device", .version = 1, .fields = dev_fields };

void co_scsi_dev_quiesce(struct dev *dev)
{
    struct scsi_dev *d = (struct scsi_dev *)dev;

    while (d->n_reqs)
        co_queue_wait(&d->idle);
}

/* ---- sense data: SPC-5, 4.4 ---- */

unsigned scsi_sense_build(uint8_t *buf, uint32_t sense, bool desc)
{
    uint8_t key = (uint8_t)(sense >> 16 & 0xf), asc = (uint8_t)(sense >> 8), ascq = (uint8_t)sense;

    memset(buf, 0, SCSI_SENSE_MAX);
    if (desc) {
        buf[0] = 0x72;
        buf[1] = key;
        buf[2] = asc;
        buf[3] = ascq;
        return 8;
    }
    buf[0] = 0x70;
    buf[2] = key;
    buf[7] = 10;
    buf[12] = asc;
    buf[13] = ascq;
    return 18;
}

/* 4.4.2.4: three bytes whose meaning the sense key gives, into sense data that has no descriptor yet; the length with them. */
static unsigned put_specific(uint8_t *buf, uint8_t flags, uint16_t v)
{
    bool desc = buf[0] == 0x72;
    uint8_t *sks = buf + (desc ? 12 : 15);

    if (desc) {
        buf[8] = 2;
        buf[9] = 6;
        buf[7] = 8;
    }
    sks[0] = 0x80 | flags;                      /* SKSV */
    st_be16(sks + 1, v);
    return desc ? 16 : 18;
}

static bool tells_progress(uint32_t sense)
{
    return sense == SENSE_FORMAT_IN_PROGRESS || sense == SENSE_SANITIZE_IN_PROGRESS || sense == SENSE_SELF_TEST_IN_PROGRESS;
}

unsigned scsi_sense_of(const struct scsi_dev *d, uint8_t *buf, uint32_t sense, bool desc)
{
    unsigned n = scsi_sense_build(buf, sense, desc);

    return tells_progress(sense) ? put_specific(buf, 0, d->progress) : n;       /* 4.4.2.4.4 */
}

void scsi_fail(struct scsi_req *r, uint32_t sense)
{
    r->status = SCSI_CHECK_CONDITION;
    r->sense_len = (uint8_t)scsi_sense_of(r->dev, r->sense, sense, r->dev && r->dev->desc_sense);
}

void scsi_fail_info(struct scsi_req *r, uint32_t sense, uint64_t info)
{
    scsi_fail(r, sense);
    if (r->sense[0] == 0x72) {                  /* 4.4.2.2: information descriptor */
        uint8_t *d = r->sense + 8;
        d[1] = 10;
        d[2] = 0x80;
        st_be64(d + 4, info);
        r->sense[7] = 12;
        r->sense_len = 20;
    } else if (info <= UINT32_MAX) {
        r->sense[0] |= 0x80;
        st_be32(r->sense + 3, (uint32_t)info);
    }
}

/* 4.4.2.4: where the wrong byte is, in the command block or in the parameters. */
void scsi_fail_field(struct scsi_req *r, uint32_t sense, unsigned byte)
{
    bool in_list = (sense & 0xffff00) == SENSE_INVALID_FIELD_PARAM;

    scsi_fail(r, sense);
    r->sense_len = (uint8_t)put_specific(r->sense, in_list ? 0 : 0x40 /* C/D */, (uint16_t)byte);
}

/* SAM-5, 5.14: told by the next command that tells them; a newer one that says the same is one. */
void scsi_attention(struct scsi_dev *d, uint32_t sense)
{
    for (uint32_t i = 0; i < d->n_ua; i++)
        if (d->ua[i] == sense)
            return;
    if ((sense & 0xffff00) == SENSE_POWER_ON)   /* a reset takes the place of what came before */
        d->n_ua = 0;
    if (d->n_ua < SCSI_UA_MAX)
        d->ua[d->n_ua++] = sense;
    if (d->bus && d->bus->hba->changed && (sense & 0xffff00) != SENSE_POWER_ON)
        d->bus->hba->changed(d->bus, d, sense);
}

static bool tell_attention(struct scsi_req *r)
{
    struct scsi_dev *d = r->dev;

    if (!d->n_ua)
        return false;
    scsi_fail(r, d->ua[0]);
    memmove(d->ua, d->ua + 1, --d->n_ua * sizeof d->ua[0]);
    return true;
}

/* ---- data ---- */

void scsi_reply(struct scsi_req *r, const void *buf, size_t n, uint64_t alloc)
{
    r->done = vec_from_buf(r->in.v, r->in.off, buf, (size_t)MIN(MIN(n, alloc), r->in.len));
}

size_t scsi_take(struct scsi_req *r, uint64_t off, void *buf, size_t n)
{
    if (off >= r->out.len)
        return 0;
    n = vec_to_buf(r->out.v, r->out.off + off, buf, (size_t)MIN(n, r->out.len - off));
    r->done = MAX(r->done, off + n);
    return n;
}

/* ---- execution ---- */

const struct scsi_cmd *scsi_cmd_find(const struct scsi_dev *d, uint8_t op, uint16_t sa)
{
    for (const struct scsi_cmd *c = SCSI_DEV_CLASS(d)->cmds; c->co_run; c++)
        if (c->op == op && (c->sa < 0 || c->sa == sa) && scsi_cmd_there(d, c))
            return c;
    return NULL;
}

const struct scsi_cmd *scsi_cmd_any(const struct scsi_dev *d, uint8_t op)
{
    for (const struct scsi_cmd *c = SCSI_DEV_CLASS(d)->cmds; c->co_run; c++)
        if (c->op == op && scsi_cmd_there(d, c))
            return c;
    return NULL;
}

static void no_command(struct scsi_req *r)
{
    log_unimp("scsi '%s': no command 0x%02x", r->dev->dev.obj.id, r->cdb[0]);
    scsi_fail_field(r, SENSE_INVALID_OPCODE, 0);
}

static void co_execute(struct scsi_req *r)
{
    struct scsi_dev *d = r->dev;
    const struct scsi_cmd *c = scsi_cmd_find(d, r->cdb[0], scsi_cdb_action(r->cdb));
    unsigned control;
    uint32_t why;

    if (!c) {
        if (r->cdb[0] != OP_REQUEST_SENSE && tell_attention(r))
            return;
        if (SCSI_DEV_CLASS(d)->co_other)
            SCSI_DEV_CLASS(d)->co_other(r);
        else if (scsi_cmd_any(d, r->cdb[0]))    /* with other service actions */
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, r->cdb[0] == OP_VARIABLE_LENGTH ? 8 : 1);
        else
            no_command(r);
        return;
    }
    if (!(c->flags & SCF_NO_UA) && tell_attention(r))
        return;
    control = c->op == OP_VARIABLE_LENGTH ? 1 : c->len - 1u;
    if (r->cdb[control] & 0x04) {               /* NACA: SAM-5, 5.2; there is no ACA */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, control);
        return;
    }
    if (SCSI_DEV_CLASS(d)->conflict && SCSI_DEV_CLASS(d)->conflict(r, c))
        return;
    why = SCSI_DEV_CLASS(d)->co_ready ? SCSI_DEV_CLASS(d)->co_ready(d, c) : 0;
    if (why)
        scsi_fail(r, why);
    else
        c->co_run(r);
}

static void hold(struct scsi_dev *d) { d->n_reqs++; }

static void release(struct scsi_dev *d)
{
    d->n_reqs--;
    co_queue_wake_all(&d->idle);                 /* also for those who wait for one request: they look again */
}

void co_scsi_run(struct scsi_req *r, struct scsi_dev *d)
{
    r->host = r->abort = SCSI_HOST_OK;
    r->status = SCSI_GOOD;
    r->sense_len = 0;
    r->done = 0;
    r->dev = d && d->lun == r->lun ? d : NULL;
    if (!r->dev) {
        scsi_run_absent(r, d);
        return;
    }
    if (d->n_reqs >= SCSI_REQS_MAX) {
        r->status = SCSI_TASK_SET_FULL;
        return;
    }
    hold(d);
    list_push(&d->reqs, &r->link);
    TRACE(scsi_command, "'%s' 0x%02x tag 0x%" PRIx64, d->dev.obj.id, r->cdb[0], r->tag);
    co_execute(r);
    list_del(&r->link);
    if (scsi_aborted(r))
        r->host = r->abort;
    TRACE(scsi_done, "'%s' 0x%02x tag 0x%" PRIx64 ": host %d status 0x%02x, %" PRIu64 " bytes", d->dev.obj.id, r->cdb[0], r->tag, r->host, r->status, (uint64_t)r->done);
    release(d);
}

unsigned scsi_pending(struct scsi_dev *d, bool (*match)(const struct scsi_req *, const void *), const void *arg)
{
    struct scsi_req *r;
    unsigned n = 0;

    list_for_each(r, &d->reqs, link)
        n += !match || match(r, arg);
    return n;
}

/* @d is held: it stays while this waits. */
static unsigned co_abort(struct scsi_dev *d, bool (*match)(const struct scsi_req *, const void *), const void *arg, enum scsi_host why)
{
    struct scsi_req *r;
    unsigned n = 0, left;

    list_for_each(r, &d->reqs, link)
        if (!match || match(r, arg)) {
            r->abort = why;
            n++;
        }
    for (;;) {
        left = 0;
        list_for_each(r, &d->reqs, link)
            left += scsi_aborted(r);
        if (!left)
            return n;
        co_queue_wait(&d->idle);
    }
}

unsigned co_scsi_abort(struct scsi_dev *d, bool (*match)(const struct scsi_req *, const void *), const void *arg, enum scsi_host why)
{
    unsigned n;

    hold(d);
    n = co_abort(d, match, arg, why);
    release(d);
    return n;
}

void co_scsi_reset(struct scsi_dev *d, uint32_t sense)
{
    hold(d);
    co_abort(d, NULL, NULL, SCSI_HOST_RESET);
    if (SCSI_DEV_CLASS(d)->reset)
        SCSI_DEV_CLASS(d)->reset(d);
    scsi_attention(d, sense);
    release(d);
}

void scsi_bus_power_on(struct scsi_bus *b)
{
    struct scsi_dev *d;

    list_for_each(d, &b->devs, on_bus) {
        if (SCSI_DEV_CLASS(d)->reset)
            SCSI_DEV_CLASS(d)->reset(d);
        d->n_ua = 0;
        scsi_attention(d, SENSE_POWER_ON);
    }
}

/* ---- command block fields ---- */

uint64_t scsi_cdb_lba(const uint8_t *c)
{
    switch (c[0] >> 5) {
    case 0: return ld_be32(c) & 0x1fffff;
    case 3: return ld_be64(c + 12);             /* variable length: READ(32)... */
    case 4: return ld_be64(c + 2);
    default: return ld_be32(c + 2);
    }
}

uint32_t scsi_cdb_len(const uint8_t *c)
{
    switch (c[0] >> 5) {
    case 0: return c[4];
    case 3: return ld_be32(c + 28);
    case 4: return ld_be32(c + 10);
    case 5: return ld_be32(c + 6);
    default: return ld_be16(c + 7);
    }
}

uint32_t scsi_cdb_blocks(const uint8_t *c)
{
    uint32_t n = scsi_cdb_len(c);

    return c[0] < 0x20 && !n ? 256 : n;
}

uint16_t scsi_cdb_action(const uint8_t *c)
{
    return c[0] == OP_VARIABLE_LENGTH ? ld_be16(c + 8) : c[1] & 0x1f;
}
