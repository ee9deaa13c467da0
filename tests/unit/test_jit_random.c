/* SPDX-License-Identifier: MIT */
/*
 * Random programs run on the interpreter and on the translator, from the same registers and memory; afterwards every register,
 * the trap state and the memory must be the same. A program is a loop over some dozens of instructions of any kind, with
 * branches forward, small loops, sequences that the translator fuses, and accesses around three bases; some trap. A quarter each is mostly
 * words, or mostly floating point. BP_SEED and BP_PROGRAMS choose others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cpu/riscv/accel.h"
#include "cpu/riscv/cpu.h"
#include "cpu/riscv/decode.h"
#include "cpu/riscv/jit_int.h"
#include "loop/loop.h"
#include "mem/ram.h"
#include "mem/view.h"
#include "hart_until.h"
#include "seeded.h"

enum { RAM = 0x80000000u, RAM_SIZE = 0x40000, DATA = 0x20000, DATA_SIZE = 0x8000, MAX = 400 };
enum { COUNT_DOWN = 0xfffd0d13 };         /* addi s10, s10, -1 */
enum { COUNTER = 27, TIMES = 26, BASE_A = 2, BASE_B = 8, BASE_C = 20, INT_REGS = 32 };
struct line { uint32_t raw; uint8_t len; int8_t skip; };       /* skip: a branch over that many lines; back: below 0 */
struct outcome { uint64_t reg[65], csr[12]; uint8_t data[DATA_SIZE]; };

static struct hart_set *set[2];
static struct region root, ram_region;
static struct ram *ram;

static uint64_t time_now(void *opaque) { return 1234; }
static void arm(void *opaque, unsigned hart, uint64_t deadline) { }
static const struct hart_env env = { .time_now = time_now, .timer_arm = arm };
static const unsigned compared_csrs[12] = { 0x001, 0x002, 0x300, 0x340, 0x341, 0x342, 0x343, 0x305, 0x140, 0x141, 0x142, 0x143 };

static int setup(void **state)
{
    struct err e = ERR_INIT;
    const struct accel_ops *accel[2] = { &accel_interp, &accel_jit };
    assert_true(loop_main_init(&e));
    region_init_container(&root, "test", UINT64_MAX);
    address_space_init(&as_memory, "memory", &root);
    ram = ram_new("ram", RAM_SIZE, &e);
    assert_non_null(ram);
    region_init_ram(&ram_region, "ram", ram, 0, RAM_SIZE);
    region_add(&root, RAM, &ram_region, 0);
    json_t *none = json_object();
    struct obj *cpu = obj_create(obj_class_find("rv64"), NULL, none, obj_container("cpu-model"), &e);
    assert_non_null(cpu);
    json_decref(none);
    for (unsigned i = 0; i < 2; i++) {
        struct hart_set_config cfg = { .cpu = (struct rv_cpu *)cpu, .accel = accel[i], .env = &env, .count = 1 };
        set[i] = hart_set_new(&cfg, &e);
        assert_non_null(set[i]);
    }
    return 0;
}

/* ---- programs ---- */

static bool reserved(unsigned r) { return r == COUNTER || r == TIMES || r == BASE_A || r == BASE_B || r == BASE_C; }

static unsigned base(void)
{
    static const unsigned b[] = { BASE_A, BASE_B, BASE_C };
    return below(200) ? b[below(3)] : below(INT_REGS);
}

static uint32_t put(uint32_t raw, unsigned at, unsigned bits, unsigned v)
{
    uint32_t mask = ((1u << bits) - 1) << at;
    return (raw & ~mask) | (v << at & mask);
}

