/* SPDX-License-Identifier: MIT */
/*
 * Get and Set Features (5.15, 5.27). A row says what a feature can; values are scalars unless a row has its own code. Each has a current and
 * a default value, and a saved one where it can be saved: elsewhere that is the default (4.2, Feature Values).
 */
#include "hw/nvme/fdp.h"
#include "hw/nvme/kv.h"
#include "hw/nvme/lbatype.h"
#include "hw/nvme/notice.h"
#include "hw/nvme/ocp.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/resv.h"
#include "hw/nvme/rpmb.h"
#include "hw/nvme/thermal.h"

enum { F_SAVE = 1, F_NS = 2, F_CHANGE = 4 };            /* as Get Features with Select 3 tells them */
#define SEL_CAPS 3u                     /* after those of enum nvme_select */

struct feature {
    uint8_t fid, caps;
    uint32_t def, mask;                                 /* bits of dword 11 that are kept */
    uint16_t (*get)(struct nvme_req *r, enum nvme_select sel);  /* NULL: the scalar */
    uint16_t (*co_set)(struct nvme_req *r, uint32_t v); /* before the scalar is kept; NULL: nothing to check */
};

/* ---- those with code ---- */

static uint16_t co_set_power(struct nvme_req *r, uint32_t v)
{
    return v & 31 ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;        /* one power state, NPSS 0 */
}

static uint16_t co_set_write_cache(struct nvme_req *r, uint32_t v)
{
    return v & 1 ? NVME_OK : co_nvme_flush_all(r->n);
}

/* There is no other number: what the host asks for changes nothing. */
static uint16_t get_queues(struct nvme_req *r, enum nvme_select sel)
{
    r->result = (r->n->qpairs - 1) | (r->n->qpairs - 1) << 16;
    return NVME_OK;
}

static uint16_t co_set_queues(struct nvme_req *r, uint32_t v)
{
    if (r->n->queues_made)
        return NVME_SEQUENCE | NVME_DNR;
    if ((v & 0xffff) == 0xffff || v >> 16 == 0xffff)
        return NVME_INVALID_FIELD | NVME_DNR;
    return get_queues(r, NVME_CURRENT);
}

static uint16_t get_vector(struct nvme_req *r, enum nvme_select sel)
{
    uint32_t iv = r->cmd.cdw11 & 0xffff;

    if (iv >= r->n->vectors)
        return NVME_INVALID_FIELD | NVME_DNR;
    r->result = iv | (sel ? 0 : (r->n->vector_off[iv / 32] >> (iv & 31) & 1) << 16);
    return NVME_OK;
}

static uint16_t co_set_vector(struct nvme_req *r, uint32_t v)
{
    uint32_t iv = v & 0xffff;

    if (iv >= r->n->vectors)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (v >> 16 & 1)
        r->n->vector_off[iv / 32] |= 1u << (iv & 31);
    else
        r->n->vector_off[iv / 32] &= ~(1u << (iv & 31));
    return NVME_OK;
}

static uint16_t get_recovery(struct nvme_req *r, enum nvme_select sel)
{
    const struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    r->result = sel ? 0 : ns->tler | (ns->dulbe ? 1u << 16 : 0);
    return NVME_OK;
}

static uint16_t co_set_recovery(struct nvme_req *r, uint32_t v)
{
    struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);
    bool all = r->cmd.nsid == UINT32_MAX;

    if (!ns && !all)
        return NVME_INVALID_NSID | NVME_DNR;
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *each = nvme_ns_at(r->n, i);
        if (each && (all || each == ns)) {
            each->tler = (uint16_t)v;
            each->dulbe = v >> 16 & 1;
        }
    }
    return NVME_OK;
}

uint64_t nvme_timestamp(const struct nvme *n)
{
    uint64_t ms = (uint64_t)(clock_now(CLOCK_VM) - n->timestamp_set) / 1000000;

    return ((n->timestamp + ms) & (BIT64(48) - 1)) | (uint64_t)n->timestamp_origin << 49;
}

static uint16_t get_timestamp(struct nvme_req *r, enum nvme_select sel)
{
    uint64_t v = sel ? 0 : htole64(nvme_timestamp(r->n));

    return nvme_to_host(r, &v, sizeof v);
}

static uint16_t co_set_timestamp(struct nvme_req *r, uint32_t v)
{
    uint64_t t, event[2];
    uint16_t st = nvme_from_host(r, &t, sizeof t);

    if (st)
        return st;
    event[0] = htole64(nvme_timestamp(r->n));           /* before, and milliseconds since the reset that began to count */
    event[1] = htole64((uint64_t)(clock_now(CLOCK_VM) - r->n->powered_ns) / 1000000);
    nvme_pel_add(r->n, NVME_PEL_TIMESTAMP, event, sizeof event);
    r->n->timestamp = le64toh(t) & (BIT64(48) - 1);
    r->n->timestamp_set = clock_now(CLOCK_VM);
    r->n->timestamp_origin = 1;
    return NVME_OK;
}

