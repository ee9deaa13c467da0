/* SPDX-License-Identifier: MIT */
/* qcow2 against a copy in memory, over every kind of image; what is left on the disk is checked by us and by qemu-img. */
#include "blk_test.h"
#include "block/qcow2_int.h"

static int have_qemu = -1;

/* Status of a command, its output thrown away. */
static int run(const char *fmt, ...) PRINTF_LIKE(1, 2);
static int run(const char *fmt, ...)
{
    char cmd[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    snprintf(cmd + n, sizeof cmd - (size_t)n, " >%s/out 2>&1", dir);
    int st = system(cmd);
    return WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

static bool qemu(void)
{
    if (have_qemu < 0)
        have_qemu = !system("command -v qemu-img >/dev/null 2>&1");
    return have_qemu;
}

static void create(const char *path, json_t *opts)
{
    const char *data = json_string_value(json_object_get(opts, "data_file"));
    if (data)       /* QEMU finds it by an absolute name only */
        json_object_set_new(opts, "data_file", json_sprintf("%s/%s", dir, data));
    err = (struct err)ERR_INIT;
    bool ok = blk_image_create(path, "qcow2", opts, true, &err);
    json_decref(opts);
    if (!ok)
        print_error("%s\n", err.msg);
    assert_true(ok);
}

static struct blk_node *open_image(const char *path, const char *more)
{
    return must(node_of(json_of("{'driver':'qcow2','node-name':'q'%s,'file':{'driver':'file','filename':'%s'}}", more, path)));
}

static struct blk_check check_image(const char *path, unsigned fix, bool loud)
{
    struct blk_check res = { .say = loud ? say_line : NULL };
    struct blk_node *n = open_image(path, fix ? ",'repair':true" : ",'read-only':true");
    assert_int_equal(node_check(n, fix, &res), 0);
    del(n);
    return res;
}

static void is_clean(const char *path)
{
    struct blk_check r = check_image(path, 0, true);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.leaks, 0);
    if (qemu() && run("qemu-img check -f qcow2 '%s'", path)) {
        assert_int_equal(run("qemu-img check -f qcow2 '%s' || cat %s/out >&2", path, dir), 0);
        fail();
    }
}

/* Every kind of image. @more: of the options of an open. */
static const struct kind { const char *opts, *open; unsigned cluster; bool compress; } kinds[] = {
    { "'cluster_size':65536", "", 65536, true },
    { "'cluster_size':512", "", 512, true },
    { "'cluster_size':4096,'refcount_bits':1", "", 4096, false },
    { "'cluster_size':4096,'refcount_bits':2", "", 4096, false },
    { "'cluster_size':512,'refcount_bits':64", ",'l2-cache-size':4096,'refcount-cache-size':4096", 512, true },
    { "'cluster_size':4096,'refcount_bits':8", ",'l2-cache-size':8192,'l2-cache-entry-size':512", 4096, true },
    { "'cluster_size':65536,'compat':'0.10'", "", 65536, true },
    { "'cluster_size':512,'compat':'0.10'", "", 512, true },
    { "'cluster_size':16384,'extended_l2':true", "", 16384, true },
    { "'cluster_size':65536,'extended_l2':true,'compression_type':'zstd'", "", 65536, true },
    { "'cluster_size':2097152", "", 2097152, false },
    { "'cluster_size':65536,'compression_type':'zstd'", ",'discard':'unmap','detect-zeroes':'unmap'", 65536, true },
    { "'cluster_size':4096,'preallocation':'metadata'", "", 4096, true },
    { "'cluster_size':4096,'preallocation':'full'", ",'discard':'unmap'", 4096, true },
    { "'cluster_size':4096", ",'discard':'unmap','discard-no-unref':true", 4096, true },
    { "'cluster_size':16384,'extended_l2':true", ",'discard':'unmap','discard-no-unref':true", 16384, true },
    { "'cluster_size':65536,'data_file':'@.data','force':true", ",'discard':'unmap','discard-no-unref':true", 65536, false },
    { "'cluster_size':65536,'data_file':'@.data','force':true", "", 65536, false },
    { "'cluster_size':65536,'data_file':'@.data','data_file_raw':true,'force':true", "", 65536, false },
};

enum { SIZE = 3 << 20 };

static void one_change(struct blk_node *n, char *model, char *buf, uint64_t size, const struct kind *k)
{
    uint64_t off = rnd() % (size / 512) * 512, want = (uint64_t)(rnd() % 3 ? rnd() % 16 + 1 : rnd() % 600 + 1) * 512;
    uint64_t len = MIN(want, size - off);
    switch (rnd() % 10) {
    case 0: case 1: case 2: case 3:
        fill_random(buf, len);
        assert_int_equal(nio(n, 'w', off, len, buf, rnd() % 12 ? 0 : BLK_FUA), 0);
        memcpy(model + off, buf, len);
        break;
    case 4:
        assert_int_equal(nio(n, 'z', off, len, NULL, rnd() % 2 ? BLK_ZERO_UNMAP : 0), 0);
        memset(model + off, 0, len);
        break;
    case 5: {
        uint64_t a = align_down(off, k->cluster);
        len = MIN((uint64_t)k->cluster, size - a);
        if (!k->compress)
            break;
        memset(buf, (int)rnd(), len);
        fill_random(buf, len / 4);
        assert_int_equal(nio(n, 'c', a, len, buf, 0), 0);
        memcpy(model + a, buf, len);
        break;
    }
    case 6: assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), 0); break;
    case 7: {       /* whole clusters are gone; the rest stays */
        uint64_t a = align_up(off, k->cluster), b = off + len == size ? size : align_down(off + len, k->cluster);
        assert_int_equal(nio(n, 'd', off, len, NULL, 0), 0);
        if (n->caps.discard && b > a)
            memset(model + a, 0, b - a);
        break;
    }
    default:
        assert_int_equal(nio(n, 'r', off, len, buf, 0), 0);
        assert_memory_equal(buf, model + off, len);
    }
}

