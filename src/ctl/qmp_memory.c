/* SPDX-License-Identifier: MIT */
/* Guest memory as a file of bytes: memsave, pmemsave. Where nothing is, memsave fails, as `x` of the monitor does; pmemsave reads zero. */
#include "ctl/qmp_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "core/cmd.h"
#include "core/debug.h"
#include "core/run.h"
#include "loop/co.h"
#include "mem/view.h"

enum { CHUNK = 1 << 20, PAGE = 4096 };

struct save_args { uint64_t val, size; char *filename; int64_t cpu; };
#define ROWS(what) \
    { .name = "val", .doc = what " address of the first byte", .type = PROP_T_U64, .flags = PF_REQUIRED, PROP_OFF(struct save_args, val) }, \
    { .name = "size", .doc = "How many bytes", .type = PROP_T_U64, .flags = PF_REQUIRED, PROP_OFF(struct save_args, size), .max = INT64_MAX }, \
    PROP_STR(struct save_args, filename, "filename", PF_REQUIRED, "File to write")
static const struct prop virtual_props[] = { ROWS("Virtual"),
    PROP_S64(struct save_args, cpu, "cpu-index", 0, 0, 0xffff, "The CPU whose address translation counts"), PROP_END };
static const struct prop physical_props[] = { ROWS("Physical"), PROP_END };

/* One piece of the file, written in a worker. */
struct piece { int fd; const uint8_t *data; size_t len; };

static int write_piece(void *arg)
{
    struct piece *p = arg;
    while (p->len) {
        ssize_t n = write(p->fd, p->data, p->len);
        if (n < 0 && errno != EINTR)
            return -errno;
        p->data += n < 0 ? 0 : n;
        p->len -= n < 0 ? 0 : (size_t)n;
    }
    return 0;
}

int co_write_whole(int fd, const void *data, size_t n)
{
    struct piece p = { fd, data, n };
    return co_offload(write_piece, &p);
}

/* @n bytes from @addr on; false: nothing is at a virtual address, *@addr is moved to it or to the begin of its page. */
static bool read_guest(uint64_t *addr, int cpu, uint8_t *buf, size_t n)
{
    if (cpu < 0) {
        bool whole = as_read_bytes(&as_memory, *addr, buf, n);
        (void)whole;                    /* what is not there is zero */
        return true;
    }
    bool ran = run_is_running(), ok = true;
    if (ran)
        debug_ops->freeze(true);
    for (size_t done = 0, part; done < n && ok; done += part) {
        uint64_t pa, va = *addr + done;
        part = MIN(n - done, PAGE - (va & (PAGE - 1)));
        ok = debug_ops->translate((unsigned)cpu, va, &pa) && as_read_bytes(&as_memory, pa, buf + done, part);
        if (!ok)
            *addr = va;
    }
    if (ran)
        debug_ops->freeze(false);
    return ok;
}

static bool co_copy(const struct save_args *a, int cpu, int fd, struct err *e)
{
    uint8_t *buf = calloc(1, CHUNK);
    if (!buf)
        return err_os(e, ENOMEM, "no memory for a copy");
    bool ok = true;
    for (uint64_t done = 0; done < a->size && ok; done += MIN(a->size - done, (uint64_t)CHUNK)) {
        size_t n = (size_t)MIN(a->size - done, (uint64_t)CHUNK);
        uint64_t addr = a->val + done;
        if (!read_guest(&addr, cpu, buf, n)) {
            ok = err_set(e, ERR_VALUE, "Invalid addr 0x%016llx/size %llu specified", (unsigned long long)addr, (unsigned long long)a->size);
            break;
        }
        int r = co_write_whole(fd, buf, n);
        ok = !r || err_os(e, -r, "filename=%s", a->filename);
    }
    free(buf);
    return ok;
}

static json_t *co_save(const struct save_args *a, int cpu, struct err *e)
{
    int fd = open(a->filename, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        err_os(e, errno, "Could not open '%s'", a->filename);
        return NULL;
    }
    bool ok = co_copy(a, cpu, fd, e);
    if (close(fd) && ok)
        ok = err_os(e, errno, "filename=%s", a->filename);
    return ok ? json_object() : NULL;
}

static json_t *co_memsave(void *args, struct err *e)
{
    const struct save_args *a = args;
    if (!debug_ops || a->cpu >= debug_ops->n_cpus()) {
        err_set(e, ERR_VALUE, "Invalid parameter 'cpu-index': expected a CPU number");
        return NULL;
    }
    return co_save(a, (int)a->cpu, e);
}

static json_t *co_pmemsave(void *args, struct err *e) { return co_save(args, -1, e); }

static const struct qmp_cmd cmd_memsave = { "memsave", "Writes memory as a CPU addresses it to a file", virtual_props, sizeof(struct save_args), co_memsave,
    .ret = qmp_nothing };
QMP_CMD(&cmd_memsave);
static const struct qmp_cmd cmd_pmemsave = { "pmemsave", "Writes physical memory to a file", physical_props, sizeof(struct save_args), co_pmemsave,
    .ret = qmp_nothing };
QMP_CMD(&cmd_pmemsave);

static const struct hmp_cmd hmp_memsave = { .name = "memsave", .args = "ADDR SIZE FILE", .doc = "writes memory as the CPU addresses it to a file",
    .qmp = "memsave", .words = "val size filename cpu-index@" };
HMP_CMD(&hmp_memsave);
static const struct hmp_cmd hmp_pmemsave = { .name = "pmemsave", .args = "ADDR SIZE FILE", .doc = "writes physical memory to a file",
    .qmp = "pmemsave", .words = "val size filename" };
HMP_CMD(&hmp_pmemsave);
