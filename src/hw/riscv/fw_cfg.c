/* SPDX-License-Identifier: MIT */
/*
 * Firmware configuration device, memory-mapped with DMA (QEMU's docs/specs/fw_cfg): a selector register, a data register
 * that walks through the selected item, and a DMA register that takes the address of a request in guest memory.
 */
#include "hw/riscv/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "mem/dma.h"
#include "mem/view.h"

enum { REG_DATA = 0x00, REG_SELECTOR = 0x08, REG_DMA = 0x10, REG_SIZE = 0x18 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };
enum { DIR_ENTRY = 64, NAME_MAX_LEN = 56, KEYS = FW_CFG_FILE_FIRST + FW_CFG_FILES };
static const char dma_signature[8] = "QEMU CFG";

struct fw_item { char *name; uint8_t *data; int fd; uint32_t n; };

struct fw_cfg {
    struct sys_dev sys;
    uint16_t selected;
    uint32_t offset;
    uint64_t dma_addr;
    struct fw_item item[KEYS];
    unsigned n_files;
    struct dma dma;
    struct region mmio;
};

/* ---- items ---- */

static void item_free(struct fw_item *i)
{
    free(i->name);
    free(i->data);
    *i = (struct fw_item){ .fd = -1 };
}

static void item_set(struct fw_item *i, const void *data, uint32_t n)
{
    char *name = i->name;
    i->name = NULL;
    item_free(i);
    i->name = name;
    i->data = xcalloc(1, n ? n : 1);
    memcpy(i->data, data, n);
    i->n = n;
}

void fw_cfg_add_bytes(struct sys_dev *d, enum fw_cfg_key key, const void *data, uint32_t n)
{
    item_set(&((struct fw_cfg *)d)->item[key], data, n);
}

void fw_cfg_add_u16(struct sys_dev *d, enum fw_cfg_key key, uint16_t v)
{
    uint8_t b[2];
    st_le16(b, v);
    fw_cfg_add_bytes(d, key, b, sizeof b);
}

void fw_cfg_add_u32(struct sys_dev *d, enum fw_cfg_key key, uint32_t v)
{
    uint8_t b[4];
    st_le32(b, v);
    fw_cfg_add_bytes(d, key, b, sizeof b);
}

void fw_cfg_add_u64(struct sys_dev *d, enum fw_cfg_key key, uint64_t v)
{
    uint8_t b[8];
    st_le64(b, v);
    fw_cfg_add_bytes(d, key, b, sizeof b);
}

void fw_cfg_add_fd(struct sys_dev *d, enum fw_cfg_key key, int fd, uint32_t n)
{
    struct fw_item *i = &((struct fw_cfg *)d)->item[key];
    item_free(i);
    i->fd = fd;
    i->n = n;
}

/* The directory: a count, then size, key, reserved, name of each file, numbers big endian. */
static void directory_make(struct fw_cfg *f)
{
    uint8_t dir[4 + FW_CFG_FILES * DIR_ENTRY] = { 0 };
    st_be32(dir, f->n_files);
    for (unsigned i = 0; i < f->n_files; i++) {
        uint8_t *p = dir + 4 + i * DIR_ENTRY;
        const struct fw_item *it = &f->item[FW_CFG_FILE_FIRST + i];
        st_be32(p, it->n);
        st_be16(p + 4, (uint16_t)(FW_CFG_FILE_FIRST + i));
        memcpy(p + 8, it->name, strlen(it->name));
    }
    item_set(&f->item[FW_CFG_FILE_DIR], dir, 4 + f->n_files * DIR_ENTRY);
}

