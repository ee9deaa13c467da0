/* SPDX-License-Identifier: MIT */
#include "hw/nvme/timing.h"

#include <stdlib.h>
#include "base/str.h"

#define ROWS_MAX 64u
#define DIES_MAX 4096u

struct row { uint64_t bytes, read_ns, write_ns; };

struct nvme_timing {
    uint64_t read_ns, write_ns, other_ns, read_bps, write_bps, die_bytes;
    uint32_t dies;
    json_t *table;
    /* made of it */
    struct row row[ROWS_MAX];
    unsigned n_rows;
    int64_t channel_busy, *die_busy;    /* CLOCK_VM */
};

#define NS_MAX UINT64_C(3600000000000)
static const struct prop timing_props[] = {
    PROP_U64(struct nvme_timing, read_ns, "read-ns", 0, 0, NS_MAX, "Latency of a read or compare, of each piece where there are dies"),
    PROP_U64(struct nvme_timing, write_ns, "write-ns", 0, 0, NS_MAX, "Latency of a write or append, of each piece where there are dies"),
    PROP_U64(struct nvme_timing, other_ns, "other-ns", 0, 0, NS_MAX, "Latency of any other I/O command"),
    PROP_U64(struct nvme_timing, read_bps, "read-bytes-per-s", 0, 0, UINT64_C(1) << 40, "Bandwidth to the host; 0: no limit"),
    PROP_U64(struct nvme_timing, write_bps, "write-bytes-per-s", 0, 0, UINT64_C(1) << 40, "Bandwidth from the host; 0: no limit"),
    PROP_U32(struct nvme_timing, dies, "dies", 0, 0, DIES_MAX, "Dies that the blocks are spread over; each does one piece at a time. 0: commands do not wait for each other"),
    PROP_SIZE(struct nvme_timing, die_bytes, "die-bytes", 16 * KiB, 512, GiB, "Bytes of a piece: the next ones are on the next die"),
    PROP_JSON(struct nvme_timing, table, "table", 0, "Latencies by size, a list of [bytes, read-ns, write-ns] in rising order: the first row with as many bytes counts"),
    PROP_END
};

/* ---- waiting ---- */

static void look(void *arg) { co_queue_wake_all(&((struct nvme_wait *)arg)->q); }

static void due(void *arg)
{
    ((struct nvme_wait *)arg)->due = true;
    look(arg);
}

void co_nvme_wait_until(struct nvme_req *r, int64_t deadline, bool abortable)
{
    struct nvme *n = r->n;
    struct nvme_wait w = { .loop = loop_current(), .look = { .fn = look, .arg = &w } };
    struct timer t;

    if (deadline <= clock_now(CLOCK_VM))
        return;
    timer_init(&t, CLOCK_VM, w.loop, NULL, due, &w);
    timer_arm(&t, deadline);
    list_push(&n->waits, &w.link);
    r->delayed = abortable;
    while (!w.due && !(abortable && r->abort) && !n->quiesced && !nvme_stale(r))
        co_queue_wait(&w.q);
    r->delayed = false;
    list_del(&w.link);
    loop_post_cancel(w.loop, &w.look);
    timer_fini(&t);
}

void nvme_waits_look(struct nvme *n)
{
    struct nvme_wait *w;

    list_for_each(w, &n->waits, link)
        loop_post(w->loop, &w->look);
}

/* ---- the model ---- */

static uint64_t latency(const struct nvme_timing *t, bool write, uint64_t bytes)
{
    for (unsigned i = 0; i < t->n_rows; i++)
        if (t->row[i].bytes >= bytes || i + 1 == t->n_rows)
            return write ? t->row[i].write_ns : t->row[i].read_ns;
    return write ? t->write_ns : t->read_ns;
}

