/* SPDX-License-Identifier: MIT */
#include "hw/nvme/lbatype.h"

#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/cmd_int.h"

#define ENTRIES 64u
#define ENTRY 64u                       /* bytes: type, attributes, first block at 16, blocks at 24, identifier at 32 */
#define ATTR_MASK 3u                    /* may be overwritten; hidden from an operating system */
#define TYPE_VENDOR 0x80u               /* and above; below it 0 to 4 are defined: general, file system, RAID, cache, swap */

struct nvme_lba_types { unsigned n; uint8_t entry[ENTRIES][ENTRY]; };

static uint64_t first_of(const uint8_t *e) { return ld_le64(e + 16); }
static uint64_t blocks_of(const uint8_t *e) { return ld_le64(e + 24); }

uint16_t nvme_lba_types_get(struct nvme_req *r, enum nvme_select sel)
{
    struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);
    uint8_t b[ENTRIES * ENTRY] = { 0 };

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    pthread_mutex_lock(&ns->ss->lock);
    if (ns->lba_types && sel == NVME_CURRENT) {
        memcpy(b, ns->lba_types->entry, ns->lba_types->n * ENTRY);
        r->result = ns->lba_types->n - 1;
    } else {
        b[1] = 1;
        st_le64(b + 24, ns->nsze);
    }
    pthread_mutex_unlock(&ns->ss->lock);
    return nvme_to_host(r, b, sizeof b);
}

static uint16_t check(const struct nvme_ns *ns, const struct nvme_lba_types *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        const uint8_t *e = t->entry[i];

        if ((e[0] > 4 && e[0] < TYPE_VENDOR) || e[1] & ~ATTR_MASK || !blocks_of(e))
            return NVME_INVALID_FIELD | NVME_DNR;
        if (!range_ok(first_of(e), blocks_of(e), ns->nsze))
            return NVME_LBA_RANGE | NVME_DNR;
        for (unsigned k = 0; k < i; k++)
            if (first_of(e) < first_of(t->entry[k]) + blocks_of(t->entry[k]) && first_of(t->entry[k]) < first_of(e) + blocks_of(e))
                return NVME_OVERLAP | NVME_DNR;
    }
    return NVME_OK;
}

/* Takes @t. */
static void put(struct nvme_ns *ns, struct nvme_lba_types *t)
{
    struct nvme_lba_types *old;

    pthread_mutex_lock(&ns->ss->lock);
    old = ns->lba_types;
    ns->lba_types = t;
    pthread_mutex_unlock(&ns->ss->lock);
    free(old);
}

uint16_t co_nvme_lba_types_set(struct nvme_req *r, uint32_t v)
{
    struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);
    struct nvme_lba_types *t;
    uint16_t st;

    if (!ns)
        return NVME_INVALID_NSID | NVME_DNR;
    t = xnew(struct nvme_lba_types);
    t->n = (v & (ENTRIES - 1)) + 1;
    st = nvme_from_host(r, t->entry, t->n * ENTRY);
    st = st ? st : check(ns, t);
    if (st) {
        free(t);
        return st;
    }
    put(ns, t);
    nvme_ns_dirty(ns);
    return NVME_OK;
}

void nvme_lba_types_free(struct nvme_ns *ns) { put(ns, NULL); }

json_t *nvme_lba_types_to_json(const struct nvme_ns *ns)
{
    const struct nvme_lba_types *t = ns->lba_types;
    json_t *list = t ? json_array() : NULL;

    for (unsigned i = 0; t && i < t->n; i++) {
        json_t *one = json_array();

        for (unsigned k = 0; k < ENTRY; k += 8)
            json_array_append_new(one, json_integer((json_int_t)ld_le64(t->entry[i] + k)));
        json_array_append_new(list, one);
    }
    return list;
}

void nvme_lba_types_from_json(struct nvme_ns *ns, json_t *list)
{
    struct nvme_lba_types *t = xnew(struct nvme_lba_types);
    json_t *one;
    size_t i;

    json_array_foreach(list, i, one)
        if (i < ENTRIES) {
            for (unsigned k = 0; k < ENTRY; k += 8)
                st_le64(t->entry[i] + k, (uint64_t)json_integer_value(json_array_get(one, k / 8)));
            t->n++;
        }
    if (t->n && !check(ns, t))
        put(ns, t);
    else
        free(t);
}
