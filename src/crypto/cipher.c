/* SPDX-License-Identifier: MIT */
/* Ciphers, modes and initialisation vectors. */
#include "crypto/cipher.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <nettle/cbc.h>
#include <nettle/nettle-meta.h>
#include "base/bits.h"
#include "base/str.h"
#include "crypto/hash_int.h"
#include "crypto/secret.h"

enum cipher_mode { MODE_XTS, MODE_CBC, MODE_ECB };
enum cipher_iv { IV_PLAIN, IV_PLAIN64, IV_ESSIV };
enum { BLOCK = 16 };

struct cipher {
    const struct nettle_cipher *k, *iv_k;
    enum cipher_mode mode;
    enum cipher_iv iv;
    void *enc, *dec, *tweak;            /* key schedules; of what makes the vector: xts' second key, essiv's */
};

/* ---- names ---- */

static const struct nettle_cipher *find_cipher(const char *name, size_t key)
{
    static const struct { const char *name; const struct nettle_cipher *k; } rows[] = {
        { "aes", &nettle_aes128 }, { "aes", &nettle_aes192 }, { "aes", &nettle_aes256 }, { "serpent", &nettle_serpent128 },
        { "serpent", &nettle_serpent192 }, { "serpent", &nettle_serpent256 }, { "twofish", &nettle_twofish128 },
        { "twofish", &nettle_twofish192 }, { "twofish", &nettle_twofish256 }, { "cast5", &nettle_cast128 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (!strcmp(rows[i].name, name) && rows[i].k->key_size == key)
            return rows[i].k;
    return NULL;
}

static bool parse_mode(struct cipher *c, const char *mode, const char **essiv_hash)
{
    static const struct { const char *name; enum cipher_mode mode; enum cipher_iv iv; } rows[] = {
        { "xts-plain64", MODE_XTS, IV_PLAIN64 }, { "xts-plain", MODE_XTS, IV_PLAIN }, { "cbc-plain64", MODE_CBC, IV_PLAIN64 },
        { "cbc-plain", MODE_CBC, IV_PLAIN }, { "ecb", MODE_ECB, IV_PLAIN },
    };
    *essiv_hash = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (!strcmp(rows[i].name, mode)) {
            c->mode = rows[i].mode;
            c->iv = rows[i].iv;
            return true;
        }
    if (!str_starts(mode, "cbc-essiv:") || !hash_known(mode + 10))
        return false;
    c->mode = MODE_CBC;
    c->iv = IV_ESSIV;
    *essiv_hash = mode + 10;
    return true;
}

/* ---- keys ---- */

static void *schedule(const struct nettle_cipher *k, const uint8_t *key, bool encrypt)
{
    void *ctx = aligned_alloc(64, align_up(k->context_size, 64));
    if (ctx)
        (encrypt ? k->set_encrypt_key : k->set_decrypt_key)(ctx, key);
    return ctx;
}

static void drop(void *ctx, const struct nettle_cipher *k)
{
    if (ctx)
        secret_free(ctx, k->context_size);
}

static bool set_keys(struct cipher *c, const uint8_t *key, size_t len, const char *essiv_hash)
{
    uint8_t digest[HASH_MAX];
    c->enc = schedule(c->k, key, true);
    c->dec = schedule(c->k, key, false);
    if (c->mode == MODE_XTS) {
        c->tweak = schedule(c->iv_k, key + len / 2, true);
    } else if (c->iv == IV_ESSIV) {     /* encrypted with the hash of the key (dm-crypt's documentation) */
        hash_once(essiv_hash, key, len, digest);
        c->tweak = schedule(c->iv_k, digest, true);
        secret_wipe(digest, sizeof digest);
    }
    return c->enc && c->dec && (c->tweak || (c->mode != MODE_XTS && c->iv != IV_ESSIV));
}

struct cipher *cipher_new(const char *name, const char *mode, const uint8_t *key, size_t len, struct err *e)
{
    const char *hash = NULL;
    struct cipher *c = xnew(struct cipher);
    bool known = parse_mode(c, mode, &hash), xts = known && c->mode == MODE_XTS;
    c->k = known && !(xts && len % 2) ? find_cipher(name, xts ? len / 2 : len) : NULL;
    c->iv_k = hash ? find_cipher(name, hash_size(hash)) : c->k;     /* essiv: the hash is the key of the vector's cipher */
    if (!c->k || !c->iv_k || (xts && c->k->block_size != BLOCK)) {
        err_set(e, ERR_NOT_BUILT, "encryption by '%s-%s' with a key of %zu bits is not known here", name, mode, len * 8);
        free(c);
        return NULL;
    }
    if (!set_keys(c, key, len, hash)) {
        err_set(e, ERR_GENERIC, "no memory for a key");
        cipher_free(c);
        return NULL;
    }
    return c;
}

void cipher_free(struct cipher *c)
{
    if (!c)
        return;
    drop(c->enc, c->k);
    drop(c->dec, c->k);
    drop(c->tweak, c->iv_k);
    free(c);
}

/* ---- sectors ---- */

static void make_iv(const struct cipher *c, uint64_t sector, uint8_t iv[BLOCK])
{
    memset(iv, 0, BLOCK);
    if (c->iv == IV_PLAIN)
        st_le32(iv, (uint32_t)sector);
    else
        st_le64(iv, sector);
    if (c->iv == IV_ESSIV)
        c->iv_k->encrypt(c->tweak, c->iv_k->block_size, iv, iv);
}

static void mix(uint64_t *p, const uint64_t *q)
{
    for (unsigned i = 0; i < CIPHER_SECTOR / 8; i++)
        p[i] ^= q[i];
}

/*
 * XTS (IEEE 1619): a block is mixed with its tweak before and after. All tweaks of a sector first, so that the cipher gets its
 * blocks in one call: several times as fast as one by one.
 */
static void xts_sector(const struct cipher *c, bool encrypt, const uint8_t iv[BLOCK], uint8_t *p)
{
    uint64_t t[CIPHER_SECTOR / 8], buf[CIPHER_SECTOR / 8];
    uint8_t first[BLOCK];
    c->iv_k->encrypt(c->tweak, BLOCK, first, iv);
    uint64_t lo = ld_le64(first), hi = ld_le64(first + 8);
    for (unsigned i = 0; i < CIPHER_SECTOR / 8; i += 2) {
        t[i] = htole64(lo);
        t[i + 1] = htole64(hi);
        uint64_t carry = hi >> 63;
        hi = hi << 1 | lo >> 63;
        lo = lo << 1 ^ (carry ? 0x87 : 0);
    }
    memcpy(buf, p, sizeof buf);
    mix(buf, t);
    (encrypt ? c->k->encrypt : c->k->decrypt)(encrypt ? c->enc : c->dec, CIPHER_SECTOR, (uint8_t *)buf, (const uint8_t *)buf);
    mix(buf, t);
    memcpy(p, buf, sizeof buf);
}

static void crypt_sector(const struct cipher *c, bool encrypt, uint64_t sector, uint8_t *p)
{
    uint8_t iv[BLOCK];
    make_iv(c, sector, iv);
    if (c->mode == MODE_XTS)
        xts_sector(c, encrypt, iv, p);
    else if (c->mode == MODE_ECB)
        (encrypt ? c->k->encrypt : c->k->decrypt)(encrypt ? c->enc : c->dec, CIPHER_SECTOR, p, p);
    else if (encrypt)
        cbc_encrypt(c->enc, c->k->encrypt, c->k->block_size, iv, CIPHER_SECTOR, p, p);
    else
        cbc_decrypt(c->dec, c->k->decrypt, c->k->block_size, iv, CIPHER_SECTOR, p, p);
}

void cipher_encrypt(const struct cipher *c, uint64_t sector, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i += CIPHER_SECTOR)
        crypt_sector(c, true, sector++, buf + i);
}

void cipher_decrypt(const struct cipher *c, uint64_t sector, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i += CIPHER_SECTOR)
        crypt_sector(c, false, sector++, buf + i);
}