static void agrees(struct blk_node *n, char *model, uint64_t size, const struct kind *k, int rounds)
{
    char *buf = malloc(size);
    for (int i = 0; i < rounds; i++)
        one_change(n, model, buf, size, k);
    assert_int_equal(nio(n, 'r', 0, size, buf, 0), 0);
    assert_memory_equal(buf, model, size);
    free(buf);
}

static void model_matches_file(const char *path, const char *model, uint64_t size)
{
    char *buf = malloc(size);
    struct blk_node *n = open_image(path, ",'read-only':true");
    assert_int_equal(nio(n, 'r', 0, size, buf, 0), 0);
    assert_memory_equal(buf, model, size);
    del(n);
    free(buf);
}

/* qemu-img reads the same. */
static void qemu_reads_the_same(const char *path, const char *model, uint64_t size)
{
    char *raw = path_of("as.raw"), *buf = malloc(size);
    if (!qemu())
        return;
    assert_int_equal(run("qemu-img convert -f qcow2 -O raw '%s' '%s'", path, raw), 0);
    int fd = open(raw, O_RDONLY);
    assert_int_equal(read(fd, buf, size), (ssize_t)size);
    close(fd);
    assert_memory_equal(buf, model, size);
    free(raw);
    free(buf);
}

static void every_kind_keeps_what_is_written(void **state)
{
    char *p = path_of("q.qcow2"), *model = malloc(SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const struct kind *k = &kinds[i];
        memset(model, 0, SIZE);
        create(p, json_of("{'size':%d,%s}", SIZE, k->opts));
        is_clean(p);
        for (int again = 0; again < 3; again++) {
            struct blk_node *n = open_image(p, k->open);
            agrees(n, model, SIZE, k, 120);
            del(n);
            is_clean(p);
        }
        model_matches_file(p, model, SIZE);
        qemu_reads_the_same(p, model, SIZE);
    }
    free(model);
    free(p);
}

