/* SPDX-License-Identifier: MIT */
/* What the translator tells people: counters at the end, and where generated code has crashed. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cpu/riscv/jit_int.h"

uint64_t jit_thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void jit_print_stats(const struct jit *j)
{
    double run = (double)j->n.run_ns / 1e6, made = (double)j->n.ns / 1e6;
    fprintf(stderr,
            "jit: hart %u: %" PRIu64 " blocks of %" PRIu64 " instructions in %" PRIu64 " KiB, translation %.1f of %.1f ms (%.1f %%), "
            "%" PRIu64 " entries, %" PRIu64 " times interpreted first, %" PRIu64 " handler calls, %" PRIu64 " blocks dropped, %" PRIu64 " times full, %" PRIu64 " checked\n",
            j->h->index, j->n.blocks, j->n.insns, j->n.bytes >> 10, made, run, run > 0 ? 100 * made / run : 0, j->n.entries, j->n.cool, j->n.slow,
            j->n.dropped, j->n.flushes, j->n.checked);
}

void jit_describe_block(const struct jit *j, uint32_t b)
{
    const struct jit_page *p = j->page[j->block[b].key >> RV_PAGE_BITS & (ARRAY_SIZE(j->page) - 1)];
    uint64_t pa = j->block[b].key & ((BIT64(56) - 1) & RV_PAGE_MASK);
    unsigned off = (unsigned)(j->block[b].key & ~RV_PAGE_MASK & ~UINT64_C(1));
    while (p && p->pa != pa)
        p = p->next;
    fprintf(stderr, "block at pc 0x%" PRIx64 ", physical 0x%" PRIx64 ", %u instructions, host 0x%x:\n", j->h->jit.vbase + off, pa + off,
            j->block[b].insns, j->block[b].far);
    for (unsigned i = 0; p && i < j->block[b].insns && off + 4 <= RV_PAGE_SIZE && (p->lines >> (off >> 6) & 1); i++) {
        struct rv_insn in;
        char text[80];
        rv_decode(ld_le32(p->bytes + off), p->ext, &in);
        rv_disas(&in, j->h->jit.vbase + off, text, sizeof text);
        fprintf(stderr, "  %03x  %s\n", off, text);
        off += in.len;
    }
}

/* ---- crashes ---- */

static struct sigaction previous;

static uint32_t block_of(const struct jit *j, uint32_t at)
{
    uint32_t best = 0;
    for (uint32_t b = 1; b < j->blocks; b++)
        if (j->block[b].far <= at && (!best || j->block[b].far > j->block[best].far))
            best = b;
    return best;
}

/* The process is lost: what is not safe in a handler is better than to say nothing. */
static void on_crash(int sig, siginfo_t *si, void *context)
{
    const ucontext_t *u = context;
    uintptr_t pc = (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
    struct hart *h = hart_self();
    struct jit *j = h && h->accel == &accel_jit ? h->accel_data : NULL;
    if (!j || pc < (uintptr_t)j->x || pc - (uintptr_t)j->x >= j->size) {
        sigaction(SIGSEGV, &previous, NULL);            /* not ours: it comes again */
        return;
    }
    fprintf(stderr, "backplane: hart %u crashed in translated code: host pc 0x%zx, address 0x%zx\nhost code:", h->index, (size_t)pc,
            (size_t)(uintptr_t)si->si_addr);
    for (unsigned i = 0; i < 16; i++)
        fprintf(stderr, " %02x", ((const uint8_t *)pc)[i]);
    fputc('\n', stderr);
    uint32_t b = block_of(j, (uint32_t)pc);
    if (b)
        jit_describe_block(j, b);
    abort();                                            /* whose handler restores the terminal */
}

void jit_catch_crashes(void)
{
    struct sigaction sa = { .sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_NODEFER }, now;
    if (!sigaction(SIGSEGV, NULL, &now) && !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_crash)) {
        previous = now;
        sigaction(SIGSEGV, &sa, NULL);
    }
}