static uint16_t co_set_keep_alive(struct nvme_req *r, uint32_t v)
{
    r->n->feat[NVME_FEAT_KEEP_ALIVE] = v;
    nvme_keep_alive(r->n);
    return NVME_OK;
}

static uint16_t get_behavior(struct nvme_req *r, enum nvme_select sel)
{
    uint8_t b[512] = { 0 };

    if (!sel)
        memcpy(b, r->n->host_behavior, sizeof r->n->host_behavior);
    return nvme_to_host(r, b, sizeof b);
}

static uint16_t co_set_behavior(struct nvme_req *r, uint32_t v)
{
    uint8_t b[512];
    uint16_t st = nvme_from_host(r, b, sizeof b);

    if (st)
        return st;
    if (b[NVME_ACRE] > 1 || b[NVME_ETDAS] > 1 || b[NVME_LBAFEE] > 1 || b[NVME_CDFE] & ~0x1f)
        return NVME_INVALID_FIELD | NVME_DNR;
    memcpy(r->n->host_behavior, b, sizeof r->n->host_behavior);
    return NVME_OK;
}

static uint16_t get_host_id(struct nvme_req *r, enum nvme_select sel)
{
    static const uint64_t none[2];

    return nvme_to_host(r, sel ? none : r->n->host_id, r->cmd.cdw11 & 1 ? 16 : 8);
}

static uint16_t co_set_host_id(struct nvme_req *r, uint32_t v)
{
    uint64_t id[2] = { 0 };
    uint16_t st = nvme_from_host(r, id, v & 1 ? 16 : 8);

    if (st)
        return st;
    pthread_mutex_lock(&r->n->ss->lock);                /* others look for the controllers of a host */
    memcpy(r->n->host_id, id, sizeof id);
    r->n->host_id_wide = v & 1;
    pthread_mutex_unlock(&r->n->ss->lock);
    return NVME_OK;
}

/*
 * Namespace Write Protection Config (5.27.1.28, 8.12): protection until the power cycle and for ever cannot be taken back, and are entered
 * only as far as the configuration block of the replay protected memory lets hosts.
 */
static uint16_t get_protect(struct nvme_req *r, enum nvme_select sel)
{
    const struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    r->result = sel ? 0 : ns->write_protect;
    return NVME_OK;
}

static uint16_t co_set_protect(struct nvme_req *r, uint32_t v)
{
    struct nvme_ns *ns = r->ns = nvme_ns_get(r->n, r->cmd.nsid);        /* its drive stays while we wait */

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    if (v > NVME_PROTECT_EVER || (v >= NVME_PROTECT_CYCLE && nvme_protect_states(r->n) == NVME_NWPC_PROTECT))
        return NVME_INVALID_FIELD | NVME_DNR;           /* NWPC */
    if (ns->write_protect >= NVME_PROTECT_CYCLE ? v != ns->write_protect : v >= NVME_PROTECT_CYCLE && !co_nvme_rpmb_protects(r->n, v))
        return NVME_FEATURE_NOT_CHANGEABLE | NVME_DNR;
    if (nvme_stale(r))
        return NVME_ABORT_REQUESTED;
    if (v && co_blk_flush(ns->unit->blk))
        return NVME_WRITE_FAULT;
    ns->write_protect = (uint8_t)v;
    nvme_ns_changed(ns->ss, ns->nsid, r->n);
    nvme_ns_dirty(ns);
    co_nvme_persist_sync(ns->ss);
    return NVME_OK;
}

static uint16_t co_set_profile(struct nvme_req *r, uint32_t v)
{
    return v & 0x1ff ? NVME_IOCS_REJECTED | NVME_DNR : NVME_OK;     /* one combination, 5.27.1.21 */
}

