/* SPDX-License-Identifier: MIT */
/*
 * Goldfish real-time clock (Android's GOLDFISH-VIRTUAL-HARDWARE document, "Goldfish timer"): nanoseconds since the epoch
 * in two registers, one alarm, one interrupt.
 */
#include "base/log.h"
#include "loop/loop.h"
#include "pci/sysdev.h"

enum { RTC_TIME_LOW = 0x00, RTC_TIME_HIGH = 0x04, RTC_ALARM_LOW = 0x08, RTC_ALARM_HIGH = 0x0c, RTC_IRQ_ENABLED = 0x10,
       RTC_CLEAR_ALARM = 0x14, RTC_ALARM_STATUS = 0x18, RTC_CLEAR_INTERRUPT = 0x1c, RTC_SIZE = 0x24 };
static const char *const rtc_clock_names[] = { "host", "vm", "rt", NULL };

struct goldfish_rtc {
    struct sys_dev sys;
    int clock;                      /* options */
    int64_t base;
    int64_t offset;                 /* what the guest set: added to clock and base */
    uint64_t alarm;                 /* in guest time */
    uint32_t latched_high, alarm_high, time_high;
    uint8_t alarm_on, irq_pending, irq_enabled;
    struct region mmio;
    struct timer timer;
};

static enum clock_id rtc_clock(const struct goldfish_rtc *r)
{
    return r->clock == 0 ? CLOCK_WALL : r->clock == 1 ? CLOCK_VM : CLOCK_HOST;
}

static uint64_t rtc_now(const struct goldfish_rtc *r)
{
    return (uint64_t)clock_now(rtc_clock(r)) + (uint64_t)r->base + (uint64_t)r->offset;
}

static void rtc_update_irq(struct goldfish_rtc *r)
{
    sys_dev_irq(&r->sys, 0, r->irq_pending & r->irq_enabled);
}

static void rtc_arm(struct goldfish_rtc *r)
{
    int64_t at = (int64_t)(r->alarm - (uint64_t)r->base - (uint64_t)r->offset);
    timer_arm(&r->timer, r->alarm_on && at >= 0 ? at : INT64_MAX);
}

static void rtc_fired(void *arg)
{
    struct goldfish_rtc *r = arg;
    if (!r->alarm_on)
        return;
    r->alarm_on = 0;
    r->irq_pending = 1;
    rtc_update_irq(r);
}

/* An alarm in the past rings at once. */
static void rtc_set_alarm(struct goldfish_rtc *r, uint32_t low)
{
    r->alarm = (uint64_t)r->alarm_high << 32 | low;
    r->alarm_on = 1;
    if (r->alarm <= rtc_now(r)) {
        timer_disarm(&r->timer);
        rtc_fired(r);
    } else {
        rtc_arm(r);
    }
}

static uint64_t rtc_read(void *opaque, uint64_t off, unsigned size)
{
    struct goldfish_rtc *r = opaque;
    uint64_t now;
    switch (off) {
    case RTC_TIME_LOW:
        now = rtc_now(r);
        r->latched_high = now >> 32;
        return now & UINT32_MAX;
    case RTC_TIME_HIGH:
        return r->latched_high;
    case RTC_ALARM_LOW:
        return r->alarm & UINT32_MAX;
    case RTC_ALARM_HIGH:
        return r->alarm >> 32;
    case RTC_IRQ_ENABLED:
        return r->irq_enabled;
    case RTC_ALARM_STATUS:
        return r->alarm_on;
    default:
        log_guest("goldfish rtc: read of offset 0x%llx", (unsigned long long)off);
        return 0;
    }
}

