/* SPDX-License-Identifier: MIT */
/*
 * A store of keys and values against a model, and the power fails at every write of a workload: what was flushed is there, whole; what
 * was not is old or new. BP_CUTS=N makes more cuts.
 */
#include "blk_test.h"
#include "hw/nvme/kv_store.h"

enum { SPACE = 96 * 1024, BASE = 8192, KEYS = 14, STEPS = 120, SINCE = 64 };

/* Of a key: the version at the last flush, 0 for none, and what it was since. */
struct model { unsigned flushed[KEYS], now[KEYS], since[KEYS][SINCE], n[KEYS]; };

static char *img;
static uint8_t buf[KV_VALUE_MAX];

/* Keys of every length; one begins another. */
static struct kv_key key(unsigned i)
{
    struct kv_key k = { .len = (uint8_t)(1 + i * 5 % KV_KEY_MAX) };
    memset(k.b, 'a' + (int)(i / 3), k.len);
    k.b[k.len - 1] = (uint8_t)(k.len > 1 ? i : 'a' + i);
    return k;
}

static uint32_t length(unsigned i, unsigned version) { return (i * 7919 + version * 104729) % (version % 5 ? 3000 : 9000); }

static void fill(unsigned i, unsigned version)
{
    uint32_t x = i * 2654435761u + version;
    for (uint32_t at = 0; at < length(i, version); at++)
        buf[at] = (uint8_t)((x = x * 1103515245 + 12345) >> 16);
}

static void now_is(struct model *m, unsigned i, unsigned version)
{
    assert_true(m->n[i] < SINCE);
    m->since[i][m->n[i]++] = m->now[i] = version;
}

static void settle(struct model *m)
{
    memcpy(m->flushed, m->now, sizeof m->now);
    memset(m->n, 0, sizeof m->n);
}

/* The version that the store has; fails where it is none that there was. */
static unsigned co_version(struct kv_store *s, unsigned i, unsigned last)
{
    static uint8_t got[KV_VALUE_MAX];
    struct kv_key k = key(i);
    uint32_t len = 0;
    int r = co_kv_get(s, &k, got, sizeof got, &len);
    assert_int_equal(r == 0, kv_find(s, &k));
    if (r == -ENOENT)
        return 0;
    assert_int_equal(r, 0);
    for (unsigned v = last; v; v--) {
        if (length(i, v) != len)
            continue;
        fill(i, v);
        if (!memcmp(got, buf, len))
            return v;
    }
    fail_msg("key %u has a value of %u bytes that nobody stored", i, len);
    return 0;
}

/* One step; 0 or what failed. */
static int co_step(struct kv_store *s, struct model *m, unsigned *version)
{
    unsigned i = rnd() % KEYS, op = rnd() % 12;
    struct kv_key k = key(i);
    int r;
    if (op < 8) {
        fill(i, ++*version);
        now_is(m, i, *version);
        r = co_kv_put(s, &k, buf, length(i, *version), op ? 0 : BLK_FUA);
    } else if (op < 11) {
        r = m->now[i] ? 0 : -ENOENT;
        now_is(m, i, 0);
        int got = co_kv_del(s, &k, 0);
        r = got == r ? 0 : got;
    } else {
        r = co_kv_flush(s);
        if (!r)
            settle(m);
    }
    return r;
}

struct run { struct blk_node *n; struct model *m; unsigned version; bool keeps; };

static void co_workload(void *arg)
{
    struct run *w = arg;
    struct blk *b = blk_open(w->n, BLK_PERM_READ | BLK_PERM_WRITE, 0, NULL, "test", &err);
    struct kv_store *s = kv_store_new(b, BASE, SPACE, false);
    int r = co_kv_load(s);
    rnd_state = 5;
    for (int i = 0; !r && i < STEPS; i++) {
        r = co_step(s, w->m, &w->version);
        for (unsigned k = 0; !r && w->keeps && k < KEYS; k++)
            assert_int_equal(co_version(s, k, w->version), w->m->now[k]);
    }
    assert_true(!r || !w->keeps);
    kv_store_free(s);
    blk_close(b);
}

static bool allowed(const struct model *m, unsigned i, unsigned version)
{
    bool ok = version == m->flushed[i];
    for (unsigned k = 0; k < m->n[i]; k++)
        ok |= version == m->since[i][k];
    return ok;
}

