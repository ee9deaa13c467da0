/* SPDX-License-Identifier: MIT */
/*
 * Between the files of the qcow2 driver. Everything here lives on the node's home loop, so that only an await can let
 * another request in between.
 *
 * The order of writes, which is all there is to crash safety:
 *   1. guest data goes to clusters that nothing on the disk refers to, or in place; refcounts that grow
 *   2. barrier; refcount table; barrier; L2 tables; barrier; L1 table; barrier
 *   3. clusters that became free lose their refcount, and only then may be used again
 * Tables are changed in memory and written by q2_sync(), which copies what is dirty in L2 and L1 before step 1 is written. A cut
 * anywhere leaves at worst clusters with a refcount that nothing refers to.
 */
#ifndef BLOCK_QCOW2_INT_H
#define BLOCK_QCOW2_INT_H

#include "block/driver.h"
#include "block/luks.h"
#include "block/qcow2_spec.h"

/* ---- tables in memory, a slice at a time ---- */
struct q2_slice {
    struct list lru;
    struct q2_slice *hash_next;
    uint64_t off;                   /* in the file */
    bool dirty, loading, failed;
    unsigned pins;                  /* while pinned it stays; writing counts as one */
    unsigned age;                   /* that of the cache when it was last asked for */
    struct co_queue waiting;        /* for the load */
    uint8_t data[];                 /* as in the file */
};
struct q2_cache {
    size_t slice_size, count, max;
    unsigned age;                   /* how often it was cleaned */
    struct q2_slice **hash;
    size_t buckets;                 /* a power of two */
    struct list lru;                /* least recently used first */
    size_t dirty;
    uint64_t hits, misses;
};

/* A guest range that a request is allocating: others wait for it. */
struct q2_alloc { struct list link; uint64_t start, end; struct co_queue waiting; };
/* A request in flight: clusters that are freed wait for the older ones. */
struct q2_req { struct list link; uint64_t seq; };
/* Clusters that lost their last reference, waiting for step 3; and why: what the guest discards, what a snapshot held, whatever else. */
enum q2_cause { Q2_BY_REQUEST, Q2_BY_SNAPSHOT, Q2_BY_OTHER, Q2_CAUSES };
struct q2_free { uint64_t off, len; uint64_t seq; enum q2_cause cause; bool tried; /* it has failed once */ };

struct q2_ext { struct q2_ext *next; uint32_t type, len; uint8_t data[]; };     /* unknown header extension, kept */
struct q2_snapshot {
    uint64_t l1_off, vm_clock, vm_size, disk_size;
    uint32_t l1_size, sec, nsec, extra_len;
    char *id, *name;
    uint8_t *extra;                 /* what lies beyond the fields we know */
    bool lost;                      /* its L1 table cannot be where the entry says */
};
/* Where the persistent bitmaps are. */
struct q2_bitmaps { uint32_t count; uint64_t dir_size, dir_off; };

