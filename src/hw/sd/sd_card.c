/* SPDX-License-Identifier: MIT */
/* `sd-card`: an SD memory card of version 1.01, 2.00 or 3.01, by its size SDSC, SDHC or SDXC. */
#include "hw/sd/sd.h"

#include "base/log.h"

#define ST(s) (1u << SD_##s)
#define ACTIVE (ST(STBY) | ST(TRAN) | ST(DATA) | ST(RCV) | ST(PRG) | ST(DIS))
enum { OCR_BUSY_VOLTAGE = 0x00ffffff, VHS_27_36 = 1, SECTOR = 128 /* write blocks, to erase and to protect at once */ };

/* 5.3.2, TRAN_SPEED of each access mode: 25, 50, 100, 200, 100 Mbit/s a line */
static const uint8_t tran_speed[] = { [SD_SDR12] = 0x32, [SD_SDR25] = 0x5a, [SD_SDR50] = 0x0b, [SD_SDR104] = 0x2b, [SD_DDR50] = 0x0b };
static bool has_uhs(const struct sd_card *c) { return c->spec_version >= 3 && c->high_capacity; }

/* ---- registers ---- */

/* 5.3.2: the capacity is (C_SIZE + 1) << (C_SIZE_MULT + 2) blocks of 2^READ_BL_LEN bytes. The smallest unit that can tell it. */
static bool csd_size_1(struct sd_card *c)
{
    for (unsigned len = 9; len <= 10; len++)
        for (unsigned mult = 0; mult <= 7; mult++) {
            uint64_t unit = UINT64_C(1) << (len + mult + 2);
            if (c->size % unit || c->size / unit > 4096)
                continue;
            sd_bits_set(c->csd, 16, 73, 62, (uint32_t)(c->size / unit) - 1);
            sd_bits_set(c->csd, 16, 49, 47, mult);
            sd_bits_set(c->csd, 16, 83, 80, len);
            sd_bits_set(c->csd, 16, 25, 22, len);
            c->wp_size = (uint64_t)SECTOR << len;
            return true;
        }
    return false;
}

static void csd_fill(struct sd_card *c)
{
    memset(c->csd, 0, sizeof c->csd);
    sd_bits_set(c->csd, 16, 127, 126, c->high_capacity);
    sd_bits_set(c->csd, 16, 119, 112, c->high_capacity ? 0x0e : 0x26);  /* TAAC */
    sd_bits_set(c->csd, 16, 103, 96, tran_speed[SD_SDR12]);
    sd_bits_set(c->csd, 16, 95, 84, c->high_capacity ? 0x5b5 : 0x5f5);  /* classes 0, 2, 4, 5, 7, 8, 10; 6 ends at 2 GiB */
    sd_bits_set(c->csd, 16, 83, 80, 9);
    sd_bits_set(c->csd, 16, 79, 79, !c->high_capacity); /* READ_BL_PARTIAL */
    sd_bits_set(c->csd, 16, 46, 46, 1);                 /* ERASE_BLK_EN */
    sd_bits_set(c->csd, 16, 45, 39, SECTOR - 1);
    sd_bits_set(c->csd, 16, 31, 31, !c->high_capacity); /* WP_GRP_ENABLE; a group is a sector */
    sd_bits_set(c->csd, 16, 28, 26, 2);                 /* R2W_FACTOR */
    sd_bits_set(c->csd, 16, 25, 22, 9);
    sd_bits_set(c->csd, 16, 0, 0, 1);
    if (c->high_capacity)
        sd_bits_set(c->csd, 16, 69, 48, (uint32_t)(c->size / SDHC_UNIT) - 1);
}

static bool size_error(const struct sd_card *c, uint64_t unit, struct err *e)
{
    char have[32], step[32], most[32];

    err_set(e, ERR_VALUE, "'%s' has %s, which no SD card can have", c->opt.drive->id, format_size(c->size, have));
    return err_hint(e, "make it a multiple of %s, %s at most", format_size(unit, step), format_size(SDXC_MAX, most));
}

static bool sd_describe(struct sd_card *c, struct err *e)
{
    c->high_capacity = c->size > SDSC_MAX;
    sd_cid_fill(c, false);
    csd_fill(c);
    if (c->high_capacity && c->spec_version < 2) {
        err_set(e, ERR_VALUE, "spec_version=1 ends at 2 GiB, '%s' is larger", c->opt.drive->id);
        return err_hint(e, "say spec_version=2 or 3");
    }
    if (c->high_capacity)
        return c->size <= SDXC_MAX && c->size % SDHC_UNIT == 0 ? true : size_error(c, SDHC_UNIT, e);
    return c->size && csd_size_1(c) ? true : size_error(c, c->size > 512 * MiB ? MiB : 256 * KiB, e);
}

