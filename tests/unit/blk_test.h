/* SPDX-License-Identifier: MIT */
/* What the tests of the block layer share: nodes from text, one request at a time, numbers that look random. */
#ifndef BLK_TEST_H
#define BLK_TEST_H

#include "loop_modes.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "block/driver.h"

#ifndef BLK_TEST_DIR                     /* in memory, where the disk itself does not matter */
#define BLK_TEST_DIR "/dev/shm"
#endif
static char dir[] = BLK_TEST_DIR "/test_blk_XXXXXX";
static struct err err;

static inline char *path_of(const char *name) { return xasprintf("%s/%s", dir, name); }

/* JSON with ' for ". */
static json_t *json_of(const char *fmt, ...) PRINTF_LIKE(1, 2);
static inline json_t *json_of(const char *fmt, ...)
{
    va_list ap;
    char text[4096];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    return o;
}

static inline struct blk_node *node_of(json_t *o)
{
    err = (struct err)ERR_INIT;
    struct blk_node *n = blk_node_create(o, &err);
    json_decref(o);
    return n;
}

static inline struct blk_node *must(struct blk_node *n)
{
    if (!n)
        print_error("%s\n", err.msg);
    assert_non_null(n);
    return n;
}

static inline void del(struct blk_node *n) { assert_true(blk_node_delete(n, &err)); }

/* One request on a node itself, from outside coroutines. */
struct nio { struct blk_node *n; char op; uint64_t off, len; void *buf; unsigned flags; int r; };

static inline void nio_co(void *arg)
{
    struct nio *x = arg;
    struct iovec v = { x->buf, x->len };
    switch (x->op) {
    case 'r': x->r = co_node_preadv(x->n, x->off, x->len, &v, 1, x->flags); break;
    case 'w': x->r = co_node_pwritev(x->n, x->off, x->len, &v, 1, x->flags); break;
    case 'c': x->r = co_node_write_compressed(x->n, x->off, x->len, &v, 1); break;
    case 'z': x->r = co_node_zero(x->n, x->off, x->len, x->flags); break;
    case 'd': x->r = co_node_discard(x->n, x->off, x->len); break;
    case 'f': x->r = co_node_flush(x->n); break;
    case 's': x->r = co_node_resize(x->n, x->len); break;
    }
}

static inline int nio(struct blk_node *n, char op, uint64_t off, uint64_t len, void *buf, unsigned flags)
{
    struct nio x = { n, op, off, len, buf, flags, -1 };
    co_run_main(nio_co, &x);
    return x.r;
}

/* What a format says of its image, repaired as BLK_FIX_* in @fix. ->say of @res is the caller's choice. */
struct node_check { struct blk_node *n; struct blk_check *res; unsigned fix; int r; };

static inline void node_check_co(void *arg)
{
    struct node_check *c = arg;
    c->r = BLK_DRIVER(c->n)->co_check(c->n, c->res, c->fix);
}

static inline int node_check(struct blk_node *n, unsigned fix, struct blk_check *res)
{
    struct node_check c = { n, res, fix, -1 };
    co_run_main(node_check_co, &c);
    return c.r;
}

static inline void say_line(void *arg, const char *line) { print_error("%s\n", line); }

static unsigned rnd_state = 7;
static inline unsigned rnd(void) { return rnd_state = rnd_state * 1103515245 + 12345, rnd_state >> 8; }

static inline void fill_random(char *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        p[i] = (char)(rnd() | 1);
}

static inline int run_block_tests(int failed)
{
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd) ? 1 : failed;
}

#endif
