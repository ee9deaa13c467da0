/* SPDX-License-Identifier: MIT */
/*
 * A connection to a back end of vhost-user, from the front end's side: one message at a time and its answer ("Message Specification",
 * "Communication"). What comes back is checked for its form; what it says is the caller's to judge. Coroutines, on the socket's loop.
 */
#ifndef VHOST_USER_VU_LINK_H
#define VHOST_USER_VU_LINK_H

#include "base/bits.h"
#include "base/err.h"
#include "vhost_user/vu_spec.h"
#include "vhost_user/vu_wire.h"

enum { VU_ANSWER_S = 10 };              /* what a back end has for an answer, unless more is said */

struct vu_link {
    int sock;                           /* -1: none. The owner's */
    uint64_t features, protocol;        /* offered by the back end; agreed on */
};

static inline bool vu_link_speaks(const struct vu_link *l, unsigned p) { return l->protocol >> p & 1; }

/*
 * False with @e filled: of class ERR_VALUE where the back end refused (with REPLY_ACK it can), else the connection is of no use any more.
 * @pass NULL: no descriptors go along; they stay the caller's.
 */
bool co_vu_tell(struct vu_link *l, enum vu_request request, const void *data, uint32_t n, const struct vu_fds *pass, struct err *e) MUST_CHECK;
bool co_vu_tell_u64(struct vu_link *l, enum vu_request request, uint64_t v, struct err *e) MUST_CHECK;
/* A message about ring @index with a descriptor of its. */
bool co_vu_tell_fd(struct vu_link *l, enum vu_request request, unsigned index, int fd, struct err *e) MUST_CHECK;
/* @n bytes of @data go, @answer_n come back into @answer; @fd NULL: none comes along. @seconds: how long an answer may take. */
bool co_vu_ask(struct vu_link *l, enum vu_request request, const void *data, uint32_t n, void *answer, uint32_t answer_n, int *fd, unsigned seconds,
               struct err *e) MUST_CHECK;
/*
 * The beginning ("Feature negotiation"): ->features, ->protocol; of the protocol's features, @known are used, and those of @needed a must,
 * for @what. The back end has @n_rings.
 */
bool co_vu_features(struct vu_link *l, struct err *e) MUST_CHECK;
bool co_vu_agree(struct vu_link *l, uint64_t known, uint64_t needed, const char *what, unsigned n_rings, struct err *e) MUST_CHECK;
/* The first @n bytes of the device's configuration, 256 at most. */
bool co_vu_read_config(struct vu_link *l, void *config, uint32_t n, struct err *e) MUST_CHECK;
/* The peer closed its end. ANY */
bool vu_link_hung_up(const struct vu_link *l);

#endif
