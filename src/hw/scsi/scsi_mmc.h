/* SPDX-License-Identifier: MIT */
/* The parts of a CD-ROM drive (MMC-6) that its files share: which disc is in it. Thread: the adapter's domain. */
#ifndef HW_SCSI_SCSI_MMC_H
#define HW_SCSI_SCSI_MMC_H

#include "hw/scsi/scsi_disk.h"

#define MMC_PREGAP 150u                         /* frames before block 0 */
#define MMC_FRAMES 75u                          /* a second */

/* What does not fit on a CD is a DVD. */
bool scsi_disc_is_dvd(const struct scsi_disk *d);
/* The disc is of this kind; else the request fails. */
bool scsi_disc_is(struct scsi_req *r, bool dvd) MUST_CHECK;
/* Bytes that READ CD and READ CD MSF move; 0: none, or they ask for what is not there. ANY */
uint64_t scsi_read_cd_len(const uint8_t *cdb);

#endif
