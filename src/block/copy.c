/* SPDX-License-Identifier: MIT */
#include "block/copy.h"

#include <errno.h>
#include <stdlib.h>

int co_copy_data(struct job *j, struct blk_node *src, struct blk_node *dst, uint64_t off, uint64_t len, bool zero, unsigned flags, void *buf,
                 bool *is_read)
{
    struct iovec v = { buf, len };
    *is_read = true;
    if (j && !co_job_throttle(j, len))
        return -ECANCELED;
    int r = zero ? 0 : co_node_preadv(src, off, len, &v, 1, 0);
    if (r)
        return r;
    *is_read = false;
    return zero ? co_node_zero(dst, off, len, flags) : co_node_pwritev(dst, off, len, &v, 1, flags & ~(unsigned)BLK_ZERO_UNMAP);
}

/* One piece, however often it takes. False: the walk is over. */
static bool co_piece(struct copy_walk *w, uint64_t off, uint64_t *len, void *buf)
{
    for (uint64_t most = *len;;) {
        bool is_read = true;
        *len = most;
        int r = w->co_piece(w, off, len, buf, &is_read);
        if (!r || w->j->cancelled)
            return !r;
        enum blk_action act = job_error(w->j, w->on_error, is_read, r);
        if (act == BLK_ACT_STOP) {
            if (!co_job_pause_point(w->j))
                return false;
            continue;
        }
        w->ret = w->ret ? w->ret : r;
        w->give_up |= act == BLK_ACT_REPORT;
        return !w->give_up;
    }
}

static void worker(void *arg)
{
    struct copy_walk *w = arg;
    void *buf = NULL;
    if (posix_memalign(&buf, 4096, COPY_CHUNK)) {
        w->ret = -ENOMEM;
        w->give_up = true;
    }
    while (!w->give_up && w->pos < w->end && co_job_pause_point(w->j)) {
        uint64_t off = w->pos, end = MIN(align_down(off, COPY_CHUNK) + COPY_CHUNK, w->end), k;
        w->pos = end;
        for (; off < end && !w->give_up && !w->j->cancelled; off += k) {
            k = end - off;
            if (!co_piece(w, off, &k, buf))
                break;
            job_progress(w->j, k);
        }
    }
    free(buf);
}

int co_copy_walk(struct copy_walk *w)
{
    uint64_t pieces = (w->end - w->pos) / COPY_CHUNK + 1;
    co_job_workers(w->j, (unsigned)MIN(pieces, (uint64_t)COPY_WORKERS), worker, w);
    return w->j->cancelled ? -ECANCELED : w->ret;
}
