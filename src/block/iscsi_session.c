/* SPDX-License-Identifier: MIT */
/*
 * A session with an iSCSI target (RFC 7143) by libiscsi, on the home loop. The library never connects anew by itself: what ends a
 * session ends its context, and whoever still wants something begins the next one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/sock.h"
#include "block/iscsi_int.h"

#define NS INT64_C(1000000000)
#define CONNECT_NS (30 * NS)
#define LOGOUT_NS (5 * NS)
#define RETRY_NS (NS / 4)
#define TICK_NS NS
#define NOP_NS (5 * NS)

enum { MAX_NOPS = 3, MAX_MOVES = 4 };

void iscsi_warn(struct blk_iscsi *s, const char *fmt, ...)
{
    char text[320];
    va_list ap;
    int64_t now = clock_now(CLOCK_HOST);
    if (s->last_warning && now - s->last_warning < NS)
        return;
    s->last_warning = now;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_warn("%s: %s", s->what, text);
}

/* The library's words, which end in whatever they end in. What it says of a new connection that it may not make says nothing. */
static void take_trouble(struct blk_iscsi *s, const char *text)
{
    size_t n;
    if (text == s->trouble || strstr(text, "reconnect_if_loggedin"))
        return;
    snprintf(s->trouble, sizeof s->trouble, "%s", text + (str_starts(text, "iscsi_service: ") ? strlen("iscsi_service: ") : 0));
    for (n = strlen(s->trouble); n && strchr(" .\n", s->trouble[n - 1]); n--)
        s->trouble[n - 1] = 0;
}

/* ---- the end of a session ---- */

static void is_over(struct iscsi_req *q)
{
    list_del(&q->link);
    co_wake(&q->over);
}

/* Not from within the library. */
static void hang_up(struct blk_iscsi *s, const char *why)
{
    struct iscsi_context *ctx = s->ctx;
    struct iscsi_req *q;
    if (!ctx)
        return;
    take_trouble(s, why);
    if (s->logged_in && !s->closing)
        iscsi_warn(s, "the session has ended: %s", *s->trouble ? s->trouble : "the target closed the connection");
    timer_disarm(&s->tick);
    loop_fd_watch(&s->watch, 0);
    s->ctx = NULL;
    s->logged_in = false;
    s->lib->destroy_context(ctx);       /* most commands are told of it by this, but not all */
    list_for_each(q, &s->sent, link) {
        q->lost = true;
        is_over(q);
    }
    list_for_each(q, &s->draining, link)
        is_over(q);
    s->broken = false;
    if (s->trying < 0)
        s->trying = SCSI_STATUS_ERROR;
    co_wake(&s->tried);
}

void iscsi_abandon(struct blk_iscsi *s)
{
    s->closing = true;
    hang_up(s, "the target does not answer");
}

/* ---- the library's turn ---- */

static void after(struct blk_iscsi *s)
{
    struct iscsi_req *q;
    unsigned events = (unsigned)s->lib->which_events(s->ctx);
    loop_fd_watch(&s->watch, events & (LOOP_IN | LOOP_OUT));
    if (events & LOOP_OUT)
        return;
    list_for_each(q, &s->draining, link)
        is_over(q);
}

/* An end of the connection is no error to the library: its words are then those of something before. */
static void serve(struct blk_iscsi *s, unsigned events)
{
    char before[MAX_STRING_SIZE + 1];
    snprintf(before, sizeof before, "%s", s->lib->get_error(s->ctx));
    if (s->lib->service(s->ctx, (int)events) >= 0 && !s->broken) {
        after(s);
        return;
    }
    const char *now = s->lib->get_error(s->ctx);
    hang_up(s, strcmp(before, now) ? now : s->trouble);
}

static void ready(void *arg, unsigned revents) { serve(arg, revents); }

static void nop_answered(struct iscsi_context *ctx, int status, void *data, void *arg)
{
    struct blk_iscsi *s = arg;
    if (status == SCSI_STATUS_GOOD)
        s->nops = 0;
    else if (s->ctx == ctx)
        s->broken = true;
}

static void keep_alive(struct blk_iscsi *s, int64_t now)
{
    if (!s->logged_in || s->closing || now - s->last_nop < NOP_NS)
        return;
    if (s->nops >= MAX_NOPS) {
        hang_up(s, "the target does not answer");
        return;
    }
    s->last_nop = now;
    s->nops++;
    if (s->lib->nop_out_async(s->ctx, nop_answered, NULL, 0, s) < 0)
        hang_up(s, s->lib->get_error(s->ctx));
}

static void expire(struct blk_iscsi *s, int64_t now)
{
    struct iscsi_req *q;
    bool any = false;
    list_for_each(q, &s->sent, link) {
        q->late = q->timeout && now - q->sent >= q->timeout * NS;
        any |= q->late;
    }
    if (any)
        hang_up(s, "a command has had no answer for too long");     /* so that the target does not execute it later */
}

