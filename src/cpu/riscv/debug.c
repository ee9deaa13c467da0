/* SPDX-License-Identifier: MIT */
/*
 * Break- and watchpoints, and what debug_ops asks of harts. A breakpoint changes no guest memory: the interpreter, which every
 * hart uses while one is set, puts a look at the list in place of instructions at the breakpoint's offset in any page. A page with
 * a watchpoint never gets the TLB's fast path.
 */
#include "cpu/riscv/debug.h"

#include <elf.h>
#include <stdlib.h>
#include "base/bits.h"
#include "cpu/riscv/accel.h"

struct bp { enum debug_bp kind; uint64_t va, len; };

static struct hart_set *set;
static struct bp *bps;
static size_t n_bps, room;
struct rv_debug rv_debug;

bool rv_debug_offset(unsigned off)
{
    for (size_t i = 0; i < n_bps; i++)
        if (bps[i].kind == DEBUG_BP_EXEC && (bps[i].va & ~RV_PAGE_MASK) == off)
            return true;
    return false;
}

bool rv_debug_at(uint64_t pc)
{
    for (size_t i = 0; i < n_bps; i++)
        if (bps[i].kind == DEBUG_BP_EXEC && bps[i].va == pc)
            return true;
    return false;
}

/* Whether [a, a + an) and [b, b + bn) meet; the address space wraps. */
static bool meet(uint64_t a, uint64_t an, uint64_t b, uint64_t bn) { return a - b < bn || b - a < an; }

bool rv_debug_watches_page(uint64_t va)
{
    for (size_t i = 0; i < n_bps; i++)
        if (bps[i].kind != DEBUG_BP_EXEC && meet(va & RV_PAGE_MASK, RV_PAGE_SIZE, bps[i].va, bps[i].len))
            return true;
    return false;
}

bool rv_debug_access(struct hart *h, uint64_t va, unsigned size, bool write)
{
    for (size_t i = 0; i < n_bps; i++) {
        if (bps[i].kind == DEBUG_BP_EXEC || bps[i].kind == (write ? DEBUG_BP_READ : DEBUG_BP_WRITE) || !meet(va, size, bps[i].va, bps[i].len))
            continue;
        rv_debug_stop(h, DEBUG_STOP_WATCH, MAX(va, bps[i].va));
        rv_trap_set(h, RV_CAUSE_STOP, 0);
        return true;
    }
    return false;
}

void rv_debug_stop(struct hart *h, enum debug_stop why, uint64_t addr)
{
    if (debug_stopped)
        debug_stopped(h->index, why, addr);
    hart_park(h);
}

static bool bp_insert(enum debug_bp kind, uint64_t va, uint64_t len)
{
    if (n_bps == room) {
        room = room ? room * 2 : 16;
        bps = xrealloc(bps, room * sizeof *bps);
    }
    bps[n_bps++] = (struct bp){ kind, va, kind == DEBUG_BP_EXEC ? 2 : MAX(len, 1) };
    *(kind == DEBUG_BP_EXEC ? &rv_debug.n_exec : &rv_debug.n_watch) += 1;
    for (unsigned i = 0; i < hart_set_count(set); i++) {
        if (kind == DEBUG_BP_EXEC)
            rv_interp_forget(hart_get(set, i));
        else
            rv_tlb_flush_all(hart_get(set, i));
    }
    return true;
}

static bool bp_remove(enum debug_bp kind, uint64_t va, uint64_t len)
{
    for (size_t i = 0; i < n_bps; i++) {
        if (bps[i].kind != kind || bps[i].va != va || (kind != DEBUG_BP_EXEC && bps[i].len != MAX(len, 1)))
            continue;
        bps[i] = bps[--n_bps];
        *(kind == DEBUG_BP_EXEC ? &rv_debug.n_exec : &rv_debug.n_watch) -= 1;
        for (unsigned k = 0; k < hart_set_count(set); k++) {
            if (kind == DEBUG_BP_EXEC)
                rv_interp_forget(hart_get(set, k));
            else
                rv_tlb_flush_all(hart_get(set, k));
        }
        return true;
    }
    return false;
}