/* What is there after the cut, and that the store goes on from there: twice, so that nothing comes back. */
static void co_verify(void *arg)
{
    struct run *w = arg;
    struct blk *b = blk_open(w->n, BLK_PERM_READ | BLK_PERM_WRITE, 0, NULL, "test", &err);
    struct kv_store *s = kv_store_new(b, BASE, SPACE, false);
    unsigned found = 0, had[KEYS];
    assert_int_equal(co_kv_load(s), 0);
    for (unsigned i = 0; i < KEYS; i++) {
        had[i] = co_version(s, i, w->version);
        found += had[i] != 0;
        if (!allowed(w->m, i, had[i]))
            fail_msg("key %u has version %u; flushed was %u, now %u", i, had[i], w->m->flushed[i], w->m->now[i]);
    }
    assert_int_equal(kv_count(s), found);
    for (unsigned i = 0; i < KEYS; i += 2) {
        struct kv_key k = key(i);
        assert_int_equal(co_kv_del(s, &k, 0), had[i] ? 0 : -ENOENT);
        had[i] = 0;
    }
    kv_store_forget(s);
    assert_int_equal(co_kv_load(s), 0);
    for (unsigned i = 0; i < KEYS; i++)
        assert_int_equal(co_version(s, i, w->version), had[i]);
    kv_store_free(s);
    blk_close(b);
}

static uint64_t writes_of(struct blk_node *n)
{
    struct prop p;
    assert_true(obj_prop_find(n->obj.cls, "writes", &p));
    json_t *v = prop_to_json(&p, n, &n->obj);
    uint64_t x = (uint64_t)json_integer_value(v);
    json_decref(v);
    return x;
}

static uint64_t run_until_cut(uint64_t cut, const char *keep, unsigned seed)
{
    static struct model m;
    int fd = open(img, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(ftruncate(fd, BASE + SPACE), 0);
    close(fd);
    memset(&m, 0, sizeof m);
    struct run w = { .m = &m, .keeps = !cut };
    w.n = must(node_of(json_of("{'driver':'powerloss','node-name':'disk','cut-at-write':%llu,'keep':'%s','seed':%u,"
        "'file':{'driver':'file','filename':'%s'}}", (unsigned long long)cut, keep, seed, img)));
    co_run_main(co_workload, &w);
    uint64_t writes = writes_of(w.n);
    del(w.n);
    w.n = must(node_of(json_of("{'driver':'file','node-name':'file','filename':'%s'}", img)));
    co_run_main(co_verify, &w);
    del(w.n);
    return writes;
}

static void any_cut_leaves_what_was_flushed(void **state)
{
    static const char *const keeps[] = { "none", "some", "torn", "all" };
    unsigned cuts = getenv("BP_CUTS") ? (unsigned)atoi(getenv("BP_CUTS")) : 240;
    uint64_t writes = run_until_cut(0, "all", 0);
    assert_true(writes > 100);
    for (unsigned k = 0; k < cuts; k++)
        run_until_cut(cuts >= writes ? k % writes + 1 : 1 + (uint64_t)k * writes / cuts, keeps[(k + k / writes) % ARRAY_SIZE(keeps)], k + 1);
}

/* Everything fits again after it was deleted; what does not fit is refused, and nothing is lost. */
static void co_full(void *arg)
{
    struct blk *b = blk_open(arg, BLK_PERM_READ | BLK_PERM_WRITE, 0, NULL, "test", &err);
    struct kv_store *s = kv_store_new(b, BASE, SPACE, false);
    uint32_t n = 0, len;
    assert_int_equal(co_kv_load(s), 0);
    memset(buf, 7, sizeof buf);
    for (int again = 0; again < 3; again++) {
        struct kv_key k = { .len = 2 };
        for (n = 0;; n++) {
            k.b[0] = (uint8_t)n;
            int r = co_kv_put(s, &k, buf, 5000, 0);
            if (r) {
                assert_int_equal(r, -ENOSPC);
                break;
            }
        }
        assert_true(n >= 14 && kv_count(s) == n && kv_used(s) == n * 5120ull);
        for (uint32_t i = 0; i < n; i++) {
            k.b[0] = (uint8_t)i;
            assert_int_equal(co_kv_get(s, &k, buf, sizeof buf, &len), 0);
            assert_int_equal(len, 5000);
            assert_int_equal(co_kv_del(s, &k, 0), 0);
        }
    }
    for (n = 0; n < 100; n++) {         /* slots run out before space does */
        struct kv_key k = { .len = 1, .b = { (uint8_t)n } };
        if (co_kv_put(s, &k, "", 0, 0) == -ENOSPC)
            break;
    }
    assert_int_equal(n, kv_keys_max(s));
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(kv_nth(s, i)->b[0], i);
    kv_store_free(s);
    blk_close(b);
}

static void a_full_store(void **state)
{
    int fd = open(img, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(ftruncate(fd, BASE + SPACE), 0);
    close(fd);
    struct blk_node *n = must(node_of(json_of("{'driver':'file','node-name':'file','filename':'%s'}", img)));
    co_run_main(co_full, n);
    del(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_full_store), cmocka_unit_test(any_cut_leaves_what_was_flushed) };
    if (!mkdtemp(dir))
        return 1;
    img = path_of("kv.img");
    return run_block_tests(cmocka_run_group_tests(tests, loop_modes_setup, NULL));
}
