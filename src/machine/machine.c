/* SPDX-License-Identifier: MIT */
#include "machine/machine.h"

#include <stdlib.h>
#include "base/log.h"
#include "base/opt.h"
#include "core/dev.h"
#include "core/flags.h"
#include "cpu/riscv/hart.h"
#include "cpu/riscv/accel.h"
#include "loop/co.h"
#include "machine/loader.h"
#include "machine/machine_int.h"
#include "mem/ram.h"
#include "mem/view.h"

static struct machine *current;

/* What was given to be started by a machine that starts nothing; NULL: nothing was. */
static const char *started_in_vain(const struct machine *m)
{
    if (MACHINE_CLASS(m)->load)
        return NULL;
    if (m->firmware && strcmp(m->firmware, "none"))
        return "firmware= (-bios)";
    return m->kernel ? "kernel= (-kernel)" : m->dtb ? "dtb= (-dtb)" : m->dumpdtb ? "dumpdtb=" : NULL;
}

static bool machine_check(struct obj *o, struct err *e)
{
    struct machine *m = MACHINE(o);
    const char *vain = started_in_vain(m);
    if (vain) {
        err_set(e, ERR_VALUE, "%s has no effect: this machine starts nothing", vain);
        return err_hint(e, "-M virt does");
    }
    if (m->usb) {
        err_set(e, ERR_NOT_BUILT, "usb=on: USB is not in this build");
        return err_hint(e, "virtio devices do the same: -device help");
    }
    if (m->acpi == TRI_ON) {
        err_set(e, ERR_VALUE, "acpi=on: this machine is described by its device tree only");
        return err_hint(e, "leave acpi= out, or say acpi=off");
    }
    if ((m->initrd || m->append) && !m->kernel)
        return err_set(e, ERR_VALUE, "%s only has an effect with -kernel", m->initrd ? "-initrd" : "-append");
    return true;
}

static const struct prop machine_props[] = {
    PROP_STR(struct machine, kernel, "kernel", 0, "Kernel image to start: Linux Image (also gzip or EFI zboot), ELF, or raw binary"),
    PROP_STR(struct machine, initrd, "initrd", 0, "Initial RAM disk for the kernel"),
    PROP_STR(struct machine, append, "append", 0, "Command line for the kernel"),
    PROP_STR(struct machine, dtb, "dtb", 0, "Device tree blob to hand to the guest instead of the machine's own"),
    PROP_STR(struct machine, dumpdtb, "dumpdtb", 0, "File to write the device tree to; the program then ends"),
    PROP_STR(struct machine, firmware, "firmware", 0, "As -bios: default, builtin, none or a file"),
    PROP_LINK(struct machine, memory_backend, "memory-backend", &memory_backend_class, 0, "Memory back end to use as main memory"),
    PROP_BOOL(struct machine, usb, "usb", false, "A USB controller; only off is possible, USB is not in this build"),
    PROP_TRI(struct machine, graphics, "graphics", TRI_AUTO, "What firmware is told of a display (fw_cfg); auto: there is none with -nographic"),
    PROP_TRI(struct machine, acpi, "acpi", TRI_AUTO, "ACPI tables; only off and auto are possible"),
    PROP_BOOL(struct machine, mem_merge, "mem-merge", true, "Let the host merge equal pages of main memory (KSM)"),
    PROP_BOOL(struct machine, dump_guest_core, "dump-guest-core", true, "Include main memory in core dumps"),
    PROP_END,
};

static void machine_finalize(struct obj *o)
{
    struct machine *m = MACHINE(o);
    if (m->harts)
        hart_set_free(m->harts);
    if (m->cpu)
        obj_unref(&m->cpu->obj);
    if (m->ram_owned)
        ram_free(m->ram);
    else if (m->ram && m->memory_backend)
        memory_backend_release(m->memory_backend);
}

