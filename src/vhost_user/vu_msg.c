/* SPDX-License-Identifier: MIT */
/* Messages of the front end: read, checked, carried out, answered. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "base/str.h"
#include "vhost_user/vu_int.h"

struct msg {
    struct vu_header h;
    union {
        uint64_t u64;
        struct vu_state state;
        struct vu_addr addr;
        struct vu_mem_table table;
        struct vu_mem_one one;
        struct vu_log log;
        struct vu_config config;
        struct vu_inflight inflight;
        uint8_t raw[512];
    };
    struct vu_fds fds;
    bool reply;                     /* the payload is an answer, of h.size bytes */
    int reply_fd;                   /* goes along, and is closed. -1: none */
};

static bool co_answer(struct vu_conn *c, struct msg *m)
{
    uint8_t wire[sizeof m->h + sizeof m->raw];
    m->h.flags = VU_VERSION | VU_FLAG_REPLY;
    memcpy(wire, &m->h, sizeof m->h);
    memcpy(wire + sizeof m->h, m->raw, m->h.size);
    struct vu_fds pass = { { m->reply_fd }, m->reply_fd >= 0 };
    int r = co_vu_send(c->fd, wire, sizeof m->h + m->h.size, &pass, INT64_MAX);
    vu_fds_close(&pass);
    m->reply_fd = -1;
    return !r;
}

/* ---- rows ---- */

static bool answer_u64(struct msg *m, uint64_t v)
{
    m->u64 = v;
    m->h.size = 8;
    return m->reply = true;
}

static struct vu_ring *ring_of(struct vu_conn *c, uint64_t index, struct err *e)
{
    if (index < c->s->n_rings)
        return &c->ring[index];
    err_set(e, ERR_VALUE, "there is no ring %llu", (unsigned long long)index);
    return NULL;
}

static uint64_t features_of(const struct vu_conn *c)
{
    return c->s->ops->features(c->s->arg) | BIT64(VU_F_LOG_ALL) | BIT64(VU_F_INDIRECT_DESC) | BIT64(VU_F_EVENT_IDX) | BIT64(VU_F_PROTOCOL_FEATURES) |
           BIT64(VU_F_VERSION_1);
}
static const uint64_t protocol_offered = BIT64(VU_P_MQ) | BIT64(VU_P_LOG_SHMFD) | BIT64(VU_P_REPLY_ACK) | BIT64(VU_P_BACKEND_REQ) | BIT64(VU_P_CONFIG) |
    BIT64(VU_P_INFLIGHT_SHMFD) | BIT64(VU_P_RESET_DEVICE) | BIT64(VU_P_CONFIGURE_MEM_SLOTS);

static bool get_features(struct vu_conn *c, struct msg *m, struct err *e) { return answer_u64(m, features_of(c)); }

static bool set_features(struct vu_conn *c, struct msg *m, struct err *e)
{
    if (m->u64 & ~features_of(c))
        return err_set(e, ERR_VALUE, "features 0x%llx were not offered", (unsigned long long)(m->u64 & ~features_of(c)));
    c->features = m->u64;
    c->s->ops->set_features(c->s->arg, m->u64);
    for (unsigned i = 0; i < c->s->n_rings && !vu_has(c, VU_F_PROTOCOL_FEATURES); i++)
        c->ring[i].enabled = true;
    return true;
}

static bool set_owner(struct vu_conn *c, struct msg *m, struct err *e) { return true; }
static bool get_protocol(struct vu_conn *c, struct msg *m, struct err *e) { return answer_u64(m, protocol_offered); }

static bool set_protocol(struct vu_conn *c, struct msg *m, struct err *e)
{
    if (m->u64 & ~protocol_offered)
        return err_set(e, ERR_VALUE, "protocol features 0x%llx were not offered", (unsigned long long)(m->u64 & ~protocol_offered));
    c->protocol = m->u64;
    return true;
}

static bool get_queue_num(struct vu_conn *c, struct msg *m, struct err *e) { return answer_u64(m, c->s->n_rings); }

/* All rings stop as at the beginning. */
static bool co_reset(struct vu_conn *c, struct msg *m, struct err *e)
{
    co_vu_pause(c);
    for (unsigned i = 0; i < c->s->n_rings; i++) {
        struct vu_ring *r = &c->ring[i];
        r->started = r->enabled = r->resumed = r->broken = false;
        r->desc = NULL;
        r->addr = (struct vu_addr){ .index = i };
        r->last_avail = r->used_idx = 0;
    }
    c->features = 0;
    vu_resume(c);
    return true;
}

/* ---- memory ---- */

static bool remap_rings(struct vu_conn *c, struct err *e)
{
    for (unsigned i = 0; i < c->s->n_rings; i++)
        if (!vu_ring_map(&c->ring[i], e))
            return false;
    return true;
}

