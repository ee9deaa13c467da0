/* SPDX-License-Identifier: MIT */
#include "ctl/ctl.h"

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    struct cli_line line = { 0 };

    cli_program_name(argv[0]);
    int status = 1;
    if (cli_collect(&line, argc, argv, &e) && ctl_start(&line, &e))
        status = ctl_run();
    else
        err_print(&e);
    ctl_end();
    cli_line_free(&line);
    return status;
}
