/* SPDX-License-Identifier: MIT */
/*
 * edu: a device to learn drivers on, as QEMU's manual specifies it ("EDU device"): a register that inverts, one that computes factorials,
 * a DMA engine with a buffer of 4 KiB, interrupts by MSI or INTA. BAR 0 is 1 MiB of registers.
 */
#include "base/log.h"
#include "pci/pci.h"

enum { REG_ID = 0, REG_ALIVE = 4, REG_FACTORIAL = 8, REG_STATUS = 0x20, REG_IRQ_STATUS = 0x24, REG_IRQ_RAISE = 0x60, REG_IRQ_ACK = 0x64,
       REG_DMA_SRC = 0x80, REG_DMA_DST = 0x88, REG_DMA_COUNT = 0x90, REG_DMA_CMD = 0x98 };
enum { EDU_ID = 0x010000ed, STATUS_COMPUTING = 1, STATUS_IRQ = 0x80, IRQ_FACTORIAL = 1, IRQ_DMA = 0x100,
       DMA_RUN = 1, DMA_FROM_DEVICE = 2, DMA_IRQ = 4, DMA_BUFFER = 0x40000, DMA_SIZE = 4096 };
/* A driver that does not wait for the end must be seen to fail: a transfer takes as long as on a slow bus. */
static const int64_t dma_ns = 1000000;

struct edu {
    struct pci_dev pci;             /* first */
    uint64_t dma_mask;
    struct region regs;
    struct post compute;
    struct timer dma_timer;
    uint32_t alive, factorial, status, irq_status;
    uint64_t src, dst, count, cmd;
    uint8_t buf[DMA_SIZE];
};

/* ---- interrupts ---- */

static void irq_update(struct edu *u, bool sent)
{
    pci_intx_set(&u->pci, u->irq_status != 0);
    if (sent && u->irq_status)
        pci_msi_notify(&u->pci, 0);
}

static void irq_raise(struct edu *u, uint32_t bits)
{
    u->irq_status |= bits;
    irq_update(u, true);
}

/* ---- factorials, modulo 2^32: from 34 on, 32 factors are even ---- */

static void run_compute(void *arg)
{
    struct edu *u = arg;
    uint32_t n = u->factorial, f = 1;

    if (!(u->status & STATUS_COMPUTING))
        return;                             /* reset meanwhile */
    if (n >= 34)
        f = 0;
    else
        for (; n > 1; n--)
            f *= n;
    u->factorial = f;
    u->status &= ~(uint32_t)STATUS_COMPUTING;
    if (u->status & STATUS_IRQ)
        irq_raise(u, IRQ_FACTORIAL);
}

static void start_compute(struct edu *u, uint32_t n)
{
    if (u->status & STATUS_COMPUTING)
        return;
    u->factorial = n;
    u->status |= STATUS_COMPUTING;
    domain_post(&u->compute);
}

/* ---- DMA ---- */

static uint64_t clamp(const struct edu *u, uint64_t addr)
{
    if (addr & ~u->dma_mask)
        log_guest("edu: DMA address 0x%llx is wider than dma_mask", (unsigned long long)addr);
    return addr & u->dma_mask;
}

static void run_dma(void *arg)
{
    struct edu *u = arg;
    bool out = u->cmd & DMA_FROM_DEVICE, ok;
    uint64_t at = (out ? u->src : u->dst) - DMA_BUFFER;

    if (!range_ok(at, u->count, DMA_SIZE)) {
        log_guest("edu: DMA outside the device's buffer");
        ok = false;
    } else {
        ok = out ? dma_write(&u->pci.dma, clamp(u, u->dst), u->buf + at, u->count) : dma_read(&u->pci.dma, clamp(u, u->src), u->buf + at, u->count);
    }
    if (!ok)
        log_guest("edu: DMA failed");
    u->cmd &= ~(uint64_t)DMA_RUN;
    if (u->cmd & DMA_IRQ)
        irq_raise(u, IRQ_DMA);
}

/* ---- registers ---- */

static uint64_t edu_read(void *opaque, uint64_t off, unsigned size)
{
    struct edu *u = opaque;

    if (size == 8 && off < REG_DMA_SRC)
        return UINT64_MAX;
    switch (off) {
    case REG_ID:
        return EDU_ID;
    case REG_ALIVE:
        return u->alive;
    case REG_FACTORIAL:
        return u->factorial;
    case REG_STATUS:
        return u->status;
    case REG_IRQ_STATUS:
        return u->irq_status;
    case REG_DMA_SRC:
        return u->src;
    case REG_DMA_DST:
        return u->dst;
    case REG_DMA_COUNT:
        return u->count;
    case REG_DMA_CMD:
        return u->cmd;
    default:
        return UINT64_MAX;
    }
}

/* The engine's registers stand still while it runs. */
static void dma_register(struct edu *u, uint64_t off, uint64_t v)
{
    uint64_t *regs[] = { &u->src, &u->dst, &u->count, &u->cmd };

    if (u->cmd & DMA_RUN)
        return;
    *regs[(off - REG_DMA_SRC) / 8] = off == REG_DMA_CMD ? v & (DMA_RUN | DMA_FROM_DEVICE | DMA_IRQ) : v;
    if (u->cmd & DMA_RUN)
        timer_arm(&u->dma_timer, clock_now(CLOCK_VM) + dma_ns);
}

