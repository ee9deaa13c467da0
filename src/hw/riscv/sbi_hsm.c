/* SPDX-License-Identifier: MIT */
/* SBI: hart state management (chapter 9), system reset (chapter 10), system suspend (chapter 13). */
#include "hw/riscv/sbi.h"

#include "base/bits.h"
#include "core/run.h"
#include "hw/riscv/aclint.h"
#include "mem/view.h"

#define HSM_SUSPEND_RETENTIVE 0x00000000u
#define HSM_SUSPEND_NON_RETENTIVE 0x80000000u
enum { REG_PC = 32, REG_CSR = 65, REG_PRIV = 4161 };
enum { CSR_SATP = 0x180, CSR_SSTATUS = 0x100, CSR_MSTATUS = 0x300, CSR_MEPC = 0x341 };
#define SSTATUS_SIE BIT64(1)
#define MSTATUS_MIE BIT64(3)
#define MSTATUS_MPIE BIT64(7)
#define MSTATUS_MPP_S BIT64(11)
#define MSTATUS_MPP (BIT64(11) | BIT64(12))

/* A sleeping hart waits in M mode, where translation and S-mode state do not matter, and returns to S by mret. */
const uint32_t sbi_wait_stub_code[2] = { 0x10500073 /* wfi */, 0x30200073 /* mret */ };

static struct sbi_ret ret(int64_t error, uint64_t value)
{
    return (struct sbi_ret){ error, value };
}

static bool is_ram(uint64_t pa)
{
    uint64_t v;
    return as_read(&as_memory, pa, &v, 2);
}

/* Sends the calling hart to the wait stub; it comes back at @pc in S mode when an interrupt enabled in sie is pending. */
static void wait_then(struct sbi_call *c, uint64_t pc)
{
    uint64_t ms = 0;
    hart_reg_read(c->hart, REG_CSR + CSR_MSTATUS, &ms);
    hart_reg_write(c->hart, REG_CSR + CSR_MSTATUS, (ms & ~(MSTATUS_MPP | MSTATUS_MIE | MSTATUS_MPIE)) | MSTATUS_MPP_S);
    hart_reg_write(c->hart, REG_CSR + CSR_MEPC, pc);
    hart_reg_write(c->hart, REG_PRIV, 3);
    hart_reg_write(c->hart, REG_PC, c->sbi->wait_stub);
}

/* State of a hart that starts or resumes at @addr: table "Register State" of chapter 9. */
static void sleep_and_resume(struct sbi_call *c, uint64_t addr, uint64_t opaque)
{
    uint64_t ss = 0;
    hart_reg_write(c->hart, REG_CSR + CSR_SATP, 0);
    hart_reg_read(c->hart, REG_CSR + CSR_SSTATUS, &ss);
    hart_reg_write(c->hart, REG_CSR + CSR_SSTATUS, ss & ~SSTATUS_SIE);
    hart_x_set(c->hart, 10, hart_id(c->hart));
    hart_x_set(c->hart, 11, opaque);
    wait_then(c, addr);
    c->moved = true;
}

static struct sbi_ret hart_start(struct sbi_call *c)
{
    if (c->a[0] >= hart_set_count(c->sbi->harts))
        return ret(SBI_ERR_INVALID_PARAM, 0);
    struct hart *h = hart_get(c->sbi->harts, c->a[0]);
    if (!is_ram(c->a[1]))
        return ret(SBI_ERR_INVALID_ADDRESS, 0);
    int stopped = SBI_HSM_STOPPED;
    /* A hart that announced its end but still executes its last instruction counts as running. */
    if (hart_is_on(h) ||
        !atomic_compare_exchange_strong(&c->sbi->hart[c->a[0]].hsm, &stopped, SBI_HSM_START_PENDING))
        return ret(SBI_ERR_ALREADY_AVAILABLE, 0);
    hart_set_start(h, 1, c->a[1], hart_id(h), c->a[2]);
    atomic_store(&c->sbi->hart[c->a[0]].hsm, SBI_HSM_STARTED);
    hart_power(h, true);
    return ret(0, 0);
}

