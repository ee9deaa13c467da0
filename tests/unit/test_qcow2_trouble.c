/* SPDX-License-Identifier: MIT */
/* qcow2 where the file below fails or is slow, and images whose tables were left as few programs leave them. */
#include "blk_test.h"
#include "block/bitmap.h"
#include "block/filter.h"

/* ---- a filter that fails the next request but some, or holds writes to some places back ---- */

struct blk_picky { struct blk_node node; json_t *file; };
static uint64_t fail_in, fail_read_in;  /* the write, the read that fails, counted from here; 0: none */
static struct { uint64_t at[64]; unsigned n, waiting; struct co_event go; } hold;

static int co_picky_turn(uint64_t off, uint64_t len)
{
    for (unsigned i = 0; i < hold.n; i++) {
        if (!ranges_overlap(off, len, hold.at[i], 512))
            continue;
        hold.waiting++;
        co_wait(&hold.go);
        hold.waiting--;
    }
    return fail_in && !--fail_in ? -EIO : 0;
}
static bool co_picky_open(struct blk_node *n, struct err *e) { return co_filter_open(n, ((struct blk_picky *)n)->file, e); }
static int co_picky_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    return fail_read_in && !--fail_read_in ? -EIO : co_filter_read(n, off, len, iov, niov, flags);
}
static int co_picky_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_picky_turn(off, len);
    return r ? r : co_filter_write(n, off, len, iov, niov, flags);
}
static int co_picky_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_picky_turn(off, len);
    return r ? r : co_filter_zero(n, off, len, flags);
}
static const struct prop picky_props[] = { PROP_JSON(struct blk_picky, file, "file", PF_REQUIRED, "Test"), PROP_END };
static const struct blk_driver picky_driver = {
    .obj = { .name = "blockdev-picky", .desc = "Test", .base = &blk_node_class, .size = sizeof(struct blk_picky), .props = picky_props },
    .flags = BLK_FILTER, .co_open = co_picky_open, .co_close = co_filter_close, .co_preadv = co_picky_read, .co_pwritev = co_picky_write,
    .co_zero = co_picky_zero, .co_flush = co_filter_flush, .co_resize = co_filter_resize, .co_map = co_filter_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&picky_driver.obj);

static void let_go(void)
{
    hold.n = 0;
    co_wake(&hold.go);
}

/* ---- images ---- */

static char *img;
static unsigned running;                /* coroutines of a test */

static void until_waiting(void)
{
    while (!hold.waiting && running)
        loop_run_once(loop_main(), 1000000000);
    assert_true(hold.waiting);
}
static void until_done(void)
{
    while (running)
        loop_run_once(loop_main(), 1000000000);
}

static void create(const char *path, json_t *opts)
{
    err = (struct err)ERR_INIT;
    bool ok = blk_image_create(path, "qcow2", opts, true, &err);
    json_decref(opts);
    if (!ok)
        print_error("%s\n", err.msg);
    assert_true(ok);
}

static struct blk_node *open_image(const char *more)
{
    return must(node_of(json_of("{'driver':'qcow2','node-name':'q'%s,'file':{'driver':'picky','file':{'driver':'file','filename':'%s'}}}", more, img)));
}

static void say(void *arg, const char *line)
{
    if (!str_starts(line, "Leaked"))
        print_error("%s\n", line);
}

/* No worse than leaks. */
static uint64_t leaks(void)
{
    struct blk_node *n = open_image(",'read-only':true");
    struct blk_check res = { .say = say };
    assert_int_equal(node_check(n, 0, &res), 0);
    assert_int_equal(res.corruptions, 0);
    del(n);
    return res.leaks;
}

static void poke(uint64_t off, const void *data, size_t len)
{
    int fd = open(img, O_WRONLY);
    assert_int_equal(pwrite(fd, data, len, (off_t)off), (ssize_t)len);
    close(fd);
}

