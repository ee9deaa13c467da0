/* SPDX-License-Identifier: MIT */
#include "hw/nvme/fault.h"

#include <stdlib.h>
#include "base/log.h"
#include "base/random.h"
#include "base/str.h"
#include "hw/nvme/timing.h"
#include "hw/nvme/zns.h"
#include "pci/link.h"

#define ALWAYS 1000000u
#define ANY_OPCODE 256u

enum { Q_ANY, Q_ADMIN, Q_IO };
static const char *const queue_names[] = { "any", "admin", "io", NULL };
const char *const nvme_link_names[] = { "up", "down", "removed", NULL };

static const char *const zone_names[] = { "unchanged", "finished", "read-only", "offline", "reset-recommended", "finish-recommended", NULL };

/* One rule: which commands, how often, and what happens to them. */
struct nvme_fault {
    int queue;
    uint32_t opcode, nsid, probability, status;
    uint64_t slba, nlb, skip, count, delay_ns, seed;
    bool drop, fatal, corrupt;
    int link;                           /* enum pci_link */
    int zone;                           /* enum nvme_zone_fault */
    /* state */
    uint64_t seen, hits, random;
};

static const struct prop fault_props[] = {
    PROP_ENUM(struct nvme_fault, queue, "queue", queue_names, Q_ANY, "Commands of the admin queue, of the I/O queues, or of any"),
    PROP_U32(struct nvme_fault, opcode, "opcode", ANY_OPCODE, 0, ANY_OPCODE, "Opcode; 256: any"),
    PROP_U32(struct nvme_fault, nsid, "nsid", 0, 0, UINT32_MAX, "Namespace; 0: any"),
    PROP_U64(struct nvme_fault, slba, "slba", 0, 0, UINT64_MAX, "First block of the range that the command must touch"),
    PROP_U64(struct nvme_fault, nlb, "nlb", 0, 0, UINT64_MAX, "Blocks of the range; 0: any command matches"),
    PROP_U64(struct nvme_fault, skip, "skip", 0, 0, UINT64_MAX, "Matching commands that pass first"),
    PROP_U64(struct nvme_fault, count, "count", 0, 0, UINT64_MAX, "Commands that are hit at most; 0: no limit"),
    PROP_U32(struct nvme_fault, probability, "probability", ALWAYS, 0, ALWAYS, "Chance of a matching command to be hit, in millionths"),
    PROP_U64(struct nvme_fault, seed, "seed", 1, 1, UINT64_MAX, "Seed of the chances: the same seed hits the same commands"),
    PROP_U32(struct nvme_fault, status, "status", 0, 0, 0x7fff, "Status (type * 256 + code; 0x4000: do not retry) instead of execution; 0: execute"),
    PROP_U64(struct nvme_fault, delay_ns, "delay-ns", 0, 0, UINT64_C(3600000000000), "Time that passes first, in the machine's time"),
    PROP_BOOL(struct nvme_fault, drop, "drop", false, "The completion never comes"),
    PROP_BOOL(struct nvme_fault, fatal, "fatal", false, "The controller reports a fatal status and stops"),
    PROP_ENUM(struct nvme_fault, link, "link", nvme_link_names, PCI_LINK_UP, "The link goes down, or the controller is pulled out of its slot"),
    PROP_ENUM(struct nvme_fault, zone, "zone", zone_names, NVME_ZONE_NO_FAULT, "What the zone that the command names does by itself; its host is told"),
    PROP_BOOL(struct nvme_fault, corrupt, "corrupt", false, "One bit of the data that the host gets is wrong"),
    PROP_END
};

/* ---- matching ---- */

static bool touches(const struct nvme_fault *f, const struct nvme_req *r)
{
    uint64_t slba = nvme_slba(&r->cmd), nlb = nvme_nlb(&r->cmd);

    if (!f->nlb)
        return true;
    return r->sq->id && (slba >= f->slba ? slba - f->slba < f->nlb : f->slba - slba < nlb);
}

static bool hit(struct nvme_fault *f, const struct nvme_req *r)
{
    if ((f->queue == Q_ADMIN && r->sq->id) || (f->queue == Q_IO && !r->sq->id) || (f->opcode != ANY_OPCODE && f->opcode != r->cmd.opcode) ||
        (f->nsid && f->nsid != r->cmd.nsid) || !touches(f, r))
        return false;
    if (f->seen++ < f->skip || (f->count && f->hits >= f->count) || random_next(&f->random) % ALWAYS >= f->probability)
        return false;
    f->hits++;
    return true;
}

struct nvme_fault *nvme_fault_match(struct nvme_req *r)
{
    struct nvme *n = r->n;

    for (unsigned i = 0; i < n->n_faults; i++)
        if (hit(&n->faults[i], r)) {
            n->fault_hits++;
            return &n->faults[i];
        }
    return NULL;
}

/* ---- what happens ---- */

