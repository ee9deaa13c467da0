/* SPDX-License-Identifier: MIT */
#include "machine/virt.h"

#include <stdlib.h>
#include "base/log.h"
#include "block/blk.h"
#include "core/flags.h"
#include "cpu/riscv/accel.h"
#include "cpu/riscv/icount.h"
#include "hw/riscv/aclint.h"
#include "machine/machine_int.h"
#include "mem/ram.h"
#include "mem/view.h"

const struct virt_range virt_map[] = {
    [VIRT_TEST] = { 0x100000, 0x1000 },         [VIRT_MROM] = { 0x1000, 0xf000 },
    [VIRT_RTC] = { 0x101000, 0x1000 },          [VIRT_CLINT] = { 0x2000000, 0x10000 },
    [VIRT_SSWI] = { 0x2f00000, 0x4000 },        [VIRT_PCIE_PIO] = { 0x3000000, 0x10000 },
    [VIRT_PLATFORM_BUS] = { 0x4000000, 0x2000000 },
    [VIRT_PLIC] = { 0xc000000, 0x600000 },      [VIRT_APLIC_M] = { 0xc000000, 0x8000 },
    [VIRT_APLIC_S] = { 0xd000000, 0x8000 },     [VIRT_UART] = { 0x10000000, 0x100 },
    [VIRT_VIRTIO] = { 0x10001000, 0x1000 },     [VIRT_FW_CFG] = { 0x10100000, 0x18 },
    [VIRT_FLASH] = { 0x20000000, 0x2000000 },   [VIRT_IMSIC_M] = { 0x24000000, 0x4000000 },
    [VIRT_IMSIC_S] = { 0x28000000, 0x4000000 }, [VIRT_PCIE_ECAM] = { 0x30000000, 0x10000000 },
    [VIRT_PCIE_MMIO] = { 0x40000000, 0x40000000 },
    [VIRT_DRAM] = { 0x80000000, 0 },
};

#define HIGH_MMIO_SIZE (16 * GiB)

struct sys_dev *virt_dev(struct virt *v, const char *class, const char *const opts[][2], const struct irq *lines, unsigned n_lines,
                         uint64_t addr, struct err *e)
{
    const struct obj_class *c = obj_class_find(class);
    if (!c || !obj_class_is(c, &sys_dev_class.obj)) {
        err_set(e, ERR_NOT_BUILT, "board device '%s' is not in this build", class);
        return NULL;
    }
    struct dev *d = dev_new((const struct dev_class *)c, NULL, NULL, e);
    if (!d)
        return NULL;
    for (size_t i = 0; opts && opts[i][0]; i++)
        if (!obj_set(&d->obj, opts[i][0], opts[i][1], e))
            return NULL;
    for (unsigned i = 0; i < n_lines; i++)
        sys_dev_connect((struct sys_dev *)d, i, lines[i]);
    if (!dev_realize(d, e))
        return NULL;
    if (addr != UINT64_MAX)
        sys_dev_map((struct sys_dev *)d, 0, v->m.memory, addr);
    return (struct sys_dev *)d;
}

/* ---- CPUs ---- */

static uint64_t virt_time_now(void *opaque)
{
    return aclint_mtimer_now(((struct virt *)opaque)->mtimer);
}

static void virt_timer_arm(void *opaque, unsigned hart, uint64_t deadline)
{
    aclint_mtimer_arm_s(((struct virt *)opaque)->mtimer, hart, deadline);
}

static bool virt_ecall(struct hart *h, void *opaque)
{
    return sbi_ecall(h, &((struct virt *)opaque)->sbi);
}

static bool has_sstc(const struct rv_cpu *c)
{
    const char *x = NULL;
    for (size_t i = 0; (x = rv_cpu_isa_ext(c, i)); i++)
        if (!strcmp(x, "sstc"))
            return true;
    return false;
}

static bool virt_cpus_build(struct virt *v, struct err *e)
{
    v->env.opaque = v;
    v->env.time_now = virt_time_now;
    v->env.timer_arm = virt_timer_arm;
    if (v->fw_kind == VIRT_FW_BUILTIN)
        v->env.ecall = virt_ecall;
    if (v->aia == VIRT_AIA_APLIC_IMSIC) {
        v->env.imsic = &imsic_hart_ops;
        v->env.imsic_opaque = &v->imsic;
    }
    struct hart_set_config cfg = { .cpu = v->m.cpu, .accel = machine_accel(), .env = &v->env, .count = v->m.smp.cpus,
                                   .by_turns = icount_opts.on && machine_runs_code() };
    v->m.harts = hart_set_new(&cfg, e);
    return v->m.harts != NULL;
}

