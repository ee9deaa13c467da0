/* SPDX-License-Identifier: MIT */
/* Intrusive doubly linked list: the head is a node too. Thread: the owner's lock. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include "base/bits.h"

struct list { struct list *prev, *next; };

#define LIST_INIT(l) { &(l), &(l) }
static inline void list_init(struct list *l) { l->prev = l->next = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
static inline void list_insert_before(struct list *at, struct list *n)
{
    n->prev = at->prev; n->next = at; at->prev->next = n; at->prev = n;
}
static inline void list_push(struct list *head, struct list *n) { list_insert_before(head, n); }      /* at the end */
static inline void list_push_front(struct list *head, struct list *n) { list_insert_before(head->next, n); }
/* Takes @n out; taking out twice is harmless. */
static inline void list_del(struct list *n)
{
    n->prev->next = n->next; n->next->prev = n->prev; list_init(n);
}
/* The first node, taken out; NULL if empty. */
static inline struct list *list_pop(struct list *head)
{
    struct list *n = head->next;
    if (n == head)
        return NULL;
    list_del(n);
    return n;
}
/* All of @from to the end of @to. */
static inline void list_move(struct list *to, struct list *from)
{
    if (from->next == from)
        return;
    from->next->prev = to->prev; to->prev->next = from->next; from->prev->next = to; to->prev = from->prev; list_init(from);
}
#define list_entry(n, type, member) container_of(n, type, member)
#define list_first(head, type, member) (list_empty(head) ? NULL : list_entry((head)->next, type, member))
/* The body may delete @it (not its successor). */
#define list_for_each(it, head, member)                                                                   \
    for (__typeof__(it) it##_n_ = (it = list_entry((head)->next, __typeof__(*it), member),               \
                                   list_entry(it->member.next, __typeof__(*it), member));                \
         &it->member != (head); it = it##_n_, it##_n_ = list_entry(it->member.next, __typeof__(*it), member))

#endif
