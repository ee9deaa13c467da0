/* SPDX-License-Identifier: MIT */
/*
 * The way out waits for what is under way, but not for ever. Peers that say nothing: who waits for one is told that it failed. What
 * nobody here can end, a request that the kernel keeps: where nothing at all ends any more, the program does.
 */
#include "block/abandon.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/blk_int.h"
#include "core/run.h"

enum { HUNG_MINUTES = 10 };                 /* a slow disk may need them for one flush */
#define SILENT_NS INT64_C(30000000000)      /* a flush may take its time */
#define HUNG_NS (HUNG_MINUTES * INT64_C(60000000000))
#define LOOK_NS INT64_C(1000000000)

static struct timer timer;

/* What changes as long as there is something that ends. */
struct progress { uint64_t ended, handles, nodes; };

static void add_up(struct blk *b, void *arg)
{
    struct progress *p = arg;
    p->handles++;
    for (unsigned i = 0; i < BLK_OPS; i++)
        p->ended += atomic_load(&b->stats[i].ops) + atomic_load(&b->stats[i].failed);
}

static void look_for_any(struct blk *b, void *any) { *(bool *)any |= atomic_load(&b->in_flight) > 0; }

bool blk_any_in_flight(void)
{
    bool any = false;
    blk_each(look_for_any, &any);
    return any;
}

static void tell(struct blk *b, void *arg)
{
    if (atomic_load(&b->in_flight))
        log_warn("%s: block node '%s' has not answered for %d minutes", b->use.who, b->node->obj.id, HUNG_MINUTES);
}

static void end_if_hung(int64_t now)
{
    static struct progress last;
    static int64_t since;
    struct progress p = { 0 };
    struct blk_node *n;
    blk_each(add_up, &p);
    list_for_each(n, &blk_nodes, in_all)
        p.nodes++;
    if (!since || memcmp(&p, &last, sizeof p)) {
        last = p;
        since = now;
    } else if (now - since >= HUNG_NS) {
        blk_each(tell, NULL);
        log_warn("the program ends without what is under way");
        exit(1);
    }
}

void blk_end_look(int64_t now)
{
    struct blk_node *n;
    list_for_each(n, &blk_nodes, in_all)
        if (BLK_DRIVER(n)->abandon && BLK_DRIVER(n)->abandon(n, now - SILENT_NS))
            log_warn("block node '%s' does not answer, and the program ends: its requests fail", n->obj.id);
    end_if_hung(now);
}

static void look(void *unused)
{
    int64_t now = clock_now(CLOCK_HOST);
    blk_end_look(now);
    timer_arm(&timer, now + LOOK_NS);
}

static void begin(void)
{
    timer_init(&timer, CLOCK_HOST, loop_main(), NULL, look, NULL);
    timer_arm(&timer, clock_now(CLOCK_HOST) + LOOK_NS);
}
static const struct run_end abandon = { "silent storage", RUN_END_MACHINE - 10, begin };
RUN_END(&abandon);
