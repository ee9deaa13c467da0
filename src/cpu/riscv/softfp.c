/* SPDX-License-Identifier: MIT */
#include "cpu/riscv/softfp.h"

#include "base/bits.h"

typedef unsigned __int128 u128;

const struct sf_fmt sf_half = { 5, 10 }, sf_single = { 8, 23 }, sf_double = { 11, 52 };

enum kind { ZERO, FINITE, INF, NAN_ };

/* A value (-1)^neg * sig * 2^(exp - 63); bit 63 of sig is set when FINITE. */
struct num { enum kind kind; bool neg; int exp; uint64_t sig; };

static int bias(const struct sf_fmt *f) { return (1 << (f->ebits - 1)) - 1; }

static struct num unpack(const struct sf_fmt *f, uint64_t a)
{
    struct num n = { .neg = (a & sf_sign_bit(f)) != 0 };
    uint64_t frac = a & (BIT64(f->mbits) - 1);
    int e = (int)(a >> f->mbits & (BIT64(f->ebits) - 1));
    if (e == (1 << f->ebits) - 1) {
        n.kind = frac ? NAN_ : INF;
    } else if (e == 0) {
        n.kind = frac ? FINITE : ZERO;
        if (frac) {
            unsigned z = clz64(frac);
            n.sig = frac << z;
            n.exp = 1 - bias(f) + (63 - (int)z - f->mbits);
        }
    } else {
        n.kind = FINITE;
        n.sig = (frac | BIT64(f->mbits)) << (63 - f->mbits);
        n.exp = e - bias(f);
    }
    return n;
}

static bool round_up(unsigned rm, bool neg, bool odd, bool half, bool rest)
{
    switch (rm) {
    case RM_RNE: return half && (rest || odd);
    case RM_RDN: return neg && (half || rest);
    case RM_RUP: return !neg && (half || rest);
    case RM_RMM: return half;
    default: return false;
    }
}

/* Drops the low @n bits of sig (1 <= n): quotient, first dropped bit, whether anything lies below it. */
static uint64_t split(uint64_t sig, bool sticky, unsigned n, bool *half, bool *rest)
{
    if (n > 64) {
        *half = false;
        *rest = sig || sticky;
        return 0;
    }
    *half = sig >> (n - 1) & 1;
    *rest = (sig & (BIT64(n - 1) - 1)) || sticky;
    return n == 64 ? 0 : sig >> n;
}

static uint64_t overflow(const struct sf_fmt *f, bool neg, unsigned rm, uint8_t *fl)
{
    *fl |= FF_OF | FF_NX;
    bool inf = rm == RM_RNE || rm == RM_RMM || (rm == RM_RDN && neg) || (rm == RM_RUP && !neg);
    return (neg ? sf_sign_bit(f) : 0) | (sf_inf(f) - !inf);
}

/* Rounds sig * 2^(exp - 63) (plus a little if sticky) into the format. sig has bit 63 set. */
static uint64_t round_pack(const struct sf_fmt *f, bool neg, int exp, uint64_t sig, bool sticky, unsigned rm, uint8_t *fl)
{
    unsigned p = f->mbits + 1u, drop = 64 - p;
    int emin = 1 - bias(f);
    bool half, rest, tiny = false;
    uint64_t sign = neg ? sf_sign_bit(f) : 0, q;

    if (exp < emin) {
        q = split(sig, sticky, drop, &half, &rest);
        bool carries = q + round_up(rm, neg, q & 1, half, rest) == BIT64(p);
        tiny = !(exp == emin - 1 && carries);
        drop += (unsigned)(emin - exp);
    }
    q = split(sig, sticky, drop, &half, &rest);
    q += round_up(rm, neg, q & 1, half, rest);
    if (half || rest)
        *fl |= FF_NX | (tiny ? FF_UF : 0);
    if (exp < emin)
        return sign | q;            /* a carry into bit mbits is the smallest normal number */
    if (q == BIT64(p)) {
        q >>= 1;
        exp++;
    }
    if (exp > bias(f))
        return overflow(f, neg, rm, fl);
    return sign | (uint64_t)(exp + bias(f)) << f->mbits | (q & (BIT64(f->mbits) - 1));
}

static unsigned clz128(u128 v) { return (uint64_t)(v >> 64) ? clz64((uint64_t)(v >> 64)) : 64 + clz64((uint64_t)v); }

/* Rounds v * 2^(exp - 127); v != 0. */
static uint64_t round_pack128(const struct sf_fmt *f, bool neg, int exp, u128 v, unsigned rm, uint8_t *fl)
{
    unsigned z = clz128(v);
    v <<= z;
    return round_pack(f, neg, exp - (int)z, (uint64_t)(v >> 64), (uint64_t)v != 0, rm, fl);
}

