/* SPDX-License-Identifier: MIT */
/* base: errors, numbers as typed, the three option dialects, lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/evfd.h"
#include "base/list.h"
#include "base/opt.h"
#include "base/str.h"

static const char *const colours[] = { "red", "green", "blue-ish", NULL };
static const char *colour(const void *t, size_t i) { return ((const char *const *)t)[i]; }

static void nearest_names(void **state)
{
    struct err e = ERR_INIT;

    assert_string_equal(err_nearest("gren", colour, colours), "green");
    assert_string_equal(err_nearest("blue_ish", colour, colours), "blue-ish");
    assert_string_equal(err_nearest("erd", colour, colours), "red");
    assert_null(err_nearest("magenta", colour, colours));
    assert_string_equal(err_nearest("blu", colour, colours), "blue-ish");
    assert_false(err_unknown(&e, "colour", "gren", " for a wall", colour, colours));
    assert_string_equal(e.msg, "unknown colour 'gren' for a wall");
    assert_string_equal(e.hint, "did you mean 'green'?");
    err_prefix(&e, "-paint %s", "x");
    assert_string_equal(e.msg, "-paint x: unknown colour 'gren' for a wall");
    err_os(&e, 2, "cannot open '%s'", "f");
    assert_string_equal(e.msg, "cannot open 'f': No such file or directory");
    assert_int_equal(e.os_errno, 2);
    err_set(&e, ERR_VALUE, "a\n%s\xc2\x9b\xc3\x9b", "\x1b[H\x7f");
    err_hint(&e, "\a");
    err_prefix(&e, "\r");
    assert_string_equal(e.msg, "?: a??[H???\xc3\x9b");
    assert_string_equal(e.hint, "?");
}

static void ranges(void **state)
{
    assert_true(range_ok(0, 0, 0));
    assert_true(range_ok(4, 4, 8));
    assert_false(range_ok(5, 4, 8));
    assert_false(range_ok(UINT64_MAX, 2, 8));
    assert_false(range_ok(2, UINT64_MAX, UINT64_MAX));
    assert_true(ranges_overlap(0, 4, 3, 1));
    assert_false(ranges_overlap(0, 4, 4, 1));
    assert_true(ranges_overlap(UINT64_MAX - 3, 4, UINT64_MAX, 1));
}

static void numbers(void **state)
{
    static const struct { const char *s; bool ok; uint64_t v; } t[] = {
        { "0", true, 0 }, { "10", true, 10 }, { "0x10", true, 16 }, { "0x", false, 0 }, { "", false, 0 },
        { "-1", false, 0 }, { " 1", false, 0 }, { "1 ", false, 0 }, { "18446744073709551615", true, UINT64_MAX },
        { "18446744073709551616", false, 0 }, { "1a", false, 0 },
    };
    static const struct { const char *s; bool ok; uint64_t v; } z[] = {
        { "1", true, MiB }, { "1K", true, KiB }, { "1.5G", true, GiB + GiB / 2 }, { "2GiB", true, 2 * GiB }, { "7b", true, 7 },
        { "1X", false, 0 }, { "16E", false, 0 }, { "15E", true, 15 * (GiB << 30) }, { "0x10k", false, 0 }, { "1.5b", false, 0 },
        { "1KB", false, 0 }, { ".5G", false, 0 },
    };
    int64_t s;
    uint64_t v;
    char buf[32];

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        assert_int_equal(parse_u64(t[i].s, &v), t[i].ok);
        if (t[i].ok)
            assert_int_equal(v, t[i].v);
    }
    for (size_t i = 0; i < ARRAY_SIZE(z); i++) {
        assert_int_equal(parse_size(z[i].s, MiB, &v), z[i].ok);
        if (z[i].ok)
            assert_int_equal(v, z[i].v);
    }
    assert_true(parse_s64("-9223372036854775808", &s) && s == INT64_MIN);
    assert_false(parse_s64("9223372036854775808", &s));
    assert_string_equal(format_size(1536 * MiB, buf), "1536 MiB");
    assert_string_equal(format_size(1000, buf), "1000");
}

/* @text parses to the JSON @want. */
static void parses(const char *text, const char *implied, const char *want)
{
    struct err e = ERR_INIT;
    json_t *got = opt_parse(text, implied, &e), *w = json_loads(want, 0, NULL);

    if (!got)
        fail_msg("%s: %s", text, e.msg);
    assert_non_null(w);
    if (!json_equal(got, w))
        fail_msg("%s gave %s", text, json_dumps(got, 0));
    json_decref(got);
    json_decref(w);
}

