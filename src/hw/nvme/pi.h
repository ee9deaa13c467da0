/* SPDX-License-Identifier: MIT */
/* End-to-end protection information (NVM Command Set 5.2): tuples made and checked. Pure functions, ANY. */
#ifndef HW_NVME_PI_H
#define HW_NVME_PI_H

#include <stdbool.h>
#include <stdint.h>

enum { NVME_PIF_16 = 0, NVME_PIF_32 = 1, NVME_PIF_64 = 2 };         /* guard formats, 5.2.1 */
enum { NVME_PRCHK_REF = 1, NVME_PRCHK_APP = 2, NVME_PRCHK_GUARD = 4, NVME_PRACT = 8 };      /* PRINFO, 5.2.2 */

/* How blocks are protected, and what a command says of it. */
struct nvme_pi {
    uint8_t type;                   /* 1 to 3 */
    uint8_t pif;
    bool first;                     /* the tuple is the first bytes of the metadata, not the last */
    uint8_t sts;                    /* storage tag bits */
    uint16_t ms;
    uint32_t block;                 /* bytes of data in one */
    uint8_t prinfo;                 /* NVME_PRCHK_*, NVME_PRACT */
    bool check_storage;             /* STC */
    uint16_t app, app_mask;
    uint64_t ref, storage;          /* of the first block */
};

uint16_t nvme_crc16_t10(uint16_t crc, const void *p, uint64_t n);
uint32_t nvme_crc32c(uint32_t crc, const void *p, uint64_t n);      /* begin with 0 */
uint64_t nvme_crc64(uint64_t crc, const void *p, uint64_t n);       /* begin with 0 */
/* Bytes of a tuple. */
static inline unsigned nvme_pi_size(uint8_t pif) { return pif == NVME_PIF_16 ? 8 : 16; }
/* Bits of the reference tag: what the storage tag leaves of the 32, 80 or 48. */
static inline unsigned nvme_pi_ref_bits(uint8_t pif, uint8_t sts)
{
    unsigned all = pif == NVME_PIF_16 ? 32 : pif == NVME_PIF_32 ? 80 : 48;
    return all - sts > 64 ? 64 : all - sts;
}
/* Writes the tuples of @nlb blocks of @data into their metadata. */
void nvme_pi_generate(const struct nvme_pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb);
/* Checks them as pi->prinfo says; 0 or the status of the first that fails. */
uint16_t nvme_pi_check(const struct nvme_pi *pi, const uint8_t *data, const uint8_t *meta, uint64_t nlb);
/* The same for what comes from the medium: a block of nothing but zeroes, metadata too, that fails was never written. It passes, and
 * its tuple becomes one that switches checks off (the image of a new drive is all zeroes). */
uint16_t nvme_pi_check_read(const struct nvme_pi *pi, const uint8_t *data, uint8_t *meta, uint64_t nlb);

#endif
