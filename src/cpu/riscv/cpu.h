/* SPDX-License-Identifier: MIT */
/*
 * A RISC-V hart's state, as the interpreter, the JIT and the CSR, MMU and trap code share it. What boards and monitors may use
 * is in hart.h. Everything here is touched only on the hart's own thread (tag VCPU), except the members marked ANY (atomic) and
 * while the hart stands still.
 */
#ifndef CPU_RISCV_CPU_H
#define CPU_RISCV_CPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/bits.h"
#include "core/debug.h"
#include "cpu/riscv/decode.h"
#include "cpu/riscv/hart.h"

#define RV_PAGE_BITS 12
#define RV_PAGE_SIZE (UINT64_C(1) << RV_PAGE_BITS)
#define RV_PAGE_MASK (~(RV_PAGE_SIZE - 1))

enum { RV_U = 0, RV_S = 1, RV_M = 3 };

/* Privileged ISA, table "Supervisor cause register values". */
enum rv_cause {
    RV_EXC_FETCH_MISALIGNED = 0, RV_EXC_FETCH_ACCESS = 1, RV_EXC_ILLEGAL = 2, RV_EXC_BREAKPOINT = 3,
    RV_EXC_LOAD_MISALIGNED = 4, RV_EXC_LOAD_ACCESS = 5, RV_EXC_STORE_MISALIGNED = 6, RV_EXC_STORE_ACCESS = 7,
    RV_EXC_ECALL_U = 8, RV_EXC_ECALL_S = 9, RV_EXC_ECALL_M = 11,
    RV_EXC_FETCH_PAGE = 12, RV_EXC_LOAD_PAGE = 13, RV_EXC_STORE_PAGE = 15,
};
#define RV_CAUSE_IRQ (UINT64_C(1) << 63)
#define RV_CAUSE_STOP (UINT64_C(1) << 62)       /* no trap: a watchpoint, the instruction is given up without effect */

/* mstatus fields (RV64). */
#define MSTATUS_SIE  BIT64(1)
#define MSTATUS_MIE  BIT64(3)
#define MSTATUS_SPIE BIT64(5)
#define MSTATUS_UBE  BIT64(6)
#define MSTATUS_MPIE BIT64(7)
#define MSTATUS_SPP  BIT64(8)
#define MSTATUS_MPP_SHIFT 11
#define MSTATUS_MPP  (UINT64_C(3) << 11)
#define MSTATUS_FS   (UINT64_C(3) << 13)
#define MSTATUS_MPRV BIT64(17)
#define MSTATUS_SUM  BIT64(18)
#define MSTATUS_MXR  BIT64(19)
#define MSTATUS_TVM  BIT64(20)
#define MSTATUS_TW   BIT64(21)
#define MSTATUS_TSR  BIT64(22)
#define MSTATUS_UXL  (UINT64_C(2) << 32)
#define MSTATUS_SXL  (UINT64_C(2) << 34)
#define MSTATUS_SD   BIT64(63)

/* sstatus: the fields of mstatus that a supervisor writes, and those it reads. */
#define RV_SSTATUS_WRITE (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR)
#define RV_SSTATUS_READ  (RV_SSTATUS_WRITE | MSTATUS_UXL)

/* menvcfg, senvcfg fields. */
#define ENVCFG_FIOM  BIT64(0)
#define ENVCFG_CBIE_SHIFT 4
#define ENVCFG_CBIE  (UINT64_C(3) << 4)
#define ENVCFG_CBCFE BIT64(6)
#define ENVCFG_CBZE  BIT64(7)
#define ENVCFG_ADUE  BIT64(61)
#define ENVCFG_PBMTE BIT64(62)
#define ENVCFG_STCE  BIT64(63)

#define RV_PMP_COUNT 16
#define RV_HPM_COUNT 32             /* counters 0..31; 1 (time) is not one of them */

/*
 * The soft TLB. One struct rv_tlb is one context: an address space (a value of satp) seen with one set of access rights. A mode
 * change or a satp write only chooses other contexts (hart->dtlb, hart->xtlb), it flushes nothing.
 *
 * A tag is the virtual page address, with flag bits among its low 12 where the fast path must not be taken. The one fast check,
 * for an aligned access of `size` bytes, is   (va & (RV_PAGE_MASK | (size - 1))) == tag
 * and the host address is then                va + addend.
 */
