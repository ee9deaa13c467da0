/* SPDX-License-Identifier: MIT */
/*
 * The monitor's qemu-io: requests to a node or drive by hand, in the words of the tool of that name. What was transferred is told on
 * standard output, as programs that drive QEMU have it: an empty answer is success. What was asked for and what failed is the answer.
 * A command is a handle of its own, gone when it ends; where a device's name was given, one in the name of the device.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/opt.h"
#include "block/blk_int.h"
#include "block/blkdebug.h"
#include "core/cmd.h"
#include "core/run.h"

enum { MAX_WORDS = 64, TOO_MANY = 1024, MAX_SHOWN = 1 << 20 };
#define MAX_BYTES (UINT64_C(2) * GiB - 512)     /* of buffers, of all commands together */

struct io;
struct io_row {
    const char *name, *alias, *opts;            /* letters, those with a value followed by ':' */
    int min, max;                               /* words behind the options */
    unsigned perm;
    enum { IO_NODE, IO_HANDLE, IO_ASYNC } kind; /* without a handle, with one, and going on behind the monitor's back */
    bool (*co_prepare)(struct io *);            /* false: said why. May be NULL */
    void (*co_run)(struct io *);
    const char *args, *doc;
};

struct io {
    const struct io_row *row;
    struct blk_node *node;
    struct blk *b;
    char *word[MAX_WORDS];
    int n;
    const char *opt['z' + 1];                   /* the value, "" of those without; NULL: not given */
    struct str answer, report;
    uint64_t off, len, from, check;             /* from, check: where the pattern is looked for, and how far */
    uint64_t held;                              /* what @buf counts */
    uint8_t *buf, pattern;
    struct iovec iov[MAX_WORDS];
    unsigned niov;
    int64_t began;
};

static uint64_t held;                           /* bytes of all buffers */
static unsigned handles, asyncs;                /* open; commands that go on */
static struct co_queue fewer;                   /* waits for less of either */

static bool has(const struct io *x, char c) { return x->opt[(int)c] != NULL; }

static void turn_keys(struct blk_turn *t, void *arg) { blk_turn_add(t, ((struct io *)arg)->b->node); }
/* Where the handle is, nobody changes the graph. */
static struct blk_turn *co_turn(struct io *x) { return co_blk_turn_begin(turn_keys, x); }

static bool refuse(struct io *x, const struct err *e)
{
    hmp_error(&x->answer, e);
    return false;
}

static bool failed(struct io *x, const char *what, int r)
{
    str_printf(&x->answer, "%s failed: %s\n", what, strerror(-r));
    return false;
}

/* ---- numbers ---- */

static bool number(struct io *x, const char *text, uint64_t *v)
{
    if (parse_size(text, 1, v) && *v <= INT64_MAX)
        return true;
    str_printf(&x->answer, "Error: '%s' is no number of bytes\n", text);
    return false;
}

