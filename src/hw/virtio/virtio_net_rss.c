/* SPDX-License-Identifier: MIT */
/* Which queue receives a packet (VIRTIO 1.2, 5.1.6.4, 5.1.6.5.6, 5.1.6.5.7): hashes, tables, remembered flows. */
#include "hw/virtio/virtio_net.h"

enum {      /* 5.1.6.4.3.1 */
    HASH_IPV4 = 1, HASH_TCPV4 = 2, HASH_UDPV4 = 4, HASH_IPV6 = 8, HASH_TCPV6 = 16, HASH_UDPV6 = 32,
};
enum {      /* 5.1.6.4.4 */
    REPORT_NONE, REPORT_IPV4, REPORT_TCPV4, REPORT_UDPV4, REPORT_IPV6, REPORT_TCPV6, REPORT_UDPV6,
};
enum { PROTO_TCP = 6, PROTO_UDP = 17 };

/* ---- headers ---- */

/* Addresses, and ports where the type of hash takes them and the packet has them. */
static void flow_ip(struct vnet_flow *f, const uint8_t *addr, unsigned addr_len, const uint8_t *l4, size_t l4_len,
                    uint8_t proto, uint32_t types, unsigned shift)
{
    bool tcp = proto == PROTO_TCP && types & (unsigned)HASH_TCPV4 << shift;
    bool udp = proto == PROTO_UDP && types & (unsigned)HASH_UDPV4 << shift;

    memcpy(f->bytes, addr, addr_len);
    f->len = (uint8_t)addr_len;
    if ((tcp || udp) && l4_len >= 4) {
        memcpy(f->bytes + addr_len, l4, 4);
        f->len = (uint8_t)(addr_len + 4);
        f->report = (uint8_t)((tcp ? REPORT_TCPV4 : REPORT_UDPV4) + shift);
    } else if (types & (unsigned)HASH_IPV4 << shift) {
        f->report = (uint8_t)(REPORT_IPV4 + shift);
    } else {
        f->len = 0;
    }
}

void vnet_flow_of(const uint8_t *pkt, size_t len, uint32_t types, struct vnet_flow *f)
{
    size_t at = 12, head;
    uint16_t type;

    *f = (struct vnet_flow){ 0 };
    for (unsigned tags = 0; tags < 2 && len >= at + 6; tags++, at += 4)
        if (ld_be16(pkt + at) != 0x8100 && ld_be16(pkt + at) != 0x88a8)
            break;
    if (len < at + 2)
        return;
    type = ld_be16(pkt + at);
    pkt += at + 2;
    len -= at + 2;
    if (type == 0x0800 && len >= 20 && pkt[0] >> 4 == 4) {
        head = (pkt[0] & 15) * 4u;
        bool whole = head >= 20 && len >= head && !(ld_be16(pkt + 6) & 0x3fff);     /* a fragment has no ports */
        flow_ip(f, pkt + 12, 8, pkt + head, whole ? len - head : 0, pkt[9], types, 0);
    } else if (type == 0x86dd && len >= 40 && pkt[0] >> 4 == 6) {
        flow_ip(f, pkt + 8, 32, pkt + 40, len - 40, pkt[6], types, 3);
    }
}

/* ---- hashing ---- */

/* Each set bit of the input adds (xor) the 32 bits of the key that begin at its place. */
uint32_t vnet_toeplitz(const uint8_t key[VNET_KEY_MAX], const uint8_t *data, unsigned n)
{
    uint32_t hash = 0, window = ld_be32(key);

    for (unsigned i = 0; i < n; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            if (data[i] << bit & 0x80)
                hash ^= window;
            window = window << 1 | (i + 4 < VNET_KEY_MAX ? key[i + 4] >> (7 - bit) & 1u : 0);
        }
    return hash;
}

/* The same for both directions of a flow. */
static unsigned flow_slot(const uint8_t *pkt, size_t len)
{
    struct vnet_flow f;
    uint32_t h = 0;

    vnet_flow_of(pkt, len, VNET_HASH_TYPES, &f);
    for (unsigned i = 0; i + 2 <= f.len; i += 2)
        h += ld_be16(f.bytes + i);
    return (h ^ h >> 8) % VNET_FLOWS;
}

