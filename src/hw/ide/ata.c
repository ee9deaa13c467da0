/* SPDX-License-Identifier: MIT */
/* ATA commands (ACS-4) as SCSI commands of the unit behind the port; packets (MMC-6) as they are. */
#include <stdlib.h>
#include "hw/ide/ahci.h"

enum {
    ATA_DSM = 0x06, ATA_DEVICE_RESET = 0x08, ATA_READ = 0x20, ATA_READ_EXT = 0x24, ATA_READ_DMA_EXT = 0x25, ATA_READ_MULTIPLE_EXT = 0x29,
    ATA_READ_LOG_EXT = 0x2f, ATA_WRITE = 0x30, ATA_WRITE_EXT = 0x34, ATA_WRITE_DMA_EXT = 0x35, ATA_WRITE_MULTIPLE_EXT = 0x39,
    ATA_WRITE_DMA_FUA_EXT = 0x3d, ATA_VERIFY = 0x40, ATA_VERIFY_EXT = 0x42, ATA_READ_LOG_DMA_EXT = 0x47, ATA_READ_FPDMA = 0x60, ATA_WRITE_FPDMA = 0x61,
    ATA_PACKET = 0xa0, ATA_IDENTIFY_PACKET = 0xa1, ATA_SMART = 0xb0, ATA_READ_MULTIPLE = 0xc4, ATA_WRITE_MULTIPLE = 0xc5, ATA_SET_MULTIPLE = 0xc6,
    ATA_READ_DMA = 0xc8, ATA_WRITE_DMA = 0xca, ATA_STANDBY_NOW = 0xe0, ATA_IDLE_NOW = 0xe1, ATA_STANDBY = 0xe2, ATA_IDLE = 0xe3,
    ATA_CHECK_POWER = 0xe5, ATA_SLEEP = 0xe6, ATA_FLUSH = 0xe7, ATA_FLUSH_EXT = 0xea, ATA_IDENTIFY = 0xec, ATA_SET_FEATURES = 0xef,
};

bool ata_is_ncq(uint8_t op) { return op == ATA_READ_FPDMA || op == ATA_WRITE_FPDMA; }

static void fail(struct ata_cmd *c, uint8_t error)
{
    c->status |= ST_ERR;
    c->error = error;
}

/* Six bytes of an LBA as registers and logs have them: 24 bits, and 24 more behind a byte of other use. */
void ata_put_lba(uint8_t *p, uint64_t lba)
{
    for (unsigned i = 0; i < 3; i++) {
        p[i] = (uint8_t)(lba >> 8 * i);
        p[4 + i] = (uint8_t)(lba >> 8 * (i + 3));
    }
}

void ata_power_on(struct ahci_port *p)
{
    p->smart_off = p->standby = false;
    p->multiple = ATA_MULTIPLE_MAX;
}

/* ---- IDENTIFY DEVICE: ACS-4, 7.13 ---- */

/* Two characters a word, the first in the high byte. */
static void put_text(uint16_t *w, unsigned words, const char *text)
{
    size_t len = strlen(text);

    for (unsigned i = 0; i < words; i++) {
        uint8_t a = 2 * i < len ? (uint8_t)text[2 * i] : ' ', b = 2 * i + 1 < len ? (uint8_t)text[2 * i + 1] : ' ';
        w[i] = (uint16_t)(a << 8 | b);
    }
}

static void put_names(struct scsi_disk *d, uint16_t *w)
{
    put_text(w + 10, 10, d->serial && *d->serial ? d->serial : d->s.dev.obj.id);
    put_text(w + 23, 4, d->version);
    put_text(w + 27, 20, d->product);
    for (unsigned i = 0; d->wwn && i < 4; i++)
        w[108 + i] = (uint16_t)(d->wwn >> 16 * (3 - i));
}

/* ATA/ATAPI-5, 8.12: cylinders, heads and sectors, for whom counts in them; the same by default and at present. */
static void put_geometry(struct scsi_disk *d, uint64_t sectors, uint16_t *w)
{
    uint16_t cyls = (uint16_t)(d->opt.cyls ? d->opt.cyls : MIN(sectors / (16 * 63), 16383u));
    uint16_t heads = (uint16_t)(d->opt.heads ? d->opt.heads : 16), secs = (uint16_t)(d->opt.secs ? d->opt.secs : 63);
    uint32_t n = (uint32_t)cyls * heads * secs;

    w[1] = w[54] = cyls;
    w[3] = w[55] = heads;
    w[6] = w[56] = secs;
    w[57] = (uint16_t)n;
    w[58] = (uint16_t)(n >> 16);
    w[53] |= 1;                         /* words 54 to 58 are valid */
}

