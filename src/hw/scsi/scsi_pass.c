/* SPDX-License-Identifier: MIT */
/*
 * `scsi-generic` and `scsi-block`: logical units that are devices of the host. Commands go to them as they are (co_blk_scsi()), but for
 * what is the bus's to say. `scsi-block` reads and writes by block requests, where these go around the host's page cache: else what a
 * command changes would not be seen by reads, and everything is a command.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "hw/scsi/scsi_disk.h"

#define PASS_IOV_MAX 1024u              /* pieces of the guest's memory in one command */
#define SECTOR 512u

struct scsi_pass {
    struct scsi_disk d;                 /* first; of it the address, the handle and the block requests */
    uint32_t io_timeout;
    bool direct;
    uint64_t blocks;                    /* as READ CAPACITY answered last */
    uint32_t block;
};

static struct scsi_pass *pass_of(const struct scsi_req *r) { return (struct scsi_pass *)r->dev; }

/* ---- what came of a command ---- */

/* Host bytes of the kernel (include/scsi/scsi_status.h of Linux): those that are not here are failures. */
static const struct { uint16_t host; uint8_t is; } host_rows[] = {
    { 0x01 /* no connection */, SCSI_HOST_NO_TARGET }, { 0x02 /* bus busy */, SCSI_HOST_BUSY }, { 0x03 /* timed out */, SCSI_HOST_ABORTED },
    { 0x04 /* bad target */, SCSI_HOST_NO_TARGET }, { 0x05 /* aborted */, SCSI_HOST_ABORTED }, { 0x08 /* reset */, SCSI_HOST_RESET },
    { 0x0b /* soft error */, SCSI_HOST_BUSY }, { 0x0c /* immediate retry */, SCSI_HOST_BUSY }, { 0x0d /* to be queued again */, SCSI_HOST_BUSY },
    { 0x0e /* disrupted */, SCSI_HOST_TRANSPORT }, { 0x0f /* failed fast */, SCSI_HOST_TRANSPORT }, { 0x10 /* target failure */, SCSI_HOST_TARGET },
    { 0x11 /* nexus failure */, SCSI_HOST_NEXUS }, { 0x14 /* marginal */, SCSI_HOST_TRANSPORT },
};
/* Host bytes with which the device's own status says more. */
static bool host_is_status(uint16_t host) { return host == 0x10 || host == 0x11 || host == 0x12 || host == 0x13; }

static void host_failed(struct scsi_req *r, enum scsi_host why)
{
    scsi_fail(r, SENSE_COMMAND_ABORTED);
    r->host = why;
}

/* The kernel did not execute it. */
static void refused(struct scsi_req *r, int error)
{
    switch (error) {
    case ENODEV: case ENXIO: host_failed(r, SCSI_HOST_NO_TARGET); return;
    case EAGAIN: case EBUSY: case ENOMEM: host_failed(r, SCSI_HOST_BUSY); return;
    case EPERM: case EACCES: scsi_fail_field(r, SENSE_INVALID_OPCODE, 0); return;       /* the kernel's filter of commands */
    case EINVAL: scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 0); return;
    default: host_failed(r, SCSI_HOST_FAILURE); return;
    }
}

static void outcome(struct scsi_req *r, const struct blk_scsi *c)
{
    enum { DRIVER_SENSE = 0x08, DRIVER_KIND = 0x0f, DRIVER_TIMEOUT = 0x06 };

    r->done = c->done;
    if (c->host_status && !(host_is_status(c->host_status) && c->status)) {
        enum scsi_host is = SCSI_HOST_FAILURE;

        for (size_t i = 0; i < ARRAY_SIZE(host_rows); i++)
            if (host_rows[i].host == c->host_status)
                is = host_rows[i].is;
        host_failed(r, is);
        return;
    }
    if ((c->driver_status & DRIVER_KIND) == DRIVER_TIMEOUT) {
        host_failed(r, SCSI_HOST_ABORTED);
        return;
    }
    if (c->driver_status & DRIVER_KIND & ~DRIVER_SENSE) {
        host_failed(r, SCSI_HOST_FAILURE);
        return;
    }
    r->status = c->status & 0xfe;
    if (c->sense_len) {
        r->sense_len = MIN(c->sense_len, (uint8_t)sizeof r->sense);
        memcpy(r->sense, c->sense, r->sense_len);
        if (!r->status && c->driver_status & DRIVER_SENSE)      /* some drivers of the host leave it out */
            r->status = SCSI_CHECK_CONDITION;
    } else if (r->status == SCSI_CHECK_CONDITION) {
        scsi_fail(r, SENSE_NO_SENSE);
    }
}

