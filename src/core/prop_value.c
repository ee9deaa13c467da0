/* SPDX-License-Identifier: MIT */
/* Values of property rows: text or JSON to memory and back. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/json.h"
#include "base/opt.h"
#include "base/sock.h"
#include "core/obj.h"
#include "core/prop_int.h"

const char *const prop_tri_names[] = { [TRI_AUTO] = "auto", [TRI_ON] = "on", [TRI_OFF] = "off", NULL };

static void *field_of(const struct prop *p, void *base) { return (char *)base + p->off; }
static const void *cfield_of(const struct prop *p, const void *base) { return (const char *)base + p->off; }

static unsigned width_of(const struct prop *p)
{
    switch (p->type) {
    case PROP_T_U8: return 1;
    case PROP_T_U16: return 2;
    case PROP_T_U32: case PROP_T_S32: case PROP_T_SIZE32: return 4;
    default: return 8;
    }
}

static bool is_signed(const struct prop *p) { return p->type == PROP_T_S32 || p->type == PROP_T_S64; }

static void store_uint(const struct prop *p, void *base, uint64_t v)
{
    void *f = field_of(p, base);

    switch (width_of(p)) {
    case 1: *(uint8_t *)f = (uint8_t)v; break;
    case 2: *(uint16_t *)f = (uint16_t)v; break;
    case 4: *(uint32_t *)f = (uint32_t)v; break;
    default: *(uint64_t *)f = v; break;
    }
}

static uint64_t fetch_uint(const struct prop *p, const void *base)
{
    const void *f = cfield_of(p, base);

    switch (width_of(p)) {
    case 1: return *(const uint8_t *)f;
    case 2: return *(const uint16_t *)f;
    case 4: return is_signed(p) ? (uint64_t)(int64_t)*(const int32_t *)f : *(const uint32_t *)f;
    default: return *(const uint64_t *)f;
    }
}

void prop_limits(const struct prop *p, uint64_t *lo, uint64_t *hi)
{
    *lo = p->min;
    *hi = p->max;
    if (p->min || p->max)
        return;
    switch (p->type) {
    case PROP_T_S32: *lo = (uint64_t)(int64_t)INT32_MIN; *hi = INT32_MAX; break;
    case PROP_T_S64: *lo = (uint64_t)INT64_MIN; *hi = INT64_MAX; break;
    default: *hi = mask_of_size(width_of(p)); break;
    }
}

void prop_value_default(const struct prop *p, void *base)
{
    void *f = field_of(p, base);

    switch (p->type) {
    case PROP_T_BOOL: *(bool *)f = p->def != 0; break;
    case PROP_T_BIT: *(uint64_t *)f = bits_set(*(uint64_t *)f, p->bit, 1, p->def != 0); break;
    case PROP_T_TRI: *(enum tri *)f = (enum tri)p->def; break;
    case PROP_T_ENUM: *(int *)f = (int)p->def; break;
    case PROP_T_STR: *(char **)f = xstrdup((const char *)(uintptr_t)p->def); break;
    case PROP_T_PCI_ADDR: *(int32_t *)f = -1; break;
    default:
        if (prop_is_number(p))
            store_uint(p, base, p->def);
        break;
    }
}

void prop_value_release(const struct prop *p, void *base)
{
    void *f = field_of(p, base);

    switch (p->type) {
    case PROP_T_STR:
        free(*(char **)f);
        *(char **)f = NULL;
        break;
    case PROP_T_STRV:
        for (char **s = *(char ***)f; s && *s; s++)
            free(*s);
        free(*(char ***)f);
        *(char ***)f = NULL;
        break;
    case PROP_T_LINK:
        obj_unref(*(struct obj **)f);
        *(struct obj **)f = NULL;
        break;
    case PROP_T_JSON:
        json_decref(*(json_t **)f);
        *(json_t **)f = NULL;
        break;
    default:
        break;
    }
}

/* The error for a value that is not of the row's type or range. */
static bool bad_value(const struct prop *p, json_t *v, struct err *e)
{
    char buf[32];
    json_t *o = json_pack("{sO}", "v", v);
    const char *got = opt_text(o, "v", buf);
    char *json = got ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    struct str want = { 0 };

    prop_describe_type(p, &want);
    err_set(e, ERR_VALUE, "'%s' is not a valid value for '%s'", got ? got : json ? json : "", p->name);
    free(json);
    err_hint(e, "%s takes: %s", p->name, want.s);
    str_free(&want);
    json_decref(o);
    return false;
}

