/* SPDX-License-Identifier: MIT */
/*
 * Measures a disk without an operating system: 4 KiB random reads by a driver that polls, 1 and 64 at a time. Runs where a
 * machine's firmware would (-bios), prints "NAME DEPTH reads a second" lines on the console and "end".
 */
#include "poll.h"

#define UART 0x10000000ul
#define MTIME 0x0200bff8ul              /* 10 MHz */
#define ECAM 0x30000000ul
#define WINDOW 0x40000000ul
#define TICKS 10000000ull
#define SECONDS_TENTHS 15

void main(void);

__attribute__((naked, section(".start"), used)) void start(void)
{
    __asm__ volatile("li sp, 0x80180000\n j main");
}

void *memset(void *p, int c, size_t n)
{
    for (volatile uint8_t *b = p; n--;)
        *b++ = (uint8_t)c;
    return p;
}

static void puts_(const char *s)
{
    while (*s)
        wr8(UART, (uint8_t)*s++);
}

static void putn(uint64_t v)
{
    char b[24], *p = b + sizeof b;
    *--p = 0;
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    puts_(p);
}

void die(const char *why)
{
    puts_("error: ");
    puts_(why);
    puts_("\nend\n");
    for (;;)
        __asm__ volatile("wfi");
}

static uint64_t now(void) { return *(volatile uint64_t *)MTIME; }

/* ---- PCI ---- */

static uintptr_t window = WINDOW;

int pci_find(struct pci *p, uint32_t mask, uint32_t id, uint32_t class_code)
{
    for (unsigned dev = 0; dev < 32; dev++) {
        p->cfg = ECAM + (dev << 15);
        if ((rd32(p->cfg) & mask) == id && (!class_code || rd32(p->cfg + 8) >> 8 == class_code)) {
            wr16(p->cfg + 4, 6);        /* memory, bus master */
            return 1;
        }
    }
    return 0;
}

uintptr_t pci_bar(struct pci *p, unsigned n)
{
    uintptr_t at = p->cfg + 16 + 4 * n;
    uint32_t v = rd32(at), wide = (v & 6) == 4;
    if (v & ~15u)
        return v & ~15u;
    wr32(at, ~0u);
    uint32_t size = ~(rd32(at) & ~15u) + 1;
    window = (window + size - 1) & ~(uintptr_t)(size - 1);
    wr32(at, (uint32_t)window);
    if (wide)
        wr32(at + 4, 0);
    window += size;
    return window - size;
}

/* ---- the measurement ---- */

static uint64_t seed = 88172645463325252ull;

static uint64_t random_block(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % (DISK_BYTES / BLOCK);
}

static uint64_t run(struct disk *d, unsigned depth, uint64_t ticks)
{
    uint64_t done = 0, start = now(), end = start + ticks, busy = depth, look = 0;
    for (unsigned i = 0; i < depth; i++)
        d->submit(d, i, random_block());
    d->ring(d);
    while (busy) {
        int slot = d->reap(d), again = 0;
        for (; slot >= 0; slot = d->reap(d)) {
            done++;
            busy--;
            if (end) {
                d->submit(d, (unsigned)slot, random_block());
                busy++;
                again = 1;
            }
        }
        if (again)
            d->ring(d);
        if ((again || !(++look & 1023)) && end && now() >= end)
            end = 0;
    }
    return done * TICKS / (now() - start);
}

static void measure(struct disk *d)
{
    static const unsigned depths[] = { 1, MAX_DEPTH };
    for (unsigned i = 0; i < 2; i++) {
        run(d, depths[i], TICKS / 5);
        puts_(d->name);
        puts_(" ");
        putn(depths[i]);
        puts_(" ");
        putn(run(d, depths[i], TICKS * SECONDS_TENTHS / 10));
        puts_("\n");
    }
}

void main(void)
{
    static struct disk d;
    if (!nvme_find(&d) && !vblk_find(&d))
        die("no disk");
    measure(&d);
    puts_("end\n");
    for (;;)
        __asm__ volatile("wfi");
}
