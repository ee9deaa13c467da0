/* SPDX-License-Identifier: MIT */
/*
 * Writes random programs for S and U mode, with their page tables and trap handlers, into the tests' RAM (rv.h).
 *
 * A program is a loop over actions: accesses through pointers that may lie anywhere, calls of functions on pages that are mapped here and
 * there, page-table entries changed (each with one of the fences that the ISA asks for), switches between two address spaces and between
 * modes, SUM, MXR, MPRV, PMP, A and D bits, code rewritten. Handlers in M and S mode log what they are entered for and skip it.
 */
#ifndef PAGED_PROGRAM_H
#define PAGED_PROGRAM_H

#include "rv.h"
#include <string.h>
#include "cpu/riscv/cpu.h"
#include "seeded.h"

/* Physical: the handlers, their logs, pages that programs read and write, here and 2 MiB higher, functions, the program, page tables. */
enum { M_CODE = RAM, S_CODE = RAM + 0x1000, M_LOG = RAM + 0x2000, S_LOG = RAM + 0x4000, LOG_SIZE = 0x2000, LOG_ENTRY = 32,
       POOL = RAM + 0x10000, POOL_PAGES = 16, FUNCTIONS = RAM + 0x30000, F_PAGES = 8, MAIN = RAM + 0x40000, MAIN_SIZE = 0x10000,
       TABLES = RAM + 0x60000, LOW_SIZE = 0x80000, HIGH = RAM + 0x200000, HIGH_SIZE = 0x40000 };
/* Virtual: RAM's first 2 MiB for the supervisor; code, and the same 4 MiB above for the user; functions likewise. */
enum { V_RAM = 0x20000000, V_CODE = 0x20800000, V_USER = 0x400000, V_FUNCTIONS = 0x21000000, V_LARGE_F = 0x22000000, V_SMALL = 0x200000,
       V_LARGE = 0x10000000, V_HUGE = 0x40000000 };
#define V_HIGH UINT64_C(0xffffffff80000000)
enum { S4 = 20, S5, S6, S7, T3 = 28, T4, T5, T6, LOGGED = 27, TIMES = 23, INNER = 26 };
enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
enum { ADDI = 0x13, LUI = 0x37, AUIPC = 0x17, LD = 0x3003, SD = 0x3023, SW = 0x2023, JALR = 0x67, FENCE_I = 0x100f, ECALL = 0x73,
       SFENCE_VMA = 0x12000073, MRET = 0x30200073, SRET = 0x10200073, HERE = 0x6f, SLLI = 0x1013, SRLI = 0x5013, ADD = 0x33, XOR = 0x4033,
       CSRRW = 1, CSRRS, CSRRC, CSRRCI = 7 };
/* What the M-mode handler does for ECALL, by a7. */
enum { CALL_MODE, CALL_PTE, CALL_SATP, CALL_SET, CALL_CLEAR, CALL_MPRV, CALL_PMP, CALL_ENV, CALL_CODE, CALL_DELEG, CALLS };

static uint64_t pc_now, end_at;

/* ---- writing code ---- */

static void put(uint32_t insn)
{
    put_insn(pc_now, insn);
    pc_now += (insn & 3) == 3 ? 4 : 2;
}

static void li(unsigned r, uint64_t v)
{
    int64_t low = (int64_t)(v << 52) >> 52;
    if ((uint64_t)(int64_t)(int32_t)v != v) {
        li(T4, (uint64_t)((int64_t)(v - (uint64_t)(int64_t)(int32_t)v) >> 32));
        li(r, (uint64_t)(int64_t)(int32_t)v);
        put(enc_i(SLLI, T4, T4, 32));
        put(enc_r(ADD, r, r, T4));
        return;
    }
    put(((uint32_t)(v - (uint64_t)low) & 0xfffff000) | r << 7 | LUI);
    put(enc_i(0x1b, r, r, (int32_t)low));
}

static void csr_to(unsigned n, unsigned r) { put(enc_csr(CSRRW, 0, n, r)); }
static void csr_from(unsigned r, unsigned n) { put(enc_csr(CSRRS, r, n, 0)); }

