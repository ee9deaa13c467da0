/* SPDX-License-Identifier: MIT */
/* What programs ask about migration before they use a machine: nothing of it can be done, and nothing of it is under way. */
#include "core/cmd.h"

static json_t *co_capabilities(void *args, struct err *e) { return json_array(); }
static const struct qmp_cmd cmd_capabilities = { "query-migrate-capabilities", "What migration can do: this build does not migrate", .co_run = co_capabilities,
    .says = "[{capability:str, state:bool}]", .preconfig = true };
QMP_CMD(&cmd_capabilities);

static json_t *co_migrate_state(void *args, struct err *e) { return json_object(); }
static const struct qmp_cmd cmd_migrate_state = { "query-migrate", "The migration that is under way: never one", .co_run = co_migrate_state,
    .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_migrate_state);
