/* SPDX-License-Identifier: MIT */
#include "base/fdset.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/bits.h"
#include "base/list.h"
#include "base/str.h"

#define PREFIX "/dev/fdset/"

struct entry { struct list link; int64_t set; int fd; char *opaque; };
struct named { struct list link; char *name; int fd; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list entries = LIST_INIT(entries);    /* of struct entry, by set; @lock */
static struct list names = LIST_INIT(names);        /* of struct named; main thread */

/* The first number that no set has. */
static int64_t free_set(void)
{
    int64_t n = 0;
    struct entry *x;
    list_for_each(x, &entries, link)
        n = x->set == n ? n + 1 : n;
    return n;
}

int64_t fdset_add(int64_t set, int fd, const char *opaque, struct err *e)
{
    if (set < -1) {
        err_set(e, ERR_VALUE, "the number of a set is not negative");
        return -1;
    }
    pthread_mutex_lock(&lock);
    struct entry *x = xnew(struct entry), *at;
    *x = (struct entry){ .set = set == -1 ? free_set() : set, .fd = fd, .opaque = xstrdup(opaque) };
    struct list *before = &entries;
    list_for_each(at, &entries, link)
        if (at->set > x->set) {
            before = &at->link;
            break;
        }
    list_insert_before(before, &x->link);
    set = x->set;
    pthread_mutex_unlock(&lock);
    return set;
}

bool fdset_remove(int64_t set, int fd, struct err *e)
{
    bool any = false;
    struct entry *x;
    pthread_mutex_lock(&lock);
    for (struct list *n = entries.next, *next; n != &entries; n = next) {
        next = n->next;
        x = list_entry(n, struct entry, link);
        if (x->set != set || (fd >= 0 && x->fd != fd))
            continue;
        any = true;
        list_del(n);
        close(x->fd);
        free(x->opaque);
        free(x);
    }
    pthread_mutex_unlock(&lock);
    return any || err_set(e, ERR_VALUE, "File descriptor named 'fdset-id:%lld%s' not found", (long long)set, fd >= 0 ? ", fd" : "");
}

void fdset_each(void (*fn)(void *, int64_t, int, const char *), void *arg)
{
    struct entry *x;
    list_for_each(x, &entries, link)
        fn(arg, x->set, x->fd, x->opaque);
}

static int open_set(int64_t set, int flags)
{
    bool there = false;
    int found = -1, best = -1;
    struct entry *x;
    pthread_mutex_lock(&lock);
    list_for_each(x, &entries, link) {
        if (x->set != set)
            continue;
        int fl = fcntl(x->fd, F_GETFL), mode = fl < 0 ? -1 : fl & O_ACCMODE;
        there = true;
        if (mode == (flags & O_ACCMODE) || (mode == O_RDWR && best < 0))
            best = x->fd;
        if (mode == (flags & O_ACCMODE))
            break;
    }
    if (best >= 0)
        found = fcntl(best, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&lock);
    if (found < 0)
        errno = there ? EACCES : ENOENT;
    return found;
}

int fdset_open(const char *path, int flags, mode_t mode)
{
    uint64_t set;
    if (!str_starts(path, PREFIX))
        return open(path, flags | O_CLOEXEC, mode);
    if (parse_u64(path + strlen(PREFIX), &set) && set <= INT64_MAX)
        return open_set((int64_t)set, flags);
    errno = ENOENT;
    return -1;
}

static struct named *name_find(const char *name)
{
    struct named *n;
    list_for_each(n, &names, link)
        if (!strcmp(n->name, name))
            return n;
    return NULL;
}

static int name_take(struct named *n)
{
    int fd = n->fd;
    list_del(&n->link);
    free(n->name);
    free(n);
    return fd;
}

void fd_name_set(const char *name, int fd)
{
    fd_name_close(name);
    struct named *n = xnew(struct named);
    n->name = xstrdup(name);
    n->fd = fd;
    list_push(&names, &n->link);
}

bool fd_name_close(const char *name)
{
    struct named *n = name_find(name);
    if (n)
        close(name_take(n));
    return n != NULL;
}

int fd_take(const char *text, struct err *e)
{
    struct named *n = name_find(text);
    uint64_t v;
    if (n)
        return name_take(n);
    if (!parse_u64(text, &v) || v > INT32_MAX) {
        err_set(e, ERR_NOT_FOUND, "there is no file descriptor with the name '%.60s'", text);
        err_hint(e, "write the number of an inherited one, or hand one over with getfd first");
        return -1;
    }
    if (fcntl((int)v, F_GETFD) < 0) {
        err_os(e, errno, "fd %d", (int)v);
        return -1;
    }
    return (int)v;
}