struct qcow2 {
    struct blk_node node;
    /* options */
    json_t *file, *backing, *data_file;
    uint64_t cache_size, l2_cache_size, l2_entry_size, refcount_cache_size;
    uint64_t clean_interval;        /* s; 0: never */
    int lazy_refcounts, overlap_check;
    enum tri pass_discard[Q2_CAUSES];
    bool discard_no_unref;
    bool sparse, sparse_known;      /* many of its clusters are holes of the file below, when it was first asked */
    bool repair;                    /* set by tools: open it although it is marked corrupt or dirty */
    bool lost;                      /* then: what the header leads to is not there, and forgotten */
    /* header */
    unsigned version, cluster_bits, ref_order, crypt, compression;
    uint64_t cluster_size, incompat, compat, autoclear;
    uint32_t header_len;
    char *backing_name, *backing_fmt, *data_name;
    struct q2_ext *exts;
    struct q2_bitmaps bitmaps;
    bool bitmaps_loaded;            /* into the node */
    uint64_t crypt_off, crypt_len;
    uint8_t *more_header;           /* fields beyond those that we know, kept */
    /* derived */
    bool extl2, has_data_file, raw_data;
    unsigned entry_size, l2_bits, subs, sub_bits;       /* l2_bits: log2 of entries in a table; subs: subclusters of a cluster */
    /* tables */
    uint64_t *l1;                   /* host order */
    uint32_t l1_size;
    uint64_t l1_off;
    uint8_t *l1_dirty;              /* a byte for each 512 bytes of L1 */
    bool l1_any_dirty;
    uint64_t *rt;                   /* refcount table, host order */
    uint32_t rt_size, rt_clusters;  /* entries; clusters */
    uint64_t rt_off;
    uint8_t *rt_dirty;
    bool rt_any_dirty;
    struct q2_cache l2c, rbc;
    struct timer cleaning;          /* of both, where ->clean_interval */
    struct q2_snapshot *snaps;
    uint32_t nsnaps, snaps_cut;     /* in memory; entries behind them that nothing can be made of */
    uint64_t snap_off, snap_bytes;
    uint64_t *meta;                 /* hash set of metadata clusters: offset, 0 for empty */
    size_t meta_cap, meta_count;
    /* space */
    uint64_t free_hint;             /* cluster number */
    uint64_t high_water;            /* bytes from here on never were used: they read as zeroes */
    bool fresh;                     /* the last allocation lies beyond it all: it reads as zeroes */
    uint64_t comp_off;              /* where the next compressed cluster may be packed; 0: nowhere */
    struct q2_free *frees;
    size_t nfrees, frees_cap;
    uint64_t free_bytes;
    /* concurrency */
    struct list reqs, allocs;
    uint64_t seq;
    struct co_mutex alloc_lock, table_lock, sync_lock, blocks_lock;
    struct co_queue quiet;          /* waits for no request in flight */
    struct co_queue gate;           /* requests wait here while somebody is exclusive */
    bool exclusive;
    uint64_t sync_wanted, sync_done;
    uint64_t writes, durable;       /* writes to the file; of those, how many were there at the last barrier's begin */
    /* state */
    bool corrupt, broken;           /* broken: metadata could not be kept consistent: no more writes */
    uint8_t *comp_cache;            /* the last decompressed cluster */
    uint64_t comp_cache_entry;      /* its L2 entry, 0: none */
    char *key_secret;               /* option encrypt.key-secret */
    int encrypt_format;             /* option: enum Q2_CRYPT_* or none */
    bool header_only;               /* set by tools: encrypted data is not read */
    struct luks *luks;              /* NULL: not encrypted */
};

static inline struct qcow2 *q2_of(struct blk_node *n) { return (struct qcow2 *)n; }
static inline struct blk_node *q2_file(const struct qcow2 *s) { return s->node.child.node; }
/* Where guest data is. */
static inline struct blk_node *q2_data(const struct qcow2 *s) { return s->has_data_file ? s->node.data.node : q2_file(s); }
static inline uint64_t q2_in_cluster(const struct qcow2 *s, uint64_t off) { return off & (s->cluster_size - 1); }
static inline uint64_t q2_size(const struct qcow2 *s) { return atomic_load(&s->node.size); }
static inline uint64_t q2_file_size(const struct qcow2 *s) { return atomic_load(&q2_file(s)->size); }
static inline uint64_t q2_l2_covers(const struct qcow2 *s) { return s->cluster_size << s->l2_bits; }

