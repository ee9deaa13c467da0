/* SPDX-License-Identifier: MIT */
/* What SD and e.MMC cards have in common: the command dispatch, data phases, the bus. */
#include "hw/sd/sd.h"

#include <errno.h>
#include <stdio.h>
#include "base/bits.h"
#include "base/log.h"

#define MAX_ERASE (64 * MiB)            /* of one request to the back end */
#define CLEAR_ON_R1(c) ((c)->status &= ~SD_ST_ERRORS)

/* ---- responses ---- */

static unsigned respond(struct sd_card *c, const struct sd_cmd *row, uint8_t before, bool app, uint32_t arg, uint8_t resp[16])
{
    uint32_t st = c->status | (uint32_t)before << 9 | (c->busy ? 0 : SD_ST_READY_FOR_DATA) | (app || row->index == SD_APP_CMD ? SD_ST_APP_CMD : 0) |
                  (c->locked ? SD_ST_LOCKED : 0);

    switch (row->resp) {
    case SD_R1: case SD_R1B:
        st_be32(resp, st);
        CLEAR_ON_R1(c);
        return 4;
    case SD_R2_CID:
        memcpy(resp, c->cid, 16);
        return 16;
    case SD_R2_CSD:
        memcpy(resp, c->csd, 16);
        return 16;
    case SD_R3:
        st_be32(resp, c->ocr);
        return 4;
    case SD_R6:                         /* 4.9.5: bits 23, 22, 19 and 12 to 0 of the status */
        st_be32(resp, (uint32_t)c->rca << 16 | (st >> 8 & 0xc000) | (st >> 6 & 0x2000) | (st & 0x1fff));
        CLEAR_ON_R1(c);
        return 4;
    case SD_R7:
        st_be32(resp, arg & 0xfff);
        return 4;
    default:
        return 0;
    }
}

static const struct sd_cmd *find_in(const struct sd_cmd *row, uint8_t index, bool app)
{
    for (; row->states; row++)
        if (row->index == index && !(row->flags & SD_APP) == !app)
            return row;
    return NULL;
}

static const struct sd_cmd *find(const struct sd_card *c, uint8_t index, bool app)
{
    const struct sd_cmd *own = find_in(SD_CARD_CLASS(c)->cmds, index, app);
    return own ? own : find_in(sd_common_cmds, index, app);
}

static bool legal(const struct sd_card *c, const struct sd_cmd *row)
{
    if (c->busy && row->index != 13 && row->index != SD_GO_IDLE)
        return false;
    return row->states >> c->state & 1 && !(c->locked && row->flags & SD_UNLOCKED);
}

unsigned sd_command(struct sd_card *c, uint8_t index, uint32_t arg, uint8_t resp[16])
{
    bool app = c->app;
    uint8_t before = c->state;
    const struct sd_cmd *row = app ? find(c, index, true) : NULL;
    unsigned len;

    c->app = false;
    if (!row) {                         /* 4.3.9.1: what is no application command is the normal one */
        row = find(c, index, false);
        app = false;
    }
    if (c->state == SD_INACTIVE)
        return 0;
    if (!row || !legal(c, row)) {
        c->status |= SD_ST_ILLEGAL_COMMAND;
        return 0;
    }
    if (row->run && !row->run(c, arg))
        return 0;
    if (index != SD_SET_BLOCK_COUNT)
        c->block_count = index == SD_APP_CMD ? c->block_count : 0;
    if (c->erase_seq && (index < 32 || index > 38) && index != 13) {    /* 4.3.5: out of its sequence */
        c->erase_seq = 0;
        c->status |= SD_ST_ERASE_RESET;
    }
    len = respond(c, row, before, app, arg, resp);
    c->status |= c->late;
    c->late = 0;
    return len;
}

/* ---- data phases ---- */

void sd_data_end(struct sd_card *c)
{
    c->data = SD_DATA_NONE;
    c->gen++;
    if (c->state == SD_DATA || c->state == SD_RCV || c->state == SD_PRG)
        c->state = SD_TRAN;
}

void sd_data_send(struct sd_card *c, uint32_t n)
{
    c->data = SD_DATA_SEND;
    c->buf_len = n;
    c->buf_pos = 0;
    c->state = SD_DATA;
}

void sd_data_blocks(struct sd_card *c, bool write, uint64_t pos, uint64_t blocks)
{
    c->data = write ? SD_DATA_WRITE : SD_DATA_READ;
    c->pos = pos;
    c->left = blocks ? blocks * c->block_len : UINT64_MAX;
    c->state = write ? SD_RCV : SD_DATA;
}

