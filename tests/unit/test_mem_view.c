/* SPDX-License-Identifier: MIT */
/* Flattening against a per-address oracle, publication, and what a guest physical access may and may not do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/str.h"
#include "mem/view.h"

static uint64_t rng_state = 88172645463325252ull;
static uint32_t rnd(uint32_t n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (uint32_t)(rng_state >> 11) % n;
}

static uint64_t zero_read(void *o, uint64_t off, unsigned size) { return 0; }
static void no_write(void *o, uint64_t off, uint64_t v, unsigned size) { }
static const struct mmio_ops null_ops = { .read = zero_read, .write = no_write };

/* ---- the oracle: who answers at one address, by walking the tree ---- */
static struct region *who(struct region *g, uint64_t a, uint64_t *off, unsigned depth)
{
    if (!g->enabled || a >= g->size || depth > 20)
        return NULL;
    if (g->kind == REGION_ALIAS)
        return who(g->alias, a + g->alias_off, off, depth + 1);
    struct region *c;
    list_for_each(c, &g->children, sibling) {
        struct region *hit = a >= c->off ? who(c, a - c->off, off, depth + 1) : NULL;
        if (hit)
            return hit;
    }
    *off = a;
    return g->kind == REGION_CONTAINER ? NULL : g;
}

#define SPACE 96
#define NODES 14

static void check_all(struct address_space *as)
{
    const struct view *v = view_get(as);
    for (uint64_t a = 0; a < SPACE + 8; a++) {
        uint64_t off = 0;
        struct region *want = who(as->root, a, &off, 0);
        const struct view_range *got = view_lookup(v, a);
        assert_ptr_equal(want, got ? got->region : NULL);
        if (want)
            assert_int_equal(off, got->region_off + (a - got->start));
    }
    for (size_t i = 1; i < v->n; i++)
        assert_true(v->r[i - 1].start + v->r[i - 1].size <= v->r[i].start);
}

static void mutate(struct region *n)
{
    switch (rnd(4)) {
    case 0: region_set_enabled(n, rnd(2)); break;
    case 1: region_move(n, rnd(SPACE)); break;
    case 2: region_set_size(n, rnd(40)); break;
    default: region_batch_begin(); region_move(n, rnd(SPACE)); region_set_enabled(n, true); region_batch_end(); break;
    }
}

static void test_random_trees(void **s)
{
    for (unsigned round = 0; round < 400; round++) {
        struct region root, n[NODES];
        struct address_space as = { 0 };
        region_init_container(&root, "root", SPACE);
        address_space_init(&as, "test", &root);
        for (unsigned i = 0; i < NODES; i++) {
            /* Aliases show the first five nodes and never stand below them: no cycles here. */
            unsigned kind = rnd(4);
            if (kind == 0)
                region_init_container(&n[i], "c", rnd(60));
            else if (kind == 1 && i >= 5)
                region_init_alias(&n[i], "a", &n[rnd(5)], rnd(20), rnd(60));
            else
                region_init_mmio(&n[i], "m", rnd(40), &null_ops, NULL, NULL);
            struct region *parent = &root;
            if (i && i != 5 && rnd(2)) {
                struct region *p = i < 5 ? &n[rnd(i)] : &n[5 + rnd(i - 5)];
                parent = p->kind == REGION_ALIAS ? &root : p;
            }
            region_add(parent, rnd(SPACE), &n[i], (int)rnd(4) - 1);
            check_all(&as);
        }
        for (unsigned i = 0; i < 20; i++) {
            mutate(&n[rnd(NODES)]);
            check_all(&as);
        }
        region_batch_begin();
        for (unsigned i = 0; i < NODES; i++)
            region_del(&n[i]);
        region_batch_end();
        assert_int_equal(view_get(&as)->n, 0);
        address_space_fini(&as);
    }
    rcu_barrier();
}

static void test_alias_cycle_ends(void **s)
{
    struct region root, a;
    struct address_space as = { 0 };
    region_init_container(&root, "root", UINT64_MAX);
    region_init_alias(&a, "a", &root, 0, UINT64_MAX);
    address_space_init(&as, "test", &root);
    region_add(&root, 0x1000, &a, 0);
    assert_int_equal(view_get(&as)->n, 0);
    region_fini(&a);
    address_space_fini(&as);
}

