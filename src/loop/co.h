/* SPDX-License-Identifier: MIT */
/*
 * Stackful coroutines: straight-line code for what waits. Born, runs and dies on one loop; while it runs it holds its
 * domain's lock; every await (each function below but co_spawn, co_wake, co_self) releases it and takes it back.
 */
#ifndef LOOP_CO_H
#define LOOP_CO_H

#include <sys/uio.h>
#include "loop/loop.h"

struct co;

/*
 * Starts fn(arg) on the domain's home loop (or @l where @dom is NULL). Called there, it runs at once up to its first await: under
 * the caller's lock if that is @dom's, or, if the caller holds another, as soon as that is dropped. From elsewhere: by a post. ANY.
 */
void co_spawn(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg);
/* The same on @l, which need not be the home of @dom: a device that shares its work out among threads. */
void co_spawn_on(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg);
struct co *co_self(void);                   /* NULL outside coroutines */
/* Runs fn(arg) as a coroutine of @dom (NULL: of @l, no lock) and waits until it returned. */
void co_on_loop(struct loop *l, struct domain *dom, void (*fn)(void *), void *arg);

/* ---- waiting for each other: all on one loop ---- */
/* A level event: set stays set until cleared. Zero-initialised is clear. */
struct co_event { struct co *first, *last; bool set; };
void co_wait(struct co_event *ev);          /* returns at once if set */
void co_wake(struct co_event *ev);          /* sets; every waiter runs. LOOP */
void co_event_clear(struct co_event *ev);
/* Fair mutex between coroutines of one loop. */
struct co_mutex { struct co *owner, *first, *last; };
void co_mutex_lock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);
/* Queue: waits in FIFO order until woken. */
struct co_queue { struct co *first, *last; };
void co_queue_wait(struct co_queue *q);
bool co_queue_wake_one(struct co_queue *q);
void co_queue_wake_all(struct co_queue *q);
void co_yield(void);                        /* lets others run */
void co_sleep_until(enum clock_id c, int64_t deadline_ns);

/* ---- system calls that wait. All return >= 0 or -errno ---- */
/* Waits for LOOP_IN/OUT; returns the events, -ETIMEDOUT at @deadline_ns (CLOCK_HOST; INT64_MAX: none). */
int co_fd(int fd, unsigned mask, int64_t deadline_ns);
/* Runs fn on a worker thread with no lock held; returns its value. */
int co_offload(int (*fn)(void *), void *arg);
/* The same for a call that seldom takes long: made in place where the loop may block (loop_set_may_block). */
int co_offload_short(int (*fn)(void *), void *arg);
/* What a transfer of a file is: a wait for a disk; through the page cache, a copy more often than a wait; always a copy (tmpfs). */
enum co_file { CO_FILE_DISK, CO_FILE_CACHED, CO_FILE_MEMORY };
enum co_file co_file_kind(int fd, bool direct);
/* One transfer at a file offset; may be short as the system call. -EINTR is retried inside. */
ssize_t co_preadv(int fd, const struct iovec *iov, int n, uint64_t off, enum co_file kind);
ssize_t co_pwritev(int fd, const struct iovec *iov, int n, uint64_t off, int rwf_flags, enum co_file kind);
int co_fdatasync(int fd);
int co_fallocate(int fd, int mode, uint64_t off, uint64_t len);
/* Runs @fn as a coroutine on the main loop and serves events until it ended. Main thread, outside coroutines, no domain held:
 * start-up and shut-down only. */
void co_run_main(void (*fn)(void *), void *arg);
/*
 * fn(arg), as a call of it, on a further stack where little is left of ours: for recursion as deep as data makes it. What it awaits, the
 * caller does. Outside coroutines, and where there is room: in place.
 */
void co_deeper(void (*fn)(void *), void *arg);
/* Runs fn(arg) and waits: in place (by co_deeper()) where we are a coroutine, else as co_run_main() does. */
void co_call(void (*fn)(void *), void *arg);

#endif