void iscsi_tick(void *arg)
{
    struct blk_iscsi *s = arg;
    int64_t now = clock_now(CLOCK_HOST);
    expire(s, now);
    if (s->ctx)
        keep_alive(s, now);
    if (s->ctx)
        serve(s, 0);
    if (s->ctx)
        timer_arm(&s->tick, now + TICK_NS);
}

/* ---- beginning one ---- */

static void tried(struct blk_iscsi *s, int status)
{
    s->trying = status;
    if (status == SCSI_STATUS_ERROR)
        take_trouble(s, s->lib->get_error(s->ctx));
    co_wake(&s->tried);
}

static void logged_in(struct iscsi_context *ctx, int status, void *data, void *arg) { tried(arg, status); }

static void connected(struct iscsi_context *ctx, int status, void *data, void *arg)
{
    struct blk_iscsi *s = arg;
    if (status != SCSI_STATUS_GOOD || s->lib->login_async(ctx, logged_in, s) < 0)
        tried(s, SCSI_STATUS_ERROR);
}

/* Waits for ->tried; nobody answers for ever. */
static void give_up(void *arg)
{
    struct blk_iscsi *s = arg;
    if (s->trying < 0)
        hang_up(s, "the target does not answer");
}

static void co_await(struct blk_iscsi *s, int64_t ns)
{
    struct timer t;
    timer_init(&t, CLOCK_HOST, s->node.home, NULL, give_up, s);
    timer_arm(&t, clock_now(CLOCK_HOST) + ns);
    co_wait(&s->tried);
    timer_fini(&t);
}

static struct iscsi_context *new_context(struct blk_iscsi *s)
{
    const struct iscsi_lib *l = s->lib;
    struct iscsi_context *c = l->create_context(s->initiator_name);
    if (!c)
        return NULL;
    l->set_noautoreconnect(c, 1);
    if (!l->set_isid_random(c, s->isid, 0) && !l->set_targetname(c, s->target) && !l->set_session_type(c, ISCSI_SESSION_NORMAL) &&
        !l->set_header_digest(c, (enum iscsi_header_digest)s->header_digest) &&
        (!s->user || !l->set_initiator_username_pwd(c, s->user, s->secret ? s->secret : "")))
        return c;
    l->destroy_context(c);
    return NULL;
}

/* To one address; the answer is in ->trying, and ->trouble tells why not. */
static void co_try(struct blk_iscsi *s, const char *portal)
{
    s->trouble[0] = 0;
    s->trying = -1;
    co_event_clear(&s->tried);
    s->ctx = new_context(s);
    if (!s->ctx) {
        s->trying = SCSI_STATUS_ERROR;
        take_trouble(s, "no memory");
        return;
    }
    if (s->lib->connect_async(s->ctx, portal, connected, s) < 0) {
        loop_fd_init(&s->watch, s->node.home, NULL, -1, ready, s);
        hang_up(s, s->lib->get_error(s->ctx));
        return;
    }
    int fd = s->lib->get_fd(s->ctx);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    loop_fd_init(&s->watch, s->node.home, NULL, fd, ready, s);
    after(s);
    co_await(s, CONNECT_NS);
}

struct lookup { char *host, *port; struct sock_addr at[SOCK_MAX_ADDRS]; unsigned n; struct err *e; };

static int look_up(void *arg)
{
    struct lookup *l = arg;
    l->n = sock_resolve_all(l->at, l->host, l->port, AF_UNSPEC, SOCK_STREAM, false, false, l->e);
    return 0;
}

/* "HOST", "HOST:PORT", "[V6]:PORT", with ",GROUP" behind it where a target moved to it (RFC 7143, 13.8). */
static bool co_find(const char *portal, struct lookup *l, struct err *e)
{
    char *text = xstrndup(portal, strcspn(portal, ","));
    const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
    char *whole = colon && (!bracket || colon > bracket) ? xstrdup(text) : xasprintf("%s:3260", text);
    l->e = e;
    bool ok = sock_split(whole, &l->host, &l->port, e);
    if (ok) {
        co_offload(look_up, l);
        ok = l->n;
        free(l->host);
        free(l->port);
    }
    free(whole);
    free(text);
    return ok;
}

/* Each address of the portal in turn. */
static bool co_try_all(struct blk_iscsi *s, const char *portal, struct err *e)
{
    struct lookup l = { 0 };
    if (!co_find(portal, &l, e))
        return err_prefix(e, "%s", s->what);
    for (unsigned i = 0; i < l.n && !s->closing; i++) {
        char at[SOCK_TEXT];
        co_try(s, sock_format(&l.at[i], at));
        if (s->trying == SCSI_STATUS_GOOD || s->trying == SCSI_STATUS_REDIRECT)
            return true;
        hang_up(s, s->trouble);
    }
    return err_set(e, ERR_GENERIC, "%s: cannot log in: %s", s->what, *s->trouble ? s->trouble : "the target closed the connection");
}

