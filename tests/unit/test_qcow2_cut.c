/* SPDX-License-Identifier: MIT */
/*
 * The power fails at every write of a workload. The image that is left must open, have leaks at worst, and hold every byte that
 * was flushed; a byte that was not is old or new, never something else. A snapshot that was made is there and one that was deleted
 * is not; one that is there shows what was on the disk when it was made.
 * BP_CUTS=N makes more cuts than `make check` does: `make nightly` asks for 10,800.
 */
#include "blk_test.h"
#include "block/bitmap.h"
#include "block/qcow2_int.h"

enum { SIZE = 1 << 20, STEPS = 70, UNIT = 512, SNAPS = 3 };

struct form { const char *opts, *open; bool backing, snaps; };
static const struct form forms[] = {
    { "'cluster_size':4096", "", false, true },
    { "'cluster_size':512", ",'l2-cache-size':4096,'refcount-cache-size':4096", false, true },
    { "'cluster_size':4096,'refcount_bits':1", ",'discard':'unmap'", true, false },     /* no cluster can have two users */
    { "'cluster_size':16384,'extended_l2':true", ",'discard':'unmap'", true, true },
    { "'cluster_size':512,'refcount_bits':64", ",'l2-cache-size':4096,'l2-cache-entry-size':512,'discard':'unmap'", false, true },
    { "'cluster_size':65536,'compat':'0.10'", "", false, true },
    { "'cluster_size':4096", ",'discard':'unmap','discard-no-unref':true", true, true },
};

/* What each unit may hold: the value at the last flush, or of a write since. A unit's bytes are all one value. */
struct model {
    uint16_t flushed[SIZE / UNIT], now[SIZE / UNIT];
    uint64_t maybe[SIZE / UNIT];
    struct { enum { ABSENT, MAYBE, PRESENT } state; uint16_t holds[SIZE / UNIT]; } snap[SNAPS];
};

static void set_range(struct model *m, uint64_t off, uint64_t len, uint16_t v)
{
    for (uint64_t u = off / UNIT; u < (off + len) / UNIT; u++) {
        m->maybe[u] |= BIT64(m->now[u] % 64) | BIT64(v % 64);
        m->now[u] = v;
    }
}

static void settle(struct model *m)
{
    memcpy(m->flushed, m->now, sizeof m->now);
    memset(m->maybe, 0, sizeof m->maybe);
}

static char *img, *base;

/* ---- snapshots, by their number ---- */

struct snap_op { struct blk_node *n; char op, name[2]; int r; };

static void snap_co(void *arg)
{
    struct snap_op *x = arg;
    const struct blk_snap_ops *ops = BLK_DRIVER(x->n)->snap;
    struct blk_snap info = { .name = x->name };
    switch (x->op) {
    case 'c': x->r = ops->create(x->n, &info); break;
    case 'a': x->r = ops->apply(x->n, x->name); break;
    case 'd': x->r = ops->del(x->n, x->name); break;
    case 's': x->r = ops->show(x->n, x->name); break;
    }
}

static int snap_do(struct blk_node *n, char op, unsigned i)
{
    struct snap_op x = { n, op, { (char)('a' + i), 0 }, -1 };
    co_run_main(snap_co, &x);
    return x.r;
}

/* Makes the snapshot, or goes back to it or deletes it where it is there. */
static int snap_step(struct blk_node *n, struct model *m, unsigned i, bool back)
{
    uint16_t *holds = m->snap[i].holds;
    bool there = m->snap[i].state == PRESENT;
    int r;
    if (there && back) {
        for (unsigned u = 0; u < SIZE / UNIT; u++)
            m->maybe[u] |= BIT64(holds[u]) | BIT64(m->now[u]);
        r = snap_do(n, 'a', i);
        if (!r)
            memcpy(m->now, holds, sizeof m->now);
    } else {
        m->snap[i].state = MAYBE;
        if (!there)
            memcpy(holds, m->now, sizeof m->now);
        r = snap_do(n, there ? 'd' : 'c', i);
        if (!r)
            m->snap[i].state = there ? ABSENT : PRESENT;
    }
    return r;
}

/* ---- the workload ---- */

