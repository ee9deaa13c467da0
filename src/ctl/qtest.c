/* SPDX-License-Identifier: MIT */
/* -qtest: a test drives the board's buses, lines and clock in lines of text, as "QTest Protocol" of QEMU's manual has it. */
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "chardev/chr.h"
#include "core/cmd.h"
#include "core/run.h"
#include "irq/irq.h"
#include "mem/view.h"

#define LINE_MAX_BYTES (4u << 20)
#define BLOB_MAX (1u << 20)         /* bytes of one read or write */
#define WORDS_MAX 5

static struct {
    struct chr_front front;
    struct str in;
    pthread_mutex_t lock;           /* @out: lines may change on any thread */
    struct str out;
} qt = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- output ---- */

static void flush_locked(void)
{
    size_t n = qt.out.len ? chr_write(&qt.front, qt.out.s, qt.out.len) : 0;
    memmove(qt.out.s, qt.out.s + n, qt.out.len - n);
    qt.out.len -= n;
}

static PRINTF_LIKE(1, 2) void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&qt.lock);
    str_vprintf(&qt.out, fmt, ap);
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

static unsigned size_of_suffix(const char *name, const char *verb)
{
    size_t n = strlen(verb);
    const char *at = !strncmp(name, verb, n) && name[n] && !name[n + 1] ? strchr("bwlq", name[n]) : NULL;
    return at ? 1u << (at - "bwlq") : 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

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

static void cmd_intercept(char **w)
{
    struct irq_bank *b = irq_bank_find(w[1]);
    if (!b) {
        say("FAIL Unknown device");
        return;
    }
    atomic_store(&b->watch, on_irq);
    say("OK");
}

static void run_line(char *line)
{
    char *w[WORDS_MAX + 1] = { NULL }, *save = NULL;
    int n = 0;
    for (char *t = strtok_r(line, " \t\r", &save); t && n < WORDS_MAX; t = strtok_r(NULL, " \t\r", &save))
        w[n++] = t;
    unsigned wr = n == 3 ? size_of_suffix(w[0], "write") : 0, rd = n == 2 ? size_of_suffix(w[0], "read") : 0;
    if (!n)
        return;
    if (wr)
        cmd_word_write(w, wr);
    else if (rd)
        cmd_word_read(w, rd);
    else if (n == 3 && !strcmp(w[0], "read"))
        cmd_read(w);
    else if (n == 4 && !strcmp(w[0], "write"))
        cmd_write(w);
    else if (n == 4 && !strcmp(w[0], "memset"))
        cmd_memset(w);
    else if (n <= 2 && !strcmp(w[0], "clock_step"))
        cmd_clock_step(w);
    else if (n == 2 && !strcmp(w[0], "clock_set"))
        cmd_clock_set(w);
    else if (n == 2 && !strcmp(w[0], "irq_intercept_in"))
        cmd_intercept(w);
    else if (n == 1 && !strcmp(w[0], "endianness"))
        say("OK little");
    else
        say("FAIL Unknown command '%.60s'", w[0]);
}

/* ---- input ---- */

static size_t on_can_read(void *arg) { return 4096; }

static void on_read(void *arg, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (buf[i] == '\n') {
            str_addn(&qt.in, "", 1);
            run_line(qt.in.s);
            qt.in.len = 0;
        } else if (qt.in.len < LINE_MAX_BYTES) {
            str_addn(&qt.in, &buf[i], 1);
        }
    }
}

/* The program that tests has gone: nothing of its session stays. */
static void on_event(void *arg, enum chr_event ev)
{
    if (ev == CHR_CLOSED)
        qt.in.len = 0;
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
    if (!strcmp(arg, "none") || !strcmp(arg, "/dev/null"))
        return true;
    err_set(e, ERR_NOT_BUILT, "a log of the test interface is not in this build");
    return err_hint(e, "only 'none' and '/dev/null' are");
}

static void end_qtest(void)
{
    chr_disconnect(&qt.front);
    str_free(&qt.in);
    str_free(&qt.out);
}
static const struct run_end qtest_end = { "qtest", RUN_END_MONITORS, end_qtest };
RUN_END(&qtest_end);

static const struct cli_opt opts[] = {
    { "qtest", "CHARDEV", "a test drives buses and clock (with -accel qtest)", "Debug", CLI_MONITOR, apply_qtest },
    { "qtest-log", "none", "no log of what a test does", "Debug", CLI_EARLY, apply_qtest_log },
};
CLI_OPT(&opts[0]);
CLI_OPT(&opts[1]);