struct rv_tlb_entry {
    uint64_t rd, wr;                /* tags for loads and for stores */
    uintptr_t addend;               /* host address minus virtual address; meaningless with RV_TLB_IO */
    uint64_t pa;                    /* physical page address | log2 of the leaf's size (RV_TLB_PA) */
};
#define RV_TLB_PA(e) ((e)->pa & RV_PAGE_MASK)
/* Flags in a tag's low bits: any of them fails the fast check. */
#define RV_TLB_INVALID BIT64(11)
#define RV_TLB_IO      BIT64(10)    /* not RAM: go through the view */
#define RV_TLB_CODE    BIT64(9)     /* stores only: the page is write-tracked (holds translated code, or is not yet dirty) */
#define RV_TLB_WATCH   BIT64(8)     /* a debugger watches part of the page */
#define RV_TLB_NONE    UINT64_MAX   /* an empty tag */

struct rv_xtlb_entry {
    uint64_t va;                    /* virtual page address, RV_TLB_NONE when empty */
    uint64_t pa;                    /* physical page address */
    const uint8_t *host;            /* the page's bytes */
    unsigned shift;                 /* log2 of the leaf's size */
};

#define RV_REGION_BITS 21
#define RV_REGIONS 512u
#define RV_SLOTS 16u
#define RV_SLOT_CLASSES 4u
#define RV_TLB_BITS 12
#define RV_TLB_SIZE (1u << RV_TLB_BITS)
#define RV_TLB_MORE_BITS 15
#define RV_TLB_MORE (1u << RV_TLB_MORE_BITS)
#define RV_TLB_GROUP 32u            /* entries that are emptied together */
#define RV_XTLB_BITS 7
#define RV_XTLB_SIZE (1u << RV_XTLB_BITS)
#define RV_XSEEN_BITS 4096u

struct rv_tlb {
    /*
     * What the fast check looks into (index: va >> 12, low RV_TLB_BITS bits), and behind it a larger table of the same kind: each walk
     * fills both, and what another page has displaced from the first comes back from the second. There, an entry that was never
     * filled is zero, which is the tag of page 0 alone, whose entry is emptied at the start.
     */
    struct rv_tlb_entry e[RV_TLB_SIZE + RV_TLB_MORE];
    struct rv_xtlb_entry x[RV_XTLB_SIZE];
    /*
     * Identity of the set of exec translations: two look-ups with the same id and va give the same pa. Never 0, unique in the
     * hart; renewed whenever a translation of the context may have been dropped or changed. Key for caches by virtual address.
     */
    uint32_t id;
    bool used;                                  /* has entries since the last flush */
    uint64_t groups[(RV_TLB_SIZE + RV_TLB_MORE) / RV_TLB_GROUP / 64];       /* those of e that have had entries since, a bit each */
    /*
     * Where superpages are, and those fetched from: hashed regions for leaves up to a region's size, an aligned range that holds
     * all that are larger. No false "no".
     */
    struct rv_tlb_range { uint64_t seen[RV_REGIONS / 64]; bool any; uint64_t base, mask; } large, xlarge;
    uint64_t xseen[RV_XSEEN_BITS / 64];         /* pages that fetches were translated for since the last flush of all, hashed: no false "no" */
    uint8_t xhalves;                            /* halves of the address space with such pages (bit: va >> 63) */
    uint64_t wseen[RV_XSEEN_BITS / 64];         /* physical pages that got the fast store path since the last flush, hashed */
};

/* What a context is: index into rv_as.tlb. */
enum rv_tlb_kind { RV_TLBK_U, RV_TLBK_S, RV_TLBK_SUM, RV_TLBK_MXR, RV_TLBK_COUNT };
#define RV_AS_SLOTS 6
/* An address space: one value of satp; slots are recycled, least recently used first. */
struct rv_as {
    uint64_t satp;
    uint64_t stamp;                             /* of last use; 0: free */
    bool mxr_user;                              /* what RV_TLBK_MXR was filled for: priv U? SUM? */
    bool mxr_sum;
    struct rv_tlb *tlb[RV_TLBK_COUNT];          /* allocated on first use */
};

/* The trap that a failing helper (returning false) has recorded; rv_trap_take() delivers it. */
struct rv_trap { uint64_t cause, tval; };

struct rv_stats {                   /* plain counters of this hart, read racily by the monitor */
    uint64_t insns, slices, traps, irqs, tlb_fills, io_reads, io_writes, slow_steps, blocks_built, wfi, requests;
};

