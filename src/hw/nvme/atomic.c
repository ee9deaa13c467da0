/* SPDX-License-Identifier: MIT */
#include "hw/nvme/atomic.h"

#define WAIT_NS 20000

/* ---- ranges ---- */

/* Some earlier one must be done first. The subsystem's lock held. */
static bool must_wait(const struct nvme_ns *ns, const struct nvme_range *g)
{
    const struct nvme_range *x;

    list_for_each(x, &ns->ranges, link) {
        if (x == g)
            return false;
        if ((x->alone || g->alone) && ranges_overlap(x->slba, x->nlb, g->slba, g->nlb))
            return true;
    }
    return false;
}

bool co_nvme_range_begin(struct nvme_req *r, struct nvme_ns *ns, struct nvme_range *g, uint64_t slba, uint64_t nlb, bool alone)
{
    bool wait;

    *g = (struct nvme_range){ .slba = slba, .nlb = nlb, .alone = alone };
    pthread_mutex_lock(&ns->ss->lock);
    list_push(&ns->ranges, &g->link);
    wait = must_wait(ns, g);
    pthread_mutex_unlock(&ns->ss->lock);
    while (wait && !r->abort && !nvme_stale(r)) {
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + WAIT_NS);    /* the others may be on other loops */
        pthread_mutex_lock(&ns->ss->lock);
        wait = must_wait(ns, g);
        pthread_mutex_unlock(&ns->ss->lock);
    }
    if (wait)
        nvme_range_end(ns, g);
    return !wait;
}

void nvme_range_end(struct nvme_ns *ns, struct nvme_range *g)
{
    pthread_mutex_lock(&ns->ss->lock);
    list_del(&g->link);
    pthread_mutex_unlock(&ns->ss->lock);
}

/* ---- sizes ---- */

/* The blocks go over a place where atomicity ends; @size as the namespace tells it, 0: nowhere. */
static bool crosses(uint64_t first, uint16_t size, uint64_t slba, uint64_t nlb)
{
    uint64_t step = size + UINT64_C(1), at = slba - first;

    if (!size)
        return false;
    if (slba < first)
        return nlb > first - slba;
    return at / step != (at + nlb - 1) / step;
}

bool nvme_atomic_write(const struct nvme *n, const struct nvme_ns *ns, uint64_t slba, uint64_t nlb)
{
    const struct nvme_ns_atomic *a = &ns->atomic;
    bool normal = !(n->feat[NVME_FEAT_ATOMIC] & 1);
    uint16_t units = normal ? n->awun : n->awupf;

    if (a->on)
        units = normal ? a->nawun : a->nawupf;
    return nlb <= units + 1u && !crosses(a->nabo, normal ? a->nabsn : a->nabspf, slba, nlb);
}

bool nvme_atomic_check(const struct nvme_ns_atomic *a, struct err *e)
{
    if (a->nawupf > a->nawun)
        return err_set(e, ERR_VALUE, "atomic.nawupf is %u, more than atomic.nawun=%u", a->nawupf, a->nawun);
    if (a->nabsn && a->nabsn < a->nawun)
        return err_set(e, ERR_VALUE, "atomic.nabsn is %u, less than atomic.nawun=%u", a->nabsn, a->nawun);
    if (a->nabspf && a->nabspf < a->nawupf)
        return err_set(e, ERR_VALUE, "atomic.nabspf is %u, less than atomic.nawupf=%u", a->nabspf, a->nawupf);
    if (a->nabo && !(a->nabsn || a->nabspf))
        return err_set(e, ERR_VALUE, "atomic.nabo has no effect without atomic.nabsn or atomic.nabspf");
    if ((a->nabsn && a->nabo > a->nabsn) || (a->nabspf && a->nabo > a->nabspf))
        return err_set(e, ERR_VALUE, "atomic.nabo is %u, more than the boundary's size", a->nabo);
    return true;
}
