/* SPDX-License-Identifier: MIT */
/* Passwords that lock a card (SD 4.3.7; e.MMC 6.6.20) and groups of write protection (SD 4.3.6; e.MMC 6.6.36). Both last as long as the device. */
#include "hw/sd/sd.h"

#include "base/bits.h"

enum { SET_PASSWORD = 1, CLEAR_PASSWORD = 2, LOCK = 4, ERASE = 8, LOCK_HEADER = 2 };

/* ---- the lock ---- */

bool sd_run_lock(struct sd_card *c, uint32_t arg)
{
    sd_data_take(c, SD_TAKE_LOCK, c->lock_len);
    return true;
}

static bool matches(const struct sd_card *c, const uint8_t *p, uint32_t n)
{
    return c->password_len && n == c->password_len && !memcmp(p, c->password, n);
}

/* The old password stands before the new one, if there is an old one. */
static bool set_password(struct sd_card *c, const uint8_t *p, uint32_t n)
{
    uint32_t old = c->password_len;

    if (n <= old || n - old > SD_PASSWORD || (old && !matches(c, p, old)))
        return false;
    c->password_len = (uint8_t)(n - old);
    memcpy(c->password, p + old, n - old);
    return true;
}

/* Whoever forgot the password gets the card back, empty; what is protected for good stays locked. */
static bool force_erase(struct sd_card *c)
{
    if (!c->locked || sd_write_protected(c) || c->rpmb.here)
        return false;
    for (uint32_t i = 0; i < sizeof c->wp; i++)         /* SD_WP_PERMANENT is both bits */
        if (c->wp[i] & c->wp[i] >> 1 & 0x55)
            return false;
    memset(c->wp, 0, sizeof c->wp);
    c->password_len = 0;
    c->locked = false;
    c->erase_from = 0;
    c->erase_to = c->size;
    c->erase_discards = false;
    c->busy = SD_BUSY_ERASE;
    c->state = SD_PRG;
    return true;
}

static bool lock_operation(struct sd_card *c)
{
    uint8_t mode = c->buf[0] & 0xf;
    const uint8_t *p = c->buf + LOCK_HEADER;
    uint32_t n = c->buf[1];

    if (mode == ERASE)                                  /* its block is one byte long */
        return force_erase(c);
    if (mode & ERASE || c->buf_len < LOCK_HEADER || n > c->buf_len - LOCK_HEADER)
        return false;
    switch (mode) {
    case SET_PASSWORD: case SET_PASSWORD | LOCK:
        if (c->locked || !set_password(c, p, n))
            return false;
        c->locked = mode & LOCK;
        return true;
    case CLEAR_PASSWORD:
        if (!matches(c, p, n))
            return false;
        c->password_len = 0;
        c->locked = false;
        return true;
    case LOCK: case 0:
        if (c->locked == !!mode || !matches(c, p, n))
            return false;
        c->locked = mode;
        return true;
    default:
        return false;
    }
}

void sd_lock_taken(struct sd_card *c)
{
    if (!lock_operation(c))
        c->status |= SD_ST_LOCK_FAILED;
}

/* ---- groups ---- */

static enum sd_wp group_get(const struct sd_card *c, uint64_t g) { return c->wp[g / 4] >> g % 4 * 2 & 3; }
static void group_set(struct sd_card *c, uint64_t g, enum sd_wp v) { c->wp[g / 4] = (uint8_t)((c->wp[g / 4] & ~(3u << g % 4 * 2)) | v << g % 4 * 2); }
static uint64_t group_count(const struct sd_card *c) { return align_up(c->size, c->wp_size) / c->wp_size; }

/* Groups are those of the user area, which lies behind every partition. */
static bool has_groups(const struct sd_card *c) { return c->wp_size && c->base + c->size == blk_size(c->blk); }

bool sd_group_protected(const struct sd_card *c, uint64_t pos, uint64_t len)
{
    if (!has_groups(c) || !len)
        return false;
    for (uint64_t g = pos / c->wp_size; g <= (pos + len - 1) / c->wp_size; g++)
        if (group_get(c, g) != SD_WP_NONE)
            return true;
    return false;
}

static bool group_of(struct sd_card *c, uint32_t arg, uint64_t *g)
{
    uint64_t pos = c->high_capacity ? (uint64_t)arg * SD_BLOCK : arg;

    if (!has_groups(c) || pos >= c->size) {
        c->status |= SD_ST_OUT_OF_RANGE;
        return false;
    }
    *g = pos / c->wp_size;
    return true;
}

bool sd_run_protect(struct sd_card *c, uint32_t arg)
{
    enum sd_wp kind = SD_CARD_CLASS(c)->wp_kind(c);
    uint64_t g;

    if (!c->wp_size)
        return false;                                   /* class 6 is not there */
    if (group_of(c, arg, &g))
        group_set(c, g, MAX(kind, group_get(c, g)));
    return true;
}

bool sd_run_unprotect(struct sd_card *c, uint32_t arg)
{
    uint64_t g;

    if (!c->wp_size)
        return false;
    if (!group_of(c, arg, &g))
        return true;
    if (group_get(c, g) > SD_WP_TEMPORARY)
        c->status |= SD_ST_ERROR;
    else
        group_set(c, g, SD_WP_NONE);
    return true;
}

/* 32 groups from that of @arg on, @bits each; the first one is in the least significant place, what lies behind the last is 0. */
static bool send_groups(struct sd_card *c, uint32_t arg, unsigned bits)
{
    uint64_t g, word = 0;

    if (!c->wp_size)
        return false;
    g = (c->high_capacity ? (uint64_t)arg * SD_BLOCK : arg) / c->wp_size;
    for (unsigned i = 0; i < 32 && has_groups(c) && g + i < group_count(c); i++)
        word |= (uint64_t)(bits == 1 ? group_get(c, g + i) != SD_WP_NONE : group_get(c, g + i)) << i * bits;
    if (bits == 1)
        st_be32(c->buf, (uint32_t)word);
    else
        st_be64(c->buf, word);
    sd_data_send(c, 4 * bits);
    return true;
}

bool sd_run_protection(struct sd_card *c, uint32_t arg) { return send_groups(c, arg, 1); }
bool sd_run_protection_kinds(struct sd_card *c, uint32_t arg) { return send_groups(c, arg, 2); }

/* Who has a password begins locked; protection until power off is over. */
void sd_protect_power_on(struct sd_card *c)
{
    c->locked = c->password_len;
    for (uint32_t i = 0; i < sizeof c->wp; i++) {
        unsigned low = c->wp[i] & 0x55, high = c->wp[i] >> 1 & 0x55;
        c->wp[i] = (uint8_t)(low | (high & low) << 1);
    }
}
