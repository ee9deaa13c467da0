/* SPDX-License-Identifier: MIT */
/* Between the files of the monitor for a person. Main loop. */
#ifndef CTL_HMP_H
#define CTL_HMP_H

#include "base/opt.h"
#include "core/cmd.h"
#include "ctl/lineedit.h"

/* The CPU that the running command looks at; `cpu N` changes it for its monitor. */
extern unsigned hmp_cpu;

/* The command that @line begins with, its full name and where its argument begins; NULL if there is none. */
const struct hmp_cmd *hmp_cmd_split(const char *line, char name[64], const char **arg);
/* Runs a row that is a QMP command with its words in order. Main loop, CO. */
void co_hmp_mapped(const struct hmp_cmd *c, const char *arg, struct str *out);
/*
 * The value of an expression: numbers, $REGISTER of the monitor's CPU, + - * / % & | ^ ~ and parentheses. False: says what is wrong
 * in @out.
 */
bool hmp_value(const char *text, uint64_t *v, struct str *out) MUST_CHECK;
/* Adds what the word of @word bytes at the end of @text could become. */
void hmp_complete(const char *text, size_t word, struct lineedit_words *w);

#endif
