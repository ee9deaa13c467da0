/* SPDX-License-Identifier: MIT */
/* Hashes by name, keys from passwords, and keys in stripes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <nettle/hmac.h>
#include <nettle/nettle-meta.h>
#include <nettle/pbkdf2.h>
#include "base/bits.h"
#include "base/str.h"
#include "crypto/cipher.h"
#include "crypto/hash_int.h"
#include "crypto/secret.h"

static const struct nettle_hash *const hashes[] = {
    &nettle_sha1, &nettle_sha224, &nettle_sha256, &nettle_sha384, &nettle_sha512, &nettle_ripemd160,
};
union hash_ctx { struct sha1_ctx a; struct sha256_ctx b; struct sha512_ctx c; struct ripemd160_ctx d; };

static const struct nettle_hash *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(hashes); i++)
        if (!strcmp(hashes[i]->name, name))
            return hashes[i];
    return NULL;
}

bool hash_known(const char *name) { return find(name) != NULL; }
size_t hash_size(const char *name) { return find(name) ? find(name)->digest_size : 0; }

void hash_once(const char *name, const uint8_t *p, size_t len, uint8_t *out)
{
    const struct nettle_hash *h = find(name);
    union hash_ctx ctx;
    h->init(&ctx);
    h->update(&ctx, len, p);
    h->digest(&ctx, h->digest_size, out);
    secret_wipe(&ctx, sizeof ctx);
}

/* ---- HMAC and PBKDF2 ---- */

struct hash_mac { const struct nettle_hash *h; union hash_ctx outer, inner, state; };
static void mac_update(void *ctx, size_t len, const uint8_t *p)
{
    struct hash_mac *m = ctx;
    m->h->update(&m->state, len, p);
}
static void mac_digest(void *ctx, size_t len, uint8_t *out)
{
    struct hash_mac *m = ctx;
    hmac_digest(&m->outer, &m->inner, &m->state, m->h, len, out);
}

struct hash_mac *hash_mac_new(const char *name, const uint8_t *key, size_t len)
{
    struct hash_mac *m = xcalloc(1, sizeof *m);
    m->h = find(name);
    hmac_set_key(&m->outer, &m->inner, &m->state, m->h, len, key);
    return m;
}

void hash_mac_add(struct hash_mac *m, const void *p, size_t len) { mac_update(m, len, p); }

void hash_mac_end(struct hash_mac *m, uint8_t *out)
{
    mac_digest(m, m->h->digest_size, out);
    secret_wipe(m, sizeof *m);
    free(m);
}

void hash_pbkdf2(const char *name, const uint8_t *pass, size_t pass_len, const uint8_t *salt, size_t salt_len, uint32_t iterations,
                 uint8_t *out, size_t len)
{
    struct hash_mac m = { .h = find(name) };
    hmac_set_key(&m.outer, &m.inner, &m.state, m.h, pass_len, pass);
    pbkdf2(&m, mac_update, mac_digest, m.h->digest_size, iterations, salt_len, salt, len, out);
    secret_wipe(&m, sizeof m);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

uint32_t hash_pbkdf2_rate(const char *name, size_t out_len, unsigned ms)
{
    uint8_t out[CIPHER_MAX_KEY], salt[32] = { 0 };
    uint32_t n = 1000;
    for (;;) {
        int64_t start = now_ns(), took;
        hash_pbkdf2(name, salt, sizeof salt, salt, sizeof salt, n, out, MIN(out_len, sizeof out));
        took = MAX(now_ns() - start, INT64_C(1));
        if (took > 20 * 1000000)
            return (uint32_t)MIN((double)n * (double)ms * 1e6 / (double)took, (double)(1 << 26));
        n *= 4;
    }
}

/* ---- stripes ---- */

/* Each digest's length of @buf becomes the digest of its number and itself. */
static void diffuse(const struct nettle_hash *h, uint8_t *buf, size_t len)
{
    union hash_ctx ctx;
    uint8_t be[4];
    for (uint32_t i = 0; (size_t)i * h->digest_size < len; i++) {
        size_t at = (size_t)i * h->digest_size, n = MIN(len - at, (size_t)h->digest_size);
        st_be32(be, i);
        h->init(&ctx);
        h->update(&ctx, 4, be);
        h->update(&ctx, n, buf + at);
        h->digest(&ctx, n, buf + at);
    }
    secret_wipe(&ctx, sizeof ctx);
}

static void mix(uint8_t *d, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        d[i] ^= p[i];
}

void af_split(const char *hash, const uint8_t *key, size_t len, unsigned stripes, uint8_t *out)
{
    uint8_t d[CIPHER_MAX_KEY] = { 0 };
    crypto_random(out, len * (stripes - 1));
    for (unsigned i = 0; i + 1 < stripes; i++) {
        mix(d, out + i * len, len);
        diffuse(find(hash), d, len);
    }
    mix(d, key, len);
    memcpy(out + (stripes - 1) * len, d, len);
    secret_wipe(d, sizeof d);
}

void af_merge(const char *hash, const uint8_t *split, size_t len, unsigned stripes, uint8_t *key)
{
    memset(key, 0, len);
    for (unsigned i = 0; i + 1 < stripes; i++) {
        mix(key, split + i * len, len);
        diffuse(find(hash), key, len);
    }
    mix(key, split + (stripes - 1) * len, len);
}

void crypto_random(void *p, size_t n)
{
    for (uint8_t *at = p; n;) {
        ssize_t k = getrandom(at, n, 0);
        if (k < 0 && errno != EINTR)
            abort();                    /* without random numbers there are no keys */
        at += MAX(k, (ssize_t)0);
        n -= (size_t)MAX(k, (ssize_t)0);
    }
}
