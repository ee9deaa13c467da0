/* SPDX-License-Identifier: MIT */
/* "qcow": the first version of QEMU's format, read-only: two levels of tables, compression, a backing file. Everything is big endian. */
#include <errno.h>
#include <string.h>
#include "block/backing.h"
#include "block/fmt.h"

enum { H_LEN = 48, H_VERSION = 4, H_BACKING_OFF = 8, H_BACKING_LEN = 16, H_SIZE = 24, H_CLUSTER_BITS = 32, H_L2_BITS = 33, H_CRYPT = 36, H_L1_OFF = 40 };
#define QCOW_MAGIC UINT32_C(0x514649fb)
#define QCOW_PACKED BIT64(63)
enum { MAX_NAME = 1023, ZLIB_WINDOW = -12 };

struct qcow { struct fmt_node fmt; unsigned cluster_bits, l2_bits; uint64_t l1_off, l1_size; struct fmt_window l1, l2; };

static int co_lookup(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct qcow *s = (struct qcow *)n;
    uint64_t i = off >> (s->cluster_bits + s->l2_bits), j = off >> s->cluster_bits & (BIT64(s->l2_bits) - 1), table = 0, v = 0;
    uint8_t be[8];
    int r = i < s->l1_size ? co_fmt_entry(n->child.node, &s->l1, s->l1_off + i * 8, be, 8) : -EIO;
    table = r ? 0 : ld_be64(be);
    if (table) {
        r = table > INT64_MAX / 2 ? -EIO : co_fmt_entry(n->child.node, &s->l2, table + j * 8, be, 8);
        v = r ? 0 : ld_be64(be);
    }
    *out = (struct fmt_run){ .kind = !v ? FMT_BELOW : v & QCOW_PACKED ? FMT_PACKED : FMT_DATA, .file = n->child.node };
    if (v & QCOW_PACKED) {
        out->off = v & (BIT64(63 - s->cluster_bits) - 1);
        out->packed_len = v >> (63 - s->cluster_bits) & (s->fmt.unit - 1);
    } else {
        out->off = v + off % s->fmt.unit;
    }
    return r;
}

static int co_unpack(struct blk_node *n, const struct fmt_run *run, uint8_t *out)
{
    return co_fmt_inflate(run->file, run->off, run->packed_len, ZLIB_WINDOW, out, ((struct fmt_node *)n)->unit);
}

static bool read_header(struct qcow *s, const uint8_t *h, struct err *e)
{
    uint64_t size = ld_be64(h + H_SIZE);
    if (ld_be32(h) != QCOW_MAGIC || ld_be32(h + H_VERSION) != 1) {
        fmt_bad(&s->fmt, e, "its signature is another one");
        return ld_be32(h) == QCOW_MAGIC ? err_hint(e, "its format is qcow2") : false;
    }
    s->cluster_bits = h[H_CLUSTER_BITS];
    s->l2_bits = h[H_L2_BITS];
    s->l1_off = ld_be64(h + H_L1_OFF);
    if (s->cluster_bits < 9 || s->cluster_bits > 16 || s->l2_bits < 6 || s->l2_bits > 13)
        return fmt_bad(&s->fmt, e, "clusters of 2^%u bytes, tables of 2^%u entries", s->cluster_bits, s->l2_bits);
    if (ld_be32(h + H_CRYPT))
        return fmt_unsupported(&s->fmt, e, "is encrypted in a way that protects nothing, and is not read here");
    if (size > INT64_MAX - 4096)
        return fmt_bad(&s->fmt, e, "%llu bytes", (unsigned long long)size);
    s->fmt.unit = BIT64(s->cluster_bits);
    s->l1_size = size ? ((size - 1) >> (s->cluster_bits + s->l2_bits)) + 1 : 0;
    s->fmt.data_start = H_LEN;
    return fmt_in_file(&s->fmt, "L1 table", s->l1_off, s->l1_size * 8, e) && fmt_ready(&s->fmt, size, e);
}

static bool read_backing(struct qcow *s, const uint8_t *h, struct err *e)
{
    uint64_t off = ld_be64(h + H_BACKING_OFF), len = ld_be32(h + H_BACKING_LEN);
    char name[MAX_NAME + 1] = "";
    if (!off || !len)
        return true;
    if (len > MAX_NAME)
        return fmt_bad(&s->fmt, e, "the name of its backing file has %llu bytes", (unsigned long long)len);
    if (!fmt_in_file(&s->fmt, "name of the backing file", off, len, e) || !co_fmt_header(&s->fmt, off, name, len, e))
        return false;
    s->fmt.node.backing_name = xstrdup(name);
    return true;
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct qcow *s = (struct qcow *)n;
    uint8_t h[H_LEN];
    s->fmt.co_lookup = co_lookup;
    s->fmt.co_unpack = co_unpack;
    return co_fmt_open(&s->fmt, e) && co_fmt_header(&s->fmt, 0, h, sizeof h, e) && read_header(s, h, e) && read_backing(s, h, e) &&
           blk_backing_open(n, s->fmt.backing, e);
}

static const struct prop props[] = { FMT_PROPS(struct qcow), FMT_BACKING_PROP(struct qcow), PROP_END };
static const struct blk_driver qcow_driver = {
    .obj = { .name = "blockdev-qcow", .desc = "QEMU's first image format; read-only", .base = &blk_node_class, .size = sizeof(struct qcow),
             .props = props },
    FMT_DRIVER, .co_open = co_open, .co_close = co_fmt_close, .cluster_size = fmt_cluster_size,
};
OBJ_CLASS(&qcow_driver.obj);
