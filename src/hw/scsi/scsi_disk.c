/* SPDX-License-Identifier: MIT */
/* `scsi-hd` and `scsi-cd`: options, life, medium, saved state. */
#include "hw/scsi/scsi_disk.h"

#include <stdlib.h>
#include "core/cmd.h"
#include "core/flags.h"

#define CD_BLOCK 2048u

static struct scsi_disk *disk(struct dev *dev) { return (struct scsi_disk *)dev; }

bool scsi_disk_is_cd(const struct scsi_disk *d)
{
    return SCSI_DEV_CLASS(&d->s)->type == SCSI_TYPE_ROM;
}

uint64_t scsi_disk_blocks(const struct scsi_disk *d)
{
    if (d->pi_blocks)
        return d->pi_blocks;
    return d->tray_open ? 0 : blk_size(d->blk) / d->opt.logical_block_size;
}

bool scsi_disk_has_medium(const struct scsi_disk *d)
{
    return scsi_disk_blocks(d) != 0;
}

static uint64_t disk_capacity(const struct scsi_dev *s, uint32_t *block)
{
    const struct scsi_disk *d = (const struct scsi_disk *)s;

    *block = scsi_disk_bs(d);
    return scsi_disk_blocks(d);
}

bool scsi_disk_read_only(const struct scsi_disk *d)
{
    return d->caps.read_only || scsi_disk_is_cd(d);
}

/* ---- medium ---- */

static const struct qmp_event_def disk_events[] = {
    { "DEVICE_TRAY_MOVED", "The tray of a drive opened or closed", .says = "{device:str, id:str, tray-open:bool}" },
};
QMP_EVENT(&disk_events[0]);

void scsi_disk_tray(struct scsi_disk *d, bool open)
{
    if (d->tray_open == open)
        return;
    d->tray_open = open;
    scsi_media_event(d, open ? MEDIA_REMOVED : MEDIA_NEW);
    d->blocks = scsi_disk_blocks(d);
    if (!open && scsi_disk_has_medium(d))
        scsi_attention(&d->s, SENSE_MEDIUM_CHANGED);
    qmp_event("DEVICE_TRAY_MOVED", json_pack("{s:s, s:s, s:b}", "device", "", "id", d->s.dev.obj.id, "tray-open", open));
}

/* What the back end can do. Under -compat qemu UNMAP is there in any case, a hint that may have no effect: QEMU's discard=ignore hides nothing. */
static void take_caps(struct scsi_disk *d)
{
    blk_get_caps(d->blk, &d->caps);
    d->caps.discard |= cli_flags.compat_qemu;
}

/* The back end got another size or medium: lock held, on the home loop. */
static void medium_changed(void *arg)
{
    struct scsi_disk *d = arg;

    take_caps(d);
    if (d->blocks == scsi_disk_blocks(d))
        return;
    d->blocks = scsi_disk_blocks(d);
    if (d->removable)
        scsi_media_event(d, scsi_disk_has_medium(d) ? MEDIA_NEW : MEDIA_REMOVED);
    scsi_attention(&d->s, d->removable ? SENSE_MEDIUM_CHANGED : SENSE_CAPACITY_CHANGED);
}

/* ---- what monitors ask of a drive with a tray ---- */

static bool tray_is_open(void *arg) { return ((struct scsi_disk *)arg)->tray_open; }
static bool tray_is_locked(void *arg) { return ((struct scsi_disk *)arg)->locked; }
static void tray_move(void *arg, bool open) { scsi_disk_tray(arg, open); }
static void tray_ask(void *arg) { scsi_media_event(arg, MEDIA_EJECT_REQUEST); }
static const struct blk_tray tray = { tray_is_open, tray_is_locked, tray_move, tray_ask };

uint32_t co_scsi_disk_ready(struct scsi_dev *s, const struct scsi_cmd *c)
{
    struct scsi_disk *d = (struct scsi_disk *)s;

    if (d->port_group && scsi_access_sense(d, c))
        return scsi_access_sense(d, c);
    if (d->overwriting && !(c->flags & SCF_ALWAYS))
        return d->overwriting;
    if (d->overwrite_failed && c->flags & SCF_MEDIUM && c->op != OP_SANITIZE && c->op != OP_FORMAT_UNIT)
        return d->overwrite_failed;
    if (c->flags & SCF_MEDIUM && !scsi_disk_has_medium(d))
        return d->tray_open ? SENSE_NO_MEDIUM_OPEN : SENSE_NO_MEDIUM_CLOSED;
    if (c->flags & SCF_MEDIUM && d->stopped)
        return SENSE_NOT_READY_STOPPED;
    if (c->flags & SCF_WRITE && scsi_disk_read_only(d))
        return SENSE_WRITE_PROTECTED;
    return c->flags & SCF_MEDIUM && co_scsi_pi_load(d) ? SENSE_READ_ERROR : 0;
}