/* Bytes of a command block (SPC-5, 4.2.5): by the group of its code; variable length says its own; vendors' are of ten. */
static uint8_t cdb_len(const uint8_t *cdb)
{
    static const uint8_t by_group[] = { 6, 10, 10, 10, 16, 12, 10, 10 };

    if (cdb[0] == 0x7f)
        return (uint8_t)MIN(cdb[7] + 8u, (unsigned)SCSI_CDB_MAX);
    return by_group[cdb[0] >> 5];
}

static void co_run(struct scsi_req *r, struct blk_scsi *c)
{
    struct scsi_pass *p = pass_of(r);
    int e;

    memcpy(c->cdb, r->cdb, SCSI_CDB_MAX);
    c->cdb_len = cdb_len(r->cdb);
    c->timeout = p->io_timeout;
    e = co_blk_scsi(p->d.blk, c);
    if (e)
        refused(r, -e);
    else
        outcome(r, c);
}

/* With the guest's memory as it is. */
static void co_pass(struct scsi_req *r)
{
    const struct scsi_data *data = r->out.len ? &r->out : &r->in;
    struct blk_scsi c = { .to_device = r->out.len != 0, .len = (uint32_t)MIN(data->len, (uint64_t)UINT32_MAX) };
    struct iovec *own = NULL, *iov = NULL;
    unsigned n = 0;

    if (r->pi_in.len || r->pi_out.len) {        /* SG_IO has no room for protection information apart from the data */
        r->host = SCSI_HOST_FAILURE;
        return;
    }
    if (data->len) {
        iov = vec_slice(data->v, data->off, c.len, &n, &own);
        if (!iov || n > PASS_IOV_MAX || data->len > pass_of(r)->d.caps.scsi) {
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 0);
            free(own);
            return;
        }
    }
    c.iov = iov;
    c.niov = n;
    co_run(r, &c);
    free(own);
}

/* An answer that is looked at before the guest gets it, as much as it has room for. */
static unsigned co_pass_to(struct scsi_req *r, uint8_t *buf, size_t n)
{
    struct iovec iov = { buf, MIN(n, r->in.len) };
    struct blk_scsi c = { .iov = &iov, .niov = 1, .len = (uint32_t)iov.iov_len };

    memset(buf, 0, n);
    co_run(r, &c);
    return r->host == SCSI_HOST_OK && r->status == SCSI_GOOD ? c.done : 0;
}

/* ---- answers that are changed on the way ---- */

static uint32_t limit_blocks(const struct scsi_pass *p)
{
    return MAX(p->d.caps.scsi / (p->block ? p->block : SECTOR), 1u);
}

/* SBC-4, 6.6.4: no request that the guest makes by these limits is too long for the host. */
static void patch_limits(const struct scsi_pass *p, uint8_t *b, unsigned n)
{
    uint32_t most = limit_blocks(p);

    if (n < 16)
        return;
    if (!ld_be32(b + 8) || ld_be32(b + 8) > most)
        st_be32(b + 8, most);
    if (ld_be32(b + 12) > most)
        st_be32(b + 12, most);
}

static void patch_characteristics(const struct scsi_pass *p, uint8_t *b, unsigned n)
{
    if (n >= 6 && p->d.rotation_rate)
        st_be16(b + 4, p->d.rotation_rate);
}

