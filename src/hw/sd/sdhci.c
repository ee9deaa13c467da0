/* SPDX-License-Identifier: MIT */
/* The SD host controller's function: registers, interrupts, options, life. */
#include "hw/sd/sdhci.h"

#include "base/bits.h"

enum { REGS_SIZE = 0x100, CLOCK_INTERNAL = 1, CLOCK_STABLE = 2, RESET_ALL = 1, RESET_CMD_LINE = 2, RESET_DAT_LINE = 4 };
/* What a capability promises that this controller does not do: suspend, interrupts of cards, other slots, tuning again, other clocks. */
#define CAPS_MISSING 0xffffdf8860800000ull
#define CAPS_UHS 0x0000207700000000ull  /* 2.2.26: SDR50, SDR104, DDR50, drivers, tuning for SDR50 */
#define CAPS_DEFAULT 0x057834b4ull      /* 52 MHz; ADMA2, SDMA, high speed, 3.3 V, 1.8 V */
#define MAX_BLOCK(s) (512u << MIN((s)->capareg >> 16 & 3, 2))

/* ---- interrupts ---- */

static void update_line(struct sdhci *s)
{
    pci_intx_set(&s->pci, (s->norm & s->norm_sig) || (s->err & s->err_sig));
}

/* 1.8: an event is kept if its status is enabled. */
void sdhci_raise(struct sdhci *s, uint16_t norm, uint16_t err)
{
    s->norm |= norm & s->norm_en;
    s->err |= err & s->err_en;
    update_line(s);
}

static void card_changed(void *arg)
{
    struct sdhci *s = arg;

    sdhci_stop(s);
    sdhci_raise(s, s->bus->card ? INT_INSERT : INT_REMOVE, 0);
}

/* ---- resets: 2.2.15 ---- */

static void reset_registers(struct sdhci *s)
{
    sdhci_stop(s);
    s->sdma = s->arg = 0;
    memset(s->resp, 0, sizeof s->resp);
    s->block_size = s->block_count = s->mode = s->cmd = s->clock = s->norm = s->err = s->norm_en = s->err_en = s->norm_sig = s->err_sig = s->auto_err = s->ctl2 = 0;
    s->host_ctl = s->power = s->timeout = s->adma_err = 0;
    s->adma = 0;
}

static void write_reset(struct sdhci *s, uint8_t v)
{
    if (v & RESET_ALL) {
        reset_registers(s);
        if (s->bus->card)
            sd_power_on(s->bus->card);
    }
    if (v & RESET_DAT_LINE) {
        sdhci_stop(s);
        s->norm &= (uint16_t)~(INT_TRANSFER | INT_DMA | INT_WRITE_READY | INT_READ_READY);
    }
    if (v & RESET_CMD_LINE)
        s->norm &= (uint16_t)~INT_COMMAND;
}

static void write_power(struct sdhci *s, uint8_t v)
{
    bool was = s->power & POWER_ON;

    s->power = s->bus->card ? v & 0xf : v & 0xe;        /* 2.2.12: it goes with the card */
    if (was && !(s->power & POWER_ON) && s->bus->card) {
        sdhci_stop(s);
        sd_power_on(s->bus->card);
    }
}

/* ---- registers ---- */

static uint32_t present(const struct sdhci *s)
{
    const struct sd_card *c = s->bus->card;
    uint32_t v = 0x01f20000;                            /* lines are high, detection is stable */

    if (s->move)
        v |= 0x06;
    if (s->move == MOVE_WRITE)
        v |= 0x100 | (s->port_ready ? 0x400 : 0);
    if (s->move == MOVE_READ)
        v |= 0x200 | (s->port_ready ? 0x800 : 0);
    if (c && c->busy)
        v &= ~0x100000u;                                /* DAT0 */
    if (c && c->to_low_voltage)
        v &= ~0x1f00000u;                               /* every line */
    if (c)
        v |= 0x50000 | (sd_write_protected(c) ? 0 : 0x80000);
    return v;
}

/* 2.2.32: the divider with which the base clock is as fast as a mode goes. */
static uint32_t preset(const struct sdhci *s, unsigned mode)
{
    static const uint32_t khz[] = { 400, 25000, 50000, 25000, 50000, 100000, 208000, 50000 };
    uint32_t base = (uint32_t)(s->capareg >> 8 & 0xff) * 1000;

    return s->spec_version < 3 || base <= khz[mode] ? 0 : MIN((base + 2 * khz[mode] - 1) / (2 * khz[mode]), 0x3ffu);
}

