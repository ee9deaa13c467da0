/* SPDX-License-Identifier: MIT */
#include "ctl/ctl.h"
#include "ctl/cli_int.h"

#include "chardev/chr.h"
#include "core/flags.h"
#include "core/run.h"
#include "ctl/mon.h"
#include "ctl/qmp.h"
#include "loop/loop.h"

static bool events_init(void)
{
    qmp_events_init();
    return true;
}

bool ctl_start(const struct cli_line *l, struct err *e)
{
    cli_signals_early();
    return cli_apply(l, CLI_EARLY, CLI_EARLY, e) &&     /* may fork: no thread may exist yet */
           loop_main_init(e) &&
           events_init() &&
           cli_apply(l, CLI_MACHINE, CLI_RUN, e) &&
           cli_daemon_ready(e) &&
           cli_signals_loop(e);
}

/* Sockets and pipes leave the file system with their chardev; those that a device still holds go with the process. */
static void close_chardevs(void)
{
    struct obj *all = obj_container(chr_class.ns), *c;
    list_for_each(c, &all->children, sibling)
        obj_del(c);
}

int ctl_run(void)
{
    if (!cli_flags.paused)
        run_cont();
    int status = run_main();
    mon_close_all(200);
    close_chardevs();
    chr_term_restore();
    return status;
}
