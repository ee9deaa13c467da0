/* SPDX-License-Identifier: MIT */
/*
 * Compressed instructions: each of the 49152 encodings against the expansion that the ISA manual's chapter "C" gives, written out
 * here as 32-bit instructions; what it does not define must be illegal.
 */
#include "rv.h"

static uint32_t i_type(uint32_t op, unsigned f3, unsigned rd, unsigned rs1, int32_t imm) { return op | rd << 7 | f3 << 12 | rs1 << 15 | (uint32_t)imm << 20; }
static uint32_t r_type(uint32_t op, unsigned f3, unsigned f7, unsigned rd, unsigned rs1, unsigned rs2) { return op | rd << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | f7 << 25; }
static uint32_t s_type(uint32_t op, unsigned f3, unsigned rs1, unsigned rs2, int32_t imm)
{
    return op | ((uint32_t)imm & 31) << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | ((uint32_t)imm >> 5 & 127) << 25;
}
static uint32_t b_type(unsigned f3, unsigned rs1, int32_t imm)
{
    uint32_t v = (uint32_t)imm;
    return 0x63 | f3 << 12 | rs1 << 15 | (v >> 11 & 1) << 7 | (v >> 1 & 15) << 8 | (v >> 5 & 63) << 25 | (v >> 12 & 1) << 31;
}
static uint32_t j_type(unsigned rd, int32_t imm)
{
    uint32_t v = (uint32_t)imm;
    return 0x6f | rd << 7 | (v & 0xff000) | (v >> 11 & 1) << 20 | (v >> 1 & 0x3ff) << 21 | (v >> 20 & 1) << 31;
}

/* Bits of @c from the list "to[:from..]": c[pos] goes to bit to. @spec: pairs (pos, to), ended by 255. */
static uint32_t gather(uint16_t c, const uint8_t *spec)
{
    uint32_t v = 0;
    for (; spec[0] != 255; spec += 2)
        v |= (uint32_t)(c >> spec[0] & 1) << spec[1];
    return v;
}
#define GATHER(...) gather(c, (const uint8_t[]){ __VA_ARGS__, 255 })
static int32_t sign(uint32_t v, unsigned bits) { return (int32_t)(v << (32 - bits)) >> (32 - bits); }
static int32_t imm6(uint16_t c) { return sign(GATHER(12, 5, 6, 4, 5, 3, 4, 2, 3, 1, 2, 0), 6); }

static uint32_t quadrant0(uint16_t c)
{
    unsigned rd = 8 + (c >> 2 & 7), rs1 = 8 + (c >> 7 & 7);
    uint32_t d = GATHER(12, 5, 11, 4, 10, 3, 6, 7, 5, 6), w = GATHER(12, 5, 11, 4, 10, 3, 6, 2, 5, 6);
    uint32_t n = GATHER(12, 5, 11, 4, 10, 9, 9, 8, 8, 7, 7, 6, 6, 2, 5, 3);
    switch (c >> 13) {
    case 0: return n ? i_type(0x13, 0, rd, 2, (int32_t)n) : 0;
    case 1: return i_type(0x07, 3, rd, rs1, (int32_t)d);
    case 2: return i_type(0x03, 2, rd, rs1, (int32_t)w);
    case 3: return i_type(0x03, 3, rd, rs1, (int32_t)d);
    case 5: return s_type(0x27, 3, rs1, rd, (int32_t)d);
    case 6: return s_type(0x23, 2, rs1, rd, (int32_t)w);
    case 7: return s_type(0x23, 3, rs1, rd, (int32_t)d);
    default: return 0;
    }
}

