/* SPDX-License-Identifier: MIT */
#include "irq/irq.h"

#include <pthread.h>

#include "base/str.h"

/* ---- banks ---- */
static pthread_mutex_t banks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct irq_bank *banks;      /* in order of registration */

void irq_bank_register(struct irq_bank *b)
{
    pthread_mutex_lock(&banks_lock);
    struct irq_bank **at = &banks;
    while (*at)
        at = &(*at)->next;
    b->next = NULL;
    *at = b;
    pthread_mutex_unlock(&banks_lock);
}

void irq_bank_unregister(struct irq_bank *b)
{
    pthread_mutex_lock(&banks_lock);
    for (struct irq_bank **at = &banks; *at; at = &(*at)->next) {
        if (*at == b) {
            *at = b->next;
            break;
        }
    }
    b->next = NULL;
    pthread_mutex_unlock(&banks_lock);
}

static void bank_set(void *arg, unsigned n, int level)
{
    struct irq_bank *b = arg;
    void (*watch)(void *, unsigned, int) = atomic_load_explicit(&b->watch, memory_order_acquire);
    if (watch)
        watch(b->warg, n, level);
    if (b->set)
        b->set(b->arg, n, level);
}

struct irq irq_in(struct irq_bank *b, unsigned n)
{
    return n < b->n ? (struct irq){ .set = bank_set, .arg = b, .n = n } : (struct irq){ .set = NULL };
}

void irq_bank_watch(struct irq_bank *b, void (*watch)(void *warg, unsigned n, int level), void *warg)
{
    b->warg = warg;
    atomic_store_explicit(&b->watch, watch, memory_order_release);
}

struct irq_bank *irq_bank_next(struct irq_bank *b)
{
    pthread_mutex_lock(&banks_lock);
    struct irq_bank *n = b ? b->next : banks;
    pthread_mutex_unlock(&banks_lock);
    return n;
}

struct irq_bank *irq_bank_find(const char *path)
{
    struct irq_bank *b = irq_bank_next(NULL);
    while (b && !str_eq(b->path, path))
        b = irq_bank_next(b);
    return b;
}
