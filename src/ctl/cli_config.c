/* SPDX-License-Identifier: MIT */
/*
 * Options from and to a file of groups (-readconfig, -writeconfig), and changes of options given before (-set). Done while the command
 * line is collected: what takes effect later cannot tell where it came from.
 */
#include "ctl/cli_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "base/opt.h"

/* Groups and the options that they stand for, with the key of a first bare word. */
static const struct group { const char *name, *option, *implied; } groups[] = {
    { "device", "device", "driver" }, { "chardev", "chardev", "backend" }, { "netdev", "netdev", "type" }, { "object", "object", "qom-type" },
    { "drive", "drive", "file" }, { "blockdev", "blockdev", "driver" }, { "machine", "M", "type" }, { "machine", "machine", "type" },
    { "accel", "accel", "accel" }, { "memory", "m", "size" }, { "smp-opts", "smp", "cpus" }, { "boot-opts", "boot", "order" },
    { "rtc", "rtc", "base" }, { "name", "name", "guest" }, { "mon", "mon", "chardev" }, { "global", "global", NULL },
    { "fw_cfg", "fw_cfg", "name" }, { "action", "action", NULL }, { "msg", "msg", NULL }, { "sandbox", "sandbox", "enable" },
    { "trace", "trace", "enable" }, { "run-with", "run-with", NULL }, { "add-fd", "add-fd", NULL }, { "nic", "nic", "type" },
};

static const char *group_name(const void *table, size_t i) { return i < ARRAY_SIZE(groups) ? groups[i].name : NULL; }

static const struct group *group_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
        if (!strcmp(groups[i].name, name) && cli_opt_find(groups[i].option))
            return &groups[i];
    return NULL;
}

static const struct group *group_of(const struct cli_opt *o)
{
    for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
        if (!strcmp(groups[i].option, o->name))
            return &groups[i];
    return NULL;
}

static const char *id_key(const struct group *g) { return !strcmp(g->name, "blockdev") ? "node-name" : "id"; }

/* "key=value" behind what @b holds; a comma in the value is written twice. */
static void add_pair(struct str *b, const char *key, const char *value)
{
    str_printf(b, "%s%s=", b->len ? "," : "", key);
    for (; *value; value++)
        str_addn(b, *value == ',' ? ",," : value, *value == ',' ? 2 : 1);
}

/* ---- -set GROUP.ID.KEY=VALUE ---- */

static bool item_is(const struct cli_item *it, const struct group *g, const char *id)
{
    struct err none = ERR_INIT;
    if (!it->arg || group_of(it->opt) == NULL || strcmp(group_of(it->opt)->name, g->name))
        return false;
    json_t *o = opt_parse_flat(it->arg, g->implied, &none);
    bool yes = o && str_eq(json_string_value(json_object_get(o, id_key(g))), id);
    json_decref(o);
    return yes;
}

static bool change_item(struct cli_item *it, const char *key, const char *value, struct err *e)
{
    struct str b = { 0 };
    if (it->arg[0] == '{') {
        json_t *o = opt_parse_flat(it->arg, NULL, e);
        if (!o)
            return false;
        json_object_set_new(o, key, json_string(value));
        char *text = json_dumps(o, 0);
        str_add(&b, text);
        free(text);
        json_decref(o);
    } else {
        str_add(&b, it->arg);
        add_pair(&b, key, value);
    }
    free(it->owned);
    it->arg = it->owned = str_take(&b);
    return true;
}

static bool set(struct cli_line *l, const char *arg, struct err *e)
{
    const char *eq = strchr(arg, '=');
    char *head = xstrndup(arg, eq ? (size_t)(eq - arg) : strlen(arg)), *id = strchr(head, '.'), *key = id ? strchr(id + 1, '.') : NULL;
    bool ok = false;
    if (!eq || !key) {
        err_set(e, ERR_VALUE, "not of the form GROUP.ID.OPTION=VALUE");
        err_hint(e, "for example -set device.nic0.mac=52:54:00:12:34:56");
        free(head);
        return false;
    }
    *id++ = *key++ = 0;
    const struct group *g = group_find(head);
    struct cli_item *found = NULL;
    for (size_t i = 0; g && i + 1 < l->n; i++)
        if (item_is(&l->items[i], g, id))
            found = &l->items[i];
    if (!g)
        err_unknown(e, "group", head, NULL, group_name, NULL);
    else if (!found)
        err_set(e, ERR_NOT_FOUND, "no -%s with the id '%s' comes before it", g->option, id);
    else
        ok = change_item(found, key, eq + 1, e);
    free(head);
    return ok;
}

/* ---- -readconfig ---- */

struct reader { struct cli_line *line; const char *path; unsigned n; const struct group *group; unsigned group_line; struct str opts; };

static void end_group(struct reader *r)
{
    if (!r->group)
        return;
    struct cli_item *it = cli_item_add(r->line, cli_opt_find(r->group->option), r->group->option);
    it->where = xasprintf("%s:%u: [%s]", r->path, r->group_line, r->group->name);
    it->arg = it->owned = str_take(&r->opts);
    r->group = NULL;
    r->opts = (struct str){ 0 };
}

