/* SPDX-License-Identifier: MIT */
/* The monitor for a person: a line editor on a character back end, and the look-up of commands. */
#include "ctl/mon.h"

#include <stdlib.h>
#include <string.h>
#include "core/cmd.h"
#include "ctl/hmp.h"
#include "loop/co.h"

#define LINE_MAX_BYTES 4096u
#define PROMPT "(backplane) "

struct hmp_mon {
    struct mon mon;             /* first */
    char line[LINE_MAX_BYTES];
    size_t len;
    unsigned cpu;
    bool running, dead, after_cr;
    char *todo;                 /* the line that runs */
};

static struct hmp_mon *hmp_of(struct mon *m) { return container_of(m, struct hmp_mon, mon); }
static void say(struct hmp_mon *h, const char *s) { mon_write(&h->mon, s, strlen(s)); }

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

const struct hmp_cmd *hmp_cmd_find(const char *name, size_t n)
{
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c)
        if ((strlen(c->name) == n && !strncmp(c->name, name, n)) || word_is(c->aliases, name, n))
            return c;
    return NULL;
}

static const char *cmd_name(const void *table, size_t i)
{
    LINKSET_EACH(hmp_cmds, struct hmp_cmd, c)
        if (i-- == 0)
            return c->name;
    return NULL;
}

/* "info" and "info X" are one name: the row's name holds a single space. */
static const struct hmp_cmd *split(const char *line, char name[64], const char **arg)
{
    size_t n = strcspn(line, " /");
    if (n == 4 && !strncmp(line, "info", 4) && line[n] == ' ') {
        const char *sub = line + n + strspn(line + n, " ");
        snprintf(name, 64, "info %.*s", (int)MIN(strcspn(sub, " "), (size_t)50), sub);
        *arg = sub + strcspn(sub, " ");
    } else {
        snprintf(name, 64, "%.*s", (int)MIN(n, (size_t)60), line);
        *arg = line + n;
    }
    *arg += strspn(*arg, " ");
    return hmp_cmd_find(name, strlen(name));
}

void co_hmp_execute(const char *line, unsigned *cpu, struct str *out)
{
    char name[64];
    const char *arg;
    line += strspn(line, " \t");
    if (!*line)
        return;
    const struct hmp_cmd *c = split(line, name, &arg);
    if (!c) {
        const char *near = err_nearest(name, cmd_name, NULL);
        str_printf(out, "unknown command: '%s'%s%s%s\n", name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        return;
    }
    hmp_cpu = *cpu;
    c->co_run(arg, out);
    *cpu = hmp_cpu;
}

static void maybe_free(struct hmp_mon *h)
{
    if (h->dead && !h->running)
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
        say(h, PROMPT);
        mon_accept(&h->mon);
    }
    str_free(&out);
    maybe_free(h);
}

static void end_line(struct hmp_mon *h)
{
    say(h, "\n");
    h->todo = xstrndup(h->line, h->len);
    h->len = 0;
    h->running = true;
    co_spawn(loop_main(), NULL, co_run_line, h);
}

static void key(struct hmp_mon *h, uint8_t c)
{
    bool second = c == '\n' && h->after_cr;
    h->after_cr = c == '\r';
    if (second)
        return;
    if (c == '\r' || c == '\n') {
        end_line(h);
    } else if ((c == 0x7f || c == 8) && h->len) {
        h->len--;
        say(h, "\b \b");
    } else if (c == 0x15 || c == 3) {           /* Ctrl-u, Ctrl-c: the line anew */
        h->len = 0;
        say(h, "\n" PROMPT);
    } else if (c >= ' ' && c != 0x7f && h->len < LINE_MAX_BYTES - 1) {
        h->line[h->len++] = (char)c;
        mon_write(&h->mon, (const char *)&c, 1);
    }
}

static void on_read(struct mon *m, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        key(hmp_of(m), buf[i]);
}

static void on_opened(struct mon *m)
{
    hmp_of(m)->len = 0;
    say(hmp_of(m), "backplane " BP_VERSION " monitor - 'help' lists the commands\n" PROMPT);
}

static void on_closed(struct mon *m) { hmp_of(m)->len = 0; }
/* One byte at a time: a line that runs holds up what was typed after it. */
static bool is_busy(const struct mon *m) { return container_of(m, const struct hmp_mon, mon)->running; }

static void on_free(struct mon *m)
{
    struct hmp_mon *h = hmp_of(m);
    h->dead = true;
    maybe_free(h);
}

static const struct mon_ops hmp_ops = { .opened = on_opened, .closed = on_closed, .busy = is_busy, .read = on_read, .free = on_free };

struct mon *hmp_mon_new(void)
{
    struct hmp_mon *h = xnew(struct hmp_mon);
    h->mon.ops = &hmp_ops;
    h->mon.crlf = true;
    h->mon.input_unit = 1;
    return &h->mon;
}
