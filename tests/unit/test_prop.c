/* SPDX-License-Identifier: MIT */
/* core/prop: every type of row, from text and from JSON, its limits and its messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/opt.h"
#include "core/prop.h"

static const char *const modes[] = { "off", "fast", "slow", NULL };

struct inner { uint32_t depth; bool lazy; };
static const struct prop inner_props[] = {
    PROP_U32(struct inner, depth, "depth", 3, 1, 9, "How deep"),
    PROP_BOOL(struct inner, lazy, "lazy", true, "Whether to wait"),
    PROP_END
};

struct thing {
    bool b; uint64_t bits; enum tri t; uint8_t u8; uint16_t u16; uint32_t u32; uint64_t u64; int32_t s32; uint64_t size, pow2;
    char *str, *named; int mode; uint8_t mac[6], uuid[16]; int32_t addr; char **list; json_t *any; struct inner in;
};
static const struct prop rows[] = {
    PROP_BOOL(struct thing, b, "b", true, "A switch"),
    PROP_BIT(struct thing, bits, 5, "bit5", false, "A bit"),
    PROP_TRI(struct thing, t, "t", TRI_AUTO, "On, off or whatever fits"),
    PROP_U8(struct thing, u8, "u8", 7, 0, 0, "A byte"),
    PROP_U16(struct thing, u16, "u16", 8, 2, 9, "A small number"),
    PROP_U32(struct thing, u32, "u32", 0, 0, 0, "A number"),
    PROP_U64(struct thing, u64, "u64", 0, 0, 0, "A large number"),
    PROP_S32(struct thing, s32, "s32", -1, -5, 5, "A signed number"),
    PROP_SIZE(struct thing, size, "size", 4096, 0, GiB, "A size"),
    { .name = "pow2", .doc = "A power", .type = PROP_T_U64, .off = offsetof(struct thing, pow2), .def = 4, .flags = PF_POW2 },
    PROP_STR(struct thing, str, "str", 0, "A text"),
    PROP_STR_DEF(struct thing, named, "named", "bob", "A name"),
    PROP_ENUM(struct thing, mode, "mode", modes, 1, "A mode"),
    PROP_MAC(struct thing, mac, "mac", "An address"),
    PROP_UUID(struct thing, uuid, "uuid", "An identity"),
    { .name = "addr", .doc = "A place", .type = PROP_T_PCI_ADDR, .off = offsetof(struct thing, addr) },
    PROP_STRV(struct thing, list, "list", "Some texts"),
    PROP_JSON(struct thing, any, "any", 0, "Anything"),
    PROP_INCLUDE(struct thing, in, inner_props),
    PROP_END
};

static struct thing thing;

static int fresh(void **state)
{
    memset(&thing, 0, sizeof thing);
    prop_defaults(rows, &thing);
    return 0;
}

static int done(void **state)
{
    prop_release(rows, &thing);
    return 0;
}

static bool apply(const char *text, struct err *e)
{
    json_t *o = opt_parse(text, NULL, e);
    bool ok = o && prop_set_all(rows, &thing, NULL, o, "thing 'x'", e);

    json_decref(o);
    return ok;
}

static void good(const char *text)
{
    struct err e = ERR_INIT;

    if (!apply(text, &e))
        fail_msg("%s: %s", text, e.msg);
}

static void bad(const char *text, const char *msg, const char *hint)
{
    struct err e = ERR_INIT;

    assert_false(apply(text, &e));
    assert_string_equal(e.msg, msg);
    assert_string_equal(e.hint, hint);
}

static void defaults(void **state)
{
    assert_true(thing.b && thing.u8 == 7 && thing.u16 == 8 && thing.s32 == -1 && thing.size == 4096 && thing.mode == 1);
    assert_true(thing.t == TRI_AUTO && thing.addr == -1 && thing.in.depth == 3 && thing.in.lazy && !thing.bits && !thing.str);
    assert_string_equal(thing.named, "bob");
}

static void values(void **state)
{
    static const uint8_t mac[] = { 0x52, 0x54, 0, 0x12, 0x34, 0xff };

    good("b=off,bit5=yes,t=on,u8=0xff,u16=9,u32=4294967295,u64=18446744073709551615,s32=-5,size=1G,pow2=16");
    assert_true(!thing.b && thing.bits == 32 && thing.t == TRI_ON && thing.u8 == 255 && thing.u16 == 9);
    assert_true(thing.u32 == UINT32_MAX && thing.u64 == UINT64_MAX && thing.s32 == -5 && thing.size == GiB && thing.pow2 == 16);
    good("str=a,,b,mode=slow,mac=52:54:00:12:34:ff,uuid=00112233-4455-6677-8899-aabbccddeeff,addr=1f.7,list=x:y,depth=9,nolazy");
    assert_string_equal(thing.str, "a,b");
    assert_true(thing.mode == 2 && thing.addr == 0xff && thing.in.depth == 9 && !thing.in.lazy);
    assert_memory_equal(thing.mac, mac, 6);
    assert_true(thing.uuid[0] == 0 && thing.uuid[15] == 0xff && thing.uuid[6] == 0x66);
    assert_string_equal(thing.list[1], "y");
    assert_null(thing.list[2]);
    good("{\"b\":true,\"u32\":5,\"s32\":-2,\"list\":[\"p\"],\"any\":{\"k\":[1]},\"str\":17,\"t\":false,\"addr\":8}");
    assert_true(thing.b && thing.u32 == 5 && thing.s32 == -2 && thing.t == TRI_OFF && thing.addr == 8);
    assert_string_equal(thing.list[0], "p");
    assert_string_equal(thing.str, "17");
    assert_int_equal(json_array_size(json_object_get(thing.any, "k")), 1);
}

static void limits(void **state)
{
    bad("u8=256", "'256' is not a valid value for 'u8'", "u8 takes: uint8 (0..255, default 7)");
    bad("u16=1", "'1' is not a valid value for 'u16'", "u16 takes: uint16 (2..9, default 8)");
    bad("{\"u8\":-1}", "'-1' is not a valid value for 'u8'", "u8 takes: uint8 (0..255, default 7)");
    bad("{\"u8\":1.5}", "'1.5' is not a valid value for 'u8'", "u8 takes: uint8 (0..255, default 7)");
    bad("{\"u8\":[1, {}]}", "'[1, {}]' is not a valid value for 'u8'", "u8 takes: uint8 (0..255, default 7)");
    bad("s32=6", "'6' is not a valid value for 's32'", "s32 takes: int32 (-5..5, default -1)");
    bad("size=2G", "'2G' is not a valid value for 'size'", "size takes: size (0..1 GiB, default 4 KiB)");
    bad("pow2=12", "'12' is not a valid value for 'pow2'",
        "pow2 takes: uint64 (0..18446744073709551615, default 4), power of 2");
    bad("mode=fats", "'fats' is not a valid value for 'mode'",
        "did you mean 'fast'? mode takes: enum (off|fast|slow, default fast)");
    bad("mac=53:54:00:12:34:56", "'53:54:00:12:34:56' is not a valid value for 'mac'",
        "the first byte of a card's own address is even (this is a multicast address)");
    bad("addr=20", "'20' is not a valid value for 'addr'", "addr=SLOT[.FUNCTION], in hex: slot 0 to 1f, function 0 to 7");
    bad("dpeth=1", "unknown property 'dpeth' for thing 'x'", "did you mean 'depth'?");
    bad("in.x=1", "unknown property 'in.x' for thing 'x'", "");
    bad("b=maybe", "'maybe' is not a valid value for 'b'", "b takes: on|off (default on)");
    assert_int_equal(thing.u8, 7);
}

/* Whatever is formatted is accepted again and gives the same value. */
static void round_trip(void **state)
{
    struct prop p;

    good("b=off,bit5=on,u8=1,u16=3,u64=99,s32=-3,size=1536,str=q,mode=off,mac=02:00:00:00:00:01,addr=3.2,list=a:b,depth=4");
    for (size_t i = 0; prop_nth(rows, i, &p); i++) {
        struct str one = { 0 }, two = { 0 };
        struct err e = ERR_INIT;
        json_t *v = prop_to_json(&p, &thing, NULL);

        prop_format(&p, &thing, NULL, &one);
        if (!prop_set(&p, &thing, NULL, v, &e))
            fail_msg("%s: %s", p.name, e.msg);
        prop_format(&p, &thing, NULL, &two);
        assert_true(str_eq(one.s, two.s));
        json_decref(v);
        str_free(&one);
        str_free(&two);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = { T(defaults), T(values), T(limits), T(round_trip) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
