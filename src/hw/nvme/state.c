/* SPDX-License-Identifier: MIT */
/* Saved state of a controller. Nothing is in flight; commands that werror=stop parked are saved whole and begin again. */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/ctrl_int.h"
#include "hw/nvme/fault.h"
#include "hw/nvme/firmware.h"
#include "hw/nvme/maint.h"
#include "hw/nvme/ocp.h"
#include "hw/nvme/persist.h"
#include "hw/nvme/queue_int.h"
#include "hw/nvme/rpmb.h"
#include "hw/nvme/thermal.h"
#include "hw/nvme/virt.h"

#define SQ(f, ...) STATE_UINT(struct nvme_sq, f, __VA_ARGS__)
#define CQ(f, ...) STATE_UINT(struct nvme_cq, f, __VA_ARGS__)

static const struct state_field sq_fields[] = {
    STATE_SKIP(struct nvme_sq, n, "the owner"), STATE_SKIP(struct nvme_sq, loop, "an option"),
    STATE_SKIP(struct nvme_sq, ring, "mapped again when it is used"), STATE_SKIP(struct nvme_sq, post, "rung again after a load"),
    SQ(tail_db), STATE_SKIP(struct nvme_sq, half, "looked at again"), STATE_SKIP(struct nvme_sq, rung, "rung again after a load"), STATE_BOOL(struct nvme_sq, live),
    STATE_BOOL(struct nvme_sq, deleting), SQ(prio, .max = 3), STATE_SKIP(struct nvme_sq, id, "its place"), SQ(cqid), SQ(size),
    SQ(head),
    SQ(addr), STATE_SKIP(struct nvme_sq, in_flight, "nothing is, but what is parked"),
    STATE_SKIP(struct nvme_sq, reqs, "nothing is in flight"),
    STATE_SKIP(struct nvme_sq, first, "back in the queue when it is saved"), STATE_END
};
static const struct state_desc sq_state = { .name = "nvme-sq", .version = 1, .fields = sq_fields };

static const struct state_field cq_fields[] = {
    STATE_SKIP(struct nvme_cq, n, "the owner"), STATE_SKIP(struct nvme_cq, loop, "an option"),
    STATE_SKIP(struct nvme_cq, ring, "mapped again when it is used"), STATE_SKIP(struct nvme_cq, quiet, "follows from the rest"),
    STATE_SKIP(struct nvme_cq, post, "nothing to tell when quiet"), CQ(head_db),
    STATE_SKIP(struct nvme_cq, rung, "rung again after a load"), STATE_BOOL(struct nvme_cq, live),
    STATE_BOOL(struct nvme_cq, phase),
    STATE_BOOL(struct nvme_cq, irq_on), STATE_BOOL(struct nvme_cq, notify), STATE_BOOL(struct nvme_cq, raised),
    STATE_SKIP(struct nvme_cq, id, "its place"), CQ(vector),
    CQ(size), CQ(head), CQ(tail), CQ(addr), STATE_SKIP(struct nvme_cq, sqs, "counted again"), CQ(held),
    STATE_SKIP(struct nvme_cq, coalesce, "an interrupt that waited is sent after a load"),
    STATE_SKIP(struct nvme_cq, waiting, "saved with the controller"), STATE_END
};
static const struct state_desc cq_state = { .name = "nvme-cq", .version = 1, .fields = cq_fields };

static const struct state_field error_fields[] = {
    STATE_UINT(struct nvme_error, count), STATE_UINT(struct nvme_error, lba), STATE_UINT(struct nvme_error, sqid),
    STATE_UINT(struct nvme_error, cid), STATE_UINT(struct nvme_error, status), STATE_UINT(struct nvme_error, location),
    STATE_UINT(struct nvme_error, nsid), STATE_UINT(struct nvme_error, opcode), STATE_END
};
static const struct state_field note_fields[] = {
    STATE_UINT(struct nvme_resv_note, nsid), STATE_UINT(struct nvme_resv_note, type), STATE_END
};
static const struct state_desc note_state = { .name = "nvme-note", .version = 1, .fields = note_fields };
static const struct state_field result_fields[] = {
    STATE_UINT(struct nvme_test_result, status), STATE_UINT(struct nvme_test_result, nsid),
    STATE_UINT(struct nvme_test_result, hours), STATE_END
};
static const struct state_desc result_state = { .name = "nvme-test-result", .version = 1, .fields = result_fields };
static const struct state_field test_fields[] = {
    STATE_UINT(struct nvme_test, code, .max = 2), STATE_UINT(struct nvme_test, nsid), STATE_UINT(struct nvme_test, n_results),
    STATE_UINT(struct nvme_test, start), STATE_STRUCTS(struct nvme_test, result, &result_state), STATE_END
};
static const struct state_desc test_state = { .name = "nvme-test", .version = 1, .fields = test_fields };
static const struct state_field hmb_fields[] = {
    STATE_UINT(struct nvme_hmb, size), STATE_UINT(struct nvme_hmb, count), STATE_UINT(struct nvme_hmb, list), STATE_END
};
static const struct state_desc hmb_state = { .name = "nvme-hmb", .version = 1, .fields = hmb_fields };

