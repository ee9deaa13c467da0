/* SPDX-License-Identifier: MIT */
/*
 * Every integer computational instruction (I, M, Zba, Zbb, Zbc, Zbs, Zicond) on a hart against its definition, worked out here
 * bit by bit or in 128-bit integers. Encodings are written out from the ISA manual, not taken from insn.def, so that a wrong row
 * there fails, too; and every register-to-register row of insn.def must have a row here.
 */
#include "rv.h"
#include "cpu/riscv/decode.h"
#include "seeded.h"

enum { CASES = 600 };
enum { R, W, I, S6, S5, U1 };           /* U1: one source, bits 31..20 fixed; S6, S5: shift amount of 6 or 5 bits; W: as R */
typedef __int128 s128;
typedef unsigned __int128 u128;
typedef uint64_t (*oracle_fn)(uint64_t a, uint64_t b);

static uint64_t sx(uint64_t v, unsigned bits)
{
    u128 one = (u128)1 << bits;
    return (uint64_t)((v & (one - 1)) - (v >> (bits - 1) & 1 ? one : 0));
}

static s128 sg(uint64_t v) { return (s128)v - (v >> 63 ? (s128)1 << 64 : 0); }
static s128 sw(uint64_t v) { return sg(sx(v, 32)); }
static uint64_t low(uint64_t v) { return v & 0xffffffffu; }
static unsigned bit(uint64_t v, unsigned n) { return (unsigned)(v >> n) & 1; }

/* a moved left by n places (right: negative); what enters is @fill; @round: what leaves enters again. */
static uint64_t move(uint64_t a, int n, unsigned width, unsigned fill, bool round)
{
    uint64_t v = 0;
    for (int i = 0; i < (int)width; i++) {
        int from = i - n;
        unsigned b = from >= 0 && from < (int)width ? bit(a, (unsigned)from)
                   : round ? bit(a, (unsigned)(from + 2 * (int)width) % width) : fill;
        v |= (uint64_t)b << i;
    }
    return v;
}

static uint64_t product(uint64_t a, uint64_t b, bool high, bool reversed)
{
    u128 v = 0;
    for (unsigned i = 0; i < 64; i++)
        v ^= bit(b, i) ? (u128)a << i : 0;
    return (uint64_t)(high ? v >> 64 : reversed ? v >> 63 : v);
}

static uint64_t quotient(s128 a, s128 b) { return b ? (uint64_t)(a / b) : UINT64_MAX; }
static uint64_t remainder_of(s128 a, s128 b) { return (uint64_t)(b ? a % b : a); }

static uint64_t leading(uint64_t a, int from, int step, unsigned width)
{
    unsigned n = 0;
    for (int i = from; n < width && !bit(a, (unsigned)i); i += step)
        n++;
    return n;
}

static uint64_t ones(uint64_t a, unsigned width)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < width; i++)
        n += bit(a, i);
    return n;
}

static uint64_t bytes(uint64_t a, bool reverse)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t b = a >> 8 * i & 0xff;
        v |= reverse ? b << 8 * (7 - i) : (b ? (uint64_t)0xff << 8 * i : 0);
    }
    return v;
}

