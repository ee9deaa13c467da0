/* SPDX-License-Identifier: MIT */
/* virtio-blk over PCI (VIRTIO 1.2, 4.1 and 5.2): one split ring of chains of three descriptors, no interrupts. */
#include "poll.h"

enum { ENTRIES = 256 };                 /* at most; chain i holds descriptors 3i to 3i + 2 */
struct desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct avail { uint16_t flags, idx, ring[ENTRIES]; };
struct used { uint16_t flags, idx; struct { uint32_t id, len; } ring[ENTRIES]; };
struct req { uint32_t type, rsvd; uint64_t sector; uint8_t status; };

#define DESC ((volatile struct desc *)RINGS)
#define AVAIL ((volatile struct avail *)(RINGS + 0x2000))
#define USED ((volatile struct used *)(RINGS + 0x4000))
#define REQS ((volatile struct req *)(RINGS + 0x6000))
static unsigned mask;

/* The structure of @type (4.1.4): its address; @multiplier for notifications. */
static uintptr_t structure(struct pci *p, unsigned type, uint32_t *multiplier)
{
    for (unsigned at = rd8(p->cfg + 0x34); at; at = rd8(p->cfg + at + 1)) {
        if (rd8(p->cfg + at) != 9 || rd8(p->cfg + at + 3) != type)
            continue;
        if (multiplier)
            *multiplier = rd32(p->cfg + at + 16);
        return pci_bar(p, rd8(p->cfg + at + 4)) + rd32(p->cfg + at + 8);
    }
    die("no virtio capability");
}

static void submit(struct disk *d, unsigned slot, uint64_t block)
{
    REQS[slot].sector = block * (BLOCK / 512);
    AVAIL->ring[d->tail++ & mask] = (uint16_t)(3 * slot);
}

static void ring(struct disk *d)
{
    fence();
    AVAIL->idx = d->tail;
    fence();
    if (!(USED->flags & 1))
        wr16(d->notify, 0);
}

static int reap(struct disk *d)
{
    if (USED->idx == d->head)
        return -1;
    fence();
    int slot = (int)USED->ring[d->head++ & mask].id / 3;
    if (REQS[slot].status)
        die("a read failed");
    return slot;
}

static void chains(void)
{
    for (unsigned i = 0; i < MAX_DEPTH; i++) {
        volatile struct desc *c = DESC + 3 * i;
        REQS[i].type = 0;
        c[0] = (struct desc){ (uintptr_t)&REQS[i], 16, 1, (uint16_t)(3 * i + 1) };
        c[1] = (struct desc){ BUFFERS + (uint64_t)i * BLOCK, BLOCK, 3, (uint16_t)(3 * i + 2) };
        c[2] = (struct desc){ (uintptr_t)&REQS[i].status, 1, 2, 0 };
    }
}

int vblk_find(struct disk *d)
{
    struct pci p;
    uint32_t multiplier;
    if (!pci_find(&p, ~0u, 0x10421af4, 0))
        return 0;
    uintptr_t common = structure(&p, 1, NULL), notify = structure(&p, 2, &multiplier);
    wr8(common + 20, 0);
    while (rd8(common + 20))
        ;
    wr8(common + 20, 3);
    wr32(common + 8, 1);                /* VIRTIO_F_VERSION_1, and nothing else */
    wr32(common + 12, 1);
    wr32(common + 8, 0);
    wr32(common + 12, 0);
    wr8(common + 20, 11);
    wr16(common + 22, 0);
    uint16_t size = rd16(common + 24);
    if (size > ENTRIES)
        wr16(common + 24, size = ENTRIES);
    if (size < 3 * MAX_DEPTH)
        die("the ring is too small");
    mask = size - 1u;
    memset((void *)RINGS, 0, 0x8000);
    chains();
    AVAIL->flags = 1;
    uintptr_t areas[3] = { (uintptr_t)DESC, (uintptr_t)AVAIL, (uintptr_t)USED };
    for (unsigned i = 0; i < 3; i++) {
        wr32(common + 32 + 8 * i, (uint32_t)areas[i]);
        wr32(common + 36 + 8 * i, 0);
    }
    notify += rd16(common + 30) * multiplier;
    wr16(common + 28, 1);
    wr8(common + 20, 15);
    *d = (struct disk){ .name = "virtio-blk-pci", .submit = submit, .ring = ring, .reap = reap, .notify = notify };
    return 1;
}
