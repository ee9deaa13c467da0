/* SPDX-License-Identifier: MIT */
/* Get Log Page (5.16). Each page is built whole; the host takes the part that it asked for. */
#include "base/str.h"
#include "hw/nvme/fdp.h"
#include "hw/nvme/firmware.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/maint.h"
#include "hw/nvme/notice.h"
#include "hw/nvme/ocp.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/resv.h"
#include "hw/nvme/thermal.h"
#include "hw/nvme/zns.h"

#define DATA_UNITS 1000u                /* of 512 bytes, in SMART's counts */

uint8_t *nvme_log_room(struct str *s, size_t n)
{
    static const uint8_t zeroes[4096];
    size_t at = s->len;

    for (size_t left = n; left; left -= MIN(left, sizeof zeroes))
        str_addn(s, zeroes, MIN(left, sizeof zeroes));
    return (uint8_t *)s->s + at;
}

/* ---- error information, 5.16.1.2 ---- */

void nvme_log_error(struct nvme_req *r)
{
    struct nvme *n = r->n;
    struct nvme_error *e;

    if ((r->status & 0x700) == 0x300)
        return;                         /* paths are no errors of this controller */
    if (((r->status & NVME_STATUS_MASK) == NVME_READ_FAULT || (r->status & NVME_STATUS_MASK) == NVME_WRITE_FAULT) && r->sq->id)
        nvme_pel_error(n, NVME_HW_MEDIA);
    e = &n->error[n->errors++ % NVME_ERRORS];
    *e = (struct nvme_error){ .count = n->errors, .sqid = r->sq->id, .cid = r->cmd.cid, .status = (uint16_t)(r->status << 1), .location = 0xffff,
                              .nsid = r->cmd.nsid, .opcode = r->cmd.opcode, .lba = r->sq->id ? nvme_slba(&r->cmd) : 0 };
}

static uint16_t log_error(struct nvme_req *r, struct str *s)
{
    const struct nvme *n = r->n;

    for (unsigned i = 0; i < NVME_ERRORS; i++) {
        uint8_t *b = nvme_log_room(s, 64);
        const struct nvme_error *e = &n->error[(n->errors - 1 - i) % NVME_ERRORS];

        if (i >= n->errors)
            continue;
        st_le64(b, e->count);
        st_le16(b + 8, e->sqid);
        st_le16(b + 10, e->cid);
        st_le16(b + 12, e->status);
        st_le16(b + 14, e->location);
        st_le64(b + 16, e->lba);
        st_le32(b + 24, e->nsid);
        b[29] = 0;                      /* TRTYPE: PCI */
        b[32] = e->opcode;
    }
    return NVME_OK;
}

/* ---- health, 5.16.1.3 ---- */

void nvme_smart_page(struct nvme *n, uint8_t *b)
{
    uint64_t rd = 0, wr = 0, mins = (uint64_t)(clock_now(CLOCK_VM) - n->powered_ns) / INT64_C(60000000000);

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = nvme_ns_at(n, i);
        rd += ns ? atomic_load_explicit(&ns->units_read, memory_order_relaxed) : 0;
        wr += ns ? atomic_load_explicit(&ns->units_written, memory_order_relaxed) : 0;
    }
    b[0] = n->critical | n->critical_opt;
    b[3] = 100;                                         /* available spare, its threshold, used */
    b[4] = 10;
    st_le64(b + 32, (rd + DATA_UNITS - 1) / DATA_UNITS);
    st_le64(b + 48, (wr + DATA_UNITS - 1) / DATA_UNITS);
    st_le64(b + 64, n->reads);
    st_le64(b + 80, n->writes);
    st_le64(b + 112, n->power_cycles);
    st_le64(b + 128, mins / 60);
    st_le64(b + 144, n->unsafe_shutdowns);
    st_le64(b + 176, n->errors);
    nvme_thermal_log(n, b);
}

