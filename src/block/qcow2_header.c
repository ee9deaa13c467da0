/* SPDX-License-Identifier: MIT */
/* The header cluster: sections Header, Additional fields, Header extensions. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

enum { ATOM = 512 /* what a disk writes whole */ };

/* ---- reading ---- */

static bool bad(struct qcow2 *s, struct err *e, const char *what, uint64_t v)
{
    return err_set(e, ERR_VALUE, "'%s' is not a valid qcow2 image: %s (0x%llx)", blk_node_filename(&s->node), what, (unsigned long long)v);
}

/* The names that the image gives to features that we do not know. */
static void name_features(const uint8_t *buf, uint64_t len, uint64_t unknown, char *out, size_t n)
{
    size_t used = 0;
    out[0] = 0;
    for (uint64_t at = 0; at + 48 <= len; at += 48)
        if (buf[at] == 0 && buf[at + 1] < 64 && unknown >> buf[at + 1] & 1 && used < n) {
            used += (size_t)snprintf(out + used, n - used, "%s%.46s", used ? ", " : "", (const char *)buf + at + 2);
            unknown &= ~BIT64(buf[at + 1]);
        }
    if (unknown && used < n)
        snprintf(out + used, n - used, "%sbits 0x%llx", used ? ", " : "", (unsigned long long)unknown);
}

/* At *@end, which goes on. */
static bool keep_ext(struct q2_ext ***end, uint32_t type, uint32_t len, const uint8_t *data)
{
    struct q2_ext *x = malloc(sizeof *x + len);
    if (!x)
        return false;
    *x = (struct q2_ext){ .type = type, .len = len };
    memcpy(x->data, data, len);
    **end = x;
    *end = &x->next;
    return true;
}

static bool read_ext(struct qcow2 *s, struct q2_ext ***kept, uint32_t type, uint32_t len, const uint8_t *d, struct err *e)
{
    switch (type) {
    case Q2_EXT_BACKING_FMT & UINT32_MAX:
        free(s->backing_fmt);
        s->backing_fmt = xstrndup((const char *)d, MIN(len, 64u));
        return true;
    case Q2_EXT_DATA_FILE:
        free(s->data_name);
        s->data_name = xstrndup((const char *)d, MIN(len, (uint32_t)Q2_MAX_BACKING_NAME));
        return true;
    case Q2_EXT_FEATURES:
        return true;                /* ours is written anew */
    case Q2_EXT_BITMAPS:
        s->lost |= s->repair && (len != 24 || ld_be32(d + 4));
        if (len < 24)
            return s->repair || bad(s, e, "bitmaps extension too short", len);
        s->bitmaps = (struct q2_bitmaps){ ld_be32(d), ld_be64(d + 8), ld_be64(d + 16) };
        return true;
    case Q2_EXT_CRYPT:
        if (len < 16)
            return bad(s, e, "encryption extension too short", len);
        s->crypt_off = ld_be64(d);
        s->crypt_len = ld_be64(d + 8);
        return true;
    default:
        return keep_ext(kept, type, len, d) || err_os(e, ENOMEM, "no memory for a header extension");
    }
}

static bool read_exts(struct qcow2 *s, const uint8_t *buf, uint64_t end, char *unknown, size_t n, struct err *e)
{
    uint64_t at = s->header_len;
    struct q2_ext **kept = &s->exts;
    uint64_t strange = s->incompat & ~(uint64_t)Q2_INCOMPAT_KNOWN;
    if (strange)
        name_features(NULL, 0, strange, unknown, n);
    while (at + 8 <= end) {
        uint32_t type = ld_be32(buf + at), len = ld_be32(buf + at + 4);
        at += 8;
        if (type == Q2_EXT_END)
            break;
        if (!range_ok(at, len, end))
            return bad(s, e, "a header extension reaches beyond the header", type);
        if (type == Q2_EXT_FEATURES && strange)
            name_features(buf + at, len, strange, unknown, n);
        if (!read_ext(s, &kept, type, len, buf + at, e))
            return false;
        at += align_up(len, 8);
    }
    return true;
}

