/* SPDX-License-Identifier: MIT */
/* "null": nobody there. "file": output to a file, input from another. "pipe": a pair of named pipes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fdset.h"
#include "chardev/chr_fds.h"

/* ---- null ---- */

static const struct chr_class null_class = {
    .obj = { .name = "chardev-null", .desc = "Discards what is written; never has input", .base = &chr_class,
             .size = sizeof(struct chr) },
};
OBJ_CLASS(&null_class.obj);

/* ---- file, pipe ---- */

struct chr_file { struct chr chr; struct chr_fds fds; char *path, *input_path; bool append; };

static bool file_open(struct chr *c, struct err *e)
{
    struct chr_file *s = (struct chr_file *)c;
    int in = -1, out = fdset_open(s->path, O_WRONLY | O_CREAT | (s->append ? O_APPEND : O_TRUNC), 0666);
    if (out < 0)
        return err_os(e, errno, "cannot open '%s' for writing", s->path);
    if (s->input_path) {
        in = fdset_open(s->input_path, O_RDONLY | O_NONBLOCK, 0);
        if (in < 0) {
            err_os(e, errno, "cannot open '%s' for reading", s->input_path);
            close(out);
            return false;
        }
    }
    chr_fds_init(&s->fds, c, in, out);
    chr_set_open(c, true);
    return true;
}

static void file_close(struct chr *c) { chr_fds_close(&((struct chr_file *)c)->fds); }

static ssize_t file_write(struct chr *c, const uint8_t *buf, size_t n)
{
    return chr_fds_write(&((struct chr_file *)c)->fds, buf, n);
}

static void file_resume(struct chr *c) { chr_fds_resume(&((struct chr_file *)c)->fds); }

static void file_name(const struct chr *c, struct str *out)
{
    str_printf(out, "file '%s'", ((const struct chr_file *)c)->path);
}

static const struct prop file_props[] = {
    PROP_STR(struct chr_file, path, "path", PF_REQUIRED, "File that output goes to"),
    PROP_STR(struct chr_file, input_path, "input-path", 0, "File that input comes from"),
    PROP_BOOL(struct chr_file, append, "append", false, "Keep what the file holds already"),
    PROP_END
};

static const struct chr_class file_class = {
    .obj = { .name = "chardev-file", .desc = "Output to a file", .base = &chr_class, .size = sizeof(struct chr_file),
             .props = file_props },
    .open = file_open, .close = file_close, .write = file_write, .rx_resume = file_resume, .what = file_name,
};
OBJ_CLASS(&file_class.obj);

/* PATH.in is read and PATH.out written; where they are missing, PATH serves both ways. */
static bool pipe_open(struct chr *c, struct err *e)
{
    struct chr_file *s = (struct chr_file *)c;
    char *in_path = xasprintf("%s.in", s->path), *out_path = xasprintf("%s.out", s->path);
    int in = open(in_path, O_RDWR | O_CLOEXEC | O_NONBLOCK), out = open(out_path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    free(in_path);
    free(out_path);
    if (in < 0 || out < 0) {
        if (in >= 0)
            close(in);
        if (out >= 0)
            close(out);
        in = out = open(s->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (in < 0) {
            err_os(e, errno, "cannot open '%s.in' and '%s.out', nor '%s'", s->path, s->path,
                   s->path);
            return err_hint(e, "make them first: mkfifo %s.in %s.out", s->path, s->path);
        }
    }
    chr_fds_init(&s->fds, c, in, out);
    chr_set_open(c, true);
    return true;
}

static const struct prop pipe_props[] = {
    PROP_STR(struct chr_file, path, "path", PF_REQUIRED, "Named pipe; PATH.in and PATH.out where they exist"), PROP_END
};

static const struct chr_class pipe_class = {
    .obj = { .name = "chardev-pipe", .desc = "Named pipes of the host", .base = &chr_class,
             .size = sizeof(struct chr_file), .props = pipe_props },
    .open = pipe_open, .close = file_close, .write = file_write, .rx_resume = file_resume, .what = file_name,
};
OBJ_CLASS(&pipe_class.obj);