static const struct feature features[] = {
    { NVME_FEAT_ARBITRATION, F_SAVE | F_CHANGE, 7, 0xffffff07, NULL, NULL },
    { NVME_FEAT_POWER, F_SAVE | F_CHANGE, 0, 0xff, NULL, co_set_power },
    { NVME_FEAT_LBA_RANGE, F_NS | F_CHANGE, 0, 0, nvme_lba_types_get, co_nvme_lba_types_set },
    { NVME_FEAT_TEMPERATURE, F_CHANGE, 0, 0, nvme_threshold_get, co_nvme_threshold_set },
    { NVME_FEAT_ERROR_RECOVERY, F_NS | F_CHANGE, 0, 0, get_recovery, co_set_recovery },
    { NVME_FEAT_WRITE_CACHE, F_SAVE | F_CHANGE, 1, 1, NULL, co_set_write_cache },
    { NVME_FEAT_QUEUES, F_CHANGE, 0, 0, get_queues, co_set_queues },
    { NVME_FEAT_COALESCING, F_SAVE | F_CHANGE, 0, 0xffff, NULL, NULL },
    { NVME_FEAT_VECTOR, F_CHANGE, 0, 0, get_vector, co_set_vector },
    { NVME_FEAT_ATOMIC, F_SAVE | F_CHANGE, 0, 1, NULL, NULL },
    { NVME_FEAT_ASYNC, F_SAVE | F_CHANGE, 0, 0x08007fff, NULL, NULL },
    { NVME_FEAT_HMB, F_CHANGE, 0, 1, nvme_hmb_get, co_nvme_hmb_set },
    { NVME_FEAT_TIMESTAMP, F_CHANGE, 0, 0, get_timestamp, co_set_timestamp },
    { NVME_FEAT_KEEP_ALIVE, F_CHANGE, 0, UINT32_MAX, NULL, co_set_keep_alive },
    { NVME_FEAT_THERMAL, F_SAVE | F_CHANGE, 0, UINT32_MAX, NULL, co_nvme_thermal_set },
    { NVME_FEAT_LBA_STATUS, F_SAVE | F_CHANGE, 0, 0xffff, NULL, NULL },
    { NVME_FEAT_HOST_BEHAVIOR, F_CHANGE, 0, 0, get_behavior, co_set_behavior },
    { NVME_FEAT_SANITIZE, F_SAVE | F_CHANGE, 0, 1, NULL, NULL },
    { NVME_FEAT_ENDGRP_EVENT, F_SAVE | F_CHANGE, 1, 0xffffff, nvme_endgrp_config_get, co_nvme_endgrp_config_set },
    { NVME_FEAT_IOCS_PROFILE, F_CHANGE, 0, 0x1ff, NULL, co_set_profile },
    { NVME_FEAT_SW_PROGRESS, F_SAVE | F_CHANGE, 0, 0xff, NULL, NULL },
    { NVME_FEAT_HOST_ID, F_CHANGE, 0, 0, get_host_id, co_set_host_id },
    { NVME_FEAT_FDP, F_CHANGE, 0, 0, nvme_fdp_get, co_nvme_fdp_set },
    { NVME_FEAT_FDP_EVENTS, F_NS | F_CHANGE, 0, 0, nvme_fdp_events_get, co_nvme_fdp_events_set },
    { NVME_FEAT_KV_CONFIG, F_NS | F_CHANGE, 0, 0, nvme_kv_config_get, co_nvme_kv_config_set },
    { NVME_FEAT_RESV_NOTIFY, F_NS | F_CHANGE, 0, 0, nvme_resv_mask_get, co_nvme_resv_mask_set },
    { NVME_FEAT_RESV_PERSIST, F_NS | F_CHANGE, 0, 0, nvme_resv_persist_get, co_nvme_resv_persist_set },
    { NVME_FEAT_WRITE_PROTECT, F_NS | F_CHANGE, 0, 0, get_protect, co_set_protect },
    { NVME_FEAT_OCP_CLEAR_HISTORY, F_CHANGE, 0, 0, NULL, co_nvme_ocp_clear_history },
    { NVME_FEAT_OCP_CLEAR_BUS_ERRORS, F_CHANGE, 0, 0, NULL, co_nvme_ocp_clear_bus_errors },
};

static uint32_t default_of(const struct nvme *n, const struct feature *f) { return f->fid == NVME_FEAT_ATOMIC ? n->atomic_dn : f->def; }

/* What Identify says of the same (VWC, HMPRE, CTRATT). */
static bool offered(const struct nvme *n, uint8_t fid)
{
    switch (fid) {
    case NVME_FEAT_WRITE_CACHE: return n->has_cache;
    case NVME_FEAT_HMB: return n->hmb_pages;
    case NVME_FEAT_FDP: case NVME_FEAT_FDP_EVENTS: return n->ss->fdp.there;
    case NVME_FEAT_OCP_CLEAR_HISTORY: case NVME_FEAT_OCP_CLEAR_BUS_ERRORS: return n->ocp;
    default: return true;
    }
}

/* NULL: this controller does not have it. */
static const struct feature *find(const struct nvme *n, uint8_t fid)
{
    for (size_t i = 0; i < ARRAY_SIZE(features); i++)
        if (features[i].fid == fid)
            return offered(n, fid) ? &features[i] : NULL;
    return NULL;
}

bool nvme_feature_effects(const struct nvme *n, uint8_t fid, uint32_t *effects)
{
    const struct feature *f = find(n, fid);

    if (f)
        *effects = 1 | (f->caps & F_NS ? 1u << 20 : 1u << 21);      /* 5.16.1.18: supported; scope */
    return f;
}