#define CMB(f) STATE_UINT(struct nvme_cmb, f)
static void cmb_save(const void *obj, struct str *out)
{
    const struct ram *ram = ((const struct nvme_cmb *)obj)->ram;

    if (ram)
        str_addn(out, ram->host, ram->size);
}
static bool cmb_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct ram *ram = ((struct nvme_cmb *)obj)->ram;

    if (len != (ram ? ram->size : 0))
        return err_set(e, ERR_VALUE, "nvme: a controller memory buffer of %zu bytes", len);
    if (ram)
        memcpy(ram->host, data, len);
    return true;
}
static const struct state_custom cmb_contents = { cmb_save, cmb_load };
static const struct state_field cmb_fields[] = {
    STATE_SKIP(struct nvme_cmb, cmb, "the host's"), STATE_SKIP(struct nvme_cmb, pmr, "the host's"),
    STATE_SKIP(struct nvme_cmb, pmr_bar, "the host's"),
    STATE_CUSTOM(struct nvme_cmb, ram, &cmb_contents), STATE_SKIP(struct nvme_cmb, size_mb, "an option"),
    STATE_SKIP(struct nvme_cmb, size, "an option"),
    STATE_SKIP(struct nvme_cmb, pmr_size, "an option"), STATE_SKIP(struct nvme_cmb, legacy, "an option"), CMB(msc), CMB(pmrmsc),
    CMB(sts), CMB(pmrctl),
    CMB(pmrsts), STATE_SKIP(struct nvme_cmb, xlate, "the host's"), STATE_SKIP(struct nvme_cmb, xlate_arg, "the host's"), STATE_END
};
static const struct state_desc cmb_state = { .name = "nvme-cmb", .version = 1, .fields = cmb_fields };

static const struct state_desc error_state = { .name = "nvme-error", .version = 1, .fields = error_fields };

/* ---- commands that wait: parked ones, and completions without room ---- */

struct saved_req { struct nvme_cmd cmd; uint64_t result; uint16_t sqid, status; uint32_t done; };

static void put_req(const struct nvme_req *r, bool done, struct str *out)
{
    struct saved_req s = { .cmd = r->cmd, .result = r->result, .sqid = r->sq->id, .status = r->status, .done = done };

    str_addn(out, &s, sizeof s);
}

static void reqs_save(const void *obj, struct str *out)
{
    const struct nvme *n = obj;
    struct nvme_req *r;

    list_for_each(r, &n->parked, link)
        put_req(r, false, out);
    for (unsigned i = 0; i <= n->max_ioqpairs; i++)
        list_for_each(r, &n->cq[i].waiting, link)
            put_req(r, true, out);
}

static bool reqs_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct nvme *n = obj;

    if (len % sizeof(struct saved_req))
        return err_set(e, ERR_VALUE, "nvme: commands of %zu bytes", len);
    for (size_t at = 0; at < len; at += sizeof(struct saved_req)) {
        struct saved_req s;
        struct nvme_req *r;

        memcpy(&s, (const char *)data + at, sizeof s);
        if (s.sqid > n->max_ioqpairs)
            return err_set(e, ERR_VALUE, "nvme: a command of queue %u", s.sqid);
        r = nvme_req_get(&n->sq[s.sqid]);
        r->cmd = s.cmd;
        r->result = s.result;
        r->status = s.status;
        list_del(&r->link);
        list_push(&n->parked, &r->link);                /* sorted out once the queues are loaded */
        r->park = !s.done;
        n->in_flight--;
    }
    return true;
}
static const struct state_custom reqs_custom = { reqs_save, reqs_load };

