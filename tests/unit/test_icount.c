/* SPDX-License-Identifier: MIT */
/* -icount: the clock's arithmetic, posts kept back, deadlines met at their instruction, harts by turns: on both accelerators. */
#include <unistd.h>
#include "rv.h"
#include "seeded.h"
#include "base/random.h"
#include "cpu/riscv/icount.h"

#define NEVER UINT64_MAX

/* ---- arithmetic ---- */

static void clock_counts(void **state)
{
    struct icount_clock c = { .bias = 0, .shift = 3 };
    assert_int_equal(icount_ns(&c, 5), 40);
    assert_int_equal(icount_when(&c, 40), 5);
    assert_int_equal(icount_when(&c, 41), 6);
    assert_int_equal(icount_when(&c, 0), 0);
    assert_true(icount_when(&c, INT64_MAX) == NEVER);
    icount_set(&c, 5, 1000);
    assert_int_equal(icount_ns(&c, 5), 1000);
    assert_int_equal(icount_ns(&c, 6), 1008);
    assert_int_equal(icount_when(&c, 1009), 7);
    assert_int_equal(icount_when(&c, 3), 0);            /* long ago */
    icount_rate(&c, 6, 0);
    assert_int_equal(icount_ns(&c, 6), 1008);
    assert_int_equal(icount_ns(&c, 16), 1018);
}

static void clock_is_the_first_count(void **state)
{
    for (unsigned shift = 0; shift <= ICOUNT_SHIFT_MAX; shift++)
        for (unsigned i = 0; i < 1000; i++) {
            struct icount_clock c = { .shift = shift };
            icount_set(&c, rnd() >> 40, (int64_t)(rnd() >> 20));
            int64_t ns = c.bias + 1 + (int64_t)(rnd() >> 20);
            uint64_t n = icount_when(&c, ns);
            assert_true(icount_ns(&c, n) >= ns);
            assert_true(icount_ns(&c, n - 1) < ns);
        }
}

static void shift_follows_the_host(void **state)
{
    const int64_t far = 1000000000;
    assert_int_equal(icount_adapt(3, 0, far), 2);
    assert_int_equal(icount_adapt(3, 0, -far), 4);
    assert_int_equal(icount_adapt(3, 2 * far, far), 3);         /* on its way back */
    assert_int_equal(icount_adapt(3, 0, 1000), 3);
    assert_int_equal(icount_adapt(0, 0, far), 0);
    assert_int_equal(icount_adapt(ICOUNT_SHIFT_MAX, 0, -far), ICOUNT_SHIFT_MAX);
}

static void a_seed_decides(void **state)
{
    uint8_t a[19], b[19], c[19];
    guest_random_seed(7);
    assert_int_equal(guest_random(a, sizeof a), 0);
    guest_random_seed(8);
    assert_int_equal(guest_random(b, sizeof b), 0);
    guest_random_seed(7);
    assert_int_equal(guest_random(c, sizeof c), 0);
    assert_memory_equal(a, c, sizeof a);
    assert_memory_not_equal(a, b, sizeof a);
}

/* ---- machines ---- */

/* mtime is the VM clock in ns; a deadline is a timer on the main loop, like a board's. */
static struct timer timers[HART_MAX];
static struct obj *cpu;
static struct hart_set *turns_set;

static uint64_t now_ns(void *opaque) { return (uint64_t)clock_now(CLOCK_VM); }
static void fire(void *h) { hart_timer_fire(h); }
static void arm(void *opaque, unsigned hart, uint64_t deadline)
{
    timer_arm(&timers[hart], deadline > INT64_MAX ? INT64_MAX : (int64_t)deadline);
}
static const struct hart_env env = { .time_now = now_ns, .timer_arm = arm };

