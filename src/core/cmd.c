/* SPDX-License-Identifier: MIT */
#include "core/cmd.h"

#include <string.h>

const struct prop qmp_nothing[] = { PROP_END };

void (*qmp_event_sink)(const char *name, json_t *data);

void qmp_event(const char *name, json_t *data)
{
    if (qmp_event_sink)
        qmp_event_sink(name, data);
    else
        json_decref(data);
}

bool cli_apply_one(const char *name, const char *arg, struct err *e)
{
    LINKSET_EACH(cli_opts, struct cli_opt, o)
        if (!strcmp(o->name, name))
            return o->apply(arg, e) || err_prefix(e, "--%s %s", name, arg);
    return err_set(e, ERR_NOT_BUILT, "--%s is not in this build", name);
}
