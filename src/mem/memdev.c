/* SPDX-License-Identifier: MIT */
/* Memory back ends: RAM that a user makes with -object and gives to a machine or a device by its id. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/str.h"
#include "core/cmd.h"
#include "mem/ram_int.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

struct memdev {
    struct obj obj;
    uint64_t size;
    bool prealloc, merge, dump, reserve, share;
    struct ram *ram;            /* made by complete */
    char *user;                 /* who claimed it; NULL: nobody */
};

static const struct prop memdev_props[] = {
    PROP_NUM_(PROP_T_SIZE, struct memdev, size, "size", 0, 1, INT64_MAX, "Size in bytes; suffixes K, M, G, T. Taken in whole pages"),
    PROP_BOOL(struct memdev, prealloc, "prealloc", false, "Take all pages from the host at once"),
    PROP_BOOL(struct memdev, merge, "merge", true, "Let the host merge equal pages (KSM)"),
    PROP_BOOL(struct memdev, dump, "dump", true, "Include it in core dumps of this program"),
    PROP_BOOL(struct memdev, reserve, "reserve", true, "Reserve swap space or huge pages for it"),
    PROP_END,
};

static bool memdev_check(struct obj *o, struct err *e)
{
    struct memdev *m = (struct memdev *)o;
    if (!m->size) {
        err_set(e, ERR_VALUE, "memory back end '%s': size= is missing", o->id ? o->id : o->cls->name);
        return err_hint(e, "size=1G, for example");
    }
    m->size = align_up(m->size, RAM_PAGE);
    return true;
}

static bool memdev_can_delete(struct obj *o, struct err *e)
{
    struct memdev *m = (struct memdev *)o;
    return !m->user || err_set(e, ERR_BUSY, "memory back end '%s' is in use by %s", o->id, m->user);
}

static void memdev_finalize(struct obj *o)
{
    struct memdev *m = (struct memdev *)o;
    ram_free(m->ram);
    free(m->user);
}

const struct obj_class memory_backend_class = {
    .name = "memory-backend", .size = sizeof(struct memdev), .flags = OCF_ABSTRACT, .ns = "object", .props = memdev_props,
    .check = memdev_check, .can_delete = memdev_can_delete, .finalize = memdev_finalize,
};
OBJ_CLASS(&memory_backend_class);

struct ram *memory_backend_claim(struct obj *backend, const char *user, struct err *e)
{
    struct memdev *m = (struct memdev *)backend;
    if (m->user) {
        err_set(e, ERR_BUSY, "memory back end '%s' is in use by %s already", backend->id, m->user);
        err_hint(e, "each user needs a back end of its own");
        return NULL;
    }
    m->user = xstrdup(user);
    return m->ram;
}

void memory_backend_release(struct obj *backend)
{
    struct memdev *m = (struct memdev *)backend;
    free(m->user);
    m->user = NULL;
}

/* Takes every page now; a host that is short of (huge) pages says so here, not by a signal later. */
static bool populate(struct memdev *m, struct err *e)
{
    struct ram *r = m->ram;
    if (madvise(r->host, r->size, MADV_POPULATE_WRITE) == 0)
        return true;
    if (errno != EINVAL)
        return err_os(e, errno, "prealloc=on: the host has not enough memory for %llu MiB", (unsigned long long)(r->size >> 20));
    for (uint64_t at = 0; at < r->size; at += r->page_size)     /* kernels before 5.14 */
        ((volatile uint8_t *)r->host)[at] = ((volatile uint8_t *)r->host)[at];
    return true;
}

/* Maps; @fd is taken over, on failure closed. */
static bool memdev_map(struct memdev *m, int fd, uint64_t fd_off, uint64_t page, bool readonly, struct err *e)
{
    struct ram_want w = { .name = m->obj.id ? m->obj.id : m->obj.cls->name, .size = m->size, .align = page > 4096 ? page : m->size >= 2 * MiB ? 2 * MiB : 0,
                          .fd = fd, .fd_off = fd_off, .share = m->share, .readonly = readonly, .reserve = m->reserve };
    if (page > 4096 && m->size % page) {
        char text[32];
        err_set(e, ERR_VALUE, "size=%llu is not a multiple of the page size %s", (unsigned long long)m->size, format_size(page, text));
    } else {
        m->ram = ram_new_wanted(&w, e);
    }
    if (!m->ram) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    m->ram->page_size = page;
    m->ram->owner = &m->obj;
    if (m->merge)
        madvise(m->ram->host, m->size, MADV_MERGEABLE);         /* a wish: hosts without KSM refuse it */
    if (!m->dump && madvise(m->ram->host, m->size, MADV_DONTDUMP))
        return err_os(e, errno, "dump=off");
    return !m->prealloc || populate(m, e);
}

