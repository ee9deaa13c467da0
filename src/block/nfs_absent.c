/* SPDX-License-Identifier: MIT */
#include "block/driver.h"

OBJ_ABSENT("nfs", &blk_node_class, "libnfs (Debian: libnfs-dev); mount the export, and write file");
