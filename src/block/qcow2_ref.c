/* SPDX-License-Identifier: MIT */
/* Refcounts and space: section Host cluster management. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

enum { MAX_SCAN = 1 << 22 /* clusters looked at for one allocation */ };

/* ---- an entry of a block: 1 to 64 bits ---- */

static uint64_t ref_get_raw(const uint8_t *b, unsigned order, uint64_t i)
{
    switch (order) {
    case 0: return b[i / 8] >> (i % 8) & 1;
    case 1: return b[i / 4] >> (i % 4 * 2) & 3;
    case 2: return b[i / 2] >> (i % 2 * 4) & 15;
    case 3: return b[i];
    case 4: return ld_be16(b + i * 2);
    case 5: return ld_be32(b + i * 4);
    default: return ld_be64(b + i * 8);
    }
}

void q2_ref_set_raw(uint8_t *b, unsigned order, uint64_t i, uint64_t v)
{
    switch (order) {
    case 0: b[i / 8] = (uint8_t)bits_set(b[i / 8], i % 8, 1, v); break;
    case 1: b[i / 4] = (uint8_t)bits_set(b[i / 4], i % 4 * 2, 2, v); break;
    case 2: b[i / 2] = (uint8_t)bits_set(b[i / 2], i % 2 * 4, 4, v); break;
    case 3: b[i] = (uint8_t)v; break;
    case 4: st_be16(b + i * 2, (uint16_t)v); break;
    case 5: st_be32(b + i * 4, (uint32_t)v); break;
    default: st_be64(b + i * 8, v);
    }
}

/* Where in its slice the entry of @cluster is. */
static uint64_t index_in_slice(const struct qcow2 *s, uint64_t cluster)
{
    uint64_t per_slice = s->rbc.slice_size * 8 >> s->ref_order;
    return cluster & (per_slice - 1);
}

/* The slice with @cluster's refcount, pinned; NULL: no block, all refcounts are 0. */
static int co_slice_of(struct qcow2 *s, uint64_t cluster, struct q2_slice **out)
{
    uint64_t i = cluster >> q2_rb_bits(s);
    uint64_t block = i < s->rt_size ? s->rt[i] & Q2_RT_MASK : 0;
    *out = NULL;
    if (!block)
        return 0;
    if (q2_in_cluster(s, block) || s->rt[i] & ~Q2_RT_MASK)
        return co_q2_corrupt(s, block, "refcount block offset 0x%llx is not that of a cluster (table index %llu)",
                             (unsigned long long)s->rt[i], (unsigned long long)i);
    uint64_t in_block = (cluster & (BIT64(q2_rb_bits(s)) - 1)) << s->ref_order >> 3;
    return co_q2_cache_get(s, &s->rbc, block + in_block, out);
}

int co_q2_ref_get(struct qcow2 *s, uint64_t cluster, uint64_t *out)
{
    struct q2_slice *sl;
    int r = co_slice_of(s, cluster, &sl);
    *out = 0;
    if (r || !sl)
        return r;
    *out = ref_get_raw(sl->data, s->ref_order, index_in_slice(s, cluster));
    q2_cache_put(sl);
    return 0;
}

int co_q2_ref_put(struct qcow2 *s, uint64_t cluster, uint64_t v)
{
    struct q2_slice *sl;
    int r = co_slice_of(s, cluster, &sl);
    if (r || !sl)
        return r ? r : -ENOENT;
    q2_ref_set_raw(sl->data, s->ref_order, index_in_slice(s, cluster), v);
    q2_cache_dirty(&s->rbc, sl);
    q2_cache_put(sl);
    return 0;
}

/* ---- blocks and the table ---- */

static void rt_set(struct qcow2 *s, uint64_t i, uint64_t v)
{
    s->rt[i] = v;
    s->rt_dirty[i / 64] = 1;
    s->rt_any_dirty = true;
}

