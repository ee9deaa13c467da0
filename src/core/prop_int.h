/* SPDX-License-Identifier: MIT */
/* Between prop.c, prop_value.c and obj_create.c. */
#ifndef CORE_PROP_INT_H
#define CORE_PROP_INT_H

#include "core/prop.h"

extern const char *const prop_tri_names[];      /* indexed by enum tri */

void prop_value_default(const struct prop *p, void *base);
void prop_value_release(const struct prop *p, void *base);
/* The smallest and largest value of a numeric row, with the type's own limits where the row gives none. */
void prop_limits(const struct prop *p, uint64_t *lo, uint64_t *hi);

/* Rows from wherever they come: one table, or the tables of a class and its bases. */
struct prop_rows {
    const void *table;
    bool (*nth)(const void *table, size_t i, struct prop *out);
    bool (*find)(const void *table, const char *name, struct prop *out);
    const char *(*absent)(const void *table, const char *name);     /* why there is no such row, though it could be expected; NULL: ask nobody */
};
/* "property 'x' for device 'y' is not in this build", with @why as its hint. Returns false. */
bool prop_absent_error(const char *name, const char *suffix, const char *why, struct err *e);
bool prop_rows_set(const struct prop_rows *r, void *base, struct obj *o, const char *key, json_t *v, const char *what,
                   struct err *e);
bool prop_rows_set_all(const struct prop_rows *r, void *base, struct obj *o, json_t *opts, const char *what, struct err *e);

#endif
