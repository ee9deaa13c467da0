/* SPDX-License-Identifier: MIT */
/*
 * The formats of blocks and tables that can be written: any sequence of writes and zeroes reads back, also after the image was opened
 * again, and checks clean. When this process ends at any write, the image opens, checks clean, and holds old or new bytes only.
 */
#include "blk_test.h"

enum { SIZE = 9 << 20, UNIT = 512, STEPS = 60, CUTS = 60 };

struct form { const char *driver, *opts; };
static const struct form forms[] = {
    { "vdi", "" }, { "vdi", ",'static':true" }, { "vpc", "" }, { "vpc", ",'subformat':'fixed'" }, { "vmdk", "" },
};

/* Each unit's bytes are one value; what it may hold besides. */
struct model { uint8_t now[SIZE / UNIT]; bool changing[SIZE / UNIT]; uint8_t was[SIZE / UNIT]; };
static char *img;

static void make(const struct form *f)
{
    json_t *o = json_of("{'size':%d%s}", SIZE, f->opts);
    if (!blk_image_create(img, f->driver, o, true, &err))
        fail_msg("%s", err.msg);
    json_decref(o);
}

static struct blk_node *open_image(const struct form *f, bool write, const char *file)
{
    return must(node_of(json_of("{'driver':'%s','node-name':'n','read-only':%s,'file':%s}", f->driver, write ? "false" : "true", file)));
}

static char *file_opts(void) { return xasprintf("{'driver':'file','filename':'%s'}", img); }

/* One step; false: it failed. What it changes may be old or new until it is done. */
static bool step(struct blk_node *n, struct model *m)
{
    static char buf[SIZE];
    uint64_t off = rnd() % (SIZE / UNIT) * UNIT, len = (uint64_t)(rnd() % (rnd() % 4 ? 40 : 6000) + 1) * UNIT;
    unsigned op = rnd() % 8, v = op < 6 ? rnd() % 255 + 1 : 0;
    len = MIN(len, SIZE - off);
    if (op == 7)
        return !nio(n, 'f', 0, 0, NULL, 0);
    memset(buf, (int)v, len);
    for (uint64_t u = off / UNIT; u < (off + len) / UNIT; u++) {
        m->was[u] = m->now[u];
        m->now[u] = (uint8_t)v;
        m->changing[u] = true;
    }
    int r = op < 6 ? nio(n, 'w', off, len, buf, 0) : nio(n, 'z', off, len, NULL, rnd() % 2 ? BLK_ZERO_UNMAP : 0);
    for (uint64_t u = off / UNIT; u < (off + len) / UNIT && !r; u++)
        m->changing[u] = false;
    return !r;
}

static void verify(struct blk_node *n, const struct model *m)
{
    static uint8_t buf[SIZE];
    struct blk_check res = { .say = say_line };
    assert_int_equal(nio(n, 'r', 0, SIZE, buf, 0), 0);
    for (unsigned u = 0; u < SIZE / UNIT; u++) {
        const uint8_t *p = buf + (size_t)u * UNIT;
        assert_memory_equal(p, p + 1, UNIT - 1);
        if (*p != m->now[u] && !(m->changing[u] && *p == m->was[u]))
            fail_msg("unit %u holds %u; it was %u, then %u", u, *p, m->was[u], m->now[u]);
    }
    assert_int_equal(node_check(n, 0, &res), 0);
    assert_int_equal(res.corruptions, 0);
}

static void writes_read_back(void **state)
{
    static struct model m;
    char *file = file_opts();
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        make(&forms[i]);
        memset(&m, 0, sizeof m);
        rnd_state = 5 + (unsigned)i;
        for (int round = 0; round < 4; round++) {
            struct blk_node *n = open_image(&forms[i], true, file);
            assert_int_equal(atomic_load(&n->size), SIZE);
            for (int k = 0; k < STEPS; k++)
                assert_true(step(n, &m));
            verify(n, &m);
            del(n);
            n = open_image(&forms[i], false, file);
            verify(n, &m);
            assert_int_equal(nio(n, 'w', 0, UNIT, m.now, 0), -EROFS);
            del(n);
        }
    }
    free(file);
}

/* The node below refuses writes from one on: as when the file system is full, or this process is killed there. */
static void any_failure_leaves_a_good_image(void **state)
{
    static struct model m;
    char *plain = file_opts();
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
        for (unsigned cut = 1; cut <= CUTS; cut++) {
            make(&forms[i]);
            memset(&m, 0, sizeof m);
            rnd_state = 77;
            struct blk_node *disk = must(node_of(json_of("{'driver':'powerloss','node-name':'disk','cut-at-write':%u,'keep':'all','file':%s}", cut,
                                                         plain)));
            struct blk_node *n = open_image(&forms[i], true, "'disk'");
            for (int k = 0; k < STEPS && step(n, &m); k++)
                ;
            del(n);
            del(disk);
            n = open_image(&forms[i], true, plain);
            verify(n, &m);
            for (int k = 0; k < 5; k++)             /* and goes on being written */
                assert_true(step(n, &m));
            verify(n, &m);
            del(n);
        }
    free(plain);
}

/* Requests side by side that want the same blocks: each block is found one place. */
struct many { struct blk_node *n; unsigned i, *left; int r; struct co_event *done; };
static void many_co(void *arg)
{
    struct many *x = arg;
    static char bufs[16][4096];
    memset(bufs[x->i], (int)x->i + 1, sizeof bufs[0]);
    struct iovec v = { bufs[x->i], sizeof bufs[0] };
    for (unsigned k = 0; k < 40 && !x->r; k++)
        x->r = co_node_pwritev(x->n, ((uint64_t)k * 16 + x->i) * 4096 % SIZE, 4096, &v, 1, 0);
    if (!--*x->left)
        co_wake(x->done);
}

static void all_co(void *arg)
{
    struct many v[16];
    unsigned left = ARRAY_SIZE(v);
    struct co_event done = { 0 };
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++) {
        v[i] = (struct many){ arg, i, &left, 0, &done };
        co_spawn(loop_main(), NULL, many_co, &v[i]);
    }
    co_wait(&done);
    for (unsigned i = 0; i < ARRAY_SIZE(v); i++)
        assert_int_equal(v[i].r, 0);
}

static void side_by_side(void **state)
{
    static struct model m;
    char *file = file_opts();
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        make(&forms[i]);
        memset(&m, 0, sizeof m);
        for (unsigned u = 0; u < 40 * 16 * 8; u++)
            m.now[u] = (uint8_t)(u / 8 % 16 + 1);
        struct blk_node *n = open_image(&forms[i], true, file);
        co_run_main(all_co, n);
        verify(n, &m);
        del(n);
    }
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_read_back), cmocka_unit_test(any_failure_leaves_a_good_image), cmocka_unit_test(side_by_side),
    };
    if (!mkdtemp(dir))
        return 1;
    img = path_of("image");
    return run_block_tests(cmocka_run_group_tests(tests, loop_modes_setup, NULL));
}