static void identify_disk(const struct ata_cmd *c, uint16_t *w)
{
    struct scsi_disk *d = c->d;
    uint64_t n = scsi_disk_blocks(d);
    uint32_t n28 = (uint32_t)MIN(n, 0x0fffffffu), bs = scsi_disk_bs(d);
    unsigned exp = ctz64(d->opt.physical_block_size / bs);
    bool cache = d->caps.flush, trim = d->caps.discard && !scsi_disk_read_only(d);

    w[0] = 0x0040;
    put_names(d, w);
    w[47] = 0x8000 | ATA_MULTIPLE_MAX;
    w[49] = 0x0f00;                     /* LBA, DMA, IORDY */
    w[50] = 0x4000;
    w[53] = 0x0006;
    put_geometry(d, n, w);
    w[59] = c->p->multiple ? 0x0100 | c->p->multiple : 0;
    w[60] = (uint16_t)n28;
    w[61] = (uint16_t)(n28 >> 16);
    w[63] = 0x0007;
    w[64] = 0x0003;
    w[65] = w[66] = w[67] = w[68] = 120;
    w[69] = trim ? 0x4000 : 0;          /* deterministic after trim */
    w[75] = AHCI_SLOTS - 1;
    w[76] = 0x010e;                     /* NCQ; generations 1 to 3 */
    w[80] = 0x07f0;                     /* up to ACS-4 */
    w[82] = w[85] = (uint16_t)(cache ? 0x4021 : 0x4001);           /* SMART */
    w[85] &= (uint16_t)~(c->p->smart_off ? 1 : 0);
    if (cache && !blk_write_cache(d->blk))
        w[85] &= (uint16_t)~0x0020;
    w[83] = w[86] = (uint16_t)(0x4400 | (cache ? 0x3000 : 0));      /* 48 bits, FLUSH and FLUSH EXT */
    w[84] = w[87] = (uint16_t)(0x4023 | 0x0040 | (d->wwn ? 0x0100 : 0));    /* logs of SMART, self-tests, logs, FUA, world wide name */
    w[88] = 0x007f | 0x4000;
    w[93] = 0x0000;
    for (unsigned i = 0; i < 4; i++)
        w[100 + i] = (uint16_t)(n >> 16 * i);
    w[105] = trim ? 8 : 0;              /* blocks of ranges for one DSM */
    w[106] = (uint16_t)(0x4000 | (exp ? 0x2000 | exp : 0) | (bs > 512 ? 0x1000 : 0));
    w[117] = (uint16_t)(bs / 2);
    w[118] = (uint16_t)(bs / 2 >> 16);
    w[169] = trim;
    w[217] = d->rotation_rate ? d->rotation_rate : d->caps.rotational ? 0 : 1;
    w[222] = 0x107f;
}

static void identify_packet(const struct ata_cmd *c, uint16_t *w)
{
    w[0] = 0x8580;                      /* ATAPI, CD, removable, 12-byte packets */
    put_names(c->d, w);
    w[49] = 0x0f00;
    w[53] = 0x0006;
    w[63] = 0x0007;
    w[64] = 0x0003;
    w[65] = w[66] = w[67] = w[68] = 120;
    w[76] = 0x000e;
    w[80] = 0x07f0;
    w[82] = w[85] = 0x4210;             /* NOP, DEVICE RESET, PACKET */
    w[83] = w[86] = 0x4000;
    w[84] = w[87] = 0x4000 | (c->d->wwn ? 0x0100 : 0);
    w[88] = 0x007f | 0x4000;
}

void ata_reply(struct ata_cmd *c, const void *buf, uint32_t n)
{
    c->done = (uint32_t)vec_from_buf(&c->vec, 0, buf, n);
    c->pio_in = true;
}

