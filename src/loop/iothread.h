/* SPDX-License-Identifier: MIT */
/* `-object iothread,id=ID`: a loop with a thread of its own that devices choose with iothread=ID. */
#ifndef LOOP_IOTHREAD_H
#define LOOP_IOTHREAD_H

#include "core/obj.h"

struct loop;

extern const struct obj_class iothread_class;
/* The loop of an iothread; the main loop where @o is NULL. Main loop. */
struct loop *iothread_loop(struct obj *o);

#endif
