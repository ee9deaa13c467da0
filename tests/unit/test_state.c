/* SPDX-License-Identifier: MIT */
/* core/state: what is saved comes back; what was tampered with is refused before it is used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/state.h"

struct queue { uint16_t head; bool on; };
struct box {
    uint32_t ctl; uint8_t fifo[16]; uint64_t table[3]; bool live; struct queue q[2]; uint32_t n; struct queue *extra; void *host;
};

static const struct state_field queue_fields[] = { STATE_UINT(struct queue, head, .max = 255), STATE_BOOL(struct queue, on), STATE_END };
static const struct state_desc queue_state = { "queue", 1, queue_fields, NULL, NULL };
static bool refuse_odd(void *obj, struct err *e)
{
    return !(((struct box *)obj)->ctl & 1) || err_set(e, ERR_VALUE, "odd ctl");
}
static const struct state_field box_fields[] = {
    STATE_UINT(struct box, ctl, .max = 1000),
    STATE_BYTES(struct box, fifo),
    STATE_ARRAY(struct box, table),
    STATE_BOOL(struct box, live),
    STATE_STRUCTS(struct box, q, &queue_state),
    STATE_SKIP(struct box, n, "given by an option"),
    { .name = "extra", .kind = ST_PTR_STRUCT, .off = offsetof(struct box, extra), .size = sizeof(struct queue),
      .count_off = offsetof(struct box, n), .sub = &queue_state },
    STATE_SKIP(struct box, host, "a host pointer"),
    STATE_END
};
static const struct state_desc box_state = { "box", 1, box_fields, refuse_odd, NULL };

static struct box make(uint32_t seed)
{
    struct box b = { .n = 3, .extra = calloc(3, sizeof(struct queue)) };

    state_scramble(&box_state, &b, seed);
    b.ctl &= ~1u;
    return b;
}

static void same(const struct box *a, const struct box *b)
{
    assert_true(a->ctl == b->ctl && !memcmp(a->fifo, b->fifo, 16) && !memcmp(a->table, b->table, 24) && a->live == b->live);
    for (int i = 0; i < 2; i++)
        assert_true(a->q[i].head == b->q[i].head && a->q[i].on == b->q[i].on);
    for (int i = 0; i < 3; i++)
        assert_true(a->extra[i].head == b->extra[i].head && a->extra[i].on == b->extra[i].on);
}

static void round_trip(void **state)
{
    for (uint32_t seed = 1; seed < 50; seed++) {
        struct box a = make(seed), b = make(seed + 1000);
        struct str out = { 0 };
        struct err e = ERR_INIT;

        state_save(&box_state, &a, &out);
        assert_true(state_load(&box_state, &b, out.s, out.len, &e));
        same(&a, &b);
        str_free(&out);
        free(a.extra);
        free(b.extra);
    }
}

/* Every truncation is refused; every flipped byte is refused or loads values within their bounds. */
static void tampering(void **state)
{
    struct box a = make(7), b = make(8);
    struct str out = { 0 };
    struct err e = ERR_INIT;

    state_save(&box_state, &a, &out);
    for (size_t n = 0; n < out.len; n++)
        assert_false(state_load(&box_state, &b, out.s, n, &e));
    for (size_t i = 0; i < out.len; i++)
        for (int bit = 0; bit < 8; bit++) {
            out.s[i] ^= (char)(1 << bit);
            if (state_load(&box_state, &b, out.s, out.len, &e))
                assert_true(b.ctl <= 1000 && !(b.ctl & 1) && *(uint8_t *)&b.live <= 1 && b.q[0].head <= 255 && b.n == 3);
            out.s[i] ^= (char)(1 << bit);
        }
    str_free(&out);
    free(a.extra);
    free(b.extra);
}

static void messages(void **state)
{
    struct box a = make(7), b = make(8);
    struct str out = { 0 };
    struct err e = ERR_INIT;

    b.n = 2;
    state_save(&box_state, &a, &out);
    assert_false(state_load(&box_state, &b, out.s, out.len, &e));
    assert_string_equal(e.msg, "saved state of 'box': field 'extra' has 3 elements, the device 2");
    a.ctl = 3;
    b.n = 3;
    out.len = 0;
    state_save(&box_state, &a, &out);
    assert_false(state_load(&box_state, &b, out.s, out.len, &e));
    assert_string_equal(e.msg, "odd ctl");
    str_free(&out);
    free(a.extra);
    free(b.extra);
}

static void gaps(void **state)
{
    static const struct state_field part[] = { STATE_UINT(struct box, ctl), STATE_BYTES(struct box, fifo), STATE_END };
    static const struct state_desc some = { "some", 1, part, NULL, NULL };
    uint32_t at;

    assert_false(state_gap(&box_state, 0, sizeof(struct box), &at));
    assert_true(state_gap(&some, 0, sizeof(struct box), &at));
    assert_in_range(at, offsetof(struct box, fifo) + 16, offsetof(struct box, table));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(tampering), cmocka_unit_test(messages), cmocka_unit_test(gaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
