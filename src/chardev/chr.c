/* SPDX-License-Identifier: MIT */
/*
 * The link between a front end and a back end: one byte ring each way, so that a write never waits and never calls back,
 * and a back end never touches a front end's domain. Bytes to the outside are drained on the main loop, bytes to the
 * front end are delivered by a post in its domain.
 */
#include "chardev/chr_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/ring.h"
#include "loop/co.h"

enum { OUT_RING = 64 * 1024, IN_RING = 16 * 1024, MAX_EVENTS = 8, DRAIN_ROUNDS = 16, DELIVER_ROUNDS = 64 };

struct chr_link {
    struct chr *c;                      /* main loop only */
    struct list on_chr;
    struct chr_front *f;                /* main loop and the front end's domain */
    char *user;
    struct post deliver, drain, resume; /* deliver: the front end's domain; the others: main loop */
    bool delivering, dead;              /* the front end's domain; disconnected from inside a callback */
    atomic_bool open, front_open;
    atomic_bool starved;                /* the back end waits for room in @in */

    pthread_mutex_t lock;               /* all below; a leaf lock */
    struct ring in, out;
    struct { uint32_t at; enum chr_event ev; } events[MAX_EVENTS];    /* due when in.tail reaches @at */
    unsigned n_events;
    bool want_writable, tell_writable;
};


/* ---- towards the front end ---- */

static void link_post_deliver(struct chr_link *l)
{
    if (l->deliver.dom)
        domain_post(&l->deliver);
    else
        loop_post(loop_main(), &l->deliver);
}

static void link_free(struct chr_link *l)
{
    ring_free(&l->in);
    ring_free(&l->out);
    pthread_mutex_destroy(&l->lock);
    free(l->user);
    free(l);
}

/* Takes the next event that is due. */
static bool link_pop_event(struct chr_link *l, enum chr_event *ev)
{
    if (!l->n_events || l->events[0].at != l->in.tail)
        return false;
    *ev = l->events[0].ev;
    memmove(&l->events[0], &l->events[1], --l->n_events * sizeof l->events[0]);
    return true;
}

/* One step of delivery: false when there is nothing (more) to do now. */
static bool link_deliver_step(struct chr_link *l)
{
    struct chr_front *f = l->f;
    enum chr_event ev;
    const uint8_t *p;

    pthread_mutex_lock(&l->lock);
    bool writable = l->tell_writable;
    l->tell_writable = false;
    bool has_event = !writable && link_pop_event(l, &ev);
    uint32_t n = ring_peek(&l->in, &p);
    if (l->n_events)
        n = MIN(n, l->events[0].at - l->in.tail);
    pthread_mutex_unlock(&l->lock);

    if (writable) {
        if (f->writable)
            f->writable(f->arg);
        return true;
    }
    if (has_event) {
        if (f->event)
            f->event(f->arg, ev);
        return true;
    }
    if (!n)
        return false;
    size_t want = !f->read ? n : f->can_read ? f->can_read(f->arg) : n;
    if (l->dead || !want)
        return false;
    n = (uint32_t)MIN((size_t)n, want);
    if (f->read)
        f->read(f->arg, p, n);
    pthread_mutex_lock(&l->lock);
    ring_skip(&l->in, n);
    bool roomy = ring_used(&l->in) <= IN_RING / 2;
    pthread_mutex_unlock(&l->lock);
    if (roomy && atomic_exchange(&l->starved, false) && !l->dead)
        loop_post(loop_main(), &l->resume);
    return true;
}

/* Delivers events and bytes to the front end, in order. In its domain. */
static void link_deliver(void *arg)
{
    struct chr_link *l = arg;
    int rounds = 0;
    l->delivering = true;
    while (!l->dead && link_deliver_step(l)) {
        if (++rounds == DELIVER_ROUNDS) {
            if (!l->dead)
                link_post_deliver(l);
            break;
        }
    }
    l->delivering = false;
    if (l->dead)
        link_free(l);
}

size_t chr_link_room(struct chr_link *l)
{
    pthread_mutex_lock(&l->lock);
    size_t n = ring_room(&l->in);
    if (!n)
        atomic_store(&l->starved, true);
    pthread_mutex_unlock(&l->lock);
    return n;
}

