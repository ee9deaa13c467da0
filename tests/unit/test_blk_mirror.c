/* SPDX-License-Identifier: MIT */
/* Mirrors whose source is written from memory that does not keep still, as a guest's. */
#include "blk_test.h"
#include "block/filter.h"
#include "block/mirror.h"

/* A filter whose callers write other bytes into their buffer as soon as it has been taken. */
struct blk_fickle { struct blk_node node; json_t *file; };
static char *fickle;                    /* the buffer of the test */
static size_t fickle_len;

static bool co_fickle_open(struct blk_node *n, struct err *e) { return co_filter_open(n, ((struct blk_fickle *)n)->file, e); }
static int co_fickle_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags)
{
    int r = co_filter_write(n, off, len, iov, niov, flags);
    memset(fickle, 0x99, fickle_len);
    return r;
}
static const struct prop fickle_props[] = { PROP_JSON(struct blk_fickle, file, "file", PF_REQUIRED, "Test"), PROP_END };
static const struct blk_driver fickle_driver = {
    .obj = { .name = "blockdev-fickle", .desc = "Test", .base = &blk_node_class, .size = sizeof(struct blk_fickle), .props = fickle_props },
    .flags = BLK_FILTER, .co_open = co_fickle_open, .co_close = co_filter_close, .co_preadv = co_filter_read, .co_pwritev = co_fickle_write,
    .co_zero = co_filter_zero, .co_flush = co_filter_flush, .co_map = co_filter_map, .set_perm = blk_pass_perm,
};
OBJ_CLASS(&fickle_driver.obj);

enum { SIZE = 1 << 20 };

static struct blk_node *file_node(const char *name, const char *driver)
{
    char *p = path_of(name);
    int fd = open(p, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    close(fd);
    struct blk_node *n = must(node_of(json_of("{'driver':'%s','node-name':'%s','file':{'driver':'file','filename':'%s'}}", driver, name, p)));
    free(p);
    return n;
}

struct start { struct blk_node *src, *dst; bool blocking, ok; };
static void start_co(void *arg)
{
    struct start *x = arg;
    const struct job_opts o = { .id = (char *)"j", .auto_finalize = true, .auto_dismiss = true };
    const struct mirror_opts m = { .sync = SYNC_FULL, .write_blocking = x->blocking, .on_source_error = BLK_ERR_REPORT, .on_target_error = BLK_ERR_REPORT };
    x->ok = co_mirror_start(&o, &m, x->src, x->dst, &err);
}

static void what_both_get_is_the_same(void **state)
{
    for (int late = 0; late < 2; late++) {
        struct blk_node *src = file_node("src", "fickle"), *dst = file_node("dst", "raw");
        char buf[4096], a[4096], b[4096];
        struct start x = { src, dst, !late, false };
        fickle = buf;
        fickle_len = sizeof buf;
        co_run_main(start_co, &x);
        assert_true(x.ok);
        while (job_find("j")->status != JOB_READY)
            loop_run_once(loop_main(), 1000000000);
        if (late) {                     /* block-job-change */
            json_t *args = json_pack("{s:s}", "copy-mode", "write-blocking");
            assert_true(job_find("j")->ops->change(job_find("j"), args, &err));
            json_decref(args);
        }
        for (uint64_t at = 0; at < SIZE; at += 100352) {
            memset(buf, 0x11, sizeof buf);
            assert_int_equal(nio(src, 'w', at, sizeof buf, buf, 0), 0);
            assert_int_equal(nio(src, 'r', at, sizeof a, a, 0), 0);
            assert_int_equal(nio(dst, 'r', at, sizeof b, b, 0), 0);
            assert_int_equal(a[0], 0x11);
            assert_memory_equal(a, b, sizeof a);
        }
        assert_true(job_cancel(job_find("j"), true, &err));
        while (job_find("j"))
            loop_run_once(loop_main(), 1000000000);
        del(src);
        del(dst);
    }
}

int main(void)
{
    const struct CMUnitTest mirror[] = { cmocka_unit_test(what_both_get_is_the_same) };
    return mkdtemp(dir) ? run_block_tests(cmocka_run_group_tests(mirror, loop_modes_setup, NULL)) : 1;
}
