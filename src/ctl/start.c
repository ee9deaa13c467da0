/* SPDX-License-Identifier: MIT */
#include "ctl/ctl.h"
#include "ctl/cli_int.h"

#include <stdlib.h>
#include "base/bits.h"
#include "chardev/chr.h"
#include "core/flags.h"
#include "core/run.h"
#include "ctl/gdb.h"
#include "ctl/preconfig.h"
#include "loop/loop.h"

/* The main loop; and `exit()` somewhere below ends as returning from main() does. */
static bool loop_up(struct err *e)
{
    return loop_main_init(e) && atexit(ctl_end) == 0;
}

/* Monitors first; the machine, once one of them says so. */
static bool start_preconfig(const struct cli_line *l, struct err *e)
{
    if (!cli_apply(l, CLI_MACHINE, CLI_CHARDEV, e) || !cli_apply(l, CLI_MONITOR, CLI_MONITOR, e) || !cli_daemon_ready(e) || !cli_signals_loop(e))
        return false;
    if (!preconfig_wait())
        return true;
    bool ok = cli_apply(l, CLI_BLOCK, CLI_DEVICE, e) && cli_apply(l, CLI_RUN, CLI_RUN, e);
    preconfig_end();
    return ok;
}

bool ctl_begin(struct err *e)
{
    cli_signals_early();
    return cli_daemon_fork(e) && loop_up(e);
}

bool ctl_begun(struct err *e)
{
    return cli_signals_loop(e) && cli_pidfile_write(e) && cli_daemon_ready(e);      /* who reads the pid may send a signal */
}

bool ctl_start(const struct cli_line *l, struct err *e)
{
    cli_signals_early();
    return cli_apply(l, CLI_EARLY, CLI_EARLY, e) &&     /* may fork: no thread may exist yet */
           loop_up(e) &&
           (cli_flags.preconfig ? start_preconfig(l, e)
                                : cli_apply(l, CLI_MACHINE, CLI_RUN, e) && cli_daemon_ready(e) && cli_signals_loop(e));
}

int ctl_run(void)
{
    if (!cli_flags.paused && !run_quit_requested())
        run_cont();
    int status = run_main();
    gdb_end(status);
    return status;
}

void ctl_end(void)
{
    cli_signals_end();
    run_end();
    chr_term_restore();
}

/* What users of back ends still hold when the machine has gone goes with the process; files are closed and sockets removed. */
static void end_back_ends(void)
{
    static const char *const spaces[] = { "export", "job", "netdev", "chardev", "blockdev", "object" };
    for (size_t i = 0; i < ARRAY_SIZE(spaces); i++) {
        struct obj *all = obj_container(spaces[i]), *o;
        while ((o = list_first(&all->children, struct obj, sibling)))
            obj_del(o);
    }
}
static const struct run_end back_ends = { "back ends", RUN_END_BACKENDS, end_back_ends };
RUN_END(&back_ends);
