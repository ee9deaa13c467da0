/* SPDX-License-Identifier: MIT */
/* Opens libiscsi: it brings libraries of RDMA along, which every start would pay with milliseconds. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include "block/iscsi_int.h"

static struct iscsi_lib lib;
static char trouble[256];               /* why it cannot be used, or empty */

static const struct { const char *name; size_t off; } functions[] = {
#define FN(prefix, f) { #prefix #f, offsetof(struct iscsi_lib, f) }
    FN(iscsi_, create_context), FN(iscsi_, destroy_context), FN(iscsi_, set_isid_random), FN(iscsi_, set_targetname),
    FN(iscsi_, set_session_type), FN(iscsi_, set_header_digest), FN(iscsi_, set_initiator_username_pwd), FN(iscsi_, set_noautoreconnect),
    FN(iscsi_, connect_async), FN(iscsi_, login_async), FN(iscsi_, logout_async), FN(iscsi_, nop_out_async),
    FN(iscsi_, get_target_address), FN(iscsi_, get_error), FN(iscsi_, get_fd), FN(iscsi_, which_events), FN(iscsi_, service),
    FN(iscsi_, scsi_command_async), FN(scsi_, create_task), FN(scsi_, free_scsi_task), FN(scsi_, task_set_iov_in),
    FN(scsi_, task_set_iov_out), FN(scsi_, sense_key_str), FN(scsi_, sense_ascq_str),
};

static void open_lib(void)
{
    void *so = dlopen("libiscsi.so.7", RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(trouble, sizeof trouble, "%s", dlerror());
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(functions); i++) {
        void *f = dlsym(so, functions[i].name);
        if (!f)
            snprintf(trouble, sizeof trouble, "it lacks %s", functions[i].name);
        *(void **)((char *)&lib + functions[i].off) = f;
    }
}

/* On a worker: loading takes milliseconds. */
static int load(void *arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_lib);
    return trouble[0] ? -ENOSYS : 0;
}

const struct iscsi_lib *co_iscsi_lib(struct err *e)
{
    if (!co_offload(load, NULL))
        return &lib;
    err_set(e, ERR_GENERIC, "cannot use libiscsi: %s", trouble);
    return NULL;
}