static bool queues_ok(struct nvme *n, struct err *e)
{
    for (unsigned i = 0; i <= n->max_ioqpairs; i++) {
        struct nvme_sq *sq = &n->sq[i];
        struct nvme_cq *cq = &n->cq[i];

        if (cq->live && (cq->size < 2 || cq->size > 4096 || cq->head >= cq->size || cq->tail >= cq->size || cq->vector >= 2048))
            return err_set(e, ERR_VALUE, "nvme: completion queue %u is not possible", i);
        if (sq->live && (sq->size < 2 || sq->size > 4096 || sq->head >= sq->size || sq->cqid > n->max_ioqpairs ||
                         !n->cq[sq->cqid].live))
            return err_set(e, ERR_VALUE, "nvme: submission queue %u is not possible", i);
    }
    for (unsigned i = 0; i <= n->max_ioqpairs; i++)
        n->cq[i].sqs = 0;
    for (unsigned i = 0; i <= n->max_ioqpairs; i++) {
        n->cq[i].notify |= n->cq[i].held != 0;          /* an interrupt that waited for more */
        if (n->cq[i].live && n->cq[i].notify)
            nvme_cq_kick(&n->cq[i]);
    }
    for (unsigned i = 0; i <= n->max_ioqpairs; i++)
        if (n->sq[i].live)
            n->cq[n->sq[i].cqid].sqs++;
    return true;
}

static void saving(void *obj)
{
    struct nvme *n = obj;

    n->lba_waits = timer_armed(&n->lba_timer);
}

static bool loaded(void *obj, struct err *e)
{
    struct nvme *n = obj;
    struct nvme_req *r;

    if (!queues_ok(n, e))
        return false;
    list_for_each(r, &n->parked, link) {
        if (r->park)
            continue;
        list_del(&r->link);                             /* done: it waits for room in its completion queue */
        list_push(&n->cq[r->sq->cqid].waiting, &r->link);
    }
    for (unsigned i = 0; i <= n->max_ioqpairs; i++)
        nvme_cq_settled(&n->cq[i]);
    nvme_rings_forget(n);
    atomic_store(&n->virt_changed, true);
    if (n->lba_waits)
        atomic_store(&n->lba_alert, true);
    n->n_aer = MIN(n->n_aer, NVME_AER_MAX);
    n->n_events = MIN(n->n_events, NVME_EVENTS_MAX);
    if (n->qpairs > n->max_ioqpairs || n->vectors > n->msix_qsize || !n->vectors)
        return err_set(e, ERR_VALUE, "nvme: more queues or vectors than there are");
    pci_msix_show(&n->pci, n->vectors);
    nvme_test_loaded(n);
    if (n->cmb.pmr_size)
        region_set_enabled(&n->cmb.pmr, n->cmb.pmrctl & 1);
    nvme_keep_alive(n);
    nvme_pin_update(n);
    return true;
}

