/* SPDX-License-Identifier: MIT */
/* The memory of translated code and the routines every block uses: entry, exit, the call of a handler, the look at the budget. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/rcu.h"
#include "cpu/riscv/fpu.h"
#include "cpu/riscv/jit_int.h"
#include "cpu/riscv/mmu.h"

#define STUBS_SIZE 4096u

const int8_t jit_reg[32] = {
    [0] = -1, [1] = -1, [2] = RBX, [3] = -1, [4] = -1, [5] = -1, [6] = -1, [7] = -1, [8] = RSI, [9] = RDI, [10] = R8, [11] = R9,
    [12] = R10, [13] = R11, [14] = R14, [15] = R13, [16] = -1, [17] = -1, [18] = -1, [19] = -1, [20] = -1, [21] = -1, [22] = -1,
    [23] = -1, [24] = -1, [25] = -1, [26] = -1, [27] = -1, [28] = -1, [29] = -1, [30] = -1, [31] = -1,
};

const int8_t jit_freg[32] = {
    [0] = 12, [1] = 13, [2] = 14, [3] = -1, [4] = -1, [5] = -1, [6] = -1, [7] = -1, [8] = 15, [9] = -1, [10] = 4, [11] = 5, [12] = 6,
    [13] = 7, [14] = 8, [15] = 9, [16] = 10, [17] = 11, [18] = -1, [19] = -1, [20] = -1, [21] = -1, [22] = -1, [23] = -1, [24] = -1,
    [25] = -1, [26] = -1, [27] = -1, [28] = -1, [29] = -1, [30] = -1, [31] = -1,
};

static void spill(struct emit *e, bool fp)
{
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] >= 0)
            x86_rm(e, X_MOV_TO, true, (unsigned)jit_reg[r], RBP, JIT_X(r));
    for (unsigned r = 0; r < 32 && fp; r++)
        if (jit_freg[r] >= 0)
            x86_rm(e, X_MOVSD_TO, false, (unsigned)jit_freg[r], RBP, JIT_F(r));
    x86_rm(e, X_MOV_TO, false, R15, RBP, JIT_DISP(budget));
}

static void reload(struct emit *e, bool fp)
{
    x86_rm(e, X_MOV, false, R15, RBP, JIT_DISP(budget));
    for (unsigned r = 1; r < 32; r++)
        if (jit_reg[r] >= 0)
            x86_rm(e, X_MOV, true, (unsigned)jit_reg[r], RBP, JIT_X(r));
    for (unsigned r = 0; r < 32 && fp; r++)
        if (jit_freg[r] >= 0)
            x86_rm(e, X_MOVSD, false, (unsigned)jit_freg[r], RBP, JIT_F(r));
}

static const uint8_t saved[] = { RBX, RBP, R12, R13, R14, R15 };

/* uint64_t enter(struct hart *, uint32_t far entry): runs from h->pc; returns what the exit left in rax. */
static void make_enter(struct jit *j, struct emit *e, bool fp)
{
    j->enter[fp] = (uint64_t (*)(struct hart *, uint32_t))(uintptr_t)emit_here(e);
    for (unsigned i = 0; i < sizeof saved; i++)
        x86_push(e, saved[i]);
    x86_ri(e, G_SUB, true, RSP, 8);
    x86_rm(e, X_LEA, true, RBP, RDI, JIT_BIAS);
    x86_rr(e, X_MOV, false, RDX, RSI);
    x86_rm(e, X_MOV, true, RAX, RBP, JIT_DISP(pc));
    reload(e, fp);
    x86_jmp_reg(e, RDX);
}

/* exit: rax is handed to C; registers still in place. Returns where they are in memory already. */
static uint32_t make_exit(struct jit *j, struct emit *e, bool fp)
{
    j->stub[fp].exit = emit_here(e);
    spill(e, fp);
    uint32_t spilled = emit_here(e);
    x86_ri(e, G_ADD, true, RSP, 8);
    for (unsigned i = sizeof saved; i-- > 0;)
        x86_pop(e, saved[i]);
    x86_ret(e);
    return spilled;
}

