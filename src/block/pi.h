/* SPDX-License-Identifier: MIT */
/*
 * Protection information, end to end (NVM Command Set 5.2; SBC-4, 4.21): tuples made and checked, whatever the protocol that shows
 * them. Pure functions, ANY.
 */
#ifndef BLOCK_PI_H
#define BLOCK_PI_H

#include <stdbool.h>
#include <stdint.h>

enum { PIF_16 = 0, PIF_32 = 1, PIF_64 = 2 };         /* guard formats, 5.2.1; SCSI has the first */
enum { PI_CHECK_REF = 1, PI_CHECK_APP = 2, PI_CHECK_GUARD = 4 };        /* as in PRINFO, 5.2.2 */
enum pi_result { PI_OK, PI_WRONG_GUARD, PI_WRONG_APP, PI_WRONG_REF, PI_WRONG_STORAGE };

/* How blocks are protected, and what a command says of it. */
struct pi {
    uint8_t type;                   /* 1 to 3 */
    uint8_t pif;
    bool first;                     /* the tuple is the first bytes of the metadata, not the last */
    uint8_t sts;                    /* storage tag bits */
    uint16_t ms;
    uint32_t block;                 /* bytes of data in one */
    uint8_t checks;                 /* PI_CHECK_* */
    bool check_storage;             /* STC */
    uint16_t app, app_mask;
    uint64_t ref, storage;          /* of the first block */
};

uint16_t pi_crc16_t10(uint16_t crc, const void *p, uint64_t n);
uint32_t pi_crc32c(uint32_t crc, const void *p, uint64_t n);      /* begin with 0 */
uint64_t pi_crc64(uint64_t crc, const void *p, uint64_t n);       /* begin with 0 */
/* Bytes of a tuple. */
static inline unsigned pi_size(uint8_t pif) { return pif == PIF_16 ? 8 : 16; }
/* Bits of the reference tag: what the storage tag leaves of the 32, 80 or 48. */
static inline unsigned pi_ref_bits(uint8_t pif, uint8_t sts)
{
    unsigned all = pif == PIF_16 ? 32 : pif == PIF_32 ? 80 : 48;
    return all - sts > 64 ? 64 : all - sts;
}
/* Writes the tuples of @nlb blocks of @data into their metadata. */
void pi_generate(const struct pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb);
/* Checks them as pi->checks says; what is wrong with the first that fails, whose number goes to @at (may be NULL). */
enum pi_result pi_check(const struct pi *pi, const uint8_t *data, const uint8_t *meta, uint64_t nlb, uint64_t *at);
/* The same for what comes from the medium: a block of nothing but zeroes, metadata too, that fails was never written. It passes, and
 * its tuple becomes one that switches checks off (the image of a new drive is all zeroes). */
enum pi_result pi_check_read(const struct pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb);

#endif
