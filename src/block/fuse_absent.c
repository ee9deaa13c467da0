/* SPDX-License-Identifier: MIT */
#include "block/export.h"

OBJ_ABSENT("fuse", &blk_export_class.obj, "libfuse3 (Debian: libfuse3-dev)");
