/* SPDX-License-Identifier: MIT */
/*
 * The kernel adds to an eventfd without waiting when an asynchronous request (io_submit(2), IOCB_FLAG_RESFD) is done: telling is a
 * request that reads nothing, done before io_submit() returns. Where a sandbox denies asynchronous requests, poll() and write() are
 * what remains.
 */
#include "base/evfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { REQUESTS = 128 };        /* before the answers are taken out of the queue */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static aio_context_t queue;
static int nothing = -1;        /* what is read: /dev/null. Below zero: no asynchronous requests here */

static void make_queue(void)
{
    nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing >= 0 && syscall(SYS_io_setup, REQUESTS, &queue)) {
        close(nothing);
        nothing = -1;
    }
}

static void empty_queue(void)
{
    struct io_event done[REQUESTS];
    struct timespec now = { 0 };
    if (syscall(SYS_io_getevents, queue, 0, REQUESTS, done, &now) <= 0)
        sched_yield();          /* another thread is at it */
}

static bool tell_by_write(int fd)
{
    static const uint64_t one = 1;
    struct pollfd p = { fd, POLLOUT, 0 };
    if (poll(&p, 1, 0) == 1 && (p.revents & POLLNVAL))
        return false;
    return !(p.revents & POLLOUT) || write(fd, &one, sizeof one) == sizeof one || errno == EAGAIN;
}

bool evfd_tell(int fd)
{
    pthread_once(&once, make_queue);
    if (nothing < 0)
        return tell_by_write(fd);
    struct iocb read_nothing = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)nothing, .aio_flags = IOCB_FLAG_RESFD,
                                 .aio_resfd = (uint32_t)fd };
    struct iocb *list = &read_nothing;
    for (;;) {
        if (syscall(SYS_io_submit, queue, 1, &list) == 1)
            return true;
        if (errno != EAGAIN)
            return false;
        empty_queue();
    }
}

bool evfd_take(int fd)
{
    uint64_t n;
    struct iovec v = { &n, sizeof n };
    return preadv2(fd, &v, 1, -1, RWF_NOWAIT) == sizeof n;
}
