/* SPDX-License-Identifier: MIT */
/*
 * The `virt` board: memory map, interrupt numbers and device tree as QEMU documents them for its riscv64 `virt` machine.
 * Shared by the files virt*.c. Main loop.
 */
#ifndef MACHINE_VIRT_H
#define MACHINE_VIRT_H

#include "hw/riscv/imsic.h"
#include "hw/riscv/sbi.h"
#include "machine/boot.h"
#include "machine/machine.h"
#include "pci/sysdev.h"

enum virt_place {
    VIRT_MROM, VIRT_TEST, VIRT_RTC, VIRT_CLINT, VIRT_SSWI, VIRT_PCIE_PIO, VIRT_PLATFORM_BUS, VIRT_PLIC, VIRT_APLIC_M,
    VIRT_APLIC_S, VIRT_UART, VIRT_VIRTIO, VIRT_FW_CFG, VIRT_FLASH, VIRT_IMSIC_M, VIRT_IMSIC_S, VIRT_PCIE_ECAM,
    VIRT_PCIE_MMIO, VIRT_DRAM,
};
struct virt_range { uint64_t base, size; };
extern const struct virt_range virt_map[];

enum { VIRT_IRQ_VIRTIO = 1, VIRT_IRQ_UART = 10, VIRT_IRQ_RTC = 11, VIRT_IRQ_PCIE = 32, VIRT_SOURCES = 96,
       VIRT_VIRTIO_SLOTS = 8, VIRT_FLASH_BANKS = 2, VIRT_IMSIC_IDS = 255 };
#define VIRT_TIMEBASE 10000000u
#define VIRT_UART_CLOCK 3686400u

enum virt_aia { VIRT_AIA_NONE, VIRT_AIA_APLIC, VIRT_AIA_APLIC_IMSIC };

struct virt {
    struct machine m;                   /* first */
    /* options */
    int aia;                            /* enum virt_aia */
    uint32_t aia_guests;
    bool aclint;
    struct obj *pflash[VIRT_FLASH_BANKS];
    bool boot_order;                    /* fw_cfg has the file */
    /* devices; those that this build or these options lack are NULL */
    struct sys_dev *mtimer, *plic, *aplic_m, *aplic_s, *imsic_m, *imsic_s, *uart, *fw_cfg, *gpex, *flash[VIRT_FLASH_BANKS];
    struct sys_dev *virtio[VIRT_VIRTIO_SLOTS];
    struct region ram_region, mrom_region;
    struct ram *mrom;
    struct virt_range high_mmio;
    /* firmware and images */
    enum { VIRT_FW_BUILTIN, VIRT_FW_NONE, VIRT_FW_FILE } fw_kind;
    struct boot_file fw, kernel, initrd, dtb;
    struct sbi sbi;
    struct imsic_pair imsic;
    struct hart_env env;
};
#define VIRT(m) ((struct virt *)(m))

/* Input line of interrupt source @n of whichever controller the board has. */
struct irq virt_irq(struct virt *v, unsigned n);
/* virt_irqchip.c: CLINT or ACLINT, PLIC or APLIC and IMSIC. */
bool virt_irqchip_build(struct virt *v, struct err *e);
/* What firmware does to the machine-level domain before S mode starts: for the built-in one, after a reset. */
bool virt_irqchip_firmware(struct virt *v, struct err *e);
/* virt_devs.c: everything else that has registers. */
bool virt_devices_build(struct virt *v, struct err *e);
/* fw_cfg's boot order as it is now. At each reset. */
bool virt_boot_order(struct virt *v, struct err *e);
/* A board device: made, given "key=value" options, connected, realized, its first window mapped. NULL with @e filled. */
struct sys_dev *virt_dev(struct virt *v, const char *class, const char *const opts[][2], const struct irq *lines, unsigned n_lines,
                         uint64_t addr, struct err *e);
/* virt_fdt.c: the device tree, or the user's with /chosen filled in. *@size bytes, the caller frees. NULL with @e filled. */
void *virt_fdt(struct virt *v, uint64_t initrd, uint64_t initrd_size, uint32_t *size, struct err *e);
/* Writes the tree to the file that dumpdtb= names and ends the program; returns only on failure. */
bool virt_dump_fdt(struct machine *m, const char *path, struct err *e) MUST_CHECK;
bool virt_dump_and_end(struct virt *v, struct err *e) MUST_CHECK;         /* -M dumpdtb=FILE: does not return where it went well */
/* virt_boot.c */
bool virt_boot_open(struct virt *v, struct err *e);
void virt_boot_close(struct virt *v);
bool virt_boot_load(struct machine *m, struct err *e);

#endif
