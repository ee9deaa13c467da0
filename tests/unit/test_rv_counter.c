/* SPDX-License-Identifier: MIT */
/* Counter CSRs: there only with their extension; a value written is what the next instruction reads (Privileged ISA, "Hardware Performance Monitor"). */
#include "rv.h"

/* Runs @n words in M mode on a new hart with extension @off disabled; its a2, and mcause if the code trapped (else 0). */
static uint64_t run(const char *off, const uint32_t *code, unsigned n, uint64_t *cause)
{
    char opts[64];
    snprintf(opts, sizeof opts, off ? "{\"%s\": false}" : "{}", off);
    struct hart *h = rv_harts(1, opts, NULL);
    uint64_t end = CODE + n * 4, handler = RAM + 0x800;
    for (unsigned i = 0; i < n; i++)
        put_insn(CODE + i * 4, code[i]);
    put_insn(end, 0x0000006f);                          /* j . */
    put_insn(handler, 0x0000006f);
    set_csr(h, 0x305, handler);
    set_reg(h, A0, RAM);
    hart_power(h, true);
    UNTIL(hart_pc(h) == end || hart_pc(h) == handler, harts_run(set));
    hart_power(h, false);
    *cause = hart_pc(h) == handler ? csr(h, 0x342) : 0;
    return reg(h, A2);
}

static uint32_t csrr(unsigned n) { return n << 20 | 2 << 12 | 12 << 7 | 0x73; }

static void test_counters_follow_extensions(void **state)
{
    static const struct { unsigned csr; const char *ext; } t[] = {
        { 0xc00, "zicntr" }, { 0xc01, "zicntr" }, { 0xc02, "zicntr" }, { 0xc03, "zihpm" }, { 0xc1f, "zihpm" },
    };
    for (unsigned i = 0; i < sizeof t / sizeof t[0]; i++) {
        uint64_t cause;
        uint32_t code = csrr(t[i].csr);
        run(NULL, &code, 1, &cause);
        assert_int_equal(cause, 0);
        run(t[i].ext, &code, 1, &cause);
        if (cause != 2)
            fail_msg("CSR 0x%x is there without %s", t[i].csr, t[i].ext);
    }
}

static void test_written_count(void **state)
{
    /* li a1, 100; csrw minstret, a1; csrr a2, minstret; likewise after two nops */
    uint64_t cause;
    assert_int_equal(run(NULL, (uint32_t[]){ 0x06400593, 0xb0259073, 0xb0202673 }, 3, &cause), 100);
    assert_int_equal(run(NULL, (uint32_t[]){ 0x06400593, 0xb0259073, 0x13, 0x13, 0xb0202673 }, 5, &cause), 102);
    assert_int_equal(cause, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_counters_follow_extensions), cmocka_unit_test(test_written_count) };
    return cmocka_run_group_tests(tests, rv_memory, NULL);
}
