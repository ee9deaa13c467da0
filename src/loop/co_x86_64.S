/* SPDX-License-Identifier: MIT */
/*
 * void co_ctx_switch(struct co_ctx *from, struct co_ctx *to): System V ABI, callee-saved integer registers only.
 * The floating-point control words are not switched: nothing on a loop thread changes them.
 */
#ifndef CO_UCONTEXT
    .text
    .globl  co_ctx_switch
    .hidden co_ctx_switch
    .type   co_ctx_switch, @function
    .p2align 4
co_ctx_switch:
    .cfi_startproc
    endbr64
    pushq   %rbp
    pushq   %rbx
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    movq    %rsp, (%rdi)
    movq    (%rsi), %rsp
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    ret
    .cfi_endproc
    .size   co_ctx_switch, . - co_ctx_switch
#endif
    .section .note.GNU-stack, "", @progbits
