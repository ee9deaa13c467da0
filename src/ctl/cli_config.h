/* SPDX-License-Identifier: MIT */
/* -readconfig, -writeconfig, -set: see cli_config.c. Between it and cli.c. Main thread. */
#ifndef CTL_CLI_CONFIG_H
#define CTL_CLI_CONFIG_H

#include "ctl/cli.h"

/* A further option behind those of @l. The pointer is good until the next is added. */
struct cli_item *cli_item_add(struct cli_line *l, const struct cli_opt *o, const char *typed);
/* What @o, just collected, does to the command line itself. */
bool cli_config_item(struct cli_line *l, const struct cli_opt *o, const char *arg, struct err *e) MUST_CHECK;
/* Writes each file that -writeconfig names, once all options are known. */
bool cli_config_write(const struct cli_line *l, struct err *e) MUST_CHECK;

#endif
