/* SPDX-License-Identifier: MIT */
/*
 * filter-mirror and filter-redirector: packets to and from chardevs, each after its length as 32 bits in network order; with
 * vnet_hdr_support=on, then the length of its offload header and that header.
 */
#include <stdlib.h>
#include <string.h>
#include "chardev/chr.h"
#include "net/filter.h"

enum { OUT_BYTES = 1 << 20, HEAD_MAX = 8 };

struct chr_filter {
    struct net_filter f;
    struct obj *indev, *outdev;
    bool vnet_hdr;
    struct chr_front in, out;
    bool in_used, out_used;
    struct ring queue;                  /* what @out has not taken yet */
    uint8_t *packet;                    /* what comes from @in: its head, then itself */
    uint32_t got;
};

static struct chr_filter *of(struct net_filter *f) { return (struct chr_filter *)f; }

/* ---- out ---- */

static void flush(void *arg)
{
    struct chr_filter *c = arg;
    const uint8_t *run;
    uint32_t n;
    while ((n = ring_peek(&c->queue, &run)) > 0) {
        uint32_t done = (uint32_t)chr_write(&c->out, run, n);
        ring_skip(&c->queue, done);
        if (done < n)
            break;
    }
}

static void seen(struct net_filter *f, const struct filter_packet *p, const uint8_t *data)
{
    struct chr_filter *c = of(f);
    uint8_t head[HEAD_MAX];
    uint32_t skip = c->vnet_hdr ? 0 : p->hdr_len, len = p->len - skip, n = c->vnet_hdr ? 8 : 4;
    if (p->len <= skip || !c->out_used || !chr_is_open(&c->out) || ring_room(&c->queue) < n + len)
        return;                         /* nobody there, or too slow: lost */
    st_be32(head, len);
    st_be32(head + 4, p->hdr_len);
    ring_put(&c->queue, head, n);
    ring_put(&c->queue, data + skip, len);
    flush(c);
}

/* ---- in ---- */

static uint32_t head_len(const struct chr_filter *c) { return c->vnet_hdr ? 8 : 4; }

static size_t can_read(void *arg)
{
    struct chr_filter *c = arg;
    uint32_t head = head_len(c);
    if (!atomic_load(&c->f.on))
        return 0;
    return c->got < head ? head - c->got : head + ld_be32(c->packet) - c->got;
}

static void pass(struct chr_filter *c)
{
    struct filter_packet p = { ld_be32(c->packet), c->vnet_hdr ? ld_be32(c->packet + 4) : 0, 0 };
    c->got = 0;
    for (int dir = NET_TX; dir <= NET_RX; dir++) {
        p.dir = (uint32_t)dir;
        if (net_filter_sees(&c->f, dir))
            net_filter_pass(&c->f, &p, c->packet + head_len(c));
    }
}

static void on_read(void *arg, const uint8_t *buf, size_t n)
{
    struct chr_filter *c = arg;
    uint32_t head = head_len(c);
    memcpy(c->packet + c->got, buf, n);
    c->got += (uint32_t)n;
    if (c->got == head) {
        uint32_t len = ld_be32(c->packet), hdr = c->vnet_hdr ? ld_be32(c->packet + 4) : 0;
        if (!len || len > NET_MAX_PACKET || hdr > len)
            c->got = 0;                 /* no packet has such a length: the next four bytes may be one */
    } else if (c->got > head && c->got == head + ld_be32(c->packet)) {
        pass(c);
    }
}

static void on_event(void *arg, enum chr_event ev)
{
    struct chr_filter *c = arg;
    if (ev == CHR_OPENED || ev == CHR_CLOSED)
        c->got = 0;
}

static void on_status(struct net_filter *f)
{
    if (of(f)->in_used)
        chr_accept(&of(f)->in);
}

/* ---- life ---- */

static bool open_both(struct net_filter *f, struct err *e)
{
    struct chr_filter *c = of(f);
    if (!c->indev && !c->outdev) {
        err_set(e, ERR_VALUE, "neither indev nor outdev is given");
        return err_hint(e, "indev=CHARDEV, outdev=CHARDEV or both");
    }
    if (c->indev && c->indev == c->outdev)
        return err_set(e, ERR_VALUE, "indev and outdev are the same chardev");
    ring_init(&c->queue, OUT_BYTES);
    c->packet = xcalloc(1, HEAD_MAX + NET_MAX_PACKET);
    c->out = (struct chr_front){ .writable = flush, .arg = c };
    c->in = (struct chr_front){ .can_read = can_read, .read = on_read, .event = on_event, .arg = c };
    c->out_used = c->outdev && chr_connect(&c->out, c->outdev, NULL, f->obj.id, e);
    if (c->outdev && !c->out_used)
        return false;
    c->in_used = c->indev && chr_connect(&c->in, c->indev, NULL, f->obj.id, e);
    return !c->indev || c->in_used;
}

static void close_both(struct net_filter *f)
{
    struct chr_filter *c = of(f);
    if (c->in_used)
        chr_disconnect(&c->in);
    if (c->out_used)
        chr_disconnect(&c->out);
    if (c->packet)
        ring_free(&c->queue);
    free(c->packet);
}

static bool never(const struct net_filter *f) { return false; }
static bool if_out(const struct net_filter *f) { return ((const struct chr_filter *)f)->outdev != NULL; }

#define VNET_ROW PROP_BOOL(struct chr_filter, vnet_hdr, "vnet_hdr_support", false, "Offload headers go along, behind their length")
static const struct prop mirror_props[] = {
    PROP_LINK(struct chr_filter, outdev, "outdev", &chr_class, PF_REQUIRED, "Chardev that gets a copy of each packet"),
    VNET_ROW,
    PROP_END
};
static const struct prop redirector_props[] = {
    PROP_LINK(struct chr_filter, indev, "indev", &chr_class, 0, "Chardev that packets come from"),
    PROP_LINK(struct chr_filter, outdev, "outdev", &chr_class, 0, "Chardev that packets go to, and no further"),
    VNET_ROW,
    PROP_END
};

static const struct net_filter_class mirror_class = {
    .obj = { .name = "filter-mirror", .desc = "A chardev gets a copy of each packet", .base = &net_filter_class, .size = sizeof(struct chr_filter),
             .props = mirror_props },
    .open = open_both, .close = close_both, .steals = never, .seen = seen,
};
OBJ_CLASS(&mirror_class.obj);
static const struct net_filter_class redirector_class = {
    .obj = { .name = "filter-redirector", .desc = "Packets leave for a chardev, and come back from one", .base = &net_filter_class,
             .size = sizeof(struct chr_filter), .props = redirector_props },
    .open = open_both, .close = close_both, .steals = if_out, .seen = seen, .status = on_status,
};
OBJ_CLASS(&redirector_class.obj);
