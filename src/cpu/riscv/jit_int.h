/* SPDX-License-Identifier: MIT */
/*
 * The translator, between its files.
 *
 * Every hart has its own cache of translated code, which only its thread touches: nothing is locked and nothing is stopped.
 * A block is keyed by physical page, offset and floating-point mode; it never contains a virtual address, but finds the page it
 * runs at in hart->jit.vbase. Jumps within a page are chained directly, so a page's blocks live and die together; every way into
 * another page goes through the jump cache, whose entries carry the context (address space, mode) they were made in.
 * Stores to pages with translated code are noticed (code.c); fence.i, or a return to user mode, then compares them with memory, line
 * by line of what was translated, and drops the blocks of lines that differ: their entries jump to C, and to the new block once there is one.
 *
 * Registers of generated code: rbp = the hart (+ JIT_BIAS), r15d = budget, r12 = an addend of the soft TLB within a group of
 * accesses, else a guest register; rax, rcx, rdx free; the rest holds guest registers (jit_reg between blocks, t->now in them). xmm0..xmm3 are free; in blocks that compute in
 * floating point (mode not JIT_FP_SLOW) the others hold guest registers, too (jit_freg).
 * Thread: VCPU.
 */
#ifndef CPU_RISCV_JIT_INT_H
#define CPU_RISCV_JIT_INT_H

#include <stddef.h>
#include "cpu/riscv/interp_int.h"
#include "cpu/riscv/jit_x86.h"

#define JIT_BIAS 128
#define JIT_DISP(member) ((int32_t)offsetof(struct hart, member) - JIT_BIAS)
#define JIT_X(r) ((int32_t)(offsetof(struct hart, x) + 8u * (r)) - JIT_BIAS)
#define JIT_F(r) ((int32_t)(offsetof(struct hart, f) + 8u * (r)) - JIT_BIAS)
#define JIT_INSNS 64u                   /* guest instructions in a block, at most */
#define JIT_ROOM (64u << 10)            /* code bytes that a block may need */

/* Floating-point modes of a block; the low bits of a context. */
enum jit_fp { JIT_FP_SLOW, JIT_FP_RNE, JIT_FP_OTHER, JIT_FP_COUNT };

/* Constants of 16 bytes that generated code uses. */
enum jit_const { JIT_BOX, JIT_SIGN_S, JIT_SIGN_D, JIT_MAG_S, JIT_MAG_D, JIT_MINUS1_S, JIT_MINUS1_D, JIT_2E32_S, JIT_2E32_D,
    JIT_NAN_S, JIT_NAN_D, JIT_CONSTANTS };

/* One line of the jump cache: code (its far entry) for virtual address pc in context ctx. */
struct jit_jump { uint64_t pc; uint32_t ctx, code; };
#define JIT_JUMP_BITS 15
#define JIT_JUMP_SIZE (1u << JIT_JUMP_BITS)
/* Index times two of a jump-cache line. */
static inline uint32_t jit_jump_hash(uint64_t pc)
{
    return ((uint32_t)pc ^ (uint32_t)pc >> 11) & (JIT_JUMP_SIZE - 1) << 1;
}

/* An instruction that generated code may hand to the interpreter's handler. */
struct jit_site {
    interp_fn *fn;
    struct rv_insn in;
    uint16_t off;                       /* within its page */
    bool leave;                         /* the block must not go on after it */
    uint8_t index;                      /* instructions of the block before it */
};

/* A jump that is not linked yet, and the key of the block that it is to: in the jump's own page. */
struct jit_link { uint8_t *at; uint64_t key; };

struct jit_block {
    uint64_t key;
    uint32_t next, page_next;           /* block numbers: in the hash chain, of the page; 0: none */
    uint32_t far, near;                 /* entries: with rax = pc from anywhere, and from within the page */
    uint64_t lines;                     /* of the page that it was made from */
    uint8_t insns;
    uint8_t checks;
};

struct jit_page {
    uint64_t pa, ext, epoch;
    uint32_t blocks, stale;             /* those in force; those dropped, and not made again so far */
    uint64_t lines;                     /* of 64 bytes that blocks were made from: bytes[] holds what was seen */
    struct jit_page *next;
    uint8_t bytes[RV_PAGE_SIZE];
};