static void build(unsigned count, const struct accel_ops *accel, unsigned shift, bool sleep)
{
    struct err e = ERR_INIT;
    json_t *o = json_object();
    icount_opts = (struct icount_opts){ .on = true, .shift = shift, .sleep = sleep };
    clock_vm_set(0);
    cpu = obj_create(obj_class_find("rv64"), NULL, o, obj_container("cpu-model"), &e);
    assert_non_null(cpu);
    json_decref(o);
    struct hart_set_config cfg = { .cpu = (struct rv_cpu *)cpu, .accel = accel, .env = &env, .count = count, .by_turns = true };
    memset(ram->host, 0, RAM_SIZE);
    turns_set = hart_set_new(&cfg, &e);
    if (!turns_set)
        fail_msg("%s", e.msg);
    for (unsigned i = 0; i < count; i++) {
        struct hart *h = hart_get(turns_set, i);
        hart_set_start(h, 3, CODE + i * 0x1000, i, 0);
        timer_init(&timers[i], CLOCK_VM, loop_main(), NULL, fire, h);
        hart_power(h, true);
    }
}

/* A word that a hart stores meanwhile. */
static bool is_set(uint64_t flag) { return __atomic_load_n((uint64_t *)(void *)at(flag), __ATOMIC_ACQUIRE) != 0; }

/* Until the word at @flag is not 0; the main loop runs meanwhile. */
static void run_until(uint64_t flag)
{
    clock_vm_run(true);
    hart_set_resume(turns_set);
    UNTIL(is_set(flag), loop_run_once(loop_main(), 1000000));
    hart_set_pause(turns_set);
    clock_vm_run(false);
}

static void take_down(void)
{
    for (unsigned i = 0; i < hart_set_count(turns_set); i++) {
        timer_fini(&timers[i]);
        hart_power(hart_get(turns_set, i), false);
    }
    hart_set_free(turns_set);
    obj_del(cpu);
    icount_opts.on = false;
}

static void put(uint64_t pa, const uint32_t *code, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        put_insn(pa + 4 * i, code[i]);
}
#define PUT(pa, ...) put(pa, (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

enum { CSRW = 1, CSRR = 2, SD = 0x3023, TIME = 0xc01, STIMECMP = 0x14d, INSTRET = 0xb02, ADDI = 0x13, ADD = 0x33, LUI_DATA = 0x37, WFI = 0x10500073,
       PAUSE = 0x0100000f, LOOP = 0x6f };

static uint32_t csrw(unsigned num, unsigned rs) { return enc_csr(CSRW, 0, num, rs); }
static uint32_t csrr(unsigned rd, unsigned num) { return enc_csr(CSRR, rd, num, 0); }
static uint32_t addi(unsigned rd, unsigned rs, int32_t v) { return enc_i(ADDI, rd, rs, v); }

/*
 * An interrupt at time + @delta, in a loop of @len instructions: the handler writes mepc, time and the loop's count to DATA. How far
 * it got, and when, is the same however instructions are run.
 */
static void timer_program(int32_t delta, unsigned len)
{
    uint64_t pc = CODE;
    set_csr(hart_get(turns_set, 0), 0x305, RAM + 0x800);
    set_csr(hart_get(turns_set, 0), 0x30a, UINT64_C(1) << 63);  /* STCE */
    set_csr(hart_get(turns_set, 0), 0x304, 1 << 5);             /* STIE */
    set_csr(hart_get(turns_set, 0), 0x300, 1 << 3);             /* MIE */
    set_reg(hart_get(turns_set, 0), S0, DATA);
    PUT(pc, csrr(T0, TIME), addi(T0, T0, delta), csrw(STIMECMP, T0), addi(A0, ZERO, 0));
    pc += 16;
    for (unsigned i = 0; i + 1 < len; i++, pc += 4)
        PUT(pc, addi(A0, A0, 1));
    PUT(pc, enc_j(0, -4 * (int32_t)(len - 1)));
    PUT(RAM + 0x800, csrr(A1, TIME), csrr(A2, 0x341), enc_s(SD, S0, A1, 8), enc_s(SD, S0, A2, 16), enc_s(SD, S0, A0, 24), enc_s(SD, S0, T0, 32),
        addi(A3, ZERO, 1), enc_s(SD, S0, A3, 0), LOOP);
}

