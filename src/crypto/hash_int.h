/* SPDX-License-Identifier: MIT */
/* What ciphers and their keys need of hash.c. */
#ifndef CRYPTO_HASH_INT_H
#define CRYPTO_HASH_INT_H

#include <stddef.h>
#include <stdint.h>

/* The digest of @len bytes, hash_size(@name) bytes into @out. ANY. */
void hash_once(const char *name, const uint8_t *p, size_t len, uint8_t *out);

#endif