static uint32_t arithmetic(uint16_t c)
{
    unsigned rd = 8 + (c >> 7 & 7), rs2 = 8 + (c >> 2 & 7), shift = GATHER(12, 5, 6, 4, 5, 3, 4, 2, 3, 1, 2, 0);
    switch (c >> 10 & 3) {
    case 0: return i_type(0x13, 5, rd, rd, (int32_t)shift);
    case 1: return i_type(0x13, 5, rd, rd, (int32_t)(shift | 0x400));
    case 2: return i_type(0x13, 7, rd, rd, imm6(c));
    default: break;
    }
    switch ((c >> 10 & 4) | (c >> 5 & 3)) {
    case 0: return r_type(0x33, 0, 0x20, rd, rd, rs2);
    case 1: return r_type(0x33, 4, 0, rd, rd, rs2);
    case 2: return r_type(0x33, 6, 0, rd, rd, rs2);
    case 3: return r_type(0x33, 7, 0, rd, rd, rs2);
    case 4: return r_type(0x3b, 0, 0x20, rd, rd, rs2);
    case 5: return r_type(0x3b, 0, 0, rd, rd, rs2);
    default: return 0;
    }
}

static uint32_t quadrant1(uint16_t c)
{
    unsigned rd = c >> 7 & 31;
    int32_t j = sign(GATHER(12, 11, 11, 4, 10, 9, 9, 8, 8, 10, 7, 6, 6, 7, 5, 3, 4, 2, 3, 1, 2, 5), 12);
    int32_t b = sign(GATHER(12, 8, 11, 4, 10, 3, 6, 7, 5, 6, 4, 2, 3, 1, 2, 5), 9);
    int32_t sp = sign(GATHER(12, 9, 6, 4, 5, 6, 4, 8, 3, 7, 2, 5), 10);
    switch (c >> 13) {
    case 0: return i_type(0x13, 0, rd, rd, imm6(c));
    case 1: return rd ? i_type(0x1b, 0, rd, rd, imm6(c)) : 0;
    case 2: return i_type(0x13, 0, rd, 0, imm6(c));
    case 3:
        if (rd == 2)
            return sp ? i_type(0x13, 0, 2, 2, sp) : 0;
        return imm6(c) ? 0x37 | rd << 7 | (uint32_t)imm6(c) << 12 : 0;
    case 4: return arithmetic(c);
    case 5: return j_type(0, j);
    case 6: return b_type(0, 8 + (c >> 7 & 7), b);
    default: return b_type(1, 8 + (c >> 7 & 7), b);
    }
}

static uint32_t quadrant2(uint16_t c)
{
    unsigned rd = c >> 7 & 31, rs2 = c >> 2 & 31;
    uint32_t shift = GATHER(12, 5, 6, 4, 5, 3, 4, 2, 3, 1, 2, 0);
    int32_t ld = (int32_t)GATHER(12, 5, 6, 4, 5, 3, 4, 8, 3, 7, 2, 6), lw = (int32_t)GATHER(12, 5, 6, 4, 5, 3, 4, 2, 3, 7, 2, 6);
    int32_t sd = (int32_t)GATHER(12, 5, 11, 4, 10, 3, 9, 8, 8, 7, 7, 6), sw = (int32_t)GATHER(12, 5, 11, 4, 10, 3, 9, 2, 8, 7, 7, 6);
    switch (c >> 13) {
    case 0: return i_type(0x13, 1, rd, rd, (int32_t)shift);
    case 1: return i_type(0x07, 3, rd, 2, ld);
    case 2: return rd ? i_type(0x03, 2, rd, 2, lw) : 0;
    case 3: return rd ? i_type(0x03, 3, rd, 2, ld) : 0;
    case 4:
        if (!(c >> 12 & 1))
            return rs2 ? r_type(0x33, 0, 0, rd, 0, rs2) : rd ? i_type(0x67, 0, 0, rd, 0) : 0;
        return rs2 ? r_type(0x33, 0, 0, rd, rd, rs2) : rd ? i_type(0x67, 0, 1, rd, 0) : 0x00100073;
    case 5: return s_type(0x27, 3, 2, rs2, sd);
    case 6: return s_type(0x23, 2, 2, rs2, sw);
    default: return s_type(0x23, 3, 2, rs2, sd);
    }
}

static uint32_t expand(uint16_t c) { return (c & 3) == 0 ? quadrant0(c) : (c & 3) == 1 ? quadrant1(c) : quadrant2(c); }

