/* SPDX-License-Identifier: MIT */
/* Sources of entropy: `-object rng-builtin` (the kernel's generator) and `-object rng-random` (a file or device). */
#ifndef HW_VIRTIO_RNG_BACKEND_H
#define HW_VIRTIO_RNG_BACKEND_H

#include "core/obj.h"

extern const struct obj_class rng_backend_class;    /* abstract; ns "object" */
/* Up to @n bytes (n <= 65536) into @buf; @rng NULL: the kernel's generator. Bytes, or -errno. Coroutine, awaits. */
int co_rng_read(struct obj *rng, void *buf, size_t n);

#endif