/* A branch to what `land()` is called for. */
static uint64_t branch(unsigned f3, unsigned a, unsigned b)
{
    put(enc_b(f3, a, b, 0));
    return pc_now - 4;
}
static void land(uint64_t from) { put_insn(from, ld_le32(at(from)) | enc_b(0, 0, 0, (int32_t)(pc_now - from))); }

/* Logs cause (left in gp), pc (in tp), value and the count of instructions; @log holds the offset of the next entry. */
static void log_entry(uint64_t to, unsigned log, unsigned csrs)
{
    csr_from(GP, csrs + 2);
    csr_from(TP, csrs + 1);
    put(AUIPC | 25 << 7 | (uint32_t)(((to - pc_now) + 0x800) & 0xfffff000));
    put(enc_i(ADDI, 25, 25, (int32_t)((int64_t)((to - (pc_now - 4)) << 52) >> 52)));
    put(enc_r(ADD, 25, 25, log));
    put(enc_s(SD, 25, GP, 0));
    put(enc_s(SD, 25, TP, 8));
    csr_from(24, csrs + 3);
    put(enc_s(SD, 25, 24, 16));
    csr_from(24, 0xc02);
    put(enc_s(SD, 25, 24, 24));
    put(enc_i(ADDI, log, log, LOG_ENTRY));
    put(enc_i(SLLI, log, log, 51));
    put(enc_i(SRLI, log, log, 51));
}

/* gp holds the cause, tp the pc: goes on behind the instruction; if that was not to be fetched, where the function was called. */
static void skip_insn(unsigned epc, uint32_t ret)
{
    static const unsigned fetches[] = { 0, 1, 12 };
    uint64_t to[3];
    for (unsigned i = 0; i < 3; i++) {
        put(enc_i(ADDI, 24, 0, (int32_t)fetches[i]));
        to[i] = branch(0, GP, 24);
    }
    put(enc_i(ADDI, TP, TP, 4));
    csr_to(epc, TP);
    put(ret);
    for (unsigned i = 0; i < 3; i++)
        land(to[i]);
    csr_to(epc, RA);
    put(ret);
}

static void fence_by_a6(void)
{
    for (unsigned i = 0; i < 4; i++) {
        put(enc_i(ADDI, 24, 0, (int32_t)i));
        uint64_t next = branch(1, A6, 24);
        put(enc_r(SFENCE_VMA, 0, i & 1 ? A2 : 0, i & 2 ? A3 : 0));
        land(next);
    }
}

static void mprv_call(void)
{
    csr_from(T5, 0x300);
    li(24, MSTATUS_MPP | MSTATUS_SUM | MSTATUS_MXR);
    put(enc_csr(CSRRC, 0, 0x300, 24));
    put(enc_csr(CSRRS, 0, 0x300, A2));
    put(enc_i(ADDI, 24, 0, 1));
    uint64_t other = branch(1, A6, 24);
    put(enc_s(SD, A0, A1, 0));
    land(other);
    other = branch(0, A6, 24);
    put(enc_i(LD, A1, A0, 0));
    land(other);
    csr_to(0x300, T5);
}

/* Registers by bits of a6: each must take effect by itself. */
static void pmp_call(void)
{
    static const struct { unsigned csr, from; } r[] = { { 0x3b0, A0 }, { 0x3b1, A1 }, { 0x3a0, A2 } };
    for (unsigned i = 0; i < 3; i++) {
        put(enc_i(0x7013, 24, A6, 1 << i));                 /* andi */
        uint64_t over = branch(0, 24, 0);
        csr_to(r[i].csr, r[i].from);
        land(over);
    }
}

static void one_call(unsigned n)
{
    switch (n) {
    case CALL_MODE:
        csr_from(T5, 0x300);
        li(24, 0x800);
        put(enc_r(XOR, T5, T5, 24));
        csr_to(0x300, T5);
        li(24, V_USER);
        put(enc_r(XOR, T6, T6, 24));
        break;
    case CALL_PTE:
        put(enc_s(SD, A0, A1, 0));
        fence_by_a6();
        break;
    case CALL_SATP: csr_to(0x180, A1); break;
    case CALL_SET: put(enc_csr(CSRRS, 0, 0x300, A1)); break;
    case CALL_CLEAR: put(enc_csr(CSRRC, 0, 0x300, A1)); break;
    case CALL_MPRV: mprv_call(); break;
    case CALL_PMP: pmp_call(); break;
    case CALL_ENV: csr_to(0x30a, A1); break;
    case CALL_CODE:
        put(enc_s(SW, A0, A1, 0));
        put(FENCE_I);
        break;
    default: csr_to(0x302, A1); break;
    }
}

