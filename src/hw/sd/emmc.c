/* SPDX-License-Identifier: MIT */
/* `emmc`: an e.MMC 5.1 device (JESD84-B51). The image holds boot 1, boot 2, the partition of frames (RPMB), then the user area. */
#include "hw/sd/sd.h"

#include "base/log.h"

#define ST(s) (1u << SD_##s)
enum { PART_BOOT1 = 1, PART_BOOT2, PART_RPMB };
enum { CMD6_SET = 1, CMD6_CLEAR = 2, HS200 = 2, HS400 = 3, LINES_8 = 2, LINES_4_DDR = 5, LINES_8_DDR = 6, CACHE_KBIT = 8192, ERASE_GROUP = 512 * KiB };
enum { USER_PERM = 0x04, USER_POWER = 0x01, USER_NO_PERM = 0x10, USER_NO_POWER = 0x08 };    /* 7.4.79 */
enum { BOOT_WP_PERM = 0x04, BOOT_WP_POWER = 0x01, SLEEP_BIT = 0x8000 };

static uint64_t user_size(const struct sd_card *c) { return blk_size(c->blk) - 2 * c->boot_size - c->rpmb_size; }

/* Erase groups, of 512 KiB, in a group of write protection: the fewest with which all groups can be told (32 at most). */
static uint32_t wp_units(const struct sd_card *c)
{
    uint32_t n = 1;

    while (user_size(c) > (uint64_t)n * ERASE_GROUP * SD_WP_GROUPS)
        n *= 2;
    return n;
}

/* ---- registers ---- */

/* 7.3: of a device with sector addresses the size is in EXT_CSD. */
static void csd_fill(struct sd_card *c)
{
    memset(c->csd, 0, sizeof c->csd);
    sd_bits_set(c->csd, 16, 127, 126, 3);               /* the version is in EXT_CSD */
    sd_bits_set(c->csd, 16, 125, 122, 4);               /* version 4 and later */
    sd_bits_set(c->csd, 16, 119, 112, 0x27);
    sd_bits_set(c->csd, 16, 111, 104, 1);
    sd_bits_set(c->csd, 16, 103, 96, 0x32);             /* 26 MHz */
    sd_bits_set(c->csd, 16, 95, 84, 0x0f5);             /* classes 0, 2, 4 to 7 */
    sd_bits_set(c->csd, 16, 83, 80, 9);
    sd_bits_set(c->csd, 16, 73, 62, 0xfff);
    sd_bits_set(c->csd, 16, 49, 47, 7);
    sd_bits_set(c->csd, 16, 46, 42, 0x1f);
    sd_bits_set(c->csd, 16, 41, 37, 0x1f);
    sd_bits_set(c->csd, 16, 36, 32, wp_units(c) - 1);
    sd_bits_set(c->csd, 16, 31, 31, 1);                 /* WP_GRP_ENABLE */
    sd_bits_set(c->csd, 16, 28, 26, 2);
    sd_bits_set(c->csd, 16, 25, 22, 9);
    sd_bits_set(c->csd, 16, 0, 0, 1);
}