/* X(operation, kind, opcode, funct3, funct7 or bits 31..20, definition) */
#define INTEGER_ROWS(X) \
    X(ADD, R, 0x33, 0, 0x00, sg(a) + sg(b)) X(SUB, R, 0x33, 0, 0x20, sg(a) - sg(b)) X(SLL, R, 0x33, 1, 0, move(a, b & 63, 64, 0, false)) \
    X(SLT, R, 0x33, 2, 0, sg(a) < sg(b)) X(SLTU, R, 0x33, 3, 0, (u128)a < (u128)b) X(XOR, R, 0x33, 4, 0, (a | b) - (a & b)) \
    X(SRL, R, 0x33, 5, 0, move(a, -(int)(b & 63), 64, 0, false)) X(SRA, R, 0x33, 5, 0x20, move(a, -(int)(b & 63), 64, bit(a, 63), false)) \
    X(OR, R, 0x33, 6, 0, ~(~a & ~b)) X(AND, R, 0x33, 7, 0, ~(~a | ~b)) X(ADDW, W, 0x3b, 0, 0, sx((uint64_t)(sw(a) + sw(b)), 32)) \
    X(SUBW, W, 0x3b, 0, 0x20, sx((uint64_t)(sw(a) - sw(b)), 32)) X(SLLW, W, 0x3b, 1, 0, sx(move(a, b & 31, 32, 0, false), 32)) \
    X(SRLW, W, 0x3b, 5, 0, sx(move(a, -(int)(b & 31), 32, 0, false), 32)) \
    X(SRAW, W, 0x3b, 5, 0x20, sx(move(a, -(int)(b & 31), 32, bit(a, 31), false), 32)) \
    X(ADDI, I, 0x13, 0, 0, sg(a) + sg(b)) X(SLTI, I, 0x13, 2, 0, sg(a) < sg(b)) X(SLTIU, I, 0x13, 3, 0, (u128)a < (u128)b) \
    X(XORI, I, 0x13, 4, 0, (a | b) - (a & b)) X(ORI, I, 0x13, 6, 0, ~(~a & ~b)) X(ANDI, I, 0x13, 7, 0, ~(~a | ~b)) \
    X(ADDIW, I, 0x1b, 0, 0, sx((uint64_t)(sw(a) + sg(b)), 32)) X(SLLI, S6, 0x13, 1, 0, move(a, (int)b, 64, 0, false)) \
    X(SRLI, S6, 0x13, 5, 0, move(a, -(int)b, 64, 0, false)) X(SRAI, S6, 0x13, 5, 0x20, move(a, -(int)b, 64, bit(a, 63), false)) \
    X(SLLIW, S5, 0x1b, 1, 0, sx(move(a, (int)b, 32, 0, false), 32)) X(SRLIW, S5, 0x1b, 5, 0, sx(move(a, -(int)b, 32, 0, false), 32)) \
    X(SRAIW, S5, 0x1b, 5, 0x20, sx(move(a, -(int)b, 32, bit(a, 31), false), 32)) \
    X(MUL, R, 0x33, 0, 1, (u128)a * b) X(MULH, R, 0x33, 1, 1, sg(a) * sg(b) >> 64) X(MULHSU, R, 0x33, 2, 1, sg(a) * (s128)b >> 64) \
    X(MULHU, R, 0x33, 3, 1, (u128)a * b >> 64) X(DIV, R, 0x33, 4, 1, quotient(sg(a), sg(b))) X(DIVU, R, 0x33, 5, 1, quotient(a, b)) \
    X(REM, R, 0x33, 6, 1, remainder_of(sg(a), sg(b))) X(REMU, R, 0x33, 7, 1, remainder_of(a, b)) \
    X(MULW, W, 0x3b, 0, 1, sx((uint64_t)(sw(a) * sw(b)), 32)) X(DIVW, W, 0x3b, 4, 1, sx(quotient(sw(a), sw(b)), 32)) \
    X(DIVUW, W, 0x3b, 5, 1, sx(quotient(low(a), low(b)), 32)) X(REMW, W, 0x3b, 6, 1, sx(remainder_of(sw(a), sw(b)), 32)) \
    X(REMUW, W, 0x3b, 7, 1, sx(remainder_of(low(a), low(b)), 32)) \
    X(ADD_UW, R, 0x3b, 0, 4, b + low(a)) X(SH1ADD, R, 0x33, 2, 0x10, b + 2 * a) X(SH2ADD, R, 0x33, 4, 0x10, b + 4 * a) \
    X(SH3ADD, R, 0x33, 6, 0x10, b + 8 * a) X(SH1ADD_UW, R, 0x3b, 2, 0x10, b + 2 * low(a)) X(SH2ADD_UW, R, 0x3b, 4, 0x10, b + 4 * low(a)) \
    X(SH3ADD_UW, R, 0x3b, 6, 0x10, b + 8 * low(a)) X(SLLI_UW, S6, 0x1b, 1, 4, move(low(a), (int)b, 64, 0, false)) \
    X(ANDN, R, 0x33, 7, 0x20, ~(~a | b)) X(ORN, R, 0x33, 6, 0x20, ~(~a & b)) X(XNOR, R, 0x33, 4, 0x20, ~((a | b) - (a & b))) \
    X(CLZ, U1, 0x13, 1, 0x600, leading(a, 63, -1, 64)) X(CTZ, U1, 0x13, 1, 0x601, leading(a, 0, 1, 64)) \
    X(CPOP, U1, 0x13, 1, 0x602, ones(a, 64)) X(CLZW, U1, 0x1b, 1, 0x600, leading(a, 31, -1, 32)) \
    X(CTZW, U1, 0x1b, 1, 0x601, leading(a, 0, 1, 32)) X(CPOPW, U1, 0x1b, 1, 0x602, ones(a, 32)) \
    X(MIN, R, 0x33, 4, 5, sg(a) < sg(b) ? a : b) X(MINU, R, 0x33, 5, 5, a < b ? a : b) X(MAX, R, 0x33, 6, 5, sg(a) < sg(b) ? b : a) \
    X(MAXU, R, 0x33, 7, 5, a < b ? b : a) X(SEXT_B, U1, 0x13, 1, 0x604, sx(a, 8)) X(SEXT_H, U1, 0x13, 1, 0x605, sx(a, 16)) \
    X(ZEXT_H, U1, 0x3b, 4, 0x080, a % 65536) X(ROL, R, 0x33, 1, 0x30, move(a, b & 63, 64, 0, true)) \
    X(ROR, R, 0x33, 5, 0x30, move(a, -(int)(b & 63), 64, 0, true)) X(RORI, S6, 0x13, 5, 0x30, move(a, -(int)b, 64, 0, true)) \
    X(ROLW, W, 0x3b, 1, 0x30, sx(move(a, b & 31, 32, 0, true), 32)) X(RORW, W, 0x3b, 5, 0x30, sx(move(a, -(int)(b & 31), 32, 0, true), 32)) \
    X(RORIW, S5, 0x1b, 5, 0x30, sx(move(a, -(int)b, 32, 0, true), 32)) X(ORC_B, U1, 0x13, 5, 0x287, bytes(a, false)) \
    X(REV8, U1, 0x13, 5, 0x6b8, bytes(a, true)) X(CLMUL, R, 0x33, 1, 5, product(a, b, false, false)) \
    X(CLMULR, R, 0x33, 2, 5, product(a, b, false, true)) X(CLMULH, R, 0x33, 3, 5, product(a, b, true, false)) \
    X(BCLR, R, 0x33, 1, 0x24, bit(a, b & 63) ? a - move(1, b & 63, 64, 0, false) : a) X(BEXT, R, 0x33, 5, 0x24, bit(a, b & 63)) \
    X(BINV, R, 0x33, 1, 0x34, bit(a, b & 63) ? a - move(1, b & 63, 64, 0, false) : a + move(1, b & 63, 64, 0, false)) \
    X(BSET, R, 0x33, 1, 0x14, bit(a, b & 63) ? a : a + move(1, b & 63, 64, 0, false)) \
    X(BCLRI, S6, 0x13, 1, 0x24, bit(a, (unsigned)b) ? a - move(1, (int)b, 64, 0, false) : a) X(BEXTI, S6, 0x13, 5, 0x24, bit(a, (unsigned)b)) \
    X(BINVI, S6, 0x13, 1, 0x34, bit(a, (unsigned)b) ? a - move(1, (int)b, 64, 0, false) : a + move(1, (int)b, 64, 0, false)) \
    X(BSETI, S6, 0x13, 1, 0x14, bit(a, (unsigned)b) ? a : a + move(1, (int)b, 64, 0, false)) \
    X(CZERO_EQZ, R, 0x33, 5, 7, b == 0 ? 0 : a) X(CZERO_NEZ, R, 0x33, 7, 7, b == 0 ? a : 0)