static uint32_t read_dword(struct sdhci *s, uint64_t off)
{
    uint32_t clock = s->clock & CLOCK_INTERNAL ? s->clock | CLOCK_STABLE : s->clock;

    switch (off) {
    case SDHCI_SDMA: return s->sdma;
    case SDHCI_BLOCK: return s->block_size | (uint32_t)s->block_count << 16;
    case SDHCI_ARG: return s->arg;
    case SDHCI_CMD: return s->mode | (uint32_t)s->cmd << 16;
    case SDHCI_RESP: case SDHCI_RESP + 4: case SDHCI_RESP + 8: case SDHCI_RESP + 12: return s->resp[(off - SDHCI_RESP) / 4];
    case SDHCI_PRESENT: return present(s);
    case SDHCI_HOSTCTL: return s->host_ctl | (uint32_t)s->power << 8;
    case SDHCI_CLOCK: return clock | (uint32_t)s->timeout << 16;
    case SDHCI_STATUS: return s->norm | (s->err ? INT_ERROR : 0) | (uint32_t)s->err << 16;
    case SDHCI_ENABLE: return s->norm_en | (uint32_t)s->err_en << 16;
    case SDHCI_SIGNAL: return s->norm_sig | (uint32_t)s->err_sig << 16;
    case SDHCI_HOSTCTL2: return s->auto_err | (uint32_t)s->ctl2 << 16;
    case SDHCI_CAPS: return (uint32_t)s->capareg;
    case SDHCI_CAPS + 4: return (uint32_t)(s->capareg >> 32);
    case SDHCI_MAX_CURRENT: return (uint32_t)s->maxcurr;
    case SDHCI_MAX_CURRENT + 4: return (uint32_t)(s->maxcurr >> 32);
    case SDHCI_ADMA_ERROR: return s->adma_err;
    case SDHCI_ADMA: return (uint32_t)s->adma;
    case SDHCI_ADMA + 4: return (uint32_t)(s->adma >> 32);
    case SDHCI_PRESETS: case SDHCI_PRESETS + 4: case SDHCI_PRESETS + 8: case SDHCI_PRESETS + 12:
        return preset(s, (off - SDHCI_PRESETS) / 2) | preset(s, (off - SDHCI_PRESETS) / 2 + 1) << 16;
    case SDHCI_VERSION: return (uint32_t)(s->spec_version - 1) << 16 | (s->norm & s->norm_sig || s->err & s->err_sig);
    default: return 0;
    }
}

/* What of @old stays under a write of some bytes. */
static uint32_t merge(uint32_t old, uint32_t v, uint32_t mask) { return (old & ~mask) | (v & mask); }

static void write_block(struct sdhci *s, uint32_t v, uint32_t mask)
{
    uint32_t both = merge(s->block_size | (uint32_t)s->block_count << 16, v, mask);
    uint32_t size = both & 0xfff;

    if (s->move == MOVE_READ || s->move == MOVE_WRITE)
        return;                                         /* 2.2.2: not while it is used */
    s->block_size = (uint16_t)((both & 0x7000) | MIN(size, MAX_BLOCK(s)));
    s->block_count = (uint16_t)(both >> 16);
}

static void write_command(struct sdhci *s, uint32_t v, uint32_t mask)
{
    uint32_t both = merge(s->mode | (uint32_t)s->cmd << 16, v, mask);

    if (s->move != MOVE_READ && s->move != MOVE_WRITE)
        s->mode = both & 0x3f;
    s->cmd = (uint16_t)(both >> 16 & 0x3ffb);
    if (mask >> 24)                                     /* its upper byte sends it */
        sdhci_issue(s);
}

/* CMD11 ends when the host's signals and its clock are there. */
static void follow_voltage(struct sdhci *s)
{
    if (s->bus->card && s->ctl2 & CTL2_1V8 && s->clock & CLOCK_CARD)
        sd_low_voltage(s->bus->card);
}

/* Tuning that is asked for begins without a result; the driver strength and the mode are only kept. */
static void write_control2(struct sdhci *s, uint16_t v, uint16_t mask)
{
    uint16_t old = s->ctl2;

    if (s->spec_version < 3)
        return;
    s->ctl2 = merge(old, v, mask) & CTL2_WRITABLE;
    if (~old & s->ctl2 & CTL2_TUNED)                    /* only tuning sets it */
        s->ctl2 &= (uint16_t)~CTL2_TUNED;
    follow_voltage(s);
}

