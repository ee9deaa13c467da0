/* SPDX-License-Identifier: MIT */
/* Commands and transfers of the SD host controller: data port, SDMA, ADMA2 (SDHC 1.13, 2.2, 3.7). */
#include <errno.h>
#include "base/log.h"
#include "hw/sd/sdhci.h"

#define ADMA_STEPS 4096u                /* descriptors of one stretch */
#define STRETCH MiB                     /* about as much is moved at a time */
enum { ADMA_VALID = 1, ADMA_END = 2, ADMA_INT = 4, ADMA_ACT = 0x30, ADMA_TRAN = 0x20, ADMA_LINK = 0x30 };
enum { ADMA_ST_FDS = 1, ADMA_ST_TFR = 3, ADMA_MISMATCH = 4 };       /* 2.2.30 */
enum { HOST_DMA = 0x18, HOST_ADMA32 = 0x10, HOST_ADMA64 = 0x18, HOST_8_LINES = 0x20 };

static uint32_t bytes_of_block(const struct sdhci *s) { return s->block_size & 0xfff; }
static bool reads(const struct sdhci *s) { return s->move == MOVE_READ; }

/* ---- the end ---- */

void sdhci_stop(struct sdhci *s)
{
    s->move = MOVE_NONE;
    s->gen++;
    s->left = 0;
    s->fifo_pos = 0;
    s->port_ready = s->at_boundary = s->stalled = false;
}

static void finish(struct sdhci *s)
{
    uint8_t resp[16];
    bool data = s->move != MOVE_BUSY;

    sdhci_stop(s);
    if (data && (s->mode & TM_MULTI) && (s->mode & TM_AUTO) == TM_AUTO_CMD12 && s->bus->card) {
        if (sd_command(s->bus->card, SD_STOP, 0, resp) == 4)
            s->resp[3] = ld_be32(resp);                 /* 2.2.7 */
        else if (sd_sends(s->bus->card) || sd_takes(s->bus->card)) {
            s->auto_err |= 2;
            sdhci_raise(s, 0, ERR_AUTO);
        }
    }
    sdhci_raise(s, INT_TRANSFER, 0);
}

static void fail(struct sdhci *s, uint16_t err)
{
    sdhci_stop(s);
    sdhci_raise(s, 0, err);
}

/* What the card said of a part of the transfer. False: the transfer does not go on now. */
static bool went_well(struct sdhci *s, int r, uint32_t gen)
{
    if (gen != s->gen)
        return false;
    switch (r) {
    case 0:
        return true;
    case -EAGAIN:
        s->stalled = true;
        return false;
    case -EIO:
        fail(s, ERR_DATA_CRC);
        return false;
    default:                                            /* no data comes, or none is taken */
        fail(s, ERR_DATA_TIMEOUT);
        return false;
    }
}

static void moved(struct sdhci *s, uint64_t n)
{
    if (s->left != UINT64_MAX)
        s->left -= n;
    if (s->mode & TM_COUNT)
        s->block_count = (uint16_t)(s->block_count - MIN(n / bytes_of_block(s), s->block_count));
}

/* ---- DMA ---- */

/* Moves what @v maps; false: stopped, failed or to be tried again. */
static bool co_move(struct sdhci *s, struct dma_vec *v)
{
    uint32_t gen = s->gen;
    uint64_t len = v->len;
    int r;

    if (!s->bus->card)
        r = -ENODATA;
    else if (reads(s))
        r = co_sd_read(s->bus->card, v->iov, v->n, len);
    else
        r = co_sd_write(s->bus->card, v->iov, v->n, len);
    dma_unmap(v, v->dev_writes ? len : 0);
    if (!went_well(s, r, gen))
        return false;
    moved(s, len);
    return true;
}

static uint64_t boundary(const struct sdhci *s) { return UINT64_C(4096) << (s->block_size >> 12 & 7); }

/* True: the transfer is over or waits. */
static bool co_sdma(struct sdhci *s, struct dma_vec *v)
{
    uint64_t n = MIN(s->left, boundary(s) - s->sdma % boundary(s));

    if (!dma_map(v, s->sdma, n)) {
        fail(s, ERR_ADMA);
        return true;
    }
    if (!co_move(s, v))
        return true;
    s->sdma += (uint32_t)n;
    if (!s->left) {
        finish(s);
        return true;
    }
    if (s->sdma % boundary(s))
        return false;
    s->at_boundary = true;
    sdhci_raise(s, INT_DMA, 0);
    return true;
}

struct adma { uint16_t attr; uint32_t len; uint64_t addr; };

static bool fetch_descriptor(struct sdhci *s, struct adma *a)
{
    bool wide = (s->host_ctl & HOST_DMA) == HOST_ADMA64;
    uint8_t d[12] = { 0 };

    if (!dma_read(&s->pci.dma, s->adma, d, wide ? 12 : 8))
        return false;
    a->attr = ld_le16(d);
    a->len = ld_le16(d + 2) ? ld_le16(d + 2) : 0x10000;
    a->addr = wide ? ld_le64(d + 4) : ld_le32(d + 4);
    if (!(a->attr & ADMA_VALID))
        return false;
    s->adma = (a->attr & ADMA_ACT) == ADMA_LINK ? a->addr : s->adma + (wide ? 12 : 8);
    return true;
}