static struct sbi_ret hart_status(struct sbi_call *c)
{
    if (c->a[0] >= hart_set_count(c->sbi->harts))
        return ret(SBI_ERR_INVALID_PARAM, 0);
    int s = atomic_load(&c->sbi->hart[c->a[0]].hsm);
    if (s == SBI_HSM_STOPPED && hart_is_on(hart_get(c->sbi->harts, c->a[0])))
        s = SBI_HSM_STOP_PENDING;
    return ret(0, (uint64_t)s);
}

static struct sbi_ret hart_suspend(struct sbi_call *c)
{
    uint32_t type = (uint32_t)c->a[0];
    if (type == HSM_SUSPEND_RETENTIVE) {
        uint64_t pc = 0;
        hart_reg_read(c->hart, REG_PC, &pc);
        hart_x_set(c->hart, 10, 0);
        hart_x_set(c->hart, 11, 0);
        wait_then(c, pc);
        c->moved = true;
        return ret(0, 0);
    }
    if (type != HSM_SUSPEND_NON_RETENTIVE)
        return ret(type > HSM_SUSPEND_NON_RETENTIVE || type >= 0x10000000 ? SBI_ERR_NOT_SUPPORTED
                                                                          : SBI_ERR_INVALID_PARAM, 0);
    if (!is_ram(c->a[1]))
        return ret(SBI_ERR_INVALID_ADDRESS, 0);
    sleep_and_resume(c, c->a[1], c->a[2]);
    return ret(0, 0);
}

struct sbi_ret sbi_hsm_call(struct sbi_call *c)
{
    switch (c->fid) {
    case 0:
        return hart_start(c);
    case 1:
        if (!c->sbi->sstc)
            aclint_mtimer_arm_s(c->sbi->mtimer, c->self, UINT64_MAX);
        atomic_store(&c->sbi->hart[c->self].hsm, SBI_HSM_STOPPED);
        hart_power(c->hart, false);
        return ret(0, 0);
    case 2:
        return hart_status(c);
    case 3:
        return hart_suspend(c);
    default:
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    }
}

struct sbi_ret sbi_srst_call(struct sbi_call *c)
{
    uint32_t type = (uint32_t)c->a[0], reason = (uint32_t)c->a[1];
    if (c->fid != 0)
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    if (type > 2 || (reason > 1 && reason < 0xe0000000))
        return ret(type >= 0xf0000000 ? SBI_ERR_NOT_SUPPORTED : SBI_ERR_INVALID_PARAM, 0);
    if (type == 0)
        run_request_shutdown(CAUSE_GUEST_SHUTDOWN, reason == 1);
    else
        run_request_reset(CAUSE_GUEST_RESET);
    /* The call does not return: the caller stands until the main loop has stopped or reset the machine. */
    hart_power(c->hart, false);
    return ret(0, 0);
}

/* Every other hart must be stopped; this one sleeps until an interrupt that it left enabled. */
struct sbi_ret sbi_susp_call(struct sbi_call *c)
{
    if (c->fid != 0)
        return ret(SBI_ERR_NOT_SUPPORTED, 0);
    if ((uint32_t)c->a[0] != 0)
        return ret((uint32_t)c->a[0] >= 0x80000000 ? SBI_ERR_NOT_SUPPORTED : SBI_ERR_INVALID_PARAM, 0);
    if (!is_ram(c->a[1]))
        return ret(SBI_ERR_INVALID_ADDRESS, 0);
    for (unsigned i = 0; i < hart_set_count(c->sbi->harts); i++)
        if (i != c->self && atomic_load(&c->sbi->hart[i].hsm) != SBI_HSM_STOPPED)
            return ret(SBI_ERR_DENIED, 0);
    sleep_and_resume(c, c->a[1], c->a[2]);
    return ret(0, 0);
}
