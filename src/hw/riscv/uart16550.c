/* SPDX-License-Identifier: MIT */
/*
 * 16550A UART ("PC16550D Universal Asynchronous Receiver/Transmitter with FIFOs", National Semiconductor, 1995; section
 * numbers below are of that data sheet). Characters go to the back end at once: line speed is only felt in the receiver's
 * character time-out. What the back end does not take yet waits in the transmit FIFO, so the guest sees back pressure.
 */
#include "chardev/chr.h"
#include "pci/sysdev.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REG_COUNT };
enum { IER_RX = 1, IER_THRE = 2, IER_LINE = 4, IER_MODEM = 8, IER_MASK = 0x0f };
enum { IIR_MODEM = 0, IIR_NONE = 1, IIR_THRE = 2, IIR_RX = 4, IIR_LINE = 6, IIR_TIMEOUT = 0x0c, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_KEPT = 0xc9 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum { LSR_DR = 1, LSR_OE = 2, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_FIFO_ERR = 0x80, LSR_ERRORS = 0x1e };
enum { MSR_DCTS = 1, MSR_DDSR = 2, MSR_TERI = 4, MSR_DDCD = 8, MSR_DELTA = 0x0f,
       MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };
#define UART_FIFO 16u

struct uart {
    struct sys_dev sys;
    /* options */
    struct obj *chardev;
    uint8_t regshift;
    uint32_t baudbase;
    /* registers */
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr, thre_pending, timeout_pending;
    uint16_t divisor;
    uint8_t rx[UART_FIFO], rx_flags[UART_FIFO], tx[UART_FIFO];
    uint32_t rx_head, rx_len, tx_len;
    int64_t timeout_at;             /* VM clock, INT64_MAX: no character waits below the trigger */
    /* not saved */
    struct region mmio;
    struct chr_front chr;
    struct timer timeout;
};

static bool uart_fifo_on(const struct uart *u)
{
    return u->fcr & FCR_ENABLE;
}

static unsigned uart_trigger(const struct uart *u)
{
    static const uint8_t level[4] = { 1, 4, 8, 14 };
    return uart_fifo_on(u) ? level[u->fcr >> 6] : 1;
}

/* Interrupt identification by priority, section 8.6. */
static uint8_t uart_iir(const struct uart *u)
{
    uint8_t id = IIR_NONE;
    if ((u->ier & IER_LINE) && (u->lsr & LSR_ERRORS))
        id = IIR_LINE;
    else if ((u->ier & IER_RX) && u->timeout_pending)
        id = IIR_TIMEOUT;
    else if ((u->ier & IER_RX) && u->rx_len >= uart_trigger(u))
        id = IIR_RX;
    else if ((u->ier & IER_THRE) && u->thre_pending)
        id = IIR_THRE;
    else if ((u->ier & IER_MODEM) && (u->msr & MSR_DELTA))
        id = IIR_MODEM;
    return id | (uart_fifo_on(u) ? IIR_FIFO : 0);
}

static void uart_update_irq(struct uart *u)
{
    sys_dev_irq(&u->sys, 0, !(uart_iir(u) & IIR_NONE));
}

/* Four character times without a read or a character while some wait in the FIFO: section 8.11. */
static void uart_timeout_restart(struct uart *u)
{
    u->timeout_pending = 0;
    u->timeout_at = INT64_MAX;
    if (uart_fifo_on(u) && u->rx_len) {
        unsigned bits = 1 + 5 + (u->lcr & 3) + (u->lcr >> 3 & 1) + 1 + (u->lcr >> 2 & 1);
        uint64_t div = u->divisor ? u->divisor : 1;
        u->timeout_at = clock_now(CLOCK_VM) + (int64_t)(4 * bits * div * 1000000000 / u->baudbase);
    }
    timer_arm(&u->timeout, u->timeout_at);
}

static void uart_timeout_fired(void *arg)
{
    struct uart *u = arg;
    u->timeout_at = INT64_MAX;
    if (u->rx_len) {
        u->timeout_pending = 1;
        uart_update_irq(u);
    }
}

/* The error bits in LSR belong to the character at the head of the FIFO: section 8.4. */
static void uart_reveal_head(struct uart *u)
{
    if (u->rx_len) {
        u->lsr |= LSR_DR | u->rx_flags[u->rx_head];
        u->rx_flags[u->rx_head] = 0;
    } else {
        u->lsr &= ~LSR_DR;
    }
}

static unsigned uart_room(const struct uart *u)
{
    return (uart_fifo_on(u) ? UART_FIFO : 1) - u->rx_len;
}

static void uart_rx_put(struct uart *u, uint8_t ch, uint8_t flags)
{
    if (!uart_room(u)) {
        u->lsr |= LSR_OE;
        /* Without FIFO the character in the buffer is overwritten, with it the one in the shift register is lost. */
        if (!uart_fifo_on(u))
            u->rx[u->rx_head] = ch;
        return;
    }
    unsigned at = (u->rx_head + u->rx_len++) % UART_FIFO;
    u->rx[at] = ch;
    u->rx_flags[at] = flags;
    if (u->rx_len == 1)
        uart_reveal_head(u);
}

static void uart_rx_clear(struct uart *u)
{
    u->rx_head = u->rx_len = 0;
    memset(u->rx_flags, 0, sizeof u->rx_flags);
    u->lsr &= ~LSR_DR;
    uart_timeout_restart(u);
}

static uint8_t uart_rx_get(struct uart *u)
{
    uint8_t ch = u->rx[u->rx_head];
    if (u->rx_len) {
        u->rx_head = (u->rx_head + 1) % UART_FIFO;
        u->rx_len--;
    }
    uart_reveal_head(u);
    uart_timeout_restart(u);
    uart_update_irq(u);
    if (!(u->mcr & MCR_LOOP))
        chr_accept(&u->chr);
    return ch;
}

static void uart_tx_drained(struct uart *u)
{
    u->lsr |= LSR_THRE | LSR_TEMT;
    u->thre_pending = 1;
}

static void uart_tx_put(struct uart *u, uint8_t ch)
{
    u->thre_pending = 0;
    if (u->mcr & MCR_LOOP) {
        uart_rx_put(u, ch, 0);
        uart_timeout_restart(u);
        uart_tx_drained(u);
    } else if (!u->tx_len && chr_write(&u->chr, &ch, 1) == 1) {
        uart_tx_drained(u);
    } else {
        unsigned cap = uart_fifo_on(u) ? UART_FIFO : 1;
        if (u->tx_len < cap)
            u->tx[u->tx_len++] = ch;
        else
            u->tx[cap - 1] = ch;
        u->lsr &= ~(LSR_THRE | LSR_TEMT);
    }
    uart_update_irq(u);
}

static void uart_chr_writable(void *arg)
{
    struct uart *u = arg;
    size_t n = chr_write(&u->chr, u->tx, u->tx_len);
    bool had = u->tx_len > 0;
    u->tx_len -= n;
    memmove(u->tx, u->tx + n, u->tx_len);
    if (had && !u->tx_len) {
        uart_tx_drained(u);
        uart_update_irq(u);
    }
}

static size_t uart_chr_can_read(void *arg)
{
    struct uart *u = arg;
    return u->mcr & MCR_LOOP ? 0 : uart_room(u);
}

static void uart_chr_read(void *arg, const uint8_t *buf, size_t n)
{
    struct uart *u = arg;
    for (size_t i = 0; i < n; i++)
        uart_rx_put(u, buf[i], 0);
    uart_timeout_restart(u);
    uart_update_irq(u);
}

static void uart_chr_event(void *arg, enum chr_event ev)
{
    struct uart *u = arg;
    if (ev == CHR_BREAK && !(u->mcr & MCR_LOOP)) {
        uart_rx_put(u, 0, LSR_BI);
        uart_timeout_restart(u);
        uart_update_irq(u);
    }
}

/* Modem status lines: looped back from MCR (section 8.7), else a peer that is always ready. */
static void uart_update_modem(struct uart *u)
{
    uint8_t now = MSR_CTS | MSR_DSR | MSR_DCD, old = u->msr & ~MSR_DELTA;
    if (u->mcr & MCR_LOOP)
        now = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
              (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t diff = now ^ old;
    u->msr = now | (u->msr & MSR_DELTA) | (diff & MSR_CTS ? MSR_DCTS : 0) | (diff & MSR_DSR ? MSR_DDSR : 0) |
             (old & ~now & MSR_RI ? MSR_TERI : 0) | (diff & MSR_DCD ? MSR_DDCD : 0);
}

static void uart_set_lcr(struct uart *u, uint8_t v)
{
    bool was = u->lcr & LCR_BREAK, is = v & LCR_BREAK;
    u->lcr = v;
    if (is && !was && (u->mcr & MCR_LOOP)) {            /* no back end carries it on */
        uart_rx_put(u, 0, LSR_BI);
        uart_update_irq(u);
    }
}

static void uart_set_fcr(struct uart *u, uint8_t v)
{
    bool toggled = (v ^ u->fcr) & FCR_ENABLE;
    u->fcr = v & FCR_ENABLE ? v & FCR_KEPT : 0;
    if (toggled || (v & FCR_ENABLE && v & FCR_CLEAR_RX))
        uart_rx_clear(u);
    if (toggled || (v & FCR_ENABLE && v & FCR_CLEAR_TX)) {
        if (u->tx_len) {
            u->tx_len = 0;
            uart_tx_drained(u);
        }
    }
    uart_update_irq(u);
    chr_accept(&u->chr);
}

static void uart_set_ier(struct uart *u, uint8_t v)
{
    uint8_t rising = v & ~u->ier;
    u->ier = v & IER_MASK;
    if ((rising & IER_THRE) && (u->lsr & LSR_THRE))
        u->thre_pending = 1;
    uart_update_irq(u);
}

static void uart_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct uart *u = opaque;
    uint8_t v = val;
    switch (off >> u->regshift) {
    case REG_DATA:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xff00) | v;
        else
            uart_tx_put(u, v);
        break;
    case REG_IER:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xff) | v << 8;
        else
            uart_set_ier(u, v);
        break;
    case REG_IIR_FCR:
        uart_set_fcr(u, v);
        break;
    case REG_LCR:
        uart_set_lcr(u, v);
        break;
    case REG_MCR: {
        bool left_loop = (u->mcr & MCR_LOOP) && !(v & MCR_LOOP);
        u->mcr = v & MCR_MASK;
        uart_update_modem(u);
        uart_update_irq(u);
        if (left_loop)
            chr_accept(&u->chr);
        break;
    }
    case REG_SCR:
        u->scr = v;
        break;
    default:        /* LSR and MSR are read-only in normal use */
        break;
    }
}

