/* SPDX-License-Identifier: MIT */
/* A medium that changes while the guest asks for it: it can close the tray itself, at any moment, on another thread. */
#include "blk_test.h"
#include "block/blk.h"
#include "core/dev.h"

static struct blk_front_opts opts;
static struct obj user = { .id = (char *)"cd" };

static struct blk *drive_of(struct domain *d, struct blk_node *n)
{
    opts = (struct blk_front_opts){ .may_be_empty = true, .drive = n ? obj_ref(&n->obj) : NULL };
    struct blk *b = blk_front_open(&opts, &user, d, true, &err);
    assert_non_null(b);
    return b;
}

static struct blk_node *medium(const char *name, unsigned latency_ns)
{
    return must(node_of(json_of("{'driver':'null-co','node-name':'%s','size':65536,'read-zeroes':true,'latency-ns':%u}", name, latency_ns)));
}

struct change { struct blk *b; struct blk_node *n; bool ok, done; };
static void co_change(void *arg)
{
    struct change *c = arg;
    c->ok = co_blk_set_medium(c->b, c->n, &err);
    c->done = true;
}

struct rd { struct blk *b; int r; bool done; };
static void co_read(void *arg)
{
    struct rd *x = arg;
    char buf[512];
    struct iovec v = { buf, sizeof buf };
    x->r = co_blk_preadv(x->b, 0, sizeof buf, &v, 1, 0);
    x->done = true;
}

/* The first is let end on the old medium; the second began when that was on its way out. */
static void who_comes_late_finds_the_new_medium(void **state)
{
    struct domain *d = domain_new(loop_main(), "cd");
    struct blk_node *n = medium("old", 50000000);
    struct blk *b = drive_of(d, n);
    struct rd early = { .b = b }, late = { .b = b };
    struct change c = { .b = b };
    co_spawn(NULL, d, co_read, &early);
    co_spawn(loop_main(), NULL, co_change, &c);
    co_spawn(NULL, d, co_read, &late);
    assert_false(early.done || c.done);
    UNTIL(early.done && late.done && c.done, loop_run_once(loop_main(), 1000000));
    assert_true(c.ok);
    assert_int_equal(early.r, 0);
    assert_int_equal(late.r, -ENOMEDIUM);
    blk_close(b);
    del(n);
    domain_free(d);
}

struct reader { struct blk *b; atomic_bool *stop; _Atomic uint64_t *reads; atomic_uint *alive; int wrong; };
static void co_reader(void *arg)
{
    struct reader *x = arg;
    struct blk_caps caps;
    char buf[512];
    struct iovec v = { buf, sizeof buf };
    while (!atomic_load(x->stop)) {
        int r = co_blk_preadv(x->b, 0, sizeof buf, &v, 1, 0);
        x->wrong = r && r != -ENOMEDIUM ? r : x->wrong;
        r = co_blk_pwritev(x->b, 0, sizeof buf, &v, 1, 0);
        x->wrong = r && r != -ENOMEDIUM && r != -EROFS ? r : x->wrong;
        blk_get_caps(x->b, &caps);
        atomic_fetch_add(x->reads, 1);
        co_yield();
    }
    atomic_fetch_sub(x->alive, 1);
}

static void nothing(void *unused) { }

/* Requests overlap without end; each change is done all the same, and what was taken out is gone for good. */
static void a_thread_reads_while_media_change(void **state)
{
    enum { READERS = 4, CHANGES = 40 };
    struct loop *l = loop_new_thread("io", &err);
    struct domain *d = domain_new(l, "cd");
    struct blk *b = drive_of(d, NULL);
    struct reader v[READERS];
    atomic_bool stop = false;
    atomic_uint alive = READERS;
    _Atomic uint64_t reads = 0;
    for (unsigned i = 0; i < READERS; i++) {
        v[i] = (struct reader){ b, &stop, &reads, &alive, 0 };
        co_spawn(NULL, d, co_reader, &v[i]);
    }
    for (unsigned i = 0; i < CHANGES; i++) {
        struct blk_node *n = medium("disc", 100000);
        struct change in = { .b = b, .n = n }, out = { .b = b };
        uint64_t before = atomic_load(&reads);
        co_run_main(co_change, &in);
        assert_true(in.ok);
        UNTIL(atomic_load(&reads) > before, loop_run_once(loop_main(), 100000));
        co_run_main(co_change, &out);
        assert_true(out.ok);
        del(n);
    }
    atomic_store(&stop, true);
    UNTIL(!atomic_load(&alive), loop_run_once(loop_main(), 100000));
    loop_call(l, nothing, NULL);        /* the coroutines have ended by then */
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(v[i].wrong, 0);
    blk_close(b);
    loop_free_thread(l);
    domain_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_comes_late_finds_the_new_medium),
        cmocka_unit_test(a_thread_reads_while_media_change),
    };
    if (!mkdtemp(dir))
        return 1;
    return run_block_tests(RUN_IN_BOTH_MODES(tests));
}