/* Adds @delta to one refcount whose block exists. */
static int co_ref_add_one(struct qcow2 *s, uint64_t cluster, int64_t delta)
{
    struct q2_slice *sl;
    int r = co_slice_of(s, cluster, &sl);
    if (r)
        return r;
    if (!sl)
        return delta < 0 ? co_q2_corrupt(s, cluster << s->cluster_bits, "cluster %llu in use has no refcount block",
                                         (unsigned long long)cluster) : -ENOENT;
    uint64_t i = index_in_slice(s, cluster), v = ref_get_raw(sl->data, s->ref_order, i);
    if (delta < 0 ? v < (uint64_t)-delta : v > q2_ref_max(s) - (uint64_t)delta) {
        q2_cache_put(sl);
        return delta > 0 ? -EOVERFLOW : co_q2_corrupt(s, cluster << s->cluster_bits, "cluster %llu in use has refcount %llu",
                                                      (unsigned long long)cluster, (unsigned long long)v);
    }
    q2_ref_set_raw(sl->data, s->ref_order, i, v + (uint64_t)delta);
    q2_cache_dirty(&s->rbc, sl);
    q2_cache_put(sl);
    if (delta < 0 && v == (uint64_t)-delta) {
        s->free_hint = MIN(s->free_hint, cluster);
        q2_meta_del(s, cluster << s->cluster_bits, 1);
        if (s->comp_off >> s->cluster_bits == cluster)
            s->comp_off = 0;
    }
    return 0;
}

static int co_find_free(struct qcow2 *s, uint64_t from, uint64_t *out);
static void note_used(struct qcow2 *s, uint64_t end) { s->high_water = MAX(s->high_water, end); }

/* An empty block for table index @i at cluster @at, which is unused and not counted yet. Allocation lock held. */
static int co_place_block(struct qcow2 *s, uint64_t i, uint64_t at)
{
    uint64_t off = at << s->cluster_bits;
    blk_tell(q2_file(s), BLK_EV_REFBLOCK_ALLOC_WRITE);
    int r = co_q2_write_zeroes(s, off, s->cluster_size);
    if (r)
        return r;
    q2_cache_drop(&s->rbc, off, s->cluster_size);
    note_used(s, off + s->cluster_size);
    if (!q2_meta_add(s, off, s->cluster_size))
        return -ENOMEM;
    rt_set(s, i, off);
    return 0;
}

/* The table as it was in memory before it grew. */
struct old_table { uint64_t *rt; uint8_t *dirty; uint32_t size; bool any_dirty; };

/* The table in memory gets @entries entries; nothing is written. @old is the caller's to free, or to put back. */
static int resize_table(struct qcow2 *s, uint64_t entries, struct old_table *old)
{
    uint64_t *rt = calloc(entries, sizeof *rt);
    uint8_t *dirty = calloc(entries / 64 + 1, 1);
    if (!rt || !dirty) {
        free(rt);
        free(dirty);
        return -ENOMEM;
    }
    memcpy(rt, s->rt, s->rt_size * sizeof *rt);
    *old = (struct old_table){ s->rt, s->rt_dirty, s->rt_size, s->rt_any_dirty };
    s->rt = rt;
    s->rt_dirty = dirty;
    s->rt_size = (uint32_t)entries;
    return 0;
}

/* Nothing on the disk names what the longer table has more: @blocks blocks from cluster @first on. */
static void co_table_back(struct qcow2 *s, const struct old_table *old, uint64_t first, uint64_t blocks)
{
    co_mutex_lock(&s->blocks_lock);     /* none of them is being written */
    q2_cache_drop(&s->rbc, first << s->cluster_bits, blocks << s->cluster_bits);
    q2_meta_del(s, first << s->cluster_bits, blocks << s->cluster_bits);
    free(s->rt);
    free(s->rt_dirty);
    s->rt = old->rt;
    s->rt_dirty = old->dirty;
    s->rt_size = old->size;
    s->rt_any_dirty = old->any_dirty;
    co_mutex_unlock(&s->blocks_lock);
}

/* The table goes to @off, with what it refers to. */
static int co_write_table(struct qcow2 *s, uint64_t off, uint64_t len)
{
    uint8_t *be = calloc(1, len);
    int r = be ? 0 : -ENOMEM;
    for (uint64_t i = 0; be && i < s->rt_size; i++)
        st_be64(be + i * 8, s->rt[i]);
    r = r ? r : co_q2_sync_evict(s, &s->rbc);
    blk_tell(q2_file(s), BLK_EV_REFBLOCK_ALLOC_WRITE_TABLE);
    r = r ? r : co_q2_pwrite(s, off, be, len);
    r = r ? r : co_q2_barrier(s);
    free(be);
    return r ? r : q2_meta_add(s, off, len) ? 0 : -ENOMEM;
}