static void a_backing_file_shows_through(void **state)
{
    char *base = path_of("base.raw"), *p = path_of("q.qcow2"), *model = malloc(SIZE);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const struct kind *k = &kinds[i];
        if (strstr(k->opts, "prealloc") || strstr(k->opts, "raw'"))
            continue;
        fill_random(model, SIZE);
        memset(model + SIZE - 100000, 0, 100000);
        int fd = open(base, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, model, SIZE - 100000 / 512 * 512), SIZE - 100000 / 512 * 512);    /* shorter than the overlay */
        close(fd);
        create(p, json_of("{'size':%d,%s,'backing_file':'base.raw','backing_fmt':'raw'}", SIZE, k->opts));
        struct blk_node *n = open_image(p, k->open);
        agrees(n, model, SIZE, k, 200);
        del(n);
        is_clean(p);
        model_matches_file(p, model, SIZE);
        qemu_reads_the_same(p, model, SIZE);
    }
    free(model);
    free(base);
    free(p);
}

/* ---- many at once ---- */

enum { AREAS = 16, AREA = 100 * 1024 };
struct writer { struct blk_node *n; unsigned area, seed, *left; char *model; bool failed; };

/* Each has areas of its own, but they share clusters at the edges. */
static void writer_co(void *arg)
{
    struct writer *w = arg;
    unsigned s = w->seed;
    char *buf = malloc(AREA);
    for (int i = 0; i < 60; i++) {
        s = s * 1103515245 + 12345;
        uint64_t off = (s >> 8) % AREA / 512 * 512, len = MIN((uint64_t)((s >> 4) % 40 + 1) * 512, (uint64_t)AREA - off);
        struct iovec v = { buf, len };
        uint64_t at = (uint64_t)w->area * AREA + off;
        if (s >> 20 & 1) {
            memset(buf, (int)(s >> 13) | 1, len);
            w->failed |= co_node_pwritev(w->n, at, len, &v, 1, 0) != 0;
            memset(w->model + off, (int)(s >> 13) | 1, len);
        } else if (s >> 21 & 1) {
            w->failed |= co_node_zero(w->n, at, len, BLK_ZERO_UNMAP) != 0;
            memset(w->model + off, 0, len);
        } else if (s >> 22 & 1) {
            w->failed |= co_node_flush(w->n) != 0;
        } else {
            w->failed |= co_node_preadv(w->n, at, len, &v, 1, 0) != 0 || memcmp(buf, w->model + off, len);
        }
    }
    free(buf);
    --*w->left;
}

static void writers_at_once_do_not_disturb_each_other(void **state)
{
    static const char *const opts[] = { "'cluster_size':65536", "'cluster_size':512", "'cluster_size':32768,'extended_l2':true" };
    char *p = path_of("q.qcow2");
    for (size_t i = 0; i < ARRAY_SIZE(opts); i++) {
        struct writer w[AREAS];
        unsigned left = AREAS;
        create(p, json_of("{'size':%d,%s}", AREAS * AREA, opts[i]));
        struct blk_node *n = open_image(p, ",'l2-cache-size':4096,'discard':'unmap'");
        for (unsigned a = 0; a < AREAS; a++) {
            w[a] = (struct writer){ n, a, 77 + a, &left, calloc(1, AREA), false };
            co_spawn(loop_main(), NULL, writer_co, &w[a]);
        }
        while (left)
            loop_run_once(loop_main(), 1000000000);
        for (unsigned a = 0; a < AREAS; a++) {
            char *buf = malloc(AREA);
            assert_false(w[a].failed);
            assert_int_equal(nio(n, 'r', (uint64_t)a * AREA, AREA, buf, 0), 0);
            assert_memory_equal(buf, w[a].model, AREA);
            free(buf);
            free(w[a].model);
        }
        del(n);
        is_clean(p);
    }
    free(p);
}

/* ---- sizes ---- */