static void write_clock(struct sdhci *s, uint32_t v, uint32_t mask)
{
    uint32_t all = merge(s->clock | (uint32_t)s->timeout << 16, v, mask);

    s->clock = (uint16_t)(all & 0xffe5);
    s->timeout = all >> 16 & 0xf;
    follow_voltage(s);
    if (mask >> 24)
        write_reset(s, (uint8_t)(v >> 24));
}

static void write_control(struct sdhci *s, uint32_t v, uint32_t mask)
{
    s->host_ctl = (uint8_t)merge(s->host_ctl, v, mask & 0xff);
    if (mask & 0xff00)
        write_power(s, (uint8_t)(v >> 8));
}

static void write_interrupts(struct sdhci *s, uint64_t off, uint32_t v, uint32_t mask)
{
    uint16_t *norm = off == SDHCI_ENABLE ? &s->norm_en : &s->norm_sig, *err = off == SDHCI_ENABLE ? &s->err_en : &s->err_sig;

    if (off == SDHCI_STATUS) {
        s->norm &= (uint16_t)~(v & mask);
        s->err &= (uint16_t)~((v & mask) >> 16);
    } else {
        v = merge(*norm | (uint32_t)*err << 16, v, mask);
        *norm = v & 0x7fff;
        *err = (uint16_t)(v >> 16);
    }
}

static void write_dword(struct sdhci *s, uint64_t off, uint32_t v, uint32_t mask)
{
    switch (off) {
    case SDHCI_SDMA:
        s->sdma = merge(s->sdma, v, mask);
        if (mask >> 24 && s->at_boundary) {             /* 2.2.1: its upper byte goes on */
            s->at_boundary = false;
            sdhci_step(s);
        }
        break;
    case SDHCI_BLOCK: write_block(s, v, mask); break;
    case SDHCI_ARG: s->arg = merge(s->arg, v, mask); break;
    case SDHCI_CMD: write_command(s, v, mask); break;
    case SDHCI_HOSTCTL: write_control(s, v, mask); break;
    case SDHCI_CLOCK: write_clock(s, v, mask); break;
    case SDHCI_HOSTCTL2: write_control2(s, (uint16_t)(v >> 16), (uint16_t)(mask >> 16)); break;
    case SDHCI_STATUS: case SDHCI_ENABLE: case SDHCI_SIGNAL: write_interrupts(s, off, v, mask); break;
    case SDHCI_FORCE:
        s->auto_err |= (uint16_t)(v & mask & 0x9f);
        sdhci_raise(s, 0, (uint16_t)((v & mask) >> 16));
        break;
    case SDHCI_ADMA: s->adma = merge((uint32_t)s->adma, v, mask) | (s->adma & ~0xffffffffull); break;
    case SDHCI_ADMA + 4: s->adma = (uint32_t)s->adma | (uint64_t)merge((uint32_t)(s->adma >> 32), v, mask) << 32; break;
    default: break;
    }
    update_line(s);
}

static uint64_t sdhci_read(void *opaque, uint64_t off, unsigned size)
{
    struct sdhci *s = opaque;

    if ((off & ~3ull) == SDHCI_PORT)
        return sdhci_port_read(s, size);
    return read_dword(s, off & ~3ull) >> 8 * (off & 3) & mask_of_size(size);
}

static void sdhci_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct sdhci *s = opaque;
    unsigned shift = 8 * (off & 3);

    if ((off & ~3ull) == SDHCI_PORT)
        sdhci_port_write(s, (uint32_t)v, size);
    else
        write_dword(s, off & ~3ull, (uint32_t)v << shift, (uint32_t)mask_of_size(size) << shift);
}

static const struct mmio_ops sdhci_ops = { .read = sdhci_read, .write = sdhci_write, .min = 1, .max = 4, .valid_max = 8 };

/* ---- life ---- */

static void sdhci_resume(void *arg)
{
    struct sdhci *s = arg;

    if (s->stalled)
        sdhci_step(s);
}

static bool sdhci_realize(struct dev *d, struct err *e)
{
    struct sdhci *s = (struct sdhci *)d;

    s->bus = sd_bus_new(d, card_changed, s, e);
    if (!s->bus)
        return false;
    region_init_mmio(&s->regs, "sdhci", REGS_SIZE, &sdhci_ops, s, d->dom);
    pci_bar_add(&s->pci, 0, PCI_BAR_MEM32, &s->regs);
    pci_intx_init(&s->pci, 1);
    run_resume_init(&s->resume, d->dom, sdhci_resume, s);
    return true;
}