/* Called with eax = site. */
static void make_slow(struct jit *j, struct emit *e, bool fp, uint32_t spilled)
{
    j->stub[fp].slow = emit_here(e);
    spill(e, fp);
    x86_rm(e, X_LEA, true, RDI, RBP, -JIT_BIAS);
    x86_rr(e, X_MOV, false, RSI, RAX);
    x86_ri(e, G_SUB, true, RSP, 8);
    x86_mov_imm(e, RAX, (uintptr_t)jit_slow);
    x86_call_reg(e, RAX);
    x86_ri(e, G_ADD, true, RSP, 8);
    x86_rr(e, X_TEST, false, RAX, RAX);
    uint8_t *leave = x86_jcc(e, CC_NE, 0);
    reload(e, fp);
    x86_ret(e);
    x86_patch(e, leave, emit_here(e));
    x86_ri(e, G_ADD, true, RSP, 8);
    x86_rr(e, X_XOR, false, RAX, RAX);
    x86_jmp(e, spilled);
}

/*
 * Called where the budget is used up, with eax = offset in the page (poll_at: rax = pc, kept). Does what hart_poll() does when
 * nothing is wanted, and returns with flags that say that the budget is greater than 0; else leaves to C with h->pc set.
 */
static void make_poll(struct jit *j, struct emit *e, bool fp)
{
    uint8_t *leave[4];
    j->stub[fp].poll = emit_here(e);
    x86_rm(e, X_ADD, true, RAX, RBP, JIT_DISP(jit.vbase));
    j->stub[fp].poll_at = emit_here(e);
    x86_mi(e, G_CMP, false, RBP, JIT_DISP(attention), 0);
    leave[0] = x86_jcc(e, CC_NE, 0);
    x86_rm(e, X_MOV, true, RCX, RBP, JIT_DISP(irq_line));
    x86_rm(e, X_OR, true, RCX, RBP, JIT_DISP(irq_soft));
    x86_rm(e, X_AND, true, RCX, RBP, JIT_DISP(mie));
    leave[1] = x86_jcc(e, CC_NE, 0);
    x86_rm(e, X_MOV, true, RCX, RBP, JIT_DISP(jit.rcu_seen));
    x86_rm(e, X_MOV, true, RCX, RCX, 0);
    x86_mov_imm(e, RDX, (uintptr_t)&rcu_period);
    x86_rm(e, X_CMP, true, RCX, RDX, 0);
    leave[2] = x86_jcc(e, CC_NE, 0);
    x86_mi8(e, G_CMP, RBP, JIT_DISP(jit.once), 0);
    leave[3] = x86_jcc(e, CC_NE, 0);
    x86_rm(e, X_MOVSXD, true, RCX, RBP, JIT_DISP(slice));
    x86_rr(e, X_MOVSXD, true, RDX, R15);
    x86_rr(e, X_SUB, true, RCX, RDX);
    x86_rm(e, X_ADD_TO, true, RCX, RBP, JIT_DISP(retired));
    x86_mov_imm(e, R15, RV_SLICE);
    x86_rm(e, X_MOV_TO, false, R15, RBP, JIT_DISP(slice));
    x86_mi(e, G_ADD, true, RBP, JIT_DISP(stats.slices), 1);
    x86_rr(e, X_TEST, false, R15, R15);
    x86_ret(e);
    for (unsigned i = 0; i < ARRAY_SIZE(leave); i++)
        x86_patch(e, leave[i], emit_here(e));
    x86_ri(e, G_ADD, true, RSP, 8);
    j->stub[fp].miss = emit_here(e);            /* jumped to with rax = pc */
    x86_rm(e, X_MOV_TO, true, RAX, RBP, JIT_DISP(pc));
    x86_rr(e, X_XOR, false, RAX, RAX);
    x86_jmp(e, j->stub[fp].exit);
}

