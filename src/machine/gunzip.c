/* SPDX-License-Identifier: MIT */
#include "machine/boot.h"

#include <stdlib.h>

#ifdef CONFIG_ZLIB
#include <zlib.h>

bool boot_gunzip(const uint8_t *in, size_t n, uint64_t max, uint8_t **out, size_t *out_n, struct err *e)
{
    /* The last four bytes are the unpacked size modulo 2^32: a first guess only (RFC 1952, 2.3.1). */
    size_t cap = n >= 18 ? ld_le32(in + n - 4) : 0;
    if (cap < n || cap > max)
        cap = MIN(n * 4, max);
    uint8_t *buf = malloc(cap ? cap : 1);
    z_stream z = { .next_in = (Bytef *)in, .avail_in = (uInt)n };
    int r = buf && inflateInit2(&z, 15 + 16) == Z_OK ? Z_OK : Z_MEM_ERROR;
    while (r == Z_OK) {
        if (z.total_out == cap) {
            uint8_t *bigger = cap < max ? realloc(buf, MIN(cap * 2, max)) : NULL;
            if (!bigger) {
                r = Z_MEM_ERROR;
                break;
            }
            buf = bigger;
            cap = MIN(cap * 2, max);
        }
        z.next_out = buf + z.total_out;
        z.avail_out = (uInt)MIN(cap - z.total_out, UINT32_MAX);
        r = inflate(&z, Z_NO_FLUSH);
        if (r == Z_BUF_ERROR && z.avail_in)
            r = Z_OK;
    }
    *out_n = z.total_out;
    inflateEnd(&z);
    if (r != Z_STREAM_END) {
        free(buf);
        return err_set(e, ERR_VALUE, r == Z_MEM_ERROR ? "the unpacked image is larger than the machine's memory"
                                                      : "the compressed image is damaged");
    }
    *out = buf;
    return true;
}
#else
bool boot_gunzip(const uint8_t *in, size_t n, uint64_t max, uint8_t **out, size_t *out_n, struct err *e)
{
    err_set(e, ERR_NOT_BUILT, "compressed images cannot be unpacked: zlib is not in this build");
    return err_hint(e, "unpack the file with gunzip first");
}
#endif
