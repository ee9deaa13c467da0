/* SPDX-License-Identifier: MIT */
/* "pty": a pseudo terminal, whose other end any terminal program can open. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#include "base/exit_file.h"
#include "chardev/chr_fds.h"
#include "chardev/chr_term.h"

/* Where inotify has no room for us we look this often whether somebody opened the other end. */
#define PTY_PROBE_NS INT64_C(1000000000)

struct chr_pty {
    struct chr chr;
    char *path;                         /* option: a symbolic link to the terminal */
    char name[64];
    int fd, watch;                      /* watch: inotify */
    struct exit_file *link;
    struct loop_fd lf, lw;
    struct timer probe;
    bool tx_full;
};

static void pty_watch(struct chr_pty *s)
{
    unsigned in = chr_rx_room(&s->chr) ? LOOP_IN : chr_has_reader(&s->chr) ? 0 : LOOP_HUP;
    loop_fd_watch(&s->lf, s->chr.open ? in | (s->tx_full ? LOOP_OUT : 0) : 0);
}

static void pty_arm_probe(struct chr_pty *s)
{
    if (s->watch < 0)
        timer_arm(&s->probe, clock_now(CLOCK_HOST) + PTY_PROBE_NS);
}

/* Is the other end open? A master whose other end was closed hangs up until it is opened again. */
static void pty_probe(void *arg)
{
    struct chr_pty *s = arg;
    struct pollfd p = { .fd = s->fd, .events = POLLIN };
    if (s->chr.open)
        return;
    if (poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP)) {
        s->tx_full = false;
        chr_set_open(&s->chr, true);
        pty_watch(s);
    } else {
        pty_arm_probe(s);
    }
}

static void pty_opened(void *arg, unsigned ev)
{
    struct chr_pty *s = arg;
    char buf[512] __attribute__((aligned(8)));
    while (read(s->watch, buf, sizeof buf) > 0)
        ;
    pty_probe(s);
}

static void pty_hangup(struct chr_pty *s)
{
    loop_fd_watch(&s->lf, 0);
    chr_set_open(&s->chr, false);
    pty_arm_probe(s);
    pty_probe(s);                       /* opened again before we looked */
}

static void pty_event(void *arg, unsigned ev)
{
    struct chr_pty *s = arg;
    uint8_t buf[4096];
    if (ev & LOOP_OUT) {
        s->tx_full = false;
        chr_tx_ready(&s->chr);
    }
    size_t room = chr_rx_room(&s->chr);
    ssize_t n = room ? read(s->fd, buf, MIN(room, sizeof buf)) : 0;
    if (n > 0)
        chr_rx(&s->chr, buf, (size_t)n);
    if ((n < 0 && errno != EAGAIN && errno != EINTR) || (!chr_has_reader(&s->chr) && (ev & LOOP_HUP)))
        pty_hangup(s);
    else
        pty_watch(s);
}

static ssize_t pty_write(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_pty *s = (struct chr_pty *)c;
    ssize_t r = write(s->fd, buf, n);
    if (r >= 0)
        return r;
    if (errno != EAGAIN && errno != EINTR)
        return (ssize_t)n;              /* hung up: the reading side notices */
    s->tx_full = true;
    pty_watch(s);
    return -EAGAIN;
}

static void pty_resume(struct chr *c)
{
    if (c->open)
        pty_watch((struct chr_pty *)c);
}

static bool pty_open(struct chr *c, struct err *e)
{
    struct chr_pty *s = (struct chr_pty *)c;
    struct termios t;
    s->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (s->fd < 0 || grantpt(s->fd) < 0 || unlockpt(s->fd) < 0 || ptsname_r(s->fd, s->name, sizeof s->name))
        return err_os(e, errno, "cannot make a pseudo terminal");
    if (tcgetattr(s->fd, &t) == 0) {
        chr_term_make_raw(&t, false);
        t.c_oflag &= ~(tcflag_t)OPOST;
        tcsetattr(s->fd, TCSANOW, &t);
    }
    int slave = open(s->name, O_RDWR | O_NOCTTY | O_CLOEXEC);   /* from its close on it counts as hung up */
    if (slave < 0)
        return err_os(e, errno, "cannot open '%s'", s->name);
    close(slave);
    if (s->path && !(s->link = exit_link_new(s->name, s->path)))
        return err_os(e, errno, "cannot make the link '%s'", s->path);
    loop_fd_init(&s->lf, loop_main(), NULL, s->fd, pty_event, s);
    timer_init(&s->probe, CLOCK_HOST, loop_main(), NULL, pty_probe, s);
    s->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (s->watch >= 0 && inotify_add_watch(s->watch, s->name, IN_OPEN) < 0) {
        close(s->watch);
        s->watch = -1;
    }
    if (s->watch >= 0) {
        loop_fd_init(&s->lw, loop_main(), NULL, s->watch, pty_opened, s);
        loop_fd_watch(&s->lw, LOOP_IN);
    }
    pty_arm_probe(s);
    printf("char device redirected to %s (label %s)\n", s->name, c->obj.id);
    fflush(stdout);
    return true;
}

static void pty_close(struct chr *c)
{
    struct chr_pty *s = (struct chr_pty *)c;
    if (s->lf.loop)
        loop_fd_watch(&s->lf, 0);
    if (s->watch >= 0) {
        loop_fd_watch(&s->lw, 0);
        close(s->watch);
    }
    if (s->probe.loop)
        timer_fini(&s->probe);
    exit_file_remove(s->link);
    if (s->fd >= 0)
        close(s->fd);
}

static void pty_filename(const struct chr *c, struct str *out) { str_printf(out, "pty:%s", ((const struct chr_pty *)c)->name); }

static bool pty_init(struct obj *o, struct err *e)
{
    ((struct chr_pty *)o)->fd = ((struct chr_pty *)o)->watch = -1;
    return true;
}

static const struct prop pty_props[] = {
    PROP_STR(struct chr_pty, path, "path", 0, "Symbolic link to make to the terminal"), PROP_END
};

static const struct chr_class pty_class = {
    .obj = { .name = "chardev-pty", .desc = "Pseudo terminal; its name is printed", .base = &chr_class,
             .size = sizeof(struct chr_pty), .props = pty_props, .init = pty_init },
    .open = pty_open, .close = pty_close, .write = pty_write, .rx_resume = pty_resume, .filename = pty_filename,
};
OBJ_CLASS(&pty_class.obj);