/* Entered in place of a dropped block, with eax = offset in the page (stale: rax = pc). */
static void make_stale(struct jit *j, struct emit *e, bool fp)
{
    j->stub[fp].stale_near = emit_here(e);
    x86_rm(e, X_ADD, true, RAX, RBP, JIT_DISP(jit.vbase));
    j->stub[fp].stale = emit_here(e);
    x86_rm(e, X_MOV_TO, true, RAX, RBP, JIT_DISP(pc));
    x86_mov_imm(e, RAX, JIT_STALE);
    x86_jmp(e, j->stub[fp].exit);
}

/* Pushed and popped around a call of C that knows nothing of guest registers. */
static const uint8_t clobbered[] = { RCX, RDX, RDI, R8, R9, R10, R11 };
enum { FIRST_XMM = 4, XMM_BYTES = (16 - FIRST_XMM) * 8 };

/*
 * Called with rdx = a page and rcx = the first table's entry that was asked for it. Where that is the page's, puts its translation
 * into it, from the second table or from a walk. Returns with flags: equal, if the entry's tag (for stores: @store) is the page now.
 * Changes no other register, and never leaves.
 */
static void make_fill(struct jit *j, struct emit *e, bool fp, bool store)
{
    size_t tag = store ? offsetof(struct rv_tlb_entry, wr) : offsetof(struct rv_tlb_entry, rd);
    int32_t second = RV_TLB_SIZE * sizeof(struct rv_tlb_entry);
    j->stub[fp].fill[store] = emit_here(e);
    x86_push(e, RAX);
    x86_push(e, RSI);
    jit_tlb_entry(e, RSI, RDX, RV_TLB_SIZE);
    x86_rr(e, X_CMP, true, RSI, RCX);
    uint8_t *out = x86_jcc(e, CC_NE, 0);
    jit_tlb_entry(e, RAX, RDX, RV_TLB_MORE);
    x86_rm(e, X_CMP, true, RDX, RAX, second + (int32_t)tag);
    uint8_t *walk = x86_jcc(e, CC_NE, 0);
    for (unsigned i = 0; i < sizeof(struct rv_tlb_entry); i += 8) {
        x86_rm(e, X_MOV, true, RSI, RAX, second + (int32_t)i);
        x86_rm(e, X_MOV_TO, true, RSI, RCX, (int32_t)i);
    }
    x86_rr(e, X_CMP, false, RAX, RAX);
    x86_patch(e, out, emit_here(e));
    uint32_t back = emit_here(e);
    x86_pop(e, RSI);
    x86_pop(e, RAX);
    x86_ret(e);
    x86_patch(e, walk, emit_here(e));
    for (unsigned i = 0; i < sizeof clobbered; i++)
        x86_push(e, clobbered[i]);
    static_assert((sizeof clobbered + 3) % 2 == 0 && XMM_BYTES % 16 == 0, "the stack's alignment at the call");
    x86_ri(e, G_SUB, true, RSP, XMM_BYTES);
    for (unsigned i = FIRST_XMM; i < 16 && fp; i++)
        x86_rm(e, X_MOVSD_TO, false, i, RSP, (int32_t)(i - FIRST_XMM) * 8);
    x86_rm(e, X_LEA, true, RDI, RBP, -JIT_BIAS);
    x86_rr(e, X_MOV, true, RSI, RDX);
    x86_mov_imm(e, RDX, store ? RV_ACC_WRITE : RV_ACC_READ);
    x86_mov_imm(e, RAX, (uintptr_t)rv_tlb_fill);
    x86_call_reg(e, RAX);
    x86_rr(e, X_MOVZX8, false, RAX, RAX);
    for (unsigned i = FIRST_XMM; i < 16 && fp; i++)
        x86_rm(e, X_MOVSD, false, i, RSP, (int32_t)(i - FIRST_XMM) * 8);
    x86_ri(e, G_ADD, true, RSP, XMM_BYTES);
    x86_ri(e, G_CMP, false, RAX, true);
    for (unsigned i = sizeof clobbered; i-- > 0;)
        x86_pop(e, clobbered[i]);
    x86_jmp(e, back);
}

