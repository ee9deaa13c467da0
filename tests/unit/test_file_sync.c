/* SPDX-License-Identifier: MIT */
/*
 * The kernel tells once that something could not be written from the page cache: to the next flush, or to a write with RWF_DSYNC. Its
 * calls are ours here. A later flush does not say that all is well; but where only the write failed nothing is lost.
 */
#define BLK_TEST_DIR "/var/tmp"             /* on a disk */
#include "blk_test.h"
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int write_error, sync_error;         /* of every write; of what is behind the cache, once */

static int told_once(void)
{
    errno = sync_error;
    sync_error = 0;
    return errno ? -1 : 0;
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
    if (write_error) {
        errno = write_error;
        return -1;
    }
    ssize_t k = syscall(SYS_pwritev2, fd, iov, n, off, 0, 0);
    return k < 0 || !(flags & RWF_DSYNC) || !told_once() ? k : -1;
}

int fdatasync(int fd) { return told_once(); }

static struct blk_node *open_file(bool direct)
{
    char *path = path_of("f");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && !ftruncate(fd, 65536) && !close(fd));
    struct blk_node *n = must(node_of(json_of("{'driver':'file','node-name':'f','filename':'%s','cache':{'direct':%s}}", path, direct ? "true" : "false")));
    free(path);
    return n;
}

static _Alignas(4096) char page[4096];

static void a_lost_page_is_not_forgotten(void **s)
{
    struct blk_node *n = open_file(false);
    assert_int_equal(nio(n, 'w', 0, sizeof page, page, BLK_FUA), 0);
    sync_error = EIO;
    assert_int_equal(nio(n, 'w', 0, sizeof page, page, BLK_FUA), -EIO);
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), -EIO);
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), -EIO);
    del(n);
    n = open_file(false);
    sync_error = ENOSPC;
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), -ENOSPC);
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), -ENOSPC);
    del(n);
}

/* A machine that is stopped since the disk is full goes on when it is not. */
static void what_was_not_written_is_not_lost(void **s)
{
    struct blk_node *n = open_file(false);
    write_error = ENOSPC;
    assert_int_equal(nio(n, 'w', 0, sizeof page, page, BLK_FUA), -ENOSPC);
    write_error = 0;
    assert_int_equal(nio(n, 'w', 0, sizeof page, page, BLK_FUA), 0);
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), 0);
    del(n);
}

/* Each write was answered for itself. */
static void direct_io_loses_nothing(void **s)
{
    struct blk_node *n = open_file(true);
    sync_error = EIO;
    assert_int_equal(nio(n, 'w', 0, sizeof page, page, BLK_FUA), -EIO);
    assert_int_equal(nio(n, 'f', 0, 0, NULL, 0), 0);
    del(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_page_is_not_forgotten),
        cmocka_unit_test(what_was_not_written_is_not_lost),
        cmocka_unit_test(direct_io_loses_nothing),
    };
    setenv("BACKPLANE_NO_URING", "1", 1);   /* whose calls are not the C library's */
    return mkdtemp(dir) ? run_block_tests(cmocka_run_group_tests(tests, loop_modes_setup, NULL)) : 1;
}
