/* SPDX-License-Identifier: MIT */
/* -gdb, -s, gdbserver: packets of GDB's remote protocol, and what the machine's stops become. */
#include "ctl/gdb.h"
#include "ctl/gdb_int.h"

#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include "core/cmd.h"
#include "core/run.h"

struct gdb gdb;
/* Why the CPUs stopped, as the first that did told it (vCPU threads). */
static struct { pthread_mutex_t lock; bool any; unsigned cpu; enum debug_stop why; uint64_t addr; } met = { .lock = PTHREAD_MUTEX_INITIALIZER };
static char stop_text[80] = "T02thread:1;";

/* ---- out ---- */

static void flush(void)
{
    while (gdb.out_pos < gdb.out.len) {
        size_t n = chr_write(&gdb.front, gdb.out.s + gdb.out_pos, gdb.out.len - gdb.out_pos);
        if (!n)
            return;
        gdb.out_pos += n;
    }
    gdb.out.len = gdb.out_pos = 0;
}

static void put(const void *p, size_t n)
{
    str_addn(&gdb.out, p, n);
    flush();
}

void gdb_send(const void *body, size_t n)
{
    uint8_t sum = 0;
    char tail[4];
    if (!gdb.open)
        return;
    gdb.last.len = 0;
    str_add(&gdb.last, "$");
    for (size_t i = 0; i < n; i++) {
        char c = ((const char *)body)[i];
        if (c == '$' || c == '#' || c == '}' || c == '*') {
            char escaped[2] = { '}', (char)(c ^ 0x20) };
            sum += (uint8_t)'}' + (uint8_t)(c ^ 0x20);
            str_addn(&gdb.last, escaped, 2);
        } else {
            sum += (uint8_t)c;
            str_addn(&gdb.last, &c, 1);
        }
    }
    snprintf(tail, sizeof tail, "#%02x", sum);
    str_add(&gdb.last, tail);
    put(gdb.last.s, gdb.last.len);
}

void gdb_send_text(const char *s) { gdb_send(s, strlen(s)); }
void gdb_send_stop(void) { gdb_send_text(stop_text); }

void gdb_hex(struct str *b, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        str_printf(b, "%02x", ((const uint8_t *)data)[i]);
}

size_t gdb_unhex(const char *s, size_t len, uint8_t *out, size_t max)
{
    size_t n = 0;
    for (; n < max && 2 * n + 1 < len && hex_digit(s[2 * n]) >= 0 && hex_digit(s[2 * n + 1]) >= 0; n++)
        out[n] = (uint8_t)(hex_digit(s[2 * n]) << 4 | hex_digit(s[2 * n + 1]));
    return n;
}

bool gdb_number(const char **s, uint64_t *v)
{
    const char *from = *s;
    for (*v = 0; hex_digit(**s) >= 0 && *s - from < 16; ++*s)
        *v = *v << 4 | (unsigned)hex_digit(**s);
    return *s != from;
}

bool gdb_thread(const char **s, int *cpu)
{
    uint64_t v;
    if (!strncmp(*s, "-1", 2)) {
        *s += 2;
        *cpu = -1;
        return true;
    }
    if (!gdb_number(s, &v) || v > debug_ops->n_cpus())
        return false;
    *cpu = v ? (int)v - 1 : 0;
    return true;
}

/* ---- in ---- */

static void packet(void)
{
    gdb.body[gdb.len] = 0;
    if (gdb.too_long) {
        gdb_send_text("E22");
    } else if (!debug_ops) {
        gdb_send_text("E01");
    } else {
        gdb_command();
    }
}

static void end_of_packet(void)
{
    bool ok = gdb.sum == gdb.want;
    gdb.state = GDB_IDLE;
    if (!gdb.no_ack)
        put(ok ? "+" : "-", 1);
    if (ok || gdb.no_ack)
        packet();
}

static void body_byte(uint8_t c)
{
    if (gdb.len < GDB_PACKET)
        gdb.body[gdb.len++] = (char)c;
    else
        gdb.too_long = true;
}

static void byte(uint8_t c)
{
    switch (gdb.state) {
    case GDB_IDLE:
        if (c == '$') {
            gdb.state = GDB_BODY;
            gdb.len = gdb.sum = 0;
            gdb.too_long = false;
        } else if (c == '-' && gdb.last.len && !gdb.no_ack) {
            put(gdb.last.s, gdb.last.len);
        } else if (c == 3 && run_is_running()) {
            run_stop(RUN_PAUSED);
        }
        break;
    case GDB_BODY:
        if (c == '#') {
            gdb.state = GDB_SUM1;
            break;
        }
        gdb.sum += c;
        if (c == '}')
            gdb.state = GDB_ESCAPE;
        else
            body_byte(c);
        break;
    case GDB_ESCAPE:
        gdb.sum += c;
        body_byte(c ^ 0x20);
        gdb.state = GDB_BODY;
        break;
    case GDB_SUM1:
        gdb.want = (uint8_t)((hex_digit((char)c) & 15) << 4);
        gdb.state = GDB_SUM2;
        break;
    case GDB_SUM2:
        gdb.want |= hex_digit((char)c) & 15;
        end_of_packet();
        break;
    }
}

/* One byte at a time where the next packet has to wait for a monitor command. */
static size_t on_can_read(void *arg) { return gdb.busy ? 0 : 1; }

static void on_read(void *arg, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        byte(buf[i]);
}

static void on_writable(void *arg) { flush(); }

