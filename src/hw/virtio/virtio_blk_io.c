/* SPDX-License-Identifier: MIT */
/* Data path of virtio-blk: each request is a coroutine from its descriptor chain to its status byte (VIRTIO 1.2, 5.2.6). */
#include <errno.h>
#include <stdlib.h>
#include "base/log.h"
#include "hw/virtio/virtio_blk.h"

static struct virtio_blk *blk_of(const struct vq_elem *e) { return (struct virtio_blk *)e->vq->v; }

bool vblk_range_bytes(const struct virtio_blk *b, uint64_t sector, uint64_t len, uint64_t *off)
{
    uint64_t sectors = blk_size(b->blk) / VBLK_SECTOR;

    if (len % VBLK_SECTOR || !range_ok(sector, len / VBLK_SECTOR, sectors))
        return false;
    *off = sector * VBLK_SECTOR;
    return !(*off % b->opt.logical_block_size) && !(len % b->opt.logical_block_size);
}

static int co_read(struct virtio_blk *b, struct vq_elem *e, uint64_t sector)
{
    uint64_t len = e->in.len - 1, off;
    struct iovec *own = NULL, *iov;
    unsigned n;
    int r;

    if (!vblk_range_bytes(b, sector, len, &off))
        return -EINVAL;
    if (vblk_zone_crossed(b, off, len))
        return -EDOM;
    iov = vec_slice(&e->in, 0, len, &n, &own);
    r = iov ? co_blk_preadv(b->blk, off, len, iov, n, 0) : -ENOMEM;
    free(own);
    return r;
}

static int co_write(struct virtio_blk *b, struct vq_elem *e, uint64_t sector)
{
    uint64_t len = e->out.len - sizeof(struct vblk_header), off;
    struct iovec *own = NULL, *iov;
    unsigned n;
    int r;

    if (!vblk_range_bytes(b, sector, len, &off))
        return -EINVAL;
    iov = vec_slice(&e->out, sizeof(struct vblk_header), len, &n, &own);
    r = iov ? co_blk_pwritev(b->blk, off, len, iov, n, 0) : -ENOMEM;
    free(own);
    return r;
}

/* What the configuration space allows one range to have. */
static uint32_t most_sectors(const struct virtio_blk *b, uint32_t type)
{
    const struct vblk_config *c = (const struct vblk_config *)b->v.config;

    return le32toh(type == VIRTIO_BLK_T_DISCARD ? c->max_discard_sectors : type == VIRTIO_BLK_T_SECURE_ERASE ? c->max_secure_erase_sectors :
                   c->max_write_zeroes_sectors);
}

/* Discard, secure erase and write zeroes (5.2.6.2): one range a request is what the configuration space allows. */
static int co_range(struct virtio_blk *b, struct vq_elem *e, uint32_t type)
{
    unsigned feature = type == VIRTIO_BLK_T_DISCARD ? VIRTIO_BLK_F_DISCARD : type == VIRTIO_BLK_T_SECURE_ERASE ? VIRTIO_BLK_F_SECURE_ERASE :
                       VIRTIO_BLK_F_WRITE_ZEROES;
    struct vblk_range g;
    uint64_t off, len;

    if (!virtio_has(&b->v, feature))
        return -ENOTSUP;
    if (b->caps.read_only || e->out.len != sizeof(struct vblk_header) + sizeof g)
        return -EINVAL;
    vec_to_buf(&e->out, sizeof(struct vblk_header), &g, sizeof g);
    len = (uint64_t)le32toh(g.sectors) * VBLK_SECTOR;
    if ((le32toh(g.flags) & ~1u) || (type != VIRTIO_BLK_T_WRITE_ZEROES && g.flags))
        return -ENOTSUP;
    if (le32toh(g.sectors) > most_sectors(b, type) || !vblk_range_bytes(b, le64toh(g.sector), len, &off))
        return -EINVAL;
    if (type == VIRTIO_BLK_T_DISCARD)
        return co_blk_discard(b->blk, off, len);
    if (type == VIRTIO_BLK_T_SECURE_ERASE)
        return co_blk_erase(b->blk, off, len);
    return co_blk_zero(b->blk, off, len, le32toh(g.flags) & 1 && b->caps.discard ? BLK_ZERO_UNMAP : 0);
}

