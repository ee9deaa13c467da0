/* SPDX-License-Identifier: MIT */
/* virtio-balloon: pages really go, and only those; larger pages; statistics; reporting; commands; saved state; wrong guests. */
#include "virtio_drv.h"
#include <errno.h>
#include "base/log.h"
#include "hw/virtio/virtio_balloon.h"

enum { INFLATE, DEFLATE, STATS, REPORT };
#define PAGES_AT (HW_RAM + 0x80000)         /* the upper half of RAM is what the tests give away */

static struct virtio_balloon *b;
static struct dev *dev;

static void machine_with(const char *more)
{
    char opts[256];
    vd_open();
    snprintf(opts, sizeof opts, "{'driver':'virtio-balloon-device','id':'bal'%s}", more);
    dev = vd_dev(opts);
    b = (struct virtio_balloon *)virtio_of_dev(dev);
    memset(vd_host(PAGES_AT), 0xa5, 0x80000);
}

static void give(unsigned queue, const uint32_t *pfn, unsigned n)
{
    vd_send(queue, pfn, 4 * n);
    vd_run();
    assert_int_equal(vd_used(queue), 0);
}

static bool gone(uint64_t addr)
{
    static const uint8_t zero[4096];
    return !memcmp(vd_host(addr), zero, sizeof zero);
}

static uint32_t pfn_of(unsigned page) { return (uint32_t)((PAGES_AT >> 12) + page); }

static void test_pages_go(void **state)
{
    uint32_t list[] = { pfn_of(3), pfn_of(4), pfn_of(5), pfn_of(20), pfn_of(19), pfn_of(18), pfn_of(100) };
    machine_with("");
    vd_start(0, 3);
    give(INFLATE, list, ARRAY_SIZE(list));
    for (unsigned i = 0; i < 128; i++) {
        bool listed = false;
        for (unsigned k = 0; k < ARRAY_SIZE(list); k++)
            listed |= list[k] == pfn_of(i);
        assert_int_equal(gone(PAGES_AT + i * 4096), listed);
    }
    assert_int_equal(b->discarded, sizeof list / 4 * 4096);
    give(DEFLATE, list, ARRAY_SIZE(list));
    vd_close();
}

/* All of a long list, in any order, against a plain model. */
static void test_random_lists(void **state)
{
    machine_with("");
    vd_start(0, 3);
    for (int round = 0; round < 50; round++) {
        uint32_t list[100], n = 1 + hw_rand(100);
        bool want[128] = { false };
        for (unsigned i = 0; i < n; i++) {
            unsigned page = i && hw_rand(4) ? (list[i - 1] - pfn_of(0) + (hw_rand(2) ? 1 : 127)) % 128 : hw_rand(128);
            list[i] = pfn_of(page);
            want[page] = true;
        }
        memset(vd_host(PAGES_AT), 0xa5, 0x80000);
        vd_pool = HW_RAM + 0x8000;
        give(INFLATE, list, n);
        for (unsigned i = 0; i < 128; i++)
            assert_int_equal(gone(PAGES_AT + i * 4096), want[i]);
    }
    vd_close();
}

/* RAM of larger pages goes when a whole page was given, and not when a part was taken back meanwhile. */
static void test_larger_pages(void **state)
{
    uint32_t pfn;
    machine_with("");
    hw_ram->page_size = 0x10000;
    vd_start(0, 3);
    for (unsigned i = 0; i < 16; i++) {
        assert_false(gone(PAGES_AT));
        pfn = pfn_of(15 - i);
        give(INFLATE, &pfn, 1);
        give(INFLATE, &pfn, 1);                 /* twice is once */
    }
    assert_true(gone(PAGES_AT) && gone(PAGES_AT + 0xf000));
    assert_false(gone(PAGES_AT + 0x10000));
    for (unsigned i = 16; i < 32; i++) {
        if (i == 30) {
            pfn = pfn_of(16);
            give(DEFLATE, &pfn, 1);
        }
        pfn = pfn_of(i);
        give(INFLATE, &pfn, 1);
    }
    assert_false(gone(PAGES_AT + 0x10000));
    hw_ram->page_size = 4096;
    vd_close();
}

