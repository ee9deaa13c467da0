/* SPDX-License-Identifier: MIT */
#include "core/run.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "core/cmd.h"
#include "core/dev.h"
#include "loop/loop.h"

struct run_actions run_actions;

static _Atomic enum run_state state = RUN_PRELAUNCH;
static struct list listeners = LIST_INIT(listeners);

/* Requests from any thread; the lock is a leaf. */
static struct {
    pthread_mutex_t lock;
    bool shutdown, quit, reset, powerdown, stop;
    enum run_cause shutdown_cause, reset_cause;
    enum run_state stop_why;
    int exit_code;
} req = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void wake(void *arg) { }                     /* the post itself wakes the loop; run_main() looks at `req` */
static struct post wake_post = { .fn = wake };

#define REQUEST(...) do { pthread_mutex_lock(&req.lock); __VA_ARGS__; pthread_mutex_unlock(&req.lock); \
        if (loop_main()) loop_post(loop_main(), &wake_post); } while (0)

void run_request_shutdown(enum run_cause cause, int exit_code)
{
    REQUEST(if (!req.shutdown) { req.shutdown = true; req.shutdown_cause = cause; req.exit_code = exit_code; });
}

void run_request_quit(enum run_cause cause, int exit_code)
{
    REQUEST(req.shutdown_cause = cause; req.shutdown = req.quit = true; req.exit_code = exit_code);
}

bool run_quit_requested(void)
{
    pthread_mutex_lock(&req.lock);
    bool quit = req.quit;
    pthread_mutex_unlock(&req.lock);
    return quit;
}

void run_request_reset(enum run_cause cause)
{
    if (cause == CAUSE_GUEST_RESET && run_actions.reboot == ACT_REBOOT_SHUTDOWN) {
        run_request_shutdown(cause, 0);
        return;
    }
    REQUEST(req.reset = true; req.reset_cause = cause);
}

void run_request_powerdown(void) { REQUEST(req.powerdown = true); }
void run_request_stop(enum run_state why) { REQUEST(req.stop = true; req.stop_why = why); }

enum run_state run_state_get(void) { return atomic_load(&state); }
bool run_is_running(void) { return run_state_get() == RUN_RUNNING; }

const char *run_state_name(enum run_state s)
{
    static const char *const names[] = {
        [RUN_PRELAUNCH] = "prelaunch", [RUN_RUNNING] = "running", [RUN_PAUSED] = "paused", [RUN_SHUTDOWN] = "shutdown",
        [RUN_SUSPENDED] = "suspended", [RUN_IO_ERROR] = "io-error", [RUN_GUEST_PANICKED] = "guest-panicked",
        [RUN_INTERNAL_ERROR] = "internal-error", [RUN_DEBUG] = "debug",
    };
    return names[s];
}

static const char *cause_name(enum run_cause c)
{
    static const char *const names[] = {
        [CAUSE_NONE] = "none", [CAUSE_HOST_ERROR] = "host-error", [CAUSE_HOST_QMP_QUIT] = "host-qmp-quit",
        [CAUSE_HOST_QMP_RESET] = "host-qmp-system-reset", [CAUSE_HOST_SIGNAL] = "host-signal", [CAUSE_HOST_UI] = "host-ui",
        [CAUSE_GUEST_SHUTDOWN] = "guest-shutdown", [CAUSE_GUEST_RESET] = "guest-reset", [CAUSE_GUEST_PANIC] = "guest-panic",
    };
    return names[c];
}

static bool cause_is_guest(enum run_cause c) { return c >= CAUSE_GUEST_SHUTDOWN; }

/* ---- listeners ---- */

void run_listen(struct run_listener *l)
{
    struct run_listener *at;

    list_for_each(at, &listeners, link)
        if (at->prio > l->prio) {
            list_insert_before(&at->link, &l->link);
            return;
        }
    list_push(&listeners, &l->link);
}

void run_unlisten(struct run_listener *l) { list_del(&l->link); }

static void resume_started(struct run_listener *l) { domain_post(&container_of(l, struct run_resume, listener)->post); }

void run_resume_init(struct run_resume *r, struct domain *dom, void (*fn)(void *arg), void *arg)
{
    r->post = (struct post){ .fn = fn, .arg = arg, .dom = dom };
    r->listener = (struct run_listener){ .start = resume_started };
    run_listen(&r->listener);
}

void run_resume_fini(struct run_resume *r)
{
    run_unlisten(&r->listener);
    loop_post_cancel(domain_loop(r->post.dom), &r->post);
}