static bool adma_failed(struct sdhci *s, uint8_t state)
{
    s->adma_err = state;
    fail(s, ERR_ADMA);
    return false;
}

/* Maps the next stretch of the descriptor table, whole blocks of it. @flags: what was met, ADMA_END and ADMA_INT. */
static bool adma_gather(struct sdhci *s, struct dma_vec *v, uint16_t *flags)
{
    uint32_t bs = bytes_of_block(s);
    struct adma a;

    *flags = 0;
    for (unsigned i = 0; i < ADMA_STEPS; i++) {
        if (!fetch_descriptor(s, &a))
            return adma_failed(s, ADMA_ST_FDS);
        *flags |= a.attr & (ADMA_END | ADMA_INT);
        if ((a.attr & ADMA_ACT) == ADMA_TRAN && !dma_map(v, a.addr, MIN(a.len, s->left - v->len)))
            return adma_failed(s, ADMA_ST_TFR);
        if (v->len == s->left || *flags & ADMA_END || (v->len >= STRETCH && v->len % bs == 0))
            break;
    }
    if (v->len % bs || (*flags & ADMA_END && s->left != UINT64_MAX && v->len < s->left))
        return adma_failed(s, ADMA_ST_TFR | ADMA_MISMATCH);
    return v->len || adma_failed(s, ADMA_ST_FDS);       /* nothing but links: a loop */
}

static bool co_adma(struct sdhci *s, struct dma_vec *v)
{
    uint64_t at = s->adma;
    uint16_t flags;

    if (!adma_gather(s, v, &flags))
        return true;
    if (!co_move(s, v)) {
        if (s->stalled)
            s->adma = at;                               /* it begins again there */
        return true;
    }
    if (flags & ADMA_INT)
        sdhci_raise(s, INT_DMA, 0);
    if (s->left && !(flags & ADMA_END))
        return false;
    finish(s);
    return true;
}

/* ---- the data port ---- */

static void open_port(struct sdhci *s)
{
    s->fifo_pos = 0;
    s->port_ready = true;
    sdhci_raise(s, reads(s) ? INT_READ_READY : INT_WRITE_READY, 0);
}

static bool tunes(const struct sdhci *s)
{
    return s->ctl2 & CTL2_EXEC_TUNING && (s->cmd >> 8 == SD_SEND_TUNING || s->cmd >> 8 == MMC_SEND_TUNING);
}

/* 2.2.24, 3.6: the controller compares the block itself; there is one sampling point, and it is right or wrong. */
static void tuned(struct sdhci *s, const uint8_t *block, uint32_t n)
{
    uint8_t want[128];
    unsigned len = sd_tuning_block(want, s->host_ctl & HOST_8_LINES ? 8 : 4);

    s->ctl2 &= (uint16_t)~(CTL2_EXEC_TUNING | CTL2_TUNED);
    if (n == len && !memcmp(block, want, len))
        s->ctl2 |= CTL2_TUNED;
    sdhci_stop(s);
    sdhci_raise(s, INT_READ_READY, 0);
}

/* One block between the card and the buffer. */
static void co_pio(struct sdhci *s)
{
    uint32_t gen = s->gen, n = bytes_of_block(s);
    uint8_t block[SDHCI_FIFO];
    struct iovec iov = { block, n };
    bool read = reads(s);
    int r = -ENODATA;

    if (!read)
        memcpy(block, s->fifo, n);
    if (s->bus->card)
        r = read ? co_sd_read(s->bus->card, &iov, 1, n) : co_sd_write(s->bus->card, &iov, 1, n);
    if (!went_well(s, r, gen))
        return;
    if (tunes(s)) {
        tuned(s, block, n);
        return;
    }
    moved(s, n);
    if (read)
        memcpy(s->fifo, block, n);
    else if (!s->left)
        finish(s);
    if (read || s->left)
        open_port(s);
}

/* The guest is through with the buffer. */
static void port_done(struct sdhci *s)
{
    s->port_ready = false;
    if (reads(s) && !s->left)
        finish(s);
    else
        sdhci_step(s);
}

uint32_t sdhci_port_read(struct sdhci *s, unsigned size)
{
    uint8_t b[4] = { 0 };
    uint32_t n = MIN(size, bytes_of_block(s) - s->fifo_pos);

    if (!s->port_ready || !reads(s))
        return 0;
    memcpy(b, s->fifo + s->fifo_pos, n);
    s->fifo_pos += n;
    if (s->fifo_pos >= bytes_of_block(s))
        port_done(s);
    return ld_le32(b);
}

void sdhci_port_write(struct sdhci *s, uint32_t v, unsigned size)
{
    uint8_t b[4];
    uint32_t n = MIN(size, bytes_of_block(s) - s->fifo_pos);

    if (!s->port_ready || s->move != MOVE_WRITE)
        return;
    st_le32(b, v);
    memcpy(s->fifo + s->fifo_pos, b, n);
    s->fifo_pos += n;
    if (s->fifo_pos >= bytes_of_block(s))
        port_done(s);
}

