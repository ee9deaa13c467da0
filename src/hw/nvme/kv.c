/* SPDX-License-Identifier: MIT */
#include "hw/nvme/kv.h"

#include <errno.h>
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/kv_store.h"

#define WAIT_NS 20000

enum { STORE_MUST_EXIST = 1 << 8, STORE_MUST_NOT_EXIST = 1 << 9, STORE_OPTIONS = 7 << 8 };    /* dword 11; the third: not compressed */

struct nvme_kv {
    struct kv_store *store;
    atomic_bool busy, stale;            /* a command has the store; its contents were replaced */
};

/* ---- one at a time ---- */

/* The others may be on other loops: looked at again from time to time. A status; NVME_OK: the store is ours, and loaded. */
static uint16_t co_begin(struct nvme_ns *ns)
{
    struct nvme_kv *kv = ns->kv;

    while (atomic_exchange(&kv->busy, true))
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + WAIT_NS);
    if (atomic_exchange(&kv->stale, false))
        kv_store_forget(kv->store);
    if (!co_kv_load(kv->store))
        return NVME_OK;
    atomic_store(&kv->busy, false);
    return NVME_INTERNAL;
}

static uint16_t end(struct nvme_ns *ns, uint16_t st)
{
    atomic_store(&ns->kv->busy, false);
    return st;
}

/* ---- the key: dwords 2, 3, 14, 15; its length in dword 11 ---- */

static uint16_t key_of(const struct nvme_req *r, struct kv_key *k)
{
    const struct nvme_cmd *c = &r->cmd;
    uint8_t all[KV_KEY_MAX];

    st_le32(all, c->cdw2);
    st_le32(all + 4, c->cdw3);
    st_le32(all + 8, c->cdw14);
    st_le32(all + 12, c->cdw15);
    *k = (struct kv_key){ .len = (uint8_t)c->cdw11 };
    if (k->len > KV_KEY_MAX)
        return NVME_KV_KEY_SIZE | NVME_DNR;
    memcpy(k->b, all, k->len);
    return NVME_OK;
}

static uint16_t whole_key_of(const struct nvme_req *r, struct kv_key *k)
{
    uint16_t st = key_of(r, k);

    return !st && !k->len ? NVME_KV_KEY_SIZE | NVME_DNR : st;
}

static uint16_t status_of(struct nvme_req *r, int e, bool read)
{
    switch (e) {
    case -ENOENT: return NVME_KV_NO_KEY | NVME_DNR;
    case -ENOSPC: return NVME_CAPACITY | NVME_DNR;
    default: return nvme_status_of(r, e, read);
    }
}

/* ---- commands ---- */

static uint16_t co_store_value(struct nvme_req *r, const struct kv_key *k, const uint8_t *value, uint32_t len)
{
    uint32_t options = r->cmd.cdw11 & STORE_OPTIONS;
    struct nvme_ns *ns = r->ns;
    unsigned fl = nvme_write_flags(r, false);
    uint16_t st = co_begin(ns);
    bool there;

    if (st)
        return st;
    there = kv_find(ns->kv->store, k);
    if (options & STORE_MUST_EXIST && !there)
        st = NVME_KV_NO_KEY | NVME_DNR;
    else if (options & STORE_MUST_NOT_EXIST && there)
        st = NVME_KV_KEY_EXISTS | NVME_DNR;
    else
        st = status_of(r, co_kv_put(ns->kv->store, k, value, len, fl), false);
    return end(ns, st);
}

static uint16_t co_store(struct nvme_req *r)
{
    uint32_t len = r->cmd.cdw10;
    struct kv_key k;
    uint8_t *buf;
    uint16_t st = whole_key_of(r, &k);

    if (!st && len > KV_VALUE_MAX)
        st = NVME_KV_VALUE_SIZE | NVME_DNR;
    if (!st && (len > nvme_max_transfer(r->n) || r->cmd.cdw11 & 0xff00 & ~(uint32_t)STORE_OPTIONS))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (st)
        return st;
    buf = nvme_bounce(r, MAX(len, 1u));
    st = buf ? nvme_from_host(r, buf, len) : NVME_INTERNAL;
    if (!st)
        st = co_store_value(r, &k, buf, len);
    if (!st) {
        r->n->writes++;
        atomic_fetch_add_explicit(&r->ns->units_written, (len + 511) / 512, memory_order_relaxed);
    }
    return st;
}

