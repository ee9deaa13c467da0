/* SPDX-License-Identifier: MIT */
/* Rings, negotiation, reset and misuse, seen through the simplest device there is. */
#include "virtio_ring.h"

#define RNG "{\"driver\":\"virtio-rng-device\",\"packed\":true,\"in_order\":true}"

static void get_wait(uint16_t *id, uint32_t *len, unsigned slots)
{
    UNTIL(drv_get(0, id, len, slots), loop_run_once(loop_main(), 5000000));
}

static void identity_and_negotiation(void **state)
{
    drv_plug(RNG);
    assert_int_equal(r32(0), 0x74726976);
    assert_int_equal(r32(4), 2);
    assert_int_equal(r32(M_DEVICE_ID), VIRTIO_ID_ENTROPY);
    assert_int_equal(drv_offered() & (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_NOTIFY_ON_EMPTY)),
                     BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_F_RING_PACKED));
    assert_false(drv_features(0));                                              /* VERSION_1 is not optional here */
    assert_false(drv_features(BIT64(VIRTIO_F_VERSION_1) | BIT64(63)));         /* what was not offered is refused */
    assert_true(drv_features(BIT64(VIRTIO_F_VERSION_1)));
    w32(M_QSEL, 0);
    assert_int_equal(r32(M_QMAX), 64);
    w32(M_QSEL, 1);
    assert_int_equal(r32(M_QMAX), 0);
    w32(M_STATUS, 0);
    assert_int_equal(r32(M_STATUS), 0);
    drv_unplug();
}

static void transfer(uint64_t features)
{
    const struct drv_seg two[] = { { DRV_BUF, 100, true }, { DRV_BUF + 0x800, 60, true } };
    uint16_t id, want;
    uint32_t len;
    drv_plug(RNG);
    drv_start(features, 1);
    for (unsigned i = 0; i < 5 * DRV_NUM; i++) {            /* several laps, chains over the wrap */
        memset(drv_mem(DRV_BUF), 0, 0x1000);
        want = drv_add(0, two, 2);
        drv_kick(0);
        get_wait(&id, &len, 2);
        assert_int_equal(id, want);
        assert_int_equal(len, 160);
        unsigned nonzero = 0;
        for (unsigned k = 0; k < 60; k++)
            nonzero += drv_mem(DRV_BUF + 0x800)[k] != 0;
        assert_true(nonzero > 30);                          /* 2^-100 to fail by chance */
        assert_int_equal(drv_mem(DRV_BUF)[100], 0);
        assert_int_equal(drv_mem(DRV_BUF + 0x800)[60], 0);
    }
    drv_settle();
    assert_int_equal(r32(M_ISR), 1);
    assert_int_equal(hw_line[0], 1);
    w32(M_ACK, 1);
    assert_int_equal(hw_line[0], 0);
    drv_unplug();
}

static void split_ring(void **state) { transfer(0); }
static void split_ring_in_order(void **state) { transfer(BIT64(VIRTIO_F_IN_ORDER)); }
static void packed_ring(void **state) { transfer(BIT64(VIRTIO_F_RING_PACKED)); }
static void packed_ring_in_order(void **state) { transfer(BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_IN_ORDER)); }

/* With the event index, no interrupt comes before the entry that the driver waits for. */
static void event_index(void **state)
{
    const struct drv_seg one = { DRV_BUF, 8, true };
    uint16_t id;
    uint32_t len;
    drv_plug(RNG);
    drv_start(BIT64(VIRTIO_F_EVENT_IDX), 1);
    st_le16(drv_mem(drv_avail(0) + 4 + 2 * DRV_NUM), 3);    /* used_event: the fourth */
    for (unsigned i = 0; i < 4; i++) {
        drv_add(0, &one, 1);
        drv_kick(0);
        get_wait(&id, &len, 1);
        drv_settle();
        if (i == 0)
            w32(M_ACK, 1);                                  /* the first after the start may come */
        else
            assert_int_equal(r32(M_ISR), i == 3);
        assert_int_equal(ld_le16(drv_mem(drv_used(0) + 4 + 8 * DRV_NUM)), i + 1);   /* avail_event follows */
    }
    drv_unplug();
}

