/* SPDX-License-Identifier: MIT */
/*
 * A second name of an object in its namespace: obj_find() and obj_lookup() find it by that, where nothing has it as its id. The main
 * loop.
 */
#ifndef CORE_OBJ_ALIAS_H
#define CORE_OBJ_ALIAS_H

struct obj;

/* @o has one such name at most; whoever had @name before has it no longer. It goes when @o leaves the tree. */
void obj_alias_set(struct obj *o, const char *name);
void obj_alias_drop(const struct obj *o);

#endif