static void ext_csd_fill(struct sd_card *c)
{
    uint8_t *x = c->ext_csd;

    memset(x, 0, sizeof c->ext_csd);
    x[EXT_REV] = 8;                                     /* 5.1 */
    x[EXT_STRUCTURE] = 2;
    x[EXT_DEVICE_TYPE] = 0x57;                          /* high speed at 26 and 52 MHz, both edges; HS200 and HS400 at 1.8 V */
    x[EXT_PART_SWITCH_TIME] = 3;
    st_le32(x + EXT_SEC_COUNT, (uint32_t)(user_size(c) / SD_BLOCK));
    x[EXT_SLEEP_TIME] = 10;
    x[EXT_WP_GRP] = (uint8_t)wp_units(c);
    x[EXT_REL_WR_SEC] = x[EXT_ERASE_TIMEOUT] = x[EXT_ERASE_GRP] = 1;    /* groups of 512 KiB */
    x[EXT_ACC_SIZE] = 6;
    x[EXT_BOOT_MULT] = (uint8_t)(c->boot_size / MMC_BOOT_UNIT);
    x[EXT_RPMB_MULT] = (uint8_t)(c->rpmb_size / MMC_BOOT_UNIT);
    x[EXT_BOOT_INFO] = 7;
    x[EXT_SEC_FEATURE] = 0x50;                          /* trim, sanitize */
    x[EXT_TRIM_MULT] = 1;
    x[EXT_INI_TIMEOUT] = 10;
    x[EXT_CMD6_TIME] = x[EXT_POWER_OFF_TIME] = 10;
    st_le32(x + EXT_CACHE_SIZE, c->opt.write_cache == TRI_OFF ? 0 : CACHE_KBIT);
    memcpy(x + EXT_FW_VERSION, "1.0", 3);
    x[EXT_PARTITION_CONFIG] = c->boot_config;
}

/* Where the partition lies that PARTITION_CONFIG selects: 7.4.69. */
static void select_partition(struct sd_card *c)
{
    uint8_t part = c->ext_csd[EXT_PARTITION_CONFIG] & 7;

    c->base = part == PART_BOOT1 ? 0 : part == PART_BOOT2 ? c->boot_size : 2 * c->boot_size + (part == PART_RPMB ? 0 : c->rpmb_size);
    c->size = part == PART_RPMB ? c->rpmb_size : part ? c->boot_size : user_size(c);
    c->rpmb.here = part == PART_RPMB;
}

static bool emmc_describe(struct sd_card *c, struct err *e)
{
    if (c->boot_size % MMC_BOOT_UNIT || c->rpmb_size % MMC_BOOT_UNIT) {
        err_set(e, ERR_VALUE, "%s-partition-size is no multiple of 128 KiB", c->boot_size % MMC_BOOT_UNIT ? "boot" : "rpmb");
        return err_hint(e, "an e.MMC device counts these partitions in 128 KiB");
    }
    if (blk_size(c->blk) < 2 * c->boot_size + c->rpmb_size + SD_BLOCK)
        return err_set(e, ERR_VALUE, "'%s' holds no more than the two boot partitions%s", c->opt.drive->id, c->rpmb_size ? " and the RPMB" : "");
    if (user_size(c) % SD_BLOCK || user_size(c) / SD_BLOCK > UINT32_MAX)
        return err_set(e, ERR_VALUE, "the size of '%s' is no number of blocks that an e.MMC device can have", c->opt.drive->id);
    c->high_capacity = true;
    sd_cid_fill(c, true);
    ext_csd_fill(c);
    csd_fill(c);
    if (!sd_rpmb_open(c, e))
        return false;
    c->wp_size = (uint64_t)wp_units(c) * ERASE_GROUP;
    select_partition(c);
    return true;
}

/* Modes fall back to their defaults; the boot configuration and permanent protection stay (6.3). */
static void emmc_power_on(struct sd_card *c)
{
    uint8_t *x = c->ext_csd;

    c->ocr = SD_OCR_VOLTAGES | 0x80;
    x[EXT_BUS_WIDTH] = x[EXT_HS_TIMING] = x[EXT_POWER_CLASS] = x[EXT_CMD_SET] = x[EXT_CACHE_CTRL] = x[EXT_POWER_OFF] = x[EXT_ERASE_GROUP_DEF] = 0;
    x[EXT_PARTITION_CONFIG] &= 0x78;
    x[EXT_BOOT_WP] &= (uint8_t)~BOOT_WP_POWER;
    x[EXT_USER_WP] &= (uint8_t)~(USER_PERM | USER_POWER | USER_NO_POWER);
    sd_bits_set(c->csd, 16, 12, 12, 0);
    blk_set_write_cache(c->blk, false);
    select_partition(c);
}

/* ---- CMD6: 6.6.1, and what the fields do ---- */

