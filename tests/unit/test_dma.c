/* SPDX-License-Identifier: MIT */
/* Device DMA: bounded, RAM only, gated; RAM outlives the maps of it; who watches a page hears of every write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>

#include "mem/dma.h"

static uint64_t never_read(void *o, uint64_t off, unsigned size) { fail(); return 0; }
static void never_write(void *o, uint64_t off, uint64_t v, unsigned size) { fail(); }
static const struct mmio_ops never_ops = { .read = never_read, .write = never_write };

/* 0x1000..0x5000 RAM, 0x5000..0x6000 device, 0x6000..0x7000 ROM, 0x8000..0x9000 the RAM's first page again */
static struct fixture {
    struct address_space as;
    struct region root, ram, dev, rom, mirror;
    struct ram *mem;
    struct dma dma;
} *fx;

static int setup(void **s)
{
    struct err e = ERR_INIT;
    fx = calloc(1, sizeof(*fx));
    fx->mem = ram_new("ram", 0x5000, &e);
    region_init_container(&fx->root, "root", UINT64_MAX);
    region_init_ram(&fx->ram, "ram", fx->mem, 0, 0x4000);
    region_init_mmio(&fx->dev, "dev", 0x1000, &never_ops, NULL, NULL);
    region_init_rom(&fx->rom, "rom", fx->mem, 0x4000, 0x1000);
    region_init_alias(&fx->mirror, "mirror", &fx->ram, 0, 0x1000);
    region_add(&fx->root, 0x1000, &fx->ram, 0);
    region_add(&fx->root, 0x5000, &fx->dev, 0);
    region_add(&fx->root, 0x6000, &fx->rom, 0);
    region_add(&fx->root, 0x8000, &fx->mirror, 0);
    address_space_init(&fx->as, "test", &fx->root);
    dma_init(&fx->dma, &fx->as);
    fx->dma.enabled = true;
    return 0;
}

static int teardown(void **s)
{
    region_fini(&fx->mirror);
    region_fini(&fx->ram);
    region_fini(&fx->dev);
    region_fini(&fx->rom);
    address_space_fini(&fx->as);
    ram_free(fx->mem);
    rcu_barrier();
    free(fx);
    return 0;
}

static void test_copy(void **s)
{
    uint8_t a[0x100], b[0x100];
    for (unsigned i = 0; i < sizeof(a); i++)
        a[i] = (uint8_t)(i ^ 0x5a);
    assert_true(dma_write(&fx->dma, 0x1f80, a, sizeof(a)));
    assert_true(dma_read(&fx->dma, 0x1f80, b, sizeof(b)));
    assert_memory_equal(a, b, sizeof(a));
    assert_memory_equal(fx->mem->host + 0xf80, a, sizeof(a));
    assert_true(dma_set(&fx->dma, 0x8000, 0x77, 16));
    assert_int_equal(fx->mem->host[15], 0x77);
    assert_int_equal(fx->mem->host[16], 0);
    assert_true(dma_read(&fx->dma, 0x6000, b, 16));                     /* ROM reads */
    assert_true(dma_read(&fx->dma, 0xdead0000, b, 0));                  /* nothing asked, nothing refused */
    assert_int_equal(fx->dma.faults, 0);
}

static void test_refusals(void **s)
{
    uint8_t b[0x2000] = { 0 };
    struct dma_vec v;
    struct ram *r;
    uint64_t off;
    assert_false(dma_read(&fx->dma, 0x5000, b, 4));                     /* a device */
    assert_false(dma_write(&fx->dma, 0x5000, b, 4));
    assert_false(dma_write(&fx->dma, 0x4ff0, b, 0x20));                 /* runs into it */
    assert_false(dma_write(&fx->dma, 0x6000, b, 4));                    /* ROM */
    assert_false(dma_set(&fx->dma, 0x7000, 0, 1));                      /* a hole */
    assert_false(dma_read(&fx->dma, UINT64_MAX - 1, b, 4));             /* wraps */
    assert_false(dma_write(&fx->dma, UINT64_MAX, b, 2));
    assert_int_equal(fx->dma.faults, 7);
    dma_vec_init(&v, &fx->dma, true);
    assert_false(dma_map(&v, 0x4000, 0x2000));
    assert_false(dma_map(&v, 0x6000, 8));
    assert_false(dma_map(&v, 0x1000, UINT64_MAX));
    assert_int_equal(v.n, 0);
    assert_null(dma_map_fixed(&fx->dma, 0x4ffc, 8, false, &r, &off));
    assert_null(dma_map_fixed(&fx->dma, 0x1000, 0, false, &r, &off));
    fx->dma.enabled = false;                                            /* bus master off */
    assert_false(dma_read(&fx->dma, 0x1000, b, 4));
    assert_false(dma_map(&v, 0x1000, 4));
    assert_null(dma_map_fixed(&fx->dma, 0x1000, 4, false, &r, &off));
    dma_vec_free(&v);
}

