/* SPDX-License-Identifier: MIT */
/*
 * "user": a network in user space by libslirp: addresses by DHCP, names, connections out by the host's sockets, ports of
 * the host forwarded in. On the main loop: descriptors are watched and timers armed as libslirp needs them, nothing polls.
 */
#include "net/user_int.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum { MAX_FDS = 4096 };

/* A descriptor that libslirp waits for. */
struct user_fd { struct loop_fd lf; struct user_net *u; unsigned want, got, seen; };

struct user_timer { struct timer t; struct user_net *u; SlirpTimerCb cb; void *arg; };

/* ---- descriptors ---- */

static unsigned to_loop(int ev)
{
    return (ev & (SLIRP_POLL_IN | SLIRP_POLL_PRI) ? LOOP_IN : 0) | (ev & SLIRP_POLL_OUT ? LOOP_OUT : 0) |
           (ev & SLIRP_POLL_ERR ? LOOP_ERR : 0) | (ev & SLIRP_POLL_HUP ? LOOP_HUP : 0);
}

static int from_loop(unsigned ev)
{
    return (ev & LOOP_IN ? SLIRP_POLL_IN : 0) | (ev & LOOP_OUT ? SLIRP_POLL_OUT : 0) | (ev & LOOP_ERR ? SLIRP_POLL_ERR : 0) |
           (ev & LOOP_HUP ? SLIRP_POLL_HUP : 0);
}

static void fd_event(void *arg, unsigned ev)
{
    struct user_fd *f = arg;
    f->got |= ev;
    loop_fd_watch(&f->lf, 0);           /* until libslirp has seen it and says again what it wants */
    loop_post(loop_main(), &f->u->poll);
}

static void fd_drop(struct user_net *u, int fd)
{
    struct user_fd *f = fd >= 0 && fd < MAX_FDS ? u->fds[fd] : NULL;
    if (!f)
        return;
    loop_fd_watch(&f->lf, 0);
    u->fds[fd] = NULL;
    free(f);
}

static int add_poll(int fd, int events, void *arg)
{
    struct user_net *u = arg;
    if (fd < 0 || fd >= MAX_FDS)
        return -1;
    struct user_fd *f = u->fds[fd];
    if (!f) {
        f = u->fds[fd] = xnew(struct user_fd);
        f->u = u;
        loop_fd_init(&f->lf, loop_main(), NULL, fd, fd_event, f);
        u->fd_end = MAX(u->fd_end, fd + 1);
    }
    f->seen = u->generation;
    f->got = 0;
    loop_fd_watch(&f->lf, to_loop(events));
    return fd;
}

static int get_revents(int fd, void *arg)
{
    struct user_net *u = arg;
    return fd >= 0 && fd < MAX_FDS && u->fds[fd] ? from_loop(u->fds[fd]->got) : 0;
}

/* Asks libslirp what it waits for now. */
static void user_sync(struct user_net *u)
{
    uint32_t timeout = UINT32_MAX;
    u->generation++;
    slirp_pollfds_fill(u->slirp, &timeout, add_poll, u);
    int end = 0;
    for (int fd = 0; fd < u->fd_end; fd++) {
        if (u->fds[fd] && u->fds[fd]->seen != u->generation)
            fd_drop(u, fd);
        if (u->fds[fd])
            end = fd + 1;
    }
    u->fd_end = end;
    timer_arm(&u->timeout, timeout == UINT32_MAX ? INT64_MAX : clock_now(CLOCK_HOST) + (int64_t)timeout * 1000000);
}

/* Something happened: let libslirp look at it. */
static void user_poll(void *arg)
{
    struct user_net *u = arg;
    slirp_pollfds_poll(u->slirp, 0, get_revents, u);
    user_sync(u);
}

void user_kick(struct user_net *u) { loop_post(loop_main(), &u->poll); }

/* ---- what libslirp calls ---- */

static ssize_t cb_send(const void *buf, size_t len, void *arg)
{
    struct user_net *u = arg;
    struct iovec iov = { (void *)buf, len };
    net_send(u->nd.port, &iov, 1);      /* without room it is lost, and TCP slows down */
    return (ssize_t)len;
}

