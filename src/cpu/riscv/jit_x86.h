/* SPDX-License-Identifier: MIT */
/*
 * x86-64 instruction encoders: as many as the translator needs. An opcode is written as its bytes in order, with a mandatory
 * prefix (66, F2, F3) in bits 16..23 and an 0F escape in bits 8..15: addsd is 0xf20f58.
 * Nothing here checks for room: the translator reserves enough before each instruction. Thread: VCPU.
 */
#ifndef CPU_RISCV_JIT_X86_H
#define CPU_RISCV_JIT_X86_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Condition codes, as in jcc and setcc; the lowest bit inverts. */
enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

/* Opcodes with a ModRM operand: reg is the destination unless it says "to". */
enum {
    X_ADD = 0x03, X_OR = 0x0b, X_AND = 0x23, X_SUB = 0x2b, X_XOR = 0x33, X_CMP = 0x3b, X_TEST = 0x85, X_MOV = 0x8b, X_MOV_TO = 0x89,
    X_LEA = 0x8d, X_ADD_TO = 0x01, X_OR_TO = 0x09, X_AND_TO = 0x21, X_XOR_TO = 0x31, X_MOVSXD = 0x63, X_IMUL = 0x0faf,
    X_MOVZX8 = 0x0fb6, X_MOVZX16 = 0x0fb7, X_MOVSX8 = 0x0fbe, X_MOVSX16 = 0x0fbf,
    X_MOV8_TO = 0x88, X_MOV8_IMM = 0xc6, X_MOV_IMM = 0xc7,
    X_CMOV = 0x0f40, X_POPCNT = 0xf30fb8, X_LZCNT = 0xf30fbd, X_TZCNT = 0xf30fbc, X_BT = 0x0fa3,
    /* scalar floating point; ^ X_SINGLE for single precision */
    X_SINGLE = 0x010000, X_UCOMISS = 0x0f2e, X_COMISS = 0x0f2f, X_MOVSS = 0xf30f10, X_MOVSS_TO = 0xf30f11, X_ANDPS = 0x0f54, X_ORPS = 0x0f56,
    X_MOVSD = 0xf20f10, X_MOVSD_TO = 0xf20f11, X_ADDSD = 0xf20f58, X_MULSD = 0xf20f59, X_SUBSD = 0xf20f5c, X_DIVSD = 0xf20f5e,
    X_SQRTSD = 0xf20f51, X_CVTSI2SD = 0xf20f2a, X_CVTTSD2SI = 0xf20f2c, X_CVTSD2SI = 0xf20f2d, X_CVTSD2SS = 0xf20f5a,
    X_CVTSS2SD = 0xf30f5a, X_UCOMISD = 0x660f2e, X_COMISD = 0x660f2f, X_MOVQ_X = 0x660f6e, X_MOVQ_TO = 0x660f7e, X_XORPS = 0x0f57,
    X_MOVAPS = 0x0f28, X_MOVAPS_TO = 0x0f29, X_PCMPEQB = 0x660f74, X_MXCSR = 0x0fae,
};
/* Digits of the group opcodes 81 (arithmetic with an immediate), C1 (shifts) and F7 (one operand). */
enum { G_ADD, G_OR, G_ADC, G_SBB, G_AND, G_SUB, G_XOR, G_CMP };
enum { G_ROL, G_ROR, G_SHL = 4, G_SHR, G_SAR = 7 };
enum { G_NOT = 2, G_NEG, G_MUL, G_IMUL, G_DIV, G_IDIV };

/* Where code is written and where it will run: two mappings of the same memory. */
struct emit {
    uint8_t *p;
    intptr_t run_delta;                     /* address it runs at, minus address it is written at */
};

static inline uint32_t emit_here(const struct emit *e) { return (uint32_t)((intptr_t)e->p + e->run_delta); }
static inline void emit_8(struct emit *e, unsigned v) { *e->p++ = (uint8_t)v; }
static inline void emit_32(struct emit *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}
static inline void emit_64(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}

/* op reg, rm with both in registers; @w: 64 bits. */
void x86_rr(struct emit *e, unsigned op, bool w, unsigned reg, unsigned rm);
/* op reg, [base + disp]. */
void x86_rm(struct emit *e, unsigned op, bool w, unsigned reg, unsigned base, int32_t disp);
/* op reg, [base + index * 2^scale + disp]; index is not rsp. */
void x86_rmx(struct emit *e, unsigned op, bool w, unsigned reg, unsigned base, unsigned index, unsigned scale, int32_t disp);
/* Three-operand VEX forms: op reg, v, rm. @map: 1 = 0F, 2 = 0F38; @pp: 0 none, 1 = 66, 2 = F3, 3 = F2. */
void x86_vex_rrr(struct emit *e, unsigned map, unsigned pp, unsigned op, bool w, unsigned reg, unsigned v, unsigned rm);
/* add, or, and, sub, xor, cmp of a register or a memory operand with an immediate. */
void x86_ri(struct emit *e, unsigned group, bool w, unsigned rm, int32_t imm);
void x86_mi(struct emit *e, unsigned group, bool w, unsigned base, int32_t disp, int32_t imm);
void x86_mi8(struct emit *e, unsigned group, unsigned base, int32_t disp, int8_t imm);       /* of a byte in memory */
/* Shift by a constant, by cl. */
void x86_shift_i(struct emit *e, unsigned group, bool w, unsigned rm, unsigned n);
void x86_shift_cl(struct emit *e, unsigned group, bool w, unsigned rm);
/* rorx: op reg, rm, n. */
void x86_rorx(struct emit *e, bool w, unsigned reg, unsigned rm, unsigned n);
/* not, neg, mul, imul, div, idiv. */
void x86_f7(struct emit *e, unsigned group, bool w, unsigned rm);
/* Any 64-bit constant, in the shortest form; the flags stay. */
void x86_mov_imm(struct emit *e, unsigned reg, uint64_t v);
/* mov qword [base + disp], imm (sign-extended). */
void x86_mov_mi(struct emit *e, unsigned base, int32_t disp, int32_t imm);
/* setcc r8, the rest of the register stays; the same and zero-extension to the whole register. */
void x86_setcc8(struct emit *e, unsigned cc, unsigned reg);
void x86_setcc(struct emit *e, unsigned cc, unsigned reg);
/* Goes on at a multiple of @n, a power of two, with instructions that do nothing in between. */
void x86_align(struct emit *e, unsigned n);
void x86_push(struct emit *e, unsigned reg);
void x86_pop(struct emit *e, unsigned reg);
void x86_ret(struct emit *e);
void x86_jmp_reg(struct emit *e, unsigned reg);
void x86_call_reg(struct emit *e, unsigned reg);
/* op reg, [index * 2^scale + address below 2 GiB]. */
void x86_rx(struct emit *e, unsigned op, bool w, unsigned reg, unsigned index, unsigned scale, uint32_t addr);
void x86_bswap(struct emit *e, unsigned reg);
/* Jumps with a 32-bit displacement; they return where it is, for x86_patch(). @to 0: filled in later. */
uint8_t *x86_jcc(struct emit *e, unsigned cc, uint32_t to);
uint8_t *x86_jmp(struct emit *e, uint32_t to);
void x86_call(struct emit *e, uint32_t to);
/* Makes the jump whose displacement is at @at go to @to. */
void x86_patch(struct emit *e, uint8_t *at, uint32_t to);

#endif
