/* SPDX-License-Identifier: MIT */
#include "block/driver.h"

OBJ_ABSENT("http", &blk_node_class, "libcurl (Debian: libcurl4-gnutls-dev)");
OBJ_ABSENT("https", &blk_node_class, "libcurl (Debian: libcurl4-gnutls-dev)");