static bool check_fields(struct qcow2 *s, struct err *e)
{
    if (s->cluster_bits < Q2_MIN_CLUSTER_BITS || s->cluster_bits > Q2_MAX_CLUSTER_BITS)
        return bad(s, e, "cluster size is not from 512 bytes to 2 MiB", s->cluster_bits);
    if (s->ref_order > 6)
        return bad(s, e, "refcount width is more than 64 bits", s->ref_order);
    if (s->version >= 3 && (s->header_len < Q2_H_V3_LEN || s->header_len % 8 || s->header_len > BIT64(s->cluster_bits)))
        return bad(s, e, "header length", s->header_len);
    if (s->incompat & Q2_INCOMPAT_EXTL2 && s->cluster_bits < Q2_MIN_EXTL2_BITS)
        return bad(s, e, "clusters of less than 16 KiB with subclusters", s->cluster_bits);
    if (s->crypt > Q2_CRYPT_LUKS)
        return bad(s, e, "encryption method", s->crypt);
    if (s->crypt && s->incompat & Q2_INCOMPAT_DATA_FILE)
        return bad(s, e, "encryption with a data file", s->crypt);
    if (s->compression > Q2_COMPRESS_ZSTD || (s->compression != 0) != !!(s->incompat & Q2_INCOMPAT_COMPRESSION))
        return bad(s, e, "compression type", s->compression);
    if ((uint64_t)s->l1_size * 8 > Q2_MAX_L1_BYTES)
        return bad(s, e, "L1 table too large", s->l1_size);
    if (s->repair && ((uint64_t)s->rt_clusters << s->cluster_bits > Q2_MAX_RT_BYTES || s->rt_off & (BIT64(s->cluster_bits) - 1)))
        s->rt_off = s->rt_clusters = 0;         /* lost: it is made anew */
    if (((uint64_t)s->rt_clusters << s->cluster_bits > Q2_MAX_RT_BYTES || !s->rt_clusters) && !s->repair)
        return bad(s, e, "refcount table size in clusters", s->rt_clusters);
    if (s->repair && (s->nsnaps > Q2_MAX_SNAPSHOTS || s->snap_off & (BIT64(s->cluster_bits) - 1) ||
                      (s->nsnaps && s->incompat & Q2_INCOMPAT_DATA_FILE))) {
        s->lost = true;
        s->snap_off = s->nsnaps = 0;
    }
    if (s->nsnaps > Q2_MAX_SNAPSHOTS)
        return bad(s, e, "number of snapshots", s->nsnaps);
    uint64_t in = BIT64(s->cluster_bits) - 1;
    if (s->l1_off & in || s->rt_off & in || (s->nsnaps && s->snap_off & in))
        return bad(s, e, "a table does not begin at a cluster", s->l1_off & in ? s->l1_off : s->rt_off & in ? s->rt_off : s->snap_off);
    return true;
}

static void read_fields(struct qcow2 *s, const uint8_t *h)
{
    s->cluster_bits = ld_be32(h + Q2_H_CLUSTER_BITS);
    s->crypt = ld_be32(h + Q2_H_CRYPT);
    s->l1_size = ld_be32(h + Q2_H_L1_SIZE);
    s->l1_off = ld_be64(h + Q2_H_L1_OFF);
    s->rt_off = ld_be64(h + Q2_H_RT_OFF);
    s->rt_clusters = ld_be32(h + Q2_H_RT_CLUSTERS);
    s->nsnaps = ld_be32(h + Q2_H_SNAPSHOTS);
    s->snap_off = ld_be64(h + Q2_H_SNAP_OFF);
    atomic_store(&s->node.size, ld_be64(h + Q2_H_SIZE));
    s->header_len = Q2_H_V2_LEN;
    s->ref_order = 4;
    if (s->version < 3)
        return;
    s->incompat = ld_be64(h + Q2_H_INCOMPAT);
    s->compat = ld_be64(h + Q2_H_COMPAT);
    s->autoclear = ld_be64(h + Q2_H_AUTOCLEAR);
    s->ref_order = ld_be32(h + Q2_H_REF_ORDER);
    s->header_len = ld_be32(h + Q2_H_LEN);
    s->compression = s->header_len > Q2_H_COMPRESSION ? h[Q2_H_COMPRESSION] : 0;
}

