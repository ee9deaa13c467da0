/* SPDX-License-Identifier: MIT */
/* -overcommit: whether the host may page this program out. */
#include <errno.h>
#include <sys/mman.h>
#include "core/cmd.h"
#include "ctl/cli_int.h"

enum mem_lock { LOCK_OFF, LOCK_ON, LOCK_ON_FAULT };
static const char *const lock_names[] = { "off", "on", "on-fault", NULL };

struct overcommit { int mem_lock; bool cpu_pm; };
static struct overcommit chosen;

static const struct prop overcommit_props[] = {
    PROP_ENUM(struct overcommit, mem_lock, "mem-lock", lock_names, LOCK_OFF, "Keep all memory of this program in RAM; on-fault: what has been touched"),
    PROP_BOOL(struct overcommit, cpu_pm, "cpu-pm", false, "Guests that wait keep their CPU of the host; off is all there is"),
    PROP_END };

static bool apply_overcommit(const char *arg, struct err *e)
{
    if (!cli_args(arg, NULL, overcommit_props, &chosen, "option '-overcommit'", e))
        return false;
    return !chosen.cpu_pm || err_set(e, ERR_NOT_BUILT, "cpu-pm=on is not in this build: a hart that waits gives its CPU back");
}
static const struct cli_opt opt_overcommit = { "overcommit", "[mem-lock=on|off|on-fault]", "keep this program's memory in RAM", "Process", CLI_EARLY,
                                               apply_overcommit, .args = overcommit_props };
CLI_OPT(&opt_overcommit);

/* Once the machine stands, so that what is there is locked at once; what comes later is, too. */
static bool lock_memory(struct err *e)
{
    int flags = MCL_CURRENT | MCL_FUTURE | (chosen.mem_lock == LOCK_ON_FAULT ? MCL_ONFAULT : 0);
    if (chosen.mem_lock == LOCK_OFF || !mlockall(flags))
        return true;
    err_os(e, errno, "-overcommit mem-lock=%s: cannot lock memory", lock_names[chosen.mem_lock]);
    return err_hint(e, "a limit stands against it? see 'ulimit -l'");
}
static const struct cli_step step_lock = { "lock memory", CLI_RUN, 900, lock_memory };
CLI_STEP(&step_lock);
