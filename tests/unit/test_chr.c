/* SPDX-License-Identifier: MIT */
/*
 * Character back ends: none loses a byte or changes the order, whoever stops reading, goes or comes back; a wrong option is told by
 * its name. File, socket (server, client, TCP, telnet), pty, mux.
 */
#include "loop_modes.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/opt.h"
#include "base/sock.h"
#include "chardev/chr_int.h"
#include "chardev/chr_telnet.h"

/* A front end that remembers. */
struct front {
    struct chr_front f;
    uint8_t in[65536];
    size_t n, room;
    unsigned opened, closed, breaks, mux_in, mux_out, writable;
    bool drop_in_read;
};

static size_t front_can_read(void *arg) { return ((struct front *)arg)->room; }
static void front_read(void *arg, const uint8_t *buf, size_t n)
{
    struct front *t = arg;
    assert_true(n <= t->room && t->n + n <= sizeof t->in);
    memcpy(t->in + t->n, buf, n);
    t->n += n;
    if (t->drop_in_read)
        chr_disconnect(&t->f);
}
static void front_event(void *arg, enum chr_event ev)
{
    struct front *t = arg;
    unsigned *counts[] = { [CHR_OPENED] = &t->opened, [CHR_CLOSED] = &t->closed, [CHR_BREAK] = &t->breaks,
                           [CHR_MUX_IN] = &t->mux_in, [CHR_MUX_OUT] = &t->mux_out };
    ++*counts[ev];
}
static void front_writable(void *arg) { ((struct front *)arg)->writable++; }

static void front_connect(struct front *t, const char *id)
{
    struct err e = ERR_INIT;
    struct obj *o = obj_find("chardev", id);
    assert_non_null(o);
    *t = (struct front){ .room = sizeof t->in, .f = { .can_read = front_can_read, .read = front_read, .event = front_event,
                                                      .writable = front_writable, .arg = t } };
    if (!chr_connect(&t->f, o, NULL, "test", &e))
        fail_msg("%s", e.msg);
}

static struct chr *make(const char *text)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse_flat(text, "backend", &e);
    struct chr *c = o ? chr_create(o, &e) : NULL;
    json_decref(o);
    if (!c)
        fail_msg("%s: %s", text, e.msg);
    return c;
}

static void refuse(const char *text, const char *why)
{
    struct err e = ERR_INIT;
    json_t *o = opt_parse_flat(text, "backend", &e);
    struct chr *c = o ? chr_create(o, &e) : NULL;
    json_decref(o);
    if (c || !strstr(e.msg, why))
        fail_msg("%s: %s", text, c ? "accepted" : e.msg);
}

static void unmake(struct chr *c)
{
    struct err e = ERR_INIT;
    if (!chr_delete(c, &e))
        fail_msg("%s", e.msg);
}

static char dir[] = "/tmp/bp-chr-XXXXXX";
static const char *in_dir(const char *name)
{
    static char buf[4][160];
    static int i;
    i = (i + 1) % 4;
    snprintf(buf[i], sizeof buf[i], "%s/%s", dir, name);
    return buf[i];
}

static size_t slurp(const char *path, char *buf, size_t n)
{
    int fd = open(path, O_RDONLY);
    ssize_t r = read(fd, buf, n - 1);
    close(fd);
    buf[r > 0 ? r : 0] = 0;
    return r > 0 ? (size_t)r : 0;
}

static size_t read_some(int fd, char *buf, size_t n)
{
    ssize_t r = read(fd, buf, n);
    return r > 0 ? (size_t)r : 0;
}

static void say(struct front *t, const char *s) { assert_int_equal(chr_write(&t->f, s, strlen(s)), strlen(s)); }

/* ---- file, null, log ---- */