static uint64_t peek64(uint64_t off)
{
    uint8_t b[8] = { 0 };
    int fd = open(img, O_RDONLY);
    assert_int_equal(pread(fd, b, 8, (off_t)off), 8);
    close(fd);
    return ld_be64(b);
}

/* ---- snapshots ---- */

struct snap_op { struct blk_node *n; char op; const char *name; struct blk_snap *v; unsigned count; int r; };
static void snap_co(void *arg)
{
    struct snap_op *x = arg;
    const struct blk_snap_ops *o = BLK_DRIVER(x->n)->snap;
    struct blk_snap info = { .name = (char *)x->name };
    switch (x->op) {
    case 'c': x->r = o->create(x->n, &info); break;
    case 'a': x->r = o->apply(x->n, x->name); break;
    case 'd': x->r = o->del(x->n, x->name); break;
    case 'l': x->r = o->list(x->n, &x->v, &x->count); break;
    }
}
static int snap(struct blk_node *n, char op, const char *name)
{
    struct snap_op x = { .n = n, .op = op, .name = name, .r = -1 };
    co_run_main(snap_co, &x);
    return x.r;
}

/* The names of all, in order. */
static char *snaps(struct blk_node *n)
{
    struct snap_op x = { .n = n, .op = 'l', .r = -1 };
    struct str s = { 0 };
    co_run_main(snap_co, &x);
    assert_int_equal(x.r, 0);
    for (unsigned i = 0; i < x.count; i++)
        str_add(&s, x.v[i].name);
    blk_snaps_free(x.v, x.count);
    str_add(&s, "");
    return s.s;
}

/*
 * Each write of a snapshot's operation fails in turn. Afterwards the header is written for another reason; what it says of the snapshots
 * must be so.
 */
static void a_failed_snapshot_changes_nothing(void **state)
{
    static const struct { char op; const char *name, *before, *after; } ops[] = {
        { 'c', "c", "ab", "abc" }, { 'd', "a", "ab", "b" }, { 'd', "b", "ab", "a" },
    };
    char buf[32768];
    memset(buf, 5, sizeof buf);
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        int r = -1;
        for (unsigned k = 1; r; k++) {
            create(img, json_of("{'size':1048576,'cluster_size':4096}"));
            struct blk_node *n = open_image("");
            assert_int_equal(nio(n, 'w', 0, sizeof buf, buf, 0), 0);
            assert_int_equal(snap(n, 'c', "a"), 0);
            assert_int_equal(nio(n, 'w', 0, 8192, buf, 0), 0);
            assert_int_equal(snap(n, 'c', "b"), 0);
            assert_int_equal(nio(n, 'w', 4096, 8192, buf, 0), 0);
            fail_in = k;
            r = snap(n, ops[i].op, ops[i].name);
            fail_in = 0;
            int x = nio(n, 's', 0, 2 << 20, NULL, 0);
            assert_true(!x || r);
            char *there = snaps(n);
            del(n);
            leaks();
            n = open_image("");
            char *now = snaps(n);
            assert_true(r ? str_eq(now, ops[i].before) || str_eq(now, ops[i].after) : str_eq(now, ops[i].after));
            if (!x)
                assert_string_equal(there, now);
            free(there);
            free(now);
            for (const char *s = "abc"; *s; s++) {          /* what is there can be used */
                char name[2] = { *s, 0 };
                int y = snap(n, 'a', name);
                assert_true(y == 0 || y == -ENOENT);
            }
            del(n);
            leaks();
            assert_true(k < 200);
        }
    }
}

