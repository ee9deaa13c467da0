/* SPDX-License-Identifier: MIT */
/*
 * The client of a persistent reservation helper, by the protocol that QEMU documents ("Persistent reservation helper protocol"): a
 * stream socket; features first, four bytes each way; then a command block with the device's descriptor beside it, and its parameters;
 * back come status, length, 96 bytes of sense data and the data. All numbers are big endian.
 */
#include "block/pr_helper.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include "base/log.h"
#include "base/sock.h"
#include "block/driver.h"
#include "core/cmd.h"

enum { OP_PR_IN = 0x5e, OP_PR_OUT = 0x5f, CDB_LEN = 16, SENSE_LEN = 96, DATA_MAX = 8192, ANSWER_SECONDS = 60 };

struct pr_helper {
    struct obj obj;
    char *path;
    struct sock_addr addr;
    pthread_mutex_t lock;           /* one command at a time; guards fd */
    int fd;                         /* -1: not connected */
    atomic_bool connected;
};

static const struct qmp_event_def status_changed = {
    "PR_MANAGER_STATUS_CHANGED", "The connection to a helper for persistent reservations came or went", .says = "{id:str, connected:bool}",
};
QMP_EVENT(&status_changed);

/* ---- the socket: on a worker, with the lock ---- */

static void set_connected(struct pr_helper *h, bool now)
{
    if (atomic_exchange(&h->connected, now) != now)
        qmp_event(status_changed.name, json_pack("{s:s, s:b}", "id", h->obj.id, "connected", now));
}

static void hang_up(struct pr_helper *h)
{
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
    set_connected(h, false);
}

static int get_all(int fd, void *buf, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t r = recv(fd, (char *)buf + at, n - at, 0);

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r ? -errno : -ECONNRESET;
        at += (size_t)r;
    }
    return 0;
}

/* @pass: a descriptor that goes with the first byte; -1: none. */
static int put_all(int fd, const void *buf, size_t n, int pass)
{
    for (size_t at = 0; at < n;) {
        union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } ctl;
        struct iovec v = { (char *)buf + at, n - at };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
        ssize_t r;

        if (pass >= 0) {
            memset(&ctl, 0, sizeof ctl);
            ctl.h = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
            memcpy(CMSG_DATA(&ctl.h), &pass, sizeof pass);
            m.msg_control = &ctl;
            m.msg_controllen = sizeof ctl.room;
        }
        r = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r ? -errno : -EPIPE;
        at += (size_t)r;
        pass = -1;
    }
    return 0;
}

/* Nothing comes unasked: what can be read on an idle connection is its end. */
static bool is_over(int fd)
{
    struct pollfd p = { fd, POLLIN, 0 };
    return poll(&p, 1, 0) != 0;
}

