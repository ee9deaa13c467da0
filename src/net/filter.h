/* SPDX-License-Identifier: MIT */
/* What a network filter (-object filter-...) is made of. Packets are copied on whatever thread they pass, and worked on on the main loop. */
#ifndef NET_FILTER_H
#define NET_FILTER_H

#include <pthread.h>
#include "base/ring.h"
#include "net/net_int.h"

struct net_filter {
    struct obj obj;
    /* options */
    char *netdev, *position;
    int queue, insert, status;          /* enum filter_queue; 0 behind, 1 before; 0 on, 1 off */
    /* state */
    struct netdev *nd;                  /* NULL: gone, or not yet there */
    struct list link;                   /* in the netdev's list, in the order of NET_TX */
    atomic_bool on;
    pthread_mutex_t lock;               /* a leaf lock, for the queue */
    struct ring packets;
    unsigned n_packets;
    struct post post;
};
enum filter_queue { FILTER_ALL, FILTER_RX, FILTER_TX };

/* A packet that passed: @data begins with @hdr_len bytes of offload header. */
struct filter_packet { uint32_t len, hdr_len, dir; };

struct net_filter_class {
    struct obj_class obj;
    bool (*open)(struct net_filter *, struct err *);
    void (*close)(struct net_filter *);                         /* also after a failed open */
    /* Whether packets go no further (they come to seen() all the same). ANY */
    bool (*steals)(const struct net_filter *);
    void (*seen)(struct net_filter *, const struct filter_packet *, const uint8_t *data);       /* main loop */
    void (*status)(struct net_filter *);                        /* ->on has changed. May be NULL */
};
extern const struct obj_class net_filter_class; /* abstract, "netfilter" */
#define FILTER_CLASS(f) ((const struct net_filter_class *)(f)->obj.cls)

/* Sends a packet on, to the filters behind this one and then to where it was bound. Main loop. */
void net_filter_pass(struct net_filter *f, const struct filter_packet *p, const uint8_t *data);
bool net_filter_sees(const struct net_filter *f, enum net_dir dir);

#endif
