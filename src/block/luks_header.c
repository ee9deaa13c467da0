/* SPDX-License-Identifier: MIT */
/* The header of LUKS1: reading, unlocking, writing (sections 2.3, 4 and the constants of 6). Big endian. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/luks_int.h"
#include "crypto/secret.h"

enum { H_VERSION = 6, H_CIPHER = 8, H_MODE = 40, H_HASH = 72, H_PAYLOAD = 104, H_KEY_BYTES = 108, H_DIGEST = 112, H_SALT = 132, H_ITERATIONS = 164,
       H_UUID = 168, H_SLOTS = 208, SLOT_LEN = 48 };
enum { S_ACTIVE = 0, S_ITERATIONS = 4, S_SALT = 8, S_OFFSET = 40, S_STRIPES = 44 };
#define SLOT_ENABLED UINT32_C(0x00ac71f3)
#define SLOT_DISABLED UINT32_C(0x0000dead)
static const uint8_t magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

uint64_t luks_slot_len(const struct luks *l) { return (uint64_t)l->key_bytes * LUKS_STRIPES; }

static bool bad(const struct luks_io *io, struct err *e, const char *what, uint64_t v)
{
    return err_set(e, ERR_VALUE, "'%s' has no valid LUKS header: %s (%llu)", io->name, what, (unsigned long long)v);
}

/* ---- reading ---- */

static bool parse(struct luks *l, const struct luks_io *io, const uint8_t *h, uint64_t size, struct err *e)
{
    memcpy(l->cipher_name, h + H_CIPHER, LUKS_NAME);
    memcpy(l->cipher_mode, h + H_MODE, LUKS_NAME);
    memcpy(l->hash, h + H_HASH, LUKS_NAME);
    memcpy(l->uuid, h + H_UUID, LUKS_UUID);
    memcpy(l->digest, h + H_DIGEST, LUKS_DIGEST);
    memcpy(l->digest_salt, h + H_SALT, LUKS_SALT);
    l->payload = ld_be32(h + H_PAYLOAD);
    l->key_bytes = ld_be32(h + H_KEY_BYTES);
    l->digest_iterations = ld_be32(h + H_ITERATIONS);
    if (!l->key_bytes || l->key_bytes > CIPHER_MAX_KEY)
        return bad(io, e, "bytes of a key", l->key_bytes);
    if (!hash_known(l->hash))
        return err_set(e, ERR_NOT_BUILT, "'%s' uses the hash '%s', which is not known here", io->name, l->hash);
    if (!l->digest_iterations || l->digest_iterations > LUKS_MAX_ITERATIONS)
        return bad(io, e, "iterations of the key's digest", l->digest_iterations);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        const uint8_t *p = h + H_SLOTS + i * SLOT_LEN;
        struct luks_slot *s = &l->slot[i];
        uint32_t state = ld_be32(p + S_ACTIVE);
        *s = (struct luks_slot){ .active = state == SLOT_ENABLED, .iterations = ld_be32(p + S_ITERATIONS), .offset = ld_be32(p + S_OFFSET) };
        memcpy(s->salt, p + S_SALT, LUKS_SALT);
        if (state != SLOT_ENABLED && state != SLOT_DISABLED)
            return bad(io, e, "state of a key slot", state);
        if (ld_be32(p + S_STRIPES) != LUKS_STRIPES)
            return bad(io, e, "stripes of a key slot", ld_be32(p + S_STRIPES));
        if (!range_ok((uint64_t)s->offset * 512, luks_slot_len(l), size) || (uint64_t)s->offset * 512 < LUKS_HEADER)
            return bad(io, e, "place of a key slot", s->offset);
        if (s->active && (!s->iterations || s->iterations > LUKS_MAX_ITERATIONS))
            return bad(io, e, "iterations of a key slot", s->iterations);
    }
    return true;
}

struct unlock { const struct luks *l; const struct luks_slot *slot; const uint8_t *pass; size_t pass_len; uint8_t *split, *key; struct err e; bool ok; };