struct rv_request {
    void (*fn)(struct hart *, uint64_t a, uint64_t b);
    uint64_t a, b;
    atomic_uint *left;              /* one less when it was carried out; NULL: nobody waits. Requests nest, so later ones may end first */
};
#define RV_REQ_MAX 64

struct hart {
    /* --- hot: within a disp8 or short disp32 of generated code --- */
    uint64_t x[33];                 /* x[0] stays 0; x[32] is where the interpreter sends writes to x0 */
    uint64_t pc;
    /*
     * Instructions left in this slice. Whoever runs guest code subtracts the length of each block and calls hart_poll() when it
     * is negative. Other threads store -1 to hasten that (hart_kick); a store lost to the race costs at most RV_SLICE instructions.
     */
    int32_t budget;
    atomic_uint attention;          /* ANY: requests, exit or interrupts to look at; cleared by hart_poll() */
    struct rv_tlb *dtlb, *xtlb;     /* present contexts of loads and stores, and of fetches */
    struct {                        /* the translator's (jit_int.h) */
        uint64_t vbase;             /* virtual address of the page that runs */
        uint32_t ctx;
        uint64_t share[4];
        const void *rcu_seen;
        /*
         * Pages that places in generated code went to last: [tag, tag + limit) is what an access of that class (a bound of its size)
         * may begin in, at address + addend. In force only as long as every translation is: see rv_tlb_changed().
         */
        struct rv_slot { uint64_t tag, limit[RV_SLOT_CLASSES]; uintptr_t addend; } slot[RV_SLOTS];
        uint32_t changes;           /* of translations */
        bool once;                  /* the block is to be left at its first jump out or back */
        uint32_t mxcsr;             /* room to move it through */
    } jit;
    uint64_t f[32];                 /* raw; single and half are NaN-boxed */
    uint8_t fflags;                 /* accrued; the host's sticky flags are added by rv_fpu_sync() */
    uint8_t frm;                    /* 0..7; 5, 6, 7 are invalid and trap on use */
    uint8_t priv;
    bool smp;                       /* more than one hart: LR/SC and AMO must be host atomics */
    uint64_t mstatus;               /* without SD */
    uint64_t ext;                   /* extensions in force: the cpu's, minus what misa turned off */

    /* --- reservation of LR (amo.c) --- */
    uint64_t res_pa;                /* RV_TLB_NONE: none */
    uint64_t res_val;
    uint64_t res_pc;                /* where the SC is that the value alone decides; RV_TLB_NONE: the reservation is tracked */
    uint8_t res_size;
    struct ram *res_ram;            /* set where tracked, and the offset; the hart writes them with ram_watch_lock() held */
    uint64_t res_off;
    atomic_bool res_broken;         /* ANY: somebody stored to the page of a tracked reservation */

    struct rv_trap trap;

    /* --- CSRs --- */
    uint64_t misa, mideleg, medeleg, mie, mtvec, mscratch, mepc, mcause, mtval, menvcfg;
    uint64_t stvec, sscratch, sepc, scause, stval, satp, senvcfg;
    uint64_t mcounteren, scounteren, mcountinhibit;
    uint64_t miselect, siselect;
    uint64_t hpm_count[RV_HPM_COUNT];           /* value minus the source when running, the value when inhibited */
    uint64_t hpm_event[RV_HPM_COUNT];
    uint64_t mode_insns[4], mode_since;         /* instructions retired by privilege; rv_retired() at the last change of it */
    uint32_t hpm_armed;             /* counters whose overflow must be looked for at slice ends (Sscofpmf) */
    uint64_t retired;               /* instructions retired up to the start of this slice */
    int32_t slice;                  /* what budget began with in this slice */
    uint8_t pmpcfg[RV_PMP_COUNT];
    uint64_t pmpaddr[RV_PMP_COUNT];
    uint64_t pmp_lo[RV_PMP_COUNT], pmp_hi[RV_PMP_COUNT];        /* derived: inclusive bounds, lo > hi: off */
    unsigned pmp_used;              /* derived: entries up to the last active one */
    struct rv_pmp_same { uint64_t lo, hi; uint8_t rights; } pmp_same;     /* derived: where S and U modes have the same rights all over; lo > hi: unknown */

    /* --- interrupts --- */
    _Atomic uint64_t irq_line;      /* ANY: level of each hardware line (bit = mip bit) */
    _Atomic uint64_t irq_soft;      /* ANY: software-writable bits of mip: SSIP, STIP, SEIP, LCOFIP */
    pthread_mutex_t timer_lock;     /* guards the two below against hart_timer_fire() */
    _Atomic uint64_t stimecmp;      /* read by hart_timer_fire() */

