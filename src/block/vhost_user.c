/* SPDX-License-Identifier: MIT */
/* "virtio-blk-vhost-user": a virtio disk that another process serves over a socket. Requests on their way when it goes are done again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "block/vhost_user_int.h"
#include "loop/sock_place.h"

enum { RETRY_NS = 50000000, NS = 1000000000 };

static struct blk_vub *of(struct blk_node *n) { return (struct blk_vub *)n; }
static const uint64_t features_known = BIT64(VU_BLK_F_RO) | BIT64(VU_BLK_F_BLK_SIZE) | BIT64(VU_BLK_F_FLUSH) | BIT64(VU_BLK_F_TOPOLOGY) |
    BIT64(VU_BLK_F_MQ) | BIT64(VU_BLK_F_DISCARD) | BIT64(VU_BLK_F_WRITE_ZEROES) | BIT64(VU_F_VERSION_1) | BIT64(VU_F_PROTOCOL_FEATURES);
static const uint64_t protocol_known = BIT64(VU_P_MQ) | BIT64(VU_P_REPLY_ACK) | BIT64(VU_P_CONFIG);

/* ---- the connection ---- */

/* Nothing comes from there but its end. */
static void sock_event(void *arg, unsigned revents)
{
    struct blk_vub *s = arg;
    vub_lost(s, vu_link_hung_up(&s->link) ? "it closed the connection" : "it speaks without being asked");
}

static void disconnect(struct blk_vub *s)
{
    vub_rings_free(s);
    if (s->link.sock >= 0)
        close(s->link.sock);
    s->link.sock = -1;
}

static bool config_ok(const struct blk_vub *s, struct err *e)
{
    uint32_t block = vub_block(s);
    if (!is_pow2(block) || block < VU_BLK_SECTOR || block > VUB_DATA / 4)
        return err_set(e, ERR_VALUE, "the back end says that a block has %u bytes", block);
    return le64toh(s->config.capacity) <= INT64_MAX / VU_BLK_SECTOR - 8 || err_set(e, ERR_VALUE, "the back end's disk is larger than is possible here");
}

static bool co_agree(struct blk_vub *s, struct err *e)
{
    if (!co_vu_features(&s->link, e) || !co_vu_agree(&s->link, protocol_known, BIT64(VU_P_CONFIG), "a disk", s->num_queues, e))
        return false;
    s->features = s->link.features & features_known;
    if (s->num_queues == 1)
        s->features &= ~BIT64(VU_BLK_F_MQ);
    return co_vu_tell_u64(&s->link, VU_SET_FEATURES, s->features, e) && co_vu_read_config(&s->link, &s->config, sizeof s->config, e) && config_ok(s, e);
}

static bool co_connect(struct blk_vub *s, struct err *e)
{
    struct sock_place place = { .kind = SOCK_UNIX, .path = s->path };
    struct sock_addr at;
    s->link = (struct vu_link){ .sock = co_sock_connect(&place, &at, e) };
    if (s->link.sock < 0)
        return false;
    if (!co_agree(s, e) || !vub_rings_new(s, e) || !co_vub_rings_start(s, e)) {
        for (unsigned i = 0; s->ring && i < s->num_queues; i++)
            if (s->ring[i].watch.fn)
                loop_fd_watch(&s->ring[i].watch, 0);
        disconnect(s);
        return false;
    }
    loop_fd_init(&s->watch, s->node.home, NULL, s->link.sock, sock_event, s);
    loop_fd_watch(&s->watch, LOOP_IN);
    s->connected = true;
    return true;
}

/* A later back end must be the same disk, as far as can be told. What was known of it stands until then. */
static bool co_connect_again(struct blk_vub *s, struct err *e)
{
    const struct blk_vub was = { .features = s->features, .config = s->config };
    if (co_connect(s, e)) {
        if (s->config.capacity == was.config.capacity && !(was.features & ~s->features) && vub_block(s) == vub_block(&was))
            return true;
        vub_lost(s, "it is not the disk that was there before");
        disconnect(s);
        err_set(e, ERR_STATE, "the back end is not the disk that was there before");
    }
    s->features = was.features;
    s->config = was.config;
    return false;
}

