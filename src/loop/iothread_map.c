/* SPDX-License-Identifier: MIT */
#include "loop/iothread_map.h"

#include <stdlib.h>
#include "base/str.h"
#include "loop/iothread.h"

/* What is being read. */
struct reading {
    struct iothread_map *m;
    const struct iothread_map_words *w;
    struct loop **queue;
    unsigned first, last;
    struct err *e;
};

static bool hold(struct reading *g, struct obj *t)
{
    struct iothread_map *m = g->m;

    for (unsigned i = 0; i < m->n; i++)
        if (m->threads[i] == t)
            return err_set(g->e, ERR_VALUE, "%s: iothread '%s' is named twice", g->w->option, t->id);
    m->threads = xrealloc(m->threads, (m->n + 1) * sizeof *m->threads);
    m->threads[m->n++] = obj_ref(t);
    return true;
}

static bool queue_give(struct reading *g, json_t *number, struct obj *t)
{
    json_int_t i = json_is_integer(number) ? json_integer_value(number) : -1;

    if (i < (json_int_t)g->first || i > (json_int_t)g->last)
        return err_set(g->e, ERR_VALUE, "%s: %s holds numbers from %u to %u (%s)", g->w->option, g->w->key, g->first, g->last, g->w->last);
    if (g->queue[i])
        return err_set(g->e, ERR_VALUE, "%s: queue %d is given to two threads", g->w->option, (int)i);
    g->queue[i] = iothread_loop(t);
    return true;
}

/* One member of the list. *@listed: it names its queues. */
static bool entry_take(struct reading *g, json_t *one, bool *listed)
{
    const char *id = json_string_value(json_object_get(one, "iothread"));
    json_t *queues = json_object_get(one, g->w->key), *number;
    size_t at;

    if (!id || json_object_size(one) != (queues ? 2u : 1u) || (queues && !json_is_array(queues))) {
        err_set(g->e, ERR_VALUE, "%s: each member is an object with 'iothread' and, if wanted, '%s', a list of queue numbers", g->w->option,
                g->w->key);
        return err_hint(g->e, "\"%s\":[{\"iothread\":\"t0\"},{\"iothread\":\"t1\"}]", g->w->option);
    }
    struct obj *t = obj_lookup(&iothread_class, id, g->e);
    if (!t)
        return err_prefix(g->e, "%s", g->w->option);
    if (!hold(g, t))
        return false;
    *listed = queues;
    json_array_foreach(queues, at, number)
        if (!queue_give(g, number, t))
            return false;
    return true;
}

static bool list_take(struct reading *g, json_t *list)
{
    size_t at, lists = 0;
    bool listed = false;
    json_t *one;

    if (!json_is_array(list) || !json_array_size(list))
        return err_set(g->e, ERR_VALUE, "%s is a list with one member or more", g->w->option);
    json_array_foreach(list, at, one) {
        if (!entry_take(g, one, &listed))
            return false;
        lists += listed;
    }
    if (lists && lists != at)
        return err_set(g->e, ERR_VALUE, "%s: either all members have '%s' or none has", g->w->option, g->w->key);
    for (unsigned i = g->first; !lists && i <= g->last; i++)
        g->queue[i] = iothread_loop(g->m->threads[(i - g->first) % g->m->n]);
    return true;
}

bool iothread_map_set(struct iothread_map *m, json_t *list, const struct iothread_map_words *w, struct loop **queue, unsigned first,
                      unsigned last, struct err *e)
{
    struct reading g = { .m = m, .w = w, .queue = queue, .first = first, .last = last, .e = e };

    if (list_take(&g, list))
        return true;
    iothread_map_clear(m);
    return false;
}

void iothread_map_clear(struct iothread_map *m)
{
    for (unsigned i = 0; i < m->n; i++)
        obj_unref(m->threads[i]);
    free(m->threads);
    *m = (struct iothread_map){ .n = 0 };
}
