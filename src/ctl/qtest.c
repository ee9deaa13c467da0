/* SPDX-License-Identifier: MIT */
/* -qtest: a test drives the board's buses, lines and clock in lines of text, as "QTest Protocol" of QEMU's manual has it. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/bits.h"
#include "base/str.h"
#include "chardev/chr.h"
#include "core/cmd.h"
#include "core/debug.h"
#include "core/dev.h"
#include "core/run.h"
#include "ctl/preconfig.h"
#include "irq/irq.h"
#include "mem/view.h"

#define LINE_MAX_BYTES (4u << 20)
#define BLOB_MAX (1u << 20)         /* bytes of one read or write */
#define WORDS_MAX 7

static struct {
    struct chr_front front;
    struct str in;
    pthread_mutex_t lock;           /* @out: lines may change on any thread */
    struct str out;
    bool too_long;                  /* the line that comes in: the rest of it is passed over */
    FILE *log;                      /* -qtest-log; NULL: none */
    int64_t log_from;
} qt = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- output ---- */

static void flush_locked(void)
{
    size_t n = qt.out.len ? chr_write(&qt.front, qt.out.s, qt.out.len) : 0;
    memmove(qt.out.s, qt.out.s + n, qt.out.len - n);
    qt.out.len -= n;
}

/* What came (R), what went (S), what happened (I), with seconds since the test came. */
static void log_line(char kind, const char *text)
{
    if (!qt.log)
        return;
    fprintf(qt.log, "[%c +%.6f] %s\n", kind, (double)(clock_now(CLOCK_HOST) - qt.log_from) / 1e9, text);
    fflush(qt.log);
}

static PRINTF_LIKE(1, 2) void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&qt.lock);
    size_t at = qt.out.len;
    str_vprintf(&qt.out, fmt, ap);
    log_line('S', qt.out.s + at);
    str_add(&qt.out, "\n");
    flush_locked();
    pthread_mutex_unlock(&qt.lock);
    va_end(ap);
}

static void on_writable(void *arg)
{
    pthread_mutex_lock(&qt.lock);
    if (qt.out.len)
        flush_locked();
    pthread_mutex_unlock(&qt.lock);
}

/* ---- numbers and blobs ---- */

