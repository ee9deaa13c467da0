/* SPDX-License-Identifier: MIT */
/*
 * "vhdx": Hyper-V's image format ([MS-VHDX]), read-only. A log that was left behind is played back in memory (vhdx_log.c).
 * Little endian; GUIDs as they are in the file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "block/fmt.h"
#include "block/pi.h"
#include "block/vhdx_log.h"

enum { HEADER_1 = 64 << 10, HEADER_2 = 128 << 10, HEADER_LEN = 4096, REGIONS_1 = 192 << 10, REGIONS_2 = 256 << 10, REGIONS_LEN = 64 << 10 };
enum { H_SUM = 4, H_SEQ = 8, H_LOG_GUID = 48, H_LOG_VERSION = 64, H_VERSION = 66, H_LOG_LEN = 68, H_LOG_OFF = 72 };
enum { MAX_ENTRIES = 2047, ENTRY_LEN = 32, META_LEN = 64 << 10 };
enum { BLOCK_ABSENT = 0, BLOCK_UNDEFINED = 1, BLOCK_ZERO = 2, BLOCK_UNMAPPED = 3, BLOCK_PRESENT = 6, BLOCK_PARTLY = 7 };
enum { PARAM_HAS_PARENT = 2, REQUIRED = 1, META_REQUIRED = 4 };

static const uint8_t guid_bat[16] = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 };
static const uint8_t guid_meta[16] = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e };
static const uint8_t guid_params[16] = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b };
static const uint8_t guid_size[16] = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 };
static const uint8_t guid_sector[16] = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f };
static const uint8_t guid_physical[16] = { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 };
static const uint8_t guid_page83[16] = { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 };
static const uint8_t guid_parent[16] = { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c };

struct vhdx {
    struct fmt_node fmt;
    uint64_t bat_off, bat_len, meta_off, size, ratio;   /* ratio: blocks between two entries for sector bitmaps */
    uint32_t meta_len, sector;
    struct fmt_window bat;
    struct vhdx_log log;
};

static int co_lookup(struct blk_node *n, uint64_t off, struct fmt_run *out)
{
    struct vhdx *s = (struct vhdx *)n;
    uint64_t block = off / s->fmt.unit, i = block + block / s->ratio;
    uint8_t le[8] = { 0 };
    int r = i < s->bat_len / 8 ? co_fmt_entry(n->child.node, &s->bat, s->bat_off + i * 8, le, 8) : -EIO;
    vhdx_log_apply(&s->log, s->bat_off + i * 8, le, 8);
    uint64_t v = ld_le64(le);
    unsigned state = v & 7;
    *out = (struct fmt_run){ .kind = state == BLOCK_PRESENT ? FMT_DATA : state == BLOCK_ABSENT ? FMT_BELOW : FMT_ZERO,
                             .off = align_down(v, MiB) + off % s->fmt.unit, .file = n->child.node };
    if (state != BLOCK_ABSENT && state != BLOCK_PRESENT && state > BLOCK_UNMAPPED)
        return -EIO;
    /* A log has tables only ([MS-VHDX] 2.3); with data in it, it is not what it says. */
    bool bad = out->kind == FMT_DATA && (out->off > INT64_MAX || vhdx_log_touches(&s->log, align_down(v, MiB), s->fmt.unit));
    return bad ? -EIO : r;
}

/* ---- opening ---- */

/* CRC-32C of what has its own sum in it, which counts as zero. */
static uint32_t sum_of(const uint8_t *p, size_t n, size_t sum_at)
{
    static const uint8_t zero[4];
    uint32_t crc = pi_crc32c(pi_crc32c(0, p, sum_at), zero, sizeof zero);
    return pi_crc32c(crc, p + sum_at + 4, n - sum_at - 4);
}

/* What is in the file, with the log over it. */
static bool co_header(struct vhdx *s, uint64_t off, void *buf, uint64_t len, struct err *e)
{
    if (!co_fmt_header(&s->fmt, off, buf, len, e))
        return false;
    vhdx_log_apply(&s->log, off, buf, len);
    return true;
}