/* ---- publication ---- */
struct counter { struct view_listener l; unsigned n; };
static void count(struct view_listener *l) { container_of(l, struct counter, l)->n++; }

static void test_batches_and_listeners(void **s)
{
    struct region root, m[3];
    struct address_space as = { 0 };
    struct counter c = { .l.changed = count };
    region_init_container(&root, "root", UINT64_MAX);
    address_space_init(&as, "test", &root);
    view_listen(&as, &c.l);
    region_batch_begin();
    region_batch_begin();
    for (unsigned i = 0; i < 3; i++) {
        region_init_mmio(&m[i], "m", 0x1000, &null_ops, NULL, NULL);
        region_add(&root, i * 0x1000, &m[i], 0);
    }
    region_batch_end();
    assert_int_equal(c.n, 0);
    region_batch_end();
    assert_int_equal(c.n, 1);
    uint64_t gen = view_get(&as)->gen;
    region_set_enabled(&m[0], true);            /* no change: no view */
    region_move(&m[1], 0x1000);
    assert_int_equal(c.n, 1);
    region_batch_begin();                       /* there and back: no view either */
    region_move(&m[1], 0x8000);
    region_move(&m[1], 0x1000);
    region_batch_end();
    assert_int_equal(c.n, 1);
    assert_int_equal(view_get(&as)->gen, gen);
    region_move(&m[2], 0x9000);
    assert_int_equal(c.n, 2);
    assert_true(view_get(&as)->gen > gen);
    view_unlisten(&as, &c.l);
    region_fini(&m[0]);
    assert_int_equal(c.n, 2);
    region_fini(&m[0]);                         /* twice is harmless */
    region_fini(&m[1]);
    region_fini(&m[2]);
    address_space_fini(&as);
}

/* ---- accesses ---- */
/* A device that is an array of bytes, whose handlers take sizes lo..hi only: any accepted access must act like the array. */
struct bytes_dev { uint8_t b[64]; unsigned lo, hi; bool unaligned, be; unsigned calls; };
static uint64_t bytes_read(void *o, uint64_t off, unsigned size)
{
    struct bytes_dev *d = o;
    assert_true(size >= d->lo && size <= d->hi && off + size <= 64);
    assert_true(d->unaligned || off % size == 0);
    d->calls++;
    uint64_t v = ld_le(d->b + off, size);
    return d->be ? __builtin_bswap64(v) >> (64 - 8 * size) : v;
}
static void bytes_write(void *o, uint64_t off, uint64_t v, unsigned size)
{
    struct bytes_dev *d = o;
    assert_true(size >= d->lo && size <= d->hi && off + size <= 64);
    assert_int_equal(v & ~mask_of_size(size), 0);
    d->calls++;
    st_le(d->b + off, d->be ? __builtin_bswap64(v) >> (64 - 8 * size) : v, size);
}

static void one_access(struct address_space *as, struct bytes_dev *d, const struct mmio_ops *o, uint64_t off, unsigned size)
{
    uint8_t before[64], want[64];
    bool valid = (size == 1 || size == 2 || size == 4 || size == 8) && size >= o->valid_min &&
                 (!o->valid_max || size <= o->valid_max) && (o->unaligned || off % size == 0) && off + size <= 64;
    uint64_t v, w = rng_state;
    rnd(2);
    memcpy(before, d->b, 64);
    bool ok = as_read(as, 0x1000 + off, &v, size);
    assert_int_equal(ok, valid);
    assert_int_equal(v, valid ? ld_le(before + off, size) : 0);
    memcpy(want, before, 64);
    ok = as_write(as, 0x1000 + off, w, size);
    assert_int_equal(ok, valid);
    if (valid)
        st_le(want + off, w, size);
    assert_memory_equal(d->b, want, 64);
}