static void cb_guest_error(const char *msg, void *arg) { log_guest("user network: %s", msg); }
static int64_t cb_clock(void *arg) { return clock_now(CLOCK_HOST); }

static void timer_fire(void *arg)
{
    struct user_timer *t = arg;
    t->cb(t->arg);
    user_kick(t->u);
}

static void *cb_timer_new(SlirpTimerCb cb, void *cb_arg, void *arg)
{
    struct user_timer *t = xnew(struct user_timer);
    t->u = arg;
    t->cb = cb;
    t->arg = cb_arg;
    timer_init(&t->t, CLOCK_HOST, loop_main(), NULL, timer_fire, t);
    return t;
}

static void cb_timer_free(void *p, void *arg)
{
    struct user_timer *t = p;
    timer_fini(&t->t);
    free(t);
}

static void cb_timer_mod(void *p, int64_t expire_ms, void *arg) { timer_arm(&((struct user_timer *)p)->t, expire_ms * 1000000); }
static void cb_register(int fd, void *arg) { }
static void cb_unregister(int fd, void *arg) { fd_drop(arg, fd); }
static void cb_notify(void *arg) { user_kick(arg); }

static const SlirpCb callbacks = {
    .send_packet = cb_send, .guest_error = cb_guest_error, .clock_get_ns = cb_clock, .timer_new = cb_timer_new,
    .timer_free = cb_timer_free, .timer_mod = cb_timer_mod, .register_poll_fd = cb_register,
    .unregister_poll_fd = cb_unregister, .notify = cb_notify,
};

/* ---- what the guest sends ---- */

static bool user_receive(void *arg, const uint8_t *pkt, size_t n)
{
    struct user_net *u = arg;
    slirp_input(u->slirp, pkt, (int)n);
    user_kick(u);
    return true;
}

static const struct net_port_ops user_port = { .receive = user_receive };

/* ---- opening ---- */

static bool user_open(struct netdev *nd, struct err *e)
{
    struct user_net *u = (struct user_net *)nd;
    SlirpConfig cfg;
    if (!user_config(u, &cfg, e))
        return false;
    u->fds = xcalloc(MAX_FDS, sizeof *u->fds);
    u->poll = (struct post){ .fn = user_poll, .arg = u };
    timer_init(&u->timeout, CLOCK_HOST, loop_main(), NULL, user_poll, u);
    nd->port = net_port_new(&nd->obj, &user_port, u);
    u->slirp = slirp_new(&cfg, &callbacks, u);
    if (!u->slirp)
        return err_set(e, ERR_VALUE, "the user network refuses these addresses");
    for (char **r = u->hostfwd; r && *r; r++)
        if (!user_hostfwd_add(u, *r, e))
            return err_prefix(e, "hostfwd=%s", *r);
    for (char **r = u->guestfwd; r && *r; r++)
        if (!user_guestfwd_add(u, *r, e))
            return err_prefix(e, "guestfwd=%s", *r);
    user_sync(u);
    return true;
}

static void user_close(struct netdev *nd)
{
    struct user_net *u = (struct user_net *)nd;
    if (u->slirp)
        slirp_cleanup(u->slirp);
    if (!u->fds)
        return;
    for (int fd = 0; fd < u->fd_end; fd++)
        fd_drop(u, fd);
    free(u->fds);
    timer_fini(&u->timeout);
    loop_post_cancel(loop_main(), &u->poll);
}

static void user_info(const struct netdev *nd, struct str *out)
{
    const struct user_net *u = (const struct user_net *)nd;
    str_printf(out, "net=%.*s,restrict=%s", (int)strcspn(u->net, "/"), u->net, u->restricted ? "on" : "off");
}

const struct netdev_class user_net_class = {
    .obj = { .name = "netdev-user", .desc = "Network in user space: DHCP, names, ports forwarded", .base = &netdev_class,
             .size = sizeof(struct user_net), .props = user_props, .check = user_check },
    .open = user_open, .close = user_close, .info = user_info,
};
OBJ_CLASS(&user_net_class.obj);
