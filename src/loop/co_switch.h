/* SPDX-License-Identifier: MIT */
/*
 * A saved context and the switch between two: own assembly on x86-64, ucontext elsewhere (or with CO_UCONTEXT defined).
 * Around it, what AddressSanitizer and ThreadSanitizer must be told.
 */
#ifndef LOOP_CO_SWITCH_H
#define LOOP_CO_SWITCH_H

#include <stddef.h>

#if defined(__x86_64__) && !defined(CO_UCONTEXT)
#define CO_ASM 1
struct co_ctx { void *sp; };
#else
#include <ucontext.h>
struct co_ctx { ucontext_t uc; };
#endif

/* @ctx will run @entry, which never returns, on [stack, stack + size) when switched to. */
void co_ctx_init(struct co_ctx *ctx, void *stack, size_t size, void (*entry)(void));
/* Saves the present context in @from and continues @to. */
void co_ctx_switch(struct co_ctx *from, struct co_ctx *to);

#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define CO_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif

#ifdef CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* One side of a switch as the sanitizers see it. */
struct co_san {
    const void *bottom; size_t size;    /* its stack */
    void *fake;                         /* ASan's fake stack while it is away */
    void *fiber;                        /* TSan's */
};

/* What was a stack becomes one again: nothing of the frames that it had counts. */
static inline void co_san_reuse(const void *stack, size_t size)
{
#ifdef CO_ASAN
    __asan_unpoison_memory_region(stack, size);
#else
    (void)stack;
    (void)size;
#endif
}

static inline void co_san_leave(struct co_san *from, const struct co_san *to)
{
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(&from->fake, to->bottom, to->size);
#endif
#ifdef CO_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    (void)from; (void)to;
}

/* First thing after arriving at @me; @other (may be NULL) learns its stack's bounds. */
static inline void co_san_arrive(struct co_san *me, struct co_san *other)
{
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(me->fake, other ? &other->bottom : NULL, other ? &other->size : NULL);
#endif
    (void)me; (void)other;
}

static inline void *co_san_current(void)
{
#ifdef CO_TSAN
    return __tsan_get_current_fiber();
#else
    return NULL;
#endif
}

static inline void *co_san_new(void)
{
#ifdef CO_TSAN
    return __tsan_create_fiber(0);
#else
    return NULL;
#endif
}

static inline void co_san_free(void *fiber)
{
#ifdef CO_TSAN
    __tsan_destroy_fiber(fiber);
#endif
    (void)fiber;
}

#endif