static void write_handlers(void)
{
    pc_now = M_CODE;
    log_entry(M_LOG, LOGGED, 0x340);
    uint64_t not_irq = branch(5, GP, 0);
    put(enc_csr(CSRRCI, 0, 0x344, 2));
    put(MRET);
    land(not_irq);
    put(enc_i(ADDI, 24, GP, -8));
    put(enc_i(SRLI, 24, 24, 1));
    uint64_t call = branch(0, 24, 0);
    skip_insn(0x341, MRET);
    land(call);
    put(enc_i(ADDI, T6, TP, 4));
    for (unsigned i = 0; i < CALLS; i++) {
        put(enc_i(ADDI, 24, 0, (int32_t)i));
        uint64_t next = branch(1, A7, 24);
        one_call(i);
        csr_to(0x341, T6);
        put(MRET);
        land(next);
    }
    csr_to(0x341, T6);
    put(MRET);
    assert_true(pc_now <= S_CODE);
    pc_now = S_CODE;
    log_entry(S_LOG + (V_RAM - V_CODE), S1, 0x140);         /* its place in the supervisor's window, seen from the code */
    not_irq = branch(5, GP, 0);
    put(enc_csr(CSRRCI, 0, 0x144, 2));
    put(SRET);
    land(not_irq);
    skip_insn(0x141, SRET);
    assert_true(pc_now <= M_LOG);
}

/* ---- page tables ---- */

enum { T_ROOT48, T_ROOT, T_LOW, T_TOP, T_SMALL, T_HIGH = T_SMALL + 3, T_SPLIT_2M, T_SPLIT_1G, T_FS, T_FU, T_OF_ONE };
enum { T_CODE = 2 * T_OF_ONE, T_CODE_USER, T_FS_SHARED };
static bool sv48[2], shared_functions, leaves_only;         /* large leaves are not split: one fence of an address will do */
static unsigned asid[2];

static uint64_t table(unsigned as, unsigned t) { return TABLES + 0x1000 * (as * T_OF_ONE + t); }
static uint64_t functions_table(unsigned as, bool user)
{
    return user ? table(as, T_FU) : shared_functions ? table(0, T_FS_SHARED) : table(as, T_FS);
}
static uint64_t pte(uint64_t pa, uint64_t bits) { return pa >> 12 << 10 | bits; }
static void set_pte(uint64_t t, unsigned i, uint64_t v) { st_le64(at(t + 8 * i), v); }
static uint64_t satp(unsigned as)
{
    return (uint64_t)(sv48[as] ? 9 : 8) << 60 | (uint64_t)asid[as] << 44 | table(as, sv48[as] ? T_ROOT48 : T_ROOT) >> 12;
}
static uint64_t pool_page(void) { return (below(4) ? POOL : HIGH + (POOL - RAM)) + 0x1000 * below(POOL_PAGES); }

static uint64_t leaf_bits(void)
{
    static const uint8_t rights[] = { R | W, R | W, R | W, R | W, R, R | X, X, R | W | X, 0, W };
    uint64_t bits = V | A | D | rights[below(10)] | (below(2) ? U : 0);
    bits &= below(8) ? UINT64_MAX : ~(uint64_t)A;
    bits &= below(4) ? UINT64_MAX : ~(uint64_t)D;
    bits |= below(6) ? 0 : G;
    bits |= bits & (R | W | X) ? 0 : A;                     /* not the address of a table */
    return below(40) ? bits : bits ^ (below(2) ? V : UINT64_C(1) << (54 + below(10)));
}

static uint64_t small_pte(void) { return below(12) ? pte(pool_page(), leaf_bits()) : below(2) ? 0 : pte(FUNCTIONS, V | R | U | A); }

