/* SPDX-License-Identifier: MIT */
/* INQUIRY: standard data (SPC-5, 6.6.2) and vital product data pages (SPC-5, 7.8; SBC-4, 6.6). */
#include <stdio.h>
#include "hw/scsi/scsi_disk.h"

#define PAGE_MAX 512u

/* Left-aligned ASCII, padded with blanks (SPC-5, 4.3.1). */
static void put_text(uint8_t *p, size_t n, const char *text)
{
    memset(p, ' ', n);
    memcpy(p, text, MIN(n, strlen(text)));
}

static void standard_inquiry(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    bool cd = scsi_disk_is_cd(d);
    /* 6.6.2, table 145: SAM-5, SPC-5, SBC-4 or MMC-6, ZBC */
    const uint16_t versions[] = { 0x00a0, 0x05c0, cd ? 0x04e0 : 0x0600, d->s.type == SCSI_TYPE_ZONED ? 0x0620 : 0 };
    uint8_t b[96] = { 0 };

    b[0] = d->s.type;
    b[1] = d->removable ? 0x80 : 0;
    b[2] = 7;
    b[3] = 0x12;                                /* HISUP, response data format 2 */
    b[4] = sizeof b - 5;
    b[5] = (uint8_t)(d->protection | (d->port_group ? 0x30 : 0));       /* PROTECT; TPGS: states change by themselves and as asked for */
    b[7] = 0x02;                                /* CMDQUE */
    put_text(b + 8, 8, d->vendor);
    put_text(b + 16, 16, d->product);
    put_text(b + 32, 4, d->version);
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
        st_be16(b + 58 + 2 * i, versions[i]);
    scsi_reply(r, b, sizeof b, ld_be16(r->cdb + 3));
}

static unsigned vpd_serial(struct scsi_disk *d, uint8_t *p)
{
    unsigned n = (unsigned)MIN(strlen(d->serial ? d->serial : ""), 36u);

    memcpy(p, d->serial ? d->serial : "", n);
    return n;
}

/* One designation descriptor (7.8.6.1). */
static unsigned designator(uint8_t *p, uint8_t code_set, uint8_t type, const void *id, unsigned n)
{
    p[0] = code_set;
    p[1] = type;
    p[3] = (uint8_t)n;
    memcpy(p + 4, id, n);
    return 4 + n;
}

static unsigned vpd_identification(struct scsi_disk *d, uint8_t *p)
{
    const char *id = d->device_id ? d->device_id : d->serial && *d->serial ? d->serial : d->s.dev.obj.id;
    uint8_t naa[8], t10[8 + 64];
    unsigned n = 0, len = (unsigned)MIN(strlen(id), 64u);

    put_text(t10, 8, d->vendor);
    memcpy(t10 + 8, id, len);
    n += designator(p + n, 2, 1, t10, 8 + len);             /* ASCII, T10 vendor ID based */
    if (d->wwn) {
        st_be64(naa, d->wwn);
        n += designator(p + n, 1, 3, naa, sizeof naa);      /* binary, NAA */
    }
    if (d->port_wwn) {
        st_be64(naa, d->port_wwn);
        n += designator(p + n, 0x61, 0x93, naa, sizeof naa);    /* SAS; of the port */
    }
    if (d->port_index) {
        st_be32(naa, d->port_index);
        n += designator(p + n, 0x61, 0x94, naa, 4);         /* relative target port */
    }
    if (d->port_group) {
        st_be32(naa, d->port_group);
        n += designator(p + n, 0x61, 0x95, naa, 4);         /* target port group */
    }
    return n;
}

static unsigned vpd_extended(struct scsi_disk *d, uint8_t *p)
{
    p[0] = d->protection ? 0x3f : 0;            /* byte 4: SPT: types 1 to 3; GRD_CHK, APP_CHK, REF_CHK */
    p[1] = 0x07;                                /* byte 5: HEADSUP, ORDSUP, SIMPSUP */
    p[2] = 0x01;                                /* byte 6: V_SUP, the cache is volatile */
    return 60;
}

/* 7.8.10: each nexus has mode pages of its own. */
static unsigned vpd_mode_policy(struct scsi_disk *d, uint8_t *p)
{
    p[0] = 0x3f;
    p[1] = 0xff;                                /* all pages and subpages */
    p[2] = 0x03;                                /* per I_T nexus */
    return 4;
}

/* In blocks, rounded down; 0 stays "no limit". */
static uint32_t in_blocks(const struct scsi_disk *d, uint64_t bytes)
{
    return (uint32_t)MIN(bytes / scsi_disk_bs(d), (uint64_t)UINT32_MAX);
}