static void deadlines_are_exact(void **state)
{
    static const struct accel_ops *const accels[] = { &accel_interp, &accel_jit };
    for (int32_t delta = 1; delta < 2000; delta = delta * 2 + 3)
        for (unsigned len = 2; len < 150; len = len * 3 + 1) {
            uint64_t got[2][4];
            for (unsigned a = 0; a < 2; a++) {
                build(1, accels[a], 0, false);
                timer_program(delta, len);
                run_until(DATA);
                for (unsigned i = 0; i < 4; i++)
                    got[a][i] = ld_le64(at(DATA + 8 + 8 * i));
                take_down();
                /* The handler's first instruction shows the deadline itself, or what followed the write where that was past it. */
                assert_int_equal(got[a][0], MAX(got[a][3], got[a][3] - (uint64_t)delta + 3));
            }
            assert_memory_equal(got[0], got[1], sizeof got[0]);
        }
}

static void an_idle_machine_goes_to_its_timer(void **state)
{
    build(1, &accel_interp, 2, false);
    struct hart *h = hart_get(turns_set, 0);
    set_csr(h, 0x30a, UINT64_C(1) << 63);
    set_csr(h, 0x304, 1 << 5);
    set_reg(h, S0, DATA);
    set_reg(h, A2, 3600 * UINT64_C(1000000000));                /* an hour */
    PUT(CODE, csrr(T0, TIME), ADD | T0 << 7 | T0 << 15 | A2 << 20, csrw(STIMECMP, T0), WFI, csrr(A1, TIME), enc_s(SD, S0, A1, 8),
        enc_s(SD, S0, T0, 16), addi(A3, ZERO, 1), enc_s(SD, S0, A3, 0), LOOP);
    run_until(DATA);
    assert_int_equal(ld_le64(at(DATA + 8)), ld_le64(at(DATA + 16)));
    take_down();
}

static void with_sleep_it_takes_the_hosts_time(void **state)
{
    build(1, &accel_interp, 2, true);
    struct hart *h = hart_get(turns_set, 0);
    set_csr(h, 0x30a, UINT64_C(1) << 63);
    set_csr(h, 0x304, 1 << 5);
    set_reg(h, S0, DATA);
    set_reg(h, A2, 30000000);
    PUT(CODE, csrr(T0, TIME), ADD | T0 << 7 | T0 << 15 | A2 << 20, csrw(STIMECMP, T0), WFI, csrr(A1, TIME), enc_s(SD, S0, A1, 8),
        enc_s(SD, S0, T0, 16), addi(A3, ZERO, 1), enc_s(SD, S0, A3, 0), LOOP);
    int64_t from = clock_now(CLOCK_HOST);
    run_until(DATA);
    assert_true(clock_now(CLOCK_HOST) - from >= 29000000);
    assert_int_equal(ld_le64(at(DATA + 8)), ld_le64(at(DATA + 16)));
    take_down();
}

/*
 * Two harts add to one word without atomic instructions, each as often as it gets to; the second stops the first by a flag after its
 * loop. What the word and the counts are in the end follows from the turns alone.
 */
