/* SPDX-License-Identifier: MIT */
/*
 * -sandbox: the kernel refuses what an emulator never needs. A guest that found a way into this process cannot mount, load modules,
 * trace others or reboot the host; with more options on it cannot start programs, change its user or its priority either. The filter
 * covers system calls: what goes through io_uring is limited to the operations that it has.
 */
#include "ctl/cli_int.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include "base/bits.h"
#include "core/cmd.h"

static const char *const allow_deny[] = { "allow", "deny", NULL };
static const char *const elevate_names[] = { "allow", "deny", "children", NULL };
enum { ALLOW, DENY, CHILDREN };
static struct sandbox_args { bool enable; int obsolete, elevate, spawn, resource; } args;
static const struct prop sandbox_props[] = {
    PROP_BOOL(struct sandbox_args, enable, "enable", false, "Refuse system calls that an emulator never needs"),
    PROP_ENUM(struct sandbox_args, obsolete, "obsolete", allow_deny, DENY, "System calls that only old programs make"),
    PROP_ENUM(struct sandbox_args, elevate, "elevateprivileges", elevate_names, ALLOW,
              "Change of user and group; children: programs that are started gain no privileges"),
    PROP_ENUM(struct sandbox_args, spawn, "spawn", allow_deny, ALLOW, "Starting other programs"),
    PROP_ENUM(struct sandbox_args, resource, "resourcecontrol", allow_deny, ALLOW, "Change of priority and scheduling"),
    PROP_END };

static bool apply_sandbox(const char *arg, struct err *e)
{
    if (!cli_args(arg, "enable", sandbox_props, &args, "option '-sandbox'", e))
        return false;
#ifdef CONFIG_SECCOMP
    return true;
#else
    if (!args.enable)
        return true;
    err_set(e, ERR_NOT_BUILT, "a sandbox is not in this build");
    return err_hint(e, "it needs libseccomp when the program is built");
#endif
}
static const struct cli_opt opt_sandbox = { "sandbox", "on|off[,spawn=deny][,...]", "let the kernel refuse what an emulator never needs", "Process",
    CLI_EARLY, apply_sandbox, true, .args = sandbox_props };
CLI_OPT(&opt_sandbox);

#ifdef CONFIG_SECCOMP
#include <seccomp.h>

/* Names that this architecture lacks are passed over. */
static const char *const always[] = {
    "mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr",
    "swapon", "swapoff", "reboot", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "syslog", "acct",
    "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname", "quotactl", "quotactl_fd", "nfsservctl",
    "lookup_dcookie", "perf_event_open", "bpf", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "add_key", "request_key",
    "keyctl", "setns", "unshare", "userfaultfd", "iopl", "ioperm", "vhangup", "name_to_handle_at", "open_by_handle_at", "fanotify_init",
    NULL };
static const char *const obsolete[] = {
    "uselib", "ustat", "sysfs", "_sysctl", "afs_syscall", "break", "create_module", "ftime", "get_kernel_syms", "getpmsg", "gtty", "idle",
    "lock", "mpx", "prof", "profil", "putpmsg", "query_module", "readdir", "security", "stty", "tuxcall", "ulimit", "vserver", "modify_ldt",
    NULL };
static const char *const elevate[] = {
    "setuid", "setgid", "setpgid", "setsid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", NULL };
static const char *const spawn[] = { "fork", "vfork", "execve", "execveat", NULL };
static const char *const resource[] = {
    "setpriority", "sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity", "ioprio_set", NULL };

static int refuse(scmp_filter_ctx f, const char *const *names)
{
    int r = 0;
    for (; !r && *names; names++) {
        int nr = seccomp_syscall_resolve_name(*names);
        if (nr >= 0)
            r = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, nr, 0);
    }
    return r;
}

static int refuse_spawn(scmp_filter_ctx f)
{
    int r = refuse(f, spawn);
    if (!r)         /* threads are needed, processes are not; clone3() hides its flags, so the C library is made to fall back */
        r = seccomp_rule_add(f, SCMP_ACT_KILL_PROCESS, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, 0x00010000, 0));
    return r ? r : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static bool sandbox_enter(struct err *e)
{
    if (!args.enable)
        return true;
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    if (!f)
        return err_set(e, ERR_GENERIC, "-sandbox: out of memory");
    int r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    r = r ? r : refuse(f, always);
    r = r || args.obsolete == ALLOW ? r : refuse(f, obsolete);
    r = r || args.elevate != DENY ? r : refuse(f, elevate);
    r = r || args.spawn == ALLOW ? r : refuse_spawn(f);
    r = r || args.resource == ALLOW ? r : refuse(f, resource);
    if (!r && args.elevate == CHILDREN && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = -errno;
    r = r ? r : seccomp_load(f);
    seccomp_release(f);
    return !r || err_os(e, -r, "-sandbox");
}
/* After -daemonize has forked, before threads exist. */
static const struct cli_step step_sandbox = { "sandbox", CLI_EARLY, 30, sandbox_enter };
CLI_STEP(&step_sandbox);
#endif
