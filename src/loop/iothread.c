/* SPDX-License-Identifier: MIT */
#include <sys/syscall.h>
#include <unistd.h>
#include "core/cmd.h"
#include "loop/iothread.h"
#include "loop/loop_int.h"

struct iothread {
    struct obj obj;
    struct loop *loop;
    int64_t thread_id;
    int64_t poll_max_ns;
};

static bool poll_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct iothread *t = (struct iothread *)o;
    if (t->loop)
        atomic_store(&t->loop->poll_ns, t->poll_max_ns);
    return true;
}

static const struct prop iothread_props[] = {
    { .name = "poll-max-ns", .type = PROP_T_S64, PROP_OFF(struct iothread, poll_max_ns), .flags = PF_RUNTIME,
      .min = 0, .max = 1000000000, .changed = poll_changed,
      .doc = "Nanoseconds of busy polling before the thread sleeps; 0 sleeps at once and leaves an idle machine idle" },
    PROP_END,
};

static void learn_tid(void *arg) { *(int64_t *)arg = syscall(SYS_gettid); }

static bool iothread_complete(struct obj *o, struct err *e)
{
    struct iothread *t = (struct iothread *)o;
    char name[16];
    snprintf(name, sizeof name, "IO %s", o->id ? o->id : "");
    t->loop = loop_new_thread(name, e);
    if (!t->loop)
        return false;
    atomic_store(&t->loop->poll_ns, t->poll_max_ns);
    loop_call(t->loop, learn_tid, &t->thread_id);
    return true;
}

static void iothread_finalize(struct obj *o)
{
    struct iothread *t = (struct iothread *)o;
    loop_free_thread(t->loop);
    t->loop = NULL;
}

const struct obj_class iothread_class = {
    .name = "iothread", .desc = "Thread with an event loop that devices run on", .size = sizeof(struct iothread),
    .props = iothread_props, .ns = "object", .complete = iothread_complete, .finalize = iothread_finalize,
};
OBJ_CLASS(&iothread_class);

struct loop *iothread_loop(struct obj *o)
{
    return o ? ((struct iothread *)o)->loop : loop_main();
}

bool dev_iothread_changed(struct obj *o, const struct prop *p, struct err *e)
{
    struct obj *t = *(struct obj **)((char *)o + p->off);
    ((struct dev *)o)->home = t ? iothread_loop(t) : NULL;
    return true;
}

static bool iothread_show(struct obj *o, void *list)
{
    struct iothread *t = (struct iothread *)o;
    json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:i, s:i, s:i}", "id", o->id, "thread-id", (json_int_t)t->thread_id,
        "poll-max-ns", (json_int_t)t->poll_max_ns, "poll-grow", 0, "poll-shrink", 0, "aio-max-batch", 0));
    return true;
}

static json_t *co_query_iothreads(void *args, struct err *e)
{
    json_t *list = json_array();
    obj_each(obj_root(), &iothread_class, iothread_show, list);
    return list;
}

static const struct qmp_cmd query_iothreads = {
    .name = "query-iothreads", .doc = "I/O threads with their host thread ids", .co_run = co_query_iothreads,
    .says = "[{id:str, thread-id:int, poll-max-ns:int, poll-grow:int, poll-shrink:int, aio-max-batch:int}]",
};
QMP_CMD(&query_iothreads);
