/* SPDX-License-Identifier: MIT */
/* Commands that SD cards and e.MMC devices have in common, and registers that they share (SD 4.7.4, 5; e.MMC 6.10, 7). */
#include "base/str.h"
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
    c->block_len = c->lock_len = SD_BLOCK;
    c->block_count = 0;
    c->erase_seq = c->busy = 0;
    c->width = c->access_mode = 0;
    c->low_voltage = c->to_low_voltage = false;
    c->ocr &= ~(uint32_t)(SD_OCR_READY | SD_OCR_CCS | SD_OCR_S18);
    sd_protect_power_on(c);
    SD_CARD_CLASS(c)->power_on(c);
}

/* Everything but the signals' voltage, which only goes with the power. */
static bool go_idle(struct sd_card *c, uint32_t arg)
{
    bool low = c->low_voltage;

    sd_power_on(c);
    c->low_voltage = low;
    return true;
}

void sd_low_voltage(struct sd_card *c)
{
    c->low_voltage |= c->to_low_voltage;
    c->to_low_voltage = false;
}

unsigned sd_tuning_block(uint8_t *buf, unsigned lines)
{
    /* A digit is what four lines carry at once; on eight lines both halves carry it. */
    static const char digits[] = "ff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bdef"
                                 "fff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bde";
    unsigned n = lines == 8 ? 128 : 64;

    memset(buf, 0, n);
    for (unsigned i = 0; digits[i]; i++) {
        uint8_t v = (uint8_t)hex_digit(digits[i]);
        if (lines == 8)
            buf[i] = (uint8_t)(v * 0x11);
        else
            buf[i / 2] |= (uint8_t)(i % 2 ? v : v << 4);
    }
    return n;
}

static bool all_send_cid(struct sd_card *c, uint32_t arg)
{
    c->state = SD_IDENT;
    return true;
}

/* CMD7: the one that is named is selected, every other is not. */
static bool select_card(struct sd_card *c, uint32_t arg)
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

static bool addressed(struct sd_card *c, uint32_t arg) { return arg >> 16 == c->rca; }

static bool inactive(struct sd_card *c, uint32_t arg)
{
    if (arg >> 16 == c->rca)
        c->state = SD_INACTIVE;
    return false;
}

static bool stop(struct sd_card *c, uint32_t arg)
{
    sd_data_end(c);
    return true;
}

/* ---- blocks ---- */

static bool block_len(struct sd_card *c, uint32_t arg)
{
    if (!arg || arg > SD_BLOCK) {
        c->status |= SD_ST_BLOCK_LEN_ERROR;
        return true;
    }
    c->lock_len = arg;
    if (!c->high_capacity)
        c->block_len = arg;
    return true;
}

bool sd_run_block_count(struct sd_card *c, uint32_t arg)
{
    c->block_count = arg & 0xffff;              /* e.MMC: above them, reliable write and tags, which every write is good enough for */
    c->rpmb.reliable = arg >> 31;
    return true;
}

static bool begin(struct sd_card *c, bool write, uint32_t arg, uint64_t blocks)
{
    uint64_t pos;

    if (c->rpmb.here) {
        c->rpmb.total = (uint32_t)blocks;
        c->rpmb.frame_count = 0;
        sd_data_blocks(c, write, 0, blocks);
    } else if (write && sd_write_protected(c))
        c->status |= SD_ST_WP_VIOLATION;
    else if (write && c->block_len != SD_BLOCK)
        c->status |= SD_ST_BLOCK_LEN_ERROR;     /* WRITE_BL_PARTIAL is 0 */
    else if (!sd_address(c, arg, &pos))
        ;                                       /* told by it */
    else if (write && sd_group_protected(c, pos, SD_BLOCK))
        c->status |= SD_ST_WP_VIOLATION;
    else
        sd_data_blocks(c, write, pos, blocks);
    if (write)
        c->written = 0;
    return true;
}

static bool read_single(struct sd_card *c, uint32_t arg) { return !c->rpmb.here && begin(c, false, arg, 1); }
static bool read_multiple(struct sd_card *c, uint32_t arg) { return begin(c, false, arg, c->block_count); }
bool sd_run_write_single(struct sd_card *c, uint32_t arg) { return !c->rpmb.here && begin(c, true, arg, 1); }
bool sd_run_write_multiple(struct sd_card *c, uint32_t arg) { return begin(c, true, arg, c->block_count); }

/* ---- CSD: bits that a host may write ---- */

static bool program_csd(struct sd_card *c, uint32_t arg)
{
    sd_data_take(c, SD_TAKE_CSD, 16);
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

/* ---- SD 4.7.4; e.MMC 6.10.4 ---- */

#define ST(s) (1u << SD_##s)
#define ACTIVE (ST(STBY) | ST(TRAN) | ST(DATA) | ST(RCV) | ST(PRG) | ST(DIS) | ST(BTST))

const struct sd_cmd sd_common_cmds[] = {
    { 0, 0, 0x7fff, SD_NONE, go_idle },
    { 2, 0, ST(READY), SD_R2_CID, all_send_cid },
    { 7, 0, ST(STBY) | ST(TRAN) | ST(DATA) | ST(PRG) | ST(DIS), SD_R1B, select_card },
    { 9, 0, ST(STBY), SD_R2_CSD, addressed },
    { 10, 0, ST(STBY), SD_R2_CID, addressed },
    { 12, 0, ST(DATA) | ST(RCV), SD_R1B, stop },
    { 13, 0, ACTIVE, SD_R1, addressed },
    { 15, 0, ACTIVE, SD_NONE, inactive },
    { 16, 0, ST(TRAN), SD_R1, block_len },
    { 17, SD_UNLOCKED, ST(TRAN), SD_R1, read_single },
    { 18, SD_UNLOCKED, ST(TRAN), SD_R1, read_multiple },
    { 23, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_block_count },
    { 24, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_write_single },
    { 25, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_write_multiple },
    { 27, SD_UNLOCKED, ST(TRAN), SD_R1, program_csd },
    { 28, SD_UNLOCKED, ST(TRAN), SD_R1B, sd_run_protect },
    { 29, SD_UNLOCKED, ST(TRAN), SD_R1B, sd_run_unprotect },
    { 30, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_protection },
    { 42, 0, ST(TRAN), SD_R1, sd_run_lock },
    { 0 }
};
