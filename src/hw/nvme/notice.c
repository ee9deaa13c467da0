/* SPDX-License-Identifier: MIT */
#include "hw/nvme/notice.h"

#include "base/str.h"
#include "hw/nvme/media.h"
#include "hw/nvme/zns.h"

/* ---- LBA status (NVM Command Set 4.1.4.2, 4.1.3.4) ---- */

#define REPORT_NS INT64_C(100000000)    /* unit of LSIRI */
#define ACTION_TRACKED 0x11             /* RATYPE: what Get LBA Status with this type tells is all */

static void alert_due(void *arg)
{
    struct nvme *n = arg;

    nvme_event(n, NVME_EV_LBA_STATUS, NVME_LOG_LBA_STATUS);
    n->lba_alerted = clock_now(CLOCK_VM);
}

void nvme_lba_alert(struct nvme_ns *ns)
{
    pthread_mutex_lock(&ns->ss->lock);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++) {
        struct nvme *n = ns->ss->ctrl[i];

        if (n && nvme_ns_at(n, ns->nsid) == ns) {
            atomic_store(&n->lba_alert, true);
            domain_post(&n->events_post);
        }
    }
    pthread_mutex_unlock(&ns->ss->lock);
}

/* An element a namespace with such blocks; returns how many blocks. */
static uint64_t put_element(struct str *s, struct nvme_ns *ns)
{
    size_t at = s->len;
    uint64_t start, end, blocks = 0;
    uint32_t ranges = 0;

    for (uint64_t from = 0; nvme_uncor_next(ns, from, &start, &end); from = end) {
        uint8_t *d;

        if (!ranges++)
            nvme_log_room(s, 16);
        d = nvme_log_room(s, 16);
        end = MIN(end, start + UINT32_MAX);
        st_le64(d, start);
        st_le32(d + 8, (uint32_t)(end - start));
        blocks += end - start;
    }
    if (ranges) {
        st_le32(s->s + at, ns->nsid);
        st_le32(s->s + at + 4, ranges);
        s->s[at + 8] = ACTION_TRACKED;
    }
    return blocks;
}

uint16_t nvme_log_lba_status(struct nvme_req *r, struct str *s)
{
    uint64_t blocks = 0;
    uint32_t elements = 0;

    nvme_log_room(s, 16);
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_at(r->n, i);
        size_t before = s->len;

        blocks += ns ? put_element(s, ns) : 0;
        elements += s->len != before;
    }
    st_le32(s->s, (uint32_t)s->len);
    st_le32(s->s + 4, elements);
    st_le32(s->s + 8, (uint32_t)MIN(blocks, UINT32_MAX));
    st_le16(s->s + 14, (uint16_t)atomic_load(&r->n->ss->uncor_changes));
    return NVME_OK;
}

/* ---- the endurance group's events (5.16.1.15, 5.27.1.20): group 1, the only one ---- */

#define ENDGRP_BITS 0x0du               /* spare, reliability, read-only: the same bits as in the health log */

uint8_t nvme_endgrp_warnings(const struct nvme *n) { return n->critical_opt & ENDGRP_BITS; }

void nvme_endgrp_warned(struct nvme *n)
{
    if (!(nvme_endgrp_warnings(n) & n->feat[NVME_FEAT_ENDGRP_EVENT] >> 16))
        return;
    n->endgrp_event = true;
    nvme_event(n, NVME_EV_ENDGRP, NVME_LOG_ENDGRP_EVENTS);
}

uint16_t nvme_log_endgrp_events(struct nvme_req *r, struct str *s)
{
    uint8_t *b = nvme_log_room(s, r->n->endgrp_event ? 12 : 8);

    if (r->n->endgrp_event) {
        st_le64(b, 1);
        st_le16(b + 8, 1);
    }
    return NVME_OK;
}

uint16_t nvme_endgrp_config_get(struct nvme_req *r, enum nvme_select sel)
{
    if ((r->cmd.cdw11 & 0xffff) != 1)
        return NVME_INVALID_FIELD | NVME_DNR;
    r->result = (nvme_feature_scalar(r->n, NVME_FEAT_ENDGRP_EVENT, sel) & 0xff0000) | 1;
    return NVME_OK;
}

uint16_t co_nvme_endgrp_config_set(struct nvme_req *r, uint32_t v)
{
    return (v & 0xffff) != 1 || v >> 16 & ~ENDGRP_BITS ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;
}

/* ---- all of them ---- */

void nvme_notice_init(struct nvme *n) { timer_init(&n->lba_timer, CLOCK_VM, NULL, n->pci.dev.dom, alert_due, n); }
void nvme_notice_fini(struct nvme *n) { timer_fini(&n->lba_timer); }

void nvme_notice_reset(struct nvme *n)
{
    timer_disarm(&n->lba_timer);
    atomic_store(&n->lba_alert, false);
    n->lba_alerted = INT64_MIN;
    n->endgrp_event = false;
    nvme_zones_seen(n);
}

void nvme_notice_told(struct nvme *n)
{
    int64_t now = clock_now(CLOCK_VM), pause = (n->feat[NVME_FEAT_LBA_STATUS] & 0xffff) * REPORT_NS;

    if (atomic_exchange(&n->lba_alert, false) && !timer_armed(&n->lba_timer)) {
        if (n->lba_alerted == INT64_MIN || now >= n->lba_alerted + pause)
            alert_due(n);
        else
            timer_arm(&n->lba_timer, n->lba_alerted + pause);
    }
    for (uint32_t i = 1; i <= NVME_NS_MAX; i++)
        if (atomic_fetch_and(&n->changed_zones[i / 32], ~(1u << (i & 31))) >> (i & 31) & 1)
            nvme_event_about(n, NVME_EV_ZONES, NVME_LOG_CHANGED_ZONES, i);
}