/* It is on the disk, and the header names it from now on. */
static int co_switch_table(struct qcow2 *s, uint64_t off, uint64_t clusters)
{
    uint64_t old_off = s->rt_off, old_len = (uint64_t)s->rt_clusters << s->cluster_bits;
    blk_tell(q2_file(s), BLK_EV_REFBLOCK_ALLOC_SWITCH_TABLE);
    s->rt_off = off;
    s->rt_clusters = (uint32_t)clusters;
    int r = co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    if (r) {
        s->broken = true;           /* which table is that on the disk is not known */
        return r;
    }
    memset(s->rt_dirty, 0, s->rt_size / 64 + 1);
    s->rt_any_dirty = false;
    q2_meta_del(s, old_off, old_len);
    q2_free_later(s, old_off, old_len, Q2_BY_OTHER);
    return 0;
}

/* A longer refcount table, behind all that the present one can count: first the blocks that count it and themselves, then the table. */
static int co_grow_table(struct qcow2 *s)
{
    uint64_t first = (uint64_t)s->rt_size << q2_rb_bits(s), index = s->rt_size, blocks = 1, clusters, entries;
    blk_tell(q2_file(s), BLK_EV_REFTABLE_GROW);
    for (;; blocks++) {
        entries = MAX(index + index / 2, index + blocks);
        clusters = align_up(entries * 8, s->cluster_size) >> s->cluster_bits;
        if ((blocks + clusters - 1) >> q2_rb_bits(s) < blocks)
            break;
    }
    if (clusters << s->cluster_bits > Q2_MAX_RT_BYTES)
        return -EFBIG;
    struct old_table old;
    uint64_t table = (first + blocks) << s->cluster_bits;
    int r = resize_table(s, clusters << (s->cluster_bits - 3), &old);
    if (r)
        return r;
    for (uint64_t b = 0; b < blocks && !r; b++)
        r = co_place_block(s, index + b, first + b);
    for (uint64_t c = 0; c < blocks + clusters && !r; c++)
        r = co_ref_add_one(s, first + c, 1);
    r = r ? r : co_write_table(s, table, clusters << s->cluster_bits);
    if (r) {
        q2_meta_del(s, table, clusters << s->cluster_bits);
        co_table_back(s, &old, first, blocks);
        return r;
    }
    free(old.rt);
    free(old.dirty);
    note_used(s, table + (clusters << s->cluster_bits));
    return co_switch_table(s, table, clusters);
}

static bool is_counted(const struct qcow2 *s, uint64_t cluster)
{
    uint64_t i = cluster >> q2_rb_bits(s);
    return i < s->rt_size && s->rt[i];
}

/* A block for table index @i, at an unused cluster from @from on. */
static int co_new_block(struct qcow2 *s, uint64_t i, uint64_t from)
{
    uint64_t at;
    blk_tell(q2_file(s), BLK_EV_REFBLOCK_ALLOC);
    if (i >= s->rt_size)
        return co_grow_table(s);
    int r = co_find_free(s, from, &at);
    if (r)
        return r;
    if (!is_counted(s, at))         /* a block that counts itself; one for @i comes at the next try */
        i = at >> q2_rb_bits(s);
    if (i >= s->rt_size)
        return co_grow_table(s);
    r = co_place_block(s, i, at);
    r = r ? r : co_ref_add_one(s, at, 1);
    if (r && is_counted(s, i << q2_rb_bits(s))) {       /* that it is there was told to nobody yet */
        rt_set(s, i, 0);
        q2_meta_del(s, at << s->cluster_bits, 1);
    }
    return r;
}

int co_q2_ref_add(struct qcow2 *s, uint64_t off, uint64_t len, int64_t delta)
{
    uint64_t first = off >> s->cluster_bits, last = (off + len - 1) >> s->cluster_bits;
    for (uint64_t c = first; c <= last; c++) {
        int r = co_ref_add_one(s, c, delta);
        if (!r)
            continue;
        while (c-- > first)         /* as it was */
            co_ref_add_one(s, c, -delta);
        return r == -ENOENT ? co_q2_corrupt(s, off, "cluster %llu in use has no refcount block", (unsigned long long)first) : r;
    }
    return 0;
}

