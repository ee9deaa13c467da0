/* SPDX-License-Identifier: MIT */
/*
 * Background jobs: what query-jobs and the job-* commands know of. A job is a coroutine (and workers of its own) on the main loop;
 * its kind says what it does in `struct job_ops`. Everything here: main loop.
 */
#ifndef BLOCK_JOB_H
#define BLOCK_JOB_H

#include <jansson.h>
#include "block/driver.h"

struct job;
struct job_txn;

enum job_status { JOB_UNDEFINED, JOB_CREATED, JOB_RUNNING, JOB_PAUSED, JOB_READY, JOB_STANDBY, JOB_WAITING, JOB_PENDING, JOB_ABORTING,
                  JOB_CONCLUDED, JOB_NULL };

struct job_ops {
    const char *type;               /* QMP's JobType */
    size_t size;                    /* of the instance, which begins with struct job */
    bool is_block;                  /* BLOCK_JOB_* events, query-block-jobs */
    /* The work. 0 or -errno (details in job->err); not called if the job is cancelled before. Coroutine. */
    int (*co_run)(struct job *);
    /* A ready job shall complete. NULL: it cannot be ready. */
    bool (*complete)(struct job *, struct err *);
    /* After a run that ended well, also of all others of its group: what can fail still. May be NULL. Coroutine. */
    int (*co_prepare)(struct job *);
    /* It ended well; it did not. Either may be NULL. Coroutines. */
    void (*co_commit)(struct job *);
    void (*co_abort)(struct job *);
    /* After either: what it holds is given back. Coroutine; due for every job that was created. */
    void (*co_clean)(struct job *);
    /* Cancelled. False: ends by itself soon, as done (a ready mirror that was not forced). May be NULL. */
    bool (*cancel)(struct job *, bool force);
    /* block-job-change; NULL: nothing to change. */
    bool (*change)(struct job *, json_t *args, struct err *);
    void (*query)(struct job *, json_t *out);       /* more for query-block-jobs; may be NULL */
};

struct job {
    const struct job_ops *ops;
    struct list link;
    char *id;
    enum job_status status;
    bool auto_finalize, auto_dismiss;
    uint64_t done, total;           /* progress, bytes */
    uint64_t speed;                 /* bytes a second; 0: no limit */
    int64_t next;                   /* when the next piece may begin, for speed */
    unsigned pauses;                /* who wants it to rest, the user's counted once */
    bool user_paused;
    bool cancelled;
    bool failed_io;                 /* io-status is not ok: an error stopped it */
    bool nospace;
    bool deferred;                  /* the run is over */
    int ret;
    struct err err;                 /* why, where ->ret says that it failed */
    unsigned workers, resting;      /* coroutines of the run; those that wait at a pause point */
    struct co_queue kick;           /* coroutines that wait: for time, the end of a pause, work */
    struct timer timer;             /* of those that wait for time */
    struct job_txn *txn;
    struct list in_txn;
    struct job_node *nodes;         /* claimed */
};

/* Jobs that end well together or not at all; a job without one has one of its own. */
struct job_txn *job_txn_new(void);
void job_txn_put(struct job_txn *t);

/* Options that every job command takes: PROP_INCLUDE(T, job, job_props). */
struct job_opts { char *id; bool auto_finalize, auto_dismiss; uint64_t speed; };
extern const struct prop job_props[];
/* A job of kind @ops in @txn (NULL: alone). @id NULL: @device, which must then be a drive's name. Not started yet. */
struct job *job_new(const struct job_ops *ops, const struct job_opts *o, const struct blk_node *n, struct job_txn *txn, struct err *e) MUST_CHECK;
/* @n belongs to the job until its end: no other job works on it. With @perm and @shared, which may both be "nothing asked". */
bool job_claim(struct job *j, struct blk_node *n, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
bool job_change_claim(struct job *j, struct blk_node *n, unsigned perm, unsigned shared, struct err *e) MUST_CHECK;
void job_release(struct job *j, struct blk_node *n);
void job_release_others(struct job *j, const struct blk_node *keep);    /* keep NULL: all */
/* Runs it; or, as a job that failed before it began, takes it away. */
void job_start(struct job *j);
void co_job_discard(struct job *j);
const char *job_type(const struct job *j);
struct job *job_find(const char *id);
struct job *job_next(struct job *j);            /* NULL: the first */
json_t *job_block_json(struct job *j);          /* query-block-jobs */
const char *job_status_name(enum job_status s);
/* What the end of @j, and so of its group, may change. */
struct blk_turn;
void job_turn_keys(struct blk_turn *t, struct job *j);

/* ---- what a user asks; each refuses what the job's state does not allow ---- */
bool job_pause(struct job *j, struct err *e) MUST_CHECK;
bool job_resume(struct job *j, struct err *e) MUST_CHECK;
bool job_cancel(struct job *j, bool force, struct err *e) MUST_CHECK;
bool job_complete(struct job *j, struct err *e) MUST_CHECK;
bool co_job_finalize(struct job *j, struct err *e) MUST_CHECK;         /* in a turn */
bool job_dismiss(struct job *j, struct err *e) MUST_CHECK;
/* Whether @n is used by cancelled jobs alone: nobody waits for what is asked of it. */
bool job_is_given_up(const struct blk_node *n);
bool job_set_speed(struct job *j, uint64_t speed, struct err *e) MUST_CHECK;

/* ---- for the run ---- */
/* Rests while somebody wants that. True: go on; false: the job is cancelled. */
bool co_job_pause_point(struct job *j);
/* Waits for @ns or until something happens to the job; a pause point too. INT64_MAX: no time. */
bool co_job_wait(struct job *j, int64_t ns);
/* Something happened that its coroutines may wait for. */
void job_kick(struct job *j);
/* Waits until @bytes may be moved under the speed limit. */
bool co_job_throttle(struct job *j, uint64_t bytes);
void job_progress(struct job *j, uint64_t bytes);
void job_ready(struct job *j);
/* A request failed: tells, stops the job where @policy says so. BLK_ACT_REPORT: give up. */
enum blk_action job_error(struct job *j, enum blk_on_error policy, bool is_read, int error);
/*
 * Runs @worker(arg) in @n coroutines and waits for their end; inside, pause points work. The caller is no worker meanwhile.
 */
void co_job_workers(struct job *j, unsigned n, void (*worker)(void *arg), void *arg);

#endif
