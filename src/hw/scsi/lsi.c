/* SPDX-License-Identifier: MIT */
/* The LSI53C895A's function: registers, interrupts, its memory, life. */
#include "hw/scsi/lsi.h"

#include "base/log.h"

enum { IO_SIZE = 256, MMIO_SIZE = 1024, GEN_UNIT_NS = 125000 };

/* ---- interrupts ---- */

static uint8_t istat(const struct lsi *s)
{
    return (uint8_t)((s->reg[R_ISTAT0] & (ISTAT_SIGP | ISTAT_SEM | ISTAT_SRST)) | (s->phase < PH_FREE || s->phase == PH_WAIT ? ISTAT_CON : 0) |
                     (s->intfly ? ISTAT_INTF : 0) | (s->reg[R_SIST0] || s->reg[R_SIST1] ? ISTAT_SIP : 0) | (s->reg[R_DSTAT] ? ISTAT_DIP : 0));
}

void lsi_update_line(struct lsi *s)
{
    pci_intx_set(&s->pci, s->intfly || (s->reg[R_DSTAT] & s->reg[R_DIEN]) || (s->reg[R_SIST0] & s->reg[R_SIEN0]) || (s->reg[R_SIST1] & s->reg[R_SIEN1]));
}

void lsi_dma_interrupt(struct lsi *s, uint8_t dstat)
{
    s->reg[R_DSTAT] |= dstat;
    s->run = LSI_HALTED;
    lsi_update_line(s);
}

void lsi_scsi_interrupt(struct lsi *s, uint8_t sist0, uint8_t sist1)
{
    s->reg[R_SIST0] |= sist0;
    s->reg[R_SIST1] |= sist1;
    s->run = LSI_HALTED;
    lsi_update_line(s);
}

static void timer_over(void *arg)
{
    struct lsi *s = arg;

    s->reg[R_SIST1] |= SIST1_GEN;                   /* nothing halts for it */
    lsi_update_line(s);
}

/* ---- memory ---- */

/* The chip's own RAM is reached without the bus, at the address where it is mapped. */
static uint8_t *own_ram(struct lsi *s, uint64_t addr, uint32_t n)
{
    uint64_t base = atomic_load(&s->pci.bar[2].mapped);

    return base != UINT64_MAX && addr >= base && range_ok(addr - base, n, LSI_RAM) ? s->ram + (addr - base) : NULL;
}

bool lsi_mem_read(struct lsi *s, uint64_t addr, void *buf, uint32_t n)
{
    const uint8_t *own = own_ram(s, addr, n);

    if (!own)
        return dma_read(&s->pci.dma, addr, buf, n);
    memcpy(buf, own, n);
    return true;
}

bool lsi_mem_write(struct lsi *s, uint64_t addr, const void *buf, uint32_t n)
{
    uint8_t *own = own_ram(s, addr, n);

    if (!own)
        return dma_write(&s->pci.dma, addr, buf, n);
    memcpy(own, buf, n);
    return true;
}

/* ---- registers ---- */

static void chip_reset(struct lsi *s)
{
    lsi_forget_all(s);
    timer_disarm(&s->gen);
    memset(s->reg, 0, sizeof s->reg);
    s->reg[R_SCNTL0] = 0xc0;
    s->reg[R_SCID] = 7;
    s->reg[R_GPCNTL] = 0x0f;
    s->reg[R_GPREG] = 0x1f;
    s->reg[R_CTEST2] = 0x01;
    s->reg[R_MACNTL] = 0xf0;
    s->run = LSI_HALTED;
    s->carry = s->intfly = false;
}

static uint8_t take(uint8_t *r)
{
    uint8_t v = *r;

    *r = 0;
    return v;
}