static int unlock_work(void *arg)
{
    struct unlock *u = arg;
    const struct luks *l = u->l;
    uint8_t key[CIPHER_MAX_KEY], digest[LUKS_DIGEST];
    hash_pbkdf2(l->hash, u->pass, u->pass_len, u->slot->salt, LUKS_SALT, u->slot->iterations, key, l->key_bytes);
    struct cipher *c = cipher_new(l->cipher_name, l->cipher_mode, key, l->key_bytes, &u->e);
    if (c) {
        cipher_decrypt(c, 0, u->split, align_up(luks_slot_len(l), CIPHER_SECTOR));
        af_merge(l->hash, u->split, l->key_bytes, LUKS_STRIPES, key);
        hash_pbkdf2(l->hash, key, l->key_bytes, l->digest_salt, LUKS_SALT, l->digest_iterations, digest, LUKS_DIGEST);
        u->ok = !memcmp(digest, l->digest, LUKS_DIGEST);
        if (u->ok)
            memcpy(u->key, key, l->key_bytes);
    }
    cipher_free(c);
    secret_wipe(key, sizeof key);
    return 0;
}

int co_luks_try_slot(struct luks *l, const struct luks_io *io, unsigned slot, const uint8_t *pass, size_t pass_len, uint8_t *key, struct err *e)
{
    struct unlock u = { .l = l, .slot = &l->slot[slot], .pass = pass, .pass_len = pass_len, .key = key, .e = ERR_INIT };
    size_t len = align_up(luks_slot_len(l), CIPHER_SECTOR);
    u.split = malloc(len);
    int r = u.split ? io->co_read(io->arg, (uint64_t)l->slot[slot].offset * 512, u.split, len) : -ENOMEM;
    if (!r)
        co_offload(unlock_work, &u);
    secret_free(u.split, u.split ? len : 0);
    if (r || u.e.msg[0]) {
        if (r)
            err_os(e, -r, "cannot read a key slot of '%s'", io->name);
        else
            *e = u.e;
        return -EIO;
    }
    return u.ok;
}

static bool co_unlock(struct luks *l, const struct luks_io *io, const char *id, struct err *e)
{
    size_t n;
    uint8_t *pass = secret_bytes(id, &n, e);
    int found = pass ? 0 : -EIO;
    for (unsigned i = 0; i < LUKS_SLOTS && !found; i++)
        if (l->slot[i].active)
            found = co_luks_try_slot(l, io, i, pass, n, l->key, e);
    secret_free(pass, pass ? n : 0);
    if (found < 0)
        return false;
    if (!found)
        return err_set(e, ERR_VALUE, "the password in secret '%s' does not open '%s'", id, io->name);
    l->cipher = cipher_new(l->cipher_name, l->cipher_mode, l->key, l->key_bytes, e);
    return l->cipher != NULL;
}

bool co_luks_open(struct luks *l, const struct luks_io *io, const char *key_secret, uint64_t size, struct err *e)
{
    uint8_t h[LUKS_HEADER];
    if (size < LUKS_HEADER)
        return bad(io, e, "bytes in all", size);
    int r = io->co_read(io->arg, 0, h, sizeof h);
    if (r)
        return err_os(e, -r, "cannot read '%s'", io->name);
    if (memcmp(h, magic, sizeof magic))
        return bad(io, e, "another signature", h[0]);
    if (ld_be16(h + H_VERSION) != 1)
        return err_set(e, ERR_NOT_BUILT, "'%s' is of LUKS version %u; 1 is known here", io->name, ld_be16(h + H_VERSION));
    return parse(l, io, h, size, e) && (!key_secret || co_unlock(l, io, key_secret, e));
}

void luks_close(struct luks *l)
{
    cipher_free(l->cipher);
    l->cipher = NULL;
    secret_wipe(l->key, sizeof l->key);
}

/* ---- writing ---- */