#define N(f, ...) STATE_UINT(struct nvme, f, __VA_ARGS__)
#define HOST(f) STATE_SKIP(struct nvme, f, "an option or the host's")
#define NEWS(f) STATE_BOOL(struct nvme, f)      /* which another controller left behind: told when the machine goes on */
#define IDLE(f) STATE_SKIP(struct nvme, f, "nothing is in flight when it is saved")
static const struct state_field fields[] = {
    STATE_STRUCT(struct nvme, pci, &pci_dev_state), HOST(opt), HOST(ns_opt), HOST(serial), HOST(subsys_link), HOST(iothread),
    HOST(queue_map_opt), HOST(queue_threads),
    HOST(max_ioqpairs), HOST(aer_max_queued), HOST(msix_qsize), HOST(mdts), HOST(mdts_field), HOST(awun),
    HOST(awupf), HOST(mqes), HOST(num_queues), HOST(ctratt_mem), HOST(critical_opt), HOST(atomic_dn), HOST(model), HOST(fw_rev),
    HOST(aerl), HOST(zasl), HOST(vsl), HOST(dbcs), HOST(ocp), HOST(exclusive_bar), HOST(auto_transition),
    HOST(intel_id),
    HOST(has_cache), STATE_CUSTOM(struct nvme, own_ss, &nvme_own_live), HOST(ss), HOST(bus), HOST(bar), HOST(regs), HOST(doorbells), HOST(msix_table), HOST(msix_pba),
    HOST(own_unit), HOST(state_opt), HOST(features_kept), IDLE(keep_alive), HOST(resume), IDLE(events_post), IDLE(warn_post), IDLE(thermal_post),
    HOST(cntlid), N(vectors, .max = 2048), N(qpairs), STATE_STRUCT(struct nvme, virt, &nvme_virt_state), STATE_BOOL(struct nvme, online), N(times_off),
    STATE_SKIP(struct nvme, virt_changed, "looked at again"), HOST(cap),
    N(asq), N(acq), N(cc), N(csts), N(aqa), N(intms), IDLE(disabling), IDLE(quiesced), IDLE(starved), IDLE(credit), STATE_BOOL(struct nvme, queues_made),
    IDLE(gen),
    IDLE(in_flight), IDLE(drained), IDLE(drained_post), IDLE(waits),
    { .name = "sq", .kind = ST_PTR_STRUCT, .off = offsetof(struct nvme, sq), .size = sizeof(struct nvme_sq),
    .count_off = offsetof(struct nvme, n_queues),
      .max = 65536, .sub = &sq_state },
    { .name = "cq", .kind = ST_PTR_STRUCT, .off = offsetof(struct nvme, cq), .size = sizeof(struct nvme_cq),
    .count_off = offsetof(struct nvme, n_queues),
      .max = 65536, .sub = &cq_state },
    IDLE(free_reqs), STATE_CUSTOM(struct nvme, parked, &reqs_custom), IDLE(n_free), HOST(n_queues), HOST(ns),
    STATE_ARRAY(struct nvme, aer),
    N(n_aer, .max = NVME_AER_MAX), N(n_events, .max = NVME_EVENTS_MAX), N(masked_events), STATE_ARRAY(struct nvme, events),
    STATE_ARRAY(struct nvme, changed_ns), STATE_ARRAY(struct nvme, changed_zones), NEWS(lba_alert), NEWS(lba_waits), IDLE(lba_timer), N(lba_alerted),
    STATE_BOOL(struct nvme, endgrp_event), NEWS(ns_change), NEWS(ana_change), NEWS(nssr), NEWS(resv_event), NEWS(sanitize_event),
    IDLE(background), STATE_ARRAY(struct nvme, feat),
    STATE_ARRAY(struct nvme, feat_saved), STATE_ARRAY(struct nvme, vector_off), STATE_ARRAY(struct nvme, host_id),
    N(timestamp_set), N(timestamp), N(timestamp_origin), STATE_ARRAY(struct nvme, host_behavior), STATE_BYTES(struct nvme, resv_mask),
    STATE_BOOL(struct nvme, host_id_wide),
    STATE_BOOL(struct nvme, clean_shutdown), N(reads), N(writes), N(errors), N(power_cycles),
    N(unsafe_shutdowns),
    N(powered_ns), STATE_STRUCTS(struct nvme, error, &error_state), STATE_STRUCT(struct nvme, thermal, &nvme_thermal_state), N(critical),
    STATE_STRUCTS(struct nvme, resv_note, &note_state), N(resv_notes, .max = NVME_RESV_NOTES), N(resv_count), HOST(ana_option), HOST(ana_groups_opt),
    HOST(ana), N(ana_changes),
    STATE_STRUCT(struct nvme, test, &test_state), IDLE(test_timer), N(shadow_db), N(shadow_ei), HOST(hmb_pages),
    STATE_STRUCT(struct nvme, hmb, &hmb_state), STATE_BYTES(struct nvme, fw_slot), STATE_CUSTOM(struct nvme, fw_buf, &nvme_fw_image), HOST(fw_cap),
    STATE_STRUCT(struct nvme, boot, &nvme_boot_state), STATE_STRUCT(struct nvme, rpmb, &nvme_rpmb_state),
    N(fw_active, .max = NVME_FW_SLOTS), N(fw_next, .max = NVME_FW_SLOTS), N(fw_action, .max = 7),
    STATE_STRUCT(struct nvme, ocp_data, &nvme_ocp_state), HOST(fw_len), N(telemetry_gen),
    STATE_STRUCT(struct nvme, cmb, &cmb_state),
    HOST(legacy_cmb), HOST(pmrdev), HOST(faults_opt), STATE_CUSTOM(struct nvme, faults, &nvme_fault_progress), HOST(n_faults),
    N(fault_hits), HOST(link_option), HOST(timing_opt), HOST(timing), N(timed_commands), N(timed_ns), STATE_END
};
const struct state_desc nvme_state = { .name = "nvme", .version = 1, .fields = fields, .post_load = loaded, .pre_save = saving };