static void co_inquiry(struct scsi_req *r)
{
    struct scsi_pass *p = pass_of(r);
    bool vpd = r->cdb[1] & 1;
    uint8_t b[512];
    unsigned n;

    if (!vpd || r->in.len > sizeof b || r->out.len || (r->cdb[2] != VPD_BLOCK_LIMITS && r->cdb[2] != VPD_BLOCK_CHARACTERISTICS)) {
        co_pass(r);
        return;
    }
    n = co_pass_to(r, b, sizeof b);
    if (r->cdb[2] == VPD_BLOCK_LIMITS)
        patch_limits(p, b, n);
    else
        patch_characteristics(p, b, n);
    if (n)
        scsi_reply(r, b, n, n);
}

static void co_read_capacity(struct scsi_req *r)
{
    struct scsi_pass *p = pass_of(r);
    bool sixteen = r->cdb[0] == OP_SERVICE_ACTION_IN_16;
    uint8_t b[32];
    unsigned n;

    if (r->in.len > sizeof b || r->out.len) {
        co_pass(r);
        return;
    }
    n = co_pass_to(r, b, sizeof b);
    if (n >= (sixteen ? 12u : 8u)) {
        uint32_t block = ld_be32(b + (sixteen ? 8 : 4));
        p->block = block && block <= MiB ? block : p->block;
        p->blocks = (sixteen ? ld_be64(b) : ld_be32(b)) + 1u;
    }
    if (n)
        scsi_reply(r, b, n, n);
}

static uint64_t pass_capacity(const struct scsi_dev *s, uint32_t *block)
{
    const struct scsi_pass *p = (const struct scsi_pass *)s;

    *block = p->block ? p->block : SECTOR;
    return p->blocks;
}

/* ---- the command sets: rows of what is not simply passed ---- */

#define BUS_COMMANDS                                                                        \
    { OP_REPORT_LUNS, -1, SCF_NO_UA | SCF_ALWAYS, 12, scsi_report_luns, NULL },             \
    { OP_INQUIRY, -1, SCF_NO_UA | SCF_ALWAYS, 6, co_inquiry, NULL },                        \
    { OP_READ_CAPACITY_10, -1, 0, 10, co_read_capacity, NULL },                             \
    { OP_SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16, 0, 16, co_read_capacity, NULL }

static const struct scsi_cmd generic_cmds[] = { BUS_COMMANDS, { 0 } };
static const struct scsi_cmd block_cmds[] = {
    BUS_COMMANDS,
    { OP_READ_6, -1, SCF_MEDIUM, 6, co_scsi_read, NULL }, { OP_READ_10, -1, SCF_MEDIUM, 10, co_scsi_read, NULL },
    { OP_READ_12, -1, SCF_MEDIUM, 12, co_scsi_read, NULL }, { OP_READ_16, -1, SCF_MEDIUM, 16, co_scsi_read, NULL },
    { OP_WRITE_6, -1, SCF_MEDIUM, 6, co_scsi_write, NULL }, { OP_WRITE_10, -1, SCF_MEDIUM, 10, co_scsi_write, NULL },
    { OP_WRITE_12, -1, SCF_MEDIUM, 12, co_scsi_write, NULL }, { OP_WRITE_16, -1, SCF_MEDIUM, 16, co_scsi_write, NULL },
    { 0 }
};

/* Rows with SCF_MEDIUM are block requests. */
static bool pass_has(const struct scsi_dev *s, const struct scsi_cmd *c)
{
    return !(c->flags & SCF_MEDIUM) || ((const struct scsi_pass *)s)->direct;
}

/* ---- life ---- */

static bool is_generic(const struct scsi_pass *p) { return SCSI_DEV_CLASS(&p->d.s)->cmds == generic_cmds; }

static bool takes_commands(struct scsi_pass *p, struct err *e)
{
    const char *id = p->d.opt.drive->id;

    if (!p->d.caps.scsi) {
        err_set(e, ERR_VALUE, "'%s' is no SCSI device of the host, so that commands cannot be passed to it", id);
        return err_hint(e, "an image is the medium of a scsi-hd or scsi-cd; commands pass through driver=host_device or iscsi, and format=raw above it, only");
    }
    if (is_generic(p) || blk_size(p->d.blk))
        return true;
    err_set(e, ERR_VALUE, "'%s' has no blocks", id);
    return err_hint(e, "/dev/sgN is for scsi-generic; scsi-block takes /dev/sdX or /dev/srN with a medium");
}