void chr_link_rx(struct chr_link *l, const uint8_t *buf, size_t n)
{
    pthread_mutex_lock(&l->lock);
    ring_put(&l->in, buf, n);
    pthread_mutex_unlock(&l->lock);
    link_post_deliver(l);
}

void chr_link_event(struct chr_link *l, enum chr_event ev)
{
    pthread_mutex_lock(&l->lock);
    if (l->n_events == MAX_EVENTS) {            /* a front end that sleeps: only the newest matter */
        memmove(&l->events[0], &l->events[1], (MAX_EVENTS - 1) * sizeof l->events[0]);
        l->n_events--;
    }
    l->events[l->n_events].at = l->in.head;
    l->events[l->n_events++].ev = ev;
    pthread_mutex_unlock(&l->lock);
    if (ev == CHR_OPENED || ev == CHR_CLOSED)
        atomic_store(&l->open, ev == CHR_OPENED);
    link_post_deliver(l);
}

static void link_resume(void *arg)
{
    struct chr_link *l = arg;
    if (CHR_CLASS(l->c)->rx_resume)
        CHR_CLASS(l->c)->rx_resume(l->c);
}

size_t chr_rx_room(struct chr *c)
{
    struct chr_link *l = list_first(&c->links, struct chr_link, on_chr);
    return l && l->f->read ? chr_link_room(l) : 0;
}

bool chr_has_reader(struct chr *c)
{
    struct chr_link *l = list_first(&c->links, struct chr_link, on_chr);
    return l && l->f->read;
}

void chr_rx(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_link *l = list_first(&c->links, struct chr_link, on_chr);
    if (l)
        chr_link_rx(l, buf, n);
}

void chr_push_event(struct chr *c, enum chr_event ev)
{
    struct chr_link *l;
    list_for_each(l, &c->links, on_chr)
        chr_link_event(l, ev);
}

void chr_set_open(struct chr *c, bool open)
{
    if (c->open == open)
        return;
    if (!open)
        chr_drain(c);
    c->open = open;
    c->tx_blocked = false;
    c->tx_errno = 0;
    chr_push_event(c, open ? CHR_OPENED : CHR_CLOSED);
    chr_drain(c);
}

/* ---- towards the back end ---- */

static void write_log(struct chr *c, const uint8_t *p, size_t n)
{
    if (c->log_fd < 0)
        return;
    ssize_t r = write(c->log_fd, p, n);
    int err = r < 0 ? errno : (size_t)r < n ? ENOSPC : 0;
    if (err && err != c->log_errno)
        log_warn("chardev '%s': cannot write log file '%s': %s", c->obj.id, c->logfile, strerror(err));
    c->log_errno = err;
}

/* Reports a failed write, once for each run of failures. */
static void report_lost(struct chr *c, int os_errno)
{
    const struct chr_class *k = CHR_CLASS(c);
    struct str what = { 0 };
    if (os_errno == c->tx_errno)
        return;
    c->tx_errno = os_errno;
    if (k->what)
        k->what(c, &what);
    else
        chr_filename(c, &what);
    log_warn("chardev '%s': cannot write to %s: %s; output is lost until it works again", c->obj.id, what.s,
             strerror(os_errno));
    str_free(&what);
}

/* Hands one run of queued bytes to the back end; false when there is none or it is not taken. */
static bool link_drain_step(struct chr_link *l)
{
    struct chr *c = l->c;
    const struct chr_class *k = CHR_CLASS(c);
    const uint8_t *p;

    pthread_mutex_lock(&l->lock);
    uint32_t n = ring_peek(&l->out, &p);
    pthread_mutex_unlock(&l->lock);
    if (!n)
        return false;
    ssize_t r = n;                      /* nobody there: bytes vanish */
    if ((c->open || k->writes_closed) && k->write) {
        r = k->write(c, p, n);
        if (r == -EAGAIN || r == 0) {
            c->tx_blocked = true;
            return false;
        }
        if (r < 0) {
            report_lost(c, (int)-r);
            r = n;
        } else {
            c->tx_errno = 0;
        }
    }
    write_log(c, p, (size_t)r);
    pthread_mutex_lock(&l->lock);
    ring_skip(&l->out, (uint32_t)r);
    bool tell = l->want_writable && ring_used(&l->out) <= OUT_RING / 2;
    if (tell) {
        l->want_writable = false;
        l->tell_writable = true;
    }
    pthread_mutex_unlock(&l->lock);
    if (tell)
        link_post_deliver(l);
    return true;
}

