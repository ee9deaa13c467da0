/* SPDX-License-Identifier: MIT */
/* A hart's saved state. Translations, decoded code and reservations are made anew. */
#include <inttypes.h>

#include "core/state.h"
#include "cpu/riscv/accel.h"
#include "cpu/riscv/cpu.h"

#define HOST "of this process: threads, locks, pointers"
#define DERIVED "follows from other fields"
#define CACHE "a cache: filled again"

static const struct state_field trap_fields[] = { STATE_UINT(struct rv_trap, cause), STATE_UINT(struct rv_trap, tval), STATE_END };
static const struct state_desc trap_desc = { .name = "trap", .version = 1, .fields = trap_fields };

static const struct state_field fields[] = {
    STATE_ARRAY(struct hart, x),
    STATE_UINT(struct hart, pc),
    STATE_SKIP(struct hart, budget, "folded into retired"),
    STATE_SKIP(struct hart, attention, HOST),
    STATE_SKIP(struct hart, dtlb, CACHE),
    STATE_SKIP(struct hart, xtlb, CACHE),
    STATE_SKIP(struct hart, jit, CACHE),
    STATE_ARRAY(struct hart, f),
    STATE_UINT(struct hart, fflags, .max = 31),
    STATE_UINT(struct hart, frm, .max = 7),
    STATE_UINT(struct hart, priv, .max = RV_M),
    STATE_SKIP(struct hart, smp, "of the machine"),
    STATE_UINT(struct hart, mstatus),
    STATE_UINT(struct hart, ext),
    STATE_SKIP(struct hart, res_pa, "a reservation may be lost at any time"),
    STATE_SKIP(struct hart, res_val, "see res_pa"),
    STATE_SKIP(struct hart, res_pc, "see res_pa"),
    STATE_SKIP(struct hart, res_size, "see res_pa"),
    STATE_SKIP(struct hart, res_ram, "see res_pa"),
    STATE_SKIP(struct hart, res_off, "see res_pa"),
    STATE_SKIP(struct hart, res_broken, "see res_pa"),
    STATE_STRUCT(struct hart, trap, &trap_desc),
    STATE_SKIP(struct hart, misa, DERIVED),
    STATE_UINT(struct hart, mideleg), STATE_UINT(struct hart, medeleg), STATE_UINT(struct hart, mie), STATE_UINT(struct hart, mtvec),
    STATE_UINT(struct hart, mscratch), STATE_UINT(struct hart, mepc), STATE_UINT(struct hart, mcause), STATE_UINT(struct hart, mtval),
    STATE_UINT(struct hart, menvcfg), STATE_UINT(struct hart, stvec), STATE_UINT(struct hart, sscratch), STATE_UINT(struct hart, sepc),
    STATE_UINT(struct hart, scause), STATE_UINT(struct hart, stval), STATE_UINT(struct hart, satp), STATE_UINT(struct hart, senvcfg),
    STATE_UINT(struct hart, mcounteren), STATE_UINT(struct hart, scounteren), STATE_UINT(struct hart, mcountinhibit),
    STATE_UINT(struct hart, miselect), STATE_UINT(struct hart, siselect),
    STATE_ARRAY(struct hart, hpm_count), STATE_ARRAY(struct hart, hpm_event), STATE_ARRAY(struct hart, mode_insns),
    STATE_UINT(struct hart, mode_since),
    STATE_SKIP(struct hart, hpm_armed, DERIVED),
    STATE_UINT(struct hart, retired),
    STATE_SKIP(struct hart, slice, "folded into retired"),
    STATE_ARRAY(struct hart, pmpcfg), STATE_ARRAY(struct hart, pmpaddr),
    STATE_SKIP(struct hart, pmp_lo, DERIVED), STATE_SKIP(struct hart, pmp_hi, DERIVED), STATE_SKIP(struct hart, pmp_used, DERIVED), STATE_SKIP(struct hart, pmp_same, DERIVED),
    STATE_UINT(struct hart, irq_line), STATE_UINT(struct hart, irq_soft), STATE_UINT(struct hart, stimecmp),
    STATE_SKIP(struct hart, timer_lock, HOST),
    STATE_SKIP(struct hart, xtlb_once, CACHE), STATE_SKIP(struct hart, probe, "false while nobody looks"), STATE_SKIP(struct hart, as, CACHE),
    STATE_SKIP(struct hart, as_now, CACHE), STATE_SKIP(struct hart, tlb_bare, CACHE), STATE_SKIP(struct hart, tlb_global, CACHE), STATE_SKIP(struct hart, exec_local, CACHE),
    STATE_SKIP(struct hart, global_mode, CACHE), STATE_SKIP(struct hart, as_stamp, CACHE),
    STATE_SKIP(struct hart, tlb_next_id, CACHE),
    STATE_SKIP(struct hart, cpu, "of the machine"), STATE_SKIP(struct hart, env, HOST), STATE_SKIP(struct hart, accel, HOST),
    STATE_SKIP(struct hart, accel_data, CACHE), STATE_SKIP(struct hart, set, HOST), STATE_SKIP(struct hart, index, "of the machine"),
    STATE_SKIP(struct hart, mhartid, "of the machine"), STATE_SKIP(struct hart, mem, HOST), STATE_SKIP(struct hart, thread, HOST),
    STATE_SKIP(struct hart, thread_up, HOST), STATE_SKIP(struct hart, lock, HOST), STATE_SKIP(struct hart, cond, HOST),
    STATE_SKIP(struct hart, req, "empty while harts stand"), STATE_SKIP(struct hart, req_head, "see req"),
    STATE_SKIP(struct hart, req_count, "see req"),
    STATE_UINT(struct hart, power, .max = HART_ON),
    STATE_SKIP(struct hart, want_pause, HOST), STATE_SKIP(struct hart, paused, HOST), STATE_SKIP(struct hart, asleep, HOST), STATE_SKIP(struct hart, want_quit, HOST),
    STATE_SKIP(struct hart, leave, HOST), STATE_SKIP(struct hart, in_wfi, HOST), STATE_SKIP(struct hart, view_stale, HOST),
    STATE_SKIP(struct hart, stats, "counts what this process did"), STATE_SKIP(struct hart, plan, "of a debugger"),
    STATE_SKIP(struct hart, code_seen, CACHE), STATE_SKIP(struct hart, code_shared, CACHE), STATE_SKIP(struct hart, pages, CACHE), STATE_SKIP(struct hart, tid, HOST),
    STATE_END,
};

