/* SPDX-License-Identifier: MIT */
#include "block/transaction.h"

#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "core/cmd.h"

enum { MAX_ACTIONS = 1024 };

/* One action of a transaction, and the requests that it holds back. */
struct step { struct txn_act act; struct blk_drain drain; bool opened, drained; };

static void co_hold(struct step *s)
{
    const char *name = s->act.action->node ? s->act.action->node(s->act.args) : NULL;
    struct err ignored = ERR_INIT;
    struct blk_node *n = name ? blk_node_find(name, &ignored) : NULL;
    if (!n)
        return;                     /* what is wrong with the name is told by the action */
    co_node_drain(n, &s->drain);
    s->drained = true;
}

static bool co_open(struct step *s, struct err *e)
{
    s->opened = s->act.action->co_open && s->act.action->co_open(&s->act, e);
    return s->opened || !s->act.action->co_open;
}

static bool co_prepare(struct step *s, struct err *e)
{
    s->opened = false;
    return s->act.done = s->act.action->co_prepare(&s->act, e);
}

static bool co_do(struct step *v, size_t n, struct err *e)
{
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++)
        ok = co_open(&v[i], e);
    for (size_t i = 0; i < n && ok; i++)
        co_hold(&v[i]);
    for (size_t i = 0; i < n && ok; i++)
        ok = co_prepare(&v[i], e);
    for (size_t i = n; i-- > 0 && !ok;)
        if (v[i].act.done && v[i].act.action->co_abort)
            v[i].act.action->co_abort(&v[i].act);
    for (size_t i = 0; i < n && ok; i++)
        if (v[i].act.action->co_commit)
            v[i].act.action->co_commit(&v[i].act);
    for (size_t i = 0; i < n; i++)
        if (v[i].drained)
            blk_drain_end(&v[i].drain);
    for (size_t i = 0; i < n; i++)
        if (v[i].opened)
            v[i].act.action->co_forget(&v[i].act);
    return ok;
}

json_t *co_txn_alone(const struct txn_action *a, void *args, struct err *e)
{
    struct step s = { .act = { .action = a, .args = args } };
    return co_do(&s, 1, e) ? json_object() : NULL;
}

/* ---- the command ---- */

static const char *action_name(const void *unused, size_t i)
{
    LINKSET_EACH(txn_actions, struct txn_action, a)
        if (!i--)
            return a->type;
    return NULL;
}

static const struct txn_action *find(json_t *o, struct err *e)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    if (!type) {
        err_set(e, ERR_VALUE, "an action has a 'type' and 'data'");
        return NULL;
    }
    LINKSET_EACH(txn_actions, struct txn_action, a)
        if (!strcmp(a->type, type))
            return a;
    err_unknown(e, "action", type, "", action_name, NULL);
    return NULL;
}

static bool parse(struct step *s, json_t *o, struct job_txn *jobs, struct err *e)
{
    const struct txn_action *a = find(o, e);
    json_t *data = json_object_get(o, "data");
    bool ok = a;
    if (!ok)
        return false;
    if (jobs && !a->starts_job)
        return err_set(e, ERR_VALUE, "action '%s' starts no job that could be one of a group", a->type), err_hint(e, "leave completion-mode=grouped out");
    s->act = (struct txn_act){ .action = a, .args = xcalloc(1, MAX(a->args_size, (size_t)1)), .jobs = jobs };
    if (a->props) {
        json_t *empty = json_object();
        prop_defaults(a->props, s->act.args);
        ok = prop_set_all(a->props, s->act.args, NULL, data ? data : empty, a->type, e);
        json_decref(empty);
    }
    return ok;
}

static const char *const modes[] = { "individual", "grouped", NULL };
struct args { json_t *actions; int mode; };
static const struct prop props[] = {
    PROP_JSON(struct args, actions, "actions", PF_REQUIRED, "List of actions: \"type\" and \"data\", which are a command and its arguments"),
    PROP_ENUM(struct args, mode, "properties.completion-mode", modes, 0, "grouped: the jobs that are started end well together, or none does"),
    PROP_END,
};

static json_t *co_transaction(void *args, struct err *e)
{
    struct args *a = args;
    size_t n = json_array_size(a->actions);
    if (!json_is_array(a->actions) || n > MAX_ACTIONS)
        return err_set(e, ERR_VALUE, "'actions' is a list of at most %d actions", MAX_ACTIONS), NULL;
    struct step *v = calloc(MAX(n, (size_t)1), sizeof *v);
    struct job_txn *jobs = a->mode ? job_txn_new() : NULL;
    bool ok = v || err_set(e, ERR_GENERIC, "out of memory");
    for (size_t i = 0; i < n && ok; i++)
        ok = parse(&v[i], json_array_get(a->actions, i), jobs, e);
    ok = ok && co_do(v, n, e);
    for (size_t i = 0; v && i < n; i++) {
        if (v[i].act.action && v[i].act.action->props)
            prop_release(v[i].act.action->props, v[i].act.args);
        free(v[i].act.args);
    }
    free(v);
    job_txn_put(jobs);
    return ok ? json_object() : NULL;
}

static const struct qmp_cmd cmd_transaction = { "transaction", "Several changes at one moment: all of them, or none",
    props, sizeof(struct args), co_transaction, .ret = qmp_nothing, .turn = &blk_graph_turn };
QMP_CMD(&cmd_transaction);

/* An action that fails, so that scripts can see what the others leave behind. */
static bool co_fail(struct txn_act *t, struct err *e) { return err_set(e, ERR_GENERIC, "Transaction aborted using Abort action"); }
static const struct txn_action abort_action = { .type = "abort", .co_prepare = co_fail };
TXN_ACTION(&abort_action);