/* ---- memory-backend-ram ---- */

static bool ram_complete(struct obj *o, struct err *e)
{
    struct memdev *m = (struct memdev *)o;
    return memdev_map(m, -1, 0, RAM_PAGE, false, e);
}

static const struct prop ram_props[] = {
    PROP_BOOL(struct memdev, share, "share", false, "Other processes forked from this one see writes"),
    PROP_END,
};
static const struct obj_class ram_class = {
    .name = "memory-backend-ram", .desc = "Anonymous memory", .base = &memory_backend_class, .size = sizeof(struct memdev),
    .props = ram_props, .complete = ram_complete,
};
OBJ_CLASS(&ram_class);

/* ---- memory-backend-memfd ---- */

struct memdev_memfd { struct memdev m; bool hugetlb, seal; uint64_t hugetlbsize; };

static bool memfd_complete(struct obj *o, struct err *e)
{
    struct memdev_memfd *d = (struct memdev_memfd *)o;
    unsigned flags = MFD_CLOEXEC | (d->seal ? MFD_ALLOW_SEALING : 0);
    uint64_t page = RAM_PAGE;
    if (d->hugetlbsize && !d->hugetlb)
        return err_set(e, ERR_VALUE, "hugetlbsize= only has an effect with hugetlb=on");
    if (d->hugetlb) {
        page = d->hugetlbsize ? d->hugetlbsize : 2 * MiB;
        flags |= MFD_HUGETLB | (unsigned)ctz64(page) << MFD_HUGE_SHIFT;
    }
    int fd = memfd_create(o->id ? o->id : "memory", flags);
    if (fd < 0)
        return err_os(e, errno, "memfd_create");
    if (ftruncate(fd, (off_t)d->m.size)) {
        int en = errno;
        close(fd);
        return err_os(e, en, "a memory file of %llu bytes", (unsigned long long)d->m.size);
    }
    if (d->seal && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)) {
        int en = errno;
        close(fd);
        return err_os(e, en, "seal=on");
    }
    return memdev_map(&d->m, fd, 0, page, false, e);
}

static const struct prop memfd_props[] = {
    PROP_BOOL(struct memdev_memfd, m.share, "share", true, "Processes that are handed the memory see writes"),
    PROP_BOOL(struct memdev_memfd, hugetlb, "hugetlb", false, "Use huge pages"),
    { .name = "hugetlbsize", .doc = "Size of a huge page", .type = PROP_T_SIZE, .flags = PF_POW2, PROP_OFF(struct memdev_memfd, hugetlbsize) },
    PROP_BOOL(struct memdev_memfd, seal, "seal", true, "Nobody can change the size of the memory file"),
    PROP_END,
};
static const struct obj_class memfd_class = {
    .name = "memory-backend-memfd", .desc = "Memory that other processes can be handed (vhost-user, vfio-user)",
    .base = &memory_backend_class, .size = sizeof(struct memdev_memfd), .props = memfd_props, .complete = memfd_complete,
};
OBJ_CLASS(&memfd_class);

/* ---- memory-backend-file ---- */

struct memdev_file { struct memdev m; char *path; uint64_t align, offset; bool readonly, discard; };