const struct obj_class machine_base_class = {
    .name = "machine", .size = sizeof(struct machine), .flags = OCF_ABSTRACT, .props = machine_props,
    .check = machine_check, .finalize = machine_finalize,
};
OBJ_CLASS(&machine_base_class);

struct machine *machine_current(void)
{
    return current;
}

/* ---- classes by the name typed after -M ---- */

const struct machine_class *machine_class_find(const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "%s%s", name, strlen(name) > 8 && !strcmp(name + strlen(name) - 8, "-machine") ? "" : "-machine");
    const struct obj_class *c = obj_class_find(full);
    return c && obj_class_is(c, &machine_base_class) && !(c->flags & OCF_ABSTRACT) ? (const struct machine_class *)c : NULL;
}

void machine_class_name(const struct machine_class *c, char *buf, size_t n)
{
    snprintf(buf, n, "%.*s", (int)(strlen(c->obj.name) - strlen("-machine")), c->obj.name);
}

static const char *machine_nth(const void *table, size_t i)
{
    static char name[64];
    const struct obj_class *const *list = obj_class_list(&machine_base_class, false);
    for (size_t k = 0; list[k]; k++)
        if (k == i) {
            machine_class_name((const struct machine_class *)list[k], name, sizeof name);
            return name;
        }
    return NULL;
}

bool machine_class_unknown(const char *name, struct err *e)
{
    if (!obj_absent_error(&machine_base_class, "machine", name, e))
        err_unknown(e, "machine", name, NULL, machine_nth, NULL);
    err_prefix(e, "-M %.80s", name);
    return e->hint[0] ? false : err_hint(e, "`-M help` lists the machines");
}

static const struct machine_class *class_from_opts(json_t *opts, struct err *e)
{
    char *type = opt_take(opts, "type");
    const struct machine_class *c = type ? machine_class_find(type) : NULL;
    if (!type) {
        err_set(e, ERR_VALUE, "no machine is named, and there is no default");
        err_hint(e, "-M virt for a RISC-V board with PCI Express; `-M help` lists all machines");
    } else if (!c) {
        machine_class_unknown(type, e);
    }
    free(type);
    return c;
}

/* ---- main memory ---- */

struct memory_args { uint64_t size, maxmem; uint32_t slots; };
const struct prop machine_memory_props[] = {
    PROP_SIZE(struct memory_args, size, "size", 0, 0, INT64_MAX, "Size of main memory; a bare number is in MiB"),
    PROP_U32(struct memory_args, slots, "slots", 0, 0, 256, "Slots for memory plugged later; this machine has none"),
    PROP_SIZE(struct memory_args, maxmem, "maxmem", 0, 0, INT64_MAX, "Size with all slots filled; must equal size"),
    PROP_END,
};

/* `-m 512` is MiB, as is a bare number in size= and maxmem= typed by a person. */
static bool memory_unit(json_t *o, const char *key, struct err *e)
{
    const char *s = json_string_value(json_object_get(o, key));
    uint64_t v;
    if (!s)
        return true;
    if (!parse_size(s, MiB, &v))
        return err_set(e, ERR_VALUE, "'%s' is not a size: a number with M, G or T behind it", s);
    json_object_set_new(o, key, json_integer((json_int_t)v));
    return true;
}

static bool machine_memory_args(json_t *opts, const struct machine_class *c, struct memory_args *a, struct err *e)
{
    prop_defaults(machine_memory_props, a);
    if (opts && (!memory_unit(opts, "size", e) || !memory_unit(opts, "maxmem", e) ||
                 !prop_set_all(machine_memory_props, a, NULL, opts, "option '-m'", e)))
        return err_prefix(e, "-m");
    if (json_object_get(opts, "size") && !a->size) {
        err_set(e, ERR_VALUE, "-m: a machine without memory runs nothing");
        return err_hint(e, "leave -m out for the machine's default");
    }
    if (a->slots || (a->maxmem && a->maxmem != a->size)) {
        err_set(e, ERR_VALUE, "-m: memory cannot be plugged into this machine later, so slots= and maxmem= have no effect");
        return err_hint(e, "-m SIZE alone is enough");
    }
    if (a->size % RAM_PAGE) {
        return err_set(e, ERR_VALUE, "-m: %llu bytes is not a multiple of 4 KiB", (unsigned long long)a->size);
    }
    return true;
}