static void sd_reset_registers(struct sd_card *c)
{
    c->ocr = SD_OCR_VOLTAGES;
    sd_bits_set(c->csd, 16, 12, 12, 0);                 /* TMP_WRITE_PROTECT */
    sd_bits_set(c->csd, 16, 103, 96, tran_speed[SD_SDR12]);
}

/* ---- commands: 4.7.4 ---- */

/* CMD8: a card whose voltage is not asked for says nothing, and so does one of version 1. */
static bool if_cond(struct sd_card *c, uint32_t arg) { return c->spec_version >= 2 && (arg >> 8 & 0xf) == VHS_27_36; }

static bool relative_addr(struct sd_card *c, uint32_t arg)
{
    c->state = SD_STBY;
    c->rca = (uint16_t)(c->rca + 0x4567);
    c->rca += !c->rca;
    return true;
}

/* ACMD41: without a voltage, a question. A card of block addresses waits for a host that knows them (HCS). */
static bool op_cond(struct sd_card *c, uint32_t arg)
{
    if (!(arg & OCR_BUSY_VOLTAGE))
        return true;
    if (!(arg & SD_OCR_VOLTAGES)) {
        c->state = SD_INACTIVE;
        return false;
    }
    if (c->high_capacity && !(arg & SD_OCR_CCS))
        return true;
    c->ocr |= SD_OCR_READY | (c->high_capacity ? SD_OCR_CCS : 0);
    if (arg & SD_OCR_S18 && has_uhs(c) && !c->low_voltage)
        c->ocr |= SD_OCR_S18;
    c->state = SD_READY;
    return true;
}

/* CMD11: 4.2.4.2. The lines are low until the host has switched, too. */
static bool voltage_switch(struct sd_card *c, uint32_t arg)
{
    c->to_low_voltage = c->ocr & SD_OCR_S18;
    return c->to_low_voltage;
}

static bool tuning(struct sd_card *c, uint32_t arg)
{
    if (!c->low_voltage)
        return false;
    sd_data_send(c, sd_tuning_block(c->buf, 4));
    return true;
}

/* CMD6: group 1 has the access modes - those of UHS-I with signals of 1.8 V -, every other group its default. 4.3.10 */
static bool switch_func(struct sd_card *c, uint32_t arg)
{
    uint8_t want = arg & 0xf, now, last = c->low_voltage ? SD_DDR50 : SD_SDR25;

    if (c->spec_version < 2)
        return false;
    now = want == 0xf ? c->access_mode : want <= last ? want : 0xf;
    memset(c->buf, 0, 64);
    st_be16(c->buf, now == 0xf ? 0 : 100);              /* mA */
    for (unsigned group = 6; group > 1; group--)
        st_be16(c->buf + 2 + 2 * (6 - group), 0x8001);
    st_be16(c->buf + 12, (uint16_t)(0x8000 | ((2u << last) - 1)));
    for (unsigned group = 6; group > 1; group--) {
        uint8_t f = arg >> 4 * (group - 1) & 0xf, sel = f == 0 || f == 0xf ? 0 : 0xf;
        sd_bits_set(c->buf + 14, 3, 4 * group - 1, 4 * group - 4, sel);
    }
    sd_bits_set(c->buf + 14, 3, 3, 0, now);
    if (arg >> 31 && now != 0xf) {
        c->access_mode = now;
        sd_bits_set(c->csd, 16, 103, 96, tran_speed[now]);
    }
    sd_data_send(c, 64);
    return true;
}

static bool erase(struct sd_card *c, uint32_t arg)
{
    sd_erase_begin(c, false);                           /* DATA_STAT_AFTER_ERASE is 0 */
    return true;
}

static bool app_cmd(struct sd_card *c, uint32_t arg)
{
    if (arg >> 16 != c->rca)
        return false;
    c->app = true;
    return true;
}

static bool bus_width(struct sd_card *c, uint32_t arg)
{
    if (arg & 1)
        c->status |= SD_ST_ERROR;
    else
        c->width = arg & 2;
    return true;
}

/* 4.10.2: the SD status. */
static bool sd_status(struct sd_card *c, uint32_t arg)
{
    memset(c->buf, 0, 64);
    c->buf[0] = (uint8_t)(c->width << 6);
    c->buf[8] = c->high_capacity ? 4 : 0;               /* speed class 10 */
    c->buf[10] = c->high_capacity ? 0x90 : 0x10;        /* allocation units of 4 MiB, 16 KiB */
    c->buf[12] = 1;                                     /* one unit is erased */
    c->buf[13] = 1 << 2;                                /* in a second */
    sd_data_send(c, 64);
    return true;
}

