/* SPDX-License-Identifier: MIT */
/* Block device (VIRTIO 1.2, 5.2): options, features, configuration space, life. The data path is in virtio_blk_io.c. */
#include "hw/virtio/virtio_blk.h"
#include "base/log.h"
#include "hw/virtio/virtio_forms.h"
#include "loop/iothread.h"

static struct virtio_blk *vblk(struct virtio_dev *v) { return (struct virtio_blk *)v; }
static struct vblk_config *config(struct virtio_blk *b) { return (struct vblk_config *)b->v.config; }

/* The largest multiple of @unit bytes within @limit bytes (0: none) and @most sectors, in sectors: one unit at least. */
static uint32_t max_sectors(uint64_t limit, uint32_t most, uint32_t unit)
{
    uint64_t bytes = MIN(limit ? limit : UINT64_MAX, (uint64_t)most * VBLK_SECTOR);

    bytes = MAX(bytes, unit);
    return (uint32_t)((bytes - bytes % unit) / VBLK_SECTOR);
}

static void set_capacity(struct virtio_blk *b)
{
    config(b)->capacity = htole64(blk_size(b->blk) / VBLK_SECTOR);
}

static void set_geometry(struct virtio_blk *b)
{
    struct vblk_config *c = config(b);
    uint64_t sectors = blk_size(b->blk) / VBLK_SECTOR;

    c->cylinders = htole16((uint16_t)(b->opt.cyls ? b->opt.cyls : MIN(sectors / (16 * 63), 65535)));
    c->heads = (uint8_t)(b->opt.heads ? b->opt.heads : 16);
    c->sectors = (uint8_t)(b->opt.secs ? b->opt.secs : 63);
}

static void fill_config(struct virtio_blk *b)
{
    struct vblk_config *c = config(b);
    uint32_t lbs = b->opt.logical_block_size, gran = b->opt.discard_granularity;

    set_capacity(b);
    set_geometry(b);
    if (gran == UINT32_MAX)
        gran = b->caps.discard_granularity;
    c->seg_max = htole32(b->queue_size > 2 ? b->queue_size - 2u : 1u);
    c->blk_size = htole32(lbs);
    c->physical_block_exp = (uint8_t)ctz64(b->opt.physical_block_size / lbs);
    c->min_io_size = htole16((uint16_t)MIN(b->opt.min_io_size / lbs, UINT16_MAX));
    c->opt_io_size = htole32(b->opt.opt_io_size / lbs);
    c->writeback = blk_write_cache(b->blk);
    c->num_queues = htole16(b->num_queues);
    c->max_discard_sectors = htole32(max_sectors(b->caps.max_discard, b->max_discard, lbs));
    c->max_discard_seg = htole32(1);
    c->discard_sector_alignment = htole32(MAX(gran, lbs) / VBLK_SECTOR);
    c->max_write_zeroes_sectors = htole32(max_sectors(b->caps.max_zeroes, b->max_zeroes, lbs));
    c->max_write_zeroes_seg = htole32(1);
    c->write_zeroes_may_unmap = b->caps.discard;
    if (b->secure_erase && b->caps.secure_erase) {
        c->max_secure_erase_sectors = c->max_discard_sectors;
        c->max_secure_erase_seg = htole32(1);
        c->secure_erase_sector_alignment = c->discard_sector_alignment;
    }
    if (b->caps.zoned.size)
        vblk_zone_config(b, c);
}

static void medium_changed(void *arg)
{
    struct virtio_blk *b = arg;

    set_capacity(b);
    set_geometry(b);
    virtio_config_changed(&b->v);
}

