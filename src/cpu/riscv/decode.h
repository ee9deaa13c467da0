/* SPDX-License-Identifier: MIT */
/*
 * Instruction decoding from const rows (insn.def; compressed forms in decode_c.c). One decoded form serves the interpreter,
 * the JIT and the disassembler. Thread: ANY; the tables are built once by rv_decode_init().
 */
#ifndef CPU_RISCV_DECODE_H
#define CPU_RISCV_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Extensions, in the order of ext.def; bit n of an extension mask is extension n. */
enum rv_ext {
#define RV_EXT(id, name, def, needs, doc) RV_EXT_##id,
#include "cpu/riscv/ext.def"
#undef RV_EXT
    RV_EXT_COUNT
};
#define RV_EXT_BIT(e) (UINT64_C(1) << (e))
#define RV_EXT_ALL (RV_EXT_BIT(RV_EXT_COUNT) - 1)

/* Operations; RV_OP_ILLEGAL is what everything undefined decodes to. */
enum rv_opcode {
    RV_OP_ILLEGAL,
#define RV_INSN(id, name, mask, match, fmt, ext) RV_OP_##id,
#include "cpu/riscv/insn.def"
#undef RV_INSN
    RV_OP_COUNT
};

/* Operand formats; what each fills in struct rv_insn. Fields that a format does not name are 0. */
enum rv_format {
    RV_FMT_NONE,        /* - */
    RV_FMT_R,           /* rd rs1 rs2 */
    RV_FMT_R1,          /* rd rs1 */
    RV_FMT_I,           /* rd rs1 imm */
    RV_FMT_LD,          /* rd rs1 imm: load */
    RV_FMT_ST,          /* rs1 rs2 imm: store */
    RV_FMT_SH,          /* rd rs1 imm = shift amount */
    RV_FMT_B,           /* rs1 rs2 imm = displacement from this instruction */
    RV_FMT_U,           /* rd imm, already shifted left by 12 */
    RV_FMT_J,           /* rd imm = displacement */
    RV_FMT_FENCE,       /* imm = fm, pred, succ; rd rs1 are ignored by fence, fence.i */
    RV_FMT_CSR,         /* rd rs1 imm = CSR number */
    RV_FMT_CSRI,        /* rd rs1 = 5-bit immediate, imm = CSR number */
    RV_FMT_AMO,         /* rd rs1 rs2; rm = aq << 1 | rl */
    RV_FMT_FLD,         /* f[rd] rs1 imm */
    RV_FMT_FST,         /* rs1 f[rs2] imm */
    RV_FMT_R4,          /* f[rd] f[rs1] f[rs2] f[rs3] rm */
    RV_FMT_FRM,         /* f[rd] f[rs1] f[rs2] rm */
    RV_FMT_FRM1,        /* f[rd] f[rs1] rm */
    RV_FMT_FR,          /* f[rd] f[rs1] f[rs2] */
    RV_FMT_FCMP,        /* rd f[rs1] f[rs2] */
    RV_FMT_F2X,         /* rd f[rs1] rm */
    RV_FMT_X2F,         /* f[rd] rs1 rm */
    RV_FMT_FX,          /* rd f[rs1] */
    RV_FMT_XF,          /* f[rd] rs1 */
    RV_FMT_FLI,         /* f[rd] rs1 = index of the constant */
    RV_FMT_CBO,         /* rs1 */
    RV_FMT_SFENCE,      /* rs1 rs2 */
};

/* A decoded instruction. Compressed forms are expanded to the base instruction, with len 2. */
struct rv_insn {
    uint16_t op;                /* enum rv_opcode */
    uint8_t rd, rs1, rs2, rs3;
    uint8_t rm;                 /* rounding mode field (0..7, 7: dynamic) or aq/rl */
    uint8_t len;                /* 2 or 4 bytes */
    int32_t imm;
    uint32_t raw;               /* the bits as fetched (16 bits for a compressed one): xtval of an illegal instruction */
};

struct rv_insn_row {
    const char *name;
    uint32_t mask, match;
    uint8_t fmt, ext;
};
extern const struct rv_insn_row rv_insn_rows[RV_OP_COUNT];

/* Builds the look-up tables; idempotent, thread-safe. */
void rv_decode_init(void);
/*
 * Decodes the instruction whose low 16 bits are in bits 15..0 of @raw (upper half is looked at only for a 32-bit one), for a
 * hart with extension mask @ext. Always fills @out; an undefined or disabled instruction has op RV_OP_ILLEGAL and its length.
 */
void rv_decode(uint32_t raw, uint64_t ext, struct rv_insn *out);
/* The instruction's length from its low 16 bits: 2 or 4 (longer encodings are reserved and decode as illegal, length 4). */
static inline unsigned rv_insn_len(uint32_t raw) { return (raw & 3) == 3 ? 4 : 2; }
/* Text of one instruction at @pc ("addi a0,a1,4"), truncated to @n. */
void rv_disas(const struct rv_insn *in, uint64_t pc, char *buf, size_t n);
void rv_log_insn(const struct rv_insn *in, uint64_t pc);        /* -d in_asm */
extern const char *const rv_xreg_names[32], *const rv_freg_names[32];

/* For decode.c only: expansion of a 16-bit instruction. */
void rv_decode_c(uint16_t raw, uint64_t ext, struct rv_insn *out);

#endif
