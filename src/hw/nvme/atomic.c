/* SPDX-License-Identifier: MIT */
#include "hw/nvme/atomic.h"

/* ---- ranges ---- */

bool co_nvme_range_begin(struct nvme_req *r, struct nvme_ns *ns, struct range_claim *g, uint64_t slba, uint64_t nlb, bool alone)
{
    co_range_claim(&ns->ranges, g, slba, nlb, alone);
    if (!r->abort && !nvme_stale(r))
        return true;
    nvme_range_end(ns, g);
    return false;
}

void nvme_range_end(struct nvme_ns *ns, struct range_claim *g) { range_release(&ns->ranges, g); }

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
