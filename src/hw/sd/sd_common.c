/* SPDX-License-Identifier: MIT */
/* Commands that SD cards and e.MMC devices have in common, and registers that they share (SD 4.7.4, 5; e.MMC 6.10, 7). */
#include "hw/sd/sd.h"

enum { CSD_TMP_WP = 12, CSD_PERM_WP = 13, CSD_COPY = 14 };

void sd_bits_set(uint8_t *reg, unsigned size, unsigned hi, unsigned lo, uint32_t v)
{
    for (unsigned bit = lo; bit <= hi; bit++) {
        uint8_t *byte = reg + size - 1 - bit / 8, mask = (uint8_t)(1u << bit % 8);
        *byte = (uint8_t)(v >> (bit - lo) & 1 ? *byte | mask : *byte & ~mask);
    }
}

/* 5.2; e.MMC 7.2. The last byte is a checksum that no controller shows. */
void sd_cid_fill(struct sd_card *c, bool mmc)
{
    memset(c->cid, 0, sizeof c->cid);
    c->cid[0] = 0xaa;
    memcpy(c->cid + (mmc ? 3 : 1), mmc ? "QEMU!!" : "XYQEMU!", mmc ? 6 : 7);
    c->cid[mmc ? 9 : 8] = 0x01;
    st_be32(c->cid + (mmc ? 10 : 9), 0xdeadbeef);
    if (mmc)
        c->cid[1] = 1;                          /* a part that is soldered on: 7.2.2 */
    else
        st_be16(c->cid + 13, 0x0162);           /* February 2022 */
    c->cid[14] |= mmc ? 0x29 : 0;
    c->cid[15] = 1;
}

static bool csd_bit(const struct sd_card *c, unsigned bit) { return c->csd[15 - bit / 8] >> bit % 8 & 1; }

bool sd_write_protected(const struct sd_card *c)
{
    return c->caps.read_only || csd_bit(c, CSD_TMP_WP) || csd_bit(c, CSD_PERM_WP);
}

/* ---- states ---- */

void sd_power_on(struct sd_card *c)
{
    sd_data_end(c);
    c->state = SD_IDLE;
    c->app = false;
    c->rca = 0;
    c->status = c->late = 0;
    c->block_len = SD_BLOCK;
    c->block_count = 0;
    c->erase_seq = c->busy = 0;
    c->width = c->access_mode = 0;
    c->ocr &= ~(uint32_t)(SD_OCR_READY | SD_OCR_CCS);
    SD_CARD_CLASS(c)->power_on(c);
}

bool sd_run_go_idle(struct sd_card *c, uint32_t arg)
{
    sd_power_on(c);
    return true;
}

bool sd_run_all_send_cid(struct sd_card *c, uint32_t arg)
{
    c->state = SD_IDENT;
    return true;
}

/* CMD7: the one that is named is selected, every other is not. */
bool sd_run_select(struct sd_card *c, uint32_t arg)
{
    bool me = c->rca && arg >> 16 == c->rca;

    if (me && c->state == SD_STBY)
        c->state = SD_TRAN;
    else if (me && c->state == SD_DIS)
        c->state = SD_PRG;
    else if (!me && c->state == SD_PRG)
        c->state = SD_DIS;
    else if (!me && (c->state == SD_TRAN || c->state == SD_DATA)) {
        sd_data_end(c);
        c->state = SD_STBY;
    }
    return me;
}

bool sd_run_addressed(struct sd_card *c, uint32_t arg) { return arg >> 16 == c->rca; }

bool sd_run_inactive(struct sd_card *c, uint32_t arg)
{
    if (arg >> 16 == c->rca)
        c->state = SD_INACTIVE;
    return false;
}

bool sd_run_stop(struct sd_card *c, uint32_t arg)
{
    sd_data_end(c);
    return true;
}

/* ---- blocks ---- */

