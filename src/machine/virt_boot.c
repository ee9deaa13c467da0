/* SPDX-License-Identifier: MIT */
/* What the `virt` board starts: firmware, kernel, RAM disk, device tree, the reset vector, the harts. */
#include "machine/virt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "core/flags.h"
#include "machine/loader.h"
#include "machine/machine_int.h"
#include "mem/view.h"

#define KERNEL_ALIGN (2 * MiB)              /* Linux: boot-image-header.rst */
#define KERNEL_OFFSET (2 * MiB)             /* of main memory, below it is firmware's place */
#define FDT_LIMIT (3 * GiB)                 /* firmware that runs with 32-bit pointers can reach it */
#define FDT_ROOM (64 * KiB)                 /* firmware adds nodes in place */
#define WAIT_STUB 0xf00                     /* in the ROM */

/* Where a name after -bios is looked for when there is no such file: Debian's opensbi and qemu-system-data. */
static const char *const firmware_dirs[] = { "/usr/share/qemu", "/usr/lib/riscv64-linux-gnu/opensbi/generic", NULL };
static const char opensbi[] = "opensbi-riscv64-generic-fw_dynamic.bin";

/* -L: folders before these. */
#define USER_DIRS_MAX 8
static char *user_dirs[USER_DIRS_MAX + 1];

static bool dir_apply(const char *arg, struct err *e)
{
    struct stat st;
    unsigned n = 0;
    while (user_dirs[n])
        n++;
    if (n == USER_DIRS_MAX)
        return err_set(e, ERR_VALUE, "-L: at most %d folders", USER_DIRS_MAX);
    if (stat(arg, &st) || !S_ISDIR(st.st_mode))
        return err_os(e, access(arg, F_OK) ? errno : ENOTDIR, "-L %s", arg);
    user_dirs[n] = xstrdup(arg);
    return true;
}
static const struct cli_opt dir_opt = { .name = "L", .arg = "FOLDER", .doc = "where -bios NAME is looked for, before the usual places",
    .section = "Machine", .phase = CLI_EARLY, .apply = dir_apply };
CLI_OPT(&dir_opt);

/* The file @name in one of @dirs, or NULL. New string. */
static char *find_in(const char *const *dirs, const char *name)
{
    for (; *dirs; dirs++) {
        char *p = xasprintf("%s/%s", *dirs, name);
        if (access(p, F_OK) == 0)
            return p;
        free(p);
    }
    return NULL;
}

static char *firmware_find(const char *name)
{
    if (access(name, F_OK) == 0 || strchr(name, '/'))
        return xstrdup(name);
    char *p = find_in((const char *const *)user_dirs, name);
    p = p ? p : find_in(firmware_dirs, name);
    return p ? p : xstrdup(name);
}

static bool firmware_open(struct virt *v, struct err *e)
{
    const char *fw = v->m.firmware ? v->m.firmware : "default";
    v->fw_kind = VIRT_FW_FILE;
    if (!strcmp(fw, "none")) {
        v->fw_kind = VIRT_FW_NONE;
        return true;
    }
    if (!strcmp(fw, "builtin") || (!strcmp(fw, "default") && !cli_flags.compat_qemu)) {
        v->fw_kind = VIRT_FW_BUILTIN;
        return true;
    }
    if (!*fw)
        return err_set(e, ERR_VALUE, "-bios: default, builtin, none, or the name of a file");
    char *path = firmware_find(strcmp(fw, "default") ? fw : opensbi);
    bool ok;
    if (!strcmp(fw, "default") && access(path, R_OK)) {
        v->fw_kind = VIRT_FW_BUILTIN;       /* as good for S mode, and needs no file */
        ok = true;
    } else {
        ok = boot_file_open(&v->fw, "-bios", path, e);
    }
    free(path);
    return ok;
}

bool virt_boot_open(struct virt *v, struct err *e)
{
    struct machine *m = &v->m;
    return firmware_open(v, e) && (!m->kernel || boot_file_open(&v->kernel, "-kernel", m->kernel, e)) &&
           (!m->initrd || boot_file_open(&v->initrd, "-initrd", m->initrd, e)) &&
           (!m->dtb || boot_file_open(&v->dtb, "-dtb", m->dtb, e));
}

