/* SPDX-License-Identifier: MIT */
#include "block/driver.h"

OBJ_ABSENT("iscsi", &blk_node_class, "libiscsi (Debian: libiscsi-dev); or log in by iscsiadm, and write host_device");
