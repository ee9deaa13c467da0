/* SPDX-License-Identifier: MIT */
#include "net/net_int.h"

OBJ_ABSENT("user", &netdev_class, "libslirp (Debian: libslirp-dev)");