static void test_access_splitting(void **s)
{
    struct region root, m;
    struct address_space as = { 0 };
    region_init_container(&root, "root", UINT64_MAX);
    address_space_init(&as, "test", &root);
    for (unsigned combo = 0; combo < 4 * 4 * 5 * 2 * 2; combo++) {
        unsigned lo = 1u << combo % 4, hi = 1u << combo / 4 % 4, vmin = 1u << combo / 16 % 5 >> 1, rest = combo / 80;
        if (lo > hi || ((rest & 1) && lo > 1))
            continue;
        struct bytes_dev d = { .lo = lo, .hi = hi, .unaligned = rest & 1, .be = rest & 2 };
        const struct mmio_ops o = { .read = bytes_read, .write = bytes_write, .min = (uint8_t)lo, .max = (uint8_t)hi,
                                    .valid_min = (uint8_t)vmin, .unaligned = rest & 1, .big_endian = rest & 2 };
        for (unsigned i = 0; i < 64; i++)
            d.b[i] = (uint8_t)rnd(256);
        region_init_mmio(&m, "bytes", 64, &o, &d, NULL);
        region_add(&root, 0x1000, &m, 0);
        for (unsigned size = 0; size <= 9; size++)
            for (uint64_t off = 0; off < 64; off++)
                if (off + size <= 64)
                    one_access(&as, &d, &o, off, size);
        region_fini(&m);
    }
    address_space_fini(&as);
}

static void test_bulk_and_holes(void **s)
{
    struct region root, m, r, rom;
    struct address_space as = { 0 };
    struct err e = ERR_INIT;
    struct bytes_dev d = { .lo = 1, .hi = 4 };
    const struct mmio_ops o = { .read = bytes_read, .write = bytes_write, .max = 4, .valid_max = 4 };
    struct ram *ram = ram_new("ram", 0x3000, &e);
    uint8_t out[0x200], in[0x200];
    uint64_t v;
    assert_non_null(ram);
    region_init_container(&root, "root", UINT64_MAX);
    address_space_init(&as, "test", &root);
    region_init_ram(&r, "ram", ram, 0, 0x1000);
    region_init_rom(&rom, "rom", ram, 0x1000, 0x1000);
    region_init_mmio(&m, "bytes", 64, &o, &d, NULL);
    region_add(&root, 0x1000, &r, 0);
    region_add(&root, 0x2000, &m, 0);
    region_add(&root, 0x3000, &rom, 0);
    for (unsigned i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7 + 1);
    assert_true(as_write_bytes(&as, 0x2000 - 29, out, 29 + 64));        /* RAM into MMIO */
    assert_true(as_read_bytes(&as, 0x2000 - 29, in, 29 + 64));
    assert_memory_equal(in, out, 29 + 64);
    memset(in, 0xee, sizeof(in));
    assert_false(as_read_bytes(&as, 0x2020, in, 0x100));                /* runs into a hole: zeroes */
    assert_memory_equal(in, out + 29 + 32, 32);
    for (unsigned i = 32; i < 0x100; i++)
        assert_int_equal(in[i], 0);
    assert_true(as_write(&as, 0x3000, 0x55, 1));                        /* ROM takes and forgets */
    assert_true(as_read(&as, 0x3000, &v, 1));
    assert_int_equal(v, 0);
    assert_true(as_load(&as, 0x3000, out, 16));                         /* a loader may */
    assert_true(as_read(&as, 0x3000, &v, 8));
    assert_int_equal(v, ld_le64(out));
    assert_false(as_load(&as, 0x2000, out, 16));
    assert_false(as_read(&as, 0x3ffc, &v, 8));                          /* half of it is not there */
    assert_true(as_write(&as, 0x1ffd, 0x11223344, 2));                  /* unaligned within RAM */
    assert_true(as_read(&as, 0x1ffd, &v, 2));
    assert_int_equal(v, 0x3344);
    assert_false(as_read(&as, UINT64_MAX - 3, &v, 8));                  /* wraps */
    assert_false(as_write_bytes(&as, UINT64_MAX - 3, out, 8));
    assert_false(as_read(&as, UINT64_MAX, &v, 1));
    assert_false(as_read(&as, 0x1000, &v, 16));
    assert_true(as_read_bytes(&as, 0x1000, in, 0));
    region_fini(&m);
    region_fini(&r);
    region_fini(&rom);
    address_space_fini(&as);
    ram_free(ram);
    rcu_barrier();
}