static void test_read_only_and_private_file_memory_stays(void **state)
{
    struct err e = ERR_INIT;
    struct ram *r = ram_new_memfd("m", 0x4000, true, &e), *p = ram_new_memfd("p", 0x4000, false, &e);
    memset(r->host, 1, 0x4000);
    assert_int_equal(ram_discard(r, 0x1000, 0x1000), 0);
    assert_int_equal(r->host[0xfff], 1);
    assert_int_equal(r->host[0x1000], 0);
    assert_int_equal(r->host[0x2000], 1);
    assert_int_equal(ram_discard(r, 0x3000, 0x2000), -EINVAL);
    assert_int_equal(ram_discard(r, 0x10, 0x1000), -EINVAL);
    assert_int_equal(ram_discard(p, 0, 0x1000), -ENOTSUP);
    ram_free(r);
    ram_free(p);
}

static json_t *stat(const char *name)
{
    return json_object_get(json_object_get(b->stats, "stats"), name);
}

static void test_statistics(void **state)
{
    struct virtio_balloon_stat s[] = { { 5, 1 << 30 }, { 4, 12345 }, { 999, 7 } };
    struct err e = ERR_INIT;
    machine_with(",'guest-stats-polling-interval':2");
    assert_int_equal(json_integer_value(stat("stat-total-memory")), -1);
    vd_start(BIT64(VIRTIO_BALLOON_F_STATS_VQ), 3);
    vd_send(STATS, s, sizeof s);
    assert_int_equal(vd_used(STATS), -1);       /* it is kept to ask the next time */
    assert_int_equal(json_integer_value(stat("stat-total-memory")), 1 << 30);
    assert_int_equal(json_integer_value(stat("stat-free-memory")), 12345);
    assert_int_equal(json_integer_value(stat("stat-swap-in")), -1);
    assert_true(json_integer_value(json_object_get(b->stats, "last-update")) > 1600000000);
    clock_vm_step(1999999999);
    vd_run();
    assert_int_equal(vd_used(STATS), -1);
    clock_vm_step(1);
    vd_run();
    assert_int_equal(vd_used(STATS), 0);
    clock_vm_step(10000000000);
    vd_run();
    assert_int_equal(vd_used(STATS), -1);
    vd_send(STATS, s, 10);
    assert_true(obj_set(&dev->obj, "guest-stats-polling-interval", "0", &e));
    clock_vm_step(10000000000);
    vd_run();
    assert_int_equal(vd_used(STATS), -1);       /* not polled any more */
    assert_true(obj_set(&dev->obj, "guest-stats-polling-interval", "1", &e));
    clock_vm_step(1000000000);
    vd_run();
    assert_int_equal(vd_used(STATS), 0);
    assert_false(obj_set(&dev->obj, "guest-stats", "x", &e));
    vd_close();
}

static void test_statistics_survive_a_saved_state_and_a_reset(void **state)
{
    struct virtio_balloon_stat s = { 5, 99 };
    struct str one = { 0 }, two = { 0 };
    machine_with(",'guest-stats-polling-interval':1");
    vd_start(BIT64(VIRTIO_BALLOON_F_STATS_VQ), 3);
    vd_send(STATS, &s, sizeof s);
    vd_save(dev, &one);
    vd_load(dev, &one);
    vd_save(dev, &two);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.s, two.s, one.len);
    run_cont();
    vd_run();
    clock_vm_step(1000000000);
    vd_run();
    assert_int_equal(vd_used(STATS), 0);
    vd_send(STATS, &s, sizeof s);
    run_stop(RUN_PAUSED);
    w32(0x70, 0);                               /* with the buffer held */
    vd_run();
    assert_int_equal(r32(0x70), 0);
    vd_start(BIT64(VIRTIO_BALLOON_F_STATS_VQ), 3);
    vd_send(STATS, &s, sizeof s);
    assert_int_equal(vd_used(STATS), -1);
    str_free(&one);
    str_free(&two);
    vd_close();
}