static void indirect_table(void **state)
{
    uint64_t table = DRV_BUF + 0x4000;
    struct drv_seg one = { table, 32, false };
    uint16_t id;
    uint32_t len;
    drv_plug(RNG);
    drv_start(BIT64(VIRTIO_F_INDIRECT_DESC), 1);
    drv_add(0, &one, 1);
    st_le16(drv_mem(drv_desc(0) + 12), VIRTQ_DESC_F_INDIRECT);
    for (unsigned i = 0; i < 2; i++) {
        st_le64(drv_mem(table + 16 * i), DRV_BUF + 0x100 * i);
        st_le32(drv_mem(table + 16 * i + 8), 16);
        st_le16(drv_mem(table + 16 * i + 12), (uint16_t)(VIRTQ_DESC_F_WRITE | (i ? 0 : VIRTQ_DESC_F_NEXT)));
        st_le16(drv_mem(table + 16 * i + 14), 1);
    }
    drv_kick(0);
    get_wait(&id, &len, 1);
    assert_int_equal(len, 32);
    drv_unplug();
}

static void broken_as(const char *what, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    struct drv_seg one = { DRV_BUF, 8, true };
    drv_plug(RNG);
    drv_start(BIT64(VIRTIO_F_INDIRECT_DESC), 1);
    drv_add(0, &one, 1);
    st_le64(drv_mem(drv_desc(0)), addr);
    st_le32(drv_mem(drv_desc(0) + 8), len);
    st_le16(drv_mem(drv_desc(0) + 12), flags);
    st_le16(drv_mem(drv_desc(0) + 14), next);
    drv_kick(0);
    if (!(r32(M_STATUS) & VIRTIO_S_NEEDS_RESET))
        fail_msg("%s is not noticed", what);
    assert_int_equal(r32(M_ISR) & 2, 2);
    w32(M_STATUS, 0);
    assert_int_equal(r32(M_STATUS), 0);
    uint16_t id;
    uint32_t got;
    drv_start(0, 1);                                        /* and works again after a reset */
    drv_add(0, &one, 1);
    drv_kick(0);
    get_wait(&id, &got, 1);
    drv_unplug();
}

static void guest_errors_need_a_reset(void **state)
{
    broken_as("a loop", DRV_BUF, 8, VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 0);
    broken_as("a next outside", DRV_BUF, 8, VIRTQ_DESC_F_NEXT, 9999);
    broken_as("a buffer outside RAM", 0x1000, 8, VIRTQ_DESC_F_WRITE, 0);
    broken_as("a buffer that wraps", UINT64_MAX - 3, 8, VIRTQ_DESC_F_WRITE, 0);
    broken_as("a device's registers as buffer", HW_DEV, 8, VIRTQ_DESC_F_WRITE, 0);
    broken_as("an odd indirect table", DRV_BUF, 17, VIRTQ_DESC_F_INDIRECT, 0);
    broken_as("an empty indirect table", DRV_BUF, 0, VIRTQ_DESC_F_INDIRECT, 0);
    broken_as("a huge indirect table", DRV_BUF, 0xfffffff0, VIRTQ_DESC_F_INDIRECT, 0);
}

static void rate_limit(void **state)
{
    const struct drv_seg one = { DRV_BUF, 64, true };
    uint16_t id;
    uint32_t len;
    drv_plug("{\"driver\":\"virtio-rng-device\",\"max-bytes\":100,\"period\":1000}");
    drv_start(0, 1);
    drv_add(0, &one, 1);
    drv_add(0, &one, 1);
    drv_add(0, &one, 1);
    drv_kick(0);
    get_wait(&id, &len, 1);
    assert_int_equal(len, 64);
    get_wait(&id, &len, 1);
    assert_int_equal(len, 36);
    assert_false(drv_get(0, &id, &len, 1));
    clock_vm_step(999000000);
    drv_settle();
    assert_false(drv_get(0, &id, &len, 1));
    clock_vm_step(2000000);
    get_wait(&id, &len, 1);
    assert_int_equal(len, 64);
    drv_unplug();
}