static uint64_t uart_read(void *opaque, uint64_t off, unsigned size)
{
    struct uart *u = opaque;
    uint8_t v;
    switch (off >> u->regshift) {
    case REG_DATA:
        return u->lcr & LCR_DLAB ? (uint8_t)u->divisor : uart_rx_get(u);
    case REG_IER:
        return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
    case REG_IIR_FCR:
        v = uart_iir(u);
        if ((v & 0x0f) == IIR_THRE) {
            u->thre_pending = 0;
            uart_update_irq(u);
        }
        return v;
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        v = u->lsr;
        for (unsigned i = 0; i < u->rx_len && uart_fifo_on(u); i++)
            v |= u->rx_flags[(u->rx_head + i) % UART_FIFO] ? LSR_FIFO_ERR : 0;
        u->lsr &= ~LSR_ERRORS;
        uart_update_irq(u);
        return v;
    case REG_MSR:
        v = u->msr;
        u->msr &= ~MSR_DELTA;
        uart_update_irq(u);
        return v;
    case REG_SCR:
        return u->scr;
    default:
        return 0;
    }
}

/* A wide access reaches the one register at its offset, as on QEMU's board. */
static const struct mmio_ops uart_ops = { .read = uart_read, .write = uart_write, .min = 1, .max = 8 };