/* ---- free space ---- */

/* The first cluster from @from on with refcount 0. */
static int co_find_free(struct qcow2 *s, uint64_t from, uint64_t *out)
{
    for (uint64_t c = from, seen = 0;; seen++) {
        uint64_t n;
        if (c >= Q2_OFFSET_MASK >> s->cluster_bits)
            return -EFBIG;
        uint64_t i = c >> q2_rb_bits(s);
        if (i >= s->rt_size || !s->rt[i]) {
            *out = c;
            return 0;
        }
        int r = co_q2_ref_get(s, c, &n);
        if (r)
            return r;
        if (!n) {
            *out = c;
            return 0;
        }
        c++;
        if (seen > MAX_SCAN && c << s->cluster_bits < s->high_water)
            c = s->high_water >> s->cluster_bits;       /* an image full of entries: go on at its end */
    }
}

/* How many of the @n clusters at @c are unused and counted by existing blocks. *@uncounted: the next one is not. */
static int co_free_run(struct qcow2 *s, uint64_t c, uint64_t n, uint64_t *out, bool *uncounted)
{
    *uncounted = false;
    for (*out = 0; *out < n; ++*out) {
        uint64_t v;
        *uncounted = !is_counted(s, c + *out);
        int r = *uncounted ? 0 : co_q2_ref_get(s, c + *out, &v);
        if (r || *uncounted || v)
            return r;
    }
    return 0;
}

static int co_alloc_locked(struct qcow2 *s, uint64_t n, uint64_t *n_got, uint64_t *off)
{
    uint64_t c, run;
    for (uint64_t from = s->free_hint;;) {
        bool uncounted;
        int r = co_find_free(s, from, &c);
        if (!r && from == s->free_hint)
            s->free_hint = c;
        r = r ? r : co_free_run(s, c, n, &run, &uncounted);
        if (r)
            return r;
        if (run == n || (n_got && run))
            break;
        if (uncounted) {
            r = co_new_block(s, (c + run) >> q2_rb_bits(s), c);
            if (r)
                return r;
            from = c;
        } else {
            from = c + run;
        }
    }
    int r = co_q2_ref_add(s, c << s->cluster_bits, run << s->cluster_bits, 1);
    if (r)
        return r;
    if (c == s->free_hint)
        s->free_hint = c + run;
    *off = c << s->cluster_bits;
    s->fresh = *off >= s->high_water;
    note_used(s, *off + (run << s->cluster_bits));
    if (n_got)
        *n_got = run;
    return q2_meta_has(s, *off, run << s->cluster_bits)
        ? co_q2_corrupt(s, *off, "cluster at 0x%llx holds metadata, but has refcount 0", (unsigned long long)*off) : 0;
}

int co_q2_alloc(struct qcow2 *s, uint64_t n, uint64_t *n_got, uint64_t *off)
{
    if (s->broken)
        return -EIO;
    blk_tell(q2_file(s), BLK_EV_CLUSTER_ALLOC);
    co_mutex_lock(&s->alloc_lock);
    int r = co_alloc_locked(s, n, n_got, off);
    co_mutex_unlock(&s->alloc_lock);
    return r;
}

int co_q2_alloc_meta(struct qcow2 *s, uint64_t bytes, uint64_t *off)
{
    uint64_t n = align_up(bytes, s->cluster_size) >> s->cluster_bits;
    int r = co_q2_alloc(s, n, NULL, off);
    return r ? r : q2_meta_add(s, *off, n << s->cluster_bits) ? 0 : -ENOMEM;
}

void co_q2_unalloc(struct qcow2 *s, uint64_t off, uint64_t len)
{
    co_mutex_lock(&s->alloc_lock);
    co_q2_ref_add(s, off, len, -1);     /* fails only on an image that is then marked corrupt */
    co_mutex_unlock(&s->alloc_lock);
}

