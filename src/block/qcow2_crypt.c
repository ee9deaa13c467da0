/* SPDX-License-Identifier: MIT */
/*
 * Encryption: section Data encryption, header extension "Full disk encryption header pointer". The LUKS header has clusters of its own;
 * guest data is encrypted by the number of its sector in the file. Tables, and what is compressed, are not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/qcow2_int.h"

static int co_io_read(void *arg, uint64_t off, void *buf, uint64_t len)
{
    struct qcow2 *s = arg;
    return range_ok(off, len, s->crypt_len) ? co_q2_pread(s, s->crypt_off + off, buf, len) : -EIO;
}
static int co_io_write(void *arg, uint64_t off, const void *buf, uint64_t len)
{
    struct qcow2 *s = arg;
    return range_ok(off, len, s->crypt_len) ? co_q2_pwrite(s, s->crypt_off + off, buf, len) : -EIO;
}
static int co_io_flush(void *arg) { return co_q2_barrier(arg); }

struct luks_io q2_luks_io(struct qcow2 *s)
{
    return (struct luks_io){ co_io_read, co_io_write, co_io_flush, s, blk_node_filename(&s->node) };
}

bool co_q2_crypt_open(struct qcow2 *s, struct err *e)
{
    const char *name = blk_node_filename(&s->node);
    struct luks_io io = q2_luks_io(s);
    if (!s->crypt)
        return (!s->key_secret && !s->encrypt_format) || err_set(e, ERR_VALUE, "encrypt.* has no effect: '%s' is not encrypted", name);
    if (s->crypt == Q2_CRYPT_AES) {
        err_set(e, ERR_NOT_BUILT, "'%s' is encrypted in the old way (AES), which protects nothing and is not read here", name);
        return err_hint(e, "qemu-img convert -o encrypt.format=luks,... makes an image that is");
    }
    if (s->encrypt_format == Q2_CRYPT_AES)
        return err_set(e, ERR_VALUE, "encrypt.format=aes: '%s' is encrypted by luks", name);
    if (!s->key_secret && !s->header_only) {
        err_set(e, ERR_VALUE, "'encrypt.key-secret' is missing: '%s' is encrypted", name);
        return err_hint(e, "encrypt.key-secret=ID, of -object secret,id=ID,file=FILE");
    }
    if (!s->crypt_off || s->crypt_off % s->cluster_size || !range_ok(s->crypt_off, s->crypt_len, align_up(q2_file_size(s), s->cluster_size)))
        return err_set(e, ERR_VALUE, "'%s' is not a valid qcow2 image: its encryption header is not in the file", name);
    s->luks = xnew(struct luks);
    return co_luks_open(s->luks, &io, s->header_only ? NULL : s->key_secret, s->crypt_len, e);
}

void q2_crypt_close(struct qcow2 *s)
{
    if (s->luks)
        luks_close(s->luks);
    free(s->luks);
    s->luks = NULL;
}

bool co_q2_crypt_create(struct qcow2 *s, const struct luks_create *c, struct err *e)
{
    enum { MOST = 4 << 20 };            /* what a header of any key needs */
    struct luks_io io = q2_luks_io(s);
    s->luks = xnew(struct luks);
    s->crypt_len = MOST;
    int r = co_q2_alloc_meta(s, MOST, &s->crypt_off);
    r = r ? r : co_q2_write_zeroes(s, s->crypt_off, MOST);
    if (r)
        return err_os(e, -r, "cannot make room for the encryption header");
    if (!co_luks_create(s->luks, &io, c, e))
        return false;
    uint64_t need = align_up(luks_create_size(s->luks), s->cluster_size);
    if (need < MOST)
        co_q2_unalloc(s, s->crypt_off + need, MOST - need);
    s->crypt_len = luks_create_size(s->luks);
    s->crypt = Q2_CRYPT_LUKS;
    r = co_q2_sync(s);
    r = r ? r : co_q2_header_write(s);
    r = r ? r : co_q2_barrier(s);
    return !r || err_os(e, -r, "cannot write the encryption header");
}

int co_q2_data_read(struct qcow2 *s, uint64_t host, uint64_t len, const struct iovec *iov, unsigned n)
{
    return s->luks ? co_luks_preadv(s->luks, q2_data(s), 0, host, len, iov, n) : co_node_preadv(q2_data(s), host, len, iov, n, 0);
}

int co_q2_data_write(struct qcow2 *s, uint64_t host, uint64_t len, const struct iovec *iov, unsigned n)
{
    unsigned flags = s->has_data_file ? 0 : BLK_GROW;
    return s->luks ? co_luks_pwritev(s->luks, q2_data(s), 0, host, len, iov, n, flags) : co_node_pwritev(q2_data(s), host, len, iov, n, flags);
}
