/* SPDX-License-Identifier: MIT */
/* Images of Ceph by name: rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:KEY=VALUE...], '\' before what means something else. ANY. */
#ifndef BLOCK_RBD_NAME_H
#define BLOCK_RBD_NAME_H

#include <jansson.h>
#include "base/err.h"

/* Options of the driver rbd. Of the keys "id" is its user and "conf" its conf; all others are settings of Ceph's. New reference; NULL with @e filled. */
json_t *rbd_name_opts(const char *name, struct err *e);
/* The name; each but the pool and the image may be NULL. The caller frees. */
char *rbd_name(const char *pool, const char *space, const char *image, const char *snapshot, const char *user, const char *conf);

#endif
