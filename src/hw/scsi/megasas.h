/* SPDX-License-Identifier: MIT */
/*
 * MegaRAID SAS controllers (`megasas`: SAS1078, `megasas-gen2`: SAS2108), driven by frames of the MFI interface. Each disk is a logical
 * drive of its own; with use_jbod=on, and where it is no disk, it is shown as the physical drive it is.
 * Thread: the function's domain, which the units share.
 */
#ifndef HW_SCSI_MEGASAS_H
#define HW_SCSI_MEGASAS_H

#include "core/run.h"
#include "hw/scsi/mfi_spec.h"
#include "hw/scsi/scsi.h"
#include "pci/pci.h"

#define MEGASAS_MAX_CMDS 2048u
#define MEGASAS_MAX_SGE 128u
#define MEGASAS_EVENTS 64u              /* that are kept for the driver */

struct megasas_event { uint32_t seq, time, code, target; };

struct megasas {
    struct pci_dev pci;                 /* first */
    /* options */
    uint32_t max_sge, max_cmds;
    char *serial;
    uint64_t sas_address;
    int msi, msix;                      /* enum tri */
    bool use_jbod;
    /* state */
    struct region bar, regs, io, queue;
    struct scsi_bus *bus;
    uint32_t fw_state, mask, high_addr;
    bool reply_pending;
    uint8_t diag_key, diag;             /* keys of the write sequence that came; the host diagnostic register */
    uint64_t reply, producer, consumer;
    uint32_t reply_entries, reply_head;
    bool context64;
    uint32_t gen;                       /* raised when frames in flight lost their meaning */
    struct list flying;                 /* of struct mfi_cmd */
    uint32_t n_flying;
    struct co_queue idle;
    uint64_t held[MEGASAS_MAX_CMDS];    /* frames that wait for the machine to go on */
    uint32_t n_held;
    uint8_t properties[64];
    struct megasas_event events[MEGASAS_EVENTS];        /* event n is at n % MEGASAS_EVENTS */
    uint32_t last_event, wait_seq;
    uint64_t wait_frame;                /* of the driver that waits for an event; 0: none */
    struct run_resume resume;
};

/* A frame on its way. */
struct mfi_cmd {
    struct megasas *s;
    struct list link;
    uint64_t frame;
    uint32_t gen;
    uint8_t f[MFI_FRAME];               /* its first part, copied once */
    uint16_t flags;
    struct dma_vec data;
    struct scsi_req r;
    bool stopped;                       /* to be held */
};

/* megasas.c: the line and messages follow whether replies wait */
void megasas_reply_raised(struct megasas *s);
/* megasas_frame.c */
void megasas_start(struct megasas *s, uint64_t frame);
void megasas_abort_all(struct megasas *s);              /* nobody will hear of what is in flight */
void megasas_complete(struct megasas *s, uint64_t frame, const uint8_t *head, uint8_t status, uint8_t scsi_status);
/* Maps the scatter list at @at of the frame; false: too long or not RAM. */
bool megasas_map(struct mfi_cmd *c, uint32_t at, bool dev_writes) MUST_CHECK;
/* megasas_dcmd.c: its status; *@later: it will be completed by an event */
uint8_t co_megasas_dcmd(struct mfi_cmd *c, bool *later);
void megasas_event_log(struct megasas *s, uint32_t code, uint32_t target);
bool megasas_is_ld(const struct megasas *s, const struct scsi_dev *d);
void megasas_default_properties(struct megasas *s);

#endif
