/* SPDX-License-Identifier: MIT */
/* SBI debug console (chapter 12): characters through the UART's registers, as firmware in M mode would send them. */
#include "hw/riscv/sbi.h"

#include "base/bits.h"
#include "mem/view.h"

enum { UART_DATA = 0, UART_LSR = 5, LSR_DR = 0x01, LSR_THRE = 0x20 };
#define DBCN_CHUNK 256u

bool sbi_console_put(struct sbi *s, uint8_t ch)
{
    uint64_t lsr;
    return as_read(&as_memory, s->uart + UART_LSR, &lsr, 1) && (lsr & LSR_THRE) &&
           as_write(&as_memory, s->uart + UART_DATA, ch, 1);
}

bool sbi_console_get(struct sbi *s, uint8_t *ch)
{
    uint64_t v;
    if (!as_read(&as_memory, s->uart + UART_LSR, &v, 1) || !(v & LSR_DR) ||
        !as_read(&as_memory, s->uart + UART_DATA, &v, 1))
        return false;
    *ch = (uint8_t)v;
    return true;
}

/* Non-blocking: writes what the transmitter takes and says how much. */
static struct sbi_ret dbcn_write(struct sbi *s, uint64_t addr, uint64_t n)
{
    uint8_t buf[DBCN_CHUNK];
    uint64_t done = 0;
    while (done < n) {
        uint64_t part = MIN(n - done, sizeof buf);
        if (!as_read_bytes(&as_memory, addr + done, buf, part))
            return (struct sbi_ret){ done ? 0 : SBI_ERR_INVALID_PARAM, done };
        for (uint64_t i = 0; i < part; i++, done++)
            if (!sbi_console_put(s, buf[i]))
                return (struct sbi_ret){ 0, done };
    }
    return (struct sbi_ret){ 0, done };
}

static struct sbi_ret dbcn_read(struct sbi *s, uint64_t addr, uint64_t n)
{
    uint64_t done = 0;
    uint8_t ch;
    while (done < n && sbi_console_get(s, &ch)) {
        if (!as_write_bytes(&as_memory, addr + done, &ch, 1))
            return (struct sbi_ret){ SBI_ERR_INVALID_PARAM, 0 };
        done++;
    }
    return (struct sbi_ret){ 0, done };
}

struct sbi_ret sbi_dbcn_call(struct sbi_call *c)
{
    bool whole = !c->a[2] && c->a[1] + c->a[0] >= c->a[1];     /* addresses above 2^64 are no memory of ours */
    switch (c->fid) {
    case 0:
        return whole ? dbcn_write(c->sbi, c->a[1], c->a[0]) : (struct sbi_ret){ SBI_ERR_INVALID_PARAM, 0 };
    case 1:
        return whole ? dbcn_read(c->sbi, c->a[1], c->a[0]) : (struct sbi_ret){ SBI_ERR_INVALID_PARAM, 0 };
    case 2:
        for (int tries = 0; tries < 1000; tries++)
            if (sbi_console_put(c->sbi, (uint8_t)c->a[0]))
                return (struct sbi_ret){ 0, 0 };
        return (struct sbi_ret){ SBI_ERR_FAILED, 0 };
    default:
        return (struct sbi_ret){ SBI_ERR_NOT_SUPPORTED, 0 };
    }
}
