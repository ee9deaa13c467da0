/* SPDX-License-Identifier: MIT */
/*
 * On the wire, a description is: for each field { u8 name length, name, u32 byte length, bytes }, then a 0 byte. Scalars are
 * little endian of the field's width; structs nest; variable parts begin with a u32 element count.
 */
#include "core/state.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

struct cursor { const uint8_t *p, *end; };

static uint32_t live_count(const struct state_field *f, const void *obj)
{
    return f->count_off ? *(const uint32_t *)((const char *)obj + f->count_off) : f->count;
}

static bool is_pointer(const struct state_field *f) { return f->kind == ST_PTR_STRUCT || f->kind == ST_PTR_BYTES; }

/* Where the elements are. */
static char *elements(const struct state_field *f, void *obj)
{
    char *at = (char *)obj + f->off;

    return is_pointer(f) ? *(char **)at : at;
}

static void put_u32(struct str *out, uint32_t v)
{
    uint8_t b[4];

    st_le32(b, v);
    str_addn(out, b, sizeof b);
}

static void save_elements(const struct state_field *f, void *obj, struct str *out)
{
    uint32_t n = live_count(f, obj);
    char *at = elements(f, obj);
    uint8_t b[8];

    if (is_pointer(f) || f->count_off)
        put_u32(out, n);
    switch (f->kind) {
    case ST_STRUCT: case ST_PTR_STRUCT:
        for (uint32_t i = 0; i < n; i++)
            state_save(f->sub, at + (size_t)i * f->size, out);
        break;
    case ST_BYTES: case ST_PTR_BYTES:
        str_addn(out, at, f->kind == ST_BYTES ? (size_t)f->size * n : n);
        break;
    case ST_CUSTOM:
        f->custom->save(obj, out);
        break;
    default:
        for (uint32_t i = 0; i < n; i++) {
            st_le64(b, ld_le(at + (size_t)i * f->size, f->size));
            str_addn(out, b, f->size);
        }
        break;
    }
}

void state_save(const struct state_desc *d, void *obj, struct str *out)
{
    if (d->pre_save)
        d->pre_save(obj);
    for (const struct state_field *f = d->fields; f->name; f++) {
        uint8_t len = (uint8_t)strlen(f->name);
        size_t at;

        if (f->kind == ST_SKIP)
            continue;
        str_addn(out, &len, 1);
        str_add(out, f->name);
        at = out->len;
        put_u32(out, 0);
        save_elements(f, obj, out);
        st_le32(out->s + at, (uint32_t)(out->len - at - 4));
    }
    str_addn(out, "", 1);
}

static bool take(struct cursor *c, void *buf, size_t n)
{
    if (!range_ok(0, n, (uint64_t)(c->end - c->p)))
        return false;
    memcpy(buf, c->p, n);
    c->p += n;
    return true;
}

static bool load_struct(const struct state_desc *d, void *obj, struct cursor *c, struct err *e);

static bool short_data(const struct state_desc *d, const char *field, struct err *e)
{
    return err_set(e, ERR_VALUE, "saved state of '%s': field '%s' is of the wrong size", d->name, field);
}

static bool load_scalars(const struct state_desc *d, const struct state_field *f, char *at, uint32_t n, struct cursor *c, struct err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        uint8_t b[8] = { 0 };
        uint64_t v;

        if (!take(c, b, f->size))
            return short_data(d, f->name, e);
        v = ld_le64(b);
        if ((f->max && v > f->max) || (f->kind == ST_BOOL && v > 1))
            return err_set(e, ERR_VALUE, "saved state of '%s': field '%s' is out of range (%#llx)", d->name, f->name,
                           (unsigned long long)v);
        st_le(at + (size_t)i * f->size, v, f->size);
    }
    return true;
}

static bool load_field(const struct state_desc *d, const struct state_field *f, void *obj, struct cursor *c, struct err *e)
{
    uint32_t n = live_count(f, obj), got;
    uint8_t b[4];
    char *at = elements(f, obj);
    size_t bytes;

    if (is_pointer(f) || f->count_off) {
        if (!take(c, b, sizeof b))
            return short_data(d, f->name, e);
        got = ld_le32(b);
        if (got != n)
            return err_set(e, ERR_VALUE, "saved state of '%s': field '%s' has %u elements, the device %u", d->name, f->name,
                           got, n);
    }
    switch (f->kind) {
    case ST_STRUCT: case ST_PTR_STRUCT:
        for (uint32_t i = 0; i < n; i++)
            if (!load_struct(f->sub, at + (size_t)i * f->size, c, e))
                return false;
        return true;
    case ST_BYTES: case ST_PTR_BYTES:
        bytes = f->kind == ST_BYTES ? (size_t)f->size * n : n;
        return take(c, at, bytes) || short_data(d, f->name, e);
    case ST_CUSTOM:
        if (!f->custom->load(obj, c->p, (size_t)(c->end - c->p), e))
            return false;
        c->p = c->end;
        return true;
    default:
        return load_scalars(d, f, at, n, c, e);
    }
}

