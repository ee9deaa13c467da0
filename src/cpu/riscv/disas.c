/* SPDX-License-Identifier: MIT */
#include "cpu/riscv/decode.h"

#include <inttypes.h>
#include <stdio.h>
#include "base/log.h"
#include "cpu/riscv/cpu.h"

const char *const rv_xreg_names[32] = {
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5",
    "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};
const char *const rv_freg_names[32] = {
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2", "fa3", "fa4", "fa5",
    "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
};

static const char *rm_suffix(unsigned rm)
{
    static const char *const names[8] = { ",rne", ",rtz", ",rdn", ",rup", ",rmm", ",?", ",?", "" };
    return names[rm & 7];
}

static void csr_text(int32_t num, char *buf, size_t n)
{
    const char *name = rv_csr_name((unsigned)num);
    if (name)
        snprintf(buf, n, "%s", name);
    else
        snprintf(buf, n, "0x%x", (unsigned)num);
}

void rv_disas(const struct rv_insn *in, uint64_t pc, char *buf, size_t n)
{
    const struct rv_insn_row *r = &rv_insn_rows[in->op];
    const char *xd = rv_xreg_names[in->rd & 31], *x1 = rv_xreg_names[in->rs1 & 31], *x2 = rv_xreg_names[in->rs2 & 31];
    const char *fd = rv_freg_names[in->rd & 31], *f1 = rv_freg_names[in->rs1 & 31], *f2 = rv_freg_names[in->rs2 & 31];
    const char *f3 = rv_freg_names[in->rs3 & 31], *rm = rm_suffix(in->rm);
    static const char *const order[4] = { "", ".rl", ".aq", ".aqrl" };
    char csr[24];

    switch ((enum rv_format)r->fmt) {
    case RV_FMT_NONE:
        if (in->op == RV_OP_ILLEGAL)
            snprintf(buf, n, ".%dbyte 0x%" PRIx32, in->len, in->raw);
        else
            snprintf(buf, n, "%s", r->name);
        break;
    case RV_FMT_R: snprintf(buf, n, "%s %s,%s,%s", r->name, xd, x1, x2); break;
    case RV_FMT_R1: snprintf(buf, n, "%s %s,%s", r->name, xd, x1); break;
    case RV_FMT_I:
        if (in->op == RV_OP_JALR)
            snprintf(buf, n, "%s %s,%d(%s)", r->name, xd, in->imm, x1);
        else
            snprintf(buf, n, "%s %s,%s,%d", r->name, xd, x1, in->imm);
        break;
    case RV_FMT_SH: snprintf(buf, n, "%s %s,%s,%d", r->name, xd, x1, in->imm); break;
    case RV_FMT_LD: snprintf(buf, n, "%s %s,%d(%s)", r->name, xd, in->imm, x1); break;
    case RV_FMT_ST: snprintf(buf, n, "%s %s,%d(%s)", r->name, x2, in->imm, x1); break;
    case RV_FMT_FLD: snprintf(buf, n, "%s %s,%d(%s)", r->name, fd, in->imm, x1); break;
    case RV_FMT_FST: snprintf(buf, n, "%s %s,%d(%s)", r->name, f2, in->imm, x1); break;
    case RV_FMT_B: snprintf(buf, n, "%s %s,%s,0x%" PRIx64, r->name, x1, x2, pc + (uint64_t)(int64_t)in->imm); break;
    case RV_FMT_U: snprintf(buf, n, "%s %s,0x%x", r->name, xd, (uint32_t)in->imm >> 12); break;
    case RV_FMT_J: snprintf(buf, n, "%s %s,0x%" PRIx64, r->name, xd, pc + (uint64_t)(int64_t)in->imm); break;
    case RV_FMT_FENCE: snprintf(buf, n, "%s", r->name); break;
    case RV_FMT_CSR: csr_text(in->imm, csr, sizeof csr); snprintf(buf, n, "%s %s,%s,%s", r->name, xd, csr, x1); break;
    case RV_FMT_CSRI: csr_text(in->imm, csr, sizeof csr); snprintf(buf, n, "%s %s,%s,%d", r->name, xd, csr, in->rs1); break;
    case RV_FMT_AMO:
        if (in->op == RV_OP_LR_W || in->op == RV_OP_LR_D)
            snprintf(buf, n, "%s%s %s,(%s)", r->name, order[in->rm & 3], xd, x1);
        else
            snprintf(buf, n, "%s%s %s,%s,(%s)", r->name, order[in->rm & 3], xd, x2, x1);
        break;
    case RV_FMT_R4: snprintf(buf, n, "%s %s,%s,%s,%s%s", r->name, fd, f1, f2, f3, rm); break;
    case RV_FMT_FRM: snprintf(buf, n, "%s %s,%s,%s%s", r->name, fd, f1, f2, rm); break;
    case RV_FMT_FRM1: snprintf(buf, n, "%s %s,%s%s", r->name, fd, f1, rm); break;
    case RV_FMT_FR: snprintf(buf, n, "%s %s,%s,%s", r->name, fd, f1, f2); break;
    case RV_FMT_FCMP: snprintf(buf, n, "%s %s,%s,%s", r->name, xd, f1, f2); break;
    case RV_FMT_F2X: snprintf(buf, n, "%s %s,%s%s", r->name, xd, f1, rm); break;
    case RV_FMT_X2F: snprintf(buf, n, "%s %s,%s%s", r->name, fd, x1, rm); break;
    case RV_FMT_FX: snprintf(buf, n, "%s %s,%s", r->name, xd, f1); break;
    case RV_FMT_XF: snprintf(buf, n, "%s %s,%s", r->name, fd, x1); break;
    case RV_FMT_FLI: snprintf(buf, n, "%s %s,%d", r->name, fd, in->rs1); break;
    case RV_FMT_CBO: snprintf(buf, n, "%s (%s)", r->name, x1); break;
    case RV_FMT_SFENCE: snprintf(buf, n, "%s %s,%s", r->name, x1, x2); break;
    }
}

void rv_log_insn(const struct rv_insn *in, uint64_t pc)
{
    char text[96];
    rv_disas(in, pc, text, sizeof text);
    log_write("0x%016" PRIx64 ":  %0*" PRIx32 "%*s%s", pc, in->len * 2, in->raw, 10 - in->len * 2, "", text);
}
