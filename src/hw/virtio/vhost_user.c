/* SPDX-License-Identifier: MIT */
/* The life of a device that a back end of vhost-user serves: connections that come and go, and bringing each to what should be. */
#include "hw/virtio/vhost_user.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "hw/virtio/vhost_user_int.h"

enum { CONNECT_S = 30 };
#define INFLIGHT_MAX (16u << 20)
#define DRIVER_BITS (VIRTIO_S_ACKNOWLEDGE | VIRTIO_S_DRIVER | VIRTIO_S_FEATURES_OK)

static struct vhost_user *vhost(struct virtio_dev *v) { return (struct vhost_user *)v; }

/* ---- configuration ---- */

/* What the back end says, but for what the driver wrote: that the back end is told. */
static void config_apply(struct vhost_user *u, uint8_t *config)
{
    struct virtio_dev *v = &u->v;

    if (u->kind->config)
        u->kind->config(u, config);
    if (memcmp(config + u->write_off, v->config + u->write_off, u->write_len)) {
        memcpy(config + u->write_off, v->config + u->write_off, u->write_len);
        u->write_due = true;
    }
    if (!memcmp(config, v->config, v->config_size))
        return;
    memcpy(v->config, config, v->config_size);
    virtio_config_changed(v);
}

static bool co_config(struct vhost_user *u, struct err *e)
{
    uint8_t config[VHOST_CONFIG_MAX];

    u->config_stale = false;
    if (!u->kind->config_size)
        return true;
    if (!co_vu_read_config(&u->link, config, u->kind->config_size, e))
        return false;
    config_apply(u, config);
    return true;
}

static bool co_write(struct vhost_user *u, struct err *e)
{
    u->write_due = false;
    if (co_vhost_write_config(u, e))
        return true;
    if (e->cls != ERR_VALUE)
        return false;
    log_warn("%s '%s': %s; its configuration stays as it was", u->v.model->name, u->v.dev->obj.id, e->msg);
    u->write_len = 0;
    return co_config(u, e);
}

void vhost_user_config_written(struct vhost_user *u, uint32_t off, uint32_t len)
{
    u->write_off = off;
    u->write_len = len;
    u->write_due = true;
    vhost_user_update(&u->v);
}

/* ---- what the back end says by itself ("Back-end message types") ---- */

static void channel_close(struct vhost_user *u)
{
    if (u->channel < 0)
        return;
    loop_fd_watch(&u->channel_watch, 0);
    close(u->channel);
    u->channel = -1;
}

