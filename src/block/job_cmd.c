/* SPDX-License-Identifier: MIT */
/* What monitors ask of jobs: job-*, and the block-job-* twins. */
#include <stdlib.h>
#include <string.h>
#include "block/blk_int.h"
#include "block/job.h"
#include "core/cmd.h"

/* Both families: "id" or "device" names the job. */
struct args { char *id; bool force; uint64_t speed; };
#define ID(key) PROP_STR(struct args, id, key, PF_REQUIRED, "The job")
static const struct prop id_props[] = { ID("id"), PROP_END };
static const struct prop device_props[] = { ID("device"), PROP_END };
static const struct prop cancel_props[] = { ID("device"),
    PROP_BOOL(struct args, force, "force", false, "Also a job that is paused; a ready one ends without being in step"), PROP_END };
static const struct prop speed_props[] = { ID("device"),
    { .name = "speed", .doc = "Bytes a second; 0: as fast as it goes", .type = PROP_T_U64, .flags = PF_REQUIRED, PROP_OFF(struct args, speed),
      .max = INT64_MAX }, PROP_END };

static json_t *answer(bool ok) { return ok ? json_object() : NULL; }

static struct job *find(const char *id, struct err *e)
{
    struct job *j = job_find(id);
    if (!j)
        err_set(e, ERR_GENERIC, "Job not found");
    return j;
}

static struct job *find_block(const char *id, struct err *e)
{
    struct job *j = job_find(id);
    if (j && j->ops->is_block)
        return j;
    err_set(e, ERR_NOT_ACTIVE, "Block job '%s' not found", id);
    return NULL;
}

typedef bool (*job_fn)(struct job *, struct err *);

static json_t *on_job(void *args, job_fn fn, struct err *e)
{
    struct job *j = find(((struct args *)args)->id, e);
    return answer(j && fn(j, e));
}
static json_t *on_block_job(void *args, job_fn fn, struct err *e)
{
    struct job *j = find_block(((struct args *)args)->id, e);
    return answer(j && fn(j, e));
}
static bool cancel_by_force(struct job *j, struct err *e) { return job_cancel(j, true, e); }

static json_t *co_pause(void *a, struct err *e) { return on_job(a, job_pause, e); }
static json_t *co_resume(void *a, struct err *e) { return on_job(a, job_resume, e); }
static json_t *co_cancel(void *a, struct err *e) { return on_job(a, cancel_by_force, e); }
static json_t *co_complete(void *a, struct err *e) { return on_job(a, job_complete, e); }
static json_t *co_dismiss(void *a, struct err *e) { return on_job(a, job_dismiss, e); }
static json_t *co_finalize(void *a, struct err *e) { return on_job(a, co_job_finalize, e); }
static json_t *co_block_pause(void *a, struct err *e) { return on_block_job(a, job_pause, e); }
static json_t *co_block_resume(void *a, struct err *e) { return on_block_job(a, job_resume, e); }
static json_t *co_block_complete(void *a, struct err *e) { return on_block_job(a, job_complete, e); }
static json_t *co_block_dismiss(void *a, struct err *e) { return on_block_job(a, job_dismiss, e); }
static json_t *co_block_finalize(void *a, struct err *e) { return on_block_job(a, co_job_finalize, e); }

static json_t *co_block_cancel(void *args, struct err *e)
{
    struct args *a = args;
    struct job *j = find_block(a->id, e);
    return answer(j && job_cancel(j, a->force, e));
}

static json_t *co_block_speed(void *args, struct err *e)
{
    struct args *a = args;
    struct job *j = find_block(a->id, e);
    return answer(j && job_set_speed(j, a->speed, e));
}

/* id, type, and what that type can change: raw, since the rows are the job's. */
static json_t *co_block_change(void *args, struct err *e)
{
    const char *id = json_string_value(json_object_get(args, "id")), *type = json_string_value(json_object_get(args, "type"));
    if (!id || !type)
        return answer(err_set(e, ERR_VALUE, "'%s' is missing", id ? "type" : "id"));
    struct job *j = find_block(id, e);
    if (!j)
        return NULL;
    if (strcmp(type, j->ops->type))
        return answer(err_set(e, ERR_VALUE, "Job '%s' is of type '%s', not '%s'", id, j->ops->type, type));
    if (!j->ops->change)
        return answer(err_set(e, ERR_VALUE, "Job type does not support change"));
    return answer(j->ops->change(j, args, e));
}