/* SBC-4, 6.6.4 */
static unsigned vpd_limits(struct scsi_disk *d, uint8_t *p)
{
    uint32_t gran = d->opt.discard_granularity == UINT32_MAX ? d->caps.discard_granularity : d->opt.discard_granularity;

    p -= 4;                                     /* offsets as in the standard's table */
    p[4] = 0;                                   /* WSNZ: WRITE SAME of zero blocks goes to the end */
    p[5] = d->caps.zoned.size ? 0 : (uint8_t)MIN(SCSI_CAW_BYTES / scsi_disk_bs(d), 255u);
    st_be16(p + 6, (uint16_t)MIN(d->opt.min_io_size / scsi_disk_bs(d), 0xffffu));
    st_be32(p + 8, in_blocks(d, MIN(d->max_io_size, SCSI_TRANSFER_MAX)));
    st_be32(p + 12, in_blocks(d, d->opt.opt_io_size));
    if (d->caps.discard && !scsi_disk_read_only(d)) {
        st_be32(p + 20, in_blocks(d, d->max_unmap_size));
        st_be32(p + 24, SCSI_UNMAP_DESCRIPTORS);
        st_be32(p + 28, MAX(in_blocks(d, gran), 1u));
    }
    st_be64(p + 36, UINT32_MAX);                /* WRITE SAME */
    return 60;
}

/* SBC-4, 6.6.2 */
static unsigned vpd_characteristics(struct scsi_disk *d, uint8_t *p)
{
    uint16_t rate = d->rotation_rate;

    if (!rate && !d->caps.rotational)
        rate = 1;                               /* non-rotating */
    st_be16(p, rate);
    p[3] = 0x40;                                /* WABEREQ: what a block erase leaves can be read */
    return 60;
}

/* SBC-4, 6.6.7: thin, by UNMAP and both WRITE SAME. */
static unsigned vpd_provisioning(struct scsi_disk *d, uint8_t *p)
{
    p[1] = 0xe0;
    p[2] = 2;
    return 4;
}

/* ZBC, 6.5.2: what is behind a write pointer can be read; how many zones can be open. */
static unsigned vpd_zones(struct scsi_disk *d, uint8_t *p)
{
    p[0] = 0x01;                                /* URSWRZ */
    memset(p + 4, 0xff, 8);                     /* of zones where order is only preferred: not reported */
    st_be32(p + 12, d->caps.zoned.max_open ? d->caps.zoned.max_open : UINT32_MAX);
    return 60;
}

struct vpd_page { uint8_t page; bool disk_only, needs_discard; unsigned (*build)(struct scsi_disk *, uint8_t *); };
static const struct vpd_page pages[] = {
    { VPD_SERIAL, false, false, vpd_serial }, { VPD_IDENTIFICATION, false, false, vpd_identification },
    { VPD_EXTENDED_INQUIRY, false, false, vpd_extended }, { VPD_MODE_POLICY, false, false, vpd_mode_policy }, { VPD_BLOCK_LIMITS, true, false, vpd_limits },
    { VPD_BLOCK_CHARACTERISTICS, true, false, vpd_characteristics }, { VPD_PROVISIONING, true, true, vpd_provisioning },
    { VPD_ZONES, true, false, vpd_zones },
};

static bool has_page(const struct scsi_disk *d, const struct vpd_page *p)
{
    if (p->page == VPD_SERIAL && !(d->serial && *d->serial))
        return false;
    if (p->page == VPD_ZONES && !d->caps.zoned.size)
        return false;
    return !(p->disk_only && scsi_disk_is_cd(d)) && !(p->needs_discard && (!d->caps.discard || scsi_disk_read_only(d)));
}

static unsigned vpd_supported(struct scsi_disk *d, uint8_t *p)
{
    unsigned n = 1;

    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        if (has_page(d, &pages[i]))
            p[n++] = pages[i].page;
    return n;
}

void scsi_inquiry(struct scsi_req *r)
{
    struct scsi_disk *d = disk_of(r);
    uint8_t b[PAGE_MAX] = { 0 }, page = r->cdb[2];
    unsigned n = 0;
    size_t i;

    if (r->cdb[1] & 0x1e) {                     /* the upper three bits were the unit's number once, and drivers still write it */
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 1);
        return;
    }
    if (!(r->cdb[1] & 1)) {
        if (page)
            scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        else
            standard_inquiry(r);
        return;
    }
    for (i = 0; i < ARRAY_SIZE(pages) && !(pages[i].page == page && has_page(d, &pages[i])); i++)
        ;
    if (page == VPD_SUPPORTED)
        n = vpd_supported(d, b + 4);
    else if (i < ARRAY_SIZE(pages))
        n = pages[i].build(d, b + 4);
    else {
        scsi_fail_field(r, SENSE_INVALID_FIELD_CDB, 2);
        return;
    }
    b[0] = d->s.type;
    b[1] = page;
    st_be16(b + 2, (uint16_t)n);
    scsi_reply(r, b, 4 + n, ld_be16(r->cdb + 3));
}