/* A snapshot that claims a longer disk than its table covers is not gone back to. */
static void a_snapshot_is_no_longer_than_its_table(void **state)
{
    uint8_t be[8];
    char buf[4096];
    memset(buf, 6, sizeof buf);
    create(img, json_of("{'size':1048576,'cluster_size':4096}"));
    struct blk_node *n = open_image("");
    assert_int_equal(nio(n, 'w', 0, sizeof buf, buf, 0), 0);
    assert_int_equal(snap(n, 'c', "a"), 0);
    del(n);
    st_be64(be, UINT64_C(1) << 40);
    poke(peek64(64) + 48, be, 8);
    n = open_image(",'discard':'unmap'");
    assert_int_equal(snap(n, 'a', "a"), -EIO);
    assert_int_equal(atomic_load(&n->size), 1 << 20);
    assert_int_equal(nio(n, 'd', 0, 1 << 20, NULL, 0), 0);
    assert_int_equal(snap(n, 'd', "a"), 0);
    del(n);
    assert_int_equal(leaks(), 0);
}

/* Two monitors at once: each finds its snapshot when it is its turn. */
static void snap_at_once(void *arg)
{
    running++;
    snap_co(arg);
    running--;
}
static void snapshots_are_found_when_it_is_their_turn(void **state)
{
    char buf[4096];
    memset(buf, 6, sizeof buf);
    create(img, json_of("{'size':1048576,'cluster_size':4096}"));
    struct blk_node *n = open_image("");
    for (const char *s = "abc"; *s; s++) {
        assert_int_equal(nio(n, 'w', 0, sizeof buf, buf, 0), 0);
        assert_int_equal(snap(n, 'c', (char[]){ *s, 0 }), 0);
    }
    struct snap_op x[] = { { n, 'd', "a", NULL, 0, 1 }, { n, 'd', "b", NULL, 0, 1 }, { n, 'd', "b", NULL, 0, 1 }, { n, 'c', "d", NULL, 0, 1 } };
    hold.at[0] = 0;                     /* the first waits for its header */
    hold.n = 1;
    co_event_clear(&hold.go);
    for (size_t i = 0; i < ARRAY_SIZE(x); i++)
        co_spawn(loop_main(), NULL, snap_at_once, &x[i]);
    until_waiting();
    let_go();
    until_done();
    assert_int_equal(x[0].r, 0);
    assert_int_equal(x[1].r, 0);
    assert_int_equal(x[2].r, -ENOENT);
    assert_int_equal(x[3].r, 0);
    char *now = snaps(n);
    assert_string_equal(now, "cd");
    free(now);
    del(n);
    assert_int_equal(leaks(), 0);
}

/* ---- errors that pass ---- */

static int workload(struct blk_node *n, const char *buf)
{
    int r = 0;
    for (unsigned i = 0; i < 40 && !r; i++) {
        uint64_t at = i * 37 % 64 * 4096 + (i % 3) * 512;
        r = i % 8 == 7 ? nio(n, 'z', at, 2048, NULL, BLK_ZERO_UNMAP) : i % 8 == 5 ? nio(n, 'd', align_down(at, 4096), 4096, NULL, 0)
                                                                     : nio(n, 'w', at, 2048, (void *)buf, 0);
        if (!r && i % 11 == 10)
            r = nio(n, 'f', 0, 0, NULL, 0);
    }
    return r ? r : nio(n, 'f', 0, 0, NULL, 0);
}

/* Each read and each write of a workload fails in turn, once. Then it is done again, and all is well but for leaks. */
static void an_error_passes(void **state)
{
    static const char *const kinds[] = { "'cluster_size':512,'refcount_bits':64", "'cluster_size':16384,'extended_l2':true" };
    char buf[2048], *good = malloc(1 << 20), *back = malloc(1 << 20);
    memset(buf, 7, sizeof buf);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        for (unsigned k = 0, ended = 0; ended < 3; k++) {
            unsigned nth = k / 2 + 1;
            create(img, json_of("{'size':1048576,%s}", kinds[i]));
            struct blk_node *n = open_image(",'refcount-cache-size':4096,'l2-cache-size':4096,'discard':'unmap'");
            *(k & 1 ? &fail_in : &fail_read_in) = k ? nth : 0;
            int r = workload(n, buf);
            ended |= k && (k & 1 ? fail_in : fail_read_in) ? 1u << (k & 1) : 0;
            fail_in = fail_read_in = 0;
            assert_true(k || !r);
            assert_int_equal(workload(n, buf), 0);
            assert_int_equal(nio(n, 'r', 0, 1 << 20, k ? back : good, 0), 0);
            if (k)
                assert_memory_equal(back, good, 1 << 20);
            del(n);
            leaks();
        }
    free(back);
    free(good);
}