static bool set_number(const struct prop *p, void *base, json_t *v, struct err *e)
{
    uint64_t n, lo, hi;
    bool ok;

    if (json_is_integer(v)) {
        n = (uint64_t)json_integer_value(v);
        ok = is_signed(p) || p->type == PROP_T_U64 || (int64_t)n >= 0;
    } else if (!json_is_string(v)) {
        ok = false;
    } else if (prop_is_size(p)) {
        ok = parse_size(json_string_value(v), 1, &n);
    } else if (is_signed(p)) {
        ok = parse_s64(json_string_value(v), (int64_t *)&n);
    } else {
        ok = parse_u64(json_string_value(v), &n);
    }
    prop_limits(p, &lo, &hi);
    if (ok && is_signed(p))
        ok = (int64_t)n >= (int64_t)lo && (int64_t)n <= (int64_t)hi;
    else if (ok)
        ok = n >= lo && n <= hi;
    if (!ok || ((p->flags & PF_POW2) && n && !is_pow2(n)))
        return bad_value(p, v, e);
    store_uint(p, base, n);
    return true;
}

bool prop_typed(const struct prop *p, json_t *v, struct err *e)
{
    switch (p->type) {
    case PROP_T_BOOL: case PROP_T_BIT:
        return json_is_boolean(v) || err_set(e, ERR_VALUE, "Invalid parameter type for '%s', expected: boolean", p->name);
    case PROP_T_STR: case PROP_T_MAC: case PROP_T_UUID: case PROP_T_LINK: case PROP_T_ENUM:
        return json_is_string(v) || json_is_null(v) || err_set(e, ERR_VALUE, "Invalid parameter type for '%s', expected: string", p->name);
    default:
        return !prop_is_number(p) || json_is_integer(v) || json_is_large(v) || err_set(e, ERR_VALUE, "Invalid parameter type for '%s', expected: integer", p->name);
    }
}

static bool set_bool(const struct prop *p, void *base, json_t *v, struct err *e)
{
    void *f = field_of(p, base);
    bool b;

    if (json_is_boolean(v))
        b = json_is_true(v);
    else if (!json_is_string(v) || !parse_bool(json_string_value(v), &b))
        return bad_value(p, v, e);
    if (p->type == PROP_T_BIT)
        *(uint64_t *)f = bits_set(*(uint64_t *)f, p->bit, 1, b);
    else
        *(bool *)f = b;
    return true;
}

static const char *enum_name(const void *table, size_t i) { return ((const char *const *)table)[i]; }

static bool set_enum(const struct prop *p, void *base, json_t *v, struct err *e)
{
    const char *const *names = p->type == PROP_T_TRI ? prop_tri_names : p->of;
    const char *s = json_string_value(v), *near;
    bool b;

    if (p->type == PROP_T_TRI && (json_is_boolean(v) || (s && parse_bool(s, &b)))) {
        b = json_is_boolean(v) ? json_is_true(v) : b;
        *(enum tri *)field_of(p, base) = b ? TRI_ON : TRI_OFF;
        return true;
    }
    for (int i = 0; s && names[i]; i++)
        if (!strcmp(names[i], s)) {
            *(int *)field_of(p, base) = i;
            return true;
        }
    bad_value(p, v, e);
    if (s && (near = err_nearest(s, enum_name, names))) {
        char *old = xstrdup(e->hint);

        err_hint(e, "did you mean '%s'? %s", near, old);
        free(old);
    }
    return false;
}

static bool set_mac(const struct prop *p, void *base, json_t *v, struct err *e)
{
    const char *s = json_string_value(v);
    unsigned b[6];
    int used = 0;

    if (!s || sscanf(s, "%2x%*1[:-]%2x%*1[:-]%2x%*1[:-]%2x%*1[:-]%2x%*1[:-]%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4],
                     &b[5], &used) != 6 || s[used])
        return bad_value(p, v, e);
    if (b[0] & 1) {
        err_set(e, ERR_VALUE, "'%s' is not a valid value for '%s'", s, p->name);
        return err_hint(e, "the first byte of a card's own address is even (this is a multicast address)");
    }
    for (int i = 0; i < 6; i++)
        ((uint8_t *)field_of(p, base))[i] = (uint8_t)b[i];
    return true;
}