static void link_drain(void *arg)
{
    struct chr_link *l = arg;
    for (int i = 0; i < DRAIN_ROUNDS; i++)
        if (l->c->tx_blocked || !link_drain_step(l))
            return;
    loop_post(loop_main(), &l->drain);
}

void chr_drain(struct chr *c)
{
    struct chr_link *l;
    list_for_each(l, &c->links, on_chr)
        link_drain(l);
}

void chr_tx_ready(struct chr *c)
{
    c->tx_blocked = false;
    chr_drain(c);
}

const char *chr_link_user(const struct chr_link *l) { return l->user; }

struct chr_link *chr_link_next(struct chr *c, struct chr_link *l)
{
    if (list_empty(&c->links))
        return NULL;
    struct list *n = l ? l->on_chr.next : c->links.next;
    return list_entry(n == &c->links ? n->next : n, struct chr_link, on_chr);
}

/* ---- what front ends call ---- */

size_t chr_write(struct chr_front *f, const void *buf, size_t n)
{
    struct chr_link *l = f->priv;
    if (!l)
        return n;
    pthread_mutex_lock(&l->lock);
    size_t done = ring_put(&l->out, buf, n);
    if (done < n)
        l->want_writable = true;
    pthread_mutex_unlock(&l->lock);
    loop_post(loop_main(), &l->drain);
    return done;
}

void chr_accept(struct chr_front *f)
{
    struct chr_link *l = f->priv;
    if (l)
        link_post_deliver(l);
}

bool chr_is_open(const struct chr_front *f)
{
    const struct chr_link *l = f->priv;
    return l && atomic_load(&l->open);
}

void chr_set_front_open(struct chr_front *f, bool open)
{
    struct chr_link *l = f->priv;
    if (l)
        atomic_store(&l->front_open, open);
}

bool chr_front_open(const struct chr *c)
{
    struct chr_link *l;
    list_for_each(l, &c->links, on_chr)
        if (atomic_load(&l->front_open))
            return true;
    return false;
}

int chr_take_fd(struct chr_front *f)
{
    struct chr_link *l = f->priv;
    return l && CHR_CLASS(l->c)->take_fd ? CHR_CLASS(l->c)->take_fd(l->c) : -1;
}

int chr_dup_socket(struct chr_front *f)
{
    struct chr_link *l = f->priv;
    return l && CHR_CLASS(l->c)->dup_socket ? CHR_CLASS(l->c)->dup_socket(l->c) : -1;
}

static void link_attach(struct chr_link *l, struct chr *c)
{
    const struct chr_class *k = CHR_CLASS(c);
    l->c = c;
    l->f->chr = c;
    list_push(&c->links, &l->on_chr);
    c->n_links++;
    obj_ref(&c->obj);
    if (c->open)
        chr_link_event(l, CHR_OPENED);
    if (k->link_added)
        k->link_added(c, l);
    if (k->rx_resume)
        k->rx_resume(c);
}

static void link_detach(struct chr_link *l)
{
    struct chr *c = l->c;
    list_del(&l->on_chr);
    c->n_links--;
    if (CHR_CLASS(c)->link_removed)
        CHR_CLASS(c)->link_removed(c, l);
    obj_unref(&c->obj);
}

bool chr_connect(struct chr_front *f, struct obj *chardev, struct domain *dom, const char *user, struct err *e)
{
    f->priv = NULL;
    f->chr = NULL;
    f->dom = dom;
    if (!chardev)
        return true;
    struct chr *c = (struct chr *)chardev;
    const struct chr_class *k = CHR_CLASS(c);
    unsigned max = k->max_fronts ? k->max_fronts : 1;
    if (c->n_links >= max) {
        struct chr_link *first = list_first(&c->links, struct chr_link, on_chr);
        err_set(e, ERR_BUSY, "chardev '%s' is already used by %s", c->obj.id, first->user);
        return max > 1 ? false : err_hint(e, "give '%s' the option mux=on to share it, or add another -chardev", c->obj.id);
    }
    struct chr_link *l = xnew(struct chr_link);
    l->f = f;
    l->user = xstrdup(user);
    atomic_store(&l->front_open, true);
    pthread_mutex_init(&l->lock, NULL);
    ring_init(&l->in, IN_RING);
    ring_init(&l->out, OUT_RING);
    l->deliver = (struct post){ .fn = link_deliver, .arg = l, .dom = dom };
    l->drain = (struct post){ .fn = link_drain, .arg = l };
    l->resume = (struct post){ .fn = link_resume, .arg = l };
    f->priv = l;
    link_attach(l, c);
    return true;
}