/* A leaf of 2 MiB, one that is not aligned, or a table. */
static uint64_t large_pte(unsigned as)
{
    switch (below(8) + 3 * leaves_only) {
    case 0: return pte(table(as, T_SPLIT_2M), V);
    case 1: return pte(RAM + 0x10000, leaf_bits());
    case 2: return below(2) ? 0 : pte(table(as, T_SPLIT_2M), V | A);
    default: return pte(below(3) ? RAM : HIGH, leaf_bits());
    }
}

static uint64_t huge_pte(unsigned as) { return below(3) || leaves_only ? pte(RAM, leaf_bits()) : pte(table(as, T_SPLIT_1G), V); }

static uint64_t function_pte(bool user)
{
    uint64_t bits = V | R | A | (below(12) ? X : 0) | (below(20) ? user ? U : 0 : U) | (user || !shared_functions ? 0 : G);
    return below(12) ? pte(FUNCTIONS + 0x1000 * below(F_PAGES), bits) : below(2) ? 0 : pte(FUNCTIONS, bits & ~(uint64_t)A);
}

static uint64_t large_function_pte(bool user)
{
    return below(12) ? pte(below(2) ? RAM : HIGH, V | R | A | X | (user ? U : 0)) : 0;
}

static void make_space(unsigned as)
{
    uint64_t root = table(as, T_ROOT), low = table(as, T_LOW), top = table(as, T_TOP);
    /* one place in a TLB's table; in both tables */
    static const unsigned apart[] = { V_SMALL >> 21, (V_SMALL >> 21) + 8, (V_SMALL >> 21) + 64 };
    set_pte(table(as, T_ROOT48), 0, pte(root, V));
    set_pte(table(as, T_ROOT48), 511, pte(root, V));
    set_pte(root, 0, pte(low, V));
    set_pte(root, 1, huge_pte(as));
    set_pte(root, 510, pte(top, V));
    for (unsigned k = 0; k < 3; k++) {
        set_pte(low, apart[k], pte(table(as, T_SMALL + k), V));
        for (unsigned i = 0; i < POOL_PAGES; i++)
            set_pte(table(as, T_SMALL + k), i, small_pte());
    }
    for (unsigned i = 0; i < 3; i++)
        set_pte(low, (V_LARGE >> 21) + i, large_pte(as));
    set_pte(low, V_RAM >> 21, pte(RAM, V | R | W | A | D | G));
    set_pte(low, V_CODE >> 21, pte(table(0, T_CODE), V));
    set_pte(low, (V_CODE + V_USER) >> 21, pte(table(0, T_CODE_USER), V));
    set_pte(low, V_FUNCTIONS >> 21, pte(functions_table(as, false), V));
    set_pte(low, (V_FUNCTIONS + V_USER) >> 21, pte(functions_table(as, true), V));
    set_pte(low, V_LARGE_F >> 21, large_function_pte(false));
    set_pte(low, (V_LARGE_F + V_USER) >> 21, large_function_pte(true));
    set_pte(top, 0, pte(table(as, T_HIGH), V));
    set_pte(top, 1, large_pte(as));
    set_pte(table(as, T_SPLIT_1G), 0, large_pte(as));
    for (unsigned i = 0; i < 2 * POOL_PAGES; i++) {
        set_pte(table(as, T_HIGH), i, small_pte());
        set_pte(table(as, T_SPLIT_2M), ((POOL - RAM) >> 12) + i, small_pte());
    }
    for (unsigned i = 0; i < F_PAGES; i++) {
        set_pte(functions_table(as, false), i, function_pte(false));
        set_pte(functions_table(as, true), i, function_pte(true));
    }
}

static void make_tables(void)
{
    shared_functions = below(2);
    leaves_only = below(2);
    for (unsigned as = 0; as < 2; as++) {
        sv48[as] = below(2);
        asid[as] = 1 + as * 4 + below(3);
    }
    for (unsigned as = 0; as < 2; as++)
        make_space(as);
    for (unsigned i = 0; i < 512; i++) {
        set_pte(table(0, T_CODE), i, pte(RAM + 0x1000 * i, V | R | X | A | G));
        set_pte(table(0, T_CODE_USER), i, pte(RAM + 0x1000 * i, V | R | X | U | A | G));
    }
    for (unsigned as = 0; as < 2 && !below(3); as++) {       /* code in leaves of 2 MiB, too */
        set_pte(table(as, T_LOW), V_CODE >> 21, pte(RAM, V | R | X | A | G));
        set_pte(table(as, T_LOW), (V_CODE + V_USER) >> 21, pte(RAM, V | R | X | U | A | G));
    }
}

