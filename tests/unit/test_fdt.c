/* SPDX-License-Identifier: MIT */
/* The device tree of the virt board: against a reading of the board itself, and node by node against QEMU's where it is installed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "loop/loop.h"
#include "machine/virt.h"
#include "mem/view.h"

static void *tree;

static struct virt *build(const char *json)
{
    static bool once;
    struct err e = ERR_INIT;
    json_error_t je;
    if (!once && !loop_main_init(&e))
        fail_msg("%s", e.msg);
    once = true;
    json_t *o = json_loads(json, 0, &je);
    assert_non_null(o);
    struct machine *m = machine_create(o, &e);
    json_decref(o);
    if (!m)
        fail_msg("%s", e.msg);
    uint32_t size;
    tree = virt_fdt(VIRT(m), 0, 0, &size, &e);
    assert_non_null(tree);
    assert_int_equal(fdt_check_full(tree, size), 0);
    return VIRT(m);
}

static void end(void)
{
    free(tree);
    machine_destroy();
}

static uint32_t cell(const void *t, const char *path, const char *name, int i)
{
    int len, at = fdt_path_offset(t, path);
    const uint32_t *p = at < 0 ? NULL : fdt_getprop(t, at, name, &len);
    if (!p || len < (i + 1) * 4)
        fail_msg("%s has no %s[%d]", path, name, i);
    return fdt32_to_cpu(p[i]);
}

/* Every register window that the tree tells of is really there. */
static void test_windows_exist(void **state)
{
    struct virt *v = build("{\"type\": \"virt\", \"accel\": \"qtest\", \"smp\": {\"cpus\": \"3\"}}");
    int n = 0;
    for (int at = fdt_next_node(tree, -1, NULL); at >= 0; at = fdt_next_node(tree, at, NULL)) {
        int len;
        const char *name = fdt_get_name(tree, at, NULL);
        const uint32_t *reg = fdt_getprop(tree, at, "reg", &len);
        if (!reg || len < 16 || !strncmp(name, "pci@", 4))
            continue;
        for (int i = 0; i + 4 <= len / 4; i += 4) {
            uint64_t base = (uint64_t)fdt32_to_cpu(reg[i]) << 32 | fdt32_to_cpu(reg[i + 1]);
            rcu_read_lock();
            if (!view_lookup(view_get(&as_memory), base))
                fail_msg("%s: nothing at 0x%llx", name, (unsigned long long)base);
            rcu_read_unlock();
            n++;
        }
    }
    assert_true(n >= 8);
    assert_int_equal(cell(tree, "/cpus/cpu@2", "reg", 0), 2);
    assert_int_equal(cell(tree, "/cpus", "timebase-frequency", 0), 10000000);
    assert_int_equal(v->m.ram_size, 128 * MiB);
    end();
}

/* What guests depend on; phandles are compared by what they point to. */
static const struct { const char *path, *prop; bool handles; } same[] = {
    { "/", "compatible", 0 }, { "/", "#address-cells", 0 }, { "/", "#size-cells", 0 }, { "/memory@80000000", "reg", 0 },
    { "/cpus", "timebase-frequency", 0 }, { "/cpus/cpu@1", "compatible", 0 }, { "/cpus/cpu@1/interrupt-controller", "#interrupt-cells", 0 },
    { "/chosen", "stdout-path", 0 }, { "/poweroff", "value", 0 }, { "/poweroff", "offset", 0 }, { "/poweroff", "compatible", 0 },
    { "/reboot", "value", 0 }, { "/reboot", "compatible", 0 }, { "/fw-cfg@10100000", "compatible", 0 }, { "/fw-cfg@10100000", "reg", 0 },
    { "/flash@20000000", "reg", 0 }, { "/flash@20000000", "bank-width", 0 },
    { "/soc/serial@10000000", "compatible", 0 }, { "/soc/serial@10000000", "reg", 0 }, { "/soc/serial@10000000", "interrupts", 0 },
    { "/soc/serial@10000000", "clock-frequency", 0 }, { "/soc/serial@10000000", "interrupt-parent", 1 },
    { "/soc/rtc@101000", "compatible", 0 }, { "/soc/rtc@101000", "reg", 0 }, { "/soc/rtc@101000", "interrupts", 0 },
    { "/soc/test@100000", "compatible", 0 }, { "/soc/test@100000", "reg", 0 },
    { "/soc/clint@2000000", "compatible", 0 }, { "/soc/clint@2000000", "reg", 0 },
    { "/soc/plic@c000000", "compatible", 0 }, { "/soc/plic@c000000", "reg", 0 }, { "/soc/plic@c000000", "riscv,ndev", 0 },
    { "/soc/aplic@c000000", "reg", 0 }, { "/soc/aplic@d000000", "reg", 0 }, { "/soc/aplic@d000000", "riscv,num-sources", 0 },
    { "/soc/aplic@d000000", "#interrupt-cells", 0 }, { "/soc/aplic@d000000", "msi-parent", 1 }, { "/soc/imsics@28000000", "reg", 0 },
    { "/soc/imsics@28000000", "riscv,num-ids", 0 }, { "/soc/imsics@24000000", "reg", 0 },
    { "/soc/mtimer@2004000", "reg", 0 }, { "/soc/mswi@2000000", "reg", 0 }, { "/soc/sswi@2f00000", "reg", 0 },
    { "/soc/virtio_mmio@10001000", "reg", 0 }, { "/soc/virtio_mmio@10001000", "interrupts", 0 },
    { "/soc/virtio_mmio@10008000", "reg", 0 }, { "/soc/virtio_mmio@10008000", "interrupts", 0 },
    { "/soc/pci@30000000", "compatible", 0 }, { "/soc/pci@30000000", "reg", 0 }, { "/soc/pci@30000000", "ranges", 0 },
    { "/soc/pci@30000000", "bus-range", 0 }, { "/soc/pci@30000000", "interrupt-map-mask", 0 },
};