/* The whole length is told, even if there is room for less. */
static uint16_t co_retrieve(struct nvme_req *r)
{
    uint32_t room = r->cmd.cdw10, len = 0;
    struct kv_key k;
    uint8_t *buf;
    uint16_t st = whole_key_of(r, &k);

    if (!st && room > nvme_max_transfer(r->n))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (st)
        return st;
    buf = nvme_bounce(r, MAX(room, 1u));
    st = buf ? co_begin(r->ns) : NVME_INTERNAL;
    if (st)
        return st;
    st = end(r->ns, status_of(r, co_kv_get(r->ns->kv->store, &k, buf, room, &len), true));
    if (!st)
        st = nvme_map(r, room, true);   /* the host's pointers are for as much as it has room for */
    if (!st)
        nvme_vec_put(&r->data, 0, buf, MIN(room, len));
    dma_unmap(&r->data, st ? 0 : MIN(room, len));
    r->result = st ? 0 : len;
    r->n->reads += !st;
    atomic_fetch_add_explicit(&r->ns->units_read, st ? 0 : (len + 511) / 512, memory_order_relaxed);
    return st;
}

static uint16_t co_delete(struct nvme_req *r)
{
    struct kv_key k;
    uint16_t st = whole_key_of(r, &k);
    int e;

    if (!st)
        st = co_begin(r->ns);
    if (st)
        return st;
    e = co_kv_del(r->ns->kv->store, &k, nvme_write_flags(r, false));
    if (e == -ENOENT && !r->ns->kv_error_on_delete)
        e = 0;
    return end(r->ns, status_of(r, e, false));
}

static uint16_t co_exist(struct nvme_req *r)
{
    struct kv_key k;
    uint16_t st = whole_key_of(r, &k);

    if (!st)
        st = co_begin(r->ns);
    return st ? st : end(r->ns, kv_find(r->ns->kv->store, &k) ? NVME_OK : NVME_KV_NO_KEY | NVME_DNR);
}

/* Keys from the given one on, as many as there is room for: their number, then a length and a key each, in whole dwords. */
static uint16_t co_list(struct nvme_req *r)
{
    uint32_t room = r->cmd.cdw10, at = 4, n = 0;
    const struct kv_store *s = r->ns->kv->store;
    struct kv_key k;
    uint8_t *buf;
    uint16_t st = key_of(r, &k);

    if (!st && (room < 4 || room > nvme_max_transfer(r->n)))
        st = NVME_INVALID_FIELD | NVME_DNR;
    if (st)
        return st;
    buf = nvme_bounce(r, room);
    st = buf ? co_begin(r->ns) : NVME_INTERNAL;
    if (st)
        return st;
    memset(buf, 0, room);
    for (uint32_t i = kv_rank(s, &k); i < kv_count(s); i++, n++) {
        const struct kv_key *x = kv_nth(s, i);
        uint32_t need = (uint32_t)align_up(2u + x->len, 4);

        if (need > room - at)
            break;
        st_le16(buf + at, x->len);
        memcpy(buf + at + 2, x->b, x->len);
        at += need;
    }
    st_le32(buf, n);
    end(r->ns, NVME_OK);
    return nvme_to_host(r, buf, room);
}

static uint16_t co_flush(struct nvme_req *r)
{
    uint16_t st = co_begin(r->ns);

    return st ? st : end(r->ns, status_of(r, co_kv_flush(r->ns->kv->store), false));
}

#define EFF_LBCC 2u
#define NS NVME_OP_NS
#define W NVME_OP_WRITES

