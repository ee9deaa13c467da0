/* SPDX-License-Identifier: MIT */
/* -drive and -blockdev as typed, and what the monitors say of the result. */
#include "loop_modes.h"
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "block/driver.h"
#include "core/cmd.h"
#include "core/flags.h"

static char dir[] = "/var/tmp/test_drive_XXXXXX";
static struct err err;

static bool apply(const char *opt, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool apply(const char *opt, const char *fmt, ...)
{
    va_list ap;
    char text[1024];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err = (struct err)ERR_INIT;
    LINKSET_EACH(cli_opts, struct cli_opt, o) {
        if (!strcmp(o->name, opt))
            return o->apply(text, &err);
    }
    fail_msg("no option -%s", opt);
    return false;
}

static struct blk_node *node(const char *id) { return (struct blk_node *)obj_find("blockdev", id); }

static void image(const char *name, const void *head, size_t n, uint64_t size)
{
    char *p = xasprintf("%s/%s", dir, name);
    int fd = open(p, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(pwrite(fd, head, n, 0), n);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    free(p);
}

static void drop(const char *id) { assert_true(blk_node_delete(node(id), &err)); }

static void a_drive_is_a_raw_node_over_a_file(void **state)
{
    image("a,b.img", "x", 1, 65536);
    assert_true(apply("drive", "file=%s/a,,b.img,if=none,id=d0,format=raw,cache=writethrough,discard=unmap,werror=report", dir));
    struct blk_node *n = node("d0");
    assert_non_null(n);
    assert_string_equal(n->obj.cls->name, "blockdev-raw");
    assert_true(n->drive->writethrough);
    assert_int_equal(n->drive->werror, BLK_ERR_REPORT);
    assert_int_equal(n->discard, BLK_DISCARD_UNMAP);
    assert_int_equal(n->child.node->discard, BLK_DISCARD_UNMAP);
    assert_non_null(strstr(blk_node_filename(n), "a,b.img"));
    drop("d0");
    assert_true(apply("drive", "file.driver=file,file.filename=%s/a,,b.img,file.locking=off,if=none,id=d1", dir));
    drop("d1");
    assert_true(apply("drive", "file=%s/a,,b.img,file.locking=off,if=none,id=d2", dir));
    drop("d2");
    assert_true(apply("drive", "file.driver=null-co,file.size=1M,if=none,id=d3"));
    assert_int_equal(atomic_load(&node("d3")->size), 1 << 20);
    drop("d3");
}

/* The guest may have written these bytes: they never choose a driver. */
static void a_format_is_never_guessed(void **state)
{
    image("evil", "QFI\xfb\0\0\0\3", 8, 65536);
    assert_false(apply("drive", "file=%s/evil,if=none,id=e", dir));
    assert_non_null(strstr(err.msg, "looks like a qcow2 image"));
    assert_non_null(strstr(err.hint, "format=raw"));
    assert_null(node("e"));
    assert_false(apply("drive", "file.driver=file,file.filename=%s/evil,if=none,id=e", dir));
    assert_non_null(strstr(err.msg, "looks like a qcow2 image"));
    assert_true(apply("drive", "file=%s/evil,if=none,id=e,format=raw", dir));
    assert_string_equal(node("e")->obj.cls->name, "blockdev-raw");
    drop("e");
}

static void mistakes_are_told(void **state)
{
    image("ok", "x", 1, 65536);
    assert_false(apply("drive", "file=%s/ok,if=none,id=x,cach=none", dir));
    assert_non_null(strstr(err.msg, "'cach'"));
    assert_non_null(strstr(err.hint, "'cache'"));
    assert_false(apply("drive", "if=virtio,id=x"));
    assert_non_null(strstr(err.msg, "'file' is missing"));
    assert_false(apply("drive", "if=none,id=x,format=raw"));
    assert_non_null(strstr(err.hint, "a format has no meaning"));
    assert_false(apply("drive", "file=%s/ok,if=ide", dir));
    assert_non_null(strstr(err.hint, "if=virtio"));
    assert_false(apply("drive", "file=%s/none,if=none,id=x", dir));
    assert_int_equal(err.os_errno, 2);
    assert_true(apply("drive", "file=%s/ok,if=pflash,unit=1,readonly=on,format=raw", dir));
    assert_false(apply("drive", "file=%s/ok,if=pflash,index=1,readonly=on,format=raw", dir));
    assert_non_null(strstr(err.msg, "already"));
    assert_true(apply("pflash", "%s/ok", dir));             /* the next free one */
    assert_non_null(blk_drive_find("pflash", 0));
    assert_ptr_not_equal(blk_drive_find("pflash", 0), blk_drive_find("pflash", 1));
    for (unsigned i = 0; i < 2; i++)
        assert_true(blk_node_delete((struct blk_node *)blk_drive_find("pflash", i), &err));
}

static void a_snapshot_drive_is_a_layer(void **state)
{
    image("snap", "x", 1, 65536);
    assert_true(apply("drive", "file=%s/snap,if=none,id=s,format=raw,snapshot=on", dir));
    assert_string_equal(node("s")->obj.cls->name, "blockdev-temporary");
    assert_true(node("s-base")->caps.read_only);
    assert_false(node("s")->caps.read_only);
    drop("s");
    cli_flags.snapshot = true;
    assert_true(apply("drive", "file=%s/snap,if=none,id=s,format=raw", dir));
    assert_string_equal(node("s")->obj.cls->name, "blockdev-temporary");
    drop("s");
    cli_flags.snapshot = false;
}

/* ---- monitors ---- */

static json_t *answer;
static const struct qmp_cmd *cmd;
static void *cmd_args;
static void run_cmd(void *unused) { answer = cmd->co_run(cmd_args, &err); }

static json_t *qmp(const char *name, void *args)
{
    cmd = NULL;
    LINKSET_EACH(qmp_cmds, struct qmp_cmd, c) {
        if (!strcmp(c->name, name))
            cmd = c;
    }
    assert_non_null(cmd);
    cmd_args = args;
    err = (struct err)ERR_INIT;
    co_run_main(run_cmd, NULL);
    return answer;
}

static void monitors_show_and_change_the_graph(void **state)
{
    image("q", "x", 1, 65536);
    assert_true(apply("blockdev", "driver=file,node-name=f0,filename=%s/q", dir));
    json_t *add = json_pack("{s:s, s:s, s:s}", "driver", "raw", "node-name", "r0", "file", "f0");
    json_decref(qmp("blockdev-add", add));
    assert_non_null(node("r0"));
    assert_null(qmp("blockdev-add", add));
    assert_non_null(strstr(err.msg, "exists already"));
    json_decref(add);
    struct { bool flag; } no = { false };
    json_t *nodes = qmp("query-named-block-nodes", &no);
    assert_int_equal(json_array_size(nodes), 2);
    const char *drv;
    json_int_t size;
    assert_int_equal(json_unpack(json_array_get(nodes, 1), "{s:s, s:{s:I}}", "drv", &drv, "image", "virtual-size", &size), 0);
    assert_string_equal(drv, "raw");
    assert_int_equal(size, 65536);
    json_decref(nodes);
    struct { char *node_name; } del_file = { "f0" }, del_raw = { "r0" };
    assert_null(qmp("blockdev-del", &del_file));
    assert_non_null(strstr(err.msg, "block node 'r0'"));
    struct blk *b = blk_open(node("r0"), BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_READ | BLK_PERM_RESIZE, NULL, "test", &err);
    struct { char *device, *node_name; int64_t size; } resize = { NULL, "r0", 131072 };
    json_decref(qmp("block_resize", &resize));
    assert_int_equal(blk_size(b), 131072);
    resize.size = 100;
    assert_null(qmp("block_resize", &resize));
    json_t *blocks = qmp("query-block", NULL), *stats = qmp("query-blockstats", &no);
    assert_int_equal(json_array_size(blocks), 1);
    assert_int_equal(json_array_size(stats), 1);
    json_decref(blocks);
    json_decref(stats);
    blk_close(b);
    json_decref(qmp("blockdev-del", &del_raw));
    json_decref(qmp("blockdev-del", &del_file));
    assert_null(node("f0"));
}

int main(void)
{
    const struct CMUnitTest drives[] = {
        cmocka_unit_test(a_drive_is_a_raw_node_over_a_file),
        cmocka_unit_test(a_format_is_never_guessed),
        cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(a_snapshot_drive_is_a_layer),
        cmocka_unit_test(monitors_show_and_change_the_graph),
    };
    if (!mkdtemp(dir))
        return 1;
    int failed = RUN_IN_BOTH_MODES(drives);
    char text[64];
    snprintf(text, sizeof text, "rm -rf %s", dir);
    return system(text) ? 1 : failed;
}