/* ---- programs ---- */

static unsigned any(void)
{
    static const uint8_t r[] = { T0, T1, T2, A0, A1, A2, A3, A4, A5, A6, A7, 18, 19, S5, S6, T3 };
    return r[below(16)];
}
static unsigned base(void) { return (unsigned[]){ SP, S0, S4 }[below(3)]; }

static uint64_t pointer(void)
{
    uint64_t in_page = below(5) ? below(480) * 8 : below(3) ? 0xff0 + below(16) : below(0x1000);
    uint64_t page = 0x1000 * below(POOL_PAGES);
    switch (below(8)) {
    case 0: return V_LARGE + below(3) * 0x200000 + (POOL - RAM) + page + in_page;
    case 1: return V_HUGE + (POOL - RAM) + page + in_page;
    case 2: return V_HIGH + below(2) * (0x200000 + (POOL - RAM)) + page + in_page;
    case 3: return below(8) ? V_RAM + (POOL - RAM) + page + in_page : below(2) ? UINT64_C(0x4000000000) + in_page : rnd();
    default: return V_SMALL + (uint64_t[]){ 0, 0x1000000, 0x8000000 }[below(3)] + 0x1000 * below(3) * below(6) + in_page;
    }
}

static int32_t displacement(void) { return below(3) ? 8 * (int32_t)below(16) : (int32_t)below(4096) - 2048; }

/* One instruction that computes or reaches memory. */
static void random_insn(void)
{
    static const uint32_t alu[] = { 0x33, 0x40000033, 0x1033, 0x5033, 0x4033, 0x6033, 0x7033, 0x3b, 0x4000003b, 0x02000033, 0x3033, 0x2033,
                                    0x103b, 0x0200003b };
    static const uint32_t amo[] = { 0x202f, 0x302f, 0x0800202f, 0x0800302f, 0x2000302f, 0x4000202f, 0x6000302f, 0x8000302f, 0xe000202f,
                                    0x2800302f };
    static const uint32_t load[] = { 0x0003, 0x1003, 0x2003, 0x3003, 0x4003, 0x5003, 0x6003, 0x3003 };
    static const uint32_t store[] = { 0x0023, 0x1023, 0x2023, 0x3023 };
    unsigned d = any(), b = base();
    switch (below(20)) {
    case 0: case 1: case 2: case 3: put(enc_r(alu[below(14)], d, any(), any())); break;
    case 4: put(enc_i(ADDI, d, any(), (int32_t)below(4096))); break;
    case 5: put(0x8002u | d << 7 | any() << 2); break;                       /* c.mv */
    case 6: put(enc_r(amo[below(10)], below(4) ? d : 0, b, any())); break;
    case 7: put(enc_i(below(2) ? 0x3007 : 0x2007, below(32), b, displacement())); break;
    case 8: put(enc_s(below(2) ? 0x3027 : 0x2027, b, below(32), displacement())); break;
    case 9:
        put(enc_r(0x1000302f, d, b, 0));                                    /* lr.d, perhaps more, sc.d */
        put(below(3) ? enc_i(ADDI, d, d, 1) : enc_i(LD, d, b, 8));
        put(enc_r(0x1800302f, any(), b, d));
        break;
    case 10: put(0x0040200f | b << 15); break;                              /* cbo.zero */
    case 11: put(enc_csr(CSRRS, d, below(2) ? 0xc02 : 0x100, 0)); break;    /* instret, sstatus */
    case 12: case 13: case 14: case 15: put(enc_i(load[below(8)], d, b, displacement())); break;
    default: put(enc_s(store[below(4)], b, below(8) ? any() : 0, displacement())); break;
    }
}

static void body(unsigned most)
{
    unsigned n = 1 + below(most);
    for (unsigned i = 0; i < n; i++)
        random_insn();
}

