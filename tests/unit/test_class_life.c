/* SPDX-License-Identifier: MIT */
/*
 * Every device class that a user can make, on a board without CPUs that run: made with defaults and with each option at each edge
 * of its range, reset twice, saved, scrambled, loaded, compared, unplugged, made again. What an option names (a disk, a chardev...)
 * is made on the way; a bus that the board lacks is brought by whichever device has it.
 */
#include "classes.h"

#include "block/driver.h"
#include "core/run.h"
#include "loop/co.h"
#include "loop/loop.h"
#include "machine/machine.h"

/* Devices that stand only with something of the host behind them, which a test has no right to expect. */
static const struct { const char *name, *why; } need_host[] = {
    { "vhost-", "a vhost back end" }, { "vfio-", "a device of the host" }, { "usb-host", "a USB device of the host" },
    { "ivshmem", "a server" }, { "usb-redir", "a peer that speaks usbredir" },
    { "scsi-block", "a SCSI disk of the host" }, { "scsi-generic", "a SCSI device of the host" },
};

static const char *needs_host(const struct obj_class *c)
{
    for (size_t i = 0; i < ARRAY_SIZE(need_host); i++)
        if (str_starts(c->name, need_host[i].name))
            return need_host[i].why;
    return NULL;
}

static bool is_user_device(const struct obj_class *c)
{
    return obj_class_is(c, &dev_obj_class) && !(c->flags & (OCF_ABSTRACT | OCF_INTERNAL));
}

/* ---- the board ---- */

static void board_up(void)
{
    struct err e = ERR_INIT;
    json_t *o = json_pack("{ssss}", "type", "virt", "accel", "qtest");
    AT_WORK("board");
    if (!machine_create(o, &e))
        fail_msg("%s", e.msg);
    json_decref(o);
}

static void delete_all(const char *ns)
{
    struct obj *all = obj_container(ns), *o;
    while ((o = list_first(&all->children, struct obj, sibling)))
        obj_del(o);
}

static void board_down(void)
{
    machine_destroy();
    delete_all("netdev");
    delete_all("chardev");
    delete_all("blockdev");
    delete_all("object");
}

/* ---- what options name ---- */

static unsigned serial;

static const char *make_object(const struct obj_class *base)
{
    static char id[32];
    struct err e = ERR_INIT;
    snprintf(id, sizeof id, "o%u", serial++);
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        if (!obj_class_is(c, base) || (c->flags & (OCF_ABSTRACT | OCF_INTERNAL)))
            continue;
        struct prop size;
        json_t *o = obj_prop_find(c, "size", &size) ? json_pack("{si}", "size", 1 << 20) : json_object();
        struct obj *made = obj_create(c, id, o, NULL, &e);
        json_decref(o);
        if (made)
            return id;
    }
    return NULL;
}

/* The id of something that a LINK row may name; NULL if this test cannot make one. */
static const char *target_of(const struct prop *p)
{
    static char id[32];
    const struct obj_class *base = p->of;
    const char *ns = obj_class_ns(base);
    struct err e = ERR_INIT;
    struct obj *made = NULL;
    snprintf(id, sizeof id, "x%u", serial++);
    const char *type = str_eq(ns, "blockdev") ? "blockdev-null-co" : str_eq(ns, "chardev") ? "chardev-ringbuf"
                       : str_eq(ns, "netdev") ? "netdev-hubport" : NULL;
    if (!type)
        return make_object(base);
    json_t *o = str_eq(ns, "blockdev") ? json_pack("{si}", "size", 64 << 20) : str_eq(ns, "netdev") ? json_pack("{si}", "hubid", 0)
                                                                             : json_object();
    made = obj_create(obj_class_find(type), id, o, NULL, &e);
    json_decref(o);
    return made ? id : NULL;
}

/* Options that no row alone requires, for one of several would do. */
static const struct { const char *cls, *name, *value; } some[] = { { "loader", "addr", "0x80000000" }, { "loader", "cpu-num", "0" } };

