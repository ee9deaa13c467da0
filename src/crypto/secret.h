/* SPDX-License-Identifier: MIT */
/* Secrets (-object secret): passwords and keys, named by others instead of being written in their options. Main loop. */
#ifndef CRYPTO_SECRET_H
#define CRYPTO_SECRET_H

#include <stdint.h>
#include "core/obj.h"

extern const struct obj_class secret_class;

/* The bytes of secret @id in a new buffer with a zero behind them; NULL with @e filled. Given back by secret_free(). */
uint8_t *secret_bytes(const char *id, size_t *len, struct err *e) MUST_CHECK;
/* Overwrites and frees. NULL is fine. */
void secret_free(void *p, size_t len);
/* Overwrites, in a way that the compiler cannot leave out. ANY. */
void secret_wipe(void *p, size_t len);

#endif
