/* SPDX-License-Identifier: MIT */
/* Devices of the `virt` board other than interrupt controllers. */
#include "machine/virt.h"

#include <stdlib.h>
#include "base/log.h"
#include "core/flags.h"
#include "hw/riscv/fw_cfg.h"
#include "machine/machine_int.h"

struct fw_cfg_args { char *name, *file, *string; };
static const struct prop fw_cfg_props[] = {
    PROP_STR(struct fw_cfg_args, name, "name", PF_REQUIRED, "Name of the item, opt/... for users"),
    PROP_STR(struct fw_cfg_args, file, "file", 0, "File with the contents"),
    PROP_STR(struct fw_cfg_args, string, "string", 0, "The contents themselves"),
    PROP_END,
};

static bool uart_build(struct virt *v, struct err *e)
{
    struct obj *chr = machine_serial(0);
    const char *const opts[][2] = { { chr ? "chardev" : NULL, chr ? chr->id : NULL }, { NULL, NULL } };
    struct irq line = virt_irq(v, VIRT_IRQ_UART);
    v->uart = virt_dev(v, "serial-mm", opts, &line, 1, virt_map[VIRT_UART].base, e);
    return v->uart || err_prefix(e, "-serial");
}

static bool rtc_build(struct virt *v, struct err *e)
{
    const char *clock;
    int64_t base;
    char text[24];
    if (!machine_rtc(&clock, &base, e))
        return false;
    snprintf(text, sizeof text, "%lld", (long long)base);
    const char *const opts[][2] = { { "clock", clock }, { "base", text }, { NULL, NULL } };
    struct irq line = virt_irq(v, VIRT_IRQ_RTC);
    return virt_dev(v, "goldfish_rtc", opts, &line, 1, virt_map[VIRT_RTC].base, e) != NULL;
}

static bool virtio_build(struct virt *v, struct err *e)
{
    if (!obj_class_find("virtio-mmio"))
        return true;
    for (unsigned i = 0; i < VIRT_VIRTIO_SLOTS; i++) {
        /* Under QEMU's defaults slots are filled from the last, so the bus that is found first is the last slot's. */
        unsigned slot = cli_flags.compat_qemu ? VIRT_VIRTIO_SLOTS - 1 - i : i;
        char text[12];
        snprintf(text, sizeof text, "%u", slot);
        const char *const opts[][2] = { { "slot", text }, { NULL, NULL } };
        struct irq line = virt_irq(v, VIRT_IRQ_VIRTIO + slot);
        v->virtio[slot] = virt_dev(v, "virtio-mmio", opts, &line, 1,
                                   virt_map[VIRT_VIRTIO].base + slot * virt_map[VIRT_VIRTIO].size, e);
        if (!v->virtio[slot])
            return false;
    }
    return true;
}

/* ---- flash ---- */

static bool flash_build(struct virt *v, struct err *e)
{
    static const char *const names[VIRT_FLASH_BANKS] = { "virt.flash0", "virt.flash1" };
    for (unsigned i = 0; i < VIRT_FLASH_BANKS; i++) {
        char size[24];
        snprintf(size, sizeof size, "%llu", (unsigned long long)virt_map[VIRT_FLASH].size);
        const char *const opts[][2] = { { "name", names[i] }, { "size", size },
                                        { v->pflash[i] ? "drive" : NULL, v->pflash[i] ? v->pflash[i]->id : NULL }, { NULL, NULL } };
        v->flash[i] = virt_dev(v, "cfi.pflash01", opts, NULL, 0, virt_map[VIRT_FLASH].base + i * virt_map[VIRT_FLASH].size, e);
        if (!v->flash[i])
            return err_prefix(e, "pflash%u", i);
    }
    return true;
}

/* ---- firmware configuration ---- */

static bool fw_cfg_user_file(struct virt *v, json_t *o, struct err *e)
{
    struct fw_cfg_args a;
    struct boot_file f = { 0 };
    uint8_t *data = NULL;
    prop_defaults(fw_cfg_props, &a);
    bool ok = prop_set_all(fw_cfg_props, &a, NULL, o, "option '-fw_cfg'", e);
    if (ok && !a.file == !a.string)
        ok = err_set(e, ERR_VALUE, "needs one of file= and string=");
    if (ok && a.file)
        ok = boot_file_open(&f, "file", a.file, e) && (data = boot_file_read(&f, e));
    if (ok && f.size > UINT32_MAX)
        ok = err_set(e, ERR_VALUE, "%s is larger than 4 GiB", a.file);
    if (ok && strncmp(a.name, "opt/", 4) && strncmp(a.name, "etc/", 4))
        log_warn("-fw_cfg name=%s: names of users begin with opt/", a.name);
    ok = ok && fw_cfg_add_file(v->fw_cfg, a.name, a.file ? (void *)data : a.string, a.file ? (uint32_t)f.size : (uint32_t)strlen(a.string), e);
    free(data);
    boot_file_close(&f);
    prop_release(fw_cfg_props, &a);
    return ok || err_prefix(e, "-fw_cfg");
}