/* Whether the program may hold it where it stands: no way to lose the bases, and no way out. */
static bool allowed(const struct rv_insn *in)
{
    switch (rv_insn_rows[in->op].fmt) {
    case RV_FMT_R: case RV_FMT_R1: case RV_FMT_SH: case RV_FMT_U: case RV_FMT_FCMP: case RV_FMT_F2X: case RV_FMT_FX:
        return in->op != RV_OP_ILLEGAL && !reserved(in->rd);
    case RV_FMT_I:
        return in->op != RV_OP_JALR && !reserved(in->rd);
    case RV_FMT_LD:
        return !reserved(in->rd) && (reserved(in->rs1) || !below(100)) && in->rs1 != COUNTER;
    case RV_FMT_ST: case RV_FMT_FST: case RV_FMT_FLD:
        return (reserved(in->rs1) || !below(100)) && in->rs1 != COUNTER;
    case RV_FMT_AMO:
        return !reserved(in->rd) && !(in->op == RV_OP_AMOCAS_Q && (reserved(in->rd + 1) || in->rd == 30 || in->rs2 == 30));
    case RV_FMT_R4: case RV_FMT_FRM: case RV_FMT_FRM1: case RV_FMT_FR: case RV_FMT_X2F: case RV_FMT_XF: case RV_FMT_FLI:
    case RV_FMT_FENCE:
        return in->op != RV_OP_FENCE_I || !below(8);
    default:
        return false;
    }
}

/* csrrw and friends: floating-point state, mscratch, counters. */
static uint32_t csr_insn(void)
{
    static const unsigned n[] = { 0x001, 0x002, 0x003, 0x340, 0xc00, 0xc02, 0xc01, 0x300, 0x140, 0x141, 0x142, 0x143, 0x100 };
    unsigned csr = n[below(13)], rd = below(INT_REGS), f3 = 1 + below(3) + (csr == 0x002 ? 4 : 0);
    if (csr == 0x100 && below(2))
        return csr << 20 | 2 << 15 | (6 + below(2)) << 12 | (reserved(rd) ? 0 : rd) << 7 | 0x73;        /* sstatus.SIE */
    if (csr == 0x100 || csr >= 0xc00 || csr == 0x300)
        return csr << 20 | 2 << 12 | (reserved(rd) ? 0 : rd) << 7 | 0x73;       /* only read */
    return csr << 20 | (csr == 0x002 ? below(5) : below(32)) << 15 | f3 << 12 | (reserved(rd) ? 0 : rd) << 7 | 0x73;
}

static uint32_t random_row(void)
{
    const struct rv_insn_row *r = &rv_insn_rows[1 + below(RV_OP_COUNT - 1)];
    uint32_t raw = r->match | ((uint32_t)rnd() & ~r->mask);
    unsigned f = r->fmt;
    if (f == RV_FMT_LD || f == RV_FMT_ST || f == RV_FMT_FLD || f == RV_FMT_FST || f == RV_FMT_AMO)
        raw = put(raw, 15, 5, base());
    if ((f == RV_FMT_LD || f == RV_FMT_ST || f == RV_FMT_FLD || f == RV_FMT_FST) && below(4)) {
        unsigned imm = below(2) ? below(64) * 8 : below(256);           /* mostly near, mostly aligned */
        raw = f == RV_FMT_LD || f == RV_FMT_FLD ? put(raw, 20, 12, imm) : put(put(raw, 7, 5, imm), 25, 7, imm >> 5);
    }
    if ((f == RV_FMT_R4 || f == RV_FMT_FRM || f == RV_FMT_FRM1 || f == RV_FMT_F2X || f == RV_FMT_X2F) && below(50))
        raw = put(raw, 12, 3, below(3) ? 7 : below(5));
    if (!below(4))
        raw = put(raw, 7, 5, 10 + below(6));
    return raw;
}

/* Lines that belong together, to be taken one after the other. */
static struct { struct line l[4]; unsigned n, at; } queue;

static void enqueue(uint32_t raw, int skip)
{
    queue.l[queue.n++] = (struct line){ raw, 4, (int8_t)skip };
}

static unsigned any_rd(void)
{
    unsigned r = below(3) ? 10 + below(4) : below(INT_REGS);
    return reserved(r) ? 0 : r;
}

static uint32_t shift(unsigned f3, bool arith, bool w, unsigned rd, unsigned rs, unsigned n)
{
    return (arith ? 0x40000000u : 0) | n << 20 | rs << 15 | f3 << 12 | rd << 7 | (w ? 0x1b : 0x13);
}

