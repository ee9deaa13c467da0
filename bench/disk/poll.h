/* SPDX-License-Identifier: MIT */
/* What the parts of the polling driver share: registers, PCI, the clock, the console. Freestanding, machine mode, one hart. */
#ifndef BENCH_POLL_H
#define BENCH_POLL_H

#include <stddef.h>
#include <stdint.h>

#define BLOCK 4096u
#define MAX_DEPTH 64u
#define DISK_BYTES (256ull << 20)       /* what the disk has at least */

/* Memory of the board that the program does not lie in. */
#define RINGS 0x80200000ul
#define BUFFERS 0x80400000ul

static inline uint32_t rd32(uintptr_t a) { return *(volatile uint32_t *)a; }
static inline void wr32(uintptr_t a, uint32_t v) { *(volatile uint32_t *)a = v; }
static inline void wr16(uintptr_t a, uint16_t v) { *(volatile uint16_t *)a = v; }
static inline void wr8(uintptr_t a, uint8_t v) { *(volatile uint8_t *)a = v; }
static inline uint16_t rd16(uintptr_t a) { return *(volatile uint16_t *)a; }
static inline uint8_t rd8(uintptr_t a) { return *(volatile uint8_t *)a; }
static inline void fence(void) { __asm__ volatile("fence rw, rw" ::: "memory"); }
static inline void fence_io(void) { __asm__ volatile("fence iorw, iorw" ::: "memory"); }

/* One function of bus 0: where its configuration space lies. */
struct pci { uintptr_t cfg; };

/* A disk that is driven by polling. */
struct disk {
    const char *name;
    void (*submit)(struct disk *, unsigned slot, uint64_t block);   /* one read; slot < MAX_DEPTH */
    void (*ring)(struct disk *);                                    /* tells the device of what was submitted */
    int (*reap)(struct disk *);                                     /* the slot of a completed read, or -1 */
    uintptr_t regs, notify;
    uint16_t tail, head, phase;
};

void *memset(void *p, int c, size_t n);
void die(const char *why) __attribute__((noreturn));
int nvme_find(struct disk *d);          /* each: 1 if the machine has one, ready to read */
int vblk_find(struct disk *d);
uintptr_t pci_bar(struct pci *p, unsigned n);       /* gives it an address at the first call */
int pci_find(struct pci *p, uint32_t mask, uint32_t id, uint32_t class_code);

#endif
