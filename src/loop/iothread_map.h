/* SPDX-License-Identifier: MIT */
/*
 * Which of several threads serves which queue of a device: an option with a list of objects, each with the id of an iothread and,
 * in all of them or in none, the numbers of its queues.
 */
#ifndef LOOP_IOTHREAD_MAP_H
#define LOOP_IOTHREAD_MAP_H

#include <jansson.h>
#include "core/obj.h"
#include "loop/loop.h"

/* How a device words it. */
struct iothread_map_words {
    const char *option;                 /* the option's name */
    const char *key;                    /* of the list of queues in each object */
    const char *last;                   /* what the highest number comes from, "num-queues - 1" */
};
/* The threads that are in use; zero-initialised is none. */
struct iothread_map { struct obj **threads; unsigned n; };

/*
 * Gives each queue from @first to @last a loop in @queue[] (indexed by number, NULL at first): as @list says, or in turns where it
 * names no queues; what no list names stays NULL. The threads are held until iothread_map_clear(). False with @e filled, and nothing
 * held. Main loop.
 */
bool iothread_map_set(struct iothread_map *m, json_t *list, const struct iothread_map_words *w, struct loop **queue, unsigned first,
                      unsigned last, struct err *e) MUST_CHECK;
void iothread_map_clear(struct iothread_map *m);

#endif
