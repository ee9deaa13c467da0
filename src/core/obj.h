/* SPDX-License-Identifier: MIT */
/*
 * The object tree. Classes are const tables with one base each; an instance begins with its base's header.
 * Ids live in a namespace ("chardev", "netdev", "blockdev", "object", "device", "bus"), as on QEMU's command line.
 * The tree is changed on the main loop only; references may be counted from any thread.
 */
#ifndef CORE_OBJ_H
#define CORE_OBJ_H

#include <stdatomic.h>
#include "base/err.h"
#include "base/linkset.h"
#include "base/list.h"
#include "core/prop.h"

struct obj;

enum {
    OCF_ABSTRACT = 1 << 0,      /* cannot be created; a base of others */
    OCF_INTERNAL = 1 << 1,      /* created by boards only, never by a user; in help only where asked */
};

struct obj_class {
    const char *name, *desc;            /* type name; one line for `help` (mandatory unless abstract) */
    const struct obj_class *base;
    size_t size;                        /* of an instance */
    const struct prop *props;           /* this class's rows; the bases' rows count too */
    const char *const *aliases;         /* other type names, NULL-terminated, or NULL */
    unsigned flags;                     /* OCF_* */
    const char *ns;                     /* namespace of ids; inherited from the base where NULL */
    bool (*init)(struct obj *, struct err *);       /* after defaults, before options; base first. May be NULL */
    bool (*check)(struct obj *, struct err *);      /* options together make sense; base first. May be NULL */
    bool (*complete)(struct obj *, struct err *);   /* back ends: open, bind, allocate; most derived one only. NULL for devices */
    bool (*can_delete)(struct obj *, struct err *); /* NULL: whenever nobody refers to it */
    void (*finalize)(struct obj *);                 /* mirror of complete/init; derived first. Props are released after */
};

struct obj {
    const struct obj_class *cls;
    char *id;                           /* never NULL once added; anonymous ones get "#typeN" */
    struct obj *parent;
    struct list children, sibling;
    struct list in_ns;
    atomic_uint refs;
    bool in_tree, user;                 /* user: made by -object, -device..., not by a board */
    bool making;                        /* its complete(), which may wait, has not ended: nobody else can use or delete it */
};

LINKSET_DECLARE(obj_classes, struct obj_class);
#define OBJ_CLASS(c) LINKSET_ADD(obj_classes, struct obj_class, c)

/* Class look-up by name or alias; NULL if none. ANY. */
const struct obj_class *obj_class_find(const char *name);
bool obj_class_is(const struct obj_class *c, const struct obj_class *base);
/* A person may create it. */
static inline bool obj_class_shown(const struct obj_class *c) { return !(c->flags & (OCF_ABSTRACT | OCF_INTERNAL)); }
const char *obj_class_ns(const struct obj_class *c);
/* Every class derived from @base (which may be NULL), sorted by name. Ends with NULL; static storage until the next call: main loop. */
const struct obj_class *const *obj_class_list(const struct obj_class *base, bool with_abstract);
/* The row @name of the class or its bases; the i-th row over the whole chain (bases last). */
bool obj_prop_find(const struct obj_class *c, const char *name, struct prop *out);
bool obj_prop_nth(const struct obj_class *c, size_t i, struct prop *out);
/* Whether @name is one that QEMU has and this build lacks; then @e says so and what it would need. */
bool obj_absent_error(const struct obj_class *base, const char *what, const char *name, struct err *e);
/* Error for a name that is no class derived from @base: "no such device 'x'", nearest name, or "not in this build". Returns false. */
bool obj_class_unknown(const struct obj_class *base, const char *what, const char *name, struct err *e);

/* A new instance with defaults and init done; refs 1. NULL with @e filled. Main loop. */
struct obj *obj_new(const struct obj_class *c, const char *id, struct err *e) MUST_CHECK;
/* obj_new + options + check + complete + add to @parent (NULL: the namespace's container). Takes its own copy of @opts. Main loop. */
struct obj *obj_create(const struct obj_class *c, const char *id, json_t *opts, struct obj *parent, struct err *e) MUST_CHECK;
bool obj_set_opts(struct obj *o, json_t *opts, const char *what, struct err *e) MUST_CHECK;
bool obj_check(struct obj *o, struct err *e) MUST_CHECK;
/* Sets one property from text. */
bool obj_set(struct obj *o, const char *name, const char *value, struct err *e) MUST_CHECK;
/* Puts it in the tree; refuses a duplicate or ill-formed id. The tree holds one reference of its own. */
bool obj_add(struct obj *o, struct obj *parent, struct err *e) MUST_CHECK;
/*
 * Puts it below the root, in the place of the container that was made for its children before it existed ("/machine"), whose children it
 * gets. Only for an @o whose class has no namespace.
 */
bool obj_take_over(struct obj *o, struct err *e) MUST_CHECK;
/* Takes it (and its children) out of the tree and drops the tree's reference. */
void obj_del(struct obj *o);
/* As a user asks (object-del...): refuses while others refer to it, naming who. */
bool obj_user_delete(struct obj *o, struct err *e) MUST_CHECK;
struct obj *obj_ref(struct obj *o);
void obj_unref(struct obj *o);                      /* NULL is fine; finalizes at zero */

/* By id in a namespace; NULL if none. Main loop. */
struct obj *obj_find(const char *ns, const char *id);
/* The same with class check and an error that names the nearest id. */
struct obj *obj_lookup(const struct obj_class *base, const char *id, struct err *e);
bool obj_id_ok(const char *id);                     /* letters, digits, - . _ ; begins with a letter */
struct obj *obj_root(void);
struct obj *obj_container(const char *ns);          /* "/chardevs", "/machine/peripheral"... made on first use */
/* "/machine/peripheral/nic0"; caller frees. And back: absolute, or partial as QMP allows. */
char *obj_path(const struct obj *o);
struct obj *obj_resolve(const char *path);
static inline bool obj_is(const struct obj *o, const struct obj_class *c) { return o && obj_class_is(o->cls, c); }
/* Calls @fn for every object of class @c in the tree, depth first; stops when it returns false. @fn may delete what it is called with. Main loop. */
bool obj_each(struct obj *root, const struct obj_class *c, bool (*fn)(struct obj *, void *), void *arg);

/* -global CLASS.PROP=VALUE: the default of every later instance of the class. Main loop. */
bool obj_global_add(const char *cls, const char *prop, const char *value, struct err *e) MUST_CHECK;
/* The i-th global that no instance has used, as "class.prop"; NULL after the last. Static storage until the next call. */
const char *obj_global_unused(size_t i);

/* A class that exists, but not in this build: the message says what it needs, a library that is missing or what nothing here has. */
struct obj_absent { const char *name; const struct obj_class *base; const char *needs; };
LINKSET_DECLARE(obj_absent, struct obj_absent);
#define OBJ_ABSENT(name, base, needs) LINKSET_ADD(obj_absent, struct obj_absent, (&(const struct obj_absent){ name, base, needs }))

/* An option that QEMU's class of this name has (@cls: it, or one that it derives from) and nothing here stands for; @why, and what to write instead. */
struct prop_absent { const char *cls, *name, *why; };
LINKSET_DECLARE(prop_absent, struct prop_absent);
#define PROP_ABSENT(cls, name, why) LINKSET_ADD(prop_absent, struct prop_absent, (&(const struct prop_absent){ cls, name, why }))
/* The row of @name for @c or its bases; NULL: the name is not known at all. */
const struct prop_absent *obj_prop_absent(const struct obj_class *c, const char *name);

#endif
