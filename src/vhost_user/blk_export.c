/* SPDX-License-Identifier: MIT */
/* "vhost-user-blk" export: a virtio block device (virtio 1.2, section 5.2) behind vhost-user. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "base/str.h"
#include "block/export.h"
#include "loop/iothread.h"
#include "vhost_user/vu.h"
#include "vhost_user/vu_blk_spec.h"

enum { SECTOR = VU_BLK_SECTOR, SEG_MAX = VU_CHAIN_MAX - 2, RANGES_MAX = 32, SERIAL_LEN = 20 };

struct vu_blk {
    struct blk_export exp;
    json_t *addr;
    uint16_t num_queues;
    uint32_t block;                 /* bytes of a logical block */
    struct vu_server server;
    uint64_t features;              /* the front end's */
};

/* ---- what the device is ---- */

static bool read_only(const struct vu_blk *d)
{
    struct blk_caps caps;
    blk_get_caps(d->exp.blk, &caps);
    return caps.read_only;
}

static uint64_t vu_blk_features(void *arg)
{
    struct vu_blk *d = arg;
    return BIT64(VU_BLK_F_SEG_MAX) | BIT64(VU_BLK_F_BLK_SIZE) | BIT64(VU_BLK_F_FLUSH) | BIT64(VU_BLK_F_TOPOLOGY) | BIT64(VU_BLK_F_CONFIG_WCE) | BIT64(VU_BLK_F_MQ) |
           (read_only(d) ? BIT64(VU_BLK_F_RO) : BIT64(VU_BLK_F_DISCARD) | BIT64(VU_BLK_F_WRITE_ZEROES));
}

/* A driver that does not know of flushes cannot ask for them: then every write is one. */
static void vu_blk_set_features(void *arg, uint64_t features)
{
    struct vu_blk *d = arg;
    d->features = features;
    blk_set_write_cache(d->exp.blk, !d->exp.writethrough && (features & BIT64(VU_BLK_F_FLUSH)));
}

/* Section 5.2.4. */
static uint32_t vu_blk_config(void *arg, uint8_t k[256])
{
    struct vu_blk *d = arg;
    struct vu_blk_config *c = (struct vu_blk_config *)k;
    struct blk_caps caps;
    uint32_t most = (uint32_t)((1u << 31) / SECTOR);
    blk_get_caps(d->exp.blk, &caps);
    *c = (struct vu_blk_config){
        .capacity = htole64(blk_size(d->exp.blk) / SECTOR), .seg_max = htole32(SEG_MAX), .blk_size = htole32(d->block),
        .physical_exp = (uint8_t)ctz64(MAX(caps.physical_block, d->block) / d->block), .min_io = htole16(1), .opt_io = htole32(caps.opt_io / d->block),
        .writeback = blk_write_cache(d->exp.blk), .num_queues = htole16(d->num_queues),
        .max_discard_sectors = htole32(most), .max_discard_seg = htole32(RANGES_MAX),
        .discard_alignment = htole32(MAX(caps.discard_granularity, d->block) / SECTOR),
        .max_zeroes_sectors = htole32(most), .max_zeroes_seg = htole32(RANGES_MAX), .zeroes_may_unmap = 1,
    };
    return sizeof *c;
}

static bool vu_blk_set_config(void *arg, uint32_t off, const uint8_t *data, uint32_t len)
{
    struct vu_blk *d = arg;
    if (off != offsetof(struct vu_blk_config, writeback) || len != 1 || data[0] > 1)
        return false;
    blk_set_write_cache(d->exp.blk, data[0] && !d->exp.writethrough);
    return true;
}

/* ---- requests (section 5.2.6) ---- */

