/* SPDX-License-Identifier: MIT */
/* Every class of the program: it is described, its defaults are in range, its help says something, its properties take what they
 * should and refuse the rest with a message. tests/unit/test_class_life.c brings the devices among them to life. */
#include "classes.h"

#include "core/backend.h"
#include "core/help.h"
#include "cpu/riscv/hart.h"
#include "machine/machine.h"
#include "loop/loop.h"

static bool is_device(const struct obj_class *c) { return obj_class_is(c, &dev_obj_class); }

static bool one_sentence(const char *s)
{
    return s && *s && s[strlen(s) - 1] != '.' && !strchr(s, '\n');
}

static void test_described(void **state)
{
    static const char *const cats[] = { "Storage", "Network", "USB", "Input", "Display", "Sound", "Bridge", "CPU", "Misc", "Board", NULL };
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct prop p;
        if (!(c->flags & OCF_ABSTRACT) && !one_sentence(c->desc))
            fail_msg("class %s: desc must be one line without a full stop", c->name);
        for (size_t i = 0; obj_prop_nth(c, i, &p); i++)
            if (!one_sentence(p.doc))
                fail_msg("class %s: option %s: doc must be one line without a full stop", c->name, p.name);
        if (!is_device(c) || (c->flags & OCF_ABSTRACT))
            continue;
        const struct dev_class *d = (const struct dev_class *)c;
        if (!d->cat || !str_in_list(d->cat, cats))
            fail_msg("device %s: category '%s'", c->name, d->cat ? d->cat : "(none)");
        if (!d->state && !d->state_none)
            fail_msg("device %s: neither saved state nor a reason why there is none", c->name);
    }
}

static void test_names_are_unique(void **state)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct prop p, q;
        if (obj_class_find(c->name) != c)
            fail_msg("two classes answer to '%s'", c->name);
        for (const char *const *a = c->aliases; a && *a; a++)
            if (obj_class_find(*a) != c)
                fail_msg("two classes answer to '%s'", *a);
        for (size_t i = 0; obj_prop_nth(c, i, &p); i++)
            for (size_t j = i + 1; obj_prop_nth(c, j, &q); j++)
                if (!strcmp(p.name, q.name))
                    fail_msg("class %s has the option '%s' twice", c->name, p.name);
    }
}

static void test_defaults_are_in_range(void **state)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct prop p;
        for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
            uint64_t lo, hi, names = 0;
            if (p.off < sizeof(struct obj) || p.off >= c->size)
                fail_msg("class %s: option %s lies outside the object", c->name, p.name);
            if (p.type == PROP_T_ENUM) {
                for (const char *const *n = p.of; *n; n++)
                    names++;
                if (p.def >= names)
                    fail_msg("class %s: option %s: default %llu of %llu names", c->name, p.name, (unsigned long long)p.def, (unsigned long long)names);
            }
            if (p.type < PROP_T_U8 || p.type > PROP_T_SIZE || (p.flags & PF_REQUIRED))
                continue;
            prop_limits(&p, &lo, &hi);
            bool sgn = p.type == PROP_T_S32 || p.type == PROP_T_S64;
            bool in = sgn ? (int64_t)p.def >= (int64_t)lo && (int64_t)p.def <= (int64_t)hi : p.def >= lo && p.def <= hi;
            if (!in && p.def)           /* 0: not given, which the class's check() sees */
                fail_msg("class %s: option %s: default %lld is out of range", c->name, p.name, (long long)p.def);
        }
    }
}

/* What is told to be absent is an option of a class that is there, and is absent. */
static void test_absent_options(void **state)
{
    LINKSET_EACH(prop_absent, struct prop_absent, a) {
        const struct obj_class *c = obj_class_find(a->cls);
        struct prop p;

        if (!c)
            fail_msg("no class '%s', whose option %s is told to be absent", a->cls, a->name);
        if (obj_prop_find(c, a->name, &p))
            fail_msg("class %s has the option '%s', which is told to be absent", a->cls, a->name);
        if (!one_sentence(a->why) || obj_prop_absent(c, a->name) != a)
            fail_msg("class %s: absent option %s: the reason must be one line without a full stop, in one row", a->cls, a->name);
    }
}

