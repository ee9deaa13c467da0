/* SPDX-License-Identifier: MIT */
/* Memory back ends: what they map, what they refuse, who may use them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "mem/ram.h"

static struct obj *make(const char *class, const char *id, const char *json, struct err *e)
{
    json_error_t je;
    json_t *o = json_loads(json, 0, &je);
    assert_non_null(o);
    struct obj *b = obj_create(obj_class_find(class), id, o, NULL, e);
    json_decref(o);
    return b;
}

static void test_anonymous(void **state)
{
    struct err e = ERR_INIT;
    struct obj *b = make("memory-backend-ram", "m0", "{\"size\": \"8M\", \"prealloc\": true}", &e);
    assert_non_null(b);
    struct ram *r = memory_backend_claim(b, "a test", &e);
    assert_non_null(r);
    assert_int_equal(r->size, 8 << 20);
    assert_int_equal(r->fd, -1);
    r->host[r->size - 1] = 1;
    assert_null(memory_backend_claim(b, "another", &e));
    assert_non_null(strstr(e.msg, "in use by a test"));
    assert_false(obj_user_delete(b, &e));
    memory_backend_release(b);
    assert_true(obj_user_delete(b, &e));
}

static void test_memfd_is_shared(void **state)
{
    struct err e = ERR_INIT;
    uint8_t byte = 0;
    struct obj *b = make("memory-backend-memfd", "m1", "{\"size\": 1048576}", &e);
    assert_non_null(b);
    struct ram *r = memory_backend_claim(b, "a test", &e);
    assert_true(r->fd >= 0 && r->share);
    r->host[4096] = 0x5a;
    assert_int_equal(pread(r->fd, &byte, 1, 4096), 1);
    assert_int_equal(byte, 0x5a);
    assert_int_equal(ftruncate(r->fd, 4096), -1);       /* sealed */
    memory_backend_release(b);
    assert_true(obj_user_delete(b, &e));
}

static void test_file(void **state)
{
    struct err e = ERR_INIT;
    char path[] = "/tmp/memdev-XXXXXX", json[200];
    struct stat st;
    uint8_t byte = 0;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(json, sizeof json, "{\"size\": \"64K\", \"share\": true, \"offset\": 4096, \"mem-path\": \"%s\"}", path);
    struct obj *b = make("memory-backend-file", "m2", json, &e);
    if (!b)
        fail_msg("%s", e.msg);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 65536 + 4096);
    struct ram *r = memory_backend_claim(b, "a test", &e);
    r->host[1] = 7;
    assert_int_equal(pread(fd, &byte, 1, 4097), 1);
    assert_int_equal(byte, 7);
    memory_backend_release(b);
    assert_true(obj_user_delete(b, &e));

    snprintf(json, sizeof json, "{\"size\": \"1M\", \"mem-path\": \"%s\"}", path);     /* the file is smaller */
    assert_null(make("memory-backend-file", "m3", json, &e));
    assert_non_null(strstr(e.msg, "the file has 69632 bytes"));
    unlink(path);
    close(fd);
}

static void test_sizes_are_whole_pages(void **state)
{
    struct err e = ERR_INIT;
    const struct { const char *json; uint64_t size; } c[] = { { "{\"size\": 8}", 4096 }, { "{\"size\": 4096}", 4096 }, { "{\"size\": 5000}", 8192 } };
    for (size_t i = 0; i < 3; i++) {
        struct obj *b = make("memory-backend-ram", "pages", c[i].json, &e);
        assert_non_null(b);
        struct ram *r = memory_backend_claim(b, "a test", &e);
        assert_int_equal(r->size, c[i].size);
        r->host[r->size - 1] = 1;
        memory_backend_release(b);
        assert_true(obj_user_delete(b, &e));
    }
}

static void test_refusals(void **state)
{
    struct err e = ERR_INIT;
    assert_null(make("memory-backend-ram", "m4", "{}", &e));
    assert_non_null(strstr(e.msg, "size="));
    assert_null(make("memory-backend-ram", "m5", "{\"size\": 0}", &e));
    assert_null(make("memory-backend-memfd", "m6", "{\"size\": \"1M\", \"hugetlbsize\": \"2M\"}", &e));
    assert_null(make("memory-backend-file", "m7", "{\"size\": \"1M\", \"mem-path\": \"/nonexistent/x\"}", &e));
    assert_non_null(strstr(e.msg, "No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anonymous), cmocka_unit_test(test_memfd_is_shared), cmocka_unit_test(test_file), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_sizes_are_whole_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