static bool partition_config(struct sd_card *c, uint8_t v)
{
    uint8_t part = v & 7;

    if (part > PART_RPMB || (part == PART_RPMB ? !c->rpmb_size : part && !c->boot_size) || v & 0x80)
        return false;
    c->ext_csd[EXT_PARTITION_CONFIG] = v;
    select_partition(c);
    return true;
}

static bool sanitize(struct sd_card *c, uint8_t v)
{
    c->busy = SD_BUSY_FLUSH;                            /* what was trimmed is gone from the image already */
    return v != 0;
}

static bool cache_ctrl(struct sd_card *c, uint8_t v)
{
    if (v > !!ld_le32(c->ext_csd + EXT_CACHE_SIZE))
        return false;
    c->busy = c->ext_csd[EXT_CACHE_CTRL] && !v ? SD_BUSY_FLUSH : SD_BUSY_NONE;
    c->ext_csd[EXT_CACHE_CTRL] = v;
    blk_set_write_cache(c->blk, v);
    return true;
}

static bool flush_cache(struct sd_card *c, uint8_t v)
{
    if (v & 1)
        c->busy = SD_BUSY_FLUSH;
    return true;
}

static bool hs_timing(struct sd_card *c, uint8_t v)
{
    if ((v & 0xf) > HS400 || ((v & 0xf) == HS400 && c->ext_csd[EXT_BUS_WIDTH] != LINES_8_DDR))
        return false;                                   /* 6.6.2.3 */
    c->ext_csd[EXT_HS_TIMING] = v;
    return true;
}

static bool bus_width(struct sd_card *c, uint8_t v)
{
    if (v > LINES_8 && v != LINES_4_DDR && v != LINES_8_DDR)
        return false;
    c->ext_csd[EXT_BUS_WIDTH] = v;
    return true;
}

static bool user_wp(struct sd_card *c, uint8_t v)
{
    uint8_t off = c->ext_csd[EXT_USER_WP] & (USER_NO_PERM | USER_NO_POWER);

    if ((v & off) != off || (off & USER_NO_PERM && v & USER_PERM) || (off & USER_NO_POWER && v & USER_POWER))
        return false;                                   /* what is disabled stays so */
    c->ext_csd[EXT_USER_WP] = v;
    return true;
}

/* 7.4.79: for good, until the power goes, or until CMD29. */
static enum sd_wp emmc_wp_kind(const struct sd_card *c)
{
    uint8_t v = c->ext_csd[EXT_USER_WP];

    return v & USER_PERM ? SD_WP_PERMANENT : v & USER_POWER ? SD_WP_POWER_ON : SD_WP_TEMPORARY;
}

static bool boot_wp(struct sd_card *c, uint8_t v)
{
    if (c->ext_csd[EXT_BOOT_WP] & BOOT_WP_PERM)
        return false;
    c->ext_csd[EXT_BOOT_WP] = v;
    return true;
}

static const struct { uint8_t index, mask; bool (*set)(struct sd_card *, uint8_t); } switches[] = {
    { EXT_CACHE_FLUSH, 1, flush_cache }, { EXT_CACHE_CTRL, 1, cache_ctrl }, { EXT_POWER_OFF, 7, NULL }, { EXT_SANITIZE, 1, sanitize },
    { EXT_USER_WP, 0x1d, user_wp }, { EXT_BOOT_WP, 0xff, boot_wp }, { EXT_ERASE_GROUP_DEF, 1, NULL }, { EXT_BOOT_BUS, 0x1f, NULL },
    { EXT_PARTITION_CONFIG, 0xff, partition_config }, { EXT_BUS_WIDTH, 0xff, bus_width }, { EXT_HS_TIMING, 0xff, hs_timing }, { EXT_POWER_CLASS, 0xf, NULL },
};

static bool switch_field(struct sd_card *c, uint8_t index, uint8_t v)
{
    for (unsigned i = 0; i < ARRAY_SIZE(switches); i++) {
        if (switches[i].index != index)
            continue;
        if (v & ~switches[i].mask)
            return false;
        if (switches[i].set)
            return switches[i].set(c, v);
        c->ext_csd[index] = v;
        return true;
    }
    return false;
}