bool co_iscsi_connect(struct blk_iscsi *s, struct err *e)
{
    char *portal = xstrdup(s->portal);
    bool ok = false;
    for (int i = 0; i < MAX_MOVES; i++) {
        ok = co_try_all(s, portal, e);
        if (!ok || !s->ctx || s->trying == SCSI_STATUS_GOOD)
            break;
        free(portal);
        portal = xstrdup(s->lib->get_target_address(s->ctx));
        hang_up(s, "");
        ok = err_set(e, ERR_GENERIC, "%s: the target sends us from one portal to the next", s->what);
    }
    free(portal);
    if (!ok || !s->ctx)
        return ok ? err_set(e, ERR_GENERIC, "%s: cannot log in: %s", s->what, s->trouble) : false;
    s->logged_in = true;
    s->trouble[0] = 0;
    s->nops = 0;
    s->last_nop = clock_now(CLOCK_HOST);
    timer_arm(&s->tick, s->last_nop + TICK_NS);
    return true;
}

void co_iscsi_disconnect(struct blk_iscsi *s)
{
    s->closing = true;
    if (s->ctx && s->logged_in) {
        s->trying = -1;
        co_event_clear(&s->tried);
        if (s->lib->logout_async(s->ctx, logged_in, s) < 0)
            hang_up(s, "");
        else
            serve(s, LOOP_OUT);
        if (s->ctx)
            co_await(s, LOGOUT_NS);
    }
    hang_up(s, "");
}

int co_iscsi_ensure(struct blk_iscsi *s)
{
    int64_t deadline = clock_now(CLOCK_HOST) + s->reconnect_delay * NS;
    int r = 0;
    co_mutex_lock(&s->connecting);
    while (!s->logged_in && !s->closing && !r) {
        struct err e = ERR_INIT;
        if (co_iscsi_connect(s, &e)) {
            s->again = true;
            break;
        }
        if (clock_now(CLOCK_HOST) < deadline) {
            co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + RETRY_NS);
        } else {
            iscsi_warn(s, "%s", e.msg);
            r = -EIO;
        }
    }
    co_mutex_unlock(&s->connecting);
    return s->closing ? -EIO : r;
}

/* ---- commands ---- */

static void take_answer(struct iscsi_req *q, const struct scsi_task *t)
{
    uint32_t missing = t->residual_status == SCSI_RESIDUAL_UNDERFLOW ? (uint32_t)MIN(t->residual, (size_t)q->len) : 0;
    q->done = q->len - missing;
    if (q->status != SCSI_STATUS_CHECK_CONDITION || t->datain.size < 2 || !t->datain.data)
        return;
    /* RFC 7143, 11.4.7.2: its length is before it */
    size_t n = MIN((size_t)ld_be16(t->datain.data), (size_t)t->datain.size - 2);
    q->sense_len = (uint8_t)MIN(n, sizeof q->sense);
    memcpy(q->sense, t->datain.data + 2, q->sense_len);
}

static void answered(struct iscsi_context *ctx, int status, void *data, void *arg)
{
    struct iscsi_req *q = arg;
    struct blk_iscsi *s = q->s;
    q->status = status;
    if (status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT) {
        q->lost = true;
        s->broken |= s->ctx == ctx;
    } else {
        take_answer(q, data);
    }
    /* Of what was to be written there may be more in the library's queue, which looks at it until it is sent or the session is over. */
    list_del(&q->link);
    if (q->to_device && q->len)
        list_push(&s->draining, &q->link);
    else
        co_wake(&q->over);
}

int co_iscsi_send(struct blk_iscsi *s, struct iscsi_req *q)
{
    static struct scsi_iovec nothing[1];        /* data that nobody asked for ends the session, and is not collected */
    const struct iscsi_lib *l = s->lib;
    struct scsi_iovec *v = q->niov ? malloc(q->niov * sizeof *v) : NULL;
    struct scsi_task *t = l->create_task(q->cdb_len, q->cdb, !q->len ? SCSI_XFER_NONE : q->to_device ? SCSI_XFER_WRITE : SCSI_XFER_READ, (int)q->len);
    int r = t && (v || !q->niov) ? 0 : -ENOMEM;
    q->lost = q->late = false;
    q->sense_len = 0;
    q->done = 0;
    q->s = s;
    if (!r && s->logged_in) {
        bool read = q->len && !q->to_device;
        for (unsigned i = 0; i < q->niov; i++)
            v[i] = (struct scsi_iovec){ q->iov[i].iov_base, q->iov[i].iov_len };
        if (q->len && q->to_device)
            l->task_set_iov_out(t, v, (int)q->niov);
        l->task_set_iov_in(t, read ? v : nothing, read ? (int)q->niov : 0);
        co_event_clear(&q->over);
        q->sent = clock_now(CLOCK_HOST);
        list_push(&s->sent, &q->link);
        int lun = (int)(s->lun < 256 ? s->lun : s->lun | 0x4000);       /* SAM-6, 4.7.7.2 and 4.7.7.3 */
        if (l->scsi_command_async(s->ctx, lun, t, answered, NULL, q) < 0)
            hang_up(s, l->get_error(s->ctx));
        else
            serve(s, LOOP_OUT);
        co_wait(&q->over);
    } else {
        q->lost = true;
    }
    if (t)
        l->free_scsi_task(t);
    free(v);
    return r;
}
