/* SPDX-License-Identifier: MIT */
/* Identify (5.17; NVM Command Set 4.1.5; Zoned 4.1.5): structures are rows of offset, size and value. */
#include <stdio.h>
#include "base/str.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/maint.h"
#include "hw/nvme/rpmb.h"
#include "block/pi.h"
#include "hw/nvme/thermal.h"
#include "hw/nvme/virt.h"

#define ID_SIZE 4096u

struct id_row { uint16_t off; uint8_t size; uint64_t value; };

static void put_rows(uint8_t *b, const struct id_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        st_le(b + rows[i].off, rows[i].value, rows[i].size);
}

/* ASCII, padded with blanks. */
static void put_text(uint8_t *b, const char *s, size_t n)
{
    memset(b, ' ', n);
    if (s)
        memcpy(b, s, MIN(strlen(s), n));
}

static const struct id_row ctrl_rows[] = {
    { 72, 1, 6 },                       /* RAB: 2^6 commands a burst */
    { 73, 3, 0x525400 },                /* IEEE */
    { 80, 4, NVME_VERSION },
    { 84, 4, 0 }, { 88, 4, 0 },         /* RTD3R, RTD3E */
    { 92, 4, 1u << 8 | 1u << 11 | 1u << 13 | 1u << 14 | 1u << 27 },     /* OAES: namespaces, ANA, LBA status, endurance group, zones */
    { 96, 4, 1u << 0 | 1u << 4 | 1u << 7 | 1u << 9 | 1u << 15 },        /* CTRATT: 128-bit host id, endurance groups, granularity, UUID list, ELBAS */
    { 111, 1, 1 },                      /* CNTRLTYPE: I/O controller */
    { 255, 1, 0 },
    { 258, 1, 3 },                      /* ACL */
    { 260, 1, 1 | NVME_FW_SLOTS << 1 | 1 << 4 },        /* FRMW: the first slot is read-only; no reset needed */
    { 316, 2, 1 }, { 318, 1, 1 },       /* EDSTT: minutes; DSTO: one at a time */
    { 319, 1, 1 },                      /* FWUG: 4 KiB */
    { 328, 4, NVME_SANICAP },
    { 338, 2, 0 }, { 340, 2, 1 },       /* NSETIDMAX, ENDGIDMAX */
    { 342, 1, 10 }, { 343, 1, 0x1f | 1 << 6 },          /* ANATT; ANACAP: all states, groups do not change */
    { 344, 4, NVME_ANA_GROUPS }, { 348, 4, NVME_ANA_GROUPS },
    { 522, 2, 1 },                      /* FUSES: compare and write */
    { 524, 1, 1 << 2 },                 /* FNA: a cryptographic erase is there */
    { 534, 2, 0xf },                    /* OCFS: formats 0 to 3 of Copy */
    { 261, 1, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 },       /* LPA: effects, extended data, telemetry, events, pages */
    { 352, 4, 1 },                      /* PELS: 64 KiB */
    { 262, 1, NVME_ERRORS - 1 },        /* ELPE */
    { 264, 1, 1 },                      /* AVSCC */
    { 266, 2, NVME_TEMP_WARNING }, { 268, 2, NVME_TEMP_CRITICAL },
    { 322, 2, 1 }, { 324, 2, NVME_TMT_MIN }, { 326, 2, NVME_TMT_MAX },          /* HCTMA, MNTMT, MXTMT */
    { 512, 1, 0x66 }, { 513, 1, 0x44 },
    { 516, 4, NVME_NS_MAX },
    { 540, 4, NVME_NS_MAX },            /* MNAN */
    { 536, 4, 1u | 1u << 17 | 1u << 18 },       /* SGLS: data blocks, byte aligned; longer lists than data; MPTR */
};

