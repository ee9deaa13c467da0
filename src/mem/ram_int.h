/* SPDX-License-Identifier: MIT */
/* Inside src/mem: how a RAM block is to be mapped. */
#ifndef MEM_RAM_INT_H
#define MEM_RAM_INT_H

#include "mem/ram.h"

struct ram_want {
    const char *name;
    uint64_t size, align;       /* align: of the host address; 0: a page */
    int fd;                     /* -1: anonymous; taken over on success */
    uint64_t fd_off;
    bool share, readonly, reserve;
};
struct ram *ram_new_wanted(const struct ram_want *w, struct err *e) MUST_CHECK;

/* A block with a file can lose pages: between these two calls an access to one stops the machine, not the process. */
void ram_fault_add(struct ram *r);
void ram_fault_remove(struct ram *r);

#endif
