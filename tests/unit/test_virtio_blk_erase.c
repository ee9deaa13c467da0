/* SPDX-License-Identifier: MIT */
/* Secure erase of virtio-blk (VIRTIO 1.2, 5.2.6): offered where the back end can, and only there; what reaches it. */
#include "virtio_drv.h"
#include "block/driver.h"
#include "hw/virtio/virtio_blk.h"

#define SIZE (1u << 20)

struct eraser { struct blk_node node; bool secure; };
static struct { unsigned erased; uint64_t off, len; } seen;

static bool eraser_open(struct blk_node *n, struct err *e)
{
    atomic_store(&n->size, SIZE);
    n->caps = (struct blk_caps){ .read_only = n->read_only, .secure_erase = ((struct eraser *)n)->secure && !n->read_only, .flush = true,
                                 .logical_block = 512, .physical_block = 512, .mem_align = 1, .discard_granularity = 4096 };
    return true;
}

static int co_eraser_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags) { return 0; }
static int co_eraser_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags) { return 0; }

static int co_eraser_erase(struct blk_node *n, uint64_t off, uint64_t len)
{
    seen.erased++;
    seen.off = off;
    seen.len = len;
    return 0;
}

static const struct prop eraser_props[] = { PROP_BOOL(struct eraser, secure, "secure", true, "Test"), PROP_END };
static const struct blk_driver eraser_driver = {
    .obj = { .name = "blockdev-eraser", .desc = "Test", .base = &blk_node_class, .size = sizeof(struct eraser), .props = eraser_props },
    .flags = BLK_ANY_LOOP, .co_open = eraser_open, .co_preadv = co_eraser_read, .co_pwritev = co_eraser_write, .co_erase = co_eraser_erase,
};
OBJ_CLASS(&eraser_driver.obj);

static void node(const char *text)
{
    struct err e = ERR_INIT;
    json_t *o = json_loads(text, 0, NULL);
    struct blk_node *n = blk_node_create(o, &e);

    if (!n)
        fail_msg("%s", e.msg);
    json_decref(o);
}

static void del(const char *id)
{
    struct err e = ERR_INIT;
    struct obj *n = obj_find("blockdev", id);

    if (n && !blk_node_delete((struct blk_node *)n, &e))
        fail_msg("%s", e.msg);
}

static uint64_t offered(void)
{
    w32(0x14, 0);
    return r32(0x10);
}

/* The status of a request with one range. */
static int erase(uint64_t sector, uint32_t sectors, uint32_t flags)
{
    struct vblk_header h = { .type = htole32(VIRTIO_BLK_T_SECURE_ERASE) };
    struct vblk_range g = { htole64(sector), htole32(sectors), htole32(flags) };
    uint64_t out = vd_alloc(sizeof h + sizeof g), st = vd_alloc(1);
    struct vd_buf b[2] = { { out, sizeof h + sizeof g, false }, { st, 1, true } };

    memcpy(vd_host(out), &h, sizeof h);
    memcpy(vd_host(out) + sizeof h, &g, sizeof g);
    *vd_host(st) = 0xee;
    vd_add(0, b, 2);
    w32(0x50, 0);
    UNTIL(vd_used(0) >= 0, loop_run_once(loop_main(), 1000000));
    return *vd_host(st);
}

static void test_where_it_is_offered(void **state)
{
    static const struct { const char *node, *dev; bool yes; } rows[] = {
        { "{\"driver\":\"eraser\",\"node-name\":\"d\"}", "", true }, { "{\"driver\":\"eraser\",\"node-name\":\"d\",\"secure\":false}", "", false },
        { "{\"driver\":\"eraser\",\"node-name\":\"d\",\"read-only\":true}", "", false },
        { "{\"driver\":\"eraser\",\"node-name\":\"d\"}", ",'secure-erase':false", false },
        { "{\"driver\":\"raw\",\"node-name\":\"d\",\"file\":{\"driver\":\"eraser\"}}", "", true },
        { "{\"driver\":\"copy-on-read\",\"node-name\":\"d\",\"file\":{\"driver\":\"eraser\"}}", "", false },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        char text[128];

        vd_open();
        node(rows[i].node);
        snprintf(text, sizeof text, "{'driver':'virtio-blk-device','drive':'d'%s}", rows[i].dev);
        vd_dev(text);
        if ((offered() >> VIRTIO_BLK_F_SECURE_ERASE & 1) != rows[i].yes)
            fail_msg("row %u", i);
        assert_int_equal(r32(0x100 + offsetof(struct vblk_config, max_secure_erase_seg)), rows[i].yes);
        vd_close();
        del("d");
    }
}

static void test_requests(void **state)
{
    vd_open();
    node("{\"driver\":\"raw\",\"node-name\":\"d\",\"offset\":4096,\"file\":{\"driver\":\"eraser\"}}");
    vd_dev("{'driver':'virtio-blk-device','drive':'d'}");
    assert_int_equal(r32(0x100 + offsetof(struct vblk_config, secure_erase_sector_alignment)), 8);
    assert_true(r32(0x100 + offsetof(struct vblk_config, max_secure_erase_sectors)) >= SIZE / 512);
    vd_start(BIT64(VIRTIO_BLK_F_SECURE_ERASE), 1);
    memset(&seen, 0, sizeof seen);
    assert_int_equal(erase(8, 16, 0), VIRTIO_BLK_S_OK);
    assert_int_equal(seen.erased, 1);
    assert_int_equal(seen.off, 4096 + 8 * 512);
    assert_int_equal(seen.len, 16 * 512);
    assert_int_equal(erase(8, 16, 1), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(erase(SIZE / 512 - 16, 16, 0), VIRTIO_BLK_S_IOERR);        /* the window ends before */
    assert_int_equal(erase(UINT64_MAX, 1, 0), VIRTIO_BLK_S_IOERR);
    assert_int_equal(seen.erased, 1);
    vd_close();
    vd_open();
    vd_dev("{'driver':'virtio-blk-device','drive':'d'}");
    vd_start(0, 1);                             /* not negotiated */
    assert_int_equal(erase(8, 16, 0), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(seen.erased, 1);
    vd_close();
    del("d");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_where_it_is_offered), cmocka_unit_test(test_requests) };
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
