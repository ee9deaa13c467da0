/* SPDX-License-Identifier: MIT */
/*
 * An NVMe controller that is reset, removed or saved while commands run: none is lost, none ends twice, no memory stays behind.
 * On the main loop, and with queues on threads of their own; plain blocks, and blocks with protection information that the controller makes
 * and checks: a block and its tuple are never of two writes; queues and data in the controller's own memory; faults on purpose, each of
 * which is counted; zones, of which no block is given twice. BP_ROUNDS is how many times (200 if left out).
 */
#include "nvme_drv.h"
#include <pthread.h>
#include "hw/nvme/fault.h"
#include "hw/nvme/notice.h"
#include "loop/iothread.h"

/* What the host knows of each command: one at a time for a command's blocks. */
static struct cmd { bool out, write; uint32_t want; unsigned ends; } cmd[CMDS];
static uint32_t content[CMDS], maybe[CMDS];     /* of its blocks: for sure, or this (a write whose end nobody told) */


/* ---- a disk that is slow now and then ---- */

static struct timer pump;
static void pumped(void *arg)
{
    probe_hold = hw_rand(3) != 0;
    co_wake(&probe_gate);
    timer_arm(&pump, clock_now(CLOCK_HOST) + 20000 + hw_rand(60000));
}

static void fill(unsigned i, uint32_t v)
{
    for (unsigned k = 0; k < BYTES / 4; k++)
        st_le32(mem(buf_at(i) + 4 * k), v);
}

static void go(unsigned i)
{
    static uint32_t version;
    struct cmd *c = &cmd[i];
    *c = (struct cmd){ .out = true, .write = zoned || hw_rand(2), .want = ++version };
    fill(i, c->write ? c->want : 0xdeadbeef);
    if (c->write)
        maybe[i] = c->want;
    if (zoned) {
        submit(&io[i % queues], 0x7d, (uint16_t)i, 1, buf_at(i), i % ZONES * ZONE_BLOCKS, 0, i % 3);
        return;
    }
    submit(&io[i % queues], c->write ? 1 : 2, (uint16_t)i, 1, buf_at(i), i * BLOCKS, 0,
           (BLOCKS - 1) | (protect ? MAKE_AND_CHECK : 0));
}

static void appended(unsigned i, uint16_t status, uint32_t lba)
{
    if (status == NO_MORE || status == BOUNDARY)
        return;
    assert_int_equal(status, 0);
    assert_int_equal(lba / ZONE_BLOCKS, i % ZONES);
    for (unsigned k = 0; k <= i % 3; k++) {
        assert_int_equal(owner[lba + k], NOBODY);
        owner[lba + k] = cmd[i].want;
    }
}

/* What ended meanwhile. */
static void reap_queue(unsigned queue)
{
    uint16_t cid, status;
    uint32_t result;
    while (take(&io[queue], &cid, &status, &result)) {
        assert_true(cid < CMDS && cid % queues == queue);
        assert_true(cmd[cid].out);                      /* once, and only what was asked */
        cmd[cid].out = false;
        cmd[cid].ends++;
        if (faulty && status == (cmd[cid].write ? WRITE_FAULT : READ_FAULT)) {
            read_faults += !cmd[cid].write;
            assert_true(read_faults <= READ_FAULTS);
            fault_ends++;               /* nothing was done: a write that was given up before it may still be what is there */
            if (cmd[cid].write && maybe[cid] == cmd[cid].want)
                maybe[cid] = content[cid];
            continue;
        }
        if (zoned) {
            appended(cid, status, result);
            continue;
        }
        assert_int_equal(status, 0);
        if (cmd[cid].write) {
            content[cid] = maybe[cid];
            continue;
        }
        uint32_t v = ld_le32(mem(buf_at(cid)));
        assert_true(v == content[cid] || v == maybe[cid]);
        content[cid] = maybe[cid] = v;
        for (unsigned at = 0; at < BYTES; at += 4)
            assert_int_equal(ld_le32(mem(buf_at(cid) + at)), v);
    }
}

static void reap(void)
{
    for (unsigned i = 0; i < queues; i++)
        reap_queue(i);
}

