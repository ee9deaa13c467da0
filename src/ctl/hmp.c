/* SPDX-License-Identifier: MIT */
/* The monitor for a person: a line editor on a character back end, and the look-up of commands. */
#include "ctl/hmp.h"

#include <stdlib.h>
#include <string.h>
#include "core/flags.h"
#include "ctl/mon.h"
#include "ctl/preconfig.h"
#include "ctl/qmp.h"
#include "loop/co.h"


struct hmp_mon {
    struct mon mon;             /* first */
    struct lineedit edit;
    unsigned cpu;
    bool running, dead, greeted, away;      /* away: a multiplexer's user looks at another front end */
    char *todo;                 /* the line that runs */
};

static struct hmp_mon *hmp_of(struct mon *m) { return container_of(m, struct hmp_mon, mon); }

unsigned hmp_cpu;

static bool word_is(const char *names, const char *word, size_t n)
{
    while (names && *names) {
        size_t len = strcspn(names, "|,");
        if (len == n && !strncmp(names, word, n))
            return true;
        names += len + (names[len] != 0);
    }
    return false;
}

/* The command of the first @n bytes of @name ("info status"), or of an alias. */
static const struct hmp_cmd *cmd_find(const char *name, size_t n)
{
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c)
        if ((strlen(c->name) == n && !strncmp(c->name, name, n)) || word_is(c->aliases, name, n))
            return c;
    return NULL;
}

static const char *cmd_name(const void *table, size_t i)
{
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c)
        if (!c->absent && i-- == 0)
            return c->name;
    return NULL;
}

/* "info" and "info X" are one name: the row's name holds a single space. */
const struct hmp_cmd *hmp_cmd_split(const char *line, char name[64], const char **arg)
{
    size_t n = strcspn(line, " /");
    if (n == 4 && !strncmp(line, "info", 4) && line[n] == ' ') {
        const char *sub = line + n + strspn(line + n, " ");
        snprintf(name, 64, "info %.50s", sub);
        name[5 + MIN(strcspn(sub, " "), (size_t)50)] = 0;
        *arg = sub + strcspn(sub, " ");
    } else {
        snprintf(name, 64, "%.60s", line);
        name[MIN(n, (size_t)60)] = 0;
        *arg = line + n;
    }
    *arg += strspn(*arg, " ");
    return cmd_find(name, strlen(name));
}

/* @arg without the quotes that enclose it as a whole (caller frees); NULL: there are none. */
static char *unquote(const char *arg)
{
    size_t n = strlen(arg);
    while (n && arg[n - 1] == ' ')
        n--;
    if (n < 2 || arg[0] != '"' || arg[n - 1] != '"')
        return NULL;
    char *s = xcalloc(n, 1), *to = s;
    for (size_t i = 1; i < n - 1; i++) {
        if (arg[i] == '"') {                /* it ends before the argument does */
            free(s);
            return NULL;
        }
        if (arg[i] == '\\' && i + 2 < n)
            i++;
        *to++ = arg[i];
    }
    return s;
}

void co_hmp_execute(const char *line, unsigned *cpu, struct str *out)
{
    char name[64];
    const char *arg;
    line += strspn(line, " \t");
    if (!*line)
        return;
    const struct hmp_cmd *c = hmp_cmd_split(line, name, &arg);
    if (!c) {
        const char *near = err_nearest(name, cmd_name, NULL);
        str_printf(out, "unknown command: '%s'%s%s%s\n", name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        return;
    }
    if (preconfig_active() && !c->absent && !(c->qmp ? qmp_cmd_find(c->qmp)->preconfig : c->preconfig)) {
        str_printf(out, "Error: %s: only after the machine was built (exit_preconfig)\n", name);
        return;
    }
    if (c->co_run && !(c->args && *c->args) && arg[strspn(arg, " \t\r\n")]) {
        str_printf(out, "Error: '%s' takes no argument\n", name);
        return;
    }
    hmp_cpu = *cpu;
    char *bare = c->co_run ? unquote(arg) : NULL;
    if (c->co_run)
        c->co_run(bare ? bare : arg, out);
    else if (c->qmp)
        co_hmp_mapped(c, arg, out);
    else
        str_printf(out, "Error: %s\n", c->absent);
    free(bare);
    *cpu = hmp_cpu;
}

static void maybe_free(struct hmp_mon *h)
{
    if (!h->dead || h->running)
        return;
    lineedit_free(&h->edit);
    free(h);
}

static void co_run_line(void *arg)
{
    struct hmp_mon *h = arg;
    struct str out = { 0 };
    co_hmp_execute(h->todo, &h->cpu, &out);
    free(h->todo);
    h->todo = NULL;
    h->running = false;
    if (!h->dead) {
        if (out.len)
            mon_write(&h->mon, out.s, out.len);
        if (!h->away)
            lineedit_start(&h->edit);
        mon_accept(&h->mon);
    }
    str_free(&out);
    maybe_free(h);
}

static void on_line(void *arg, const char *line)
{
    struct hmp_mon *h = arg;
    h->todo = xstrdup(line);
    h->running = true;
    co_spawn(loop_main(), NULL, co_run_line, h);
}

static void echo(void *arg, const char *s, size_t n) { mon_write(&((struct hmp_mon *)arg)->mon, s, n); }
static void complete(void *arg, const char *text, size_t word, struct lineedit_words *w) { hmp_complete(text, word, w); }

static void on_read(struct mon *m, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lineedit_key(&hmp_of(m)->edit, buf[i]);
}

static void greet(struct hmp_mon *h)
{
    static const char hello[] = "backplane " BP_VERSION " monitor - 'help' lists the commands\n";
    if (!h->greeted)
        mon_write(&h->mon, hello, sizeof(hello) - 1);
    h->greeted = true;
    if (!h->running)
        lineedit_start(&h->edit);
}

static void on_opened(struct mon *m)
{
    struct hmp_mon *h = hmp_of(m);
    h->greeted = false;
    lineedit_free(&h->edit);
    if (!h->away)
        greet(h);
}

static void on_focus(struct mon *m, bool here)
{
    struct hmp_mon *h = hmp_of(m);
    h->away = !here;
    if (here)
        greet(h);
    else
        mon_write(m, "\n", 1);
}

static void on_closed(struct mon *m) { }
/* One byte at a time: a line that runs holds up what was typed after it. */
static bool is_busy(const struct mon *m) { return container_of(m, const struct hmp_mon, mon)->running; }

static void on_free(struct mon *m)
{
    struct hmp_mon *h = hmp_of(m);
    h->dead = true;
    maybe_free(h);
}

static const struct mon_ops hmp_ops = { .opened = on_opened, .closed = on_closed, .busy = is_busy, .read = on_read, .focus = on_focus,
                                        .free = on_free };

struct mon *hmp_mon_new(bool shared)
{
    struct hmp_mon *h = xnew(struct hmp_mon);
    h->mon.ops = &hmp_ops;
    h->mon.crlf = true;
    h->mon.input_unit = 1;
    h->away = shared;
    h->edit = (struct lineedit){ .out = echo, .line = on_line, .complete = complete, .arg = h,
                                 .prompt = cli_flags.compat_qemu ? "(qemu) " : "(backplane) " };    /* scripts wait for QEMU's */
    return &h->mon;
}
