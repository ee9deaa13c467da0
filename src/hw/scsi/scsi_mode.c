/* SPDX-License-Identifier: MIT */
/* Mode pages (SPC-5, 7.5; SBC-4, 6.5; MMC-6, 7) and the commands that read and set them (SPC-5, 6.14 to 6.17). */
#include "hw/scsi/scsi_disk.h"

#define BUF_MAX 512u

/* ---- pages: current values, and a mask of the bits that may be changed. Both without the header of two bytes, of subpages four ---- */

static void get_error_recovery(struct scsi_disk *d, uint8_t *p) { p[0] = scsi_disk_is_cd(d) ? 0 : 0x80; /* AWRE */ }

static void get_caching(struct scsi_disk *d, uint8_t *p)
{
    p[0] = blk_write_cache(d->blk) && d->caps.flush ? 0x04 : 0;     /* WCE */
}

static void mask_caching(struct scsi_disk *d, uint8_t *p)
{
    p[0] = d->caps.flush && !scsi_disk_read_only(d) ? 0x04 : 0;
}

static void set_caching(struct scsi_disk *d, const uint8_t *p)
{
    if (d->caps.flush)
        blk_set_write_cache(d->blk, p[0] & 0x04);
}

static void get_control(struct scsi_disk *d, uint8_t *p)
{
    p[0] = (uint8_t)((d->s.desc_sense ? 0x04 : 0) | (d->dpicz ? 0x08 : 0));     /* D_SENSE, DPICZ */
    p[1] = 0x10;                                /* queue algorithm: unrestricted reordering */
    p[3] = d->ato ? 0x80 : 0;                   /* ATO */
    st_be16(p + 6, 0xffff);                     /* busy timeout: unlimited */
}

static void mask_control(struct scsi_disk *d, uint8_t *p)
{
    p[0] = d->protection ? 0x0c : 0x04;
    p[3] = d->protection ? 0x80 : 0;
}

static void set_control(struct scsi_disk *d, const uint8_t *p)
{
    d->s.desc_sense = p[0] & 0x04;
    d->dpicz = p[0] & 0x08;
    d->ato = p[3] & 0x80;
}

/* SPC-5, 7.5.10: timestamps can be set, and what sets them last counts; access states change by themselves, too. */
static void get_control_extension(struct scsi_disk *d, uint8_t *p)
{
    p[0] = (uint8_t)((d->path.lu ? 0x06 : 0) | (d->port_group ? 0x01 : 0));     /* TCMOS, SCSIP; IALUAE */
    p[2] = SCSI_SENSE_MAX;
}

/* SCSI-2, 9.3.3.3 and 9.3.3.6: pages of which SBC has none since, and by which older systems learn a geometry. */
static uint32_t heads(const struct scsi_disk *d) { return d->opt.heads ? d->opt.heads : 16; }
static uint32_t sectors(const struct scsi_disk *d) { return d->opt.secs ? d->opt.secs : 63; }

bool scsi_disk_geometry(const struct scsi_disk *d, uint32_t *n_heads, uint32_t *n_sectors)
{
    *n_heads = heads(d);
    *n_sectors = sectors(d);
    return !d->caps.zoned.size;
}

static void get_format(struct scsi_disk *d, uint8_t *p)
{
    st_be16(p, 1);                              /* tracks of a zone */
    st_be16(p + 8, (uint16_t)sectors(d));
    st_be16(p + 10, (uint16_t)scsi_disk_bs(d));
    st_be16(p + 12, 1);                         /* interleave */
    p[18] = (uint8_t)(0x40 | (d->removable ? 0x20 : 0));        /* HSEC, RMB */
}

static void get_geometry(struct scsi_disk *d, uint8_t *p)
{
    uint64_t cyls = d->opt.cyls ? d->opt.cyls : MIN(MAX(scsi_disk_blocks(d) / (heads(d) * sectors(d)), 1u), 0xffffffu);

    st_be32(p, (uint32_t)cyls << 8 | heads(d));
    st_be16(p + 18, d->rotation_rate > 1 ? d->rotation_rate : 0);
}

static void get_exceptions(struct scsi_disk *d, uint8_t *p) { p[0] = 0x08; /* DEXCPT */ }
static void get_power(struct scsi_disk *d, uint8_t *p) { }

/* MMC-6, 7.8: how long commands of the two groups may take at least, in seconds. */
static void get_timeout(struct scsi_disk *d, uint8_t *p)
{
    st_be16(p + 4, 10);
    st_be16(p + 6, 60);
}

