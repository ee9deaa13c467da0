/* SPDX-License-Identifier: MIT */
#include "machine/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mem/ram.h"
#include "mem/view.h"

/* ---- files ---- */

bool boot_file_open(struct boot_file *f, const char *what, const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        err_os(e, errno, "%s %s", what, path);
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (!S_ISREG(st.st_mode) || !st.st_size) {
        close(fd);
        return err_set(e, ERR_VALUE, "%s %s: %s", what, path, st.st_size || !S_ISREG(st.st_mode) ? "not an ordinary file" : "the file is empty");
    }
    *f = (struct boot_file){ .what = what, .path = xstrdup(path), .fd = fd, .size = (uint64_t)st.st_size };
    return true;
}

void boot_file_close(struct boot_file *f)
{
    if (f->path)
        close(f->fd);
    free(f->path);
    *f = (struct boot_file){ 0 };
}

static bool read_all(const struct boot_file *f, uint8_t *buf, struct err *e)
{
    for (uint64_t done = 0; done < f->size;) {
        ssize_t n = pread(f->fd, buf + done, f->size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os(e, errno, "%s %s: read", f->what, f->path);
        if (n == 0)
            return err_set(e, ERR_OS, "%s %s: the file became shorter while the machine used it", f->what, f->path);
        done += (uint64_t)n;
    }
    return true;
}

uint8_t *boot_file_read(const struct boot_file *f, struct err *e)
{
    uint8_t *buf = malloc(f->size);
    if (!buf) {
        err_set(e, ERR_GENERIC, "%s %s: out of memory", f->what, f->path);
        return NULL;
    }
    if (!read_all(f, buf, e)) {
        free(buf);
        return NULL;
    }
    return buf;
}

static bool too_big(const char *what, const char *path, uint64_t addr, uint64_t n, struct err *e)
{
    err_set(e, ERR_VALUE, "%s %s: %llu KiB do not fit into memory at 0x%llx", what, path, (unsigned long long)(n + KiB - 1) / KiB,
            (unsigned long long)addr);
    struct machine *m = machine_current();
    if (m && m->ram && addr < m->ram->id)
        return err_hint(e, "main memory begins at 0x%llx", (unsigned long long)m->ram->id);
    return err_hint(e, "give the machine more memory with -m");
}

/* Host address of a piece of main memory; NULL: it is elsewhere, or not all of it is main memory. */
static uint8_t *main_memory(uint64_t addr, uint64_t n, struct ram **ram, uint64_t *off)
{
    struct machine *m = machine_current();
    if (!m || !m->ram || addr < m->ram->id || !range_ok(addr - m->ram->id, n, m->ram->size))
        return NULL;
    *ram = m->ram;
    *off = addr - m->ram->id;
    return m->ram->host + *off;
}

bool boot_file_load(const struct boot_file *f, uint64_t addr, struct err *e)
{
    struct ram *ram;
    uint64_t off;
    uint8_t *host = main_memory(addr, f->size, &ram, &off);
    if (host) {
        bool ok = read_all(f, host, e);
        ram_written(ram, off, f->size);
        return ok;
    }
    uint8_t *buf = boot_file_read(f, e);
    bool ok = buf && (as_load(&as_memory, addr, buf, f->size) || too_big(f->what, f->path, addr, f->size, e));
    free(buf);
    return ok;
}

/* ---- formats ---- */

/* Linux boot image header, Documentation/arch/riscv/boot-image-header.rst. */
enum { LINUX_TEXT_OFFSET = 8, LINUX_IMAGE_SIZE = 16, LINUX_MAGIC2 = 56, LINUX_HEADER = 64 };
/* EFI zboot: "MZ", "zimg" at 4, payload offset and size, name of the compression at 24. */
enum { ZBOOT_MAGIC = 4, ZBOOT_OFFSET = 8, ZBOOT_SIZE = 12, ZBOOT_TYPE = 24, ZBOOT_HEADER = 56 };
/* ELF-64 (System V ABI, chapter 4). */
enum { ELF_MACHINE = 18, ELF_ENTRY = 24, ELF_PHOFF = 32, ELF_PHENTSIZE = 54, ELF_PHNUM = 56, ELF_HEADER = 64, EM_RISCV = 243,
       PH_TYPE = 0, PH_OFFSET = 8, PH_VADDR = 16, PH_PADDR = 24, PH_FILESZ = 32, PH_MEMSZ = 40, PH_SIZE = 56, PT_LOAD = 1 };

static bool zero_memory(uint64_t addr, uint64_t n)
{
    static const uint8_t zero[4096];
    for (; n; ) {
        uint64_t part = MIN(n, sizeof zero);
        if (!as_load(&as_memory, addr, zero, part))
            return false;
        addr += part;
        n -= part;
    }
    return true;
}

/*
 * Bytes at the begin of a segment that need not be loaded. A linker's default script puts the file's own headers in front of the first
 * section: where that is told to lie at the begin of main memory (-Ttext), they lie below it, and no program looks for them there.
 */
static uint64_t headers_below_memory(const uint8_t *d, uint64_t off, uint64_t filesz, uint64_t pa)
{
    struct machine *m = machine_current();
    uint64_t i = MAX(ELF_HEADER, ld_le64(d + ELF_PHOFF) + (uint64_t)ld_le16(d + ELF_PHNUM) * ld_le16(d + ELF_PHENTSIZE));
    if (off || !m || !m->ram || pa >= m->ram->id || m->ram->id - pa > filesz)
        return 0;
    uint64_t n = m->ram->id - pa;
    while (i < n && !d[i])
        i++;
    return i == n ? n : 0;
}

static bool load_elf(const struct boot_file *f, const uint8_t *d, uint64_t n, struct boot_image *img, struct err *e)
{
    uint64_t phoff = ld_le64(d + ELF_PHOFF), entry = ld_le64(d + ELF_ENTRY);
    unsigned phnum = ld_le16(d + ELF_PHNUM), phsize = ld_le16(d + ELF_PHENTSIZE);
    bool any = false;
    if (d[4] != 2 || d[5] != 1 || ld_le16(d + ELF_MACHINE) != EM_RISCV)
        return err_set(e, ERR_VALUE, "%s %s: the ELF file is not for 64-bit RISC-V", f->what, f->path);
    if (phsize < PH_SIZE || !range_ok(phoff, (uint64_t)phnum * phsize, n))
        return err_set(e, ERR_VALUE, "%s %s: the ELF file is damaged (program headers)", f->what, f->path);
    img->kind = BOOT_ELF;
    img->entry = entry;
    for (unsigned i = 0; i < phnum; i++) {
        const uint8_t *p = d + phoff + (uint64_t)i * phsize;
        uint64_t off = ld_le64(p + PH_OFFSET), va = ld_le64(p + PH_VADDR), pa = ld_le64(p + PH_PADDR);
        uint64_t filesz = ld_le64(p + PH_FILESZ), memsz = ld_le64(p + PH_MEMSZ);
        if (ld_le32(p + PH_TYPE) != PT_LOAD || !memsz)
            continue;
        if (!range_ok(off, filesz, n) || filesz > memsz)
            return err_set(e, ERR_VALUE, "%s %s: the ELF file is damaged (segment %u)", f->what, f->path, i);
        uint64_t skip = headers_below_memory(d, off, filesz, pa);
        off += skip;
        va += skip;
        pa += skip;
        filesz -= skip;
        memsz -= skip;
        if (pa + memsz < pa || !as_load(&as_memory, pa, d + off, filesz) || !zero_memory(pa + filesz, memsz - filesz))
            return too_big(f->what, f->path, pa, memsz, e);
        /* An entry given as a virtual address means the same place. */
        if (entry >= va && entry - va < memsz)
            img->entry = pa + (entry - va);
        img->start = any ? MIN(img->start, pa) : pa;
        img->end = any ? MAX(img->end, pa + memsz) : pa + memsz;
        any = true;
    }
    return any || err_set(e, ERR_VALUE, "%s %s: the ELF file has nothing to load", f->what, f->path);
}

static bool is_linux(const uint8_t *d, uint64_t n)
{
    return n >= LINUX_HEADER && !memcmp(d + LINUX_MAGIC2, "RSC\x05", 4);
}

static bool is_elf(const uint8_t *d, uint64_t n)
{
    return n >= ELF_HEADER && !memcmp(d, "\177ELF", 4);
}

static bool is_zboot(const uint8_t *d, uint64_t n)
{
    return n >= ZBOOT_HEADER && !memcmp(d, "MZ", 2) && !memcmp(d + ZBOOT_MAGIC, "zimg", 4);
}

static bool is_gzip(const uint8_t *d, uint64_t n)
{
    return n >= 18 && d[0] == 0x1f && d[1] == 0x8b && d[2] == 8;
}

/* Where a flat image lies once its header is known; the bytes are put there by the caller. */
static void place_flat(const uint8_t *head, uint64_t n, uint64_t addr, struct boot_image *img)
{
    *img = (struct boot_image){ .kind = BOOT_RAW, .entry = addr, .start = addr, .end = addr + n };
    if (is_linux(head, n)) {
        uint64_t mem = ld_le64(head + LINUX_IMAGE_SIZE);
        img->kind = BOOT_LINUX;
        img->end = addr + MAX(mem, n);
    }
}

static bool load_unpacked(const struct boot_file *f, const uint8_t *d, uint64_t n, uint64_t addr, struct boot_image *img,
                          struct err *e)
{
    if (is_elf(d, n))
        return load_elf(f, d, n, img, e);
    place_flat(d, n, addr, img);
    return as_load(&as_memory, addr, d, n) || too_big(f->what, f->path, addr, n, e);
}

static bool load_packed(const struct boot_file *f, uint64_t addr, struct boot_image *img, struct err *e)
{
    uint64_t max = machine_current()->ram_size;
    uint8_t *d = boot_file_read(f, e), *out = NULL;
    size_t out_n = 0;
    bool ok = d != NULL;
    if (ok && is_zboot(d, f->size)) {
        uint64_t off = ld_le32(d + ZBOOT_OFFSET), n = ld_le32(d + ZBOOT_SIZE);
        if (!range_ok(off, n, f->size))
            ok = err_set(e, ERR_VALUE, "%s %s: the EFI zboot header is damaged", f->what, f->path);
        else if (strncmp((char *)d + ZBOOT_TYPE, "gzip", 4))
            ok = err_set(e, ERR_VALUE, "%s %s: EFI zboot image compressed with '%.16s'; only gzip can be unpacked", f->what,
                         f->path, (char *)d + ZBOOT_TYPE);
        else
            ok = boot_gunzip(d + off, n, max, &out, &out_n, e);
    } else if (ok && is_gzip(d, f->size)) {
        ok = boot_gunzip(d, f->size, max, &out, &out_n, e);
    }
    if (!ok && d && !e->msg[0])
        err_set(e, ERR_VALUE, "%s %s: cannot be unpacked", f->what, f->path);
    ok = ok && (out ? load_unpacked(f, out, out_n, addr, img, e) : load_unpacked(f, d, f->size, addr, img, e));
    free(out);
    free(d);
    return ok;
}

static uint64_t read_head(const struct boot_file *f, uint8_t head[LINUX_HEADER])
{
    ssize_t got = pread(f->fd, head, LINUX_HEADER, 0);

    return got < 0 ? 0 : (uint64_t)got;
}

bool boot_file_is_elf(const struct boot_file *f)
{
    uint8_t head[LINUX_HEADER] = { 0 };
    uint64_t n = read_head(f, head);

    return is_elf(head, n);
}

bool boot_image_load(const struct boot_file *f, uint64_t addr, struct boot_image *img, struct err *e)
{
    uint8_t head[LINUX_HEADER] = { 0 };
    uint64_t n = read_head(f, head);
    if (is_elf(head, n) || is_gzip(head, n) || is_zboot(head, n))
        return load_packed(f, addr, img, e);
    if (!memcmp(head, "MZ", 2) && !is_linux(head, n)) {
        err_set(e, ERR_VALUE, "%s %s: an EFI application that is not a RISC-V Linux image", f->what, f->path);
        return err_hint(e, "start it from EFI firmware: -M virt,pflash0=..., with the program on a disk");
    }
    place_flat(head, f->size, addr, img);
    return boot_file_load(f, addr, e);
}
