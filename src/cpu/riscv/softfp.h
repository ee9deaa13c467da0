/* SPDX-License-Identifier: MIT */
/*
 * IEEE 754 binary16, binary32 and binary64 in integer code: exact results and exact flags in all five RISC-V rounding modes.
 * Values are raw bits. NaN results are the canonical NaN; tininess is detected after rounding (Unprivileged ISA, "F" extension).
 * Thread: ANY (pure functions).
 */
#ifndef CPU_RISCV_SOFTFP_H
#define CPU_RISCV_SOFTFP_H

#include <stdbool.h>
#include <stdint.h>

enum { RM_RNE = 0, RM_RTZ = 1, RM_RDN = 2, RM_RUP = 3, RM_RMM = 4, RM_DYN = 7 };
enum { FF_NX = 1, FF_UF = 2, FF_OF = 4, FF_DZ = 8, FF_NV = 16 };

struct sf_fmt { uint8_t ebits, mbits; };
extern const struct sf_fmt sf_half, sf_single, sf_double;

static inline uint64_t sf_sign_bit(const struct sf_fmt *f) { return UINT64_C(1) << (f->ebits + f->mbits); }
static inline uint64_t sf_inf(const struct sf_fmt *f) { return ((UINT64_C(1) << f->ebits) - 1) << f->mbits; }
static inline uint64_t sf_nan(const struct sf_fmt *f) { return sf_inf(f) | UINT64_C(1) << (f->mbits - 1); }
static inline bool sf_is_nan(const struct sf_fmt *f, uint64_t a) { return (a & (sf_sign_bit(f) - 1)) > sf_inf(f); }
static inline bool sf_is_snan(const struct sf_fmt *f, uint64_t a)
{
    return sf_is_nan(f, a) && !(a >> (f->mbits - 1) & 1);
}

/* Each ORs the exceptions raised into *@fl. */
uint64_t sf_add(const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl);
uint64_t sf_mul(const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl);
uint64_t sf_div(const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl);
uint64_t sf_sqrt(const struct sf_fmt *f, uint64_t a, unsigned rm, uint8_t *fl);
/* a * b + c, rounded once. */
uint64_t sf_fma(const struct sf_fmt *f, uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *fl);
uint64_t sf_cvt(const struct sf_fmt *from, const struct sf_fmt *to, uint64_t a, unsigned rm, uint8_t *fl);
/* Magnitude and sign to floating point. */
uint64_t sf_from_uint(const struct sf_fmt *f, bool neg, uint64_t mag, unsigned rm, uint8_t *fl);
/* To a 32- or 64-bit integer, saturating as fcvt does; a 32-bit result is sign-extended. */
uint64_t sf_to_int(const struct sf_fmt *f, uint64_t a, bool is_signed, unsigned width, unsigned rm, uint8_t *fl);
/* To an integral value in the same format; @exact raises NX where the value changes (froundnx). */
uint64_t sf_round_int(const struct sf_fmt *f, uint64_t a, unsigned rm, bool exact, uint8_t *fl);
/* fcvtmod.w.d: truncated, modulo 2^32, sign-extended; flags as fcvt.w.d. */
uint64_t sf_cvtmod_w(uint64_t a, uint8_t *fl);
/* @quiet: only signalling NaNs raise NV. */
bool sf_eq(const struct sf_fmt *f, uint64_t a, uint64_t b, uint8_t *fl);
bool sf_lt(const struct sf_fmt *f, uint64_t a, uint64_t b, bool quiet, uint8_t *fl);
bool sf_le(const struct sf_fmt *f, uint64_t a, uint64_t b, bool quiet, uint8_t *fl);
/* fmin, fmax; @m: the Zfa forms, where a NaN wins. */
uint64_t sf_minmax(const struct sf_fmt *f, uint64_t a, uint64_t b, bool max, bool m, uint8_t *fl);
/* fclass's one-hot result. */
uint64_t sf_class(const struct sf_fmt *f, uint64_t a);
/* fli's constant @i. */
uint64_t sf_fli(const struct sf_fmt *f, unsigned i);

#endif
