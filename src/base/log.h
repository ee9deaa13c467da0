/* SPDX-License-Identifier: MIT */
/*
 * Logging and trace points. `-d item,...` and `-trace` choose; `-D FILE` redirects. What a guest does wrong is
 * LOG_GUEST: counted always, printed rate-limited (at most LOG_GUEST_BURST lines a second per call site). Thread: ANY.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/linkset.h"

struct str;

enum log_item {
    LOG_GUEST,          /* -d guest_errors */
    LOG_UNIMP,          /* -d unimp: commands that a device does not have */
    LOG_INT,            /* -d int: traps and interrupts */
    LOG_IN_ASM,         /* -d in_asm: instructions when they are decoded or translated */
    LOG_MMU,            /* -d mmu: translations that fail */
    LOG_RESET,          /* -d cpu_reset: registers after it */
    LOG_ITEMS
};

extern _Atomic uint32_t log_mask;       /* bit per log_item; the main loop changes it */
static inline bool log_on(enum log_item i) { return __builtin_expect(atomic_load_explicit(&log_mask, memory_order_relaxed) >> i & 1, 0); }

struct log_site { uint64_t count; int64_t window_ns; unsigned in_window; };
/* A line, whatever -d says: who calls it has asked log_on(). */
void log_write(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_guest_at(struct log_site *site, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A line for the person at the terminal: "backplane: warning: ...". */
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Before each line for the person: the time, the machine's name (borrowed, NULL: none). -msg. */
void log_set_prefix(bool timestamp, const char *guest);
/* The name of the program that says it, for those that are not the emulator. Borrowed; before threads. */
void log_set_program(const char *name);
/* Writes it and the program's name to standard error; the caller goes on. */
void log_put_prefix(void);
uint64_t log_guest_total(void);
bool log_set_items(const char *comma_list, struct err *e) MUST_CHECK;   /* "none", "all", "-item" switches one off */
void log_list_items(struct str *out);                                   /* a line each, for help */
bool log_set_file(const char *path, struct err *e) MUST_CHECK;

#define log_guest(...) do { static struct log_site site_; log_guest_at(&site_, __VA_ARGS__); } while (0)
#define log_unimp(...) do { if (log_on(LOG_UNIMP)) log_write(__VA_ARGS__); } while (0)

/* Trace points: TRACE(virtio_kick, "queue %u", n). Off: a load and a predicted branch. Listed by `-trace help`. ANY */
struct trace_point { const char *name; const char *fmt; _Atomic bool on; };
bool trace_enable(const char *pattern, struct err *e) MUST_CHECK;       /* glob, "-glob" switches off; unknown names get the nearest */
void trace_list(void (*put)(const struct trace_point *, void *arg), void *arg);
#define TRACE(nm, fm, ...) do {                                                                             \
        static struct trace_point tp_ __attribute__((section("trace_points"), used, aligned(8))) LINKSET_NO_ASAN = { #nm, fm, false };    \
        if (__builtin_expect(atomic_load_explicit(&tp_.on, memory_order_relaxed), 0)) log_write(#nm " " fm, ##__VA_ARGS__);             \
    } while (0)

#endif
