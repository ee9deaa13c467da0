/* SPDX-License-Identifier: MIT */
/* Harts seen from outside: registers, translation, text. */
#include <inttypes.h>

#include "base/str.h"
#include "cpu/riscv/accel.h"
#include "cpu/riscv/mmu.h"

enum { REG_PC = 32, REG_F0 = 33, REG_CSR0 = 65, REG_PRIV = 4161 };

bool hart_reg_read(struct hart *h, unsigned n, uint64_t *v)
{
    if (n < REG_PC)
        *v = h->x[n];
    else if (n == REG_PC)
        *v = h->pc;
    else if (n < REG_CSR0)
        *v = h->f[n - REG_F0];
    else if (n == REG_PRIV)
        *v = h->priv;
    else
        return n < REG_PRIV && rv_csr_peek(h, n - REG_CSR0, v);
    return true;
}

bool hart_reg_write(struct hart *h, unsigned n, uint64_t v)
{
    if (n < REG_PC) {
        hart_x_set(h, n, v);
    } else if (n == REG_PC) {
        h->pc = v & ~UINT64_C(1);
    } else if (n < REG_CSR0) {
        h->f[n - REG_F0] = v;
    } else if (n == REG_PRIV) {
        if (v > RV_M || v == 2)
            return false;
        rv_set_priv(h, (unsigned)v);
        rv_ctx_update(h);
    } else {
        return n < REG_PRIV && rv_csr_poke(h, n - REG_CSR0, v);
    }
    return true;
}

bool hart_translate(struct hart *h, uint64_t va, uint64_t *pa)
{
    struct rv_xlate x;
    struct rv_trap keep = h->trap;
    h->probe = true;
    bool ok = rv_walk(h, va, 1, RV_ACC_READ, rv_data_priv(h), &x);
    h->probe = false;
    h->trap = keep;
    *pa = ok ? x.pa : 0;
    return ok;
}

void hart_dump(struct hart *h, struct str *out)
{
    static const struct { const char *name; unsigned csr; } csrs[] = {
        { "mstatus", 0x300 }, { "mip", 0x344 }, { "mie", 0x304 }, { "mideleg", 0x303 }, { "medeleg", 0x302 }, { "mtvec", 0x305 },
        { "stvec", 0x105 }, { "mepc", 0x341 }, { "sepc", 0x141 }, { "mcause", 0x342 }, { "scause", 0x142 }, { "mtval", 0x343 },
        { "stval", 0x143 }, { "satp", 0x180 }, { "mscratch", 0x340 }, { "sscratch", 0x140 }, { "menvcfg", 0x30a }, { "fcsr", 0x003 },
    };
    uint64_t v = 0;
    str_printf(out, " %-8s %016" PRIx64 "  mode %c\n", "pc", h->pc, "US?M"[h->priv & 3]);
    for (size_t i = 0; i < ARRAY_SIZE(csrs); i++)
        if (rv_csr_peek(h, csrs[i].csr, &v))
            str_printf(out, " %-8s %016" PRIx64 "\n", csrs[i].name, v);
    for (unsigned i = 0; i < 32; i++)
        str_printf(out, " x%u/%-5s %016" PRIx64 "%s", i, rv_xreg_names[i], h->x[i], i % 4 == 3 ? "\n" : "");
    for (unsigned i = 0; i < 32; i++)
        str_printf(out, " f%u/%-5s %016" PRIx64 "%s", i, rv_freg_names[i], h->f[i], i % 4 == 3 ? "\n" : "");
}

static void put_counter(void *out, const char *name, uint64_t v) { str_printf(out, " %-18s %" PRIu64 "\n", name, v); }

void hart_stats(const struct hart *h, struct str *out)
{
    const struct { const char *name; uint64_t v; } rows[] = {
        { "instructions", rv_retired(h) }, { "slices", h->stats.slices }, { "traps", h->stats.traps }, { "interrupts", h->stats.irqs },
        { "tlb-fills", h->stats.tlb_fills }, { "io-reads", h->stats.io_reads }, { "io-writes", h->stats.io_writes },
        { "pages-decoded", h->stats.blocks_built }, { "slow-steps", h->stats.slow_steps }, { "wfi", h->stats.wfi },
        { "requests", h->stats.requests },
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        put_counter(out, rows[i].name, rows[i].v);
    if (h->accel->stats)
        h->accel->stats(h, put_counter, out);
}
