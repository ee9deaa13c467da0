/* SPDX-License-Identifier: MIT */
/* Classes, instances, the tree, ids. Creation from options is in obj_create.c. */
#include "core/obj.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "core/obj_alias.h"
#include "core/prop_int.h"

/* ---- classes ---- */

const struct obj_class *obj_class_find(const char *name)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        if (!strcmp(c->name, name) || str_in_list(name, c->aliases))
            return c;
    }
    return NULL;
}

bool obj_class_is(const struct obj_class *c, const struct obj_class *base)
{
    for (; c; c = c->base)
        if (c == base)
            return true;
    return false;
}

const char *obj_class_ns(const struct obj_class *c)
{
    for (; c; c = c->base)
        if (c->ns)
            return c->ns;
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct obj_class *const *)a)->name, (*(const struct obj_class *const *)b)->name);
}

const struct obj_class *const *obj_class_list(const struct obj_class *base, bool with_abstract)
{
    static const struct obj_class **list;
    size_t n = 0;

    list = xrealloc(list, (size_t)(__stop_obj_classes - __start_obj_classes + 1) * sizeof *list);
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        if ((!base || obj_class_is(c, base)) && (with_abstract || !(c->flags & OCF_ABSTRACT)))
            list[n++] = c;
    }
    qsort(list, n, sizeof *list, by_name);
    list[n] = NULL;
    return list;
}

bool obj_prop_find(const struct obj_class *c, const char *name, struct prop *out)
{
    for (; c; c = c->base)
        if (prop_find(c->props, name, out))
            return true;
    return false;
}

const struct prop_absent *obj_prop_absent(const struct obj_class *c, const char *name)
{
    for (; c; c = c->base)
        LINKSET_EACH(prop_absent, struct prop_absent, a) {
            if (!strcmp(a->cls, c->name) && !strcmp(a->name, name))
                return a;
        }
    return NULL;
}

bool obj_prop_nth(const struct obj_class *c, size_t i, struct prop *out)
{
    for (; c; c = c->base) {
        size_t n = 0;

        if (prop_nth(c->props, i, out))
            return true;
        while (prop_nth(c->props, n, out))
            n++;
        i -= n;
    }
    return false;
}

static const char *user_class_name(const void *base, size_t i)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        if (!obj_class_is(c, base) || (c->flags & (OCF_ABSTRACT | OCF_INTERNAL)))
            continue;
        if (i-- == 0)
            return c->name;
        for (const char *const *a = c->aliases; a && *a; a++)
            if (i-- == 0)
                return *a;
    }
    return NULL;
}

bool obj_absent_error(const struct obj_class *base, const char *what, const char *name, struct err *e)
{
    LINKSET_EACH(obj_absent, struct obj_absent, a) {
        if (!strcmp(a->name, name) && a->base == base) {
            err_set(e, ERR_NOT_BUILT, "%s '%s' is not in this build", what, name);
            err_hint(e, "it needs %s", a->needs);
            return true;
        }
    }
    return false;
}

bool obj_class_unknown(const struct obj_class *base, const char *what, const char *name, struct err *e)
{
    const struct obj_class *c = obj_class_find(name);

    if (obj_absent_error(base, what, name, e))
        return false;
    if (c && obj_class_is(c, base)) {
        err_set(e, ERR_UNKNOWN, "%s '%s' cannot be created by a user", what, name);
        return err_hint(e, c->flags & OCF_ABSTRACT ? "it is the common part of others" : "the board brings it");
    }
    err_unknown(e, what, name, "", user_class_name, base);
    if (c && !e->hint[0])
        err_hint(e, "'%s' exists, but is not a %s", name, what);
    return false;
}

/* ---- namespaces and containers ---- */

struct ns { const char *name, *container, *parent; struct list objs; struct obj *at; };