static void pre_save(void *obj)
{
    struct hart *h = obj;
    h->retired = rv_retired(h);
    h->slice = h->budget = 0;
}

/* Through the CSR's own write: what it would not keep is not loaded either. */
static bool legal(struct hart *h, unsigned num, uint64_t *field, struct err *e)
{
    uint64_t v = *field;
    *field = 0;
    if (v)
        rv_csr_poke(h, num, v);
    return *field == v || err_set(e, ERR_VALUE, "CPU %u: %s holds 0x%" PRIx64 ", which this CPU does not have", h->index, rv_csr_name(num), v);
}

static bool post_load(void *obj, struct err *e)
{
    struct hart *h = obj;
    uint64_t cmp = atomic_load(&h->stimecmp);
    if (h->priv == 2 || h->ext != h->cpu->ext)
        return err_set(e, ERR_VALUE, "CPU %u: the state is of a CPU with other extensions", h->index);
    h->x[0] = 0;
    h->pc &= ~UINT64_C(1);
    h->slice = h->budget = 0;
    h->res_pa = RV_TLB_NONE;
    h->mstatus &= ~MSTATUS_SD;
    rv_pmp_changed(h);
    bool ok = legal(h, 0x302, &h->medeleg, e) && legal(h, 0x303, &h->mideleg, e) && legal(h, 0x304, &h->mie, e) &&
              legal(h, 0x30a, &h->menvcfg, e) && legal(h, 0x10a, &h->senvcfg, e) && legal(h, 0x180, &h->satp, e);
    uint64_t mstatus = h->mstatus;
    h->mstatus = rv_mstatus_reset(h);
    rv_csr_poke(h, 0x300, mstatus);
    if (ok && h->mstatus != mstatus)
        ok = err_set(e, ERR_VALUE, "CPU %u: mstatus holds 0x%" PRIx64 ", which this CPU does not have", h->index, mstatus);
    for (unsigned n = 3; n < RV_HPM_COUNT; n++)
        rv_hpm_event_write(h, n, h->hpm_event[n]);
    rv_tlb_flush_all(h);
    rv_ctx_update(h);
    rv_interp_forget(h);
    h->accel->flush_all(h);
    if (rv_has(h, RV_EXT_SSTC))
        rv_csr_poke(h, 0x14d, cmp);
    return ok;
}

const struct state_desc hart_state = { .name = "hart", .version = 1, .fields = fields, .pre_save = pre_save, .post_load = post_load };
