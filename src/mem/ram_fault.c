/* SPDX-License-Identifier: MIT */
/*
 * Memory whose file gives no page: its file system is full, the huge pages are used up, somebody cut the file. The kernel says so
 * by SIGBUS at the access, from any thread. The page is replaced by a private one of zeroes, which is what a hole reads as, so
 * that the access goes through; the machine stops with the state "io-error". When it goes on, every such page is taken from the
 * file again with what was written meanwhile; while that fails, the machine stops anew. Nothing is lost and nobody dies.
 */
#include "mem/ram_int.h"

#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "core/run.h"
#include "loop/loop.h"
#include "mem/guard.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { BLOCKS_MAX = 256, GUARDS_MAX = 1024 };   /* later ones die by the signal, as other programs do */

static _Atomic(struct ram *) blocks[BLOCKS_MAX];
static _Atomic(struct mem_guard *) guards[GUARDS_MAX];
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* a block that is restored does not go away */
static struct post told;
static atomic_bool told_ready;

/* ---- in the signal handler: no locks, no allocation ---- */

static struct ram *block_at(const uint8_t *host)
{
    for (int i = 0; i < BLOCKS_MAX; i++) {
        struct ram *r = atomic_load(&blocks[i]);
        if (r && host >= r->host && host < r->host + r->size)
            return r;
    }
    return NULL;
}

static bool replace_page(struct ram *r, uint64_t off)
{
    int prot = PROT_READ | (r->readonly ? 0 : PROT_WRITE);
    off = align_down(off, r->file_page);
    if (mmap(r->host + off, r->file_page, prot, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        return false;
    atomic_store(&r->lost[off / r->file_page], 1);
    return true;
}

/* Memory of another process (mem/guard.h). */
static bool guarded(const uint8_t *host)
{
    for (int i = 0; i < GUARDS_MAX; i++) {
        struct mem_guard *g = atomic_load(&guards[i]);
        if (!g || host < g->host || host >= g->host + g->size)
            continue;
        uint8_t *page = g->host + align_down((uint64_t)(host - g->host), g->page);
        atomic_store(g->hit, true);
        return mmap(page, g->page, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED;
    }
    return false;
}

static void on_bus_error(int sig, siginfo_t *si, void *context)
{
    static const char text[] = "backplane: bus error outside the guest's memory\n";
    int saved = errno;
    if (si->si_code == BUS_ADRERR && guarded(si->si_addr)) {
        errno = saved;
        return;
    }
    struct ram *r = si->si_code == BUS_ADRERR ? block_at(si->si_addr) : NULL;
    if (!r || !replace_page(r, (uint64_t)((uint8_t *)si->si_addr - r->host))) {
        if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
            errno = saved;
        abort();                        /* SIGABRT's handler restores the terminal */
    }
    if (atomic_load(&told_ready))
        loop_post(loop_main(), &told);
    errno = saved;
}

/* ---- on the main loop ---- */

/* The page from the file again, with what its stand-in holds; false while the file gives none. */
static bool restore_page(struct ram *r, uint64_t off)
{
    uint8_t *page = mmap(NULL, r->file_page, PROT_READ | PROT_WRITE, r->share ? MAP_SHARED : MAP_PRIVATE, r->fd, (off_t)(r->fd_off + off));
    if (page == MAP_FAILED)
        return false;
    if (madvise(page, r->file_page, MADV_POPULATE_WRITE) < 0)
        goto fail;
    memcpy(page, r->host + off, r->file_page);
    if (r->readonly && mprotect(page, r->file_page, PROT_READ) < 0)
        goto fail;
    if (mremap(page, r->file_page, r->file_page, MREMAP_MAYMOVE | MREMAP_FIXED, r->host + off) == MAP_FAILED)
        goto fail;
    return true;
fail:
    munmap(page, r->file_page);
    return false;
}

/* How many pages of the block are still missing. */
static uint64_t block_restore(struct ram *r)
{
    uint64_t missing = 0;
    for (uint64_t i = 0; i < r->size / r->file_page; i++) {
        if (!atomic_load(&r->lost[i]))
            continue;
        if (restore_page(r, i * r->file_page))
            atomic_store(&r->lost[i], 0);
        else
            missing++;
    }
    return missing;
}

static void block_complain(const struct ram *r, uint64_t missing)
{
    char link[32], path[256] = "its file";
    struct stat st;
    snprintf(link, sizeof link, "/proc/self/fd/%d", r->fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n > 0)
        path[n] = 0;
    bool cut = fstat(r->fd, &st) == 0 && (uint64_t)st.st_size < r->fd_off + r->size;
    log_warn("memory '%s': '%s' %s: %llu pages are missing; the machine stands until it goes on (cont) with them there", r->name, path,
              cut ? "was cut short" : "has no room", (unsigned long long)missing);
}

/* True if every page of every block is there. */
static bool restore_all(void)
{
    bool whole = true;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS_MAX; i++) {
        struct ram *r = atomic_load(&blocks[i]);
        uint64_t missing = r ? block_restore(r) : 0;
        if (missing)
            block_complain(r, missing);
        whole &= !missing;
    }
    pthread_mutex_unlock(&lock);
    return whole;
}

static void on_told(void *arg)
{
    if (!run_is_running())
        return;                         /* when it starts */
    run_stop(RUN_IO_ERROR);             /* nobody may write while a page is exchanged */
    if (restore_all())
        run_cont();
}

static void on_start(struct run_listener *l)
{
    if (!restore_all())
        run_request_stop(RUN_IO_ERROR);
}

static struct run_listener listener = { .prio = -100, .start = on_start };

/* ---- blocks come and go ---- */

static void install_handler(void)
{
    struct sigaction sa = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART };
    sigaction(SIGBUS, &sa, NULL);
}

bool mem_guard_add(struct mem_guard *g)
{
    pthread_once(&handler_once, install_handler);
    for (int i = 0; i < GUARDS_MAX; i++) {
        struct mem_guard *none = NULL;
        if (atomic_compare_exchange_strong(&guards[i], &none, g))
            return true;
    }
    return false;
}

void mem_guard_remove(struct mem_guard *g)
{
    for (int i = 0; i < GUARDS_MAX; i++)
        if (atomic_load(&guards[i]) == g)
            atomic_store(&guards[i], NULL);
}

static void install(void)
{
    pthread_once(&handler_once, install_handler);
    if (!loop_main())
        return;                         /* a tool that runs no machine */
    told = (struct post){ .fn = on_told };
    run_listen(&listener);
    atomic_store(&told_ready, true);
}

void ram_fault_add(struct ram *r)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct statfs fs;
    r->file_page = fstatfs(r->fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
    void *lost = mmap(NULL, MAX(r->size / r->file_page, 1u), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (lost == MAP_FAILED)
        return;
    r->lost = lost;
    pthread_once(&once, install);
    for (int i = 0; i < BLOCKS_MAX; i++) {
        struct ram *none = NULL;
        if (atomic_compare_exchange_strong(&blocks[i], &none, r))
            return;
    }
}

void ram_fault_remove(struct ram *r)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BLOCKS_MAX; i++)
        if (atomic_load(&blocks[i]) == r)
            atomic_store(&blocks[i], NULL);
    pthread_mutex_unlock(&lock);
    if (r->lost)
        munmap((void *)r->lost, MAX(r->size / r->file_page, 1u));
}
