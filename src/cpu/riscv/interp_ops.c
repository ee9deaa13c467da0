/* SPDX-License-Identifier: MIT */
/*
 * The interpreter: one handler an operation, over pages of predecoded instructions. A page's instructions are decoded from a
 * copy of its bytes when they are first met; fence.i makes every copy be compared with memory before it is used again, which
 * is all the coherence that the ISA promises between stores and fetches.
 */
#include <stdlib.h>

#include "cpu/riscv/fpu.h"
#include "cpu/riscv/interp_int.h"
#include "cpu/riscv/mmu.h"

#define S64(v) ((int64_t)(v))
#define SX32(v) ((uint64_t)(int64_t)(int32_t)(v))
#define A (h->x[in->rs1])
#define B (h->x[in->rs2])
#define IMM ((uint64_t)(int64_t)in->imm)

/* Results to x0 go to a register that nobody reads: rd 0 was replaced by 32 when the instruction was decoded. */
#define OP(id, expr) \
    static enum step op_##id(struct hart *h, const struct rv_insn *in, uint64_t pc) { h->x[in->rd] = (uint64_t)(expr); return NEXT; }

static int64_t div_s(int64_t a, int64_t b) { return !b ? -1 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b; }
static int64_t rem_s(int64_t a, int64_t b) { return !b ? a : b == -1 ? 0 : a % b; }
static uint64_t ror64(uint64_t a, uint64_t n) { return n & 63 ? a >> (n & 63) | a << (64 - (n & 63)) : a; }
static uint32_t ror32(uint32_t a, uint64_t n) { return n & 31 ? a >> (n & 31) | a << (32 - (n & 31)) : a; }

static uint64_t orc_b(uint64_t a)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 64; i += 8)
        v |= a >> i & 0xff ? UINT64_C(0xff) << i : 0;
    return v;
}

static uint64_t clmul(uint64_t a, uint64_t b)
{
    uint64_t v = 0;
    for (; b; b &= b - 1)
        v ^= a << ctz64(b);
    return v;
}

static uint64_t clmulr(uint64_t a, uint64_t b)
{
    uint64_t v = 0;
    for (; b; b &= b - 1)
        v ^= a >> (63 - ctz64(b));
    return v;
}

