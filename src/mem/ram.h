/* SPDX-License-Identifier: MIT */
/* RAM blocks and the memory back ends that make them; write tracking by 4 KiB page. */
#ifndef MEM_RAM_H
#define MEM_RAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/rcu.h"
#include "core/obj.h"

#define RAM_PAGE_BITS 12
#define RAM_PAGE ((uint64_t)1 << RAM_PAGE_BITS)

/* Who wants to notice the next write to a page. A fresh page is watched by nobody. */
enum { WATCH_CODE = 1 << 0 /* translated code is on it */, WATCH_RESERVE = 1 << 1 /* a CPU's reservation must break */,
       WATCH_CODE_ALL = 1 << 2 /* beside WATCH_CODE: no CPU has kept a fast store path from before */ };

struct ram {
    const char *name;
    uint8_t *host;              /* page aligned */
    uint64_t size;
    int fd;                     /* memfd or file, -1: anonymous */
    uint64_t fd_off;
    bool share, readonly;
    uint64_t page_size;         /* of the backing (huge pages) */
    uint64_t id;                /* guest physical base once mapped, for users that key by it */
    _Atomic uint8_t *watch;     /* one byte a page of WATCH_* bits; untouched pages of it cost nothing */
    struct obj *owner;          /* memory-backend object, or NULL */
    atomic_uint refs;           /* private: the maker's and one per DMA map */
    size_t map_len;             /* private */
    uint64_t file_page;         /* private: page size of the file */
    _Atomic uint8_t *lost;      /* private: one byte a page of the file that has a stand-in; NULL: anonymous */
    struct rcu_head rcu;        /* private */
};

/* Anonymous memory of @size bytes (zero, reserved not touched). NULL with @e filled. ANY. */
struct ram *ram_new(const char *name, uint64_t size, struct err *e) MUST_CHECK;
struct ram *ram_new_memfd(const char *name, uint64_t size, bool share, struct err *e) MUST_CHECK;
/* The maker lets go: unmapped when the last DMA map has ended and after a grace period. NULL is fine. ANY. */
void ram_free(struct ram *r);
/* One more holder of the mapping; false if it is being freed. Within an RCU section. */
bool ram_hold(struct ram *r);
void ram_drop(struct ram *r);

/*
 * Gives pages back to the host: they read as zero afterwards, and take memory again when touched. @off and @len are multiples of
 * page_size. 0 or -errno; -ENOTSUP where ram_can_discard() is false. ANY; the time goes with @len (about 0.1 ms per MiB in use).
 */
int ram_discard(struct ram *r, uint64_t off, uint64_t len);
bool ram_can_discard(const struct ram *r);

extern const struct obj_class memory_backend_class;    /* abstract: memory-backend-ram, -memfd, -file */
/* The RAM of a back end; borrowed. A back end serves one user: the second is refused, naming the first. */
struct ram *memory_backend_claim(struct obj *backend, const char *user, struct err *e) MUST_CHECK;
void memory_backend_release(struct obj *backend);

/* Called after a store to a page watched by WATCH_CODE, before the bit is cleared: translated code is to be dropped. Set by the CPU. */
extern void (*ram_code_written)(struct ram *r, uint64_t off, uint64_t len);
/* Likewise for WATCH_RESERVE; true: the bit stays. */
extern bool (*ram_reserve_written)(struct ram *r, uint64_t off, uint64_t len);
/*
 * Held around these calls and the clearing of a page's bits, in this order: who finds a bit clear, with the lock or without, finds every
 * notice of which that could tell. A leaf. ANY
 */
void ram_watch_lock(void);
void ram_watch_unlock(void);
/*
 * After a write of [off, off + len) by a device or a CPU: whoever watches the pages is told, the bits are cleared. A vCPU
 * that stores through its TLB does not call it if the page was unwatched when the TLB entry was made. ANY.
 */
void ram_written_slow(struct ram *r, uint64_t off, uint64_t len);
/* Copies from or to guest RAM, which harts and devices may write at the same time: the guest's business, and no data race of ours. ANY */
void ram_copy(void *to, const void *from, uint64_t n);
static inline uint8_t ram_watched(const struct ram *r, uint64_t off)
{
    return atomic_load_explicit(&r->watch[off >> RAM_PAGE_BITS], memory_order_relaxed);
}
static inline void ram_written(struct ram *r, uint64_t off, uint64_t len)
{
    if (len <= RAM_PAGE - (off & (RAM_PAGE - 1)) && !ram_watched(r, off))
        return;
    ram_written_slow(r, off, len);
}
/*
 * Watches the pages of a range for @bit. Afterwards a store is noticed if it comes through ram_written() or a TLB entry made
 * later: the caller flushes the vCPUs' store entries for the pages (as the CPU knows how), then reads what it watches.
 */
void ram_watch(struct ram *r, uint64_t off, uint64_t len, uint8_t bit);

#endif
