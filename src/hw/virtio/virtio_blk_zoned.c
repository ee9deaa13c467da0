/* SPDX-License-Identifier: MIT */
/* Zones of virtio-blk (VIRTIO 1.3, 5.2.6): host-managed, those of the back end. */
#include <errno.h>
#include <stdlib.h>
#include "hw/virtio/virtio_blk.h"

#define APPEND_MAX (512 * KiB)
#define REPORT_ZONES_MAX 4096u          /* of one answer; drivers ask for the rest */
enum { ZT_CONV = 1, ZT_SWR = 2 };

void vblk_zone_config(const struct virtio_blk *b, struct vblk_config *c)
{
    c->zoned.zone_sectors = htole32((uint32_t)(b->caps.zoned.size / VBLK_SECTOR));
    c->zoned.max_open_zones = htole32(b->caps.zoned.max_open);
    c->zoned.max_active_zones = htole32(b->caps.zoned.max_active);
    c->zoned.max_append_sectors = htole32((uint32_t)(MIN(APPEND_MAX, b->caps.zoned.size) / VBLK_SECTOR));
    c->zoned.write_granularity = htole32(b->opt.logical_block_size);
    c->zoned.model = VIRTIO_BLK_Z_HM;
}

bool vblk_zone_crossed(const struct virtio_blk *b, uint64_t off, uint64_t len)
{
    const struct blk_zoned *z = &b->caps.zoned;

    return z->size && len && off + len > z->from && off / z->size != (off + len - 1) / z->size;   /* range: checked against the disk before */
}

uint8_t vblk_zone_status(const struct virtio_blk *b, int result)
{
    if (!b->caps.zoned.size)
        return 0;
    switch (result) {
    case -EDOM: case -E2BIG: case -EXFULL: case -EACCES: case -EUNATCH: return VIRTIO_BLK_S_ZONE_INVALID_CMD;
    case -ESPIPE: return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
    case -ETOOMANYREFS: return VIRTIO_BLK_S_ZONE_OPEN_RESOURCE;
    case -EOVERFLOW: return VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE;
    default: return 0;
    }
}

static int co_report(struct virtio_blk *b, struct vq_elem *e, uint64_t sector)
{
    size_t room = e->in.len - 1;
    struct vblk_zone *out;
    struct blk_zone *zone;
    unsigned n;
    int r;

    if (room < sizeof *out || sector >= blk_size(b->blk) / VBLK_SECTOR)
        return -EDOM;
    n = (unsigned)MIN(room / sizeof *out - 1, (size_t)REPORT_ZONES_MAX);
    zone = xcalloc(n + 1, sizeof *zone);
    out = xcalloc(n + 1, sizeof *out);                  /* the first is the header: how many follow */
    r = co_blk_zone_report(b->blk, sector * VBLK_SECTOR, zone, &n);
    for (unsigned i = 0; !r && i < n; i++)
        out[i + 1] = (struct vblk_zone){ .cap = htole64(zone[i].cap / VBLK_SECTOR), .start = htole64(zone[i].start / VBLK_SECTOR),
                                         .wp = htole64(zone[i].wp == UINT64_MAX ? UINT64_MAX : zone[i].wp / VBLK_SECTOR),
                                         .type = zone[i].state == ZONE_NOT_WP ? ZT_CONV : ZT_SWR, .state = zone[i].state };
    st_le64(out, n);
    if (!r)
        vec_from_buf(&e->in, 0, out, (n + 1) * sizeof *out);
    free(zone);
    free(out);
    return r;
}

/* The place comes first, the status last; Linux leaves padding between them. */
static int co_append(struct virtio_blk *b, struct vq_elem *e, uint64_t sector)
{
    uint64_t len = e->out.len - sizeof(struct vblk_header), off, place;
    struct iovec *own = NULL, *iov;
    unsigned n;
    int r;

    if (b->caps.read_only || e->in.len < sizeof place + 1)
        return -EINVAL;
    if (!len || len > APPEND_MAX || !vblk_range_bytes(b, sector, len, &off))
        return -EDOM;
    iov = vec_slice(&e->out, sizeof(struct vblk_header), len, &n, &own);
    r = iov ? co_blk_zone_append(b->blk, &off, len, iov, n) : -ENOMEM;
    free(own);
    place = htole64(off / VBLK_SECTOR);
    if (!r)
        vec_from_buf(&e->in, 0, &place, sizeof place);
    return r;
}

static int co_op(struct virtio_blk *b, enum zone_op op, uint64_t sector)
{
    if (b->caps.read_only)
        return -EINVAL;
    return sector < blk_size(b->blk) / VBLK_SECTOR ? co_blk_zone_op(b->blk, op, sector * VBLK_SECTOR) : -EDOM;
}

int co_vblk_zone(struct virtio_blk *b, struct vq_elem *e, uint32_t type, uint64_t sector)
{
    if (!virtio_has(&b->v, VIRTIO_BLK_F_ZONED))
        return -ENOTSUP;
    switch (type) {
    case VIRTIO_BLK_T_ZONE_REPORT: return co_report(b, e, sector);
    case VIRTIO_BLK_T_ZONE_APPEND: return co_append(b, e, sector);
    case VIRTIO_BLK_T_ZONE_OPEN: return co_op(b, ZONE_OP_OPEN, sector);
    case VIRTIO_BLK_T_ZONE_CLOSE: return co_op(b, ZONE_OP_CLOSE, sector);
    case VIRTIO_BLK_T_ZONE_FINISH: return co_op(b, ZONE_OP_FINISH, sector);
    case VIRTIO_BLK_T_ZONE_RESET: return co_op(b, ZONE_OP_RESET, sector);
    case VIRTIO_BLK_T_ZONE_RESET_ALL: return b->caps.read_only ? -EINVAL : co_blk_zone_op(b->blk, ZONE_OP_RESET, BLK_ALL_ZONES);
    default: return -ENOTSUP;
    }
}