OP(LUI, IMM)
OP(AUIPC, pc + IMM)
OP(ADDI, A + IMM)
OP(SLTI, S64(A) < S64(IMM))
OP(SLTIU, A < IMM)
OP(XORI, A ^ IMM)
OP(ORI, A | IMM)
OP(ANDI, A & IMM)
OP(SLLI, A << in->imm)
OP(SRLI, A >> in->imm)
OP(SRAI, S64(A) >> in->imm)
OP(ADDIW, SX32(A + IMM))
OP(SLLIW, SX32((uint32_t)A << in->imm))
OP(SRLIW, SX32((uint32_t)A >> in->imm))
OP(SRAIW, (int64_t)((int32_t)A >> in->imm))
OP(ADD, A + B)
OP(SUB, A - B)
OP(SLL, A << (B & 63))
OP(SLT, S64(A) < S64(B))
OP(SLTU, A < B)
OP(XOR, A ^ B)
OP(SRL, A >> (B & 63))
OP(SRA, S64(A) >> (B & 63))
OP(OR, A | B)
OP(AND, A & B)
OP(ADDW, SX32(A + B))
OP(SUBW, SX32(A - B))
OP(SLLW, SX32((uint32_t)A << (B & 31)))
OP(SRLW, SX32((uint32_t)A >> (B & 31)))
OP(SRAW, (int64_t)((int32_t)A >> (B & 31)))
OP(MUL, A * B)
OP(MULH, ((__int128)S64(A) * S64(B)) >> 64)
OP(MULHSU, ((__int128)S64(A) * (__int128)(unsigned __int128)B) >> 64)
OP(MULHU, ((unsigned __int128)A * B) >> 64)
OP(DIV, div_s(S64(A), S64(B)))
OP(DIVU, B ? A / B : UINT64_MAX)
OP(REM, rem_s(S64(A), S64(B)))
OP(REMU, B ? A % B : A)
OP(MULW, SX32(A * B))
OP(DIVW, SX32(div_s((int32_t)A, (int32_t)B)))
OP(DIVUW, SX32((uint32_t)B ? (uint32_t)A / (uint32_t)B : UINT32_MAX))
OP(REMW, SX32(rem_s((int32_t)A, (int32_t)B)))
OP(REMUW, SX32((uint32_t)B ? (uint32_t)A % (uint32_t)B : (uint32_t)A))
OP(ADD_UW, (uint32_t)A + B)
OP(SH1ADD, (A << 1) + B)
OP(SH2ADD, (A << 2) + B)
OP(SH3ADD, (A << 3) + B)
OP(SH1ADD_UW, ((uint64_t)(uint32_t)A << 1) + B)
OP(SH2ADD_UW, ((uint64_t)(uint32_t)A << 2) + B)
OP(SH3ADD_UW, ((uint64_t)(uint32_t)A << 3) + B)
OP(SLLI_UW, (uint64_t)(uint32_t)A << in->imm)
OP(ANDN, A & ~B)
OP(ORN, A | ~B)
OP(XNOR, ~(A ^ B))
OP(CLZ, clz64(A))
OP(CTZ, ctz64(A))
OP(CPOP, __builtin_popcountll(A))
OP(CLZW, clz64((uint32_t)A) - 32)
OP(CTZW, (uint32_t)A ? ctz64((uint32_t)A) : 32)
OP(CPOPW, __builtin_popcount((uint32_t)A))
OP(MAX, S64(A) > S64(B) ? A : B)
OP(MAXU, A > B ? A : B)
OP(MIN, S64(A) < S64(B) ? A : B)
OP(MINU, A < B ? A : B)
OP(SEXT_B, (int64_t)(int8_t)A)
OP(SEXT_H, (int64_t)(int16_t)A)
OP(ZEXT_H, (uint16_t)A)
OP(ROL, ror64(A, 64 - (B & 63)))
OP(ROR, ror64(A, B))
OP(RORI, ror64(A, (uint64_t)in->imm))
OP(ROLW, SX32(ror32((uint32_t)A, 32 - (B & 31))))
OP(RORW, SX32(ror32((uint32_t)A, B)))
OP(RORIW, SX32(ror32((uint32_t)A, (uint64_t)in->imm)))
OP(ORC_B, orc_b(A))
OP(REV8, __builtin_bswap64(A))
OP(CLMUL, clmul(A, B))
OP(CLMULR, clmulr(A, B))
OP(CLMULH, clmulr(A, B) >> 1)
OP(BCLR, A & ~BIT64(B & 63))
OP(BEXT, A >> (B & 63) & 1)
OP(BINV, A ^ BIT64(B & 63))
OP(BSET, A | BIT64(B & 63))
OP(BCLRI, A & ~BIT64(in->imm))
OP(BEXTI, A >> in->imm & 1)
OP(BINVI, A ^ BIT64(in->imm))
OP(BSETI, A | BIT64(in->imm))
OP(CZERO_EQZ, B ? A : 0)
OP(CZERO_NEZ, B ? 0 : A)

/* ---- jumps ---- */

static enum step jump(struct hart *h, uint64_t to)
{
    if (unlikely(to & 2) && !rv_has(h, RV_EXT_C)) {
        rv_trap_set(h, RV_EXC_FETCH_MISALIGNED, to);
        return TRAP;
    }
    h->pc = to;
    return NEXT;
}

#define BRANCH(id, cond) \
    static enum step op_##id(struct hart *h, const struct rv_insn *in, uint64_t pc) { return cond ? jump(h, pc + IMM) : NEXT; }
BRANCH(BEQ, A == B)
BRANCH(BNE, A != B)
BRANCH(BLT, S64(A) < S64(B))
BRANCH(BGE, S64(A) >= S64(B))
BRANCH(BLTU, A < B)
BRANCH(BGEU, A >= B)