static void two_harts(const struct accel_ops *accel, uint64_t got[4], bool yields)
{
    build(2, accel, 0, false);
    for (unsigned i = 0; i < 2; i++) {
        struct hart *h = hart_get(turns_set, i);
        uint64_t pc = CODE + i * 0x1000;
        set_reg(h, S0, DATA);
        set_reg(h, A2, 100000);
        /* 1: ld t0, 0(s0); addi t0, t0, 1; sd t0, 0(s0); [pause;] addi a1, a1, 1; bne a1, a2, 1b; sd a1, 16+8i(s0); sd t0, 32; 2: ld t1, 24-8i(s0); beqz 2b */
        PUT(pc, enc_i(0x3003, T0, S0, 0), addi(T0, T0, 1), enc_s(SD, S0, T0, 0), yields ? PAUSE : addi(ZERO, ZERO, 0), addi(A1, A1, 1),
            enc_b(1, A1, A2, -20), enc_s(SD, S0, A1, 16 + 8 * (int32_t)i), enc_i(0x3003, T1, S0, 24 - 8 * (int32_t)i), enc_b(0, T1, ZERO, -4),
            csrr(A4, INSTRET), enc_s(SD, S0, A4, 40 + 8 * (int32_t)i), LOOP);
    }
    run_until(DATA + 40);
    run_until(DATA + 48);
    got[0] = ld_le64(at(DATA));
    got[1] = ld_le64(at(DATA + 40));
    got[2] = ld_le64(at(DATA + 48));
    got[3] = hart_x(hart_get(turns_set, 1), A1);
    take_down();
}

static void harts_take_turns(void **state)
{
    uint64_t a[4], b[4], c[4];
    for (unsigned yields = 0; yields < 2; yields++) {
        two_harts(&accel_interp, a, yields);
        two_harts(&accel_interp, b, yields);
        two_harts(&accel_jit, c, yields);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_equal(a, c, sizeof a);
        assert_true(a[0] > 100000 && a[0] <= 200000);
        if (yields)
            assert_int_equal(a[0], 200000);             /* who pauses after the store loses no addition */
    }
}

/* ---- posts and rest ---- */

static int ran, told, settled;
static void work(void *unused) { ran++; }
static void tell(void) { told++; }
static void at_rest(void *unused, int64_t next) { settled++; assert_int_equal(next, 77); }

static void *poster(void *post)
{
    loop_hold_posts(tell);
    loop_post(loop_main(), post);
    loop_post(loop_main(), post);
    loop_hold_posts(NULL);
    return NULL;
}

static void posts_are_kept_back(void **state)
{
    struct post p = { .fn = work };
    struct timer t;
    pthread_t thread;
    clock_vm_set_manual(true);
    clock_vm_set(0);
    timer_init(&t, CLOCK_VM, loop_main(), NULL, work, NULL);
    timer_arm(&t, 77);
    assert_int_equal(pthread_create(&thread, NULL, poster, &p), 0);
    pthread_join(thread, NULL);
    loop_run_once(loop_main(), 1000);
    assert_int_equal(ran, 0);
    assert_int_equal(told, 1);                          /* the second was one with the first */
    loop_release_posts();
    loop_settle_enable();
    loop_work_begin();
    loop_settle(at_rest, NULL);
    loop_run_once(loop_main(), 1000);
    loop_run_once(loop_main(), 1000);
    assert_int_equal(ran, 1);
    assert_int_equal(settled, 0);                       /* there is work under way */
    loop_work_end();
    loop_run_once(loop_main(), 1000);
    assert_int_equal(settled, 1);
    loop_run_once(loop_main(), 1000);
    assert_int_equal(settled, 1);
    timer_fini(&t);
    clock_vm_set_manual(false);
}

static void a_kept_post_can_be_cancelled(void **state)
{
    struct post p = { .fn = work };
    pthread_t thread;
    int before = ran;
    assert_int_equal(pthread_create(&thread, NULL, poster, &p), 0);
    pthread_join(thread, NULL);
    loop_post_cancel(loop_main(), &p);
    loop_release_posts();
    loop_run_once(loop_main(), 1000);
    assert_int_equal(ran, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_counts), cmocka_unit_test(clock_is_the_first_count), cmocka_unit_test(shift_follows_the_host),
        cmocka_unit_test(a_seed_decides), cmocka_unit_test(posts_are_kept_back), cmocka_unit_test(a_kept_post_can_be_cancelled),
        cmocka_unit_test(deadlines_are_exact), cmocka_unit_test(an_idle_machine_goes_to_its_timer),
        cmocka_unit_test(with_sleep_it_takes_the_hosts_time), cmocka_unit_test(harts_take_turns),
    };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