/* The two headers are written in turn; the valid one with the higher number counts. */
static bool read_headers(struct vhdx *s, struct err *e)
{
    static const uint64_t at[2] = { HEADER_1, HEADER_2 };
    static const uint8_t none[16];
    uint8_t h[2][HEADER_LEN];
    int best = -1;
    for (int i = 0; i < 2; i++) {
        if (!co_fmt_header(&s->fmt, at[i], h[i], HEADER_LEN, e))
            return false;
        if (!memcmp(h[i], "head", 4) && sum_of(h[i], HEADER_LEN, H_SUM) == ld_le32(h[i] + H_SUM) &&
            (best < 0 || ld_le64(h[i] + H_SEQ) > ld_le64(h[best] + H_SEQ)))
            best = i;
    }
    if (best < 0)
        return fmt_bad(&s->fmt, e, "neither of its headers is valid");
    if (ld_le16(h[best] + H_VERSION) != 1)
        return fmt_unsupported(&s->fmt, e, "is of version %u of the format; 1 is known here", ld_le16(h[best] + H_VERSION));
    const uint8_t *guid = h[best] + H_LOG_GUID;
    if (!memcmp(guid, none, 16))
        return true;
    if (ld_le16(h[best] + H_LOG_VERSION))
        return fmt_unsupported(&s->fmt, e, "has a log of version %u to play back; 0 is known here", ld_le16(h[best] + H_LOG_VERSION));
    return co_vhdx_log_load(&s->log, &s->fmt, guid, ld_le64(h[best] + H_LOG_OFF), ld_le32(h[best] + H_LOG_LEN), e);
}

static bool take_region(struct vhdx *s, const uint8_t *p, struct err *e)
{
    uint64_t off = ld_le64(p + 16);
    uint32_t len = ld_le32(p + 24);
    if (!memcmp(p, guid_bat, 16)) {
        s->bat_off = off;
        s->bat_len = len;
    } else if (!memcmp(p, guid_meta, 16)) {
        s->meta_off = off;
        s->meta_len = len;
    } else if (ld_le32(p + 28) & REQUIRED) {
        return fmt_unsupported(&s->fmt, e, "has a region that is required and not known here");
    } else {
        return true;
    }
    return (off % MiB == 0 && off) ? fmt_in_file(&s->fmt, "region", off, len, e) : fmt_bad(&s->fmt, e, "a region at 0x%llx", (unsigned long long)off);
}

static bool read_regions(struct vhdx *s, uint8_t *buf, struct err *e)
{
    bool ok = false;
    for (int i = 0; i < 2 && !ok; i++) {
        if (!co_header(s, i ? REGIONS_2 : REGIONS_1, buf, REGIONS_LEN, e))
            return false;
        ok = !memcmp(buf, "regi", 4) && sum_of(buf, REGIONS_LEN, H_SUM) == ld_le32(buf + H_SUM) && ld_le32(buf + 8) <= MAX_ENTRIES;
    }
    if (!ok)
        return fmt_bad(&s->fmt, e, "neither of its region tables is valid");
    for (uint32_t i = 0; i < ld_le32(buf + 8); i++)
        if (!take_region(s, buf + 16 + i * ENTRY_LEN, e))
            return false;
    return (s->bat_off && s->meta_off) || fmt_bad(&s->fmt, e, "it has no block table or no metadata");
}