static bool do_switch(struct sd_card *c, uint32_t arg)
{
    uint8_t access = arg >> 24 & 3, index = (uint8_t)(arg >> 16), value = (uint8_t)(arg >> 8), old = c->ext_csd[index];

    if (!access)                                        /* the command set: there is one */
        return true;
    value = access == CMD6_SET ? old | value : access == CMD6_CLEAR ? (uint8_t)(old & ~value) : value;
    if (!switch_field(c, index, value))
        c->late |= SD_ST_SWITCH_ERROR;             /* the response is on its way already */
    else if (c->busy)
        c->state = SD_PRG;
    return true;
}

/* ---- commands: 6.10.4 ---- */

/* CMD1: a host that names no voltage asks; one that cannot address sectors waits for ever (6.4.2). */
static bool op_cond(struct sd_card *c, uint32_t arg)
{
    if (!(arg & 0x00ffffff))
        return true;
    c->ocr |= SD_OCR_READY | SD_OCR_CCS;
    c->state = SD_READY;
    return true;
}

static bool set_relative_addr(struct sd_card *c, uint32_t arg)
{
    c->rca = (uint16_t)(arg >> 16);
    c->state = SD_STBY;
    return true;
}

static bool sleep_awake(struct sd_card *c, uint32_t arg)
{
    bool sleep = arg & SLEEP_BIT;

    if (arg >> 16 != c->rca || sleep != (c->state == SD_STBY))
        return false;
    c->state = sleep ? MMC_SLP : SD_STBY;
    return true;
}

static bool send_ext_csd(struct sd_card *c, uint32_t arg)
{
    memcpy(c->buf, c->ext_csd, sizeof c->buf);
    sd_data_send(c, sizeof c->buf);
    return true;
}

/* CMD21: 6.6.8. Nothing but HS200 needs it. */
static bool tuning(struct sd_card *c, uint32_t arg)
{
    if ((c->ext_csd[EXT_HS_TIMING] & 0xf) != HS200)
        return false;
    sd_data_send(c, sd_tuning_block(c->buf, c->ext_csd[EXT_BUS_WIDTH] == LINES_8 ? 8 : 4));
    return true;
}

/* Boot partitions are protected until power off, or for good: 6.6.36. */
static bool writable(struct sd_card *c)
{
    uint8_t part = c->ext_csd[EXT_PARTITION_CONFIG] & 7;

    if ((part == 1 || part == 2) && c->ext_csd[EXT_BOOT_WP] & (BOOT_WP_PERM | BOOT_WP_POWER)) {
        c->status |= SD_ST_WP_VIOLATION;
        return false;
    }
    return true;
}

static bool write_single(struct sd_card *c, uint32_t arg) { return !writable(c) || sd_run_write_single(c, arg); }
static bool write_multiple(struct sd_card *c, uint32_t arg) { return !writable(c) || sd_run_write_multiple(c, arg); }

/* CMD38: erase and trim make zeroes, discard need not. Erase takes whole groups. */
static bool erase(struct sd_card *c, uint32_t arg)
{
    if (c->rpmb.here)
        return false;
    if (arg != MMC_ERASE && arg != MMC_TRIM && arg != MMC_DISCARD) {
        c->erase_seq = 0;
        c->status |= SD_ST_ERASE_PARAM;
        return true;
    }
    if (arg == MMC_ERASE && c->erase_seq == 2) {
        c->erase_from = align_down(c->erase_from, ERASE_GROUP);
        c->erase_to = MIN(align_up(c->erase_to, ERASE_GROUP), c->size);
    }
    if (writable(c))
        sd_erase_begin(c, arg == MMC_DISCARD);
    return true;
}

