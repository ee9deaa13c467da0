/* SPDX-License-Identifier: MIT */
/*
 * Disk encryption as LUKS and dm-crypt name it: a cipher, a mode, and how the initialisation vector comes from the sector's number.
 * A cipher is constant once it is made: any number of threads use it at once.
 */
#ifndef CRYPTO_CIPHER_H
#define CRYPTO_CIPHER_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

enum { CIPHER_SECTOR = 512, CIPHER_MAX_KEY = 64, HASH_MAX = 64 };

struct cipher;

/*
 * @name "aes", "serpent", "twofish", "cast5"; @mode "xts-plain64", "xts-plain", "cbc-plain64", "cbc-plain", "cbc-essiv:HASH", "ecb"; @key of
 * @len bytes, which say the key's size (xts: two keys). NULL with @e filled.
 */
struct cipher *cipher_new(const char *name, const char *mode, const uint8_t *key, size_t len, struct err *e) MUST_CHECK;
void cipher_free(struct cipher *c);                 /* NULL is fine; the key is overwritten */
/* @len bytes (whole sectors) of @buf in place; the first is sector @sector. ANY. */
void cipher_encrypt(const struct cipher *c, uint64_t sector, uint8_t *buf, size_t len);
void cipher_decrypt(const struct cipher *c, uint64_t sector, uint8_t *buf, size_t len);

/* ---- hashes by name: "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160" ---- */
bool hash_known(const char *name);
size_t hash_size(const char *name);
/* PBKDF2 with HMAC (RFC 8018, section 5.2); takes as long as @iterations say: on a worker. ANY. */
void hash_pbkdf2(const char *name, const uint8_t *pass, size_t pass_len, const uint8_t *salt, size_t salt_len, uint32_t iterations,
                 uint8_t *out, size_t len);
/* HMAC (RFC 2104) over pieces: hash_size(@name) bytes into @out, after which the MAC is gone. ANY. */
struct hash_mac;
struct hash_mac *hash_mac_new(const char *name, const uint8_t *key, size_t len);
void hash_mac_add(struct hash_mac *m, const void *p, size_t len);
void hash_mac_end(struct hash_mac *m, uint8_t *out);
/* Iterations of PBKDF2 that take @ms milliseconds here. On a worker. ANY. */
uint32_t hash_pbkdf2_rate(const char *name, size_t out_len, unsigned ms);
/*
 * The anti-forensic splitter of the LUKS1 specification, section 2.4: @key of @len bytes to and from @stripes times as many, all of which
 * are needed. ANY.
 */
void af_split(const char *hash, const uint8_t *key, size_t len, unsigned stripes, uint8_t *out);
void af_merge(const char *hash, const uint8_t *split, size_t len, unsigned stripes, uint8_t *key);
/* Random bytes from the kernel. ANY. */
void crypto_random(void *p, size_t n);

#endif
