/* SPDX-License-Identifier: MIT */
/* Encrypted data: through a buffer of our own, so that a guest never sees what is on the disk, nor changes what is being encrypted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/luks.h"

enum { PIECE = 1 << 20, INLINE_MAX = 16 << 10 };        /* a shorter piece is done before a worker would begin */

struct crypt { const struct cipher *c; bool encrypt; uint64_t sector; uint8_t *buf; size_t len; };
static int crypt_work(void *arg)
{
    struct crypt *x = arg;
    (x->encrypt ? cipher_encrypt : cipher_decrypt)(x->c, x->sector, x->buf, x->len);
    return 0;
}

static void co_crypt(struct luks *l, bool encrypt, uint64_t pos, uint8_t *buf, size_t len)
{
    struct crypt x = { l->cipher, encrypt, pos / CIPHER_SECTOR, buf, len };
    if (len <= INLINE_MAX)
        crypt_work(&x);
    else
        co_offload(crypt_work, &x);
}

/* Whole sectors [off, off + len) into @buf; those that the file does not have yet are zeroes as they are read. */
static int co_read_sectors(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint8_t *buf, uint64_t len)
{
    uint64_t size = align_down(atomic_load(&file->size), CIPHER_SECTOR), there = off >= size ? 0 : MIN(len, size - off);
    struct iovec v = { buf, there };
    memset(buf + there, 0, len - there);
    int r = there ? co_node_preadv(file, off, there, &v, 1, 0) : 0;
    if (!r && there)
        co_crypt(l, false, off - base, buf, there);
    return r;
}

static uint8_t *new_buf(uint64_t len) { return aligned_alloc(4096, align_up(MIN(len, (uint64_t)PIECE) + 2 * CIPHER_SECTOR, 4096)); }

int co_luks_preadv(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n)
{
    uint8_t *buf = l->cipher ? new_buf(len) : NULL;
    int r = buf ? 0 : l->cipher ? -ENOMEM : -ENOKEY;
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t k = MIN(len - at, (uint64_t)PIECE - (off + at - base) % CIPHER_SECTOR), skip = (off + at - base) % CIPHER_SECTOR;
        uint64_t from = off + at - skip;
        r = co_read_sectors(l, file, base, from, buf, align_up(skip + k, CIPHER_SECTOR));
        if (!r)
            blk_iov_copy(buf + skip, iov, n, at, k, true);
        at += k;
    }
    free(buf);
    return r;
}

/* One piece of a write; the sectors at its edges are filled up from what is there. */
static int co_write_piece(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t k, const struct iovec *iov, unsigned n,
                          uint64_t at, uint8_t *buf, unsigned flags)
{
    uint64_t skip = (off - base) % CIPHER_SECTOR, from = off - skip, len = align_up(skip + k, CIPHER_SECTOR), last = len - CIPHER_SECTOR;
    int r = 0;
    if (skip)
        r = co_read_sectors(l, file, base, from, buf, CIPHER_SECTOR);
    if (!r && (skip + k) % CIPHER_SECTOR && !(skip && !last))
        r = co_read_sectors(l, file, base, from + last, buf + last, CIPHER_SECTOR);
    if (r)
        return r;
    blk_iov_copy(buf + skip, iov, n, at, k, false);
    co_crypt(l, true, from - base, buf, len);
    struct iovec v = { buf, len };
    return co_node_pwritev(file, from, len, &v, 1, flags);
}

int co_luks_pwritev(struct luks *l, struct blk_node *file, uint64_t base, uint64_t off, uint64_t len, const struct iovec *iov, unsigned n,
                    unsigned flags)
{
    uint8_t *buf = l->cipher ? new_buf(len) : NULL;
    bool ragged = (off - base) % CIPHER_SECTOR || len % CIPHER_SECTOR;
    int r = buf ? 0 : l->cipher ? -ENOMEM : -ENOKEY;
    if (ragged)
        co_mutex_lock(&l->edges);       /* two in one sector would undo each other */
    for (uint64_t at = 0; at < len && !r;) {
        uint64_t k = MIN(len - at, (uint64_t)PIECE - (off + at - base) % CIPHER_SECTOR);
        r = co_write_piece(l, file, base, off + at, k, iov, n, at, buf, flags);
        at += k;
    }
    if (ragged)
        co_mutex_unlock(&l->edges);
    free(buf);
    return r;
}
