/* SPDX-License-Identifier: MIT */
#include "ctl/ctl.h"
#include "ctl/cli_int.h"

#include "chardev/chr.h"
#include "core/flags.h"
#include "core/run.h"
#include "loop/loop.h"

bool ctl_start(const struct cli_line *l, struct err *e)
{
    cli_signals_early();
    return cli_apply(l, CLI_EARLY, CLI_EARLY, e) &&     /* may fork: no thread may exist yet */
           loop_main_init(e) &&
           cli_apply(l, CLI_MACHINE, CLI_RUN, e) &&
           cli_daemon_ready(e) &&
           cli_signals_loop(e);
}

int ctl_run(void)
{
    if (!cli_flags.paused)
        run_cont();
    int status = run_main();
    chr_term_restore();
    return status;
}
