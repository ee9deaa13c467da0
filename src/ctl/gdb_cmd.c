/* SPDX-License-Identifier: MIT */
/* Commands of GDB's remote protocol: registers, memory, breakpoints, running. */
#include "ctl/gdb_int.h"

#include <string.h>
#include "base/bits.h"
#include "core/run.h"
#include "mem/view.h"

#define MAX_BREAKPOINTS 1024u
static struct { enum debug_bp kind; uint64_t va, len; } bps[MAX_BREAKPOINTS];
static size_t n_bps;

static void ok(void) { gdb_send_text("OK"); }
static void error(unsigned n)
{
    char text[8];
    snprintf(text, sizeof text, "E%02x", n);
    gdb_send_text(text);
}

/* ---- registers ---- */

static void read_all(void)
{
    struct str b = { 0 };
    uint8_t v[32];
    for (unsigned i = 0; i < debug_ops->n_core_regs; i++)
        gdb_hex(&b, v, debug_ops->reg_read(gdb.g_cpu, i, v));
    gdb_send(b.s, b.len);
    str_free(&b);
}

static void write_all(const char *s)
{
    uint8_t v[32];
    for (unsigned i = 0; i < debug_ops->n_core_regs; i++) {
        size_t size = debug_ops->reg_read(gdb.g_cpu, i, v), n = gdb_unhex(s, strlen(s), v, size);
        if (n < size)
            break;
        debug_ops->reg_write(gdb.g_cpu, i, v, size);
        s += 2 * size;
    }
    ok();
}

static void read_one(const char *s)
{
    struct str b = { 0 };
    uint8_t v[32];
    uint64_t reg;
    unsigned n = gdb_number(&s, &reg) && reg <= UINT16_MAX ? debug_ops->reg_read(gdb.g_cpu, (unsigned)reg, v) : 0;
    gdb_hex(&b, v, n);
    if (n)
        gdb_send(b.s, b.len);
    else
        error(0x14);
    str_free(&b);
}

static void write_one(const char *s)
{
    uint8_t v[32];
    uint64_t reg;
    if (!gdb_number(&s, &reg) || reg > UINT16_MAX || *s++ != '=') {
        error(0x22);
        return;
    }
    size_t n = gdb_unhex(s, strlen(s), v, sizeof v);
    if (debug_ops->reg_write(gdb.g_cpu, (unsigned)reg, v, n))
        ok();
    else
        error(0x14);
}

/* ---- memory: by pages, each translated as the CPU in view would ---- */

static bool place(uint64_t va, uint64_t *pa)
{
    *pa = va;
    return gdb.phys || debug_ops->translate(gdb.g_cpu, va, pa);
}

/* Moves as much as can be moved; the number of bytes. */
static size_t memory(uint64_t va, uint8_t *buf, size_t n, bool write)
{
    size_t done = 0;
    while (done < n) {
        uint64_t pa, len = MIN(n - done, 4096 - ((va + done) & 4095));
        if (!place(va + done, &pa))
            break;
        if (!(write ? as_write_bytes(&as_memory, pa, buf + done, len) : as_read_bytes(&as_memory, pa, buf + done, len)))
            break;
        done += len;
    }
    if (write)
        debug_ops->code_changed();
    return done;
}

static void read_memory(const char *s)
{
    static uint8_t buf[GDB_PACKET / 2];
    struct str b = { 0 };
    uint64_t va, n;
    if (!gdb_number(&s, &va) || *s++ != ',' || !gdb_number(&s, &n)) {
        error(0x22);
        return;
    }
    size_t got = memory(va, buf, MIN(n, sizeof buf), false);
    gdb_hex(&b, buf, got);
    if (got || !n)
        gdb_send(b.s ? b.s : "", b.len);
    else
        error(0x14);
    str_free(&b);
}

/* M (hex) and X (as it is). */
static void write_memory(const char *s, bool binary)
{
    static uint8_t buf[GDB_PACKET];
    uint64_t va, n;
    if (!gdb_number(&s, &va) || *s++ != ',' || !gdb_number(&s, &n) || *s++ != ':') {
        error(0x22);
        return;
    }
    size_t have = gdb.len - (size_t)(s - gdb.body);
    if (n > sizeof buf || (binary ? have : have / 2) < n) {
        error(0x22);
        return;
    }
    if (binary)
        memcpy(buf, s, n);
    else if (gdb_unhex(s, have, buf, n) != n) {
        error(0x22);
        return;
    }
    if (memory(va, buf, n, true) == n)
        ok();
    else
        error(0x14);
}

/* ---- breakpoints ---- */

static size_t bp_find(enum debug_bp kind, uint64_t va, uint64_t len)
{
    for (size_t i = 0; i < n_bps; i++)
        if (bps[i].kind == kind && bps[i].va == va && bps[i].len == len)
            return i;
    return n_bps;
}

void gdb_clear_breakpoints(void)
{
    bool ran = run_is_running();
    if (!n_bps || !debug_ops)
        return;
    if (ran)
        run_stop(RUN_PAUSED);
    for (size_t i = 0; i < n_bps; i++)
        debug_ops->bp_remove(bps[i].kind, bps[i].va, bps[i].len);
    n_bps = 0;
    if (ran)
        run_cont();
}