/* `[group]` or `[group "id"]`. */
static bool begin_group(struct reader *r, char *s, struct err *e)
{
    char *end = strrchr(s, ']'), *id = strchr(s, '"'), *id_end = id ? strchr(id + 1, '"') : NULL;
    if (!end || end[1 + strspn(end + 1, " \t\r\n")] || (id && !id_end))
        return err_set(e, ERR_VALUE, "%s:%u: a group looks like [device \"id\"] or [machine]", r->path, r->n);
    char *name = xstrndup(s + 1, strcspn(s + 1, " \t]"));
    end_group(r);
    r->group = group_find(name);
    r->group_line = r->n;
    if (!r->group) {
        err_unknown(e, "group", name, NULL, group_name, NULL);
        err_prefix(e, "%s:%u", r->path, r->n);
    } else if (id) {
        *id_end = 0;
        add_pair(&r->opts, id_key(r->group), id + 1);
    }
    free(name);
    return r->group != NULL;
}

/* `key = "value"`. */
static bool add_line(struct reader *r, char *s, struct err *e)
{
    char *eq = strchr(s, '='), *v = eq ? eq + 1 + strspn(eq + 1, " \t") : NULL, *end = v && *v == '"' ? strrchr(v + 1, '"') : NULL;
    if (!end || end[1 + strspn(end + 1, " \t\r\n")])
        return err_set(e, ERR_VALUE, "%s:%u: a line looks like key = \"value\"", r->path, r->n);
    if (!r->group)
        return err_set(e, ERR_VALUE, "%s:%u: no group yet: a line such as [device \"id\"] comes first", r->path, r->n);
    *end = 0;
    char *key = xstrndup(s, strcspn(s, " \t="));
    add_pair(&r->opts, key, v + 1);
    free(key);
    return true;
}

static bool read_config(struct cli_line *l, const char *path, struct err *e)
{
    struct reader r = { .line = l, .path = path };
    char *text = NULL;
    size_t room = 0;
    bool ok = true;
    FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
    if (!f)
        return err_os(e, errno, "cannot read '%s'", path);
    while (ok && getline(&text, &room, f) >= 0) {
        char *s = text + strspn(text, " \t\r\n");
        r.n++;
        if (*s == '[')
            ok = begin_group(&r, s, e);
        else if (*s && *s != '#' && *s != ';')
            ok = add_line(&r, s, e);
    }
    if (ok)
        end_group(&r);
    str_free(&r.opts);
    free(text);
    if (f != stdin)
        fclose(f);
    return ok;
}

/* ---- -writeconfig ---- */

static void write_item(FILE *f, const struct cli_item *it)
{
    const struct group *g = group_of(it->opt);
    struct err none = ERR_INIT;
    json_t *o = g && it->arg ? opt_parse_flat(it->arg, g->implied, &none) : NULL;
    const char *id = json_string_value(json_object_get(o, g ? id_key(g) : "")), *key;
    json_t *v;
    if (!strcmp(it->opt->name, "writeconfig") || !strcmp(it->opt->name, "readconfig") || !strcmp(it->opt->name, "set"))
        return;
    if (!o || it->arg[0] == '{') {
        fprintf(f, "# not in a group: -%s%s%s\n\n", it->opt->name, it->arg ? " " : "", it->arg ? it->arg : "");
        json_decref(o);
        return;
    }
    fprintf(f, id ? "[%s \"%s\"]\n" : "[%s]\n", g->name, id);
    json_object_foreach(o, key, v)
        if (!id || strcmp(key, id_key(g)))
            fprintf(f, "  %s = \"%s\"\n", key, json_string_value(v));
    fputc('\n', f);
    json_decref(o);
}

bool cli_config_write(const struct cli_line *l, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->items[i].opt->name, "writeconfig"))
            continue;
        const char *path = l->items[i].arg;
        FILE *f = strcmp(path, "-") ? fopen(path, "we") : stdout;
        if (!f)
            return err_os(e, errno, "-writeconfig %s", path);
        fprintf(f, "# Read by -readconfig.\n\n");
        for (size_t k = 0; k < l->n; k++)
            write_item(f, &l->items[k]);
        if (f == stdout ? fflush(f) : fclose(f))
            return err_os(e, errno, "-writeconfig %s", path);
    }
    return true;
}

bool cli_config_item(struct cli_line *l, const struct cli_opt *o, const char *arg, struct err *e)
{
    if (!strcmp(o->name, "readconfig"))
        return read_config(l, arg, e) || err_prefix(e, "-readconfig");
    if (!strcmp(o->name, "set"))
        return set(l, arg, e) || err_prefix(e, "-set %.100s", arg);
    return true;
}

static bool done_already(const char *arg, struct err *e) { return true; }
static const struct cli_opt opts[] = {
    { "readconfig", "FILE", "take options from groups in FILE", "Machine", CLI_EARLY, done_already },
    { "writeconfig", "FILE", "write the options that have groups to FILE (- is standard output)", "Machine", CLI_EARLY, done_already },
    { "set", "GROUP.ID.OPTION=VALUE", "change an option of a -device, -drive, -netdev... given before", "Machine", CLI_EARLY, done_already },
};
CLI_OPT(&opts[0]);
CLI_OPT(&opts[1]);
CLI_OPT(&opts[2]);
