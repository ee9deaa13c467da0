/* SPDX-License-Identifier: MIT */
#include "block/zones.h"

void zone_set(struct zones *z, struct zone *x, uint8_t state)
{
    z->n_open -= zone_is_open(x);
    z->n_active -= zone_is_active(x);
    x->state = state;
    z->n_open += zone_is_open(x);
    z->n_active += zone_is_active(x);
    if (!zone_is_active(x))
        x->attr &= (uint8_t)~ZONE_ATTR_FINISH_ADVISED;
    if (!zone_is_active(x) && x->attr & ZONE_ATTR_ZRWA) {
        x->attr &= (uint8_t)~ZONE_ATTR_ZRWA;
        z->n_zrwa--;
    }
}

/* 2.1.1.4.1: room for one more open zone, by closing one that a write opened. */
static enum zone_result room(struct zones *z, bool active_too)
{
    if (active_too && z->max_active && z->n_active >= z->max_active)
        return ZONE_TOO_MANY_ACTIVE;
    if (!z->max_open || z->n_open < z->max_open)
        return ZONE_OK;
    for (uint32_t i = 0; z->auto_close && i < z->n; i++)
        if (z->zone[i].state == ZONE_IOPEN)
            return zone_close(z, &z->zone[i]);
    return ZONE_TOO_MANY_OPEN;
}

enum zone_result zone_open(struct zones *z, struct zone *x, bool explicitly, bool zrwa)
{
    enum zone_result st;

    if (zrwa && x->state != ZONE_EMPTY && !(x->attr & ZONE_ATTR_ZRWA))
        return ZONE_NO_TRANSITION;
    switch (x->state) {
    case ZONE_EOPEN: return ZONE_OK;
    case ZONE_IOPEN:
        if (explicitly)
            zone_set(z, x, ZONE_EOPEN);
        return ZONE_OK;
    case ZONE_EMPTY: case ZONE_CLOSED: break;
    default: return ZONE_NO_TRANSITION;
    }
    if (zrwa && x->state == ZONE_EMPTY && z->n_zrwa >= z->numzrwa)
        return ZONE_NO_TRANSITION;
    st = room(z, x->state == ZONE_EMPTY);
    if (st)
        return st;
    if (zrwa && !(x->attr & ZONE_ATTR_ZRWA)) {
        x->attr |= ZONE_ATTR_ZRWA;
        z->n_zrwa++;
    }
    zone_set(z, x, explicitly ? ZONE_EOPEN : ZONE_IOPEN);
    return ZONE_OK;
}

/* One that was opened and not written is empty again (2.1.1.4). */
enum zone_result zone_close(struct zones *z, struct zone *x)
{
    if (x->state == ZONE_CLOSED)
        return ZONE_OK;
    if (!zone_is_open(x))
        return ZONE_NO_TRANSITION;
    zone_set(z, x, x->next == zone_start(z, x) && !(x->attr & ZONE_ATTR_EXT) ? ZONE_EMPTY : ZONE_CLOSED);
    return ZONE_OK;
}

enum zone_result zone_finish(struct zones *z, struct zone *x)
{
    enum zone_result st = ZONE_OK;

    if (x->state == ZONE_FULL)
        return ZONE_OK;
    if (x->state == ZONE_EMPTY)
        st = room(z, true);
    else if (!zone_is_active(x))
        st = ZONE_NO_TRANSITION;
    if (st)
        return st;
    x->wp = x->next = zone_start(z, x) + z->cap;
    zone_set(z, x, ZONE_FULL);
    return ZONE_OK;
}

enum zone_result zone_offline(struct zones *z, struct zone *x)
{
    if (x->state != ZONE_READ_ONLY && x->state != ZONE_OFFLINE)
        return ZONE_NO_TRANSITION;
    zone_set(z, x, ZONE_OFFLINE);
    return ZONE_OK;
}

