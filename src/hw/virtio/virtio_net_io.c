/* SPDX-License-Identifier: MIT */
/* Data path of virtio-net (VIRTIO 1.2, 5.1.6): packets between the rings and the port. */
#include <stdlib.h>
#include "base/log.h"
#include "hw/virtio/virtio_net.h"

/* ---- guest to network ---- */

static bool tx_one(struct virtq *vq, struct vq_elem *e)
{
    struct virtio_net *n = vnet(vq->v);
    uint64_t skip = n->caps.vnet_hdr ? 0 : n->hdr_len, len = e->out.len;
    struct iovec *own = NULL, *iov;
    unsigned n_iov;
    bool taken = true;

    if (len <= n->hdr_len) {
        virtio_error(&n->v, "a packet of %llu bytes is shorter than its header", (unsigned long long)len);
    } else if (len - skip <= NET_MAX_PACKET) {
        iov = vec_slice(&e->out, skip, len - skip, &n_iov, &own);
        taken = !iov || net_send(n->port, iov, n_iov);
        free(own);
    }
    if (!taken) {
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

    virtq_kick(n->tx);
}

/* ---- network to guest ---- */

#define RX_MERGE_MAX 64                     /* buffers for one packet */

/* Takes buffers for @need bytes; their number, 0 if there are too few (none is taken then). */
static unsigned rx_buffers(struct virtio_net *n, uint64_t need, struct vq_elem **out, bool *too_small)
{
    bool merge = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
    unsigned count = 0, max = merge ? RX_MERGE_MAX : 1;
    uint64_t have = 0;

    while (have < need && count < max) {
        struct vq_elem *e = virtq_pop(n->rx);
        if (!e && virtq_empty(n->rx, true))
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

static void rx_copy(struct virtio_net *n, struct vq_elem **e, unsigned count, const struct vnet_header *h, const uint8_t *pkt, size_t len)
{
    uint64_t at = n->hdr_len;
    size_t done = 0;

    vec_from_buf(&e[0]->in, 0, h, n->hdr_len);
    for (unsigned i = 0; i < count; i++) {
        size_t part = vec_from_buf(&e[i]->in, at, pkt + done, len - done);
        done += part;
        virtq_push(e[i], (uint32_t)(at + part));
        at = 0;
    }
}

static bool vnet_receive(void *arg, const uint8_t *pkt, size_t len)
{
    struct virtio_net *n = arg;
    struct vq_elem *e[RX_MERGE_MAX];
    struct vnet_header h = { 0 };
    size_t strip = n->caps.vnet_hdr ? n->hdr_len : 0;
    bool too_small = false;
    unsigned count;

    if (n->v.quiesced)
        return false;                       /* it waits for the machine */
    if (!virtio_running(&n->v) || !n->rx->enabled || len < strip)
        return true;
    memcpy(&h, pkt, strip);
    pkt += strip;
    len -= strip;
    if (!vnet_filter(n, pkt, len))
        return true;
    count = rx_buffers(n, n->hdr_len + len, e, &too_small);
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
    vnet_link(arg, up);
}

const struct net_port_ops vnet_port_ops = { .receive = vnet_receive, .link_changed = vnet_link_changed, .sent = vnet_sent };

/* ---- receive filter (5.1.6.5.1 to 5.1.6.5.3) ---- */

void vnet_filter_reset(struct virtio_net *n)
{
    n->promisc = true;
    n->allmulti = n->alluni = n->nomulti = n->nouni = n->nobcast = false;
    memset(&n->uni, 0, sizeof n->uni);
    memset(&n->multi, 0, sizeof n->multi);
    memset(n->vlans, 0, sizeof n->vlans);
}

static bool in_table(const struct vnet_macs *t, const uint8_t *mac)
{
    if (t->overflow)
        return true;
    for (unsigned i = 0; i < t->n; i++)
        if (!memcmp(t->mac[i], mac, 6))
            return true;
    return false;
}

bool vnet_filter(const struct virtio_net *n, const uint8_t *pkt, size_t len)
{
    static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

    if (len < 14)
        return false;
    if (n->promisc)
        return true;
    if (virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) && len >= 18 && ld_be16(pkt + 12) == 0x8100) {
        unsigned vid = ld_be16(pkt + 14) & 0xfff;
        if (!(n->vlans[vid / 32] >> vid % 32 & 1))
            return false;
    }
    if (!memcmp(pkt, broadcast, 6))
        return !n->nobcast;
    if (pkt[0] & 1)
        return !n->nomulti && (n->allmulti || in_table(&n->multi, pkt));
    return !n->nouni && (n->alluni || !memcmp(pkt, n->mac, 6) || in_table(&n->uni, pkt));
}