static bool written_blocks(struct sd_card *c, uint32_t arg)
{
    st_be32(c->buf, c->written);
    sd_data_send(c, 4);
    return true;
}

/* 5.6 */
static bool scr(struct sd_card *c, uint32_t arg)
{
    memset(c->buf, 0, 8);
    c->buf[0] = c->spec_version == 1 ? 0 : 2;
    c->buf[1] = 0x05;                                   /* one and four lines; no security; erased is 0 */
    if (c->spec_version >= 3) {
        c->buf[2] = 0x80;
        c->buf[3] = 0x02;                               /* CMD23 */
    }
    sd_data_send(c, 8);
    return true;
}

static enum sd_wp sd_wp_kind(const struct sd_card *c) { return SD_WP_TEMPORARY; }
static bool count_blocks(struct sd_card *c, uint32_t arg) { return c->spec_version >= 3 && sd_run_block_count(c, arg); }

static const struct sd_cmd sd_cmds[] = {
    { 3, 0, ST(IDENT) | ST(STBY), SD_R6, relative_addr },
    { 6, SD_UNLOCKED, ST(TRAN), SD_R1, switch_func },
    { 8, 0, ST(IDLE), SD_R7, if_cond },
    { 11, 0, ST(READY), SD_R1, voltage_switch },
    { SD_SEND_TUNING, SD_UNLOCKED, ST(TRAN), SD_R1, tuning },
    { 23, SD_UNLOCKED, ST(TRAN), SD_R1, count_blocks },
    { 32, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_erase_start },
    { 33, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_erase_end },
    { 38, SD_UNLOCKED, ST(TRAN), SD_R1B, erase },
    { 55, 0, ST(IDLE) | ACTIVE, SD_R1, app_cmd },
    { 6, SD_APP | SD_UNLOCKED, ST(TRAN), SD_R1, bus_width },
    { 13, SD_APP | SD_UNLOCKED, ST(TRAN), SD_R1, sd_status },
    { 22, SD_APP | SD_UNLOCKED, ST(TRAN), SD_R1, written_blocks },
    { 23, SD_APP | SD_UNLOCKED, ST(TRAN), SD_R1, NULL },        /* how much may be erased ahead: a hint */
    { 41, SD_APP, ST(IDLE), SD_R3, op_cond },
    { 42, SD_APP | SD_UNLOCKED, ST(TRAN), SD_R1, NULL },        /* the resistor of card detection */
    { 51, SD_APP | SD_UNLOCKED, ST(TRAN), SD_R1, scr },
    { 0 }
};

/* ---- life, of e.MMC devices too ---- */

static void medium_changed(void *arg)
{
    struct sd_card *c = arg;

    blk_get_caps(c->blk, &c->caps);             /* its size is soldered */
}

static const char *const on_error_names[] = { "auto", "report", "ignore", "stop", "enospc", NULL };
const struct prop sd_drive_props[] = {
    PROP_LINK(struct blk_front_opts, drive, "drive", &blk_node_class, 0, "Block node (-blockdev, -drive) that holds the data"),
    PROP_TRI(struct blk_front_opts, write_cache, "write-cache", TRI_AUTO, "What was written may be lost with the host; auto: of an e.MMC device that turned its cache on"),
    PROP_BOOL(struct blk_front_opts, share_rw, "share-rw", false, "Other users may write the same node"),
    PROP_ENUM(struct blk_front_opts, rerror, "rerror", on_error_names, BLK_ERR_AUTO, "What a failed read does; auto: report it to the guest"),
    PROP_ENUM(struct blk_front_opts, werror, "werror", on_error_names, BLK_ERR_AUTO,
              "What a failed write does; auto: stop the machine when the disk is full, else report it to the guest"),
    PROP_END
};

bool sd_card_realize(struct dev *dev, struct err *e)
{
    struct sd_card *c = (struct sd_card *)dev;

    c->opt.logical_block_size = SD_BLOCK;
    c->opt.discard_granularity = UINT32_MAX;
    c->opt.bootindex = -1;
    c->blk = blk_front_open(&c->opt, &dev->obj, dev->dom, true, e);
    if (!c->blk)
        return false;
    blk_get_caps(c->blk, &c->caps);
    c->size = blk_size(c->blk);
    if (!SD_CARD_CLASS(c)->describe(c, e)) {
        sd_card_unrealize(dev);
        return false;
    }
    /* The host has no command to flush an SD card: what it was told is written is. An e.MMC device has one, and its cache starts off. */
    blk_set_write_cache(c->blk, !SD_CARD_CLASS(c)->mmc && c->opt.write_cache == TRI_ON);
    sd_power_on(c);
    blk_set_change_cb(c->blk, medium_changed, c);
    return true;
}