/* Where a key is found. */
static inline uint32_t jit_hash(uint64_t key)
{
    return (uint32_t)((key ^ key >> 15) * UINT64_C(0x9e3779b97f4a7c15) >> 47);
}

/* Block keys. @variant 1: without shared TLB checks. */
static inline uint64_t jit_key(uint64_t pa, unsigned off, unsigned fp, unsigned variant)
{
    return pa | off | (uint64_t)fp << 60 | variant;
}
static inline unsigned jit_key_variant(uint64_t key) { return key & 1; }
static inline uint64_t jit_key_off(uint64_t key) { return key & ~RV_PAGE_MASK & ~UINT64_C(1); }

/* Where generated code goes that is rarely run: after the block. */
enum jit_cold_kind { COLD_SLOW, COLD_LEAVE, COLD_POLL_AT, COLD_POLL_LOOP, COLD_LINK, COLD_EXIT, COLD_FORWARD, COLD_SLOT, COLD_FILL,
    COLD_NAN, COLD_UNORDERED };
struct jit_cold {
    enum jit_cold_kind kind;
    uint8_t *from;                      /* displacement to patch */
    uint32_t back, end;                 /* where to go on; where the instruction ends */
    uint32_t arg;                       /* site address, page offset ... */
    int64_t target;
    int16_t done;                       /* instructions; an adjustment of the budget; the instruction's index; multiplicands of a NaN */
    uint8_t variant;
    uint8_t place;                      /* index of the place[] that holds where the jump is */
};

/*
 * Where guest registers are: in a host register, or (-1) in memory. Stale: what is in memory is not the value. Narrow: the value is
 * the lower half, sign-extended; the upper half may be anything.
 */
struct jit_place { int8_t reg[32]; uint32_t stale, narrow; };

/*
 * Accesses base + [lo, hi) of instructions first..last, whatever is added to the base in between, that share a look at the TLB; its addend
 * is in r12 (slot 0), in memory, or in the hart's slot that the first one asks.
 */
#define JIT_GROUPS 12u
#define JIT_SHARES 4
#define JIT_IN_SLOT JIT_SHARES
struct jit_share { int32_t lo, hi; uint8_t base, first, last, count, slot; bool rd, wr; };

/* What an instruction does with the integer registers. */
struct jit_effect {
    uint32_t reads, writes;             /* bit = register, never x0 */
    bool seen;                          /* whoever sees the state may do so here: traps, jumps */
};

/* What is known at a place: f registers that hold a boxed single; that mstatus.FS is Dirty. */
struct jit_fp_known { uint32_t boxed; bool dirty; };