/* OACS and ONCS tell which commands there are. */
/* Identify: what the controller claims follows from its tables of commands. */
static void caps_of_tables(const struct nvme *n, uint8_t *b)
{
    static const struct { uint8_t opcode, bit; } admin[] = {
        { NVME_ADM_SECURITY_RECV, 0 }, { NVME_ADM_FORMAT, 1 }, { NVME_ADM_FW_COMMIT, 2 }, { NVME_ADM_NS_MGMT, 3 }, { NVME_ADM_SELF_TEST, 4 },
        { NVME_ADM_DIRECTIVE_RECV, 5 }, { NVME_ADM_VIRT_MGMT, 7 }, { NVME_ADM_DBBUF, 8 }, { NVME_ADM_LBA_STATUS, 9 },
    }, io[] = {
        { NVME_IO_COMPARE, 0 }, { NVME_IO_WRITE_UNCOR, 1 }, { NVME_IO_DSM, 2 }, { NVME_IO_WRITE_ZEROES, 3 }, { NVME_IO_RESV_REGISTER, 5 },
        { NVME_IO_VERIFY, 7 }, { NVME_IO_COPY, 8 },
    };
    uint16_t oacs = 0, oncs = 1 << 4 | 1 << 6;          /* saving features; timestamp */

    for (size_t i = 0; i < ARRAY_SIZE(admin); i++)
        oacs |= (uint16_t)(nvme_op_offered(n, nvme_op_find(nvme_admin_ops, admin[i].opcode)) ? 1u << admin[i].bit : 0);
    for (size_t i = 0; i < ARRAY_SIZE(io); i++)
        oncs |= (uint16_t)(nvme_op_find(nvme_io_ops, io[i].opcode) ? 1u << io[i].bit : 0);
    st_le16(b + 256, oacs);
    st_le16(b + 520, oncs);
    st_le16(b + 320, 10);                               /* KAS: units of 100 ms, one second */
}

static void csi_fields(const struct nvme_ns *ns, unsigned formats, uint8_t csi, uint8_t *b)
{
    if (csi == NVME_CSI_ZONED) {
        nvme_zones_identify(ns, formats, b);
        return;
    }
    st_le64(b, ns->sts ? BIT64(ns->sts) - 1 : 0);       /* LBSTM */
    b[8] = ns->pif == PIF_16 ? 0 : 1;              /* PIC: 16-byte tuples may be last */
    for (unsigned i = 0; i < formats; i++)
        st_le32(b + 12 + 4 * i, ns->lbaf[i].ms >= pi_size(ns->pif) ? ns->sts | (uint32_t)ns->pif << 7 : 0);
}

uint8_t nvme_rescap(const struct nvme_ns *ns) { return ns->ss->state_path ? 0xff : 0xfe; }       /* all types, IEKEY; power loss */

static uint16_t identify_ctrl(struct nvme_req *r, uint8_t *b)
{
    const struct nvme *n = r->n;
    uint64_t total, unused;

    put_rows(b, ctrl_rows, ARRAY_SIZE(ctrl_rows));
    st_le16(b, nvme_pci_id(n, 0));                      /* VID, SSVID */
    st_le16(b + 2, nvme_pci_id(n, 0x2c));
    put_text(b + 4, n->serial, 20);
    put_text(b + 24, nvme_model(n), 40);
    st_le16(b + 526, n->awun);
    st_le16(b + 528, n->awupf);
    st_le16(b + 532, n->awun);                          /* ACWU: a fused pair is alone on its blocks */
    memcpy(b + 64, n->fw_slot[n->fw_active], 8);
    b[76] = (uint8_t)((n->ss->own ? 0 : 1 << 1) | (n->pci.pf ? 1 << 2 : 0) | 1 << 3);         /* CMIC: more controllers, VF, ANA */
    b[77] = n->mdts_field;
    st_le16(b + 78, n->cntlid);
    b[259] = n->aerl;
    b[525] = n->has_cache ? 1 | 3 << 1 : 3 << 1;        /* VWC: FFFFFFFFh flushes all */
    snprintf((char *)b + 768, 256, "%s", n->ss->nqn);
    st_le16(b + 2048, 2500);                            /* PSD0: 25 W */
    st_le32(b + 2048 + 4, 16);
    st_le32(b + 2048 + 8, 4);
    caps_of_tables(n, b);
    nvme_capacity(n->ss, &total, &unused);
    st_le64(b + 280, total);
    st_le64(b + 296, unused);
    st_le32(b + 272, n->hmb_pages);
    st_le32(b + 312, nvme_rpmb_support(n));
    b[531] = nvme_protect_states(n);
    st_le32(b + 276, n->hmb_pages / 4);
    if (n->ctratt_mem)
        st_le32(b + 96, ld_le32(b + 96) | 1u << 16);
    if (n->ss->fdp.there)
        st_le32(b + 96, ld_le32(b + 96) | 1u << 19);
    return NVME_OK;
}

/* ---- namespaces ---- */

static void put_lbaf(const struct nvme_ns *ns, unsigned formats, uint8_t *b)
{
    for (unsigned i = 0; i < formats; i++)
        st_le32(b + 128 + 4 * i, ns->lbaf[i].ms | (uint32_t)ns->lbaf[i].ds << 16 | (uint32_t)(ns->lbaf[i].ds >= 12 ? 0 : 1) << 24);
}