/* A connection, until @deadline. */
static int co_ensure(struct blk_vub *s, int64_t deadline)
{
    int r = 0;
    co_mutex_lock(&s->connecting);
    while (!s->connected && !s->closing && !r) {
        struct err e = ERR_INIT;
        while (s->in_flight)
            co_queue_wait(&s->idle);
        disconnect(s);
        if (co_connect_again(s, &e))
            break;
        if (clock_now(CLOCK_HOST) >= deadline)
            r = -EIO;
        else
            co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + RETRY_NS);
    }
    co_mutex_unlock(&s->connecting);
    return s->closing ? -EIO : r;
}

/* ---- requests ---- */

/* What one is: at most VUB_DATA bytes, @out read from @iov or @flat, @in written to @iov. */
struct vub_req { enum vu_blk_type type; uint64_t off; uint32_t out, in; const struct iovec *iov; unsigned niov; const void *flat; };

static int co_once(struct blk_vub *s, const struct vub_req *q)
{
    struct vub_ring *r;
    struct vub_slot *slot = co_vub_slot(s, &r);
    if (!slot)
        return -ENOTCONN;
    uint8_t *data = vub_slot_data(r, slot);
    if (q->flat)
        memcpy(data, q->flat, q->out);
    else if (q->out)
        blk_iov_copy(data, q->iov, q->niov, 0, q->out, false);
    int res = co_vub_do(r, slot, q->type, q->off / VU_BLK_SECTOR, q->out, q->in);
    if (!res && q->in)
        blk_iov_copy(data, q->iov, q->niov, 0, q->in, true);
    vub_slot_put(r, slot);
    return res;
}

static int co_request(struct blk_vub *s, const struct vub_req *q)
{
    int64_t deadline = clock_now(CLOCK_HOST) + (int64_t)s->reconnect_delay * NS;
    int r;
    blk_ask(&s->asked);
    do {
        r = s->connected ? 0 : co_ensure(s, deadline);
        if (!r)
            r = co_once(s, q);
    } while (r == -ENOTCONN && !s->closing && clock_now(CLOCK_HOST) < deadline);
    blk_answered(&s->asked);
    return r == -ENOTCONN ? -EIO : r;
}

/* Whole blocks, in pieces that one request carries. */
static int co_whole(struct blk_node *n, bool write, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct iovec *part = calloc(niov + 1, sizeof *part);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        uint32_t k = (uint32_t)MIN(len - at, (uint64_t)VUB_DATA);
        struct vub_req q = { .type = write ? VU_BLK_OUT : VU_BLK_IN, .off = off + at, .iov = part };
        q.niov = blk_iov_slice(iov, niov, at, k, part);
        *(write ? &q.out : &q.in) = k;
        r = co_request(of(n), &q);
        at += k;
    }
    free(part);
    return r;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return co_blk_ragged(n, &of(n)->ragged, false, off, len, iov, niov, 0);
}

static int co_flush(struct blk_node *n)
{
    const struct vub_req q = { .type = VU_BLK_FLUSH };
    return vub_has(of(n), VU_BLK_F_FLUSH) ? co_request(of(n), &q) : 0;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_blk_ragged(n, &of(n)->ragged, true, off, len, iov, niov, 0);
    return !r && flags & BLK_FUA ? co_flush(n) : r;
}

/* [off, off + len), whole blocks, in ranges of at most @most sectors. */
static int co_ranges(struct blk_vub *s, enum vu_blk_type type, uint64_t off, uint64_t len, uint32_t most, uint32_t flags)
{
    uint64_t step = align_down((uint64_t)most * VU_BLK_SECTOR, vub_block(s));
    int r = (off | len) & (vub_block(s) - 1) || !step ? -ENOTSUP : 0;
    for (uint64_t at = 0; at < len && !r; at += step) {
        struct vu_blk_range range = { (off + at) / VU_BLK_SECTOR, (uint32_t)(MIN(step, len - at) / VU_BLK_SECTOR), flags };
        const struct vub_req q = { .type = type, .out = sizeof range, .flat = &range };
        r = co_request(s, &q);
    }
    return r;
}