void zone_empty(struct zones *z, struct zone *x)
{
    zone_set(z, x, ZONE_EMPTY);
    x->wp = x->next = zone_start(z, x);
    x->attr &= (uint8_t)~(ZONE_ATTR_EXT | ZONE_ATTR_FINISHED | ZONE_ATTR_RESET_ADVISED);
    x->busy = false;
}

enum zone_result zone_reset_begin(struct zone *x, bool *written)
{
    *written = false;
    if (x->state != ZONE_EMPTY && x->state != ZONE_FULL && !zone_is_active(x))
        return ZONE_NO_TRANSITION;
    *written = x->busy = x->state != ZONE_EMPTY;
    return ZONE_OK;
}

void zone_reset_end(struct zones *z, struct zone *x, bool done)
{
    if (done)
        zone_empty(z, x);
    x->busy = false;
}

bool zone_op_selects(enum zone_op op, uint8_t state)
{
    switch (op) {
    case ZONE_OP_CLOSE: return state == ZONE_IOPEN || state == ZONE_EOPEN;
    case ZONE_OP_FINISH: return state == ZONE_IOPEN || state == ZONE_EOPEN || state == ZONE_CLOSED;
    case ZONE_OP_OPEN: return state == ZONE_CLOSED;
    case ZONE_OP_RESET: return state == ZONE_IOPEN || state == ZONE_EOPEN || state == ZONE_CLOSED || state == ZONE_FULL;
    case ZONE_OP_OFFLINE: return state == ZONE_READ_ONLY;
    }
    return false;
}

static void zrwa_move(struct zones *z, struct zone *x, uint64_t wp)
{
    uint64_t end = zone_start(z, x) + z->cap;

    x->wp = x->next = MIN(wp, end);
    if (x->wp == end)
        zone_set(z, x, ZONE_FULL);
}

/* 2.1.1.5: an explicit flush up to @at, which ends a flush granularity. */
enum zone_result zone_flush_zrwa(struct zones *z, struct zone *x, uint64_t at)
{
    if (!(x->attr & ZONE_ATTR_ZRWA) || (x->state != ZONE_CLOSED && !zone_is_open(x)))
        return ZONE_BAD_REQUEST;
    if (at < x->wp || at >= x->wp + z->zrwas || (at - x->wp + 1) % z->zrwafg || at >= zone_start(z, x) + z->cap)
        return ZONE_BAD_REQUEST;
    zrwa_move(z, x, at + 1);
    return ZONE_OK;
}

/* ---- reading and writing ---- */

enum zone_result zone_check_read(const struct zones *z, uint64_t at, uint64_t len)
{
    for (uint64_t i = at / z->size; i <= (at + len - 1) / z->size; i++) {
        if (i >= z->n)
            return ZONE_NO_ZONE;
        if (z->zone[i].state == ZONE_OFFLINE)
            return ZONE_IS_OFFLINE;
        if (i != at / z->size && !z->cross_read && (z->zone[i].state != ZONE_NOT_WP || z->zone[i - 1].state != ZONE_NOT_WP))
            return ZONE_CROSSED;
    }
    return ZONE_OK;
}

/* Whether a zone in its state can be written at all. */
static enum zone_result writable(const struct zone *x)
{
    switch (x->state) {
    case ZONE_FULL: return ZONE_IS_FULL;
    case ZONE_OFFLINE: return ZONE_IS_OFFLINE;
    case ZONE_READ_ONLY: return ZONE_IS_READ_ONLY;
    default: return x->busy ? ZONE_BUSY : ZONE_OK;
    }
}

static enum zone_result take_zrwa(struct zones *z, struct zone *x, uint64_t at, uint64_t len)
{
    if (at < x->wp || !range_ok(at - x->wp, len, 2 * (uint64_t)z->zrwas))
        return ZONE_NOT_AT_WP;
    if (!range_ok(at - x->wp, len, z->zrwas))           /* implicit flush */
        zrwa_move(z, x, x->wp + (at - x->wp + len - z->zrwas + z->zrwafg - 1) / z->zrwafg * z->zrwafg);
    return ZONE_OK;
}

