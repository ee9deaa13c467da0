/* SPDX-License-Identifier: MIT */
/* Devices of the `virt` board other than interrupt controllers. */
#include "machine/virt.h"

#include "core/flags.h"
#include "machine/machine_int.h"

static bool uart_build(struct virt *v, struct err *e)
{
    struct obj *chr = machine_serial(0);
    const char *const opts[][2] = { { chr ? "chardev" : NULL, chr ? chr->id : NULL }, { NULL, NULL } };
    struct irq line = virt_irq(v, VIRT_IRQ_UART);
    v->uart = virt_dev(v, "serial-mm", opts, &line, 1, virt_map[VIRT_UART].base, e);
    return v->uart || err_prefix(e, "-serial");
}

static bool rtc_build(struct virt *v, struct err *e)
{
    const char *clock;
    int64_t base;
    char text[24];
    if (!machine_rtc(&clock, &base, e))
        return false;
    snprintf(text, sizeof text, "%lld", (long long)base);
    const char *const opts[][2] = { { "clock", clock }, { "base", text }, { NULL, NULL } };
    struct irq line = virt_irq(v, VIRT_IRQ_RTC);
    return virt_dev(v, "goldfish_rtc", opts, &line, 1, virt_map[VIRT_RTC].base, e) != NULL;
}

static bool virtio_build(struct virt *v, struct err *e)
{
    if (!obj_class_find("virtio-mmio"))
        return true;
    for (unsigned i = 0; i < VIRT_VIRTIO_SLOTS; i++) {
        /* Under QEMU's defaults slots are filled from the last, so the bus that is found first is the last slot's. */
        unsigned slot = cli_flags.compat_qemu ? VIRT_VIRTIO_SLOTS - 1 - i : i;
        char text[12];
        snprintf(text, sizeof text, "%u", slot);
        const char *const opts[][2] = { { "slot", text }, { NULL, NULL } };
        struct irq line = virt_irq(v, VIRT_IRQ_VIRTIO + slot);
        v->virtio[slot] = virt_dev(v, "virtio-mmio", opts, &line, 1,
                                   virt_map[VIRT_VIRTIO].base + slot * virt_map[VIRT_VIRTIO].size, e);
        if (!v->virtio[slot])
            return false;
    }
    return true;
}

bool virt_devices_build(struct virt *v, struct err *e)
{
    return virt_dev(v, "riscv.sifive.test", NULL, NULL, 0, virt_map[VIRT_TEST].base, e) && uart_build(v, e) &&
           rtc_build(v, e) && virtio_build(v, e);
}
