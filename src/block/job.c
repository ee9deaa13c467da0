/* SPDX-License-Identifier: MIT */
/* The life of a job: created, run, paused, ready, and its end, alone or with the others of its group. */
#include "block/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "block/blk_int.h"
#include "core/cmd.h"
#include "core/run.h"

struct job_node { struct job_node *next; struct blk_use use; };
struct job_txn { struct list jobs; unsigned refs; bool aborting, ending /* its jobs are being finalized: nobody else may */; };

static struct list jobs = LIST_INIT(jobs);
static struct co_queue ended;           /* waits for the end of jobs */

const struct prop job_props[] = {
    PROP_STR(struct job_opts, id, "job-id", 0, "Name of the job; the drive's if left out"),
    PROP_BOOL(struct job_opts, auto_finalize, "auto-finalize", true, "Its last step is done at once; off: job-finalize does it"),
    PROP_BOOL(struct job_opts, auto_dismiss, "auto-dismiss", true, "It is forgotten at its end; off: job-dismiss does that"),
    PROP_U64(struct job_opts, speed, "speed", 0, 0, INT64_MAX, "Bytes a second; 0: as fast as it goes"),
    PROP_END,
};

const char *job_type(const struct job *j) { return j->ops->type; }

const char *job_status_name(enum job_status s)
{
    static const char *const names[] = { "undefined", "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting",
                                         "concluded", "null" };
    return names[s];
}

/* ---- events ---- */

#define PROGRESS_SAYS "type:str, device:str, len:int, offset:int, speed:int"
static const struct qmp_event_def events[] = {
    { "JOB_STATUS_CHANGE", "A job is in another state", .says = "{id:str, status:str}" },
    { "BLOCK_JOB_COMPLETED", "A job ended", .says = "{" PROGRESS_SAYS ", *error:str}" },
    { "BLOCK_JOB_CANCELLED", "A job was cancelled", .says = "{" PROGRESS_SAYS "}" },
    { "BLOCK_JOB_READY", "A job can be completed", .says = "{" PROGRESS_SAYS "}" },
    { "BLOCK_JOB_ERROR", "A request of a job failed", .says = "{device:str, operation:str, action:str}" },
    { "BLOCK_JOB_PENDING", "A job waits for job-finalize", .says = "{type:str, id:str}" },
};
QMP_EVENT(&events[0]);
QMP_EVENT(&events[1]);
QMP_EVENT(&events[2]);
QMP_EVENT(&events[3]);
QMP_EVENT(&events[4]);
QMP_EVENT(&events[5]);

static void set_status(struct job *j, enum job_status s)
{
    if (j->status == s)
        return;
    j->status = s;
    TRACE(job_status, "'%s' %s", j->id, job_status_name(s));
    qmp_event("JOB_STATUS_CHANGE", json_pack("{s:s, s:s}", "status", job_status_name(s), "id", j->id));
}

static void progress_event(struct job *j, const char *name, const char *error)
{
    if (!j->ops->is_block)
        return;
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I}", "type", j->ops->type, "device", j->id, "len", (json_int_t)j->total, "offset",
                          (json_int_t)j->done, "speed", (json_int_t)j->speed);
    if (error)
        json_object_set_new(o, "error", json_string(error));
    qmp_event(name, o);
}

static const char *why(const struct job *j) { return j->err.msg[0] ? j->err.msg : strerror(-j->ret); }

/* ---- birth ---- */

struct job_txn *job_txn_new(void)
{
    struct job_txn *t = xnew(struct job_txn);
    list_init(&t->jobs);
    t->refs = 1;
    return t;
}

void job_txn_put(struct job_txn *t)
{
    if (t && !--t->refs)
        free(t);
}

struct job *job_next(struct job *j)
{
    struct list *l = j ? j->link.next : jobs.next;
    return l == &jobs ? NULL : list_entry(l, struct job, link);
}

struct job *job_find(const char *id)
{
    for (struct job *j = NULL; (j = job_next(j));)
        if (!strcmp(j->id, id))
            return j;
    return NULL;
}

static const char *choose_id(const struct job_opts *o, const struct blk_node *n, struct err *e)
{
    const char *id = o->id ? o->id : n->drive ? blk_drive_name(n) : NULL;
    if (!id)
        err_set(e, ERR_VALUE, "An explicit job ID is required for this node"), err_hint(e, "job-id names it");
    else if (!obj_id_ok(id))
        err_set(e, ERR_VALUE, "Invalid job ID '%s'", id);
    else if (job_find(id))
        err_set(e, ERR_BUSY, "Job ID '%s' already in use", id);
    else
        return id;
    return NULL;
}

