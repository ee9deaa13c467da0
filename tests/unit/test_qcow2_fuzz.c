/* SPDX-License-Identifier: MIT */
/*
 * Images whose metadata was altered at random: whatever they say, opening, reading, writing, checking and repairing end, within
 * bounded memory and without a fault. BP_FUZZ=N tries more than `make check` does; BP_SEED=S begins elsewhere.
 */
#include "blk_test.h"
#include "block/bitmap.h"
#include <sys/resource.h>
#include <time.h>

enum { SIZE = 1 << 20 };

static char *img, *seed_img[8];
static unsigned seeds;
static size_t seed_len[8];

static char *slurp(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &st), 0);
    char *p = malloc((size_t)st.st_size);
    assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
    close(fd);
    *len = (size_t)st.st_size;
    return p;
}

static struct blk_node *open_q(const char *more)
{
    return node_of(json_of("{'driver':'qcow2','node-name':'q'%s,'backing':'','file':{'driver':'file','filename':'%s'}}", more, img));
}

struct op { struct blk_node *n; unsigned fix; int r; };
static void check_co(void *arg)
{
    struct op *o = arg;
    struct blk_check res = { 0 };
    o->r = ((const struct blk_driver *)o->n->obj.cls)->co_check(o->n, &res, o->fix);
}
static void snap_co(void *arg)
{
    struct op *o = arg;
    const struct blk_snap_ops *s = ((const struct blk_driver *)o->n->obj.cls)->snap;
    struct blk_snap *v, info = { .name = (char *)"again" };
    unsigned n = 0;
    o->r = s->list(o->n, &v, &n);
    if (!o->r)
        blk_snaps_free(v, n);
    struct blk_snap one = { .name = (char *)"one" };
    s->create(o->n, n ? &info : &one);
    if (!n)
        return;             /* the first time only makes one */
    s->apply(o->n, "one");
    s->del(o->n, "one");
}

static void bitmap_co(void *arg)
{
    struct op *o = arg;
    struct blk_bitmap *b = co_bitmap_new(o->n, "noted", 4096, &err);
    assert_non_null(b);
    b->persistent = true;
}

static void make_seeds(void)
{
    static const char *const opts[] = {
        "'cluster_size':512", "'cluster_size':4096,'refcount_bits':64", "'cluster_size':65536", "'cluster_size':4096,'compat':'0.10'",
        "'cluster_size':16384,'extended_l2':true", "'cluster_size':4096,'compression_type':'zstd'", "'cluster_size':4096,'refcount_bits':8",
    };
    char *buf = malloc(SIZE);
    for (seeds = 0; seeds < ARRAY_SIZE(opts); seeds++) {
        json_t *o = json_of("{'size':%d,%s}", SIZE, opts[seeds]);
        assert_true(blk_image_create(img, "qcow2", o, true, &err));
        json_decref(o);
        struct blk_node *n = must(open_q(""));
        fill_random(buf, SIZE);
        assert_int_equal(nio(n, 'w', 0, 100 * 1024, buf, 0), 0);
        memset(buf, 3, 65536);
        assert_int_equal(nio(n, 'c', 512 * 1024, 65536, buf, 0), 0);
        struct op x = { .n = n };
        co_run_main(snap_co, &x);
        if (!strstr(opts[seeds], "0.10"))
            co_run_main(bitmap_co, &x);
        assert_int_equal(nio(n, 'w', 50 * 1024, 4096, buf, 0), 0);
        assert_int_equal(nio(n, 'z', 70 * 1024, 4096, NULL, 0), 0);
        del(n);
        seed_img[seeds] = slurp(img, &seed_len[seeds]);
    }
    free(buf);
}

/* Where the header extension of bitmaps is; 0: there is none. */
static uint64_t bitmaps_at(const uint8_t *p, size_t len)
{
    uint32_t type;
    for (uint64_t at = ld_be32(p + 4) >= 3 ? ld_be32(p + 100) : 72; at + 32 <= len && (type = ld_be32(p + at)); at += 8 + align_up(ld_be32(p + at + 4), 8))
        if (type == 0x23852875)
            return at;
    return 0;
}