uint16_t co_nvme_fault_before(struct nvme_req *r, struct nvme_fault *f)
{
    const struct nvme_fault *rules = r->n->faults;
    struct nvme_fault rule = *f;        /* the rules may change while we wait */

    if (rule.delay_ns)
        co_nvme_wait_until(r, clock_now(CLOCK_VM) + (int64_t)rule.delay_ns, true);
    if (r->abort)
        return r->sq->deleting ? NVME_ABORT_SQ_DELETED : NVME_ABORT_REQUESTED;
    if (rule.delay_ns && r->n->quiesced) {
        r->park = true;                 /* begins again when the machine runs: met by the rule then, and counted */
        r->n->fault_hits--;
        if (r->n->faults == rules) {
            f->seen--;
            f->hits--;
        }
        return NVME_INTERNAL;
    }
    if (rule.zone != NVME_ZONE_NO_FAULT && r->sq->id && nvme_ns_at(r->n, r->cmd.nsid))
        nvme_zone_changes_itself(nvme_ns_at(r->n, r->cmd.nsid), nvme_slba(&r->cmd), (enum nvme_zone_fault)rule.zone);
    if (rule.fatal)
        nvme_fail(r->n, "a fault that was asked for");
    if (rule.link != PCI_LINK_UP)
        pci_link_set(&r->n->pci, (enum pci_link)rule.link);
    if (rule.drop || rule.fatal || rule.link != PCI_LINK_UP)
        return NVME_HELD;
    r->corrupt = rule.corrupt;
    return (uint16_t)rule.status;
}

void nvme_fault_after(struct nvme_req *r)
{
    uint8_t byte;
    uint64_t at;

    if (!r->corrupt || !r->data.n || !r->data.dev_writes)
        return;
    at = (r->cmd.cid * UINT64_C(2654435761)) % r->data.len;
    nvme_vec_get(&r->data, at, &byte, 1);
    byte ^= 1;
    nvme_vec_put(&r->data, at, &byte, 1);
}

/* ---- the link ---- */

static void set_link(void *arg)
{
    struct nvme *n = arg;

    pci_link_set(&n->pci, (enum pci_link)n->link_option);
}

static void set_link_there(void *arg) { co_spawn(NULL, ((struct nvme *)arg)->pci.dev.dom, set_link, arg); }

void nvme_link_apply(struct nvme *n) { loop_call(domain_loop(n->pci.dev.dom), set_link_there, n); }

/* ---- the option ---- */

struct change { struct nvme *n; struct nvme_fault *list; unsigned count; };

static void swap(void *arg)
{
    struct change *c = arg;
    struct nvme_fault *old = c->n->faults;

    c->n->faults = c->list;
    c->n->n_faults = c->count;
    c->list = old;
}

bool nvme_faults_set(struct nvme *n, json_t *list, struct err *e)
{
    struct change c = { .n = n };
    json_t *one;
    size_t i;

    if (list && !json_is_array(list))
        return err_set(e, ERR_VALUE, "faults must be a list of rules, as in faults.0.opcode=2,faults.0.status=641");
    c.count = (unsigned)json_array_size(list);
    c.list = c.count ? xcalloc(c.count, sizeof *c.list) : NULL;
    json_array_foreach(list, i, one) {
        struct nvme_fault *f = &c.list[i];

        prop_defaults(fault_props, f);
        if (!json_is_object(one) ? !err_set(e, ERR_VALUE, "faults[%zu] is no rule", i) : !prop_set_all(fault_props, f, NULL, one, "fault", e)) {
            free(c.list);
            return err_prefix(e, "faults[%zu]", i);
        }
        f->random = f->seed;
    }
    if (n->pci.dev.realized)
        domain_call(n->pci.dev.dom, swap, &c);
    else
        swap(&c);
    free(c.list);
    return true;
}

/* ---- saved state: how far each rule has come; a machine with other rules begins with them ---- */

static void progress_save(const void *obj, struct str *out)
{
    const struct nvme *n = obj;

    for (unsigned i = 0; i < n->n_faults; i++) {
        uint64_t v[3] = { n->faults[i].seen, n->faults[i].hits, n->faults[i].random };

        str_addn(out, v, sizeof v);
    }
}

static bool progress_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct nvme *n = obj;
    uint64_t v[3];

    for (unsigned i = 0; len == n->n_faults * sizeof v && i < n->n_faults; i++) {
        memcpy(v, (const char *)data + i * sizeof v, sizeof v);
        n->faults[i].seen = v[0];
        n->faults[i].hits = v[1];
        n->faults[i].random = v[2] ? v[2] : n->faults[i].seed;
    }
    return true;
}
const struct state_custom nvme_fault_progress = { progress_save, progress_load };

void nvme_faults_free(struct nvme *n)
{
    free(n->faults);
    n->faults = NULL;
    n->n_faults = 0;
}