static void uart_reset(struct dev *d, enum reset_kind k)
{
    struct uart *u = (struct uart *)d;
    u->ier = u->fcr = u->scr = u->timeout_pending = u->lcr = 0;
    u->mcr = MCR_OUT2;
    u->thre_pending = 0;
    u->lsr = LSR_THRE | LSR_TEMT;
    u->msr = MSR_DCD | MSR_DSR | MSR_CTS;
    u->divisor = 0x0c;
    u->tx_len = u->rx_head = u->rx_len = 0;
    memset(u->rx_flags, 0, sizeof u->rx_flags);
    u->timeout_at = INT64_MAX;
    timer_disarm(&u->timeout);
}

static void uart_reset_out(struct dev *d)
{
    struct uart *u = (struct uart *)d;
    uart_update_irq(u);
    chr_accept(&u->chr);
}

static bool uart_realize(struct dev *d, struct err *e)
{
    struct uart *u = (struct uart *)d;
    u->chr = (struct chr_front){ .can_read = uart_chr_can_read, .read = uart_chr_read, .event = uart_chr_event,
                                 .writable = uart_chr_writable, .arg = u };
    timer_init(&u->timeout, CLOCK_VM, NULL, d->dom, uart_timeout_fired, u);
    uart_reset(d, RESET_COLD);
    if (!chr_connect(&u->chr, u->chardev, d->dom, "serial port", e))
        return false;
    region_init_mmio(&u->mmio, "serial", (uint64_t)REG_COUNT << u->regshift, &uart_ops, u, d->dom);
    sys_dev_mmio_add(&u->sys, &u->mmio);
    return true;
}

