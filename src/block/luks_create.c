/* SPDX-License-Identifier: MIT */
/* New LUKS headers, changes of their key slots, and what they tell of themselves. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/luks_int.h"
#include "crypto/secret.h"

enum { ALIGN = 8 /* sectors, of key slots */, PAYLOAD_ALIGN = 2048 };
const char *const luks_states[] = { "active", "inactive", NULL };

/* ---- names: QEMU's options and the header's fields ---- */

/* "aes-256" to "aes" and a key of 32 bytes, twice that for xts. */
static bool take_cipher(struct luks *l, const struct luks_create *c, struct err *e)
{
    const char *dash = strrchr(c->cipher_alg, '-');
    uint64_t bits = 0;
    if (!dash || dash - c->cipher_alg > LUKS_NAME || !parse_u64(dash + 1, &bits) || !bits || bits % 8 || bits > 256)
        return err_set(e, ERR_VALUE, "cipher-alg is a name and a number of bits, as in aes-256, not '%s'", c->cipher_alg);
    snprintf(l->cipher_name, sizeof l->cipher_name, "%.*s", (int)(dash - c->cipher_alg), c->cipher_alg);
    l->key_bytes = (uint32_t)bits / 8 * (str_eq(c->cipher_mode, "xts") ? 2 : 1);
    bool essiv = str_eq(c->ivgen_alg, "essiv");
    if (c->ivgen_hash_alg && !essiv)
        return err_set(e, ERR_VALUE, "ivgen-hash-alg has no effect without ivgen-alg=essiv");
    if (str_eq(c->cipher_mode, "ecb"))
        snprintf(l->cipher_mode, sizeof l->cipher_mode, "ecb");
    else
        snprintf(l->cipher_mode, sizeof l->cipher_mode, "%.10s-%.10s%s%.9s", c->cipher_mode, c->ivgen_alg, essiv ? ":" : "",
                 !essiv ? "" : c->ivgen_hash_alg ? c->ivgen_hash_alg : "sha256");
    snprintf(l->hash, sizeof l->hash, "%.31s", c->hash_alg);
    return hash_known(l->hash) || err_set(e, ERR_VALUE, "hash-alg=%s is not known: sha1, sha224, sha256, sha384, sha512 or ripemd160", c->hash_alg);
}

static void make_uuid(char out[LUKS_UUID + 1])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t u[16];
    crypto_random(u, sizeof u);
    u[6] = (u[6] & 0x0f) | 0x40;
    u[8] = (u[8] & 0x3f) | 0x80;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[u[i] >> 4];
        *out++ = hex[u[i] & 15];
    }
    *out = 0;
}

/* ---- creation ---- */

struct digest { struct luks *l; unsigned ms; };
static int digest_work(void *arg)
{
    struct digest *d = arg;
    struct luks *l = d->l;
    l->digest_iterations = MAX(hash_pbkdf2_rate(l->hash, LUKS_DIGEST, MAX(d->ms / 8, 1u)), 1000u);
    hash_pbkdf2(l->hash, l->key, l->key_bytes, l->digest_salt, LUKS_SALT, l->digest_iterations, l->digest, LUKS_DIGEST);
    return 0;
}

uint64_t luks_create_size(const struct luks *l) { return (uint64_t)l->payload * 512; }

/* A key, and places for it, of a header that is not written yet. */
static bool lay_out(struct luks *l, const struct luks_create *c, struct err *e)
{
    *l = (struct luks){ 0 };
    if (!c->key_secret)
        return err_set(e, ERR_VALUE, "'key-secret' is missing: an encrypted image needs a password");
    if (!take_cipher(l, c, e))
        return false;
    crypto_random(l->key, l->key_bytes);
    l->cipher = cipher_new(l->cipher_name, l->cipher_mode, l->key, l->key_bytes, e);
    uint32_t slot = (uint32_t)(align_up(luks_slot_len(l), ALIGN * 512) / 512);
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        l->slot[i].offset = ALIGN + i * slot;
    l->payload = (uint32_t)align_up(ALIGN + LUKS_SLOTS * slot, PAYLOAD_ALIGN);
    return l->cipher;
}

bool luks_measure(const struct luks_create *c, uint64_t *bytes, struct err *e)
{
    struct luks l;
    bool ok = lay_out(&l, c, e);
    *bytes = luks_create_size(&l);
    luks_close(&l);
    return ok;
}

bool co_luks_create(struct luks *l, const struct luks_io *io, const struct luks_create *c, struct err *e)
{
    struct digest d = { l, c->iter_time };
    if (!lay_out(l, c, e))
        return false;
    crypto_random(l->digest_salt, LUKS_SALT);
    make_uuid(l->uuid);
    co_offload(digest_work, &d);
    return co_luks_set_slot(l, io, 0, c->key_secret, c->iter_time, e);
}

/* ---- key slots ---- */

static unsigned active_slots(const struct luks *l)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        n += l->slot[i].active;
    return n;
}

static bool co_activate(struct luks *l, const struct luks_io *io, const struct luks_amend *a, bool force, struct err *e)
{
    int i = a->keyslot;
    if (!a->new_secret)
        return err_set(e, ERR_VALUE, "'new-secret' is missing: a key slot needs a password");
    if (a->old_secret)
        return err_set(e, ERR_VALUE, "old-secret has no effect with state=active");
    if (!l->cipher)
        return err_set(e, ERR_VALUE, "the image is locked: a key slot can be set only with a password that opens it");
    for (unsigned k = 0; i < 0 && k < LUKS_SLOTS; k++)
        i = l->slot[k].active ? -1 : (int)k;
    if (i < 0)
        return err_set(e, ERR_VALUE, "all key slots are in use");
    if (l->slot[i].active && !force) {
        err_set(e, ERR_VALUE, "key slot %d is in use", i);
        return err_hint(e, "--force overwrites it");
    }
    return co_luks_set_slot(l, io, (unsigned)i, a->new_secret, a->iter_time, e);
}