/* [at, at + len) of the pieces @v between them and @flat; false where they are shorter. */
static bool copy(const struct iovec *v, unsigned n, uint64_t at, void *flat, size_t len, bool to_pieces)
{
    uint8_t *f = flat;
    for (unsigned i = 0; i < n && len; i++) {
        if (at >= v[i].iov_len) {
            at -= v[i].iov_len;
            continue;
        }
        size_t k = MIN(v[i].iov_len - at, len);
        uint8_t *p = (uint8_t *)v[i].iov_base + at;
        memcpy(to_pieces ? p : f, to_pieces ? f : p, k);
        f += k;
        len -= k;
        at = 0;
    }
    return !len;
}

/* The pieces without their first @skip bytes, cut to @len: in place. Returns where they begin; *@n: how many. */
static struct iovec *trim(struct iovec *v, unsigned *n, uint64_t skip, uint64_t len)
{
    unsigned k = 0;
    while (*n && skip >= v->iov_len) {
        skip -= v->iov_len;
        v++;
        --*n;
    }
    if (*n) {
        v->iov_base = (char *)v->iov_base + skip;
        v->iov_len -= skip;
    }
    for (; k < *n && len; k++) {
        v[k].iov_len = MIN(v[k].iov_len, len);
        len -= v[k].iov_len;
    }
    *n = k;
    return v;
}

static bool aligned(const struct vu_blk *d, uint64_t sector, uint64_t len)
{
    uint64_t size = blk_size(d->exp.blk);
    return sector <= size / SECTOR && range_ok(sector * SECTOR, len, size) && !(sector * SECTOR % d->block) && !(len % d->block);
}

static int co_transfer(struct vu_blk *d, struct vu_elem *el, uint64_t sector, bool write)
{
    uint64_t len = write ? el->out_len - 16 : el->in_len - 1;
    unsigned n = write ? el->n_out : el->n_in;
    struct iovec *v = trim(write ? el->out : el->in, &n, write ? 16 : 0, len);
    if (!aligned(d, sector, len))
        return -EINVAL;
    return write ? co_blk_pwritev(d->exp.blk, sector * SECTOR, len, v, n, 0) : co_blk_preadv(d->exp.blk, sector * SECTOR, len, v, n, 0);
}

static int co_ranges(struct vu_blk *d, struct vu_elem *el, bool zero)
{
    uint64_t len = el->out_len - 16;
    uint8_t s[16];
    int r = len && len % 16 == 0 && len / 16 <= RANGES_MAX ? 0 : -EINVAL;
    for (uint64_t at = 0; at < len && !r; at += 16) {
        if (!copy(el->out, el->n_out, 16 + at, s, sizeof s, false))
            return -EINVAL;
        uint64_t sector = ld_le64(s), n = (uint64_t)ld_le32(s + 8) * SECTOR;
        uint32_t flags = ld_le32(s + 12);
        if (flags & ~(zero ? (uint32_t)VU_BLK_ZEROES_UNMAP : 0))
            return -ENOTSUP;
        if (!aligned(d, sector, n))
            return -EINVAL;
        r = zero ? co_blk_zero(d->exp.blk, sector * SECTOR, n, flags & VU_BLK_ZEROES_UNMAP ? BLK_ZERO_UNMAP : 0)
                 : co_blk_discard(d->exp.blk, sector * SECTOR, n);
    }
    return r;
}

static int get_id(struct vu_blk *d, struct vu_elem *el)
{
    char id[SERIAL_LEN] = { 0 };
    memcpy(id, d->exp.obj.id, MIN(strlen(d->exp.obj.id), sizeof id));
    return copy(el->in, el->n_in, 0, id, MIN(sizeof id, el->in_len - 1), true) ? 0 : -EINVAL;
}

static int co_execute(struct vu_blk *d, struct vu_elem *el, uint32_t type, uint64_t sector)
{
    switch (type) {
    case VU_BLK_IN: return co_transfer(d, el, sector, false);
    case VU_BLK_OUT: return co_transfer(d, el, sector, true);
    case VU_BLK_FLUSH: return co_blk_flush(d->exp.blk);
    case VU_BLK_GET_ID: return get_id(d, el);
    case VU_BLK_DISCARD: return co_ranges(d, el, false);
    case VU_BLK_WRITE_ZEROES: return co_ranges(d, el, true);
    default: return -ENOTSUP;
    }
}

