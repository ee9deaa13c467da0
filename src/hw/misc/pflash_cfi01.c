/* SPDX-License-Identifier: MIT */
/*
 * NOR flash with the Intel command set ("Common Flash Memory Interface" JESD68.01, primary command set 1; Intel StrataFlash
 * P30 data sheet for the states): two 16-bit chips side by side on a 32-bit bus, as firmware for the board expects. Reads
 * come from memory directly while the chips are in read-array mode; a command switches the region to handlers. What the
 * guest programs is written to the block back end in the background, page by page.
 */
#include "block/blk.h"
#include "base/log.h"
#include "mem/ram.h"
#include "pci/sysdev.h"

#include <stdlib.h>

#define FLASH_SECTOR (256 * KiB)            /* of the bank: 128 KiB in each chip */
#define FLASH_BUFFER 1024u                  /* words of the bank that one buffered write may take */
#define FLASH_PAGE 4096u
#define FLASH_SIZE_MAX (64 * MiB)
#define FLASH_PAGES (FLASH_SIZE_MAX / FLASH_PAGE)
#define BANK_WIDTH 4u

enum flash_cmd { CMD_ARRAY = 0xff, CMD_ARRAY_AMD = 0xf0, CMD_PROGRAM = 0x40, CMD_PROGRAM_ALT = 0x10, CMD_ERASE = 0x20,
                 CMD_CLEAR_STATUS = 0x50, CMD_LOCK = 0x60, CMD_STATUS = 0x70, CMD_ID = 0x90, CMD_QUERY = 0x98, CMD_BUFFER = 0xe8,
                 CMD_CONFIRM = 0xd0, CMD_LOCK_SET = 0x01 };
enum { SR_READY = 0x80, SR_ERASE_ERROR = 0x20, SR_PROGRAM_ERROR = 0x10, SR_LOCKED = 0x02 };
/* What the next write means. */
enum flash_state { ST_COMMAND, ST_PROGRAM_DATA, ST_ERASE_CONFIRM, ST_LOCK_CONFIRM, ST_BUFFER_COUNT, ST_BUFFER_DATA, ST_BUFFER_CONFIRM,
                   ST_STATES };

struct pflash {
    struct sys_dev sys;
    struct obj *drive;                      /* options */
    uint64_t size;
    char *name;
    uint8_t cmd, state, status;             /* cmd: what reads return */
    uint32_t left, buf_n;                   /* words to come; words in the buffer */
    uint64_t buf_off;
    uint32_t buf[FLASH_BUFFER];
    struct ram *ram;
    struct blk *blk;
    bool read_only, writing, write_failed;
    struct co_event written;                /* set while nothing is on its way to the back end */
    uint64_t dirty[FLASH_PAGES / 64];
    struct region mem;
};

/* ---- to the back end ---- */

static bool next_dirty(struct pflash *f, uint64_t *page)
{
    for (uint64_t w = 0; w < ARRAY_SIZE(f->dirty); w++) {
        if (f->dirty[w]) {
            *page = w * 64 + ctz64(f->dirty[w]);
            f->dirty[w] &= f->dirty[w] - 1;
            return true;
        }
    }
    return false;
}

static void co_write_back(void *arg)
{
    struct pflash *f = arg;
    uint8_t page[FLASH_PAGE];
    uint64_t n;
    while (next_dirty(f, &n)) {
        struct iovec v = { page, sizeof page };
        memcpy(page, f->ram->host + n * FLASH_PAGE, sizeof page);
        int r = co_blk_pwritev(f->blk, n * FLASH_PAGE, sizeof page, &v, 1, 0);
        if (r < 0) {
            if (!f->write_failed)
                log_warn("flash '%s': writing to '%s': %s", f->name ? f->name : f->sys.dev.obj.id, f->drive->id, strerror(-r));
            f->write_failed = true;
            f->status |= SR_PROGRAM_ERROR;
        }
    }
    f->writing = false;
    co_wake(&f->written);
}

/* Domain lock held; [off, off + n) was changed by the guest. */
static void flash_changed(struct pflash *f, uint64_t off, uint64_t n)
{
    ram_written(f->ram, off, n);
    if (!f->blk)
        return;
    for (uint64_t p = off / FLASH_PAGE; p <= (off + n - 1) / FLASH_PAGE; p++)
        f->dirty[p / 64] |= BIT64(p % 64);
    if (!f->writing) {
        f->writing = true;
        co_event_clear(&f->written);
        co_spawn(NULL, f->sys.dev.dom, co_write_back, f);
    }
}

