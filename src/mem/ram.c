/* SPDX-License-Identifier: MIT */
#include "mem/ram.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/rcu.h"
#include "base/str.h"
#include "mem/ram_int.h"

void (*ram_code_written)(struct ram *r, uint64_t off, uint64_t len);
bool (*ram_reserve_written)(struct ram *r, uint64_t off, uint64_t len);

/* ---- making and freeing ---- */
static bool ram_map(struct ram *r, const struct ram_want *w, struct err *e)
{
    uint64_t host_page = (uint64_t)sysconf(_SC_PAGESIZE), page = MAX(w->align, host_page);
    /* Reserve with room to align and a page after the end that faults: then put the real mapping in it. */
    size_t slack = page > 4096 ? page : 0;
    if (w->size > SIZE_MAX / 2 - slack - 4096)
        return err_set(e, ERR_VALUE, "%s: %llu bytes are more than this host can address", w->name,
                       (unsigned long long)w->size);
    size_t len = align_up(w->size, 4096), total = len + slack + 4096;
    uint8_t *area = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return err_os(e, errno, "%s: cannot reserve %llu bytes of memory", w->name, (unsigned long long)w->size);
    uint8_t *host = (uint8_t *)align_up((uintptr_t)area, page);
    if (host != area)
        munmap(area, (size_t)(host - area));
    munmap(host + len + 4096, total - (size_t)(host - area) - len - 4096);
    int prot = PROT_READ | (w->readonly ? 0 : PROT_WRITE);
    int flags = MAP_FIXED | (w->reserve ? 0 : MAP_NORESERVE) | (w->share ? MAP_SHARED : MAP_PRIVATE) |
                (w->fd < 0 ? MAP_ANONYMOUS : 0);
    if (mmap(host, len, prot, flags, w->fd, (off_t)w->fd_off) == MAP_FAILED) {
        int en = errno;
        munmap(host, len + 4096);
        return err_os(e, en, "%s: cannot map %llu bytes of memory", w->name, (unsigned long long)w->size);
    }
    if (w->fd < 0)
        madvise(host, len, MADV_HUGEPAGE);      /* no word of it where the host has none: it costs only time */
    size_t pages = (w->size + RAM_PAGE - 1) >> RAM_PAGE_BITS;
    void *watch = mmap(NULL, MAX(pages, 1u), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (watch == MAP_FAILED) {
        int en = errno;
        munmap(host, len + 4096);
        return err_os(e, en, "%s: cannot reserve memory", w->name);
    }
    *r = (struct ram){ .name = xstrdup(w->name), .host = host, .size = w->size, .fd = w->fd, .fd_off = w->fd_off,
                       .share = w->share, .readonly = w->readonly, .page_size = host_page, .watch = watch,
                       .map_len = len + 4096 };
    atomic_init(&r->refs, 1);
    return true;
}

static void ram_unmap(struct rcu_head *h)
{
    struct ram *r = container_of(h, struct ram, rcu);
    if (r->fd >= 0)
        ram_fault_remove(r);
    munmap(r->host, r->map_len);
    munmap((void *)r->watch, MAX((r->size + RAM_PAGE - 1) >> RAM_PAGE_BITS, 1u));
    if (r->fd >= 0)
        close(r->fd);
    free((char *)r->name);
    free(r);
}

bool ram_hold(struct ram *r)
{
    unsigned n = atomic_load_explicit(&r->refs, memory_order_relaxed);
    while (n)
        if (atomic_compare_exchange_weak_explicit(&r->refs, &n, n + 1, memory_order_acquire, memory_order_relaxed))
            return true;
    return false;
}

void ram_drop(struct ram *r)
{
    if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        rcu_call(&r->rcu, ram_unmap);
}

void ram_free(struct ram *r)
{
    if (r)
        ram_drop(r);
}

struct ram *ram_new_wanted(const struct ram_want *w, struct err *e)
{
    struct ram *r = xnew(struct ram);
    if (!ram_map(r, w, e)) {
        free(r);
        return NULL;
    }
    if (r->fd >= 0)
        ram_fault_add(r);
    return r;
}

struct ram *ram_new(const char *name, uint64_t size, struct err *e)
{
    return ram_new_wanted(&(struct ram_want){ .name = name, .size = size, .fd = -1, .align = size >= 2 * MiB ? 2 * MiB : 0 }, e);
}

struct ram *ram_new_memfd(const char *name, uint64_t size, bool share, struct err *e)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) {
        err_os(e, errno, "%s: memfd_create", name);
        return NULL;
    }
    struct ram *r = NULL;
    if (ftruncate(fd, (off_t)size) < 0)
        err_os(e, errno, "%s: cannot make a memory file of %llu bytes", name, (unsigned long long)size);
    else
        r = ram_new_wanted(&(struct ram_want){ .name = name, .size = size, .fd = fd, .share = share,
                                               .align = size >= 2 * MiB ? 2 * MiB : 0 }, e);
    if (!r)
        close(fd);
    return r;
}