uint8_t lsi_reg_read(struct lsi *s, unsigned r)
{
    uint8_t v = s->reg[r];

    switch (r) {
    case R_SCNTL1:
        return (uint8_t)((v & ~SCNTL1_CON) | (istat(s) & ISTAT_CON ? SCNTL1_CON : 0));
    case R_SBCL: case R_SSTAT1:
        return s->phase < PH_FREE ? s->phase : 0;
    case R_DSTAT:
        v = take(&s->reg[R_DSTAT]) | DSTAT_DFE;
        break;
    case R_SSTAT0:
        return s->reg[R_SCNTL1] & SCNTL1_RST ? SSTAT0_RST : 0;
    case R_ISTAT0:
        return istat(s);
    case R_CTEST2:
        v = (uint8_t)(0x01 | (s->reg[R_ISTAT0] & ISTAT_SIGP ? 0x40 : 0));
        s->reg[R_ISTAT0] &= (uint8_t)~ISTAT_SIGP;
        break;
    case R_SIST0: case R_SIST1:
        v = take(&s->reg[r]);
        break;
    case R_STEST4:
        return 0xe0;                                /* LVD, and the clock is locked */
    default:
        return v;
    }
    lsi_update_line(s);
    return v;
}

static void write_istat(struct lsi *s, uint8_t v)
{
    bool was = s->reg[R_ISTAT0] & ISTAT_SRST;

    if (v & ISTAT_SRST) {
        if (!was)
            chip_reset(s);
        s->reg[R_ISTAT0] = ISTAT_SRST;
        return;
    }
    s->reg[R_ISTAT0] = (uint8_t)((s->reg[R_ISTAT0] & ISTAT_SIGP) | (v & (ISTAT_SEM | ISTAT_SIGP)));
    if (v & ISTAT_INTF)
        s->intfly = false;
    if (v & ISTAT_ABRT)
        lsi_dma_interrupt(s, DSTAT_ABRT);
    else if (v & ISTAT_SIGP && s->run == LSI_WAIT_RESELECT)
        domain_post(&s->more);
}

static void write_scntl1(struct lsi *s, uint8_t v)
{
    bool rises = v & SCNTL1_RST && !(s->reg[R_SCNTL1] & SCNTL1_RST);

    s->reg[R_SCNTL1] = v & (uint8_t)~SCNTL1_CON;
    if (!rises)
        return;
    lsi_bus_reset(s);
    lsi_scsi_interrupt(s, SIST0_RST, 0);
}

static void start(struct lsi *s)
{
    s->run = LSI_RUNNING;
    domain_post(&s->more);
}

void lsi_reg_write(struct lsi *s, unsigned r, uint8_t v)
{
    switch (r) {
    case R_SCNTL1:
        write_scntl1(s, v);
        break;
    case R_ISTAT0:
        write_istat(s, v);
        break;
    case R_SSID: case R_SBCL: case R_DSTAT: case R_SSTAT0: case R_SSTAT1: case R_SSTAT2: case R_CTEST2: case R_SIST0: case R_SIST1: case R_STEST0:
    case R_STEST4:
        break;                                      /* read only */
    case R_DCNTL:
        s->reg[r] = v & (uint8_t)~DCNTL_STD;
        if (v & DCNTL_STD && s->run == LSI_HALTED)
            start(s);
        break;
    case R_STIME1:
        s->reg[r] = v;
        timer_disarm(&s->gen);
        if (v & 0xf)
            timer_arm(&s->gen, clock_now(CLOCK_VM) + ((int64_t)GEN_UNIT_NS << (v & 0xf)));
        break;
    case R_MACNTL:
        s->reg[r] = (uint8_t)((v & 0x0f) | 0xf0);
        break;
    default:
        s->reg[r] = v;
        break;
    }
    if (r == R_DSP + 3 && !(s->reg[R_DMODE] & DMODE_MAN) && !s->in_run)
        start(s);
    lsi_update_line(s);
}

static uint64_t regs_read(void *opaque, uint64_t off, unsigned size)
{
    struct lsi *s = opaque;
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)lsi_reg_read(s, (unsigned)(off + i) & 0xff) << 8 * i;
    return v;
}

static void regs_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        lsi_reg_write(opaque, (unsigned)(off + i) & 0xff, (uint8_t)(v >> 8 * i));
}