static void sizes_change(void **state)
{
    char *p = path_of("q.qcow2"), *buf = malloc(SIZE);
    const struct { const char *opts; } forms[] = { { "'cluster_size':512" }, { "'cluster_size':65536" }, { "'cluster_size':16384,'extended_l2':true" } };
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        create(p, json_of("{'size':100352,%s}", forms[i].opts));
        struct blk_node *n = open_image(p, "");
        memset(buf, 7, 100352);
        assert_int_equal(nio(n, 'w', 0, 100352, buf, 0), 0);
        assert_int_equal(nio(n, 's', 0, 2 << 20, NULL, 0), 0);
        assert_int_equal(nio(n, 'w', (2 << 20) - 512, 512, buf, 0), 0);
        assert_int_equal(nio(n, 's', 0, 50176, NULL, 0), 0);
        assert_int_equal(nio(n, 'r', 50176, 512, buf, 0), -EIO);
        assert_int_equal(nio(n, 's', 0, 1 << 20, NULL, 0), 0);
        assert_int_equal(nio(n, 'r', 0, 1 << 20, buf, 0), 0);
        for (int k = 0; k < 1 << 20; k++)
            assert_int_equal(buf[k], k < 50176 ? 7 : 0);        /* what was cut off does not come back */
        del(n);
        is_clean(p);
    }
    free(buf);
    free(p);
}

/* ---- snapshots ---- */

struct snap_op { struct blk_node *n; char op; const char *name; int r; };
static void snap_co(void *arg)
{
    struct snap_op *x = arg;
    const struct blk_snap_ops *o = ((const struct blk_driver *)x->n->obj.cls)->snap;
    struct blk_snap info = { .name = (char *)x->name };
    x->r = x->op == 'c' ? o->create(x->n, &info) : x->op == 'a' ? o->apply(x->n, x->name) : o->del(x->n, x->name);
}
static int snap(struct blk_node *n, char op, const char *name)
{
    struct snap_op x = { n, op, name, -1 };
    co_run_main(snap_co, &x);
    return x.r;
}

static void snapshots_keep_their_moment(void **state)
{
    char *p = path_of("q.qcow2"), *m[4];
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        const struct kind *k = &kinds[i];
        if (strstr(k->opts, "refcount_bits':1") || strstr(k->opts, "data_file") || strstr(k->opts, "refcount_bits':2"))
            continue;
        for (int j = 0; j < 4; j++)
            m[j] = calloc(1, SIZE);
        create(p, json_of("{'size':%d,%s}", SIZE, k->opts));
        struct blk_node *n = open_image(p, k->open);
        static const char *const names[] = { "one", "two", "three" };
        for (int j = 0; j < 3; j++) {
            agrees(n, m[j], SIZE, k, 60);
            assert_int_equal(snap(n, 'c', names[j]), 0);
            memcpy(m[j + 1], m[j], SIZE);
        }
        agrees(n, m[3], SIZE, k, 60);
        assert_int_equal(snap(n, 'a', "nothing"), -ENOENT);
        assert_int_equal(snap(n, 'd', "two"), 0);
        del(n);
        is_clean(p);
        n = open_image(p, k->open);
        assert_int_equal(snap(n, 'a', "one"), 0);
        agrees(n, m[0], SIZE, k, 60);
        assert_int_equal(snap(n, 'a', "three"), 0);
        agrees(n, m[2], SIZE, k, 60);
        assert_int_equal(snap(n, 'd', "one"), 0);
        assert_int_equal(snap(n, 'd', "three"), 0);
        agrees(n, m[2], SIZE, k, 60);
        del(n);
        is_clean(p);
        qemu_reads_the_same(p, m[2], SIZE);
        for (int j = 0; j < 4; j++)
            free(m[j]);
    }
    free(p);
}

/* ---- damage ---- */

static void poke(const char *path, uint64_t off, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, data, len, (off_t)off), (ssize_t)len);
    close(fd);
}

static uint64_t peek64(const char *path, uint64_t off)
{
    uint8_t b[8] = { 0 };
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, b, 8, (off_t)off), 8);
    close(fd);
    return ld_be64(b);
}

