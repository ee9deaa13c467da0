/* SPDX-License-Identifier: MIT */
/* NVMe (base specification 2.0): an admin queue, then one pair of I/O queues without interrupt. */
#include "poll.h"

enum { CAP = 0, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, DOORBELLS = 0x1000 };
enum { ENTRIES = 128 };
#define ADMIN_SQ RINGS
#define ADMIN_CQ (RINGS + 0x4000)
#define IO_SQ (RINGS + 0x8000)
#define IO_CQ (RINGS + 0xc000)

struct sqe { uint32_t cdw0, nsid; uint64_t cdw2, mptr, prp1, prp2; uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15; };
struct cqe { uint32_t result, rsvd; uint16_t sq_head, sq_id, cid, status; };

static void admin(struct disk *d, const struct sqe *c)
{
    static uint16_t tail, head, phase = 1;
    volatile struct cqe *e = (volatile struct cqe *)ADMIN_CQ + head;
    ((struct sqe *)ADMIN_SQ)[tail] = *c;
    tail = (tail + 1) % ENTRIES;
    fence_io();
    wr32(d->regs + DOORBELLS, tail);
    while ((e->status & 1) != phase)
        ;
    if (e->status >> 1)
        die("an admin command failed");
    head = (head + 1) % ENTRIES;
    phase ^= head == 0;
    wr32(d->regs + DOORBELLS + 4, head);
}

static void submit(struct disk *d, unsigned slot, uint64_t block)
{
    struct sqe *c = (struct sqe *)IO_SQ + d->tail;
    *c = (struct sqe){ .cdw0 = 2 | slot << 16, .nsid = 1, .prp1 = BUFFERS + (uint64_t)slot * BLOCK,
                       .cdw10 = (uint32_t)(block * (BLOCK / 512)), .cdw12 = BLOCK / 512 - 1 };
    d->tail = (d->tail + 1) % ENTRIES;
}

static void ring(struct disk *d)
{
    fence_io();
    wr32(d->regs + DOORBELLS + 8, d->tail);
}

static int reap(struct disk *d)
{
    static uint16_t told;
    volatile struct cqe *e = (volatile struct cqe *)IO_CQ + d->head;
    uint16_t status = e->status;
    if ((status & 1) != d->phase) {
        if (told != d->head)            /* once for all that were seen */
            wr32(d->regs + DOORBELLS + 12, told = d->head);
        return -1;
    }
    fence();
    if (status >> 1)
        die("a read failed");
    int slot = e->cid;
    d->head = (d->head + 1) % ENTRIES;
    d->phase ^= d->head == 0;
    return slot;
}

int nvme_find(struct disk *d)
{
    struct pci p;
    if (!pci_find(&p, 0, 0, 0x010802))
        return 0;
    d->regs = pci_bar(&p, 0);
    wr32(d->regs + CC, 0);
    while (rd32(d->regs + CSTS) & 1)
        ;
    memset((void *)RINGS, 0, 0x10000);
    wr32(d->regs + AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
    wr32(d->regs + ASQ, (uint32_t)ADMIN_SQ);
    wr32(d->regs + ASQ + 4, 0);
    wr32(d->regs + ACQ, (uint32_t)ADMIN_CQ);
    wr32(d->regs + ACQ + 4, 0);
    wr32(d->regs + CC, 6 << 16 | 4 << 20 | 1);
    while (!(rd32(d->regs + CSTS) & 1))
        ;
    admin(d, &(struct sqe){ .cdw0 = 5, .prp1 = IO_CQ, .cdw10 = (ENTRIES - 1) << 16 | 1, .cdw11 = 1 });
    admin(d, &(struct sqe){ .cdw0 = 1, .prp1 = IO_SQ, .cdw10 = (ENTRIES - 1) << 16 | 1, .cdw11 = 1 << 16 | 1 });
    *d = (struct disk){ .name = "nvme", .submit = submit, .ring = ring, .reap = reap, .regs = d->regs, .phase = 1 };
    return 1;
}