static const struct sd_cmd emmc_cmds[] = {
    { 1, 0, ST(IDLE), SD_R3, op_cond },
    { 3, 0, ST(IDENT), SD_R1, set_relative_addr },
    { 5, 0, ST(STBY) | 1u << MMC_SLP, SD_R1B, sleep_awake },
    { 6, 0, ST(TRAN), SD_R1B, do_switch },
    { 8, 0, ST(TRAN), SD_R1, send_ext_csd },
    { MMC_SEND_TUNING, SD_UNLOCKED, ST(TRAN), SD_R1, tuning },
    { 24, SD_UNLOCKED, ST(TRAN), SD_R1, write_single },
    { 25, SD_UNLOCKED, ST(TRAN), SD_R1, write_multiple },
    { 31, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_protection_kinds },
    { 35, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_erase_start },
    { 36, SD_UNLOCKED, ST(TRAN), SD_R1, sd_run_erase_end },
    { 38, SD_UNLOCKED, ST(TRAN), SD_R1B, erase },
    { 0 }
};

/* ---- the class ---- */

static bool emmc_loaded(void *obj, struct err *e)
{
    struct sd_card *c = obj;
    uint8_t loaded[sizeof c->ext_csd], wp = c->csd[14];

    memcpy(loaded, c->ext_csd, sizeof loaded);
    ext_csd_fill(c);
    csd_fill(c);
    c->csd[14] = wp;
    for (unsigned i = 0; i < ARRAY_SIZE(switches); i++)
        c->ext_csd[switches[i].index] = loaded[switches[i].index] & switches[i].mask;
    select_partition(c);
    blk_set_write_cache(c->blk, c->ext_csd[EXT_CACHE_CTRL]);
    return sd_card_loaded(obj, e);
}
static const struct state_desc emmc_state = { .name = "emmc", .version = 1, .fields = sd_card_fields, .post_load = emmc_loaded };

static const struct prop emmc_props[] = {
    PROP_INCLUDE(struct sd_card, opt, sd_drive_props),
    PROP_SIZE(struct sd_card, boot_size, "boot-partition-size", 0, 0, 255 * MMC_BOOT_UNIT, "Each of the two boot partitions, first in the image; 0: none"),
    PROP_SIZE(struct sd_card, rpmb_size, "rpmb-partition-size", 0, 0, 128 * MMC_BOOT_UNIT,
              "The partition of authenticated frames (RPMB), behind the boot partitions; 0: none"),
    PROP_LINK(struct sd_card, rpmb_node, "rpmb-state", &blk_node_class, 0,
              "Block node of a block or more that keeps the key and the write counter of the RPMB; left out: they last as long as the device"),
    PROP_U8(struct sd_card, boot_config, "boot-config", 0, 0, 0x78, "PARTITION_CONFIG as it was programmed: which partition to boot from"),
    PROP_END
};

static bool emmc_check(struct obj *o, struct err *e)
{
    struct sd_card *c = (struct sd_card *)o;

    if (c->rpmb_node && !c->rpmb_size)
        return err_set(e, ERR_VALUE, "rpmb-state= keeps what rpmb-partition-size=0 does not have");
    return !(c->boot_config & 7) || err_set(e, ERR_VALUE, "boot-config=%u selects a partition to access in its lower three bits, which are 0 after power on",
                                            c->boot_config);
}

static const struct sd_card_class emmc_class = {
    .dev = { .obj = { .name = "emmc", .desc = "e.MMC device", .base = &dev_obj_class, .size = sizeof(struct sd_card), .props = emmc_props,
                      .check = emmc_check },
             .cat = "Storage", .plugs_into = &sd_bus_class, .realize = sd_card_realize, .unrealize = sd_card_unrealize, .reset = sd_card_reset,
             .co_quiesce = co_sd_quiesce, .state = &emmc_state, .hotplug = true },
    .mmc = true, .cmds = emmc_cmds, .describe = emmc_describe, .power_on = emmc_power_on, .wp_kind = emmc_wp_kind,
};
OBJ_CLASS(&emmc_class.dev.obj);