static void test_vec(void **s)
{
    struct dma_vec v;
    dma_vec_init(&v, &fx->dma, true);
    assert_true(dma_map(&v, 0x1010, 0x20));
    assert_true(dma_map(&v, 0x8000, 0x10));
    assert_int_equal(v.n, 2);
    assert_int_equal(v.len, 0x30);
    assert_ptr_equal(v.iov[0].iov_base, fx->mem->host + 0x10);
    assert_ptr_equal(v.iov[1].iov_base, fx->mem->host);
    assert_false(dma_map(&v, 0x4ff8, 0x10));                            /* refused: as before */
    assert_int_equal(v.n, 2);
    assert_int_equal(v.len, 0x30);
    ram_watch(fx->mem, 0, 0x4000, WATCH_CODE);
    dma_unmap(&v, 0x10);                                                /* only what was written counts */
    assert_int_equal(ram_watched(fx->mem, 0), 0);
    assert_int_equal(ram_watched(fx->mem, 0x1000), WATCH_CODE);
    for (unsigned i = 0; i < DMA_VEC_MAX; i++)
        assert_true(dma_map(&v, 0x1000 + 8 * (i % 64), 4));
    assert_false(dma_map(&v, 0x1000, 4));                               /* full */
    dma_vec_free(&v);
    assert_int_equal(fx->mem->refs, 1);
}

static bool swap_halves(void *arg, uint64_t iova, bool write, uint64_t *pa, uint64_t *len)
{
    if (iova >= 0x2000)
        return false;
    *pa = 0x1000 + (iova ^ 0x1000);
    *len = MIN(*len, 0x1000 - (iova & 0xfff));
    return true;
}

static void test_iommu(void **s)
{
    uint8_t a[0x20];
    struct dma_vec v;
    memset(a, 0x31, sizeof(a));
    fx->dma.xlate = swap_halves;
    assert_true(dma_write(&fx->dma, 0xff0, a, 0x20));
    assert_memory_equal(fx->mem->host + 0x1ff0, a, 0x10);
    assert_memory_equal(fx->mem->host, a, 0x10);
    assert_false(dma_write(&fx->dma, 0x1ff0, a, 0x20));
    dma_vec_init(&v, &fx->dma, false);
    assert_true(dma_map(&v, 0xff0, 0x20));
    assert_int_equal(v.n, 2);
    dma_vec_free(&v);
}

static void test_ram_outlives_unplug(void **s)
{
    struct err e = ERR_INIT;
    struct region dimm;
    struct dma_vec v;
    struct ram *r = ram_new("dimm", 0x2000, &e);
    region_init_ram(&dimm, "dimm", r, 0, 0x2000);
    region_add(&fx->root, 0x10000, &dimm, 0);
    dma_vec_init(&v, &fx->dma, true);
    assert_true(dma_map(&v, 0x10000, 0x1000));
    uint8_t *p = v.iov[0].iov_base;
    region_fini(&dimm);
    ram_free(r);
    rcu_barrier();
    p[0xfff] = 1;                       /* the transfer is still under way: the memory is still there */
    dma_unmap(&v, 0x1000);
    assert_false(dma_map(&v, 0x10000, 0x1000));
    dma_vec_free(&v);
}

/* ---- watching ---- */
static uint64_t code_off, code_len;
static unsigned code_n;
static void code_written(struct ram *r, uint64_t off, uint64_t len)
{
    code_off = off;
    code_len = len;
    code_n++;
}

static void test_watch(void **s)
{
    uint8_t b[0x1800] = { 0 };
    ram_code_written = code_written;
    code_n = 0;
    ram_watch(fx->mem, 0x1000, 1, WATCH_CODE);
    assert_true(dma_write(&fx->dma, 0x1000, b, 8));
    assert_int_equal(code_n, 0);
    assert_true(dma_write(&fx->dma, 0x1c00, b, sizeof(b)));             /* covers page 1 whole */
    assert_int_equal(code_n, 1);
    assert_int_equal(code_off, 0x1000);
    assert_int_equal(code_len, 0x1000);
    assert_true(dma_write(&fx->dma, 0x2000, b, 8));                     /* told once */
    assert_int_equal(code_n, 1);
    ram_watch(fx->mem, 0x3000, 0x1000, WATCH_CODE);
    assert_true(as_write(&fx->as, 0x4ffc, 1, 4));
    assert_int_equal(code_n, 2);
    assert_int_equal(code_off, 0x3ffc);
    ram_watch(fx->mem, 0, 0x2000, WATCH_CODE);
    assert_true(as_write_bytes(&fx->as, 0x1fff, b, 2));                 /* of both pages */
    assert_int_equal(ram_watched(fx->mem, 0) | ram_watched(fx->mem, 0x1000), 0);
    ram_watch(fx->mem, 0x5000, 0x1000, WATCH_CODE);                     /* out of range: nothing happens */
    ram_written(fx->mem, 0x4fff, UINT64_MAX);
    ram_code_written = NULL;
}

static void test_big_ram_is_free(void **s)
{
    struct err e = ERR_INIT;
    struct rusage u0, u1;
    getrusage(RUSAGE_SELF, &u0);
    struct ram *r = ram_new("big", 64 * GiB, &e);
    assert_non_null(r);
    ram_written(r, 63 * GiB, 4096);
    ram_watch(r, 63 * GiB, 4096, WATCH_CODE);
    getrusage(RUSAGE_SELF, &u1);
    assert_true(u1.ru_maxrss - u0.ru_maxrss < 1024);
    r->host[64 * GiB - 1] = 1;
    ram_free(r);
    assert_null(ram_new("too big", UINT64_MAX - 4096, &e));
    assert_non_null(strstr(e.msg, "too big"));
    r = ram_new_memfd("shared", 0x2000, true, &e);
    assert_non_null(r);
    assert_true(r->fd >= 0);
    ram_free(r);
    ram_free(NULL);
    rcu_barrier();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = { T(test_copy), T(test_refusals), T(test_vec), T(test_iommu),
                                        T(test_ram_outlives_unplug), T(test_watch), T(test_big_ram_is_free) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