static void edu_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct edu *u = opaque;

    if (size == 8 && off < REG_DMA_SRC)
        return;
    switch (off) {
    case REG_ALIVE:
        u->alive = ~(uint32_t)v;
        break;
    case REG_FACTORIAL:
        start_compute(u, (uint32_t)v);
        break;
    case REG_STATUS:
        u->status = (u->status & ~(uint32_t)STATUS_IRQ) | (v & STATUS_IRQ);
        break;
    case REG_IRQ_RAISE:
        irq_raise(u, (uint32_t)v);
        break;
    case REG_IRQ_ACK:
        u->irq_status &= ~(uint32_t)v;
        irq_update(u, false);
        break;
    case REG_DMA_SRC: case REG_DMA_DST: case REG_DMA_COUNT: case REG_DMA_CMD:
        dma_register(u, off, v);
        break;
    default:
        break;
    }
}

static const struct mmio_ops edu_ops = { .read = edu_read, .write = edu_write, .min = 4, .max = 8, .valid_min = 4 };

/* ---- life ---- */

static bool edu_realize(struct dev *d, struct err *e)
{
    struct edu *u = (struct edu *)d;

    pci_intx_init(&u->pci, 1);
    if (!pci_msi_init(&u->pci, 1, false, e))
        return false;
    u->compute = (struct post){ .fn = run_compute, .arg = u, .dom = d->dom };
    timer_init(&u->dma_timer, CLOCK_VM, domain_loop(d->dom), d->dom, run_dma, u);
    region_init_mmio(&u->regs, "edu", MiB, &edu_ops, u, d->dom);
    pci_bar_add(&u->pci, 0, PCI_BAR_MEM32, &u->regs);
    return true;
}

static void edu_unrealize(struct dev *d)
{
    struct edu *u = (struct edu *)d;

    loop_post_cancel(domain_loop(d->dom), &u->compute);
    timer_fini(&u->dma_timer);
    region_fini(&u->regs);
}

static void edu_reset(struct dev *d, enum reset_kind k)
{
    struct edu *u = (struct edu *)d;

    timer_disarm(&u->dma_timer);
    u->alive = u->factorial = u->status = u->irq_status = 0;
    u->src = u->dst = u->count = u->cmd = 0;
    memset(u->buf, 0, sizeof u->buf);
}

static void edu_reset_out(struct dev *d) { irq_update((struct edu *)d, false); }

static bool edu_loaded(void *obj, struct err *e)
{
    struct edu *u = obj;

    if (u->status & STATUS_COMPUTING)
        domain_post(&u->compute);
    if (u->cmd & DMA_RUN)
        timer_arm(&u->dma_timer, clock_now(CLOCK_VM) + dma_ns);
    else
        timer_disarm(&u->dma_timer);
    return true;
}

static const struct state_field edu_fields[] = {
    STATE_STRUCT(struct edu, pci, &pci_dev_state),
    STATE_SKIP(struct edu, dma_mask, "an option"),
    STATE_SKIP(struct edu, regs, "made by realize"),
    STATE_SKIP(struct edu, compute, "posted again when status says so"),
    STATE_SKIP(struct edu, dma_timer, "armed again when cmd says so"),
    STATE_UINT(struct edu, alive),
    STATE_UINT(struct edu, factorial),
    STATE_UINT(struct edu, status, .max = STATUS_COMPUTING | STATUS_IRQ),
    STATE_UINT(struct edu, irq_status),
    STATE_UINT(struct edu, src),
    STATE_UINT(struct edu, dst),
    STATE_UINT(struct edu, count),
    STATE_UINT(struct edu, cmd, .max = DMA_RUN | DMA_FROM_DEVICE | DMA_IRQ),
    STATE_BYTES(struct edu, buf),
    STATE_END,
};
static const struct state_desc edu_state = { "edu", 1, edu_fields, edu_loaded, NULL };

static const struct prop edu_props[] = {
    { .name = "dma_mask", .type = PROP_T_U64, .off = offsetof(struct edu, dma_mask), .flags = PF_HEX, .def = (1u << 28) - 1,
      .doc = "Address bits that the DMA engine drives" },
    PROP_END,
};

static const struct pci_class edu_class = {
    .dev = { .obj = { .name = "edu", .desc = "Educational device: factorials, DMA, interrupts", .base = &pci_dev_class.dev.obj,
                      .size = sizeof(struct edu), .props = edu_props },
             .cat = "Misc", .plugs_into = &pci_bus_class, .realize = edu_realize, .unrealize = edu_unrealize, .reset = edu_reset,
             .reset_out = edu_reset_out, .state = &edu_state, .hotplug = true },
    .vendor = 0x1234, .device = 0x11e8, .revision = 0x10, .subvendor = 0x1af4, .subdevice = 0x1100, .class_code = 0x00ff00,
};
OBJ_CLASS(&edu_class.dev.obj);
