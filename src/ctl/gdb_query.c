/* SPDX-License-Identifier: MIT */
/* Queries and settings of GDB's remote protocol: features, threads, the target description, monitor commands. */
#include "ctl/gdb_int.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "ctl/mon.h"
#include "loop/co.h"

static void supported(const char *arg)
{
    struct str b = { 0 };
    str_printf(&b, "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+", GDB_PACKET);
    gdb_send(b.s, b.len);
    str_free(&b);
}

static void no_ack(const char *arg)
{
    gdb_send_text("OK");
    gdb.no_ack = true;
}

static void current_thread(const char *arg)
{
    char text[16];
    snprintf(text, sizeof text, "QC%x", gdb.c_cpu + 1);
    gdb_send_text(text);
}

static void attached(const char *arg) { gdb_send_text("1"); }

/* As many threads a packet as fit well. */
static void next_threads(const char *arg)
{
    struct str b = { 0 };
    unsigned n = debug_ops->n_cpus();
    for (unsigned i = 0; i < 64 && gdb.list_at < n; i++, gdb.list_at++)
        str_printf(&b, "%c%x", b.len ? ',' : 'm', gdb.list_at + 1);
    if (b.len)
        gdb_send(b.s, b.len);
    else
        gdb_send_text("l");
    str_free(&b);
}

static void first_threads(const char *arg)
{
    gdb.list_at = 0;
    next_threads(arg);
}

static void thread_info(const char *arg)
{
    struct str b = { 0 };
    char text[40];
    int cpu;
    if (!gdb_thread(&arg, &cpu) || cpu < 0) {
        gdb_send_text("E22");
        return;
    }
    snprintf(text, sizeof text, "CPU#%d", cpu);
    gdb_hex(&b, text, strlen(text));
    gdb_send(b.s, b.len);
    str_free(&b);
}

/* features:read:ANNEX:OFFSET,LENGTH */
static void target_xml(const char *arg)
{
    char annex[64];
    const char *colon = strchr(arg, ':');
    uint64_t off, len;
    if (!colon || (size_t)(colon - arg) >= sizeof annex) {
        gdb_send_text("E22");
        return;
    }
    memcpy(annex, arg, (size_t)(colon - arg));
    annex[colon - arg] = 0;
    const char *p = colon + 1, *xml = debug_ops->xml(annex);
    if (!xml || !gdb_number(&p, &off) || *p++ != ',' || !gdb_number(&p, &len)) {
        gdb_send_text("E00");
        return;
    }
    size_t n = strlen(xml);
    off = MIN(off, n);
    len = MIN(MIN(len, n - off), GDB_PACKET / 2);
    struct str b = { 0 };
    str_add(&b, len < n - off ? "m" : "l");
    str_addn(&b, xml + off, len);
    gdb_send(b.s, b.len);
    str_free(&b);
}

/* ---- monitor commands ---- */

static char *line;

static void co_monitor(void *arg)
{
    struct str out = { 0 }, hex = { 0 };
    unsigned cpu = gdb.g_cpu;
    co_hmp_execute(line, &cpu, &out);
    free(line);
    line = NULL;
    gdb.busy = false;
    for (size_t at = 0; at < out.len; at += GDB_PACKET / 4) {
        hex.len = 0;
        str_add(&hex, "O");
        gdb_hex(&hex, out.s + at, MIN(out.len - at, GDB_PACKET / 4));
        gdb_send(hex.s, hex.len);
    }
    gdb_send_text("OK");
    str_free(&out);
    str_free(&hex);
    if (gdb.chardev)
        chr_accept(&gdb.front);
}

static void monitor(const char *arg)
{
    size_t len = gdb.len - (size_t)(arg - gdb.body);
    line = xcalloc(1, len / 2 + 1);
    gdb_unhex(arg, len, (uint8_t *)line, len / 2);
    gdb.busy = true;
    co_spawn(loop_main(), NULL, co_monitor, NULL);
}

/* ---- physical addresses ---- */

static void phys_get(const char *arg) { gdb_send_text(gdb.phys ? "1" : "0"); }

static void phys_set(const char *arg)
{
    if (strcmp(arg, "0") && strcmp(arg, "1")) {
        gdb_send_text("E22");
        return;
    }
    gdb.phys = *arg == '1';
    gdb_send_text("OK");
}

static void emulator_features(const char *arg) { gdb_send_text("PhyMemMode"); }

static const struct { const char *name; void (*run)(const char *arg); } queries[] = {
    { "qSupported", supported }, { "QStartNoAckMode", no_ack }, { "qAttached", attached }, { "qfThreadInfo", first_threads },
    { "qsThreadInfo", next_threads }, { "qThreadExtraInfo,", thread_info }, { "qXfer:features:read:", target_xml }, { "qRcmd,", monitor },
    { "qqemu.PhyMemMode", phys_get }, { "Qqemu.PhyMemMode:", phys_set }, { "qqemu.Supported", emulator_features }, { "qC", current_thread },
};

bool gdb_query(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
        if (!str_starts(gdb.body, queries[i].name))
            continue;
        queries[i].run(gdb.body + strlen(queries[i].name));
        return true;
    }
    return false;
}
