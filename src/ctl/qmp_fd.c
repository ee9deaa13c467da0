/* SPDX-License-Identifier: MIT */
/* -add-fd, and the QMP commands about file descriptors that others hand over. */
#include "ctl/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "base/fdset.h"
#include "ctl/cli_int.h"

struct fd_args { char *name, *opaque; int64_t set, fd; };

/* The descriptor that came along with the command on this monitor; -1 with @e filled. */
static int passed_fd(struct err *e)
{
    int fd = qmp_take_fd();
    if (fd < 0)
        err_set(e, ERR_GENERIC, "No file descriptor supplied via SCM_RIGHTS");
    return fd;
}

static const struct prop name_props[] = {
    PROP_STR(struct fd_args, name, "fdname", PF_REQUIRED, "Name for it"),
    PROP_END };

static json_t *co_getfd(void *args, struct err *e)
{
    const struct fd_args *a = args;
    int fd = passed_fd(e);
    if (fd < 0)
        return NULL;
    if (a->name[0] >= '0' && a->name[0] <= '9') {
        close(fd);
        err_set(e, ERR_VALUE, "Parameter 'fdname' expects a name not starting with a digit");
        return NULL;
    }
    fd_name_set(a->name, fd);
    return json_object();
}
static const struct qmp_cmd cmd_getfd = { "getfd", "Takes the file descriptor that came with the command, under a name", name_props,
    sizeof(struct fd_args), co_getfd, .ret = qmp_nothing };
QMP_CMD(&cmd_getfd);

static json_t *co_closefd(void *args, struct err *e)
{
    const struct fd_args *a = args;
    if (fd_name_close(a->name))
        return json_object();
    err_set(e, ERR_VALUE, "File descriptor named '%.60s' not found", a->name);
    return NULL;
}
static const struct qmp_cmd cmd_closefd = { "closefd", "Closes a file descriptor that getfd took", name_props, sizeof(struct fd_args), co_closefd, .ret = qmp_nothing };
QMP_CMD(&cmd_closefd);

static const struct prop add_props[] = {
    PROP_S64(struct fd_args, set, "fdset-id", -1, -1, INT64_MAX, "Set to add it to; -1: a new one"),
    PROP_STR(struct fd_args, opaque, "opaque", 0, "Text that query-fdsets shows"),
    PROP_END };

static json_t *co_add_fd(void *args, struct err *e)
{
    const struct fd_args *a = args;
    int fd = passed_fd(e);
    if (fd < 0)
        return NULL;
    int64_t set = fdset_add(a->set, fd, a->opaque, e);
    if (set < 0) {
        close(fd);
        return NULL;
    }
    return json_pack("{s:I, s:i}", "fdset-id", (json_int_t)set, "fd", fd);
}
static const struct qmp_cmd cmd_add_fd = { "add-fd", "Takes the file descriptor that came with the command, as /dev/fdset/N", add_props,
    sizeof(struct fd_args), co_add_fd, .says = "{fdset-id:int, fd:int}" };
QMP_CMD(&cmd_add_fd);

static const struct prop remove_props[] = {
    PROP_S64(struct fd_args, set, "fdset-id", 0, 0, INT64_MAX, "Set"),
    PROP_S64(struct fd_args, fd, "fd", -1, -1, INT32_MAX, "Descriptor; left out: all of the set"),
    PROP_END };

static json_t *co_remove_fd(void *args, struct err *e)
{
    const struct fd_args *a = args;
    return fdset_remove(a->set, (int)a->fd, e) ? json_object() : NULL;
}
static const struct qmp_cmd cmd_remove_fd = { "remove-fd", "Closes a descriptor of a set, or all", remove_props, sizeof(struct fd_args), co_remove_fd, .ret = qmp_nothing };
QMP_CMD(&cmd_remove_fd);

static void list_fd(void *arg, int64_t set, int fd, const char *opaque)
{
    json_t *sets = arg, *last = json_array_get(sets, json_array_size(sets) - 1), *x = json_pack("{s:i}", "fd", fd);
    if (opaque)
        json_object_set_new(x, "opaque", json_string(opaque));
    if (!last || json_integer_value(json_object_get(last, "fdset-id")) != set) {
        last = json_pack("{s:I, s:[]}", "fdset-id", (json_int_t)set, "fds");
        json_array_append_new(sets, last);
    }
    json_array_append_new(json_object_get(last, "fds"), x);
}

static json_t *co_query_fdsets(void *args, struct err *e)
{
    json_t *sets = json_array();
    fdset_each(list_fd, sets);
    return sets;
}
static const struct qmp_cmd cmd_query_fdsets = { "query-fdsets", "The sets of file descriptors", .co_run = co_query_fdsets,
    .says = "[{fdset-id:int, fds:[{fd:int, *opaque:str}]}]" };
QMP_CMD(&cmd_query_fdsets);

/* ---- -add-fd ---- */

static const struct prop cli_props[] = {
    PROP_S64(struct fd_args, fd, "fd", -1, 3, INT32_MAX, "Number of an inherited file descriptor"),
    PROP_S64(struct fd_args, set, "set", -1, 0, INT64_MAX, "Set that it becomes part of: its name is then /dev/fdset/SET"),
    PROP_STR(struct fd_args, opaque, "opaque", 0, "Text that query-fdsets shows"),
    PROP_END };

static bool apply_add_fd(const char *arg, struct err *e)
{
    struct fd_args a = { 0 };
    bool ok = cli_args(arg, NULL, cli_props, &a, "option '-add-fd'", e);
    if (ok && (a.fd < 0 || a.set < 0))
        ok = err_set(e, ERR_VALUE, "%s is missing: -add-fd fd=N,set=M", a.fd < 0 ? "fd=" : "set=");
    int fd = ok ? fcntl((int)a.fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (ok && fd < 0)
        ok = err_os(e, errno, "fd=%lld", (long long)a.fd);
    if (ok && fdset_add(a.set, fd, a.opaque, e) < 0) {
        close(fd);
        ok = false;
    }
    prop_release(cli_props, &a);
    return ok;
}
static const struct cli_opt opt_add_fd = { "add-fd", "fd=N,set=M[,opaque=TEXT]", "an inherited file descriptor that /dev/fdset/M names", "Process",
    CLI_EARLY, apply_add_fd, true, .args = cli_props };
CLI_OPT(&opt_add_fd);