/* NVM Command Set 4.1.5.1. */
static void put_ns(const struct nvme_ns *ns, unsigned formats, uint8_t *b)
{
    uint32_t per = MAX(ns->unit->caps.discard_granularity >> ns->shift, 1u);
    uint64_t cap = ns->zones ? nvme_zones_capacity(ns) : ns->nsze;
    const struct id_row rows[] = {
        { 0, 8, ns->nsze }, { 8, 8, cap }, { 16, 8, cap },
        { 24, 1, 1 << 2 | 1 << 4 | ns->atomic.on << 1 },        /* NSFEAT: DULBE, preferred sizes, atomic sizes */
        { 34, 2, ns->atomic.nawun }, { 36, 2, ns->atomic.nawupf }, { 38, 2, ns->atomic.nawun },
        { 40, 2, ns->atomic.nabsn }, { 42, 2, ns->atomic.nabo }, { 44, 2, ns->atomic.nabspf },
        { 25, 1, formats - 1 }, { 26, 1, ns->flbas },
        { 27, 1, 3 }, { 28, 1, 0x1f },                  /* MC: both ways; DPC: all types, first or last */
        { 29, 1, ns->pi | ns->pil << 3 },
        { 30, 1, ns->shared },
        { 33, 1, ns->unit->caps.discard ? 1 | 1 << 3 : 0 },     /* DLFEAT: deallocated blocks read as zeroes */
        { 48, 8, ns->space },
        { 64, 2, MAX(ns->unit->opt->physical_block_size >> ns->shift, 1u) - 1 }, { 66, 2, 0 }, { 68, 2, MIN(per, 65536u) - 1 },
        { 70, 2, MIN(per, 65536u) - 1 },
        { 72, 2, MAX(ns->unit->opt->opt_io_size >> ns->shift, 1u) - 1 },
        { 74, 2, ns->mssrl }, { 76, 4, ns->mcl }, { 80, 1, ns->msrc },
        { 92, 4, ns->anagrp }, { 99, 1, ns->write_protect != 0 }, { 102, 2, 1 },
    };

    put_rows(b, rows, ARRAY_SIZE(rows));
    memcpy(b + 104, ns->nguid, 16);
    st_be64(b + 120, ns->eui64);
    b[31] = nvme_rescap(ns);
    put_lbaf(ns, formats, b);
}

/* The namespace of the command: attached here or, with @allocated, anywhere. NULL with r's status in @st where there is none. */
static struct nvme_ns *find_ns(const struct nvme_req *r, bool allocated, uint16_t *st)
{
    uint32_t nsid = r->cmd.nsid;
    struct nvme_ns *ns = allocated ? nvme_ns_allocated(r->n->ss, nsid) : nvme_ns_at(r->n, nsid);

    *st = !nsid || nsid > NVME_NS_MAX ? NVME_INVALID_NSID | NVME_DNR : NVME_OK;
    return ns;
}

/* An inactive namespace is told as zeroes (5.17.2.1). */
static uint16_t identify_ns(struct nvme_req *r, uint8_t *b)
{
    bool allocated = (r->cmd.cdw10 & 0xff) == 0x11;
    struct nvme_ns *ns;
    uint16_t st;

    if (r->cmd.nsid == UINT32_MAX) {                    /* what all have in common */
        const struct id_row rows[] = { { 24, 1, 1 << 2 | 1 << 4 }, { 25, 1, NVME_FORMATS - 1 }, { 27, 1, 3 }, { 28, 1, 0x1f } };
        struct nvme_ns any = { .n_lbaf = NVME_FORMATS };

        put_rows(b, rows, ARRAY_SIZE(rows));
        nvme_formats(any.lbaf);
        put_lbaf(&any, NVME_FORMATS, b);
        return NVME_OK;
    }
    ns = find_ns(r, allocated, &st);
    if (!st && ns && ns->csi == NVME_CSI_KV)
        return NVME_INVALID_IOCS | NVME_DNR;
    if (!st && ns)
        put_ns(ns, nvme_formats_seen(r->n, ns), b);
    return st;
}

