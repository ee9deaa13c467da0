/* SPDX-License-Identifier: MIT */
/* The SCRIPTS processor: chapter 5 of the manual. */
#include <stdlib.h>
#include "base/log.h"
#include "hw/scsi/lsi.h"

#define BUDGET 2000                     /* instructions, or pieces of data, then others get their turn */
#define CHUNK 4096u

static uint32_t dsp(const struct lsi *s) { return lsi_reg32(s, R_DSP); }
static void set_dsp(struct lsi *s, uint32_t v) { lsi_set32(s, R_DSP, v); }
static uint32_t sext24(uint32_t v) { return (v & 0xffffff) - (v & 0x800000) * 2; }

/* The instruction waits for the target: it is run again when that asks for a phase. False: there is one. */
static bool waits_for_phase(struct lsi *s, uint32_t at)
{
    switch (s->phase) {
    case PH_WAIT:
        set_dsp(s, at);
        s->run = LSI_WAIT_PHASE;
        return true;
    case PH_NOBODY:                     /* the selection has timed out */
        s->phase = PH_FREE;
        lsi_scsi_interrupt(s, 0, SIST1_STO);
        return true;
    case PH_FREE:
        lsi_scsi_interrupt(s, SIST0_UDC, 0);
        return true;
    default:
        return false;
    }
}

/* ---- block moves: 5.3 ---- */

struct block_move { uint32_t at, op, count, entry; uint64_t addr; uint8_t high; };

/* 5.3.1, 64-bit addresses of table entries: of the count's upper byte, or by one of the selectors. */
static uint64_t high_address(struct lsi *s, uint8_t high)
{
    if (!(s->reg[R_CCNTL1] & CCNTL1_EXTIBMV))
        return 0;
    if (s->reg[R_CCNTL1] & CCNTL1_XTIMOD)
        return (uint64_t)high << 32;
    high &= 0x1f;
    if (high < 16)
        return (uint64_t)lsi_reg32(s, R_SCRATCHC + 4u * high) << 32;
    return high < 22 ? (uint64_t)lsi_reg32(s, R_MMRS + 4u * (high - 16)) << 32 : 0;
}

static bool decode_move(struct lsi *s, struct block_move *m, uint32_t arg)
{
    uint8_t e[8];

    m->count = m->op & 0xffffff;
    m->addr = arg;
    m->high = (uint8_t)(m->op >> 24);
    m->entry = m->at + 4;
    if (m->op & 0x10000000) {           /* table indirect */
        m->entry = lsi_reg32(s, R_DSA) + sext24(arg);
        if (!lsi_mem_read(s, m->entry, e, 8))
            return false;
        m->count = ld_le32(e) & 0xffffff;
        m->high = e[3];
        m->addr = ld_le32(e + 4) | high_address(s, e[3]);
    } else if (m->op & 0x20000000) {    /* indirect */
        if (!lsi_mem_read(s, arg, e, 4))
            return false;
        m->addr = ld_le32(e);
    }
    return true;
}

/* The phase is another one, @left bytes before the end: 2.2.17 and the registers of 4.3. */
static void mismatch(struct lsi *s, const struct block_move *m, uint32_t left, bool out)
{
    uint8_t want = m->op >> 24 & 7;
    uint64_t addr = m->addr + (m->count - left);
    bool jump = s->reg[R_CCNTL0] & CCNTL0_ENPMJ && (want <= PH_DATA_IN || s->reg[R_CCNTL0] & CCNTL0_ENNDJ);
    bool second = s->reg[R_CCNTL0] & CCNTL0_PMJCTL ? !out : s->reg[R_SCNTL2] & SCNTL2_WSR;

    lsi_set32(s, R_DBC, (s->reg[R_DCMD] & 0xffu) << 24 | left);
    lsi_set32(s, R_DNAD, (uint32_t)addr);
    lsi_set32(s, R_RBC, (uint32_t)m->high << 24 | left);
    lsi_set32(s, R_UA, (uint32_t)addr);
    lsi_set32(s, R_ESA, m->entry);
    lsi_set32(s, R_IA, m->at);
    lsi_set32(s, R_SBC, m->count - left);
    if (jump)
        set_dsp(s, lsi_reg32(s, second ? R_PMJAD2 : R_PMJAD1));
    else
        lsi_scsi_interrupt(s, SIST0_MA, 0);
}