static json_t *co_query(void *args, struct err *e)
{
    json_t *list = json_array();
    for (struct job *j = NULL; (j = job_next(j));) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I}", "id", j->id, "type", j->ops->type, "status", job_status_name(j->status),
                              "current-progress", (json_int_t)j->done, "total-progress", (json_int_t)j->total);
        json_t *b = job_block_json(j), *error = json_object_get(b, "error");
        if (error)
            json_object_set(o, "error", error);
        json_decref(b);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *co_query_block(void *args, struct err *e)
{
    json_t *list = json_array();
    for (struct job *j = NULL; (j = job_next(j));)
        if (j->ops->is_block)
            json_array_append_new(list, job_block_json(j));
    return list;
}

#define ROW(var, nm, ds, rows, fn, ...) static const struct qmp_cmd var = { nm, ds, rows, sizeof(struct args), fn, __VA_ARGS__ }; QMP_CMD(&var)
ROW(cmd_query, "query-jobs", "Background jobs", NULL, co_query,
    .says = "[{id:str, type:str, status:str, current-progress:int, total-progress:int, *error:str}]");
ROW(cmd_pause, "job-pause", "Lets a job rest", id_props, co_pause, .ret = qmp_nothing);
ROW(cmd_resume, "job-resume", "Ends a job's rest", id_props, co_resume, .ret = qmp_nothing);
ROW(cmd_cancel, "job-cancel", "Ends a job before it is done", id_props, co_cancel, .ret = qmp_nothing);
ROW(cmd_complete, "job-complete", "Lets a ready job end well", id_props, co_complete, .ret = qmp_nothing);
ROW(cmd_dismiss, "job-dismiss", "Forgets a job that has ended", id_props, co_dismiss, .ret = qmp_nothing);
ROW(cmd_finalize, "job-finalize", "Does the last step of a job, and of those of its group", id_props, co_finalize, .ret = qmp_nothing, .turn = &blk_graph_turn);
ROW(cmd_query_b, "query-block-jobs", "Background jobs of the block layer", NULL, co_query_block,
    .says = "[{type:str, device:str, len:int, offset:int, busy:bool, paused:bool, speed:int, io-status:str, ready:bool, status:str, "
            "auto-finalize:bool, auto-dismiss:bool, *error:str, *actively-synced:bool}]");
ROW(cmd_pause_b, "block-job-pause", "As job-pause", device_props, co_block_pause, .ret = qmp_nothing);
ROW(cmd_resume_b, "block-job-resume", "As job-resume", device_props, co_block_resume, .ret = qmp_nothing);
ROW(cmd_cancel_b, "block-job-cancel", "As job-cancel, but a ready mirror ends in step with its source", cancel_props, co_block_cancel, .ret = qmp_nothing);
ROW(cmd_complete_b, "block-job-complete", "As job-complete", device_props, co_block_complete, .ret = qmp_nothing);
ROW(cmd_dismiss_b, "block-job-dismiss", "As job-dismiss", id_props, co_block_dismiss, .ret = qmp_nothing);
ROW(cmd_finalize_b, "block-job-finalize", "As job-finalize", id_props, co_block_finalize, .ret = qmp_nothing, .turn = &blk_graph_turn);
ROW(cmd_speed_b, "block-job-set-speed", "Limits how fast a job goes", speed_props, co_block_speed, .ret = qmp_nothing);
static const struct prop change_props[] = {
    { .name = "id", .doc = "Name of the job", .type = PROP_T_STR, .flags = PF_REQUIRED },
    { .name = "type", .doc = "Its type", .type = PROP_T_STR, .flags = PF_REQUIRED },
    PROP_END };
static const struct qmp_cmd cmd_change_b = { .name = "block-job-change", .doc = "Changes what a running job can change: id, type and its options",
    .co_run = co_block_change, .raw = true, .args = change_props, .ret = qmp_nothing };
QMP_CMD(&cmd_change_b);
