/* SPDX-License-Identifier: MIT */
/*
 * What -snapshot puts over an image: clusters that were written live in an unlinked temporary file, the others are read
 * from below. All of it is gone when the process ends. State lives on the main loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "block/driver.h"

enum { CLUSTER = 64 * 1024 };

struct blk_overlay {
    struct blk_node node;
    json_t *file;
    int fd;
    enum co_file kind;
    uint8_t *written;               /* a bit for each cluster in the temporary file */
    struct co_mutex allocating;
};

static struct blk_overlay *overlay_of(struct blk_node *n) { return (struct blk_overlay *)n; }

static bool is_written(const struct blk_overlay *s, uint64_t cluster) { return s->written[cluster / 8] >> (cluster % 8) & 1; }

/* Length of the run at @off, at most @len, that is all written or all not. */
static uint64_t run_length(const struct blk_overlay *s, uint64_t off, uint64_t len, bool *written)
{
    uint64_t c = off / CLUSTER, end = off + len;
    *written = is_written(s, c);
    while (++c * CLUSTER < end && is_written(s, c) == *written)
        ;
    return MIN(c * CLUSTER, end) - off;
}

static bool open_temporary(struct blk_overlay *s, struct err *e)
{
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir)
        dir = "/var/tmp";
    s->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (s->fd >= 0)
        return true;
    char *name = xasprintf("%s/backplane-XXXXXX", dir);     /* file systems without O_TMPFILE */
    s->fd = mkostemp(name, O_CLOEXEC);
    int en = errno;
    if (s->fd >= 0)
        unlink(name);
    free(name);
    return s->fd >= 0 || err_os(e, en, "cannot make a temporary file in '%s' for -snapshot", dir);
}

static bool overlay_open(struct blk_node *n, struct err *e)
{
    struct blk_overlay *s = overlay_of(n);
    if (!blk_child_open(n, s->file, BLK_PERM_READ, BLK_PERM_READ, e) || !open_temporary(s, e))
        return false;
    s->kind = co_file_kind(s->fd, false);
    uint64_t size = atomic_load(&n->child.node->size);
    s->written = calloc(size / CLUSTER / 8 + 1, 1);
    if (!s->written)
        return err_os(e, ENOMEM, "no memory for a snapshot of %llu bytes", (unsigned long long)size);
    atomic_store(&n->size, size);
    n->caps = (struct blk_caps){ .logical_block = 512, .physical_block = 4096, .mem_align = 1, .fua = true };
    return true;
}

static void overlay_close(struct blk_node *n)
{
    struct blk_overlay *s = overlay_of(n);
    blk_child_close(n);
    free(s->written);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static bool overlay_init(struct obj *o, struct err *e)
{
    ((struct blk_overlay *)o)->fd = -1;
    return true;
}

/* All of @iov to or from the temporary file. */
static int co_temp_io(struct blk_overlay *s, bool write, uint64_t off, struct iovec *iov, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char *p = iov[i].iov_base;
        for (size_t left = iov[i].iov_len; left;) {
            struct iovec v = { p, left };
            ssize_t r = write ? co_pwritev(s->fd, &v, 1, off, 0, s->kind) : co_preadv(s->fd, &v, 1, off, s->kind);
            if (r <= 0)
                return r < 0 ? (int)r : write ? -ENOSPC : -EIO;
            p += r;
            off += (uint64_t)r;
            left -= (size_t)r;
        }
    }
    return 0;
}

static int overlay_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_overlay *s = overlay_of(n);
    struct iovec *part = calloc(niov, sizeof *part);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        bool written;
        uint64_t run = run_length(s, off + at, len - at, &written);
        unsigned k = blk_iov_slice(iov, niov, at, run, part);
        r = written ? co_temp_io(s, false, off + at, part, k) : co_node_preadv(n->child.node, off + at, run, part, k, 0);
        at += run;
    }
    free(part);
    return r;
}

/* The first write to a cluster: what is around it comes from below. Allocation lock held. */
static int write_new(struct blk_node *n, uint64_t off, uint64_t len, struct iovec *part, unsigned k)
{
    struct blk_overlay *s = overlay_of(n);
    uint64_t start = align_down(off, CLUSTER), end = MIN(start + CLUSTER, atomic_load(&n->size));
    int r = 0;
    if (start != off || end != off + len) {
        char *buf = malloc(CLUSTER);
        struct iovec v = { buf, end - start };
        r = buf ? co_node_preadv(n->child.node, start, end - start, &v, 1, 0) : -ENOMEM;
        r = r ? r : co_temp_io(s, true, start, &v, 1);
        free(buf);
    }
    r = r ? r : co_temp_io(s, true, off, part, k);
    if (!r)
        s->written[start / CLUSTER / 8] |= (uint8_t)(1 << (start / CLUSTER % 8));
    return r;
}

static int co_overlay_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct blk_overlay *s = overlay_of(n);
    struct iovec *part = calloc(niov, sizeof *part);
    int r = part ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t pos = off + at, run = MIN(len - at, CLUSTER - pos % CLUSTER);
        unsigned k = blk_iov_slice(iov, niov, at, run, part);
        if (!is_written(s, pos / CLUSTER)) {
            co_mutex_lock(&s->allocating);
            r = is_written(s, pos / CLUSTER) ? co_temp_io(s, true, pos, part, k) : write_new(n, pos, run, part, k);
            co_mutex_unlock(&s->allocating);
        } else {
            r = co_temp_io(s, true, pos, part, k);
        }
        at += run;
    }
    free(part);
    return r;
}

static int overlay_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    bool written;
    out->len = run_length(overlay_of(n), off, len, &written);
    out->data = true;
    return written ? 0 : co_node_map(n->child.node, off, out->len, out);
}

static const struct prop overlay_props[] = {
    PROP_JSON(struct blk_overlay, file, "file", PF_REQUIRED, "Node below"),
    PROP_END,
};
static const struct blk_driver overlay_driver = {
    .obj = { .name = "blockdev-temporary", .desc = "Layer that is thrown away at the end", .base = &blk_node_class,
             .size = sizeof(struct blk_overlay), .props = overlay_props, .flags = OCF_INTERNAL, .init = overlay_init },
    .flags = BLK_FILTER, .co_open = overlay_open, .co_close = overlay_close, .co_preadv = overlay_read, .co_pwritev = co_overlay_write,
    .co_map = overlay_map,
};
OBJ_CLASS(&overlay_driver.obj);

struct blk_node *blk_overlay_create(struct blk_node *base, const char *id, struct err *e)
{
    json_t *o = json_pack("{s:s}", "file", base->obj.id);
    struct blk_node *n = (struct blk_node *)obj_create(&overlay_driver.obj, id, o, NULL, e);
    json_decref(o);
    if (n) {        /* the base was made for this layer only: it goes with it */
        base->inline_child = true;
    }
    return n;
}