/* A translation under way. */
struct jit;
struct jit_tr {
    struct jit *j;
    struct hart *h;
    struct jit_page *page;
    const uint8_t *host;                /* the page's bytes now */
    struct emit e;
    uint64_t lines;                     /* of the page that were read */
    unsigned fp, variant;
    unsigned n, i;                      /* instructions; the present one */
    uint32_t head;                      /* near entry */
    unsigned first_cold;                /* of the present instruction */
    unsigned n_cold;
    unsigned base, index;               /* of the address that jit_address() made */
    int32_t disp;
    bool ended;                         /* nothing falls out of the last instruction */
    /* jumps within the block (jit_region.c) */
    bool turned[JIT_INSNS];             /* a branch whose target is the next instruction here: the one behind it is where it may go */
    bool stops;                         /* whatever follows the last instruction is for C to find */
    int8_t target[JIT_INSNS];           /* index of the instruction that a branch or jump goes to; -1: not in the block */
    int8_t close;                       /* index of the one that follows the last; -1: not in the block */
    bool label[JIT_INSNS];              /* such a target */
    int8_t from[JIT_INSNS];             /* of a label: first jump to it; -1: one from behind */
    bool loops;                         /* jumps back within the block */
    /* where guest registers are (jit_place.c) */
    struct jit_place home, now;         /* between blocks; here */
    uint32_t hosts;                     /* the host registers in use between blocks */
    unsigned at_place;                  /* index of the place[] that code out of line begins with */
    /* what jit_opt.c found out */
    bool skip[JIT_INSNS];               /* computes what nobody sees */
    bool low[JIT_INSNS];                /* the upper half of the result is not needed, or only outside the block: it is narrow */
    bool whole[JIT_INSNS];              /* it is narrow just as what it reads is */
    bool words[JIT_INSNS];              /* all that it reads is sign-extended from 32 bits */
    uint32_t words_at[JIT_INSNS];       /* the registers that are, at a label */
    uint32_t wanted_at[JIT_INSNS];      /* there, those whose upper half somebody may want */
    bool widen;                         /* the present instruction is to sign-extend what it makes of narrow registers */
    /* floating point (jit_plan_fp.c) */
    struct jit_fp_known fp_now;         /* here */
    uint32_t assumed;                   /* f registers that the block must find boxed where it begins */
    bool puts_back[JIT_INSNS];          /* a write of fflags that undoes the comparison before it */
    uint8_t *unordered;                 /* of that one: its jump for NaNs */
    struct jit_share share[JIT_GROUPS]; /* groups of accesses that share a look at the TLB (jit_plan.c) */
    unsigned n_share;
    uint8_t group[JIT_INSNS];           /* 1 + group of a load or store; 0: none */
    uint8_t slot[JIT_INSNS];            /* 1 + the hart's slot that a load, a store or a group's first asks before the TLB; 0: none */
    /* from here on nothing is cleared before a translation: there is something only of the instructions that were collected */
    struct { struct rv_insn in; uint16_t off; } insn[JIT_INSNS];
    struct jit_effect effect[JIT_INSNS];
    uint32_t at[JIT_INSNS];             /* where its code begins */
    struct jit_place place[2 * JIT_INSNS]; /* before each instruction, as it begins to compute, and after it */
    struct jit_place arrive[JIT_INSNS]; /* where jumps come to it */
    struct jit_fp_known fp_at[JIT_INSNS];   /* at a label, but in JIT_FP_SLOW */
    uint8_t next_read[JIT_INSNS + 1][32], uses_left[JIT_INSNS + 1][32];
    struct jit_cold cold[JIT_INSNS * 8];
};

#define JIT_HASH 131072u
#define JIT_COOL 16384u
/* The code to write and to run, and what is kept for each block, each call of a handler, each jump. */
enum { JIT_AREA_W, JIT_AREA_X, JIT_AREA_BLOCKS, JIT_AREA_SITES, JIT_AREA_LINKS, JIT_AREAS };
struct jit {
    struct hart *h;
    /* code: one memory, mapped to be written and to be run */
    uint8_t *w, *x;
    size_t size, stubs, used;
    /* Memory that grows with what is translated: [0, open) may be touched. The host refuses the rest, so that -overcommit pins what is used. */
    struct jit_area { void *at; size_t size, open; int prot; } area[JIT_AREAS];
    uint64_t (*enter[2])(struct hart *h, uint32_t code);
    struct jit_stubs { uint32_t exit, slow, poll, poll_at, miss, stale, stale_near, fill[2]; } stub[2];     /* [1]: floating-point registers are live */
    /* data that generated code names with 32 bits */
    struct { uint64_t lo, hi; } *constants;
    uint8_t *flags;                     /* fflags of the six flags of MXCSR */
    struct jit_jump *jump;
    struct jit_site *site;
    unsigned sites;
    struct jit_link *link;
    unsigned links;
    /* what has been translated */
    struct jit_block *block;
    unsigned blocks;
    uint32_t hash[JIT_HASH];
    struct jit_page *page[4096];        /* hash chains */
    uint64_t epoch;                     /* a page of another must be looked at before it is used */
    struct jit_cool { uint16_t tag, times; } cool[JIT_COOL];    /* where the guest came that is not translated yet, by hash */
    uint32_t era;                       /* upper bits of context numbers in use */
    struct jit_tr tr;                   /* the translation under way */
    struct { uint64_t blocks, insns, bytes, flushes, dropped, entries, cool, slow, links, ns, run_ns, checked, stale; } n;
    struct jit_check *check;            /* check=on */
    unsigned unchecked;
};

/* jit_code.c */
bool jit_code_init(struct jit *j, size_t size, struct err *e);
void jit_code_fini(struct jit *j);
/* What generated code hands back to C beside a struct jit_link: 0, look around; this, the block at h->pc was dropped. */
#define JIT_STALE 1u
/* Makes the entries of a dropped block lead to C; or, once it was made again, to the new one. */
void jit_block_kill(struct jit *j, uint32_t b);
void jit_block_forward(struct jit *j, uint32_t old, uint32_t b);
/*
 * Whether there is room for another block in the memory set aside. Asks the host for it in pieces: a fault for each page of code would
 * take far longer. False: all must be forgotten first.
 */
