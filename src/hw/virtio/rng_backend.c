/* SPDX-License-Identifier: MIT */
#include "hw/virtio/rng_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "loop/co.h"

const struct obj_class rng_backend_class = { .name = "rng-backend", .size = sizeof(struct obj), .flags = OCF_ABSTRACT, .ns = "object" };
OBJ_CLASS(&rng_backend_class);

struct rng_random { struct obj obj; char *filename; int fd; };

static const struct obj_class rng_builtin_class = {
    .name = "rng-builtin", .desc = "Entropy from the host kernel's generator, or from -seed", .base = &rng_backend_class, .size = sizeof(struct obj),
};
OBJ_CLASS(&rng_builtin_class);

static bool rng_random_init(struct obj *o, struct err *e)
{
    ((struct rng_random *)o)->fd = -1;
    return true;
}

static bool rng_random_complete(struct obj *o, struct err *e)
{
    struct rng_random *r = (struct rng_random *)o;

    struct stat st;
    r->fd = open(r->filename, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return err_os(e, errno, "cannot open '%s' for entropy", r->filename);
    return fstat(r->fd, &st) || !S_ISDIR(st.st_mode) || err_set(e, ERR_VALUE, "filename: '%s' is a directory: it gives no entropy", r->filename);
}

static void rng_random_finalize(struct obj *o)
{
    struct rng_random *r = (struct rng_random *)o;

    if (r->fd >= 0)
        close(r->fd);
}

static const struct prop rng_random_props[] = {
    PROP_STR_DEF(struct rng_random, filename, "filename", "/dev/urandom", "File or device that entropy is read from"),
    PROP_END
};
static const struct obj_class rng_random_class = {
    .name = "rng-random", .desc = "Entropy from a file or device", .base = &rng_backend_class, .size = sizeof(struct rng_random),
    .props = rng_random_props, .init = rng_random_init, .complete = rng_random_complete, .finalize = rng_random_finalize,
};
OBJ_CLASS(&rng_random_class);

struct rng_read { int fd; void *buf; size_t n; };

static int rng_read_blocking(void *arg)
{
    struct rng_read *r = arg;
    ssize_t n;

    if (r->fd < 0) {
        int err = guest_random(r->buf, r->n);
        return err ? err : (int)r->n;
    }
    do
        n = read(r->fd, r->buf, r->n);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n ? (int)n : -ENODATA;
}

int co_rng_read(struct obj *rng, void *buf, size_t n)
{
    struct rng_read r = { obj_is(rng, &rng_random_class) ? ((struct rng_random *)rng)->fd : -1, buf, n };

    if (r.fd < 0 && n <= 256)
        return rng_read_blocking(&r);           /* never waits once the host has booted */
    loop_work_begin();
    int k = co_offload(rng_read_blocking, &r);
    loop_work_end();
    return k;
}