/* MMC-3, 5.5.10, which every driver still reads. */
static void get_capabilities(struct scsi_disk *d, uint8_t *p)
{
    p[0] = 0x1f;                                /* reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R */
    p[2] = 0x70;                                /* multi session, mode 2 forms 1 and 2 */
    p[4] = (uint8_t)(0x29 | (d->locked ? 2 : 0));   /* tray, eject, lock, and its state */
    st_be16(p + 6, 50 * 176);                   /* 50 times the speed of a CD */
    st_be16(p + 8, 2);
    st_be16(p + 10, 2048);
    st_be16(p + 12, 16 * 176);
}

struct mode_page {
    uint8_t page, sub, len;
    bool disk, cd;
    void (*get)(struct scsi_disk *, uint8_t *);
    void (*mask)(struct scsi_disk *, uint8_t *);        /* NULL: nothing can be changed */
    void (*set)(struct scsi_disk *, const uint8_t *);
};
static const struct mode_page pages[] = {
    { MODE_ERROR_RECOVERY, 0, 10, true, true, get_error_recovery, NULL, NULL },
    { MODE_FORMAT, 0, 22, true, false, get_format, NULL, NULL },
    { MODE_GEOMETRY, 0, 22, true, false, get_geometry, NULL, NULL },
    { MODE_CACHING, 0, 18, true, false, get_caching, mask_caching, set_caching },
    { MODE_CONTROL, 0, 10, true, true, get_control, mask_control, set_control },
    { MODE_CONTROL, 1, 28, true, false, get_control_extension, NULL, NULL },
    { MODE_POWER_CONDITION, 0, 10, true, true, get_power, NULL, NULL },
    { MODE_EXCEPTIONS, 0, 10, true, true, get_exceptions, NULL, NULL },
    { MODE_TIMEOUT, 0, 8, false, true, get_timeout, NULL, NULL },
    { MODE_CAPABILITIES, 0, 20, false, true, get_capabilities, NULL, NULL },
};

static bool page_there(const struct scsi_disk *d, const struct mode_page *m)
{
    if ((m->page == MODE_FORMAT || m->page == MODE_GEOMETRY) && d->caps.zoned.size)
        return false;
    return scsi_disk_is_cd(d) ? m->cd : m->disk;
}

/* SPC-5, 7.5.7: the header of a subpage has SPF, and a longer length. */
static unsigned head_of(const struct mode_page *m) { return m->sub ? 4 : 2; }

static const struct mode_page *find_page(const struct scsi_disk *d, uint8_t page, uint8_t sub)
{
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        if (pages[i].page == page && pages[i].sub == sub && page_there(d, &pages[i]))
            return &pages[i];
    return NULL;
}

static unsigned put_page(struct scsi_disk *d, const struct mode_page *m, unsigned control, uint8_t *p)
{
    unsigned head = head_of(m);

    memset(p, 0, head + m->len);
    p[0] = (uint8_t)(m->page | (m->sub ? 0x40 : 0));
    p[1] = m->sub ? m->sub : m->len;
    if (m->sub)
        st_be16(p + 2, m->len);
    if (control != MODE_CHANGEABLE)
        m->get(d, p + head);
    else if (m->mask)
        m->mask(d, p + head);
    if (control == MODE_DEFAULT && m->page == MODE_CACHING)
        p[2] = d->wce_at_reset ? 0x04 : 0;
    if (control == MODE_DEFAULT && m->page == MODE_CONTROL && !m->sub)
        p[2] = p[5] = 0;
    return head + m->len;
}

/* Pages of the request into @p (SPC-5, 6.14.4); 0: it asks for what is not there. */
static unsigned put_pages(struct scsi_disk *d, uint8_t page, uint8_t sub, unsigned control, uint8_t *p)
{
    unsigned n = 0;

    if (page == MODE_ALL && sub && sub != MODE_ALL_SUB)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        if (page_there(d, &pages[i]) && (page == MODE_ALL || pages[i].page == page) && (sub == MODE_ALL_SUB || pages[i].sub == sub))
            n += put_page(d, &pages[i], control, p + n);
    return n;
}

/* SBC-4, 6.5.2: short or long block descriptor. */
static unsigned put_descriptor(struct scsi_disk *d, bool is_long, uint8_t *p)
{
    uint64_t blocks = scsi_disk_blocks(d);

    memset(p, 0, 16);
    if (is_long) {
        st_be64(p, blocks);
        st_be32(p + 12, scsi_disk_bs(d));
        return 16;
    }
    st_be32(p, (uint32_t)MIN(blocks, (uint64_t)UINT32_MAX));
    st_be32(p + 4, scsi_disk_bs(d));
    return 8;
}

