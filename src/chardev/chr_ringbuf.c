/* SPDX-License-Identifier: MIT */
/* "ringbuf": keeps the last bytes written in memory, for ringbuf-read. */
#include <stdlib.h>

#include "base/ring.h"
#include "chardev/chr_int.h"
#include "core/cmd.h"

enum { RINGBUF_MAX = 256 * 1024 * 1024 };

struct chr_ringbuf { struct chr chr; uint64_t size; struct ring ring; };

static ssize_t ringbuf_write(struct chr *c, const uint8_t *buf, size_t n)
{
    struct chr_ringbuf *s = (struct chr_ringbuf *)c;
    size_t keep = MIN(n, (size_t)s->ring.cap);
    uint32_t room = ring_room(&s->ring);
    if (keep > room)
        ring_skip(&s->ring, (uint32_t)keep - room);         /* the oldest make room */
    ring_put(&s->ring, buf + (n - keep), keep);
    return (ssize_t)n;
}

static bool ringbuf_open(struct chr *c, struct err *e)
{
    struct chr_ringbuf *s = (struct chr_ringbuf *)c;
    s->ring.buf = calloc(1, s->size);
    if (!s->ring.buf)
        return err_set(e, ERR_OS, "no memory for a ring of %llu bytes", (unsigned long long)s->size);
    s->ring.cap = (uint32_t)s->size;
    chr_set_open(c, true);
    return true;
}

static void ringbuf_close(struct chr *c) { ring_free(&((struct chr_ringbuf *)c)->ring); }

static const struct prop ringbuf_props[] = {
    { .name = "size", .doc = "Bytes kept; a power of two", .type = PROP_T_SIZE, .flags = PF_POW2, PROP_OFF(struct chr_ringbuf, size),
      .def = 65536, .min = 1, .max = RINGBUF_MAX },
    PROP_END
};

static const char *const ringbuf_aliases[] = { "memory", NULL };
static const struct chr_class ringbuf_class = {
    .obj = { .name = "chardev-ringbuf", .desc = "Ring in memory, read by the monitor", .base = &chr_class,
             .size = sizeof(struct chr_ringbuf), .props = ringbuf_props, .aliases = ringbuf_aliases },
    .open = ringbuf_open, .close = ringbuf_close, .write = ringbuf_write,
};
OBJ_CLASS(&ringbuf_class.obj);

/* ---- monitor commands ---- */

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char *base64_encode(const uint8_t *p, size_t n)
{
    char *out = xcalloc(1, (n + 2) / 3 * 4 + 1), *o = out;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        *o++ = b64[v >> 18];
        *o++ = b64[v >> 12 & 63];
        *o++ = i + 1 < n ? b64[v >> 6 & 63] : '=';
        *o++ = i + 2 < n ? b64[v & 63] : '=';
    }
    return out;
}

/* In place; the length, or -1 if it is not base64. */
static ssize_t base64_decode(char *s)
{
    size_t n = strlen(s), out = 0;
    uint32_t v = 0;
    unsigned bits = 0;
    while (n && s[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        const char *at = strchr(b64, s[i]);
        if (!at || !s[i])
            return -1;
        v = v << 6 | (uint32_t)(at - b64);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            s[out++] = (char)(v >> bits);
        }
    }
    return (ssize_t)out;
}

static struct chr_ringbuf *ringbuf_find(const char *id, struct err *e)
{
    struct obj *o = obj_find("chardev", id);
    if (o && obj_is(o, &ringbuf_class.obj)) {
        chr_drain((struct chr *)o);
        return (struct chr_ringbuf *)o;
    }
    err_set(e, ERR_GENERIC, o ? "'%s' is not a ring buffer device" : "Device '%s' not found", id);
    return NULL;
}

static const char *const formats[] = { "utf8", "base64", NULL };
struct ringbuf_args { char *device, *data; int format; int64_t size; };

static json_t *co_ringbuf_write(void *args, struct err *e)
{
    struct ringbuf_args *a = args;
    struct chr_ringbuf *s = ringbuf_find(a->device, e);
    ssize_t n = a->format ? base64_decode(a->data) : (ssize_t)strlen(a->data);
    if (s && n < 0)
        err_set(e, ERR_VALUE, "data is not base64");
    if (!s || n < 0)
        return NULL;
    if (n)
        ringbuf_write(&s->chr, (uint8_t *)a->data, (size_t)n);
    return json_object();
}

static json_t *co_ringbuf_read(void *args, struct err *e)
{
    struct ringbuf_args *a = args;
    struct chr_ringbuf *s = ringbuf_find(a->device, e);
    if (!s)
        return NULL;
    size_t n = (size_t)MIN(a->size, (int64_t)ring_used(&s->ring));
    uint8_t *buf = xcalloc(1, n + 1);
    ring_get(&s->ring, buf, n);
    json_t *r = NULL;
    if (a->format) {
        char *text = base64_encode(buf, n);
        r = json_string(text);
        free(text);
    } else if (!(r = json_stringn((char *)buf, n))) {
        for (size_t i = 0; i < n; i++)          /* not UTF-8: what cannot be shown is a question mark */
            buf[i] = buf[i] < 0x80 ? buf[i] : '?';
        r = json_stringn((char *)buf, n);
    }
    free(buf);
    return r;
}

static const struct prop write_args[] = {
    PROP_STR(struct ringbuf_args, device, "device", PF_REQUIRED, "Name of the chardev"),
    PROP_STR(struct ringbuf_args, data, "data", PF_REQUIRED, "What to write"),
    PROP_ENUM(struct ringbuf_args, format, "format", formats, 0, "How data is written"), PROP_END
};
static const struct prop read_args[] = {
    PROP_STR(struct ringbuf_args, device, "device", PF_REQUIRED, "Name of the chardev"),
    { .name = "size", .doc = "Bytes to read at most", .type = PROP_T_S64, .flags = PF_REQUIRED, PROP_OFF(struct ringbuf_args, size),
      .min = 1, .max = RINGBUF_MAX },
    PROP_ENUM(struct ringbuf_args, format, "format", formats, 0, "How data is returned"), PROP_END
};
static const struct qmp_cmd qmp_write = { .name = "ringbuf-write", .doc = "Writes to a ring buffer chardev", .args = write_args,
    .args_size = sizeof(struct ringbuf_args), .co_run = co_ringbuf_write, .ret = qmp_nothing };
static const struct qmp_cmd qmp_read = { .name = "ringbuf-read", .doc = "Takes bytes out of a ring buffer chardev", .args = read_args,
    .args_size = sizeof(struct ringbuf_args), .co_run = co_ringbuf_read, .says = "str" };
QMP_CMD(&qmp_write);
QMP_CMD(&qmp_read);
