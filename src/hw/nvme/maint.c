/* SPDX-License-Identifier: MIT */
/* Device self-test, doorbell buffers, host memory buffer (5.8, 5.10 to 5.12, 5.27.1.10). */
#include <stdlib.h>
#include "base/str.h"
#include "hw/nvme/maint.h"

/* ---- self-test, 8.6: by the VM clock ---- */

#define SHORT_NS INT64_C(2000000000)
#define EXTENDED_NS INT64_C(60000000000)

static int64_t duration(uint8_t code) { return code == 1 ? SHORT_NS : EXTENDED_NS; }

static void test_end(struct nvme *n, uint8_t result)
{
    struct nvme_test *t = &n->test;
    struct nvme_test_result *x = &t->result[t->n_results++ % NVME_TESTS];

    *x = (struct nvme_test_result){ .status = (uint8_t)(t->code << 4 | result), .nsid = t->nsid,
                                    .hours = (uint64_t)(clock_now(CLOCK_VM) - n->powered_ns) / INT64_C(3600000000000) };
    t->code = 0;
    timer_disarm(&n->test_timer);
}

static void test_due(void *arg) { test_end(arg, 0); }

void nvme_maint_init(struct nvme *n) { timer_init(&n->test_timer, CLOCK_VM, NULL, n->pci.dev.dom, test_due, n); }

void nvme_test_reset(struct nvme *n)
{
    if (n->test.code)
        test_end(n, 2);                                 /* aborted by a controller level reset */
    n->shadow_db = n->shadow_ei = 0;
    n->hmb = (struct nvme_hmb){ 0 };
}

void nvme_test_loaded(struct nvme *n)
{
    if (n->test.code)
        timer_arm(&n->test_timer, n->test.start + duration(n->test.code));
}

uint16_t co_nvme_self_test(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint8_t code = r->cmd.cdw10 & 15;
    uint32_t nsid = r->cmd.nsid;

    if (code == 15) {
        if (n->test.code)
            test_end(n, 1);
        return NVME_OK;
    }
    if (code != 1 && code != 2)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (nsid && nsid != UINT32_MAX && nsid > NVME_NS_MAX)
        return NVME_INVALID_NSID | NVME_DNR;
    if (nsid && nsid != UINT32_MAX && !nvme_ns_at(n, nsid))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (n->test.code)
        return NVME_SELF_TEST_BUSY | NVME_DNR;
    n->test.code = code;
    n->test.nsid = nsid;
    n->test.start = clock_now(CLOCK_VM);
    timer_arm(&n->test_timer, n->test.start + duration(code));
    return NVME_OK;
}

/* 5.16.1.7, 564 bytes. */
void nvme_test_log(const struct nvme *n, uint8_t *b)
{
    const struct nvme_test *t = &n->test;

    b[0] = t->code;
    b[1] = (uint8_t)(t->code ? MIN((clock_now(CLOCK_VM) - t->start) * 100 / duration(t->code), 99) : 0);
    for (unsigned i = 0; i < NVME_TESTS; i++) {
        const struct nvme_test_result *x = &t->result[(t->n_results - 1 - i) % NVME_TESTS];
        uint8_t *d = b + 4 + 28 * i;

        if (i >= t->n_results) {
            d[0] = 15;                                  /* not used */
            continue;
        }
        d[0] = x->status;
        d[2] = 1;                                       /* the namespace is valid */
        st_le64(d + 4, x->hours);
        st_le32(d + 12, x->nsid);
    }
}

/* ---- shadow doorbells, 5.8, B.5: fetch.c and queue.c look at them ---- */

uint16_t co_nvme_dbbuf(struct nvme_req *r)
{
    struct nvme *n = r->n;
    uint32_t mask = nvme_page(n) - 1;

    if (!r->cmd.prp1 || !r->cmd.prp2 || (r->cmd.prp1 | r->cmd.prp2) & mask)
        return NVME_INVALID_FIELD | NVME_DNR;
    n->shadow_db = r->cmd.prp1;
    n->shadow_ei = r->cmd.prp2;
    return NVME_OK;
}

/* ---- host memory buffer, 5.27.1.10 ---- */

uint16_t nvme_hmb_get(struct nvme_req *r, enum nvme_select sel)
{
    struct nvme_hmb none = { 0 };
    const struct nvme_hmb *h = sel ? &none : &r->n->hmb;
    uint8_t b[4096] = { 0 };

    st_le32(b, h->size);
    st_le64(b + 4, h->list);
    st_le32(b + 12, h->count);
    r->result = nvme_feature_scalar(r->n, NVME_FEAT_HMB, sel);
    return nvme_to_host(r, b, sizeof b);
}

/* Each entry of the list is looked at: an address, pages, memory. */
static uint16_t hmb_check(struct nvme *n, const struct nvme_hmb *h)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < h->count; i++) {
        uint64_t e[2];

        if (!dma_read(&n->pci.dma, h->list + 16 * (uint64_t)i, e, sizeof e))
            return NVME_DATA_TRANSFER;
        if (le64toh(e[0]) & (nvme_page(n) - 1) || !(uint32_t)le64toh(e[1]))
            return NVME_INVALID_FIELD | NVME_DNR;
        total += (uint32_t)le64toh(e[1]);
    }
    return total < h->size ? NVME_INVALID_FIELD | NVME_DNR : NVME_OK;
}

uint16_t co_nvme_hmb_set(struct nvme_req *r, uint32_t v)
{
    const struct nvme_cmd *c = &r->cmd;
    struct nvme_hmb h = { .size = c->cdw12, .list = c->cdw13 | (uint64_t)c->cdw14 << 32, .count = c->cdw15 };
    bool was = r->n->feat[NVME_FEAT_HMB] & 1;
    uint16_t st;

    if (!(v & 1)) {
        r->n->hmb = (struct nvme_hmb){ 0 };
        return NVME_OK;
    }
    if (was)
        return NVME_SEQUENCE | NVME_DNR;
    if (h.list & 15 || !h.count || h.count > NVME_HMB_LIST || h.size < r->n->hmb_pages / 4)
        return NVME_INVALID_FIELD | NVME_DNR;
    st = hmb_check(r->n, &h);
    if (!st)
        r->n->hmb = h;
    return st;
}
