/* SPDX-License-Identifier: MIT */
/*
 * "faults": a node whose requests fail, wait, or come back altered as rules say. A rule matches by operation, range, count and
 * probability (with a seed, so that a run can be repeated); the first that matches acts, and counts it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/random.h"
#include "block/filter.h"

enum op { OP_ANY, OP_READ, OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH, OPS };
static const char *const op_names[] = { "any", "read", "write", "zero", "discard", "flush", NULL };
static const struct { const char *name; int v; } errnos[] = {
    { "none", 0 }, { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EACCES", EACCES }, { "EROFS", EROFS },
    { "ETIMEDOUT", ETIMEDOUT }, { "EAGAIN", EAGAIN }, { "EDQUOT", EDQUOT }, { "EBUSY", EBUSY }, { "ENOTSUP", ENOTSUP },
};
enum { MAX_RULES = 64, DELAY_LOOK_NS = 200000000 };

struct rule {
    int op;
    uint64_t offset, length, after, count, delay_ns, percent_millis;
    char *error;
    bool corrupt;
    int errno_;
    uint64_t seen, hits;
};

struct blk_faults {
    struct blk_node node;
    json_t *file, *rules_opt;
    uint64_t seed, rng;
    struct rule *rules;
    unsigned n;
    uint64_t requests[OPS], hit;
    unsigned delayed;               /* requests that wait */
    bool hurry;                     /* from now on none does */
};

static const struct prop rule_props[] = {
    PROP_ENUM(struct rule, op, "op", op_names, OP_ANY, "Which requests"),
    PROP_SIZE(struct rule, offset, "offset", 0, 0, INT64_MAX, "First byte of the range"),
    PROP_SIZE(struct rule, length, "length", 0, 0, INT64_MAX, "Length of the range; 0: to the end"),
    PROP_U64(struct rule, after, "after", 0, 0, UINT64_MAX, "How many matching requests pass first"),
    PROP_U64(struct rule, count, "count", 0, 0, UINT64_MAX, "How many are hit; 0: all"),
    PROP_U64(struct rule, percent_millis, "probability", 100000, 0, 100000, "Of a hit, in thousandths of a percent"),
    PROP_U64(struct rule, delay_ns, "delay-ns", 0, 0, 3600000000000, "Nanoseconds that the request waits"),
    PROP_STR(struct rule, error, "errno", 0, "Error that the request gets (EIO, ENOSPC...); none: it is carried out"),
    PROP_BOOL(struct rule, corrupt, "corrupt", false, "One bit of the data is flipped"),
    PROP_END,
};

static struct blk_faults *of(struct blk_node *n) { return (struct blk_faults *)n; }

static const char *errno_name(const void *table, size_t i) { return i < ARRAY_SIZE(errnos) ? errnos[i].name : NULL; }

static bool parse_rule(struct rule *r, json_t *v, struct err *e)
{
    prop_defaults(rule_props, r);
    if (!json_is_object(v))
        return err_set(e, ERR_VALUE, "it is not an object");
    if (!prop_set_all(rule_props, r, NULL, v, "a rule", e))
        return false;
    bool known = !r->error;
    for (size_t i = 0; i < ARRAY_SIZE(errnos) && r->error; i++)
        if (!strcmp(errnos[i].name, r->error)) {
            r->errno_ = errnos[i].v;
            known = true;
        }
    if (!known)
        return err_unknown(e, "errno", r->error, "", errno_name, NULL);
    if (!r->errno_ && !r->delay_ns && !r->corrupt)
        return err_set(e, ERR_VALUE, "a rule without errno, delay-ns or corrupt has no effect");
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct blk_faults *s = of(n);
    if (!json_is_array(s->rules_opt) || !json_array_size(s->rules_opt) || json_array_size(s->rules_opt) > MAX_RULES)
        return err_set(e, ERR_VALUE, "'rules' is a list of 1 to %d rules", MAX_RULES);
    s->rules = xcalloc(json_array_size(s->rules_opt), sizeof *s->rules);
    for (; s->n < json_array_size(s->rules_opt); s->n++)
        if (!parse_rule(&s->rules[s->n], json_array_get(s->rules_opt, s->n), e)) {
            s->n++;
            return err_prefix(e, "rules.%u", s->n - 1);
        }
    if (!co_filter_open(n, s->file, e))
        return false;
    s->rng = s->seed;
    return true;
}

static void co_close(struct blk_node *n)
{
    struct blk_faults *s = of(n);
    for (unsigned i = 0; i < s->n; i++)
        prop_release(rule_props, &s->rules[i]);
    free(s->rules);
    s->n = 0;
    co_filter_close(n);
}

/* The program ends: nobody is made to wait any longer. */
static bool abandon(struct blk_node *n, int64_t since)
{
    bool any = of(n)->delayed && !of(n)->hurry;
    of(n)->hurry = true;
    return any;
}

static void co_delay(struct blk_faults *s, int64_t ns)
{
    s->delayed++;
    for (int64_t now = clock_now(CLOCK_HOST), end = now + ns; now < end && !s->hurry; now = clock_now(CLOCK_HOST))
        co_sleep_until(CLOCK_HOST, MIN(end, now + DELAY_LOOK_NS));
    s->delayed--;
}

