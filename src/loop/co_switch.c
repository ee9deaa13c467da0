/* SPDX-License-Identifier: MIT */
#include <stdint.h>
#include <string.h>
#include "loop/co_switch.h"

#ifdef CO_ASM

/* The frame that co_x86_64.S pops: r15 r14 r13 r12 rbx rbp, return address; above it a zero that ends backtraces. */
void co_ctx_init(struct co_ctx *ctx, void *stack, size_t size, void (*entry)(void))
{
    uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
    void **frame = (void **)top - 8;
    memset(frame, 0, 8 * sizeof *frame);
    frame[6] = (void *)entry;
    ctx->sp = frame;
}

#else

void co_ctx_init(struct co_ctx *ctx, void *stack, size_t size, void (*entry)(void))
{
    getcontext(&ctx->uc);
    ctx->uc.uc_stack.ss_sp = stack;
    ctx->uc.uc_stack.ss_size = size;
    ctx->uc.uc_link = NULL;
    makecontext(&ctx->uc, entry, 0);
}

void co_ctx_switch(struct co_ctx *from, struct co_ctx *to)
{
    swapcontext(&from->uc, &to->uc);
}

#endif