static unsigned outstanding(void)
{
    unsigned k = 0;
    for (unsigned i = 0; i < CMDS; i++)
        k += cmd[i].out;
    return k;
}

/* What the disk has now, where nothing is in flight: as before, or as the write that was given up. */
static void look(void)
{
    for (unsigned i = 0; zoned && i < ZONES * ZONE_BLOCKS; i++)
        assert_true(owner[i] == (uint32_t)NOBODY || owner[i] == (uint32_t)SOMEBODY || owner[i] == ld_le32(probe_data + 512 * i));
    if (zoned)
        return;
    for (unsigned i = 0; i < CMDS; i++) {
        uint32_t v = ld_le32(probe_data + i * BYTES);
        assert_true(v == content[i] || v == maybe[i]);
        for (unsigned at = 0; at < BYTES; at += 4)
            assert_int_equal(ld_le32(probe_data + i * BYTES + at), v);
        content[i] = maybe[i] = v;
    }
}

/* The host forgets what the controller has not told it. */
static void forget(void)
{
    faults_lost += outstanding();
    for (unsigned i = 0; i < CMDS; i++)
        cmd[i].out = false;
    look();
}

static void start_some(void)
{
    for (unsigned i = 0; i < CMDS; i++)
        if (!cmd[i].out && hw_rand(4))
            go(i);
    for (unsigned i = 0; i < queues; i++)
        ring(&io[i]);
    for (unsigned k = hw_rand(6); k; k--)
        turn(0);
    reap();
}

static void finish(void)
{
    for (int i = 0; outstanding(); i++) {
        turn(i);
        reap();
    }
}

/* The entries of all completion queues, which no thread writes now. */
static uint32_t entries_sum(void)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < queues * 0x1000u; i += 4)
        sum = sum * 31 + ld_le32(mem(cq_at(0) + i));
    return sum;
}

/* Nothing more comes once the controller is reset. */
static void silence(void)
{
    uint32_t before = entries_sum();
    UNTIL(!in_flight(), loop_run_once(loop_main(), 1000000));
    assert_int_equal(before, entries_sum());
    forget();
}

/* ---- what happens ---- */

static void controller_reset(void)
{
    wr(0x14, 0x00460000);
    until(0x1c, 1, 0);
    silence();
    enable();
}

static void function_reset(void)
{
    unsigned exp = t_cap(n, PCI_CAP_EXP);
    t_wr(n, exp + 8, 0x8000, 2);
    for (int i = 0; t_rd(n, 0, 2) == 0xffff; i++)
        turn(i);
    if (hw_rand(2))
        silence();
    place();
    enable();                           /* ready once what ran before is at its end, though the host did not wait for that */
    forget();
}

static void removal(void)
{
    t_remove(&n->pci.dev);
    if (inside) {                       /* the queues went along */
        t_settle();
    } else {
        uint32_t before = entries_sum();
        t_settle();
        assert_int_equal(before, entries_sum());
        reap();                         /* what ended before it was gone */
    }
    forget();
    plug();
    enable();
}

/* Saved, and another one goes on; every command ends, the ones in between on the new one. */
static void save(bool elsewhere)
{
    stop();
    if (elsewhere) {
        uint64_t ends = fault_ends, gone = faults_lost, known = known_hits;
        unsigned reads = read_faults;
        move();
        fault_ends = ends;
        faults_lost = gone;
        known_hits = known;
        read_faults = reads;
    }
    resume();
    finish();
}

/* Each hit of a rule is a command that ended so, or one that nobody told of. */
static void count_hits(void)
{
    uint64_t hits;
    domain_lock(n->pci.dev.dom);
    hits = n->fault_hits - known_hits;
    known_hits = n->fault_hits;
    domain_unlock(n->pci.dev.dom);
    assert_true(hits >= fault_ends && hits <= fault_ends + faults_lost);
    assert_true(faulty || !hits);
    fault_ends = faults_lost = 0;
}

