/* SPDX-License-Identifier: MIT */
/* x86-64 encoders. Intel SDM volume 2, chapter 2 "Instruction Format". */
#include "cpu/riscv/jit_x86.h"

/* Mandatory prefix, REX, escape and opcode. Byte operations need a REX to reach sil and dil. */
static void opcode(struct emit *e, unsigned op, bool w, unsigned reg, unsigned index, unsigned base)
{
    unsigned rex = (w ? 8 : 0) | (reg >> 3 << 2) | (index >> 3 << 1) | base >> 3;
    bool bytes = op == X_MOV8_TO || op == X_MOVZX8 || op == X_MOVSX8;
    if (op >> 16)
        emit_8(e, op >> 16);
    if (rex || bytes)
        emit_8(e, 0x40 | rex);
    if (op >> 8 & 0xff)
        emit_8(e, op >> 8);
    emit_8(e, op);
}

static void modrm_rr(struct emit *e, unsigned reg, unsigned rm)
{
    emit_8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void modrm_mem(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
    unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
    emit_8(e, mod << 6 | (reg & 7) << 3 | (base & 7));
    if ((base & 7) == RSP)
        emit_8(e, 0x24);
    if (mod == 1)
        emit_8(e, (unsigned)disp);
    else if (mod == 2)
        emit_32(e, (uint32_t)disp);
}

void x86_rr(struct emit *e, unsigned op, bool w, unsigned reg, unsigned rm)
{
    opcode(e, op, w, reg, 0, rm);
    modrm_rr(e, reg, rm);
}

void x86_rm(struct emit *e, unsigned op, bool w, unsigned reg, unsigned base, int32_t disp)
{
    opcode(e, op, w, reg, 0, base);
    modrm_mem(e, reg, base, disp);
}

void x86_rmx(struct emit *e, unsigned op, bool w, unsigned reg, unsigned base, unsigned index, unsigned scale, int32_t disp)
{
    unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : disp >= -128 && disp < 128 ? 1 : 2;
    opcode(e, op, w, reg, index, base);
    emit_8(e, mod << 6 | (reg & 7) << 3 | 4);
    emit_8(e, scale << 6 | (index & 7) << 3 | (base & 7));
    if (mod == 1)
        emit_8(e, (unsigned)disp);
    else if (mod == 2)
        emit_32(e, (uint32_t)disp);
}

void x86_vex_rrr(struct emit *e, unsigned map, unsigned pp, unsigned op, bool w, unsigned reg, unsigned v, unsigned rm)
{
    emit_8(e, 0xc4);
    emit_8(e, (reg >> 3 ? 0 : 0x80) | 0x40 | (rm >> 3 ? 0 : 0x20) | map);
    emit_8(e, (w ? 0x80 : 0) | (~v & 15) << 3 | pp);
    emit_8(e, op);
    modrm_rr(e, reg, rm);
}

void x86_rorx(struct emit *e, bool w, unsigned reg, unsigned rm, unsigned n)
{
    x86_vex_rrr(e, 3, 3, 0xf0, w, reg, 0, rm);
    emit_8(e, n);
}

void x86_ri(struct emit *e, unsigned group, bool w, unsigned rm, int32_t imm)
{
    bool small = imm >= -128 && imm < 128;
    opcode(e, small ? 0x83 : 0x81, w, 0, 0, rm);
    modrm_rr(e, group, rm);
    if (small)
        emit_8(e, (unsigned)imm);
    else
        emit_32(e, (uint32_t)imm);
}

void x86_mi(struct emit *e, unsigned group, bool w, unsigned base, int32_t disp, int32_t imm)
{
    bool small = imm >= -128 && imm < 128;
    opcode(e, small ? 0x83 : 0x81, w, 0, 0, base);
    modrm_mem(e, group, base, disp);
    if (small)
        emit_8(e, (unsigned)imm);
    else
        emit_32(e, (uint32_t)imm);
}

void x86_mi8(struct emit *e, unsigned group, unsigned base, int32_t disp, int8_t imm)
{
    opcode(e, 0x80, false, 0, 0, base);
    modrm_mem(e, group, base, disp);
    emit_8(e, (unsigned)imm);
}

void x86_shift_i(struct emit *e, unsigned group, bool w, unsigned rm, unsigned n)
{
    if (!n)
        return;
    opcode(e, 0xc1, w, 0, 0, rm);
    modrm_rr(e, group, rm);
    emit_8(e, n);
}

void x86_shift_cl(struct emit *e, unsigned group, bool w, unsigned rm)
{
    opcode(e, 0xd3, w, 0, 0, rm);
    modrm_rr(e, group, rm);
}

void x86_f7(struct emit *e, unsigned group, bool w, unsigned rm)
{
    opcode(e, 0xf7, w, 0, 0, rm);
    modrm_rr(e, group, rm);
}

void x86_mov_imm(struct emit *e, unsigned reg, uint64_t v)
{
    if (v <= UINT32_MAX) {
        if (reg >> 3)
            emit_8(e, 0x41);
        emit_8(e, 0xb8 | (reg & 7));
        emit_32(e, (uint32_t)v);
    } else if ((uint64_t)(int64_t)(int32_t)v == v) {
        opcode(e, 0xc7, true, 0, 0, reg);
        modrm_rr(e, 0, reg);
        emit_32(e, (uint32_t)v);
    } else {
        emit_8(e, 0x48 | reg >> 3);
        emit_8(e, 0xb8 | (reg & 7));
        emit_64(e, v);
    }
}

void x86_mov_mi(struct emit *e, unsigned base, int32_t disp, int32_t imm)
{
    opcode(e, 0xc7, true, 0, 0, base);
    modrm_mem(e, 0, base, disp);
    emit_32(e, (uint32_t)imm);
}

void x86_setcc8(struct emit *e, unsigned cc, unsigned reg)
{
    emit_8(e, 0x40 | reg >> 3);
    emit_8(e, 0x0f);
    emit_8(e, 0x90 | cc);
    modrm_rr(e, 0, reg);
}

void x86_setcc(struct emit *e, unsigned cc, unsigned reg)
{
    x86_setcc8(e, cc, reg);
    x86_rr(e, X_MOVZX8, false, reg, reg);
}

void x86_align(struct emit *e, unsigned n)
{
    static const uint8_t nop[8][8] = {          /* those that the SDM recommends, by length less one */
        { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 }, { 0x0f, 0x1f, 0x40 }, { 0x0f, 0x1f, 0x44 }, { 0x66, 0x0f, 0x1f, 0x44 },
        { 0x0f, 0x1f, 0x80 }, { 0x0f, 0x1f, 0x84 },
    };
    for (unsigned left = -(uintptr_t)e->p & (n - 1); left;) {
        unsigned len = left < 8 ? left : 8;
        memcpy(e->p, nop[len - 1], len);
        e->p += len;
        left -= len;
    }
}

void x86_push(struct emit *e, unsigned reg)
{
    if (reg >> 3)
        emit_8(e, 0x41);
    emit_8(e, 0x50 | (reg & 7));
}

void x86_pop(struct emit *e, unsigned reg)
{
    if (reg >> 3)
        emit_8(e, 0x41);
    emit_8(e, 0x58 | (reg & 7));
}

void x86_ret(struct emit *e) { emit_8(e, 0xc3); }

static void ff(struct emit *e, unsigned digit, unsigned reg)
{
    if (reg >> 3)
        emit_8(e, 0x41);
    emit_8(e, 0xff);
    modrm_rr(e, digit, reg);
}

void x86_jmp_reg(struct emit *e, unsigned reg) { ff(e, 4, reg); }
void x86_call_reg(struct emit *e, unsigned reg) { ff(e, 2, reg); }

void x86_rx(struct emit *e, unsigned op, bool w, unsigned reg, unsigned index, unsigned scale, uint32_t addr)
{
    opcode(e, op, w, reg, index, 0);
    emit_8(e, (reg & 7) << 3 | 4);
    emit_8(e, scale << 6 | (index & 7) << 3 | 5);
    emit_32(e, addr);
}

void x86_bswap(struct emit *e, unsigned reg)
{
    emit_8(e, 0x48 | reg >> 3);
    emit_8(e, 0x0f);
    emit_8(e, 0xc8 | (reg & 7));
}

static uint8_t *rel32(struct emit *e, uint32_t to)
{
    uint8_t *at = e->p;
    emit_32(e, 0);
    if (to)
        x86_patch(e, at, to);
    return at;
}

uint8_t *x86_jcc(struct emit *e, unsigned cc, uint32_t to)
{
    emit_8(e, 0x0f);
    emit_8(e, 0x80 | cc);
    return rel32(e, to);
}

uint8_t *x86_jmp(struct emit *e, uint32_t to)
{
    emit_8(e, 0xe9);
    return rel32(e, to);
}

void x86_call(struct emit *e, uint32_t to)
{
    emit_8(e, 0xe8);
    rel32(e, to);
}

void x86_patch(struct emit *e, uint8_t *at, uint32_t to)
{
    uint32_t rel = to - ((uint32_t)((intptr_t)at + e->run_delta) + 4);
    memcpy(at, &rel, 4);
}