    /* --- address spaces --- */
    struct rv_xtlb_entry xtlb_once; /* a fetch translation that must not be kept */
    bool probe;                     /* walks change nothing and ignore rights (debugger) */
    struct rv_as as[RV_AS_SLOTS];
    struct rv_as *as_now;
    struct rv_tlb *tlb_bare[2];     /* without translation: M mode, and S or U mode with satp bare */
    /* S mode's fetches, as long as every page it ran was global: one context for all address spaces. exec_local: no longer so. */
    struct rv_tlb *tlb_global;
    bool exec_local;
    uint8_t global_mode;            /* satp.MODE that tlb_global is for */
    uint64_t as_stamp;
    uint32_t tlb_next_id;

    /* --- thread --- */
    const struct rv_cpu *cpu;
    const struct hart_env *env;
    const struct accel_ops *accel;
    void *accel_data;
    struct hart_set *set;
    unsigned index;                 /* within the set; mhartid is set->base + index */
    uint64_t mhartid;
    struct address_space *mem;      /* physical memory */
    pthread_t thread;
    bool thread_up;
    pthread_mutex_t lock;           /* guards the queue, the run state and cond */
    pthread_cond_t cond;
    struct rv_request req[RV_REQ_MAX];
    unsigned req_head, req_count;
    enum { HART_OFF, HART_ON } power;           /* under lock */
    bool want_pause, paused, want_quit;         /* under lock */
    bool asleep;                    /* under lock: its thread waits to go on. One that is paused may serve requests */
    atomic_bool leave;              /* ANY: the accelerator must return from run() */
    atomic_bool in_wfi;             /* ANY */
    atomic_bool view_stale;         /* ANY: physical memory changed, every translation must go before guest code runs on */
    struct rv_stats stats;

    /* --- debugger (debug.c): written while the hart stands --- */
    enum rv_plan { RV_PLAN_RUN, RV_PLAN_STEP, RV_PLAN_STAND } plan;
    uint64_t code_seen;             /* entries of the log of written code pages looked at (code.c) */
    bool code_shared;               /* has run code from RAM that other programs may write, which nobody notices */
    void *pages;                    /* the interpreter's (interp.c), made on first use: a debugger uses it whatever accel is */
    _Atomic int tid;                /* ANY: thread number of the host */
};

/* Instructions between two looks at interrupts and requests, at most. */
#define RV_SLICE 1000

static inline bool rv_has(const struct hart *h, enum rv_ext e) { return h->ext >> e & 1; }

/* mstatus after a reset: fields that never change are set. */
static inline uint64_t rv_mstatus_reset(const struct hart *h)
{
    return (rv_has(h, RV_EXT_U) ? MSTATUS_UXL : MSTATUS_MPP) | (rv_has(h, RV_EXT_S) ? MSTATUS_SXL : 0);
}

/* --- trap.c --- */
/* Records a trap for rv_trap_take(); always false, so that a failing helper can `return rv_trap_set(...)`. VCPU */
static inline bool rv_trap_set(struct hart *h, uint64_t cause, uint64_t tval)
{
    h->trap.cause = cause;
    h->trap.tval = tval;
    return false;
}
/* Enters the trap in h->trap as taken by the instruction at @pc: writes xepc, xcause, xtval, xstatus, sets h->pc, h->priv and contexts. */
void rv_trap_take(struct hart *h, uint64_t pc);
/* Number of the interrupt that would be taken now, 0 if none. */
unsigned rv_irq_pending(struct hart *h);
/* Takes the highest-priority enabled interrupt before the instruction at h->pc, if there is one. */
bool rv_irq_take(struct hart *h);
/* Changes the privilege mode (accounts for counters; the caller updates contexts). */
void rv_set_priv(struct hart *h, unsigned priv);
/* mip as software sees it (lines, software bits, Sstc). ANY for the lines, else VCPU. */
uint64_t rv_mip(struct hart *h);
/* sret, mret: false with h->trap set where illegal; sets h->pc. */
bool rv_sret(struct hart *h);
bool rv_mret(struct hart *h);
/* After a change of priv, mstatus (MPRV, MPP, SUM, MXR) or satp: chooses dtlb and xtlb. */
void rv_ctx_update(struct hart *h);