bool scsi_disk_has(const struct scsi_dev *s, const struct scsi_cmd *c)
{
    const struct scsi_disk *d = (const struct scsi_disk *)s;

    if (c->flags & SCF_NEXUS && !d->path.lu)
        return false;
    if (c->flags & (d->caps.zoned.size ? SCF_RANDOM : SCF_ZONED))
        return false;
    if (c->flags & SCF_GROUPS && !d->port_group)
        return false;
    if (c->flags & SCF_PROTECTED && !d->protection)
        return false;
    return !(c->flags & SCF_DISCARD) || (d->caps.discard && !scsi_disk_read_only(d));
}

/* ---- life ---- */

static bool usable_size(struct scsi_disk *d, struct err *e)
{
    if (d->opt.logical_block_size > 4096) {
        err_set(e, ERR_VALUE, "logical_block_size is %u, the most is 4096", d->opt.logical_block_size);
        return err_hint(e, "drivers of SCSI disks know 512 to 4096");
    }
    if (!scsi_disk_blocks(d) && !d->removable) {
        err_set(e, ERR_VALUE, "'%s' has no block of %u bytes", d->opt.drive->id, d->opt.logical_block_size);
        if (SCSI_DEV_CLASS(&d->s)->dev.plugs_into == &scsi_bus_class)
            err_hint(e, "a fixed disk needs a medium; removable=on makes it one that may be empty");
        return false;
    }
    return true;
}

static bool block_size(struct scsi_disk *d, struct err *e)
{
    if (!scsi_disk_is_cd(d))
        return true;
    if (!d->opt.logical_block_size)
        d->opt.logical_block_size = CD_BLOCK;
    return d->opt.logical_block_size == CD_BLOCK || err_set(e, ERR_VALUE, "logical_block_size is %u, but a CD has 2048", d->opt.logical_block_size);
}

bool scsi_disk_open(struct scsi_disk *d, struct err *e)
{
    struct dev *dev = &d->s.dev;
    bool cd = scsi_disk_is_cd(d);

    if (!block_size(d, e))
        return false;
    d->removable |= cd;
    d->opt.may_be_empty = d->removable;
    d->blk = blk_front_open(&d->opt, &dev->obj, dev->dom, !cd, e);
    if (!d->blk)
        return false;
    range_claims_init(&d->claims);
    take_caps(d);
    if (!usable_size(d, e) || !dev_boot_set(dev, d->opt.bootindex, "", e)) {
        scsi_disk_close(d);
        return false;
    }
    d->wce_at_reset = blk_write_cache(d->blk);
    d->blocks = scsi_disk_blocks(d);
    scsi_attention(&d->s, SENSE_POWER_ON);
    blk_set_change_cb(d->blk, medium_changed, d);
    if (d->removable)
        blk_set_tray(d->blk, &tray, d);
    return true;
}

void scsi_disk_close(struct scsi_disk *d)
{
    range_claims_fini(&d->claims);
    blk_close(d->blk);
    d->blk = NULL;
}

static void disk_unrealize(struct dev *dev)
{
    run_resume_fini(&disk(dev)->resume);
    scsi_lu_leave(disk(dev));
    scsi_disk_close(disk(dev));
}

static bool disk_realize(struct dev *dev, struct err *e)
{
    struct scsi_disk *d = disk(dev);

    d->opt.knows_zones = !scsi_disk_is_cd(d);
    if (!scsi_disk_open(d, e))
        return false;
    run_resume_init(&d->resume, dev->dom, scsi_disk_resumed, d);
    if (scsi_zones_fit(d, e) && scsi_pi_fit(d, e) && scsi_lu_join(d, e) && scsi_dev_attach(&d->s, e))
        return true;
    disk_unrealize(dev);
    return false;
}

/* A self-test may read for hours, an overwrite may write for them; they are not what is waited for. */
static void co_disk_quiesce(struct dev *dev)
{
    struct scsi_disk *d = disk(dev);

    scsi_self_test_stop(d, false);
    scsi_disk_rest(d);
    for (co_scsi_dev_quiesce(dev); dev->leaving && d->parked; co_scsi_dev_quiesce(dev))
        co_queue_wait(&d->s.idle);
}

/* Power on and every reset of the unit (SAM-5, 6.3). Reservations survive all but power on. */
void scsi_disk_to_default(struct scsi_dev *s)
{
    struct scsi_disk *d = (struct scsi_disk *)s;

    d->stopped = d->locked = false;
    scsi_self_test_stop(d, true);
    s->desc_sense = d->ato = d->dpicz = false;
    blk_set_write_cache(d->blk, d->wce_at_reset);
}

