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

/* Extensions that harts elsewhere have: off is what they are here, and on is refused by name. */
static bool is_absent(struct obj *o, const struct prop *p, struct err *e)
{
    if (!((struct rv_cpu *)o)->absent)
        return true;
    err_set(e, ERR_NOT_BUILT, "%s: this extension is not in this build", p->name);
    return err_hint(e, "leave %s out, or write %s=off; what there is: -cpu rv64,help", p->name, p->name);
}
#define ABSENT(nm) { .name = nm, .doc = "An extension that is not in this build", .type = PROP_T_BOOL, .flags = PF_HIDDEN, \
                     PROP_OFF(struct rv_cpu, absent), .changed = is_absent }
static const struct prop absent_props[] = {
    ABSENT("e"), ABSENT("h"), ABSENT("v"), ABSENT("zve32f"), ABSENT("zve32x"), ABSENT("zve64d"), ABSENT("zve64f"), ABSENT("zve64x"),
    ABSENT("zvfh"), ABSENT("zvfhmin"), ABSENT("zvfbfmin"), ABSENT("zvfbfwma"), ABSENT("zvbb"), ABSENT("zvbc"), ABSENT("zvkb"), ABSENT("zvkg"),
    ABSENT("zvkned"), ABSENT("zvknha"), ABSENT("zvknhb"), ABSENT("zvksed"), ABSENT("zvksh"), ABSENT("zvkn"), ABSENT("zvknc"), ABSENT("zvkng"),
    ABSENT("zvks"), ABSENT("zvksc"), ABSENT("zvksg"), ABSENT("zfh"), ABSENT("zfbfmin"), ABSENT("zfinx"), ABSENT("zdinx"), ABSENT("zhinx"),
    ABSENT("zhinxmin"), ABSENT("zcb"), ABSENT("zcmp"), ABSENT("zcmt"), ABSENT("zabha"), ABSENT("zimop"), ABSENT("zcmop"), ABSENT("zicfilp"),
    ABSENT("zicfiss"), ABSENT("zbkb"), ABSENT("zbkc"), ABSENT("zbkx"), ABSENT("zknd"), ABSENT("zkne"), ABSENT("zknh"), ABSENT("zksed"),
    ABSENT("zksh"), ABSENT("zkr"), ABSENT("zkn"), ABSENT("zks"), ABSENT("zk"), ABSENT("smepmp"), ABSENT("smrnmi"), ABSENT("smcntrpmf"),
    ABSENT("smcdeleg"), ABSENT("ssccfg"), ABSENT("smcsrind"), ABSENT("sscsrind"), ABSENT("smdbltrp"), ABSENT("ssdbltrp"), ABSENT("smctr"),
    ABSENT("ssctr"), ABSENT("ssnpm"), ABSENT("smnpm"), ABSENT("smmpm"), ABSENT("svrsw60t59b"),
    PROP_END
};

static const struct prop cpu_props[] = {
#define RV_EXT(id, nm, d, needs, ds) PROP_BIT(struct rv_cpu, ext, RV_EXT_##id, nm, d, ds),
#include "cpu/riscv/ext.def"
#undef RV_EXT
    PROP_TRI(struct rv_cpu, sv39_opt, "sv39", TRI_AUTO, "on: address translation up to 39 bits, unless a wider one is on, too"),
    PROP_TRI(struct rv_cpu, sv48_opt, "sv48", TRI_AUTO, "Address translation up to 48 bits; off: 39"),
    PROP_TRI(struct rv_cpu, sv57_opt, "sv57", TRI_AUTO, "Address translation up to 57 bits; off: 48"),
    PROP_U16(struct rv_cpu, cbom_block, "cbom_blocksize", 64, 16, 4096, "Block size of cache management"),
    PROP_U16(struct rv_cpu, cboz_block, "cboz_blocksize", 64, 16, 4096, "Block size of cache zeroing"),
    PROP_U16(struct rv_cpu, cbop_block, "cbop_blocksize", 64, 16, 4096, "Block size of prefetching"),
    PROP_U32(struct rv_cpu, vendor_id, "mvendorid", 0, 0, UINT32_MAX, "Value of mvendorid"),
    PROP_U64(struct rv_cpu, arch_id, "marchid", 0, 0, UINT64_MAX, "Value of marchid"),
    PROP_U64(struct rv_cpu, imp_id, "mimpid", 0, 0, UINT64_MAX, "Value of mimpid"),
    { .name = "", .doc = "", .type = PROP_T_INCLUDE, .of = absent_props },
    PROP_END,
};