/* ---- refcounts ---- */

/*
 * A crash of a program that keeps refcounts back may leave clusters without a refcount block. What is made anew when the image is
 * opened serves what is written then, where the old tables were, too.
 */
static void an_image_that_lacks_a_refcount_block_is_repaired_and_written(void **state)
{
    char *buf = malloc(1 << 20), *back = malloc(1 << 20);
    uint8_t zero[8] = { 0 };
    memset(buf, 8, 1 << 20);
    create(img, json_of("{'size':2097152,'cluster_size':512,'lazy_refcounts':true}"));
    struct blk_node *n = open_image("");
    assert_int_equal(nio(n, 'w', 0, 1 << 20, buf, 0), 0);
    del(n);
    poke(peek64(48) + 8, zero, 8);
    poke(79, "\1", 1);                  /* dirty */
    n = open_image("");
    for (uint64_t at = 1 << 20; at < 2 << 20; at += 65536)
        assert_int_equal(nio(n, 'w', at, 65536, buf, 0), 0);
    for (uint64_t at = 0; at < 2 << 20; at += 1 << 20) {
        assert_int_equal(nio(n, 'r', at, 1 << 20, back, 0), 0);
        assert_memory_equal(back, buf, 1 << 20);
    }
    del(n);
    assert_int_equal(leaks(), 0);
    free(back);
    free(buf);
}

/* A block on its way out of a cache that is too small: a flush waits for it, too. */
static bool flushed;
static void flush_co(void *arg)
{
    assert_int_equal(co_node_flush(arg), 0);
    flushed = true;
}
static void write_co(void *arg)
{
    char buf[512];
    struct nio *x = arg;
    memset(buf, 9, sizeof buf);
    for (uint64_t at = 0; at < x->len && !x->r; at += 512) {
        struct iovec v = { buf, sizeof buf };
        x->r = co_node_pwritev(x->n, at, 512, &v, 1, 0);
    }
    running--;
}
static void a_flush_waits_for_refcounts_that_are_being_written(void **state)
{
    char *buf = malloc(512 << 10);
    memset(buf, 4, 512 << 10);
    create(img, json_of("{'size':1048576,'cluster_size':512,'refcount_bits':64}"));
    struct blk_node *n = open_image(",'refcount-cache-size':4096,'discard':'unmap'");
    assert_int_equal(nio(n, 'w', 0, 512 << 10, buf, 0), 0);        /* all the blocks there will be */
    assert_int_equal(nio(n, 'd', 0, 512 << 10, NULL, 0), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), 0);
    uint64_t rt = peek64(48), block;
    for (hold.n = 0; hold.n < ARRAY_SIZE(hold.at) && (block = peek64(rt + hold.n * 8)); hold.n++)
        hold.at[hold.n] = block;
    assert_true(hold.n > 8);
    co_event_clear(&hold.go);
    struct nio x = { .n = n, .len = 512 << 10 };
    running = 1;
    co_spawn(loop_main(), NULL, write_co, &x);
    until_waiting();
    co_spawn(loop_main(), NULL, flush_co, n);
    for (int i = 0; i < 100; i++)
        loop_run_once(loop_main(), 100000);
    assert_false(flushed);
    let_go();
    until_done();
    while (!flushed)
        loop_run_once(loop_main(), 1000000000);
    assert_int_equal(x.r, 0);
    del(n);
    assert_int_equal(leaks(), 0);
    free(buf);
}

/* ---- bitmaps ---- */

