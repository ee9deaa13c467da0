/* SPDX-License-Identifier: MIT */
/* -icount: virtual time counted in instructions (cpu/riscv/turns.h). */
#include "cpu/riscv/icount.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/opt.h"
#include "base/random.h"
#include "core/cmd.h"
#include "core/help.h"
#include "core/prop.h"
#include "machine/machine_int.h"

struct icount_args { char *shift, *rr, *rrfile, *rrsnapshot; bool sleep, align; };

static const struct prop icount_props[] = {
    PROP_STR(struct icount_args, shift, "shift", 0, "An instruction takes 2^shift ns: 0 to 10, or auto (follows the host's speed)"),
    PROP_BOOL(struct icount_args, sleep, "sleep", true, "An idle machine waits in the host's time; off: it goes to its next timer at once"),
    PROP_BOOL(struct icount_args, align, "align", false, "A guest that is ahead of the host's time waits for it"),
    PROP_STR(struct icount_args, rr, "rr", 0, "record or replay: not in this build"),
    PROP_STR(struct icount_args, rrfile, "rrfile", 0, "For rr: not in this build"),
    PROP_STR(struct icount_args, rrsnapshot, "rrsnapshot", 0, "For rr: not in this build"),
    PROP_END,
};

static bool shift_of(const char *s, struct icount_opts *o, struct err *e)
{
    o->adapt = !strcmp(s, "auto");
    o->shift = ICOUNT_SHIFT_START;
    if (o->adapt)
        return true;
    char *end;
    unsigned long v = strtoul(s, &end, 10);
    if (*s < '0' || *s > '9' || *end || v > ICOUNT_SHIFT_MAX)
        return err_set(e, ERR_VALUE, "shift=%s is neither auto nor a number from 0 to %d", s, ICOUNT_SHIFT_MAX);
    o->shift = (uint32_t)v;
    return true;
}

static bool check(const struct icount_args *a, struct icount_opts *o, struct err *e)
{
    if (a->rr || a->rrfile || a->rrsnapshot) {
        err_set(e, ERR_NOT_BUILT, "recording and replaying (rr, rrfile, rrsnapshot) are not in this build");
        return err_hint(e, "two runs with the same shift and inputs are the same without it");
    }
    if (!a->shift)
        return err_set(e, ERR_VALUE, "shift is missing: 0 to %d, or auto", ICOUNT_SHIFT_MAX);
    if (!shift_of(a->shift, o, e))
        return false;
    if (o->adapt && (a->align || !a->sleep))
        return err_set(e, ERR_VALUE, "shift=auto follows the host's time: not with %s", a->align ? "align=on" : "sleep=off");
    if (a->align && !a->sleep)
        return err_set(e, ERR_VALUE, "align=on makes the guest wait for the host's time, sleep=off makes it run ahead");
    o->sleep = a->sleep;
    o->align = a->align;
    o->on = true;
    return true;
}

static bool icount_apply(const char *arg, struct err *e)
{
    struct icount_args a;
    struct icount_opts o = { 0 };
    json_t *j = opt_parse(arg, "shift", e);
    if (!j)
        return false;
    if (opt_asks_help(j)) {
        struct str out = { 0 };
        help_props(icount_props, &out);
        help_exit(&out);
    }
    prop_defaults(icount_props, &a);
    bool ok = prop_set_all(icount_props, &a, NULL, j, "option '-icount'", e) && check(&a, &o, e);
    prop_release(icount_props, &a);
    json_decref(j);
    if (ok)
        icount_opts = o;
    if (ok && !o.adapt && !guest_random_seeded())
        guest_random_seed(0);
    return ok;
}

static const struct cli_opt icount_opt = {
    .name = "icount", .arg = "[shift=]N|auto[,sleep=on|off][,align=on|off]",
    .doc = "virtual time counted in instructions, CPUs by turns: two runs with the same inputs are the same", .section = "Machine",
    .phase = CLI_MACHINE, .apply = icount_apply, .helps = true, .args = icount_props,
};
CLI_OPT(&icount_opt);

static bool seed_apply(const char *arg, struct err *e)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(arg, &end, 0);
    if (*arg < '0' || *arg > '9' || *end || errno)
        return err_set(e, ERR_VALUE, "'%s' is not a number from 0 to 2^64 - 1", arg);
    guest_random_seed(v);
    return true;
}

static const struct cli_opt seed_opt = {
    .name = "seed", .arg = "N", .doc = "random numbers for the guest (rng-seed, rng-builtin) follow from N", .section = "Machine",
    .phase = CLI_MACHINE, .apply = seed_apply,
};
CLI_OPT(&seed_opt);
