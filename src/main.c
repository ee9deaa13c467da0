/* SPDX-License-Identifier: MIT */
#include "ctl/ctl.h"

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct cli_line line = { 0 };

    cli_program_name(argv[0]);
    if (!cli_collect(&line, argc, argv, &e) || !ctl_start(&line, &e)) {
        err_print(&e);
        cli_line_free(&line);
        return 1;
    }
    int status = ctl_run();
    cli_line_free(&line);
    return status;
}