/* What compilers write for extensions, rotations, scaled additions, constants. */
static void enqueue_idiom(void)
{
    static const uint8_t amount[] = { 32, 48, 56, 31, 1, 2, 3, 33, 63 };
    static const uint32_t join[] = { 0x6033, 0x4033, 0x0033, 0x003b };
    unsigned a = any_rd(), b = any_rd(), c = any_rd(), s = any_rd(), n = amount[below(9)];
    bool w = below(2);
    switch (below(7)) {
    case 6:                                                                     /* one shift in place, perhaps of another value by then */
        n = 1 + below(w ? 31 : 63);
        enqueue(shift(1, false, w, b, s, (w ? 32 : 64) - n), 0);
        if (below(2))
            enqueue((uint32_t)rnd() << 20 | s << 15 | s << 7 | 0x13, 0);        /* addi */
        enqueue(shift(5, false, w, s, s, n), 0);
        enqueue(join[below(4)] | s << 7 | s << 15 | b << 20, 0);
        break;
    case 0:
        enqueue(shift(1, false, false, a, s, n), 0);
        enqueue(shift(5, below(2), false, below(2) ? a : b, a, below(3) ? n : 32 - below(5)), 0);
        break;
    case 1:
        n = 1 + below(w ? 31 : 63);
        enqueue(shift(5, false, w, a, s, n), 0);
        enqueue(shift(1, false, w, b, s, (w ? 32 : 64) - n), 0);
        if (below(2)) {
            struct line first = queue.l[0];
            queue.l[0] = queue.l[1];
            queue.l[1] = first;
        }
        enqueue(join[below(4)] | (below(2) ? c : b) << 7 | a << 15 | b << 20, 0);
        break;
    case 2:
        enqueue(shift(1, false, false, a, s, below(5)), 0);
        if (!below(3))
            enqueue((uint32_t)rnd() << 20 | a << 15 | (below(4) ? a : b) << 7 | 0x13, 0);      /* addi */
        enqueue(0x33 | (below(2) ? a : b) << 7 | (below(2) ? a << 15 | c << 20 : c << 15 | a << 20), 0);
        break;
    case 3:
        enqueue(((uint32_t)rnd() & 0xfffff000) | (below(2) ? 0x37 : 0x17) | a << 7, 0);
        enqueue((uint32_t)rnd() << 20 | a << 15 | (below(2) ? a : b) << 7 | (below(2) ? 0x13 : 0x1b), 0);
        break;
    case 4:
        enqueue(0x3b | a << 7 | b << 15 | s << 20, 0);                          /* addw, sext.w, and a use */
        enqueue(0x1b | c << 7 | a << 15, 0);
        enqueue(join[below(4)] | b << 7 | a << 15 | c << 20, 0);
        break;
    default:
        enqueue(0x7013 | below(256) << 20 | s << 15 | a << 7, 0);               /* andi */
        enqueue(shift(1, false, false, a, a, 32), 0);
        enqueue(shift(5, false, false, a, a, 29 + below(4)), 0);
        enqueue(0x33 | b << 7 | a << 15 | s << 20, 0);
        break;
    }
}

/* The end of a loop over up to @most lines before: it goes back as long as s10 counts down to more than 0. */
static void enqueue_loop(unsigned most)
{
    int back = -(int)(2 + below(most));
    enqueue(COUNT_DOWN, 0);                                                     /* addi s10, s10, -1 */
    if (below(3)) {
        enqueue(0x01a04063, back);                                              /* bgtz s10 */
    } else {
        enqueue(0x01a05063, 1);                                                 /* blez s10, over the jump */
        enqueue(0x6f, back - 1);
    }
}

static bool words, floats;              /* the program computes mostly in 32 bits; mostly in floating point */

