/* SPDX-License-Identifier: MIT */
/* What is changed while the machine runs (qom-set): access states, warnings, faults, the link, how long commands take. */
#include <stdio.h>
#include "hw/nvme/ctrl_int.h"
#include "hw/nvme/fault.h"
#include "hw/nvme/notice.h"
#include "hw/nvme/pel.h"
#include "hw/nvme/thermal.h"
#include "hw/nvme/timing.h"

/* By enum nvme_ana, but the last. */
static const char *const ana_names[] = { "optimized", "non-optimized", "inaccessible", "persistent-loss", "change", NULL };

static uint8_t ana_of(int name) { return (uint8_t)(name == 4 ? NVME_ANA_STATE_CHANGE : name + 1); }

/* What the option ana-groups says of group @g; -1: nothing, -2: nothing that is known. */
static int ana_said(const struct nvme *n, unsigned g)
{
    char key[12];
    json_t *v;

    snprintf(key, sizeof key, "group%u", g);
    v = json_object_get(n->ana_groups_opt, key);
    for (int i = 0; v && ana_names[i]; i++)
        if (json_is_string(v) && !strcmp(json_string_value(v), ana_names[i]))
            return i;
    return v ? -2 : -1;
}

void nvme_ana_apply(void *arg)
{
    struct nvme *n = arg;
    bool any = false;

    for (unsigned g = 1; g <= NVME_ANA_GROUPS; g++) {
        int said = ana_said(n, g);
        uint8_t state = ana_of(said >= 0 ? said : n->ana_option);

        if (state == n->ana[g].state)
            continue;
        n->ana[g].changes += n->pci.dev.realized;
        any |= n->pci.dev.realized;
        n->ana[g].state = state;
    }
    n->ana_changes += any;
    if (any)                            /* what has not been told yet is, in any case */
        atomic_store(&n->ana_change, true);
}

static bool ana_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct nvme *n = (struct nvme *)o;
    size_t known = 0;

    if (n->ana_groups_opt && !json_is_object(n->ana_groups_opt))
        return err_set(e, ERR_VALUE, "ana-groups must be an object, as in ana-groups.group2=inaccessible");
    for (unsigned g = 1; g <= NVME_ANA_GROUPS; g++) {
        if (ana_said(n, g) == -2)
            return err_set(e, ERR_VALUE, "ana-groups.group%u is no state; there are optimized, non-optimized, inaccessible, persistent-loss, change", g);
        known += ana_said(n, g) >= 0;
    }
    if (known != json_object_size(n->ana_groups_opt))
        return err_set(e, ERR_VALUE, "ana-groups: the groups are group1 to group%u", NVME_ANA_GROUPS);
    if (!n->pci.dev.realized) {
        nvme_ana_apply(n);
        return true;
    }
    domain_call(n->pci.dev.dom, nvme_ana_apply, n);
    domain_post(&n->events_post);
    return true;
}

/* Critical warnings that were not there before are events (5.2.1, type 1). */
void nvme_warned(void *arg)
{
    static const uint16_t events[] = { NVME_EV_SPARE, NVME_EV_TEMPERATURE, NVME_EV_RELIABILITY, NVME_EV_RELIABILITY, NVME_EV_RELIABILITY,
                                       NVME_EV_RELIABILITY };
    struct nvme *n = arg;

    nvme_endgrp_warned(n);
    if (n->critical_opt) {
        nvme_pel_error(n, NVME_HW_WARNING);
        nvme_pel_health(n);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(events); i++)
        if (n->critical_opt >> i & 1)
            nvme_event(n, events[i], NVME_LOG_SMART);
}

static bool critical_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct nvme *n = (struct nvme *)o;

    if (n->pci.dev.realized)
        domain_post(&n->warn_post);
    return true;
}

static bool temperature_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct nvme *n = (struct nvme *)o;

    if (n->pci.dev.realized)
        domain_post(&n->thermal_post);
    return true;
}

static bool faults_changed(struct obj *o, const struct prop *p, struct err *e)
{
    return nvme_faults_set((struct nvme *)o, ((struct nvme *)o)->faults_opt, e);
}

static bool link_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct nvme *n = (struct nvme *)o;

    if (n->pci.dev.realized)
        nvme_link_apply(n);
    else if (n->link_option)
        return err_set(e, ERR_STATE, "link is for a controller that is there: qom-set it once the machine runs");
    return true;
}

static bool timing_changed(struct obj *o, const struct prop *p, struct err *e)
{
    return nvme_timing_set((struct nvme *)o, ((struct nvme *)o)->timing_opt, e);
}

const struct prop nvme_runtime_props[] = {
    { .name = "ana-state", .doc = "How the controller reaches the namespaces (asymmetric access state of its groups)", .type = PROP_T_ENUM,
      PROP_OFF(struct nvme, ana_option), .of = ana_names, .flags = PF_RUNTIME, .changed = ana_changed },
    { .name = "ana-groups", .doc = "The same of single groups: ana-groups.groupN=STATE", .type = PROP_T_JSON,
      PROP_OFF(struct nvme, ana_groups_opt), .flags = PF_RUNTIME, .changed = ana_changed },
    { .name = "smart_critical_warning", .doc = "Bits of the health log's critical warning that are set; new ones are events", .type = PROP_T_U8,
      PROP_OFF(struct nvme, critical_opt), .max = 0x3f, .flags = PF_RUNTIME, .changed = critical_changed },
    { .name = "temperature", .doc = "The composite temperature, kelvin", .type = PROP_T_U16, PROP_OFF(struct nvme, thermal.option),
      .def = NVME_TEMP_DEFAULT, .max = 1000, .flags = PF_RUNTIME, .changed = temperature_changed },
    { .name = "faults", .doc = "Faults on purpose: a list of rules, faults.N.KEY=VALUE with the keys queue, opcode, nsid, slba, nlb, skip, count, "
      "probability, seed, status, delay-ns, drop, fatal, link, zone, corrupt", .type = PROP_T_JSON, PROP_OFF(struct nvme, faults_opt), .flags = PF_RUNTIME,
      .changed = faults_changed },
    { .name = "link", .doc = "The controller's link: up, down, or pulled out of its slot without a word before; up is a reset", .type = PROP_T_ENUM,
      PROP_OFF(struct nvme, link_option), .of = nvme_link_names, .flags = PF_RUNTIME, .changed = link_changed },
    { .name = "fault-hits", .doc = "Commands that met a fault so far", .type = PROP_T_U64, PROP_OFF(struct nvme, fault_hits), .max = UINT64_MAX,
      .flags = PF_READONLY },
    { .name = "timing", .doc = "How long I/O commands take, in the machine's time: timing.KEY=VALUE with the keys read-ns, write-ns, other-ns, "
      "read-bytes-per-s, write-bytes-per-s, dies, die-bytes, table", .type = PROP_T_JSON, PROP_OFF(struct nvme, timing_opt), .flags = PF_RUNTIME,
      .changed = timing_changed },
    { .name = "timed-commands", .doc = "Commands that took what timing= says", .type = PROP_T_U64, PROP_OFF(struct nvme, timed_commands),
      .max = UINT64_MAX, .flags = PF_READONLY },
    { .name = "timed-ns", .doc = "The time of these commands together, in ns", .type = PROP_T_U64, PROP_OFF(struct nvme, timed_ns), .max = UINT64_MAX,
      .flags = PF_READONLY },
    PROP_END
};