static u128 shift_jam(u128 v, unsigned n)
{
    if (n == 0)
        return v;
    if (n > 127)
        return v != 0;
    return v >> n | ((v & (((u128)1 << n) - 1)) != 0);
}

static uint64_t nan_result(const struct sf_fmt *f, bool invalid, uint8_t *fl)
{
    if (invalid)
        *fl |= FF_NV;
    return sf_nan(f);
}

/* Adds two finite non-zero numbers given as 128-bit significands with the top two bits clear. */
static uint64_t add_aligned(const struct sf_fmt *f, bool an, int ae, u128 a, bool bn, int be, u128 b, unsigned rm, uint8_t *fl)
{
    if (ae < be || (ae == be && a < b)) {
        bool tn = an; an = bn; bn = tn;
        int te = ae; ae = be; be = te;
        u128 tv = a; a = b; b = tv;
    }
    b = shift_jam(b, (unsigned)(ae - be));
    /* The significands need not be normalized: the larger exponent may carry the smaller value. */
    bool neg = an;
    u128 sum;
    if (an == bn) {
        sum = a + b;
    } else if (a >= b) {
        sum = a - b;
    } else {
        sum = b - a;
        neg = bn;
    }
    if (!sum)
        return rm == RM_RDN ? sf_sign_bit(f) : 0;
    return round_pack128(f, neg, ae, sum, rm, fl);
}

uint64_t sf_add(const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(f, a), y = unpack(f, b);
    if (x.kind == NAN_ || y.kind == NAN_)
        return nan_result(f, sf_is_snan(f, a) || sf_is_snan(f, b), fl);
    if (x.kind == INF || y.kind == INF) {
        if (x.kind == y.kind && x.neg != y.neg)
            return nan_result(f, true, fl);
        return x.kind == INF ? a : b;
    }
    if (x.kind == ZERO && y.kind == ZERO)
        return x.neg == y.neg ? a : rm == RM_RDN ? sf_sign_bit(f) : 0;
    if (x.kind == ZERO)
        return b;
    if (y.kind == ZERO)
        return a;
    return add_aligned(f, x.neg, x.exp + 2, (u128)x.sig << 62, y.neg, y.exp + 2, (u128)y.sig << 62, rm, fl);
}

uint64_t sf_mul(const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(f, a), y = unpack(f, b);
    uint64_t sign = x.neg != y.neg ? sf_sign_bit(f) : 0;
    if (x.kind == NAN_ || y.kind == NAN_)
        return nan_result(f, sf_is_snan(f, a) || sf_is_snan(f, b), fl);
    if (x.kind == INF || y.kind == INF) {
        if (x.kind == ZERO || y.kind == ZERO)
            return nan_result(f, true, fl);
        return sign | sf_inf(f);
    }
    if (x.kind == ZERO || y.kind == ZERO)
        return sign;
    return round_pack128(f, sign != 0, x.exp + y.exp + 1, (u128)x.sig * y.sig, rm, fl);
}

uint64_t sf_div(const struct sf_fmt *f, uint64_t a, uint64_t b, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(f, a), y = unpack(f, b);
    uint64_t sign = x.neg != y.neg ? sf_sign_bit(f) : 0;
    if (x.kind == NAN_ || y.kind == NAN_)
        return nan_result(f, sf_is_snan(f, a) || sf_is_snan(f, b), fl);
    if (x.kind == INF || y.kind == INF) {
        if (x.kind == y.kind)
            return nan_result(f, true, fl);
        return x.kind == INF ? sign | sf_inf(f) : sign;
    }
    if (y.kind == ZERO) {
        if (x.kind == ZERO)
            return nan_result(f, true, fl);
        *fl |= FF_DZ;
        return sign | sf_inf(f);
    }
    if (x.kind == ZERO)
        return sign;
    u128 n = (u128)x.sig << 63;
    uint64_t q = (uint64_t)(n / y.sig);
    bool rest = n % y.sig != 0;
    unsigned z = clz64(q);          /* 0 or 1 */
    return round_pack(f, sign != 0, x.exp - y.exp - (int)z, q << z, rest, rm, fl);
}

uint64_t sf_sqrt(const struct sf_fmt *f, uint64_t a, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(f, a);
    if (x.kind == NAN_)
        return nan_result(f, sf_is_snan(f, a), fl);
    if (x.kind == ZERO)
        return a;
    if (x.neg)
        return nan_result(f, true, fl);
    if (x.kind == INF)
        return a;
    /* sqrt(sig * 2^(exp-63)): make the radicand's exponent even, take the root bit by bit. */
    u128 rad = (u128)x.sig << (x.exp & 1 ? 64 : 63), root = 0, rem = 0;
    int e = (x.exp - (x.exp & 1)) / 2;
    for (int i = 63; i >= 0; i--) {
        rem = rem << 2 | (rad >> (2 * i) & 3);
        u128 trial = root << 2 | 1;
        root <<= 1;
        if (rem >= trial) {
            rem -= trial;
            root |= 1;
        }
    }
    return round_pack(f, false, e, (uint64_t)root, rem != 0, rm, fl);
}