/* The tables of @p, so that what is altered matters. */
static uint64_t place(const uint8_t *p, size_t len)
{
    uint64_t l1 = ld_be64(p + 40), rt = ld_be64(p + 48), snap = ld_be64(p + 64), bm = bitmaps_at(p, len), dir, at;
    switch (rnd() % 10) {
    case 8: return bm ? bm + rnd() % 32 : rnd() % len;
    case 9:
        dir = bm ? ld_be64(p + bm + 24) : 0;
        at = range_ok(dir, 8, len) && rnd() % 2 ? ld_be64(p + dir) : dir;       /* the table of the first, or the directory */
        return at + rnd() % 40;
    case 0: case 1: return rnd() % 112;
    case 2: return rnd() % 512;
    case 3: return l1 + rnd() % 16;
    case 4: at = l1 + 8 <= len && l1 < len ? ld_be64(p + l1) & UINT64_C(0xfffffffffffe00) : 0; return at + rnd() % 512;
    case 5: return rt + rnd() % 16;
    case 6: at = rt + 8 <= len && rt < len ? ld_be64(p + rt) : 0; return at + rnd() % 256;
    default: return snap ? snap + rnd() % 64 : rnd() % len;
    }
}

static void alter(uint8_t *p, size_t len)
{
    static const uint64_t values[] = { 0, 1, UINT64_MAX, BIT64(63), BIT64(62), BIT64(62) | 12345, BIT64(63) | 512, BIT64(63) | 4096, INT64_MAX, BIT64(55) };
    for (unsigned n = rnd() % 4 + 1; n--;) {
        uint64_t at = place(p, len);
        if (at >= len)
            continue;
        if (rnd() % 2)
            p[at] = (uint8_t)rnd();
        else if ((at &= ~UINT64_C(7)) + 8 <= len)
            st_be64(p + at, values[rnd() % ARRAY_SIZE(values)]);
    }
}

static void try_image(char *buf)
{
    struct blk_node *n = open_q(",'read-only':true,'auto-read-only':true");
    if (n) {
        struct op x = { .n = n };
        nio(n, 'r', 0, MIN(atomic_load(&n->size), (uint64_t)SIZE), buf, 0);
        co_run_main(check_co, &x);
        del(n);
    }
    n = open_q(",'discard':'unmap','l2-cache-size':4096");
    if (n) {
        struct op x = { .n = n };
        uint64_t size = MIN(atomic_load(&n->size), (uint64_t)SIZE);
        for (int i = 0; i < 6 && size > 8192; i++) {
            uint64_t off = rnd() % (size - 8192) / 512 * 512;
            nio(n, "wzdrfw"[i], off, 4096, buf, 0);
        }
        co_run_main(snap_co, &x);
        nio(n, 's', 0, 2 * SIZE, NULL, 0);
        del(n);
    }
    n = open_q(",'repair':true");
    if (n) {
        struct op x = { .n = n, .fix = BLK_FIX_LEAKS | BLK_FIX_ERRORS };
        co_run_main(check_co, &x);
        del(n);
    }
}

/* Of this process: others may keep it from running. */
static clock_t seconds_since(clock_t start) { return (clock() - start) / CLOCKS_PER_SEC; }

static void nothing_in_an_image_hurts(void **state)
{
    unsigned rounds = getenv("BP_FUZZ") ? (unsigned)atoi(getenv("BP_FUZZ")) : 400, from = getenv("BP_SEED") ? (unsigned)atoi(getenv("BP_SEED")) : 0;
    char *buf = malloc(SIZE);
    struct rusage ru;
    make_seeds();
    for (unsigned i = from; i < from + rounds; i++) {
        rnd_state = i * 7919 + 1;
        unsigned k = rnd() % seeds;
        uint8_t *p = malloc(seed_len[k]);
        memcpy(p, seed_img[k], seed_len[k]);
        alter(p, seed_len[k]);
        int fd = open(img, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, p, seed_len[k]), (ssize_t)seed_len[k]);
        close(fd);
        free(p);
        clock_t start = clock();
        try_image(buf);
        if (seconds_since(start) > 20)
            print_error("seed %u took too long\n", i);
        assert_true(seconds_since(start) <= 20);
    }
    getrusage(RUSAGE_SELF, &ru);
    assert_true(ru.ru_maxrss < 1500 * 1024);
    free(buf);
    for (unsigned k = 0; k < seeds; k++)
        free(seed_img[k]);
}

int main(void)
{
    const struct CMUnitTest fuzz[] = { cmocka_unit_test(nothing_in_an_image_hurts) };
    if (!mkdtemp(dir))
        return 1;
    img = path_of("fuzz.qcow2");
    return run_block_tests(cmocka_run_group_tests(fuzz, loop_modes_setup, NULL));
}
