/* SPDX-License-Identifier: MIT */
/* Copies to and from scatter lists of guest memory, and parts of them as iovec arrays. */
#include <stdlib.h>
#include <string.h>
#include "mem/dma.h"

static size_t vec_copy(const struct dma_vec *v, uint64_t off, void *buf, size_t n, bool to_vec)
{
    size_t done = 0;

    for (unsigned i = 0; i < v->n && done < n; i++) {
        size_t len = v->iov[i].iov_len;
        if (off >= len) {
            off -= len;
            continue;
        }
        size_t part = MIN(len - off, n - done);
        char *host = (char *)v->iov[i].iov_base + off;
        if (to_vec)
            memcpy(host, (char *)buf + done, part);
        else
            memcpy((char *)buf + done, host, part);
        done += part;
        off = 0;
    }
    /* The copy that was just made stands: the compiler may not read guest memory again in its place. */
    __asm__ volatile("" ::: "memory");
    return done;
}

size_t vec_to_buf(const struct dma_vec *v, uint64_t off, void *buf, size_t n)
{
    return vec_copy(v, off, buf, n, false);
}

size_t vec_from_buf(const struct dma_vec *v, uint64_t off, const void *buf, size_t n)
{
    return vec_copy(v, off, (void *)(uintptr_t)buf, n, true);
}

struct iovec *vec_slice(const struct dma_vec *v, uint64_t off, uint64_t len, unsigned *n, struct iovec **own)
{
    unsigned i = 0, k = 0;
    uint64_t sum = 0;

    if (!range_ok(off, len, v->len))
        return NULL;
    while (i < v->n && off >= v->iov[i].iov_len)
        off -= v->iov[i++].iov_len;
    if (!off) {                                     /* does it end with an entry too? */
        for (k = i; k < v->n && sum < len; k++)
            sum += v->iov[k].iov_len;
        if (sum == len) {
            *n = k - i;
            return v->iov + i;
        }
    }
    struct iovec *p = realloc(*own, (v->n - i + 1) * sizeof *p);
    if (!p)
        return NULL;
    *own = p;
    for (k = 0; len; i++, k++) {
        p[k].iov_base = (char *)v->iov[i].iov_base + off;
        p[k].iov_len = MIN(v->iov[i].iov_len - off, len);
        len -= p[k].iov_len;
        off = 0;
    }
    *n = k;
    return p;
}
