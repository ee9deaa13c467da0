/* SPDX-License-Identifier: MIT */
/*
 * Options as a person types them, in the three dialects of the command line:
 *   driver,key=value,flag        a,b=1,c            (a comma in a value is written twice; a bare `c` means c=on; where a
 *                                                    table has no row `noc` but a row `c`, a bare `noc` means c=off)
 *   dotted keys                  a,b.c=1,l.0=x      -> {"b": {"c": "1"}, "l": ["x"]}
 *   JSON                         {"driver": "a", "b": {"c": 1}}
 * The result is a json object: leaves are strings in the first two dialects, typed in the third. Thread: ANY.
 */
#ifndef BASE_OPT_H
#define BASE_OPT_H

#include <jansson.h>
#include "base/err.h"

/*
 * Parses @text. @implied names the key of a first word that has no '=' ("driver" in `-device nvme,...`), or NULL.
 * Returns a new reference, NULL with @e filled (message names the column where it helps).
 * The bare words `help` and `?` become {"help": "on"}.
 */
json_t *opt_parse(const char *text, const char *implied, struct err *e) MUST_CHECK;
/* The third alone. Strings may be in single quotes. */
json_t *opt_parse_json(const char *text, struct err *e) MUST_CHECK;
/* As opt_parse, without splitting keys at dots (`-device` properties may hold dots in their names). */
json_t *opt_parse_flat(const char *text, const char *implied, struct err *e) MUST_CHECK;
/*
 * The flat @o with those keys "HEAD.REST" nested, as the dotted dialect has them, of which @nests(arg, key, HEAD) is true. New reference,
 * NULL with @e filled.
 */
json_t *opt_nest(json_t *o, bool (*nests)(const void *arg, const char *key, const char *head), const void *arg, struct err *e) MUST_CHECK;
/* {"a.b": 1} from {"a": {"b": 1}}: how nested JSON meets flat property tables. New reference. */
json_t *opt_flatten(json_t *o);

/* The string at @key as typed (numbers and booleans of JSON turned into text in @buf); NULL if absent or not a scalar. */
const char *opt_text(json_t *o, const char *key, char buf[32]);
/* Takes @key out of @o and returns it as a new string (caller frees), NULL if absent. */
char *opt_take(json_t *o, const char *key);
bool opt_asks_help(json_t *o);
/* Whether @word, as typed, asks for help: `help` or `?`. NULL does not. */
bool opt_is_help(const char *word);
/* The next word of @s, which moves behind it (caller frees); NULL: no more. In quotes it may hold blanks, and \" and \\. */
char *opt_next_word(const char **s);

#endif