/* ---- commands ---- */

static void flash_mode(struct pflash *f, uint8_t cmd)
{
    f->cmd = cmd;
    f->state = ST_COMMAND;
    region_romd_set(&f->mem, cmd == CMD_ARRAY);
}

/* Both chips at once: programming can only clear bits. */
static void flash_program(struct pflash *f, uint64_t off, uint64_t v, unsigned size)
{
    if (f->read_only) {
        f->status |= SR_PROGRAM_ERROR | SR_LOCKED;
        return;
    }
    for (unsigned i = 0; i < size; i++)
        f->ram->host[off + i] &= (uint8_t)(v >> 8 * i);
    flash_changed(f, off, size);
}

static void flash_erase(struct pflash *f, uint64_t off)
{
    uint64_t n = MIN(FLASH_SECTOR, f->size);
    if (f->read_only) {
        f->status |= SR_ERASE_ERROR | SR_LOCKED;
        return;
    }
    off = align_down(off, n);
    memset(f->ram->host + off, 0xff, n);
    flash_changed(f, off, n);
}

static void flash_command(struct pflash *f, uint64_t off, uint8_t cmd)
{
    f->status |= SR_READY;
    switch (cmd) {
    case 0x00:
    case CMD_ARRAY:
    case CMD_ARRAY_AMD:
        flash_mode(f, CMD_ARRAY);
        return;
    case CMD_CLEAR_STATUS:
        f->status = SR_READY;
        flash_mode(f, CMD_ARRAY);
        return;
    case CMD_STATUS:
    case CMD_ID:
    case CMD_QUERY:
        flash_mode(f, cmd);
        return;
    case CMD_PROGRAM:
    case CMD_PROGRAM_ALT:
        flash_mode(f, CMD_STATUS);
        f->state = ST_PROGRAM_DATA;
        return;
    case CMD_ERASE:
        flash_mode(f, CMD_STATUS);
        f->state = ST_ERASE_CONFIRM;
        return;
    case CMD_LOCK:
        flash_mode(f, CMD_STATUS);
        f->state = ST_LOCK_CONFIRM;
        return;
    case CMD_BUFFER:
        flash_mode(f, CMD_STATUS);
        f->state = ST_BUFFER_COUNT;
        return;
    default:
        log_guest("flash: unknown command 0x%02x", cmd);
        flash_mode(f, CMD_ARRAY);
    }
}

static void flash_buffer_data(struct pflash *f, uint64_t off, uint64_t v)
{
    if (!f->buf_n)
        f->buf_off = off;
    if (f->buf_n < FLASH_BUFFER && off == f->buf_off + f->buf_n * BANK_WIDTH)
        f->buf[f->buf_n++] = (uint32_t)v;
    else
        f->status |= SR_PROGRAM_ERROR;
    if (!f->left--) {
        f->left = 0;
        f->state = ST_BUFFER_CONFIRM;
    }
}

static void flash_buffer_confirm(struct pflash *f, uint8_t cmd)
{
    uint64_t n = (uint64_t)f->buf_n * BANK_WIDTH;
    f->state = ST_COMMAND;
    if (cmd != CMD_CONFIRM || !range_ok(f->buf_off, n, f->size)) {
        f->status |= SR_PROGRAM_ERROR | SR_ERASE_ERROR;
        return;
    }
    for (uint32_t i = 0; i < f->buf_n; i++)
        flash_program(f, f->buf_off + i * BANK_WIDTH, f->buf[i], BANK_WIDTH);
}

static void flash_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct pflash *f = opaque;
    uint8_t cmd = v & 0xff;
    switch (f->state) {
    case ST_COMMAND:
        flash_command(f, off, cmd);
        break;
    case ST_PROGRAM_DATA:
        f->state = ST_COMMAND;
        flash_program(f, off, v, size);
        break;
    case ST_ERASE_CONFIRM:
        f->state = ST_COMMAND;
        if (cmd == CMD_CONFIRM)
            flash_erase(f, off);
        else if (cmd == CMD_ARRAY)
            flash_mode(f, CMD_ARRAY);
        else
            f->status |= SR_ERASE_ERROR | SR_PROGRAM_ERROR;
        break;
    case ST_LOCK_CONFIRM:                   /* blocks are never locked one by one: accepted without effect */
        f->state = ST_COMMAND;
        if (cmd == CMD_ARRAY)
            flash_mode(f, CMD_ARRAY);
        else if (cmd != CMD_CONFIRM && cmd != CMD_LOCK_SET)
            f->status |= SR_ERASE_ERROR | SR_PROGRAM_ERROR;
        break;
    case ST_BUFFER_COUNT:
        f->left = v & 0xffff;               /* one less than the number of words of a chip */
        f->buf_n = 0;
        f->state = ST_BUFFER_DATA;
        if (f->left >= FLASH_BUFFER) {
            f->status |= SR_PROGRAM_ERROR | SR_ERASE_ERROR;
            f->state = ST_COMMAND;
        }
        break;
    case ST_BUFFER_DATA:
        flash_buffer_data(f, off, v);
        break;
    default:
        flash_buffer_confirm(f, cmd);
    }
}

