/* SPDX-License-Identifier: MIT */
/* The qcow2 driver's way to the file below, requests in flight, and what happens when an image contradicts itself. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/qcow2_int.h"
#include "core/cmd.h"

int co_q2_pread(struct qcow2 *s, uint64_t off, void *buf, uint64_t len)
{
    uint64_t size = q2_file_size(s), there = off >= size ? 0 : MIN(len, size - off);
    struct iovec v = { buf, there };
    int r = there ? co_node_preadv(q2_file(s), off, there, &v, 1, 0) : 0;
    if (!r)
        memset((char *)buf + there, 0, len - there);
    return r;
}

int co_q2_pwrite(struct qcow2 *s, uint64_t off, const void *buf, uint64_t len)
{
    struct iovec v = { (void *)buf, len };
    if (s->broken)
        return -EIO;
    int r = co_node_pwritev(q2_file(s), off, len, &v, 1, BLK_GROW);
    s->writes++;                    /* counted when done: a barrier that begins before does not cover it */
    return r;
}

int co_q2_write_zeroes(struct qcow2 *s, uint64_t off, uint64_t len)
{
    if (s->broken)
        return -EIO;
    int r = co_node_zero(q2_file(s), off, len, BLK_GROW);
    s->writes++;
    return r;
}

int co_q2_barrier(struct qcow2 *s)
{
    uint64_t before = s->writes;
    if (s->durable == before)
        return 0;
    int r = co_node_flush(q2_file(s));
    if (!r && s->has_data_file)
        r = co_node_flush(q2_data(s));
    if (!r)
        s->durable = MAX(s->durable, before);
    return r;
}

/* ---- requests ---- */

void co_q2_enter(struct qcow2 *s, struct q2_req *r)
{
    while (s->exclusive)
        co_queue_wait(&s->gate);
    r->seq = ++s->seq;
    list_push(&s->reqs, &r->link);
}

void q2_leave(struct qcow2 *s, struct q2_req *r)
{
    list_del(&r->link);
    if (list_empty(&s->reqs))
        co_queue_wake_all(&s->quiet);
}

void co_q2_lock_all(struct qcow2 *s)
{
    while (s->exclusive)
        co_queue_wait(&s->gate);
    s->exclusive = true;
    while (!list_empty(&s->reqs))
        co_queue_wait(&s->quiet);
}

void q2_unlock_all(struct qcow2 *s)
{
    s->exclusive = false;
    co_queue_wake_all(&s->gate);
}

bool co_q2_alloc_begin(struct qcow2 *s, struct q2_alloc *a, uint64_t start, uint64_t end)
{
    struct q2_alloc *o;
    list_for_each(o, &s->allocs, link) {
        if (start < o->end && o->start < end) {
            co_queue_wait(&o->waiting);
            return false;
        }
    }
    *a = (struct q2_alloc){ .start = start, .end = end };
    list_push(&s->allocs, &a->link);
    return true;
}

void q2_alloc_end(struct q2_alloc *a)
{
    list_del(&a->link);
    co_queue_wake_all(&a->waiting);
}

/* ---- contradictions ---- */

static const struct qmp_event_def corrupted_event = { "BLOCK_IMAGE_CORRUPTED", "Metadata of an image contradicts itself",
    .says = "{device:str, node-name:str, msg:str, offset:int, fatal:bool}" };
QMP_EVENT(&corrupted_event);

int co_q2_corrupt(struct qcow2 *s, uint64_t off, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    bool writable = !s->node.caps.read_only;
    if (s->corrupt)
        return -EIO;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    s->corrupt = true;
    s->broken |= writable;
    log_warn("%s: the image is corrupt: %s%s", blk_node_filename(&s->node), text,
             writable ? "; nothing more is written to it" : "");
    qmp_event("BLOCK_IMAGE_CORRUPTED", json_pack("{s:s, s:s, s:s, s:I, s:b}", "device", "", "node-name", s->node.obj.id, "msg", text,
                                                 "offset", (json_int_t)off, "fatal", writable));
    if (writable && s->version >= 3 && !(s->incompat & Q2_INCOMPAT_CORRUPT)) {
        uint8_t be[8];
        s->incompat |= Q2_INCOMPAT_CORRUPT;
        st_be64(be, s->incompat);
        struct iovec v = { be, 8 };
        if (!co_node_pwritev(q2_file(s), Q2_H_INCOMPAT, 8, &v, 1, 0))
            co_node_flush(q2_file(s));
    }
    return -EIO;
}
