/* SPDX-License-Identifier: MIT */
/*
 * Which thread serves which queue of virtio-blk: iothread for all of them, or iothread-vq-mapping, a list of objects with an
 * iothread and, in all or in none, the indexes of its queues.
 */
#include <stdlib.h>
#include "hw/virtio/virtio_blk.h"
#include "loop/iothread.h"

#define ROW "iothread-vq-mapping"

static bool hold(struct virtio_blk *b, struct obj *t, struct err *e)
{
    for (unsigned i = 0; i < b->n_threads; i++)
        if (b->threads[i] == t)
            return err_set(e, ERR_VALUE, ROW ": iothread '%s' is named twice", t->id);
    b->threads = xrealloc(b->threads, (b->n_threads + 1) * sizeof *b->threads);
    b->threads[b->n_threads++] = obj_ref(t);
    return true;
}

static bool queue_give(struct virtio_blk *b, json_t *index, struct obj *t, struct err *e)
{
    json_int_t i = json_is_integer(index) ? json_integer_value(index) : -1;

    if (i < 0 || i >= b->num_queues)
        return err_set(e, ERR_VALUE, ROW ": vqs holds indexes from 0 to %u (num-queues - 1)", b->num_queues - 1u);
    if (b->v.vq[i].loop != domain_loop(b->v.dom))
        return err_set(e, ERR_VALUE, ROW ": queue %d is given to two threads", (int)i);
    b->v.vq[i].loop = iothread_loop(t);
    return true;
}

/* One member of the list. *@listed: it names its queues. */
static bool entry_take(struct virtio_blk *b, json_t *m, bool *listed, struct err *e)
{
    const char *id = json_string_value(json_object_get(m, "iothread"));
    json_t *vqs = json_object_get(m, "vqs"), *index;
    size_t at;

    if (!id || json_object_size(m) != (vqs ? 2u : 1u) || (vqs && !json_is_array(vqs))) {
        err_set(e, ERR_VALUE, ROW ": each member is an object with 'iothread' and, if wanted, 'vqs', a list of queue indexes");
        return err_hint(e, "\"" ROW "\":[{\"iothread\":\"t0\"},{\"iothread\":\"t1\"}]");
    }
    struct obj *t = obj_lookup(&iothread_class, id, e);
    if (!t)
        return err_prefix(e, ROW);
    if (!hold(b, t, e))
        return false;
    *listed = vqs;
    json_array_foreach(vqs, at, index)
        if (!queue_give(b, index, t, e))
            return false;
    return true;
}

static bool all_given(const struct virtio_blk *b, struct err *e)
{
    for (unsigned i = 0; i < b->num_queues; i++)
        if (b->v.vq[i].loop == domain_loop(b->v.dom))
            return err_set(e, ERR_VALUE, ROW ": queue %u is given to no thread", i);
    return true;
}

static bool map_apply(struct virtio_blk *b, struct err *e)
{
    size_t at, lists = 0;
    bool listed = false;
    json_t *m;

    if (b->iothread)
        return err_set(e, ERR_VALUE, "iothread and " ROW " exclude each other");
    if (!json_is_array(b->vq_mapping) || !json_array_size(b->vq_mapping))
        return err_set(e, ERR_VALUE, ROW " is a list with one member or more");
    json_array_foreach(b->vq_mapping, at, m) {
        if (!entry_take(b, m, &listed, e))
            return false;
        lists += listed;
    }
    if (lists && lists != at)
        return err_set(e, ERR_VALUE, ROW ": either all members have 'vqs' or none has");
    if (lists)
        return all_given(b, e);
    for (unsigned i = 0; i < b->num_queues; i++)
        b->v.vq[i].loop = iothread_loop(b->threads[i % b->n_threads]);
    return true;
}

bool vblk_threads_set(struct virtio_blk *b, struct err *e)
{
    if (b->iothread && iothread_loop(b->iothread) != domain_loop(b->v.dom)) {
        err_set(e, ERR_VALUE, "iothread: a device on a virtio-bus runs where its transport runs");
        return err_hint(e, "use virtio-blk-pci for a thread of its own");
    }
    if (b->vq_mapping && !map_apply(b, e)) {
        vblk_threads_forget(b);
        return false;
    }
    return true;
}

void vblk_threads_forget(struct virtio_blk *b)
{
    for (unsigned i = 0; i < b->n_threads; i++)
        obj_unref(b->threads[i]);
    free(b->threads);
    b->threads = NULL;
    b->n_threads = 0;
}