/* ---- reads other than the array ---- */

/* JESD68.01 section 4.3, for one chip. */
static uint8_t flash_query(const struct pflash *f, unsigned at)
{
    uint64_t chip = f->size / 2, sector = FLASH_SECTOR / 2, blocks = chip / sector - 1;
    switch (at) {
    case 0x10: return 'Q';
    case 0x11: return 'R';
    case 0x12: return 'Y';
    case 0x13: return 0x01;                 /* Intel extended command set */
    case 0x15: return 0x31;                 /* address of its table */
    case 0x1b: return 0x45;                 /* supply 4.5 V to 5.5 V */
    case 0x1c: return 0x55;
    case 0x1f: return 0x07;                 /* typical and maximum times, powers of two */
    case 0x20: return 0x07;
    case 0x21: return 0x0a;
    case 0x23: return 0x04;
    case 0x24: return 0x04;
    case 0x25: return 0x04;
    case 0x27: return (uint8_t)ctz64(chip);
    case 0x28: return 0x01;                 /* 16-bit interface */
    case 0x2a: return 0x0b;                 /* 2048 bytes of write buffer */
    case 0x2c: return 0x01;                 /* one region of equal blocks */
    case 0x2d: return (uint8_t)blocks;
    case 0x2e: return (uint8_t)(blocks >> 8);
    case 0x2f: return (uint8_t)(sector >> 8);
    case 0x30: return (uint8_t)(sector >> 16);
    case 0x31: return 'P';
    case 0x32: return 'R';
    case 0x33: return 'I';
    case 0x34: return '1';
    case 0x35: return '0';
    case 0x3f: return 0x01;                 /* no protection registers */
    default: return 0;
    }
}

static uint32_t flash_reg(const struct pflash *f, uint64_t off)
{
    unsigned at = (unsigned)(off / BANK_WIDTH);
    uint32_t chip = f->cmd == CMD_QUERY ? flash_query(f, at)
                  : f->cmd == CMD_ID ? (at % (FLASH_SECTOR / BANK_WIDTH) == 0 ? 0x89 : at % (FLASH_SECTOR / BANK_WIDTH) == 1 ? 0x18 : 0)
                  : f->status;
    return chip | chip << 16;
}

static uint64_t flash_read(void *opaque, uint64_t off, unsigned size)
{
    struct pflash *f = opaque;
    if (f->cmd == CMD_ARRAY)                /* a read that was under way when the mode changed */
        return ld_le(f->ram->host + off, size);
    return flash_reg(f, off) >> 8 * (off % BANK_WIDTH) & mask_of_size(size);
}

static const struct mmio_ops flash_ops = { .read = flash_read, .write = flash_write, .min = 1, .max = 4 };

/* ---- life ---- */

static void flash_reset(struct dev *d, enum reset_kind k)
{
    struct pflash *f = (struct pflash *)d;
    f->status = SR_READY;
    f->left = f->buf_n = 0;
    flash_mode(f, CMD_ARRAY);
}

struct load { struct pflash *f; int r; };

static void co_load(void *arg)
{
    struct load *l = arg;
    struct iovec v = { l->f->ram->host, l->f->size };
    l->r = co_blk_preadv(l->f->blk, 0, l->f->size, &v, 1, 0);
}