/* Sign-extended words among few registers, what else looks at them, and accesses and branches in between. */
static struct line word_line(void)
{
    static const uint32_t two[] = {
        0x0000003b, 0x4000003b, 0x0000103b, 0x0000503b, 0x4000503b, 0x0200003b, 0x0200403b, 0x0200703b, 0x6000503b,   /* addw ... remuw, rorw */
        0x00004033, 0x00006033, 0x00007033, 0x40007033, 0x40004033, 0x00000033, 0x02000033, 0x00002033, 0x00003033,   /* xor ... xnor, add, mul, slt */
        0x2000403b, 0x0800003b,                                                                                       /* sh2add.uw, add.uw */
    };
    static const uint32_t one[] = { 0x0000001b, 0x00000013, 0x00004013, 0x00006013, 0x00007013, 0x00002013, 0x00003013 };
    static const uint32_t branch[] = { 0x0063, 0x1063, 0x4063, 0x5063, 0x6063, 0x7063 };
    static const uint8_t pool[] = { 5, 6, 10, 11, 12, 17, 28, 31 };
    static const uint8_t bases[] = { BASE_A, BASE_B, BASE_C };
    unsigned d = pool[below(8)], a = pool[below(8)], b = below(10) ? pool[below(8)] : 0, at = bases[below(3)] << 15;
    switch (below(12)) {
    case 0: return (struct line){ 0x2003 | below(32) << 22 | at | d << 7, 4, 0 };                       /* lw */
    case 1: return (struct line){ (below(2) ? 0x2023 : 0x3023) | a << 20 | at | below(4) << 10, 4, 0 }; /* sw, sd */
    case 2: return (struct line){ branch[below(6)] | a << 15 | b << 20, 4, (int8_t)(1 + below(6)) };
    case 3: return (struct line){ shift(below(2) ? 1 : 5, false, true, d, a, below(32)), 4, 0 };
    case 4: return (struct line){ 0x1b | d << 7 | a << 15, 4, 0 };                                      /* sext.w */
    case 5: return (struct line){ 0x33 | d << 7 | a << 20, 4, 0 };                                      /* mv */
    case 6: return (struct line){ one[below(7)] | (uint32_t)rnd() << 20 | a << 15 | d << 7, 4, 0 };
    default: return (struct line){ two[below(20)] | b << 20 | a << 15 | d << 7, 4, 0 };
    }
}

static uint32_t compare_insn(unsigned rd, unsigned a, unsigned b)
{
    return 0xa0000053 | below(2) << 25 | b << 20 | a << 15 | below(3) << 12 | rd << 7;
}

/* A comparison whose flags are put back, or nearly; mstatus.FS from Dirty to Clean; an access, a step of its base, and another. */
static void enqueue_float_idiom(unsigned a, unsigned b)
{
    static const unsigned bases[] = { BASE_A, BASE_B, BASE_C };
    unsigned r = 10 + below(4), at = bases[below(3)], wide = below(2) << 12;
    uint32_t step = at << 15 | at << 7 | 0x13;
    switch (below(3)) {
    case 0:
        enqueue(0x00102073 | r << 7, 0);                                        /* frflags */
        enqueue(compare_insn(10 + below(8), a, b), 0);
        if (!below(4))
            enqueue(0x00000013 | r << 15 | r << 7 | below(2) << 20, 0);
        enqueue(0x00101073 | r << 15, 0);                                       /* fsflags */
        break;
    case 1:
        enqueue(0x00002037 | r << 7, 0);                                        /* lui 2 */
        enqueue(0x30003073 | r << 15, 0);                                       /* csrc mstatus */
        break;
    default:
        enqueue((below(2) ? 0x2007 : 0x2003) | wide | at << 15 | r << 7, 0);
        enqueue(step | 8 << 20, 0);
        enqueue((below(2) ? 0x2027 : 0x2023) | wide | r << 20 | at << 15 | 0xfe000c00, 0);       /* -8(base) */
        enqueue(step | 0xff800000, 0);
        break;
    }
}