static bool co_set_mem_table(struct vu_conn *c, struct msg *m, struct err *e)
{
    const struct vu_mem_table *t = &m->table;
    if (t->n > 8 || t->n != m->fds.n || m->h.size < 8 + t->n * sizeof t->v[0])
        return err_set(e, ERR_VALUE, "a table of memory with %u pieces has %u descriptors and %u bytes", t->n, m->fds.n, m->h.size);
    co_vu_pause(c);
    vu_rings_unmap(c);
    vu_regions_clear(c);
    bool ok = true;
    for (unsigned i = 0; i < t->n && ok; i++)
        ok = vu_region_add(c, &t->v[i], m->fds.fd[i], e);
    ok = ok && remap_rings(c, e);
    vu_resume(c);
    return ok;
}

static bool get_max_slots(struct vu_conn *c, struct msg *m, struct err *e) { return answer_u64(m, VU_REGIONS); }
static bool add_mem(struct vu_conn *c, struct msg *m, struct err *e) { return vu_region_add(c, &m->one.m, m->fds.n ? m->fds.fd[0] : -1, e); }

static bool co_del_mem(struct vu_conn *c, struct msg *m, struct err *e)
{
    co_vu_pause(c);
    vu_rings_unmap(c);
    bool ok = vu_region_del(c, &m->one.m, e);
    struct err gone = ERR_INIT;
    if (!remap_rings(c, &gone))     /* a ring was in it: it stays away until it is told anew */
        log_info("%s: %s", c->s->name, gone.msg);
    vu_resume(c);
    return ok;
}

static bool co_set_log_base(struct vu_conn *c, struct msg *m, struct err *e)
{
    co_vu_pause(c);
    vu_unmap(&c->log);
    bool ok = vu_map(c, &c->log, m->fds.n ? m->fds.fd[0] : -1, m->log.off, m->log.size, e);
    vu_resume(c);
    return ok && answer_u64(m, 0);
}

/* The descriptor by which the front end learns that the log changed: it looks by itself. */
static bool set_log_fd(struct vu_conn *c, struct msg *m, struct err *e) { return true; }

/* ---- rings ---- */

static bool set_num(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r = ring_of(c, m->state.index, e);
    if (!r)
        return false;
    if (!m->state.num || m->state.num > VU_RING_MAX || !is_pow2(m->state.num))
        return err_set(e, ERR_VALUE, "a ring of %u entries", m->state.num);
    if (r->in_flight || (r->started && r->size != m->state.num))
        return err_set(e, ERR_STATE, "ring %u runs", r->index);
    r->size = m->state.num;
    return vu_ring_map(r, e);
}

static bool set_addr(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r = ring_of(c, m->addr.index, e);
    if (!r)
        return false;
    if (r->in_flight && (m->addr.desc != r->addr.desc || m->addr.used != r->addr.used || m->addr.avail != r->addr.avail))
        return err_set(e, ERR_STATE, "ring %u runs", r->index);
    r->addr = m->addr;
    return vu_ring_map(r, e);
}

static bool set_base(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r = ring_of(c, m->state.index, e);
    if (!r || r->in_flight)
        return r && err_set(e, ERR_STATE, "ring %u runs", r->index);
    r->last_avail = (uint16_t)m->state.num;
    r->resumed = false;
    return true;
}

static bool co_get_base(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r = ring_of(c, m->state.index, e);
    if (!r)
        return false;
    r->started = false;
    vu_ring_watch(r, -1);
    co_vu_ring_drain(r);
    m->state = (struct vu_state){ r->index, r->last_avail };
    m->h.size = sizeof m->state;
    r->resumed = r->broken = false;
    return m->reply = true;
}

/* A descriptor of a ring: -1 where the front end does without. */
static bool ring_fd(struct vu_conn *c, struct msg *m, struct vu_ring **r, int *fd, struct err *e)
{
    *r = ring_of(c, m->u64 & 0xff, e);
    if (!*r)
        return false;
    *fd = m->u64 & VU_VRING_NO_FD ? -1 : vu_fds_take(&m->fds);
    if (*fd < 0)
        return m->u64 & VU_VRING_NO_FD || err_set(e, ERR_VALUE, "a descriptor is missing");
    if (fcntl(*fd, F_SETFL, O_NONBLOCK | fcntl(*fd, F_GETFL)) == 0)
        return true;
    close(*fd);
    return err_set(e, ERR_VALUE, "a descriptor is of no use");
}

static bool set_kick(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r;
    int fd;
    if (!ring_fd(c, m, &r, &fd, e))
        return false;
    vu_ring_watch(r, fd);
    r->started = true;
    vu_ring_run(r);
    return true;
}

static void replace_fd(int *at, int fd)
{
    if (*at >= 0)
        close(*at);
    *at = fd;
}

