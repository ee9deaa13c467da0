/* SPDX-License-Identifier: MIT */
/* Data pointers (4.1): physical region pages and scatter gather lists. Entries are copied once, then looked at. */
#include <stdlib.h>
#include "hw/nvme/nvme.h"

#define LIST_CHUNK 64u
#define SGL_CHUNK 32u
#define SGL_SEGMENTS 256u               /* of one command */

static uint16_t map_piece(struct dma_vec *v, uint64_t addr, uint64_t len)
{
    return dma_map(v, addr, len) ? NVME_OK : NVME_DATA_TRANSFER;
}

/* ---- PRP, 4.1.1 ---- */

/* The list that PRP2 points to: the last entry of a page that does not end it points to the next page. */
static uint16_t map_list(struct nvme *n, struct dma_vec *v, uint64_t list, uint64_t len)
{
    uint32_t page = nvme_page(n);
    uint64_t ent[LIST_CHUNK];

    if (list & 7)
        return NVME_PRP_OFFSET | NVME_DNR;
    while (len) {
        uint64_t in_page = (page - (list & (page - 1))) / 8, need = (len + page - 1) / page;
        unsigned count = (unsigned)MIN(MIN(in_page, need), LIST_CHUNK), i = 0;

        if (!dma_read(&n->pci.dma, list, ent, count * 8))
            return NVME_DATA_TRANSFER;
        bool chained = count == in_page && need > in_page;
        for (; len && i < count - chained; i++) {
            uint64_t addr = le64toh(ent[i]), part = MIN(len, page);
            uint16_t st = addr & (page - 1) ? NVME_PRP_OFFSET | NVME_DNR : map_piece(v, addr, part);

            if (st)
                return st;
            len -= part;
        }
        list = chained ? le64toh(ent[count - 1]) : list + i * 8;
        if (chained && list & (page - 1))
            return NVME_PRP_OFFSET | NVME_DNR;
    }
    return NVME_OK;
}

static uint16_t map_prp(struct nvme *n, struct dma_vec *v, uint64_t prp1, uint64_t prp2, uint64_t len)
{
    uint32_t page = nvme_page(n);
    uint64_t first = MIN(len, page - (prp1 & (page - 1)));
    uint16_t st;

    if (prp1 & 3)
        return NVME_PRP_OFFSET | NVME_DNR;
    st = map_piece(v, prp1, first);
    len -= first;
    if (st || !len)
        return st;
    if (len > page)
        return map_list(n, v, prp2, len);
    return prp2 & (page - 1) ? NVME_PRP_OFFSET | NVME_DNR : map_piece(v, prp2, len);
}

/* ---- SGL, 4.1.2 ---- */

struct sgl {
    struct nvme_req *r;
    struct dma_vec *v;
    uint64_t left;                      /* of the transfer */
    unsigned segments;
};

static uint8_t sgl_type(const struct nvme_sgl *d) { return d->type >> 4; }

/* Maps one descriptor that holds data. */
static uint16_t sgl_data(struct sgl *s, const struct nvme_sgl *d)
{
    uint64_t len = MIN(le32toh(d->len), s->left);
    uint16_t st;

    if (d->type & 15)
        return NVME_SGL_TYPE | NVME_DNR;        /* only addresses are known, no offsets or keys */
    if (sgl_type(d) == NVME_SGL_BIT_BUCKET) {
        if (!s->v->dev_writes)
            return NVME_OK;                     /* ignored where the host gives data */
        if (!len)
            return NVME_OK;
        return NVME_SGL_TYPE | NVME_DNR;        /* not claimed in SGLS */
    }
    if (sgl_type(d) != NVME_SGL_DATA)
        return NVME_SGL_TYPE | NVME_DNR;
    st = len ? map_piece(s->v, le64toh(d->addr), len) : NVME_OK;
    s->left -= len;
    return st;
}