/* --- csr.c --- */
/*
 * One CSR instruction: reads the old value into @old (if @rd_read), writes @val with @op: 0 write, 1 set bits, 2 clear bits
 * (@wr false: no write). False with h->trap set (illegal instruction, tval = @raw). instret must be right on entry (rv_retired()).
 */
bool rv_csr_access(struct hart *h, unsigned num, bool rd, bool wr, unsigned op, uint64_t val, uint64_t *old, uint32_t raw);
/* As a debugger: no privilege checks, side effects of writes included. False: no such CSR. */
bool rv_csr_peek(struct hart *h, unsigned num, uint64_t *val);
bool rv_csr_poke(struct hart *h, unsigned num, uint64_t val);
/*
 * Whether a write of the CSR changes nothing but its own value: a block need not end after it. False for those that may change
 * contexts, interrupts, translations, the host's FPU. Reads never do.
 */
bool rv_csr_plain(unsigned num);
/* The CSR's name, good until this thread's next call; NULL if there is none. */
const char *rv_csr_name(unsigned num);
/* Instructions retired before the present one; exact when h->budget is. */
static inline uint64_t rv_retired(const struct hart *h) { return h->retired + (uint64_t)(int64_t)(h->slice - h->budget); }

/* --- hpm.c: counters 0 (cycle), 2 (instret), 3..31 --- */
uint64_t rv_hpm_read(const struct hart *h, unsigned n);
void rv_hpm_write(struct hart *h, unsigned n, uint64_t v);
/* By the present instruction: takes the place of its own increment (Privileged ISA, "Hardware Performance Monitor"). */
void rv_hpm_write_insn(struct hart *h, unsigned n, uint64_t v);
void rv_hpm_event_write(struct hart *h, unsigned n, uint64_t v);
uint64_t rv_hpm_overflows(const struct hart *h);        /* scountovf */
/* Raises the overflow interrupt of counters in hpm_armed that wrapped. */
void rv_hpm_poll(struct hart *h);

/* --- mmu.c --- */
enum rv_access { RV_ACC_READ, RV_ACC_WRITE, RV_ACC_EXEC };
/* Result of a walk: where @va lies, and what a TLB entry for it may hold. */
struct rv_xlate {
    uint64_t pa;
    uint64_t page_size;             /* of the leaf */
    bool r, w, x;                   /* rights of the whole 4 KiB page, A and D and PMP considered: may be cached */
    bool io;                        /* Svpbmt NC/IO: informational */
    bool global;                    /* the same in every address space */
};
/*
 * Translates for @priv with the present satp, SUM, MXR; updates A and D as configured; @len bytes, within one page, must pass
 * PMP. False with h->trap set. VCPU
 */
bool rv_walk(struct hart *h, uint64_t va, unsigned len, enum rv_access acc, unsigned priv, struct rv_xlate *out);
/*
 * Loads and stores of 1, 2, 4 or 8 bytes with any alignment, for RAM and devices, in the present data context; fill the TLB.
 * False with h->trap set. A misaligned access is done bytewise-atomic at best. VCPU
 */
bool rv_load(struct hart *h, uint64_t va, unsigned size, uint64_t *val);
bool rv_store(struct hart *h, uint64_t va, unsigned size, uint64_t val);
/*
 * Fetch translation of the page of @va in the present context; NULL with h->trap set (tval = @va). When it is &h->xtlb_once
 * (PMP rights differ within the page) it holds for the two bytes at @va only and nothing derived from it may be kept. VCPU
 */
const struct rv_xtlb_entry *rv_xlate_exec(struct hart *h, uint64_t va);
static inline const struct rv_xtlb_entry *rv_xlate_exec_fast(struct hart *h, uint64_t va)
{
    struct rv_xtlb_entry *e = &h->xtlb->x[(va >> RV_PAGE_BITS) & (RV_XTLB_SIZE - 1)];
    return likely(e->va == (va & RV_PAGE_MASK)) ? e : rv_xlate_exec(h, va);
}
/* sfence.vma and friends on this hart. @asid or @va < 0 semantics: has_va, has_asid. VCPU */
void rv_tlb_flush(struct hart *h, bool has_va, uint64_t va, bool has_asid, uint64_t asid);
void rv_tlb_flush_all(struct hart *h);
/* Withdraws the fast store path of the physical page @pa from every context of this hart (the page became write-tracked). VCPU */
void rv_tlb_protect_page(struct hart *h, uint64_t pa);