/* Options without which the class cannot stand; NULL if they cannot be had. */
static json_t *needed(const struct obj_class *c)
{
    json_t *o = json_pack("{ss}", "driver", c->name);
    struct prop p;
    for (size_t i = 0; i < ARRAY_SIZE(some); i++)
        if (!strcmp(some[i].cls, c->name))
            json_object_set_new(o, some[i].name, json_string(some[i].value));
    for (size_t i = 0; obj_prop_nth(c, i, &p); i++) {
        bool disk = p.type == PROP_T_LINK && str_eq(obj_class_ns(p.of), "blockdev") && !strcmp(p.name, "drive");
        bool net = p.type == PROP_T_LINK && str_eq(obj_class_ns(p.of), "netdev");
        if (!(p.flags & PF_REQUIRED) && !disk && !net)
            continue;
        const char *v = p.type == PROP_T_LINK ? target_of(&p) : "1";
        if (!v && (p.flags & PF_REQUIRED)) {
            json_decref(o);
            return NULL;
        }
        if (v)
            json_object_set_new(o, p.name, json_string(v));
    }
    return o;
}

/* ---- making and unmaking ---- */

static void co_remove(void *arg) { co_dev_remove(arg); }

static void remove_dev(struct dev *d)
{
    co_run_main(co_remove, d);
    loop_run_once(loop_main(), 0);
}

static struct dev *make(json_t *opts, struct err *e)
{
    *e = (struct err)ERR_INIT;
    return dev_create_from_opts(opts, false, e);
}

struct has_bus { const struct bus_class *kind; bool yes; };

static bool see_bus(struct obj *o, void *arg)
{
    struct has_bus *h = arg;
    const struct bus *b = (const struct bus *)o;
    h->yes |= obj_is(o, &h->kind->obj) && (!BUS_CLASS(b)->full || !BUS_CLASS(b)->full(b));
    return !h->yes;
}

static bool bus_there(const struct bus_class *kind)
{
    struct has_bus h = { kind, false };
    obj_each(NULL, &bus_obj_class, see_bus, &h);
    return h.yes;
}

/* A bus of @kind with a free place, brought by some device if the board has none; that one's bus may have to be brought first. */
static bool bring_bus(const struct bus_class *kind, unsigned depth)
{
    struct err e;
    if (!kind || bus_there(kind))
        return true;
    for (unsigned far = 0; far < 2 && depth < 3; far++)
        LINKSET_EACH(obj_classes, struct obj_class, c) {
            const struct dev_class *d = (const struct dev_class *)c;
            if (!is_user_device(c) || needs_host(c) || d->plugs_into == kind)
                continue;
            if (d->plugs_into && !bus_there(d->plugs_into) && !(far && bring_bus(d->plugs_into, depth + 1)))
                continue;
            json_t *o = needed(c);
            struct dev *made = o ? make(o, &e) : NULL;
            json_decref(o);
            if (made && bus_there(kind))
                return true;
            if (made)
                remove_dev(made);
        }
    return false;
}

/* ---- one device ---- */

static void reset_twice(struct dev *d)
{
    dev_reset_tree(d, RESET_COLD);
    dev_reset_tree(d, RESET_COLD);
    dev_reset_tree(d, RESET_WARM);
}

static void save(struct dev *d, struct str *out)
{
    domain_lock(d->dom);
    state_save(DEV_CLASS(d)->state, d, out);
    domain_unlock(d->dom);
}

static void state_round_trip(struct dev *d)
{
    const struct state_desc *s = DEV_CLASS(d)->state;
    struct str before = { 0 }, after = { 0 };
    struct err e = ERR_INIT;
    if (!s)
        return;
    AT_WORK("%s: save, scramble, load", d->obj.cls->name);
    save(d, &before);
    domain_lock(d->dom);
    state_scramble(s, d, 12345);
    if (!state_load(s, d, before.s, before.len, &e))
        fail_msg("%s: its own state is refused: %s", d->obj.cls->name, e.msg);
    domain_unlock(d->dom);
    save(d, &after);
    if (before.len != after.len || memcmp(before.s, after.s, before.len))
        fail_msg("%s: what was loaded is not what was saved", d->obj.cls->name);
    /* A state that is cut short anywhere is refused with a message, or what it lacks is kept. */
    for (size_t n = 0; n < before.len; n += 1 + before.len / 50) {
        struct err e2 = ERR_INIT;
        domain_lock(d->dom);
        bool ok = state_load(s, d, before.s, n, &e2);
        domain_unlock(d->dom);
        if (!ok && !e2.msg[0])
            fail_msg("%s: a short state is refused without a word", d->obj.cls->name);
    }
    e = (struct err)ERR_INIT;
    domain_lock(d->dom);
    if (!state_load(s, d, before.s, before.len, &e))
        fail_msg("%s: %s", d->obj.cls->name, e.msg);
    domain_unlock(d->dom);
    str_free(&before);
    str_free(&after);
}