static int co_zero_whole(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_vub *s = of(n);
    uint32_t unmap = flags & BLK_ZERO_UNMAP && s->config.zeroes_may_unmap ? VU_BLK_ZEROES_UNMAP : 0;
    return co_ranges(s, VU_BLK_WRITE_ZEROES, off, len, le32toh(s->config.max_zeroes_sectors), unmap);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct blk_vub *s = of(n);
    int r = vub_has(s, VU_BLK_F_WRITE_ZEROES) ? co_blk_ragged_zero(n, &s->ragged, off, len, flags, co_zero_whole) : -ENOTSUP;
    return !r && flags & BLK_FUA ? co_flush(n) : r;
}

static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct blk_vub *s = of(n);
    int r = vub_has(s, VU_BLK_F_DISCARD) ? co_ranges(s, VU_BLK_DISCARD, off, len, le32toh(s->config.max_discard_sectors), 0) : 0;
    return r == -ENOTSUP ? 0 : r;
}

/* ---- life ---- */

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_vub *s = of(n);
    blk_ragged_init(&s->ragged);
    s->ragged.co_whole = co_whole;
    if (!co_connect(s, e))
        return false;
    bool ro = vub_has(s, VU_BLK_F_RO);
    if (ro && !n->read_only && !n->auto_read_only) {
        err_set(e, ERR_VALUE, "the back end's disk is read-only");
        return err_hint(e, "read-only=on");
    }
    n->read_only |= ro;
    uint32_t block = s->ragged.block = vub_block(s), topology = vub_has(s, VU_BLK_F_TOPOLOGY);
    atomic_store(&n->size, le64toh(s->config.capacity) * VU_BLK_SECTOR);
    n->caps = (struct blk_caps){ .read_only = n->read_only, .discard = n->discard == BLK_DISCARD_UNMAP && vub_has(s, VU_BLK_F_DISCARD),
        .write_zeroes = vub_has(s, VU_BLK_F_WRITE_ZEROES), .flush = !n->no_flush && vub_has(s, VU_BLK_F_FLUSH), .fua = true,
        .logical_block = block, .physical_block = topology && s->config.physical_exp < 16 ? MIN(block << s->config.physical_exp, 2u * MiB) : block,
        .opt_io = topology ? le32toh(s->config.opt_io) * block : 0, .mem_align = 1 };
    return true;
}

static bool abandon(struct blk_node *n, int64_t since)
{
    struct blk_vub *s = of(n);
    if (s->closing || !blk_asked_in_vain(&s->asked, since))
        return false;
    s->closing = true;
    vub_lost(s, "");
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_vub *s = of(n);
    s->closing = true;
    vub_lost(s, "");
    co_mutex_lock(&s->connecting);
    disconnect(s);
    co_mutex_unlock(&s->connecting);
    blk_ragged_fini(&s->ragged);
}

static bool init(struct obj *o, struct err *e)
{
    struct blk_vub *s = (struct blk_vub *)o;
    s->link.sock = s->memory = -1;
    return true;
}

static const char *filename(const struct blk_node *n) { return ((const struct blk_vub *)n)->path; }

static const struct prop props[] = {
    PROP_STR(struct blk_vub, path, "path", PF_REQUIRED, "Unix socket of the back end"),
    PROP_U16(struct blk_vub, num_queues, "num-queues", 1, 1, VUB_QUEUES_MAX, "Rings, between which requests take turns; the back end must have as many"),
    PROP_U32(struct blk_vub, reconnect_delay, "reconnect-delay", 0, 0, 86400, "Seconds that requests wait for a lost back end; 0: they fail, the next one tries again"),
    PROP_END,
};
static const struct blk_driver vub_driver = {
    .obj = { .name = "blockdev-virtio-blk-vhost-user", .desc = "Disk of a vhost-user back end", .base = &blk_node_class, .size = sizeof(struct blk_vub),
             .props = props, .init = init },
    .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero, .co_discard = co_discard,
    .co_flush = co_flush, .filename = filename,
};
OBJ_CLASS(&vub_driver.obj);