static const struct state_field *field_named(const struct state_desc *d, const char *name)
{
    for (const struct state_field *f = d->fields; f->name; f++)
        if (!strcmp(f->name, name) && f->kind != ST_SKIP)
            return f;
    return NULL;
}

static bool load_struct(const struct state_desc *d, void *obj, struct cursor *c, struct err *e)
{
    for (;;) {
        const struct state_field *f;
        struct cursor sub;
        char name[256];
        uint8_t len, b[4];
        uint32_t n;

        if (!take(c, &len, 1))
            return err_set(e, ERR_VALUE, "saved state of '%s' ends too early", d->name);
        if (!len)
            break;
        name[len] = '\0';
        if (!take(c, name, len) || !take(c, b, sizeof b) || !range_ok(0, n = ld_le32(b), (uint64_t)(c->end - c->p)))
            return err_set(e, ERR_VALUE, "saved state of '%s' ends too early", d->name);
        f = field_named(d, name);
        if (!f)
            return err_set(e, ERR_VALUE, "saved state of '%s' has a field '%s' that this version does not know", d->name, name);
        sub = (struct cursor){ c->p, c->p + n };
        if (!load_field(d, f, obj, &sub, e))
            return false;
        if (sub.p != sub.end)
            return short_data(d, name, e);
        c->p += n;
    }
    return !d->post_load || d->post_load(obj, e);
}

bool state_load(const struct state_desc *d, void *obj, const void *data, size_t len, struct err *e)
{
    struct cursor c = { data, (const uint8_t *)data + len };

    if (!load_struct(d, obj, &c, e))
        return false;
    return c.p == c.end || err_set(e, ERR_VALUE, "saved state of '%s' is followed by %zu more bytes", d->name,
                                   (size_t)(c.end - c.p));
}

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static void scramble_field(const struct state_field *f, void *obj, uint32_t *seed)
{
    uint32_t n = live_count(f, obj);
    char *at = elements(f, obj);

    switch (f->kind) {
    case ST_STRUCT: case ST_PTR_STRUCT:
        for (uint32_t i = 0; i < n; i++)
            state_scramble(f->sub, at + (size_t)i * f->size, next_random(seed));
        break;
    case ST_BYTES: case ST_PTR_BYTES:
        for (size_t i = 0; i < (f->kind == ST_BYTES ? (size_t)f->size * n : n); i++)
            at[i] = (char)next_random(seed);
        break;
    case ST_CUSTOM: case ST_SKIP:
        break;
    case ST_BOOL:
        for (uint32_t i = 0; i < n; i++)
            at[i] = (char)(next_random(seed) & 1);
        break;
    default:
        for (uint32_t i = 0; i < n; i++) {
            uint64_t v = (uint64_t)next_random(seed) << 32 | next_random(seed);

            st_le(at + (size_t)i * f->size, f->max ? v % (f->max + (f->max < UINT64_MAX)) : v, f->size);
        }
        break;
    }
}

void state_scramble(const struct state_desc *d, void *obj, uint32_t seed)
{
    for (const struct state_field *f = d->fields; f->name; f++)
        scramble_field(f, obj, &seed);
}

bool state_gap(const struct state_desc *d, uint32_t from, uint32_t size, uint32_t *gap_off)
{
    uint32_t at = from;

    for (bool moved = true; moved && at < size; ) {
        moved = false;
        for (const struct state_field *f = d->fields; f->name; f++) {
            uint32_t len = is_pointer(f) ? (uint32_t)sizeof(void *) : f->size * f->count;

            /* A hole of less than 8 bytes before an aligned member is padding. */
            if (f->off + len > at && /* range: table constants */ f->off < at + 8 && (f->off <= at || f->off % 8 == 0 || f->off - at < 4)) {
                at = f->off + len;
                moved = true;
            }
        }
    }
    *gap_off = at;
    return at + 8 <= size;
}