/* As much as target and memory take, a piece at a time; the number of bytes. False: a bus fault. */
static bool move_bytes(struct lsi *s, const struct block_move *m, bool in, uint32_t *moved)
{
    uint8_t buf[CHUNK], phase = s->phase;
    uint32_t n, got;

    *moved = 0;
    while (*moved < m->count && s->phase == phase) {
        n = MIN(m->count - *moved, CHUNK);
        if (!in && !lsi_mem_read(s, m->addr + *moved, buf, n))
            return false;
        got = in ? lsi_move_in(s, buf, n) : lsi_move_out(s, buf, n);
        if (got && !*moved && phase >= PH_COMMAND)
            s->reg[R_SFBR] = buf[0];
        if (got && in)
            s->reg[R_SIDL] = buf[got - 1];
        if (in && !lsi_mem_write(s, m->addr + *moved, buf, got))
            return false;
        *moved += got;
        s->budget--;
        if (got < n)
            break;
    }
    return true;
}

static void block_move(struct lsi *s, uint32_t at, uint32_t op, uint32_t arg)
{
    struct block_move m = { .at = at, .op = op };
    uint8_t want = op >> 24 & 7;
    uint32_t moved;

    if (waits_for_phase(s, at))
        return;
    if (!decode_move(s, &m, arg)) {
        lsi_dma_interrupt(s, DSTAT_BF);
        return;
    }
    if (!m.count) {
        lsi_dma_interrupt(s, DSTAT_IID);
        return;
    }
    if (s->phase != want) {
        mismatch(s, &m, m.count, !(want & 1));
        return;
    }
    if (!move_bytes(s, &m, want & 1, &moved)) {
        lsi_dma_interrupt(s, DSTAT_BF);
        return;
    }
    lsi_set32(s, R_CSBC, lsi_reg32(s, R_CSBC) + moved);
    if (moved < m.count)
        mismatch(s, &m, m.count - moved, !(want & 1));
    else
        lsi_set32(s, R_DBC, (uint32_t)s->reg[R_DCMD] << 24);
}

/* ---- I/O instructions: 5.4 ---- */

static void select_target(struct lsi *s, uint32_t op, uint32_t at)
{
    uint8_t e[4] = { 0, 0, (uint8_t)(op >> 16 & 0xf), 0 };

    if (op & 0x02000000) {
        if (!lsi_mem_read(s, lsi_reg32(s, R_DSA) + sext24(op), e, 4)) {
            lsi_dma_interrupt(s, DSTAT_BF);
            return;
        }
        s->reg[R_SXFER] = e[1];
        s->reg[R_SCNTL3] = e[3];
    }
    s->reg[R_SDID] = e[2] & 0xf;
    lsi_select(s, e[2] & 0xf, op & 0x01000000);
}

static void wait_reselect(struct lsi *s, uint32_t op, uint32_t at, uint32_t arg)
{
    if (lsi_reselect(s)) {
        return;
    } else if (s->reg[R_ISTAT0] & ISTAT_SIGP) {
        set_dsp(s, op & 0x04000000 ? at + 8 + sext24(arg) : arg);
    } else {
        set_dsp(s, at);
        s->run = LSI_WAIT_RESELECT;
    }
}

static void set_clear(struct lsi *s, uint32_t op, bool set)
{
    if (op & 0x400)
        s->carry = set;
    if (op & 0x008 && set)
        lsi_set_atn(s);
    else if (op & 0x008)
        s->atn = false;
    if (op & 0x200 && set)
        lsi_dma_interrupt(s, DSTAT_IID);            /* the role of a target, which this chip is not given here */
}

/* ---- registers: 5.5 ---- */

static uint8_t operate(struct lsi *s, unsigned how, uint8_t a, uint8_t b)
{
    unsigned sum;

    switch (how) {
    case 0: return b;
    case 1:
        sum = (unsigned)a << 1 | s->carry;
        s->carry = a >> 7;
        return (uint8_t)sum;
    case 2: return a | b;
    case 3: return a ^ b;
    case 4: return a & b;
    case 5:
        sum = a >> 1 | (unsigned)s->carry << 7;
        s->carry = a & 1;
        return (uint8_t)sum;
    default:
        sum = (unsigned)a + b + (how == 7 ? s->carry : 0u);
        s->carry = sum > 0xff;
        return (uint8_t)sum;
    }
}

static void register_op(struct lsi *s, uint32_t op)
{
    unsigned r = (op >> 16 & 0x7f) | (op & 0x80), how = op >> 24 & 7, kind = op >> 27 & 7;
    uint8_t data = op & 0x800000 ? s->reg[R_SFBR] : (uint8_t)(op >> 8);
    uint8_t from = kind == 5 ? s->reg[R_SFBR] : lsi_reg_read(s, r), v;

    v = operate(s, how, from, data);
    if (kind == 6)
        s->reg[R_SFBR] = v;
    else
        lsi_reg_write(s, r, v);
}

static void io_instruction(struct lsi *s, uint32_t at, uint32_t op, uint32_t arg)
{
    switch (op >> 27 & 7) {
    case 0:
        select_target(s, op, at);
        break;
    case 1:                                         /* wait disconnect */
        if (s->phase != PH_FREE)
            waits_for_phase(s, at);
        break;
    case 2:
        wait_reselect(s, op, at, arg);
        break;
    case 3:
        set_clear(s, op, true);
        break;
    case 4:
        set_clear(s, op, false);
        break;
    default:
        register_op(s, op);
        break;
    }
}

