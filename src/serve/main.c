/* SPDX-License-Identifier: MIT */
/*
 * backplane-serve: block nodes without a machine. Nodes, objects and the monitor are those of the emulator's command line; the
 * program serves its exports until it is told to end (SIGTERM, SIGINT, `quit` by a monitor).
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/opt.h"
#include "block/nbd_server.h"
#include "core/backend.h"
#include "core/cmd.h"
#include "core/help.h"
#include "core/flags.h"
#include "core/run.h"
#include "ctl/ctl.h"
#include "loop/loop.h"

enum { MAX_MONITORS = 16 };

/* ---- options: our own, beside those that the emulator has, too ---- */

static bool opt_nbd_server(const char *arg, struct err *e)
{
    struct nbd_server_args a = { 0 };
    bool ok = cli_args(arg, NULL, nbd_server_props, &a, "option '--nbd-server'", e) && nbd_server_start(&a, e);
    prop_release(nbd_server_props, &a);
    return ok || err_prefix(e, "--nbd-server %s", arg);
}

/* "help", "TYPE,help". */
static bool export_help(json_t *o, struct err *e)
{
    struct str out = { 0 };
    const char *type = json_string_value(json_object_get(o, "type"));
    const struct obj_class *base = &blk_export_class.obj, *c = type && !opt_is_help(type) ? backend_find(base, type, e) : NULL;
    bool known = c || !type || opt_is_help(type);
    if (c)
        backend_help_type(base, c, &out);
    else if (known)
        backend_help_types(base, "Exports (--export TYPE,help shows the options)", &out);
    json_decref(o);
    if (known)
        help_exit(&out);
    return false;
}

static bool opt_export(const char *arg, struct err *e)
{
    json_t *o = opt_parse(arg, "type", e);
    if (o && opt_asks_help(o))
        return export_help(o, e);
    if (o && !json_object_get(o, "type"))
        json_object_set_new(o, "type", json_string("nbd"));
    bool ok = o && blk_export_create(o, e);
    json_decref(o);
    return ok || err_prefix(e, "--export %s", arg);
}

static _Noreturn void usage(void)
{
    struct str out = { 0 };
    str_printf(&out, "backplane-serve version %s\nusage: backplane-serve [options]\n\n"
               "  --blockdev DRIVER,node-name=NAME,...   adds a block node\n"
               "  --object TYPE,id=ID,...                adds an object (throttle-group, iothread...)\n"
               "  --chardev TYPE,id=ID,...               adds a character device\n"
               "  --nbd-server addr.type=unix,addr.path=PATH | addr.type=inet,addr.host=HOST,addr.port=PORT[,max-connections=N]\n"
               "      [,handshake-max-seconds=N][,tls-creds=ID]\n"
               "  --export TYPE,id=ID,node-name=NODE,... exports a node; TYPE,help shows a type's options, help the types\n"
               "  --monitor [chardev=]ID                 QMP on a character device\n"
               "  --pidfile PATH                         the process id, once everything is served\n"
               "  --daemonize                            goes into the background once everything is served\n"
               "  --trace [enable=]PATTERN[,file=FILE]   logs trace points (help lists them); -T for short\n", BP_VERSION);
    help_exit(&out);
}

/* A monitor on a character device: "ID" or "chardev=ID". */
static bool opt_monitor(const char *arg, struct err *e)
{
    char *text = xasprintf("%s%s,mode=control", strchr(arg, '=') ? "" : "chardev=", arg);
    bool ok = cli_apply_one("mon", text, e);
    free(text);
    return ok;
}

static _Noreturn void version(void)
{
    struct str out = { 0 };
    help_version("backplane-serve", &out);
    help_exit(&out);
}

static const struct option longs[] = {
    { "blockdev", 1, NULL, 0 }, { "object", 1, NULL, 0 }, { "chardev", 1, NULL, 0 }, { "nbd-server", 1, NULL, 'n' },
    { "export", 1, NULL, 'e' }, { "monitor", 1, NULL, 'm' }, { "pidfile", 1, NULL, 0 }, { "daemonize", 0, NULL, 'd' },
    { "trace", 1, NULL, 'T' }, { "help", 0, NULL, 'h' }, { "version", 0, NULL, 'V' }, { NULL, 0, NULL, 0 },
};

/* The next option; messages of the emulator name options with one dash, and so they may be written here. */
static int next_option(int argc, char **argv, int *which) { return getopt_long_only(argc, argv, "hVT:", longs, which); }

/* What decides about the process itself, before it has threads. Mistakes are found later. */
static void options_first(int argc, char **argv)
{
    int c;
    opterr = 0;
    while ((c = next_option(argc, argv, NULL)) != -1)
        cli_flags.daemonize |= c == 'd';
    opterr = 1;
    optind = 0;                     /* glibc: begins anew */
}

/* Options in the order in which they are given: each sees what the ones before made. Monitors come last: who is told to connect to one finds all. */
static bool options(int argc, char **argv, struct err *e)
{
    const char *monitors[MAX_MONITORS];
    unsigned n_monitors = 0;
    int which, c;
    while ((c = next_option(argc, argv, &which)) != -1) {
        bool ok = true;
        switch (c) {
        case 0: ok = cli_apply_one(longs[which].name, optarg, e); break;
        case 'T': ok = cli_apply_one("trace", optarg, e); break;
        case 'd': break;            /* seen by options_first() */
        case 'n': ok = opt_nbd_server(optarg, e); break;
        case 'e': ok = opt_export(optarg, e); break;
        case 'm':
            if (n_monitors == MAX_MONITORS)
                return err_set(e, ERR_VALUE, "--monitor: %d are the most", MAX_MONITORS);
            monitors[n_monitors++] = optarg;
            break;
        case 'h': usage();
        case 'V': version();
        default: return err_set(e, ERR_VALUE, "all options: backplane-serve --help");
        }
        if (!ok)
            return false;
    }
    if (optind < argc)
        return err_set(e, ERR_VALUE, "'%s' is no option", argv[optind]);
    for (unsigned i = 0; i < n_monitors; i++)
        if (!opt_monitor(monitors[i], e))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    struct err e = ERR_INIT;
    cli_flags.prog = "backplane-serve";
    log_set_program(cli_flags.prog);
    options_first(argc, argv);
    bool ok = ctl_begin(&e) && options(argc, argv, &e) && ctl_begun(&e);
    if (!ok)
        err_print(&e);
    while (ok && !run_quit_requested())
        loop_run_once(loop_main(), -1);
    ctl_end();                          /* not as late as by exit(), when libraries that storage needs (libssh's ciphers) have cleaned up */
    return !ok;
}