static bool flash_open(struct pflash *f, struct err *e)
{
    struct blk_caps caps;
    struct load l = { f, 0 };
    char size[32];
    struct blk_node *n = (struct blk_node *)f->drive;
    f->blk = blk_open(n, blk_perm_rw(n), BLK_PERM_READ, f->sys.dev.dom, "flash", e);
    if (!f->blk)
        return false;
    blk_get_caps(f->blk, &caps);
    f->read_only = caps.read_only;
    if (blk_size(f->blk) != f->size) {
        err_set(e, ERR_VALUE, "flash bank: '%s' has %llu bytes, the bank is %s", f->drive->id,
                (unsigned long long)blk_size(f->blk), format_size(f->size, size));
        return err_hint(e, "make the file fit: truncate -s %s FILE", f->size % MiB ? size : "32M");
    }
    co_run_main(co_load, &l);
    return !l.r || err_os(e, -l.r, "flash bank: reading '%s'", f->drive->id);
}

static bool flash_realize(struct dev *d, struct err *e)
{
    struct pflash *f = (struct pflash *)d;
    if (f->size % FLASH_SECTOR || !is_pow2(f->size))
        return err_set(e, ERR_VALUE, "flash bank: the size must be a power of two and at least 256 KiB");
    f->ram = ram_new(f->name ? f->name : "flash", f->size, e);
    if (!f->ram)
        return false;
    f->written.set = true;
    f->cmd = CMD_ARRAY;
    f->status = SR_READY;
    if (f->drive && !flash_open(f, e)) {
        if (f->blk)
            blk_close(f->blk);
        f->blk = NULL;
        ram_free(f->ram);
        return false;
    }
    region_init_romd(&f->mem, f->name ? f->name : "cfi.pflash01", f->ram, f->size, &flash_ops, f, d->dom);
    sys_dev_mmio_add(&f->sys, &f->mem);
    return true;
}

static void flash_co_quiesce(struct dev *d)
{
    co_wait(&((struct pflash *)d)->written);
}

static void flash_unrealize(struct dev *d)
{
    struct pflash *f = (struct pflash *)d;
    region_fini(&f->mem);
    sys_dev_mmio_forget(&f->sys);
    if (f->blk)
        blk_close(f->blk);
    f->blk = NULL;
    ram_free(f->ram);
    f->ram = NULL;
}

static bool flash_post_load(void *obj, struct err *e)
{
    struct pflash *f = obj;
    region_romd_set(&f->mem, f->cmd == CMD_ARRAY);
    return true;
}

static const struct state_field flash_fields[] = {
    STATE_SYS(struct pflash), STATE_SKIP(struct pflash, drive, "option"), STATE_SKIP(struct pflash, size, "option"),
    STATE_SKIP(struct pflash, name, "option"), STATE_UINT(struct pflash, cmd), STATE_UINT(struct pflash, state, .max = ST_STATES - 1),
    STATE_UINT(struct pflash, status), STATE_UINT(struct pflash, left, .max = FLASH_BUFFER - 1),
    STATE_UINT(struct pflash, buf_n, .max = FLASH_BUFFER), STATE_UINT(struct pflash, buf_off, .max = FLASH_SIZE_MAX),
    STATE_ARRAY(struct pflash, buf), STATE_SKIP(struct pflash, ram, "saved with the machine's memory"),
    STATE_SKIP(struct pflash, blk, "host side"), STATE_SKIP(struct pflash, read_only, "of the back end"),
    STATE_SKIP(struct pflash, writing, "nothing is in flight"), STATE_SKIP(struct pflash, write_failed, "host side"),
    STATE_SKIP(struct pflash, written, "host side"), STATE_SKIP(struct pflash, dirty, "nothing is in flight"),
    STATE_SKIP(struct pflash, mem, "host side"), STATE_END,
};
static const struct state_desc flash_state = { .name = "pflash_cfi01", .version = 1, .fields = flash_fields,
                                               .post_load = flash_post_load };
static const struct prop flash_props[] = {
    PROP_LINK(struct pflash, drive, "drive", &blk_node_class, 0, "Block node with the contents; without one they are lost"),
    PROP_SIZE(struct pflash, size, "size", 32 * MiB, FLASH_SECTOR, FLASH_SIZE_MAX, "Size of the bank"),
    PROP_STR(struct pflash, name, "name", 0, "Name in messages and in the memory map"),
    PROP_END,
};
static const struct dev_class flash_class = {
    .obj = { .name = "cfi.pflash01", .desc = "NOR flash bank with the Intel command set", .base = &sys_dev_class.obj,
             .size = sizeof(struct pflash), .props = flash_props, .flags = OCF_INTERNAL },
    .cat = "Storage", .realize = flash_realize, .unrealize = flash_unrealize, .reset = flash_reset, .co_quiesce = flash_co_quiesce,
    .state = &flash_state,
};
OBJ_CLASS(&flash_class.obj);
