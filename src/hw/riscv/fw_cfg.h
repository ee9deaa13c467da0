/* SPDX-License-Identifier: MIT */
/*
 * Firmware configuration device (class "fw_cfg_mem"): numbered items and named files that firmware and guests read. Items
 * are added by the board before the machine runs. Main loop.
 */
#ifndef HW_RISCV_FW_CFG_H
#define HW_RISCV_FW_CFG_H

#include "pci/sysdev.h"

/* Item keys: QEMU's docs/specs/fw_cfg. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00, FW_CFG_ID = 0x01, FW_CFG_UUID = 0x02, FW_CFG_RAM_SIZE = 0x03, FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05, FW_CFG_KERNEL_ADDR = 0x07, FW_CFG_KERNEL_SIZE = 0x08, FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b, FW_CFG_BOOT_MENU = 0x0e, FW_CFG_MAX_CPUS = 0x0f, FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12, FW_CFG_CMDLINE_ADDR = 0x13, FW_CFG_CMDLINE_SIZE = 0x14, FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_FILE_DIR = 0x19, FW_CFG_FILE_FIRST = 0x20, FW_CFG_FILES = 64,
};

/* An item's bytes are copied. Replaces the one with the same key. */
void fw_cfg_add_bytes(struct sys_dev *d, enum fw_cfg_key key, const void *data, uint32_t n);
void fw_cfg_add_u16(struct sys_dev *d, enum fw_cfg_key key, uint16_t v);
void fw_cfg_add_u32(struct sys_dev *d, enum fw_cfg_key key, uint32_t v);
void fw_cfg_add_u64(struct sys_dev *d, enum fw_cfg_key key, uint64_t v);
/* The first @n bytes of the open file @fd, read when the guest asks; @fd stays the caller's and open. */
void fw_cfg_add_fd(struct sys_dev *d, enum fw_cfg_key key, int fd, uint32_t n);
/* A named file ("opt/org.example/x", "bootorder"). False: the name is too long, taken, or no room. */
bool fw_cfg_add_file(struct sys_dev *d, const char *name, const void *data, uint32_t n, struct err *e) MUST_CHECK;
/* Other contents for a file that is there. */
void fw_cfg_set_file(struct sys_dev *d, const char *name, const void *data, uint32_t n);

#endif
