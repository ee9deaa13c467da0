/* SPDX-License-Identifier: MIT */
/* Inside src/mem: the topology lock and the list of address spaces. */
#ifndef MEM_MEM_INT_H
#define MEM_MEM_INT_H

#include "mem/view.h"

/* Recursive, a leaf below every domain lock: nothing but the tree, the views and their listeners is touched under it. */
void topology_lock(void);
void topology_unlock(void);
/* Rebuilds the views of every address space and publishes those that differ. Topology lock held. */
void views_rebuild(void);
/* Every address space, linked by .link. Topology lock held. */
struct list *views_all(void);
/* The last byte of a region of @size, or its end, as exact numbers (UINT64_MAX means the whole space). */
typedef __int128 wide;
static inline wide region_wide_size(const struct region *r)
{
    return r->size == UINT64_MAX ? (wide)UINT64_MAX + 1 : (wide)r->size;
}
#define REGION_MAX_DEPTH 32     /* of aliases and containers: a cycle ends there */

#endif
