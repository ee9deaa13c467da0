/* SPDX-License-Identifier: MIT */
/* Interrupt controllers of the `virt` board and their wiring to the harts. */
#include "machine/virt.h"

#include "hw/riscv/aplic.h"
#include "hw/riscv/imsic.h"
#include "hw/riscv/plic.h"
#include "mem/view.h"

static void hart_line(void *hart, unsigned bit, int level)
{
    hart_irq_set(hart, bit, level);
}

static void s_timer_line(void *arg, unsigned hart, int level)
{
    if (level)
        sbi_timer_fired(&((struct virt *)arg)->sbi, hart);
}

/* Line @bit of hart @i. */
static struct irq to_hart(struct virt *v, unsigned i, unsigned bit)
{
    return (struct irq){ hart_line, hart_get(v->m.harts, i), bit };
}

struct irq virt_irq(struct virt *v, unsigned n)
{
    return v->plic ? plic_input(v->plic, n) : aplic_input(v->aplic_m, n);
}

static struct sys_dev *swi(struct virt *v, bool sswi, uint64_t addr, struct err *e)
{
    char harts[12];
    struct irq lines[HART_MAX];
    unsigned n = v->m.smp.cpus;
    snprintf(harts, sizeof harts, "%u", n);
    for (unsigned i = 0; i < n; i++)
        lines[i] = to_hart(v, i, sswi ? HART_IRQ_SSI : HART_IRQ_MSI);
    const char *const opts[][2] = { { "num-harts", harts }, { "sswi", sswi ? "on" : "off" }, { NULL, NULL } };
    return virt_dev(v, "riscv.aclint.swi", opts, lines, n, addr, e);
}

static bool clint_build(struct virt *v, struct err *e)
{
    char harts[12];
    struct irq lines[2 * HART_MAX];
    unsigned n = v->m.smp.cpus;
    uint64_t base = virt_map[VIRT_CLINT].base;
    snprintf(harts, sizeof harts, "%u", n);
    for (unsigned i = 0; i < n; i++) {
        lines[i] = to_hart(v, i, HART_IRQ_MTI);
        lines[n + i] = (struct irq){ s_timer_line, v, i };
    }
    const char *const opts[][2] = { { "num-harts", harts }, { NULL, NULL } };
    v->mtimer = virt_dev(v, "riscv.aclint.mtimer", opts, lines, 2 * n, base + 0x4000, e);
    v->sbi.mtimer = v->mtimer;
    /* With IMSICs, messages are the software interrupts, and an ACLINT board leaves the SWI devices out. */
    bool with_swi = !(v->aclint && v->aia == VIRT_AIA_APLIC_IMSIC);
    return v->mtimer && (!with_swi || swi(v, false, base, e)) &&
           (!with_swi || !v->aclint || swi(v, true, virt_map[VIRT_SSWI].base, e));
}

static bool plic_build(struct virt *v, struct err *e)
{
    char harts[12], sources[12];
    struct irq lines[2 * HART_MAX];
    unsigned n = v->m.smp.cpus;
    snprintf(harts, sizeof harts, "%u", n);
    snprintf(sources, sizeof sources, "%u", VIRT_SOURCES);
    for (unsigned i = 0; i < n; i++) {
        lines[2 * i] = to_hart(v, i, HART_IRQ_MEI);
        lines[2 * i + 1] = to_hart(v, i, HART_IRQ_SEI);
    }
    const char *const opts[][2] = { { "num-harts", harts }, { "num-sources", sources }, { NULL, NULL } };
    v->plic = virt_dev(v, "riscv.sifive.plic", opts, lines, 2 * n, virt_map[VIRT_PLIC].base, e);
    return v->plic != NULL;
}

static struct sys_dev *imsic(struct virt *v, bool m_level, struct err *e)
{
    char harts[12];
    struct irq lines[HART_MAX];
    unsigned n = v->m.smp.cpus;
    snprintf(harts, sizeof harts, "%u", n);
    for (unsigned i = 0; i < n; i++)
        lines[i] = to_hart(v, i, m_level ? HART_IRQ_MEI : HART_IRQ_SEI);
    const char *const opts[][2] = { { "num-harts", harts }, { NULL, NULL } };
    return virt_dev(v, "riscv.imsic", opts, lines, n, virt_map[m_level ? VIRT_IMSIC_M : VIRT_IMSIC_S].base, e);
}

static struct sys_dev *aplic(struct virt *v, bool m_level, struct err *e)
{
    char harts[12], sources[12];
    struct irq lines[HART_MAX];
    unsigned n = v->m.smp.cpus;
    bool msi = v->aia == VIRT_AIA_APLIC_IMSIC;
    snprintf(harts, sizeof harts, "%u", n);
    snprintf(sources, sizeof sources, "%u", VIRT_SOURCES);
    for (unsigned i = 0; i < n; i++)
        lines[i] = msi ? (struct irq){ 0 } : to_hart(v, i, m_level ? HART_IRQ_MEI : HART_IRQ_SEI);
    const char *const opts[][2] = { { "num-harts", harts }, { "num-sources", sources }, { "mmode", m_level ? "on" : "off" },
                                    { "msimode", msi ? "on" : "off" }, { NULL, NULL } };
    return virt_dev(v, "riscv.aplic", opts, lines, n, virt_map[m_level ? VIRT_APLIC_M : VIRT_APLIC_S].base, e);
}

static bool aia_build(struct virt *v, struct err *e)
{
    if (v->aia == VIRT_AIA_APLIC_IMSIC) {
        v->imsic_m = imsic(v, true, e);
        v->imsic_s = v->imsic_m ? imsic(v, false, e) : NULL;
        if (!v->imsic_s)
            return false;
        v->imsic = (struct imsic_pair){ v->imsic_m, v->imsic_s };
    }
    v->aplic_m = aplic(v, true, e);
    v->aplic_s = v->aplic_m ? aplic(v, false, e) : NULL;
    if (!v->aplic_s)
        return false;
    aplic_set_child(v->aplic_m, v->aplic_s);
    return true;
}

bool virt_irqchip_build(struct virt *v, struct err *e)
{
    return clint_build(v, e) && (v->aia == VIRT_AIA_NONE ? plic_build(v, e) : aia_build(v, e));
}

/* AIA 4.5: every source to the S-mode domain, and the addresses of its IMSICs where messages are used. */
bool virt_irqchip_firmware(struct virt *v, struct err *e)
{
    enum { SOURCECFG = 0, SMSICFG = 0x1bc8, MMSICFGH = 0x1bc4, DELEGATE = 0x400 };
    uint64_t at = virt_map[VIRT_APLIC_M].base;
    unsigned bits = 0;
    bool ok = true;
    if (v->aia == VIRT_AIA_NONE)
        return true;
    while (1u << bits < v->m.smp.cpus)
        bits++;
    if (v->aia == VIRT_AIA_APLIC_IMSIC)
        ok = as_write(&as_memory, at + SMSICFG, virt_map[VIRT_IMSIC_S].base >> 12, 4) &&
             as_write(&as_memory, at + MMSICFGH, bits << 12, 4);
    for (unsigned n = 1; n <= VIRT_SOURCES; n++)
        ok = ok && as_write(&as_memory, at + SOURCECFG + 4 * n, DELEGATE, 4);
    return ok || err_set(e, ERR_GENERIC, "the interrupt controller cannot be set up");
}