static void rtc_write(void *opaque, uint64_t off, uint64_t v, unsigned size)
{
    struct goldfish_rtc *r = opaque;
    switch (off) {
    case RTC_TIME_HIGH:
        r->time_high = v;
        break;
    case RTC_TIME_LOW:      /* the high half was written before */
        r->offset += (int64_t)(((uint64_t)r->time_high << 32 | (uint32_t)v) - rtc_now(r));
        rtc_arm(r);
        break;
    case RTC_ALARM_LOW:
        rtc_set_alarm(r, v);
        break;
    case RTC_ALARM_HIGH:
        r->alarm_high = v;
        break;
    case RTC_IRQ_ENABLED:
        r->irq_enabled = v & 1;
        rtc_update_irq(r);
        break;
    case RTC_CLEAR_ALARM:
        r->alarm_on = 0;
        timer_disarm(&r->timer);
        break;
    case RTC_CLEAR_INTERRUPT:
        r->irq_pending = 0;
        rtc_update_irq(r);
        break;
    default:
        log_guest("goldfish rtc: write to offset 0x%llx", (unsigned long long)off);
    }
}

static const struct mmio_ops rtc_ops = { .read = rtc_read, .write = rtc_write, .min = 4, .max = 4, .valid_min = 4,
                                         .valid_max = 4 };

static void rtc_reset(struct dev *d, enum reset_kind k)
{
    struct goldfish_rtc *r = (struct goldfish_rtc *)d;
    timer_disarm(&r->timer);
    r->alarm = 0;
    r->latched_high = r->alarm_high = r->time_high = 0;
    r->alarm_on = r->irq_pending = r->irq_enabled = 0;
    if (k == RESET_COLD)
        r->offset = 0;
}

static void rtc_reset_out(struct dev *d)
{
    rtc_update_irq((struct goldfish_rtc *)d);
}

static bool rtc_realize(struct dev *d, struct err *e)
{
    struct goldfish_rtc *r = (struct goldfish_rtc *)d;
    timer_init(&r->timer, rtc_clock(r), NULL, d->dom, rtc_fired, r);
    region_init_mmio(&r->mmio, "goldfish_rtc", RTC_SIZE, &rtc_ops, r, d->dom);
    sys_dev_mmio_add(&r->sys, &r->mmio);
    return true;
}

static void rtc_unrealize(struct dev *d)
{
    struct goldfish_rtc *r = (struct goldfish_rtc *)d;
    region_fini(&r->mmio);
    sys_dev_mmio_forget(&r->sys);
    timer_fini(&r->timer);
}

static bool rtc_post_load(void *obj, struct err *e)
{
    rtc_arm(obj);
    rtc_update_irq(obj);
    return true;
}

static const struct state_field rtc_fields[] = {
    STATE_SYS(struct goldfish_rtc), STATE_SKIP(struct goldfish_rtc, clock, "option"),
    STATE_SKIP(struct goldfish_rtc, base, "option"), ST_(ST_S64, struct goldfish_rtc, offset),
    STATE_UINT(struct goldfish_rtc, alarm), STATE_UINT(struct goldfish_rtc, latched_high),
    STATE_UINT(struct goldfish_rtc, alarm_high), STATE_UINT(struct goldfish_rtc, time_high),
    STATE_UINT(struct goldfish_rtc, alarm_on, .max = 1), STATE_UINT(struct goldfish_rtc, irq_pending, .max = 1),
    STATE_UINT(struct goldfish_rtc, irq_enabled, .max = 1), STATE_SKIP(struct goldfish_rtc, mmio, "host side"),
    STATE_SKIP(struct goldfish_rtc, timer, "armed from the alarm"), STATE_END,
};
static const struct state_desc rtc_state = { .name = "goldfish_rtc", .version = 1, .fields = rtc_fields,
                                             .post_load = rtc_post_load };
static const struct prop rtc_props[] = {
    PROP_ENUM(struct goldfish_rtc, clock, "clock", rtc_clock_names, 0, "Clock that drives it"),
    PROP_S64(struct goldfish_rtc, base, "base", 0, INT64_MIN, INT64_MAX, "Nanoseconds added to the clock's time"),
    PROP_END,
};
static const struct dev_class rtc_class = {
    .obj = { .name = "goldfish_rtc", .desc = "Goldfish real-time clock", .base = &sys_dev_class.obj,
             .size = sizeof(struct goldfish_rtc), .props = rtc_props, .flags = OCF_INTERNAL },
    .cat = "Misc", .realize = rtc_realize, .unrealize = rtc_unrealize, .reset = rtc_reset, .reset_out = rtc_reset_out,
    .state = &rtc_state,
};
OBJ_CLASS(&rtc_class.obj);
