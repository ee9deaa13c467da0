/* SPDX-License-Identifier: MIT */
#include "loop/range_claim.h"

#include <assert.h>
#include "base/bits.h"

void range_claims_init(struct range_claims *s)
{
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->held);
    s->n_alone = 0;
}

void range_claims_fini(struct range_claims *s)
{
    assert(list_empty(&s->held));
    pthread_mutex_destroy(&s->lock);
}

static bool collide(const struct range_claim *a, const struct range_claim *b)
{
    return (a->alone || b->alone) && ranges_overlap(a->start, a->len, b->start, b->len);
}

/* An earlier one is to be done first. The lock held. */
static bool must_wait(const struct range_claims *s, const struct range_claim *c)
{
    const struct range_claim *x;

    if (!s->n_alone)
        return false;
    list_for_each(x, &s->held, link) {
        if (x == c)
            return false;
        if (collide(x, c))
            return true;
    }
    return false;
}

static void told(void *arg)
{
    struct range_claim *c = arg;

    co_wake(&c->turn);
}

void co_range_claim(struct range_claims *s, struct range_claim *c, uint64_t start, uint64_t len, bool alone)
{
    bool wait;

    *c = (struct range_claim){ .start = start, .len = len, .alone = alone, .loop = loop_current(), .post = { .fn = told, .arg = c } };
    pthread_mutex_lock(&s->lock);
    list_push(&s->held, &c->link);
    s->n_alone += alone;
    c->waiting = wait = must_wait(s, c);
    pthread_mutex_unlock(&s->lock);
    if (wait)
        co_wait(&c->turn);
}

void range_release(struct range_claims *s, struct range_claim *c)
{
    struct range_claim *x;

    pthread_mutex_lock(&s->lock);
    list_del(&c->link);
    s->n_alone -= c->alone;
    list_for_each(x, &s->held, link)
        if (x->waiting && collide(x, c) && !must_wait(s, x)) {
            x->waiting = false;
            loop_post(x->loop, &x->post);
        }
    pthread_mutex_unlock(&s->lock);
}