static void file_gets_output_and_log(void **state)
{
    char opt[512], buf[64];
    struct front t;
    snprintf(opt, sizeof opt, "file,id=f,path=%s,logfile=%s", in_dir("out"), in_dir("log"));
    struct chr *c = make(opt);
    front_connect(&t, "f");
    say(&t, "hello ");
    say(&t, "there");
    SERVE_UNTIL(slurp(in_dir("log"), buf, sizeof buf) == 11);
    assert_int_equal(slurp(in_dir("out"), buf, sizeof buf), 11);
    assert_string_equal(buf, "hello there");
    assert_int_equal(t.opened, 1);
    chr_disconnect(&t.f);
    unmake(c);
    snprintf(opt, sizeof opt, "file,id=f,path=%s,append=on", in_dir("out"));
    c = make(opt);
    front_connect(&t, "f");
    say(&t, "!");
    chr_disconnect(&t.f);                       /* what was queued is written first */
    unmake(c);
    assert_int_equal(slurp(in_dir("out"), buf, sizeof buf), 12);
}

static void file_input_is_read_as_taken(void **state)
{
    char opt[512];
    uint8_t data[40000];
    struct front t;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    int fd = open(in_dir("in"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, data, sizeof data), sizeof data);
    close(fd);
    snprintf(opt, sizeof opt, "file,id=f,path=/dev/null,input-path=%s", in_dir("in"));
    struct chr *c = make(opt);
    front_connect(&t, "f");
    t.room = 0;
    serve(20);
    assert_int_equal(t.n, 0);
    t.room = 700;
    chr_accept(&t.f);
    SERVE_UNTIL(t.n == sizeof data);
    assert_memory_equal(t.in, data, sizeof data);
    chr_disconnect(&t.f);
    unmake(c);
}

static void full_disk_does_not_stop_the_writer(void **state)
{
    struct front t;
    struct chr *c = make("file,id=f,path=/dev/full");
    front_connect(&t, "f");
    for (int i = 0; i < 100; i++) {
        say(&t, "0123456789");
        serve(1);
    }
    SERVE_UNTIL(c->tx_errno == ENOSPC);
    chr_disconnect(&t.f);
    unmake(c);
}

static void errors_name_the_mistake(void **state)
{
    refuse("fiel,id=a", "fiel");
    refuse("vc,id=a", "not in this build");
    refuse("null", "'id' is missing");
    refuse("file,id=a", "path");
    refuse("file,id=a,path=/nonexistent/x", "/nonexistent/x");
    refuse("null,id=a,logappend=on", "logappend");
    refuse("socket,id=a", "path");
    refuse("socket,id=a,path=/x,port=3", "only one of");
    refuse("socket,id=a,path=/x,wait=on", "wait has no effect");
    refuse("socket,id=a,path=/x,server=on,reconnect=3", "reconnect has no effect");
    refuse("socket,id=a,path=/nonexistent/x", "/nonexistent/x");
    refuse("ringbuf,id=a,size=5", "size");
    assert_null(obj_find("chardev", "a"));
}

static void second_user_is_refused_by_name(void **state)
{
    struct front t;
    struct err e = ERR_INIT;
    struct chr_front other = { 0 };
    struct chr *c = make("null,id=n");
    front_connect(&t, "n");
    assert_false(chr_connect(&other, &c->obj, NULL, "other", &e));
    assert_non_null(strstr(e.msg, "already used by test"));
    assert_false(chr_delete(c, &e));
    assert_non_null(strstr(e.msg, "in use by test"));
    say(&t, "gone");
    chr_disconnect(&t.f);
    unmake(c);
}

static void front_may_leave_in_its_callback(void **state)
{
    struct front t;
    int fds[2];
    char opt[64], c = 'x';
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    snprintf(opt, sizeof opt, "socket,id=s,fd=%d", fds[0]);
    struct chr *k = make(opt);
    front_connect(&t, "s");
    t.drop_in_read = true;
    assert_int_equal(write(fds[1], &c, 1), 1);
    SERVE_UNTIL(t.n == 1);
    serve(5);
    assert_int_equal(k->n_links, 0);
    unmake(k);
    close(fds[1]);
}

/* ---- socket ---- */

static int connect_to(const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    return connect(fd, (struct sockaddr *)&a, sizeof a) ? (close(fd), -1) : fd;
}

