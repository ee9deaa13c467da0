/* SPDX-License-Identifier: MIT */
/*
 * A logical unit as all ways to it see it: disks on the same block node are one unit with several nexuses, whatever adapters they are
 * on. They share reservations, the device clock (SPC-5, 5.3) and the list of defects (SBC-4, 4.13).
 */
#ifndef HW_SCSI_SCSI_LU_H
#define HW_SCSI_SCSI_LU_H

#include <pthread.h>
#include "hw/scsi/scsi.h"
#include "hw/scsi/scsi_pr.h"

struct range_claims;
struct scsi_disk;
struct scsi_lu;

#define SCSI_DEFECTS (SCSI_LIST_MAX / 8)             /* blocks of a unit that can be reassigned */
struct scsi_defects { uint32_t n; uint16_t generation; uint64_t lba[SCSI_DEFECTS] /* ascending */; };

struct scsi_clock { uint8_t origin /* 6.36: 0: since power on, 2: it was set */; int64_t offset /* ms, to CLOCK_VM */; };

/* A disk's part in its unit. Embedded in struct scsi_disk. */
struct scsi_path {
    struct scsi_lu *lu;                 /* NULL: it has no reservations (disks on other buses) */
    struct list on_lu;
    struct scsi_nexus nexus;
    struct post told;                   /* unit attentions by what another nexus did */
    atomic_uint notes;                  /* PR_NOTE_*, SCSI_NOTE_* */
};
enum { SCSI_NOTE_CLOCK = 8, SCSI_NOTE_ACCESS = 16 };

/* The format of the unit's medium as scsi_pi.c found it; -1: not known. ANY */
atomic_int *scsi_lu_pi_type(const struct scsi_disk *d);

/* Joins the unit on @d's node, made by the first. @d->pr_file: where reservations are kept, read by the first. Main loop. */
bool scsi_lu_join(struct scsi_disk *d, struct err *e) MUST_CHECK;
void scsi_lu_leave(struct scsi_disk *d);
/* The power of this way was lost: what is not kept goes, with what belongs to ways that are not there. ANY */
void scsi_lu_power_lost(struct scsi_disk *d);
/* RESERVATION CONFLICT as @r's status, if a reservation keeps this command out. Domain's lock held. */
bool scsi_lu_conflict(struct scsi_req *r, const struct scsi_cmd *c);
/* Which blocks commands work on, of all ways. ANY */
struct range_claims *scsi_lu_claims(struct scsi_disk *d);
/* What a snapshot has of the unit: each of its disks has all. */
void scsi_lu_save(const struct scsi_disk *d, struct scsi_pr *pr, struct scsi_clock *clock, struct scsi_defects *defects);
void scsi_lu_load(struct scsi_disk *d, const struct scsi_pr *pr, const struct scsi_clock *clock, const struct scsi_defects *defects);

/* Commands */
void scsi_pr_in(struct scsi_req *r);
void co_scsi_pr_out(struct scsi_req *r);
void scsi_report_timestamp(struct scsi_req *r);
void scsi_set_timestamp(struct scsi_req *r);

/* ---- scsi_pr_file.c: kept reservations, JSON ---- */
bool scsi_pr_file_load(const char *path, struct scsi_pr *p, struct err *e) MUST_CHECK;      /* no file: none are kept */
int scsi_pr_file_save(const char *path, const struct scsi_pr *p);                           /* 0 or -errno; blocks */

#endif