void sd_card_unrealize(struct dev *dev)
{
    struct sd_card *c = (struct sd_card *)dev;

    blk_close(c->blk);
    blk_close(c->rpmb.blk);
    c->blk = c->rpmb.blk = NULL;
}

void sd_card_reset(struct dev *dev, enum reset_kind k)
{
    sd_power_on((struct sd_card *)dev);
}

/* ---- saved state ---- */

#define U(f, ...) STATE_UINT(struct sd_card, f, __VA_ARGS__)
#define R(f, ...) STATE_UINT(struct sd_rpmb, f, __VA_ARGS__)
static const struct state_field sd_rpmb_fields[] = {
    STATE_BOOL(struct sd_rpmb, reliable), STATE_BOOL(struct sd_rpmb, key_set), STATE_BYTES(struct sd_rpmb, key), STATE_BYTES(struct sd_rpmb, frames),
    R(counter), R(frame_count, .max = 2), R(total, .max = 0xffff), R(request), R(result), R(done), STATE_END
};
static const struct state_desc sd_rpmb_state = { .name = "rpmb", .version = 1, .fields = sd_rpmb_fields };

const struct state_field sd_card_fields[] = {
    STATE_STRUCT(struct sd_card, rpmb, &sd_rpmb_state),
    U(state, .max = SD_INACTIVE), STATE_BOOL(struct sd_card, app), U(rca), U(status), U(block_len, .max = SD_BLOCK), U(block_count, .max = 0xffff),
    U(written), U(ocr), U(width, .max = 2), U(access_mode, .max = SD_DDR50), STATE_BOOL(struct sd_card, low_voltage),
    STATE_BOOL(struct sd_card, to_low_voltage), STATE_BYTES(struct sd_card, csd), STATE_BYTES(struct sd_card, ext_csd),
    U(erase_from), U(erase_to), U(erase_seq, .max = 2), U(busy, .max = SD_BUSY_FLUSH), STATE_BOOL(struct sd_card, erase_discards),
    STATE_BOOL(struct sd_card, locked), STATE_BYTES(struct sd_card, password), U(password_len, .max = SD_PASSWORD), U(lock_len, .max = SD_BLOCK),
    STATE_BYTES(struct sd_card, wp), U(take, .max = SD_TAKE_LOCK), U(data, .max = SD_DATA_WRITE),
    U(pos), U(left), STATE_BYTES(struct sd_card, buf), U(buf_len, .max = 512), U(buf_pos, .max = 512), STATE_END
};

/* The capacity is the image's; what was to be erased lies on it. */
bool sd_card_loaded(void *obj, struct err *e)
{
    struct sd_card *c = obj;
    uint8_t wp = c->csd[14];

    if (!SD_CARD_CLASS(c)->mmc) {
        struct err ignored = ERR_INIT;
        (void)!SD_CARD_CLASS(c)->describe(c, &ignored);
        c->csd[14] = wp;
        sd_bits_set(c->csd, 16, 103, 96, tran_speed[c->access_mode]);
    }
    c->block_len = c->block_len && !c->high_capacity ? c->block_len : SD_BLOCK;
    c->lock_len = c->lock_len ? c->lock_len : SD_BLOCK;
    c->buf_pos = MIN(c->buf_pos, c->buf_len);
    if (c->erase_to > c->size || c->erase_from > c->erase_to)
        c->erase_from = c->erase_to = c->erase_seq = 0;
    return true;
}
static const struct state_desc sd_card_state = { .name = "sd-card", .version = 1, .fields = sd_card_fields, .post_load = sd_card_loaded };

static const struct prop sd_props[] = {
    PROP_INCLUDE(struct sd_card, opt, sd_drive_props),
    PROP_U8(struct sd_card, spec_version, "spec_version", 3, 1, 3, "Version of the SD specification: 1 is 1.01, 2 is 2.00, 3 is 3.01"),
    PROP_END
};

static const struct sd_card_class sd_class = {
    .dev = { .obj = { .name = "sd-card", .desc = "SD memory card", .base = &dev_obj_class, .size = sizeof(struct sd_card), .props = sd_props },
             .cat = "Storage", .plugs_into = &sd_bus_class, .realize = sd_card_realize, .unrealize = sd_card_unrealize, .reset = sd_card_reset,
             .co_quiesce = co_sd_quiesce, .state = &sd_card_state, .hotplug = true },
    .cmds = sd_cmds, .describe = sd_describe, .power_on = sd_reset_registers, .wp_kind = sd_wp_kind,
};
OBJ_CLASS(&sd_class.dev.obj);