static void identify(struct ata_cmd *c, void (*fill)(const struct ata_cmd *, uint16_t *))
{
    uint16_t w[256] = { 0 };
    uint8_t sum = 0, b[512];

    fill(c, w);
    for (unsigned i = 0; i < 255; i++) {
        st_le16(b + 2 * i, w[i]);
        sum += (uint8_t)(b[2 * i] + b[2 * i + 1]);
    }
    b[510] = 0xa5;
    b[511] = (uint8_t)-(sum + 0xa5);
    ata_reply(c, b, sizeof b);
}

/* 7.22: log 0, the directory; log 10h, the queued command that failed (and with it, the queue goes on). Each has one page. */
static void read_log(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    uint8_t b[512] = { 0 }, log = c->fis[4];

    if (c->fis[5] || c->fis[9] || ld_le16(c->fis + 12) != 1) {
        fail(c, ER_ABRT);
        return;
    }
    if (log == 0x00) {
        st_le16(b, 1);
        st_le16(b + 2 * 0x10, 1);
    } else if (log == 0x10) {
        b[0] = p->ncq_tag;
        b[2] = ST_ERR | ST_DRDY;
        b[3] = p->ncq_error;
        ata_put_lba(b + 4, p->ncq_lba);
        for (unsigned i = 0; i < 511; i++)
            b[511] -= b[i];
    } else {
        fail(c, ER_ABRT);
        return;
    }
    ata_reply(c, b, sizeof b);
    c->pio_in = c->fis[2] == ATA_READ_LOG_EXT;
}

/* ---- translation ---- */

static uint64_t lba_of(const struct ata_cmd *c, bool ext)
{
    const uint8_t *f = c->fis;
    uint64_t low = f[4] | f[5] << 8 | (uint32_t)f[6] << 16;

    return ext ? low | (uint64_t)f[8] << 24 | (uint64_t)f[9] << 32 | (uint64_t)f[10] << 40 : low | (uint64_t)(f[7] & 0xf) << 24;
}

static uint32_t count_of(uint16_t count, bool ext)
{
    uint32_t n = ext ? count : count & 0xff;

    return n ? n : ext ? 65536 : 256;
}

/* Of sense data of either format: a driver of packets chooses (D_SENSE of the control mode page). */
static uint8_t sense_key(const struct scsi_req *r) { return r->sense[r->sense[0] == 0x72 ? 1 : 2] & 0xf; }

/* What went wrong, in ATA's words, of a disk: its sense data is in descriptors (SPC-5, 4.4.2), of which one has room for any LBA. */
static void outcome(struct ata_cmd *c)
{
    const struct scsi_req *r = &c->r;

    if (r->host == SCSI_HOST_OK && r->status != SCSI_CHECK_CONDITION)
        return;
    uint32_t sense = r->sense_len >= 8 ? (uint32_t)(sense_key(r) << 16 | r->sense[2] << 8 | r->sense[3]) : 0;
    fail(c, sense == SENSE_LBA_OUT_OF_RANGE ? ER_IDNF : sense == SENSE_READ_ERROR ? ER_UNC : ER_ABRT);
    if (r->sense_len >= 20 && !r->sense[8] && r->sense[10] & 0x80)
        c->lba = ld_be64(r->sense + 12);
}

/* Runs c->r.cdb. A unit attention is SCSI's; an ATA disk has none, so it is passed over. */
static void co_run(struct ata_cmd *c, bool to_device)
{
    struct scsi_req *r = &c->r;
    struct scsi_data data = { &c->vec, 0, c->vec.len };

    c->d->s.n_ua = 0;
    c->d->s.desc_sense = true;
    r->out = to_device ? data : (struct scsi_data){ &c->vec, 0, 0 };
    r->in = to_device ? (struct scsi_data){ &c->vec, 0, 0 } : data;
    co_scsi_run(r, &c->d->s);
    c->done = (uint32_t)r->done;
}

static void co_transfer(struct ata_cmd *c, uint8_t scsi_op, uint64_t lba, uint32_t n, bool fua)
{
    uint8_t *cdb = c->r.cdb;
    bool write = scsi_op == OP_WRITE_16;

    c->p->standby = false;
    cdb[0] = scsi_op;
    cdb[1] = fua ? 0x08 : 0;
    st_be64(cdb + 2, lba);
    st_be32(cdb + 10, n);
    if (c->vec.dev_writes == write && scsi_op != OP_VERIFY_16) {        /* the header's W bit says the other way */
        fail(c, ER_ABRT);
        return;
    }
    co_run(c, write);
    outcome(c);
}