/* The same steps for the same form, up to the failure. Values are 1 to 63; 0 is zeroes. */
static void workload(struct blk_node *n, struct model *m, const struct form *f)
{
    static char buf[SIZE];
    unsigned cluster = strstr(f->opts, ":512") ? 512 : strstr(f->opts, "65536") ? 65536 : strstr(f->opts, "16384") ? 16384 : 4096;
    rnd_state = 99;
    for (int i = 0; i < STEPS; i++) {
        uint64_t off = rnd() % (SIZE / UNIT) * UNIT, len = (uint64_t)(rnd() % (rnd() % 3 ? 10 : 120) + 1) * UNIT;
        unsigned v = rnd() % 63 + 1, op = rnd() % 10;
        int r = 0;
        len = MIN(len, SIZE - off);
        if (op < 5) {
            memset(buf, (int)v, len);
            set_range(m, off, len, (uint16_t)v);
            r = nio(n, 'w', off, len, buf, 0);
        } else if (op == 5) {
            set_range(m, off, len, 0);
            r = nio(n, 'z', off, len, NULL, rnd() % 2 ? BLK_ZERO_UNMAP : 0);
        } else if (op == 6 && cluster <= 16384) {
            off = align_down(off, cluster);
            memset(buf, (int)v, cluster);
            set_range(m, off, cluster, (uint16_t)v);
            r = nio(n, 'c', off, cluster, buf, 0);
        } else if (op == 7 && n->caps.discard) {
            uint64_t a = align_up(off, cluster), b = align_down(off + len, cluster);
            if (b > a)
                set_range(m, a, b - a, 0);
            r = nio(n, 'd', off, len, NULL, 0);
        } else if (op == 8 && f->snaps) {
            r = snap_step(n, m, v % SNAPS, v & 4);
            if (!r)
                settle(m);
        } else {
            r = nio(n, 'f', 0, 0, NULL, 0);
            if (!r)
                settle(m);
        }
        if (r)
            return;
    }
}

static void make_image(const struct form *f)
{
    static char buf[SIZE];
    json_t *o = json_of("{'size':%d,%s}", SIZE, f->opts);
    if (f->backing) {
        memset(buf, 17, SIZE);
        int fd = open(base, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, buf, SIZE), SIZE);
        close(fd);
        json_object_set_new(o, "backing_file", json_string(base));
        json_object_set_new(o, "backing_fmt", json_string("raw"));
    }
    assert_true(blk_image_create(img, "qcow2", o, true, &err));
    json_decref(o);
}

static uint64_t shown(struct blk_node *n, const char *name)
{
    struct prop p;
    assert_true(obj_prop_find(n->obj.cls, name, &p));
    json_t *v = prop_to_json(&p, n, &n->obj);
    uint64_t x = json_is_integer(v) ? (uint64_t)json_integer_value(v) : json_is_true(v);
    json_decref(v);
    return x;
}

/* Runs the workload until the power fails at write @cut (0: to the end); returns the number of writes. */
static uint64_t run_until_cut(const struct form *f, struct model *m, uint64_t cut, const char *keep, unsigned seed)
{
    make_image(f);
    memset(m, 0, sizeof *m);
    for (unsigned u = 0; u < SIZE / UNIT && f->backing; u++)
        m->now[u] = m->flushed[u] = 17;
    struct blk_node *disk = must(node_of(json_of("{'driver':'powerloss','node-name':'disk','cut-at-write':%llu,'keep':'%s','seed':%u,"
        "'file':{'driver':'file','filename':'%s'}}", (unsigned long long)cut, keep, seed, img)));
    struct blk_node *n = must(node_of(json_of("{'driver':'qcow2','node-name':'q','file':'disk'%s}", f->open)));
    workload(n, m, f);
    del(n);
    uint64_t writes = shown(disk, "writes");
    assert_int_equal(shown(disk, "dead"), cut && cut <= writes);
    if (!cut)
        settle(m);
    del(disk);
    return writes;
}

/* The value of all bytes of unit @u. */
static unsigned unit_of(const uint8_t *buf, unsigned u)
{
    const uint8_t *p = buf + u * UNIT;
    assert_memory_equal(p, p + 1, UNIT - 1);
    return *p;
}

static void verify_snaps(struct blk_node *n, const struct model *m)
{
    static uint8_t buf[SIZE];
    for (unsigned i = 0; i < SNAPS; i++) {
        int r = snap_do(n, 's', i);
        assert_true(r == 0 || r == -ENOENT);
        assert_true(r ? m->snap[i].state != PRESENT : m->snap[i].state != ABSENT);
        if (r)
            continue;
        assert_int_equal(nio(n, 'r', 0, SIZE, buf, 0), 0);
        for (unsigned u = 0; u < SIZE / UNIT; u++)
            assert_int_equal(unit_of(buf, u), m->snap[i].holds[u]);
    }
}