/* How much of @len bytes of fields there is to keep: zeroes say nothing, and no field can lie where a small cluster has none. */
static uint32_t fields_len(const uint8_t *h, uint32_t len)
{
    uint32_t n = MIN(len, (uint32_t)ATOM);
    while (n > Q2_H_OUR_LEN && mem_is_zero(h + n - 8, 8))
        n -= 8;
    return n;
}

static bool read_names(struct qcow2 *s, const uint8_t *buf, struct err *e)
{
    uint64_t off = ld_be64(buf + Q2_H_BACKING_OFF), len = ld_be32(buf + Q2_H_BACKING_LEN), end = off ? off : s->cluster_size;
    char unknown[200] = "";
    if (off && (len > Q2_MAX_BACKING_NAME || !range_ok(off, len, s->cluster_size) || off < s->header_len))
        return bad(s, e, "backing file name is not in the header", off);
    if (off && len)
        s->backing_name = xstrndup((const char *)buf + off, len);
    if (!read_exts(s, buf, end, unknown, sizeof unknown, e))
        return false;
    s->header_len = fields_len(buf, s->header_len);
    if (s->header_len > Q2_H_OUR_LEN) {
        s->more_header = malloc(s->header_len - Q2_H_OUR_LEN);
        if (!s->more_header)
            return err_os(e, ENOMEM, "no memory for the header");
        memcpy(s->more_header, buf + Q2_H_OUR_LEN, s->header_len - Q2_H_OUR_LEN);
    }
    if (s->incompat & ~(uint64_t)Q2_INCOMPAT_KNOWN)
        return err_set(e, ERR_VALUE, "'%s' uses qcow2 features that are not known here: %s", blk_node_filename(&s->node), unknown);
    if (s->repair && s->autoclear & Q2_AUTOCLEAR_BITMAPS && !s->bitmaps.count) {
        s->lost = true;
        s->autoclear &= ~(uint64_t)Q2_AUTOCLEAR_BITMAPS;
    }
    if (s->autoclear & Q2_AUTOCLEAR_BITMAPS && !s->bitmaps.count)
        return bad(s, e, "bitmaps feature without a bitmaps extension", s->autoclear);
    return true;
}

bool co_q2_header_read(struct qcow2 *s, struct err *e)
{
    uint8_t h[Q2_H_OUR_LEN];
    int r = co_q2_pread(s, 0, h, sizeof h);
    if (r)
        return err_os(e, -r, "cannot read '%s'", blk_node_filename(&s->node));
    if (ld_be32(h) != Q2_MAGIC) {
        err_set(e, ERR_VALUE, "'%s' is not in qcow2 format", blk_node_filename(&s->node));
        return err_hint(e, "say driver=raw (format=raw) if it holds the disk's bytes as they are");
    }
    s->version = ld_be32(h + Q2_H_VERSION);
    if (s->version != 2 && s->version != 3)
        return bad(s, e, "version is not 2 or 3", s->version);
    read_fields(s, h);
    if (!check_fields(s, e))
        return false;
    s->cluster_size = BIT64(s->cluster_bits);
    uint8_t *buf = malloc(s->cluster_size);
    r = buf ? co_q2_pread(s, 0, buf, s->cluster_size) : -ENOMEM;
    bool ok = r ? err_os(e, -r, "cannot read '%s'", blk_node_filename(&s->node)) : read_names(s, buf, e);
    free(buf);
    return ok;
}