static void damage_is_found_and_repaired(void **state)
{
    char *p = path_of("q.qcow2"), *buf = malloc(1 << 20);
    uint8_t zero[4096] = { 0 }, rubbish[512];
    memset(rubbish, 0xa5, sizeof rubbish);
    memset(buf, 5, 1 << 20);
    for (int what = 0; what < 4; what++) {
        create(p, json_of("{'size':%d,'cluster_size':4096}", SIZE));
        struct blk_node *n = open_image(p, ",'discard':'unmap'");
        assert_int_equal(nio(n, 'w', 0, 1 << 20, buf, 0), 0);
        assert_int_equal(nio(n, 'd', 512 << 10, 512 << 10, NULL, 0), 0);
        del(n);
        uint64_t rt = peek64(p, 48), block = peek64(p, rt);
        switch (what) {
        case 0: poke(p, block + 64, zero, 32); break;          /* refcounts too low */
        case 1: poke(p, block + 400, "\0\1\0\2", 4); break;    /* too high */
        case 2: poke(p, rt, rubbish, 8); break;                 /* no block where one is named */
        case 3: poke(p, rt, zero, 8); break;                    /* no block at all */
        }
        struct blk_check r = check_image(p, 0, false);
        assert_true(what == 1 ? r.leaks && !r.corruptions : r.corruptions);
        r = check_image(p, what == 1 ? BLK_FIX_LEAKS : BLK_FIX_LEAKS | BLK_FIX_ERRORS, false);
        assert_true(r.corruptions_fixed + r.leaks_fixed > 0);
        is_clean(p);
        n = open_image(p, "");
        char *back = malloc(1 << 20);
        assert_int_equal(nio(n, 'r', 0, 1 << 20, back, 0), 0);
        assert_memory_equal(back, buf, 512 << 10);
        free(back);
        del(n);
    }
    free(buf);
    free(p);
}

/* Guest data must never go where metadata is, whatever an entry says. */
static void data_never_overwrites_tables(void **state)
{
    char *p = path_of("q.qcow2"), buf[4096];
    uint8_t be[8];
    memset(buf, 9, sizeof buf);
    create(p, json_of("{'size':%d,'cluster_size':4096}", SIZE));
    struct blk_node *n = open_image(p, "");
    assert_int_equal(nio(n, 'w', 0, 4096, buf, 0), 0);
    del(n);
    uint64_t l1 = peek64(p, 40), l2 = peek64(p, l1) & UINT64_C(0xfffffffffffe00);
    st_be64(be, l1 | BIT64(63));
    poke(p, l2, be, 8);
    n = open_image(p, "");
    assert_int_equal(nio(n, 'w', 0, 512, buf, 0), -EIO);
    assert_int_equal(nio(n, 'w', 65536, 512, buf, 0), -EIO);       /* nothing more */
    del(n);
    assert_int_equal(peek64(p, 72), 2);                             /* marked corrupt */
    assert_null(node_of(json_of("{'driver':'qcow2','node-name':'q','file':{'driver':'file','filename':'%s'}}", p)));
    assert_non_null(strstr(err.msg, "corrupt"));
    del(open_image(p, ",'read-only':true"));
    free(p);
}

/* ---- what the header may say ---- */

