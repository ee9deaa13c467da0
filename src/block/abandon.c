/* SPDX-License-Identifier: MIT */
/* The way out waits for what is under way, but not for ever for peers that say nothing: who waits for one is told that it failed. */
#include "base/log.h"
#include "block/blk_int.h"
#include "core/run.h"

#define SILENT_NS INT64_C(30000000000)      /* a flush may take its time */
#define LOOK_NS INT64_C(1000000000)

static struct timer timer;

static void look(void *unused)
{
    int64_t now = clock_now(CLOCK_HOST);
    struct blk_node *n;
    list_for_each(n, &blk_nodes, in_all)
        if (BLK_DRIVER(n)->abandon && BLK_DRIVER(n)->abandon(n, now - SILENT_NS))
            log_warn("block node '%s' does not answer, and the program ends: its requests fail", n->obj.id);
    timer_arm(&timer, now + LOOK_NS);
}

static void begin(void)
{
    timer_init(&timer, CLOCK_HOST, loop_main(), NULL, look, NULL);
    timer_arm(&timer, clock_now(CLOCK_HOST) + LOOK_NS);
}
static const struct run_end abandon = { "silent storage", RUN_END_MACHINE - 10, begin };
RUN_END(&abandon);
