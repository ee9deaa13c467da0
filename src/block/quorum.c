/* SPDX-License-Identifier: MIT */
/*
 * "quorum": everything is written to several nodes, and what most of them say is read. A node that says something else is reported
 * and, where that is asked for, written anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/blk_int.h"
#include "core/cmd.h"

enum { KIDS_MAX = 32 };
enum { PATTERN_QUORUM, PATTERN_FIFO };
static const char *const patterns[] = { "quorum", "fifo", NULL };

struct blk_quorum {
    struct blk_node node;
    json_t *children;
    uint32_t threshold;
    bool verify, rewrite;
    int pattern;
    struct blk_use kid[KIDS_MAX];   /* free where ->node is NULL */
};
static struct blk_quorum *of(struct blk_node *n) { return (struct blk_quorum *)n; }

static unsigned count(const struct blk_quorum *q)
{
    unsigned n = 0;
    for (unsigned i = 0; i < KIDS_MAX; i++)
        n += q->kid[i].node != NULL;
    return n;
}

/* ---- events ---- */

static const struct qmp_event_def events[] = {
    { "QUORUM_FAILURE", "Too few nodes of a quorum agree", true, "reference",
      .says = "{reference:str, sector-num:int, sectors-count:int}" },
    { "QUORUM_REPORT_BAD", "A node of a quorum failed or differs", true, "node-name",
      .says = "{type:str, node-name:str, sector-num:int, sectors-count:int, *error:str}" },
};
QMP_EVENT(&events[0]);
QMP_EVENT(&events[1]);

static json_t *sectors(uint64_t off, uint64_t len)
{
    return json_pack("{s:I, s:I}", "sector-num", (json_int_t)(off / 512), "sectors-count", (json_int_t)((off % 512 + len + 511) / 512));
}

static void report_failure(const struct blk_quorum *q, uint64_t off, uint64_t len)
{
    json_t *o = sectors(off, len);
    json_object_set_new(o, "reference", json_string(q->node.obj.id));
    qmp_event("QUORUM_FAILURE", o);
}

/* @r 0: its data differs. */
static void report_bad(const char *type, const struct blk_node *n, uint64_t off, uint64_t len, int r)
{
    json_t *o = sectors(off, len);
    json_object_set_new(o, "type", json_string(type));
    json_object_set_new(o, "node-name", json_string(n->obj.id));
    if (r)
        json_object_set_new(o, "error", json_string(strerror(-r)));
    qmp_event("QUORUM_REPORT_BAD", o);
}

/* ---- one request to all ---- */

enum op { OP_READ, OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH };
static const char *const types[] = { "read", "write", "write", "write", "flush" };

struct ballot;
struct voice { struct ballot *b; struct blk_node *node; uint8_t *buf; int r; unsigned same; };
struct ballot {
    struct blk_quorum *q;
    enum op op;
    uint64_t off, len;
    const struct iovec *iov;
    unsigned niov, flags, n, pending;
    struct co_event done;
    struct voice v[KIDS_MAX];
};

static void speak(void *arg)
{
    struct voice *v = arg;
    struct ballot *b = v->b;
    struct iovec own = { v->buf, b->len };
    switch (b->op) {
    case OP_READ: v->r = v->buf ? co_node_preadv(v->node, b->off, b->len, &own, 1, b->flags) : -ENOMEM; break;
    case OP_WRITE: v->r = co_node_pwritev(v->node, b->off, b->len, b->iov, b->niov, b->flags); break;
    case OP_ZERO: v->r = co_node_zero(v->node, b->off, b->len, b->flags); break;
    case OP_DISCARD: v->r = co_node_discard(v->node, b->off, b->len); break;
    case OP_FLUSH: v->r = co_node_flush(v->node); break;
    }
    if (!--b->pending)
        co_wake(&b->done);
}