/* ---- memory ---- */

static bool virt_memory_build(struct virt *v, struct err *e)
{
    struct machine *m = &v->m;
    const struct virt_range *dram = &virt_map[VIRT_DRAM], *rom = &virt_map[VIRT_MROM];
    if (m->ram_size < MiB) {
        err_set(e, ERR_VALUE, "-m: %llu KiB is too little; this machine needs at least 1 MiB", (unsigned long long)(m->ram_size / KiB));
        return err_hint(e, "a bare number is in MiB");
    }
    if (m->ram_size > 1024 * GiB * 16)
        return err_set(e, ERR_VALUE, "-m: at most 16 TiB");
    m->ram->id = dram->base;
    region_init_ram(&v->ram_region, "riscv_virt_board.ram", m->ram, 0, m->ram_size);
    region_add(m->memory, dram->base, &v->ram_region, 0);
    v->mrom = ram_new("riscv_virt_board.mrom", rom->size, e);
    if (!v->mrom)
        return false;
    region_init_rom(&v->mrom_region, "riscv_virt_board.mrom", v->mrom, 0, rom->size);
    region_add(m->memory, rom->base, &v->mrom_region, 0);
    v->high_mmio = (struct virt_range){ align_up(dram->base + m->ram_size, HIGH_MMIO_SIZE), HIGH_MMIO_SIZE };
    return true;
}

static bool virt_build(struct machine *m, struct err *e)
{
    struct virt *v = VIRT(m);
    for (unsigned i = 0; i < VIRT_FLASH_BANKS; i++)
        if (!v->pflash[i])
            v->pflash[i] = obj_ref(blk_drive_find("pflash", i));
    if (!virt_boot_open(v, e) || !virt_memory_build(v, e) || !virt_cpus_build(v, e))
        return false;
    v->sbi.harts = m->harts;
    v->sbi.cpu = m->cpu;
    v->sbi.uart = virt_map[VIRT_UART].base;
    v->sbi.sstc = has_sstc(m->cpu);
    return virt_irqchip_build(v, e) && virt_devices_build(v, e) && (!m->dumpdtb || virt_dump_and_end(v, e));
}

static bool virt_check(struct obj *o, struct err *e)
{
    struct virt *v = VIRT(o);
    if (v->aia_guests && v->aia != VIRT_AIA_APLIC_IMSIC)
        return err_set(e, ERR_VALUE, "aia-guests=%u only has an effect with aia=aplic-imsic", v->aia_guests);
    if (v->aia_guests) {
        err_set(e, ERR_VALUE, "aia-guests=%u: guest interrupt files need the H extension, which no CPU model here has", v->aia_guests);
        return err_hint(e, "leave aia-guests= out");
    }
    return true;
}

static void virt_finalize(struct obj *o)
{
    struct virt *v = VIRT(o);
    virt_boot_close(v);
    if (v->ram_region.name)                 /* the build came so far */
        region_fini(&v->ram_region);
    if (v->mrom_region.name)
        region_fini(&v->mrom_region);
    if (v->mrom)
        ram_free(v->mrom);
}

static const char *const virt_aia_names[] = { "none", "aplic", "aplic-imsic", NULL };
static const struct prop virt_props[] = {
    PROP_ENUM(struct virt, aia, "aia", virt_aia_names, VIRT_AIA_NONE, "Interrupt controllers: PLIC, wired AIA, or AIA with messages"),
    PROP_U32(struct virt, aia_guests, "aia-guests", 0, 0, 7, "Guest interrupt files of each hart"),
    PROP_BOOL(struct virt, aclint, "aclint", false, "ACLINT devices instead of the CLINT"),
    PROP_LINK(struct virt, pflash[0], "pflash0", &blk_node_class, 0, "Block node with the first flash bank (code)"),
    PROP_LINK(struct virt, pflash[1], "pflash1", &blk_node_class, 0, "Block node with the second flash bank (variables)"),
    PROP_END,
};

static const struct machine_class virt_class = {
    .obj = { .name = "virt-machine", .desc = "RISC-V VirtIO board", .base = &machine_base_class, .size = sizeof(struct virt),
             .props = virt_props, .check = virt_check, .finalize = virt_finalize },
    .max_cpus = HART_MAX, .default_ram = 128 * MiB, .default_cpu = "rv64", .build = virt_build, .load = virt_boot_load, .dump_fdt = virt_dump_fdt,
};
OBJ_CLASS(&virt_class.obj);