static void time_up(void *arg) { job_kick(arg); }

struct job *job_new(const struct job_ops *ops, const struct job_opts *o, const struct blk_node *n, struct job_txn *txn, struct err *e)
{
    const char *id = choose_id(o, n, e);
    if (!id)
        return NULL;
    struct job *j = xcalloc(1, ops->size);
    j->ops = ops;
    j->id = xstrdup(id);
    j->auto_finalize = o->auto_finalize;
    j->auto_dismiss = o->auto_dismiss;
    j->speed = o->speed;
    timer_init(&j->timer, CLOCK_HOST, loop_main(), NULL, time_up, j);
    j->txn = txn ? txn : job_txn_new();
    j->txn->refs += txn != NULL;
    list_push(&j->txn->jobs, &j->in_txn);
    list_push(&jobs, &j->link);
    set_status(j, JOB_CREATED);
    return j;
}

bool job_claim(struct job *j, struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    char who[160];
    if (n->job != j && !blk_node_free_of_jobs(n, e))
        return false;
    struct job *before = n->job;
    struct job_node *c = xnew(struct job_node);
    n->job = j;
    snprintf(who, sizeof who, "block job '%s'", j->id);
    if (!blk_use_add(&c->use, n, perm, shared, who, e)) {
        free(c);
        n->job = before;
        return false;
    }
    c->next = j->nodes;
    j->nodes = c;
    return true;
}

bool job_change_claim(struct job *j, struct blk_node *n, unsigned perm, unsigned shared, struct err *e)
{
    for (struct job_node *c = j->nodes; c; c = c->next)
        if (c->use.node == n)
            return blk_use_change(&c->use, perm, shared, e);
    return true;
}

void job_release(struct job *j, struct blk_node *n)
{
    for (struct job_node **p = &j->nodes, *c; (c = *p);) {
        if (c->use.node != n) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        obj_ref(&n->obj);
        blk_use_del(&c->use);
        n->job = NULL;
        blk_node_drop(n);
        obj_unref(&n->obj);
        free(c);
    }
}

void job_release_others(struct job *j, const struct blk_node *keep)
{
    for (struct job_node *c = j->nodes; c;) {
        if (c->use.node == keep) {
            c = c->next;
            continue;
        }
        job_release(j, c->use.node);
        c = j->nodes;                   /* from the start: a node may be claimed twice */
    }
}

/* ---- death ---- */

static void job_free(struct job *j)
{
    set_status(j, JOB_NULL);
    timer_fini(&j->timer);
    list_del(&j->link);
    free(j->id);
    free(j);
    co_queue_wake_all(&ended);
}

static void leave_txn(struct job *j)
{
    list_del(&j->in_txn);
    job_txn_put(j->txn);
    j->txn = NULL;
}

static void co_clean(struct job *j)
{
    if (j->ops->co_clean)
        j->ops->co_clean(j);
    job_release_others(j, NULL);
}

void co_job_discard(struct job *j)
{
    co_clean(j);
    leave_txn(j);
    job_free(j);
}