void virt_boot_close(struct virt *v)
{
    boot_file_close(&v->fw);
    boot_file_close(&v->kernel);
    boot_file_close(&v->initrd);
    boot_file_close(&v->dtb);
}

/* ---- placing ---- */

struct layout { uint64_t fw_end, kernel_end, entry, initrd, fdt; bool something; };

static bool load_firmware(struct virt *v, struct layout *l, struct err *e)
{
    uint64_t base = virt_map[VIRT_DRAM].base;
    struct boot_image img;
    l->fw_end = v->fw_kind == VIRT_FW_BUILTIN ? base + KERNEL_OFFSET : base;
    if (v->fw_kind != VIRT_FW_FILE)
        return true;
    if (!boot_image_load(&v->fw, base, &img, e))
        return false;
    l->fw_end = img.end;
    l->something = true;
    return true;
}

static bool load_kernel(struct virt *v, struct layout *l, struct err *e)
{
    struct boot_image img;
    uint64_t at = align_up(l->fw_end, KERNEL_ALIGN);
    l->kernel_end = l->fw_end;
    l->entry = at;
    if (v->pflash[0]) {                     /* firmware in flash finds the kernel through fw_cfg */
        l->entry = virt_map[VIRT_FLASH].base;
        l->something = true;
        return true;
    }
    if (!v->kernel.path)
        return true;
    if (!boot_image_load(&v->kernel, at, &img, e))
        return false;
    if (v->fw.path && img.start < l->fw_end)
        return err_set(e, ERR_VALUE, "-kernel %s: lies at 0x%llx, where the firmware is", v->kernel.path, (unsigned long long)img.start);
    l->kernel_end = img.end;
    l->entry = img.entry;
    l->something = true;
    return true;
}

/*
 * The device tree at the top of low memory. The RAM disk where QEMU has it, in the middle: a kernel with little memory needs large
 * pieces at the top. Just below the device tree where it does not fit there.
 */
static bool load_rest(struct virt *v, struct layout *l, struct err *e)
{
    uint64_t base = virt_map[VIRT_DRAM].base, top = MIN(base + v->m.ram_size, MAX(FDT_LIMIT, base + 2 * MiB));
    bool by_fw_cfg = v->pflash[0] != NULL;
    uint64_t initrd_size = v->initrd.path && !by_fw_cfg ? v->initrd.size : 0;
    uint32_t size = 0;
    void *fdt = virt_fdt(v, base, initrd_size, &size, e);       /* its size does not depend on the address */
    if (!fdt)
        return false;
    free(fdt);
    l->fdt = align_down(top - MIN(top, size + FDT_ROOM), v->m.ram_size >= 16 * MiB ? KERNEL_ALIGN : 4 * KiB);
    l->initrd = align_up(MAX(l->kernel_end, align_up(l->fw_end, KERNEL_ALIGN) + MIN(v->m.ram_size / 2, 128 * MiB)), 4 * KiB);
    if (l->initrd + initrd_size > l->fdt)
        l->initrd = align_down(l->fdt - MIN(initrd_size, l->fdt), 4 * KiB);
    if (l->initrd < l->kernel_end || l->fdt < base) {
        err_set(e, ERR_VALUE, "%llu MiB of memory are too little for the kernel%s and the device tree", (unsigned long long)(v->m.ram_size / MiB),
                initrd_size ? ", the RAM disk" : "");
        return err_hint(e, "give the machine more with -m");
    }
    if (initrd_size && !boot_file_load(&v->initrd, l->initrd, e))
        return false;
    fdt = virt_fdt(v, l->initrd, initrd_size, &size, e);
    bool ok = fdt && (as_load(&as_memory, l->fdt, fdt, size) || err_set(e, ERR_VALUE, "the device tree does not fit into memory"));
    free(fdt);
    return ok;
}

/*
 * Machine-mode start at the first ROM word: a0 = mhartid, a1 = device tree, a2 = dynamic information of OpenSBI
 * (its include/sbi/fw_dynamic.h), then a jump to the firmware.
 */
