/* SPDX-License-Identifier: MIT */
/* Memory balloon device (VIRTIO 1.2, 5.5). Thread: the device's domain, at home on the main loop. */
#ifndef HW_VIRTIO_VIRTIO_BALLOON_H
#define HW_VIRTIO_VIRTIO_BALLOON_H

#include <jansson.h>
#include "hw/virtio/virtio.h"
#include "mem/ram.h"

#define VBALLOON_PFN_SHIFT 12           /* 5.5: the unit is 4096 bytes, whatever the guest's page size */
#define VBALLOON_PFN_BYTES (UINT64_C(1) << VBALLOON_PFN_SHIFT)
#define VBALLOON_QUEUE_SIZE 128

enum { VIRTIO_BALLOON_F_STATS_VQ = 1, VIRTIO_BALLOON_F_DEFLATE_ON_OOM = 2, VIRTIO_BALLOON_F_PAGE_POISON = 4,
       VIRTIO_BALLOON_F_PAGE_REPORTING = 5 };                                           /* 5.5.3 */

/* 5.5.4, little endian. */
struct virtio_balloon_config { uint32_t num_pages, actual, free_page_hint_cmd_id, poison_val; };
static_assert(sizeof(struct virtio_balloon_config) == 16, "5.5.4");

struct virtio_balloon_stat { uint16_t tag; uint64_t val; } __attribute__((packed));     /* 5.5.6.3 */
static_assert(sizeof(struct virtio_balloon_stat) == 10, "5.5.6.3");
#define VBALLOON_STATS 16               /* tags that have a name */

/* A page of the back end larger than 4 KiB of which the guest has given parts: it goes when the last part came. */
struct vballoon_part { struct ram *ram; uint64_t off; uint32_t left; uint8_t *given; };

struct virtio_balloon {
    struct virtio_dev v;                /* first */
    uint64_t feature_opts;              /* bits of features that are options */
    uint32_t stats_interval;            /* seconds; 0: not polled */
    json_t *stats;                      /* as qom-get reads it */
    struct virtq *inflate, *deflate, *statsq, *report;      /* report: NULL if not offered */
    struct vq_elem *stats_held;         /* the guest's buffer, which goes back to ask for new numbers */
    struct timer poll;
    struct vballoon_part part;
    uint64_t discarded;                 /* bytes, since the start */
};

/* virtio_balloon_mem.c */
void vballoon_inflated(struct virtq *vq);       /* handlers of the queues */
void vballoon_deflated(struct virtq *vq);
void vballoon_reported(struct virtq *vq);
void vballoon_forget_parts(struct virtio_balloon *b);

/* virtio_balloon_stats.c */
void vballoon_stats_received(struct virtq *vq);
void vballoon_stats_init(struct virtio_balloon *b);
void vballoon_stats_arm(struct virtio_balloon *b);      /* the poll timer, by the interval */
void vballoon_stats_forget(struct virtio_balloon *b);
void vballoon_stats_poll(void *balloon);

#endif