static bool set_uuid(const struct prop *p, void *base, json_t *v, struct err *e)
{
    const char *s = json_string_value(v);
    uint8_t *u = field_of(p, base), out[16];
    size_t n = 0;

    for (; s && *s && n < 32; s++) {
        if (*s == '-')
            continue;
        if (hex_digit(*s) < 0)
            break;
        out[n / 2] = (uint8_t)(out[n / 2] << 4 | hex_digit(*s));
        n++;
    }
    if (!s || *s || n != 32)
        return bad_value(p, v, e);
    memcpy(u, out, 16);
    return true;
}

static bool set_pci_addr(const struct prop *p, void *base, json_t *v, struct err *e)
{
    const char *s = json_string_value(v);
    unsigned long slot, fn = 0;
    char *end;

    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < 256) {
        *(int32_t *)field_of(p, base) = (int32_t)json_integer_value(v);
        return true;
    }
    if (!s || !isxdigit((unsigned char)*s))
        return bad_value(p, v, e);
    slot = strtoul(s, &end, 16);
    if (*end == '.' && isxdigit((unsigned char)end[1]))
        fn = strtoul(end + 1, &end, 16);
    if (*end || slot > 31 || fn > 7) {
        bad_value(p, v, e);
        return err_hint(e, "addr=SLOT[.FUNCTION], in hex: slot 0 to 1f, function 0 to 7");
    }
    *(int32_t *)field_of(p, base) = (int32_t)(slot << 3 | fn);
    return true;
}

static bool set_link(const struct prop *p, void *base, json_t *v, struct err *e)
{
    struct obj **f = field_of(p, base), *o;
    const char *id = json_string_value(v);

    if (json_is_null(v) || (id && !*id)) {
        if (p->flags & PF_REQUIRED)             /* a way to say "none" where there must be one */
            return bad_value(p, v, e);
        obj_unref(*f);
        *f = NULL;
        return true;
    }
    if (!id)
        return bad_value(p, v, e);
    o = obj_lookup(p->of, id, e);
    if (!o)
        return err_prefix(e, "%s", p->name);
    obj_ref(o);
    obj_unref(*f);
    *f = o;
    return true;
}

static bool set_strv(const struct prop *p, void *base, json_t *v, struct err *e)
{
    size_t n = json_array_size(v);
    char **list;

    if (json_is_string(v)) {
        char *copy = xstrdup(json_string_value(v)), *save = NULL;

        list = xcalloc(strlen(copy) + 2, sizeof *list);
        for (char *w = strtok_r(copy, ":", &save); w; w = strtok_r(NULL, ":", &save))
            list[n++] = xstrdup(w);
        free(copy);
    } else if (json_is_array(v)) {
        for (size_t i = 0; i < n; i++)
            if (!json_is_string(json_array_get(v, i)))
                return bad_value(p, v, e);
        list = xcalloc(n + 1, sizeof *list);
        for (size_t i = 0; i < n; i++)
            list[i] = xstrdup(json_string_value(json_array_get(v, i)));
    } else {
        return bad_value(p, v, e);
    }
    prop_value_release(p, base);
    *(char ***)field_of(p, base) = list;
    return true;
}

static bool set_string(const struct prop *p, void *base, json_t *v, struct err *e)
{
    char buf[32], **f = field_of(p, base);
    json_t *o = json_pack("{sO}", "v", v);
    char *s = xstrdup(opt_text(o, "v", buf));

    json_decref(o);
    if (!s)
        return bad_value(p, v, e);
    if ((p->flags & PF_PORT) && !sock_port_ok(s, e)) {
        free(s);
        return err_prefix(e, "%s", p->name);
    }
    free(*f);
    *f = s;
    return true;
}

static bool set_value(const struct prop *p, void *base, struct obj *o, json_t *v, struct err *e)
{
    json_t **j;

    switch (p->type) {
    case PROP_T_BOOL: case PROP_T_BIT: return set_bool(p, base, v, e);
    case PROP_T_TRI: case PROP_T_ENUM: return set_enum(p, base, v, e);
    case PROP_T_MAC: return set_mac(p, base, v, e);
    case PROP_T_UUID: return set_uuid(p, base, v, e);
    case PROP_T_PCI_ADDR: return set_pci_addr(p, base, v, e);
    case PROP_T_LINK: return set_link(p, base, v, e);
    case PROP_T_STRV: return set_strv(p, base, v, e);
    case PROP_T_STR: return set_string(p, base, v, e);
    case PROP_T_JSON:
        j = field_of(p, base);
        v = json_is_null(v) ? NULL : json_incref(v);
        json_decref(*j);
        *j = v;
        return true;
    default: return set_number(p, base, v, e);
    }
}

