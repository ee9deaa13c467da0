/* SPDX-License-Identifier: MIT */
/*
 * Persistent reservations (SPC-5, 5.14, 6.15, 6.16): the rules, on a value. Who shares that value, who is told, and where it is kept
 * is in scsi_lu.h.
 */
#ifndef HW_SCSI_SCSI_PR_H
#define HW_SCSI_SCSI_PR_H

#include "core/state.h"

#define SCSI_PR_MAX 32u             /* registrations of one logical unit */

/* SPC-5, 6.15.1: service actions of PERSISTENT RESERVE IN */
enum { PR_READ_KEYS, PR_READ_RESERVATION, PR_REPORT_CAPABILITIES, PR_READ_FULL_STATUS };
/* SPC-5, 6.16.2: service actions of PERSISTENT RESERVE OUT */
enum { PR_REGISTER, PR_RESERVE, PR_RELEASE, PR_CLEAR, PR_PREEMPT, PR_PREEMPT_AND_ABORT, PR_REGISTER_AND_IGNORE, PR_REGISTER_AND_MOVE };
/* SPC-5, table 183: types */
enum { PR_WRITE_EXCLUSIVE = 1, PR_EXCLUSIVE = 3, PR_WRITE_EXCLUSIVE_RO = 5, PR_EXCLUSIVE_RO, PR_WRITE_EXCLUSIVE_AR, PR_EXCLUSIVE_AR };

/* One way from an initiator port to a port of the target. */
struct scsi_nexus { uint64_t initiator; /* its SAS address */ uint16_t port; /* relative target port */ };
struct scsi_pr_reg { uint64_t key; /* 0: a free place */ struct scsi_nexus nexus; };
struct scsi_pr {
    struct scsi_pr_reg reg[SCSI_PR_MAX];
    uint32_t generation;
    uint8_t type;                   /* 0: no reservation */
    uint8_t holder;                 /* index into reg; not looked at where all registrants hold */
    bool aptpl;                     /* kept over a loss of power */
};

/* A PERSISTENT RESERVE OUT, parsed. */
struct scsi_pr_op {
    uint8_t action, scope, type;
    bool aptpl, unregister;         /* unregister: UNREG of REGISTER AND MOVE */
    uint64_t key, arg;              /* the reservation key and the service action's */
    struct scsi_nexus to;           /* of REGISTER AND MOVE */
};

/* Unit attentions that others get by what one did. */
enum { PR_NOTE_PREEMPTED = 1 /* reservations preempted */, PR_NOTE_RELEASED = 2, PR_NOTE_UNREGISTERED = 4 /* registrations preempted */ };
struct scsi_pr_outcome {
    uint8_t status;
    uint32_t sense;                 /* with CHECK CONDITION */
    int field;                      /* the wrong byte, -1: none is at fault */
    unsigned notes;
    struct { struct scsi_nexus to; uint8_t what; } note[SCSI_PR_MAX];
};

/* Does @op for nexus @by. Where it fails @p is as it was. */
void scsi_pr_apply(struct scsi_pr *p, const struct scsi_nexus *by, const struct scsi_pr_op *op, struct scsi_pr_outcome *out);
/* A command that changes the medium, or reads it, is kept from @n by a reservation (SPC-5, 5.14.1; table "commands allowed"). */
bool scsi_pr_keeps_out(const struct scsi_pr *p, const struct scsi_nexus *n, bool changes);
/* Takes the registrations away that @gone accepts, without telling anybody, and the reservation with its holder. */
void scsi_pr_forget(struct scsi_pr *p, bool (*gone)(const struct scsi_nexus *, void *), void *arg);
/* Parameter data of PERSISTENT RESERVE IN without its header; at most SCSI_PR_DATA bytes. Their number. */
#define SCSI_PR_DATA (SCSI_PR_MAX * 48u)
unsigned scsi_pr_keys(const struct scsi_pr *p, uint8_t *b);
unsigned scsi_pr_reservation(const struct scsi_pr *p, uint8_t *b);
unsigned scsi_pr_full_status(const struct scsi_pr *p, uint8_t *b);

extern const struct state_desc scsi_pr_state;

#endif
