/* SPDX-License-Identifier: MIT */
/* Without a library of hashes there are no authenticated frames. */
#include <errno.h>
#include "hw/sd/sd.h"

bool sd_rpmb_open(struct sd_card *c, struct err *e)
{
    return !c->rpmb_size || err_set(e, ERR_NOT_BUILT, "rpmb-partition-size= needs nettle, which is not in this build");
}

int co_sd_rpmb_read(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len) { return -ENODATA; }
int co_sd_rpmb_write(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len) { return -ENODATA; }
