/* SPDX-License-Identifier: MIT */
/* The C extension (and c.fld, c.fsd with D): each row expands to a base instruction. Unprivileged ISA, "C" extension. */
#include "cpu/riscv/decode.h"

#include "base/bits.h"

/* How the fields of a compressed instruction are laid out. */
enum c_format {
    C_CIW,          /* addi4spn: rd' <- x2 + nzuimm */
    C_LW, C_LD,     /* rd' <- [rs1' + uimm] */
    C_SW, C_SD,     /* [rs1' + uimm] <- rs2' */
    C_I,            /* rd rd imm6 */
    C_IW,           /* the same, rd != 0 */
    C_LI,           /* rd x0 imm6 */
    C_16SP, C_LUI,
    C_SH_B, C_ANDI, /* on rd', shift amount or imm6 */
    C_ALU,          /* rd' rd' rs2' */
    C_J, C_BZ,
    C_SLLI,
    C_LWSP, C_LDSP, C_FLDSP, C_SWSP, C_SDSP,
    C_JR, C_JALR, C_MV, C_ADD, C_NONE,
};

struct c_row {
    uint16_t mask, match;
    uint8_t fmt, ext;
    uint16_t op;
};

/* The first row that matches counts: special cases come before the general ones. */
static const struct c_row c_rows[] = {
    { 0xe003, 0x0000, C_CIW, RV_EXT_C, RV_OP_ADDI },
    { 0xe003, 0x2000, C_LD, RV_EXT_D, RV_OP_FLD },
    { 0xe003, 0x4000, C_LW, RV_EXT_C, RV_OP_LW },
    { 0xe003, 0x6000, C_LD, RV_EXT_C, RV_OP_LD },
    { 0xe003, 0xa000, C_SD, RV_EXT_D, RV_OP_FSD },
    { 0xe003, 0xc000, C_SW, RV_EXT_C, RV_OP_SW },
    { 0xe003, 0xe000, C_SD, RV_EXT_C, RV_OP_SD },
    { 0xe003, 0x0001, C_I, RV_EXT_C, RV_OP_ADDI },
    { 0xe003, 0x2001, C_IW, RV_EXT_C, RV_OP_ADDIW },
    { 0xe003, 0x4001, C_LI, RV_EXT_C, RV_OP_ADDI },
    { 0xef83, 0x6101, C_16SP, RV_EXT_C, RV_OP_ADDI },
    { 0xe003, 0x6001, C_LUI, RV_EXT_C, RV_OP_LUI },
    { 0xec03, 0x8001, C_SH_B, RV_EXT_C, RV_OP_SRLI },
    { 0xec03, 0x8401, C_SH_B, RV_EXT_C, RV_OP_SRAI },
    { 0xec03, 0x8801, C_ANDI, RV_EXT_C, RV_OP_ANDI },
    { 0xfc63, 0x8c01, C_ALU, RV_EXT_C, RV_OP_SUB },
    { 0xfc63, 0x8c21, C_ALU, RV_EXT_C, RV_OP_XOR },
    { 0xfc63, 0x8c41, C_ALU, RV_EXT_C, RV_OP_OR },
    { 0xfc63, 0x8c61, C_ALU, RV_EXT_C, RV_OP_AND },
    { 0xfc63, 0x9c01, C_ALU, RV_EXT_C, RV_OP_SUBW },
    { 0xfc63, 0x9c21, C_ALU, RV_EXT_C, RV_OP_ADDW },
    { 0xe003, 0xa001, C_J, RV_EXT_C, RV_OP_JAL },
    { 0xe003, 0xc001, C_BZ, RV_EXT_C, RV_OP_BEQ },
    { 0xe003, 0xe001, C_BZ, RV_EXT_C, RV_OP_BNE },
    { 0xe003, 0x0002, C_SLLI, RV_EXT_C, RV_OP_SLLI },
    { 0xe003, 0x2002, C_FLDSP, RV_EXT_D, RV_OP_FLD },
    { 0xe003, 0x4002, C_LWSP, RV_EXT_C, RV_OP_LW },
    { 0xe003, 0x6002, C_LDSP, RV_EXT_C, RV_OP_LD },
    { 0xffff, 0x9002, C_NONE, RV_EXT_C, RV_OP_EBREAK },
    { 0xf07f, 0x8002, C_JR, RV_EXT_C, RV_OP_JALR },
    { 0xf003, 0x8002, C_MV, RV_EXT_C, RV_OP_ADD },
    { 0xf07f, 0x9002, C_JALR, RV_EXT_C, RV_OP_JALR },
    { 0xf003, 0x9002, C_ADD, RV_EXT_C, RV_OP_ADD },
    { 0xe003, 0xa002, C_SDSP, RV_EXT_D, RV_OP_FSD },
    { 0xe003, 0xc002, C_SWSP, RV_EXT_C, RV_OP_SW },
    { 0xe003, 0xe002, C_SDSP, RV_EXT_C, RV_OP_SD },
};

/* Bits [hi..lo] of w, moved to bit position @to. */
static inline uint32_t mv(uint32_t w, unsigned hi, unsigned lo, unsigned to)
{
    return (w >> lo & ((1u << (hi - lo + 1)) - 1)) << to;
}