static uint16_t io_run(uint8_t op, uint32_t nsid, uint32_t slba, uint32_t d12, uint32_t d13)
{
    uint16_t cid, status;
    uint32_t r;
    submit(&io[0], op, 1, nsid, BUF, slba, 0, d12);
    st_le32(mem(io[0].sq + 64 * ((io[0].tail + ENTRIES - 1) % ENTRIES)) + 52, d13);
    ring(&io[0]);
    for (int i = 0; !take(&io[0], &cid, &status, &r); i++)
        turn(i);
    return status;
}

/* Write pointers are behind what was appended, told of or not; a zone that is nearly full is reset. */
static void look_at_zones(void)
{
    assert_int_equal(io_run(0x7a, 1, 0, 1023, 0), 0);
    for (unsigned z = 0; z < ZONES; z++) {
        uint8_t *d = mem(BUF + 64 + 64 * z);
        uint64_t first = z * ZONE_BLOCKS, end = d[1] >> 4 == 14 ? first + ZONE_BLOCKS : ld_le64(d + 24);
        assert_int_equal(ld_le64(d + 16), first);
        for (uint64_t i = first; i < first + ZONE_BLOCKS; i++) {
            assert_true(i < end || owner[i] == (uint32_t)NOBODY);
            if (i < end && owner[i] == (uint32_t)NOBODY)
                owner[i] = (uint32_t)SOMEBODY;
        }
        if (end - first > ZONE_BLOCKS - 8) {
            assert_int_equal(io_run(0x79, 1, (uint32_t)first, 0, 4), 0);
            memset(owner + first, NOBODY, ZONE_BLOCKS * sizeof *owner);
            assert_int_equal(io_run(0x7a, 1, 0, 1023, 0), 0);
        }
    }
}

static void one_round(void)
{
    switch (hw_rand(6)) {
    case 0: controller_reset(); break;
    case 1: function_reset(); break;
    case 2: removal(); break;
    case 3: save(true); break;
    case 4: save(false); break;
    default: finish();
    }
}

static void all_rounds(void)
{
    const char *env = getenv("BP_ROUNDS");
    unsigned count = env ? (unsigned)atoi(env) : 200, ended = 0, lost = 0;
    memset(probe_data, 0, sizeof probe_data);
    memset(content, 0, sizeof content);
    memset(maybe, 0, sizeof maybe);
    memset(cmd, 0, sizeof cmd);
    sd_node("disk", "");
    plug();
    enable();
    for (unsigned i = 0; i < count; i++) {
        start_some();
        ended += CMDS - outstanding();
        lost += outstanding();
        one_round();
        if (!outstanding())
            count_hits();
        if (zoned && !outstanding())
            look_at_zones();
        domain_lock(n->pci.dev.dom);
        assert_true(n->n_free <= CMDS + 8);             /* requests go back where they came from */
        domain_unlock(n->pci.dev.dom);
    }
    start_some();
    finish();
    assert_true(lost > count && ended);                 /* there was something to lose */
    look();
    t_remove(&n->pci.dev);
    sd_del("disk");
}

static void rounds_here(void)
{
    t_setup(NULL);
    timer_init(&pump, CLOCK_HOST, loop_main(), NULL, pumped, NULL);
    pumped(NULL);
    all_rounds();
    timer_disarm(&pump);
    probe_go();
    timer_fini(&pump);
}

static void rounds(void **state) { rounds_here(); }

static void rounds_with_protection(void **state)
{
    protect = true;
    rounds_here();
    protect = false;
}

static void rounds_with_faults(void **state)
{
    faulty = true;
    rounds_here();
    faulty = false;
}

static void rounds_with_zones(void **state)
{
    zoned = true;
    queues = 3;
    rounds_here();
    zoned = false;
    queues = 1;
}

static void rounds_inside(void **state)
{
    struct err e = ERR_INIT;
    json_t *size = json_pack("{s:s}", "size", "1M");
    struct obj *b = obj_create(obj_class_find("memory-backend-ram"), "pmr", size, NULL, &e);
    json_decref(size);
    if (!b || !(pmr = memory_backend_claim(b, "a look", &e)))
        fail_msg("%s", e.msg);
    memory_backend_release(b);          /* the controller's; it stays where it is */
    inside = true;
    queues = 2;
    rounds_here();
    protect = true;
    rounds_here();
    protect = inside = false;
    queues = 1;
    if (!obj_user_delete(b, &e))
        fail_msg("%s", e.msg);
}

