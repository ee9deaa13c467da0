/* SPDX-License-Identifier: MIT */
/* Help from the tables: what `X help` and `X NAME,help` print, and docs/devices.md. Main loop. */
#ifndef CORE_HELP_H
#define CORE_HELP_H

#include "core/obj.h"

/* All classes derived from @base; devices grouped by category with bus and description. */
void help_classes(const struct obj_class *base, const char *title, struct str *out);
/* The devices of one category. */
void help_devices(const char *cat, struct str *out);
/* Options of one class: name, type, range, default, text; slot options of its bus included. */
void help_class(const struct obj_class *c, struct str *out);
/* The same under another name ("virt" of "virt-machine"). */
void help_class_as(const struct obj_class *c, const char *name, struct str *out);
/* The same for a bare property table. */
void help_props(const struct prop *table, struct str *out);
/* Categories of devices in the order in which they are shown, NULL-terminated; that of a device class. */
const char *const *help_categories(void);
const char *help_category(const struct obj_class *c);
/* The version of program @prog, and the libraries of this build. */
void help_version(const char *prog, struct str *out);
/* The reference manual of every device and back end, as Markdown. */
void help_manual(struct str *out);

/* Prints what was asked for, frees it, and ends the program: with status 1 where it could not be written. Main thread. */
_Noreturn void help_exit(struct str *out);

#endif
