/* SPDX-License-Identifier: MIT */
#include "block/driver.h"

OBJ_ABSENT("ssh", &blk_node_class, "libssh (Debian: libssh-dev)");
