/* SPDX-License-Identifier: MIT */
/*
 * The log of a VHDX image ([MS-VHDX] 2.3): what was to be written to the file when its writer stopped. It is played back in memory:
 * the file stays as it is, and whoever reads a table of it lays the log over what was read. Home loop of the node; coroutines.
 */
#ifndef BLOCK_VHDX_LOG_H
#define BLOCK_VHDX_LOG_H

#include "block/fmt.h"

struct vhdx_patch { uint64_t off, len; uint8_t *data /* one sector of the log; NULL: zeroes */; };
struct vhdx_log { struct vhdx_patch *patches /* in the order in which they were written */; unsigned n; };

/* Takes what the log of @len bytes at @off has of the writer @guid. The patches are freed by vhdx_log_free(), whatever it says. */
bool co_vhdx_log_load(struct vhdx_log *log, struct fmt_node *s, const uint8_t guid[16], uint64_t off, uint32_t len, struct err *e) MUST_CHECK;
void vhdx_log_free(struct vhdx_log *log);
/* Lays the log over @len bytes that were read at @off of the file. */
void vhdx_log_apply(const struct vhdx_log *log, uint64_t off, void *buf, uint64_t len);
/* Whether the log has anything of [off, off + len). */
bool vhdx_log_touches(const struct vhdx_log *log, uint64_t off, uint64_t len);

#endif