static uint16_t log_smart(struct nvme_req *r, struct str *s)
{
    uint32_t nsid = r->cmd.nsid;

    if (nsid && nsid != UINT32_MAX)                     /* LPA: not by namespace */
        return nvme_ns_at(r->n, nsid) ? NVME_INVALID_FIELD | NVME_DNR : NVME_INVALID_NSID | NVME_DNR;
    nvme_smart_page(r->n, nvme_log_room(s, 512));
    return NVME_OK;
}

/* ---- pages that others build ---- */

static uint16_t log_firmware(struct nvme_req *r, struct str *s)
{
    nvme_fw_log(r->n, nvme_log_room(s, 512));
    return NVME_OK;
}

static uint16_t log_test(struct nvme_req *r, struct str *s)
{
    nvme_test_log(r->n, nvme_log_room(s, 564));
    return NVME_OK;
}

static uint16_t log_reservation(struct nvme_req *r, struct str *s)
{
    nvme_resv_log(r->n, nvme_log_room(s, 64));
    return NVME_OK;
}

static uint16_t log_sanitize(struct nvme_req *r, struct str *s)
{
    nvme_sanitize_log(r->n->ss, nvme_log_room(s, 512));
    return NVME_OK;
}

/* ---- endurance group, 5.16.1.9 ---- */

static uint16_t log_endgrp(struct nvme_req *r, struct str *s)
{
    uint64_t total, unused, rd = 0, wr = 0;
    uint8_t *b;

    if (r->cmd.cdw11 >> 16 != 1)
        return NVME_INVALID_FIELD | NVME_DNR;
    nvme_capacity(r->n->ss, &total, &unused);
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        const struct nvme_ns *ns = nvme_ns_allocated(r->n->ss, i);
        rd += ns ? atomic_load_explicit(&ns->units_read, memory_order_relaxed) : 0;
        wr += ns ? atomic_load_explicit(&ns->units_written, memory_order_relaxed) : 0;
    }
    b = nvme_log_room(s, 512);
    b[0] = nvme_endgrp_warnings(r->n);
    b[3] = 100;
    b[4] = 10;
    st_le64(b + 48, (rd * 512 + 999999999) / 1000000000);       /* in units of 10^9 bytes */
    st_le64(b + 64, (wr * 512 + 999999999) / 1000000000);
    st_le64(b + 80, (wr * 512 + 999999999) / 1000000000);
    st_le64(b + 96, r->n->reads);
    st_le64(b + 112, r->n->writes);
    st_le64(b + 160, total);
    st_le64(b + 176, unused);
    r->n->endgrp_event &= r->cmd.cdw10 >> 15 & 1;       /* read, and not retained */
    return NVME_OK;
}

/* ---- asymmetric access, 5.16.1.12 ---- */

static uint16_t log_ana(struct nvme_req *r, struct str *s)
{
    const struct nvme *n = r->n;
    bool groups_only = r->cmd.cdw10 >> 8 & 1;
    uint8_t *b = nvme_log_room(s, 16);
    unsigned groups = 0;

    for (unsigned g = 1; g <= NVME_ANA_GROUPS; g++) {
        size_t at = s->len;
        uint32_t k = 0;

        nvme_log_room(s, 32);
        for (uint32_t i = 1; i <= NVME_NS_MAX; i++) {
            const struct nvme_ns *ns = nvme_ns_at(n, i);
            if (!ns || ns->anagrp != g || groups_only)
                continue;
            st_le32(nvme_log_room(s, 4), i);
            k++;
        }
        b = (uint8_t *)s->s + at;
        st_le32(b, g);
        st_le32(b + 4, k);
        st_le64(b + 8, n->ana[g].changes);
        b[16] = nvme_ana_state(n, (uint16_t)g);
        groups++;
    }
    st_le64(s->s, n->ana_changes);
    st_le16(s->s + 8, (uint16_t)groups);
    return NVME_OK;
}

/* ---- telemetry, 5.16.1.8: one block of counters in each data area ---- */

