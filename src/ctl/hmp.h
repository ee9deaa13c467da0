/* SPDX-License-Identifier: MIT */
/* Between the files of the monitor for a person. Main loop. */
#ifndef CTL_HMP_H
#define CTL_HMP_H

#include "core/cmd.h"

/* The CPU that the running command looks at; `cpu N` changes it for its monitor. */
extern unsigned hmp_cpu;
/* The command of the first @n bytes of @name ("info status"), or of an alias. */
const struct hmp_cmd *hmp_cmd_find(const char *name, size_t n);

#endif
