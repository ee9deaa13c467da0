/* SPDX-License-Identifier: MIT */
/* backplane-img: which command, help, and the loop that it runs on. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/exit_file.h"
#include "base/log.h"
#include "block/driver.h"
#include "core/backend.h"
#include "core/flags.h"
#include "core/help.h"
#include "img/img.h"

struct run { const struct img_cmd *cmd; int argc; char **argv; int status; };

static void co_run(void *arg)
{
    struct run *r = arg;
    r->status = r->cmd->co_run(r->argc, r->argv);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct img_cmd *const *)a)->name, (*(const struct img_cmd *const *)b)->name);
}

/* Formats that images can have, those that can be made first. */
static void formats(FILE *out, bool made)
{
    fputs(made ? "Formats: " : "; only to be read or opened: ", out);
    const char *between = "";
    for (const struct obj_class *const *c = obj_class_list(&blk_node_class, false); *c; c++) {
        const struct blk_driver *d = (const struct blk_driver *)*c;
        if (!(d->flags & BLK_FORMAT) || !d->co_create == made)
            continue;
        fprintf(out, "%s%s", between, backend_type(&blk_node_class, *c));
        between = " ";
    }
}

static void usage(FILE *out)
{
    const struct img_cmd *v[64];
    size_t n = 0;
    LINKSET_EACH(img_cmds, struct img_cmd, c)
        if (n < ARRAY_SIZE(v))
            v[n++] = c;
    qsort(v, n, sizeof *v, by_name);
    fprintf(out, "backplane-img version %s\nusage: backplane-img COMMAND [options]\n\n", BP_VERSION);
    for (size_t i = 0; i < n; i++) {
        fputs("  ", out);
        img_usage(out, v[i]);
        fprintf(out, "      %s\n", v[i]->doc);
    }
    fputc('\n', out);
    formats(out, true);
    formats(out, false);
    fprintf(out, "\n\nbackplane-img COMMAND --help says what the options of a command do. Sizes take suffixes k M G T P E.\n");
}

static const char *cmd_name(const void *table, size_t i)
{
    LINKSET_EACH(img_cmds, struct img_cmd, c)
        if (!i--)
            return c->name;
    return NULL;
}

static const struct img_cmd *find(const char *name)
{
    LINKSET_EACH(img_cmds, struct img_cmd, c)
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

/* @status, if all that was said has also been written. */
static int written(int status)
{
    bool ok = fflush(stdout) == 0 && !ferror(stdout);
    return ok || status ? status : img_fail_errno(-EIO, "cannot write the output");
}

static void on_end(int sig)
{
    exit_files_unlink();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* What is half made goes with us. */
static void clean_up_on_signal(void)
{
    static const int ends[] = { SIGTERM, SIGINT, SIGHUP };
    struct sigaction sa = { .sa_handler = on_end }, old;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
        if (!sigaction(ends[i], NULL, &old) && old.sa_handler != SIG_IGN)       /* nohup */
            sigaction(ends[i], &sa, NULL);
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    cli_flags.prog = "backplane-img";
    log_set_program(cli_flags.prog);
    backend_types_are_at("formats: backplane-img --help");
    if (argc < 2 || !strcmp(argv[1], "help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? 1 : written(0);
    }
    if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version")) {
        struct str out = { 0 };
        help_version("backplane-img", &out);
        help_exit(&out);
    }
    struct run r = { find(argv[1]), argc - 1, argv + 1, 1 };
    if (!r.cmd) {
        err_unknown(&e, "command", argv[1], "", cmd_name, NULL);
        return img_fail(&e, NULL);
    }
    if (argc > 2 && (!strcmp(argv[2], "-h") || !strcmp(argv[2], "--help"))) {
        img_help(r.cmd);
        return written(0);
    }
    char name[64];                      /* in what getopt says of mistakes */
    snprintf(name, sizeof name, "backplane-img: %s", argv[1]);
    argv[1] = name;
    if (!loop_main_init(&e))
        return img_fail(&e, NULL);
    loop_set_may_block(loop_main(), true);
    img_progress_on_signal();
    clean_up_on_signal();
    co_run_main(co_run, &r);
    return written(r.status);
}