static int get_id(struct virtio_blk *b, struct vq_elem *e)
{
    char id[VBLK_ID_BYTES] = { 0 };

    if (b->serial)
        memcpy(id, b->serial, MIN(strlen(b->serial), sizeof id));
    vec_from_buf(&e->in, 0, id, MIN(sizeof id, e->in.len - 1));
    return 0;
}

/* 0 or -errno; @invalid tells a request that the guest got wrong from one that the back end failed. */
static int co_execute(struct virtio_blk *b, struct vq_elem *e, uint32_t type, uint64_t sector)
{
    switch (type) {
    case VIRTIO_BLK_T_IN: return co_read(b, e, sector);
    case VIRTIO_BLK_T_OUT: return b->caps.read_only ? -EINVAL : co_write(b, e, sector);
    case VIRTIO_BLK_T_FLUSH: return virtio_has(&b->v, VIRTIO_BLK_F_FLUSH) ? co_blk_flush(b->blk) : -ENOTSUP;
    case VIRTIO_BLK_T_GET_ID: return get_id(b, e);
    case VIRTIO_BLK_T_DISCARD: case VIRTIO_BLK_T_WRITE_ZEROES: case VIRTIO_BLK_T_SECURE_ERASE: return co_range(b, e, type);
    default: return co_vblk_zone(b, e, type, sector);
    }
}

static void finish(struct vq_elem *e, int result)
{
    uint8_t zone = vblk_zone_status(blk_of(e), result);
    uint8_t status = zone ? zone : !result ? VIRTIO_BLK_S_OK : result == -ENOTSUP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;

    vec_from_buf(&e->in, e->in.len - 1, &status, 1);
    virtq_push(e, (uint32_t)e->in.len);
}

static void park(struct virtio_blk *b, struct vblk_req *r)
{
    list_push(&b->stopped, &r->link);
    virtq_park(&r->e);
}

/* From the chain to the status byte. @r may be in use again on return. */
static void co_serve(struct virtio_blk *b, struct vblk_req *r)
{
    struct vq_elem *e = &r->e;
    struct vblk_header h;
    uint32_t type;
    int result;

    if (vec_to_buf(&e->out, 0, &h, sizeof h) != sizeof h || e->in.len == 0) {
        virtio_error(&b->v, "queue %u: a request without header or status", e->vq->index);
        virtq_push(e, 0);
        return;
    }
    type = le32toh(h.type);
    result = co_execute(b, e, type, le64toh(h.sector));
    if (virtq_stale(e)) {
        virtq_push(e, (uint32_t)e->in.len);     /* what was written is marked; nobody hears of it */
        return;
    }
    if (result == -EINVAL)
        log_guest("virtio-blk '%s': request of type %u at sector %llu refused", b->v.dev->obj.id, type,
                  (unsigned long long)le64toh(h.sector));
    else if (result && result != -ENOTSUP && !vblk_zone_status(b, result)) {
        switch (blk_error_action(b->blk, type == VIRTIO_BLK_T_IN, -result)) {
        case BLK_ACT_STOP: park(b, r); return;
        case BLK_ACT_IGNORE: result = 0; break;
        case BLK_ACT_REPORT: break;
        }
    }
    finish(e, result);
}

static void co_request(void *arg)
{
    struct vblk_req *r = arg;
    struct virtio_blk *b = blk_of(&r->e);

    virtio_hold(&b->v);                     /* @b stays until the end of this */
    co_serve(b, r);
    b->running--;
    if (b->starved && b->running <= VBLK_RUNNING_MAX / 2) {
        b->starved = false;
        for (unsigned i = 0; i < b->num_queues; i++)
            virtq_kick(&b->v.vq[i]);
    }
    virtio_release(&b->v);
}

static void request_start(struct vblk_req *r)
{
    blk_of(&r->e)->running++;
    co_spawn_on(r->e.vq->loop, r->e.vq->v->dom, co_request, r);
}

void vblk_start(struct vblk_req *r)
{
    virtq_unpark(&r->e);
    if (!virtq_remap(&r->e)) {
        virtq_push(&r->e, 0);
        return;
    }
    request_start(r);
}

static bool serve(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_blk *b = blk_of(e);

    if (b->running >= VBLK_RUNNING_MAX) {
        b->starved = true;
        virtq_unpop(e);
        return false;
    }
    request_start((struct vblk_req *)e);
    return true;
}

void vblk_kicked(struct virtq *vq)
{
    virtq_drain(vq, serve);
}