static void test_romd(void **s)
{
    struct region root, f;
    struct address_space as = { 0 };
    struct err e = ERR_INIT;
    struct bytes_dev d = { .lo = 1, .hi = 8 };
    const struct mmio_ops o = { .read = bytes_read, .write = bytes_write };
    struct ram *ram = ram_new("flash", 0x1000, &e);
    uint64_t v;
    region_init_container(&root, "root", UINT64_MAX);
    address_space_init(&as, "test", &root);
    region_init_romd(&f, "flash", ram, 0x1000, &o, &d, NULL);
    region_add(&root, 0, &f, 0);
    st_le32(ram->host, 0xcafe);
    assert_true(as_read(&as, 0, &v, 4));
    assert_int_equal(v, 0xcafe);
    assert_int_equal(d.calls, 0);
    assert_true(as_write(&as, 0, 0x99, 1));
    assert_int_equal(d.calls, 1);
    assert_int_equal(ld_le32(ram->host), 0xcafe);
    region_romd_set(&f, false);
    assert_true(as_read(&as, 0, &v, 4));
    assert_int_equal(v, 0x99);
    region_romd_set(&f, true);
    assert_true(as_read(&as, 0, &v, 4));
    assert_int_equal(v, 0xcafe);
    region_fini(&f);
    address_space_fini(&as);
    ram_free(ram);
}

static void ring(void *arg, uint64_t v) { *(uint64_t *)arg = v; }

static void test_doorbells(void **s)
{
    struct region root, m;
    struct address_space as = { 0 };
    struct bytes_dev d = { .lo = 1, .hi = 8 };
    const struct mmio_ops o = { .read = bytes_read, .write = bytes_write };
    uint64_t rung = 0, matched = 0;
    struct doorbell a = { .off = 8, .size = 4, .fn = ring, .arg = &rung };
    struct doorbell b = { .off = 16, .size = 2, .match = true, .datamatch = 7, .fn = ring, .arg = &matched };
    region_init_container(&root, "root", UINT64_MAX);
    address_space_init(&as, "test", &root);
    region_init_mmio(&m, "bytes", 64, &o, &d, NULL);
    region_doorbell(&m, &a);
    region_doorbell(&m, &b);
    region_add(&root, 0, &m, 0);
    assert_true(as_write(&as, 8, 0xffffffff00000005, 4));
    assert_int_equal(rung, 5);
    assert_int_equal(d.calls, 0);
    assert_true(as_write(&as, 8, 6, 2));        /* another size goes to the handler */
    assert_int_equal(rung, 5);
    assert_int_equal(d.calls, 1);
    assert_true(as_write(&as, 16, 6, 2));       /* another value too */
    assert_int_equal(d.calls, 2);
    assert_true(as_write(&as, 16, 7, 2));
    assert_int_equal(matched, 7);
    region_fini(&m);
    address_space_fini(&as);
}

static void test_dump(void **s)
{
    struct region root, c, m;
    struct address_space as = { 0 };
    struct str out = { 0 };
    region_init_container(&root, "system", UINT64_MAX);
    region_init_container(&c, "box", 0x10000);
    region_init_mmio(&m, "uart", 0x100, &null_ops, NULL, NULL);
    region_add(&root, 0x10000000, &c, 0);
    region_add(&c, 0x200, &m, 1);
    address_space_init(&as, "memory", &root);
    region_dump(&out, false);
    assert_non_null(strstr(out.s, "0000000000000000-ffffffffffffffff (prio 0, container): system\n"));
    assert_non_null(strstr(out.s, "    0000000010000200-00000000100002ff (prio 1, i/o): uart\n"));
    str_free(&out);
    region_dump(&out, true);
    assert_string_equal(out.s, "flat view of address-space: memory\n"
                               "  0000000010000200-00000000100002ff (prio 1, i/o): uart\n\n");
    str_free(&out);
    region_fini(&m);
    region_fini(&c);
    address_space_fini(&as);
    rcu_barrier();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_trees), cmocka_unit_test(test_alias_cycle_ends),
        cmocka_unit_test(test_batches_and_listeners),
        cmocka_unit_test(test_access_splitting), cmocka_unit_test(test_bulk_and_holes), cmocka_unit_test(test_romd),
        cmocka_unit_test(test_doorbells), cmocka_unit_test(test_dump),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