static struct emit emit_at(struct jit *j, uint32_t run)
{
    return (struct emit){ .p = j->w + (run - (uint32_t)(uintptr_t)j->x), .run_delta = j->x - j->w };
}

/* The far entry holds 7 bytes before the near one, and a block's shortest code 10: both have room. */
void jit_block_kill(struct jit *j, uint32_t b)
{
    uint64_t key = j->block[b].key;
    const struct jit_stubs *s = &j->stub[key >> 60 != JIT_FP_SLOW];
    struct emit far = emit_at(j, j->block[b].far), near = emit_at(j, j->block[b].near);
    x86_jmp(&far, s->stale);
    x86_mov_imm(&near, RAX, jit_key_off(key));
    x86_jmp(&near, s->stale_near);
}

void jit_block_forward(struct jit *j, uint32_t old, uint32_t b)
{
    struct emit far = emit_at(j, j->block[old].far), near = emit_at(j, j->block[old].near);
    x86_jmp(&far, j->block[b].far);
    x86_jmp(&near, j->block[b].near);
}

static void make_stubs(struct jit *j)
{
    struct emit e = { .p = j->w + 64, .run_delta = j->x - j->w };         /* checkers of calls look before a function */
    for (unsigned fp = 0; fp < 2; fp++) {
        make_enter(j, &e, fp);
        make_slow(j, &e, fp, make_exit(j, &e, fp));
        make_poll(j, &e, fp);
        make_stale(j, &e, fp);
        make_fill(j, &e, fp, false);
        make_fill(j, &e, fp, true);
    }
    assert(e.p <= j->w + STUBS_SIZE);
    j->stubs = STUBS_SIZE;
}

/* Opens an area up to @end at least; false where it ends before, or the host has nothing to give. */
static bool open_to(struct jit_area *a, size_t end)
{
    enum { PIECE = 4 * JIT_ROOM };
    if (likely(end <= a->open))
        return true;
    size_t to = MIN(align_up(end, PIECE), a->size);
    if (end > a->size || mprotect((uint8_t *)a->at + a->open, to - a->open, a->prot))
        return false;
    if (a->prot & PROT_WRITE)
        madvise((uint8_t *)a->at + a->open, to - a->open, MADV_POPULATE_WRITE);        /* where the host cannot, there will be faults */
    a->open = to;
    return true;
}

bool jit_code_room(struct jit *j)
{
    return open_to(&j->area[JIT_AREA_W], j->used + JIT_ROOM) && open_to(&j->area[JIT_AREA_X], j->used + JIT_ROOM) &&
           open_to(&j->area[JIT_AREA_BLOCKS], (j->blocks + 1) * sizeof *j->block) &&
           open_to(&j->area[JIT_AREA_SITES], (j->sites + 5 * JIT_INSNS) * sizeof *j->site) &&
           open_to(&j->area[JIT_AREA_LINKS], (j->links + 2 * JIT_INSNS) * sizeof *j->link);
}

void jit_code_forget_jumps(struct jit *j)
{
    if (j->blocks > 1)
        memset(j->jump, 0, sizeof *j->jump * JIT_JUMP_SIZE);
}

void jit_code_reset(struct jit *j)
{
    jit_code_forget_jumps(j);
    if (j->blocks > 1)
        memset(j->hash, 0, sizeof j->hash);
    j->used = j->stubs;
    j->sites = j->links = 0;
    j->blocks = 1;
}