bool sd_address(struct sd_card *c, uint32_t arg, uint64_t *pos)
{
    *pos = c->high_capacity ? (uint64_t)arg * SD_BLOCK : arg;
    if (*pos >= c->size)
        c->status |= SD_ST_OUT_OF_RANGE;
    else if (*pos % SD_BLOCK + c->block_len > SD_BLOCK)         /* 5.3.2: READ_BLK_MISALIGN is 0 */
        c->status |= SD_ST_ADDRESS_ERROR;
    else
        return true;
    return false;
}

/* What the back end said, as the host hears of it; @gen is the transfer's. */
static int outcome(struct sd_card *c, int error, bool read, uint32_t gen)
{
    if (gen != c->gen)
        return -ECANCELED;
    if (!error)
        return 0;
    switch (blk_error_action(c->blk, read, -error)) {
    case BLK_ACT_IGNORE: return 0;
    case BLK_ACT_STOP: return -EAGAIN;
    default: break;
    }
    c->status |= read ? SD_ST_CARD_ECC_FAILED : SD_ST_ERROR;
    return -EIO;
}

static void moved(struct sd_card *c, uint64_t len)
{
    c->pos += len;
    if (c->left != UINT64_MAX)
        c->left -= len;
    if (!c->left)
        sd_data_end(c);
}

/* [pos, pos + len) of the transfer lies on the card. */
static int on_card(struct sd_card *c, uint64_t len)
{
    if (len > c->left)
        return -ENODATA;
    if (c->rpmb.here)
        return 0;                       /* frames say themselves where */
    if (range_ok(c->pos, len, c->size))
        return 0;
    c->status |= SD_ST_OUT_OF_RANGE;
    return -ERANGE;
}

/* A part of a block (SDSC cards, CMD16): it is cut out of the whole one. */
static int co_read_part(struct sd_card *c, struct iovec *iov, uint64_t len)
{
    uint8_t block[SD_BLOCK];
    struct iovec whole = { block, sizeof block };
    uint64_t pos = c->pos;
    int r = len > SD_BLOCK ? -EIO : co_blk_preadv(c->blk, c->base + align_down(pos, SD_BLOCK), SD_BLOCK, &whole, 1, 0);

    if (!r)
        memcpy(iov->iov_base, block + pos % SD_BLOCK, (size_t)MIN(len, iov->iov_len));
    return r;
}

static int co_read(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len)
{
    uint32_t gen = c->gen;
    int r;

    if (c->data == SD_DATA_SEND) {
        if (len > c->buf_len - c->buf_pos)
            return -ENODATA;
        for (unsigned i = 0; i < n; c->buf_pos += (uint32_t)iov[i++].iov_len)
            memcpy(iov[i].iov_base, c->buf + c->buf_pos, iov[i].iov_len);
        if (c->buf_pos == c->buf_len)
            sd_data_end(c);
        return 0;
    }
    if (c->data != SD_DATA_READ)
        return -ENODATA;
    r = on_card(c, len);
    if (r)
        return r;
    if (c->rpmb.here)
        r = co_sd_rpmb_read(c, iov, n, len);
    else
        r = c->block_len == SD_BLOCK ? co_blk_preadv(c->blk, c->base + c->pos, len, iov, n, 0) : co_read_part(c, iov, len);
    r = outcome(c, r, true, gen);
    if (!r)
        moved(c, len);
    return r;
}

static void (*const takers[])(struct sd_card *) = { [SD_TAKE_CSD] = sd_csd_taken, [SD_TAKE_LOCK] = sd_lock_taken };

void sd_data_take(struct sd_card *c, enum sd_take what, uint32_t n)
{
    c->data = SD_DATA_TAKE;
    c->take = (uint8_t)what;
    c->buf_len = n;
    c->buf_pos = 0;
    c->state = SD_RCV;
}

static int take(struct sd_card *c, const struct iovec *iov, unsigned n, uint64_t len)
{
    if (len > c->buf_len - c->buf_pos)
        return -ENODATA;
    for (unsigned i = 0; i < n; c->buf_pos += (uint32_t)iov[i++].iov_len)
        memcpy(c->buf + c->buf_pos, iov[i].iov_base, iov[i].iov_len);
    if (c->buf_pos < c->buf_len)
        return 0;
    sd_data_end(c);
    takers[c->take](c);
    return 0;
}

static int co_write(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len)
{
    uint32_t gen = c->gen;
    int r;

    if (c->data == SD_DATA_TAKE)
        return take(c, iov, n, len);
    if (c->data != SD_DATA_WRITE)
        return -ENODATA;
    r = on_card(c, len);
    if (!r && sd_group_protected(c, c->pos, len)) {
        c->status |= SD_ST_WP_VIOLATION;
        r = -ERANGE;
    }
    if (r)
        return r;
    r = c->rpmb.here ? co_sd_rpmb_write(c, iov, n, len) : co_blk_pwritev(c->blk, c->base + c->pos, len, iov, n, 0);
    r = outcome(c, r, false, gen);
    if (!r) {
        c->written += (uint32_t)(len / SD_BLOCK);
        moved(c, len);
    }
    return r;
}

