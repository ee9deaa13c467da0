/* SPDX-License-Identifier: MIT */
/*
 * Requests under way, in memory that the front end keeps: a back end that comes after one that died does them again, in their order.
 * vhost-user, "Inflight I/O tracking". What stands there is not trusted.
 */
#include <stdlib.h>
#include "vhost_user/vu_int.h"

uint64_t vu_slots_size(unsigned ring_size)
{
    return align_up(sizeof(struct vu_slots) + (uint64_t)ring_size * sizeof(struct vu_slot), VU_SLOTS_ALIGN);
}

void vu_slots_begin(struct vu_ring *r, uint16_t head)
{
    if (!r->slots)
        return;
    r->slots->v[head].counter = r->counter++;
    __atomic_store_n(&r->slots->v[head].inflight, 1, __ATOMIC_RELEASE);
}

/* The used ring is at @used_idx already: with the batch's head before it, and this after it, a death in between can be told. */
void vu_slots_end(struct vu_ring *r, uint16_t head, uint16_t used_idx)
{
    if (!r->slots)
        return;
    __atomic_store_n(&r->slots->v[head].inflight, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&r->slots->used_idx, used_idx, __ATOMIC_RELEASE);
}

struct order { uint64_t counter; uint16_t head; };

static int by_counter(const void *a, const void *b)
{
    const struct order *x = a, *y = b;
    return (x->counter > y->counter) - (x->counter < y->counter);
}

/* Those of the last batch that the used ring shows are done. */
static void forget_used(struct vu_ring *r, uint16_t used_idx)
{
    struct vu_slots *s = r->slots;
    uint16_t n = (uint16_t)(used_idx - s->used_idx), at = s->last_batch_head;
    for (; n && n <= r->size && at < r->size; n--) {
        s->v[at].inflight = 0;
        at = s->v[at].next;
    }
    s->used_idx = used_idx;
}

unsigned vu_slots_resume(struct vu_ring *r, uint16_t used_idx, uint16_t *heads)
{
    unsigned n = 0;
    if (!r->slots)
        return 0;
    if (!r->slots->version) {               /* new memory */
        r->slots->version = 1;
        r->slots->n = (uint16_t)r->size;
        r->slots->used_idx = used_idx;
    }
    forget_used(r, used_idx);
    struct order *v = calloc(r->size, sizeof *v);
    for (unsigned i = 0; v && i < r->size; i++)
        if (r->slots->v[i].inflight)
            v[n++] = (struct order){ r->slots->v[i].counter, (uint16_t)i };
    if (v)
        qsort(v, n, sizeof *v, by_counter);
    for (unsigned i = 0; i < n; i++)
        heads[i] = v[i].head;
    r->counter = n ? v[n - 1].counter + 1 : 0;
    free(v);
    return n;
}