void scsi_disk_reset(struct dev *dev, enum reset_kind k)
{
    struct scsi_disk *d = disk(dev);

    scsi_disk_to_default(&d->s);
    scsi_lu_power_lost(d);
    memset(d->count, 0, sizeof d->count);
    memset(d->tests, 0, sizeof d->tests);
    d->echo_len = 0;
    d->media_event = 0;
    d->features_changed = false;
    d->s.n_ua = 0;
    scsi_attention(&d->s, SENSE_POWER_ON);
}

static const struct state_field count_fields[] = {
    STATE_UINT(struct scsi_io_count, commands), STATE_UINT(struct scsi_io_count, moved), STATE_UINT(struct scsi_io_count, bytes),
    STATE_UINT(struct scsi_io_count, errors), STATE_END
};
static const struct state_desc count_state = { .name = "scsi-counter", .version = 1, .fields = count_fields };
static const struct state_field test_fields[] = {
    STATE_UINT(struct scsi_self_test, code, .max = 7), STATE_UINT(struct scsi_self_test, result, .max = 15), STATE_UINT(struct scsi_self_test, hours),
    STATE_UINT(struct scsi_self_test, lba), STATE_END
};
static const struct state_desc test_state = { .name = "scsi-self-test", .version = 1, .fields = test_fields };
static const struct state_field clock_fields[] = {
    STATE_UINT(struct scsi_clock, origin, .max = 2), STATE_UINT(struct scsi_clock, offset), STATE_END
};
static const struct state_desc clock_state = { .name = "scsi-clock", .version = 1, .fields = clock_fields };
static const struct state_field disk_fields[] = {
    STATE_STRUCT(struct scsi_disk, s, &scsi_dev_state), STATE_UINT(struct scsi_disk, blocks), STATE_BOOL(struct scsi_disk, stopped),
    STATE_BOOL(struct scsi_disk, ato), STATE_BOOL(struct scsi_disk, dpicz), STATE_UINT(struct scsi_disk, port_state, .max = 5),
    STATE_BOOL(struct scsi_disk, locked), STATE_BOOL(struct scsi_disk, tray_open), STATE_UINT(struct scsi_disk, media_event, .max = MEDIA_REMOVED),
    STATE_BOOL(struct scsi_disk, features_changed), STATE_UINT(struct scsi_disk, rests_as, .max = 0x0fffff),
    STATE_UINT(struct scsi_disk, overwrite_failed, .max = 0x0fffff),
    STATE_STRUCTS(struct scsi_disk, count, &count_state),
    STATE_STRUCTS(struct scsi_disk, tests, &test_state), STATE_BYTES(struct scsi_disk, buffer), STATE_UINT(struct scsi_disk, echo_len, .max = SCSI_BUFFER),
    STATE_STRUCT(struct scsi_disk, saved_pr, &scsi_pr_state), STATE_STRUCT(struct scsi_disk, saved_clock, &clock_state),
    STATE_STRUCT(struct scsi_disk, saved_defects, &scsi_defects_state), STATE_END
};

static bool disk_post_load(void *obj, struct err *e)
{
    struct scsi_disk *d = obj;

    if (d->rests_as)
        d->overwrite_failed = d->rests_as;      /* the host that went on here does it again */
    d->rests_as = d->overwriting = 0;           /* and one that waits here is of another life */
    d->tray_open &= d->removable;
    d->ato &= d->protection;
    d->dpicz &= d->protection;
    d->port_state = d->port_group ? d->port_state : 0;
    scsi_access_load(d);
    scsi_lu_load(d, &d->saved_pr, &d->saved_clock, &d->saved_defects);
    return true;
}

static void disk_pre_save(void *obj)
{
    struct scsi_disk *d = obj;

    scsi_lu_save(d, &d->saved_pr, &d->saved_clock, &d->saved_defects);
}
const struct state_desc scsi_disk_state = { .name = "scsi-disk", .version = 1, .fields = disk_fields, .post_load = disk_post_load,
                                                    .pre_save = disk_pre_save };

/* ---- options ---- */

