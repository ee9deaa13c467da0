/* SPDX-License-Identifier: MIT */
#include "vhost_user/vu_link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include "loop/loop.h"

/* Of those that are sent; for messages. */
static const char *const names[VU_REQUESTS] = {
    [VU_GET_FEATURES] = "GET_FEATURES", [VU_SET_FEATURES] = "SET_FEATURES", [VU_SET_OWNER] = "SET_OWNER", [VU_SET_MEM_TABLE] = "SET_MEM_TABLE",
    [VU_SET_VRING_NUM] = "SET_VRING_NUM", [VU_SET_VRING_ADDR] = "SET_VRING_ADDR", [VU_SET_VRING_BASE] = "SET_VRING_BASE",
    [VU_GET_VRING_BASE] = "GET_VRING_BASE", [VU_SET_VRING_KICK] = "SET_VRING_KICK", [VU_SET_VRING_CALL] = "SET_VRING_CALL",
    [VU_SET_VRING_ERR] = "SET_VRING_ERR", [VU_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES", [VU_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
    [VU_GET_QUEUE_NUM] = "GET_QUEUE_NUM", [VU_SET_VRING_ENABLE] = "SET_VRING_ENABLE", [VU_SET_BACKEND_REQ_FD] = "SET_BACKEND_REQ_FD",
    [VU_GET_CONFIG] = "GET_CONFIG", [VU_SET_CONFIG] = "SET_CONFIG", [VU_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
    [VU_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD", [VU_RESET_DEVICE] = "RESET_DEVICE", [VU_SET_STATUS] = "SET_STATUS", [VU_GET_STATUS] = "GET_STATUS",
};

static const char *const protocol_names[] = { [VU_P_MQ] = "MQ", [VU_P_CONFIG] = "CONFIG" };

/* ---- one message ---- */

/* A connection that ended or stalled under @request. False. */
static bool broken(enum vu_request request, int r, struct err *e)
{
    if (r == -ETIMEDOUT)
        return err_set(e, ERR_OS, "the back end does not answer %s", names[request]);
    if (r == -ECONNRESET)
        return err_set(e, ERR_OS, "the back end closed the connection at %s", names[request]);
    return err_os(e, -r, "vhost-user message %s", names[request]);
}

static bool co_say(struct vu_link *l, enum vu_request request, uint32_t flags, const void *data, uint32_t n, const struct vu_fds *pass, struct err *e)
{
    uint8_t wire[sizeof(struct vu_header) + sizeof(struct vu_mem_table)];
    struct vu_header h = { request, VU_VERSION | flags, n };

    memcpy(wire, &h, sizeof h);
    if (n)
        memcpy(wire + sizeof h, data, n);
    int r = co_vu_send(l->sock, wire, sizeof h + n, pass, clock_now(CLOCK_HOST) + VU_ANSWER_S * INT64_C(1000000000));
    return !r || broken(request, r, e);
}

/* An answer of exactly @n bytes. */
static bool co_hear(struct vu_link *l, enum vu_request request, void *data, uint32_t n, int *fd, unsigned seconds, struct err *e)
{
    int64_t deadline = clock_now(CLOCK_HOST) + seconds * INT64_C(1000000000);
    struct vu_header h;
    struct vu_fds fds = { .n = 0 };
    int r = co_vu_receive(l->sock, &h, sizeof h, &fds, deadline);
    bool ok = false;

    if (r)
        broken(request, r, e);
    else if (h.request != request || (h.flags & (VU_VERSION_MASK | VU_FLAG_REPLY)) != (VU_VERSION | VU_FLAG_REPLY))
        err_set(e, ERR_OS, "the back end answers %s with message %u, flags 0x%x", names[request], h.request, h.flags);
    else if (h.size != n)
        err_set(e, ERR_OS, "the back end answers %s with %u bytes in place of %u", names[request], h.size, n);
    else if ((r = co_vu_receive(l->sock, data, n, &fds, deadline)))
        broken(request, r, e);
    else
        ok = true;
    if (fd)
        *fd = ok ? vu_fds_take(&fds) : -1;
    vu_fds_close(&fds);
    return ok;
}

bool co_vu_ask(struct vu_link *l, enum vu_request request, const void *data, uint32_t n, void *answer, uint32_t answer_n, int *fd, unsigned seconds,
                  struct err *e)
{
    return co_say(l, request, 0, data, n, NULL, e) && co_hear(l, request, answer, answer_n, fd, seconds, e);
}

static bool co_ask_u64(struct vu_link *l, enum vu_request request, uint64_t *v, struct err *e)
{
    return co_vu_ask(l, request, NULL, 0, v, sizeof *v, NULL, VU_ANSWER_S, e);
}

bool co_vu_tell(struct vu_link *l, enum vu_request request, const void *data, uint32_t n, const struct vu_fds *pass, struct err *e)
{
    bool ack = vu_link_speaks(l, VU_P_REPLY_ACK);
    uint64_t refused = 0;

    if (!co_say(l, request, ack ? VU_FLAG_NEED_REPLY : 0, data, n, pass, e) ||
        (ack && !co_hear(l, request, &refused, sizeof refused, NULL, VU_ANSWER_S, e)))
        return false;
    return !refused || err_set(e, ERR_VALUE, "the back end refuses %s", names[request]);
}

bool co_vu_tell_u64(struct vu_link *l, enum vu_request request, uint64_t v, struct err *e)
{
    return co_vu_tell(l, request, &v, sizeof v, NULL, e);
}

bool co_vu_tell_fd(struct vu_link *l, enum vu_request request, unsigned index, int fd, struct err *e)
{
    struct vu_fds fds = { { fd }, 1 };
    uint64_t ring = index;

    return co_vu_tell(l, request, &ring, sizeof ring, &fds, e);
}

/* ---- the beginning of a connection ---- */

bool co_vu_features(struct vu_link *l, struct err *e)
{
    l->protocol = 0;
    if (!co_ask_u64(l, VU_GET_FEATURES, &l->features, e))
        return false;
    return l->features & BIT64(VU_F_VERSION_1) || err_set(e, ERR_STATE, "the back end does not offer VIRTIO_F_VERSION_1: it is older than virtio 1");
}

static bool co_protocol(struct vu_link *l, uint64_t known, uint64_t needed, const char *what, struct err *e)
{
    bool has = l->features & BIT64(VU_F_PROTOCOL_FEATURES);
    uint64_t p = 0;

    if (has && !co_ask_u64(l, VU_GET_PROTOCOL_FEATURES, &p, e))
        return false;
    if (needed & ~p)
        return err_set(e, ERR_STATE, "the back end lacks protocol feature %s, which %s needs", protocol_names[ctz64(needed & ~p)], what);
    if (has && !co_vu_tell_u64(l, VU_SET_PROTOCOL_FEATURES, p & known, e))
        return false;
    l->protocol = p & known;
    return true;
}

bool co_vu_agree(struct vu_link *l, uint64_t known, uint64_t needed, const char *what, unsigned n_rings, struct err *e)
{
    uint64_t n = 1;

    if (!co_protocol(l, known, needed, what, e) || !co_vu_tell(l, VU_SET_OWNER, NULL, 0, NULL, e) ||
        (vu_link_speaks(l, VU_P_MQ) && !co_ask_u64(l, VU_GET_QUEUE_NUM, &n, e)))
        return false;
    return n >= n_rings || err_set(e, ERR_VALUE, "num-queues: the back end has %llu, less than the %u asked for", (unsigned long long)n, n_rings);
}

/* ---- the configuration ("Virtio device config space") ---- */

bool co_vu_read_config(struct vu_link *l, void *config, uint32_t n, struct err *e)
{
    struct vu_config c = { .size = n };
    uint32_t len = (uint32_t)offsetof(struct vu_config, data) + n;

    if (!co_vu_ask(l, VU_GET_CONFIG, &c, len, &c, len, NULL, VU_ANSWER_S, e))
        return false;
    if (c.off || c.size != n)
        return err_set(e, ERR_OS, "the back end answers GET_CONFIG with bytes %u+%u in place of 0+%u", c.off, c.size, n);
    memcpy(config, c.data, n);
    return true;
}

bool vu_link_hung_up(const struct vu_link *l)
{
    struct pollfd p = { l->sock, POLLRDHUP, 0 };

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}
