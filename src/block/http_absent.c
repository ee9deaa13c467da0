/* SPDX-License-Identifier: MIT */
#include "block/driver.h"

static const struct obj_absent absent[] = {
    { "http", &blk_node_class, "libcurl (Debian: libcurl4-gnutls-dev)" },
    { "https", &blk_node_class, "libcurl (Debian: libcurl4-gnutls-dev)" },
};
LINKSET_ADD(obj_absent, struct obj_absent, &absent[0]);
LINKSET_ADD(obj_absent, struct obj_absent, &absent[1]);
