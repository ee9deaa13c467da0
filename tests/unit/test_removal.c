/* SPDX-License-Identifier: MIT */
/*
 * A disk that is taken away just when the machine goes on: what waited for that is not begun on a device that is gone a moment later.
 * At home on the main loop, and on a thread of its own.
 */
#include "virtio_drv.h"
#include "probe_disk.h"
#include <errno.h>
#include "core/run.h"
#include "hw/virtio/virtio_blk.h"

static struct dev *disk;

static void open_on(struct loop *home)
{
    struct err e = ERR_INIT;
    struct dev *d = dev_new((const struct dev_class *)obj_class_find("virtio-mmio"), NULL, NULL, &e);

    assert_non_null(d);
    d->home = home;
    if (!dev_realize(d, &e))
        fail_msg("%s", e.msg);
    vd_slot = (struct sys_dev *)d;
    sys_dev_map(vd_slot, 0, &hw_root, HW_DEV);
    memset(vdq, 0, sizeof vdq);
    probe_fill();
    sd_node("disk", "");
    disk = vd_dev("{'driver':'virtio-blk-device','id':'d','drive':'disk','werror':'stop'}");
    dev_reset_tree(d, RESET_COLD);
    vd_start(0, 1);
}

static bool is_parked(void)
{
    domain_lock(disk->dom);
    bool yes = virtio_of_dev(disk)->parked == 1;
    domain_unlock(disk->dom);
    return yes;
}

/* A write that failed and waits for `cont`. */
static void park_one(void)
{
    struct vblk_header h = { .type = htole32(VIRTIO_BLK_T_OUT) };
    struct vd_buf b[3] = { { vd_alloc(sizeof h), sizeof h, false }, { vd_alloc(512), 512, false }, { vd_alloc(1), 1, true } };

    memcpy(vd_host(b[0].addr), &h, sizeof h);
    run_cont();
    vd_run();
    probe_error = -ENOSPC;
    vd_add(0, b, 3);
    w32(0x50, 0);
    UNTIL(is_parked(), loop_run_once(loop_main(), 1000000));
    run_stop(RUN_IO_ERROR);
    probe_error = 0;
}

static void gone(void)
{
    assert_int_equal(probe_waiting, 0);
    vd_slot = NULL;
    sd_del("disk");
    run_stop(RUN_PAUSED);
    probe_go();
}

static void test_at_home(void **state)
{
    open_on(NULL);
    park_one();
    probe_hold = true;
    run_cont();                         /* posts what begins it again, which the loop has not come to */
    hw_remove(vd_slot);
    gone();
}

static void nothing(void *arg) { }

/* The same where the thread has looked already, and said that nothing is in flight, when the machine goes on. */
static void test_on_a_thread(void **state)
{
    struct err e = ERR_INIT;
    struct loop *l = loop_new_thread("t", &e);

    assert_non_null(l);
    open_on(l);
    park_one();
    probe_hold = true;
    dev_unplug_done(disk);
    for (int i = 0; i < 3; i++)
        loop_call(l, nothing, NULL);
    run_cont();
    loop_call(l, nothing, NULL);
    UNTIL(!obj_find("device", "d"), loop_run_once(loop_main(), 1000000));
    hw_remove(vd_slot);
    gone();
    loop_free_thread(l);
}

int main(void)
{
    hw_unused();
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_at_home), cmocka_unit_test(test_on_a_thread) };

    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