/* The channel first, then each die that a piece is on. */
static int64_t transfer(struct nvme_timing *t, uint64_t at, uint64_t bytes, bool write, int64_t now)
{
    uint64_t bps = write ? t->write_bps : t->read_bps;
    int64_t start = now, end;

    if (bps)
        start = t->channel_busy = MAX(t->channel_busy, now) + (int64_t)((unsigned __int128)bytes * 1000000000 / bps);
    if (!t->dies)
        return start + (int64_t)latency(t, write, bytes);
    end = start;
    while (bytes) {
        uint64_t part = MIN(t->die_bytes - at % t->die_bytes, bytes);
        int64_t *busy = &t->die_busy[at / t->die_bytes % t->dies];

        *busy = MAX(*busy, start) + (int64_t)latency(t, write, part);
        end = MAX(end, *busy);
        at += part;
        bytes -= part;
    }
    return end;
}

int64_t nvme_timing_plan(struct nvme_req *r, const struct nvme_op *op)
{
    struct nvme_timing *t = r->n->timing;
    int64_t now = clock_now(CLOCK_VM), end;

    if (!r->sq->id)
        return INT64_MIN;
    if (op->flags & NVME_OP_DATA && r->ns) {
        const struct nvme_ns *ns = r->ns;
        uint64_t bytes = MIN(nvme_nlb(&r->cmd) << ns->shift, nvme_max_transfer(r->n));

        end = transfer(t, ns->base + (nvme_slba(&r->cmd) << ns->shift), bytes, op->flags & NVME_OP_WRITES, now);
    } else {
        end = now + (int64_t)t->other_ns;
    }
    r->n->timed_commands++;
    r->n->timed_ns += (uint64_t)(end - now);
    return end;
}

/* ---- the option ---- */

static void timing_free(struct nvme_timing *t)
{
    if (!t)
        return;
    prop_release(timing_props, t);
    free(t->die_busy);
    free(t);
}

void nvme_timing_free(struct nvme *n)
{
    timing_free(n->timing);
    n->timing = NULL;
}

static bool number(json_t *list, size_t i, uint64_t max, uint64_t *out)
{
    json_t *v = json_array_get(list, i);

    *out = (uint64_t)json_integer_value(v);
    return json_is_integer(v) && json_integer_value(v) >= 0 && *out <= max;
}

static bool rows(struct nvme_timing *t, struct err *e)
{
    json_t *one;
    size_t i;

    if (t->table && (!json_is_array(t->table) || json_array_size(t->table) > ROWS_MAX))
        return err_set(e, ERR_VALUE, "table must be a list of at most %u rows", ROWS_MAX);
    json_array_foreach(t->table, i, one) {
        struct row *x = &t->row[i];

        if (json_array_size(one) != 3 || !number(one, 0, INT64_MAX, &x->bytes) || !number(one, 1, NS_MAX, &x->read_ns) ||
            !number(one, 2, NS_MAX, &x->write_ns) || (i && x->bytes <= x[-1].bytes))
            return err_set(e, ERR_VALUE, "table[%zu] must be [bytes, read-ns, write-ns], with more bytes than the row before", i);
        t->n_rows++;
    }
    return true;
}

struct change { struct nvme *n; struct nvme_timing *t; };

static void swap(void *arg)
{
    struct change *c = arg;
    struct nvme_timing *old = c->n->timing;

    c->n->timing = c->t;
    c->t = old;
}

bool nvme_timing_set(struct nvme *n, json_t *o, struct err *e)
{
    struct change c = { .n = n };

    if (o && !json_is_object(o))
        return err_set(e, ERR_VALUE, "timing must be an object, as in timing.read-ns=80000");
    if (o && json_object_size(o)) {
        c.t = xnew(struct nvme_timing);
        prop_defaults(timing_props, c.t);
        if (!prop_set_all(timing_props, c.t, NULL, o, "timing", e) || !rows(c.t, e)) {
            timing_free(c.t);
            return err_prefix(e, "timing");
        }
        c.t->die_busy = xcalloc(MAX(c.t->dies, 1u), sizeof *c.t->die_busy);
    }
    if (n->pci.dev.realized)
        domain_call(n->pci.dev.dom, swap, &c);
    else
        swap(&c);
    timing_free(c.t);
    return true;
}
