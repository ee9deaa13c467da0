/* SPDX-License-Identifier: MIT */
/* Commands of the monitor for a person that look into CPUs and memory. */
#include "ctl/hmp.h"

#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "core/debug.h"
#include "core/run.h"
#include "mem/view.h"

/* Runs @fn with the CPUs standing. */
static void standing(void (*fn)(unsigned cpu, struct str *), unsigned from, unsigned to, struct str *out)
{
    bool ran = run_is_running();
    if (ran)
        debug_ops->freeze(true);
    for (unsigned i = from; i < to; i++) {
        if (to - from > 1)
            str_printf(out, "CPU#%u\n", i);
        fn(i, out);
    }
    if (ran)
        debug_ops->freeze(false);
}

static bool have_cpu(struct str *out)
{
    if (debug_ops && hmp_cpu >= debug_ops->n_cpus())
        hmp_cpu = 0;
    if (!debug_ops)
        str_add(out, "Error: this machine has no CPU that runs\n");
    return debug_ops;
}

static void info_registers(const char *arg, struct str *out)
{
    bool all = !strcmp(arg, "-a");
    if (*arg && !all)
        str_add(out, "Error: usage: info registers [-a]\n");
    else if (have_cpu(out))
        standing(debug_ops->show_regs, all ? 0 : hmp_cpu, all ? debug_ops->n_cpus() : hmp_cpu + 1, out);
}

static void info_mem(const char *arg, struct str *out)
{
    if (have_cpu(out))
        standing(debug_ops->show_tlb, hmp_cpu, hmp_cpu + 1, out);
}

static void info_jit(const char *arg, struct str *out)
{
    if (have_cpu(out))
        standing(debug_ops->show_counters, hmp_cpu, hmp_cpu + 1, out);
}

static void info_cpus(const char *arg, struct str *out)
{
    if (have_cpu(out))
        for (unsigned i = 0; i < debug_ops->n_cpus(); i++)
            str_printf(out, "%c CPU #%u: thread_id=%d\n", i == hmp_cpu ? '*' : ' ', i, debug_ops->thread_id(i));
}

static void run_cpu(const char *arg, struct str *out)
{
    uint64_t n;
    if (!have_cpu(out))
        return;
    if (!parse_u64(arg, &n) || n >= debug_ops->n_cpus())
        str_printf(out, "Error: there are CPUs 0 to %u\n", debug_ops->n_cpus() - 1);
    else
        hmp_cpu = (unsigned)n;
}

/* ---- memory dumps ---- */

struct format { unsigned count, size; char kind; };

/* "/4xw": count, kind, size of an item; what is not said keeps its value. Moves @s past it and the blanks behind it. */
static bool parse_format(const char **s, struct format *f)
{
    if (**s == '/') {
        char *end;
        f->count = (unsigned)MIN(strtoul(*s + 1, &end, 10), 4096ul);
        f->count = f->count ? f->count : 1;
        for (*s = end; **s && **s != ' '; ++*s) {
            const char *at = strchr("bhwg", **s);
            if (at)
                f->size = 1u << (at - "bhwg");
            else if (strchr("xduoci", **s))
                f->kind = **s;
            else
                return false;
        }
    }
    *s += strspn(*s, " ");
    return true;
}

static bool fetch(uint64_t addr, bool phys, uint8_t *buf, unsigned size)
{
    for (unsigned i = 0; i < size;) {
        uint64_t pa = addr + i, len = MIN(size - i, 4096 - (pa & 4095));
        if ((!phys && !debug_ops->translate(hmp_cpu, addr + i, &pa)) || !as_read_bytes(&as_memory, pa, buf + i, len))
            return false;
        i += (unsigned)len;
    }
    return true;
}

static void put_item(const struct format *f, uint64_t v, struct str *out)
{
    unsigned unused = 64 - 8 * f->size;
    switch (f->kind) {
    case 'd': str_printf(out, " %lld", (long long)((int64_t)(v << unused) >> unused)); break;
    case 'u': str_printf(out, " %llu", (unsigned long long)v); break;
    case 'o': str_printf(out, " 0%llo", (unsigned long long)v); break;
    case 'c': str_printf(out, v >= ' ' && v < 127 ? " '%c'" : " '\\x%02x'", (int)(v & 0xff)); break;
    default: str_printf(out, " 0x%0*llx", (int)f->size * 2, (unsigned long long)v); break;
    }
}

static bool dump_insn(uint64_t *addr, bool phys, struct str *out)
{
    uint8_t b[4] = { 0 };
    struct str text = { 0 };
    unsigned have = fetch(*addr, phys, b, 4) ? 4 : fetch(*addr, phys, b, 2) ? 2 : 0, n = debug_ops->disas(*addr, b, have, &text);
    if (n)
        str_printf(out, "0x%016llx:  %0*x  %s\n", (unsigned long long)*addr, (int)n * 2, n == 4 ? ld_le32(b) : ld_le16(b), text.s);
    str_free(&text);
    *addr += n;
    return n;
}

