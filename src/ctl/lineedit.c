/* SPDX-License-Identifier: MIT */
#include "ctl/lineedit.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"

static void put(struct lineedit *l, const char *s) { l->out(l->arg, s, strlen(s)); }

/* Columns of @n bytes: those that continue a UTF-8 character take none. */
static size_t columns(const char *s, size_t n)
{
    size_t c = 0;
    for (size_t i = 0; i < n; i++)
        c += ((uint8_t)s[i] & 0xc0) != 0x80;
    return c;
}

static void repeat(struct lineedit *l, const char *s, size_t n)
{
    struct str b = { 0 };
    for (size_t i = 0; i < n; i++)
        str_add(&b, s);
    if (b.len)
        l->out(l->arg, b.s, b.len);
    str_free(&b);
}

static void go_back(struct lineedit *l, size_t from, size_t to)
{
    repeat(l, "\b", columns(l->buf + to, from - to));
}

/* The start of the character before @at, and of the one after it. */
static size_t before(const struct lineedit *l, size_t at)
{
    while (at && ((uint8_t)l->buf[--at] & 0xc0) == 0x80)
        ;
    return at;
}

static size_t after(const struct lineedit *l, size_t at)
{
    if (at < l->len)
        at++;
    while (at < l->len && ((uint8_t)l->buf[at] & 0xc0) == 0x80)
        at++;
    return at;
}

static void move(struct lineedit *l, size_t to)
{
    if (to < l->pos)
        go_back(l, l->pos, to);
    else
        l->out(l->arg, l->buf + l->pos, to - l->pos);
    l->pos = to;
}

static void insert(struct lineedit *l, const char *s, size_t n)
{
    if (l->len + n >= LINEEDIT_MAX)
        return;
    memmove(l->buf + l->pos + n, l->buf + l->pos, l->len - l->pos);
    memcpy(l->buf + l->pos, s, n);
    l->len += n;
    l->out(l->arg, l->buf + l->pos, l->len - l->pos);
    l->pos += n;
    go_back(l, l->len, l->pos);
}

/* Takes out [from, to), which holds the cursor or borders on it. */
static void cut(struct lineedit *l, size_t from, size_t to)
{
    size_t gone = columns(l->buf + from, to - from);
    move(l, from);
    memmove(l->buf + from, l->buf + to, l->len - to);
    l->len -= to - from;
    l->out(l->arg, l->buf + from, l->len - from);
    repeat(l, " ", gone);
    repeat(l, "\b", gone);
    go_back(l, l->len, from);
}

static size_t word_start(const struct lineedit *l)
{
    size_t at = l->pos;
    while (at && l->buf[at - 1] == ' ')
        at--;
    while (at && l->buf[at - 1] != ' ')
        at--;
    return at;
}

/* ---- history ---- */

static void replace(struct lineedit *l, const char *s)
{
    cut(l, 0, l->len);
    insert(l, s, strlen(s));
}

static void browse(struct lineedit *l, int step)
{
    if ((step < 0 && !l->at) || (step > 0 && l->at == l->n_history))
        return;
    if (l->at == l->n_history) {
        free(l->typed);
        l->typed = xstrndup(l->buf, l->len);
    }
    l->at = step < 0 ? l->at - 1 : l->at + 1;
    replace(l, l->at == l->n_history ? l->typed : l->history[l->at]);
}

static void remember(struct lineedit *l, const char *line)
{
    if (*line && (!l->n_history || strcmp(l->history[l->n_history - 1], line))) {
        if (l->n_history == LINEEDIT_HISTORY) {
            free(l->history[0]);
            memmove(l->history, l->history + 1, (LINEEDIT_HISTORY - 1) * sizeof(l->history[0]));
            l->n_history--;
        }
        l->history[l->n_history++] = xstrdup(line);
    }
    l->at = l->n_history;
}

/* ---- completion ---- */

