/* SPDX-License-Identifier: MIT */
#include "loop/redial.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "loop/co.h"

struct redial_try { struct redial *r; /* NULL: stopped meanwhile */ };

static void co_attempt(void *arg)
{
    struct redial_try *t = arg;
    struct sock_addr at;
    struct err e = ERR_INIT;
    int fd = co_sock_connect(t->r->place, &at, &e);
    struct redial *r = t->r;
    free(t);
    if (!r) {
        if (fd >= 0)
            close(fd);
        return;
    }
    r->attempt = NULL;
    if (fd >= 0) {
        r->last_errno = 0;
        r->connected(r->arg, fd, &at);
        return;
    }
    if (e.os_errno != r->last_errno || !e.os_errno)
        log_warn("%s '%s': %s; trying again every %u ms", r->kind, r->id, e.msg, r->ms);
    r->last_errno = e.os_errno;
    redial_again(r);
}

static void attempt(void *arg)
{
    struct redial *r = arg;
    if (r->attempt)
        return;
    r->attempt = xnew(struct redial_try);
    r->attempt->r = r;
    co_spawn(loop_main(), NULL, co_attempt, r->attempt);
}

void redial_start(struct redial *r)
{
    timer_init(&r->timer, CLOCK_HOST, loop_main(), NULL, attempt, r);
    attempt(r);
}

void redial_again(struct redial *r)
{
    if (r->timer.loop && r->ms)
        timer_arm(&r->timer, clock_now(CLOCK_HOST) + (int64_t)r->ms * 1000000);
}

void redial_stop(struct redial *r)
{
    if (r->attempt)
        r->attempt->r = NULL;
    r->attempt = NULL;
    if (r->timer.loop)
        timer_fini(&r->timer);
    r->timer.loop = NULL;
}
