/* SPDX-License-Identifier: MIT */
/* Options of -accel jit, and the map that perf(1) reads. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/str.h"
#include "cpu/riscv/jit_int.h"

struct jit_options jit_options = { .cache = 256u << 20, .insns = JIT_INSNS, .threshold = 4 };

static FILE *map;                           /* one for all harts: a line is written with one call */

static bool set_cache(const char *value, struct err *e)
{
    uint64_t v;
    if (!parse_size(value, 1u << 20, &v) || v < (1u << 20) || v > (256u << 20))
        return err_set(e, ERR_VALUE, "'%s' is no size from 1M to 256M", value);
    jit_options.cache = (size_t)align_up(v, 1u << 12);
    return true;
}

static bool set_flag(const char *value, bool *flag, struct err *e)
{
    return parse_bool(value, flag) || err_set(e, ERR_VALUE, "'%s' is neither on nor off", value);
}

static bool set_perf(const char *value, struct err *e)
{
    char name[64];
    bool on;
    if (!set_flag(value, &on, e))
        return false;
    if (!on || map)
        return true;
    snprintf(name, sizeof name, "/tmp/perf-%d.map", (int)getpid());
    map = fopen(name, "we");
    if (!map)
        return err_os(e, errno, "%s", name);
    setvbuf(map, NULL, _IOLBF, 4096);
    return true;
}

static bool set_check(const char *value, struct err *e) { return set_flag(value, &jit_options.check, e); }
static bool set_stats(const char *value, struct err *e) { return set_flag(value, &jit_options.stats, e); }

static bool set_block(const char *value, struct err *e)
{
    uint64_t v;
    if (!parse_u64(value, &v) || v < 1 || v > JIT_INSNS)
        return err_set(e, ERR_VALUE, "'%s' is no number from 1 to %u", value, JIT_INSNS);
    jit_options.insns = (unsigned)v;
    return true;
}

static bool set_threshold(const char *value, struct err *e)
{
    uint64_t v;
    if (!parse_u64(value, &v) || v > UINT16_MAX)
        return err_set(e, ERR_VALUE, "'%s' is no number from 0 to %u", value, UINT16_MAX);
    jit_options.threshold = (unsigned)v;
    return true;
}

const struct accel_option jit_option_rows[] = {
    { "block", "Instructions translated together, at most (default 64)", set_block },
    { "cache", "Translated code of each hart, at most (default 256M, less with three harts or more); what does not fit is translated again", set_cache },
    { "check", "on: blocks are run on the interpreter, too, and the program ends where they differ (one CPU)", set_check },
    { "perf", "on: names translated blocks for perf(1), in /tmp/perf-PID.map", set_perf },
    { "stats", "on: prints at the end what was translated, and the time it took", set_stats },
    { "threshold", "Times that code is interpreted before it is translated (default 4)", set_threshold },
    { NULL, NULL, NULL },
};

void jit_perf_block(const struct jit *j, uint32_t n, uint32_t from, size_t len)
{
    const struct jit_block *b = &j->block[n];
    if (map)
        fprintf(map, "%x %zx rv%u-%" PRIx64 "-%" PRIu64 "\n", from, len, j->h->index, b->key & ((UINT64_C(1) << 56) - 2), b->key >> 60);
}
