/* SPDX-License-Identifier: MIT */
/*
 * LUKS1 ("LUKS On-Disk Format Specification" 1.2.3): the header with its key slots, wherever it is, and encrypted data. Home loop;
 * coroutines; what takes long is done by workers.
 */
#ifndef BLOCK_LUKS_H
#define BLOCK_LUKS_H

#include "block/driver.h"
#include "crypto/cipher.h"

enum { LUKS_SLOTS = 8, LUKS_STRIPES = 4000, LUKS_SALT = 32, LUKS_DIGEST = 20, LUKS_NAME = 32, LUKS_UUID = 40, LUKS_HEADER = 592 };
#define LUKS_MAX_ITERATIONS (UINT32_C(1) << 26)     /* half a minute: what a header may make us wait */

/* Where a header is. 0 or -errno. */
struct luks_io {
    int (*co_read)(void *arg, uint64_t off, void *buf, uint64_t len);
    int (*co_write)(void *arg, uint64_t off, const void *buf, uint64_t len);
    int (*co_flush)(void *arg);
    void *arg;
    const char *name;               /* for messages */
};

struct luks_slot { bool active; uint32_t iterations, offset; uint8_t salt[LUKS_SALT]; };     /* offset: sectors */
struct luks {
    char cipher_name[LUKS_NAME + 1], cipher_mode[LUKS_NAME + 1], hash[LUKS_NAME + 1], uuid[LUKS_UUID + 1];
    uint32_t payload, key_bytes, digest_iterations;         /* payload: sectors */
    uint8_t digest[LUKS_DIGEST], digest_salt[LUKS_SALT];
    struct luks_slot slot[LUKS_SLOTS];
    struct cipher *cipher;          /* NULL: locked */
    uint8_t key[CIPHER_MAX_KEY];
    struct co_mutex edges;          /* of writes that change a part of a sector */
};

/* How an image is to be encrypted. */
struct luks_create {
    char *key_secret, *cipher_alg, *cipher_mode, *ivgen_alg, *ivgen_hash_alg, *hash_alg;
    uint32_t iter_time;             /* ms */
};
#define LUKS_CREATE_PROPS(T, f, prefix) \
    PROP_STR(T, f.key_secret, prefix "key-secret", 0, "Secret with the password of the first key slot"), \
    PROP_STR_DEF(T, f.cipher_alg, prefix "cipher-alg", "aes-256", "Cipher: aes-128, -192, -256, serpent-*, twofish-*, cast5-128"), \
    PROP_STR_DEF(T, f.cipher_mode, prefix "cipher-mode", "xts", "Mode: xts, cbc, ecb"), \
    PROP_STR_DEF(T, f.ivgen_alg, prefix "ivgen-alg", "plain64", "Initialisation vectors: plain64, plain, essiv"), \
    PROP_STR(T, f.ivgen_hash_alg, prefix "ivgen-hash-alg", 0, "Hash of essiv; else sha256"), \
    PROP_STR_DEF(T, f.hash_alg, prefix "hash-alg", "sha256", "Hash of the key slots: sha1, sha224, sha256, sha384, sha512, ripemd160"), \
    PROP_U32(T, f.iter_time, prefix "iter-time", 2000, 1, 20000, "Milliseconds that trying a password takes")

/* A change of key slots. */
struct luks_amend { int state; char *new_secret, *old_secret; int32_t keyslot; uint32_t iter_time; };
extern const char *const luks_states[];
#define LUKS_AMEND_PROPS(T, f, prefix) \
    PROP_ENUM(T, f.state, prefix "state", luks_states, 0, "active: a key slot is set; inactive: key slots are erased"), \
    PROP_STR(T, f.new_secret, prefix "new-secret", 0, "Secret with the password that opens the image from now on"), \
    PROP_STR(T, f.old_secret, prefix "old-secret", 0, "Secret with the password that no longer opens it"), \
    PROP_S32(T, f.keyslot, prefix "keyslot", -1, -1, LUKS_SLOTS - 1, "The slot; -1: a free one, or those that old-secret opens"), \
    PROP_U32(T, f.iter_time, prefix "iter-time", 2000, 1, 20000, "Milliseconds that trying the password takes")

/* Reads the header, and unlocks it with the secret @key_secret (NULL: it stays locked). @size: bytes where it is. The mirror is luks_close(). */
bool co_luks_open(struct luks *l, const struct luks_io *io, const char *key_secret, uint64_t size, struct err *e) MUST_CHECK;
/* Writes a new header with one key slot; unlocked after. */
bool co_luks_create(struct luks *l, const struct luks_io *io, const struct luks_create *opts, struct err *e) MUST_CHECK;
/* Bytes that a new header with its key slots has. */
uint64_t luks_create_size(const struct luks *l);
/* The same before it is made. */
bool luks_measure(const struct luks_create *opts, uint64_t *bytes, struct err *e) MUST_CHECK;
/* @l must be unlocked to set a slot. @force: also what may lose the last key. */
bool co_luks_amend(struct luks *l, const struct luks_io *io, const struct luks_amend *a, bool force, struct err *e) MUST_CHECK;
void luks_close(struct luks *l);
/* What `info` shows; new reference. */
json_t *luks_info(const struct luks *l);

/* ---- data at @off of @file; sector 0 of the cipher is at @base of it. -ENOKEY: locked ---- */
int co_luks_preadv(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n);
int co_luks_pwritev(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n,
                    unsigned flags);

#endif
