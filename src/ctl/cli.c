/* SPDX-License-Identifier: MIT */
/* Collects the command line, applies it in phases, prints -h. */
#include "ctl/cli.h"
#include "ctl/cli_config.h"
#include "ctl/cli_int.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "base/opt.h"
#include "core/flags.h"

/* Sections in the order in which -h shows them; others follow. */
static const char *const sections[] = { "Machine", "Device", "Block", "Network", "Character", "Monitor", "Process", "Debug", NULL };

void cli_program_name(const char *argv0)
{
    const char *slash = argv0 ? strrchr(argv0, '/') : NULL;
    const char *base = slash ? slash + 1 : argv0;
    if (base && *base)
        cli_flags.prog = base;
    cli_flags.compat_qemu = str_starts(cli_flags.prog, "qemu-system-");
}

static int by_name(const void *a, const void *b)
{
    const struct cli_opt *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* All rows, sorted by name; ends with NULL; static storage. */
static const struct cli_opt *const *opt_list(void)
{
    static const struct cli_opt **rows;
    if (rows)
        return rows;
    size_t n = 0;
    LINKSET_EACH(cli_opts, struct cli_opt, o)
        n += o != NULL;
    rows = xcalloc(n + 1, sizeof(*rows));
    n = 0;
    LINKSET_EACH(cli_opts, struct cli_opt, o)
        rows[n++] = o;
    qsort(rows, n, sizeof(*rows), by_name);
    return rows;
}

const struct cli_opt *cli_opt_find(const char *name)
{
    LINKSET_EACH(cli_opts, struct cli_opt, o)
        if (!strcmp(o->name, name))
            return o;
    return NULL;
}

static const char *opt_name(const void *table, size_t i)
{
    const struct cli_opt *const *rows = table;
    return rows[i] ? rows[i]->name : NULL;
}

static bool unknown_option(const char *word, struct err *e)
{
    const char *name = word + (word[1] == '-' ? 2 : 1);
    const char *eq = strchr(name, '=');
    char *key = eq ? xstrndup(name, (size_t)(eq - name)) : NULL;
    const struct cli_opt *known = key ? cli_opt_find(key) : NULL;
    if (known && !known->arg) {
        err_set(e, ERR_VALUE, "%s: this option takes no value", word);
        err_hint(e, "write -%s alone, or leave it out", key);
    } else if (known) {
        err_set(e, ERR_UNKNOWN, "%s: unknown option", word);
        err_hint(e, "the value is a word of its own: -%s %s", key, eq + 1);
    } else if (!cli_absent(key ? key : name, e)) {
        err_set(e, ERR_UNKNOWN, "%s: unknown option", word);
        const char *near = err_nearest(key ? key : name, opt_name, opt_list());
        if (near)
            err_hint(e, "did you mean '-%s'? (all options: %s -h)", near, cli_flags.prog);
        else
            err_hint(e, "all options: %s -h", cli_flags.prog);
    }
    free(key);
    return false;
}

struct cli_item *cli_item_add(struct cli_line *l, const struct cli_opt *o, const char *typed)
{
    l->items = xrealloc(l->items, (l->n + 1) * sizeof(*l->items));
    struct cli_item *it = &l->items[l->n++];
    *it = (struct cli_item){ .opt = o, .typed = typed };
    return it;
}

/* A value for -drive: commas in a file name are written twice. */
static char *drive_of_image(const char *path)
{
    struct str b = { 0 };
    str_add(&b, "file=");
    for (const char *p = path; *p; p++) {
        if (*p == ',')
            str_add(&b, ",");
        str_addn(&b, p, 1);
    }
    return str_take(&b);
}

/* A word that is no option is a disk image, as `-drive file=WORD`. */
static bool add_image(struct cli_line *l, const char *word, struct err *e)
{
    const struct cli_opt *o = cli_opt_find("drive");
    if (!o)
        return err_set(e, ERR_NOT_BUILT, "%s: disk images need -drive, which is not in this build", word);
    struct cli_item *it = cli_item_add(l, o, word);
    it->arg = it->owned = drive_of_image(word);
    it->where = xstrdup(word);
    return true;
}

bool cli_collect(struct cli_line *l, int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || !word[1]) {
            if (!add_image(l, word, e))
                return false;
            continue;
        }
        const struct cli_opt *o = cli_opt_find(word + (word[1] == '-' ? 2 : 1));
        if (!o)
            return unknown_option(word, e);
        struct cli_item *it = cli_item_add(l, o, word);
        if (!o->arg)
            continue;
        if (i + 1 >= argc) {
            err_set(e, ERR_VALUE, "%s: a value is missing", word);
            return err_hint(e, "-%s %s", o->name, o->arg);
        }
        it->arg = argv[++i];
        if (!cli_config_item(l, o, argv[i], e))
            return false;
    }
    return cli_config_write(l, e);
}