/* What is told to be not in this build is in it under no name. */
static void test_absent_classes(void **state)
{
    LINKSET_EACH(obj_absent, struct obj_absent, a) {
        struct err e = { 0 };

        bool by_class = a->base == &dev_obj_class || a->base == &rv_cpu_class, board = a->base == &machine_base_class;

        if ((by_class && obj_class_find(a->name)) || (board && machine_class_find(a->name)))
            fail_msg("%s '%s' is here, and is told to be absent", a->base->name, a->name);
        if (!by_class && !board && backend_find(a->base, a->name, &e))
            fail_msg("%s type '%s' is here, and is told to be absent", a->base->name, a->name);
        if (!one_sentence(a->needs))
            fail_msg("%s '%s': what it needs must be one line without a full stop", a->base->name, a->name);
        LINKSET_EACH(obj_absent, struct obj_absent, b) {
            if (a != b && a->base == b->base && !strcmp(a->name, b->name))
                fail_msg("%s '%s' is told to be absent twice", a->base->name, a->name);
        }
    }
}

static void test_help(void **state)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct str out = { 0 };
        struct prop p;
        if (c->flags & OCF_ABSTRACT)
            continue;
        help_class(c, &out);
        if (!strstr(out.s, c->desc))
            fail_msg("help of %s does not describe it", c->name);
        for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
            char row[128];
            snprintf(row, sizeof row, "  %s=<", p.name);
            if (!(p.flags & PF_HIDDEN) && (!strstr(out.s, row) || !strstr(out.s, p.doc)))
                fail_msg("help of %s lacks option %s", c->name, p.name);
        }
        str_free(&out);
    }
}

/* check() may rely on what must be given. */
static bool lacks_required(const struct obj_class *c, const struct prop *given)
{
    struct prop p;
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++)
        if ((p.flags & PF_REQUIRED) && strcmp(p.name, given->name))
            return true;
    return false;
}

/* One value into a new instance of @c. */
static void try_value(const struct obj_class *c, const struct prop *p, const struct edge *x)
{
    struct err e = ERR_INIT;
    char *s = shown(x->v);
    AT_WORK("%s,%s=%s", c->name, p->name, s);
    struct obj *o = obj_new(c, "edge", &e);
    if (!o)
        fail_msg("%s: %s", at_work, e.msg);
    bool ok = prop_set(p, o, o, x->v, &e);
    if (ok && x->bad)
        fail_msg("%s was taken", at_work);
    if (!ok && x->good)
        fail_msg("%s: %s", at_work, e.msg);
    if (!ok && !e.msg[0])
        fail_msg("%s was refused without a word", at_work);
    if (ok) {
        struct str out = { 0 };
        json_t *v = prop_to_json(p, o, o);
        prop_format(p, o, o, &out);
        if (!v)
            fail_msg("%s: has no JSON value", at_work);
        json_decref(v);
        str_free(&out);
        e = (struct err)ERR_INIT;
        if (!lacks_required(c, p) && !obj_check(o, &e) && !e.msg[0])
            fail_msg("%s: check refused it without a word", at_work);
    }
    obj_unref(o);
    free(s);
}

static void test_values(void **state)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct prop p;
        for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
            struct edges l;
            if ((c->flags & OCF_ABSTRACT) || (p.flags & PF_READONLY))
                continue;
            edges_make(&l, &p);
            for (size_t k = 0; k < l.n; k++)
                try_value(c, &p, &l.e[k]);
            edges_free(&l);
        }
    }
}

static void test_unknown_option_names_the_nearest(void **state)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct err e = ERR_INIT;
        struct prop p;
        if ((c->flags & OCF_ABSTRACT) || !obj_prop_nth(c, 0, &p) || strlen(p.name) < 5 || (p.flags & PF_HIDDEN))
            continue;
        AT_WORK("%s", c->name);
        char wrong[128];
        snprintf(wrong, sizeof wrong, "%sx", p.name);
        struct prop q;
        if (obj_prop_find(c, wrong, &q))
            continue;
        struct obj *o = obj_new(c, "edge", &e);
        json_t *opts = json_pack("{ss}", wrong, "1");
        if (obj_set_opts(o, opts, "it", &e) || !strstr(e.msg, wrong) || !strstr(e.hint, p.name))
            fail_msg("%s,%s=1: %s / %s", c->name, wrong, e.msg, e.hint);
        json_decref(opts);
        obj_unref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_described), cmocka_unit_test(test_names_are_unique), cmocka_unit_test(test_defaults_are_in_range),
        cmocka_unit_test(test_absent_options),
        cmocka_unit_test(test_absent_classes), cmocka_unit_test(test_help), cmocka_unit_test(test_values), cmocka_unit_test(test_unknown_option_names_the_nearest),
    };
    struct err e = ERR_INIT;
    classes_init();
    if (!loop_main_init(&e))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
