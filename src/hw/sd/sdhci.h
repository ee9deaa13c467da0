/* SPDX-License-Identifier: MIT */
/*
 * SD host controller (SD Host Controller Simplified Specification 3.00) on PCI, one slot. The registers are the whole state of a
 * transfer: a coroutine moves what it can - all of it by ADMA2 - and ends; the guest or the end of a stop starts the next.
 * Thread: the function's domain, which the card shares.
 */
#ifndef HW_SD_SDHCI_H
#define HW_SD_SDHCI_H

#include "core/run.h"
#include "hw/sd/sd.h"
#include "pci/pci.h"

#define SDHCI_FIFO 2048u

/* 2.1: offsets of 32 bits, which hold what is at the left of them too */
enum { SDHCI_SDMA = 0x00, SDHCI_BLOCK = 0x04, SDHCI_ARG = 0x08, SDHCI_CMD = 0x0c, SDHCI_RESP = 0x10, SDHCI_PORT = 0x20, SDHCI_PRESENT = 0x24,
       SDHCI_HOSTCTL = 0x28, SDHCI_CLOCK = 0x2c, SDHCI_STATUS = 0x30, SDHCI_ENABLE = 0x34, SDHCI_SIGNAL = 0x38, SDHCI_HOSTCTL2 = 0x3c,
       SDHCI_CAPS = 0x40, SDHCI_MAX_CURRENT = 0x48, SDHCI_FORCE = 0x50, SDHCI_ADMA_ERROR = 0x54, SDHCI_ADMA = 0x58, SDHCI_PRESETS = 0x60, SDHCI_VERSION = 0xfc };

/* 2.2.5: transfer mode */
enum { TM_DMA = 0x01, TM_COUNT = 0x02, TM_AUTO = 0x0c, TM_AUTO_CMD12 = 0x04, TM_AUTO_CMD23 = 0x08, TM_READ = 0x10, TM_MULTI = 0x20 };
/* 2.2.6: command */
enum { CMD_RESP = 0x03, CMD_RESP_136 = 1, CMD_RESP_BUSY = 3, CMD_DATA = 0x20, CMD_ABORT = 0xc0 };
/* 2.2.17: normal interrupts */
enum { INT_COMMAND = 0x01, INT_TRANSFER = 0x02, INT_DMA = 0x08, INT_WRITE_READY = 0x10, INT_READ_READY = 0x20, INT_INSERT = 0x40, INT_REMOVE = 0x80,
       INT_ERROR = 0x8000 };
/* 2.2.18: errors */
enum { ERR_CMD_TIMEOUT = 0x01, ERR_DATA_TIMEOUT = 0x10, ERR_DATA_CRC = 0x20, ERR_AUTO = 0x100, ERR_ADMA = 0x200 };

/* 2.2.12, 2.2.15 */
enum { POWER_ON = 1, CLOCK_CARD = 4 };
/* 2.2.24: host control 2 */
enum { CTL2_1V8 = 0x08, CTL2_EXEC_TUNING = 0x40, CTL2_TUNED = 0x80, CTL2_WRITABLE = 0x80ff };

enum sdhci_move { MOVE_NONE, MOVE_READ, MOVE_WRITE, MOVE_BUSY };

struct sdhci {
    struct pci_dev pci;                 /* first */
    /* options */
    uint64_t capareg, maxcurr;
    uint8_t spec_version;
    /* registers */
    struct region regs;
    struct sd_bus *bus;
    uint32_t sdma, arg, resp[4];
    uint16_t block_size, block_count, mode, cmd, clock, norm, err, norm_en, err_en, norm_sig, err_sig, auto_err, ctl2;
    uint8_t host_ctl, power, timeout, adma_err;
    uint64_t adma;
    /* the transfer */
    uint8_t move;                       /* enum sdhci_move */
    bool pio, at_boundary, stalled;     /* SDMA waits for the guest; the machine stops */
    bool port_ready;                    /* the guest may use the data port */
    uint64_t left;                      /* bytes; UINT64_MAX: no end */
    uint8_t fifo[SDHCI_FIFO];
    uint32_t fifo_pos;
    uint32_t gen;                       /* raised when the transfer is another */
    bool stepping, again;               /* a coroutine is at it; another is to follow */
    struct co_queue idle;
    struct run_resume resume;
};

/* sdhci.c */
void sdhci_raise(struct sdhci *s, uint16_t norm, uint16_t err);
/* sdhci_xfer.c */
void sdhci_issue(struct sdhci *s);              /* the command in the registers */
void sdhci_step(struct sdhci *s);               /* goes on with the transfer */
void sdhci_stop(struct sdhci *s);               /* there is no transfer any more */
uint32_t sdhci_port_read(struct sdhci *s, unsigned size);
void sdhci_port_write(struct sdhci *s, uint32_t v, unsigned size);

#endif