/* DATA SET MANAGEMENT, TRIM: ranges of 48-bit LBA and 16-bit length (7.5) as UNMAP. */
static void co_trim(struct ata_cmd *c)
{
    struct scsi_disk *d = c->d;
    uint64_t bs = scsi_disk_bs(d), n = MIN((uint64_t)count_of(ld_le16(c->fis + 12), true) * 64, c->vec.len / 8);

    if (!(c->fis[3] & 1) || !d->caps.discard || scsi_disk_read_only(d) || c->vec.dev_writes) {
        fail(c, ER_ABRT);
        return;
    }
    for (uint64_t i = 0; i < n && !(c->status & ST_ERR); i++) {
        uint8_t e[8];
        uint64_t lba, len;
        vec_to_buf(&c->vec, 8 * i, e, sizeof e);
        lba = ld_le64(e) & 0xffffffffffff;
        len = ld_le64(e) >> 48;
        if (len && (!range_ok(lba, len, scsi_disk_blocks(d)) || co_blk_discard(d->blk, lba * bs, len * bs)))
            fail(c, ER_ABRT);
    }
}

/* Both kinds of device serve any command in standby, which ends it; nobody can tell but by CHECK POWER MODE. */
static bool power_mode(struct ata_cmd *c)
{
    switch (c->fis[2]) {
    case ATA_STANDBY_NOW: case ATA_STANDBY: case ATA_SLEEP: c->p->standby = true; return true;
    case ATA_IDLE_NOW: case ATA_IDLE: c->p->standby = false; return true;
    case ATA_CHECK_POWER: c->count = c->p->standby ? 0x00 : 0xff; return true;
    default: return false;
    }
}

/* SET MULTIPLE MODE: a power of two that IDENTIFY DEVICE allows, or none. */
static void set_multiple(struct ata_cmd *c)
{
    uint8_t n = c->fis[12];

    if (n > ATA_MULTIPLE_MAX || (n && !is_pow2(n)))
        fail(c, ER_ABRT);
    else
        c->p->multiple = n;
}

static void set_features(struct ata_cmd *c)
{
    struct scsi_disk *d = c->d;
    uint8_t what = c->fis[3];

    if ((what == 0x02 || what == 0x82) && !scsi_disk_is_cd(d) && d->caps.flush)
        blk_set_write_cache(d->blk, what == 0x02);
    else if (what != 0x03)              /* transfer mode: all are the same here */
        fail(c, ER_ABRT);
}

/* ---- packets: MMC-6, ACS-4 7.16 ---- */

static void co_packet(struct ata_cmd *c)
{
    struct ahci_port *p = c->p;
    struct scsi_req *r = &c->r;

    p->standby = false;
    memcpy(r->cdb, c->acmd, sizeof c->acmd);
    if (r->cdb[0] == OP_REQUEST_SENSE && p->sense_len) {        /* what the last packet failed with */
        c->done = (uint32_t)vec_from_buf(&c->vec, 0, p->sense, MIN(p->sense_len, r->cdb[4]));
        p->sense_len = 0;
        return;
    }
    r->out = (struct scsi_data){ &c->vec, 0, c->vec.dev_writes ? 0 : c->vec.len };
    r->in = (struct scsi_data){ &c->vec, 0, c->vec.dev_writes ? c->vec.len : 0 };
    co_scsi_run(r, &c->d->s);
    if (c->gen != p->gen)               /* the sense would be told of another drive */
        return;
    c->done = (uint32_t)r->done;
    c->count = 3;                       /* interrupt reason: status */
    p->sense_len = 0;
    if (r->host == SCSI_HOST_OK && r->status != SCSI_CHECK_CONDITION)
        return;
    memcpy(p->sense, r->sense, sizeof p->sense);
    p->sense_len = r->sense_len;
    fail(c, (uint8_t)((r->sense_len ? sense_key(r) : 0xb) << 4 | ER_ABRT));
}

/* Who takes it for a disk learns what it is: the signature of a device of packets. */
static void not_a_disk(struct ata_cmd *c)
{
    fail(c, ER_ABRT);
    c->lba = c->p->sig >> 8;
    c->count = c->p->sig & 0xff;
}

