/* SPDX-License-Identifier: MIT */
/* Commands of the monitor for a person that are QMP commands with their words in order, and their answers as text. */
#include "ctl/hmp.h"

#include <stdlib.h>
#include <string.h>
#include "ctl/qmp.h"

/* ---- words to arguments ---- */

/* One piece of a row's words: its text, and whether it was the last. */
struct piece { char text[64]; const char *next; };

static bool next_piece(struct piece *p)
{
    p->next += strspn(p->next, " ");
    size_t n = strcspn(p->next, " ");
    snprintf(p->text, sizeof p->text, "%.*s", (int)n, p->next);
    p->next += n;
    return n;
}

/* "key=value", "key" (true) or "cpu-index@". */
static void set_fixed(json_t *o, const char *text)
{
    size_t n = strcspn(text, "=@");
    json_t *v = text[n] == '=' ? json_string(text + n + 1) : text[n] == '@' ? json_integer(hmp_cpu) : json_true();
    json_object_setn_new(o, text, n, v);
}

/* @word is "-n", and the row has such a flag. */
static bool take_flag(const struct hmp_cmd *c, const char *word, json_t *o)
{
    if (word[0] != '-' || strlen(word) != 2)
        return false;
    for (struct piece p = { .next = c->words }; next_piece(&p);) {
        if (p.text[0] != '-' || p.text[1] != word[1])
            continue;
        set_fixed(o, p.text + 3);
        return true;
    }
    return false;
}

static bool is_argument(const char *piece) { return piece[0] != '-' && !strpbrk(piece, "=@"); }

/* The words of the line, or of a flag before them, become arguments in the order of the row. */
static bool take_words(const struct hmp_cmd *c, const char *arg, json_t *o, struct err *e)
{
    struct piece p = { .next = c->words };
    for (;;) {
        const char *at = arg + strspn(arg, " ");
        char *word = opt_next_word(&arg);
        if (!word)
            return true;
        bool flag = take_flag(c, word, o), more = true;
        while (!flag && (more = next_piece(&p)) && !is_argument(p.text))
            ;
        size_t n = strlen(p.text);
        bool rest = !flag && more && n > 3 && !strcmp(p.text + n - 3, "...");
        if (rest)
            json_object_setn_new(o, p.text, n - 3, json_string(at));
        else if (!flag && more)
            json_object_set_new(o, p.text, json_string(word));
        free(word);
        if (rest)
            return true;
        if (!flag && !more) {
            err_set(e, ERR_VALUE, "too many words for '%s'", c->name);
            return err_hint(e, "%s %s", c->name, c->args);
        }
    }
}

/* ---- answers ---- */

static void print_scalar(json_t *v, struct str *out)
{
    if (json_is_string(v)) {
        str_addn(out, json_string_value(v), json_string_length(v));
        return;
    }
    char *s = json_dumps(v, JSON_ENCODE_ANY);
    str_add(out, s ? s : "");
    free(s);
}

static void print_value(json_t *v, unsigned depth, struct str *out);

static void print_members(json_t *o, unsigned depth, struct str *out)
{
    const char *key;
    json_t *v;
    json_object_foreach(o, key, v) {
        bool inner = json_is_object(v) || json_is_array(v);
        str_printf(out, "%*s%s:%s", (int)depth * 2, "", key, inner ? "\n" : " ");
        print_value(v, depth + 1, out);
    }
}

static void print_value(json_t *v, unsigned depth, struct str *out)
{
    size_t i;
    json_t *x;
    if (json_is_object(v)) {
        print_members(v, depth, out);
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, x) {
            if (!json_is_object(x) && !json_is_array(x))
                str_printf(out, "%*s", (int)depth * 2, "");
            else if (i)
                str_add(out, "\n");
            print_value(x, depth, out);
        }
    } else {
        print_scalar(v, out);
        str_add(out, "\n");
    }
}

/* ---- the command ---- */

void co_hmp_mapped(const struct hmp_cmd *c, const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    const struct qmp_cmd *q = qmp_cmd_find(c->qmp);
    json_t *o = json_object(), *answer = NULL;
    if (!q)
        err_set(&e, ERR_UNKNOWN, "this build has no %s", c->qmp);
    else if (take_words(c, arg, o, &e)) {
        for (struct piece p = { .next = c->words }; next_piece(&p);)
            if (p.text[0] != '-' && !is_argument(p.text) && !json_object_getn(o, p.text, strcspn(p.text, "=@")))
                set_fixed(o, p.text);
        answer = co_qmp_call(q, o, &e);
    }
    if (answer)
        print_value(answer, 0, out);
    else
        hmp_error(out, &e);
    json_decref(answer);
    json_decref(o);
}
