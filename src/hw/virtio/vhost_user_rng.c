/* SPDX-License-Identifier: MIT */
/* Entropy device (VIRTIO 1.2, 5.4) that a back end of vhost-user serves. */
#include "hw/virtio/vhost_user.h"
#include "hw/virtio/virtio_forms.h"

enum { QUEUE_SIZE = 64 };

struct vhost_user_rng { struct vhost_user u; };

static const struct vhost_user_kind kind = { .features = 0 };

static bool vurng_realize(struct virtio_dev *v, struct err *e)
{
    return vhost_user_open(&((struct vhost_user_rng *)v)->u, &kind, 1, QUEUE_SIZE, e);
}

static const struct virtio_model vurng_model = {
    .name = "vhost-user-rng", .id = VIRTIO_ID_ENTROPY, .pci_legacy_id = 0x1005, .pci_class = 0x00ff00, .realize = vurng_realize,
    .unrealize = vhost_user_close, .features = vhost_user_features, VHOST_USER_HOOKS,
};

static const struct prop vurng_props[] = {
    PROP_INCLUDE(struct vhost_user_rng, u.v.opt, virtio_props),
    VHOST_USER_CHARDEV_ROW(struct vhost_user_rng, u),
    PROP_END
};

static const struct state_field vurng_fields[] = { STATE_STRUCT(struct vhost_user_rng, u, &vhost_user_state), STATE_END };
static const struct state_desc vurng_state = { .name = "vhost-user-rng", .version = 1, .fields = vurng_fields };

static const char *const vurng_names[] = { "vhost-user-rng", NULL };
VIRTIO_FORMS(vhost_user_rng, struct vhost_user_rng, "vhost-user-rng", "Entropy device of a vhost-user back end", "Misc", vurng_props, &vurng_state,
             &vurng_model, vurng_names);