static struct obj *thread_new(const char *id)
{
    struct err e = ERR_INIT;
    struct obj *t = obj_create(&iothread_class, id, NULL, NULL, &e);
    if (!t)
        fail_msg("%s", e.msg);
    return t;
}

static void rounds_on_threads(void **state)
{
    struct err e = ERR_INIT;
    struct obj *t[] = { thread_new("t0"), thread_new("t1"), thread_new("t2") };
    t_setup(NULL);
    threads = true;
    queues = 3;
    probe_nap = 100000;
    all_rounds();
    protect = true;
    all_rounds();
    protect = threads = false;
    queues = 1;
    probe_nap = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
        if (!obj_user_delete(t[i], &e))
            fail_msg("%s", e.msg);
}

/* ---- single events ---- */

static void identify(uint32_t cns, uint32_t nsid) { assert_int_equal(admin_run(6, nsid, BUF, cns, 0, NULL), 0); }

static uint32_t create(uint64_t blocks, uint8_t lbaf)
{
    uint32_t nsid;
    memset(mem(BUF), 0, 4096);
    st_le64(mem(BUF), blocks);
    st_le64(mem(BUF) + 8, blocks);
    mem(BUF)[26] = lbaf;
    assert_int_equal(admin_run(0x0d, 0, BUF, 0, 0, &nsid), 0);
    memset(mem(BUF), 0, 4096);
    st_le16(mem(BUF), 1);
    assert_int_equal(admin_run(0x15, nsid, BUF, 0, 0, NULL), 0);
    return nsid;
}

static void namespaces(void **state)
{
    struct str again = { 0 };
    struct err e = ERR_INIT;
    memset(probe_data, 0, sizeof probe_data);
    begin();
    assert_int_equal(admin_run(0x0d, 1, 0, 1, 0, NULL), 0);            /* delete */
    assert_int_equal(create(8, 4), 1);                                 /* 4 KiB blocks; the next begins at a MiB: no room */
    assert_int_equal(io_run(4, 1, 3, 1, 0), 0);                         /* blocks 3 and 4 unreadable */
    assert_int_equal(admin_run(9, 1, 0, 0x84, 1, NULL), 0);            /* write protected */
    stop();
    move();
    resume();
    identify(0, 1);
    assert_int_equal(ld_le64(mem(BUF)), 8);
    assert_int_equal(mem(BUF)[26], 4);
    assert_int_equal(mem(BUF)[99], 1);
    assert_int_equal(io_run(2, 1, 4, 0, 0), 0x281);
    assert_int_equal(io_run(2, 1, 5, 0, 0), 0);
    assert_int_equal(io_run(1, 1, 5, 0, 0), 0x20);
    stop();
    saved(&again);
    for (size_t cut = 0; cut < again.len; cut += 1 + again.len / 40) {  /* what is cut short is refused, or the rest stays */
        domain_lock(n->pci.dev.dom);
        (void)!state_load(DEV_CLASS(n)->state, n, again.s, cut, &e);
        domain_unlock(n->pci.dev.dom);
    }
    str_free(&again);
    end();
}