bool co_luks_write_header(struct luks *l, const struct luks_io *io, struct err *e)
{
    uint8_t h[LUKS_HEADER] = { 0 };
    memcpy(h, magic, sizeof magic);
    st_be16(h + H_VERSION, 1);
    memcpy(h + H_CIPHER, l->cipher_name, LUKS_NAME);
    memcpy(h + H_MODE, l->cipher_mode, LUKS_NAME);
    memcpy(h + H_HASH, l->hash, LUKS_NAME);
    memcpy(h + H_UUID, l->uuid, LUKS_UUID);
    memcpy(h + H_DIGEST, l->digest, LUKS_DIGEST);
    memcpy(h + H_SALT, l->digest_salt, LUKS_SALT);
    st_be32(h + H_PAYLOAD, l->payload);
    st_be32(h + H_KEY_BYTES, l->key_bytes);
    st_be32(h + H_ITERATIONS, l->digest_iterations);
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        uint8_t *p = h + H_SLOTS + i * SLOT_LEN;
        st_be32(p + S_ACTIVE, l->slot[i].active ? SLOT_ENABLED : SLOT_DISABLED);
        st_be32(p + S_ITERATIONS, l->slot[i].iterations);
        memcpy(p + S_SALT, l->slot[i].salt, LUKS_SALT);
        st_be32(p + S_OFFSET, l->slot[i].offset);
        st_be32(p + S_STRIPES, LUKS_STRIPES);
    }
    int r = io->co_write(io->arg, 0, h, sizeof h);
    r = r ? r : io->co_flush(io->arg);
    return !r || err_os(e, -r, "cannot write the LUKS header of '%s'", io->name);
}

struct lock { const struct luks *l; struct luks_slot *slot; const uint8_t *pass; size_t pass_len; unsigned ms; uint8_t *split; struct err e; };

/* The master key in stripes, encrypted with a key made from the password. */
static int lock_work(void *arg)
{
    struct lock *k = arg;
    const struct luks *l = k->l;
    uint8_t key[CIPHER_MAX_KEY];
    size_t len = align_up(luks_slot_len(l), CIPHER_SECTOR);
    k->slot->iterations = MAX(hash_pbkdf2_rate(l->hash, l->key_bytes, k->ms), 1000u);
    crypto_random(k->slot->salt, LUKS_SALT);
    hash_pbkdf2(l->hash, k->pass, k->pass_len, k->slot->salt, LUKS_SALT, k->slot->iterations, key, l->key_bytes);
    struct cipher *c = cipher_new(l->cipher_name, l->cipher_mode, key, l->key_bytes, &k->e);
    if (c) {
        memset(k->split, 0, len);
        af_split(l->hash, l->key, l->key_bytes, LUKS_STRIPES, k->split);
        cipher_encrypt(c, 0, k->split, len);
    }
    cipher_free(c);
    secret_wipe(key, sizeof key);
    return 0;
}

bool co_luks_set_slot(struct luks *l, const struct luks_io *io, unsigned i, const char *secret, unsigned ms, struct err *e)
{
    struct luks_slot slot = { .active = true, .offset = l->slot[i].offset };
    struct lock k = { .l = l, .slot = &slot, .ms = ms, .e = ERR_INIT };
    size_t len = align_up(luks_slot_len(l), CIPHER_SECTOR), n = 0;
    uint8_t *pass = secret_bytes(secret, &n, e);
    k.pass = pass;
    k.pass_len = n;
    k.split = pass ? malloc(len) : NULL;
    bool ok = k.split || (pass && err_os(e, ENOMEM, "no memory for a key slot"));
    if (ok) {
        co_offload(lock_work, &k);
        int r = k.e.msg[0] ? 0 : io->co_write(io->arg, (uint64_t)slot.offset * 512, k.split, len);
        r = r ? r : io->co_flush(io->arg);
        ok = !k.e.msg[0] || (*e = k.e, false);
        ok = ok && (!r || err_os(e, -r, "cannot write a key slot of '%s'", io->name));
    }
    secret_free(k.split, k.split ? len : 0);
    secret_free(pass, pass ? n : 0);
    if (ok)
        l->slot[i] = slot;
    return ok && co_luks_write_header(l, io, e);
}