/* Singles and doubles among few registers, some of which the host has not, and what moves them. */
static struct line float_line(void)
{
    static const uint8_t pool[] = { 1, 8, 10, 11, 15, 15, 18, 19 };
    static const uint8_t bases[] = { BASE_A, BASE_B, BASE_C };
    static const uint32_t two[] = { 0x00007053, 0x08007053, 0x10007053, 0x18007053, 0x28000053, 0x28001053, 0x20000053, 0x20001053, 0x20002053 };
    static const uint32_t fused[] = { 0x7043, 0x7047, 0x704b, 0x704f };
    unsigned d = pool[below(8)], a = pool[below(8)], b = below(6) ? pool[below(8)] : a, c = pool[below(8)], at = bases[below(3)] << 15;
    uint32_t fmt = (below(4) ? 0u : 1u) << 25, regs = b << 20 | a << 15 | d << 7;
    switch (below(12)) {
    case 0: return (struct line){ (below(4) ? 0x2007 : 0x3007) | below(32) << 23 | at | d << 7, 4, 0 };                 /* flw, fld */
    case 1: return (struct line){ (below(3) ? 0x2027 : 0x3027) | a << 20 | at | below(4) << 10, 4, 0 };                 /* fsw, fsd */
    case 2: return (struct line){ 0x58007053 | fmt | a << 15 | d << 7, 4, 0 };                                          /* fsqrt */
    case 3: return (struct line){ (below(2) ? 0x40107053 : 0x42007053) | a << 15 | d << 7, 4, 0 };                      /* fcvt.s.d, fcvt.d.s */
    case 4: return (struct line){ compare_insn(10 + below(4), a, b), 4, 0 };
    case 5: case 6: case 7: return (struct line){ fused[below(4)] | c << 27 | fmt | regs, 4, 0 };
    default: return (struct line){ two[below(9)] | fmt | regs, 4, 0 };
    }
}

/* @since: lines since s10 was set. */
static struct line random_line(unsigned since)
{
    static const uint32_t branch[] = { 0x0063, 0x1063, 0x4063, 0x5063, 0x6063, 0x7063 };
    for (;;) {
        unsigned kind = below(20);
        uint32_t raw;
        struct rv_insn in;
        if (queue.at < queue.n)
            return queue.l[queue.at++];
        queue.n = queue.at = 0;
        if (words && kind > 8)
            return word_line();
        if (floats && kind > 8)
            return float_line();
        if (kind == 3 && floats)
            enqueue_float_idiom(8 + below(4), 8 + below(12));
        else if (kind == 3 && !below(2))
            enqueue_idiom();
        else if (kind == 4 && since > 1 && since < 60 && !below(3))
            enqueue_loop(since - 1);
        if (queue.n)
            continue;
        if (kind == 0)
            return (struct line){ branch[below(6)] | below(32) << 15 | below(32) << 20, 4, (int8_t)(1 + below(6)) };
        if (kind == 1 && !below(3)) {
            unsigned rd = below(32);
            return (struct line){ 0x6f | (reserved(rd) ? 0 : rd) << 7, 4, (int8_t)(1 + below(6)) };
        }
        if (kind == 2 && !below(3))
            return (struct line){ csr_insn(), 4, 0 };
        raw = kind < 7 ? (uint32_t)rnd() & 0xffff : random_row();
        rv_decode(raw, RV_EXT_ALL & ~(RV_EXT_BIT(RV_EXT_SMAIA)), &in);
        if (in.op != RV_OP_ILLEGAL && allowed(&in))
            return (struct line){ in.len == 2 ? raw & 0xffff : raw, in.len, 0 };
    }
}

static uint32_t with_displacement(uint32_t raw, int32_t d)
{
    uint32_t u = (uint32_t)d;
    if ((raw & 0x7f) == 0x6f)
        return raw | (u >> 20 & 1) << 31 | (u >> 1 & 0x3ff) << 21 | (u >> 11 & 1) << 20 | (u >> 12 & 0xff) << 12;
    return raw | (u >> 12 & 1) << 31 | (u >> 5 & 0x3f) << 25 | (u >> 1 & 15) << 8 | (u >> 11 & 1) << 7;
}

/* Where the jump of line @i goes: not between a count and its test, for then it might never end. */
static unsigned jump_target(const struct line *l, unsigned i, unsigned n)
{
    unsigned k = MIN(i + 1 + (unsigned)l[i].skip, n);
    while (l[i].skip > 0 && k > i + 1 && k < n && (l[k - 1].raw == COUNT_DOWN || l[k - 2].raw == COUNT_DOWN))
        k++;
    return k;
}

