/* SPDX-License-Identifier: MIT */
/* Objects from options, and their deletion as a user asks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opt.h"
#include "core/obj.h"
#include "core/prop_int.h"

static bool class_nth(const void *c, size_t i, struct prop *out) { return obj_prop_nth(c, i, out); }
static bool class_find(const void *c, const char *name, struct prop *out) { return obj_prop_find(c, name, out); }

static const char *class_absent(const void *c, const char *name)
{
    const struct prop_absent *a = obj_prop_absent(c, name);

    return a ? a->why : NULL;
}

bool obj_set_opts(struct obj *o, json_t *opts, const char *what, struct err *e)
{
    const struct prop_rows rows = { o->cls, class_nth, class_find, class_absent };

    return prop_rows_set_all(&rows, o, o, opts, what, e);
}

static bool check_chain(const struct obj_class *c, struct obj *o, struct err *e)
{
    if (c->base && !check_chain(c->base, o, e))
        return false;
    return !c->check || c->check(o, e);
}

bool obj_check(struct obj *o, struct err *e)
{
    return check_chain(o->cls, o, e);
}

bool obj_set(struct obj *o, const char *name, const char *value, struct err *e)
{
    const struct prop_rows rows = { o->cls, class_nth, class_find, class_absent };
    json_t *v = json_string(value);
    char what[96];
    bool ok;

    if (!v)
        return err_set(e, ERR_VALUE, "the value of '%s' is not UTF-8", name);
    snprintf(what, sizeof what, "'%s'", o->cls->name);
    ok = prop_rows_set(&rows, o, o, name, v, what, e);
    json_decref(v);
    return ok;
}

static bool complete(struct obj *o, struct err *e)
{
    for (const struct obj_class *c = o->cls; c; c = c->base)
        if (c->complete)
            return c->complete(o, e);
    return true;
}

/* "netdev 'user'", "object 'rng-random'", "riscv-cpu 'rv64'": kind and type as they are typed. */
static void describe(const struct obj_class *c, char *buf, size_t n)
{
    const char *kind = obj_class_ns(c), *type = c->name;
    const struct obj_class *root = c;

    while (root->base)
        root = root->base;
    kind = kind ? kind : root->name;
    if (str_starts(type, kind) && type[strlen(kind)] == '-')
        type += strlen(kind) + 1;
    snprintf(buf, n, "%s '%s'", kind, type);
}

struct obj *obj_create(const struct obj_class *c, const char *id, json_t *opts, struct obj *parent, struct err *e)
{
    struct obj *o = obj_new(c, id, e);
    char what[128];
    bool ok;

    if (!o)
        return NULL;
    describe(c, what, sizeof what);
    o->user = id != NULL;
    o->making = true;
    /* In the tree before complete(): what it opens may be named; the id is checked first, so that nothing is opened in vain. */
    ok = obj_set_opts(o, opts, what, e) && obj_check(o, e) && obj_add(o, parent, e);
    if (ok && !complete(o, e)) {
        obj_del(o);
        ok = false;
    }
    o->making = false;
    obj_unref(o);                           /* the tree holds its own */
    return ok ? o : NULL;
}

struct holder { const struct obj *of; const struct obj *who; };

static bool find_holder(struct obj *o, void *arg)
{
    struct holder *h = arg;
    struct prop p;

    for (size_t i = 0; obj_prop_nth(o->cls, i, &p); i++)
        if (p.type == PROP_T_LINK && *(struct obj **)((char *)o + p.off) == h->of)
            h->who = o;
    return !h->who;
}

bool obj_user_delete(struct obj *o, struct err *e)
{
    struct holder h = { o, NULL };

    if (o->making)
        return err_set(e, ERR_BUSY, "'%s' is not ready yet: it is being made", o->id);
    for (const struct obj_class *c = o->cls; c; c = c->base)
        if (c->can_delete && !c->can_delete(o, e))
            return false;
    if (atomic_load(&o->refs) > 1) {
        obj_each(NULL, NULL, find_holder, &h);
        if (h.who)
            return err_set(e, ERR_BUSY, "'%s' is in use by '%s'", o->id, h.who->id);
        return err_set(e, ERR_BUSY, "'%s' is in use", o->id);
    }
    obj_del(o);
    return true;
}