/* The header forgets the slot, then its key material is overwritten. */
static bool co_erase(struct luks *l, const struct luks_io *io, unsigned i, struct err *e)
{
    size_t len = align_up(luks_slot_len(l), CIPHER_SECTOR);
    l->slot[i].active = false;
    l->slot[i].iterations = 0;
    memset(l->slot[i].salt, 0, LUKS_SALT);
    if (!co_luks_write_header(l, io, e))
        return false;
    uint8_t *junk = malloc(len);
    int r = junk ? 0 : -ENOMEM;
    if (junk) {
        crypto_random(junk, len);
        r = io->co_write(io->arg, (uint64_t)l->slot[i].offset * 512, junk, len);
        r = r ? r : io->co_flush(io->arg);
    }
    free(junk);
    return !r || err_os(e, -r, "cannot erase a key slot of '%s'", io->name);
}

/* Which slots @a means; false: @e. */
static bool co_choose(struct luks *l, const struct luks_io *io, const struct luks_amend *a, bool chosen[LUKS_SLOTS], struct err *e)
{
    size_t n = 0;
    if (a->keyslot >= 0) {
        chosen[a->keyslot] = true;
        return !a->old_secret || err_set(e, ERR_VALUE, "keyslot and old-secret exclude each other");
    }
    uint8_t key[CIPHER_MAX_KEY], *pass = a->old_secret ? secret_bytes(a->old_secret, &n, e) : NULL;
    bool ok = pass || (!a->old_secret && err_set(e, ERR_VALUE, "'keyslot' or 'old-secret' is missing")), any = false;
    for (unsigned i = 0; i < LUKS_SLOTS && ok; i++) {
        int r = l->slot[i].active ? co_luks_try_slot(l, io, i, pass, n, key, e) : 0;
        chosen[i] = r == 1;
        any |= r == 1;
        ok = r >= 0;
    }
    secret_free(pass, pass ? n : 0);
    secret_wipe(key, sizeof key);
    return ok && (any || err_set(e, ERR_VALUE, "the password in secret '%s' opens no key slot", a->old_secret));
}

static bool co_deactivate(struct luks *l, const struct luks_io *io, const struct luks_amend *a, bool force, struct err *e)
{
    bool chosen[LUKS_SLOTS] = { false };
    unsigned n = 0;
    if (a->new_secret)
        return err_set(e, ERR_VALUE, "new-secret has no effect with state=inactive");
    if (!co_choose(l, io, a, chosen, e))
        return false;
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        n += chosen[i] && l->slot[i].active;
    if (!n && !force)
        return err_set(e, ERR_VALUE, "key slot %d is not in use", a->keyslot);
    if (n == active_slots(l) && !force) {
        err_set(e, ERR_VALUE, "nobody could open the image any more: its last key slots would be erased");
        return err_hint(e, "--force erases them, and all data is lost");
    }
    for (unsigned i = 0; i < LUKS_SLOTS; i++)
        if (chosen[i] && !co_erase(l, io, i, e))
            return false;
    return true;
}

bool co_luks_amend(struct luks *l, const struct luks_io *io, const struct luks_amend *a, bool force, struct err *e)
{
    return a->state == 0 ? co_activate(l, io, a, force, e) : co_deactivate(l, io, a, force, e);
}

/* ---- info ---- */

json_t *luks_info(const struct luks *l)
{
    const char *dash = strchr(l->cipher_mode, '-'), *colon = strchr(l->cipher_mode, ':');
    unsigned key = l->key_bytes * 8 / (str_starts(l->cipher_mode, "xts") ? 2 : 1);
    char cipher[48], mode[40], iv[40];
    snprintf(cipher, sizeof cipher, "%s-%u", l->cipher_name, key);
    snprintf(mode, sizeof mode, "%.*s", dash ? (int)(dash - l->cipher_mode) : LUKS_NAME, l->cipher_mode);
    snprintf(iv, sizeof iv, "%.*s", dash ? (int)strcspn(dash + 1, ":") : 0, dash ? dash + 1 : "");
    json_t *slots = json_array();
    for (unsigned i = 0; i < LUKS_SLOTS; i++) {
        json_t *s = json_pack("{s:b, s:I}", "active", l->slot[i].active, "key-offset", (json_int_t)l->slot[i].offset * 512);
        if (l->slot[i].active) {
            json_object_set_new(s, "iters", json_integer(l->slot[i].iterations));
            json_object_set_new(s, "stripes", json_integer(LUKS_STRIPES));
        }
        json_array_append_new(slots, s);
    }
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I}", "ivgen-alg", iv, "hash-alg", l->hash, "cipher-alg", cipher, "uuid", l->uuid,
                          "cipher-mode", mode, "slots", slots, "payload-offset", (json_int_t)l->payload * 512, "master-key-iters",
                          (json_int_t)l->digest_iterations);
    if (colon)
        json_object_set_new(o, "ivgen-hash-alg", json_string(colon + 1));
    return o;
}