static bool set_call(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r;
    int fd;
    if (!ring_fd(c, m, &r, &fd, e))
        return false;
    replace_fd(&r->call, fd);
    if (r->started && fd >= 0) {            /* what ended before it came is not lost */
        r->signalled_valid = false;
        vu_ring_notify(r);
    }
    return true;
}

static bool set_err(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r;
    int fd;
    if (!ring_fd(c, m, &r, &fd, e))
        return false;
    replace_fd(&r->err, fd);
    return true;
}

static bool set_enable(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_ring *r = ring_of(c, m->state.index, e);
    if (!r || m->state.num > 1)
        return r && err_set(e, ERR_VALUE, "a ring is on (1) or off (0)");
    r->enabled = m->state.num;
    vu_ring_run(r);
    return true;
}

static bool set_backend_fd(struct vu_conn *c, struct msg *m, struct err *e)
{
    int fd = vu_fds_take(&m->fds);
    if (fd < 0)
        return err_set(e, ERR_VALUE, "a descriptor is missing");
    replace_fd(&c->backend_fd, fd);
    return true;
}

/* ---- configuration ---- */

static bool config_ok(const struct msg *m, struct err *e)
{
    const struct vu_config *k = &m->config;
    return (m->h.size >= 12 && k->size <= m->h.size - 12 && range_ok(k->off, k->size, sizeof k->data)) ||
           err_set(e, ERR_VALUE, "a part of the configuration that does not exist");
}

static bool get_config(struct vu_conn *c, struct msg *m, struct err *e)
{
    uint8_t all[256] = { 0 };
    if (!config_ok(m, e))
        return false;
    c->s->ops->config(c->s->arg, all);
    memcpy(m->config.data, all + m->config.off, m->config.size);
    m->h.size = 12 + m->config.size;
    return m->reply = true;
}

static bool set_config(struct vu_conn *c, struct msg *m, struct err *e)
{
    return config_ok(m, e) && (c->s->ops->set_config(c->s->arg, m->config.off, m->config.data, m->config.size) ||
                               err_set(e, ERR_VALUE, "this part of the configuration cannot be written"));
}

/* ---- requests under way ---- */

static uint64_t inflight_size(const struct vu_inflight *i) { return i->queues * vu_slots_size(i->ring_size); }

static bool inflight_ok(struct vu_conn *c, const struct vu_inflight *i, struct err *e)
{
    return (i->queues && i->queues <= c->s->n_rings && i->ring_size && i->ring_size <= VU_RING_MAX) ||
           err_set(e, ERR_VALUE, "a log of requests for %u rings of %u", i->queues, i->ring_size);
}

static void find_slots(struct vu_conn *c, const struct vu_inflight *i)
{
    for (unsigned q = 0; q < c->s->n_rings; q++) {
        struct vu_ring *r = &c->ring[q];
        r->slots = c->inflight.map && q < i->queues ? (struct vu_slots *)(c->inflight.host + q * vu_slots_size(i->ring_size)) : NULL;
        if (r->size > i->ring_size)
            r->slots = NULL;
        r->resumed = false;
    }
}

/* New memory for it, that the front end keeps. */
static bool co_get_inflight(struct vu_conn *c, struct msg *m, struct err *e)
{
    struct vu_inflight *i = &m->inflight;
    if (!inflight_ok(c, i, e))
        return false;
    uint64_t size = inflight_size(i);
    int fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        err_os(e, errno, "no memory for the log of requests");
        if (fd >= 0)
            close(fd);
        return false;
    }
    co_vu_pause(c);
    vu_unmap(&c->inflight);
    bool ok = vu_map(c, &c->inflight, fd, 0, size, e);
    find_slots(c, i);
    vu_resume(c);
    m->reply_fd = fd;
    i->size = size;
    i->off = 0;
    return m->reply = ok;
}

static bool co_set_inflight(struct vu_conn *c, struct msg *m, struct err *e)
{
    const struct vu_inflight *i = &m->inflight;
    if (!inflight_ok(c, i, e))
        return false;
    if (i->size < inflight_size(i) || i->off % 8)
        return err_set(e, ERR_VALUE, "the log of requests is too small");
    co_vu_pause(c);
    vu_unmap(&c->inflight);
    bool ok = vu_map(c, &c->inflight, m->fds.n ? m->fds.fd[0] : -1, i->off, i->size, e);
    find_slots(c, i);
    vu_resume(c);
    return ok;
}

/* ---- dispatch ---- */

