/* SPDX-License-Identifier: MIT */
/* What the two files of the FUSE export share. */
#ifndef BLOCK_FUSE_INT_H
#define BLOCK_FUSE_INT_H

#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>
#include "block/export.h"

enum { FUSE_FREE_BUFS = 4 };

struct fuse_export {
    struct blk_export exp;
    char *mountpoint;
    bool growable;                  /* a write beyond the end makes the node longer */
    enum tri allow_other;
    struct fuse_session *se;
    bool mounted, shared;           /* shared: other users may see it */
    struct loop_fd watch;           /* of the session's descriptor, on the loop of ->dom */
    struct fuse_buf buf;            /* for the next message */
    void *spare[FUSE_FREE_BUFS];    /* buffers that nobody uses */
    unsigned n_spare;
    atomic_uint in_flight;
    atomic_bool lost;               /* unmounted from outside */
    struct post lost_post;
    struct co_mutex resizing;       /* main loop */
    /* the file as it is shown */
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec atime, mtime;
};

/* Requests of the kernel: each is a coroutine of the export's domain. */
extern const struct fuse_lowlevel_ops fuse_export_ops;

#endif
