/* SPDX-License-Identifier: MIT */
#include "hw/nvme/kv_store.h"

#include <errno.h>
#include <stdlib.h>
#include "base/bits.h"
#include "base/str.h"
#include "block/pi.h"

#define SECTOR 512u
#define SLOT 64u                        /* bytes on the medium */
#define PER_SECTOR (SECTOR / SLOT)
#define TABLE_AT 4096u
#define SLOTS_MAX (1u << 20)
#define MAGIC UINT64_C(0x31565650424b5650)
#define SLOT_MAGIC 0x4c53564bu

/*
 * FREE: nothing. LIVE: a key's value. OLD: a newer one took its place, but its slot still says otherwise. DEAD: its slot is empty, but
 * not for sure on the medium.
 */
enum slot_state { FREE, LIVE, OLD, DEAD };

struct slot {
    uint64_t seq, start;                /* of the value: sector of the data area */
    struct kv_key key;
    uint8_t state;
    uint32_t len, crc;
};

struct kv_store {
    struct blk *blk;
    uint64_t base, space;
    bool read_only, loaded;
    uint32_t n_slots, n_live, unsettled;        /* unsettled: OLD or DEAD */
    uint64_t data_at, n_sectors;        /* the data area: bytes from base; sectors */
    uint64_t seq, flushed, version;     /* of the newest slot; all up to it last; of the header */
    uint64_t used, hint;                /* sectors; where the next search begins */
    struct slot *slot;
    uint32_t *order;                    /* live slots by key */
    uint64_t *map;                      /* a bit a sector of the data area */
};

static uint64_t sectors_of(uint32_t len) { return (len + (uint64_t)SECTOR - 1) / SECTOR; }

/* ---- life ---- */

struct kv_store *kv_store_new(struct blk *blk, uint64_t base, uint64_t space, bool read_only)
{
    struct kv_store *s = xnew(struct kv_store);

    *s = (struct kv_store){ .blk = blk, .base = base, .space = space, .read_only = read_only };
    s->n_slots = (uint32_t)MIN(space / 4096 & ~(uint64_t)(PER_SECTOR - 1), SLOTS_MAX);
    s->data_at = TABLE_AT + align_up((uint64_t)s->n_slots * SLOT, 4096);
    s->n_sectors = (space - s->data_at) / SECTOR;
    return s;
}

void kv_store_forget(struct kv_store *s)
{
    free(s->slot);
    free(s->order);
    free(s->map);
    s->slot = NULL;
    s->order = NULL;
    s->map = NULL;
    s->n_live = s->unsettled = 0;
    s->used = s->hint = s->seq = s->flushed = s->version = 0;
    s->loaded = false;
}

void kv_store_free(struct kv_store *s)
{
    if (!s)
        return;
    kv_store_forget(s);
    free(s);
}

/* ---- keys in order ---- */

static int key_cmp(const struct kv_key *a, const struct kv_key *b)
{
    int c = memcmp(a->b, b->b, MIN(a->len, b->len));

    return c ? c : (int)a->len - (int)b->len;
}