static void on_event(void *arg, enum chr_event ev)
{
    if (ev == CHR_OPENED) {
        gdb.open = true;
        gdb.state = GDB_IDLE;
        gdb.no_ack = gdb.phys = gdb.waiting = false;
        gdb.g_cpu = gdb.c_cpu = 0;
        gdb.out.len = gdb.out_pos = gdb.last.len = 0;
        if (run_is_running())
            run_stop(RUN_PAUSED);       /* as every debugger expects of what it attaches to */
    } else if (ev == CHR_CLOSED) {
        gdb.open = gdb.waiting = false;
        gdb_clear_breakpoints();
    }
}

/* ---- the machine ---- */

static void on_stopped(unsigned cpu, enum debug_stop why, uint64_t addr)
{
    pthread_mutex_lock(&met.lock);
    if (!met.any) {
        met.any = true;
        met.cpu = cpu;
        met.why = why;
        met.addr = addr;
    }
    pthread_mutex_unlock(&met.lock);
    run_request_stop(RUN_DEBUG);
}

static void machine_stopped(struct run_listener *l, enum run_state to)
{
    if (to == RUN_RUNNING)
        return;                         /* around a reset */
    pthread_mutex_lock(&met.lock);
    if (met.any) {
        gdb.g_cpu = gdb.c_cpu = met.cpu;
        if (met.why == DEBUG_STOP_WATCH)
            snprintf(stop_text, sizeof stop_text, "T05thread:%x;watch:%llx;", met.cpu + 1, (unsigned long long)met.addr);
        else
            snprintf(stop_text, sizeof stop_text, "T05thread:%x;", met.cpu + 1);
    } else {
        unsigned signal = to == RUN_PAUSED ? 2 : to == RUN_SHUTDOWN ? 3 : to == RUN_IO_ERROR ? 5 : 6;
        snprintf(stop_text, sizeof stop_text, "T%02xthread:%x;", signal, gdb.c_cpu + 1);
    }
    met.any = false;
    pthread_mutex_unlock(&met.lock);
    if (gdb.waiting)
        gdb_send_stop();
    gdb.waiting = false;
}

static struct run_listener listener = { .prio = 90, .stop = machine_stopped };

static void stop_server(void)
{
    if (!gdb.chardev)
        return;
    chr_disconnect(&gdb.front);
    if (gdb.open)
        on_event(NULL, CHR_CLOSED);
    if (gdb.own)
        obj_del(gdb.chardev);
    obj_unref(gdb.chardev);
    gdb.chardev = NULL;
    run_unlisten(&listener);
    debug_stopped = NULL;
}

/* "tcp::1234" alone waits for a debugger without holding up the machine. */
static char *with_defaults(const char *arg)
{
    bool tcp = str_starts(arg, "tcp:"), nix = str_starts(arg, "unix:");
    struct str b = { 0 };
    str_add(&b, arg);
    if ((tcp || nix) && !strstr(arg, ",server"))
        str_add(&b, ",server=on");
    if ((tcp || nix) && !strstr(arg, ",wait") && !strstr(arg, ",nowait"))
        str_add(&b, ",wait=off");
    if (tcp && !strstr(arg, "delay"))
        str_add(&b, ",nodelay=on");
    return str_take(&b);
}

/* Serves gdb on a chardev given as -gdb takes it, in place of the present one; "none": no longer. False with @e filled. */
static bool gdb_start(const char *arg, struct err *e)
{
    static unsigned count;
    char id[24];
    if (!strcmp(arg, "none")) {
        stop_server();
        return true;
    }
    if (!debug_ops)
        return err_set(e, ERR_VALUE, "a debugger needs a machine with CPUs that run (-M virt, and not -accel qtest)");
    stop_server();
    snprintf(id, sizeof id, "gdb%u", count++);
    char *text = with_defaults(arg);
    struct obj *c = chr_from_legacy(id, text, false, e);
    free(text);
    gdb.front = (struct chr_front){ .can_read = on_can_read, .read = on_read, .event = on_event, .writable = on_writable };
    if (!c || !chr_connect(&gdb.front, c, NULL, "the debugger", e))
        return false;
    gdb.chardev = obj_ref(c);
    gdb.own = !str_starts(arg, "chardev:");
    debug_stopped = on_stopped;
    run_listen(&listener);
    if (chr_is_open(&gdb.front))
        on_event(NULL, CHR_OPENED);
    return true;
}

void gdb_end(int status)
{
    char text[8];
    if (!gdb.chardev)
        return;
    snprintf(text, sizeof text, "W%02x", status & 0xff);
    if (gdb.open)
        gdb_send_text(text);
    stop_server();
}

static bool apply_s(const char *arg, struct err *e) { return gdb_start("tcp::1234", e); }
static const struct cli_opt opts[] = {
    { "gdb", "CHARDEV", "wait for gdb on tcp::1234, unix:PATH, chardev:ID, ...; none", "Debug", CLI_RUN, gdb_start },
    { "s", NULL, "short for -gdb tcp::1234", "Debug", CLI_RUN, apply_s },
};
CLI_OPT(&opts[0]);
CLI_OPT(&opts[1]);

static void run_gdbserver(const char *arg, struct str *out)
{
    struct err e = ERR_INIT;
    const char *where = *arg ? arg : "tcp::1234";
    if (!gdb_start(where, &e))
        hmp_error(out, &e);
    else
        str_printf(out, strcmp(where, "none") ? "Waiting for gdb connection on device '%s'\n" : "Disabled gdbserver\n", where);
}
static const struct hmp_cmd cmd_gdbserver = { "gdbserver", "", "[CHARDEV|none]", "wait for gdb (tcp::1234), or no longer", run_gdbserver };
HMP_CMD(&cmd_gdbserver);