uint32_t nvme_feature_scalar(const struct nvme *n, uint8_t fid, enum nvme_select sel)
{
    const struct feature *f = find(n, fid);

    switch (sel) {
    case NVME_DEFAULT: return f ? default_of(n, f) : 0;
    case NVME_SAVED: return n->feat_saved[fid];
    default: return n->feat[fid];
    }
}

uint16_t co_nvme_get_feature(struct nvme_req *r)
{
    const struct feature *f = find(r->n, (uint8_t)r->cmd.cdw10);
    unsigned sel = r->cmd.cdw10 >> 8 & 7;

    if (!f || sel > SEL_CAPS)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (sel == SEL_CAPS) {
        r->result = f->caps;
        return NVME_OK;
    }
    if (sel == NVME_SAVED && !(f->caps & F_SAVE))
        sel = NVME_DEFAULT;
    if (f->get)
        return f->get(r, sel);
    r->result = nvme_feature_scalar(r->n, f->fid, sel);
    return NVME_OK;
}

/* Bytes that come with Set Features. */
static uint16_t data_size(uint8_t fid, uint32_t v)
{
    switch (fid) {
    case NVME_FEAT_LBA_RANGE: return (uint16_t)(((v & 63) + 1) * 64);
    case NVME_FEAT_HOST_BEHAVIOR: return 512;
    case NVME_FEAT_HOST_ID: return v & 1 ? 16 : 8;
    case NVME_FEAT_FDP_EVENTS: return v >> 16 & 0xff;
    default: return 0;
    }
}

/* Event 0Bh: the dwords of the command that mean something, and the data. */
static void feature_event(struct nvme_req *r)
{
    uint8_t fid = (uint8_t)r->cmd.cdw10, b[NVME_PAGE];
    uint16_t len = data_size(fid, r->cmd.cdw11);

    if (len && nvme_from_host(r, b, len))
        len = 0;
    nvme_pel_feature(r, fid == NVME_FEAT_HMB ? 6 : fid == NVME_FEAT_FDP || fid == NVME_FEAT_FDP_EVENTS ? 3 : 2, b, len);
}

uint16_t co_nvme_set_feature(struct nvme_req *r)
{
    const struct feature *f = find(r->n, (uint8_t)r->cmd.cdw10);
    bool save = r->cmd.cdw10 >> 31;
    uint32_t nsid = r->cmd.nsid, v = r->cmd.cdw11;
    uint16_t st;

    if (!f)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (save && !(f->caps & F_SAVE))
        return NVME_FEATURE_NOT_SAVEABLE | NVME_DNR;
    if (!(f->caps & F_NS) && nsid && nsid != UINT32_MAX)
        return nsid > NVME_NS_MAX ? NVME_INVALID_NSID | NVME_DNR : NVME_FEATURE_NOT_NS | NVME_DNR;
    st = f->co_set ? f->co_set(r, v) : NVME_OK;
    if (st || nvme_stale(r))
        return st;
    r->n->feat[f->fid] = v & f->mask;
    if (f->fid != NVME_FEAT_TIMESTAMP)
        feature_event(r);
    if (save) {
        pthread_mutex_lock(&r->n->ss->lock);            /* the state file is written by another thread */
        r->n->feat_saved[f->fid] = v & f->mask;
        pthread_mutex_unlock(&r->n->ss->lock);
        nvme_state_dirty(r->n->ss);
        co_nvme_persist_sync(r->n->ss);                 /* saved is what a power loss does not take */
    }
    return NVME_OK;
}

void nvme_ns_features_reset(struct nvme_subsys *ss)
{
    for (unsigned i = 1; i <= NVME_NS_MAX; i++) {
        struct nvme_ns *ns = nvme_ns_allocated(ss, i);

        if (!ns)
            continue;
        ns->tler = 0;
        ns->dulbe = ns->kv_error_on_delete = false;
    }
}

static bool only_controller(const struct nvme *n)
{
    bool only = true;

    pthread_mutex_lock(&n->ss->lock);
    for (unsigned i = 0; i < NVME_CTRL_MAX; i++)
        only &= !n->ss->ctrl[i] || n->ss->ctrl[i] == n;
    pthread_mutex_unlock(&n->ss->lock);
    return only;
}

void nvme_features_reset(struct nvme *n, bool first)
{
    nvme_thermal_reset(n);
    if (only_controller(n))
        nvme_ns_features_reset(n->ss);
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];

        if (first)
            n->feat_saved[f->fid] = default_of(n, f);
        n->feat[f->fid] = f->caps & F_SAVE ? n->feat_saved[f->fid] : default_of(n, f);
    }
    memset(n->vector_off, 0, sizeof n->vector_off);
    memset(n->host_id, 0, sizeof n->host_id);
    memset(n->host_behavior, 0, sizeof n->host_behavior);
    memset(n->resv_mask, 0, sizeof n->resv_mask);
}