uint64_t sf_fma(const struct sf_fmt *f, uint64_t a, uint64_t b, uint64_t c, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(f, a), y = unpack(f, b), z = unpack(f, c);
    bool pneg = x.neg != y.neg;
    bool zero_inf = (x.kind == INF && y.kind == ZERO) || (x.kind == ZERO && y.kind == INF);
    if (zero_inf)
        return nan_result(f, true, fl);         /* even where c is a quiet NaN */
    if (x.kind == NAN_ || y.kind == NAN_ || z.kind == NAN_)
        return nan_result(f, sf_is_snan(f, a) || sf_is_snan(f, b) || sf_is_snan(f, c), fl);
    if (x.kind == INF || y.kind == INF) {
        if (z.kind == INF && z.neg != pneg)
            return nan_result(f, true, fl);
        return (pneg ? sf_sign_bit(f) : 0) | sf_inf(f);
    }
    if (z.kind == INF)
        return c;
    if (x.kind == ZERO || y.kind == ZERO) {
        if (z.kind != ZERO)
            return c;
        return pneg == z.neg ? c : rm == RM_RDN ? sf_sign_bit(f) : 0;
    }
    u128 prod = (u128)x.sig * y.sig;            /* its low bits are zero: at least 22 of them in binary64 */
    int pe = x.exp + y.exp + 1;
    if (z.kind == ZERO)
        return round_pack128(f, pneg, pe, prod, rm, fl);
    return add_aligned(f, pneg, pe + 2, prod >> 2, z.neg, z.exp + 2, (u128)z.sig << 62, rm, fl);
}

uint64_t sf_cvt(const struct sf_fmt *from, const struct sf_fmt *to, uint64_t a, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(from, a);
    uint64_t sign = x.neg ? sf_sign_bit(to) : 0;
    switch (x.kind) {
    case NAN_: return nan_result(to, sf_is_snan(from, a), fl);
    case INF: return sign | sf_inf(to);
    case ZERO: return sign;
    default: return round_pack(to, x.neg, x.exp, x.sig, false, rm, fl);
    }
}

uint64_t sf_from_uint(const struct sf_fmt *f, bool neg, uint64_t mag, unsigned rm, uint8_t *fl)
{
    if (!mag)
        return 0;
    unsigned z = clz64(mag);
    return round_pack(f, neg, 63 - (int)z, mag << z, false, rm, fl);
}

/* The magnitude rounded to an integer; false where it does not fit in 64 bits. */
static bool to_mag(const struct num *x, unsigned rm, uint64_t *mag, bool *inexact)
{
    bool half, rest;
    if (x->exp > 63)
        return false;
    if (x->exp == 63) {
        *mag = x->sig;
        *inexact = false;
        return true;
    }
    *mag = split(x->sig, false, x->exp < -1 ? 65 : (unsigned)(63 - x->exp), &half, &rest);
    *mag += round_up(rm, x->neg, *mag & 1, half, rest);
    *inexact = half || rest;
    return true;
}

static uint64_t sext_width(uint64_t v, unsigned width) { return width == 32 ? (uint64_t)(int64_t)(int32_t)v : v; }

uint64_t sf_to_int(const struct sf_fmt *f, uint64_t a, bool is_signed, unsigned width, unsigned rm, uint8_t *fl)
{
    struct num x = unpack(f, a);
    uint64_t top = width == 64 ? UINT64_MAX : UINT32_MAX;
    uint64_t hi = is_signed ? top >> 1 : top, lo_mag = is_signed ? (top >> 1) + 1 : 0, mag = 0;
    bool inexact = false, fits = true;

    if (x.kind == ZERO)
        return 0;
    if (x.kind == NAN_) {
        *fl |= FF_NV;
        return sext_width(hi, width);
    }
    fits = x.kind == FINITE && to_mag(&x, rm, &mag, &inexact) && mag <= (x.neg ? lo_mag : hi);
    if (!fits) {
        *fl |= FF_NV;
        return sext_width(x.neg ? 0 - lo_mag : hi, width);
    }
    if (inexact)
        *fl |= FF_NX;
    return sext_width(x.neg ? 0 - mag : mag, width);
}

uint64_t sf_round_int(const struct sf_fmt *f, uint64_t a, unsigned rm, bool exact, uint8_t *fl)
{
    struct num x = unpack(f, a);
    uint64_t sign = x.neg ? sf_sign_bit(f) : 0, mag = 0;
    bool inexact = false;
    if (x.kind == NAN_)
        return nan_result(f, sf_is_snan(f, a), fl);
    if (x.kind != FINITE || x.exp >= f->mbits)
        return a;
    to_mag(&x, rm, &mag, &inexact);
    if (inexact && exact)
        *fl |= FF_NX;
    uint8_t none = 0;
    return sign | sf_from_uint(f, false, mag, rm, &none);
}

