/* SPDX-License-Identifier: MIT */
/* Names of control and status registers, as assemblers and debuggers spell them. */
#include <stdio.h>

#include "cpu/riscv/cpu.h"

static const struct { uint16_t num; const char *name; } names[] = {
    { 0x001, "fflags" }, { 0x002, "frm" }, { 0x003, "fcsr" }, { 0x100, "sstatus" }, { 0x104, "sie" }, { 0x105, "stvec" },
    { 0x106, "scounteren" }, { 0x10a, "senvcfg" }, { 0x140, "sscratch" }, { 0x141, "sepc" }, { 0x142, "scause" }, { 0x143, "stval" },
    { 0x144, "sip" }, { 0x14d, "stimecmp" }, { 0x150, "siselect" }, { 0x151, "sireg" }, { 0x15c, "stopei" }, { 0x180, "satp" },
    { 0x300, "mstatus" }, { 0x301, "misa" }, { 0x302, "medeleg" }, { 0x303, "mideleg" }, { 0x304, "mie" }, { 0x305, "mtvec" },
    { 0x306, "mcounteren" }, { 0x30a, "menvcfg" }, { 0x320, "mcountinhibit" }, { 0x340, "mscratch" }, { 0x341, "mepc" },
    { 0x342, "mcause" }, { 0x343, "mtval" }, { 0x344, "mip" }, { 0x350, "miselect" }, { 0x351, "mireg" }, { 0x35c, "mtopei" },
    { 0xb00, "mcycle" }, { 0xb02, "minstret" }, { 0xc00, "cycle" }, { 0xc01, "time" }, { 0xc02, "instret" }, { 0xda0, "scountovf" },
    { 0xdb0, "stopi" }, { 0xf11, "mvendorid" }, { 0xf12, "marchid" }, { 0xf13, "mimpid" }, { 0xf14, "mhartid" },
    { 0xf15, "mconfigptr" }, { 0xfb0, "mtopi" },
};
/* Registers in rows: the name is the text and the number from `from`. */
static const struct { uint16_t first, last, from; const char *name; } rows[] = {
    { 0x323, 0x33f, 3, "mhpmevent" }, { 0x3a0, 0x3af, 0, "pmpcfg" }, { 0x3b0, 0x3ef, 0, "pmpaddr" }, { 0xb03, 0xb1f, 3, "mhpmcounter" },
    { 0xc03, 0xc1f, 3, "hpmcounter" },
};

const char *rv_csr_name(unsigned num)
{
    static _Thread_local char text[24];
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (names[i].num == num)
            return names[i].name;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (num < rows[i].first || num > rows[i].last)
            continue;
        snprintf(text, sizeof text, "%s%u", rows[i].name, num - rows[i].first + rows[i].from);
        return text;
    }
    return NULL;
}
