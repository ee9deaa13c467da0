/* SPDX-License-Identifier: MIT */
/* -run-with: who the process dies with, as whom it runs, which part of the file system it sees. */
#include "ctl/cli_int.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "core/cmd.h"

static struct run_with_args { bool exit_with_parent; char *chroot, *user; } args;
static const struct prop run_with_props[] = {
    PROP_BOOL(struct run_with_args, exit_with_parent, "exit-with-parent", false, "End when the process that started this one ends"),
    PROP_STR(struct run_with_args, chroot, "chroot", 0, "Folder that becomes the root of the file system once everything is open"),
    PROP_STR(struct run_with_args, user, "user", 0, "User (NAME or UID:GID) to become once everything is open"),
    PROP_END };
static struct { uid_t uid; gid_t gid; } who;

bool cli_exits_with_parent(void) { return args.exit_with_parent; }

/* "NAME" or "UID:GID". */
static bool find_user(const char *text, struct err *e)
{
    uint64_t uid, gid;
    const char *colon = strchr(text, ':');
    char *first = xstrndup(text, colon ? (size_t)(colon - text) : strlen(text));
    bool numbers = colon && parse_u64(first, &uid) && parse_u64(colon + 1, &gid) && uid < UINT32_MAX && gid < UINT32_MAX;
    struct passwd *p = numbers || colon ? NULL : getpwnam(text);
    free(first);
    if (numbers || p) {
        who.uid = numbers ? (uid_t)uid : p->pw_uid;
        who.gid = numbers ? (gid_t)gid : p->pw_gid;
        return true;
    }
    err_set(e, ERR_NOT_FOUND, "user=%.60s: there is no such user", text);
    return err_hint(e, "write the name of a user of this host, or UID:GID as two numbers");
}

static bool apply_run_with(const char *arg, struct err *e)
{
    prop_release(run_with_props, &args);
    if (!cli_args(arg, NULL, run_with_props, &args, "option '-run-with'", e) || (args.user && !find_user(args.user, e)))
        return false;
    if (prctl(PR_SET_PDEATHSIG, args.exit_with_parent ? SIGTERM : 0) < 0)
        return err_os(e, errno, "exit-with-parent");
    return true;
}
static const struct cli_opt opt_run_with = { "run-with", "exit-with-parent=on|off[,chroot=DIR][,user=NAME]", "end with the parent process; give up rights",
    "Process", CLI_EARLY, apply_run_with, true, .args = run_with_props };
CLI_OPT(&opt_run_with);

/* Everything is open and bound; changing the user takes away the wish to die with the parent, so that is said again. */
static bool give_up_rights(struct err *e)
{
    if (args.chroot && (chroot(args.chroot) < 0 || chdir("/") < 0))
        return err_os(e, errno, "-run-with chroot=%s", args.chroot);
    if (args.user && (setgroups(1, &who.gid) < 0 || setresgid(who.gid, who.gid, who.gid) < 0 || setresuid(who.uid, who.uid, who.uid) < 0))
        return err_os(e, errno, "-run-with user=%s", args.user);
    if (args.user && args.exit_with_parent && prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return err_os(e, errno, "exit-with-parent");
    return true;
}
static const struct cli_step step_rights = { "rights", CLI_RUN, 2000, give_up_rights };
CLI_STEP(&step_rights);
