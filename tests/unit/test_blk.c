/* SPDX-License-Identifier: MIT */
/* Nodes and handles on files: requests, alignment, errors, who may write, and I/O threads. */
#define BLK_TEST_DIR "/var/tmp"             /* of a disk */
#include "blk_test.h"
#include <sys/resource.h>
#include <sys/socket.h>
#include "block/nbd_proto.h"

static char *image(const char *name, uint64_t size)
{
    char *p = path_of(name);
    int fd = open(p, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    return p;
}

#define node(...) node_of(json_of(__VA_ARGS__))

static struct blk_node *file_node(const char *name, const char *path, const char *more)
{
    return node("{'driver':'raw','node-name':'%s'%s,'file':{'driver':'file','filename':'%s'}}", name, more, path);
}

static struct blk *open_rw(struct blk_node *n)
{
    struct blk *b = blk_open(n, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, NULL, "test", &err);
    assert_non_null(b);
    return b;
}

/* ---- one request at a time, from outside coroutines ---- */

struct io { struct blk *b; char op; uint64_t off, len; char *buf; unsigned flags; int r; };

static void io_co(void *arg)
{
    struct io *x = arg;
    struct iovec v = { x->buf, x->len };
    switch (x->op) {
    case 'r': x->r = co_blk_preadv(x->b, x->off, x->len, &v, 1, x->flags); break;
    case 'w': x->r = co_blk_pwritev(x->b, x->off, x->len, &v, 1, x->flags); break;
    case 'z': x->r = co_blk_zero(x->b, x->off, x->len, x->flags); break;
    case 'd': x->r = co_blk_discard(x->b, x->off, x->len); break;
    case 'f': x->r = co_blk_flush(x->b); break;
    case 's': x->r = co_node_resize(blk_node_of(x->b), x->len); break;
    }
}

static int io(struct blk *b, char op, uint64_t off, uint64_t len, char *buf, unsigned flags)
{
    struct io x = { b, op, off, len, buf, flags, -1 };
    co_run_main(io_co, &x);
    return x.r;
}

/* ---- data ---- */

/* Random requests against a plain copy in memory. */
static void agrees_with_memory(struct blk *b, uint64_t size, unsigned align)
{
    char *model = malloc(size), *buf = malloc(size);
    assert_int_equal(io(b, 'r', 0, size, model, 0), 0);
    for (int i = 0; i < 300; i++) {
        uint64_t off = rnd() % size / align * align, want = rnd() % 9000, len = MIN(want, size - off) / align * align;
        switch (rnd() % 4) {
        case 0:
            for (uint64_t k = 0; k < len; k++)
                buf[k] = (char)rnd();
            assert_int_equal(io(b, 'w', off, len, buf, rnd() % 8 ? 0 : BLK_FUA), 0);
            memcpy(model + off, buf, len);
            break;
        case 1:
            assert_int_equal(io(b, 'z', off, len, NULL, rnd() % 2 ? BLK_ZERO_UNMAP : 0), 0);
            memset(model + off, 0, len);
            break;
        case 2: assert_int_equal(io(b, 'f', 0, 0, NULL, 0), 0); break;
        default:
            assert_int_equal(io(b, 'r', off, len, buf, 0), 0);
            assert_memory_equal(buf, model + off, len);
        }
    }
    assert_int_equal(io(b, 'r', 0, size, buf, 0), 0);
    assert_memory_equal(buf, model, size);
    free(model);
    free(buf);
}

static void a_file_keeps_what_is_written(void **state)
{
    char *p = image("data", 200 * 1024);
    struct blk_node *n = file_node("d", p, "");
    assert_non_null(n);
    struct blk *b = open_rw(n);
    assert_int_equal(blk_size(b), 200 * 1024);
    agrees_with_memory(b, 200 * 1024, 1);
    blk_close(b);
    del(n);
    free(p);
}

/* Direct I/O with requests and buffers of any alignment. */
static void direct_io_takes_any_alignment(void **state)
{
    char *p = image("direct", 200 * 1024);
    struct blk_node *n = file_node("d", p, ",'cache':{'direct':true}");
    if (!n && strstr(err.hint, "direct I/O")) {
        free(p);
        skip();
    }
    assert_non_null(n);
    struct blk *b = open_rw(n);
    agrees_with_memory(b, 200 * 1024, 1);
    blk_close(b);
    del(n);
    free(p);
}

static void an_overlay_leaves_the_base_alone(void **state)
{
    char *p = image("base", 300 * 1024), a[16] = "base data", c[16];
    int fd = open(p, O_RDWR);
    assert_int_equal(pwrite(fd, a, 16, 100000), 16);
    struct blk_node *base = file_node("base", p, ",'read-only':true"), *top = blk_overlay_create(base, "top", &err);
    assert_non_null(top);
    struct blk *b = open_rw(top);
    assert_int_equal(io(b, 'r', 100000, 16, c, 0), 0);
    assert_memory_equal(a, c, 16);
    agrees_with_memory(b, 300 * 1024, 1);
    char *now = malloc(300 * 1024);
    assert_int_equal(pread(fd, now, 300 * 1024, 0), 300 * 1024);
    for (int i = 0; i < 300 * 1024; i++)
        assert_int_equal(now[i], i >= 100000 && i < 100016 ? a[i - 100000] : 0);
    free(now);
    blk_close(b);
    del(top);
    assert_null(obj_find("blockdev", "base"));      /* went with it */
    close(fd);
    free(p);
}

static void a_window_moves_the_offsets(void **state)
{
    char *p = image("window", 8192), w[4] = "abcd", r[4];
    struct blk_node *n = file_node("w", p, ",'offset':1024,'size':2048");
    struct blk *b = open_rw(n);
    assert_int_equal(blk_size(b), 2048);
    assert_int_equal(io(b, 'w', 2044, 4, w, 0), 0);
    assert_int_equal(io(b, 'w', 2046, 4, w, 0), -EIO);
    int fd = open(p, O_RDONLY);
    assert_int_equal(pread(fd, r, 4, 3068), 4);
    assert_memory_equal(r, w, 4);
    assert_int_equal(io(b, 's', 0, 4096, NULL, 0), -ENOTSUP);
    close(fd);
    blk_close(b);
    del(n);
    assert_null(file_node("w", p, ",'offset':7168,'size':2048"));
    assert_non_null(strstr(err.msg, "beyond the end"));
    free(p);
}

static void bounds_hold_for_any_offset(void **state)
{
    struct blk_node *n = node("{'driver':'null-co','node-name':'n','size':65536,'read-zeroes':true}");
    struct blk *b = open_rw(n);
    char c[512];
    memset(c, 1, sizeof c);
    assert_int_equal(io(b, 'r', 65536 - 512, 512, c, 0), 0);
    assert_int_equal(c[0] | c[511], 0);
    assert_int_equal(io(b, 'r', 65536 - 511, 512, c, 0), -EIO);
    assert_int_equal(io(b, 'r', UINT64_MAX - 10, 512, c, 0), -EIO);
    assert_int_equal(io(b, 'w', UINT64_MAX, 1, c, 0), -EIO);
    assert_int_equal(io(b, 'z', 0, UINT64_MAX, NULL, 0), -EIO);
    assert_int_equal(io(b, 'd', 65536, 1, NULL, 0), -EIO);
    assert_int_equal(io(b, 'r', 65536, 0, c, 0), 0);
    blk_close(b);
    del(n);
}

static void sizes_are_whole_sectors_and_change(void **state)
{
    char *p = image("odd", 1000), r[512];
    struct blk_node *n = file_node("odd", p, "");
    struct blk *b = open_rw(n);
    assert_int_equal(blk_size(b), 1024);
    memset(r, 1, sizeof r);
    assert_int_equal(io(b, 'r', 512, 512, r, 0), 0);
    for (int i = 0; i < 512; i++)
        assert_int_equal(r[i], 0);
    assert_int_equal(io(b, 's', 0, 8192, NULL, 0), 0);
    assert_int_equal(blk_size(b), 8192);
    assert_int_equal(io(b, 'w', 8192 - 512, 512, r, 0), 0);
    blk_close(b);
    del(n);
    free(p);
}

/* ---- what the host refuses ---- */

static void a_full_disk_is_an_error_code(void **state)
{
    char *p = image("full", 1 << 20), *buf = calloc(1, 65536);
    memset(buf, 1, 65536);
    struct blk_node *n = file_node("full", p, "");
    struct blk *b = open_rw(n);
    struct rlimit old, lim;
    getrlimit(RLIMIT_FSIZE, &old);
    lim = old;
    lim.rlim_cur = 32768;       /* the host takes half of the write: what remains is refused */
    setrlimit(RLIMIT_FSIZE, &lim);
    int r = io(b, 'w', 0, 65536, buf, 0), r2 = io(b, 'w', 40000, 512, buf, 0);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(r, -EFBIG);
    assert_int_equal(r2, -EFBIG);
    assert_int_equal(io(b, 'w', 0, 65536, buf, 0), 0);
    blk_close(b);
    del(n);
    free(buf);
    free(p);
}

static void opening_says_what_is_wrong(void **state)
{
    char *none = path_of("nothing"), *p = image("ro", 4096);
    assert_null(file_node("x", none, ""));
    assert_non_null(strstr(err.msg, none));
    assert_int_equal(err.os_errno, ENOENT);
    assert_null(file_node("x", dir, ",'read-only':true"));
    assert_non_null(strstr(err.msg, "is a directory"));
    assert_null(node("{'driver':'file','node-name':'x','filename':'/dev/null'}"));
    assert_non_null(strstr(err.hint, "host_device"));
    assert_null(node("{'driver':'rwa','node-name':'x'}"));
    assert_non_null(strstr(err.hint, "raw"));
    assert_null(node("{'driver':'raw','node-name':'x','file':'nobody'}"));
    assert_null(node("{'driver':'null-co'}"));
    assert_null(obj_find("blockdev", "x"));
    free(none);
    free(p);
}

/* ---- permissions, locks, capabilities ---- */

static void writers_exclude_each_other(void **state)
{
    char *p = image("perm", 4096);
    struct blk_node *n = file_node("p", p, "");
    struct blk *b = open_rw(n);
    assert_null(blk_open(n, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, NULL, "second", &err));
    assert_non_null(strstr(err.msg, "test"));
    assert_null(blk_open(n, BLK_PERM_READ, BLK_PERM_READ, NULL, "reader that shares no writes", &err));
    struct blk *r = blk_open(n, BLK_PERM_READ, BLK_PERM_READ | BLK_PERM_WRITE, NULL, "reader", &err);
    assert_non_null(r);
    char c[512] = "";
    assert_int_equal(io(r, 'w', 0, 512, c, 0), -EROFS);
    assert_false(blk_node_delete(n, &err));
    assert_non_null(strstr(err.msg, "in use by"));
    blk_close(r);
    blk_close(b);
    del(n);
    free(p);
}

static void a_read_only_node_takes_no_writer(void **state)
{
    char *p = image("rdonly", 4096);
    struct blk_node *n = file_node("p", p, ",'read-only':true");
    assert_null(blk_open(n, BLK_PERM_WRITE, BLK_PERM_READ, NULL, "w", &err));
    assert_non_null(strstr(err.msg, "read-only"));
    struct blk *b = blk_open(n, BLK_PERM_READ, BLK_PERM_READ, NULL, "r", &err);
    struct blk_caps caps;
    blk_get_caps(b, &caps);
    assert_true(caps.read_only);
    blk_close(b);
    del(n);
    free(p);
}

/* Another program with the image open, as QEMU would have it: a write lock is found by its byte, and the holder named. */
static void a_locked_image_names_its_holder(void **state)
{
    char *p = image("locked", 4096), pid[32];
    int up[2], down[2];
    assert_int_equal(pipe(up) | pipe(down), 0);
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        int fd = open(p, O_RDWR);
        struct flock l = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 201, .l_len = 1 };   /* "shares no writing" */
        char c = fcntl(fd, F_OFD_SETLK, &l) ? 'n' : 'y';
        if (write(up[1], &c, 1) != 1 || read(down[0], &c, 1) < 0)
            _exit(1);
        _exit(0);
    }
    char c = 0;
    assert_int_equal(read(up[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    struct blk_node *n = file_node("l", p, "");
    assert_null(blk_open(n, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, NULL, "w", &err));
    snprintf(pid, sizeof pid, "process %d (", (int)child);
    assert_non_null(strstr(err.msg, pid));
    assert_non_null(strstr(err.msg, p));
    struct blk *b = blk_open(n, BLK_PERM_READ, BLK_PERM_READ, NULL, "r", &err);     /* reading is shared */
    assert_non_null(b);
    blk_close(b);
    assert_int_equal(write(down[1], &c, 1), 1);
    waitpid(child, NULL, 0);
    b = open_rw(n);
    struct blk_node *twice = file_node("l2", p, "");
    assert_null(blk_open(twice, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, NULL, "w", &err));
    assert_non_null(strstr(err.msg, "this process"));
    blk_close(b);
    del(twice);
    del(n);
    for (int i = 0; i < 2; i++) {
        close(up[i]);
        close(down[i]);
    }
    free(p);
}

static void what_is_not_wanted_is_not_offered(void **state)
{
    char *p = image("caps", 1 << 20);
    struct blk_caps off, on;
    struct stat st;
    struct blk_node *n = file_node("c", p, "");
    struct blk *b = open_rw(n);
    blk_get_caps(b, &off);
    assert_false(off.discard);
    assert_true(off.flush);
    blk_close(b);
    del(n);
    n = file_node("c", p, ",'discard':'unmap','cache':{'no-flush':true}");
    b = open_rw(n);
    blk_get_caps(b, &on);
    assert_false(on.flush);
    if (on.discard) {
        char *buf = malloc(1 << 20);
        memset(buf, 1, 1 << 20);
        assert_int_equal(io(b, 'w', 0, 1 << 20, buf, 0), 0);
        assert_int_equal(io(b, 'd', 0, 1 << 20, NULL, 0), 0);
        assert_int_equal(stat(p, &st), 0);
        assert_true(st.st_blocks < 64);
        assert_int_equal(st.st_size, 1 << 20);
        free(buf);
    }
    blk_close(b);
    del(n);
    free(p);
}

static void zeroes_are_detected(void **state)
{
    char *p = image("zeroes", 1 << 20), *buf = malloc(1 << 20);
    struct stat st;
    struct blk_node *n = node("{'driver':'raw','node-name':'z','discard':'unmap','detect-zeroes':'unmap','file':{'driver':'file',"
                              "'filename':'%s'}}", p);
    struct blk *b = open_rw(n);
    memset(buf, 1, 1 << 20);
    assert_int_equal(io(b, 'w', 0, 1 << 20, buf, 0), 0);
    memset(buf, 0, 1 << 20);
    assert_int_equal(io(b, 'w', 0, 1 << 20, buf, 0), 0);
    assert_int_equal(stat(p, &st), 0);
    struct blk_caps caps;
    blk_get_caps(b, &caps);
    if (caps.discard)
        assert_true(st.st_blocks < 64);
    memset(buf, 1, 1 << 20);
    assert_int_equal(io(b, 'r', 0, 1 << 20, buf, 0), 0);
    assert_int_equal(buf[0] | buf[(1 << 20) - 1], 0);
    blk_close(b);
    del(n);
    assert_null(file_node("z", p, ",'detect-zeroes':'unmap'"));
    free(buf);
    free(p);
}

/* ---- another loop ---- */

struct remote { struct blk *b; struct post end; volatile bool done; int r; };
static void remote_end(void *arg) { ((struct remote *)arg)->done = true; }
static void remote_io(void *arg)
{
    struct remote *x = arg;
    char w[512], r[512];
    struct iovec v = { w, 512 }, u = { r, 512 };
    for (int i = 0; i < 100 && !x->r; i++) {
        memset(w, i, 512);
        x->r = co_blk_pwritev(x->b, (uint64_t)i * 512, 512, &v, 1, 0);
        x->r = x->r ? x->r : co_blk_preadv(x->b, (uint64_t)i * 512, 512, &u, 1, 0);
        x->r = x->r ? x->r : memcmp(w, r, 512);
    }
    loop_post(loop_main(), &x->end);
}

static void nothing(void *unused) { }

static void io_threads_reach_every_kind_of_node(void **state)
{
    char *p = image("remote", 1 << 20);
    struct loop *l = loop_new_thread("io", &err);
    struct domain *d = domain_new(l, "io");
    struct blk_node *n = file_node("base", p, ""), *top = NULL;
    for (int round = 0; round < 2; round++) {
        struct blk_node *use = round ? (top = blk_overlay_create(n, "top", &err)) : n;
        struct remote x = { .b = blk_open(use, BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ, d, "remote", &err) };
        assert_non_null(x.b);
        x.end.fn = remote_end;
        x.end.arg = &x;
        co_spawn(NULL, d, remote_io, &x);
        run_until(&x.done);
        assert_int_equal(x.r, 0);
        loop_call(l, nothing, NULL);        /* the coroutine has ended by then */
        blk_close(x.b);
    }
    del(top);
    loop_free_thread(l);
    domain_free(d);
    free(p);
}

/* ---- peers that talk without an end ---- */

struct listener { struct nbd_wire wire; unsigned heard; };
enum { WORDS = 1000, WORD = 28 };

static void listen_to_all(void *arg)
{
    struct listener *l = arg;
    uint8_t word[WORD];
    for (; l->heard < WORDS; l->heard++)
        assert_int_equal(co_nbd_recv(&l->wire, word, sizeof word), 0);
}

/* All of it is there already, so that nothing has to be waited for. */
static void a_peer_that_never_stops_leaves_others_their_turn(void **state)
{
    static uint8_t all[WORDS * WORD];
    struct listener l = { 0 };
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(write(fd[0], all, sizeof all), sizeof all);
    l.wire.fd = fd[1];
    co_spawn(loop_main(), NULL, listen_to_all, &l);
    assert_in_range(l.heard, 1, WORDS / 2);
    while (l.heard < WORDS)
        loop_run_once(loop_main(), 0);
    close(fd[0]);
    close(fd[1]);
}

int main(void)
{
    const struct CMUnitTest block[] = {
        cmocka_unit_test(a_file_keeps_what_is_written),
        cmocka_unit_test(direct_io_takes_any_alignment),
        cmocka_unit_test(an_overlay_leaves_the_base_alone),
        cmocka_unit_test(a_window_moves_the_offsets),
        cmocka_unit_test(bounds_hold_for_any_offset),
        cmocka_unit_test(sizes_are_whole_sectors_and_change),
        cmocka_unit_test(a_full_disk_is_an_error_code),
        cmocka_unit_test(opening_says_what_is_wrong),
        cmocka_unit_test(writers_exclude_each_other),
        cmocka_unit_test(a_read_only_node_takes_no_writer),
        cmocka_unit_test(a_locked_image_names_its_holder),
        cmocka_unit_test(what_is_not_wanted_is_not_offered),
        cmocka_unit_test(zeroes_are_detected),
        cmocka_unit_test(io_threads_reach_every_kind_of_node),
        cmocka_unit_test(a_peer_that_never_stops_leaves_others_their_turn),
    };
    if (!mkdtemp(dir))
        return 1;
    return run_block_tests(RUN_IN_BOTH_MODES(block));
}