static bool apply_item(const struct cli_item *it, struct err *e)
{
    if (it->opt->apply(it->arg, e))
        return true;
    if (it->where)
        return err_prefix(e, "%s", it->where);
    return it->arg ? err_prefix(e, "-%s %.160s", it->opt->name, it->arg) : err_prefix(e, "-%s", it->opt->name);
}

/* Steps of one phase, lower prio first; of equal ones the linker's order. */
static bool run_steps(enum cli_phase ph, struct err *e)
{
    int done = INT32_MIN;
    for (;;) {
        int next = INT32_MAX;
        bool any = false;
        LINKSET_EACH(cli_steps, struct cli_step, s) {
            if (s->phase == ph && s->prio > done && s->prio <= next) {
                next = s->prio;
                any = true;
            }
        }
        if (!any)
            return true;
        LINKSET_EACH(cli_steps, struct cli_step, s) {
            if (s->phase == ph && s->prio == next && !s->run(e))
                return false;
        }
        done = next;
    }
}

static bool asks_help(const char *arg)
{
    const char *last = arg ? strrchr(arg, ',') : NULL;
    const char *word = last ? last + 1 : arg;
    return opt_is_help(word);
}

/* A machine that cannot be built must not hide what it could be built of. */
static bool answer_help(const struct cli_line *l, struct err *e)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->items[i].opt->helps && asks_help(l->items[i].arg) && !apply_item(&l->items[i], e))
            return false;
    return true;
}

bool cli_apply(const struct cli_line *l, enum cli_phase from, enum cli_phase to, struct err *e)
{
    for (int ph = from; ph <= (int)to; ph++) {
        for (size_t i = 0; i < l->n; i++)
            if ((int)l->items[i].opt->phase == ph && !apply_item(&l->items[i], e))
                return false;
        if ((ph == CLI_EARLY && !answer_help(l, e)) || !run_steps(ph, e))
            return false;
    }
    return true;
}

void cli_line_free(struct cli_line *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->items[i].owned);
        free(l->items[i].where);
    }
    free(l->items);
    *l = (struct cli_line){ 0 };
}

static void help_row(const struct cli_opt *o, struct str *out)
{
    struct str head = { 0 };
    str_printf(&head, "  -%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    if (head.len > 30)
        str_printf(out, "%s\n%-32s%s\n", head.s, "", o->doc);
    else
        str_printf(out, "%-31s %s\n", head.s, o->doc);
    str_free(&head);
}

static bool known_section(const char *s)
{
    return s && str_in_list(s, sections);
}

void cli_help(struct str *out)
{
    str_printf(out, "usage: %s [options] [disk image]\n", cli_flags.prog);
    str_add(out, "A machine emulator: compose a machine from devices (-device) and back ends (-blockdev, -netdev, -chardev, -object).\n"
                 "Most options explain themselves: -device help, -device NAME,help, -M help, ...\n");
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        const char *title = sections[i] ? sections[i] : "Other";
        bool shown = false;
        for (const struct cli_opt *const *o = opt_list(); *o; o++) {
            if (sections[i] ? !str_eq((*o)->section, sections[i]) : known_section((*o)->section))
                continue;
            if (!shown)
                str_printf(out, "\n%s:\n", title);
            shown = true;
            help_row(*o, out);
        }
    }
}
