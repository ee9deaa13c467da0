/* SPDX-License-Identifier: MIT */
/* Packs and unpacks clusters, on worker threads. Each thread keeps its codecs: making one costs as much as a cluster. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/str.h"
#include "block/qcow2_codec.h"
#ifdef CONFIG_ZLIB
#include <zlib.h>
#endif
#ifdef CONFIG_ZSTD
#include <zstd.h>
#endif

enum { ZLIB_WINDOW = -12 };         /* raw deflate, 4 KiB window: what every reader of the format accepts */

/* Made at first use. */
struct codecs {
#ifdef CONFIG_ZLIB
    z_stream inflate, deflate;
    bool has_inflate, has_deflate;
#endif
#ifdef CONFIG_ZSTD
    ZSTD_DStream *unzstd;
    ZSTD_CCtx *zstd;
#endif
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* At the end of a thread. */
static void codecs_free(void *p)
{
    struct codecs *c = p;
#ifdef CONFIG_ZLIB
    if (c->has_inflate)
        inflateEnd(&c->inflate);
    if (c->has_deflate)
        deflateEnd(&c->deflate);
#endif
#ifdef CONFIG_ZSTD
    ZSTD_freeDStream(c->unzstd);
    ZSTD_freeCCtx(c->zstd);
#endif
    free(c);
}

static void key_make(void)
{
    if (pthread_key_create(&key, codecs_free))
        abort();                    /* none of 1024 is left: a mistake of this program */
}

static __attribute__((unused)) struct codecs *mine(void)
{
    pthread_once(&once, key_make);
    struct codecs *c = pthread_getspecific(key);
    if (!c) {
        c = xnew(struct codecs);
        if (pthread_setspecific(key, c))
            abort();
    }
    return c;
}

#ifdef CONFIG_ZLIB
static int unpack_zlib(struct q2_pack *p)
{
    struct codecs *c = mine();
    z_stream *z = &c->inflate;
    if (c->has_inflate ? inflateReset(z) : inflateInit2(z, ZLIB_WINDOW))
        return -ENOMEM;
    c->has_inflate = true;
    z->next_in = (uint8_t *)p->in;
    z->avail_in = (uInt)p->in_len;
    z->next_out = p->out;
    z->avail_out = (uInt)p->out_len;
    int r = inflate(z, Z_FINISH);
    return (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && !z->avail_out ? 0 : -EIO;
}

static int pack_zlib(struct q2_pack *p)
{
    struct codecs *c = mine();
    z_stream *z = &c->deflate;
    if (c->has_deflate ? deflateReset(z) : deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, ZLIB_WINDOW, 9, Z_DEFAULT_STRATEGY))
        return -ENOMEM;
    c->has_deflate = true;
    z->next_in = (uint8_t *)p->in;
    z->avail_in = (uInt)p->in_len;
    z->next_out = p->out;
    z->avail_out = (uInt)p->out_len;
    int r = deflate(z, Z_FINISH);
    p->got = p->out_len - z->avail_out;
    return r == Z_STREAM_END ? 0 : -ENOSPC;
}
#else
static int unpack_zlib(struct q2_pack *p) { return -ENOTSUP; }
static int pack_zlib(struct q2_pack *p) { return -ENOTSUP; }
#endif

#ifdef CONFIG_ZSTD
/* The sectors may hold more than one frame, and rubbish behind the last: done when a cluster came out. */
static int unpack_zstd(struct q2_pack *p)
{
    struct codecs *c = mine();
    ZSTD_inBuffer in = { p->in, p->in_len, 0 };
    ZSTD_outBuffer out = { p->out, p->out_len, 0 };
    if (!c->unzstd && !(c->unzstd = ZSTD_createDStream()))
        return -ENOMEM;
    ZSTD_DCtx_reset(c->unzstd, ZSTD_reset_session_only);
    while (out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos, n = ZSTD_decompressStream(c->unzstd, &out, &in);
        if (ZSTD_isError(n) || (in.pos == in_before && out.pos == out_before))
            return -EIO;
    }
    return 0;
}

static int pack_zstd(struct q2_pack *p)
{
    struct codecs *c = mine();
    if (!c->zstd && !(c->zstd = ZSTD_createCCtx()))
        return -ENOMEM;
    p->got = ZSTD_compressCCtx(c->zstd, p->out, p->out_len, p->in, p->in_len, ZSTD_CLEVEL_DEFAULT);
    return ZSTD_isError(p->got) ? -ENOSPC : 0;
}
#else
static int unpack_zstd(struct q2_pack *p) { return -ENOTSUP; }
static int pack_zstd(struct q2_pack *p) { return -ENOTSUP; }
#endif

int q2_unpack(void *arg)
{
    struct q2_pack *p = arg;
    return p->zstd ? unpack_zstd(p) : unpack_zlib(p);
}

int q2_pack(void *arg)
{
    struct q2_pack *p = arg;
    return p->zstd ? pack_zstd(p) : pack_zlib(p);
}