static void sdhci_unrealize(struct dev *d)
{
    struct sdhci *s = (struct sdhci *)d;

    run_resume_fini(&s->resume);
    region_fini(&s->regs);
}

static void sdhci_reset(struct dev *d, enum reset_kind k) { reset_registers((struct sdhci *)d); }
static void sdhci_reset_out(struct dev *d) { update_line((struct sdhci *)d); }

static void co_sdhci_quiesce(struct dev *d)
{
    struct sdhci *s = (struct sdhci *)d;

    while (s->stepping)
        co_queue_wait(&s->idle);
}

#define U(f, ...) STATE_UINT(struct sdhci, f, __VA_ARGS__)
static const struct state_field sdhci_fields[] = {
    STATE_STRUCT(struct sdhci, pci, &pci_dev_state), U(sdma), U(arg), STATE_ARRAY(struct sdhci, resp), U(block_size, .max = 0x7fff), U(block_count),
    U(mode, .max = 0x3f), U(cmd, .max = 0x3fff), U(clock), U(norm), U(err), U(norm_en), U(err_en), U(norm_sig), U(err_sig), U(auto_err), U(ctl2), U(host_ctl),
    U(power, .max = 15), U(timeout, .max = 15), U(adma_err, .max = 7), U(adma), U(move, .max = MOVE_BUSY), STATE_BOOL(struct sdhci, pio),
    STATE_BOOL(struct sdhci, at_boundary), STATE_BOOL(struct sdhci, stalled), STATE_BOOL(struct sdhci, port_ready), U(left),
    STATE_BYTES(struct sdhci, fifo), U(fifo_pos, .max = SDHCI_FIFO), STATE_END
};

static bool sdhci_loaded(void *obj, struct err *e)
{
    struct sdhci *s = obj;
    uint32_t size = MIN(s->block_size & 0xfffu, MAX_BLOCK(s));

    s->block_size = (uint16_t)((s->block_size & 0x7000) | size);
    s->fifo_pos = MIN(s->fifo_pos, size);
    if (!size && (s->move == MOVE_READ || s->move == MOVE_WRITE))
        s->move = MOVE_NONE;
    return true;
}
static const struct state_desc sdhci_state = { .name = "sdhci", .version = 1, .fields = sdhci_fields, .post_load = sdhci_loaded };

static bool sdhci_check(struct obj *o, struct err *e)
{
    const struct sdhci *s = (const struct sdhci *)o;

    if (s->capareg & CAPS_UHS && s->spec_version < 3) {
        err_set(e, ERR_VALUE, "capareg=0x%llx offers UHS-I, which begins with version 3", (unsigned long long)s->capareg);
        return err_hint(e, "say sd-spec-version=3");
    }
    if (!(s->capareg & CAPS_MISSING))
        return true;
    err_set(e, ERR_VALUE, "capareg=0x%llx offers what this controller has not (0x%llx)", (unsigned long long)s->capareg,
            (unsigned long long)(s->capareg & CAPS_MISSING));
    return err_hint(e, "suspend, asynchronous interrupts, shared slots, timers and other modes of tuning, clock multipliers are missing");
}

static const struct prop sdhci_props[] = {
    { .name = "capareg", .doc = "Capabilities register", .type = PROP_T_U64, PROP_OFF(struct sdhci, capareg), .flags = PF_HEX, .def = CAPS_DEFAULT },
    { .name = "maxcurr", .doc = "Maximum current register", .type = PROP_T_U64, PROP_OFF(struct sdhci, maxcurr), .flags = PF_HEX },
    PROP_U8(struct sdhci, spec_version, "sd-spec-version", 2, 2, 3, "Version of the host controller specification"),
    PROP_END
};

static const struct pci_class sdhci_class = {
    .dev = { .obj = { .name = "sdhci-pci", .desc = "SD host controller", .base = &pci_dev_class.dev.obj, .size = sizeof(struct sdhci), .props = sdhci_props,
                      .check = sdhci_check },
             .cat = "Storage", .plugs_into = &pci_bus_class, .realize = sdhci_realize, .unrealize = sdhci_unrealize, .reset = sdhci_reset,
             .reset_out = sdhci_reset_out, .co_quiesce = co_sdhci_quiesce, .state = &sdhci_state, .hotplug = true },
    .vendor = 0x1b36, .device = 0x0007, .subvendor = 0x1af4, .subdevice = 0x1100, .class_code = 0x080501,
};
OBJ_CLASS(&sdhci_class.dev.obj);