/* The kernel for firmware in flash, which starts it itself; else firmware is given it in memory. */
static void fw_cfg_kernel(struct virt *v)
{
    struct sys_dev *f = v->fw_cfg;
    const char *append = v->m.append ? v->m.append : "";
    if (!v->pflash[0] || !v->kernel.path)
        return;
    fw_cfg_add_u32(f, FW_CFG_KERNEL_SIZE, (uint32_t)v->kernel.size);
    fw_cfg_add_fd(f, FW_CFG_KERNEL_DATA, v->kernel.fd, (uint32_t)v->kernel.size);
    if (v->initrd.path) {
        fw_cfg_add_u32(f, FW_CFG_INITRD_SIZE, (uint32_t)v->initrd.size);
        fw_cfg_add_fd(f, FW_CFG_INITRD_DATA, v->initrd.fd, (uint32_t)v->initrd.size);
    }
    fw_cfg_add_u32(f, FW_CFG_CMDLINE_SIZE, (uint32_t)strlen(append) + 1);
    fw_cfg_add_bytes(f, FW_CFG_CMDLINE_DATA, append, (uint32_t)strlen(append) + 1);
}

static bool fw_cfg_build(struct virt *v, struct err *e)
{
    uint8_t wait[2];
    v->fw_cfg = virt_dev(v, "fw_cfg_mem", NULL, NULL, 0, virt_map[VIRT_FW_CFG].base, e);
    if (!v->fw_cfg)
        return false;
    if (cli_flags.has_uuid)
        fw_cfg_add_bytes(v->fw_cfg, FW_CFG_UUID, cli_flags.uuid, sizeof cli_flags.uuid);
    fw_cfg_add_u64(v->fw_cfg, FW_CFG_RAM_SIZE, v->m.ram_size);
    fw_cfg_add_u16(v->fw_cfg, FW_CFG_NOGRAPHIC, v->m.graphics == TRI_AUTO ? cli_flags.nographic : v->m.graphics == TRI_OFF);
    fw_cfg_add_u16(v->fw_cfg, FW_CFG_NB_CPUS, (uint16_t)v->m.smp.cpus);
    fw_cfg_add_u16(v->fw_cfg, FW_CFG_MAX_CPUS, (uint16_t)v->m.smp.max_cpus);
    fw_cfg_add_u16(v->fw_cfg, FW_CFG_BOOT_MENU, machine_boot.menu);
    st_le16(wait, (uint16_t)machine_boot.splash_time);
    if (machine_boot.menu && machine_boot.splash_time >= 0 && !fw_cfg_add_file(v->fw_cfg, "etc/boot-menu-wait", wait, sizeof wait, e))
        return false;
    fw_cfg_kernel(v);
    json_t *args = machine_fw_cfg_args();
    for (size_t i = 0; i < json_array_size(args); i++)
        if (!fw_cfg_user_file(v, json_array_get(args, i), e))
            return false;
    return true;
}

bool virt_boot_order(struct virt *v, struct err *e)
{
    struct str order = { 0 };
    bool ok = true;
    machine_boot_order(&order);
    if (v->boot_order)
        fw_cfg_set_file(v->fw_cfg, "bootorder", order.len ? order.s : "", (uint32_t)order.len);
    else if (order.len)
        ok = v->boot_order = fw_cfg_add_file(v->fw_cfg, "bootorder", order.s, (uint32_t)order.len, e) || err_prefix(e, "-fw_cfg");
    str_free(&order);
    return ok;
}

/* ---- PCI Express ---- */

/* The windows of gpex-pcihost, in its order. */
enum { GPEX_WIN_ECAM, GPEX_WIN_MMIO, GPEX_WIN_IO, GPEX_WIN_HIGH };

static bool pcie_build(struct virt *v, struct err *e)
{
    const struct virt_range *mm = &virt_map[VIRT_PCIE_MMIO], *high = &v->high_mmio;
    char text[4][24];
    struct irq lines[4];
    for (unsigned i = 0; i < 4; i++)
        lines[i] = virt_irq(v, VIRT_IRQ_PCIE + i);
    snprintf(text[0], sizeof text[0], "%llu", (unsigned long long)mm->base);
    snprintf(text[1], sizeof text[1], "%llu", (unsigned long long)mm->size);
    snprintf(text[2], sizeof text[2], "%llu", (unsigned long long)high->base);
    snprintf(text[3], sizeof text[3], "%llu", (unsigned long long)high->size);
    const char *const opts[][2] = { { "mmio-base", text[0] }, { "mmio-size", text[1] }, { "high-base", text[2] },
                                    { "high-size", text[3] }, { NULL, NULL } };
    v->gpex = virt_dev(v, "gpex-pcihost", opts, lines, 4, virt_map[VIRT_PCIE_ECAM].base, e);
    if (!v->gpex)
        return false;
    sys_dev_map(v->gpex, GPEX_WIN_MMIO, v->m.memory, mm->base);
    sys_dev_map(v->gpex, GPEX_WIN_IO, v->m.memory, virt_map[VIRT_PCIE_PIO].base);
    sys_dev_map(v->gpex, GPEX_WIN_HIGH, v->m.memory, high->base);
    return true;
}

bool virt_devices_build(struct virt *v, struct err *e)
{
    return virt_dev(v, "riscv.sifive.test", NULL, NULL, 0, virt_map[VIRT_TEST].base, e) && uart_build(v, e) &&
           rtc_build(v, e) && fw_cfg_build(v, e) && flash_build(v, e) && virtio_build(v, e) && pcie_build(v, e);
}
