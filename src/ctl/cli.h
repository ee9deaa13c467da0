/* SPDX-License-Identifier: MIT */
/* The command line: words into option rows, option rows into effects, phase by phase. Main thread. */
#ifndef CTL_CLI_H
#define CTL_CLI_H

#include "core/cmd.h"

/* One option as it was typed. */
struct cli_item {
    const struct cli_opt *opt;
    const char *arg;            /* borrowed from argv, or @owned */
    const char *typed;          /* the word that named the option, for messages */
    char *owned;
    char *where;                /* "FILE:LINE: ...", or a disk image's name, for messages; NULL: @typed and @arg say it */
};

struct cli_line {
    struct cli_item *items;
    size_t n;
};

/* Sets cli_flags.prog and the compatibility that the program's name implies. */
void cli_program_name(const char *argv0);
/* Reads all words; nothing takes effect yet. False with @e filled: unknown option, missing value, useless value. */
bool cli_collect(struct cli_line *l, int argc, char **argv, struct err *e) MUST_CHECK;
/* Applies the options of phases @from to @to, each phase's steps after its options. */
bool cli_apply(const struct cli_line *l, enum cli_phase from, enum cli_phase to, struct err *e) MUST_CHECK;
void cli_line_free(struct cli_line *l);
/* The option row of a name without dashes; NULL if there is none. */
const struct cli_opt *cli_opt_find(const char *name);
/*
 * `-opt a=b,c=d` into a plain struct described by @table: defaults, then every key. @implied is the key of a first bare
 * word. `help` prints the table and ends the process. @what names the option in messages. Strings are the caller's to
 * prop_release().
 */
bool cli_args(const char *text, const char *implied, const struct prop *table, void *base, const char *what, struct err *e) MUST_CHECK;
/* The text of -h. */
void cli_help(struct str *out);

#endif