static void refuses(const char *text, const char *message)
{
    struct err e = ERR_INIT;

    assert_null(opt_parse(text, "driver", &e));
    assert_string_equal(e.msg, message);
}

static void dialects(void **state)
{
    struct err e = ERR_INIT;
    json_t *o;

    parses("nvme,serial=1", "driver", "{\"driver\":\"nvme\",\"serial\":\"1\"}");
    parses("x,a=1,,2,b", "driver", "{\"driver\":\"x\",\"a\":\"1,2\",\"b\":\"on\"}");
    parses("x,a.b=1,a.c=2", "driver", "{\"driver\":\"x\",\"a\":{\"b\":\"1\",\"c\":\"2\"}}");
    parses("x,l.0=a,l.1=b", "driver", "{\"driver\":\"x\",\"l\":[\"a\",\"b\"]}");
    parses("x,l.0.u=a,l.1.u=b", "driver", "{\"driver\":\"x\",\"l\":[{\"u\":\"a\"},{\"u\":\"b\"}]}");
    parses("{\"driver\":\"x\",\"n\":1}", "driver", "{\"driver\":\"x\",\"n\":1}");
    parses("nvme,help", "driver", "{\"driver\":\"nvme\",\"help\":\"on\"}");
    parses("help", "driver", "{\"help\":\"on\"}");
    parses("?", "driver", "{\"help\":\"on\"}");
    parses("a=b=c", "driver", "{\"a\":\"b=c\"}");
    parses("path=,x=1,", "driver", "{\"path\":\"\",\"x\":\"1\"}");
    refuses("x,=1", "a key is missing before '1'");
    refuses("x,a=1,a.b=2", "key 'a' is used both as a value and as a group");
    refuses("x,a..b=2", "ill-formed key '.b'");
    refuses("{\"a\":1,", "JSON: string or '}' expected near end of file (column 7)");
    refuses("x,a=\xff", "the value of 'a' is not UTF-8");
    o = opt_parse_flat("x,a.b=1", "driver", &e);
    assert_non_null(json_object_get(o, "a.b"));
    json_decref(o);
}

struct item { int v; struct list link; };

static void lists(void **state)
{
    struct list head = LIST_INIT(head);
    struct item items[4] = { 0 }, *it;
    int sum = 0;

    for (int i = 0; i < 4; i++) {
        items[i].v = i;
        list_push(&head, &items[i].link);
    }
    list_for_each(it, &head, link) {
        sum = sum * 10 + it->v;
        list_del(&it->link);
    }
    assert_int_equal(sum, 123);
    assert_true(list_empty(&head));
    assert_null(list_pop(&head));
}

/* What a peer does to a descriptor that it shares: it blocks, and its counter is full. Telling goes on at once, oftener than requests fit a queue. */
static void events_never_wait(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC), ends[2];
    eventfd_t n = 0;
    assert_true(fd >= 0);
    assert_false(evfd_take(fd));
    assert_int_equal(eventfd_write(fd, UINT64_MAX - 1), 0);
    for (int i = 0; i < 2000; i++)
        assert_true(evfd_tell(fd));
    assert_true(evfd_take(fd));
    assert_false(evfd_take(fd));
    for (int i = 0; i < 3; i++)
        assert_true(evfd_tell(fd));
    assert_int_equal(eventfd_read(fd, &n), 0);
    assert_int_equal(n, 3);
    close(fd);
    assert_false(evfd_tell(fd));
    assert_int_equal(pipe(ends), 0);
    assert_false(evfd_tell(ends[1]));       /* no eventfd */
    close(ends[0]);
    close(ends[1]);
}

static void words_that_ask_for_help(void **state)
{
    assert_true(opt_is_help("help") && opt_is_help("?"));
    assert_false(opt_is_help(NULL) || opt_is_help("") || opt_is_help("helper") || opt_is_help("Help"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_names), cmocka_unit_test(ranges), cmocka_unit_test(numbers), cmocka_unit_test(dialects),
        cmocka_unit_test(lists), cmocka_unit_test(events_never_wait), cmocka_unit_test(words_that_ask_for_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