bool jit_code_room(struct jit *j);
/* Forgets where jumps by register led. Costs nothing before the first block. */
void jit_code_forget_jumps(struct jit *j);
/* Forgets all translated code; the stubs stay. */
void jit_code_reset(struct jit *j);

/* jit.c */
/* Called by generated code. 0: go on. */
uint64_t jit_slow(struct hart *h, const struct jit_site *s);
/* The block for h->pc; 0 when something else was done instead. VCPU */
uint32_t jit_block_at_pc(struct jit *j, unsigned variant);
/* jit_option.c */
extern struct jit_options { size_t cache; unsigned insns, threshold; bool check, stats; } jit_options;
extern const struct accel_option jit_option_rows[];
/* Tells perf(1) of a new block, if it wants to know. */
void jit_perf_block(const struct jit *j, uint32_t n, uint32_t from, size_t len);
/* jit_report.c */
/* CPU time of this thread. */
uint64_t jit_thread_ns(void);
void jit_print_stats(const struct jit *j);
/* Its place and the guest's instructions, to standard error. */
void jit_describe_block(const struct jit *j, uint32_t b);
/* From now on a crash in generated code says where. LOOP (main) */
void jit_catch_crashes(void);
/* jit_check.c */
/* Whether the instruction can be done, undone and done again, memory permitting. */
bool jit_checkable(const struct hart *h, const struct rv_insn *in);
/* Runs the block, or the instruction at h->pc alone; ends the program where block and interpreter differ. VCPU */
void jit_check_block(struct jit *j, uint32_t b);
size_t jit_check_size(void);
/* jit_emit.c: translates the block at @off of the page; its number. */
uint32_t jit_translate(struct jit *j, struct jit_page *p, const uint8_t *host, unsigned off, unsigned fp, unsigned variant);

/* jit_plan.c */
void jit_plan_shares(struct jit_tr *t);
void jit_plan_slots(struct jit_tr *t);
/* Of the loads and stores that may share. */
bool jit_is_store(const struct rv_insn *in);
/* jit_plan_fp.c */
/* Whether the format is single precision, of those that jit_fp_native() knows. */
bool jit_fp_single(const struct rv_insn *in);
/* Whether jit_emit_fp() does the instruction. */
bool jit_fp_native(const struct jit_tr *t, const struct rv_insn *in);
/* What is known after instruction @i, of what was known before. */
void jit_fp_learn(const struct jit_tr *t, unsigned i, struct jit_fp_known *k);
void jit_plan_fp(struct jit_tr *t);
/* jit_opt.c: puts cheaper instructions for those collected, and marks those that do nothing. */
void jit_optimize(struct jit_tr *t);

/* jit_region.c */
/* Where a branch or jump goes that does not go on with the next instruction here; where one that goes on comes to: page offsets. */
int64_t jit_side(const struct jit_tr *t, unsigned i);
int64_t jit_next(const struct jit_tr *t, unsigned i);
/* The index of the instruction at offset @off of the page; -1: not collected. */
int jit_find_insn(const struct jit_tr *t, int64_t off);
/* Finds the jumps within the block. */
void jit_plan_jumps(struct jit_tr *t);
/* The innermost loop around instruction @i: its first and last; false: none. */
bool jit_loop_around(const struct jit_tr *t, unsigned i, unsigned *first, unsigned *last);
/* Where instruction @e goes to, or the block's end (as @e = n); -1: not within the block. */
int jit_jump_of(const struct jit_tr *t, unsigned e);

/* jit_place.c */
/* Sets out from where guest registers are between blocks to t->now. */
void jit_plan_registers(struct jit_tr *t);
/* Before the present instruction is translated: brings in what it needs and makes room for what it makes. */
void jit_place_insn(struct jit_tr *t);
/* Code that moves guest registers; the flags and rax stay. */
void jit_move(struct jit_tr *t, const struct jit_place *from, const struct jit_place *to);
/* Makes whole what is narrow here, but the registers in @may and those that nobody wants at label @k, where it goes on. */
void jit_widen(struct jit_tr *t, unsigned k, uint32_t may);

