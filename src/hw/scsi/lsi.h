/* SPDX-License-Identifier: MIT */
/*
 * LSI53C895A, a parallel SCSI controller whose work is done by a processor of its own, SCRIPTS (LSI53C895A Technical Manual, 2.2).
 * What the chip is doing is in its registers and in the state of the bus alone: SCRIPTS run until they wait for a phase, for a target
 * that comes back, or halt, and are run again by what they waited for. Thread: the function's domain, which the units share.
 */
#ifndef HW_SCSI_LSI_H
#define HW_SCSI_LSI_H

#include "core/run.h"
#include "hw/scsi/scsi.h"
#include "loop/loop.h"
#include "pci/pci.h"

#define LSI_RAM 8192u
#define LSI_TARGETS 7u                  /* 0 to 6; the chip itself is 7 */
#define LSI_LUNS 8u
#define LSI_MSG_MAX 16u
#define LSI_MEMORY (64 * MiB)           /* of all requests; more are told that the queue is full */
#define LSI_REQS 2048u                  /* that wait for the unit or the chip; with one more the target leaves the bus */

/* Registers: chapter 4. */
enum { R_SCNTL0 = 0x00, R_SCNTL1 = 0x01, R_SCNTL2 = 0x02, R_SCNTL3 = 0x03, R_SCID = 0x04, R_SXFER = 0x05, R_SDID = 0x06, R_GPREG = 0x07, R_SFBR = 0x08,
       R_SOCL = 0x09, R_SSID = 0x0a, R_SBCL = 0x0b, R_DSTAT = 0x0c, R_SSTAT0 = 0x0d, R_SSTAT1 = 0x0e, R_SSTAT2 = 0x0f, R_DSA = 0x10, R_ISTAT0 = 0x14,
       R_ISTAT1 = 0x15, R_CTEST2 = 0x1a, R_CTEST3 = 0x1b, R_TEMP = 0x1c, R_DBC = 0x24, R_DCMD = 0x27, R_DNAD = 0x28, R_DSP = 0x2c, R_DSPS = 0x30,
       R_SCRATCHA = 0x34, R_DMODE = 0x38, R_DIEN = 0x39, R_DCNTL = 0x3b, R_SIEN0 = 0x40, R_SIEN1 = 0x41, R_SIST0 = 0x42, R_SIST1 = 0x43, R_MACNTL = 0x46,
       R_GPCNTL = 0x47, R_STIME1 = 0x49, R_RESPID0 = 0x4a, R_STEST0 = 0x4c, R_STEST4 = 0x52, R_SIDL = 0x50, R_CCNTL0 = 0x56, R_CCNTL1 = 0x57,
       R_SCRATCHB = 0x5c, R_SCRATCHC = 0x60, R_MMRS = 0xa0, R_PMJAD1 = 0xc0, R_PMJAD2 = 0xc4, R_RBC = 0xc8, R_UA = 0xcc, R_ESA = 0xd0, R_IA = 0xd4,
       R_SBC = 0xd8, R_CSBC = 0xdc };
enum { SCNTL1_RST = 0x08, SCNTL1_CON = 0x10, SCNTL2_WSR = 0x01, SSTAT0_RST = 0x02 };
enum { DSTAT_IID = 0x01, DSTAT_SIR = 0x04, DSTAT_SSI = 0x08, DSTAT_ABRT = 0x10, DSTAT_BF = 0x20, DSTAT_DFE = 0x80 };
enum { ISTAT_DIP = 0x01, ISTAT_SIP = 0x02, ISTAT_INTF = 0x04, ISTAT_CON = 0x08, ISTAT_SEM = 0x10, ISTAT_SIGP = 0x20, ISTAT_SRST = 0x40, ISTAT_ABRT = 0x80 };
enum { SIST0_UDC = 0x04, SIST0_RST = 0x02, SIST0_MA = 0x80, SIST1_GEN = 0x02, SIST1_STO = 0x04 };
enum { DMODE_MAN = 0x01, DCNTL_STD = 0x04, DCNTL_SSM = 0x10, CCNTL0_ENPMJ = 0x80, CCNTL0_PMJCTL = 0x40, CCNTL0_ENNDJ = 0x20, CCNTL1_XTIMOD = 0x04,
       CCNTL1_EXTIBMV = 0x02 };

