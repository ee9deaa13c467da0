/* SPDX-License-Identifier: MIT */
/* What the tests over all classes share: which class is at work when something aborts, values at the edges of a row's range. */
#ifndef TESTS_CLASSES_H
#define TESTS_CLASSES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/bits.h"
#include "core/dev.h"
#include "core/prop_int.h"
#include "core/state.h"

static char at_work[512];

#define AT_WORK(...) snprintf(at_work, sizeof at_work, __VA_ARGS__)

static void say_at_work(int sig)
{
    ssize_t n = write(2, at_work, strlen(at_work));
    n = write(2, ": died\n", 7);
    (void)n;
    signal(sig, SIG_DFL);
    raise(sig);
}

static char scratch[] = "/tmp/bp-classes-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where) { return remove(path); }
static void remove_scratch(void) { nftw(scratch, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

/* Goes to a folder of its own: options that name files are given all kinds of names. */
static inline void classes_init(void)
{
    signal(SIGABRT, say_at_work);
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(scratch) || chdir(scratch) < 0)
        exit(1);
    atexit(remove_scratch);
}

struct edge { json_t *v; bool good, bad; };     /* must be taken; must be refused; neither: either, but with a message */
struct edges { struct edge e[64]; size_t n; };

static inline void edge_add(struct edges *l, json_t *v, bool good, bool bad)
{
    if (v && l->n < ARRAY_SIZE(l->e))
        l->e[l->n++] = (struct edge){ v, good, bad };
    else
        json_decref(v);
}

static inline json_t *text_of(uint64_t v, bool is_signed)
{
    char buf[32];
    snprintf(buf, sizeof buf, is_signed ? "%lld" : "%llu", (long long)v);
    return json_string(buf);
}

static inline void number_edges(struct edges *l, const struct prop *p)
{
    bool sgn = p->type == PROP_T_S32 || p->type == PROP_T_S64, free_choice = !(p->flags & PF_POW2) && !p->changed;
    uint64_t lo, hi, top = sgn ? INT64_MAX : UINT64_MAX, bottom = sgn ? (uint64_t)INT64_MIN : 0;
    prop_limits(p, &lo, &hi);
    edge_add(l, text_of(lo, sgn), free_choice, false);
    edge_add(l, text_of(hi, sgn), free_choice, false);
    edge_add(l, text_of(p->def, sgn), false, false);
    if (lo != bottom)
        edge_add(l, text_of(lo - 1, sgn), false, true);
    if (hi != top)
        edge_add(l, text_of(hi + 1, sgn), false, true);
    edge_add(l, json_string("99999999999999999999999"), false, true);
    edge_add(l, json_string("12x"), false, true);
    edge_add(l, json_string(""), false, true);
    edge_add(l, json_real(1.5), false, !prop_is_size(p));
    if ((int64_t)hi >= 0)
        edge_add(l, json_integer((json_int_t)hi), free_choice, false);
}

static inline void enum_edges(struct edges *l, const struct prop *p)
{
    for (const char *const *n = p->of; *n; n++)
        edge_add(l, json_string(*n), !p->changed, false);
    edge_add(l, json_string("no-such-value"), false, true);
    edge_add(l, json_string(""), false, true);
}

static inline json_t *long_text(void)
{
    char *s = malloc(70001);
    memset(s, 'x', 70000);
    s[70000] = 0;
    json_t *v = json_string(s);
    free(s);
    return v;
}

static inline void edges_make(struct edges *l, const struct prop *p)
{
    l->n = 0;
    if ((p->type >= PROP_T_U8 && p->type <= PROP_T_SIZE)) {
        number_edges(l, p);
    } else if (p->type == PROP_T_BOOL || p->type == PROP_T_BIT) {
        edge_add(l, json_string("on"), !p->changed, false);
        edge_add(l, json_string("off"), !p->changed, false);
        edge_add(l, json_true(), !p->changed, false);
        edge_add(l, json_string("maybe"), false, true);
        edge_add(l, json_integer(7), false, true);
    } else if (p->type == PROP_T_TRI) {
        edge_add(l, json_string("auto"), !p->changed, false);
        edge_add(l, json_string("on"), !p->changed, false);
        edge_add(l, json_string("maybe"), false, true);
    } else if (p->type == PROP_T_ENUM) {
        enum_edges(l, p);
    } else {
        edge_add(l, json_string(""), false, p->type == PROP_T_MAC || p->type == PROP_T_UUID);
        edge_add(l, json_string("x"), p->type == PROP_T_STR && !p->changed, p->type == PROP_T_MAC || p->type == PROP_T_UUID || p->type == PROP_T_LINK);
        edge_add(l, json_string("52:54:00:12:34:56"), p->type == PROP_T_MAC, p->type == PROP_T_UUID);
        edge_add(l, json_string("1f.7"), p->type == PROP_T_PCI_ADDR, p->type == PROP_T_MAC);
        edge_add(l, json_string("20.0"), false, p->type == PROP_T_PCI_ADDR);
        edge_add(l, json_string("1.8"), false, p->type == PROP_T_PCI_ADDR);
        edge_add(l, long_text(), false, false);
    }
    /* Of no row's type, except those of the owner's choice. */
    bool any = p->type == PROP_T_JSON || p->type == PROP_T_STRV || p->type == PROP_T_LINK;
    edge_add(l, json_null(), false, !any);
    edge_add(l, json_object(), false, !any);
    edge_add(l, json_pack("[[]]"), false, !any);
}

static inline void edges_free(struct edges *l)
{
    for (size_t i = 0; i < l->n; i++)
        json_decref(l->e[i].v);
    l->n = 0;
}

static inline char *shown(json_t *v)
{
    char *s = json_dumps(v, JSON_ENCODE_ANY);
    if (s && strlen(s) > 60)
        strcpy(s + 56, "...");
    return s;
}

#endif