struct bitmaps_op { struct blk_node *n; const char *name; bool ok; };
static void bitmaps_co(void *arg)
{
    struct bitmaps_op *x = arg;
    struct blk_bitmap *b = x->name ? co_bitmap_new(x->n, x->name, 0, &err) : NULL;
    if (b)
        b->persistent = true;
    x->ok = x->name ? b != NULL : BLK_DRIVER(x->n)->co_store_bitmaps(x->n, true, &err);
    running--;
}
static bool bitmaps_do(struct blk_node *n, const char *name)
{
    struct bitmaps_op x = { n, name, false };
    running++;
    co_run_main(bitmaps_co, &x);
    return x.ok;
}

/* Bitmaps are stored; meanwhile another monitor makes one more, and would remove one of them. */
static void bitmaps_come_while_others_are_stored(void **state)
{
    char *name = malloc(1001);
    memset(name, 'x', 1000);
    name[1000] = 0;
    create(img, json_of("{'size':1048576}"));
    struct blk_node *n = open_image("");
    assert_true(bitmaps_do(n, "a") && bitmaps_do(n, "b"));
    assert_int_equal(nio(n, 'w', 0, 512, name, 0), 0);
    struct bitmaps_op x = { n, NULL, false };
    uint64_t end = atomic_load(&n->child.node->size);
    for (hold.n = 0; hold.n < ARRAY_SIZE(hold.at); hold.n++)        /* everything that is new */
        hold.at[hold.n] = end + hold.n * 65536;
    co_event_clear(&hold.go);
    running++;
    co_spawn(loop_main(), NULL, bitmaps_co, &x);
    until_waiting();
    assert_true(bitmaps_do(n, name));
    struct blk_bitmap *b = blk_bitmap_find(n, "b");
    assert_true(b->busy);
    let_go();
    until_done();
    assert_true(x.ok);
    assert_false(b->busy || blk_bitmap_find(n, name)->busy);
    del(n);
    assert_int_equal(leaks(), 0);
    n = open_image("");
    assert_non_null(blk_bitmap_find(n, "a"));
    assert_non_null(blk_bitmap_find(n, name));
    del(n);
    free(name);
}

/* ---- the end of the disk ---- */

/* The last cluster is there in part only: its rest is written nowhere. */
static void a_data_file_ends_where_the_disk_does(void **state)
{
    static const char *const kinds[] = { "", ",'data_file_raw':true", ",'extended_l2':true", ",'preallocation':'metadata'",
                                         ",'preallocation':'falloc'", ",'preallocation':'full'" };
    enum { SIZE = 131072 + 1536 };
    char *data = path_of("trouble.data"), buf[2048], back[2048];
    memset(buf, 3, sizeof buf);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        create(img, json_of("{'size':%d,'data_file':'%s','force':true%s}", SIZE, data, kinds[i]));
        struct blk_node *n = open_image(",'discard':'unmap'");
        assert_int_equal(nio(n, 'w', SIZE - 512, 512, buf, 0), 0);
        assert_int_equal(nio(n, 'r', SIZE - 1024, 1024, back, 0), 0);
        assert_int_equal(back[0], 0);
        assert_memory_equal(back + 512, buf, 512);
        assert_int_equal(nio(n, 'z', SIZE - 1024, 1024, NULL, 0), 0);
        assert_int_equal(nio(n, 'w', SIZE - 1536, 1536, buf, 0), 0);
        assert_int_equal(nio(n, 'z', SIZE - 512, 512, NULL, 0), 0);
        assert_int_equal(nio(n, 'r', SIZE - 1536, 1536, back, 0), 0);
        assert_memory_equal(back, buf, 1024);
        assert_int_equal(back[1024], 0);
        del(n);
        leaks();
        struct stat st;
        assert_int_equal(stat(data, &st), 0);
        assert_int_equal(st.st_size, SIZE);
    }
    free(data);
}

