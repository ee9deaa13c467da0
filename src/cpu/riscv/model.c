/* SPDX-License-Identifier: MIT */
/* CPU models: what `-cpu rv64,ext=on|off` sets. */
#include "base/bits.h"
#include "base/str.h"
#include "cpu/riscv/decode.h"
#include "cpu/riscv/hart.h"

static const struct { const char *name; uint8_t needs; } exts[] = {
#define RV_EXT(id, name, def, needs, doc) [RV_EXT_##id] = { name, RV_EXT_##needs },
#include "cpu/riscv/ext.def"
#undef RV_EXT
};

static const struct prop cpu_props[] = {
#define RV_EXT(id, nm, d, needs, ds) PROP_BIT(struct rv_cpu, ext, RV_EXT_##id, nm, d, ds),
#include "cpu/riscv/ext.def"
#undef RV_EXT
    PROP_BOOL(struct rv_cpu, sv48, "sv48", true, "Address translation up to 48 bits"),
    PROP_BOOL(struct rv_cpu, sv57, "sv57", true, "Address translation up to 57 bits"),
    PROP_U16(struct rv_cpu, cbom_block, "cbom_blocksize", 64, 16, 4096, "Block size of cache management"),
    PROP_U16(struct rv_cpu, cboz_block, "cboz_blocksize", 64, 16, 4096, "Block size of cache zeroing"),
    PROP_U16(struct rv_cpu, cbop_block, "cbop_blocksize", 64, 16, 4096, "Block size of prefetching"),
    PROP_U32(struct rv_cpu, vendor_id, "mvendorid", 0, 0, UINT32_MAX, "Value of mvendorid"),
    PROP_U64(struct rv_cpu, arch_id, "marchid", 0, 0, UINT64_MAX, "Value of marchid"),
    PROP_U64(struct rv_cpu, imp_id, "mimpid", 0, 0, UINT64_MAX, "Value of mimpid"),
    PROP_END,
};

static bool cpu_check(struct obj *o, struct err *e)
{
    struct rv_cpu *c = (struct rv_cpu *)o;
    if (!(c->ext & RV_EXT_BIT(RV_EXT_I)))
        return err_set(e, ERR_VALUE, "i=off: the base instruction set cannot be turned off");
    for (unsigned i = 0; i < RV_EXT_COUNT; i++)
        if ((c->ext >> i & 1) && !(c->ext >> exts[i].needs & 1)) {
            err_set(e, ERR_VALUE, "%s=on needs %s=on", exts[i].name, exts[exts[i].needs].name);
            return err_hint(e, "%s=off, or leave %s on", exts[i].name, exts[exts[i].needs].name);
        }
    if (c->sv57)
        c->sv48 = true;
    if (!is_pow2(c->cbom_block) || !is_pow2(c->cboz_block) || !is_pow2(c->cbop_block))
        return err_set(e, ERR_VALUE, "cache block sizes are powers of two");
    return true;
}

const struct obj_class rv_cpu_class = {
    .name = "riscv-cpu", .desc = "RISC-V CPU model", .size = sizeof(struct rv_cpu), .flags = OCF_ABSTRACT, .props = cpu_props, .check = cpu_check,
};
OBJ_CLASS(&rv_cpu_class);

static const char *const rv64_aliases[] = { "rv64-riscv-cpu", "max", NULL };
static const struct obj_class rv64_class = {
    .name = "rv64", .desc = "64-bit RISC-V with everything this program has", .base = &rv_cpu_class, .size = sizeof(struct rv_cpu),
    .aliases = rv64_aliases,
};
OBJ_CLASS(&rv64_class);

const char *rv_cpu_isa_ext(const struct rv_cpu *c, size_t i)
{
    for (unsigned k = 0; k < RV_EXT_COUNT; k++) {
        if (!(c->ext >> k & 1) || k == RV_EXT_S || k == RV_EXT_U || k == RV_EXT_PMP)
            continue;
        if (!i--)
            return exts[k].name;
    }
    return NULL;
}

void rv_cpu_isa_string(const struct rv_cpu *c, struct str *out)
{
    const char *x;
    str_add(out, "rv64");
    for (size_t i = 0; (x = rv_cpu_isa_ext(c, i)); i++)
        if (!x[1])
            str_add(out, x);
    for (size_t i = 0; (x = rv_cpu_isa_ext(c, i)); i++)
        if (x[1])
            str_printf(out, "_%s", x);
}

const char *rv_cpu_mmu_type(const struct rv_cpu *c)
{
    return !(c->ext >> RV_EXT_S & 1) ? "riscv,none" : c->sv57 ? "riscv,sv57" : c->sv48 ? "riscv,sv48" : "riscv,sv39";
}
