/* SPDX-License-Identifier: MIT */
/* The run state of the machine, and requests to change it. Requests: any thread. Everything else: main loop. */
#ifndef CORE_RUN_H
#define CORE_RUN_H

#include <stdbool.h>
#include "base/linkset.h"
#include "base/list.h"
#include "loop/loop.h"

enum run_state { RUN_PRELAUNCH, RUN_RUNNING, RUN_PAUSED, RUN_SHUTDOWN, RUN_SUSPENDED, RUN_IO_ERROR, RUN_GUEST_PANICKED, RUN_INTERNAL_ERROR,
                 RUN_DEBUG /* a breakpoint, or a step has ended */ };
enum run_cause { CAUSE_NONE, CAUSE_HOST_ERROR, CAUSE_HOST_QMP_QUIT, CAUSE_HOST_QMP_RESET, CAUSE_HOST_SIGNAL, CAUSE_HOST_UI,
                 CAUSE_GUEST_SHUTDOWN, CAUSE_GUEST_RESET, CAUSE_GUEST_PANIC };

/* Behaviour set by -no-reboot, -no-shutdown, -action. */
struct run_actions { enum { ACT_REBOOT_RESET, ACT_REBOOT_SHUTDOWN } reboot; enum { ACT_SHUTDOWN_POWEROFF, ACT_SHUTDOWN_PAUSE } shutdown;
                     enum { ACT_PANIC_SHUTDOWN, ACT_PANIC_PAUSE, ACT_PANIC_NONE, ACT_PANIC_EXIT_FAILURE } panic; };
extern struct run_actions run_actions;

/* The guest or the host asks; carried out soon on the main loop. @exit_code becomes the process's. ANY. */
void run_request_shutdown(enum run_cause cause, int exit_code);
void run_request_reset(enum run_cause cause);
void run_request_powerdown(void);           /* the power button */
/* Ends the process's main loop whatever -no-shutdown says (quit, signals). ANY. */
void run_request_quit(enum run_cause cause, int exit_code);
bool run_quit_requested(void);              /* for programs that have no run_main(). ANY */
/* Stops with a state that tells why (disk full with werror=stop). ANY. */
void run_request_stop(enum run_state why);

enum run_state run_state_get(void);         /* ANY */
const char *run_state_name(enum run_state); /* QMP's RunState */
bool run_is_running(void);                  /* ANY */
/* vCPUs on or off; coroutine-free; returns when every vCPU stands. Main loop. */
void run_stop(enum run_state to);
void run_cont(void);
/* Cold/warm reset of the whole machine, vCPUs stopped around it. Main loop. */
void run_reset(enum run_cause cause);

/*
 * Who wants to know: vCPUs, devices with host-side effects. Called on the main loop. Around a reset, stop and start are called too
 * (the run state stays "running"). The QMP events STOP, RESUME, RESET, POWERDOWN, SHUTDOWN are sent by run.c itself.
 */
struct run_listener {
    struct list link;
    int prio;                               /* lower first on start, last on stop */
    void (*start)(struct run_listener *);
    void (*stop)(struct run_listener *, enum run_state to);
    void (*reset)(struct run_listener *, enum run_cause);       /* vCPUs stopped */
    void (*powerdown)(struct run_listener *);
    void (*shutdown)(struct run_listener *, enum run_cause, bool guest);    /* just before the main loop ends or pauses */
};
void run_listen(struct run_listener *l);
void run_unlisten(struct run_listener *l);

/* What a device left waiting while the machine stood: @fn runs under the domain each time that the machine goes on. Main loop. */
struct run_resume { struct run_listener listener; struct post post; };
void run_resume_init(struct run_resume *r, struct domain *dom, void (*fn)(void *arg), void *arg);
/* @fn neither runs nor will. No domain held. */
void run_resume_fini(struct run_resume *r);

/*
 * What must be taken down before the process ends, on every way out: the end of the machine, a mistake on the command line,
 * exit(). Rows of any folder, lower @prio first; main thread, outside coroutines, no CPU runs any more.
 */
enum { RUN_END_MACHINE = 100, RUN_END_MONITORS = 200, RUN_END_BACKENDS = 300 };
struct run_end { const char *name; int prio; void (*run)(void); };
LINKSET_DECLARE(run_ends, struct run_end);
#define RUN_END(ptr) LINKSET_ADD(run_ends, struct run_end, ptr)
/* Does it all, once. Main thread. */
void run_end(void);
/* Serves requests until the machine ends; returns the exit code. Main thread. */
int run_main(void);

#endif
