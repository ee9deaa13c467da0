/* SPDX-License-Identifier: MIT */
/* The client of a persistent reservation helper, with a helper that a test plays: what goes over the wire, and helpers that err. */
#include "hw.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "block/pr_helper.h"
#include "core/cmd.h"

static char path[64];
static int listening;

/* What the helper does next, and what it saw. */
static struct script { uint32_t status, size; unsigned cut; uint8_t data[64]; } script;
static struct { uint8_t cdb[16], param[64]; dev_t dev; unsigned commands, connections; } seen;

static bool get(int fd, void *buf, size_t n) { return recv(fd, buf, n, MSG_WAITALL) == (ssize_t)n; }

/* The descriptor that came with a command block; -1 at the end. */
static int get_command(int fd)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } ctl;
    struct iovec v = { seen.cdb, 16 };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof ctl };
    struct cmsghdr *c;
    int pass = -1;

    if (recvmsg(fd, &m, MSG_WAITALL) != 16)
        return -1;
    c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(&pass, CMSG_DATA(c), sizeof pass);
    return pass;
}

static void serve(int fd)
{
    uint8_t head[104] = { 0 };
    uint32_t zero = 0;
    struct script now;                  /* once it is answered, the test writes the next */
    struct stat st;
    int dev;

    seen.connections++;
    if (write(fd, &zero, 4) != 4 || !get(fd, &zero, 4))
        return;
    while ((dev = get_command(fd)) >= 0) {
        fstat(dev, &st);
        seen.dev = st.st_rdev;
        close(dev);
        seen.commands++;
        if (seen.cdb[0] == 0x5f && !get(fd, seen.param, ld_be32(seen.cdb + 5)))
            return;
        now = script;
        st_be32(head, now.status);
        st_be32(head + 4, now.size);
        memcpy(head + 8, "\x70\0\x05\0\0\0\0\x0a", 8);
        if (send(fd, head, now.cut ? now.cut : sizeof head, MSG_NOSIGNAL) < 0 || now.cut)
            return;
        if (now.size && send(fd, now.data, MIN(now.size, 64u), MSG_NOSIGNAL) < 0)
            return;
    }
}

static void *helper(void *arg)
{
    int fd;

    while ((fd = accept(listening, NULL, NULL)) >= 0) {
        serve(fd);
        close(fd);
    }
    return NULL;
}

static struct { struct obj *o; struct blk_scsi c; int fd, r; } job;
static void co_job(void *arg) { job.r = co_pr_helper_run(job.o, job.fd, &job.c); }

static int command(uint8_t op, uint16_t said, void *data, uint32_t len)
{
    struct iovec v = { data, len };

    job.c = (struct blk_scsi){ .cdb = { op }, .cdb_len = 10, .to_device = op == 0x5f, .iov = &v, .niov = 1, .len = len };
    st_be16(job.c.cdb + 7, said);
    co_run_main(co_job, NULL);
    return job.r;
}

static void test_commands(void **state)
{
    uint8_t b[64], p[24];
    struct stat st;

    fstat(job.fd, &st);
    script.size = 24;
    memset(script.data, 0xab, sizeof script.data);
    memset(b, 0, sizeof b);
    assert_int_equal(command(0x5e, 64, b, 64), 0);
    assert_int_equal(job.c.status, 0);
    assert_int_equal(job.c.done, 24);
    assert_int_equal(b[23], 0xab);
    assert_int_equal(b[24], 0);
    assert_true(seen.dev == st.st_rdev);
    script.size = 0;
    memset(p, 0x5c, sizeof p);
    assert_int_equal(command(0x5f, 24, p, 24), 0);
    assert_memory_equal(seen.param, p, 24);
    assert_int_equal(job.c.done, 24);
    script.status = 2;
    assert_int_equal(command(0x5f, 24, p, 24), 0);
    assert_int_equal(job.c.status, 2);
    assert_int_equal(job.c.sense_len, 96);
    assert_int_equal(job.c.sense[2], 5);
    script.status = 0x18;
    assert_int_equal(command(0x5f, 24, p, 24), 0);
    assert_int_equal(job.c.status, 0x18);
    assert_int_equal(job.c.sense_len, 0);
    assert_int_equal(seen.connections, 1);
    script.status = 0;
}

