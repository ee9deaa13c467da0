/* SPDX-License-Identifier: MIT */
#include "ctl/jframe.h"

#include <string.h>

void jframe_reset(struct jframe *f)
{
    f->buf.len = 0;
    f->depth = 0;
    f->quote = 0;
    f->escape = f->skip = f->skip_line = false;
}

void jframe_free(struct jframe *f)
{
    str_free(&f->buf);
    jframe_reset(f);
}

static void fail(struct jframe *f, const char *error)
{
    jframe_reset(f);
    f->skip = true;
    f->value(f->arg, NULL, 0, error);
}

static void put(struct jframe *f, char c)
{
    str_addn(&f->buf, &c, 1);
}

static void feed_in_string(struct jframe *f, uint8_t c)
{
    if (f->escape) {
        f->escape = false;
        if (c == '\'' && f->quote == '\'')
            f->buf.len--;       /* \' is no JSON escape: the quote alone */
        put(f, (char)c);
    } else if (c == f->quote) {
        f->quote = 0;
        put(f, '"');
    } else if (c == '"') {      /* inside single quotes */
        put(f, '\\');
        put(f, '"');
    } else {
        f->escape = c == '\\';
        put(f, (char)c);
    }
}

static void close_level(struct jframe *f, uint8_t c)
{
    put(f, (char)c);
    if (--f->depth)
        return;
    f->value(f->arg, f->buf.s, f->buf.len, NULL);
    jframe_reset(f);
}

/* No JSON text holds such a byte outside its strings. */
static bool is_impossible(uint8_t c)
{
    bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z', digit = c >= '0' && c <= '9';
    return !letter && !digit && (!c || !strchr(" \t\r\n{}[],:\"'+-.", c));
}

static void feed_byte(struct jframe *f, uint8_t c)
{
    bool open = c == '{' || c == '[';
    if (c == 0xff) {
        bool begun = f->depth > 0;
        jframe_reset(f);
        if (begun)
            f->value(f->arg, NULL, 0, "JSON parse error, the value was broken off");
        return;
    }
    if (f->skip && (!open || f->skip_line)) {
        f->skip = c != '\n';
        f->skip_line &= f->skip;
        return;
    }
    f->skip = false;
    if (f->depth && (f->quote ? c < 0x20 : is_impossible(c))) {
        fail(f, f->quote ? "JSON parse error, a control character in a string" : "JSON parse error, a byte that JSON has no use for");
        f->skip = c != '\n';
        return;
    }
    if (f->quote) {
        feed_in_string(f, c);
    } else if (!f->depth && !open) {
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
            fail(f, "JSON parse error, an object is expected");
        f->skip = f->skip && c != '\n';
        return;
    } else if (open) {
        f->depth++;
        put(f, (char)c);
    } else if (c == '}' || c == ']') {
        close_level(f, c);
        return;
    } else if (c == '"' || c == '\'') {
        f->quote = c;
        put(f, '"');
    } else {
        put(f, (char)c);
    }
    bool deep = f->depth > JFRAME_MAX_DEPTH;
    if (deep || f->buf.len > JFRAME_MAX_BYTES) {
        fail(f, deep ? "JSON parse error, nested too deeply" : "JSON parse error, the value is too large");
        f->skip_line = true;        /* what follows is its inside */
    }
}

void jframe_feed(struct jframe *f, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        feed_byte(f, p[i]);
}