void scsi_mode_sense(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    bool ten = r->cdb[0] == OP_MODE_SENSE_10, is_long = ten && r->cdb[1] & 0x10;
    bool no_desc = r->cdb[1] & 0x08 || scsi_disk_is_cd(d);
    unsigned control = r->cdb[2] >> 6, head = ten ? 8 : 4, desc = 0, n;
    uint8_t b[BUF_MAX] = { 0 }, page = r->cdb[2] & 0x3f, sub = r->cdb[3];

    if (control == MODE_SAVED) {
        scsi_fail(r, SENSE_SAVING_NOT_SUPPORTED);
        return;
    }
    if (!no_desc && scsi_disk_has_medium(d))
        desc = put_descriptor(d, is_long, b + head);
    n = put_pages(d, page, sub, control, b + head + desc);
    if (!n) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, sub ? 3 : 2);
        return;
    }
    n += head + desc;
    uint8_t specific = (uint8_t)((scsi_disk_read_only(d) && !scsi_disk_is_cd(d) ? 0x80 : 0) | (d->dpofua && !scsi_disk_is_cd(d) ? 0x10 : 0));
    if (ten) {
        st_be16(b, (uint16_t)(n - 2));
        b[3] = specific;
        b[4] = is_long && desc;
        st_be16(b + 6, (uint16_t)desc);
        scsi_reply(r, b, n, ld_be16(r->cdb + 7));
    } else {
        b[0] = (uint8_t)(n - 1);
        b[2] = specific;
        b[3] = (uint8_t)desc;
        scsi_reply(r, b, n, r->cdb[4]);
    }
}

/* The page at @p may be set: nothing but changeable bits differs. Offsets are for the sense data. */
static bool check_page(struct scsi_req *r, const uint8_t *p, unsigned left, unsigned at)
{
    struct scsi_disk *d = disk_of(r);
    const struct mode_page *m = left >= 2 ? find_page(d, p[0] & 0x3f, p[0] & 0x40 ? p[1] : 0) : NULL;
    uint8_t now[64], mask[64];
    unsigned head;

    if (!m || !m->sub != !(p[0] & 0x40)) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, at);
        return false;
    }
    head = head_of(m);
    if (left < head) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return false;
    }
    if (m->sub ? ld_be16(p + 2) != m->len : p[1] != m->len) {
        scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, at + head / 2);
        return false;
    }
    if (left < head + m->len) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return false;
    }
    put_page(d, m, MODE_CURRENT, now);
    put_page(d, m, MODE_CHANGEABLE, mask);
    for (unsigned i = head; i < head + m->len; i++)
        if ((p[i] ^ now[i]) & ~mask[i]) {
            scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, at + i);
            return false;
        }
    return true;
}

/* Walks the pages from @at: all are checked before any is set. */
static bool walk_pages(struct scsi_req *r, const uint8_t *b, unsigned at, unsigned n, bool set)
{
    while (at < n) {
        const struct mode_page *m;
        if (!set && !check_page(r, b + at, n - at, at))
            return false;
        m = find_page(disk_of(r), b[at] & 0x3f, b[at] & 0x40 ? b[at + 1] : 0);
        if (set && m->set)
            m->set(disk_of(r), b + at + head_of(m));
        at += head_of(m) + m->len;
    }
    return true;
}

void scsi_mode_select(struct scsi_req *r)
{
    bool ten = r->cdb[0] == OP_MODE_SELECT_10;
    unsigned want = ten ? ld_be16(r->cdb + 7) : r->cdb[4], head = ten ? 8 : 4, n, desc;
    uint8_t b[BUF_MAX], own[16];

    if (r->cdb[1] & 1) {                        /* SP */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!want)
        return;
    n = (unsigned)scsi_take(r, 0, b, MIN(want, BUF_MAX));
    if (!(r->cdb[1] & 0x10)) {                  /* PF: not pages of this standard */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    desc = n >= head ? ten ? ld_be16(b + 6) : b[3] : 0;
    if (n < head || want > BUF_MAX || !range_ok(head, desc, n)) {
        scsi_fail(r, SENSE_PARAM_LENGTH);
        return;
    }
    if (desc) {                                 /* the medium cannot be given other blocks */
        unsigned len = put_descriptor(disk_of(r), ten && b[4] & 1, own);
        if (desc != len || memcmp(b + head + len - 4, own + len - 4, 4)) {
            scsi_fail_field(r, SENSE_INVALID_FIELD_PARAM, head);
            return;
        }
    }
    if (walk_pages(r, b, head + desc, n, false))
        walk_pages(r, b, head + desc, n, true);
}
