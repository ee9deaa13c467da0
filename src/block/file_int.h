/* SPDX-License-Identifier: MIT */
/* What the files of the file driver share. */
#ifndef BLOCK_FILE_INT_H
#define BLOCK_FILE_INT_H

#include <sys/stat.h>
#include "block/driver.h"
#include "block/ragged.h"

struct blk_file {
    struct blk_node node;
    char *filename;
    int aio;
    enum tri locking;
    struct obj *pr_manager;         /* of host_device: who executes persistent reservation commands; or NULL */
    int fd;
    unsigned align, mem_align;      /* of direct I/O; 1: none needed */
    enum co_file kind;              /* of its transfers */
    bool is_dev, can_punch, no_dsync;   /* no_dsync: its file system does not know of RWF_DSYNC, and does not say so */
    _Atomic int flush_error;        /* of a flush or a write through the cache that failed: what the page cache held then may be lost */
    dev_t dev;                      /* which file it is */
    ino_t ino;
    bool no_locks;                  /* the file system has none, and locking=auto */
    unsigned locked;                /* lock bytes held: bit b for 100 + b, bit 8 + b for 200 + b */
    struct blk_ragged ragged;       /* of direct I/O */
};

/* SCSI commands of host_device (file_sg.c). The most bytes of one; 0: it is no SCSI device. */
uint32_t file_scsi_limit(int fd);
int co_file_scsi(struct blk_node *n, struct blk_scsi *c);

/* Takes the image locks that QEMU knows: byte 100 + p while a permission p is used, 200 + p while it is not shared. */
bool file_lock_update(struct blk_file *f, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
/* The locks that are held, by another descriptor of the same file too. */
void file_lock_copy(const struct blk_file *f, int fd);

/* A file of the host: the one that @st tells of. */
bool blk_file_is_the(const struct blk_node *n, const struct stat *st);
/* A file or device of the host that is opened with locking=off. */
bool blk_file_is_unlocked(const struct blk_node *n);

#endif