static unsigned n_cpus(void) { return hart_set_count(set); }

static struct hart *cpu(unsigned n) { return n < hart_set_count(set) ? hart_get(set, n) : NULL; }

static unsigned reg_read(unsigned n, unsigned reg, uint8_t *buf)
{
    struct hart *h = cpu(n);
    uint64_t v;
    if (!h || !hart_reg_read(h, reg, &v))
        return 0;
    st_le64(buf, v);
    return 8;
}

static unsigned reg_write(unsigned n, unsigned reg, const uint8_t *buf, size_t len)
{
    struct hart *h = cpu(n);
    return h && len >= 8 && hart_reg_write(h, reg, ld_le64(buf)) ? 8 : 0;
}

static uint64_t pc(unsigned n) { return cpu(n) ? cpu(n)->pc : 0; }

static void set_pc(unsigned n, uint64_t v)
{
    if (cpu(n))
        cpu(n)->pc = v & ~UINT64_C(1);
}

static bool translate(unsigned n, uint64_t va, uint64_t *pa) { return cpu(n) && hart_translate(cpu(n), va, pa); }

static void plan(unsigned n, enum debug_plan what)
{
    if (cpu(n))
        cpu(n)->plan = what == DEBUG_STEP ? RV_PLAN_STEP : what == DEBUG_STAND ? RV_PLAN_STAND : RV_PLAN_RUN;
}

static void code_changed(void)
{
    for (unsigned i = 0; i < hart_set_count(set); i++) {
        rv_interp_forget(hart_get(set, i));
        hart_get(set, i)->accel->flush_all(hart_get(set, i));
    }
}

static void freeze(bool on) { (on ? hart_set_pause : hart_set_resume)(set); }

static int thread_id(unsigned n) { return cpu(n) ? atomic_load(&cpu(n)->tid) : 0; }

static void show_regs(unsigned n, struct str *out)
{
    if (cpu(n))
        hart_dump(cpu(n), out);
}

static void show_tlb(unsigned n, struct str *out)
{
    if (cpu(n))
        rv_mmu_dump(cpu(n), out);
}

static void show_counters(unsigned n, struct str *out)
{
    if (cpu(n))
        hart_stats(cpu(n), out);
}

static unsigned disas(uint64_t at, const uint8_t *code, size_t n, struct str *out)
{
    struct rv_insn in;
    char text[96];
    if (n < 2 || (rv_insn_len(ld_le16(code)) == 4 && n < 4))
        return 0;
    rv_decode(rv_insn_len(ld_le16(code)) == 4 ? ld_le32(code) : ld_le16(code), hart_get(set, 0)->cpu->ext, &in);
    rv_disas(&in, at, text, sizeof text);
    str_add(out, text);
    return in.len;
}

static const char *xml(const char *annex) { return rv_debug_xml(hart_get(set, 0), annex); }
static int reg_named(unsigned cpu, const char *name) { return rv_debug_reg_named(hart_get(set, cpu), name); }

/* struct user_regs_struct: pc, then x1 to x31. */
static const uint8_t user_regs[] = { 32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 };

static const struct debug_ops ops = {
    .n_cpus = n_cpus, .xml = xml, .reg_named = reg_named, .n_core_regs = 33, .elf_machine = EM_RISCV, .user_regs = user_regs,
    .n_user_regs = ARRAY_SIZE(user_regs), .reg_read = reg_read, .reg_write = reg_write, .pc = pc, .set_pc = set_pc,
    .translate = translate, .bp_insert = bp_insert, .bp_remove = bp_remove, .plan = plan, .code_changed = code_changed, .freeze = freeze,
    .thread_id = thread_id, .show_regs = show_regs, .show_tlb = show_tlb, .show_counters = show_counters, .disas = disas,
};

void rv_debug_attach(struct hart_set *s)
{
    set = s;
    debug_ops = s ? &ops : NULL;
    free(bps);
    bps = NULL;
    n_bps = room = 0;
    rv_debug = (struct rv_debug){ 0 };
}