static uint16_t log_telemetry(struct nvme_req *r, struct str *s)
{
    struct nvme *n = r->n;
    bool host = (r->cmd.cdw10 & 0xff) == NVME_LOG_TELEMETRY_HOST;
    uint8_t *b;

    if (host && r->cmd.cdw10 >> 8 & 1)
        n->telemetry_gen++;
    b = nvme_log_room(s, 512 * 4);
    b[0] = (uint8_t)r->cmd.cdw10;
    b[5] = 0x54;                                        /* IEEE */
    b[6] = 0x52;
    for (unsigned i = 0; i < 3; i++)
        st_le16(b + 8 + 2 * i, (uint16_t)(i + 1));      /* the last block of areas 1 to 3 */
    b[382] = (uint8_t)(host ? 0 : n->telemetry_gen != 0);
    b[383] = (uint8_t)n->telemetry_gen;
    memcpy(b + 384, "backplane", 9);
    st_le64(b + 512, n->reads);
    st_le64(b + 520, n->writes);
    st_le64(b + 528, n->errors);
    st_le64(b + 1024, n->power_cycles);
    st_le64(b + 1536, n->unsafe_shutdowns);
    if (host && r->cmd.cdw10 >> 8 & 1)
        nvme_pel_add(n, NVME_PEL_TELEMETRY, b, 512);
    return NVME_OK;
}

/* ---- changed namespaces, 5.16.1.5 ---- */

static uint16_t log_changed(struct nvme_req *r, struct str *s)
{
    struct nvme *n = r->n;
    uint8_t *b = nvme_log_room(s, 4096);
    unsigned k = 0;

    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        uint32_t bit = 1u << (i & 31);
        if (atomic_load(&n->changed_ns[i / 32]) & bit) {
            atomic_fetch_and(&n->changed_ns[i / 32], ~bit);
            st_le32(b + 4 * k++, i);
        }
    }
    return NVME_OK;
}

/* ---- what there is: 5.16.1.1, 5.16.1.6, 5.16.1.18 ---- */

static uint16_t log_effects(struct nvme_req *r, struct str *s)
{
    uint8_t csi = (uint8_t)(r->cmd.cdw14 >> 24), *b = nvme_log_room(s, 4096);

    if (csi != NVME_CSI_NVM && csi != NVME_CSI_ZONED && csi != NVME_CSI_KV)
        return NVME_INVALID_FIELD | NVME_DNR;
    for (const struct nvme_op *op = nvme_admin_ops; op->name; op++)
        st_le32(b + 4 * op->opcode, nvme_op_offered(r->n, op) ? 1 | op->effects : 0);
    for (const struct nvme_op *op = csi == NVME_CSI_KV ? nvme_kv_ops : nvme_io_ops; op->name; op++)
        if (csi == NVME_CSI_ZONED || !(op->flags & NVME_OP_ZONED))
            st_le32(b + 1024 + 4 * op->opcode, 1 | op->effects);
    return NVME_OK;
}

static uint16_t log_feature_effects(struct nvme_req *r, struct str *s)
{
    uint8_t *b = nvme_log_room(s, 1024);

    for (unsigned i = 0; i < 256; i++) {
        uint32_t eff = 0;
        if (nvme_feature_effects(r->n, (uint8_t)i, &eff))
            st_le32(b + 4 * i, eff);
    }
    return NVME_OK;
}

static uint16_t log_supported(struct nvme_req *r, struct str *s);

/* Boot partitions are read where the host asks: they are not built whole. */
static uint16_t log_boot(struct nvme_req *r, struct str *s) { return NVME_OK; }

