/* SPDX-License-Identifier: MIT */
/*
 * The built-in firmware: an SBI 2.0 ("RISC-V Supervisor Binary Interface Specification", version 2.0) that serves S mode
 * directly, without guest code in M mode. Handlers run on the calling hart's thread (VCPU).
 */
#ifndef HW_RISCV_SBI_H
#define HW_RISCV_SBI_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "cpu/riscv/hart.h"

struct sys_dev;

enum sbi_error {
    SBI_SUCCESS = 0, SBI_ERR_FAILED = -1, SBI_ERR_NOT_SUPPORTED = -2, SBI_ERR_INVALID_PARAM = -3, SBI_ERR_DENIED = -4,
    SBI_ERR_INVALID_ADDRESS = -5, SBI_ERR_ALREADY_AVAILABLE = -6, SBI_ERR_ALREADY_STARTED = -7,
    SBI_ERR_ALREADY_STOPPED = -8,
};

/* PMU firmware events that are counted: SBI 2.0, section 11.5. */
enum sbi_fw_event {
    SBI_FW_SET_TIMER = 5, SBI_FW_IPI_SENT, SBI_FW_IPI_RECEIVED, SBI_FW_FENCE_I_SENT, SBI_FW_FENCE_I_RECEIVED,
    SBI_FW_SFENCE_SENT, SBI_FW_SFENCE_RECEIVED, SBI_FW_SFENCE_ASID_SENT, SBI_FW_SFENCE_ASID_RECEIVED, SBI_FW_EVENTS,
};
#define SBI_PMU_HW 32u          /* counters 0..31: by CSR number - 0xc00 */
#define SBI_PMU_FW 8u           /* counters after them */

/* HSM state of a hart: section 9, table "HSM Hart States". */
enum sbi_hsm { SBI_HSM_STARTED, SBI_HSM_STOPPED, SBI_HSM_START_PENDING, SBI_HSM_STOP_PENDING, SBI_HSM_SUSPENDED };

struct sbi_hart {
    atomic_int hsm;
    atomic_uint_least64_t fw[SBI_FW_EVENTS];
    /* on the hart's own thread only */
    struct { uint8_t event; bool used, running; uint64_t base, value; } pmu_fw[SBI_PMU_FW];
    uint32_t pmu_hw_used;
};

struct sbi {
    struct hart_set *harts;
    const struct rv_cpu *cpu;
    struct sys_dev *mtimer;     /* NULL: no timer (never in a real machine) */
    uint64_t uart;              /* physical address of the console's 16550A registers */
    uint64_t wait_stub;         /* physical address of the code that sbi_wait_stub() describes */
    bool sstc;
    struct sbi_hart hart[HART_MAX];
};

struct sbi_ret { int64_t error; uint64_t value; };
/* Arguments as in registers. */
struct sbi_call { struct sbi *sbi; struct hart *hart; unsigned self; uint64_t eid, fid, a[6]; bool moved; /* pc was set */ };

struct sbi_ext {
    uint64_t first, last;       /* extension ids */
    struct sbi_ret (*call)(struct sbi_call *c);
};

/* hart_env.ecall; @opaque is the struct sbi. */
bool sbi_ecall(struct hart *h, void *opaque);
/* State after a machine reset: hart @boot started, the others stopped. Paused. */
void sbi_reset(struct sbi *s, unsigned boot);
/* The S-mode comparator of hart @hart came due. ANY */
void sbi_timer_fired(struct sbi *s, unsigned hart);
/* M-mode code that suspended harts run from ROM: wfi; mret. Little endian words. */
extern const uint32_t sbi_wait_stub_code[2];

/* ---- between the files of the SBI ---- */
struct sbi_ret sbi_hsm_call(struct sbi_call *c);
struct sbi_ret sbi_srst_call(struct sbi_call *c);
struct sbi_ret sbi_susp_call(struct sbi_call *c);
struct sbi_ret sbi_dbcn_call(struct sbi_call *c);
struct sbi_ret sbi_pmu_call(struct sbi_call *c);
/* Console characters through the UART's registers. False: the transmitter is full / nothing was received. */
bool sbi_console_put(struct sbi *s, uint8_t ch);
bool sbi_console_get(struct sbi *s, uint8_t *ch);

#endif