static void link_cancel_deliver(void *arg)
{
    struct chr_link *l = arg;
    if (!l->delivering)
        loop_post_cancel(loop_current(), &l->deliver);
}

void chr_disconnect(struct chr_front *f)
{
    struct chr_link *l = f->priv;
    if (!l)
        return;
    link_drain(l);
    loop_post_cancel(loop_main(), &l->drain);
    loop_post_cancel(loop_main(), &l->resume);
    link_detach(l);
    f->priv = NULL;
    f->chr = NULL;
    struct loop *home = f->dom ? domain_loop(f->dom) : loop_main();
    if (home == loop_current())
        link_cancel_deliver(l);
    else
        loop_call(home, link_cancel_deliver, l);
    if (l->delivering)
        l->dead = true;                 /* called from one of its own callbacks: freed when that returns */
    else
        link_free(l);
}

void chr_move_links(struct chr *from, struct chr *to)
{
    struct chr_link *l;
    list_for_each(l, &from->links, on_chr) {
        bool was_open = from->open;
        link_detach(l);
        if (was_open)
            chr_link_event(l, CHR_CLOSED);
        link_attach(l, to);
    }
}

/* ---- the class ---- */

const struct prop chr_props[] = {
    PROP_STR(struct chr, logfile, "logfile", 0, "File that gets a copy of everything written"),
    PROP_BOOL(struct chr, logappend, "logappend", false, "Keep what the log file holds already"),
    PROP_BOOL(struct chr, mux, "mux", false, "Let several front ends share it; Ctrl-a c changes between them"),
    PROP_END
};

static bool chr_init(struct obj *o, struct err *e)
{
    struct chr *c = (struct chr *)o;
    list_init(&c->links);
    c->log_fd = -1;
    return true;
}

static bool chr_check(struct obj *o, struct err *e)
{
    struct chr *c = (struct chr *)o;
    if (c->logappend && !c->logfile)
        return err_set(e, ERR_VALUE, "logappend has no effect without logfile");
    return true;
}

static bool chr_complete(struct obj *o, struct err *e)
{
    struct chr *c = (struct chr *)o;
    if (c->logfile) {
        c->log_fd = open(c->logfile, O_WRONLY | O_CREAT | O_CLOEXEC | (c->logappend ? O_APPEND : O_TRUNC), 0666);
        if (c->log_fd < 0)
            return err_os(e, errno, "cannot open log file '%s'", c->logfile);
    }
    return CHR_CLASS(c)->open ? CHR_CLASS(c)->open(c, e) : (chr_set_open(c, true), true);
}

static bool chr_can_delete(struct obj *o, struct err *e)
{
    struct chr *c = (struct chr *)o;
    struct chr_link *l = list_first(&c->links, struct chr_link, on_chr);
    if (l)
        return err_set(e, ERR_BUSY, "chardev '%s' is in use by %s", o->id, l->user);
    return true;
}

static void chr_finalize(struct obj *o)
{
    struct chr *c = (struct chr *)o;
    if (CHR_CLASS(c)->close)
        CHR_CLASS(c)->close(c);
    if (c->log_fd >= 0)
        close(c->log_fd);
}

const struct obj_class chr_class = {
    .name = "chardev", .desc = "Character back end", .size = sizeof(struct chr), .props = chr_props,
    .flags = OCF_ABSTRACT, .ns = "chardev", .init = chr_init, .check = chr_check, .complete = chr_complete,
    .can_delete = chr_can_delete, .finalize = chr_finalize,
};
OBJ_CLASS(&chr_class);

void chr_filename(const struct chr *c, struct str *out)
{
    if (CHR_CLASS(c)->filename)
        CHR_CLASS(c)->filename(c, out);
    else
        str_add(out, chr_type_name(c->obj.cls));
}