/* ---- qcow2_io.c: the file below. 0 or -errno ---- */
/* Beyond the end of the file there are zeroes. */
int co_q2_pread(struct qcow2 *s, uint64_t off, void *buf, uint64_t len);
/* No overlap check: the caller knows that it is its own table. */
int co_q2_pwrite(struct qcow2 *s, uint64_t off, const void *buf, uint64_t len);
int co_q2_write_zeroes(struct qcow2 *s, uint64_t off, uint64_t len);
/* Everything written before is on the disk after. */
int co_q2_barrier(struct qcow2 *s);
/* Requests in flight. */
void co_q2_enter(struct qcow2 *s, struct q2_req *r);
void q2_leave(struct qcow2 *s, struct q2_req *r);
/* Alone: no request in flight until released. */
void co_q2_lock_all(struct qcow2 *s);
void q2_unlock_all(struct qcow2 *s);
/* The image contradicts itself: says so once, marks it corrupt, refuses further writes. Returns -EIO. */
int co_q2_corrupt(struct qcow2 *s, uint64_t off, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ---- qcow2_header.c ---- */
bool co_q2_header_read(struct qcow2 *s, struct err *e) MUST_CHECK;
/* Writes header, extensions and backing file name as @s says. -ENAMETOOLONG: more than a cluster, or beside the old ones in a small one. */
int co_q2_header_write(struct qcow2 *s);
/* The same into @buf of a cluster, which is to take the place of @old (NULL: of nothing). */
int q2_header_build(struct qcow2 *s, uint8_t *buf, const uint8_t *old);
int co_q2_set_incompat(struct qcow2 *s, uint64_t set, uint64_t clear);
void q2_header_free(struct qcow2 *s);

/* ---- qcow2_cache.c ---- */
bool q2_cache_init(struct q2_cache *c, size_t slice_size, uint64_t bytes, struct err *e) MUST_CHECK;
void q2_cache_free(struct q2_cache *c);
/* The slice that holds @off, pinned; read if need be. */
int co_q2_cache_get(struct qcow2 *s, struct q2_cache *c, uint64_t off, struct q2_slice **out);
void q2_cache_put(struct q2_slice *sl);
void q2_cache_dirty(struct q2_cache *c, struct q2_slice *sl);
/* Frees what was not asked for since the last time, and is in the file. */
void q2_cache_clean(struct q2_cache *c);
/* Forgets what lies in [off, off + len), written or not. */
void q2_cache_drop(struct q2_cache *c, uint64_t off, uint64_t len);

/* ---- qcow2_meta.c: which clusters hold metadata (overlap checks) ---- */
bool q2_meta_add(struct qcow2 *s, uint64_t off, uint64_t len);
void q2_meta_del(struct qcow2 *s, uint64_t off, uint64_t len);
bool q2_meta_has(const struct qcow2 *s, uint64_t off, uint64_t len);
/* All that the tables in memory tell of, and nothing else. */
bool q2_meta_note(struct qcow2 *s) MUST_CHECK;

/* ---- qcow2_ref.c ---- */
int co_q2_ref_get(struct qcow2 *s, uint64_t cluster, uint64_t *out);
/* Sets one refcount, whose block is there: for repairs. */
int co_q2_ref_put(struct qcow2 *s, uint64_t cluster, uint64_t v);
/* Adds @delta to the refcount of every cluster that [off, off + len) touches. */
int co_q2_ref_add(struct qcow2 *s, uint64_t off, uint64_t len, int64_t delta);
/* Space of @n clusters in a row, refcount 1; fewer if @n_got is given and that many are not there at once. */
int co_q2_alloc(struct qcow2 *s, uint64_t n, uint64_t *n_got, uint64_t *off);
/* The same for metadata, noted as such. */
int co_q2_alloc_meta(struct qcow2 *s, uint64_t bytes, uint64_t *off);
/* Gives back what never was referred to. */
void co_q2_unalloc(struct qcow2 *s, uint64_t off, uint64_t len);
/* What the tables in memory no longer refer to: freed once those on the disk do not either. */
void q2_free_later(struct qcow2 *s, uint64_t off, uint64_t len, enum q2_cause cause);
/* What is freed for @cause is given back to the file below. */
bool q2_passes_discard(const struct qcow2 *s, enum q2_cause cause);
int co_q2_apply_frees(struct qcow2 *s, uint64_t before_seq);
/* For compressed data: @len bytes, packed. Refcounts of the touched clusters grow. */
int co_q2_alloc_bytes(struct qcow2 *s, uint64_t len, uint64_t *off);
void q2_ref_set_raw(uint8_t *block, unsigned order, uint64_t i, uint64_t v);
static inline unsigned q2_rb_bits(const struct qcow2 *s) { return s->cluster_bits + 3 - s->ref_order; }   /* log2 of entries of a block */
static inline uint64_t q2_ref_max(const struct qcow2 *s) { return s->ref_order == 6 ? UINT64_MAX : BIT64(1u << s->ref_order) - 1; }

/* ---- qcow2_sync.c ---- */
/* Everything in memory is written, in order, and on the disk. */
int co_q2_sync(struct qcow2 *s);
/* Makes what is dirty in @c clean, so that it can be dropped. */
int co_q2_sync_evict(struct qcow2 *s, struct q2_cache *c);
/* Anything in memory that the disk lacks. */
bool q2_is_dirty(const struct qcow2 *s);

/* ---- qcow2_map.c ---- */
/* An L2 entry taken apart. A standard entry has one subcluster. */
struct q2_ent {
    bool has_host, copied, compressed;
    uint64_t host;                  /* offset in the data file; of a compressed cluster: the descriptor */
    uint32_t alloc, zero;           /* bits by subcluster */
};
enum q2_kind { Q2_BELOW, Q2_ZEROES, Q2_NORMAL, Q2_PACKED };     /* below: the backing file's */
struct q2_run { enum q2_kind kind; uint64_t len, host; uint64_t desc; bool has_host; };

int co_q2_ent_get(struct qcow2 *s, uint64_t guest, struct q2_ent *out);
/* For changing: makes an L2 table that is ours alone. */
int co_q2_ent_set(struct qcow2 *s, uint64_t guest, const struct q2_ent *ent);
/* What a read at @guest meets, and for how long. */
int co_q2_map(struct qcow2 *s, uint64_t guest, uint64_t len, struct q2_run *out);
int q2_ent_decode(const struct qcow2 *s, const uint8_t *p, struct q2_ent *out);
void q2_ent_encode(const struct qcow2 *s, const struct q2_ent *ent, uint8_t *p);
static inline uint32_t q2_all_subs(const struct qcow2 *s) { return s->subs == 32 ? UINT32_MAX : 1; }
/* Byte range of a compressed cluster's sectors. */
void q2_packed_range(const struct qcow2 *s, uint64_t desc, uint64_t *off, uint64_t *len);
/* Frees what @ent held. */
void q2_ent_release(struct qcow2 *s, const struct q2_ent *ent, enum q2_cause cause);

/* ---- qcow2_read.c, qcow2_write.c, qcow2_zero.c ---- */
int co_q2_preadv(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_q2_pwritev(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_q2_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags);
int co_q2_discard(struct blk_node *n, uint64_t off, uint64_t len);
int co_q2_block_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out);
/* Without registering as a request: from inside one. */
int co_q2_read_inner(struct qcow2 *s, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);
int co_q2_write_inner(struct qcow2 *s, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);
int co_q2_zero_inner(struct qcow2 *s, uint64_t off, uint64_t len, unsigned flags);
/* Whole clusters show what is below, and their space is free. Alone. */
int co_q2_forget(struct qcow2 *s, uint64_t off, uint64_t len);
/* Guest data, as it is to be in the file; @event: what is told of it. */
int co_q2_write_data(struct qcow2 *s, uint64_t host, uint64_t len, const struct iovec *iov, unsigned n, enum blk_event event);
/* Due before a request that changes something. */
int co_q2_before_change(struct qcow2 *s);
/* Guest range [start, end) is this request's alone until q2_alloc_end(); false: waited for another, look again. */
bool co_q2_alloc_begin(struct qcow2 *s, struct q2_alloc *a, uint64_t start, uint64_t end);
void q2_alloc_end(struct q2_alloc *a);

/* ---- qcow2_pack.c: compressed clusters ---- */
int co_q2_packed_read(struct qcow2 *s, uint64_t desc, uint64_t in_cluster, uint64_t len, const struct iovec *iov, unsigned niov);
int co_q2_write_packed(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);

/* ---- qcow2_resize.c ---- */
int co_q2_resize(struct blk_node *n, uint64_t size);
int co_q2_preallocate(struct blk_node *n, uint64_t from, enum blk_prealloc how);
int co_q2_preallocate_inner(struct qcow2 *s, uint64_t from, enum blk_prealloc how);

/* ---- qcow2_snap.c ---- */
/* What is damaged in the table of snapshots keeps nobody from reading the disk. */
bool co_q2_snaps_read(struct qcow2 *s, struct err *e) MUST_CHECK;
bool q2_snaps_lost(const struct qcow2 *s);
/* Writes the table anew, without what is lost. The refcounts are right. */
int co_q2_snaps_drop_lost(struct qcow2 *s);
void q2_snaps_free(struct qcow2 *s);
/* The table as ->snaps is, in a new place. Alone. */
int co_q2_snaps_write(struct qcow2 *s);
int co_q2_load_l1(struct qcow2 *s, uint64_t off, uint32_t size, uint64_t **out);
extern const struct blk_snap_ops q2_snap_ops;

/* ---- qcow2_check.c ---- */
int co_q2_check(struct blk_node *n, struct blk_check *res, unsigned fix);

/* ---- qcow2_create.c, qcow2_info.c ---- */
extern const struct prop q2_create_props[];
/* Refcounts of 1 << @order bits from now on. */
bool co_q2_refcount_width(struct qcow2 *s, unsigned order, struct err *e) MUST_CHECK;
int co_q2_set_backing(struct blk_node *n, const char *name, const char *fmt);
int co_q2_make_empty(struct blk_node *n);
bool co_q2_create(struct blk_node *file, json_t *opts, struct err *e);
bool q2_measure(json_t *opts, struct blk_measure *m, struct err *e);
json_t *q2_info(const struct blk_node *n);

/* ---- qcow2_crypt.c ---- */
bool co_q2_crypt_open(struct qcow2 *s, struct err *e) MUST_CHECK;
/* Makes an empty image an encrypted one. */
bool co_q2_crypt_create(struct qcow2 *s, const struct luks_create *c, struct err *e) MUST_CHECK;
void q2_crypt_close(struct qcow2 *s);
struct luks_io q2_luks_io(struct qcow2 *s);
/* Guest data at an offset of the data file. */
int co_q2_data_read(struct qcow2 *s, uint64_t host, uint64_t len, const struct iovec *iov, unsigned n);
int co_q2_data_write(struct qcow2 *s, uint64_t host, uint64_t len, const struct iovec *iov, unsigned n);

/* ---- qcow2_amend.c ---- */
extern const struct prop q2_amend_props[];
bool co_q2_amend(struct blk_node *n, json_t *opts, bool force, struct err *e);

/* ---- qcow2_bitmap.c ---- */
/* An entry of their directory, checked against its bounds; @name is not terminated. */
struct q2_bm { uint64_t table_off; uint32_t table_size, flags, extra; uint8_t type, granularity; uint16_t name_len; const char *name; };
/* The one at *@at, which goes on to the next. */
bool q2_bitmap_entry(const uint8_t *dir, uint64_t len, uint64_t *at, struct q2_bm *out) MUST_CHECK;
/* The whole of it; the caller frees. */
int co_q2_bitmap_dir(struct qcow2 *s, uint8_t **out);
/* All entries, @s->bitmaps.count of them; the caller frees. Their names are in @dir. -EINVAL: it is not valid, or tells of too much. */
int q2_bitmap_list(const struct qcow2 *s, const uint8_t *dir, struct q2_bm **out);
/* The table of a bitmap, whose clusters are where clusters can be; the caller frees, also after an error. */
int co_q2_bitmap_table(struct qcow2 *s, uint64_t off, uint32_t n, uint64_t **out);
/* Calls @fn for the table and each of its clusters. */
int co_q2_bitmap_table_refs(struct qcow2 *s, uint64_t off, uint32_t n, int (*fn)(void *, uint64_t, uint64_t), void *arg);
/* Calls @fn for each range that the persistent bitmaps occupy. -EINVAL: their directory is not valid. */
int co_q2_bitmap_refs(struct qcow2 *s, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg);

/* ---- qcow2_bitmap_io.c ---- */
/* All of them become bitmaps of the node. */
bool co_q2_bitmaps_load(struct qcow2 *s, struct err *e) MUST_CHECK;
/* -EINVAL: no image is opened with them. */
int co_q2_bitmaps_valid(struct qcow2 *s);
/* The image says that they are in use, from now on. */
int co_q2_bitmaps_mark(struct qcow2 *s);
/* Those that are to be kept go into the image in place of what is there. */
int co_q2_bitmaps_store(struct qcow2 *s, bool in_use);

#endif