static const struct row { uint32_t min, max; bool (*run)(struct vu_conn *, struct msg *, struct err *); } rows[VU_REQUESTS] = {
    [VU_GET_FEATURES] = { 0, 0, get_features }, [VU_SET_FEATURES] = { 8, 8, set_features },
    [VU_SET_OWNER] = { 0, 0, set_owner }, [VU_RESET_OWNER] = { 0, 0, co_reset }, [VU_RESET_DEVICE] = { 0, 0, co_reset },
    [VU_GET_PROTOCOL_FEATURES] = { 0, 0, get_protocol }, [VU_SET_PROTOCOL_FEATURES] = { 8, 8, set_protocol },
    [VU_GET_QUEUE_NUM] = { 0, 0, get_queue_num }, [VU_SET_MEM_TABLE] = { 8, sizeof(struct vu_mem_table), co_set_mem_table },
    [VU_GET_MAX_MEM_SLOTS] = { 0, 0, get_max_slots }, [VU_ADD_MEM_REG] = { 40, 40, add_mem }, [VU_REM_MEM_REG] = { 40, 40, co_del_mem },
    [VU_SET_LOG_BASE] = { 16, 16, co_set_log_base }, [VU_SET_LOG_FD] = { 0, 8, set_log_fd },
    [VU_SET_VRING_NUM] = { 8, 8, set_num }, [VU_SET_VRING_ADDR] = { 40, 40, set_addr }, [VU_SET_VRING_BASE] = { 8, 8, set_base },
    [VU_GET_VRING_BASE] = { 8, 8, co_get_base }, [VU_SET_VRING_KICK] = { 8, 8, set_kick }, [VU_SET_VRING_CALL] = { 8, 8, set_call },
    [VU_SET_VRING_ERR] = { 8, 8, set_err }, [VU_SET_VRING_ENABLE] = { 8, 8, set_enable },
    [VU_SET_BACKEND_REQ_FD] = { 0, 8, set_backend_fd }, [VU_GET_CONFIG] = { 12, sizeof(struct vu_config), get_config },
    [VU_SET_CONFIG] = { 12, sizeof(struct vu_config), set_config }, [VU_GET_INFLIGHT_FD] = { 20, 24, co_get_inflight },
    [VU_SET_INFLIGHT_FD] = { 20, 24, co_set_inflight },
};

/* Carries out one message; false ends the connection. */
static bool co_handle(struct vu_conn *c, struct msg *m, struct err *e)
{
    const struct row *row = m->h.request < VU_REQUESTS && rows[m->h.request].run ? &rows[m->h.request] : NULL;
    bool wants_reply = (m->h.flags & VU_FLAG_NEED_REPLY) && vu_speaks(c, VU_P_REPLY_ACK), ok;
    uint32_t request = m->h.request;
    if (!row)
        ok = err_set(e, ERR_VALUE, "request %u is not known", request);
    else if (m->h.size < row->min || m->h.size > row->max)
        ok = err_set(e, ERR_VALUE, "request %u has %u bytes", request, m->h.size);
    else
        ok = row->run(c, m, e);
    if (!ok && request == VU_GET_CONFIG) {      /* this one has an answer for failure */
        m->h.size = 0;
        m->reply = true;
    } else if (!m->reply && wants_reply) {
        answer_u64(m, !ok);
    }
    if (!ok && m->reply)
        log_info("%s: request %u: %s", c->s->name, request, e->msg);
    return (ok || m->reply) && (!m->reply || co_answer(c, m));
}

void co_vu_serve(struct vu_conn *c)
{
    struct err e = ERR_INIT;
    bool ok = true;
    struct msg *m = xnew(struct msg);
    while (ok && !atomic_load(&c->cut)) {
        *m = (struct msg){ .reply_fd = -1 };
        if (co_vu_receive(c->fd, &m->h, sizeof m->h, &m->fds, INT64_MAX))
            break;
        if ((m->h.flags & VU_VERSION_MASK) != VU_VERSION || m->h.size > sizeof m->raw)
            ok = err_set(&e, ERR_VALUE, "a message is not well formed");
        else if (co_vu_receive(c->fd, m->raw, m->h.size, &m->fds, INT64_MAX))
            break;
        ok = ok && co_handle(c, m, &e);
        vu_fds_close(&m->fds);
        if (m->reply_fd >= 0)
            close(m->reply_fd);
        m->reply_fd = -1;
    }
    vu_fds_close(&m->fds);
    free(m);
    if (atomic_load(&c->cut))
        log_warn("%s: the front end's memory was cut short", c->s->name);
    else if (!ok && e.msg[0])
        log_warn("%s: the connection ends: %s", c->s->name, e.msg);
}

void vu_config_changed(struct vu_server *s)
{
    struct vu_conn *c = s->live;
    struct vu_header h = { VU_BACKEND_CONFIG_CHANGED, VU_VERSION, 0 };
    if (!c || c->backend_fd < 0 || !vu_speaks(c, VU_P_CONFIG))
        return;
    if (send(c->backend_fd, &h, sizeof h, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_warn("%s: the front end cannot be told of another size", s->name);
}