void lineedit_offer(struct lineedit_words *w, const char *text, size_t word, const char *candidate)
{
    if (strncmp(candidate, text + strlen(text) - word, word))
        return;
    for (size_t i = 0; i < w->n; i++)
        if (!strcmp(w->v[i], candidate))
            return;
    w->v = xrealloc(w->v, (w->n + 1) * sizeof(*w->v));
    w->v[w->n++] = xstrdup(candidate);
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static size_t common(const struct lineedit_words *w)
{
    size_t n = strlen(w->v[0]);
    for (size_t i = 1; i < w->n; i++)
        while (strncmp(w->v[0], w->v[i], n))
            n--;
    return n;
}

static void show_words(struct lineedit *l, const struct lineedit_words *w)
{
    size_t width = 0, end = l->pos;
    for (size_t i = 0; i < w->n; i++)
        width = MAX(width, strlen(w->v[i]) + 2);
    size_t row = MAX((size_t)1, 78 / MAX(width, (size_t)1));
    struct str b = { 0 };
    for (size_t i = 0; i < w->n; i++)
        str_printf(&b, "%s%-*s", i % row ? "" : "\n", (int)width, w->v[i]);
    str_printf(&b, "\n%s", l->prompt);
    move(l, l->len);
    l->out(l->arg, b.s, b.len);
    l->out(l->arg, l->buf, l->len);
    l->pos = l->len;
    move(l, end);
    str_free(&b);
}

static void complete(struct lineedit *l)
{
    struct lineedit_words w = { 0 };
    size_t start = l->pos;
    while (start && !strchr(" ,=", l->buf[start - 1]))
        start--;
    char *text = xstrndup(l->buf, l->pos);
    size_t word = l->pos - start;
    if (l->complete)
        l->complete(l->arg, text, word, &w);
    free(text);
    if (w.n)
        qsort(w.v, w.n, sizeof(*w.v), by_text);
    size_t n = w.n ? common(&w) : 0;
    if (n > word)
        insert(l, w.v[0] + word, n - word);
    if (w.n == 1 && !w.open)
        insert(l, " ", 1);
    else if (w.n > 1 && n == word && l->tabbed)
        show_words(l, &w);
    else
        l->tabbed = true;
    for (size_t i = 0; i < w.n; i++)
        free(w.v[i]);
    free(w.v);
}

/* ---- keys ---- */

static void end_line(struct lineedit *l)
{
    char line[LINEEDIT_MAX];
    move(l, l->len);
    put(l, "\n");
    memcpy(line, l->buf, l->len);
    line[l->len] = 0;
    l->len = l->pos = 0;
    remember(l, line);
    l->line(l->arg, line);
}

static void control_key(struct lineedit *l, uint8_t c)
{
    switch (c) {
    case 'a' & 31: move(l, 0); break;
    case 'e' & 31: move(l, l->len); break;
    case 'b' & 31: move(l, before(l, l->pos)); break;
    case 'f' & 31: move(l, after(l, l->pos)); break;
    case 'd' & 31: cut(l, l->pos, after(l, l->pos)); break;
    case 'h' & 31: case 0x7f: cut(l, before(l, l->pos), l->pos); break;
    case 'k' & 31: cut(l, l->pos, l->len); break;
    case 'u' & 31: cut(l, 0, l->pos); break;
    case 'w' & 31: cut(l, word_start(l), l->pos); break;
    case 'p' & 31: browse(l, -1); break;
    case 'n' & 31: browse(l, 1); break;
    case 'c' & 31:
        put(l, "\n");
        lineedit_start(l);
        break;
    case 'l' & 31:
        put(l, "\x1b[H\x1b[2J");
        put(l, l->prompt);
        l->out(l->arg, l->buf, l->len);
        go_back(l, l->len, l->pos);
        break;
    default:
        break;
    }
}

/* After ESC: "[A", "OA", "[3~"... True while more is to come. */
static bool escape_key(struct lineedit *l, uint8_t c)
{
    if (l->esc_len == 1 && (c == '[' || c == 'O'))
        return true;
    if (l->esc_len > 1 && l->esc_len < sizeof(l->esc) - 1 && ((c >= '0' && c <= '9') || c == ';'))
        return true;
    uint8_t key = c == '~' ? (uint8_t)l->esc[2] : c;
    if (l->esc_len < 2)
        return false;
    switch (key) {
    case 'A': browse(l, -1); break;
    case 'B': browse(l, 1); break;
    case 'C': move(l, after(l, l->pos)); break;
    case 'D': move(l, before(l, l->pos)); break;
    case 'H': case '1': case '7': move(l, 0); break;
    case 'F': case '4': case '8': move(l, l->len); break;
    case '3': cut(l, l->pos, after(l, l->pos)); break;
    default: break;
    }
    return false;
}

void lineedit_key(struct lineedit *l, uint8_t c)
{
    bool second = c == '\n' && l->after_cr;
    l->after_cr = c == '\r';
    if (second)
        return;
    if (l->esc_len) {
        bool more = escape_key(l, c);
        if (more)
            l->esc[l->esc_len++] = (char)c;
        else
            l->esc_len = 0;
        return;
    }
    if (c == '\t') {
        complete(l);
        return;
    }
    l->tabbed = false;
    if (c == 27)
        l->esc[l->esc_len++] = (char)c;
    else if (c == '\r' || c == '\n')
        end_line(l);
    else if (c < ' ' || c == 0x7f)
        control_key(l, c);
    else
        insert(l, (const char *)&c, 1);
}

void lineedit_start(struct lineedit *l)
{
    l->len = l->pos = l->esc_len = 0;
    l->at = l->n_history;
    put(l, l->prompt);
}

void lineedit_free(struct lineedit *l)
{
    for (size_t i = 0; i < l->n_history; i++)
        free(l->history[i]);
    free(l->typed);
    l->typed = NULL;
    l->n_history = l->len = l->pos = l->at = 0;
}