const struct nvme_op nvme_kv_ops[] = {
    { NVME_IO_FLUSH, "flush", EFF_LBCC, NS, co_flush },
    { NVME_KV_STORE, "store", EFF_LBCC, NS | W, co_store },
    { NVME_KV_RETRIEVE, "retrieve", 0, NS | NVME_OP_READS, co_retrieve },
    { NVME_KV_LIST, "list", 0, NS | NVME_OP_READS, co_list },
    { NVME_KV_DELETE, "delete", EFF_LBCC, NS | W, co_delete },
    { NVME_KV_EXIST, "exist", 0, NS | NVME_OP_READS, co_exist },
    { NVME_IO_RESV_REGISTER, "reservation-register", 0, NS, co_nvme_resv_register },
    { NVME_IO_RESV_REPORT, "reservation-report", 0, NS, co_nvme_resv_report },
    { NVME_IO_RESV_ACQUIRE, "reservation-acquire", 0, NS, co_nvme_resv_acquire },
    { NVME_IO_RESV_RELEASE, "reservation-release", 0, NS, co_nvme_resv_release },
    { 0, NULL, 0, 0, NULL }
};

/* ---- what is told ---- */

uint16_t co_nvme_kv_identify(struct nvme_ns *ns, uint8_t *b)
{
    const struct kv_store *s = ns->kv->store;
    uint16_t st = co_begin(ns);

    if (st)
        return st;
    st_le64(b, kv_capacity(s));
    st_le64(b + 16, kv_used(s));
    b[24] = 0;                          /* NSFEAT */
    b[25] = 0;                          /* NKVF: one format */
    b[26] = ns->shared;
    b[27] = nvme_rescap(ns);
    st_le32(b + 32, 512);               /* NOVG */
    st_le32(b + 36, ns->anagrp);
    b[43] = ns->write_protect != 0;
    st_le16(b + 46, 1);                 /* ENDGID */
    memcpy(b + 48, ns->nguid, 16);
    st_be64(b + 64, ns->eui64);
    st_le16(b + 72, KV_KEY_MAX);
    st_le32(b + 76, KV_VALUE_MAX);
    st_le32(b + 80, kv_keys_max(s));
    return end(ns, NVME_OK);
}

static struct nvme_ns *kv_ns(const struct nvme_req *r, uint16_t *st)
{
    struct nvme_ns *ns = nvme_ns_at(r->n, r->cmd.nsid);

    *st = !ns ? NVME_INVALID_NSID | NVME_DNR : !ns->kv ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;
    return *st ? NULL : ns;
}

uint16_t nvme_kv_config_get(struct nvme_req *r, enum nvme_select sel)
{
    uint16_t st;
    const struct nvme_ns *ns = kv_ns(r, &st);

    r->result = ns && !sel && ns->kv_error_on_delete;
    return st;
}

uint16_t co_nvme_kv_config_set(struct nvme_req *r, uint32_t v)
{
    uint16_t st;
    struct nvme_ns *ns = kv_ns(r, &st);

    if (ns)
        ns->kv_error_on_delete = v & 1;
    return st;
}

/* ---- life ---- */

bool nvme_kv_new(struct nvme_ns *ns, const struct nvme_ns_opts *o, struct err *e)
{
    if (o->zoned || o->ms || o->ruhs)
        return err_set(e, ERR_VALUE, "kv has no blocks: %s means nothing", o->zoned ? "zoned" : o->ms ? "ms" : "fdp.ruhs");
    if (ns->space < KV_SPACE_MIN)
        return err_set(e, ERR_VALUE, "'%s' is too small for keys and values: %llu bytes are the least", ns->unit->opt->drive->id,
                       (unsigned long long)KV_SPACE_MIN);
    ns->csi = NVME_CSI_KV;
    ns->kv = xnew(struct nvme_kv);
    *ns->kv = (struct nvme_kv){ .store = kv_store_new(ns->unit->blk, ns->base, ns->space, ns->unit->caps.read_only) };
    return true;
}

void nvme_kv_free(struct nvme_ns *ns)
{
    if (ns->kv)
        kv_store_free(ns->kv->store);
    free(ns->kv);
    ns->kv = NULL;
}

void nvme_kv_forget(struct nvme_ns *ns)
{
    if (ns->kv)
        atomic_store(&ns->kv->stale, true);
}