static void test_reporting(void **state)
{
    machine_with(",'free-page-reporting':true");
    struct vd_buf bufs[] = { { PAGES_AT + 0x1000, 0x3000, true }, { PAGES_AT + 0x8800, 0x1800, true }, { PAGES_AT + 0x10100, 0x800, true } };
    vd_start(BIT64(VIRTIO_BALLOON_F_PAGE_REPORTING), 4);
    vd_add(REPORT, bufs, 3);
    vd_kick(REPORT);
    vd_run();
    assert_int_equal(vd_used(REPORT), 0);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(gone(PAGES_AT + i * 4096), (i >= 1 && i <= 3) || i == 9);
    /* A guest that fills free pages with a value keeps them. */
    memset(vd_host(PAGES_AT), 0xa5, 0x80000);
    assert_true(vd_negotiate(BIT64(VIRTIO_BALLOON_F_PAGE_REPORTING) | BIT64(VIRTIO_BALLOON_F_PAGE_POISON)));
    w32(0x10c, 0xaaaaaaaa);
    assert_int_equal(r32(0x10c), 0xaaaaaaaa);
    for (unsigned i = 0; i < 4; i++)
        vd_queue(i);
    w32(0x70, 15);
    vd_add(REPORT, bufs, 3);
    vd_kick(REPORT);
    vd_run();
    assert_int_equal(vd_used(REPORT), 0);
    assert_false(gone(PAGES_AT + 0x1000));
    vd_close();
}

static void test_what_is_offered(void **state)
{
    machine_with("");
    assert_int_equal(vd_features() & 0x3f, BIT64(1) | BIT64(4));
    w32(0x30, REPORT);
    assert_int_equal(r32(0x34), 0);
    vd_close();
    machine_with(",'page-poison':false,'deflate-on-oom':true,'free-page-reporting':true");
    assert_int_equal(vd_features() & 0x3f, BIT64(1) | BIT64(2) | BIT64(5));
    vd_start(0, 3);
    w32(0x10c, 5);                              /* not there without page-poison */
    assert_int_equal(r32(0x10c), 0);
    struct err e = ERR_INIT;
    assert_null(vd_try("{'driver':'virtio-balloon-device'}", &e));
    vd_close();
}

static void test_wrong_guests(void **state)
{
    uint32_t list[] = { 0, UINT32_MAX, (uint32_t)(HW_DEV >> 12), pfn_of(1) };
    uint64_t before = log_guest_total();
    machine_with("");
    vd_start(BIT64(VIRTIO_BALLOON_F_STATS_VQ), 3);
    give(INFLATE, list, 4);
    assert_true(gone(PAGES_AT + 0x1000));
    assert_int_equal(log_guest_total() - before, 3);
    vd_send(INFLATE, list, 3);                  /* not a whole number */
    vd_run();
    assert_int_equal(vd_used(INFLATE), 0);
    w32(0x100, 77);                             /* num_pages is the host's */
    assert_int_equal(r32(0x100), 0);
    vd_send(STATS, "", 0);
    vd_send(STATS, "xyz", 3);
    assert_int_equal(vd_used(STATS), 0);        /* the first of two */
    assert_int_equal(vd_used(STATS), -1);
    assert_false(vd_needs_reset());
    vd_close();
}

/* A reset while pages are being given: not one page goes after the device said that it was reset. */
static void test_reset_stops_giving(void **state)
{
    enum { N = 16384 };
    machine_with("");
    vd_start(0, 3);
    struct vd_buf buf = { vd_alloc(N * 4), N * 4, false };
    uint32_t *list = (uint32_t *)vd_host(buf.addr);
    for (unsigned i = 0; i < N; i++)
        list[i] = pfn_of(i < N - 4096 ? i % 64 : i % 128);
    vd_add(INFLATE, &buf, 1);
    w32(0x50, INFLATE);
    loop_run_once(loop_main(), 0);              /* some steps */
    assert_true(gone(PAGES_AT) && !gone(PAGES_AT + 127 * 4096));
    w32(0x70, 0);
    memset(vd_host(PAGES_AT), 0x5a, 0x80000);
    vd_run();
    assert_int_equal(r32(0x70), 0);
    for (unsigned i = 0; i < 128; i++)
        assert_false(gone(PAGES_AT + i * 4096));
    vd_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_go), cmocka_unit_test(test_random_lists), cmocka_unit_test(test_larger_pages),
        cmocka_unit_test(test_read_only_and_private_file_memory_stays), cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_statistics_survive_a_saved_state_and_a_reset), cmocka_unit_test(test_reporting),
        cmocka_unit_test(test_what_is_offered), cmocka_unit_test(test_wrong_guests), cmocka_unit_test(test_reset_stops_giving),
    };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