bool fw_cfg_add_file(struct sys_dev *d, const char *name, const void *data, uint32_t n, struct err *e)
{
    struct fw_cfg *f = (struct fw_cfg *)d;
    if (!*name || strlen(name) >= NAME_MAX_LEN)
        return err_set(e, ERR_VALUE, "name '%s': 1 to %d characters", name, NAME_MAX_LEN - 1);
    for (unsigned i = 0; i < f->n_files; i++)
        if (!strcmp(f->item[FW_CFG_FILE_FIRST + i].name, name))
            return err_set(e, ERR_BUSY, "name '%s' is there already", name);
    if (f->n_files == FW_CFG_FILES)
        return err_set(e, ERR_BUSY, "at most %d files", FW_CFG_FILES);
    struct fw_item *it = &f->item[FW_CFG_FILE_FIRST + f->n_files++];
    it->name = xstrdup(name);
    item_set(it, data, n);
    directory_make(f);
    return true;
}

void fw_cfg_set_file(struct sys_dev *d, const char *name, const void *data, uint32_t n)
{
    struct fw_cfg *f = (struct fw_cfg *)d;
    for (unsigned i = 0; i < f->n_files; i++)
        if (!strcmp(f->item[FW_CFG_FILE_FIRST + i].name, name))
            item_set(&f->item[FW_CFG_FILE_FIRST + i], data, n);
    directory_make(f);
}

static const struct fw_item *selected(const struct fw_cfg *f)
{
    unsigned key = f->selected & 0x3fff;        /* the write and architecture bits choose among the same items */
    return key < KEYS && !(f->selected & 0x8000) ? &f->item[key] : NULL;
}

/* Bytes of the selected item from the current offset; zeros after its end. */
static void item_read(struct fw_cfg *f, uint8_t *buf, uint32_t n)
{
    const struct fw_item *it = selected(f);
    uint32_t have = it && f->offset < it->n ? MIN(n, it->n - f->offset) : 0;
    memset(buf + have, 0, n - have);
    if (have && it->data) {
        memcpy(buf, it->data + f->offset, have);
    } else {
        for (uint32_t done = 0; done < have;) {
            ssize_t r = pread(it->fd, buf + done, have - done, (off_t)f->offset + done);
            if (r < 0 && errno == EINTR)
                continue;
            if (r <= 0) {
                memset(buf + done, 0, have - done);
                break;
            }
            done += (uint32_t)r;
        }
    }
    f->offset = f->offset > UINT32_MAX - n ? UINT32_MAX : f->offset + n;
}

/* ---- registers ---- */

static void select_item(struct fw_cfg *f, uint16_t key)
{
    f->selected = key;
    f->offset = 0;
}

static bool dma_copy(struct fw_cfg *f, uint64_t addr, uint32_t n)
{
    uint8_t buf[4096];
    while (n) {
        uint32_t part = MIN(n, (uint32_t)sizeof buf);
        item_read(f, buf, part);
        if (!dma_write(&f->dma, addr, buf, part))
            return false;
        addr += part;
        n -= part;
    }
    return true;
}

/* A request is {be32 control, be32 length, be64 address}; control becomes 0, or the error bit. */
static void dma_run(struct fw_cfg *f, uint64_t at)
{
    uint8_t req[16], done[4];
    if (!dma_read(&f->dma, at, req, sizeof req)) {
        log_guest("fw_cfg: request at 0x%llx is not in memory", (unsigned long long)at);
        return;
    }
    uint32_t control = ld_be32(req), n = ld_be32(req + 4), result = 0;
    uint64_t addr = ld_be64(req + 8);
    if (control & DMA_SELECT)
        select_item(f, control >> 16);
    const struct fw_item *it = selected(f);
    /* What lies behind the item's end is zeros: more of it than one page is no reasonable request, but must end. */
    if (control & DMA_READ) {
        uint32_t left = it && f->offset < it->n ? it->n - f->offset : 0;
        bool ok = n <= left ? dma_copy(f, addr, n) : dma_copy(f, addr, left) && dma_set(&f->dma, addr + left, 0, n - left);
        result = ok ? 0 : DMA_ERROR;
    } else if (control & DMA_WRITE) {
        result = DMA_ERROR;                     /* no item can be written */
    } else if (control & DMA_SKIP) {
        f->offset = f->offset > UINT32_MAX - n ? UINT32_MAX : f->offset + n;
    }
    st_be32(done, result);
    if (!dma_write(&f->dma, at, done, sizeof done))
        log_guest("fw_cfg: the result at 0x%llx cannot be written", (unsigned long long)at);
}