/* Writes a program to RAM at @at; returns the offset of its end, where it stays. */
static unsigned make_program(unsigned at)
{
    static struct line l[MAX];
    static unsigned off[MAX + 8];
    unsigned n = 5 + below(MAX / (1 + below(10)) - 5), pos = at, since = 100, sort = below(4);
    queue.n = queue.at = 0;
    words = sort == 0;
    floats = sort == 1;
    for (unsigned i = 0; i < n; i++) {
        l[i] = i > 1 ? random_line(since++) : (struct line){ i ? 0xb0201073 : 0xb0001073, 4, 0 };      /* counters begin at 0 */
        if (i > 1 && queue.at == queue.n && !below(20)) {
            l[i] = (struct line){ 0x00000d13 | below(8) << 20, 4, 0 };          /* li s10, times */
            since = 0;
        }
        off[i] = pos;
        pos += l[i].len;
    }
    if (pos & 2) {                                                      /* mtvec is a multiple of 4 */
        st_le16(ram->host + pos, 0x0001);
        pos += 2;
    }
    for (unsigned i = n; i < n + 8; i++)
        off[i] = pos;
    for (unsigned i = 0; i < n; i++) {
        uint32_t raw = l[i].skip ? with_displacement(l[i].raw, (int32_t)(off[jump_target(l, i, n)] - off[i])) : l[i].raw;
        memcpy(ram->host + off[i], &raw, l[i].len);
    }
    st_le32(ram->host + pos, 0xfffd8d93);                               /* addi s11, s11, -1 */
    st_le32(ram->host + pos + 4, 0x000d8663);                           /* beqz s11, +12 */
    st_le32(ram->host + pos + 8, with_displacement(0x6f, (int32_t)(at + 8 - (pos + 8))));
    st_le32(ram->host + pos + 12, 0x0000006f);                          /* here s11 did not end: j . */
    st_le32(ram->host + pos + 16, 0x0000006f);                          /* the end, and where traps go */
    return pos + 16;
}

/* ---- running ---- */

static uint64_t value(void)
{
    static const uint64_t v[] = { 0, 1, UINT64_MAX, INT64_MAX, BIT64(63), 0x7fffffff, 0x80000000, UINT32_MAX };
    uint64_t r = rnd();
    return below(3) ? r >> below(64) : v[below(8)];
}

static uint64_t float_value(void)
{
    static const uint64_t d[] = { 0, BIT64(63), UINT64_C(0x3ff0000000000000), UINT64_C(0x7ff0000000000000), UINT64_C(0x7ff8000000000000),
                                  UINT64_C(0x7ff4000000000000), 1, UINT64_C(0xbff8000000000000), UINT64_C(0x41f0000000000000),
                                  UINT64_C(0xc1e0000000200000) };
    static const uint32_t s[] = { 0, 0x80000000, 0x3f800000, 0x7f800000, 0x7fc00000, 0x7fa00000, 1, 0xbfc00000, 0x4f800000, 0xcf000001 };
    switch (below(5)) {
    case 0: return d[below(10)];
    case 1: return UINT64_C(0xffffffff00000000) | s[below(10)];
    case 2: return UINT64_C(0xffffffff00000000) | (uint32_t)rnd();
    case 3: return UINT64_C(0xffffffff00000000) | (uint32_t)(0x3f000000 + below(0x1000000));
    default: return below(2) ? rnd() : UINT64_C(0x3fe0000000000000) + (rnd() >> 9);
    }
}

static void run(unsigned which, const uint64_t *regs, uint64_t start, uint64_t end, struct outcome *o)
{
    struct hart *h = hart_get(set[which], 0);
    rv_code_attach(set[which]);                 /* stores to a page with its reservation are its own */
    hart_set_start(h, 3, start, 0, 0);
    for (unsigned i = 1; i < 65; i++)
        if (i != 32)
            assert_true(hart_reg_write(h, i, regs[i]));
    assert_true(hart_reg_write(h, 65 + 0x300, regs[32]));
    assert_true(hart_reg_write(h, 65 + 0x305, end));
    assert_true(hart_reg_write(h, 65 + 2, regs[0]));
    hart_power(h, true);
    UNTIL(hart_pc(h) == end, harts_run(set[which]));
    hart_power(h, false);
    for (unsigned i = 0; i < 65; i++)
        assert_true(hart_reg_read(h, i, &o->reg[i]));
    for (unsigned i = 0; i < 12; i++)
        assert_true(hart_reg_read(h, 65 + compared_csrs[i], &o->csr[i]));
    memcpy(o->data, ram->host + DATA, DATA_SIZE);
}