static struct ns spaces[] = {
    { "object", "objects", NULL, LIST_INIT(spaces[0].objs), NULL },
    { "chardev", "chardevs", NULL, LIST_INIT(spaces[1].objs), NULL },
    { "netdev", "netdevs", NULL, LIST_INIT(spaces[2].objs), NULL },
    { "blockdev", "blockdevs", NULL, LIST_INIT(spaces[3].objs), NULL },
    { "device", "peripheral", "machine", LIST_INIT(spaces[4].objs), NULL },
    { "bus", "buses", "machine", LIST_INIT(spaces[5].objs), NULL },
    { "export", "exports", NULL, LIST_INIT(spaces[6].objs), NULL },
    { "job", "jobs", NULL, LIST_INIT(spaces[7].objs), NULL },
};

static const struct obj_class container_class = {
    .name = "container", .desc = "A folder of the object tree", .size = sizeof(struct obj), .flags = OCF_INTERNAL,
};
OBJ_CLASS(&container_class);

static struct ns *ns_find(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_SIZE(spaces); i++)
        if (!strcmp(spaces[i].name, name))
            return &spaces[i];
    return NULL;
}

static void obj_init_header(struct obj *o, const struct obj_class *c, const char *id)
{
    o->cls = c;
    o->id = xstrdup(id);
    list_init(&o->children);
    list_init(&o->sibling);
    list_init(&o->in_ns);
    atomic_init(&o->refs, 1);
}

static struct obj *container_new(const char *id, struct obj *parent)
{
    struct obj *o = xcalloc(1, sizeof *o);

    obj_init_header(o, &container_class, id);
    o->in_tree = true;
    o->parent = parent;
    if (parent)
        list_push(&parent->children, &o->sibling);
    return o;
}

struct obj *obj_root(void)
{
    static struct obj *root;

    if (!root)
        root = container_new("", NULL);
    return root;
}

static struct obj *child_named(struct obj *o, const char *id, size_t n)
{
    struct obj *c;

    list_for_each(c, &o->children, sibling)
        if (!strncmp(c->id, id, n) && !c->id[n])
            return c;
    return NULL;
}

static struct obj *container_named(struct obj *parent, const char *id)
{
    struct obj *o = child_named(parent, id, strlen(id));

    return o ? o : container_new(id, parent);
}

struct obj *obj_container(const char *ns)
{
    struct ns *s = ns_find(ns);

    if (!s)                                 /* "machine/unattached"-like: by its own name below /machine */
        return container_named(container_named(obj_root(), "machine"), ns);
    return container_named(s->parent ? container_named(obj_root(), s->parent) : obj_root(), s->container);
}

/* ---- instances ---- */

struct global { struct global *next; char *cls, *prop, *value; bool used; };
static struct global *globals;

static const char *class_prop_name(const void *c, size_t i)
{
    static struct prop p;

    return obj_prop_nth(c, i, &p) ? p.name : NULL;
}

bool obj_global_add(const char *cls, const char *prop, const char *value, struct err *e)
{
    const struct obj_class *c = obj_class_find(cls);
    struct global *g, **at;
    struct prop p;

    if (!c)
        return err_set(e, ERR_UNKNOWN, "no class '%s' to set '%s' of", cls, prop);
    if (!obj_prop_find(c, prop, &p)) {
        const struct prop_absent *a = obj_prop_absent(c, prop);

        return a ? prop_absent_error(prop, "", a->why, e) : err_unknown(e, "property", prop, "", class_prop_name, c);
    }
    g = xnew(struct global);
    *g = (struct global){ NULL, xstrdup(c->name), xstrdup(prop), xstrdup(value), false };
    for (at = &globals; *at; at = &(*at)->next)
        ;
    *at = g;
    return true;
}

const char *obj_global_unused(size_t i)
{
    static char name[192];

    for (struct global *g = globals; g; g = g->next)
        if (!g->used && i-- == 0) {
            snprintf(name, sizeof name, "%s.%s", g->cls, g->prop);
            return name;
        }
    return NULL;
}

static bool globals_apply(struct obj *o, struct err *e)
{
    for (struct global *g = globals; g; g = g->next) {
        const struct obj_class *c = obj_class_find(g->cls);

        if (!obj_class_is(o->cls, c))
            continue;
        g->used = true;
        if (!obj_set(o, g->prop, g->value, e))
            return err_prefix(e, "-global %s.%s=%s", g->cls, g->prop, g->value);
    }
    return true;
}

