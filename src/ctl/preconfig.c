/* SPDX-License-Identifier: MIT */
#include "ctl/preconfig.h"

#include "core/cmd.h"
#include "core/flags.h"
#include "core/run.h"
#include "loop/co.h"

static enum { BEFORE, BUILDING, OVER } stage;
static struct co_event built;

bool preconfig_active(void) { return cli_flags.preconfig && stage != OVER; }

bool preconfig_wait(void)
{
    while (stage == BEFORE && !run_quit_requested())
        loop_run_once(loop_main(), -1);
    return stage == BUILDING;
}

void preconfig_end(void)
{
    stage = OVER;
    co_wake(&built);
}

/* Answers when the machine stands, so that the next command finds it. */
static json_t *co_exit_preconfig(void *args, struct err *e)
{
    if (!preconfig_active() || stage != BEFORE) {
        err_set(e, ERR_STATE, "x-exit-preconfig: the machine is built already");
        return NULL;
    }
    stage = BUILDING;
    co_wait(&built);
    return json_object();
}
static const struct qmp_cmd cmd = { .name = "x-exit-preconfig", .doc = "Builds the machine that --preconfig put off", .co_run = co_exit_preconfig,
    .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd);
static const struct hmp_cmd hmp = { .name = "exit_preconfig", .args = "", .doc = "builds the machine that --preconfig put off", .qmp = "x-exit-preconfig",
    .words = "" };
HMP_CMD(&hmp);

static bool apply(const char *arg, struct err *e) { return cli_flags.preconfig = true; }
static const struct cli_opt opt = { "preconfig", NULL, "monitors first; the machine is built when one sends x-exit-preconfig", "Monitor", CLI_EARLY, apply };
CLI_OPT(&opt);
