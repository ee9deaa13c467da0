/* SPDX-License-Identifier: MIT */
#include "net/net_int.h"

static const struct obj_absent absent_user = { "user", &netdev_class, "libslirp (Debian: libslirp-dev)" };
LINKSET_ADD(obj_absent, struct obj_absent, &absent_user);