static uint32_t co_vu_blk_request(void *arg, struct vu_elem *el)
{
    struct vu_blk *d = arg;
    uint8_t h[16], status = VU_BLK_OK;
    if (!el->in_len || !copy(el->out, el->n_out, 0, h, sizeof h, false))
        return 0;                       /* no place for an answer, or nothing to answer */
    struct iovec last = el->in[el->n_in - 1];
    uint32_t type = ld_le32(h);
    int r = co_execute(d, el, type, ld_le64(h + 8));
    el->in[el->n_in - 1] = last;        /* whole again: trim() cut it */
    if (r)
        status = r == -ENOTSUP ? VU_BLK_UNSUPP : VU_BLK_IOERR;
    if (r && status == VU_BLK_IOERR && (type == VU_BLK_IN || type == VU_BLK_OUT))
        blk_error_action(d->exp.blk, type == VU_BLK_IN, r);
    ((uint8_t *)last.iov_base)[last.iov_len - 1] = status;
    return (uint32_t)MIN(el->in_len, (uint64_t)UINT32_MAX);
}

/* ---- life ---- */

static void vu_blk_attached(void *arg, bool there)
{
    struct vu_blk *d = arg;
    if (there)
        blk_export_get(&d->exp);
    else
        blk_export_put(&d->exp);
}

static const struct vu_ops vu_blk_ops = {
    .features = vu_blk_features, .set_features = vu_blk_set_features, .config = vu_blk_config, .set_config = vu_blk_set_config,
    .co_request = co_vu_blk_request, .attached = vu_blk_attached,
};

static void size_changed(void *arg) { vu_config_changed(&((struct vu_blk *)arg)->server); }

static bool vu_blk_start(struct blk_export *x, struct err *e)
{
    struct vu_blk *d = (struct vu_blk *)x;
    struct blk_caps caps;
    blk_get_caps(x->blk, &caps);
    if (d->block < caps.logical_block)
        return err_set(e, ERR_VALUE, "logical-block-size is %u, but '%s' takes requests of %u bytes and up only", d->block, x->node_name,
                       caps.logical_block);
    blk_set_change_cb(x->blk, size_changed, d);
    d->server = (struct vu_server){ .ops = &vu_blk_ops, .arg = d, .name = x->obj.id, .n_rings = d->num_queues, .dom = x->dom };
    return vu_server_start(&d->server, d->addr, e);
}

static void vu_blk_stop(struct blk_export *x) { vu_server_stop(&((struct vu_blk *)x)->server); }
static void vu_blk_finalize(struct obj *o) { vu_server_stop(&((struct vu_blk *)o)->server); }

static const struct prop vu_blk_props[] = {
    PROP_JSON(struct vu_blk, addr, "addr", PF_REQUIRED, "Where to listen: type=unix and path"),
    PROP_U16(struct vu_blk, num_queues, "num-queues", 1, 1, VU_RINGS_MAX, "Rings, of which a front end uses as many as it likes"),
    { .name = "logical-block-size", .doc = "Smallest unit of a request in bytes", .type = PROP_T_U32, .flags = PF_POW2, PROP_OFF(struct vu_blk, block),
      .def = SECTOR, .min = SECTOR, .max = 2 * MiB },
    BLK_EXPORT_THREAD_ROW(struct vu_blk, exp),
    PROP_END,
};
static const struct blk_export_class vu_blk_class = {
    .obj = { .name = "export-vhost-user-blk", .desc = "virtio block device by vhost-user", .base = &blk_export_class.obj,
             .size = sizeof(struct vu_blk), .props = vu_blk_props, .finalize = vu_blk_finalize },
    .start = vu_blk_start, .stop = vu_blk_stop,
};
OBJ_CLASS(&vu_blk_class.obj);
