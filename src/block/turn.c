/* SPDX-License-Identifier: MIT */
/* Turns at the graph: who changes it does so alone in the part that it changes. */
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/job.h"
#include "core/cmd.h"

/* What a turn is about: a node, or what a handle names whenever one looks. One of the two, or neither, where it is gone. */
struct key { struct blk_node *n; struct blk *b; };

struct blk_turn {
    struct list link;               /* of all, in the order in which they asked */
    struct key *v;
    size_t n, cap;
};

static struct list turns = LIST_INIT(turns);
static struct co_queue over;        /* waits for the end of one */

/* ---- what it is about ---- */

static void add(struct blk_turn *t, struct blk_node *n, struct blk *b)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 4;
        t->v = xrealloc(t->v, t->cap * sizeof *t->v);
    }
    t->v[t->n++] = (struct key){ n, b };
}

void blk_turn_add(struct blk_turn *t, struct blk_node *n) { add(t, n, NULL); }

static void add_named(struct blk_turn *t, const char *name)
{
    struct err none = ERR_INIT;
    struct blk_node *n = blk_node_find(name, &none);
    struct blk *b = blk_of_device(name, &none);
    struct job *j = job_find(name);
    if (n)
        blk_turn_add(t, n);
    if (b) {
        add(t, NULL, b);
        blk_turn_add(t, b->use.node);       /* it may leave the handle before we end */
    }
    if (j)
        job_turn_keys(t, j);
}

/* Whatever string names something: a file that is called like a node makes a command wait for nothing worse. */
static void add_names(struct blk_turn *t, void *arg)
{
    json_t *v = arg, *sub;
    const char *key;
    size_t i;
    if (json_is_string(v))
        add_named(t, json_string_value(v));
    json_array_foreach(v, i, sub)
        add_names(t, sub);
    json_object_foreach(v, key, sub)
        add_names(t, sub);
}

void blk_turn_forget(const struct blk_node *n, const struct blk *b)
{
    struct blk_turn *t;
    list_for_each(t, &turns, link)
        for (size_t i = 0; i < t->n; i++) {
            t->v[i].n = t->v[i].n == n ? NULL : t->v[i].n;
            t->v[i].b = t->v[i].b == b ? NULL : t->v[i].b;
        }
}

/* ---- the parts of the graph: nodes that uses tie together ---- */

static struct blk_node *part_of(struct blk_node *n)
{
    while (n->part != n)
        n = n->part = n->part->part;
    return n;
}

static void find_parts(void)
{
    struct blk_node *n;
    struct blk_use *u;
    list_for_each(n, &blk_nodes, in_all)
        n->part = n;
    list_for_each(n, &blk_nodes, in_all)
        list_for_each(u, &n->uses, link)
            if (u->parent)
                part_of(n)->part = part_of(u->parent);
}

static struct blk_node *node_of(const struct key *k) { return k->b ? k->b->use.node : k->n; }

static bool same_part(const struct blk_turn *a, const struct blk_turn *b)
{
    for (size_t i = 0; i < a->n; i++)
        for (size_t k = 0; k < b->n; k++) {
            struct blk_node *x = node_of(&a->v[i]), *y = node_of(&b->v[k]);
            if (x && y && part_of(x) == part_of(y))
                return true;
        }
    return false;
}

/* Whether one that asked before @t is at the same part. */
static bool must_wait(const struct blk_turn *t)
{
    const struct blk_turn *before;
    if (t->link.prev == &turns)
        return false;
    find_parts();
    list_for_each(before, &turns, link) {
        if (before == t)
            break;
        if (same_part(before, t))
            return true;
    }
    return false;
}

/* ---- taking turns ---- */

struct blk_turn *co_blk_turn_begin(void (*keys)(struct blk_turn *, void *arg), void *arg)
{
    struct blk_turn *t = xnew(struct blk_turn);
    list_push(&turns, &t->link);
    for (keys(t, arg); must_wait(t); keys(t, arg)) {    /* what names mean may be another thing after a wait */
        co_queue_wait(&over);
        t->n = 0;
    }
    return t;
}

struct blk_turn *co_blk_turn_named(json_t *names) { return co_blk_turn_begin(add_names, names); }

void blk_turn_end(struct blk_turn *t)
{
    list_del(&t->link);
    free(t->v);
    free(t);
    co_queue_wake_all(&over);
}

static void *co_begin(json_t *args) { return co_blk_turn_named(args); }
static void end(void *turn) { blk_turn_end(turn); }
const struct cmd_turn blk_graph_turn = { co_begin, end };
