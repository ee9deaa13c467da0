/* SPDX-License-Identifier: MIT */
/* A logical unit and the ways to it, for the files that keep what these share. */
#ifndef HW_SCSI_SCSI_LU_INT_H
#define HW_SCSI_SCSI_LU_INT_H

#include "hw/scsi/scsi_disk.h"

struct scsi_lu {
    struct list link, paths;            /* paths changes on the main loop with the lock held */
    char *file;                         /* NULL: APTPL is refused */
    atomic_int pi_type;
    struct range_claims claims;
    struct co_mutex turn;               /* main loop: one change after the other */
    pthread_mutex_t lock;               /* a leaf; guards what follows */
    struct scsi_pr pr;
    struct scsi_clock clock;
    struct scsi_defects defects;
};

static inline struct scsi_disk *disk_at(struct scsi_path *p) { return container_of(p, struct scsi_disk, path); }

/* Tells a way of what another did, as a unit attention. The main loop, or the lock held. */
void scsi_lu_note(struct scsi_path *p, unsigned what);

/* scsi_alua.c: whether the port of @d goes with those of the unit. Main loop. */
bool scsi_alua_fits(struct scsi_lu *lu, const struct scsi_disk *d, struct err *e) MUST_CHECK;

#endif