/* ---- transfer control: 5.6 ---- */

static bool condition(const struct lsi *s, uint32_t op)
{
    bool yes = true;

    if (op & 0x200000)
        yes = s->carry;
    if (op & 0x20000)
        yes &= s->phase == (op >> 24 & 7);
    if (op & 0x40000)
        yes &= !((s->reg[R_SFBR] ^ op) & 0xff & ~(op >> 8));
    return yes == !!(op & 0x80000);
}

static void transfer_control(struct lsi *s, uint32_t at, uint32_t op, uint32_t arg)
{
    uint32_t to = op & 0x800000 ? at + 8 + sext24(arg) : arg;

    if (op & 0x10000 && waits_for_phase(s, at))
        return;
    if (!condition(s, op))
        return;
    switch (op >> 27 & 7) {
    case 0:
        set_dsp(s, to);
        break;
    case 1:
        lsi_set32(s, R_TEMP, dsp(s));
        set_dsp(s, to);
        break;
    case 2:
        set_dsp(s, lsi_reg32(s, R_TEMP));
        break;
    case 3:
        if (op & 0x100000) {
            s->intfly = true;
            lsi_update_line(s);
        } else {
            lsi_dma_interrupt(s, DSTAT_SIR);
        }
        break;
    default:
        lsi_dma_interrupt(s, DSTAT_IID);
        break;
    }
}

/* ---- memory: 5.7, 5.8 ---- */

static void memory_move(struct lsi *s, uint32_t op, uint32_t from)
{
    uint32_t n = op & 0xffffff, at = dsp(s), part;
    uint8_t buf[CHUNK], w[4];
    bool ok = lsi_mem_read(s, at, w, 4);

    set_dsp(s, at + 4);
    for (uint32_t to = ld_le32(w); ok && n; n -= part, from += part, to += part, s->budget--) {
        part = MIN(n, CHUNK);
        ok = lsi_mem_read(s, from, buf, part) && lsi_mem_write(s, to, buf, part);
    }
    if (!ok)
        lsi_dma_interrupt(s, DSTAT_BF);
}

static void load_store(struct lsi *s, uint32_t op, uint32_t arg)
{
    uint32_t addr = op & 0x10000000 ? lsi_reg32(s, R_DSA) + sext24(arg) : arg, n = op & 7;
    unsigned r = op >> 16 & 0xff;
    uint8_t buf[8];
    bool load = op & 0x01000000;

    if (!n || n > 4 || r + n > 256) {
        lsi_dma_interrupt(s, DSTAT_IID);
        return;
    }
    for (unsigned i = 0; !load && i < n; i++)
        buf[i] = lsi_reg_read(s, r + i);
    if (!(load ? lsi_mem_read(s, addr, buf, n) : lsi_mem_write(s, addr, buf, n))) {
        lsi_dma_interrupt(s, DSTAT_BF);
        return;
    }
    for (unsigned i = 0; load && i < n; i++)
        lsi_reg_write(s, r + i, buf[i]);
}

/* ---- the processor ---- */

static void execute(struct lsi *s)
{
    uint32_t at = dsp(s), op, arg;
    uint8_t w[8];

    if (!lsi_mem_read(s, at, w, 8)) {
        lsi_dma_interrupt(s, DSTAT_BF);
        return;
    }
    op = ld_le32(w);
    arg = ld_le32(w + 4);
    memcpy(s->reg + R_DBC, w, 3);
    s->reg[R_DCMD] = w[3];
    lsi_set32(s, R_DSPS, arg);
    set_dsp(s, at + 8);
    switch (op >> 30) {
    case 0:
        block_move(s, at, op, arg);
        break;
    case 1:
        io_instruction(s, at, op, arg);
        break;
    case 2:
        transfer_control(s, at, op, arg);
        break;
    default:
        if (op & 0x20000000)
            load_store(s, op, arg);
        else
            memory_move(s, op, arg);
        break;
    }
    if (s->run == LSI_RUNNING && s->reg[R_DCNTL] & DCNTL_SSM)
        lsi_dma_interrupt(s, DSTAT_SSI);
}

void lsi_scripts(struct lsi *s)
{
    if (s->in_run)
        return;
    s->in_run = true;
    if (s->run == LSI_WAIT_RESELECT)
        s->run = LSI_RUNNING;                       /* it looks again */
    for (s->budget = BUDGET; s->run == LSI_RUNNING && s->budget > 0; s->budget--)
        execute(s);
    s->in_run = false;
    if (s->run == LSI_RUNNING)
        domain_post(&s->more);
}