static bool take_item(struct vhdx *s, const uint8_t *entry, struct err *e)
{
    uint32_t off = ld_le32(entry + 16), len = ld_le32(entry + 20);
    uint8_t v[8] = { 0 };
    if (!memcmp(entry, guid_parent, 16))
        return true;                /* file parameters tell whether it counts */
    bool params = !memcmp(entry, guid_params, 16), size = !memcmp(entry, guid_size, 16), sector = !memcmp(entry, guid_sector, 16);
    if (!params && !size && !sector) {
        bool known = !memcmp(entry, guid_physical, 16) || !memcmp(entry, guid_page83, 16);
        return known || !(ld_le32(entry + 24) & META_REQUIRED) ||
               fmt_unsupported(&s->fmt, e, "has metadata that is required and not known here");
    }
    unsigned want = sector ? 4 : 8;
    if (len < want || !range_ok(off, want, s->meta_len))
        return fmt_bad(&s->fmt, e, "a metadata item of %u bytes at 0x%x", len, off);
    if (!co_header(s, s->meta_off + off, v, want, e))
        return false;
    if (params && ld_le32(v + 4) & PARAM_HAS_PARENT)
        return fmt_unsupported(&s->fmt, e, "is a difference to another image, which is not read here");
    if (params)
        s->fmt.unit = ld_le32(v);
    else if (size)
        s->size = ld_le64(v);
    else
        s->sector = ld_le32(v);
    return true;
}

static bool read_metadata(struct vhdx *s, uint8_t *buf, struct err *e)
{
    if (s->meta_len < META_LEN)
        return fmt_bad(&s->fmt, e, "metadata of %u bytes", s->meta_len);
    if (!co_header(s, s->meta_off, buf, META_LEN, e))
        return false;
    uint16_t n = ld_le16(buf + 10);
    if (memcmp(buf, "metadata", 8) || n > MAX_ENTRIES)
        return fmt_bad(&s->fmt, e, "its metadata table has another signature, or %u entries", n);
    for (unsigned i = 0; i < n; i++)
        if (!take_item(s, buf + ENTRY_LEN + i * ENTRY_LEN, e))
            return false;
    if (!is_pow2(s->fmt.unit) || s->fmt.unit < MiB || s->fmt.unit > 256 * MiB)
        return fmt_bad(&s->fmt, e, "blocks of %llu bytes", (unsigned long long)s->fmt.unit);
    if ((s->sector != 512 && s->sector != 4096) || s->size > 64 * 1024 * GiB || s->size % s->sector)
        return fmt_bad(&s->fmt, e, "%llu bytes in sectors of %u", (unsigned long long)s->size, s->sector);
    s->ratio = (UINT64_C(8) * MiB) * s->sector / s->fmt.unit;
    uint64_t blocks = s->size / s->fmt.unit + (s->size % s->fmt.unit != 0);
    return !blocks || blocks + (blocks - 1) / s->ratio <= s->bat_len / 8 || fmt_bad(&s->fmt, e, "its block table is too small for %llu bytes", (unsigned long long)s->size);
}

static bool co_open(struct blk_node *n, struct err *e)
{
    struct vhdx *s = (struct vhdx *)n;
    char magic[8];
    s->fmt.co_lookup = co_lookup;
    if (!co_fmt_open(&s->fmt, e) || !co_fmt_header(&s->fmt, 0, magic, sizeof magic, e))
        return false;
    if (memcmp(magic, "vhdxfile", 8))
        return fmt_bad(&s->fmt, e, "its signature is another one");
    uint8_t *buf = xcalloc(1, REGIONS_LEN);
    bool ok = read_headers(s, e) && read_regions(s, buf, e) && read_metadata(s, buf, e);
    free(buf);
    s->fmt.data_start = MiB;
    if (!ok || !fmt_ready(&s->fmt, s->size, e))
        return false;
    n->caps.logical_block = s->sector;
    return true;
}

static void co_close(struct blk_node *n)
{
    co_fmt_close(n);
    vhdx_log_free(&((struct vhdx *)n)->log);
}

static const struct prop props[] = { FMT_PROPS(struct vhdx), PROP_END };
static const struct blk_driver vhdx_driver = {
    .obj = { .name = "blockdev-vhdx", .desc = "Hyper-V's image format (VHDX); read-only", .base = &blk_node_class, .size = sizeof(struct vhdx),
             .props = props },
    FMT_DRIVER, .co_open = co_open, .co_close = co_close, .cluster_size = fmt_cluster_size,
};
OBJ_CLASS(&vhdx_driver.obj);