void q2_header_free(struct qcow2 *s)
{
    while (s->exts) {
        struct q2_ext *x = s->exts;
        s->exts = x->next;
        free(x);
    }
    free(s->backing_name);
    free(s->backing_fmt);
    free(s->data_name);
    free(s->more_header);
    s->backing_name = s->backing_fmt = s->data_name = NULL;
    s->more_header = NULL;
}

/* ---- writing ---- */

static const struct { uint8_t kind, bit; const char *name; } features[] = {
    { 0, 0, "dirty bit" }, { 0, 1, "corrupt bit" }, { 0, 2, "external data file" }, { 0, 3, "compression type" },
    { 0, 4, "extended L2 entries" }, { 1, 0, "lazy refcounts" }, { 2, 0, "bitmaps" }, { 2, 1, "raw external data" },
};

struct out { uint8_t *buf; uint64_t at, size; };

static bool put_ext(struct out *o, uint32_t type, const void *data, uint64_t len)
{
    if (!range_ok(o->at, 8 + align_up(len, 8), o->size))
        return false;
    st_be32(o->buf + o->at, type);
    st_be32(o->buf + o->at + 4, (uint32_t)len);
    memset(o->buf + o->at + 8, 0, align_up(len, 8));
    memcpy(o->buf + o->at + 8, data, len);
    o->at += 8 + align_up(len, 8);
    return true;
}

/* @name: bytes of the backing file's name, which is to fit beside it all in what a disk writes whole. */
static bool put_exts(const struct qcow2 *s, struct out *o, size_t name)
{
    uint8_t names[ARRAY_SIZE(features) * 48] = { 0 }, bm[24] = { 0 }, crypt[16];
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        names[i * 48] = features[i].kind;
        names[i * 48 + 1] = features[i].bit;
        memcpy(names + i * 48 + 2, features[i].name, strlen(features[i].name));
    }
    st_be32(bm, s->bitmaps.count);
    st_be64(bm + 8, s->bitmaps.dir_size);
    st_be64(bm + 16, s->bitmaps.dir_off);
    st_be64(crypt, s->crypt_off);
    st_be64(crypt + 8, s->crypt_len);
    /* What changes most often first: there it changes with the first sector. */
    bool ok = (!s->bitmaps.count || put_ext(o, Q2_EXT_BITMAPS, bm, sizeof bm)) &&
              (!s->crypt_off || put_ext(o, Q2_EXT_CRYPT, crypt, sizeof crypt)) &&
              (!s->backing_fmt || put_ext(o, Q2_EXT_BACKING_FMT & UINT32_MAX, s->backing_fmt, strlen(s->backing_fmt))) &&
              (!s->data_name || put_ext(o, Q2_EXT_DATA_FILE, s->data_name, strlen(s->data_name)));
    for (const struct q2_ext *x = s->exts; x && ok; x = x->next)
        ok = put_ext(o, x->type, x->data, x->len);
    if (ok && s->version >= 3 && o->at + sizeof names + 16 + name <= ATOM)
        ok = put_ext(o, Q2_EXT_FEATURES, names, sizeof names);      /* where there is room: it is optional */
    return ok && put_ext(o, Q2_EXT_END, "", 0);
}