/* What others have left for a controller to tell when the machine is saved: a namespace is another, a block cannot be read. */
static void news(void **state)
{
    static const uint32_t events[] = { 0x0e0502, 0x040002, 0x0e0502 };
    uint16_t cid, status;
    uint32_t result;
    begin();
    assert_int_equal(admin_run(9, 0, 0, 0x0b, 1 << 8 | 1 << 13, NULL), 0);     /* events: the list of namespaces, LBA status */
    assert_int_equal(admin_run(9, 0, 0, 0x15, 1, NULL), 0);                    /* of these one in 100 ms */
    for (unsigned i = 0; i < ARRAY_SIZE(events); i++)
        submit(&admin, 0x0c, (uint16_t)i, 0, 0, 0, 0, 0);
    ring(&admin);
    for (int i = 0; n->n_aer < ARRAY_SIZE(events); i++)
        turn(i);
    nvme_lba_alert(nvme_ns_at(n, 1));
    for (unsigned got = 0; got < ARRAY_SIZE(events); got++) {
        clock_vm_step(got == 2 ? 100000000 : 0);
        for (int i = 0; !take(&admin, &cid, &status, &result); i++)
            turn(i);
        assert_int_equal(result, events[got]);
        assert_int_equal(admin_run(2, 0, BUF, (result >> 16) | 63 << 16, 0, NULL), 0);         /* read, so that there can be another */
        if (got)
            continue;
        nvme_lba_alert(nvme_ns_at(n, 1));
        for (int i = 0; !timer_armed(&n->lba_timer); i++)
            turn(i);
        stop();
        nvme_ns_changed(n->ss, 1, NULL);
        move();
        resume();
    }
    end();
}

/* A shutdown that the power takes the caches' time from was told (5.16.1.3); what is left of it says nothing of the life after. */
static void power_lost_in_a_shutdown(void **state)
{
    begin();
    uint64_t unsafe = n->unsafe_shutdowns;
    probe_hold = true;
    wr(0x14, 0x00464001);
    t_settle();
    assert_int_equal(rd(0x1c) >> 2 & 3, 1);
    dev_reset_tree(&n->pci.dev, RESET_COLD);
    assert_int_equal(n->unsafe_shutdowns, unsafe);
    probe_go();
    dev_reset_tree(&n->pci.dev, RESET_COLD);
    assert_int_equal(n->unsafe_shutdowns, unsafe + 1);
    end();
}

static uint64_t hits(void)
{
    domain_lock(n->pci.dev.dom);
    uint64_t k = n->fault_hits;
    domain_unlock(n->pci.dev.dom);
    return k;
}

/* A delayed command that a stop ended begins again with the machine: the rule that may hit one has hit one then, and it still waits. */
static void a_pause_is_no_second_fault(void **state)
{
    struct err e = ERR_INIT;
    json_t *rules = json_pack("[{s:s, s:I, s:i}]", "queue", "io", "delay-ns", (json_int_t)3600000000000, "count", 1);
    begin();
    if (!nvme_faults_set(n, rules, &e))
        fail_msg("%s", e.msg);
    json_decref(rules);
    submit(&io[0], 2, 1, 1, BUF, 0, 0, 0);
    ring(&io[0]);
    UNTIL(hits() == 1, loop_run_once(loop_main(), 1000000));
    stop();
    assert_int_equal(hits(), 0);
    resume();
    UNTIL(hits() == 1, loop_run_once(loop_main(), 1000000));
    assert_int_equal(in_flight(), 1);
    end();
}

static void *read_boot(void *arg)
{
    wr(0x44, 1);
    return NULL;
}

/* A hart asks for a page of a boot partition, and the function is reset before the main loop has come to it. */
static void boot_read_overtaken(void **state)
{
    pthread_t hart;
    t_setup(NULL);
    sd_node("disk", "");
    sd_node("boot", "");
    boots = true;
    plug();
    assert_int_equal(pthread_create(&hart, NULL, read_boot, NULL), 0);
    pthread_join(hart, NULL);
    assert_int_equal(rd(0x40) >> 24 & 3, 1);
    dev_reset_tree(&n->pci.dev, RESET_FUNCTION);
    t_settle();
    place();
    assert_int_equal(rd(0x40) >> 24 & 3, 0);
    t_remove(&n->pci.dev);
    boots = false;
    sd_del("disk");
    sd_del("boot");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(rounds), cmocka_unit_test(rounds_with_protection), cmocka_unit_test(rounds_with_faults),
                                        cmocka_unit_test(rounds_with_zones), cmocka_unit_test(rounds_inside), cmocka_unit_test(rounds_on_threads),
                                        cmocka_unit_test(namespaces), cmocka_unit_test(news), cmocka_unit_test(power_lost_in_a_shutdown),
                                        cmocka_unit_test(a_pause_is_no_second_fault), cmocka_unit_test(boot_read_overtaken) };
    t_unused();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