/* What a cluster took over from a longer backing file lies behind the end of the disk, and stays unseen when that moves. */
static void what_lies_behind_the_end_is_never_seen(void **state)
{
    enum { SIZE = 65536 + 1024, LONG = 131072 };
    char *base = path_of("trouble.base"), *data = path_of("trouble.data"), *buf = malloc(LONG), *back = malloc(LONG);
    memset(buf, 0x77, LONG);
    int fd = open(base, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, buf, LONG), LONG);
    close(fd);
    for (int kind = 0; kind < 4; kind++) {          /* with a data file; with the backing file still there */
        create(img, json_of("{'size':%d,'backing_file':'%s','backing_fmt':'raw'%s%s%s}", SIZE, base, kind & 1 ? ",'force':true,'data_file':'" : "",
                            kind & 1 ? data : "", kind & 1 ? "'" : ""));
        struct blk_node *n = open_image("");
        assert_int_equal(nio(n, 'w', 65536, 512, buf, 0), 0);
        del(n);
        n = open_image(kind & 2 ? "" : ",'backing':null");
        assert_int_equal(nio(n, 's', 0, LONG, NULL, 0), 0);
        assert_int_equal(nio(n, 'r', SIZE, LONG - SIZE, back, 0), 0);
        for (unsigned i = 0; i < LONG - SIZE; i++)
            assert_int_equal(back[i], 0);
        assert_int_equal(nio(n, 'r', 65536, 1024, back, 0), 0);
        assert_memory_equal(back, buf, 1024);
        del(n);
        leaks();
    }
    free(data);
    free(back);
    free(buf);
    free(base);
}

/* Whatever write fails while the refcount table gets longer: what failed goes well the next time. But for the one that says which table it is. */
static void a_table_that_could_not_grow_grows_later(void **state)
{
    enum { PART = 64 << 10, FROM = 7 << 20, END = 9 << 20, TRIES = 90 };
    char *buf = malloc(1 << 20), *is = malloc(PART);
    unsigned failed = 0, lost = 0;
    for (unsigned k = 1; k <= TRIES; k++) {
        create(img, json_of("{'size':%d,'cluster_size':512}", END));
        struct blk_node *n = open_image("");
        memset(buf, 3, 1 << 20);
        for (uint64_t at = 0; at < FROM; at += 1 << 20)
            assert_int_equal(nio(n, 'w', at, 1 << 20, buf, 0), 0);
        fail_in = k;
        int r = 0;
        for (uint64_t at = FROM; at < END && !r; at += PART) {
            r = nio(n, 'w', at, PART, buf, 0);
            failed += r != 0;
            r = r ? nio(n, 'w', at, PART, buf, 0) : 0;
        }
        fail_in = 0;
        lost += r != 0;
        for (uint64_t at = FROM; at < END && !r; at += PART) {
            assert_int_equal(nio(n, 'r', at, PART, is, 0), 0);
            assert_memory_equal(is, buf, PART);
        }
        del(n);
        leaks();
    }
    assert_true(failed > TRIES / 2);
    assert_true(lost <= 1);
    free(buf);
    free(is);
}

int main(void)
{
    const struct CMUnitTest trouble[] = {
        cmocka_unit_test(a_failed_snapshot_changes_nothing),
        cmocka_unit_test(a_snapshot_is_no_longer_than_its_table),
        cmocka_unit_test(snapshots_are_found_when_it_is_their_turn),
        cmocka_unit_test(an_image_that_lacks_a_refcount_block_is_repaired_and_written),
        cmocka_unit_test(an_error_passes),
        cmocka_unit_test(a_flush_waits_for_refcounts_that_are_being_written),
        cmocka_unit_test(bitmaps_come_while_others_are_stored),
        cmocka_unit_test(a_data_file_ends_where_the_disk_does),
        cmocka_unit_test(what_lies_behind_the_end_is_never_seen),
        cmocka_unit_test(a_table_that_could_not_grow_grows_later),
    };
    if (!mkdtemp(dir))
        return 1;
    img = path_of("trouble.qcow2");
    return run_block_tests(cmocka_run_group_tests(trouble, loop_modes_setup, NULL));
}
