/* SPDX-License-Identifier: MIT */
/* "stdio": the terminal or pipes that the program was started with. One at most. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "chardev/chr_fds.h"
#include "chardev/chr_term.h"
#include "core/flags.h"

struct chr_stdio { struct chr chr; struct chr_fds fds; bool signal; };

static struct chr_stdio *the_stdio;

static bool stdio_open(struct chr *c, struct err *e)
{
    struct chr_stdio *s = (struct chr_stdio *)c;
    if (the_stdio) {
        err_set(e, ERR_BUSY, "standard input and output are already used by chardev '%s'", the_stdio->chr.obj.id);
        return err_hint(e, "share it: -chardev stdio,id=%s,mux=on", the_stdio->chr.obj.id);
    }
    if (cli_flags.daemonize) {
        err_set(e, ERR_VALUE, "-daemonize leaves no standard input and output");
        return err_hint(e, "write a socket, a file or null in place of stdio");
    }
    int in = chr_fd_reopen(STDIN_FILENO, O_RDONLY), out = chr_fd_reopen(STDOUT_FILENO, O_WRONLY);
    if (out < 0 && in < 0)
        return err_os(e, errno, "standard input and output are closed");
    the_stdio = s;
    if (in >= 0)
        chr_term_raw(in, s->signal);
    chr_fds_init(&s->fds, c, in, out);
    chr_set_open(c, true);
    return true;
}

static void stdio_close(struct chr *c)
{
    struct chr_stdio *s = (struct chr_stdio *)c;
    if (the_stdio != s)
        return;
    chr_term_restore();
    chr_fds_close(&s->fds);
    the_stdio = NULL;
}

static ssize_t stdio_write(struct chr *c, const uint8_t *buf, size_t n)
{
    return chr_fds_write(&((struct chr_stdio *)c)->fds, buf, n);
}

static void stdio_resume(struct chr *c) { chr_fds_resume(&((struct chr_stdio *)c)->fds); }

static const struct prop stdio_props[] = {
    PROP_BOOL(struct chr_stdio, signal, "signal", true, "^C ends the program; off: the guest gets it"),
    PROP_END
};

static const struct chr_class stdio_class = {
    .obj = { .name = "chardev-stdio", .desc = "The terminal that the program was started in", .base = &chr_class,
             .size = sizeof(struct chr_stdio), .props = stdio_props },
    .open = stdio_open, .close = stdio_close, .write = stdio_write, .rx_resume = stdio_resume,
};
OBJ_CLASS(&stdio_class.obj);
