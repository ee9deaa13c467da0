/* SPDX-License-Identifier: MIT */
/*
 * What programs ask and say of migration before they use a machine. It cannot be done here and is never under way; that its events are
 * to be sent can be said all the same.
 */
#include <string.h>
#include "core/cmd.h"

static bool events;

static json_t *co_capabilities(void *args, struct err *e) { return json_pack("[{s:s, s:b}]", "capability", "events", "state", events); }
static const struct qmp_cmd cmd_capabilities = { "query-migrate-capabilities", "What is chosen for migration: this build does not migrate",
    .co_run = co_capabilities, .says = "[{capability:str, state:bool}]", .preconfig = true };
QMP_CMD(&cmd_capabilities);

struct set_args { json_t *capabilities; };
static const struct prop set_props[] = {
    PROP_JSON(struct set_args, capabilities, "capabilities", PF_REQUIRED, "A list of: capability, state"),
    PROP_END };

/* Whether @c is well formed and can be so; what is off elsewhere is off here. */
static bool can_be(json_t *c, struct err *e)
{
    const char *name = json_string_value(json_object_get(c, "capability"));
    json_t *state = json_object_get(c, "state");
    if (!name || !json_is_boolean(state))
        return err_set(e, ERR_VALUE, "Parameter 'capabilities' is a list of objects with 'capability' and 'state'");
    if (strcmp(name, "events") && json_is_true(state))
        return err_set(e, ERR_NOT_BUILT, "capability '%.60s': this build does not migrate", name);
    return true;
}

static json_t *co_set_capabilities(void *args, struct err *e)
{
    json_t *list = ((struct set_args *)args)->capabilities, *c;
    size_t i;
    if (!json_is_array(list)) {
        err_set(e, ERR_VALUE, "Parameter 'capabilities' is a list");
        return NULL;
    }
    json_array_foreach(list, i, c)
        if (!can_be(c, e))
            return NULL;                /* all or none */
    json_array_foreach(list, i, c)
        if (!strcmp(json_string_value(json_object_get(c, "capability")), "events"))
            events = json_is_true(json_object_get(c, "state"));
    return json_object();
}
static const struct qmp_cmd cmd_set_capabilities = { "migrate-set-capabilities", "Chooses for migration: of what there is, events alone", set_props,
    sizeof(struct set_args), co_set_capabilities, .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_set_capabilities);

static json_t *co_migrate_state(void *args, struct err *e) { return json_object(); }
static const struct qmp_cmd cmd_migrate_state = { "query-migrate", "The migration that is under way: never one", .co_run = co_migrate_state,
    .ret = qmp_nothing, .preconfig = true };
QMP_CMD(&cmd_migrate_state);