/* --- amo.c --- */
/*
 * LR, SC, AMO*, AMOCAS; h->pc is that of the next instruction. False with h->trap set. Who executes these inline must leave LR
 * and SC to it, and stores to pages whose tag has flags.
 */
bool rv_amo(struct hart *h, const struct rv_insn *in);

/* --- pmp.c --- */
/* Rights of [pa, pa+len) for @priv: bits 0 r, 1 w, 2 x; *whole tells whether they hold for the whole 4 KiB page. */
#define RV_PMP_R 1u
#define RV_PMP_W 2u
#define RV_PMP_X 4u
#define RV_PMP_L 0x80u
unsigned rv_pmp_check(struct hart *h, uint64_t pa, uint64_t len, unsigned priv, bool *whole);
/* Recomputes what is derived from pmpcfg and pmpaddr; the caller flushes the TLB. */
void rv_pmp_changed(struct hart *h);

/* --- code.c: which physical pages hold translated code, across harts and devices --- */
/*
 * Before the first block of page @pa is translated, and before its bytes are read: stores to the page by any hart or device are
 * noticed from now on. The first store is put into a log and ends the watch; rv_code_catch_up() gives each hart the log's new
 * entries (accel->flush_page), after which the page is to be added again. True: it was watched already, nothing was done; false:
 * translations may be others now, and requests have been served, fence.i among them. VCPU
 */
bool rv_code_page_add(struct hart *h, uint64_t pa);
/*
 * Copies @n bytes of code (a multiple of 8, aligned) out of guest RAM, which harts and devices may write meanwhile: each 8 bytes are
 * as they were at some moment. True if @copy changed. VCPU
 */
bool rv_code_copy(uint8_t *copy, const uint8_t *ram, size_t n);
/* Forgets (accel->flush_page) the pages that the log has got since this hart last looked. May serve requests. VCPU */
void rv_code_catch_up(struct hart *h);
extern _Atomic uint64_t rv_code_head;
static inline void rv_code_look(struct hart *h)
{
    if (unlikely(atomic_load_explicit(&rv_code_head, memory_order_acquire) != h->code_seen))
        rv_code_catch_up(h);
}
/* Makes every hart of the set withdraw its fast store entries for a page that is watched by now: done when it returns. VCPU */
void rv_protect_everywhere(struct hart *h, uint64_t pa);
/* The set whose RAM is watched from now on. LOOP (main) */
void rv_code_attach(struct hart_set *s);
/* --- debug.c --- */
/* What a debugger has set; changed only while every hart stands. */
extern struct rv_debug { unsigned n_exec, n_watch; } rv_debug;
static inline bool rv_debug_on(void) { return unlikely(rv_debug.n_exec || rv_debug.n_watch); }
/* Whether an execution breakpoint lies at this offset of some page; whether one is at @pc. VCPU */
bool rv_debug_offset(unsigned off);
bool rv_debug_at(uint64_t pc);
/*
 * Whether a watchpoint lies in the page of @va; and whether an access meets one: then the hart parks before the instruction
 * (as gdb expects of this architecture), and h->trap.cause is RV_CAUSE_STOP. VCPU
 */
bool rv_debug_watches_page(uint64_t va);
bool rv_debug_access(struct hart *h, uint64_t va, unsigned size, bool write);
/* Parks the hart before its next instruction and tells the debugger. VCPU */
void rv_debug_stop(struct hart *h, enum debug_stop why, uint64_t addr);
/* The set that debug_ops speaks of; NULL: none. LOOP (main) */
void rv_debug_attach(struct hart_set *s);
/* hart.c: makes the hart want a pause by itself; the accelerator ends the slice. VCPU */
void hart_park(struct hart *h);
/* interp.c: drops what the interpreter has decoded; frees it. Hart standing. */
void rv_interp_forget(struct hart *h);
void rv_interp_free(struct hart *h);

/* WFI: sleeps until an interrupt that mie enables is pending, or the hart is wanted for something else. VCPU */
void hart_wait(struct hart *h);
/* PAUSE, WRS: has nothing to do but wait for another hart, which may get its turn. VCPU */
void hart_yield(struct hart *h);
/* The set's harts share one thread (turns.h): time is counted, accelerators keep h->budget exact where devices are reached. */
bool hart_by_turns(const struct hart *h);
#define RV_INSN_PAUSE 0x0100000fu
/* fence.i on this hart. VCPU */
void rv_fence_i(struct hart *h);

#endif