/*
 * The segment that @seg points to; its last descriptor may point to another one, which goes to @next. A last segment holds
 * data only.
 */
static uint16_t sgl_segment(struct sgl *s, const struct nvme_sgl *seg, struct nvme_sgl *next)
{
    bool last = sgl_type(seg) == NVME_SGL_LAST_SEG;
    uint64_t at = le64toh(seg->addr), bytes = le32toh(seg->len);
    struct nvme_sgl d[SGL_CHUNK];

    next->type = 0;
    if (!bytes || bytes % sizeof *d || seg->type & 15 || ++s->segments > SGL_SEGMENTS)
        return NVME_SGL_SEGMENT | NVME_DNR;
    for (uint64_t done = 0; done < bytes;) {
        unsigned count = (unsigned)MIN((bytes - done) / sizeof *d, SGL_CHUNK);

        if (!dma_read(&s->r->n->pci.dma, at + done, d, count * sizeof *d))
            return NVME_DATA_TRANSFER;
        done += count * sizeof *d;
        for (unsigned i = 0; i < count; i++) {
            bool is_seg = sgl_type(&d[i]) == NVME_SGL_SEG || sgl_type(&d[i]) == NVME_SGL_LAST_SEG, end = done == bytes && i == count - 1;
            uint16_t st;

            if (is_seg && (last || !end))
                return NVME_SGL_SEGMENT | NVME_DNR;
            if (is_seg) {
                *next = d[i];
                return NVME_OK;
            }
            st = s->left || !le32toh(d[i].len) ? sgl_data(s, &d[i]) : NVME_OK;
            if (st)
                return st;
            if (end && !last)
                return NVME_SGL_SEGMENT | NVME_DNR;     /* a segment that is not the last ends with a pointer */
            if (!s->left && end)
                return NVME_OK;
        }
    }
    return NVME_OK;
}

static uint16_t map_sgl(struct nvme_req *r, struct dma_vec *v, struct nvme_sgl d, uint64_t len, bool meta)
{
    struct sgl s = { .r = r, .v = v, .left = len };
    uint16_t st = NVME_OK;

    if (sgl_type(&d) == NVME_SGL_DATA) {
        st = sgl_data(&s, &d);
    } else if (sgl_type(&d) == NVME_SGL_SEG || sgl_type(&d) == NVME_SGL_LAST_SEG) {
        for (struct nvme_sgl next = d; !st && next.type; d = next) {
            struct nvme_sgl cur = next;
            st = sgl_segment(&s, &cur, &next);
        }
    } else {
        st = NVME_SGL_TYPE | NVME_DNR;
    }
    if (!st && s.left)
        st = (meta ? NVME_SGL_META_LEN : NVME_SGL_DATA_LEN) | NVME_DNR;
    return st;
}

/* ---- public ---- */

uint16_t nvme_map(struct nvme_req *r, uint64_t len, bool dev_writes)
{
    const struct nvme_cmd *c = &r->cmd;
    unsigned psdt = c->flags >> 6;

    dma_unmap(&r->data, 0);
    r->data.dev_writes = dev_writes;
    if (psdt == 3 || (psdt && !r->sq->id))
        return NVME_INVALID_FIELD | NVME_DNR;           /* admin commands over PCI use PRPs, 3.3.3.1 */
    if (!len)
        return NVME_OK;
    if (!psdt)
        return map_prp(r->n, &r->data, c->prp1, c->prp2, len);
    struct nvme_sgl d = { .addr = htole64(c->prp1), .len = htole32((uint32_t)c->prp2), .type = (uint8_t)(c->prp2 >> 56) };
    return map_sgl(r, &r->data, d, len, false);
}