static void same(uint16_t c, const struct rv_insn *got, uint32_t full, uint64_t ext)
{
    struct rv_insn want;
    rv_decode(full, ext, &want);
    if (got->op != want.op || got->rd != want.rd || got->rs1 != want.rs1 || got->rs2 != want.rs2 || got->imm != want.imm || got->len != 2 ||
        got->raw != c)
        fail_msg("%04x: %s rd %u rs1 %u rs2 %u imm %d, not %s rd %u rs1 %u rs2 %u imm %d", c, rv_insn_rows[got->op].name, got->rd, got->rs1, got->rs2,
                 got->imm, rv_insn_rows[want.op].name, want.rd, want.rs1, want.rs2, want.imm);
}

static void test_every_encoding(void **state)
{
    rv_decode_init();
    for (uint32_t c = 0; c < 0x10000; c++) {
        struct rv_insn got;
        if ((c & 3) == 3)
            continue;
        uint32_t full = expand((uint16_t)c);
        rv_decode(c | 0xabcd0000, RV_EXT_ALL, &got);
        if (!full) {
            if (got.op != RV_OP_ILLEGAL || got.len != 2)
                fail_msg("%04x is %s, not illegal", c, rv_insn_rows[got.op].name);
            continue;
        }
        got.raw &= 0xffff;
        same((uint16_t)c, &got, full, RV_EXT_ALL);
    }
}

/* Without D no c.fld and the like; without C nothing of 16 bits. */
static void test_extensions(void **state)
{
    struct rv_insn got;
    for (uint32_t c = 0; c < 0x10000; c++) {
        if ((c & 3) == 3)
            continue;
        rv_decode(c, RV_EXT_ALL & ~RV_EXT_BIT(RV_EXT_C), &got);
        assert_int_equal(got.op, RV_OP_ILLEGAL);
        bool fp = (c & 3) != 1 && (c >> 13 & 3) == 1;
        rv_decode(c, RV_EXT_ALL & ~RV_EXT_BIT(RV_EXT_D), &got);
        if (fp)
            assert_int_equal(got.op, RV_OP_ILLEGAL);
    }
}

/* On a hart: links are pc + 2, an illegal one traps with its 16 bits, a 32-bit instruction may lie across pages. */
static void test_on_a_hart(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    set_reg(h, A0, CODE + 0x101);
    exec(h, 0x9502);                                    /* c.jalr a0 */
    assert_int_equal(reg(h, REG_PC), CODE + 0x100);
    assert_int_equal(reg(h, RA), CODE + 2);
    st_le16(at(CODE + 2), 0xffff);
    assert_int_equal(exec_trap(h, 0x0000), 2);
    assert_int_equal(csr(h, 0x343), 0);
    assert_int_equal(exec_trap(h, 0x8402 & ~0x0f80), 2);        /* c.jr zero */
    assert_int_equal(csr(h, 0x343), 0x8002);
    assert_int_equal(csr(h, 0x341), CODE);
    assert_int_equal(exec_trap(h, 0x9002), 3);                  /* c.ebreak */
    st_le32(at(CODE + 0xffe), 0x00158593);
    set_reg(h, A1, 5);
    set_reg(h, REG_PC, CODE + 0xffe);
    step(h);
    assert_int_equal(reg(h, A1), 6);
    assert_int_equal(reg(h, REG_PC), CODE + 0x1002);
    set_csr(h, 0x305, RAM + 0x800);
    st_le16(at(RAM + RAM_SIZE - 2), 0x0013);                    /* its second half is not there */
    set_reg(h, REG_PC, RAM + RAM_SIZE - 2);
    step(h);
    assert_int_equal(csr(h, 0x342), 1);
    assert_int_equal(csr(h, 0x341), RAM + RAM_SIZE - 2);
    assert_int_equal(csr(h, 0x343), RAM + RAM_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_encoding), cmocka_unit_test(test_extensions), cmocka_unit_test(test_on_a_hart) };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