/* All nodes are asked at once; returns how many succeeded. */
static unsigned co_ask(struct ballot *b)
{
    unsigned good = 0;
    for (unsigned i = 0; i < KIDS_MAX; i++)
        if (b->q->kid[i].node)
            b->v[b->n++] = (struct voice){ .b = b, .node = b->q->kid[i].node, .buf = b->op == OP_READ ? malloc(b->len) : NULL };
    b->pending = b->n;
    for (unsigned i = 0; i < b->n; i++)
        co_spawn(loop_main(), NULL, speak, &b->v[i]);
    co_wait(&b->done);
    for (unsigned i = 0; i < b->n; i++)
        good += !b->v[i].r;
    return good;
}

static void report_errors(const struct ballot *b)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->v[i].r)
            report_bad(types[b->op], b->v[i].node, b->off, b->len, b->v[i].r);
}

/* The error that most of them met. */
static int common_error(const struct ballot *b)
{
    unsigned best = 0;
    int r = -EIO;
    for (unsigned i = 0; i < b->n; i++) {
        unsigned same = 0;
        for (unsigned k = 0; k < b->n; k++)
            same += b->v[i].r && b->v[k].r == b->v[i].r;
        if (same > best) {
            best = same;
            r = b->v[i].r;
        }
    }
    return r;
}

/* A change, or a flush: enough of them did it. */
static int co_all(struct blk_node *n, enum op op, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct ballot *b = xnew(struct ballot);
    *b = (struct ballot){ .q = of(n), .op = op, .off = off, .len = len, .iov = iov, .niov = niov, .flags = flags };
    unsigned good = co_ask(b);
    int r = good >= b->q->threshold ? 0 : common_error(b);
    report_errors(b);
    if (r)
        report_failure(b->q, off, len);
    free(b);
    return r;
}

/* ---- reading ---- */

/* Which answer most of them gave. */
static struct voice *winner(struct ballot *b)
{
    struct voice *best = NULL;
    for (struct voice *v = b->v; v < b->v + b->n; v++) {
        for (struct voice *w = b->v; !v->r && w < b->v + b->n; w++)
            v->same += !w->r && !memcmp(v->buf, w->buf, b->len);
        if (!v->r && (!best || v->same > best->same))
            best = v;
    }
    return best;
}

/* Those who answered something else are told of, and corrected. */
static void co_correct(struct ballot *b, const struct voice *right)
{
    struct blk_quorum *q = b->q;
    struct iovec v = { right->buf, b->len };
    for (unsigned i = 0; i < b->n; i++) {
        if (b->v[i].r || !memcmp(b->v[i].buf, right->buf, b->len))
            continue;
        report_bad("read", b->v[i].node, b->off, b->len, 0);
        int r = q->rewrite && !b->v[i].node->caps.read_only ? co_node_pwritev(b->v[i].node, b->off, b->len, &v, 1, 0) : 0;
        if (r)
            report_bad("write", b->v[i].node, b->off, b->len, r);
    }
}

static int co_decide(struct ballot *b)
{
    unsigned good = co_ask(b);
    report_errors(b);
    if (good < b->q->threshold) {
        report_failure(b->q, b->off, b->len);
        return common_error(b);
    }
    struct voice *right = winner(b);
    if (right->same < b->q->threshold) {
        if (b->q->verify)
            log_warn("quorum '%s': contents mismatch in the %llu bytes at %llu", b->q->node.obj.id, (unsigned long long)b->len,
                     (unsigned long long)b->off);
        report_failure(b->q, b->off, b->len);
        return -EIO;
    }
    co_correct(b, right);
    blk_iov_copy(right->buf, b->iov, b->niov, 0, b->len, true);
    return 0;
}

/* The first that can be read. */
static int co_read_fifo(struct blk_quorum *q, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = -EIO;
    for (unsigned i = 0; i < KIDS_MAX; i++) {
        struct blk_node *k = q->kid[i].node;
        if (!k)
            continue;
        r = co_node_preadv(k, off, len, iov, niov, flags);
        if (!r)
            return 0;
        report_bad("read", k, off, len, r);
    }
    report_failure(q, off, len);
    return r;
}

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    if (of(n)->pattern == PATTERN_FIFO)
        return co_read_fifo(of(n), off, len, iov, niov, flags);
    struct ballot *b = xnew(struct ballot);
    *b = (struct ballot){ .q = of(n), .op = OP_READ, .off = off, .len = len, .iov = iov, .niov = niov, .flags = flags };
    int r = co_decide(b);
    for (unsigned i = 0; i < b->n; i++)
        free(b->v[i].buf);
    free(b);
    return r;
}