static void defaults_chain(const struct obj_class *c, struct obj *o)
{
    if (c->base)
        defaults_chain(c->base, o);
    prop_defaults(c->props, o);
}

static bool init_chain(const struct obj_class *c, struct obj *o, struct err *e)
{
    if (c->base && !init_chain(c->base, o, e))
        return false;
    return !c->init || c->init(o, e);
}

struct obj *obj_new(const struct obj_class *c, const char *id, struct err *e)
{
    struct obj *o = calloc(1, c->size);

    if (!o) {
        err_set(e, ERR_GENERIC, "out of memory for a '%s'", c->name);
        return NULL;
    }
    obj_init_header(o, c, id);
    defaults_chain(c, o);
    if (!init_chain(c, o, e) || !globals_apply(o, e)) {
        obj_unref(o);
        return NULL;
    }
    return o;
}

struct obj *obj_ref(struct obj *o)
{
    if (o)
        atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    return o;
}

void obj_unref(struct obj *o)
{
    if (!o || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (const struct obj_class *c = o->cls; c; c = c->base)
        if (c->finalize)
            c->finalize(o);
    for (const struct obj_class *c = o->cls; c; c = c->base)
        prop_release(c->props, o);
    free(o->id);
    free(o);
}

/* ---- the tree ---- */

bool obj_id_ok(const char *id)
{
    if (!isalpha((unsigned char)*id))
        return false;
    for (; *id; id++)
        if (!isalnum((unsigned char)*id) && !strchr("-._", *id))
            return false;
    return true;
}

bool obj_add(struct obj *o, struct obj *parent, struct err *e)
{
    static unsigned anonymous;
    const char *ns_name = obj_class_ns(o->cls);
    struct ns *ns = ns_find(ns_name);

    if (!o->id) {
        o->id = xasprintf("#%s%u", o->cls->name, anonymous++);
    } else if (o->user && !obj_id_ok(o->id)) {
        err_set(e, ERR_VALUE, "'%s' is not a valid id", o->id);
        return err_hint(e, "an id begins with a letter; letters, digits, '-', '.' and '_' follow");
    } else if (ns && obj_find(ns->name, o->id)) {
        return err_set(e, ERR_BUSY, "%s %s with the id '%s' exists already", strchr("aeiou", ns->name[0]) ? "an" : "a", ns->name, o->id);
    }
    if (!parent)
        parent = ns ? obj_container(ns->name) : obj_root();
    o->parent = parent;
    list_push(&parent->children, &o->sibling);
    if (ns)
        list_push(&ns->objs, &o->in_ns);
    o->in_tree = true;
    obj_ref(o);
    return true;
}

bool obj_take_over(struct obj *o, struct err *e)
{
    struct obj *old = child_named(obj_root(), o->id, strlen(o->id)), *c;

    if (old && old->cls != &container_class)
        return err_set(e, ERR_BUSY, "there is a '%s' already", o->id);
    if (!obj_add(o, NULL, e))
        return false;
    while (old && (c = list_first(&old->children, struct obj, sibling))) {
        list_del(&c->sibling);
        list_push(&o->children, &c->sibling);
        c->parent = o;
    }
    if (old)
        obj_del(old);
    return true;
}

void obj_del(struct obj *o)
{
    struct obj *c;

    if (!o->in_tree)
        return;
    while ((c = list_first(&o->children, struct obj, sibling)))
        obj_del(c);
    obj_alias_drop(o);
    list_del(&o->sibling);
    list_del(&o->in_ns);
    o->in_tree = false;
    o->parent = NULL;
    obj_unref(o);
}

/* ---- second names ---- */

struct alias { struct list link; char *name; struct obj *of; };
static struct list aliases = LIST_INIT(aliases);

static struct alias *alias_find(const char *ns, const char *name)
{
    struct alias *a;

    list_for_each(a, &aliases, link)
        if (str_eq(obj_class_ns(a->of->cls), ns) && !strcmp(a->name, name))
            return a;
    return NULL;
}

static void alias_free(struct alias *a)
{
    list_del(&a->link);
    free(a->name);
    free(a);
}

void obj_alias_drop(const struct obj *o)
{
    struct alias *a;

    list_for_each(a, &aliases, link)
        if (a->of == o) {
            alias_free(a);
            return;
        }
}

void obj_alias_set(struct obj *o, const char *name)
{
    struct alias *before = alias_find(obj_class_ns(o->cls), name), *a = xnew(struct alias);

    if (before)
        alias_free(before);
    obj_alias_drop(o);
    a->name = xstrdup(name);
    a->of = o;
    list_push(&aliases, &a->link);
}

struct obj *obj_find(const char *ns, const char *id)
{
    struct ns *s = ns_find(ns);
    struct alias *a;
    struct obj *o;

    if (s)
        list_for_each(o, &s->objs, in_ns)
            if (!strcmp(o->id, id))
                return o;
    a = s ? alias_find(ns, id) : NULL;
    return a ? a->of : NULL;
}

static const char *ns_id(const void *table, size_t i)
{
    const struct ns *s = table;
    struct obj *o;

    if (s)
        list_for_each(o, &s->objs, in_ns)
            if (o->id[0] != '#' && i-- == 0)
                return o->id;
    return NULL;
}

struct obj *obj_lookup(const struct obj_class *base, const char *id, struct err *e)
{
    const char *ns = obj_class_ns(base);
    struct obj *o = obj_find(ns, id);
    /* DeviceNotFound is of devices and of what objects link to by a path; what back ends' names say is not there is a GenericError. */
    enum err_class cls = ns && strcmp(ns, "device") && strcmp(ns, "object") ? ERR_UNKNOWN : ERR_NOT_FOUND;
    const char *near;

    if (o && o->making) {
        err_set(e, ERR_BUSY, "'%s' is not ready yet: it is being made", id);
        return NULL;
    }
    if (o && obj_is(o, base))
        return o;
    if (o) {
        err_set(e, cls, "'%s' is a '%s', not a '%s'", id, o->cls->name, base->name);
        return NULL;
    }
    err_set(e, cls, "there is no %s with the id '%s'", ns ? ns : "object", id);
    near = err_nearest(id, ns_id, ns_find(ns));
    if (near)
        err_hint(e, "did you mean '%s'?", near);
    else if (ns && strcmp(ns, "device") && strcmp(ns, "bus"))
        err_hint(e, "make one with -%s ...,%s=%s", ns, strcmp(ns, "blockdev") ? "id" : "node-name", id);
    return NULL;
}

char *obj_path(const struct obj *o)
{
    char *up, *path;

    if (!o->parent)
        return xstrdup("/");
    up = obj_path(o->parent);
    path = xasprintf("%s%s%s", up, up[1] ? "/" : "", o->id);
    free(up);
    return path;
}

static struct obj *resolve_below(struct obj *o, const char *path)
{
    while (o && *path) {
        size_t n = strcspn(path, "/");

        o = child_named(o, path, n);
        path += n;
        path += strspn(path, "/");
    }
    return o;
}

struct partial { const char *path; struct obj *found; bool many; };

static bool partial_match(struct obj *o, void *arg)
{
    struct partial *p = arg;
    struct obj *f = resolve_below(o, p->path);

    if (f && f != o) {
        p->many = p->found && p->found != f;
        p->found = f;
    }
    return !p->many;
}

struct obj *obj_resolve(const char *path)
{
    struct partial p = { path, NULL, false };

    if (*path == '/')
        return resolve_below(obj_root(), path + strspn(path, "/"));
    obj_each(NULL, NULL, partial_match, &p);
    return p.many ? NULL : p.found;
}

bool obj_each(struct obj *root, const struct obj_class *c, bool (*fn)(struct obj *, void *), void *arg)
{
    struct obj *child;
    bool on;

    root = obj_ref(root ? root : obj_root());           /* @fn may take it out of the tree */
    on = (c && !obj_is(root, c)) || fn(root, arg);
    list_for_each(child, &root->children, sibling)
        if (on)
            on = obj_each(child, c, fn, arg);
    obj_unref(root);
    return on;
}
