/* SPDX-License-Identifier: MIT */
/*
 * LSI SAS1068 (`mptsas1068`): a Fusion-MPT controller with eight phys, one target at each. The host posts addresses of messages;
 * answers are frames of its own, or the context of a SCSI IO that ended well. Thread: the function's domain, which the units share.
 */
#ifndef HW_SCSI_MPTSAS_H
#define HW_SCSI_MPTSAS_H

#include "core/run.h"
#include "hw/scsi/mpi_spec.h"
#include "hw/scsi/scsi.h"
#include "pci/pci.h"

#define MPTSAS_PHYS 8u
#define MPTSAS_FRAME 128u               /* bytes of a message */
#define MPTSAS_REQUESTS 256u            /* messages in flight */
#define MPTSAS_REPLY_FRAMES 256u        /* that the host may give */
#define MPTSAS_FIFO 512u                /* words of each queue */
#define MPTSAS_CHAINS 64u               /* segments of a scatter list */
#define MPTSAS_ELEMENTS (SCSI_TRANSFER_MAX / (4 * KiB) + 1)    /* of one, with those that have no bytes: a page each of the longest transfer */
#define MPTSAS_EVENTS 32u               /* that wait for reply frames */
#define MPTSAS_EVENT_DATA 36u

struct mpt_fifo { uint32_t head, n, v[MPTSAS_FIFO]; };
struct mptsas_event { uint32_t event, len; uint8_t data[MPTSAS_EVENT_DATA]; };

enum mptsas_doorbell { DOORBELL_IDLE, DOORBELL_REQUEST /* the host writes a message */, DOORBELL_REPLY /* it reads the answer */,
                       DOORBELL_END /* it has read it, and is to say so */ };

struct mptsas {
    struct pci_dev pci;                 /* first */
    /* options */
    uint64_t sas_address;
    int msi;                            /* enum tri */
    /* state */
    struct region io, mmio, diag_bar;
    struct scsi_bus *bus;
    uint32_t state, fault;              /* enum mpi_ioc_state; the code that comes with FAULT */
    uint8_t who, max_devices, max_buses;
    uint16_t reply_size;                /* of the host's reply frames */
    uint32_t mfa_high, sense_high;      /* upper halves of addresses */
    uint32_t int_status, int_mask, diag, diag_key;
    bool raised;                        /* it interrupts */
    uint32_t door, door_n, door_at;     /* enum mptsas_doorbell; of door_buf: words to come, or half words to be read */
    uint8_t door_buf[MPTSAS_FRAME];
    struct mpt_fifo free, post;         /* reply frames; answers */
    bool events_on;
    uint32_t event_context, event_head, n_events;
    struct mptsas_event events[MPTSAS_EVENTS];
    uint32_t gen;                       /* raised when messages in flight lost their meaning */
    struct list flying;                 /* of struct mpt_req */
    uint32_t n_flying;
    struct co_queue idle;
    uint32_t held[MPTSAS_REQUESTS];     /* messages that wait for the machine to go on */
    uint32_t n_held;
    struct run_resume resume;
};

/* A message on its way. */
struct mpt_req {
    struct mptsas *s;
    struct list link;
    uint32_t mfa, gen;
    uint8_t f[MPTSAS_FRAME];            /* copied once */
    struct dma_vec data;
    struct scsi_req r;
    bool stopped;                       /* to be held */
};

/* mptsas.c */
void mptsas_fault(struct mptsas *s, uint32_t code);
void mptsas_update_line(struct mptsas *s);
bool mpt_fifo_put(struct mpt_fifo *f, uint32_t v) MUST_CHECK;
bool mpt_fifo_get(struct mpt_fifo *f, uint32_t *v) MUST_CHECK;

/* mptsas_msg.c */
/* Executes a message that needs no waiting; the answer's bytes in @reply. */
unsigned mptsas_message(struct mptsas *s, const uint8_t f[MPTSAS_FRAME], uint8_t reply[MPTSAS_FRAME]);
/* The fields that every answer to @f has. */
void mptsas_reply_begin(const uint8_t *f, uint8_t *reply, uint32_t status);
void mptsas_reply_post(struct mptsas *s, uint8_t *reply, unsigned n);
void mptsas_context_post(struct mptsas *s, uint32_t context);
/* What the host is told when a unit comes or goes. */
void mptsas_event_target(struct mptsas *s, unsigned id, bool came);
void mptsas_events_flush(struct mptsas *s);     /* as many as reply frames are there */

/* mptsas_io.c */
void mptsas_start(struct mptsas *s, uint32_t mfa);      /* a message of the request queue */
/* SCSI IO, task management and resets of phys wait; they are executed here, and answered through the queue. */
bool mptsas_waits(const struct mptsas *s, const uint8_t *f);
void mptsas_spawn(struct mptsas *s, const uint8_t f[MPTSAS_FRAME], uint32_t mfa);
/* Maps the scatter list at @at of a message, in which a chain element is at @chain (0: none); false: it is not one, or not RAM. */
bool mptsas_map(struct mptsas *s, const uint8_t f[MPTSAS_FRAME], unsigned at, unsigned chain, struct dma_vec *v) MUST_CHECK;

/* mptsas_config.c */
unsigned mptsas_config(struct mptsas *s, const uint8_t *f, uint8_t *reply);
/* The unit that stands for a target, NULL: nothing is there. The names of a phy's port, and of what is at it. */
struct scsi_dev *mptsas_target(const struct mptsas *s, unsigned id);
uint64_t mptsas_phy_name(const struct mptsas *s, unsigned phy);
uint64_t mptsas_target_name(const struct mptsas *s, unsigned id);
static inline uint16_t mptsas_phy_handle(unsigned phy) { return (uint16_t)(1 + phy); }
static inline uint16_t mptsas_target_handle(unsigned id) { return (uint16_t)(1 + MPTSAS_PHYS + id); }

#endif