/* "0x0123" into @n bytes; what is missing is zero. */
static bool hex_decode(const char *s, uint8_t *out, size_t n)
{
    if (strncmp(s, "0x", 2))
        return false;
    s += 2;
    for (size_t i = 0; i < n && *s; i++, s += 2) {
        int hi = hex_digit(s[0]), lo = hi < 0 ? -1 : hex_digit(s[1]);
        if (lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

/* ---- commands: @w holds @n words, the first is the command ---- */

static void cmd_word_write(char **w, unsigned size)
{
    uint64_t addr, v;
    if (!parse_u64(w[1], &addr) || !parse_u64(w[2], &v))
        say("FAIL bad number");
    else
        say(as_write(&as_memory, addr, v & mask_of_size(size), size) ? "OK" : "FAIL bus error");
}

static void cmd_word_read(char **w, unsigned size)
{
    uint64_t addr, v;
    if (!parse_u64(w[1], &addr)) {
        say("FAIL bad number");
        return;
    }
    if (as_read(&as_memory, addr, &v, size))
        say("OK 0x%016llx", (unsigned long long)v);
    else
        say("FAIL bus error");
}

static bool blob_range(char **w, uint64_t *addr, uint64_t *len)
{
    if (parse_u64(w[1], addr) && parse_u64(w[2], len) && *len <= BLOB_MAX)
        return true;
    say("FAIL bad address or length");
    return false;
}

static void cmd_read(char **w)
{
    uint64_t addr, len;
    if (!blob_range(w, &addr, &len))
        return;
    uint8_t *buf = xcalloc(1, len + 1);
    bool ok = as_read_bytes(&as_memory, addr, buf, len);
    struct str hex = { 0 };
    for (uint64_t i = 0; ok && i < len; i++)
        str_printf(&hex, "%02x", buf[i]);
    say(ok ? "OK 0x%s" : "FAIL bus error%s", hex.s ? hex.s : "");
    str_free(&hex);
    free(buf);
}

static void cmd_write(char **w)
{
    uint64_t addr, len;
    if (!blob_range(w, &addr, &len))
        return;
    uint8_t *buf = xcalloc(1, len + 1);
    if (!hex_decode(w[3], buf, len))
        say("FAIL bad data");
    else
        say(as_write_bytes(&as_memory, addr, buf, len) ? "OK" : "FAIL bus error");
    free(buf);
}

static void cmd_b64read(char **w)
{
    uint64_t addr, len;
    if (!blob_range(w, &addr, &len))
        return;
    uint8_t *buf = xcalloc(1, len + 1);
    struct str text = { 0 };
    if (as_read_bytes(&as_memory, addr, buf, len)) {
        base64_encode(buf, len, &text);
        say("OK %s", text.s ? text.s : "");
    } else {
        say("FAIL bus error");
    }
    str_free(&text);
    free(buf);
}

static void cmd_b64write(char **w)
{
    uint64_t addr, len;
    size_t n = 0;
    if (!blob_range(w, &addr, &len))
        return;
    uint8_t *buf = xcalloc(1, len + 1);
    if (!base64_decode(w[3], buf, len, &n) || n != len)
        say("FAIL bad data");
    else
        say(as_write_bytes(&as_memory, addr, buf, len) ? "OK" : "FAIL bus error");
    free(buf);
}

static void cmd_memset(char **w)
{
    uint64_t addr, len, byte;
    if (!blob_range(w, &addr, &len))
        return;
    if (!parse_u64(w[3], &byte)) {
        say("FAIL bad number");
        return;
    }
    uint8_t *buf = xcalloc(1, len + 1);
    memset(buf, (int)byte, len);
    say(as_write_bytes(&as_memory, addr, buf, len) ? "OK" : "FAIL bus error");
    free(buf);
}

static void cmd_clock_step(char **w)
{
    uint64_t ns;
    int64_t now = clock_now(CLOCK_VM), next = clock_vm_next_deadline();
    if (!w[1])
        ns = next == INT64_MAX || next < now ? 0 : (uint64_t)(next - now);
    else if (!parse_u64(w[1], &ns) || ns > INT64_MAX / 2) {
        say("FAIL bad number");
        return;
    }
    say("OK %lld", (long long)clock_vm_step((int64_t)ns));
}

static void cmd_clock_set(char **w)
{
    uint64_t ns;
    int64_t now = clock_now(CLOCK_VM);
    if (!parse_u64(w[1], &ns) || ns > INT64_MAX / 2)
        say("FAIL bad number");
    else
        say("OK %lld", (long long)((int64_t)ns > now ? clock_vm_step((int64_t)ns - now) : now));
}

static void on_irq(void *arg, unsigned n, int level)
{
    say("IRQ %s %u", level ? "raise" : "lower", n);
}

static void cmd_intercept_in(char **w)
{
    struct irq_bank *b = irq_bank_find(w[1]);
    if (b)
        irq_bank_watch(b, on_irq, NULL);
    say(b ? "OK" : "FAIL Unknown device");
}

/* An output line that is watched on its way to where it led before. */
struct tap { struct irq to; unsigned n; };

static void tap_set(void *arg, unsigned n, int level)
{
    const struct tap *t = arg;
    on_irq(NULL, t->n, level);
    irq_set(&t->to, level);
}

/* The process ends with the test: taps are never taken out. No CPU runs, and devices are driven by this thread alone. */
static void cmd_intercept_out(char **w)
{
    struct obj *o = obj_resolve(w[1]);
    unsigned n = 0;
    struct irq *lines = obj_is(o, &dev_obj_class) ? dev_outputs((struct dev *)o, &n) : NULL;
    for (unsigned i = 0; i < n; i++) {
        static struct tap *taps[256];
        static size_t n_taps;
        if (lines[i].set == tap_set || n_taps == ARRAY_SIZE(taps))
            continue;
        struct tap *t = taps[n_taps++] = xnew(struct tap);
        *t = (struct tap){ lines[i], i };
        lines[i] = (struct irq){ .set = tap_set, .arg = t, .n = i };
    }
    say(lines ? "OK" : "FAIL Unknown device");
}

/* set_irq_in PATH unnamed-gpio-in N LEVEL */
static void cmd_set_irq_in(char **w)
{
    struct irq_bank *b = irq_bank_find(w[1]);
    uint64_t n, level;
    if (!b || strcmp(w[2], "unnamed-gpio-in")) {
        say("FAIL Unknown %s", b ? "kind of line" : "device");
    } else if (!parse_u64(w[3], &n) || !parse_u64(w[4], &level) || n >= b->n || level > INT32_MAX) {
        say("FAIL bad number");
    } else {
        struct irq line = irq_in(b, (unsigned)n);
        irq_set(&line, (int)level);
        say("OK");
    }
}

/* csr get_csr|set_csr CPU CSR VALUE: "OK STATUS VALUE", status 0 for success. gdb numbers a CSR behind 65 other registers. */
static void cmd_csr(char **w)
{
    enum { REG_CSR = 65, CSRS = 4096 };
    uint64_t cpu, csr, val;
    uint8_t buf[32] = { 0 };
    bool set = !strcmp(w[1], "set_csr");
    if ((!set && strcmp(w[1], "get_csr")) || !parse_u64(w[2], &cpu) || !parse_u64(w[3], &csr) || !parse_u64(w[4], &val) || csr >= CSRS ||
        !debug_ops || cpu >= debug_ops->n_cpus()) {
        say("FAIL bad operation, CPU or register");
        return;
    }
    st_le64(buf, val);
    bool ok = set ? debug_ops->reg_write((unsigned)cpu, REG_CSR + (unsigned)csr, buf, 8) : debug_ops->reg_read((unsigned)cpu, REG_CSR + (unsigned)csr, buf);
    say("OK %x %016llx", ok ? 0 : 2, (unsigned long long)ld_le64(buf));     /* 2: an illegal instruction */
}

static void cmd_module_load(char **w) { say("FAIL this program has no modules: what it can do is built in"); }
static void cmd_endianness(char **w) { say("OK little"); }
static void cmd_writeb(char **w) { cmd_word_write(w, 1); }
static void cmd_writew(char **w) { cmd_word_write(w, 2); }
static void cmd_writel(char **w) { cmd_word_write(w, 4); }
static void cmd_writeq(char **w) { cmd_word_write(w, 8); }
static void cmd_readb(char **w) { cmd_word_read(w, 1); }
static void cmd_readw(char **w) { cmd_word_read(w, 2); }
static void cmd_readl(char **w) { cmd_word_read(w, 4); }
static void cmd_readq(char **w) { cmd_word_read(w, 8); }

/* With the number of words after the command, at least and at most. */
static const struct { const char *name; int min, max; void (*run)(char **w); } commands[] = {
    { "readb", 1, 1, cmd_readb }, { "readw", 1, 1, cmd_readw }, { "readl", 1, 1, cmd_readl }, { "readq", 1, 1, cmd_readq },
    { "writeb", 2, 2, cmd_writeb }, { "writew", 2, 2, cmd_writew }, { "writel", 2, 2, cmd_writel }, { "writeq", 2, 2, cmd_writeq },
    { "read", 2, 2, cmd_read }, { "write", 3, 3, cmd_write }, { "b64read", 2, 2, cmd_b64read }, { "b64write", 3, 3, cmd_b64write },
    { "memset", 3, 3, cmd_memset }, { "clock_step", 0, 1, cmd_clock_step }, { "clock_set", 1, 1, cmd_clock_set },
    { "irq_intercept_in", 1, 1, cmd_intercept_in }, { "irq_intercept_out", 1, 1, cmd_intercept_out }, { "set_irq_in", 4, 4, cmd_set_irq_in },
    { "csr", 4, 4, cmd_csr }, { "endianness", 0, 0, cmd_endianness }, { "module_load", 2, 2, cmd_module_load },
};

static void run_line(char *line)
{
    char *w[WORDS_MAX + 1] = { NULL }, *save = NULL;
    int n = 0;
    log_line('R', line);
    for (char *t = strtok_r(line, " \t\r", &save); t && n < WORDS_MAX; t = strtok_r(NULL, " \t\r", &save))
        w[n++] = t;
    for (size_t i = 0; n && i < ARRAY_SIZE(commands); i++) {
        if (strcmp(w[0], commands[i].name))
            continue;
        if (preconfig_active() && commands[i].run != cmd_endianness)
            say("FAIL the machine is not built yet");
        else if (n - 1 < commands[i].min || n - 1 > commands[i].max)
            say("FAIL %s takes %d arguments", w[0], commands[i].max);
        else
            commands[i].run(w);
        return;
    }
    if (n)
        say("FAIL Unknown command '%.60s'", w[0]);
}

/* ---- input ---- */

static size_t on_can_read(void *arg) { return 4096; }

static void on_read(void *arg, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (buf[i] == '\n') {
            str_addn(&qt.in, "", 1);
            if (qt.too_long)
                say("FAIL the line is longer than %u bytes", LINE_MAX_BYTES);
            else
                run_line(qt.in.s);
            qt.in.len = 0;
            qt.too_long = false;
        } else if (qt.in.len < LINE_MAX_BYTES) {
            str_addn(&qt.in, &buf[i], 1);
        } else {
            qt.too_long = true;
        }
    }
}

/* The program that tests has gone: nothing of its session stays. */
static void on_event(void *arg, enum chr_event ev)
{
    if (ev == CHR_OPENED) {
        qt.log_from = clock_now(CLOCK_HOST);
        log_line('I', "OPENED");
    } else if (ev == CHR_CLOSED) {
        log_line('I', "CLOSED");
        qt.in.len = 0;
        qt.too_long = false;
    }
}

static bool apply_qtest(const char *arg, struct err *e)
{
    if (qt.front.chr)
        return err_set(e, ERR_BUSY, "there is a test interface already");
    struct obj *c = chr_from_legacy("qtest", arg, false, e);
    qt.front = (struct chr_front){ .can_read = on_can_read, .read = on_read, .event = on_event, .writable = on_writable };
    return c && chr_connect(&qt.front, c, NULL, "-qtest", e);
}

static bool apply_qtest_log(const char *arg, struct err *e)
{
    if (qt.log)
        fclose(qt.log);
    qt.log = strcmp(arg, "none") ? fopen(arg, "we") : NULL;
    return qt.log || !strcmp(arg, "none") || err_os(e, errno, "cannot write");
}

static void end_qtest(void)
{
    chr_disconnect(&qt.front);
    str_free(&qt.in);
    str_free(&qt.out);
    if (qt.log)
        fclose(qt.log);
    qt.log = NULL;
}
static const struct run_end qtest_end = { "qtest", RUN_END_MONITORS, end_qtest };
RUN_END(&qtest_end);

static const struct cli_opt opts[] = {
    { "qtest", "CHARDEV", "a test drives buses and clock (with -accel qtest)", "Debug", CLI_MONITOR, apply_qtest },
    { "qtest-log", "FILE", "a log of what a test does; none: no log", "Debug", CLI_EARLY, apply_qtest_log },
};
CLI_OPT(&opts[0]);
CLI_OPT(&opts[1]);
