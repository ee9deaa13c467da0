/* SPDX-License-Identifier: MIT */
/*
 * Kernel, firmware and RAM disk images: opened once when the machine is built, read into guest memory at each reset. The
 * files stay open, so a changed working directory or a replaced file does not matter. Main loop.
 */
#ifndef MACHINE_BOOT_H
#define MACHINE_BOOT_H

#include "machine/machine.h"

/* A file of the command line. Zero-initialised: not given. */
struct boot_file {
    const char *what;       /* "-kernel", for messages */
    char *path;
    int fd;                 /* open while path is set */
    uint64_t size;
};
/* False with @e filled (errno text) if it cannot be opened or is no ordinary file. @path is copied. */
bool boot_file_open(struct boot_file *f, const char *what, const char *path, struct err *e) MUST_CHECK;
void boot_file_close(struct boot_file *f);
/* The whole file in memory of its own (caller frees); NULL with @e filled. */
uint8_t *boot_file_read(const struct boot_file *f, struct err *e) MUST_CHECK;
/* The file straight into guest memory at @addr. */
bool boot_file_load(const struct boot_file *f, uint64_t addr, struct err *e) MUST_CHECK;
/* By its first bytes. */
bool boot_file_is_elf(const struct boot_file *f);

enum boot_kind { BOOT_RAW, BOOT_LINUX, BOOT_ELF };

/* Where an image ended up. */
struct boot_image {
    enum boot_kind kind;
    uint64_t entry;         /* physical */
    uint64_t start, end;    /* memory it takes, uninitialised data included */
};
/*
 * Puts a kernel or firmware into guest memory: an ELF64 for RISC-V at its own physical addresses, anything else at @addr.
 * gzip, and the self-extracting EFI form of Linux, are unpacked first (up to the size of main memory).
 */
bool boot_image_load(const struct boot_file *f, uint64_t addr, struct boot_image *img, struct err *e) MUST_CHECK;

/* Unpacks gzip; *@out is the caller's. False with @e filled; at most @max bytes. */
bool boot_gunzip(const uint8_t *in, size_t n, uint64_t max, uint8_t **out, size_t *out_n, struct err *e) MUST_CHECK;

#endif