#define COMMON_PROPS(product_name)                                                                                        \
    PROP_INCLUDE(struct scsi_disk, opt, blk_front_props),                                                                 \
    PROP_STR(struct scsi_disk, serial, "serial", 0, "Serial number (VPD page 80h), up to 36 characters"),                 \
    PROP_STR_DEF(struct scsi_disk, vendor, "vendor", "QEMU", "Vendor in INQUIRY data, up to 8 characters"),              \
    PROP_STR_DEF(struct scsi_disk, product, "product", product_name, "Product in INQUIRY data, up to 16 characters"),    \
    PROP_STR_DEF(struct scsi_disk, version, "ver", "2.5+", "Revision in INQUIRY data, up to 4 characters"),              \
    PROP_STR(struct scsi_disk, device_id, "device_id", 0, "Identification (VPD page 83h); the serial number or id if left out"), \
    PROP_U64(struct scsi_disk, wwn, "wwn", 0, 0, UINT64_MAX, "World wide name (VPD page 83h); 0: none"),                  \
    PROP_U64(struct scsi_disk, port_wwn, "port_wwn", 0, 0, UINT64_MAX, "World wide name of the target's port (VPD page 83h); 0: none"), \
    PROP_U16(struct scsi_disk, port_index, "port_index", 0, 0, UINT16_MAX, "Number of the target's port (VPD page 83h); 0: none"), \
    PROP_SIZE(struct scsi_disk, max_unmap_size, "max_unmap_size", 1 * GiB, 4096, INT64_MAX, "Most bytes that one UNMAP frees"), \
    PROP_SIZE(struct scsi_disk, max_io_size, "max_io_size", SCSI_TRANSFER_MAX, 4096, SCSI_TRANSFER_MAX, "Most bytes of one request")

static const struct prop hd_props[] = {
    COMMON_PROPS("QEMU HARDDISK"),
    PROP_INCLUDE(struct scsi_disk, opt, blk_geometry_props),
    PROP_U16(struct scsi_disk, rotation_rate, "rotation_rate", 0, 0, 0xfffe, "Turns a minute; 1: a solid state disk; 0: as the back end"),
    PROP_BOOL(struct scsi_disk, removable, "removable", false, "The medium can be removed"),
    PROP_BOOL(struct scsi_disk, dpofua, "dpofua", true, "Offer writes through the cache (FUA)"),
    PROP_U16(struct scsi_disk, port_group, "port_group", 0, 0, UINT16_MAX, "Group of the target's port (asymmetric access); 0: none"),
    { .name = "port_state", .doc = "How the unit can be reached through the port's group", .type = PROP_T_ENUM, PROP_OFF(struct scsi_disk, port_state),
      .of = scsi_access_names, .flags = PF_RUNTIME, .changed = scsi_access_changed },
    PROP_BOOL(struct scsi_disk, protection, "protection", false, "Keep room for protection information (T10 PI) behind the blocks, which FORMAT UNIT enables"),
    PROP_STR(struct scsi_disk, pr_file, "pr_file", 0, "File that keeps persistent reservations which are to outlive the power (APTPL)"),
    PROP_END
};
static const struct prop cd_props[] = { COMMON_PROPS("QEMU CD-ROM"), PROP_END };

bool scsi_text_fits(const char *name, const char *text, size_t most, struct err *e)
{
    return !text || strlen(text) <= most || err_set(e, ERR_VALUE, "%s=%s is longer than %zu characters", name, text, most);
}

static bool disk_check(struct obj *o, struct err *e)
{
    struct scsi_disk *d = (struct scsi_disk *)o;

    return scsi_text_fits("serial", d->serial, 36, e) && scsi_text_fits("vendor", d->vendor, 8, e) && scsi_text_fits("product", d->product, 16, e) &&
           scsi_text_fits("ver", d->version, 4, e) && scsi_text_fits("device_id", d->device_id, 64, e);
}

/* What is common to disks wherever they are plugged: SCSI's own add the address (scsi_dev_class). Options and their check are each bus's. */
const struct dev_class scsi_disk_class = {
    .obj = { .name = "disk-device", .base = &dev_obj_class, .size = sizeof(struct scsi_disk), .flags = OCF_ABSTRACT, .init = scsi_dev_init },
    .state_none = "a base of others",
};
OBJ_CLASS(&scsi_disk_class.obj);

#define DISK_CLASS(cname, text, rows, commands, pdt)                                                                          \
    { .dev = { .obj = { .name = cname, .desc = text, .base = &scsi_dev_class.obj, .size = sizeof(struct scsi_disk), .props = rows, \
                        .check = disk_check },                                                                            \
               .cat = "Storage", .plugs_into = &scsi_bus_class, .realize = disk_realize, .unrealize = disk_unrealize,     \
               .reset = scsi_disk_reset, .co_quiesce = co_disk_quiesce, .state = &scsi_disk_state, .hotplug = true },           \
      .cmds = commands, .type = pdt, .capacity = disk_capacity, .has = scsi_disk_has, .co_ready = co_scsi_disk_ready, .conflict = scsi_lu_conflict, \
      .reset = scsi_disk_to_default, .usage = scsi_disk_usage }

static const struct scsi_dev_class hd_class = DISK_CLASS("scsi-hd", "SCSI disk", hd_props, scsi_hd_cmds, SCSI_TYPE_DISK);
static const struct scsi_dev_class cd_class = DISK_CLASS("scsi-cd", "SCSI CD-ROM drive", cd_props, scsi_cd_cmds, SCSI_TYPE_ROM);
OBJ_CLASS(&hd_class.dev.obj);
OBJ_CLASS(&cd_class.dev.obj);