static void put_fields(const struct qcow2 *s, uint8_t *h)
{
    st_be32(h + Q2_H_MAGIC, Q2_MAGIC);
    st_be32(h + Q2_H_VERSION, s->version);
    st_be32(h + Q2_H_CLUSTER_BITS, s->cluster_bits);
    st_be64(h + Q2_H_SIZE, q2_size(s));
    st_be32(h + Q2_H_CRYPT, s->crypt);
    st_be32(h + Q2_H_L1_SIZE, s->l1_size);
    st_be64(h + Q2_H_L1_OFF, s->l1_off);
    st_be64(h + Q2_H_RT_OFF, s->rt_off);
    st_be32(h + Q2_H_RT_CLUSTERS, s->rt_clusters);
    st_be32(h + Q2_H_SNAPSHOTS, s->nsnaps);
    st_be64(h + Q2_H_SNAP_OFF, s->snap_off);
    if (s->version < 3)
        return;
    st_be64(h + Q2_H_INCOMPAT, s->incompat);
    st_be64(h + Q2_H_COMPAT, s->compat);
    st_be64(h + Q2_H_AUTOCLEAR, s->autoclear);
    st_be32(h + Q2_H_REF_ORDER, s->ref_order);
    if (s->header_len > Q2_H_COMPRESSION)
        h[Q2_H_COMPRESSION] = (uint8_t)s->compression;
    if (s->header_len > Q2_H_OUR_LEN)
        memcpy(h + Q2_H_OUR_LEN, s->more_header, s->header_len - Q2_H_OUR_LEN);
}

/* The extension of @h at *@at, which goes on to the next. NULL: there are no more. */
static const uint8_t *next_ext(const struct qcow2 *s, const uint8_t *h, uint64_t *at)
{
    if (!range_ok(*at, 8, s->cluster_size) || ld_be32(h + *at) == Q2_EXT_END)
        return NULL;
    const uint8_t *x = h + *at;
    uint64_t len = 8 + align_up(ld_be32(x + 4), 8);
    if (!range_ok(*at, len, s->cluster_size))
        return NULL;
    *at += len;
    return x;
}

static uint64_t exts_from(const uint8_t *h) { return ld_be32(h + Q2_H_VERSION) < 3 ? Q2_H_V2_LEN : ld_be32(h + Q2_H_LEN); }

static const uint8_t *next_but_features(const struct qcow2 *s, const uint8_t *h, uint64_t *at)
{
    const uint8_t *x;
    while ((x = next_ext(s, h, at)) && ld_be32(x) == Q2_EXT_FEATURES)
        ;
    return x;
}

/* Both have the same extensions in the same order, but for the names of features. */
static bool same_exts(const struct qcow2 *s, const uint8_t *a, const uint8_t *b)
{
    uint64_t i = exts_from(a), k = exts_from(b);
    for (;;) {
        const uint8_t *x = next_but_features(s, a, &i), *y = next_but_features(s, b, &k);
        if (!x || !y)
            return x == y;
        if (memcmp(x, y, 8) || memcmp(x, y, 8 + (size_t)ld_be32(x + 4)))
            return false;
    }
}

/* Bytes of a header cluster that say something: [from, to). */
struct span { uint64_t from, to; };
struct spans { struct span exts, name; };

static struct spans spans_of(const struct qcow2 *s, const uint8_t *h)
{
    struct spans x = { 0 };
    if (!h || ld_be32(h) != Q2_MAGIC)
        return x;
    uint64_t at = exts_from(h), name = ld_be64(h + Q2_H_BACKING_OFF), len = ld_be32(h + Q2_H_BACKING_LEN);
    x.exts.from = at;
    while (next_ext(s, h, &at))
        ;
    x.exts.to = MIN(at + 8, s->cluster_size);
    if (name && range_ok(name, len, s->cluster_size))
        x.name = (struct span){ name, name + len };
    return x;
}

/* What both say beyond the first sector is the same. */
static bool agree(const uint8_t *a, const uint8_t *b, struct span x, struct span y)
{
    uint64_t from = MAX(MAX(x.from, y.from), (uint64_t)ATOM), to = MIN(x.to, y.to);
    return from >= to || !memcmp(a + from, b + from, to - from);
}