uint64_t sf_cvtmod_w(uint64_t a, uint8_t *fl)
{
    struct num x = unpack(&sf_double, a);
    if (x.kind == ZERO)
        return 0;
    if (x.kind != FINITE) {
        *fl |= FF_NV;
        return 0;
    }
    uint64_t mag = 0, low;
    bool inexact = false;
    if (x.exp > 63) {
        low = x.exp - 63 >= 64 ? 0 : x.sig << (x.exp - 63);
        *fl |= FF_NV;
    } else {
        to_mag(&x, RM_RTZ, &mag, &inexact);
        low = mag;
        if (mag > (x.neg ? UINT64_C(0x80000000) : UINT64_C(0x7fffffff)))
            *fl |= FF_NV;
        else if (inexact)
            *fl |= FF_NX;
    }
    return sext_width(x.neg ? 0 - low : low, 32);
}

/* A key that orders non-NaN values; -0 and +0 are equal. */
static int64_t order(const struct sf_fmt *f, uint64_t a)
{
    int64_t mag = (int64_t)(a & (sf_sign_bit(f) - 1));
    return a & sf_sign_bit(f) ? -mag : mag;
}

static bool unordered(const struct sf_fmt *f, uint64_t a, uint64_t b, bool quiet, uint8_t *fl)
{
    if (!sf_is_nan(f, a) && !sf_is_nan(f, b))
        return false;
    if (!quiet || sf_is_snan(f, a) || sf_is_snan(f, b))
        *fl |= FF_NV;
    return true;
}

bool sf_eq(const struct sf_fmt *f, uint64_t a, uint64_t b, uint8_t *fl)
{
    return !unordered(f, a, b, true, fl) && order(f, a) == order(f, b);
}

bool sf_lt(const struct sf_fmt *f, uint64_t a, uint64_t b, bool quiet, uint8_t *fl)
{
    return !unordered(f, a, b, quiet, fl) && order(f, a) < order(f, b);
}

bool sf_le(const struct sf_fmt *f, uint64_t a, uint64_t b, bool quiet, uint8_t *fl)
{
    return !unordered(f, a, b, quiet, fl) && order(f, a) <= order(f, b);
}

uint64_t sf_minmax(const struct sf_fmt *f, uint64_t a, uint64_t b, bool max, bool m, uint8_t *fl)
{
    bool na = sf_is_nan(f, a), nb = sf_is_nan(f, b);
    if (sf_is_snan(f, a) || sf_is_snan(f, b))
        *fl |= FF_NV;
    if ((na && nb) || (m && (na || nb)))
        return sf_nan(f);
    if (na || nb)
        return na ? b : a;
    int64_t x = order(f, a), y = order(f, b);
    bool a_less = x < y || (x == y && (a & sf_sign_bit(f)));    /* -0 is less than +0 */
    return a_less != max ? a : b;
}

uint64_t sf_class(const struct sf_fmt *f, uint64_t a)
{
    bool neg = (a & sf_sign_bit(f)) != 0;
    uint64_t mag = a & (sf_sign_bit(f) - 1);
    if (mag > sf_inf(f))
        return BIT64(sf_is_snan(f, a) ? 8 : 9);
    if (mag == sf_inf(f))
        return BIT64(neg ? 0 : 7);
    if (mag >= BIT64(f->mbits))
        return BIT64(neg ? 1 : 6);
    if (mag)
        return BIT64(neg ? 2 : 5);
    return BIT64(neg ? 3 : 4);
}

uint64_t sf_fli(const struct sf_fmt *f, unsigned i)
{
    /* Constants 2..29 as binary32 (all exact there and in binary64); Zfa, table of fli. */
    static const uint32_t value[32] = {
        0xbf800000, 0, 0x37800000, 0x38000000, 0x3b800000, 0x3c000000, 0x3d800000, 0x3e000000, 0x3e800000, 0x3ea00000, 0x3ec00000,
        0x3ee00000, 0x3f000000, 0x3f200000, 0x3f400000, 0x3f600000, 0x3f800000, 0x3fa00000, 0x3fc00000, 0x3fe00000, 0x40000000,
        0x40200000, 0x40400000, 0x40800000, 0x41000000, 0x41800000, 0x43000000, 0x43800000, 0x47000000, 0x47800000, 0x7f800000,
        0x7fc00000,
    };
    uint8_t none = 0;
    if ((i & 31) == 1)
        return BIT64(f->mbits);                 /* the smallest positive normal number of the format */
    return sf_cvt(&sf_single, f, value[i & 31], RM_RNE, &none);
}