/* Loads and stores through @b. */
static void reach(unsigned b, unsigned most)
{
    unsigned n = 1 + below(most);
    for (unsigned i = 0; i < n; i++)
        put(below(2) ? enc_i(LD, any(), b, 8 * (int32_t)below(16)) : enc_s(SD, b, any(), 8 * (int32_t)below(16)));
}

static void call(unsigned n)
{
    put(enc_i(ADDI, A7, 0, (int32_t)n));
    put(ECALL);
}

/* A function, up to 60 bytes long, that returns to ra. */
static void write_function(uint64_t to)
{
    pc_now = to;
    put(enc_i(ADDI, any(), any(), (int32_t)below(4096)));   /* what change_code() replaces */
    unsigned n = below(12);
    for (unsigned i = 0; i < n && pc_now < to + 40; i++)
        random_insn();
    put(enc_i(JALR, 0, RA, 0));
}

/* Each page has them at the same places, one of them over its end: the next page's begins with an upper half and a return. */
static void write_functions(uint64_t first)
{
    for (uint64_t page = first; page <= first + 0x1000 * F_PAGES; page += 0x1000) {
        st_le16(at(page), (uint16_t)(below(4096) << 4 | A0 >> 1));
        pc_now = page + 2;
        put(enc_i(JALR, 0, RA, 0));
        if (page == first + 0x1000 * F_PAGES)
            break;
        for (unsigned k = 1; k < 8; k++)
            write_function(page + 0x100 * k);
        pc_now = page + 0xff0;
        for (unsigned i = 0; i < 3; i++)
            put(enc_i(ADDI, any(), any(), (int32_t)below(4096)));
        put(0x0001);
        st_le16(at(page + 0xffe), (uint16_t)enc_i(ADDI, T0, A0, 0));
    }
}

/* Where the supervisor has a function of page @n: those from F_PAGES on are seen through a leaf of 2 MiB. */
static uint64_t function_address(unsigned n)
{
    static const unsigned entry[] = { 0x100, 0x200, 0x300, 0x400, 0x500, 0x700, 0xff0, 2 };
    uint64_t to = n % F_PAGES * 0x1000 + entry[below(8)];
    return n < F_PAGES ? V_FUNCTIONS + to : V_LARGE_F + (FUNCTIONS - RAM) + to;
}

/* In either mode. */
static void call_at(uint64_t v)
{
    uint64_t off = v - (pc_now - RAM + V_CODE);
    put(AUIPC | T3 << 7 | (uint32_t)((off + 0x800) & 0xfffff000));
    put(enc_i(JALR, RA, T3, (int32_t)((int64_t)(off << 52) >> 52)));
}

static void call_function(void)
{
    uint64_t v = function_address(below(2 * F_PAGES));
    if (below(15)) {
        call_at(v);
        return;
    }
    li(T3, v + below(2) * V_USER);                          /* not for this mode, perhaps */
    put(enc_i(JALR, RA, T3, 0));
}

/* Where an entry is, what it becomes, an address that it translates, and whether only a fence of all addresses, of all spaces, will do. */
struct change { uint64_t at, value, va; bool all_va, all_as; };

static uint64_t pool_offset(void) { return POOL - RAM + below(POOL_PAGES * 0x1000); }

