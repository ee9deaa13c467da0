/* SPDX-License-Identifier: MIT */
/*
 * Floating point by the host's FPU, where it does what RISC-V asks for: the rounding mode is the one in force (fpu.h), no operand
 * or result is a NaN that would have to be made canonical, and tininess is found after rounding (as SSE does). Everything else
 * is left to rv_fp_exec(). Host flags stay in the FPU until somebody reads fflags.
 */
#include <float.h>
#include <string.h>

#include "cpu/riscv/fpu.h"
#include "cpu/riscv/interp_int.h"

#ifdef __x86_64__
#include <immintrin.h>

static inline double get_d(const struct hart *h, unsigned r)
{
    double v;
    memcpy(&v, &h->f[r], 8);
    return v;
}
static inline void put_d(struct hart *h, unsigned r, double v) { memcpy(&h->f[r], &v, 8); }
/* Only where the register is boxed. */
static inline float get_s(const struct hart *h, unsigned r)
{
    float v;
    memcpy(&v, &h->f[r], 4);
    return v;
}
static inline void put_s(struct hart *h, unsigned r, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, 4);
    h->f[r] = bits | RV_BOX_S;
}
static inline bool boxed(const struct hart *h, unsigned r) { return h->f[r] >= RV_BOX_S; }

static inline bool fp_on(const struct hart *h) { return h->mstatus & MSTATUS_FS; }
/* The host's rounding mode is the one asked for. */
static inline bool rm_ok(const struct hart *h, const struct rv_insn *in)
{
    return in->rm == RM_DYN ? h->frm <= RM_RUP : in->rm == rv_fpu_host_rm(h);
}

#define ARITH_D(id, arity, expr)                                                                             \
    static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                        \
    {                                                                                                        \
        if (likely(fp_on(h) && rm_ok(h, in))) {                                                              \
            double a = get_d(h, in->rs1), b = arity > 1 ? get_d(h, in->rs2) : 0, v;                          \
            if (likely(a == a && b == b)) {                                                                  \
                v = expr;                                                                                    \
                h->f[in->rd] = RV_NAN_D;                                                                     \
                if (likely(v == v))                                                                          \
                    put_d(h, in->rd, v);                                                                     \
                h->mstatus |= MSTATUS_FS;                                                                    \
                return NEXT;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
        return interp_fp_slow(h, in, pc);                                                                    \
    }
ARITH_D(FADD_D, 2, a + b)
ARITH_D(FSUB_D, 2, a - b)
ARITH_D(FMUL_D, 2, a * b)
ARITH_D(FDIV_D, 2, a / b)
ARITH_D(FSQRT_D, 1, _mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(b), _mm_set_sd(a))))

#define ARITH_S(id, arity, expr)                                                                             \
    static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                        \
    {                                                                                                        \
        if (likely(fp_on(h) && rm_ok(h, in) && boxed(h, in->rs1) && (arity == 1 || boxed(h, in->rs2)))) {    \
            float a = get_s(h, in->rs1), b = arity > 1 ? get_s(h, in->rs2) : 0, v;                           \
            if (likely(a == a && b == b)) {                                                                  \
                v = expr;                                                                                    \
                h->f[in->rd] = RV_NAN_S;                                                                     \
                if (likely(v == v))                                                                          \
                    put_s(h, in->rd, v);                                                                     \
                h->mstatus |= MSTATUS_FS;                                                                    \
                return NEXT;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
        return interp_fp_slow(h, in, pc);                                                                    \
    }
ARITH_S(FADD_S, 2, a + b)
ARITH_S(FSUB_S, 2, a - b)
ARITH_S(FMUL_S, 2, a * b)
ARITH_S(FDIV_S, 2, a / b)
ARITH_S(FSQRT_S, 1, _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(a))))

/* ---- fused, where the host has the instructions ---- */