static void state_round_trip(void **state)
{
    const struct drv_seg one = { DRV_BUF, 8, true };
    struct err e = ERR_INIT;
    struct str a = { 0 }, b = { 0 };
    uint16_t id;
    uint32_t len;
    drv_plug(RNG);
    drv_start(BIT64(VIRTIO_F_RING_PACKED), 1);
    drv_add(0, &one, 1);
    drv_kick(0);
    get_wait(&id, &len, 1);
    drv_settle();
    struct dev *d = drv_dev()->dev;
    state_save(DEV_CLASS(d)->state, d, &a);
    dev_reset_tree(d, RESET_COLD);
    if (!state_load(DEV_CLASS(d)->state, d, a.s, a.len, &e))
        fail_msg("%s", e.msg);
    state_save(DEV_CLASS(d)->state, d, &b);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.s, b.s, a.len);
    drv_add(0, &one, 1);                                    /* and goes on where it was */
    drv_kick(0);
    get_wait(&id, &len, 1);
    str_free(&a);
    str_free(&b);
    drv_unplug();
}

/* Random rings, random tables, random registers: nothing may crash, hang or leave the test's memory. */
static void random_guest(void **state)
{
    drv_plug(RNG);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t f = hw_rand(2) ? BIT64(VIRTIO_F_RING_PACKED) : 0;
        if (hw_rand(2))
            f |= BIT64(VIRTIO_F_INDIRECT_DESC);
        if (hw_rand(2))
            f |= BIT64(VIRTIO_F_EVENT_IDX);
        if (hw_rand(2))
            f |= BIT64(VIRTIO_F_IN_ORDER);
        drv_start(f, 1);
        for (unsigned i = 0; i < 3 * DRV_RING; i += 2)
            if (hw_rand(4) == 0)
                st_le16(drv_mem(drv_desc(0) + i), (uint16_t)hw_rand(hw_rand(2) ? 65536 : 16));
        for (unsigned i = 0; i < DRV_NUM; i++) {
            uint8_t *p = drv_mem(drv_desc(0) + 16 * i);
            st_le64(p, hw_rand(8) ? DRV_BUF + hw_rand(0x8000) : (uint64_t)hw_rand(0xffffffff) << hw_rand(32));
            st_le32(p + 8, hw_rand(8) ? hw_rand(256) : hw_rand(0xffffffff));
            st_le16(p + 12, (uint16_t)hw_rand(hw_rand(2) ? 8 : 65536));
        }
        st_le16(drv_mem(drv_avail(0) + 2), (uint16_t)hw_rand(hw_rand(4) ? DRV_NUM + 1 : 65536));
        drv_kick(0);
        for (unsigned i = 0; i < 8; i++)
            w32(hw_rand(0x40) * 4, hw_rand(4) ? hw_rand(64) : hw_rand(0xffffffff));
        drv_settle();
        w32(M_STATUS, 0);
        UNTIL(!r32(M_STATUS), loop_run_once(loop_main(), 1000000));
    }
    drv_unplug();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity_and_negotiation), cmocka_unit_test(split_ring), cmocka_unit_test(split_ring_in_order),
        cmocka_unit_test(packed_ring), cmocka_unit_test(packed_ring_in_order), cmocka_unit_test(event_index),
        cmocka_unit_test(indirect_table), cmocka_unit_test(guest_errors_need_a_reset), cmocka_unit_test(rate_limit),
        cmocka_unit_test(state_round_trip), cmocka_unit_test(random_guest),
    };
    hw_unused();
    return cmocka_run_group_tests(tests, hw_setup, NULL);
}
