/* SPDX-License-Identifier: MIT */
/* A virtio disk that a back end of vhost-user serves: what the guest sees of it is the back end's, within the options. */
#include "hw/virtio/vhost_user.h"
#include "hw/virtio/virtio_blk.h"
#include "hw/virtio/virtio_forms.h"

struct vhost_user_blk {
    struct vhost_user u;                /* first */
    uint16_t num_queues, queue_size;
    int32_t bootindex;
    bool config_wce, discard, write_zeroes;
};

/* 5.2.4 without secure erase and zones: more than many back ends have is an error to them. */
enum { CONFIG_SIZE = offsetof(struct vblk_config, max_secure_erase_sectors) };

static struct vhost_user_blk *disk(struct virtio_dev *v) { return (struct vhost_user_blk *)v; }

static void fit_config(struct vhost_user *u, uint8_t *config)
{
    struct vhost_user_blk *b = disk(&u->v);
    struct vblk_config *c = (struct vblk_config *)config;
    uint32_t segs = b->queue_size > 2 ? b->queue_size - 2u : 1u;

    c->num_queues = htole16(b->num_queues);
    c->seg_max = htole32(MIN(le32toh(c->seg_max), segs));
}

static const struct vhost_user_kind kind = {
    .features = BIT64(VIRTIO_BLK_F_SIZE_MAX) | BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_GEOMETRY) | BIT64(VIRTIO_BLK_F_RO) |
                BIT64(VIRTIO_BLK_F_BLK_SIZE) | BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_TOPOLOGY) | BIT64(VIRTIO_BLK_F_CONFIG_WCE) |
                BIT64(VIRTIO_BLK_F_MQ) | BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES),
    .protocol = BIT64(VU_P_CONFIG), .config_size = CONFIG_SIZE, .config = fit_config,
};

static bool vublk_realize(struct virtio_dev *v, struct err *e)
{
    struct vhost_user_blk *b = disk(v);

    return dev_boot_set(v->dev, b->bootindex, "/disk@0,0", e) && vhost_user_open(&b->u, &kind, b->num_queues, b->queue_size, e);
}

static uint64_t vublk_features(struct virtio_dev *v)
{
    const struct vhost_user_blk *b = disk(v);
    uint64_t off = (b->num_queues > 1 ? 0 : BIT64(VIRTIO_BLK_F_MQ)) | (b->config_wce ? 0 : BIT64(VIRTIO_BLK_F_CONFIG_WCE)) |
                   (b->discard ? 0 : BIT64(VIRTIO_BLK_F_DISCARD)) | (b->write_zeroes ? 0 : BIT64(VIRTIO_BLK_F_WRITE_ZEROES));

    return vhost_user_features(v) & ~off;
}

static void vublk_config_write(struct virtio_dev *v, uint32_t off, uint32_t len, const uint8_t *old)
{
    if (off == offsetof(struct vblk_config, writeback) && len == 1 && virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE)) {
        v->config[off] &= 1;
        vhost_user_config_written(&disk(v)->u, off, len);
    } else {
        memcpy(v->config + off, old, len);
    }
}

static const struct virtio_model vublk_model = {
    .name = "vhost-user-blk", .id = VIRTIO_ID_BLOCK, .pci_legacy_id = 0x1001, .pci_class = 0x010000, .realize = vublk_realize,
    .unrealize = vhost_user_close, .features = vublk_features, .config_write = vublk_config_write, VHOST_USER_HOOKS,
};

static const struct prop vublk_props[] = {
    PROP_INCLUDE(struct vhost_user_blk, u.v.opt, virtio_props),
    VHOST_USER_CHARDEV_ROW(struct vhost_user_blk, u),
    PROP_U16(struct vhost_user_blk, num_queues, "num-queues", 1, 1, 256, "Request queues, of which the back end must have as many"),
    { .name = "queue-size", .doc = "Requests that one queue holds", .type = PROP_T_U16, PROP_OFF(struct vhost_user_blk, queue_size),
      .def = 128, .min = 2, .max = VIRTQ_SIZE_MAX, .flags = PF_POW2 },
    PROP_BOOL(struct vhost_user_blk, config_wce, "config-wce", true, "Let the guest switch the write cache, where the back end can"),
    PROP_BOOL(struct vhost_user_blk, discard, "discard", true, "Offer discard, where the back end can"),
    PROP_BOOL(struct vhost_user_blk, write_zeroes, "write-zeroes", true, "Offer writing of zeroes, where the back end can"),
    PROP_S32(struct vhost_user_blk, bootindex, "bootindex", -1, -1, INT32_MAX, "Place in the boot order; -1: none"),
    PROP_END
};

/* A write cache that the guest switched off stays off with the back end of the place where it goes on. */
static bool vublk_post_load(void *obj, struct err *e)
{
    struct vhost_user_blk *b = obj;

    if (virtio_has(&b->u.v, VIRTIO_BLK_F_CONFIG_WCE))
        vhost_user_config_written(&b->u, offsetof(struct vblk_config, writeback), 1);
    return true;
}

static const struct state_field vublk_fields[] = { STATE_STRUCT(struct vhost_user_blk, u, &vhost_user_state), STATE_END };
static const struct state_desc vublk_state = { .name = "vhost-user-blk", .version = 1, .fields = vublk_fields, .post_load = vublk_post_load };

static const char *const vublk_names[] = { "vhost-user-blk", NULL };
VIRTIO_FORMS(vhost_user_blk, struct vhost_user_blk, "vhost-user-blk", "Virtio disk of a vhost-user back end", "Storage", vublk_props, &vublk_state,
             &vublk_model, vublk_names);