static void uart_unrealize(struct dev *d)
{
    struct uart *u = (struct uart *)d;
    region_fini(&u->mmio);
    sys_dev_mmio_forget(&u->sys);
    chr_disconnect(&u->chr);
    timer_fini(&u->timeout);
}

static bool uart_post_load(void *obj, struct err *e)
{
    struct uart *u = obj;
    timer_arm(&u->timeout, u->timeout_at);
    return true;
}

static const struct state_field uart_fields[] = {
    STATE_SYS(struct uart),
    STATE_SKIP(struct uart, chardev, "option"), STATE_SKIP(struct uart, regshift, "option"),
    STATE_SKIP(struct uart, baudbase, "option"),
    STATE_UINT(struct uart, ier, .max = IER_MASK), STATE_UINT(struct uart, fcr), STATE_UINT(struct uart, lcr),
    STATE_UINT(struct uart, mcr, .max = MCR_MASK), STATE_UINT(struct uart, lsr), STATE_UINT(struct uart, msr),
    STATE_UINT(struct uart, scr), STATE_UINT(struct uart, thre_pending, .max = 1),
    STATE_UINT(struct uart, timeout_pending, .max = 1), STATE_UINT(struct uart, divisor),
    STATE_BYTES(struct uart, rx), STATE_BYTES(struct uart, rx_flags), STATE_BYTES(struct uart, tx),
    STATE_UINT(struct uart, rx_head, .max = UART_FIFO - 1), STATE_UINT(struct uart, rx_len, .max = UART_FIFO),
    STATE_UINT(struct uart, tx_len, .max = UART_FIFO), ST_(ST_S64, struct uart, timeout_at),
    STATE_SKIP(struct uart, mmio, "host side"), STATE_SKIP(struct uart, chr, "host side"),
    STATE_SKIP(struct uart, timeout, "armed from timeout_at"),
    STATE_END,
};
static const struct state_desc uart_state = { .name = "serial", .version = 1, .fields = uart_fields,
                                              .post_load = uart_post_load };

static const struct prop uart_props[] = {
    PROP_LINK(struct uart, chardev, "chardev", &chr_class, 0, "Character back end at the other end of the line"),
    PROP_U8(struct uart, regshift, "regshift", 0, 0, 3, "Distance of two registers is 1 shifted left by this"),
    PROP_U32(struct uart, baudbase, "baudbase", 230400, 1, 100000000, "Bits a second at divisor 1"),
    PROP_END,
};

static const struct dev_class uart_class = {
    .obj = { .name = "serial-mm", .desc = "16550A serial port", .base = &sys_dev_class.obj, .size = sizeof(struct uart),
             .props = uart_props, .flags = OCF_INTERNAL },
    .cat = "Input", .realize = uart_realize, .unrealize = uart_unrealize, .reset = uart_reset,
    .reset_out = uart_reset_out, .state = &uart_state,
};
OBJ_CLASS(&uart_class.obj);
