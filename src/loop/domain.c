/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <stdlib.h>
#include "base/str.h"
#include "loop/loop.h"

struct domain {
    pthread_mutex_t lock;
    struct loop *loop;
    const char *name;
};

/* The one domain this thread holds (design: at most one). */
static _Thread_local struct domain *held;

struct domain *domain_new(struct loop *l, const char *name)
{
    struct domain *d = xnew(struct domain);
    pthread_mutex_init(&d->lock, NULL);
    d->loop = l;
    d->name = name;
    return d;
}

void domain_free(struct domain *d)
{
    if (!d)
        return;
    assert(held != d);
    pthread_mutex_lock(&d->lock);       /* whoever said inside that he is done may not have left yet */
    pthread_mutex_unlock(&d->lock);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

struct loop *domain_loop(const struct domain *d) { return d->loop; }
struct domain *domain_current(void) { return held; }
bool domain_locked(const struct domain *d) { return held == d; }

void domain_lock(struct domain *d)
{
    assert(!held);      /* a second domain is reached by a post, an irq line or an eventfd, never by a call */
    pthread_mutex_lock(&d->lock);
    held = d;
}

void domain_unlock(struct domain *d)
{
    assert(held == d);
    held = NULL;
    pthread_mutex_unlock(&d->lock);
}

void domain_call(struct domain *d, void (*fn)(void *arg), void *arg)
{
    domain_lock(d);
    fn(arg);
    domain_unlock(d);
}