/* "64 KiB", "1.500 MiB", "17 bytes". */
static const char *amount(double v, char buf[64])
{
    static const char *const units[] = { " bytes", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB" };
    size_t u = 0;
    while (v >= 1024 && u + 1 < ARRAY_SIZE(units)) {
        v /= 1024;
        u++;
    }
    snprintf(buf, 48, u ? "%.3f" : "%f", v);
    char *whole = strstr(buf, ".000");
    char *end = whole ? whole : buf + strlen(buf);
    snprintf(end, (size_t)(buf + 64 - end), "%s", units[u]);
    return buf;
}

/* ---- what is told ---- */

static void report(struct io *x, const char *did, uint64_t len)
{
    double sec = (double)MAX(clock_now(CLOCK_HOST) - x->began, INT64_C(1)) / 1e9;
    unsigned whole = (unsigned)sec, h = whole / 3600, m = whole / 60 % 60;
    char time[64], size[64], rate[64];
    if (has(x, 'q'))
        return;
    if (whole || has(x, 'C'))
        snprintf(time, sizeof time, "%u:%02u:%05.2f", h, m, sec - h * 3600 - m * 60);
    else
        snprintf(time, sizeof time, "%05.2f sec", sec);
    if (has(x, 'C'))
        str_printf(&x->report, "%" PRIu64 ",1,%s,%.3f,%.3f\n", len, time, (double)len / sec, 1 / sec);
    else
        str_printf(&x->report, "%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", did, len, len,
                   x->off, amount((double)len, size), time, amount((double)len / sec, rate), 1 / sec);
}

static void dump(struct io *x)
{
    for (uint64_t i = 0; i < x->len; i += 16) {
        uint64_t n = MIN(x->len - i, (uint64_t)16);
        str_printf(&x->answer, "%08" PRIx64 ":  ", x->off + i);
        for (uint64_t j = 0; j < n; j++)
            str_printf(&x->answer, "%02x ", x->buf[i + j]);
        str_add(&x->answer, " ");
        for (uint64_t j = 0; j < n; j++)
            str_printf(&x->answer, "%c", isalnum(x->buf[i + j]) ? x->buf[i + j] : '.');
        str_add(&x->answer, "\n");
    }
}

/* ---- transfers ---- */

struct fill { const char *path; uint8_t *buf; uint64_t len; };

/* In a worker: what the file holds, again and again. */
static int fill_from_file(void *arg)
{
    struct fill *f = arg;
    FILE *in = fopen(f->path, "re");
    if (!in)
        return -errno;
    size_t n = fread(f->buf, 1, f->len, in);
    int r = ferror(in) ? -EIO : n || !f->len ? 0 : -ENODATA;
    fclose(in);
    for (uint64_t at = n; !r && at < f->len; at += n)
        memcpy(f->buf + at, f->buf, MIN((uint64_t)n, f->len - at));
    return r;
}

static bool make_buffer(struct io *x, uint8_t byte)
{
    void *p = NULL;
    if (x->len > MAX_BYTES - held) {
        str_printf(&x->answer, "Error: requests may hold %" PRIu64 " bytes, %" PRIu64 " are in use\n", MAX_BYTES, held);
        return false;
    }
    if (posix_memalign(&p, 4096, MAX(x->len, UINT64_C(1))))
        return failed(x, x->row->name, -ENOMEM);
    x->buf = p;
    memset(p, byte, x->len);
    held += x->held = x->len;
    for (unsigned i = 0; i < x->niov; p = (char *)p + x->iov[i++].iov_len)
        x->iov[i].iov_base = p;
    return true;
}

/* OFFSET LENGTH..., and the pattern. */
static bool take_range(struct io *x, uint8_t byte)
{
    uint64_t part = 0, pattern = byte;
    if (!number(x, x->word[0], &x->off))
        return false;
    for (int i = 1; i < x->n; i++) {
        if (!number(x, x->word[i], &part))
            return false;
        if (part > INT64_MAX - x->len) {
            str_add(&x->answer, "Error: that is too long\n");
            return false;
        }
        x->iov[x->niov++].iov_len = part;
        x->len += part;
    }
    if (has(x, 'P') && (!parse_u64(x->opt['P'], &pattern) || pattern > 255)) {
        str_printf(&x->answer, "Error: '%s' is no byte\n", x->opt['P']);
        return false;
    }
    x->pattern = (uint8_t)pattern;
    return true;
}

static bool prepare_read(struct io *x)
{
    if (!take_range(x, 0))
        return false;
    if (has(x, 'v') && x->len > MAX_SHOWN) {
        str_printf(&x->answer, "Error: -v shows %d bytes at most\n", MAX_SHOWN);
        return false;
    }
    x->check = x->len;
    if ((has(x, 's') && !number(x, x->opt['s'], &x->from)) || (has(x, 'l') && !number(x, x->opt['l'], &x->check)))
        return false;
    x->check -= has(x, 'l') ? 0 : MIN(x->from, x->check);
    if (x->from > x->len || x->check > x->len - x->from || ((has(x, 's') || has(x, 'l')) && !has(x, 'P'))) {
        str_add(&x->answer, "Error: -s and -l say where, in what is read, the pattern of -P is\n");
        return false;
    }
    return make_buffer(x, 0xab);
}

static bool co_prepare_write(struct io *x)
{
    bool z = has(x, 'z');
    const char *wrong = z + has(x, 'P') + has(x, 's') > 1 ? "-z, -P and -s exclude each other" : (has(x, 'n') || has(x, 'u')) && !z ?
        "-n and -u are of -z" : has(x, 'c') && (has(x, 'f') || z) ? "-c excludes -f and -z" : NULL;
    if (wrong) {
        str_printf(&x->answer, "Error: %s\n", wrong);
        return false;
    }
    if (!take_range(x, 0xcd) || (!z && !make_buffer(x, x->pattern)))
        return false;
    struct fill f = { x->opt['s'], x->buf, x->len };
    int r = has(x, 's') ? co_offload(fill_from_file, &f) : 0;
    return !r || failed(x, x->opt['s'], r);
}

static void co_read(struct io *x)
{
    int r = co_blk_preadv(x->b, x->off, x->len, x->iov, x->niov, 0);
    if (r) {
        failed(x, "read", r);
        return;
    }
    uint64_t i = 0;
    while (has(x, 'P') && i < x->check && x->buf[x->from + i] == x->pattern)
        i++;
    if (has(x, 'P') && i < x->check)
        str_printf(&x->answer, "Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n", x->off + x->from, x->check);
    if (has(x, 'v') && !has(x, 'q'))
        dump(x);
    report(x, "read", x->len);
}

static int co_write_packed(struct io *x)
{
    struct blk_turn *turn = co_turn(x);             /* no request of the handle's, which who changes the graph would wait for */
    int r = co_node_write_compressed(x->b->node, x->off, x->len, x->iov, x->niov);
    blk_turn_end(turn);
    return r;
}

static void co_write(struct io *x)
{
    unsigned fua = has(x, 'f') ? BLK_FUA : 0;
    int r;
    if (has(x, 'z'))
        r = co_blk_zero(x->b, x->off, x->len, fua | (has(x, 'u') ? BLK_ZERO_UNMAP : 0) | (has(x, 'n') ? BLK_ZERO_NO_FALLBACK : 0));
    else if (has(x, 'c'))
        r = co_write_packed(x);
    else
        r = co_blk_pwritev(x->b, x->off, x->len, x->iov, x->niov, fua);
    if (r)
        failed(x, "write", r);
    else
        report(x, "wrote", x->len);
}

static bool prepare_discard(struct io *x) { return take_range(x, 0); }

static void co_discard(struct io *x)
{
    int r = co_blk_discard(x->b, x->off, x->len);
    if (r)
        failed(x, "discard", r);
    else
        report(x, "discard", x->len);
}

static void co_flush(struct io *x)
{
    int r = co_blk_flush(x->b);
    if (r)
        failed(x, "flush", r);
}

static void co_aio_flush(struct io *x)
{
    while (asyncs)
        co_queue_wait(&fewer);
}

/* ---- what an image is ---- */

static void co_truncate(struct io *x)
{
    struct err e = ERR_INIT;
    uint64_t size;
    if (!number(x, x->word[0], &size))
        return;
    struct blk_turn *turn = co_turn(x);
    if (!co_blk_node_resize(x->b->node, (int64_t)size, &e))
        refuse(x, &e);
    blk_turn_end(turn);
}

static void co_length(struct io *x)
{
    char buf[64];
    str_printf(&x->answer, "%s\n", amount((double)blk_size(x->b), buf));
}

static void co_info(struct io *x)
{
    const struct blk_node *n = x->b->node;
    const struct blk_driver *d = BLK_DRIVER(n);
    char buf[64];
    str_printf(&x->answer, "format name: %s\n", blk_format_name(n));
    if (d->cluster_size)
        str_printf(&x->answer, "cluster size: %s\n", amount((double)d->cluster_size(n), buf));
}

/* How much from @off on is alike in being in this layer, or not. */
static int co_layer(struct io *x, uint64_t off, uint64_t len, uint64_t *alike, bool *here)
{
    struct blk_extent e;
    for (*alike = 0; *alike < len; *alike += e.len) {
        int r = co_node_map_layer(x->b->node, off + *alike, len - *alike, &e);
        if (r || (*alike && *here == e.below))
            return r;
        *here = !e.below;
    }
    return 0;
}

static int co_sum_alloc(struct io *x, uint64_t off, uint64_t len, uint64_t *sum)
{
    uint64_t alike;
    bool here = false;
    int r;
    for (*sum = 0; len; off += alike, len -= alike) {
        if ((r = co_layer(x, off, len, &alike, &here)))
            return r;
        *sum += here ? alike : 0;
    }
    return 0;
}

static void co_alloc(struct io *x)
{
    uint64_t off, len = 512, sum, size = blk_size(x->b);
    char buf[64];
    if (!number(x, x->word[0], &off) || (x->n > 1 && !number(x, x->word[1], &len)))
        return;
    len = off < size ? MIN(len, size - off) : 0;
    struct blk_turn *turn = co_turn(x);
    int r = co_sum_alloc(x, off, len, &sum);
    blk_turn_end(turn);
    if (r)
        failed(x, "alloc", r);
    else
        str_printf(&x->answer, "%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, len, amount((double)off, buf));
}

static void co_map(struct io *x)
{
    uint64_t off = 0, alike, size = blk_size(x->b);
    bool here = false;
    char s1[64], s2[64];
    int r = 0;
    struct blk_turn *turn = co_turn(x);
    for (; !r && off < size && x->answer.len < MAX_SHOWN; off += alike) {
        r = co_layer(x, off, size - off, &alike, &here);
        if (!r)
            str_printf(&x->answer, "%s (0x%" PRIx64 ") bytes %s at offset %s (0x%" PRIx64 ")\n", amount((double)alike, s1), alike,
                       here ? "    allocated" : "not allocated", amount((double)off, s2), off);
    }
    blk_turn_end(turn);
    if (r)
        failed(x, "map", r);
    else if (off < size)
        str_add(&x->answer, "...\n");
}

/* ---- breakpoints ---- */

static struct blk_node *debug_node(struct io *x)
{
    struct blk_node *d = blkdebug_below(x->node);
    if (!d)
        str_printf(&x->answer, "Error: no blkdebug is below '%s': breakpoints are there\n", x->node->obj.id);
    return d;
}

static void co_break(struct io *x)
{
    struct err e = ERR_INIT;
    struct blk_node *d = debug_node(x);
    if (d && !blkdebug_break(d, x->word[0], x->word[1], &e))
        refuse(x, &e);
}

static void at_tag(struct io *x, bool (*co_fn)(struct blk_node *, const char *, struct err *))
{
    struct err e = ERR_INIT;
    struct blk_node *d = debug_node(x);
    if (d && !co_fn(d, x->word[0], &e))
        refuse(x, &e);
}
static void co_resume(struct io *x) { at_tag(x, blkdebug_resume); }
static void co_remove(struct io *x) { at_tag(x, blkdebug_remove_break); }
static void co_wait_break(struct io *x) { at_tag(x, co_blkdebug_wait_break); }

static void co_sleep_ms(struct io *x)
{
    uint64_t ms;
    if (parse_u64(x->word[0], &ms) && ms <= 3600000)
        co_sleep_until(CLOCK_HOST, clock_now(CLOCK_HOST) + (int64_t)ms * 1000000);
    else
        str_printf(&x->answer, "Error: '%s' is no number of milliseconds up to 3600000\n", x->word[0]);
}

static void co_help(struct io *x);

/* ---- rows ---- */

#define RW (BLK_PERM_WRITE)
static const struct io_row rows[] = {
    { "read", "r", "pP:s:l:vqC", 2, 2, BLK_PERM_READ, IO_HANDLE, prepare_read, co_read, "[-qvC] [-P BYTE [-s AT] [-l LENGTH]] OFFSET LENGTH", "reads, and looks for a pattern" },
    { "readv", NULL, "P:vqC", 2, -1, BLK_PERM_READ, IO_HANDLE, prepare_read, co_read, "[-qvC] [-P BYTE] OFFSET LENGTH...", "the same, into several buffers" },
    { "write", "w", "pP:s:zufncqC", 2, 2, RW, IO_HANDLE, co_prepare_write, co_write, "[-fqC] [-c] [-P BYTE | -s FILE | -z [-u] [-n]] OFFSET LENGTH",
      "writes a pattern, what a file holds, or zeroes (-u: may deallocate, -n: without writing them); -f: to the disk, -c: compressed" },
    { "writev", NULL, "P:fqC", 2, -1, RW, IO_HANDLE, co_prepare_write, co_write, "[-fqC] [-P BYTE] OFFSET LENGTH...", "the same, from several buffers" },
    { "aio_read", NULL, "P:vqC", 2, -1, BLK_PERM_READ, IO_ASYNC, prepare_read, co_read, "[-qvC] [-P BYTE] OFFSET LENGTH...", "begins to read; all that comes of it goes to standard output" },
    { "aio_write", NULL, "P:zufqC", 2, -1, RW, IO_ASYNC, co_prepare_write, co_write, "[-fqC] [-P BYTE | -z [-u]] OFFSET LENGTH...", "begins to write; all that comes of it goes to standard output" },
    { "aio_flush", NULL, "", 0, 0, 0, IO_NODE, NULL, co_aio_flush, "", "waits for what was begun" },
    { "flush", "f", "", 0, 0, 0, IO_HANDLE, NULL, co_flush, "", "brings what was written to the disk" },
    { "discard", "d", "qC", 2, 2, RW, IO_HANDLE, prepare_discard, co_discard, "[-qC] OFFSET LENGTH", "gives up what is there" },
    { "truncate", "t", "", 1, 1, RW | BLK_PERM_RESIZE, IO_HANDLE, NULL, co_truncate, "SIZE", "changes the size" },
    { "length", "l", "", 0, 0, 0, IO_HANDLE, NULL, co_length, "", "the size" },
    { "info", "i", "", 0, 0, 0, IO_HANDLE, NULL, co_info, "", "the format, and the size of its clusters" },
    { "alloc", "a", "", 1, 2, 0, IO_HANDLE, NULL, co_alloc, "OFFSET [LENGTH]", "how much of that is in this layer" },
    { "map", NULL, "", 0, 0, 0, IO_HANDLE, NULL, co_map, "", "what is in this layer" },
    { "break", NULL, "", 2, 2, 0, IO_NODE, NULL, co_break, "EVENT TAG", "stops the next request at an event of blkdebug" },
    { "remove_break", NULL, "", 1, 1, 0, IO_NODE, NULL, co_remove, "TAG", "takes breakpoints away, and lets go on what stopped there" },
    { "resume", NULL, "", 1, 1, 0, IO_NODE, NULL, co_resume, "TAG", "lets a stopped request go on" },
    { "wait_break", NULL, "", 1, 1, 0, IO_NODE, NULL, co_wait_break, "TAG", "waits until a request stopped" },
    { "sleep", NULL, "", 1, 1, 0, IO_NODE, NULL, co_sleep_ms, "MILLISECONDS", "waits" },
    { "help", "?", "", 0, 1, 0, IO_NODE, NULL, co_help, "[COMMAND]", "this" },
};

static const char *row_name(const void *unused, size_t i) { return i < ARRAY_SIZE(rows) ? rows[i].name : NULL; }

static const struct io_row *row_find(struct io *x, const char *name)
{
    struct err e = ERR_INIT;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (str_eq(rows[i].name, name) || str_eq(rows[i].alias, name))
            return &rows[i];
    err_unknown(&e, "qemu-io command", name, "", row_name, NULL);
    refuse(x, &e);
    return NULL;
}

static void usage(struct io *x, const struct io_row *r) { str_printf(&x->answer, "%s %s -- %s\n", r->name, r->args, r->doc); }

static void co_help(struct io *x)
{
    const struct io_row *only = x->n ? row_find(x, x->word[0]) : NULL;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (!x->n || only == &rows[i])
            usage(x, &rows[i]);
}

/* ---- a command ---- */

/* Its option words, from x->word[0] on; those that are left are moved down. False: there is a wrong one. */
static bool take_options(struct io *x)
{
    int i = 0, used;
    for (; i < x->n && x->word[i][0] == '-' && x->word[i][1]; i++) {
        for (const char *c = x->word[i] + 1; *c; c++) {
            const char *o = *c == ':' ? NULL : strchr(x->row->opts, *c);
            if (!o || *c > 'z')
                return false;
            x->opt[(int)*c] = "";
            if (o[1] != ':')
                continue;
            if (!c[1] && i + 1 == x->n)
                return false;
            x->opt[(int)*c] = c[1] ? c + 1 : x->word[++i];
            break;
        }
    }
    used = i;
    for (int k = 0; k < used; k++) {            /* the values live on behind the rest */
        char *first = x->word[0];
        memmove(x->word, x->word + 1, (MAX_WORDS - 1) * sizeof *x->word);
        x->word[MAX_WORDS - 1] = first;
    }
    x->n -= used;
    return true;
}

/* By the name of a drive or a device: in the name of that device. */
static bool find_node(struct io *x, const char *name, bool device, const struct blk **dev)
{
    struct err e = ERR_INIT, ignored = ERR_INIT;
    const struct blk *b = blk_of_device(name, device ? &e : &ignored);
    bool by_name = b && (device || str_eq(b->drive, name));
    if (by_name)
        x->node = b->node;
    else if (!device)
        x->node = blk_node_find(name, &e);
    if (x->node && blk_node_is_empty(x->node)) {
        err_set(&e, ERR_STATE, "drive '%s' is empty", name);
        x->node = NULL;
    }
    *dev = by_name ? b : NULL;
    return x->node || refuse(x, &e);
}

static bool open_handle(struct io *x, const struct blk *dev)
{
    struct err e = ERR_INIT;
    x->b = blk_open(x->node, 0, BLK_PERM_ALL, NULL, "the monitor's qemu-io", &e);
    if (!x->b)
        return refuse(x, &e);
    handles++;
    x->b->is_export = true;                     /* not listed */
    x->b->for_blk = dev;
    if (!blk_use_change(&x->b->use, x->row->perm, BLK_PERM_ALL, &e))
        return refuse(x, &e);
    atomic_store(&x->b->may_write, x->row->perm & BLK_PERM_WRITE);
    return true;
}

static void io_free(struct io *x)
{
    if (x->b) {
        blk_close(x->b);
        handles--;
    }
    held -= x->held;
    free(x->buf);
    for (int i = 0; i < MAX_WORDS; i++)
        free(x->word[i]);
    str_free(&x->answer);
    str_free(&x->report);
    free(x);
    co_queue_wake_all(&fewer);
}

static void print(const struct str *s)
{
    if (s->len)
        fputs(s->s, stdout);
    fflush(stdout);
}

static void co_behind(void *arg)
{
    struct io *x = arg;
    x->row->co_run(x);
    print(&x->answer);
    print(&x->report);
    asyncs--;
    io_free(x);
}

static bool read_command(struct io *x, const char *text)
{
    while (x->n < MAX_WORDS && (x->word[x->n] = opt_next_word(&text)))
        x->n++;
    if (x->n == MAX_WORDS && text[strspn(text, " ")]) {
        str_printf(&x->answer, "Error: there are more than %d words\n", MAX_WORDS);
        return false;
    }
    if (!x->n) {
        str_add(&x->answer, "Error: qemu-io [-d] DEVICE \"COMMAND\"; the command help lists them\n");
        return false;
    }
    if (!(x->row = row_find(x, x->word[0])))
        return false;
    free(x->word[0]);
    memmove(x->word, x->word + 1, (MAX_WORDS - 1) * sizeof *x->word);
    x->word[MAX_WORDS - 1] = NULL;
    x->n--;
    if (take_options(x) && x->n >= x->row->min && (x->row->max < 0 || x->n <= x->row->max) && !(has(x, 'z') && x->n > 2))
        return true;
    str_add(&x->answer, "Error: ");
    usage(x, x->row);
    return false;
}

/* The handle is there in the end, and what it needs. Nobody changes the graph meanwhile. */
static bool co_begin(struct io *x, const char *name, bool device)
{
    const struct blk *dev;
    if (x->row->kind == IO_NODE)                /* what is to go on may be what who changes the graph waits for */
        return find_node(x, name, device, &dev);
    json_t *names = json_string(name);
    struct blk_turn *turn = co_blk_turn_named(names);
    bool ok = find_node(x, name, device, &dev) && open_handle(x, dev);
    blk_turn_end(turn);
    json_decref(names);
    return ok && (!x->row->co_prepare || x->row->co_prepare(x));
}

/* True: it goes on by itself. */
static bool co_command(struct io *x, const char *name, bool device, const char *text)
{
    if (!read_command(x, text) || !co_begin(x, name, device))
        return false;
    x->began = clock_now(CLOCK_HOST);
    if (x->row->kind != IO_ASYNC) {
        x->row->co_run(x);
        return false;
    }
    if (asyncs == TOO_MANY) {
        str_printf(&x->answer, "Error: %d requests were begun and have not ended\n", TOO_MANY);
        return false;
    }
    asyncs++;
    co_spawn(loop_main(), NULL, co_behind, x);
    return true;
}

static void co_qemu_io(const char *arg, struct str *out)
{
    struct io *x = xnew(struct io);
    char *name = opt_next_word(&arg);
    bool device = str_eq(name, "-d");
    if (device) {
        free(name);
        name = opt_next_word(&arg);
    }
    char *text = name ? opt_next_word(&arg) : NULL;
    const char *rest = arg + strspn(arg, " ");
    if (*rest)
        str_add(&x->answer, "Error: the command is one word, in quotes\n");
    else if (co_command(x, name, device, text ? text : ""))
        x = NULL;
    if (x) {
        str_add(out, x->answer.s ? x->answer.s : "");
        print(&x->report);
        io_free(x);
    }
    free(name);
    free(text);
}

static const struct hmp_cmd qemu_io = { .name = "qemu-io", .args = "[-d] DEVICE \"COMMAND\"", .co_run = co_qemu_io, .completes = "blockdev",
    .doc = "requests to a drive, a node or (-d) a device's drive; the command \"help\" lists what there is" };
HMP_CMD(&qemu_io);

static void co_wait_for_all(void *unused)
{
    while (handles)
        co_queue_wait(&fewer);
}

/* Before the nodes are closed. */
static void end_requests(void)
{
    if (handles)
        co_run_main(co_wait_for_all, NULL);
}
static const struct run_end requests_end = { "qemu-io", RUN_END_BACKENDS - 15, end_requests };
RUN_END(&requests_end);