static uint64_t ram_read(void *opaque, uint64_t off, unsigned size) { return ld_le(((struct lsi *)opaque)->ram + off, size); }
static void ram_write(void *opaque, uint64_t off, uint64_t v, unsigned size) { st_le(((struct lsi *)opaque)->ram + off, v, size); }

static const struct mmio_ops regs_ops = { .read = regs_read, .write = regs_write, .min = 1, .max = 4, .valid_max = 8 };
static const struct mmio_ops ram_ops = { .read = ram_read, .write = ram_write, .min = 1, .max = 8 };

/* ---- life ---- */

static const struct scsi_hba lsi_hba = { .max_target = LSI_TARGETS - 1, .max_lun = LSI_LUNS - 1 };

static void run_more(void *arg) { lsi_scripts(arg); }

static void resume(void *arg)
{
    struct lsi *s = arg;
    struct lsi_req *q;

    list_for_each(q, &s->reqs, link)
        if (q->stopped)
            lsi_submit(q);
    lsi_scripts(s);
}

static bool lsi_realize(struct dev *d, struct err *e)
{
    struct lsi *s = (struct lsi *)d;

    s->bus = scsi_bus_new(d, &lsi_hba, s, e);
    if (!s->bus)
        return false;
    list_init(&s->reqs);
    timer_init(&s->gen, CLOCK_VM, domain_loop(d->dom), d->dom, timer_over, s);
    s->more = (struct post){ .fn = run_more, .arg = s, .dom = d->dom };
    region_init_mmio(&s->io, "lsi-io", IO_SIZE, &regs_ops, s, d->dom);
    region_init_mmio(&s->mmio, "lsi-mmio", MMIO_SIZE, &regs_ops, s, d->dom);
    region_init_mmio(&s->ram_bar, "lsi-ram", LSI_RAM, &ram_ops, s, d->dom);
    pci_bar_add(&s->pci, 0, PCI_BAR_IO, &s->io);
    pci_bar_add(&s->pci, 1, PCI_BAR_MEM32, &s->mmio);
    pci_bar_add(&s->pci, 2, PCI_BAR_MEM32, &s->ram_bar);
    pci_intx_init(&s->pci, 1);
    run_resume_init(&s->resume, d->dom, resume, s);
    return true;
}

static void lsi_unrealize(struct dev *d)
{
    struct lsi *s = (struct lsi *)d;

    run_resume_fini(&s->resume);
    loop_post_cancel(domain_loop(d->dom), &s->more);
    domain_lock(d->dom);
    lsi_forget_all(s);
    domain_unlock(d->dom);
    timer_fini(&s->gen);
    region_fini(&s->io);
    region_fini(&s->mmio);
    region_fini(&s->ram_bar);
}

static void lsi_reset(struct dev *d, enum reset_kind k)
{
    struct lsi *s = (struct lsi *)d;

    chip_reset(s);
    memset(s->ram, 0, sizeof s->ram);
    memset(s->sense, 0, sizeof s->sense);
    scsi_bus_power_on(s->bus);
}

static void lsi_reset_out(struct dev *d) { lsi_update_line((struct lsi *)d); }

static void co_lsi_quiesce(struct dev *d)
{
    struct lsi *s = (struct lsi *)d;

    while (s->n_flying)
        co_queue_wait(&s->idle);
}

static const struct pci_class lsi_class = {
    .dev = { .obj = { .name = "lsi53c895a", .desc = "LSI53C895A parallel SCSI controller", .base = &pci_dev_class.dev.obj, .size = sizeof(struct lsi),
                      .aliases = (const char *const[]){ "lsi", NULL } },
             .cat = "Storage", .plugs_into = &pci_bus_class, .realize = lsi_realize, .unrealize = lsi_unrealize, .reset = lsi_reset,
             .reset_out = lsi_reset_out, .co_quiesce = co_lsi_quiesce, .state = &lsi_state, .hotplug = true },
    .vendor = 0x1000, .device = 0x0012, .subvendor = 0x1000, .subdevice = 0x1000, .class_code = 0x010000,
};
OBJ_CLASS(&lsi_class.dev.obj);
