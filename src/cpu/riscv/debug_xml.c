/* SPDX-License-Identifier: MIT */
/* gdb's target description, made from the registers that the hart has. The feature names are gdb's. */
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "cpu/riscv/debug.h"

#define HEAD "<?xml version=\"1.0\"?>\n<!DOCTYPE feature SYSTEM \"gdb-target.dtd\">\n"
enum { FFLAGS = 1, FCSR = 3, REG_F0 = 33, REG_CSR0 = 65, REG_PRIV = 4161 };

static void put_reg(struct str *b, const char *name, unsigned num, const char *type)
{
    str_printf(b, "  <reg name=\"%s\" bitsize=\"64\" regnum=\"%u\" type=\"%s\"/>\n", name, num, type);
}

static void put_cpu(struct str *b, struct hart *h)
{
    str_add(b, HEAD "<feature name=\"org.gnu.gdb.riscv.cpu\">\n");
    for (unsigned i = 0; i < 32; i++)
        put_reg(b, i == 8 ? "fp" : rv_xreg_names[i], i, i == 1 ? "code_ptr" : i >= 2 && i <= 4 ? "data_ptr" : "int");
    put_reg(b, "pc", 32, "code_ptr");
}

static void put_fpu(struct str *b, struct hart *h)
{
    str_add(b, HEAD "<feature name=\"org.gnu.gdb.riscv.fpu\">\n  <union id=\"riscv_double\">\n"
               "    <field name=\"float\" type=\"ieee_single\"/>\n    <field name=\"double\" type=\"ieee_double\"/>\n  </union>\n");
    for (unsigned i = 0; i < 32; i++)
        put_reg(b, rv_freg_names[i], REG_F0 + i, "riscv_double");
    for (unsigned i = FFLAGS; i <= FCSR; i++)
        put_reg(b, rv_csr_name(i), REG_CSR0 + i, "uint64");
}

static void put_csr(struct str *b, struct hart *h)
{
    str_add(b, HEAD "<feature name=\"org.gnu.gdb.riscv.csr\">\n");
    for (unsigned i = FCSR + 1; i < 4096; i++) {
        uint64_t v;
        if (rv_csr_name(i) && rv_csr_peek(h, i, &v))
            put_reg(b, rv_csr_name(i), REG_CSR0 + i, "uint64");
    }
}

static void put_virtual(struct str *b, struct hart *h)
{
    str_add(b, HEAD "<feature name=\"org.gnu.gdb.riscv.virtual\">\n");
    put_reg(b, "priv", REG_PRIV, "int");
}

static const struct { const char *annex; void (*put)(struct str *, struct hart *); } features[] = {
    { "riscv-64bit-cpu.xml", put_cpu }, { "riscv-64bit-fpu.xml", put_fpu }, { "riscv-csr.xml", put_csr }, { "riscv-virtual.xml", put_virtual },
};

const char *rv_debug_xml(struct hart *h, const char *annex)
{
    static struct str text;
    bool top = !strcmp(annex, "target.xml");
    str_free(&text);
    text = (struct str){ 0 };
    if (top)
        str_add(&text, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n<architecture>riscv:rv64</architecture>\n");
    for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
        if (features[i].put == put_fpu && !rv_has(h, RV_EXT_F))
            continue;
        if (top) {
            str_printf(&text, "<xi:include href=\"%s\"/>\n", features[i].annex);
        } else if (!strcmp(annex, features[i].annex)) {
            features[i].put(&text, h);
            str_add(&text, "</feature>\n");
        }
    }
    if (top)
        str_add(&text, "</target>\n");
    return text.s;
}

int rv_debug_reg_named(struct hart *h, const char *name)
{
    char x[8];
    for (unsigned i = 0; i < 32; i++) {
        snprintf(x, sizeof x, "x%u", i);
        if (!strcmp(name, rv_xreg_names[i]) || !strcmp(name, x) || (i == 8 && !strcmp(name, "fp")))
            return (int)i;
    }
    for (unsigned i = 0; i < 32 && rv_has(h, RV_EXT_F); i++)
        if (!strcmp(name, rv_freg_names[i]))
            return (int)(REG_F0 + i);
    for (unsigned i = 0; i < 4096; i++) {
        uint64_t v;
        if (rv_csr_name(i) && !strcmp(name, rv_csr_name(i)))
            return rv_csr_peek(h, i, &v) ? (int)(REG_CSR0 + i) : -1;
    }
    return !strcmp(name, "pc") ? 32 : !strcmp(name, "priv") ? REG_PRIV : -1;
}