/* Room for @len bytes of compressed data: behind the last ones while that cluster can be counted up, else at a new one. */
int co_q2_alloc_bytes(struct qcow2 *s, uint64_t len, uint64_t *off)
{
    uint64_t refs = 0;
    int r = 0;
    blk_tell(q2_file(s), BLK_EV_CLUSTER_ALLOC_BYTES);
    co_mutex_lock(&s->alloc_lock);
    uint64_t room = s->comp_off ? s->cluster_size - q2_in_cluster(s, s->comp_off) : 0;
    if (s->broken)
        r = -EIO;
    if (!r && room)
        r = co_q2_ref_get(s, s->comp_off >> s->cluster_bits, &refs);
    if (!r && (!room || refs == 0 || refs >= q2_ref_max(s)))
        s->comp_off = room = 0;
    if (!r && room < len) {
        uint64_t fresh = 0;
        r = co_alloc_locked(s, 1, NULL, &fresh);
        if (!r && s->comp_off && fresh == align_up(s->comp_off, s->cluster_size)) {
            r = co_q2_ref_add(s, s->comp_off, 1, 1);        /* it goes on into the new cluster, which it counts once */
            *off = s->comp_off;
        } else {
            *off = s->comp_off = fresh;
        }
    } else if (!r) {
        r = co_q2_ref_add(s, s->comp_off, 1, 1);
        *off = s->comp_off;
    }
    if (!r) {
        s->comp_off += len;
        if (!q2_in_cluster(s, s->comp_off))
            s->comp_off = 0;
    }
    co_mutex_unlock(&s->alloc_lock);
    return r;
}

/* ---- freeing ---- */

bool q2_passes_discard(const struct qcow2 *s, enum q2_cause cause)
{
    return s->pass_discard[cause] == TRI_AUTO ? s->node.discard == BLK_DISCARD_UNMAP : s->pass_discard[cause] == TRI_ON;
}

void q2_free_later(struct qcow2 *s, uint64_t off, uint64_t len, enum q2_cause cause)
{
    if (s->nfrees == s->frees_cap) {
        s->frees_cap = s->frees_cap ? s->frees_cap * 2 : 64;
        s->frees = xrealloc(s->frees, s->frees_cap * sizeof *s->frees);
    }
    s->frees[s->nfrees++] = (struct q2_free){ .off = off, .len = len, .seq = s->seq, .cause = cause };
    s->free_bytes += len;
}

/* Drops one reference. What nobody uses any more is given back to the file before it can be taken again. */
static int co_apply_one(struct qcow2 *s, const struct q2_free *f)
{
    uint64_t first = f->off >> s->cluster_bits, last = (f->off + f->len - 1) >> s->cluster_bits, refs;
    int r = 0;
    co_mutex_lock(&s->alloc_lock);
    for (uint64_t c = first; c <= last && !r && q2_passes_discard(s, f->cause); c++) {
        r = co_q2_ref_get(s, c, &refs);
        if (!r && refs == 1)
            co_node_discard(q2_file(s), c << s->cluster_bits, s->cluster_size);     /* a hint: its failure costs space only */
    }
    blk_tell(q2_file(s), BLK_EV_CLUSTER_FREE);
    r = r ? r : co_q2_ref_add(s, f->off, f->len, -1);
    co_mutex_unlock(&s->alloc_lock);
    return r;
}

int co_q2_apply_frees(struct qcow2 *s, uint64_t count)
{
    struct q2_req *oldest = list_first(&s->reqs, struct q2_req, link);
    size_t n = 0;
    count = MIN(count, s->nfrees);
    while (n < count && (!oldest || s->frees[n].seq < oldest->seq))
        n++;
    struct q2_free *mine = n ? malloc(n * sizeof *mine) : NULL;
    if (!mine)
        return 0;                   /* none, or the next time */
    memcpy(mine, s->frees, n * sizeof *mine);
    memmove(s->frees, s->frees + n, (s->nfrees - n) * sizeof *mine);
    s->nfrees -= n;
    for (size_t i = 0; i < n; i++) {
        s->free_bytes -= mine[i].len;
        if (!co_apply_one(s, &mine[i]) || s->broken || mine[i].tried)
            continue;                   /* what fails twice is lost space, and no reason to fail what is written */
        q2_free_later(s, mine[i].off, mine[i].len, mine[i].cause);
        s->frees[s->nfrees - 1].tried = true;
    }
    free(mine);
    return s->broken ? -EIO : 0;
}
