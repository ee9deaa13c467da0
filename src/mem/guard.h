/* SPDX-License-Identifier: MIT */
/*
 * Memory that another process shares with us and may cut short. An access that finds no page there would end this process: it gets
 * a private page of zeroes instead, and *@hit says so from then on.
 */
#ifndef MEM_GUARD_H
#define MEM_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mem_guard { uint8_t *host; size_t size, page; atomic_bool *hit; };

/* @g and what it points to stay until mem_guard_remove(). False: there are too many. ANY */
bool mem_guard_add(struct mem_guard *g);
/* Nobody accesses the memory any more. ANY */
void mem_guard_remove(struct mem_guard *g);

#endif
