/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include "block/blkdebug.h"

struct section { json_t *opts; bool set_state; unsigned line; };

static bool end_section(struct section *s, const char *path, bool (*rule)(void *, bool, json_t *, struct err *), void *arg, struct err *e)
{
    bool ok = !s->opts || rule(arg, s->set_state, s->opts, e) || err_prefix(e, "%s:%u", path, s->line);
    json_decref(s->opts);
    s->opts = NULL;
    return ok;
}

/* KEY = "VALUE" */
static bool take_line(struct section *s, char *line, const char *path, unsigned n, struct err *e)
{
    char key[64], value[128];
    int end = 0;
    if (sscanf(line, " %63[a-z_-] = \"%127[^\"]\" %n", key, value, &end) != 2 || !end || line[end])
        return err_set(e, ERR_VALUE, "%s:%u: the line is not KEY = \"VALUE\"", path, n);
    if (!s->opts)
        return err_set(e, ERR_VALUE, "%s:%u: a line before the first section", path, n);
    json_object_set_new(s->opts, key, json_string(value));
    return true;
}

static bool begin_section(struct section *s, const char *line, const char *path, unsigned n, struct err *e)
{
    bool inject = str_starts(line, "[inject-error]");
    if (!inject && !str_starts(line, "[set-state]"))
        return err_set(e, ERR_VALUE, "%s:%u: a section is [inject-error] or [set-state]", path, n);
    *s = (struct section){ json_object(), !inject, n };
    return true;
}

bool blkdebug_read_config(const char *path, bool (*rule)(void *, bool, json_t *, struct err *), void *arg, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    struct section s = { 0 };
    bool ok = f || err_os(e, errno, "cannot open '%s'", path);
    for (unsigned n = 1; ok && getline(&line, &room, f) >= 0; n++) {
        char *p = line + strspn(line, " \t");
        p[strcspn(p, "\r\n")] = 0;
        if (!*p || *p == '#')
            continue;
        ok = *p == '[' ? end_section(&s, path, rule, arg, e) && begin_section(&s, p, path, n, e) : take_line(&s, p, path, n, e);
    }
    ok = ok ? end_section(&s, path, rule, arg, e) : (json_decref(s.opts), false);
    free(line);
    if (f)
        fclose(f);
    return ok;
}
