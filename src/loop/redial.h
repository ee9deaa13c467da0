/* SPDX-License-Identifier: MIT */
/* A client that calls again: attempts to connect, in the background, until one succeeds. Main loop. */
#ifndef LOOP_REDIAL_H
#define LOOP_REDIAL_H

#include "loop/sock_place.h"

struct redial_try;
struct redial {
    const struct sock_place *place;     /* the owner's */
    uint32_t ms;                        /* between two attempts; 0: redial_again() does nothing */
    const char *kind, *id;              /* "chardev", its name: for messages, which come once for each new reason */
    void (*connected)(void *arg, int fd, const struct sock_addr *at);
    void *arg;
    /* its own */
    struct timer timer;
    struct redial_try *attempt;
    int last_errno;
};

void redial_start(struct redial *r);    /* the first attempt, at once; after the options above were set */
void redial_again(struct redial *r);    /* the next one, after the pause; also where it was never started */
void redial_stop(struct redial *r);     /* likewise */

#endif