/* ---- changes ---- */

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    uint8_t *copy = malloc(len);        /* the guest may change its memory between one node and the next */
    struct iovec v = { copy, len };
    if (!copy)
        return -ENOMEM;
    blk_iov_copy(copy, iov, niov, 0, len, false);
    int r = co_all(n, OP_WRITE, off, len, &v, 1, flags);
    free(copy);
    return r;
}
static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    return co_all(n, OP_ZERO, off, len, NULL, 0, flags & ~(unsigned)BLK_ZERO_NO_FALLBACK);
}
static int co_discard(struct blk_node *n, uint64_t off, uint64_t len) { return co_all(n, OP_DISCARD, off, len, NULL, 0, 0); }
static int co_flush(struct blk_node *n) { return co_all(n, OP_FLUSH, 0, 0, NULL, 0, 0); }

/* Zeroes where all say so. */
static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    *out = (struct blk_extent){ .len = len, .zero = true };
    for (unsigned i = 0; i < KIDS_MAX; i++) {
        struct blk_extent x;
        if (!of(n)->kid[i].node)
            continue;
        int r = co_node_map(of(n)->kid[i].node, off, out->len, &x);
        if (r)
            return r;
        out->len = MIN(out->len, x.len);
        out->data |= x.data;
        out->zero &= x.zero;
    }
    out->data |= !out->zero;
    return 0;
}

/* ---- life ---- */

/* What all of them can. */
static void find_caps(struct blk_node *n)
{
    bool first = true;
    for (unsigned i = 0; i < KIDS_MAX; i++) {
        struct blk_node *k = of(n)->kid[i].node;
        if (!k)
            continue;
        struct blk_caps all = n->caps;
        blk_caps_inherit(n, k);
        if (!first) {
            n->caps.read_only |= all.read_only;
            n->caps.discard &= all.discard;
            n->caps.logical_block = MAX(n->caps.logical_block, all.logical_block);
            n->caps.mem_align = MAX(n->caps.mem_align, all.mem_align);
        }
        first = false;
    }
    n->caps.grows = false;
}

static bool same_size(const struct blk_quorum *q, const struct blk_node *k, struct err *e)
{
    for (unsigned i = 0; i < KIDS_MAX; i++) {
        const struct blk_node *o = q->kid[i].node;
        if (o && o != k && atomic_load(&o->size) != atomic_load(&k->size))
            return err_set(e, ERR_VALUE, "'%s' is not as long as '%s'", k->obj.id, o->obj.id);
    }
    return true;
}

static bool check_options(const struct blk_quorum *q, struct err *e)
{
    size_t n = json_array_size(q->children);
    if (!json_is_array(q->children) || !n || n > KIDS_MAX)
        return err_set(e, ERR_VALUE, "'children' is a list of 1 to %d nodes", KIDS_MAX);
    if (q->threshold > n)
        return err_set(e, ERR_VALUE, "vote-threshold is %u, but there are %zu children", q->threshold, n);
    if (q->verify && (n != 2 || q->threshold != 2))
        return err_set(e, ERR_VALUE, "blkverify=on needs two children and vote-threshold=2");
    if (q->rewrite && (q->verify || q->pattern == PATTERN_FIFO))
        return err_set(e, ERR_VALUE, "rewrite-corrupted=on needs a vote: read-pattern=quorum without blkverify");
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_quorum *q = of(n);
    json_t *v;
    size_t i;
    if (!check_options(q, e))
        return false;
    json_array_foreach(q->children, i, v) {
        char role[40];
        snprintf(role, sizeof role, "children.%zu", i);
        if (!blk_child_open_at(n, &q->kid[i], role, v, 0, BLK_PERM_ALL, e) || !same_size(q, q->kid[i].node, e))
            return false;
    }
    find_caps(n);
    n->read_only |= n->caps.read_only;
    return true;
}