/* The rule that hits this request, after its delay; NULL: none. */
static struct rule *co_match(struct blk_faults *s, enum op op, uint64_t off, uint64_t len)
{
    s->requests[op]++;
    for (unsigned i = 0; i < s->n; i++) {
        struct rule *r = &s->rules[i];
        bool here = op == OP_FLUSH || ranges_overlap(off, len, r->offset, r->length ? r->length : INT64_MAX);
        if ((r->op != OP_ANY && r->op != (int)op) || !here || r->seen++ < r->after || (r->count && r->hits >= r->count))
            continue;
        if (r->percent_millis < 100000 && random_next(&s->rng) % 100000 >= r->percent_millis)
            continue;
        r->hits++;
        s->hit++;
        co_delay(s, (int64_t)r->delay_ns);
        return r;
    }
    return NULL;
}

static void flip_bit(struct blk_faults *s, uint8_t *p, uint64_t len) { p[random_next(&s->rng) % len] ^= (uint8_t)(1 << random_next(&s->rng) % 8); }

static int co_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct rule *r = co_match(of(n), OP_READ, off, len);
    if (r && r->errno_)
        return -r->errno_;
    int x = co_filter_read(n, off, len, iov, niov, flags);
    if (!x && r && r->corrupt) {
        uint64_t at = random_next(&of(n)->rng) % len;
        uint8_t b;
        blk_iov_copy(&b, iov, niov, at, 1, false);
        flip_bit(of(n), &b, 1);
        blk_iov_copy(&b, iov, niov, at, 1, true);
    }
    return x;
}

static int co_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    struct rule *r = co_match(of(n), OP_WRITE, off, len);
    if (r && r->errno_)
        return -r->errno_;
    if (r && r->corrupt) {          /* the guest's memory stays as it is */
        uint8_t *copy = malloc(len);
        struct iovec v = { copy, len };
        if (!copy)
            return -ENOMEM;
        blk_iov_copy(copy, iov, niov, 0, len, false);
        flip_bit(of(n), copy, len);
        int x = co_filter_write(n, off, len, &v, 1, flags);
        free(copy);
        return x;
    }
    return co_filter_write(n, off, len, iov, niov, flags);
}

static int co_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct rule *r = co_match(of(n), OP_ZERO, off, len);
    return r && r->errno_ ? -r->errno_ : co_filter_zero(n, off, len, flags);
}

static int co_discard(struct blk_node *n, uint64_t off, uint64_t len)
{
    struct rule *r = co_match(of(n), OP_DISCARD, off, len);
    return r && r->errno_ ? -r->errno_ : co_filter_discard(n, off, len);
}

static int co_flush(struct blk_node *n)
{
    struct rule *r = co_match(of(n), OP_FLUSH, 0, 0);
    return r && r->errno_ ? -r->errno_ : co_filter_flush(n);
}

static int co_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out)
{
    struct blk_faults *s = of(n);
    uint64_t from = UINT64_MAX, to = 0;
    for (unsigned i = 0; i < s->n; i++) {
        const struct rule *r = &s->rules[i];
        if ((r->op != OP_ANY && r->op != OP_READ) || (r->count && r->hits >= r->count))
            continue;
        from = MIN(from, r->offset);
        to = MAX(to, r->length && range_ok(r->offset, r->length, UINT64_MAX) ? r->offset + r->length : UINT64_MAX);
    }
    return co_filter_map_read(n, off, len, out, from, to);
}

#define COUNTER(i, n, ds) { .name = n, .doc = ds, .type = PROP_T_U64, .flags = PF_READONLY, PROP_OFF(struct blk_faults, i) }
static const struct prop props[] = {
    PROP_JSON(struct blk_faults, file, "file", PF_REQUIRED, "Node below"),
    PROP_JSON(struct blk_faults, rules_opt, "rules", PF_REQUIRED,
              "List of rules: op, offset, length, after, count, probability, delay-ns, errno, corrupt (rules.0.op=write,rules.0.errno=EIO)"),
    PROP_U64(struct blk_faults, seed, "seed", 1, 0, UINT64_MAX, "For probability and corrupt: the same seed gives the same faults"),
    COUNTER(requests[OP_READ], "reads", "Reads so far"),
    COUNTER(requests[OP_WRITE], "writes", "Writes so far"),
    COUNTER(requests[OP_FLUSH], "flushes", "Flushes so far"),
    COUNTER(hit, "hits", "Requests that a rule hit"),
    PROP_END,
};

static const struct blk_driver faults_driver = {
    .obj = { .name = "blockdev-faults", .desc = "Requests fail, wait or are altered as rules say; for tests", .base = &blk_node_class,
             .size = sizeof(struct blk_faults), .props = props },
    .flags = BLK_FILTER, .co_open = co_open, .co_close = co_close, .abandon = abandon, .co_preadv = co_read, .co_pwritev = co_write, .co_zero = co_zero,
    .co_discard = co_discard, .co_flush = co_flush, .co_resize = co_filter_resize, .co_map = co_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&faults_driver.obj);