static enum step op_JAL(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    enum step s = jump(h, pc + IMM);
    if (s == NEXT)
        h->x[in->rd] = pc + in->len;
    return s;
}

static enum step op_JALR(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    enum step s = jump(h, (A + IMM) & ~UINT64_C(1));
    if (s == NEXT)
        h->x[in->rd] = pc + in->len;
    return s;
}

/* ---- loads and stores ---- */

#define FAST_RD(va, size) (likely(((va) & (RV_PAGE_MASK | (size - 1))) == h->dtlb->e[(va) >> RV_PAGE_BITS & (RV_TLB_SIZE - 1)].rd))
#define FAST_WR(va, size) (likely(((va) & (RV_PAGE_MASK | (size - 1))) == h->dtlb->e[(va) >> RV_PAGE_BITS & (RV_TLB_SIZE - 1)].wr))
#define HOST(va, type) ((type *)((va) + h->dtlb->e[(va) >> RV_PAGE_BITS & (RV_TLB_SIZE - 1)].addend))

#define LOAD(id, type, ext) \
    static enum step op_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                          \
    {                                                                                                        \
        uint64_t va = A + IMM, v;                                                                            \
        if (FAST_RD(va, sizeof(type)))                                                                       \
            v = (uint64_t)(ext)__atomic_load_n(HOST(va, type), __ATOMIC_RELAXED);                            \
        else if (rv_load(h, va, sizeof(type), &v))                                                           \
            v = (uint64_t)(ext)(type)v;                                                                      \
        else                                                                                                 \
            return TRAP;                                                                                     \
        h->x[in->rd] = v;                                                                                    \
        return NEXT;                                                                                         \
    }
LOAD(LB, int8_t, int64_t)
LOAD(LH, int16_t, int64_t)
LOAD(LW, int32_t, int64_t)
LOAD(LD, uint64_t, uint64_t)
LOAD(LBU, uint8_t, uint64_t)
LOAD(LHU, uint16_t, uint64_t)
LOAD(LWU, uint32_t, uint64_t)

#define STORE(id, type, value) \
    static enum step op_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                          \
    {                                                                                                        \
        uint64_t va = A + IMM;                                                                               \
        if (FAST_WR(va, sizeof(type))) {                                                                     \
            __atomic_store_n(HOST(va, type), (type)(value), __ATOMIC_RELAXED);                               \
            return NEXT;                                                                                     \
        }                                                                                                    \
        return rv_store(h, va, sizeof(type), (type)(value)) ? NEXT : TRAP;                                   \
    }
STORE(SB, uint8_t, B)
STORE(SH, uint16_t, B)
STORE(SW, uint32_t, B)
STORE(SD, uint64_t, B)

static enum step op_amo(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    struct rv_insn i = *in;
    i.rd &= 31;
    return rv_amo(h, &i) ? NEXT : TRAP;
}

/* ---- floating point ---- */

static enum step illegal(struct hart *h, const struct rv_insn *in)
{
    rv_trap_set(h, RV_EXC_ILLEGAL, in->raw);
    return TRAP;
}

static bool fp_on(struct hart *h)
{
    return h->mstatus & MSTATUS_FS;
}

enum step interp_fp_slow(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    struct rv_insn i = *in;
    enum rv_format f = (enum rv_format)rv_insn_rows[in->op].fmt;
    if (f == RV_FMT_FCMP || f == RV_FMT_F2X || f == RV_FMT_FX)
        i.rd &= 31;
    if (!fp_on(h) || !rv_fp_exec(h, &i))
        return illegal(h, in);
    h->mstatus |= MSTATUS_FS;
    return NEXT;
}

/* The host's bytes are in the guest's order on every host that this runs on (little endian). */
#define FP_LOAD(id, type, box)                                                                               \
    static enum step op_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                          \
    {                                                                                                        \
        uint64_t va = A + IMM, v;                                                                            \
        if (unlikely(!fp_on(h)))                                                                             \
            return illegal(h, in);                                                                           \
        if (FAST_RD(va, sizeof(type)))                                                                       \
            v = __atomic_load_n(HOST(va, type), __ATOMIC_RELAXED);                                           \
        else if (!rv_load(h, va, sizeof(type), &v))                                                          \
            return TRAP;                                                                                     \
        h->f[in->rd] = v | (box);                                                                            \
        h->mstatus |= MSTATUS_FS;                                                                            \
        return NEXT;                                                                                         \
    }
