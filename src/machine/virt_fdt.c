/* SPDX-License-Identifier: MIT */
/* The device tree of the `virt` board (Devicetree Specification 0.4; bindings of the Linux kernel's documentation). */
#include "machine/virt.h"

#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>
#include "base/random.h"
#include "cpu/riscv/hart.h"
#include "machine/machine_int.h"


/* ---- a thin layer over libfdt's sequential writer: errors are kept and looked at once, at the end ---- */

struct tree { void *buf; int err; unsigned depth; };

static void keep(struct tree *t, int r)
{
    if (r && !t->err)
        t->err = r;
}

static void node(struct tree *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void node(struct tree *t, const char *fmt, ...)
{
    char name[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    keep(t, fdt_begin_node(t->buf, name));
}

static void end(struct tree *t)
{
    keep(t, fdt_end_node(t->buf));
}

static void prop_bytes(struct tree *t, const char *name, const void *v, size_t n)
{
    keep(t, fdt_property(t->buf, name, v, (int)n));
}

static void prop_text(struct tree *t, const char *name, const char *v)
{
    prop_bytes(t, name, v, strlen(v) + 1);
}

static void prop_flag(struct tree *t, const char *name)
{
    prop_bytes(t, name, "", 0);
}

static void prop_cells_n(struct tree *t, const char *name, const uint32_t *v, size_t n)
{
    uint32_t be[1024];
    for (size_t i = 0; i < n && i < ARRAY_SIZE(be); i++)
        be[i] = htobe32(v[i]);
    prop_bytes(t, name, be, n * 4);
}
#define prop_cells(t, name, ...) \
    prop_cells_n(t, name, (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)
#define U64(v) (uint32_t)((uint64_t)(v) >> 32), (uint32_t)(v)

static void prop_reg(struct tree *t, uint64_t base, uint64_t size)
{
    prop_cells(t, "reg", U64(base), U64(size));
}

/* ---- phandles ---- */

static uint32_t ph_cpu(unsigned i) { return 1 + 2 * i; }
static uint32_t ph_intc(unsigned i) { return 2 + 2 * i; }
enum { PH_SOC_BASE = 2 * HART_MAX + 1, PH_TEST = PH_SOC_BASE, PH_PLIC, PH_APLIC_M, PH_APLIC_S, PH_IMSIC_M, PH_IMSIC_S };

static uint32_t ph_irqchip(const struct virt *v)
{
    return v->aia == VIRT_AIA_NONE ? PH_PLIC : PH_APLIC_S;
}

static void prop_irq(struct tree *t, const struct virt *v, unsigned n)
{
    prop_cells(t, "interrupt-parent", ph_irqchip(v));
    if (v->aia == VIRT_AIA_NONE)
        prop_cells(t, "interrupts", n);
    else
        prop_cells(t, "interrupts", n, 4 /* level, high */);
}

/* "interrupts-extended": for every hart its local controller with each of the @n bits. */
static void prop_harts(struct tree *t, const struct virt *v, const uint32_t *bits, unsigned n)
{
    uint32_t cells[HART_MAX * 4];
    unsigned k = 0;
    for (unsigned i = 0; i < v->m.smp.cpus; i++)
        for (unsigned b = 0; b < n; b++) {
            cells[k++] = ph_intc(i);
            cells[k++] = bits[b];
        }
    prop_cells_n(t, "interrupts-extended", cells, k);
}

/* ---- nodes ---- */

static void cpu_node(struct tree *t, const struct virt *v, unsigned i)
{
    const struct rv_cpu *c = v->m.cpu;
    struct str isa = { 0 }, exts = { 0 };
    bool imsic = v->aia == VIRT_AIA_APLIC_IMSIC;
    rv_cpu_isa_string(c, &isa);
    str_add(&isa, imsic ? "_smaia_ssaia" : "");
    for (size_t k = 0; rv_cpu_isa_ext(c, k); k++)
        str_addn(&exts, rv_cpu_isa_ext(c, k), strlen(rv_cpu_isa_ext(c, k)) + 1);
    if (imsic)
        str_addn(&exts, "smaia\0ssaia", sizeof "smaia\0ssaia");
    node(t, "cpu@%x", i);
    prop_text(t, "device_type", "cpu");
    prop_cells(t, "reg", i);
    prop_text(t, "status", "okay");
    prop_text(t, "compatible", "riscv");
    prop_text(t, "riscv,isa", isa.s);
    prop_text(t, "riscv,isa-base", "rv64i");
    prop_bytes(t, "riscv,isa-extensions", exts.s, exts.len);
    prop_text(t, "mmu-type", rv_cpu_mmu_type(c));
    if (c->cbom_block)
        prop_cells(t, "riscv,cbom-block-size", c->cbom_block);
    if (c->cboz_block)
        prop_cells(t, "riscv,cboz-block-size", c->cboz_block);
    if (c->cbop_block)
        prop_cells(t, "riscv,cbop-block-size", c->cbop_block);
    prop_cells(t, "phandle", ph_cpu(i));
    node(t, "interrupt-controller");
    prop_text(t, "compatible", "riscv,cpu-intc");
    prop_flag(t, "interrupt-controller");
    prop_cells(t, "#interrupt-cells", 1);
    prop_cells(t, "phandle", ph_intc(i));
    end(t);
    end(t);
    str_free(&isa);
    str_free(&exts);
}

static void cpu_map(struct tree *t, const struct virt *v)
{
    const struct machine_smp *s = &v->m.smp;
    unsigned n = 0;
    node(t, "cpu-map");
    for (unsigned k = 0; k < s->sockets; k++) {
        if (s->sockets > 1)
            node(t, "socket%u", k);
        node(t, "cluster0");
        for (unsigned c = 0; c < s->cores; c++) {
            node(t, "core%u", c);
            for (unsigned h = 0; h < s->threads; h++, n++) {
                if (s->threads > 1)
                    node(t, "thread%u", h);
                prop_cells(t, "cpu", ph_cpu(n));
                if (s->threads > 1)
                    end(t);
            }
            end(t);
        }
        end(t);
        if (s->sockets > 1)
            end(t);
    }
    end(t);
}

static void cpus_node(struct tree *t, const struct virt *v)
{
    node(t, "cpus");
    prop_cells(t, "#address-cells", 1);
    prop_cells(t, "#size-cells", 0);
    prop_cells(t, "timebase-frequency", VIRT_TIMEBASE);
    for (unsigned i = 0; i < v->m.smp.cpus; i++)
        cpu_node(t, v, i);
    cpu_map(t, v);
    end(t);
}

static void clint_nodes(struct tree *t, const struct virt *v)
{
    uint64_t base = virt_map[VIRT_CLINT].base;
    bool swi = v->aia != VIRT_AIA_APLIC_IMSIC;
    if (!v->aclint) {
        node(t, "clint@%llx", (unsigned long long)base);
        prop_bytes(t, "compatible", "sifive,clint0\0riscv,clint0", sizeof "sifive,clint0\0riscv,clint0");
        prop_reg(t, base, virt_map[VIRT_CLINT].size);
        prop_harts(t, v, (const uint32_t[]){ HART_IRQ_MSI, HART_IRQ_MTI }, 2);
        end(t);
        return;
    }
    node(t, "mtimer@%llx", (unsigned long long)base + 0x4000);
    prop_text(t, "compatible", "riscv,aclint-mtimer");
    prop_cells(t, "reg", U64(base + 0xbff8), U64(0x4008), U64(base + 0x4000), U64(0x7ff8));
    prop_harts(t, v, (const uint32_t[]){ HART_IRQ_MTI }, 1);
    end(t);
    for (int s = 0; swi && s < 2; s++) {
        uint64_t at = s ? virt_map[VIRT_SSWI].base : base;
        node(t, "%s@%llx", s ? "sswi" : "mswi", (unsigned long long)at);
        prop_text(t, "compatible", s ? "riscv,aclint-sswi" : "riscv,aclint-mswi");
        prop_reg(t, at, 0x4000);
        prop_harts(t, v, s ? (const uint32_t[]){ HART_IRQ_SSI } : (const uint32_t[]){ HART_IRQ_MSI }, 1);
        prop_flag(t, "interrupt-controller");
        prop_cells(t, "#interrupt-cells", 0);
        end(t);
    }
}

static void plic_node(struct tree *t, const struct virt *v)
{
    const struct virt_range *r = &virt_map[VIRT_PLIC];
    node(t, "plic@%llx", (unsigned long long)r->base);
    prop_bytes(t, "compatible", "sifive,plic-1.0.0\0riscv,plic0", sizeof "sifive,plic-1.0.0\0riscv,plic0");
    prop_reg(t, r->base, r->size);
    prop_harts(t, v, (const uint32_t[]){ HART_IRQ_MEI, HART_IRQ_SEI }, 2);
    prop_cells(t, "riscv,ndev", VIRT_SOURCES);
    prop_flag(t, "interrupt-controller");
    prop_cells(t, "#interrupt-cells", 1);
    prop_cells(t, "#address-cells", 0);
    prop_cells(t, "phandle", PH_PLIC);
    end(t);
}

static void imsic_node(struct tree *t, const struct virt *v, bool m_level)
{
    uint64_t base = virt_map[m_level ? VIRT_IMSIC_M : VIRT_IMSIC_S].base;
    node(t, "imsics@%llx", (unsigned long long)base);
    prop_text(t, "compatible", "riscv,imsics");
    prop_reg(t, base, (uint64_t)v->m.smp.cpus * 0x1000);
    prop_harts(t, v, m_level ? (const uint32_t[]){ HART_IRQ_MEI } : (const uint32_t[]){ HART_IRQ_SEI }, 1);
    prop_cells(t, "riscv,num-ids", VIRT_IMSIC_IDS);
    prop_cells(t, "riscv,ipi-id", 1);
    prop_flag(t, "interrupt-controller");
    prop_cells(t, "#interrupt-cells", 0);
    prop_flag(t, "msi-controller");
    prop_cells(t, "#msi-cells", 0);
    prop_cells(t, "phandle", m_level ? PH_IMSIC_M : PH_IMSIC_S);
    end(t);
}

static void aplic_node(struct tree *t, const struct virt *v, bool m_level)
{
    const struct virt_range *r = &virt_map[m_level ? VIRT_APLIC_M : VIRT_APLIC_S];
    node(t, "%s@%llx", "aplic", (unsigned long long)r->base);
    prop_text(t, "compatible", "riscv,aplic");
    prop_reg(t, r->base, r->size);
    if (v->aia == VIRT_AIA_APLIC_IMSIC)
        prop_cells(t, "msi-parent", m_level ? PH_IMSIC_M : PH_IMSIC_S);
    else
        prop_harts(t, v, m_level ? (const uint32_t[]){ HART_IRQ_MEI } : (const uint32_t[]){ HART_IRQ_SEI }, 1);
    prop_cells(t, "riscv,num-sources", VIRT_SOURCES);
    if (m_level) {
        prop_cells(t, "riscv,children", PH_APLIC_S);
        prop_cells(t, "riscv,delegation", PH_APLIC_S, 1, VIRT_SOURCES);     /* the binding's name */
        prop_cells(t, "riscv,delegate", PH_APLIC_S, 1, VIRT_SOURCES);       /* what older firmware reads */
    }
    prop_flag(t, "interrupt-controller");
    prop_cells(t, "#interrupt-cells", 2);
    prop_cells(t, "#address-cells", 0);
    prop_cells(t, "phandle", m_level ? PH_APLIC_M : PH_APLIC_S);
    end(t);
}

static void irqchip_nodes(struct tree *t, const struct virt *v)
{
    /* The machine level is firmware's; with the built-in firmware there is nothing for the guest to see of it. */
    bool m = v->fw_kind != VIRT_FW_BUILTIN;
    if (v->aia == VIRT_AIA_NONE)
        plic_node(t, v);
    if (v->aia == VIRT_AIA_APLIC_IMSIC) {
        if (m)
            imsic_node(t, v, true);
        imsic_node(t, v, false);
    }
    if (v->aia != VIRT_AIA_NONE) {
        if (m)
            aplic_node(t, v, true);
        aplic_node(t, v, false);
    }
}

/* Pins rotate with the slot number: PCI to PCI Bridge Architecture 1.2, section 9.1. */
static void pci_irq_map(struct tree *t, const struct virt *v)
{
    uint32_t map[4 * 4 * 8];
    unsigned k = 0;
    for (unsigned slot = 0; slot < 4; slot++)
        for (unsigned pin = 0; pin < 4; pin++) {
            map[k++] = slot << 11;
            map[k++] = 0;
            map[k++] = 0;
            map[k++] = pin + 1;
            map[k++] = ph_irqchip(v);
            map[k++] = VIRT_IRQ_PCIE + (slot + pin) % 4;
            if (v->aia != VIRT_AIA_NONE)
                map[k++] = 4;
        }
    prop_cells_n(t, "interrupt-map", map, k);
    prop_cells(t, "interrupt-map-mask", 0x1800, 0, 0, 7);
}

static void pci_node(struct tree *t, const struct virt *v)
{
    const struct virt_range *ecam = &virt_map[VIRT_PCIE_ECAM], *io = &virt_map[VIRT_PCIE_PIO], *mm = &virt_map[VIRT_PCIE_MMIO];
    node(t, "pci@%llx", (unsigned long long)ecam->base);
    prop_text(t, "compatible", "pci-host-ecam-generic");
    prop_text(t, "device_type", "pci");
    prop_cells(t, "#address-cells", 3);
    prop_cells(t, "#size-cells", 2);
    prop_cells(t, "#interrupt-cells", 1);
    prop_cells(t, "linux,pci-domain", 0);
    prop_cells(t, "bus-range", 0, (uint32_t)(ecam->size / MiB) - 1);
    prop_flag(t, "dma-coherent");
    prop_reg(t, ecam->base, ecam->size);
    prop_cells(t, "ranges", 0x1000000, U64(0), U64(io->base), U64(io->size), 0x2000000, U64(mm->base), U64(mm->base), U64(mm->size),
               0x3000000, U64(v->high_mmio.base), U64(v->high_mmio.base), U64(v->high_mmio.size));
    if (v->aia == VIRT_AIA_APLIC_IMSIC)
        prop_cells(t, "msi-parent", PH_IMSIC_S);
    pci_irq_map(t, v);
    end(t);
}

static void soc_node(struct tree *t, const struct virt *v)
{
    node(t, "soc");
    prop_text(t, "compatible", "simple-bus");
    prop_cells(t, "#address-cells", 2);
    prop_cells(t, "#size-cells", 2);
    prop_flag(t, "ranges");
    clint_nodes(t, v);
    irqchip_nodes(t, v);
    for (unsigned i = 0; i < VIRT_VIRTIO_SLOTS; i++) {
        uint64_t at = virt_map[VIRT_VIRTIO].base + i * virt_map[VIRT_VIRTIO].size;
        if (!v->virtio[i])
            continue;
        node(t, "virtio_mmio@%llx", (unsigned long long)at);
        prop_text(t, "compatible", "virtio,mmio");
        prop_reg(t, at, virt_map[VIRT_VIRTIO].size);
        prop_irq(t, v, VIRT_IRQ_VIRTIO + i);
        end(t);
    }
    if (v->gpex)
        pci_node(t, v);
    node(t, "test@%llx", (unsigned long long)virt_map[VIRT_TEST].base);
    prop_bytes(t, "compatible", "sifive,test1\0sifive,test0\0syscon", sizeof "sifive,test1\0sifive,test0\0syscon");
    prop_reg(t, virt_map[VIRT_TEST].base, virt_map[VIRT_TEST].size);
    prop_cells(t, "phandle", PH_TEST);
    end(t);
    node(t, "serial@%llx", (unsigned long long)virt_map[VIRT_UART].base);
    prop_text(t, "compatible", "ns16550a");
    prop_reg(t, virt_map[VIRT_UART].base, virt_map[VIRT_UART].size);
    prop_cells(t, "clock-frequency", VIRT_UART_CLOCK);
    prop_irq(t, v, VIRT_IRQ_UART);
    end(t);
    node(t, "rtc@%llx", (unsigned long long)virt_map[VIRT_RTC].base);
    prop_text(t, "compatible", "google,goldfish-rtc");
    prop_reg(t, virt_map[VIRT_RTC].base, virt_map[VIRT_RTC].size);
    prop_irq(t, v, VIRT_IRQ_RTC);
    end(t);
    end(t);
}

static void syscon_node(struct tree *t, const char *name, uint32_t value)
{
    char compat[32];
    snprintf(compat, sizeof compat, "syscon-%s", name);
    node(t, "%s", name);
    prop_text(t, "compatible", compat);
    prop_cells(t, "regmap", PH_TEST);
    prop_cells(t, "offset", 0);
    prop_cells(t, "value", value);
    end(t);
}

static void platform_nodes(struct tree *t, const struct virt *v)
{
    syscon_node(t, "poweroff", 0x5555);
    syscon_node(t, "reboot", 0x7777);
    if (v->fw_cfg) {
        node(t, "fw-cfg@%llx", (unsigned long long)virt_map[VIRT_FW_CFG].base);
        prop_text(t, "compatible", "qemu,fw-cfg-mmio");
        prop_reg(t, virt_map[VIRT_FW_CFG].base, virt_map[VIRT_FW_CFG].size);
        prop_flag(t, "dma-coherent");
        end(t);
    }
    if (v->flash[0]) {
        const struct virt_range *f = &virt_map[VIRT_FLASH];
        node(t, "flash@%llx", (unsigned long long)f->base);
        prop_text(t, "compatible", "cfi-flash");
        prop_cells(t, "reg", U64(f->base), U64(f->size), U64(f->base + f->size), U64(f->size));
        prop_cells(t, "bank-width", 4);
        end(t);
    }
}

static void chosen_node(struct tree *t, const struct virt *v, uint64_t initrd, uint64_t initrd_size)
{
    uint8_t seed[32];
    char path[48];
    snprintf(path, sizeof path, "/soc/serial@%llx", (unsigned long long)virt_map[VIRT_UART].base);
    node(t, "aliases");
    prop_text(t, "serial0", path);
    end(t);
    node(t, "chosen");
    prop_text(t, "stdout-path", path);
    if (v->m.append)
        prop_text(t, "bootargs", v->m.append);
    if (initrd_size) {
        prop_cells(t, "linux,initrd-start", U64(initrd));
        prop_cells(t, "linux,initrd-end", U64(initrd + initrd_size));
    }
    if (!guest_random(seed, sizeof seed))
        prop_bytes(t, "rng-seed", seed, sizeof seed);
    end(t);
}

static void *make_tree(struct virt *v, uint64_t initrd, uint64_t initrd_size, struct err *e)
{
    size_t cap = 32 * KiB + 4 * KiB * v->m.smp.cpus + (v->m.append ? strlen(v->m.append) : 0);      /* a hart takes less than 1 KiB */
    struct tree t = { .buf = xcalloc(1, cap) };
    keep(&t, fdt_create(t.buf, (int)cap));
    keep(&t, fdt_finish_reservemap(t.buf));
    node(&t, "%s", "");
    prop_cells(&t, "#address-cells", 2);
    prop_cells(&t, "#size-cells", 2);
    prop_text(&t, "compatible", "riscv-virtio");
    prop_text(&t, "model", "riscv-virtio,qemu");
    chosen_node(&t, v, initrd, initrd_size);
    node(&t, "memory@%llx", (unsigned long long)virt_map[VIRT_DRAM].base);
    prop_text(&t, "device_type", "memory");
    prop_reg(&t, virt_map[VIRT_DRAM].base, v->m.ram_size);
    end(&t);
    cpus_node(&t, v);
    platform_nodes(&t, v);
    soc_node(&t, v);
    end(&t);
    keep(&t, fdt_finish(t.buf));
    if (!t.err)
        return t.buf;
    err_set(e, ERR_GENERIC, "the device tree cannot be made: %s", fdt_strerror(t.err));
    free(t.buf);
    return NULL;
}

/* The user's tree with what the command line adds to /chosen. */
static void *user_tree(struct virt *v, uint64_t initrd, uint64_t initrd_size, struct err *e)
{
    uint8_t *file = boot_file_read(&v->dtb, e);
    if (!file)
        return NULL;
    size_t append = v->m.append ? strlen(v->m.append) + 1 : 0, cap = v->dtb.size + append + 4096;
    int r = v->dtb.size < sizeof(struct fdt_header) ? -FDT_ERR_BADMAGIC : fdt_check_header(file);
    if (!r && fdt_totalsize(file) > v->dtb.size)
        r = -FDT_ERR_TRUNCATED;
    void *buf = r ? NULL : xcalloc(1, cap);
    r = r ? r : fdt_open_into(file, buf, (int)cap);
    int at = r ? r : fdt_path_offset(buf, "/chosen");
    if (!r && at == -FDT_ERR_NOTFOUND)
        at = fdt_add_subnode(buf, 0, "chosen");
    r = at < 0 ? at : 0;
    if (!r && append)
        r = fdt_setprop(buf, at, "bootargs", v->m.append, (int)append);
    if (!r && initrd_size)
        r = fdt_setprop_u64(buf, at, "linux,initrd-start", initrd);
    if (!r && initrd_size)
        r = fdt_setprop_u64(buf, at, "linux,initrd-end", initrd + initrd_size);
    if (!r)
        r = fdt_pack(buf);
    free(file);
    if (!r)
        return buf;
    free(buf);
    if (r == -FDT_ERR_BADMAGIC) {
        err_set(e, ERR_VALUE, "-dtb %s: not a device tree blob", v->dtb.path);
        err_hint(e, "dtc -O dtb makes one of the source");
    } else {
        err_set(e, ERR_VALUE, "-dtb %s: the device tree is damaged (%s)", v->dtb.path, fdt_strerror(r));
    }
    return NULL;
}

void *virt_fdt(struct virt *v, uint64_t initrd, uint64_t initrd_size, uint32_t *size, struct err *e)
{
    void *t = v->dtb.path ? user_tree(v, initrd, initrd_size, e) : make_tree(v, initrd, initrd_size, e);
    if (t)
        *size = fdt_totalsize(t);
    return t;
}