/* 5.17.2.9, NVM Command Set 4.1.5.3: what is the same of every namespace in a format. */
static uint16_t identify_format(struct nvme_req *r, uint8_t *b)
{
    unsigned index = r->cmd.cdw11 & 0xffff;

    if (index >= NVME_FORMATS || r->cmd.cdw11 >> 24 != NVME_CSI_NVM)
        return NVME_INVALID_FIELD | NVME_DNR;
    r->cmd.nsid = UINT32_MAX;
    return (r->cmd.cdw10 & 0xff) == 0x09 ? identify_ns(r, b) : NVME_OK;         /* no storage tags unless an option asks for them */
}

/* ---- lists ---- */

static uint16_t identify_ns_list(struct nvme_req *r, uint8_t *b)
{
    uint8_t cns = (uint8_t)r->cmd.cdw10, csi = (uint8_t)(r->cmd.cdw11 >> 24);
    bool allocated = cns == 0x10 || cns == 0x1a, by_csi = cns == 0x07 || cns == 0x1a;
    unsigned k = 0;

    if (r->cmd.nsid >= 0xfffffffe)
        return NVME_INVALID_NSID | NVME_DNR;
    if (by_csi && csi != NVME_CSI_NVM && csi != NVME_CSI_ZONED && csi != NVME_CSI_KV)
        return NVME_INVALID_FIELD | NVME_DNR;
    for (uint64_t i = (uint64_t)r->cmd.nsid + 1; i <= NVME_NS_MAX && k < ID_SIZE / 4; i++) {
        const struct nvme_ns *ns = allocated ? nvme_ns_allocated(r->n->ss, (uint32_t)i) : nvme_ns_at(r->n, (uint32_t)i);

        if (ns && (!by_csi || ns->csi == csi))
            st_le32(b + 4 * k++, (uint32_t)i);
    }
    return NVME_OK;
}

/* Appends a descriptor of 5.17.2.3. */
static uint8_t *put_desc(uint8_t *p, uint8_t type, uint8_t len, const void *id)
{
    p[0] = type;
    p[1] = len;
    memcpy(p + 4, id, len);
    return p + 4 + len;
}

static uint16_t identify_descs(struct nvme_req *r, uint8_t *b)
{
    static const uint8_t none[16];
    uint16_t st;
    const struct nvme_ns *ns = find_ns(r, false, &st);
    uint8_t eui[8];

    if (st || !ns)
        return st ? st : NVME_INVALID_FIELD | NVME_DNR;
    if (ns->eui64) {
        st_be64(eui, ns->eui64);
        b = put_desc(b, 1, 8, eui);
    }
    if (memcmp(ns->nguid, none, 16))
        b = put_desc(b, 2, 16, ns->nguid);
    if (memcmp(ns->uuid, none, 16))
        b = put_desc(b, 3, 16, ns->uuid);
    put_desc(b, 4, 1, &ns->csi);
    return NVME_OK;
}

static uint16_t identify_ctrl_list(struct nvme_req *r, uint8_t *b)
{
    uint32_t first = r->cmd.cdw10 >> 16;
    bool attached = (r->cmd.cdw10 & 0xff) == 0x12;
    struct nvme_subsys *ss = r->n->ss;
    unsigned k = 0;

    if (attached && (!r->cmd.nsid || r->cmd.nsid > NVME_NS_MAX))
        return NVME_INVALID_NSID | NVME_DNR;
    pthread_mutex_lock(&ss->lock);
    for (unsigned i = first; i < NVME_CTRL_MAX && k < 2047; i++)
        if (ss->ctrl[i] && (!attached || nvme_ns_at(ss->ctrl[i], r->cmd.nsid)))
            st_le16(b + 2 + 2 * k++, (uint16_t)i);
    pthread_mutex_unlock(&ss->lock);
    st_le16(b, (uint16_t)k);
    return NVME_OK;
}

/* ---- command sets ---- */

static uint16_t identify_csi_ns(struct nvme_req *r, uint8_t *b)
{
    uint8_t csi = (uint8_t)(r->cmd.cdw11 >> 24);
    struct nvme_ns *ns;
    uint16_t st;

    if (csi != NVME_CSI_NVM && csi != NVME_CSI_ZONED && csi != NVME_CSI_KV)
        return NVME_INVALID_FIELD | NVME_DNR;
    ns = find_ns(r, (r->cmd.cdw10 & 0xff) == 0x1b, &st);
    if (st || !ns)
        return st;
    if ((csi != NVME_CSI_NVM || ns->kv) && ns->csi != csi)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (ns->kv)
        return co_nvme_kv_identify(ns, b);
    csi_fields(ns, nvme_formats_seen(r->n, ns), csi, b);
    return NVME_OK;
}