static void server_takes_one_after_the_other(void **state)
{
    char opt[300], buf[64];
    struct front t;
    struct str name = { 0 };
    snprintf(opt, sizeof opt, "socket,id=s,path=%s,server=on,wait=off", in_dir("sock"));
    struct chr *c = make(opt);
    front_connect(&t, "s");
    assert_false(chr_is_open(&t.f));
    say(&t, "nobody hears this");
    serve(3);
    for (unsigned i = 1; i <= 3; i++) {
        int fd = connect_to(in_dir("sock"));
        assert_true(fd >= 0);
        SERVE_UNTIL(t.opened == i);
        say(&t, "hi");
        assert_int_equal(write(fd, "yo", 2), 2);
        SERVE_UNTIL(t.n == 2 * i);
        SERVE_UNTIL(recv(fd, buf, sizeof buf, MSG_PEEK | MSG_DONTWAIT) == 2);
        assert_memory_equal(buf, "hi", 2);
        close(fd);
        SERVE_UNTIL(t.closed == i);
    }
    chr_filename(c, &name);
    assert_non_null(strstr(name.s, "disconnected:unix:"));
    str_free(&name);
    struct err e = ERR_INIT;
    snprintf(opt, sizeof opt, "socket,id=s2,path=%s,server=on,wait=off", in_dir("sock"));
    refuse(opt, "in use");
    chr_disconnect(&t.f);
    unmake(c);
    assert_int_equal(access(in_dir("sock"), F_OK), -1);
    (void)e;
}

static void slow_peer_stops_the_writer_and_wakes_it(void **state)
{
    char opt[64], buf[65536];
    struct front t;
    int fds[2];
    size_t sent = 0, got = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(opt, sizeof opt, "socket,id=s,fd=%d", fds[0]);
    struct chr *c = make(opt);
    front_connect(&t, "s");
    memset(buf, 'a', sizeof buf);
    for (;;) {
        size_t n = chr_write(&t.f, buf, 10000);
        sent += n;
        serve(2);
        if (n < 10000)
            break;
        assert_true(sent < 64u << 20);
    }
    assert_int_equal(t.writable, 0);
    while (got < sent) {
        got += read_some(fds[1], buf, sizeof buf);
        serve(1);
    }
    assert_int_equal(got, sent);
    SERVE_UNTIL(t.writable == 1);
    chr_disconnect(&t.f);
    unmake(c);
    close(fds[1]);
}

static void client_comes_back(void **state)
{
    char opt[300];
    struct front t;
    struct err e = ERR_INIT;
    struct sock_addr a;
    snprintf(opt, sizeof opt, "socket,id=s,path=%s,reconnect-ms=20", in_dir("back"));
    struct chr *c = make(opt);
    front_connect(&t, "s");
    serve(10);
    assert_int_equal(t.opened, 0);
    assert_true(sock_unix(&a, in_dir("back"), false, true, &e));
    for (unsigned i = 1; i <= 2; i++) {
        int l = sock_listen(&a, 1, NULL, &e), fd = -1;
        assert_true(l >= 0);
        SERVE_UNTIL((fd = fd >= 0 ? fd : accept(l, NULL, NULL)) >= 0 && t.opened == i);
        close(fd);
        close(l);
        unlink(in_dir("back"));
        SERVE_UNTIL(t.closed == i);
    }
    chr_disconnect(&t.f);
    unmake(c);
}