static void co_close(struct blk_node *n)
{
    for (unsigned i = 0; i < KIDS_MAX; i++)
        blk_child_close_at(&of(n)->kid[i]);
}

/* Who reads may make us write. */
static unsigned perm_of(const struct blk_quorum *q, unsigned perm)
{
    return perm | (q->rewrite && !q->node.read_only && (perm & BLK_PERM_READ) ? BLK_PERM_WRITE : 0);
}

static bool set_perm(struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    struct blk_quorum *q = of(n);
    unsigned old[KIDS_MAX], old_shared[KIDS_MAX];
    for (unsigned i = 0; i < KIDS_MAX; i++) {
        struct blk_use *u = &q->kid[i];
        old[i] = u->perm;
        old_shared[i] = u->shared;
        if (!u->node || blk_use_change(u, perm_of(q, perm), shared, e))
            continue;
        struct err none = ERR_INIT;
        while (i--)
            if (q->kid[i].node && !blk_use_change(&q->kid[i], old[i], old_shared[i], &none))
                log_warn("quorum '%s': %s", n->obj.id, none.msg);
        return false;
    }
    return true;
}

static bool co_child_add(struct blk_node *n, struct blk_node *child, struct err *e)
{
    struct blk_quorum *q = of(n);
    unsigned i = 0;
    while (i < KIDS_MAX && q->kid[i].node)
        i++;
    if (q->verify || i == KIDS_MAX)
        return err_set(e, ERR_STATE, q->verify ? "a quorum with blkverify=on has two children" : "a quorum has at most %d children", KIDS_MAX);
    if (!same_size(q, child, e) || !blk_child_attach(n, &q->kid[i], child, perm_of(q, n->perm), n->shared, e))
        return false;
    find_caps(n);
    return true;
}

static bool co_child_del(struct blk_node *n, const char *name, struct err *e)
{
    struct blk_quorum *q = of(n);
    uint64_t i = KIDS_MAX;
    if (!str_starts(name, "children.") || !parse_u64(name + strlen("children."), &i) || i >= KIDS_MAX || !q->kid[i].node)
        return err_set(e, ERR_UNKNOWN, "quorum '%s' has no child '%s'", n->obj.id, name);
    if (count(q) <= q->threshold)
        return err_set(e, ERR_STATE, "The number of children cannot be lower than the vote threshold %u", q->threshold);
    blk_child_close_at(&q->kid[i]);
    find_caps(n);
    return true;
}

static const struct prop props[] = {
    PROP_JSON(struct blk_quorum, children, "children", PF_REQUIRED, "Nodes of the same length"),
    { .name = "vote-threshold", .doc = "How many must agree on what is read, and do what is written", .type = PROP_T_U32, .flags = PF_REQUIRED,
      PROP_OFF(struct blk_quorum, threshold), .min = 1, .max = KIDS_MAX },
    PROP_BOOL(struct blk_quorum, verify, "blkverify", false, "Two nodes are compared: every difference is an error and is told"),
    PROP_BOOL(struct blk_quorum, rewrite, "rewrite-corrupted", false, "Nodes that differ from the vote are written anew"),
    PROP_ENUM(struct blk_quorum, pattern, "read-pattern", patterns, PATTERN_QUORUM, "quorum: all are read and compared; fifo: the first that can be read"),
    PROP_END,
};
static const struct blk_driver quorum_driver = {
    .obj = { .name = "blockdev-quorum", .desc = "Several copies of the data, and a vote on what is read", .base = &blk_node_class,
             .size = sizeof(struct blk_quorum), .props = props },
    .co_open = co_open, .co_close = co_close, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero, .co_discard = co_discard,
    .co_flush = co_flush, .co_map = co_map, .set_perm = set_perm, .co_child_add = co_child_add, .co_child_del = co_child_del,
};
OBJ_CLASS(&quorum_driver.obj);
