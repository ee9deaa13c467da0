/* SPDX-License-Identifier: MIT */
#include "core/cmd.h"

const struct prop qmp_nothing[] = { PROP_END };

void (*qmp_event_sink)(const char *name, json_t *data);

void qmp_event(const char *name, json_t *data)
{
    if (qmp_event_sink)
        qmp_event_sink(name, data);
    else
        json_decref(data);
}