#define FUSED(id, type, get, put, ok, nan, expr)                                                             \
    __attribute__((target("fma"))) static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc) \
    {                                                                                                        \
        if (likely(fp_on(h) && rm_ok(h, in) && (ok))) {                                                      \
            type a = get(h, in->rs1), b = get(h, in->rs2), c = get(h, in->rs3), v;                           \
            if (likely(a == a && b == b && c == c)) {                                                        \
                v = expr;                                                                                    \
                h->f[in->rd] = nan;                                                                          \
                if (likely(v == v))                                                                          \
                    put(h, in->rd, v);                                                                       \
                h->mstatus |= MSTATUS_FS;                                                                    \
                return NEXT;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
        return interp_fp_slow(h, in, pc);                                                                    \
    }
#define BOXED3 (boxed(h, in->rs1) && boxed(h, in->rs2) && boxed(h, in->rs3))
FUSED(FMADD_D, double, get_d, put_d, true, RV_NAN_D, __builtin_fma(a, b, c))
FUSED(FMSUB_D, double, get_d, put_d, true, RV_NAN_D, __builtin_fma(a, b, -c))
FUSED(FNMSUB_D, double, get_d, put_d, true, RV_NAN_D, __builtin_fma(-a, b, c))
FUSED(FNMADD_D, double, get_d, put_d, true, RV_NAN_D, __builtin_fma(-a, b, -c))
FUSED(FMADD_S, float, get_s, put_s, BOXED3, RV_NAN_S, __builtin_fmaf(a, b, c))
FUSED(FMSUB_S, float, get_s, put_s, BOXED3, RV_NAN_S, __builtin_fmaf(a, b, -c))
FUSED(FNMSUB_S, float, get_s, put_s, BOXED3, RV_NAN_S, __builtin_fmaf(-a, b, c))
FUSED(FNMADD_S, float, get_s, put_s, BOXED3, RV_NAN_S, __builtin_fmaf(-a, b, -c))

/* ---- comparisons: NaNs are the reference's ---- */

#define COMPARE(id, type, get, ok, expr)                                                                     \
    static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                        \
    {                                                                                                        \
        if (likely(fp_on(h) && (ok))) {                                                                      \
            type a = get(h, in->rs1), b = get(h, in->rs2);                                                   \
            if (likely(!__builtin_isunordered(a, b))) {                                                      \
                h->x[in->rd] = expr;                                                                         \
                h->mstatus |= MSTATUS_FS;                                                                    \
                return NEXT;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
        return interp_fp_slow(h, in, pc);                                                                    \
    }
#define BOXED2 (boxed(h, in->rs1) && boxed(h, in->rs2))
COMPARE(FEQ_D, double, get_d, true, a == b)
COMPARE(FLT_D, double, get_d, true, a < b)
COMPARE(FLE_D, double, get_d, true, a <= b)
COMPARE(FEQ_S, float, get_s, BOXED2, a == b)
COMPARE(FLT_S, float, get_s, BOXED2, a < b)
COMPARE(FLE_S, float, get_s, BOXED2, a <= b)

/* ---- signs and moves: bits only ---- */

#define BITS(id, expr)                                                                                       \
    static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                        \
    {                                                                                                        \
        if (unlikely(!fp_on(h)))                                                                             \
            return interp_fp_slow(h, in, pc);                                                                \
        expr;                                                                                                \
        h->mstatus |= MSTATUS_FS;                                                                            \
        return NEXT;                                                                                         \
    }
#define SIGN BIT64(63)
BITS(FSGNJ_D, h->f[in->rd] = (h->f[in->rs1] & ~SIGN) | (h->f[in->rs2] & SIGN))
BITS(FSGNJN_D, h->f[in->rd] = (h->f[in->rs1] & ~SIGN) | (~h->f[in->rs2] & SIGN))
BITS(FSGNJX_D, h->f[in->rd] = h->f[in->rs1] ^ (h->f[in->rs2] & SIGN))
BITS(FMV_X_D, h->x[in->rd] = h->f[in->rs1])
BITS(FMV_D_X, h->f[in->rd] = h->x[in->rs1])
BITS(FMV_X_W, h->x[in->rd] = (uint64_t)(int64_t)(int32_t)h->f[in->rs1])
BITS(FMV_W_X, h->f[in->rd] = (uint32_t)h->x[in->rs1] | RV_BOX_S)

/* ---- conversions ---- */

#define FROM_INT(id, itype)                                                                                  \
    static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                        \
    {                                                                                                        \
        if (unlikely(!fp_on(h) || !rm_ok(h, in)))                                                            \
            return interp_fp_slow(h, in, pc);                                                                \
        put_d(h, in->rd, (double)(itype)h->x[in->rs1]);                                                      \
        h->mstatus |= MSTATUS_FS;                                                                            \
        return NEXT;                                                                                         \
    }
FROM_INT(FCVT_D_W, int32_t)
FROM_INT(FCVT_D_WU, uint32_t)
FROM_INT(FCVT_D_L, int64_t)

static enum step fast_FCVT_D_S(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    float a = get_s(h, in->rs1);
    if (unlikely(!fp_on(h) || !boxed(h, in->rs1) || __builtin_isnan(a) || !rm_ok(h, in)))
        return interp_fp_slow(h, in, pc);
    put_d(h, in->rd, a);
    h->mstatus |= MSTATUS_FS;
    return NEXT;
}

static enum step fast_FCVT_S_D(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    double a = get_d(h, in->rs1);
    if (unlikely(!fp_on(h) || __builtin_isnan(a) || !rm_ok(h, in)))
        return interp_fp_slow(h, in, pc);
    put_s(h, in->rd, (float)a);
    h->mstatus |= MSTATUS_FS;
    return NEXT;
}

/* Towards zero, as every cast of a compiled program; within the target's range, which leaves out NaNs. */
#define TO_INT(id, type, get, ok, low, high, itype)                                                          \
    static enum step fast_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                        \
    {                                                                                                        \
        type a = get(h, in->rs1);                                                                            \
        bool rtz = in->rm == RM_RTZ || (in->rm == RM_DYN && h->frm == RM_RTZ);                               \
        if (unlikely(!fp_on(h) || !rtz || !(ok) || !__builtin_isgreater(a, (type)(low)) || !__builtin_isless(a, (type)(high)))) \
            return interp_fp_slow(h, in, pc);                                                                \
        h->x[in->rd] = (uint64_t)(int64_t)(itype)(int64_t)a;                                                 \
        h->mstatus |= MSTATUS_FS;                                                                            \
        return NEXT;                                                                                         \
    }
TO_INT(FCVT_W_D, double, get_d, true, -2147483648.0, 2147483647.0, int32_t)
TO_INT(FCVT_L_D, double, get_d, true, -0x1p63, 0x1p63, int64_t)
TO_INT(FCVT_W_S, float, get_s, boxed(h, in->rs1), -0x1p31, 0x1p31, int32_t)
TO_INT(FCVT_L_S, float, get_s, boxed(h, in->rs1), -0x1p63, 0x1p63, int64_t)

#define ROW(id) [RV_OP_##id] = fast_##id
static interp_fn *const fast[RV_OP_COUNT] = {
    ROW(FADD_D), ROW(FSUB_D), ROW(FMUL_D), ROW(FDIV_D), ROW(FSQRT_D), ROW(FADD_S), ROW(FSUB_S), ROW(FMUL_S), ROW(FDIV_S), ROW(FSQRT_S),
    ROW(FEQ_D), ROW(FLT_D), ROW(FLE_D), ROW(FEQ_S), ROW(FLT_S), ROW(FLE_S), ROW(FSGNJ_D), ROW(FSGNJN_D), ROW(FSGNJX_D), ROW(FMV_X_D),
    ROW(FMV_D_X), ROW(FMV_X_W), ROW(FMV_W_X), ROW(FCVT_D_W), ROW(FCVT_D_WU), ROW(FCVT_D_L), ROW(FCVT_D_S), ROW(FCVT_S_D), ROW(FCVT_W_D),
    ROW(FCVT_L_D), ROW(FCVT_W_S), ROW(FCVT_L_S),
};
static interp_fn *const fast_fused[RV_OP_COUNT] = {
    ROW(FMADD_D), ROW(FMSUB_D), ROW(FNMSUB_D), ROW(FNMADD_D), ROW(FMADD_S), ROW(FMSUB_S), ROW(FNMSUB_S), ROW(FNMADD_S),
};

interp_fn *interp_fp_fast(unsigned op)
{
    return fast[op] ? fast[op] : __builtin_cpu_supports("fma") ? fast_fused[op] : NULL;
}
#else
interp_fn *interp_fp_fast(unsigned op) { return NULL; }
#endif