/* ---- what keeps it busy ---- */

static int co_erase(struct sd_card *c)
{
    uint64_t n = MIN(c->erase_to - c->erase_from, MAX_ERASE), at = c->base + c->erase_from;
    uint32_t gen = c->gen;
    int r;

    if (sd_group_protected(c, c->erase_from, n)) {      /* group by group, over those that are protected */
        n = MIN(n, c->wp_size - c->erase_from % c->wp_size);
        if (sd_group_protected(c, c->erase_from, n)) {
            c->status |= SD_ST_WP_ERASE_SKIP;
            c->erase_from += n;
            return 0;
        }
    }
    r = c->erase_discards && c->caps.discard ? co_blk_discard(c->blk, at, n) : co_blk_zero(c->blk, at, n, BLK_ZERO_UNMAP);

    if (!r && gen == c->gen)            /* else the range is that of another erase */
        c->erase_from += n;
    return r;
}

static int co_busy(struct sd_card *c)
{
    while (c->busy) {
        uint32_t gen = c->gen;
        int r = c->busy == SD_BUSY_FLUSH ? co_blk_flush(c->blk) : c->erase_from < c->erase_to ? co_erase(c) : 0;
        if (gen != c->gen)
            return 0;                   /* reset meanwhile */
        r = outcome(c, r, false, gen);
        if (r == -EAGAIN)
            return r;
        if (r || c->busy == SD_BUSY_FLUSH || c->erase_from >= c->erase_to)
            c->busy = SD_BUSY_NONE;
    }
    if (c->state == SD_PRG)
        c->state = SD_TRAN;
    return 0;
}

/* ---- what a card that is taken out waits for ---- */

static int leave(struct sd_card *c, int r)
{
    c->in_flight--;
    co_queue_wake_all(&c->idle);
    return r;
}

int co_sd_read(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len)
{
    c->in_flight++;
    return leave(c, co_read(c, iov, n, len));
}

int co_sd_write(struct sd_card *c, struct iovec *iov, unsigned n, uint64_t len)
{
    c->in_flight++;
    return leave(c, co_write(c, iov, n, len));
}

int co_sd_busy(struct sd_card *c)
{
    c->in_flight++;
    return leave(c, co_busy(c));
}

void co_sd_quiesce(struct dev *dev)
{
    struct sd_card *c = (struct sd_card *)dev;

    while (c->in_flight)
        co_queue_wait(&c->idle);
}

/* ---- the bus ---- */

static bool bus_attach(struct bus *bus, struct dev *dev, struct err *e)
{
    return !bus->n_devs || err_set(e, ERR_BUSY, "bus '%s' has one place, and '%s' is in it", bus->obj.id,
                                   list_first(&bus->devs, struct dev, on_bus)->obj.id);
}

static void tell(struct sd_bus *b, struct dev *dev, struct sd_card *c)
{
    domain_lock(dev->dom);
    b->card = c;
    if (b->changed)
        b->changed(b->arg);
    domain_unlock(dev->dom);
}

static bool bus_plugged(struct bus *bus, struct dev *dev, struct err *e)
{
    tell((struct sd_bus *)bus, dev, (struct sd_card *)dev);
    return true;
}

static void bus_hide(struct bus *bus, struct dev *dev)
{
    tell((struct sd_bus *)bus, dev, NULL);
}

static bool bus_full(const struct bus *b) { return b->n_devs != 0; }
static void bus_path(const struct dev *dev, char *buf, size_t n) { snprintf(buf, n, "sd/0"); }

const struct bus_class sd_bus_class = {
    .obj = { .name = "sd-bus", .desc = "Place for an SD card or an e.MMC device", .base = &bus_obj_class, .size = sizeof(struct sd_bus) },
    .attach = bus_attach, .plugged = bus_plugged, .hide = bus_hide, .full = bus_full, .path = bus_path, .shares_domain = true,
    .brought_by = "sdhci-pci",
};
OBJ_CLASS(&sd_bus_class.obj);

struct sd_bus *sd_bus_new(struct dev *owner, void (*changed)(void *), void *arg, struct err *e)
{
    char name[128];
    struct sd_bus *b;

    bus_free_name(&sd_bus_class, owner, 0, name, sizeof name);
    b = (struct sd_bus *)bus_new(&sd_bus_class, owner, name, e);
    if (!b)
        return NULL;
    b->changed = changed;
    b->arg = arg;
    b->bus.hotplug = true;
    return b;
}
