/* SPDX-License-Identifier: MIT */
/* What -d has harts write: code when it is first seen, translations that fail, registers after a reset; and which items there are. */
#include "rv.h"
#include "jit_at_once.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static char path[] = "/tmp/test_rv_log_XXXXXX";

static int setup(void **state)
{
    struct err e = ERR_INIT;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_true(log_set_file(path, &e));
    return rv_memory(state);
}

static int teardown(void **state) { return unlink(path); }

/* From here on @items are logged, to an empty file. */
static void begin(const char *items)
{
    struct err e = ERR_INIT;
    assert_int_equal(truncate(path, 0), 0);
    assert_true(log_set_file(path, &e));
    assert_true(log_set_items(items, &e));
}

static const char *logged(void)
{
    static char text[1 << 16];
    struct err e = ERR_INIT;
    assert_true(log_set_items("none", &e));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static unsigned times(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

static void test_code_is_logged_once(void **state)
{
    static const struct accel_ops *const accel[] = { &accel_interp, &accel_jit };
    for (unsigned i = 0; i < 2; i++) {
        struct hart *h = rv_harts(1, NULL, accel[i]);
        put_insn(CODE, enc_i(0x13, A0, 0, 100));                /* li a0, 100 */
        put_insn(CODE + 4, enc_i(0x13, A0, A0, -1));
        put_insn(CODE + 8, enc_b(1, A0, 0, -4));                /* bnez a0, back */
        put_insn(CODE + 12, 0x6f);
        begin("in_asm");
        hart_run_to(h, CODE + 12);
        hart_power(h, false);
        const char *text = logged();
        assert_int_equal(times(text, "0x0000000080001000:  06400513  addi a0,zero,100\n"), 1);
        assert_true(times(text, "0x0000000080001004:  fff50513  addi a0,a0,-1\n") <= 2);       /* a block that begins within the loop is another */
        assert_non_null(strstr(text, "bne a0,zero"));
    }
}

static void test_faults_are_logged(void **state)
{
    struct hart *h = rv_harts(1, NULL, NULL);
    set_reg(h, A1, 0x10);
    begin("mmu");
    assert_int_equal(exec_trap(h, enc_i(0x3003, A0, A1, 0)), 5);
    assert_int_equal(times(logged(), "hart 0: load access fault at 0x10, satp 0x0\n"), 1);
    begin("int");
    exec_trap(h, enc_i(0x3003, A0, A1, 0));
    assert_null(strstr(logged(), "fault at"));
}

static void test_reset_is_logged(void **state)
{
    begin("cpu_reset");
    rv_harts(1, NULL, NULL);
    assert_non_null(strstr(logged(), "hart 0 after a reset:\n"));
    begin("none");
    rv_harts(1, NULL, NULL);
    assert_string_equal(logged(), "");
}

/* What would have no effect is refused, and says what else there is. */
static void test_items(void **state)
{
    struct err e = ERR_INIT;
    struct str list = { 0 };
    assert_false(log_set_items("guest_errors,exec", &e));
    assert_non_null(strstr(e.msg, "'exec'"));
    assert_non_null(strstr(e.hint, "-trace"));
    log_list_items(&list);
    assert_non_null(strstr(list.s, "in_asm"));
    assert_null(strstr(list.s, "exec"));
    str_free(&list);
    assert_true(log_set_items("none", &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_code_is_logged_once), cmocka_unit_test(test_faults_are_logged),
                                        cmocka_unit_test(test_reset_is_logged), cmocka_unit_test(test_items) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