bool sd_run_block_len(struct sd_card *c, uint32_t arg)
{
    if (!arg || arg > SD_BLOCK)
        c->status |= SD_ST_BLOCK_LEN_ERROR;
    else if (!c->high_capacity)
        c->block_len = arg;
    return true;
}

bool sd_run_block_count(struct sd_card *c, uint32_t arg)
{
    c->block_count = arg & 0xffff;              /* e.MMC: above them, reliable write and tags, which every write is good enough for */
    return true;
}

static bool begin(struct sd_card *c, bool write, uint32_t arg, uint64_t blocks)
{
    uint64_t pos;

    if (write && sd_write_protected(c))
        c->status |= SD_ST_WP_VIOLATION;
    else if (write && c->block_len != SD_BLOCK)
        c->status |= SD_ST_BLOCK_LEN_ERROR;     /* WRITE_BL_PARTIAL is 0 */
    else if (sd_address(c, arg, &pos))
        sd_data_blocks(c, write, pos, blocks);
    if (write)
        c->written = 0;
    return true;
}

bool sd_run_read_single(struct sd_card *c, uint32_t arg) { return begin(c, false, arg, 1); }
bool sd_run_read_multiple(struct sd_card *c, uint32_t arg) { return begin(c, false, arg, c->block_count); }
bool sd_run_write_single(struct sd_card *c, uint32_t arg) { return begin(c, true, arg, 1); }
bool sd_run_write_multiple(struct sd_card *c, uint32_t arg) { return begin(c, true, arg, c->block_count); }

/* ---- CSD: bits that a host may write ---- */

bool sd_run_program_csd(struct sd_card *c, uint32_t arg)
{
    c->data = SD_DATA_TAKE;
    c->buf_len = 16;
    c->buf_pos = 0;
    c->state = SD_RCV;
    return true;
}

/* 5.3.4: the temporary protection at will; the permanent one and the copy flag once; the rest must be as it is. */
void sd_csd_taken(struct sd_card *c)
{
    uint8_t changed = (c->buf[14] ^ c->csd[14]);
    bool once = (c->csd[14] & ~c->buf[14]) & 0x60;

    if (memcmp(c->buf, c->csd, 14) || changed & 0x8f || once)
        c->status |= SD_ST_CSD_OVERWRITE;
    else
        c->csd[14] = c->buf[14];
}

/* ---- erasing: 4.3.5 ---- */

static bool erase_point(struct sd_card *c, uint32_t arg, uint64_t *pos)
{
    *pos = c->high_capacity ? (uint64_t)arg * SD_BLOCK : align_down(arg, SD_BLOCK);
    if (*pos < c->size)
        return true;
    c->erase_seq = 0;
    c->status |= SD_ST_OUT_OF_RANGE;
    return false;
}

bool sd_run_erase_start(struct sd_card *c, uint32_t arg)
{
    if (erase_point(c, arg, &c->erase_from))
        c->erase_seq = 1;
    return true;
}

bool sd_run_erase_end(struct sd_card *c, uint32_t arg)
{
    if (c->erase_seq != 1) {
        c->erase_seq = 0;
        c->status |= SD_ST_ERASE_SEQ_ERROR;
    } else if (erase_point(c, arg, &c->erase_to)) {
        c->erase_to += SD_BLOCK;
        c->erase_seq = 2;
    }
    return true;
}

/* The range that was selected; false with the status told if there is none. */
bool sd_erase_begin(struct sd_card *c, bool discards)
{
    bool ready = c->erase_seq == 2;

    c->erase_seq = 0;
    if (!ready)
        c->status |= SD_ST_ERASE_SEQ_ERROR;
    else if (c->erase_from >= c->erase_to)
        c->status |= SD_ST_ERASE_PARAM;
    else if (sd_write_protected(c))
        c->status |= SD_ST_WP_VIOLATION;
    else {
        c->erase_discards = discards;
        c->busy = SD_BUSY_ERASE;
        c->state = SD_PRG;
        return true;
    }
    return false;
}