/* ---- steps ---- */

/* The card is not busy any more, whether the host asked to be told of that or not. False: the machine stops. */
static bool co_card_ready(struct sdhci *s)
{
    s->stalled = s->bus->card && co_sd_busy(s->bus->card) == -EAGAIN;
    return !s->stalled;
}

static void co_dma(struct sdhci *s)
{
    struct dma_vec v;
    uint32_t gen = s->gen;
    bool over = false;

    dma_vec_init(&v, &s->pci.dma, reads(s));
    while (!over && gen == s->gen) {
        over = s->host_ctl & HOST_DMA ? co_adma(s, &v) : co_sdma(s, &v);
        dma_unmap(&v, 0);
    }
    dma_vec_free(&v);
}

static void co_step(void *arg)
{
    struct sdhci *s = arg;

    do {
        s->again = false;
        if (!co_card_ready(s))
            break;
        if (s->move == MOVE_BUSY)
            finish(s);
        else if (s->move && s->pio)
            co_pio(s);
        else if (s->move)
            co_dma(s);
    } while (s->again || (s->bus->card && s->bus->card->busy && !s->stalled));
    s->stepping = false;
    co_queue_wake_all(&s->idle);
}

/*
 * One at a time: what a stopped transfer still has at the back end ends before the next one begins. From a hart's thread it begins
 * later, so that it counts from here on.
 */
void sdhci_step(struct sdhci *s)
{
    if (s->stepping) {
        s->again = true;
        return;
    }
    s->stepping = true;
    co_spawn(NULL, s->pci.dev.dom, co_step, s);
}

/* ---- commands ---- */

static void begin(struct sdhci *s)
{
    const struct sd_card *c = s->bus->card;
    bool read = s->mode & TM_READ;
    uint64_t blocks = !(s->mode & TM_MULTI) ? 1 : s->mode & TM_COUNT ? s->block_count : UINT64_MAX;

    sdhci_stop(s);
    if (!(read ? sd_sends(c) : sd_takes(c))) {
        sdhci_raise(s, 0, ERR_DATA_TIMEOUT);
        return;
    }
    s->move = read ? MOVE_READ : MOVE_WRITE;
    s->pio = !(s->mode & TM_DMA) || tunes(s);
    s->left = blocks == UINT64_MAX ? blocks : blocks * bytes_of_block(s);
    s->adma_err = 0;
    if (!s->left || !bytes_of_block(s))
        finish(s);
    else if (s->pio && !read)
        open_port(s);
    else
        sdhci_step(s);
}

static void keep_response(struct sdhci *s, const uint8_t *r, unsigned len)
{
    if (len == 4) {
        s->resp[0] = ld_be32(r);
    } else if (len == 16) {                             /* 2.2.7: without the checksum */
        s->resp[3] = ld_be32(r) >> 8;
        for (unsigned i = 0; i < 3; i++)
            s->resp[i] = ld_be32(r + 11 - 4 * i);
    }
}

/* CMD23 goes ahead by itself: 1.13.2. */
static bool auto_block_count(struct sdhci *s)
{
    uint8_t resp[16];

    if (!(s->cmd & CMD_DATA) || (s->mode & TM_AUTO) != TM_AUTO_CMD23)
        return true;
    if (sd_command(s->bus->card, SD_SET_BLOCK_COUNT, s->sdma, resp) == 4) {
        s->resp[3] = ld_be32(resp);
        return true;
    }
    s->auto_err |= 2;
    sdhci_raise(s, 0, ERR_AUTO);
    return false;
}

void sdhci_issue(struct sdhci *s)
{
    struct sd_card *c = s->bus->card;
    unsigned resp = s->cmd & CMD_RESP, want = !resp ? 0 : resp == CMD_RESP_136 ? 16 : 4, len;
    bool abort = (s->cmd & CMD_ABORT) == CMD_ABORT || s->cmd >> 8 == SD_STOP;
    uint8_t r[16];

    if (s->move && !abort && (s->cmd & CMD_DATA || resp == CMD_RESP_BUSY)) {
        log_guest("sdhci '%s': command %u while the data lines are in use", s->pci.dev.obj.id, s->cmd >> 8);
        return;
    }
    if (!c || !(s->clock & CLOCK_CARD) || !(s->power & POWER_ON)) {
        sdhci_raise(s, 0, ERR_CMD_TIMEOUT);
        return;
    }
    s->auto_err = 0;
    if (!auto_block_count(s))
        return;
    len = sd_command(c, s->cmd >> 8, s->arg, r);
    if (want && len != want) {
        sdhci_raise(s, 0, ERR_CMD_TIMEOUT);
        return;
    }
    if (want)
        keep_response(s, r, len);
    if (!tunes(s))
        sdhci_raise(s, INT_COMMAND, 0);
    if (abort)
        sdhci_stop(s);
    if (s->cmd & CMD_DATA) {
        begin(s);
    } else if (resp == CMD_RESP_BUSY) {
        s->move = MOVE_BUSY;
        sdhci_step(s);
    } else if (c->busy) {
        sdhci_step(s);
    }
}