/* The file, made if it is not there; in a directory, one without a name. -1 with @e filled. */
static int file_open(struct memdev_file *d, struct err *e)
{
    struct stat st;
    int fd = open(d->path, (d->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (fd < 0 && errno == EISDIR) {
        char *name = xasprintf("%s/memory.XXXXXX", d->path);
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0)
            unlink(name);
        free(name);
    } else if (fd < 0 && errno == ENOENT && !d->readonly) {
        fd = open(d->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    }
    if (fd < 0 || fstat(fd, &st)) {
        err_os(e, errno, "mem-path=%s", d->path);
    } else if (S_ISREG(st.st_mode) && st.st_size && (uint64_t)st.st_size < d->offset + d->m.size) {
        err_set(e, ERR_VALUE, "mem-path=%s: the file has %llu bytes, size= and offset= need %llu", d->path, (unsigned long long)st.st_size,
                (unsigned long long)(d->offset + d->m.size));
    } else if (S_ISREG(st.st_mode) && !st.st_size && (d->readonly || ftruncate(fd, (off_t)(d->offset + d->m.size)))) {
        err_os(e, d->readonly ? EINVAL : errno, "mem-path=%s: cannot be given %llu bytes", d->path, (unsigned long long)d->m.size);
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool file_complete(struct obj *o, struct err *e)
{
    struct memdev_file *d = (struct memdev_file *)o;
    struct statfs fs;
    if (d->offset % RAM_PAGE || d->offset > INT64_MAX - d->m.size)
        return err_set(e, ERR_VALUE, "offset=%llu is not a multiple of 4 KiB within the file", (unsigned long long)d->offset);
    int fd = file_open(d, e);
    if (fd < 0)
        return false;
    uint64_t page = fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : RAM_PAGE;
    return memdev_map(&d->m, fd, d->offset, MAX(page, d->align), d->readonly, e);
}

static void file_finalize(struct obj *o)
{
    struct memdev_file *d = (struct memdev_file *)o;
    if (d->discard && d->m.ram && !d->readonly)
        madvise(d->m.ram->host, d->m.size, MADV_REMOVE);
}

static const struct prop file_props[] = {
    PROP_STR(struct memdev_file, path, "mem-path", PF_REQUIRED, "File, device, or directory (hugetlbfs) to take the memory from"),
    PROP_BOOL(struct memdev_file, m.share, "share", false, "Writes go to the file"),
    { .name = "align", .doc = "Alignment of the mapping", .type = PROP_T_SIZE, .flags = PF_POW2, PROP_OFF(struct memdev_file, align) },
    PROP_NUM_(PROP_T_SIZE, struct memdev_file, offset, "offset", 0, 0, INT64_MAX, "Where in the file the memory begins"),
    PROP_BOOL(struct memdev_file, readonly, "readonly", false, "Open and map the file for reading only"),
    PROP_BOOL(struct memdev_file, discard, "discard-data", false, "The contents need not be kept when the program ends"),
    PROP_END,
};
static const struct obj_class file_class = {
    .name = "memory-backend-file", .desc = "Memory from a file, a device or huge pages", .base = &memory_backend_class,
    .size = sizeof(struct memdev_file), .props = file_props, .complete = file_complete, .finalize = file_finalize,
};
OBJ_CLASS(&file_class);

/* ---- query-memdev ---- */

static bool show(struct obj *o, void *list)
{
    const struct memdev *m = (const struct memdev *)o;
    json_array_append_new(list, json_pack("{s:s, s:I, s:b, s:b, s:b, s:b, s:b, s:[], s:s}", "id", o->id, "size", (json_int_t)m->size, "merge", m->merge,
                                          "dump", m->dump, "prealloc", m->prealloc, "share", m->share, "reserve", m->reserve, "host-nodes",
                                          "policy", "default"));
    return true;
}

static json_t *co_query_memdev(void *args, struct err *e)
{
    json_t *list = json_array();
    obj_each(NULL, &memory_backend_class, show, list);
    return list;
}

static const struct qmp_cmd cmd_query_memdev = { .name = "query-memdev", .doc = "Memory back ends", .co_run = co_query_memdev, .preconfig = true,
    .says = "[{id:str, size:int, merge:bool, dump:bool, prealloc:bool, share:bool, reserve:bool, host-nodes:[int], policy:str}]" };
QMP_CMD(&cmd_query_memdev);
static const struct hmp_cmd info_memdev = { .name = "info memdev", .args = "", .doc = "memory back ends", .qmp = "query-memdev", .words = "" };
HMP_CMD(&info_memdev);
