/* SPDX-License-Identifier: MIT */
/* Data path of virtio-net (VIRTIO 1.2, 5.1.6): packets between the rings and the port. */
#include <stdlib.h>
#include "base/log.h"
#include "hw/virtio/virtio_net.h"

/* ---- guest to network ---- */

/* The first bytes of a packet, as far as flows are told apart by them. */
static void learn(struct virtio_net *n, const struct vq_elem *e, unsigned pair)
{
    uint8_t head[128];

    vnet_learn(n, pair, head, vec_to_buf(&e->out, n->hdr_len, head, sizeof head));
}

/* The packet with the header that the back end takes. False: it has no room now. */
static bool tx_send(struct virtio_net *n, const struct vq_elem *e)
{
    struct iovec *own = NULL, *iov, *all;
    uint8_t head[VNET_HDR_HASH];
    unsigned n_iov;
    bool taken;

    iov = vec_slice(&e->out, n->hdr_len, e->out.len - n->hdr_len, &n_iov, &own);
    if (!iov)
        return true;
    if (!n->net_hdr) {
        taken = net_send(n->port, iov, n_iov);
        free(own);
        return taken;
    }
    vec_to_buf(&e->out, 0, head, n->net_hdr);
    all = malloc((n_iov + 1) * sizeof *all);
    if (all) {
        all[0] = (struct iovec){ head, n->net_hdr };
        memcpy(all + 1, iov, n_iov * sizeof *all);
    }
    taken = !all || net_send(n->port, all, n_iov + 1);
    free(all);
    free(own);
    return taken;
}

static bool tx_one(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_net *n = vnet(vq->v);

    if (e->out.len <= n->hdr_len) {
        virtio_error(&n->v, "a packet of %llu bytes is shorter than its header", (unsigned long long)e->out.len);
        virtq_push(e, 0);
        return true;
    }
    if (n->pairs > 1 && !n->rss.steer)
        learn(n, e, vq->index / 2u);
    if (e->out.len <= NET_MAX_PACKET && !tx_send(n, e)) {
        virtq_unpop(e);                     /* vnet_sent() goes on */
        return false;
    }
    virtq_push(e, 0);
    return true;
}

void vnet_tx_kicked(struct virtq *vq)
{
    virtq_drain(vq, tx_one);
}

static void vnet_sent(void *arg)
{
    struct virtio_net *n = arg;

    for (unsigned i = 0; i < n->max_pairs; i++)
        virtq_kick(virtio_queue(&n->v, 2 * i + 1));
}

/* ---- network to guest ---- */

#define RX_MERGE_MAX 64                     /* buffers for one packet */

/* Takes buffers for @need bytes; their number, 0 if there are too few (none is taken then). */
static unsigned rx_buffers(struct virtio_net *n, struct virtq *vq, uint64_t need, struct vq_elem **out, bool *too_small)
{
    bool merge = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
    unsigned count = 0, max = merge ? RX_MERGE_MAX : 1;
    uint64_t have = 0;

    while (have < need && count < max) {
        struct vq_elem *e = virtq_pop(vq);
        if (!e && virtq_empty(vq))
            break;
        if (!e)
            continue;
        out[count++] = e;
        have += e->in.len;
    }
    if (have >= need)
        return count;
    *too_small = count == max;
    while (count)
        virtq_unpop(out[--count]);
    return 0;
}

static void rx_copy(struct virtio_net *n, struct vq_elem **e, unsigned count, const struct vnet_header *h,
                    const uint8_t *pkt, size_t len)
{
    uint64_t at = n->hdr_len;
    size_t done = 0;

    vec_from_buf(&e[0]->in, 0, h, n->hdr_len);
    for (unsigned i = 0; i < count; i++) {
        size_t part = vec_from_buf(&e[i]->in, at, pkt + done, len - done);
        done += part;
        virtq_push(e[i], (uint32_t)MIN(at + part, e[i]->in.len));
        at = 0;
    }
}

static bool vnet_receive(void *arg, const uint8_t *pkt, size_t len)
{
    struct virtio_net *n = arg;
    struct vq_elem *e[RX_MERGE_MAX];
    struct vnet_header h = { 0 };
    bool too_small = false;
    struct virtq *vq;
    unsigned count;

    if (n->v.quiesced)
        return false;                       /* it waits for the machine */
    if (!virtio_running(&n->v) || len < n->net_hdr)
        return true;
    memcpy(&h, pkt, n->net_hdr);
    pkt += n->net_hdr;
    len -= n->net_hdr;
    if (!vnet_filter(n, pkt, len))
        return true;
    vq = virtio_queue(&n->v, 2 * vnet_steer(n, pkt, len, &h));
    if (!vq->enabled)
        return true;
    count = rx_buffers(n, vq, n->hdr_len + len, e, &too_small);
    if (!count && too_small)
        log_guest("virtio-net '%s': a packet of %zu bytes does not fit the driver's buffers", n->v.dev->obj.id, len);
    if (!count)
        return too_small || !virtio_running(&n->v);
    h.num_buffers = htole16((uint16_t)count);
    rx_copy(n, e, count, &h, pkt, len);
    return true;
}

void vnet_rx_kicked(struct virtq *vq)
{
    virtq_want_kick(vq, false);
    net_port_ready(vnet(vq->v)->port);
}

static void vnet_link_changed(void *arg, bool up)
{
    struct virtio_net *n = arg;
    uint16_t old = le16toh(vnet_config(n)->status), now = (uint16_t)(old & ~VIRTIO_NET_S_LINK_UP);

    now |= up ? VIRTIO_NET_S_LINK_UP : 0;
    vnet_config(n)->status = htole16(now);
    if (now != old && virtio_has(&n->v, VIRTIO_NET_F_STATUS))
        virtio_config_changed(&n->v);
}

const struct net_port_ops vnet_port_ops = {
    .receive = vnet_receive, .link_changed = vnet_link_changed, .sent = vnet_sent,
};