/* What monitors hear, as "+" and "-". Workers send it. */
static char heard[16];
static void on_event(const char *name, json_t *data)
{
    if (!strcmp(name, "PR_MANAGER_STATUS_CHANGED") && !strcmp(json_string_value(json_object_get(data, "id")), "helper"))
        strncat(heard, json_is_true(json_object_get(data, "connected")) ? "+" : "-", sizeof heard - strlen(heard) - 1);
    json_decref(data);
}

/* Lengths that disagree never reach the wire. */
static void test_wrong_lengths(void **state)
{
    unsigned before = seen.commands;
    uint8_t b[64] = { 0 };

    assert_int_equal(command(0x5f, 24, b, 23), -EINVAL);
    assert_int_equal(command(0x5f, 8193, b, 64), -EINVAL);
    assert_int_equal(command(0x5e, 65, b, 64), -EINVAL);
    assert_int_equal(seen.commands, before);
}

/* A helper that answers nonsense, or dies in the middle, fails one command; the next one finds a new connection. */
static void test_helpers_that_err(void **state)
{
    static const struct { uint32_t status, size; unsigned cut; int r; } rows[] = {
        { 0, 65, 0, -EPROTO }, { 0, 0xffffffff, 0, -EPROTO }, { 0x100, 0, 0, -EPROTO }, { 0, 0, 3, -ECONNRESET }, { 0, 0, 103, -ECONNRESET },
    };
    uint8_t b[64];

    qmp_event_sink = on_event;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        script.status = rows[i].status;
        script.size = rows[i].size;
        script.cut = rows[i].cut;
        assert_int_equal(command(0x5e, 64, b, 64), rows[i].r);
        memset(&script, 0, sizeof script);
        script.size = 8;
        assert_int_equal(command(0x5e, 64, b, 64), 0);
        assert_int_equal(job.c.done, 8);
    }
    qmp_event_sink = NULL;
    assert_string_equal(heard, "-+-+-+-+-+");
    /* data where there must be none */
    script.size = 8;
    assert_int_equal(command(0x5f, 24, b, 24), -EPROTO);
}

static void test_no_helper(void **state)
{
    struct err e = ERR_INIT;
    json_t *o = json_pack("{s:s}", "path", "/nonexistent/helper");
    struct obj *with = job.o;
    uint8_t b[8];

    job.o = obj_create(&pr_helper_class, "nobody", o, NULL, &e);
    json_decref(o);
    assert_non_null(job.o);
    assert_int_equal(command(0x5e, 8, b, 8), -ENOENT);
    job.o = with;
}

static int setup(void **state)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    struct err e = ERR_INIT;
    pthread_t t;
    json_t *o;

    if (hw_setup(state))
        return -1;
    snprintf(path, sizeof path, "/tmp/bp-pr-helper.%d", getpid());
    strcpy(a.sun_path, path);
    unlink(path);
    listening = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listening, (struct sockaddr *)&a, sizeof a) || listen(listening, 4) || pthread_create(&t, NULL, helper, NULL))
        return -1;
    pthread_detach(t);
    job.fd = open("/dev/null", O_RDWR);
    o = json_pack("{s:s}", "path", path);
    job.o = obj_create(&pr_helper_class, "helper", o, NULL, &e);
    json_decref(o);
    return job.o ? 0 : -1;
}

static int teardown(void **state)
{
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands), cmocka_unit_test(test_wrong_lengths), cmocka_unit_test(test_helpers_that_err), cmocka_unit_test(test_no_helper),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