static bool pass_realize(struct dev *dev, struct err *e)
{
    struct scsi_pass *p = (struct scsi_pass *)dev;
    struct scsi_disk *d = &p->d;

    d->blk = blk_front_open(&d->opt, &dev->obj, dev->dom, true, e);
    if (!d->blk)
        return false;
    range_claims_init(&d->claims);
    blk_get_caps(d->blk, &d->caps);
    d->max_io_size = SCSI_TRANSFER_MAX;
    p->direct = blk_direct(d->blk);
    p->block = d->opt.logical_block_size;
    if (dev_boot_set(dev, d->opt.bootindex, "", e) && takes_commands(p, e) && scsi_dev_attach(&d->s, e))
        return true;
    scsi_disk_close(d);
    return false;
}

static void pass_unrealize(struct dev *dev) { scsi_disk_close((struct scsi_disk *)dev); }

/* The device of the host keeps what it has; that the bus was reset is told. */
static void pass_reset(struct dev *dev, enum reset_kind k)
{
    struct scsi_dev *s = (struct scsi_dev *)dev;

    s->n_ua = 0;
    scsi_attention(s, SENSE_POWER_ON);
}

static const struct state_field pass_fields[] = {
    STATE_STRUCT(struct scsi_pass, d.s, &scsi_dev_state), STATE_UINT(struct scsi_pass, blocks),
    STATE_UINT(struct scsi_pass, block, .max = MiB), STATE_END
};
static const struct state_desc pass_state = { .name = "scsi-pass", .version = 1, .fields = pass_fields };

#define PASS_PROPS                                                                                                        \
    { .name = "drive", .doc = "Block node of the host's device", .type = PROP_T_LINK, .flags = PF_REQUIRED, .of = &blk_node_class, \
      PROP_OFF(struct scsi_pass, d.opt.drive) },                                                                          \
    PROP_BOOL(struct scsi_pass, d.opt.share_rw, "share-rw", false, "Other users may write the same node"),                \
    PROP_S64(struct scsi_pass, d.opt.bootindex, "bootindex", -1, -1, INT32_MAX, "Place in the boot order; -1: none"),     \
    PROP_U32(struct scsi_pass, io_timeout, "io_timeout", 30, 1, 86400, "Seconds after which the host gives up a command")

static const struct prop generic_props[] = { PASS_PROPS, PROP_END };
static const struct prop block_props[] = {
    PASS_PROPS,
    PROP_ENUM(struct scsi_pass, d.opt.rerror, "rerror", blk_on_error_names, BLK_ERR_AUTO, "What a failed read does; auto: report it to the guest"),
    PROP_ENUM(struct scsi_pass, d.opt.werror, "werror", blk_on_error_names, BLK_ERR_AUTO,
              "What a failed write does; auto: stop the machine when the disk is full, else report it to the guest"),
    PROP_U16(struct scsi_pass, d.rotation_rate, "rotation_rate", 0, 0, 0xfffe, "Turns a minute; 1: a solid state disk; 0: as the device says"),
    PROP_END
};

#define PASS_CLASS(cname, text, rows, commands)                                                                          \
    { .dev = { .obj = { .name = cname, .desc = text, .base = &scsi_dev_class.obj, .size = sizeof(struct scsi_pass), .props = rows }, \
               .cat = "Storage", .plugs_into = &scsi_bus_class, .realize = pass_realize, .unrealize = pass_unrealize,     \
               .reset = pass_reset, .co_quiesce = co_scsi_dev_quiesce, .state = &pass_state, .hotplug = true },           \
      .cmds = commands, .co_other = co_pass, .type = SCSI_TYPE_DISK, .capacity = pass_capacity, .has = pass_has }

static const struct scsi_dev_class generic_class = PASS_CLASS("scsi-generic", "SCSI device of the host (/dev/sgN)", generic_props, generic_cmds);
static const struct scsi_dev_class block_class = PASS_CLASS("scsi-block", "SCSI disk or CD-ROM drive of the host (/dev/sdX, /dev/srN)", block_props,
                                                            block_cmds);
OBJ_CLASS(&generic_class.dev.obj);
OBJ_CLASS(&block_class.dev.obj);
