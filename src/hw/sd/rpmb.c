/* SPDX-License-Identifier: MIT */
/*
 * The replay protected memory block (e.MMC 6.6.22). CMD25 brings frames with a request, CMD18 takes frames with its answer; a MAC with a
 * key that is programmed once covers bytes 228 to 511 of all frames. Key and write counter are kept in the first block of rpmb-state=.
 */
#include <errno.h>
#include "base/bits.h"
#include "crypto/cipher.h"
#include "hw/sd/sd.h"

enum { F_MAC = 196, F_DATA = 228, F_NONCE = 484, F_COUNTER = 500, F_ADDRESS = 504, F_BLOCKS = 506, F_RESULT = 508, F_TYPE = 510, FRAME = 512,
       DATA = 256, MAC = 32 };
enum { REQ_KEY = 1, REQ_COUNTER = 2, REQ_WRITE = 3, REQ_READ = 4, REQ_RESULT = 5 };
enum { OK, GENERAL = 1, WRONG_MAC = 2, WRONG_COUNTER = 3, WRONG_ADDRESS = 4, NOT_WRITTEN = 5, NOT_READ = 6, NO_KEY = 7, EXPIRED = 0x80 };
enum { KEPT_MAGIC = 0, KEPT_COUNTER = 8, KEPT_KEY = 16 };       /* the kept block */
static const char magic[8] = "RPMBkey";

bool sd_rpmb_open(struct sd_card *c, struct err *e)
{
    struct blk_node *node = (struct blk_node *)c->rpmb_node;

    if (!node)
        return true;
    c->rpmb.blk = blk_open(node, blk_perm_rw(node), BLK_PERM_READ, c->dev.dom, c->dev.obj.id, e);
    if (!c->rpmb.blk)
        return false;
    return blk_size(c->rpmb.blk) >= SD_BLOCK || err_set(e, ERR_VALUE, "rpmb-state '%s' has %llu bytes, but must have 512", c->rpmb_node->id,
                                                        (unsigned long long)blk_size(c->rpmb.blk));
}

/* Between @f and the bytes of @iov from @at on, a frame of them. */
static void frame_copy(uint8_t *f, const struct iovec *iov, unsigned n, uint64_t at, bool out)
{
    uint64_t left = FRAME;

    for (unsigned i = 0; i < n && left; i++) {
        if (at >= iov[i].iov_len) {
            at -= iov[i].iov_len;
            continue;
        }
        uint64_t k = MIN(left, iov[i].iov_len - at);
        uint8_t *p = (uint8_t *)iov[i].iov_base + at;
        memcpy(out ? p : f, out ? f : p, k);
        f += k;
        left -= k;
        at = 0;
    }
}

/* ---- what is kept ---- */

static int co_load(struct sd_card *c)
{
    uint8_t b[SD_BLOCK];
    struct iovec v = { b, sizeof b };
    int r;

    if (!c->rpmb.blk || c->rpmb.loaded)
        return 0;
    r = co_blk_preadv(c->rpmb.blk, 0, sizeof b, &v, 1, 0);
    if (r)
        return r;
    c->rpmb.loaded = true;
    if (memcmp(b, magic, sizeof magic))
        return 0;
    c->rpmb.key_set = true;
    c->rpmb.counter = ld_be32(b + KEPT_COUNTER);
    memcpy(c->rpmb.key, b + KEPT_KEY, MAC);
    return 0;
}

static int co_keep(struct sd_card *c, uint32_t counter, const uint8_t *key)
{
    uint8_t b[SD_BLOCK] = { 0 };
    struct iovec v = { b, sizeof b };

    if (!c->rpmb.blk)
        return 0;
    memcpy(b, magic, sizeof magic);
    st_be32(b + KEPT_COUNTER, counter);
    memcpy(b + KEPT_KEY, key, MAC);
    return co_blk_pwritev(c->rpmb.blk, 0, sizeof b, &v, 1, BLK_FUA);
}

/* ---- requests ---- */

static uint16_t last_type(const struct sd_card *c) { return ld_be16(c->rpmb.frames[0] + F_TYPE); }
static bool on_rpmb(const struct sd_card *c, uint32_t address, uint32_t n) { return range_ok((uint64_t)address * DATA, (uint64_t)n * DATA, c->rpmb_size); }

static bool mac_right(const struct sd_card *c, uint32_t n)
{
    struct hash_mac *m = hash_mac_new("sha256", c->rpmb.key, MAC);
    uint8_t want[MAC];

    for (uint32_t i = 0; i < n; i++)
        hash_mac_add(m, c->rpmb.frames[i] + F_DATA, FRAME - F_DATA);
    hash_mac_end(m, want);
    return !memcmp(want, c->rpmb.frames[n - 1] + F_MAC, MAC);
}

static uint16_t co_program_key(struct sd_card *c)
{
    if (!c->rpmb.reliable || c->rpmb.total != 1)
        return GENERAL;
    if (c->rpmb.key_set || co_keep(c, 0, c->rpmb.frames[0] + F_MAC))
        return NOT_WRITTEN;
    memcpy(c->rpmb.key, c->rpmb.frames[0] + F_MAC, MAC);
    c->rpmb.counter = 0;
    c->rpmb.key_set = true;
    return OK;
}