/* Z and z. Setting one twice is as setting it once, as the protocol asks. */
static void breakpoint(const char *s, bool insert)
{
    static const enum debug_bp kinds[] = { DEBUG_BP_EXEC, DEBUG_BP_EXEC, DEBUG_BP_WRITE, DEBUG_BP_READ, DEBUG_BP_ACCESS };
    uint64_t type, va, len;
    if (!gdb_number(&s, &type) || *s++ != ',' || !gdb_number(&s, &va) || *s++ != ',' || !gdb_number(&s, &len)) {
        error(0x22);
        return;
    }
    if (type >= ARRAY_SIZE(kinds)) {
        gdb_send_text("");
        return;
    }
    enum debug_bp kind = kinds[type];
    size_t at = bp_find(kind, va, len);
    if (insert && at == n_bps) {
        if (n_bps == MAX_BREAKPOINTS || !debug_ops->bp_insert(kind, va, len)) {
            error(0x1c);
            return;
        }
        bps[n_bps].kind = kind;
        bps[n_bps].va = va;
        bps[n_bps++].len = len;
    } else if (!insert && at < n_bps) {
        debug_ops->bp_remove(kind, va, len);
        bps[at] = bps[--n_bps];
    }
    ok();
}

/* ---- running ---- */

static void go(void)
{
    enum run_state st = run_state_get();
    if (st == RUN_SHUTDOWN || st == RUN_GUEST_PANICKED || st == RUN_INTERNAL_ERROR) {
        gdb_send_stop();                /* it can only be reset (monitor system_reset) */
        return;
    }
    gdb.waiting = true;
    run_cont();
}

/* c and s, with or without an address or a signal. */
static void run(const char *s, bool step)
{
    uint64_t pc;
    if (gdb_number(&s, &pc))
        debug_ops->set_pc(gdb.c_cpu, pc);
    for (unsigned i = 0; step && i < debug_ops->n_cpus(); i++)
        debug_ops->plan(i, i == gdb.c_cpu ? DEBUG_STEP : DEBUG_STAND);
    go();
}

/* vCont;ACTION[:THREAD]... : the first action that names a thread is its own; one without a thread is for all others. */
static void v_cont(const char *s)
{
    static uint8_t said[4096];
    unsigned n = MIN(debug_ops->n_cpus(), sizeof said);
    bool good = *s == ';';
    memset(said, 0, n);
    for (unsigned i = 0; i < n; i++)
        debug_ops->plan(i, DEBUG_STAND);
    while (good && *s == ';') {
        char act = s[1];
        uint64_t signal;
        int cpu = -1;
        s += 2;
        good = act && strchr("cCsS", act) && ((act != 'C' && act != 'S') || gdb_number(&s, &signal)) &&
               (*s != ':' || (s++, gdb_thread(&s, &cpu)));
        enum debug_plan what = act == 's' || act == 'S' ? DEBUG_STEP : DEBUG_RUN;
        for (unsigned i = 0; good && i < n; i++) {
            if (said[i] || (cpu >= 0 && i != (unsigned)cpu))
                continue;
            said[i] = 1;
            debug_ops->plan(i, what);
        }
    }
    if (!good || *s) {
        for (unsigned i = 0; i < n; i++)
            debug_ops->plan(i, DEBUG_RUN);
        error(0x22);
        return;
    }
    go();
}

static void detach(void)
{
    gdb_clear_breakpoints();
    ok();
    if (!run_is_running())
        run_cont();
}

static void choose_thread(const char *s)
{
    char op = *s++;
    int cpu;
    if ((op != 'g' && op != 'c') || !gdb_thread(&s, &cpu)) {
        error(0x22);
        return;
    }
    if (cpu >= 0)
        *(op == 'g' ? &gdb.g_cpu : &gdb.c_cpu) = (unsigned)cpu;
    ok();
}

static void thread_alive(const char *s)
{
    int cpu;
    if (gdb_thread(&s, &cpu) && !*s)
        ok();
    else
        error(0x22);
}

static void v_packet(void)
{
    if (str_starts(gdb.body, "vCont?"))
        gdb_send_text("vCont;c;C;s;S");
    else if (str_starts(gdb.body, "vCont"))
        v_cont(gdb.body + 5);
    else if (str_starts(gdb.body, "vKill")) {
        ok();
        run_request_quit(CAUSE_HOST_QMP_QUIT, 0);
    } else {
        gdb_send_text("");
    }
}

void gdb_command(void)
{
    const char *arg = gdb.body + 1;
    if (run_is_running() && gdb.body[0] != 'k')
        run_stop(RUN_PAUSED);           /* registers and memory stand still while somebody looks */
    switch (gdb.body[0]) {
    case '?': gdb_send_stop(); break;
    case 'g': read_all(); break;
    case 'G': write_all(arg); break;
    case 'p': read_one(arg); break;
    case 'P': write_one(arg); break;
    case 'm': read_memory(arg); break;
    case 'M': write_memory(arg, false); break;
    case 'X': write_memory(arg, true); break;
    case 'Z': breakpoint(arg, true); break;
    case 'z': breakpoint(arg, false); break;
    case 'c': run(arg, false); break;
    case 's': run(arg, true); break;
    case 'C': case 'S': run("", gdb.body[0] == 'S'); break;
    case 'D': detach(); break;
    case 'k': run_request_quit(CAUSE_HOST_QMP_QUIT, 0); break;
    case 'H': choose_thread(arg); break;
    case 'T': thread_alive(arg); break;
    case 'v': v_packet(); break;
    case 'q': case 'Q':
        if (!gdb_query())
            gdb_send_text("");
        break;
    default: gdb_send_text(""); break;
    }
}
