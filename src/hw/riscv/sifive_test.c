/* SPDX-License-Identifier: MIT */
/*
 * The test finisher of SiFive's boards, which the device tree calls a syscon: one register whose low half ends the machine
 * (0x5555 power off, 0x3333 power off with the exit status in the high half) or resets it (0x7777).
 */
#include "base/log.h"
#include "core/run.h"
#include "pci/sysdev.h"

enum { FINISH_FAIL = 0x3333, FINISH_PASS = 0x5555, FINISH_RESET = 0x7777, FINISH_SIZE = 0x1000 };

struct finisher {
    struct sys_dev sys;
    struct region mmio;
};

static uint64_t finisher_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;
}

static void finisher_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    unsigned status = v & 0xffff, code = v >> 16 & 0xffff;
    if (off != 0) {
        log_guest("test device: write to offset 0x%llx", (unsigned long long)off);
        return;
    }
    switch (status) {
    case FINISH_FAIL:
        run_request_shutdown(CAUSE_GUEST_SHUTDOWN, (int)code);
        break;
    case FINISH_PASS:
        run_request_shutdown(CAUSE_GUEST_SHUTDOWN, 0);
        break;
    case FINISH_RESET:
        run_request_reset(CAUSE_GUEST_RESET);
        break;
    default:
        log_guest("test device: unknown status 0x%x", status);
    }
}

static const struct mmio_ops finisher_ops = { .read = finisher_read, .write = finisher_write, .min = 2, .max = 4,
                                              .valid_min = 2, .valid_max = 4, .lockless = true };

static bool finisher_realize(struct dev *d, struct err *e)
{
    struct finisher *f = (struct finisher *)d;
    region_init_mmio(&f->mmio, "riscv.sifive.test", FINISH_SIZE, &finisher_ops, f, d->dom);
    sys_dev_mmio_add(&f->sys, &f->mmio);
    return true;
}

static void finisher_unrealize(struct dev *d)
{
    struct finisher *f = (struct finisher *)d;
    region_fini(&f->mmio);
    sys_dev_mmio_forget(&f->sys);
}

static const struct dev_class finisher_class = {
    .obj = { .name = "riscv.sifive.test", .desc = "Power-off and reset register", .base = &sys_dev_class.obj,
             .size = sizeof(struct finisher), .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = finisher_realize, .unrealize = finisher_unrealize,
    .state_none = "a write-only register that acts at once",
};
OBJ_CLASS(&finisher_class.obj);