static void strange_headers_are_refused(void **state)
{
    static const struct { unsigned off, len; uint64_t v; const char *says; } bad[] = {
        { 0, 4, 0, "not in qcow2 format" }, { 4, 4, 4, "version" }, { 20, 4, 8, "cluster size" }, { 20, 4, 22, "cluster size" },
        { 24, 8, UINT64_MAX, "too small" }, { 36, 4, UINT32_MAX, "L1 table too large" }, { 36, 4, 0, "too small" },
        { 40, 8, UINT64_C(1) << 50, "not in the file" }, { 40, 8, 7, "does not begin at a cluster" },
        { 48, 8, UINT64_C(1) << 60, "not in the file" }, { 56, 4, UINT32_MAX, "refcount table" }, { 56, 4, 0, "refcount table" },
        { 60, 4, UINT32_MAX, "number of snapshots" }, { 60, 4, 5, "snapshot" }, { 72, 8, UINT64_C(1) << 40, "not known" },
        { 72, 8, 8, "compression" }, { 88, 8, 1, "bitmaps" }, { 96, 4, 7, "refcount width" }, { 100, 4, 90, "header length" },
        { 100, 4, UINT32_MAX, "header length" }, { 8, 8, 65535, "backing file name" }, { 32, 4, 9, "encryption" },
        { 116, 4, UINT32_MAX - 3, "header extension" },
    };
    char *p = path_of("q.qcow2");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint8_t be[8];
        create(p, json_of("{'size':%d}", SIZE));
        if (bad[i].off == 8)
            poke(p, 16, "\0\0\0\20", 4);
        st_be64(be, bad[i].v << (64 - bad[i].len * 8));
        poke(p, bad[i].off, be, bad[i].len);
        struct blk_node *n = node_of(json_of("{'driver':'qcow2','node-name':'q','file':{'driver':'file','filename':'%s'}}", p));
        if (n || !strstr(err.msg, bad[i].says))
            print_error("byte %u: %s\n", bad[i].off, n ? "opens" : err.msg);
        assert_null(n);
        assert_non_null(strstr(err.msg, bad[i].says));
    }
    free(p);
}

static void what_is_unknown_in_a_header_stays(void **state)
{
    char *p = path_of("q.qcow2");
    uint8_t ext[24] = { 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o' };
    create(p, json_of("{'size':%d}", SIZE));
    poke(p, 112, ext, sizeof ext);          /* before what was there: an end */
    struct blk_node *n = open_image(p, "");
    assert_int_equal(nio(n, 's', 0, 2 * SIZE, NULL, 0), 0);
    del(n);
    uint8_t head[512];
    int fd = open(p, O_RDONLY);
    assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
    close(fd);
    assert_non_null(memmem(head, sizeof head, "\x12\x34\x56\x78\0\0\0\5hello", 13));
    is_clean(p);
    free(p);
}

/* Tables that nobody asks for leave the caches, and come again. */
static void caches_are_cleaned(void **state)
{
    char *p = path_of("q.qcow2"), buf[4096];
    create(p, json_of("{'size':%d}", SIZE));
    struct blk_node *n = open_image(p, ",'cache-clean-interval':1");
    const struct qcow2 *s = (const struct qcow2 *)n;
    memset(buf, 5, sizeof buf);
    assert_int_equal(nio(n, 'w', 0, sizeof buf, buf, 0), 0);
    assert_true(s->l2c.count && s->rbc.count);
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), 0);
    SERVE_UNTIL(!s->l2c.count && !s->rbc.count);
    memset(buf, 0, sizeof buf);
    assert_int_equal(nio(n, 'r', 0, sizeof buf, buf, 0), 0);
    assert_int_equal(buf[0] & buf[4095], 5);
    del(n);
    is_clean(p);
    free(p);
}

int main(void)
{
    const struct CMUnitTest qcow2[] = {
        cmocka_unit_test(every_kind_keeps_what_is_written),
        cmocka_unit_test(a_backing_file_shows_through),
        cmocka_unit_test(writers_at_once_do_not_disturb_each_other),
        cmocka_unit_test(sizes_change),
        cmocka_unit_test(snapshots_keep_their_moment),
        cmocka_unit_test(damage_is_found_and_repaired),
        cmocka_unit_test(data_never_overwrites_tables),
        cmocka_unit_test(strange_headers_are_refused),
        cmocka_unit_test(what_is_unknown_in_a_header_stays),
        cmocka_unit_test(caches_are_cleaned),
    };
    if (!mkdtemp(dir))
        return 1;
    if (getenv("BP_TEST"))
        cmocka_set_test_filter(getenv("BP_TEST"));
    return run_block_tests(cmocka_run_group_tests(qcow2, loop_modes_setup, NULL));
}