bool ram_can_discard(const struct ram *r)
{
    /* The pages of a private mapping of a file (its content would show again) and of read-only memory stay. */
    return !r->readonly && (r->fd < 0 || r->share);
}

int ram_discard(struct ram *r, uint64_t off, uint64_t len)
{
    int ret;
    if (!ram_can_discard(r))
        return -ENOTSUP;
    if (!range_ok(off, len, r->size) || off % r->page_size || len % r->page_size)
        return -EINVAL;
    if (!len)
        return 0;
    if (r->fd < 0 && !r->share)
        ret = madvise(r->host + off, len, MADV_DONTNEED);
    else if (r->fd < 0)
        ret = madvise(r->host + off, len, MADV_REMOVE);
    else
        ret = fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(r->fd_off + off), (off_t)len);
    if (ret < 0)
        return -errno;
    ram_written(r, off, len);
    return 0;
}

/* ---- who watches writes ---- */
static pthread_mutex_t watch_mutex = PTHREAD_MUTEX_INITIALIZER;
void ram_watch_lock(void) { pthread_mutex_lock(&watch_mutex); }
void ram_watch_unlock(void) { pthread_mutex_unlock(&watch_mutex); }

void ram_written_slow(struct ram *r, uint64_t off, uint64_t len)
{
    if (!len || !range_ok(off, len, r->size))
        return;
    uint64_t last = (off + len - 1) >> RAM_PAGE_BITS;
    for (uint64_t p = off >> RAM_PAGE_BITS; p <= last; p++) {
        if (!atomic_load_explicit(&r->watch[p], memory_order_relaxed))
            continue;
        ram_watch_lock();
        uint8_t was = atomic_load(&r->watch[p]), stays = 0;
        uint64_t from = MAX(off, p << RAM_PAGE_BITS), to = MIN(off + len, (p + 1) << RAM_PAGE_BITS);
        if (was & WATCH_CODE && ram_code_written)
            ram_code_written(r, from, to - from);
        if (was & WATCH_RESERVE && ram_reserve_written && ram_reserve_written(r, from, to - from))
            stays = WATCH_RESERVE;
        atomic_store(&r->watch[p], stays);   /* last: who finds the page unwatched, without the lock, finds what it was watched for told */
        ram_watch_unlock();
    }
}

void ram_watch(struct ram *r, uint64_t off, uint64_t len, uint8_t bit)
{
    if (!len || !range_ok(off, len, r->size))
        return;
    uint64_t last = (off + len - 1) >> RAM_PAGE_BITS;
    for (uint64_t p = off >> RAM_PAGE_BITS; p <= last; p++)
        if (!(atomic_load_explicit(&r->watch[p], memory_order_relaxed) & bit))
            atomic_fetch_or(&r->watch[p], bit);
    rcu_full_fence();
}

__attribute__((no_sanitize("thread"))) void ram_copy(void *to, const void *from, uint64_t n)
{
#ifdef RCU_TSAN_
    for (uint64_t i = 0; i < n; i++)
        ((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
#else
    memcpy(to, from, n);
#endif
}