static bool machine_make_ram(struct machine *m, json_t *opts, struct err *e)
{
    const struct machine_class *c = MACHINE_CLASS(m);
    struct memory_args a;
    if (!machine_memory_args(opts, c, &a, e))
        return false;
    if (!c->default_ram && !a.size && !m->memory_backend)
        return true;
    if (m->memory_backend) {
        m->ram = memory_backend_claim(m->memory_backend, "main memory", e);
        if (!m->ram)
            return false;
        if (a.size && a.size != m->ram->size) {
            err_set(e, ERR_VALUE, "-m: the size differs from that of the memory back end '%s'", m->memory_backend->id);
            return err_hint(e, "leave -m out: the back end has %llu MiB", (unsigned long long)(m->ram->size / MiB));
        }
    } else {
        m->ram = ram_new("main memory", a.size ? a.size : c->default_ram, e);
        if (!m->ram)
            return err_prefix(e, "-m");
        m->ram_owned = true;
    }
    m->ram_size = m->ram->size;
    return machine_ram_advise(m, e);
}

/* ---- CPUs ---- */

/* One object a hart ("/machine/soc0/harts[0]"...), all alike; the first, which is the model of all, is returned. */
static struct obj *cpu_objects(struct machine *m, const struct obj_class *k, json_t *opts, struct err *e)
{
    struct obj *first = NULL;
    char what[96];
    snprintf(what, sizeof what, "riscv-cpu '%s'", k->name);
    for (unsigned i = 0; i < MAX(m->smp.cpus, 1u); i++) {
        char id[32];
        snprintf(id, sizeof id, "harts[%u]", i);
        struct obj *o = obj_new(k, id, e);
        bool ok = o && obj_set_opts(o, opts, what, e) && obj_check(o, e) && obj_add(o, obj_container("soc0"), e);
        obj_unref(o);                       /* the tree holds its own */
        if (!ok)
            return NULL;
        first = first ? first : o;
    }
    return first;
}

static bool machine_make_cpu(struct machine *m, const char *text, struct err *e)
{
    const struct machine_class *c = MACHINE_CLASS(m);
    if (!c->max_cpus && !text)
        return true;
    json_t *o = opt_parse_flat(text ? text : c->default_cpu, "driver", e);
    if (!o)
        return err_prefix(e, "-cpu");
    char *name = opt_take(o, "driver");
    const struct obj_class *k = name ? machine_cpu_class(name) : NULL;
    struct obj *cpu = NULL;
    if (k)
        cpu = cpu_objects(m, k, o, e);
    else if (name)
        machine_cpu_unknown(name, e);
    else
        err_set(e, ERR_VALUE, "no CPU model is named");
    free(name);
    json_decref(o);
    m->cpu = (struct rv_cpu *)obj_ref(cpu);
    return cpu || err_prefix(e, "-cpu");
}

/* ---- life ---- */

static void machine_on_start(struct run_listener *l)
{
    struct machine *m = list_entry(l, struct machine, listener);
    if (m->harts && machine_runs_code())
        hart_set_resume(m->harts);
}

static void machine_on_stop(struct run_listener *l, enum run_state to)
{
    struct machine *m = list_entry(l, struct machine, listener);
    if (m->harts)
        hart_set_pause(m->harts);
}

