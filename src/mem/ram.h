/* SPDX-License-Identifier: MIT */
/* RAM blocks and the memory back ends that make them; dirty tracking by 4 KiB page. */
#ifndef MEM_RAM_H
#define MEM_RAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "core/obj.h"

#define RAM_PAGE_BITS 12
#define RAM_PAGE ((uint64_t)1 << RAM_PAGE_BITS)

enum { DIRTY_CODE = 1 << 0 /* 1: no translated code on the page */, DIRTY_MIGRATION = 1 << 1, DIRTY_VGA = 1 << 2 };

struct ram {
    const char *name;
    uint8_t *host;              /* page aligned */
    uint64_t size;
    int fd;                     /* memfd or file, -1: anonymous */
    uint64_t fd_off;
    bool share, readonly;
    uint64_t page_size;         /* of the backing (huge pages) */
    uint64_t id;                /* guest physical base once mapped, for users that key by it */
    _Atomic uint8_t *dirty;     /* one byte a page of DIRTY_* bits; clear bit = a write must be noticed */
    struct obj *owner;          /* memory-backend object, or NULL */
};

/* Anonymous memory of @size bytes (zero, reserved not touched). NULL with @e filled. ANY. */
struct ram *ram_new(const char *name, uint64_t size, struct err *e) MUST_CHECK;
struct ram *ram_new_memfd(const char *name, uint64_t size, bool share, struct err *e) MUST_CHECK;
void ram_free(struct ram *r);

extern const struct obj_class memory_backend_class;    /* abstract: memory-backend-ram, -memfd, -file */
/* The RAM of a back end; borrowed. A back end serves one user: the second is refused, naming the first. */
struct ram *memory_backend_claim(struct obj *backend, const char *user, struct err *e) MUST_CHECK;
void memory_backend_release(struct obj *backend);

/* Called before/after a store to a page whose DIRTY_CODE bit is clear: drops translated code. Set by the CPU. */
extern void (*ram_code_written)(struct ram *r, uint64_t off, uint64_t len);
/* Marks [off, off+len) written by a device or a CPU slow path; inline fast path: all bits set already. ANY. */
void ram_mark_dirty_slow(struct ram *r, uint64_t off, uint64_t len);
static inline void ram_mark_dirty(struct ram *r, uint64_t off, uint64_t len)
{
    if (len <= RAM_PAGE - (off & (RAM_PAGE - 1)) &&
        atomic_load_explicit(&r->dirty[off >> RAM_PAGE_BITS], memory_order_relaxed) == 0xff)
        return;
    ram_mark_dirty_slow(r, off, len);
}
/* Write-protects a page for @bit (it becomes clear); vCPU TLBs must be flushed by the caller. */
void ram_watch(struct ram *r, uint64_t off, uint64_t len, uint8_t bit);

#endif