static void dump_all(struct format f, uint64_t addr, bool phys, struct str *out)
{
    unsigned per_line = MAX(16 / f.size, 1u);
    for (unsigned i = 0; i < f.count; i++) {
        uint8_t b[8] = { 0 };
        if (f.kind == 'i' ? !dump_insn(&addr, phys, out) : !fetch(addr, phys, b, f.size)) {
            str_printf(out, "%sCannot access memory at 0x%llx\n", f.kind != 'i' && i % per_line ? "\n" : "", (unsigned long long)addr);
            return;
        }
        if (f.kind == 'i')
            continue;
        if (i % per_line == 0)
            str_printf(out, "%016llx:", (unsigned long long)addr);
        put_item(&f, ld_le(b, f.size), out);
        if (i % per_line == per_line - 1 || i + 1 == f.count)
            str_add(out, "\n");
        addr += f.size;
    }
}

static void dump(const char *arg, bool phys, struct str *out)
{
    struct format f = { 1, 4, 'x' };
    uint64_t addr = 0;
    bool ok = parse_format(&arg, &f);
    if ((!phys || f.kind == 'i') && !have_cpu(out))
        return;
    bool freeze = !phys && run_is_running();
    if (freeze)
        debug_ops->freeze(true);
    if (!ok)
        str_add(out, "Error: usage: /COUNT[xduoci][bhwg] ADDRESS\n");
    else if (hmp_value(arg, &addr, out))
        dump_all(f, addr, phys, out);
    if (freeze)
        debug_ops->freeze(false);
}
static void run_x(const char *arg, struct str *out) { dump(arg, false, out); }
static void run_xp(const char *arg, struct str *out) { dump(arg, true, out); }

/* ---- values and addresses ---- */

static void run_print(const char *arg, struct str *out)
{
    struct format f = { 1, 8, 'x' };
    uint64_t v;
    if (!parse_format(&arg, &f) || f.kind == 'i')
        str_add(out, "Error: usage: print /[xduoc] VALUE\n");
    else if (hmp_value(arg, &v, out)) {
        struct str text = { 0 };
        put_item(&f, v, &text);
        str_printf(out, "%s\n", text.s + 1);
        str_free(&text);
    }
}

static void run_gva2gpa(const char *arg, struct str *out)
{
    uint64_t va, pa;
    if (!have_cpu(out) || !hmp_value(arg, &va, out))
        return;
    if (debug_ops->translate(hmp_cpu, va, &pa))
        str_printf(out, "gpa: 0x%llx\n", (unsigned long long)pa);
    else
        str_add(out, "Unmapped\n");
}

static void run_gpa2hva(const char *arg, struct str *out)
{
    uint64_t pa;
    if (!hmp_value(arg, &pa, out))
        return;
    rcu_read_lock();
    const struct view_range *r = view_lookup(view_get(&as_memory), pa);
    if (r && r->host)
        str_printf(out, "Host virtual address for 0x%llx (%s) is %p\n", (unsigned long long)pa, r->region->name, (void *)(r->host + (pa - r->start)));
    else
        str_printf(out, "Error: %s at address 0x%llx\n", r ? "Memory is not RAM" : "No memory is mapped", (unsigned long long)pa);
    rcu_read_unlock();
}

/* The sum that sum(1) of BSD makes. */
static void run_sum(const char *arg, struct str *out)
{
    uint64_t at, n;
    char *first = opt_next_word(&arg), *second = opt_next_word(&arg);
    if (first && second && hmp_value(first, &at, out) && hmp_value(second, &n, out)) {
        uint16_t sum = 0;
        for (uint64_t i = 0; i < MIN(n, (uint64_t)1 << 24); i++) {
            uint64_t byte = 0;
            if (!as_read(&as_memory, at + i, &byte, 1))
                byte = 0xff;
            sum = (uint16_t)((sum >> 1) | (sum << 15));
            sum = (uint16_t)(sum + byte);
        }
        str_printf(out, "%05d\n", sum);
    } else if (!second) {
        str_add(out, "Error: usage: sum ADDR SIZE\n");
    }
    free(first);
    free(second);
}

static const struct hmp_cmd rows[] = {
    { "x", "", "/FMT ADDR", "dump memory as the CPU addresses it", run_x },
    { "xp", "", "/FMT ADDR", "dump physical memory", run_xp },
    { "cpu", "", "N", "look at CPU N from now on", run_cpu },
    { "print", "p", "/FMT VALUE", "a number, $REGISTER, or what + - * / % & | ^ ~ and ( ) make of them", run_print },
    { "gva2gpa", "", "ADDR", "the physical address that the CPU makes of an address", run_gva2gpa },
    { "gpa2hva", "", "ADDR", "where RAM at a physical address is in this process", run_gpa2hva },
    { "sum", "", "ADDR SIZE", "a sum over physical memory, at most 16 MiB", run_sum },
    { "i", "", "/FMT PORT", "", .absent = "RISC-V has no I/O ports; xp reads registers of devices" },
    { "o", "", "/FMT PORT VALUE", "", .absent = "RISC-V has no I/O ports" },
    { "info registers", "", "[-a]", "the CPU's registers (-a: of all CPUs)", info_registers },
    { "info cpus", "", "", "the CPUs and their host threads", info_cpus },
    { "info mem", "", "", "the address space that the CPU's page tables make", info_mem },
    { "info tlb", "", "", "the same", info_mem },
    { "info jit", "", "", "what the CPU has done so far, and what was translated for it", info_jit },
};
#define ROW(i) HMP_CMD(&rows[i])
ROW(0); ROW(1); ROW(2); ROW(3); ROW(4); ROW(5); ROW(6); ROW(7); ROW(8); ROW(9); ROW(10); ROW(11); ROW(12); ROW(13);
