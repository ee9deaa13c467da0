/* SPDX-License-Identifier: MIT */
/* Packing of single clusters: section Compressed Clusters Descriptor. */
#ifndef BLOCK_QCOW2_CODEC_H
#define BLOCK_QCOW2_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One cluster. Packing sets @got. */
struct q2_pack { const uint8_t *in; uint8_t *out; size_t in_len, out_len, got; bool zstd; };

/* Of a struct q2_pack, for co_offload(): 0, -EIO: not packed data, -ENOTSUP: built without the library, -ENOMEM. ANY thread */
int q2_unpack(void *arg);
/* The same; -ENOSPC: it does not become smaller than @out_len. */
int q2_pack(void *arg);

#endif