/* Devices have been reset; now CPUs and memory contents. */
static void machine_on_reset(struct run_listener *l, enum run_cause cause)
{
    struct machine *m = list_entry(l, struct machine, listener);
    struct err e = ERR_INIT;
    for (unsigned i = 0; m->harts && i < hart_set_count(m->harts); i++) {
        hart_power(hart_get(m->harts, i), false);
        hart_reset(hart_get(m->harts, i));
    }
    if ((MACHINE_CLASS(m)->load && !MACHINE_CLASS(m)->load(m, &e)) || !loader_load_all(m, &e)) {
        err_print(&e);
        run_request_quit(CAUSE_HOST_ERROR, 1);
    }
}

static bool machine_build(struct machine *m, const struct machine_args *a, struct err *e)
{
    const struct machine_class *c = MACHINE_CLASS(m);
    m->memory = xnew(struct region);
    region_init_container(m->memory, "system", UINT64_MAX);
    address_space_init(&as_memory, "memory", m->memory);
    list_init(&m->listener.link);
    /* Management tools look for these, empty or not; the order makes a device without bus= go to the board's bus before a user's. */
    obj_container("unattached");
    obj_container("peripheral-anon");
    obj_container("device");
    current = m;                            /* from here on machine_destroy() undoes */
    if (!machine_smp_parse(a->smp, c, &m->smp, e) || !machine_make_cpu(m, a->cpu, e) ||
        !machine_make_ram(m, a->memory, e))
        return false;
    m->listener.prio = 100;
    m->listener.start = machine_on_start;
    m->listener.stop = machine_on_stop;
    m->listener.reset = machine_on_reset;
    run_listen(&m->listener);
    return c->build(m, e);
}

struct machine *machine_create(json_t *given, struct err *e)
{
    json_t *opts = json_deep_copy(given ? given : machine_collected());
    struct machine_args a = {
        .smp = json_incref(json_object_get(opts, "smp")), .memory = json_incref(json_object_get(opts, "memory")),
        .cpu = opt_take(opts, "cpu"), .accel = opt_take(opts, "accel"),
    };
    char name[64], what[96];
    struct machine *m = NULL;
    json_object_del(opts, "smp");
    json_object_del(opts, "memory");
    const struct machine_class *c = class_from_opts(opts, e);
    struct obj *o = c ? obj_new(&c->obj, "machine", e) : NULL;
    if (o) {
        machine_class_name(c, name, sizeof name);
        snprintf(what, sizeof what, "machine '%s'", name);
        if (machine_accel_choose(a.accel, e) && (obj_set_opts(o, opts, what, e) || err_prefix(e, "-M %s", name)) &&
            obj_check(o, e) && obj_take_over(o, e)) {
            m = machine_build(MACHINE(o), &a, e) ? MACHINE(o) : NULL;
            if (!m)
                machine_destroy();
        }
        obj_unref(o);
    }
    json_decref(a.smp);
    json_decref(a.memory);
    free(a.cpu);
    free(a.accel);
    json_decref(opts);
    return m;
}

static bool last_root(struct dev *d, void *arg)
{
    if (!d->bus || !d->bus->owner)
        *(struct dev **)arg = d;
    return true;
}

static void co_remove_all(void *arg)
{
    for (struct dev *d = NULL; dev_each(last_root, &d), d; d = NULL)
        co_dev_remove(d);
}

/* Devices whose start failed stand in the tree, but nowhere else. */
static void remove_unfinished(void)
{
    struct obj *all = obj_container("unattached"), *o;
    while ((o = list_first(&all->children, struct obj, sibling)))
        obj_del(o);
}

void machine_destroy(void)
{
    struct machine *m = current;
    if (!m)
        return;
    run_stop(RUN_SHUTDOWN);
    run_unlisten(&m->listener);
    co_run_main(co_remove_all, NULL);
    remove_unfinished();
    struct region *root = m->memory;
    current = NULL;
    obj_del(&m->obj);
    address_space_fini(&as_memory);
    region_fini(root);
    free(root);
}

static const struct run_end machine_end = { "machine", RUN_END_MACHINE, machine_destroy };
RUN_END(&machine_end);