bool prop_set(const struct prop *p, void *base, struct obj *o, json_t *v, struct err *e)
{
    json_t *old = NULL;
    struct err dummy = ERR_INIT;

    if (p->flags & PF_READONLY)
        return err_set(e, ERR_VALUE, "'%s' cannot be set", p->name);
    if (p->changed)
        old = prop_to_json(p, base, o);
    if (!set_value(p, base, o, v, e)) {
        json_decref(old);
        return false;
    }
    if (p->changed && !p->changed(o, p, e)) {
        if (!set_value(p, base, o, old, &dummy))
            prop_value_release(p, base);
        json_decref(old);
        return false;
    }
    json_decref(old);
    return true;
}

static void format_uuid(const uint8_t *u, struct str *out)
{
    for (int i = 0; i < 16; i++)
        str_printf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
}

void prop_format(const struct prop *p, const void *base, const struct obj *o, struct str *out)
{
    const void *f = cfield_of(p, base);
    const uint8_t *m = f;
    char buf[32];

    switch (p->type) {
    case PROP_T_BOOL: str_add(out, *(const bool *)f ? "on" : "off"); break;
    case PROP_T_BIT: str_add(out, *(const uint64_t *)f >> p->bit & 1 ? "on" : "off"); break;
    case PROP_T_TRI: str_add(out, prop_tri_names[*(const enum tri *)f]); break;
    case PROP_T_ENUM: str_add(out, ((const char *const *)p->of)[*(const int *)f]); break;
    case PROP_T_STR: str_add(out, *(char *const *)f ? *(char *const *)f : ""); break;
    case PROP_T_MAC: str_printf(out, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]); break;
    case PROP_T_UUID: format_uuid(f, out); break;
    case PROP_T_PCI_ADDR:
        if (*(const int32_t *)f < 0)
            str_add(out, "auto");
        else
            str_printf(out, "%02x.%x", *(const int32_t *)f >> 3, *(const int32_t *)f & 7);
        break;
    case PROP_T_LINK: str_add(out, *(struct obj *const *)f ? (*(struct obj *const *)f)->id : ""); break;
    case PROP_T_STRV:
        for (char **s = *(char **const *)f, **first = s; s && *s; s++)
            str_printf(out, "%s%s", s == first ? "" : ":", *s);
        break;
    case PROP_T_JSON: {
        char *s = *(json_t *const *)f ? json_dumps(*(json_t *const *)f, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

        str_add(out, s ? s : "");
        free(s);
        break;
    }
    case PROP_T_SIZE32: case PROP_T_SIZE: str_add(out, format_size(fetch_uint(p, base), buf)); break;
    default:
        if (is_signed(p))
            str_printf(out, "%" PRId64, (int64_t)fetch_uint(p, base));
        else
            str_printf(out, p->flags & PF_HEX ? "%#" PRIx64 : "%" PRIu64, fetch_uint(p, base));
        break;
    }
}

json_t *prop_to_json(const struct prop *p, const void *base, const struct obj *o)
{
    const void *f = cfield_of(p, base);
    struct str s = { 0 };
    json_t *v;

    switch (p->type) {
    case PROP_T_BOOL: return json_boolean(*(const bool *)f);
    case PROP_T_BIT: return json_boolean(*(const uint64_t *)f >> p->bit & 1);
    case PROP_T_JSON: return *(json_t *const *)f ? json_incref(*(json_t *const *)f) : json_null();
    case PROP_T_PCI_ADDR:
        if (*(const int32_t *)f < 0)
            return json_integer(-1);
        break;
    case PROP_T_STRV:
        v = json_array();
        for (char **w = *(char **const *)f; w && *w; w++)
            json_array_append_new(v, json_string(*w));
        return v;
    default:
        if (prop_is_number(p))
            return json_integer((json_int_t)fetch_uint(p, base));
        break;
    }
    prop_format(p, base, o, &s);
    v = json_string(s.s ? s.s : "");
    str_free(&s);
    return v ? v : json_null();
}
