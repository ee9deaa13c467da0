/* SPDX-License-Identifier: MIT */
/* Objects and devices as a user makes them, by the command line and by monitors alike. Main loop. */
#ifndef CORE_USER_OBJ_H
#define CORE_USER_OBJ_H

#include "core/obj.h"

/* The options of `-object TYPE,id=ID,...`, owned by the caller; NULL: a mistake. `help` and `TYPE,help` are answered, and end the program. */
json_t *user_object_parse(const char *arg, struct err *e) MUST_CHECK;
/* -object / object-add: @opts holds "qom-type" and "id". */
bool user_object_create(json_t *opts, struct err *e) MUST_CHECK;
/* object-del. */
bool user_object_delete(const char *id, struct err *e) MUST_CHECK;
/* True if a property given in @opts names something that is made after the first objects: a chardev, netdev, blockdev. */
bool user_object_needs_back_end(json_t *opts);
/* device_del: by id or by path in the object tree. The device goes when the guest lets it. */
bool user_device_delete(const char *id, struct err *e) MUST_CHECK;
/* `-device help`, `-device DRIVER,help`. */
bool user_device_help(const char *driver, struct str *out, struct err *e) MUST_CHECK;
/* A class that -object can make. */
bool user_object_class(const struct obj_class *c);

#endif