static bool vblk_realize(struct virtio_dev *v, struct err *e)
{
    struct virtio_blk *b = vblk(v);

    list_init(&b->stopped);
    b->opt.knows_zones = true;
    if (!dev_boot_set(v->dev, b->opt.bootindex, "/disk@0,0", e))
        return false;
    b->blk = blk_front_open(&b->opt, &v->dev->obj, v->dom, true, e);
    if (!b->blk)
        return false;
    blk_get_caps(b->blk, &b->caps);
    virtio_set_config_size(v, b->caps.zoned.size ? sizeof(struct vblk_config) : offsetof(struct vblk_config, zoned));
    b->wce_at_reset = blk_write_cache(b->blk);
    fill_config(b);
    for (unsigned i = 0; i < b->num_queues; i++)
        virtio_add_queue(v, b->queue_size, sizeof(struct vblk_req), vblk_kicked);
    if (!vblk_threads_set(b, e)) {
        blk_close(b->blk);
        b->blk = NULL;
        return false;
    }
    blk_set_change_cb(b->blk, medium_changed, b);
    return true;
}

static void vblk_unrealize(struct virtio_dev *v)
{
    blk_close(vblk(v)->blk);
    vblk(v)->blk = NULL;
    vblk_threads_forget(vblk(v));
}

static uint64_t vblk_features(struct virtio_dev *v)
{
    struct virtio_blk *b = vblk(v);
    uint64_t f = BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_GEOMETRY) | BIT64(VIRTIO_BLK_F_BLK_SIZE) | BIT64(VIRTIO_BLK_F_TOPOLOGY);

    if (b->caps.read_only)
        f |= BIT64(VIRTIO_BLK_F_RO);
    if (b->caps.flush)
        f |= BIT64(VIRTIO_BLK_F_FLUSH) | (b->config_wce ? BIT64(VIRTIO_BLK_F_CONFIG_WCE) : 0);
    if (b->num_queues > 1)
        f |= BIT64(VIRTIO_BLK_F_MQ);
    if (b->discard && b->caps.discard && !b->caps.read_only)
        f |= BIT64(VIRTIO_BLK_F_DISCARD);
    if (b->write_zeroes && b->caps.write_zeroes && !b->caps.read_only)
        f |= BIT64(VIRTIO_BLK_F_WRITE_ZEROES);
    if (b->secure_erase && b->caps.secure_erase)
        f |= BIT64(VIRTIO_BLK_F_SECURE_ERASE);
    if (b->caps.zoned.size)
        f |= BIT64(VIRTIO_BLK_F_ZONED);
    return f;
}

/* 5.2.5.2: who knows nothing of zones cannot use them. */
static bool vblk_accept(struct virtio_dev *v, uint64_t features)
{
    if (!vblk(v)->caps.zoned.size || features & BIT64(VIRTIO_BLK_F_ZONED))
        return true;
    log_guest("virtio-blk '%s': driver does not know of zones", v->dev->obj.id);
    return false;
}

/* 5.2.5.2: a driver that cannot flush gets a cache that writes through. */
static void vblk_negotiated(struct virtio_dev *v)
{
    struct virtio_blk *b = vblk(v);

    if (!b->caps.flush || virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
        return;
    blk_set_write_cache(b->blk, virtio_has(v, VIRTIO_BLK_F_FLUSH) && b->wce_at_reset);
    config(b)->writeback = blk_write_cache(b->blk);
}

static void vblk_config_write(struct virtio_dev *v, uint32_t off, uint32_t len, const uint8_t *old)
{
    struct virtio_blk *b = vblk(v);

    if (off == offsetof(struct vblk_config, writeback) && len == 1 && virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE)) {
        config(b)->writeback &= 1;
        blk_set_write_cache(b->blk, config(b)->writeback);
    } else {
        memcpy(v->config + off, old, len);
    }
}

static void vblk_queue_reset(struct virtq *vq)
{
    struct virtio_blk *b = vblk(vq->v);
    struct vblk_req *r;

    list_for_each(r, &b->stopped, link) {
        if (r->e.vq != vq)
            continue;
        list_del(&r->link);
        virtq_push(&r->e, 0);
    }
}

static void vblk_reset(struct virtio_dev *v)
{
    struct virtio_blk *b = vblk(v);

    if (!b->blk)
        return;
    blk_set_write_cache(b->blk, b->wce_at_reset);
    config(b)->writeback = b->wce_at_reset;
}