static int make_ready(struct pr_helper *h)
{
    struct timeval patience = { ANSWER_SECONDS, 0 };
    uint32_t features = 0;
    int r;

    if (h->fd >= 0 && !is_over(h->fd))
        return 0;
    hang_up(h);
    h->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (h->fd < 0)
        return -errno;
    setsockopt(h->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(h->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    r = connect(h->fd, &h->addr.any, h->addr.len) ? -errno : get_all(h->fd, &features, sizeof features);
    features = 0;                   /* there is none that this end knows */
    r = r ? r : put_all(h->fd, &features, sizeof features, -1);
    if (r)
        hang_up(h);
    else
        set_connected(h, true);
    return r;
}

static int do_command(struct pr_helper *h, int dev, struct blk_scsi *c)
{
    uint8_t head[8 + SENSE_LEN], data[DATA_MAX];
    uint32_t n;
    int r = put_all(h->fd, c->cdb, CDB_LEN, dev);

    if (!r && c->to_device) {
        blk_iov_copy(data, c->iov, c->niov, 0, c->len, false);
        r = put_all(h->fd, data, c->len, -1);
    }
    r = r ? r : get_all(h->fd, head, sizeof head);
    if (r)
        return r;
    n = ld_be32(head + 4);
    if (n > (c->to_device ? 0 : c->len) || ld_be32(head) > 0xff)
        return -EPROTO;
    r = get_all(h->fd, data, n);
    if (r)
        return r;
    c->status = (uint8_t)ld_be32(head);
    c->host_status = c->driver_status = 0;
    c->sense_len = c->status == 2 /* CHECK CONDITION */ ? SENSE_LEN : 0;
    memcpy(c->sense, head + 8, SENSE_LEN);
    c->done = c->to_device ? c->len : n;
    blk_iov_copy(data, c->iov, c->niov, 0, n, true);
    return 0;
}

struct job { struct pr_helper *h; int fd; struct blk_scsi *c; };

static int run(void *arg)
{
    struct job *j = arg;
    int r;

    pthread_mutex_lock(&j->h->lock);
    r = make_ready(j->h);
    if (!r) {
        r = do_command(j->h, j->fd, j->c);
        if (r)
            hang_up(j->h);          /* where in the stream it is nobody knows; the command may have been executed and is not repeated */
    }
    pthread_mutex_unlock(&j->h->lock);
    return r;
}

bool pr_helper_wants(const struct blk_scsi *c) { return c->cdb[0] == OP_PR_IN || c->cdb[0] == OP_PR_OUT; }

int co_pr_helper_run(struct obj *helper, int fd, struct blk_scsi *c)
{
    struct job j = { (struct pr_helper *)helper, fd, c };
    uint32_t said = c->cdb[0] == OP_PR_OUT ? ld_be32(c->cdb + 5) : ld_be16(c->cdb + 7);
    int r;

    /* The length on the wire is the command block's. */
    if (said > DATA_MAX || (c->len && c->to_device != (c->cdb[0] == OP_PR_OUT)) || (c->to_device ? c->len != said : c->len < said))
        return -EINVAL;
    r = co_offload(run, &j);
    if (r)
        log_warn("pr-manager-helper '%s': %s: %s", helper->id, j.h->path, strerror(-r));
    return r == -EINVAL ? -EIO : r;
}

/* ---- the object ---- */

static bool helper_init(struct obj *o, struct err *e)
{
    struct pr_helper *h = (struct pr_helper *)o;

    h->fd = -1;
    pthread_mutex_init(&h->lock, NULL);
    return true;
}

static bool helper_check(struct obj *o, struct err *e)
{
    struct pr_helper *h = (struct pr_helper *)o;

    return sock_unix(&h->addr, h->path, false, true, e);
}

static void helper_finalize(struct obj *o)
{
    struct pr_helper *h = (struct pr_helper *)o;

    if (h->fd >= 0)
        close(h->fd);
    pthread_mutex_destroy(&h->lock);
}

static bool helper_can_delete(struct obj *o, struct err *e)
{
    return atomic_load(&o->refs) <= 1 || err_set(e, ERR_BUSY, "pr-manager-helper '%s' is in use", o->id);
}

static const struct prop helper_props[] = {
    PROP_STR(struct pr_helper, path, "path", PF_REQUIRED, "UNIX socket of the helper; it is connected to at the first command"), PROP_END
};
const struct obj_class pr_helper_class = {
    .name = "pr-manager-helper", .desc = "A privileged program that executes persistent reservation commands", .size = sizeof(struct pr_helper),
    .props = helper_props, .ns = "object", .init = helper_init, .check = helper_check, .can_delete = helper_can_delete,
    .finalize = helper_finalize,
};
OBJ_CLASS(&pr_helper_class);

static bool tell(struct obj *o, void *arg)
{
    json_array_append_new(arg, json_pack("{s:s, s:b}", "id", o->id, "connected", atomic_load(&((struct pr_helper *)o)->connected)));
    return true;
}

static json_t *co_query(void *args, struct err *e)
{
    json_t *list = json_array();

    obj_each(NULL, &pr_helper_class, tell, list);
    return list;
}

static const struct qmp_cmd query_pr_managers = {
    .name = "query-pr-managers", .doc = "Helpers for persistent reservations, and whether they are connected", .co_run = co_query,
    .says = "[{id:str, connected:bool}]",
};
QMP_CMD(&query_pr_managers);
