/* SPDX-License-Identifier: MIT */
/*
 * Commands and command-line options as rows that any folder may add. QMP and HMP are served from one set; an argument
 * is a property row over the command's own argument struct.
 */
#ifndef CORE_CMD_H
#define CORE_CMD_H

#include <jansson.h>
#include "base/linkset.h"
#include "core/prop.h"

/* Commands of which some must not run beside each other: waits until this one may; what it answers is due to end(). Coroutines on the main loop. */
struct cmd_turn { void *(*co_begin)(json_t *args); void (*end)(void *turn); };
/* QMP command. Runs as a coroutine on the main loop, one at a time per monitor (out-of-band ones apart). */
struct qmp_cmd {
    const char *name, *doc;
    const struct prop *args;            /* NULL: none */
    size_t args_size;
    /* New reference (json_object() for "nothing to say"), or NULL with @e filled. */
    json_t *(*co_run)(void *args, struct err *e);
    bool preconfig;                     /* also before the machine is built (--preconfig) */
    bool oob, no_caps;
    /*
     * What it answers, for introspection: the members of the object (@list: an array of such); qmp_nothing; or in short, as @says
     * tells: "[{id:str, *size:int, list:[str], more:{a:bool}}]", a star before what may be missing. Neither: "any".
     */
    const struct prop *ret;
    bool list;
    bool raw;                           /* co_run gets the json_t object of arguments itself, borrowed, whatever it holds; @args is told, not checked */
    const char *says;
    /* With raw: the member (a required string of @args) that names a class, and whose options are arguments too. @one_of: the base of
     * these classes, whose name and a '-' the type names leave out; NULL: whatever -object makes. */
    const char *tag;
    const struct obj_class *one_of;
    /* Words of introspection by which programs tell what it can do beyond its arguments, parted by spaces. NULL: none. */
    const char *features;
    const struct cmd_turn *turn;        /* it runs in one, which begins before its arguments are read. NULL: beside all others */
};
extern const struct prop qmp_nothing[];
LINKSET_DECLARE(qmp_cmds, struct qmp_cmd);
#define QMP_CMD(ptr) LINKSET_ADD(qmp_cmds, struct qmp_cmd, ptr)

/* QMP event to every monitor: @data stolen, may be NULL. ANY. Rate limits are ctl's. */
void qmp_event(const char *name, json_t *data);
/* Each event that can be sent has a row, in the file that sends it: introspection lists them. */
struct qmp_event_def {
    const char *name, *doc;
    bool limited;               /* at most one a second, the latest data wins */
    const char *key;            /* with limited: the member of the data that tells apart whose second it is ("id"). May be NULL */
    const char *says;           /* its data, as qmp_cmd's @says tells; NULL: none */
};
LINKSET_DECLARE(qmp_events, struct qmp_event_def);
#define QMP_EVENT(ptr) LINKSET_ADD(qmp_events, struct qmp_event_def, ptr)
extern void (*qmp_event_sink)(const char *name, json_t *data);     /* set by ctl; NULL: dropped */

/* HMP command: `info` subcommands are named "info NAME". Prints to @out. Coroutine on the main loop. */
struct hmp_cmd {
    const char *name, *aliases, *args, *doc;    /* "x", "", "/FMT ADDR", "virtual memory dump" */
    void (*co_run)(const char *arg, struct str *out);
    /* What the argument is, for completion: ids of a namespace ("device", "chardev", ...), "+device" or "+object" for types with
     * their options, "command", or NULL. */
    const char *completes;
    /*
     * In place of co_run: the QMP command that it is, and what its words are, in order: "device size" are arguments, the last one with
     * "..." behind it is the rest of the line; "-n:mode=existing" is a flag and the argument that it sets (without '=': to true);
     * "sync=top" is set always; "cpu-index@" is the monitor's CPU. What the command answers is printed.
     */
    const char *qmp, *words;
    bool preconfig;                     /* also before the machine is built; with @qmp, that command's counts */
    /* In place of both: why this program answers with an error. Such a row is not in help. */
    const char *absent;
};
LINKSET_DECLARE(hmp_cmds, struct hmp_cmd);
#define HMP_CMD(ptr) LINKSET_ADD(hmp_cmds, struct hmp_cmd, ptr)
/* How a command says that it failed. ANY. */
static inline void hmp_error(struct str *out, const struct err *e)
{
    str_printf(out, "Error: %s\n", e->msg);
    if (e->hint[0])
        str_printf(out, "hint: %s\n", e->hint);
}

/* In which order options take effect, whatever their order on the command line. */
enum cli_phase {
    CLI_EARLY,          /* -h, -version, -D, -d, -name, -sandbox, -daemonize */
    CLI_MACHINE,        /* -M, -cpu, -smp, -m, -accel: collected */
    CLI_OBJECT,         /* -object: memory, iothreads, secrets, rng */
    CLI_CHARDEV,
    CLI_BLOCK,          /* -blockdev, -drive */
    CLI_NET,            /* -netdev, -nic */
    CLI_BOARD,          /* the machine is built here, between CLI_NET and CLI_DEVICE */
    CLI_DEVICE,         /* -device, and what expands to devices */
    CLI_MONITOR,        /* -qmp, -mon, -monitor, -qtest */
    CLI_RUN,            /* -gdb, -S, -loadvm, -incoming */
};

struct cli_opt {
    const char *name;           /* without dashes */
    const char *arg;            /* "FILE", or NULL: takes none */
    const char *doc;            /* for -h */
    const char *section;        /* "Machine", "Block", "Network", "Character", "Monitor", "Debug" */
    enum cli_phase phase;
    /* Called in phase order, command-line order within a phase. @arg is NULL where the option takes none. */
    bool (*apply)(const char *arg, struct err *e);
    /* apply() of `help` and `X,help` prints and ends the process: done right after CLI_EARLY, before anything is built. */
    bool helps;
    const struct prop *args;    /* its keys, for introspection; NULL: none, or not told */
    const struct obj_class *of; /* and those of every class derived from this one; NULL: of none */
};
LINKSET_DECLARE(cli_opts, struct cli_opt);
#define CLI_OPT(ptr) LINKSET_ADD(cli_opts, struct cli_opt, ptr)
/* Option @name at once, for programs without a machine that take some of the emulator's. Main loop. */
bool cli_apply_one(const char *name, const char *arg, struct err *e) MUST_CHECK;

/*
 * Work of a phase that no single option stands for: runs after the phase's options were applied, lower @prio first.
 * The machine is built by a step of CLI_BOARD; default serial ports and cards are made by steps of their phases.
 */
struct cli_step {
    const char *name;
    enum cli_phase phase;
    int prio;
    bool (*run)(struct err *e);
};
LINKSET_DECLARE(cli_steps, struct cli_step);
#define CLI_STEP(ptr) LINKSET_ADD(cli_steps, struct cli_step, ptr)

#endif
