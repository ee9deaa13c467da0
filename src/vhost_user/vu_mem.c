/* SPDX-License-Identifier: MIT */
/* The front end's memory: mapped, found by guest address and by its own, logged where it is written. */
#include <errno.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "vhost_user/vu_int.h"

static size_t page_of(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (size_t)fs.f_bsize : (size_t)sysconf(_SC_PAGESIZE);
}

bool vu_map(struct vu_conn *c, struct vu_region *r, int fd, uint64_t off, uint64_t size, struct err *e)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        return err_set(e, ERR_VALUE, "a descriptor of memory is missing");
    if (!size || !range_ok(off, size, (uint64_t)INT64_MAX / 2))
        return err_set(e, ERR_VALUE, "memory has no sensible length");
    if (S_ISREG(st.st_mode) && !range_ok(off, size, (uint64_t)st.st_size))
        return err_set(e, ERR_VALUE, "memory is longer than its file");
    size_t page = page_of(fd), len = align_up(off + size, page);
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (p == MAP_FAILED)
        return err_os(e, errno, "cannot map memory of the front end");
    r->map = p;
    r->map_len = len;
    r->host = (uint8_t *)p + off;
    r->size = size;
    r->guard = (struct mem_guard){ p, len, page, &c->cut };
    if (mem_guard_add(&r->guard))
        return true;
    munmap(p, len);
    r->map = NULL;
    return err_set(e, ERR_STATE, "there is too much memory in pieces");
}

void vu_unmap(struct vu_region *r)
{
    if (!r->map)
        return;
    mem_guard_remove(&r->guard);
    munmap(r->map, r->map_len);
    r->map = NULL;
}

bool vu_region_add(struct vu_conn *c, const struct vu_mem *m, int fd, struct err *e)
{
    struct vu_region *free_slot = NULL;
    if (!range_ok(m->guest, m->size, UINT64_MAX) || !range_ok(m->user, m->size, UINT64_MAX))
        return err_set(e, ERR_VALUE, "memory ends beyond all addresses");
    for (struct vu_region *r = c->region; r < c->region + VU_REGIONS; r++) {
        if (!r->map)
            free_slot = free_slot ? free_slot : r;
        else if (ranges_overlap(r->guest, r->size, m->guest, m->size))
            return err_set(e, ERR_VALUE, "two pieces of memory have the same address");
    }
    if (!free_slot)
        return err_set(e, ERR_VALUE, "there are more than %d pieces of memory", VU_REGIONS);
    if (!vu_map(c, free_slot, fd, m->off, m->size, e))
        return false;
    free_slot->guest = m->guest;
    free_slot->user = m->user;
    return true;
}

bool vu_region_del(struct vu_conn *c, const struct vu_mem *m, struct err *e)
{
    for (struct vu_region *r = c->region; r < c->region + VU_REGIONS; r++)
        if (r->map && r->guest == m->guest && r->user == m->user && r->size == m->size) {
            vu_unmap(r);
            return true;
        }
    return err_set(e, ERR_VALUE, "there is no such piece of memory");
}

void vu_regions_clear(struct vu_conn *c)
{
    for (unsigned i = 0; i < VU_REGIONS; i++)
        vu_unmap(&c->region[i]);
}

uint8_t *vu_guest_at(struct vu_conn *c, uint64_t addr, uint64_t *len)
{
    for (struct vu_region *r = c->region; r < c->region + VU_REGIONS; r++)
        if (r->map && addr >= r->guest && addr - r->guest < r->size) {
            *len = MIN(*len, r->size - (addr - r->guest));
            return r->host + (addr - r->guest);
        }
    return NULL;
}

uint8_t *vu_user_at(struct vu_conn *c, uint64_t addr, uint64_t len)
{
    for (struct vu_region *r = c->region; r < c->region + VU_REGIONS; r++)
        if (r->map && addr >= r->user && range_ok(addr - r->user, len, r->size))
            return r->host + (addr - r->user);
    return NULL;
}

void vu_log(struct vu_conn *c, uint64_t guest, uint64_t len)
{
    if (!vu_has(c, VU_F_LOG_ALL) || !c->log.map || !len)
        return;
    for (uint64_t page = guest / VU_LOG_PAGE, last = (guest + (len - 1)) / VU_LOG_PAGE; page <= last && page / 8 < c->log.size; page++)
        __atomic_fetch_or(c->log.host + page / 8, (uint8_t)(1u << page % 8), __ATOMIC_SEQ_CST);
}