uint32_t kv_rank(const struct kv_store *s, const struct kv_key *k)
{
    uint32_t lo = 0, hi = s->n_live;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (key_cmp(&s->slot[s->order[mid]].key, k) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct slot *lookup(const struct kv_store *s, const struct kv_key *k)
{
    uint32_t at = kv_rank(s, k);

    return at < s->n_live && !key_cmp(&s->slot[s->order[at]].key, k) ? &s->slot[s->order[at]] : NULL;
}

static void order_add(struct kv_store *s, const struct slot *x)
{
    uint32_t at = kv_rank(s, &x->key);

    memmove(&s->order[at + 1], &s->order[at], (s->n_live++ - at) * sizeof *s->order);
    s->order[at] = (uint32_t)(x - s->slot);
}

static void order_remove(struct kv_store *s, const struct kv_key *k)
{
    uint32_t at = kv_rank(s, k);

    memmove(&s->order[at], &s->order[at + 1], (--s->n_live - at) * sizeof *s->order);
}

bool kv_find(const struct kv_store *s, const struct kv_key *k) { return lookup(s, k); }
uint32_t kv_count(const struct kv_store *s) { return s->n_live; }
const struct kv_key *kv_nth(const struct kv_store *s, uint32_t n) { return &s->slot[s->order[n]].key; }
uint64_t kv_used(const struct kv_store *s) { return s->used * SECTOR; }
uint64_t kv_capacity(const struct kv_store *s) { return s->n_sectors * SECTOR; }
uint32_t kv_keys_max(const struct kv_store *s) { return s->n_slots; }

/* ---- space ---- */

static bool taken(const struct kv_store *s, uint64_t at) { return s->map[at / 64] >> (at & 63) & 1; }

static void mark(struct kv_store *s, const struct slot *x, bool on)
{
    uint64_t n = sectors_of(x->len);

    for (uint64_t i = x->start; i < x->start + n; i++)
        s->map[i / 64] = on ? s->map[i / 64] | BIT64(i & 63) : s->map[i / 64] & ~BIT64(i & 63);
    s->used += on ? n : -n;
}

/* A free run of @n sectors in [from, to); UINT64_MAX: none. */
static uint64_t find_run(const struct kv_store *s, uint64_t from, uint64_t to, uint64_t n)
{
    for (uint64_t at = from, run = 0; at < to; at++) {
        if (!run && !(at & 63) && s->map[at / 64] == UINT64_MAX) {
            at += 63;
            continue;
        }
        run = taken(s, at) ? 0 : run + 1;
        if (run == n)
            return at + 1 - n;
    }
    return UINT64_MAX;
}

static uint64_t place(struct kv_store *s, uint64_t n)
{
    uint64_t at;

    if (!n)
        return 0;
    at = find_run(s, s->hint, s->n_sectors, n);
    if (at == UINT64_MAX)
        at = find_run(s, 0, s->n_sectors, n);
    if (at != UINT64_MAX)
        s->hint = at + n;
    return at;
}

static struct slot *free_slot(struct kv_store *s)
{
    if (s->n_live + s->unsettled == s->n_slots)
        return NULL;
    for (uint32_t i = (uint32_t)(s->seq % s->n_slots), n = 0; n < s->n_slots; n++, i = (i + 1) % s->n_slots)
        if (s->slot[i].state == FREE)
            return &s->slot[i];
    return NULL;
}

/* ---- the medium ---- */

static int co_write(struct kv_store *s, uint64_t at, const void *buf, uint64_t len)
{
    struct iovec v = { (void *)(uintptr_t)buf, len };

    return co_blk_pwritev(s->blk, s->base + at, len, &v, 1, 0);
}

static int co_read(struct kv_store *s, uint64_t at, void *buf, uint64_t len)
{
    struct iovec v = { buf, len };

    return co_blk_preadv(s->blk, s->base + at, len, &v, 1, 0);
}

static void slot_put(const struct slot *x, uint8_t *b)
{
    memset(b, 0, SLOT);
    if (x->state != LIVE && x->state != OLD)
        return;
    st_le32(b, SLOT_MAGIC);
    st_le64(b + 8, x->seq);
    memcpy(b + 16, x->key.b, KV_KEY_MAX);
    b[32] = x->key.len;
    st_le32(b + 36, x->len);
    st_le64(b + 40, x->start);
    st_le32(b + 48, x->crc);
    st_le32(b + 4, pi_crc32c(0, b + 8, SLOT - 8));
}

static bool slot_get(const struct kv_store *s, const uint8_t *b, struct slot *x)
{
    if (ld_le32(b) != SLOT_MAGIC || ld_le32(b + 4) != pi_crc32c(0, b + 8, SLOT - 8))
        return false;
    *x = (struct slot){ .seq = ld_le64(b + 8), .key.len = b[32], .len = ld_le32(b + 36), .start = ld_le64(b + 40), .crc = ld_le32(b + 48) };
    memcpy(x->key.b, b + 16, KV_KEY_MAX);
    return x->key.len && x->key.len <= KV_KEY_MAX && x->len <= KV_VALUE_MAX && range_ok(x->start, sectors_of(x->len), s->n_sectors);
}

/* The sector of the table that @x is in. */
static int co_slot_write(struct kv_store *s, const struct slot *x)
{
    uint32_t first = (uint32_t)(x - s->slot) / PER_SECTOR * PER_SECTOR;
    uint8_t b[SECTOR];

    for (unsigned i = 0; i < PER_SECTOR; i++)
        slot_put(&s->slot[first + i], b + i * SLOT);
    return co_write(s, TABLE_AT + (uint64_t)first * SLOT, b, SECTOR);
}

static int co_header_write(struct kv_store *s)
{
    uint8_t b[SECTOR] = { 0 };

    s->version++;
    st_le64(b, MAGIC);
    st_le64(b + 16, s->version);
    st_le64(b + 24, s->flushed);
    st_le32(b + 32, s->n_slots);
    st_le32(b + 8, pi_crc32c(0, b + 16, SECTOR - 16));
    return co_write(s, (s->version & 1) * SECTOR, b, SECTOR);
}

/* The newer of the two headers; false: there is no store, or one of another size. */
static int co_header_read(struct kv_store *s, bool *there)
{
    uint8_t b[2 * SECTOR];
    int e = co_read(s, 0, b, sizeof b);

    *there = false;
    for (unsigned i = 0; !e && i < 2; i++) {
        const uint8_t *h = b + i * SECTOR;

        if (ld_le64(h) != MAGIC || ld_le32(h + 8) != pi_crc32c(0, h + 16, SECTOR - 16) || ld_le32(h + 32) != s->n_slots ||
            (*there && ld_le64(h + 16) < s->version))
            continue;
        s->version = ld_le64(h + 16);
        s->flushed = ld_le64(h + 24);
        *there = true;
    }
    return e;
}

/* ---- settling ---- */

/*
 * One flush: what was dead is free, what was written lasts; then the slots of what is old are emptied. An old slot goes only after a
 * flush that made its successor last, and its place is free only after another.
 */
static int co_settle(struct kv_store *s)
{
    int e = co_blk_flush(s->blk);

    if (e || s->read_only)
        return e;
    if (s->flushed != s->seq) {
        s->flushed = s->seq;
        e = co_header_write(s);
    }
    for (uint32_t i = 0; !e && s->unsettled && i < s->n_slots; i++) {
        struct slot *x = &s->slot[i];

        if (x->state == DEAD) {
            mark(s, x, false);
            x->state = FREE;
            s->unsettled--;
        } else if (x->state == OLD) {
            x->state = DEAD;
            e = co_slot_write(s, x);
            if (e)
                x->state = OLD;
        }
    }
    return e;
}

static int co_settle_all(struct kv_store *s)
{
    int e = 0;

    for (unsigned i = 0; !e && s->unsettled && i < 2; i++)
        e = co_settle(s);
    return e;
}

int co_kv_flush(struct kv_store *s) { return co_settle(s); }

/* ---- loading ---- */

static int co_make(struct kv_store *s)
{
    int e;

    if (s->read_only)
        return 0;                       /* an empty one */
    e = co_blk_zero(s->blk, s->base + TABLE_AT, s->data_at - TABLE_AT, 0);
    e = e ? e : co_blk_flush(s->blk);
    e = e ? e : co_header_write(s);
    return e ? e : co_blk_flush(s->blk);
}

static bool co_value_right(struct kv_store *s, const struct slot *x)
{
    uint8_t *buf = malloc(x->len + 1);
    bool ok = buf && !co_read(s, s->data_at + x->start * SECTOR, buf, x->len) && pi_crc32c(0, buf, x->len) == x->crc;

    free(buf);
    return ok;
}

static bool overlaps(const struct kv_store *s, const struct slot *x)
{
    for (uint64_t i = x->start; i < x->start + sectors_of(x->len); i++)
        if (taken(s, i))
            return true;
    return false;
}

static int by_age(const void *a, const void *b)
{
    const struct slot *x = *(const struct slot *const *)a, *y = *(const struct slot *const *)b;

    return x->seq < y->seq ? 1 : x->seq > y->seq ? -1 : 0;
}

/*
 * The newest first. What is whole and has no newer one lives. What has is old; what is torn never was, and its slot is emptied before a
 * header says that everything lasts. Neither holds a place.
 */
static int co_sort_out(struct kv_store *s, struct slot **found, uint32_t n)
{
    int e = 0;

    qsort(found, n, sizeof *found, by_age);
    for (uint32_t i = 0; !e && i < n; i++) {
        struct slot *x = found[i];
        bool old = lookup(s, &x->key);

        s->seq = MAX(s->seq, x->seq);
        if (!old && !overlaps(s, x) && (x->seq <= s->flushed || co_value_right(s, x))) {
            x->state = LIVE;
            mark(s, x, true);
            order_add(s, x);
            continue;
        }
        x->state = old ? OLD : DEAD;
        x->len = 0;
        s->unsettled++;
    }
    for (uint32_t i = 0; !e && !s->read_only && i < n; i++)
        if (found[i]->state == DEAD)
            e = co_slot_write(s, found[i]);
    return e || s->read_only ? e : co_settle_all(s);
}

static int co_table_read(struct kv_store *s)
{
    uint64_t bytes = (uint64_t)s->n_slots * SLOT, chunk = 256 * KiB;
    struct slot **found = xcalloc(s->n_slots, sizeof *found);
    uint8_t *buf = xcalloc(1, MIN(bytes, chunk));
    uint32_t n = 0;
    int e = 0;

    for (uint64_t at = 0; !e && at < bytes; at += chunk) {
        uint64_t part = MIN(chunk, bytes - at);

        e = co_read(s, TABLE_AT + at, buf, part);
        for (uint64_t i = 0; !e && i < part; i += SLOT) {
            struct slot *x = &s->slot[(at + i) / SLOT];

            if (slot_get(s, buf + i, x))
                found[n++] = x;
            else
                *x = (struct slot){ .state = FREE };
        }
    }
    e = e ? e : co_sort_out(s, found, n);
    free(buf);
    free(found);
    return e;
}

int co_kv_load(struct kv_store *s)
{
    bool there;
    int e;

    if (s->loaded)
        return 0;
    s->slot = xcalloc(s->n_slots, sizeof *s->slot);
    s->order = xcalloc(s->n_slots, sizeof *s->order);
    s->map = xcalloc(s->n_sectors / 64 + 1, sizeof *s->map);
    e = co_header_read(s, &there);
    if (!e)
        e = there ? co_table_read(s) : co_make(s);
    if (e)
        kv_store_forget(s);
    s->loaded = !e;
    return e;
}

/* ---- keys and values ---- */

/* A slot and a place for @len bytes; where there is none, what only waits for a flush is made free. */
static int co_room(struct kv_store *s, uint32_t len, struct slot **x, uint64_t *at)
{
    for (unsigned i = 0;; i++) {
        bool more = s->unsettled != 0;
        int e;

        *x = free_slot(s);
        *at = *x ? place(s, sectors_of(len)) : UINT64_MAX;
        if (*at != UINT64_MAX)
            return 0;
        if (!more || i == 2)
            return -ENOSPC;
        e = co_settle(s);
        if (e)
            return e;
    }
}

static int co_value_write(struct kv_store *s, uint64_t at, const void *value, uint32_t len)
{
    uint32_t whole = len / SECTOR * SECTOR;
    uint8_t tail[SECTOR] = { 0 };
    int e = whole ? co_write(s, s->data_at + at * SECTOR, value, whole) : 0;

    memcpy(tail, (const uint8_t *)value + whole, len - whole);
    return e || whole == len ? e : co_write(s, s->data_at + at * SECTOR + whole, tail, SECTOR);
}

int co_kv_put(struct kv_store *s, const struct kv_key *k, const void *value, uint32_t len, unsigned fl)
{
    struct slot *x, *old;
    uint64_t at;
    int e = co_room(s, len, &x, &at);

    e = e ? e : co_value_write(s, at, value, len);
    if (e)
        return e;
    old = lookup(s, k);
    *x = (struct slot){ .seq = ++s->seq, .start = at, .key = *k, .state = LIVE, .len = len, .crc = pi_crc32c(0, value, len) };
    mark(s, x, true);
    s->unsettled++;
    e = co_slot_write(s, x);
    if (e) {
        x->state = OLD;                 /* if it got there, it will be emptied */
        return e;
    }
    if (old) {
        order_remove(s, k);
        old->state = OLD;
    } else {
        s->unsettled--;
    }
    order_add(s, x);
    return fl & BLK_FUA ? co_blk_flush(s->blk) : 0;
}

int co_kv_get(struct kv_store *s, const struct kv_key *k, void *buf, uint32_t room, uint32_t *len)
{
    const struct slot *x = lookup(s, k);

    if (!x)
        return -ENOENT;
    *len = x->len;
    return MIN(room, x->len) ? co_read(s, s->data_at + x->start * SECTOR, buf, MIN(room, x->len)) : 0;
}

/* An older version whose slot may be on the medium would come back. */
static bool has_older(const struct kv_store *s, const struct kv_key *k)
{
    for (uint32_t i = 0; s->unsettled && i < s->n_slots; i++)
        if ((s->slot[i].state == OLD || s->slot[i].state == DEAD) && !key_cmp(&s->slot[i].key, k))
            return true;
    return false;
}

int co_kv_del(struct kv_store *s, const struct kv_key *k, unsigned fl)
{
    struct slot *x = lookup(s, k);
    int e = 0;

    if (!x)
        return -ENOENT;
    if (has_older(s, k))
        e = co_settle_all(s);
    if (e)
        return e;
    x->state = DEAD;
    e = co_slot_write(s, x);
    if (e) {
        x->state = LIVE;
        return e;
    }
    order_remove(s, k);
    s->unsettled++;
    return fl & BLK_FUA ? co_blk_flush(s->blk) : 0;
}
