/* SPDX-License-Identifier: MIT */
/* A chardev over plain file descriptors: what stdio, file, pipe, pty and serial have in common. Main loop. */
#ifndef CHARDEV_CHR_FDS_H
#define CHARDEV_CHR_FDS_H

#include "chardev/chr_int.h"

struct chr_fds {
    struct chr *c;
    int in, out;                        /* -1: none */
    bool in_ready, in_eof;              /* in_ready: cannot be polled, always readable (regular files) */
    bool out_ready, in_sock, out_sock;
    struct loop_fd lin, lout;
    struct post again;
    void (*on_eof)(struct chr *);       /* end of input or a read error; NULL: reading just ends */
};

/* Takes both descriptors over (they may be the same one). Reading begins with chr_fds_resume(). */
void chr_fds_init(struct chr_fds *s, struct chr *c, int in, int out);
void chr_fds_close(struct chr_fds *s);
ssize_t chr_fds_write(struct chr_fds *s, const uint8_t *buf, size_t n);    /* as chr_class.write */
void chr_fds_resume(struct chr_fds *s);                                    /* as chr_class.rx_resume */
/*
 * A private open file description of a terminal or pipe that we were given, non-blocking, so that our flags do not leak
 * into the shell that shares it; where that is not possible a plain duplicate. -1 with errno on failure.
 */
int chr_fd_reopen(int fd, int flags);

#endif