/* Bus phases by their lines MSG, C/D and I/O. */
enum lsi_phase { PH_DATA_OUT, PH_DATA_IN, PH_COMMAND, PH_STATUS, PH_MSG_OUT = 6, PH_MSG_IN = 7,
                 PH_FREE = 8 /* no target is connected */, PH_WAIT /* it is, and asks for nothing yet */, PH_NOBODY /* selected, but no one is there */ };
enum lsi_run { LSI_HALTED, LSI_RUNNING, LSI_WAIT_RESELECT, LSI_WAIT_PHASE };

/* A command of a target. */
struct lsi_req {
    struct lsi *s;
    struct list link;                   /* in lsi.reqs */
    uint8_t target, lun, tag, cdb_len;
    bool tagged, may_leave, to_device, taken /* data went out */, flying, done, dead, stopped;
    uint8_t *buf;
    uint32_t len, have, pos;            /* of buf: expected, there, moved */
    struct iovec iov;
    struct dma_vec vec;                 /* over buf */
    struct scsi_req r;
};

struct lsi {
    struct pci_dev pci;                 /* first */
    struct region io, mmio, ram_bar;
    struct scsi_bus *bus;
    uint8_t reg[256], ram[LSI_RAM];
    uint8_t run, phase;                 /* enum lsi_run, enum lsi_phase */
    bool carry, atn, intfly, in_run;
    int32_t budget;                     /* of this stretch of the script: instructions, and the pieces of data that they move */
    /* the target that is connected */
    uint8_t target, lun, tag;
    bool tagged, may_leave, leaving /* after the messages it goes */, over /* ... and is through */;
    uint8_t msg[LSI_MSG_MAX];           /* to the chip */
    uint8_t n_msg;
    uint8_t cdb[16], n_cdb;
    struct lsi_req *cur;
    struct list reqs;
    uint32_t n_flying, n_reqs;
    uint64_t memory;
    uint8_t reset_luns[LSI_TARGETS];    /* units that a coroutine, if there is one, has still to reset */
    bool reset_bus, resetting;          /* all of them by a reset of the bus */
    const struct scsi_dev *reset_now;   /* the one that it is at */
    struct co_queue idle;
    struct { uint8_t len, data[SCSI_SENSE_MAX]; } sense[LSI_TARGETS][LSI_LUNS];     /* for the next REQUEST SENSE */
    struct timer gen;
    struct post more;
    struct run_resume resume;
};

static inline uint32_t lsi_reg32(const struct lsi *s, unsigned r) { return ld_le32(s->reg + r); }
static inline void lsi_set32(struct lsi *s, unsigned r, uint32_t v) { st_le32(s->reg + r, v); }

/* lsi.c */
uint8_t lsi_reg_read(struct lsi *s, unsigned r);        /* with what reading does */
void lsi_reg_write(struct lsi *s, unsigned r, uint8_t v);
void lsi_dma_interrupt(struct lsi *s, uint8_t dstat);   /* both halt the processor */
void lsi_scsi_interrupt(struct lsi *s, uint8_t sist0, uint8_t sist1);
void lsi_update_line(struct lsi *s);
/* Memory as the chip sees it: its own RAM, else the guest's. */
MUST_CHECK bool lsi_mem_read(struct lsi *s, uint64_t addr, void *buf, uint32_t n);
MUST_CHECK bool lsi_mem_write(struct lsi *s, uint64_t addr, const void *buf, uint32_t n);
/* lsi_scripts.c: runs until the processor waits or halts */
void lsi_scripts(struct lsi *s);
/* lsi_target.c */
void lsi_select(struct lsi *s, uint8_t id, bool atn);
bool lsi_reselect(struct lsi *s);                       /* a target that waits for the bus takes it */
void lsi_set_atn(struct lsi *s);
/* Bytes in the phase that the target asks for: how many it takes or gives. */
uint32_t lsi_move_out(struct lsi *s, const uint8_t *buf, uint32_t n);
uint32_t lsi_move_in(struct lsi *s, uint8_t *buf, uint32_t n);
void lsi_bus_reset(struct lsi *s);                      /* every command is gone, every unit resets */
void lsi_forget_all(struct lsi *s);                     /* the chip is reset: no one comes back */
void lsi_submit(struct lsi_req *q);
struct lsi_req *lsi_req_new(struct lsi *s, uint32_t len);       /* NULL: there are too many, or no memory is left for it */
void lsi_req_free(struct lsi_req *q);
/* lsi_state.c */
extern const struct state_desc lsi_state;

#endif
