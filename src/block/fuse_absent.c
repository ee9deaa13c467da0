/* SPDX-License-Identifier: MIT */
#include "block/export.h"

static const struct obj_absent absent_fuse = { "fuse", &blk_export_class.obj, "libfuse3 (Debian: libfuse3-dev)" };
LINKSET_ADD(obj_absent, struct obj_absent, &absent_fuse);