static int32_t imm6(uint32_t w) { return (int32_t)mv(w, 6, 2, 0) - (int32_t)mv(w, 12, 12, 5); }
static int32_t shamt(uint32_t w) { return (int32_t)(mv(w, 6, 2, 0) | mv(w, 12, 12, 5)); }
static int32_t uimm_w(uint32_t w) { return (int32_t)(mv(w, 12, 10, 3) | mv(w, 6, 6, 2) | mv(w, 5, 5, 6)); }
static int32_t uimm_d(uint32_t w) { return (int32_t)(mv(w, 12, 10, 3) | mv(w, 6, 5, 6)); }

static int32_t disp_j(uint32_t w)
{
    return (int32_t)(mv(w, 11, 11, 4) | mv(w, 10, 9, 8) | mv(w, 8, 8, 10) | mv(w, 7, 7, 6) | mv(w, 6, 6, 7) |
                     mv(w, 5, 3, 1) | mv(w, 2, 2, 5)) - (int32_t)mv(w, 12, 12, 11);
}

static int32_t disp_b(uint32_t w)
{
    return (int32_t)(mv(w, 11, 10, 3) | mv(w, 6, 5, 6) | mv(w, 4, 3, 1) | mv(w, 2, 2, 5)) - (int32_t)mv(w, 12, 12, 8);
}

/* Fills the operands; false where the encoding is reserved. */
static bool fill(uint32_t w, enum c_format fmt, struct rv_insn *o)
{
    uint8_t r = w >> 7 & 31, r2 = w >> 2 & 31, rp1 = 8 + (w >> 7 & 7), rp2 = 8 + (w >> 2 & 7);
    switch (fmt) {
    case C_CIW:
        o->rd = rp2, o->rs1 = 2;
        o->imm = (int32_t)(mv(w, 12, 11, 4) | mv(w, 10, 7, 6) | mv(w, 6, 6, 2) | mv(w, 5, 5, 3));
        return o->imm != 0;
    case C_LW: o->rd = rp2, o->rs1 = rp1, o->imm = uimm_w(w); return true;
    case C_LD: o->rd = rp2, o->rs1 = rp1, o->imm = uimm_d(w); return true;
    case C_SW: o->rs2 = rp2, o->rs1 = rp1, o->imm = uimm_w(w); return true;
    case C_SD: o->rs2 = rp2, o->rs1 = rp1, o->imm = uimm_d(w); return true;
    case C_I: o->rd = o->rs1 = r, o->imm = imm6(w); return true;
    case C_IW: o->rd = o->rs1 = r, o->imm = imm6(w); return r != 0;
    case C_LI: o->rd = r, o->imm = imm6(w); return true;
    case C_16SP:
        o->rd = o->rs1 = 2;
        o->imm = (int32_t)(mv(w, 6, 6, 4) | mv(w, 5, 5, 6) | mv(w, 4, 3, 7) | mv(w, 2, 2, 5)) - (int32_t)mv(w, 12, 12, 9);
        return o->imm != 0;
    case C_LUI: o->rd = r, o->imm = imm6(w) * 4096; return o->imm != 0;
    case C_SH_B: o->rd = o->rs1 = rp1, o->imm = shamt(w); return true;
    case C_ANDI: o->rd = o->rs1 = rp1, o->imm = imm6(w); return true;
    case C_ALU: o->rd = o->rs1 = rp1, o->rs2 = rp2; return true;
    case C_J: o->imm = disp_j(w); return true;
    case C_BZ: o->rs1 = rp1, o->imm = disp_b(w); return true;
    case C_SLLI: o->rd = o->rs1 = r, o->imm = shamt(w); return true;
    case C_LWSP: o->rd = r, o->rs1 = 2, o->imm = (int32_t)(mv(w, 12, 12, 5) | mv(w, 6, 4, 2) | mv(w, 3, 2, 6)); return r != 0;
    case C_LDSP: case C_FLDSP:
        o->rd = r, o->rs1 = 2, o->imm = (int32_t)(mv(w, 12, 12, 5) | mv(w, 6, 5, 3) | mv(w, 4, 2, 6));
        return r != 0 || fmt == C_FLDSP;
    case C_SWSP: o->rs2 = r2, o->rs1 = 2, o->imm = (int32_t)(mv(w, 12, 9, 2) | mv(w, 8, 7, 6)); return true;
    case C_SDSP: o->rs2 = r2, o->rs1 = 2, o->imm = (int32_t)(mv(w, 12, 10, 3) | mv(w, 9, 7, 6)); return true;
    case C_JR: o->rs1 = r; return r != 0;
    case C_JALR: o->rd = 1, o->rs1 = r; return true;
    case C_MV: o->rd = r, o->rs2 = r2; return true;
    case C_ADD: o->rd = o->rs1 = r, o->rs2 = r2; return true;
    case C_NONE: return true;
    }
    return false;
}

void rv_decode_c(uint16_t raw, uint64_t ext, struct rv_insn *out)
{
    *out = (struct rv_insn){ .raw = raw, .len = 2 };
    if (!(ext >> RV_EXT_C & 1))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(c_rows); i++) {
        const struct c_row *r = &c_rows[i];
        if ((raw & r->mask) != r->match)
            continue;
        if ((ext >> r->ext & 1) && fill(raw, (enum c_format)r->fmt, out))
            out->op = r->op;
        else
            *out = (struct rv_insn){ .raw = raw, .len = 2 };
        return;
    }
}
