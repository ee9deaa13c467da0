/* SPDX-License-Identifier: MIT */
#include "cpu/riscv/decode.h"

#include <pthread.h>
#include <stdio.h>
#include "base/bits.h"

const struct rv_insn_row rv_insn_rows[RV_OP_COUNT] = {
    [RV_OP_ILLEGAL] = { "illegal", 0, 0, RV_FMT_NONE, RV_EXT_I },
#define RV_INSN(id, name, mask, match, fmt, ext) [RV_OP_##id] = { name, mask, match, RV_FMT_##fmt, RV_EXT_##ext },
#include "cpu/riscv/insn.def"
#undef RV_INSN
};

/*
 * Rows by major opcode (bits 6..2) and funct3 (bits 14..12): a row whose mask does not cover funct3 is in all eight lists.
 * Each list is a run of `row_index`, ended by 0.
 */
#define BUCKETS 256
static uint16_t bucket_start[BUCKETS];
static uint16_t row_index[2048];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool row_in_bucket(const struct rv_insn_row *r, unsigned b)
{
    uint32_t probe = (b >> 3) << 2 | 3 | (b & 7) << 12, fixed = r->mask & 0x707f;
    return (probe & fixed) == (r->match & fixed);
}

static void build(void)
{
    unsigned n = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        bucket_start[b] = (uint16_t)n;
        for (unsigned op = 1; op < RV_OP_COUNT; op++)
            if (row_in_bucket(&rv_insn_rows[op], b))
                row_index[n++] = (uint16_t)op;
        row_index[n++] = 0;
    }
}

void rv_decode_init(void)
{
    pthread_once(&once, build);
}

static int32_t imm_i(uint32_t w) { return (int32_t)w >> 20; }
static int32_t imm_s(uint32_t w) { return ((int32_t)w >> 25) * 32 + (int32_t)(w >> 7 & 31); }

static int32_t imm_b(uint32_t w)
{
    return ((int32_t)w >> 31) * 4096 + (int32_t)((w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1);
}

static int32_t imm_j(uint32_t w)
{
    return ((int32_t)w >> 31) * (1 << 20) + (int32_t)((w & 0xff000) | (w >> 20 & 1) << 11 | (w >> 21 & 0x3ff) << 1);
}

static void fill(uint32_t w, enum rv_format fmt, struct rv_insn *o)
{
    uint8_t rd = w >> 7 & 31, rs1 = w >> 15 & 31, rs2 = w >> 20 & 31, f3 = w >> 12 & 7;
    switch (fmt) {
    case RV_FMT_NONE: break;
    case RV_FMT_R: case RV_FMT_FR: case RV_FMT_FCMP: o->rd = rd; o->rs1 = rs1; o->rs2 = rs2; break;
    case RV_FMT_R1: case RV_FMT_FX: case RV_FMT_XF: case RV_FMT_FLI: o->rd = rd; o->rs1 = rs1; break;
    case RV_FMT_I: case RV_FMT_LD: case RV_FMT_FLD: case RV_FMT_FENCE: o->rd = rd; o->rs1 = rs1; o->imm = imm_i(w); break;
    case RV_FMT_ST: case RV_FMT_FST: o->rs1 = rs1; o->rs2 = rs2; o->imm = imm_s(w); break;
    case RV_FMT_SH: o->rd = rd; o->rs1 = rs1; o->imm = (int32_t)(w >> 20 & 63); break;
    case RV_FMT_B: o->rs1 = rs1; o->rs2 = rs2; o->imm = imm_b(w); break;
    case RV_FMT_U: o->rd = rd; o->imm = (int32_t)(w & 0xfffff000); break;
    case RV_FMT_J: o->rd = rd; o->imm = imm_j(w); break;
    case RV_FMT_CSR: case RV_FMT_CSRI: o->rd = rd; o->rs1 = rs1; o->imm = (int32_t)(w >> 20); break;
    case RV_FMT_AMO: o->rd = rd; o->rs1 = rs1; o->rs2 = rs2; o->rm = w >> 25 & 3; break;
    case RV_FMT_R4: o->rd = rd; o->rs1 = rs1; o->rs2 = rs2; o->rs3 = w >> 27; o->rm = f3; break;
    case RV_FMT_FRM: o->rd = rd; o->rs1 = rs1; o->rs2 = rs2; o->rm = f3; break;
    case RV_FMT_FRM1: case RV_FMT_F2X: case RV_FMT_X2F: o->rd = rd; o->rs1 = rs1; o->rm = f3; break;
    case RV_FMT_CBO: o->rs1 = rs1; break;
    case RV_FMT_SFENCE: o->rs1 = rs1; o->rs2 = rs2; break;
    }
}

/* amocas.q works on register pairs: both must be even (Zacas). */
static bool operands_ok(const struct rv_insn *o)
{
    return o->op != RV_OP_AMOCAS_Q || !((o->rd | o->rs2) & 1);
}

void rv_decode(uint32_t raw, uint64_t ext, struct rv_insn *out)
{
    *out = (struct rv_insn){ .raw = raw, .len = 4 };
    if ((raw & 3) != 3) {
        rv_decode_c((uint16_t)raw, ext, out);
        return;
    }
    unsigned b = (raw >> 2 & 31) << 3 | (raw >> 12 & 7);
    for (const uint16_t *i = &row_index[bucket_start[b]]; *i; i++) {
        const struct rv_insn_row *r = &rv_insn_rows[*i];
        if ((raw & r->mask) != r->match || !(ext >> r->ext & 1))
            continue;
        out->op = *i;
        fill(raw, (enum rv_format)r->fmt, out);
        if (!operands_ok(out))
            *out = (struct rv_insn){ .raw = raw, .len = 4 };
        return;
    }
}
