/* SPDX-License-Identifier: MIT */
/* `-object iothread,id=ID`: a loop with a thread of its own that devices choose with iothread=ID. */
#ifndef LOOP_IOTHREAD_H
#define LOOP_IOTHREAD_H

#include "core/dev.h"

struct loop;

extern const struct obj_class iothread_class;
/* The loop of an iothread; the main loop where @o is NULL. Main loop. */
struct loop *iothread_loop(struct obj *o);
/* The option of a device whose domain lives on an iothread: @f is the link. */
#define DEV_IOTHREAD_ROW(T, f)                                                                                                              \
    { .name = "iothread", .doc = "Thread that serves the device; the main thread if left out", .type = PROP_T_LINK, PROP_OFF(T, f),         \
      .of = &iothread_class, .changed = dev_iothread_changed }
bool dev_iothread_changed(struct obj *o, const struct prop *p, struct err *e);

#endif
