/* SPDX-License-Identifier: MIT */
/* Between the files of the nfs driver: the library, its socket and its calls (nfs_call.c), the node (nfs.c). Home loop. */
#ifndef BLOCK_NFS_INT_H
#define BLOCK_NFS_INT_H

#include <nfsc/libnfs.h>
#include "block/asked.h"
#include "block/driver.h"
#include "loop/sock_place.h"

/* What is used of libnfs, which is opened with the first node. */
#define NFS_FUNCTIONS(F) \
    F(nfs_init_context) F(nfs_destroy_context) F(nfs_get_fd) F(nfs_which_events) F(nfs_service) F(nfs_get_error) F(nfs_parse_url_incomplete) \
    F(nfs_destroy_url) F(nfs_set_version) F(nfs_set_uid) F(nfs_set_gid) F(nfs_set_tcp_syncnt) F(nfs_set_readahead) F(nfs_set_pagecache) \
    F(nfs_set_debug) F(nfs_get_readmax) F(nfs_get_writemax) F(nfs_mount_async) F(nfs_open2_async) F(nfs_close_async) F(nfs_fstat64_async) \
    F(nfs_stat64_async) F(nfs_pread_async) F(nfs_pwrite_async) F(nfs_fsync_async) F(nfs_ftruncate_async) F(nfs_unlink_async)
#define NFS_POINTER(f) typeof(&f) f;
extern struct nfs_functions { NFS_FUNCTIONS(NFS_POINTER) } nfs;

/* A call that is on its way. */
struct nfs_call {
    struct list link;                   /* in ->calls */
    struct blk_nfs *s;
    /* The answer: @r as libnfs has it, @data with it, which is its only now. A failure's text is in ->said. */
    void (*done)(struct nfs_call *, int r, void *data);
};

struct blk_nfs {
    struct blk_node node;
    json_t *server;
    char *path;
    uint32_t uid, gid, tcp_syncnt, readahead, pagecache, debug, version, nfs_port, mount_port, reconnect_timeout, timeout;
    struct sock_place place;
    char *name, *filename;              /* its address, for messages, and with what opens it again */
    char *dir, *file;                   /* of the path */
    /* connection */
    struct nfs_context *ctx;            /* NULL: there is none (any more) */
    struct nfsfh *fh;
    bool mounted, connected, lost_told;
    struct loop_fd watch;
    struct timer retry, patience;       /* the next look at a server that is not there; the end of waiting for it */
    struct timer silence;               /* and the end of waiting for an answer, where ->timeout */
    struct list calls;
    struct blk_asked asked;             /* their number */
    unsigned pieces;                    /* of reads and writes, on their way, and */
    uint64_t in_flight;                 /* their bytes */
    struct co_queue room;
    char said[160];                     /* the last failure, in words */
    int64_t warned;                     /* when one was last told */
};

/* Makes a context without a connection; the mirror is nfs_end(). Coroutine. */
bool co_nfs_begin(struct blk_nfs *s, struct err *e) MUST_CHECK;
/* Everything on its way fails; also where there is no context. */
void nfs_end(struct blk_nfs *s, const char *why);
/* Around the library's functions, which answered @r: 0, @call is on its way, or was answered from a cache and may be gone already. */
void nfs_begin_call(struct blk_nfs *s, struct nfs_call *call, void (*done)(struct nfs_call *, int r, void *data));
void nfs_called(int r, struct nfs_context *ctx, void *data, void *call);
bool nfs_sent(struct blk_nfs *s, struct nfs_call *call, int r);

/* A call, and its answer: >= 0 or -errno. @started is one of the functions above with (nfs_called, &w->call) at its end. */
struct nfs_wait { struct nfs_call call; struct co_event done; int res; void *data; struct nfs_stat_64 *stat /* where such an answer goes, or NULL */; };
#define CO_NFS(s, w, fn, ...) (nfs_wait_begin(s, w) ? co_nfs_wait(w, nfs.fn((s)->ctx, ##__VA_ARGS__, nfs_called, &(w)->call)) : -EIO)
bool nfs_wait_begin(struct blk_nfs *s, struct nfs_wait *w);
int co_nfs_wait(struct nfs_wait *w, int started);

#endif
