/* SPDX-License-Identifier: MIT */
#include "block/driver.h"

OBJ_ABSENT("rbd", &blk_node_class, "librbd (Debian: librbd-dev); map the image by rbd or rbd-nbd, and write host_device");