static struct change random_change(unsigned as)
{
    static const uint64_t apart[] = { V_SMALL, V_SMALL + 0x1000000, V_SMALL + 0x8000000 };
    unsigned k = below(3), i = below(below(2) ? POOL_PAGES : 4), page = i * 0x1000;
    bool user = below(2);
    uint64_t large = table(as, T_LOW) + ((V_LARGE >> 21) + k) * 8, va;
    switch (below(13)) {
    case 0: return (struct change){ large, large_pte(as), V_LARGE + k * 0x200000 + pool_offset(), true, true };
    case 1: return (struct change){ table(as, T_ROOT) + 8, huge_pte(as), V_HUGE + pool_offset(), true, true };
    case 10: return (struct change){ table(as, T_ROOT) + 8, pte(RAM, leaf_bits()), V_HUGE + pool_offset(), !leaves_only, true };
    case 11: case 12:
        va = V_LARGE_F + user * V_USER;
        return (struct change){ table(as, T_LOW) + (va >> 21) * 8, large_function_pte(user), va + below(0x200000), false, false };
    case 2: return (struct change){ table(as, T_HIGH) + i * 8, small_pte(), V_HIGH + page, false, true };
    case 3: case 4:                                         /* from leaf to leaf */
        va = V_LARGE + k * 0x200000 + pool_offset();
        return (struct change){ large, pte(below(2) ? RAM : HIGH, leaf_bits()), va, !leaves_only, true };
    case 5: case 6: case 7:
        i = below(F_PAGES);
        va = V_FUNCTIONS + user * V_USER + i * 0x1000 + below(0x1000);
        return (struct change){ functions_table(as, user) + i * 8, function_pte(user), va, false, !user && shared_functions };
    default: {
        uint64_t v = small_pte() & ~(uint64_t)G;
        return (struct change){ table(as, T_SMALL + k) + i * 8, v, apart[k] + page + below(0x1000), false, below(8) };
    }
    }
}

static void change_table(void)
{
    unsigned as = below(2);
    struct change c = random_change(as);
    bool was_leaf = ld_le64(at(c.at)) & (R | X);
    unsigned fence = (c.all_va || !was_leaf ? 0 : below(2)) | (c.all_as ? 0 : below(2) << 1), b = base();
    bool function = c.va >= V_FUNCTIONS && c.va < V_HUGE, look = below(4);
    uint64_t f = function_address(c.va >= V_LARGE_F ? F_PAGES + below(F_PAGES) : c.va >> 12 & (F_PAGES - 1));
    if (look && !function)                                  /* before and after */
        li(b, (c.va & ~UINT64_C(0xfff)) | below(480) * 8);
    if (look)
        function ? call_at(f) : reach(b, 3);
    if (below(2)) {
        li(A0, c.at);
        li(A1, c.value);
        li(A2, c.va);
        put(enc_i(ADDI, A3, 0, (int32_t)asid[as]));
        put(enc_i(ADDI, A6, 0, (int32_t)fence));
        call(CALL_PTE);
    } else {
        li(A0, c.at - RAM + V_RAM);
        li(A1, c.value);
        li(A2, c.va);
        put(enc_i(ADDI, A3, 0, (int32_t)asid[as]));
        put(enc_s(SD, A0, A1, 0));
        put(enc_r(SFENCE_VMA, 0, fence & 1 ? A2 : 0, fence & 2 ? A3 : 0));
    }
    if (look)
        function ? call_at(f) : reach(b, 3);
}

static void change_code(void)
{
    uint64_t place = (below(2) ? FUNCTIONS : HIGH + (FUNCTIONS - RAM)) + 0x1000 * below(F_PAGES) + 0x100 * (1 + below(7));
    bool by_call = place >= HIGH || below(2);               /* the supervisor has no window there */
    li(A0, by_call ? place : place - RAM + V_RAM);
    li(A1, (uint64_t)(int64_t)(int32_t)enc_i(ADDI, any(), any(), (int32_t)below(4096)));
    if (by_call) {
        call(CALL_CODE);
    } else {
        put(enc_s(SW, A0, A1, 0));
        put(FENCE_I);
    }
}

static void change_mode(void)
{
    unsigned as = below(2);
    switch (below(5)) {
    case 0: call(CALL_MODE); break;
    case 1:
        li(A1, satp(as));
        csr_to(0x180, A1);
        break;
    case 2:
        li(A1, satp(as));
        call(CALL_SATP);
        break;
    default:
        li(A1, (below(2) ? MSTATUS_SUM : 0) | (below(2) ? MSTATUS_MXR : 0) | (below(2) ? MSTATUS_SIE : 0));
        if (below(2))
            call(below(2) ? CALL_SET : CALL_CLEAR);
        else
            put(enc_csr(below(2) ? CSRRS : CSRRC, 0, 0x100, A1));
        break;
    }
}

/* Of regions that lie in the pool: of 32 KiB at most. */
static uint64_t pmp_address(void)
{
    return ((POOL + below(POOL_PAGES * 0x1000)) >> 2 | (below(2) ? 0x1ff : below(2) ? 0xfff : below(8))) & ~UINT64_C(0x1000);
}