static void channel_message(struct vhost_user *u)
{
    struct { struct vu_header h; uint64_t refused; } answer;
    bool known;

    memcpy(&answer.h, u->said, sizeof answer.h);
    known = answer.h.request == VU_BACKEND_CONFIG_CHANGED;
    if (known) {
        u->config_stale = true;
        vhost_user_update(&u->v);
    } else {
        log_info("%s '%s': message %u of the back end is not known", u->v.model->name, u->v.dev->obj.id, answer.h.request);
    }
    if (!(answer.h.flags & VU_FLAG_NEED_REPLY))
        return;
    answer.h.flags = VU_VERSION | VU_FLAG_REPLY;
    answer.h.size = sizeof answer.refused;
    answer.refused = !known;
    uint8_t wire[sizeof answer.h + sizeof answer.refused];
    memcpy(wire, &answer.h, sizeof answer.h);
    memcpy(wire + sizeof answer.h, &answer.refused, sizeof answer.refused);
    if (send(u->channel, wire, sizeof wire, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        channel_close(u);
}

/* Bytes that the message on the way has, as far as that is known. */
static uint32_t channel_length(const struct vhost_user *u)
{
    struct vu_header h;

    if (u->said_len < sizeof h)
        return sizeof h;
    memcpy(&h, u->said, sizeof h);
    return h.size > VHOST_CONFIG_MAX ? UINT32_MAX : (uint32_t)sizeof h + h.size;
}

static void channel_said(void *arg, unsigned revents)
{
    struct vhost_user *u = arg;
    struct vu_fds fds = { .n = 0 };
    int k = vu_receive_now(u->channel, u->said + u->said_len, channel_length(u) - u->said_len, &fds);

    vu_fds_close(&fds);
    if (k == -EAGAIN || k == -EINTR)
        return;
    u->said_len += k > 0 ? (uint32_t)k : 0;
    if (k <= 0 || channel_length(u) == UINT32_MAX) {
        channel_close(u);
    } else if (u->said_len == channel_length(u)) {
        u->said_len = 0;
        channel_message(u);
    }
}

static bool co_channel(struct vhost_user *u, struct err *e)
{
    int pair[2];

    if (!vu_link_speaks(&u->link, VU_P_BACKEND_REQ))
        return true;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
        return err_os(e, errno, "no socket for what the back end says");
    struct vu_fds fds = { { pair[1] }, 1 };
    bool ok = co_vu_tell(&u->link, VU_SET_BACKEND_REQ_FD, NULL, 0, &fds, e);
    close(pair[1]);
    u->channel = pair[0];
    u->said_len = 0;
    loop_fd_init(&u->channel_watch, domain_loop(u->v.dom), u->v.dom, u->channel, channel_said, u);
    loop_fd_watch(&u->channel_watch, LOOP_IN);
    return ok;
}

/* ---- requests under way, recorded by the back end ("Inflight I/O tracking") ---- */

static void inflight_forget(struct vhost_user *u)
{
    if (u->inflight_fd >= 0)
        close(u->inflight_fd);
    u->inflight_fd = -1;
}

static bool co_inflight(struct vhost_user *u, struct err *e)
{
    struct vu_inflight want = { .queues = (uint16_t)u->n_rings, .ring_size = u->v.vq[0].num_default }, got;
    struct vu_fds fds = { .n = 1 };
    int fd;

    if (!vu_link_speaks(&u->link, VU_P_INFLIGHT_SHMFD))
        return true;
    if (u->inflight_fd < 0) {
        if (!co_vu_ask(&u->link, VU_GET_INFLIGHT_FD, &want, sizeof want, &got, sizeof got, &fd, VU_ANSWER_S, e))
            return false;
        if (fd < 0 || !got.size || got.size > INFLIGHT_MAX) {
            if (fd >= 0)
                close(fd);
            return err_set(e, ERR_OS, "the back end answers GET_INFLIGHT_FD with %llu bytes%s", (unsigned long long)got.size, fd < 0 ? " nowhere" : "");
        }
        u->inflight = (struct vu_inflight){ got.size, got.off, want.queues, want.ring_size, { 0 } };
        u->inflight_fd = fd;
    }
    fds.fd[0] = u->inflight_fd;
    return co_vu_tell(&u->link, VU_SET_INFLIGHT_FD, &u->inflight, sizeof u->inflight, &fds, e);
}

/* ---- a connection ---- */

/* The connection ends, here and for the chardev, which may bring another. */
static void disconnect(struct vhost_user *u)
{
    bool busy = false;

    for (unsigned i = 0; i < u->n_rings; i++) {
        busy |= u->ring[i].running;
        vhost_ring_lost(&u->ring[i]);
    }
    if (!busy)
        inflight_forget(u);
    vhost_memory_forget(u);
    channel_close(u);
    if (u->link.sock >= 0) {
        shutdown(u->link.sock, SHUT_RDWR);
        close(u->link.sock);
    }
    u->link.sock = -1;
    u->link.protocol = 0;
    u->told_life = 0;
    u->told_status = 0;
}

static void drop(struct vhost_user *u, const char *why)
{
    if (strcmp(why, u->last_word))
        log_warn("%s '%s': %s; the device waits for another", u->v.model->name, u->v.dev->obj.id, why);
    snprintf(u->last_word, sizeof u->last_word, "%s", why);
    disconnect(u);
}

static bool co_attach(struct vhost_user *u, struct err *e)
{
    u->link.sock = chr_dup_socket(&u->chr);
    if (u->link.sock < 0)
        return err_set(e, ERR_VALUE, "chardev '%s' is not a plain unix socket", u->chardev->id);
    return co_vhost_negotiate(u, e) && co_channel(u, e) && co_config(u, e);
}

/* ---- what is, brought to what should be ---- */

static bool wanted(const struct vhost_ring *r)
{
    const struct virtq *vq = vhost_vq(r);

    return vq->enabled && virtio_running(vq->v) && atomic_load(&vq->v->dma->enabled);
}

static bool co_status(struct vhost_user *u, uint8_t status, struct err *e)
{
    if (!vu_link_speaks(&u->link, VU_P_STATUS) || u->told_status == status)
        return true;
    u->told_status = status;
    return co_vu_tell_u64(&u->link, VU_SET_STATUS, status, e);
}

/* The driver that the back end knew is gone; no ring is left. */
static bool co_end(struct vhost_user *u, struct err *e)
{
    u->told_life = 0;
    vhost_memory_forget(u);
    if (!co_status(u, 0, e))
        return false;
    return vu_link_speaks(&u->link, VU_P_STATUS) || !vu_link_speaks(&u->link, VU_P_RESET_DEVICE) || co_vu_tell(&u->link, VU_RESET_DEVICE, NULL, 0, NULL, e);
}

static bool co_begin(struct vhost_user *u, struct err *e)
{
    uint64_t features = u->v.features | (u->link.features & BIT64(VU_F_PROTOCOL_FEATURES));

    u->told_life = u->life;
    return co_vu_tell_u64(&u->link, VU_SET_FEATURES, features, e) && co_status(u, DRIVER_BITS, e) && co_vhost_send_memory(u, e) && co_inflight(u, e);
}

/* Takes back what should not run; *@left: how many rings still do. */
static bool co_stop_rings(struct vhost_user *u, unsigned *left, struct err *e)
{
    *left = 0;
    for (unsigned i = 0; i < u->n_rings; i++) {
        struct vhost_ring *r = &u->ring[i];
        if (r->running && (!wanted(r) || r->gen != vhost_vq(r)->gen) && !co_vhost_ring_stop(r, e))
            return false;
        *left += r->running;
    }
    return true;
}

static bool co_start_rings(struct vhost_user *u, struct err *e)
{
    bool any = false;

    for (unsigned i = 0; i < u->n_rings; i++) {
        struct vhost_ring *r = &u->ring[i];
        if (u->told_life != u->life)
            return true;                /* a reset: there is another look */
        if (wanted(r) && !r->running && !co_vhost_ring_start(r, e))
            return false;
        any |= r->running;
    }
    return !any || co_status(u, DRIVER_BITS | VIRTIO_S_DRIVER_OK, e);
}

static bool any_wanted(const struct vhost_user *u)
{
    for (unsigned i = 0; i < u->n_rings; i++)
        if (wanted(&u->ring[i]))
            return true;
    return false;
}

static bool co_sync(struct vhost_user *u, struct err *e)
{
    unsigned running;

    if ((u->config_stale && !co_config(u, e)) || (u->write_due && !co_write(u, e)) || !co_stop_rings(u, &running, e))
        return false;
    if (!running && u->told_life && u->told_life != u->life && !co_end(u, e))
        return false;
    if (!any_wanted(u))
        return true;
    if (!u->told_life && !co_begin(u, e))
        return false;
    if (u->memory_gen != dma_view_gen(u->v.dma) && !co_vhost_send_memory(u, e))
        return false;
    return co_start_rings(u, e);
}

static void co_look(struct vhost_user *u)
{
    struct err e = ERR_INIT;

    if (u->link.sock >= 0 && vu_link_hung_up(&u->link))
        drop(u, "the back end closed the connection");
    if (u->link.sock < 0 && !u->v.quiesced && chr_is_open(&u->chr)) {
        if (!co_attach(u, &e))
            drop(u, e.msg);
        else if (u->last_word[0])
            log_info("%s '%s': there is a back end again", u->v.model->name, u->v.dev->obj.id);
        if (u->link.sock >= 0)
            u->last_word[0] = 0;
    }
    if (u->link.sock >= 0 && !co_sync(u, &e))
        drop(u, e.msg);
}

static void co_work(void *arg)
{
    struct vhost_user *u = arg;

    while (u->todo) {
        u->todo = false;
        co_look(u);
    }
    u->working = false;
    virtio_release(&u->v);
}

void vhost_user_update(struct virtio_dev *v)
{
    struct vhost_user *u = vhost(v);

    u->todo = true;
    if (u->working || !v->dev->realized)
        return;
    u->working = true;
    virtio_hold(v);
    co_spawn(NULL, v->dom, co_work, u);
}

void vhost_user_reset(struct virtio_dev *v)
{
    struct vhost_user *u = vhost(v);

    u->life = u->life == UINT32_MAX ? 1 : u->life + 1;
    inflight_forget(u);
    vhost_user_update(v);
}

void vhost_user_queue_reset(struct virtq *vq) { vhost_user_update(vq->v); }

static void memory_changed(void *arg)
{
    struct vhost_user *u = arg;

    if (u->memory)
        vhost_user_update(&u->v);
}

static void view_changed(struct view_listener *l)
{
    domain_post(&((struct vhost_user *)((char *)l - offsetof(struct vhost_user, view)))->view_changed);
}

static void chardev_event(void *arg, enum chr_event ev)
{
    struct vhost_user *u = arg;

    if (ev == CHR_OPENED)
        co_wake(&u->came);
    if (ev == CHR_OPENED || ev == CHR_CLOSED)
        vhost_user_update(&u->v);
}

/* ---- beginning and end ---- */

struct opening { struct vhost_user *u; bool ok; struct err *e; };

static void waited_enough(void *arg) { co_wake(&((struct vhost_user *)arg)->came); }

static void co_open_in_domain(void *arg)
{
    struct opening *o = arg;
    struct vhost_user *u = o->u;
    struct timer patience;

    timer_init(&patience, CLOCK_HOST, domain_loop(u->v.dom), u->v.dom, waited_enough, u);
    if (!chr_is_open(&u->chr)) {
        timer_arm(&patience, clock_now(CLOCK_HOST) + CONNECT_S * INT64_C(1000000000));
        co_event_clear(&u->came);
        co_wait(&u->came);
    }
    timer_fini(&patience);
    o->ok = chr_is_open(&u->chr) ? co_attach(u, o->e)
                                 : err_set(o->e, ERR_STATE, "chardev '%s': no back end came within %d seconds", u->chardev->id, CONNECT_S);
}

static void co_open(void *arg)
{
    struct opening *o = arg;

    co_on_loop(NULL, o->u->v.dom, co_open_in_domain, o);
}

static bool open_rings(struct vhost_user *u, unsigned n, unsigned ring_size, struct err *e)
{
    u->ring = xcalloc(n, sizeof *u->ring);
    for (; u->n_rings < n; u->n_rings++) {
        if (!vhost_ring_init(u, u->n_rings, e)) {
            vhost_ring_fini(&u->ring[u->n_rings]);
            return false;
        }
        virtio_add_queue(&u->v, ring_size, 0, NULL)->notify_fd = u->ring[u->n_rings].kick;
    }
    return true;
}

/* Bits that the user asked for by name, and that a back end cannot be blamed for leaving out silently. */
static bool asked_for(const struct vhost_user *u, struct err *e)
{
    static const struct { unsigned bit; const char *name; } rows[] = { { VIRTIO_F_RING_PACKED, "packed" }, { VIRTIO_F_IN_ORDER, "in_order" } };
    uint64_t on = u->v.opt.features;

    if (on & BIT64(VIRTIO_F_ACCESS_PLATFORM))
        return err_set(e, ERR_VALUE, "iommu_platform=on: a back end of vhost-user is given addresses of memory as they are");
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (on & ~u->link.features & BIT64(rows[i].bit))
            return err_set(e, ERR_VALUE, "%s=on: the back end does not offer it", rows[i].name);
    return true;
}

bool vhost_user_open(struct vhost_user *u, const struct vhost_user_kind *kind, unsigned n_rings, unsigned ring_size, struct err *e)
{
    struct opening o = { .u = u, .e = e };

    u->kind = kind;
    u->link.sock = u->channel = u->inflight_fd = -1;
    u->life = 1;
    u->told_life = u->n_rings = 0;
    u->write_len = 0;
    u->last_word[0] = 0;
    u->view_changed = (struct post){ .fn = memory_changed, .arg = u, .dom = u->v.dom };
    u->view.changed = view_changed;
    u->chr = (struct chr_front){ .event = chardev_event, .arg = u };
    if (!vhost_memory_shared(u, e) || !chr_connect(&u->chr, u->chardev, u->v.dom, u->v.dev->obj.id, e))
        return false;
    virtio_set_config_size(&u->v, kind->config_size);
    view_listen(u->v.dma->as, &u->view);
    if (open_rings(u, n_rings, ring_size, e)) {
        co_call(co_open, &o);
        if (o.ok && asked_for(u, e))
            return true;
    }
    vhost_user_close(&u->v);
    return false;
}

void vhost_user_close(struct virtio_dev *v)
{
    struct vhost_user *u = vhost(v);

    view_unlisten(v->dma->as, &u->view);
    loop_post_cancel(domain_loop(v->dom), &u->view_changed);
    chr_disconnect(&u->chr);
    domain_lock(v->dom);
    disconnect(u);
    inflight_forget(u);
    domain_unlock(v->dom);
    for (unsigned i = 0; i < u->n_rings; i++)
        vhost_ring_fini(&u->ring[i]);
    free(u->ring);
    u->ring = NULL;
    u->n_rings = 0;
}

uint64_t vhost_user_features(struct virtio_dev *v) { return vhost(v)->link.features & vhost(v)->kind->features; }
uint64_t vhost_user_limit(struct virtio_dev *v) { return vhost(v)->link.features & ~BIT64(VIRTIO_F_ACCESS_PLATFORM); }

/* ---- saved state ---- */

/* The record of a back end that is gone, for the one that comes: what GET_INFLIGHT_FD said, and the memory. */
static void inflight_save(const void *obj, struct str *out)
{
    const struct vhost_user *u = obj;
    uint8_t *copy;

    if (u->inflight_fd < 0)
        return;
    copy = xcalloc(1, u->inflight.size);
    if (pread(u->inflight_fd, copy, u->inflight.size, (off_t)u->inflight.off) < 0)
        log_warn("%s '%s': its back end's record of requests cannot be read: %s", u->v.model->name, u->v.dev->obj.id, strerror(errno));
    str_addn(out, (const char *)&u->inflight, sizeof u->inflight);
    str_addn(out, (const char *)copy, u->inflight.size);
    free(copy);
}

static bool inflight_load(void *obj, const void *data, size_t len, struct err *e)
{
    struct vhost_user *u = obj;
    struct vu_inflight i;

    inflight_forget(u);
    if (!len)
        return true;
    if (len < sizeof i)
        return err_set(e, ERR_VALUE, "requests under way: truncated");
    memcpy(&i, data, sizeof i);
    if (i.size > INFLIGHT_MAX || len != sizeof i + i.size || i.queues != u->n_rings || i.ring_size != u->v.vq[0].num_default)
        return err_set(e, ERR_VALUE, "requests under way: %llu bytes for %u rings of %u", (unsigned long long)i.size, i.queues, i.ring_size);
    u->inflight_fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC);
    if (u->inflight_fd < 0 || pwrite(u->inflight_fd, (const char *)data + sizeof i, i.size, 0) != (ssize_t)i.size)
        return err_os(e, errno, "requests under way");
    i.off = 0;
    u->inflight = i;
    return true;
}

static const struct state_custom inflight_custom = { inflight_save, inflight_load };
static const struct state_field vhost_user_fields[] = {
    STATE_STRUCT(struct vhost_user, v, &virtio_dev_state),
    { .name = "inflight", .kind = ST_CUSTOM, .off = 0, .size = 0, .count = 1, .custom = &inflight_custom },
    STATE_END
};
const struct state_desc vhost_user_state = { .name = "vhost-user", .version = 1, .fields = vhost_user_fields };