static void compare(const void *theirs, const char *path, const char *prop, bool handles)
{
    int a = fdt_path_offset(theirs, path), b = fdt_path_offset(tree, path), an, bn;
    const void *av = a < 0 ? NULL : fdt_getprop(theirs, a, prop, &an);
    if (!av)
        return;                             /* a board with other options */
    /* Slots and host bridge are there in builds that have them. */
    if (b < 0 && (strstr(path, "virtio_mmio") || strstr(path, "/pci@")))
        return;
    const void *bv = b < 0 ? NULL : fdt_getprop(tree, b, prop, &bn);
    if (!bv)
        fail_msg("no %s in %s", prop, path);
    if (handles) {
        char pa[80], pb[80];
        fdt_get_path(theirs, fdt_node_offset_by_phandle(theirs, fdt32_to_cpu(*(const uint32_t *)av)), pa, sizeof pa);
        fdt_get_path(tree, fdt_node_offset_by_phandle(tree, fdt32_to_cpu(*(const uint32_t *)bv)), pb, sizeof pb);
        if (strcmp(pa, pb))
            fail_msg("%s of %s is %s, not %s", prop, path, pb, pa);
    } else if (an != bn || memcmp(av, bv, (size_t)an)) {
        fail_msg("%s of %s differs", prop, path);
    }
}

static void against_qemu(const char *opts, const char *json)
{
    char cmd[256], file[] = "/tmp/fdt-XXXXXX";
    static uint8_t theirs[256 * 1024];
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    snprintf(cmd, sizeof cmd, "qemu-system-riscv64 -M virt,dumpdtb=%s%s -smp 2 -m 1G -display none 2>/dev/null </dev/null", file, opts);
    int status = system(cmd);
    close(fd);
    fd = open(file, O_RDONLY);              /* it is written as a new file of that name */
    ssize_t n = fd < 0 ? -1 : read(fd, theirs, sizeof theirs);
    close(fd);
    unlink(file);
    if (status || n <= 0)
        skip();                             /* not installed */
    build(json);
    for (size_t i = 0; i < ARRAY_SIZE(same); i++)
        compare(theirs, same[i].path, same[i].prop, same[i].handles);
    end();
}

/* Firmware in M mode is shown the machine level too, as QEMU shows it. */
#define BOARD(extra) "{\"type\": \"virt\", \"accel\": \"qtest\", \"firmware\": \"none\", \"smp\": {\"cpus\": \"2\"}, \"memory\": {\"size\": \"1G\"}" extra "}"

static void test_qemu_plic(void **state)
{
    against_qemu("", BOARD(""));
}

static void test_qemu_aplic(void **state)
{
    against_qemu(",aia=aplic,aclint=on", BOARD(", \"aia\": \"aplic\", \"aclint\": true"));
}

static void test_qemu_imsic(void **state)
{
    against_qemu(",aia=aplic-imsic", BOARD(", \"aia\": \"aplic-imsic\""));
}

int main(void)
{
    if (!machine_class_find("virt"))
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_exist), cmocka_unit_test(test_qemu_plic), cmocka_unit_test(test_qemu_aplic),
        cmocka_unit_test(test_qemu_imsic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
