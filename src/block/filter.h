/* SPDX-License-Identifier: MIT */
/* Filters that hand most requests down unchanged: the functions of struct blk_driver that do so. Home loop or any. */
#ifndef BLOCK_FILTER_H
#define BLOCK_FILTER_H

#include "block/driver.h"

/* Opens the node below, and takes over its size and what it can do. */
bool co_filter_open(struct blk_node *n, json_t *file, struct err *e) MUST_CHECK;
void co_filter_close(struct blk_node *n);
int co_filter_read(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_filter_write(struct blk_node *n, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov, unsigned flags);
int co_filter_zero(struct blk_node *n, uint64_t off, uint64_t len, unsigned flags);
int co_filter_discard(struct blk_node *n, uint64_t off, uint64_t len);
int co_filter_flush(struct blk_node *n);
int co_filter_resize(struct blk_node *n, uint64_t size);
/* The same, where reads of [from, to) do more than to read: nobody is told that it reads as zeroes, so that it is read. */
int co_filter_map_read(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out, uint64_t from, uint64_t to);
int co_filter_map(struct blk_node *n, uint64_t off, uint64_t len, struct blk_extent *out);

#endif
