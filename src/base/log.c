/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/harmless.h"
#include "base/str.h"

enum { LOG_GUEST_BURST = 10 };

_Atomic uint32_t log_mask;
static FILE *log_file;                      /* NULL: standard error */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint_least64_t guest_total;

static const struct { const char *name, *doc; } items[LOG_ITEMS] = {
    [LOG_GUEST] = { "guest_errors", "what the guest does wrong" },
    [LOG_UNIMP] = { "unimp", "commands that a device does not have" },
    [LOG_INT] = { "int", "traps and interrupts" },
    [LOG_IN_ASM] = { "in_asm", "guest code when it is decoded or translated" },
    [LOG_MMU] = { "mmu", "translations of addresses that fail" },
    [LOG_RESET] = { "cpu_reset", "registers after each reset of a hart" },
};
/* QEMU's that stay without effect here. */
static const char *const absent[] = { "cpu", "exec", "fpu", "nochain", "op", "op_opt", "op_ind", "out_asm", "page", "strace", "tid", "vpu", "plugin", "invalid_mem" };

static FILE *log_out(void) { return log_file ? log_file : stderr; }

static void log_line(const char *head, const char *fmt, va_list ap)
{
    pthread_mutex_lock(&log_lock);
    fputs(head, log_out());
    vfprintf(log_out(), fmt, ap);
    fputc('\n', log_out());
    fflush(log_out());
    pthread_mutex_unlock(&log_lock);
}

void log_write(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    log_line("", fmt, ap);
    va_end(ap);
}

void log_guest_at(struct log_site *site, const char *fmt, ...)
{
    struct timespec ts;
    bool print;
    int64_t now;
    va_list ap;

    atomic_fetch_add_explicit(&guest_total, 1, memory_order_relaxed);
    if (!log_on(LOG_GUEST))
        return;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    now = ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
    pthread_mutex_lock(&log_lock);
    site->count++;
    if (now - site->window_ns > INT64_C(1000000000)) {
        site->window_ns = now;
        site->in_window = 0;
    }
    print = site->in_window++ < LOG_GUEST_BURST;
    pthread_mutex_unlock(&log_lock);
    if (!print)
        return;
    va_start(ap, fmt);
    log_line("guest: ", fmt, ap);
    va_end(ap);
}

uint64_t log_guest_total(void)
{
    return atomic_load_explicit(&guest_total, memory_order_relaxed);
}

static bool prefix_time;
static const char *prefix_guest, *prefix_program = "backplane";

void log_set_program(const char *name)
{
    prefix_program = name;
}

void log_set_prefix(bool timestamp, const char *guest)
{
    prefix_time = timestamp;
    prefix_guest = guest;
}

void log_put_prefix(void)
{
    struct timespec ts;
    struct tm tm;
    char text[32];

    if (prefix_time) {
        clock_gettime(CLOCK_REALTIME, &ts);
        gmtime_r(&ts.tv_sec, &tm);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        fprintf(stderr, "%s.%06ldZ ", text, ts.tv_nsec / 1000);
    }
    if (prefix_guest)
        fprintf(stderr, "%s ", prefix_guest);
    fprintf(stderr, "%s: ", prefix_program);
}

static void say(const char *kind, const char *fmt, va_list ap)
{
    char *text;
    if (vasprintf(&text, fmt, ap) < 0)
        return;
    text_harmless(text);
    pthread_mutex_lock(&log_lock);
    log_put_prefix();
    fprintf(stderr, "%s%s\n", kind, text);
    pthread_mutex_unlock(&log_lock);
    free(text);
}

void log_warn(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say("warning: ", fmt, ap);
    va_end(ap);
}

void log_info(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

static const char *item_name(const void *table, size_t i)
{
    return i < LOG_ITEMS ? items[i].name : NULL;
}

static bool log_set_item(const char *name, struct err *e)
{
    bool off = *name == '-';

    name += off;
    if (!strcmp(name, "all")) {
        log_mask = off ? 0 : (1u << LOG_ITEMS) - 1;
        return true;
    }
    if (str_starts(name, "trace:"))
        return trace_enable(name + 6, e);
    for (size_t i = 0; i < LOG_ITEMS; i++)
        if (!strcmp(name, items[i].name)) {
            log_mask = off ? log_mask & ~(1u << i) : log_mask | 1u << i;
            return true;
        }
    for (size_t i = 0; i < ARRAY_SIZE(absent); i++)
        if (!strcmp(absent[i], name)) {
            err_set(e, ERR_UNKNOWN, "log item '%s' is not there: nothing here would write it", name);
            return err_hint(e, "in_asm shows code when it is first seen, -trace what devices and back ends do, -gdb each step");
        }
    return err_unknown(e, "log item", name, "", item_name, NULL);
}

void log_list_items(struct str *out)
{
    for (size_t i = 0; i < LOG_ITEMS; i++)
        str_printf(out, "%-14s %s\n", items[i].name, items[i].doc);
}

bool log_set_items(const char *comma_list, struct err *e)
{
    char *copy = xstrdup(comma_list), *save = NULL;
    bool ok = true;

    if (!strcmp(copy, "none")) {
        log_mask = 0;
    } else {
        for (char *w = strtok_r(copy, ",", &save); w && ok; w = strtok_r(NULL, ",", &save))
            ok = log_set_item(w, e);
    }
    free(copy);
    return ok;
}

bool log_set_file(const char *path, struct err *e)
{
    FILE *f = fopen(path, "we");

    if (!f)
        return err_os(e, errno, "cannot open log file '%s'", path);
    pthread_mutex_lock(&log_lock);
    if (log_file)
        fclose(log_file);
    log_file = f;
    pthread_mutex_unlock(&log_lock);
    return true;
}

extern struct trace_point __start_trace_points[] __attribute__((weak, visibility("hidden")));
extern struct trace_point __stop_trace_points[] __attribute__((weak, visibility("hidden")));

static const char *trace_name(const void *table, size_t i)
{
    return i < (size_t)(__stop_trace_points - __start_trace_points) ? __start_trace_points[i].name : NULL;
}

bool trace_enable(const char *pattern, struct err *e)
{
    bool off = *pattern == '-', any = false;

    pattern += off;
    for (struct trace_point *t = __start_trace_points; t < __stop_trace_points; t++)
        if (!fnmatch(pattern, t->name, 0)) {
            t->on = !off;
            any = true;
        }
    return any || err_unknown(e, "trace point", pattern, "", trace_name, NULL);
}

void trace_list(void (*put)(const struct trace_point *, void *arg), void *arg)
{
    for (struct trace_point *t = __start_trace_points; t < __stop_trace_points; t++)
        put(t, arg);
}
