/* SPDX-License-Identifier: MIT */
/* -smp: how many CPUs, and how they are arranged. */
#include "core/help.h"
#include "machine/machine_int.h"

struct smp_args { uint32_t cpus, max, sockets, dies, clusters, cores, threads; };
const struct prop machine_smp_props[] = {
    PROP_U32(struct smp_args, cpus, "cpus", 0, 0, 1024, "Number of CPUs"),
    PROP_U32(struct smp_args, max, "maxcpus", 0, 0, 1024, "Number of CPUs with those plugged later; must equal cpus"),
    PROP_U32(struct smp_args, sockets, "sockets", 0, 0, 1024, "Sockets"),
    PROP_U32(struct smp_args, dies, "dies", 0, 0, 1024, "Dies per socket; only 1 is possible"),
    PROP_U32(struct smp_args, clusters, "clusters", 0, 0, 1024, "Clusters per die; only 1 is possible"),
    PROP_U32(struct smp_args, cores, "cores", 0, 0, 1024, "Cores per socket"),
    PROP_U32(struct smp_args, threads, "threads", 0, 0, 1024, "Threads per core"),
    PROP_END,
};

/* What is not given follows from what is; cores are preferred to sockets to threads. */
static void smp_fill(struct smp_args *a)
{
    uint32_t total = a->max ? a->max : a->cpus;
    if (!total) {
        a->sockets = a->sockets ? a->sockets : 1;
        a->cores = a->cores ? a->cores : 1;
        a->threads = a->threads ? a->threads : 1;
        total = a->sockets * a->cores * a->threads;
    } else if (!a->cores) {
        a->sockets = a->sockets ? a->sockets : 1;
        a->threads = a->threads ? a->threads : 1;
        a->cores = MAX(1, total / (a->sockets * a->threads));
    } else if (!a->sockets) {
        a->threads = a->threads ? a->threads : 1;
        a->sockets = MAX(1, total / (a->cores * a->threads));
    } else if (!a->threads) {
        a->threads = MAX(1, total / (a->cores * a->sockets));
    }
    a->cpus = a->cpus ? a->cpus : total;
    a->max = total;
}

/* The key that is given as 0, which the arithmetic would take for "left out"; NULL if none is. */
static const char *smp_zero(json_t *opts)
{
    const char *key;
    json_t *v;
    json_object_foreach(opts, key, v)
        if (json_is_integer(v) ? !json_integer_value(v) : str_eq(json_string_value(v), "0"))
            return key;
    return NULL;
}

bool machine_smp_parse(json_t *opts, const struct machine_class *c, struct machine_smp *s, struct err *e)
{
    struct smp_args a;
    prop_defaults(machine_smp_props, &a);
    if (opts && !prop_set_all(machine_smp_props, &a, NULL, opts, "option '-smp'", e))
        return err_prefix(e, "-smp");
    if (!c->max_cpus) {
        *s = (struct machine_smp){ 0 };
        return !opts || err_set(e, ERR_VALUE, "-smp: this machine has no CPUs");
    }
    if (a.dies > 1 || a.clusters > 1)
        return err_set(e, ERR_VALUE, "-smp: this machine knows sockets, cores and threads; %s must be 1",
                       a.dies > 1 ? "dies" : "clusters");
    if (opts && smp_zero(opts)) {
        err_set(e, ERR_VALUE, "-smp: %s=0: at least 1", smp_zero(opts));
        return err_hint(e, "this machine has 1 to %u CPUs", c->max_cpus);
    }
    smp_fill(&a);
    if (a.cpus != a.max) {
        err_set(e, ERR_VALUE, "-smp: CPUs cannot be plugged into this machine later, so maxcpus=%u has no effect beside cpus=%u",
                a.max, a.cpus);
        return err_hint(e, "leave maxcpus= out");
    }
    if ((uint64_t)a.sockets * a.cores * a.threads != a.max)
        return err_set(e, ERR_VALUE, "-smp: sockets=%u times cores=%u times threads=%u is not cpus=%u", a.sockets, a.cores,
                       a.threads, a.max);
    if (!a.cpus || a.cpus > c->max_cpus)
        return err_set(e, ERR_VALUE, "-smp: %u CPUs; this machine has 1 to %u", a.cpus, c->max_cpus);
    *s = (struct machine_smp){ .cpus = a.cpus, .sockets = a.sockets, .dies = 1, .clusters = 1, .cores = a.cores,
                               .threads = a.threads, .max_cpus = a.max };
    return true;
}