/* @event: type of the events that reading the page lets come again, -1: none. */
static const struct page { uint8_t lid; int event; uint16_t (*fn)(struct nvme_req *, struct str *); } pages[] = {
    { NVME_LOG_SUPPORTED, -1, log_supported }, { NVME_LOG_ERROR, 0, log_error }, { NVME_LOG_SMART, 1, log_smart },
    { NVME_LOG_FIRMWARE, 2, log_firmware }, { NVME_LOG_CHANGED_NS, 2, log_changed }, { NVME_LOG_EFFECTS, -1, log_effects },
    { NVME_LOG_LBA_STATUS, 2, nvme_log_lba_status }, { NVME_LOG_ENDGRP_EVENTS, 2, nvme_log_endgrp_events },
    { NVME_LOG_CHANGED_ZONES, 2, nvme_log_changed_zones },
    { NVME_LOG_FID_EFFECTS, -1, log_feature_effects }, { NVME_LOG_SELF_TEST, -1, log_test }, { NVME_LOG_TELEMETRY_HOST, -1, log_telemetry },
    { NVME_LOG_TELEMETRY_CTRL, 2, log_telemetry }, { NVME_LOG_ENDGRP, 2, log_endgrp }, { NVME_LOG_ANA, 2, log_ana },
    { NVME_LOG_FDP_CONFIGS, -1, nvme_fdp_log }, { NVME_LOG_FDP_RUHU, -1, nvme_fdp_log }, { NVME_LOG_FDP_STATS, -1, nvme_fdp_log },
    { NVME_LOG_FDP_EVENTS, -1, nvme_fdp_log }, { NVME_LOG_RESERVATION, 6, log_reservation }, { NVME_LOG_SANITIZE, 6, log_sanitize },
    { NVME_LOG_PERSISTENT, -1, nvme_pel_log }, { NVME_LOG_OCP_SMART, -1, nvme_ocp_smart_log },
    { NVME_LOG_OCP_RECOVERY, -1, nvme_ocp_recovery_log }, { NVME_LOG_OCP_FIRMWARE, -1, nvme_ocp_firmware_log },
    { NVME_LOG_BOOT, -1, log_boot },
};

static bool offered(const struct nvme *n, uint8_t lid)
{
    switch (lid) {
    case NVME_LOG_FDP_CONFIGS: case NVME_LOG_FDP_RUHU: case NVME_LOG_FDP_STATS: case NVME_LOG_FDP_EVENTS: return n->ss->fdp.there;
    case NVME_LOG_BOOT: return n->boot.blk;
    case NVME_LOG_OCP_SMART: case NVME_LOG_OCP_RECOVERY: case NVME_LOG_OCP_FIRMWARE: return n->ocp;
    default: return true;
    }
}

static uint16_t log_supported(struct nvme_req *r, struct str *s)
{
    uint8_t *b = nvme_log_room(s, 1024);

    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        st_le32(b + 4 * pages[i].lid, offered(r->n, pages[i].lid));
    return NVME_OK;
}

uint16_t co_nvme_get_log(struct nvme_req *r)
{
    const struct nvme_cmd *c = &r->cmd;
    uint64_t off = c->cdw12 | (uint64_t)c->cdw13 << 32, len = ((uint64_t)(c->cdw11 & 0xffff) << 16 | c->cdw10 >> 16) + 1;
    const struct page *p = NULL;
    struct str s = { 0 };
    uint16_t st;

    for (size_t i = 0; i < ARRAY_SIZE(pages) && !p; i++)
        p = pages[i].lid == (c->cdw10 & 0xff) ? &pages[i] : NULL;
    if (!p || !offered(r->n, p->lid))
        return NVME_INVALID_LOG | NVME_DNR;
    len *= 4;
    if (off & 3 || c->cdw14 >> 23 & 1 || len > nvme_max_transfer(r->n))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (p->lid == NVME_LOG_BOOT)
        return co_nvme_boot_log(r, off, len);
    st = p->fn(r, &s);
    if (!st && off > s.len)
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (!st)
        st = nvme_to_host_part(r, s.s, s.len, off, len);
    str_free(&s);
    if (!st && p->event >= 0 && !(c->cdw10 >> 15 & 1))
        nvme_event_unmask(r->n, (uint8_t)p->event);
    return st;
}