void vnet_learn(struct virtio_net *n, unsigned pair, const uint8_t *pkt, size_t len)
{
    n->flows[flow_slot(pkt, len)] = (uint16_t)pair;
}

unsigned vnet_steer(struct virtio_net *n, const uint8_t *pkt, size_t len, struct vnet_header *h)
{
    struct vnet_flow f = { 0 };
    uint32_t hash = 0;
    unsigned pair = 0;

    if (n->rss.types) {
        vnet_flow_of(pkt, len, n->rss.types, &f);
        hash = f.report ? vnet_toeplitz(n->rss.key, f.bytes, f.len) : 0;
    }
    if (virtio_has(&n->v, VIRTIO_NET_F_HASH_REPORT)) {
        h->hash_value = htole32(hash);
        h->hash_report = htole16(f.report);
    }
    if (n->rss.steer)
        pair = f.report ? n->rss.table[hash & (n->rss.table_len - 1u)] : n->rss.unclassified;
    else if (n->pairs > 1)
        pair = n->flows[flow_slot(pkt, len)];
    return pair < n->pairs ? pair : 0;
}

/* ---- configuration by the driver ---- */

bool vnet_rss_valid(const struct virtio_net *n)
{
    const struct vnet_rss *r = &n->rss;

    if (r->types & ~VNET_HASH_TYPES)
        return false;
    if (!r->steer)
        return true;
    if (!is_pow2(r->table_len) || r->table_len > VNET_TABLE_MAX || r->unclassified >= n->max_pairs)
        return false;
    for (unsigned i = 0; i < r->table_len; i++)
        if (r->table[i] >= n->max_pairs)
            return false;
    return true;
}

/* The key at @off. Drivers may send padding behind it. */
static bool read_key(const struct vq_elem *e, uint64_t off, uint8_t *key)
{
    uint8_t n = 0;

    if (vec_to_buf(&e->out, off, &n, 1) != 1 || n > VNET_KEY_MAX || !range_ok(off + 1, n, e->out.len))
        return false;
    memset(key, 0, VNET_KEY_MAX);
    return vec_to_buf(&e->out, off + 1, key, n) == n;
}

/* Types, then either mask, queue, table, number of senders, or 8 reserved bytes; then the key. */
bool vnet_rss_set(struct virtio_net *n, const struct vq_elem *e, bool steer)
{
    struct vnet_rss old = n->rss, r = { .steer = steer };
    uint8_t b[8];
    uint64_t off = 10;
    uint16_t pairs = n->pairs;

    if (vec_to_buf(&e->out, 2, b, sizeof b) != sizeof b)
        return false;
    r.types = ld_le32(b);
    if (steer) {
        r.table_len = (uint16_t)(ld_le16(b + 4) + 1);
        r.unclassified = ld_le16(b + 6);
        if (!r.table_len || r.table_len > VNET_TABLE_MAX)
            return false;
        for (unsigned i = 0; i < r.table_len; i++, off += 2) {
            if (vec_to_buf(&e->out, off, b, 2) != 2)
                return false;
            r.table[i] = ld_le16(b);
        }
        if (vec_to_buf(&e->out, off, b, 2) != 2)
            return false;
        pairs = ld_le16(b);
        off += 2;
    } else {
        off += 4;                           /* the other half of the reserved bytes */
    }
    if (!read_key(e, off, r.key) || !pairs || pairs > n->max_pairs)
        return false;
    n->rss = r;
    if (!vnet_rss_valid(n)) {
        n->rss = old;
        return false;
    }
    n->pairs = pairs;
    for (unsigned i = 0; steer && i < r.table_len; i++)     /* there may be more queues to receive than to send */
        n->pairs = MAX(n->pairs, (uint16_t)(r.table[i] + 1));
    n->pairs = MAX(n->pairs, (uint16_t)(r.unclassified + 1));
    net_port_ready(n->port);
    return true;
}