uint16_t nvme_map_meta(struct nvme_req *r, uint64_t len, bool dev_writes)
{
    struct nvme_sgl d;

    dma_unmap(&r->meta, 0);
    r->meta.dev_writes = dev_writes;
    if (!len)
        return NVME_OK;
    if (r->cmd.flags >> 6 != 2)
        return r->cmd.mptr & 3 ? NVME_INVALID_FIELD | NVME_DNR : map_piece(&r->meta, r->cmd.mptr, len);
    if (!dma_read(&r->n->pci.dma, r->cmd.mptr, &d, sizeof d))
        return NVME_DATA_TRANSFER;
    return map_sgl(r, &r->meta, d, len, true);
}

/* Calls for the parts of [at, at + len) of the list. */
static void vec_copy(const struct dma_vec *v, uint64_t at, uint8_t *buf, uint64_t len, bool put)
{
    for (unsigned i = 0; i < v->n && len; i++) {
        uint64_t have = v->iov[i].iov_len, part;
        uint8_t *host = v->iov[i].iov_base;

        if (at >= have) {
            at -= have;
            continue;
        }
        part = MIN(have - at, len);
        memcpy(put ? host + at : buf, put ? buf : host + at, part);
        buf += part;
        len -= part;
        at = 0;
    }
}

void nvme_vec_put(const struct dma_vec *v, uint64_t at, const void *buf, uint64_t len) { vec_copy(v, at, (uint8_t *)(uintptr_t)buf, len, true); }
void nvme_vec_get(const struct dma_vec *v, uint64_t at, void *buf, uint64_t len) { vec_copy(v, at, buf, len, false); }

void nvme_vec_blocks(const struct dma_vec *v, uint8_t *data, uint64_t block, uint8_t *meta, uint64_t ms, uint64_t nlb, bool put)
{
    uint64_t left = nlb * (block + ms), in_block = 0;   /* in_block: how far the present block and its metadata are done */

    for (unsigned i = 0; i < v->n && left; i++) {
        uint8_t *host = v->iov[i].iov_base;

        for (uint64_t have = MIN(v->iov[i].iov_len, left); have;) {
            bool is_data = in_block < block;
            uint64_t part = MIN(have, is_data ? block - in_block : block + ms - in_block);
            uint8_t **mine = is_data ? &data : &meta;

            memcpy(put ? host : *mine, put ? *mine : host, part);
            *mine += part;
            host += part;
            have -= part;
            left -= part;
            in_block = (in_block + part) % (block + ms);
        }
    }
}

uint16_t nvme_to_host(struct nvme_req *r, const void *buf, uint64_t len)
{
    uint16_t st = nvme_map(r, len, true);

    if (!st)
        nvme_vec_put(&r->data, 0, buf, len);
    dma_unmap(&r->data, st ? 0 : len);
    return st;
}

uint16_t nvme_from_host(struct nvme_req *r, void *buf, uint64_t len)
{
    uint16_t st = nvme_map(r, len, false);

    if (!st)
        nvme_vec_get(&r->data, 0, buf, len);
    dma_unmap(&r->data, 0);
    return st;
}

uint16_t nvme_to_host_part(struct nvme_req *r, const void *buf, uint64_t have, uint64_t off, uint64_t want)
{
    static const uint8_t zeroes[NVME_PAGE];
    uint64_t n = off < have ? MIN(have - off, want) : 0;
    uint16_t st = nvme_map(r, want, true);

    if (!st) {
        nvme_vec_put(&r->data, 0, (const uint8_t *)buf + MIN(off, have), n);
        for (; n < want; n += MIN(want - n, sizeof zeroes))
            nvme_vec_put(&r->data, n, zeroes, MIN(want - n, sizeof zeroes));
    }
    dma_unmap(&r->data, st ? 0 : want);
    return st;
}

uint8_t *nvme_bounce(struct nvme_req *r, uint64_t len)
{
    if (r->bounce_size < len) {
        void *p = NULL;

        if (posix_memalign(&p, 4096, align_up(len, 4096)))
            return NULL;
        free(r->bounce);
        r->bounce = p;
        r->bounce_size = align_up(len, 4096);
    }
    return r->bounce;
}
