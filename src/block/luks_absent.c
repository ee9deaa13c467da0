/* SPDX-License-Identifier: MIT */
/* A build without nettle: an encrypted image says what is missing. */
#include <errno.h>
#include "block/luks.h"

OBJ_ABSENT("luks", &blk_node_class, "nettle (Debian: nettle-dev)");

const char *const luks_states[] = { "active", "inactive", NULL };
static bool absent(struct err *e) { return err_set(e, ERR_NOT_BUILT, "encryption is not in this build: it needs nettle (Debian: nettle-dev)"); }

bool co_luks_open(struct luks *l, const struct luks_io *io, const char *key_secret, uint64_t size, struct err *e) { return absent(e); }
bool co_luks_create(struct luks *l, const struct luks_io *io, const struct luks_create *opts, struct err *e) { return absent(e); }
uint64_t luks_create_size(const struct luks *l) { return 0; }
bool luks_measure(const struct luks_create *opts, uint64_t *bytes, struct err *e) { return absent(e); }
bool co_luks_amend(struct luks *l, const struct luks_io *io, const struct luks_amend *a, bool force, struct err *e) { return absent(e); }
void luks_close(struct luks *l) { }
json_t *luks_info(const struct luks *l) { return json_object(); }
int co_luks_preadv(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n)
{
    return -ENOKEY;
}
int co_luks_pwritev(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n,
                    unsigned flags)
{
    return -ENOKEY;
}