/* Extensions from @start on, and the name of the backing file at @name, or behind them where that is less; over what @old has there. */
static bool put_at(struct qcow2 *s, uint8_t *h, const uint8_t *old, uint64_t start, uint64_t name)
{
    size_t len = s->backing_name ? strlen(s->backing_name) : 0;
    struct out o = { h, start, s->cluster_size };
    if (old)
        memcpy(h, old, s->cluster_size);
    memset(h, 0, old ? ATOM : s->cluster_size);
    put_fields(s, h);
    if (s->version >= 3)
        st_be32(h + Q2_H_LEN, (uint32_t)start);
    if (!range_ok(start, 8, s->cluster_size) || !put_exts(s, &o, len))
        return false;
    name = MAX(name, o.at);
    if (!len)
        return true;
    if (!range_ok(name, len, s->cluster_size))
        return false;
    memcpy(h + name, s->backing_name, len);
    st_be64(h + Q2_H_BACKING_OFF, name);
    st_be32(h + Q2_H_BACKING_LEN, (uint32_t)len);
    return true;
}

/* But for its fields, @old says what @h does: so they are all that changes. */
static bool only_fields(struct qcow2 *s, uint8_t *h, const uint8_t *old, struct span was)
{
    uint64_t len = s->backing_name ? strlen(s->backing_name) : 0;
    if (!old || ld_be32(old) != Q2_MAGIC || ld_be32(old + Q2_H_VERSION) != s->version || was.to - was.from != len ||
        (len && memcmp(old + was.from, s->backing_name, len)) || !same_exts(s, h, old))
        return false;
    memcpy(h, old, s->cluster_size);
    put_fields(s, h);
    return true;
}

/*
 * Where extensions and name go: into the first sector, or where @old (may be NULL) says nothing or the same, so that both headers are whole
 * whatever is written first. Extensions begin where the fields end, which is where the header says: zeroes between them are fields, too.
 * What does not change stays where it is. In a small cluster there may be no room for what does.
 */
int q2_header_build(struct qcow2 *s, uint8_t *h, const uint8_t *old)
{
    const struct spans was = spans_of(s, old);
    uint64_t start[] = { s->header_len, ATOM, align_up(was.exts.to, ATOM), align_up(was.name.to, ATOM) };
    uint64_t name[] = { 0, was.name.from, ATOM, start[2], start[3] };
    if (put_at(s, h, old, s->header_len, 0) && only_fields(s, h, old, was.name))
        return 0;
    for (size_t i = 0; i < (s->version >= 3 ? ARRAY_SIZE(start) : 1); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(name); k++) {
            if (start[i] < s->header_len || !put_at(s, h, old, start[i], name[k]))
                continue;
            struct spans is = spans_of(s, h);
            if (agree(h, old, is.exts, was.exts) && agree(h, old, is.exts, was.name) && agree(h, old, is.name, was.exts) &&
                agree(h, old, is.name, was.name))
                return 0;
        }
    }
    return -ENAMETOOLONG;
}

/* Sectors that changed, the first one last: a cut leaves the old header with more or less of what it does not name. */
int co_q2_header_write(struct qcow2 *s)
{
    uint8_t *old = malloc(s->cluster_size), *new = malloc(s->cluster_size);
    int r = old && new ? 0 : -ENOMEM;
    bool rest = false;
    r = r ? r : co_q2_pread(s, 0, old, s->cluster_size);
    r = r ? r : q2_header_build(s, new, old);
    for (uint64_t at = ATOM; at < s->cluster_size && !r; at += ATOM) {
        if (!memcmp(old + at, new + at, ATOM))
            continue;
        rest = true;
        r = co_q2_pwrite(s, at, new + at, ATOM);
    }
    if (!r && rest)
        r = co_q2_barrier(s);
    if (!r && memcmp(old, new, ATOM))
        r = co_q2_pwrite(s, 0, new, ATOM);
    free(old);
    free(new);
    return r;
}

int co_q2_set_incompat(struct qcow2 *s, uint64_t set, uint64_t clear)
{
    uint8_t be[8];
    if (s->version < 3 || ((s->incompat & set) == set && !(s->incompat & clear)))
        return 0;
    s->incompat = (s->incompat | set) & ~clear;
    st_be64(be, s->incompat);
    int r = co_q2_pwrite(s, Q2_H_INCOMPAT, be, 8);
    return r ? r : co_q2_barrier(s);
}