static uint64_t fw_cfg_read(void *opaque, uint64_t off, unsigned size)
{
    struct fw_cfg *f = opaque;
    uint8_t buf[8] = { 0 };
    if (off < REG_SELECTOR) {
        item_read(f, buf, size);                /* keeps the order of the bytes, whatever the width */
        return ld_le(buf, size);
    }
    if (off >= REG_DMA && range_ok(off - REG_DMA, size, 8)) {
        memcpy(buf, dma_signature + (off - REG_DMA), size);
        return ld_le(buf, size);
    }
    return 0;
}

static void fw_cfg_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct fw_cfg *f = opaque;
    if (off == REG_SELECTOR && size == 2) {
        select_item(f, __builtin_bswap16((uint16_t)v));
    } else if (off == REG_DMA && size == 8) {
        dma_run(f, __builtin_bswap64(v));
    } else if (off == REG_DMA && size == 4) {
        f->dma_addr = (uint64_t)__builtin_bswap32((uint32_t)v) << 32;
    } else if (off == REG_DMA + 4 && size == 4) {
        uint64_t at = f->dma_addr | __builtin_bswap32((uint32_t)v);
        f->dma_addr = 0;
        dma_run(f, at);
    } else {
        log_guest("fw_cfg: write of %u bytes to offset 0x%llx", size, (unsigned long long)off);
    }
}

static const struct mmio_ops fw_cfg_ops = { .read = fw_cfg_read, .write = fw_cfg_write, .min = 1, .max = 8 };

static void fw_cfg_reset(struct dev *d, enum reset_kind k)
{
    struct fw_cfg *f = (struct fw_cfg *)d;
    select_item(f, 0);
    f->dma_addr = 0;
}

static bool fw_cfg_realize(struct dev *d, struct err *e)
{
    struct fw_cfg *f = (struct fw_cfg *)d;
    for (unsigned i = 0; i < KEYS; i++)
        f->item[i].fd = -1;
    dma_init(&f->dma, &as_memory);
    atomic_store(&f->dma.enabled, true);
    fw_cfg_add_bytes(&f->sys, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_u32(&f->sys, FW_CFG_ID, 3);      /* data register and DMA */
    directory_make(f);
    region_init_mmio(&f->mmio, "fw_cfg_mem", REG_SIZE, &fw_cfg_ops, f, d->dom);
    sys_dev_mmio_add(&f->sys, &f->mmio);
    return true;
}

static void fw_cfg_unrealize(struct dev *d)
{
    struct fw_cfg *f = (struct fw_cfg *)d;
    region_fini(&f->mmio);
    sys_dev_mmio_forget(&f->sys);
    for (unsigned i = 0; i < KEYS; i++)
        item_free(&f->item[i]);
    f->n_files = 0;
}

static const struct state_field fw_cfg_fields[] = {
    STATE_SYS(struct fw_cfg), STATE_UINT(struct fw_cfg, selected), STATE_UINT(struct fw_cfg, offset),
    STATE_UINT(struct fw_cfg, dma_addr), STATE_SKIP(struct fw_cfg, item, "made from the command line"),
    STATE_SKIP(struct fw_cfg, n_files, "made from the command line"), STATE_SKIP(struct fw_cfg, dma, "host side"),
    STATE_SKIP(struct fw_cfg, mmio, "host side"), STATE_END,
};
static const struct state_desc fw_cfg_state = { .name = "fw_cfg", .version = 1, .fields = fw_cfg_fields };

static const struct dev_class fw_cfg_class = {
    .obj = { .name = "fw_cfg_mem", .desc = "Firmware configuration device", .base = &sys_dev_class.obj,
             .size = sizeof(struct fw_cfg), .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = fw_cfg_realize, .unrealize = fw_cfg_unrealize, .reset = fw_cfg_reset, .state = &fw_cfg_state,
};
OBJ_CLASS(&fw_cfg_class.obj);