/* The widest translation; auto leaves the model's, but not one wider than the widest that is on. */
static bool choose_width(struct rv_cpu *c, struct err *e)
{
    if (c->sv39_opt == TRI_OFF || (c->sv48_opt == TRI_OFF && c->sv57_opt == TRI_ON)) {
        err_set(e, ERR_VALUE, c->sv39_opt == TRI_OFF ? "sv39=off: a hart that translates addresses has Sv39"
                                                     : "sv48=off: a hart with sv57=on has Sv48, too");
        return err_hint(e, c->sv39_opt == TRI_OFF ? "s=off is a hart without translation" : "leave sv57 out, or write sv57=off");
    }
    bool on[3] = { c->sv39_opt == TRI_ON, c->sv48_opt == TRI_ON, c->sv57_opt == TRI_ON };
    c->sv57 = on[2] || (c->sv57 && c->sv57_opt != TRI_OFF && c->sv48_opt != TRI_OFF && !on[0] && !on[1]);
    c->sv48 = c->sv57 || on[1] || (c->sv48 && c->sv48_opt != TRI_OFF && !on[0]);
    return true;
}

static bool cpu_init(struct obj *o, struct err *e)
{
    struct rv_cpu *c = (struct rv_cpu *)o;
    c->sv48 = c->sv57 = true;
    return true;
}

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
    if (!choose_width(c, e))
        return false;
    if (!is_pow2(c->cbom_block) || !is_pow2(c->cboz_block) || !is_pow2(c->cbop_block))
        return err_set(e, ERR_VALUE, "cache block sizes are powers of two");
    return true;
}

const struct obj_class rv_cpu_class = {
    .name = "riscv-cpu", .desc = "RISC-V CPU model", .size = sizeof(struct rv_cpu), .flags = OCF_ABSTRACT, .props = cpu_props, .init = cpu_init,
    .check = cpu_check,
};
OBJ_CLASS(&rv_cpu_class);

static const char *const rv64_aliases[] = { "rv64-riscv-cpu", "max", NULL };
static const struct obj_class rv64_class = {
    .name = "rv64", .desc = "64-bit RISC-V with everything this program has", .base = &rv_cpu_class, .size = sizeof(struct rv_cpu),
    .aliases = rv64_aliases,
};
OBJ_CLASS(&rv64_class);

/* ---- models with what others have ---- */

#define X(id) RV_EXT_BIT(RV_EXT_##id)
/* RVA22S64 (RISC-V profiles, 2023-04): what it demands of a hart, as far as it can be chosen here. */
#define RVA22 (X(I) | X(M) | X(A) | X(F) | X(D) | X(C) | X(S) | X(U) | X(ZICSR) | X(ZIFENCEI) | X(ZICNTR) | X(ZIHPM) | X(ZIHINTPAUSE) |     \
               X(ZBA) | X(ZBB) | X(ZBS) | X(ZICBOM) | X(ZICBOP) | X(ZICBOZ) | X(ZFHMIN) | X(SVPBMT) | X(SVINVAL) | X(SSCOFPMF) | X(SSTC) | X(PMP))

struct model_class {
    struct obj_class obj;               /* base: rv_cpu_class */
    uint64_t ext, arch_id, imp_id;
    uint32_t vendor_id;
    bool sv48, sv57;
};

static bool model_init(struct obj *o, struct err *e)
{
    const struct model_class *m = (const struct model_class *)o->cls;
    struct rv_cpu *c = (struct rv_cpu *)o;
    c->ext = m->ext;
    c->vendor_id = m->vendor_id;
    c->arch_id = m->arch_id;
    c->imp_id = m->imp_id;
    c->sv48 = m->sv48;
    c->sv57 = m->sv57;
    return true;
}

#define MODEL(sym, nm, ds, ...)                                                                                             \
    static const char *const sym##_aliases[] = { nm "-riscv-cpu", NULL };                                                   \
    static const struct model_class sym##_class = {                                                                         \
        .obj = { .name = nm, .desc = ds, .base = &rv_cpu_class, .size = sizeof(struct rv_cpu), .aliases = sym##_aliases,    \
                 .init = model_init },                                                                                      \
        __VA_ARGS__ };                                                                                                      \
    OBJ_CLASS(&sym##_class.obj)
MODEL(rv64i, "rv64i", "64-bit RISC-V with the base instruction set alone: add what you want", .ext = X(I));
MODEL(rva22s64, "rva22s64", "The extensions of the profile RVA22S64", .ext = RVA22);
MODEL(sifive_u54, "sifive-u54", "The extensions of SiFive's U54: RV64GC, Sv39",
      .ext = X(I) | X(M) | X(A) | X(F) | X(D) | X(C) | X(S) | X(U) | X(ZICSR) | X(ZIFENCEI) | X(ZICNTR) | X(ZIHPM) | X(PMP));
MODEL(veyron_v1, "veyron-v1", "The extensions and the identity of Ventana's Veyron V1, without its own and without H",
      .ext = RVA22 | X(ZBC) | X(SVNAPOT) | X(SMAIA) | X(SSAIA), .vendor_id = 0x61f, .arch_id = UINT64_C(0x8000000000010000),
      .imp_id = 0x111, .sv48 = true);
#undef X

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
