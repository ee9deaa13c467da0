/* SPDX-License-Identifier: MIT */
/* Events: from any thread to the main loop, rate limited where their row says so, to every session. */
#include "ctl/qmp.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "core/dev.h"
#include "loop/loop.h"

#define LIMIT_NS INT64_C(1000000000)    /* between two events of a limited kind */
#define QUEUED_MAX 4096u                /* events that wait for the main loop; further ones are dropped */

struct event { struct list link; const char *name; json_t *json; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list queue = LIST_INIT(queue);    /* of struct event; @lock */
static unsigned n_queued;
static struct post post;

/* Of one limited kind: what waits for the end of its second. */
struct limit { struct list link; const char *name; char *key; json_t *waiting; int64_t last; struct timer timer; };
static struct list limits = LIST_INIT(limits);

static void limit_over(void *arg)
{
    struct limit *l = arg;
    json_t *e = l->waiting;
    l->waiting = NULL;
    if (!e)
        return;
    l->last = clock_now(CLOCK_HOST);
    qmp_broadcast(e);
}

static const struct qmp_event_def *limited_def(const char *name)
{
    LINKSET_EACH(qmp_events, struct qmp_event_def, d)
        if (!strcmp(d->name, name))
            return d->limited ? d : NULL;
    return NULL;
}

/* The limit that @json falls under; NULL: none. */
static struct limit *limit_of(const char *name, json_t *json)
{
    const struct qmp_event_def *d = limited_def(name);
    const char *key = d && d->key ? json_string_value(json_object_get(json_object_get(json, "data"), d->key)) : NULL;
    struct limit *l;
    if (!d)
        return NULL;
    list_for_each(l, &limits, link)
        if (!strcmp(l->name, name) && str_eq(l->key, key))
            return l;
    l = xnew(struct limit);
    l->name = d->name;
    l->key = xstrdup(key);
    l->last = INT64_MIN / 2;
    timer_init(&l->timer, CLOCK_HOST, loop_main(), NULL, limit_over, l);
    list_push(&limits, &l->link);
    return l;
}

/* Takes over @json. */
static void deliver(const char *name, json_t *json)
{
    struct limit *l = limit_of(name, json);
    int64_t now = clock_now(CLOCK_HOST);
    if (!l || (now - l->last >= LIMIT_NS && !l->waiting)) {
        if (l)
            l->last = now;
        qmp_broadcast(json);
        return;
    }
    if (!l->waiting)
        timer_arm(&l->timer, l->last + LIMIT_NS);
    json_decref(l->waiting);
    l->waiting = json;
}

static void deliver_queued(void *arg)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        struct list *l = list_pop(&queue);
        n_queued -= l != NULL;
        pthread_mutex_unlock(&lock);
        if (!l)
            return;
        struct event *ev = list_entry(l, struct event, link);
        deliver(ev->name, ev->json);
        free(ev);
    }
}

static json_t *event_json(const char *name, json_t *data)
{
    int64_t t = clock_now(CLOCK_WALL);
    json_t *o = json_pack("{s:{s:I, s:I}, s:s}", "timestamp", "seconds", (json_int_t)(t / 1000000000), "microseconds",
                          (json_int_t)(t % 1000000000 / 1000), "event", name);
    if (data)
        json_object_set_new(o, "data", data);
    return o;
}

/* ANY. On the main loop an event goes out at once, so that it comes before the answer of the command that caused it. */
static void sink(const char *name, json_t *data)
{
    struct event *ev = xnew(struct event);
    ev->name = name;
    ev->json = event_json(name, data);
    pthread_mutex_lock(&lock);
    bool room = n_queued < QUEUED_MAX;
    if (room) {
        list_push(&queue, &ev->link);
        n_queued++;
    }
    pthread_mutex_unlock(&lock);
    if (!room) {
        json_decref(ev->json);
        free(ev);
    } else if (loop_current() == loop_main()) {
        deliver_queued(NULL);
    } else {
        loop_post(loop_main(), &post);
    }
}

/* ---- events of the core ---- */

static const struct qmp_event_def core_events[] = {
    { "RESUME", "The machine runs" },
    { "STOP", "The machine stopped" },
    { "RESET", "The machine was reset", .says = "{guest:bool, reason:str}" },
    { "POWERDOWN", "The power button was pressed" },
    { "SHUTDOWN", "The machine ends or stops for good", .says = "{guest:bool, reason:str}" },
    { "DEVICE_DELETED", "A device has gone", .says = "{*device:str, path:str}" },
};
QMP_EVENT(&core_events[0]);
QMP_EVENT(&core_events[1]);
QMP_EVENT(&core_events[2]);
QMP_EVENT(&core_events[3]);
QMP_EVENT(&core_events[4]);
QMP_EVENT(&core_events[5]);

static void on_dev_deleted(const char *id, const char *path)
{
    json_t *o = json_pack("{s:s}", "path", path);
    if (id)
        json_object_set_new(o, "device", json_string(id));
    sink("DEVICE_DELETED", o);
}

void qmp_events_init(void)
{
    if (qmp_event_sink)
        return;
    post = (struct post){ .fn = deliver_queued };
    qmp_event_sink = sink;
    dev_deleted_event = on_dev_deleted;
}
