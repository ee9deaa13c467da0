/* SPDX-License-Identifier: MIT */
/* Between the files of LUKS. */
#ifndef BLOCK_LUKS_INT_H
#define BLOCK_LUKS_INT_H

#include "block/luks.h"

/* Bytes of a slot's key material. */
uint64_t luks_slot_len(const struct luks *l);
/* 1: the password opens @slot, @key is the master key; 0: it does not; negative: @e. */
int co_luks_try_slot(struct luks *l, const struct luks_io *io, unsigned slot, const uint8_t *pass, size_t pass_len, uint8_t *key, struct err *e);
/* Key material, then the header that knows it. */
bool co_luks_set_slot(struct luks *l, const struct luks_io *io, unsigned i, const char *secret, unsigned ms, struct err *e) MUST_CHECK;
bool co_luks_write_header(struct luks *l, const struct luks_io *io, struct err *e) MUST_CHECK;

#endif