static bool load_rom(struct virt *v, const struct layout *l, uint64_t start, struct err *e)
{
    static const uint32_t code[6] = {
        0x00000297,         /* auipc t0, 0 */
        0x02828613,         /* addi  a2, t0, 40 */
        0xf1402573,         /* csrr  a0, mhartid */
        0x0202b583,         /* ld    a1, 32(t0) */
        0x0182b283,         /* ld    t0, 24(t0) */
        0x00028067,         /* jr    t0 */
    };
    const uint64_t data[] = { start, l->fdt, 0x4942534f /* "OSBI" */, 2 /* version */, l->entry, 1 /* S mode */, 0, 0 /* hart */ };
    uint8_t rom[sizeof code + sizeof data], stub[sizeof sbi_wait_stub_code];
    uint64_t at = virt_map[VIRT_MROM].base;
    for (size_t i = 0; i < ARRAY_SIZE(code); i++)
        st_le32(rom + i * 4, code[i]);
    for (size_t i = 0; i < ARRAY_SIZE(data); i++)
        st_le64(rom + sizeof code + i * 8, data[i]);
    for (size_t i = 0; i < ARRAY_SIZE(sbi_wait_stub_code); i++)
        st_le32(stub + i * 4, sbi_wait_stub_code[i]);
    v->sbi.wait_stub = at + WAIT_STUB;
    return (as_load(&as_memory, at, rom, sizeof rom) && as_load(&as_memory, at + WAIT_STUB, stub, sizeof stub)) ||
           err_set(e, ERR_GENERIC, "the reset vector cannot be written");
}

static void start_harts(struct virt *v, const struct layout *l)
{
    struct hart_set *s = v->m.harts;
    if (v->fw_kind == VIRT_FW_BUILTIN) {
        sbi_reset(&v->sbi, 0);
        if (!l->something) {
            log_warn("nothing to start: no -kernel, no -bios FILE, no pflash0, no -device loader");
            return;
        }
        hart_set_start(hart_get(s, 0), 1, l->entry, hart_id(hart_get(s, 0)), l->fdt);
        hart_power(hart_get(s, 0), true);
        return;
    }
    for (unsigned i = 0; i < hart_set_count(s); i++) {
        hart_set_start(hart_get(s, i), 3, virt_map[VIRT_MROM].base, 0, 0);
        hart_power(hart_get(s, i), true);
    }
}

bool virt_boot_load(struct machine *m, struct err *e)
{
    struct virt *v = VIRT(m);
    struct layout l = { 0 };
    if (!virt_boot_order(v, e) || !load_firmware(v, &l, e) || !load_kernel(v, &l, e) || !load_rest(v, &l, e) ||
        !load_rom(v, &l, v->fw_kind == VIRT_FW_FILE ? virt_map[VIRT_DRAM].base : l.entry, e))
        return false;
    if (!machine_runs_code())
        return true;
    if (v->fw_kind == VIRT_FW_BUILTIN && !virt_irqchip_firmware(v, e))
        return false;
    l.something = l.something || loader_brings_code();
    start_harts(v, &l);
    return true;
}

static bool write_file(const char *path, const void *buf, size_t n, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_os(e, errno, "cannot write the device tree to '%s'", path);
    ssize_t w = write(fd, buf, n);
    bool ok = (w == (ssize_t)n || err_os(e, w < 0 ? errno : ENOSPC, "cannot write the device tree to '%s'", path));
    return (close(fd) == 0 || !ok || err_os(e, errno, "cannot write the device tree to '%s'", path)) && ok;
}

bool virt_dump_fdt(struct machine *m, const char *path, struct err *e)
{
    uint32_t size;
    void *fdt = virt_fdt(VIRT(m), 0, 0, &size, e);
    bool ok = fdt && write_file(path, fdt, size, e);
    free(fdt);
    return ok;
}

bool virt_dump_and_end(struct virt *v, struct err *e)
{
    if (!virt_dump_fdt(&v->m, v->m.dumpdtb, e))
        return err_prefix(e, "dumpdtb");
    log_info("device tree written to %s", v->m.dumpdtb);
    exit(0);
}