static void co_execute_cd(struct ata_cmd *c)
{
    if (power_mode(c))
        return;
    switch (c->fis[2]) {
    case ATA_PACKET: co_packet(c); break;
    case ATA_IDENTIFY_PACKET: identify(c, identify_packet); break;
    case ATA_SET_FEATURES: set_features(c); break;
    case ATA_DEVICE_RESET: ahci_port_signature(c->p); break;
    case ATA_FLUSH: break;
    case ATA_IDENTIFY: case ATA_READ: not_a_disk(c); break;
    default: fail(c, ER_ABRT); break;
    }
}

/* Commands with an LBA and a count, of 28 and of 48 bits. */
static const struct { uint8_t op, scsi; bool ext, fua; } transfers[] = {
    { ATA_READ, OP_READ_16, false, false }, { ATA_READ_MULTIPLE, OP_READ_16, false, false }, { ATA_READ_DMA, OP_READ_16, false, false },
    { ATA_READ_EXT, OP_READ_16, true, false }, { ATA_READ_MULTIPLE_EXT, OP_READ_16, true, false }, { ATA_READ_DMA_EXT, OP_READ_16, true, false },
    { ATA_WRITE, OP_WRITE_16, false, false }, { ATA_WRITE_MULTIPLE, OP_WRITE_16, false, false }, { ATA_WRITE_DMA, OP_WRITE_16, false, false },
    { ATA_WRITE_EXT, OP_WRITE_16, true, false }, { ATA_WRITE_MULTIPLE_EXT, OP_WRITE_16, true, false }, { ATA_WRITE_DMA_EXT, OP_WRITE_16, true, false },
    { ATA_WRITE_DMA_FUA_EXT, OP_WRITE_16, true, true }, { ATA_VERIFY, OP_VERIFY_16, false, false }, { ATA_VERIFY_EXT, OP_VERIFY_16, true, false },
};

static bool is_multiple(uint8_t op)
{
    return op == ATA_READ_MULTIPLE || op == ATA_READ_MULTIPLE_EXT || op == ATA_WRITE_MULTIPLE || op == ATA_WRITE_MULTIPLE_EXT;
}

static void co_execute_disk(struct ata_cmd *c)
{
    const uint8_t *f = c->fis;

    if (is_multiple(f[2]) && !c->p->multiple) {
        fail(c, ER_ABRT);
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(transfers); i++)
        if (transfers[i].op == f[2]) {
            co_transfer(c, transfers[i].scsi, lba_of(c, transfers[i].ext), count_of(ld_le16(f + 12), transfers[i].ext), transfers[i].fua);
            return;
        }
    power_mode(c);
    switch (f[2]) {
    case ATA_READ_FPDMA: case ATA_WRITE_FPDMA:      /* 7.23: the count is in the features field; FUA is bit 7 of the device field */
        co_transfer(c, f[2] == ATA_READ_FPDMA ? OP_READ_16 : OP_WRITE_16, lba_of(c, true), count_of((uint16_t)(f[3] | f[11] << 8), true), f[7] & 0x80);
        break;
    case ATA_IDENTIFY: identify(c, identify_disk); break;
    case ATA_SMART:
        if (!co_ata_smart(c))
            fail(c, ER_ABRT);
        break;
    case ATA_READ_LOG_EXT: case ATA_READ_LOG_DMA_EXT: read_log(c); break;
    case ATA_DSM: co_trim(c); break;
    case ATA_SET_FEATURES: set_features(c); break;
    case ATA_FLUSH: case ATA_FLUSH_EXT: case ATA_STANDBY_NOW: case ATA_SLEEP:
        c->r.cdb[0] = OP_SYNCHRONIZE_CACHE_10;
        co_run(c, true);
        outcome(c);
        break;
    case ATA_SET_MULTIPLE: set_multiple(c); break;
    case ATA_IDLE_NOW: case ATA_STANDBY: case ATA_IDLE: case ATA_CHECK_POWER: break;
    default: fail(c, ER_ABRT); break;
    }
}

void co_ata_execute(struct ata_cmd *c)
{
    if (scsi_disk_is_cd(c->d))
        co_execute_cd(c);
    else
        co_execute_disk(c);
}
