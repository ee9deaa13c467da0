/* SPDX-License-Identifier: MIT */
/* Which thread serves which queue of virtio-blk: iothread for all of them, or iothread-vq-mapping. */
#include <stdlib.h>
#include "base/str.h"
#include "hw/virtio/virtio_blk.h"
#include "loop/iothread.h"

#define ROW "iothread-vq-mapping"

static bool map_apply(struct virtio_blk *b, struct err *e)
{
    static const struct iothread_map_words words = { .option = ROW, .key = "vqs", .last = "num-queues - 1" };
    struct loop **loop;
    bool ok;

    if (b->iothread)
        return err_set(e, ERR_VALUE, "iothread and " ROW " exclude each other");
    loop = xcalloc(b->num_queues, sizeof *loop);
    ok = iothread_map_set(&b->threads, b->vq_mapping, &words, loop, 0, b->num_queues - 1u, e);
    for (unsigned i = 0; ok && i < b->num_queues; i++) {
        if (!loop[i])
            ok = err_set(e, ERR_VALUE, ROW ": queue %u is given to no thread", i);
        else
            b->v.vq[i].loop = loop[i];
    }
    free(loop);
    return ok;
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

void vblk_threads_forget(struct virtio_blk *b) { iothread_map_clear(&b->threads); }