static void call_start(void)
{
    struct run_listener *l;

    clock_vm_run(true);
    list_for_each(l, &listeners, link)
        if (l->start)
            l->start(l);
}

static void call_stop(enum run_state to)
{
    for (struct list *n = listeners.prev, *p; n != &listeners; n = p) {
        struct run_listener *l = list_entry(n, struct run_listener, link);

        p = n->prev;
        if (l->stop)
            l->stop(l, to);
    }
    clock_vm_run(false);
}

/* ---- transitions ---- */

/* The program is on its way out. */
static bool leaving;

void run_stop(enum run_state to)
{
    bool ran = run_is_running();

    atomic_store(&state, to);
    if (!ran)
        return;
    call_stop(to);
    if (!leaving)                       /* SHUTDOWN has told it all */
        qmp_event("STOP", NULL);
}

void run_cont(void)
{
    if (run_is_running())
        return;
    atomic_store(&state, RUN_RUNNING);
    call_start();
    qmp_event("RESUME", NULL);
}

static bool reset_root(struct dev *d, void *arg)
{
    if (!d->bus || !d->bus->owner)
        dev_reset_tree(d, *(enum reset_kind *)arg);
    return true;
}

static json_t *cause_data(enum run_cause cause)
{
    return json_pack("{sbss}", "guest", cause_is_guest(cause), "reason", cause_name(cause));
}

void run_reset(enum run_cause cause)
{
    enum reset_kind kind = cause == CAUSE_NONE ? RESET_COLD : RESET_WARM;
    bool ran = run_is_running();
    struct run_listener *l;

    if (ran)
        call_stop(RUN_RUNNING);
    dev_each(reset_root, &kind);
    list_for_each(l, &listeners, link)
        if (l->reset)
            l->reset(l, cause);
    if (cause != CAUSE_NONE)
        qmp_event("RESET", cause_data(cause));
    if (run_state_get() == RUN_SHUTDOWN || run_state_get() == RUN_GUEST_PANICKED || run_state_get() == RUN_INTERNAL_ERROR)
        atomic_store(&state, RUN_PAUSED);
    if (ran)
        call_start();
}

static void do_powerdown(void)
{
    struct run_listener *l;

    qmp_event("POWERDOWN", NULL);
    list_for_each(l, &listeners, link)
        if (l->powerdown)
            l->powerdown(l);
}

/* True if the main loop ends. */
static bool do_shutdown(enum run_cause cause, bool quit)
{
    struct run_listener *l;
    bool pause = !quit && run_actions.shutdown == ACT_SHUTDOWN_PAUSE;

    qmp_event("SHUTDOWN", cause_data(cause));
    list_for_each(l, &listeners, link)
        if (l->shutdown)
            l->shutdown(l, cause, cause_is_guest(cause));
    leaving = !pause;
    run_stop(RUN_SHUTDOWN);
    return !pause;
}

/* The guest's last words, and the monitors', are still on their way to the character back ends. */
static void let_go_out(void)
{
    for (unsigned i = 0; i < 16; i++)
        loop_run_once(loop_main(), 0);
}

void run_end(void)
{
    static bool done;
    if (done || !loop_main() || loop_current() != loop_main())
        return;
    done = leaving = true;
    run_stop(RUN_SHUTDOWN);
    let_go_out();
    for (int at = INT_MIN; at < INT_MAX;) {
        int next = INT_MAX;
        LINKSET_EACH(run_ends, struct run_end, r)
            if (r->prio == at)
                r->run();
        LINKSET_EACH(run_ends, struct run_end, r)
            next = r->prio > at && r->prio < next ? r->prio : next;
        at = next;
    }
}

int run_main(void)
{
    for (;;) {
        bool shutdown, quit, reset, powerdown, stop;

        pthread_mutex_lock(&req.lock);
        shutdown = req.shutdown, quit = req.quit, reset = req.reset, powerdown = req.powerdown, stop = req.stop;
        req.shutdown = req.quit = req.reset = req.powerdown = req.stop = false;
        pthread_mutex_unlock(&req.lock);
        if (stop)
            run_stop(req.stop_why);
        if (shutdown && do_shutdown(req.shutdown_cause, quit))
            return req.exit_code;
        if (reset)
            run_reset(req.reset_cause);
        if (powerdown)
            do_powerdown();
        if (!shutdown && !reset && !powerdown && !stop)
            loop_run_once(loop_main(), -1);
    }
}