static void vblk_restore(struct vq_elem *e)
{
    struct vblk_req *r = (struct vblk_req *)e;

    list_push(&vblk(e->vq->v)->stopped, &r->link);
}

static void vblk_resumed(struct virtio_dev *v)
{
    struct virtio_blk *b = vblk(v);
    struct list again = LIST_INIT(again), *n;

    list_move(&again, &b->stopped);
    while ((n = list_pop(&again)))
        vblk_start(list_entry(n, struct vblk_req, link));
}

static const struct virtio_model vblk_model = {
    .name = "virtio-blk", .id = VIRTIO_ID_BLOCK, .pci_legacy_id = 0x1001, .pci_class = 0x010000, .realize = vblk_realize,
    .unrealize = vblk_unrealize, .features = vblk_features, .accept = vblk_accept, .modern_only = BIT64(VIRTIO_BLK_F_ZONED),
    .negotiated = vblk_negotiated, .config_write = vblk_config_write,
    .reset = vblk_reset, .queue_reset = vblk_queue_reset, .restore = vblk_restore, .resumed = vblk_resumed,
};

static const struct prop vblk_props[] = {
    PROP_INCLUDE(struct virtio_blk, v.opt, virtio_props),
    PROP_INCLUDE(struct virtio_blk, opt, blk_front_props),
    PROP_INCLUDE(struct virtio_blk, opt, blk_geometry_props),
    PROP_STR(struct virtio_blk, serial, "serial", 0, "Serial number, of which the guest reads the first 20 characters"),
    PROP_U16(struct virtio_blk, num_queues, "num-queues", 1, 1, 256, "Request queues"),
    { .name = "queue-size", .doc = "Requests that one queue holds", .type = PROP_T_U16, PROP_OFF(struct virtio_blk, queue_size),
      .def = 256, .min = 2, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    PROP_BOOL(struct virtio_blk, config_wce, "config-wce", true, "Let the guest switch the write cache, where there is one"),
    PROP_BOOL(struct virtio_blk, secure_erase, "secure-erase", true, "Offer secure erase, where the back end can"),
    PROP_BOOL(struct virtio_blk, discard, "discard", true, "Offer discard, where the back end can"),
    PROP_BOOL(struct virtio_blk, write_zeroes, "write-zeroes", true, "Offer writing of zeroes, where the back end can"),
    PROP_U32(struct virtio_blk, max_discard, "max-discard-sectors", VBLK_RANGE_MAX, 1, VBLK_RANGE_MAX, "Most sectors of 512 bytes in one discard or secure erase"),
    PROP_U32(struct virtio_blk, max_zeroes, "max-write-zeroes-sectors", VBLK_RANGE_MAX, 1, VBLK_RANGE_MAX, "Most sectors of 512 bytes in one writing of zeroes"),
    DEV_IOTHREAD_ROW(struct virtio_blk, iothread),
    PROP_JSON(struct virtio_blk, vq_mapping, "iothread-vq-mapping", 0,
              "Threads that share the queues out: [{\"iothread\":ID},...], or with a list \"vqs\" of queue indexes in each (JSON only)"),
    PROP_END
};

static const struct state_field vblk_fields[] = { STATE_STRUCT(struct virtio_blk, v, &virtio_dev_state), STATE_END };

static bool vblk_post_load(void *obj, struct err *e)
{
    struct virtio_blk *b = obj;

    set_capacity(b);
    blk_set_write_cache(b->blk, config(b)->writeback & 1);
    return true;
}
static const struct state_desc vblk_state = { .name = "virtio-blk", .version = 1, .fields = vblk_fields, .post_load = vblk_post_load };

static const char *const vblk_names[] = { "virtio-blk", NULL };
VIRTIO_FORMS(virtio_blk, struct virtio_blk, "virtio-blk", "Virtio disk", "Storage", vblk_props, &vblk_state, &vblk_model, vblk_names);