static void test_defaults(void **state)
{
    unsigned made = 0, not_made = 0;
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        const struct dev_class *dc = (const struct dev_class *)c;
        struct err e = ERR_INIT;
        if (!is_user_device(c))
            continue;
        board_up();
        AT_WORK("%s", c->name);
        json_t *o = bring_bus(dc->plugs_into, 0) ? needed(c) : NULL;
        for (int round = 0; round < 2 && o; round++) {
            AT_WORK("%s: made, round %d", c->name, round);
            struct dev *d = make(o, &e);
            if (!d) {
                if (!needs_host(c))
                    fail_msg("%s: %s (%s)", c->name, e.msg, e.hint);
                break;
            }
            made++;
            AT_WORK("%s: reset", c->name);
            reset_twice(d);
            state_round_trip(d);
            AT_WORK("%s: reset after load", c->name);
            reset_twice(d);
            AT_WORK("%s: removed", c->name);
            remove_dev(d);
        }
        if (!o && !needs_host(c))
            fail_msg("%s: no way to make what it needs", c->name);
        not_made += !o;
        json_decref(o);
        AT_WORK("%s: board down", c->name);
        board_down();
    }
    print_message("%u devices made, %u could not be\n", made, not_made);
    assert_true(made > 0);
}

/* The device with one option at one value: it stands or tells why not. */
static void try_option(const struct obj_class *c, json_t *base, const struct prop *p, const struct edge *x)
{
    struct err e = ERR_INIT;
    json_t *o = json_copy(base);
    char *s = shown(x->v);
    json_object_set(o, p->name, x->v);
    AT_WORK("%s,%s=%s", c->name, p->name, s);
    struct dev *d = make(o, &e);
    if (!d && !e.msg[0])
        fail_msg("%s was refused without a word", at_work);
    if (d && x->bad)
        fail_msg("%s was taken", at_work);
    if (d) {
        dev_reset_tree(d, RESET_COLD);
        remove_dev(d);
    }
    free(s);
    json_decref(o);
}

static void test_options(void **state)
{
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        const struct dev_class *dc = (const struct dev_class *)c;
        struct prop p;
        if (!is_user_device(c))
            continue;
        board_up();
        json_t *o = bring_bus(dc->plugs_into, 0) ? needed(c) : NULL;
        for (size_t i = 0; o && obj_prop_nth(c, i, &p); i++) {
            struct edges l;
            if (p.flags & PF_READONLY)
                continue;
            edges_make(&l, &p);
            for (size_t k = 0; k < l.n; k++)
                try_option(c, o, &p, &l.e[k]);
            edges_free(&l);
        }
        json_decref(o);
        board_down();
    }
}

/* ---- back ends ---- */

static void test_back_ends(void **state)
{
    static const char *const spaces[] = { "chardev", "netdev", "blockdev", "object", NULL };
    static const char *const changes_host[] = { "chardev-stdio", "netdev-tap", "netdev-bridge", NULL };
    LINKSET_EACH(obj_classes, struct obj_class, c) {
        struct err e = ERR_INIT;
        if ((c->flags & (OCF_ABSTRACT | OCF_INTERNAL)) || !obj_class_ns(c) || !str_in_list(obj_class_ns(c), spaces))
            continue;
        if (str_in_list(c->name, changes_host))
            continue;
        AT_WORK("%s with defaults", c->name);
        json_t *none = json_object();
        for (int round = 0; round < 2; round++) {
            e = (struct err)ERR_INIT;
            struct obj *o = obj_create(c, "b", none, NULL, &e);
            if (!o && !e.msg[0])
                fail_msg("%s was refused without a word", c->name);
            if (o && !obj_user_delete(o, &e))
                fail_msg("%s cannot be deleted: %s", c->name, e.msg);
        }
        json_decref(none);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_defaults), cmocka_unit_test(test_options), cmocka_unit_test(test_back_ends) };
    struct err e = ERR_INIT;
    classes_init();
    if (!loop_main_init(&e))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