#define ORACLE(id, kind, opc, f3, top, expr) static uint64_t oracle_##id(uint64_t a, uint64_t b) { (void)b; return (uint64_t)(expr); }
INTEGER_ROWS(ORACLE)
static const struct { unsigned op, kind; uint32_t opc, f3, top; oracle_fn fn; } rows[] = {
#define ROW(id, kind, opc, f3, top, expr) { RV_OP_##id, kind, opc, f3, top, oracle_##id },
    INTEGER_ROWS(ROW)
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* Borders of 8, 16, 32 and 64 bits and their neighbours; else random of a random length. */
static uint64_t operand(void)
{
    static const uint8_t edge[] = { 0, 7, 8, 15, 16, 31, 32, 63 };
    uint64_t r = rnd();
    if (r & 3)
        return (rnd() >> (r >> 8 & 63)) ^ (r & 4 ? UINT64_MAX : 0);
    uint64_t v = (UINT64_C(1) << edge[r >> 8 & 7]) + (r >> 16) % 3 - 1;
    return r & 4 ? 0 - v : v;
}

/* The instruction's second operand, as its definition sees it, and the bits that encode it. */
static uint32_t encode(unsigned row, unsigned rd, uint64_t *b)
{
    uint32_t w = rows[row].opc | rows[row].f3 << 12 | rd << 7 | 11u << 15;
    switch (rows[row].kind) {
    case I: *b = sx(*b, 12); return w | (uint32_t)(*b & 0xfff) << 20;
    case S6: *b &= 63; return w | rows[row].top << 25 | (uint32_t)*b << 20;
    case S5: *b &= 31; return w | rows[row].top << 25 | (uint32_t)*b << 20;
    case U1: return w | rows[row].top << 20;
    default: return w | rows[row].top << 25 | 12u << 20;
    }
}

/* One straight program a row: load both operands, execute, store; the target is apart from, or one of, the sources. */
static void test_every_row(void **state)
{
    static uint64_t want[CASES], va[CASES], vb[CASES];
    struct hart *h = rv_harts(1, NULL, NULL);
    for (unsigned r = 0; r < ROWS; r++) {
        uint8_t *code = at(CODE) + 4, *data = at(DATA);
        st_le32(at(CODE), 0x0000100f);                             /* fence.i: the code is new each time */
        for (unsigned i = 0; i < CASES; i++, code += 20, data += 24) {
            unsigned rd = 11 + i % 3;
            uint64_t b = vb[i] = operand();
            va[i] = operand();
            st_le64(data, va[i]);
            st_le64(data + 8, b);
            st_le64(data + 16, 0x5a5a5a5a5a5a5a5a);
            st_le32(code, 0x00053583);                              /* ld a1, 0(a0) */
            st_le32(code + 4, 0x00853603);                          /* ld a2, 8(a0) */
            st_le32(code + 8, encode(r, rd, &b));
            st_le32(code + 12, 0x00053823 | rd << 20);              /* sd rd, 16(a0) */
            st_le32(code + 16, 0x01850513);                         /* addi a0, a0, 24 */
            want[i] = rows[r].fn(va[i], b);
        }
        st_le32(code, 0x0000006f);
        hart_set_start(h, 3, CODE, DATA, 0);
        hart_run_to(h, RAM + (uint64_t)(code - ram->host));
        hart_power(h, false);
        for (unsigned i = 0; i < CASES; i++) {
            uint64_t got = ld_le64(at(DATA) + i * 24 + 16);
            if (got != want[i])
                fail_msg("%s case %u: a %llx b %llx: got %llx, want %llx", rv_insn_rows[rows[r].op].name, i,
                         (unsigned long long)va[i], (unsigned long long)vb[i], (unsigned long long)got, (unsigned long long)want[i]);
        }
    }
}

/* No integer row of insn.def is without an oracle; the encoding here decodes to that row and to nothing where it is disabled. */
static void test_rows_complete(void **state)
{
    rv_decode_init();
    for (unsigned op = 1; op < RV_OP_COUNT; op++) {
        unsigned fmt = rv_insn_rows[op].fmt, n = 0;
        if ((fmt != RV_FMT_R && fmt != RV_FMT_R1 && fmt != RV_FMT_I && fmt != RV_FMT_SH) || op == RV_OP_JALR)
            continue;
        for (unsigned r = 0; r < ROWS; r++) {
            if (rows[r].op != op)
                continue;
            struct rv_insn in;
            uint64_t b = 17;
            uint32_t w = encode(r, 13, &b);
            rv_decode(w, RV_EXT_ALL, &in);
            assert_int_equal(in.op, op);
            rv_decode(w, RV_EXT_ALL & ~RV_EXT_BIT(rv_insn_rows[op].ext), &in);
            assert_int_equal(in.op, RV_OP_ILLEGAL);
            n++;
        }
        if (n != 1)
            fail_msg("%s has %u rows", rv_insn_rows[op].name, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rows_complete), cmocka_unit_test(test_every_row) };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
