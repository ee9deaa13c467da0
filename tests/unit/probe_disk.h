/* SPDX-License-Identifier: MIT */
/* For tests of disks: a block node in memory that fails, waits and counts as a test wants. */
#ifndef TESTS_UNIT_PROBE_DISK_H
#define TESTS_UNIT_PROBE_DISK_H

#include "hw.h"
#include "block/driver.h"

#define PROBE_SIZE (256 * 1024)
struct blk_probe { struct blk_node node; uint32_t block; bool discards; };
static uint8_t probe_data[PROBE_SIZE];
static int probe_error, probe_read_error;       /* of the next requests, or reads only; 0: none */
static bool probe_hold;                 /* requests wait until probe_go() */
static struct co_event probe_gate;
static unsigned probe_flushes, probe_waiting;
static _Atomic unsigned probe_fua;
static int64_t probe_nap;               /* requests take up to this long (ns), whatever else is said here: of several threads, too */

static bool probe_open(struct blk_node *n, struct err *e)
{
    const struct blk_probe *p = (const struct blk_probe *)n;
    atomic_store(&n->size, PROBE_SIZE);
    n->caps = (struct blk_caps){ .read_only = n->read_only, .discard = p->discards, .write_zeroes = true, .flush = true, .fua = true,
                                 .logical_block = p->block, .physical_block = p->block, .mem_align = 1, .discard_granularity = 4096 };
    return true;
}

static int co_probe_turn(void)
{
    static _Atomic unsigned turn;
    if (probe_nap) {
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + atomic_fetch_add(&turn, 7919) % probe_nap);
        return 0;
    }
    probe_waiting++;
    while (probe_hold) {
        co_event_clear(&probe_gate);
        co_wait(&probe_gate);
    }
    probe_waiting--;
    return probe_error;
}

static int co_probe_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags)
{
    int r = co_probe_turn();
    r = r ? r : probe_read_error;
    for (unsigned i = 0; !r && i < k; off += iov[i++].iov_len)
        memcpy(iov[i].iov_base, probe_data + off, iov[i].iov_len);
    return r;
}

static int co_probe_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned k, unsigned flags)
{
    int r = co_probe_turn();
    probe_fua += flags & BLK_FUA;
    for (unsigned i = 0; !r && i < k; off += iov[i++].iov_len)
        memcpy(probe_data + off, iov[i].iov_base, iov[i].iov_len);
    return r;
}

static int co_probe_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    int r = co_probe_turn();
    if (!r)
        memset(probe_data + off, 0, len);
    return r;
}

static int co_probe_discard(struct blk_node *n, uint64_t off, uint64_t len) { return co_probe_zero(n, off, len, 0); }
static int co_probe_flush(struct blk_node *n) { probe_flushes++; return co_probe_turn(); }

/* Pages of zeroes are holes. */
static int probe_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *x)
{
    static const uint8_t zero[4096];
    uint64_t page = off & ~4095ull;
    x->data = memcmp(probe_data + page, zero, 4096) != 0;
    x->zero = !x->data;
    x->len = MIN(len, page + 4096 - off);
    return 0;
}

static const struct prop probe_props[] = {
    PROP_U32(struct blk_probe, block, "block", 512, 512, 4096, "Test"), PROP_BOOL(struct blk_probe, discards, "discards", true, "Test"), PROP_END
};
static const struct blk_driver probe_driver = {
    .obj = { .name = "blockdev-probe", .desc = "Test", .base = &blk_node_class, .size = sizeof(struct blk_probe), .props = probe_props },
    .flags = BLK_ANY_LOOP, .co_open = probe_open, .co_preadv = co_probe_read, .co_pwritev = co_probe_write, .co_zero = co_probe_zero,
    .co_discard = co_probe_discard, .co_flush = co_probe_flush, .co_map = probe_map,
};
OBJ_CLASS(&probe_driver.obj);

static inline void probe_go(void)
{
    probe_hold = false;
    co_wake(&probe_gate);
    for (int i = 0; i < 20; i++)
        loop_run_once(loop_main(), 0);
}

/* Every block of 512 bytes is filled with its number. */
static inline void probe_fill(void)
{
    for (unsigned i = 0; i < PROBE_SIZE / 512; i++) {
        memset(probe_data + 512 * i, (int)(i ^ i >> 8), 512);
        st_be32(probe_data + 512 * i, i);
    }
    probe_error = probe_read_error = 0;
    probe_hold = false;
    probe_gate = (struct co_event){ 0 };
    probe_flushes = 0;
    probe_fua = 0;
}

static inline struct blk_node *sd_node_of(const char *text)
{
    struct err e = ERR_INIT;
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    struct blk_node *n = blk_node_create(o, &e);
    if (!n)
        fail_msg("%s", e.msg);
    json_decref(o);
    return n;
}

static inline struct blk_node *sd_node(const char *id, const char *more)
{
    char *text = xasprintf("{\"driver\":\"probe\",\"node-name\":\"%s\"%s}", id, more);
    struct blk_node *n = sd_node_of(text);
    free(text);
    return n;
}

static inline void sd_del(const char *id)
{
    struct err e = ERR_INIT;
    struct obj *n = obj_find("blockdev", id);
    if (n && !blk_node_delete((struct blk_node *)n, &e))
        fail_msg("%s", e.msg);
}

#endif