static uint16_t identify_csi_ctrl(struct nvme_req *r, uint8_t *b)
{
    uint8_t csi = (uint8_t)(r->cmd.cdw11 >> 24);

    if (csi == NVME_CSI_ZONED) {
        b[0] = r->n->zasl;                              /* Zoned 4.1.5.2 */
        return NVME_OK;
    }
    if (csi == NVME_CSI_KV)
        return NVME_OK;                                 /* Key Value 4.1.5.2: reserved */
    b[0] = r->n->vsl;                                   /* NVM 4.1.5.2; WZSL: no limit */
    return csi == NVME_CSI_NVM ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR;
}

/* 5.17.2.8: what is the same in every command set. */
static uint16_t identify_independent(struct nvme_req *r, uint8_t *b)
{
    uint16_t st;
    const struct nvme_ns *ns = find_ns(r, false, &st);

    if (st || !ns)
        return st ? st : NVME_INVALID_FIELD | NVME_DNR;
    b[0] = 0;
    b[1] = ns->shared;
    b[2] = nvme_rescap(ns);
    st_le32(b + 4, ns->anagrp);
    b[8] = ns->write_protect != 0;
    st_le16(b + 12, 1);                                 /* ENDGID */
    b[14] = 1;                                          /* NSTAT: ready */
    return NVME_OK;
}

static uint16_t identify_iocs(struct nvme_req *r, uint8_t *b)
{
    st_le64(b, BIT64(NVME_CSI_NVM) | BIT64(NVME_CSI_KV) | BIT64(NVME_CSI_ZONED));
    return NVME_OK;
}

static uint16_t identify_endgrp_list(struct nvme_req *r, uint8_t *b)
{
    st_le16(b, (r->cmd.cdw11 & 0xffff) <= 1);
    st_le16(b + 2, (r->cmd.cdw11 & 0xffff) <= 1);
    return NVME_OK;
}

/* 5.17.2.10: the meaning of the vendor specific log page C0h. */
static uint16_t identify_uuids(struct nvme_req *r, uint8_t *b)
{
    static const uint8_t ocp[16] = { 0xc1, 0x94, 0xd5, 0x5b, 0xe0, 0x94, 0x47, 0x94, 0xa2, 0x1d, 0x29, 0x99, 0x8f, 0x56, 0xbe, 0x6f };

    memcpy(b + 32 + 16, ocp, sizeof ocp);               /* entry 1; its header says nothing of an association */
    return NVME_OK;
}

/* Lists of what there is none of: NVM sets, domains (one, number 0, is no domain). */
static uint16_t identify_none(struct nvme_req *r, uint8_t *b) { return NVME_OK; }

static uint16_t identify_granularity(struct nvme_req *r, uint8_t *b)
{
    b[4] = 0;                                           /* one descriptor for all formats */
    st_le64(b + 32, MiB);
    st_le64(b + 40, MiB);
    return NVME_OK;
}

static const struct { uint8_t cns; uint16_t (*fn)(struct nvme_req *, uint8_t *); } structures[] = {
    { 0x00, identify_ns }, { 0x01, identify_ctrl }, { 0x02, identify_ns_list }, { 0x03, identify_descs }, { 0x04, identify_none }, { 0x05, identify_csi_ns },
    { 0x06, identify_csi_ctrl }, { 0x07, identify_ns_list }, { 0x08, identify_independent }, { 0x09, identify_format }, { 0x0a, identify_format }, { 0x10, identify_ns_list },
    { 0x11, identify_ns }, { 0x12, identify_ctrl_list }, { 0x13, identify_ctrl_list }, { 0x14, nvme_virt_primary }, { 0x15, nvme_virt_secondaries },
    { 0x16, identify_granularity }, { 0x17, identify_uuids }, { 0x18, identify_none },
    { 0x19, identify_endgrp_list }, { 0x1a, identify_ns_list }, { 0x1b, identify_csi_ns }, { 0x1c, identify_iocs },
};

uint16_t nvme_identify(struct nvme_req *r)
{
    uint8_t b[ID_SIZE] = { 0 };

    for (size_t i = 0; i < ARRAY_SIZE(structures); i++)
        if (structures[i].cns == (r->cmd.cdw10 & 0xff)) {
            uint16_t st = structures[i].fn(r, b);

            return st ? st : nvme_to_host(r, b, sizeof b);
        }
    return NVME_INVALID_FIELD | NVME_DNR;
}