enum zone_result zone_write_begin(struct zones *z, uint64_t *at, uint64_t len, bool append)
{
    struct zone *x = zone_at(z, *at);
    enum zone_result st = x ? writable(x) : ZONE_NO_ZONE;

    if (st)
        return st;
    if (append && (*at != zone_start(z, x) || x->state == ZONE_NOT_WP))
        return ZONE_BAD_REQUEST;
    if (x->state == ZONE_NOT_WP) {
        x = zone_at(z, *at + len - 1);
        return x && x->state == ZONE_NOT_WP ? ZONE_OK : ZONE_CROSSED;
    }
    if (append)
        *at = x->next;
    if (!range_ok(*at - zone_start(z, x), len, z->cap))
        return ZONE_CROSSED;
    if (append && x->attr & ZONE_ATTR_ZRWA)
        return ZONE_BAD_REQUEST;
    if (!(x->attr & ZONE_ATTR_ZRWA) && *at != x->next)
        return ZONE_NOT_AT_WP;
    st = zone_open(z, x, false, false);
    if (st)
        return st;
    if (x->attr & ZONE_ATTR_ZRWA)
        return take_zrwa(z, x, *at, len);
    x->next += len;
    return ZONE_OK;
}

void zone_write_end(struct zones *z, uint64_t at, uint64_t len)
{
    struct zone *x = zone_at(z, at);

    if (x->attr & ZONE_ATTR_ZRWA || x->state == ZONE_NOT_WP || x->state == ZONE_FULL || x->busy)
        return;
    x->wp = MIN(x->wp + len, x->next);                  /* a reset may have come and gone */
    if (x->wp == zone_start(z, x) + z->cap)
        zone_set(z, x, ZONE_FULL);
}

void zone_write_undo(struct zones *z, uint64_t at, uint64_t len)
{
    struct zone *x = zone_at(z, at);

    if (!(x->attr & ZONE_ATTR_ZRWA) && zone_has_wp(x) && !x->busy && x->next == at + len && x->wp <= at)
        x->next = at;
    else
        zone_write_end(z, at, len);
}

void zones_power_cycle(struct zones *z)
{
    for (uint32_t i = 0; i < z->n; i++) {
        z->zone[i].busy = false;
        z->zone[i].next = z->zone[i].wp;
        if (zone_is_open(&z->zone[i]))
            zone_close(z, &z->zone[i]);
    }
}

/* ---- kept between runs ---- */

json_t *zone_to_json(const struct zones *z, const struct zone *x)
{
    if (x->state == ZONE_EMPTY || x->state == ZONE_NOT_WP)
        return NULL;
    return json_pack("[I, i, i, I]", (json_int_t)(x - z->zone), x->state, x->attr, (json_int_t)(x->wp - zone_start(z, x)));
}

static bool state_known(json_int_t s) { return (s >= ZONE_EMPTY && s <= ZONE_CLOSED) || (s >= ZONE_READ_ONLY && s <= ZONE_OFFLINE); }

struct zone *zone_from_json(struct zones *z, json_t *one, bool live)
{
    json_int_t at = json_integer_value(json_array_get(one, 0)), state = json_integer_value(json_array_get(one, 1));
    json_int_t attr = json_integer_value(json_array_get(one, 2)), wp = json_integer_value(json_array_get(one, 3));
    struct zone *x;

    if (at < 0 || at >= z->n || !state_known(state) || wp < 0 || (uint64_t)wp > z->cap || z->zone[at].state == ZONE_NOT_WP)
        return NULL;
    x = &z->zone[at];
    x->attr = (uint8_t)(attr & (ZONE_ATTR_EXT | ZONE_ATTR_FINISHED | ZONE_ATTR_FINISH_ADVISED | ZONE_ATTR_RESET_ADVISED | (live ? ZONE_ATTR_ZRWA : 0)));
    z->n_zrwa += x->attr & ZONE_ATTR_ZRWA ? 1 : 0;
    x->wp = x->next = zone_start(z, x) + (uint64_t)wp;
    zone_set(z, x, (uint8_t)state);
    return x;
}