static void verify(const struct model *m, bool loud)
{
    static uint8_t buf[SIZE];
    struct blk_check res = { .say = loud ? say_line : NULL };
    struct blk_node *n = must(node_of(json_of("{'driver':'qcow2','node-name':'q','read-only':true,'file':{'driver':'file','filename':'%s'}}", img)));
    assert_int_equal(node_check(n, 0, &res), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(nio(n, 'r', 0, SIZE, buf, 0), 0);
    for (unsigned u = 0; u < SIZE / UNIT; u++) {
        unsigned v = unit_of(buf, u);
        if (v != m->flushed[u] && !(v < 64 && m->maybe[u] >> v & 1))
            print_error("unit %u holds %u; flushed was %u, now %u\n", u, v, m->flushed[u], m->now[u]);
        assert_true(v == m->flushed[u] || (v < 64 && m->maybe[u] >> v & 1));
    }
    verify_snaps(n, m);
    del(n);
}

/* Letting go of the leaks is all the repair there is to do, and what the image holds stays. */
static void repair(const struct model *m)
{
    struct blk_check res = { 0 };
    struct blk_node *n = must(node_of(json_of("{'driver':'qcow2','node-name':'q','file':{'driver':'file','filename':'%s'}}", img)));
    assert_int_equal(node_check(n, BLK_FIX_LEAKS, &res), 0);
    assert_int_equal(res.leaks + res.corruptions, 0);
    del(n);
    verify(m, true);
}

static void any_cut_leaves_a_good_image(void **state)
{
    static const char *const keeps[] = { "none", "some", "torn", "all" };
    static struct model m;
    unsigned want = getenv("BP_CUTS") ? (unsigned)atoi(getenv("BP_CUTS")) : 540, done = 0;
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        uint64_t writes = run_until_cut(&forms[i], &m, 0, "all", 0);
        verify(&m, true);
        assert_true(writes > 50);
        unsigned cuts = want / ARRAY_SIZE(forms);
        for (unsigned k = 0; k < cuts; k++) {
            /* every write in turn while there are cuts enough, else spread over all of them */
            uint64_t cut = cuts >= writes ? k % writes + 1 : 1 + (uint64_t)k * writes / cuts;
            const char *keep = keeps[(k + k / writes) % ARRAY_SIZE(keeps)];
            run_until_cut(&forms[i], &m, cut, keep, k + 1);
            verify(&m, true);
            if (k % 4 == 0)
                repair(&m);
            done++;
        }
    }
    assert_true(done >= want / ARRAY_SIZE(forms) * ARRAY_SIZE(forms));
}

/* ---- the header ---- */

struct named { struct blk_node *n; const char *name; int r; };
static void name_co(void *arg)
{
    struct named *x = arg;
    x->r = ((const struct blk_driver *)x->n->obj.cls)->co_set_backing(x->n, *x->name ? x->name : NULL, *x->name ? "raw" : NULL);
}
static void bitmap_co(void *arg)
{
    struct named *x = arg;
    struct blk_bitmap *b = co_bitmap_new(x->n, "b", 65536, &err);
    assert_non_null(b);
    b->persistent = true;
}

static struct blk_node *on_disk(uint64_t cut, const char *keep, struct blk_node **disk)
{
    *disk = must(node_of(json_of("{'driver':'powerloss','node-name':'disk','cut-at-write':%llu,'keep':'%s','seed':7,'file':{'driver':'file','filename':'%s'}}",
                                 (unsigned long long)cut, keep, img)));
    return must(node_of(json_of("{'driver':'qcow2','node-name':'q','backing':'','file':'disk'}")));
}

/* What a header has to hold, and where. */
struct room { unsigned cluster, ext; };         /* ext: bytes of an extension that nobody knows */

static uint8_t ext_byte(unsigned i) { return (uint8_t)(i * 7 + i / 256 + 1); }

static void make_room(const struct room *in)
{
    uint8_t buf[4096] = { 0x12, 0x34, 0x56, 0x78 };
    json_t *o = json_of("{'size':%d,'cluster_size':%u}", SIZE, in->cluster);
    assert_true(blk_image_create(img, "qcow2", o, true, &err));
    json_decref(o);
    if (!in->ext)
        return;
    st_be32(buf + 4, in->ext);
    for (unsigned i = 0; i < in->ext; i++)
        buf[8 + i] = ext_byte(i);
    int fd = open(img, O_WRONLY);
    assert_int_equal(pwrite(fd, buf, 16 + in->ext, Q2_H_OUR_LEN), 16 + in->ext);
    close(fd);
}