/* Helpers of the emitters: jit_emit.c */
extern const int8_t jit_reg[32], jit_freg[32];          /* host register of a guest register between blocks; -1: in memory */
/* The host register that holds guest register @r, loaded into @tmp where it lives in memory. */
unsigned jit_src(struct jit_tr *t, unsigned r, unsigned tmp);
/* Puts guest register @r into @host. */
void jit_get(struct jit_tr *t, unsigned host, unsigned r);
/* Where to compute guest register @rd; to be followed by jit_put() with it. */
unsigned jit_dst(struct jit_tr *t, unsigned rd, unsigned tmp);
void jit_put(struct jit_tr *t, unsigned rd, unsigned host);
/* op dst, guest register: with a memory operand where that is where it lives. */
void jit_op(struct jit_tr *t, unsigned op, bool w, unsigned dst, unsigned r);
struct jit_cold *jit_cold(struct jit_tr *t, enum jit_cold_kind kind, uint8_t *from);
/* The jump whose displacement is at @from goes to the handler of the present instruction, then to the next. */
void jit_cold_slow(struct jit_tr *t, uint8_t *from);
/* The jump comes from a look at the TLB that failed (jit_tlb_entry() in rcx, the page in rdx): fills it, else as above, or to the variant. */
void jit_cold_fill(struct jit_tr *t, uint8_t *from, bool store);
/* The same, but leaves the block then: what was assumed in it does not hold. */
void jit_cold_leave(struct jit_tr *t, uint8_t *from);
/* The jump comes from the comparison before the present instruction, which puts flags back: the handlers of both. */
void jit_cold_unordered(struct jit_tr *t, uint8_t *from);
/* Ends the block after instruction i with a jump to @target, relative to the page base, from a conditional jump, out of line. */
void jit_exit_cold(struct jit_tr *t, uint8_t *from, int64_t target, unsigned done);
/* The same, to the variant without groups. */
void jit_exit_alone(struct jit_tr *t, uint8_t *from);
/* A conditional jump forward within the block, out of line; a jump back to instruction @k. */
void jit_jump_forward(struct jit_tr *t, uint8_t *from, unsigned k);
void jit_jump_back(struct jit_tr *t, unsigned k);
/* Counts down for going back to instruction @k after this one; @adjust: what is missing to an exact count meanwhile, at offset @off. */
void jit_spend_loop(struct jit_tr *t, unsigned k, unsigned off, int adjust);
/* Ends the block with a jump to the address in rax. */
void jit_exit_rax(struct jit_tr *t, unsigned done);

/* jit_emit_mem.c: host register @to = the TLB entry of the address in register @at, in the first of the context's tables (of @size entries). */
void jit_tlb_entry(struct emit *e, unsigned to, unsigned at, unsigned size);
/* Makes the host address of rs1 + imm; jit_mem() then emits `op reg, [that address]`. rcx is free after it. */
void jit_address(struct jit_tr *t, const struct rv_insn *in, unsigned size, bool store);
void jit_mem(struct jit_tr *t, unsigned op, bool w, unsigned reg);
/* rax = host address of rs1, aligned, for a store that need not be noticed; else the handler. */
void jit_atomic_address(struct jit_tr *t, const struct rv_insn *in, unsigned size);
/* Orders everything before with everything after. */
void jit_fence(struct jit_tr *t);
/* Fills a slot that did not know the page. */
void jit_slot_miss(struct jit_tr *t, const struct jit_cold *c);

/* jit_emit_fp.c: mstatus.FS becomes Dirty. */
void jit_fs_dirty(struct jit_tr *t);
/* Before the first instruction: where registers are not as assumed, to the variant that assumes nothing. */
void jit_fp_assume(struct jit_tr *t);
/* Puts the canonical NaN for the result of an operation. */
void jit_fp_nan(struct jit_tr *t, const struct jit_cold *c);

/* Native code for the present instruction; false: there is none, the handler must do it. */
bool jit_emit_int(struct jit_tr *t, const struct rv_insn *in);
bool jit_emit_mem(struct jit_tr *t, const struct rv_insn *in);
bool jit_emit_amo(struct jit_tr *t, const struct rv_insn *in);
bool jit_emit_fp(struct jit_tr *t, const struct rv_insn *in);
bool jit_emit_sys(struct jit_tr *t, const struct rv_insn *in);

#endif
