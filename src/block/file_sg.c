/* SPDX-License-Identifier: MIT */
/* SCSI commands for devices of the host, by the kernel's SG_IO (scsi/sg.h, version 3). */
#include <assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include "block/file_int.h"
#include "block/pr_helper.h"

#define SG_VERSION_3 30000
#define SG_IOV_MAX 1024u                /* what the kernel takes */
#define SG_TRANSFER_DEFAULT (128u * 1024)

uint32_t file_scsi_limit(int fd)
{
    struct stat st;
    int version, most = 0;

    if (ioctl(fd, SG_GET_VERSION_NUM, &version) || version < SG_VERSION_3 || fstat(fd, &st))
        return 0;
    /* The one counts sectors in a short, the other bytes in an int. */
    if (S_ISBLK(st.st_mode)) {
        unsigned short sectors = 0;
        most = ioctl(fd, BLKSECTGET, &sectors) ? 0 : sectors * 512;
    } else if (ioctl(fd, BLKSECTGET, &most)) {
        most = 0;
    }
    return most > 0 ? (uint32_t)most : SG_TRANSFER_DEFAULT;
}

struct sg_args { int fd; struct sg_io_hdr h; };

static int sg_worker(void *arg)
{
    struct sg_args *a = arg;

    return ioctl(a->fd, SG_IO, &a->h) < 0 ? -errno : 0;         /* also on EINTR: it may have been executed */
}

int co_file_scsi(struct blk_node *n, struct blk_scsi *c)
{
    struct blk_file *f = (struct blk_file *)n;
    struct sg_args a = { .fd = f->fd };
    int r;

    if (c->len > n->caps.scsi || c->niov > SG_IOV_MAX)
        return -EINVAL;
    if (f->pr_manager && pr_helper_wants(c))
        return co_pr_helper_run(f->pr_manager, f->fd, c);
    a.h = (struct sg_io_hdr){ .interface_id = 'S', .cmd_len = c->cdb_len, .cmdp = c->cdb, .sbp = c->sense, .mx_sb_len = sizeof c->sense,
        .dxfer_direction = !c->len ? SG_DXFER_NONE : c->to_device ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV, .dxfer_len = c->len,
        .iovec_count = c->len ? (unsigned short)c->niov : 0, .dxferp = c->len ? (void *)c->iov : NULL,
        .timeout = c->timeout > UINT32_MAX / 1000 ? UINT32_MAX : c->timeout * 1000 };
    static_assert(sizeof(struct sg_iovec) == sizeof(struct iovec), "the same two words");
    r = co_offload(sg_worker, &a);
    if (r)
        return r;
    c->status = a.h.status;
    c->host_status = a.h.host_status;
    c->driver_status = a.h.driver_status;
    c->sense_len = a.h.sb_len_wr;
    c->done = c->len - (uint32_t)(a.h.resid > 0 ? a.h.resid : 0);
    return 0;
}