/* The data is there before the counter moves: after a cut in between the host's next try is the same write. */
static uint16_t co_write_data(struct sd_card *c)
{
    const uint8_t *f = c->rpmb.frames[c->rpmb.total - 1];
    uint32_t n = c->rpmb.total, address = ld_be16(f + F_ADDRESS);
    struct iovec v[2] = { { c->rpmb.frames[0] + F_DATA, DATA }, { c->rpmb.frames[1] + F_DATA, DATA } };

    if (!c->rpmb.key_set)
        return NO_KEY;
    if (c->rpmb.counter == UINT32_MAX)
        return NOT_WRITTEN;
    if (!c->rpmb.reliable || ld_be16(f + F_BLOCKS) != n)
        return GENERAL;
    if (!on_rpmb(c, address, n))
        return WRONG_ADDRESS;
    if (!mac_right(c, n))
        return WRONG_MAC;
    if (ld_be32(f + F_COUNTER) != c->rpmb.counter)
        return WRONG_COUNTER;
    if (sd_write_protected(c) || co_blk_pwritev(c->blk, c->base + (uint64_t)address * DATA, (uint64_t)n * DATA, v, n, BLK_FUA) ||
        co_keep(c, c->rpmb.counter + 1, c->rpmb.key))
        return NOT_WRITTEN;
    c->rpmb.counter++;
    return OK;
}

static void co_request(struct sd_card *c)
{
    uint16_t type = last_type(c);

    c->rpmb.request = type;
    if (type == REQ_KEY || type == REQ_WRITE) {
        c->rpmb.result = c->rpmb.total > ARRAY_SIZE(c->rpmb.frames) ? GENERAL : type == REQ_KEY ? co_program_key(c) : co_write_data(c);
        c->rpmb.done = type;
    }
}

int co_sd_rpmb_write(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len)
{
    uint32_t gen = c->gen;
    int r = co_load(c);

    if (r || gen != c->gen)
        return r;
    for (uint64_t at = 0; at < len; at += FRAME, c->rpmb.frame_count++)
        if (c->rpmb.frame_count < ARRAY_SIZE(c->rpmb.frames))
            frame_copy(c->rpmb.frames[c->rpmb.frame_count], iov, n, at, false);
    c->rpmb.frame_count = MIN(c->rpmb.frame_count, (uint32_t)ARRAY_SIZE(c->rpmb.frames));
    if (c->pos + len == (uint64_t)c->rpmb.total * FRAME)
        co_request(c);
    return 0;
}

/* ---- answers ---- */

/* Frame @i of the answer but its MAC. */
static int co_answer(struct sd_card *c, uint32_t i, uint8_t *f)
{
    const uint8_t *req = c->rpmb.frames[0];
    uint16_t type = c->rpmb.request, result = c->rpmb.key_set ? OK : NO_KEY;
    uint32_t address = ld_be16(req + F_ADDRESS);
    struct iovec v = { f + F_DATA, DATA };

    memset(f, 0, FRAME);
    switch (type) {
    case REQ_COUNTER:
        st_be32(f + F_COUNTER, c->rpmb.counter);
        memcpy(f + F_NONCE, req + F_NONCE, F_COUNTER - F_NONCE);
        break;
    case REQ_READ:
        memcpy(f + F_NONCE, req + F_NONCE, F_COUNTER - F_NONCE);
        st_be16(f + F_ADDRESS, (uint16_t)address);
        st_be16(f + F_BLOCKS, (uint16_t)c->rpmb.total);
        if (result == OK && !(on_rpmb(c, address, c->rpmb.total) && i < c->rpmb.total))
            result = WRONG_ADDRESS;
        if (result == OK && co_blk_preadv(c->blk, c->base + (uint64_t)(address + i) * DATA, DATA, &v, 1, 0))
            result = NOT_READ;
        break;
    case REQ_RESULT: case REQ_KEY: case REQ_WRITE:
        type = c->rpmb.done;
        result = type ? c->rpmb.result : GENERAL;
        if (type == REQ_WRITE) {
            st_be16(f + F_ADDRESS, (uint16_t)ld_be16(c->rpmb.frames[1] + F_ADDRESS));
            st_be32(f + F_COUNTER, c->rpmb.counter);
        }
        break;
    default:
        result = GENERAL;
    }
    st_be16(f + F_TYPE, (uint16_t)(type << 8));
    st_be16(f + F_RESULT, (uint16_t)(result | (c->rpmb.counter == UINT32_MAX ? EXPIRED : 0)));
    return 0;
}

/* The MAC stands in the last frame, over all of them: they are made again for it, so that nothing is kept from one to the next. */
static void co_sign(struct sd_card *c, uint8_t *last)
{
    uint32_t gen = c->gen;
    struct hash_mac *m = hash_mac_new("sha256", c->rpmb.key, MAC);
    uint8_t f[FRAME];

    for (uint32_t i = 0; i + 1 < c->rpmb.total && gen == c->gen; i++) {
        co_answer(c, i, f);
        hash_mac_add(m, f + F_DATA, FRAME - F_DATA);
    }
    hash_mac_add(m, last + F_DATA, FRAME - F_DATA);
    hash_mac_end(m, last + F_MAC);
}

int co_sd_rpmb_read(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len)
{
    uint32_t gen = c->gen;
    uint8_t f[FRAME];
    int r = co_load(c);

    for (uint64_t at = 0; !r && gen == c->gen && at < len; at += FRAME) {
        uint32_t i = (uint32_t)((c->pos + at) / FRAME);
        co_answer(c, i, f);
        if (c->rpmb.key_set && i + 1 == c->rpmb.total)
            co_sign(c, f);
        frame_copy(f, iov, n, at, true);
    }
    return r;
}