static void tcp_port_zero_is_reported(void **state)
{
    struct front t;
    struct str name = { 0 };
    struct chr *c = make("socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,telnet=on");
    front_connect(&t, "s");
    chr_filename(c, &name);
    unsigned port = 0;
    assert_int_equal(sscanf(name.s, "disconnected:telnet:127.0.0.1:%u,server=on", &port), 1);
    assert_true(port > 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    SERVE_UNTIL(t.opened == 1);
    uint8_t buf[64];
    assert_int_equal(recv(fd, buf, TELNET_HELLO_LEN, MSG_WAITALL), TELNET_HELLO_LEN);
    assert_memory_equal(buf, telnet_hello, TELNET_HELLO_LEN);
    chr_write(&t.f, "a\xff" "b", 3);
    SERVE_UNTIL(recv(fd, buf, 4, MSG_PEEK | MSG_DONTWAIT) == 4);
    assert_memory_equal(buf, "a\xff\xff" "b", 4);
    assert_int_equal(send(fd, "x\xff\xfd\x01y\xff\xf3\xff\xffz", 10, 0), 10);
    SERVE_UNTIL(t.n == 4 && t.breaks == 1);
    assert_memory_equal(t.in, "xy\xffz", 4);
    close(fd);
    str_free(&name);
    chr_disconnect(&t.f);
    unmake(c);
}

/* Each way of cutting the stream gives the same. */
static void telnet_is_cut_anywhere(void **state)
{
    static const uint8_t wire[] = { 'a', 255, 251, 1, 'b', 255, 250, 24, 1, 255, 255, 9, 255, 240, 'c', 255, 255, 255, 243, 'd' };
    for (size_t cut = 0; cut <= sizeof wire; cut++) {
        struct telnet t = { 0 };
        uint8_t buf[sizeof wire];
        unsigned b1, b2;
        memcpy(buf, wire, sizeof wire);
        size_t n = telnet_strip(&t, buf, cut, &b1);
        size_t m = telnet_strip(&t, buf + cut, sizeof wire - cut, &b2);
        memmove(buf + n, buf + cut, m);
        assert_int_equal(n + m, 5);
        assert_memory_equal(buf, "abc\xff" "d", 5);
        assert_int_equal(b1 + b2, 1);
    }
}

/* ---- mux ---- */

static void mux_shares_and_switches(void **state)
{
    char opt[64], buf[256];
    struct front a, b;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(opt, sizeof opt, "socket,id=m,mux=on,fd=%d", fds[0]);
    struct chr *c = make(opt);
    front_connect(&a, "m");
    front_connect(&b, "m");
    SERVE_UNTIL(a.mux_in == 1);
    assert_int_equal(b.mux_in, 0);
    assert_int_equal(write(fds[1], "1\001c2\001b\001\0013", 9), 9);
    SERVE_UNTIL(b.n == 3);
    assert_memory_equal(a.in, "1", 1);
    assert_memory_equal(b.in, "2\0013", 3);
    assert_int_equal(a.n, 1);
    assert_int_equal(b.breaks, 1);
    assert_int_equal(a.mux_out, 1);
    assert_int_equal(b.mux_in, 1);
    say(&a, "A");
    say(&b, "B");
    size_t got = 0;
    SERVE_UNTIL((got += read_some(fds[1], buf + got, sizeof buf - got)) == 2);
    assert_int_equal(write(fds[1], "\001h", 2), 2);
    got = 0;
    SERVE_UNTIL(strstr((got += read_some(fds[1], buf + got, sizeof buf - 1 - got), buf[got] = 0, buf), "C-a C-a  sends C-a\r\n"));
    assert_null(strstr(buf, "C-a s"));           /* no key that does nothing */
    chr_disconnect(&b.f);                       /* the focus goes back to who is left */
    SERVE_UNTIL(a.mux_in == 2);
    chr_disconnect(&a.f);
    unmake(c);
    assert_null(obj_find("chardev", "m-base"));
    close(fds[1]);
}

/* ---- pty ---- */

static void pty_comes_and_goes(void **state)
{
    char opt[300], buf[16];
    struct front t;
    size_t got;
    snprintf(opt, sizeof opt, "pty,id=p,path=%s", in_dir("tty"));
    struct chr *c = make(opt);
    front_connect(&t, "p");
    serve(3);
    for (unsigned i = 1; i <= 2; i++) {
        int fd = open(in_dir("tty"), O_RDWR | O_NOCTTY | O_NONBLOCK);
        assert_true(fd >= 0);
        SERVE_UNTIL(t.opened == i);
        say(&t, "out\n");
        got = 0;
        SERVE_UNTIL((got += read_some(fd, buf + got, sizeof buf - got)) == 4);
        assert_int_equal(write(fd, "in", 2), 2);
        SERVE_UNTIL(t.n == 2 * i);
        close(fd);
        SERVE_UNTIL(t.closed == i);
    }
    chr_disconnect(&t.f);
    unmake(c);
    assert_int_equal(access(in_dir("tty"), F_OK), -1);
}

/* ---- threads ---- */

enum { WRITER_BYTES = 200000 };
struct writer { struct front *t; atomic_bool done; };
static void *write_all(void *arg)
{
    struct writer *w = arg;
    for (uint32_t i = 0; i < WRITER_BYTES;) {
        uint8_t b = (uint8_t)(i * 13 + (i >> 8));
        i += (uint32_t)chr_write(&w->t->f, &b, 1);
    }
    atomic_store(&w->done, true);
    return NULL;
}

static void bytes_from_another_thread_keep_their_order(void **state)
{
    char opt[64];
    struct front t;
    int fds[2];
    uint32_t got = 0;
    uint8_t buf[4096];
    pthread_t th;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    snprintf(opt, sizeof opt, "socket,id=s,fd=%d", fds[0]);
    struct chr *c = make(opt);
    front_connect(&t, "s");
    struct writer w = { &t, false };
    pthread_create(&th, NULL, write_all, &w);
    while (got < WRITER_BYTES) {
        loop_run_once(loop_main(), 1000000);
        ssize_t n = read(fds[1], buf, sizeof buf);
        for (ssize_t i = 0; i < n; i++, got++)
            if (buf[i] != (uint8_t)(got * 13 + (got >> 8)))
                fail_msg("byte %u", got);
    }
    pthread_join(th, NULL);
    chr_disconnect(&t.f);
    unmake(c);
    close(fds[1]);
}

/* ---- legacy forms ---- */

static void legacy_forms(void **state)
{
    char text[300];
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "unix:%s,server=on,wait=off", in_dir("leg"));
    struct obj *o = chr_from_legacy("l0", text, false, &e);
    assert_non_null(o);
    snprintf(text, sizeof text, "chardev:l0");
    assert_ptr_equal(chr_from_legacy("l1", text, false, &e), o);
    unmake((struct chr *)o);
    o = chr_from_legacy("l0", "mon:null", false, &e);
    assert_non_null(o);
    assert_string_equal(o->cls->name, "chardev-mux");
    unmake((struct chr *)o);
    o = chr_from_legacy("l0", "tcp:127.0.0.1:0,server=on,wait=off", false, &e);
    assert_non_null(o);
    unmake((struct chr *)o);
    o = chr_from_legacy("l0", "udp:127.0.0.1:9@127.0.0.1:0", false, &e);
    assert_non_null(o);
    unmake((struct chr *)o);
    assert_null(chr_from_legacy("l0", "tcp:nowhere", false, &e));
    assert_null(chr_from_legacy("l0", "vc:80Cx24C", false, &e));
    assert_int_equal(e.cls, ERR_NOT_BUILT);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_gets_output_and_log), cmocka_unit_test(file_input_is_read_as_taken),
        cmocka_unit_test(full_disk_does_not_stop_the_writer), cmocka_unit_test(errors_name_the_mistake),
        cmocka_unit_test(second_user_is_refused_by_name), cmocka_unit_test(front_may_leave_in_its_callback),
        cmocka_unit_test(server_takes_one_after_the_other), cmocka_unit_test(slow_peer_stops_the_writer_and_wakes_it),
        cmocka_unit_test(client_comes_back), cmocka_unit_test(tcp_port_zero_is_reported), cmocka_unit_test(telnet_is_cut_anywhere),
        cmocka_unit_test(mux_shares_and_switches), cmocka_unit_test(pty_comes_and_goes),
        cmocka_unit_test(bytes_from_another_thread_keep_their_order), cmocka_unit_test(legacy_forms),
    };
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir))
        return 1;
    return RUN_IN_BOTH_MODES(tests);
}