/* The name becomes @to, and the image gets a bitmap; the power fails at write @cut. The number of writes; @r: whether there was room. */
static uint64_t rename_until_cut(const struct room *in, const char *from, const char *to, uint64_t cut, const char *keep, int *r)
{
    struct blk_node *disk;
    make_room(in);
    struct named x = { on_disk(0, "all", &disk), from, 0 };
    co_run_main(name_co, &x);
    *r = x.r;
    del(x.n);
    del(disk);
    if (x.r)
        return 0;
    x = (struct named){ on_disk(cut, keep, &disk), to, 0 };
    co_run_main(name_co, &x);
    *r = x.r;
    if (!x.r)
        co_run_main(bitmap_co, &x);
    del(x.n);
    uint64_t writes = shown(disk, "writes");
    del(disk);
    return writes;
}

/* The image has the name that it had, or the other; and all of the extension. Which: 1 or 2. */
static int name_left(const struct room *in, const char *from, const char *to)
{
    struct blk_node *n = must(node_of(json_of("{'driver':'qcow2','node-name':'q','backing':'','read-only':true,'file':{'driver':'file',"
                                              "'filename':'%s'}}", img)));
    const char *is = n->backing_name ? n->backing_name : "";
    int which = !strcmp(is, to) ? 2 : 1;
    assert_true(which == 2 || !strcmp(is, from));
    const struct q2_ext *x = ((const struct qcow2 *)n)->exts;
    assert_int_equal(x ? x->len : 0, in->ext);
    for (unsigned i = 0; i < in->ext; i++)
        assert_int_equal(x->data[i], ext_byte(i));
    del(n);
    return which;
}

/*
 * Short names lie beside the header; long ones behind it, now here, now there; and so do extensions that are longer than a sector. After
 * a cut the image has the one header or the other. Where a small cluster has no room for both, the old one stays.
 */
static void a_header_is_the_old_one_or_the_new_one(void **state)
{
    static const char *const keeps[] = { "none", "some", "torn", "all" };
    static const struct room rooms[] = { { 65536, 0 }, { 65536, 700 }, { 512, 0 }, { 1024, 0 }, { 1024, 300 }, { 2048, 0 }, { 2048, 700 }, { 4096, 1500 } };
    char *name[5] = { xstrdup(""), xstrdup("a"), xasprintf("%0300d", 1), xasprintf("%0900d", 2), xasprintf("%0900d", 3) };
    for (unsigned t = 0; t < ARRAY_SIZE(rooms) * 25; t++) {
        const struct room *in = &rooms[t / 25];
        const char *from = name[t % 5], *to = name[t / 5 % 5];
        int r, ignored;
        uint64_t writes = rename_until_cut(in, from, to, 0, "all", &r);
        assert_true(!r || (r == -ENAMETOOLONG && in->cluster <= 4096 && strlen(to) + strlen(from) >= 300));
        if (!writes)
            continue;           /* not even the old name has a place */
        assert_int_equal(name_left(in, from, to), r && strcmp(from, to) ? 1 : 2);
        for (uint64_t cut = 1; cut <= writes; cut++) {
            rename_until_cut(in, from, to, cut, keeps[(cut + t) % ARRAY_SIZE(keeps)], &ignored);
            name_left(in, from, to);
        }
    }
    for (int i = 0; i < 5; i++)
        free(name[i]);
}

/* The cut of the same seed leaves the same image. */
static void a_seed_repeats_the_cut(void **state)
{
    static struct model m;
    static char a[2 * SIZE], b[2 * SIZE];
    ssize_t n = 0;
    for (int i = 0; i < 2; i++) {
        run_until_cut(&forms[0], &m, 30, "torn", 5);
        int fd = open(img, O_RDONLY);
        n = read(fd, i ? b : a, sizeof a);
        close(fd);
    }
    assert_memory_equal(a, b, (size_t)n);
}

int main(void)
{
    const struct CMUnitTest cuts[] = {
        cmocka_unit_test(any_cut_leaves_a_good_image),
        cmocka_unit_test(a_seed_repeats_the_cut),
        cmocka_unit_test(a_header_is_the_old_one_or_the_new_one),
    };
    if (!mkdtemp(dir))
        return 1;
    img = path_of("cut.qcow2");
    base = path_of("cut.base");
    return run_block_tests(cmocka_run_group_tests(cuts, loop_modes_setup, NULL));
}