static void make_constants(struct jit *j)
{
    static const struct { enum jit_const n; uint64_t lo; } c[] = {
        { JIT_BOX, RV_BOX_S }, { JIT_SIGN_S, 0x80000000 }, { JIT_SIGN_D, BIT64(63) }, { JIT_MAG_S, ~UINT64_C(0x80000000) },
        { JIT_MAG_D, ~BIT64(63) }, { JIT_MINUS1_S, 0xbf800000 }, { JIT_MINUS1_D, UINT64_C(0xbff0000000000000) },
        { JIT_2E32_S, 0x4f800000 }, { JIT_2E32_D, UINT64_C(0x41f0000000000000) },
        { JIT_NAN_S, RV_NAN_S }, { JIT_NAN_D, RV_NAN_D },
    };
    for (size_t i = 0; i < ARRAY_SIZE(c); i++)
        j->constants[c[i].n].lo = c[i].lo;
    j->flags = (uint8_t *)&j->constants[JIT_CONSTANTS];
    for (unsigned i = 0; i < 64; i++)       /* invalid, denormal, zero, overflow, underflow, precision */
        j->flags[i] = (uint8_t)((i & 1 ? FF_NV : 0) | (i & 4 ? FF_DZ : 0) | (i & 8 ? FF_OF : 0) | (i & 16 ? FF_UF : 0) | (i & 32 ? FF_NX : 0));
}

static void *low_map(size_t size, int prot, int flags)
{
    return mmap(NULL, size, prot, flags | MAP_32BIT, -1, 0);
}

/* Sets aside an area, closed; NULL: there is no room. @low: generated code names its addresses with 32 bits. */
static void *set_aside(struct jit_area *a, size_t size, bool low)
{
    void *p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (low ? MAP_32BIT : 0), -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    *a = (struct jit_area){ .at = p, .size = size, .prot = PROT_READ | PROT_WRITE };
    return p;
}

bool jit_code_init(struct jit *j, size_t size, struct err *e)
{
    size_t most = size / 128;               /* blocks, handler calls, jumps: fewer than code has room for */
    j->size = size;
    j->x = low_map(size, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS);
    j->w = j->x == MAP_FAILED ? MAP_FAILED : mremap(j->x, 0, size, MREMAP_MAYMOVE);         /* 0: the same memory once more */
    j->area[JIT_AREA_W] = (struct jit_area){ .at = j->w, .size = size, .prot = PROT_READ | PROT_WRITE };
    j->area[JIT_AREA_X] = (struct jit_area){ .at = j->x, .size = size, .prot = PROT_READ | PROT_EXEC };
    if (j->w == MAP_FAILED)
        return err_os(e, errno, "%zu MiB for translated code below 2 GiB", size >> 20);
    int none = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    j->jump = low_map(sizeof *j->jump * JIT_JUMP_SIZE, PROT_READ | PROT_WRITE, none);
    j->constants = low_map(sizeof *j->constants * JIT_CONSTANTS + 64, PROT_READ | PROT_WRITE, none);
    j->site = set_aside(&j->area[JIT_AREA_SITES], sizeof *j->site * most, true);
    j->link = set_aside(&j->area[JIT_AREA_LINKS], sizeof *j->link * most, true);
    j->block = set_aside(&j->area[JIT_AREA_BLOCKS], sizeof *j->block * most, false);
    if (j->jump == MAP_FAILED || j->constants == MAP_FAILED || !j->site || !j->link || !j->block)
        return err_set(e, ERR_GENERIC, "no room for the tables of translated code below 2 GiB");
    if (!jit_code_room(j))
        return err_os(e, errno, "memory for translated code");
    make_constants(j);
    make_stubs(j);
    jit_code_reset(j);
    return true;
}

static void unmap(void *p, size_t size)
{
    if (p && p != MAP_FAILED)
        munmap(p, size);
}

void jit_code_fini(struct jit *j)
{
    for (unsigned i = 0; i < JIT_AREAS; i++)
        unmap(j->area[i].at, j->area[i].size);
    unmap(j->jump, sizeof *j->jump * JIT_JUMP_SIZE);
    unmap(j->constants, sizeof *j->constants * JIT_CONSTANTS + 64);
}
