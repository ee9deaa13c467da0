/* SPDX-License-Identifier: MIT */
/*
 * Keys and values in a range of a block node, safe against a power cut at any write. Sectors 0 and 1 are two versions of a header,
 * then comes a table of slots, one a key, then the values, each in one run of sectors. A value is written first, its slot after it; a
 * slot that was newer than the last flush counts only if its value's checksum is right. What is replaced or deleted is used again
 * only when a flush has made its successor, or its absence, last.
 *
 * All functions but kv_store_new() and kv_store_free(): coroutines, one at a time for a store (kv.c sees to that).
 */
#ifndef HW_NVME_KV_STORE_H
#define HW_NVME_KV_STORE_H

#include "block/blk.h"

#define KV_KEY_MAX 16u
#define KV_VALUE_MAX (2 * MiB)
#define KV_SPACE_MIN (64 * KiB)

struct kv_key { uint8_t len, b[KV_KEY_MAX]; };  /* 1 to KV_KEY_MAX bytes; the others zero */
struct kv_store;

/* A store in [base, base + space) of @blk; nothing is read yet. @space is KV_SPACE_MIN at least. */
struct kv_store *kv_store_new(struct blk *blk, uint64_t base, uint64_t space, bool read_only);
void kv_store_free(struct kv_store *s);
/* What is in memory is forgotten, and read again when it is needed: the medium changed. */
void kv_store_forget(struct kv_store *s);

/* Each returns 0 or -errno. Without a store on the medium, an empty one is made. */
int co_kv_load(struct kv_store *s);
/* -ENOSPC: no room for the value or the key. Lasts after co_kv_flush(), or at once with @fl BLK_FUA. */
int co_kv_put(struct kv_store *s, const struct kv_key *k, const void *value, uint32_t len, unsigned fl);
/* -ENOENT: no such key. *@len: of the whole value; up to @room bytes of it are read. */
int co_kv_get(struct kv_store *s, const struct kv_key *k, void *buf, uint32_t room, uint32_t *len);
int co_kv_del(struct kv_store *s, const struct kv_key *k, unsigned fl);
int co_kv_flush(struct kv_store *s);

/* After co_kv_load(). Keys are in order, shorter ones before those they begin. */
bool kv_find(const struct kv_store *s, const struct kv_key *k);
/* How many keys come before @k: where it is, or would be. */
uint32_t kv_rank(const struct kv_store *s, const struct kv_key *k);
uint32_t kv_count(const struct kv_store *s);
const struct kv_key *kv_nth(const struct kv_store *s, uint32_t n);
uint64_t kv_used(const struct kv_store *s);             /* bytes of the range that hold something */
uint64_t kv_capacity(const struct kv_store *s);         /* bytes for values. ANY, before a load, too */
uint32_t kv_keys_max(const struct kv_store *s);

#endif