static void co_finalize_one(struct job *j)
{
    if (j->ret)
        set_status(j, JOB_ABORTING);
    if (!j->ret && j->ops->co_commit)
        j->ops->co_commit(j);
    else if (j->ret && j->ops->co_abort)
        j->ops->co_abort(j);
    co_clean(j);
    bool cancelled = j->ret == -ECANCELED;
    progress_event(j, cancelled ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED", j->ret && !cancelled ? why(j) : NULL);
    leave_txn(j);
    set_status(j, JOB_CONCLUDED);
    co_queue_wake_all(&ended);
    if (j->auto_dismiss)
        job_free(j);
}

static struct job *any_of(struct job_txn *t, bool (*test)(const struct job *))
{
    struct job *j;
    list_for_each(j, &t->jobs, in_txn)
        if (test(j))
            return j;
    return NULL;
}
static bool still_runs(const struct job *j) { return !j->deferred; }
static bool not_waiting(const struct job *j) { return j->status != JOB_WAITING; }
static bool wants_finalize(const struct job *j) { return !j->auto_finalize; }

static void co_finalize_all(struct job_txn *t)
{
    struct job *j;
    t->refs++;
    t->ending = true;
    while ((j = list_first(&t->jobs, struct job, in_txn)))
        co_finalize_one(j);
    job_txn_put(t);
}

/* One failed or was cancelled: the others are cancelled, and when the last one stands all of them end. */
static void co_abort_txn(struct job_txn *t)
{
    struct job *j;
    if (!t->aborting) {
        t->aborting = true;
        list_for_each(j, &t->jobs, in_txn) {
            if (!j->ret && j->deferred)
                j->ret = -ECANCELED;
            if (j->deferred)
                continue;
            j->cancelled = true;
            j->deferred = j->status == JOB_CREATED;     /* it never began */
            j->ret = j->deferred ? -ECANCELED : 0;
            job_kick(j);
        }
    }
    if (!any_of(t, still_runs))
        co_finalize_all(t);
}

static void co_do_finalize(struct job_txn *t)
{
    struct job *j;
    t->ending = true;
    list_for_each(j, &t->jobs, in_txn)
        if (!j->ret && j->ops->co_prepare)
            j->ret = j->ops->co_prepare(j);
    list_for_each(j, &t->jobs, in_txn) {
        if (!j->ret)
            continue;
        co_abort_txn(t);
        return;
    }
    co_finalize_all(t);
}

static void co_run_over(struct job *j)
{
    struct job_txn *t = j->txn;
    struct job *o;
    if (j->ret || t->aborting) {
        j->ret = j->ret ? j->ret : -ECANCELED;
        co_abort_txn(t);
        return;
    }
    set_status(j, JOB_WAITING);
    if (any_of(t, not_waiting))
        return;
    list_for_each(o, &t->jobs, in_txn) {
        set_status(o, JOB_PENDING);
        if (!o->auto_finalize && o->ops->is_block)
            qmp_event("BLOCK_JOB_PENDING", json_pack("{s:s, s:s}", "type", o->ops->type, "id", o->id));
    }
    if (!any_of(t, wants_finalize))
        co_do_finalize(t);
}

static void txn_keys(struct blk_turn *turn, void *txn)
{
    struct job_txn *t = txn;
    struct job *j;
    list_for_each(j, &t->jobs, in_txn)
        for (struct job_node *c = j->nodes; c; c = c->next)
            blk_turn_add(turn, c->use.node);
}

void job_turn_keys(struct blk_turn *turn, struct job *j)
{
    if (j->txn)
        txn_keys(turn, j->txn);
}

static void co_run_job(void *arg)
{
    struct job *j = arg;
    int r = co_job_pause_point(j) ? j->ops->co_run(j) : -ECANCELED;
    struct blk_turn *turn = co_blk_turn_begin(txn_keys, j->txn);    /* its end changes the graph, and it may be cancelled up to then */
    j->ret = j->cancelled ? -ECANCELED : r;
    j->workers = 0;
    j->pauses = 0;                          /* there is nothing left that could rest */
    j->user_paused = false;
    j->deferred = true;
    timer_disarm(&j->timer);
    co_run_over(j);
    blk_turn_end(turn);
}

void job_start(struct job *j)
{
    j->workers = 1;
    set_status(j, JOB_RUNNING);
    co_spawn(loop_main(), NULL, co_run_job, j);
}

/* ---- for the run ---- */

static void note_rest(struct job *j)
{
    if (j->pauses && j->resting == j->workers && !j->cancelled && (j->status == JOB_RUNNING || j->status == JOB_READY))
        set_status(j, j->status == JOB_READY ? JOB_STANDBY : JOB_PAUSED);
}

static void co_rest(struct job *j)
{
    j->resting++;
    note_rest(j);
    co_queue_wait(&j->kick);
    j->resting--;
}

void job_kick(struct job *j) { co_queue_wake_all(&j->kick); }

bool co_job_pause_point(struct job *j)
{
    while (j->pauses && !j->cancelled)
        co_rest(j);
    return !j->cancelled;
}

bool co_job_wait(struct job *j, int64_t ns)
{
    int64_t end = ns == INT64_MAX ? INT64_MAX : clock_now(CLOCK_HOST) + ns;
    if (!co_job_pause_point(j))
        return false;
    if (end != INT64_MAX && (!timer_armed(&j->timer) || atomic_load(&j->timer.want) > end))
        timer_arm(&j->timer, end);
    co_rest(j);
    return co_job_pause_point(j);
}

bool co_job_throttle(struct job *j, uint64_t bytes)
{
    bool alive = co_job_pause_point(j);
    if (alive && j->speed && !j->deferred) {     /* its end holds others back */
        int64_t now = clock_now(CLOCK_HOST), at = MAX(j->next, now);
        j->next = at + (int64_t)((double)bytes / (double)j->speed * 1e9);
        while (alive && (now = clock_now(CLOCK_HOST)) < at && j->speed)
            alive = co_job_wait(j, at - now);
    }
    return alive;
}

void job_progress(struct job *j, uint64_t bytes) { j->done += bytes; }

void job_ready(struct job *j)
{
    if (j->status == JOB_READY || j->status == JOB_STANDBY)
        return;
    set_status(j, JOB_READY);
    progress_event(j, "BLOCK_JOB_READY", NULL);
    note_rest(j);
}

enum blk_action job_error(struct job *j, enum blk_on_error policy, bool is_read, int error)
{
    static const char *const acts[] = { "report", "ignore", "stop" };
    error = error < 0 ? -error : error;
    enum blk_action act = policy == BLK_ERR_IGNORE ? BLK_ACT_IGNORE : BLK_ACT_REPORT;
    if (policy == BLK_ERR_STOP || (policy == BLK_ERR_ENOSPC && error == ENOSPC))
        act = BLK_ACT_STOP;
    qmp_event("BLOCK_JOB_ERROR", json_pack("{s:s, s:s, s:s}", "device", j->id, "operation", is_read ? "read" : "write", "action", acts[act]));
    if (act != BLK_ACT_STOP)
        return act;
    j->failed_io = true;
    j->nospace = error == ENOSPC;
    if (!j->user_paused) {
        j->user_paused = true;
        j->pauses++;
    }
    return act;
}

struct team { struct job *j; void (*worker)(void *); void *arg; unsigned left; struct co_event done; };

static void team_member(void *arg)
{
    struct team *t = arg;
    struct job *j = t->j;
    t->worker(t->arg);
    j->workers--;
    note_rest(j);
    if (!--t->left)
        co_wake(&t->done);
}

void co_job_workers(struct job *j, unsigned n, void (*worker)(void *arg), void *arg)
{
    struct team t = { .j = j, .worker = worker, .arg = arg, .left = n };
    j->workers += n;
    for (unsigned i = 0; i < n; i++)
        co_spawn(loop_main(), NULL, team_member, &t);
    j->workers--;
    note_rest(j);
    co_wait(&t.done);
    j->workers++;
}

/* ---- what a user asks ---- */

enum verb { V_CANCEL, V_PAUSE, V_RESUME, V_SPEED, V_COMPLETE, V_FINALIZE, V_DISMISS };

static bool allowed(const struct job *j, enum verb v, struct err *e)
{
    enum { LIVE = 1 << JOB_CREATED | 1 << JOB_RUNNING | 1 << JOB_PAUSED | 1 << JOB_READY | 1 << JOB_STANDBY };
    static const struct { const char *name; unsigned states; } verbs[] = {
        [V_CANCEL] = { "cancel", LIVE | 1 << JOB_WAITING | 1 << JOB_PENDING }, [V_PAUSE] = { "pause", LIVE }, [V_RESUME] = { "resume", LIVE },
        [V_SPEED] = { "set-speed", LIVE }, [V_COMPLETE] = { "complete", 1 << JOB_READY | 1 << JOB_STANDBY }, [V_FINALIZE] = { "finalize", 1 << JOB_PENDING },
        [V_DISMISS] = { "dismiss", 1 << JOB_CONCLUDED },
    };
    bool ending = j->txn && j->txn->ending;
    return (!ending && verbs[v].states >> j->status & 1) ||
           err_set(e, ERR_STATE, "Job '%s' in state '%s' cannot accept command verb '%s'", j->id, job_status_name(j->status), verbs[v].name);
}

bool job_pause(struct job *j, struct err *e)
{
    if (!allowed(j, V_PAUSE, e))
        return false;
    if (j->user_paused)
        return err_set(e, ERR_STATE, "Job is already paused");
    j->user_paused = true;
    j->pauses++;
    job_kick(j);
    return true;
}

bool job_resume(struct job *j, struct err *e)
{
    if (!allowed(j, V_RESUME, e))
        return false;
    if (!j->user_paused)
        return err_set(e, ERR_STATE, "Can't resume a job that was not paused");
    j->user_paused = j->failed_io = j->nospace = false;
    if (!--j->pauses && (j->status == JOB_PAUSED || j->status == JOB_STANDBY))
        set_status(j, j->status == JOB_STANDBY ? JOB_READY : JOB_RUNNING);
    job_kick(j);
    return true;
}

static void co_abort_later(void *arg)
{
    struct job_txn *t = arg;
    struct blk_turn *turn = co_blk_turn_begin(txn_keys, t);
    if (!t->ending)
        co_abort_txn(t);
    blk_turn_end(turn);
    job_txn_put(t);
}

bool job_cancel(struct job *j, bool force, struct err *e)
{
    if (!allowed(j, V_CANCEL, e))
        return false;
    if (j->user_paused && !force)
        return err_set(e, ERR_STATE, "The block job for device '%s' is currently paused", j->id);
    if (j->deferred) {                      /* it waits for others or for job-finalize */
        j->ret = -ECANCELED;
        j->cancelled = true;
        j->txn->refs++;
        co_spawn(loop_main(), NULL, co_abort_later, j->txn);
        return true;
    }
    if (j->ops->cancel && !j->ops->cancel(j, force)) {
        job_kick(j);
        return true;
    }
    j->cancelled = true;
    job_kick(j);
    return true;
}

bool job_is_given_up(const struct blk_node *n)
{
    for (;;) {
        struct blk_use *u = list_first(&n->uses, struct blk_use, link), *other;
        if (!u)
            return false;
        list_for_each(other, &n->uses, link)
            if (other->blk || other->parent != u->parent)
                return false;
        if (!u->parent)
            return n->job && n->job->cancelled;
        n = u->parent;
    }
}

bool job_complete(struct job *j, struct err *e)
{
    if (!allowed(j, V_COMPLETE, e))
        return false;
    if (!j->ops->complete)
        return err_set(e, ERR_STATE, "The active block job '%s' cannot be completed", j->id);
    bool ok = j->ops->complete(j, e);
    job_kick(j);
    return ok;
}

bool co_job_finalize(struct job *j, struct err *e)
{
    if (!allowed(j, V_FINALIZE, e))
        return false;
    co_do_finalize(j->txn);
    return true;
}

bool job_dismiss(struct job *j, struct err *e)
{
    if (!allowed(j, V_DISMISS, e))
        return false;
    job_free(j);
    return true;
}

bool job_set_speed(struct job *j, uint64_t speed, struct err *e)
{
    if (!allowed(j, V_SPEED, e))
        return false;
    j->speed = speed;
    j->next = 0;
    job_kick(j);
    return true;
}

json_t *job_block_json(struct job *j)
{
    bool busy = !j->deferred && j->resting < j->workers, ready = j->status == JOB_READY || j->status == JOB_STANDBY;
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:b, s:b, s:I, s:s, s:b, s:s, s:b, s:b}", "type", j->ops->type, "device", j->id, "len",
        (json_int_t)j->total, "offset", (json_int_t)j->done, "busy", busy, "paused", j->pauses > 0, "speed", (json_int_t)j->speed, "io-status",
        j->nospace ? "nospace" : j->failed_io ? "failed" : "ok", "ready", ready, "status", job_status_name(j->status), "auto-finalize",
        j->auto_finalize, "auto-dismiss", j->auto_dismiss);
    if (j->deferred && j->ret)
        json_object_set_new(o, "error", json_string(why(j)));
    if (j->ops->query)
        j->ops->query(j, o);
    return o;
}

static struct job *unfinished(void)
{
    for (struct job *j = NULL; (j = job_next(j));)
        if (!j->cancelled || j->status == JOB_CONCLUDED)
            return j;
    return NULL;
}

/* Cancels every job and waits for their end. */
static void co_jobs_end(void *unused)
{
    for (struct job *j; !list_empty(&jobs);) {
        struct err ignored = ERR_INIT;
        j = unfinished();
        if (!j)
            co_queue_wait(&ended);
        else if (j->status == JOB_CONCLUDED)
            job_free(j);
        else if (!job_cancel(j, true, &ignored))
            j->cancelled = true;        /* it is about to end */
    }
}

static void end_jobs(void)
{
    if (!list_empty(&jobs))
        co_run_main(co_jobs_end, NULL);
}
static const struct run_end jobs_end = { "jobs", RUN_END_BACKENDS - 10, end_jobs };
RUN_END(&jobs_end);