static void change_machine(void)
{
    unsigned b = base();
    uint64_t place = pmp_address();
    switch (below(5)) {
    case 0:
        li(b, V_RAM + (((place << 2) - RAM) & ~UINT64_C(0xfff)) + below(480) * 8);
        reach(b, 3);
        li(A0, place);
        li(A1, pmp_address());
        li(A2, UINT64_C(0x1f0000) | (below(2) ? 0 : ((2 + below(2)) << 3 | below(8))) | (below(2) ? 0 : (below(4) << 3 | below(8))) << 8);
        put(enc_i(ADDI, A6, 0, below(2) ? 7 : 1 + (int32_t)below(6)));
        call(CALL_PMP);
        reach(b, 3);
        break;
    case 1:
        li(A1, (below(2) ? ENVCFG_ADUE : 0) | (below(2) ? ENVCFG_PBMTE : 0) | (below(4) ? ENVCFG_CBZE : 0));
        call(CALL_ENV);
        break;
    case 2:
        li(A1, rnd() & 0xb0ff);
        call(CALL_DELEG);
        break;
    case 3:
        li(A0, pointer());
        li(A2, MSTATUS_MPRV | (below(2) ? MSTATUS_SUM : 0) | (below(2) ? MSTATUS_MXR : 0) | (uint64_t)below(2) << MSTATUS_MPP_SHIFT);
        put(enc_i(ADDI, A6, 0, (int32_t)below(2)));
        call(CALL_MPRV);
        break;
    default:
        put(below(2) ? enc_csr(6, 0, 0x144, 2) : enc_csr(6 + below(2), 0, 0x100, 2));   /* sip.SSIP; sstatus.SIE, set or cleared */
        break;
    }
}

static void action(void)
{
    uint64_t over = below(6) ? 0 : branch((unsigned[]){ 0, 1, 4, 5, 6, 7 }[below(6)], any(), any());
    switch (below(12)) {
    case 0: case 1: li(base(), pointer()); break;
    case 2: case 3: {
        unsigned b = base();
        bool walks = below(2);
        if (walks)
            li(b, pointer());                               /* anew, not to walk out of the pool in the end */
        put(enc_i(ADDI, INNER, 0, (int32_t)(1 + below(8))));
        uint64_t loop = pc_now;
        body(10);
        if (walks)
            put(enc_i(ADDI, b, b, (int32_t[]){ 8, 64, -8, 2040, 2040, 512 }[below(6)]));
        if (!below(3))
            call_function();
        put(enc_i(ADDI, INNER, INNER, -1));
        put(enc_b(4, 0, INNER, (int32_t)(loop - pc_now)));
        break;
    }
    case 4: call_function(); break;
    case 5: change_table(); break;
    case 6: change_mode(); break;
    case 7: change_machine(); break;
    case 8: below(3) ? change_table() : change_code(); break;
    default: body(12); break;
    }
    if (over)
        land(over);
}

/* Writes everything but the pool; the program ends at end_at, or there among the user's addresses. */
static void make_program(void)
{
    memset(at(RAM), 0, LOW_SIZE);
    memset(at(HIGH), 0, HIGH_SIZE);
    write_handlers();
    write_functions(FUNCTIONS);
    write_functions(HIGH + (FUNCTIONS - RAM));
    make_tables();
    pc_now = MAIN;
    for (unsigned i = 0; i < 3; i++)
        li((unsigned[]){ SP, S0, S4 }[i], pointer());
    uint64_t loop = pc_now;
    unsigned n = 5 + below(60);
    for (unsigned i = 0; i < n; i++)
        action();
    put(enc_i(ADDI, A7, 0, CALLS));
    put(ECALL);                                             /* logs how many instructions it took */
    put(enc_i(ADDI, TIMES, TIMES, -1));
    put(enc_b(5, 0, TIMES, 8));
    put(enc_j(0, (int32_t)(loop - pc_now)));
    put(HERE);
    end_at = pc_now - 4 - RAM + V_CODE;
    assert_true(pc_now <= MAIN + MAIN_SIZE);
}

#endif
