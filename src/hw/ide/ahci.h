/* SPDX-License-Identifier: MIT */
/*
 * AHCI controller (Serial ATA AHCI 1.3.1) with disks and CD drives (ACS-4, MMC-6). A disk is a logical unit of hw/scsi behind a
 * translation of ATA commands, a CD drive takes its packets as they are. Thread: the function's domain.
 */
#ifndef HW_IDE_AHCI_H
#define HW_IDE_AHCI_H

#include "core/run.h"
#include "hw/scsi/scsi_disk.h"
#include "pci/pci.h"

#define AHCI_PORTS 6u
#define AHCI_SLOTS 32u

/* 3.1: generic host control; 3.3: port registers */
enum { R_CAP = 0x00, R_GHC = 0x04, R_IS = 0x08, R_PI = 0x0c, R_VS = 0x10, R_CAP2 = 0x24, R_BOHC = 0x28, R_PORTS = 0x100, PORT_SIZE = 0x80 };
enum { P_CLB = 0x00, P_CLBU = 0x04, P_FB = 0x08, P_FBU = 0x0c, P_IS = 0x10, P_IE = 0x14, P_CMD = 0x18, P_TFD = 0x20, P_SIG = 0x24, P_SSTS = 0x28,
       P_SCTL = 0x2c, P_SERR = 0x30, P_SACT = 0x34, P_CI = 0x38 };
enum { GHC_HR = 1, GHC_IE = 2 };
#define GHC_AE 0x80000000u
enum { CMD_ST = 1, CMD_SUD = 2, CMD_POD = 4, CMD_CLO = 8, CMD_FRE = 0x10, CMD_FR = 0x4000, CMD_CR = 0x8000, CMD_HPCP = 0x40000 /* hot plug */, CMD_ICC = 0xf };
enum { IS_DHRS = 1, IS_PSS = 2, IS_SDBS = 8, IS_PCS = 0x40, IS_PRCS = 0x400000, IS_HBFS = 0x20000000, IS_TFES = 0x40000000 };
#define SERR_X 0x04000000u              /* DIAG.X: the device was exchanged */
#define SERR_N 0x00010000u              /* DIAG.N: the link came or went */
enum { FIS_PIO_SETUP = 0x20, FIS_D2H = 0x40, FIS_SDB = 0x58 };      /* 4.2.1: places in the receive area */
enum { ST_ERR = 0x01, ST_DRQ = 0x08, ST_DSC = 0x10, ST_DRDY = 0x40, ST_BSY = 0x80 };    /* ACS-4, 6.2 */
#define ATA_MULTIPLE_MAX 16u
enum { ER_ABRT = 0x04, ER_IDNF = 0x10, ER_UNC = 0x40 };

struct ahci;

struct ahci_port {
    struct ahci *a;
    uint32_t nr;
    struct bus *bus;                    /* struct ide_bus */
    struct scsi_disk *d;                /* NULL: nothing is plugged */
    uint32_t clb, clbu, fb, fbu, is, ie, cmd, tfd, sig, sctl, serr, sact, ci;
    uint32_t queued;                    /* NCQ commands that were taken and have not ended */
    uint32_t running, stopped;          /* slots at the back end; that wait for the machine to go on */
    uint32_t gen;                       /* raised when commands in flight lost their meaning */
    bool smart_off, standby;
    uint8_t multiple;                   /* sectors of READ and WRITE MULTIPLE, 0: none */
    bool failed, srst;                  /* after an error nothing starts until ST was 0; software reset is asserted */
    uint8_t sense[SCSI_SENSE_MAX], sense_len, ncq_tag, ncq_error;      /* of the last packet that failed; of the last NCQ error */
    uint64_t ncq_lba;
};

struct ahci {
    struct pci_dev pci;                 /* first */
    struct region regs;
    uint32_t ghc, is;
    struct ahci_port port[AHCI_PORTS];
    uint32_t in_flight;
    struct co_queue idle;
    struct run_resume resume;
};

struct ide_bus { struct bus bus; struct ahci_port *port; };
extern const struct bus_class ide_bus_class;

/* A command from its slot, on its way. */
struct ata_cmd {
    struct ahci_port *p;
    struct scsi_disk *d;                /* what was plugged when it was taken: the port may have another, or none, before it ends */
    uint32_t slot, gen;
    uint64_t header;                    /* address of the command header */
    uint16_t prdtl;
    uint8_t fis[64], acmd[16];
    struct dma_vec vec;
    bool ncq, pio_in;
    struct scsi_req r;
    uint8_t status, error;              /* the outcome */
    uint64_t lba;
    uint16_t count;
    uint32_t done;                      /* bytes of data */
};

/* ahci.c */
void ahci_port_irq(struct ahci_port *p, uint32_t is);
void ahci_port_signature(struct ahci_port *p);          /* power on, COMRESET, software reset */
void ata_power_on(struct ahci_port *p);                 /* modes that the host sets are as by default */
void ahci_port_plugged(struct ahci_port *p, struct scsi_disk *d);       /* @d came; NULL: what was there is gone */
/* ahci_cmd.c */
void ahci_port_kick(struct ahci_port *p);
/* ata.c: executes c->fis on the device */
void co_ata_execute(struct ata_cmd *c);
bool ata_is_ncq(uint8_t op);
void ata_put_lba(uint8_t *p, uint64_t lba);             /* bytes 0 to 2 and 4 to 6 */
void ata_reply(struct ata_cmd *c, const void *buf, uint32_t n);        /* sectors of data to the host by PIO */
/* ata_smart.c: SMART; false: aborted */
bool co_ata_smart(struct ata_cmd *c);

#endif