static void explain(unsigned start, unsigned end, const struct outcome *o)
{
    for (unsigned at = start; at <= end;) {
        struct rv_insn in;
        char text[80];
        rv_decode(ld_le32(ram->host + at), RV_EXT_ALL, &in);
        rv_disas(&in, RAM + at, text, sizeof text);
        print_message("%08x  %s\n", RAM + at, text);
        at += in.len;
    }
    for (unsigned i = 0; i < 65; i++)
        if (o[0].reg[i] != o[1].reg[i])
            print_message("register %u: interpreter 0x%" PRIx64 ", translator 0x%" PRIx64 "\n", i, o[0].reg[i], o[1].reg[i]);
    for (unsigned i = 0; i < 12; i++)
        if (o[0].csr[i] != o[1].csr[i])
            print_message("CSR 0x%x: interpreter 0x%" PRIx64 ", translator 0x%" PRIx64 "\n", compared_csrs[i], o[0].csr[i], o[1].csr[i]);
    for (unsigned i = 0; i < DATA_SIZE; i++)
        if (o[0].data[i] != o[1].data[i]) {
            print_message("memory at 0x%x differs first\n", RAM + DATA + i);
            break;
        }
}

/* Code is translated at once, or after it was interpreted once or twice: then it runs here and there by turns. */
static void make_cool(unsigned number)
{
    struct jit *j = hart_get(set[1], 0)->accel_data;
    jit_options.threshold = number % 3;
    memset(j->cool, 0, sizeof j->cool);
}

static void one_program(unsigned number)
{
    static struct outcome o[2];
    static uint8_t data[DATA_SIZE], program[MAX * 4 + 32];
    uint64_t regs[65], my_seed = seed;
    unsigned start = 0x1000 - below(0x200) * 2, end = make_program(start);
    for (unsigned i = 0; i < 65; i++)
        regs[i] = i < 33 ? value() : float_value();
    regs[BASE_A] = RAM + DATA + DATA_SIZE / 2 + below(64) * 8;
    regs[BASE_B] = RAM + DATA + DATA_SIZE / 2 - below(256) * 8;
    regs[BASE_C] = RAM + DATA + 0x1000 * (2 + below(4)) - below(16) * 4;
    regs[COUNTER] = 1 + below(40);
    regs[TIMES] = below(8);
    regs[0] = below(3) ? 0 : below(5);                                  /* frm; it makes mstatus.FS dirty */
    regs[32] = (uint64_t)(below(10) ? 1 + below(3) : 0) << 13;          /* mstatus.FS */
    for (unsigned i = 0; i < DATA_SIZE; i += 8)
        st_le64(data + i, below(2) ? float_value() : rnd());
    memcpy(program, ram->host + start, end + 4 - start);
    make_cool(number);
    for (unsigned i = 0; i < 2; i++) {
        memcpy(ram->host + start, program, end + 4 - start);
        memset(ram->host, 0, 0xc00);                /* in reach of one of value()'s */
        memcpy(ram->host + DATA, data, DATA_SIZE);
        run(i, regs, RAM + start, RAM + end, &o[i]);
    }
    /* Stores to code without a fence.i may take effect or not. */
    bool rewritten = memcmp(program, ram->host + start, end + 4 - start);
    if (!rewritten && memcmp(&o[0], &o[1], sizeof o[0])) {
        explain(start, end, o);
        fail_msg("program %u, BP_SEED=0x%" PRIx64, number, my_seed);
    }
}

static void test_random_programs(void **state)
{
    unsigned n = getenv("BP_PROGRAMS") ? (unsigned)atoi(getenv("BP_PROGRAMS")) : 1500;
    if (getenv("BP_SEED"))
        seed = strtoull(getenv("BP_SEED"), NULL, 0);
    print_message("first BP_SEED=0x%" PRIx64 "\n", seed);
    for (unsigned i = 0; i < n; i++)
        one_program(i);
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < 2; i++)
        hart_set_free(set[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random_programs) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
