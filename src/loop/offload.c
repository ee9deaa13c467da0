/* SPDX-License-Identifier: MIT */
/*
 * Workers for system calls that block. Threads are made when jobs wait and none is idle, and end after a while without
 * work; none exists before the first job.
 */
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include "base/log.h"
#include "base/thread.h"
#include "loop/loop_int.h"

enum { WORKERS_MAX = 64, IDLE_SECONDS = 10 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct offload_job *first, *last;
    unsigned queued, threads, idle;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER };

/* The next job; NULL when this worker has been idle for long enough. Pool lock held. */
static struct offload_job *worker_next(void)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += IDLE_SECONDS;
    while (!pool.first) {
        pool.idle++;
        int r = pthread_cond_timedwait(&pool.work, &pool.lock, &end);
        pool.idle--;
        if (r == ETIMEDOUT && !pool.first)
            return NULL;
    }
    struct offload_job *job = pool.first;
    pool.first = job->next;
    pool.queued--;
    return job;
}

static void *worker(void *unused)
{
    pthread_mutex_lock(&pool.lock);
    for (struct offload_job *job; (job = worker_next());) {
        pthread_mutex_unlock(&pool.lock);
        job->run(job);
        pthread_mutex_lock(&pool.lock);
    }
    pool.threads--;
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

/* Pool lock held. */
static void worker_start(void)
{
    pthread_t t;
    int r = thread_start(&t, "worker", worker, NULL);
    if (!r) {
        pthread_detach(t);
        pool.threads++;
    } else if (!pool.threads) {
        log_warn("cannot start a worker thread (errno %d); the request waits until one can be started", r);
    }
}

void offload_submit(struct offload_job *job)
{
    pthread_mutex_lock(&pool.lock);
    job->next = NULL;
    if (pool.first)
        pool.last->next = job;
    else
        pool.first = job;
    pool.last = job;
    pool.queued++;
    if (pool.queued > pool.idle && pool.threads < WORKERS_MAX)
        worker_start();
    pthread_cond_signal(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}