FP_LOAD(FLW, uint32_t, RV_BOX_S)
FP_LOAD(FLD, uint64_t, 0)
FP_LOAD(FLH, uint16_t, RV_BOX_H)

#define FP_STORE(id, type)                                                                                   \
    static enum step op_##id(struct hart *h, const struct rv_insn *in, uint64_t pc)                          \
    {                                                                                                        \
        uint64_t va = A + IMM;                                                                               \
        if (unlikely(!fp_on(h)))                                                                             \
            return illegal(h, in);                                                                           \
        if (FAST_WR(va, sizeof(type))) {                                                                     \
            __atomic_store_n(HOST(va, type), (type)h->f[in->rs2], __ATOMIC_RELAXED);                         \
            return NEXT;                                                                                     \
        }                                                                                                    \
        return rv_store(h, va, sizeof(type), (type)h->f[in->rs2]) ? NEXT : TRAP;                             \
    }
FP_STORE(FSW, uint32_t)
FP_STORE(FSD, uint64_t)
FP_STORE(FSH, uint16_t)

static enum step op_sys(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    return interp_system(h, in, pc);
}

static enum step op_ILLEGAL(struct hart *h, const struct rv_insn *in, uint64_t pc)
{
    return illegal(h, in);
}

static interp_fn *const handlers[RV_OP_COUNT] = {
    [RV_OP_ILLEGAL] = op_ILLEGAL,
    [RV_OP_LUI] = op_LUI,
    [RV_OP_AUIPC] = op_AUIPC,
    [RV_OP_JAL] = op_JAL,
    [RV_OP_JALR] = op_JALR,
    [RV_OP_BEQ] = op_BEQ,
    [RV_OP_BNE] = op_BNE,
    [RV_OP_BLT] = op_BLT,
    [RV_OP_BGE] = op_BGE,
    [RV_OP_BLTU] = op_BLTU,
    [RV_OP_BGEU] = op_BGEU,
    [RV_OP_LB] = op_LB,
    [RV_OP_LH] = op_LH,
    [RV_OP_LW] = op_LW,
    [RV_OP_LD] = op_LD,
    [RV_OP_LBU] = op_LBU,
    [RV_OP_LHU] = op_LHU,
    [RV_OP_LWU] = op_LWU,
    [RV_OP_SB] = op_SB,
    [RV_OP_SH] = op_SH,
    [RV_OP_SW] = op_SW,
    [RV_OP_SD] = op_SD,
    [RV_OP_ADDI] = op_ADDI,
    [RV_OP_SLTI] = op_SLTI,
    [RV_OP_SLTIU] = op_SLTIU,
    [RV_OP_XORI] = op_XORI,
    [RV_OP_ORI] = op_ORI,
    [RV_OP_ANDI] = op_ANDI,
    [RV_OP_SLLI] = op_SLLI,
    [RV_OP_SRLI] = op_SRLI,
    [RV_OP_SRAI] = op_SRAI,
    [RV_OP_ADDIW] = op_ADDIW,
    [RV_OP_SLLIW] = op_SLLIW,
    [RV_OP_SRLIW] = op_SRLIW,
    [RV_OP_SRAIW] = op_SRAIW,
    [RV_OP_ADD] = op_ADD,
    [RV_OP_SUB] = op_SUB,
    [RV_OP_SLL] = op_SLL,
    [RV_OP_SLT] = op_SLT,
    [RV_OP_SLTU] = op_SLTU,
    [RV_OP_XOR] = op_XOR,
    [RV_OP_SRL] = op_SRL,
    [RV_OP_SRA] = op_SRA,
    [RV_OP_OR] = op_OR,
    [RV_OP_AND] = op_AND,
    [RV_OP_ADDW] = op_ADDW,
    [RV_OP_SUBW] = op_SUBW,
    [RV_OP_SLLW] = op_SLLW,
    [RV_OP_SRLW] = op_SRLW,
    [RV_OP_SRAW] = op_SRAW,
    [RV_OP_FENCE] = op_sys,
    [RV_OP_FENCE_I] = op_sys,
    [RV_OP_ECALL] = op_sys,
    [RV_OP_EBREAK] = op_sys,
    [RV_OP_CSRRW] = op_sys,
    [RV_OP_CSRRS] = op_sys,
    [RV_OP_CSRRC] = op_sys,
    [RV_OP_CSRRWI] = op_sys,
    [RV_OP_CSRRSI] = op_sys,
    [RV_OP_CSRRCI] = op_sys,
    [RV_OP_MUL] = op_MUL,
    [RV_OP_MULH] = op_MULH,
    [RV_OP_MULHSU] = op_MULHSU,
    [RV_OP_MULHU] = op_MULHU,
    [RV_OP_DIV] = op_DIV,
    [RV_OP_DIVU] = op_DIVU,
    [RV_OP_REM] = op_REM,
    [RV_OP_REMU] = op_REMU,
    [RV_OP_MULW] = op_MULW,
    [RV_OP_DIVW] = op_DIVW,
    [RV_OP_DIVUW] = op_DIVUW,
    [RV_OP_REMW] = op_REMW,
    [RV_OP_REMUW] = op_REMUW,
    [RV_OP_LR_W] = op_amo,
    [RV_OP_SC_W] = op_amo,
    [RV_OP_AMOSWAP_W] = op_amo,
    [RV_OP_AMOADD_W] = op_amo,
    [RV_OP_AMOXOR_W] = op_amo,
    [RV_OP_AMOAND_W] = op_amo,
    [RV_OP_AMOOR_W] = op_amo,
    [RV_OP_AMOMIN_W] = op_amo,
    [RV_OP_AMOMAX_W] = op_amo,
    [RV_OP_AMOMINU_W] = op_amo,
    [RV_OP_AMOMAXU_W] = op_amo,
    [RV_OP_LR_D] = op_amo,
    [RV_OP_SC_D] = op_amo,
    [RV_OP_AMOSWAP_D] = op_amo,
    [RV_OP_AMOADD_D] = op_amo,
    [RV_OP_AMOXOR_D] = op_amo,
    [RV_OP_AMOAND_D] = op_amo,
    [RV_OP_AMOOR_D] = op_amo,
    [RV_OP_AMOMIN_D] = op_amo,
    [RV_OP_AMOMAX_D] = op_amo,
    [RV_OP_AMOMINU_D] = op_amo,
    [RV_OP_AMOMAXU_D] = op_amo,
    [RV_OP_AMOCAS_W] = op_amo,
    [RV_OP_AMOCAS_D] = op_amo,
    [RV_OP_AMOCAS_Q] = op_amo,
    [RV_OP_FLW] = op_FLW,
    [RV_OP_FSW] = op_FSW,
    [RV_OP_FMADD_S] = interp_fp_slow,
    [RV_OP_FMSUB_S] = interp_fp_slow,
    [RV_OP_FNMSUB_S] = interp_fp_slow,
    [RV_OP_FNMADD_S] = interp_fp_slow,
    [RV_OP_FADD_S] = interp_fp_slow,
    [RV_OP_FSUB_S] = interp_fp_slow,
    [RV_OP_FMUL_S] = interp_fp_slow,
    [RV_OP_FDIV_S] = interp_fp_slow,
    [RV_OP_FSQRT_S] = interp_fp_slow,
    [RV_OP_FSGNJ_S] = interp_fp_slow,
    [RV_OP_FSGNJN_S] = interp_fp_slow,
    [RV_OP_FSGNJX_S] = interp_fp_slow,
    [RV_OP_FMIN_S] = interp_fp_slow,
    [RV_OP_FMAX_S] = interp_fp_slow,
    [RV_OP_FCVT_W_S] = interp_fp_slow,
    [RV_OP_FCVT_WU_S] = interp_fp_slow,
    [RV_OP_FCVT_L_S] = interp_fp_slow,
    [RV_OP_FCVT_LU_S] = interp_fp_slow,
    [RV_OP_FMV_X_W] = interp_fp_slow,
    [RV_OP_FCLASS_S] = interp_fp_slow,
    [RV_OP_FEQ_S] = interp_fp_slow,
    [RV_OP_FLT_S] = interp_fp_slow,
    [RV_OP_FLE_S] = interp_fp_slow,
    [RV_OP_FCVT_S_W] = interp_fp_slow,
    [RV_OP_FCVT_S_WU] = interp_fp_slow,
    [RV_OP_FCVT_S_L] = interp_fp_slow,
    [RV_OP_FCVT_S_LU] = interp_fp_slow,
    [RV_OP_FMV_W_X] = interp_fp_slow,
    [RV_OP_FLD] = op_FLD,
    [RV_OP_FSD] = op_FSD,
    [RV_OP_FMADD_D] = interp_fp_slow,
    [RV_OP_FMSUB_D] = interp_fp_slow,
    [RV_OP_FNMSUB_D] = interp_fp_slow,
    [RV_OP_FNMADD_D] = interp_fp_slow,
    [RV_OP_FADD_D] = interp_fp_slow,
    [RV_OP_FSUB_D] = interp_fp_slow,
    [RV_OP_FMUL_D] = interp_fp_slow,
    [RV_OP_FDIV_D] = interp_fp_slow,
    [RV_OP_FSQRT_D] = interp_fp_slow,
    [RV_OP_FSGNJ_D] = interp_fp_slow,
    [RV_OP_FSGNJN_D] = interp_fp_slow,
    [RV_OP_FSGNJX_D] = interp_fp_slow,
    [RV_OP_FMIN_D] = interp_fp_slow,
    [RV_OP_FMAX_D] = interp_fp_slow,
    [RV_OP_FCVT_S_D] = interp_fp_slow,
    [RV_OP_FCVT_D_S] = interp_fp_slow,
    [RV_OP_FCVT_W_D] = interp_fp_slow,
    [RV_OP_FCVT_WU_D] = interp_fp_slow,
    [RV_OP_FCVT_L_D] = interp_fp_slow,
    [RV_OP_FCVT_LU_D] = interp_fp_slow,
    [RV_OP_FMV_X_D] = interp_fp_slow,
    [RV_OP_FCLASS_D] = interp_fp_slow,
    [RV_OP_FEQ_D] = interp_fp_slow,
    [RV_OP_FLT_D] = interp_fp_slow,
    [RV_OP_FLE_D] = interp_fp_slow,
    [RV_OP_FCVT_D_W] = interp_fp_slow,
    [RV_OP_FCVT_D_WU] = interp_fp_slow,
    [RV_OP_FCVT_D_L] = interp_fp_slow,
    [RV_OP_FCVT_D_LU] = interp_fp_slow,
    [RV_OP_FMV_D_X] = interp_fp_slow,
    [RV_OP_FLH] = op_FLH,
    [RV_OP_FSH] = op_FSH,
    [RV_OP_FCVT_S_H] = interp_fp_slow,
    [RV_OP_FCVT_H_S] = interp_fp_slow,
    [RV_OP_FCVT_D_H] = interp_fp_slow,
    [RV_OP_FCVT_H_D] = interp_fp_slow,
    [RV_OP_FMV_X_H] = interp_fp_slow,
    [RV_OP_FMV_H_X] = interp_fp_slow,
    [RV_OP_FLI_S] = interp_fp_slow,
    [RV_OP_FMINM_S] = interp_fp_slow,
    [RV_OP_FMAXM_S] = interp_fp_slow,
    [RV_OP_FROUND_S] = interp_fp_slow,
    [RV_OP_FROUNDNX_S] = interp_fp_slow,
    [RV_OP_FLEQ_S] = interp_fp_slow,
    [RV_OP_FLTQ_S] = interp_fp_slow,
    [RV_OP_FLI_D] = interp_fp_slow,
    [RV_OP_FMINM_D] = interp_fp_slow,
    [RV_OP_FMAXM_D] = interp_fp_slow,
    [RV_OP_FROUND_D] = interp_fp_slow,
    [RV_OP_FROUNDNX_D] = interp_fp_slow,
    [RV_OP_FCVTMOD_W_D] = interp_fp_slow,
    [RV_OP_FLEQ_D] = interp_fp_slow,
    [RV_OP_FLTQ_D] = interp_fp_slow,
    [RV_OP_ADD_UW] = op_ADD_UW,
    [RV_OP_SH1ADD] = op_SH1ADD,
    [RV_OP_SH2ADD] = op_SH2ADD,
    [RV_OP_SH3ADD] = op_SH3ADD,
    [RV_OP_SH1ADD_UW] = op_SH1ADD_UW,
    [RV_OP_SH2ADD_UW] = op_SH2ADD_UW,
    [RV_OP_SH3ADD_UW] = op_SH3ADD_UW,
    [RV_OP_SLLI_UW] = op_SLLI_UW,
    [RV_OP_ANDN] = op_ANDN,
    [RV_OP_ORN] = op_ORN,
    [RV_OP_XNOR] = op_XNOR,
    [RV_OP_CLZ] = op_CLZ,
    [RV_OP_CTZ] = op_CTZ,
    [RV_OP_CPOP] = op_CPOP,
    [RV_OP_CLZW] = op_CLZW,
    [RV_OP_CTZW] = op_CTZW,
    [RV_OP_CPOPW] = op_CPOPW,
    [RV_OP_MAX] = op_MAX,
    [RV_OP_MAXU] = op_MAXU,
    [RV_OP_MIN] = op_MIN,
    [RV_OP_MINU] = op_MINU,
    [RV_OP_SEXT_B] = op_SEXT_B,
    [RV_OP_SEXT_H] = op_SEXT_H,
    [RV_OP_ZEXT_H] = op_ZEXT_H,
    [RV_OP_ROL] = op_ROL,
    [RV_OP_ROR] = op_ROR,
    [RV_OP_RORI] = op_RORI,
    [RV_OP_ROLW] = op_ROLW,
    [RV_OP_RORW] = op_RORW,
    [RV_OP_RORIW] = op_RORIW,
    [RV_OP_ORC_B] = op_ORC_B,
    [RV_OP_REV8] = op_REV8,
    [RV_OP_CLMUL] = op_CLMUL,
    [RV_OP_CLMULR] = op_CLMULR,
    [RV_OP_CLMULH] = op_CLMULH,
    [RV_OP_BCLR] = op_BCLR,
    [RV_OP_BEXT] = op_BEXT,
    [RV_OP_BINV] = op_BINV,
    [RV_OP_BSET] = op_BSET,
    [RV_OP_BCLRI] = op_BCLRI,
    [RV_OP_BEXTI] = op_BEXTI,
    [RV_OP_BINVI] = op_BINVI,
    [RV_OP_BSETI] = op_BSETI,
    [RV_OP_CZERO_EQZ] = op_CZERO_EQZ,
    [RV_OP_CZERO_NEZ] = op_CZERO_NEZ,
    [RV_OP_CBO_INVAL] = op_sys,
    [RV_OP_CBO_CLEAN] = op_sys,
    [RV_OP_CBO_FLUSH] = op_sys,
    [RV_OP_CBO_ZERO] = op_sys,
    [RV_OP_WRS_NTO] = op_sys,
    [RV_OP_WRS_STO] = op_sys,
    [RV_OP_SRET] = op_sys,
    [RV_OP_MRET] = op_sys,
    [RV_OP_WFI] = op_sys,
    [RV_OP_SFENCE_VMA] = op_sys,
    [RV_OP_SINVAL_VMA] = op_sys,
    [RV_OP_SFENCE_W_INVAL] = op_sys,
    [RV_OP_SFENCE_INVAL_IR] = op_sys,
};

interp_fn *interp_handler(unsigned op)
{
    interp_fn *fast = interp_fp_fast(op);
    return fast ? fast : handlers[op];
}
